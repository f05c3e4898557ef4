//! Proofs with seeks, byte offsets, truncations and reorgs.

use anyhow::{Context as _, Result, ensure};
use party::{
    encoding::Reader,
    error::Error,
    feed::{
        proof::Node,
        seek::{Located, SeekStep, Seeker},
        storage::{Key, Storage as _},
        tree::Tree,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    fields::Asked,
    world::{
        FeedKind, SLOT, decode_proof, encode_proof, forked, proved, reader_of, shown, tree_of, upgrade,
        written,
    },
};
use crate::vectors::{
    Bytes, Kind, Outcome, Refusal,
    kind::{block_on, read},
};

pub(super) const KINDS: &[Kind] = &[
    Kind::new("prove_seek", |input| block_on(prove(input))),
    Kind::new("verify_seek", |input| block_on(verify(input))).wire("/proof").bound(),
    Kind::new("changed", |input| block_on(verify(input))).wire("/proof").bound(),
    Kind::new("seek", |input| block_on(seek(input))),
    Kind::new("offsets", |input| block_on(offsets(input))),
    Kind::new("truncated", |input| block_on(truncated(input))),
    Kind::new("reorg", |input| block_on(reorg(input))),
    Kind::new("fork", |input| block_on(fork(input))).wire("/proof").bound(),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prove {
    length: u64,
    request: Asked,
}

async fn prove(input: &Value) -> Result<Outcome> {
    let Prove { length, request } = read(input)?;
    proved(&written(FeedKind::Default, length).await?, request.into()).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Verify {
    /// Of the writer.
    #[serde(rename = "length")]
    _length: u64,
    reader: Start,
    proof: Bytes,
}

/// A reader as it begins: with the tree of the first blocks, and those of them that are listed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    known: u64,
    stored: Vec<u64>,
}

async fn verify(input: &Value) -> Result<Outcome> {
    let Verify { reader: Start { known, stored }, proof, .. } = read(input)?;
    let (reader, storage) = reader_of(known, &stored).await?;
    shown(&reader, &storage, &proof).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sought {
    length: u64,
    stored: Vec<u64>,
    bytes: u64,
    padding: u64,
}

async fn seek(input: &Value) -> Result<Outcome> {
    let Sought { length, stored, bytes, padding } = read(input)?;
    let (reader, storage) = reader_of(length, &stored).await?;
    let tree = if length > 0 { tree_of(&reader).await?.0 } else { Tree::default() };
    let mut seeker = Seeker::new(&tree, bytes, padding);
    let found = loop {
        match seeker.poll() {
            SeekStep::Found(found) => break found,
            SeekStep::Read(index) => {
                let stored = storage.read(vec![Key::Node(SLOT, index)]).await?.pop().flatten();
                seeker.handle_node(stored.map(|bytes| decode_node(index, &bytes)).transpose()?.as_ref());
            }
        }
    };
    ensure!(padding > 0 || reader.locate(bytes).await? == found, "by way of the feed it is elsewhere");
    Outcome::accept(match found {
        Located::Block { index, offset } => json!({ "block": index, "offset": offset }),
        Located::Within { blocks, .. } => json!({ "start": blocks.start, "end": blocks.end }),
        Located::Beyond => json!({ "beyond": true }),
    })
}

/// A node as it is stored: its size and its hash.
fn decode_node(index: u64, bytes: &[u8]) -> Result<Node> {
    let mut reader = Reader::new(bytes);
    Ok(Node { index, size: reader.uint()?, hash: reader.array()? })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Length {
    length: u64,
}

async fn offsets(input: &Value) -> Result<Outcome> {
    let Length { length } = read(input)?;
    let feed = written(FeedKind::Default, length).await?;
    let mut offsets = Vec::new();
    for index in 0..=length {
        offsets.push(feed.byte_offset(index).await?.context("no offset")?);
    }
    ensure!(feed.byte_offset(length + 1).await?.is_none(), "an offset beyond the end");
    Outcome::accept(json!({ "offsets": offsets }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Truncated {
    length: u64,
    kept: u64,
    added: u64,
    fork: Option<u64>,
}

#[derive(Serialize)]
struct Became {
    length: u64,
    byte_length: u64,
    fork: u64,
    tree_hash: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ancestors: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    has: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wants: Option<Vec<Want>>,
}

#[derive(Serialize)]
struct Want {
    start: u64,
    end: u64,
    block: u64,
    nodes: u64,
}

async fn truncated(input: &Value) -> Result<Outcome> {
    let Truncated { length, kept, added, fork } = read(input)?;
    let feed = forked(length, kept, added, fork).await?;
    let (tree, signature) = tree_of(&feed).await?;
    let info = feed.info();
    Outcome::accept(Became {
        length: info.length,
        byte_length: info.byte_length,
        fork: info.fork,
        tree_hash: tree.hash().into(),
        signature: Some(signature.into()),
        ancestors: None,
        has: None,
        wants: None,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reorg {
    length: u64,
    stored: Vec<u64>,
    kept: u64,
    added: u64,
    /// With which it begins.
    proof: Bytes,
    /// What is shown after it.
    proofs: Vec<Bytes>,
}

async fn reorg(input: &Value) -> Result<Outcome> {
    let Reorg { length, stored, kept, added, proof, proofs } = read(input)?;
    let writer = forked(length, kept, added, None).await?;
    let mut first = upgrade(0, kept + added);
    first.manifest = false;
    ensure!(writer.prove(first, 1).await?.map(encode_proof) == Some(proof.clone()), "the proof of the fork");
    let (reader, _) = reader_of(length, &stored).await?;
    let mut reorg = reader.reorg(decode_proof(&proof).context("no proof")?).await?.context("no fork")?;
    let mut wants = Vec::new();
    for (n, proof) in proofs.iter().enumerate() {
        let want = reorg.want().with_context(|| format!("it is over before proof {n}"))?.clone();
        let blocks = want.blocks();
        // Any leaf will do. The one in the middle was recorded.
        let block = blocks.start + ((blocks.end - blocks.start) >> 1);
        let request = want.request(block);
        let nodes = request.hash.context("no hash is asked for")?.nodes;
        wants.push(Want { start: blocks.start, end: blocks.end, block, nodes });
        let shown = writer.prove(request, 1).await?.map(encode_proof);
        ensure!(shown.as_ref() == Some(proof), "proof {n} is {shown:?}");
        reorg.handle_proof(decode_proof(proof).context("no proof")?).await?;
    }
    ensure!(reorg.want().is_none(), "it wants more: {:?}", reorg.want());
    let ancestors = reorg.commit().await?.context("it was not committed")?;
    ensure!(reader.audit().await?.is_clean(), "what is stored contradicts itself");
    let (tree, _) = tree_of(&reader).await?;
    let info = reader.info();
    Outcome::accept(Became {
        length: info.length,
        byte_length: info.byte_length,
        fork: info.fork,
        tree_hash: tree.hash().into(),
        signature: None,
        ancestors: Some(ancestors),
        has: Some((0..kept + added).filter(|index| reader.has(*index)).collect()),
        wants: Some(wants),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Forked {
    length: u64,
    proof: Bytes,
}

async fn fork(input: &Value) -> Result<Outcome> {
    let Forked { length, proof: bytes } = read(input)?;
    let (reader, _) = reader_of(length, &[]).await?;
    let Some(proof) = decode_proof(&bytes) else { return Outcome::refuse(Refusal::Decode) };
    let seen = encode_proof(proof.clone());
    let outcome = reader.reorg(proof).await.map(|reorg| reorg.is_some());
    let stays = (reader.info().fork, reader.info().length) == (0, length);
    ensure!(stays, "it has followed before it is over: {:?}", reader.info());
    match outcome {
        Ok(true) => Outcome::accept(json!({}))?.seen(json!({ "proof": seen, "canonical": seen == bytes })),
        Ok(false) | Err(Error::PeerMisbehaved(_)) => Outcome::refuse(Refusal::Proof),
        Err(error) => Err(error.into()),
    }
}
