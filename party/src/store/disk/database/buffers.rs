//! What was committed and is still in memory, and when it is handed over to be written out.
//!
//! fjall would see to it by itself: each commit that finds a buffer full asks fjall's thread to put an empty one in its
//! place. But while that thread merges tables, it does nothing else. The buffer grows on meanwhile, by as much as is
//! committed; and after a thousand such commits the thread's queue is full, so that the thread waits, when it comes to the
//! first of them, for room in its own queue, for ever. So fjall's bound is out of reach here, and a full buffer is handed over
//! before the next commit.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use fjall::{Keyspace, OwnedWriteBatch, PersistMode, Slice, UserKey};

use super::{
    Database, Durability, StorageError,
    space::{Each, Space},
};

/// What is kept in memory of heads, pages and records before it is written out. A page of the bitfield is
/// written again with every append, and only its last version is worth a table.
///
/// This, [`ROWS_BYTES`] and [`MAX_FULL`] bound what a store takes in memory while it is written to: rows take about
/// twice their bytes there.
const STATE_BYTES: u64 = 2 << 20;
/// The same for tree nodes, and for blocks and their places. Whenever merging takes long, as it does now and then in a
/// long feed, all buffers of both fill up, so this is what a store takes at its peak.
const ROWS_BYTES: u64 = 1 << 20;
/// So many full buffers of a keyspace may wait to be written out, while another one fills. Then commits wait. fjall would
/// block its caller at four, with no way out.
const MAX_FULL: usize = 2;
/// The bound of fjall's own, which is out of reach.
pub(super) const OUT_OF_REACH: u64 = u64::MAX;
/// What fjall takes an entry to have beside its key and value.
const ENTRY_BYTES: u64 = 64;
/// How long to wait before looking again whether tables are written.
const STEP: Duration = Duration::from_millis(1);

/// How many bytes were committed to each keyspace since its buffer was last handed over. Whoever has the turn to
/// write changes it.
#[derive(Debug)]
pub(super) struct Buffers(Each<Buffer>);

#[derive(Debug)]
struct Buffer {
    bytes: AtomicU64,
    max_bytes: u64,
}

impl Buffers {
    /// Those of a database that was opened with `in_memory` bytes from its journal, of whichever keyspace.
    pub(super) fn new(in_memory: u64) -> Self {
        let buffer = |max_bytes| Buffer { bytes: AtomicU64::new(in_memory), max_bytes };
        Self(Each { state: buffer(STATE_BYTES), tree: buffer(ROWS_BYTES), blocks: buffer(ROWS_BYTES) })
    }

    #[cfg(test)]
    pub(super) fn set_max_bytes(&mut self, max_bytes: u64) {
        Space::ALL.into_iter().for_each(|space| self.0.of_mut(space).max_bytes = max_bytes);
    }

    /// Whether one of them is to be handed over before the next commit.
    pub(super) fn is_any_full(&self) -> bool {
        Space::ALL.into_iter().any(|space| self.of(space).is_full())
    }

    fn of(&self, space: Space) -> &Buffer {
        self.0.of(space)
    }
}

impl Buffer {
    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.max_bytes
    }
}

/// What is to be there as a whole or not at all, and how much that is.
pub(super) struct Batch<'d> {
    database: &'d Database,
    entries: OwnedWriteBatch,
    bytes: Each<u64>,
}

impl<'d> Batch<'d> {
    /// With room for so many entries and the counts. It is as durable as it has to be once it is committed.
    //= STORE-17
    pub(super) fn new(database: &'d Database, capacity: usize) -> Self {
        let mode = match database.durability {
            Durability::Process => PersistMode::Buffer,
            Durability::Power => PersistMode::SyncData,
        };
        let capacity = capacity.saturating_add(Space::ALL.len());
        let entries = OwnedWriteBatch::with_capacity(database.database.clone(), capacity);
        Self { database, entries: entries.durability(Some(mode)), bytes: Each::default() }
    }

    pub(super) fn insert(&mut self, space: Space, key: impl Into<UserKey>, value: impl Into<Slice>) {
        let (key, value) = (key.into(), value.into());
        self.add(space, key.len().saturating_add(value.len()));
        self.entries.insert(self.database.keyspaces.of(space), key, value);
    }

    pub(super) fn remove(&mut self, space: Space, key: impl Into<UserKey>) {
        let key = key.into();
        self.add(space, key.len());
        self.entries.remove(self.database.keyspaces.of(space), key);
    }

    fn add(&mut self, space: Space, bytes: usize) {
        let sum = self.bytes.of_mut(space);
        *sum = sum.saturating_add(bytes as u64).saturating_add(ENTRY_BYTES);
    }

    pub(super) fn commit(self) -> Result<(), fjall::Error> {
        self.entries.commit()?;
        for space in Space::ALL {
            // Nobody adds to it before `make_room` has seen the sum, so it can't wrap around.
            self.database.buffers.of(space).bytes.fetch_add(*self.bytes.of(space), Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Database {
    /// Hands over the buffers that are full, after waiting until there is room for them. To be called before each
    /// commit.
    pub(super) fn make_room(&self) -> Result<(), StorageError> {
        for space in Space::ALL {
            let (keyspace, buffer) = (self.keyspaces.of(space), self.buffers.of(space));
            if !buffer.is_full() {
                continue;
            }
            self.wait_for_tables(keyspace, MAX_FULL).map_err(|error| self.failed(error))?;
            keyspace.rotate_memtable().map_err(|error| self.failed(error))?;
            buffer.bytes.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes what is in memory into tables, on the disk. The journal isn't needed any more then.
    pub(in super::super) fn settle(&self) -> Result<(), StorageError> {
        for space in Space::ALL {
            let keyspace = self.keyspaces.of(space);
            keyspace.rotate_memtable().map_err(super::running)?;
            self.wait_for_tables(keyspace, 1).map_err(super::running)?;
        }
        Ok(())
    }

    /// Waits until fewer than `full` buffers of `keyspace` wait to be written.
    fn wait_for_tables(&self, keyspace: &Keyspace, full: usize) -> Result<(), fjall::Error> {
        while keyspace.sealed_memtable_count() >= full {
            // Fails when the thread that writes them has failed.
            self.database.persist(PersistMode::Buffer)?;
            thread::sleep(STEP);
        }
        Ok(())
    }
}
