//! Answers to what peers ask for.

use std::collections::HashMap;

use super::Feed;
use crate::{
    error::Error,
    feed::{
        open::decode_nodes,
        proof::{Node, Proof, ProofRequest},
        prove::Plan,
        storage::Key,
        verifier::Verifier,
    },
};

impl Feed {
    /// Answers a request of a peer's. `None` if we don't have what it asks for, or are on another fork than
    /// the request.
    ///
    /// # Errors
    /// [`PeerMisbehaved::InvalidRequest`](crate::error::PeerMisbehaved::InvalidRequest) for what no feed of our length
    /// could answer, or why it could not be read.
    pub async fn prove(&self, request: ProofRequest, fork: u64) -> Result<Option<Proof>, Error> {
        loop {
            let before = self.undisturbed().await;
            self.check_purged()?;
            let proof = self.prove_from_storage(&request, fork).await;
            // What was read while something was deleted may be of two trees.
            if self.is_unchanged(before) {
                return proof;
            }
        }
    }

    async fn prove_from_storage(&self, request: &ProofRequest, fork: u64) -> Result<Option<Proof>, Error> {
        let (plan, mut nodes, signature, manifest) = {
            let state = self.state();
            if fork != state.fork
                || request.seek.is_some()
                || request.block.is_some_and(|block| !state.bitfield.get(block.index))
            {
                return Ok(None);
            }
            let verifier = state.verifier.as_ref();
            let prologue = verifier.map_or(0, Verifier::prologue_length);
            let Some(plan) = Plan::new(request, state.tree.length(), prologue)? else { return Ok(None) };
            let roots: HashMap<u64, Node> =
                state.tree.roots().iter().map(|root| (root.index, *root)).collect();
            let manifest = verifier
                .filter(|verifier| request.manifest && !verifier.is_legacy())
                .map(|verifier| verifier.manifest().clone());
            (plan, roots, state.signature.clone(), manifest)
        };
        let missing: Vec<u64> = plan.nodes().filter(|index| !nodes.contains_key(index)).collect();
        let block = plan.block();
        let keys: Vec<Key> = block
            .map(|index| self.block_key(index))
            .into_iter()
            .chain(missing.iter().map(|index| self.node_key(*index)))
            .collect();
        let mut value = None;
        if !keys.is_empty() {
            let mut values = self.inner.storage.read(keys).await?.into_iter();
            if block.is_some() {
                value = values.next().flatten();
            }
            nodes.extend(decode_nodes(&missing, values)?);
        }
        let proof = plan.proof(fork, &nodes, value, &signature);
        Ok(proof
            .map(|proof| Proof { manifest, ..proof })
            .filter(|proof| *proof != Proof { fork, ..Proof::default() }))
    }
}
