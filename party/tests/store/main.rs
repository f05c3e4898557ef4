//! Stores: many feeds in one place.

#[path = "../common/mod.rs"]
mod common;

mod handles;
mod life;
#[cfg(feature = "disk")]
mod model;
mod names;
#[cfg(all(feature = "disk", unix))]
mod secrets;
mod writers;
