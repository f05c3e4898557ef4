//! Everything that is stored of a feed, verified again.

use std::collections::HashMap;

use bytes::Bytes;

use super::Feed;
use crate::{
    error::{Error, StorageError},
    feed::{
        proof::Node,
        state::{State, decode_node},
        storage::Key,
        tree::{Position, leaf_hashes, parents},
    },
};

/// Blocks that are read and hashed in one go: a complete subtree of this height.
const HEIGHT: u32 = 6;
/// The most problems that are listed; what else there is, is counted.
const MAX_PROBLEMS: usize = 1000;

/// What [`Feed::audit`] has found.
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// # let identity = Identity::writer(KeyPair::generate());
/// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
/// feed.append_batch(vec!["a".into(), "b".into()]).await?;
/// let audit = feed.audit().await?;
/// assert!(audit.is_clean());
/// assert_eq!((audit.blocks, audit.nodes), (2, 1)); // both blocks, and the node above them
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// Blocks that were read and hashed.
    pub blocks: u64,
    /// Tree nodes that were compared with what is below them.
    pub nodes: u64,
    /// What is wrong, the first thousand in the order of the feed; empty for a feed that is whole.
    pub problems: Vec<Problem>,
    /// How much is wrong altogether.
    pub problem_count: u64,
}

impl Audit {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0
    }

    fn found(&mut self, problem: Problem) {
        self.problem_count = self.problem_count.saturating_add(1);
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }
}

/// Something that is not as the feed's writer has signed it.
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// use party::feed::{Problem, storage::{Key, Storage as _, Write}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// # let storage = Arc::new(MemoryStorage::new());
/// # let feed = Feed::create(storage.clone(), Slot(0), Identity::writer(KeyPair::generate())).await?;
/// feed.append_batch(vec!["a".into(), "b".into(), "c".into()]).await?;
/// // Somebody meddles with the storage.
/// let forged = Write::Put(Key::Block(Slot(0), 1), "B".into());
/// storage.commit(vec![Write::Delete(Key::Block(Slot(0), 0)), forged]).await?;
///
/// let audit = feed.audit().await?;
/// assert_eq!(audit.problems, [Problem::MissingBlock(0), Problem::WrongBlock(1)]);
/// assert_eq!(audit.problems[0].to_string(), "block 0 is missing");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A block that should be stored and isn't.
    #[error("block {0} is missing")]
    MissingBlock(u64),
    /// A block that can't be read.
    #[error("block {index} can't be read: {why}")]
    UnreadableBlock {
        /// Its index.
        index: u64,
        /// What the storage says.
        why: String,
    },
    /// A block that isn't the one that was signed.
    #[error("block {0} does not have its hash")]
    WrongBlock(u64),
    /// A tree node above a stored block, or beside one of those, that should be stored and isn't.
    #[error("tree node {0} is missing")]
    MissingNode(u64),
    /// A tree node that can't be read.
    #[error("tree node {index} can't be read: {why}")]
    UnreadableNode {
        /// Its flat-tree index.
        index: u64,
        /// What the storage says.
        why: String,
    },
    /// A tree node that isn't the parent of the two below it.
    #[error("tree node {0} does not have the hash of those below it")]
    WrongNode(u64),
    /// The signature isn't one of the feed's writer over the feed's tree.
    #[error("the signature is not the feed's")]
    WrongSignature,
}

impl Feed {
    /// Reads and verifies all that is stored of the feed: each block against its leaf of the tree, each node
    /// on the way up against those below it, and the roots against the signature. What it finds wrong is
    /// in the report, and not repaired. It reads a piece at a time, while the feed stays in use; an append
    /// that comes meanwhile isn't looked at. What the storage has in memory, because it was written or read just now, it
    /// takes from there: to have the disk looked at in any case, open the store anew.
    ///
    /// # Errors
    /// Nothing of the storage can be read at all.
    pub async fn audit(&self) -> Result<Audit, Error> {
        // What is deleted meanwhile is still seen.
        let snapshot = self.snapshot().await;
        let state = snapshot.state();
        let mut audit = Audit::default();
        let length = state.tree.length();
        let signed = state
            .verifier
            .as_ref()
            .is_some_and(|verifier| verifier.verify(&state.tree, state.fork, &state.signature).is_ok());
        if length > 0 && !signed {
            audit.found(Problem::WrongSignature);
        }
        // Of each height, the parent that was looked at last: neighbours have the same above them.
        let mut seen: HashMap<u32, u64> = HashMap::new();
        let mut next = 0;
        while let Some(block) = state.bitfield.next_stored(next).filter(|block| *block < length) {
            let start = block >> HEIGHT << HEIGHT;
            next = start + (1 << HEIGHT);
            let stored: Vec<u64> =
                (start..next.min(length)).filter(|index| state.bitfield.get(*index)).collect();
            let places = above(&stored, length, &mut seen);
            let mut nodes = Reading::default();
            nodes.read(self, &snapshot, state, &places, &mut audit).await?;
            let values = read_blocks(self, &snapshot, &stored, &mut audit).await?;
            audit.blocks += values.len() as u64;
            let hashes = leaf_hashes(values.iter().map(|(_, value)| value.as_ref()));
            for ((index, value), hash) in values.iter().zip(hashes) {
                let leaf = nodes.known.get(&index.saturating_mul(2));
                if leaf.is_some_and(|leaf| leaf.hash != hash || leaf.size != value.len() as u64) {
                    audit.found(Problem::WrongBlock(*index));
                }
            }
            nodes.compare(&places, &mut audit);
        }
        Ok(audit)
    }
}

/// The nodes on the way from `blocks` to the roots, without those that were [seen] with other blocks.
///
/// [seen]: Feed::audit
fn above(blocks: &[u64], length: u64, seen: &mut HashMap<u32, u64>) -> Vec<Position> {
    let mut places = vec![];
    for block in blocks {
        let mut next = Position::leaf(*block);
        let mut height = 0;
        while let Some(position) = next.filter(|position| position.end() <= length) {
            if seen.insert(height, position.start()) == Some(position.start()) {
                break;
            }
            places.push(position);
            next = position.parent();
            height += 1;
        }
    }
    places
}

#[derive(Default)]
struct Reading {
    known: HashMap<u64, Node>,
}

impl Reading {
    /// Reads `places` and what stands beside each.
    async fn read(
        &mut self,
        feed: &Feed,
        snapshot: &super::FeedSnapshot,
        state: &State,
        places: &[Position],
        audit: &mut Audit,
    ) -> Result<(), Error> {
        let length = state.tree.length();
        let mut indexes: Vec<u64> = places
            .iter()
            .filter(|position| !position.is_root(length))
            .flat_map(|position| [position.index(), position.sibling().index()])
            .chain(places.iter().map(|position| position.index()))
            .collect();
        // The children of a node that was reached from one side only are read with it already: each place
        // that is no leaf has come from a child, whose sibling is in the list.
        indexes.sort_unstable();
        indexes.dedup();
        let keys: Vec<Key> = indexes.iter().map(|index| feed.node_key(*index)).collect();
        for (index, value) in indexes.iter().zip(read_each(snapshot, keys).await?) {
            match value.map(|value| value.map(|value| decode_node(*index, &value))) {
                Ok(Some(Ok(node))) => {
                    if state.root(*index).is_some_and(|root| *root != node) {
                        audit.found(Problem::WrongNode(*index));
                    }
                    self.known.insert(*index, node);
                }
                Ok(Some(Err(error))) => {
                    audit.found(Problem::UnreadableNode { index: *index, why: error.to_string() });
                }
                Ok(None) => audit.found(Problem::MissingNode(*index)),
                Err(why) => audit.found(Problem::UnreadableNode { index: *index, why }),
            }
        }
        Ok(())
    }

    /// Compares each of `places` that has its two children here with what they give.
    fn compare(&self, places: &[Position], audit: &mut Audit) {
        let (mut of, mut pairs) = (vec![], vec![]);
        for position in places {
            let Some((left, right)) = position.children() else { continue };
            let known = |position: Position| self.known.get(&position.index()).copied();
            if let (Some(node), Some(left), Some(right)) = (known(*position), known(left), known(right)) {
                of.push(node);
                pairs.push((left, right));
            }
        }
        audit.nodes += pairs.len() as u64;
        for (node, parent) in of.iter().zip(parents(&pairs)) {
            if parent != Some(*node) {
                audit.found(Problem::WrongNode(node.index));
            }
        }
    }
}

async fn read_blocks(
    feed: &Feed,
    snapshot: &super::FeedSnapshot,
    blocks: &[u64],
    audit: &mut Audit,
) -> Result<Vec<(u64, Bytes)>, Error> {
    let keys = blocks.iter().map(|index| feed.block_key(*index)).collect();
    let mut values = Vec::with_capacity(blocks.len());
    for (index, value) in blocks.iter().zip(read_each(snapshot, keys).await?) {
        match value {
            Ok(Some(value)) => values.push((*index, value)),
            Ok(None) => audit.found(Problem::MissingBlock(*index)),
            Err(why) => audit.found(Problem::UnreadableBlock { index: *index, why }),
        }
    }
    Ok(values)
}

/// Reads all of `keys` at once, or, if any of them is damaged, one by one.
async fn read_each(
    snapshot: &super::FeedSnapshot,
    keys: Vec<Key>,
) -> Result<Vec<Result<Option<Bytes>, String>>, Error> {
    let mut found = Vec::with_capacity(keys.len());
    match snapshot.read(keys.clone()).await {
        Ok(values) => return Ok(values.into_iter().map(Ok).collect()),
        Err(Error::Storage(StorageError::Damaged { .. })) => {}
        Err(error) => return Err(error),
    }
    for key in keys {
        match snapshot.read(vec![key]).await {
            Ok(mut values) => found.push(Ok(values.pop().flatten())),
            Err(Error::Storage(StorageError::Damaged { what })) => found.push(Err(what)),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
