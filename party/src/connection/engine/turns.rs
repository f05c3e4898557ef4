//! Whose turn it is, where many feeds want what there is only so much of.

use std::collections::{BTreeSet, VecDeque};

use crate::key::DiscoveryKey;

/// A queue in which every feed stands once at most.
#[derive(Debug, Default)]
pub(super) struct Turns {
    queue: VecDeque<DiscoveryKey>,
    queued: BTreeSet<DiscoveryKey>,
}

impl Turns {
    /// Puts a feed at the end, if it doesn't wait already.
    pub(super) fn push(&mut self, key: DiscoveryKey) {
        if self.queued.insert(key) {
            self.queue.push_back(key);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whose turn it is.
    pub(super) fn pop(&mut self) -> Option<DiscoveryKey> {
        let key = self.queue.pop_front()?;
        self.queued.remove(&key);
        Some(key)
    }
}

/// How far a feed is that would ask for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::connection) enum Standing {
    /// It has asked for something, and may soon have all.
    Begun,
    /// It has asked for nothing since it was in sync.
    Fresh,
    /// It has asked for much.
    Long,
}

/// A turn in so many is that of those that the other turns put last.
const LAST_FIRST: usize = 4;

/// Whose turn it is to ask. Every feed stands once at most.
///
/// If all took turns alike, a thousand small feeds would all be complete at the end. So those that have begun come before
/// those that have not, and these before long ones; but each fourth turn is the other way round, so that a stream of
/// small ones starves none.
#[derive(Debug, Default)]
pub(super) struct AskingTurns {
    begun: VecDeque<DiscoveryKey>,
    fresh: VecDeque<DiscoveryKey>,
    long: VecDeque<DiscoveryKey>,
    queued: BTreeSet<DiscoveryKey>,
    turns: usize,
}

impl AskingTurns {
    /// Puts a feed behind its like, if it doesn't wait already.
    pub(super) fn push(&mut self, key: DiscoveryKey, standing: Standing) {
        if self.queued.insert(key) {
            self.like(standing).push_back(key);
        }
    }

    /// Puts a feed before its like, as its turn was cut short.
    pub(super) fn push_front(&mut self, key: DiscoveryKey, standing: Standing) {
        if self.queued.insert(key) {
            self.like(standing).push_front(key);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Whose turn it is.
    pub(super) fn pop(&mut self) -> Option<DiscoveryKey> {
        self.turns = self.turns.wrapping_add(1);
        let mut order = [&mut self.begun, &mut self.fresh, &mut self.long];
        if self.turns.is_multiple_of(LAST_FIRST) {
            order.reverse();
        }
        let key = order.into_iter().find_map(VecDeque::pop_front)?;
        self.queued.remove(&key);
        Some(key)
    }

    fn like(&mut self, standing: Standing) -> &mut VecDeque<DiscoveryKey> {
        match standing {
            Standing::Begun => &mut self.begun,
            Standing::Fresh => &mut self.fresh,
            Standing::Long => &mut self.long,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_a_turn_and_nobody_two() {
        let key = |n| DiscoveryKey::from_bytes([n; 32]);
        let mut turns = Turns::default();
        for n in [1, 2, 1, 3] {
            turns.push(key(n));
        }
        assert_eq!(turns.pop(), Some(key(1)));
        turns.push(key(1));
        let rest: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(rest, [key(2), key(3), key(1)]);
        assert!(turns.queue.is_empty() && turns.queued.is_empty());
    }

    #[test]
    fn what_has_begun_is_finished_first_and_long_ones_get_their_share() {
        let key = |n| DiscoveryKey::from_bytes([n; 32]);
        let mut turns = AskingTurns::default();
        turns.push(key(100), Standing::Long);
        (0..8).for_each(|n| turns.push(key(n), Standing::Fresh));
        (8..12).for_each(|n| turns.push(key(n), Standing::Begun));
        turns.push(key(8), Standing::Long);
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        let expected = [8, 9, 10, 100, 11, 0, 1, 2, 3, 4, 5, 6, 7].map(key);
        assert_eq!(order, expected);
        assert!(turns.queued.is_empty());
    }

    #[test]
    fn small_feeds_without_end_starve_no_long_one() {
        let key = |n| DiscoveryKey::from_bytes([n; 32]);
        let mut turns = AskingTurns::default();
        let (mut long, mut complete) = (0, vec![]);
        turns.push(key(0), Standing::Long);
        let mut begun = BTreeSet::new();
        let mut next = (1..200).cycle().map(key);
        for _ in 0..400 {
            // One more each time, and each takes two turns.
            turns.push(next.next().unwrap(), Standing::Fresh);
            match turns.pop().unwrap() {
                it if it == key(0) => {
                    long += 1;
                    turns.push(it, Standing::Long);
                }
                it if begun.remove(&it) => complete.push(it),
                it => {
                    begun.insert(it);
                    turns.push(it, Standing::Begun);
                }
            }
        }
        assert_eq!(long, 100);
        let expected: Vec<_> = (1..200).map(key).take(complete.len()).collect();
        assert_eq!((complete.len(), complete), (150, expected));
    }
}
