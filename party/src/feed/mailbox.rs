//! Word of many feeds for receivers who may be slow.
//!
//! A queue of all that happens would grow with a receiver's slowness, and a bounded one would lose something.
//! Here each feed has at most one letter in the box: what comes is merged with what has not been fetched.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use crate::key::DiscoveryKey;

/// The box of one receiver.
pub(crate) struct Mailbox<T> {
    letters: Mutex<Letters<T>>,
}

struct Letters<T> {
    /// In the order in which the feeds began to have something to say.
    queue: BTreeMap<u64, (DiscoveryKey, T)>,
    places: HashMap<DiscoveryKey, u64>,
    next: u64,
    waker: Option<Waker>,
    is_closed: bool,
}

impl<T> Mailbox<T> {
    fn new(is_closed: bool) -> Self {
        let (queue, places) = (BTreeMap::new(), HashMap::new());
        let letters = Letters { queue, places, next: 0, waker: None, is_closed };
        Self { letters: Mutex::new(letters) }
    }

    /// Replaces the letter of a feed, if there is one, by what `merge` makes of it.
    fn put(&self, feed: &DiscoveryKey, merge: impl FnOnce(Option<T>) -> Option<T>) {
        let mut letters = self.letters();
        if letters.is_closed {
            return;
        }
        let place = letters.places.get(feed).copied();
        let before = place.and_then(|place| letters.queue.remove(&place)).map(|(_, letter)| letter);
        match (merge(before), place) {
            (Some(letter), Some(place)) => drop(letters.queue.insert(place, (*feed, letter))),
            (Some(letter), None) => {
                let place = letters.next;
                letters.next += 1;
                letters.queue.insert(place, (*feed, letter));
                letters.places.insert(*feed, place);
            }
            (None, Some(_)) => drop(letters.places.remove(feed)),
            (None, None) => {}
        }
        letters.wake();
    }

    fn close(&self) {
        let mut letters = self.letters();
        letters.is_closed = true;
        letters.wake();
    }

    /// The next letter; `None` when there will be no more.
    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut letters = self.letters();
        if let Some((_, (feed, letter))) = letters.queue.pop_first() {
            letters.places.remove(&feed);
            if letters.places.is_empty() {
                // Room for many is not kept for few.
                letters.places.shrink_to(16);
            }
            return Poll::Ready(Some(letter));
        }
        if letters.is_closed {
            return Poll::Ready(None);
        }
        letters.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn letters(&self) -> MutexGuard<'_, Letters<T>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Letters<T> {
    fn wake(&mut self) {
        if (self.is_closed || !self.queue.is_empty())
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }
}

/// The boxes of all receivers. They are closed when this is dropped.
pub(crate) struct Mailboxes<T> {
    boxes: Mutex<Boxes<T>>,
}

struct Boxes<T> {
    of: Vec<Weak<Mailbox<T>>>,
    is_closed: bool,
}

impl<T> Mailboxes<T> {
    /// A box for what comes from now on.
    pub(crate) fn subscribe(&self) -> Arc<Mailbox<T>> {
        let mut boxes = self.boxes();
        let mailbox = Arc::new(Mailbox::new(boxes.is_closed));
        boxes.of.retain(|mailbox| mailbox.strong_count() > 0);
        boxes.of.push(Arc::downgrade(&mailbox));
        mailbox
    }

    /// Puts a letter about a feed into every box.
    pub(crate) fn put(&self, feed: &DiscoveryKey, merge: impl Fn(Option<T>) -> Option<T>) {
        let boxes = self.boxes();
        for mailbox in boxes.of.iter().filter_map(Weak::upgrade) {
            mailbox.put(feed, &merge);
        }
    }

    /// Says that nothing more will come.
    pub(crate) fn close(&self) {
        let mut boxes = self.boxes();
        boxes.is_closed = true;
        boxes.of.drain(..).filter_map(|mailbox| mailbox.upgrade()).for_each(|mailbox| mailbox.close());
    }

    /// Nothing panics while it holds the lock.
    fn boxes(&self) -> MutexGuard<'_, Boxes<T>> {
        self.boxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Mailboxes<T> {
    fn default() -> Self {
        Self { boxes: Mutex::new(Boxes { of: vec![], is_closed: false }) }
    }
}

impl<T> Drop for Mailboxes<T> {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> DiscoveryKey {
        DiscoveryKey::from_bytes([n; 32])
    }

    fn next<T>(mailbox: &Mailbox<T>) -> Poll<Option<T>> {
        mailbox.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_slow_receiver_gets_the_latest_of_each_in_order() {
        let boxes = Mailboxes::default();
        let mailbox = boxes.subscribe();
        for (feed, figure) in [(1, 10), (2, 20), (1, 11), (3, 30), (2, 21)] {
            boxes.put(&key(feed), |_| Some(figure));
        }
        boxes.put(&key(3), |before| before.filter(|_| false));
        assert_eq!(next(&mailbox), Poll::Ready(Some(11)));
        boxes.put(&key(1), |before| Some(before.unwrap_or(12)));
        assert_eq!(next(&mailbox), Poll::Ready(Some(21)));
        assert_eq!(next(&mailbox), Poll::Ready(Some(12)));
        assert_eq!(next(&mailbox), Poll::Pending);
        boxes.put(&key(4), |_| Some(40));
        drop(boxes);
        assert_eq!(next(&mailbox), Poll::Ready(Some(40)));
        assert_eq!(next(&mailbox), Poll::Ready(None));
    }

    #[test]
    fn what_was_fetched_or_taken_back_leaves_nothing() {
        let boxes = Mailboxes::default();
        let mailbox = boxes.subscribe();
        for n in 0..200_u8 {
            boxes.put(&key(n), |_| Some(n));
            boxes.put(&key(n), |_| None);
        }
        let letters = mailbox.letters();
        assert!(letters.queue.is_empty() && letters.places.is_empty());
    }
}
