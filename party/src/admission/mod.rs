//! The party channel: who is a member, and what members say to each other. Sans-IO.
//!
//! A connection begins between strangers. The Noise initiator opens a channel whose id, and the proof inside,
//! only a member can compute ([`membership`]); the responder checks them before it answers with a proof of
//! its own. When both are verified the peers are *admitted*, and a [`PartyChannel`] carries their
//! transactions. Specified in `protocol-spec/08-party.md`.

mod channel;
pub mod membership;
mod messages;
#[rustfmt::skip] // generated
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod proto;
#[cfg(test)]
mod tests;

pub use channel::{Event, PartyChannel, TransactionId};
pub use messages::{Body, Hello, Introduced, Message, RefusalCode};

/// The Protomux protocol name of party channels.
pub const PROTOCOL: &str = "party/1";
