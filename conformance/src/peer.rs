//! A peer of ours that takes the same orders as the Node peers: [`Peer`] as a value for tests within one process,
//! [`obey_commands`] for a process of its own.

use std::{
    collections::HashMap,
    io::Write as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use party::{
    connection::{self, Connection, Listener},
    error::Error,
    feed::{
        Download, Feed, Identity,
        manifest::{Manifest, ManifestBuilder},
    },
    key::{FeedKey, KeyPair},
    party::Open,
    rules::WholeStore,
    store::{FeedOptions, Store},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    task::{AbortHandle, JoinSet},
};

use crate::{
    measure,
    node::{ContentDigest, FeedInfo, FeedState, Kind, block, digest, hex},
    process::usage,
    scratch::Folder,
};

/// Bytes that are appended at once.
const APPEND_AT_ONCE: usize = 8 << 20;

/// Signers of a feed that several sign, and how many of them it takes.
const SIGNERS: usize = 3;
const QUORUM: u64 = 2;

/// A store in open mode and its connections: what a corestore is in a Node peer. Cheap to clone.
///
/// Its methods are the commands of `conformance/node/README.md`, under the same names as those of
/// [`NodePeer`](crate::node::NodePeer).
#[derive(Clone)]
pub struct Peer {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    open: Open,
    key_pair: KeyPair,
    state: Mutex<State>,
    /// Goes with the peer, after its store.
    _folder: Option<Folder>,
}

#[derive(Default)]
struct State {
    feeds: HashMap<String, Feed>,
    /// By the name of the feed, if several sign it.
    signers: HashMap<String, Vec<KeyPair>>,
    wanted: HashMap<String, Download>,
    dialled: Vec<Connection>,
    /// The others, those still in their handshakes among them.
    accepted: JoinSet<Result<Connection, Error>>,
    listeners: Vec<AbortHandle>,
}

impl Peer {
    /// A peer that offers every feed of `store`, and fetches of them what it is ordered to.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self::with(store, None)
    }

    /// A peer on disk, in a folder that goes with it.
    ///
    /// # Errors
    ///
    /// When the folder or the store can't be made.
    pub async fn temporary() -> Result<Self> {
        let folder = Folder::new()?;
        Ok(Self::with(Store::open(folder.path()).await?, Some(folder)))
    }

    fn with(store: Store, folder: Option<Folder>) -> Self {
        let open = Open::new(WholeStore::new(store.clone()).sparse());
        let inner =
            Inner { store, open, key_pair: KeyPair::generate(), state: Mutex::default(), _folder: folder };
        Self { inner: Arc::new(inner) }
    }

    /// Makes a feed.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub async fn create(&self, name: &str, kind: Kind) -> Result<FeedInfo> {
        let version = match kind {
            Kind::Default | Kind::Compat => {
                return self.create_with(name, kind, FeedOptions::default()).await;
            }
            Kind::ManifestZero | Kind::MultisigZero => 0,
            Kind::Multisig => 1,
        };
        let manifest = |builder: ManifestBuilder| builder.version(version).build();
        let identity = if kind == Kind::ManifestZero {
            let signer = KeyPair::generate();
            Identity::signer(manifest(Manifest::builder().signer(signer.public()))?, signer)
        } else {
            let signers: Vec<KeyPair> = (0..SIGNERS).map(|_| KeyPair::generate()).collect();
            let public = signers.iter().map(KeyPair::public);
            let identity =
                Identity::from_manifest(manifest(Manifest::builder().signers(public).quorum(QUORUM))?);
            self.state().signers.insert(name.to_owned(), signers);
            identity
        };
        let feed = self.inner.store.add_feed(name, identity).await?;
        Ok(self.remember(name, feed))
    }

    /// Makes a feed whose blocks are encrypted under `encryption`.
    ///
    /// # Errors
    ///
    /// When the store fails, or for another kind than [`Kind::Default`] and [`Kind::Compat`].
    pub async fn create_encrypted(&self, name: &str, kind: Kind, encryption: [u8; 32]) -> Result<FeedInfo> {
        self.create_with(name, kind, FeedOptions::default().encryption(encryption)).await
    }

    async fn create_with(&self, name: &str, kind: Kind, options: FeedOptions) -> Result<FeedInfo> {
        let compat = match kind {
            Kind::Default => false,
            Kind::Compat => true,
            _ => bail!("no encrypted feeds of the kind {kind:?} are made here"),
        };
        let feed = self.inner.store.create_feed(name, options.compat(compat)).await?;
        Ok(self.remember(name, feed))
    }

    /// Opens or adds a feed by its key, 32 bytes in hex.
    ///
    /// # Errors
    ///
    /// When that is no key, or the store fails.
    pub async fn open(&self, name: &str, key: &str) -> Result<FeedInfo> {
        let feed = self.inner.store.feed(&key.parse::<FeedKey>()?).await?;
        Ok(self.remember(name, feed))
    }

    /// Opens or adds a feed by its key, whose blocks are encrypted under `encryption`.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_encrypted(&self, name: &str, key: &str, encryption: [u8; 32]) -> Result<FeedInfo> {
        let feed = self.inner.store.feed(&key.parse::<FeedKey>()?).await?;
        Ok(self.remember(name, feed.with_encryption(encryption)))
    }

    /// Appends `count` blocks of `size` bytes, each as [`block`] makes it of `seed` and its index.
    ///
    /// # Errors
    ///
    /// When there is no such feed, or the store fails.
    pub async fn append(&self, name: &str, seed: u32, count: u64, size: usize) -> Result<FeedInfo> {
        let feed = self.feed(name)?;
        let end = feed.info().length + count;
        let at_once = (APPEND_AT_ONCE / size.max(1)).max(1) as u64;
        while feed.info().length < end {
            let start = feed.info().length;
            let blocks = (start..end.min(start + at_once)).map(|index| block(seed, index, size)).collect();
            self.append_blocks(name, &feed, blocks).await?;
        }
        Ok(describe(&feed))
    }

    async fn append_blocks(&self, name: &str, feed: &Feed, blocks: Vec<Bytes>) -> Result<()> {
        let signers = self.state().signers.get(name).cloned();
        let Some(signers) = signers else {
            feed.append_batch(blocks).await?;
            return Ok(());
        };
        let draft = feed.draft(blocks).await?;
        let parts =
            [0, SIGNERS - 1].map(|n| draft.sign(&signers[n])).into_iter().collect::<Result<Vec<_>, _>>()?;
        let signature = draft.assemble(&parts)?;
        feed.append_signed(draft, signature).await?;
        Ok(())
    }

    /// Appends one block.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    pub async fn append_text(&self, name: &str, text: &str) -> Result<FeedInfo> {
        let feed = self.feed(name)?;
        self.append_blocks(name, &feed, vec![Bytes::copy_from_slice(text.as_bytes())]).await?;
        Ok(describe(&feed))
    }

    /// Cuts a feed off after `length` blocks; what comes then is on the next fork.
    ///
    /// # Errors
    ///
    /// When there is no such feed, it is not written here, or the store fails.
    pub async fn truncate(&self, name: &str, length: u64) -> Result<FeedInfo> {
        let feed = self.feed(name)?;
        feed.truncate(length).await?;
        Ok(describe(&feed))
    }

    /// Deletes the blocks `from..to` of a feed here.
    ///
    /// # Errors
    ///
    /// When there is no such feed, or the store fails.
    pub async fn clear(&self, name: &str, from: u64, to: u64) -> Result<FeedInfo> {
        let feed = self.feed(name)?;
        feed.clear(from..to).await?;
        Ok(describe(&feed))
    }

    /// Lets go of a feed and forgets its name, and what was wanted of it.
    ///
    /// # Errors
    ///
    /// When there is no such feed.
    pub fn close_feed(&self, name: &str) -> Result<()> {
        self.feed(name)?;
        let mut state = self.state();
        state.feeds.remove(name);
        state.wanted.remove(name);
        Ok(())
    }

    /// Wants everything from now on, and waits until `length` blocks are stored without a gap.
    ///
    /// # Errors
    ///
    /// When there is no such feed.
    pub async fn follow(&self, name: &str, length: u64) -> Result<FeedInfo> {
        let feed = self.want_all(name)?;
        let mut changes = feed.subscribe();
        while feed.info().contiguous_length < length {
            changes.changed().await;
        }
        Ok(describe(&feed))
    }

    /// Wants everything of a feed from now on.
    ///
    /// # Errors
    ///
    /// When there is no such feed.
    pub fn want_all(&self, name: &str) -> Result<Feed> {
        let feed = self.feed(name)?;
        self.state().wanted.entry(name.to_owned()).or_insert_with(|| feed.download(0..));
        Ok(feed)
    }

    /// Downloads the blocks `from..to`, and counts what is stored then.
    ///
    /// # Errors
    ///
    /// When there is no such feed, or the download fails.
    pub async fn download(&self, name: &str, from: u64, to: u64) -> Result<FeedInfo> {
        let feed = self.feed(name)?;
        feed.download(from..to).done().await?;
        self.info(name)
    }

    /// One block, stored or downloaded on demand.
    ///
    /// # Errors
    ///
    /// When there is no such feed, or the store fails.
    pub async fn get(&self, name: &str, index: u64) -> Result<Bytes> {
        Ok(self.feed(name)?.fetch(index).await?)
    }

    /// Fetches the blocks `indexes` at once or, `in_turn`, each when the one before it has come, and gives the digest
    /// over them in that order.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn gets(&self, name: &str, indexes: &[u64], in_turn: bool) -> Result<ContentDigest> {
        let feed = self.feed(name)?;
        let mut blocks = vec![Bytes::new(); indexes.len()];
        let mut fetching = JoinSet::new();
        for (n, index) in indexes.iter().copied().enumerate() {
            let feed = feed.clone();
            fetching.spawn(async move { (n, feed.fetch(index).await) });
            while (in_turn || n + 1 == indexes.len())
                && let Some(fetched) = fetching.join_next().await
            {
                let (n, block) = fetched?;
                blocks[n] = block?;
            }
        }
        Ok(digest(blocks))
    }

    /// Waits until a feed is at `fork` with `length` blocks at least, and has stored all blocks of `runs`.
    ///
    /// # Errors
    ///
    /// When there is no such feed.
    pub async fn reach(&self, name: &str, fork: u64, length: u64, runs: &[(u64, u64)]) -> Result<FeedInfo> {
        let feed = self.feed(name)?;
        let mut changes = feed.subscribe();
        let is_there = || {
            let info = feed.info();
            info.fork == fork
                && info.length >= length
                && runs.iter().all(|(from, to)| (*from..*to).all(|index| feed.has(index)))
        };
        while !is_there() {
            changes.changed().await;
        }
        Ok(describe(&feed))
    }

    /// How a feed stands: its tree, and which blocks of it are stored.
    ///
    /// # Errors
    ///
    /// When there is no such feed, or its tree can't be read.
    pub async fn feed_state(&self, name: &str) -> Result<FeedState> {
        let feed = self.feed(name)?;
        let info = feed.info();
        let mut stored: Vec<(u64, u64)> = Vec::new();
        for index in (0..info.length).filter(|index| feed.has(*index)) {
            match stored.last_mut() {
                Some((_, end)) if *end == index => *end += 1,
                _ => stored.push((index, index + 1)),
            }
        }
        let tree_hash = hex(feed.tree_at(info.length).await?.hash().as_ref());
        Ok(FeedState { fork: info.fork, length: info.length, tree_hash, stored })
    }

    /// Makes `count` feeds called `prefix` and a number, each with as many `blocks` of `size` bytes made of `seed` and
    /// that number, and gives their keys.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    pub async fn crowd(
        &self,
        prefix: &str,
        count: u64,
        seed: u32,
        blocks: u64,
        size: usize,
    ) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        for (n, seed) in (0..count).zip(seed..) {
            let name = format!("{prefix}{n}");
            keys.push(self.create(&name, Kind::Default).await?.key);
            self.append(&name, seed, blocks, size).await?;
        }
        Ok(keys)
    }

    /// Opens a feed for each of `keys`, called `prefix` and a number.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn join(&self, prefix: &str, keys: &[String]) -> Result<()> {
        for (n, key) in keys.iter().enumerate() {
            self.open(&format!("{prefix}{n}"), key).await?;
        }
        Ok(())
    }

    /// What is known of a feed, with the count of stored blocks.
    ///
    /// # Errors
    ///
    /// When there is no such feed.
    pub fn info(&self, name: &str) -> Result<FeedInfo> {
        let feed = self.feed(name)?;
        let info = describe(&feed);
        let held = (0..info.length).filter(|index| feed.has(*index)).count() as u64;
        Ok(FeedInfo { held: Some(held), ..info })
    }

    /// The digest over every block of a feed; all must be stored.
    ///
    /// # Errors
    ///
    /// When there is no such feed, or a block of it is missing.
    pub async fn digest(&self, name: &str) -> Result<ContentDigest> {
        let feed = self.feed(name)?;
        let mut blocks = Vec::new();
        for index in 0..feed.info().length {
            blocks.push(feed.get(index).await?.with_context(|| format!("block {index} is missing"))?);
        }
        Ok(digest(blocks))
    }

    /// Listens on a free port of 127.0.0.1 until the peer is closed, and gives the port.
    ///
    /// # Errors
    ///
    /// Whatever the operating system says.
    pub async fn listen(&self) -> Result<u16> {
        let listener = Listener::bind(("127.0.0.1", 0), &self.inner.key_pair).await?;
        let port = listener.local_addr()?.port();
        let peer = self.clone();
        let task = tokio::spawn(async move {
            while let Ok((connecting, _)) = listener.accept().await {
                let open = peer.inner.open.clone();
                peer.state().accepted.spawn(async move { connecting.open(&open).await });
            }
        });
        self.state().listeners.push(task.abort_handle());
        Ok(port)
    }

    /// Dials a port of 127.0.0.1 and waits until the handshake is done.
    ///
    /// # Errors
    ///
    /// When the connection or the handshake fails.
    pub async fn dial(&self, port: u16) -> Result<()> {
        let connecting = connection::dial(("127.0.0.1", port), &self.inner.key_pair).await?;
        let connection = connecting.open(&self.inner.open).await?;
        self.state().dialled.push(connection);
        Ok(())
    }

    /// Ends every connection in good order. Those that are in their handshakes end after them.
    ///
    /// # Errors
    ///
    /// When one had ended or ends in another way. The others are ended all the same.
    pub async fn hang_up(&self) -> Result<()> {
        let (dialled, accepted) = {
            let mut state = self.state();
            (std::mem::take(&mut state.dialled), std::mem::take(&mut state.accepted))
        };
        close_all(dialled, accepted).await
    }

    /// Ends every connection, listens no longer, and closes the store.
    ///
    /// # Errors
    ///
    /// As [`hang_up`](Self::hang_up); the store is closed all the same.
    pub async fn close(self) -> Result<()> {
        let state = std::mem::take(&mut *self.state());
        for listener in state.listeners {
            listener.abort();
        }
        let result = close_all(state.dialled, state.accepted).await;
        self.inner.store.close().await;
        result
    }

    /// The feed with this name.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn feed(&self, name: &str) -> Result<Feed> {
        self.state().feeds.get(name).cloned().with_context(|| format!("no feed has the name {name}"))
    }

    fn remember(&self, name: &str, feed: Feed) -> FeedInfo {
        let info = describe(&feed);
        self.state().feeds.insert(name.to_owned(), feed);
        info
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn close_all(
    mut connections: Vec<Connection>,
    mut accepted: JoinSet<Result<Connection, Error>>,
) -> Result<()> {
    while let Some(opened) = accepted.join_next().await {
        // Who dialled knows if its handshake failed, and there is nothing to end.
        connections.extend(opened?.ok());
    }
    let mut result = Ok(());
    for connection in connections {
        result = result.and(connection.close().await);
    }
    Ok(result?)
}

/// Runs a peer with a store in the folder `store` that obeys commands on standard input, as `peer.js` does, until
/// standard input ends.
///
/// # Errors
///
/// When the store can't be opened or closed.
pub async fn obey_commands(store: &Path) -> Result<()> {
    let peer = Peer::new(Store::open(store).await?);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let peer = peer.clone();
        tokio::spawn(async move {
            let command: Value = serde_json::from_str(&line).unwrap_or_default();
            let mut answer = match obey(&peer, &command).await {
                Ok(answer) => answer,
                Err(error) => json!({"event": "error", "message": format!("{error:#}")}),
            };
            answer["id"] = command["id"].clone();
            if answer["event"].is_null() {
                answer["event"] = command["do"].clone();
            }
            // Whoever gives the commands is gone if this fails, and then standard input ends too.
            let _ = writeln!(std::io::stdout(), "{answer}");
        });
    }
    peer.close().await
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Order {
    Create { name: String, kind: Kind },
    Open { name: String, key: String },
    Append { name: String, seed: u32, count: u64, size: usize },
    Follow { name: String, length: u64 },
    Download { name: String, from: u64, to: u64 },
    Digest { name: String },
    Info { name: String },
    Listen,
    Dial { port: u16 },
    Hangup,
    Usage,
}

async fn obey(peer: &Peer, command: &Value) -> Result<Value> {
    if measure::is_order(command) {
        return measure::obey(peer, command).await;
    }
    Ok(match Order::deserialize(command)? {
        Order::Create { name, kind } => json!(peer.create(&name, kind).await?),
        Order::Open { name, key } => json!(peer.open(&name, &key).await?),
        Order::Append { name, seed, count, size } => json!(peer.append(&name, seed, count, size).await?),
        Order::Follow { name, length } => json!(peer.follow(&name, length).await?),
        Order::Download { name, from, to } => json!(peer.download(&name, from, to).await?),
        Order::Digest { name } => json!(peer.digest(&name).await?),
        Order::Info { name } => json!(peer.info(&name)?),
        Order::Listen => json!({"port": peer.listen().await?}),
        Order::Dial { port } => {
            peer.dial(port).await?;
            json!({})
        }
        Order::Hangup => {
            peer.hang_up().await?;
            json!({})
        }
        Order::Usage => json!(usage()?),
    })
}

fn describe(feed: &Feed) -> FeedInfo {
    let info = feed.info();
    FeedInfo {
        key: feed.key().to_string(),
        discovery_key: feed.discovery_key().to_string(),
        length: info.length,
        byte_length: info.byte_length,
        contiguous_length: info.contiguous_length,
        fork: info.fork,
        writable: info.writable,
        held: None,
    }
}
