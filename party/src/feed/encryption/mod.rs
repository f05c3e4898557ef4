//! Encryption of a feed's blocks, so that peers can store, verify and serve a feed that they can't read.
//!
//! Blocks are encrypted before they enter the Merkle tree: what is hashed, signed, stored and replicated is the
//! ciphertext, and nothing of replication knows of it. All of hypercore encrypts a block alike ([`BlockCipher`]);
//! what differs is how the key for it is derived ([`Scheme`]): by hypercore 10 for legacy feeds, by hypercore 11
//! (and by 10.31) for feeds with a manifest. Which of the two a feed has follows from its kind.
//! See `protocol-spec/06-feeds.md#block-encryption`.
//!
//! What it does not do: there is no MAC. The feed's signature says that a block is what the writer appended,
//! not that the key at hand is the one it was encrypted with; that shows in a prefix of 8 bytes, which is a check
//! and no authentication. The lengths of blocks are visible to everybody who has the feed.

mod cipher;
mod keys;

use std::fmt;

use zeroize::Zeroizing;

pub use self::{cipher::BlockCipher, keys::Scheme};
use crate::key::FeedKey;

/// By how many bytes a block grows when it is encrypted: the length of the prefix that tells its fork.
pub const PADDING: usize = 8;

/// The secret that a feed's blocks are encrypted with. It is wiped from memory on drop, and `Debug` doesn't show it.
///
/// One such key may serve for many feeds: a key of its own is derived from it for each. What `encryptionKey` and
/// `encryption: { key }` are in Node.
///
/// ```
/// use party::feed::encryption::{Encryption, Scheme};
/// use party::key::FeedKey;
///
/// let feed = FeedKey::from_bytes([1; 32]);
/// let cipher = Encryption::new([7; 32]).cipher(&feed, Scheme::Manifest);
/// let stored = cipher.seal(3, 0, b"hello");
/// assert_eq!(stored.len(), 5 + 8);
/// assert_eq!(cipher.open(3, 0, stored.clone())?, "hello");
///
/// let wrong = Encryption::new([8; 32]).cipher(&feed, Scheme::Manifest);
/// assert!(wrong.open(3, 0, stored).is_err());
/// # Ok::<(), party::error::ApiMisuse>(())
/// ```
#[derive(Clone)]
pub struct Encryption {
    key: Zeroizing<[u8; 32]>,
    is_block_key: bool,
}

impl Encryption {
    /// Encryption with the key `key`, which should be 32 random bytes.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key: Zeroizing::new(key), is_block_key: false }
    }

    /// Encryption with a [`block_key`](Self::block_key), which is for a single feed. Node's `block: true`.
    pub fn with_block_key(key: [u8; 32]) -> Self {
        Self { key: Zeroizing::new(key), is_block_key: true }
    }

    /// Encryption with a fresh key, from the randomness of the operating system.
    #[cfg(feature = "tokio")]
    pub fn generate() -> Self {
        let mut key = Zeroizing::new([0; 32]);
        crate::random::fill(&mut *key);
        Self { key, is_block_key: false }
    }

    /// The key itself, for keeping it or handing it to a reader: the secret.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// The key that opens this one feed's blocks and no other's, for a reader who is to have no more than that.
    pub fn block_key(&self, feed: &FeedKey, scheme: Scheme) -> Zeroizing<[u8; 32]> {
        if self.is_block_key { self.key.clone() } else { scheme.block_key(feed, &self.key) }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.is_block_key == other.is_block_key && *self.key == *other.key
    }

    /// What encrypts and decrypts the blocks of `feed`.
    pub fn cipher(&self, feed: &FeedKey, scheme: Scheme) -> BlockCipher {
        BlockCipher::new(self.block_key(feed, scheme))
    }
}

impl From<[u8; 32]> for Encryption {
    fn from(key: [u8; 32]) -> Self {
        Self::new(key)
    }
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encryption(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown_by_accident() {
        assert_eq!(format!("{:?}", Encryption::new([0xa7; 32])), "Encryption(secret)");
        let cipher = Encryption::new([0xa7; 32]).cipher(&FeedKey::from_bytes([1; 32]), Scheme::Legacy);
        assert_eq!(format!("{cipher:?}"), "BlockCipher(secret)");
    }

    #[test]
    fn a_block_key_opens_its_own_feed_only() {
        let (one, other) = (FeedKey::from_bytes([1; 32]), FeedKey::from_bytes([2; 32]));
        for scheme in [Scheme::Manifest, Scheme::Legacy] {
            let encryption = Encryption::new([7; 32]);
            let handed_on = Encryption::with_block_key(*encryption.block_key(&one, scheme));
            assert_eq!(handed_on.block_key(&one, scheme), encryption.block_key(&one, scheme));
            let sealed = |feed| encryption.cipher(feed, scheme).seal(0, 0, b"x");
            assert_eq!(handed_on.cipher(&one, scheme).open(0, 0, sealed(&one)).unwrap(), "x");
            assert!(handed_on.cipher(&other, scheme).open(0, 0, sealed(&other)).is_err());
        }
    }
}
