//! How keys and values lie in fjall and in the block files. Everything here blocks.

use std::{borrow::Cow, fs, ops::Range, path::Path, thread, time::Duration};

use bytes::Bytes;
use fjall::{Keyspace, KeyspaceCreateOptions, PersistMode, Readable as _, Slice};

use super::{
    blocks::{BlockFiles, End, Place},
    row::{CELLS, Row},
};
use crate::{
    error::StorageError,
    feed::storage::{Key, Slot, Span, Write},
};

/// Blocks of tables that were read, kept in memory, for all feeds together.
const CACHE_BYTES: u64 = 16 << 20;
/// What fjall may keep of its journal before it writes out what holds on to it; the least that it takes.
/// It bounds the disk space beside the data, and how long a store takes to open after it was killed.
const JOURNAL_BYTES: u64 = 64 << 20;
/// What is kept in memory of heads, pages and records before it is written out. A page of the bitfield is
/// written again with every append, and only its last version is worth a table.
const STATE_BUFFER_BYTES: u64 = 8 << 20;
/// The same for tree nodes and the places of blocks.
const TREE_BUFFER_BYTES: u64 = 16 << 20;
/// Blocks from this length on go to the block files. Below, the place would take about as much as the block.
const APART_FROM: usize = 128;
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
const TREE: &str = "tree";

// The first byte of a key.
const COUNT: u8 = b'c';
const RECORD: u8 = b'r';
const HEAD: u8 = b'h';
const PAGE: u8 = b'p';
const NODE: u8 = b'n';
const BLOCK: u8 = b'b';
const LOCAL: u8 = b'l';

// The first byte of a block's value.
const INLINE: u8 = 0;
const APART: u8 = 1;

/// What becomes of one key.
type Change = (Key, Option<Bytes>);

/// What was there when the store was last opened or closed. Less than that is damage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) commits: u64,
    pub(super) blocks: End,
}

/// Two keyspaces over one journal, and the block files: what is written again and again, what is written
/// once, and what is large, apart from each other. More keyspaces would only make opening slower.
pub(super) struct Database {
    database: fjall::Database,
    state: Keyspace,
    tree: Keyspace,
    blocks: BlockFiles,
}

impl Database {
    /// Opens the database in the folders `path` and `blocks`. If it was complete once, it was left with
    /// `least`, and is never made anew, neither as a whole nor in parts: what is missing is named.
    pub(super) fn open(path: &Path, blocks: &Path, least: Option<Extent>) -> Result<Self, StorageError> {
        if least.is_some() {
            check_files(path)?;
        }
        let blocks = BlockFiles::open(blocks, least.map(|least| least.blocks))?;
        let database = fjall::Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(WORKER_THREADS)
            // `commit` says itself when to hand the journal to the operating system.
            .manual_journal_persist(true)
            .open()
            .map_err(opening)?;
        let keyspace = |name, buffer| {
            if least.is_some() && !database.keyspace_exists(name) {
                return Err(StorageError::Damaged { what: format!("the keyspace {name} is missing") });
            }
            // Nearly every key that is read is there, so filters on the largest level aren't worth their memory.
            let options =
                || KeyspaceCreateOptions::default().expect_point_read_hits(true).max_memtable_size(buffer);
            database.keyspace(name, options).map_err(opening)
        };
        let state = keyspace(STATE, STATE_BUFFER_BYTES)?;
        let tree = keyspace(TREE, TREE_BUFFER_BYTES)?;
        let opened = Self { state, tree, blocks, database };
        let (commits, least) = (opened.commits()?, least.map_or(0, |least| least.commits));
        if commits < least {
            let what = format!("the journal has lost the last {} of {least} commits", least - commits);
            return Err(StorageError::Damaged { what });
        }
        Ok(opened)
    }

    /// How many batches were ever committed. Each keyspace counts for itself, as either may lose what the
    /// other has on disk already.
    fn commits(&self) -> Result<u64, StorageError> {
        Ok(count(&self.state)?.min(count(&self.tree)?))
    }

    /// What a later opening has to find at least.
    pub(super) fn extent(&self) -> Result<Extent, StorageError> {
        Ok(Extent { commits: self.commits()?, blocks: self.blocks.sync()? })
    }

    /// The values of `keys` as they stood at one moment.
    pub(super) fn read(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, StorageError> {
        self.read_at(&self.snapshot(), keys)
    }

    /// What is stored at this moment. Blocks are not overwritten, so their places stay good.
    pub(super) fn snapshot(&self) -> fjall::Snapshot {
        self.database.snapshot()
    }

    /// The values of `keys` as they stood when `snapshot` was taken.
    pub(super) fn read_at(
        &self,
        snapshot: &fjall::Snapshot,
        keys: &[Key],
    ) -> Result<Vec<Option<Bytes>>, StorageError> {
        keys.iter().map(|key| self.read_one(snapshot, key)).collect()
    }

    fn read_one(&self, snapshot: &fjall::Snapshot, key: &Key) -> Result<Option<Bytes>, StorageError> {
        let (keyspace, encoded) = self.locate(key);
        let Some(value) = snapshot.get(keyspace, encoded).map_err(running)? else { return Ok(None) };
        match *key {
            Key::Record(_) | Key::Head(_) | Key::Page(..) | Key::Local(..) => Ok(Some(into_bytes(value))),
            Key::Node(_, index) => Ok(decode_row(&value)?.get(index).map(Bytes::copy_from_slice)),
            Key::Block(_, index) => match decode_row(&value)?.get(index).map(<[u8]>::split_first) {
                None => Ok(None),
                Some(Some((&INLINE, block))) => Ok(Some(Bytes::copy_from_slice(block))),
                Some(Some((&APART, place))) => {
                    let place = Place::decode(place).map_err(|_| damaged("the place of a block"))?;
                    self.blocks.read(place).map(Some)
                }
                Some(_) => Err(damaged("the place of a block")),
            },
        }
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

    /// Carries out all of `writes`, one after the other, or none. They are the operating system's when this
    /// returns.
    pub(super) fn commit(&self, writes: Vec<Write>) -> Result<(), StorageError> {
        if writes.is_empty() {
            return Ok(());
        }
        self.wait_for_room()?;
        let mut writes = self.changes(writes)?;
        // The sort is stable, so of equal keys the later write comes first now, and stays.
        writes.reverse();
        writes.sort_by(|(a, _), (b, _)| a.cmp(b));
        writes.dedup_by(|(earlier, _), (later, _)| earlier == later);
        let apart: Vec<Bytes> = writes.iter().filter_map(kept_apart).cloned().collect();
        let mut places = self.blocks.append(&apart)?.into_iter();
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), writes.len() + 2)
            .durability(Some(PersistMode::Buffer));
        let commits = self.commits()?.saturating_add(1);
        for keyspace in [&self.state, &self.tree] {
            batch.insert(keyspace, [COUNT], commits.to_be_bytes());
        }
        // Neighbours of one row follow each other.
        for writes in writes.chunk_by(|(a, _), (b, _)| row(a).is_some_and(|a| row(b) == Some(a))) {
            let [(key, value), ..] = writes else { continue };
            let (keyspace, encoded) = self.locate(key);
            let stored = match row(key) {
                Some(_) => keyspace.get(&encoded).map_err(running)?.unwrap_or_default(),
                None => Slice::default(),
            };
            let value = match row(key) {
                None => value.as_ref().map(|value| Cow::Borrowed(&value[..])),
                Some(_) => update_row(&stored, writes, &mut places)?.map(Cow::Owned),
            };
            match value {
                Some(value) => batch.insert(keyspace, encoded, &value[..]),
                None => batch.remove(keyspace, encoded),
            }
        }
        batch.commit().map_err(running)
    }

    /// What becomes of each key, still in the order of `writes`.
    fn changes(&self, writes: Vec<Write>) -> Result<Vec<Change>, StorageError> {
        let mut changes: Vec<Change> = Vec::with_capacity(writes.len());
        for write in writes {
            match write {
                Write::Put(key, value) => changes.push((key, Some(value))),
                Write::Delete(key) => changes.push((key, None)),
                Write::Clear(span) => {
                    // What was put before in the same batch goes, too.
                    let mut gone = self.keys(&span)?;
                    gone.extend(changes.iter().map(|(key, _)| key).filter(|key| span.contains(key)).cloned());
                    changes.extend(gone.into_iter().map(|key| (key, None)));
                }
            }
        }
        Ok(changes)
    }

    /// The keys of `span` under which something is stored.
    fn keys(&self, span: &Span) -> Result<Vec<Key>, StorageError> {
        let mut keys = vec![];
        let slot = match span {
            Span::Pages(slot, range) => {
                let pages = self.database.snapshot().range(&self.state, numbers(PAGE, *slot, range));
                for entry in pages {
                    keys.push(Key::Page(*slot, last_number(&entry.key().map_err(running)?)?));
                }
                return Ok(keys);
            }
            Span::Nodes(slot, range) => {
                let indexes = self.stored_in_rows(NODE, *slot, range)?;
                return Ok(indexes.into_iter().map(|index| Key::Node(*slot, index)).collect());
            }
            Span::Blocks(slot, range) => {
                let indexes = self.stored_in_rows(BLOCK, *slot, range)?;
                return Ok(indexes.into_iter().map(|index| Key::Block(*slot, index)).collect());
            }
            Span::Feed(slot) => *slot,
        };
        keys.push(Key::Head(slot));
        keys.extend(self.keys(&Span::Pages(slot, 0..u64::MAX))?);
        keys.extend(self.keys(&Span::Nodes(slot, 0..u64::MAX))?);
        keys.extend(self.keys(&Span::Blocks(slot, 0..u64::MAX))?);
        let prefix = [&[LOCAL][..], &slot.0.to_be_bytes()].concat();
        for entry in self.database.snapshot().prefix(&self.state, &prefix) {
            let key = entry.key().map_err(running)?;
            keys.push(Key::Local(slot, key.get(prefix.len()..).unwrap_or_default().to_vec()));
        }
        Ok(keys)
    }

    /// The indexes in `range` at which something is stored.
    fn stored_in_rows(&self, kind: u8, slot: Slot, range: &Range<u64>) -> Result<Vec<u64>, StorageError> {
        let mut indexes = vec![];
        let Some(last) = range.end.checked_sub(1).filter(|last| *last >= range.start) else {
            return Ok(indexes);
        };
        let rows = Row::number(range.start)..Row::number(last) + 1;
        for entry in self.database.snapshot().range(&self.tree, numbers(kind, slot, &rows)) {
            let (key, row) = entry.into_inner().map_err(running)?;
            let first = last_number(&key)?.saturating_mul(CELLS as u64);
            let row = decode_row(&row)?;
            let stored = (first..).take(CELLS).filter(|index| row.get(*index).is_some());
            indexes.extend(stored.filter(|index| range.contains(index)));
        }
        Ok(indexes)
    }

    fn wait_for_room(&self) -> Result<(), StorageError> {
        let is_full = |keyspace: &Keyspace| keyspace.sealed_memtable_count() > MAX_FULL_BUFFERS;
        while [&self.state, &self.tree].into_iter().any(is_full) {
            // Fails when the thread that should make room has failed.
            self.database.persist(PersistMode::Buffer).map_err(running)?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The keyspace of `key`, and its bytes there. Integers are big-endian, so that neighbours lie together.
    fn locate(&self, key: &Key) -> (&Keyspace, Vec<u8>) {
        match key {
            Key::Record(record) => (&self.state, [&[RECORD], record.as_slice()].concat()),
            Key::Head(slot) => (&self.state, [&[HEAD][..], &slot.0.to_be_bytes()].concat()),
            Key::Page(slot, index) => (&self.state, numbered(PAGE, *slot, *index)),
            Key::Local(slot, record) => {
                (&self.state, [&[LOCAL][..], &slot.0.to_be_bytes(), record.as_slice()].concat())
            }
            Key::Node(slot, index) => (&self.tree, numbered(NODE, *slot, Row::number(*index))),
            Key::Block(slot, index) => (&self.tree, numbered(BLOCK, *slot, Row::number(*index))),
        }
    }
}

/// The key of number `number` among those of `kind` and `slot`.
fn numbered(kind: u8, slot: Slot, number: u64) -> Vec<u8> {
    [&[kind][..], &slot.0.to_be_bytes(), &number.to_be_bytes()].concat()
}

fn numbers(kind: u8, slot: Slot, range: &Range<u64>) -> Range<Vec<u8>> {
    // One that ends before it begins is empty, as one that ends where it begins.
    numbered(kind, slot, range.start)..numbered(kind, slot, range.end.max(range.start))
}

/// The number at the end of a key that [`numbered`] made.
fn last_number(key: &[u8]) -> Result<u64, StorageError> {
    let number = key.last_chunk::<8>().ok_or_else(|| damaged("a key of the database"))?;
    Ok(u64::from_be_bytes(*number))
}

/// Which row `key` is in, if it is of a kind that lies in rows.
fn row(key: &Key) -> Option<(u8, Slot, u64)> {
    match key {
        Key::Node(slot, index) => Some((NODE, *slot, Row::number(*index))),
        Key::Block(slot, index) => Some((BLOCK, *slot, Row::number(*index))),
        _ => None,
    }
}

fn count(keyspace: &Keyspace) -> Result<u64, StorageError> {
    let Some(count) = keyspace.get([COUNT]).map_err(running)? else { return Ok(0) };
    let count = count[..].try_into().map_err(|_| damaged("the number of commits"))?;
    Ok(u64::from_be_bytes(count))
}

fn decode_row(bytes: &[u8]) -> Result<Row<'_>, StorageError> {
    Row::decode(bytes).map_err(|_| damaged("a row of nodes or blocks"))
}

/// The row `stored` after `writes`, all of which are in it.
fn update_row(
    stored: &[u8],
    writes: &[Change],
    places: &mut impl Iterator<Item = Place>,
) -> Result<Option<Vec<u8>>, StorageError> {
    let mut row = decode_row(stored)?;
    for write in writes {
        match write {
            (Key::Node(_, index), value) => row.set(*index, value.as_ref().map(|it| Cow::Borrowed(&it[..]))),
            (Key::Block(_, index), None) => row.set(*index, None),
            (Key::Block(_, index), Some(block)) => {
                let place = kept_apart(write).and_then(|_| places.next());
                row.set(*index, Some(Cow::Owned(encode_block(block, place))));
            }
            _ => {}
        }
    }
    Ok(row.encode())
}

/// The block that `write` puts into the block files.
fn kept_apart((key, value): &Change) -> Option<&Bytes> {
    let is_block = matches!(key, Key::Block(..));
    value.as_ref().filter(|value| is_block && value.len() >= APART_FROM)
}

fn encode_block(block: &Bytes, place: Option<Place>) -> Vec<u8> {
    match place {
        Some(place) => {
            let mut value = vec![APART];
            place.encode(&mut value);
            value
        }
        None => [&[INLINE], &block[..]].concat(),
    }
}

/// Refuses what fjall would panic over: a key that is too long.
pub(super) fn check(writes: &[Write]) -> Result<(), StorageError> {
    let too_long = writes.iter().find_map(|write| match write {
        Write::Put(Key::Record(record) | Key::Local(_, record), _)
        | Write::Delete(Key::Record(record) | Key::Local(_, record))
            if record.len() > MAX_RECORD_KEY =>
        {
            Some(record.len())
        }
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

fn damaged(what: &str) -> StorageError {
    StorageError::Damaged { what: what.into() }
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
