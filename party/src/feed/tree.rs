//! The Merkle tree over a feed's blocks: where its nodes stand, how they are hashed, and how it grows.
//!
//! A tree is kept as its *roots*, the largest complete subtrees from left to right; the hash over them is
//! what the writer signs. The layout and the hashes are those of hypercore's `lib/merkle-tree.js` and
//! `hypercore-crypto`; see `protocol-spec/06-feeds.md`.
//!
//! Every number in here may come from a peer. A `Position` can only be made within a feed of
//! [`MAX_LENGTH`] blocks, where no shift overflows, and sums of sizes are checked.

use blake2b_simd::{
    Params,
    many::{HashManyJob, hash_many, update_many},
};

use crate::{
    encoding::MAX_SAFE_INTEGER,
    feed::proof::Node,
    hash::{Hash, hash},
};

/// The longest feed, in blocks: every flat-tree index below it is an integer that a Node peer can read.
pub const MAX_LENGTH: u64 = 1 << 52;

const MAX_DEPTH: u32 = 52;
const LEAF: u8 = 0;
const PARENT: u8 = 1;
const ROOTS: u8 = 2;

/// The size and the two hashes that a parent is hashed from, after the type.
const PARENT_LEN: usize = 1 + 8 + 32 + 32;
/// Blocks up to this length are copied behind their prefix, so that several are hashed side by side from
/// their first byte to their last. Beyond it the copy costs more than the one block that it saves.
const MAX_COPIED: usize = 4096;
/// Blocks hashed in one go.
const LEAF_BATCH: usize = 32;

/// A place in the flat tree: `depth` levels above the blocks, the `offset`-th from the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    depth: u32,
    offset: u64,
}

impl Position {
    /// The leaf of a block, `None` beyond [`MAX_LENGTH`].
    //= FEED-18
    pub(crate) fn leaf(block: u64) -> Option<Self> {
        (block < MAX_LENGTH).then_some(Self { depth: 0, offset: block })
    }

    /// The place with this flat-tree index, `None` if it spans blocks beyond [`MAX_LENGTH`].
    //= ENC-12
    pub(crate) fn from_index(index: u64) -> Option<Self> {
        if index > MAX_SAFE_INTEGER {
            return None;
        }
        let position = Self { depth: flat_tree::depth(index) as u32, offset: flat_tree::offset(index) };
        (position.depth <= MAX_DEPTH && position.end() <= MAX_LENGTH).then_some(position)
    }

    /// Its flat-tree index.
    pub(crate) fn index(self) -> u64 {
        flat_tree::index(self.depth.into(), self.offset)
    }

    /// The first block below it.
    pub(crate) fn start(self) -> u64 {
        self.offset << self.depth
    }

    /// The block after the last one below it.
    pub(crate) fn end(self) -> u64 {
        (self.offset + 1) << self.depth
    }

    /// The node above, `None` above the highest root that a feed can have.
    //= FEED-18
    pub(crate) fn parent(self) -> Option<Self> {
        (self.depth < MAX_DEPTH).then_some(Self { depth: self.depth + 1, offset: self.offset >> 1 })
    }

    /// The two nodes below, `None` for a leaf.
    pub(crate) fn children(self) -> Option<(Self, Self)> {
        let depth = self.depth.checked_sub(1)?;
        let left = Self { depth, offset: self.offset << 1 };
        Some((left, left.sibling()))
    }

    /// The other child of its parent.
    pub(crate) fn sibling(self) -> Self {
        Self { depth: self.depth, offset: self.offset ^ 1 }
    }

    /// How many levels above the leaves it stands.
    pub(crate) fn depth(self) -> u32 {
        self.depth
    }

    /// Whether `other` is this node or below it.
    pub(crate) fn contains(self, other: Self) -> bool {
        self.start() <= other.start() && other.end() <= self.end()
    }

    /// Whether it is one of the roots of a tree of `length` blocks.
    pub(crate) fn is_root(self, length: u64) -> bool {
        self.end() <= length && self.parent().is_none_or(|parent| parent.end() > length)
    }
}

/// The subtrees that, added one by one, let a tree of `from` blocks grow to `to`: each the largest that can
/// stand next. From 0 these are the roots of a tree of `to` blocks. This is the order of the nodes in an
/// upgrade proof.
pub(crate) fn filling(from: u64, to: u64) -> impl Iterator<Item = Position> {
    let to = to.min(MAX_LENGTH);
    let mut start = from;
    std::iter::from_fn(move || {
        let left = to.checked_sub(start).filter(|left| *left > 0)?;
        let depth = start.trailing_zeros().min(left.ilog2());
        let position = Position { depth, offset: start >> depth };
        start = position.end();
        Some(position)
    })
}

/// The roots of a tree of `length` blocks.
pub(crate) fn full_roots(length: u64) -> impl Iterator<Item = Position> {
    filling(0, length)
}

/// The parent of two siblings, `None` if they are no siblings or the sizes add up to more than a Node peer
/// can read.
pub(crate) fn parent(a: &Node, b: &Node) -> Option<Node> {
    let mut nodes = parents(&[(*a, *b)]);
    nodes.pop()?
}

/// The parents of pairs of siblings, hashed side by side.
pub(crate) fn parents(pairs: &[(Node, Node)]) -> Vec<Option<Node>> {
    let mut inputs = Vec::with_capacity(pairs.len());
    let mut nodes: Vec<Option<Node>> = pairs
        .iter()
        .map(|(a, b)| {
            let (left, right) = if a.index < b.index { (a, b) } else { (b, a) };
            let position = Position::from_index(left.index)?;
            if position.sibling().index() != right.index || left.index == right.index {
                return None;
            }
            let size = left.size.checked_add(right.size).filter(|size| *size <= MAX_SAFE_INTEGER)?;
            let mut input = [0; PARENT_LEN];
            input[0] = PARENT;
            input[1..9].copy_from_slice(&size.to_le_bytes());
            input[9..41].copy_from_slice(&left.hash);
            input[41..].copy_from_slice(&right.hash);
            inputs.push(input);
            Some(Node { index: position.parent()?.index(), size, hash: [0; 32] })
        })
        .collect();
    let params = params();
    let mut jobs: Vec<_> = inputs.iter().map(|input| HashManyJob::new(&params, input)).collect();
    hash_many(jobs.iter_mut());
    for (node, job) in nodes.iter_mut().flatten().zip(&jobs) {
        node.hash = digest(job.to_hash());
    }
    nodes
}

/// The hashes of blocks as leaves of the tree.
pub(crate) fn leaf_hashes<'a>(blocks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Hash> {
    let blocks: Vec<&[u8]> = blocks.into_iter().collect();
    let mut hashes = Vec::with_capacity(blocks.len());
    let mut copied = Vec::new();
    for batch in blocks.chunks(LEAF_BATCH) {
        if batch.iter().all(|block| block.len() <= MAX_COPIED) {
            hash_copied(batch, &mut copied, &mut hashes);
        } else {
            hash_in_place(batch, &mut hashes);
        }
    }
    hashes
}

fn hash_copied(blocks: &[&[u8]], copied: &mut Vec<u8>, hashes: &mut Vec<Hash>) {
    copied.clear();
    for block in blocks {
        copied.push(LEAF);
        copied.extend_from_slice(&(block.len() as u64).to_le_bytes());
        copied.extend_from_slice(block);
    }
    let params = params();
    let mut rest = copied.as_slice();
    let mut jobs: Vec<_> = blocks
        .iter()
        .map(|block| {
            let (input, after) = rest.split_at(9 + block.len());
            rest = after;
            HashManyJob::new(&params, input)
        })
        .collect();
    hash_many(jobs.iter_mut());
    hashes.extend(jobs.iter().map(|job| digest(job.to_hash())));
}

fn hash_in_place(blocks: &[&[u8]], hashes: &mut Vec<Hash>) {
    let params = params();
    let mut states: Vec<_> = blocks
        .iter()
        .map(|block| {
            let mut state = params.to_state();
            state.update(&[LEAF]).update(&(block.len() as u64).to_le_bytes());
            state
        })
        .collect();
    update_many(states.iter_mut().zip(blocks));
    hashes.extend(states.iter().map(|state| digest(state.finalize())));
}

fn params() -> Params {
    let mut params = Params::new();
    params.hash_length(32);
    params
}

//= FEED-18
fn digest(hash: blake2b_simd::Hash) -> Hash {
    let mut out = [0; 32];
    out.copy_from_slice(hash.as_bytes());
    out
}

/// A tree as its roots: enough to grow it, to hash it and to check its signature.
///
/// ```
/// use party::feed::{proof::Node, tree::Tree};
///
/// // Of 3 blocks: the node above the first two, and the third.
/// let node = |index, size| Node { index, size, hash: [index as u8; 32] };
/// let tree = Tree::from_roots(3, vec![node(1, 20), node(4, 7)]).unwrap();
/// assert_eq!((tree.length(), tree.byte_length()), (3, 27));
///
/// // What is signed is one hash, of the roots, their places and their sizes.
/// let other = Tree::from_roots(3, vec![node(1, 20), node(4, 8)]).unwrap();
/// assert_ne!(tree.hash(), other.hash());
/// // These are no roots of a tree of 3 blocks.
/// assert!(Tree::from_roots(3, vec![node(3, 27)]).is_none());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    roots: Vec<Node>,
    length: u64,
    byte_length: u64,
}

impl Tree {
    /// The tree of `length` blocks with these roots; `None` if they are not the roots of such a tree.
    pub fn from_roots(length: u64, roots: Vec<Node>) -> Option<Self> {
        if length > MAX_LENGTH || !full_roots(length).map(Position::index).eq(roots.iter().map(|r| r.index)) {
            return None;
        }
        let byte_length = roots
            .iter()
            .try_fold(0u64, |sum, root| sum.checked_add(root.size))
            .filter(|sum| *sum <= MAX_SAFE_INTEGER)?;
        Some(Self { roots, length, byte_length })
    }

    /// Blocks under it.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of all blocks under it.
    pub fn byte_length(&self) -> u64 {
        self.byte_length
    }

    /// Its roots, from left to right.
    pub fn roots(&self) -> &[Node] {
        &self.roots
    }

    /// The hash that stands for the whole tree: over the roots' hashes, indexes and sizes.
    pub fn hash(&self) -> Hash {
        let mut input = Vec::with_capacity(1 + 48 * self.roots.len());
        input.push(ROOTS);
        for root in &self.roots {
            input.extend_from_slice(&root.hash);
            input.extend_from_slice(&root.index.to_le_bytes());
            input.extend_from_slice(&root.size.to_le_bytes());
        }
        hash(&[&input])
    }

    /// Adds a complete subtree at the end. It is merged with the roots to its left as far as it completes
    /// larger ones; `merged` gets the two children and the parent of each merge. `None`, and the tree is not
    /// to be used any more, if the subtree does not begin where the tree ends, or if a bound is passed.
    pub(crate) fn append_root(
        &mut self,
        node: Node,
        mut merged: impl FnMut(&Node, &Node, &Node),
    ) -> Option<()> {
        let position = Position::from_index(node.index)?;
        if position.start() != self.length {
            return None;
        }
        self.length = position.end();
        self.byte_length =
            self.byte_length.checked_add(node.size).filter(|size| *size <= MAX_SAFE_INTEGER)?;
        self.roots.push(node);
        while let [.., left, right] = self.roots.as_slice() {
            if Position::from_index(right.index)?.sibling().index() != left.index {
                break;
            }
            let above = parent(left, right)?;
            merged(left, right, &above);
            self.roots.truncate(self.roots.len() - 2);
            self.roots.push(above);
        }
        Some(())
    }

    /// Adds blocks at the end and gives all nodes that are new. `None`, and the tree is as it was, if it
    /// would grow beyond [`MAX_LENGTH`] or 2^53 - 1 bytes.
    pub(crate) fn append_blocks<'a>(
        &mut self,
        blocks: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
    ) -> Option<Vec<Node>> {
        let old = self.length;
        let new = old.checked_add(blocks.len() as u64).filter(|length| *length <= MAX_LENGTH)?;
        blocks
            .clone()
            .try_fold(self.byte_length, |sum, block| sum.checked_add(block.len() as u64))
            .filter(|sum| *sum <= MAX_SAFE_INTEGER)?;
        let leaves = leaf_hashes(blocks.clone());
        let mut nodes = Vec::with_capacity(2 * leaves.len());
        let mut level: Vec<Node> = (old..)
            .zip(leaves.into_iter().zip(blocks))
            .map(|(block, (hash, data))| Node { index: 2 * block, size: data.len() as u64, hash })
            .collect();
        // Level by level: what is complete in the new tree and was not in the old one. The first of a level
        // may have a root of the old tree as its left child.
        for depth in 1.. {
            nodes.extend_from_slice(&level);
            let (from, to) = (old >> depth, new >> depth);
            if from >= to {
                break;
            }
            let below_from = old >> (depth - 1);
            let child = |offset: u64| match offset.checked_sub(below_from) {
                Some(n) => level.get(n as usize).copied(),
                None => {
                    let index = Position { depth: depth - 1, offset }.index();
                    self.roots.iter().find(|root| root.index == index).copied()
                }
            };
            let pairs: Vec<(Node, Node)> = (from..to)
                .map(|offset| Some((child(2 * offset)?, child(2 * offset + 1)?)))
                .collect::<Option<_>>()?;
            level = parents(&pairs).into_iter().collect::<Option<_>>()?;
        }
        let roots = full_roots(new)
            .map(|position| {
                let index = position.index();
                nodes.iter().rev().chain(&self.roots).find(|node| node.index == index).copied()
            })
            .collect::<Option<_>>()?;
        *self = Self::from_roots(new, roots)?;
        Some(nodes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grown_one_by_one(blocks: &[Vec<u8>]) -> (Tree, Vec<Node>) {
        let mut tree = Tree::default();
        let mut nodes = Vec::new();
        for (block, data) in (0..).zip(blocks) {
            let hash = leaf_hashes([data.as_slice()])[0];
            let leaf = Node { index: 2 * block, size: data.len() as u64, hash };
            nodes.push(leaf);
            tree.append_root(leaf, |_, _, parent| nodes.push(*parent)).unwrap();
        }
        nodes.sort_by_key(|node| node.index);
        (tree, nodes)
    }

    proptest! {
        #[test]
        fn batches_grow_the_same_tree_as_single_blocks(
            blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..70),
            cut in 0usize..70,
        ) {
            let cut = cut.min(blocks.len());
            let (expected, expected_nodes) = grown_one_by_one(&blocks);
            let mut tree = Tree::default();
            let mut nodes = tree.append_blocks(blocks[..cut].iter().map(Vec::as_slice)).unwrap();
            nodes.extend(tree.append_blocks(blocks[cut..].iter().map(Vec::as_slice)).unwrap());
            nodes.sort_by_key(|node| node.index);
            prop_assert_eq!(tree, expected);
            prop_assert_eq!(nodes, expected_nodes);
        }

        #[test]
        fn positions_agree_with_flat_tree(index in 0u64..MAX_SAFE_INTEGER - 1) {
            if let Some(position) = Position::from_index(index) {
                prop_assert_eq!(position.index(), index);
                prop_assert_eq!(position.sibling().index(), flat_tree::sibling(index));
                prop_assert_eq!(2 * position.start(), flat_tree::left_span(index));
                prop_assert_eq!(2 * position.end() - 2, flat_tree::right_span(index));
                if let Some(parent) = position.parent() {
                    prop_assert_eq!(parent.index(), flat_tree::parent(index));
                    prop_assert!(parent.contains(position) && !position.contains(parent));
                    let (left, right) = parent.children().unwrap();
                    prop_assert!(left == position || right == position);
                    prop_assert!(left.end() == right.start() && right.end() == parent.end());
                }
            }
        }

        #[test]
        fn filling_from_zero_gives_the_full_roots(length in 0u64..MAX_LENGTH, more in 0u64..1000) {
            let mut expected = Vec::new();
            flat_tree::full_roots(2 * length, &mut expected);
            let roots: Vec<u64> = full_roots(length).map(Position::index).collect();
            prop_assert_eq!(&roots, &expected);
            prop_assert!(full_roots(length).all(|root| root.is_root(length)));

            let mut end = length;
            for position in filling(length, length + more) {
                prop_assert_eq!(position.start(), end);
                end = position.end();
            }
            prop_assert_eq!(end, (length + more).min(MAX_LENGTH).max(length));
        }
    }

    #[test]
    fn hashing_large_blocks_side_by_side_changes_nothing() {
        let blocks: Vec<Vec<u8>> =
            [0, 1, MAX_COPIED, MAX_COPIED + 1, 70_000, 119, 120].iter().map(|n| vec![*n as u8; *n]).collect();
        let together = leaf_hashes(blocks.iter().map(Vec::as_slice));
        for (block, expected) in blocks.iter().zip(together) {
            assert_eq!(hash(&[&[LEAF], &(block.len() as u64).to_le_bytes(), block]), expected);
        }
    }

    //= ENC-12
    #[test]
    fn no_index_of_a_peer_reaches_beyond_the_longest_feed() {
        assert!(Position::from_index(u64::MAX).is_none());
        assert!(Position::from_index(MAX_SAFE_INTEGER).is_none());
        assert!(Position::leaf(MAX_LENGTH).is_none());
        let mut position = Position::leaf(MAX_LENGTH - 1).unwrap();
        let mut levels = 0;
        while let Some(parent) = position.parent() {
            position = parent;
            levels += 1;
        }
        assert_eq!((levels, position.end()), (MAX_DEPTH, MAX_LENGTH));
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let node = |index, size| Node { index, size, hash: [0; 32] };
        assert!(parent(&node(0, MAX_SAFE_INTEGER), &node(2, 1)).is_none());
        assert!(parent(&node(0, u64::MAX), &node(2, u64::MAX)).is_none());
        assert!(parent(&node(2, 1), &node(4, 1)).is_none());
        assert!(Tree::from_roots(1, vec![node(0, u64::MAX)]).is_none());
        assert!(Tree::default().append_root(node(0, u64::MAX), |_, _, _| ()).is_none());
    }
}
