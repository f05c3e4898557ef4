//! Deleted blocks give their space back to the file system, and no one notices otherwise.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use bytes::Bytes;
use party::{
    feed::storage::{Key, Slot, Span, Storage, Write},
    store::disk::DiskStorage,
};
use tempfile::tempdir;

const SLOT: Slot = Slot(3);
/// Not a divisor of a page, so that blocks share pages with their neighbours.
const LEN: usize = 1000;

fn block(index: u64) -> Bytes {
    Bytes::from(vec![index as u8 ^ (index >> 8) as u8; LEN])
}

fn puts(slot: Slot, indexes: std::ops::Range<u64>) -> Vec<Write> {
    indexes.map(|index| Write::Put(Key::Block(slot, index), block(index))).collect()
}

/// What the block files take up on the disk, in bytes.
fn taken(dir: &Path) -> u64 {
    let files = fs::read_dir(dir.join("blocks")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
}

/// Whether this file system can do it at all.
fn can_punch(dir: &Path) -> bool {
    let file = fs::File::create(dir.join("probe")).unwrap();
    let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    let can = rustix::fs::fallocate(&file, flags, 0, 4096).is_ok();
    fs::remove_file(dir.join("probe")).unwrap();
    if !can {
        #[allow(clippy::print_stderr)] // A skipped test has to be seen.
        {
            eprintln!("skipped: no holes on this file system");
        }
    }
    can
}

async fn reopen(storage: DiskStorage, dir: &Path) -> DiskStorage {
    storage.close().await.unwrap();
    DiskStorage::open(dir).await.unwrap()
}

async fn assert_blocks(storage: &DiskStorage, slot: Slot, indexes: impl IntoIterator<Item = u64>) {
    let indexes: Vec<u64> = indexes.into_iter().collect();
    let found = storage.read(indexes.iter().map(|index| Key::Block(slot, *index)).collect()).await.unwrap();
    for (index, found) in indexes.into_iter().zip(found) {
        assert_eq!(found, Some(block(index)), "{index}");
    }
}

#[tokio::test]
async fn a_cleared_span_gives_its_space_back() {
    let dir = tempdir().unwrap();
    let holes = tempdir().unwrap();
    if !can_punch(holes.path()) {
        return;
    }
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    for start in (0..20_000).step_by(1000) {
        storage.commit(puts(SLOT, start..start + 1000)).await.unwrap();
    }
    let before = taken(dir.path());
    assert!(before >= 20_000_000);
    storage.commit(vec![Write::Clear(Span::Blocks(SLOT, 100..19_900))]).await.unwrap();
    let storage = reopen(storage, dir.path()).await;
    let after = taken(dir.path());
    assert!(after < 220_000, "{after} bytes of {before} are left");
    assert_blocks(&storage, SLOT, (0..100).chain(19_900..20_000)).await;
    let cleared = (100..19_900).map(|index| Key::Block(SLOT, index)).collect();
    assert!(storage.read(cleared).await.unwrap().iter().all(Option::is_none));
}

#[tokio::test]
async fn blocks_that_go_one_by_one_give_their_space_back() {
    let dir = tempdir().unwrap();
    if !can_punch(dir.path()) {
        return;
    }
    let dir = tempdir().unwrap();
    let mut storage = DiskStorage::open(dir.path()).await.unwrap();
    storage.commit(puts(SLOT, 0..2000)).await.unwrap();
    // Every other one first, then those in between, in another order; some are overwritten.
    for index in (0..2000).step_by(2) {
        storage.commit(vec![Write::Delete(Key::Block(SLOT, index))]).await.unwrap();
        if index % 500 == 0 {
            storage = reopen(storage, dir.path()).await;
        }
    }
    assert_blocks(&storage, SLOT, (1..2000).step_by(2)).await;
    for index in (1..1990).step_by(2).collect::<Vec<_>>().into_iter().rev() {
        let write = match index % 3 {
            0 => Write::Delete(Key::Block(SLOT, index)),
            1 => Write::Put(Key::Block(SLOT, index), Bytes::from_static(b"short")),
            _ => Write::Clear(Span::Blocks(SLOT, index..index + 1)),
        };
        storage.commit(vec![write]).await.unwrap();
    }
    let storage = reopen(storage, dir.path()).await;
    let after = taken(dir.path());
    assert!(after <= 16_000, "{after} bytes are left");
    assert_blocks(&storage, SLOT, (1991..2000).step_by(2)).await;
}

#[tokio::test]
async fn a_purged_feed_gives_its_space_back_and_others_stay() {
    let dir = tempdir().unwrap();
    if !can_punch(dir.path()) {
        return;
    }
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    let other = Slot(4);
    for start in (0..10_000).step_by(50) {
        // Blocks of two feeds side by side.
        let mut writes = puts(SLOT, start..start + 50);
        writes.extend(puts(other, start / 50..start / 50 + 1));
        storage.commit(writes).await.unwrap();
    }
    storage.commit(vec![Write::Clear(Span::Feed(SLOT))]).await.unwrap();
    let storage = reopen(storage, dir.path()).await;
    // Each of the two hundred blocks that are left may hold on to two pages.
    let after = taken(dir.path());
    assert!(after <= 200 * 2 * 4096, "{after} bytes are left");
    assert_blocks(&storage, other, 0..200).await;
}

#[tokio::test]
async fn a_snapshot_reads_what_was_deleted_and_lets_it_go_with_itself() {
    let dir = tempdir().unwrap();
    if !can_punch(dir.path()) {
        return;
    }
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    storage.commit(puts(SLOT, 0..5000)).await.unwrap();
    let snapshot = storage.snapshot().await.unwrap();
    storage.commit(vec![Write::Clear(Span::Blocks(SLOT, 0..u64::MAX))]).await.unwrap();
    storage.commit(puts(SLOT, 0..10)).await.unwrap();
    let later = storage.snapshot().await.unwrap();
    let keys: Vec<Key> = (0..5000).map(|index| Key::Block(SLOT, index)).collect();
    let found = snapshot.read(keys.clone()).await.unwrap();
    assert!(found.iter().zip(0..).all(|(found, index)| *found == Some(block(index))));
    assert!(taken(dir.path()) >= 5_000_000);
    let found = later.read(keys).await.unwrap();
    assert_eq!(found.iter().flatten().count(), 10);
    drop((snapshot, later));
    let storage = reopen(storage, dir.path()).await;
    assert!(taken(dir.path()) < 50_000);
    assert_blocks(&storage, SLOT, 0..10).await;
}

#[tokio::test]
async fn a_snapshot_is_lost_when_the_store_was_suspended() {
    let dir = tempdir().unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    storage.commit(puts(SLOT, 0..10)).await.unwrap();
    let snapshot = storage.snapshot().await.unwrap();
    storage.suspend().await.unwrap();
    storage.resume().await.unwrap();
    let lost = snapshot.read(vec![Key::Block(SLOT, 0)]).await;
    assert!(matches!(lost, Err(party::error::StorageError::SnapshotLost)), "{lost:?}");
    assert_blocks(&storage, SLOT, 0..10).await;
}
