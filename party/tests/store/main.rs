//! Stores: many feeds in one place.

#[path = "../common/mod.rs"]
mod common;

mod handles;
mod life;
#[cfg(feature = "disk")]
mod model;
mod names;
mod writers;
