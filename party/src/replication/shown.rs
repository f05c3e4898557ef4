//! What a remote is told that we have: what is stored here, as far as it may have it.
//!
//! A remote asks for what it is told of. A Node reader that is refused some 32 blocks asks for nothing more of the feed, also for what it
//! may have; one of hypercore 10 asks for the same again, at once and without end. So neither is told of what it would be refused.

use super::ranges::Ranges;
use crate::feed::local::Local;

/// Our side of a feed, as a remote is told of it.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    local: &'a dyn Local,
    /// What the remote may have; `None` for everything.
    served: Option<&'a Ranges>,
}

impl<'a> Shown<'a> {
    pub(super) fn new(local: &'a dyn Local, served: Option<&'a Ranges>) -> Self {
        Self { local, served }
    }

    /// [`Local::fork`].
    pub(super) fn fork(self) -> u64 {
        self.local.fork()
    }

    /// [`Local::length`]: no secret, and it takes no block to prove it.
    pub(super) fn length(self) -> u64 {
        self.local.length()
    }

    /// How many blocks from 0 on are stored here and may be had.
    pub(super) fn contiguous_length(self) -> u64 {
        let stored = self.local.contiguous_length().min(self.local.length());
        self.served.map_or(stored, |served| served.next_gap(0).min(stored))
    }

    pub(super) fn has(self, index: u64) -> bool {
        self.served.is_none_or(|served| served.around(index).is_some()) && self.local.has(index)
    }

    /// [`Local::words`], of the blocks that may be had.
    pub(super) fn words(self, start: u64, length: u64) -> Vec<(u64, Vec<u32>)> {
        let pages = self.local.words(start, length);
        let Some(served) = self.served else { return pages };
        let pages = pages.into_iter().map(|(first, words)| (first, masked(first, &words, served)));
        pages.filter(|(_, words)| words.iter().any(|word| *word != 0)).collect()
    }
}

/// Those of the bits, of which the first stands for block `first`, that are in `served`.
fn masked(first: u64, words: &[u32], served: &Ranges) -> Vec<u32> {
    let mut masked = vec![0; words.len()];
    for run in served.within(first..first.saturating_add(32 * words.len() as u64)) {
        let (start, end) = (run.start - first, run.end - first);
        for at in start / 32..end.div_ceil(32) {
            let from = start.saturating_sub(32 * at);
            let to = (end - 32 * at).min(32);
            masked[at as usize] |= words[at as usize] & (u32::MAX >> (32 - (to - from)) << from);
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::replication::{have::runs, tests::model::Model};

    proptest! {
        #[test]
        fn what_is_shown_is_what_is_stored_and_served(
            stored in prop::collection::btree_set(0..200_u64, 0..200),
            ranges in prop::collection::vec((0..220_u64, 0..90_u64), 0..4),
            start in 0..6_u64,
        ) {
            let feed = Model::sparse(200, stored.iter().copied());
            let mut served = Ranges::default();
            ranges.iter().for_each(|(start, length)| served.insert(*start..start + length));
            let shown = Shown::new(&feed, Some(&served));
            let may = |index: u64| ranges.iter().any(|(start, length)| (*start..start + length).contains(&index));
            let expected: Vec<u64> = stored.iter().copied().filter(|index| may(*index)).collect();
            prop_assert!((0..200).all(|index| shown.has(index) == expected.contains(&index)));
            let gap = (0..200).find(|index| !expected.contains(index)).unwrap_or(200);
            prop_assert_eq!(shown.contiguous_length(), gap);
            let words = shown.words(32 * start, 200 - 32 * start);
            let said = words.iter().flat_map(|(first, words)| runs(*first, words)).filter(|(_, set)| *set);
            let said: Vec<u64> = said.flat_map(|(run, _)| run).collect();
            let from_there: Vec<u64> = expected.into_iter().filter(|index| *index >= 32 * start).collect();
            prop_assert_eq!(said, from_there);
        }
    }
}
