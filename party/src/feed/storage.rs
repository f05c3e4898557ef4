//! Where feeds are kept: a small trait, so that users can bring their own.

use std::{future::Future, ops::Range, pin::Pin, sync::Arc};

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
    /// A record of the app's beside a feed, which no peer sees.
    Local(Slot, Vec<u8>),
}

/// A step of a [commit](Storage::commit).
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
pub trait Storage: Send + Sync + 'static {
    /// Reads the values of `keys`, in their order; `None` for what is not there.
    fn read(&self, keys: Vec<Key>) -> Completion<Vec<Option<Bytes>>>;

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
pub trait Snapshot: Send + Sync + 'static {
    /// Reads as [`Storage::read`] would have at that moment.
    fn read(&self, keys: Vec<Key>) -> Completion<Vec<Option<Bytes>>>;
}
