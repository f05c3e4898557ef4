//! The feeds that somebody holds.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    feed::{Feed, FeedChange, FeedChanges, Home, WeakFeed, changes::Reports},
    key::DiscoveryKey,
};

/// From how many places on what is empty of the table is given back.
const SHRINK_FROM: usize = 64;

/// The feeds of a store that somebody holds, and what they report.
#[derive(Default)]
pub(super) struct OpenFeeds {
    feeds: Mutex<HashMap<DiscoveryKey, WeakFeed>>,
    reports: Reports,
}

/// How it stands with a feed.
pub(super) enum Holding {
    Held(Feed),
    /// The last handle has gone, and may have left a commit under way.
    Leaving,
    Closed,
}

impl OpenFeeds {
    pub(super) fn find(&self, discovery_key: &DiscoveryKey) -> Holding {
        // A handle that turns out to be the last must not be dropped under the lock.
        let found = self.feeds().get(discovery_key).map(WeakFeed::upgrade);
        match found {
            Some(Some(feed)) if !feed.is_purged() => Holding::Held(feed),
            Some(_) => Holding::Leaving,
            None => Holding::Closed,
        }
    }

    pub(super) fn held(&self, discovery_key: &DiscoveryKey) -> Option<Feed> {
        match self.find(discovery_key) {
            Holding::Held(feed) => Some(feed),
            Holding::Leaving | Holding::Closed => None,
        }
    }

    pub(super) fn add(&self, feed: &Feed) {
        self.feeds().insert(feed.discovery_key(), feed.downgrade());
    }

    /// Forgets a feed that was purged.
    pub(super) fn remove(&self, discovery_key: &DiscoveryKey) {
        self.feeds().remove(discovery_key);
        self.reports.retract(discovery_key);
    }

    pub(super) fn changes(&self) -> FeedChanges {
        self.reports.subscribe()
    }

    pub(super) fn close(&self) {
        self.reports.close();
    }

    /// Nothing panics while it holds the lock, and no handle is dropped.
    fn feeds(&self) -> MutexGuard<'_, HashMap<DiscoveryKey, WeakFeed>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Home for OpenFeeds {
    fn changed(&self, change: &FeedChange) {
        self.reports.tell(change);
    }

    fn left(&self, discovery_key: &DiscoveryKey) {
        let mut feeds = self.feeds();
        // It may have been opened again meanwhile.
        if let Entry::Occupied(entry) = feeds.entry(*discovery_key)
            && !entry.get().is_held()
        {
            entry.remove();
        }
        if feeds.capacity() >= SHRINK_FROM && feeds.len() < feeds.capacity() / 8 {
            let room = feeds.len() * 2;
            feeds.shrink_to(room);
        }
    }
}
