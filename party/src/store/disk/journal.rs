//! A look at fjall's journal before fjall takes one.
//!
//! fjall reads its journal up to the first thing that is not a batch, and cuts off the rest. That is right for
//! a batch that was being written when the process died, and wrong for damage, which would take
//! acknowledged commits along. We read it first, without changing anything: if fewer commits are readable
//! than there must be, that is damage, and stays as it is; if not, whatever comes after the last whole batch
//! was never acknowledged, and is cut off here.
//!
//! The layout, from fjall 3's `journal/entry.rs`, integers little-endian: a batch is `1`, number of items (4), sequence
//! number (8); then for each item `2`, its type (1), compression (1), keyspace (8), lengths of key (2), value
//! (4) and stored value (4), key, value, or `4` and a keyspace (8); then `3`, XXH3 of the items (8), `FJL` and
//! the byte 3. A new journal is 64 MiB of zeros.
//!
//! The section is `protocol-spec/09-storage.md#durability`.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3;

use super::database::{COUNT, commits_of};
use crate::error::StorageError;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8] = b"FJL\x03";

/// The extension of a journal that was set aside.
const TORN: &str = "torn";
/// From how many bytes on a journal is emptied when the database is closed.
const LONG: u64 = 1 << 20;
/// What is read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Looks through the journals of the database at `folder`, which must have `least` commits.
///
/// With `most`, also cuts off commits beyond that number: they were reported as failed, though the
/// operating system may have got them after all.
//= STORE-20
pub(super) fn check(folder: &Path, least: u64, most: Option<u64>) -> Result<(), StorageError> {
    let journals = journals(folder)?;
    let scans = journals.iter().map(|journal| scan(journal, most)).collect::<Result<Vec<_>, _>>()?;
    let mut last = None;
    for (n, (journal, scan)) in journals.iter().zip(&scans).enumerate() {
        last = scan.last.or(last);
        let next = scans.iter().skip(n + 1).find_map(|scan| scan.first);
        let lost = match (scan.rest, last, next) {
            (Rest::Nothing, ..) => continue,
            (Rest::TooMany, ..) => 0,
            // A write that failed in the middle, and went on in the next journal.
            (Rest::NoBatch, _, Some(next)) => next.saturating_sub(last.unwrap_or(0).saturating_add(1)),
            (Rest::NoBatch, Some(last), None) => least.saturating_sub(last),
            (Rest::NoBatch, None, None) if least == 0 => 0,
            // What went before may all be in tables, or be what is damaged here. What is found when the
            // database is open tells; until then, nothing may be lost.
            (Rest::NoBatch, None, None) => {
                fs::copy(journal, journal.with_extension(TORN))?;
                0
            }
        };
        if lost > 0 {
            let (path, whole) = (journal.display(), scan.whole);
            let what = format!("{path}: not what was written at byte {whole}, and {lost} commits are lost");
            return Err(StorageError::Damaged { what });
        }
        let file = File::options().write(true).open(journal)?;
        file.set_len(scan.whole)?;
        file.sync_all()?;
    }
    Ok(())
}

/// Whether reading the journals of the database at `folder` again takes longer than writing tables once.
pub(super) fn is_long(folder: &Path) -> bool {
    // A new journal is a long file with nothing in it.
    #[cfg(unix)]
    let written = |file: fs::Metadata| std::os::unix::fs::MetadataExt::blocks(&file).saturating_mul(512);
    #[cfg(not(unix))]
    let written = |file: fs::Metadata| file.len();
    let journals = journals(folder).unwrap_or_default();
    let written = journals.iter().filter_map(|journal| fs::metadata(journal).ok()).map(written);
    written.fold(0, u64::saturating_add) > LONG
}

/// Takes everything out of the journals of the database at `folder`, which is closed and has all of it in
/// tables: reading them again is what opening it would take longest for.
pub(super) fn empty(folder: &Path) -> Result<(), StorageError> {
    for journal in journals(folder)? {
        File::options().write(true).open(journal)?.set_len(0)?;
    }
    Ok(())
}

/// Forgets what [`check`] has set aside, as nothing is missing.
pub(super) fn forget_torn(folder: &Path) -> Result<(), StorageError> {
    for entry in super::database::list(folder)? {
        if entry.path().extension().is_some_and(|it| it == TORN) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The journals, oldest first. Of names that fjall would trip over, the first is named.
fn journals(folder: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let mut journals = vec![];
    for entry in super::database::list(folder)? {
        let path = entry.path();
        if path.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("jnl")) {
            continue;
        }
        let number =
            path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse::<u64>().ok());
        match number.filter(|_| path.is_file()) {
            Some(number) => journals.push((number, path)),
            None => {
                let what = format!("{} is no journal", path.display());
                return Err(StorageError::Damaged { what });
            }
        }
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

/// What comes after the last whole batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// The end of the file, or room that was never written to.
    Nothing,
    /// Something else.
    NoBatch,
    /// A batch that is cut off on purpose.
    TooMany,
}

struct Scan {
    /// How many commits there were after the first whole batch.
    first: Option<u64>,
    /// And after the last.
    last: Option<u64>,
    /// Where the last whole batch ends.
    whole: u64,
    rest: Rest,
}

fn scan(path: &Path, most: Option<u64>) -> Result<Scan, StorageError> {
    let file = File::open(path)?;
    let left = file.metadata()?.len();
    let mut source = Source { reader: BufReader::with_capacity(BUFFER_BYTES, file), at: 0, left };
    let mut scan = Scan { first: None, last: None, whole: 0, rest: Rest::Nothing };
    let mut buffer = vec![];
    loop {
        scan.rest = match source.batch(&mut buffer) {
            Ok(Some(commits)) if most.is_some_and(|most| commits.is_some_and(|it| it > most)) => {
                return Ok(Scan { rest: Rest::TooMany, ..scan });
            }
            Ok(Some(commits)) => {
                scan.first = scan.first.or(commits);
                scan.last = commits.or(scan.last);
                scan.whole = source.at;
                continue;
            }
            Ok(None) => Rest::Nothing,
            Err(Stop::NoBatch) => Rest::NoBatch,
            Err(Stop::Io(error)) => return Err(error.into()),
        };
        return Ok(scan);
    }
}

enum Stop {
    NoBatch,
    Io(io::Error),
}

struct Source {
    reader: BufReader<File>,
    at: u64,
    left: u64,
}

impl Source {
    /// Reads a batch, and which number of commits it brings. `None` where nothing was written any more.
    fn batch(&mut self, item: &mut Vec<u8>) -> Result<Option<Option<u64>>, Stop> {
        if self.left == 0 {
            return Ok(None);
        }
        match self.array()? {
            [START] => {}
            // Only as far as a batch could begin: the rest is fjall's to look at.
            [0] => {
                return if self.array::<12>().is_ok_and(|next| next == [0; 12]) {
                    Ok(None)
                } else {
                    Err(Stop::NoBatch)
                };
            }
            [_] => return Err(Stop::NoBatch),
        }
        let items = u32::from_le_bytes(self.array()?);
        let _sequence_number: [u8; 8] = self.array()?;
        let mut hash = Xxh3::new();
        let mut commits = None;
        for _ in 0..items {
            item.clear();
            match self.array()? {
                [ITEM] => {
                    let head: [u8; 20] = self.array()?;
                    let [.., k0, k1, v0, v1, v2, v3, s0, s1, s2, s3] = head;
                    let key_len = usize::from(u16::from_le_bytes([k0, k1]));
                    let value_len = u32::from_le_bytes([v0, v1, v2, v3]);
                    if u32::from_le_bytes([s0, s1, s2, s3]) != value_len {
                        return Err(Stop::NoBatch);
                    }
                    item.push(ITEM);
                    item.extend_from_slice(&head);
                    self.bytes(u64::from(value_len).saturating_add(key_len as u64), item)?;
                    let (key, value) =
                        item.get(21..).and_then(|it| it.split_at_checked(key_len)).unwrap_or_default();
                    if key == [COUNT] {
                        commits = commits_of(value);
                    }
                }
                [CLEAR] => {
                    item.push(CLEAR);
                    self.bytes(8, item)?;
                }
                _ => return Err(Stop::NoBatch),
            }
            hash.update(item);
        }
        let [tag] = self.array()?;
        let checksum: [u8; 8] = self.array()?;
        let trailer: [u8; 4] = self.array()?;
        if tag != END || trailer != *TRAILER || hash.digest().to_le_bytes() != checksum {
            return Err(Stop::NoBatch);
        }
        Ok(Some(commits))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut bytes = [0; N];
        self.take(N as u64)?;
        self.reader.read_exact(&mut bytes).map_err(Stop::Io)?;
        Ok(bytes)
    }

    /// Adds `len` bytes to `out`, if the file has as many.
    fn bytes(&mut self, len: u64, out: &mut Vec<u8>) -> Result<(), Stop> {
        self.take(len)?;
        let read = self.reader.by_ref().take(len).read_to_end(out).map_err(Stop::Io)?;
        if read as u64 == len { Ok(()) } else { Err(Stop::NoBatch) }
    }

    fn take(&mut self, len: u64) -> Result<(), Stop> {
        self.left = self.left.checked_sub(len).ok_or(Stop::NoBatch)?;
        self.at = self.at.saturating_add(len);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A batch as fjall writes it, which brings the store to `commits`.
    fn batch(commits: u64) -> Vec<u8> {
        let item = [
            &[ITEM, 0, 0][..],
            &1_u64.to_le_bytes(),
            &1_u16.to_le_bytes(),
            &8_u32.to_le_bytes(),
            &8_u32.to_le_bytes(),
            &[COUNT],
            &commits.to_be_bytes(),
        ]
        .concat();
        let mut hash = Xxh3::new();
        hash.update(&item);
        let start = [&[START][..], &1_u32.to_le_bytes(), &commits.to_le_bytes()].concat();
        [&start, &item, &[END][..], &hash.digest().to_le_bytes(), TRAILER].concat()
    }

    fn batches(commits: std::ops::RangeInclusive<u64>) -> Vec<u8> {
        commits.flat_map(batch).collect()
    }

    fn check_of(journals: &[&[u8]], least: u64, most: Option<u64>) -> (Result<(), StorageError>, Vec<usize>) {
        let dir = tempfile::tempdir().unwrap();
        let path = |n: usize| dir.path().join(format!("{n}.jnl"));
        for (n, bytes) in journals.iter().enumerate() {
            fs::write(path(n), bytes).unwrap();
        }
        let result = check(dir.path(), least, most);
        (result, (0..journals.len()).map(|n| fs::read(path(n)).unwrap().len()).collect())
    }

    //= STORE-20
    #[test]
    fn a_torn_end_is_cut_if_nothing_is_missing_and_left_alone_otherwise() {
        let whole = batches(1..=4);
        let torn = [&whole[..], &batch(5)[..20]].concat();
        for (least, expected) in [(0, Ok(whole.len())), (4, Ok(whole.len())), (5, Err(torn.len()))] {
            let (result, lens) = check_of(&[&torn], least, None);
            assert_eq!(result.map(|()| lens[0]).map_err(|_| lens[0]), expected, "{least}");
        }
        // What is not missing is not looked for.
        let (result, lens) = check_of(&[&[whole.as_slice(), &[0; 500]].concat()], 4, None);
        assert_eq!((result.is_ok(), lens[0]), (true, whole.len() + 500));
    }

    #[test]
    fn a_journal_that_is_followed_by_another_is_whole_or_goes_on_there() {
        let torn = [&batches(1..=4)[..], &batch(5)[..20]].concat();
        for (next, expected) in [(batches(5..=7), true), (batches(6..=7), false)] {
            let (result, _) = check_of(&[&torn, &next], 7, None);
            assert_eq!(result.is_ok(), expected, "{result:?}");
        }
    }

    #[test]
    fn commits_that_were_reported_as_failed_are_cut_off() {
        let (result, lens) = check_of(&[&batches(1..=4), &batches(5..=7)], 5, Some(5));
        assert!(result.is_ok());
        assert_eq!(lens, [batches(1..=4).len(), batch(5).len()]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_journal_or_damage(
            bytes in proptest::collection::vec(prop_oneof![0..5_u8, any::<u8>()], 0..200),
            least in 0..3_u64,
        ) {
            let (result, _) = check_of(&[&bytes], least, None);
            prop_assert!(matches!(result, Ok(()) | Err(StorageError::Damaged { .. })), "{result:?}");
        }
    }
}
