//! Feeds: what is written to them, read from them, proved and believed of them.

#[path = "../common/mod.rs"]
mod common;

mod deletion;
mod encryption;
mod handles;
mod ingest;
mod model;
mod peer;
mod properties;
#[cfg(feature = "disk")]
mod prove_many;
mod quorum;
#[cfg(feature = "json")]
mod streams;
mod together;
mod tree_properties;
