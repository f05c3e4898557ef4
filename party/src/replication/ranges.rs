//! Sets of block indexes as ranges: a range of 2^40 blocks costs as much as one of two.

use std::{collections::BTreeMap, ops::Range};

/// A set of indexes, kept as ranges that lie apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    /// Starts and ends.
    ranges: BTreeMap<u64, u64>,
}

impl Ranges {
    /// How many ranges it takes.
    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// The range that `index` is in.
    pub(super) fn around(&self, index: u64) -> Option<Range<u64>> {
        let (&start, &end) = self.ranges.range(..=index).next_back()?;
        (index < end).then_some(start..end)
    }

    /// The lowest member that is not below `from`.
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        match self.around(from) {
            Some(_) => Some(from),
            None => self.ranges.range(from..).next().map(|(&start, _)| start),
        }
    }

    /// The lowest index, not below `from`, that is no member.
    pub(super) fn next_gap(&self, from: u64) -> u64 {
        self.around(from).map_or(from, |range| range.end)
    }

    /// The members in `within`.
    pub(super) fn within(&self, within: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.around(within.start).map_or(within.start, |range| range.start);
        self.ranges
            .range(first..within.end.max(first))
            .map(move |(&start, &end)| start.max(within.start)..end.min(within.end))
            .filter(|range| !range.is_empty())
    }

    /// The last of [`within`](Self::within).
    pub(super) fn last_within(&self, within: Range<u64>) -> Option<Range<u64>> {
        let (&start, &end) = self.ranges.range(..within.end).next_back()?;
        Some(start.max(within.start)..end.min(within.end)).filter(|range| !range.is_empty())
    }

    pub(super) fn insert(&mut self, mut range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // What overlaps or touches goes into the new range; the last such one starts at its end at most.
        while let Some((&start, &end)) = self.ranges.range(..=range.end).next_back() {
            if end < range.start {
                break;
            }
            range = range.start.min(start)..range.end.max(end);
            self.ranges.remove(&start);
        }
        self.ranges.insert(range.start, range.end);
    }

    pub(super) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self.ranges.range(..range.end).next_back() {
            if end <= range.start {
                break;
            }
            self.ranges.remove(&start);
            if end > range.end {
                self.ranges.insert(range.end, end);
            }
            if start < range.start {
                self.ranges.insert(start, range.start);
            }
        }
    }

    /// Takes all of it out.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Range<u64>> + use<> {
        std::mem::take(&mut self.ranges).into_iter().map(|(start, end)| start..end)
    }

    /// Makes one range of all: a superset that takes no room.
    pub(super) fn collapse(&mut self) {
        if let (Some(first), Some(last)) = (self.ranges.first_key_value(), self.ranges.last_key_value()) {
            let (start, end) = (*first.0, *last.1);
            self.ranges.clear();
            self.insert(start..end);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_a_set(steps in prop::collection::vec((any::<bool>(), 0..60_u64, 0..20_u64), 0..40)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (insert, start, length) in steps {
                let range = start..start + length;
                if insert {
                    ranges.insert(range.clone());
                    model.extend(range);
                } else {
                    ranges.remove(range.clone());
                    model.retain(|index| !range.contains(index));
                }
                prop_assert_eq!(ranges.iter().flatten().collect::<BTreeSet<_>>(), model.clone());
                let list: Vec<_> = ranges.iter().collect();
                prop_assert!(list.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
            for from in 0..90 {
                prop_assert_eq!(ranges.next(from), model.range(from..).next().copied());
                prop_assert_eq!(ranges.next_gap(from), (from..).find(|i| !model.contains(i)).unwrap());
                prop_assert_eq!(ranges.last_within(from..from + 7), ranges.within(from..from + 7).last());
                let within: Vec<u64> = ranges.within(from..from + 7).flatten().collect();
                prop_assert_eq!(within, model.range(from..from + 7).copied().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_huge_range_is_one_range() {
        let mut ranges = Ranges::default();
        ranges.insert(0..u64::MAX);
        ranges.remove(1 << 40..(1 << 40) + 1);
        assert_eq!(ranges.len(), 2);
        assert_eq!(ranges.next_gap(7), 1 << 40);
        ranges.collapse();
        assert!(ranges.iter().eq(std::iter::once(0..u64::MAX)));
    }
}
