//! The seeds of writable feeds, apart from what they sign.
//!
//! On disk each is a file of its own, named by the discovery key and readable by its owner only: a copy of
//! the store without `secrets/` gives nothing away that would let somebody else append. A file is complete
//! and on the disk before the feed's record names it; one that no record names does no harm.

#[cfg(feature = "disk")]
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::record;
use crate::{
    error::StorageError,
    feed::storage::{Storage, Write},
    key::{DiscoveryKey, KeyPair},
};

pub(super) type Seed = Zeroizing<[u8; 32]>;

/// Where a store keeps its seeds.
#[derive(Clone, Debug)]
pub(super) enum Secrets {
    /// Among the records: in memory, or wherever the user's own storage keeps them.
    Records,
    /// In files in this folder.
    #[cfg(feature = "disk")]
    Files(PathBuf),
}

impl Secrets {
    /// Keeps `seed`: at once in a file, or by a write that goes along with the feed's record.
    pub(super) async fn keep(
        &self,
        discovery_key: DiscoveryKey,
        seed: &Seed,
    ) -> Result<Option<Write>, StorageError> {
        match self {
            Self::Records => {
                let seed = bytes::Bytes::copy_from_slice(&seed[..]);
                Ok(Some(Write::Put(record::secret(&discovery_key), seed)))
            }
            #[cfg(feature = "disk")]
            Self::Files(folder) => {
                let (folder, seed) = (folder.clone(), seed.clone());
                super::disk::run("party-store-secret", move || write_file(&folder, discovery_key, &seed))
                    .await?;
                Ok(None)
            }
        }
    }

    /// The key pair of the feed with this discovery key.
    pub(super) async fn key_pair(
        &self,
        storage: &dyn Storage,
        discovery_key: DiscoveryKey,
    ) -> Result<KeyPair, StorageError> {
        let seed = match self {
            Self::Records => {
                let found = storage.read(vec![record::secret(&discovery_key)]).await?.pop().flatten();
                found.and_then(|seed| Some(Zeroizing::new(<[u8; 32]>::try_from(&seed[..]).ok()?)))
            }
            #[cfg(feature = "disk")]
            Self::Files(folder) => {
                let folder = folder.clone();
                super::disk::run("party-store-secret", move || read_file(&folder, discovery_key)).await?
            }
        };
        match seed {
            Some(seed) => Ok(KeyPair::from_seed(&seed)),
            None => Err(StorageError::Damaged {
                what: format!(
                    "the secret of the feed with discovery key {discovery_key} is missing or malformed"
                ),
            }),
        }
    }
}

#[cfg(feature = "disk")]
fn write_file(folder: &Path, discovery_key: DiscoveryKey, seed: &Seed) -> Result<(), StorageError> {
    let path = folder.join(discovery_key.to_string());
    let draft = path.with_extension("new");
    make_private_folder(folder)?;
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = private_file(&draft)?;
    file.write_all(&seed[..])?;
    file.sync_all()?;
    fs::rename(&draft, &path)?;
    Ok(super::disk::sync_folder(folder)?)
}

#[cfg(feature = "disk")]
fn read_file(folder: &Path, discovery_key: DiscoveryKey) -> Result<Option<Seed>, StorageError> {
    match fs::read(folder.join(discovery_key.to_string())).map(Zeroizing::new) {
        Ok(bytes) => Ok(<[u8; 32]>::try_from(&bytes[..]).ok().map(Zeroizing::new)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A new file that only its owner may read. The mode is given when it is made: there is no moment in which
/// others may open it.
#[cfg(feature = "disk")]
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(feature = "disk")]
fn make_private_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}
