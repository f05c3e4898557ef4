//! The folder of a store: who may open it, and whether it is one at all.
//!
//! ```text
//! DIR/party-store   the marker: the format's version, and whether the store was ever complete
//! DIR/lock          locked by the process that has the store open
//! DIR/extent        how much was there when the store was last opened or closed
//! DIR/commits       how many commits were acknowledged (see `mark`)
//! DIR/db/           the database
//! DIR/blocks/       the blocks
//! DIR/secrets/      the seeds of writable feeds (see `store::secrets`)
//! ```
//!
//! The marker decides what a folder is. It first says `being made`; only when the database stands does it
//! say `format 2`. So a process that dies while it makes a store leaves something that the next one may
//! wipe and make again, and a store that was complete once is never wiped: whatever is missing from it is
//! damage.
//!
//! The section is `protocol-spec/09-storage.md#the-folder`.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{
    blocks::End,
    database::Extent,
    mark::{self, Mark},
    options::Durability,
};
use crate::error::StorageError;

const MARKER: &str = "party-store";
const MARKER_DRAFT: &str = "party-store.new";
const LOCK: &str = "lock";
const LOCK_TRIES: usize = 6;
const LOCK_WAIT: Duration = Duration::from_millis(10);
const EXTENT: &str = "extent";
const EXTENT_DRAFT: &str = "extent.new";
const COMMITS: &str = "commits";
const DATABASE: &str = "db";
const BLOCKS: &str = "blocks";

const BEING_MADE: &str = "party store, being made\n";
const COMPLETE: &str = "party store, format 2\n";

/// A folder that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// The operating system releases it with the process, however that ends.
    _lock: File,
    is_complete: bool,
}

impl Folder {
    /// Locks the folder at `path`, which is made if it doesn't exist.
    //= STORE-4
    pub(super) fn open(path: &Path) -> Result<Self, StorageError> {
        fs::create_dir_all(path)?;
        // Looked at before the lock is made, so that a folder of somebody else's stays as it is.
        read_marker(path)?;
        let lock = lock(path)?;
        let is_complete = match read_marker(path)? {
            Some(marker) if marker == COMPLETE => true,
            Some(_) => false,
            None => {
                write_marker(path, BEING_MADE)?;
                false
            }
        };
        let folder = Self { path: path.to_owned(), _lock: lock, is_complete };
        if !is_complete {
            for leftover in [folder.database(), folder.blocks()] {
                if leftover.exists() {
                    fs::remove_dir_all(leftover)?;
                }
            }
            match fs::remove_file(folder.path.join(COMMITS)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(folder)
    }

    /// Locks a folder that was complete once.
    pub(super) fn open_again(path: &Path) -> Result<Self, StorageError> {
        if read_marker(path)?.as_deref() != Some(COMPLETE) {
            let what = format!("{} is no longer a complete store", path.display());
            return Err(StorageError::Damaged { what });
        }
        Self::open(path)
    }

    /// How many commits the store must have, if that can be said.
    pub(super) fn acknowledged(&self) -> Option<u64> {
        mark::read(&self.path.join(COMMITS)).filter(|_| self.is_complete)
    }

    /// Where that is noted.
    pub(super) fn mark(&self, durability: Durability) -> io::Result<Mark> {
        Mark::open(&self.path.join(COMMITS), durability)
    }

    /// Where the database stands.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Where the blocks stand.
    pub(super) fn blocks(&self) -> PathBuf {
        self.path.join(BLOCKS)
    }

    /// What the store was left with, if it was complete once.
    //= STORE-8
    pub(super) fn extent(&self) -> Option<Extent> {
        let read = || {
            let text = fs::read_to_string(self.path.join(EXTENT)).ok()?;
            let mut numbers = text.split_whitespace().map(str::parse::<u64>);
            let mut next = || numbers.next()?.ok();
            let commits = next()?;
            let blocks = End { file: next()?.try_into().ok()?, offset: next()? };
            Some(Extent { commits, blocks })
        };
        // The file only helps to find damage: without it, everything else is still checked.
        //= STORE-8
        self.is_complete.then(|| read().unwrap_or_default())
    }

    /// Notes what the store has.
    pub(super) fn set_extent(&self, extent: Extent) -> Result<(), StorageError> {
        let Extent { commits, blocks: End { file, offset } } = extent;
        let draft = self.path.join(EXTENT_DRAFT);
        fs::write(&draft, format!("{commits} {file} {offset}\n"))?;
        Ok(fs::rename(draft, self.path.join(EXTENT))?)
    }

    /// Says for good that the database stands.
    pub(super) fn complete(&mut self) -> Result<(), StorageError> {
        if !self.is_complete {
            write_marker(&self.path, COMPLETE)?;
            self.is_complete = true;
        }
        Ok(())
    }
}

/// What the marker says, `None` where a store may be made.
//= STORE-3, STORE-5
fn read_marker(path: &Path) -> Result<Option<String>, StorageError> {
    match fs::read(path.join(MARKER)) {
        Ok(bytes) if bytes == COMPLETE.as_bytes() || bytes == BEING_MADE.as_bytes() => {
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Ok(bytes) => Err(StorageError::UnknownFormat {
            path: path.display().to_string(),
            found: String::from_utf8_lossy(&bytes).trim_end().chars().take(80).collect(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            for entry in fs::read_dir(path)? {
                let name = entry?.file_name();
                if name != LOCK && name != MARKER_DRAFT {
                    return Err(StorageError::NotAStore { path: path.display().to_string() });
                }
            }
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn write_marker(path: &Path, marker: &str) -> io::Result<()> {
    let draft = path.join(MARKER_DRAFT);
    let mut file = File::create(&draft)?;
    file.write_all(marker.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path.join(MARKER))?;
    sync_folder(path)
}

/// Takes the lock of the store at `path`, or says that somebody has it.
///
/// When this process starts another one, that one holds what is locked here from its fork to its exec, and so a lock that
/// was given up meanwhile. So it is tried a few times.
//= STORE-1
fn lock(path: &Path) -> Result<File, StorageError> {
    let file = File::options().create(true).truncate(false).write(true).open(path.join(LOCK))?;
    for _ in 1..LOCK_TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_WAIT),
            other => return taken(other, path).map(|()| file),
        }
    }
    taken(file.try_lock(), path).map(|()| file)
}

fn taken(lock: Result<(), TryLockError>, path: &Path) -> Result<(), StorageError> {
    lock.map_err(|error| match error {
        TryLockError::WouldBlock => StorageError::Locked { path: path.display().to_string() },
        TryLockError::Error(error) => error.into(),
    })
}

/// Makes renames in a folder survive a power loss, where the system can.
pub(in crate::store) fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}
