//! Many proofs checked against each other.
//!
//! Who asks for many blocks at once asks for each node of the tree once, so most proofs rest on what others
//! of the same batch bring, and what comes first need not be what the rest builds on. A proof whose time has
//! not come waits here under what it lacks, and is looked at again when that is known: however many wait, each
//! is looked at about twice. See `protocol-spec/06-feeds.md#proofs`.

use std::collections::{BTreeMap, HashMap};

use super::{Checked, HashedProof, Missing, Verification, VerifiedProof};
use crate::error::PeerMisbehaved;

/// Proofs on their way to be verified. Steps of [`run`](Self::run) take turns with steps in which what is
/// [missing](Self::missing) is read from where nodes are stored.
pub(crate) struct Batch {
    /// Those that nothing is known of yet.
    proofs: Vec<Option<HashedProof>>,
    results: Vec<Result<VerifiedProof, PeerMisbehaved>>,
    waiting: Waiting,
    has_begun: bool,
}

/// Which proofs wait for what to become known, by their places in the batch.
#[derive(Default)]
struct Waiting {
    nodes: HashMap<u64, Vec<usize>>,
    lengths: BTreeMap<u64, Vec<usize>>,
}

impl Batch {
    pub(crate) fn new(proofs: Vec<Result<HashedProof, PeerMisbehaved>>) -> Self {
        let mut results = Vec::with_capacity(proofs.len());
        let proofs = proofs
            .into_iter()
            .map(|proof| match proof {
                Ok(proof) => {
                    results.push(Ok(VerifiedProof::nothing()));
                    Some(proof)
                }
                Err(error) => {
                    results.push(Err(error));
                    None
                }
            })
            .collect();
        Self { proofs, results, waiting: Waiting::default(), has_begun: false }
    }

    /// The nodes that its proofs rest on, as far as they are neither known nor said to be brought by other
    /// proofs of it; with `brought`, these too. Sorted.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))]
    pub(crate) fn missing(&self, verification: &Verification, brought: bool) -> Vec<u64> {
        let left = || self.proofs.iter().flatten();
        // What comes with an upgrade is mostly below it.
        let resting = left().filter(|proof| brought || proof.upgrade.is_none());
        let mut missing: Vec<u64> = resting.filter_map(HashedProof::needs).collect();
        missing.retain(|index| verification.known(*index).is_none());
        missing.sort_unstable();
        missing.dedup();
        if !brought && !missing.is_empty() {
            let mut brought: Vec<u64> = left().flat_map(HashedProof::brings).collect();
            brought.sort_unstable();
            missing.retain(|index| brought.binary_search(index).is_err());
        }
        missing
    }

    /// Verifies what can be with what is known, which grows by it.
    //= protocol-spec/06-feeds.md#proofs
    pub(crate) fn run(&mut self, verification: &mut Verification) {
        let mut ready: Vec<usize> = match std::mem::replace(&mut self.has_begun, true) {
            // The last is taken first.
            false => (0..self.proofs.len()).rev().collect(),
            true => {
                let Waiting { nodes, lengths } = std::mem::take(&mut self.waiting);
                let mut left: Vec<usize> =
                    nodes.into_values().chain(lengths.into_values()).flatten().collect();
                left.sort_unstable_by(|a, b| b.cmp(a));
                left
            }
        };
        while let Some(place) = ready.pop() {
            let (Some(slot), Some(result)) = (self.proofs.get_mut(place), self.results.get_mut(place)) else {
                continue;
            };
            let Some(proof) = slot.take() else { continue };
            *result = match verification.check(proof) {
                Ok(Checked::Done(verified)) => {
                    self.waiting.wake(&verified, &mut ready);
                    Ok(verified)
                }
                Ok(Checked::Waits(proof, missing)) => {
                    *slot = Some(proof);
                    self.waiting.add(place, &missing);
                    continue;
                }
                Err(error) => Err(error),
            };
        }
    }

    /// What came of each. What still waits is [unconnected](VerifiedProof::is_unconnected).
    //= FEED-67
    pub(crate) fn finish(self, verification: &Verification) -> Vec<Result<VerifiedProof, PeerMisbehaved>> {
        let mut results = self.results;
        for (result, proof) in results.iter_mut().zip(self.proofs) {
            if let Some(proof) = proof {
                let stale = verification.is_late(&proof);
                *result = Ok(VerifiedProof { stale, unconnected: !stale, ..VerifiedProof::nothing() });
            }
        }
        results
    }
}

impl Waiting {
    fn add(&mut self, place: usize, missing: &Missing) {
        match missing {
            Missing::Node(index) => self.nodes.entry(*index).or_default(),
            Missing::Length(length) => self.lengths.entry(*length).or_default(),
        }
        .push(place);
    }

    /// Moves those that waited for what `verified` has shown.
    fn wake(&mut self, verified: &VerifiedProof, ready: &mut Vec<usize>) {
        if !self.nodes.is_empty() {
            ready.extend(verified.nodes.iter().filter_map(|node| self.nodes.remove(&node.index)).flatten());
        }
        if let Some(length) = verified.length {
            while let Some(reached) = self.lengths.first_entry().filter(|entry| *entry.key() <= length) {
                ready.extend(reached.remove());
            }
        }
    }
}
