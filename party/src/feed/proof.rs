//! What is asked of a feed and what proves the answer: the values that replication carries and that
//! [`Feed`](crate::feed) makes and checks.

use bytes::Bytes;

use crate::{feed::manifest::Manifest, hash::Hash};

/// A node of the Merkle tree. Nodes are numbered as in a flat tree: leaf `n` has the index `2 * n`, parents
/// stand between their children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its place in the flat tree.
    pub index: u64,
    /// Bytes of the blocks below it.
    pub size: u64,
    /// Its hash.
    pub hash: Hash,
}

/// What is asked for. Any part may be absent; `block` and `hash` exclude each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProofRequest {
    /// A block and the nodes that connect it.
    pub block: Option<BlockRequest>,
    /// A tree node and the nodes that connect it.
    pub hash: Option<BlockRequest>,
    /// The nodes that lead to a byte offset.
    pub seek: Option<SeekRequest>,
    /// The signed growth of the feed.
    pub upgrade: Option<UpgradeRequest>,
    /// The manifest.
    pub manifest: bool,
}

/// Asks for a block by its index, or for a tree node by its flat-tree index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    /// Block index, or flat-tree index in a hash request.
    pub index: u64,
    /// How many levels up the first node stands that the asker already has.
    pub nodes: u64,
}

/// Asks for the nodes that lead to a byte offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeekRequest {
    /// The byte offset.
    pub bytes: u64,
    /// Bytes of each block that are not counted.
    pub padding: u64,
}

/// Asks for the proof that a feed of `start` blocks grew by `length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpgradeRequest {
    /// The asker's length.
    pub start: u64,
    /// How many blocks more.
    pub length: u64,
}

/// An answer to a [`ProofRequest`], not verified yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// The fork that it is about.
    pub fork: u64,
    /// A block and its nodes.
    pub block: Option<BlockProof>,
    /// A tree node and its nodes.
    pub hash: Option<HashProof>,
    /// Nodes that lead to a byte offset.
    pub seek: Option<SeekProof>,
    /// Signed growth.
    pub upgrade: Option<UpgradeProof>,
    /// The manifest that hashes to the feed's key.
    pub manifest: Option<Manifest>,
}

/// A block and the nodes beside its path, lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockProof {
    /// Block index.
    pub index: u64,
    /// The block.
    pub value: Bytes,
    /// Siblings on the way up.
    pub nodes: Vec<Node>,
}

/// A tree node, first in `nodes`, and the nodes beside its path, lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashProof {
    /// Flat-tree index.
    pub index: u64,
    /// The node, then siblings on the way up.
    pub nodes: Vec<Node>,
}

/// Nodes that lead to a byte offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeekProof {
    /// The byte offset.
    pub bytes: u64,
    /// The node found, then siblings on the way up.
    pub nodes: Vec<Node>,
}

/// Proof that a feed of `start` blocks grew by `length` and, by `additional_nodes`, to its signed end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeProof {
    /// Length before.
    pub start: u64,
    /// Blocks more.
    pub length: u64,
    /// New roots and the nodes that connect the old ones to them.
    pub nodes: Vec<Node>,
    /// Roots from `start + length` to the signed length, if that is further.
    pub additional_nodes: Vec<Node>,
    /// The signature of the tree: 64 bytes for a legacy feed, else an encoded multi-signature.
    pub signature: Bytes,
}
