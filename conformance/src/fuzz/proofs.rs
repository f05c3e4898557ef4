//! Many proofs at once, honest ones and others, in any order.

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use party::feed::{
    proof::{BlockRequest, Proof, ProofRequest, SeekRequest, UpgradeRequest},
    prove::{Planner, Planning},
    verify::hash_proofs,
};

use super::{
    input::steps,
    sketch::{BLOCKS, Sketch, Standing},
    slow_tree::{Refused, SlowVerifier, Truth, Verdict},
};

#[derive(Arbitrary, Debug)]
enum Step {
    Honest(Asked),
    Changed(Sketch),
}

/// What somebody asks of who has all of the feed up to a length.
#[derive(Arbitrary, Clone, Debug)]
struct Asked {
    length: u8,
    block: Option<(u8, u8)>,
    hash: Option<(u8, u8)>,
    seek: Option<(u8, u8)>,
    /// From where who asks stands, or from elsewhere.
    upgrade: Option<(u8, u8)>,
}

impl Asked {
    fn request(&self, at: &SlowVerifier<'_>) -> ProofRequest {
        let target = |(index, nodes): (u8, u8)| BlockRequest {
            index: u64::from(index) % (2 * BLOCKS),
            nodes: (nodes % 6).into(),
        };
        let upgrade = self.upgrade.map(|(start, length)| UpgradeRequest {
            start: if start < 200 { at.length } else { start.into() },
            length: u64::from(length) % (BLOCKS + 1),
        });
        let seek = self.seek.map(|(bytes, padding)| SeekRequest {
            bytes: u64::from(bytes) % 100,
            padding: if padding < 200 { 0 } else { padding.into() },
        });
        let hash = self.hash.filter(|_| self.block.is_none()).map(target);
        ProofRequest { block: self.block.map(target), hash, seek, upgrade, manifest: !at.is_settled }
    }

    /// The answer of who has the feed; `None` if there is none to give.
    fn answer(&self, at: &SlowVerifier<'_>) -> Option<Proof> {
        let truth = at.truth;
        let length = u64::from(self.length) % BLOCKS + 1;
        let signature = truth.signatures.get(&length)?;
        let request = self.request(at);
        let mut planner = Planner::new(&request, &truth.tree(length), 0).ok()??;
        let plan = loop {
            match planner.poll().ok()? {
                Planning::Read(indexes) => {
                    let nodes = indexes.into_iter().filter_map(|index| Some((index, truth.node(index)?)));
                    planner.handle_nodes(&nodes.collect());
                }
                Planning::Ready(plan) => break plan,
                Planning::Unavailable => panic!("all is there"),
            }
        };
        let nodes =
            plan.nodes().map(|index| (index, truth.node(index).expect("a node of the tree"))).collect();
        let value: Option<Bytes> = plan.block().map(|index| truth.blocks[index as usize].clone());
        let mut proof = plan.proof(0, &nodes, value, signature).expect("all is there");
        proof.manifest = request.manifest.then(|| truth.verifier.manifest().clone().into());
        Some(proof)
    }
}

/// Whatever comes with them, honest proofs are held against nobody, and what is taken is the writer's. Without upgrades,
/// which proofs hold does not depend on the order.
pub fn proofs(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(standing) = input.arbitrary::<Standing>() else { return };
    let mut slow = standing.slow_verifier();
    let mut honest = Vec::new();
    let mut batch = Vec::new();
    for step in steps::<Step>(input).take(40) {
        let (is_honest, proof) = match step {
            Step::Honest(asked) => {
                let Some(proof) = asked.answer(&slow) else { continue };
                (true, proof)
            }
            Step::Changed(sketch) => (false, sketch.proof(&slow)),
        };
        honest.push(is_honest);
        batch.push(proof);
    }
    let mut ours = standing.verification();
    let results = ours.verify_all(hash_proofs(batch.clone()));
    assert_eq!(results.len(), batch.len());
    for ((result, proof), is_honest) in results.iter().zip(&batch).zip(honest) {
        match result {
            Ok(verified) => {
                assert!(slow.has(verified.nodes()), "what is not in the tree: {proof:?}");
                assert!(is_of(slow.truth, verified.block()), "what the writer has not written: {proof:?}");
            }
            Err(error) => assert!(!is_honest, "{error}: {proof:?}"),
        }
    }
    if let Some((tree, signature)) = ours.tree() {
        assert_eq!(*tree, slow.truth.tree(tree.length()));
        assert_eq!(Some(signature), slow.truth.signatures.get(&tree.length()));
    }
    if batch.iter().all(|proof| proof.upgrade.is_none() && proof.manifest.is_none()) {
        let expected = in_any_order(&mut slow, &batch);
        for ((result, expected), proof) in results.iter().zip(expected).zip(&batch) {
            let (block, is_wrong) = match &expected {
                Ok(verdict) => (verdict.block, false),
                Err(refused) => (None, *refused == Refused::Wrong),
            };
            match result {
                Ok(verified) => {
                    assert!(!is_wrong, "{proof:?}");
                    assert_eq!(verified.block().map(|(index, _)| index), block, "{proof:?}");
                    assert_eq!(verified.is_unconnected(), expected == Err(Refused::Unconnected), "{proof:?}");
                }
                Err(error) => assert!(is_wrong, "{error}, but {expected:?}: {proof:?}"),
            }
        }
    }
}

fn is_of(truth: &Truth, block: Option<(u64, &Bytes)>) -> bool {
    block.is_none_or(|(index, value)| truth.blocks.get(index as usize) == Some(value))
}

/// Looks at all of them again and again, until nothing is learned any more.
fn in_any_order(slow: &mut SlowVerifier<'_>, batch: &[Proof]) -> Vec<Result<Verdict, Refused>> {
    let mut results: Vec<_> = batch.iter().map(|_| Err(Refused::Unconnected)).collect();
    loop {
        let before = slow.known.len();
        for (result, proof) in results.iter_mut().zip(batch) {
            if *result == Err(Refused::Unconnected) {
                *result = slow.check(proof);
            }
        }
        if slow.known.len() == before {
            return results;
        }
    }
}
