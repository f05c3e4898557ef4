//! Where feeds are kept: a small trait, so that users can bring their own.

use std::{future::Future, pin::Pin};

use bytes::Bytes;

use crate::error::StorageError;

/// The number under which a store keeps a feed. Slots are given out once and not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

/// What a value is kept under. The kinds are told apart so that a database can keep large blocks away from
/// small nodes.
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
}

/// A value to put under a key, or `None` to delete what is there.
pub type Write = (Key, Option<Bytes>);

/// The result of a storage operation, when it is there. It must not need to be polled to make progress: a
/// started commit ends even if nobody waits for it.
pub type Completion<T> = Pin<Box<dyn Future<Output = Result<T, StorageError>> + Send>>;

/// A key-value store with atomic batches. An implementation may be synchronous, with threads of its own, or
/// asynchronous; neither blocks the caller.
pub trait Storage: Send + Sync + 'static {
    /// Reads the values of `keys`, in their order; `None` for what is not there.
    fn read(&self, keys: Vec<Key>) -> Completion<Vec<Option<Bytes>>>;

    /// All [`Key::Record`]s whose key starts with `prefix`, sorted by key.
    fn records(&self, prefix: Vec<u8>) -> Completion<Vec<(Vec<u8>, Bytes)>>;

    /// Carries out all of `writes` or none. When this completes, they survive the end of the process.
    /// Batches take effect in the order of the calls.
    fn commit(&self, writes: Vec<Write>) -> Completion<()>;

    /// Releases what the storage holds, above all its lock. What is called afterwards fails with
    /// [`StorageError::Closed`].
    fn close(&self) -> Completion<()>;
}
