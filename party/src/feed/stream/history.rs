//! What is stored, from one block to another.

use std::{
    collections::VecDeque,
    fmt,
    ops::{Bound, Range, RangeBounds},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};

use super::{Ahead, MAX_AHEAD};
use crate::{
    error::Error,
    feed::{Feed, FeedSnapshot},
};

/// The blocks of a feed that are stored here, with their indexes, in their order: a [`Stream`] from
/// [`Feed::history`]. It ends with the feed as it was when it began, whatever is appended, truncated or cleared
/// meanwhile; blocks that weren't stored then are left out.
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// use futures_util::StreamExt as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// # let identity = Identity::writer(KeyPair::generate());
/// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
/// feed.append_batch(vec!["a".into(), "b".into(), "c".into()]).await?;
/// let mut history = feed.history(1..).await;
/// while let Some(entry) = history.next().await {
///     let (index, block) = entry?;
///     println!("{index}: {} bytes", block.len());
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "streams do nothing unless polled"]
pub struct History {
    inner: BoxStream<'static, Result<(u64, Bytes), Error>>,
}

impl Feed {
    /// Reads the blocks of `range` that are stored here now. It reads ahead, up to 64 blocks.
    pub async fn history(&self, range: impl RangeBounds<u64>) -> History {
        History::new(self.snapshot().await, range)
    }
}

impl FeedSnapshot {
    /// Reads the blocks of `range` that are in the snapshot. It reads ahead, up to 64 blocks.
    pub fn history(&self, range: impl RangeBounds<u64>) -> History {
        History::new(self.clone(), range)
    }
}

impl History {
    fn new(snapshot: FeedSnapshot, range: impl RangeBounds<u64>) -> Self {
        let range = within(range, snapshot.info().length);
        let reading = Reading { snapshot, range, ahead: Ahead::new(), read: VecDeque::new() };
        let inner = stream::try_unfold(reading, |mut reading| async move {
            let next = reading.next().await?;
            Ok(next.map(|next| (next, reading)))
        });
        Self { inner: inner.boxed() }
    }
}

impl Stream for History {
    type Item = Result<(u64, Bytes), Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.poll_next_unpin(cx)
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}

struct Reading {
    snapshot: FeedSnapshot,
    /// What is left to read.
    range: Range<u64>,
    ahead: Ahead,
    read: VecDeque<(u64, Bytes)>,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<(u64, Bytes)>, Error> {
        if self.read.is_empty() {
            let indexes = self.snapshot.stored(self.range.clone(), self.ahead.blocks.min(MAX_AHEAD));
            let Some(last) = indexes.last() else { return Ok(None) };
            self.range.start = last + 1;
            let blocks = self.snapshot.get_many(indexes.clone()).await?;
            self.read
                .extend(indexes.into_iter().zip(blocks).filter_map(|(index, block)| Some((index, block?))));
            self.ahead.read(self.read.len(), self.read.iter().map(|(_, block)| block.len()).sum());
        }
        Ok(self.read.pop_front())
    }
}

/// The part of `range` below `length`.
fn within(range: impl RangeBounds<u64>, length: u64) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => length,
    };
    start..end.min(length).max(start)
}
