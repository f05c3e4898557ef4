//! Blocks, read here or waited for.

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
    /// Why it could not be read.
    pub async fn get(&self, index: u64) -> Result<Option<Bytes>, Error> {
        loop {
            let before = self.undisturbed().await;
            if !self.has(index) {
                return Ok(None);
            }
            let mut values = self.inner.storage.read(vec![self.block_key(index)]).await?;
            if self.is_unchanged(before) {
                let block = values.pop().flatten();
                return Ok(Some(block.ok_or_else(|| damaged(format!("block {index} is missing")))?));
            }
        }
    }

    /// Reads a block; if it is not stored here, asks for it and waits until a peer has delivered it, or until
    /// it is appended. A wait without end is the caller's to limit.
    ///
    /// # Errors
    /// Why it could not be read.
    pub async fn fetch(&self, index: u64) -> Result<Bytes, Error> {
        if index >= MAX_LENGTH {
            return Err(ApiMisuse::LimitExceeded("feed length").into());
        }
        loop {
            if let Some(block) = self.get(index).await? {
                return Ok(block);
            }
            // What has come may be cleared again before it is read.
            self.download(index..=index).done().await;
        }
    }

    /// Whether block `index` is stored here.
    pub fn has(&self, index: u64) -> bool {
        self.state().bitfield.get(index)
    }

    /// Reads a record that the app keeps beside the feed; it is written by a [`Batch`](super::Batch). Peers don't see it.
    ///
    /// # Errors
    /// Why it could not be read.
    pub async fn record(&self, key: impl Into<Vec<u8>>) -> Result<Option<Bytes>, Error> {
        let key = Key::Local(self.inner.slot, key.into());
        Ok(self.inner.storage.read(vec![key]).await?.pop().flatten())
    }
}
