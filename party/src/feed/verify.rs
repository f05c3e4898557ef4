//! Proofs checked.
//!
//! This happens in two steps. [`hash_proofs`] climbs from each block to the highest node that its proof can
//! compute: pure hashing, for many proofs side by side, and with no regard to the feed. [`Verification`]
//! then compares those nodes with what is known: the nodes stored, a signed upgrade in the same proof, and
//! what other proofs of the batch have shown, in whatever order they came. Nothing leaves here but
//! [`VerifiedProof`]s. The rules are those of hypercore's `lib/merkle-tree.js` and `core.js`; see
//! `protocol-spec/06-feeds.md`.
//!
//! In one thing we are stricter. A parent's hash covers the sum of its children's sizes only. Where a peer
//! supplies both children it can shift bytes from one to the other and everything still verifies. Such a
//! pair is checked but not stored, for what we serve from it would fail at the next peer, and a seek would
//! be led astray by it.

pub(super) mod batch;
mod hashing;

use std::collections::HashMap;

use bytes::Bytes;

pub use self::hashing::{HashedProof, hash_proofs};
use self::{batch::Batch, hashing::Climbed};
use crate::{
    error::PeerMisbehaved,
    feed::{
        conflict::NOT_IN_THE_TREE,
        proof::{Node, UpgradeProof},
        tree::{Tree, filling},
        verifier::Verifier,
    },
    key::FeedKey,
};

/// A proof that holds. Only a [`Verification`] makes one.
///
/// ```
/// use std::collections::HashMap;
/// use bytes::Bytes;
/// use party::{hash::hash, key::FeedKey};
/// use party::feed::{proof::{BlockProof, Node, Proof}, tree::Tree};
/// use party::feed::verify::{Verification, hash_proofs};
///
/// // A feed of one block, whose leaf is its root.
/// let root = Node { index: 0, size: 5, hash: hash(&[&[0], &5u64.to_le_bytes(), b"hello"]) };
/// let tree = Tree::from_roots(1, vec![root]).unwrap();
/// let key = FeedKey::from_bytes([7; 32]);
/// let mut verification = Verification::new(key, None, 0, tree, Bytes::new(), HashMap::new());
///
/// let block = Some(BlockProof { index: 0, value: "hello".into(), nodes: vec![] });
/// let hashed = hash_proofs(vec![Proof { block, ..Proof::default() }]).remove(0)?;
/// let verified = verification.verify(hashed)?;
/// assert_eq!(verified.block(), Some((0, &Bytes::from("hello"))));
/// assert!(verified.nodes().is_empty()); // the root was known
/// # Ok::<(), party::error::PeerMisbehaved>(())
/// ```
#[derive(Clone, Debug)]
pub struct VerifiedProof {
    block: Option<(u64, Bytes)>,
    nodes: Vec<Node>,
    unsure: Vec<Node>,
    length: Option<u64>,
    manifest: bool,
    stale: bool,
    unconnected: bool,
}

impl VerifiedProof {
    /// One from which nothing is taken.
    fn nothing() -> Self {
        Self {
            block: None,
            nodes: Vec::new(),
            unsure: Vec::new(),
            length: None,
            manifest: false,
            stale: false,
            unconnected: false,
        }
    }

    /// The block that was proved, with its index.
    pub fn block(&self) -> Option<(u64, &Bytes)> {
        self.block.as_ref().map(|(index, value)| (*index, value))
    }

    /// The nodes of the tree that were proved and not known before.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Nodes whose hashes were proved and whose sizes were not: of each pair of siblings only the sum. They
    /// must not be stored.
    pub(crate) fn unsure(&self) -> &[Node] {
        &self.unsure
    }

    /// The length that the feed grew to.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether the manifest was learned from it.
    pub fn manifest(&self) -> bool {
        self.manifest
    }

    /// Whether it is about a state of the feed that has passed, and nothing could be taken from it.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether nothing could be taken from it because it rests on what is not known: a node that no other
    /// proof led to, or a length that the feed has not reached. It may be true and too early, or false.
    pub fn is_unconnected(&self) -> bool {
        self.unconnected
    }
}

/// A proof that was looked at.
enum Checked {
    Done(VerifiedProof),
    /// It can't be told before more is known.
    Waits(HashedProof, Missing),
}

/// What a proof rests on that is not known.
enum Missing {
    /// A node.
    Node(u64),
    /// A tree of this length.
    Length(u64),
}

/// A feed's signed state, against which proofs are verified one after the other; each that holds is part of
/// what the next is verified against.
///
/// ```
/// use std::collections::HashMap;
/// use bytes::Bytes;
/// use party::{error::PeerMisbehaved, hash::hash, key::FeedKey};
/// use party::feed::{proof::{BlockProof, Node, Proof}, tree::Tree};
/// use party::feed::verify::{Verification, hash_proofs};
///
/// // A feed of one block, on fork 0.
/// let root = Node { index: 0, size: 5, hash: hash(&[&[0], &5u64.to_le_bytes(), b"hello"]) };
/// let tree = Tree::from_roots(1, vec![root]).unwrap();
/// let key = FeedKey::from_bytes([7; 32]);
/// let mut verification = Verification::new(key, None, 0, tree, Bytes::new(), HashMap::new());
///
/// let mut check = |fork, value: &'static str| {
///     let block = Some(BlockProof { index: 0, value: value.into(), nodes: vec![] });
///     let hashed = hash_proofs(vec![Proof { fork, block, ..Proof::default() }]).remove(0)?;
///     verification.verify(hashed)
/// };
/// assert!(check(0, "hello")?.block().is_some());
/// assert!(matches!(check(0, "HELLO"), Err(PeerMisbehaved::InvalidProof(_))));
/// assert!(check(1, "hello")?.is_stale()); // of another fork: no error, but of no use
/// # Ok::<(), PeerMisbehaved>(())
/// ```
#[derive(Debug)]
pub struct Verification {
    key: FeedKey,
    verifier: Option<Verifier>,
    fork: u64,
    tree: Tree,
    signature: Bytes,
    known: HashMap<u64, Node>,
    upgraded: bool,
    learned: bool,
}

impl Verification {
    /// Begins with the state of the feed and the stored nodes that the proofs [need](HashedProof::needs).
    pub fn new(
        key: FeedKey,
        verifier: Option<Verifier>,
        fork: u64,
        tree: Tree,
        signature: Bytes,
        stored: HashMap<u64, Node>,
    ) -> Self {
        let mut known = stored;
        known.extend(tree.roots().iter().map(|root| (root.index, *root)));
        Self { key, verifier, fork, tree, signature, known, upgraded: false, learned: false }
    }

    /// Checks one proof. If it does not hold, it changes nothing.
    ///
    /// # Errors
    /// [`PeerMisbehaved::InvalidProof`], [`PeerMisbehaved::InvalidSignature`] or
    /// [`PeerMisbehaved::WrongManifest`]. A proof that came too late is no error but [stale](VerifiedProof::is_stale).
    pub fn verify(&mut self, proof: HashedProof) -> Result<VerifiedProof, PeerMisbehaved> {
        match self.check(proof)? {
            Checked::Done(verified) => Ok(verified),
            Checked::Waits(proof, _) if self.is_late(&proof) => {
                Ok(VerifiedProof { stale: true, ..VerifiedProof::nothing() })
            }
            Checked::Waits(_, Missing::Node(_)) => Err(invalid("a node that does not lead to a known one")),
            Checked::Waits(_, Missing::Length(_)) => {
                Err(invalid("an upgrade from a length that we don't have"))
            }
        }
    }

    /// Checks many proofs, where each may rest on any other, whatever their order. One that does not hold
    /// changes nothing, nor does one that rests on what is not known after all others were checked: it is
    /// no error but [unconnected](VerifiedProof::is_unconnected).
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use bytes::Bytes;
    /// use party::{hash::hash, key::FeedKey};
    /// use party::feed::{proof::{BlockProof, Node, Proof}, tree::Tree};
    /// use party::feed::verify::{Verification, hash_proofs};
    ///
    /// // A feed of two blocks.
    /// let leaf = |index, block: &[u8]| {
    ///     let size = block.len() as u64;
    ///     Node { index, size, hash: hash(&[&[0], &size.to_le_bytes(), block]) }
    /// };
    /// let (left, right) = (leaf(0, b"hello"), leaf(2, b"world"));
    /// let root = hash(&[&[1], &10u64.to_le_bytes(), &left.hash, &right.hash]);
    /// let tree = Tree::from_roots(2, vec![Node { index: 1, size: 10, hash: root }]).unwrap();
    /// let key = FeedKey::from_bytes([7; 32]);
    /// let begin = || Verification::new(key, None, 0, tree.clone(), Bytes::new(), HashMap::new());
    ///
    /// // The first block alone rests on what the proof of the second brings: the node beside it.
    /// let proof = |index, value: &'static str, nodes| {
    ///     let block = Some(BlockProof { index, value: value.into(), nodes });
    ///     Proof { block, ..Proof::default() }
    /// };
    /// let (first, second) = (proof(0, "hello", vec![]), proof(1, "world", vec![left]));
    /// let alone = begin().verify_all(hash_proofs(vec![first.clone()]));
    /// assert!(alone[0].as_ref().unwrap().is_unconnected());
    /// let together = begin().verify_all(hash_proofs(vec![first, second]));
    /// assert!(together.iter().flatten().all(|proof| proof.block().is_some()));
    /// ```
    ///
    /// # Errors
    /// For each proof that of its own, if it had one, and those of [`verify`](Self::verify).
    pub fn verify_all(
        &mut self,
        proofs: Vec<Result<HashedProof, PeerMisbehaved>>,
    ) -> Vec<Result<VerifiedProof, PeerMisbehaved>> {
        let mut batch = Batch::new(proofs);
        batch.run(self);
        batch.finish(self)
    }

    /// Whether what a proof may have rested on has passed with the start of its upgrade.
    fn is_late(&self, proof: &HashedProof) -> bool {
        proof.upgrade.as_ref().is_some_and(|upgrade| upgrade.start < self.tree.length())
    }

    fn check(&mut self, proof: HashedProof) -> Result<Checked, PeerMisbehaved> {
        let mut verified = VerifiedProof { stale: true, ..VerifiedProof::nothing() };
        if proof.fork != self.fork {
            return Ok(Checked::Done(verified));
        }
        let learned = self.learn(&proof)?;
        if let Some(upgrade) = &proof.upgrade
            && upgrade.length > 0
            && upgrade.start > self.tree.length()
        {
            let missing = Missing::Length(upgrade.start);
            return Ok(Checked::Waits(proof, missing));
        }
        let mut top = proof.climbed.top;
        let upgrade = match &proof.upgrade {
            Some(upgrade) => self.grow(upgrade, &mut top, proof.climbed.claimed, learned.as_ref())?,
            None => None,
        };
        //= FEED-56
        if let Some(top) = top {
            match self.known.get(&top.index) {
                Some(known) if known.hash == top.hash && known.size == top.size => {}
                Some(_) => return Err(invalid(NOT_IN_THE_TREE)),
                None => return Ok(Checked::Waits(proof, Missing::Node(top.index))),
            }
        }
        // All its parts hold: from here on something is taken of it, and nothing was before.
        //= FEED-63
        let Climbed { mut nodes, mut unsure, .. } = proof.climbed;
        verified.stale = upgrade.is_none() && proof.block.is_none() && nodes.is_empty() && learned.is_none();
        if let Some(upgrade) = upgrade {
            verified.length = Some(upgrade.tree.length());
            nodes.extend(upgrade.nodes);
            unsure.extend(upgrade.unsure);
            self.tree = upgrade.tree;
            self.signature = upgrade.signature;
            self.upgraded = true;
        }
        if let Some(verifier) = learned {
            self.verifier = Some(verifier);
            self.learned = true;
            verified.manifest = true;
        }
        // What is known is stored, or will be with an earlier proof.
        nodes.retain(|node| self.known.insert(node.index, *node).is_none());
        verified.nodes = nodes;
        verified.unsure = unsure;
        verified.block = proof.block;
        Ok(Checked::Done(verified))
    }

    /// The verifier that this proof brings, if it brings one that we don't have. A manifest that is the key
    /// itself proves nothing, so a legacy feed is known by its first signature only.
    //= FEED-16
    fn learn(&self, proof: &HashedProof) -> Result<Option<Verifier>, PeerMisbehaved> {
        if self.verifier.is_some() {
            return Ok(None);
        }
        let verifier = match &proof.manifest {
            Some(manifest) => Verifier::new(self.key, manifest.as_ref().clone())?,
            None => Verifier::legacy(self.key),
        };
        Ok(Some(verifier).filter(|verifier| proof.upgrade.is_some() || !verifier.is_legacy()))
    }

    /// Grows the tree by an upgrade, with `top` as one of its nodes where it fits. `None` if the upgrade
    /// starts in the past.
    //= FEED-34, FEED-59, FEED-60, FEED-61, FEED-62
    fn grow(
        &self,
        upgrade: &UpgradeProof,
        top: &mut Option<Node>,
        claimed: bool,
        learned: Option<&Verifier>,
    ) -> Result<Option<Growth>, PeerMisbehaved> {
        //= protocol-spec/06-feeds.md#proofs
        let known = self.verifier.as_ref();
        let verifier = known.or(learned).ok_or(PeerMisbehaved::WrongManifest)?;
        if upgrade.length == 0 {
            return Err(invalid("an empty upgrade"));
        }
        let end = upgrade.start.checked_add(upgrade.length).ok_or(invalid("an endless upgrade"))?;
        if upgrade.start < self.tree.length() {
            return Ok(None);
        }
        if upgrade.start > self.tree.length() {
            return Err(invalid("an upgrade from a length that we don't have"));
        }
        let mut growth = Growth::new(self.tree.clone(), upgrade.signature.clone());
        let mut nodes = upgrade.nodes.iter();
        let mut rest = *top;
        for position in filling(upgrade.start, end) {
            let node = match rest.filter(|node| node.index == position.index()) {
                Some(node) => {
                    rest = None;
                    if claimed {
                        growth.claimed.push(node.index);
                    }
                    node
                }
                None => {
                    let node = *nodes.next().ok_or(invalid("an upgrade that lacks a node"))?;
                    growth.claimed.push(node.index);
                    node
                }
            };
            if node.index != position.index() {
                return Err(invalid("a node out of its order"));
            }
            growth.append(node)?;
        }
        //= protocol-spec/06-feeds.md#proofs
        // An upgrade's nodes are all used; what is left over would be stored by nobody.
        if nodes.next().is_some() {
            return Err(invalid("an upgrade with a node too many"));
        }
        if growth.tree.length() != end {
            return Err(invalid("an upgrade beyond the largest feed"));
        }
        if let Some(known) = known {
            known.check_prologue(upgrade.start, upgrade.length, &growth.tree)?;
        }
        for node in &upgrade.additional_nodes {
            growth.claimed.push(node.index);
            growth.append(*node)?;
        }
        verifier.verify(&growth.tree, self.fork, &upgrade.signature)?;
        *top = rest;
        Ok(Some(growth.finish()))
    }

    /// The tree that all proofs so far have led to, with its signature, if it has grown.
    pub fn tree(&self) -> Option<(&Tree, &Bytes)> {
        self.upgraded.then_some((&self.tree, &self.signature))
    }

    /// The verifier, known before or learned.
    pub(crate) fn verifier(&self) -> Option<&Verifier> {
        self.verifier.as_ref()
    }

    /// A node that is known to be in the tree, with its size.
    pub(crate) fn known(&self, index: u64) -> Option<&Node> {
        self.known.get(&index)
    }

    /// Takes a node as known that was found to be in the tree in another way.
    pub(crate) fn know(&mut self, node: Node) {
        self.known.insert(node.index, node);
    }

    /// The verifier, if it was learned from one of the proofs.
    pub fn learned(&self) -> Option<&Verifier> {
        self.verifier.as_ref().filter(|_| self.learned)
    }
}

/// A tree as it grows by an upgrade.
struct Growth {
    tree: Tree,
    signature: Bytes,
    nodes: Vec<Node>,
    /// Nodes whose size is only the peer's word so far.
    claimed: Vec<u64>,
    /// Those whose size stays that.
    unsure: Vec<Node>,
}

impl Growth {
    fn new(tree: Tree, signature: Bytes) -> Self {
        Self { tree, signature, nodes: Vec::new(), claimed: Vec::new(), unsure: Vec::new() }
    }

    fn append(&mut self, node: Node) -> Result<(), PeerMisbehaved> {
        self.nodes.push(node);
        let (nodes, claimed, unsure) = (&mut self.nodes, &self.claimed, &mut self.unsure);
        self.tree
            .append_root(node, |left, right, parent| {
                if claimed.contains(&left.index) && claimed.contains(&right.index) {
                    unsure.extend([*left, *right]);
                }
                nodes.push(*parent);
            })
            .ok_or(invalid("a node out of its order"))
    }

    fn finish(mut self) -> Self {
        self.nodes.retain(|node| self.unsure.iter().all(|unsure| unsure.index != node.index));
        self
    }
}

fn invalid(what: &'static str) -> PeerMisbehaved {
    PeerMisbehaved::InvalidProof(what)
}
