//! Feeds that replicate by random requests in any order, and that are lied to.

use std::collections::BTreeSet;

use crate::peer::{Peer, SLOT};
use bytes::Bytes;
use party::{
    encoding::MAX_SAFE_INTEGER,
    error::Error,
    feed::{
        Feed, Identity,
        proof::{
            BlockProof, BlockRequest, HashProof, Node, Proof, ProofRequest, SeekProof, UpgradeProof,
            UpgradeRequest,
        },
        storage::{Key, Storage},
    },
    key::KeyPair,
};
use proptest::{prelude::*, sample::Index};

impl Peer {
    /// What this peer would ask for: its own length and the nodes that it lacks.
    fn request(&self, block: Option<u64>, upgrade_to: Option<u64>) -> ProofRequest {
        self.feed.with_local(|local| ProofRequest {
            block: block.map(|index| BlockRequest { index, nodes: local.missing_nodes(index) }),
            upgrade: upgrade_to
                .filter(|to| *to > local.length())
                .map(|to| UpgradeRequest { start: local.length(), length: to - local.length() }),
            manifest: local.needs_manifest(),
            ..ProofRequest::default()
        })
    }

    /// What is stored is a part of what the writer has.
    async fn check_stored_against(&self, writer: &Peer) {
        for index in 0..2 * writer.length() + 4 {
            if let Some(node) = self.node(index).await {
                assert_eq!(Some(node), writer.node(index).await, "node {index}");
            }
        }
        let blocks = (0..writer.length() + 4).map(|index| Key::Block(SLOT, index)).collect();
        let blocks = self.storage.read(blocks).await.unwrap();
        for (index, block) in (0..).zip(blocks) {
            assert_eq!(block.is_some(), self.feed.has(index), "block {index}");
            if block.is_some() {
                assert_eq!(block, writer.feed.get(index).await.unwrap(), "block {index}");
            }
        }
        for far in [MAX_SAFE_INTEGER, u64::MAX] {
            assert!(!self.feed.has(far));
        }
    }

    /// What comes back from storage is what was there.
    async fn check_reopened(&self) {
        let identity = Identity::reader(self.feed.key());
        let again = Feed::create(self.storage.clone(), SLOT, identity).await.unwrap();
        assert_eq!(again.info().length, self.length());
        assert_eq!(again.info().byte_length, self.feed.info().byte_length);
        assert_eq!(again.info().contiguous_length, self.feed.info().contiguous_length);
        for index in 0..self.length() {
            assert_eq!(again.has(index), self.feed.has(index));
        }
    }
}

fn block(n: u64) -> Bytes {
    Bytes::from(vec![n as u8; (n as usize * 7) % 50])
}

async fn append(writer: &Peer, n: u64) {
    let from = writer.length();
    writer.feed.append_batch((from..from + n).map(block).collect()).await.unwrap();
}

fn identity(legacy: bool) -> Identity {
    let pair = KeyPair::from_seed(&[1; 32]);
    if legacy { Identity::legacy_writer(pair) } else { Identity::writer(pair) }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    /// A reader asks another peer, the writer or a reader, and keeps the answer for later.
    Ask {
        reader: usize,
        source: Index,
        block: Option<Index>,
        upgrade: Option<Index>,
    },
    /// It takes in what it has kept, all at once, in this order.
    Ingest {
        reader: usize,
        order: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (1u64..12).prop_map(Step::Append),
        6 => (0usize..2, any::<Index>(), any::<Option<Index>>(), any::<Option<Index>>())
            .prop_map(|(reader, source, block, upgrade)| Step::Ask { reader, source, block, upgrade }),
        2 => (0usize..2, any::<u64>()).prop_map(|(reader, order)| Step::Ingest { reader, order }),
    ]
}

async fn converge(steps: Vec<Step>, legacy: bool) {
    let identity = identity(legacy);
    let writer = Peer::new(identity.clone()).await;
    append(&writer, 1).await;
    let readers =
        [Peer::new(Identity::reader(identity.key)).await, Peer::new(Identity::reader(identity.key)).await];
    let mut kept: [Vec<Proof>; 2] = Default::default();
    for step in steps {
        match step {
            Step::Append(n) => append(&writer, n).await,
            Step::Ask { reader, source, block, upgrade } => {
                let other = [&writer, &readers[1 - reader]];
                let source = source.get(&other);
                let length = source.length();
                if length == 0 {
                    continue;
                }
                let upgrade = upgrade.map(|to| to.index(length as usize) as u64 + 1);
                let known = upgrade.unwrap_or(0).max(readers[reader].length()).min(length);
                let block = block.filter(|_| known > 0).map(|index| index.index(known as usize) as u64);
                let request = readers[reader].request(block, upgrade);
                kept[reader].extend(source.feed.prove(request, 0).await.unwrap());
            }
            Step::Ingest { reader, order } => {
                let mut proofs = std::mem::take(&mut kept[reader]);
                let reader = &readers[reader];
                let upgrades = proofs.iter().any(|proof| proof.upgrade.is_some());
                if !upgrades && !proofs.is_empty() {
                    // Without upgrades among them, blocks may come in any order.
                    let middle = order as usize % proofs.len();
                    proofs.rotate_left(middle);
                }
                let held = proofs.clone();
                for (result, proof) in reader.feed.ingest(proofs).await.into_iter().zip(held) {
                    let done = result.unwrap_or_else(|error| panic!("{error}: {proof:?}"));
                    if let Some(block) = done.block {
                        assert!(reader.feed.has(block));
                    }
                }
                reader.check_missing_nodes().await;
                reader.check_stored_against(&writer).await;
            }
        }
    }
    for reader in &readers {
        reader.check_reopened().await;
        let proof = writer.feed.prove(reader.request(None, Some(writer.length())), 0).await.unwrap();
        if let Some(proof) = proof {
            reader.ingest(proof).await.unwrap();
        }
        let mut missing = BTreeSet::new();
        let mut from = 0;
        while let Some(index) = reader.feed.with_local(|local| local.next_missing(from, local.length())) {
            missing.insert(index);
            from = index + 1;
        }
        for index in missing {
            let proof = writer.feed.prove(reader.request(Some(index), None), 0).await.unwrap().unwrap();
            assert_eq!(reader.ingest(proof).await.unwrap().block, Some(index));
        }
        assert_eq!(reader.feed.info().contiguous_length, writer.length());
        assert_eq!(reader.feed.info().byte_length, writer.feed.info().byte_length);
        reader.check_stored_against(&writer).await;
        reader.check_missing_nodes().await;
        reader.check_reopened().await;
    }
}

/// A change to a proof. Where a node is named, it is the n-th of all lists.
#[derive(Clone, Debug)]
enum Lie {
    Size(Index, u64),
    /// Bytes moved from one node to another, so that their sum stays.
    Shift(Index, Index, u64),
    NodeIndex(Index, u64),
    Hash(Index, u8),
    Swap(Index, Index),
    Drop(Index),
    Repeat(Index),
    BlockIndex(u64),
    HashIndex(u64),
    Value(Index, u8),
    Lengthen(Bytes),
    Start(u64),
    Length(u64),
    Signature(Index, u8),
    CutSignature(Index),
    Fork(u64),
    NoBlock,
    NoUpgrade,
    NoManifest,
    OtherManifest,
    /// As if the block were a node whose hash the peer gives.
    BlockAsHash(u64),
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..70,
        Just(MAX_SAFE_INTEGER),
        Just(MAX_SAFE_INTEGER - 1),
        Just(u64::MAX),
        Just(u64::MAX - 1),
        Just(1 << 52),
        Just(1 << 51),
        any::<u64>(),
    ]
}

fn lie() -> impl Strategy<Value = Lie> {
    let n = any::<Index>;
    prop_oneof![
        1 => (n(), number()).prop_map(|(i, n)| Lie::Size(i, n)),
        4 => (n(), n(), 1u64..40).prop_map(|(a, b, n)| Lie::Shift(a, b, n)),
        1 => (n(), number()).prop_map(|(i, n)| Lie::NodeIndex(i, n)),
        1 => (n(), any::<u8>()).prop_map(|(i, bit)| Lie::Hash(i, bit)),
        1 => (n(), n()).prop_map(|(a, b)| Lie::Swap(a, b)),
        1 => n().prop_map(Lie::Drop),
        1 => n().prop_map(Lie::Repeat),
        1 => number().prop_map(Lie::BlockIndex),
        1 => number().prop_map(Lie::HashIndex),
        1 => (n(), any::<u8>()).prop_map(|(i, bit)| Lie::Value(i, bit)),
        1 => prop::collection::vec(any::<u8>(), 1..5).prop_map(|more| Lie::Lengthen(more.into())),
        1 => number().prop_map(Lie::Start),
        1 => number().prop_map(Lie::Length),
        1 => (n(), any::<u8>()).prop_map(|(i, bit)| Lie::Signature(i, bit)),
        1 => n().prop_map(Lie::CutSignature),
        1 => number().prop_map(Lie::Fork),
        1 => Just(Lie::NoBlock),
        1 => Just(Lie::NoUpgrade),
        1 => Just(Lie::NoManifest),
        1 => Just(Lie::OtherManifest),
        1 => number().prop_map(Lie::BlockAsHash),
    ]
}

fn lists(proof: &mut Proof) -> Vec<&mut Vec<Node>> {
    let mut lists = Vec::new();
    lists.extend(proof.block.as_mut().map(|block| &mut block.nodes));
    lists.extend(proof.hash.as_mut().map(|hash| &mut hash.nodes));
    if let Some(upgrade) = &mut proof.upgrade {
        lists.push(&mut upgrade.nodes);
        lists.push(&mut upgrade.additional_nodes);
    }
    lists.retain(|list| !list.is_empty());
    lists
}

fn nth(proof: &mut Proof, n: Index) -> Option<&mut Node> {
    let mut nodes: Vec<&mut Node> = lists(proof).into_iter().flatten().collect();
    if nodes.is_empty() { None } else { Some(nodes.swap_remove(n.index(nodes.len()))) }
}

fn flip(bytes: &Bytes, at: Index, bit: u8) -> Bytes {
    let mut bytes = bytes.to_vec();
    if !bytes.is_empty() {
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << (bit % 8);
    }
    bytes.into()
}

fn tell(lie: Lie, proof: &mut Proof) {
    match lie {
        Lie::Size(n, size) => nth(proof, n).into_iter().for_each(|node| node.size = size),
        Lie::Shift(a, b, n) => {
            let taken = nth(proof, a).map_or(0, |node| {
                let taken = n.min(node.size);
                node.size -= taken;
                taken
            });
            nth(proof, b).into_iter().for_each(|node| node.size = node.size.saturating_add(taken));
        }
        Lie::NodeIndex(n, index) => nth(proof, n).into_iter().for_each(|node| node.index = index),
        Lie::Hash(n, bit) => {
            nth(proof, n).into_iter().for_each(|node| node.hash[usize::from(bit / 8)] ^= 1 << (bit % 8));
        }
        Lie::Swap(a, b) => {
            if let (Some(one), Some(other)) = (nth(proof, a).copied(), nth(proof, b).copied()) {
                nth(proof, a).into_iter().for_each(|node| *node = other);
                nth(proof, b).into_iter().for_each(|node| *node = one);
            }
        }
        Lie::Drop(n) => {
            if let Some(list) = lists(proof).into_iter().next() {
                list.remove(n.index(list.len()));
            }
        }
        Lie::Repeat(n) => {
            if let Some(list) = lists(proof).into_iter().next_back() {
                let node = *n.get(list);
                list.push(node);
            }
        }
        Lie::BlockIndex(index) => proof.block.iter_mut().for_each(|block| block.index = index),
        Lie::HashIndex(index) => proof.hash.iter_mut().for_each(|hash| hash.index = index),
        Lie::Value(at, bit) => {
            proof.block.iter_mut().for_each(|block| block.value = flip(&block.value, at, bit));
        }
        Lie::Lengthen(more) => proof.block.iter_mut().for_each(|block| {
            block.value = [block.value.clone(), more.clone()].concat().into();
        }),
        Lie::Start(start) => proof.upgrade.iter_mut().for_each(|upgrade| upgrade.start = start),
        Lie::Length(length) => proof.upgrade.iter_mut().for_each(|upgrade| upgrade.length = length),
        Lie::Signature(at, bit) => {
            proof
                .upgrade
                .iter_mut()
                .for_each(|upgrade| upgrade.signature = flip(&upgrade.signature, at, bit));
        }
        Lie::CutSignature(at) => proof.upgrade.iter_mut().for_each(|upgrade| {
            upgrade.signature.truncate(at.index(upgrade.signature.len().max(1)));
        }),
        Lie::Fork(fork) => proof.fork = fork,
        Lie::NoBlock => proof.block = None,
        Lie::NoUpgrade => proof.upgrade = None,
        Lie::NoManifest => proof.manifest = None,
        Lie::OtherManifest => {
            let other = party::feed::manifest::Manifest::single(KeyPair::from_seed(&[9; 32]).public());
            proof.manifest = Some(other.into());
        }
        Lie::BlockAsHash(size) => {
            if let Some(block) = proof.block.take() {
                let index = block.index.wrapping_mul(2);
                let node = Node { index, size, hash: [size as u8; 32] };
                let nodes = std::iter::once(node).chain(block.nodes).collect();
                proof.hash = Some(HashProof { index, nodes });
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Scene {
    blocks: u64,
    later: u64,
    known: Index,
    stored: Vec<Index>,
    upgrade: Option<Index>,
    block: Option<Index>,
    hash: Option<Index>,
}

fn scene() -> impl Strategy<Value = Scene> {
    (
        1u64..30,
        0u64..20,
        any::<Index>(),
        prop::collection::vec(any::<Index>(), 0..6),
        prop::option::weighted(0.8, any::<Index>()),
        any::<Option<Index>>(),
        any::<Option<Index>>(),
    )
        .prop_map(|(blocks, later, known, stored, upgrade, block, hash)| Scene {
            blocks,
            later,
            known,
            stored,
            upgrade,
            block,
            hash,
        })
}

/// A reader that knows some of the writer's feed, and an honest answer to something it could ask.
async fn play(scene: &Scene, legacy: bool) -> (Peer, Peer, Proof) {
    let identity = identity(legacy);
    let writer = Peer::new(identity.clone()).await;
    append(&writer, scene.blocks).await;
    let reader = Peer::new(Identity::reader(identity.key)).await;
    let known = scene.known.index(scene.blocks as usize + 1) as u64;
    if let Some(proof) =
        writer.feed.prove(reader.request(None, Some(known)), 0).await.unwrap().filter(|_| known > 0)
    {
        reader.ingest(proof).await.unwrap();
    }
    let length = reader.length();
    for index in scene.stored.iter().filter(|_| length > 0).map(|index| index.index(length as usize) as u64) {
        let proof = writer.feed.prove(reader.request(Some(index), None), 0).await.unwrap().unwrap();
        reader.ingest(proof).await.unwrap();
    }
    append(&writer, scene.later).await;
    let to = scene.upgrade.map(|to| to.index(writer.length() as usize) as u64 + 1).filter(|to| *to > length);
    let reach = to.unwrap_or(length);
    let block = scene.block.filter(|_| reach > 0).map(|index| index.index(reach as usize) as u64);
    let mut request = reader.request(block, to);
    if block.is_none() {
        let hash = scene.hash.filter(|_| reach > 0).map(|index| index.index(2 * reach as usize) as u64);
        request.hash = hash.filter(|index| flat_tree::right_span(*index) < 2 * reach).map(|index| {
            let in_tree = |index: u64| flat_tree::right_span(index) < 2 * length;
            let mut nodes = 0;
            let mut above = index;
            while in_tree(flat_tree::parent(above)) {
                above = flat_tree::parent(above);
                nodes += 1;
            }
            BlockRequest { index, nodes }
        });
    }
    let proof = match writer.feed.prove(request.clone(), 0).await {
        Ok(proof) => proof,
        Err(_) => writer.feed.prove(ProofRequest { hash: None, ..request }, 0).await.unwrap(),
    };
    (writer, reader, proof.unwrap_or_default())
}

async fn lie_to(scene: Scene, lies: Vec<Lie>, legacy: bool) {
    let (writer, reader, honest) = play(&scene, legacy).await;
    let mut proof = honest.clone();
    lies.into_iter().for_each(|lie| tell(lie, &mut proof));
    let before = reader.feed.info();
    let result = reader.ingest(proof).await;
    if result.is_err() {
        assert_eq!(reader.feed.info(), before);
    }
    reader.check_stored_against(&writer).await;
    reader.check_missing_nodes().await;
    reader.check_reopened().await;
    // Nor does a lie keep the truth from being believed.
    let truth = reader.ingest(honest.clone()).await;
    if result.is_err() {
        assert!(truth.is_ok(), "{truth:?}");
    }
    let all = writer.feed.prove(reader.request(None, Some(writer.length())), 0).await.unwrap();
    if let Some(all) = all {
        reader.ingest(all).await.unwrap();
    }
    for index in 0..writer.length() {
        let proof = writer.feed.prove(reader.request(Some(index), None), 0).await.unwrap().unwrap();
        reader.ingest(proof).await.unwrap();
    }
    reader.check_stored_against(&writer).await;
    assert_eq!(reader.feed.info().contiguous_length, writer.length());
}

fn node() -> impl Strategy<Value = Node> {
    (number(), number(), any::<u8>()).prop_map(|(index, size, byte)| Node { index, size, hash: [byte; 32] })
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    prop::collection::vec(node(), 0..6)
}

fn any_proof() -> impl Strategy<Value = Proof> {
    (
        prop_oneof![Just(0), number()],
        prop::option::of((number(), nodes())),
        prop::option::of((number(), nodes())),
        prop::option::of((number(), number(), nodes(), nodes(), prop::collection::vec(any::<u8>(), 0..70))),
        prop::option::of((number(), nodes())),
    )
        .prop_map(|(fork, block, hash, upgrade, seek)| Proof {
            fork,
            block: block.map(|(index, nodes)| BlockProof {
                index,
                value: Bytes::from_static(b"block"),
                nodes,
            }),
            hash: hash.map(|(index, nodes)| HashProof { index, nodes }),
            seek: seek.map(|(bytes, nodes)| SeekProof { bytes, nodes }),
            upgrade: upgrade.map(|(start, length, nodes, additional_nodes, signature)| {
                Box::new(UpgradeProof { start, length, nodes, additional_nodes, signature: signature.into() })
            }),
            manifest: None,
        })
}

fn any_request() -> impl Strategy<Value = ProofRequest> {
    (
        prop::option::of((number(), number())),
        prop::option::of((number(), number())),
        prop::option::of((number(), number())),
        any::<bool>(),
    )
        .prop_map(|(block, hash, upgrade, manifest)| ProofRequest {
            block: block.map(|(index, nodes)| BlockRequest { index, nodes }),
            hash: hash.map(|(index, nodes)| BlockRequest { index, nodes }),
            seek: None,
            upgrade: upgrade.map(|(start, length)| UpgradeRequest { start, length }),
            manifest,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn readers_converge_whatever_is_asked_in_whatever_order(
        steps in prop::collection::vec(step(), 1..60),
        legacy: bool,
    ) {
        run(converge(steps, legacy));
    }

    #[test]
    fn a_changed_proof_is_refused_or_brings_nothing_but_the_truth(
        scene in scene(),
        lies in prop::collection::vec(lie(), 1..3),
        legacy: bool,
    ) {
        run(lie_to(scene, lies, legacy));
    }

    #[test]
    fn an_invented_proof_changes_nothing(scene in scene(), proofs in prop::collection::vec(any_proof(), 1..5)) {
        run(async {
            let (writer, reader, _) = play(&scene, false).await;
            let before = reader.feed.info();
            reader.feed.ingest(proofs).await;
            assert_eq!(reader.feed.info(), before);
            reader.check_stored_against(&writer).await;
        });
    }

    #[test]
    fn any_request_is_answered_with_what_verifies_or_not_at_all(
        blocks in 0u64..40,
        request in any_request(),
        fork in prop_oneof![4 => Just(0), 1 => number()],
    ) {
        run(async {
            let writer = Peer::new(identity(false)).await;
            append(&writer, blocks).await;
            match writer.feed.prove(request.clone(), fork).await {
                Ok(Some(proof)) => {
                    let reader = Peer::new(Identity::reader(writer.feed.key())).await;
                    let from = request.upgrade.map_or(blocks, |upgrade| upgrade.start);
                    let known = writer.feed.prove(reader.request(None, Some(from)), 0).await.unwrap();
                    if let Some(mut known) = known.filter(|_| from > 0) {
                        // The signature is over all; a reader of exactly `from` blocks can't be made any more.
                        if from == blocks {
                            known.fork = 0;
                            reader.ingest(known).await.unwrap();
                            reader.ingest(proof).await.ok();
                        }
                    } else if from == 0 {
                        let ingested = reader.ingest(proof).await;
                        // Without the manifest nobody can tell who may sign.
                        if request.manifest {
                            ingested.unwrap();
                        }
                    }
                    reader.check_stored_against(&writer).await;
                }
                Ok(None) => {}
                Err(Error::PeerMisbehaved(_)) => {}
                Err(error) => panic!("{error}"),
            }
        });
    }
}
