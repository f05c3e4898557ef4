//! A feed that follows its writer to a higher fork.

use super::Feed;
use crate::{
    error::Error,
    feed::{
        proof::Proof,
        reorg::{Reorg, ReorgStep, ReorgWant},
        state::Update,
    },
};

/// A feed's way to a higher fork, begun by [`Feed::reorg`]. The feed stays as it is, and can be used, until
/// [`commit`](Self::commit).
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// use party::feed::proof::{ProofRequest, UpgradeRequest};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// # let mine = Identity::writer(KeyPair::generate());
/// # let theirs = Identity::reader(mine.key);
/// # let writer = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), mine).await?;
/// # let reader = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), theirs).await?;
/// let all = |length| {
///     let upgrade = Some(UpgradeRequest { start: 0, length });
///     ProofRequest { upgrade, manifest: true, ..ProofRequest::default() }
/// };
/// writer.append_batch(vec!["a".into(), "b".into()]).await?;
/// reader.ingest(vec![writer.prove(all(2), 0).await?.unwrap()]).await.remove(0)?;
/// writer.truncate(0).await?;
/// writer.append("c").await?;
///
/// let proof = writer.prove(all(1), 1).await?.unwrap();
/// let reorg = reader.reorg(proof).await?.expect("its fork is higher");
/// assert_eq!((reorg.fork(), reorg.length()), (1, 1));
/// assert!(reorg.want().is_none()); // so little that the first proof tells all
/// assert_eq!(reader.info().length, 2); // not yet
/// assert_eq!(reorg.commit().await?, Some(0)); // nothing in common
/// assert_eq!((reader.info().length, reader.info().fork), (1, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FeedReorg {
    feed: Feed,
    course: Course,
}

/// A way to a higher fork, without the feed that goes it.
#[derive(Debug)]
pub(super) struct Course {
    /// The fork that the feed had, which is what all comparisons are with.
    from: u64,
    reorg: Reorg,
    want: Option<ReorgWant>,
}

impl Feed {
    /// Begins to follow the feed's writer to a higher fork, with a peer's proof of an upgrade from 0 in that
    /// fork. `None` if the proof has no upgrade, or its fork is not above the feed's: then the feed stays, whatever is
    /// proved.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
    /// # use party::feed::proof::{ProofRequest, UpgradeRequest};
    /// # use party::key::KeyPair;
    /// # async fn new_feed(identity: Identity) -> Result<Feed, party::error::Error> {
    /// #     Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// # let writer = new_feed(Identity::writer(KeyPair::generate())).await?;
    /// # let reader = new_feed(Identity::reader(writer.key())).await?;
    /// writer.append_batch(vec!["a".into(), "b".into(), "c".into()]).await?;
    /// # let upgrade = |length| {
    /// #     let upgrade = Some(UpgradeRequest { start: 0, length });
    /// #     ProofRequest { upgrade, manifest: true, ..ProofRequest::default() }
    /// # };
    /// # reader.ingest(writer.prove(upgrade(3), 0).await?.into_iter().collect()).await;
    /// // ... and a reader has come to know these three. Then:
    /// writer.truncate(2).await?;
    /// writer.append("d").await?;
    ///
    /// let proof = writer.prove(upgrade(3), 1).await?.unwrap();
    /// let mut reorg = reader.reorg(proof).await?.expect("a higher fork");
    /// while let Some(want) = reorg.want() {
    ///     let request = want.request(want.blocks().start);
    ///     reorg.handle_proof(writer.prove(request, reorg.fork()).await?.unwrap()).await?;
    /// }
    /// assert_eq!(reorg.commit().await?, Some(2));
    /// assert_eq!((reader.info().fork, reader.info().length), (1, 3));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`PeerMisbehaved`](crate::error::PeerMisbehaved) if the proof does not hold or the feed's writer has not
    /// signed it, or why the feed's own tree could not be read.
    pub async fn reorg(&self, proof: Proof) -> Result<Option<FeedReorg>, Error> {
        let course = Course::begin(self, proof).await?;
        Ok(course.map(|course| FeedReorg { feed: self.clone(), course }))
    }
}

impl FeedReorg {
    /// The fork that it leads to: that of the requests to make.
    pub fn fork(&self) -> u64 {
        self.course.fork()
    }

    /// The length that it leads to.
    pub fn length(&self) -> u64 {
        self.course.reorg.length()
    }

    /// What is to be asked of a peer that has the new fork; `None` when all is known that is needed to
    /// [`commit`](Self::commit).
    pub fn want(&self) -> Option<&ReorgWant> {
        self.course.want()
    }

    /// Takes an answer to what is [wanted](Self::want). False if it brings nothing.
    ///
    /// # Errors
    /// [`PeerMisbehaved`](crate::error::PeerMisbehaved) if it does not hold, after which another answer may still; or why the feed's own tree could
    /// not be read.
    pub async fn handle_proof(&mut self, proof: Proof) -> Result<bool, Error> {
        self.course.handle_proof(&self.feed, proof).await
    }

    /// Replaces the feed's tree and drops the blocks that the new one doesn't begin with, in one commit. Gives
    /// the number of blocks that both have in common; `None`, and nothing is done, if something is still
    /// [wanted](Self::want), or if the feed itself has gone to another fork meanwhile: a proof is then to be asked
    /// for anew. [Snapshots](Feed::snapshot) go on as they are.
    ///
    /// # Errors
    /// Why it could not be stored. The feed is as it was then.
    //= FEED-77, FEED-79, FEED-80
    pub async fn commit(self) -> Result<Option<u64>, Error> {
        self.course.commit(&self.feed).await
    }
}

impl Course {
    pub(super) async fn begin(feed: &Feed, proof: Proof) -> Result<Option<Self>, Error> {
        let (verifier, from, length) = {
            let state = feed.state();
            (state.verifier.clone(), state.fork, state.tree.length())
        };
        let Some(reorg) = Reorg::begin(feed.key(), verifier, from, length, proof)? else { return Ok(None) };
        let mut course = Self { from, reorg, want: None };
        course.advance(feed).await?;
        Ok(Some(course))
    }

    /// The fork that the feed has to have for it to be of use.
    pub(super) fn from(&self) -> u64 {
        self.from
    }

    pub(super) fn fork(&self) -> u64 {
        self.reorg.fork()
    }

    pub(super) fn want(&self) -> Option<&ReorgWant> {
        self.want.as_ref()
    }

    pub(super) async fn handle_proof(&mut self, feed: &Feed, proof: Proof) -> Result<bool, Error> {
        let is_of_use = self.reorg.handle_proof(proof)?;
        self.advance(feed).await?;
        Ok(is_of_use)
    }

    /// Takes the trees to differ from where nobody shows whether they do.
    pub(super) fn forgo(&mut self) {
        self.reorg.forgo();
        self.want = None;
    }

    pub(super) async fn commit(self, feed: &Feed) -> Result<Option<u64>, Error> {
        let Self { from, reorg, .. } = self;
        let Some(reorged) = reorg.finish() else { return Ok(None) };
        let mut turn = feed.lock().await;
        let update = {
            let state = feed.state();
            //= protocol-spec/06-feeds.md#reorgs
            if state.fork != from {
                return Ok(None);
            }
            Update {
                fork: reorged.fork(),
                tree: reorged.tree().clone(),
                signature: reorged.signature().clone(),
                verifier: reorged.verifier().or(state.verifier.as_ref()).cloned(),
                blocks: state.bitfield.without(&(reorged.common()..u64::MAX)),
                cut: Some(reorged.common()),
            }
        };
        let mut writes = feed.cut_writes(reorged.common());
        writes.extend(feed.writes(&update, reorged.nodes()));
        feed.commit_deletion(&mut turn, update, writes).await?;
        Ok(Some(reorged.common()))
    }

    /// Goes on until a peer is needed, or nothing more. Should the feed be truncated meanwhile, then what is
    /// read here is of no use, and the commit will see it.
    async fn advance(&mut self, feed: &Feed) -> Result<(), Error> {
        self.want = loop {
            match self.reorg.poll() {
                ReorgStep::Read(indexes) => {
                    self.reorg.handle_nodes(&feed.read_nodes(&indexes).await?);
                }
                ReorgStep::Ask(want) => break Some(want),
                ReorgStep::Done => break None,
            }
        };
        Ok(())
    }
}
