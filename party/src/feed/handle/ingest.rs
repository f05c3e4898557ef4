//! Proofs of peers, taken in.

use std::collections::HashMap;

use bytes::Bytes;

use super::{Feed, commit::Turn};
use crate::{
    error::{Error, PeerMisbehaved, StorageError},
    feed::{
        proof::{Node, Proof},
        state::Update,
        storage::Write,
        verify::{HashedProof, Verification, VerifiedProof, batch::Batch, hash_proofs},
    },
};

/// From how many bytes of blocks on they are hashed apart: below, handing them over and back takes longer than
/// other tasks would wait.
const LONG_BYTES: usize = 256 << 10;

/// Proofs that were checked, and what was found.
type Verified = (Verification, Vec<Result<VerifiedProof, PeerMisbehaved>>);

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
        self.ingest_after(proofs, std::future::ready(())).await
    }

    /// As [`ingest`](Self::ingest), with the feed as it is after `before`. Hashes are computed beside that.
    pub(crate) async fn ingest_after(
        &self,
        proofs: Vec<Proof>,
        before: impl Future<Output = ()>,
    ) -> Vec<Result<Ingested, Error>> {
        let count = proofs.len();
        let all_failed = |error: Error| vec![Err(error); count];
        let hashed = match hash(proofs).await {
            Ok(hashed) => hashed,
            Err(error) => return all_failed(error),
        };
        before.await;
        let mut turn = match self.turn().await {
            Ok(turn) => turn,
            Err(error) => return all_failed(error),
        };
        let (verification, verified) = match self.verify(hashed).await {
            Ok(verified) => verified,
            Err(error) => return all_failed(error),
        };
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

    /// Verifies proofs with what the feed has. Only those nodes are read which they rest on and none of them
    /// brings.
    async fn verify(&self, proofs: Vec<Result<HashedProof, PeerMisbehaved>>) -> Result<Verified, Error> {
        let mut verification = {
            let state = self.state();
            Verification::new(
                self.inner.key,
                state.verifier.clone(),
                state.fork,
                state.tree.clone(),
                state.signature.clone(),
                HashMap::new(),
            )
        };
        let mut batch = Batch::new(proofs);
        for brought in [false, true] {
            // What a false proof said it would bring may be stored.
            let missing = batch.missing(&verification, brought);
            if missing.is_empty() && brought {
                break;
            }
            self.read_nodes(&missing).await?.into_values().for_each(|node| verification.know(node));
            batch.run(&mut verification);
        }
        let verified = batch.finish(&verification);
        Ok((verification, verified))
    }

    /// Stores what proofs have shown, if there is anything new in it.
    //= FEED-64
    async fn store<'f>(
        &'f self,
        turn: &mut Turn<'f>,
        verification: &Verification,
        verified: &[Result<VerifiedProof, PeerMisbehaved>],
    ) -> Result<(), Error> {
        let proofs = || verified.iter().flatten();
        // None is there twice: each is new to those before.
        let mut nodes: Vec<Node> = proofs().flat_map(|proof| proof.nodes()).copied().collect();
        nodes.sort_unstable_by_key(|node| node.index);
        let mut blocks: Vec<(u64, &Bytes)>;
        let mut update = {
            let state = self.state();
            let is_new = |index: &u64| !state.bitfield.get(*index);
            blocks = proofs().filter_map(VerifiedProof::block).filter(|(index, _)| is_new(index)).collect();
            blocks.sort_unstable_by_key(|(index, _)| *index);
            blocks.dedup_by_key(|(index, _)| *index);
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
                blocks: state.bitfield.with(blocks.iter().map(|(index, _)| *index)),
                cut: None,
            }
        };
        if self.demands().are_tracked() {
            let sizes = blocks.iter().map(|(index, block)| (*index, block.len() as u64));
            update.blocks.note_received(sizes.collect());
        }
        let mut writes = self.writes(&update, &nodes);
        writes.reserve_exact(blocks.len());
        writes.extend(
            blocks.into_iter().map(|(index, value)| Write::Put(self.block_key(index), value.clone())),
        );
        self.commit(turn, update, writes).await
    }
}

/// Hashes proofs: here, or where it keeps no task waiting if it takes long.
async fn hash(proofs: Vec<Proof>) -> Result<Vec<Result<HashedProof, PeerMisbehaved>>, Error> {
    let blocks = proofs.iter().filter_map(|proof| proof.block.as_ref());
    let bytes: usize = blocks.map(|block| block.value.len()).sum();
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) if bytes >= LONG_BYTES => {
            // It doesn't panic. If the runtime ends before it has begun, so does whoever waits.
            runtime.spawn_blocking(|| hash_proofs(proofs)).await.map_err(|_| StorageError::Closed.into())
        }
        _ => Ok(hash_proofs(proofs)),
    }
}
