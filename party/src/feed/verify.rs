//! Proofs checked.
//!
//! This happens in two steps. [`hash_proofs`] climbs from each block to the highest node that its proof can
//! compute: pure hashing, for many proofs side by side, and with no regard to the feed. [`Verification`]
//! then goes through them in their order and compares those nodes with what is known: the nodes stored, a
//! signed upgrade in the same proof, and what earlier proofs of the batch have shown. Nothing leaves here
//! but [`VerifiedProof`]s. The rules are those of hypercore's `lib/merkle-tree.js` and `core.js`; see
//! `protocol-spec/06-feeds.md`.
//!
//! In one thing we are stricter. A parent's hash covers the sum of its children's sizes only. Where a peer
//! supplies both children it can shift bytes from one to the other and everything still verifies. Such a
//! pair is checked but not stored, for what we serve from it would fail at the next peer.

use std::collections::HashMap;

use bytes::Bytes;

use crate::{
    error::PeerMisbehaved,
    feed::{
        manifest::Manifest,
        proof::{Node, Proof, UpgradeProof},
        tree::{Position, Tree, filling, leaf_hashes, parents},
        verifier::Verifier,
    },
    key::FeedKey,
};

/// A proof whose own hashes have been computed; nothing about it is verified yet.
#[derive(Debug)]
pub struct HashedProof {
    fork: u64,
    /// The block, to be stored under its index.
    block: Option<(u64, Bytes)>,
    /// The highest node that the block or hash part leads to.
    top: Option<Node>,
    /// What may be stored once `top` has turned out to be right.
    nodes: Vec<Node>,
    /// `top` came from the peer as it is.
    claimed: bool,
    upgrade: Option<UpgradeProof>,
    manifest: Option<Manifest>,
}

impl HashedProof {
    /// The index of the node that has to be known for this proof to verify, if there is one.
    pub fn needs(&self) -> Option<u64> {
        self.top.map(|node| node.index)
    }
}

/// On the way up from a leaf or node.
struct Climb<'a> {
    n: usize,
    position: Position,
    top: Node,
    siblings: std::slice::Iter<'a, Node>,
    nodes: Vec<Node>,
    /// Both children of the next parent come from the peer.
    claimed: bool,
}

/// Computes the hashes of many proofs, side by side.
///
/// # Errors
/// For each proof on its own, [`PeerMisbehaved::InvalidProof`] if its nodes are not those that its block
/// needs.
pub fn hash_proofs(proofs: Vec<Proof>) -> Vec<Result<HashedProof, PeerMisbehaved>> {
    let mut leaves =
        leaf_hashes(proofs.iter().filter_map(|proof| proof.block.as_ref()).map(|block| block.value.as_ref()))
            .into_iter();
    let mut errors: Vec<Option<PeerMisbehaved>> = vec![None; proofs.len()];
    let mut climbs = Vec::with_capacity(proofs.len());
    for (n, proof) in proofs.iter().enumerate() {
        match Climb::begin(n, proof, &mut leaves) {
            Ok(climb) => climbs.extend(climb),
            Err(error) => errors[n] = Some(error),
        }
    }
    let mut done = Vec::with_capacity(climbs.len());
    while !climbs.is_empty() {
        let mut climbing = Vec::with_capacity(climbs.len());
        let mut pairs = Vec::with_capacity(climbs.len());
        for mut climb in climbs {
            match climb.siblings.next() {
                None => done.push(climb),
                Some(sibling) if sibling.index == climb.position.sibling().index() => {
                    pairs.push((climb.top, *sibling));
                    climbing.push(climb);
                }
                Some(_) => errors[climb.n] = Some(invalid("a node out of its order")),
            }
        }
        for (climb, ((_, sibling), parent)) in climbing.iter_mut().zip(pairs.iter().zip(parents(&pairs))) {
            match (parent, climb.position.parent()) {
                (Some(parent), Some(position)) => climb.up(*sibling, parent, position),
                _ => errors[climb.n] = Some(invalid("beyond the largest feed")),
            }
        }
        climbing.retain(|climb| errors[climb.n].is_none());
        climbs = climbing;
    }
    let mut tops: HashMap<usize, (Node, Vec<Node>, bool)> =
        done.into_iter().map(|climb| (climb.n, (climb.top, climb.nodes, climb.claimed))).collect();
    proofs
        .into_iter()
        .zip(errors)
        .enumerate()
        .map(|(n, (proof, error))| {
            if let Some(error) = error {
                return Err(error);
            }
            let (top, nodes, claimed) = match tops.remove(&n) {
                Some((top, nodes, claimed)) => (Some(top), nodes, claimed),
                None => (None, Vec::new(), false),
            };
            Ok(HashedProof {
                fork: proof.fork,
                block: proof.block.map(|block| (block.index, block.value)),
                top,
                nodes,
                claimed,
                upgrade: proof.upgrade,
                manifest: proof.manifest,
            })
        })
        .collect()
}

impl<'a> Climb<'a> {
    fn begin(
        n: usize,
        proof: &'a Proof,
        leaves: &mut impl Iterator<Item = crate::hash::Hash>,
    ) -> Result<Option<Self>, PeerMisbehaved> {
        // Taken first, so that the hashes of later blocks stay in step.
        let leaf = proof.block.as_ref().and_then(|_| leaves.next());
        if proof.seek.as_ref().is_some_and(|seek| !seek.nodes.is_empty()) {
            return Err(invalid("a seek that was not asked for"));
        }
        if let (Some(block), Some(hash)) = (&proof.block, leaf) {
            let position = Position::leaf(block.index).ok_or(invalid("a block beyond the largest feed"))?;
            let top = Node { index: position.index(), size: block.value.len() as u64, hash };
            let siblings = block.nodes.iter();
            return Ok(Some(Self { n, position, top, siblings, nodes: vec![top], claimed: false }));
        }
        let Some(hash) = &proof.hash else { return Ok(None) };
        let position = Position::from_index(hash.index).ok_or(invalid("a node beyond the largest feed"))?;
        let mut siblings = hash.nodes.iter();
        let top = *siblings.next().ok_or(invalid("a hash without its node"))?;
        if top.index != hash.index {
            return Err(invalid("a node out of its order"));
        }
        Ok(Some(Self { n, position, top, siblings, nodes: Vec::new(), claimed: true }))
    }

    fn up(&mut self, sibling: Node, parent: Node, position: Position) {
        if !self.claimed {
            self.nodes.push(sibling);
        }
        self.claimed = false;
        self.nodes.push(parent);
        self.top = parent;
        self.position = position;
    }
}

/// A proof that holds. Only [`Verification::verify`] makes one.
#[derive(Clone, Debug)]
pub struct VerifiedProof {
    block: Option<(u64, Bytes)>,
    nodes: Vec<Node>,
    length: Option<u64>,
    manifest: bool,
    stale: bool,
}

impl VerifiedProof {
    /// The block that was proved, with its index.
    pub fn block(&self) -> Option<(u64, &Bytes)> {
        self.block.as_ref().map(|(index, value)| (*index, value))
    }

    /// The nodes of the tree that were proved.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
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
}

/// A feed's signed state, against which proofs are verified one after the other; each that holds is part of
/// what the next is verified against.
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
        let mut verified =
            VerifiedProof { block: None, nodes: Vec::new(), length: None, manifest: false, stale: true };
        if proof.fork != self.fork {
            return Ok(verified);
        }
        let learned = self.learn(&proof)?;
        let mut top = proof.top;
        let mut nodes = proof.nodes;
        let upgrade = match &proof.upgrade {
            Some(upgrade) => self.grow(upgrade, &mut top, proof.claimed, learned.as_ref())?,
            None => None,
        };
        if let Some(top) = top {
            match self.known.get(&top.index) {
                Some(known) if known.hash == top.hash && known.size == top.size => {}
                Some(_) => return Err(invalid("a block or node that is not in the tree")),
                None if upgrade.is_none() && proof.upgrade.is_some() => return Ok(verified),
                None => return Err(invalid("a node that does not lead to a known one")),
            }
        }
        verified.stale = upgrade.is_none() && proof.block.is_none() && nodes.is_empty() && learned.is_none();
        if let Some(upgrade) = upgrade {
            verified.length = Some(upgrade.tree.length());
            nodes.extend(upgrade.nodes);
            self.tree = upgrade.tree;
            self.signature = upgrade.signature;
            self.upgraded = true;
        }
        if let Some(verifier) = learned {
            self.verifier = Some(verifier);
            self.learned = true;
            verified.manifest = true;
        }
        self.known.extend(nodes.iter().map(|node| (node.index, *node)));
        verified.nodes = nodes;
        verified.block = proof.block;
        Ok(verified)
    }

    /// The verifier that this proof brings, if it brings one that we don't have. A manifest that is the key
    /// itself proves nothing, so a legacy feed is known by its first signature only.
    //= protocol-spec/06-feeds.md#manifests
    fn learn(&self, proof: &HashedProof) -> Result<Option<Verifier>, PeerMisbehaved> {
        if self.verifier.is_some() {
            return Ok(None);
        }
        let verifier = match &proof.manifest {
            Some(manifest) => Verifier::new(self.key, manifest.clone())?,
            None => Verifier::legacy(self.key),
        };
        Ok(Some(verifier).filter(|verifier| proof.upgrade.is_some() || !verifier.is_legacy()))
    }

    /// Grows the tree by an upgrade, with `top` as one of its nodes where it fits. `None` if the upgrade
    /// starts in the past.
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
    unsure: Vec<u64>,
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
                    unsure.extend([left.index, right.index]);
                }
                nodes.push(*parent);
            })
            .ok_or(invalid("a node out of its order"))
    }

    fn finish(mut self) -> Self {
        self.nodes.retain(|node| !self.unsure.contains(&node.index));
        self
    }
}

fn invalid(what: &'static str) -> PeerMisbehaved {
    PeerMisbehaved::InvalidProof(what)
}
