//! Proofs made: which nodes of the tree answer a request.
//!
//! What is needed follows from the request and the length alone, so a [`Plan`] is made first, all that it
//! names is read at once, and [`Plan::proof`] puts it together. Requests and answers are those of
//! hypercore's `lib/merkle-tree.js`; see `protocol-spec/06-feeds.md`.

use std::collections::HashMap;

use bytes::Bytes;

use crate::{
    error::PeerMisbehaved,
    feed::{
        proof::{BlockProof, HashProof, Node, Proof, ProofRequest, UpgradeProof, UpgradeRequest},
        tree::{Position, filling},
    },
};

/// The nodes that answer a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    target: Option<Target>,
    /// Nodes of the block or hash part, in their order.
    path: Vec<u64>,
    upgrade: Option<UpgradePlan>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Block(u64),
    Hash(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct UpgradePlan {
    request: UpgradeRequest,
    nodes: Vec<u64>,
    additional: Vec<u64>,
}

impl Plan {
    /// Plans the answer to `request` from a feed of `length` blocks, the first `prologue` of which are
    /// static. An empty feed answers with no part of what is asked for, as in Node. `None` if the asker knows
    /// no node of our tree above the block, because its own tree is larger.
    ///
    /// # Errors
    /// [`PeerMisbehaved::InvalidRequest`] for what no feed of this length could answer.
    pub fn new(request: &ProofRequest, length: u64, prologue: u64) -> Result<Option<Self>, PeerMisbehaved> {
        if length == 0 {
            return Ok(Some(Self::default()));
        }
        let upgrade = request.upgrade.map(|upgrade| beyond_prologue(upgrade, prologue));
        let (from, to) = match upgrade {
            Some(upgrade) => {
                (upgrade.start, upgrade.start.checked_add(upgrade.length).ok_or(invalid("upgrade"))?)
            }
            None => (0, length),
        };
        if from >= to || to > length {
            return Err(invalid("upgrade"));
        }
        let mut plan = Self::default();
        // A target in the new part is connected by the upgrade itself.
        let mut pending = None;
        if let Some((target, position, levels)) = target(request, to)? {
            plan.target = Some(target);
            if upgrade.is_none() || position.end() <= from {
                let Some(root) = climb(position, levels, to) else { return Ok(None) };
                plan.connect(position, root);
            } else {
                pending = Some(position);
            }
        }
        if let Some(request) = upgrade {
            let mut nodes = Vec::new();
            for position in filling(from, to) {
                match pending.filter(|target| position.contains(*target)) {
                    Some(target) => {
                        plan.connect(target, position);
                        pending = None;
                    }
                    None => nodes.push(position.index()),
                }
            }
            let additional = filling(to, length).map(Position::index).collect();
            plan.upgrade = Some(UpgradePlan { request, nodes, additional });
        }
        if pending.is_some() {
            return Err(invalid("node"));
        }
        Ok(Some(plan))
    }

    /// The siblings on the way from `target` up to `root`; for a hash the node itself before them.
    fn connect(&mut self, target: Position, root: Position) {
        if let Some(Target::Hash(index)) = self.target {
            self.path.push(index);
        }
        let mut position = target;
        while position != root {
            self.path.push(position.sibling().index());
            let Some(parent) = position.parent() else { break };
            position = parent;
        }
    }

    /// The block to read.
    pub fn block(&self) -> Option<u64> {
        match self.target {
            Some(Target::Block(index)) => Some(index),
            _ => None,
        }
    }

    /// The flat-tree indexes of the nodes to read.
    pub fn nodes(&self) -> impl Iterator<Item = u64> {
        let upgrade = self.upgrade.iter().flat_map(|upgrade| upgrade.nodes.iter().chain(&upgrade.additional));
        self.path.iter().chain(upgrade).copied()
    }

    /// Puts the proof together from what was read. `None` if anything is missing.
    pub fn proof(
        self,
        fork: u64,
        nodes: &HashMap<u64, Node>,
        value: Option<Bytes>,
        signature: &Bytes,
    ) -> Option<Proof> {
        let collect = |indexes: &[u64]| -> Option<Vec<Node>> {
            indexes.iter().map(|index| nodes.get(index).copied()).collect()
        };
        let mut proof = Proof { fork, ..Proof::default() };
        match self.target {
            Some(Target::Block(index)) => {
                proof.block = Some(BlockProof { index, value: value?, nodes: collect(&self.path)? });
            }
            Some(Target::Hash(index)) => {
                proof.hash = Some(HashProof { index, nodes: collect(&self.path)? });
            }
            None => {}
        }
        if let Some(upgrade) = self.upgrade {
            proof.upgrade = Some(UpgradeProof {
                start: upgrade.request.start,
                length: upgrade.request.length,
                nodes: collect(&upgrade.nodes)?,
                additional_nodes: collect(&upgrade.additional)?,
                signature: signature.clone(),
            });
        }
        Some(proof)
    }
}

/// An upgrade that begins within the prologue begins at 0 and brings the prologue first.
fn beyond_prologue(upgrade: UpgradeRequest, prologue: u64) -> UpgradeRequest {
    if upgrade.start >= prologue { upgrade } else { UpgradeRequest { start: 0, length: prologue } }
}

fn target(request: &ProofRequest, to: u64) -> Result<Option<(Target, Position, u64)>, PeerMisbehaved> {
    let (target, position, levels) = match (request.block, request.hash) {
        (Some(block), _) => (Target::Block(block.index), Position::leaf(block.index), block.nodes),
        (None, Some(hash)) => (Target::Hash(hash.index), Position::from_index(hash.index), hash.nodes),
        (None, None) => return Ok(None),
    };
    let position = position.filter(|position| position.end() <= to).ok_or(invalid("index"))?;
    Ok(Some((target, position, levels)))
}

/// The node `levels` above `position`, if it is in a tree of `length` blocks.
fn climb(position: Position, levels: u64, length: u64) -> Option<Position> {
    (0..levels).try_fold(position, |position, _| position.parent().filter(|parent| parent.end() <= length))
}

fn invalid(what: &'static str) -> PeerMisbehaved {
    PeerMisbehaved::InvalidRequest(what)
}
