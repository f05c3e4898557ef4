//! What the tests with Node peers share.
// Each test binary has its own copy and uses a part of it.
#![allow(dead_code, unused_imports)]

pub(crate) mod proxy;

use anyhow::{Result, ensure};
use bytes::Bytes;
pub(crate) use conformance::node::{hex, in_time};
use conformance::{
    node::{ContentDigest, NodePeer, digest},
    peer::Peer,
};
use party::store::Store;

/// Who dials, and so is the Noise initiator.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dials {
    Node,
    Rust,
}

/// Where our peer stores.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Memory,
    Disk,
}

impl Place {
    pub(crate) async fn peer(self) -> Result<Peer> {
        Ok(match self {
            Self::Memory => Peer::new(Store::memory()),
            Self::Disk => Peer::temporary().await?,
        })
    }
}

pub(crate) async fn connect(rust: &Peer, node: &NodePeer, dials: Dials) -> Result<()> {
    match dials {
        Dials::Node => node.dial(rust.listen().await?).await,
        Dials::Rust => rust.dial(node.listen().await?).await,
    }
}

/// Ends the connection in good order and looks whether the Node peer had anything to complain of.
pub(crate) async fn hang_up(rust: &Peer, node: &NodePeer) -> Result<()> {
    rust.hang_up().await?;
    node.wait_for("streamClosed", 1).await?;
    no_complaints(node)
}

pub(crate) fn no_complaints(node: &NodePeer) -> Result<()> {
    for event in node.events() {
        let name = event["event"].as_str().unwrap_or_default();
        ensure!(
            !["streamError", "verificationError", "conflict", "noise"].contains(&name),
            "node says {event}"
        );
    }
    Ok(())
}

pub(crate) fn digest_of(block: Bytes) -> ContentDigest {
    digest([block])
}
