//! Selective replication of signed append-only feeds, on the wire of the JavaScript Hypercore stack.

pub mod encoding;
pub mod error;
pub mod feed;
pub mod hash;
pub mod key;
pub mod limits;
pub mod mux;
pub mod noise;
#[cfg(feature = "tokio")]
mod random;
pub mod session;
