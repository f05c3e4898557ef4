//! From the key that people hand around to the one that encrypts the blocks of one feed.

use zeroize::Zeroizing;

use crate::{
    feed::manifest::hypercore_namespace,
    hash::{hash, keyed_hash},
    key::FeedKey,
};

/// How a feed's block key is derived. It isn't chosen: every release of hypercore goes by the feed's kind.
///
/// ```
/// use party::feed::encryption::{Encryption, Scheme};
/// use party::key::FeedKey;
///
/// let (feed, encryption) = (FeedKey::from_bytes([1; 32]), Encryption::new([7; 32]));
/// let stored = encryption.cipher(&feed, Scheme::Legacy).seal(0, 0, b"hello");
/// // Who takes a feed for one of the other kind doesn't get at its blocks.
/// assert!(encryption.cipher(&feed, Scheme::Manifest).open(0, 0, stored).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Of feeds with a manifest, as hypercore 11 has it.
    Manifest,
    /// Of legacy feeds, whose key is the signer's public key, as hypercore 10 has it.
    Legacy,
}

impl Scheme {
    //= FEED-48
    pub(super) fn block_key(self, feed: &FeedKey, key: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(match self {
            Self::Manifest => hash(&[&hypercore_namespace(5), feed.as_bytes(), key]),
            Self::Legacy => keyed_hash(feed.as_bytes(), &[key]),
        })
    }
}

//= protocol-spec/06-feeds.md#block-encryption
pub(super) fn blinding_key(block_key: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(hash(&[block_key]))
}
