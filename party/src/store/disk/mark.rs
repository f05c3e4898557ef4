//! How many commits were acknowledged, noted beside the database after each of them.
//!
//! fjall takes a damaged end of its journal for a commit that was cut off, and passes over it without a
//! word. So the number of commits is noted a second time, where that damage doesn't reach: in a file of a few
//! bytes, written in place, which costs less than a microsecond. Who opens the store after a kill must find
//! as many.
//!
//! After a power loss the note may be on the disk and the commits not, where nothing was synced. That is no
//! damage but what was promised, so the note also says in which run of the machine it was written, and is
//! held against the database only in the same run, or if the commits were synced before it.
//!
//! The section is `protocol-spec/09-storage.md#the-folder`.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use xxhash_rust::xxh3::xxh3_64;

use super::options::Durability;

const LEN: usize = 1 + 16 + 8 + 8;

/// The file, open to be written.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    durability: Durability,
    boot: [u8; 16],
}

impl Mark {
    pub(super) fn open(path: &Path, durability: Durability) -> io::Result<Self> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        Ok(Self { file, durability, boot: boot() })
    }

    /// Notes that `commits` were carried out.
    pub(super) fn write(&self, commits: u64) -> io::Result<()> {
        let mut bytes = [0; LEN];
        let (body, checksum) = bytes.split_at_mut(LEN - 8);
        let (flag, rest) = body.split_at_mut(1);
        let (run, count) = rest.split_at_mut(16);
        flag.fill(u8::from(self.durability == Durability::Power));
        run.copy_from_slice(&self.boot);
        count.copy_from_slice(&commits.to_le_bytes());
        checksum.copy_from_slice(&xxh3_64(body).to_le_bytes());
        write_at_start(&self.file, &bytes)
    }
}

/// How many commits the database at `path` must have, if that can be said.
//= STORE-7, STORE-8
pub(super) fn read(path: &Path) -> Option<u64> {
    let bytes: [u8; LEN] = fs::read(path).ok()?.try_into().ok()?;
    let (body, checksum) = bytes.split_last_chunk::<8>()?;
    let (body, commits) =
        body.split_last_chunk::<8>().filter(|_| xxh3_64(body).to_le_bytes() == *checksum)?;
    let (flag, run) = body.split_first()?;
    let is_this_run = *run == boot() && boot() != [0; 16];
    (is_this_run || *flag == 1).then_some(u64::from_le_bytes(*commits))
}

/// Which run of the machine this is; zeros where that can't be told.
fn boot() -> [u8; 16] {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let hex: String = id.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&hex, 16).unwrap_or_default().to_be_bytes()
}

#[cfg(unix)]
fn write_at_start(file: &File, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, 0)
}

#[cfg(not(unix))]
fn write_at_start(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    use std::io::{Seek as _, Write as _};
    file.rewind()?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_comes_back_and_a_torn_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("commits");
        let mark = Mark::open(&path, Durability::Power).unwrap();
        assert_eq!(read(&path), None);
        mark.write(7).unwrap();
        mark.write(8).unwrap();
        assert_eq!(read(&path), Some(8));
        let bytes = fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(read(&path), None);
        }
    }

    #[test]
    fn what_was_not_synced_is_not_asked_for_after_a_restart_of_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("commits");
        for (durability, expected) in [(Durability::Process, None), (Durability::Power, Some(5))] {
            let mark = Mark { boot: [1; 16], ..Mark::open(&path, durability).unwrap() };
            mark.write(5).unwrap();
            assert_eq!(read(&path), expected);
        }
    }
}
