//! Feeds against what hypercore makes of them: the same manifests give the same keys, the same blocks the
//! same trees, signatures and proofs; what hypercore's verifier accepts is accepted, and what it refuses is
//! refused.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use conformance::vectors::{self, Hex, decode_proof, encode_proof};
use party::{
    encoding::Reader,
    error::{Error, PeerMisbehaved},
    feed::{
        Feed, Identity,
        manifest::{Manifest, Signer},
        memory::MemoryStorage,
        proof::{BlockRequest, Node, Proof, ProofRequest, UpgradeRequest},
        storage::Slot,
        tree::Tree,
        verifier::Verifier,
    },
    key::{FeedKey, KeyPair, PublicKey},
    limits::Limits,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Kind {
    Manifest { manifest: Hex, expect: ManifestExpect },
    Tree { feed: FeedKind, length: u64, fork: u64, expect: TreeExpect },
    Proof { feed: FeedKind, length: u64, request: Request, expect: ProofExpect },
    Signature { manifest: Hex, length: u64, fork: u64, signature: Hex, expect: SignatureExpect },
}

#[derive(Deserialize)]
struct ManifestExpect {
    key: Hex,
    discovery_key: Hex,
    version: u8,
    quorum: u64,
    allow_patch: bool,
    signers: Vec<SignerExpect>,
}

#[derive(Deserialize)]
struct SignerExpect {
    public_key: Hex,
    namespace: Hex,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FeedKind {
    Default,
    Legacy,
    #[serde(rename = "version_0")]
    Version0,
}

#[derive(Deserialize)]
struct TreeExpect {
    key: Hex,
    byte_length: u64,
    tree_hash: Hex,
    roots: Vec<NodeExpect>,
    signature: Hex,
}

#[derive(Deserialize)]
struct NodeExpect {
    index: u64,
    size: u64,
    hash: Hex,
}

#[derive(Deserialize)]
struct Request {
    block: Option<Indexed>,
    hash: Option<Indexed>,
    upgrade: Option<Upgrade>,
    manifest: bool,
}

#[derive(Deserialize)]
struct Indexed {
    index: u64,
    nodes: u64,
}

#[derive(Deserialize)]
struct Upgrade {
    start: u64,
    length: u64,
}

#[derive(Deserialize)]
struct ProofExpect {
    proof: Option<Hex>,
    reader_length: Option<u64>,
    #[serde(default)]
    reader_has: bool,
}

#[derive(Deserialize)]
struct SignatureExpect {
    accepted: bool,
}

async fn each_case<F: Future<Output = Result<bool>>>(check: impl Fn(Kind) -> F) -> Result<()> {
    vectors::each_case("feed.json", check).await
}

fn key_pair() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

fn block(n: u64) -> Bytes {
    vec![n as u8; (n as usize * 7) % 23].into()
}

fn identity(kind: FeedKind) -> Identity {
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

async fn written(kind: FeedKind, length: u64) -> Result<Feed> {
    let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity(kind)).await?;
    feed.append_batch((0..length).map(block).collect()).await?;
    Ok(feed)
}

async fn reader(key: FeedKey) -> Result<Feed> {
    Ok(Feed::create(Arc::new(MemoryStorage::new()), Slot(0), Identity::reader(key)).await?)
}

fn decode_manifest(bytes: &[u8]) -> Result<Manifest> {
    let mut reader = Reader::new(bytes);
    let manifest = Manifest::decode(&mut reader, &Limits::default())?;
    ensure!(reader.is_empty());
    Ok(manifest)
}

/// Takes in one proof alone, which has to lead to what is known.
async fn ingest(feed: &Feed, proof: Proof) -> Result<(), Error> {
    let ingested = feed.ingest(vec![proof]).await.remove(0)?;
    if ingested.unconnected { Err(PeerMisbehaved::InvalidProof("it leads nowhere").into()) } else { Ok(()) }
}

//= FEED-1, FEED-8
#[tokio::test]
async fn manifests_and_keys_are_those_of_hypercore() -> Result<()> {
    each_case(|kind| async move {
        let Kind::Manifest { manifest: bytes, expect } = kind else { return Ok(false) };
        let manifest = decode_manifest(&bytes)?;
        let mut encoded = Vec::new();
        manifest.encode(&mut encoded);
        ensure!(encoded == bytes.0, "encoded as {:?}", Hex(encoded));
        ensure!(manifest.key().as_bytes()[..] == *expect.key, "key {}", manifest.key());
        ensure!(manifest.key().discovery_key().as_bytes()[..] == *expect.discovery_key, "discovery key");
        ensure!(manifest.version == expect.version, "version");
        ensure!(manifest.allow_patch == expect.allow_patch, "allow_patch");
        ensure!(manifest.quorum == expect.quorum, "quorum");
        let signers: Vec<Signer> = expect
            .signers
            .iter()
            .map(|signer| {
                let public_key = PublicKey::from_bytes(signer.public_key.array()?);
                Ok(Signer { public_key, namespace: signer.namespace.array()? })
            })
            .collect::<Result<_>>()?;
        ensure!(manifest.signers == signers, "signers");
        Ok(true)
    })
    .await
}

//= FEED-18, FEED-19, FEED-22
#[tokio::test]
async fn trees_and_signatures_are_those_of_hypercore() -> Result<()> {
    each_case(|kind| async move {
        let Kind::Tree { feed, length, fork, expect } = kind else { return Ok(false) };
        let feed = written(feed, length).await?;
        ensure!(feed.key().as_bytes()[..] == *expect.key, "key {}", feed.key());
        ensure!(feed.info().byte_length == expect.byte_length, "byte length");
        ensure!(feed.info().fork == fork, "fork");
        let roots = expect
            .roots
            .iter()
            .map(|root| Ok(Node { index: root.index, size: root.size, hash: root.hash.array()? }))
            .collect::<Result<Vec<_>>>()?;
        let tree = Tree::from_roots(length, roots.clone()).context("not the roots of such a tree")?;
        ensure!(tree.hash()[..] == *expect.tree_hash, "tree hash");
        if length == 0 {
            return Ok(true);
        }
        let upgrade = Some(UpgradeRequest { start: 0, length });
        let proof = feed.prove(ProofRequest { upgrade, ..ProofRequest::default() }, fork).await?;
        let upgrade = proof.and_then(|proof| proof.upgrade).context("no upgrade")?;
        ensure!(upgrade.nodes == roots, "roots");
        // Ed25519 signatures are deterministic, so ours are the same to the bit.
        ensure!(upgrade.signature == expect.signature.0, "signature {:?}", Hex(upgrade.signature.to_vec()));
        let verifier = Verifier::new(feed.key(), feed.manifest().context("no manifest")?)?;
        verifier.verify(&tree, fork, &expect.signature)?;
        ensure!(verifier.verify(&tree, fork + 1, &expect.signature).is_err(), "signed another fork");
        Ok(true)
    })
    .await
}

//= FEED-19, FEED-22
#[tokio::test]
async fn signatures_are_accepted_and_refused_as_by_hypercore() -> Result<()> {
    each_case(|kind| async move {
        let Kind::Signature { manifest, length, fork, signature, expect } = kind else { return Ok(false) };
        let manifest = decode_manifest(&manifest)?;
        let verifier = Verifier::new(manifest.key(), manifest)?;
        let tree = tree_of(length).await?;
        let accepted = verifier.verify(&tree, fork, &signature).is_ok();
        ensure!(accepted == expect.accepted, "accepted: {accepted}");
        Ok(true)
    })
    .await
}

/// The tree of the first blocks, by way of a feed.
async fn tree_of(length: u64) -> Result<Tree> {
    let feed = written(FeedKind::Default, length).await?;
    let upgrade = Some(UpgradeRequest { start: 0, length });
    let proof = feed.prove(ProofRequest { upgrade, ..ProofRequest::default() }, 0).await?;
    let nodes = proof.and_then(|proof| proof.upgrade).context("no upgrade")?.nodes;
    Tree::from_roots(length, nodes).context("no roots")
}

#[tokio::test]
async fn proofs_are_those_of_hypercore() -> Result<()> {
    each_case(|kind| async move {
        let Kind::Proof { feed, length, request, expect } = kind else { return Ok(false) };
        let feed = written(feed, length).await?;
        let indexed = |part: Indexed| BlockRequest { index: part.index, nodes: part.nodes };
        let request = ProofRequest {
            block: request.block.map(indexed),
            hash: request.hash.map(indexed),
            seek: None,
            upgrade: request
                .upgrade
                .map(|upgrade| UpgradeRequest { start: upgrade.start, length: upgrade.length }),
            manifest: request.manifest,
        };
        let made = feed.prove(request.clone(), 0).await;
        match (expect.proof, made) {
            (Some(expected), Ok(Some(proof))) => {
                ensure!(encode_proof(proof.clone()) == expected, "made {:?}", encode_proof(proof));
            }
            (None, Err(Error::PeerMisbehaved(_))) => {}
            // An asker whose tree is larger than ours is no fault; Node says "invalid" here, too.
            (None, Ok(None)) if request.block.or(request.hash).is_some_and(|part| part.nodes > 0) => {}
            (expected, made) => anyhow::bail!("expected {expected:?}, made {made:?}"),
        }
        Ok(true)
    })
    .await
}

//= FEED-56, FEED-57, FEED-59
#[tokio::test]
async fn proofs_of_hypercore_are_accepted_and_refused_as_by_hypercore() -> Result<()> {
    each_case(|kind| async move {
        let Kind::Proof { feed: kind, expect, .. } = kind else { return Ok(false) };
        let Some(bytes) = expect.proof else { return Ok(false) };
        let feed = reader(identity(kind).key).await?;
        let proof = decode_proof(&bytes).context("not decoded")?;
        let index = proof.block.as_ref().map(|block| block.index);
        let outcome = ingest(&feed, proof).await;
        match expect.reader_length {
            Some(length) => {
                outcome?;
                ensure!(feed.info().length == length, "length {}", feed.info().length);
                if let Some(index) = index {
                    ensure!(feed.has(index) == expect.reader_has, "has {}", feed.has(index));
                    ensure!(feed.get(index).await? == expect.reader_has.then(|| block(index)), "block");
                }
            }
            None => {
                ensure!(outcome.is_err(), "accepted");
                ensure!(feed.info().length == 0 && !index.is_some_and(|index| feed.has(index)), "stored");
            }
        }
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn changed_proofs_of_hypercore_are_refused_or_change_nothing() -> Result<()> {
    let mut originals = HashMap::new();
    for length in 1..=22 {
        originals.insert(length, written(FeedKind::Default, length).await?);
    }
    let originals = &originals;
    each_case(|kind| async move {
        let Kind::Proof { feed: kind, expect, .. } = kind else { return Ok(false) };
        let (Some(bytes), Some(_)) = (expect.proof, expect.reader_length) else { return Ok(false) };
        for at in (0..bytes.len()).step_by(5) {
            let mut changed = bytes.0.clone();
            changed[at] ^= 1 << (at % 8);
            let Some(proof) = decode_proof(&changed) else { continue };
            let feed = reader(identity(kind).key).await?;
            let _ = ingest(&feed, proof).await;
            // Whatever was taken from it is the writer's.
            let length = feed.info().length;
            if length > 0 {
                let original = originals.get(&length).context("a length that was never signed")?;
                ensure!(feed.info().byte_length == original.info().byte_length);
                let upgrade = Some(UpgradeRequest { start: 0, length });
                let request = ProofRequest { upgrade, ..ProofRequest::default() };
                let ours = feed.prove(request.clone(), 0).await?.context("no proof")?;
                let theirs = original.prove(request, 0).await?.context("no proof")?;
                ensure!(ours.upgrade.map(|u| u.nodes) == theirs.upgrade.map(|u| u.nodes), "byte {at}");
            }
            for index in 0..30 {
                let stored = feed.get(index).await?;
                ensure!(stored.is_none_or(|stored| stored == block(index)), "byte {at}: block {index}");
            }
        }
        Ok(true)
    })
    .await
}
