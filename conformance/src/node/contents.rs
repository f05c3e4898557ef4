//! Blocks that either side can make, and digests of blocks.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// SHA-256 over blocks in order, and how many bytes they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentDigest {
    /// In hex.
    pub sha256: String,
    /// Bytes.
    pub byte_length: u64,
}

/// Block `index` of the feed that `seed` names: `size` bytes, the same as `block` in `conformance/node/lib.js`.
///
/// Little-endian words of xorshift32 that starts at `seed ^ (index + 1) * 0x9E3779B1`, or at 1 where that is zero.
#[must_use]
pub fn block(seed: u32, index: u64, size: usize) -> Bytes {
    let low = (index & u64::from(u32::MAX)) as u32;
    let mut state = (seed ^ low.wrapping_add(1).wrapping_mul(0x9E37_79B1)).max(1);
    let mut bytes = BytesMut::with_capacity(size.next_multiple_of(4));
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.put_u32_le(state);
    }
    bytes.truncate(size);
    bytes.freeze()
}

/// The digest over the blocks `0..count` as [`block`] makes them.
#[must_use]
pub fn digest_of_blocks(seed: u32, count: u64, size: usize) -> ContentDigest {
    digest((0..count).map(|index| block(seed, index, size)))
}

/// The digest over `blocks` in order.
#[must_use]
pub fn digest(blocks: impl IntoIterator<Item = Bytes>) -> ContentDigest {
    let mut hash = Sha256::new();
    let mut byte_length = 0;
    for block in blocks {
        hash.update(&block);
        byte_length += block.len() as u64;
    }
    ContentDigest { sha256: hex(&hash.finalize()), byte_length }
}

/// Hexadecimal digits, as the Node peers say bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
