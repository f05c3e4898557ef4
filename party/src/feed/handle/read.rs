//! Blocks, read here or waited for.

use std::{ops::Range, time::Duration};

use bytes::Bytes;

use super::Feed;
use crate::{
    error::{ApiMisuse, Error},
    feed::{open::damaged, storage::Key, tree::MAX_LENGTH},
};

impl Feed {
    /// Reads a block that is stored here; `None` if it is not.
    ///
    /// # Errors
    /// Why it could not be read. Of an encrypted feed, also [`ApiMisuse::WrongEncryptionKey`],
    /// [`ApiMisuse::NotEncrypted`] and, without the key, [`ApiMisuse::EncryptionKeyMissing`]; a copy of someone
    /// else's feed, of which that isn't known here, gives the blocks as they are stored.
    pub async fn get(&self, index: u64) -> Result<Option<Bytes>, Error> {
        Ok(self.get_many(vec![index]).await?.pop().flatten())
    }

    /// Reads blocks in one go, all as they are at one moment: for each of `indexes` the block, or `None` if
    /// it is not stored here. They are all in memory at once, so how many to ask for is the caller's to limit.
    ///
    /// # Errors
    /// As [`get`](Self::get), if one of them could not be read.
    pub async fn get_many(&self, indexes: Vec<u64>) -> Result<Vec<Option<Bytes>>, Error> {
        loop {
            let before = self.undisturbed().await;
            self.check_purged()?;
            let stored: Vec<u64> = {
                let state = self.state();
                indexes.iter().copied().filter(|index| state.bitfield.get(*index)).collect()
            };
            if stored.is_empty() {
                return Ok(vec![None; indexes.len()]);
            }
            let keys = stored.iter().map(|index| self.block_key(*index)).collect();
            let values = self.inner.storage.read(keys).await?;
            if self.is_unchanged(before) {
                let reader = self.reader(&self.state())?;
                return whole(&indexes, &stored, values, reader);
            }
        }
    }

    /// Reads a block; if it is not stored here, asks peers for it, before all that is only
    /// [downloaded](Self::download), and waits until one has delivered it, or until it is appended: as
    /// [`fetch_with`](Self::fetch_with) with the default options, without an end.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn fetch(&self, index: u64) -> Result<Bytes, Error> {
        self.fetch_with(index, FetchOptions::default()).await
    }

    /// Reads a block; if it is not stored here, asks for it and waits as `options` say.
    ///
    /// The block is asked for as long as the future lives: dropped, it asks no more, and nothing is lost, as
    /// what has come is stored. So it may be one of several in a `select!`, and as many may wait at once as
    /// there are blocks.
    ///
    /// ```
    /// # use std::{sync::Arc, time::Duration};
    /// # use party::feed::{Feed, FetchOptions, Identity, memory::MemoryStorage, storage::Slot};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// # let identity = Identity::reader([7; 32].into());
    /// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
    /// use party::error::Error;
    ///
    /// let now = feed.fetch_with(3, FetchOptions::without_waiting()).await;
    /// assert!(matches!(now, Err(Error::NotAvailable(3))));
    /// let soon = feed.fetch_with(3, FetchOptions::within(Duration::from_millis(1))).await;
    /// assert!(matches!(soon, Err(Error::Timeout)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get); [`Error::Timeout`]; [`Error::NotAvailable`] if it was not to wait.
    pub async fn fetch_with(&self, index: u64, options: FetchOptions) -> Result<Bytes, Error> {
        if index >= MAX_LENGTH {
            return Err(ApiMisuse::LimitExceeded("feed length").into());
        }
        let fetching = async {
            loop {
                if let Some(block) = self.get(index).await? {
                    return Ok(block);
                }
                if !options.wait {
                    return Err(Error::NotAvailable(index));
                }
                // What has come may be cleared again before it is read.
                self.awaiting(index).stored().await;
            }
        };
        match options.timeout {
            Some(timeout) => tokio::time::timeout(timeout, fetching).await.unwrap_or(Err(Error::Timeout)),
            None => fetching.await,
        }
    }

    /// Whether block `index` is stored here.
    pub fn has(&self, index: u64) -> bool {
        self.state().bitfield.get(index)
    }

    /// How many blocks of `range` are stored here.
    pub(in crate::feed) fn count_stored(&self, range: Range<u64>) -> u64 {
        match range.end.saturating_sub(range.start) {
            1 => self.has(range.start).into(),
            _ => self.state().bitfield.count(range),
        }
    }

    /// The blocks from `from` on that are stored here without a gap, `most` of them at most.
    pub(in crate::feed) fn stored_run(&self, from: u64, most: usize) -> Range<u64> {
        let state = self.state();
        let end = from.saturating_add(most as u64).min(state.tree.length()).max(from);
        from..state.bitfield.next_missing(from, end).unwrap_or(end)
    }

    /// Reads a record that the app keeps beside the feed; it is written by a [`Batch`](super::Batch). Peers don't see it.
    ///
    /// # Errors
    /// Why it could not be read.
    pub async fn record(&self, key: impl Into<Vec<u8>>) -> Result<Option<Bytes>, Error> {
        self.check_purged()?;
        let key = Key::Local(self.inner.slot, key.into());
        Ok(self.inner.storage.read(vec![key]).await?.pop().flatten())
    }
}

/// How [`Feed::fetch_with`] waits for a block that is not stored here.
///
/// ```
/// use std::time::Duration;
/// use party::feed::FetchOptions;
///
/// assert!(FetchOptions::default().wait && FetchOptions::default().timeout.is_none());
/// assert_eq!(FetchOptions::within(Duration::from_secs(1)).timeout, Some(Duration::from_secs(1)));
/// assert!(!FetchOptions::without_waiting().wait);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchOptions {
    /// Whether to ask peers for it and wait, which is the default.
    pub wait: bool,
    /// For how long at most; `None` for as long as it takes, which is the default.
    pub timeout: Option<Duration>,
}

impl FetchOptions {
    /// Asks peers, and waits for so long at most.
    pub fn within(timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..Self::default() }
    }

    /// Asks nobody.
    pub fn without_waiting() -> Self {
        Self { wait: false, ..Self::default() }
    }
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self { wait: true, timeout: None }
    }
}

/// Puts the `values` of the blocks that are `stored` in the places of all `indexes` that were asked for, as
/// `reader` gives them.
pub(super) fn whole(
    indexes: &[u64],
    stored: &[u64],
    values: Vec<Option<Bytes>>,
    reader: impl Fn(u64, Bytes) -> Result<Bytes, ApiMisuse>,
) -> Result<Vec<Option<Bytes>>, Error> {
    let mut found = stored.iter().zip(values).peekable();
    indexes
        .iter()
        .map(|index| match found.next_if(|(stored, _)| *stored == index) {
            None => Ok(None),
            Some((_, Some(block))) => Ok(Some(reader(*index, block)?)),
            Some((_, None)) => Err(damaged(format!("block {index} is missing")).into()),
        })
        .collect()
}
