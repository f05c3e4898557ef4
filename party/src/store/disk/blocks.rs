//! The blocks themselves, in files that are only appended to.
//!
//! A block never changes, so it needs no place in a tree that is sorted again and again: it is written once,
//! and the database keeps where. Bytes are handed to the operating system before the commit that names them
//! is, so whatever is named is there after the process was killed; what was written for a commit that never
//! came stays behind as waste, at most one batch of it.
//!
//! A block that is deleted leaves a hole: its space goes back to the file system, its place is not used
//! again. Where holes can't be made, space comes back when nothing in a file is left, with the file.
//!
//! The section is `protocol-spec/09-storage.md#block-files`.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::folder::sync_folder;
use crate::{
    buffers::Buffers,
    encoding::{Reader, Writer},
    error::{DecodeError, StorageError},
};

/// How large a file gets: large enough that a big store has few, small enough to be copied and backed up.
const FILE_BYTES: u64 = 1 << 30;
/// Files kept open for reading.
const MAX_OPEN_FILES: usize = 64;
/// Blocks shorter than this are gathered before they are written.
const GATHER_BYTES: usize = 64 << 10;
/// Blocks that lie together are read together up to about this many bytes. They share their memory then, so who
/// keeps one of them keeps no more than that.
const TOGETHER_BYTES: usize = 64 << 10;

/// Bytes that were appended last and stay in memory. Who follows a feed asks for what was appended just now, and to
/// change to a thread that reads takes longer than all else about it.
const RECENT_BYTES: usize = 256 << 10;
/// What was appended at once stays in memory up to this many bytes: more than that is not waited for block by block.
const MAX_RECENT: usize = 32 << 10;
/// What a piece in memory takes beside its bytes, about.
const RECENT_OVERHEAD: usize = 64;

/// Pieces that are read at once and have at least this many bytes are read into memory that is used again, of which
/// this much is kept.
const KEPT_FROM: usize = 16 << 10;
const KEPT_BYTES: usize = 4 << 20;

const NOT_WRITTEN: &str = "not what was written";

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: u32,
    pub(super) offset: u64,
    pub(super) len: u32,
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
    tail: Mutex<Tail>,
    open: Mutex<BTreeMap<u32, Arc<File>>>,
    recent: Mutex<Recent>,
    buffers: Mutex<Buffers>,
}

/// The last small pieces that were appended, the newest at the end. What is there is never written to again, so they
/// are what the files hold.
#[derive(Debug, Default)]
struct Recent {
    pieces: VecDeque<(End, Bytes)>,
    bytes: usize,
}

/// What is appended to.
#[derive(Debug, Default)]
struct Tail {
    file: Option<(File, End)>,
    /// The first file that may be appended to: those before it have lost their ends, and what is named there
    /// must not be found in their place.
    least: u32,
    /// Whether something was appended since the last sync.
    is_dirty: bool,
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
            tail: Mutex::default(),
            open: Mutex::default(),
            recent: Mutex::default(),
            buffers: Mutex::new(Buffers::new(KEPT_BYTES)),
        };
        files.check(least.unwrap_or_default())?;
        Ok(files)
    }

    /// Whether the files reach to `least`.
    pub(super) fn check(&self, least: End) -> Result<(), StorageError> {
        if self.find_end()? < least {
            let what = format!("{} ends before byte {}", self.path(least.file).display(), least.offset);
            return Err(StorageError::Damaged { what });
        }
        Ok(())
    }

    /// Leaves the files up to that of `end` as they are, if they don't reach to it.
    pub(super) fn pass_over(&self, end: End) -> Result<(), StorageError> {
        if self.find_end()? < end {
            lock(&self.tail).least = end.file.saturating_add(1);
        }
        Ok(())
    }

    /// Hands `blocks` to the operating system, and says where each of them is.
    pub(super) fn append(&self, blocks: &[Bytes]) -> Result<Vec<Place>, StorageError> {
        if blocks.is_empty() {
            return Ok(vec![]);
        }
        let mut tail = lock(&self.tail);
        // Taken out while it is written to: after an error the end is looked up again.
        let (file, end) = match tail.file.take() {
            Some(tail) if tail.1.offset < self.file_bytes => tail,
            Some((full, end)) => self.next_file(full, end)?,
            None => self.last_file(tail.least)?,
        };
        tail.is_dirty = true;
        match write(&file, end, blocks) {
            Ok((places, new_end)) => {
                tail.file = Some((file, new_end));
                lock(&self.recent).keep(end, blocks);
                Ok(places)
            }
            Err(error) => {
                // A full disk has use for the room.
                if let Err(error) = file.set_len(end.offset) {
                    tracing::warn!(%error, "half a batch stays in a block file");
                }
                Err(error)
            }
        }
    }

    /// The block at `place`, if it is in memory.
    pub(super) fn read_recent(&self, place: Place) -> Option<Bytes> {
        lock(&self.recent).get(place)
    }

    /// The block at `place`.
    //= STORE-11, STORE-19
    pub(super) fn read(&self, place: Place) -> Result<Bytes, StorageError> {
        match self.read_bytes(place, place.len as usize) {
            Ok(block) if xxh3_64(&block) == place.checksum => Ok(block),
            Ok(_) => Err(self.damaged(&place, &NOT_WRITTEN)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
                Err(self.damaged(&place, &error))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The `len` bytes from the start of `place` on.
    fn read_bytes(&self, place: Place, len: usize) -> io::Result<Bytes> {
        let file = self.file(place.file)?;
        if len < KEPT_FROM {
            let mut bytes = Vec::new();
            read_at(&file, &mut bytes, len, place.offset)?;
            return Ok(bytes.into());
        }
        let mut piece = lock(&self.buffers).zeroed(len);
        read_exact_at(&file, &mut piece, place.offset)?;
        Ok(lock(&self.buffers).lend(piece).freeze())
    }

    fn damaged(&self, place: &Place, how: &dyn std::fmt::Display) -> StorageError {
        let file = self.path(place.file);
        StorageError::Damaged {
            what: format!("the block at byte {} of {}: {how}", place.offset, file.display()),
        }
    }

    /// The blocks at `places`, each with the number that came with its place, in any order. Those that lie
    /// together are read together, and share their memory.
    pub(super) fn read_all(
        &self,
        mut places: Vec<(Place, usize)>,
    ) -> Result<Vec<(usize, Bytes)>, StorageError> {
        places.sort_unstable_by_key(|(place, _)| (place.file, place.offset));
        let mut found = Vec::with_capacity(places.len());
        let mut rest = places.as_slice();
        while let Some(((first, n), more)) = rest.split_first() {
            let (count, len) = together(rest);
            if count <= 1 {
                found.push((*n, self.read(*first)?));
                rest = more;
                continue;
            }
            let (run, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            rest = after;
            let Ok(bytes) = self.read_bytes(*first, len) else {
                // Which of them it is.
                for (place, n) in run {
                    found.push((*n, self.read(*place)?));
                }
                continue;
            };
            for (place, n) in run {
                let start = usize::try_from(place.offset.saturating_sub(first.offset)).unwrap_or(usize::MAX);
                let end = start.saturating_add(place.len as usize);
                let block = bytes.get(start..end).filter(|block| xxh3_64(block) == place.checksum);
                found.push((*n, bytes.slice_ref(block.ok_or_else(|| self.damaged(place, &NOT_WRITTEN))?)));
            }
        }
        Ok(found)
    }

    /// Makes what was appended survive a power loss, and says how far it goes.
    pub(super) fn sync(&self) -> Result<End, StorageError> {
        let end = self.find_end()?;
        let mut tail = lock(&self.tail);
        match &tail.file {
            Some((file, _)) if tail.is_dirty => file.sync_data()?,
            Some(_) => {}
            None if end.offset > 0 => File::options().append(true).open(self.path(end.file))?.sync_data()?,
            None => {}
        }
        tail.is_dirty = false;
        Ok(end)
    }

    /// Makes what was appended survive a power loss, if anything was.
    pub(super) fn sync_appended(&self) -> Result<bool, StorageError> {
        let is_dirty = lock(&self.tail).is_dirty;
        if is_dirty {
            self.sync()?;
        }
        Ok(is_dirty)
    }

    /// Gives the space of `range` in a file back to the file system. Bytes of it that share a page with others
    /// must not be in it. `false` if the file system can't do that.
    pub(super) fn punch(&self, file: u32, range: &Range<u64>) -> Result<bool, StorageError> {
        match File::options().write(true).open(self.path(file)) {
            Ok(file) => Ok(punch_hole(&file, range)?),
            // Gone as a whole.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// How long a file is; `None` if it is not there.
    pub(super) fn len(&self, file: u32) -> Result<Option<u64>, StorageError> {
        match fs::metadata(self.path(file)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file that no commit names any more.
    pub(super) fn remove(&self, file: u32) -> Result<(), StorageError> {
        lock(&self.open).remove(&file);
        match fs::remove_file(self.path(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    #[cfg(test)]
    pub(super) fn set_file_bytes(&mut self, bytes: u64) {
        self.file_bytes = bytes;
    }

    fn last_file(&self, least: u32) -> Result<(File, End), StorageError> {
        let End { file, .. } = self.find_end()?;
        self.append_to(file.max(least).max(1))
    }

    fn next_file(&self, full: File, end: End) -> Result<(File, End), StorageError> {
        // Only the last file is synced later on.
        full.sync_data()?;
        let number = end.file.checked_add(1);
        self.append_to(number.ok_or_else(|| StorageError::Database("no block file is left".into()))?)
    }

    //= STORE-15
    fn append_to(&self, number: u32) -> Result<(File, End), StorageError> {
        let path = self.path(number);
        let is_new = !path.exists();
        let file = File::options().create(true).append(true).open(path)?;
        if is_new {
            sync_folder(&self.folder)?;
        }
        let offset = file.metadata()?.len();
        Ok((file, End { file: number, offset }))
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

impl Recent {
    /// Keeps a copy of `blocks`, which were appended at `start`: they may be small parts of something large.
    fn keep(&mut self, start: End, blocks: &[Bytes]) {
        let len = blocks.iter().map(Bytes::len).fold(0_usize, usize::saturating_add);
        if len > MAX_RECENT {
            return;
        }
        self.bytes = self.bytes.saturating_add(len).saturating_add(RECENT_OVERHEAD);
        self.pieces.push_back((start, blocks.concat().into()));
        while self.bytes > RECENT_BYTES
            && let Some((_, oldest)) = self.pieces.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(oldest.len()).saturating_sub(RECENT_OVERHEAD);
        }
    }

    fn get(&self, place: Place) -> Option<Bytes> {
        let at = End { file: place.file, offset: place.offset };
        let after = self.pieces.partition_point(|(start, _)| *start <= at);
        let (start, piece) = self.pieces.get(after.checked_sub(1)?)?;
        let from = usize::try_from(place.offset.checked_sub(start.offset)?).ok()?;
        let end = from.checked_add(place.len as usize)?;
        (start.file == place.file && end <= piece.len()).then(|| piece.slice(from..end))
    }
}

/// Writes `blocks` to the end of `file`, which is `end`. Says where they are, and where the end is now.
fn write(file: &File, mut end: End, blocks: &[Bytes]) -> Result<(Vec<Place>, End), StorageError> {
    let total: usize = blocks.iter().map(Bytes::len).sum();
    let mut places = Vec::with_capacity(blocks.len());
    let mut out = BufWriter::with_capacity(total.min(GATHER_BYTES), file);
    for block in blocks {
        let len = u32::try_from(block.len())
            .map_err(|_| StorageError::Database(format!("a block of {} bytes", block.len())))?;
        out.write_all(block)?;
        places.push(Place { file: end.file, offset: end.offset, len, checksum: xxh3_64(block) });
        end.offset = end.offset.saturating_add(len.into());
    }
    out.flush()?;
    Ok((places, end))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn punch_hole(file: &File, range: &Range<u64>) -> io::Result<bool> {
    use rustix::{
        fs::{FallocateFlags, fallocate},
        io::Errno,
    };
    let len = range.end.saturating_sub(range.start);
    match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, range.start, len) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn punch_hole(_: &File, _: &Range<u64>) -> io::Result<bool> {
    Ok(false)
}

/// What is locked here is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many of the first of `places`, which are sorted, lie in one piece of a file, and how long it is.
fn together(places: &[(Place, usize)]) -> (usize, usize) {
    let Some((first, _)) = places.first() else { return (0, 0) };
    let (mut count, mut end) = (1_usize, first.offset.saturating_add(first.len.into()));
    let len = |end: u64| usize::try_from(end.saturating_sub(first.offset)).unwrap_or(usize::MAX);
    for (place, _) in places.iter().skip(1) {
        let next = place.offset.saturating_add(place.len.into());
        // The same block may be asked for twice.
        let follows = place.file == first.file && place.offset <= end && next >= end;
        if !follows || len(next) > TOGETHER_BYTES {
            break;
        }
        (count, end) = (count.saturating_add(1), next);
    }
    (count, len(end))
}

/// Fills `bytes` from `offset` on.
#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Reads `len` bytes from `offset` on. Memory that is about to be written to is not cleared before.
#[cfg(unix)]
fn read_at(file: &File, buffer: &mut Vec<u8>, len: usize, offset: u64) -> io::Result<()> {
    use rustix::{buffer::spare_capacity, io::Errno};
    buffer.reserve_exact(len);
    while buffer.len() < len {
        let at = offset.saturating_add(buffer.len() as u64);
        match rustix::io::pread(file, spare_capacity(buffer), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    buffer.truncate(len);
    Ok(())
}

#[cfg(not(unix))]
fn read_at(file: &File, buffer: &mut Vec<u8>, len: usize, offset: u64) -> io::Result<()> {
    buffer.resize(len, 0);
    read_exact_at(file, buffer, offset)
}

#[cfg(not(unix))]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    // Two readers share the cursor of one file.
    static CURSOR: Mutex<()> = Mutex::new(());
    let _one_at_a_time = lock(&CURSOR);
    let mut file = file;
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(bytes)
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
    fn only_so_many_of_the_last_bytes_stay_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let files = BlockFiles::open(dir.path(), None).unwrap();
        let mut places = vec![];
        for n in 0..=255 {
            let pair = [Bytes::from(vec![n; 3000]), Bytes::from(vec![n; 10])];
            places.extend(files.append(&pair).unwrap().into_iter().zip(pair));
            // Too much to be kept, and no reason to let go of the others.
            assert_eq!(files.read_recent(files.append(&blocks(n)).unwrap()[0]), None);
            assert!(lock(&files.recent).bytes <= RECENT_BYTES);
        }
        let recent: Vec<bool> = places
            .iter()
            .map(|(place, block)| files.read_recent(*place).is_some_and(|it| it == block))
            .collect();
        let kept = recent.iter().filter(|is_recent| **is_recent).count();
        assert!(recent.is_sorted() && (100..200).contains(&kept), "{kept} blocks are kept, the last ones");
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
