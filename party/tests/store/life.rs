//! Feeds that change, go, and come later.

use std::{collections::BTreeMap, sync::Arc};

use crate::common::{feed_with, identity, meet, party_key, storage::as_in};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt};
use party::{
    connection::{self, Connection},
    error::{ApiMisuse, Error, StorageError},
    feed::{
        Batch, Feed, FeedChange,
        memory::MemoryStorage,
        storage::{Completion, Key, Slot, Storage, Write},
    },
    key::FeedKey,
    party::{Open, Party},
    rules::WholeStore,
    store::{FeedEvent, FeedOptions, Store},
};
use tokio::sync::Semaphore;

fn figures(change: Option<FeedChange>) -> (FeedKey, u64, u64, u64) {
    let change = change.expect("the store is open");
    (change.key, change.fork, change.length, change.contiguous_length)
}

fn purged<T>(result: Result<T, Error>, feed: &Feed) {
    let expected = ApiMisuse::Purged(feed.discovery_key());
    assert!(matches!(&result, Err(Error::ApiMisuse(found)) if *found == expected), "{:?}", result.err());
}

// Changes

#[tokio::test]
async fn a_slow_consumer_gets_each_changed_feed_once_with_its_latest_figures() {
    let store = Store::memory();
    let (a, b) = (feed_with(&store, "a", &["old"]).await, feed_with(&store, "b", &[]).await);
    let mut changes = store.changes();
    for _ in 0..50 {
        a.append("x").await.unwrap();
        b.append("y").await.unwrap();
    }
    a.truncate(10).await.unwrap();
    assert_eq!(figures(changes.next().await), (a.key(), 1, 10, 10));
    assert_eq!(figures(changes.next().await), (b.key(), 0, 50, 50));
    assert!(changes.next().now_or_never().is_none());

    b.clear(20..30).await.unwrap();
    assert_eq!(figures(StreamExt::next(&mut changes).await), (b.key(), 0, 50, 20));
    // What is no change of these figures is not told.
    b.clear(40..41).await.unwrap();
    let mut batch = Batch::new();
    batch.put(&a, "record", "beside");
    batch.commit().await.unwrap();
    assert!(changes.next().now_or_never().is_none());

    let waiting = tokio::spawn(async move { (changes.next().await, changes.next().await) });
    tokio::task::yield_now().await;
    a.append("last").await.unwrap();
    store.close().await;
    let (last, end) = waiting.await.unwrap();
    assert_eq!(figures(last), (a.key(), 1, 11, 11));
    assert!(end.is_none());
    assert!(store.changes().next().await.is_none());
}

#[tokio::test]
async fn every_consumer_hears_of_feeds_opened_later_and_by_others() {
    let store = Store::memory();
    let (mut one, mut other) = (store.changes(), store.clone().namespace("elsewhere").changes());
    let key = feed_with(&store, "a", &["x"]).await.key();
    store.feed(&key).await.unwrap().append("y").await.unwrap();
    assert_eq!(figures(one.next().await), (key, 0, 2, 2));
    assert_eq!(figures(other.next().await), (key, 0, 2, 2));
}

#[tokio::test]
async fn a_party_tells_of_the_feeds_that_its_peers_replicate() {
    let (left, right) = (Store::memory(), Store::memory());
    let feed = feed_with(&left, "log", &["a", "b"]).await;
    let unshared = Store::memory();
    let (here, there) = (
        Party::new(party_key(1), WholeStore::new(left.clone())),
        Party::new(party_key(1), WholeStore::new(right.clone())),
    );
    let (mut writing, mut reading, mut stored) = (here.changes(), there.changes(), right.changes());
    let connections = meet(&here, &there).await;
    while figures(reading.next().await) != (feed.key(), 0, 2, 2) {}
    while figures(stored.next().await) != (feed.key(), 0, 2, 2) {}
    feed.append("c").await.unwrap();
    assert_eq!(figures(writing.next().await), (feed.key(), 0, 3, 3));
    while figures(reading.next().await) != (feed.key(), 0, 3, 3) {}
    feed_with(&unshared, "other", &["x"]).await;

    // The peer is gone, and with it the reason to tell.
    drop(connections);
    while !here.peers().is_empty() {
        tokio::task::yield_now().await;
    }
    feed.append("d").await.unwrap();
    assert!(writing.next().now_or_never().is_none());
    drop((here, there));
    assert!(writing.next().await.is_none());
}

// Purging

#[tokio::test]
async fn nothing_is_left_of_a_purged_feed() {
    let storage = Arc::new(MemoryStorage::new());
    let store = Store::with_storage(storage.clone());
    let kept = feed_with(&store, "kept", &["k"]).await;
    for (n, options) in [FeedOptions::default(), FeedOptions::default().seed([3; 32])].into_iter().enumerate()
    {
        for held in [true, false] {
            let before = storage.records(vec![]).await.unwrap();
            let feed = store.create_feed("log", options.clone()).await.unwrap();
            feed.append_batch(vec!["a".into(), "b".into(), "c".into()]).await.unwrap();
            feed.clear(0..1).await.unwrap();
            let mut batch = Batch::new();
            batch.put(&feed, "record", "beside");
            batch.commit().await.unwrap();
            let discovery_key = feed.discovery_key();
            let held = Some(feed).filter(|_| held);
            assert!(store.purge(&discovery_key).await.unwrap());
            assert!(!store.purge(&discovery_key).await.unwrap());

            // Slots are given out once: only that number has changed.
            let next_slot = |records: &[(Vec<u8>, Bytes)]| {
                records.iter().position(|(key, _)| key == b"next-slot").map(|n| records[n].1.clone())
            };
            let mut after = storage.records(vec![]).await.unwrap();
            assert_ne!(next_slot(&before), next_slot(&after));
            let mut before = before;
            for records in [&mut before, &mut after] {
                records.retain(|(key, _)| key != b"next-slot");
            }
            assert_eq!(before, after, "round {n}");
            for slot in (1..6).map(Slot) {
                let mut keys =
                    vec![Key::Head(slot), Key::Local(slot, b"record".to_vec()), Key::Page(slot, 0)];
                keys.extend((0..8).flat_map(|n| [Key::Node(slot, n), Key::Block(slot, n)]));
                assert!(storage.read(keys).await.unwrap().iter().all(Option::is_none));
            }
            if let Some(feed) = held {
                assert!(feed.is_purged() && !feed.info().writable);
                assert!(feed.manifest().is_some(), "who it was is still known");
                purged(feed.append("d").await, &feed);
                purged(feed.get(1).await, &feed);
                purged(feed.fetch(7).await, &feed);
                purged(feed.truncate(1).await, &feed);
                purged(feed.clear(0..9).await, &feed);
                purged(feed.record("record").await, &feed);
                let mut batch = Batch::new();
                batch.append(&kept, ["not without the other".into()]);
                batch.put(&feed, "record", "again");
                purged(batch.commit().await, &feed);
                feed.wait_for_length(9).await;
                purged(feed.download(0..9).done().await, &feed);
            }
        }
    }
    assert_eq!(kept.info().length, 1);
    assert_eq!(store.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_purged_feed_can_be_made_anew_while_the_old_handle_is_held() {
    let store = Store::memory();
    let old = feed_with(&store, "log", &["old", "older"]).await;
    let snapshot = old.snapshot().await;
    let waiting = {
        let old = old.clone();
        tokio::spawn(async move { old.fetch(9).await })
    };
    tokio::task::yield_now().await;
    store.purge(&old.discovery_key()).await.unwrap();
    purged(waiting.await.unwrap(), &old);
    let new = store.named_feed("log").await.unwrap();
    assert_eq!((new.key(), new.info().length), (old.key(), 0));
    new.append("new").await.unwrap();
    drop(old);
    assert_eq!(store.named_feed("log").await.unwrap().get(0).await.unwrap(), Some("new".into()));
    assert_eq!(store.feed(&new.key()).await.unwrap().append("same handle").await.unwrap(), 1);
    assert_eq!(new.info().length, 2);
    assert_eq!(snapshot.get(1).await.unwrap(), Some("older".into()));
}

#[tokio::test]
async fn feeds_that_come_and_go_are_told_in_order() {
    let store = Store::memory();
    let old = feed_with(&store, "old", &[]).await;
    let (mut events, mut changes) = (store.subscribe_feeds(), store.changes());
    let seen = feed_with(&store, "seen", &["x"]).await;
    let unseen = feed_with(&store, "unseen", &["x"]).await;
    store.purge(&unseen.discovery_key()).await.unwrap();
    store.purge(&old.discovery_key()).await.unwrap();
    store.named_feed("old").await.unwrap();
    let mut told = vec![];
    while let Some(Some(event)) = events.next().now_or_never() {
        told.push(match event {
            FeedEvent::Added(entry) => ("added", entry.name.unwrap()),
            FeedEvent::Removed(entry) => ("removed", entry.name.unwrap()),
            _ => unreachable!(),
        });
    }
    let expected = [("added", "seen"), ("removed", "old"), ("added", "old")];
    assert_eq!(told, expected.map(|(what, name)| (what, name.to_owned())));
    assert_eq!(figures(changes.next().await).0, seen.key());
    assert!(changes.next().now_or_never().is_none());
    store.purge(&seen.discovery_key()).await.unwrap();
    assert!(matches!(events.next().await, Some(FeedEvent::Removed(entry)) if entry.key == seen.key()));
}

#[tokio::test]
async fn a_purge_ends_replication_and_the_feed_can_be_fetched_again() {
    let (left, right) = (Store::memory(), Store::memory());
    let feed = feed_with(&left, "log", &["a", "b", "c"]).await;
    let (here, there) = (
        Party::new(party_key(1), WholeStore::new(left.clone())),
        Party::new(party_key(1), WholeStore::new(right.clone())),
    );
    let _connections = meet(&here, &there).await;
    let mut added = right.subscribe_feeds();
    if right.list().await.unwrap().is_empty() {
        added.next().await;
    }
    for round in 0..3 {
        let copy = right.feed(&feed.key()).await.unwrap();
        let last = feed.append(format!("round {round}")).await.unwrap();
        let block = copy.fetch(last).await.unwrap();
        assert_eq!(block, format!("round {round}"));
        assert!(right.purge(&feed.discovery_key()).await.unwrap());
        purged(copy.get(0).await, &copy);
        feed.append("while nobody listens").await.unwrap();
        assert!(right.list().await.unwrap().is_empty());
    }
    assert_eq!(feed.info().length, 9);
}

/// Memory whose commits wait to be let through, or fail.
#[derive(Default)]
struct Gated {
    memory: Arc<MemoryStorage>,
    gate: Arc<std::sync::Mutex<Option<Arc<Semaphore>>>>,
    fails: std::sync::atomic::AtomicBool,
    commits: std::sync::atomic::AtomicUsize,
}

impl Storage for Gated {
    as_in!(memory: read, records, snapshot, close);

    fn commit(&self, writes: Vec<Write>) -> Completion<()> {
        if self.fails.load(std::sync::atomic::Ordering::Relaxed) {
            return Box::pin(async { Err(std::io::Error::from(std::io::ErrorKind::StorageFull).into()) });
        }
        self.commits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let gate = self.gate.lock().unwrap().clone();
        let memory = self.memory.clone();
        // As a storage must, it ends though nobody waits.
        let commit = tokio::spawn(async move {
            if let Some(gate) = gate {
                gate.acquire().await.unwrap().forget();
            }
            memory.commit(writes).await
        });
        Box::pin(async move { commit.await.unwrap() })
    }
}

#[tokio::test]
async fn a_purge_that_fails_leaves_the_feed_whole() {
    let storage = Arc::new(Gated::default());
    let store = Store::with_storage(storage.clone());
    let feed = feed_with(&store, "log", &["a", "b"]).await;
    storage.fails.store(true, std::sync::atomic::Ordering::Relaxed);
    let refused = store.purge(&feed.discovery_key()).await;
    assert!(matches!(refused, Err(Error::Storage(StorageError::Io(_)))), "{refused:?}");
    storage.fails.store(false, std::sync::atomic::Ordering::Relaxed);
    assert!(!feed.is_purged());
    assert_eq!(feed.append("c").await.unwrap(), 2);
    assert_eq!(store.feed_by_name("log").await.unwrap().unwrap().get(0).await.unwrap(), Some("a".into()));
}

#[tokio::test]
async fn a_purge_that_nobody_waits_for_is_carried_out_whole() {
    for held in [true, false] {
        let storage = Arc::new(Gated::default());
        let store = Store::with_storage(storage.clone());
        let mut events = store.subscribe_feeds();
        let feed = feed_with(&store, "log", &["a", "b"]).await;
        events.next().await;
        let discovery_key = feed.discovery_key();
        let feed = Some(feed).filter(|_| held);
        let gate = Arc::new(Semaphore::new(0));
        *storage.gate.lock().unwrap() = Some(gate.clone());
        let commits = storage.commits.load(std::sync::atomic::Ordering::Relaxed);
        let mut purge = Box::pin(store.purge(&discovery_key));
        for _ in 0..20 {
            assert!(futures_util::poll!(&mut purge).is_pending());
            tokio::task::yield_now().await;
        }
        drop(purge);
        // Everything in one commit: it is stored whole or not at all.
        assert_eq!(storage.commits.load(std::sync::atomic::Ordering::Relaxed), commits + 1);
        gate.add_permits(100);
        assert!(matches!(events.next().await, Some(FeedEvent::Removed(_))));
        assert!(store.feed_by_discovery_key(&discovery_key).await.unwrap().is_none());
        assert!(store.feed_by_name("log").await.unwrap().is_none());
        if let Some(feed) = feed {
            purged(feed.get(0).await, &feed);
        }
    }
}

#[cfg(feature = "disk")]
#[tokio::test]
async fn what_was_purged_stays_so_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let feed = store.create_feed("log", FeedOptions::default().seed([7; 32])).await.unwrap();
    feed.append_batch(vec![Bytes::from(vec![7; 1000]); 100]).await.unwrap();
    let kept = feed_with(&store, "kept", &["k"]).await.key();
    store.purge(&feed.discovery_key()).await.unwrap();
    assert!(!dir.path().join("secrets").join(feed.discovery_key().to_string()).exists());
    store.close().await;
    let store = Store::open(dir.path()).await.unwrap();
    let [entry] = store.list().await.unwrap().try_into().unwrap();
    assert_eq!(entry.key, kept);
    let again = store.create_feed("log", FeedOptions::default().seed([7; 32])).await.unwrap();
    assert_eq!((again.key(), again.info().length), (feed.key(), 0));
    again.append("anew").await.unwrap();
    assert!(again.audit().await.unwrap().is_clean());
    assert!(store.feed(&kept).await.unwrap().audit().await.unwrap().is_clean());
}

// Feeds that come later

#[tokio::test]
async fn a_feed_made_while_connected_reaches_the_party() {
    let (left, right) = (Store::memory(), Store::memory());
    let (here, there) = (
        Party::new(party_key(1), WholeStore::new(left.clone())),
        Party::new(party_key(1), WholeStore::new(right.clone())),
    );
    let _connections = meet(&here, &there).await;
    let mut added = right.subscribe_feeds();
    let mut feeds = BTreeMap::new();
    for n in 0..20_u8 {
        let feed = feed_with(&left, &n.to_string(), &["first"]).await;
        feeds.insert(feed.key(), feed);
    }
    for _ in 0..20 {
        let Some(FeedEvent::Added(entry)) = added.next().await else { panic!("closed") };
        let copy = right.feed(&entry.key).await.unwrap();
        let index = feeds[&entry.key].append("second").await.unwrap();
        assert_eq!(copy.fetch(index).await.unwrap(), "second");
    }
}

#[tokio::test]
async fn a_feed_opened_while_connected_replicates_in_open_mode() {
    let (left, right) = (Store::memory(), Store::memory());
    let (here, there) = (Open::new(WholeStore::new(left.clone())), Open::new(WholeStore::new(right.clone())));
    let (one, other) = connection::memory();
    let (_dialled, _accepted) = tokio::try_join!(
        std::future::IntoFuture::into_future(Connection::dial(one, &identity(1)).open(&here)),
        std::future::IntoFuture::into_future(Connection::accept(other, &identity(2)).open(&there)),
    )
    .unwrap();
    while here.peers().is_empty() || there.peers().is_empty() {
        tokio::task::yield_now().await;
    }
    let feed = feed_with(&left, "log", &["a", "b"]).await;
    let copy = right.feed(&feed.key()).await.unwrap();
    assert_eq!(copy.fetch(1).await.unwrap(), "b");
    assert_eq!(right.list().await.unwrap().len(), 1);
}

// Suspension

#[tokio::test]
async fn a_suspended_store_goes_on_when_it_is_resumed() {
    let store = Store::memory();
    let feed = feed_with(&store, "log", &["a"]).await;
    store.suspend().await.unwrap();
    store.resume().await.unwrap();
    assert_eq!(feed.append("b").await.unwrap(), 1);
    assert_eq!(store.named_feed("log").await.unwrap().info().length, 2);
    store.close().await;
    assert!(matches!(store.suspend().await, Err(Error::Storage(StorageError::Closed))));
    assert!(matches!(store.resume().await, Err(Error::Storage(StorageError::Closed))));
}

#[cfg(feature = "disk")]
#[tokio::test]
async fn what_waits_while_a_store_on_disk_is_suspended_goes_on_or_ends_with_it() {
    for closes in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let feed = feed_with(&store, "log", &["a"]).await;
        store.suspend().await.unwrap();
        store.suspend().await.unwrap();
        let appending = {
            let feed = feed.clone();
            tokio::spawn(async move { feed.append("b").await })
        };
        let making = {
            let store = store.clone();
            tokio::spawn(async move { store.named_feed("new").await })
        };
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        if closes {
            // Nothing is left behind that waits for ever.
            store.close().await;
            let (appended, made) = (appending.await.unwrap(), making.await.unwrap());
            for error in appended.err().into_iter().chain(made.err()) {
                assert!(matches!(error, Error::Storage(StorageError::Closed)), "{error:?}");
            }
        } else {
            store.resume().await.unwrap();
            assert_eq!(appending.await.unwrap().unwrap(), 1);
            making.await.unwrap().unwrap().append("first").await.unwrap();
            store.close().await;
        }
        let store = Store::open(dir.path()).await.unwrap();
        let feed = store.feed_by_name("log").await.unwrap().unwrap();
        assert!(feed.info().length >= 1 && feed.audit().await.unwrap().is_clean());
    }
}

// Feeds that nobody holds

#[tokio::test]
async fn pages_are_the_list() {
    let store = Store::memory();
    for n in 0..600_u16 {
        let mut key = [7; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        store.feed(&key.into()).await.unwrap();
    }
    let (mut pages, mut entries) = (store.pages(), vec![]);
    while let Some(page) = pages.next().await.unwrap() {
        assert!(!page.is_empty() && page.len() < 20);
        entries.extend(page);
    }
    assert_eq!(entries, store.list().await.unwrap());
    assert!(pages.next().await.unwrap().is_none());
}
