//! Selective replication of signed append-only feeds, on the wire of the JavaScript Hypercore stack.

pub mod admission;
#[cfg(feature = "tokio")]
pub mod connection;
pub mod encoding;
pub mod error;
pub mod feed;
pub mod hash;
pub mod key;
pub mod limits;
pub mod mux;
pub mod noise;
#[cfg(feature = "tokio")]
pub mod party;
#[cfg(feature = "tokio")]
pub mod peer;
#[cfg(feature = "tokio")]
mod random;
#[cfg(feature = "tokio")]
pub mod rules;
pub mod session;
