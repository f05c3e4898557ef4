//! Handles that have a feed's encryption key. See `protocol-spec/06-feeds.md#block-encryption`.
//!
//! The key belongs to the handle and not to the feed, so that what may be read doesn't depend on who else has the
//! feed open. That a feed is encrypted does belong to it, and is stored: no handle appends to it in the clear.

use std::sync::{
    Arc, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;

use super::{Feed, Info, commit::Turn};
use crate::{
    error::{ApiMisuse, Error},
    feed::{
        encryption::{BlockCipher, Encryption, PADDING, Scheme},
        state::State,
    },
    key::FeedKey,
    limits::Limits,
};

/// The key that a handle has.
#[derive(Debug)]
pub(super) struct HeldKey {
    encryption: Encryption,
    cipher: OnceLock<BlockCipher>,
    /// Whether it was tried on what the feed has, before anything is appended with it.
    is_tried: AtomicBool,
}

/// A block as it was given to be appended, and the key of the handle that it was given to.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) block: Bytes,
    pub(super) key: Option<Arc<HeldKey>>,
}

impl Feed {
    /// The same feed by a handle that has the key of its blocks: what it appends is encrypted, and what it reads is
    /// decrypted. Other handles stay as they are. Replication needs no key, whichever handle it was given.
    ///
    /// A key of one's own makes a feed unreadable for whoever hasn't got it; it doesn't make it authentic, and it
    /// hides neither the number nor the lengths of the blocks. See [`encryption`](crate::feed::encryption).
    ///
    /// ```
    /// use party::{feed::encryption::Encryption, store::{FeedOptions, Store}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// let key = Encryption::generate();
    /// let store = Store::memory();
    /// let feed = store.create_feed("diary", FeedOptions::default().encryption(key.clone())).await?;
    /// feed.append("Dear diary").await?;
    ///
    /// let locked = store.feed(&feed.key()).await?;
    /// assert!(locked.get(0).await.is_err() && locked.append("in the clear").await.is_err());
    /// let unlocked = locked.with_encryption(key);
    /// assert_eq!(unlocked.get(0).await?.as_deref(), Some(b"Dear diary".as_slice()));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_encryption(&self, encryption: impl Into<Encryption>) -> Self {
        let key = HeldKey {
            encryption: encryption.into(),
            cipher: OnceLock::new(),
            is_tried: AtomicBool::new(false),
        };
        Self { inner: Arc::clone(&self.inner), key: Some(Arc::new(key)) }
    }

    /// Whether the feed is known here to be encrypted: this handle has its key, or somebody has appended to it with
    /// one. A copy of someone else's feed doesn't tell.
    pub fn is_encrypted(&self) -> bool {
        self.key.is_some() || self.state().is_encrypted
    }

    /// By how many bytes the blocks that this handle gives are shorter than those of the tree.
    //= FEED-51
    pub(in crate::feed) fn padding(&self) -> usize {
        if self.key.is_some() { PADDING } else { 0 }
    }

    /// The longest block that this handle appends, in bytes.
    pub(in crate::feed) fn max_block(&self) -> usize {
        Limits::default().max_block.saturating_sub(self.padding())
    }

    /// The figures of `state`, with the bytes that this handle can give.
    pub(super) fn info_of(&self, state: &State) -> Info {
        let info = Info::of(state);
        let padding = (self.padding() as u64).saturating_mul(info.length);
        Info { byte_length: info.byte_length.saturating_sub(padding), ..info }
    }

    /// What turns a block's index, and what was stored of it when `state` stood, into what this handle gives.
    pub(super) fn reader<'a>(
        &'a self,
        state: &State,
    ) -> Result<impl Fn(u64, Bytes) -> Result<Bytes, ApiMisuse> + use<'a>, ApiMisuse> {
        let opener = match &self.key {
            Some(key) => Some((key.cipher(&self.inner.key, state)?, state.fork)),
            None if state.is_encrypted => {
                return Err(ApiMisuse::EncryptionKeyMissing(self.inner.discovery_key));
            }
            None => None,
        };
        Ok(move |index, stored| match opener {
            Some((cipher, fork)) => cipher.open(index, fork, stored),
            None => Ok(stored),
        })
    }

    /// Tries `key` on the last block, unless it has been: a wrong key would encrypt what comes so that who has
    /// the right one can't read it. Where there is no such block it is tried again the next time. With the turn to
    /// change the feed.
    pub(super) async fn try_key(&self, _turn: &Turn<'_>, key: &HeldKey) -> Result<(), Error> {
        if key.is_tried() {
            return Ok(());
        }
        let last = self.info().length.checked_sub(1).filter(|last| self.has(*last));
        if let Some(last) = last {
            let stored = self.inner.storage.read(vec![self.block_key(last)]).await?.pop().flatten();
            let state = self.state();
            if let Some(stored) = stored {
                key.cipher(&self.inner.key, &state)?.open(last, state.fork, stored)?;
                key.is_tried.store(true, Ordering::Release);
            }
        }
        Ok(())
    }

    /// `texts` as they will be stored, on the feed as it stands. With the turn to change the feed.
    //= FEED-55
    pub(super) fn seal(&self, _turn: &Turn<'_>, texts: Vec<Text>) -> Result<Vec<Bytes>, ApiMisuse> {
        let sealed = {
            let state = self.state();
            (state.tree.length()..)
                .zip(texts)
                .map(|(index, Text { block, key })| {
                    let padding = if key.is_some() { PADDING } else { 0 };
                    let max = Limits::default().max_block.saturating_sub(padding);
                    if block.len() > max {
                        return Err(ApiMisuse::BlockTooLarge { len: block.len(), max });
                    }
                    match key {
                        //= protocol-spec/06-feeds.md#block-encryption
                        None if state.is_encrypted => {
                            Err(ApiMisuse::EncryptionKeyMissing(self.inner.discovery_key))
                        }
                        None => Ok((block, false)),
                        Some(key) => {
                            let cipher = key.cipher(&self.inner.key, &state)?;
                            Ok((cipher.seal(index, state.fork, &block), true))
                        }
                    }
                })
                .collect::<Result<Vec<_>, _>>()?
        };
        // Before it is stored, and whether or not it will be: the head that goes with the blocks says it, too.
        if sealed.iter().any(|(_, is_sealed)| *is_sealed) {
            self.inner.state.write().unwrap_or_else(PoisonError::into_inner).is_encrypted = true;
        }
        Ok(sealed.into_iter().map(|(block, _)| block).collect())
    }
}

impl HeldKey {
    /// Whether it is the same key, if it comes by another handle.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.encryption.is_same(&other.encryption)
    }

    pub(super) fn is_tried(&self) -> bool {
        self.is_tried.load(Ordering::Acquire)
    }

    /// The cipher for the feed `key`, whose kind `state` tells. It is known wherever there are blocks, and where
    /// we sign.
    //= FEED-49
    fn cipher(&self, key: &FeedKey, state: &State) -> Result<&BlockCipher, ApiMisuse> {
        let verifier = state.verifier.as_ref().ok_or(ApiMisuse::WrongManifest)?;
        let scheme = if verifier.is_legacy() { Scheme::Legacy } else { Scheme::Manifest };
        Ok(self.cipher.get_or_init(|| self.encryption.cipher(key, scheme)))
    }
}
