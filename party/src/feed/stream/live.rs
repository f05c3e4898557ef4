//! What stands in a feed from one block on, and all that comes.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};

use super::Ahead;
use crate::{
    error::Error,
    feed::{Feed, handle::Cut},
};

/// Something that a [`Live`] reader is told.
///
/// ```
/// use bytes::Bytes;
/// use party::feed::LiveEvent;
///
/// /// Keeps `lines` as the feed is.
/// fn apply(lines: &mut Vec<Bytes>, event: LiveEvent) {
///     match event {
///         LiveEvent::Block { block, .. } => lines.push(block),
///         LiveEvent::Truncated { length } => lines.truncate(length as usize),
///     }
/// }
///
/// let mut lines = vec![];
/// apply(&mut lines, LiveEvent::Block { index: 0, block: "a".into() });
/// apply(&mut lines, LiveEvent::Block { index: 1, block: "b".into() });
/// apply(&mut lines, LiveEvent::Truncated { length: 1 });
/// apply(&mut lines, LiveEvent::Block { index: 1, block: "c".into() });
/// assert_eq!(lines, ["a", "c"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveEvent {
    /// The next block.
    Block {
        /// Its index.
        index: u64,
        /// The block.
        block: Bytes,
    },
    /// The feed was cut off, or has taken another course, below what was read before: blocks from `length`
    /// on are void. Those that stand there now come next.
    Truncated {
        /// How many of the blocks that were read still hold.
        length: u64,
    },
}

/// Follows a feed without end: a [`Stream`] from [`Feed::live`].
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// use futures_util::StreamExt as _;
/// use party::feed::LiveEvent;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// # let identity = Identity::writer(KeyPair::generate());
/// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
/// let mut live = feed.live(0);
/// feed.append("a").await?;
/// assert_eq!(live.next().await.unwrap()?, LiveEvent::Block { index: 0, block: "a".into() });
/// feed.truncate(0).await?;
/// feed.append("b").await?;
/// assert_eq!(live.next().await.unwrap()?, LiveEvent::Truncated { length: 0 });
/// assert_eq!(live.next().await.unwrap()?, LiveEvent::Block { index: 0, block: "b".into() });
/// # Ok(())
/// # }
/// ```
#[must_use = "streams do nothing unless polled"]
pub struct Live {
    inner: BoxStream<'static, Result<LiveEvent, Error>>,
}

impl Feed {
    /// Reads the block `from` and all after it, those that will be appended, too. Blocks that are not stored
    /// here are fetched from peers, one after the other as they are asked for; to have more of them on the way, hold
    /// a [`download`](Self::download) beside it.
    pub fn live(&self, from: u64) -> Live {
        let following = Following {
            feed: self.clone(),
            next: from,
            cut: self.watch_cuts(),
            ahead: Ahead::new(),
            read: VecDeque::new(),
        };
        let inner = stream::try_unfold(following, |mut following| async move {
            let event = following.event().await?;
            Ok(Some((event, following)))
        });
        Live { inner: inner.boxed() }
    }
}

impl Stream for Live {
    type Item = Result<LiveEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

struct Following {
    feed: Feed,
    /// The block to hand out next.
    next: u64,
    cut: Arc<Cut>,
    ahead: Ahead,
    read: VecDeque<Bytes>,
}

impl Following {
    async fn event(&mut self) -> Result<LiveEvent, Error> {
        loop {
            if self.read.is_empty() {
                self.read().await?;
            }
            // A cut is noted before anything that comes after it can be read.
            if let Some(length) = self.cut.take() {
                self.read.clear();
                if length < self.next {
                    self.next = length;
                    return Ok(LiveEvent::Truncated { length });
                }
                continue;
            }
            if let Some(block) = self.read.pop_front() {
                let index = self.next;
                self.next += 1;
                return Ok(LiveEvent::Block { index, block });
            }
        }
    }

    /// Reads what is stored here, or waits for the next block or for a cut.
    async fn read(&mut self) -> Result<(), Error> {
        let stored = self.feed.stored_run(self.next, self.ahead.blocks);
        if stored.is_empty() {
            let cut = async {
                let mut changes = self.feed.demands().subscribe_to_growth();
                while !self.cut.is_noted() {
                    changes.changed().await;
                }
            };
            tokio::select! {
                block = self.feed.fetch(self.next) => self.read.push_back(block?),
                () = cut => {}
            }
            return Ok(());
        }
        let blocks = self.feed.get_many(stored.collect()).await?;
        // Where one was cleared meanwhile, it is waited for again.
        self.read.extend(blocks.into_iter().map_while(|block| block));
        self.ahead.read(self.read.len(), self.read.iter().map(Bytes::len).sum());
        Ok(())
    }
}
