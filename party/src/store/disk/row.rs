//! Several neighbouring nodes or blocks under one key.
//!
//! A batch of appends touches hundreds of neighbours of some 40 bytes. One entry of the database for each
//! would take more in keys and headers than in values, and the journal is replayed entry by entry when the
//! store is opened, at about a microsecond each.
//!
//! The section is `protocol-spec/09-storage.md#keys`.

use std::borrow::Cow;

use crate::{
    encoding::{Reader, Writer},
    error::DecodeError,
};

/// Neighbours in one row. More would make batches a little cheaper, and single appends, which write a row
/// again, dearer; 32 opened no faster.
pub(super) const CELLS: usize = 16;

/// The values of the indexes `CELLS * n` up to `CELLS * (n + 1)`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Row<'a> {
    cells: [Option<Cow<'a, [u8]>>; CELLS],
}

impl<'a> Row<'a> {
    /// The number of the row that `index` is in.
    pub(super) fn number(index: u64) -> u64 {
        index / CELLS as u64
    }

    pub(super) fn get(&self, index: u64) -> Option<&[u8]> {
        self.cells.get(cell(index))?.as_deref()
    }

    pub(super) fn set(&mut self, index: u64, value: Option<Cow<'a, [u8]>>) {
        if let Some(cell) = self.cells.get_mut(cell(index)) {
            *cell = value;
        }
    }

    /// Its bytes; `None` if it is empty.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        // A cell has a number and, before its value, how long that is.
        let cell = |value: &Cow<'_, [u8]>| value.len() + if value.len() < 253 { 2 } else { 6 };
        let mut out = Vec::with_capacity(self.cells.iter().flatten().map(cell).sum());
        for (number, value) in self.cells.iter().enumerate() {
            if let Some(value) = value {
                out.put_uint(number as u64);
                out.put_buffer(value);
            }
        }
        (!out.is_empty()).then_some(out)
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut row = Self::default();
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let number = reader.uint()?;
            if number >= CELLS as u64 {
                return Err(DecodeError::Invalid("row"));
            }
            row.set(number, Some(Cow::Borrowed(reader.buffer()?)));
        }
        Ok(row)
    }
}

fn cell(index: u64) -> usize {
    (index % CELLS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back_and_an_empty_one_is_nothing() {
        let mut row = Row::default();
        assert_eq!(row.encode(), None);
        row.set(32, Some(Cow::Borrowed(b"first")));
        row.set(47, Some(Cow::Borrowed(b"")));
        let bytes = row.encode().unwrap();
        assert_eq!(Row::decode(&bytes), Ok(row));
        let mut row = Row::decode(&bytes).unwrap();
        assert_eq!((row.get(32), row.get(33), row.get(47)), (Some(&b"first"[..]), None, Some(&b""[..])));
        row.set(32, None);
        row.set(47, None);
        assert_eq!(row.encode(), None);
    }

    #[test]
    fn bytes_that_are_no_row_are_refused() {
        assert!(Row::decode(&[CELLS as u8, 0]).is_err());
        assert!(Row::decode(&[0, 5, 1]).is_err());
    }
}
