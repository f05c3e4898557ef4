//! Several feeds changed as one.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;

use super::{
    Feed,
    commit::{Step, Turn, commit_all},
    encrypted::Text,
};
use crate::{
    error::{ApiMisuse, Error},
    feed::storage::{Key, Write},
    limits::Limits,
};

/// The longest key of a record beside a feed, in bytes.
const MAX_RECORD_KEY: usize = 1024;

/// Appends to one or several feeds of a store, and records beside them: all of it is stored, or none.
///
/// ```
/// use party::{feed::Batch, store::{FeedOptions, Store}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// let store = Store::memory();
/// let log = store.create_feed("log", FeedOptions::default()).await?;
/// let index = store.create_feed("index", FeedOptions::default()).await?;
///
/// let mut batch = Batch::new();
/// batch.append(&log, ["an entry".into(), "another".into()]);
/// batch.append(&index, ["where the entries are".into()]);
/// batch.put(&log, "indexed up to", "2");
/// assert_eq!(batch.commit().await?, [0..2, 0..1]);
/// assert_eq!(log.record("indexed up to").await?.as_deref(), Some(b"2".as_slice()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[must_use = "nothing of it is stored before `commit`"]
pub struct Batch {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    feed: Feed,
    texts: Vec<Text>,
    records: BTreeMap<Vec<u8>, Option<Bytes>>,
}

impl Batch {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds blocks at the end of `feed`. They are encrypted if this handle [has the key](Feed::with_encryption).
    pub fn append(&mut self, feed: &Feed, blocks: impl IntoIterator<Item = Bytes>) {
        let texts = blocks.into_iter().map(|block| Text { block, key: feed.key.clone() });
        self.part(feed).texts.extend(texts);
    }

    /// Puts a record beside `feed`, where [`Feed::record`] finds it. The key has at most 1,024 bytes, the value
    /// as many as a block may have.
    pub fn put(&mut self, feed: &Feed, key: impl Into<Vec<u8>>, value: impl Into<Bytes>) {
        self.part(feed).records.insert(key.into(), Some(value.into()));
    }

    /// Deletes a record beside `feed`.
    pub fn delete(&mut self, feed: &Feed, key: impl Into<Vec<u8>>) {
        self.part(feed).records.insert(key.into(), None);
    }

    fn part(&mut self, feed: &Feed) -> &mut Part {
        let same = |part: &Part| Arc::ptr_eq(&part.feed.inner, &feed.inner);
        let n = self.parts.iter().position(same).unwrap_or_else(|| {
            self.parts.push(Part { feed: feed.clone(), texts: vec![], records: BTreeMap::new() });
            self.parts.len() - 1
        });
        &mut self.parts[n]
    }

    /// Stores everything in one commit, and gives for each feed, in the order in which they were first
    /// named, the indexes of its new blocks. When this completes, it survives the end of the process if the
    /// storage does. When it is dropped before, everything or nothing is stored.
    ///
    /// # Errors
    /// [`ApiMisuse::NotWritable`], [`ApiMisuse::BlockTooLarge`], [`ApiMisuse::LimitExceeded`] for a record that is
    /// too large, [`ApiMisuse::DifferentStorages`], what [`Feed::append`] says of encrypted feeds, or why it could not be stored. Every feed is as it was then.
    pub async fn commit(self) -> Result<Vec<Range<u64>>, Error> {
        self.check()?;
        // Turns are taken in the same order by everybody, or two batches could wait for each other.
        let mut order: Vec<usize> = (0..self.parts.len()).collect();
        order.sort_by_key(|n| self.parts.get(*n).map(|part| part.feed.inner.slot));
        let mut parts: Vec<Option<Part>> = self.parts.into_iter().map(Some).collect();
        let parts: Vec<(usize, Part)> =
            order.into_iter().filter_map(|n| Some((n, parts.get_mut(n)?.take()?))).collect();
        let feeds: Vec<Feed> = parts.iter().map(|(_, part)| part.feed.clone()).collect();
        let mut turns: Vec<Turn<'_>> = Vec::with_capacity(feeds.len());
        for feed in &feeds {
            turns.push(feed.turn().await?);
        }
        let mut indexes = vec![0..0; parts.len()];
        let mut writes = vec![];
        let mut steps = Vec::with_capacity(parts.len());
        for (((n, part), feed), turn) in parts.into_iter().zip(&feeds).zip(&mut turns) {
            let mut update = None;
            let length = feed.info().length;
            let mut added = length..length;
            if !part.texts.is_empty() {
                let mut keys = part.texts.iter().filter_map(|text| text.key.as_ref());
                if let Some(first) = keys.next() {
                    feed.try_key(turn, first).await?;
                    // The first may have found no block to be tried on.
                    for key in keys.filter(|key| !key.is_same(first)) {
                        feed.try_key(turn, key).await?;
                        if !key.is_tried() {
                            return Err(ApiMisuse::WrongEncryptionKey { index: length }.into());
                        }
                    }
                }
                let grown = feed.grow(turn, part.texts)?;
                added = grown.indexes;
                writes.extend(grown.writes);
                update = Some(grown.update);
            }
            if let Some(place) = indexes.get_mut(n) {
                *place = added;
            }
            writes.extend(part.records.into_iter().map(|(key, value)| {
                let key = Key::Local(feed.inner.slot, key);
                match value {
                    Some(value) => Write::Put(key, value),
                    None => Write::Delete(key),
                }
            }));
            steps.push(Step { feed, turn, update, deletes: false, replies: vec![] });
        }
        if !writes.is_empty() {
            commit_all(steps, writes).await?;
        }
        Ok(indexes)
    }

    fn check(&self) -> Result<(), ApiMisuse> {
        let storage = |part: &Part| Arc::as_ptr(&part.feed.inner.storage).cast::<()>();
        if let [first, rest @ ..] = self.parts.as_slice()
            && rest.iter().any(|part| storage(part) != storage(first))
        {
            return Err(ApiMisuse::DifferentStorages);
        }
        let max = Limits::default().max_block;
        let mut records = self.parts.iter().flat_map(|part| &part.records);
        if records.any(|(key, value)| {
            key.len() > MAX_RECORD_KEY || value.as_ref().is_some_and(|value| value.len() > max)
        }) {
            return Err(ApiMisuse::LimitExceeded("the size of a record beside a feed"));
        }
        Ok(())
    }
}
