//! Whether there is room on the disk, asked before something is written.
//!
//! A disk that fills in the middle of a write leaves the database refusing everything until it is opened
//! again. So a commit is refused while there still is some room: enough for what the database writes of its
//! own accord, and for the deletions that make room.

use std::{io, path::PathBuf};

use crate::error::StorageError;

/// The disk is asked again after this many bytes.
const ASK_BYTES: u64 = 256 << 10;
/// And after this many commits, as others fill it, too.
const ASK_COMMITS: u32 = 16;

/// The room on the disk that a folder is on.
#[derive(Debug)]
pub(super) struct Room {
    folder: PathBuf,
    reserve: u64,
    /// What may be written before the disk is asked again.
    bytes: u64,
    commits: u32,
}

impl Room {
    pub(super) fn new(folder: PathBuf, reserve: u64) -> Self {
        Self { folder, reserve, bytes: 0, commits: 0 }
    }

    /// Asks for room for `bytes`, beside what the database holds in memory and will write out. What `frees`
    /// room gets the most part of the reserve.
    ///
    /// # Errors
    /// The error that a full disk gives.
    pub(super) fn take(&mut self, bytes: u64, in_memory: u64, frees: bool) -> Result<(), StorageError> {
        if self.reserve == 0 {
            return Ok(());
        }
        if bytes <= self.bytes && self.commits > 0 {
            self.bytes = self.bytes.saturating_sub(bytes);
            self.commits = self.commits.saturating_sub(1);
            return Ok(());
        }
        let least = match frees {
            true => self.reserve / 4,
            false => self.reserve.saturating_add(in_memory),
        };
        let left = self.available().saturating_sub(bytes);
        if left < least {
            self.commits = 0;
            return Err(full());
        }
        self.bytes = (left.saturating_sub(least)).min(ASK_BYTES);
        self.commits = if frees { 0 } else { ASK_COMMITS };
        Ok(())
    }

    /// Whether the disk has less room than is kept in reserve, or next to none if nothing is.
    pub(super) fn is_full(&self) -> bool {
        self.available() < self.reserve.max(64 << 10)
    }

    #[cfg(unix)]
    fn available(&self) -> u64 {
        // A disk that doesn't say how full it is says so when it is.
        rustix::fs::statvfs(&self.folder)
            .map_or(u64::MAX, |stats| stats.f_bavail.saturating_mul(stats.f_frsize.max(1)))
    }

    /// Not asked where there is no statvfs: a full disk is noticed when it is written to.
    #[cfg(not(unix))]
    fn available(&self) -> u64 {
        let _ = &self.folder;
        u64::MAX
    }
}

/// What a full disk is to the caller.
pub(super) fn full() -> StorageError {
    io::Error::from(io::ErrorKind::StorageFull).into()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_would_leave_too_little_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut room = Room::new(dir.path().into(), 1);
        let available = room.available();
        assert!(available > 0 && available < u64::MAX);
        assert!(room.take(0, 0, false).is_ok());
        assert!(!room.is_full());
        let mut room = Room::new(dir.path().into(), u64::MAX / 2);
        let error = room.take(0, 0, false).unwrap_err();
        assert!(matches!(error, StorageError::Io(error) if error.kind() == io::ErrorKind::StorageFull));
        assert!(room.is_full());
    }
}
