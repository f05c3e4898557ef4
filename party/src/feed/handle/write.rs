//! What the writer does: append and truncate. And clear, which everybody may.

use std::ops::Range;

use bytes::Bytes;

use super::{Feed, commit::Turn, encrypted::Text};
use crate::{
    encoding::MAX_SAFE_INTEGER,
    error::{ApiMisuse, Error},
    feed::{
        proof::Node,
        state::Update,
        storage::{Span, Write},
        tree::{Position, Tree, full_roots},
        verifier::Verifier,
    },
};

/// A batch of blocks as it will stand in the feed.
pub(super) struct Grown {
    pub(super) update: Update,
    pub(super) writes: Vec<Write>,
    pub(super) indexes: Range<u64>,
}

impl Feed {
    /// Adds a block and gives its index. When this completes, the block is stored, and survives the end of
    /// the process if the storage does.
    ///
    /// # Errors
    /// [`ApiMisuse::NotWritable`], [`ApiMisuse::BlockTooLarge`], [`ApiMisuse::NotThePrologue`] where the first
    /// blocks are not those that the manifest says, or why it could not be stored; the feed is as it was then. To
    /// an encrypted feed nothing is appended without its key ([`ApiMisuse::EncryptionKeyMissing`]), nor with a key
    /// that doesn't open its last block ([`ApiMisuse::WrongEncryptionKey`], [`ApiMisuse::NotEncrypted`]).
    pub async fn append(&self, block: impl Into<Bytes>) -> Result<u64, Error> {
        Ok(self.append_batch(vec![block.into()]).await?.start)
    }

    /// Works out what `texts` make of the feed. With the turn to change it.
    pub(super) fn grow(&self, turn: &Turn<'_>, texts: Vec<Text>) -> Result<Grown, Error> {
        if self.writer(&self.state()).is_none() {
            return Err(ApiMisuse::NotWritable(self.discovery_key()).into());
        }
        let blocks = self.seal(turn, texts)?;
        let (update, nodes, indexes) = {
            let state = self.state();
            let not_writable = || ApiMisuse::NotWritable(self.discovery_key());
            let (verifier, signer) = self.writer(&state).ok_or_else(not_writable)?;
            if !verifier.keeps_prologue(&state.tree, &blocks) {
                return Err(ApiMisuse::NotThePrologue.into());
            }
            let mut tree = state.tree.clone();
            let start = tree.length();
            let nodes = tree
                .append_blocks(blocks.iter().map(|block| block.as_ref()))
                .ok_or(ApiMisuse::LimitExceeded("feed length"))?;
            let signature = verifier.sign(signer, &tree, state.fork).ok_or_else(not_writable)?;
            let indexes = start..tree.length();
            let update = Update {
                fork: state.fork,
                tree,
                signature,
                verifier: Some(verifier.clone()),
                blocks: state.bitfield.with(indexes.clone()),
                cut: None,
            };
            (update, nodes, indexes)
        };
        let mut writes = self.writes(&update, &nodes);
        writes.extend(self.block_writes(indexes.start, blocks));
        Ok(Grown { update, writes, indexes })
    }

    /// Cuts the feed off after `length` blocks. What comes then is on the next fork: peers who have more
    /// drop it when they hear of that. [Snapshots](Self::snapshot) go on as they are.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
    /// # use party::key::KeyPair;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// # let identity = Identity::writer(KeyPair::generate());
    /// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
    /// feed.append_batch(vec!["a".into(), "b".into(), "c".into()]).await?;
    /// feed.truncate(1).await?;
    /// feed.append("d").await?;
    /// assert_eq!((feed.info().length, feed.info().fork), (2, 1));
    /// assert_eq!(feed.get(1).await?.as_deref(), Some(b"d".as_slice()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ApiMisuse::NotWritable`]; [`ApiMisuse::BeyondEnd`] if the feed is shorter;
    /// [`ApiMisuse::FixedByManifest`]; [`ApiMisuse::NotStored`] if this is a partial copy that lacks the tree
    /// nodes for it; or why it could not be stored. The feed is as it was then.
    pub async fn truncate(&self, length: u64) -> Result<(), Error> {
        self.truncate_to(length, None).await
    }

    /// As [`truncate`](Self::truncate), to a fork of the caller's choice.
    ///
    /// # Errors
    /// As [`truncate`](Self::truncate), and [`ApiMisuse::ForkNotHigher`].
    //= FEED-39, FEED-52, FEED-76
    pub async fn truncate_to_fork(&self, length: u64, fork: u64) -> Result<(), Error> {
        self.truncate_to(length, Some(fork)).await
    }

    async fn truncate_to(&self, length: u64, fork: Option<u64>) -> Result<(), Error> {
        let mut turn = self.turn().await?;
        let missing: Vec<u64> = {
            let state = self.state();
            if self.writer(&state).is_none() {
                return Err(ApiMisuse::NotWritable(self.discovery_key()).into());
            }
            let current = state.tree.length();
            if length > current {
                return Err(ApiMisuse::BeyondEnd { index: length, length: current }.into());
            }
            let fixed = state.verifier.as_ref().map_or(0, Verifier::prologue_length);
            if length < fixed {
                return Err(ApiMisuse::FixedByManifest(fixed).into());
            }
            full_roots(length).map(Position::index).filter(|root| state.root(*root).is_none()).collect()
        };
        let stored = self.read_nodes(&missing).await?;
        let update = {
            let state = self.state();
            let roots: Option<Vec<Node>> = full_roots(length)
                .map(|position| state.root(position.index()).or(stored.get(&position.index())).copied())
                .collect();
            let tree = roots.and_then(|roots| Tree::from_roots(length, roots)).ok_or(ApiMisuse::NotStored)?;
            let fork = match fork {
                Some(fork) if fork <= state.fork => {
                    return Err(ApiMisuse::ForkNotHigher { fork, current: state.fork }.into());
                }
                Some(fork) => fork,
                None => state.fork.saturating_add(1),
            };
            if fork > MAX_SAFE_INTEGER {
                return Err(ApiMisuse::LimitExceeded("fork").into());
            }
            let not_writable = || ApiMisuse::NotWritable(self.discovery_key());
            let (verifier, signer) = self.writer(&state).ok_or_else(not_writable)?;
            let signature = verifier.sign(signer, &tree, fork).ok_or_else(not_writable)?;
            Update {
                fork,
                tree,
                signature,
                verifier: Some(verifier.clone()),
                blocks: state.bitfield.without(&(length..u64::MAX)),
                cut: Some(length),
            }
        };
        let mut writes = self.cut_writes(length);
        writes.extend(self.writes(&update, &[]));
        self.commit_deletion(&mut turn, update, writes).await
    }

    /// Deletes the blocks after the first `length`, and every node that has one of them below it: left
    /// where it is, it would be taken for a node of the tree that grows in its place.
    pub(super) fn cut_writes(&self, length: u64) -> Vec<Write> {
        let slot = self.inner.slot;
        let mut writes = vec![
            Write::Clear(Span::Blocks(slot, length..u64::MAX)),
            Write::Clear(Span::Nodes(slot, length.saturating_mul(2)..u64::MAX)),
        ];
        let end = self.state().tree.length();
        let above = std::iter::successors(Position::leaf(length), |position| position.parent());
        writes.extend(
            above
                .take_while(|position| position.end() <= end)
                .filter(|position| position.start() < length)
                .map(|position| Write::Delete(self.node_key(position.index()))),
        );
        writes
    }

    /// Deletes blocks that are stored here, to have their space back, and says how many there were. The
    /// feed's length and tree stay: peers are told that we don't have these blocks any more, and they can be
    /// fetched again. [Snapshots](Self::snapshot) go on as they are.
    ///
    /// # Errors
    /// Why it could not be stored. The feed is as it was then.
    pub async fn clear(&self, blocks: Range<u64>) -> Result<u64, Error> {
        let mut turn = self.turn().await?;
        let (update, count) = {
            let state = self.state();
            let blocks = blocks.start..blocks.end.min(state.tree.length());
            let count = state.bitfield.count(blocks.clone());
            (state.with_blocks(state.bitfield.without(&blocks)), count)
        };
        if count > 0 {
            let mut writes = vec![Write::Clear(Span::Blocks(self.inner.slot, blocks))];
            writes.extend(self.writes(&update, &[]));
            self.commit_deletion(&mut turn, update, writes).await?;
        }
        Ok(count)
    }
}
