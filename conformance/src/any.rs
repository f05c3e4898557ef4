//! A peer of ours or of Node's under the same orders, so that a test can say "the writer" and "the reader" and be run
//! with the roles swapped.

use std::sync::Arc;

use anyhow::Result;

use crate::{
    node::{ContentDigest, FeedInfo, FeedState, Kind, NodePeer},
    peer::Peer,
};

/// A peer, whoever's. Cheap to clone.
#[derive(Clone)]
pub enum AnyPeer {
    /// One of ours.
    Rust(Peer),
    /// One of Node's.
    Node(Arc<NodePeer>),
}

impl From<Peer> for AnyPeer {
    fn from(peer: Peer) -> Self {
        Self::Rust(peer)
    }
}

impl From<NodePeer> for AnyPeer {
    fn from(peer: NodePeer) -> Self {
        Self::Node(Arc::new(peer))
    }
}

/// Each order is that of [`Peer`] and [`NodePeer`] under the same name, with their errors.
#[allow(clippy::missing_errors_doc)]
impl AnyPeer {
    /// Makes a feed, encrypted if there is a key.
    pub async fn create(&self, name: &str, kind: Kind, encryption: Option<[u8; 32]>) -> Result<FeedInfo> {
        match (self, encryption) {
            (Self::Rust(peer), None) => peer.create(name, kind).await,
            (Self::Rust(peer), Some(key)) => peer.create_encrypted(name, kind, key).await,
            (Self::Node(peer), None) => peer.create(name, kind).await,
            (Self::Node(peer), Some(key)) => peer.create_encrypted(name, kind, key).await,
        }
    }

    /// Opens a feed by its key, encrypted if there is a key for that.
    pub async fn open(
        &self,
        name: &str,
        key: &str,
        kind: Kind,
        encryption: Option<[u8; 32]>,
    ) -> Result<FeedInfo> {
        match (self, encryption) {
            (Self::Rust(peer), None) => peer.open(name, key).await,
            (Self::Rust(peer), Some(encryption)) => peer.open_encrypted(name, key, encryption).await,
            (Self::Node(peer), None) => peer.open(name, key).await,
            (Self::Node(peer), Some(encryption)) => peer.open_encrypted(name, key, kind, encryption).await,
        }
    }

    /// Lets go of a feed.
    pub async fn close_feed(&self, name: &str) -> Result<()> {
        match self {
            Self::Rust(peer) => peer.close_feed(name),
            Self::Node(peer) => peer.close(name).await,
        }
    }

    /// Appends `count` blocks of `size` bytes made of `seed`.
    pub async fn append(&self, name: &str, seed: u32, count: u64, size: usize) -> Result<FeedInfo> {
        match self {
            Self::Rust(peer) => peer.append(name, seed, count, size).await,
            Self::Node(peer) => peer.append(name, seed, count, size).await,
        }
    }

    /// Cuts a feed off after `length` blocks.
    pub async fn truncate(&self, name: &str, length: u64) -> Result<FeedInfo> {
        match self {
            Self::Rust(peer) => peer.truncate(name, length).await,
            Self::Node(peer) => peer.truncate(name, length).await,
        }
    }

    /// Deletes the blocks `from..to` here.
    pub async fn clear(&self, name: &str, from: u64, to: u64) -> Result<FeedInfo> {
        match self {
            Self::Rust(peer) => peer.clear(name, from, to).await,
            Self::Node(peer) => peer.clear(name, from, to).await,
        }
    }

    /// Wants everything from now on, without waiting for it.
    pub async fn want_all(&self, name: &str) -> Result<()> {
        match self {
            Self::Rust(peer) => peer.want_all(name).map(drop),
            Self::Node(peer) => peer.want_all(name).await,
        }
    }

    /// Wants everything from now on, and waits until `length` blocks are stored without a gap.
    pub async fn follow(&self, name: &str, length: u64) -> Result<FeedInfo> {
        match self {
            Self::Rust(peer) => peer.follow(name, length).await,
            Self::Node(peer) => peer.follow(name, length).await,
        }
    }

    /// Downloads the blocks `from..to`, and counts what is stored then.
    pub async fn download(&self, name: &str, from: u64, to: u64) -> Result<FeedInfo> {
        match self {
            Self::Rust(peer) => peer.download(name, from, to).await,
            Self::Node(peer) => peer.download(name, from, to).await,
        }
    }

    /// Fetches blocks, and gives the digest over them.
    pub async fn gets(&self, name: &str, indexes: &[u64], in_turn: bool) -> Result<ContentDigest> {
        match self {
            Self::Rust(peer) => peer.gets(name, indexes, in_turn).await,
            Self::Node(peer) => peer.gets(name, indexes, in_turn).await,
        }
    }

    /// Waits until a feed is at `fork` with `length` blocks at least, and has stored all blocks of `runs`.
    pub async fn reach(&self, name: &str, fork: u64, length: u64, runs: &[(u64, u64)]) -> Result<FeedInfo> {
        match self {
            Self::Rust(peer) => peer.reach(name, fork, length, runs).await,
            Self::Node(peer) => peer.reach(name, fork, length, runs).await,
        }
    }

    /// What is known of a feed, with the count of stored blocks.
    pub async fn info(&self, name: &str) -> Result<FeedInfo> {
        match self {
            Self::Rust(peer) => peer.info(name),
            Self::Node(peer) => peer.info(name).await,
        }
    }

    /// How a feed stands: its tree, and which blocks of it are stored.
    pub async fn state(&self, name: &str) -> Result<FeedState> {
        match self {
            Self::Rust(peer) => peer.feed_state(name).await,
            Self::Node(peer) => peer.state(name).await,
        }
    }

    /// The digest over every block of a feed.
    pub async fn digest(&self, name: &str) -> Result<ContentDigest> {
        match self {
            Self::Rust(peer) => peer.digest(name).await,
            Self::Node(peer) => peer.digest(name).await,
        }
    }

    /// Makes `count` feeds at once, and gives their keys.
    pub async fn crowd(
        &self,
        prefix: &str,
        count: u64,
        seed: u32,
        blocks: u64,
        size: usize,
    ) -> Result<Vec<String>> {
        match self {
            Self::Rust(peer) => peer.crowd(prefix, count, seed, blocks, size).await,
            Self::Node(peer) => peer.crowd(prefix, count, seed, blocks, size).await,
        }
    }

    /// Opens a feed for each of `keys`.
    pub async fn join(&self, prefix: &str, keys: &[String]) -> Result<()> {
        match self {
            Self::Rust(peer) => peer.join(prefix, keys).await,
            Self::Node(peer) => peer.join(prefix, keys).await,
        }
    }

    /// Listens on a free port of 127.0.0.1 and gives the port.
    pub async fn listen(&self) -> Result<u16> {
        match self {
            Self::Rust(peer) => peer.listen().await,
            Self::Node(peer) => peer.listen().await,
        }
    }

    /// Dials a port of 127.0.0.1 and waits until the handshake is done.
    pub async fn dial(&self, port: u16) -> Result<()> {
        match self {
            Self::Rust(peer) => peer.dial(port).await,
            Self::Node(peer) => peer.dial(port).await,
        }
    }

    /// Ends every connection in good order.
    pub async fn hang_up(&self) -> Result<()> {
        match self {
            Self::Rust(peer) => peer.hang_up().await,
            Self::Node(peer) => peer.hang_up().await,
        }
    }
}
