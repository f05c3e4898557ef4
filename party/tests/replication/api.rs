//! What apps have of replication: single blocks, downloads of every kind and how far they are, updates.

use std::time::Duration;

use crate::common::{
    meet,
    one_feed::{block, party_of, reader_of, sparsely, written},
};
use futures_util::{FutureExt as _, future::join_all};
use party::{
    error::{ApiMisuse, Error},
    feed::{Download, DownloadOptions, Feed, FetchOptions, Order, Progress},
    peer::{Replicate, UpdateOptions},
    store::{FeedOptions, Store},
};

/// The blocks that are stored.
fn stored(feed: &Feed) -> Vec<u64> {
    (0..feed.info().length).filter(|index| feed.has(*index)).collect()
}

#[tokio::test]
async fn ten_thousand_blocks_are_waited_for_at_once() {
    let writer = written(20_000).await;
    let reader = reader_of(&writer).await;
    let _connection = sparsely(&writer, &reader).await;
    let fetches = (0..10_000).map(|n| {
        let reader = reader.clone();
        tokio::spawn(async move { reader.fetch(n * 2).await })
    });
    for (n, fetched) in (0..).zip(join_all(fetches).await) {
        assert_eq!(fetched.unwrap().unwrap(), block(n * 2));
    }
    assert!(reader.demand().is_empty());
    assert_eq!(stored(&reader).len(), 10_000);
}

#[tokio::test]
async fn blocks_are_fetched_one_after_the_other() {
    let count = 2_000;
    let writer = written(count).await;
    let reader = reader_of(&writer).await;
    let _connection = sparsely(&writer, &reader).await;
    for n in 0..count {
        let index = (n * 7919) % count;
        assert_eq!(reader.fetch(index).await.unwrap(), block(index));
    }
    assert!(reader.demand().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_fetch_ends_in_time() {
    let reader = reader_of(&written(1).await).await;
    let within = FetchOptions::within(Duration::from_secs(3600));
    assert!(matches!(reader.fetch_with(0, within).await, Err(Error::Timeout)));
    let without = FetchOptions::without_waiting();
    assert!(matches!(reader.fetch_with(0, without).await, Err(Error::NotAvailable(0))));
    assert!(reader.demand().is_empty());
}

#[tokio::test]
async fn a_fetch_that_is_given_up_asks_no_more_and_loses_nothing() {
    let writer = written(100).await;
    let reader = reader_of(&writer).await;
    // Nobody is there: it waits, and is dropped.
    assert!(reader.fetch(7).now_or_never().is_none());
    assert!(reader.demand().is_empty());

    let _connection = sparsely(&writer, &reader).await;
    let (kept, mut given_up) = (reader.fetch(42), Box::pin(reader.fetch(42)));
    assert!((&mut given_up).now_or_never().is_none());
    drop(given_up);
    assert!(!reader.demand().wants(42));
    assert_eq!(kept.await.unwrap(), block(42));
    // Given up again and again while blocks come.
    let mut left: Vec<u64> = (0..100).collect();
    while !left.is_empty() {
        for index in &left {
            let _ = reader.fetch(*index).now_or_never();
        }
        let first = left[0];
        tokio::select! {
            biased;
            block = reader.fetch(first) => drop(block.unwrap()),
            () = tokio::task::yield_now() => {}
        }
        left.retain(|index| !reader.has(*index));
    }
    assert!(reader.demand().is_empty());
}

#[tokio::test]
async fn a_list_is_downloaded_and_nothing_else() {
    let writer = written(100).await;
    let reader = reader_of(&writer).await;
    let _connection = sparsely(&writer, &reader).await;
    let download = reader.download_list([90, 3, 4, 50, 3]);
    download.done().await.unwrap();
    assert_eq!(stored(&reader), [3, 4, 50, 90]);
}

#[tokio::test]
async fn blocks_are_downloaded_in_each_order() {
    for order in Order::ALL {
        let writer = written(300).await;
        let reader = reader_of(&writer).await;
        let _connection = sparsely(&writer, &reader).await;
        let some = reader.download_with(10..200, DownloadOptions::in_order(order));
        let list = reader.download_list_with([250, 7], DownloadOptions::in_order(order));
        some.done().await.unwrap();
        list.done().await.unwrap();
        assert!(stored(&reader).into_iter().eq([7].into_iter().chain(10..200).chain([250])));
    }
}

#[tokio::test]
async fn the_blocks_with_some_bytes_are_downloaded() {
    let writer = written(1000).await;
    let size = block(0).len() as u64;
    let reader = reader_of(&writer).await;
    let _connection = sparsely(&writer, &reader).await;
    reader.update_with(UpdateOptions::default().waiting_for_a_peer()).await.unwrap();

    let finding = reader.download_bytes(500 * size - 1..503 * size + 1);
    finding.await.unwrap().done().await.unwrap();
    assert!((499..=503).all(|index| reader.has(index)) && !reader.has(498) && !reader.has(504));
    assert!(stored(&reader).len() < 40);

    // The end is not one of the bytes, and the block that begins there not one of the blocks.
    assert_eq!(reader.download_bytes(600 * size..602 * size).await.unwrap().progress().of, 2);

    let to_the_end = reader.download_bytes(999 * size..u64::MAX).await.unwrap();
    to_the_end.done().await.unwrap();
    assert!(reader.has(999));
    let nothing = reader.download_bytes(u64::MAX - 1..u64::MAX).await.unwrap();
    assert_eq!(nothing.progress().of, 0);
    assert_eq!(reader.download_bytes(7..7).await.unwrap().progress(), Progress::default());
}

#[tokio::test]
async fn the_newest_blocks_are_downloaded_as_the_feed_grows() {
    let writer = written(100).await;
    let reader = reader_of(&writer).await;
    let _connection = sparsely(&writer, &reader).await;
    let newest = reader.download_newest(3);
    reader.wait_for_length(100).await;
    let last = reader.download_last(5);
    last.done().await.unwrap();
    assert_eq!(stored(&reader), [95, 96, 97, 98, 99]);

    writer.append_batch((100..110).map(block).collect()).await.unwrap();
    let mut progress = newest.progress();
    while progress.blocks < 3 || reader.info().length < 110 {
        progress = newest.progressed(progress).await.unwrap();
    }
    assert_eq!(stored(&reader), [95, 96, 97, 98, 99, 107, 108, 109]);
    assert_eq!(progress.of, 3);
    assert!(newest.done().now_or_never().is_none());
}

#[tokio::test]
async fn a_download_says_how_far_it_is() {
    let writer = written(500).await;
    let size = block(0).len() as u64;
    let reader = reader_of(&writer).await;
    let _connection = sparsely(&writer, &reader).await;
    reader.fetch(10).await.unwrap();

    let (some, rest) = (reader.download(0..200), reader.download(100..));
    let mut progress = some.progress();
    assert_eq!((progress.blocks, progress.of, progress.bytes), (1, 200, 0));
    let mut told = 0;
    while progress.blocks < progress.of {
        let next = some.progressed(progress).await.unwrap();
        assert!(next != progress && next.blocks >= progress.blocks && next.bytes >= progress.bytes);
        progress = next;
        told += 1;
    }
    assert!(told > 0);
    assert_eq!((progress.blocks, progress.bytes), (200, 199 * size));
    some.done().await.unwrap();
    wait_for(&rest, 400).await;
    assert_eq!(rest.progress().bytes, 400 * size);
    assert_eq!(reader.traffic().bytes_received, 500 * size);

    reader.clear(0..50).await.unwrap();
    assert_eq!(some.progressed(progress).await.unwrap().of, 200);
}

async fn wait_for(download: &Download, blocks: u64) {
    let mut progress = download.progress();
    while progress.blocks < blocks {
        progress = download.progressed(progress).await.unwrap();
    }
}

#[tokio::test]
async fn a_download_that_is_dropped_is_cancelled() {
    let writer = written(100).await;
    let reader = reader_of(&writer).await;
    let downloads = [reader.download(..50), reader.download_list([7, 70]), reader.download_newest(3)];
    assert_eq!(reader.demand().ranges(), [0..50, 70..71]); // of an empty feed nothing is newest
    drop(downloads);
    assert!(reader.demand().is_empty());
    let _connection = sparsely(&writer, &reader).await;
    reader.fetch(99).await.unwrap();
    assert_eq!(stored(&reader), [99]);
}

#[tokio::test]
async fn downloads_of_a_purged_feed_fail() {
    let store = Store::memory();
    let feed = store.create_feed("a", FeedOptions::default()).await.unwrap();
    let (all, some) = (feed.download(..), feed.download(0..3));
    let progress = all.progress();
    let ends = async { tokio::join!(some.done(), all.progressed(progress)) };
    let key = feed.discovery_key();
    let (ends, purged) = tokio::join!(ends, store.purge(&key));
    purged.unwrap();
    assert!(matches!(ends.0, Err(Error::ApiMisuse(ApiMisuse::Purged(_)))));
    assert!(matches!(ends.1, Err(Error::ApiMisuse(ApiMisuse::Purged(_)))));
    assert!(feed.update().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_update_ends_when_every_peer_has_answered() {
    let writer = written(10).await;
    let reader = reader_of(&writer).await;
    assert!(!reader.update().await.unwrap()); // nobody is there
    let patient = UpdateOptions::within(Duration::from_secs(60)).waiting_for_a_peer();
    assert!(matches!(reader.update_with(patient).await, Err(Error::Timeout)));

    let waiting = tokio::spawn({
        let reader = reader.clone();
        async move { reader.update_with(patient).await }
    });
    let _connection = sparsely(&writer, &reader).await;
    assert!(waiting.await.unwrap().unwrap());
    assert_eq!(reader.info().length, 10);
    assert!(!reader.update().await.unwrap());

    // A peer that has less has answered, too; so has one that doesn't know the feed.
    let (behind, stranger) = (reader_of(&writer).await, written(1).await);
    let _behind = sparsely(&behind, &reader).await;
    let _stranger = sparsely(&stranger, &reader).await;
    assert!(!reader.update_with(patient).await.unwrap());

    writer.append_batch((10..12).map(block).collect()).await.unwrap();
    reader.wait_for_length(12).await;
    assert!(!reader.update().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_update_does_not_wait_for_who_cannot_answer() {
    let writer = written(10).await;
    let reader = reader_of(&writer).await;
    let (connection, _other) = sparsely(&writer, &reader).await;
    // It has opened its channel, and then says nothing.
    writer.suspend_replication();
    let patient = UpdateOptions::within(Duration::from_secs(5)).waiting_for_a_peer();
    assert!(matches!(reader.update_with(patient).await, Err(Error::Timeout)));
    let updating = tokio::spawn({
        let reader = reader.clone();
        async move { reader.update().await }
    });
    tokio::task::yield_now().await;
    connection.close().await.unwrap();
    assert!(!updating.await.unwrap().unwrap());

    writer.resume_replication();
    reader.suspend_replication();
    let _connection = sparsely(&writer, &reader).await;
    assert!(!reader.update().await.unwrap());
}

#[tokio::test]
async fn an_update_of_a_feed_that_is_replicated_in_full_waits_for_the_length_alone() {
    let writer = written(5_000).await;
    let reader = reader_of(&writer).await;
    let how = Replicate::fully();
    let _connection = meet(&party_of(&reader, how), &party_of(&writer, how)).await;
    assert!(reader.update_with(UpdateOptions::default().waiting_for_a_peer()).await.unwrap());
    assert_eq!(reader.info().length, 5_000);
    assert!(stored(&reader).len() < 5_000);
}
