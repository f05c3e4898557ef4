//! What goes over a feed's channel beside blocks that were asked for: messages of apps, pushes, byte offsets.

use std::time::Duration;

use crate::common::{
    meet,
    one_feed::{party_of, reader_of},
};
use bytes::Bytes;
use party::{
    connection::Connection,
    error::{ApiMisuse, Error},
    feed::Feed,
    limits::Limits,
    peer::Replicate,
    store::{FeedOptions, Store},
};

async fn written(blocks: u64) -> Feed {
    let feed = Store::memory().create_feed("written", FeedOptions::default()).await.unwrap();
    feed.append_batch((0..blocks).map(|_| Bytes::from(vec![7; 50])).collect()).await.unwrap();
    feed
}

/// A connection on which each replicates its feed in its way.
async fn connect(a: &Feed, how_a: Replicate, b: &Feed, how_b: Replicate) -> (Connection, Connection) {
    meet(&party_of(a, how_a), &party_of(b, how_b)).await
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

//= REPL-69
#[tokio::test]
async fn apps_talk_beside_a_feed() {
    in_time(async {
        let writer = written(3).await;
        let reader = reader_of(&writer).await;
        let (ours, theirs) = (writer.extension("cursor"), reader.extension("cursor"));
        let other = reader.extension("other");
        assert_eq!(ours.broadcast("nobody is there"), 0);
        let connections = connect(&writer, Replicate::fully(), &reader, Replicate::fully()).await;
        writer.wait_for_length(3).await;
        reader.download(0..3).done().await.unwrap();

        assert_eq!(ours.broadcast("one"), 1);
        assert_eq!(ours.broadcast("two"), 1);
        let (peer, message) = theirs.recv().await.unwrap();
        assert_eq!(message, "one");
        assert_eq!(peer.remote_public_key(), connections.1.remote_public_key());
        theirs.send(&peer, "answer").unwrap();
        assert_eq!(theirs.recv().await.unwrap().1, "two");
        let (peer, message) = ours.recv().await.unwrap();
        assert_eq!((message, peer.remote_public_key()), ("answer".into(), connections.0.remote_public_key()));

        // Who listens to another name hears nothing of it, and several may listen to one.
        let again = reader.extension("other");
        writer.extension("other").broadcast("for two");
        assert_eq!(
            (other.recv().await.unwrap().1, again.recv().await.unwrap().1),
            ("for two".into(), "for two".into())
        );

        drop(connections);
        peer_is_gone(&peer).await;
        assert!(matches!(ours.send(&peer, "late"), Err(Error::Closed)));
    })
    .await;
}

async fn peer_is_gone(peer: &party::feed::FeedPeer) {
    while peer.is_open() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_an_app_does_not_fetch_is_dropped_beyond_the_limit() {
    in_time(async {
        let writer = written(1).await;
        let reader = reader_of(&writer).await;
        let (ours, theirs) = (writer.extension("a"), reader.extension("a"));
        let _connections = connect(&writer, Replicate::fully(), &reader, Replicate::fully()).await;
        reader.download(0..1).done().await.unwrap();
        let most = Limits::default().max_queued_extensions;
        let mut sent = 0;
        while sent < most + 10 {
            sent += ours.broadcast(sent.to_string());
            tokio::task::yield_now().await;
        }
        let peer = ours.peers().remove(0);
        let too_long = vec![0; Limits::default().max_extension_message + 1];
        let result = ours.send(&peer, too_long);
        assert!(matches!(result, Err(Error::ApiMisuse(ApiMisuse::LimitExceeded("max_extension_message")))));
        // Nobody fetches any, and so the last are dropped: on the channel if they came at once, else behind it.
        let peer = theirs.peers().remove(0);
        let dropped = || peer.dropped_extensions() + reader.peers()[0].status().counters.dropped_extensions;
        while dropped() < 10 {
            tokio::task::yield_now().await;
        }
        for n in 0..most {
            assert_eq!(theirs.recv().await.unwrap().1, n.to_string());
        }
        ours.broadcast("end");
        assert_eq!((theirs.recv().await.unwrap().1, dropped()), ("end".into(), 10));
    })
    .await;
}

#[tokio::test]
async fn a_purged_feed_says_nothing_more() {
    let store = Store::memory();
    let feed = store.create_feed("f", FeedOptions::default()).await.unwrap();
    let (extension, key) = (feed.extension("a"), feed.discovery_key());
    let (heard, purged) = tokio::join!(extension.recv(), store.purge(&key));
    purged.unwrap();
    assert!(heard.is_none());
}

#[tokio::test]
async fn what_is_appended_is_pushed_to_who_takes_it() {
    in_time(async {
        let writer = written(3).await;
        let reader = reader_of(&writer).await;
        let how = Replicate::fully().with_push();
        let _connections = connect(&writer, how, &reader, how).await;
        reader.download(0..3).done().await.unwrap();
        for length in 4..40 {
            writer.append("news").await.unwrap();
            reader.download(length - 1..length).done().await.unwrap();
        }
        let pushed = reader.peers()[0].status().counters.blocks_pushed_to_us;
        assert!(pushed >= 30, "{pushed} of 36");
    })
    .await;
}

#[tokio::test]
async fn one_block_is_pushed_by_hand() {
    in_time(async {
        let writer = written(3).await;
        let reader = reader_of(&writer).await;
        let how = Replicate::fully();
        let mut takes = Replicate::sparsely();
        takes.allow_push = true;
        let _connections = connect(&writer, how, &reader, takes).await;
        reader.wait_for_length(3).await;
        let download = reader.download(3..);
        while !reader.demand().wants(3) || writer.extension("x").peers().is_empty() {
            tokio::task::yield_now().await;
        }
        writer.append("news").await.unwrap();
        writer.push(3..4);
        reader.download(3..4).done().await.unwrap();
        drop(download);
    })
    .await;
}

#[tokio::test]
async fn a_byte_is_found_among_a_peers_blocks() {
    in_time(async {
        let writer = written(2_000).await;
        let reader = reader_of(&writer).await;
        // It waits before there is anybody.
        let early = tokio::spawn({
            let reader = reader.clone();
            async move { reader.find(70_007).await }
        });
        tokio::task::yield_now().await;
        let _connections = connect(&reader, Replicate::sparsely(), &writer, Replicate::fully()).await;
        assert_eq!(early.await.unwrap().unwrap(), (1_400, 7));
        for bytes in [0, 1, 50, 12_345, 99_999, 100_000] {
            assert_eq!(reader.find(bytes).await.unwrap(), (bytes / 50, bytes % 50));
        }
        let stored = (0..2_000).filter(|index| reader.has(*index)).count();
        assert!(stored <= 12, "{stored} blocks");
        // Beyond the end it waits, until it is dropped or the feed has grown.
        assert!(tokio::time::timeout(Duration::from_millis(50), reader.find(100_020)).await.is_err());
        assert!(reader.sought().is_empty() && reader.demand().is_empty());
        let (found, _) = tokio::join!(reader.find(100_020), writer.append(vec![1; 60]));
        assert_eq!(found.unwrap(), (2_000, 20));
    })
    .await;
}
