//! What verifies and encodes, against what does the same in the plainest way.

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use party::{
    encoding::MAX_SAFE_INTEGER,
    feed::{
        proof::{BlockRequest, Proof, ProofRequest, SeekRequest, UpgradeRequest},
        verify::hash_proofs,
    },
    limits::Limits,
    replication::messages::{Bitfield, Data, Extension, Message, NoData, Range, Request, Sync, Want},
};

use super::{
    input::{Few, Short, steps},
    sketch::{Sketch, Standing},
    slow_messages,
    slow_tree::Refused,
};

/// The first byte says which of the two bodies takes the rest.
pub fn differential(data: &[u8]) {
    match data {
        [first, rest @ ..] if first % 4 == 0 => encoder(rest),
        [_, rest @ ..] => verifier(rest),
        [] => {}
    }
}

/// One proof after the other: what holds, holds for the slow verifier, too, and the same is learned from it.
pub fn verifier(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(standing) = input.arbitrary::<Standing>() else { return };
    let (mut slow, mut ours) = (standing.slow_verifier(), standing.verification());
    for sketch in steps::<Sketch>(input) {
        let proof = sketch.proof(&slow);
        let expected = slow.check(&proof);
        let hashed = hash_proofs(vec![proof.clone()]).remove(0);
        let verified = hashed.and_then(|hashed| ours.verify(hashed));
        match (expected, verified) {
            (Err(Refused::Wrong | Refused::Unconnected), Err(_)) => {}
            (Ok(expected), Ok(verified)) => {
                assert_eq!(verified.is_stale(), expected.stale, "{proof:?}");
                assert_eq!(verified.block().map(|(index, _)| index), expected.block, "{proof:?}");
                assert_eq!(verified.length(), expected.length, "{proof:?}");
                assert_eq!(verified.manifest(), expected.manifest, "{proof:?}");
                assert!(slow.has(verified.nodes()), "what is not in the tree: {proof:?}");
                let learned = verified.nodes().iter().map(|node| node.index).collect();
                assert_eq!(expected.nodes, learned, "{proof:?}");
                assert_eq!(expected.nodes.len(), verified.nodes().len(), "a node twice");
            }
            (expected, verified) => panic!("{expected:?}, but {verified:?} of {proof:?}"),
        }
        if let Some((tree, _)) = ours.tree() {
            assert_eq!(*tree, slow.truth.tree(slow.length));
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Any<'a> {
    Sync([u64; 3], [bool; 5]),
    Request([u64; 3], Few<Wanted, 5>),
    Cancel(u64),
    Data(u64, Standing, Sketch),
    NoData(u64, u64),
    Want(u64, u64, bool),
    Unwant(u64, u64, bool),
    Bitfield(u64, Few<u32, 5>),
    Range(bool, u64, u64),
    Extension(Short<'a>, Short<'a>),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Wanted {
    Block(u64, u64),
    Hash(u64, u64),
    Seek(u64, u64),
    Upgrade(u64, u64),
    Manifest,
}

/// A number as it may be sent, of any length.
fn number(number: u64) -> u64 {
    number & MAX_SAFE_INTEGER >> (number >> 58)
}

impl Any<'_> {
    fn message(self) -> Message {
        match self {
            Self::Sync(numbers, flags) => {
                let [fork, length, remote_length] = numbers.map(number);
                let [can_upgrade, uploading, downloading, has_manifest, allow_push] = flags;
                Message::Sync(Sync {
                    fork,
                    length,
                    remote_length,
                    can_upgrade,
                    uploading,
                    downloading,
                    has_manifest,
                    allow_push,
                })
            }
            Self::Request(numbers, wanted) => {
                let [id, fork, priority] = numbers.map(number);
                let mut proof = ProofRequest::default();
                for wanted in wanted.0 {
                    wanted.add_to(&mut proof);
                }
                Message::Request(Request { id, fork, proof, priority })
            }
            Self::Cancel(request) => Message::Cancel { request: number(request) },
            Self::Data(request, standing, sketch) => {
                let proof = sendable(sketch.proof(&standing.slow_verifier()));
                Message::Data(Data { request: number(request), proof })
            }
            Self::NoData(request, reason) => {
                Message::NoData(NoData { request: number(request), reason: number(reason) })
            }
            Self::Want(start, length, any) => {
                Message::Want(Want { start: number(start), length: number(length), any })
            }
            Self::Unwant(start, length, any) => {
                Message::Unwant(Want { start: number(start), length: number(length), any })
            }
            Self::Bitfield(start, words) => {
                Message::Bitfield(Bitfield { start: number(start), words: words.0 })
            }
            Self::Range(drop, start, length) => {
                Message::Range(Range { drop, start: number(start), length: number(length) })
            }
            Self::Extension(name, message) => {
                let (name, message) =
                    (String::from_utf8_lossy(name.0).into(), Bytes::copy_from_slice(message.0));
                Message::Extension(Extension { name, message })
            }
        }
    }
}

impl Wanted {
    fn add_to(self, proof: &mut ProofRequest) {
        let of = |index, nodes| Some(BlockRequest { index: number(index), nodes: number(nodes) });
        match self {
            Self::Block(index, nodes) => proof.block = of(index, nodes),
            Self::Hash(index, nodes) => proof.hash = of(index, nodes),
            Self::Seek(bytes, padding) => {
                proof.seek = Some(SeekRequest { bytes: number(bytes), padding: number(padding) });
            }
            Self::Upgrade(start, length) => {
                proof.upgrade = Some(UpgradeRequest { start: number(start), length: number(length) });
            }
            Self::Manifest => proof.manifest = true,
        }
    }
}

/// The same proof without numbers that nobody sends.
fn sendable(mut proof: Proof) -> Proof {
    proof.fork = number(proof.fork);
    let mut lists = Vec::new();
    if let Some(block) = &mut proof.block {
        block.index = number(block.index);
        lists.push(&mut block.nodes);
    }
    if let Some(hash) = &mut proof.hash {
        hash.index = number(hash.index);
        lists.push(&mut hash.nodes);
    }
    lists.extend(proof.seek.as_mut().map(|seek| &mut seek.nodes));
    if let Some(upgrade) = &mut proof.upgrade {
        (upgrade.start, upgrade.length) = (number(upgrade.start), number(upgrade.length));
        lists.extend([&mut upgrade.nodes, &mut upgrade.additional_nodes]);
    }
    for node in lists.into_iter().flatten() {
        (node.index, node.size) = (number(node.index), number(node.size));
    }
    proof
}

/// Any message of a feed's channel is written as by hand, and read as it was.
pub fn encoder(data: &[u8]) {
    let Ok(any) = Unstructured::new(data).arbitrary::<Any<'_>>() else { return };
    let message = any.message();
    let encoded = message.encode();
    assert_eq!(encoded, slow_messages::encode(&message), "{message:?}");
    assert_eq!(message.payload_for(true).into_bytes(), encoded, "{message:?}");
    let decoded = Message::decode(message.message_type(), &encoded, true, &Limits::default());
    assert_eq!(decoded, Ok(Some(message.clone())));
    // What a later version puts behind it is passed over, except where the rest is the message.
    if !matches!(message, Message::Extension(_) | Message::Want(_) | Message::Unwant(_)) {
        let longer = [&encoded[..], &[7; 3]].concat().into();
        assert_eq!(
            Message::decode(message.message_type(), &longer, true, &Limits::default()),
            Ok(Some(message))
        );
    }
}
