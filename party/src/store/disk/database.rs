//! How keys and values lie in fjall. Everything here blocks.

use std::{fs, path::Path, thread, time::Duration};

use bytes::Bytes;
use fjall::{Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, Readable as _};

use crate::{
    error::StorageError,
    feed::storage::{Key, Slot, Write},
};

/// Blocks of tables that were read, kept in memory, for all feeds together.
const CACHE_BYTES: u64 = 16 << 20;
/// What fjall may keep of its journal before it writes out what holds on to it; the least that it takes.
/// It bounds the disk space beside the data, and how long a store takes to open after it was killed.
const JOURNAL_BYTES: u64 = 64 << 20;
/// What is kept in memory of heads, pages and records before it is written out. A page of the bitfield is
/// written again with every append, and only its last version is worth a table.
const STATE_BUFFER_BYTES: u64 = 4 << 20;
/// The same for tree nodes, 60 bytes each with their key.
const NODES_BUFFER_BYTES: u64 = 8 << 20;
/// The same for blocks.
const BLOCKS_BUFFER_BYTES: u64 = 16 << 20;
/// Values from this length on are written once, to files that are not rewritten when tables are merged.
const SEPARATE_FROM: u32 = 512;
/// fjall's threads, which write tables and merge them. One, as the first of several spins while another
/// one merges.
const WORKER_THREADS: usize = 1;
/// Values from this length on are handed out without a copy.
const SHARE_FROM: usize = 4 << 10;
/// The longest key of a record: fjall takes 65,535 bytes, of which we use one.
const MAX_RECORD_KEY: usize = 60_000;
/// fjall blocks its caller, with no way out, while four full buffers of one keyspace wait to be written to
/// disk. We wait before, so that a failed disk ends the wait with its error.
const MAX_FULL_BUFFERS: usize = 2;

const STATE: &str = "state";
const NODES: &str = "nodes";
const BLOCKS: &str = "blocks";

// The first byte of a key in the keyspace of the state.
const RECORD: u8 = b'r';
const HEAD: u8 = b'h';
const PAGE: u8 = b'p';

/// Three keyspaces over one journal: large blocks stay away from small nodes, and neither is in the way when
/// the records are listed. More of them would only make opening slower.
pub(super) struct Database {
    database: fjall::Database,
    state: Keyspace,
    nodes: Keyspace,
    blocks: Keyspace,
}

impl Database {
    /// Opens the database at `path`. One that `must_exist` is never made anew, neither as a whole nor in
    /// parts: what is missing is named.
    pub(super) fn open(path: &Path, must_exist: bool) -> Result<Self, StorageError> {
        if must_exist {
            check_files(path)?;
        }
        let database = fjall::Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(WORKER_THREADS)
            // `commit` says itself when to hand the journal to the operating system.
            .manual_journal_persist(true)
            .open()
            .map_err(opening)?;
        if must_exist {
            for name in [STATE, NODES, BLOCKS] {
                if !database.keyspace_exists(name) {
                    return Err(StorageError::Damaged { what: format!("the keyspace {name} is missing") });
                }
            }
        }
        // Nearly every key that is read is there, so filters on the largest level aren't worth their memory.
        let options = || KeyspaceCreateOptions::default().expect_point_read_hits(true);
        let separation = KvSeparationOptions::default().separation_threshold(SEPARATE_FROM);
        let keyspace = |name, options| database.keyspace(name, || options).map_err(opening);
        Ok(Self {
            state: keyspace(STATE, options().max_memtable_size(STATE_BUFFER_BYTES))?,
            nodes: keyspace(NODES, options().max_memtable_size(NODES_BUFFER_BYTES))?,
            blocks: keyspace(
                BLOCKS,
                options().max_memtable_size(BLOCKS_BUFFER_BYTES).with_kv_separation(Some(separation)),
            )?,
            database,
        })
    }

    /// The values of `keys` as they stood at one moment.
    pub(super) fn read(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, StorageError> {
        let snapshot = self.database.snapshot();
        let read = |key: &Key| {
            let (keyspace, key) = self.locate(key);
            Ok(snapshot.get(keyspace, key).map_err(running)?.map(into_bytes))
        };
        keys.iter().map(read).collect()
    }

    /// The records whose key starts with `prefix`, sorted.
    pub(super) fn records(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Bytes)>, StorageError> {
        let prefix = [&[RECORD], prefix].concat();
        let record = |entry: fjall::Guard| {
            let (key, value) = entry.into_inner().map_err(running)?;
            Ok((key.get(1..).unwrap_or_default().to_vec(), into_bytes(value)))
        };
        self.database.snapshot().prefix(&self.state, prefix).map(record).collect()
    }

    /// Carries out all of `writes` or none; of two with the same key, the later. They are the operating
    /// system's when this returns.
    pub(super) fn commit(&self, mut writes: Vec<Write>) -> Result<(), StorageError> {
        self.wait_for_room()?;
        // Stable, so that equal keys keep their order; and a sorted batch is inserted faster.
        writes.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), writes.len())
            .durability(Some(PersistMode::Buffer));
        let mut writes = writes.into_iter().peekable();
        while let Some((key, value)) = writes.next() {
            if writes.peek().is_some_and(|(next, _)| *next == key) {
                continue;
            }
            let (keyspace, key) = self.locate(&key);
            match value {
                Some(value) => batch.insert(keyspace, key, &value[..]),
                None => batch.remove(keyspace, key),
            }
        }
        batch.commit().map_err(running)
    }

    fn wait_for_room(&self) -> Result<(), StorageError> {
        let is_full = |keyspace: &Keyspace| keyspace.sealed_memtable_count() > MAX_FULL_BUFFERS;
        while [&self.state, &self.nodes, &self.blocks].into_iter().any(is_full) {
            // Fails when the thread that should make room has failed.
            self.database.persist(PersistMode::Buffer).map_err(running)?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The keyspace and the key there. Integers are big-endian, so that neighbours lie together.
    fn locate(&self, key: &Key) -> (&Keyspace, Vec<u8>) {
        match key {
            Key::Record(record) => (&self.state, [&[RECORD], record.as_slice()].concat()),
            Key::Head(slot) => (&self.state, [&[HEAD][..], &slot.0.to_be_bytes()].concat()),
            Key::Page(slot, page) => {
                (&self.state, [&[PAGE][..], &slot.0.to_be_bytes(), &page.to_be_bytes()].concat())
            }
            Key::Node(slot, index) => (&self.nodes, indexed(*slot, *index)),
            Key::Block(slot, index) => (&self.blocks, indexed(*slot, *index)),
        }
    }
}

fn indexed(slot: Slot, index: u64) -> Vec<u8> {
    [slot.0.to_be_bytes(), index.to_be_bytes()].concat()
}

/// Refuses what fjall would panic over: a key that is too long.
pub(super) fn check(writes: &[Write]) -> Result<(), StorageError> {
    let too_long = writes.iter().find_map(|(key, _)| match key {
        Key::Record(record) if record.len() > MAX_RECORD_KEY => Some(record.len()),
        _ => None,
    });
    match too_long {
        Some(len) => Err(StorageError::Database(format!("a record key of {len} bytes"))),
        None => Ok(()),
    }
}

fn into_bytes(value: fjall::UserValue) -> Bytes {
    if value.len() < SHARE_FROM { Bytes::copy_from_slice(&value) } else { Bytes::from_owner(value) }
}

/// fjall takes away, or makes anew, what it finds only half of. In a store that was complete once, that is
/// damage.
fn check_files(path: &Path) -> Result<(), StorageError> {
    let missing = |what: &Path| StorageError::Damaged { what: format!("{} is missing", what.display()) };
    let version = path.join("version");
    if !version.is_file() {
        return Err(missing(&version));
    }
    let is_journal = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|it| it == "jnl");
    if !list(path)?.iter().any(is_journal) {
        return Err(missing(&path.join("*.jnl")));
    }
    for entry in list(&path.join("keyspaces"))? {
        let current = entry.path().join("current");
        if !current.is_file() {
            return Err(missing(&current));
        }
    }
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<fs::DirEntry>, StorageError> {
    let damaged = |error| StorageError::Damaged { what: format!("{}: {error}", folder.display()) };
    fs::read_dir(folder).map_err(damaged)?.map(|entry| entry.map_err(damaged)).collect()
}

/// What an error means while the database is opened: a file that ends early or isn't there is damage.
fn opening(error: fjall::Error) -> StorageError {
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
        fjall::Error::Poisoned => StorageError::Database(
            "an earlier write to the disk failed; the store must be opened again".into(),
        ),
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
