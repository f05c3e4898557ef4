//! Proofs taken in whatever order and batches they come in.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::common::storage::as_in;
use crate::peer::{Peer, SLOT};
use bytes::Bytes;
use party::{
    error::{Error, PeerMisbehaved},
    feed::{
        Feed, Identity, Ingested,
        memory::MemoryStorage,
        proof::{BlockRequest, Proof, ProofRequest, UpgradeRequest},
        storage::{Completion, Key, Storage},
    },
    key::KeyPair,
};
use proptest::prelude::*;

async fn writer() -> Peer {
    Peer::new(Identity::writer(KeyPair::from_seed(&[1; 32]))).await
}

async fn reader_of(writer: &Peer) -> Peer {
    Peer::new(Identity::reader(writer.feed.key())).await
}

impl Peer {
    async fn grow(&self, blocks: u64) {
        let start = self.length();
        let blocks = (start..start + blocks).map(|n| Bytes::from(vec![n as u8; n as usize % 150])).collect();
        self.feed.append_batch(blocks).await.unwrap();
    }

    async fn answer(&self, request: ProofRequest) -> Proof {
        self.feed.prove(request, 0).await.unwrap().unwrap()
    }

    async fn values(&self, keys: impl Iterator<Item = Key>) -> Vec<Option<Bytes>> {
        self.storage.read(keys.collect()).await.unwrap()
    }

    async fn nodes(&self, length: u64) -> Vec<Option<Bytes>> {
        self.values((0..2 * length).map(|index| Key::Node(SLOT, index))).await
    }

    /// It has all that the writer has, and nothing else.
    async fn assert_equals(&self, writer: &Self) {
        let length = writer.length();
        assert_eq!(self.feed.info().length, length);
        assert_eq!(self.feed.info().contiguous_length, length);
        assert_eq!(self.nodes(length + 1).await, writer.nodes(length + 1).await);
        let blocks = || (0..length + 1).map(|index| Key::Block(SLOT, index));
        assert_eq!(self.values(blocks()).await, writer.values(blocks()).await);
        assert!(self.feed.audit().await.unwrap().is_clean());
    }
}

/// The nodes that a reader has when all that it asked for has come.
#[derive(Default)]
struct Expected {
    nodes: BTreeSet<u64>,
    length: u64,
}

impl Expected {
    /// How many levels above node `index` the first stands that is expected; all up to it are from now on.
    fn climb(&mut self, mut index: u64) -> u64 {
        let mut levels = 0;
        while self.nodes.insert(index) {
            self.nodes.insert(flat_tree::sibling(index));
            index = flat_tree::parent(index);
            levels += 1;
        }
        levels
    }

    fn block(&mut self, index: u64) -> ProofRequest {
        // The sibling of a leaf is brought by the proof of either.
        let nodes = self.climb(2 * index);
        ProofRequest { block: Some(BlockRequest { index, nodes }), ..none() }
    }

    fn upgrade(&mut self, length: u64) -> ProofRequest {
        let (mut old, mut new) = (vec![], vec![]);
        flat_tree::full_roots(2 * self.length, &mut old);
        flat_tree::full_roots(2 * length, &mut new);
        self.nodes.extend(&new);
        for root in old.into_iter().filter(|root| !new.contains(root)) {
            self.nodes.remove(&root);
            self.climb(root);
        }
        let start = std::mem::replace(&mut self.length, length);
        let upgrade = Some(UpgradeRequest { start, length: length - start });
        ProofRequest { upgrade, manifest: start == 0, ..none() }
    }
}

/// Proofs of all that a writer has, each with no more nodes than those before it leave to be brought; `steps` are
/// blocks appended at a time.
async fn proofs(writer: &Peer, steps: &[u64], order: &[usize]) -> Vec<Proof> {
    let (mut proofs, mut expected, mut order) = (vec![], Expected::default(), order.iter().cycle());
    for step in steps {
        let start = writer.length();
        writer.grow(*step).await;
        proofs.push(writer.answer(expected.upgrade(start + step)).await);
        let mut left: Vec<u64> = (start..start + step).collect();
        while !left.is_empty() {
            let index = left.remove(order.next().unwrap() % left.len());
            proofs.push(writer.answer(expected.block(index)).await);
        }
    }
    proofs
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn shuffle<T>(items: &mut [T], order: &[usize]) {
    for (n, pick) in (1..items.len()).rev().zip(order.iter().cycle()) {
        items.swap(n, pick % (n + 1));
    }
}

/// Takes in all of them in batches, and those that came too early again with the next.
async fn take_in(reader: &Peer, mut proofs: Vec<Proof>, batches: &[usize]) -> Vec<Error> {
    let mut errors = vec![];
    let mut early: Vec<Proof> = vec![];
    let mut sizes = batches.iter().copied().cycle();
    while !proofs.is_empty() {
        let mut batch = early;
        batch.extend(proofs.drain(..sizes.next().unwrap().min(proofs.len())));
        early = vec![];
        for (result, proof) in reader.feed.ingest(batch.clone()).await.into_iter().zip(batch) {
            match result {
                Ok(Ingested { unconnected: true, block, length, .. }) => {
                    assert_eq!((block, length), (None, None));
                    early.push(proof);
                }
                Ok(ingested) => {
                    assert_eq!(ingested.block, proof.block.map(|block| block.index));
                    assert!(ingested.block.is_none_or(|block| reader.feed.has(block)));
                }
                Err(error) => errors.push(error),
            }
        }
    }
    assert!(early.is_empty(), "{} of them rest on nothing", early.len());
    errors
}

proptest! {
    //= FEED-66
    #[test]
    fn any_order_and_any_batches_of_minimal_proofs_make_the_same_feed(
        steps in prop::collection::vec(1u64..40, 1..4),
        asked in prop::collection::vec(any::<usize>(), 1..40),
        shuffled in prop::collection::vec(any::<usize>(), 1..40),
        batches in prop::collection::vec(1usize..60, 1..6),
    ) {
        run(async {
            let writer = writer().await;
            let mut proofs = proofs(&writer, &steps, &asked).await;
            shuffle(&mut proofs, &shuffled);
            let reader = reader_of(&writer).await;
            assert!(take_in(&reader, proofs, &batches).await.is_empty());
            reader.assert_equals(&writer).await;
        });
    }

    //= FEED-63
    #[test]
    fn a_wrong_proof_among_them_harms_no_other(
        steps in prop::collection::vec(1u64..40, 1..3),
        asked in prop::collection::vec(any::<usize>(), 1..40),
        shuffled in prop::collection::vec(any::<usize>(), 1..40),
        batches in prop::collection::vec(1usize..60, 1..6),
        lies in prop::collection::vec((any::<usize>(), any::<usize>(), 0usize..4), 1..6),
    ) {
        run(async {
            let writer = writer().await;
            let mut proofs = proofs(&writer, &steps, &asked).await;
            let true_ones = proofs.len();
            for (proof, place, how) in lies {
                let mut lie = proofs[proof % true_ones].clone();
                if falsify(&mut lie, place, how) {
                    proofs.push(lie);
                }
            }
            let wrong = proofs.len() - true_ones;
            shuffle(&mut proofs, &shuffled);
            let reader = reader_of(&writer).await;
            let errors = take_in(&reader, proofs, &batches).await;
            assert_eq!(errors.len(), wrong);
            for error in errors {
                assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::InvalidProof(_))), "{error}");
            }
            reader.assert_equals(&writer).await;
        });
    }
}

/// Changes a true block proof into a false one; false if there was nothing to change.
fn falsify(proof: &mut Proof, place: usize, how: usize) -> bool {
    let Some(block) = &mut proof.block else { return false };
    let place = place % block.nodes.len().max(1);
    match how {
        0 => block.value = [&block.value[..], b"!"].concat().into(),
        _ if block.nodes.is_empty() => return false,
        1 => block.nodes[place].hash[7] ^= 1,
        2 => block.nodes[place].size += 1,
        _ => block.nodes[place].index += 1,
    }
    true
}

//= FEED-67
#[test]
fn what_rests_on_nothing_is_no_offence_and_nothing_of_it_is_stored() {
    run(async {
        let writer = writer().await;
        let all = proofs(&writer, &[16], &[0]).await;
        let reader = reader_of(&writer).await;
        // Not even the length is known.
        let early = reader.feed.ingest(vec![all[1].clone(), all[5].clone()]).await;
        let unconnected = Ingested { unconnected: true, ..Ingested::default() };
        assert!(early.into_iter().all(|result| result.unwrap() == unconnected));
        // The length is; and what block 4 rests on is not.
        reader.feed.ingest(vec![all[0].clone()]).await.remove(0).unwrap();
        let nodes = reader.nodes(16).await;
        assert_eq!(reader.feed.ingest(vec![all[2].clone()]).await.remove(0).unwrap(), unconnected);
        assert_eq!(reader.nodes(16).await, nodes);
        // What is not on the way to anything is not known by being said twice.
        let twice = vec![all[2].clone(), all[2].clone()];
        assert!(reader.feed.ingest(twice).await.into_iter().all(|result| result.unwrap() == unconnected));
        assert!((0..16).all(|index| !reader.feed.has(index)));
        take_in(&reader, all[1..].to_vec(), &[100]).await;
        reader.assert_equals(&writer).await;
    });
}

#[test]
fn a_false_proof_does_not_hide_what_is_stored() {
    run(async {
        let writer = writer().await;
        writer.grow(16).await;
        let reader = reader_of(&writer).await;
        let block = |index, nodes| ProofRequest { block: Some(BlockRequest { index, nodes }), ..none() };
        let upgrade =
            ProofRequest { upgrade: Some(UpgradeRequest { start: 0, length: 16 }), manifest: true, ..none() };
        let beginning = vec![writer.answer(upgrade).await, writer.answer(block(0, 4)).await];
        assert!(reader.feed.ingest(beginning).await.iter().all(Result::is_ok));
        // Node 5 is stored. The false proof is of what is below it, and seems to bring it.
        let mut lie = writer.answer(block(2, 4)).await;
        assert!(falsify(&mut lie, 0, 0));
        let results = reader.feed.ingest(vec![lie, writer.answer(block(3, 1)).await]).await;
        assert!(matches!(results[0], Err(Error::PeerMisbehaved(PeerMisbehaved::InvalidProof(_)))));
        assert_eq!(results[1].as_ref().unwrap().block, Some(3));
    });
}

#[test]
fn only_nodes_that_no_other_proof_brings_are_read() {
    run(async {
        let writer = writer().await;
        let proofs = proofs(&writer, &[64], &[0]).await;
        let storage = Arc::new(Counting::default());
        let reader = Feed::create(storage.clone(), SLOT, Identity::reader(writer.feed.key())).await.unwrap();
        reader.ingest(proofs[..20].to_vec()).await;
        storage.reads.store(0, Ordering::Relaxed);
        assert!(reader.ingest(proofs[20..].to_vec()).await.iter().all(Result::is_ok));
        assert_eq!(reader.info().contiguous_length, 64);
        // Beside the first blocks' way up stand nodes that were stored with these, one at each level.
        assert!(storage.reads.load(Ordering::Relaxed) <= 6);
    });
}

fn none() -> ProofRequest {
    ProofRequest::default()
}

/// Counts the keys that are read.
#[derive(Default)]
struct Counting {
    storage: MemoryStorage,
    reads: AtomicUsize,
}

impl Storage for Counting {
    as_in!(storage: records, commit, snapshot, close);

    fn read(&self, keys: Vec<Key>) -> Completion<Vec<Option<Bytes>>> {
        self.reads.fetch_add(keys.len(), Ordering::Relaxed);
        self.storage.read(keys)
    }
}
