//! Which snapshots are held: what they may read must stay.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many snapshots are held, by the number of commits at the moment they were taken.
pub(super) struct Live {
    held: Mutex<BTreeMap<u64, usize>>,
    released: Box<dyn Fn() + Send + Sync>,
}

impl Live {
    /// Calls `released` whenever one is no longer held.
    pub(super) fn new(released: impl Fn() + Send + Sync + 'static) -> Self {
        Self { held: Mutex::default(), released: Box::new(released) }
    }

    /// Holds on to what was there after `commits`.
    pub(super) fn hold(self: &Arc<Self>, commits: u64) -> Holding {
        *self.lock().entry(commits).or_default() += 1;
        Holding { live: self.clone(), commits }
    }

    /// The last commit whose deletions nobody can read any more.
    pub(super) fn unread(&self) -> u64 {
        self.lock().first_key_value().map_or(u64::MAX, |(commits, _)| *commits)
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One snapshot that is held.
pub(super) struct Holding {
    live: Arc<Live>,
    commits: u64,
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut held = self.live.lock();
        if let Some(count) = held.get_mut(&self.commits) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&self.commits);
            }
        }
        drop(held);
        (self.live.released)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_deleted_after_the_oldest_snapshot_is_still_read() {
        let live = Arc::new(Live::new(|| ()));
        assert_eq!(live.unread(), u64::MAX);
        let (a, b, c) = (live.hold(7), live.hold(5), live.hold(5));
        assert_eq!(live.unread(), 5);
        drop(b);
        assert_eq!(live.unread(), 5);
        drop(c);
        assert_eq!(live.unread(), 7);
        drop(a);
        assert_eq!(live.unread(), u64::MAX);
    }
}
