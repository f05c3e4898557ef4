//! Proofs made: which nodes of the tree answer a request.
//!
//! What a block, a node or an upgrade needs follows from the request and the length alone. Where a seek leads
//! is known only from the sizes of nodes on the way, so a [`Planner`] names the nodes that it has to see
//! and is handed them, until it has a [`Plan`]. All that the plan names is then read at once, and
//! [`Plan::proof`] puts it together. Requests and answers are those of hypercore's `lib/merkle-tree.js`; see
//! `protocol-spec/06-feeds.md`.

use std::collections::HashMap;

use bytes::Bytes;

use crate::{
    error::PeerMisbehaved,
    feed::{
        proof::{
            BlockProof, HashProof, Node, Proof, ProofRequest, SeekProof, SeekRequest, UpgradeProof,
            UpgradeRequest,
        },
        seek::{Descent, nodes_before, unpadded},
        tree::{Position, Tree, filling, full_roots},
    },
};

/// What a [`Planner`] needs, or what it has come to.
///
/// ```
/// use std::collections::HashMap;
/// use party::feed::{proof::{BlockRequest, Node, ProofRequest, SeekRequest}, tree::Tree};
/// use party::feed::prove::{Planner, Planning};
///
/// // Where in four blocks byte 12 is, nobody can tell without having read what is below the root.
/// let node = |index, size| Node { index, size, hash: [0; 32] };
/// let tree = Tree::from_roots(4, vec![node(3, 20)]).unwrap();
/// let hash = Some(BlockRequest { index: 0, nodes: 2 });
/// let seek = Some(SeekRequest { bytes: 12, padding: 0 });
/// let request = ProofRequest { hash, seek, ..ProofRequest::default() };
/// let mut planner = Planner::new(&request, &tree, 0)?.unwrap();
///
/// let stored = HashMap::from([(1, node(1, 10)), (4, node(4, 5))]);
/// let mut read = vec![];
/// let _plan = loop {
///     match planner.poll()? {
///         Planning::Read(indexes) => {
///             read.extend(indexes);
///             planner.handle_nodes(&stored);
///         }
///         Planning::Ready(plan) => break plan,
///         Planning::Unavailable => panic!("all that is needed is stored"),
///     }
/// };
/// assert_eq!(read, [1, 4]); // to the right, and then to the left
/// # Ok::<(), party::error::PeerMisbehaved>(())
/// ```
#[derive(Clone, Debug)]
pub enum Planning {
    /// It needs the nodes with these flat-tree indexes, and goes on with [`Planner::handle_nodes`].
    Read(Vec<u64>),
    /// The nodes that answer the request.
    Ready(Plan),
    /// Nodes that are not stored here would be needed to answer.
    Unavailable,
}

/// An answer to a request in the making.
///
/// ```
/// use party::feed::{proof::{ProofRequest, UpgradeRequest}, prove::{Planner, Planning}, tree::Tree};
///
/// let upgrade = Some(UpgradeRequest { start: 0, length: 1 });
/// let request = ProofRequest { upgrade, ..ProofRequest::default() };
/// // A feed without blocks has nothing to prove.
/// let mut planner = Planner::new(&request, &Tree::default(), 0)?.unwrap();
/// assert!(matches!(planner.poll(), Ok(Planning::Ready(_))));
/// # Ok::<(), party::error::PeerMisbehaved>(())
/// ```
#[derive(Clone, Debug)]
pub struct Planner {
    plan: Plan,
    from: u64,
    to: u64,
    length: u64,
    /// The block or node asked for, and where its path ends if the asker has the tree above it.
    target: Option<(Position, Option<Position>)>,
    upgrade: Option<UpgradeRequest>,
    seek: Seeking,
    /// Nodes as they are stored, as far as they were read.
    read: HashMap<u64, Option<Node>>,
    asked: Vec<u64>,
}

/// How far the search for a seek's offset has come.
#[derive(Clone, Debug)]
enum Seeking {
    /// It is below a node of the tree, if the bytes are.
    Below {
        seek: SeekRequest,
        root: Position,
        before: Vec<Position>,
    },
    /// It is anywhere in the tree that the upgrade leads to.
    Anywhere(SeekRequest),
    Down(Descent),
    /// The node found, if there is one to prove.
    Found(Option<Position>),
}

impl Planner {
    /// Plans the answer to `request` from a feed with this `tree`, the first `prologue` blocks of which are
    /// static. An empty feed answers with no part of what is asked for, as in Node. `None` if the asker knows
    /// no node of our tree above the block, because its own tree is larger.
    ///
    /// # Errors
    /// [`PeerMisbehaved::InvalidRequest`] for what no feed of this length could answer.
    //= FEED-72, FEED-73, FEED-74, FEED-75
    pub fn new(request: &ProofRequest, tree: &Tree, prologue: u64) -> Result<Option<Self>, PeerMisbehaved> {
        let length = tree.length();
        let mut planner = Self {
            plan: Plan::default(),
            from: 0,
            to: length,
            length,
            target: None,
            upgrade: None,
            seek: Seeking::Found(None),
            read: HashMap::new(),
            asked: Vec::new(),
        };
        if length == 0 {
            return Ok(Some(planner));
        }
        // The way from a block up to a node has no root in it, and most requests ask for no more.
        if request.upgrade.is_some() || request.seek.is_some() || request.hash.is_some() {
            planner.read = tree.roots().iter().map(|root| (root.index, Some(*root))).collect();
        }
        if let Some(upgrade) = request.upgrade.map(|upgrade| beyond_prologue(upgrade, prologue)) {
            planner.from = upgrade.start;
            planner.to = upgrade.start.checked_add(upgrade.length).ok_or(invalid("upgrade"))?;
            planner.upgrade = Some(upgrade);
        }
        let (from, to) = (planner.from, planner.to);
        if from >= to || to > length {
            return Err(invalid("upgrade"));
        }
        let mut connected = None;
        if let Some((target, position, levels)) = target(request, to)? {
            planner.plan.target = Some(target);
            // A target in the new part is connected by the upgrade itself.
            if planner.upgrade.is_none() || position.end() <= from {
                let Some(root) = climb(position, levels, to) else { return Ok(None) };
                connected = Some(root);
            } else if request.seek.is_some() {
                return Err(invalid("seek beside a block of the upgrade"));
            }
            planner.target = Some((position, connected));
        }
        if let Some(seek) = request.seek {
            planner.plan.seek.bytes = seek.bytes;
            planner.seek = match (connected, planner.upgrade) {
                (Some(root), _) => {
                    let before = nodes_before(root, length).ok_or(invalid("index"))?;
                    Seeking::Below { seek, root, before }
                }
                (None, Some(_)) => Seeking::Anywhere(seek),
                // Nothing that the asker trusts says below which node it is.
                (None, None) => Seeking::Found(None),
            };
        }
        Ok(Some(planner))
    }

    /// The next step. To be called again after each [`handle_nodes`](Self::handle_nodes), and not after an
    /// error or another step than [`Planning::Read`].
    ///
    /// # Errors
    /// [`PeerMisbehaved::InvalidRequest`] for what no feed of this length could answer.
    pub fn poll(&mut self) -> Result<Planning, PeerMisbehaved> {
        loop {
            let needed: Vec<u64> = match &self.seek {
                Seeking::Below { root, before, .. } => {
                    before.iter().chain([root]).map(|position| position.index()).collect()
                }
                Seeking::Anywhere(_) => full_roots(self.to).map(Position::index).collect(),
                Seeking::Down(descent) => descent.next().into_iter().map(Position::index).collect(),
                Seeking::Found(_) => Vec::new(),
            };
            let missing: Vec<u64> =
                needed.iter().filter(|index| !self.read.contains_key(index)).copied().collect();
            if !missing.is_empty() {
                self.asked.clone_from(&missing);
                return Ok(Planning::Read(missing));
            }
            let nodes: Vec<Option<Node>> =
                needed.iter().map(|index| self.read.get(index).copied().flatten()).collect();
            self.seek = match &mut self.seek {
                Seeking::Found(found) => {
                    let found = *found;
                    return Ok(Planning::Ready(self.finish(found)?));
                }
                Seeking::Down(descent) => match descent.next() {
                    Ok(_) => {
                        descent.handle_left(nodes.first().and_then(Option::as_ref));
                        continue;
                    }
                    Err(stop) => Seeking::Found(stop.position()),
                },
                Seeking::Below { seek, root, before } => {
                    let Some(nodes) = nodes.into_iter().collect::<Option<Vec<Node>>>() else {
                        return Ok(Planning::Unavailable);
                    };
                    let size = |(node, position): (&Node, &Position)| unpadded(node, *position, seek.padding);
                    let start: i128 = nodes.iter().zip(before.iter()).map(size).sum();
                    let rest = i128::from(seek.bytes) - start;
                    if rest < 0 || nodes.last().is_some_and(|node| rest > 0 && size((node, root)) <= rest) {
                        return Err(invalid("seek"));
                    }
                    Seeking::Down(Descent::below(*root, rest, seek.padding))
                }
                Seeking::Anywhere(seek) => {
                    let Some(nodes) = nodes.into_iter().collect::<Option<Vec<Node>>>() else {
                        return Ok(Planning::Unavailable);
                    };
                    Seeking::Down(Descent::from_roots(&nodes, seek.bytes, seek.padding))
                }
            };
        }
    }

    /// The nodes that were asked for; those that are not among them are not stored.
    pub fn handle_nodes(&mut self, stored: &HashMap<u64, Node>) {
        for index in self.asked.drain(..) {
            self.read.insert(index, stored.get(&index).copied());
        }
    }

    fn finish(&mut self, seek: Option<Position>) -> Result<Plan, PeerMisbehaved> {
        let mut plan = std::mem::take(&mut self.plan);
        plan.known = self.read.drain().filter_map(|(index, node)| Some((index, node?))).collect();
        // What is still to be connected by the upgrade.
        let mut pending = None;
        match self.target {
            Some((position, Some(root))) => plan.connect(position, root, seek),
            Some((position, None)) => pending = Some(position),
            None => {}
        }
        let Some(request) = self.upgrade else { return Ok(plan) };
        let target = pending.is_some();
        if self.target.is_none() {
            pending = seek;
        }
        let mut nodes = Vec::new();
        for position in filling(self.from, self.to) {
            match pending.filter(|below| position.contains(*below)) {
                Some(below) if target => plan.connect(below, position, None),
                Some(below) => plan.seek.connect(below, position),
                None => {
                    nodes.push(position.index());
                    continue;
                }
            }
            pending = None;
        }
        if target && pending.is_some() {
            return Err(invalid("node"));
        }
        // Our signature is for the length that we have, whatever the asker has heard of.
        //= REPL-28
        let additional = filling(self.to, self.length).map(Position::index).collect();
        plan.upgrade = Some(UpgradePlan { request, nodes, additional });
        Ok(plan)
    }
}

/// The nodes that answer a request.
///
/// ```
/// use std::collections::HashMap;
/// use bytes::Bytes;
/// use party::feed::{proof::{BlockRequest, Node, ProofRequest}, tree::Tree};
/// use party::feed::prove::{Planner, Planning};
///
/// // Block 1 of two, for a peer that knows the node above both.
/// let node = |index, size| Node { index, size, hash: [0; 32] };
/// let tree = Tree::from_roots(2, vec![node(1, 10)]).unwrap();
/// let block = Some(BlockRequest { index: 1, nodes: 1 });
/// let request = ProofRequest { block, ..ProofRequest::default() };
/// let mut planner = Planner::new(&request, &tree, 0)?.unwrap();
/// let Planning::Ready(plan) = planner.poll()? else { unreachable!("nothing to search for") };
///
/// assert_eq!(plan.block(), Some(1));
/// assert_eq!(plan.nodes().collect::<Vec<_>>(), [0]);
/// let nodes = HashMap::from([(0, node(0, 5))]); // read in one go with the block
/// let proof = plan.proof(0, &nodes, Some("world".into()), &Bytes::new()).unwrap();
/// assert_eq!(proof.block.unwrap().nodes, [node(0, 5)]);
/// # Ok::<(), party::error::PeerMisbehaved>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    target: Option<Target>,
    /// Nodes of the block or hash part, in their order.
    path: Vec<u64>,
    seek: SeekPlan,
    upgrade: Option<UpgradePlan>,
    /// Nodes that were read to make the plan.
    known: HashMap<u64, Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Block(u64),
    Hash(u64),
}

/// Empty where a seek leads to what the rest of the proof has anyway, or to what the asker has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SeekPlan {
    bytes: u64,
    path: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct UpgradePlan {
    request: UpgradeRequest,
    nodes: Vec<u64>,
    additional: Vec<u64>,
}

impl SeekPlan {
    /// The node found, and the siblings on the way from it up to `root`.
    fn connect(&mut self, found: Position, root: Position) {
        self.path = vec![found.index()];
        self.path.extend(siblings(found, root).map(Position::index));
    }
}

impl Plan {
    /// The siblings on the way from `target` up to `root`; for a hash the node itself before them. The one
    /// that is above what a seek has found is left to the seek.
    fn connect(&mut self, target: Position, root: Position, seek: Option<Position>) {
        if let Some(Target::Hash(index)) = self.target {
            self.path.push(index);
        }
        for sibling in siblings(target, root) {
            match seek.filter(|found| sibling != *found && sibling.contains(*found)) {
                Some(found) => self.seek.connect(found, sibling),
                None => self.path.push(sibling.index()),
            }
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
        let all = self.path.iter().chain(&self.seek.path).chain(upgrade).copied();
        all.filter(|index| !self.known.contains_key(index))
    }

    /// Puts the proof together from the [`nodes`](Self::nodes) that were read. `None` if anything is missing.
    pub fn proof(
        &self,
        fork: u64,
        nodes: &HashMap<u64, Node>,
        value: Option<Bytes>,
        signature: &Bytes,
    ) -> Option<Proof> {
        self.proof_of(fork, |index| nodes.get(&index).copied(), value, signature)
    }

    /// As [`proof`](Self::proof), with the nodes wherever they are.
    pub(crate) fn proof_of(
        &self,
        fork: u64,
        node: impl Fn(u64) -> Option<Node>,
        value: Option<Bytes>,
        signature: &Bytes,
    ) -> Option<Proof> {
        let collect = |indexes: &[u64]| -> Option<Vec<Node>> {
            indexes.iter().map(|index| node(*index).or_else(|| self.known.get(index).copied())).collect()
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
        if !self.seek.path.is_empty() {
            proof.seek = Some(SeekProof { bytes: self.seek.bytes, nodes: collect(&self.seek.path)? });
        }
        if let Some(upgrade) = &self.upgrade {
            proof.upgrade = Some(Box::new(UpgradeProof {
                start: upgrade.request.start,
                length: upgrade.request.length,
                nodes: collect(&upgrade.nodes)?,
                additional_nodes: collect(&upgrade.additional)?,
                signature: signature.clone(),
            }));
        }
        Some(proof)
    }
}

/// An upgrade that begins within the prologue begins at 0 and brings the prologue first.
//= FEED-36
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

/// The siblings on the way from `position` up to `root`, lowest first.
fn siblings(position: Position, root: Position) -> impl Iterator<Item = Position> {
    let mut at = Some(position).filter(|position| root.contains(*position));
    std::iter::from_fn(move || {
        let position = at.filter(|position| *position != root)?;
        at = position.parent();
        Some(position.sibling())
    })
}

fn invalid(what: &'static str) -> PeerMisbehaved {
    PeerMisbehaved::InvalidRequest(what)
}
