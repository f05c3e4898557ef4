//! A set of block indexes that is cheap to copy.

use std::{fmt, ops::Range, sync::Arc};

use crate::feed::local::Local;

/// Ranges in one chunk at most: a change copies one chunk, and a pointer for each of the others.
const CHUNK: usize = 128;

/// Ranges, sorted and apart from each other. A clone costs nothing, and a change of it as much as one of a
/// few ranges, however many there are. A range of 2^40 blocks is one range.
///
/// ```
/// use party::feed::RangeSet;
///
/// let mut set = RangeSet::from_iter([10..20, 0..5]);
/// let before = set.clone();
/// set.insert(5..7);
/// set.remove(12..15);
/// assert!(set.iter().eq([0..7, 10..12, 15..20]));
/// assert!(set.within(6..11).eq([6..7, 10..11]));
/// assert!(set.iter().next_back() == Some(15..20));
/// assert!(before.iter().eq([0..5, 10..20]));
/// assert_eq!(set.difference(&before), [5..7]);
/// ```
#[derive(Clone, Default)]
pub struct RangeSet {
    /// None of them empty.
    chunks: Arc<Vec<Chunk>>,
}

type Chunk = Arc<Vec<Range<u64>>>;

impl RangeSet {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether `index` is in it.
    pub fn contains(&self, index: u64) -> bool {
        self.from(index).next().is_some_and(|range| range.start <= index)
    }

    /// All ranges.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + '_ {
        self.chunks.iter().flat_map(|chunk| chunk.iter().cloned())
    }

    /// What is in it of `within`.
    pub fn within(&self, within: Range<u64>) -> impl DoubleEndedIterator<Item = Range<u64>> + '_ {
        let Range { start, end } = within;
        let first = self.chunks.partition_point(|chunk| end_of(chunk) <= start);
        let last = self.chunks.partition_point(|chunk| start_of(chunk) < end);
        self.chunks.get(first..last).unwrap_or_default().iter().flat_map(move |chunk| {
            let first = chunk.partition_point(|range| range.end <= start);
            let last = chunk.partition_point(|range| range.start < end);
            let ranges = chunk.get(first..last).unwrap_or_default();
            ranges.iter().map(move |range| range.start.max(start)..range.end.min(end))
        })
    }

    /// The first block in `from..to` that is in it and not stored in `local`.
    pub fn next_missing(&self, local: &dyn Local, from: u64, to: u64) -> Option<u64> {
        self.within(from..to).find_map(|range| local.next_missing(range.start, range.end))
    }

    /// What is in it and not in `other`. What both share, as one was made from the other, is passed over.
    pub fn difference(&self, other: &Self) -> Vec<Range<u64>> {
        let mut out: Vec<Range<u64>> = Vec::new();
        if Arc::ptr_eq(&self.chunks, &other.chunks) {
            return out;
        }
        for chunk in self.chunks.iter() {
            let at =
                other.chunks.partition_point(|chunk_of_other| start_of(chunk_of_other) < start_of(chunk));
            if other.chunks.get(at).is_some_and(|same| Arc::ptr_eq(same, chunk)) {
                continue;
            }
            for range in chunk.iter() {
                let mut from = range.start;
                for common in other.within(range.clone()) {
                    if from < common.start {
                        out.push(from..common.start);
                    }
                    from = common.end;
                }
                if from < range.end {
                    out.push(from..range.end);
                }
            }
        }
        out
    }

    /// Adds a range.
    pub fn insert(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.change(range.clone(), |ranges| {
                let first = ranges.partition_point(|other| other.end < range.start);
                let last = ranges.partition_point(|other| other.start <= range.end);
                let touched = ranges.get(first..last).unwrap_or_default();
                let start = touched.first().map_or(range.start, |other| other.start.min(range.start));
                let end = touched.last().map_or(range.end, |other| other.end.max(range.end));
                ranges.splice(first..last, [start..end]);
            });
        }
    }

    /// Takes a range out.
    pub fn remove(&mut self, range: Range<u64>) {
        if !range.is_empty() && !self.is_empty() {
            self.change(range.clone(), |ranges| {
                let first = ranges.partition_point(|other| other.end <= range.start);
                let last = ranges.partition_point(|other| other.start < range.end).max(first);
                let touched = ranges.get(first..last).unwrap_or_default();
                let left = touched.first().map(|other| other.start..range.start);
                let right = touched.last().map(|other| range.end..other.end);
                let rest = [left, right].into_iter().flatten().filter(|rest| !rest.is_empty());
                let rest: Vec<_> = rest.collect();
                ranges.splice(first..last, rest);
            });
        }
    }

    fn from(&self, index: u64) -> impl DoubleEndedIterator<Item = Range<u64>> + '_ {
        self.within(index..u64::MAX)
    }

    /// Lets `edit` change the ranges that touch `range`, or next to which it has its place.
    fn change(&mut self, range: Range<u64>, edit: impl FnOnce(&mut Vec<Range<u64>>)) {
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.is_empty() {
            chunks.push(Chunk::default());
        }
        let count = chunks.len();
        let mut first = chunks.partition_point(|chunk| end_of(chunk) < range.start).min(count - 1);
        let mut last = chunks.partition_point(|chunk| start_of(chunk) <= range.end).max(first + 1);
        let mut small = 0;
        if last - first == 1
            && let Some(chunk) = chunks.get_mut(first)
        {
            let ranges = Arc::make_mut(chunk);
            edit(ranges);
            let alone = count == 1 && !ranges.is_empty();
            if (CHUNK / 4..=CHUNK).contains(&ranges.len()) || (alone && ranges.len() <= CHUNK) {
                return;
            }
            // Too many, or so few that they go together with their neighbours.
            small = usize::from(ranges.len() < CHUNK / 4);
        } else {
            let all =
                chunks.get(first..last).unwrap_or_default().iter().flat_map(|chunk| chunk.iter().cloned());
            let mut all = all.collect();
            edit(&mut all);
            chunks.splice(first..last, [Arc::new(all)]);
            last = first + 1;
        }
        first = first.saturating_sub(small);
        last = (last + small).min(chunks.len());
        let all = chunks.get(first..last).unwrap_or_default().iter().flat_map(|chunk| chunk.iter().cloned());
        let all: Vec<_> = all.collect();
        // As evenly as can be, so that the next change finds room.
        let parts = all.len().div_ceil(CHUNK * 3 / 4).max(1);
        let size = all.len().div_ceil(parts).max(1);
        let anew: Vec<Chunk> = all.chunks(size).map(|part| Arc::new(part.to_vec())).collect();
        chunks.splice(first..last, anew);
    }
}

fn start_of(chunk: &Chunk) -> u64 {
    chunk.first().map_or(0, |range| range.start)
}

fn end_of(chunk: &Chunk) -> u64 {
    chunk.last().map_or(0, |range| range.end)
}

impl Extend<Range<u64>> for RangeSet {
    fn extend<T: IntoIterator<Item = Range<u64>>>(&mut self, ranges: T) {
        ranges.into_iter().for_each(|range| self.insert(range));
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<T: IntoIterator<Item = Range<u64>>>(ranges: T) -> Self {
        let mut set = Self::default();
        set.extend(ranges);
        set
    }
}

impl PartialEq for RangeSet {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks) || self.iter().eq(other.iter())
    }
}

impl Eq for RangeSet {}

impl fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_range_set_is_a_set(
            singles in 0..600_u64,
            steps in prop::collection::vec((any::<bool>(), 0..1500_u64, 0..200_u64), 0..60),
        ) {
            let mut set: RangeSet = (0..singles).map(|n| n * 2..n * 2 + 1).collect();
            let mut model: BTreeSet<u64> = (0..singles).map(|n| n * 2).collect();
            for (insert, start, length) in steps {
                let (range, before, model_before) = (start..start + length, set.clone(), model.clone());
                if insert {
                    set.insert(range.clone());
                    model.extend(range);
                } else {
                    set.remove(range.clone());
                    model.retain(|index| !range.contains(index));
                }
                prop_assert!(set.iter().flatten().eq(model.iter().copied()));
                let list: Vec<_> = set.iter().collect();
                prop_assert!(list.windows(2).all(|pair| pair[0].end < pair[1].start));
                prop_assert!(set.chunks.iter().all(|chunk| (1..=CHUNK).contains(&chunk.len())));
                prop_assert!(set.chunks.len() <= 2 + list.len() / (CHUNK / 8));
                let gone = before.difference(&set).into_iter().flatten();
                prop_assert!(gone.eq(model_before.difference(&model).copied()));
                let come = set.difference(&before).into_iter().flatten();
                prop_assert!(come.eq(model.difference(&model_before).copied()));
                let within = set.within(start..start + 50).rev().flat_map(Iterator::rev);
                prop_assert!(within.eq(model.range(start..start + 50).rev().copied()));
                prop_assert_eq!(set.contains(start), model.contains(&start));
            }
        }
    }
}
