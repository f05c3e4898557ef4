//! What a remote says it has stored.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::ranges::Ranges;
use crate::{error::PeerMisbehaved, limits::Limits};

/// Blocks of a page.
const PAGE: u64 = 32_768;
const WORDS: usize = PAGE as usize / 64;

type Words = [u64; WORDS];

/// A [`Have`] that the feed's other channels can look at. Each call is on its own.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedHave {
    have: Arc<Mutex<Have>>,
}

impl SharedHave {
    /// [`Have::has`].
    pub(super) fn has(&self, index: u64) -> bool {
        self.have().has(index)
    }

    /// [`Have::next`].
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        self.have().next(from)
    }

    /// [`Have::next_gap`].
    pub(super) fn next_gap(&self, from: u64) -> u64 {
        self.have().next_gap(from)
    }

    /// [`Have::insert`].
    pub(super) fn insert(&self, range: Range<u64>, limits: &Limits) -> Result<(), PeerMisbehaved> {
        self.have().insert(range, limits)
    }

    /// [`Have::remove`].
    pub(super) fn remove(&self, range: Range<u64>, limits: &Limits) -> Result<(), PeerMisbehaved> {
        self.have().remove(range, limits)
    }

    /// [`Have::replace`].
    //= REPL-66
    pub(super) fn replace(&self, start: u64, words: &[u32], limits: &Limits) -> Result<(), PeerMisbehaved> {
        self.have().replace(start, words, limits)
    }

    /// Adds 1 to the count of each run that it has. A run of which it has a part is split, as long as that makes no more than
    /// `max` runs; beyond, the run's first block speaks for all of it.
    pub(super) fn count(&self, runs: Vec<(usize, Range<u64>)>, max: usize) -> Vec<(usize, Range<u64>)> {
        let have = self.have();
        let mut spare = max.saturating_sub(runs.len());
        let mut counted = Vec::with_capacity(runs.len());
        for (count, run) in runs {
            let mut from = run.start;
            while from < run.end {
                let has = have.has(from);
                let end = if has { have.next_gap(from) } else { have.next(from).unwrap_or(run.end) };
                let end = if spare > 0 { end.min(run.end) } else { run.end };
                spare -= usize::from(end < run.end);
                counted.push((count + usize::from(has), from..end));
                from = end;
            }
        }
        counted
    }

    fn have(&self) -> MutexGuard<'_, Have> {
        self.have.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The blocks that a remote has: ranges, and pages of bits where ranges would take more room.
///
/// Both are bounded, so whatever a remote says costs at most [`Limits::max_remote_ranges`] ranges and
/// [`Limits::max_remote_pages`] pages of 4 KiB.
#[derive(Debug, Default)]
pub(super) struct Have {
    /// Outside of `pages`.
    ranges: Ranges,
    /// By the number of the page; none of them full.
    pages: BTreeMap<u64, Box<Words>>,
}

impl Have {
    pub(super) fn has(&self, index: u64) -> bool {
        match self.pages.get(&(index / PAGE)) {
            Some(page) => page[(index % PAGE) as usize / 64] >> (index % 64) & 1 == 1,
            None => self.ranges.around(index).is_some(),
        }
    }

    /// The lowest block that it has and that is not below `from`.
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        let in_ranges = self.ranges.next(from);
        if in_ranges == Some(from) {
            return in_ranges;
        }
        let in_pages = self
            .pages
            .range(from / PAGE..)
            .take_while(|(number, _)| in_ranges.is_none_or(|index| *number * PAGE < index))
            .find_map(|(number, page)| {
                let first = number * PAGE;
                find(page, from.saturating_sub(first), true).map(|bit| first + bit)
            });
        in_pages.into_iter().chain(in_ranges).min()
    }

    /// The lowest block that it does not have and that is not below `from`.
    pub(super) fn next_gap(&self, mut from: u64) -> u64 {
        loop {
            let start = from;
            from = self.ranges.next_gap(from);
            if let Some(page) = self.pages.get(&(from / PAGE)) {
                let first = from / PAGE * PAGE;
                match find(page, from - first, false) {
                    Some(bit) => return first + bit,
                    None => from = first.saturating_add(PAGE),
                }
            }
            if from == start {
                return from;
            }
        }
    }

    /// Adds a range.
    ///
    /// # Errors
    /// [`PeerMisbehaved::LimitExceeded`]; what was known is incomplete then.
    pub(super) fn insert(&mut self, range: Range<u64>, limits: &Limits) -> Result<(), PeerMisbehaved> {
        self.set(range.clone(), true);
        self.make_room(range, limits)
    }

    /// Removes a range.
    ///
    /// # Errors
    /// [`PeerMisbehaved::LimitExceeded`]; what was known is incomplete then.
    pub(super) fn remove(&mut self, range: Range<u64>, limits: &Limits) -> Result<(), PeerMisbehaved> {
        self.set(range.clone(), false);
        self.make_room(range, limits)
    }

    /// Takes the bits of `words`, 32 blocks each from `start` on, for the truth about those blocks. `start`
    /// must be a multiple of 32.
    ///
    /// # Errors
    /// [`PeerMisbehaved::LimitExceeded`]; what was known is incomplete then.
    pub(super) fn replace(
        &mut self,
        start: u64,
        words: &[u32],
        limits: &Limits,
    ) -> Result<(), PeerMisbehaved> {
        let (mut start, mut rest) = (start, words);
        while !rest.is_empty() {
            // Page by page, so that one with many changes becomes a page of bits before it is many ranges.
            let room = (PAGE - start % PAGE).div_ceil(32) as usize;
            let (words, more) = rest.split_at(room.min(rest.len()));
            let end = start.saturating_add(32 * words.len() as u64);
            self.set(start..end, false);
            if changes(words) > WORDS as u32 / 4 {
                self.page(start / PAGE);
            }
            for (run, _) in runs(start, words).filter(|(_, value)| *value) {
                self.set(run, true);
            }
            self.make_room(start..end, limits)?;
            (start, rest) = (end, more);
        }
        Ok(())
    }

    fn set(&mut self, range: Range<u64>, value: bool) {
        if range.is_empty() {
            return;
        }
        let numbers = range.start / PAGE..(range.end - 1) / PAGE + 1;
        let overlapping: Vec<u64> = self.pages.range(numbers).map(|(number, _)| *number).collect();
        let mut from = range.start;
        for number in overlapping {
            let first = number * PAGE;
            let end = first.saturating_add(PAGE);
            let (low, high) = (range.start.max(first), range.end.min(end));
            if high - low == PAGE {
                // All of the page: ranges do for it from now on.
                self.pages.remove(&number);
                continue;
            }
            self.set_ranges(from..low, value);
            from = high;
            let Some(page) = self.pages.get_mut(&number) else { continue };
            fill(page, low - first..high - first, value);
            if value && find(page, 0, false).is_none() {
                self.pages.remove(&number);
                self.ranges.insert(first..end);
            }
        }
        self.set_ranges(from..range.end, value);
    }

    /// However long it is, it is one.
    //= REPL-60
    fn set_ranges(&mut self, range: Range<u64>, value: bool) {
        if value {
            self.ranges.insert(range);
        } else {
            self.ranges.remove(range);
        }
    }

    /// Turns page `number` into bits.
    fn page(&mut self, number: u64) {
        let first = number * PAGE;
        let bounds = first..first.saturating_add(PAGE);
        if self.pages.contains_key(&number) {
            return;
        }
        let mut page = Box::new([0; WORDS]);
        for range in self.ranges.within(bounds.clone()) {
            fill(&mut page, range.start - first..range.end - first, true);
        }
        self.ranges.remove(bounds);
        self.pages.insert(number, page);
    }

    /// Keeps to the limits, after a change of `range`.
    //= REPL-61, LIMIT-17
    fn make_room(&mut self, range: Range<u64>, limits: &Limits) -> Result<(), PeerMisbehaved> {
        //= protocol-spec/07-replication.md#range-8-want-5-unwant-6-bitfield-7
        while self.ranges.len() > limits.max_remote_ranges {
            // A page that takes few ranges gains little, but there are only so many pages.
            let first = range.start / PAGE;
            let last = range.end.saturating_sub(1) / PAGE;
            let near = [first, last].into_iter().max_by_key(|number| self.ranges_in_page(*number));
            let number = near.filter(|number| self.ranges_in_page(*number) > 64);
            let number = number.or_else(|| self.fullest_page());
            match number {
                Some(number) if self.pages.len() < limits.max_remote_pages => self.page(number),
                _ => return Err(PeerMisbehaved::LimitExceeded("max_remote_ranges")),
            }
        }
        if self.pages.len() > limits.max_remote_pages {
            return Err(PeerMisbehaved::LimitExceeded("max_remote_pages"));
        }
        Ok(())
    }

    fn ranges_in_page(&self, number: u64) -> usize {
        let first = number * PAGE;
        self.ranges.within(first..first.saturating_add(PAGE)).count()
    }

    /// The page in which the most ranges start.
    fn fullest_page(&self) -> Option<u64> {
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for range in self.ranges.iter() {
            *counts.entry(range.start / PAGE).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).filter(|(_, count)| *count > 1).map(|(n, _)| n)
    }
}

/// The first bit, from `from` on, that is `value`.
fn find(page: &Words, from: u64, value: bool) -> Option<u64> {
    let flip = if value { 0 } else { u64::MAX };
    let from = from as usize;
    let mut mask = u64::MAX << (from % 64);
    for (number, word) in page.iter().enumerate().skip(from / 64) {
        let bits = (word ^ flip) & mask;
        if bits != 0 {
            return Some(number as u64 * 64 + u64::from(bits.trailing_zeros()));
        }
        mask = u64::MAX;
    }
    None
}

fn fill(page: &mut Words, bits: Range<u64>, value: bool) {
    let (start, end) = (bits.start as usize, bits.end as usize);
    for (number, word) in page.iter_mut().enumerate().take(end.div_ceil(64)).skip(start / 64) {
        let low = start.saturating_sub(number * 64);
        let high = (end - number * 64).min(64);
        let mask = (u64::MAX << low) & (u64::MAX >> (64 - high));
        if value { *word |= mask } else { *word &= !mask }
    }
}

/// How often neighbouring bits differ.
fn changes(words: &[u32]) -> u32 {
    words.iter().map(|word| (word ^ (word >> 1)).count_ones()).sum()
}

/// The runs of equal bits in `words`, of which the first bit stands for `start`.
pub(super) fn runs(start: u64, words: &[u32]) -> impl Iterator<Item = (Range<u64>, bool)> + '_ {
    let bits = 32 * words.len() as u64;
    let bit = move |at: u64| words[(at / 32) as usize] >> (at % 32) & 1 == 1;
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= bits {
            return None;
        }
        let (from, value) = (at, bit(at));
        let all = if value { u32::MAX } else { 0 };
        while at < bits && bit(at) == value {
            // Whole words at once, where they are of one value.
            at += if at % 32 == 0 && words[(at / 32) as usize] == all { 32 } else { 1 };
        }
        Some((start.saturating_add(from)..start.saturating_add(at), value))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn limits() -> Limits {
        Limits::default()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, u64),
        Remove(u64, u64),
        Replace(u64, Vec<u32>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let start = || prop_oneof![0..4 * PAGE, (0..5_u64).prop_map(|page| page * PAGE)];
        let length = || prop_oneof![0..40_u64, 0..2 * PAGE, Just(PAGE)];
        let words = prop_oneof![
            prop::collection::vec(any::<u32>(), 0..40),
            prop::collection::vec(prop_oneof![Just(0), Just(u32::MAX)], 0..2_100),
            prop::collection::vec(any::<u32>(), 0..2_100),
        ];
        prop_oneof![
            (start(), length()).prop_map(|(start, length)| Step::Insert(start, length)),
            (start(), length()).prop_map(|(start, length)| Step::Remove(start, length)),
            (start(), words).prop_map(|(start, words)| Step::Replace(start / 32 * 32, words)),
        ]
    }

    //= LIMIT-17
    #[test]
    fn a_bitfield_of_few_runs_takes_no_page() {
        // One block of each page, of more pages than there may be.
        let limits = Limits { max_remote_pages: 2, ..limits() };
        let mut have = Have::default();
        for number in 0..4 {
            have.replace(number * PAGE, &[1], &limits).unwrap();
        }
        assert!((0..4).all(|number| have.has(number * PAGE) && !have.has(number * PAGE + 1)));
        // Of many runs each takes one, and there are no more.
        let many = [0x5555_5555; 40];
        for number in 0..3 {
            assert_eq!(have.replace(number * PAGE, &many, &limits).is_ok(), number < 2);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_a_remote_has_is_a_set(steps in prop::collection::vec(step(), 0..12), at in 0..5 * PAGE) {
            let limits = Limits { max_remote_ranges: 300, ..limits() };
            let (mut have, mut model) = (Have::default(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Insert(start, length) => {
                        have.insert(start..start + length, &limits).unwrap();
                        model.extend(start..start + length);
                    }
                    Step::Remove(start, length) => {
                        have.remove(start..start + length, &limits).unwrap();
                        model.retain(|index| !(start..start + length).contains(index));
                    }
                    Step::Replace(start, words) => {
                        have.replace(start, &words, &limits).unwrap();
                        for (index, bit) in (0..32 * words.len() as u64)
                            .map(|bit| (start + bit, words[bit as usize / 32] >> (bit % 32) & 1 == 1))
                        {
                            if bit { model.insert(index); } else { model.remove(&index); }
                        }
                    }
                }
                let mut found = BTreeSet::new();
                let mut from = 0;
                while let Some(start) = have.next(from) {
                    from = have.next_gap(start);
                    found.extend(start..from);
                }
                prop_assert!(found == model, "{} found, {} expected", found.len(), model.len());
                for index in at..at + 100 {
                    prop_assert_eq!(have.has(index), model.contains(&index));
                }
            }
        }
    }

    //= REPL-60
    #[test]
    fn a_range_of_two_to_the_40_costs_one_range() {
        let mut have = Have::default();
        have.insert(0..1 << 40, &limits()).unwrap();
        have.insert(0..u64::MAX, &limits()).unwrap();
        assert_eq!((have.ranges.len(), have.pages.len()), (1, 0));
        assert_eq!(have.next_gap(3), u64::MAX);
        have.remove(5..u64::MAX, &limits()).unwrap();
        assert_eq!(have.next(5), None);
    }

    #[test]
    fn every_other_block_fits_into_a_page() {
        let mut have = Have::default();
        have.replace(0, &[0x5555_5555; 65_536], &limits()).unwrap();
        assert_eq!((have.ranges.len(), have.pages.len()), (0, 64));
        assert!(have.has(2) && !have.has(3) && have.next(3) == Some(4));
    }

    //= REPL-61, LIMIT-17
    #[test]
    fn single_blocks_without_end_are_refused_in_bounded_memory() {
        let limits = Limits { max_remote_ranges: 500, max_remote_pages: 20, ..limits() };
        let mut have = Have::default();
        let result = (0..10_000_000_u64).step_by(3).try_for_each(|index| {
            let result = have.insert(index..index + 1, &limits);
            assert!(have.ranges.len() <= 501 && have.pages.len() <= 21);
            result
        });
        assert_eq!(result, Err(PeerMisbehaved::LimitExceeded("max_remote_ranges")));
        assert!(have.has(20 * PAGE / 3 * 3));
    }
}
