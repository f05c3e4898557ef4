//! What is known in memory of a feed, and the record that it is stored as.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    encoding::{Reader, Writer},
    error::DecodeError,
    feed::{
        bitfield::{Bitfield, Change},
        conflict::Conflict,
        local::Local,
        manifest::Manifest,
        proof::{Node, Proof},
        reorg::PendingReorg,
        tree::{MAX_LENGTH, Position, Tree},
        verifier::Verifier,
    },
    hash::Hash,
    limits::Limits,
};

const HEAD_VERSION: u8 = 1;
const HAS_MANIFEST: u64 = 1;
const IS_ENCRYPTED: u64 = 2;
const HAS_CONFLICT: u64 = 4;

/// A feed as it stands in memory: its signed tree, who may sign it, and which blocks are stored.
///
/// ```
/// use party::feed::{Local as _, State};
///
/// let state = State::default(); // as a reader begins
/// assert_eq!((state.tree().length(), state.signature().len()), (0, 0));
/// assert!(state.verifier().is_none() && state.needs_manifest());
/// ```
#[derive(Clone, Default)]
pub struct State {
    pub(crate) fork: u64,
    pub(crate) tree: Tree,
    pub(crate) signature: Bytes,
    pub(crate) verifier: Option<Verifier>,
    pub(crate) bitfield: Bitfield,
    /// Whether we append to it encrypted. It is never taken back.
    pub(crate) is_encrypted: bool,
    /// How many of the steps that led here have deleted blocks.
    pub(crate) deletions: u64,
    /// That the signers have contradicted themselves, once that is known. It is never taken back.
    pub(crate) conflict: Option<Conflict>,
    /// The tree that contradicts ours. It is not stored.
    pub(crate) contradiction: Option<Arc<Proof>>,
    /// The reorgs under way. They are not stored.
    pub(crate) reorgs: Vec<PendingReorg>,
}

/// A step from one state to the next, complete but not carried out: first it is stored, then applied.
#[derive(Clone)]
pub(crate) struct Update {
    pub(crate) fork: u64,
    pub(crate) tree: Tree,
    pub(crate) signature: Bytes,
    pub(crate) verifier: Option<Verifier>,
    pub(crate) blocks: Change,
    /// How many blocks of the tree before it are still there; `None` if all are.
    pub(crate) cut: Option<u64>,
}

impl State {
    /// The feed's tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The signature of the tree; empty if there are no blocks.
    pub fn signature(&self) -> &Bytes {
        &self.signature
    }

    /// Who may sign, if that is known.
    pub fn verifier(&self) -> Option<&Verifier> {
        self.verifier.as_ref()
    }

    /// Which blocks are stored.
    pub fn bitfield(&self) -> &Bitfield {
        &self.bitfield
    }

    /// The root with this flat-tree index.
    pub(crate) fn root(&self, index: u64) -> Option<&Node> {
        self.tree.roots().iter().find(|root| root.index == index)
    }

    /// The step that changes nothing but which blocks are stored.
    pub(crate) fn with_blocks(&self, blocks: Change) -> Update {
        Update {
            fork: self.fork,
            tree: self.tree.clone(),
            signature: self.signature.clone(),
            verifier: self.verifier.clone(),
            blocks,
            cut: None,
        }
    }

    pub(crate) fn apply(&mut self, update: Update) {
        if update.fork != self.fork {
            // All of them were compared with the tree that goes.
            self.reorgs.clear();
        }
        self.fork = update.fork;
        self.tree = update.tree;
        self.signature = update.signature;
        self.verifier = update.verifier;
        self.bitfield.apply(update.blocks);
    }

    /// The head to store for the state that `update` leads to.
    pub(crate) fn head(&self, update: &Update) -> Head {
        Head {
            fork: update.fork,
            length: update.tree.length(),
            contiguous: update.blocks.contiguous(),
            pages: self.bitfield.page_ranges(&update.blocks),
            signature: update.signature.clone(),
            manifest: update.verifier.as_ref().map(|verifier| verifier.manifest().clone()),
            is_encrypted: self.is_encrypted,
            conflict: self.conflict,
        }
    }
}

impl Local for State {
    fn fork(&self) -> u64 {
        self.fork
    }

    fn deletions(&self) -> u64 {
        self.deletions
    }

    fn length(&self) -> u64 {
        self.tree.length()
    }

    fn contiguous_length(&self) -> u64 {
        self.bitfield.contiguous()
    }

    fn has(&self, index: u64) -> bool {
        self.bitfield.get(index)
    }

    fn has_manifest(&self) -> bool {
        self.verifier.as_ref().is_some_and(|verifier| !verifier.is_legacy())
    }

    fn needs_manifest(&self) -> bool {
        self.verifier.is_none()
    }

    /// A stored node that is no root has its parent and sibling stored too: a block brings all from its leaf
    /// to a node that is stored, and an upgrade all from the old roots to the new ones. So every node on the
    /// way from a stored block to its root is there, and every sibling of it; which makes a node known if
    /// any block under its parent is stored. There may be more, but never less.
    fn missing_nodes(&self, index: u64) -> u64 {
        let length = self.tree.length();
        let Some(mut position) = Position::leaf(index).filter(|_| index < length) else { return 0 };
        let mut levels = 0;
        while !position.is_root(length) {
            let Some(parent) = position.parent() else { break };
            if self.bitfield.any(parent.start()..parent.end()) {
                break;
            }
            position = parent;
            levels += 1;
        }
        levels
    }

    fn next_missing(&self, from: u64, to: u64) -> Option<u64> {
        self.bitfield.next_missing(from, to)
    }

    fn words(&self, start: u64, length: u64) -> Vec<(u64, Vec<u32>)> {
        self.bitfield.words(start, length)
    }

    fn reorg(&self, fork: u64) -> Option<&PendingReorg> {
        self.reorgs.iter().find(|reorg| reorg.fork == fork)
    }

    fn has_conflict(&self) -> bool {
        self.conflict.is_some()
    }

    fn contradiction(&self) -> Option<&Proof> {
        self.contradiction.as_deref()
    }
}

/// The record under [`Key::Head`](crate::feed::storage::Key::Head). Written with every commit, so what can
/// be read elsewhere is left out: the roots are among the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) fork: u64,
    pub(crate) length: u64,
    /// Blocks stored without a gap; no page is needed for these.
    pub(crate) contiguous: u64,
    /// Numbers of the bitfield pages that are stored.
    pub(crate) pages: Vec<Range<u64>>,
    pub(crate) signature: Bytes,
    pub(crate) manifest: Option<Manifest>,
    /// Whether what we append is encrypted.
    pub(crate) is_encrypted: bool,
    /// That the signers have contradicted themselves.
    pub(crate) conflict: Option<Conflict>,
}

impl Head {
    /// The head of a feed that has nothing yet, and will have nothing in the clear.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))]
    pub(crate) fn new_encrypted() -> Self {
        Self {
            fork: 0,
            length: 0,
            contiguous: 0,
            pages: vec![],
            signature: Bytes::new(),
            manifest: None,
            is_encrypted: true,
            conflict: None,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(256);
        out.put_bytes(&[HEAD_VERSION]);
        let flag = |set: bool, flag: u64| if set { flag } else { 0 };
        out.put_uint(
            flag(self.manifest.is_some(), HAS_MANIFEST)
                | flag(self.is_encrypted, IS_ENCRYPTED)
                | flag(self.conflict.is_some(), HAS_CONFLICT),
        );
        out.put_uint(self.fork);
        out.put_uint(self.length);
        out.put_uint(self.contiguous);
        out.put_uint(self.pages.len() as u64);
        let mut at = 0;
        for range in &self.pages {
            out.put_uint(range.start - at);
            out.put_uint(range.end - range.start);
            at = range.end;
        }
        out.put_buffer(&self.signature);
        if let Some(manifest) = &self.manifest {
            manifest.encode(&mut out);
        }
        if let Some(conflict) = &self.conflict {
            out.put_uint(conflict.fork);
            out.put_uint(conflict.length);
        }
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != HEAD_VERSION {
            return Err(DecodeError::Unknown { what: "head version", value: version.into() });
        }
        let flags = reader.uint()?;
        let fork = reader.uint()?;
        let length = reader.uint()?;
        let contiguous = reader.uint()?;
        if length > MAX_LENGTH || contiguous > length {
            return Err(DecodeError::Invalid("head"));
        }
        let n = reader.count(2, usize::MAX)?;
        let mut pages = Vec::with_capacity(n);
        let mut at = 0u64;
        for _ in 0..n {
            let start = at.checked_add(reader.uint()?).ok_or(DecodeError::Invalid("pages"))?;
            at = start
                .checked_add(reader.uint()?)
                .filter(|end| *end <= MAX_LENGTH)
                .ok_or(DecodeError::Invalid("pages"))?;
            pages.push(start..at);
        }
        let signature = Bytes::copy_from_slice(reader.buffer()?);
        let manifest = match flags & HAS_MANIFEST {
            0 => None,
            _ => Some(Manifest::decode(&mut reader, &Limits::default())?),
        };
        let is_encrypted = flags & IS_ENCRYPTED != 0;
        let conflict = match flags & HAS_CONFLICT {
            0 => None,
            _ => Some(Conflict { fork: reader.uint()?, length: reader.uint()? }),
        };
        Ok(Self { fork, length, contiguous, pages, signature, manifest, is_encrypted, conflict })
    }
}

/// A node as it is stored: its size and hash; the index is in the key.
pub(crate) fn encode_node(node: &Node, out: &mut impl Writer) {
    out.put_uint(node.size);
    out.put_bytes(&node.hash);
}

/// Reads what [`encode_node`] wrote.
pub(crate) fn decode_node(index: u64, bytes: &[u8]) -> Result<Node, DecodeError> {
    let mut reader = Reader::new(bytes);
    let size = reader.uint()?;
    let hash: Hash = reader.array()?;
    Ok(Node { index, size, hash })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PublicKey;

    #[test]
    fn a_head_comes_back_as_it_was() {
        let head = Head {
            fork: 3,
            length: 1 << 40,
            contiguous: 70_000,
            pages: vec![3..4, 9..12],
            signature: Bytes::from_static(&[7; 68]),
            manifest: Some(Manifest::single(PublicKey::from_bytes([9; 32]))),
            is_encrypted: true,
            conflict: Some(Conflict { fork: 3, length: 7 }),
        };
        let bytes = head.encode();
        assert_eq!(Head::decode(&bytes), Ok(head));
        for cut in 0..bytes.len() {
            assert!(Head::decode(&bytes[..cut]).is_err());
        }
    }
}
