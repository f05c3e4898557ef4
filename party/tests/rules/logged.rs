//! What the rules refuse is told to the log, with the rule that decided and its reason.

use crate::common::{
    Behaviour, Shared, feed_with, log::Log, meet, membership::settle, one_feed, party_key, peer_added,
};
use party::{
    feed::Feed,
    key::{DiscoveryKey, FeedKey},
    party::Party,
    peer::{Peer, Replicate},
    rules::{self, Action, AllowPeers, Decision, Question, Rules},
    store::Store,
};

/// Releases a feed and denies one action.
#[derive(Clone)]
struct Denies(Feed, Action);

impl Rules for Denies {
    async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
        peer.replicate_as(&self.0, Replicate::sparsely()).await?;
        Ok(())
    }
    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(vec![self.0.key()])
    }
    async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(None)
    }
    fn decide(&self, question: &Question<'_>) -> Decision {
        match question.action == self.1 {
            true => Decision::deny("doorman", "it is past midnight"),
            false => Decision::allow("doorman", "come in"),
        }
    }
}

//= PARTY-98
#[tokio::test(start_paused = true)]
async fn what_is_denied_for_a_feed_is_logged_with_rule_and_reason() {
    for action in [Action::Introduce, Action::Serve, Action::Ask, Action::Accept] {
        let log = Log::default();
        let _guard = log.start();
        let feed = one_feed::written(1).await;
        let strict = Party::new(party_key(1), Denies(feed.clone(), action));
        let other = Party::new(party_key(1), Shared::default());
        let mut events = other.events();
        let _connections = meet(&other, &strict).await;
        // Its answer would introduce the feed.
        peer_added(&mut events).await.introduce_feeds([FeedKey::from_bytes([1; 32])]).await.unwrap();
        settle().await;
        let key = feed.discovery_key().to_string();
        let words =
            ["INFO", "refused by the rules", &key, &format!("action={action}"), "doorman", "past midnight"];
        assert!(log.says(&words), "{action}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_not_admitted_is_logged_with_rule_and_reason() {
    let log = Log::default();
    let _guard = log.start();
    let strict = Party::new(party_key(1), Shared::default().guarded_by(AllowPeers::new([])));
    let _connections = meet(&Party::new(party_key(1), Shared::default()), &strict).await;
    settle().await;
    assert!(log.says(&["INFO", "not admitted by the rules", "the peer is not on the list"]));
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_refuses_and_a_feed_that_nobody_releases_are_logged() {
    let log = Log::default();
    let _guard = log.start();
    let rules = Shared::default();
    *rules.0.on_introduce.lock().unwrap() = Some(Behaviour::Deny);
    let (asking, answering) =
        (Party::new(party_key(1), Shared::default()), Party::new(party_key(1), rules.clone()));
    let mut events = asking.events();
    let _connections = meet(&asking, &answering).await;
    let peer = peer_added(&mut events).await;
    peer.introduce_feeds([FeedKey::from_bytes([1; 32])]).await.unwrap_err();
    assert!(log.says(&["WARN", "a rule failed", "the test denies"]));

    let feed = feed_with(&Store::memory(), "kept", &["a"]).await;
    peer.replicate(&feed).await.unwrap();
    settle().await;
    let key = feed.discovery_key().to_string();
    assert!(log.says(&["DEBUG", "nobody releases", &key]));
}
