//! Ready-made policy: a list of peers.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
};

use super::{Decision, Policy, Question};
use crate::{key::PublicKey, peer::Peer};

/// Lets in whom it lists, by static key, and allows them everything. For a party whose members are known, or from which
/// somebody was [removed](crate::party::Party::remove_peer) for good.
///
/// Clones share the list. It may change at any time; what follows from that takes effect with
/// [`Party::reevaluate`](crate::party::Party::reevaluate).
///
/// ```
/// use party::{key::KeyPair, rules::AllowPeers};
///
/// let (alice, bob) = (KeyPair::generate().public(), KeyPair::generate().public());
/// let members = AllowPeers::new([alice]);
/// let same = members.clone();
/// assert!(same.insert(bob) && !members.insert(bob));
/// assert!(members.remove(&alice) && !same.contains(&alice));
/// ```
#[derive(Clone, Debug)]
pub struct AllowPeers {
    list: Arc<RwLock<BTreeSet<PublicKey>>>,
    decides_on_others: bool,
}

const NAME: &str = "allow-list of peers";

impl AllowPeers {
    /// Lets these in.
    pub fn new(peers: impl IntoIterator<Item = PublicKey>) -> Self {
        Self { list: Arc::new(RwLock::new(peers.into_iter().collect())), decides_on_others: true }
    }

    /// Leaves whom it doesn't list to other policies, instead of keeping them out.
    #[must_use]
    pub fn undecided_about_others(self) -> Self {
        Self { decides_on_others: false, ..self }
    }

    /// Adds a peer. Returns whether it was not there.
    pub fn insert(&self, peer: PublicKey) -> bool {
        self.list.write().unwrap_or_else(PoisonError::into_inner).insert(peer)
    }

    /// Takes a peer off the list. Returns whether it was there.
    pub fn remove(&self, peer: &PublicKey) -> bool {
        self.list.write().unwrap_or_else(PoisonError::into_inner).remove(peer)
    }

    /// Whether it lists a peer.
    pub fn contains(&self, peer: &PublicKey) -> bool {
        self.list.read().unwrap_or_else(PoisonError::into_inner).contains(peer)
    }
}

impl Policy for AllowPeers {
    fn decide(&self, question: &Question<'_>) -> Decision {
        self.admit(question.peer)
    }

    fn admit(&self, peer: &Peer) -> Decision {
        if self.contains(&peer.remote_public_key()) {
            Decision::allow(NAME, "the peer is on the list")
        } else if self.decides_on_others {
            Decision::deny(NAME, "the peer is not on the list")
        } else {
            Decision::undecided(NAME, "the peer is not on the list")
        }
    }
}
