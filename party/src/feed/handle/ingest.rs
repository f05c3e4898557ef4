//! Proofs of peers, taken in.

use std::collections::BTreeMap;

use super::{Feed, commit::Turn};
use crate::{
    error::Error,
    feed::{
        proof::{Node, Proof},
        state::Update,
        storage::Write,
        verify::{Verification, VerifiedProof, hash_proofs},
    },
};

/// What came of a proof that was taken in.
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// use party::feed::{Ingested, proof::{BlockRequest, ProofRequest, UpgradeRequest}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// # let mine = Identity::writer(KeyPair::generate());
/// # let theirs = Identity::reader(mine.key);
/// # let writer = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), mine).await?;
/// # let reader = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), theirs).await?;
/// writer.append("hello").await?;
/// let request = ProofRequest {
///     block: Some(BlockRequest { index: 0, nodes: 0 }),
///     upgrade: Some(UpgradeRequest { start: 0, length: 1 }),
///     manifest: true,
///     ..ProofRequest::default()
/// };
/// let proof = writer.prove(request, 0).await?.expect("it has the block");
/// let ingested = reader.ingest(vec![proof]).await.remove(0)?;
/// assert_eq!(ingested, Ingested { block: Some(0), length: Some(1), manifest: true, ..Ingested::default() });
/// assert_eq!(reader.get(0).await?, Some("hello".into()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ingested {
    /// The block that it brought, which is stored now.
    pub block: Option<u64>,
    /// The length that the feed grew to by it.
    pub length: Option<u64>,
    /// Whether the feed's manifest was learned from it.
    pub manifest: bool,
    /// It was about a state of the feed that has passed, and nothing was taken from it.
    pub stale: bool,
    /// It rests on what is not known here, a node of the tree or a length, and nothing was taken from it.
    /// Either it came before what it rests on, or it is false: whoever asked for it can tell.
    pub unconnected: bool,
}

impl Feed {
    /// Takes in proofs: verifies them, where each may rest on any other of them, and then stores all that
    /// hold in one commit. Says for each what came of it.
    ///
    /// # Errors
    /// For each proof, [`PeerMisbehaved`](crate::error::PeerMisbehaved) if it does not hold; what is too late or too
    /// early is no error. If the commit fails, nothing is stored, and every proof that held gets that error.
    pub async fn ingest(&self, proofs: Vec<Proof>) -> Vec<Result<Ingested, Error>> {
        let hashed = hash_proofs(proofs);
        let mut turn = match self.turn().await {
            Ok(turn) => turn,
            Err(error) => return hashed.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut verification = {
            let needed: Vec<u64> = {
                let state = self.state();
                let roots = state.tree.roots();
                let mut needed: Vec<u64> = hashed
                    .iter()
                    .flatten()
                    .filter_map(|proof| proof.needs())
                    .filter(|index| roots.iter().all(|root| root.index != *index))
                    .collect();
                needed.sort_unstable();
                needed.dedup();
                needed
            };
            let stored = match self.read_nodes(&needed).await {
                Ok(stored) => stored,
                Err(error) => return hashed.iter().map(|_| Err(error.clone())).collect(),
            };
            let state = self.state();
            Verification::new(
                self.inner.key,
                state.verifier.clone(),
                state.fork,
                state.tree.clone(),
                state.signature.clone(),
                stored,
            )
        };
        let verified: Vec<Result<VerifiedProof, Error>> =
            verification.verify_all(hashed).into_iter().map(|proof| Ok(proof?)).collect();
        let stored = self.store(&mut turn, &verification, &verified).await;
        verified
            .into_iter()
            .map(|proof| {
                let proof = proof?;
                stored.clone()?;
                Ok(Ingested {
                    block: proof.block().map(|(index, _)| index),
                    length: proof.length(),
                    manifest: proof.manifest(),
                    stale: proof.is_stale(),
                    unconnected: proof.is_unconnected(),
                })
            })
            .collect()
    }

    /// Stores what proofs have shown, if there is anything new in it.
    async fn store<'f>(
        &'f self,
        turn: &mut Turn<'f>,
        verification: &Verification,
        verified: &[Result<VerifiedProof, Error>],
    ) -> Result<(), Error> {
        let mut nodes = BTreeMap::new();
        let mut blocks = BTreeMap::new();
        let update = {
            let state = self.state();
            for proof in verified.iter().flatten() {
                nodes.extend(proof.nodes().iter().map(|node| (node.index, *node)));
                blocks.extend(
                    proof
                        .block()
                        .filter(|(index, _)| !state.bitfield.get(*index))
                        .map(|(index, value)| (index, value.clone())),
                );
            }
            let grown = verification.tree();
            let learned = verification.learned();
            if blocks.is_empty() && nodes.is_empty() && grown.is_none() && learned.is_none() {
                return Ok(());
            }
            let (tree, signature) = grown.unwrap_or((&state.tree, &state.signature));
            Update {
                fork: state.fork,
                tree: tree.clone(),
                signature: signature.clone(),
                verifier: learned.or(state.verifier.as_ref()).cloned(),
                blocks: state.bitfield.with(blocks.keys().copied()),
                cut: None,
            }
        };
        let nodes: Vec<Node> = nodes.into_values().collect();
        let mut writes = self.writes(&update, &nodes);
        writes.extend(blocks.into_iter().map(|(index, value)| Write::Put(self.block_key(index), value)));
        self.commit(turn, update, writes).await
    }
}
