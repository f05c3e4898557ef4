//! Seeks, byte offsets, truncations and reorgs against what hypercore makes of them.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use conformance::vectors::{self, Hex, decode_proof, encode_proof};
use party::{
    error::{Error, PeerMisbehaved},
    feed::{
        Feed, Identity,
        memory::MemoryStorage,
        proof::{BlockRequest, Node, Proof, ProofRequest, SeekRequest, UpgradeRequest},
        seek::{Located, SeekStep, Seeker},
        storage::{Key, Slot, Storage},
        tree::Tree,
    },
    key::KeyPair,
};
use serde::Deserialize;

const SLOT: Slot = Slot(0);

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Kind {
    Proof {
        length: u64,
        reader: Start,
        request: Request,
        expect: ProofExpect,
    },
    Changed {
        length: u64,
        reader: Start,
        proof: Hex,
        expect: Taken,
    },
    Seek {
        length: u64,
        stored: Vec<u64>,
        bytes: u64,
        padding: u64,
        expect: SeekExpect,
    },
    Offsets {
        length: u64,
        expect: Offsets,
    },
    Truncated {
        length: u64,
        kept: u64,
        added: u64,
        fork: Option<u64>,
        expect: Signed,
    },
    Reorg {
        length: u64,
        stored: Vec<u64>,
        kept: u64,
        added: u64,
        proof: Hex,
        steps: Vec<Step>,
        expect: Reorged,
    },
    Fork {
        length: u64,
        proof: Hex,
        expect: Accepted,
    },
}

/// A reader as it begins: with the tree of the first blocks, and those of them that are listed.
#[derive(Deserialize)]
struct Start {
    known: u64,
    stored: Vec<u64>,
}

#[derive(Deserialize)]
struct Request {
    block: Option<Indexed>,
    hash: Option<Indexed>,
    seek: Option<Seek>,
    upgrade: Option<Upgrade>,
    #[serde(default)]
    manifest: bool,
}

#[derive(Deserialize)]
struct Indexed {
    index: u64,
    nodes: u64,
}

#[derive(Deserialize)]
struct Seek {
    bytes: u64,
    padding: u64,
}

#[derive(Deserialize)]
struct Upgrade {
    start: u64,
    length: u64,
}

#[derive(Deserialize)]
struct ProofExpect {
    proof: Option<Hex>,
    #[serde(flatten)]
    taken: Option<Taken>,
}

/// What has become of a proof that hypercore's reader was given.
#[derive(Deserialize)]
struct Taken {
    accepted: bool,
    length: u64,
    block: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SeekExpect {
    Found { block: u64, offset: u64 },
    Within { start: u64, end: u64 },
}

#[derive(Deserialize)]
struct Offsets {
    offsets: Vec<Option<u64>>,
}

#[derive(Deserialize)]
struct TreeExpect {
    length: u64,
    byte_length: u64,
    fork: u64,
    tree_hash: Hex,
}

#[derive(Deserialize)]
struct Signed {
    #[serde(flatten)]
    tree: TreeExpect,
    signature: Hex,
}

#[derive(Deserialize)]
struct Step {
    start: u64,
    end: u64,
    block: u64,
    nodes: u64,
    proof: Hex,
}

#[derive(Deserialize)]
struct Reorged {
    #[serde(flatten)]
    tree: TreeExpect,
    ancestors: u64,
    has: Vec<u64>,
}

#[derive(Deserialize)]
struct Accepted {
    accepted: bool,
}

async fn each_case<F: Future<Output = Result<bool>>>(check: impl Fn(Kind) -> F) -> Result<()> {
    vectors::each_case("tree.json", check).await
}

fn key_pair() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

fn block(n: u64, fork: u64) -> Bytes {
    vec![(n + 100 * fork) as u8; (n as usize * 7 + fork as usize * 3) % 23].into()
}

async fn written(length: u64) -> Result<Feed> {
    let feed = Feed::create(Arc::new(MemoryStorage::new()), SLOT, Identity::writer(key_pair())).await?;
    feed.append_batch((0..length).map(|n| block(n, 0)).collect()).await?;
    Ok(feed)
}

async fn forked(length: u64, kept: u64, added: u64, fork: Option<u64>) -> Result<Feed> {
    let feed = written(length).await?;
    feed.truncate_to_fork(kept, fork.unwrap_or(1)).await?;
    feed.append_batch((kept..kept + added).map(|n| block(n, 1)).collect()).await?;
    Ok(feed)
}

async fn reader_of(known: u64, stored: &[u64]) -> Result<(Feed, Arc<MemoryStorage>)> {
    let writer = written(known).await?;
    let storage = Arc::new(MemoryStorage::new());
    let reader = Feed::create(storage.clone(), SLOT, Identity::reader(writer.key())).await?;
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

fn upgrade(start: u64, length: u64) -> ProofRequest {
    let upgrade = Some(UpgradeRequest { start, length });
    ProofRequest { upgrade, manifest: start == 0, ..ProofRequest::default() }
}

/// Whether anything was taken from it, as hypercore counts it.
async fn ingest(feed: &Feed, proof: Proof) -> Result<bool, Error> {
    let taken = feed.ingest(vec![proof]).await.remove(0)?;
    if taken.unconnected {
        return Err(PeerMisbehaved::InvalidProof("it leads nowhere").into());
    }
    Ok(!taken.stale)
}

fn request(request: Request) -> ProofRequest {
    let indexed = |part: Indexed| BlockRequest { index: part.index, nodes: part.nodes };
    ProofRequest {
        block: request.block.map(indexed),
        hash: request.hash.map(indexed),
        seek: request.seek.map(|seek| SeekRequest { bytes: seek.bytes, padding: seek.padding }),
        upgrade: request.upgrade.map(|part| UpgradeRequest { start: part.start, length: part.length }),
        manifest: request.manifest,
    }
}

async fn node(storage: &MemoryStorage, index: u64) -> Result<Option<Bytes>> {
    Ok(storage.read(vec![Key::Node(SLOT, index)]).await?.pop().flatten())
}

/// The tree of a feed, by way of a proof.
async fn tree(feed: &Feed) -> Result<(Tree, Bytes)> {
    let info = feed.info();
    let proof = feed.prove(upgrade(0, info.length), info.fork).await?;
    let upgrade = proof.and_then(|proof| proof.upgrade).context("no upgrade")?;
    let tree = Tree::from_roots(info.length, upgrade.nodes).context("not the roots of such a tree")?;
    Ok((tree, upgrade.signature))
}

async fn ensure_tree(feed: &Feed, expect: &TreeExpect) -> Result<Bytes> {
    let info = feed.info();
    ensure!(info.length == expect.length, "length {}", info.length);
    ensure!(info.byte_length == expect.byte_length, "byte length {}", info.byte_length);
    ensure!(info.fork == expect.fork, "fork {}", info.fork);
    let (tree, signature) = tree(feed).await?;
    ensure!(tree.hash()[..] == *expect.tree_hash, "tree hash");
    Ok(signature)
}

//= FEED-72, FEED-73, FEED-74, FEED-75
#[tokio::test]
async fn proofs_with_seeks_are_those_of_hypercore() -> Result<()> {
    each_case(|kind| async move {
        let Kind::Proof { length, request: wanted, expect, .. } = kind else { return Ok(false) };
        let feed = written(length).await?;
        let wanted = request(wanted);
        let made = feed.prove(wanted.clone(), 0).await;
        match (expect.proof, made) {
            (Some(expected), Ok(Some(proof))) => {
                ensure!(encode_proof(proof.clone()) == expected, "made {:?}", encode_proof(proof));
            }
            // Node answers with a proof of nothing.
            (Some(expected), Ok(None)) => {
                ensure!(expected == encode_proof(Proof::default()), "made nothing");
            }
            (None, Err(Error::PeerMisbehaved(_))) => {}
            (None, Ok(None)) if wanted.block.or(wanted.hash).is_some_and(|part| part.nodes > 0) => {}
            (expected, made) => anyhow::bail!("expected {expected:?}, made {made:?}"),
        }
        Ok(true)
    })
    .await
}

//= FEED-58
#[tokio::test]
async fn proofs_with_seeks_of_hypercore_are_accepted_and_refused_as_by_hypercore() -> Result<()> {
    let writers = tokio::sync::Mutex::new(HashMap::new());
    let writers = &writers;
    each_case(|kind| async move {
        let (length, start, bytes, expect, changed) = match kind {
            Kind::Proof { length, reader, expect, .. } => match (expect.proof, expect.taken) {
                (Some(proof), Some(taken)) => (length, reader, proof, taken, false),
                _ => return Ok(false),
            },
            Kind::Changed { length, reader, proof, expect } => (length, reader, proof, expect, true),
            _ => return Ok(false),
        };
        let (reader, storage) = reader_of(start.known, &start.stored).await?;
        let proof = decode_proof(&bytes).context("not decoded")?;
        let index = proof.block.as_ref().map(|block| block.index);
        let outcome = ingest(&reader, proof).await;
        // What hypercore takes of a changed proof we may refuse, never the other way round.
        let accepted = outcome.is_ok();
        ensure!(accepted == expect.accepted || changed && !accepted, "{outcome:?}");
        if accepted == expect.accepted {
            ensure!(reader.info().length == expect.length, "length {}", reader.info().length);
            ensure!(index.map(|index| reader.has(index)) == expect.block, "has");
        }
        // Whatever was stored is the writer's.
        let mut writers = writers.lock().await;
        if let std::collections::hash_map::Entry::Vacant(entry) = writers.entry(length) {
            let all: Vec<u64> = (0..length).collect();
            entry.insert(reader_of(length, &all).await?.1);
        }
        let writer = writers.get(&length).context("no writer")?;
        for index in 0..2 * length + 4 {
            let stored = node(&storage, index).await?;
            ensure!(stored.is_none() || stored == node(writer, index).await?, "node {index}");
        }
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn seeks_lead_where_those_of_hypercore_lead() -> Result<()> {
    each_case(|kind| async move {
        let Kind::Seek { length, stored, bytes, padding, expect } = kind else { return Ok(false) };
        let (reader, storage) = reader_of(length, &stored).await?;
        let tree = if length > 0 { tree(&reader).await?.0 } else { Tree::default() };
        let mut seeker = Seeker::new(&tree, bytes, padding);
        let found = loop {
            match seeker.poll() {
                SeekStep::Found(found) => break found,
                SeekStep::Read(index) => {
                    let stored =
                        node(&storage, index).await?.map(|bytes| decode_node(index, &bytes)).transpose()?;
                    seeker.handle_node(stored.as_ref());
                }
            }
        };
        let as_expected = match (&found, &expect) {
            (Located::Block { index, offset }, SeekExpect::Found { block, offset: expected }) => {
                index == block && offset == expected
            }
            (Located::Within { blocks, .. }, SeekExpect::Within { start, end }) => *blocks == (*start..*end),
            // Node then waits for the feed to grow.
            (Located::Beyond, SeekExpect::Within { start, .. }) => *start == length,
            _ => false,
        };
        ensure!(as_expected, "{found:?}");
        if padding == 0 {
            ensure!(reader.locate(bytes).await? == found, "by way of the feed");
        }
        Ok(true)
    })
    .await
}

/// A node as it is stored: its size and its hash.
fn decode_node(index: u64, bytes: &[u8]) -> Result<Node> {
    let mut reader = party::encoding::Reader::new(bytes);
    Ok(Node { index, size: reader.uint()?, hash: reader.array()? })
}

#[tokio::test]
async fn byte_offsets_are_those_of_hypercore() -> Result<()> {
    each_case(|kind| async move {
        let Kind::Offsets { length, expect } = kind else { return Ok(false) };
        let feed = written(length).await?;
        for (index, expected) in (0..).zip(expect.offsets) {
            let offset = feed.byte_offset(index).await?;
            ensure!(offset.is_some() && expected.is_none_or(|expected| offset == Some(expected)), "{index}");
        }
        ensure!(feed.byte_offset(length + 1).await?.is_none());
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn trees_and_signatures_after_a_truncation_are_those_of_hypercore() -> Result<()> {
    each_case(|kind| async move {
        let Kind::Truncated { length, kept, added, fork, expect } = kind else { return Ok(false) };
        let feed = forked(length, kept, added, fork).await?;
        let signature = ensure_tree(&feed, &expect.tree).await?;
        ensure!(signature == expect.signature.0, "signature {:?}", Hex(signature.to_vec()));
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn a_reader_follows_to_a_higher_fork_as_in_hypercore() -> Result<()> {
    each_case(|kind| async move {
        let Kind::Reorg { length, stored, kept, added, proof, steps, expect } = kind else {
            return Ok(false);
        };
        let writer = forked(length, kept, added, None).await?;
        let made = writer.prove(ProofRequest { manifest: false, ..upgrade(0, kept + added) }, 1).await?;
        ensure!(made.map(encode_proof) == Some(proof.clone()), "the proof of the fork");
        let (reader, _) = reader_of(length, &stored).await?;
        let mut reorg =
            reader.reorg(decode_proof(&proof).context("not decoded")?).await?.context("no fork")?;
        for (n, step) in steps.into_iter().enumerate() {
            let want = reorg.want().with_context(|| format!("finished before step {n}"))?.clone();
            ensure!(want.blocks() == (step.start..step.end), "step {n}: {want:?}");
            let request = want.request(step.block);
            ensure!(
                request.hash == Some(BlockRequest { index: 2 * step.block, nodes: step.nodes }),
                "step {n}: {request:?}",
            );
            let made = writer.prove(request, 1).await?;
            ensure!(made.map(encode_proof) == Some(step.proof.clone()), "step {n}: the proof");
            reorg.handle_proof(decode_proof(&step.proof).context("not decoded")?).await?;
        }
        ensure!(reorg.want().is_none(), "wants {:?}", reorg.want());
        let common = reorg.commit().await?;
        ensure!(common == Some(expect.ancestors), "common {common:?}");
        ensure_tree(&reader, &expect.tree).await?;
        let has: Vec<u64> = (0..kept + added).filter(|index| reader.has(*index)).collect();
        ensure!(has == expect.has, "has {has:?}");
        ensure!(reader.audit().await?.is_clean());
        Ok(true)
    })
    .await
}

//= FEED-76, FEED-77
#[tokio::test]
async fn forks_are_accepted_and_refused_as_by_hypercore() -> Result<()> {
    each_case(|kind| async move {
        let Kind::Fork { length, proof, expect } = kind else { return Ok(false) };
        let (reader, _) = reader_of(length, &[]).await?;
        let outcome = reader.reorg(decode_proof(&proof).context("not decoded")?).await;
        ensure!(matches!(outcome, Ok(Some(_))) == expect.accepted, "{outcome:?}");
        ensure!((reader.info().fork, reader.info().length) == (0, length));
        Ok(true)
    })
    .await
}
