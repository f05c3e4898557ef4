//! Encrypted feeds between our peer and unmodified Node peers: what one writes under a key, the other reads with it,
//! for every release and kind of feed; and a peer of ours without the key carries them from one Node peer to another.
#![cfg(feature = "node")]

mod common;

use anyhow::Result;
use common::{Dials, Place, connect, hang_up, hex, in_time};
use conformance::{
    node::{Kind, NodeOptions, NodePeer, Release, digest_of_blocks},
    peer::Peer,
};
use party::error::{ApiMisuse, Error};

const KEY: [u8; 32] = [0xe1; 32];
const WRONG: [u8; 32] = [0xe2; 32];
/// Blocks and their sizes: several sizes in one feed.
const SHAPES: [(u64, usize); 3] = [(40, 0), (300, 300), (4, 100_000)];

#[tokio::test(flavor = "multi_thread")]
async fn rust_reads_what_node_has_encrypted() -> Result<()> {
    rust_reads(NodeOptions::store(), Kind::Default, Place::Disk).await?;
    rust_reads(NodeOptions::store(), Kind::Compat, Place::Memory).await?;
    rust_reads(NodeOptions::store(), Kind::ManifestZero, Place::Memory).await?;
    rust_reads(NodeOptions::cores(Release::Ten), Kind::Compat, Place::Disk).await?;
    rust_reads(NodeOptions::cores(Release::Ten), Kind::ManifestZero, Place::Memory).await?;
    rust_reads(NodeOptions::cores(Release::TenNineteen), Kind::Compat, Place::Memory).await
}

#[tokio::test(flavor = "multi_thread")]
async fn node_reads_what_rust_has_encrypted() -> Result<()> {
    node_reads(NodeOptions::store(), Kind::Default, Place::Disk).await?;
    node_reads(NodeOptions::store(), Kind::Compat, Place::Memory).await?;
    node_reads(NodeOptions::cores(Release::Eleven), Kind::Default, Place::Memory).await?;
    node_reads(NodeOptions::cores(Release::Eleven), Kind::Compat, Place::Memory).await?;
    node_reads(NodeOptions::cores(Release::Ten), Kind::Compat, Place::Disk).await?;
    node_reads(NodeOptions::cores(Release::TenNineteen), Kind::Compat, Place::Memory).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_without_the_key_serves_node_peers() -> Result<()> {
    for (options, kind) in
        [(NodeOptions::store(), Kind::Default), (NodeOptions::cores(Release::Ten), Kind::Compat)]
    {
        in_time(async {
            let (writer, reader) = (NodePeer::spawn(&options)?, NodePeer::spawn(&options)?);
            let relay = Peer::temporary().await?;
            let core = writer.create_encrypted("a", kind, KEY).await?;
            writer.append("a", 6, 50, 1_000).await?;
            relay.open("a", &core.key).await?;
            connect(&relay, &writer, Dials::Rust).await?;
            relay.follow("a", 50).await?;
            hang_up(&relay, &writer).await?;
            assert_ne!(relay.digest("a").await?, digest_of_blocks(6, 50, 1_000));

            reader.open_encrypted("a", &core.key, kind, KEY).await?;
            connect(&relay, &reader, Dials::Node).await?;
            reader.follow("a", 50).await?;
            assert_eq!(reader.digest("a").await?, digest_of_blocks(6, 50, 1_000));
            hang_up(&relay, &reader).await
        })
        .await?;
    }
    Ok(())
}

async fn rust_reads(options: NodeOptions, kind: Kind, place: Place) -> Result<()> {
    for (count, size) in SHAPES {
        in_time(async {
            let (rust, node) = (place.peer().await?, NodePeer::spawn(&options)?);
            let core = node.create_encrypted("a", kind, KEY).await?;
            node.append("a", 6, count, size).await?;
            rust.open_encrypted("a", &core.key, KEY).await?;
            connect(&rust, &node, Dials::Rust).await?;
            let info = rust.follow("a", count).await?;
            assert_eq!(info.byte_length, node.info("a").await?.byte_length);
            assert_eq!(rust.digest("a").await?, digest_of_blocks(6, count, size));
            node.append_text("a", "while live").await?;
            rust.follow("a", count + 1).await?;
            assert_eq!(rust.get("a", count).await?, "while live");
            let wrong = rust.feed("a")?.with_encryption(WRONG).get(count).await;
            let Err(Error::ApiMisuse(ApiMisuse::WrongEncryptionKey { index })) = wrong else {
                anyhow::bail!("with a wrong key: {wrong:?}")
            };
            assert_eq!(index, count);
            hang_up(&rust, &node).await
        })
        .await?;
    }
    Ok(())
}

async fn node_reads(options: NodeOptions, kind: Kind, place: Place) -> Result<()> {
    for (count, size) in SHAPES {
        in_time(async {
            let (rust, node) = (place.peer().await?, NodePeer::spawn(&options)?);
            let core = rust.create_encrypted("a", kind, KEY).await?;
            // What is read is from two forks.
            rust.append("a", 8, 3, size).await?;
            rust.append_text("a", "dropped").await?;
            rust.feed("a")?.truncate(3).await?;
            rust.append_text("a", "in its place").await?;
            rust.append("a", 8, count, size).await?;
            let length = count + 4;
            node.open_encrypted("a", &core.key, kind, KEY).await?;
            connect(&rust, &node, Dials::Node).await?;
            let info = node.follow("a", length).await?;
            assert_eq!(info.fork, 1);
            assert_eq!(info.byte_length, rust.info("a")?.byte_length);
            assert_eq!(node.digest("a").await?, rust.digest("a").await?);
            assert_eq!(node.get("a", 3).await?, hex(b"in its place"));
            rust.append_text("a", "while live").await?;
            node.follow("a", length + 1).await?;
            assert_eq!(node.get("a", length).await?, hex(b"while live"));
            hang_up(&rust, &node).await
        })
        .await?;
    }
    Ok(())
}
