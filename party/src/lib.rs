//! Selective replication of signed append-only feeds, on the wire of the JavaScript Hypercore stack.
//!
//! People who share a *party*, a virtual space named by a 32-byte key, replicate *feeds* inside it, and the
//! app's own [rules](rules::Rules) decide which feed goes to which peer. Everything runs over one
//! Noise-encrypted, multiplexed stream per pair of peers. It is the wire of hypercore 10 and 11, so an
//! unmodified Node peer replicates with a Rust peer.
//!
//! # Where to begin
//!
//! - Make a [`Store`](store::Store), in memory or on disk, and [`Feed`](feed::Feed)s in it.
//! - Write [`Rules`](rules::Rules), or take [`WholeStore`](rules::WholeStore).
//! - Put a key and rules together to a [`Party`](party::Party), and let
//!   [`Connection`](connection::Connection)s [join](connection::Connecting::join) it. For peers that know no
//!   party there is the [open mode](party::Open).
//!
//! ```
//! use party::{
//!     connection::{self, Connection},
//!     key::{KeyPair, PartyKey},
//!     party::Party,
//!     rules::WholeStore,
//!     store::{FeedOptions, Store},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), party::error::Error> {
//! let (key, _founder) = PartyKey::generate();
//! let (here, there) = (Store::memory(), Store::memory());
//! let feed = here.create_feed("notes", FeedOptions::default()).await?;
//! feed.append("a block").await?;
//!
//! let (left, right) = connection::memory(); // or `connection::dial` and `connection::Listener`
//! let serving = Party::new(key, WholeStore::new(here));
//! tokio::spawn(async move {
//!     let connection = Connection::accept(right, &KeyPair::generate()).join(&serving).await?;
//!     connection.closed().await
//! });
//!
//! let pulling = Party::new(key, WholeStore::new(there.clone()));
//! let connection = Connection::dial(left, &KeyPair::generate()).join(&pulling).finite().await?;
//! connection.closed().await?; // by itself, when all is in sync
//!
//! let copy = there.feed(&feed.key()).await?;
//! assert_eq!(copy.get(0).await?.unwrap(), "a block");
//! # Ok(())
//! # }
//! ```
//!
//! # How it is built
//!
//! Each floor uses only those before it: [`encoding`], [`noise`], [`mux`], [`feed`], [`store`],
//! [`replication`], [`admission`], [`credentials`], [`rules`], [`party`], [`connection`], [`members`], [`party_map`]. The state machines
//! (`noise`, `mux`, `replication`, `admission`, `credentials`) do no IO: they take bytes, time and randomness as arguments and give bytes and
//! events back, so that a test, a fuzzer or another runtime can drive them. They, and the parts of a feed
//! that compute, build without the default features.
//!
//! Whatever a peer can make us keep is bounded by [`Limits`](limits::Limits), and errors say
//! [who erred](error).
//!
//! # Features
//!
//! - `tokio` (default): feeds and stores as handles, parties, connections.
//! - `disk` (default): stores on disk.

pub mod admission;
mod buffers;
#[cfg(feature = "tokio")]
pub mod connection;
pub mod credentials;
pub mod encoding;
pub mod error;
pub mod feed;
pub mod hash;
pub mod key;
pub mod limits;
#[cfg(feature = "tokio")]
pub mod members;
pub mod mux;
pub mod noise;
#[cfg(feature = "tokio")]
pub mod party;
#[cfg(feature = "tokio")]
pub mod party_map;
#[cfg(feature = "tokio")]
pub mod peer;
#[cfg(feature = "tokio")]
mod random;
pub mod replication;
#[cfg(feature = "tokio")]
pub mod rules;
pub mod session;
#[cfg(feature = "tokio")]
pub mod store;
pub mod ticket;

/// The README's example compiles.
#[cfg(all(doctest, feature = "disk"))]
#[doc = include_str!("../../README.md")]
struct Readme;
