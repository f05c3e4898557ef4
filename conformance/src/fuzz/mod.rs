//! The bodies of the fuzz targets.
//!
//! A body takes any bytes and panics only if the library does, or breaks a promise. `fuzz/` runs each of them
//! under libFuzzer (`cargo +nightly fuzz run handshake`, in the repository's root). On stable,
//! `tests/fuzz_corpus.rs` runs the committed corpus through them, and `tests/*_properties.rs` random bytes.
//!
//! | what | targets |
//! |---|---|
//! | decoders | `feed_messages`, `party_messages`, `credential`, `ticket` |
//! | a state machine between two ends, and somebody on the wire or at the other end | `handshake`, `secret_stream`, `mux`, `feed_messages`, `admission`, `replication`, `revocations` |
//! | proofs, and who makes and checks them | `feed`, `proofs` |
//! | against what does the same in the plainest way | `differential`, `party_messages` |
//! | what is stored is not what was written | `store_values`, `store_files` |
//!
//! `CONTRIBUTING.md` says how to add one.

mod admission;
mod credentials;
mod differential;
mod exchange;
mod feed;
mod input;
mod mux;
mod party_messages;
mod proofs;
mod protobuf;
mod replication;
mod script;
mod sketch;
mod slow_messages;
mod slow_tree;
mod store;
mod wire;

pub use admission::{admission, admission_proof, admitted_by_hostile, admitted_pair};
pub use credentials::{credential, revocations, ticket};
pub use differential::{differential, encoder, verifier};
pub use exchange::replication;
pub use feed::feed;
pub use mux::{honest_ends, hostile_remote, mux};
pub use party_messages::party_messages;
pub use proofs::proofs;
pub use replication::{feed_channel, feed_message, feed_messages};
pub use store::{store_files, store_values};
pub use wire::{handshake, secret_stream};

/// What a target does with its input.
pub type Body = fn(&[u8]);

/// Every target by name.
pub const TARGETS: &[(&str, Body)] = &[
    ("handshake", handshake),
    ("secret_stream", secret_stream),
    ("mux", mux),
    ("feed", feed),
    ("feed_messages", feed_messages),
    ("credential", credential),
    ("revocations", revocations),
    ("ticket", ticket),
    ("admission", admission),
    ("party_messages", party_messages),
    ("proofs", proofs),
    ("differential", differential),
    ("replication", exchange::replication),
    ("store_values", store_values),
    ("store_files", store_files),
];
