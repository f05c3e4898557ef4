//! What a channel wants done, and what comes of it.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    feed::{
        proof::{Proof, ProofRequest},
        reorg::PendingReorg,
    },
    replication::payload::Payload,
};

/// Names an [`Output::Serve`] or an [`Output::Ingest`], for its result to be handed back. Each kind counts
/// for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(in crate::replication) u64);

/// What a channel wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A message for the remote.
    Send {
        /// Its type.
        message_type: u64,
        /// Its bytes.
        payload: Payload,
    },
    /// A request, mostly of the remote's: make the proof and call [`Channel::handle_served`](super::Channel::handle_served).
    Serve {
        /// To be handed back.
        ticket: Ticket,
        /// What is asked for.
        request: ProofRequest,
        /// The fork that it is about, which is ours.
        fork: u64,
    },
    /// An answer: verify and store it, and call [`Channel::handle_ingested`](super::Channel::handle_ingested).
    Ingest {
        /// To be handed back.
        ticket: Ticket,
        /// The answer.
        proof: Proof,
    },
    /// A proof of a fork above ours: let the feed [follow](crate::feed::Feed::follow) it, and call
    /// [`Channel::handle_followed`](super::Channel::handle_followed).
    Follow {
        /// To be handed back.
        ticket: Ticket,
        /// The proof.
        proof: Proof,
    },
    /// The remote can't show what the way to a fork above ours wants: let the feed [go without it](crate::feed::Feed::forgo),
    /// and call [`Channel::handle_followed`](super::Channel::handle_followed).
    Forgo {
        /// To be handed back.
        ticket: Ticket,
        /// What was wanted.
        pending: PendingReorg,
    },
    /// What may show that the feed's signers have contradicted themselves: let the feed
    /// [look at it](crate::feed::Feed::check_conflict), and call [`Channel::handle_conflict_checked`](super::Channel::handle_conflict_checked).
    CheckConflict {
        /// The proof.
        proof: Proof,
    },
    /// A message of an extension has come.
    Extension {
        /// The extension's name.
        name: Arc<str>,
        /// The message.
        message: Bytes,
    },
}

/// What came of an answer that was [verified](Output::Ingest).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds, and what was new in it is stored.
    Holds,
    /// It does not contradict anything, but leads to no node that is known here. Nothing of it is stored.
    Unconnected,
}
