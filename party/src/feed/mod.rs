//! One feed: a signed, append-only list of blocks under a Merkle tree.

pub mod local;
pub mod manifest;
pub mod proof;
pub mod storage;
