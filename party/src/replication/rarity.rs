//! Which blocks the fewest peers have.

use std::{collections::VecDeque, ops::Range};

use super::swarm::Member;

/// Runs of a plan.
pub(super) const MAX_RUNS: usize = 1024;
/// Picks after which to look again what the others have, at the soonest.
const MIN_PICKS: usize = 64;

/// Runs of blocks in the order in which to ask for them: those first that the fewest of the feed's other peers have.
///
/// It says how it was when it was made. It is made anew when a peer has come or gone, and after as many picks as
/// it has runs: so a pick costs as much as to look once at each of the others.
#[derive(Debug, Default)]
pub(super) struct Plan {
    runs: VecDeque<Range<u64>>,
    /// For how many picks it holds.
    picks: usize,
    /// [`Member::roster`] when it was made.
    roster: u64,
}

impl Plan {
    /// A plan for `runs`, which are in the order of their blocks.
    pub(super) fn new(runs: Vec<Range<u64>>, member: &Member) -> Self {
        let roster = member.roster();
        let mut runs: Vec<_> = runs.into_iter().map(|run| (0_usize, run)).collect();
        for other in member.others() {
            runs = other.count(runs, MAX_RUNS);
        }
        // Those that as many have stay in their order.
        runs.sort_by_key(|(count, _)| *count);
        let runs: VecDeque<_> = runs.into_iter().map(|(_, run)| run).collect();
        Self { picks: runs.len().max(MIN_PICKS), runs, roster }
    }

    /// The next block, by `pick`, which finds the one to ask for in a run. `None` if it is time for another plan.
    pub(super) fn next(&mut self, member: &Member, pick: impl Fn(&Range<u64>) -> Option<u64>) -> Option<u64> {
        if self.picks == 0 || self.runs.is_empty() || self.roster != member.roster() {
            return None;
        }
        while let Some(run) = self.runs.front_mut() {
            if let Some(index) = pick(run) {
                run.start = index + 1;
                self.picks -= 1;
                return Some(index);
            }
            self.runs.pop_front();
        }
        None
    }

    /// What it has left.
    pub(super) fn runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs.iter().cloned()
    }

    /// Takes out what it has left.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Range<u64>> + use<> {
        std::mem::take(&mut self.runs).into_iter()
    }
}
