//! How often each block is wanted.

use std::{collections::BTreeMap, ops::Range};

use super::RangeSet;

/// Ranges that may overlap, and their union. Adding and taking away costs as much as there are ends of ranges
/// within the range.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    /// From each of these indexes on, up to the next, so many ranges hold. Neighbours differ.
    counts: BTreeMap<u64, usize>,
    union: RangeSet,
}

impl Coverage {
    pub(super) fn union(&self) -> &RangeSet {
        &self.union
    }

    pub(super) fn add(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.bound(range.start);
        self.bound(range.end);
        self.counts.range_mut(range.clone()).for_each(|(_, count)| *count += 1);
        self.join(range);
        self.union.insert(range.clone());
    }

    /// Takes away a range that was added.
    pub(super) fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.bound(range.start);
        self.bound(range.end);
        let mut from = None;
        for (&start, count) in self.counts.range_mut(range.clone()) {
            if let Some(from) = from.take() {
                self.union.remove(from..start);
            }
            *count = count.saturating_sub(1);
            from = (*count == 0).then_some(start);
        }
        if let Some(from) = from {
            self.union.remove(from..range.end);
        }
        self.join(range);
    }

    /// Makes `index` one at which the count may change.
    fn bound(&mut self, index: u64) {
        if !self.counts.contains_key(&index) {
            self.counts.insert(index, self.before(index));
        }
    }

    fn before(&self, index: u64) -> usize {
        self.counts.range(..index).next_back().map_or(0, |(_, count)| *count)
    }

    /// Within a range, all counts change alike: only at its ends neighbours may have become equal.
    fn join(&mut self, range: &Range<u64>) {
        for index in [range.start, range.end] {
            if self.counts.get(&index) == Some(&self.before(index)) {
                self.counts.remove(&index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_covered_once_is_in_the_union(
            ranges in prop::collection::vec((0..60_u64, 0..20_u64), 0..20),
            order in any::<u64>(),
        ) {
            let mut ranges: Vec<_> = ranges.into_iter().map(|(start, len)| start..start + len).collect();
            let mut coverage = Coverage::default();
            ranges.iter().for_each(|range| coverage.add(range));
            loop {
                prop_assert_eq!(coverage.union(), &ranges.iter().cloned().collect::<RangeSet>());
                if ranges.is_empty() {
                    break;
                }
                let range = ranges.swap_remove(order as usize % ranges.len());
                coverage.remove(&range);
            }
            prop_assert!(coverage.counts.is_empty());
        }
    }
}
