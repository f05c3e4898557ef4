//! One block, encrypted and decrypted.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use salsa20::{
    XSalsa20,
    cipher::{KeyIvInit, StreamCipher},
};
use zeroize::Zeroizing;

use super::{PADDING, keys::blinding_key};
use crate::error::ApiMisuse;

/// Encrypts and decrypts the blocks of one feed; from [`Encryption::cipher`](super::Encryption::cipher). Its keys are
/// wiped from memory on drop.
///
/// A block's keystream is determined by the key, the block's index and the fork that it was appended on, so no two
/// blocks may ever be sealed under the same index and fork: what is appended after a truncation has a higher fork.
///
/// ```
/// use party::feed::encryption::{Encryption, Scheme};
/// use party::key::FeedKey;
///
/// let feed = FeedKey::from_bytes([1; 32]);
/// let cipher = Encryption::new([7; 32]).cipher(&feed, Scheme::Manifest);
/// let stored = cipher.seal(3, 0, b"hello");
/// assert_eq!(cipher.open(3, 0, stored.clone())?, "hello");
/// assert!(cipher.open(4, 0, stored).is_err()); // it opens in its own place only
/// # Ok::<(), party::error::ApiMisuse>(())
/// ```
#[derive(Clone)]
pub struct BlockCipher {
    block_key: Zeroizing<[u8; 32]>,
    blinding_key: Zeroizing<[u8; 32]>,
}

impl BlockCipher {
    pub(super) fn new(block_key: Zeroizing<[u8; 32]>) -> Self {
        let blinding_key = blinding_key(&block_key);
        Self { block_key, blinding_key }
    }

    /// Block `index`, as it is appended while the feed is on `fork`: 8 bytes that tell the fork to those who have the
    /// key, and then the block, encrypted.
    //= FEED-50
    pub fn seal(&self, index: u64, fork: u64, block: &[u8]) -> Bytes {
        let prefix = self.blind(index, fork.to_le_bytes());
        let mut stored = BytesMut::with_capacity(PADDING.saturating_add(block.len()));
        stored.put_slice(&prefix);
        stored.put_slice(block);
        if let Some((_, text)) = stored.split_at_mut_checked(PADDING) {
            xor(&self.block_key, index, prefix, text);
        }
        stored.freeze()
    }

    /// What was sealed as block `index` of a feed whose fork is `fork` now.
    ///
    /// A wrong key passes the check of the prefix with a probability of (`fork` + 1) / 2^64 for each block, and gives
    /// garbage then.
    ///
    /// # Errors
    /// [`ApiMisuse::WrongEncryptionKey`] if the prefix tells a fork above `fork`, [`ApiMisuse::NotEncrypted`] if there
    /// is no room for a prefix.
    //= FEED-53, FEED-54
    pub fn open(&self, index: u64, fork: u64, stored: Bytes) -> Result<Bytes, ApiMisuse> {
        let prefix = *stored.first_chunk::<PADDING>().ok_or(ApiMisuse::NotEncrypted { index })?;
        //= protocol-spec/06-feeds.md#block-encryption
        if u64::from_le_bytes(self.blind(index, prefix)) > fork {
            return Err(ApiMisuse::WrongEncryptionKey { index });
        }
        // In place if nobody else holds these bytes.
        let mut text = stored.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        text.advance(PADDING);
        xor(&self.block_key, index, prefix, &mut text);
        Ok(text.freeze())
    }

    /// Blinds the fork in the prefix of block `index`, or undoes that.
    fn blind(&self, index: u64, mut prefix: [u8; PADDING]) -> [u8; PADDING] {
        xor(&self.blinding_key, index, [0; PADDING], &mut prefix);
        prefix
    }
}

impl fmt::Debug for BlockCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlockCipher(secret)")
    }
}

/// XSalsa20 under the nonce of index, prefix and 8 zeros.
//= protocol-spec/06-feeds.md#block-encryption
fn xor(key: &[u8; 32], index: u64, prefix: [u8; PADDING], text: &mut [u8]) {
    let mut nonce = [0; 24];
    for (to, from) in nonce.iter_mut().zip(index.to_le_bytes().into_iter().chain(prefix)) {
        *to = from;
    }
    XSalsa20::new(key.into(), &nonce.into()).apply_keystream(text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cipher(key: u8) -> BlockCipher {
        BlockCipher::new(Zeroizing::new([key; 32]))
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_as_it_was(
            block in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..300),
                (65_000usize..70_000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
            ],
            index: u64,
            fork: u64,
            later in 0u64..1_000,
        ) {
            let stored = cipher(1).seal(index, fork, &block);
            prop_assert_eq!(stored.len(), block.len() + PADDING);
            let (held, bytes) = (stored.clone(), stored.to_vec());
            prop_assert_eq!(cipher(1).open(index, fork.saturating_add(later), stored), Ok(Bytes::from(block)));
            prop_assert_eq!(held, bytes, "somebody else held them, and has them as they were");
        }

        // By chance a key passes with a probability of 2^-44 here.
        #[test]
        fn a_wrong_key_is_an_error(key in 2u8.., index: u64, fork in 0u64..1 << 20, block: Vec<u8>) {
            let stored = cipher(1).seal(index, fork, &block);
            prop_assert_eq!(cipher(key).open(index, fork, stored), Err(ApiMisuse::WrongEncryptionKey { index }));
        }

        #[test]
        fn a_block_from_another_place_is_an_error(index: u64, other: u64, fork in 0u64..1 << 20) {
            prop_assume!(index != other);
            let stored = cipher(1).seal(index, fork, b"text");
            prop_assert!(cipher(1).open(other, fork, stored).is_err());
        }
    }

    //= FEED-53
    #[test]
    fn a_block_of_a_fork_to_come_is_an_error() {
        let stored = cipher(1).seal(5, 3, b"text");
        assert_eq!(cipher(1).open(5, 2, stored.clone()), Err(ApiMisuse::WrongEncryptionKey { index: 5 }));
        assert_eq!(cipher(1).open(5, 3, stored.clone()), Ok("text".into()));
        assert_eq!(cipher(1).open(5, u64::MAX, stored), Ok("text".into()));
    }

    //= FEED-54
    #[test]
    fn a_block_without_room_for_a_prefix_is_an_error() {
        for length in 0..PADDING {
            let stored = Bytes::from(vec![0; length]);
            assert_eq!(cipher(1).open(9, u64::MAX, stored), Err(ApiMisuse::NotEncrypted { index: 9 }));
        }
        assert_eq!(cipher(1).open(9, u64::MAX, Bytes::from_static(&[0; PADDING])), Ok(Bytes::new()));
    }

    #[test]
    fn the_same_block_looks_different_at_each_index_and_fork() {
        let stored =
            [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(index, fork)| cipher(1).seal(index, fork, &[0; 64]));
        for (n, one) in stored.iter().enumerate() {
            for other in &stored[n + 1..] {
                assert_ne!(one, other);
            }
        }
    }
}
