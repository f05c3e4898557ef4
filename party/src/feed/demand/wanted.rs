//! Who wants what of a feed, and word of its changes.

use std::{
    any::Any,
    collections::{BTreeMap, btree_map::Entry},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use super::{
    Demand, Order, RangeSet,
    coverage::Coverage,
    word::{Listener, Teller},
};
use crate::feed::Feed;

/// After so many changes in a row a writer lets others go first. More, and they have nothing to do until then; fewer, and
/// they do for each batch what could be done for several: ask for the growth, verify a signature, commit.
const GIVE_WAY_AFTER: u64 = 8;

/// All demands on one feed, and who is told when they or the feed change. Of thousands of feeds that are open,
/// most have nobody who waits for them, so what tells is made when somebody asks.
#[derive(Default)]
pub(crate) struct Demands {
    wanted: Mutex<Wanted>,
    changes: OnceLock<Teller>,
    /// The feed alone: who waits for blocks need not look each time that another begins or ends to wait.
    growth: OnceLock<Teller>,
    /// Whether the feed is not to be replicated for a while.
    suspended: AtomicBool,
    /// Counts the changes after which nobody gave way.
    unheard: AtomicU64,
}

#[derive(Default)]
struct Wanted {
    urgent: Coverage,
    /// By [`Order`].
    orders: [Coverage; Order::ALL.len()],
    /// Those who wait for single blocks. Only they are woken by what comes, however many wait for others.
    awaited: BTreeMap<u64, Awaited>,
    /// How many of the newest blocks are wanted, as the feed grows, and how often.
    newest: BTreeMap<u64, usize>,
    /// Downloads that count what comes.
    tracked: BTreeMap<u64, Arc<Tracked>>,
    next_id: u64,
}

/// What a download has got.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) blocks: Blocks,
    pub(super) bytes: AtomicU64,
}

/// Which blocks a download is about.
#[derive(Debug)]
pub(super) enum Blocks {
    These(RangeSet, Order),
    /// So many of the highest.
    Newest(u64),
}

#[derive(Default)]
struct Awaited {
    stored: Arc<Notify>,
    times: usize,
}

impl Tracked {
    fn count(&self, received: &[(u64, u64)], length: u64) {
        let ours = received.iter().filter(|(index, _)| self.blocks.contain(*index, length));
        self.bytes.fetch_add(ours.map(|(_, bytes)| bytes).sum(), Ordering::Relaxed);
    }
}

impl Blocks {
    /// Whether block `index` of a feed of this length is one of them.
    fn contain(&self, index: u64, length: u64) -> bool {
        match self {
            Self::These(set, _) => set.contains(index),
            Self::Newest(count) => index >= length.saturating_sub(*count),
        }
    }
}

/// The blocks that a commit has stored.
pub(crate) struct Stored {
    /// Those that have become contiguous, and some that were stored before.
    pub(crate) next: Range<u64>,
    /// All others.
    pub(crate) scattered: Vec<u64>,
    /// Those that came from peers, and their sizes in bytes, if [anybody counts](Demands::are_tracked).
    pub(crate) received: Vec<(u64, u64)>,
    /// How many blocks the feed has now.
    pub(crate) length: u64,
}

impl Demands {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn subscribe(&self) -> Changes {
        Changes { listener: self.changes.get_or_init(Teller::default).subscribe(), _teller: None }
    }

    pub(crate) fn subscribe_to_growth(&self) -> Changes {
        Changes { listener: self.growth.get_or_init(Teller::default).subscribe(), _teller: None }
    }

    /// Says that the feed has changed; `None` for what stores no blocks.
    pub(crate) fn notify(&self, stored: Option<Stored>) {
        let wanted = self.wanted();
        if let Some(Stored { next, scattered, received, length }) = stored {
            if !next.is_empty() {
                wanted.awaited.range(next).for_each(|(_, awaited)| awaited.stored.notify_waiters());
            }
            if !wanted.awaited.is_empty() {
                let awaited = scattered.iter().filter_map(|index| wanted.awaited.get(index));
                awaited.for_each(|awaited| awaited.stored.notify_waiters());
            }
            wanted.tracked.values().for_each(|tracked| tracked.count(&received, length));
        } else {
            wanted.awaited.values().for_each(|awaited| awaited.stored.notify_waiters());
        }
        drop(wanted);
        tell(&self.growth);
        tell(&self.changes);
    }

    /// Whether who has just changed the feed is to let those go first who are told of it, if anybody is: after every few
    /// changes, so that they need not look at each.
    pub(crate) fn is_time_to_give_way(&self) -> bool {
        self.changes.get().is_some_and(|listeners| listeners.listeners() > 0)
            && self.unheard.fetch_add(1, Ordering::Relaxed) % GIVE_WAY_AFTER == GIVE_WAY_AFTER - 1
    }

    /// Has those look again who wait for anything but blocks: the channels of the feed.
    pub(crate) fn stir(&self) {
        tell(&self.changes);
    }

    /// Whether anybody counts what comes.
    pub(crate) fn are_tracked(&self) -> bool {
        !self.wanted().tracked.is_empty()
    }

    /// Wants the blocks until they are [removed](Self::remove). Returns the number under which they are tracked.
    pub(super) fn add(&self, tracked: &Arc<Tracked>, track: bool) -> Option<u64> {
        self.change(|wanted| {
            match &tracked.blocks {
                Blocks::These(set, order) => {
                    let order = &mut wanted.orders[*order as usize];
                    set.iter().for_each(|range| order.add(&range));
                }
                Blocks::Newest(count) => *wanted.newest.entry(*count).or_default() += 1,
            }
            track.then(|| {
                wanted.next_id += 1;
                wanted.tracked.insert(wanted.next_id, tracked.clone());
                wanted.next_id
            })
        })
    }

    pub(super) fn remove(&self, tracked: &Tracked, id: Option<u64>) {
        self.change(|wanted| {
            match &tracked.blocks {
                Blocks::These(set, order) => {
                    let order = &mut wanted.orders[*order as usize];
                    set.iter().for_each(|range| order.remove(&range));
                }
                Blocks::Newest(count) => {
                    if let Entry::Occupied(mut times) = wanted.newest.entry(*count) {
                        *times.get_mut() -= 1;
                        if *times.get() == 0 {
                            times.remove();
                        }
                    }
                }
            }
            if let Some(id) = id {
                wanted.tracked.remove(&id);
            }
        });
    }

    /// All that is wanted of a feed of this length.
    fn demand(&self, length: u64) -> Demand {
        let wanted = self.wanted();
        let urgent = wanted.urgent.union().clone();
        let orders = wanted.orders.each_ref().map(|order| order.union().clone());
        let newest = wanted.newest.last_key_value().map(|(count, _)| length.saturating_sub(*count)..length);
        Demand { urgent, orders }.with(Order::Newest, newest)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Wanted) -> R) -> R {
        let changed = change(&mut self.wanted());
        tell(&self.changes);
        changed
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(listeners: &OnceLock<Teller>) {
    if let Some(listeners) = listeners.get() {
        listeners.tell();
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
    listener: Listener,
    /// Whoever tells, if nobody else holds him.
    _teller: Option<Arc<dyn Any + Send + Sync>>,
}

impl Changes {
    pub(crate) fn told_by(teller: Arc<dyn Any + Send + Sync>, listener: Listener) -> Self {
        Self { listener, _teller: Some(teller) }
    }

    /// Waits for the next change since the last call, or since [`Feed::subscribe`]. Never completes once the
    /// feed is gone.
    pub async fn changed(&mut self) {
        if !self.listener.heard().await {
            std::future::pending::<()>().await;
        }
    }
}

impl Feed {
    /// All that is wanted here at this moment.
    pub fn demand(&self) -> Demand {
        let length = self.with_local(|local| local.length());
        self.demands().demand(length)
    }

    /// Makes a pause in the replication of the feed: no peer is asked for anything more, and the requests of peers
    /// wait. What is under way ends; channels stay open. It holds for peers that come later, too, and for as
    /// long as somebody holds the feed.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// # let identity = Identity::reader([7; 32].into());
    /// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
    /// feed.suspend_replication();
    /// assert!(feed.is_replication_suspended());
    /// feed.resume_replication();
    /// # Ok(())
    /// # }
    /// ```
    pub fn suspend_replication(&self) {
        self.demands().suspended.store(true, Ordering::Release);
        self.stir();
    }

    /// Goes on where [`suspend_replication`](Self::suspend_replication) has stopped it.
    pub fn resume_replication(&self) {
        self.demands().suspended.store(false, Ordering::Release);
        self.stir();
    }

    /// Whether the replication of the feed is suspended as a whole.
    pub fn is_replication_suspended(&self) -> bool {
        self.demands().suspended.load(Ordering::Acquire)
    }

    /// Has the channels of the feed look again.
    pub(crate) fn stir(&self) {
        self.demands().stir();
    }

    /// Wants a block at once, which is below [`MAX_LENGTH`](crate::feed::tree::MAX_LENGTH).
    pub(crate) fn awaiting(&self, index: u64) -> Awaiting {
        let stored = self.demands().change(|wanted| {
            wanted.urgent.add(&(index..index + 1));
            let awaited = wanted.awaited.entry(index).or_default();
            awaited.times += 1;
            awaited.stored.clone()
        });
        Awaiting { feed: self.clone(), index, stored }
    }
}
