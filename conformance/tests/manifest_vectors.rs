//! Manifests of every kind against what hypercore makes of them: which can be made and under which key, which are
//! taken from a peer, what their signers sign, how multi-signatures are assembled, and which of them hold.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use conformance::vectors::{Hex, cases};
use party::{
    encoding::Reader,
    error::ApiMisuse,
    feed::{
        Feed, Identity,
        manifest::{Manifest, Prologue},
        memory::MemoryStorage,
        proof::{ProofRequest, UpgradeRequest},
        quorum::{Draft, PartialSignature, Signable},
        storage::Slot,
        tree::Tree,
        verifier::Verifier,
    },
    key::{FeedKey, KeyPair, PublicKey},
    limits::Limits,
    replication::messages::{Data, Message},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Kind {
    Made {
        #[serde(flatten)]
        input: Input,
        expect: Made,
    },
    Received {
        key: Hex,
        manifest: Hex,
        expect: Received,
    },
    Signable {
        key: Hex,
        manifest: Hex,
        signer: u64,
        seed: u8,
        length: u64,
        fork: u64,
        expect: Signed,
    },
    Assembled {
        manifest: Hex,
        length: u64,
        fork: u64,
        parts: Vec<Part>,
        expect: Assembled,
    },
    Flipped {
        key: Hex,
        manifest: Hex,
        length: u64,
        fork: u64,
        signature: Hex,
        expect: Flipped,
    },
    Signature {
        key: Hex,
        manifest: Hex,
        length: u64,
        fork: u64,
        signature: Hex,
        expect: Accepted,
    },
    Prologue {
        manifest: Hex,
        appends: Vec<u64>,
        expect: Proved,
    },
}

#[derive(Deserialize)]
struct Input {
    version: Option<u8>,
    quorum: Option<u64>,
    allow_patch: bool,
    signers: Vec<SignerInput>,
    prologue: Option<PrologueInput>,
    linked: Vec<Hex>,
    user_data: Option<Hex>,
}

#[derive(Deserialize)]
struct SignerInput {
    public_key: Hex,
    namespace: Option<Hex>,
}

#[derive(Deserialize)]
struct PrologueInput {
    hash: Hex,
    length: u64,
}

#[derive(Deserialize)]
struct Made {
    manifest: Option<Hex>,
    key: Option<Hex>,
    discovery_key: Option<Hex>,
    version: Option<u8>,
    quorum: Option<u64>,
}

#[derive(Deserialize)]
struct Received {
    accepted: bool,
    compat: Option<bool>,
    encoded: Option<Hex>,
    read: Option<usize>,
}

#[derive(Deserialize)]
struct Signed {
    tree_hash: Hex,
    message: Hex,
    signature: Hex,
}

#[derive(Deserialize)]
struct Part {
    signer: u64,
    seed: u8,
    length: u64,
}

#[derive(Deserialize)]
struct Assembled {
    signature: Hex,
    accepted: bool,
}

#[derive(Deserialize)]
struct Flipped {
    accepted: String,
}

#[derive(Deserialize)]
struct Accepted {
    accepted: bool,
}

#[derive(Deserialize)]
struct Proved {
    length: u64,
    proof: Option<Hex>,
}

fn each_case(mut check: impl FnMut(&Kind) -> Result<bool>) -> Result<()> {
    let mut checked = 0;
    for case in cases::<Case>("manifests.json")? {
        checked += usize::from(check(&case.kind).with_context(|| case.name.clone())?);
    }
    ensure!(checked > 0, "no case of this kind");
    Ok(())
}

fn blocks(length: u64) -> Vec<Bytes> {
    (0..length).map(|n| vec![n as u8; (n as usize * 7) % 23].into()).collect()
}

/// The tree of the first `length` blocks.
fn tree(length: u64) -> Result<Tree> {
    if length == 0 {
        return Ok(Tree::default());
    }
    let anybody = Verifier::legacy(FeedKey::from_bytes([0; 32]));
    Ok(Draft::append(anybody, Tree::default(), 0, blocks(length))?.tree().clone())
}

fn decode(bytes: &[u8]) -> Result<Manifest> {
    let mut reader = Reader::new(bytes);
    let manifest = Manifest::decode(&mut reader, &Limits::default())?;
    ensure!(reader.is_empty());
    Ok(manifest)
}

fn encode(manifest: &Manifest) -> Hex {
    let mut out = Vec::new();
    manifest.encode(&mut out);
    Hex(out)
}

fn verifier(key: &Hex, manifest: &Hex) -> Result<Verifier> {
    Ok(Verifier::new(FeedKey::from_bytes(key.array()?), decode(manifest)?)?)
}

//= FEED-8, FEED-9, FEED-17
#[test]
fn what_hypercore_makes_the_builder_makes_and_what_it_refuses_is_refused() -> Result<()> {
    each_case(|kind| {
        let Kind::Made { input, expect } = kind else { return Ok(false) };
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
        if let Some(user_data) = &input.user_data {
            builder = builder.user_data(user_data.0.clone());
        }
        if let Some(version) = input.version {
            builder = builder.version(version);
        }
        if let Some(quorum) = input.quorum {
            builder = builder.quorum(quorum);
        }
        match (&expect.manifest, builder.build()) {
            (Some(expected), Ok(manifest)) => {
                ensure!(encode(&manifest) == *expected, "made {:?}", encode(&manifest));
                ensure!(decode(expected)? == manifest, "comes back as another");
                ensure!(expect.key == Some(Hex(manifest.key().as_bytes().to_vec())), "key");
                let discovery_key = manifest.key().discovery_key();
                ensure!(
                    expect.discovery_key == Some(Hex(discovery_key.as_bytes().to_vec())),
                    "discovery key"
                );
                ensure!((expect.version, expect.quorum) == (Some(manifest.version), Some(manifest.quorum)));
                Verifier::new(manifest.key(), manifest)?;
            }
            (None, Err(ApiMisuse::InvalidManifest(_))) => {}
            (expected, made) => anyhow::bail!("expected {expected:?}, made {made:?}"),
        }
        Ok(true)
    })
}

//= FEED-5, FEED-6, FEED-7, FEED-10, FEED-11, FEED-12, FEED-13, FEED-14, FEED-15
#[test]
fn manifests_of_peers_are_taken_and_refused_as_by_hypercore() -> Result<()> {
    each_case(|kind| {
        let Kind::Received { key, manifest: bytes, expect } = kind else { return Ok(false) };
        let mut reader = Reader::new(bytes);
        let manifest = Manifest::decode(&mut reader, &Limits::default());
        let read = bytes.len() - reader.remaining().len();
        let verifier = manifest
            .clone()
            .ok()
            .and_then(|manifest| Verifier::new(FeedKey::from_bytes(key.array().ok()?), manifest).ok());
        ensure!(verifier.is_some() == expect.accepted, "accepted: {}", verifier.is_some());
        if let Some(verifier) = verifier {
            ensure!(Some(verifier.is_legacy()) == expect.compat, "legacy: {}", verifier.is_legacy());
            ensure!(Some(encode(&manifest?)) == expect.encoded, "encoding");
            ensure!(Some(read) == expect.read, "read {read}");
        }
        Ok(true)
    })
}

#[test]
fn signers_sign_what_hypercore_s_sign() -> Result<()> {
    each_case(|kind| {
        let Kind::Signable { key, manifest, signer, seed, length, fork, expect } = kind else {
            return Ok(false);
        };
        let verifier = verifier(key, manifest)?;
        let tree = tree(*length)?;
        ensure!(tree.hash()[..] == *expect.tree_hash, "tree hash");
        let signable = Signable::of(verifier.key(), &tree, *fork);
        ensure!(signable.message(&verifier, *signer) == Some(expect.message.0.clone()), "message");
        let part = verifier.sign_part(&KeyPair::from_seed(&[*seed; 32]), &tree, *fork)?;
        ensure!((part.signer(), part.signature()) == (*signer, &expect.signature.array()?), "signature");
        ensure!(PartialSignature::new(signable, *signer, expect.signature.array()?) == part);
        Ok(true)
    })
}

#[test]
fn parts_are_assembled_to_the_bytes_of_hypercore() -> Result<()> {
    each_case(|kind| {
        let Kind::Assembled { manifest, length, fork, parts, expect } = kind else { return Ok(false) };
        ensure!(expect.accepted);
        let manifest = decode(manifest)?;
        let verifier = Verifier::new(manifest.key(), manifest)?;
        let draft = |length| Draft::append(verifier.clone(), Tree::default(), *fork, blocks(length));
        let mut handed_over = Vec::new();
        for part in parts {
            let longer = draft(part.length)?;
            let signed = longer.sign(&KeyPair::from_seed(&[part.seed; 32]))?;
            ensure!(signed.signer() == part.signer);
            handed_over.push(PartialSignature::decode(&longer.patch(signed, *length)?.encode())?);
        }
        let signature = draft(*length)?.assemble(&handed_over)?;
        ensure!(*signature == *expect.signature, "assembled {:?}", Hex(signature.to_vec()));
        verifier.verify(&tree(*length)?, *fork, &signature)?;
        Ok(true)
    })
}

#[test]
fn a_flipped_bit_matters_where_it_matters_to_hypercore() -> Result<()> {
    each_case(|kind| {
        let Kind::Flipped { key, manifest, length, fork, signature, expect } = kind else {
            return Ok(false);
        };
        let verifier = verifier(key, manifest)?;
        let tree = tree(*length)?;
        ensure!(expect.accepted.len() == signature.len());
        for (at, expected) in expect.accepted.bytes().enumerate() {
            let mut changed = signature.0.clone();
            changed[at] ^= 1;
            let accepted = verifier.verify(&tree, *fork, &changed).is_ok();
            ensure!(accepted == (expected == b'1'), "byte {at}: accepted: {accepted}");
        }
        Ok(true)
    })
}

//= FEED-23, FEED-24, FEED-25, FEED-26, FEED-27, FEED-28, FEED-29, FEED-30
#[test]
fn signatures_hold_and_fail_as_in_hypercore() -> Result<()> {
    each_case(|kind| {
        let Kind::Signature { key, manifest, length, fork, signature, expect } = kind else {
            return Ok(false);
        };
        let accepted = verifier(key, manifest)?.verify(&tree(*length)?, *fork, signature).is_ok();
        ensure!(accepted == expect.accepted, "accepted: {accepted}");
        Ok(true)
    })
}

//= FEED-31, FEED-32, FEED-33, FEED-34, FEED-35, FEED-36
#[tokio::test]
async fn feeds_with_a_prologue_are_written_and_read_as_by_hypercore() -> Result<()> {
    let mut checked = 0;
    for case in cases::<Case>("manifests.json")? {
        let Kind::Prologue { manifest, appends, expect } = case.kind else { continue };
        prologue(&decode(&manifest)?, &appends, &expect).await.context(case.name)?;
        checked += 1;
    }
    ensure!(checked > 0, "no case of this kind");
    Ok(())
}

async fn prologue(manifest: &Manifest, appends: &[u64], expect: &Proved) -> Result<()> {
    let open = |identity| Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity);
    if let Some(proof) = &expect.proof {
        let reader = open(Identity::reader(manifest.key())).await?;
        let payload = Bytes::copy_from_slice(proof);
        let Some(Message::Data(data)) = Message::decode(3, &payload, true, &Limits::default())? else {
            anyhow::bail!("no proof")
        };
        let outcome = reader.ingest(vec![data.proof]).await.remove(0);
        ensure!(outcome.is_ok() == (expect.length > 0), "{outcome:?}");
        ensure!(reader.info().length == expect.length, "length {}", reader.info().length);
    }

    let is_static = manifest.signers.is_empty();
    let writer = open(match is_static {
        true => Identity::from_manifest(manifest.clone()),
        false => Identity::signer(manifest.clone(), KeyPair::from_seed(&[1; 32])),
    })
    .await?;
    let mut written = true;
    for count in appends {
        let from = writer.info().length;
        let more = blocks(from + count).split_off(from as usize);
        let outcome =
            if is_static { writer.fill(more).await } else { writer.append_batch(more).await.map(drop) };
        written &= outcome.is_ok();
    }
    ensure!(written == (expect.length > 0), "written: {written}");
    if written {
        let upgrade = Some(UpgradeRequest { start: 0, length: writer.info().length });
        let request = ProofRequest { upgrade, manifest: true, ..ProofRequest::default() };
        let mut proof = writer.prove(request, 0).await?.context("no proof")?;
        let reader = open(Identity::reader(manifest.key())).await?;
        reader.ingest(vec![proof.clone()]).await.remove(0)?;
        ensure!(reader.info().length == expect.length);
        // Node signs a tree that needs no signature, if it has a signer.
        if writer.info().length == manifest.prologue.context("no prologue")?.length && !is_static {
            let upgrade = proof.upgrade.as_mut().context("no upgrade")?;
            ensure!(upgrade.signature.is_empty());
            let verifier = Verifier::new(manifest.key(), manifest.clone())?;
            let part = verifier.sign_part(&KeyPair::from_seed(&[1; 32]), &tree(expect.length)?, 0)?;
            upgrade.signature = [&[1, 0], part.signature().as_slice(), &[0, 0]].concat().into();
        }
        let bytes = Hex(Message::Data(Data { request: 0, proof }).encode().to_vec());
        ensure!(Some(&bytes) == expect.proof.as_ref(), "made {bytes:?}");
    }
    Ok(())
}
