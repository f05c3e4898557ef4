//! What the replication of a feed has to know of our side of it, at once and from memory.

use std::{ops::Range, sync::Arc};

use crate::feed::{proof::Proof, reorg::PendingReorg};

/// A view of a feed as it stands here. [`State`](crate::feed) is one; tests write their own.
///
/// ```
/// use party::feed::{Demand, Local, State};
///
/// // A feed of which nothing is known yet.
/// let state = State::default();
/// assert!(state.needs_manifest() && !state.has(0));
/// assert_eq!((state.length(), state.contiguous_length()), (0, 0));
/// assert_eq!(Demand::everything().next_missing(&state, 0, 10), Some(0));
/// ```
pub trait Local {
    /// The fork; it grows with every truncation.
    fn fork(&self) -> u64;
    /// How many blocks the signed tree has, stored here or not.
    fn length(&self) -> u64;
    /// How many blocks are stored here without a gap from the first.
    fn contiguous_length(&self) -> u64;
    /// Whether block `index` is stored here.
    fn has(&self, index: u64) -> bool;
    /// Whether we have a manifest to show: never for a legacy feed.
    fn has_manifest(&self) -> bool;
    /// Whether we need the manifest before we can verify anything.
    fn needs_manifest(&self) -> bool;
    /// For a request of block `index`: how many levels above it the first tree node stands that is stored
    /// here. 0 for a block beyond [`length`](Self::length), whose place in the tree isn't known.
    fn missing_nodes(&self, index: u64) -> u64;
    /// The first block in `from..to` that is not stored here.
    fn next_missing(&self, from: u64, to: u64) -> Option<u64>;
    /// The bitfield of `start..start + length` as `bitfield` messages carry it: for each page that has
    /// anything, the index of its first bit, a multiple of 32, and its words.
    fn words(&self, start: u64, length: u64) -> Vec<(u64, Vec<u32>)>;
    /// The reorg to `fork` that has begun here, while it needs proofs.
    fn reorg(&self, _fork: u64) -> Option<&PendingReorg> {
        None
    }
    /// Whether the feed is not to be replicated, as its signers have contradicted themselves.
    fn has_conflict(&self) -> bool {
        false
    }
    /// The signed tree that contradicts ours, if it is at hand: an upgrade from 0.
    fn contradiction(&self) -> Option<&Proof> {
        None
    }
}

/// Which blocks of a feed are wanted here. Cheap to clone.
///
/// ```
/// use party::feed::Demand;
///
/// let demand = Demand::from_ranges([0..4, 2..6, 10..u64::MAX]);
/// assert_eq!(demand.ranges(), [0..6, 10..u64::MAX]);
/// assert!(demand.wants(5) && !demand.wants(6));
/// assert!(demand.wants(1 << 40)); // all that will come
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Sorted, apart from each other, none empty. An end of `u64::MAX` stands for "and all that will come".
    ranges: Arc<[Range<u64>]>,
}

impl Demand {
    /// Nothing.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Everything, now and later.
    pub fn everything() -> Self {
        Self::from_ranges(std::iter::once(0..u64::MAX))
    }

    /// The union of `ranges`.
    pub fn from_ranges(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        sorted.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Self { ranges: merged.into() }
    }

    /// The ranges, sorted and apart from each other.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether block `index` is wanted.
    pub fn wants(&self, index: u64) -> bool {
        let after = self.ranges.partition_point(|range| range.end <= index);
        self.ranges.get(after).is_some_and(|range| range.start <= index)
    }

    /// The first block in `from..to` that is wanted and not stored in `local`.
    pub fn next_missing(&self, local: &dyn Local, from: u64, to: u64) -> Option<u64> {
        let first = self.ranges.partition_point(|range| range.end <= from);
        self.ranges[first..]
            .iter()
            .take_while(|range| range.start < to)
            .find_map(|range| local.next_missing(range.start.max(from), range.end.min(to)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_demands_merge() {
        let demand = Demand::from_ranges([5..7, 0..2, 2..3, 9..9, 6..8]);
        assert_eq!(demand.ranges(), [0..3, 5..8]);
        assert!(demand.wants(2) && !demand.wants(3) && demand.wants(7) && !demand.wants(8));
        assert!(Demand::everything().wants(u64::MAX - 1));
        assert!(Demand::nothing().is_empty());
    }
}
