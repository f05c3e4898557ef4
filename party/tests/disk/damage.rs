//! Damage to the files of a store: whoever opens it finds all that was stored, or is told what is damaged. It is
//! never passed over without a word, and nothing is ever read as something else.
//!
//! `PARTY_DAMAGES` says how many places are tried; the seed that decides where is printed and can be given as
//! `PARTY_DAMAGE_SEED`.
// The seed is shown so that a failure can be repeated.
#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use crate::common::random::Random;
use bytes::Bytes;
use party::{
    error::StorageError,
    feed::storage::{Key, Slot, Span, Storage, Write},
    store::disk::DiskStorage,
};
use tempfile::{TempDir, tempdir};

const SLOT: Slot = Slot(3);

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).ok().and_then(|it| it.parse().ok()).unwrap_or(default)
}

/// A folder in memory where there is one, as thousands of stores are opened.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).or_else(|_| tempdir()).unwrap()
    } else {
        tempdir().unwrap()
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Its files, by their names in the store.
fn files(folder: &Path) -> Vec<PathBuf> {
    fn visit(folder: &Path, all: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { visit(&path, all) } else { all.push(path) }
        }
    }
    let mut all = vec![];
    visit(folder, &mut all);
    all.sort();
    all.iter().map(|file| file.strip_prefix(folder).unwrap().to_owned()).collect()
}

type Stored = BTreeMap<Key, Option<Bytes>>;

async fn commit(storage: &DiskStorage, all: &mut Stored, writes: Vec<Write>) {
    for write in &writes {
        match write {
            Write::Put(key, value) => drop(all.insert(key.clone(), Some(value.clone()))),
            Write::Delete(key) => drop(all.insert(key.clone(), None)),
            Write::Clear(span) => {
                all.iter_mut().filter(|(key, _)| span.contains(key)).for_each(|(_, it)| *it = None)
            }
        }
    }
    storage.commit(writes).await.unwrap();
}

/// A store with values in tables, in block files and in the journal, and with all of its own lists, left as by a
/// kill; and what is in it.
async fn filled() -> (TempDir, Stored) {
    let dir = scratch();
    let mut all = Stored::new();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    let some = |from: u64, len: usize| -> Vec<Write> {
        let put = |key, byte: u64, len: usize| Write::Put(key, Bytes::from(vec![byte as u8; len]));
        (from..from + 40)
            .flat_map(|n| {
                [
                    put(Key::Block(SLOT, n), n, len + 130),
                    put(Key::Block(Slot(4), n), n, 20),
                    put(Key::Node(SLOT, n), n + 1, 40),
                    put(Key::Record(n.to_be_bytes().to_vec()), n + 2, len),
                    put(Key::Page(SLOT, n), n + 3, 30),
                    put(Key::Local(SLOT, n.to_be_bytes().to_vec()), n + 4, 10),
                ]
            })
            .chain([put(Key::Head(SLOT), from, 100)])
            .collect()
    };
    commit(&storage, &mut all, some(0, 300)).await;
    commit(&storage, &mut all, some(40, 1000)).await;
    // The same two keys again and again, until they have pushed the others out of memory and journal.
    for n in 0..80_u8 {
        let large = Bytes::from(vec![n; 500_000]);
        let writes = [Key::Page(Slot(9), 0), Key::Node(Slot(9), 0)].map(|key| Write::Put(key, large.clone()));
        storage.commit(writes.to_vec()).await.unwrap();
    }
    commit(&storage, &mut all, vec![Write::Clear(Span::Feed(Slot(9)))]).await;
    storage.close().await.unwrap();
    // The journal loses the room that it has in reserve, and copies are small.
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    commit(&storage, &mut all, some(70, 500)).await;
    commit(&storage, &mut all, vec![Write::Clear(Span::Blocks(SLOT, 3..30)), Write::Delete(Key::Head(SLOT))])
        .await;
    for n in 0..20 {
        commit(&storage, &mut all, some(80 + n, 200)).await;
    }
    // What is copied while nothing is written is what a kill would leave.
    let copy = scratch();
    copy_folder(dir.path(), copy.path());
    storage.close().await.unwrap();
    let tables = files(copy.path()).iter().filter(|file| file.parent().unwrap().ends_with("tables")).count();
    assert!(tables > 2, "{tables} tables");
    (copy, all)
}

/// Opens a store in which something was damaged, and reads all of it: it must be there, or the damage be named.
/// Says whether it was there.
async fn all_there_or_named(dir: &Path, all: &Stored, damage: &str) -> bool {
    let storage = match DiskStorage::open(dir).await {
        Ok(storage) => storage,
        Err(StorageError::Damaged { what }) => {
            assert!(!what.is_empty());
            return false;
        }
        // A marker or a lock that isn't one any more.
        Err(StorageError::UnknownFormat { .. } | StorageError::NotAStore { .. } | StorageError::Io(_)) => {
            return false;
        }
        Err(other) => panic!("{damage}: {other:?}"),
    };
    let mut is_all_there = true;
    // One by one: one error must not hide what others say.
    for (key, expected) in all {
        match storage.read(vec![key.clone()]).await {
            Ok(values) => assert_eq!(values[0], *expected, "{damage}: {key:?}"),
            Err(StorageError::Damaged { .. } | StorageError::Io(_)) => is_all_there = false,
            Err(other) => panic!("{damage}: {key:?}: {other:?}"),
        }
    }
    let records: Vec<_> = all
        .iter()
        .filter_map(|(key, value)| match (key, value) {
            (Key::Record(key), Some(value)) => Some((key.clone(), value.clone())),
            _ => None,
        })
        .collect();
    match storage.records(vec![]).await {
        Ok(found) => assert_eq!(found, records, "{damage}"),
        Err(StorageError::Damaged { .. } | StorageError::Io(_)) => is_all_there = false,
        Err(other) => panic!("{damage}: {other:?}"),
    }
    storage.close().await.unwrap();
    is_all_there
}

//= STORE-11, STORE-19
#[tokio::test]
async fn bytes_that_are_flipped_and_files_that_are_cut_are_named() {
    let count = number("PARTY_DAMAGES", 1000);
    let seed = number("PARTY_DAMAGE_SEED", 1);
    println!("PARTY_DAMAGES={count} PARTY_DAMAGE_SEED={seed}");
    let (dir, all) = filled().await;
    assert!(all_there_or_named(copied(&dir).path(), &all, "nothing").await);
    let names = files(dir.path());
    let mut named = 0;
    for n in 0..count {
        let mut random = Random(seed.wrapping_add(n).wrapping_mul(0x2545_f491_4f6c_dd1d));
        let name = &names[random.below(names.len() as u64) as usize];
        let mut bytes = fs::read(dir.path().join(name)).unwrap();
        let at = random.below(bytes.len() as u64) as usize;
        let how = match random.below(8) {
            0 => {
                bytes.truncate(at);
                "cut at"
            }
            1 => {
                let to = bytes.len().min(at + 1 + random.below(5000) as usize);
                bytes[at..to].fill(0);
                "zeros from"
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
                "a flipped bit at"
            }
        };
        let copy = copied(&dir);
        fs::write(copy.path().join(name), bytes).unwrap();
        let damage = format!("seed {seed}, {n}: {how} {at} in {}", name.display());
        let is_all_there = all_there_or_named(copy.path(), &all, &damage).await;
        named += u64::from(!is_all_there);
        if !is_all_there {
            // Opening it has not made it look whole.
            all_there_or_named(copy.path(), &all, &format!("{damage}, the second time")).await;
        }
    }
    println!("{named} of {count} were noticed");
    assert!(named > count / 4, "only {named} were noticed");
}

fn copied(dir: &TempDir) -> TempDir {
    let copy = scratch();
    copy_folder(dir.path(), copy.path());
    copy
}

//= STORE-4
#[tokio::test]
async fn a_missing_file_is_named_and_not_made_anew() {
    let (dir, all) = filled().await;
    let mut named = 0;
    for name in files(dir.path()) {
        let copy = copied(&dir);
        fs::remove_file(copy.path().join(&name)).unwrap();
        let damage = format!("{} is missing", name.display());
        named += usize::from(!all_there_or_named(copy.path(), &all, &damage).await);
    }
    assert!(named > 5, "only {named} were noticed");
}

//= STORE-6
#[tokio::test]
async fn fewer_commits_than_were_noted_when_the_store_was_closed_are_missed() {
    let (dir, all) = filled().await;
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    storage.close().await.unwrap();
    let extent = fs::read_to_string(dir.path().join("extent")).unwrap();
    let (commits, blocks) = extent.split_once(' ').unwrap();
    let commits: u64 = commits.parse().unwrap();
    // Without the other note, so that it is this one that tells.
    fs::remove_file(dir.path().join("commits")).unwrap();
    for (noted, is_whole) in
        [(commits - 1, true), (commits, true), (commits + 1, false), (commits + 1_000, false)]
    {
        let copy = copied(&dir);
        fs::write(copy.path().join("extent"), format!("{noted} {blocks}")).unwrap();
        if is_whole {
            assert!(all_there_or_named(copy.path(), &all, "nothing").await, "{noted}");
            continue;
        }
        let refused = DiskStorage::open(copy.path()).await.map(drop);
        assert!(
            matches!(&refused, Err(StorageError::Damaged { what }) if what.contains("lost")),
            "{noted}: {refused:?}"
        );
    }
}

//= STORE-8
#[tokio::test]
async fn a_store_opens_without_the_files_that_only_help_to_find_damage() {
    let (dir, all) = filled().await;
    for gone in [&["extent"][..], &["commits"], &["extent", "commits"]] {
        let copy = copied(&dir);
        gone.iter().for_each(|name| fs::remove_file(copy.path().join(name)).unwrap());
        assert!(all_there_or_named(copy.path(), &all, &format!("without {gone:?}")).await, "{gone:?}");
    }
}

/// The journal that is written to.
fn journal(dir: &Path) -> PathBuf {
    files(dir)
        .into_iter()
        .rfind(|file| file.extension().is_some_and(|it| it == "jnl"))
        .map(|it| dir.join(it))
        .unwrap()
}

//= STORE-7
#[tokio::test]
async fn acknowledged_commits_that_a_damaged_journal_has_lost_are_missed() {
    let dir = scratch();
    DiskStorage::open(dir.path()).await.unwrap().close().await.unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    let put = |n: u64| Write::Put(Key::Record(n.to_be_bytes().to_vec()), Bytes::from(vec![n as u8; 50]));
    let mut ends = vec![];
    for n in 0..10 {
        storage.commit(vec![put(n)]).await.unwrap();
        ends.push(fs::metadata(journal(dir.path())).unwrap().len());
    }
    let whole = fs::read(journal(dir.path())).unwrap();
    for len in (0..whole.len()).step_by(7).chain(ends[..9].iter().map(|end| *end as usize)) {
        for pad in [0, 5000] {
            let copy = copied(&dir);
            let mut cut = whole[..len].to_vec();
            cut.resize(len + pad, 0);
            fs::write(journal(copy.path()), &cut).unwrap();
            for _ in 0..2 {
                let refused = DiskStorage::open(copy.path()).await.map(drop);
                assert!(
                    matches!(&refused, Err(StorageError::Damaged { what }) if what.contains("lost")),
                    "{len} + {pad}: {refused:?}"
                );
            }
            // And what is left is kept for whoever can make something of it.
            if !ends.contains(&(len as u64)) && pad == 0 && len > 0 {
                let kept = if len as u64 > ends[0] {
                    journal(copy.path())
                } else {
                    journal(copy.path()).with_extension("torn")
                };
                assert_eq!(fs::read(kept).unwrap(), cut);
            }
        }
    }
    storage.close().await.unwrap();
}

#[tokio::test]
async fn the_torn_end_of_a_commit_that_was_not_acknowledged_is_no_damage() {
    let dir = scratch();
    DiskStorage::open(dir.path()).await.unwrap().close().await.unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    let put =
        |n: u64, len: usize| Write::Put(Key::Record(vec![n as u8]), Bytes::from(vec![n as u8 + 1; len]));
    storage.commit(vec![put(0, 50)]).await.unwrap();
    let before = copied(&dir);
    let start = fs::metadata(journal(dir.path())).unwrap().len() as usize;
    storage.commit(vec![put(0, 30), put(1, 3000), put(2, 10)]).await.unwrap();
    let whole = fs::read(journal(dir.path())).unwrap();
    for len in (start..whole.len()).step_by(11).chain(whole.len() - 12..=whole.len()) {
        // The room that a journal is made with, and none, as after it was opened again.
        for pad in [0, 10_000] {
            let copy = copied(&before);
            let mut torn = whole[..len].to_vec();
            torn.resize(len + pad, 0);
            fs::write(journal(copy.path()), torn).unwrap();
            let storage = DiskStorage::open(copy.path()).await.unwrap();
            let found = storage.records(vec![]).await.unwrap();
            let expected = if len == whole.len() { 3 } else { 1 };
            assert_eq!(found.len(), expected, "{len} + {pad} of {}", whole.len());
            storage.commit(vec![put(3, 5)]).await.unwrap();
            storage.close().await.unwrap();
            let storage = DiskStorage::open(copy.path()).await.unwrap();
            assert_eq!(storage.records(vec![]).await.unwrap().len(), expected + 1);
            storage.close().await.unwrap();
        }
    }
    storage.close().await.unwrap();
}

/// As a loss of power leaves it, with nothing synced: the ends of the journal and of the block file are missing,
/// cut or full of zeros, each at its own place, and the machine is another one as far as the store can tell.
#[tokio::test]
async fn after_a_power_loss_the_last_commits_are_missing_or_named() {
    let seed = number("PARTY_DAMAGE_SEED", 1);
    println!("PARTY_DAMAGE_SEED={seed}");
    let dir = scratch();
    DiskStorage::open(dir.path()).await.unwrap().close().await.unwrap();
    let storage = DiskStorage::open(dir.path()).await.unwrap();
    let block = |n: u64| Bytes::from(vec![n as u8 + 1; 500]);
    const N: u64 = 40;
    for n in 0..N {
        let head = Write::Put(Key::Head(SLOT), Bytes::copy_from_slice(&n.to_be_bytes()));
        storage.commit(vec![head, Write::Put(Key::Block(SLOT, n), block(n))]).await.unwrap();
    }
    let written = copied(&dir);
    storage.close().await.unwrap();
    let (mut opened, mut missing) = (0, 0);
    for n in 0..60 {
        let mut random = Random(seed.wrapping_add(n));
        let copy = copied(&written);
        fs::remove_file(copy.path().join("commits")).unwrap();
        for file in [journal(copy.path()), copy.path().join("blocks/0000000001")] {
            let mut bytes = fs::read(&file).unwrap();
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(4) {
                0 => {}
                1 => bytes.truncate(at),
                2 => bytes[at..].fill(0),
                _ => {
                    let to = bytes.len().min(at + 4096);
                    bytes[at..to].fill(0);
                }
            }
            fs::write(file, bytes).unwrap();
        }
        let storage = match DiskStorage::open(copy.path()).await {
            Ok(storage) => storage,
            Err(StorageError::Damaged { .. }) => continue,
            Err(other) => panic!("{n}: {other:?}"),
        };
        opened += 1;
        let head = storage.read(vec![Key::Head(SLOT)]).await.unwrap().remove(0);
        let length = head.map_or(0, |head| u64::from_be_bytes(head[..].try_into().unwrap()) + 1);
        for index in 0..N {
            match storage.read(vec![Key::Block(SLOT, index)]).await {
                Ok(found) => assert_eq!(found[0], (index < length).then(|| block(index)), "{n}: {index}"),
                Err(StorageError::Damaged { what }) => {
                    assert!(what.contains("0000000001") && index < length, "{n}: {what}");
                    missing += 1;
                }
                Err(other) => panic!("{n}: {other:?}"),
            }
        }
        // What is written now is there, whatever was lost.
        storage.commit(vec![Write::Put(Key::Block(SLOT, 100), block(100))]).await.unwrap();
        storage.commit(vec![Write::Clear(Span::Blocks(SLOT, 0..N))]).await.unwrap();
        storage.close().await.unwrap();
        let storage = DiskStorage::open(copy.path()).await.unwrap();
        assert_eq!(storage.read(vec![Key::Block(SLOT, 100)]).await.unwrap(), [Some(block(100))]);
        storage.close().await.unwrap();
    }
    assert!(opened > 20 && missing > 0, "{opened} were opened, {missing} blocks were missing");
}
