//! Storage that forgets everything when it is dropped, for tests, examples and feeds that need not last.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    error::StorageError,
    feed::storage::{Completion, Key, Storage, Write},
};

/// A [`Storage`] in memory.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    values: HashMap<Key, Bytes>,
    /// Records are listed by prefix, so they are kept sorted.
    records: BTreeMap<Vec<u8>, Bytes>,
    closed: bool,
}

impl MemoryStorage {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn with<T>(&self, f: impl FnOnce(&mut Tables) -> T) -> Completion<T>
    where
        T: Send + 'static,
    {
        let mut tables: MutexGuard<'_, Tables> = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let result = if tables.closed { Err(StorageError::Closed) } else { Ok(f(&mut tables)) };
        Box::pin(std::future::ready(result))
    }
}

impl Storage for MemoryStorage {
    fn read(&self, keys: Vec<Key>) -> Completion<Vec<Option<Bytes>>> {
        self.with(|tables| keys.iter().map(|key| tables.get(key)).collect())
    }

    fn records(&self, prefix: Vec<u8>) -> Completion<Vec<(Vec<u8>, Bytes)>> {
        self.with(|tables| {
            tables
                .records
                .range(prefix.clone()..)
                .take_while(|(key, _)| key.starts_with(&prefix))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        })
    }

    fn commit(&self, writes: Vec<Write>) -> Completion<()> {
        self.with(|tables| writes.into_iter().for_each(|(key, value)| tables.put(key, value)))
    }

    fn close(&self) -> Completion<()> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Tables {
    fn get(&self, key: &Key) -> Option<Bytes> {
        match key {
            Key::Record(key) => self.records.get(key).cloned(),
            key => self.values.get(key).cloned(),
        }
    }

    fn put(&mut self, key: Key, value: Option<Bytes>) {
        match (key, value) {
            (Key::Record(key), Some(value)) => drop(self.records.insert(key, value)),
            (Key::Record(key), None) => drop(self.records.remove(&key)),
            (key, Some(value)) => drop(self.values.insert(key, value)),
            (key, None) => drop(self.values.remove(&key)),
        }
    }
}
