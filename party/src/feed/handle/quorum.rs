//! Appends and truncations that somebody else has signed, and the start of a feed that nobody signs.

use std::ops::Range;

use bytes::Bytes;

use super::{Feed, encrypted::Text};
use crate::{
    error::{ApiMisuse, Error, SigningError},
    feed::{
        proof::Node,
        quorum::{Draft, PartialSignature},
        tree::{Position, Tree, full_roots},
        verifier::Verifier,
    },
    limits::Limits,
};

impl Feed {
    /// Drafts an append that is to be signed by others, or by several; see [`quorum`](crate::feed::quorum) for the
    /// steps. The draft is of the feed as it stands: it can be [appended](Self::append_signed) while nothing else
    /// was. A signer makes the same draft on its own copy of the feed, to see what it is asked to sign.
    ///
    /// A handle that [has the key](Self::with_encryption) encrypts the blocks. The same key and blocks make the same
    /// draft, so signers of an encrypted feed need its key to see what they sign, or take the draft's
    /// [blocks](Draft::blocks) on trust.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownManifest`] where nobody has shown the feed's manifest yet, else as [`Draft::append`], and what
    /// [`append`](Self::append) says of encrypted feeds.
    pub async fn draft(&self, blocks: Vec<Bytes>) -> Result<Draft, Error> {
        let turn = self.turn().await?;
        let (verifier, tree, fork) = self.signed_state()?;
        let texts: Vec<Text> =
            blocks.into_iter().map(|block| Text { block, key: self.key.clone() }).collect();
        if let Some(key) = &self.key {
            self.try_key(&turn, key).await?;
        }
        let blocks = self.seal(&turn, texts)?;
        Ok(Draft::append(verifier, tree, fork, blocks)?)
    }

    /// Drafts a truncation that is to be signed by others, or by several: to the first `length` blocks, on the next
    /// fork. It goes on as with a [`draft`](Self::draft).
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownManifest`]; [`ApiMisuse::FixedByManifest`] if it would cut the prologue; else as
    /// [`tree_at`](Self::tree_at).
    pub async fn draft_truncation(&self, length: u64) -> Result<Draft, Error> {
        loop {
            let (verifier, base, fork) = self.signed_state()?;
            let tree = self.tree_at(length).await?;
            if self.signed_state().is_ok_and(|(_, tree, now)| (tree, now) == (base.clone(), fork)) {
                let next = fork.saturating_add(1);
                return Ok(Draft::truncation(verifier, (base, fork), (tree, next))?);
            }
        }
    }

    /// Signs `draft` with the key pair that this handle was opened with, as one of the feed's signers.
    ///
    /// The draft must be one that was made here, of blocks that this signer has seen; what was asked for is
    /// compared with it by [`Draft::check`].
    ///
    /// # Errors
    /// [`ApiMisuse::NotWritable`] without a key pair; [`SigningError::OtherFeed`]; [`SigningError::NotASigner`].
    pub fn sign(&self, draft: &Draft) -> Result<PartialSignature, Error> {
        let signer = self.signer().ok_or(ApiMisuse::NotWritable(self.discovery_key()))?;
        if draft.signable().key != self.key() {
            return Err(SigningError::OtherFeed.into());
        }
        Ok(draft.sign(signer)?)
    }

    /// Takes the step that `draft` describes, with a signature that was made for it elsewhere: appends its blocks and
    /// gives their indexes, or truncates the feed and gives an empty range at its new end. It needs no key here.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use party::feed::{Feed, Identity, manifest::Manifest, memory::MemoryStorage, storage::Slot};
    /// use party::key::KeyPair;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// let signers = [1, 2, 3].map(|n| KeyPair::from_seed(&[n; 32]));
    /// let manifest = Manifest::builder().signers(signers.iter().map(KeyPair::public)).quorum(2).build()?;
    /// let open = |identity| Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity);
    /// // Two signers with a copy each.
    /// let alice = open(Identity::signer(manifest.clone(), signers[0].clone())).await?;
    /// let bob = open(Identity::signer(manifest, signers[1].clone())).await?;
    /// assert!(!alice.info().writable);
    ///
    /// let draft = alice.draft(vec!["we agree".into()]).await?;
    /// let asked = draft.signable();
    /// // Bob gets the block and what he is to sign, looks at both, and signs.
    /// let his = bob.draft(vec!["we agree".into()]).await?;
    /// his.check(&asked)?;
    /// let parts = [alice.sign(&draft)?, bob.sign(&his)?];
    ///
    /// let signature = draft.assemble(&parts)?;
    /// assert_eq!(alice.append_signed(draft, signature).await?, 0..1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ApiMisuse::FeedMovedOn`] if the feed is not as it was when the draft was made;
    /// [`SigningError::OtherFeed`]; [`SigningError::NotSigned`] if the signature doesn't hold; or why it could
    /// not be stored. The feed is as it was then.
    //= FEED-45, FEED-46
    pub async fn append_signed(
        &self,
        draft: Draft,
        signature: impl Into<Bytes>,
    ) -> Result<Range<u64>, Error> {
        let signature = signature.into();
        if draft.signable().key != self.key() {
            return Err(SigningError::OtherFeed.into());
        }
        let mut turn = self.turn().await?;
        let (update, start) = {
            let state = self.state();
            let (base, base_fork) = draft.base();
            if state.tree != *base || state.fork != base_fork {
                let (length, fork) = (state.tree.length(), state.fork);
                return Err(ApiMisuse::FeedMovedOn { length, fork }.into());
            }
            let verifier = state.verifier.as_ref().ok_or(ApiMisuse::UnknownManifest)?;
            let (tree, fork) = (draft.tree(), draft.fork());
            let holds = match draft.truncates() {
                true => verifier.verify_fork(tree, fork, &signature),
                false => verifier.verify(tree, fork, &signature),
            };
            holds.map_err(|_| SigningError::NotSigned)?;
            let (start, end) = (base.length(), draft.tree().length());
            let blocks = match draft.truncates() {
                true => state.bitfield.without(&(end..u64::MAX)),
                false => state.bitfield.with(start..end),
            };
            let mut update = state.with_blocks(blocks);
            update.fork = draft.fork();
            update.tree = draft.tree().clone();
            update.signature = signature;
            update.cut = draft.truncates().then_some(end);
            (update, start)
        };
        let end = update.tree.length();
        if draft.truncates() {
            let mut writes = self.cut_writes(end);
            writes.extend(self.writes(&update, &[]));
            self.commit_deletion(&mut turn, update, writes).await?;
            return Ok(end..end);
        }
        let (blocks, nodes) = draft.into_blocks();
        let mut writes = self.writes(&update, &nodes);
        writes.extend(self.block_writes(start, blocks));
        self.commit(&mut turn, update, writes).await?;
        Ok(start..end)
    }

    /// Fills the feed's [prologue](crate::feed::manifest::Prologue), which takes no signature and no key: all of its
    /// blocks, in one commit. A feed that has the prologue's tree already, from a peer, gets the blocks that it lacks. They are stored as they are given, for
    /// their hash is in the manifest: this handle's encryption key has no part in it.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use party::feed::{Feed, Identity, manifest::{Manifest, Prologue}, memory::MemoryStorage, storage::Slot};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// let blocks = ["chapter one", "chapter two"];
    /// let manifest = Manifest::builder().prologue(Prologue::of_blocks(&blocks).unwrap()).build()?;
    /// let identity = Identity::from_manifest(manifest);
    /// let book = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
    /// assert!(book.fill(vec!["chapter one".into()]).await.is_err());
    /// book.fill(vec!["chapter one".into(), "chapter two".into()]).await?;
    /// assert_eq!(book.info().contiguous_length, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownManifest`]; [`ApiMisuse::NotThePrologue`] for other blocks than the prologue's, and for a feed
    /// that has none; or why it could not be stored. The feed is as it was then.
    //= FEED-37, FEED-38
    pub async fn fill(&self, blocks: Vec<Bytes>) -> Result<(), Error> {
        let max = Limits::default().max_block;
        if let Some(block) = blocks.iter().find(|block| block.len() > max) {
            return Err(ApiMisuse::BlockTooLarge { len: block.len(), max }.into());
        }
        let mut turn = self.turn().await?;
        let (update, nodes) = {
            let state = self.state();
            let verifier = state.verifier.as_ref().ok_or(ApiMisuse::UnknownManifest)?;
            let mut prologue = Tree::default();
            let nodes = prologue
                .append_blocks(blocks.iter().map(AsRef::as_ref))
                .filter(|_| verifier.is_prologue(&prologue))
                .ok_or(ApiMisuse::NotThePrologue)?;
            let length = prologue.length();
            let mut update = state.with_blocks(state.bitfield.with(0..length));
            if state.tree.length() < length {
                update.tree = prologue;
                update.signature = Bytes::new();
            }
            (update, nodes)
        };
        let mut writes = self.writes(&update, &nodes);
        writes.extend(self.block_writes(0, blocks));
        self.commit(&mut turn, update, writes).await
    }

    /// The tree of the feed's first `length` blocks: what a signer compares, and what another feed's
    /// [prologue](crate::feed::manifest::Prologue::of) or [signable](crate::feed::quorum::Signable::of) is made of.
    ///
    /// # Errors
    /// [`ApiMisuse::BeyondEnd`]; [`ApiMisuse::NotStored`] if this is a partial copy that lacks the nodes for it; or why
    /// they could not be read.
    pub async fn tree_at(&self, length: u64) -> Result<Tree, Error> {
        loop {
            let before = self.undisturbed().await;
            let tree = self.tree_from_storage(length).await;
            // What was read while something was deleted may be of two trees.
            if self.is_unchanged(before) {
                return tree;
            }
        }
    }

    async fn tree_from_storage(&self, length: u64) -> Result<Tree, Error> {
        let current = self.state().tree.clone();
        if length > current.length() {
            return Err(ApiMisuse::BeyondEnd { index: length, length: current.length() }.into());
        }
        let root = |index: u64| current.roots().iter().find(|root| root.index == index);
        let missing: Vec<u64> =
            full_roots(length).map(Position::index).filter(|index| root(*index).is_none()).collect();
        let stored = self.read_nodes(&missing).await?;
        let roots: Option<Vec<Node>> = full_roots(length)
            .map(|position| root(position.index()).or(stored.get(&position.index())).copied())
            .collect();
        Ok(roots.and_then(|roots| Tree::from_roots(length, roots)).ok_or(ApiMisuse::NotStored)?)
    }

    fn signed_state(&self) -> Result<(Verifier, Tree, u64), ApiMisuse> {
        let state = self.state();
        let verifier = state.verifier.clone().ok_or(ApiMisuse::UnknownManifest)?;
        Ok((verifier, state.tree.clone(), state.fork))
    }
}
