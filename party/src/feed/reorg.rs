//! A feed's tree replaced by one of a higher fork.
//!
//! A writer that truncates its feed and appends something else signs the new tree with a higher fork. Whoever
//! has the old tree needs more than the new one: how much of the old feed is the beginning of the new one
//! too, so that it keeps those blocks and drops the others. A [`Reorg`] finds that out. It begins with the
//! upgrade from 0 of the new fork, and then goes down where the two trees differ: it names the nodes of our
//! own tree that it compares with, and what it has to ask the peer for, until the [`Reorged`] tree is there,
//! verified. Nothing of the feed changes meanwhile.
//!
//! What is not stored here is taken to differ, so a feed that is stored in part may drop blocks that both
//! have; it never keeps one that they don't. The way down is that of hypercore's `lib/merkle-tree.js`; see
//! `protocol-spec/06-feeds.md#reorgs`.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use bytes::Bytes;

use crate::{
    error::PeerMisbehaved,
    feed::{
        proof::{BlockRequest, Node, Proof, ProofRequest},
        tree::{Position, Tree, full_roots},
        verifier::Verifier,
        verify::{Verification, VerifiedProof, hash_proofs},
    },
    hash::Hash,
    key::FeedKey,
};

/// What a [`Reorg`] needs next.
///
/// ```
/// use std::collections::HashMap;
/// use party::feed::{proof::Proof, reorg::{Reorg, ReorgStep, Reorged}};
/// use party::feed::proof::{Node, ProofRequest};
///
/// /// Drives a reorg; `ours` are the nodes stored here, `ask` gets an answer from a peer.
/// fn follow(
///     mut reorg: Reorg,
///     ours: &HashMap<u64, Node>,
///     mut ask: impl FnMut(ProofRequest) -> Proof,
/// ) -> Result<Option<Reorged>, party::error::PeerMisbehaved> {
///     loop {
///         match reorg.poll() {
///             ReorgStep::Read(_) => reorg.handle_nodes(ours),
///             ReorgStep::Ask(want) => {
///                 let proof = ask(want.request(want.blocks().start));
///                 if !reorg.handle_proof(proof)? {
///                     return Ok(None); // no use to ask this peer again
///                 }
///             }
///             ReorgStep::Done => return Ok(reorg.finish()),
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReorgStep {
    /// The nodes of our own tree with these flat-tree indexes; it goes on with [`Reorg::handle_nodes`].
    Read(Vec<u64>),
    /// A proof from a peer that has the new fork; it goes on with [`Reorg::handle_proof`].
    Ask(ReorgWant),
    /// Nothing more: [`Reorg::finish`] has the result.
    Done,
}

/// What a [`Reorg`] has to ask a peer for: the way up from any block of a range.
///
/// ```
/// # use std::collections::HashMap;
/// # use party::key::KeyPair;
/// # use party::feed::{manifest::Manifest, tree::Tree, verifier::Verifier};
/// # use party::feed::proof::{Node, Proof, UpgradeProof};
/// use party::feed::reorg::{Reorg, ReorgStep};
///
/// # let writer = KeyPair::from_seed(&[1; 32]);
/// # let manifest = Manifest::single(writer.public());
/// # let (key, verifier) = (manifest.key(), Verifier::new(manifest.key(), manifest)?);
/// # let root = |fill| Node { index: 3, size: 4, hash: [fill; 32] };
/// # let tree = Tree::from_roots(4, vec![root(2)]).unwrap();
/// # let signature = verifier.sign(&writer, &tree, 1).unwrap();
/// # let (nodes, additional_nodes) = (vec![root(2)], vec![]);
/// # let upgrade = UpgradeProof { start: 0, length: 4, nodes, additional_nodes, signature };
/// # let proof = Proof { fork: 1, upgrade: Some(upgrade.into()), ..Proof::default() };
/// # let stored = HashMap::from([(3, root(1))]);
/// // Fork 1 has four blocks, as we have. The one root that `proof` shows is another than ours.
/// let mut reorg = Reorg::begin(key, Some(verifier), 0, 4, proof)?.unwrap();
/// assert_eq!(reorg.poll(), ReorgStep::Read(vec![3]));
/// reorg.handle_nodes(&stored);
/// let ReorgStep::Ask(want) = reorg.poll() else { unreachable!("they differ") };
///
/// // Any of the four may be the first that differs. Whichever the peer has, leads closer.
/// assert_eq!(want.blocks(), 0..4);
/// let request = want.request(2).hash.unwrap();
/// assert_eq!((request.index, request.nodes), (4, 2)); // the way up from block 2 to the root
/// # Ok::<(), party::error::PeerMisbehaved>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReorgWant {
    blocks: Range<u64>,
    levels: u32,
}

impl ReorgWant {
    /// The first block that differs is one of these, or the one after them. Never empty.
    pub fn blocks(&self) -> Range<u64> {
        self.blocks.clone()
    }

    /// The request to make, in the new fork, for the way up from `block`, which is one of
    /// [`blocks`](Self::blocks) that the peer has.
    pub fn request(&self, block: u64) -> ProofRequest {
        let hash = Some(BlockRequest { index: block.saturating_mul(2), nodes: self.levels.into() });
        ProofRequest { hash, ..ProofRequest::default() }
    }

    /// The end of the highest node that the answer for `block` has to reach. Whose tree is shorter can't show it.
    pub(crate) fn reaches(&self, block: u64) -> u64 {
        let size = 1_u64.checked_shl(self.levels).unwrap_or(u64::MAX);
        (block / size).saturating_add(1).saturating_mul(size)
    }
}

/// A reorg that waits for proofs of peers, as all who replicate the feed see it: from
/// [`Local::reorg`](crate::feed::Local::reorg).
///
/// ```
/// use party::feed::{Local as _, State};
///
/// assert!(State::default().reorg(1).is_none()); // nothing is known of a fork 1
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingReorg {
    /// The fork that it leads to.
    pub fork: u64,
    /// What it needs next.
    pub want: ReorgWant,
}

/// The replacement of a feed's tree by one of a higher fork, in the making.
///
/// ```
/// use party::feed::{proof::{Proof, UpgradeProof}, reorg::Reorg};
///
/// // A fork that is not above ours is passed over, whatever it proves.
/// let proof = Proof { fork: 3, ..Proof::default() };
/// assert!(matches!(Reorg::begin([7; 32].into(), None, 3, 10, proof), Ok(None)));
/// ```
#[derive(Debug)]
pub struct Reorg {
    verification: Verification,
    fork: u64,
    tree: Tree,
    signature: Bytes,
    /// Our own length.
    length: u64,
    /// Nodes of the new tree, to be stored.
    nodes: BTreeMap<u64, Node>,
    /// Hashes of nodes of the new tree whose sizes are not proved.
    unsure: HashMap<u64, Hash>,
    /// Nodes of our own tree, as far as they were read.
    ours: HashMap<u64, Option<Node>>,
    asked: Vec<u64>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The roots of the new tree are compared.
    Roots,
    /// All before this node is the same, and not all below it is.
    Down(Position),
    /// So many blocks are the same.
    Done(u64),
}

impl Reorg {
    /// Begins with a proof of a higher fork that has an upgrade from 0. `key`, `verifier`, `fork` and `length`
    /// are the feed's own. `None` if the fork is not above `fork`, or if the proof has no upgrade: there is nothing
    /// to replace the tree by, then.
    ///
    /// # Errors
    /// [`PeerMisbehaved::InvalidProof`], [`PeerMisbehaved::InvalidSignature`] or
    /// [`PeerMisbehaved::WrongManifest`] if the proof does not hold.
    //= protocol-spec/06-feeds.md#reorgs
    pub fn begin(
        key: FeedKey,
        verifier: Option<Verifier>,
        fork: u64,
        length: u64,
        proof: Proof,
    ) -> Result<Option<Self>, PeerMisbehaved> {
        if proof.fork <= fork || proof.upgrade.is_none() {
            return Ok(None);
        }
        let fork = proof.fork;
        let mut verification =
            Verification::new(key, verifier, fork, Tree::default(), Bytes::new(), HashMap::new());
        let verified = verify(&mut verification, proof, true)?;
        let Some((tree, signature)) = verification.tree() else {
            return Err(PeerMisbehaved::InvalidProof("a fork without its tree"));
        };
        //= protocol-spec/06-feeds.md#prologues
        // A prologue needs no signature, and its fork none either. Taken for a fork, it would let anybody cut off
        // what comes after it.
        let verifier = verification.verifier().ok_or(PeerMisbehaved::WrongManifest)?;
        verifier.verify_fork(tree, fork, signature)?;
        let (tree, signature) = (tree.clone(), signature.clone());
        let mut reorg = Self {
            verification,
            fork,
            tree,
            signature,
            length,
            nodes: BTreeMap::new(),
            unsure: HashMap::new(),
            ours: HashMap::new(),
            asked: Vec::new(),
            stage: Stage::Roots,
        };
        reorg.add(&verified);
        Ok(Some(reorg))
    }

    /// The fork that it leads to.
    pub fn fork(&self) -> u64 {
        self.fork
    }

    /// The length that it leads to.
    pub fn length(&self) -> u64 {
        self.tree.length()
    }

    /// The next step. To be called again after each [`handle_nodes`](Self::handle_nodes) and
    /// [`handle_proof`](Self::handle_proof).
    pub fn poll(&mut self) -> ReorgStep {
        loop {
            let needed = match self.stage {
                Stage::Done(_) => return ReorgStep::Done,
                Stage::Roots => {
                    if let Some(needed) = self.unread(self.tree.roots().iter().map(|root| root.index)) {
                        needed
                    } else {
                        let first =
                            self.tree.roots().iter().find(|root| !self.is_ours(root.index, &root.hash));
                        self.stage = match first.and_then(|root| Position::from_index(root.index)) {
                            Some(root) => Stage::Down(root),
                            None => Stage::Done(self.tree.length()),
                        };
                        continue;
                    }
                }
                Stage::Down(at) => {
                    let children = at.children().filter(|_| at.start() < self.length);
                    let Some((left, right)) = children else {
                        self.stage = Stage::Done(at.start());
                        continue;
                    };
                    let Some(hash) = self.hash(left) else { return ReorgStep::Ask(self.want(at)) };
                    // What was proved together is compared soon, so it is read together.
                    if self.unread([left.index()]).is_some() {
                        self.unread(self.nodes.keys().chain(self.unsure.keys()).copied()).unwrap_or_default()
                    } else {
                        let same = self.is_ours(left.index(), &hash) && self.size_right(at, left, right);
                        self.stage = Stage::Down(if same { right } else { left });
                        continue;
                    }
                }
            };
            self.asked.clone_from(&needed);
            return ReorgStep::Read(needed);
        }
    }

    /// The nodes of our own tree that were asked for; those that are not among them are not stored.
    pub fn handle_nodes(&mut self, stored: &HashMap<u64, Node>) {
        for index in self.asked.drain(..) {
            self.ours.insert(index, stored.get(&index).copied());
        }
    }

    /// Takes an answer to [`ReorgStep::Ask`]. False if it is of no use: about another fork, too late, or not
    /// about where the trees differ.
    ///
    /// # Errors
    /// [`PeerMisbehaved::InvalidProof`] if it does not hold. What was proved before stays.
    //= FEED-78
    pub fn handle_proof(&mut self, proof: Proof) -> Result<bool, PeerMisbehaved> {
        let Stage::Down(at) = self.stage else { return Ok(false) };
        let Some((left, _)) = at.children().filter(|_| proof.fork == self.fork) else { return Ok(false) };
        if self.hash(left).is_some() {
            return Ok(false);
        }
        let verified = verify(&mut self.verification, proof, false)?;
        self.add(&verified);
        Ok(self.hash(left).is_some())
    }

    /// Gives up what [`ReorgStep::Ask`] asks for, as nobody shows it: the trees are taken to differ from there on. The
    /// new tree stays as it was proved; only blocks that both may have are dropped.
    pub fn forgo(&mut self) {
        if let Stage::Down(at) = self.stage {
            self.stage = Stage::Done(at.start());
        }
    }

    /// The new tree, once [`poll`](Self::poll) says [`ReorgStep::Done`]; `None` before.
    pub fn finish(self) -> Option<Reorged> {
        let Stage::Done(common) = self.stage else { return None };
        let mut nodes = self.nodes;
        // What was compared and is the same stays, so that the new nodes above it never stand on nothing.
        let kept = full_roots(common).filter_map(|root| self.ours.get(&root.index()).copied().flatten());
        nodes.extend(kept.map(|node| (node.index, node)));
        Some(Reorged {
            fork: self.fork,
            common,
            verifier: self.verification.learned().cloned(),
            tree: self.tree,
            signature: self.signature,
            nodes: nodes.into_values().collect(),
        })
    }

    fn add(&mut self, verified: &VerifiedProof) {
        self.unsure.extend(verified.unsure().iter().map(|node| (node.index, node.hash)));
        self.nodes.extend(verified.nodes().iter().map(|node| (node.index, *node)));
    }

    /// The hash of a node in the new tree, if it was proved.
    fn hash(&self, position: Position) -> Option<Hash> {
        let index = position.index();
        self.nodes.get(&index).map(|node| node.hash).or_else(|| self.unsure.get(&index).copied())
    }

    /// Those of `indexes` that our tree may have and that were not read; `None` if there are none.
    fn unread(&self, indexes: impl IntoIterator<Item = u64>) -> Option<Vec<u64>> {
        let within = |index| Position::from_index(index).is_some_and(|node| node.end() <= self.length);
        let unread: Vec<u64> =
            indexes.into_iter().filter(|index| within(*index) && !self.ours.contains_key(index)).collect();
        (!unread.is_empty()).then_some(unread)
    }

    fn is_ours(&self, index: u64, hash: &Hash) -> bool {
        matches!(self.ours.get(&index), Some(Some(ours)) if ours.hash == *hash)
    }

    /// Where the left child is ours and stays, its size is known, and that of the right child with it:
    /// whatever is stored has its sibling stored.
    fn size_right(&mut self, at: Position, left: Position, right: Position) -> bool {
        let left = self.ours.get(&left.index()).copied().flatten();
        let sizes = left.zip(self.verification.known(at.index()).copied());
        let size = sizes.and_then(|(left, parent)| parent.size.checked_sub(left.size));
        let (Some(size), Some(hash)) = (size, self.hash(right)) else { return false };
        let node = Node { index: right.index(), size, hash };
        self.nodes.insert(node.index, node);
        self.verification.know(node);
        true
    }

    /// The way up has to reach a node whose size is proved, or what is computed on it proves nothing.
    fn want(&self, at: Position) -> ReorgWant {
        let mut top = at;
        while self.verification.known(top.index()).is_none() {
            let Some(parent) = top.parent() else { break };
            top = parent;
        }
        ReorgWant { blocks: at.start()..at.end().min(self.length), levels: top.depth() }
    }
}

/// Verifies a proof of the new fork; only the first may have an upgrade.
//= FEED-77
fn verify(
    verification: &mut Verification,
    proof: Proof,
    upgrade: bool,
) -> Result<VerifiedProof, PeerMisbehaved> {
    let hashed = hash_proofs(vec![proof]).pop().ok_or(PeerMisbehaved::InvalidProof("no proof"))??;
    verification.verify(if upgrade { hashed } else { hashed.without_upgrade() })
}

/// A tree of a higher fork, verified, and how much of the old one is its beginning. Only [`Reorg::finish`] makes
/// one.
///
/// ```
/// use std::collections::HashMap;
/// use party::key::KeyPair;
/// use party::feed::{manifest::Manifest, tree::Tree, verifier::Verifier};
/// use party::feed::proof::{Node, Proof, UpgradeProof};
/// use party::feed::reorg::{Reorg, ReorgStep};
///
/// let writer = KeyPair::from_seed(&[1; 32]);
/// let manifest = Manifest::single(writer.public());
/// let (key, verifier) = (manifest.key(), Verifier::new(manifest.key(), manifest)?);
///
/// // We have three blocks. The writer has cut off the last, and signed what is left as fork 1.
/// let root = Node { index: 1, size: 10, hash: [1; 32] };
/// let tree = Tree::from_roots(2, vec![root]).unwrap();
/// let signature = verifier.sign(&writer, &tree, 1).unwrap();
/// let (nodes, additional_nodes) = (vec![root], vec![]);
/// let upgrade = UpgradeProof { start: 0, length: 2, nodes, additional_nodes, signature };
/// let proof = Proof { fork: 1, upgrade: Some(upgrade.into()), ..Proof::default() };
///
/// let mut reorg = Reorg::begin(key, Some(verifier), 0, 3, proof)?.unwrap();
/// while let ReorgStep::Read(_) = reorg.poll() {
///     reorg.handle_nodes(&HashMap::from([(1, root)]));
/// }
/// let reorged = reorg.finish().expect("nothing to ask for");
/// assert_eq!((reorged.fork(), reorged.common()), (1, 2));
/// assert_eq!(reorged.tree(), &tree);
/// # Ok::<(), party::error::PeerMisbehaved>(())
/// ```
#[derive(Clone, Debug)]
pub struct Reorged {
    fork: u64,
    common: u64,
    tree: Tree,
    signature: Bytes,
    nodes: Vec<Node>,
    verifier: Option<Verifier>,
}

impl Reorged {
    /// The new fork.
    pub fn fork(&self) -> u64 {
        self.fork
    }

    /// Blocks that both trees begin with. All others of the old tree, and the nodes that are not above these
    /// alone, are to be dropped.
    pub fn common(&self) -> u64 {
        self.common
    }

    /// The new tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Its signature.
    pub fn signature(&self) -> &Bytes {
        &self.signature
    }

    /// Its nodes, as far as they were proved, sorted by index: to be stored when the old ones were dropped.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The verifier, if the feed's manifest was learned by this.
    pub fn verifier(&self) -> Option<&Verifier> {
        self.verifier.as_ref()
    }
}
