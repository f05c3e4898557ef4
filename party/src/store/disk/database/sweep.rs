//! Deletions of more than fits into one batch.
//!
//! A commit that deletes millions of keys must take effect as a whole, and one batch of so many would take
//! as much memory. So the batch only says which keys are gone, from the first to the last. From then on they
//! are not read any more, and are taken out a few thousand at a time, by whoever has the store open.
//!
//! The section is `protocol-spec/09-storage.md#deletions`.

use std::{
    ops::Range,
    sync::{Arc, PoisonError, RwLock},
};

use super::space::Space;
use crate::{
    encoding::{Reader, Writer},
    error::DecodeError,
};

/// Keys of a keyspace that are gone, though some of them are still stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sweep {
    pub(super) id: u64,
    pub(super) space: Space,
    pub(super) keys: Range<Vec<u8>>,
}

impl Sweep {
    //= STORE-16
    pub(super) fn covers(&self, space: Space, key: &[u8]) -> bool {
        self.space == space && self.keys.start.as_slice() <= key && key < self.keys.end.as_slice()
    }

    /// Its bytes, without the number.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![];
        out.put_uint(self.space.number());
        out.put_buffer(&self.keys.start);
        out.put_buffer(&self.keys.end);
        out
    }

    pub(super) fn decode(id: u64, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let space = Space::from_number(reader.uint()?).ok_or(DecodeError::Invalid("sweep"))?;
        let start = reader.buffer()?.to_vec();
        let end = reader.buffer()?.to_vec();
        Ok(Self { id, space, keys: start..end })
    }

    /// The parts of it that lie between `kept`, which are sorted and in it.
    pub(super) fn without(self, kept: &[Vec<u8>]) -> Vec<Self> {
        let Self { id, space, keys: Range { mut start, end } } = self;
        let mut parts = vec![];
        for key in kept {
            if start < *key {
                parts.push(Self { id, space, keys: start..key.clone() });
            }
            start = after(key);
        }
        if start < end {
            parts.push(Self { id, space, keys: start..end });
        }
        parts
    }
}

/// The first key after `key`.
pub(super) fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The sweeps that are not done. Readers take the list and the moment at which they read together.
#[derive(Debug, Default)]
pub(super) struct Sweeps(RwLock<Arc<[Sweep]>>);

impl Sweeps {
    pub(super) fn new(list: Vec<Sweep>) -> Self {
        Self(RwLock::new(list.into()))
    }

    pub(super) fn list(&self) -> Arc<[Sweep]> {
        self.with(Arc::clone)
    }

    /// Runs `take` while the list stays as it is.
    pub(super) fn with<T>(&self, take: impl FnOnce(&Arc<[Sweep]>) -> T) -> T {
        take(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds `new` if `commit`, which names them, is carried out.
    pub(super) fn add<E>(&self, new: Vec<Sweep>, commit: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        if new.is_empty() {
            return commit();
        }
        let mut list = self.0.write().unwrap_or_else(PoisonError::into_inner);
        commit()?;
        *list = list.iter().cloned().chain(new).collect();
        Ok(())
    }

    /// What is left of the sweep `id` after some of it was carried out: what begins at `start`, or nothing.
    pub(super) fn advance(&self, id: u64, start: Option<Vec<u8>>) {
        let mut list = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let advanced = |sweep: &Sweep| match &start {
            _ if sweep.id != id => Some(sweep.clone()),
            Some(start) => Some(Sweep { keys: start.clone()..sweep.keys.end.clone(), ..sweep.clone() }),
            None => None,
        };
        *list = list.iter().filter_map(advanced).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(keys: Range<&[u8]>) -> Sweep {
        Sweep { id: 1, space: Space::Tree, keys: keys.start.to_vec()..keys.end.to_vec() }
    }

    #[test]
    fn what_is_kept_is_left_out() {
        let all = sweep(b"b"..b"f");
        let parts = all.clone().without(&[b"b".to_vec(), b"c".to_vec(), b"e\xff".to_vec()]);
        assert_eq!(parts, [sweep(b"b\0"..b"c"), sweep(b"c\0"..b"e\xff"), sweep(b"e\xff\0"..b"f")]);
        for (key, expected) in [(&b"b"[..], false), (b"b1", true), (b"c", false), (b"d", true), (b"f", false)]
        {
            assert_eq!(parts.iter().any(|part| part.covers(Space::Tree, key)), expected, "{key:?}");
            assert!(!parts.iter().any(|part| part.covers(Space::State, key)));
        }
        assert_eq!(all.clone().without(&[]), [all]);
    }

    #[test]
    fn a_sweep_comes_back() {
        let sweep = sweep(b"b"..b"f");
        assert_eq!(Sweep::decode(1, &sweep.encode()), Ok(sweep.clone()));
        assert!(Sweep::decode(1, &sweep.encode()[1..]).is_err());
    }
}
