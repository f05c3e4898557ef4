//! The feed that an app holds in its hands: append, read, and what replication needs of both.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Range,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, Weak},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    error::{ApiMisuse, Error, StorageError},
    feed::{
        demand::{Changes, Demands},
        identity::Identity,
        local::Local,
        manifest::Manifest,
        open::{damaged, decode_nodes, open},
        proof::{Node, Proof, ProofRequest},
        prove::Plan,
        state::{Head, State, Update, encode_node},
        storage::{Completion, Key, Slot, Storage, Write},
        tree::MAX_LENGTH,
        verifier::Verifier,
        verify::{Verification, VerifiedProof, hash_proofs},
    },
    key::{DiscoveryKey, FeedKey, KeyPair},
    limits::Limits,
};

/// A feed's figures at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Blocks of the signed tree, stored here or not.
    pub length: u64,
    /// Bytes of all these blocks.
    pub byte_length: u64,
    /// Blocks stored here without a gap from the first.
    pub contiguous_length: u64,
    /// The fork; it grows with every truncation.
    pub fork: u64,
    /// Whether this handle can append.
    pub writable: bool,
}

/// What came of a proof that was taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ingested {
    /// The block that it brought, which is stored now.
    pub block: Option<u64>,
    /// The length that the feed grew to by it.
    pub length: Option<u64>,
    /// Whether the feed's manifest was learned from it.
    pub manifest: bool,
    /// It was about a state of the feed that has passed, and nothing was taken from it.
    pub stale: bool,
}

/// One feed: a signed, append-only list of blocks. Cheap to clone; all clones are the same feed.
///
/// ```
/// use std::sync::Arc;
/// use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// use party::key::KeyPair;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// let writer = KeyPair::generate();
/// let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), Identity::writer(writer)).await?;
/// assert_eq!(feed.append("hello").await?, 0);
/// assert_eq!(feed.append_batch(vec!["a".into(), "b".into()]).await?, 1..3);
/// assert_eq!(feed.get(2).await?.as_deref(), Some(b"b".as_slice()));
/// assert_eq!(feed.info().byte_length, 7);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Feed {
    inner: Arc<Inner>,
}

struct Inner {
    key: FeedKey,
    discovery_key: DiscoveryKey,
    slot: Slot,
    signer: Option<KeyPair>,
    storage: Arc<dyn Storage>,
    state: RwLock<State>,
    /// Held by who writes. A commit that its caller no longer waits for stays in here: whoever writes next
    /// lets it end first, so that what is known in memory never falls behind what is stored.
    writing: Mutex<Option<Pending>>,
    demands: Demands,
}

/// A commit that was handed to the storage, and the step that follows when it has ended.
struct Pending {
    commit: Completion<()>,
    update: Update,
}

impl Feed {
    /// Opens the feed that is stored under `slot`, or begins an empty one there.
    ///
    /// # Errors
    /// [`ApiMisuse::WrongManifest`] if the manifest or the signer is not this feed's;
    /// [`StorageError::Damaged`] if what is stored is not a tree that the feed's writer has signed.
    pub async fn create(storage: Arc<dyn Storage>, slot: Slot, identity: Identity) -> Result<Self, Error> {
        let verifier = identity.verifier()?;
        let state = open(&*storage, slot, identity.key, verifier).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                key: identity.key,
                discovery_key: identity.key.discovery_key(),
                slot,
                signer: identity.signer,
                storage,
                state: RwLock::new(state),
                writing: Mutex::new(None),
                demands: Demands::new(),
            }),
        })
    }

    pub(crate) fn downgrade(&self) -> WeakFeed {
        WeakFeed { inner: Arc::downgrade(&self.inner) }
    }

    /// The key that names and verifies the feed.
    pub fn key(&self) -> FeedKey {
        self.inner.key
    }

    /// The key under which peers ask for the feed.
    pub fn discovery_key(&self) -> DiscoveryKey {
        self.inner.discovery_key
    }

    /// The manifest, once it is known; for a legacy feed the one that it is taken to have.
    pub fn manifest(&self) -> Option<Manifest> {
        self.state().verifier.as_ref().map(|verifier| verifier.manifest().clone())
    }

    /// The figures of this moment.
    pub fn info(&self) -> Info {
        let state = self.state();
        Info {
            length: state.tree.length(),
            byte_length: state.tree.byte_length(),
            contiguous_length: state.bitfield.contiguous(),
            fork: state.fork,
            writable: self.writer(&state).is_some(),
        }
    }

    /// Adds a block and gives its index. When this completes, the block is stored, and survives the end of
    /// the process if the storage does.
    ///
    /// # Errors
    /// [`ApiMisuse::NotWritable`], [`ApiMisuse::BlockTooLarge`], or why it could not be stored; the feed is as it
    /// was then.
    pub async fn append(&self, block: impl Into<Bytes>) -> Result<u64, Error> {
        Ok(self.append_batch(vec![block.into()]).await?.start)
    }

    /// Adds blocks under one signature and in one commit, all or none, and gives their indexes. Appends from
    /// several tasks take turns.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn append_batch(&self, blocks: Vec<Bytes>) -> Result<Range<u64>, Error> {
        let max = Limits::default().max_block;
        if let Some(block) = blocks.iter().find(|block| block.len() > max) {
            return Err(ApiMisuse::BlockTooLarge { len: block.len(), max }.into());
        }
        let mut writing = self.lock().await;
        let (update, head, nodes, start) = {
            let state = self.state();
            let not_writable = || ApiMisuse::NotWritable(self.discovery_key());
            let (verifier, signer) = self.writer(&state).ok_or_else(not_writable)?;
            let start = state.tree.length();
            if blocks.is_empty() {
                return Ok(start..start);
            }
            let mut tree = state.tree.clone();
            let nodes = tree
                .append_blocks(blocks.iter().map(|block| block.as_ref()))
                .ok_or(ApiMisuse::LimitExceeded("feed length"))?;
            let signature = verifier.sign(signer, &tree, state.fork).ok_or_else(not_writable)?;
            let changes = state.bitfield.with(start..tree.length());
            let update = Update { tree, signature, verifier: Some(verifier.clone()), blocks: changes };
            let head = state.head(&update);
            (update, head, nodes, start)
        };
        let end = update.tree.length();
        let mut writes = self.writes(&update, head, &nodes);
        writes.extend((start..).zip(blocks).map(|(index, block)| (self.block_key(index), Some(block))));
        self.commit(&mut writing, update, writes).await?;
        Ok(start..end)
    }

    /// Reads a block that is stored here; `None` if it is not.
    ///
    /// # Errors
    /// Why it could not be read.
    pub async fn get(&self, index: u64) -> Result<Option<Bytes>, Error> {
        if !self.has(index) {
            return Ok(None);
        }
        let mut values = self.inner.storage.read(vec![self.block_key(index)]).await?;
        match values.pop().flatten() {
            Some(block) => Ok(Some(block)),
            None => Err(damaged(format!("block {index} is missing")).into()),
        }
    }

    /// Reads a block; if it is not stored here, asks for it and waits until a peer has delivered it, or until
    /// it is appended. A wait without end is the caller's to limit.
    ///
    /// # Errors
    /// Why it could not be read.
    pub async fn fetch(&self, index: u64) -> Result<Bytes, Error> {
        if let Some(block) = self.get(index).await? {
            return Ok(block);
        }
        if index >= MAX_LENGTH {
            return Err(ApiMisuse::LimitExceeded("feed length").into());
        }
        let download = self.download(index..=index);
        download.done().await;
        self.get(index).await?.ok_or_else(|| damaged(format!("block {index} is missing")).into())
    }

    /// Whether block `index` is stored here.
    pub fn has(&self, index: u64) -> bool {
        self.state().has(index)
    }

    /// Lends the feed as it stands. What is done with it must be short: nothing is committed meanwhile.
    pub fn with_local<R>(&self, f: impl FnOnce(&dyn Local) -> R) -> R {
        f(&*self.state())
    }

    /// Waits until the feed has at least `length` blocks, stored here or not.
    pub async fn wait_for_length(&self, length: u64) {
        let mut changes = self.demands().subscribe_to_growth();
        while self.info().length < length {
            changes.changed().await;
        }
    }

    /// Answers a request of a peer's. `None` if we don't have what it asks for, or are on another fork than
    /// the request.
    ///
    /// # Errors
    /// [`PeerMisbehaved::InvalidRequest`](crate::error::PeerMisbehaved::InvalidRequest) for what no feed of our length
    /// could answer, or why it could not be read.
    pub async fn prove(&self, request: ProofRequest, fork: u64) -> Result<Option<Proof>, Error> {
        let (plan, mut nodes, signature, manifest) = {
            let state = self.state();
            if fork != state.fork
                || request.seek.is_some()
                || request.block.is_some_and(|block| !state.has(block.index))
            {
                return Ok(None);
            }
            let verifier = state.verifier.as_ref();
            let prologue = verifier.map_or(0, Verifier::prologue_length);
            let Some(plan) = Plan::new(&request, state.tree.length(), prologue)? else { return Ok(None) };
            let roots: HashMap<u64, Node> =
                state.tree.roots().iter().map(|root| (root.index, *root)).collect();
            let manifest = verifier
                .filter(|verifier| request.manifest && !verifier.is_legacy())
                .map(|verifier| verifier.manifest().clone());
            (plan, roots, state.signature.clone(), manifest)
        };
        let missing: Vec<u64> = plan.nodes().filter(|index| !nodes.contains_key(index)).collect();
        let block = plan.block();
        let keys: Vec<Key> = block
            .map(|index| self.block_key(index))
            .into_iter()
            .chain(missing.iter().map(|index| self.node_key(*index)))
            .collect();
        let mut value = None;
        if !keys.is_empty() {
            let mut values = self.inner.storage.read(keys).await?.into_iter();
            if block.is_some() {
                value = values.next().flatten();
            }
            nodes.extend(decode_nodes(&missing, values)?);
        }
        let proof = plan.proof(fork, &nodes, value, &signature);
        Ok(proof
            .map(|proof| Proof { manifest, ..proof })
            .filter(|proof| *proof != Proof { fork, ..Proof::default() }))
    }

    /// Takes in proofs: verifies them one after the other, where each may rest on those before it, and then
    /// stores all that hold in one commit. Says for each what came of it.
    ///
    /// # Errors
    /// For each proof, [`PeerMisbehaved`](crate::error::PeerMisbehaved) if it does not hold; what is only too late is
    /// no error. If the commit fails, nothing is stored, and every proof that held gets that error.
    pub async fn ingest(&self, proofs: Vec<Proof>) -> Vec<Result<Ingested, Error>> {
        let hashed = hash_proofs(proofs);
        let mut writing = self.lock().await;
        let mut verification = {
            let needed: Vec<u64> = {
                let state = self.state();
                let roots = state.tree.roots();
                let mut needed: Vec<u64> = hashed
                    .iter()
                    .flatten()
                    .filter_map(|proof| proof.needs())
                    .filter(|index| roots.iter().all(|root| root.index != *index))
                    .collect();
                needed.sort_unstable();
                needed.dedup();
                needed
            };
            let stored = match self.read_nodes(&needed).await {
                Ok(stored) => stored,
                Err(error) => return hashed.iter().map(|_| Err(error.clone())).collect(),
            };
            let state = self.state();
            Verification::new(
                self.inner.key,
                state.verifier.clone(),
                state.fork,
                state.tree.clone(),
                state.signature.clone(),
                stored,
            )
        };
        let verified: Vec<Result<VerifiedProof, Error>> =
            hashed.into_iter().map(|proof| Ok(verification.verify(proof?)?)).collect();
        let stored = self.store(&mut writing, &verification, &verified).await;
        verified
            .into_iter()
            .map(|proof| {
                let proof = proof?;
                stored.clone()?;
                Ok(Ingested {
                    block: proof.block().map(|(index, _)| index),
                    length: proof.length(),
                    manifest: proof.manifest(),
                    stale: proof.is_stale(),
                })
            })
            .collect()
    }

    /// Stores what proofs have shown, if there is anything new in it.
    async fn store(
        &self,
        writing: &mut Option<Pending>,
        verification: &Verification,
        verified: &[Result<VerifiedProof, Error>],
    ) -> Result<(), Error> {
        let mut nodes = BTreeMap::new();
        let mut blocks = BTreeMap::new();
        let (update, head) = {
            let state = self.state();
            for proof in verified.iter().flatten() {
                nodes.extend(proof.nodes().iter().map(|node| (node.index, *node)));
                blocks.extend(
                    proof
                        .block()
                        .filter(|(index, _)| !state.has(*index))
                        .map(|(index, value)| (index, value.clone())),
                );
            }
            let grown = verification.tree();
            let learned = verification.learned();
            if blocks.is_empty() && nodes.is_empty() && grown.is_none() && learned.is_none() {
                return Ok(());
            }
            let (tree, signature) = grown.unwrap_or((&state.tree, &state.signature));
            let update = Update {
                tree: tree.clone(),
                signature: signature.clone(),
                verifier: learned.or(state.verifier.as_ref()).cloned(),
                blocks: state.bitfield.with(blocks.keys().copied()),
            };
            let head = state.head(&update);
            (update, head)
        };
        let nodes: Vec<Node> = nodes.into_values().collect();
        let mut writes = self.writes(&update, head, &nodes);
        writes.extend(blocks.into_iter().map(|(index, value)| (self.block_key(index), Some(value))));
        self.commit(writing, update, writes).await
    }

    /// Says from now on when the feed or its demand has changed.
    pub fn subscribe(&self) -> Changes {
        self.inner.demands.subscribe()
    }

    pub(crate) fn demands(&self) -> &Demands {
        &self.inner.demands
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.inner.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer<'a>(&'a self, state: &'a State) -> Option<(&'a Verifier, &'a KeyPair)> {
        let signer = self.inner.signer.as_ref()?;
        let verifier = state.verifier.as_ref()?;
        verifier.is_writer(signer).then_some((verifier, signer))
    }

    /// Waits for the turn to write, and for the end of a commit that nobody waits for.
    async fn lock(&self) -> MutexGuard<'_, Option<Pending>> {
        let mut writing = self.inner.writing.lock().await;
        // Who made it is gone; if it failed, nothing was stored and nothing changes.
        let _ = self.settle(&mut writing).await;
        writing
    }

    async fn commit(
        &self,
        writing: &mut Option<Pending>,
        update: Update,
        writes: Vec<Write>,
    ) -> Result<(), Error> {
        *writing = Some(Pending { commit: self.inner.storage.commit(writes), update });
        let abandoned = Abandoned { feed: Some(self) };
        let result = self.settle(writing).await;
        abandoned.disarm();
        Ok(result?)
    }

    /// Sees a commit to its end, then takes the step.
    async fn settle(&self, writing: &mut Option<Pending>) -> Result<(), StorageError> {
        let Some(pending) = writing else { return Ok(()) };
        let result = (&mut pending.commit).await;
        if let (Some(pending), Ok(())) = (writing.take(), &result) {
            self.inner.state.write().unwrap_or_else(PoisonError::into_inner).apply(pending.update);
            self.inner.demands.notify();
        }
        result
    }

    fn writes(&self, update: &Update, head: Head, nodes: &[Node]) -> Vec<Write> {
        let slot = self.inner.slot;
        let mut writes = vec![(Key::Head(slot), Some(head.encode()))];
        writes.extend(update.blocks.pages().map(|(n, page)| (Key::Page(slot, n), page)));
        let mut encoded = BytesMut::with_capacity(nodes.len() * 41);
        writes.extend(nodes.iter().map(|node| {
            encode_node(node, &mut encoded);
            (self.node_key(node.index), Some(encoded.split().freeze()))
        }));
        writes
    }

    async fn read_nodes(&self, indexes: &[u64]) -> Result<HashMap<u64, Node>, Error> {
        if indexes.is_empty() {
            return Ok(HashMap::new());
        }
        let keys = indexes.iter().map(|index| self.node_key(*index)).collect();
        let values = self.inner.storage.read(keys).await?;
        Ok(decode_nodes(indexes, values)?)
    }

    fn node_key(&self, index: u64) -> Key {
        Key::Node(self.inner.slot, index)
    }

    fn block_key(&self, index: u64) -> Key {
        Key::Block(self.inner.slot, index)
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("discovery_key", &self.discovery_key())
            .field("info", &self.info())
            .finish_non_exhaustive()
    }
}

/// A feed that isn't held: a store remembers by it which feeds others hold.
pub(crate) struct WeakFeed {
    inner: Weak<Inner>,
}

impl WeakFeed {
    pub(crate) fn upgrade(&self) -> Option<Feed> {
        self.inner.upgrade().map(|inner| Feed { inner })
    }
}

/// Stands guard while a commit is waited for. If the waiting is given up, it lets somebody else do it, so
/// that the feed need not wait for its next write to show what was stored.
struct Abandoned<'a> {
    feed: Option<&'a Feed>,
}

impl Abandoned<'_> {
    fn disarm(mut self) {
        self.feed = None;
    }
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let (Some(feed), Ok(runtime)) = (self.feed, tokio::runtime::Handle::try_current()) {
            let feed = feed.clone();
            runtime.spawn(async move { drop(feed.lock().await) });
        }
    }
}
