//! What is asked of a feed and what proves the answer: the values that replication carries and that
//! [`Feed`](crate::feed) makes and checks.

use bytes::Bytes;

use crate::{feed::manifest::Manifest, hash::Hash};

/// A node of the Merkle tree. Nodes are numbered as in a flat tree: leaf `n` has the index `2 * n`, parents
/// stand between their children.
///
/// ```
/// use party::{feed::proof::Node, hash::hash};
///
/// // As a leaf is hashed: its kind, the length of the block, the block.
/// let leaf = |index, block: &[u8]| {
///     let size = block.len() as u64;
///     Node { index, size, hash: hash(&[&[0], &size.to_le_bytes(), block]) }
/// };
/// let (left, right) = (leaf(0, b"hello"), leaf(2, b"world"));
/// // And a parent, which stands between them: its kind, the sum of the lengths, both hashes.
/// let size = left.size + right.size;
/// let hash = hash(&[&[1], &size.to_le_bytes(), &left.hash, &right.hash]);
/// let parent = Node { index: 1, size, hash };
/// assert_eq!(parent.size, 10);
/// ```
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
///
/// ```
/// use party::feed::proof::{BlockRequest, ProofRequest, UpgradeRequest};
///
/// // What a reader that has nothing yet asks for to get block 3 of a feed of 10.
/// let request = ProofRequest {
///     block: Some(BlockRequest { index: 3, nodes: 0 }),
///     upgrade: Some(UpgradeRequest { start: 0, length: 10 }),
///     manifest: true,
///     ..ProofRequest::default()
/// };
/// assert!(request.hash.is_none() && request.seek.is_none());
/// ```
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
///
/// ```
/// use party::feed::proof::{BlockRequest, ProofRequest};
///
/// // We have the node two levels above block 5, so the proof needs not go further.
/// let block = Some(BlockRequest { index: 5, nodes: 2 });
/// let for_the_block = ProofRequest { block, ..ProofRequest::default() };
/// // The same way up, without the block: its leaf has the index 10.
/// let hash = Some(BlockRequest { index: 10, nodes: 2 });
/// let for_the_nodes = ProofRequest { hash, ..ProofRequest::default() };
/// # assert_ne!(for_the_block, for_the_nodes);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    /// Block index, or flat-tree index in a hash request.
    pub index: u64,
    /// How many levels up the first node stands that the asker already has.
    pub nodes: u64,
}

/// Asks for the nodes that lead to a byte offset.
///
/// ```
/// use party::feed::proof::{BlockRequest, ProofRequest, SeekRequest};
///
/// // Which of the blocks 0 to 7 has byte 1,000? We have node 7, which is three levels above block 0.
/// let request = ProofRequest {
///     hash: Some(BlockRequest { index: 0, nodes: 3 }),
///     seek: Some(SeekRequest { bytes: 1_000, padding: 0 }),
///     ..ProofRequest::default()
/// };
/// # assert!(request.seek.is_some());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeekRequest {
    /// The byte offset.
    pub bytes: u64,
    /// Bytes of each block that are not counted.
    pub padding: u64,
}

/// Asks for the proof that a feed of `start` blocks grew by `length`.
///
/// ```
/// use party::feed::proof::UpgradeRequest;
///
/// // We have a tree of 4 blocks, and the peer says that it has 10.
/// let (ours, theirs) = (4, 10);
/// let upgrade = UpgradeRequest { start: ours, length: theirs - ours };
/// assert_eq!(upgrade.start + upgrade.length, 10);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpgradeRequest {
    /// The asker's length.
    pub start: u64,
    /// How many blocks more.
    pub length: u64,
}

/// An answer to a [`ProofRequest`], not verified yet.
///
/// ```
/// use party::{error::PeerMisbehaved, feed::{proof::{HashProof, Proof}, verify::hash_proofs}};
///
/// // A proof is only what a peer says. This one lacks the node that it is about.
/// let hash = Some(HashProof { index: 6, nodes: vec![] });
/// let proof = Proof { hash, ..Proof::default() };
/// assert!(matches!(hash_proofs(vec![proof]).remove(0), Err(PeerMisbehaved::InvalidProof(_))));
/// ```
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
    /// Signed growth. In a box, as is the manifest: few proofs have one, and each is handed on many times.
    pub upgrade: Option<Box<UpgradeProof>>,
    /// The manifest that hashes to the feed's key.
    pub manifest: Option<Box<Manifest>>,
}

/// A block and the nodes beside its path, lowest first.
///
/// ```
/// use party::feed::{proof::{BlockProof, Node, Proof}, verify::hash_proofs};
///
/// // Block 5 has the index 10; beside its way up stand the nodes 8 and 13.
/// let nodes = [8, 13].map(|index| Node { index, size: 1, hash: [index as u8; 32] });
/// let block = Some(BlockProof { index: 5, value: "x".into(), nodes: nodes.to_vec() });
/// let hashed = hash_proofs(vec![Proof { block, ..Proof::default() }]).remove(0)?;
/// assert_eq!(hashed.needs(), Some(11)); // where they lead: that node we must know
/// # Ok::<(), party::error::PeerMisbehaved>(())
/// ```
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
///
/// ```
/// use party::feed::{proof::{HashProof, Node, Proof}, verify::hash_proofs};
///
/// // Node 9 itself, and 13 beside its way up.
/// let nodes = [9, 13].map(|index| Node { index, size: 2, hash: [index as u8; 32] });
/// let hash = Some(HashProof { index: 9, nodes: nodes.to_vec() });
/// let hashed = hash_proofs(vec![Proof { hash, ..Proof::default() }]).remove(0)?;
/// assert_eq!(hashed.needs(), Some(11));
/// # Ok::<(), party::error::PeerMisbehaved>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashProof {
    /// Flat-tree index.
    pub index: u64,
    /// The node, then siblings on the way up.
    pub nodes: Vec<Node>,
}

/// Nodes that lead to a byte offset.
///
/// ```
/// use party::feed::{proof::{BlockProof, Node, Proof, SeekProof}, verify::hash_proofs};
///
/// // The seek has led to node 4; with 6 it makes node 5, which stands beside the way up from block 0.
/// let node = |index| Node { index, size: 4, hash: [index as u8; 32] };
/// let seek = Some(SeekProof { bytes: 9, nodes: vec![node(4), node(6)] });
/// let block = Some(BlockProof { index: 0, value: "text".into(), nodes: vec![node(2)] });
/// let hashed = hash_proofs(vec![Proof { block, seek, ..Proof::default() }]).remove(0)?;
/// assert_eq!(hashed.needs(), Some(3));
/// # Ok::<(), party::error::PeerMisbehaved>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeekProof {
    /// The byte offset.
    pub bytes: u64,
    /// The node found, then siblings on the way up.
    pub nodes: Vec<Node>,
}

/// Proof that a feed of `start` blocks grew by `length` and, by `additional_nodes`, to its signed end.
///
/// ```
/// use std::collections::HashMap;
/// use bytes::Bytes;
/// use party::{hash::hash, key::KeyPair};
/// use party::feed::{manifest::Manifest, proof::{Node, Proof, UpgradeProof}, tree::Tree};
/// use party::feed::{verifier::Verifier, verify::{Verification, hash_proofs}};
///
/// // A writer signs its tree of one block.
/// let writer = KeyPair::from_seed(&[1; 32]);
/// let manifest = Manifest::single(writer.public());
/// let (key, verifier) = (manifest.key(), Verifier::new(manifest.key(), manifest)?);
/// let root = Node { index: 0, size: 5, hash: hash(&[&[0], &5u64.to_le_bytes(), b"hello"]) };
/// let tree = Tree::from_roots(1, vec![root]).unwrap();
/// let signature = verifier.sign(&writer, &tree, 0).unwrap();
///
/// // Whoever has nothing yet, grows to it.
/// let (start, length, nodes) = (0, 1, vec![root]);
/// let upgrade = UpgradeProof { start, length, nodes, additional_nodes: vec![], signature };
/// let proof = Proof { upgrade: Some(upgrade.into()), ..Proof::default() };
/// let hashed = hash_proofs(vec![proof]).remove(0)?;
/// let (empty, none) = (Tree::default(), Bytes::new());
/// let mut verification = Verification::new(key, Some(verifier), 0, empty, none, HashMap::new());
/// assert_eq!(verification.verify(hashed)?.length(), Some(1));
/// # Ok::<(), party::error::PeerMisbehaved>(())
/// ```
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
