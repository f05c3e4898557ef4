//! Replication of one feed with one remote: the `hypercore/alpha` channel.
//!
//! A [`Channel`] is a state machine. It is told what the remote sends, how our side of the feed stands
//! ([`Local`](crate::feed::local::Local)) and what is wanted ([`Demand`](crate::feed::local::Demand)); it says
//! what to send, which requests to serve and which answers to verify and store. It never sees the feed itself,
//! nor a socket or a clock.
//!
//! Each side tells the other its length (`sync`) and its blocks (`range`, `bitfield`, on request by `want`).
//! A reader then asks for the signed growth of the feed and for blocks (`request`); the answers (`data`) prove
//! themselves. What a remote claims is kept as ranges and pages of bits, requests and answers wait in bounded
//! queues, and nothing is stored that was not asked for.
//!
//! The wire is that of hypercore 10 and 11, `lib/replicator.js`; see `protocol-spec/07-replication.md`.

mod asking;
mod backoff;
mod capability;
mod channel;
mod conflict;
mod counters;
mod extensions;
mod have;
pub mod messages;
mod newest;
mod numbered;
mod pace;
mod payload;
mod picking;
mod push;
mod ranges;
mod rarity;
mod remote;
mod reorg;
mod seeking;
mod serving;
mod shown;
mod swarm;
mod telling;
mod window;

pub use capability::{RemoteHandshake, capability, handshake};
pub use channel::{Channel, Options, Output, Status, Ticket, Verdict};
pub use counters::{Counters, MessageCounts};
pub use pace::Pace;
pub use payload::Payload;
pub use swarm::Swarm;

/// The name of the protocol, as a channel is opened with it.
pub const PROTOCOL: &str = "hypercore/alpha";

/// Other names under which a remote may open it.
pub const ALIASES: &[&str] = &["hypercore"];

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // any time will do to begin with
mod tests;
