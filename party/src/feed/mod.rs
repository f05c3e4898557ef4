//! One feed: a signed, append-only list of blocks under a Merkle tree.
//!
//! [`tree`], [`verifier`], [`prove`], [`verify`] and [`bitfield`] are values and hashing, and know nothing of
//! storage or time. [`Feed`] puts them over a [`storage::Storage`]. What a feed is on the wire, and why its
//! proofs hold, is in `protocol-spec/06-feeds.md`.

#[cfg(feature = "tokio")]
mod as_feed;
// Some of what stores a feed is used by its handle alone.
#[cfg_attr(not(feature = "tokio"), allow(dead_code))]
pub mod bitfield;
#[cfg(feature = "tokio")]
mod demand;
#[cfg(feature = "tokio")]
mod handle;
#[cfg(feature = "tokio")]
mod identity;
pub mod local;
pub mod manifest;
pub mod memory;
#[cfg(feature = "tokio")]
mod open;
pub mod proof;
pub mod prove;
pub mod reorg;
pub mod seek;
#[cfg_attr(not(feature = "tokio"), allow(dead_code))]
pub mod state;
pub mod storage;
#[cfg_attr(not(feature = "tokio"), allow(dead_code))]
pub mod tree;
#[cfg_attr(not(feature = "tokio"), allow(dead_code))]
pub mod verifier;
pub mod verify;

#[cfg(feature = "tokio")]
pub(crate) use self::handle::WeakFeed;
#[cfg(feature = "tokio")]
pub use self::{
    as_feed::AsFeed,
    demand::{Changes, Download},
    handle::{Audit, Batch, ByteReader, Feed, FeedReorg, FeedSnapshot, Info, Ingested, Problem},
    identity::Identity,
};
pub use self::{
    local::{Demand, Local},
    state::State,
};
