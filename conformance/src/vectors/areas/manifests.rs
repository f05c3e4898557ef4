//! Manifests made and received, multi-signatures, and feeds with a prologue.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use party::{
    encoding::Reader,
    error::{ApiMisuse, Error},
    feed::{
        Feed, Identity,
        manifest::{Manifest, Prologue},
        memory::MemoryStorage,
        quorum::{Draft, PartialSignature, Signable},
        tree::Tree,
        verifier::Verifier,
    },
    key::{FeedKey, KeyPair, PublicKey},
    limits::Limits,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    feeds::{holds, tree_with},
    fields::encoded,
    world::{SLOT, blocks, decode_manifest, encode_proof, ingest, reader, upgrade},
};
use crate::vectors::{
    Bytes, Kind, Outcome, Refusal,
    kind::{block_on, read},
};

pub(super) const KINDS: &[Kind] = &[
    Kind::new("made", made),
    Kind::new("received", received).wire("/manifest").bound(),
    Kind::new("signable", signable),
    Kind::new("assembled", assembled),
    Kind::new("flipped", flipped),
    Kind::new("multi_signature", multi_signature),
    Kind::new("prologue", |input| block_on(prologue(input))),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    version: Option<u8>,
    quorum: Option<u64>,
    allow_patch: bool,
    signers: Vec<WantedSigner>,
    prologue: Option<WantedPrologue>,
    linked: Vec<Bytes>,
    user_data: Option<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedSigner {
    public_key: Bytes,
    namespace: Option<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedPrologue {
    hash: Bytes,
    length: u64,
}

fn made(input: &Value) -> Result<Outcome> {
    let input: Wanted = read(input)?;
    let mut builder = Manifest::builder().allow_patch(input.allow_patch);
    for signer in &input.signers {
        let public_key = PublicKey::from_bytes(signer.public_key.array()?);
        builder = match &signer.namespace {
            Some(namespace) => builder.signer_in(namespace.array()?, public_key),
            None => builder.signer(public_key),
        };
    }
    for key in &input.linked {
        builder = builder.linked([FeedKey::from_bytes(key.array()?)]);
    }
    if let Some(prologue) = &input.prologue {
        builder = builder.prologue(Prologue { hash: prologue.hash.array()?, length: prologue.length });
    }
    if let Some(user_data) = input.user_data {
        builder = builder.user_data(user_data.0);
    }
    if let Some(version) = input.version {
        builder = builder.version(version);
    }
    if let Some(quorum) = input.quorum {
        builder = builder.quorum(quorum);
    }
    let manifest = match builder.build() {
        Ok(manifest) => manifest,
        Err(ApiMisuse::InvalidManifest(_)) => return Outcome::refuse(Refusal::Misuse),
        Err(error) => return Err(error.into()),
    };
    ensure!(decode_manifest(&encoded(&manifest))? == manifest, "it comes back as another");
    Verifier::new(manifest.key(), manifest.clone())?;
    Outcome::accept(json!({
        "manifest": encoded(&manifest),
        "key": Bytes::from(manifest.key().as_bytes()),
        "discovery_key": Bytes::from(manifest.key().discovery_key().as_bytes()),
        "version": manifest.version,
        "quorum": manifest.quorum,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Received {
    key: Bytes,
    manifest: Bytes,
}

fn received(input: &Value) -> Result<Outcome> {
    let Received { key, manifest: bytes } = read(input)?;
    let mut reader = Reader::new(&bytes);
    let Ok(manifest) = Manifest::decode(&mut reader, &Limits::default()) else {
        return Outcome::refuse(Refusal::Manifest);
    };
    let read = bytes.len() - reader.remaining().len();
    let encoded = encoded(&manifest);
    let Ok(verifier) = Verifier::new(FeedKey::from_bytes(key.array()?), manifest) else {
        return Outcome::refuse(Refusal::Manifest);
    };
    let is_canonical = encoded == bytes;
    Outcome::accept(json!({ "compat": verifier.is_legacy(), "encoded": encoded, "read": read }))?
        .seen(is_canonical)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToSign {
    key: Bytes,
    manifest: Bytes,
    signer: u64,
    seed: u8,
    length: u64,
    fork: u64,
}

fn verifier(key: &Bytes, manifest: &Bytes) -> Result<Verifier> {
    Ok(Verifier::new(FeedKey::from_bytes(key.array()?), decode_manifest(manifest)?)?)
}

fn signable(input: &Value) -> Result<Outcome> {
    let input: ToSign = read(input)?;
    let verifier = verifier(&input.key, &input.manifest)?;
    let tree = tree_with(input.length)?;
    let signable = Signable::of(verifier.key(), &tree, input.fork);
    let part = verifier.sign_part(&KeyPair::from_seed(&[input.seed; 32]), &tree, input.fork)?;
    ensure!(part.signer() == input.signer, "signed by signer {}", part.signer());
    let message = signable.message(&verifier, input.signer).context("no such signer")?;
    ensure!(PartialSignature::new(signable, input.signer, *part.signature()) == part, "another part");
    Outcome::accept(json!({
        "tree_hash": Bytes::from(tree.hash()),
        "message": Bytes(message),
        "signature": Bytes::from(part.signature()),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToAssemble {
    manifest: Bytes,
    length: u64,
    fork: u64,
    parts: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    signer: u64,
    seed: u8,
    length: u64,
}

fn assembled(input: &Value) -> Result<Outcome> {
    let ToAssemble { manifest, length, fork, parts } = read(input)?;
    let manifest = decode_manifest(&manifest)?;
    let verifier = Verifier::new(manifest.key(), manifest)?;
    let draft = |length| Draft::append(verifier.clone(), Tree::default(), fork, blocks(length));
    let mut handed_over = Vec::new();
    for part in parts {
        let longer = draft(part.length)?;
        let signed = longer.sign(&KeyPair::from_seed(&[part.seed; 32]))?;
        ensure!(signed.signer() == part.signer, "signed by signer {}", signed.signer());
        handed_over.push(PartialSignature::decode(&longer.patch(signed, length)?.encode())?);
    }
    let signature = draft(length)?.assemble(&handed_over)?;
    verifier.verify(&tree_with(length)?, fork, &signature)?;
    Outcome::accept(json!({ "signature": Bytes::from(&signature) }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    key: Bytes,
    manifest: Bytes,
    length: u64,
    fork: u64,
    signature: Bytes,
}

fn flipped(input: &Value) -> Result<Outcome> {
    let input: Signed = read(input)?;
    let verifier = verifier(&input.key, &input.manifest)?;
    let tree = tree_with(input.length)?;
    let stands = |at: usize| {
        let mut changed = input.signature.0.clone();
        changed[at] ^= 1;
        verifier.verify(&tree, input.fork, &changed).is_ok()
    };
    let digits: String = (0..input.signature.len()).map(|at| if stands(at) { '1' } else { '0' }).collect();
    Outcome::accept(json!({ "bytes": digits }))
}

fn multi_signature(input: &Value) -> Result<Outcome> {
    let input: Signed = read(input)?;
    holds(&verifier(&input.key, &input.manifest)?, input.length, input.fork, &input.signature)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Appended {
    manifest: Bytes,
    /// How many blocks at a time.
    appends: Vec<u64>,
}

/// A writer appends, and a reader takes the proof of all of it.
async fn prologue(input: &Value) -> Result<Outcome> {
    let Appended { manifest, appends } = read(input)?;
    let manifest = decode_manifest(&manifest)?;
    let is_static = manifest.signers.is_empty();
    let identity = match is_static {
        true => Identity::from_manifest(manifest.clone()),
        false => Identity::signer(manifest.clone(), KeyPair::from_seed(&[1; 32])),
    };
    let writer = Feed::create(Arc::new(MemoryStorage::new()), SLOT, identity).await?;
    for count in appends {
        let from = writer.info().length;
        let more = blocks(from + count).split_off(from as usize);
        let appended = match is_static {
            true => writer.fill(more).await,
            false => writer.append_batch(more).await.map(drop),
        };
        match appended {
            Ok(()) => {}
            Err(Error::ApiMisuse(_)) => return Outcome::refuse(Refusal::Prologue),
            Err(error) => return Err(error.into()),
        }
    }
    let length = writer.info().length;
    let mut proof = writer.prove(upgrade(0, length), 0).await?.context("no proof")?;
    let (reader, _) = reader(manifest.key()).await?;
    ingest(&reader, proof.clone()).await?;
    ensure!(reader.info().length == length, "the reader has {} blocks", reader.info().length);
    // Node signs a tree that needs no signature, if it has a signer. We don't, and what stands there counts for nothing.
    if length == manifest.prologue.context("no prologue")?.length && !is_static {
        let upgrade = proof.upgrade.as_mut().context("no upgrade")?;
        ensure!(upgrade.signature.is_empty(), "a signature that isn't needed");
        let verifier = Verifier::new(manifest.key(), manifest.clone())?;
        let part = verifier.sign_part(&KeyPair::from_seed(&[1; 32]), &tree_with(length)?, 0)?;
        upgrade.signature = [&[1, 0], part.signature().as_slice(), &[0, 0]].concat().into();
        let (another, _) = super::world::reader(manifest.key()).await?;
        ingest(&another, proof.clone()).await?;
    }
    Outcome::accept(json!({ "length": length, "proof": encode_proof(proof) }))
}
