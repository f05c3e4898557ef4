//! Which feeds there are.

use std::sync::Arc;

use super::{
    Inner, Namespace, Store, damaged,
    record::{self, FeedRecord, Origin},
};
use crate::{
    error::{Error, StorageError},
    feed::{manifest::Manifest, verifier::Verifier},
    key::{DiscoveryKey, FeedKey},
};

/// A feed of the store, as [`Store::list`] shows it.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use party::{key::FeedKey, store::Store};
///
/// let store = Store::memory();
/// let theirs = store.feed(&FeedKey::from_bytes([7; 32])).await?;
/// let log = store.named_feed("log").await?;
///
/// let entries = store.list().await?;
/// let mine = entries.iter().find(|entry| entry.name.as_deref() == Some("log")).unwrap();
/// assert_eq!((mine.key, mine.writable), (log.key(), true));
/// let other = entries.iter().find(|entry| entry.key == theirs.key()).unwrap();
/// assert_eq!((&other.name, other.writable), (&None, false));
/// # Ok::<(), party::error::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedEntry {
    /// The name it was made under; feeds of others have none.
    pub name: Option<String>,
    /// The namespace of its name; the root for a feed without a name.
    pub namespace: Namespace,
    /// Its key.
    pub key: FeedKey,
    /// Its discovery key.
    pub discovery_key: DiscoveryKey,
    /// Whether it can be appended to here, with no other signer's help.
    pub writable: bool,
}

impl Store {
    /// All feeds, of every namespace and without a name, in the order of their discovery keys. None of them is
    /// opened for this. For a store of very many there is [`pages`](Self::pages).
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn list(&self) -> Result<Vec<FeedEntry>, Error> {
        self.inner.check_open()?;
        self.inner.entries(record::FEEDS.to_vec()).await
    }

    /// What [`list`](Self::list) gives, a part at a time, so that not all of it is in memory at once.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// use party::store::Store;
    ///
    /// let store = Store::memory();
    /// store.named_feed("log").await?;
    /// let mut pages = store.pages();
    /// while let Some(entries) = pages.next().await? {
    ///     assert_eq!(entries[0].name.as_deref(), Some("log"));
    /// }
    /// # Ok::<(), party::error::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pages(&self) -> FeedPages {
        FeedPages { inner: self.inner.clone(), next: Some(0) }
    }

    /// The feeds of this handle's [namespace](Self::namespace) whose names begin with `prefix`, in the order of
    /// their names; with an empty one all that have a name in it.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn list_named(&self, prefix: &str) -> Result<Vec<FeedEntry>, Error> {
        self.inner.check_open()?;
        let names = self.inner.storage.records(record::name_prefix(&self.namespace, prefix)).await?;
        let keys: Vec<_> = names
            .iter()
            .map(|(_, discovery_key)| Ok(record::feed(&record::decode_discovery_key(discovery_key)?)))
            .collect::<Result<_, StorageError>>()?;
        // What was purged since the names were read is not there any more.
        let found = self.inner.storage.read(keys).await?.into_iter().flatten();
        found.map(|record| Ok(decode(&record)?.entry())).collect()
    }
}

/// The feeds of a store, part by part; from [`Store::pages`]. In the order of the discovery keys, and each
/// part as it was when it was asked for.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use party::store::Store;
///
/// let store = Store::memory();
/// for n in 0..10 {
///     store.named_feed(&format!("feed {n}")).await?;
/// }
/// let (mut pages, mut count) = (store.pages(), 0);
/// while let Some(entries) = pages.next().await? {
///     count += entries.len();
/// }
/// assert_eq!(count, 10);
/// # Ok::<(), party::error::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct FeedPages {
    inner: Arc<Inner>,
    /// A part is what begins with one byte.
    next: Option<u8>,
}

impl FeedPages {
    /// The next feeds, about a 256th of all, and at least one; `None` after the last.
    ///
    /// # Errors
    /// [`Error::Storage`]; the same part can be asked for again.
    pub async fn next(&mut self) -> Result<Option<Vec<FeedEntry>>, Error> {
        while let Some(byte) = self.next {
            self.inner.check_open()?;
            let entries = self.inner.entries([record::FEEDS, &[byte]].concat()).await?;
            self.next = byte.checked_add(1);
            if !entries.is_empty() {
                return Ok(Some(entries));
            }
        }
        Ok(None)
    }
}

impl std::fmt::Debug for FeedPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FeedPages").finish_non_exhaustive()
    }
}

impl Inner {
    async fn entries(&self, prefix: Vec<u8>) -> Result<Vec<FeedEntry>, Error> {
        let records = self.storage.records(prefix).await?;
        records.into_iter().map(|(_, record)| Ok(decode(&record)?.entry())).collect()
    }
}

impl FeedRecord {
    /// Whether one signature is enough. A legacy feed has no manifest.
    fn signs_alone(&self) -> bool {
        let verifier = |manifest: &Manifest| Verifier::new(self.key, manifest.clone());
        self.manifest.as_ref().is_none_or(|manifest| verifier(manifest).is_ok_and(|it| it.signs_alone()))
    }

    pub(super) fn entry(&self) -> FeedEntry {
        FeedEntry {
            name: self.name.clone(),
            namespace: self.namespace,
            key: self.key,
            discovery_key: self.key.discovery_key(),
            writable: self.origin != Origin::Others && self.signs_alone(),
        }
    }
}

pub(super) fn decode(record: &[u8]) -> Result<FeedRecord, StorageError> {
    FeedRecord::decode(record).map_err(|error| damaged(&format!("the record of a feed: {error}")))
}
