//! Every way in which our peer and a Node peer can meet: each release, each kind of feed, each in the role of the writer
//! and of the reader, dialling and listening, and each way to read. What can't be is in the tables with the reason, and
//! a test shows it.
//!
//! The feeds of one release, role and dialler all travel at the same time on one connection.
#![cfg(feature = "node")]

mod common;

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use common::{Dials, Place, in_time};
use conformance::{
    any::AnyPeer,
    dice::Dice,
    node::{Kind, NodeOptions, NodePeer, Release, block, digest, digest_of_blocks},
};
use tokio::task::JoinSet;

const KEY: [u8; 32] = [0xe1; 32];
const SEED: u32 = 77;
const BLOCKS: u64 = 300;
const SIZE: usize = 120;

/// How a reader reads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// All of it, at once.
    Full,
    /// Some blocks, wherever they are, and no others.
    Sparse,
    /// From the newest back, one after the other.
    NewestFirst,
    /// What is there, and what is appended while the reader has it open.
    Live,
}

const WAYS: [Way; 4] = [Way::Full, Way::Sparse, Way::NewestFirst, Way::Live];

/// A kind of feed, and whether its blocks are encrypted.
type Sort = (Kind, bool);

const ALL: [Sort; 7] = [
    (Kind::Default, false),
    (Kind::Default, true),
    (Kind::Compat, false),
    (Kind::Compat, true),
    (Kind::ManifestZero, false),
    (Kind::Multisig, false),
    (Kind::MultisigZero, false),
];

/// What a release can neither write nor read.
struct Never {
    why: &'static str,
    /// What it ends the connection with when it has asked for such a feed and is answered.
    says: &'static str,
}

fn never(release: Release, kind: Kind) -> Option<Never> {
    match (release, kind) {
        (Release::Ten, Kind::Default | Kind::Multisig) => {
            Some(Never { why: "it knows no manifests of version 1", says: "Invalid version: 1" })
        }
        (Release::TenNineteen, Kind::Compat) | (Release::Eleven | Release::Ten, _) => None,
        (Release::TenNineteen, _) => {
            // It takes the key for that of the one who signs.
            Some(Never { why: "it knows no manifests", says: "INVALID_SIGNATURE" })
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_hypercore_11() -> Result<()> {
    column(NodeOptions::store()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn single_cores_of_hypercore_11() -> Result<()> {
    column(NodeOptions::cores(Release::Eleven)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn single_cores_of_hypercore_10_31() -> Result<()> {
    column(NodeOptions::cores(Release::Ten)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn single_cores_of_hypercore_10_19() -> Result<()> {
    column(NodeOptions::cores(Release::TenNineteen)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_release_can_not_read_it_refuses_of_node_as_of_us() -> Result<()> {
    let process = NodePeer::spawn(&NodeOptions::store())?;
    for release in [Release::Ten, Release::TenNineteen] {
        for kind in [Kind::Default, Kind::ManifestZero, Kind::Multisig, Kind::MultisigZero] {
            let Some(never) = never(release, kind) else { continue };
            let writers = [
                AnyPeer::from(Place::Memory.peer().await?),
                AnyPeer::from(process.beside(&NodeOptions::store()).await?),
            ];
            for writer in writers {
                in_time(async {
                    let reader = process.beside(&NodeOptions::cores(release)).await?;
                    ensure!(reader.create("a", kind).await.is_err(), "it makes one");
                    let key = writer.create("a", kind, None).await?.key;
                    writer.append("a", SEED, BLOCKS, SIZE).await?;
                    reader.open("a", &key).await?;
                    reader.want_all("a").await?;
                    writer.dial(reader.listen().await?).await?;
                    reader.wait_for("streamError", 1).await?;
                    let events = reader.events();
                    let message = events.iter().find_map(|event| event["message"].as_str()).unwrap_or("");
                    ensure!(message.contains(never.says), "it says {message}");
                    ensure!(reader.info("a").await?.length == 0, "it reads it");
                    reader.leave().await
                })
                .await
                .with_context(|| format!("{release:?} {kind:?}: {}", never.why))?;
            }
        }
    }
    Ok(())
}

/// One column of the matrix: both roles and both diallers.
async fn column(options: NodeOptions) -> Result<()> {
    let process = NodePeer::spawn(&options)?;
    for rust_writes in [true, false] {
        for dials in [Dials::Rust, Dials::Node] {
            // Memory and disk take turns: which of them holds a feed has nothing to do with the rest.
            let place = if rust_writes == matches!(dials, Dials::Rust) { Place::Disk } else { Place::Memory };
            let meeting = in_time(meet(&process, &options, rust_writes, dials, place));
            meeting.await.with_context(|| format!("rust writes: {rust_writes}, {dials:?} dials"))?;
        }
    }
    Ok(())
}

async fn meet(
    process: &NodePeer,
    options: &NodeOptions,
    rust_writes: bool,
    dials: Dials,
    place: Place,
) -> Result<()> {
    let rust = place.peer().await?;
    let node = Arc::new(process.beside(options).await?);
    let (ours, theirs) = (AnyPeer::Rust(rust.clone()), AnyPeer::Node(node.clone()));
    let (writer, reader) = if rust_writes { (&ours, &theirs) } else { (&theirs, &ours) };

    let mut feeds = Vec::new();
    for (kind, encrypted) in ALL {
        if never(options.release, kind).is_some() {
            continue;
        }
        for way in WAYS {
            let name = format!("{kind:?} {encrypted} {way:?}");
            let encryption = encrypted.then_some(KEY);
            let key = writer.create(&name, kind, encryption).await.context(name.clone())?.key;
            let blocks = if way == Way::Live { 20 } else { BLOCKS };
            writer.append(&name, SEED, blocks, SIZE).await.context(name.clone())?;
            reader.open(&name, &key, kind, encryption).await?;
            feeds.push((name, way));
        }
    }
    common::connect(&rust, &node, dials).await?;

    let mut reading = JoinSet::new();
    for (name, way) in feeds {
        let (writer, reader) = (writer.clone(), reader.clone());
        reading.spawn(async move { read(&writer, &reader, &name, way).await.context(name) });
    }
    while let Some(read) = reading.join_next().await {
        read??;
    }
    common::hang_up(&rust, &node).await
}

async fn read(writer: &AnyPeer, reader: &AnyPeer, name: &str, way: Way) -> Result<()> {
    let indexes = match way {
        Way::Full => {
            reader.follow(name, BLOCKS).await?;
            return ensure_all(reader, name, BLOCKS).await;
        }
        Way::Live => {
            reader.follow(name, 20).await?;
            let mut length = 20;
            for count in [1, 7, 60, 1] {
                length += count;
                writer.append(name, SEED, count, SIZE).await?;
                reader.follow(name, length).await?;
            }
            return ensure_all(reader, name, length).await;
        }
        Way::Sparse => Dice::new(1).sample(40, BLOCKS),
        Way::NewestFirst => (BLOCKS - 40..BLOCKS).rev().collect(),
    };
    let got = reader.gets(name, &indexes, way == Way::NewestFirst).await?;
    ensure!(got == digest(indexes.iter().map(|index| block(SEED, *index, SIZE))), "other blocks came");
    let info = reader.info(name).await?;
    ensure!(info.held == Some(indexes.len() as u64), "the reader has {:?} blocks", info.held);
    ensure!(info.byte_length == writer.info(name).await?.byte_length, "{} bytes", info.byte_length);
    Ok(())
}

async fn ensure_all(reader: &AnyPeer, name: &str, length: u64) -> Result<()> {
    ensure!(reader.digest(name).await? == digest_of_blocks(SEED, length, SIZE), "other blocks came");
    Ok(())
}
