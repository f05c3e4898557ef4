//! Bytes of a feed: where they are, and ranges of them.
//!
//! They are counted as the handle gives them: a handle with the key of an encrypted feed counts the bytes that
//! it decrypts.

use std::{collections::HashMap, ops::Range};

use bytes::Bytes;

use super::{Feed, FeedSnapshot};
use crate::{
    error::{ApiMisuse, Error},
    feed::{
        open::decode_nodes,
        proof::Node,
        seek::{Located, SeekStep, Seeker, nodes_before},
        state::State,
        tree::Position,
    },
};

impl Feed {
    /// Finds the block that has the byte at `offset`, counted from the start of the feed, and how many bytes
    /// into the block that is. `None` if the tree nodes that tell are not stored here, or if the feed is
    /// shorter; [`locate`](Self::locate) says which, and how near it came. The end of the feed is the start of the
    /// block that would come next.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
    /// # use party::key::KeyPair;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// # let identity = Identity::writer(KeyPair::generate());
    /// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
    /// feed.append_batch(vec!["hello".into(), "world".into()]).await?;
    /// assert_eq!(feed.seek(7).await?, Some((1, 2)));
    /// assert_eq!(feed.byte_offset(1).await?, Some(5));
    /// assert_eq!(feed.seek(11).await?, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why it could not be read.
    pub async fn seek(&self, offset: u64) -> Result<Option<(u64, u64)>, Error> {
        match self.locate(offset).await? {
            Located::Block { index, offset } => Ok(Some((index, offset))),
            Located::Within { .. } | Located::Beyond => Ok(None),
        }
    }

    /// Finds the block that has the byte at `offset`, or as few blocks as the tree nodes that are stored here
    /// allow.
    ///
    /// # Errors
    /// Why it could not be read.
    pub async fn locate(&self, offset: u64) -> Result<Located, Error> {
        loop {
            let before = self.undisturbed().await;
            let mut seeker = Seeker::new(&self.state().tree, offset, self.padding() as u64);
            let located = loop {
                match seeker.poll() {
                    SeekStep::Read(index) => {
                        seeker.handle_node(self.read_nodes(&[index]).await?.get(&index));
                    }
                    SeekStep::Found(located) => break located,
                }
            };
            if self.is_unchanged(before) {
                return Ok(located);
            }
        }
    }

    /// How many bytes stand before block `index`. `None` if the tree nodes that tell are not stored here, or if
    /// the feed is shorter than `index` blocks.
    ///
    /// # Errors
    /// Why it could not be read.
    pub async fn byte_offset(&self, index: u64) -> Result<Option<u64>, Error> {
        loop {
            let before = self.undisturbed().await;
            let (nodes, missing) = match nodes_at(&self.state(), index) {
                Some(offset) => offset,
                None => return Ok(None),
            };
            let stored = self.read_nodes(&missing).await?;
            if self.is_unchanged(before) {
                return Ok(sum(&nodes, &missing, &stored).map(|sum| self.unpadded(sum, index)));
            }
        }
    }

    /// Reads the bytes of `range`, counted from the start of the feed, or as many of them as the feed has at this
    /// moment. One block after the other is held in memory. What comes later, and whether the feed is truncated or
    /// cleared meanwhile, makes no difference. `None` if the tree nodes that tell where the range begins are
    /// not stored here.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
    /// # use party::key::KeyPair;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// # let identity = Identity::writer(KeyPair::generate());
    /// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
    /// feed.append_batch(vec!["hello".into(), " ".into(), "world".into()]).await?;
    /// let mut reader = feed.read_range(3..8).await?.unwrap();
    /// let mut bytes = Vec::new();
    /// while let Some(piece) = reader.next().await? {
    ///     bytes.extend_from_slice(&piece);
    /// }
    /// assert_eq!(bytes, b"lo wo");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why it could not be read.
    pub async fn read_range(&self, range: Range<u64>) -> Result<Option<RangeReader>, Error> {
        self.snapshot().await.read_range(range).await
    }

    /// The bytes that this handle gives of `blocks`, which have `size` bytes in the tree.
    fn unpadded(&self, size: u64, blocks: u64) -> u64 {
        size.saturating_sub((self.padding() as u64).saturating_mul(blocks))
    }
}

impl FeedSnapshot {
    /// Finds the block that had the byte at `offset`; see [`Feed::seek`].
    ///
    /// # Errors
    /// Why it could not be read.
    pub async fn seek(&self, offset: u64) -> Result<Option<(u64, u64)>, Error> {
        match self.locate(offset).await? {
            Located::Block { index, offset } => Ok(Some((index, offset))),
            Located::Within { .. } | Located::Beyond => Ok(None),
        }
    }

    /// Finds the block that had the byte at `offset`, or as few blocks as can be told; see [`Feed::locate`].
    ///
    /// # Errors
    /// Why it could not be read.
    pub async fn locate(&self, offset: u64) -> Result<Located, Error> {
        let mut seeker = Seeker::new(&self.state().tree, offset, self.feed().padding() as u64);
        loop {
            match seeker.poll() {
                SeekStep::Read(index) => seeker.handle_node(self.nodes(&[index]).await?.get(&index)),
                SeekStep::Found(located) => return Ok(located),
            }
        }
    }

    /// How many bytes stood before block `index`; see [`Feed::byte_offset`].
    ///
    /// # Errors
    /// Why it could not be read.
    pub async fn byte_offset(&self, index: u64) -> Result<Option<u64>, Error> {
        let Some((nodes, missing)) = nodes_at(self.state(), index) else { return Ok(None) };
        let sum = sum(&nodes, &missing, &self.nodes(&missing).await?);
        Ok(sum.map(|sum| self.feed().unpadded(sum, index)))
    }

    /// Reads the bytes of `range` as they were; see [`Feed::read_range`].
    ///
    /// # Errors
    /// Why it could not be read.
    pub async fn read_range(&self, range: Range<u64>) -> Result<Option<RangeReader>, Error> {
        let end = range.end.min(self.info().byte_length);
        let left = end.saturating_sub(range.start);
        let (index, skip) = match self.locate(range.start).await? {
            Located::Block { index, offset } => (index, offset),
            Located::Beyond => (self.info().length, 0),
            Located::Within { .. } if left == 0 => (self.info().length, 0),
            Located::Within { .. } => return Ok(None),
        };
        Ok(Some(RangeReader { snapshot: self.clone(), index, skip, left }))
    }

    async fn nodes(&self, indexes: &[u64]) -> Result<HashMap<u64, Node>, Error> {
        if indexes.is_empty() {
            return Ok(HashMap::new());
        }
        let keys = indexes.iter().map(|index| self.feed().node_key(*index)).collect();
        Ok(decode_nodes(indexes, self.read(keys).await?)?)
    }
}

/// The bytes of a range of a feed, block by block; made by [`Feed::read_range`].
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// # let identity = Identity::writer(KeyPair::generate());
/// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
/// feed.append_batch(vec!["hello ".into(), "world".into()]).await?;
/// let mut reader = feed.read_range(2..100).await?.expect("stored here");
/// assert_eq!(reader.remaining(), 9); // the feed has no more
/// assert_eq!(reader.next().await?, Some("llo ".into())); // block by block
/// assert_eq!(reader.next().await?, Some("world".into()));
/// assert_eq!(reader.next().await?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RangeReader {
    snapshot: FeedSnapshot,
    /// The block that comes next.
    index: u64,
    /// Bytes of it that come before the range.
    skip: u64,
    /// Bytes that are left to read.
    left: u64,
}

impl RangeReader {
    /// How many bytes are still to come.
    pub fn remaining(&self) -> u64 {
        self.left
    }

    /// The next bytes, never none of them; `None` at the end. A caller that stops waiting loses nothing.
    ///
    /// # Errors
    /// [`ApiMisuse::NotStored`] if the block was not stored here when this was made, or as [`Feed::get`]; the next
    /// call tries the same bytes again.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.left > 0 {
            let mut block = self.snapshot.get(self.index).await?.ok_or(ApiMisuse::NotStored)?;
            self.index = self.index.saturating_add(1);
            let skip = usize::try_from(self.skip).map_or(block.len(), |skip| skip.min(block.len()));
            let mut piece = block.split_off(skip);
            self.skip = 0;
            piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left = self.left.saturating_sub(piece.len() as u64);
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

/// The nodes whose sizes add up to the offset of block `index`: roots, and the indexes of those that have to be
/// read. `None` beyond the end.
fn nodes_at(state: &State, index: u64) -> Option<(Vec<Node>, Vec<u64>)> {
    let length = state.tree.length();
    if index == length {
        return Some((state.tree.roots().to_vec(), Vec::new()));
    }
    let (mut roots, mut missing) = (Vec::new(), Vec::new());
    for position in nodes_before(Position::leaf(index)?, length)? {
        match state.root(position.index()) {
            Some(root) => roots.push(*root),
            None => missing.push(position.index()),
        }
    }
    Some((roots, missing))
}

fn sum(roots: &[Node], indexes: &[u64], stored: &HashMap<u64, Node>) -> Option<u64> {
    let read = indexes.iter().map(|index| stored.get(index));
    roots.iter().map(Some).chain(read).try_fold(0u64, |sum, node| sum.checked_add(node?.size))
}
