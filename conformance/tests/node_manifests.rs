//! Feeds of every kind of manifest, made here and signed by hand-over: Node verifies them with its own verifier as
//! they are replicated, grows with them, and hands them on to another of our peers.
#![cfg(feature = "node")]

mod common;

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use common::{Dials, connect, hang_up, hex, in_time};
use conformance::{
    node::{NodeOptions, NodePeer, Release, block, digest_of_blocks},
    peer::Peer,
};
use party::{
    feed::{
        Feed, Identity,
        manifest::{Manifest, ManifestBuilder, Prologue},
        memory::MemoryStorage,
        proof::{BlockRequest, ProofRequest, UpgradeRequest},
        storage::Slot,
    },
    key::{FeedKey, KeyPair},
    store::Store,
};

const SIZE: usize = 100;

fn pair(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

fn three() -> ManifestBuilder {
    Manifest::builder().signers((0..3).map(|n| pair(n).public())).quorum(2)
}

fn blocks(from: u64, to: u64) -> Vec<Bytes> {
    (from..to).map(|index| block(5, index, SIZE)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn node_verifies_two_of_three() -> Result<()> {
    for version in [0, 1, 2] {
        passes_through_node(three().version(version).build()?, &[&[(0, 20), (2, 20)], &[(2, 31), (1, 31)]])
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn node_verifies_two_of_three_that_signed_different_lengths() -> Result<()> {
    for version in [0, 1, 2] {
        let manifest = three().version(version).allow_patch(true).build()?;
        // The feed grows to 21, by one signature over it and one over 40 blocks; then to 40; then to 71.
        let steps: &[&[(u8, u64)]] =
            &[&[(0, 21), (1, 40)], &[(2, 64), (1, 40)], &[(0, 77), (2, 70), (1, 71)]];
        passes_through_node(manifest, steps).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_store_verifies_a_quorum() -> Result<()> {
    let manifest = three().allow_patch(true).build()?;
    passes_through(NodeOptions::store(), manifest, &[&[(0, 21), (1, 40)], &[(2, 64), (1, 40)]]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hypercore_10_verifies_a_quorum_of_version_0() -> Result<()> {
    for patch in [false, true] {
        let manifest = three().version(0).allow_patch(patch).build()?;
        let steps: &[&[(u8, u64)]] = &[&[(0, 20), (2, 20)], &[(2, 31), (1, 31)]];
        passes_through(NodeOptions::cores(Release::Ten), manifest, steps).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn node_verifies_one_of_three() -> Result<()> {
    passes_through_node(three().quorum(1).build()?, &[&[(2, 9)], &[(0, 12)]]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn node_verifies_linked_feeds_and_user_data() -> Result<()> {
    let manifest = three().linked([FeedKey::from_bytes([7; 32])]).user_data("of the app").build()?;
    passes_through_node(manifest, &[&[(0, 5), (1, 5)]]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn node_verifies_a_static_feed() -> Result<()> {
    let prologue = Prologue::of_blocks(&blocks(0, 50)).context("no prologue")?;
    passes_through_node(Manifest::builder().prologue(prologue).build()?, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn node_verifies_what_is_signed_beyond_a_prologue() -> Result<()> {
    let prologue = Prologue::of_blocks(&blocks(0, 13)).context("no prologue")?;
    let single = Manifest::builder().signer(pair(0).public()).prologue(prologue).build()?;
    passes_through_node(single, &[&[(0, 14)], &[(0, 40)]]).await?;
    let quorum = three().allow_patch(true).prologue(prologue).build()?;
    passes_through_node(quorum, &[&[(0, 14), (1, 20)], &[(2, 40), (1, 40)]]).await
}

/// Makes the feed of `manifest`: its prologue, then a step for each list of signers with the length that each has
/// signed. Every state of it goes to a Node peer while that is connected, and from there to another of ours.
async fn passes_through_node(manifest: Manifest, steps: &[&[(u8, u64)]]) -> Result<()> {
    passes_through(NodeOptions::cores(Release::Eleven), manifest, steps).await
}

async fn passes_through(options: NodeOptions, manifest: Manifest, steps: &[&[(u8, u64)]]) -> Result<()> {
    in_time(async {
        let key = manifest.key();
        let source =
            Feed::create(Arc::new(MemoryStorage::new()), Slot(0), Identity::from_manifest(manifest.clone()))
                .await?;
        if let Some(prologue) = manifest.prologue {
            source.fill(blocks(0, prologue.length)).await?;
        }

        let (ours, last) = (Peer::new(Store::memory()), Peer::new(Store::memory()));
        let node = NodePeer::spawn(&options)?;
        for (peer, dials) in [(&ours, Dials::Rust), (&last, Dials::Node)] {
            peer.open("a", &key.to_string()).await?;
            connect(peer, &node, dials).await?;
        }
        node.open("a", &key.to_string()).await?;
        let mut states = vec![source.info().length];
        copy(&source, &ours.feed("a")?).await?;
        for step in steps {
            let start = source.info().length;
            let longest = step.iter().map(|(_, length)| *length).max().context("no signer")?;
            let draft = source.draft(blocks(start, longest)).await?;
            let parts = step
                .iter()
                .map(|(signer, length)| Ok(draft.shortened(*length)?.sign(&pair(*signer))?))
                .collect::<Result<Vec<_>>>()?;
            let (agreed, signature) = draft.agree(&parts)?;
            let added = source.append_signed(agreed, signature).await?;
            copy(&source, &ours.feed("a")?).await?;
            states.push(added.end);
            node.follow("a", added.end).await?;
        }
        let length = source.info().length;
        ensure!(states.windows(2).all(|pair| pair[0] < pair[1]), "grew by {states:?}");
        let info = node.follow("a", length).await?;
        ensure!(info.length == length, "node has {}", info.length);
        ensure!(node.digest("a").await? == digest_of_blocks(5, length, SIZE), "node has other blocks");
        ensure!(node.get("a", length - 1).await? == hex(&block(5, length - 1, SIZE)));
        last.follow("a", length).await?;
        ensure!(last.digest("a").await? == digest_of_blocks(5, length, SIZE), "other blocks came back");
        ensure!(last.feed("a")?.manifest() == Some(manifest), "another manifest came back");
        last.hang_up().await?;
        hang_up(&ours, &node).await
    })
    .await
}

/// Brings `to` up to date by proofs, as a peer would.
async fn copy(from: &Feed, to: &Feed) -> Result<()> {
    let (start, end) = (to.info().length, from.info().length);
    if start == end {
        return Ok(());
    }
    let upgrade = Some(UpgradeRequest { start, length: end - start });
    let request = ProofRequest { upgrade, manifest: true, ..ProofRequest::default() };
    let proof = from.prove(request, 0).await?.context("no proof")?;
    to.ingest(vec![proof]).await.remove(0)?;
    for index in start..end {
        let nodes = to.with_local(|local| local.missing_nodes(index));
        let request = ProofRequest { block: Some(BlockRequest { index, nodes }), ..ProofRequest::default() };
        let proof = from.prove(request, 0).await?.context("no proof")?;
        to.ingest(vec![proof]).await.remove(0)?;
    }
    Ok(())
}
