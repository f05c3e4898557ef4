//! One feed: a signed, append-only list of blocks under a Merkle tree.
//!
//! [`tree`], [`verifier`], [`prove`], [`verify`] and [`bitfield`] are values and hashing, and know nothing of
//! storage or time. [`Feed`] puts them over a [`storage::Storage`]. What a feed is on the wire, and why its
//! proofs hold, is in `protocol-spec/06-feeds.md`.

#[cfg(feature = "tokio")]
mod as_feed;
#[cfg(feature = "tokio")]
pub(crate) mod changes;
#[cfg(feature = "tokio")]
mod codec;
// Some of what stores a feed is used by its handle alone.
#[cfg_attr(not(feature = "tokio"), allow(dead_code))]
pub mod bitfield;
pub(crate) mod conflict;
mod demand;
pub mod encryption;
#[cfg(feature = "tokio")]
mod extension;
#[cfg(feature = "tokio")]
mod handle;
#[cfg(feature = "tokio")]
mod identity;
#[cfg(feature = "tokio")]
pub(crate) mod line;
pub mod local;
#[cfg(feature = "tokio")]
pub(crate) mod mailbox;
pub mod manifest;
pub mod memory;
#[cfg(feature = "tokio")]
mod open;
pub mod proof;
pub mod prove;
pub mod quorum;
pub mod reorg;
pub mod seek;
#[cfg_attr(not(feature = "tokio"), allow(dead_code))]
pub mod state;
pub mod storage;
#[cfg(feature = "tokio")]
mod stream;
#[cfg_attr(not(feature = "tokio"), allow(dead_code))]
mod traffic;
#[cfg_attr(not(feature = "tokio"), allow(dead_code))]
pub mod tree;
#[cfg_attr(not(feature = "tokio"), allow(dead_code))]
pub mod verifier;
pub mod verify;
#[cfg(feature = "tokio")]
mod view;

#[cfg(feature = "json")]
pub use self::codec::Json;
#[cfg(feature = "tokio")]
pub use self::{
    as_feed::AsFeed,
    changes::{FeedChange, FeedChanges},
    codec::{Binary, Codec, Protobuf, Utf8},
    demand::{Changes, Download, DownloadOptions, Progress},
    extension::Extension,
    handle::{
        Audit, Batch, Feed, FeedReorg, FeedSnapshot, FetchOptions, Followed, Info, Ingested, Problem,
        RangeReader,
    },
    identity::Identity,
    line::FeedPeer,
    stream::{ByteReader, ByteWriter, History, Live, LiveEvent},
    view::View,
};
pub use self::{
    conflict::Conflict,
    demand::{Demand, Order, RangeSet},
    encryption::Encryption,
    local::Local,
    state::State,
    traffic::Traffic,
};
#[cfg(feature = "tokio")]
pub(crate) use self::{
    demand::{Listener, Teller},
    handle::{Home, WeakFeed},
    traffic::Tally,
};
