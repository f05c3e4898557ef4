//! What can't be seen from outside, or not without waiting: the order of syncs, and what is left half done
//! when a process is killed.

use std::{fs::File, ops::Range, path::PathBuf};

use super::*;
use crate::feed::storage::{Key, Slot, Span, Write};

const SLOT: Slot = Slot(3);

fn open(dir: &Path, durability: Durability) -> Database {
    let (database, blocks): (PathBuf, PathBuf) = (dir.join("db"), dir.join("blocks"));
    let is_there = database.exists();
    let opening = Opening {
        database: &database,
        blocks: &blocks,
        least: is_there.then(Extent::default),
        acknowledged: super::super::mark::read(&dir.join("commits")).filter(|_| is_there),
        durability,
        mark: Mark::open(&dir.join("commits"), durability).unwrap(),
        writer: 7,
        live: Arc::new(Live::new(|| ())),
    };
    Database::open(opening).unwrap()
}

fn block(index: u64) -> Bytes {
    Bytes::from(vec![index as u8; 1000])
}

fn puts(indexes: Range<u64>) -> Vec<Write> {
    indexes.map(|index| Write::Put(Key::Block(SLOT, index), block(index))).collect()
}

fn keys(indexes: Range<u64>) -> Vec<Key> {
    indexes.map(|index| Key::Block(SLOT, index)).collect()
}

fn tidy_all(database: &Database) {
    while database.work() != Work::Nothing {
        database.tidy_some().unwrap();
    }
}

/// How many of the first `n` blocks are there; these must be what they were.
fn found(database: &Database, n: u64) -> usize {
    let found = database.read(&keys(0..n), usize::MAX).unwrap();
    let right =
        |(found, index): &(&Option<Bytes>, u64)| found.as_ref().is_none_or(|found| *found == block(*index));
    assert!(found.iter().zip(0..).all(|it| right(&it)));
    found.iter().flatten().count()
}

#[cfg(target_os = "linux")]
fn taken(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let files = fs::read_dir(dir.join("blocks")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
}

//= STORE-14, STORE-17
#[test]
fn blocks_are_on_the_disk_before_the_journal_that_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path(), Durability::Power);
    database.commit(puts(0..20)).unwrap();
    database.commit(vec![Write::Put(Key::Head(SLOT), block(0))]).unwrap();
    database.commit(puts(20..21)).unwrap();
    assert_eq!(*lock(&database.syncs), ["blocks", "journal", "journal", "blocks", "journal"]);
}

/// The count, which is the same in every keyspace.
fn stored_count(database: &Database) -> Count {
    let counts = Space::ALL.map(|space| database.keyspaces.of(space).get([COUNT]).unwrap().unwrap());
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    Count::decode(&counts[0]).unwrap()
}

//= STORE-9
#[test]
fn every_batch_writes_the_count_to_every_keyspace() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path(), Durability::Process);
    let node = Write::Put(Key::Node(SLOT, 6), Bytes::from_static(&[9; 40]));
    let head = Write::Put(Key::Head(SLOT), block(0));
    let much = Write::Clear(Span::Blocks(SLOT, 0..30_000));
    let batches = [vec![node], vec![head], puts(0..30_000), vec![much], vec![Write::Delete(Key::Head(SLOT))]];
    for (writes, commits) in batches.into_iter().zip(1..) {
        database.commit(writes).unwrap();
        assert_eq!(stored_count(&database).commits, commits);
    }
    // Deletions and holes that are seen to later are batches, too.
    assert_ne!(database.work(), Work::Nothing);
    tidy_all(&database);
    assert!(database.commits() > 5, "tidying was some more");
    assert_eq!(stored_count(&database).commits, database.commits());
}

#[test]
fn what_need_not_survive_a_power_loss_is_not_synced() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path(), Durability::Process);
    database.commit(puts(0..20)).unwrap();
    assert!(lock(&database.syncs).is_empty());
}

#[test]
#[cfg(target_os = "linux")]
fn what_a_killed_process_had_not_given_back_is_given_back_later() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path(), Durability::Process);
    database.commit(puts(0..3000)).unwrap();
    database.commit(vec![Write::Clear(Span::Blocks(SLOT, 10..2990))]).unwrap();
    assert_eq!(database.work(), Work::Soon);
    drop(database);
    assert!(taken(dir.path()) >= 3_000_000);

    let database = open(dir.path(), Durability::Process);
    assert_eq!(database.work(), Work::Soon);
    tidy_all(&database);
    assert!(taken(dir.path()) < 40_000);
    assert_eq!(found(&database, 3000), 20);
    drop(database);
    assert_eq!(open(dir.path(), Durability::Process).work(), Work::Nothing);
}

#[test]
#[cfg(target_os = "linux")]
fn what_was_half_given_back_is_given_back_again_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path(), Durability::Process);
    database.commit(puts(0..100)).unwrap();
    database.commit(vec![Write::Clear(Span::Blocks(SLOT, 0..50))]).unwrap();
    // As if killed between the hole and the note that it is made.
    assert!(database.blocks.punch(1, &(0..12 * 4096)).unwrap());
    drop(database);
    let database = open(dir.path(), Durability::Process);
    database.commit(puts(100..200)).unwrap();
    tidy_all(&database);
    assert_eq!(found(&database, 200), 150);
}

//= STORE-16
#[test]
fn a_large_deletion_takes_effect_at_once_and_is_done_bit_by_bit() {
    const N: u64 = 200_000;
    let dir = tempfile::tempdir().unwrap();
    let few = |index: u64| Write::Put(Key::Block(SLOT, index), block(index).slice(..3));
    let database = open(dir.path(), Durability::Process);
    database.commit((0..N).map(few).collect()).unwrap();
    let held = database.hold();
    database.commit(vec![Write::Clear(Span::Blocks(SLOT, 5..u64::MAX)), few(70), few(100_000)]).unwrap();
    assert_eq!(database.work(), Work::Now);
    let count =
        |database: &Database| database.read(&keys(0..N), usize::MAX).unwrap().into_iter().flatten().count();
    assert_eq!(count(&database), 7);
    // Killed, after the first steps.
    database.tidy_some().unwrap();
    database.tidy_some().unwrap();
    assert_eq!(count(&database), 7);
    assert_eq!(database.read_held(&held, &keys(0..N)).unwrap().into_iter().flatten().count(), N as usize);
    drop((database, held));

    let database = open(dir.path(), Durability::Process);
    assert_eq!(count(&database), 7);
    // What is written where it isn't done yet is not taken along.
    database.commit((150_000..150_100).map(few).collect()).unwrap();
    assert_eq!(count(&database), 107);
    tidy_all(&database);
    assert_eq!(count(&database), 107);
    let rows = database.keyspaces.blocks.iter().count();
    assert!(rows < 20, "{rows} rows are left");
}

#[test]
fn a_snapshot_is_in_the_way_of_what_was_deleted_after_it_only() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path(), Durability::Process);
    database.commit(puts(0..300)).unwrap();
    database.commit(vec![Write::Clear(Span::Blocks(SLOT, 0..100))]).unwrap();
    let held = database.hold();
    database.commit(vec![Write::Clear(Span::Blocks(SLOT, 100..200))]).unwrap();
    tidy_all(&database);
    let values = database.read_held(&held, &keys(0..300)).unwrap();
    assert!(values[..100].iter().all(Option::is_none));
    assert!(values[100..].iter().zip(100..).all(|(value, index)| *value == Some(block(index))));
    assert!(lock(&database.holes).oldest.is_some());
    drop(held);
    assert_eq!(database.work(), Work::Soon);
    tidy_all(&database);
    assert!(lock(&database.holes).oldest.is_none());
    assert_eq!(found(&database, 300), 100);
}

#[test]
fn free_neighbours_become_one_and_a_file_without_blocks_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = open(dir.path(), Durability::Process);
    database.blocks.set_file_bytes(50_000);
    database.commit(puts(0..100)).unwrap();
    database.commit(puts(100..200)).unwrap();
    for index in (0..100).rev().step_by(2).chain((0..100).step_by(2)) {
        database.commit(vec![Write::Delete(Key::Block(SLOT, index))]).unwrap();
    }
    let free = || database.keyspaces.state.prefix([layout::FREE]).count();
    assert_eq!(free(), 1);
    tidy_all(&database);
    assert_eq!(free(), 0);
    assert_eq!(fs::read_dir(dir.path().join("blocks")).unwrap().count(), 1);
    assert_eq!(found(&database, 200), 100);
}

//= STORE-15
#[test]
fn a_file_that_lost_its_end_with_the_power_is_not_written_to_again() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path(), Durability::Process);
    database.commit(puts(0..100)).unwrap();
    drop(database);
    // The blocks didn't reach the disk, the journal did, and the machine was started again.
    File::options().write(true).open(dir.path().join("blocks/0000000001")).unwrap().set_len(50_500).unwrap();
    fs::remove_file(dir.path().join("commits")).unwrap();
    let database = open(dir.path(), Durability::Process);
    database.commit(puts(100..200)).unwrap();
    let lost = database.read(&keys(51..52), usize::MAX).unwrap_err();
    assert!(matches!(lost, StorageError::Damaged { what } if what.contains("0000000001")));
    // Nor does giving up what was lost harm what came after it.
    database.commit(vec![Write::Clear(Span::Blocks(SLOT, 40..100))]).unwrap();
    tidy_all(&database);
    assert_eq!(found(&database, 200), 140);
}

#[test]
fn what_was_appended_just_now_is_in_memory_and_what_was_deleted_since_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path(), Durability::Process);
    let node = (Key::Node(SLOT, 6), Bytes::from_static(&[9; 40]));
    let append = |index| {
        let mut writes = puts(index..index + 1);
        writes.push(Write::Put(node.0.clone(), node.1.clone()));
        database.commit(writes).unwrap();
    };
    for index in 0..5 {
        append(index);
        let asked = [node.0.clone(), Key::Block(SLOT, index)];
        let found = database.read_from_memory(&asked, usize::MAX);
        assert_eq!(found, Some(vec![Some(node.1.clone()), Some(block(index))]));
    }
    // Neighbours share a row.
    let all: Vec<Option<Bytes>> = (0..5).map(|index| Some(block(index))).collect();
    assert_eq!(database.read_from_memory(&keys(0..5), usize::MAX), Some(all));
    database.commit(vec![Write::Clear(Span::Blocks(SLOT, 2..4))]).unwrap();
    let left = database.read_from_memory(&keys(0..5), usize::MAX);
    assert!(left.is_none_or(|left| left[2..4] == [None, None]));
    assert_eq!(found(&database, 5), 3);
}

#[test]
fn much_at_once_is_read_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path(), Durability::Process);
    database.commit(puts(0..200)).unwrap();
    assert_eq!(database.read_from_memory(&keys(0..1), usize::MAX), None);
    assert_eq!(found(&database, 200), 200);
}

/// However far the thread that writes tables is behind.
#[test]
fn what_waits_to_be_written_out_is_bounded() {
    const MAX_BYTES: u64 = 64 << 10;
    let dir = tempfile::tempdir().unwrap();
    let mut database = open(dir.path(), Durability::Process);
    database.buffers.set_max_bytes(MAX_BYTES);
    let write = |database: &Database, index: u64| {
        let small = Bytes::from(vec![index as u8; 100]);
        database.commit(vec![Write::Put(Key::Block(SLOT, index), small)]).unwrap();
        // One that fills and two that wait, of each keyspace, and the commit that filled each of them.
        assert!(
            database.in_memory() < 3 * Space::ALL.len() as u64 * (MAX_BYTES + 4096),
            "{} bytes after {index}",
            database.in_memory()
        );
    };
    (0..3000).for_each(|index| write(&database, index));
    drop(database);
    // What the journal brings back counts, too.
    let mut database = open(dir.path(), Durability::Process);
    database.buffers.set_max_bytes(MAX_BYTES);
    (3000..4000).for_each(|index| write(&database, index));
    let last = database.read(&keys(3999..4000), usize::MAX).unwrap().remove(0);
    assert_eq!(last, Some(Bytes::from(vec![3999_u64 as u8; 100])));
}
