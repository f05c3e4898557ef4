//! The messages of `hypercore/alpha` as values, under the names of the specification.

use anyhow::Result;
use party::{
    feed::{
        manifest::Manifest,
        proof::{BlockRequest, Node, ProofRequest, SeekRequest, UpgradeRequest},
    },
    replication::messages::{Data, Message, Request},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::vectors::Bytes;

/// What a message says.
pub(super) fn of_message(message: &Message) -> Result<Value> {
    Ok(match message {
        Message::Sync(sync) => json!({
            "fork": sync.fork,
            "length": sync.length,
            "remote_length": sync.remote_length,
            "can_upgrade": sync.can_upgrade,
            "uploading": sync.uploading,
            "downloading": sync.downloading,
            "has_manifest": sync.has_manifest,
            "allow_push": sync.allow_push,
        }),
        Message::Request(request) => serde_json::to_value(RequestFields::from(request))?,
        Message::Cancel { request } => json!({ "request": request }),
        Message::Data(data) => of_data(data),
        Message::NoData(refusal) => json!({ "request": refusal.request, "reason": refusal.reason }),
        Message::Want(want) | Message::Unwant(want) => {
            json!({ "start": want.start, "length": want.length, "any": want.any })
        }
        Message::Bitfield(bitfield) => json!({ "start": bitfield.start, "words": bitfield.words }),
        Message::Range(range) => json!({ "drop": range.drop, "start": range.start, "length": range.length }),
        Message::Extension(extension) => {
            json!({ "name": extension.name, "message": Bytes::from(&extension.message) })
        }
    })
}

fn of_data(Data { request, proof }: &Data) -> Value {
    json!({
        "request": request,
        "fork": proof.fork,
        "block": proof.block.as_ref().map(|block| {
            json!({ "index": block.index, "value": Bytes::from(&block.value), "nodes": nodes(&block.nodes) })
        }),
        "hash": proof.hash.as_ref().map(|hash| json!({ "index": hash.index, "nodes": nodes(&hash.nodes) })),
        "seek": proof.seek.as_ref().map(|seek| json!({ "bytes": seek.bytes, "nodes": nodes(&seek.nodes) })),
        "upgrade": proof.upgrade.as_ref().map(|upgrade| {
            json!({
                "start": upgrade.start,
                "length": upgrade.length,
                "nodes": nodes(&upgrade.nodes),
                "additional_nodes": nodes(&upgrade.additional_nodes),
                "signature": Bytes::from(&upgrade.signature),
            })
        }),
        "manifest": proof.manifest.as_deref().map(encoded),
    })
}

/// A manifest as it is encoded.
pub(super) fn encoded(manifest: &Manifest) -> Bytes {
    let mut out = Vec::new();
    manifest.encode(&mut out);
    Bytes(out)
}

#[derive(Serialize)]
pub(super) struct NodeFields {
    index: u64,
    size: u64,
    hash: Bytes,
}

pub(super) fn nodes(nodes: &[Node]) -> Vec<NodeFields> {
    let fields = |node: &Node| NodeFields { index: node.index, size: node.size, hash: node.hash.into() };
    nodes.iter().map(fields).collect()
}

#[derive(Serialize)]
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

impl From<&Request> for RequestFields {
    fn from(request: &Request) -> Self {
        let part = |part: BlockRequest| Part { index: part.index, nodes: part.nodes };
        let seek = |seek: SeekRequest| SeekPart { bytes: seek.bytes, padding: seek.padding };
        let upgrade = |part: UpgradeRequest| UpgradePart { start: part.start, length: part.length };
        let proof = &request.proof;
        Self {
            id: request.id,
            fork: request.fork,
            block: proof.block.map(part),
            hash: proof.hash.map(part),
            seek: proof.seek.map(seek),
            upgrade: proof.upgrade.map(upgrade),
            manifest: proof.manifest,
            priority: request.priority,
        }
    }
}

/// What is asked of a feed, without the id and fork of a message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    block: Option<Part>,
    hash: Option<Part>,
    seek: Option<SeekPart>,
    upgrade: Option<UpgradePart>,
    #[serde(default)]
    manifest: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    index: u64,
    nodes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeekPart {
    bytes: u64,
    padding: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpgradePart {
    start: u64,
    length: u64,
}

impl From<Asked> for ProofRequest {
    fn from(asked: Asked) -> Self {
        let part = |part: Part| BlockRequest { index: part.index, nodes: part.nodes };
        Self {
            block: asked.block.map(part),
            hash: asked.hash.map(part),
            seek: asked.seek.map(|seek| SeekRequest { bytes: seek.bytes, padding: seek.padding }),
            upgrade: asked.upgrade.map(|part| UpgradeRequest { start: part.start, length: part.length }),
            manifest: asked.manifest,
        }
    }
}
