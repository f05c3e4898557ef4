//! Which blocks of a feed are stored.
//!
//! Nearly every feed is stored without a gap from its first block, so that is one number; what lies beyond
//! the first gap is kept in pages of 32,768 bits, of which only those exist that have a bit set. A feed of
//! any length costs no more than its gaps. Stored, a page is the list of its runs where that is shorter.

mod page;

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;

pub use self::page::PAGE_BITS;
use self::page::{Page, WORDS, set_range, unset_range};

/// A set of block indexes: everything before `contiguous`, and what the pages say beyond it.
///
/// ```
/// use party::feed::State;
///
/// // That of a feed with nothing stored; a feed that has something lends its own by `Feed::with_local`.
/// let state = State::default();
/// let bitfield = state.bitfield();
/// assert_eq!(bitfield.contiguous(), 0);
/// assert!(!bitfield.any(0..1_000));
/// assert_eq!(bitfield.next_missing(5, 10), Some(5));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bitfield {
    contiguous: u64,
    pages: BTreeMap<u64, Page>,
}

/// What becomes different when blocks come or go, worked out but not carried out.
#[derive(Clone, Default)]
pub(crate) struct Change {
    contiguous: u64,
    /// Pages as they become; `None` for those that the contiguous part has swallowed.
    pages: BTreeMap<u64, Option<Page>>,
    /// Blocks that come, but for those that are next to the contiguous part.
    scattered: Vec<u64>,
    received: Vec<(u64, u64)>,
}

impl Change {
    /// Takes out the list of the blocks that come, but for those that are next to the contiguous part.
    pub(crate) fn take_scattered(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.scattered)
    }

    /// Notes blocks that came from peers, and their sizes in bytes.
    pub(crate) fn note_received(&mut self, blocks: Vec<(u64, u64)>) {
        self.received = blocks;
    }

    /// Takes out what was noted.
    pub(crate) fn take_received(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.received)
    }

    /// Where the first gap will be.
    pub(crate) fn contiguous(&self) -> u64 {
        self.contiguous
    }

    /// The pages that become different, encoded; `None` for those to delete.
    pub(crate) fn pages(&self) -> impl Iterator<Item = (u64, Option<Bytes>)> {
        self.pages.iter().map(|(n, page)| (*n, page.as_ref().map(Page::encode)))
    }
}

impl Bitfield {
    /// A bitfield with nothing but its contiguous part.
    pub(crate) fn contiguous_to(contiguous: u64) -> Self {
        Self { contiguous, pages: BTreeMap::new() }
    }

    /// Puts a stored page back. `false` if the bytes are no page.
    pub(crate) fn restore(&mut self, page: u64, bytes: &[u8]) -> bool {
        match Page::decode(bytes) {
            Some(bits) => {
                if !bits.is_empty() {
                    self.pages.insert(page, bits);
                }
                true
            }
            None => false,
        }
    }

    /// How many blocks are stored without a gap from the first.
    pub fn contiguous(&self) -> u64 {
        self.contiguous
    }

    /// Whether block `index` is stored.
    pub fn get(&self, index: u64) -> bool {
        index < self.contiguous
            || self.pages.get(&(index / PAGE_BITS)).is_some_and(|page| page.get(index % PAGE_BITS))
    }

    /// Whether any block of the range is stored.
    pub fn any(&self, range: Range<u64>) -> bool {
        if range.is_empty() {
            return false;
        }
        if range.start < self.contiguous {
            return true;
        }
        let is_any_in = |n: u64, page: &Page| {
            let offset = n * PAGE_BITS;
            page.next_before((range.end - offset).min(PAGE_BITS), true, range.start.saturating_sub(offset))
                .is_some()
        };
        let (first, last) = (range.start / PAGE_BITS, (range.end - 1) / PAGE_BITS);
        if first == last {
            return self.pages.get(&first).is_some_and(|page| is_any_in(first, page));
        }
        // A page that exists has a bit set, so only the first and the last can disappoint.
        self.pages.range(first..=last).any(|(n, page)| is_any_in(*n, page))
    }

    /// How many blocks of `range` are stored.
    pub(crate) fn count(&self, range: Range<u64>) -> u64 {
        let contiguous = self.contiguous.min(range.end).saturating_sub(range.start);
        let from = range.start.max(self.contiguous);
        if from >= range.end {
            return contiguous;
        }
        let pages = self.pages.range(from / PAGE_BITS..=(range.end - 1) / PAGE_BITS);
        let beyond = pages.map(|(n, page)| {
            let offset = n * PAGE_BITS;
            let mut words = page.words();
            unset_range(&mut words, 0, from.saturating_sub(offset).min(PAGE_BITS));
            unset_range(&mut words, (range.end - offset).min(PAGE_BITS), PAGE_BITS);
            words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>()
        });
        contiguous + beyond.sum::<u64>()
    }

    /// The first block at or after `from` that is stored.
    pub(crate) fn next_stored(&self, from: u64) -> Option<u64> {
        if from < self.contiguous {
            return Some(from);
        }
        self.pages.range(from / PAGE_BITS..).find_map(|(n, page)| {
            let offset = n * PAGE_BITS;
            page.next(true, from.saturating_sub(offset)).map(|bit| offset + bit)
        })
    }

    /// The first block in `from..to` that is not stored.
    pub fn next_missing(&self, from: u64, to: u64) -> Option<u64> {
        let mut index = from.max(self.contiguous);
        while index < to {
            let n = index / PAGE_BITS;
            let Some(page) = self.pages.get(&n) else { return Some(index) };
            let offset = n * PAGE_BITS;
            match page.next(false, index - offset) {
                Some(bit) => return Some(offset + bit).filter(|found| *found < to),
                None => index = offset.saturating_add(PAGE_BITS),
            }
        }
        None
    }

    /// The bits of `start..start + length` as 32-bit words, page by page, without the pages in which nothing
    /// is set: the index of the first bit, a multiple of 32, and the words.
    pub fn words(&self, start: u64, length: u64) -> Vec<(u64, Vec<u32>)> {
        let end = start.saturating_add(length).min(self.end());
        let start = start & !31;
        let mut out = Vec::new();
        let mut from = start;
        while from < end {
            let n = from / PAGE_BITS;
            let offset = n * PAGE_BITS;
            let Some(words) = self.page_words(n) else {
                // Nothing here; go on where the next page is.
                match self.pages.range(n + 1..).next() {
                    Some((next, _)) => from = next * PAGE_BITS,
                    None => break,
                }
                continue;
            };
            let first = ((from - offset) / 32) as usize;
            let last = (end - offset).min(PAGE_BITS).div_ceil(32) as usize;
            let words: Vec<u32> = words
                .iter()
                .flat_map(|word| [*word as u32, (*word >> 32) as u32])
                .take(last)
                .skip(first)
                .collect();
            if words.iter().any(|word| *word != 0) {
                out.push((from, words));
            }
            from = offset + PAGE_BITS;
        }
        out
    }

    /// The pages beyond the contiguous part, as ranges of their numbers.
    pub(crate) fn page_ranges(&self, change: &Change) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut add = |n: u64| match ranges.last_mut() {
            Some(last) if last.end == n => last.end += 1,
            _ => ranges.push(n..n + 1),
        };
        let mut changed = change.pages.iter().peekable();
        for n in self.pages.keys() {
            while let Some((m, page)) = changed.next_if(|(m, _)| *m < n) {
                if page.is_some() {
                    add(*m);
                }
            }
            match changed.next_if(|(m, _)| *m == n) {
                Some((_, None)) => {}
                _ => add(*n),
            }
        }
        changed.filter(|(_, page)| page.is_some()).for_each(|(m, _)| add(*m));
        ranges
    }

    /// What adding `blocks` will change.
    pub(crate) fn with(&self, blocks: impl IntoIterator<Item = u64>) -> Change {
        let mut change = Change { contiguous: self.contiguous, ..Change::default() };
        for block in blocks {
            if block < change.contiguous {
                continue;
            }
            if block == change.contiguous {
                // The way of every append and of a download in order: no page is touched.
                change.contiguous += 1;
                continue;
            }
            let n = block / PAGE_BITS;
            let page = change.pages.entry(n).or_insert_with(|| self.pages.get(&n).cloned());
            page.get_or_insert_with(Page::empty).set(block % PAGE_BITS);
            change.scattered.push(block);
        }
        self.swallow(&mut change);
        change
    }

    /// What taking `gone` away will change.
    pub(crate) fn without(&self, gone: &Range<u64>) -> Change {
        let mut change = Change { contiguous: self.contiguous, ..Change::default() };
        if gone.is_empty() {
            return change;
        }
        // What lies behind the gap, and needed no page before it, needs one now.
        let behind = if gone.start < self.contiguous {
            change.contiguous = gone.start;
            gone.end..self.contiguous.max(gone.end)
        } else {
            0..0
        };
        let until = gone.end.max(behind.end);
        let touched = self.pages.range(gone.start / PAGE_BITS..=(until - 1) / PAGE_BITS).map(|(n, _)| *n);
        let needed = behind.start / PAGE_BITS..behind.end.div_ceil(PAGE_BITS);
        for n in touched.chain(if behind.is_empty() { 0..0 } else { needed }) {
            change.pages.entry(n).or_insert_with(|| self.page_without(n, gone, change.contiguous));
        }
        change.pages.retain(|n, page| page.is_some() || self.pages.contains_key(n));
        change
    }

    /// Page `n` without `gone`; `None` if then nothing from `contiguous` on is in it.
    fn page_without(&self, n: u64, gone: &Range<u64>, contiguous: u64) -> Option<Page> {
        let offset = n * PAGE_BITS;
        let within = |index: u64| index.saturating_sub(offset).min(PAGE_BITS);
        if offset >= gone.end && offset + PAGE_BITS <= self.contiguous {
            return Some(Page::Full);
        }
        let mut words = self.page_words(n)?;
        unset_range(&mut words, within(gone.start), within(gone.end));
        let page = Page::from_words(words);
        page.next(true, within(contiguous)).map(|_| page)
    }

    /// Moves the contiguous end over what is set behind it, and lets go of the pages that it has passed.
    fn swallow(&self, change: &mut Change) {
        loop {
            let n = change.contiguous / PAGE_BITS;
            let page = match change.pages.get(&n) {
                Some(page) => page.as_ref(),
                None => self.pages.get(&n),
            };
            let offset = n * PAGE_BITS;
            let Some(page) = page else { break };
            match page.next(false, change.contiguous - offset) {
                Some(bit) => {
                    change.contiguous = offset + bit;
                    break;
                }
                None => change.contiguous = offset + PAGE_BITS,
            }
        }
        let passed = |n: u64, page: &Page| {
            let from = change.contiguous.saturating_sub(n * PAGE_BITS);
            page.next(true, from).is_none()
        };
        let last = change.contiguous / PAGE_BITS;
        let gone: Vec<u64> = self
            .pages
            .range(..=last)
            .filter(|(n, page)| !change.pages.contains_key(n) && passed(**n, page))
            .map(|(n, _)| *n)
            .collect();
        let mut pages = std::mem::take(&mut change.pages);
        pages.retain(|n, page| {
            if page.as_ref().is_some_and(|page| passed(*n, page)) {
                *page = None;
            }
            page.is_some() || self.pages.contains_key(n)
        });
        pages.extend(gone.into_iter().map(|n| (n, None)));
        change.pages = pages;
    }

    /// Carries out a change that was worked out on this bitfield.
    pub(crate) fn apply(&mut self, change: Change) {
        self.contiguous = change.contiguous;
        for (n, page) in change.pages {
            match page {
                Some(page) => self.pages.insert(n, page),
                None => self.pages.remove(&n),
            };
        }
    }

    /// The block after the last page or the contiguous part.
    fn end(&self) -> u64 {
        let pages = self.pages.last_key_value().map_or(0, |(n, _)| (n + 1) * PAGE_BITS);
        pages.max(self.contiguous)
    }

    /// The words of page `n` with the contiguous part put in; `None` if there is nothing.
    fn page_words(&self, n: u64) -> Option<[u64; WORDS]> {
        let prefix = self.contiguous.saturating_sub(n * PAGE_BITS).min(PAGE_BITS);
        let page = self.pages.get(&n);
        if prefix == 0 && page.is_none() {
            return None;
        }
        let mut words = match page {
            Some(page) => page.words(),
            None => [0; WORDS],
        };
        set_range(&mut words, 0, prefix);
        Some(words)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn index() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..100, PAGE_BITS - 40..PAGE_BITS + 40, 5 * PAGE_BITS..5 * PAGE_BITS + 20]
    }

    fn reopened(bitfield: &Bitfield) -> Bitfield {
        let mut other = Bitfield::contiguous_to(bitfield.contiguous);
        for (n, page) in &bitfield.pages {
            assert!(other.restore(*n, &page.encode()));
        }
        other
    }

    proptest! {
        #[test]
        fn a_bitfield_is_a_set(batches in prop::collection::vec((any::<bool>(), prop::collection::vec(
            (index(), 1u64..60), 1..6)), 1..20), gone in index(), ask in prop::collection::vec((index(), 0u64..200), 20)) {
            let mut bitfield = Bitfield::default();
            let mut model = BTreeSet::new();
            let mut stored = BTreeMap::new();
            for (adds, batch) in batches {
                let blocks: Vec<u64> = batch.iter().flat_map(|(start, n)| *start..start + n).collect();
                let change = if adds {
                    model.extend(blocks.iter().copied());
                    bitfield.with(blocks)
                } else {
                    let (start, n) = batch[0];
                    // Now and then all to the end, as a truncation takes it.
                    let gone = gone..if n % 3 == 0 { u64::MAX } else { gone.max(start) + n };
                    model.retain(|block| !gone.contains(block));
                    bitfield.without(&gone)
                };
                let ranges = bitfield.page_ranges(&change);
                for (n, page) in change.pages() {
                    match page {
                        Some(page) => stored.insert(n, page),
                        None => stored.remove(&n),
                    };
                }
                bitfield.apply(change);
                let listed: Vec<u64> = ranges.into_iter().flatten().collect();
                prop_assert_eq!(&listed, &stored.keys().copied().collect::<Vec<_>>());
                prop_assert_eq!(listed, bitfield.pages.keys().copied().collect::<Vec<_>>());
            }
            let contiguous = (0..).find(|i| !model.contains(i)).unwrap();
            prop_assert_eq!(bitfield.contiguous(), contiguous);
            prop_assert!(reopened(&bitfield) == bitfield);
            for (start, n) in ask {
                let range = start..start + n;
                prop_assert_eq!(bitfield.get(start), model.contains(&start));
                prop_assert_eq!(bitfield.any(range.clone()), model.range(range.clone()).next().is_some());
                prop_assert_eq!(bitfield.count(range.clone()), model.range(range.clone()).count() as u64);
                prop_assert_eq!(bitfield.next_stored(start), model.range(start..).next().copied());
                prop_assert_eq!(bitfield.next_missing(start, start + n),
                    range.clone().find(|i| !model.contains(i)));
                let mut seen = BTreeSet::new();
                for (first, words) in bitfield.words(start, n) {
                    prop_assert_eq!(first % 32, 0);
                    for (i, word) in (0..).zip(words) {
                        seen.extend((0..32u64).filter(|b| word & (1 << b) != 0).map(|b| first + 32 * i + b));
                    }
                }
                let wanted = if n == 0 { start..start } else {
                    start / 32 * 32..(start + n).div_ceil(32) * 32
                };
                let expected: BTreeSet<u64> = if n == 0 { seen.clone() } else {
                    model.range(wanted).copied().collect() };
                prop_assert!(expected.is_superset(&seen));
                prop_assert!(model.range(range).all(|i| seen.contains(i)));
            }
        }

        #[test]
        fn stored_bytes_of_any_kind_are_no_danger(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            Bitfield::default().restore(0, &bytes);
        }
    }

    #[test]
    fn appending_touches_no_page() {
        let mut bitfield = Bitfield::default();
        bitfield.apply(bitfield.with(0..3 * PAGE_BITS + 5));
        assert_eq!(bitfield.contiguous(), 3 * PAGE_BITS + 5);
        assert!(bitfield.pages.is_empty());
        assert_eq!(bitfield.words(0, PAGE_BITS)[0].1, vec![u32::MAX; PAGE_BITS as usize / 32]);
    }

    #[test]
    fn taking_away_the_rest_of_a_page_touches_no_other() {
        let mut bitfield = Bitfield::default();
        bitfield.apply(bitfield.with(PAGE_BITS..3 * PAGE_BITS));
        for gone in [PAGE_BITS + 5..2 * PAGE_BITS, PAGE_BITS..2 * PAGE_BITS] {
            let touched: Vec<u64> = bitfield.without(&gone).pages().map(|(n, _)| n).collect();
            assert_eq!(touched, [1], "{gone:?}");
        }
    }

    #[test]
    fn a_full_page_behind_a_gap_is_stored_in_a_few_bytes() {
        let bitfield = Bitfield::default();
        let change = bitfield.with(PAGE_BITS..2 * PAGE_BITS);
        let pages: Vec<_> = change.pages().collect();
        assert_eq!(pages.len(), 1);
        assert!(pages[0].1.as_ref().unwrap().len() < 8);
    }
}
