//! Storage that forgets everything when it is dropped, for tests, examples and feeds that need not last.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use crate::{
    error::StorageError,
    feed::storage::{Completion, Key, Slot, Snapshot, Span, Storage, Write},
};

/// A [`Storage`] in memory. While a [`Snapshot`] of it is held, the next commit copies the table of what is
/// stored once, though not the blocks themselves.
///
/// ```
/// use std::sync::Arc;
/// use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// use party::key::KeyPair;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// let storage = Arc::new(MemoryStorage::new());
/// let identity = Identity::writer(KeyPair::generate());
/// let feed = Feed::create(storage.clone(), Slot(0), identity.clone()).await?;
/// feed.append("hello").await?;
/// drop(feed);
///
/// // As long as the storage is held, the feed can be opened again.
/// let feed = Feed::create(storage, Slot(0), identity).await?;
/// assert_eq!(feed.info().length, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct MemoryStorage {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    table: Arc<Table>,
    is_closed: bool,
}

#[derive(Clone, Debug, Default)]
struct Table(BTreeMap<Key, Bytes>);

impl MemoryStorage {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn with<T>(&self, f: impl FnOnce(&mut Arc<Table>) -> T) -> Completion<T>
    where
        T: Send + 'static,
    {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = if state.is_closed { Err(StorageError::Closed) } else { Ok(f(&mut state.table)) };
        Box::pin(std::future::ready(result))
    }
}

impl Storage for MemoryStorage {
    fn read(&self, keys: Vec<Key>) -> Completion<Vec<Option<Bytes>>> {
        self.with(|table| table.read(&keys))
    }

    fn records(&self, prefix: Vec<u8>) -> Completion<Vec<(Vec<u8>, Bytes)>> {
        self.with(|table| table.records(&prefix))
    }

    fn commit(&self, writes: Vec<Write>) -> Completion<()> {
        self.with(|table| {
            let table = Arc::make_mut(table);
            writes.into_iter().for_each(|write| table.write(write));
        })
    }

    fn snapshot(&self) -> Completion<Arc<dyn Snapshot>> {
        self.with(|table| -> Arc<dyn Snapshot> { Arc::new(Held(table.clone())) })
    }

    fn close(&self) -> Completion<()> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        Box::pin(std::future::ready(Ok(())))
    }
}

struct Held(Arc<Table>);

impl Snapshot for Held {
    fn read(&self, keys: Vec<Key>) -> Completion<Vec<Option<Bytes>>> {
        Box::pin(std::future::ready(Ok(self.0.read(&keys))))
    }
}

impl Table {
    fn read(&self, keys: &[Key]) -> Vec<Option<Bytes>> {
        keys.iter().map(|key| self.0.get(key).cloned()).collect()
    }

    fn records(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Bytes)> {
        self.0
            .range(Key::Record(prefix.to_vec())..)
            .map_while(|(key, value)| match key {
                Key::Record(key) if key.starts_with(prefix) => Some((key.clone(), value.clone())),
                _ => None,
            })
            .collect()
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Put(key, value) => drop(self.0.insert(key, value)),
            Write::Delete(key) => drop(self.0.remove(&key)),
            Write::Clear(Span::Pages(slot, range)) => {
                self.clear(Key::Page(slot, range.start), Bound::Excluded(Key::Page(slot, range.end)));
            }
            Write::Clear(Span::Nodes(slot, range)) => {
                self.clear(Key::Node(slot, range.start), Bound::Excluded(Key::Node(slot, range.end)));
            }
            Write::Clear(Span::Blocks(slot, range)) => {
                self.clear(Key::Block(slot, range.start), Bound::Excluded(Key::Block(slot, range.end)));
            }
            Write::Clear(Span::Feed(slot)) => {
                self.write(Write::Delete(Key::Head(slot)));
                self.clear(Key::Page(slot, 0), Bound::Included(Key::Page(slot, u64::MAX)));
                self.clear(Key::Node(slot, 0), Bound::Included(Key::Node(slot, u64::MAX)));
                self.clear(Key::Block(slot, 0), Bound::Included(Key::Block(slot, u64::MAX)));
                let after = match slot.0.checked_add(1) {
                    Some(next) => Bound::Excluded(Key::Local(Slot(next), vec![])),
                    None => Bound::Unbounded,
                };
                self.clear(Key::Local(slot, vec![]), after);
            }
        }
    }

    fn clear(&mut self, from: Key, to: Bound<Key>) {
        // A range that ends before it begins has nothing in it; the map would panic over it.
        if matches!(&to, Bound::Excluded(to) | Bound::Included(to) if *to < from) {
            return;
        }
        let gone: Vec<Key> = self.0.range((Bound::Included(from), to)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.0.remove(&key);
        }
    }
}
