//! A disk that fills: what doesn't fit fails, what is there stays readable, and when there is room again it
//! works again, without anybody opening anything.
//!
//! The disk is a small tmpfs, which only root can mount. Who is not sees a note.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::Path,
    process::Command,
};

use bytes::Bytes;
use party::{
    error::{Error, StorageError},
    feed::storage::{Key, Slot, Span, Storage, Write},
    store::{
        FeedOptions, Store, StoreOptions,
        disk::{DiskOptions, DiskStorage},
    },
};
use tempfile::{TempDir, tempdir};

const SLOT: Slot = Slot(3);

/// A small disk, unmounted in the end.
struct Disk(TempDir);

impl Disk {
    fn mount(megabytes: u32) -> Option<Self> {
        let dir = tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir));
        }
        #[allow(clippy::print_stderr)] // A skipped test has to be seen.
        {
            eprintln!("skipped: no tmpfs could be mounted");
        }
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn free(&self) -> u64 {
        let stats = rustix::fs::statvfs(self.path()).unwrap();
        stats.f_bavail * stats.f_frsize
    }

    /// Takes all but `bytes` of the room, or as much as the store leaves while it is being taken.
    fn fill(&self, bytes: u64) {
        let free = self.free();
        let mut file =
            fs::File::options().create(true).append(true).open(self.path().join("ballast")).unwrap();
        let zeros = vec![0; 64 << 10];
        let mut left = free.saturating_sub(bytes) as usize;
        while left > 0 {
            let n = left.min(zeros.len());
            match file.write_all(&zeros[..n]) {
                Ok(()) => left -= n,
                Err(error) => return assert_eq!(error.kind(), ErrorKind::StorageFull),
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, as the storage may still be closing.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn is_full(error: &StorageError) -> bool {
    matches!(error, StorageError::Io(error) if error.kind() == ErrorKind::StorageFull)
}

fn block(index: u64, len: usize) -> Bytes {
    Bytes::from(vec![index as u8; len])
}

fn put(index: u64, len: usize) -> Write {
    Write::Put(Key::Block(SLOT, index), block(index, len))
}

async fn assert_blocks(storage: &DiskStorage, count: u64, len: usize) {
    let keys = (0..count + 1).map(|index| Key::Block(SLOT, index)).collect();
    let found = storage.read(keys).await.unwrap();
    for (index, found) in (0..count).zip(&found) {
        assert_eq!(*found, Some(block(index, len)), "{index}");
    }
    assert_eq!(found[count as usize], None);
}

/// Commits until the disk is full; the number of commits that there are then.
async fn fill_up(storage: &DiskStorage, from: u64, len: usize) -> u64 {
    let mut n = from;
    loop {
        match storage.commit(vec![put(n, len)]).await {
            Ok(()) => n += 1,
            Err(error) => {
                assert!(is_full(&error), "{error:?}");
                return n;
            }
        }
    }
}

#[tokio::test]
async fn a_feed_on_a_full_disk_stays_readable_and_goes_on_when_there_is_room() {
    let Some(disk) = Disk::mount(48) else { return };
    let dir = disk.path().join("store");
    let store = Store::open(&dir).await.unwrap();
    let feed = store.create_feed("log", FeedOptions::default()).await.unwrap();
    let mut length = 0;
    for _ in 0..3 {
        let failed = loop {
            match feed.append(block(length, 50_000)).await {
                Ok(index) => assert_eq!(index, length),
                Err(error) => break error,
            }
            length += 1;
        };
        assert!(matches!(&failed, Error::Storage(error) if is_full(error)), "{failed:?}");
        assert!(length > 0 && feed.info().length == length);
        for index in (0..length).filter(|index| feed.has(*index)) {
            assert_eq!(feed.get(index).await.unwrap(), Some(block(index, 50_000)));
        }
        // To delete what is not needed is possible, and makes room.
        feed.clear(0..length - 1).await.unwrap();
    }
    assert!(feed.audit().await.unwrap().is_clean());
    store.close().await;
}

#[tokio::test]
async fn a_write_of_the_journal_that_fails_is_recovered_from() {
    let Some(disk) = Disk::mount(24) else { return };
    // Without a reserve, so that the journal is what fails.
    let options = DiskOptions::default().reserve(0);
    let storage = DiskStorage::open_with(disk.path().join("store"), options).await.unwrap();
    let mut count = 0;
    for round in 0..4 {
        disk.fill(100_000 + 30_000 * round);
        // Short ones lie in the journal.
        count = fill_up(&storage, count, 100).await;
        assert_blocks(&storage, count, 100).await;
        let snapshot = storage.snapshot().await.unwrap();
        assert!(is_full(&storage.commit(vec![put(count, 100)]).await.unwrap_err()));
        assert!(snapshot.read(vec![Key::Block(SLOT, 0)]).await.unwrap()[0].is_some());
        disk.make_room();
        storage.commit(vec![put(count, 100)]).await.unwrap();
        count += 1;
        assert_blocks(&storage, count, 100).await;
        let lost = snapshot.read(vec![Key::Block(SLOT, 0)]).await.unwrap_err();
        assert!(matches!(lost, StorageError::SnapshotLost));
    }
    storage.close().await.unwrap();
    let storage = DiskStorage::open_with(disk.path().join("store"), options).await.unwrap();
    assert_blocks(&storage, count, 100).await;
}

#[tokio::test]
async fn the_databases_own_writes_may_find_the_disk_full() {
    let Some(disk) = Disk::mount(96) else { return };
    let options = DiskOptions::default().reserve(0);
    let dir = disk.path().join("store");
    let storage = DiskStorage::open_with(&dir, options).await.unwrap();
    // So much in nodes that tables have to be written, and less room than that needs.
    let node = |n: u64| Write::Put(Key::Node(SLOT, n * 16), block(n, 20_000));
    disk.fill(40 << 20);
    let mut count = 0;
    for round in 0..2 {
        let failed = loop {
            match storage.commit((count..count + 10).map(node).collect()).await {
                Ok(()) => count += 10,
                Err(error) => break error,
            }
        };
        assert!(is_full(&failed), "{failed:?}");
        let keys: Vec<Key> = (0..count).map(|n| Key::Node(SLOT, n * 16)).collect();
        let found = storage.read(keys).await.unwrap();
        assert!(found.iter().zip(0..).all(|(found, n)| *found == Some(block(n, 20_000))));
        if round == 0 {
            disk.make_room();
            storage.commit((count..count + 10).map(node).collect()).await.unwrap();
            count += 10;
        }
    }
    storage.close().await.unwrap();
    // There is no room now, and all of it is still readable.
    let storage = DiskStorage::open_with(&dir, options).await;
    if let Ok(storage) = storage {
        let found = storage.read(vec![Key::Node(SLOT, 0)]).await.unwrap();
        assert_eq!(found[0], Some(block(0, 20_000)));
        storage.commit(vec![Write::Clear(Span::Feed(SLOT))]).await.ok();
        storage.close().await.unwrap();
    } else {
        assert!(is_full(&storage.unwrap_err()));
    }
}

/// SplitMix64: the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }
}

#[tokio::test]
async fn a_disk_that_is_full_now_and_then_costs_nothing_that_was_done() {
    let Some(disk) = Disk::mount(64) else { return };
    let dir = disk.path().join("store");
    for seed in 0..4 {
        let mut random = Random(seed);
        // With a reserve and without.
        let options = StoreOptions::default().disk(DiskOptions::default().reserve(seed % 2 * (1 << 20)));
        let mut store = Store::open_with(&dir, options.clone()).await.unwrap();
        let name = format!("log {seed}");
        let mut feed = store.create_feed(&name, FeedOptions::default()).await.unwrap();
        // What is stored, by index.
        let mut model: Vec<Option<Bytes>> = vec![];
        let mut failures = 0;
        // What there is room for, while the disk is filled.
        let mut room: Option<u64> = None;
        let mut steps = 0;
        while steps < 300 || failures <= 3 {
            steps += 1;
            assert!(steps < 10_000, "seed {seed}: the disk was full {failures} times");
            match random.below(12) {
                0 if room.is_some() => {
                    disk.make_room();
                    room = None;
                }
                1 if room.is_none() => room = Some(random.below(3 << 20)),
                2 if room.is_none() => {
                    store.close().await;
                    store = Store::open_with(&dir, options.clone()).await.unwrap();
                    feed = store.feed_by_name(&name).await.unwrap().unwrap();
                }
                _ => {}
            }
            // The store gives back room when it comes to it, on threads of its own. How often the disk is full must not depend on
            // when that is: what it gives back is taken, too.
            if let Some(room) = &mut room {
                *room = disk.free().min(*room);
                disk.fill(*room);
            }
            let length = model.len() as u64;
            let before = feed.info();
            let (result, after) = match random.below(10) {
                0 => {
                    let cut = length - random.below(length.min(30) + 1);
                    let mut after = model.clone();
                    after.truncate(cut as usize);
                    (feed.truncate(cut).await, after)
                }
                1 | 2 => {
                    let start = random.below(length + 1);
                    let end = (start + random.below(40)).min(length);
                    let mut after = model.clone();
                    after[start as usize..end as usize].fill(None);
                    (feed.clear(start..end).await.map(drop), after)
                }
                _ => {
                    let blocks: Vec<Bytes> = (0..1 + random.below(20))
                        .map(|_| block(random.below(256), [30, 1000, 40_000][random.below(3) as usize]))
                        .collect();
                    let after = model.iter().cloned().chain(blocks.iter().cloned().map(Some)).collect();
                    (feed.append_batch(blocks).await.map(drop), after)
                }
            };
            match result {
                Ok(()) => model = after,
                Err(Error::Storage(error)) => {
                    assert!(is_full(&error), "seed {seed}: {error:?}");
                    assert_eq!(feed.info(), before, "seed {seed}");
                    failures += 1;
                }
                Err(other) => panic!("seed {seed}: {other:?}"),
            }
            assert_eq!(feed.info().length, model.len() as u64, "seed {seed}");
            for _ in 0..3 {
                let index = random.below(model.len() as u64);
                let expected = model.get(index as usize).cloned().flatten();
                assert_eq!(feed.get(index).await.unwrap(), expected, "seed {seed}: {index}");
            }
        }
        if room.is_some() {
            disk.make_room();
        }
        store.close().await;
        let store = Store::open_with(&dir, options).await.unwrap();
        let feed = store.feed_by_name(&name).await.unwrap().unwrap();
        assert!(feed.audit().await.unwrap().is_clean(), "seed {seed}");
        assert_eq!(feed.info().length, model.len() as u64);
        for (index, expected) in (0..).zip(&model) {
            assert_eq!(feed.get(index).await.unwrap(), *expected, "seed {seed}: {index}");
        }
        store.purge(&feed.discovery_key()).await.unwrap();
        store.close().await;
    }
}
