//! Feeds that go to another fork among our peers and Node's, over relays and in the middle of a transfer; and a feed whose
//! signer contradicts itself in front of Node.
#![cfg(feature = "node")]

mod common;

use anyhow::{Result, ensure};
use bytes::Bytes;
use common::{Dials, Place, connect, in_time, no_complaints};
use conformance::{
    node::{Kind, NodeOptions, NodePeer, Release, digest_of_blocks},
    peer::Peer,
};
use party::store::{FeedOptions, Store};

/// Whatever is added has the seed that it is added with, so a digest over one seed stands for a feed that begins anew.
const SIZE: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_ours_that_was_away_follows_a_node_writer() -> Result<()> {
    for options in
        [NodeOptions::store(), NodeOptions::cores(Release::Ten), NodeOptions::cores(Release::TenNineteen)]
    {
        in_time(async {
            let (rust, node) = (Place::Disk.peer().await?, NodePeer::spawn(&options)?);
            let theirs = node.create("theirs", Kind::Compat).await?;
            node.append("theirs", 1, 1_500, SIZE).await?;
            rust.open("theirs", &theirs.key).await?;
            let port = node.listen().await?;
            rust.dial(port).await?;
            rust.follow("theirs", 1_500).await?;
            rust.hang_up().await?;

            // The same blocks as before: whatever is kept and whatever is fetched must fit together.
            for (length, more) in [(1_100, 300), (1_250, 550), (64, 1_700)] {
                node.truncate("theirs", length).await?;
                node.append("theirs", 1, more, SIZE).await?;
            }
            rust.dial(port).await?;
            rust.reach("theirs", 3, 1_764, &[(0, 1_764)]).await?;
            ensure!(rust.digest("theirs").await? == digest_of_blocks(1, 1_764, SIZE), "other blocks came");
            ensure!(rust.feed("theirs")?.audit().await?.problems.is_empty(), "it does not verify");
            no_complaints(&node)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_in_the_middle_of_a_transfer_is_followed() -> Result<()> {
    for dials in [Dials::Node, Dials::Rust] {
        in_time(async {
            let (rust, node) = (Place::Memory.peer().await?, NodePeer::spawn(&NodeOptions::store())?);
            let theirs = node.create("theirs", Kind::Default).await?;
            node.append("theirs", 2, 5_000, SIZE).await?;
            rust.open("theirs", &theirs.key).await?;
            connect(&rust, &node, dials).await?;
            rust.follow("theirs", 500).await?;
            for length in [4_000, 1_000, 10] {
                node.truncate("theirs", length).await?;
                node.append("theirs", 2, 500, SIZE).await?;
            }
            // Hypercore that cuts off a feed while it makes proofs of it ends the connection, most often. Then there is a
            // new one.
            let again = async {
                for times in 1.. {
                    node.wait_for("streamError", times).await?;
                    connect(&rust, &node, dials).await?;
                }
                Ok(())
            };
            tokio::select! {
                reached = rust.reach("theirs", 3, 510, &[(0, 510)]) => drop(reached?),
                failed = again => return failed,
            }
            ensure!(rust.digest("theirs").await? == digest_of_blocks(2, 510, SIZE), "other blocks came");
            for event in node.events() {
                let name = event["event"].as_str().unwrap_or_default();
                let is_cut_off = event["message"].as_str().is_some_and(|m| m.contains("Expected tree node"));
                ensure!(!["verificationError", "conflict", "noise"].contains(&name), "node says {event}");
                ensure!(name != "streamError" || is_cut_off, "node says {event}");
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_travels_from_node_over_us_to_node() -> Result<()> {
    in_time(async {
        let (writer, reader) =
            (NodePeer::spawn(&NodeOptions::store())?, NodePeer::spawn(&NodeOptions::cores(Release::Ten))?);
        let relay = Place::Memory.peer().await?;
        let feed = writer.create("feed", Kind::Compat).await?;
        writer.append("feed", 3, 300, SIZE).await?;
        relay.open("feed", &feed.key).await?;
        reader.open("feed", &feed.key).await?;
        relay.dial(writer.listen().await?).await?;
        reader.dial(relay.listen().await?).await?;
        relay.want_all("feed")?;
        reader.follow("feed", 300).await?;
        for (fork, length) in [(1, 200), (2, 399), (3, 0)] {
            writer.truncate("feed", length).await?;
            writer.append("feed", 3, 400 - length, SIZE).await?;
            reader.reach("feed", fork, 400, &[(0, 400)]).await?;
        }
        ensure!(reader.digest("feed").await? == digest_of_blocks(3, 400, SIZE), "other blocks came");
        no_complaints(&writer)?;
        no_complaints(&reader)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_travels_from_us_over_node_to_us() -> Result<()> {
    in_time(async {
        let (writer, reader) = (Place::Memory.peer().await?, Place::Disk.peer().await?);
        let relay = NodePeer::spawn(&NodeOptions::store())?;
        let feed = writer.create("feed", Kind::Default).await?;
        writer.append("feed", 4, 300, SIZE).await?;
        relay.open("feed", &feed.key).await?;
        reader.open("feed", &feed.key).await?;
        relay.dial(writer.listen().await?).await?;
        reader.dial(relay.listen().await?).await?;
        relay.follow("feed", 300).await?;
        reader.follow("feed", 300).await?;
        for (fork, length) in [(1, 200), (2, 399), (3, 1)] {
            writer.truncate("feed", length).await?;
            writer.append("feed", 4, 400 - length, SIZE).await?;
            reader.reach("feed", fork, 400, &[(0, 400)]).await?;
        }
        ensure!(reader.digest("feed").await? == digest_of_blocks(4, 400, SIZE), "other blocks came");
        no_complaints(&relay)
    })
    .await
}

/// Two copies of one writer's store, written to apart. Node has read the one and meets the other.
#[tokio::test(flavor = "multi_thread")]
async fn node_and_we_see_the_same_conflict() -> Result<()> {
    in_time(async {
        let node = NodePeer::spawn(&NodeOptions::store())?;
        let mut writers = Vec::new();
        for n in 0..2_u64 {
            let store = Store::memory();
            let feed = store.create_feed("feed", FeedOptions::default().seed([8; 32])).await?;
            let text =
                |index: u64| Bytes::from(if index < 6 { format!("{index}") } else { format!("{index} {n}") });
            feed.append_batch((0..10 + 3 * n).map(text).collect()).await?;
            writers.push((Peer::new(store), feed));
        }
        let [(first, ours), (second, theirs)] = &writers[..] else { unreachable!("two were made") };
        node.open("feed", &ours.key().to_string()).await?;
        let port = node.listen().await?;
        first.dial(port).await?;
        node.follow("feed", 10).await?;

        let mut changes = theirs.subscribe();
        second.dial(port).await?;
        node.wait_for("conflict", 1).await?;
        while theirs.conflict().is_none() {
            changes.changed().await;
        }
        ensure!(theirs.conflict().is_some_and(|conflict| (conflict.fork, conflict.length) == (0, 10)));
        Ok(())
    })
    .await
}
