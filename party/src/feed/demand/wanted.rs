//! Who wants what of a feed, and word of its changes.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::{Bound, Range},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::sync::{Notify, watch};

use super::{Demand, Order, coverage::Coverage};
use crate::feed::Feed;

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
    urgent: Coverage,
    /// By [`Order`].
    orders: [Coverage; Order::ALL.len()],
    /// Those who wait for single blocks. Only they are woken by what comes, however many wait for others.
    awaited: BTreeMap<u64, Awaited>,
}

#[derive(Default)]
struct Awaited {
    stored: Arc<Notify>,
    times: usize,
}

/// The blocks that a commit has stored: those next to the contiguous part, and all others.
pub(crate) type Stored = (Range<u64>, Vec<u64>);

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

    /// Says that the feed has changed; `None` for what stores no blocks.
    pub(crate) fn notify(&self, stored: Option<Stored>) {
        let wanted = self.wanted();
        if let Some((next, scattered)) = stored {
            if !next.is_empty() {
                wanted.awaited.range(next).for_each(|(_, awaited)| awaited.stored.notify_waiters());
            }
            if !wanted.awaited.is_empty() {
                let awaited = scattered.iter().filter_map(|index| wanted.awaited.get(index));
                awaited.for_each(|awaited| awaited.stored.notify_waiters());
            }
        } else {
            wanted.awaited.values().for_each(|awaited| awaited.stored.notify_waiters());
        }
        drop(wanted);
        tell(&self.growth);
        tell(&self.changes);
    }

    pub(super) fn add(&self, order: Order, ranges: &[Range<u64>]) {
        self.change(|wanted| ranges.iter().for_each(|range| wanted.orders[order as usize].add(range)));
    }

    pub(super) fn remove(&self, order: Order, ranges: &[Range<u64>]) {
        self.change(|wanted| ranges.iter().for_each(|range| wanted.orders[order as usize].remove(range)));
    }

    fn demand(&self) -> Demand {
        let wanted = self.wanted();
        Demand {
            urgent: wanted.urgent.union().clone(),
            orders: wanted.orders.each_ref().map(|order| order.union().clone()),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.wanted());
        tell(&self.changes);
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

/// A block that somebody waits for, for as long as this lives.
pub(crate) struct Awaiting {
    feed: Feed,
    index: u64,
    stored: Arc<Notify>,
}

impl Awaiting {
    /// Completes when the block is stored here, or the feed is purged from its store.
    pub(crate) async fn stored(&self) {
        loop {
            // Before the look: what is stored after it wakes this one.
            let stored = self.stored.notified();
            if self.feed.has(self.index) || self.feed.is_purged() {
                return;
            }
            stored.await;
        }
    }
}

impl Drop for Awaiting {
    fn drop(&mut self) {
        self.feed.demands().change(|wanted| {
            wanted.urgent.remove(&(self.index..self.index + 1));
            if let Entry::Occupied(mut awaited) = wanted.awaited.entry(self.index) {
                awaited.get_mut().times -= 1;
                if awaited.get().times == 0 {
                    awaited.remove();
                }
            }
        });
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
        self.demands().demand()
    }

    /// Wants a block at once, which is below [`MAX_LENGTH`](crate::feed::tree::MAX_LENGTH).
    pub(crate) fn awaiting(&self, index: u64) -> Awaiting {
        let mut stored = None;
        self.demands().change(|wanted| {
            wanted.urgent.add(&(index..index + 1));
            let awaited = wanted.awaited.entry(index).or_default();
            awaited.times += 1;
            stored = Some(awaited.stored.clone());
        });
        Awaiting { feed: self.clone(), index, stored: stored.unwrap_or_default() }
    }
}

/// The blocks that `range` is about; one without an end goes to `u64::MAX`.
pub(super) fn bounds(range: impl std::ops::RangeBounds<u64>) -> Range<u64> {
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
    start..end.max(start)
}
