//! Downloads: ranges of a feed that somebody wants, and how far they are.

use std::ops::{Range, RangeBounds};

use super::{Order, wanted::bounds};
use crate::feed::Feed;

impl Feed {
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
        let range = bounds(range);
        self.demands().add(Order::Linear, std::slice::from_ref(&range));
        Download { range, feed: self.clone() }
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
        self.feed.demands().remove(Order::Linear, std::slice::from_ref(&self.range));
    }
}
