//! The feeds that scenarios are about: their blocks, their writers and readers, and proofs on the wire.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes as Block;
use party::{
    encoding::Reader,
    error::{Error, PeerMisbehaved},
    feed::{
        Feed, Identity,
        manifest::Manifest,
        memory::MemoryStorage,
        proof::{BlockRequest, Proof, ProofRequest, UpgradeRequest},
        storage::{Key, Slot, Storage as _},
        tree::Tree,
    },
    key::{FeedKey, KeyPair},
    limits::Limits,
    replication::messages::{Data, Message},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::vectors::{Bytes, Outcome, Refusal};

pub(super) const SLOT: Slot = Slot(0);

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FeedKind {
    Default,
    Legacy,
    #[serde(rename = "version_0")]
    Version0,
}

/// The writer of all these feeds.
pub(super) fn key_pair() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

pub(super) fn identity(kind: FeedKind) -> Identity {
    match kind {
        FeedKind::Default => Identity::writer(key_pair()),
        FeedKind::Legacy => Identity::legacy_writer(key_pair()),
        FeedKind::Version0 => {
            // The key itself would be taken for a legacy feed's manifest; its hash is a feed of its own.
            let manifest = Manifest { version: 0, ..Manifest::single(key_pair().public()) };
            Identity { key: manifest.key(), manifest: Some(manifest), signer: Some(key_pair()) }
        }
    }
}

/// Block `n` of what was written first, or after a truncation.
pub(super) fn block(n: u64, after: u64) -> Block {
    vec![(n + 100 * after) as u8; (n as usize * 7 + after as usize * 3) % 23].into()
}

pub(super) fn blocks(length: u64) -> Vec<Block> {
    (0..length).map(|n| block(n, 0)).collect()
}

pub(super) async fn written(kind: FeedKind, length: u64) -> Result<Feed> {
    let feed = Feed::create(Arc::new(MemoryStorage::new()), SLOT, identity(kind)).await?;
    feed.append_batch(blocks(length)).await?;
    Ok(feed)
}

/// A feed of `length` blocks, of which `kept` were kept, and `added` added on the next fork or this one.
pub(super) async fn forked(length: u64, kept: u64, added: u64, fork: Option<u64>) -> Result<Feed> {
    let feed = written(FeedKind::Default, length).await?;
    feed.truncate_to_fork(kept, fork.unwrap_or(1)).await?;
    feed.append_batch((kept..kept + added).map(|n| block(n, 1)).collect()).await?;
    Ok(feed)
}

pub(super) async fn reader(key: FeedKey) -> Result<(Feed, Arc<MemoryStorage>)> {
    let storage = Arc::new(MemoryStorage::new());
    Ok((Feed::create(storage.clone(), SLOT, Identity::reader(key)).await?, storage))
}

/// A reader that has the tree of the first `known` blocks, and those of the blocks that are listed.
pub(super) async fn reader_of(known: u64, stored: &[u64]) -> Result<(Feed, Arc<MemoryStorage>)> {
    let writer = written(FeedKind::Default, known).await?;
    let (reader, storage) = reader(writer.key()).await?;
    let mut requests = vec![upgrade(0, known)];
    requests.extend(stored.iter().map(|index| ProofRequest {
        block: Some(BlockRequest { index: *index, nodes: 0 }),
        ..ProofRequest::default()
    }));
    for mut request in requests.into_iter().filter(|_| known > 0) {
        if let Some(block) = &mut request.block {
            block.nodes = reader.with_local(|local| local.missing_nodes(block.index));
        }
        let proof = writer.prove(request, 0).await?.context("no proof")?;
        ingest(&reader, proof).await?;
    }
    Ok((reader, storage))
}

pub(super) fn upgrade(start: u64, length: u64) -> ProofRequest {
    let upgrade = Some(UpgradeRequest { start, length });
    ProofRequest { upgrade, manifest: start == 0, ..ProofRequest::default() }
}

/// Takes in one proof alone, which has to lead to what is known.
pub(super) async fn ingest(feed: &Feed, proof: Proof) -> Result<(), Error> {
    let fork = proof.fork;
    let ingested = feed.ingest(vec![proof]).await.remove(0)?;
    if ingested.unconnected {
        return Err(PeerMisbehaved::InvalidProof("it leads nowhere").into());
    }
    // Else there is nothing new in it, at most.
    if ingested.stale && fork != feed.info().fork {
        return Err(PeerMisbehaved::InvalidProof("it is of another fork").into());
    }
    Ok(())
}

/// Plays a proof to a reader, and looks at what it has then. Whatever it has must be the writer's.
pub(super) async fn shown(reader: &Feed, storage: &MemoryStorage, wire: &Bytes) -> Result<Outcome> {
    let Some(proof) = decode_proof(wire) else { return Outcome::refuse(Refusal::Decode) };
    let index = proof.block.as_ref().map(|block| block.index);
    let is_canonical = encode_proof(proof.clone()) == *wire;
    let unproved = unproved(&proof);
    let taken = ingest(reader, proof).await;
    let stored = nodes_of(storage).await?;
    for (at, (stored, node)) in stored.iter().zip(writers_nodes().await?).enumerate() {
        ensure!(stored.is_none() || stored == node, "node {at} is not the writer's");
    }
    let mut has = json!({ "length": reader.info().length });
    if let Some(index) = index {
        has["has"] = Value::Bool(reader.has(index));
        let value = reader.get(index).await?;
        ensure!(value.is_none_or(|value| value == block(index, 0)), "block {index} is not the writer's");
    }
    match taken {
        Ok(()) => {
            let upgrade = match reader.info().length {
                0 => None,
                length => reader.prove(upgrade(0, length), 0).await?,
            };
            let stored: Vec<Option<Bytes>> = stored.into_iter().map(|node| node.map(Bytes::from)).collect();
            let seen = json!({
                "canonical": is_canonical,
                "unproved": unproved,
                "nodes": stored,
                "upgrade": upgrade.map(encode_proof),
            });
            Outcome::accept(has)?.seen(seen)
        }
        Err(Error::PeerMisbehaved(_) | Error::ApiMisuse(_)) => Outcome::refuse_after(Refusal::Proof, has),
        Err(error) => Err(error.into()),
    }
}

/// What a proof says and doesn't prove: the offset that was sought, and the sizes of nodes whose sum alone is proved
/// (`FEED-65`), of which nothing is stored.
fn unproved(proof: &Proof) -> Vec<u64> {
    let lists = [
        proof.hash.as_ref().map(|hash| &hash.nodes),
        proof.seek.as_ref().map(|seek| &seek.nodes),
        proof.upgrade.as_ref().map(|upgrade| &upgrade.additional_nodes),
    ];
    let sizes = lists.into_iter().flatten().flatten().map(|node| node.size);
    proof.seek.as_ref().map(|seek| seek.bytes).into_iter().chain(sizes).collect()
}

/// As many blocks as the longest of these feeds has.
const LONGEST: u64 = 40;

/// All nodes of the longest feed. Those of a shorter one are among them.
async fn writers_nodes() -> Result<&'static Vec<Option<Block>>> {
    static NODES: OnceCell<Vec<Option<Block>>> = OnceCell::const_new();
    NODES
        .get_or_try_init(|| async {
            let storage = Arc::new(MemoryStorage::new());
            let feed = Feed::create(storage.clone(), SLOT, identity(FeedKind::Default)).await?;
            feed.append_batch(blocks(LONGEST)).await?;
            nodes_of(&storage).await
        })
        .await
}

async fn nodes_of(storage: &MemoryStorage) -> Result<Vec<Option<Block>>> {
    Ok(storage.read((0..2 * LONGEST + 4).map(|index| Key::Node(SLOT, index)).collect()).await?)
}

/// What a writer answers to a request.
pub(super) async fn proved(feed: &Feed, request: ProofRequest) -> Result<Outcome> {
    match feed.prove(request, 0).await {
        Ok(Some(proof)) => Outcome::accept(json!({ "proof": encode_proof(proof) })),
        // Neither can be answered by a proof, and the asker is told `noData`.
        Ok(None) | Err(Error::PeerMisbehaved(PeerMisbehaved::InvalidRequest(_))) => {
            Outcome::refuse(Refusal::Request)
        }
        Err(error) => Err(error.into()),
    }
}

/// The tree of the first `length` blocks of a feed, with its signature, by way of a proof.
pub(super) async fn tree_of(feed: &Feed) -> Result<(Tree, Block)> {
    let info = feed.info();
    if info.length == 0 {
        return Ok((Tree::default(), Block::new()));
    }
    let proof = feed.prove(upgrade(0, info.length), info.fork).await?;
    let upgrade = proof.and_then(|proof| proof.upgrade).context("no upgrade")?;
    let tree = Tree::from_roots(info.length, upgrade.nodes).context("not the roots of such a tree")?;
    Ok((tree, upgrade.signature))
}

pub(super) fn decode_manifest(bytes: &[u8]) -> Result<Manifest> {
    let mut reader = Reader::new(bytes);
    let manifest = Manifest::decode(&mut reader, &Limits::default())?;
    ensure!(reader.is_empty(), "bytes after the manifest");
    Ok(manifest)
}

/// A proof as a scenario has it: the data message that answers request 0.
pub(super) fn encode_proof(proof: Proof) -> Bytes {
    Message::Data(Data { request: 0, proof }).encode().into()
}

/// The proof of such a message; `None` if it is none that could come from a peer.
pub(super) fn decode_proof(bytes: &Bytes) -> Option<Proof> {
    match Message::decode(3, &bytes.shared(), true, &Limits::default()) {
        Ok(Some(Message::Data(data))) => Some(data.proof),
        _ => None,
    }
}
