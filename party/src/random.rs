//! The one door to the operating system's randomness.
#![allow(clippy::disallowed_methods)]

use std::fmt;

use zeroize::Zeroizing;

use crate::hash::keyed_hash;

/// Where something takes its randomness from.
pub(crate) enum Random {
    /// The operating system.
    System,
    /// A seed, so that all can be repeated: how often something was taken, and from what.
    Seeded(u64, Zeroizing<[u8; 32]>),
}

impl Random {
    /// `N` random bytes, 32 at most.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= 32) };
        let Self::Seeded(taken, seed) = self else { return bytes() };
        let digest = keyed_hash(&**seed, &[&taken.to_le_bytes()]);
        *taken += 1;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&digest[..N]);
        bytes
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Seeded(..) => "Seeded",
        })
    }
}

/// Fills `bytes` with random bytes.
///
/// # Panics
/// If the operating system has no randomness to give. There is nothing safe to do then.
pub(crate) fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

/// `N` random bytes.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_again_and_never_twice() {
        let take = |seed: [u8; 32]| {
            let mut random = Random::Seeded(0, Zeroizing::new(seed));
            [random.bytes::<32>(), random.bytes::<32>(), random.bytes::<32>()]
        };
        assert_eq!(take([1; 32]), take([1; 32]));
        let mut all = [take([1; 32]), take([2; 32])].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
    }
}
