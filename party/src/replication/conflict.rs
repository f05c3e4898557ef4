//! Two trees that exclude each other, both signed: how they are found, and how others are told.
//!
//! When something of the remote's does not verify against our tree, then either the remote has forged it or the
//! feed's signers have signed another tree as well. Before the remote is blamed it is asked, once, for the proof
//! that its tree is signed. Whoever has seen that two are signed shows it to all and replicates the feed no
//! longer.
//!
//! See `protocol-spec/07-replication.md#conflicts` and hypercore's `_checkIfConflict` and `_onconflict`.

use std::time::Instant;

use super::{
    Ticket,
    messages::{Message, Request},
    remote::Remote,
};
use crate::{
    error::Error,
    feed::{
        conflict::Conflict,
        local::Local,
        proof::{Proof, ProofRequest, UpgradeRequest},
    },
    limits::Limits,
};

/// The id of the request for a conflict's proof, and of the answer, asked for or not.
pub(super) const CONFLICT: u64 = 0;

/// Proofs looked at at a time. Who tells of a conflict shows both trees, as it doesn't know which of them we have.
const TREES: usize = 2;

/// What is known of contradictions between our tree and the remote's.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    /// What the remote sent that does not verify. It is blamed for it unless there is a conflict.
    suspicion: Option<Error>,
    /// How long is waited for it to show why.
    deadline: Option<Instant>,
    /// Whether it was asked before.
    asked: bool,
    /// Proofs that are being verified.
    checking: usize,
    /// Proofs that the remote sent and that showed nothing.
    unproved: usize,
    /// How far we are with telling the remote.
    telling: Told,
    /// The tree that contradicts ours, to be told too.
    contradiction: Option<Proof>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Told {
    #[default]
    No,
    /// The proof is being made.
    Proving(Ticket),
    Yes,
}

impl Conflicts {
    /// Whether the remote has sent what does not verify, and what that means is not known yet.
    pub(super) fn is_suspicious(&self) -> bool {
        self.suspicion.is_some()
    }

    /// What has come does not verify. If it may be that the signers have contradicted themselves, gives the request
    /// for the proof of that.
    //= protocol-spec/07-replication.md#conflicts
    pub(super) fn suspect(&mut self, error: &Error, local: &dyn Local, remote: &Remote) -> Option<Message> {
        let Error::PeerMisbehaved(misbehaved) = error else { return None };
        let upgrade = shared_tree(local, remote)?;
        if self.asked || !Conflict::may_explain(misbehaved) || local.needs_manifest() {
            return None;
        }
        self.asked = true;
        self.suspicion = Some(error.clone());
        let proof = ProofRequest { upgrade: Some(upgrade), ..ProofRequest::default() };
        Some(Message::Request(Request { id: CONFLICT, fork: local.fork(), proof, priority: 0 }))
    }

    /// Whether data that answers no request may be the proof of a conflict, which is to be verified. Two at a time,
    /// and so many of no use.
    //= REPL-89, REPL-92
    pub(super) fn takes(&mut self, proof: &Proof, local: &dyn Local, limits: &Limits) -> bool {
        let of_tree = proof.upgrade.as_ref().filter(|_| {
            proof.block.is_none()
                && proof.hash.is_none()
                && proof.seek.is_none()
                && proof.fork == local.fork()
        });
        let is_comparable = of_tree.is_some_and(|upgrade| {
            upgrade.start == 0 && upgrade.length <= local.length() && !local.needs_manifest()
        });
        if !is_comparable || self.checking >= TREES || self.unproved >= limits.max_failed_requests {
            return false;
        }
        self.checking += 1;
        true
    }

    /// Begins to wait, if there is something to wait for.
    pub(super) fn wait(&mut self, now: Instant, limits: &Limits) {
        if self.is_suspicious() && self.deadline.is_none() {
            self.deadline = Some(now + limits.conflict_timeout);
        }
    }

    /// When [`expired`](Self::expired) is to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline.filter(|_| self.is_suspicious())
    }

    /// The remote has had time enough. Gives what it is to be blamed for.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Error> {
        if self.deadline().is_some_and(|deadline| deadline <= now) { self.suspicion.take() } else { None }
    }

    /// The remote has no proof for us. Gives what it is to be blamed for, unless one of its proofs is still looked at.
    pub(super) fn cleared(&mut self) -> Option<Error> {
        if self.checking > 0 { None } else { self.suspicion.take() }
    }

    /// A proof was verified. Gives what the remote is to be blamed for, if it shows no conflict.
    pub(super) fn checked(&mut self, is_conflict: bool) -> Option<Error> {
        self.checking = self.checking.saturating_sub(1);
        if is_conflict {
            self.suspicion = None;
            return None;
        }
        self.unproved = self.unproved.saturating_add(1);
        self.cleared()
    }

    /// What to prove to the remote, of a feed that has a conflict; `None` if it was told, or can't be.
    pub(super) fn tell(
        &mut self,
        ticket: impl FnOnce() -> Ticket,
        local: &dyn Local,
        remote: &Remote,
    ) -> Option<(Ticket, ProofRequest)> {
        if self.telling != Told::No {
            return None;
        }
        let Some(upgrade) = shared_tree(local, remote) else {
            self.telling = Told::Yes;
            return None;
        };
        let ticket = ticket();
        self.telling = Told::Proving(ticket);
        self.contradiction = contradiction(local, remote).cloned();
        Some((ticket, ProofRequest { upgrade: Some(upgrade), ..ProofRequest::default() }))
    }

    /// If `ticket` is that of the proof for the remote, which is made now: gives what to tell after it.
    pub(super) fn proved(&mut self, ticket: Ticket) -> Option<Option<Proof>> {
        (self.telling == Told::Proving(ticket)).then(|| {
            self.telling = Told::Yes;
            self.contradiction.take()
        })
    }

    /// Whether all is said to the remote.
    pub(super) fn is_told(&self) -> bool {
        self.telling == Told::Yes
    }
}

/// The tree that contradicts ours, if it is for the remote to see.
//= REPL-91
fn contradiction<'l>(local: &'l dyn Local, remote: &Remote) -> Option<&'l Proof> {
    let can_compare = |proof: &&Proof| {
        let length = proof.upgrade.as_ref().map(|upgrade| upgrade.length);
        proof.fork == remote.sync.fork && length.is_some_and(|length| length <= remote.sync.length)
    };
    local.contradiction().filter(can_compare)
}

/// The upgrade to the longest tree that both sides should have in common.
fn shared_tree(local: &dyn Local, remote: &Remote) -> Option<UpgradeRequest> {
    let length = local.length().min(remote.sync.length);
    (remote.sync.fork == local.fork() && length > 0).then_some(UpgradeRequest { start: 0, length })
}
