//! What apps have of replication: downloads of every kind, single blocks, and how far they are.

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::{identity, meet, party_key};
use futures_util::future::join_all;
use party::{
    connection::{self, Connection},
    error::Error,
    feed::{Download, DownloadOptions, Feed, FetchOptions, Order},
    key::DiscoveryKey,
    party::{Open, Party},
    peer::{Peer, Replicate},
    rules::{self, Rules},
    store::{FeedOptions, Store},
};

/// Releases one feed, to be replicated in this way.
struct One(Feed, Replicate);

impl Rules for One {
    async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
        peer.replicate_as(&self.0, self.1).await?;
        Ok(())
    }

    async fn introduce_feeds(
        &self,
        _: &Peer,
        _: Vec<party::key::FeedKey>,
    ) -> rules::Result<Vec<party::key::FeedKey>> {
        Ok(vec![])
    }

    async fn find_feed(&self, _: &Peer, key: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(Some(&self.0).filter(|feed| feed.discovery_key() == *key).cloned())
    }
}

fn block(index: u64) -> Bytes {
    format!("block {index}").into()
}

async fn written(blocks: u64) -> Feed {
    let feed = Store::memory().create_feed("written", FeedOptions::default()).await.unwrap();
    feed.append_batch((0..blocks).map(block).collect()).await.unwrap();
    feed
}

async fn reader_of(writer: &Feed) -> Feed {
    Store::memory().feed(&writer.key()).await.unwrap()
}

/// A connection over which `reader` gets what it asks for.
async fn sparsely(writer: &Feed, reader: &Feed) -> (Connection, Connection) {
    let party = |feed: &Feed| Party::new(party_key(1), One(feed.clone(), Replicate::sparsely()));
    meet(&party(reader), &party(writer)).await
}

#[tokio::test]
async fn ten_thousand_blocks_are_waited_for_at_once() {
    let writer = written(20_000).await;
    let reader = reader_of(&writer).await;
    let _connection = sparsely(&writer, &reader).await;
    let start = std::time::Instant::now();
    let fetches = (0..10_000).map(|n| {
        let reader = reader.clone();
        tokio::spawn(async move { reader.fetch(n * 2).await })
    });
    for (n, fetched) in (0..).zip(join_all(fetches).await) {
        assert_eq!(fetched.unwrap().unwrap(), block(n * 2));
    }
    eprintln!("{:?}", start.elapsed());
    assert!(reader.demand().is_empty());
    assert!(!reader.has(1));
}

#[tokio::test]
async fn one_after_the_other() {
    let count = 5_000;
    let writer = written(count).await;
    let reader = reader_of(&writer).await;
    let _connection = sparsely(&writer, &reader).await;
    let start = std::time::Instant::now();
    for n in 0..count {
        reader.fetch((n * 7919) % count).await.unwrap();
    }
    eprintln!("{:?}", start.elapsed());
}
