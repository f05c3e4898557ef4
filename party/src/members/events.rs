//! What there is to tell about members.

use tokio::sync::broadcast;

use crate::{
    credentials::{CheckedChain, VerifiedRevocation},
    error::{CredentialFlaw, DecodeError, PeerMisbehaved, StorageError},
    key::PublicKey,
};

/// Something that has happened to the members of a party.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum MembersEvent {
    /// A membership became known, good or not.
    Added(CheckedChain),
    /// A membership that is known was revoked, and has ended on every connection.
    Removed {
        /// Whose.
        chain: CheckedChain,
        /// What ends it.
        revocation: Box<VerifiedRevocation>,
    },
    /// We let a peer in by this membership.
    Admitted {
        /// The static key of the peer.
        peer: PublicKey,
        /// Its membership.
        chain: CheckedChain,
    },
    /// A peer was refused, or what it had is over.
    Refused {
        /// The static key of the peer.
        peer: PublicKey,
        /// Why.
        why: Refusal,
    },
    /// Our own membership was revoked. See [`Members::standing`](super::Members::standing).
    OwnRemoved(Box<VerifiedRevocation>),
    /// Our own membership has expired.
    OwnExpired,
    /// What has changed is not remembered, and won't be after a restart. It is tried again when more changes.
    NotSaved(StorageError),
    /// The receiver was too slow and has lost so many events.
    Missed(u64),
}

/// Why a peer is not let in, or not any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It has shown none.
    #[error("it has no membership")]
    NoMembership,
    /// What it has shown does not hold: for this peer, in this party, at this time.
    #[error("its membership does not hold: {0}")]
    Flaw(#[from] CredentialFlaw),
    /// What it has shown can't be read as a membership.
    #[error("its membership can't be read: {0}")]
    Malformed(DecodeError),
    /// Its membership was revoked.
    #[error("its membership was revoked by {by}")]
    Revoked {
        /// Who has signed the revocation.
        by: PublicKey,
    },
    /// It has not shown a membership, or has not answered ours, within
    /// [`Limits::membership_timeout`](crate::limits::Limits::membership_timeout).
    #[error("it took too long to show its membership and to answer ours")]
    TooSlow,
    /// It does not accept our membership.
    #[error("it does not accept our membership")]
    RefusesUs,
    /// It broke the protocol.
    #[error("it misbehaved: {0}")]
    Misbehaved(#[from] PeerMisbehaved),
    /// The connection is in open mode, where nothing can be shown.
    #[error("it is not in a party")]
    OpenMode,
    /// The app's own rules don't let it in.
    #[error("the rules do not let it in")]
    Rules,
}

/// How we stand in a party.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// We have no membership.
    Stranger,
    /// We have one that is good, as far as we know.
    Member(CheckedChain),
    /// Ours has expired.
    Expired,
    /// Ours was revoked, by this.
    Removed(Box<VerifiedRevocation>),
}

impl Standing {
    /// Whether we are a member, as far as we know.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Member(_))
    }
}

/// A stream of [`MembersEvent`]s; from [`Members::events`](super::Members::events).
#[derive(Debug)]
pub struct MembersEvents {
    receiver: broadcast::Receiver<MembersEvent>,
}

impl MembersEvents {
    pub(super) fn new(receiver: broadcast::Receiver<MembersEvent>) -> Self {
        Self { receiver }
    }

    /// The next event; `None` when there is nobody left who could cause one.
    pub async fn next(&mut self) -> Option<MembersEvent> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(MembersEvent::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
