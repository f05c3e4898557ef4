//! A storage on disk with much in it.

use std::fs;

use bytes::Bytes;
use futures_util::future::try_join_all;
use party::{
    feed::storage::{Key, Slot, Span, Storage, Write},
    key::FeedKey,
    store::{
        FeedOptions, Store, StoreOptions,
        disk::{DiskOptions, DiskStorage, Durability},
    },
};
use tempfile::tempdir;

#[tokio::test(flavor = "multi_thread")]
async fn fifty_writers_at_once_survive_as_power_promises() {
    let dir = tempdir().unwrap();
    let options = StoreOptions::default().durability(Durability::Power);
    let store = Store::open_with(dir.path(), options.clone()).await.unwrap();
    let one = store.create_feed("one", FeedOptions::default()).await.unwrap();
    let mut writers = vec![];
    for n in 0..50_u8 {
        let own = store.create_feed(&format!("own {n}"), FeedOptions::default()).await.unwrap();
        let one = one.clone();
        writers.push(tokio::spawn(async move {
            for round in 0..4_u8 {
                let block = Bytes::from(vec![n, round]);
                own.append(block.clone()).await.unwrap();
                one.append(block).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    store.close().await;
    let store = Store::open_with(dir.path(), options).await.unwrap();
    let one = store.feed_by_name("one").await.unwrap().unwrap();
    assert_eq!(one.info().length, 200);
    let mut next = [0_u8; 50];
    for index in 0..200 {
        let block = one.get(index).await.unwrap().unwrap();
        assert_eq!(block[1], next[usize::from(block[0])]);
        next[usize::from(block[0])] += 1;
    }
    for n in 0..50 {
        let own = store.feed_by_name(&format!("own {n}")).await.unwrap().unwrap();
        assert!(own.audit().await.unwrap().is_clean());
        assert_eq!(own.info().length, 4);
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_feeds_live_in_one_store() {
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let key = |n: u32| {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        FeedKey::from_bytes(key)
    };
    for n in 0..10_000 {
        store.feed(&key(n)).await.unwrap();
    }
    store.close().await;
    let store = Store::open(dir.path()).await.unwrap();
    assert_eq!(store.list().await.unwrap().len(), 10_000);
    let mut held = vec![];
    for n in (0..10_000).step_by(10) {
        let feed = store.feed_by_discovery_key(&key(n).discovery_key()).await.unwrap().unwrap();
        assert_eq!(feed.key(), key(n));
        held.push(feed);
    }
    #[cfg(target_os = "linux")]
    {
        let open = fs::read_dir("/proc/self/fd").unwrap();
        let targets = open.filter_map(|file| fs::read_link(file.unwrap().path()).ok());
        let open = targets.filter(|target| target.starts_with(dir.path())).count();
        assert!(open < 400, "{open} files are open");
    }
    drop(held);
    store.close().await;
}

/// A block each in so many rows that they would be some hundred megabytes as one batch.
#[tokio::test]
async fn a_million_blocks_go_as_one() {
    const N: u64 = 1_000_000;
    let slot = Slot(0);
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    let put = |index: u64| Write::Put(Key::Block(slot, index), Bytes::from_static(b"few"));
    for start in (0..N).step_by(100_000) {
        storage.commit((start..start + 100_000).map(put).collect()).await.unwrap();
    }
    storage.commit(vec![Write::Clear(Span::Blocks(slot, 1..N)), put(N)]).await.unwrap();
    let some: Vec<Key> =
        (1..N).step_by(997).chain([0, N - 1, N]).map(|index| Key::Block(slot, index)).collect();
    let found = storage.read(some.clone()).await.unwrap();
    assert_eq!(found.into_iter().flatten().count(), 2);
    // Whether or not it is done, it can be closed, and stays as it is.
    storage.close().await.unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    let found = storage.read(some.clone()).await.unwrap();
    assert_eq!(found.into_iter().flatten().count(), 2);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn commits_that_wait_share_a_sync() {
    let dir = tempdir().unwrap();
    let options = DiskOptions::default().durability(Durability::Power);
    let storage = DiskStorage::open_with(dir.path(), options).await.unwrap();
    let before = syncs(dir.path());
    let put = |n: u64| storage.commit(vec![Write::Put(Key::Block(Slot(n), 0), vec![n as u8; 500].into())]);
    try_join_all((0..50).map(put)).await.unwrap();
    let batches = syncs(dir.path()) - before;
    assert!(batches < 10, "fifty commits were {batches}");
    storage.close().await.unwrap();
}

/// How many batches were written, each of which is synced once: noted in the store's folder after each.
fn syncs(dir: &std::path::Path) -> u64 {
    let noted = fs::read(dir.join("commits")).unwrap_or_default();
    noted.get(17..25).map_or(0, |count| u64::from_le_bytes(count.try_into().unwrap()))
}
