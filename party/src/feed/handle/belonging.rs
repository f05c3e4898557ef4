//! A feed and the store that it is of: word of changes, the end of the last handle, and the end of the feed.

use std::{
    any::Any,
    sync::{Arc, PoisonError, Weak, atomic::Ordering},
};

use super::{
    Feed, Inner,
    commit::{Turn, purge},
};
use crate::{
    error::{ApiMisuse, Error},
    feed::{
        changes::{FeedChange, Followers},
        identity::Identity,
        state::State,
        storage::{Slot, Span, Storage, Write},
        traffic::{Tally, Traffic},
    },
    key::{DiscoveryKey, KeyPair},
};

/// What a store is to the feeds that it opens.
pub(crate) trait Home: Send + Sync {
    /// A feed of it has changed.
    fn changed(&self, change: &FeedChange);

    /// Nobody holds the feed any more, and nothing of it is under way.
    fn left(&self, feed: &DiscoveryKey);
}

impl Feed {
    /// As [`create`](Self::create), for a store.
    pub(crate) async fn create_in(
        home: Arc<dyn Home>,
        storage: Arc<dyn Storage>,
        slot: Slot,
        identity: Identity,
    ) -> Result<Self, Error> {
        Self::open(Some(home), storage, slot, identity).await
    }

    /// Makes a feed that was read only so far the writer's, for all its handles.
    pub(crate) async fn adopt(&self, identity: Identity) -> Result<(), Error> {
        let verifier = identity.verifier()?;
        let Some(signer) = identity.signer else { return Ok(()) };
        let _turn = self.turn().await?;
        let mut state = self.inner.state.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.verifier.is_none() {
            state.verifier = verifier;
        }
        let _ = self.inner.signer.set(Box::new(signer));
        Ok(())
    }

    /// Deletes all that is stored of the feed, and carries out `records` along with it. From then on every use
    /// of it fails, but for [snapshots](Self::snapshot), which go on as they are.
    pub(crate) async fn purge(&self, mut records: Vec<Write>) -> Result<(), Error> {
        let mut turn = self.turn().await?;
        self.pin_snapshots().await?;
        records.push(Write::Clear(Span::Feed(self.inner.slot)));
        purge(self, &mut turn, records).await
    }

    /// Whether the feed was purged from its store.
    pub fn is_purged(&self) -> bool {
        self.inner.is_purged.load(Ordering::Acquire)
    }

    pub(super) fn check_purged(&self) -> Result<(), ApiMisuse> {
        if self.is_purged() { Err(ApiMisuse::Purged(self.discovery_key())) } else { Ok(()) }
    }

    /// The turn to change the feed, if there is still one.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, Error> {
        let turn = self.lock().await;
        self.check_purged()?;
        Ok(turn)
    }

    pub(crate) fn followers(&self) -> &Followers {
        &self.inner.followers
    }

    /// What has come from peers and gone to them since the feed was opened.
    pub fn traffic(&self) -> Traffic {
        self.inner.tally.total()
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.inner.tally
    }

    /// A thing that all share who deal with this feed on a floor above, which need not be known here: there is one
    /// of each type. It lives as long as somebody holds it.
    pub(crate) fn shared<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let mut places = self.inner.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let held = places.iter().filter_map(Weak::upgrade).find_map(|held| held.downcast::<T>().ok());
        held.unwrap_or_else(|| {
            let fresh = Arc::new(T::default());
            places.retain(|place| place.strong_count() > 0);
            let weak: Weak<T> = Arc::downgrade(&fresh);
            places.push(weak);
            fresh
        })
    }

    pub(super) fn signer(&self) -> Option<&KeyPair> {
        self.inner.signer.get().map(|signer| &**signer)
    }

    pub(super) fn figures(&self, state: &State) -> FeedChange {
        FeedChange {
            key: self.inner.key,
            discovery_key: self.inner.discovery_key,
            fork: state.fork,
            length: state.tree.length(),
            contiguous_length: state.bitfield.contiguous(),
        }
    }

    /// Tells those who want to know of every feed.
    pub(super) fn report(&self, change: &FeedChange) {
        if let Some(home) = &self.inner.home {
            home.changed(change);
        }
        self.inner.followers.each(|reports| reports.tell(change));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A commit that is still under way has to be waited for by who opens the feed next. What was purged
        // has left already, and another may be in its place.
        if let Some(home) = &self.home
            && !self.is_purged.load(Ordering::Acquire)
            && self.writing.get_mut().is_none()
        {
            home.left(&self.discovery_key);
        }
    }
}
