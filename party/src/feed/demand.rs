//! What is wanted of a feed here, and word of its changes.

use std::{
    collections::BTreeMap,
    ops::{Bound, Range, RangeBounds},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::sync::watch;

use crate::feed::{Feed, local::Demand};

/// All demands on one feed, and who is told when they or the feed change. Of thousands of feeds that are open,
/// most have nobody who waits for them, so what tells is made when somebody asks.
#[derive(Default)]
pub(crate) struct Demands {
    wanted: Mutex<Wanted>,
    changes: OnceLock<watch::Sender<()>>,
    /// The feed alone: who waits for blocks need not look each time that another begins or ends to wait.
    growth: OnceLock<watch::Sender<()>>,
}

#[derive(Default)]
struct Wanted {
    next_id: u64,
    ranges: BTreeMap<u64, Range<u64>>,
    /// The union, until a range comes or goes.
    union: Option<Demand>,
}

impl Demands {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn subscribe(&self) -> Changes {
        Changes { receiver: self.changes.get_or_init(watch::Sender::default).subscribe() }
    }

    pub(crate) fn subscribe_to_growth(&self) -> Changes {
        Changes { receiver: self.growth.get_or_init(watch::Sender::default).subscribe() }
    }

    /// Says that the feed has changed.
    pub(crate) fn notify(&self) {
        tell(&self.growth);
        tell(&self.changes);
    }

    /// Has those look again who wait for anything but blocks: the channels of the feed.
    pub(crate) fn stir(&self) {
        tell(&self.changes);
    }

    fn add(&self, range: Range<u64>) -> u64 {
        let mut wanted = self.wanted();
        let id = wanted.next_id;
        wanted.next_id += 1;
        wanted.ranges.insert(id, range);
        wanted.union = None;
        drop(wanted);
        tell(&self.changes);
        id
    }

    fn remove(&self, id: u64) {
        let mut wanted = self.wanted();
        wanted.ranges.remove(&id);
        wanted.union = None;
        drop(wanted);
        tell(&self.changes);
    }

    fn union(&self) -> Demand {
        let mut wanted = self.wanted();
        let Wanted { ranges, union, .. } = &mut *wanted;
        union.get_or_insert_with(|| Demand::from_ranges(ranges.values().cloned())).clone()
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(listeners: &OnceLock<watch::Sender<()>>) {
    if let Some(listeners) = listeners.get() {
        listeners.send_replace(());
    }
}

/// Says when a feed or its demand has changed. Many changes may be reported as one.
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// # let identity = Identity::writer(KeyPair::generate());
/// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
/// let mut changes = feed.subscribe();
/// feed.append("a").await?;
/// feed.append("b").await?;
/// changes.changed().await; // once for both, so look how things stand
/// assert_eq!(feed.info().length, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Changes {
    receiver: watch::Receiver<()>,
}

impl Changes {
    /// Waits for the next change since the last call, or since [`Feed::subscribe`]. Never completes once the
    /// feed is gone.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Feed {
    /// All that is wanted here at this moment.
    pub fn demand(&self) -> Demand {
        self.demands().union()
    }

    /// Wants the blocks of `range` from every peer that has them, until the [`Download`] is dropped. A range
    /// without an end includes what will be appended.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// # let identity = Identity::reader([7; 32].into());
    /// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
    /// let all = feed.download(..);
    /// assert!(feed.demand().wants(1_000_000));
    /// drop(all);
    /// assert!(feed.demand().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn download(&self, range: impl RangeBounds<u64>) -> Download {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let range = start..end.max(start);
        Download { id: self.demands().add(range.clone()), range, feed: self.clone() }
    }
}

/// A range of a feed that is wanted for as long as this lives.
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// # let identity = Identity::writer(KeyPair::generate());
/// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
/// feed.append_batch(vec!["a".into(), "b".into()]).await?;
/// let download = feed.download(0..2);
/// assert!(feed.demand().wants(1));
/// download.done().await; // at once here; else when peers have brought the rest
/// drop(download);
/// assert!(!feed.demand().wants(1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "what is wanted is forgotten when this is dropped"]
pub struct Download {
    feed: Feed,
    id: u64,
    range: Range<u64>,
}

impl Download {
    /// Completes when every block of the range is stored here, or the feed is purged from its store; for a
    /// range without an end, never.
    pub async fn done(&self) {
        if self.range.end == u64::MAX {
            return std::future::pending().await;
        }
        let mut changes = self.feed.demands().subscribe_to_growth();
        let missing = |from| self.feed.with_local(|local| local.next_missing(from, self.range.end));
        // Blocks rarely go away, so each look begins where the last one stopped.
        let mut from = self.range.start;
        while !self.feed.is_purged() {
            match missing(from) {
                Some(index) => {
                    from = index;
                    changes.changed().await;
                }
                None if from == self.range.start => return,
                None => from = self.range.start,
            }
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.feed.demands().remove(self.id);
    }
}
