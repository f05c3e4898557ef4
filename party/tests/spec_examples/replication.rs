//! What goes over the channel of a feed.

use bytes::Bytes;
use party::{
    feed::proof::{
        BlockProof, BlockRequest, Node, Proof, ProofRequest, SeekRequest, UpgradeProof, UpgradeRequest,
    },
    hash::hash,
    key::FeedKey,
    replication::{
        self,
        messages::{Bitfield, Data, Extension, Message, NoData, Range, Request, Sync, Want},
    },
};

use super::{Example, Line, feeds, line, session};

pub(crate) fn examples() -> Vec<Example> {
    let key = FeedKey::from_bytes([1; 32]);
    let handshake = |is_initiator| {
        let bytes = replication::handshake(&session(is_initiator), &key);
        let who = if is_initiator { "capability of the initiator" } else { "capability of the responder" };
        vec![line(&bytes[..1], "flags"), line(&bytes[1..], who)]
    };
    vec![
        ("feed-handshake-initiator", handshake(true)),
        ("feed-handshake-responder", handshake(false)),
        ("sync", sync()),
        ("request", request()),
        ("request-seek", seek()),
        ("data", data()),
        ("replication-messages", others()),
    ]
}

fn sync() -> Vec<Line> {
    let bytes = Message::Sync(Sync {
        fork: 0,
        length: 2,
        remote_length: 0,
        can_upgrade: true,
        uploading: true,
        downloading: true,
        has_manifest: true,
        allow_push: false,
    })
    .encode();
    fields(&bytes, &["flags 1, 2, 4 and 8", "fork", "length", "remote length"])
}

/// A line for each byte.
fn fields(bytes: &[u8], what: &[&'static str]) -> Vec<Line> {
    assert_eq!(bytes.len(), what.len());
    bytes.iter().zip(what).map(|(byte, what)| line([*byte], what)).collect()
}

fn request() -> Vec<Line> {
    let proof = ProofRequest {
        block: Some(BlockRequest { index: 1, nodes: 0 }),
        upgrade: Some(UpgradeRequest { start: 0, length: 2 }),
        manifest: true,
        ..ProofRequest::default()
    };
    let bytes = Message::Request(Request { id: 1, fork: 0, proof, priority: 1 }).encode();
    fields(
        &bytes,
        &[
            "flags 1, 8, 16 and 32",
            "id",
            "fork",
            "block: index",
            "nodes",
            "upgrade: start",
            "length",
            "priority",
        ],
    )
}

fn seek() -> Vec<Line> {
    let proof = ProofRequest {
        hash: Some(BlockRequest { index: 6, nodes: 2 }),
        seek: Some(SeekRequest { bytes: 100, padding: 8 }),
        ..ProofRequest::default()
    };
    let bytes = Message::Request(Request { id: 2, fork: 0, proof, priority: 0 }).encode();
    fields(&bytes, &["flags 2 and 4", "id", "fork", "hash: index", "nodes", "seek: bytes", "padding"])
}

/// The answer to [`request`], of the feed of section 6, but for the manifest.
fn data() -> Vec<Line> {
    let (feed, _) = feeds::hello();
    let leaf = hash(&[&[0], &5_u64.to_le_bytes(), b"hello"]);
    let block =
        BlockProof { index: 1, value: "world".into(), nodes: vec![Node { index: 0, size: 5, hash: leaf }] };
    let upgrade = UpgradeProof {
        start: 0,
        length: 2,
        nodes: vec![],
        additional_nodes: vec![],
        signature: feed.signature.clone(),
    };
    let proof = Proof { block: Some(block), upgrade: Some(upgrade.into()), ..Proof::default() };
    let bytes = Message::Data(Data { request: 1, proof }).encode();
    let parts: [(usize, &'static str); 13] = [
        (1, "flags 1 and 8"),
        (1, "request"),
        (1, "fork"),
        (1, "block: index"),
        (6, "value `world`"),
        (1, "one node"),
        (1, "index"),
        (1, "size"),
        (32, "hash"),
        (2, "upgrade: start and length"),
        (2, "no nodes, no additional nodes"),
        (1, "signature, 68 bytes"),
        (68, ""),
    ];
    let (mut lines, mut rest) = (Vec::new(), &bytes[..]);
    for (length, what) in parts {
        let (part, more) = rest.split_at(length);
        lines.push(line(part, what));
        rest = more;
    }
    assert!(rest.is_empty());
    lines
}

fn others() -> Vec<Line> {
    let want = Want { start: 0, length: 1 << 21, any: false };
    let extension = |name: &str| Extension { name: name.into(), message: Bytes::from_static(&[0xaa]) };
    [
        (Message::Cancel { request: 1 }, "cancel (2) of request 1"),
        (Message::NoData(NoData { request: 1, reason: 1 }), "noData (4) to request 1, not available"),
        (Message::Want(want), "want (5) of the first 2^21 blocks"),
        (Message::Want(Want { any: true, ..want }), "want (5) of any of them"),
        (Message::Unwant(want), "unwant (6) of the same"),
        (
            Message::Bitfield(Bitfield { start: 32, words: vec![0b101] }),
            "bitfield (7): blocks 32 and 34 of 32 to 63",
        ),
        (Message::Range(Range { drop: false, start: 0, length: 300 }), "range (8) of the first 300 blocks"),
        (Message::Range(Range { drop: false, start: 7, length: 1 }), "range (8) of block 7"),
        (
            Message::Range(Range { drop: true, start: 7, length: 3 }),
            "range (8) of three blocks that are gone",
        ),
        (Message::Extension(extension("app")), "extension (9) `app` with the message aa"),
        (Message::Extension(extension("")), "extension (9), of the same name again"),
    ]
    .map(|(message, what)| line(message.encode(), what))
    .to_vec()
}
