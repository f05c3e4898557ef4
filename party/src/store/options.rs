//! How a new feed is made.

use std::fmt;

use zeroize::Zeroizing;

use crate::feed::Encryption;

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
    pub(super) encryption: Option<Encryption>,
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
