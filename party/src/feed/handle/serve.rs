//! Answers to what peers ask for.

use bytes::Bytes;

use super::Feed;
use crate::{
    error::{Error, StorageError},
    feed::{
        manifest::Manifest,
        open::damaged,
        proof::{Node, Proof, ProofRequest},
        prove::{Plan, Planner, Planning},
        state::decode_node,
        storage::Key,
        verifier::Verifier,
    },
};

/// What a request has come to.
type Answer = Result<Option<Proof>, Error>;

impl Feed {
    /// Answers a request of a peer's. `None` if we don't have what it asks for, or are on another fork than
    /// the request.
    ///
    /// # Errors
    /// [`PeerMisbehaved::InvalidRequest`](crate::error::PeerMisbehaved::InvalidRequest) for what no feed of our length
    /// could answer, or why it could not be read.
    pub async fn prove(&self, request: ProofRequest, fork: u64) -> Result<Option<Proof>, Error> {
        self.prove_many(vec![(request, fork)]).await.pop().unwrap_or(Ok(None))
    }

    /// Answers requests as [`prove`](Self::prove) would one after the other, each with the fork that it is
    /// about, but reads all that they need in one go: neighbours share most of it. All the blocks are in
    /// memory at once, so how many to ask for is the caller's to limit.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
    /// # use party::feed::proof::{BlockRequest, ProofRequest};
    /// # use party::key::KeyPair;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// # let identity = Identity::writer(KeyPair::generate());
    /// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
    /// feed.append_batch(vec!["a".into(), "b".into(), "c".into()]).await?;
    /// let block = |index| ProofRequest { block: Some(BlockRequest { index, nodes: 0 }), ..Default::default() };
    ///
    /// let proofs = feed.prove_many(vec![(block(0), 0), (block(2), 0), (block(1), 7)]).await;
    /// let values: Vec<_> = proofs.into_iter().map(|proof| Some(proof.ok()??.block?.value)).collect();
    /// assert_eq!(values, [Some("a".into()), Some("c".into()), None]); // there is no fork 7
    /// # Ok(())
    /// # }
    /// ```
    pub async fn prove_many(&self, requests: Vec<(ProofRequest, u64)>) -> Vec<Result<Option<Proof>, Error>> {
        self.prove_up_to(&requests, usize::MAX).await
    }

    /// Answers the first of `requests`, at least one, up to the one with whose block those read have `bytes`
    /// bytes or more.
    pub(crate) async fn prove_up_to(&self, requests: &[(ProofRequest, u64)], bytes: usize) -> Vec<Answer> {
        loop {
            let before = self.undisturbed().await;
            if let Err(error) = self.check_purged() {
                return requests.iter().map(|_| Err(error.clone().into())).collect();
            }
            let answers = self.prove_from_storage(requests, bytes).await;
            // What was read while something was deleted may be of two trees.
            if self.is_unchanged(before) {
                return answers;
            }
        }
    }

    async fn prove_from_storage(&self, requests: &[(ProofRequest, u64)], bytes: usize) -> Vec<Answer> {
        match self.prove_together(requests, bytes).await {
            Ok(answers) => answers,
            Err(error) if requests.len() <= 1 => requests.iter().map(|_| Err(error.clone())).collect(),
            // What is wrong with one of them is no reason to refuse the others.
            Err(_) => {
                let (mut answers, mut read) = (Vec::with_capacity(requests.len()), 0_usize);
                for request in requests {
                    let alone = self.prove_together(std::slice::from_ref(request), bytes).await;
                    let answer = alone.map_or_else(Err, |mut answers| answers.pop().unwrap_or(Ok(None)));
                    if let Ok(Some(Proof { block: Some(block), .. })) = &answer {
                        read = read.saturating_add(block.value.len());
                    }
                    answers.push(answer);
                    if read >= bytes {
                        break;
                    }
                }
                answers
            }
        }
    }

    /// The error is one of reading, of any of them.
    async fn prove_together(
        &self,
        requests: &[(ProofRequest, u64)],
        bytes: usize,
    ) -> Result<Vec<Answer>, Error> {
        let mut making = self.begin_proofs(requests);
        self.plan_proofs(&mut making.answers).await?;

        let plans = || making.answers.iter().filter_map(Stage::plan);
        let mut indexes: Vec<u64> = plans().flat_map(Plan::nodes).collect();
        indexes.sort_unstable();
        indexes.dedup();
        let keys: Vec<Key> = (indexes.iter().map(|index| self.node_key(*index)))
            .chain(plans().filter_map(Plan::block).map(|index| self.block_key(index)))
            .collect();
        let mut values = match keys.is_empty() {
            true => Vec::new().into_iter(),
            false => self.inner.storage.read_up_to(keys, bytes).await?.into_iter(),
        };
        let nodes = Nodes::decode(indexes, &mut values)?;

        let mut answers = Vec::with_capacity(requests.len());
        for (stage, (request, fork)) in making.answers.into_iter().zip(requests) {
            let plan = match stage {
                Stage::Done(answer) => {
                    answers.push(answer);
                    continue;
                }
                Stage::Planning(_) => {
                    answers.push(Ok(None));
                    continue;
                }
                Stage::Planned(plan) => plan,
            };
            let value = match plan.block() {
                None => None,
                Some(_) => match values.next() {
                    Some(value) => value,
                    None if !answers.is_empty() => break,
                    // Not even the first was read, which no storage should do.
                    None => None,
                },
            };
            let proof = plan.proof_of(*fork, |index| nodes.get(index), value, &making.signature);
            let manifest = making.manifest.as_ref().filter(|_| request.manifest).cloned();
            answers.push(Ok(proof
                .map(|proof| Proof { manifest, ..proof })
                .filter(|proof| *proof != Proof { fork: *fork, ..Proof::default() })));
        }
        Ok(answers)
    }

    /// What follows from the state in memory.
    fn begin_proofs(&self, requests: &[(ProofRequest, u64)]) -> Making {
        let state = self.state();
        let verifier = state.verifier.as_ref();
        let prologue = verifier.map_or(0, Verifier::prologue_length);
        let begin = |(request, fork): &(ProofRequest, u64)| {
            if *fork != state.fork || request.block.is_some_and(|block| !state.bitfield.get(block.index)) {
                return Stage::Done(Ok(None));
            }
            match Planner::new(request, &state.tree, prologue) {
                Ok(Some(planner)) => Stage::Planning(planner),
                Ok(None) => Stage::Done(Ok(None)),
                Err(error) => Stage::Done(Err(error.into())),
            }
        };
        let wants_manifest = requests.iter().any(|(request, _)| request.manifest);
        Making {
            answers: requests.iter().map(begin).collect(),
            signature: state.signature.clone(),
            manifest: verifier
                .filter(|verifier| wants_manifest && !verifier.is_legacy())
                .map(|verifier| verifier.manifest().clone().into()),
        }
    }

    /// Reads what it takes to know which nodes are needed; nothing but for seeks.
    async fn plan_proofs(&self, answers: &mut [Stage]) -> Result<(), Error> {
        loop {
            let mut needed: Vec<u64> = Vec::new();
            for stage in answers.iter_mut() {
                let Stage::Planning(planner) = stage else { continue };
                match planner.poll() {
                    Ok(Planning::Read(indexes)) => needed.extend(indexes),
                    Ok(Planning::Ready(plan)) => *stage = Stage::Planned(plan),
                    Ok(Planning::Unavailable) => *stage = Stage::Done(Ok(None)),
                    Err(error) => *stage = Stage::Done(Err(error.into())),
                }
            }
            if needed.is_empty() {
                return Ok(());
            }
            needed.sort_unstable();
            needed.dedup();
            let nodes = self.read_nodes(&needed).await?;
            for stage in answers.iter_mut() {
                if let Stage::Planning(planner) = stage {
                    planner.handle_nodes(&nodes);
                }
            }
        }
    }
}

/// Answers to several requests, as far as they are made.
struct Making {
    answers: Vec<Stage>,
    signature: Bytes,
    /// If anybody asks for it and there is one to show.
    manifest: Option<Box<Manifest>>,
}

#[allow(clippy::large_enum_variant)] // short-lived; a box would cost an allocation for every request
enum Stage {
    Planning(Planner),
    Planned(Plan),
    Done(Answer),
}

impl Stage {
    fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Planned(plan) => Some(plan),
            Self::Planning(_) | Self::Done(_) => None,
        }
    }
}

/// Nodes that were read, sorted.
struct Nodes {
    indexes: Vec<u64>,
    nodes: Vec<Option<Node>>,
}

impl Nodes {
    /// Takes the first of `values`, which were read under `indexes`.
    fn decode(
        indexes: Vec<u64>,
        values: &mut impl Iterator<Item = Option<Bytes>>,
    ) -> Result<Self, StorageError> {
        let decode = |(index, value): (&u64, Option<Bytes>)| {
            let node = value.map(|value| decode_node(*index, &value)).transpose();
            node.map_err(|_| damaged(format!("tree node {index}")))
        };
        let nodes = indexes.iter().zip(values.by_ref()).map(decode).collect::<Result<_, _>>()?;
        Ok(Self { indexes, nodes })
    }

    fn get(&self, index: u64) -> Option<Node> {
        let at = self.indexes.binary_search(&index).ok()?;
        self.nodes.get(at).copied().flatten()
    }
}
