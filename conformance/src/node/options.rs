//! What a Node peer runs.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// A Hypercore release that the peer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// hypercore 11.35.1 on hypercore-storage 3.3.1.
    Eleven,
    /// hypercore 10.31.12.
    Ten,
    /// hypercore 10.19.0: no manifests, compat feeds only.
    TenNineteen,
}

/// How the peer replicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `corestore.replicate(stream)`: every core of the store, and whatever the remote asks for. Hypercore 11 only.
    Store,
    /// `core.replicate(stream)` for each core.
    Core,
}

/// Which identity a core gets that the peer creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What hypercore 11 makes by itself: the key is the hash of a version 1 manifest. Hypercore 11 only.
    Default,
    /// The key is the public key. What hypercore 10 makes by itself.
    Compat,
    /// The key is the hash of a version 0 manifest. Not with hypercore 10.19.0.
    #[serde(rename = "manifest0")]
    ManifestZero,
    /// Two of three signers, by a version 1 manifest. Hypercore 11 only.
    Multisig,
    /// Two of three signers, by a version 0 manifest. Not with hypercore 10.19.0.
    #[serde(rename = "multisig0")]
    MultisigZero,
}

/// What a [`NodePeer`](super::NodePeer) runs.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The Hypercore release.
    pub release: Release,
    /// How it replicates.
    pub mode: Mode,
    /// Where it stores; `None` is memory, or for hypercore 11 a folder that goes when the process ends by itself.
    pub store: Option<PathBuf>,
    /// How long the process may live, and how long any answer is awaited, counted from the spawn.
    pub lifetime: Duration,
}

impl NodeOptions {
    /// A corestore 7 on hypercore 11 with its own temporary store, for a minute.
    #[must_use]
    pub fn store() -> Self {
        Self { release: Release::Eleven, mode: Mode::Store, store: None, lifetime: Duration::from_secs(60) }
    }

    /// Single cores of `release`, as [`store`](Self::store) otherwise.
    #[must_use]
    pub fn cores(release: Release) -> Self {
        Self { release, mode: Mode::Core, ..Self::store() }
    }

    /// The same, stored in `directory`.
    #[must_use]
    pub fn at(self, directory: impl Into<PathBuf>) -> Self {
        Self { store: Some(directory.into()), ..self }
    }
}

impl NodeOptions {
    pub(super) fn place(&self) -> &Path {
        self.store.as_deref().unwrap_or(Path::new("memory"))
    }
}

impl Release {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Eleven => "11",
            Self::Ten => "10",
            Self::TenNineteen => "1019",
        }
    }
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Core => "core",
        }
    }
}
