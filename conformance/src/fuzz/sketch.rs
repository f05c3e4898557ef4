//! Proofs as a fuzzer makes them up: true ones, and such as somebody has changed.

use std::sync::OnceLock;

use arbitrary::Arbitrary;
use bytes::Bytes;
use party::{
    encoding::MAX_SAFE_INTEGER,
    feed::{
        manifest::Manifest,
        proof::{BlockProof, HashProof, Node, Proof, SeekProof, UpgradeProof},
        tree::Tree,
        verify::Verification,
    },
    key::KeyPair,
};

use super::{
    input::Few,
    slow_tree::{SlowVerifier, Truth, family, growth, span},
};

/// Blocks of the feed that all is about.
pub(super) const BLOCKS: u64 = 27;

/// The feed as its writer has it; of the two kinds, both have the same blocks.
pub(super) fn truth(legacy: bool) -> &'static Truth {
    static TRUTHS: OnceLock<[Truth; 2]> = OnceLock::new();
    let truths = TRUTHS.get_or_init(|| {
        let blocks = || (0..BLOCKS).map(|n| Bytes::from(vec![n as u8; (n * 5 % 7) as usize])).collect();
        [Truth::new(false, blocks()), Truth::new(true, blocks())]
    });
    &truths[usize::from(legacy)]
}

/// Where a reader of the feed stands.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct Standing {
    legacy: bool,
    length: u8,
    is_settled: bool,
    /// Which nodes it has stored, beside the roots.
    stored: u16,
}

impl Standing {
    pub(super) fn truth(self) -> &'static Truth {
        truth(self.legacy)
    }

    /// A length that was signed, or 0.
    fn length(self) -> u64 {
        let length = u64::from(self.length) % (BLOCKS + 1);
        if self.truth().signatures.contains_key(&length) { length } else { 0 }
    }

    fn stored(self) -> impl Iterator<Item = Node> {
        let truth = self.truth();
        let is_stored = move |index: &u64| {
            // Whoever has verified a node has the one above it.
            let below = span(*index).is_some_and(|blocks| blocks.end <= self.length());
            below && self.stored >> (index * 7 % 16) & 1 == 1
        };
        (0..2 * BLOCKS).filter(is_stored).filter_map(|index| truth.node(index))
    }

    pub(super) fn slow_verifier(self) -> SlowVerifier<'static> {
        let length = self.length();
        let known = growth(0, length).into_iter().chain(self.stored().map(|node| node.index)).collect();
        // Who has a tree has verified it.
        SlowVerifier { truth: self.truth(), is_settled: self.is_settled || length > 0, length, known }
    }

    pub(super) fn verification(self) -> Verification {
        let (truth, length) = (self.truth(), self.length());
        let tree = if length == 0 { Tree::default() } else { truth.tree(length) };
        let signature = truth.signatures.get(&length).cloned().unwrap_or_default();
        let verifier = (self.is_settled || length > 0).then(|| truth.verifier.clone());
        let stored = self.stored().map(|node| (node.index, node)).collect();
        Verification::new(truth.key, verifier, 0, tree, signature, stored)
    }
}

/// A proof, before somebody changes it: parts that fit where numbers are high, and others where they are low.
#[derive(Arbitrary, Clone, Debug)]
pub(super) struct Sketch {
    target: Target,
    levels: u8,
    seek: Option<(u8, u8)>,
    upgrade: Option<(u8, u8, u8)>,
    manifest: Show,
    pub(super) changes: Few<Change, 3>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Target {
    Nothing,
    Block(u8),
    Hash(u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Show {
    /// If who asks doesn't have it.
    AsNeeded,
    Always,
    Never,
    Another,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Change {
    Index(Part, u8, u8),
    FarIndex(Part, u8, u64),
    Size(Part, u8, i8),
    FarSize(Part, u8, u64),
    /// Bytes moved from one node to the next, so that their sum stays.
    Shift(Part, u8, u8),
    Hash(Part, u8),
    Remove(Part, u8),
    Repeat(Part, u8),
    Swap(Part, u8, u8),
    /// One of the tree's.
    Insert(Part, u8, u8),
    Value(u8),
    Target(u64),
    Upgrade(i8, i8),
    FarUpgrade(u64, u64),
    Signature(u8),
    OtherSignature(u8),
    CutSignature,
    Fork(u64),
    BothTargets(u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Part {
    Block,
    Hash,
    Seek,
    Upgrade,
    Additional,
}

impl Sketch {
    /// The proof for who stands there.
    pub(super) fn proof(&self, at: &SlowVerifier<'_>) -> Proof {
        let truth = at.truth;
        let mut proof = Proof::default();
        // Where a way up may end.
        let mut ends: Vec<u64> = at.known.iter().copied().collect();
        let mut added = Vec::new();
        if let Some((start, length, signed)) = self.upgrade {
            let start = if start < 200 { at.length } else { u64::from(start) % BLOCKS };
            let length = (u64::from(length) % BLOCKS + 1).min(BLOCKS.saturating_sub(start).max(1));
            let signed = (start + length + u64::from(signed) % 8).min(BLOCKS);
            added = growth(start, start + length);
            ends.extend(&added);
            proof.upgrade = Some(Box::new(UpgradeProof {
                start,
                length,
                nodes: vec![],
                additional_nodes: nodes(truth, growth(start + length, signed)),
                signature: truth.signatures.get(&signed).cloned().unwrap_or_default(),
            }));
        }
        let mut way = match self.target {
            Target::Nothing => vec![],
            Target::Block(index) => way(2 * (u64::from(index) % (BLOCKS + 1)), self.levels, &ends),
            Target::Hash(index) => way(u64::from(index) % (2 * BLOCKS), self.levels, &ends),
        };
        let mut top = top(&way);
        if let Some((index, levels)) = self.seek {
            let ends = if way.is_empty() { ends } else { way.clone() };
            let path = self::way(u64::from(index) % (2 * BLOCKS), levels, &ends);
            let end = self::top(&path);
            // Who is led there doesn't get it twice.
            way.retain(|index| Some(*index) != end);
            top = top.or(end);
            proof.seek = Some(SeekProof { bytes: 1, nodes: nodes(truth, path) });
        }
        if let Some(upgrade) = &mut proof.upgrade {
            added.retain(|index| Some(*index) != top);
            upgrade.nodes = nodes(truth, added);
        }
        match self.target {
            Target::Nothing => {}
            Target::Block(index) => {
                let index = u64::from(index) % (BLOCKS + 1);
                let value = truth.blocks.get(index as usize).cloned().unwrap_or_default();
                way.retain(|node| *node != 2 * index);
                proof.block = Some(BlockProof { index, value, nodes: nodes(truth, way) });
            }
            Target::Hash(index) => {
                let index = u64::from(index) % (2 * BLOCKS);
                proof.hash = Some(HashProof { index, nodes: nodes(truth, way) });
            }
        }
        proof.manifest = match self.manifest {
            Show::AsNeeded if at.is_settled => None,
            Show::AsNeeded | Show::Always => Some(truth.verifier.manifest().clone().into()),
            Show::Never => None,
            Show::Another => Some(Manifest::single(KeyPair::from_seed(&[2; 32]).public()).into()),
        };
        for change in &self.changes.0 {
            change.apply(&mut proof, truth);
        }
        proof
    }
}

/// A node and those beside its way up, which has so many levels, or goes to one of `ends`.
fn way(index: u64, levels: u8, ends: &[u64]) -> Vec<u64> {
    let mut way = vec![index];
    let mut at = index;
    let levels = if levels < 100 { levels % 6 } else { 6 };
    let is_end = |index: u64| levels == 6 && ends.contains(&index);
    for _ in 0..levels {
        if is_end(at) {
            break;
        }
        let Some((sibling, above)) = family(at) else { break };
        way.push(sibling);
        at = above;
    }
    way
}

/// Where a way leads.
fn top(way: &[u64]) -> Option<u64> {
    let (first, siblings) = way.split_first()?;
    siblings.iter().try_fold(*first, |at, _| family(at).map(|(_, above)| above))
}

/// Nodes of the tree, and something else where it has none.
fn nodes(truth: &Truth, indexes: Vec<u64>) -> Vec<Node> {
    let any = |index| Node { index, size: 1, hash: [0; 32] };
    indexes.into_iter().map(|index| truth.node(index).unwrap_or(any(index))).collect()
}

impl Part {
    fn of(self, proof: &mut Proof) -> Option<&mut Vec<Node>> {
        match self {
            Self::Block => proof.block.as_mut().map(|block| &mut block.nodes),
            Self::Hash => proof.hash.as_mut().map(|hash| &mut hash.nodes),
            Self::Seek => proof.seek.as_mut().map(|seek| &mut seek.nodes),
            Self::Upgrade => proof.upgrade.as_mut().map(|upgrade| &mut upgrade.nodes),
            Self::Additional => proof.upgrade.as_mut().map(|upgrade| &mut upgrade.additional_nodes),
        }
    }

    fn change(self, proof: &mut Proof, at: u8, change: impl FnOnce(&mut Node)) {
        if let Some(nodes) = self.of(proof).filter(|nodes| !nodes.is_empty()) {
            let at = usize::from(at) % nodes.len();
            change(&mut nodes[at]);
        }
    }
}

impl Change {
    fn apply(self, proof: &mut Proof, truth: &Truth) {
        match self {
            Self::Index(part, at, index) => part.change(proof, at, |node| node.index = index.into()),
            Self::FarIndex(part, at, index) => part.change(proof, at, |node| node.index = index),
            Self::Size(part, at, by) => {
                part.change(proof, at, |node| node.size = node.size.saturating_add_signed(by.into()));
            }
            Self::FarSize(part, at, size) => {
                part.change(proof, at, |node| node.size = size & MAX_SAFE_INTEGER)
            }
            Self::Hash(part, at) => part.change(proof, at, |node| node.hash[0] ^= 1),
            Self::Shift(part, at, by) => {
                if let Some(nodes) = part.of(proof)
                    && let Some(pair) =
                        nodes.get_mut(usize::from(at % 4)..).and_then(<[Node]>::first_chunk_mut::<2>)
                {
                    let by = u64::from(by).min(pair[0].size);
                    pair[0].size -= by;
                    pair[1].size = pair[1].size.saturating_add(by);
                }
            }
            Self::Remove(part, at) => {
                if let Some(nodes) = part.of(proof).filter(|nodes| !nodes.is_empty()) {
                    nodes.remove(usize::from(at) % nodes.len());
                }
            }
            Self::Repeat(part, at) => {
                if let Some(nodes) = part.of(proof).filter(|nodes| !nodes.is_empty()) {
                    let at = usize::from(at) % nodes.len();
                    nodes.insert(at, nodes[at]);
                }
            }
            Self::Swap(part, a, b) => {
                if let Some(nodes) = part.of(proof).filter(|nodes| !nodes.is_empty()) {
                    let count = nodes.len();
                    nodes.swap(usize::from(a) % count, usize::from(b) % count);
                }
            }
            Self::Insert(part, at, index) => {
                if let Some(list) = part.of(proof) {
                    list.splice(usize::from(at) % (list.len() + 1).., nodes(truth, vec![index.into()]))
                        .for_each(drop);
                }
            }
            Self::Value(by) => {
                if let Some(block) = &mut proof.block {
                    let mut value = block.value.to_vec();
                    match by {
                        0 => value.push(0),
                        by => value.iter_mut().take(1).for_each(|byte| *byte ^= by),
                    }
                    block.value = value.into();
                }
            }
            Self::Target(index) => {
                proof.block.iter_mut().for_each(|block| block.index = index);
                proof.hash.iter_mut().for_each(|hash| hash.index = index);
            }
            Self::BothTargets(index) => {
                let index = u64::from(index);
                proof.hash.get_or_insert(HashProof { index, nodes: nodes(truth, vec![index]) });
            }
            Self::Fork(fork) => proof.fork = fork,
            Self::Upgrade(start, length) => {
                if let Some(upgrade) = &mut proof.upgrade {
                    upgrade.start = upgrade.start.saturating_add_signed(start.into());
                    upgrade.length = upgrade.length.saturating_add_signed(length.into());
                }
            }
            Self::FarUpgrade(start, length) => {
                if let Some(upgrade) = &mut proof.upgrade {
                    (upgrade.start, upgrade.length) = (upgrade.start.saturating_add(start), length);
                }
            }
            // The last byte but one is the signature's, whatever stands around that.
            Self::Signature(bits) => Self::sign(proof, |signature| {
                let length = signature.len();
                signature.iter_mut().skip(length.saturating_sub(20)).take(1).for_each(|byte| *byte ^= bits);
            }),
            Self::CutSignature => Self::sign(proof, |signature| signature.truncate(40)),
            Self::OtherSignature(length) => {
                let other = truth.signatures.get(&(u64::from(length) % BLOCKS)).cloned().unwrap_or_default();
                Self::sign(proof, |signature| *signature = other.to_vec());
            }
        }
    }

    fn sign(proof: &mut Proof, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(upgrade) = &mut proof.upgrade {
            let mut signature = upgrade.signature.to_vec();
            change(&mut signature);
            upgrade.signature = signature.into();
        }
    }
}
