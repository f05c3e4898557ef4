//! The one door to the operating system's randomness.
#![allow(clippy::disallowed_methods)]

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
