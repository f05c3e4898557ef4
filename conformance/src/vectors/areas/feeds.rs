//! Manifests and keys, trees with their signatures, proofs and who takes them.

use anyhow::{Context as _, Result, ensure};
use party::{
    error::PeerMisbehaved,
    feed::{quorum::Draft, tree::Tree, verifier::Verifier},
    key::FeedKey,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    fields::{Asked, encoded, nodes},
    world::{FeedKind, blocks, decode_manifest, identity, proved, reader, shown, tree_of, written},
};
use crate::vectors::{
    Bytes, Kind, Outcome, Refusal,
    kind::{block_on, read},
};

pub(super) const KINDS: &[Kind] = &[
    Kind::new("manifest", manifest),
    Kind::new("tree", |input| block_on(tree(input))),
    Kind::new("prove", |input| block_on(prove(input))),
    Kind::new("verify", |input| block_on(verify(input))).wire("/proof").bound(),
    Kind::new("signature", signature),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded {
    manifest: Bytes,
}

fn manifest(input: &Value) -> Result<Outcome> {
    let Encoded { manifest: bytes } = read(input)?;
    let manifest = decode_manifest(&bytes)?;
    ensure!(encoded(&manifest) == bytes, "encoded as {:?}", encoded(&manifest));
    let signers: Vec<Value> = manifest
        .signers
        .iter()
        .map(|signer| {
            let public_key = Bytes::from(signer.public_key.as_bytes());
            json!({ "public_key": public_key, "namespace": Bytes::from(signer.namespace) })
        })
        .collect();
    Outcome::accept(json!({
        "key": Bytes::from(manifest.key().as_bytes()),
        "discovery_key": Bytes::from(manifest.key().discovery_key().as_bytes()),
        "version": manifest.version,
        "quorum": manifest.quorum,
        "allow_patch": manifest.allow_patch,
        "signers": signers,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grown {
    feed: FeedKind,
    length: u64,
    fork: u64,
}

async fn tree(input: &Value) -> Result<Outcome> {
    let Grown { feed: kind, length, fork } = read(input)?;
    let feed = written(kind, length).await?;
    ensure!(feed.info().fork == fork, "fork {}", feed.info().fork);
    let (tree, signature) = tree_of(&feed).await?;
    if length > 0 {
        let verifier = Verifier::new(feed.key(), feed.manifest().context("no manifest")?)?;
        verifier.verify(&tree, fork, &signature)?;
        ensure!(verifier.verify(&tree, fork + 1, &signature).is_err(), "it holds for another fork");
    }
    Outcome::accept(json!({
        "key": Bytes::from(feed.key().as_bytes()),
        "byte_length": feed.info().byte_length,
        "tree_hash": Bytes::from(tree.hash()),
        "roots": nodes(tree.roots()),
        "signature": Bytes::from(&signature),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prove {
    feed: FeedKind,
    length: u64,
    request: Asked,
}

async fn prove(input: &Value) -> Result<Outcome> {
    let Prove { feed, length, request } = read(input)?;
    proved(&written(feed, length).await?, request.into()).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Verify {
    feed: FeedKind,
    proof: Bytes,
}

async fn verify(input: &Value) -> Result<Outcome> {
    let Verify { feed, proof } = read(input)?;
    let (reader, storage) = reader(identity(feed).key).await?;
    shown(&reader, &storage, &proof).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    manifest: Bytes,
    length: u64,
    fork: u64,
    signature: Bytes,
}

fn signature(input: &Value) -> Result<Outcome> {
    let Signed { manifest, length, fork, signature } = read(input)?;
    let manifest = decode_manifest(&manifest)?;
    let verifier = Verifier::new(manifest.key(), manifest)?;
    holds(&verifier, length, fork, &signature)
}

/// Whether a signature stands for the tree of the first blocks.
pub(super) fn holds(verifier: &Verifier, length: u64, fork: u64, signature: &Bytes) -> Result<Outcome> {
    match verifier.verify(&tree_with(length)?, fork, signature) {
        Ok(()) => Outcome::accept(json!({})),
        Err(PeerMisbehaved::InvalidSignature | PeerMisbehaved::InvalidProof(_)) => {
            Outcome::refuse(Refusal::Signature)
        }
        Err(error) => Err(error.into()),
    }
}

/// The tree of the first `length` blocks.
pub(super) fn tree_with(length: u64) -> Result<Tree> {
    if length == 0 {
        return Ok(Tree::default());
    }
    let anybody = Verifier::legacy(FeedKey::from_bytes([0; 32]));
    Ok(Draft::append(anybody, Tree::default(), 0, blocks(length))?.tree().clone())
}
