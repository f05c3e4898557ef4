//! What goes over a feed's channel beside blocks that were asked for, with Node peers: messages of apps, pushes, byte
//! offsets, urgent requests.
#![cfg(feature = "node")]

mod common;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use common::{Dials, Place, connect, hang_up, hex, in_time, no_complaints};
use conformance::node::{Kind, NodeOptions, NodePeer, Release, block};
use party::{
    connection::{self, Connection},
    feed::Feed,
    key::{DiscoveryKey, FeedKey, KeyPair},
    party::Open,
    peer::{Peer, Replicate},
    rules::{self, Rules},
    store::{FeedOptions, Store},
};
use serde_json::json;

const RELEASES: [(Release, Kind); 3] =
    [(Release::Eleven, Kind::Default), (Release::Ten, Kind::Compat), (Release::TenNineteen, Kind::Compat)];

fn node(release: Release) -> Result<NodePeer> {
    NodePeer::spawn(&NodeOptions::cores(release))
}

/// Says something as Node's extension of this name.
async fn say(node: &NodePeer, extension: &str, message: &str) -> Result<()> {
    let hex = hex(message.as_bytes());
    let said = node.call(json!({"do": "say", "name": "f", "extension": extension, "hex": hex})).await?;
    ensure!(said["peers"] == 1, "node has {} peers", said["peers"]);
    Ok(())
}

/// What Node has heard, by extension.
async fn heard(node: &NodePeer, count: usize) -> Result<Vec<(String, String)>> {
    node.wait_for("said", count).await?;
    let events = node.events().into_iter().filter(|event| event["event"] == "said");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(events.map(|event| (text(&event["extension"]), text(&event["hex"]))).collect())
}

//= protocol-spec/07-replication.md#extension-9
#[tokio::test(flavor = "multi_thread")]
async fn apps_talk_to_node_apps_beside_a_feed() -> Result<()> {
    in_time(async {
        for (dials, (release, kind)) in [Dials::Rust, Dials::Node, Dials::Rust].into_iter().zip(RELEASES) {
            let (rust, node) = (Place::Memory.peer().await?, node(release)?);
            let theirs = node.create("f", kind).await?;
            node.append("f", 1, 3, 10).await?;
            rust.open("f", &theirs.key).await?;
            for extension in ["a", "b"] {
                node.call(json!({"do": "listenTo", "name": "f", "extension": extension})).await?;
            }
            let feed = rust.feed("f")?;
            let (a, b, unheard) = (feed.extension("a"), feed.extension("b"), feed.extension("unheard"));
            connect(&rust, &node, dials).await?;
            rust.follow("f", 3).await?;

            // The same name again is left out on the wire, as is that of what nobody listens to.
            let mut sent = Vec::new();
            for (extension, message) in
                [(&a, "1"), (&a, "2"), (&b, "3"), (&unheard, "4"), (&unheard, "5"), (&b, "6")]
            {
                ensure!(extension.broadcast(message) == 1, "there is no peer");
                if extension.name() != "unheard" {
                    sent.push((extension.name().to_owned(), hex(message.as_bytes())));
                }
            }
            assert_eq!(heard(&node, 4).await?, sent);

            for (extension, message) in [("a", "one"), ("a", "two"), ("b", "three"), ("b", ""), ("a", "four")]
            {
                say(&node, extension, message).await?;
            }
            let mut came = Vec::new();
            for extension in [&a, &a, &b, &b, &a] {
                let (peer, message) = extension.recv().await.context("the feed is gone")?;
                came.push(message);
                extension.send(&peer, "thanks")?;
            }
            assert_eq!(came, ["one", "two", "three", "", "four"]);
            assert_eq!(heard(&node, 9).await?.len(), 9);
            hang_up(&rust, &node).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_found_at_node_peers_of_every_release() -> Result<()> {
    in_time(async {
        for (release, kind) in RELEASES {
            let (rust, node) = (Place::Memory.peer().await?, node(release)?);
            let theirs = node.create("f", kind).await?;
            node.append("f", 1, 1_000, 70).await?;
            rust.open("f", &theirs.key).await?;
            let feed = rust.feed("f")?;
            connect(&rust, &node, Dials::Rust).await?;
            for bytes in [1, 69, 70, 33_333, 69_999, 70_000] {
                assert_eq!(feed.find(bytes).await?, (bytes / 70, bytes % 70), "byte {bytes} at {release:?}");
            }
            let stored = (0..1_000).filter(|index| feed.has(*index)).count();
            ensure!(stored <= 12, "{stored} blocks for a few offsets at {release:?}");
            hang_up(&rust, &node).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn urgent_blocks_come_from_node_peers_of_every_release() -> Result<()> {
    in_time(async {
        for (release, kind) in RELEASES {
            let (rust, node) = (Place::Memory.peer().await?, node(release)?);
            let theirs = node.create("f", kind).await?;
            node.append("f", 1, 2_000, 500).await?;
            rust.open("f", &theirs.key).await?;
            connect(&rust, &node, Dials::Rust).await?;
            let everything = rust.want_all("f")?;
            assert_eq!(rust.get("f", 1_990).await?, block(1, 1_990, 500), "{release:?}");
            everything.download(0..2_000).done().await?;
            hang_up(&rust, &node).await?;
        }
        Ok(())
    })
    .await
}

/// Releases one feed in open mode, to be replicated in this way.
struct One(Feed, Replicate);

impl Rules for One {
    async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
        peer.replicate_as(&self.0, self.1).await?;
        Ok(())
    }

    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(vec![])
    }

    async fn find_feed(&self, _: &Peer, key: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(Some(&self.0).filter(|feed| feed.discovery_key() == *key).cloned())
    }
}

async fn dial(feed: &Feed, how: Replicate, node: &NodePeer) -> Result<Connection> {
    let open = Open::new(One(feed.clone(), how));
    let port = node.listen().await?;
    Ok(connection::dial(("127.0.0.1", port), &KeyPair::generate()).await?.open(&open).await?)
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

//= protocol-spec/07-replication.md#push
#[tokio::test(flavor = "multi_thread")]
async fn what_we_append_is_pushed_to_a_node_reader_that_takes_it() -> Result<()> {
    in_time(async {
        let node = NodePeer::spawn(&NodeOptions::store())?;
        let feed = Store::memory().create_feed("f", FeedOptions::default()).await?;
        feed.append_batch((0..5).map(|n| block(1, n, 100)).collect()).await?;
        node.open("f", &hex(feed.key().as_bytes())).await?;
        node.call(json!({"do": "allowPush", "name": "f"})).await?;
        let connection = dial(&feed, Replicate::fully().with_push(), &node).await?;
        node.follow("f", 5).await?;
        for length in 6..40 {
            feed.append(block(1, length - 1, 100)).await?;
            node.follow("f", length).await?;
        }
        // Several at once, and one after the other without waiting.
        feed.append_batch((39..45).map(|n| block(1, n, 100)).collect()).await?;
        for n in 45..60 {
            feed.append(block(1, n, 100)).await?;
        }
        node.follow("f", 60).await?;
        for index in [0, 5, 39, 44, 59] {
            assert_eq!(node.get("f", index).await?, hex(&block(1, index, 100)));
        }
        let pushed = feed.peers().first().context("no peer")?.status().counters.blocks_pushed_by_us;
        ensure!(pushed >= 30, "{pushed} blocks were pushed");
        no_complaints(&node)?;
        connection.close().await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reader_that_says_nothing_is_never_pushed_to() -> Result<()> {
    in_time(async {
        for (release, kind) in RELEASES {
            let node = node(release)?;
            let options = FeedOptions::default();
            let feed = match kind {
                Kind::Default => Store::memory().create_feed("f", options).await?,
                _ => Store::memory().create_feed("f", options.compat(true)).await?,
            };
            feed.append("first").await?;
            node.open("f", &hex(feed.key().as_bytes())).await?;
            let connection = dial(&feed, Replicate::fully().with_push(), &node).await?;
            node.follow("f", 1).await?;
            feed.append("second").await?;
            feed.push(1..2);
            node.follow("f", 2).await?;
            let counters = feed.peers().first().context("no peer")?.status().counters;
            assert_eq!(counters.blocks_pushed_by_us, 0, "{release:?}");
            no_complaints(&node)?;
            connection.close().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_writer_pushes_is_taken_or_passed_over_and_nothing_is_lost() -> Result<()> {
    in_time(async {
        let node = NodePeer::spawn(&NodeOptions::store())?;
        let theirs = node.create("f", Kind::Default).await?;
        node.append("f", 1, 20, 100).await?;
        let key: FeedKey = theirs.key.parse().context("a key")?;
        let store = Store::memory();
        let feed = store.feed(&key).await?;
        let how = Replicate::fully().with_push();
        let connection = dial(&feed, how, &node).await?;
        feed.download(0..20).done().await?;
        for length in 21..60 {
            node.append("f", 1, 1, 100).await?;
            // It pushes what it has told of already, so that it crosses with what we ask for.
            node.call(json!({"do": "push", "name": "f", "index": length - 1})).await?;
            feed.download(length - 1..length).done().await?;
        }
        // Nor does it push all that it appends.
        node.append("f", 1, 40, 100).await?;
        feed.download(0..99).done().await?;
        let status = feed.peers().first().context("no peer")?.status();
        let came = status.counters.blocks_pushed_to_us + status.counters.unwanted_pushes;
        ensure!(came > 0 && status.state == party::peer::LinkState::Open, "{status:?}");
        connection.close().await?;
        node.wait_for("streamClosed", 1).await?;

        // Node answers a reader that takes pushes as if it had nothing. It comes to its blocks all the same.
        node.append("f", 1, 50, 100).await?;
        let connection = dial(&feed, how, &node).await?;
        feed.download(0..149).done().await?;
        until(|| feed.peers().first().is_some_and(|link| link.status().in_sync)).await;
        for index in [0, 60, 148] {
            assert_eq!(feed.get(index).await?.context("not stored")?, block(1, index, 100));
        }
        connection.close().await?;
        no_complaints(&node)
    })
    .await
}
