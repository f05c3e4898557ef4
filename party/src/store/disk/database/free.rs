//! Which parts of the block files nothing names any more.
//!
//! A block is rarely as long as a page of the disk, and only whole pages can be given back. So what is free
//! is kept as pieces in the database, neighbours joined into one, and the pages that a piece has gained are
//! put on a list, to be given back once that can't be undone. Both happen in the batch that names the
//! blocks no more.
//!
//! The section is `protocol-spec/09-storage.md#block-files`.

use super::{
    Database,
    layout::{FREE, Piece},
    running,
};
use crate::{error::StorageError, store::disk::blocks::Place};

/// What a file system gives back at the least. On one with larger pages, less comes back than could.
const PAGE: u64 = 4096;

/// What becomes of keys of free space in a batch.
#[derive(Debug, Default)]
pub(super) struct Freed {
    pub(super) changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// To be given back.
    pub(super) holes: Vec<Piece>,
}

impl Database {
    /// What becomes of the free space when nothing names `places` and `pieces` any more.
    pub(super) fn free(&self, places: Vec<Place>, mut pieces: Vec<Piece>) -> Result<Freed, StorageError> {
        pieces.extend(
            places
                .iter()
                .map(|place| {
                    Piece::new(place.file, place.offset, place.offset.saturating_add(place.len.into()))
                })
                .filter(|piece| piece.bytes.start < piece.bytes.end),
        );
        pieces.sort_unstable();
        let mut freed = Freed::default();
        let mut pieces = pieces.into_iter().peekable();
        while let Some(piece) = pieces.next() {
            let new = piece.bytes;
            let (file, mut whole, mut end_of_new) = (piece.file, new, new.end);
            if let Some(before) = self.free_before(file, new.start)? {
                freed.changes.push((Piece::free_key(file, before.bytes.start), None));
                whole.start = before.bytes.start;
            }
            loop {
                if let Some(next) = pieces.next_if(|next| next.file == file && next.bytes.start <= whole.end)
                {
                    end_of_new = end_of_new.max(next.bytes.end);
                    whole.end = whole.end.max(next.bytes.end);
                } else if let Some(after) = self.free_at(file, whole.end)? {
                    freed.changes.push((Piece::free_key(file, whole.end), None));
                    whole.end = after.bytes.end.max(whole.end);
                } else {
                    break;
                }
            }
            let joined = Piece::new(file, whole.start, whole.end);
            freed.changes.push((Piece::free_key(file, whole.start), Some(joined.value())));
            // Whole pages, of which some of it is new.
            let start = whole.start.next_multiple_of(PAGE).max(new.start / PAGE * PAGE);
            let end = (whole.end / PAGE * PAGE).min(end_of_new.next_multiple_of(PAGE));
            if start < end {
                freed.holes.push(Piece::new(file, start, end));
            }
        }
        Ok(freed)
    }

    /// The free piece that ends where `end` is.
    fn free_before(&self, file: u32, end: u64) -> Result<Option<Piece>, StorageError> {
        let mut before = self.keyspaces.state.range(Piece::free_key(file, 0)..Piece::free_key(file, end));
        let Some(entry) = before.next_back() else { return Ok(None) };
        let (key, value) = entry.into_inner().map_err(running)?;
        debug_assert_eq!(key.first(), Some(&FREE));
        Ok(Some(Piece::decode(&key, &value)?).filter(|piece| piece.bytes.end == end))
    }

    /// The free piece that begins at `start`.
    pub(super) fn free_at(&self, file: u32, start: u64) -> Result<Option<Piece>, StorageError> {
        let key = Piece::free_key(file, start);
        let value = self.keyspaces.state.get(&key).map_err(running)?;
        value.map(|value| Piece::decode(&key, &value)).transpose()
    }
}
