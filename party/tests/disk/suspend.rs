//! A storage that lets go of its folder for a while.

use bytes::Bytes;
use party::{
    error::StorageError,
    feed::storage::{Key, Slot, Storage, Write},
    store::disk::DiskStorage,
};
use tempfile::tempdir;

const HEAD: Key = Key::Head(Slot(3));

fn put(value: &'static str) -> Vec<Write> {
    vec![Write::Put(HEAD, Bytes::from_static(value.as_bytes()))]
}

async fn get(storage: &DiskStorage) -> Option<Bytes> {
    storage.read(vec![HEAD]).await.unwrap().remove(0)
}

#[tokio::test]
async fn what_is_asked_of_a_suspended_storage_waits_until_it_resumes() {
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    let before = storage.commit(put("before"));
    storage.suspend().await.unwrap();
    before.await.unwrap();

    let mut read = storage.read(vec![HEAD]);
    let mut commit = storage.commit(put("after"));
    storage.suspend().await.unwrap();
    assert!(futures_util::poll!(&mut read).is_pending() && futures_util::poll!(&mut commit).is_pending());
    // The folder is free.
    let other = DiskStorage::open(dir.path()).await.unwrap();
    assert_eq!(get(&other).await.as_deref(), Some(&b"before"[..]));
    let locked = storage.resume().await;
    assert!(matches!(locked, Err(StorageError::Locked { .. })), "{locked:?}");
    other.close().await.unwrap();

    storage.resume().await.unwrap();
    commit.await.unwrap();
    assert!(read.await.unwrap()[0].is_some());
    assert_eq!(get(&storage).await.as_deref(), Some(&b"after"[..]));
    storage.resume().await.unwrap();
    storage.close().await.unwrap();
}

#[tokio::test]
async fn what_another_has_changed_meanwhile_is_never_overwritten() {
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    storage.commit(put("mine")).await.unwrap();
    storage.suspend().await.unwrap();
    let stale = storage.commit(put("stale"));
    let other = DiskStorage::open(dir.path()).await.unwrap();
    other.commit(put("other")).await.unwrap();
    other.close().await.unwrap();

    let changed = |error: &StorageError| matches!(error, StorageError::ChangedElsewhere { .. });
    assert!(changed(&storage.resume().await.unwrap_err()));
    assert!(changed(&stale.await.unwrap_err()));
    assert!(changed(&storage.read(vec![HEAD]).await.unwrap_err()));
    assert!(changed(&storage.commit(put("again")).await.unwrap_err()));
    assert!(changed(&storage.snapshot().await.map(drop).unwrap_err()));
    assert!(changed(&storage.resume().await.unwrap_err()));
    // And nothing is in the way of opening it anew.
    let other = DiskStorage::open(dir.path()).await.unwrap();
    assert_eq!(get(&other).await.as_deref(), Some(&b"other"[..]));
    storage.close().await.unwrap();
}

#[tokio::test]
async fn a_copy_that_grew_by_as_many_commits_is_another_store() {
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    storage.commit(put("one")).await.unwrap();
    storage.close().await.unwrap();
    let copy = tempdir().unwrap();
    copy_folder(dir.path(), copy.path());

    let storage = DiskStorage::open(dir.path()).await.unwrap();
    storage.commit(put("mine")).await.unwrap();
    storage.suspend().await.unwrap();
    let other = DiskStorage::open(copy.path()).await.unwrap();
    other.commit(put("other")).await.unwrap();
    other.close().await.unwrap();
    std::fs::remove_dir_all(dir.path()).unwrap();
    copy_folder(copy.path(), dir.path());
    assert!(matches!(storage.resume().await, Err(StorageError::ChangedElsewhere { .. })));
}

#[tokio::test]
async fn a_folder_that_is_gone_is_not_made_anew() {
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    storage.commit(put("mine")).await.unwrap();
    storage.suspend().await.unwrap();
    let moved = dir.path().join("moved");
    std::fs::create_dir(&moved).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.path() != moved {
            std::fs::rename(entry.path(), moved.join(entry.file_name())).unwrap();
        }
    }
    assert!(storage.resume().await.is_err());
    for entry in std::fs::read_dir(&moved).unwrap() {
        let entry = entry.unwrap();
        std::fs::rename(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    std::fs::remove_dir(&moved).unwrap();
    storage.resume().await.unwrap();
    assert_eq!(get(&storage).await.as_deref(), Some(&b"mine"[..]));
}

#[tokio::test]
async fn a_suspended_storage_can_be_closed() {
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    storage.commit(put("before")).await.unwrap();
    storage.suspend().await.unwrap();
    let (read, commit) = (storage.read(vec![HEAD]), storage.commit(put("after")));
    storage.close().await.unwrap();
    assert!(matches!(read.await, Err(StorageError::Closed)));
    assert!(matches!(commit.await, Err(StorageError::Closed)));
    assert!(matches!(storage.resume().await, Err(StorageError::Closed)));
    assert_eq!(get(&DiskStorage::open(dir.path()).await.unwrap()).await.as_deref(), Some(&b"before"[..]));
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
