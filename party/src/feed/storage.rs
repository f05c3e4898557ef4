//! Where feeds are kept: a small trait, so that users can bring their own.

use std::{future::Future, ops::Range, pin::Pin, sync::Arc};

use bytes::Bytes;

use crate::error::StorageError;

/// The number under which a store keeps a feed. Slots are given out once and not used again.
///
/// ```
/// use party::feed::storage::{Key, Slot};
///
/// // Slots keep feeds apart that lie in one storage.
/// assert_eq!(Key::Block(Slot(3), 0).slot(), Some(Slot(3)));
/// assert_ne!(Key::Block(Slot(3), 0), Key::Block(Slot(4), 0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

/// What a value is kept under. The kinds are told apart so that a database can keep large blocks away from
/// small nodes.
///
/// ```
/// use party::feed::storage::{Key, Slot};
///
/// let name = Key::Record(b"name".to_vec());
/// let block = Key::Block(Slot(0), 7);
/// assert_eq!((name.slot(), block.slot()), (None, Some(Slot(0))));
/// // Of one feed and kind they are in the order of their numbers, so that neighbours lie side by side.
/// assert!(Key::Block(Slot(0), 7) < Key::Block(Slot(0), 256));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A record of the store itself: its feeds, their names, its secrets.
    Record(Vec<u8>),
    /// The head of a feed: length, fork, roots, signature.
    Head(Slot),
    /// A page of a feed's bitfield.
    Page(Slot, u64),
    /// A node of a feed's tree, by its flat-tree index.
    Node(Slot, u64),
    /// A block of a feed.
    Block(Slot, u64),
    /// A record of the app's beside a feed, which no peer sees.
    Local(Slot, Vec<u8>),
}

/// A step of a [commit](Storage::commit).
///
/// ```
/// use party::feed::memory::MemoryStorage;
/// use party::feed::storage::{Key, Slot, Span, Storage as _, Write};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// let storage = MemoryStorage::new();
/// let [first, second] = [0, 1].map(|index| Key::Block(Slot(0), index));
/// storage
///     .commit(vec![
///         Write::Put(first.clone(), "old".into()),
///         Write::Clear(Span::Blocks(Slot(0), 0..10)),
///         Write::Put(second.clone(), "new".into()), // after the blocks were cleared, so it stays
///     ])
///     .await?;
/// assert_eq!(storage.read(vec![first, second]).await?, [None, Some("new".into())]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Puts a value in the place of what was under the key.
    Put(Key, Bytes),
    /// Deletes what is under a key, if anything is.
    Delete(Key),
    /// Deletes all that is under the keys of a span.
    Clear(Span),
}

/// Keys of one feed that stand side by side, whether or not anything is stored under each.
///
/// ```
/// use party::feed::storage::{Key, Slot, Span};
///
/// let span = Span::Blocks(Slot(1), 10..20);
/// assert!(span.contains(&Key::Block(Slot(1), 10)));
/// assert!(!span.contains(&Key::Block(Slot(1), 20)));
/// assert!(!span.contains(&Key::Node(Slot(1), 10)));
/// assert!(Span::Feed(Slot(1)).contains(&Key::Local(Slot(1), b"draft".to_vec())));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// Pages of the bitfield, by their number.
    Pages(Slot, Range<u64>),
    /// Nodes of the tree, by their flat-tree index.
    Nodes(Slot, Range<u64>),
    /// Blocks.
    Blocks(Slot, Range<u64>),
    /// All that is stored under a slot.
    Feed(Slot),
}

impl Span {
    /// Whether `key` is one of the span's.
    pub fn contains(&self, key: &Key) -> bool {
        match (self, key) {
            (Self::Pages(slot, range), Key::Page(other, index))
            | (Self::Nodes(slot, range), Key::Node(other, index))
            | (Self::Blocks(slot, range), Key::Block(other, index)) => slot == other && range.contains(index),
            (Self::Feed(slot), key) => key.slot() == Some(*slot),
            _ => false,
        }
    }
}

impl Key {
    /// The slot of the feed that it belongs to; `None` for a record of the store.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Self::Record(_) => None,
            Self::Head(slot)
            | Self::Page(slot, _)
            | Self::Node(slot, _)
            | Self::Block(slot, _)
            | Self::Local(slot, _) => Some(*slot),
        }
    }
}

/// The result of a storage operation, when it is there. It must not need to be polled to make progress: a
/// started commit ends even if nobody waits for it.
pub type Completion<T> = Pin<Box<dyn Future<Output = Result<T, StorageError>> + Send>>;

/// A key-value store with atomic batches. An implementation may be synchronous, with threads of its own, or
/// asynchronous; neither blocks the caller.
///
/// ```
/// use std::{
///     collections::BTreeMap,
///     sync::{Arc, Mutex, PoisonError},
/// };
///
/// use bytes::Bytes;
/// use party::{
///     error::StorageError,
///     feed::storage::{Completion, Key, Snapshot, Storage, Write},
///     store::Store,
/// };
///
/// type Map = BTreeMap<Key, Bytes>;
///
/// /// All in one map; none once it is closed.
/// struct MapStorage(Mutex<Option<Arc<Map>>>);
///
/// /// The map as it was.
/// struct MapSnapshot(Arc<Map>);
///
/// fn read(map: &Map, keys: &[Key]) -> Vec<Option<Bytes>> {
///     keys.iter().map(|key| map.get(key).cloned()).collect()
/// }
///
/// impl MapStorage {
///     fn with<T: Send + 'static>(&self, f: impl FnOnce(&mut Arc<Map>) -> T) -> Completion<T> {
///         let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
///         let result = map.as_mut().map(f).ok_or(StorageError::Closed);
///         // A storage that has to wait does so on a thread or task of its own, and hands the result over.
///         Box::pin(std::future::ready(result))
///     }
/// }
///
/// impl Storage for MapStorage {
///     fn read(&self, keys: Vec<Key>) -> Completion<Vec<Option<Bytes>>> {
///         self.with(|map| read(map, &keys))
///     }
///
///     fn records(&self, prefix: Vec<u8>) -> Completion<Vec<(Vec<u8>, Bytes)>> {
///         self.with(|map| {
///             map.range(Key::Record(prefix.clone())..)
///                 .map_while(|(key, value)| match key {
///                     Key::Record(key) if key.starts_with(&prefix) => Some((key.clone(), value.clone())),
///                     _ => None,
///                 })
///                 .collect()
///         })
///     }
///
///     fn commit(&self, writes: Vec<Write>) -> Completion<()> {
///         self.with(|map| {
///             // Copied only if a snapshot holds it. One that is to last writes to the disk here.
///             let map = Arc::make_mut(map);
///             for write in writes {
///                 match write {
///                     Write::Put(key, value) => drop(map.insert(key, value)),
///                     Write::Delete(key) => drop(map.remove(&key)),
///                     Write::Clear(span) => map.retain(|key, _| !span.contains(key)),
///                 }
///             }
///         })
///     }
///
///     fn snapshot(&self) -> Completion<Arc<dyn Snapshot>> {
///         self.with(|map| -> Arc<dyn Snapshot> { Arc::new(MapSnapshot(map.clone())) })
///     }
///
///     fn close(&self) -> Completion<()> {
///         *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
///         Box::pin(std::future::ready(Ok(())))
///     }
/// }
///
/// impl Snapshot for MapSnapshot {
///     fn read(&self, keys: Vec<Key>) -> Completion<Vec<Option<Bytes>>> {
///         Box::pin(std::future::ready(Ok(read(&self.0, &keys))))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// let store = Store::with_storage(Arc::new(MapStorage(Mutex::new(Some(Arc::default())))));
/// let feed = store.named_feed("log").await?;
/// feed.append_batch(vec!["a".into(), "b".into()]).await?;
///
/// let before = feed.snapshot().await;
/// feed.clear(0..1).await?;
/// assert_eq!((feed.get(0).await?, before.get(0).await?), (None, Some("a".into())));
///
/// store.close().await;
/// assert!(store.named_feed("log").await.is_err());
/// # Ok(())
/// # }
/// ```
pub trait Storage: Send + Sync + 'static {
    /// Reads the values of `keys`, in their order; `None` for what is not there.
    fn read(&self, keys: Vec<Key>) -> Completion<Vec<Option<Bytes>>>;

    /// As [`read`](Self::read), but no further than to the block with which those that were read have `bytes`
    /// bytes or more: the values of what comes after it in `keys` are left out, so there may be fewer of them.
    /// So who reads blocks of unknown size bounds what is in memory. A storage that has all in memory anyway
    /// need not do anything about it.
    fn read_up_to(&self, keys: Vec<Key>, bytes: usize) -> Completion<Vec<Option<Bytes>>> {
        let _ = bytes;
        self.read(keys)
    }

    /// All [`Key::Record`]s whose key starts with `prefix`, sorted by key.
    fn records(&self, prefix: Vec<u8>) -> Completion<Vec<(Vec<u8>, Bytes)>>;

    /// Carries out all of `writes`, one after the other, or none. When this completes, they survive the end
    /// of the process. Batches take effect in the order of the calls.
    fn commit(&self, writes: Vec<Write>) -> Completion<()>;

    /// Holds on to what is stored: after all commits that were called before, and without those that come.
    /// It is asked for when something is about to be deleted that somebody still reads, never by an append.
    fn snapshot(&self) -> Completion<Arc<dyn Snapshot>>;

    /// Ends the work under way and releases what the storage holds, above all its lock, until
    /// [`resume`](Self::resume). A storage without anything to release need not do anything.
    fn suspend(&self) -> Completion<()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Goes on after [`suspend`](Self::suspend).
    fn resume(&self) -> Completion<()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Releases what the storage holds, above all its lock. What is called afterwards fails with
    /// [`StorageError::Closed`].
    fn close(&self) -> Completion<()>;
}

/// What was stored at one moment, for as long as this is held.
///
/// ```
/// use party::feed::memory::MemoryStorage;
/// use party::feed::storage::{Key, Slot, Storage as _, Write};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// let storage = MemoryStorage::new();
/// let key = Key::Block(Slot(0), 0);
/// storage.commit(vec![Write::Put(key.clone(), "then".into())]).await?;
/// let snapshot = storage.snapshot().await?;
/// storage.commit(vec![Write::Put(key.clone(), "now".into())]).await?;
/// assert_eq!(snapshot.read(vec![key.clone()]).await?, [Some("then".into())]);
/// assert_eq!(storage.read(vec![key]).await?, [Some("now".into())]);
/// # Ok(())
/// # }
/// ```
pub trait Snapshot: Send + Sync + 'static {
    /// Reads as [`Storage::read`] would have at that moment.
    fn read(&self, keys: Vec<Key>) -> Completion<Vec<Option<Bytes>>>;
}
