//! Replication of one feed with one remote: the `hypercore/alpha` channel.

mod capability;
mod have;
pub mod messages;
mod ranges;

pub use capability::{RemoteHandshake, capability};
