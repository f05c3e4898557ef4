//! What is done when there is nothing else to do: keys that are gone are taken out, and space that is free is
//! given back.
//!
//! What was deleted comes back if the power fails before the deletion is on the disk, so the journal is
//! synced before bytes are given up. And a snapshot that was taken before may still read them.

use std::sync::atomic::Ordering;

use fjall::{PersistMode, Readable as _};

use super::{
    Database, Durability, StorageError,
    buffers::Batch,
    commit::sweep_key,
    free::Freed,
    layout::{BLOCK, HOLE, Piece, commit_of, places},
    lock, running,
    space::Space,
    sweep::after,
};

/// Keys that are taken out in one batch.
const SWEEP_KEYS: usize = 2048;
/// Pieces that are given back in one batch.
const PUNCH_PIECES: usize = 1024;
/// From how many bytes on space is given back though there is something else to do.
const MANY_BYTES: u64 = 64 << 20;

/// What waits to be given back.
#[derive(Debug, Default)]
pub(super) struct Holes {
    /// The commit that freed the oldest of it.
    pub(super) oldest: Option<u64>,
    /// About how much was freed since it was last given back.
    bytes: u64,
    /// Files that are not appended to any more since then.
    pub(super) left: Vec<u32>,
}

impl Holes {
    pub(super) fn find(database: &fjall::Database, state: &fjall::Keyspace) -> Result<Self, StorageError> {
        let first = database.snapshot().prefix(state, [HOLE]).next();
        let oldest = first.map(|entry| entry.key().map_err(running)).transpose()?;
        Ok(Self { oldest: oldest.and_then(|key| commit_of(&key)), ..Self::default() })
    }

    pub(super) fn add(&mut self, commit: u64, new: &[Piece]) {
        if !new.is_empty() {
            self.oldest.get_or_insert(commit);
        }
        self.bytes =
            new.iter().fold(self.bytes, |bytes, it| bytes.saturating_add(it.bytes.end - it.bytes.start));
    }
}

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Work {
    /// Nothing, or only what a snapshot is in the way of.
    Nothing,
    /// The database could not be opened again, which is to be tried now and then.
    Retry,
    /// Something, which can wait for a pause.
    Soon,
    /// So much that it should be done beside other work.
    Now,
}

impl Database {
    /// Whether [`tidy_some`](Self::tidy_some) has something to do.
    pub(in super::super) fn work(&self) -> Work {
        if self.has_failed() || self.is_stuck.load(Ordering::Acquire) {
            return Work::Nothing;
        }
        if !self.sweeps.list().is_empty() {
            return Work::Now;
        }
        let holes = lock(&self.holes);
        match holes.oldest.filter(|oldest| *oldest <= self.live.unread()) {
            Some(_) if holes.bytes >= MANY_BYTES => Work::Now,
            None if holes.left.is_empty() || holes.oldest.is_some() => Work::Nothing,
            _ => Work::Soon,
        }
    }

    /// Does some of it.
    pub(in super::super) fn tidy_some(&self) -> Result<(), StorageError> {
        let result = match self.sweeps.list().first().map(|sweep| sweep.id) {
            Some(id) => self.sweep_some(id).map(drop),
            None => self.punch_some(),
        };
        if result.is_err() {
            // It would fail again and again. Whoever opens the store next may try.
            self.is_stuck.store(true, Ordering::Release);
        }
        result
    }

    /// Takes out some of the keys of a sweep. `false` when it is done.
    pub(super) fn sweep_some(&self, id: u64) -> Result<bool, StorageError> {
        self.make_room()?;
        let sweeps = self.sweeps.list();
        let Some(sweep) = sweeps.iter().find(|sweep| sweep.id == id) else { return Ok(false) };
        let keyspace = self.keyspaces.of(sweep.space);
        let mut batch = Batch::new(self, SWEEP_KEYS + 1);
        let mut freed = vec![];
        let mut last = None;
        let mut count = 0;
        for entry in self.database.snapshot().range(keyspace, sweep.keys.clone()).take(SWEEP_KEYS) {
            let (key, value) = entry.into_inner().map_err(running)?;
            if sweep.space == Space::Blocks && key.first() == Some(&BLOCK) {
                freed.append(&mut places(&value)?);
            }
            batch.remove(sweep.space, key.clone());
            last = Some(key);
            count += 1;
        }
        let rest = last.filter(|_| count == SWEEP_KEYS).map(|last| after(&last));
        match &rest {
            Some(start) => {
                let mut rest = sweep.clone();
                rest.keys.start.clone_from(start);
                batch.insert(Space::State, sweep_key(id), rest.encode());
            }
            None => batch.remove(Space::State, sweep_key(id)),
        }
        let freed = self.free(freed, vec![])?;
        let written = lock(&self.written).count;
        self.write(batch, freed, written, vec![])?;
        let is_done = rest.is_none();
        self.sweeps.advance(id, rest);
        Ok(!is_done)
    }

    /// Gives back space that no snapshot reads.
    fn punch_some(&self) -> Result<(), StorageError> {
        let unread = self.live.unread();
        if self.durability == Durability::Process {
            // What is given back may have been overwritten.
            self.blocks.sync_appended()?;
            self.database.persist(PersistMode::SyncData).map_err(|error| self.failed(error))?;
        }
        loop {
            self.make_room()?;
            let mut holes = vec![];
            let mut is_left = false;
            for entry in self.database.snapshot().prefix(&self.keyspaces.state, [HOLE]) {
                let (key, value) = entry.into_inner().map_err(running)?;
                if holes.len() == PUNCH_PIECES || commit_of(&key).is_none_or(|commit| commit > unread) {
                    is_left = true;
                    let mut holes = lock(&self.holes);
                    (holes.oldest, holes.bytes) = (commit_of(&key), 0);
                    break;
                }
                holes.push((key.to_vec(), Piece::decode(&key, &value)?));
            }
            let mut files: Vec<u32> = holes.iter().map(|(_, hole)| hole.file).collect();
            if !is_left {
                files.append(&mut std::mem::take(&mut *lock(&self.holes)).left);
                files.sort_unstable();
                files.dedup();
            }
            let mut batch = Batch::new(self, holes.len());
            let mut freed = Freed::default();
            for (key, hole) in &holes {
                self.blocks.punch(hole.file, &(hole.bytes.start..hole.bytes.end))?;
                batch.remove(Space::State, key.as_slice());
            }
            if !is_left {
                for file in files {
                    self.remove_if_free(file, &mut freed)?;
                }
            }
            if !holes.is_empty() || !freed.changes.is_empty() {
                let written = lock(&self.written).count;
                self.write(batch, freed, written, vec![])?;
            }
            if holes.len() < PUNCH_PIECES {
                return Ok(());
            }
        }
    }

    /// Removes a block file of which nothing is left, unless it is still appended to.
    fn remove_if_free(&self, file: u32, freed: &mut Freed) -> Result<(), StorageError> {
        let last = lock(&self.written).count.blocks.file;
        let Some(free) = self.free_at(file, 0)?.filter(|_| file < last) else { return Ok(()) };
        if self.blocks.len(file)?.is_none_or(|len| len <= free.bytes.end) {
            self.blocks.remove(file)?;
            freed.changes.push((Piece::free_key(file, 0), None));
        }
        Ok(())
    }
}
