//! The app that the honest peers run: whoever belongs to a circle brings and keeps all feeds of the circle.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use party::{
    feed::Feed,
    key::{DiscoveryKey, FeedKey},
    peer::Peer,
    rules::{self, Decision, Denied, Question, Rules},
    store::Store,
};

use super::{Sabotage, checker::Checker, directory::Directory};

const NAME: &str = "circle";

/// The rules of one life of one peer. Cheap to clone.
///
/// A peer begins with its own feed and learns of the others as its neighbours introduce them; what it learns from one it
/// introduces to the others, so that a feed comes to those who aren't linked with its writer. Of other circles it
/// knows the members, by their static keys, and gives and takes nothing.
#[derive(Clone)]
pub(super) struct Circle {
    inner: Arc<Inner>,
}

struct Inner {
    me: usize,
    directory: Arc<Directory>,
    checker: Arc<Checker>,
    store: Store,
    sabotage: Option<Sabotage>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By their writers.
    feeds: BTreeMap<usize, Feed>,
    /// Those of the circle that are connected.
    peers: Vec<Peer>,
}

impl Circle {
    /// The circle of `me`, with what its store has of it.
    pub(super) async fn open(
        me: usize,
        directory: Arc<Directory>,
        checker: Arc<Checker>,
        store: Store,
        sabotage: Option<Sabotage>,
    ) -> Result<Self, party::error::Error> {
        let mut state = State::default();
        for entry in store.list().await? {
            if let Some(writer) = directory.writer(&entry.key) {
                state.feeds.insert(writer, store.feed(&entry.key).await?);
            }
        }
        let state = Mutex::new(state);
        Ok(Self { inner: Arc::new(Inner { me, directory, checker, store, sabotage, state }) })
    }

    pub(super) fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The feed of `writer`, if it was heard of.
    pub(super) fn feed(&self, writer: usize) -> Option<Feed> {
        self.state().feeds.get(&writer).cloned()
    }

    /// How many feeds are here.
    pub(super) fn feeds(&self) -> usize {
        self.state().feeds.len()
    }

    /// Someone to whom feeds are brought, as they become known.
    fn remember(&self, peer: &Peer) {
        let mut state = self.state();
        state.peers.retain(|peer| !peer.is_closed());
        state.peers.push(peer.clone());
    }

    fn keys(&self) -> Vec<FeedKey> {
        self.state().feeds.values().map(Feed::key).collect()
    }

    /// Whether feeds are shared with a peer.
    fn shares(&self, peer: &Peer) -> bool {
        if self.inner.sabotage == Some(Sabotage::OpenRules) {
            return true;
        }
        let other = self.inner.directory.peer(&peer.remote_public_key());
        other.is_some_and(|other| self.inner.directory.share(self.inner.me, other))
    }

    /// Whether a feed is one of the circle's.
    fn is_ours(&self, feed: &FeedKey) -> bool {
        let writer = self.inner.directory.writer(feed);
        if self.inner.sabotage == Some(Sabotage::OpenRules) {
            return writer.is_some();
        }
        let is_deaf = |writer| {
            let Inner { me, sabotage, .. } = *self.inner;
            sabotage == Some(Sabotage::DeafApp) && me == 1 && writer == 0
        };
        writer.is_some_and(|writer| self.inner.directory.may_have(self.inner.me, writer) && !is_deaf(writer))
    }

    /// Takes up feeds that were introduced, and tells all others of what is new.
    async fn learn(&self, keys: Vec<FeedKey>) -> rules::Result<()> {
        let mut new = Vec::new();
        for key in keys {
            if !self.is_ours(&key) {
                self.inner.checker.refused();
                continue;
            }
            let Some(writer) = self.inner.directory.writer(&key) else { continue };
            if self.feed(writer).is_some() {
                continue;
            }
            let feed = self.inner.store.feed(&key).await?;
            self.state().feeds.insert(writer, feed.clone());
            new.push(feed);
        }
        if !new.is_empty() {
            let peers = self.state().peers.clone();
            for peer in peers {
                // Each in its own time: one that doesn't answer keeps nobody waiting.
                tokio::spawn(self.clone().bring(peer, new.clone()));
            }
        }
        Ok(())
    }

    /// Brings feeds to a peer, which may be gone by then.
    async fn bring(self, peer: Peer, feeds: Vec<Feed>) {
        // What it answers, it has introduced before.
        let _ = peer.introduce_feeds(feeds.iter().map(Feed::key)).await;
        for feed in &feeds {
            let _ = peer.replicate(feed).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rules for Circle {
    fn admit(&self, peer: &Peer) -> Decision {
        self.inner.checker.admitted(self.inner.me, &peer.remote_public_key());
        Decision::allow(NAME, "whoever knows the key of the party is a member")
    }

    fn decide(&self, question: &Question<'_>) -> Decision {
        if self.shares(question.peer) && self.is_ours(&question.feed) {
            Decision::allow(NAME, "it is of the circle")
        } else {
            Decision::deny(NAME, "it is of another circle")
        }
    }

    async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
        if !self.shares(peer) {
            return Ok(());
        }
        self.remember(peer);
        let theirs = peer.introduce_feeds(self.keys()).await?;
        self.learn(theirs).await?;
        let feeds: Vec<Feed> = self.state().feeds.values().cloned().collect();
        for feed in feeds {
            peer.replicate(&feed).await?;
        }
        Ok(())
    }

    async fn introduce_feeds(&self, peer: &Peer, keys: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        if !self.shares(peer) {
            self.inner.checker.refused();
            return Err(Denied::because("the peer is of another circle"));
        }
        self.learn(keys).await?;
        Ok(self.keys())
    }

    async fn find_feed(&self, peer: &Peer, key: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        let writer = self.inner.directory.writer_by_discovery_key(key);
        let feed = writer.and_then(|writer| self.feed(writer)).filter(|_| self.shares(peer));
        if feed.is_none() {
            self.inner.checker.refused();
        }
        Ok(feed)
    }
}
