//! Many writers at once, in one store.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use party::{
    error::{ApiMisuse, Error},
    feed::{
        Batch, Feed, Identity,
        memory::MemoryStorage,
        proof::{BlockRequest, ProofRequest, UpgradeRequest},
        storage::Slot,
    },
    store::{FeedOptions, Store},
};

const WRITERS: usize = 50;
const APPENDS: usize = 12;

/// Every block is there once, each writer's in the order in which it wrote them, and a reader who is shown the
/// proofs believes all of it.
async fn check(feed: &Feed, writers: &[usize]) {
    let length = feed.info().length;
    assert_eq!(length, (writers.len() * APPENDS) as u64);
    let mut next: BTreeMap<usize, usize> = writers.iter().map(|writer| (*writer, 0)).collect();
    for index in 0..length {
        let block = feed.get(index).await.unwrap().unwrap();
        let (writer, n) = std::str::from_utf8(&block).unwrap().split_once(':').unwrap();
        let next = next.get_mut(&writer.parse().unwrap()).unwrap();
        assert_eq!(*next, n.parse::<usize>().unwrap(), "block {index} of writer {writer}");
        *next += 1;
    }
    let audit = feed.audit().await.unwrap();
    assert!(audit.is_clean(), "{:?}", audit.problems);
    assert_eq!(audit.blocks, length);

    let identity = Identity { manifest: feed.manifest(), ..Identity::reader(feed.key()) };
    let reader = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await.unwrap();
    let upgrade = UpgradeRequest { start: 0, length };
    show(feed, &reader, ProofRequest { upgrade: Some(upgrade), ..ProofRequest::default() }).await;
    for index in 0..length {
        let nodes = reader.with_local(|local| local.missing_nodes(index));
        let block = Some(BlockRequest { index, nodes });
        show(feed, &reader, ProofRequest { block, ..ProofRequest::default() }).await;
    }
    assert_eq!(reader.info().contiguous_length, length);
}

async fn show(feed: &Feed, reader: &Feed, request: ProofRequest) {
    let proof = feed.prove(request, 0).await.unwrap().unwrap();
    reader.ingest(vec![proof]).await.pop().unwrap().unwrap();
}

async fn write(feeds: Vec<Feed>) {
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let feed = feeds[writer % feeds.len()].clone();
            tokio::spawn(async move {
                let mut last = None;
                let mut n = 0;
                while n < APPENDS {
                    // Some alone, some in batches.
                    let count = (1 + (writer + n) % 3).min(APPENDS - n);
                    let blocks = (n..n + count).map(|n| Bytes::from(format!("{writer}:{n}"))).collect();
                    let indexes = feed.append_batch(blocks).await.unwrap();
                    assert_eq!(indexes.end - indexes.start, count as u64);
                    assert!(last < Some(indexes.start));
                    last = Some(indexes.end - 1);
                    n += count;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

async fn fifty_writers(store: Store) -> Store {
    let shared = store.named_feed("shared").await.unwrap();
    write(vec![shared.clone()]).await;
    check(&shared, &(0..WRITERS).collect::<Vec<_>>()).await;

    let mut own = vec![];
    for writer in 0..WRITERS {
        own.push(store.namespace("own").named_feed(&writer.to_string()).await.unwrap());
    }
    write(own.clone()).await;
    for (writer, feed) in own.iter().enumerate() {
        check(feed, &[writer]).await;
    }
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_tasks_append_to_one_feed_and_to_fifty_in_memory() {
    fifty_writers(Store::memory()).await;
}

#[cfg(feature = "disk")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_tasks_append_to_one_feed_and_to_fifty_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    fifty_writers(Store::open(dir.path()).await.unwrap()).await.close().await;
    let store = Store::open(dir.path()).await.unwrap();
    check(&store.named_feed("shared").await.unwrap(), &(0..WRITERS).collect::<Vec<_>>()).await;
    for writer in 0..WRITERS {
        let feed = store.namespace("own").feed_by_name(&writer.to_string()).await.unwrap().unwrap();
        check(&feed, &[writer]).await;
    }
}

/// Appends to all of some feeds, or none, again and again and from several tasks: they have the same length
/// whenever one looks, and the record says which.
async fn batches(store: &Store, rounds: u64) {
    let mut feeds = vec![];
    for name in ["a", "b", "c", "d"] {
        feeds.push(store.named_feed(name).await.unwrap());
    }
    let before = feeds[0].info().length;
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let mut feeds = feeds.clone();
            // Each names them in an order of its own.
            feeds.rotate_left(task % 4);
            tokio::spawn(async move {
                for round in 0..rounds {
                    let mut batch = Batch::new();
                    for feed in &feeds {
                        batch.append(feed, [Bytes::from(format!("{task}:{round}"))]);
                    }
                    batch.put(&feeds[0], format!("task {task}"), round.to_string());
                    let indexes = batch.commit().await.unwrap();
                    assert!(indexes.iter().all(|range| *range == indexes[0]));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for feed in &feeds {
        assert_eq!(feed.info().length, before + 8 * rounds);
    }
}

#[cfg(feature = "disk")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batches_over_feeds_of_a_store_are_whole_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for session in 0..3 {
        let store = Store::open(dir.path()).await.unwrap();
        if session > 0 {
            for task in 0..8_usize {
                let feed = store.named_feed(["a", "b", "c", "d"][task % 4]).await.unwrap();
                assert_eq!(feed.record(format!("task {task}")).await.unwrap(), Some("9".into()));
            }
        }
        batches(&store, 10).await;
        // The same blocks are at the same places of all.
        let (a, d) = (store.named_feed("a").await.unwrap(), store.named_feed("d").await.unwrap());
        let all: Vec<u64> = (0..a.info().length).collect();
        assert_eq!(a.get_many(all.clone()).await.unwrap(), d.get_many(all).await.unwrap());
        assert!(a.audit().await.unwrap().is_clean() && d.audit().await.unwrap().is_clean());
        store.close().await;
    }
}

#[tokio::test]
async fn a_batch_over_feeds_of_two_stores_is_refused() {
    let (one, other) = (Store::memory(), Store::memory());
    let (a, b) = (one.named_feed("a").await.unwrap(), other.named_feed("b").await.unwrap());
    let mut batch = Batch::new();
    batch.append(&a, ["x".into()]);
    batch.append(&b, ["y".into()]);
    assert!(matches!(batch.commit().await, Err(Error::ApiMisuse(ApiMisuse::DifferentStorages))));
    assert_eq!((a.info().length, b.info().length), (0, 0));
    // One that can't be written to leaves the others as they are.
    let reader = one.feed(&b.key()).await.unwrap();
    let mut batch = Batch::new();
    batch.append(&a, ["x".into()]);
    batch.append(&reader, ["y".into()]);
    assert!(matches!(batch.commit().await, Err(Error::ApiMisuse(ApiMisuse::NotWritable(_)))));
    assert_eq!(a.info().length, 0);
    one.create_feed("z", FeedOptions::default()).await.unwrap();
}
