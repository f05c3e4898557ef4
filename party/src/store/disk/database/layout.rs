//! What the keys and values of the database look like.
//!
//! The section is `protocol-spec/09-storage.md#keys`.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;

use super::{
    super::{
        blocks::{End, Place},
        row::{CELLS, Row, Stored},
    },
    space::Space,
    sweep::after,
};
use crate::{
    encoding::{Reader, Writer},
    error::{DecodeError, StorageError},
    feed::storage::{Key, Slot, Span, Write},
};

/// Blocks from this length on go to the block files. Below, the place would take about as much as the block.
const APART_FROM: usize = 128;
/// The longest key of a record: fjall takes 65,535 bytes, of which we use a few.
const MAX_RECORD_KEY: usize = 60_000;

// The first byte of a key.
/// How much was committed, under this key alone in every keyspace. It comes last: as the first key it would make every
/// table that is written out reach from there to what was appended, over all tables before, and be merged with them.
pub(in super::super) const COUNT: u8 = b'z';
pub(super) const RECORD: u8 = b'r';
const HEAD: u8 = b'h';
const PAGE: u8 = b'p';
const NODE: u8 = b'n';
pub(super) const BLOCK: u8 = b'b';
const LOCAL: u8 = b'l';
/// Space in the block files that nothing names.
pub(super) const FREE: u8 = b'f';
/// The part of it that is still to be given back.
pub(super) const HOLE: u8 = b'x';
/// A deletion that is not done.
pub(super) const SWEEP: u8 = b'w';

// The first byte of a block's value.
const INLINE: u8 = 0;
const APART: u8 = 1;

/// What becomes of one key.
pub(super) type Change = (Key, Option<Bytes>);

/// How far the store has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Count {
    pub(in super::super) commits: u64,
    /// Where the last block ends that a commit names.
    pub(in super::super) blocks: End,
    /// Who wrote it: chosen at random whenever a store is opened, so that two stores which grew apart don't
    /// look the same.
    pub(in super::super) writer: u64,
}

impl Count {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.commits.to_be_bytes().to_vec();
        out.extend(self.blocks.file.to_be_bytes());
        out.extend(self.blocks.offset.to_be_bytes());
        out.extend(self.writer.to_be_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (commits, rest) = bytes.split_first_chunk()?;
        let (file, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (writer, _) = rest.split_first_chunk()?;
        let blocks = End { file: u32::from_be_bytes(*file), offset: u64::from_be_bytes(*offset) };
        let [commits, writer] = [commits, writer].map(|number| u64::from_be_bytes(*number));
        Some(Self { commits, blocks, writer })
    }
}

/// The number of commits in the value under [`COUNT`].
pub(in super::super) fn commits_of(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|count| u64::from_be_bytes(*count))
}

/// The keyspace of `key`, and its bytes there. Integers are big-endian, so that neighbours lie together.
pub(super) fn locate(key: &Key) -> (Space, Vec<u8>) {
    match key {
        Key::Record(record) => (Space::State, [&[RECORD], record.as_slice()].concat()),
        Key::Head(slot) => (Space::State, slotted(HEAD, *slot)),
        Key::Page(slot, index) => (Space::State, numbered(PAGE, *slot, *index)),
        Key::Local(slot, record) => (Space::State, [&slotted(LOCAL, *slot), record.as_slice()].concat()),
        Key::Node(slot, index) => (Space::Tree, numbered(NODE, *slot, Row::number(*index))),
        Key::Block(slot, index) => (Space::Blocks, numbered(BLOCK, *slot, Row::number(*index))),
    }
}

fn slotted(kind: u8, slot: Slot) -> Vec<u8> {
    // With room for a number.
    let mut key = Vec::with_capacity(17);
    key.push(kind);
    key.extend_from_slice(&slot.0.to_be_bytes());
    key
}

/// The key of number `number` among those of `kind` and `slot`.
fn numbered(kind: u8, slot: Slot, number: u64) -> Vec<u8> {
    let mut key = slotted(kind, slot);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// What a span is in the database.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Stored keys from the first to before the last, to be deleted as they are.
    pub(super) keys: Vec<(Space, Range<Vec<u8>>)>,
    /// Single cells of rows that keep others.
    pub(super) cells: Vec<Key>,
}

impl Parts {
    pub(super) fn of(span: &Span) -> Self {
        match span {
            Span::Pages(slot, range) => {
                let range = range.start..range.end.max(range.start);
                let keys = numbered(PAGE, *slot, range.start)..numbered(PAGE, *slot, range.end);
                Self { keys: vec![(Space::State, keys)], cells: vec![] }
            }
            Span::Nodes(slot, range) => Self::rows(NODE, *slot, range, |index| Key::Node(*slot, index)),
            Span::Blocks(slot, range) => Self::rows(BLOCK, *slot, range, |index| Key::Block(*slot, index)),
            Span::Feed(slot) => {
                let all = |space, kind| (space, slotted(kind, *slot)..last(&slotted(kind, *slot)));
                let state = [HEAD, PAGE, LOCAL].map(|kind| all(Space::State, kind));
                let rows = [NODE, BLOCK].map(|kind| all(space_of_rows(kind), kind));
                Self { keys: state.into_iter().chain(rows).collect(), cells: vec![] }
            }
        }
    }

    /// Whole rows as keys, and the cells of those that are cut at either end.
    fn rows(kind: u8, slot: Slot, range: &Range<u64>, key: impl Fn(u64) -> Key) -> Self {
        const ROW: u64 = CELLS as u64;
        if range.is_empty() {
            return Self::default();
        }
        let (first, end) = (range.start.div_ceil(ROW), range.end / ROW);
        if first > end {
            // All in one row.
            return Self { keys: vec![], cells: range.clone().map(key).collect() };
        }
        let head = range.start..first.saturating_mul(ROW).min(range.end);
        // What reaches to the largest number there is has no end of its own.
        let is_all = range.end == u64::MAX;
        let tail = if is_all { 0..0 } else { end.saturating_mul(ROW)..range.end };
        let after_last = if is_all { last(&slotted(kind, slot)) } else { numbered(kind, slot, end) };
        let rows = numbered(kind, slot, first)..after_last;
        Self { keys: vec![(space_of_rows(kind), rows)], cells: head.chain(tail).map(key).collect() }
    }
}

/// The first key after those that start with `prefix`.
fn last(prefix: &[u8]) -> Vec<u8> {
    let mut next = prefix.to_vec();
    while let Some(byte) = next.pop() {
        if let Some(byte) = byte.checked_add(1) {
            next.push(byte);
            return next;
        }
    }
    after(&[u8::MAX; 32])
}

/// Which row `key` is in, if it is of a kind that lies in rows.
pub(super) fn row(key: &Key) -> Option<(u8, Slot, u64)> {
    match key {
        Key::Node(slot, index) => Some((NODE, *slot, Row::number(*index))),
        Key::Block(slot, index) => Some((BLOCK, *slot, Row::number(*index))),
        _ => None,
    }
}

/// The keyspace of the rows of `kind`.
pub(super) fn space_of_rows(kind: u8) -> Space {
    if kind == BLOCK { Space::Blocks } else { Space::Tree }
}

/// The key of a row.
pub(super) fn row_key(kind: u8, slot: Slot, row: u64) -> [u8; 17] {
    let mut key = [kind; 17];
    key[1..9].copy_from_slice(&slot.0.to_be_bytes());
    key[9..].copy_from_slice(&row.to_be_bytes());
    key
}

/// Which row a stored key is of, if it is of one.
pub(super) fn row_of_key(space: Space, key: &[u8]) -> Option<(u8, Slot, u64)> {
    let (kind, rest) = key.split_first()?;
    let (slot, rest) = rest.split_first_chunk()?;
    let row = rest.first_chunk()?;
    let is_row = matches!(*kind, NODE | BLOCK) && space == space_of_rows(*kind);
    is_row.then(|| (*kind, Slot(u64::from_be_bytes(*slot)), u64::from_be_bytes(*row)))
}

pub(super) fn decode_row(bytes: &[u8]) -> Result<Row<'_>, StorageError> {
    Row::decode(bytes).map_err(|_| super::damaged("a row of nodes or blocks"))
}

/// The row `stored` after `writes`, all of which are in it. What was apart and is named no more comes to
/// `freed`.
pub(super) fn update_row<'a>(
    stored: &'a [u8],
    writes: &'a [Change],
    places: &mut impl Iterator<Item = Place>,
    freed: &mut Vec<Place>,
) -> Result<Row<'a>, StorageError> {
    let mut row = decode_row(stored)?;
    for write in writes {
        match write {
            (Key::Node(_, index), value) => row.set(*index, value.as_ref().map(|it| Cow::Borrowed(&it[..]))),
            (Key::Block(_, index), value) => {
                freed.extend(row.get(*index).map(place).transpose()?.flatten());
                let value = value.as_ref().map(|block| {
                    let place = kept_apart(write).and_then(|_| places.next());
                    Cow::Owned(encode_block(block, place))
                });
                row.set(*index, value);
            }
            _ => {}
        }
    }
    Ok(row)
}

/// The places that a stored row of blocks names.
pub(super) fn places(stored: &[u8]) -> Result<Vec<Place>, StorageError> {
    let row = decode_row(stored)?;
    let cells = (0..CELLS as u64).filter_map(|index| row.get(index));
    cells.filter_map(|cell| place(cell).transpose()).collect()
}

/// Where a stored block is, if it is apart.
fn place(cell: &[u8]) -> Result<Option<Place>, StorageError> {
    match cell.split_first() {
        Some((&INLINE, _)) => Ok(None),
        Some((&APART, place)) => Place::decode(place).map(Some).map_err(|_| damaged_place()),
        _ => Err(damaged_place()),
    }
}

/// What is stored under a key that lies in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Value(Bytes),
    /// A block that is in a file.
    Apart(Place),
}

/// Hands what the row `stored` has under each of `keys` to `found`, with the number that came with the key.
pub(super) fn decode_cells<'k>(
    stored: &Bytes,
    keys: impl Iterator<Item = (usize, &'k Key)>,
    mut found: impl FnMut(usize, Cell),
) -> Result<(), StorageError> {
    let row = Stored::decode(stored).map_err(|_| super::damaged("a row of nodes or blocks"))?;
    for (n, key) in keys {
        match *key {
            Key::Node(_, index) => {
                if let Some(cell) = row.get(index) {
                    found(n, Cell::Value(stored.slice_ref(cell)));
                }
            }
            Key::Block(_, index) => {
                let Some(cell) = row.get(index) else { continue };
                found(
                    n,
                    match place(cell)? {
                        Some(place) => Cell::Apart(place),
                        // A copy, as a slice that somebody keeps would keep its neighbours.
                        None => Cell::Value(Bytes::copy_from_slice(cell.get(1..).unwrap_or_default())),
                    },
                );
            }
            _ => {}
        }
    }
    Ok(())
}

fn damaged_place() -> StorageError {
    super::damaged("the place of a block")
}

/// The block that `write` puts into the block files.
pub(super) fn kept_apart((key, value): &Change) -> Option<&Bytes> {
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

/// A piece of a block file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Piece {
    pub(super) file: u32,
    pub(super) bytes: Range64,
}

/// The first and the last but one byte of a [`Piece`]. A range that can be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range64 {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Piece {
    pub(super) fn new(file: u32, start: u64, end: u64) -> Self {
        Self { file, bytes: Range64 { start, end } }
    }

    /// The key under which it is free.
    pub(super) fn free_key(file: u32, start: u64) -> Vec<u8> {
        [&[FREE][..], &file.to_be_bytes(), &start.to_be_bytes()].concat()
    }

    /// The key under which it waits to be given back, after the commit that freed it.
    pub(super) fn hole_key(&self, commit: u64) -> Vec<u8> {
        [&[HOLE][..], &commit.to_be_bytes(), &self.file.to_be_bytes(), &self.bytes.start.to_be_bytes()]
            .concat()
    }

    /// The value under either key.
    pub(super) fn value(&self) -> Vec<u8> {
        let mut out = vec![];
        out.put_uint(self.bytes.end);
        out
    }

    /// Reads what is stored under the end of a key and its value.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, StorageError> {
        let read = || -> Result<Self, DecodeError> {
            let tail: &[u8; 12] = key.last_chunk().ok_or(DecodeError::UnexpectedEnd)?;
            let mut reader = Reader::new(tail);
            let file = u32::from_be_bytes(reader.array()?);
            let start = u64::from_be_bytes(reader.array()?);
            Ok(Self::new(file, start, Reader::new(value).uint()?))
        };
        read().map_err(|_| super::damaged("the list of free space"))
    }
}

/// The commit in a key that [`Piece::hole_key`] made.
pub(super) fn commit_of(key: &[u8]) -> Option<u64> {
    key.get(1..)?.first_chunk().map(|commit| u64::from_be_bytes(*commit))
}

/// Refuses what fjall would panic over: a key that is too long.
pub(in super::super) fn check(writes: &[Write]) -> Result<(), StorageError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a span covers by its parts, of the cells 0..100 of a slot and its neighbours.
    fn covered(span: &Span, key: impl Fn(Slot, u64) -> Key) -> Vec<(u64, u64)> {
        let parts = Parts::of(span);
        let is_covered = |key: &Key| {
            let (space, encoded) = locate(key);
            parts.cells.contains(key)
                || parts.keys.iter().any(|(it, keys)| *it == space && keys.contains(&encoded))
        };
        let all = (0..3).flat_map(|slot| (0..100).map(move |index| (slot, index)));
        all.filter(|(slot, index)| is_covered(&key(Slot(*slot), *index))).collect()
    }

    #[test]
    fn a_span_is_whole_rows_and_the_cells_at_its_ends() {
        for (start, end) in
            [(0, 0), (0, 1), (3, 9), (3, 16), (16, 32), (15, 33), (5, 99), (5, u64::MAX), (9, 4)]
        {
            let expected: Vec<_> = (start..end.min(100)).map(|index| (1, index)).collect();
            for span in [Span::Blocks(Slot(1), start..end), Span::Nodes(Slot(1), start..end)] {
                let key = |slot, index| match span {
                    Span::Nodes(..) => Key::Node(slot, index),
                    _ => Key::Block(slot, index),
                };
                assert_eq!(covered(&span, key), expected, "{start}..{end}");
            }
            let pages = covered(&Span::Pages(Slot(1), start..end), Key::Page);
            assert_eq!(pages, expected, "{start}..{end}");
        }
        let huge = Parts::of(&Span::Blocks(Slot(u64::MAX), 0..u64::MAX));
        let (_, last) = locate(&Key::Block(Slot(u64::MAX), u64::MAX - 1));
        assert!(huge.keys[0].1.contains(&last));
    }

    #[test]
    fn a_feed_is_all_that_is_under_its_slot() {
        let of = |slot: u64| {
            let slot = Slot(slot);
            [
                Key::Head(slot),
                Key::Page(slot, u64::MAX),
                Key::Node(slot, u64::MAX),
                Key::Block(slot, 0),
                Key::Local(slot, vec![255; 40]),
                Key::Local(slot, vec![]),
            ]
        };
        for slot in [1, 255, u64::MAX] {
            let parts = Parts::of(&Span::Feed(Slot(slot)));
            for other in [0, 1, 2, 255, 256, u64::MAX] {
                for key in of(other) {
                    let (space, encoded) = locate(&key);
                    let is_in = parts.keys.iter().any(|(it, keys)| *it == space && keys.contains(&encoded));
                    assert_eq!(is_in, slot == other, "{key:?} in {slot}");
                }
            }
        }
    }

    #[test]
    fn a_count_and_a_piece_come_back() {
        let count = Count { commits: 9, blocks: End { file: 2, offset: 1 << 40 }, writer: u64::MAX };
        assert_eq!(Count::decode(&count.encode()), Some(count));
        assert_eq!(commits_of(&count.encode()), Some(9));
        let piece = Piece::new(3, 1 << 33, (1 << 33) + 5);
        let key = piece.hole_key(77);
        assert_eq!(Piece::decode(&key, &piece.value()).unwrap(), piece);
        assert_eq!(commit_of(&key), Some(77));
        assert_eq!(Piece::decode(&Piece::free_key(3, 1 << 33), &piece.value()).unwrap(), piece);
    }
}
