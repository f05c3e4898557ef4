//! The reorgs of a feed, on which all peers work together.

use std::sync::PoisonError;

use super::{Feed, reorg::Course};
use crate::{
    error::Error,
    feed::{proof::Proof, reorg::PendingReorg},
};

/// Reorgs under way at a time. Each leads to a fork that the feed's signers have signed, so there are rarely two;
/// but a peer that shows an old one and then answers nothing more must not stand in the way of another.
const MAX_COURSES: usize = 8;

/// The reorgs of a feed that are under way, the one that was last gone on with last.
#[derive(Debug, Default)]
pub(super) struct Courses(tokio::sync::Mutex<Vec<Course>>);

/// What came of a proof of a higher fork that [`Feed::follow`] was given.
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// use party::feed::{Followed, Local as _, proof::{ProofRequest, UpgradeRequest}};
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
/// writer.append_batch(vec!["a".into(), "b".into(), "c".into()]).await?;
/// reader.ingest(vec![writer.prove(all(3), 0).await?.unwrap()]).await.remove(0)?;
/// writer.truncate(2).await?;
/// writer.append("d").await?;
///
/// let mut followed = reader.follow(writer.prove(all(3), 1).await?.unwrap()).await?;
/// while followed == Followed::Further {
///     // Any peer that has fork 1 may be asked.
///     let want = reader.with_local(|local| local.reorg(1).cloned()).expect("it is under way").want;
///     let proof = writer.prove(want.request(want.blocks().start), 1).await?.unwrap();
///     followed = reader.follow(proof).await?;
/// }
/// assert_eq!(followed, Followed::Arrived { common: 2 });
/// assert_eq!(reader.info().fork, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It brought the reorg to its fork further, which needs more proofs.
    Further,
    /// The feed has gone to the fork of the proof.
    Arrived {
        /// Blocks that are as they were; the others were dropped.
        common: u64,
    },
    /// It brought nothing: it came too late, or another peer's was there first.
    Stale,
}

impl Feed {
    /// Takes a peer's proof of a fork above the feed's: an upgrade from 0, with which a reorg begins, or an
    /// answer to what a [reorg under way](crate::feed::Local::reorg) wants. Proofs of different peers come together in
    /// one reorg. The feed stays as it is until all is known; then it changes in one commit.
    ///
    /// [`reorg`](Self::reorg) is the same for who has one peer and drives it alone.
    ///
    /// # Errors
    /// [`PeerMisbehaved`](crate::error::PeerMisbehaved) if the proof does not hold or the feed's writer has not
    /// signed it; or why something could not be read or stored.
    pub async fn follow(&self, proof: Proof) -> Result<Followed, Error> {
        self.check_purged()?;
        let mut courses = self.inner.courses.0.lock().await;
        let fork = self.info().fork;
        courses.retain(|course| course.from() == fork);
        let place = courses.iter().position(|course| course.fork() == proof.fork);
        let mut followed = Followed::Stale;
        match place.and_then(|place| Some((place, courses.get_mut(place)?))) {
            // Another peer's proof of the same was first.
            Some(_) if proof.upgrade.is_some() => {}
            Some((place, course)) => {
                if course.handle_proof(self, proof).await? {
                    let course = courses.remove(place);
                    courses.push(course);
                    followed = Followed::Further;
                }
            }
            None => {
                if let Some(course) = Course::begin(self, proof).await? {
                    if courses.len() >= MAX_COURSES {
                        courses.remove(0);
                    }
                    courses.push(course);
                    followed = Followed::Further;
                }
            }
        }
        self.advance(&mut courses, fork, followed).await
    }

    /// Goes on with a [reorg under way](crate::feed::Local::reorg) without what it wants, as no peer can show it: from
    /// there on, the feed's tree is taken to differ from the new one, and its blocks are dropped. Nothing is done if it
    /// wants something else by now.
    ///
    /// A writer that has cleared blocks has no more than a hash over many of them, and can't show where in
    /// between its tree parts from another.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
    /// # use party::key::KeyPair;
    /// use party::feed::{Followed, Local as _, proof::{ProofRequest, UpgradeRequest}};
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
    /// writer.append_batch(vec!["a".into(), "b".into(), "c".into(), "d".into()]).await?;
    /// reader.ingest(vec![writer.prove(all(4), 0).await?.unwrap()]).await.remove(0)?;
    /// writer.truncate(3).await?;
    /// writer.append("e").await?;
    ///
    /// reader.follow(writer.prove(all(4), 1).await?.unwrap()).await?;
    /// let pending = reader.with_local(|local| local.reorg(1).cloned()).expect("it is under way");
    /// assert_eq!(reader.forgo(&pending).await?, Followed::Arrived { common: 0 });
    /// assert_eq!(reader.info().fork, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why something could not be read or stored.
    //= protocol-spec/07-replication.md#forks
    pub async fn forgo(&self, pending: &PendingReorg) -> Result<Followed, Error> {
        self.check_purged()?;
        let mut courses = self.inner.courses.0.lock().await;
        let fork = self.info().fork;
        courses.retain(|course| course.from() == fork);
        let wants = |course: &&mut Course| {
            course.fork() == pending.fork && course.want().is_some_and(|want| *want == pending.want)
        };
        let followed = match courses.iter_mut().find(wants) {
            Some(course) => {
                course.forgo();
                Followed::Further
            }
            None => Followed::Stale,
        };
        self.advance(&mut courses, fork, followed).await
    }

    /// Goes to the fork to which the way is known, if there is one.
    async fn advance(
        &self,
        courses: &mut Vec<Course>,
        fork: u64,
        followed: Followed,
    ) -> Result<Followed, Error> {
        let complete = courses.iter().position(|course| course.want().is_none());
        let complete = complete.map(|place| courses.remove(place));
        self.publish(courses, fork);
        if let Some(course) = complete {
            return Ok(match course.commit(self).await? {
                Some(common) => {
                    courses.clear();
                    Followed::Arrived { common }
                }
                None => Followed::Stale,
            });
        }
        if followed == Followed::Further {
            // Other peers may be able to show what is wanted now.
            self.stir();
        }
        Ok(followed)
    }

    /// Lets everybody see what is wanted from `fork` on.
    fn publish(&self, courses: &[Course], fork: u64) {
        let pending = courses
            .iter()
            .filter_map(|course| Some(PendingReorg { fork: course.fork(), want: course.want()?.clone() }))
            .collect();
        let mut state = self.inner.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.fork == fork {
            state.reorgs = pending;
        }
    }
}
