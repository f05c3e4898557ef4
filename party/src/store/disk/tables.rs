//! A look at fjall's files before fjall takes one.
//!
//! In a store that was complete once, whatever is missing is damage; fjall makes some of it anew. And it trusts
//! the lists that its tables begin with: one that is damaged may end the process, or ask for all the memory
//! that there is. Each list has a checksum, so they are checked here, and the damage is named.
//!
//! The layout, from lsm-tree 3 and sfa 1, integers little-endian: `keyspaces/N/current` names the list of tables by
//! its number (8) and has its XXH3-128 (16). A list, as a table, is an archive: sections, a directory of them
//! (`TOC!`, count (4), then for each its place (8), length (8), length of name (2) and name), and 38 bytes: `SFA!`,
//! versions (2), the directory's XXH3-128 (16), place (8) and length (8).

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
};

use xxhash_rust::xxh3::xxh3_128;

use super::database::list;
use crate::error::StorageError;

const TRAILER_BYTES: usize = 38;
/// A directory has about ten entries.
const MAX_DIRECTORY_BYTES: u64 = 64 << 10;
/// A list has some 40 bytes for each table, of 21 MiB as a rule, in older stores of 64.
const MAX_LIST_BYTES: u64 = 256 << 20;

/// Whether the files of the database at `path` are there, and its lists are what was written.
//= STORE-4, STORE-19
pub(super) fn check(path: &Path) -> Result<(), StorageError> {
    let version = path.join("version");
    if !version.is_file() {
        return Err(missing(&version));
    }
    let is_journal = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|it| it == "jnl");
    if !list(path)?.iter().any(is_journal) {
        return Err(missing(&path.join("*.jnl")));
    }
    for entry in list(&path.join("keyspaces"))? {
        let keyspace = entry.path();
        if keyspace.is_file() {
            continue;
        }
        if entry.file_name().to_str().is_none_or(|name| name.parse::<u64>().is_err()) {
            return Err(damaged(&keyspace, "is no keyspace"));
        }
        check_keyspace(&keyspace)?;
    }
    Ok(())
}

fn check_keyspace(path: &Path) -> Result<(), StorageError> {
    let current = path.join("current");
    let named = match fs::read(&current) {
        Ok(named) => named,
        Err(_) => return Err(missing(&current)),
    };
    let number = named.first_chunk().map(|number| u64::from_le_bytes(*number));
    let checksum = named.get(8..).and_then(|rest| rest.first_chunk()).map(|sum| u128::from_le_bytes(*sum));
    let (Some(number), Some(checksum)) = (number, checksum) else {
        return Err(damaged(&current, "ends too early"));
    };
    let list = path.join(format!("v{number}"));
    let bytes = match File::open(&list) {
        Ok(file) if file.metadata()?.len() <= MAX_LIST_BYTES => fs::read(&list)?,
        Ok(_) => return Err(damaged(&list, "is too long")),
        Err(_) => return Err(missing(&list)),
    };
    if xxh3_128(&bytes) != checksum {
        return Err(damaged(&list, "is not what was written"));
    }
    let tables = tables(&bytes).ok_or_else(|| damaged(&list, "is no list of tables"))?;
    tables.into_iter().try_for_each(|table| check_table(&path.join("tables").join(table.to_string())))
}

/// The directory of a table is what was written.
fn check_table(path: &Path) -> Result<(), StorageError> {
    let Ok(mut file) = File::open(path) else { return Err(missing(path)) };
    let len = file.metadata()?.len();
    let end = len.checked_sub(TRAILER_BYTES as u64).ok_or_else(|| damaged(path, "ends too early"))?;
    let mut trailer = [0; TRAILER_BYTES];
    file.seek(SeekFrom::Start(end))?;
    file.read_exact(&mut trailer)?;
    let is_trailer = trailer.starts_with(b"SFA!\x01\x00");
    let (checksum, place) = read_trailer(&trailer).filter(|_| is_trailer).unwrap_or_default();
    let directory = end.checked_sub(place).filter(|len| is_trailer && *len <= MAX_DIRECTORY_BYTES);
    let mut bytes = vec![0; directory.ok_or_else(|| damaged(path, "has no directory"))? as usize];
    file.seek(SeekFrom::Start(place))?;
    file.read_exact(&mut bytes)?;
    if xxh3_128(&bytes) != checksum {
        return Err(damaged(path, "has a directory that is not what was written"));
    }
    Ok(())
}

/// Checksum and place of the directory.
fn read_trailer(trailer: &[u8; TRAILER_BYTES]) -> Option<(u128, u64)> {
    let (checksum, rest) = trailer.get(6..)?.split_first_chunk()?;
    let (place, _) = rest.split_first_chunk()?;
    Some((u128::from_le_bytes(*checksum), u64::from_le_bytes(*place)))
}

/// The tables in a list that is what was written.
fn tables(list: &[u8]) -> Option<Vec<u64>> {
    let (rest, trailer) = list.split_last_chunk::<TRAILER_BYTES>()?;
    let (_, place) = read_trailer(trailer)?;
    let mut directory = rest.get(usize::try_from(place).ok()?..)?;
    let _magic: [u8; 4] = take(&mut directory)?;
    let sections = u32::from_le_bytes(take(&mut directory)?);
    for _ in 0..sections {
        let place = usize::try_from(u64::from_le_bytes(take(&mut directory)?)).ok()?;
        let len = usize::try_from(u64::from_le_bytes(take(&mut directory)?)).ok()?;
        let name_len = usize::from(u16::from_le_bytes(take(&mut directory)?));
        let (name, rest) = directory.split_at_checked(name_len)?;
        directory = rest;
        if name == b"tables" {
            return read_tables(list.get(place..)?.get(..len)?);
        }
    }
    None
}

fn read_tables(mut section: &[u8]) -> Option<Vec<u64>> {
    let mut tables = vec![];
    let [levels] = take(&mut section)?;
    for _ in 0..levels {
        let [runs] = take(&mut section)?;
        for _ in 0..runs {
            for _ in 0..u32::from_le_bytes(take(&mut section)?) {
                tables.push(u64::from_le_bytes(take(&mut section)?));
                // Kind and value of a checksum, and a sequence number.
                let _: [u8; 25] = take(&mut section)?;
            }
        }
    }
    Some(tables)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn missing(what: &Path) -> StorageError {
    StorageError::Damaged { what: format!("{} is missing", what.display()) }
}

fn damaged(what: &Path, how: &str) -> StorageError {
    StorageError::Damaged { what: format!("{} {how}", what.display()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_list_or_none(
            mut list in proptest::collection::vec(prop_oneof![0..3_u8, any::<u8>()], 0..200),
            place in 0..200_u64,
        ) {
            let trailer = [&b"SFA!\x01\x00"[..], &[0; 16], &place.to_le_bytes(), &[0; 8]].concat();
            list.extend(trailer);
            let found = tables(&list).unwrap_or_default();
            prop_assert!(found.len() <= list.len());
            let _ = read_tables(&list);
        }

        #[test]
        fn any_bytes_are_a_table_or_damage(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            trailer in any::<bool>(),
            place in any::<u64>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("1");
            let trailer = if trailer {
                [&b"SFA!\x01\x00"[..], &[0; 16], &place.to_le_bytes(), &[0; 8]].concat()
            } else {
                vec![]
            };
            fs::write(&path, [bytes, trailer].concat()).unwrap();
            let result = check_table(&path);
            prop_assert!(matches!(result, Err(StorageError::Damaged { .. })), "{result:?}");
        }
    }
}
