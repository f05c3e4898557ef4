//! Our peer and an unmodified Node peer, in both directions: every kind of feed, every release, both roles of
//! dialling, in memory and on disk, appends while live.
//!
//! The full sizes run once for each direction and kind; the other combinations run with fewer blocks.
#![cfg(feature = "node")]

mod common;

use anyhow::Result;
use common::{Dials, Place, connect, hang_up, hex, in_time};
use conformance::node::{Kind, NodeOptions, NodePeer, Release, digest_of_blocks};

const MANY: Shape = Shape { count: 20_000, size: 1_024 };
const LARGE: Shape = Shape { count: 200, size: 65_536 };
const FEW: Shape = Shape { count: 700, size: 300 };

#[derive(Clone, Copy)]
struct Shape {
    count: u64,
    size: usize,
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
