//! Many feeds in one place: on disk, in memory, or in a storage of the user's own.
//!
//! A store knows each feed by a record (its key, its slot in the storage, its name, where its key pair comes
//! from) and opens the feed itself only when it is asked for. What nobody holds takes no memory. The secrets
//! are kept apart from what they sign; see the module `secrets`.
//!
//! | what | where |
//! |---|---|
//! | make, open and find feeds | `feeds` |
//! | names, namespaces, the primary key | `names`, and `protocol-spec/10-names.md` |
//! | which feeds there are, and word of those that come and go | `list`, `watch` |
//! | delete a feed | `purge` |
//! | the parties that are remembered | `parties` |
//! | who is in them by credential | `credentials` |

pub(crate) mod credentials;
#[cfg(feature = "disk")]
pub mod disk;
mod feeds;
mod list;
mod names;
mod open_feeds;
mod options;
pub(crate) mod parties;
mod purge;
mod record;
mod secrets;
mod watch;

#[cfg(feature = "disk")]
use std::path::Path;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::OnceCell;

pub use self::{
    list::{FeedEntry, FeedPages},
    names::Namespace,
    options::{FeedOptions, StoreOptions},
    watch::{FeedEvent, FeedEvents},
};
use self::{names::PrimaryKey, open_feeds::OpenFeeds, secrets::Secrets, watch::Watchers};
use crate::{
    error::{Error, StorageError},
    feed::{memory::MemoryStorage, storage::Storage},
};

/// Feeds, by name and by key. Cheap to clone: every clone is the same store.
///
/// There is one [`Feed`](crate::feed::Feed) for each feed, however often and from however many tasks it is
/// asked for. It is closed when the last of its handles is dropped, and opened again when it is asked for.
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
    /// Where the names stand that this handle is given.
    namespace: Namespace,
}

struct Inner {
    storage: Arc<dyn Storage>,
    secrets: Secrets,
    /// Read when it is needed first.
    primary_key: OnceCell<PrimaryKey>,
    /// Locked while a feed is made, opened or purged, so that none is opened twice and no slot or name given
    /// twice.
    opening: Arc<tokio::sync::Mutex<()>>,
    open: Arc<OpenFeeds>,
    watchers: Watchers,
    is_suspended: AtomicBool,
    is_closed: AtomicBool,
}

/// Held while a feed is made, opened or purged.
type Opening = tokio::sync::OwnedMutexGuard<()>;

impl Store {
    /// An empty store in memory.
    pub fn memory() -> Self {
        Self::memory_with(StoreOptions::default())
    }

    /// An empty store in memory.
    pub fn memory_with(options: StoreOptions) -> Self {
        let storage = Arc::new(MemoryStorage::default());
        Self::new(storage, Secrets::Records, OnceCell::new_with(options.primary_key))
    }

    /// The store in the folder `dir`, which is made if it doesn't exist. One process opens it at a time.
    ///
    /// # Errors
    /// [`StorageError`], as [`disk::DiskStorage::open`] says.
    #[cfg(feature = "disk")]
    pub async fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(dir, StoreOptions::default()).await
    }

    /// As [`open`](Self::open), but says how.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`ApiMisuse::OtherPrimaryKey`](crate::error::ApiMisuse::OtherPrimaryKey).
    #[cfg(feature = "disk")]
    pub async fn open_with(dir: impl AsRef<Path>, options: StoreOptions) -> Result<Self, Error> {
        // The process may change its working directory later.
        let dir = std::path::absolute(dir).map_err(StorageError::from)?;
        let storage = disk::DiskStorage::open_with(&dir, options.disk).await?;
        let secrets = Secrets::Files(dir.join("secrets"));
        Self::open_in(Arc::new(storage), secrets, options).await
    }

    /// A store in a storage of your own, which keeps the secrets, too.
    pub fn with_storage(storage: Arc<dyn Storage>) -> Self {
        Self::new(storage, Secrets::Records, OnceCell::new())
    }

    /// As [`with_storage`](Self::with_storage), but says how.
    ///
    /// # Errors
    /// [`ApiMisuse::OtherPrimaryKey`](crate::error::ApiMisuse::OtherPrimaryKey); [`Error::Storage`].
    pub async fn open_storage(storage: Arc<dyn Storage>, options: StoreOptions) -> Result<Self, Error> {
        Self::open_in(storage, Secrets::Records, options).await
    }

    async fn open_in(
        storage: Arc<dyn Storage>,
        secrets: Secrets,
        options: StoreOptions,
    ) -> Result<Self, Error> {
        let store = Self::new(storage, secrets, OnceCell::new());
        match store.inner.establish(options.primary_key).await {
            Ok(()) => Ok(store),
            Err(error) => {
                // So that it can be opened again at once.
                store.close().await;
                Err(error)
            }
        }
    }

    fn new(storage: Arc<dyn Storage>, secrets: Secrets, primary_key: OnceCell<PrimaryKey>) -> Self {
        let inner = Inner {
            storage,
            secrets,
            primary_key,
            opening: Arc::default(),
            open: Arc::default(),
            watchers: Watchers::default(),
            is_suspended: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner), namespace: Namespace::default() }
    }

    /// Ends the work under way and releases the folder, until [`resume`](Self::resume): for an app that the
    /// system puts to sleep, or to let another process have the store for a while. What is asked of the store
    /// and its feeds meanwhile waits. Connections stay as they are.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn suspend(&self) -> Result<(), Error> {
        // Who makes or opens a feed is waited for, but not by who suspends what is suspended already.
        if !self.inner.is_suspended.load(Ordering::Acquire) {
            let _opening = self.inner.start_opening().await?;
            self.inner.storage.suspend().await?;
            self.inner.is_suspended.store(true, Ordering::Release);
        }
        Ok(self.inner.check_open()?)
    }

    /// Takes the folder again after [`suspend`](Self::suspend), and carries out what has waited. A store that is
    /// not suspended goes on as it is.
    ///
    /// # Errors
    /// [`Error::Storage`]: above all that another process has the store, in which case it stays suspended, or
    /// that another has written to it, after which it has to be opened anew.
    pub async fn resume(&self) -> Result<(), Error> {
        self.inner.check_open()?;
        self.inner.storage.resume().await?;
        self.inner.is_suspended.store(false, Ordering::Release);
        Ok(())
    }

    /// Ends the work that was begun, and releases the folder. What is asked of the store or of its feeds
    /// afterwards fails with [`StorageError::Closed`].
    pub async fn close(&self) {
        self.inner.is_closed.store(true, Ordering::Release);
        // While the store is suspended, who has it waits for a storage that we are about to end.
        let _opening = match self.inner.is_suspended.load(Ordering::Acquire) {
            true => None,
            false => Some(self.inner.opening.lock().await),
        };
        if let Err(error) = self.inner.storage.close().await {
            tracing::warn!(%error, "closing the store");
        }
        self.inner.watchers.close();
        self.inner.open.close();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
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

fn damaged(what: &str) -> StorageError {
    StorageError::Damaged { what: what.to_owned() }
}
