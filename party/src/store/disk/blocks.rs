//! The blocks themselves, in files that are only appended to.
//!
//! A block never changes, so it needs no place in a tree that is sorted again and again: it is written once,
//! and the database keeps where. Bytes are handed to the operating system before the commit that names them
//! is, so whatever is named is there after the process was killed; what was written for a commit that never
//! came stays behind as waste, at most one batch of it.
//!
//! Space is not reclaimed yet when a block is deleted.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    encoding::{Reader, Writer},
    error::{DecodeError, StorageError},
};

/// How large a file gets: large enough that a big store has few, small enough to be copied and backed up.
const FILE_BYTES: u64 = 1 << 30;
/// Files kept open for reading.
const MAX_OPEN_FILES: usize = 64;
/// Blocks shorter than this are gathered before they are written.
const GATHER_BYTES: usize = 64 << 10;

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    file: u32,
    offset: u64,
    len: u32,
    checksum: u64,
}

impl Place {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_uint(self.file.into());
        out.put_uint(self.offset);
        out.put_uint(self.len.into());
        out.put_bytes(&self.checksum.to_le_bytes());
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            file: u32::try_from(reader.uint()?).map_err(|_| DecodeError::Invalid("place"))?,
            offset: reader.uint()?,
            len: u32::try_from(reader.uint()?).map_err(|_| DecodeError::Invalid("place"))?,
            checksum: u64::from_le_bytes(reader.array()?),
        })
    }
}

/// How far the files go: what a later opening has to find at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    pub(super) file: u32,
    pub(super) offset: u64,
}

/// The files of one store. Appending is for one thread, reading for many.
#[derive(Debug)]
pub(super) struct BlockFiles {
    folder: PathBuf,
    /// A file takes no further batch once it has this many bytes.
    file_bytes: u64,
    tail: Mutex<Option<Tail>>,
    open: Mutex<BTreeMap<u32, Arc<File>>>,
}

#[derive(Debug)]
struct Tail {
    file: File,
    end: End,
}

impl BlockFiles {
    /// The files in `folder`, which reach to `least` at least; `None` makes the folder.
    pub(super) fn open(folder: &Path, least: Option<End>) -> Result<Self, StorageError> {
        if least.is_none() {
            fs::create_dir_all(folder)?;
        }
        let files = Self {
            folder: folder.to_owned(),
            file_bytes: FILE_BYTES,
            tail: Mutex::new(None),
            open: Mutex::default(),
        };
        let found = files.find_end()?;
        match least {
            Some(least) if found < least => Err(StorageError::Damaged {
                what: format!("{} ends before byte {}", files.path(least.file).display(), least.offset),
            }),
            _ => Ok(files),
        }
    }

    /// Hands `blocks` to the operating system, and says where each of them is.
    pub(super) fn append(&self, blocks: &[Bytes]) -> Result<Vec<Place>, StorageError> {
        let total: usize = blocks.iter().map(Bytes::len).sum();
        if blocks.is_empty() {
            return Ok(vec![]);
        }
        let mut slot = lock(&self.tail);
        // Taken out while it is written to: after an error the end is looked up again.
        let mut tail = match slot.take() {
            Some(tail) if tail.end.offset < self.file_bytes => tail,
            Some(tail) => self.next_file(tail)?,
            None => self.last_file()?,
        };
        let mut places = Vec::with_capacity(blocks.len());
        let mut out = BufWriter::with_capacity(total.min(GATHER_BYTES), &tail.file);
        for block in blocks {
            let len = u32::try_from(block.len())
                .map_err(|_| StorageError::Database(format!("a block of {} bytes", block.len())))?;
            out.write_all(block)?;
            places.push(Place {
                file: tail.end.file,
                offset: tail.end.offset,
                len,
                checksum: xxh3_64(block),
            });
            tail.end.offset = tail.end.offset.saturating_add(len.into());
        }
        out.flush()?;
        drop(out);
        *slot = Some(tail);
        Ok(places)
    }

    /// The block at `place`.
    pub(super) fn read(&self, place: Place) -> Result<Bytes, StorageError> {
        let damaged = |how: &dyn std::fmt::Display| StorageError::Damaged {
            what: format!("the block at byte {} of {}: {how}", place.offset, self.path(place.file).display()),
        };
        let mut block = vec![0; place.len as usize];
        match self.file(place.file).and_then(|file| read_at(&file, &mut block, place.offset)) {
            Ok(()) if xxh3_64(&block) == place.checksum => Ok(block.into()),
            Ok(()) => Err(damaged(&"not what was written")),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
                Err(damaged(&error))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes what was appended survive a power loss, and says how far it goes.
    pub(super) fn sync(&self) -> Result<End, StorageError> {
        let end = self.find_end()?;
        if end.offset > 0 {
            File::options().append(true).open(self.path(end.file))?.sync_data()?;
        }
        Ok(end)
    }

    fn last_file(&self) -> Result<Tail, StorageError> {
        let End { file, .. } = self.find_end()?;
        self.append_to(file.max(1))
    }

    fn next_file(&self, full: Tail) -> Result<Tail, StorageError> {
        // Only the last file is synced when the store is closed.
        full.file.sync_data()?;
        let number = full.end.file.checked_add(1);
        self.append_to(number.ok_or_else(|| StorageError::Database("no block file is left".into()))?)
    }

    fn append_to(&self, number: u32) -> Result<Tail, StorageError> {
        let file = File::options().create(true).append(true).open(self.path(number))?;
        let offset = file.metadata()?.len();
        Ok(Tail { file, end: End { file: number, offset } })
    }

    /// The end of the last file.
    fn find_end(&self) -> Result<End, StorageError> {
        let damaged = |error| StorageError::Damaged { what: format!("{}: {error}", self.folder.display()) };
        let mut last = None;
        for entry in fs::read_dir(&self.folder).map_err(damaged)? {
            let number = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            last = last.max(number);
        }
        match last {
            Some(file) => Ok(End { file, offset: fs::metadata(self.path(file))?.len() }),
            None => Ok(End::default()),
        }
    }

    fn file(&self, number: u32) -> io::Result<Arc<File>> {
        let mut open = lock(&self.open);
        if let Some(file) = open.get(&number) {
            return Ok(file.clone());
        }
        let file = Arc::new(File::open(self.path(number))?);
        if open.len() >= MAX_OPEN_FILES {
            open.clear();
        }
        open.insert(number, file.clone());
        Ok(file)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{number:010}"))
    }
}

/// What is locked here is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(not(unix))]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    // Two readers share the cursor of one file.
    static CURSOR: Mutex<()> = Mutex::new(());
    let _one_at_a_time = lock(&CURSOR);
    let mut file = file;
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(n: u8) -> Vec<Bytes> {
        [1, 100, 70_000].map(|len| Bytes::from(vec![n; len])).to_vec()
    }

    #[test]
    fn files_are_begun_as_they_fill_and_all_stay_readable() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = vec![];
        for n in 0..10 {
            let least = (n > 0).then(End::default);
            let files = BlockFiles { file_bytes: 100_000, ..BlockFiles::open(dir.path(), least).unwrap() };
            kept.extend(files.append(&blocks(n)).unwrap().into_iter().zip(blocks(n)));
            kept.extend(files.append(&blocks(n)).unwrap().into_iter().zip(blocks(n)));
        }
        let files = BlockFiles::open(dir.path(), Some(End::default())).unwrap();
        for (place, block) in &kept {
            assert_eq!(files.read(*place).unwrap(), block);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 10);
    }

    #[test]
    fn what_a_killed_process_left_behind_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let files = BlockFiles::open(dir.path(), None).unwrap();
        let first = files.append(&blocks(1)).unwrap()[2];
        let mut leftover = File::options().append(true).open(files.path(1)).unwrap();
        leftover.write_all(b"half a blo").unwrap();
        let files = BlockFiles::open(dir.path(), files.sync().ok()).unwrap();
        let second = files.append(&blocks(2)).unwrap()[2];
        assert_eq!(files.read(first).unwrap(), blocks(1)[2]);
        assert_eq!(files.read(second).unwrap(), blocks(2)[2]);
    }

    #[test]
    fn a_file_that_was_cut_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let files = BlockFiles::open(dir.path(), None).unwrap();
        let place = files.append(&blocks(1)).unwrap()[2];
        let end = files.sync().unwrap();
        File::options().write(true).open(files.path(1)).unwrap().set_len(end.offset - 1).unwrap();
        assert!(
            matches!(files.read(place), Err(StorageError::Damaged { what }) if what.contains("0000000001"))
        );
        let refused = BlockFiles::open(dir.path(), Some(end)).unwrap_err();
        assert!(matches!(refused, StorageError::Damaged { what } if what.contains("0000000001")));
    }

    #[test]
    fn a_place_comes_back() {
        let place = Place { file: 3, offset: 1 << 40, len: 70_000, checksum: u64::MAX };
        let mut out = vec![];
        place.encode(&mut out);
        assert_eq!(Place::decode(&out), Ok(place));
        assert!(Place::decode(&out[1..]).is_err());
    }
}
