//! A Merkle tree computed from all blocks, and a verifier that holds a proof against it: neither hashes anything on the
//! way, for what a proof says is in the tree or it isn't.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use bytes::Bytes;
use party::{
    encoding::MAX_SAFE_INTEGER,
    feed::{
        manifest::Manifest,
        proof::{Node, Proof, UpgradeProof},
        tree::{MAX_LENGTH, Tree},
        verifier::Verifier,
    },
    hash::hash,
    key::{FeedKey, KeyPair},
};

/// The blocks below a node of the flat tree; `None` if there can be no such node.
pub(super) fn span(index: u64) -> Option<Range<u64>> {
    let depth = index.trailing_ones();
    if index > MAX_SAFE_INTEGER || depth > 52 {
        return None;
    }
    let start = index >> (depth + 1) << depth;
    let end = start + (1 << depth);
    (end <= MAX_LENGTH).then_some(start..end)
}

/// The node with just these blocks below it, which are as many as a power of two.
fn over(blocks: &Range<u64>) -> u64 {
    blocks.start + blocks.end - 1
}

/// The node beside another, and the one above both.
pub(super) fn family(index: u64) -> Option<(u64, u64)> {
    let Range { start, end } = span(index)?;
    let size = end - start;
    let (sibling, parent) = if start / size % 2 == 0 {
        (end..end + size, start..end + size)
    } else {
        (start - size..start, start - size..end)
    };
    (parent.end <= MAX_LENGTH).then(|| (over(&sibling), over(&parent)))
}

/// The largest trees that take a feed of `from` blocks to `to`, one after the other.
pub(super) fn growth(from: u64, to: u64) -> Vec<u64> {
    let mut nodes = Vec::new();
    let mut start = from;
    while start < to {
        let mut size = 1;
        while start.is_multiple_of(2 * size) && start + 2 * size <= to {
            size *= 2;
        }
        nodes.push(over(&(start..start + size)));
        start += size;
    }
    nodes
}

/// A feed as its writer knows it.
pub(super) struct Truth {
    pub(super) key: FeedKey,
    pub(super) verifier: Verifier,
    pub(super) blocks: Vec<Bytes>,
    nodes: BTreeMap<u64, Node>,
    /// What the writer has signed, by length.
    pub(super) signatures: BTreeMap<u64, Bytes>,
}

impl Truth {
    /// Signed at each length but every fifth.
    pub(super) fn new(legacy: bool, blocks: Vec<Bytes>) -> Self {
        let writer = KeyPair::from_seed(&[1; 32]);
        let verifier = if legacy {
            Verifier::legacy(FeedKey::from_bytes(*writer.public().as_bytes()))
        } else {
            let manifest = Manifest::single(writer.public());
            Verifier::new(manifest.key(), manifest).expect("a good manifest")
        };
        let (key, nodes, signatures) = (verifier.key(), BTreeMap::new(), BTreeMap::new());
        let mut truth = Self { key, verifier, blocks, nodes, signatures };
        let length = truth.blocks.len() as u64;
        truth.nodes = (0..2 * length).filter_map(|index| Some((index, truth.compute(index)?))).collect();
        for length in (1..=length).filter(|length| length % 5 != 0) {
            let signature = truth.verifier.sign(&writer, &truth.tree(length), 0).expect("it is the writer's");
            truth.signatures.insert(length, signature);
        }
        truth
    }

    fn compute(&self, index: u64) -> Option<Node> {
        let Range { start, end } = span(index)?;
        if end > self.blocks.len() as u64 {
            return None;
        }
        if end - start == 1 {
            let block = &self.blocks[start as usize];
            let size = block.len() as u64;
            return Some(Node { index, size, hash: hash(&[&[0], &size.to_le_bytes(), block]) });
        }
        let middle = start.midpoint(end);
        let (left, right) = (self.compute(over(&(start..middle)))?, self.compute(over(&(middle..end)))?);
        let size = left.size + right.size;
        Some(Node { index, size, hash: hash(&[&[1], &size.to_le_bytes(), &left.hash, &right.hash]) })
    }

    /// A node, if the feed is long enough to have it.
    pub(super) fn node(&self, index: u64) -> Option<Node> {
        self.nodes.get(&index).copied()
    }

    /// The tree as it was at this length.
    pub(super) fn tree(&self, length: u64) -> Tree {
        let roots = growth(0, length).into_iter().filter_map(|index| self.node(index)).collect();
        Tree::from_roots(length, roots).expect("these are its roots")
    }

    fn is_true(&self, node: &Node) -> bool {
        self.node(node.index) == Some(*node)
    }
}

/// What is to become of a proof.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) block: Option<u64>,
    pub(super) length: Option<u64>,
    /// The nodes that are learned from it.
    pub(super) nodes: BTreeSet<u64>,
    pub(super) manifest: bool,
    /// It is of another fork, or of the past.
    pub(super) stale: bool,
}

/// Why nothing becomes of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Wrong,
    /// It rests on what is not known.
    Unconnected,
}

/// A node as the prover gives it or as it follows from what he gives.
#[derive(Clone, Copy, Debug)]
struct Given {
    index: u64,
    size: u64,
    /// Whether its hash is the one in the tree. Of a node that was computed, this says that its size is, too.
    is_true: bool,
    /// The prover gives it as it is.
    is_claimed: bool,
}

/// Who has the feed in part.
pub(super) struct SlowVerifier<'a> {
    pub(super) truth: &'a Truth,
    /// Whether the manifest is known.
    pub(super) is_settled: bool,
    pub(super) length: u64,
    pub(super) known: BTreeSet<u64>,
}

/// Where a part of the proof leads to, and what is learned if that is right.
struct Way {
    top: Given,
    learned: BTreeSet<u64>,
}

impl SlowVerifier<'_> {
    pub(super) fn check(&mut self, proof: &Proof) -> Result<Verdict, Refused> {
        let way = self.way(proof).ok_or(Refused::Wrong)?;
        let mut verdict = Verdict::default();
        if proof.fork != 0 {
            return Ok(Verdict { stale: true, ..verdict });
        }
        let legacy = self.truth.verifier.is_legacy();
        let mut can_verify = self.is_settled;
        if !self.is_settled {
            can_verify = match proof.manifest.as_deref() {
                Some(manifest) => {
                    // The one manifest that leads to the key; of a legacy feed it means nothing.
                    if manifest != self.truth.verifier.manifest() {
                        return Err(Refused::Wrong);
                    }
                    true
                }
                None => legacy,
            };
            verdict.manifest = can_verify && (!legacy || proof.upgrade.is_some());
        }
        let (mut top, mut learned) = way.map_or((None, BTreeSet::new()), |way| (Some(way.top), way.learned));
        if let Some(upgrade) = &proof.upgrade {
            if upgrade.length > 0 && upgrade.start > self.length {
                return Err(Refused::Unconnected);
            }
            if !can_verify || upgrade.length == 0 || upgrade.start.checked_add(upgrade.length).is_none() {
                return Err(Refused::Wrong);
            }
            if upgrade.start == self.length {
                let (length, nodes) = self.grow(upgrade, &mut top).ok_or(Refused::Wrong)?;
                verdict.length = Some(length);
                learned.extend(nodes);
            }
        }
        if let Some(top) = top {
            let is_late = proof.upgrade.as_ref().is_some_and(|upgrade| upgrade.start < self.length);
            if !self.known.contains(&top.index) {
                return if is_late {
                    Ok(Verdict { stale: true, ..Verdict::default() })
                } else {
                    Err(Refused::Unconnected)
                };
            }
            if !self.agrees(&top) {
                return Err(Refused::Wrong);
            }
        }
        verdict.block = proof.block.as_ref().map(|block| block.index);
        verdict.stale =
            verdict.length.is_none() && verdict.block.is_none() && learned.is_empty() && !verdict.manifest;
        verdict.nodes = learned.into_iter().filter(|index| self.known.insert(*index)).collect();
        self.is_settled |= verdict.manifest;
        self.length = verdict.length.unwrap_or(self.length);
        Ok(verdict)
    }

    fn claimed(&self, node: &Node) -> Given {
        let is_true = self.truth.node(node.index).is_some_and(|known| known.hash == node.hash);
        Given { index: node.index, size: node.size, is_true, is_claimed: true }
    }

    fn agrees(&self, node: &Given) -> bool {
        node.is_true && self.truth.node(node.index).is_some_and(|known| known.size == node.size)
    }

    /// The node above two siblings; `None` if there is none, or if no feed has so many bytes.
    fn above(&self, a: &Given, b: &Given) -> Option<Given> {
        let (sibling, index) = family(a.index)?;
        let size = a.size.checked_add(b.size).filter(|size| *size <= MAX_SAFE_INTEGER)?;
        // Its hash is made of theirs and of the sum of their sizes.
        let is_true =
            a.is_true && b.is_true && self.truth.node(index).is_some_and(|known| known.size == size);
        (b.index == sibling).then_some(Given { index, size, is_true, is_claimed: false })
    }

    /// Where the block or hash and the seek lead; `None` in `Some` if there is no such part.
    #[allow(clippy::option_option, reason = "wrong, nothing there, or a way")]
    fn way(&self, proof: &Proof) -> Option<Option<Way>> {
        let mut seek = match proof.seek.as_ref().and_then(|seek| seek.nodes.split_first()) {
            Some((first, rest)) => {
                span(first.index)?;
                Some(self.climb(self.claimed(first), rest, &mut None)?)
            }
            None => None,
        };
        let mut sought = seek.as_ref().map(|way| way.top);
        let (first, rest) = if let Some(block) = &proof.block {
            let blocks = block.index..block.index.checked_add(1).filter(|end| *end <= MAX_LENGTH)?;
            let index = over(&blocks);
            let is_true = self.truth.blocks.get(block.index as usize) == Some(&block.value);
            let size = block.value.len() as u64;
            (Given { index, size, is_true, is_claimed: false }, block.nodes.as_slice())
        } else if let Some(hash) = &proof.hash {
            span(hash.index)?;
            match sought.take_if(|top| top.index == hash.index) {
                Some(top) => (top, hash.nodes.as_slice()),
                None => {
                    let (first, rest) = hash.nodes.split_first()?;
                    (self.claimed(first), rest)
                }
            }
        } else {
            return Some(seek);
        };
        let is_hash = proof.block.is_none();
        if is_hash && proof.hash.as_ref().is_some_and(|hash| hash.index != first.index) {
            return None;
        }
        let mut way = self.climb(first, rest, &mut sought)?;
        if sought.is_some() {
            return None;
        }
        way.learned.extend(seek.take().into_iter().flat_map(|way| way.learned));
        Some(Some(way))
    }

    /// Up from a node as far as there are siblings, `sought` among them.
    fn climb(&self, first: Given, siblings: &[Node], sought: &mut Option<Given>) -> Option<Way> {
        let mut way = Way { top: first, learned: BTreeSet::new() };
        if !first.is_claimed {
            way.learned.insert(first.index);
        }
        let mut siblings = siblings.iter();
        loop {
            let beside = family(way.top.index).map(|(sibling, _)| sibling);
            let sibling = match sought.take_if(|top| Some(top.index) == beside) {
                Some(top) => top,
                None => match siblings.next() {
                    Some(node) => self.claimed(node),
                    None => return Some(way),
                },
            };
            let above = self.above(&way.top, &sibling)?;
            // Of two that are claimed, only the sum of the sizes is proved.
            if !way.top.is_claimed || !sibling.is_claimed {
                way.learned.extend([way.top.index, sibling.index]);
            }
            way.learned.insert(above.index);
            way.top = above;
        }
    }

    /// The length that an upgrade from ours leads to, and the nodes learned. Takes `top` where it is one of its nodes.
    fn grow(&self, upgrade: &UpgradeProof, top: &mut Option<Given>) -> Option<(u64, BTreeSet<u64>)> {
        let end = upgrade.start + upgrade.length;
        // More trees than a feed is ever made of are not in the proof.
        if end > MAX_LENGTH {
            return None;
        }
        let mut nodes = upgrade.nodes.iter();
        let mut added = Vec::new();
        for index in growth(upgrade.start, end) {
            let node = match top.take_if(|top| top.index == index) {
                Some(node) => node,
                None => self.claimed(nodes.next()?),
            };
            if node.index != index {
                return None;
            }
            added.push(node);
        }
        if nodes.next().is_some() {
            return None;
        }
        added.extend(upgrade.additional_nodes.iter().map(|node| self.claimed(node)));

        let mut roots: Vec<Given> = growth(0, self.length)
            .into_iter()
            .filter_map(|index| self.truth.node(index))
            .map(|node| Given { is_claimed: false, ..self.claimed(&node) })
            .collect();
        let (mut length, mut learned, mut unsure) = (self.length, BTreeSet::new(), BTreeSet::new());
        for node in added {
            let blocks = span(node.index)?;
            if blocks.start != length {
                return None;
            }
            length = blocks.end;
            learned.insert(node.index);
            roots.push(node);
            let bytes = roots.iter().try_fold(0_u64, |sum, root| sum.checked_add(root.size));
            bytes.filter(|bytes| *bytes <= MAX_SAFE_INTEGER)?;
            while let [.., left, right] = roots[..]
                && family(right.index).is_some_and(|(sibling, _)| sibling == left.index)
            {
                let above = self.above(&left, &right)?;
                if left.is_claimed && right.is_claimed {
                    unsure.extend([left.index, right.index]);
                }
                learned.insert(above.index);
                roots.truncate(roots.len() - 2);
                roots.push(above);
            }
        }
        let is_signed = self.truth.signatures.get(&length) == Some(&upgrade.signature);
        let is_true = is_signed && roots.iter().all(|root| self.agrees(root));
        is_true.then(|| (length, &learned - &unsure))
    }

    /// Whether all of these nodes are in the tree as they are.
    pub(super) fn has(&self, nodes: &[Node]) -> bool {
        nodes.iter().all(|node| self.truth.is_true(node))
    }
}
