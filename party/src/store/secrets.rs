//! The primary key, the seeds of feeds that were made from one, apart from what they sign, and the keys of parties.
//!
//! On disk each is a file of its own, `primary-key` or named by the discovery key of the feed or, after `party-`, of the
//! party, and readable by its owner only: a copy of the store without `secrets/` gives nothing away that would let somebody
//! else append, or be a member.
//! A file is complete and on the disk before a record counts on it; one that no record counts on does no
//! harm.

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
    feed::storage::{Key, Storage, Write},
    key::DiscoveryKey,
};

pub(super) type Seed = Zeroizing<[u8; 32]>;

/// Where a store keeps its secrets.
#[derive(Clone, Debug)]
pub(super) enum Secrets {
    /// Among the records: in memory, or wherever the user's own storage keeps them.
    Records,
    /// In files in this folder.
    #[cfg(feature = "disk")]
    Files(PathBuf),
}

/// Which of a store's secrets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Secret {
    /// What named feeds grow from.
    PrimaryKey,
    /// The seed of the feed with this discovery key.
    Feed(DiscoveryKey),
    /// The key of the party with this discovery key.
    Party(DiscoveryKey),
}

impl Secret {
    fn record(self) -> Key {
        match self {
            Self::PrimaryKey => record::primary_key(),
            Self::Feed(discovery_key) => record::secret(&discovery_key),
            Self::Party(discovery_key) => record::party_secret(&discovery_key),
        }
    }

    #[cfg(feature = "disk")]
    fn file(self, folder: &Path) -> PathBuf {
        match self {
            Self::PrimaryKey => folder.join("primary-key"),
            Self::Feed(discovery_key) => folder.join(discovery_key.to_string()),
            Self::Party(discovery_key) => folder.join(format!("party-{discovery_key}")),
        }
    }
}

impl Secrets {
    /// Keeps `seed`: at once in a file, or by a write that goes along with what counts on it.
    //= NAME-1
    pub(super) async fn keep(&self, secret: Secret, seed: &Seed) -> Result<Option<Write>, StorageError> {
        match self {
            Self::Records => Ok(Some(Write::Put(secret.record(), bytes::Bytes::copy_from_slice(&seed[..])))),
            #[cfg(feature = "disk")]
            Self::Files(folder) => {
                let (folder, seed) = (folder.clone(), seed.clone());
                let write = move || write_file(&folder, &secret.file(&folder), &seed);
                super::disk::run("party-store-secret", write).await?;
                Ok(None)
            }
        }
    }

    /// The secret, if it is where it was kept and is one.
    pub(super) async fn find(
        &self,
        storage: &dyn Storage,
        secret: Secret,
    ) -> Result<Option<Seed>, StorageError> {
        match self {
            Self::Records => {
                let found = storage.read(vec![secret.record()]).await?.pop().flatten();
                Ok(found.and_then(|seed| Some(Zeroizing::new(<[u8; 32]>::try_from(&seed[..]).ok()?))))
            }
            #[cfg(feature = "disk")]
            Self::Files(folder) => {
                let file = secret.file(folder);
                super::disk::run("party-store-secret", move || read_file(&file)).await
            }
        }
    }

    /// What deletes the secret among the records; nothing for one in a file.
    pub(super) fn delete(&self, secret: Secret) -> Option<Write> {
        match self {
            Self::Records => Some(Write::Delete(secret.record())),
            #[cfg(feature = "disk")]
            Self::Files(_) => None,
        }
    }

    /// Deletes the file of a secret that no record counts on any more.
    pub(super) async fn forget(&self, secret: Secret) -> Result<(), StorageError> {
        match self {
            Self::Records => Ok(()),
            #[cfg(feature = "disk")]
            Self::Files(folder) => {
                let file = secret.file(folder);
                super::disk::run("party-store-secret", move || match fs::remove_file(file) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
                    _ => Ok(()),
                })
                .await
            }
        }
    }
}

#[cfg(feature = "disk")]
fn write_file(folder: &Path, path: &Path, seed: &Seed) -> Result<(), StorageError> {
    let draft = path.with_extension("new");
    make_private_folder(folder)?;
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = private_file(&draft)?;
    file.write_all(&seed[..])?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    Ok(super::disk::sync_folder(folder)?)
}

#[cfg(feature = "disk")]
fn read_file(path: &Path) -> Result<Option<Seed>, StorageError> {
    match fs::read(path).map(Zeroizing::new) {
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
