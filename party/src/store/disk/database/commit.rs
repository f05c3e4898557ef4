//! A commit: what it comes to, and how it is written.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
    ops::Range,
};

use bytes::Bytes;
use fjall::Readable as _;

use super::{
    Database, Durability, StorageError, Sweep,
    buffers::Batch,
    free::Freed,
    layout::{
        BLOCK, COUNT, Change, Parts, Piece, SWEEP, kept_apart, locate, places, row, row_of_key, update_row,
    },
    lock,
    rows::{Touched, Underway},
    running,
    space::Space,
};
use crate::{
    feed::storage::{Span, Write},
    store::disk::{blocks::Place, row::Row},
};

/// More keys than this are not deleted in one batch, but [swept](super::sweep).
const MAX_AT_ONCE: usize = 1024;
/// The rows of a commit with at most so many changes stay in memory: who appends a block or two is followed by somebody
/// who waits for just these.
const MAX_KEPT: usize = 32;

/// What a list of writes comes to.
#[derive(Debug, Default)]
struct Plan {
    changes: Vec<Change>,
    /// Keys whose values are forgotten before that: rows are written from scratch.
    emptied: BTreeSet<(Space, Vec<u8>)>,
    /// The same, where there are too many.
    swept: Vec<(Space, Range<Vec<u8>>)>,
}

impl Plan {
    /// The rows of nodes and blocks that it changes, once the changes are sorted.
    fn touched(&self) -> Touched {
        if !self.swept.is_empty() {
            return Touched::All;
        }
        let mut touched = Touched::nothing();
        self.changes.iter().filter_map(|(key, _)| row(key)).for_each(|row| touched.add(row));
        let emptied = self.emptied.iter().filter_map(|(space, key)| row_of_key(*space, key));
        emptied.for_each(|row| touched.add(row));
        touched
    }
}

impl Database {
    /// Carries out all of `writes`, one after the other, or none. When this returns, they are the operating
    /// system's, or on the disk, as the durability says.
    //= STORE-18
    pub(in super::super) fn commit(&self, writes: Vec<Write>) -> Result<(), StorageError> {
        if writes.is_empty() {
            return Ok(());
        }
        self.make_room()?;
        self.finish_sweeps_before(&writes)?;
        let mut plan = self.plan(writes)?;
        // The sort is stable, so of equal keys the later write comes first now, and stays.
        plan.changes.reverse();
        plan.changes.sort_by(|(a, _), (b, _)| a.cmp(b));
        plan.changes.dedup_by(|(earlier, _), (later, _)| earlier == later);
        let apart: Vec<Bytes> = plan.changes.iter().filter_map(kept_apart).cloned().collect();
        // Before the batch that names them.
        //= STORE-14
        let appended = self.blocks.append(&apart)?;
        let gap = self.gap(&appended)?;

        let mut underway = self.rows.begin(plan.touched());
        let mut batch = Batch::new(self, plan.changes.len() + plan.emptied.len());
        let mut freed = vec![];
        let kept = self.put_changes(&mut plan, appended.clone(), &mut batch, &mut freed, &mut underway)?;
        for (space, key) in &plan.emptied {
            freed.append(&mut self.places_in_row(*space, key)?);
            batch.remove(*space, key.as_slice());
        }
        let sweeps = self.start_sweeps(plan.swept, &kept, &mut batch);
        let freed = self.free(freed, gap)?;
        //= STORE-17
        if self.durability == Durability::Power && self.blocks.sync_appended()? {
            self.note_sync("blocks");
        }
        let mut count = lock(&self.written).count;
        if let Some(last) = appended.last() {
            count.blocks.file = last.file;
            count.blocks.offset = last.offset.saturating_add(last.len.into());
        }
        self.write(batch, freed, count, sweeps)?;
        underway.carried_out();
        Ok(())
    }

    /// Writes `batch`, which brings the store to `count` but for the number, and what becomes of the free space. All of
    /// it is one batch of the database's, so that it is there as a whole or not at all.
    //= STORE-9, STORE-18
    pub(super) fn write(
        &self,
        mut batch: Batch<'_>,
        freed: Freed,
        mut count: super::Count,
        sweeps: Vec<Sweep>,
    ) -> Result<(), StorageError> {
        count.commits = count.commits.saturating_add(1);
        for (key, value) in freed.changes {
            match value {
                Some(value) => batch.insert(Space::State, key, value),
                None => batch.remove(Space::State, key),
            }
        }
        for hole in &freed.holes {
            batch.insert(Space::State, hole.hole_key(count.commits), hole.value());
        }
        //= STORE-9
        for space in Space::ALL {
            batch.insert(space, [COUNT], count.encode());
        }
        let next_sweep = sweeps.iter().map(|sweep| sweep.id.saturating_add(1)).max();
        self.sweeps.add(sweeps, || batch.commit().map_err(|error| self.failed(error)))?;
        if self.durability == Durability::Power {
            self.note_sync("journal");
        }
        {
            let mut written = lock(&self.written);
            if written.count.blocks.file != count.blocks.file {
                lock(&self.holes).left.push(written.count.blocks.file);
            }
            written.count = count;
            written.next_sweep = next_sweep.unwrap_or(written.next_sweep);
        }
        lock(&self.holes).add(count.commits, &freed.holes);
        // The commit stands; only damage to it would not be noticed.
        if let Err(error) = self.mark.write(count.commits) {
            tracing::warn!(%error, "the number of commits could not be noted");
        }
        Ok(())
    }

    /// What becomes of each key, still in the order of `writes`.
    fn plan(&self, writes: Vec<Write>) -> Result<Plan, StorageError> {
        let mut plan = Plan { changes: Vec::with_capacity(writes.len()), ..Plan::default() };
        for write in writes {
            match write {
                Write::Put(key, value) => plan.changes.push((key, Some(value))),
                Write::Delete(key) => plan.changes.push((key, None)),
                Write::Clear(span) => self.plan_clear(&span, &mut plan)?,
            }
        }
        Ok(plan)
    }

    fn plan_clear(&self, span: &Span, plan: &mut Plan) -> Result<(), StorageError> {
        // What was put before in the same batch goes, too.
        plan.changes.retain(|(key, _)| !span.contains(key));
        let Parts { keys, cells } = Parts::of(span);
        plan.changes.extend(cells.into_iter().map(|key| (key, None)));
        for (space, keys) in keys {
            let stored = self.database.snapshot().range(self.keyspaces.of(space), keys.clone());
            let stored = stored
                .take(MAX_AT_ONCE + 1)
                .map(|entry| Ok((space, entry.key().map_err(running)?.to_vec())))
                .collect::<Result<Vec<_>, StorageError>>()?;
            if stored.len() > MAX_AT_ONCE {
                plan.swept.push((space, keys));
            } else {
                plan.emptied.extend(stored);
            }
        }
        Ok(())
    }

    /// Adds the changes to `batch`, and their rows to those that are kept if they are few, and gives the keys that they
    /// touch.
    fn put_changes(
        &self,
        plan: &mut Plan,
        appended: Vec<Place>,
        batch: &mut Batch<'_>,
        freed: &mut Vec<Place>,
        underway: &mut Underway<'_>,
    ) -> Result<Vec<(Space, Vec<u8>)>, StorageError> {
        let mut appended = appended.into_iter();
        let mut kept = vec![];
        let Plan { changes, emptied, swept } = plan;
        let stay_in_memory = changes.len() <= MAX_KEPT;
        // Neighbours of one row follow each other.
        for changes in changes.chunk_by(|(a, _), (b, _)| row(a).is_some_and(|a| row(b) == Some(a))) {
            let [(key, value), ..] = changes else { continue };
            let (space, mut encoded) = locate(key);
            let mut is_fresh = false;
            if !emptied.is_empty() || !swept.is_empty() {
                let at = (space, encoded);
                is_fresh = emptied.remove(&at)
                    || swept.iter().any(|(it, keys)| *it == space && keys.contains(&at.1));
                kept.push(at.clone());
                (_, encoded) = at;
            }
            let value = match row(key) {
                None => value.as_ref().map(|value| Cow::Borrowed(&value[..])),
                Some(id) => {
                    let found;
                    let mut stored = match underway.before(&id) {
                        Some(row) => Some(&row[..]),
                        None => {
                            found = self.keyspaces.of(space).get(&encoded).map_err(running)?;
                            found.as_deref()
                        }
                    };
                    let was_there = stored.is_some() || is_fresh;
                    if let Some(old) = stored.take_if(|_| is_fresh)
                        && space == Space::Blocks
                    {
                        freed.append(&mut places(old)?);
                    }
                    let row: Row<'_> = update_row(stored.unwrap_or_default(), changes, &mut appended, freed)?;
                    let row = match row.encode() {
                        None if !was_there => continue,
                        row => row,
                    };
                    if let Some(row) = row.as_ref().filter(|_| stay_in_memory) {
                        underway.keep(id, Bytes::copy_from_slice(row));
                    }
                    row.map(Cow::Owned)
                }
            };
            match value {
                Some(value) => batch.insert(space, encoded, &value[..]),
                None => batch.remove(space, encoded),
            }
        }
        Ok(kept)
    }

    /// The places in the row under `key`, if it is one of blocks.
    pub(super) fn places_in_row(&self, space: Space, key: &[u8]) -> Result<Vec<Place>, StorageError> {
        if space != Space::Blocks || key.first() != Some(&BLOCK) {
            return Ok(vec![]);
        }
        let stored = self.keyspaces.blocks.get(key).map_err(running)?;
        stored.map_or(Ok(vec![]), |stored| places(&stored))
    }

    /// Notes in `batch` which of `keys` are gone, all but those that were just written.
    fn start_sweeps(
        &self,
        keys: Vec<(Space, Range<Vec<u8>>)>,
        kept: &[(Space, Vec<u8>)],
        batch: &mut Batch<'_>,
    ) -> Vec<Sweep> {
        let mut sweeps = vec![];
        let mut id = lock(&self.written).next_sweep;
        for (space, keys) in keys {
            let whole = Sweep { id: 0, space, keys };
            let mut kept: Vec<Vec<u8>> = kept
                .iter()
                .filter(|(space, key)| whole.covers(*space, key))
                .map(|(_, key)| key.clone())
                .collect();
            kept.sort_unstable();
            for part in whole.without(&kept) {
                let part = Sweep { id, ..part };
                batch.insert(Space::State, sweep_key(id), part.encode());
                sweeps.push(part);
                id = id.saturating_add(1);
            }
        }
        sweeps
    }

    /// What lies between the last block that was named and the first of `appended`: bytes of a commit that
    /// never came.
    fn gap(&self, appended: &[Place]) -> Result<Vec<Piece>, StorageError> {
        let Some(first) = appended.first() else { return Ok(vec![]) };
        let end = lock(&self.written).count.blocks;
        if first.file == end.file {
            let gap = Piece::new(end.file, end.offset, first.offset);
            return Ok(if end.offset < first.offset { vec![gap] } else { vec![] });
        }
        let mut gaps = vec![Piece::new(end.file, end.offset, self.blocks.len(end.file)?.unwrap_or(0))];
        gaps.push(Piece::new(first.file, 0, first.offset));
        gaps.retain(|gap| gap.bytes.start < gap.bytes.end);
        Ok(gaps)
    }

    /// A sweep must not take along what is written after it.
    fn finish_sweeps_before(&self, writes: &[Write]) -> Result<(), StorageError> {
        loop {
            let sweeps = self.sweeps.list();
            if sweeps.is_empty() {
                return Ok(());
            }
            let mut found: HashSet<u64> = HashSet::new();
            for write in writes {
                let Write::Put(key, _) = write else { continue };
                let (space, encoded) = locate(key);
                found.extend(sweeps.iter().filter(|it| it.covers(space, &encoded)).map(|it| it.id));
            }
            if found.is_empty() {
                return Ok(());
            }
            for id in found {
                while self.sweep_some(id)? {}
            }
        }
    }

    fn note_sync(&self, _what: &'static str) {
        #[cfg(test)]
        lock(&self.syncs).push(_what);
    }
}

/// The key of a [`Sweep`].
pub(super) fn sweep_key(id: u64) -> Vec<u8> {
    [&[SWEEP][..], &id.to_be_bytes()].concat()
}
