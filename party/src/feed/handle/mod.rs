//! The feed that an app holds in its hands: append, read, and what replication needs of both.
//!
//! One room for each thing that is done with a feed. All that changes it goes through [`commit`], one after
//! the other; who reads takes no turn.

mod audit;
mod batch;
mod belonging;
mod commit;
mod conflict;
mod cut;
mod encrypted;
mod follow;
mod ingest;
mod quorum;
mod range;
mod read;
mod reorg;
mod serve;
mod snapshot;
mod together;
mod write;

use std::{
    any::Any,
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak,
        atomic::{AtomicBool, AtomicU64},
    },
};

pub(crate) use self::belonging::Home;
pub(super) use self::cut::Cut;
pub use self::{
    audit::{Audit, Problem},
    batch::Batch,
    follow::Followed,
    ingest::Ingested,
    range::RangeReader,
    read::FetchOptions,
    reorg::FeedReorg,
    snapshot::FeedSnapshot,
};
use self::{commit::Pending, encrypted::HeldKey, follow::Courses, snapshot::Pin};
use crate::{
    error::Error,
    feed::{
        changes::Followers,
        demand::{Changes, Demands},
        identity::Identity,
        local::Local,
        manifest::Manifest,
        open::{decode_nodes, open},
        proof::Node,
        state::State,
        storage::{Key, Slot, Storage},
        traffic::Tally,
        verifier::Verifier,
    },
    key::{DiscoveryKey, FeedKey, KeyPair},
};

/// A feed's figures at one moment.
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// # let identity = Identity::writer(KeyPair::generate());
/// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
/// feed.append_batch(vec!["hello".into(), "big".into(), "world".into()]).await?;
/// feed.clear(1..2).await?;
/// let info = feed.info();
/// assert_eq!((info.length, info.byte_length), (3, 13)); // what is cleared still counts
/// assert_eq!(info.contiguous_length, 1);
/// assert!(info.writable);
///
/// feed.truncate(2).await?;
/// assert_eq!((feed.info().length, feed.info().fork), (2, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Blocks of the signed tree, stored here or not.
    pub length: u64,
    /// Bytes of all these blocks, as this handle gives them: those of what is encrypted, if it has the key.
    pub byte_length: u64,
    /// Blocks stored here without a gap from the first.
    pub contiguous_length: u64,
    /// The fork; it grows with every truncation.
    pub fork: u64,
    /// Whether this handle can append alone. One of several signers who must sign together can't; see
    /// [`Feed::draft`].
    pub writable: bool,
}

impl Info {
    fn of(state: &State) -> Self {
        Self {
            length: state.tree.length(),
            byte_length: state.tree.byte_length(),
            contiguous_length: state.bitfield.contiguous(),
            fork: state.fork,
            writable: false,
        }
    }
}

/// One feed: a signed, append-only list of blocks. Cheap to clone; all clones are the same feed. A handle
/// [with the encryption key](Self::with_encryption) encrypts and decrypts the blocks.
///
/// ```
/// use std::sync::Arc;
/// use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// use party::key::KeyPair;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// let writer = KeyPair::generate();
/// let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), Identity::writer(writer)).await?;
/// assert_eq!(feed.append("hello").await?, 0);
/// assert_eq!(feed.append_batch(vec!["a".into(), "b".into()]).await?, 1..3);
/// assert_eq!(feed.get(2).await?.as_deref(), Some(b"b".as_slice()));
/// assert_eq!(feed.info().byte_length, 7);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Feed {
    inner: Arc<Inner>,
    /// The encryption key, if this handle has it.
    key: Option<Arc<HeldKey>>,
}

struct Inner {
    key: FeedKey,
    discovery_key: DiscoveryKey,
    slot: Slot,
    signer: OnceLock<Box<KeyPair>>,
    storage: Arc<dyn Storage>,
    state: RwLock<State>,
    /// Odd while something is being deleted: what is read then may be of before or of after.
    deleting: AtomicU64,
    /// The snapshots that are held.
    pins: Mutex<Vec<Weak<Pin>>>,
    /// Those who have to hear of every truncation.
    cuts: Mutex<Vec<Weak<Cut>>>,
    /// Held by who writes. A commit that its caller no longer waits for stays in here: whoever writes next
    /// lets it end first, so that what is known in memory never falls behind what is stored.
    writing: tokio::sync::Mutex<Option<Pending>>,
    /// Appends that wait for somebody to carry them out.
    appends: together::Queue,
    /// The reorgs under way.
    courses: Courses,
    demands: Demands,
    /// The store that it is of, if any.
    home: Option<Arc<dyn Home>>,
    followers: Followers,
    /// What those share who replicate it; see [`Feed::shared`].
    shared: Mutex<Vec<Weak<dyn Any + Send + Sync>>>,
    tally: Tally,
    is_purged: AtomicBool,
}

impl Feed {
    /// Opens the feed that is stored under `slot`, or begins an empty one there.
    ///
    /// # Errors
    /// [`ApiMisuse::WrongManifest`](crate::error::ApiMisuse::WrongManifest) if the manifest or the signer is not this feed's;
    /// [`StorageError::Damaged`](crate::error::StorageError::Damaged) if what is stored is not a tree that the feed's writer has signed.
    pub async fn create(storage: Arc<dyn Storage>, slot: Slot, identity: Identity) -> Result<Self, Error> {
        Self::open(None, storage, slot, identity).await
    }

    async fn open(
        home: Option<Arc<dyn Home>>,
        storage: Arc<dyn Storage>,
        slot: Slot,
        identity: Identity,
    ) -> Result<Self, Error> {
        let verifier = identity.verifier()?;
        let state = open(&*storage, slot, identity.key, verifier).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                key: identity.key,
                discovery_key: identity.key.discovery_key(),
                slot,
                signer: identity.signer.map(|signer| OnceLock::from(Box::new(signer))).unwrap_or_default(),
                storage,
                state: RwLock::new(state),
                deleting: AtomicU64::new(0),
                pins: Mutex::default(),
                cuts: Mutex::default(),
                writing: tokio::sync::Mutex::new(None),
                appends: together::Queue::default(),
                courses: Courses::default(),
                demands: Demands::new(),
                home,
                followers: Followers::default(),
                shared: Mutex::default(),
                tally: Tally::default(),
                is_purged: AtomicBool::new(false),
            }),
            key: None,
        })
    }

    pub(crate) fn downgrade(&self) -> WeakFeed {
        WeakFeed { inner: Arc::downgrade(&self.inner) }
    }

    /// The key that names and verifies the feed.
    pub fn key(&self) -> FeedKey {
        self.inner.key
    }

    /// The key under which peers ask for the feed.
    pub fn discovery_key(&self) -> DiscoveryKey {
        self.inner.discovery_key
    }

    /// The manifest, once it is known; for a legacy feed the one that it is taken to have.
    pub fn manifest(&self) -> Option<Manifest> {
        self.state().verifier.as_ref().map(|verifier| verifier.manifest().clone())
    }

    /// The figures of this moment.
    pub fn info(&self) -> Info {
        let state = self.state();
        Info { writable: self.writer(&state).is_some() && !self.is_purged(), ..self.info_of(&state) }
    }

    /// Lends the feed as it stands. What is done with it must be short: nothing is committed meanwhile.
    pub fn with_local<R>(&self, f: impl FnOnce(&dyn Local) -> R) -> R {
        f(&*self.state())
    }

    /// Waits until the feed has at least `length` blocks, stored here or not, or is purged from its store.
    pub async fn wait_for_length(&self, length: u64) {
        let mut changes = self.demands().subscribe_to_growth();
        while self.info().length < length && !self.is_purged() {
            changes.changed().await;
        }
    }

    /// Says from now on when the feed or its demand has changed.
    pub fn subscribe(&self) -> Changes {
        self.inner.demands.subscribe()
    }

    pub(crate) fn demands(&self) -> &Demands {
        &self.inner.demands
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.inner.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer<'a>(&'a self, state: &'a State) -> Option<(&'a Verifier, &'a KeyPair)> {
        let signer = self.signer()?;
        let verifier = state.verifier.as_ref()?;
        verifier.is_writer(signer).then_some((verifier, signer))
    }

    async fn read_nodes(&self, indexes: &[u64]) -> Result<HashMap<u64, Node>, Error> {
        if indexes.is_empty() {
            return Ok(HashMap::new());
        }
        let keys = indexes.iter().map(|index| self.node_key(*index)).collect();
        let values = self.inner.storage.read(keys).await?;
        Ok(decode_nodes(indexes, values)?)
    }

    fn node_key(&self, index: u64) -> Key {
        Key::Node(self.inner.slot, index)
    }

    fn block_key(&self, index: u64) -> Key {
        Key::Block(self.inner.slot, index)
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("discovery_key", &self.discovery_key())
            .field("info", &self.info())
            .finish_non_exhaustive()
    }
}

/// A feed that isn't held: a store remembers by it which feeds others hold.
pub(crate) struct WeakFeed {
    inner: Weak<Inner>,
}

impl WeakFeed {
    pub(crate) fn upgrade(&self) -> Option<Feed> {
        self.inner.upgrade().map(|inner| Feed { inner, key: None })
    }

    pub(crate) fn is_held(&self) -> bool {
        self.inner.strong_count() > 0
    }
}
