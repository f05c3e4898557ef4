//! Many feeds in one place.

#[cfg(feature = "disk")]
pub mod disk;
mod options;
mod record;
mod secrets;
pub use self::options::FeedOptions;
