//! Many feeds in one place: on disk, in memory, or in a storage of the user's own.
//!
//! A store knows each feed by a record (its key, its slot in the storage, its name, whether it can be
//! written) and opens the feed itself only when it is asked for. The secrets of writable feeds are kept
//! apart from what they sign; see the module `secrets`.

#[cfg(feature = "disk")]
pub mod disk;
mod options;
mod record;
mod secrets;

#[cfg(feature = "disk")]
use std::path::Path;
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch;

pub use self::options::FeedOptions;
use self::{record::FeedRecord, secrets::Secrets};
use crate::{
    error::{ApiMisuse, Error, StorageError},
    feed::{
        Feed, Identity, WeakFeed,
        manifest::Manifest,
        memory::MemoryStorage,
        state::Head,
        storage::{Key, Slot, Storage, Write},
    },
    key::{DiscoveryKey, FeedKey, KeyPair},
};

/// The longest name of a feed, in bytes.
const MAX_NAME: usize = 1024;
/// From how many remembered feeds on those that nobody holds any more are forgotten.
const SWEEP_FROM: usize = 64;

/// Feeds, by name and by key. Cheap to clone: every clone is the same store.
///
/// There is one [`Feed`] for each feed, however often and from however many tasks it is asked for.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use party::store::{FeedOptions, Store};
///
/// let store = Store::memory();
/// let feed = store.create_feed("log", FeedOptions::default()).await?;
/// feed.append("hello").await?;
///
/// let same = store.feed_by_name("log").await?.expect("it was just made");
/// assert_eq!(same.get(0).await?, Some("hello".into()));
/// # Ok::<(), party::error::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    storage: Arc<dyn Storage>,
    secrets: Secrets,
    /// Locked while a feed is made or opened, so that none is opened twice and no slot or name given twice.
    opening: Arc<tokio::sync::Mutex<()>>,
    /// Those that somebody holds.
    open: Mutex<HashMap<DiscoveryKey, WeakFeed>>,
    is_closed: AtomicBool,
    added: watch::Sender<Added>,
}

/// Held while a feed is made or opened.
type Opening = tokio::sync::OwnedMutexGuard<()>;

/// A feed of the store, as [`Store::list`] shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedEntry {
    /// The name it was made under; feeds of others have none.
    pub name: Option<String>,
    /// Its key.
    pub key: FeedKey,
    /// Its discovery key.
    pub discovery_key: DiscoveryKey,
    /// Whether it can be appended to here.
    pub writable: bool,
}

/// What was added since the store was opened.
#[derive(Debug, Default)]
struct Added {
    feeds: Vec<FeedEntry>,
    is_closed: bool,
}

impl Store {
    /// An empty store in memory.
    pub fn memory() -> Self {
        Self::with_storage(Arc::new(MemoryStorage::default()))
    }

    /// The store in the folder `dir`, which is made if it doesn't exist. One process opens it at a time.
    ///
    /// # Errors
    /// [`StorageError`], as [`disk::DiskStorage::open`] says.
    #[cfg(feature = "disk")]
    pub async fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        // The process may change its working directory later.
        let dir = std::path::absolute(dir).map_err(StorageError::from)?;
        let storage = disk::DiskStorage::open(&dir).await?;
        let secrets = Secrets::Files(dir.join("secrets"));
        Ok(Self::new(Arc::new(storage), secrets))
    }

    /// A store in a storage of your own, which keeps the secrets, too.
    pub fn with_storage(storage: Arc<dyn Storage>) -> Self {
        Self::new(storage, Secrets::Records)
    }

    fn new(storage: Arc<dyn Storage>, secrets: Secrets) -> Self {
        let inner = Inner {
            storage,
            secrets,
            opening: Arc::default(),
            open: Mutex::default(),
            is_closed: AtomicBool::new(false),
            added: watch::Sender::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Makes a feed that is written here. Its secret is kept before the feed is, so that no end of the
    /// process leaves a feed that can't be signed.
    ///
    /// # Errors
    /// [`ApiMisuse::NameTaken`]; [`ApiMisuse::LimitExceeded`] for a name longer than 1,024 bytes;
    /// [`ApiMisuse::FeedExists`] if a seed was given and its feed is here already; [`Error::Storage`].
    pub async fn create_feed(&self, name: &str, options: FeedOptions) -> Result<Feed, Error> {
        if name.len() > MAX_NAME {
            return Err(ApiMisuse::LimitExceeded("the length of a feed's name").into());
        }
        let opening = self.inner.start_opening().await?;
        let FeedOptions { compat, seed, encryption } = options;
        let pair = seed.map_or_else(KeyPair::generate, |seed| KeyPair::from_seed(&seed));
        let manifest = (!compat).then(|| Manifest::single(pair.public()));
        let key = match &manifest {
            Some(manifest) => manifest.key(),
            None => FeedKey::from_bytes(*pair.public().as_bytes()),
        };
        let discovery_key = key.discovery_key();
        let found = self.inner.storage.read(vec![record::name(name), record::feed(&discovery_key)]).await?;
        match found.as_slice() {
            [None, None] => {}
            [Some(_), _] => return Err(ApiMisuse::NameTaken(name.to_owned()).into()),
            _ => return Err(ApiMisuse::FeedExists(discovery_key).into()),
        }
        let name = Some(name.to_owned());
        let record = FeedRecord { slot: Slot(0), key, is_writable: true, name, manifest };
        let secret = self.inner.secrets.keep(discovery_key, &pair.seed()).await?;
        let (record, _opening) = self.inner.add(record, secret, encryption.is_some(), opening).await?;
        let feed = self.inner.open(record, Some(pair)).await?;
        Ok(match encryption {
            Some(encryption) => feed.with_encryption(encryption),
            None => feed,
        })
    }

    /// The feed that was made here under `name`.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn feed_by_name(&self, name: &str) -> Result<Option<Feed>, Error> {
        self.inner.check_open()?;
        let Some(found) = self.inner.storage.read(vec![record::name(name)]).await?.pop().flatten() else {
            return Ok(None);
        };
        let discovery_key = <[u8; 32]>::try_from(&found[..]).map_err(|_| damaged("the name of a feed"))?;
        self.feed_by_discovery_key(&DiscoveryKey::from_bytes(discovery_key)).await
    }

    /// The feed with this key. One that is not here yet is added, empty, to be read from others.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn feed(&self, key: &FeedKey) -> Result<Feed, Error> {
        let discovery_key = key.discovery_key();
        if let Some(feed) = self.feed_by_discovery_key(&discovery_key).await? {
            return Ok(feed);
        }
        let opening = self.inner.start_opening().await?;
        // Somebody else may have been faster.
        if let Some(feed) = self.inner.find(&discovery_key).await? {
            return Ok(feed);
        }
        let record = FeedRecord { slot: Slot(0), key: *key, is_writable: false, name: None, manifest: None };
        let (record, _opening) = self.inner.add(record, None, false, opening).await?;
        self.inner.open(record, None).await
    }

    /// The feed with this discovery key, if it is here.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn feed_by_discovery_key(&self, discovery_key: &DiscoveryKey) -> Result<Option<Feed>, Error> {
        self.inner.check_open()?;
        if let Some(feed) = self.inner.held(discovery_key) {
            return Ok(Some(feed));
        }
        let _opening = self.inner.start_opening().await?;
        self.inner.find(discovery_key).await
    }

    /// All feeds, in the order of their discovery keys. None of them is opened for this.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn list(&self) -> Result<Vec<FeedEntry>, Error> {
        self.inner.check_open()?;
        let records = self.inner.storage.records(record::FEEDS.to_vec()).await?;
        records.into_iter().map(|(_, record)| Ok(decode(&record)?.entry())).collect()
    }

    /// Tells of feeds that are added from now on.
    pub fn subscribe_feeds(&self) -> AddedFeeds {
        let added = self.inner.added.subscribe();
        let seen = added.borrow().feeds.len();
        AddedFeeds { added, seen }
    }

    /// Ends the work that was begun, and releases the folder. What is asked of the store or of its feeds
    /// afterwards fails with [`StorageError::Closed`].
    pub async fn close(&self) {
        self.inner.is_closed.store(true, Ordering::Release);
        let _opening = self.inner.opening.lock().await;
        if let Err(error) = self.inner.storage.close().await {
            tracing::warn!(%error, "closing the store");
        }
        self.inner.added.send_modify(|added| added.is_closed = true);
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// Tells of feeds that are added to a store; from [`Store::subscribe_feeds`]. None is left out, however
/// slowly it is asked.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use party::store::{FeedOptions, Store};
///
/// let store = Store::memory();
/// let mut added = store.subscribe_feeds();
/// store.create_feed("log", FeedOptions::default()).await?;
/// assert_eq!(added.next().await.expect("the store is open")[0].name.as_deref(), Some("log"));
/// # Ok::<(), party::error::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AddedFeeds {
    added: watch::Receiver<Added>,
    seen: usize,
}

impl AddedFeeds {
    /// Waits until feeds were added since the last call, and gives them; `None` when the store is closed.
    /// Nothing is lost when this is dropped before it is done.
    pub async fn next(&mut self) -> Option<Vec<FeedEntry>> {
        let seen = self.seen;
        let added = self.added.wait_for(|added| added.feeds.len() > seen || added.is_closed).await.ok()?;
        let new = added.feeds.get(seen..).unwrap_or_default().to_vec();
        self.seen = added.feeds.len();
        (!new.is_empty()).then_some(new)
    }
}

impl Inner {
    fn check_open(&self) -> Result<(), StorageError> {
        if self.is_closed.load(Ordering::Acquire) { Err(StorageError::Closed) } else { Ok(()) }
    }

    async fn start_opening(&self) -> Result<Opening, StorageError> {
        let guard = self.opening.clone().lock_owned().await;
        self.check_open()?;
        Ok(guard)
    }

    /// The feed, if somebody holds it.
    fn held(&self, discovery_key: &DiscoveryKey) -> Option<Feed> {
        self.open_feeds().get(discovery_key)?.upgrade()
    }

    /// The feed, held or stored. With `opening` held.
    async fn find(&self, discovery_key: &DiscoveryKey) -> Result<Option<Feed>, Error> {
        if let Some(feed) = self.held(discovery_key) {
            return Ok(Some(feed));
        }
        let Some(found) = self.storage.read(vec![record::feed(discovery_key)]).await?.pop().flatten() else {
            return Ok(None);
        };
        let record = decode(&found)?;
        let signer = match record.is_writable {
            true => Some(self.secrets.key_pair(&*self.storage, *discovery_key).await?),
            false => None,
        };
        self.open(record, signer).await.map(Some)
    }

    /// Gives `record` a slot and stores it, along with `secret`. A feed that is encrypted is known as such before it
    /// can be appended to.
    async fn add(
        self: &Arc<Self>,
        mut record: FeedRecord,
        secret: Option<Write>,
        is_encrypted: bool,
        opening: Opening,
    ) -> Result<(FeedRecord, Opening), Error> {
        let next = self.storage.read(vec![record::next_slot()]).await?.pop().flatten();
        if let Some(next) = next {
            record.slot = record::decode_slot(&next).map_err(|_| damaged("the next slot"))?;
        }
        let after = Slot(record.slot.0.saturating_add(1));
        let discovery_key = record.key.discovery_key();
        let mut writes = vec![
            Write::Put(record::feed(&discovery_key), record.encode()),
            Write::Put(record::next_slot(), record::encode_slot(after)),
        ];
        if let Some(name) = &record.name {
            let named = bytes::Bytes::copy_from_slice(discovery_key.as_bytes());
            writes.push(Write::Put(record::name(name), named));
        }
        if is_encrypted {
            writes.push(Write::Put(Key::Head(record.slot), Head::new_encrypted().encode()));
        }
        writes.extend(secret);
        let inner = self.clone();
        let entry = record.entry();
        // If the caller goes away, the commit still ends, is announced, and keeps others from the same slot
        // until then.
        finish(async move {
            inner.storage.commit(writes).await?;
            inner.added.send_modify(|added| added.feeds.push(entry));
            Ok((record, opening))
        })
        .await
    }

    /// Opens a stored feed that nobody holds. With `opening` held.
    async fn open(&self, record: FeedRecord, signer: Option<KeyPair>) -> Result<Feed, Error> {
        // A handle that was dropped in the middle of an append has left its commit in the queue. It is
        // waited for, as the new handle must see it.
        self.storage.commit(vec![]).await?;
        let FeedRecord { slot, key, manifest, .. } = record;
        let identity = Identity { key, manifest, signer };
        let feed = Feed::create(self.storage.clone(), slot, identity).await?;
        let mut open = self.open_feeds();
        if open.len() >= SWEEP_FROM && open.len() == open.capacity() {
            open.retain(|_, feed| feed.upgrade().is_some());
        }
        open.insert(key.discovery_key(), feed.downgrade());
        Ok(feed)
    }

    /// Nothing panics while it holds the lock.
    fn open_feeds(&self) -> MutexGuard<'_, HashMap<DiscoveryKey, WeakFeed>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FeedRecord {
    fn entry(&self) -> FeedEntry {
        FeedEntry {
            name: self.name.clone(),
            key: self.key,
            discovery_key: self.key.discovery_key(),
            writable: self.is_writable,
        }
    }
}

/// Runs `work` to its end even if the caller stops waiting, where there is a runtime to do so.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn(work).await.unwrap_or(Err(Error::Closed)),
        Err(_) => work.await,
    }
}

fn decode(record: &[u8]) -> Result<FeedRecord, StorageError> {
    FeedRecord::decode(record).map_err(|error| damaged(&format!("the record of a feed: {error}")))
}

fn damaged(what: &str) -> StorageError {
    StorageError::Damaged { what: what.to_owned() }
}
