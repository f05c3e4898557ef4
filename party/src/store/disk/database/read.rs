//! Many keys read at once: each row once, neighbouring rows and blocks in one go.

use std::ops::Range;

use bytes::Bytes;
use fjall::Readable as _;

use super::{
    Database, HeldView, View, into_bytes,
    layout::{Cell, decode_cells, locate, row, row_key, space_of_rows},
    rows::RowId,
    running,
    space::Space,
};
use crate::{
    error::StorageError,
    feed::storage::{Key, Slot},
    store::disk::{ahead::AHEAD_BYTES, blocks::Place},
};

/// So many rows that follow each other are read as a range. Beginning one takes as long as some lookups.
const MIN_RANGE: usize = 4;

impl Database {
    /// The values of `keys` as they stood at one moment, up to the block with which those read have `bytes`
    /// bytes or more.
    pub(in super::super) fn read(
        &self,
        keys: &[Key],
        bytes: usize,
    ) -> Result<Vec<Option<Bytes>>, StorageError> {
        match self.read_mixed(keys, bytes) {
            // A block may have been deleted, and its space given back, between the look at the database and
            // that at the file. If it is damaged it still is.
            Err(StorageError::Damaged { .. }) => self.read_at(&self.view(), keys, bytes),
            result => result,
        }
    }

    /// The values of `keys` as they stand, if all of it is in memory.
    pub(in super::super) fn read_from_memory(
        &self,
        keys: &[Key],
        bytes: usize,
    ) -> Option<Vec<Option<Bytes>>> {
        // Of what isn't all here, one end is mostly missing.
        let ends = [row(keys.first()?)?, row(keys.last()?)?];
        if !self.rows.has(&ends) {
            return None;
        }
        let lookup = Lookup::of(keys)?;
        let (rows, _) = self.rows.get_all(&lookup.rows);
        let rows: Vec<Option<Bytes>> = rows.into_iter().map(|row| row.map(Some)).collect::<Option<_>>()?;
        let found = lookup.find(keys, &rows).ok()?;
        let mut values = Vec::with_capacity(keys.len());
        let mut read = 0_usize;
        for (key, cell) in keys.iter().zip(found) {
            let value = match cell {
                None => None,
                Some(Cell::Value(value)) => Some(value),
                Some(Cell::Apart(place)) => Some(self.blocks.read_recent(place)?),
            };
            let is_block = matches!(key, Key::Block(..));
            read = read.saturating_add(value.as_ref().filter(|_| is_block).map_or(0, Bytes::len));
            values.push(value);
            if is_block && read >= bytes {
                break;
            }
        }
        Some(values)
    }

    /// The values of `keys` as they stood when `held` was taken.
    pub(in super::super) fn read_held(
        &self,
        held: &HeldView,
        keys: &[Key],
    ) -> Result<Vec<Option<Bytes>>, StorageError> {
        self.read_at(&held.view, keys, usize::MAX)
    }

    /// Block `index` of a feed, and up to `ahead` of those that follow without a gap.
    pub(in super::super) fn read_run(
        &self,
        slot: Slot,
        index: u64,
        ahead: usize,
    ) -> Result<(Option<Bytes>, Vec<Bytes>), StorageError> {
        let key = |index| Key::Block(slot, index);
        let keys: Vec<Key> = (index..=index.saturating_add(ahead as u64)).map(key).collect();
        let mut values = match self.read(&keys, AHEAD_BYTES) {
            // What is wrong with a later one is found when it is asked for.
            Err(_) if ahead > 0 => self.read(&[key(index)], usize::MAX)?,
            result => result?,
        }
        .into_iter();
        Ok((values.next().flatten(), values.map_while(|value| value).collect()))
    }

    /// Reads rows from memory as far as they are there, else from the database.
    fn read_mixed(&self, keys: &[Key], bytes: usize) -> Result<Vec<Option<Bytes>>, StorageError> {
        let Some(lookup) = Lookup::of(keys) else { return self.read_at(&self.view(), keys, bytes) };
        let (mut rows, moment) = self.rows.get_all(&lookup.rows);
        let missing: Vec<usize> = (0..rows.len()).filter(|n| matches!(rows.get(*n), Some(None))).collect();
        let missing_ids: Vec<RowId> = missing.iter().filter_map(|n| lookup.rows.get(*n).copied()).collect();
        if !missing_ids.is_empty() {
            let read = self.read_rows(&self.view(), &missing_ids)?;
            let had = lookup.rows.iter().zip(&rows).filter_map(|(id, row)| Some((id, row.as_ref()?)));
            if !self.rows.still_has(had) {
                return self.read_at(&self.view(), keys, bytes);
            }
            let found = missing_ids.iter().zip(&read).filter_map(|(id, row)| Some((id, row.as_ref()?)));
            self.rows.keep(found, moment);
            for (n, row) in missing.into_iter().zip(read) {
                if let Some(place) = rows.get_mut(n) {
                    *place = row;
                }
            }
        }
        self.read_blocks(keys, lookup.find(keys, &rows)?, bytes)
    }

    /// Reads all from the database.
    fn read_at(&self, view: &View, keys: &[Key], bytes: usize) -> Result<Vec<Option<Bytes>>, StorageError> {
        let lookup = Lookup::of_rows(keys);
        let rows = self.read_rows(view, &lookup.rows)?;
        let mut found = lookup.find(keys, &rows)?;
        for (key, cell) in keys.iter().zip(&mut found).filter(|(key, _)| row(key).is_none()) {
            let (space, encoded) = locate(key);
            *cell = self.read_one(view, space, &encoded)?.map(|value| Cell::Value(into_bytes(value)));
        }
        self.read_blocks(keys, found, bytes)
    }

    fn read_one(
        &self,
        view: &View,
        space: Space,
        key: &[u8],
    ) -> Result<Option<fjall::UserValue>, StorageError> {
        if view.sweeps.iter().any(|sweep| sweep.covers(space, key)) {
            return Ok(None);
        }
        view.snapshot.get(self.keyspaces.of(space), key).map_err(running)
    }

    /// The rows `ids`, which are sorted.
    fn read_rows(&self, view: &View, ids: &[RowId]) -> Result<Vec<Option<Bytes>>, StorageError> {
        let copy = |row: fjall::UserValue| Bytes::copy_from_slice(&row);
        let mut rows = Vec::with_capacity(ids.len());
        let follows = |(kind, slot, a): &RowId, (it, of, b): &RowId| {
            (kind, slot) == (it, of) && a.checked_add(1) == Some(*b)
        };
        for run in ids.chunk_by(follows) {
            let (Some((kind, slot, first)), Some((_, _, last))) = (run.first(), run.last()) else { continue };
            let space = space_of_rows(*kind);
            if run.len() < MIN_RANGE {
                for (kind, slot, row) in run {
                    let found = self.read_one(view, space, &row_key(*kind, *slot, *row))?;
                    rows.push(found.map(copy));
                }
                continue;
            }
            let (start, end) = (row_key(*kind, *slot, *first), row_key(*kind, *slot, *last));
            let start_at = rows.len();
            rows.resize(start_at.saturating_add(run.len()), None);
            for entry in view.snapshot.range(self.keyspaces.of(space), start..=end) {
                let (key, value) = entry.into_inner().map_err(running)?;
                if view.sweeps.iter().any(|sweep| sweep.covers(space, &key)) {
                    continue;
                }
                let number = key.last_chunk().map(|number| u64::from_be_bytes(*number));
                let at = number.and_then(|number| usize::try_from(number.checked_sub(*first)?).ok());
                if let Some(place) = at.and_then(|at| rows.get_mut(start_at.checked_add(at)?)) {
                    *place = Some(copy(value));
                }
            }
        }
        Ok(rows)
    }

    /// Fetches what is apart.
    fn read_blocks(
        &self,
        keys: &[Key],
        cells: Vec<Option<Cell>>,
        bytes: usize,
    ) -> Result<Vec<Option<Bytes>>, StorageError> {
        let mut values = Vec::with_capacity(cells.len());
        let mut places: Vec<(Place, usize)> = Vec::new();
        let mut read = 0_usize;
        for (key, cell) in keys.iter().zip(cells) {
            let is_block = matches!(key, Key::Block(..));
            let (value, len) = match cell {
                None => (None, 0),
                Some(Cell::Value(value)) => {
                    let len = value.len();
                    (Some(value), len)
                }
                Some(Cell::Apart(place)) => {
                    places.push((place, values.len()));
                    (None, place.len as usize)
                }
            };
            values.push(value);
            if is_block {
                read = read.saturating_add(len);
                if read >= bytes {
                    break;
                }
            }
        }
        for (n, block) in self.blocks.read_all(places)? {
            if let Some(value) = values.get_mut(n) {
                *value = Some(block);
            }
        }
        Ok(values)
    }
}

/// Which rows keys are in.
struct Lookup {
    /// Sorted, each once.
    rows: Vec<RowId>,
    /// For each row, where the keys that are in it stand among all, in `order`.
    keys: Vec<Range<usize>>,
    order: Vec<usize>,
}

impl Lookup {
    /// `None` if some of `keys` are of a kind that doesn't lie in rows.
    fn of(keys: &[Key]) -> Option<Self> {
        keys.iter().all(|key| row(key).is_some()).then(|| Self::of_rows(keys))
    }

    /// Leaves out keys of other kinds.
    fn of_rows(keys: &[Key]) -> Self {
        let mut ids: Vec<(RowId, usize)> =
            keys.iter().enumerate().filter_map(|(n, key)| Some((row(key)?, n))).collect();
        if !ids.is_sorted() {
            ids.sort_unstable();
        }
        let (mut rows, mut ranges, mut at) = (Vec::new(), Vec::new(), 0_usize);
        for run in ids.chunk_by(|(a, _), (b, _)| a == b) {
            rows.extend(run.first().map(|(id, _)| *id));
            let end = at.saturating_add(run.len());
            ranges.push(at..end);
            at = end;
        }
        Self { rows, keys: ranges, order: ids.into_iter().map(|(_, n)| n).collect() }
    }

    /// What is stored under each of `keys`, in their order, if `rows` are what is stored of the rows.
    fn find(&self, keys: &[Key], rows: &[Option<Bytes>]) -> Result<Vec<Option<Cell>>, StorageError> {
        let mut cells: Vec<Option<Cell>> = Vec::with_capacity(keys.len());
        cells.resize_with(keys.len(), || None);
        for (range, row) in self.keys.iter().zip(rows) {
            let Some(row) = row else { continue };
            let within = self.order.get(range.clone()).unwrap_or_default();
            let within = within.iter().filter_map(|n| Some((*n, keys.get(*n)?)));
            decode_cells(row, within, |n, cell| {
                if let Some(place) = cells.get_mut(n) {
                    *place = Some(cell);
                }
            })?;
        }
        Ok(cells)
    }
}
