//! Many feeds in one place.

#[cfg(feature = "disk")]
pub mod disk;
