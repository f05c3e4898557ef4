//! A feed without hashes: it knows what a real one would know, and nothing of what that is.

use std::{collections::BTreeSet, ops::Range};

use bytes::Bytes;

use super::pair::Engine;
use crate::{
    error::{Error, PeerMisbehaved},
    feed::{
        local::Local,
        manifest::Manifest,
        proof::{BlockProof, Proof, ProofRequest, UpgradeProof},
    },
    key::PublicKey,
    replication::Verdict,
};

#[derive(Clone, Debug, Default)]
pub(in crate::replication) struct Model {
    pub(in crate::replication) fork: u64,
    pub(in crate::replication) length: u64,
    pub(in crate::replication) stored: BTreeSet<u64>,
    pub(super) has_manifest: bool,
    pub(super) needs_manifest: bool,
    /// Bytes of a block.
    pub(super) block: usize,
    /// Lengths that the feed has had: their roots stay known.
    pub(super) lengths: BTreeSet<u64>,
    /// Blocks that were stored: their nodes stay known.
    pub(super) cleared: BTreeSet<u64>,
    /// Whether what it has, or its fork, has changed under requests that it was going to serve.
    pub(super) unsettled: bool,
    /// How often blocks went away.
    pub(super) deletions: u64,
}

impl Model {
    pub(super) fn writer(length: u64) -> Self {
        Self { length, stored: (0..length).collect(), has_manifest: true, block: 10, ..Self::default() }
    }

    pub(super) fn reader() -> Self {
        Self { needs_manifest: true, block: 10, ..Self::default() }
    }

    /// How many blocks are stored, if they are the first: what is asked at each message is then known without counting.
    fn gapless(&self) -> Option<u64> {
        // So many different numbers below their count are all of them.
        let count = self.stored.len() as u64;
        self.stored.last().is_none_or(|last| last + 1 == count).then_some(count)
    }

    /// A reader that has the length and some of the blocks.
    pub(in crate::replication) fn sparse(length: u64, stored: impl IntoIterator<Item = u64>) -> Self {
        Self { length, stored: stored.into_iter().collect(), ..Self::writer(0) }
    }

    fn any_stored(&self, start: u64, end: u64) -> bool {
        let any = |blocks: &BTreeSet<u64>| start < end && blocks.range(start..end).next().is_some();
        any(&self.stored) || any(&self.cleared)
    }

    /// Clears blocks.
    pub(super) fn forget(&mut self, blocks: Range<u64>) {
        let gone: Vec<u64> = self.stored.range(blocks).copied().collect();
        for index in gone {
            self.stored.remove(&index);
            self.cleared.insert(index);
        }
        self.unsettled = true;
        self.deletions += 1;
    }

    /// Truncates to `length`, if it is longer, on another fork.
    pub(super) fn cut(&mut self, length: u64) {
        self.length = self.length.min(length);
        let length = self.length;
        for blocks in [&mut self.stored, &mut self.cleared] {
            blocks.retain(|index| *index < length);
        }
        self.lengths.retain(|before| *before < length);
        self.fork += 1;
        self.unsettled = true;
        self.deletions += 1;
    }

    /// Whether the node `level` levels above block `index` is known.
    fn knows(&self, index: u64, level: u32) -> bool {
        let end = ((index >> level) + 1) << level;
        let (up_start, up_end) =
            (index >> (level + 1) << (level + 1), ((index >> (level + 1)) + 1) << (level + 1));
        end <= self.length && (up_end > self.length || self.any_stored(up_start, up_end))
    }

    /// Whether it was a root once, which is known but can't be told from the blocks.
    fn knew(&self, index: u64, level: u32) -> bool {
        let (end, up_end) = (((index >> level) + 1) << level, ((index >> (level + 1)) + 1) << (level + 1));
        self.lengths.iter().any(|length| end <= *length && up_end > *length)
    }
}

impl Local for Model {
    fn fork(&self) -> u64 {
        self.fork
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn contiguous_length(&self) -> u64 {
        if let Some(count) = self.gapless() {
            return count;
        }
        (0..).zip(&self.stored).take_while(|(n, index)| n == *index).count() as u64
    }

    fn has(&self, index: u64) -> bool {
        self.stored.contains(&index)
    }

    fn has_manifest(&self) -> bool {
        self.has_manifest
    }

    fn needs_manifest(&self) -> bool {
        self.needs_manifest
    }

    fn missing_nodes(&self, index: u64) -> u64 {
        if index >= self.length {
            return 0;
        }
        (0..64).find(|level| self.knows(index, *level)).unwrap().into()
    }

    fn next_missing(&self, from: u64, to: u64) -> Option<u64> {
        if let Some(count) = self.gapless() {
            return Some(from.max(count)).filter(|index| *index < to);
        }
        // What is stored without a gap from there on is passed over.
        let stored = (from..).zip(self.stored.range(from..)).take_while(|(n, index)| n == *index).count();
        Some(from + stored as u64).filter(|index| *index < to)
    }

    fn deletions(&self) -> u64 {
        self.deletions
    }

    fn words(&self, start: u64, length: u64) -> Vec<(u64, Vec<u32>)> {
        let mut words: Vec<(u64, Vec<u32>)> = Vec::new();
        for index in self.stored.range(start / 32 * 32..(start + length).div_ceil(32) * 32) {
            let first = index / 64 * 64;
            if words.last().is_none_or(|(last, _)| *last != first) {
                words.push((first, vec![0; 2]));
            }
            let (_, page) = words.last_mut().unwrap();
            page[(index - first) as usize / 32] |= 1 << (index % 32);
        }
        words
    }
}

impl Engine for Model {
    fn with_local<R>(&self, f: impl FnOnce(&dyn Local) -> R) -> R {
        f(self)
    }

    fn append(&mut self, blocks: u64) {
        self.stored.extend(self.length..self.length + blocks);
        self.length += blocks;
    }

    fn prove(&self, request: ProofRequest, fork: u64) -> Option<Proof> {
        let gone = fork != self.fork || request.block.is_some_and(|block| !self.has(block.index));
        if gone && self.unsettled {
            return None;
        }
        assert_eq!(fork, self.fork);
        let block = match request.block {
            Some(block) => {
                assert!(self.has(block.index), "a request for {} was not refused", block.index);
                if request.upgrade.is_none_or(|upgrade| block.index < upgrade.start) {
                    // As hypercore counts what it calls an invalid request.
                    let end = ((block.index >> block.nodes) + 1) << block.nodes;
                    assert!(
                        block.nodes == 0 || end <= self.length,
                        "nodes out of bounds: {request:?} of {}",
                        self.length
                    );
                }
                // The model's proof says how far up it leads.
                let nodes = vec![crate::feed::proof::Node { index: block.nodes, size: 0, hash: [0; 32] }];
                Some(BlockProof { index: block.index, value: Bytes::from(vec![0; self.block]), nodes })
            }
            None => None,
        };
        let upgrade = match request.upgrade {
            Some(upgrade) => {
                let end = upgrade.start + upgrade.length;
                assert!(end <= self.length && upgrade.length > 0);
                Some(Box::new(UpgradeProof {
                    start: upgrade.start,
                    length: upgrade.length,
                    nodes: Vec::new(),
                    additional_nodes: Vec::new(),
                    signature: Bytes::from_static(b"signature"),
                }))
            }
            None => None,
        };
        let manifest = (request.manifest && self.has_manifest)
            .then(|| Manifest::single(PublicKey::from_bytes([1; 32])).into());
        Some(Proof { fork, block, upgrade, manifest, ..Proof::default() })
    }

    fn ingest(&mut self, proofs: Vec<Proof>) -> Vec<Result<Verdict, Error>> {
        proofs.into_iter().map(|proof| self.ingest_one(proof)).collect()
    }
}

impl Model {
    fn ingest_one(&mut self, proof: Proof) -> Result<Verdict, Error> {
        if proof.manifest.is_some() {
            self.needs_manifest = false;
            self.has_manifest = true;
        }
        if self.needs_manifest {
            return Err(PeerMisbehaved::WrongManifest.into());
        }
        if let Some(block) = &proof.block {
            let in_upgrade = proof.upgrade.as_ref().is_some_and(|upgrade| block.index >= upgrade.start);
            let level = block.nodes[0].index as u32;
            if in_upgrade && proof.upgrade.as_ref().is_some_and(|upgrade| upgrade.start < self.length) {
                // Grown meanwhile: honest, but of no use.
                return Ok(Verdict::Holds);
            }
            if !in_upgrade && !self.knows(block.index, level) && !self.knew(block.index, level) {
                return Ok(Verdict::Unconnected);
            }
        }
        if let Some(upgrade) = &proof.upgrade {
            self.lengths.insert(self.length);
            self.length = self.length.max(upgrade.start + upgrade.length);
        }
        if let Some(block) = &proof.block {
            self.stored.insert(block.index);
        }
        Ok(Verdict::Holds)
    }
}
