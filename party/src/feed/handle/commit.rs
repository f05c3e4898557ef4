//! One step after the other: how a feed is changed.
//!
//! A step is worked out, stored, and then applied to what is in memory. The turn to do so is a lock; a step
//! whose caller goes away while it is being stored is finished by whoever takes the next turn.

use std::{
    ops::Range,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use bytes::{Bytes, BytesMut};
use futures_util::future::{FutureExt as _, Shared};
use tokio::sync::MutexGuard;

use super::{Feed, together::Reply};
use crate::{
    error::{Error, StorageError},
    feed::{
        demand::Stored,
        proof::Node,
        state::{State, Update, encode_node},
        storage::{Completion, Key, Write},
    },
};

/// A commit that was handed to the storage, and the step that follows when it has ended.
pub(super) struct Pending {
    /// One commit may be a step of several feeds.
    commit: Shared<Completion<()>>,
    /// `None` where only records were written.
    update: Option<Update>,
    deletes: bool,
    /// Whether nothing is left of the feed.
    purges: bool,
    /// Those who wait for blocks of their own, and the indexes of these.
    replies: Vec<(Reply, Range<u64>)>,
}

/// The turn to change a feed.
pub(super) type Turn<'a> = MutexGuard<'a, Option<Pending>>;

impl Feed {
    /// Waits for the turn to write, and for the end of a commit that nobody waits for.
    pub(super) async fn lock(&self) -> Turn<'_> {
        let mut turn = self.inner.writing.lock().await;
        // Who made it is gone; if it failed, nothing was stored and nothing changes.
        let _ = self.settle(&mut turn).await;
        turn
    }

    /// Stores and then takes a step that adds to the feed.
    pub(super) async fn commit<'f>(
        &'f self,
        turn: &mut Turn<'f>,
        update: Update,
        writes: Vec<Write>,
    ) -> Result<(), Error> {
        commit_all(
            vec![Step { feed: self, turn, update: Some(update), deletes: false, replies: vec![] }],
            writes,
        )
        .await
    }

    /// Stores and then takes a step that deletes something. Snapshots get hold of it before.
    pub(super) async fn commit_deletion<'f>(
        &'f self,
        turn: &mut Turn<'f>,
        update: Update,
        writes: Vec<Write>,
    ) -> Result<(), Error> {
        self.pin_snapshots().await?;
        commit_all(
            vec![Step { feed: self, turn, update: Some(update), deletes: true, replies: vec![] }],
            writes,
        )
        .await
    }

    /// Sees a commit to its end, then takes the step.
    async fn settle(&self, turn: &mut Turn<'_>) -> Result<(), StorageError> {
        let Some(pending) = &mut **turn else { return Ok(()) };
        let result = (&mut pending.commit).await;
        let Some(Pending { update, deletes, purges, replies, .. }) = turn.take() else { return result };
        let (mut change, mut stored) = (None, None);
        if result.is_ok() {
            if let Some(length) = update.as_ref().and_then(|update| update.cut) {
                self.note_cut(length);
            }
            let mut state = self.inner.state.write().unwrap_or_else(PoisonError::into_inner);
            let before = self.figures(&state);
            if let Some(mut update) = update {
                stored = Some(Stored {
                    next: before.contiguous_length..update.blocks.contiguous(),
                    scattered: update.blocks.take_scattered(),
                    received: update.blocks.take_received(),
                    length: update.tree.length(),
                });
                state.apply(update);
                state.deletions = state.deletions.wrapping_add(deletes.into());
                change = Some(self.figures(&state)).filter(|after| *after != before);
            }
            if purges {
                *state = State { verifier: state.verifier.take(), ..State::default() };
                self.inner.is_purged.store(true, Ordering::Release);
            }
        }
        if deletes {
            self.inner.deleting.fetch_add(1, Ordering::AcqRel);
        }
        if result.is_ok() {
            self.inner.demands.notify(stored);
        }
        if let Some(change) = change {
            self.report(&change);
        }
        for (reply, indexes) in replies {
            let _ = reply.send(result.clone().map(|()| indexes).map_err(Error::from));
        }
        if purges && result.is_ok() {
            self.followers().each(|reports| reports.retract(&self.inner.discovery_key));
            self.lines().wake();
        }
        result
    }

    /// What is written of a feed with every step: its head, the pages that change, and `nodes`.
    pub(super) fn writes(&self, update: &Update, nodes: &[Node]) -> Vec<Write> {
        let slot = self.inner.slot;
        let head = self.state().head(update).encode();
        let mut writes = vec![Write::Put(Key::Head(slot), head)];
        writes.extend(update.blocks.pages().map(|(n, page)| match page {
            Some(page) => Write::Put(Key::Page(slot, n), page),
            None => Write::Delete(Key::Page(slot, n)),
        }));
        let mut encoded = BytesMut::with_capacity(nodes.len() * 41);
        writes.extend(nodes.iter().map(|node| {
            encode_node(node, &mut encoded);
            Write::Put(self.node_key(node.index), encoded.split().freeze())
        }));
        writes
    }

    /// `blocks` put in their places from `start` on.
    pub(super) fn block_writes(
        &self,
        start: u64,
        blocks: impl IntoIterator<Item = Bytes>,
    ) -> impl Iterator<Item = Write> {
        let slot = self.inner.slot;
        (start..).zip(blocks).map(move |(index, block)| Write::Put(Key::Block(slot, index), block))
    }

    /// Waits until nothing is being deleted. What is read while the number that this gives
    /// [stands](Self::is_unchanged) is of one state.
    pub(super) async fn undisturbed(&self) -> u64 {
        loop {
            let deleting = self.inner.deleting.load(Ordering::Acquire);
            if deleting.is_multiple_of(2) {
                return deleting;
            }
            drop(self.lock().await);
        }
    }

    /// Whether nothing was deleted since [`undisturbed`](Self::undisturbed) gave `before`.
    pub(super) fn is_unchanged(&self, before: u64) -> bool {
        self.inner.deleting.load(Ordering::Acquire) == before
    }
}

/// What a commit is to one of the feeds that it changes.
pub(super) struct Step<'s, 'f> {
    pub(super) feed: &'f Feed,
    pub(super) turn: &'s mut Turn<'f>,
    pub(super) update: Option<Update>,
    pub(super) deletes: bool,
    pub(super) replies: Vec<(Reply, Range<u64>)>,
}

/// Stores `writes` as one, then takes the step of every feed in `steps`, which is not empty.
pub(super) async fn commit_all(steps: Vec<Step<'_, '_>>, writes: Vec<Write>) -> Result<(), Error> {
    let Some(first) = steps.first() else { return Ok(()) };
    for step in &steps {
        step.feed.check_purged()?;
    }
    for step in steps.iter().filter(|step| step.deletes) {
        step.feed.inner.deleting.fetch_add(1, Ordering::AcqRel);
    }
    let commit = first.feed.inner.storage.commit(writes).shared();
    let mut abandoned = Abandoned { feeds: steps.iter().map(|step| step.feed).collect() };
    let mut turns = Vec::with_capacity(steps.len());
    for Step { feed, turn, update, deletes, replies } in steps {
        **turn = Some(Pending { commit: commit.clone(), update, deletes, purges: false, replies });
        turns.push((feed, turn));
    }
    let mut result = Ok(());
    for (feed, turn) in turns {
        result = feed.settle(turn).await;
    }
    abandoned.feeds.clear();
    Ok(result?)
}

/// Stores `writes`, which leave nothing of the feed, and then ends it.
pub(super) async fn purge<'f>(feed: &'f Feed, turn: &mut Turn<'f>, writes: Vec<Write>) -> Result<(), Error> {
    feed.inner.deleting.fetch_add(1, Ordering::AcqRel);
    let commit = feed.inner.storage.commit(writes).shared();
    let mut abandoned = Abandoned { feeds: vec![feed] };
    **turn = Some(Pending { commit, update: None, deletes: true, purges: true, replies: vec![] });
    let result = feed.settle(turn).await;
    abandoned.feeds.clear();
    Ok(result?)
}

/// Stands guard while a commit is waited for. If the waiting is given up, it lets somebody else do it, so
/// that the feeds need not wait for their next write to show what was stored.
struct Abandoned<'a> {
    feeds: Vec<&'a Feed>,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        for feed in self.feeds.drain(..) {
            let feed = Feed { inner: Arc::clone(&feed.inner), key: None };
            runtime.spawn(async move { drop(feed.lock().await) });
        }
    }
}
