//! What is the app's to say, what it hears of, and how many of its rules run in a connection's own task.

use std::{collections::BTreeMap, future::IntoFuture as _, sync::Arc, time::Duration};

use crate::common::{Shared, feed_with, identity, meet, party_key, peer_added, until};
use futures_util::future::try_join_all;
use party::{
    connection::{self, Connection},
    error::{ApiMisuse, Error},
    feed::{Feed, Utf8},
    key::{DiscoveryKey, FeedKey},
    limits::Limits,
    party::{Event, Party, Rule, RuleFailure},
    peer::{Message, Peer},
    rules::{self, Rules},
    store::Store,
};
use tokio::sync::Notify;

fn party_of(rules: impl Rules) -> Party {
    Party::new(party_key(1), rules)
}

/// Answers every request with a message of this kind, whose value is the task that it ran on.
struct Answering(&'static str);

impl Rules for Answering {
    async fn handshake(&self, _: &Peer) -> rules::Result<()> {
        Ok(())
    }

    async fn introduce_feeds(&self, _: &Peer, keys: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(keys)
    }

    async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(None)
    }

    async fn request(&self, _: &Peer, _: Message) -> rules::Result<Message> {
        Ok(Message::new(self.0, tokio::task::id().to_string()))
    }
}

//= PARTY-73
#[tokio::test(start_paused = true)]
async fn kinds_that_begin_with_party_are_not_the_apps_to_say() {
    let rules = Shared::default();
    let (here, there) = (party_of(Shared::default()), party_of(rules.clone()));
    let mut events = here.events();
    let _connections = meet(&here, &there).await;
    let peer = peer_added(&mut events).await;

    let is_refused = |error: Error| matches!(error, Error::ApiMisuse(ApiMisuse::ReservedKind(kind)) if kind == "party/news");
    assert!(is_refused(peer.request("party/news", "").await.unwrap_err()));
    assert!(is_refused(peer.send_ephemeral("party/news", "").await.unwrap_err()));
    assert!(is_refused(here.broadcast("party/news", "").await.unwrap_err()));
    let extension = here.extension("party/news", Utf8);
    assert!(is_refused(extension.send(&peer, &String::new()).await.unwrap_err()));
    assert!(is_refused(extension.broadcast(&String::new()).await.unwrap_err()));
    let said = peer.messages();
    assert_eq!((said.requests_sent, said.ephemeral_sent), (0, 0));

    // Only what begins with it.
    assert!(peer.send_ephemeral("party", "").await.unwrap());
    peer.request("a party/", "").await.unwrap();
    assert_eq!(rules.0.ephemeral.lock().unwrap().len(), 1);
}

//= PARTY-73
#[tokio::test(start_paused = true)]
async fn an_answer_of_a_kind_that_is_not_the_apps_is_a_rule_that_failed() {
    let (here, there) = (party_of(Shared::default()), party_of(Answering("party/news")));
    let (mut asker, mut events) = (here.events(), there.events());
    let _connections = meet(&here, &there).await;
    let peer = peer_added(&mut asker).await;
    assert!(matches!(peer.request("news", "").await, Err(Error::Refused)));
    let failed = until(&mut events, |event| match event {
        Event::RuleFailed { rule, failure, .. } => Some((rule, failure)),
        _ => None,
    });
    assert_eq!(failed.await, (Rule::Request, RuleFailure::ReservedKind("party/news".into())));
}

#[tokio::test(start_paused = true)]
async fn an_app_hears_of_introductions_on_both_sides_and_of_a_release_before_the_feed_is_open() {
    let (store, rules) = (Store::memory(), Shared::default());
    let feed = feed_with(&store, "notes", &["one"]).await;
    let (here, there) = (party_of(Shared::default()), party_of(rules.clone()));
    let (mut ours, mut theirs) = (here.events(), there.events());
    let _connections = meet(&here, &there).await;
    let peer = peer_added(&mut ours).await;

    let introduced = |event: Event| match event {
        Event::FeedsIntroduced { peer, count } => Some((peer.remote_public_key(), count)),
        _ => None,
    };
    assert_eq!(peer.introduce_feeds([feed.key(), FeedKey::from_bytes([1; 32])]).await.unwrap().len(), 2);
    assert_eq!(until(&mut theirs, introduced).await, (identity(1).public(), 2));
    assert_eq!(until(&mut ours, introduced).await, (identity(2).public(), 2));

    rules.0.released.lock().unwrap().push(feed.clone());
    assert!(peer.release(&feed).await.unwrap());
    assert!(!peer.release(&feed).await.unwrap());
    let steps = |event: Event| match event {
        Event::FeedReleased { feed, .. } => Some(("released", feed)),
        Event::FeedOpened { feed, .. } => Some(("opened", feed)),
        _ => None,
    };
    for events in [&mut ours, &mut theirs] {
        let told = [until(events, steps).await, until(events, steps).await];
        assert_eq!(told, [("released", feed.discovery_key()), ("opened", feed.discovery_key())]);
    }
}

/// Lets nobody in before it is told to.
#[derive(Clone)]
struct Vetting(Arc<Notify>);

impl Rules for Vetting {
    async fn vet(&self, _: &Peer) -> rules::Result<()> {
        self.0.notified().await;
        Ok(())
    }

    async fn handshake(&self, _: &Peer) -> rules::Result<()> {
        Ok(())
    }

    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(Vec::new())
    }

    async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(None)
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_hears_of_introductions_once_it_sees_who_has_made_them() {
    let vetting = Vetting(Arc::default());
    let (here, there) = (party_of(Shared::default()), party_of(vetting.clone()));
    let (mut ours, mut theirs) = (here.events(), there.events());
    let _connections = meet(&here, &there).await;
    let peer = peer_added(&mut ours).await;
    for n in 1..4 {
        peer.introduce_feeds((0..n).map(|n| FeedKey::from_bytes([n; 32]))).await.unwrap();
    }
    vetting.0.notify_one();
    let told = [theirs.next().await.unwrap(), theirs.next().await.unwrap()];
    assert!(matches!(&told, [Event::PeerAdded(_), Event::FeedsIntroduced { count: 6, .. }]), "{told:?}");
}

/// Tasks that ten requests, asked at once, were answered in, and how many were in each.
async fn tasks_that_answer(max_rules_in_line: usize) -> Vec<usize> {
    let limits = Limits { max_rules_in_line, ..Limits::default() };
    let (here, there) = (party_of(Shared::default()), party_of(Answering("task")));
    let mut events = here.events();
    let (left, right) = connection::memory();
    let _connections = tokio::try_join!(
        Connection::dial(left, &identity(1)).join(&here).into_future(),
        Connection::accept(right, &identity(2)).join(&there).limits(limits).into_future(),
    )
    .unwrap();
    let peer = peer_added(&mut events).await;
    tokio::time::sleep(Duration::from_millis(1)).await; // virtual: what admission asks is over
    let answers = try_join_all((0..10).map(|_| peer.request("where", ""))).await.unwrap();
    let mut tasks = BTreeMap::new();
    for answer in answers {
        *tasks.entry(answer.value).or_insert(0) += 1;
    }
    let mut tasks: Vec<_> = tasks.into_values().collect();
    tasks.sort_unstable();
    tasks
}

#[tokio::test(start_paused = true)]
async fn of_rules_that_answer_at_once_so_many_run_in_the_connections_task() {
    assert_eq!(tasks_that_answer(10).await, [10]);
    assert_eq!(tasks_that_answer(3).await, [1, 1, 1, 1, 1, 1, 1, 3]);
    assert_eq!(tasks_that_answer(0).await, [1; 10]);
}
