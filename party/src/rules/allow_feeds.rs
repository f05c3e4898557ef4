//! Ready-made policy: a list of feeds.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
};

use super::{Decision, Policy, Question};
use crate::key::FeedKey;

/// Allows the feeds that it lists, to everybody and in every respect, and no others. For a fixed set of feeds, like those of
/// a release, however many more are in the store.
///
/// Clones share the list. It may change at any time; what follows from that takes effect with
/// [`Party::reevaluate`](crate::party::Party::reevaluate).
///
/// ```
/// use party::{key::FeedKey, rules::AllowFeeds};
///
/// let notes = FeedKey::from_bytes([7; 32]);
/// let public = AllowFeeds::new([]);
/// assert!(public.insert(notes) && public.contains(&notes));
/// assert!(public.remove(&notes) && !public.remove(&notes));
/// ```
#[derive(Clone, Debug, Default)]
pub struct AllowFeeds {
    list: Arc<RwLock<BTreeSet<FeedKey>>>,
}

const NAME: &str = "allow-list of feeds";

impl AllowFeeds {
    /// Allows these.
    pub fn new(feeds: impl IntoIterator<Item = FeedKey>) -> Self {
        Self { list: Arc::new(RwLock::new(feeds.into_iter().collect())) }
    }

    /// Adds a feed. Returns whether it was not there.
    pub fn insert(&self, feed: FeedKey) -> bool {
        self.list.write().unwrap_or_else(PoisonError::into_inner).insert(feed)
    }

    /// Takes a feed off the list. Returns whether it was there.
    pub fn remove(&self, feed: &FeedKey) -> bool {
        self.list.write().unwrap_or_else(PoisonError::into_inner).remove(feed)
    }

    /// Whether it lists a feed.
    pub fn contains(&self, feed: &FeedKey) -> bool {
        self.list.read().unwrap_or_else(PoisonError::into_inner).contains(feed)
    }
}

impl Policy for AllowFeeds {
    fn decide(&self, question: &Question<'_>) -> Decision {
        if self.contains(&question.feed) {
            Decision::allow(NAME, "the feed is on the list")
        } else {
            Decision::deny(NAME, "the feed is not on the list")
        }
    }
}
