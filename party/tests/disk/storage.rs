//! The storage on disk, through the storage trait.

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt as _;
use party::{
    error::StorageError,
    feed::storage::{Key, Slot, Storage, Write},
    store::disk::DiskStorage,
};
use tempfile::tempdir;

const SLOT: Slot = Slot(3);

fn put(key: Key, value: impl Into<Bytes>) -> Write {
    Write::Put(key, value.into())
}

async fn get(storage: &DiskStorage, key: Key) -> Option<Bytes> {
    storage.read(vec![key]).await.unwrap().remove(0)
}

fn every_kind() -> [Key; 6] {
    [
        Key::Record(b"name/a".to_vec()),
        Key::Head(SLOT),
        Key::Page(SLOT, 1),
        Key::Node(SLOT, 1),
        Key::Block(SLOT, 1),
        Key::Local(SLOT, b"beside".to_vec()),
    ]
}

#[tokio::test]
async fn every_kind_of_value_survives_a_restart() {
    let dir = tempdir().unwrap();
    for (round, len) in [0, 5, 5_000, 3_000_000].into_iter().enumerate() {
        let storage = DiskStorage::open(dir.path()).await.unwrap();
        let value = Bytes::from(vec![round as u8; len]);
        storage.commit(every_kind().map(|key| put(key, value.clone())).to_vec()).await.unwrap();
        storage.close().await.unwrap();

        let storage = DiskStorage::open(dir.path()).await.unwrap();
        let values = storage.read(every_kind().to_vec()).await.unwrap();
        assert!(values.iter().all(|found| found.as_ref() == Some(&value)), "{len} bytes");
        storage.close().await.unwrap();
    }
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    storage.commit(every_kind().map(Write::Delete).to_vec()).await.unwrap();
    storage.close().await.unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    assert_eq!(storage.read(every_kind().to_vec()).await.unwrap(), vec![None; 6]);
}

#[tokio::test]
async fn keys_of_different_kinds_and_slots_are_different() {
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    let keys: Vec<_> = [Slot(0), Slot(1), Slot(256), Slot(u64::MAX)]
        .into_iter()
        .flat_map(|slot| {
            let indexed = [0, 1, 256, u64::MAX].into_iter().flat_map(move |index| {
                [Key::Page(slot, index), Key::Node(slot, index), Key::Block(slot, index)]
            });
            indexed.chain([Key::Head(slot), Key::Record(slot.0.to_be_bytes().to_vec())])
        })
        .collect();
    let value = |n: usize| Bytes::from(format!("value {n}"));
    let writes = keys.iter().enumerate().map(|(n, key)| put(key.clone(), value(n))).collect();
    storage.commit(writes).await.unwrap();
    let found = storage.read(keys.clone()).await.unwrap();
    assert_eq!(found, (0..keys.len()).map(|n| Some(value(n))).collect::<Vec<_>>());
}

#[tokio::test]
async fn records_are_listed_by_prefix_and_sorted() {
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    let records = ["feed/b", "feed/a", "feed", "name/a", "feed/a/c", "feee"];
    let mut writes: Vec<_> = records.iter().map(|key| put(Key::Record((*key).into()), *key)).collect();
    writes.push(put(Key::Head(SLOT), "no record"));
    storage.commit(writes).await.unwrap();
    let keys = |found: Vec<(Vec<u8>, Bytes)>| -> Vec<String> {
        let key = |(key, value): (Vec<u8>, Bytes)| {
            assert_eq!(key, value);
            String::from_utf8(key).unwrap()
        };
        found.into_iter().map(key).collect()
    };
    let found = keys(storage.records(b"feed/".to_vec()).await.unwrap());
    assert_eq!(found, ["feed/a", "feed/a/c", "feed/b"]);
    assert_eq!(keys(storage.records(vec![]).await.unwrap()).len(), records.len());
    assert_eq!(keys(storage.records(b"zzz".to_vec()).await.unwrap()).len(), 0);
}

#[tokio::test]
async fn the_last_write_of_a_key_in_a_batch_counts() {
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    let (a, b) = (Key::Block(SLOT, 0), Key::Block(SLOT, 1));
    let writes = vec![
        put(a.clone(), "first"),
        Write::Delete(b.clone()),
        put(a.clone(), "second"),
        put(b.clone(), "back"),
        Write::Delete(a.clone()),
    ];
    storage.commit(writes).await.unwrap();
    let keys = vec![a, b];
    assert_eq!(storage.read(keys.clone()).await.unwrap(), [None, Some("back".into())]);
    storage.close().await.unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    assert_eq!(storage.read(keys).await.unwrap(), [None, Some("back".into())]);
}

#[tokio::test]
async fn commits_that_nobody_waits_for_happen_in_their_order() {
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    for n in 0..500_u64 {
        let writes = [Key::Head(SLOT), Key::Block(SLOT, n)].map(|key| put(key, n.to_string()));
        drop(storage.commit(writes.to_vec()));
    }
    storage.commit(vec![]).await.unwrap();
    assert_eq!(get(&storage, Key::Head(SLOT)).await, Some("499".into()));
    storage.close().await.unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    let blocks = storage.read((0..500).map(|n| Key::Block(SLOT, n)).collect()).await.unwrap();
    assert!(blocks.iter().all(Option::is_some));
}

#[tokio::test]
async fn a_small_commit_with_nothing_before_it_is_done_when_the_call_returns() {
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    let writes = [Key::Head(SLOT), Key::Block(SLOT, 0)].map(|key| put(key, vec![7; 1000]));
    storage.commit(writes.to_vec()).now_or_never().expect("it is done").unwrap();
    storage.close().await.unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    assert_eq!(get(&storage, Key::Block(SLOT, 0)).await, Some(vec![7; 1000].into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn small_and_large_commits_keep_the_order_of_the_calls() {
    let dir = tempdir().unwrap();
    let storage = Arc::new(DiskStorage::open(dir.path()).await.unwrap());
    // Small ones are carried out by whoever calls, large ones by a thread. Nobody waits for either.
    let size = |n: u64| if n.is_multiple_of(7) { 40_000 } else { 10 };
    let write = |slot: u64| {
        let storage = storage.clone();
        tokio::spawn(async move {
            for n in 0..200_u64 {
                let block = put(Key::Block(Slot(slot), n), vec![n as u8; size(n)]);
                drop(storage.commit(vec![put(Key::Head(Slot(slot)), n.to_string()), block]));
                if n.is_multiple_of(50) {
                    let held = storage.snapshot().await.unwrap();
                    let head = held.read(vec![Key::Head(Slot(slot))]).await.unwrap().remove(0);
                    assert_eq!(head, Some(n.to_string().into()));
                }
            }
        })
    };
    let writing: Vec<_> = (0..6).map(write).collect();
    for task in writing {
        task.await.unwrap();
    }
    storage.close().await.unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    for slot in (0..6).map(Slot) {
        assert_eq!(get(&storage, Key::Head(slot)).await, Some("199".into()));
        for n in 0..200 {
            assert_eq!(get(&storage, Key::Block(slot, n)).await, Some(vec![n as u8; size(n)].into()));
        }
    }
}

#[tokio::test]
async fn a_key_that_is_too_long_fails_alone() {
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    let before = storage.commit(vec![put(Key::Head(SLOT), "before")]);
    let long = storage.commit(vec![put(Key::Record(vec![0; 70_000]), "long")]);
    let after = storage.commit(vec![put(Key::Block(SLOT, 0), "after")]);
    before.await.unwrap();
    assert!(matches!(long.await, Err(StorageError::Database(_))));
    after.await.unwrap();
}

//= STORE-1
#[tokio::test]
async fn a_store_opens_once_at_a_time() {
    let dir = tempdir().unwrap();
    let first = DiskStorage::open(dir.path()).await.unwrap();
    let second = DiskStorage::open(dir.path()).await.unwrap_err();
    assert!(matches!(&second, StorageError::Locked { path } if Path::new(path) == dir.path()), "{second:?}");
    first.commit(vec![put(Key::Head(SLOT), "still mine")]).await.unwrap();
    first.close().await.unwrap();
    DiskStorage::open(dir.path()).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_closed_storage_finishes_what_was_begun_and_refuses_the_rest() {
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    let last = storage.commit(vec![put(Key::Head(SLOT), "last")]);
    let read = storage.read(vec![Key::Head(SLOT)]);
    let (closed, again) = (storage.close(), storage.close());
    last.await.unwrap();
    read.await.unwrap();
    closed.await.unwrap();
    again.await.unwrap();
    let refused = storage.commit(vec![put(Key::Head(SLOT), "too late")]).await;
    assert!(matches!(refused, Err(StorageError::Closed)));
    assert!(matches!(storage.read(vec![]).await, Err(StorageError::Closed)));
    assert!(matches!(storage.records(vec![]).await, Err(StorageError::Closed)));
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    assert_eq!(get(&storage, Key::Head(SLOT)).await, Some("last".into()));
}

#[tokio::test]
async fn a_folder_with_other_files_is_left_alone() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    let refused = DiskStorage::open(dir.path()).await.unwrap_err();
    assert!(matches!(refused, StorageError::NotAStore { .. }), "{refused:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

//= STORE-5
#[tokio::test]
async fn another_format_is_refused() {
    let dir = tempdir().unwrap();
    for expected in ["party store, format 1", "party store, format 3"] {
        fs::write(dir.path().join("party-store"), format!("{expected}\n")).unwrap();
        let refused = DiskStorage::open(dir.path()).await.unwrap_err();
        assert!(
            matches!(&refused, StorageError::UnknownFormat { found, .. } if found == expected),
            "{refused:?}"
        );
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

//= STORE-3
#[tokio::test]
async fn a_store_whose_making_was_cut_off_is_made_again() {
    let dir = tempdir().unwrap();
    DiskStorage::open(dir.path()).await.unwrap().close().await.unwrap();
    fs::write(dir.path().join("party-store"), "party store, being made\n").unwrap();
    fs::remove_file(dir.path().join("db/version")).unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    storage.commit(vec![put(Key::Head(SLOT), "works")]).await.unwrap();
    storage.close().await.unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    assert_eq!(get(&storage, Key::Head(SLOT)).await, Some("works".into()));
}

//= STORE-18
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_fails_the_commit_as_a_whole() {
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    storage.commit(vec![put(Key::Head(SLOT), "before")]).await.unwrap();
    storage.close().await.unwrap();
    // The device that is always full takes the place of the first block file.
    let file = dir.path().join("blocks/0000000001");
    std::os::unix::fs::symlink("/dev/full", &file).unwrap();

    let storage = DiskStorage::open(dir.path()).await.unwrap();
    let value = Bytes::from(vec![1; 100_000]);
    let block = put(Key::Block(SLOT, 0), value.clone());
    let failed = storage.commit(vec![put(Key::Head(SLOT), "after"), block.clone()]).await.unwrap_err();
    assert!(
        matches!(&failed, StorageError::Io(error) if error.kind() == std::io::ErrorKind::StorageFull),
        "{failed:?}"
    );
    let keys = vec![Key::Head(SLOT), Key::Block(SLOT, 0)];
    assert_eq!(storage.read(keys.clone()).await.unwrap(), [Some("before".into()), None]);

    // Room was made, and the storage goes on.
    fs::remove_file(&file).unwrap();
    storage.commit(vec![put(Key::Head(SLOT), "after"), block.clone()]).await.unwrap();
    storage.close().await.unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    assert_eq!(storage.read(keys).await.unwrap(), [Some("after".into()), Some(value)]);
}
