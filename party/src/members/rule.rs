//! The rules that stand in front of an app's.

use std::{fmt, sync::Arc};

use super::{Inner, deciding::NAME};
use crate::{
    credentials::{SHOW, SYNC},
    feed::Feed,
    key::{DiscoveryKey, FeedKey},
    peer::{Introduced, Message, Peer},
    rules::{Action, Decision, Denied, Question, Result, Rules},
};

/// An app's rules, for members by credential only. From [`Members::rule`](super::Members::rule).
///
/// The peer shows its membership, and accepts ours, before any of the inner rules is asked about it, and before the
/// app sees it. Requests of the two types of `protocol-spec/11-credentials.md` don't reach the inner rules; all others do as they are.
pub struct MembersOnly<R> {
    members: Arc<Inner>,
    rules: R,
}

impl<R> MembersOnly<R> {
    pub(super) fn new(members: Arc<Inner>, rules: R) -> Self {
        Self { members, rules }
    }

    /// Those of `feeds` of which the peer may bring blocks. What would not be accepted anyway isn't brought before rules that
    /// may keep it.
    fn bringable(&self, peer: &Peer, mut feeds: Vec<Introduced>) -> Vec<Introduced> {
        feeds.retain(|feed| {
            self.members.decide_for_peer(&Question::new(peer, feed.key, Action::Accept)).is_allowed()
        });
        feeds
    }
}

impl<R> fmt::Debug for MembersOnly<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MembersOnly").finish_non_exhaustive()
    }
}

impl<R: Rules> Rules for MembersOnly<R> {
    fn decide(&self, question: &Question<'_>) -> Decision {
        match self.members.decide_for_peer(question) {
            allowed if allowed.is_allowed() => allowed.and(self.rules.decide(question)),
            denied => denied,
        }
    }

    fn admit(&self, peer: &Peer) -> Decision {
        match self.members.admit(peer) {
            allowed if allowed.is_allowed() && self.members.is_member(peer) => {
                allowed.and(self.rules.admit(peer))
            }
            decision => decision,
        }
    }

    //= CRED-46, CRED-47
    async fn vet(&self, peer: &Peer) -> Result<()> {
        self.members.exchange(peer).await?;
        let decision = self.rules.admit(peer);
        if !decision.is_allowed() {
            self.members.refused_by_rules(peer);
            return Err(Denied::because(decision.to_string()));
        }
        self.members.begin_to_compare(peer).await;
        self.rules.vet(peer).await
    }

    async fn ready(&self, peer: &Peer) -> Result<()> {
        self.rules.ready(peer).await
    }

    async fn handshake(&self, peer: &Peer) -> Result<()> {
        self.rules.handshake(peer).await
    }

    async fn introduce_feeds(&self, peer: &Peer, keys: Vec<FeedKey>) -> Result<Vec<FeedKey>> {
        let feeds = keys.into_iter().map(Introduced::new).collect();
        Ok(self.introduce_labelled(peer, feeds).await?.into_iter().map(|feed| feed.key).collect())
    }

    async fn introduce_labelled(&self, peer: &Peer, feeds: Vec<Introduced>) -> Result<Vec<Introduced>> {
        self.members.admitted(peer).await?;
        self.rules.introduce_labelled(peer, self.bringable(peer, feeds)).await
    }

    async fn find_feed(&self, peer: &Peer, key: &DiscoveryKey) -> Result<Option<Feed>> {
        self.members.admitted(peer).await?;
        self.rules.find_feed(peer, key).await
    }

    async fn request(&self, peer: &Peer, message: Message) -> Result<Message> {
        match message.kind.as_str() {
            SHOW => self.members.answer_show(peer, &message.value).await,
            SYNC => self.members.answer_sync(peer, &message.value).await,
            _ => {
                self.members.admitted(peer).await?;
                self.rules.request(peer, message).await
            }
        }
    }

    async fn ephemeral(&self, peer: &Peer, message: Message) -> Result<()> {
        if message.kind == SHOW || message.kind == SYNC {
            return Err(Denied::because(format!("{NAME}: {} is to be a request", message.kind)));
        }
        self.members.admitted(peer).await?;
        self.rules.ephemeral(peer, message).await
    }
}
