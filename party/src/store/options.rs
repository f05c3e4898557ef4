//! How a store is opened, and how a new feed is made.

use std::fmt;

use zeroize::Zeroizing;

#[cfg(feature = "disk")]
use super::disk::{DiskOptions, Durability};

/// How [`Store::open_with`](super::Store::open_with) opens a store.
///
/// ```
/// use party::store::{StoreOptions, disk::Durability};
///
/// let options = StoreOptions::default().durability(Durability::Power);
/// ```
#[cfg(feature = "disk")]
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct StoreOptions {
    pub(super) disk: DiskOptions,
}

#[cfg(feature = "disk")]
impl StoreOptions {
    /// Sets what an append survives once it has completed: the end of the process, which is the default, or a
    /// power loss, too.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.disk = self.disk.durability(durability);
        self
    }

    /// Sets how the storage is opened in all.
    #[must_use]
    pub fn disk(mut self, options: DiskOptions) -> Self {
        self.disk = options;
        self
    }
}

/// How [`Store::create_feed`](super::Store::create_feed) makes a feed. The default is what hypercore 11
/// makes: a manifest with one signer.
///
/// ```
/// use party::store::FeedOptions;
///
/// let options = FeedOptions::default().compat(true);
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct FeedOptions {
    pub(super) compat: bool,
    // A named feed of a corestore grows from the primary key and its name instead. That will be a second
    // source beside these.
    pub(super) seed: Option<Zeroizing<[u8; 32]>>,
}

impl FeedOptions {
    /// Whether to make a legacy feed, whose key is the public key itself. Hypercore 10 needs it.
    #[must_use]
    pub fn compat(mut self, compat: bool) -> Self {
        self.compat = compat;
        self
    }

    /// The seed that the key pair grows from, instead of a random one. Whoever knows it can append to the
    /// feed, and a feed that is written in two places forks.
    #[must_use]
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(Zeroizing::new(seed));
        self
    }
}

impl fmt::Debug for FeedOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedOptions").field("compat", &self.compat).finish_non_exhaustive()
    }
}
