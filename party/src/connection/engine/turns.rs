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

    /// Puts a feed at the front, as its turn was cut short.
    pub(super) fn push_front(&mut self, key: DiscoveryKey) {
        if self.queued.insert(key) {
            self.queue.push_front(key);
        }
    }

    /// Whose turn it is.
    pub(super) fn pop(&mut self) -> Option<DiscoveryKey> {
        let key = self.queue.pop_front()?;
        self.queued.remove(&key);
        Some(key)
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
        turns.push_front(key(4));
        let rest: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(rest, [key(4), key(2), key(3), key(1)]);
        assert!(turns.queue.is_empty() && turns.queued.is_empty());
    }
}
