//! Values under numbers that are given out one after the other, most of which are taken back in about that order.

use std::collections::{BTreeMap, VecDeque};

/// From the oldest number in the queue to the newest at most. What is older is kept apart.
const MAX_SPAN: usize = 2048;
/// A queue of more slots than this gives them back when it is empty.
const MAX_IDLE: usize = 64;

/// What a map by number does, at the cost of a queue: numbers that are close together share one stretch of memory, where a
/// number finds its value by counting. What has been there for long, while others came and went, moves to a map, so
/// that who keeps one for ever makes nobody keep the empty slots after it.
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

    pub(super) fn contains(&self, number: u64) -> bool {
        match self.place(number) {
            Some(place) => self.slots.get(place).is_some_and(Option::is_some),
            None => self.old.contains_key(&number),
        }
    }

    /// Puts a value under a number, in place of what is there.
    pub(super) fn insert(&mut self, number: u64, value: T) {
        if self.slots.is_empty() {
            self.first = self.first.max(number);
        }
        while let Some(place) = self.place(number)
            && place >= MAX_SPAN
        {
            match self.slots.pop_front() {
                Some(oldest) => {
                    self.old.extend(oldest.map(|oldest| (self.first, oldest)));
                    self.first += 1;
                }
                None => self.first = number,
            }
        }
        let before = match self.place(number) {
            None => self.old.insert(number, value),
            Some(place) => {
                if place >= self.slots.len() {
                    self.slots.resize_with(place + 1, || None);
                }
                self.slots.get_mut(place).and_then(|slot| slot.replace(value))
            }
        };
        self.len += usize::from(before.is_none());
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
        let slots = (self.first..).zip(&self.slots);
        let slots = slots.filter_map(|(number, slot)| slot.as_ref().map(|value| (number, value)));
        self.old.iter().map(|(number, value)| (*number, value)).chain(slots)
    }

    /// The slot of a number; `None` if that is older than the slots are.
    fn place(&self, number: u64) -> Option<usize> {
        number.checked_sub(self.first).map(|place| usize::try_from(place).unwrap_or(usize::MAX))
    }

    fn trim(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
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
        let number = prop_oneof![8 => 0..40_u64, 2 => 0..5000_u64, 1 => Just(1 << 60)];
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
                        numbered.insert(start + number, n);
                        map.insert(start + number, n);
                    }
                    Step::Remove(number) => {
                        let number = start + number;
                        prop_assert_eq!(numbered.contains(number), map.contains_key(&number));
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
