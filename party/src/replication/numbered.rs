//! A map from numbers that come one after the other, most of which go again in about that order: ids that are given out, and
//! the indices of blocks that are asked for.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

/// From the oldest number in the queue to the newest at most. What is older is kept apart.
const MAX_SPAN: usize = 2048;
/// A number so far beyond the newest begins a new queue, so that nobody fills empty slots by leaps.
const MAX_GAP: usize = 64;
/// A queue of more slots than this gives them back when it is empty.
const MAX_IDLE: usize = 64;

/// What a map by number does, at the cost of a queue: numbers that are close together share one stretch of memory, where a
/// number finds its value by counting. Numbers that do not come in order, and those that stay while many others come and
/// go, are kept in a map beside it.
#[derive(Debug)]
pub(super) struct Numbered<T> {
    /// All below `first`.
    old: BTreeMap<u64, T>,
    /// The number of the first slot.
    first: u64,
    /// Neither the first slot nor the last is empty.
    slots: VecDeque<Option<T>>,
    len: usize,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { old: BTreeMap::new(), first: 0, slots: VecDeque::new(), len: 0 }
    }
}

impl<T> Numbered<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn get(&self, number: u64) -> Option<&T> {
        match self.place(number) {
            Some(place) => self.slots.get(place)?.as_ref(),
            None => self.old.get(&number),
        }
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.get(number).is_some()
    }

    /// Whether there is any of these numbers.
    pub(super) fn any(&self, numbers: Range<u64>) -> bool {
        let place = |number: u64| self.place(number).unwrap_or(0).min(self.slots.len());
        let (start, end) = (place(numbers.start), place(numbers.end));
        self.slots.range(start..end.max(start)).any(Option::is_some)
            || (!self.old.is_empty() && self.old.range(numbers).next().is_some())
    }

    /// Puts a value under a number, in place of what is there.
    pub(super) fn insert(&mut self, number: u64, value: T) {
        let before = match self.place(number) {
            None => self.old.insert(number, value),
            Some(place) => {
                if self.slots.is_empty() || place > self.slots.len().saturating_add(MAX_GAP) {
                    while self.retire() {}
                    self.first = number;
                }
                let place = self.place(number).unwrap_or(0);
                if place >= self.slots.len() {
                    self.slots.resize_with(place.saturating_add(1), || None);
                }
                self.slots.get_mut(place).and_then(|slot| slot.replace(value))
            }
        };
        self.len += usize::from(before.is_none());
        while self.slots.len() > MAX_SPAN {
            self.retire();
        }
        self.trim();
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let value = match self.place(number) {
            Some(place) => self.slots.get_mut(place)?.take()?,
            None => self.old.remove(&number)?,
        };
        self.len -= 1;
        self.trim();
        Some(value)
    }

    /// Takes out what has the lowest number.
    pub(super) fn pop_first(&mut self) -> Option<(u64, T)> {
        let first = match self.old.pop_first() {
            Some(oldest) => oldest,
            None => (self.first, self.slots.front_mut()?.take()?),
        };
        self.len -= 1;
        self.trim();
        Some(first)
    }

    /// From the lowest number to the highest.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let slots = self.slots.iter().enumerate();
        let slots = slots.filter_map(|(place, slot)| Some((self.first + place as u64, slot.as_ref()?)));
        self.old.iter().map(|(number, value)| (*number, value)).chain(slots)
    }

    /// The slot of a number; `None` if that is older than the slots are.
    fn place(&self, number: u64) -> Option<usize> {
        number.checked_sub(self.first).map(|place| usize::try_from(place).unwrap_or(usize::MAX))
    }

    /// Moves the first slot to the map. Returns whether there was one.
    fn retire(&mut self) -> bool {
        let Some(slot) = self.slots.pop_front() else { return false };
        self.old.extend(slot.map(|value| (self.first, value)));
        self.first = self.first.saturating_add(1);
        true
    }

    fn trim(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first = self.first.saturating_add(1);
        }
        while let Some(None) = self.slots.back() {
            self.slots.pop_back();
        }
        if self.slots.is_empty() && self.slots.capacity() > MAX_IDLE {
            self.slots = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Remove(u64),
        Pop,
    }

    /// Numbers that grow by small steps and by large ones, and some that are as old as they like.
    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let number =
            prop_oneof![8 => 0..40_u64, 4 => 0..5000_u64, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 70)];
        let step = prop_oneof![
            5 => number.clone().prop_map(Step::Insert),
            4 => number.prop_map(Step::Remove),
            2 => Just(Step::Pop),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn it_does_what_a_map_does(steps in steps(), grows in any::<bool>()) {
            let (mut numbered, mut map) = (Numbered::default(), BTreeMap::new());
            for (n, step) in steps.into_iter().enumerate() {
                let start = if grows { n as u64 * 10 } else { 0 };
                match step {
                    Step::Insert(number) => {
                        numbered.insert(start.saturating_add(number), n);
                        map.insert(start.saturating_add(number), n);
                    }
                    Step::Remove(number) => {
                        let number = start.saturating_add(number);
                        prop_assert_eq!(numbered.get(number), map.get(&number));
                        for span in [0, 1, 3, 100, u64::MAX] {
                            let range = number..number.saturating_add(span);
                            prop_assert_eq!(numbered.any(range.clone()), map.range(range).next().is_some());
                        }
                        prop_assert_eq!(numbered.remove(number), map.remove(&number));
                    }
                    Step::Pop => prop_assert_eq!(numbered.pop_first(), map.pop_first()),
                }
                prop_assert_eq!(numbered.len(), map.len());
                prop_assert_eq!(numbered.is_empty(), map.is_empty());
                prop_assert!(numbered.iter().eq(map.iter().map(|(number, value)| (*number, value))));
                prop_assert!(numbered.slots.len() <= MAX_SPAN);
            }
        }
    }

    #[test]
    fn one_that_stays_for_ever_makes_nobody_keep_the_slots_after_it() {
        let mut numbered = Numbered::default();
        numbered.insert(0, 0);
        for number in 1..1_000_000 {
            numbered.insert(number, number);
            assert_eq!(numbered.remove(number), Some(number));
        }
        assert!(numbered.slots.capacity() <= 2 * MAX_SPAN);
        assert_eq!(numbered.pop_first(), Some((0, 0)));
        assert!(numbered.is_empty() && numbered.slots.capacity() <= MAX_IDLE);
    }

    #[test]
    fn leaps_fill_no_slots() {
        let mut numbered = Numbered::default();
        for number in 0..1000 {
            numbered.insert(number * 1000, number);
            assert!(numbered.slots.len() <= 1);
        }
        assert!((0..1000).all(|number| numbered.remove(number * 1000) == Some(number)));
    }

    #[test]
    fn many_at_once_leave_no_memory_behind() {
        let mut numbered = Numbered::default();
        for number in 0..10_000 {
            numbered.insert(number, [0_u8; 100]);
        }
        for number in (0..10_000).rev() {
            assert!(numbered.remove(number).is_some());
        }
        assert_eq!((numbered.slots.capacity(), numbered.old.len()), (0, 0));
    }
}
