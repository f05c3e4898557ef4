//! Our peer and an unmodified Node peer, in both directions: every kind of feed, every release, both roles of
//! dialling, in memory and on disk, appends while live.
//!
//! The full sizes run once for each direction and kind; the other combinations run with fewer blocks.
#![cfg(feature = "node")]

use std::{future::Future, time::Duration};

use anyhow::{Context, Result, ensure};
use conformance::{
    node::{Kind, NodeOptions, NodePeer, Release, block, digest_of_blocks},
    peer::Peer,
};
use party::store::Store;

const MANY: Shape = Shape { count: 20_000, size: 1_024 };
const LARGE: Shape = Shape { count: 200, size: 65_536 };
const FEW: Shape = Shape { count: 700, size: 300 };

#[derive(Clone, Copy)]
struct Shape {
    count: u64,
    size: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Dials {
    Node,
    Rust,
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_reads_a_default_core_of_a_node_store() -> Result<()> {
    rust_reads(NodeOptions::store(), Kind::Default, Dials::Rust, Place::Disk, &[MANY, LARGE]).await?;
    rust_reads(NodeOptions::store(), Kind::Default, Dials::Node, Place::Memory, &[FEW]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_reads_a_compat_core_of_a_node_store() -> Result<()> {
    rust_reads(NodeOptions::store(), Kind::Compat, Dials::Node, Place::Memory, &[MANY, LARGE]).await?;
    rust_reads(NodeOptions::store(), Kind::Compat, Dials::Rust, Place::Disk, &[FEW]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_reads_a_hashed_version_0_manifest_of_a_node_store() -> Result<()> {
    rust_reads(NodeOptions::store(), Kind::ManifestZero, Dials::Rust, Place::Disk, &[FEW]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_reads_a_single_core_of_hypercore_11() -> Result<()> {
    rust_reads(NodeOptions::cores(Release::Eleven), Kind::Default, Dials::Rust, Place::Memory, &[FEW]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_reads_hypercore_10_31() -> Result<()> {
    let options = || NodeOptions::cores(Release::Ten);
    rust_reads(options(), Kind::Compat, Dials::Rust, Place::Disk, &[MANY, LARGE]).await?;
    rust_reads(options(), Kind::Compat, Dials::Node, Place::Memory, &[FEW]).await?;
    rust_reads(options(), Kind::ManifestZero, Dials::Rust, Place::Memory, &[FEW]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_reads_hypercore_10_19() -> Result<()> {
    let options = || NodeOptions::cores(Release::TenNineteen);
    rust_reads(options(), Kind::Compat, Dials::Rust, Place::Memory, &[FEW]).await?;
    rust_reads(options(), Kind::Compat, Dials::Node, Place::Disk, &[FEW]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_store_reads_a_default_feed() -> Result<()> {
    node_reads(NodeOptions::store(), Kind::Default, Dials::Node, Place::Disk, &[MANY, LARGE]).await?;
    node_reads(NodeOptions::store(), Kind::Default, Dials::Rust, Place::Memory, &[FEW]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_store_reads_a_compat_feed() -> Result<()> {
    node_reads(NodeOptions::store(), Kind::Compat, Dials::Rust, Place::Memory, &[MANY, LARGE]).await?;
    node_reads(NodeOptions::store(), Kind::Compat, Dials::Node, Place::Disk, &[FEW]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_core_of_hypercore_11_reads_a_default_feed() -> Result<()> {
    node_reads(NodeOptions::cores(Release::Eleven), Kind::Default, Dials::Node, Place::Memory, &[FEW]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hypercore_10_reads_a_compat_feed() -> Result<()> {
    for release in [Release::Ten, Release::TenNineteen] {
        let options = || NodeOptions::cores(release);
        node_reads(options(), Kind::Compat, Dials::Node, Place::Disk, &[FEW]).await?;
        node_reads(options(), Kind::Compat, Dials::Rust, Place::Memory, &[FEW]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_feeds_travel_both_ways_on_one_connection() -> Result<()> {
    for dials in [Dials::Node, Dials::Rust] {
        in_time(three_feeds_both_ways(dials)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_and_one_block_are_fetched_without_the_rest() -> Result<()> {
    in_time(async {
        let (rust, node) = (Place::Memory.peer().await?, NodePeer::spawn(&NodeOptions::store())?);
        let ours = rust.create("ours", Kind::Default).await?;
        rust.append("ours", 1, 2_000, 200).await?;
        let theirs = node.create("theirs", Kind::Default).await?;
        node.append("theirs", 2, 2_000, 200).await?;
        node.open("ours", &ours.key).await?;
        rust.open("theirs", &theirs.key).await?;
        connect(&rust, &node, Dials::Rust).await?;

        assert_eq!(rust.download("theirs", 700, 900).await?.held, Some(200));
        assert_eq!(rust.get("theirs", 1_999).await?, block(2, 1_999, 200));
        assert_eq!(rust.info("theirs")?.held, Some(201));

        assert_eq!(node.download("ours", 700, 900).await?.held, Some(200));
        assert_eq!(node.get("ours", 1_999).await?, hex(&block(1, 1_999, 200)));
        assert_eq!(node.info("ours").await?.held, Some(201));
        no_complaints(&node)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_goes_on_where_it_was_cut() -> Result<()> {
    in_time(async {
        let folder = tempfile::tempdir()?;
        let node = NodePeer::spawn(&NodeOptions::store())?;
        let theirs = node.create("theirs", Kind::Default).await?;
        node.append("theirs", 3, 500, 100).await?;
        let port = node.listen().await?;

        let rust = Peer::new(Store::open(folder.path()).await?);
        rust.open("theirs", &theirs.key).await?;
        rust.dial(port).await?;
        rust.follow("theirs", 500).await?;
        rust.close().await?;
        node.append("theirs", 3, 500, 100).await?;

        let rust = Peer::new(Store::open(folder.path()).await?);
        assert_eq!(rust.open("theirs", &theirs.key).await?.contiguous_length, 500);
        rust.dial(port).await?;
        rust.follow("theirs", 1_000).await?;
        assert_eq!(rust.digest("theirs").await?, digest_of_blocks(3, 1_000, 100));
        no_complaints(&node)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_the_other_lacks_does_not_disturb_the_rest() -> Result<()> {
    in_time(async {
        let (rust, node) = (Place::Memory.peer().await?, NodePeer::spawn(&NodeOptions::store())?);
        rust.open("unknown to node", &"1f".repeat(32)).await?;
        node.open("unknown to rust", &"2e".repeat(32)).await?;
        let ours = rust.create("ours", Kind::Default).await?;
        let theirs = node.create("theirs", Kind::Default).await?;
        node.open("ours", &ours.key).await?;
        rust.open("theirs", &theirs.key).await?;
        connect(&rust, &node, Dials::Node).await?;
        rust.append("ours", 4, 10, 10).await?;
        node.append("theirs", 5, 10, 10).await?;
        tokio::try_join!(rust.follow("theirs", 10), node.follow("ours", 10))?;
        no_complaints(&node)
    })
    .await
}

/// Where our peer stores.
#[derive(Clone, Copy)]
enum Place {
    Memory,
    Disk,
}

impl Place {
    async fn peer(self) -> Result<Peer> {
        Ok(match self {
            Self::Memory => Peer::new(Store::memory()),
            Self::Disk => Peer::temporary().await?,
        })
    }
}

async fn rust_reads(
    options: NodeOptions,
    kind: Kind,
    dials: Dials,
    place: Place,
    shapes: &[Shape],
) -> Result<()> {
    for &Shape { count, size } in shapes {
        in_time(async {
            let (rust, node) = (place.peer().await?, NodePeer::spawn(&options)?);
            let core = node.create("a", kind).await?;
            node.append("a", 6, count, size).await?;
            rust.open("a", &core.key).await?;
            connect(&rust, &node, dials).await?;
            rust.follow("a", count).await?;
            assert_eq!(rust.digest("a").await?, digest_of_blocks(6, count, size));
            for (number, text) in ["first", "second", "third"].into_iter().enumerate() {
                node.append_text("a", text).await?;
                let index = count + number as u64;
                rust.follow("a", index + 1).await?;
                assert_eq!(rust.get("a", index).await?, text);
            }
            hang_up(&rust, &node).await
        })
        .await?;
    }
    Ok(())
}

async fn node_reads(
    options: NodeOptions,
    kind: Kind,
    dials: Dials,
    place: Place,
    shapes: &[Shape],
) -> Result<()> {
    for &Shape { count, size } in shapes {
        in_time(async {
            let (rust, node) = (place.peer().await?, NodePeer::spawn(&options)?);
            let core = rust.create("a", kind).await?;
            rust.append("a", 7, count, size).await?;
            node.open("a", &core.key).await?;
            connect(&rust, &node, dials).await?;
            node.follow("a", count).await?;
            assert_eq!(node.digest("a").await?, digest_of_blocks(7, count, size));
            for (number, text) in ["first", "second", "third"].into_iter().enumerate() {
                rust.append_text("a", text).await?;
                let index = count + number as u64;
                node.follow("a", index + 1).await?;
                assert_eq!(node.get("a", index).await?, hex(text.as_bytes()));
            }
            hang_up(&rust, &node).await
        })
        .await?;
    }
    Ok(())
}

async fn three_feeds_both_ways(dials: Dials) -> Result<()> {
    let (rust, node) = (Place::Disk.peer().await?, NodePeer::spawn(&NodeOptions::store())?);
    for (number, kind) in [Kind::Default, Kind::Compat, Kind::Default].into_iter().enumerate() {
        let (ours, theirs) = (format!("ours {number}"), format!("theirs {number}"));
        let core = rust.create(&ours, kind).await?;
        rust.append(&ours, 10 + number as u32, 2_000, 400).await?;
        node.open(&ours, &core.key).await?;
        let core = node.create(&theirs, kind).await?;
        node.append(&theirs, 20 + number as u32, 2_000, 400).await?;
        rust.open(&theirs, &core.key).await?;
    }
    connect(&rust, &node, dials).await?;
    tokio::try_join!(
        rust.follow("theirs 0", 2_000),
        rust.follow("theirs 1", 2_000),
        rust.follow("theirs 2", 2_000),
        node.follow("ours 0", 2_000),
        node.follow("ours 1", 2_000),
        node.follow("ours 2", 2_000),
    )?;
    for number in 0..3 {
        let (ours, theirs) = (format!("ours {number}"), format!("theirs {number}"));
        assert_eq!(node.digest(&ours).await?, digest_of_blocks(10 + number, 2_000, 400));
        assert_eq!(rust.digest(&theirs).await?, digest_of_blocks(20 + number, 2_000, 400));
    }
    let connected = node.events().iter().filter(|event| event["event"] == "connected").count();
    assert_eq!(connected, 1);
    hang_up(&rust, &node).await
}

async fn connect(rust: &Peer, node: &NodePeer, dials: Dials) -> Result<()> {
    match dials {
        Dials::Node => node.dial(rust.listen().await?).await,
        Dials::Rust => rust.dial(node.listen().await?).await,
    }
}

/// Ends the connection in good order and looks whether the Node peer had anything to complain of.
async fn hang_up(rust: &Peer, node: &NodePeer) -> Result<()> {
    rust.hang_up().await?;
    node.wait_for("streamClosed", 1).await?;
    no_complaints(node)
}

fn no_complaints(node: &NodePeer) -> Result<()> {
    for event in node.events() {
        let name = event["event"].as_str().unwrap_or_default();
        ensure!(
            !["streamError", "verificationError", "conflict", "noise"].contains(&name),
            "node says {event}"
        );
    }
    Ok(())
}

async fn in_time(test: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::time::timeout(Duration::from_secs(60), test).await.context("not done in time")?
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
