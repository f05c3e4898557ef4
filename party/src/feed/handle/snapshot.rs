//! A feed as it was.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, OnceLock, PoisonError},
};

use bytes::Bytes;

use super::{Feed, Info, read::whole};
use crate::{
    error::Error,
    feed::{
        state::State,
        storage::{Key, Snapshot},
    },
};

/// A feed as it was when [`Feed::snapshot`] was called. It stays that way while the feed grows, is truncated or
/// cleared. It costs next to nothing until something is deleted, and keeps from then on what was deleted
/// from being given back to the disk.
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// # let identity = Identity::writer(KeyPair::generate());
/// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
/// feed.append("before").await?;
/// let snapshot = feed.snapshot().await;
/// feed.truncate(0).await?;
/// feed.append("after").await?;
/// assert_eq!(snapshot.get(0).await?.as_deref(), Some(b"before".as_slice()));
/// assert_eq!((snapshot.info().fork, feed.info().fork), (0, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FeedSnapshot {
    feed: Feed,
    state: Arc<State>,
    pin: Arc<Pin>,
}

/// Where a snapshot reads once something that it needs may have been deleted.
#[derive(Default)]
pub(super) struct Pin(OnceLock<Arc<dyn Snapshot>>);

impl Feed {
    /// Holds on to the feed as it is now.
    pub async fn snapshot(&self) -> FeedSnapshot {
        // Nothing is being deleted while we have the turn.
        let _turn = self.lock().await;
        let pin = Arc::new(Pin::default());
        let mut pins = self.inner.pins.lock().unwrap_or_else(PoisonError::into_inner);
        pins.retain(|pin| pin.strong_count() > 0);
        pins.push(Arc::downgrade(&pin));
        let state = Arc::new(self.state().clone());
        FeedSnapshot { feed: self.clone(), state, pin }
    }

    /// Lets the snapshots that still read what is stored now hold on to it. With the turn, before something
    /// is deleted.
    pub(super) async fn pin_snapshots(&self) -> Result<(), Error> {
        let pins: Vec<Arc<Pin>> = {
            let mut pins = self.inner.pins.lock().unwrap_or_else(PoisonError::into_inner);
            pins.retain(|pin| pin.upgrade().is_some_and(|pin| pin.0.get().is_none()));
            pins.iter().filter_map(|pin| pin.upgrade()).collect()
        };
        if pins.is_empty() {
            return Ok(());
        }
        let stored = self.inner.storage.snapshot().await?;
        for pin in pins {
            pin.0.get_or_init(|| stored.clone());
        }
        Ok(())
    }
}

impl FeedSnapshot {
    /// The feed that it was taken of.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// The figures of that moment. It can't be written to.
    pub fn info(&self) -> Info {
        Info { writable: false, ..self.feed.info_of(&self.state) }
    }

    /// Whether block `index` was stored.
    pub fn has(&self, index: u64) -> bool {
        self.state.bitfield.get(index)
    }

    /// Reads a block as it was; `None` if it wasn't stored then.
    ///
    /// # Errors
    /// As [`Feed::get`].
    pub async fn get(&self, index: u64) -> Result<Option<Bytes>, Error> {
        Ok(self.get_many(vec![index]).await?.pop().flatten())
    }

    /// Reads blocks in one go; see [`Feed::get_many`].
    ///
    /// # Errors
    /// As [`Feed::get`], if one of them could not be read.
    pub async fn get_many(&self, indexes: Vec<u64>) -> Result<Vec<Option<Bytes>>, Error> {
        let stored: Vec<u64> = indexes.iter().copied().filter(|index| self.has(*index)).collect();
        let keys = stored.iter().map(|index| self.feed.block_key(*index)).collect();
        if stored.is_empty() {
            return Ok(vec![None; indexes.len()]);
        }
        let reader = self.feed.reader(&self.state)?;
        whole(&indexes, &stored, self.read(keys).await?, reader)
    }

    /// The first blocks of `range` that were stored, `most` of them at most.
    pub(in crate::feed) fn stored(&self, range: Range<u64>, most: usize) -> Vec<u64> {
        let next = |from: u64| self.state.bitfield.next_stored(from).filter(|index| *index < range.end);
        std::iter::successors(next(range.start), |index| next(index + 1)).take(most).collect()
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Reads what was stored at that moment.
    pub(super) async fn read(&self, keys: Vec<Key>) -> Result<Vec<Option<Bytes>>, Error> {
        let pinned = || self.pin.0.get();
        if pinned().is_none() {
            let values = self.feed.inner.storage.read(keys.clone()).await?;
            // A pin is set before anything is deleted: without one, this was read in time.
            if pinned().is_none() {
                return Ok(values);
            }
        }
        match pinned() {
            Some(stored) => Ok(stored.read(keys).await?),
            None => Ok(vec![None; keys.len()]),
        }
    }
}

impl fmt::Debug for FeedSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedSnapshot")
            .field("discovery_key", &self.feed.discovery_key())
            .field("info", &self.info())
            .finish_non_exhaustive()
    }
}
