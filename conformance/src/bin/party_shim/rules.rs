//! The rules of a shim: they tell of each question, and answer as they were told to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use party::{
    feed::Feed,
    key::{DiscoveryKey, FeedKey},
    peer::{Introduced, Message, Peer, Replicate},
    rules::{self, Denied, Rules},
};

use crate::{hex, tell};

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Allow,
    Deny,
    Hang,
}

impl Manner {
    pub(crate) fn named(word: &str) -> Option<Self> {
        match word {
            "allow" => Some(Self::Allow),
            "deny" => Some(Self::Deny),
            "hang" => Some(Self::Hang),
            _ => None,
        }
    }
}

/// Rules of one party, as told by commands. Shared with who gives them.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// What the party is called.
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    /// The shim opens the channels of these.
    pub(crate) released: Vec<Feed>,
    /// And answers opens of these.
    pub(crate) permitted: Vec<Feed>,
    pub(crate) manners: HashMap<String, Manner>,
    /// What introductions are answered with.
    pub(crate) brings: Vec<Introduced>,
}

impl Told {
    pub(crate) fn new(name: &str) -> Self {
        Self(Arc::new(Inner { name: name.to_owned(), state: Mutex::default() }))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn act(&self, rule: &str) -> rules::Result<()> {
        let manner = self.state().manners.get(rule).copied();
        match manner {
            None | Some(Manner::Allow) => Ok(()),
            Some(Manner::Deny) => Err(Denied::because("told to")),
            Some(Manner::Hang) => std::future::pending().await,
        }
    }
}

impl Rules for Told {
    async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
        self.act("handshake").await?;
        let released = self.state().released.clone();
        for feed in released {
            peer.replicate_as(&feed, Replicate::sparsely()).await?;
        }
        Ok(())
    }

    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        // The other one is asked.
        Err(Denied::because("never asked"))
    }

    async fn introduce_labelled(&self, _: &Peer, feeds: Vec<Introduced>) -> rules::Result<Vec<Introduced>> {
        tell(format_args!("introduction {}{}", self.0.name, described(&feeds)));
        self.act("introduce").await?;
        Ok(self.state().brings.clone())
    }

    async fn find_feed(&self, _: &Peer, key: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        tell(format_args!("find {} {key}", self.0.name));
        self.act("find").await?;
        let state = self.state();
        let mut all = state.released.iter().chain(&state.permitted);
        Ok(all.find(|feed| feed.discovery_key() == *key).cloned())
    }

    async fn request(&self, _: &Peer, message: Message) -> rules::Result<Message> {
        let (name, kind) = (&self.0.name, hex(message.kind.as_bytes()));
        tell(format_args!("request {name} {kind} {}", hex(&message.value)));
        self.act("request").await?;
        let reversed: Vec<u8> = message.value.iter().rev().copied().collect();
        Ok(Message::new(message.kind, reversed))
    }

    async fn ephemeral(&self, _: &Peer, message: Message) -> rules::Result<()> {
        let (name, kind) = (&self.0.name, hex(message.kind.as_bytes()));
        tell(format_args!("ephemeral {name} {kind} {}", hex(&message.value)));
        self.act("ephemeral").await
    }
}

/// Feeds as words, each with a space before it.
pub(crate) fn described(feeds: &[Introduced]) -> String {
    let words = feeds.iter().map(|feed| match &feed.label {
        None => format!(" {}", feed.key),
        Some(label) => format!(" {}={}", feed.key, hex(label.as_bytes())),
    });
    words.collect()
}
