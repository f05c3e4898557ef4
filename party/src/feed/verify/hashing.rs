//! Hashes of proofs computed, many side by side: from each block or node to the highest one that the proof leads to.

use bytes::Bytes;

use super::invalid;
use crate::{
    error::PeerMisbehaved,
    feed::{
        manifest::Manifest,
        proof::{Node, Proof, UpgradeProof},
        tree::{Position, leaf_hashes, parents},
    },
    hash::Hash,
};

/// A proof whose own hashes have been computed; nothing about it is verified yet.
///
/// ```
/// use party::feed::{proof::{BlockProof, Proof}, verify::hash_proofs};
///
/// // A block alone leads to its leaf and no further.
/// let block = |index| Some(BlockProof { index, value: "x".into(), nodes: vec![] });
/// let proofs = [3, 4].map(|index| Proof { block: block(index), ..Proof::default() });
/// let needed: Vec<_> =
///     hash_proofs(proofs.to_vec()).iter().flatten().filter_map(|proof| proof.needs()).collect();
/// assert_eq!(needed, [6, 8]); // to be read, and handed to `Verification::new`
/// ```
#[derive(Debug)]
pub struct HashedProof {
    pub(super) fork: u64,
    /// The block, to be stored under its index.
    pub(super) block: Option<(u64, Bytes)>,
    pub(super) climbed: Climbed,
    pub(super) upgrade: Option<Box<UpgradeProof>>,
    pub(super) manifest: Option<Box<Manifest>>,
}

/// Where the block or hash part of a proof leads to, together with the seek part.
#[derive(Debug, Default)]
pub(super) struct Climbed {
    /// The highest node, if there is such a part.
    pub(super) top: Option<Node>,
    /// What may be stored once `top` has turned out to be right.
    pub(super) nodes: Vec<Node>,
    /// Those whose hashes are then right too, and whose sizes are still the peer's word.
    pub(super) unsure: Vec<Node>,
    /// `top` came from the peer as it is.
    pub(super) claimed: bool,
}

impl HashedProof {
    /// The index of the node that has to be known for this proof to verify, if there is one.
    pub fn needs(&self) -> Option<u64> {
        self.climbed.top.map(|node| node.index)
    }

    /// The nodes that others may rest on, if it verifies.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))]
    pub(super) fn brings(&self) -> impl Iterator<Item = u64> {
        let top = self.needs();
        self.climbed.nodes.iter().map(|node| node.index).filter(move |index| Some(*index) != top)
    }

    /// Leaves out its upgrade: what else it has must stand without that.
    pub(crate) fn without_upgrade(self) -> Self {
        Self { upgrade: None, ..self }
    }
}

/// A node on the way up.
#[derive(Clone, Copy)]
struct Step {
    node: Node,
    /// It came from the peer as it is; it was not computed.
    claimed: bool,
}

/// On the way up from a leaf or node.
struct Climb<'a> {
    position: Position,
    top: Node,
    siblings: std::slice::Iter<'a, Node>,
    /// Where the seek part has led, which stands for one of the siblings.
    seek: Option<Step>,
    nodes: Vec<Node>,
    unsure: Vec<Node>,
    /// `top` is from the peer. If its sibling is too, only the sum of their sizes is proved.
    claimed: bool,
}

/// Computes the hashes of many proofs, side by side.
///
/// # Errors
/// For each proof on its own, [`PeerMisbehaved::InvalidProof`] if its nodes are not those that its block, hash
/// or seek needs.
pub fn hash_proofs(proofs: Vec<Proof>) -> Vec<Result<HashedProof, PeerMisbehaved>> {
    let mut leaves =
        leaf_hashes(proofs.iter().filter_map(|proof| proof.block.as_ref()).map(|block| block.value.as_ref()))
            .into_iter();
    let mut seeks: Vec<_> = proofs.iter().map(Climb::begin_seek).collect();
    climb(&mut seeks);
    let mut climbs: Vec<_> =
        proofs.iter().zip(seeks).map(|(proof, seek)| Climb::begin(proof, &mut leaves, seek)).collect();
    climb(&mut climbs);

    let climbed: Vec<_> = climbs.into_iter().map(|climb| Ok(climb?.map(Climb::finish))).collect();
    proofs
        .into_iter()
        .zip(climbed)
        .map(|(proof, climbed): (_, Result<_, PeerMisbehaved>)| {
            let climbed = climbed?.unwrap_or_default();
            Ok(HashedProof {
                fork: proof.fork,
                block: proof.block.map(|block| (block.index, block.value)),
                climbed,
                upgrade: proof.upgrade,
                manifest: proof.manifest,
            })
        })
        .collect()
}

/// Climbs as far as the nodes of each proof lead.
fn climb(climbs: &mut [Result<Option<Climb<'_>>, PeerMisbehaved>]) {
    // Proofs of neighbouring blocks meet on their way up. Side by side they come to the same pair one after
    // the other, and its parent is hashed once.
    let mut climbing: Vec<&mut Result<Option<Climb<'_>>, _>> =
        climbs.iter_mut().filter(|climb| matches!(climb, Ok(Some(_)))).collect();
    climbing.sort_by_key(|climb| climb.as_ref().ok().and_then(Option::as_ref).map(|climb| climb.top.index));
    while !climbing.is_empty() {
        let mut pairs: Vec<(Node, Node)> = Vec::with_capacity(climbing.len());
        let mut steps = Vec::with_capacity(climbing.len());
        for climb in &mut climbing {
            let step = match climb {
                Ok(Some(climb)) => climb.sibling().transpose().map(|sibling| {
                    let sibling = sibling?;
                    Ok((sibling, climb.pair(sibling)))
                }),
                _ => None,
            };
            match step {
                None => steps.push(None),
                Some(Ok((sibling, pair))) => {
                    if pairs.last() != Some(&pair) {
                        pairs.push(pair);
                    }
                    steps.push(Some((sibling, pairs.len() - 1)));
                }
                Some(Err(error)) => {
                    **climb = Err(error);
                    steps.push(None);
                }
            }
        }
        let parents = parents(&pairs);
        climbing = climbing
            .into_iter()
            .zip(steps)
            .filter_map(|(climb, step)| {
                let (sibling, pair) = step?;
                match (climb.as_mut(), parents.get(pair).copied().flatten()) {
                    (Ok(Some(climb)), Some(parent)) => climb.up(sibling, parent),
                    _ => *climb = Err(invalid("beyond the largest feed")),
                }
                climb.is_ok().then_some(climb)
            })
            .collect();
    }
}

impl<'a> Climb<'a> {
    /// From the node that a seek has found.
    fn begin_seek(proof: &'a Proof) -> Result<Option<Self>, PeerMisbehaved> {
        let Some(seek) = &proof.seek else { return Ok(None) };
        let mut siblings = seek.nodes.iter();
        let Some(top) = siblings.next().copied() else { return Ok(None) };
        let position = Position::from_index(top.index).ok_or(invalid("a node beyond the largest feed"))?;
        Ok(Some(Self::new(position, top, siblings, true)))
    }

    /// From the block or node, past what the seek part has led to.
    fn begin(
        proof: &'a Proof,
        leaves: &mut impl Iterator<Item = Hash>,
        seek: Result<Option<Self>, PeerMisbehaved>,
    ) -> Result<Option<Self>, PeerMisbehaved> {
        // Taken first, so that the hashes of later blocks stay in step.
        let leaf = proof.block.as_ref().and_then(|_| leaves.next());
        let seek = seek?;
        let mut sought = seek.as_ref().map(|seek| Step { node: seek.top, claimed: seek.claimed });
        let mut climb = if let (Some(block), Some(hash)) = (&proof.block, leaf) {
            let position = Position::leaf(block.index).ok_or(invalid("a block beyond the largest feed"))?;
            let top = Node { index: position.index(), size: block.value.len() as u64, hash };
            let mut climb = Self::new(position, top, block.nodes.iter(), false);
            climb.nodes.reserve_exact(1 + 2 * block.nodes.len());
            climb.nodes.push(top);
            climb
        } else if let Some(hash) = &proof.hash {
            let position =
                Position::from_index(hash.index).ok_or(invalid("a node beyond the largest feed"))?;
            let mut siblings = hash.nodes.iter();
            let (top, claimed) = match sought.take_if(|seek| seek.node.index == hash.index) {
                Some(seek) => (seek.node, seek.claimed),
                None => (*siblings.next().ok_or(invalid("a hash without its node"))?, true),
            };
            if top.index != hash.index {
                return Err(invalid("a node out of its order"));
            }
            Self::new(position, top, siblings, claimed)
        } else {
            return Ok(seek);
        };
        climb.seek = sought;
        if let Some(seek) = seek {
            climb.nodes.extend(seek.nodes);
            climb.unsure = seek.unsure;
        }
        Ok(Some(climb))
    }

    fn new(position: Position, top: Node, siblings: std::slice::Iter<'a, Node>, claimed: bool) -> Self {
        Self { position, top, siblings, seek: None, nodes: Vec::new(), unsure: Vec::new(), claimed }
    }

    /// The sibling that comes next; `None` at the end of the way.
    //= FEED-57, FEED-58
    fn sibling(&mut self) -> Result<Option<Step>, PeerMisbehaved> {
        let index = self.position.sibling().index();
        let sibling = match self.seek.take_if(|seek| seek.node.index == index) {
            Some(seek) => seek,
            None => match self.siblings.next() {
                Some(sibling) => Step { node: *sibling, claimed: true },
                None if self.seek.is_none() => return Ok(None),
                None => return Err(invalid("a seek that is not beside the way")),
            },
        };
        if sibling.node.index != index {
            return Err(invalid("a node out of its order"));
        }
        Ok(Some(sibling))
    }

    /// The two to hash, left before right.
    fn pair(&self, Step { node: sibling, .. }: Step) -> (Node, Node) {
        if self.top.index < sibling.index { (self.top, sibling) } else { (sibling, self.top) }
    }

    /// What was computed is in `nodes` already; what was claimed goes there if the other of the pair was
    /// computed, for the rest of the sum is then its size.
    //= FEED-65
    fn up(&mut self, sibling: Step, parent: Node) {
        match (self.claimed, sibling.claimed) {
            (true, true) => self.unsure.extend([self.top, sibling.node]),
            (true, false) => self.nodes.push(self.top),
            (false, true) => self.nodes.push(sibling.node),
            (false, false) => {}
        }
        self.claimed = false;
        self.nodes.push(parent);
        self.top = parent;
        // A parent was hashed, so there is a place for it.
        self.position = self.position.parent().unwrap_or(self.position);
    }

    fn finish(self) -> Climbed {
        Climbed { top: Some(self.top), nodes: self.nodes, unsure: self.unsure, claimed: self.claimed }
    }
}
