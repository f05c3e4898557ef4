//! Many blocks and large ones between our peer and an unmodified Node peer, in both directions. Which releases, kinds of
//! feeds and ways of reading there are is the business of `node_matrix.rs`, with few blocks each.
#![cfg(feature = "node")]

mod common;

use anyhow::{Context as _, Result, ensure};
use common::{Dials, Place, connect, hang_up, in_time};
use conformance::{
    any::AnyPeer,
    node::{Kind, NodeOptions, NodePeer, Release, digest_of_blocks},
};

/// Blocks, and their size in bytes.
const SHAPES: [(u64, usize); 2] = [(20_000, 1_024), (200, 65_536)];

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_hypercore_11_takes_and_gives_default_feeds() -> Result<()> {
    travel(NodeOptions::store(), Kind::Default, Place::Disk).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_hypercore_11_takes_and_gives_compat_feeds() -> Result<()> {
    travel(NodeOptions::store(), Kind::Compat, Place::Memory).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hypercore_10_31_takes_and_gives_compat_feeds() -> Result<()> {
    travel(NodeOptions::cores(Release::Ten), Kind::Compat, Place::Disk).await
}

async fn travel(options: NodeOptions, kind: Kind, place: Place) -> Result<()> {
    for rust_writes in [true, false] {
        for (dials, (count, size)) in [Dials::Rust, Dials::Node].into_iter().zip(SHAPES) {
            in_time(async {
                let rust = place.peer().await?;
                let node = std::sync::Arc::new(NodePeer::spawn(&options)?);
                let peers = (AnyPeer::Rust(rust.clone()), AnyPeer::Node(node.clone()));
                let (writer, reader) = if rust_writes { peers } else { (peers.1, peers.0) };
                let key = writer.create("a", kind, None).await?.key;
                writer.append("a", 6, count, size).await?;
                reader.open("a", &key, kind, None).await?;
                connect(&rust, &node, dials).await?;
                reader.follow("a", count).await?;
                ensure!(reader.digest("a").await? == digest_of_blocks(6, count, size), "other blocks came");
                hang_up(&rust, &node).await
            })
            .await
            .with_context(|| format!("rust writes: {rust_writes}, {count} blocks of {size} bytes"))?;
        }
    }
    Ok(())
}
