//! The messages of hypercore/alpha against what hypercore writes and reads: the same values give the same bytes,
//! the bytes give the values, and what hypercore refuses is refused.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use conformance::vectors::{Hex, cases};
use party::{
    encoding::Reader,
    feed::{
        manifest::Manifest,
        proof::{
            BlockProof, BlockRequest, HashProof, Node, Proof, ProofRequest, SeekProof, SeekRequest,
            UpgradeProof, UpgradeRequest,
        },
    },
    key::{FeedKey, PublicKey},
    limits::Limits,
    replication::{
        Channel, capability, handshake,
        messages::{Bitfield, Data, Extension, Message, NoData, Range, Request, Sync, Want},
    },
    session::Session,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Kind {
    Message {
        seeks: bool,
        #[serde(rename = "type")]
        message_type: u64,
        message: Value,
        expect: Hex,
    },
    Read {
        seeks: bool,
        #[serde(rename = "type")]
        message_type: u64,
        bytes: Hex,
        expect: Value,
    },
    Capability {
        initiator: bool,
        key: Hex,
        binding: Hex,
        expect: Hex,
        handshakes: Vec<Handshake>,
    },
}

#[derive(Deserialize)]
struct Handshake {
    seeks: bool,
    bytes: Hex,
}

#[derive(Deserialize)]
struct SyncFields {
    fork: u64,
    length: u64,
    remote_length: u64,
    can_upgrade: bool,
    uploading: bool,
    downloading: bool,
    has_manifest: bool,
    allow_push: bool,
}

#[derive(Deserialize)]
struct RequestFields {
    id: u64,
    fork: u64,
    block: Option<Part>,
    hash: Option<Part>,
    seek: Option<SeekPart>,
    upgrade: Option<UpgradePart>,
    manifest: bool,
    priority: u64,
}

#[derive(Deserialize)]
struct Part {
    index: u64,
    nodes: u64,
}

#[derive(Deserialize)]
struct SeekPart {
    bytes: u64,
    padding: u64,
}

#[derive(Deserialize)]
struct UpgradePart {
    start: u64,
    length: u64,
}

#[derive(Deserialize)]
struct DataFields {
    request: u64,
    fork: u64,
    block: Option<BlockFields>,
    hash: Option<HashFields>,
    seek: Option<SeekFields>,
    upgrade: Option<UpgradeFields>,
    manifest: Option<Hex>,
}

#[derive(Deserialize)]
struct BlockFields {
    index: u64,
    value: Hex,
    nodes: Vec<NodeFields>,
}

#[derive(Deserialize)]
struct HashFields {
    index: u64,
    nodes: Vec<NodeFields>,
}

#[derive(Deserialize)]
struct SeekFields {
    bytes: u64,
    nodes: Vec<NodeFields>,
}

#[derive(Deserialize)]
struct UpgradeFields {
    start: u64,
    length: u64,
    nodes: Vec<NodeFields>,
    additional_nodes: Vec<NodeFields>,
    signature: Hex,
}

#[derive(Deserialize)]
struct NodeFields {
    index: u64,
    size: u64,
    hash: Hex,
}

#[derive(Deserialize)]
struct CancelFields {
    request: u64,
}

#[derive(Deserialize)]
struct NoDataFields {
    request: u64,
    reason: u64,
}

#[derive(Deserialize)]
struct WantFields {
    start: u64,
    length: u64,
    any: bool,
}

#[derive(Deserialize)]
struct BitfieldFields {
    start: u64,
    words: Vec<u32>,
}

#[derive(Deserialize)]
struct RangeFields {
    drop: bool,
    start: u64,
    length: u64,
}

#[derive(Deserialize)]
struct ExtensionFields {
    name: String,
    message: Hex,
}

//= REPL-6, REPL-7, ENC-8
#[test]
fn messages_are_those_of_hypercore() -> Result<()> {
    let mut count = 0;
    for case in cases::<Case>("replication.json")? {
        match &case.kind {
            Kind::Message { seeks, message_type, message, expect } => {
                check_message(*seeks, *message_type, message, expect)
            }
            Kind::Read { seeks, message_type, bytes, expect } => {
                check_read(*seeks, *message_type, bytes, expect)
            }
            Kind::Capability { .. } => continue,
        }
        .with_context(|| case.name)?;
        count += 1;
    }
    ensure!(count > 0);
    Ok(())
}

//= REPL-2
#[test]
fn capabilities_are_those_of_hypercore() -> Result<()> {
    let mut count = 0;
    for case in cases::<Case>("replication.json")? {
        let Kind::Capability { initiator, key, binding, expect, handshakes } = &case.kind else { continue };
        check_capability(*initiator, key, binding, expect, handshakes).with_context(|| case.name)?;
        count += 1;
    }
    ensure!(count > 0);
    Ok(())
}

fn check_message(seeks: bool, message_type: u64, fields: &Value, expect: &Hex) -> Result<()> {
    let message = message(message_type, fields)?;
    ensure!(message.message_type() == message_type);
    let encoded = Hex(message.encode().to_vec());
    ensure!(encoded == *expect, "encodes to {encoded:?}");
    check_read(seeks, message_type, expect, fields)
}

fn check_read(seeks: bool, message_type: u64, bytes: &Hex, expect: &Value) -> Result<()> {
    let bytes = Bytes::copy_from_slice(bytes);
    let decoded = Message::decode(message_type, &bytes, seeks, &Limits::default());
    if expect == "refused" {
        ensure!(decoded.is_err(), "decodes to {decoded:?}");
        return Ok(());
    }
    let expect = message(message_type, expect)?;
    ensure!(decoded == Ok(Some(expect)), "decodes to {decoded:?}");
    Ok(())
}

fn check_capability(
    initiator: bool,
    key: &Hex,
    binding: &Hex,
    expect: &Hex,
    handshakes: &[Handshake],
) -> Result<()> {
    let key = FeedKey::from_bytes(key.array()?);
    let keys = [PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32])];
    let binding = binding.array()?;
    let session = |is_initiator| Session { binding, is_initiator, local: keys[0], remote: keys[1] };
    let (ours, theirs) = (session(initiator), session(!initiator));
    ensure!(capability(&ours, true, &key)[..] == **expect);
    ensure!(capability(&theirs, false, &key)[..] == **expect);

    let mut sent = false;
    for Handshake { seeks, bytes } in handshakes {
        let remote = Channel::verify_handshake(&theirs, &key, bytes)?;
        ensure!(remote.seeks() == *seeks);
        ensure!(Channel::verify_handshake(&ours, &key, bytes).is_err(), "an echo holds");
        sent |= handshake(&ours, &key) == **bytes;
    }
    ensure!(sent, "ours is another");
    Ok(())
}

fn message(message_type: u64, fields: &Value) -> Result<Message> {
    fn read<'a, T: Deserialize<'a>>(fields: &'a Value) -> Result<T> {
        T::deserialize(fields).context("fields of another message")
    }
    Ok(match message_type {
        0 => {
            let SyncFields {
                fork,
                length,
                remote_length,
                can_upgrade,
                uploading,
                downloading,
                has_manifest,
                allow_push,
            } = read(fields)?;
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
        1 => Message::Request(request(read(fields)?)),
        2 => {
            let CancelFields { request } = read(fields)?;
            Message::Cancel { request }
        }
        3 => Message::Data(data(read(fields)?)?),
        4 => {
            let NoDataFields { request, reason } = read(fields)?;
            Message::NoData(NoData { request, reason })
        }
        5 | 6 => {
            let WantFields { start, length, any } = read(fields)?;
            let want = Want { start, length, any };
            if message_type == 5 { Message::Want(want) } else { Message::Unwant(want) }
        }
        7 => {
            let BitfieldFields { start, words } = read(fields)?;
            Message::Bitfield(Bitfield { start, words })
        }
        8 => {
            let RangeFields { drop, start, length } = read(fields)?;
            Message::Range(Range { drop, start, length })
        }
        9 => {
            let ExtensionFields { name, message } = read(fields)?;
            Message::Extension(Extension { name, message: message.0.into() })
        }
        other => bail!("no message has type {other}"),
    })
}

fn request(fields: RequestFields) -> Request {
    let part = |part: Part| BlockRequest { index: part.index, nodes: part.nodes };
    Request {
        id: fields.id,
        fork: fields.fork,
        proof: ProofRequest {
            block: fields.block.map(part),
            hash: fields.hash.map(part),
            seek: fields.seek.map(|seek| SeekRequest { bytes: seek.bytes, padding: seek.padding }),
            upgrade: fields
                .upgrade
                .map(|upgrade| UpgradeRequest { start: upgrade.start, length: upgrade.length }),
            manifest: fields.manifest,
        },
        priority: fields.priority,
    }
}

fn data(fields: DataFields) -> Result<Data> {
    let block = fields
        .block
        .map(|BlockFields { index, value, nodes }| {
            Ok::<_, anyhow::Error>(BlockProof { index, value: value.0.into(), nodes: tree_nodes(nodes)? })
        })
        .transpose()?;
    let hash = fields
        .hash
        .map(|HashFields { index, nodes }| {
            Ok::<_, anyhow::Error>(HashProof { index, nodes: tree_nodes(nodes)? })
        })
        .transpose()?;
    let seek = fields
        .seek
        .map(|SeekFields { bytes, nodes }| {
            Ok::<_, anyhow::Error>(SeekProof { bytes, nodes: tree_nodes(nodes)? })
        })
        .transpose()?;
    let upgrade = fields
        .upgrade
        .map(|upgrade| {
            Ok::<_, anyhow::Error>(UpgradeProof {
                start: upgrade.start,
                length: upgrade.length,
                nodes: tree_nodes(upgrade.nodes)?,
                additional_nodes: tree_nodes(upgrade.additional_nodes)?,
                signature: upgrade.signature.0.into(),
            })
        })
        .transpose()?;
    let manifest = fields
        .manifest
        .map(|bytes| Manifest::decode(&mut Reader::new(&bytes), &Limits::default()))
        .transpose()?;
    Ok(Data {
        request: fields.request,
        proof: Proof { fork: fields.fork, block, hash, seek, upgrade, manifest },
    })
}

fn tree_nodes(nodes: Vec<NodeFields>) -> Result<Vec<Node>> {
    nodes
        .into_iter()
        .map(|node| Ok(Node { index: node.index, size: node.size, hash: node.hash.array()? }))
        .collect()
}
