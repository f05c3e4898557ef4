//! Whether there is more of a feed than is known here.

use std::time::Duration;

use super::link::{LinkState, Links};
use crate::{
    error::{ApiMisuse, Error},
    feed::Feed,
};

/// How [`Feed::update_with`] goes about it.
///
/// ```
/// use std::time::Duration;
/// use party::peer::UpdateOptions;
///
/// let options = UpdateOptions::default();
/// assert!(options.timeout.is_none() && !options.wait_for_peer);
/// let options = UpdateOptions::within(Duration::from_secs(5)).waiting_for_a_peer();
/// assert!(options.wait_for_peer);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpdateOptions {
    /// For how long to wait at most; `None`, the default, for as long as it takes.
    pub timeout: Option<Duration>,
    /// Whether to wait for a first peer if there is none. By default nothing is waited for then.
    pub wait_for_peer: bool,
}

impl UpdateOptions {
    /// Waits for so long at most.
    pub fn within(timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..Self::default() }
    }

    /// Waits for a first peer if there is none.
    #[must_use]
    pub fn waiting_for_a_peer(self) -> Self {
        Self { wait_for_peer: true, ..self }
    }
}

impl Feed {
    /// Finds out whether peers have more of the feed, without an end: see [`update_with`](Self::update_with).
    ///
    /// # Errors
    /// As [`update_with`](Self::update_with).
    pub async fn update(&self) -> Result<bool, Error> {
        self.update_with(UpdateOptions::default()).await
    }

    /// Waits until every peer that the feed is replicated with has said how long its copy is, and what that adds to
    /// ours is verified; returns whether the feed has grown, or changed its fork, since the call. It is about the tree, not about
    /// blocks. Replicating, a feed grows by itself; this is for who has just connected and wants to know where it stands. A
    /// peer that has refused the feed, fails, is [suspended](super::Link::suspend) or goes away is not waited
    /// for. Without any peer the answer is `false`, at once.
    ///
    /// Nothing is lost when this is dropped before it is done.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// # let identity = Identity::reader([7; 32].into());
    /// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
    /// assert!(!feed.update().await?); // nobody is there
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`] if it has not grown and somebody has not answered in time; [`ApiMisuse::Purged`].
    pub async fn update_with(&self, options: UpdateOptions) -> Result<bool, Error> {
        let before = self.extent();
        let answered = async {
            let links = self.shared::<Links>();
            let mut changes = links.changes();
            loop {
                if self.is_purged() {
                    return Err(ApiMisuse::Purged(self.discovery_key()).into());
                }
                changes.catch_up();
                let statuses: Vec<_> = links.list().values().map(super::Link::status).collect();
                let waits = statuses.iter().any(|link| link.is_updating && !link.is_suspended);
                let anybody = statuses.iter().any(|link| link.state == LinkState::Open);
                if !waits && (anybody || !options.wait_for_peer) {
                    return Ok(());
                }
                if !changes.heard().await {
                    return Ok(());
                }
            }
        };
        let ended = match options.timeout {
            Some(timeout) => tokio::time::timeout(timeout, answered).await.unwrap_or(Err(Error::Timeout)),
            None => answered.await,
        };
        match ended {
            Err(Error::Timeout) if self.extent() != before => Ok(true),
            ended => ended.map(|()| self.extent() != before),
        }
    }

    fn extent(&self) -> (u64, u64) {
        self.with_local(|local| (local.fork(), local.length()))
    }
}
