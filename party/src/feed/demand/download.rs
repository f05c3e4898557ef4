//! Downloads: blocks of a feed that somebody wants, and how far they are.

use std::{
    future::pending,
    ops::{Bound, Range, RangeBounds},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    Order, RangeSet,
    wanted::{Blocks, Tracked},
};
use crate::{
    error::{ApiMisuse, Error},
    feed::{Feed, seek::Located},
};

/// How a download goes about it.
///
/// ```
/// use party::feed::{DownloadOptions, Order};
///
/// assert_eq!(DownloadOptions::default().order, Order::Linear);
/// assert_eq!(DownloadOptions::in_order(Order::Rarest).order, Order::Rarest);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DownloadOptions {
    /// Which blocks are asked for first. The default is [`Order::Linear`].
    pub order: Order,
}

impl DownloadOptions {
    /// In this order.
    pub fn in_order(order: Order) -> Self {
        Self { order }
    }
}

impl Feed {
    /// Wants the blocks of `range` from every peer that has them, the lowest first, until the [`Download`] is
    /// dropped. A range without an end includes what will be appended.
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
        self.download_with(range, DownloadOptions::default())
    }

    /// As [`download`](Self::download), in another order.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
    /// use party::feed::{DownloadOptions, Order};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// # let identity = Identity::reader([7; 32].into());
    /// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
    /// let _all = feed.download_with(.., DownloadOptions::in_order(Order::Rarest));
    /// assert!(feed.demand().of(Order::Rarest).contains(0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn download_with(&self, range: impl RangeBounds<u64>, options: DownloadOptions) -> Download {
        self.download_set([bounds(&range)].into_iter().collect(), options)
    }

    /// As [`download`](Self::download), of these blocks.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// # let identity = Identity::reader([7; 32].into());
    /// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
    /// let some = feed.download_list([7, 3, 4]);
    /// assert_eq!(feed.demand().ranges(), [3..5, 7..8]);
    /// assert_eq!((some.progress().blocks, some.progress().of), (0, 3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn download_list(&self, blocks: impl IntoIterator<Item = u64>) -> Download {
        self.download_list_with(blocks, DownloadOptions::default())
    }

    /// As [`download_list`](Self::download_list), in another order. A block is wanted once, however often it is
    /// in the list; there is no block `u64::MAX`.
    pub fn download_list_with(
        &self,
        blocks: impl IntoIterator<Item = u64>,
        options: DownloadOptions,
    ) -> Download {
        let ranges = blocks.into_iter().map(|index| index..index.saturating_add(1));
        self.download_set(ranges.collect(), options)
    }

    /// As [`download`](Self::download), of the `count` blocks that stand at the end of the feed now.
    pub fn download_last(&self, count: u64) -> Download {
        let length = self.with_local(|local| local.length());
        let range = length.saturating_sub(count)..length;
        self.download_with(range, DownloadOptions::in_order(Order::Newest))
    }

    /// As [`download`](Self::download), of the `count` blocks that stand at the end of the feed at any time,
    /// the newest first. What stands further back when its turn comes is left out.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
    /// # use party::key::KeyPair;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// # let identity = Identity::writer(KeyPair::generate());
    /// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
    /// feed.append_batch(vec!["a".into(), "b".into(), "c".into()]).await?;
    /// let (last, newest) = (feed.download_last(1), feed.download_newest(2));
    /// assert_eq!(feed.demand().ranges(), [1..3]);
    /// feed.append("d").await?;
    /// assert_eq!(feed.demand().ranges(), [2..4]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn download_newest(&self, count: u64) -> Download {
        Download::new(self, Blocks::Newest(count), true)
    }

    /// As [`download`](Self::download), of the blocks that have the bytes of `range`, counted from the start of
    /// the feed as this handle gives them, up to its end at this moment. Completes when it is known which
    /// these are: at once, unless the tree nodes that tell have to come from peers. Dropped before, it wants
    /// nothing any more.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
    /// # use party::key::KeyPair;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// # let identity = Identity::writer(KeyPair::generate());
    /// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
    /// feed.append_batch(vec!["hello".into(), " ".into(), "world".into()]).await?;
    /// let _download = feed.download_bytes(5..8).await?;
    /// assert_eq!(feed.demand().ranges(), [1..3]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why it could not be read.
    pub async fn download_bytes(&self, range: Range<u64>) -> Result<Download, Error> {
        let blocks = if range.is_empty() {
            0..0
        } else {
            let length = self.with_local(|local| local.length());
            let first = self.block_at(range.start).await?.unwrap_or(length);
            let last = self.block_at(range.end - 1).await?.map_or(length, |last| last.saturating_add(1));
            first..last.min(length)
        };
        Ok(self.download(blocks))
    }

    /// Everything, without being counted: what a connection wants.
    pub(crate) fn want_all(&self) -> Download {
        let all = RangeSet::from_iter([0..u64::MAX]);
        Download::new(self, Blocks::These(all, Order::Linear), false)
    }

    fn download_set(&self, set: RangeSet, options: DownloadOptions) -> Download {
        Download::new(self, Blocks::These(set, options.order), true)
    }

    /// The block that has the byte at `offset`. `None` beyond the end.
    async fn block_at(&self, offset: u64) -> Result<Option<u64>, Error> {
        loop {
            match self.locate(offset).await? {
                Located::Block { index, .. } => return Ok(Some(index)),
                Located::Beyond => return Ok(None),
                // The proof of any of them says how many bytes stand in each half of what leads to it.
                Located::Within { blocks, .. } => {
                    self.awaiting(blocks.start + (blocks.end - blocks.start) / 2).stored().await;
                    if self.is_purged() {
                        return Err(ApiMisuse::Purged(self.discovery_key()).into());
                    }
                }
            }
        }
    }
}

/// How far a [`Download`] is.
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
/// feed.clear(0..1).await?;
/// let progress = feed.download(..).progress();
/// assert_eq!((progress.blocks, progress.of, progress.bytes), (1, 2, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Blocks of it that are stored here.
    pub blocks: u64,
    /// Blocks of it altogether; of a range without an end, as many as the feed has by now.
    pub of: u64,
    /// Bytes of those blocks that peers have brought since it began.
    pub bytes: u64,
}

/// Blocks of a feed that are wanted for as long as this lives. Dropping it cancels: what is on the way and not
/// wanted otherwise is taken back, what has come stays.
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
/// download.done().await?; // at once here; else when peers have brought the rest
/// drop(download);
/// assert!(!feed.demand().wants(1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "what is wanted is forgotten when this is dropped"]
pub struct Download {
    feed: Feed,
    tracked: Arc<Tracked>,
    id: Option<u64>,
}

impl Download {
    fn new(feed: &Feed, blocks: Blocks, track: bool) -> Self {
        let tracked = Arc::new(Tracked { blocks, bytes: AtomicU64::new(0) });
        let id = feed.demands().add(&tracked, track);
        Self { feed: feed.clone(), tracked, id }
    }

    /// Completes when every block of it is stored here; of a range without an end and of the newest blocks as
    /// the feed grows, never. The download goes on if this is dropped.
    ///
    /// # Errors
    /// [`ApiMisuse::Purged`] if the feed was purged from its store.
    pub async fn done(&self) -> Result<(), Error> {
        let Blocks::These(set, _) = &self.tracked.blocks else { return pending().await };
        if set.iter().next_back().is_some_and(|last| last.end == u64::MAX) {
            return pending().await;
        }
        let mut changes = self.feed.demands().subscribe_to_growth();
        let missing = |from| self.feed.with_local(|local| set.next_missing(local, from, u64::MAX));
        // Blocks rarely go away, so each look begins where the last one stopped.
        let mut from = 0;
        loop {
            self.check_purged()?;
            match missing(from) {
                Some(index) => {
                    from = index;
                    changes.changed().await;
                }
                None if from == 0 => return Ok(()),
                None => from = 0,
            }
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let length = self.feed.with_local(|local| local.length());
        let newest = match &self.tracked.blocks {
            Blocks::Newest(count) => Some(length.saturating_sub(*count)..length),
            Blocks::These(..) => None,
        };
        let these = match &self.tracked.blocks {
            Blocks::These(set, _) => Some(set.iter()),
            Blocks::Newest(_) => None,
        };
        let mut progress =
            Progress { bytes: self.tracked.bytes.load(Ordering::Relaxed), ..Progress::default() };
        for range in these.into_iter().flatten().chain(newest) {
            let end = if range.end == u64::MAX { length.max(range.start) } else { range.end };
            progress.of = progress.of.saturating_add(end - range.start);
            progress.blocks += self.feed.count_stored(range.start..end);
        }
        progress
    }

    /// Waits until it is further, or otherwise, than it was `since`, and says how far. Many changes may be
    /// told as one. The download goes on, and nothing is missed, if this is dropped.
    ///
    /// ```
    /// # use party::{error::Error, feed::Feed};
    /// # async fn example(feed: Feed) -> Result<(), Error> {
    /// let download = feed.download(0..1000);
    /// let mut progress = download.progress();
    /// while progress.blocks < progress.of {
    ///     println!("{} of {} blocks, {} bytes", progress.blocks, progress.of, progress.bytes);
    ///     progress = download.progressed(progress).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ApiMisuse::Purged`] if the feed was purged from its store.
    pub async fn progressed(&self, since: Progress) -> Result<Progress, Error> {
        let mut changes = self.feed.demands().subscribe_to_growth();
        loop {
            self.check_purged()?;
            let progress = self.progress();
            if progress != since {
                return Ok(progress);
            }
            changes.changed().await;
        }
    }

    fn check_purged(&self) -> Result<(), ApiMisuse> {
        if self.feed.is_purged() { Err(ApiMisuse::Purged(self.feed.discovery_key())) } else { Ok(()) }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.feed.demands().remove(&self.tracked, self.id);
    }
}

/// The blocks that `range` is about; one without an end goes to `u64::MAX`.
fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
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
