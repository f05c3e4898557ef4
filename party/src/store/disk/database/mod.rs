//! How keys and values lie in fjall and in the block files. Everything here blocks.

mod buffers;
mod commit;
mod free;
mod layout;
mod read;
mod rows;
mod space;
mod sweep;
mod tidy;

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use fjall::{
    Keyspace, KeyspaceCreateOptions, Readable as _,
    compaction::Leveled,
    config::{PartitioningPolicy, PinningPolicy},
};

use self::{
    buffers::{Buffers, OUT_OF_REACH},
    layout::{RECORD, SWEEP},
    rows::Rows,
    space::{Each, Space},
    sweep::{Sweep, Sweeps},
    tidy::Holes,
};
pub(super) use self::{
    layout::{COUNT, Count, check, commits_of},
    tidy::Work,
};
use super::{
    blocks::{BlockFiles, End},
    live::{Holding, Live},
    mark::Mark,
    options::Durability,
    tables,
};
use crate::error::StorageError;

/// Blocks of tables that were read, kept in memory, for all feeds together.
const CACHE_BYTES: u64 = 8 << 20;
/// Tables kept open for reading.
const MAX_OPEN_TABLES: usize = 128;
/// What fjall may keep of its journal before it writes out what holds on to it; the least that it takes.
/// It bounds the disk space beside the data, and how long a store takes to open after it was killed.
const JOURNAL_BYTES: u64 = 64 << 20;
/// How many tables may be written out before they are merged. So many, as buffers are small: merging costs as
/// much as what was merged before is large. fjall slows writers down from 20 on.
const TABLES_BEFORE_MERGE: u8 = 12;
/// How large tables are that were merged. The first level holds [`TABLES_BEFORE_MERGE`] times this, and a merge
/// may write all of it anew. Each table is looked at when a store is opened, so it shouldn't be small either.
const TABLE_BYTES: u64 = 21 << 20;
/// Whether the index of a table is cut into parts, of which only those in use are in memory: by level, the last for all
/// below. As a whole, it would be there for as long as the store is open, and come to 7 MB for 10^7 small blocks.
const INDEX_IN_PARTS: [bool; 2] = [false, true];
/// fjall's threads, which write tables and merge them. One, as the first of several spins while another
/// one merges.
const WORKER_THREADS: usize = 1;
/// Values from this length on are handed out without a copy.
const SHARE_FROM: usize = 4 << 10;

/// What was there when the store was last opened or closed. Less than that is damage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) commits: u64,
    pub(super) blocks: End,
}

/// What is known beforehand of the database that is opened.
pub(super) struct Opening<'a> {
    pub(super) database: &'a Path,
    pub(super) blocks: &'a Path,
    /// If it was complete once, it was left with this. It is never made anew then, neither as a whole nor in
    /// parts: what is missing is named.
    pub(super) least: Option<Extent>,
    /// How many commits were acknowledged, if that holds to this day.
    pub(super) acknowledged: Option<u64>,
    pub(super) durability: Durability,
    pub(super) mark: Mark,
    /// A random number.
    pub(super) writer: u64,
    /// Snapshots of it.
    pub(super) live: Arc<Live>,
}

/// Keyspaces over one journal, and the block files: what is written again and again, what is written once, and what is
/// large, apart from each other.
pub(super) struct Database {
    database: fjall::Database,
    keyspaces: Each<Keyspace>,
    blocks: BlockFiles,
    buffers: Buffers,
    rows: Rows,
    durability: Durability,
    mark: Mark,
    /// Where the writing thread stands.
    written: Mutex<Written>,
    sweeps: Sweeps,
    holes: Mutex<Holes>,
    live: Arc<Live>,
    /// Whether a write has failed that fjall can't get over.
    has_failed: AtomicBool,
    /// Whether tidying has failed, and is left alone.
    is_stuck: AtomicBool,
    #[cfg(test)]
    syncs: Mutex<Vec<&'static str>>,
}

#[derive(Clone, Copy, Debug)]
struct Written {
    count: Count,
    next_sweep: u64,
}

/// What is stored at one moment.
pub(super) struct View {
    snapshot: fjall::Snapshot,
    sweeps: Arc<[Sweep]>,
}

/// A [`View`] that is held on to: blocks that were there stay, though they are deleted.
pub(super) struct HeldView {
    view: View,
    _holding: Holding,
}

impl Database {
    /// Opens the database in its folders, or makes it.
    pub(super) fn open(opening: Opening<'_>) -> Result<Self, StorageError> {
        let Opening { database: path, blocks, least, acknowledged, durability, mark, writer, live } = opening;
        if least.is_some() {
            tables::check(path)?;
        }
        let blocks = BlockFiles::open(blocks, least.map(|least| least.blocks))?;
        let database = fjall::Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_cached_files(Some(MAX_OPEN_TABLES))
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(WORKER_THREADS)
            // `commit` says itself when to hand the journal to the operating system.
            .manual_journal_persist(true)
            .open()
            .map_err(opening_error)?;
        let keyspace = |space: Space| {
            let name = space.name();
            if least.is_some() && !database.keyspace_exists(name) {
                return Err(damaged(&format!("the keyspace {name} is missing")));
            }
            // Nearly every key that is read is there, so filters on the largest level aren't worth their memory.
            let merging =
                Leveled::default().with_l0_threshold(TABLES_BEFORE_MERGE).with_table_target_size(TABLE_BYTES);
            let options = || {
                KeyspaceCreateOptions::default()
                    .expect_point_read_hits(true)
                    .index_block_partitioning_policy(PartitioningPolicy::new(INDEX_IN_PARTS))
                    .index_block_pinning_policy(PinningPolicy::new(INDEX_IN_PARTS.map(|in_parts| !in_parts)))
                    .max_memtable_size(OUT_OF_REACH)
                    .compaction_strategy(Arc::new(merging))
            };
            database.keyspace(name, options).map_err(opening_error)
        };
        let keyspaces = Each::try_make(keyspace)?;
        let count = count(&keyspaces)?;
        //= STORE-6, STORE-7
        let least = least.map_or(0, |least| least.commits).max(acknowledged.unwrap_or_default());
        if count.commits < least {
            let lost = least - count.commits;
            return Err(damaged(&format!("the journal has lost the last {lost} of {least} commits")));
        }
        match acknowledged {
            Some(_) => blocks.check(count.blocks)?,
            // The disk may have got the journal and not yet the blocks when the power went.
            None => blocks.pass_over(count.blocks)?,
        }
        let sweeps = sweeps(&database, &keyspaces.state)?;
        let next_sweep = sweeps.iter().map(|sweep| sweep.id).max().map_or(0, |id| id.saturating_add(1));
        let holes = Holes::find(&database, &keyspaces.state)?;
        Ok(Self {
            keyspaces,
            blocks,
            buffers: Buffers::new(database.write_buffer_size()),
            rows: Rows::default(),
            durability,
            mark,
            written: Mutex::new(Written { count: Count { writer, ..count }, next_sweep }),
            sweeps: Sweeps::new(sweeps),
            holes: Mutex::new(holes),
            live,
            has_failed: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            database,
            #[cfg(test)]
            syncs: Mutex::default(),
        })
    }

    /// How far the store has come, as it is stored.
    pub(super) fn count(&self) -> Result<Count, StorageError> {
        count(&self.keyspaces)
    }

    /// What a later opening has to find at least.
    pub(super) fn extent(&self) -> Result<Extent, StorageError> {
        Ok(Extent { commits: self.count()?.commits, blocks: self.blocks.sync()? })
    }

    /// How many commits were carried out.
    pub(super) fn commits(&self) -> u64 {
        lock(&self.written).count.commits
    }

    /// Bytes in memory that will be written out.
    pub(super) fn in_memory(&self) -> u64 {
        self.database.write_buffer_size()
    }

    /// Whether a write has failed so that nothing more can be written before the database is opened again.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// Whether a commit would neither wait for the disk nor hand over a buffer.
    pub(super) fn is_calm(&self) -> bool {
        self.durability == Durability::Process && !self.has_failed() && !self.buffers.is_any_full()
    }

    /// What is stored at this moment.
    fn view(&self) -> View {
        self.sweeps.with(|sweeps| View { snapshot: self.database.snapshot(), sweeps: sweeps.clone() })
    }

    /// Holds on to what is stored at this moment. For the writing thread.
    pub(super) fn hold(&self) -> HeldView {
        let commits = self.commits();
        HeldView { _holding: self.live.hold(commits), view: self.view() }
    }

    /// The records whose key starts with `prefix`, sorted.
    pub(super) fn records(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Bytes)>, StorageError> {
        let prefix = [&[RECORD], prefix].concat();
        let record = |entry: fjall::Guard| {
            let (key, value) = entry.into_inner().map_err(running)?;
            Ok((key.get(1..).unwrap_or_default().to_vec(), into_bytes(value)))
        };
        self.database.snapshot().prefix(&self.keyspaces.state, prefix).map(record).collect()
    }

    /// As if a write had failed.
    #[cfg(test)]
    pub(super) fn fail(&self) {
        self.has_failed.store(true, Ordering::Release);
    }

    /// What an error of a write means. fjall writes no more after it.
    fn failed(&self, error: fjall::Error) -> StorageError {
        self.has_failed.store(true, Ordering::Release);
        running(error)
    }
}

/// Each keyspace counts for itself, as any of them may lose what the others have on disk already.
fn count(keyspaces: &Each<Keyspace>) -> Result<Count, StorageError> {
    let mut least: Option<Count> = None;
    for space in Space::ALL {
        let stored = keyspaces.of(space).get([COUNT]).map_err(running)?;
        let count = stored.map_or_else(|| Some(Count::default()), |stored| Count::decode(&stored));
        let count = count.ok_or_else(|| damaged("the number of commits"))?;
        least = Some(least.filter(|least| least.commits <= count.commits).unwrap_or(count));
    }
    Ok(least.unwrap_or_default())
}

/// The deletions that were not done when the store was last open.
fn sweeps(database: &fjall::Database, state: &Keyspace) -> Result<Vec<Sweep>, StorageError> {
    let sweep = |entry: fjall::Guard| {
        let (key, value) = entry.into_inner().map_err(running)?;
        let id = key.last_chunk().map(|id| u64::from_be_bytes(*id));
        let sweep = id.and_then(|id| Sweep::decode(id, &value).ok());
        sweep.ok_or_else(|| damaged("a deletion that is not done"))
    };
    database.snapshot().prefix(state, [SWEEP]).map(sweep).collect()
}

fn into_bytes(value: fjall::UserValue) -> Bytes {
    if value.len() < SHARE_FROM { Bytes::copy_from_slice(&value) } else { Bytes::from_owner(value) }
}

/// Nothing panics while it holds such a lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn damaged(what: &str) -> StorageError {
    StorageError::Damaged { what: what.into() }
}

pub(super) fn list(folder: &Path) -> Result<Vec<fs::DirEntry>, StorageError> {
    let damaged = |error| damaged(&format!("{}: {error}", folder.display()));
    fs::read_dir(folder).map_err(damaged)?.map(|entry| entry.map_err(damaged)).collect()
}

/// What an error means while the database is opened: a file that ends early or isn't there is damage.
fn opening_error(error: fjall::Error) -> StorageError {
    use std::io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    match &error {
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io))
            if !matches!(io.kind(), InvalidData | NotFound | UnexpectedEof) =>
        {
            running(error)
        }
        fjall::Error::Locked | fjall::Error::Poisoned => running(error),
        _ => StorageError::Damaged { what: describe(&error) },
    }
}

/// What an error means once the database is open.
fn running(error: fjall::Error) -> StorageError {
    use std::io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    match error {
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => match io.kind() {
            InvalidData | NotFound | UnexpectedEof => StorageError::Damaged { what: io.to_string() },
            _ => io.into(),
        },
        fjall::Error::Poisoned => StorageError::Database("a write to the disk has failed".into()),
        fjall::Error::Locked => StorageError::Database("the database is locked".into()),
        error => StorageError::Damaged { what: describe(&error) },
    }
}

fn describe(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Storage(error) => format!("a table of the database: {error:?}"),
        fjall::Error::JournalRecovery(error) => format!("the journal of the database: {error:?}"),
        error => format!("the database: {error:?}"),
    }
}

#[cfg(test)]
mod tests;
