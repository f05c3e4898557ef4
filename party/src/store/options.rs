//! How a new feed is made, and how a store is opened.

use std::fmt;

use zeroize::Zeroizing;

#[cfg(feature = "disk")]
use super::disk::{DiskOptions, Durability};
use super::names::PrimaryKey;
use crate::feed::Encryption;

/// How [`Store::create_feed`](super::Store::create_feed) makes a feed. The default is what corestore 7 makes: a
/// manifest with one signer, whose key pair grows from the store's primary key, the namespace and the name.
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
    pub(super) seed: Option<Zeroizing<[u8; 32]>>,
    pub(super) encryption: Option<Encryption>,
}

impl FeedOptions {
    /// Whether to make a legacy feed, whose key is the public key itself. Hypercore 10 needs it. Corestore 7
    /// takes no notice of its own `compat`; it opens such a feed when it is given key, key pair and a manifest
    /// of version 0.
    #[must_use]
    pub fn compat(mut self, compat: bool) -> Self {
        self.compat = compat;
        self
    }

    /// The seed that the key pair grows from, instead of from primary key and name. Whoever knows it can
    /// append to the feed, and a feed that is written in two places forks.
    #[must_use]
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(Zeroizing::new(seed));
        self
    }

    /// The key to encrypt the feed's blocks with. It isn't kept in the store: whoever opens the feed later brings
    /// it along, by [`Feed::with_encryption`](crate::feed::Feed::with_encryption). That the feed is encrypted is kept, and
    /// nothing is appended to it in the clear.
    #[must_use]
    pub fn encryption(mut self, encryption: impl Into<Encryption>) -> Self {
        self.encryption = Some(encryption.into());
        self
    }
}

impl fmt::Debug for FeedOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedOptions").field("compat", &self.compat).finish_non_exhaustive()
    }
}

/// How [`Store::open_with`](super::Store::open_with) and its like open a store.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use party::store::{Store, StoreOptions};
///
/// let options = StoreOptions::default().primary_key([7; 32]);
/// let (here, there) = (Store::memory_with(options.clone()), Store::memory_with(options));
/// assert_eq!(here.named_feed("log").await?.key(), there.named_feed("log").await?.key());
/// # Ok::<(), party::error::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct StoreOptions {
    pub(super) primary_key: Option<PrimaryKey>,
    #[cfg(feature = "disk")]
    pub(super) disk: DiskOptions,
}

impl StoreOptions {
    /// The primary key, from which named feeds grow, instead of a random one. It can be given to a new store;
    /// to one that is there, only the one that it has. Two stores with the same make the same feeds under the
    /// same names, and a feed that is written in two places forks: it is for restoring a store from its
    /// secret, not for sharing one.
    #[must_use]
    pub fn primary_key(mut self, primary_key: [u8; 32]) -> Self {
        self.primary_key = Some(PrimaryKey::new(Zeroizing::new(primary_key)));
        self
    }

    /// What an append to a store on disk survives once it has completed: the end of the process, if this
    /// isn't called, or the loss of power, too. See [`Durability`] for the promise of each.
    ///
    /// ```
    /// use party::store::{StoreOptions, disk::Durability};
    ///
    /// let options = StoreOptions::default().durability(Durability::Power);
    /// ```
    #[cfg(feature = "disk")]
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.disk = self.disk.durability(durability);
        self
    }

    /// How the storage of a store on disk is opened in all.
    #[cfg(feature = "disk")]
    #[must_use]
    pub fn disk(mut self, options: DiskOptions) -> Self {
        self.disk = options;
        self
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions").finish_non_exhaustive()
    }
}
