//! A store, over memory and over disk: one body for both wherever the behaviour is the same.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::common::storage::as_in;
use bytes::Bytes;
use futures_util::future::join_all;
use party::{
    error::{ApiMisuse, Error, StorageError},
    feed::{
        memory::MemoryStorage,
        storage::{Completion, Key, Storage, Write},
    },
    key::{FeedKey, KeyPair},
    store::{FeedEvent, FeedOptions, Store},
};

/// Runs each body over a store in memory and over one on disk.
macro_rules! over_both {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Store::memory()).await;
            })*
        }

        #[cfg(feature = "disk")]
        mod disk {
            $(#[tokio::test]
            async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::$name(super::Store::open(dir.path()).await.unwrap()).await;
            })*
        }
    };
}

over_both!(
    a_feed_is_found_by_its_name_and_both_keys,
    a_name_is_given_once,
    a_seed_makes_the_same_feed_once,
    a_legacy_feed_has_its_public_key_as_key,
    a_feed_of_others_is_added_when_it_is_asked_for,
    a_discovery_key_adds_nothing,
    a_long_name_is_refused,
    many_openings_at_once_give_one_feed,
    many_creations_at_once_give_one_feed,
    feeds_do_not_mix,
    a_feed_that_was_let_go_is_opened_again,
    an_append_that_was_given_up_is_seen_by_the_next_handle,
    added_feeds_are_announced_once,
    a_feed_whose_caller_has_gone_is_announced,
    a_closed_store_refuses_everything,
    a_thousand_feeds_are_listed,
);

fn key(n: u16) -> FeedKey {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    FeedKey::from_bytes(bytes)
}

async fn a_feed_is_found_by_its_name_and_both_keys(store: Store) {
    let feed = store.create_feed("log", FeedOptions::default()).await.unwrap();
    feed.append("block").await.unwrap();
    let by_name = store.feed_by_name("log").await.unwrap().unwrap();
    let by_key = store.feed(&feed.key()).await.unwrap();
    let by_discovery_key = store.feed_by_discovery_key(&feed.discovery_key()).await.unwrap().unwrap();
    for same in [by_name, by_key, by_discovery_key] {
        assert_eq!(same.key(), feed.key());
        assert_eq!(same.get(0).await.unwrap(), Some("block".into()));
        same.append("through any handle").await.unwrap();
        assert_eq!(same.info(), feed.info());
    }
    assert_eq!(feed.info().length, 4);
    assert!(store.feed_by_name("lo").await.unwrap().is_none());
    assert!(store.feed_by_name("").await.unwrap().is_none());
    let [entry] = store.list().await.unwrap().try_into().unwrap();
    assert_eq!((entry.name.as_deref(), entry.key, entry.writable), (Some("log"), feed.key(), true));
    assert_eq!(entry.discovery_key, feed.discovery_key());
}

async fn a_name_is_given_once(store: Store) {
    let first = store.create_feed("log", FeedOptions::default()).await.unwrap();
    let second = store.create_feed("log", FeedOptions::default()).await;
    assert!(matches!(second, Err(Error::ApiMisuse(ApiMisuse::NameTaken(name))) if name == "log"));
    let other = store.create_feed("logs", FeedOptions::default()).await.unwrap();
    assert_ne!(first.key(), other.key());
    assert_eq!(store.list().await.unwrap().len(), 2);
}

async fn a_seed_makes_the_same_feed_once(store: Store) {
    let options = FeedOptions::default().seed([7; 32]);
    let feed = store.create_feed("seeded", options.clone()).await.unwrap();
    let elsewhere = Store::memory().create_feed("anything", options.clone()).await.unwrap();
    assert_eq!(feed.key(), elsewhere.key());
    let again = store.create_feed("other", options).await;
    assert!(matches!(again, Err(Error::ApiMisuse(ApiMisuse::FeedExists(dk))) if dk == feed.discovery_key()));
    assert!(store.feed_by_name("other").await.unwrap().is_none());
}

async fn a_legacy_feed_has_its_public_key_as_key(store: Store) {
    let options = FeedOptions::default().seed([7; 32]).compat(true);
    let feed = store.create_feed("legacy", options).await.unwrap();
    assert_eq!(feed.key().as_bytes(), KeyPair::from_seed(&[7; 32]).public().as_bytes());
    assert_eq!(feed.append("block").await.unwrap(), 0);
}

async fn a_feed_of_others_is_added_when_it_is_asked_for(store: Store) {
    let feed = store.feed(&key(1)).await.unwrap();
    assert!(!feed.info().writable);
    let refused = feed.append("mine").await;
    assert!(matches!(refused, Err(Error::ApiMisuse(ApiMisuse::NotWritable(_)))), "{refused:?}");
    let [entry] = store.list().await.unwrap().try_into().unwrap();
    assert_eq!((entry.name, entry.key, entry.writable), (None, key(1), false));
}

async fn a_discovery_key_adds_nothing(store: Store) {
    let unknown = key(1).discovery_key();
    assert!(store.feed_by_discovery_key(&unknown).await.unwrap().is_none());
    assert!(store.list().await.unwrap().is_empty());
}

async fn a_long_name_is_refused(store: Store) {
    store.create_feed(&"n".repeat(1024), FeedOptions::default()).await.unwrap();
    let refused = store.create_feed(&"n".repeat(1025), FeedOptions::default()).await;
    assert!(matches!(refused, Err(Error::ApiMisuse(ApiMisuse::LimitExceeded(_)))));
}

async fn many_openings_at_once_give_one_feed(store: Store) {
    let created = store.create_feed("log", FeedOptions::default()).await.unwrap();
    let (key, discovery_key) = (created.key(), created.discovery_key());
    drop(created);
    let appends = (0..60).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let feed = match n % 3 {
                0 => store.feed(&key).await.unwrap(),
                1 => store.feed_by_name("log").await.unwrap().unwrap(),
                _ => store.feed_by_discovery_key(&discovery_key).await.unwrap().unwrap(),
            };
            feed.append(format!("{n}")).await.unwrap()
        })
    });
    let indexes: BTreeSet<u64> = join_all(appends).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(indexes, (0..60).collect());
    assert_eq!(store.feed(&key).await.unwrap().info().length, 60);
}

async fn many_creations_at_once_give_one_feed(store: Store) {
    let creations = (0..20).map(|_| store.create_feed("log", FeedOptions::default()));
    let made = join_all(creations).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(made, 1);
    let keys = [key(0), key(1)];
    let additions = (0..20).map(|n| store.feed(&keys[n % 2]));
    assert!(join_all(additions).await.iter().all(Result::is_ok));
    assert_eq!(store.list().await.unwrap().len(), 3);
}

async fn feeds_do_not_mix(store: Store) {
    for n in 0..5_u64 {
        let feed = store.create_feed(&n.to_string(), FeedOptions::default()).await.unwrap();
        feed.append_batch((0..=n).map(|i| Bytes::from(format!("{n}:{i}"))).collect()).await.unwrap();
    }
    for n in 0..5_u64 {
        let feed = store.feed_by_name(&n.to_string()).await.unwrap().unwrap();
        assert_eq!(feed.info().length, n + 1);
        for i in 0..=n {
            assert_eq!(feed.get(i).await.unwrap(), Some(format!("{n}:{i}").into()));
        }
    }
}

async fn a_feed_that_was_let_go_is_opened_again(store: Store) {
    for length in 0..5 {
        let feed = match store.feed_by_name("log").await.unwrap() {
            Some(feed) => feed,
            None => store.create_feed("log", FeedOptions::default()).await.unwrap(),
        };
        assert!(feed.info().writable);
        assert_eq!(feed.append("more").await.unwrap(), length);
    }
}

async fn an_append_that_was_given_up_is_seen_by_the_next_handle(store: Store) {
    let feed = store.create_feed("log", FeedOptions::default()).await.unwrap();
    let key = feed.key();
    drop(feed);
    for round in 1..30 {
        let feed = store.feed(&key).await.unwrap();
        let before = feed.info().length;
        // Given up after it was polled a few times, wherever it is then.
        let mut append = Box::pin(feed.append_batch(vec![Bytes::from(vec![0; 5_000]); 10]));
        for _ in 0..round % 5 {
            if futures_util::poll!(append.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(append);
        drop(feed);
        let feed = store.feed(&key).await.unwrap();
        let length = feed.info().length;
        assert!(length == before || length == before + 10);
        feed.append("goes on").await.unwrap();
        for index in 0..=length {
            assert!(feed.get(index).await.unwrap().is_some(), "{index} of {length}");
        }
    }
}

async fn added_feeds_are_announced_once(store: Store) {
    store.create_feed("before", FeedOptions::default()).await.unwrap();
    let mut added = store.subscribe_feeds();
    let mine = store.create_feed("mine", FeedOptions::default()).await.unwrap();
    store.feed(&key(1)).await.unwrap();
    store.feed(&key(1)).await.unwrap();
    store.feed(&mine.key()).await.unwrap();
    let mut seen = vec![];
    for _ in 0..2 {
        seen.push(name_and_key(added.next().await));
    }
    assert_eq!(seen, [(Some("mine".to_owned()), mine.key(), true), (None, key(1), false)]);

    let waiting = tokio::spawn(async move { (added.next().await, added.next().await) });
    tokio::task::yield_now().await;
    store.feed(&key(2)).await.unwrap();
    store.close().await;
    let (last, end) = waiting.await.unwrap();
    assert_eq!(name_and_key(last), (None, key(2), false));
    assert!(end.is_none());
}

fn name_and_key(event: Option<FeedEvent>) -> (Option<String>, FeedKey, bool) {
    match event {
        Some(FeedEvent::Added(entry)) => (entry.name, entry.key, entry.writable),
        other => panic!("{other:?}"),
    }
}

async fn a_feed_whose_caller_has_gone_is_announced(store: Store) {
    let mut added = store.subscribe_feeds();
    let mut announced = 0;
    for polls in 0..8 {
        let key = key(polls);
        let mut adding = Box::pin(store.feed(&key));
        for _ in 0..polls {
            if futures_util::poll!(adding.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(adding);
        // Waits for what is still under way.
        store.create_feed(&polls.to_string(), FeedOptions::default()).await.unwrap();
        let listed = store.list().await.unwrap().len();
        while announced < listed {
            added.next().await.unwrap();
            announced += 1;
        }
        assert_eq!(announced, listed);
    }
}

async fn a_closed_store_refuses_everything(store: Store) {
    let feed = store.create_feed("log", FeedOptions::default()).await.unwrap();
    feed.append("kept").await.unwrap();
    store.close().await;
    store.close().await;
    fn closed<T>(result: Result<T, Error>) {
        assert!(matches!(result, Err(Error::Storage(StorageError::Closed))), "{:?}", result.err());
    }
    closed(store.create_feed("other", FeedOptions::default()).await);
    closed(store.feed(&feed.key()).await);
    closed(store.feed(&key(1)).await);
    closed(store.feed_by_name("log").await);
    closed(store.feed_by_discovery_key(&feed.discovery_key()).await);
    closed(store.list().await);
    closed(feed.append("lost").await);
    assert_eq!(feed.info().length, 1);
}

async fn a_thousand_feeds_are_listed(store: Store) {
    for n in 0..1000 {
        store.feed(&key(n)).await.unwrap();
    }
    let entries = store.list().await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.key).collect::<BTreeSet<_>>(), (0..1000).map(key).collect());
    assert!(entries.is_sorted_by_key(|entry| entry.discovery_key));
}

/// Memory that fails its commits when told to.
struct Failing {
    memory: MemoryStorage,
    /// How many commits succeed before one fails.
    successes: AtomicUsize,
}

impl Storage for Failing {
    as_in!(memory: read, records, snapshot, close);

    fn commit(&self, writes: Vec<Write>) -> Completion<()> {
        if writes.is_empty() {
            return self.memory.commit(writes);
        }
        match self.successes.fetch_sub(1, Ordering::Relaxed) {
            0 => Box::pin(async { Err(std::io::Error::from(std::io::ErrorKind::StorageFull).into()) }),
            _ => self.memory.commit(writes),
        }
    }
}

#[tokio::test]
async fn a_failed_commit_leaves_everything_as_it_was() {
    let storage = Arc::new(Failing { memory: MemoryStorage::default(), successes: AtomicUsize::new(0) });
    let fail_after = |successes| storage.successes.store(successes, Ordering::Relaxed);
    let store = Store::with_storage(storage.clone());
    let mut added = store.subscribe_feeds();
    let full = |error: &Error| matches!(error, Error::Storage(StorageError::Io(io)) if io.kind() == std::io::ErrorKind::StorageFull);

    let failed = store.create_feed("log", FeedOptions::default()).await.map(drop).unwrap_err();
    assert!(full(&failed), "{failed:?}");
    assert!(store.feed_by_name("log").await.unwrap().is_none());
    assert!(store.list().await.unwrap().is_empty());

    fail_after(usize::MAX);
    let feed = store.create_feed("log", FeedOptions::default()).await.unwrap();
    feed.append("first").await.unwrap();
    fail_after(0);
    assert!(full(&feed.append("second").await.unwrap_err()));
    assert_eq!(feed.info().length, 1);
    fail_after(usize::MAX);
    assert_eq!(feed.append("second again").await.unwrap(), 1);
    assert_eq!(feed.get(1).await.unwrap(), Some("second again".into()));
    assert_eq!(name_and_key(added.next().await), (Some("log".into()), feed.key(), true));
}

/// A storage of the user's own may keep something else than it was given.
#[tokio::test]
async fn a_record_of_another_feed_is_named_as_damage() {
    let storage = Arc::new(MemoryStorage::new());
    let store = Store::with_storage(storage.clone());
    let one = store.create_feed("one", FeedOptions::default()).await.unwrap().discovery_key();
    let two = store.create_feed("two", FeedOptions::default()).await.unwrap().discovery_key();
    let all = storage.records(vec![]).await.unwrap();
    let record = |of: &[u8]| [b"feed/", of].concat();
    let value_of = |of: &[u8]| all.iter().find(|(key, _)| *key == record(of)).unwrap().1.to_vec();
    let own = value_of(one.as_bytes());
    let flipped = |at: usize| {
        let mut value = own.clone();
        value[at] ^= 1;
        value
    };
    for (what, value) in [
        ("the record of the other", value_of(two.as_bytes())),
        ("another key", flipped(10)),
        ("another manifest", flipped(own.len() - 1)),
    ] {
        let storage = Arc::new(MemoryStorage::new());
        let mut puts: Vec<_> =
            all.iter().map(|(key, value)| Write::Put(Key::Record(key.clone()), value.clone())).collect();
        puts.push(Write::Put(Key::Record(record(one.as_bytes())), value.into()));
        storage.commit(puts).await.unwrap();
        let store = Store::with_storage(storage);
        let refused = store.feed_by_discovery_key(&one).await.map(drop).unwrap_err();
        assert!(matches!(refused, Error::Storage(StorageError::Damaged { .. })), "{what}: {refused:?}");
        assert!(store.feed_by_discovery_key(&two).await.unwrap().is_some());
    }
}

#[cfg(feature = "disk")]
mod on_disk {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn feeds_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let mut infos = vec![];
        for (name, compat) in [("new", false), ("old", true)] {
            let feed = store.create_feed(name, FeedOptions::default().compat(compat)).await.unwrap();
            feed.append("first").await.unwrap();
            feed.append_batch(vec![Bytes::from(vec![2; 100_000]), Bytes::new()]).await.unwrap();
            infos.push(feed.info());
        }
        let listed = store.list().await.unwrap();
        store.close().await;

        let store = Store::open(dir.path()).await.unwrap();
        assert_eq!(store.list().await.unwrap(), listed);
        for (name, info) in ["new", "old"].into_iter().zip(infos) {
            let feed = store.feed_by_name(name).await.unwrap().unwrap();
            assert_eq!(feed.info(), info);
            assert_eq!(feed.get(0).await.unwrap(), Some("first".into()));
            assert_eq!(feed.get(1).await.unwrap(), Some(vec![2; 100_000].into()));
            assert_eq!(feed.get(2).await.unwrap(), Some(Bytes::new()));
            assert_eq!(feed.append("next").await.unwrap(), 3);
        }
        // Slots go on where they were.
        store.create_feed("third", FeedOptions::default()).await.unwrap().append("own slot").await.unwrap();
        let feed = store.feed_by_name("new").await.unwrap().unwrap();
        assert_eq!(feed.get(0).await.unwrap(), Some("first".into()));
    }

    #[tokio::test]
    async fn a_store_that_is_open_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let refused = Store::open(dir.path()).await.map(drop).unwrap_err();
        assert!(matches!(refused, Error::Storage(StorageError::Locked { .. })), "{refused:?}");
        assert!(refused.to_string().contains("in use"));
        store.close().await;
        Store::open(dir.path()).await.unwrap();
    }

    #[tokio::test]
    async fn a_missing_secret_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let options = FeedOptions::default().seed([7; 32]);
        let discovery_key = store.create_feed("log", options).await.unwrap().discovery_key();
        store.close().await;
        fs::remove_file(dir.path().join("secrets").join(discovery_key.to_string())).unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let refused = store.feed_by_name("log").await.map(drop).unwrap_err();
        let expected = discovery_key.to_string();
        assert!(
            matches!(&refused, Error::Storage(StorageError::Damaged { what }) if what.contains(&expected)),
            "{refused:?}"
        );
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn secrets_are_for_the_owner_only_and_nowhere_else() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let seed: [u8; 32] = std::array::from_fn(|n| n as u8 + 100);
        let options = FeedOptions::default().seed(seed);
        let feed = store.create_feed("log", options).await.unwrap();
        store.close().await;

        let folder = dir.path().join("secrets");
        let file = folder.join(feed.discovery_key().to_string());
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&file).unwrap(), seed);
        crate::secrets::assert_only_in(&file, dir.path(), &seed);
    }
}
