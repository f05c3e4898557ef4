//! What the terms of a membership mean on a connection. `protocol-spec/11-credentials.md#what-terms-mean-on-a-connection`.

use std::time::Duration;

use crate::common::{
    membership::{START, Site, append, blind_may_know, blocks, founder, meet, settle, with_limits},
    until,
};
use party::{
    credentials::{Grant, Terms},
    error::CredentialFlaw,
    feed::Feed,
    members::{MembersEvent, Refusal, Standing},
    party::Event,
    rules::{Action, AllowFeeds, WholeStore},
};

/// Ann, who may do everything, and Bob under these terms, each with a feed of ten blocks, after all that can happen has.
async fn under(terms: Terms) -> (Site, Site, Feed, Feed, impl Sized) {
    let ann = Site::member(1, Terms::everything()).await;
    let (of_ann, bob) = (ann.feed("log", 10).await, Site::member(2, terms).await);
    let of_bob = bob.feed("log", 10).await;
    let connections = meet(&ann, &bob).await;
    settle().await;
    (ann, bob, of_ann, of_bob, connections)
}

async fn has(site: &Site, feed: &Feed) -> Vec<u64> {
    match site.store.feed_by_discovery_key(&feed.discovery_key()).await.unwrap() {
        Some(feed) => blocks(&feed, 10).await,
        None => vec![],
    }
}

//= CRED-53, CRED-54
#[tokio::test(start_paused = true)]
async fn who_may_only_read_brings_nothing_and_who_may_only_bring_reads_nothing() {
    let (ann, bob, of_ann, of_bob, _connections) = under(Terms::everything().read_only()).await;
    assert_eq!((has(&bob, &of_ann).await.len(), has(&ann, &of_bob).await.len()), (10, 0));
    let why = ann.party.explain(&ann.party.peers()[0], &of_bob.key());
    assert_eq!(why.accept.rule(), "members");
    assert!(why.to_string().contains("does not let it bring"), "{why}");
    assert!(why.to_string().contains("its membership allows it"), "{why}");

    let (ann, bob, of_ann, of_bob, _connections) = under(Terms::everything().bring_only()).await;
    assert_eq!((has(&bob, &of_ann).await.len(), has(&ann, &of_bob).await.len()), (0, 10));
    assert!(
        bob.store.feed_by_discovery_key(&of_ann.discovery_key()).await.unwrap().is_none(),
        "not even told"
    );
}

//= CRED-55
#[tokio::test(start_paused = true)]
async fn feeds_that_a_membership_is_not_about_are_neither_told_nor_given_nor_taken() {
    let ann = Site::member(1, Terms::everything()).await;
    let (named, other) = (ann.feed("named", 10).await, ann.feed("other", 10).await);
    let bob = Site::member(2, Terms::everything().only([named.discovery_key()])).await;
    let of_bob = bob.feed("log", 10).await;
    // Knowing its key doesn't help.
    let stolen = bob.copy(&other).await;
    let _connections = meet(&bob, &ann).await;
    settle().await;
    assert_eq!(has(&bob, &named).await.len(), 10);
    assert_eq!((has(&bob, &other).await.len(), stolen.info().length), (0, 0));
    assert!(has(&ann, &of_bob).await.is_empty());
}

//= CRED-56
#[tokio::test(start_paused = true)]
async fn only_the_blocks_that_a_membership_is_about_come() {
    let (ann, bob, of_ann, of_bob, _connections) = under(Terms::everything().range(2..5)).await;
    assert_eq!((has(&bob, &of_ann).await, has(&ann, &of_bob).await), (vec![2, 3, 4], vec![2, 3, 4]));

    let (_ann, bob, of_ann, _, _connections) = under(Terms::everything().newest(2)).await;
    assert_eq!(has(&bob, &of_ann).await, [8, 9]);
    append(&of_ann, 1).await;
    settle().await;
    let copy = bob.copy(&of_ann).await;
    assert!(copy.get(10).await.unwrap().is_some() && copy.get(7).await.unwrap().is_none());
}

//= CRED-57
#[tokio::test(start_paused = true)]
async fn the_blind_are_told_of_the_feeds_that_they_may_know() {
    let may_know = AllowFeeds::default();
    let ann = Site::with_rules(1, &blind_may_know(&may_know), WholeStore::new).await;
    ann.found(Terms::everything()).await;
    let (open, sealed) = (ann.feed("open", 10).await, ann.feed("sealed", 10).await);
    may_know.insert(sealed.key());
    let keeper = Site::member(2, Terms::everything().blind()).await;
    let _connections = meet(&ann, &keeper).await;
    settle().await;
    assert_eq!(has(&keeper, &sealed).await.len(), 10);
    assert!(keeper.store.feed_by_discovery_key(&open.discovery_key()).await.unwrap().is_none());
    let why = ann.party.explain(&ann.party.peers()[0], &open.key());
    assert!(why.introduce.reason().contains("blind"), "{why}");
}

//= LIMIT-23
#[tokio::test(start_paused = true)]
async fn of_a_member_no_more_feeds_are_taken_than_are_remembered_as_its_own() {
    let ann = Site::with_rules(1, &with_limits(|limits| limits.max_member_feeds = 2), WholeStore::new).await;
    ann.found(Terms::everything()).await;
    let (bob, eve) = (Site::member(2, Terms::everything()).await, Site::member(3, Terms::everything()).await);
    let mut taken = Vec::new();
    for (site, feeds) in [(&bob, 5), (&eve, 1)] {
        let mut brought = Vec::new();
        for n in 0..feeds {
            brought.push(site.feed(&format!("log {n}"), 3).await);
        }
        let _connections = meet(site, &ann).await;
        settle().await;
        let mut blocks = 0;
        for feed in &brought {
            blocks += has(&ann, feed).await.len();
        }
        taken.push(blocks);
    }
    assert_eq!(taken, [2 * 3, 3], "and others bring as many");
}

//= CRED-58
#[tokio::test(start_paused = true)]
async fn a_membership_that_expires_ends_while_its_holder_is_connected() {
    let mut ann = Site::member(1, Terms::everything()).await;
    let feed = ann.feed("log", 3).await;
    let bob = Site::member(2, Terms::everything().expiring(START + 3_600)).await;
    let mut of_bob = bob.members.events();
    let connections = meet(&ann, &bob).await;
    settle().await;
    assert_eq!(bob.copy(&feed).await.info().length, 3);

    let mut app = ann.party.events();
    assert_eq!(ann.refuses().await, Refusal::Flaw(CredentialFlaw::Expired(START + 3_600)));
    until(&mut app, |event| matches!(event, Event::PeerRemoved(_)).then_some(())).await;
    append(&feed, 3).await;
    settle().await;
    assert_eq!(bob.copy(&feed).await.info().length, 3);
    assert!(ann.party.peers().is_empty() && bob.party.peers().is_empty());
    while !matches!(of_bob.next().await.unwrap(), MembersEvent::OwnExpired) {}
    assert_eq!(bob.members.standing(), Standing::Expired);
    assert_eq!(ann.members.members().len(), 1);
    let why = ann.members.decide(&bob.me.public(), &feed.key(), Action::Serve);
    assert!(why.reason().contains("expired"), "{why}");
    assert!(tokio::time::timeout(Duration::from_secs(1), connections.0.closed()).await.is_err());

    // With a new one it is let in again.
    bob.found(Terms::everything()).await;
    assert!(bob.members.standing().is_good());
    drop(connections);
    let _connections = meet(&bob, &ann).await;
    settle().await;
    assert_eq!(bob.copy(&feed).await.info().length, 6);
}

#[tokio::test(start_paused = true)]
async fn who_may_hands_on_what_it_has_and_no_more() {
    let ann = Site::member(1, Terms::everything().newest(5).delegable(1)).await;
    let bob = Site::stranger(2).await;
    assert!(ann.members.grant(Grant::to(bob.me.public(), Terms::everything())).await.is_err());
    let terms = Terms::everything().newest(5).read_only();
    bob.members
        .set_membership(ann.members.grant(Grant::to(bob.me.public(), terms.clone())).await.unwrap())
        .await
        .unwrap();
    assert!(bob.members.grant(Grant::to(founder().public(), terms)).await.is_err(), "it may not delegate");
    let feed = ann.feed("log", 2).await;
    let _connections = meet(&bob, &ann).await;
    settle().await;
    assert_eq!(has(&bob, &feed).await.len(), 2);
}
