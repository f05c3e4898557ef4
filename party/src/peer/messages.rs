//! How much was said over the channel of a party.

use std::sync::atomic::{AtomicU64, Ordering};

/// Messages that have come from a peer and gone to it in a party, since it was admitted; from
/// [`Peer::messages`](super::Peer::messages).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerMessages {
    /// Transactions that we began: introductions and requests.
    pub requests_sent: u64,
    /// Transactions that the peer began.
    pub requests_received: u64,
    /// Ephemeral messages that were sent.
    pub ephemeral_sent: u64,
    /// Ephemeral messages that came.
    pub ephemeral_received: u64,
    /// Ephemeral messages that were not sent, as the peer was too slow to take what was sent before.
    pub ephemeral_unsent: u64,
    /// Ephemeral messages that came and were dropped, as we were too slow: the rules, or who listens to the
    /// [extension](crate::party::Extension).
    pub ephemeral_dropped: u64,
}

/// The same, while it is counted.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) requests_sent: Count,
    pub(crate) requests_received: Count,
    pub(crate) ephemeral_sent: Count,
    pub(crate) ephemeral_received: Count,
    pub(crate) ephemeral_unsent: Count,
    pub(crate) ephemeral_dropped: Count,
}

impl Said {
    pub(super) fn so_far(&self) -> PeerMessages {
        PeerMessages {
            requests_sent: self.requests_sent.get(),
            requests_received: self.requests_received.get(),
            ephemeral_sent: self.ephemeral_sent.get(),
            ephemeral_received: self.ephemeral_received.get(),
            ephemeral_unsent: self.ephemeral_unsent.get(),
            ephemeral_dropped: self.ephemeral_dropped.get(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
