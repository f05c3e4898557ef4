//! A feed on a connection whose remote is on another fork, or whose signers may have contradicted themselves.

use crate::{
    error::Error,
    feed::{Feed, proof::Proof, reorg::PendingReorg},
    replication::Ticket,
};

use super::jobs::{FeedJob, Outcome};

/// Proofs that wait for the feed to look at them.
#[derive(Default)]
pub(super) struct ForkWork {
    /// Of a higher fork.
    arrived: Vec<(Ticket, Step)>,
    running: bool,
    /// Of a conflict. The channel hands out few at a time.
    conflicts: Vec<Proof>,
    /// Whether the app was told of a conflict.
    told: bool,
}

/// A step on the way to a higher fork.
pub(super) enum Step {
    Proof(Proof),
    /// Without what nobody shows.
    Forgo(PendingReorg),
}

impl ForkWork {
    pub(super) fn follow(&mut self, ticket: Ticket, step: Step) {
        self.arrived.push((ticket, step));
    }

    pub(super) fn check(&mut self, proof: Proof) {
        self.conflicts.push(proof);
    }

    /// What is to be followed next, if nothing is at the moment.
    pub(super) fn start(&mut self) -> Option<Vec<(Ticket, Step)>> {
        if self.running || self.arrived.is_empty() {
            return None;
        }
        self.running = true;
        Some(std::mem::take(&mut self.arrived))
    }

    pub(super) fn followed(&mut self) {
        self.running = false;
    }

    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    pub(super) fn take_conflicts(&mut self) -> Vec<Proof> {
        std::mem::take(&mut self.conflicts)
    }

    pub(super) fn is_at_rest(&self) -> bool {
        !self.running && self.arrived.is_empty() && self.conflicts.is_empty()
    }

    /// The channel is gone, and what came over it.
    pub(super) fn clear(&mut self) {
        *self = Self { told: self.told, ..Self::default() };
    }

    /// Whether the app is to be told of the feed's conflict: once.
    pub(super) fn tells(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }
}

/// Proofs of a higher fork were taken, or not.
pub(super) struct Followed {
    pub(super) job: FeedJob,
    pub(super) results: Vec<(Ticket, Result<(), Error>)>,
}

/// It was looked whether the feed has a conflict.
pub(super) struct Checked {
    pub(super) job: FeedJob,
    pub(super) result: Result<bool, Error>,
}

/// Takes the feed towards a higher fork.
pub(super) async fn follow(feed: Feed, job: FeedJob, queue: Vec<(Ticket, Step)>) -> Outcome {
    let mut results = Vec::with_capacity(queue.len());
    for (ticket, step) in queue {
        let followed = match step {
            Step::Proof(proof) => feed.follow(proof).await,
            Step::Forgo(pending) => feed.forgo(&pending).await,
        };
        results.push((ticket, followed.map(|_| ())));
    }
    Outcome::Followed(Followed { job, results })
}

/// Looks whether the feed has a conflict.
pub(super) async fn check(feed: Feed, job: FeedJob, proof: Proof) -> Outcome {
    let result = match feed.check_conflict(proof).await {
        Err(Error::PeerMisbehaved(error)) => {
            tracing::debug!(%error, "a conflict that is not proved");
            Ok(false)
        }
        result => result.map(|conflict| conflict.is_some()),
    };
    Outcome::Checked(Checked { job, result })
}
