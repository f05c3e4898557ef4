//! A party whose founder is the first of many key pairs, for tests that make and check bytes.

use party::{
    key::{KeyPair, PartyKey},
    limits::Limits,
};

pub(crate) fn pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

pub(crate) fn founder() -> KeyPair {
    pair(1)
}

pub(crate) fn party() -> PartyKey {
    PartyKey::from_bytes(*founder().public().as_bytes())
}

pub(crate) fn limits() -> Limits {
    Limits::default()
}
