//! Proofs that a feed's signers have contradicted themselves.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
};

use bytes::Bytes;

use super::Feed;
use crate::{
    error::{Error, PeerMisbehaved},
    feed::{
        conflict::Conflict,
        open::damaged,
        proof::{Proof, ProofRequest, UpgradeProof, UpgradeRequest},
        tree::Tree,
        verifier::Verifier,
        verify::{Verification, hash_proofs},
    },
    key::FeedKey,
};

impl Feed {
    /// That the feed's signers have signed two trees that exclude each other, if a peer has proved it. Such a feed is not
    /// replicated any more; what is stored of it can be read as before.
    pub fn conflict(&self) -> Option<Conflict> {
        self.state().conflict
    }

    /// Looks whether a peer's proof of an upgrade from 0 contradicts the tree that we have. If both are signed, that
    /// is [noted](Self::conflict), for good.
    ///
    /// `None` if there is no contradiction, or none that can be seen from what is stored here.
    ///
    /// # Errors
    /// [`PeerMisbehaved`] if the proof does not hold; or why our own tree could not be read, or the conflict not be stored.
    pub async fn check_conflict(&self, proof: Proof) -> Result<Option<Conflict>, Error> {
        let (verifier, fork, length) = {
            let state = self.state();
            (state.verifier.clone(), state.fork, state.tree.length())
        };
        let (Some(verifier), Some(theirs)) = (verifier, proof.upgrade) else { return Ok(None) };
        if proof.fork != fork || theirs.start != 0 || theirs.length > length {
            return Ok(None);
        }
        let request = ProofRequest {
            upgrade: Some(UpgradeRequest { start: 0, length: theirs.length }),
            ..ProofRequest::default()
        };
        let ours = self.prove(request, fork).await?.and_then(|proof| proof.upgrade);
        let Some(ours) = ours.filter(|ours| ours.length == theirs.length) else { return Ok(None) };
        if ours.nodes == theirs.nodes {
            return Ok(None);
        }
        let conflict = Conflict { fork, length: theirs.length };
        //= protocol-spec/07-replication.md#conflicts
        verify(self.key(), &verifier, fork, theirs.clone())?;
        // Ours was verified when it was stored; that it reads as it was written is not known.
        verify(self.key(), &verifier, fork, ours)
            .map_err(|_| damaged("the tree of a feed is not the one that was signed".into()))?;
        let contradiction = Proof { fork, upgrade: Some(theirs), ..Proof::default() };
        self.freeze(conflict, contradiction).await?;
        Ok(Some(conflict))
    }

    //= REPL-93, REPL-94
    async fn freeze(&self, conflict: Conflict, contradiction: Proof) -> Result<(), Error> {
        let mut turn = self.turn().await?;
        if self.conflict().is_some() {
            return Ok(());
        }
        // In memory first: it is not to be replicated, whether or not that can be stored.
        let update = {
            let mut state = self.inner.state.write().unwrap_or_else(PoisonError::into_inner);
            state.conflict = Some(conflict);
            state.contradiction = Some(Arc::new(contradiction));
            state.reorgs.clear();
            state.with_blocks(state.bitfield.with(std::iter::empty()))
        };
        let writes = self.writes(&update, &[]);
        self.commit(&mut turn, update, writes).await
    }
}

/// Verifies an upgrade from 0, and that the signers have meant its fork.
fn verify(
    key: FeedKey,
    verifier: &Verifier,
    fork: u64,
    upgrade: Box<UpgradeProof>,
) -> Result<(), PeerMisbehaved> {
    let proof = Proof { fork, upgrade: Some(upgrade), ..Proof::default() };
    let verifier = verifier.clone();
    let mut verification =
        Verification::new(key, Some(verifier.clone()), fork, Tree::default(), Bytes::new(), HashMap::new());
    let hashed = hash_proofs(vec![proof]).pop().ok_or(PeerMisbehaved::InvalidProof("no proof"))??;
    verification.verify(hashed)?;
    let (tree, signature) = verification.tree().ok_or(PeerMisbehaved::InvalidProof("no tree"))?;
    verifier.verify_fork(tree, fork, signature)
}
