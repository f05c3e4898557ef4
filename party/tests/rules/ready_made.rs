//! The ready-made rules and policies, each as an app uses it.

use std::{collections::BTreeSet, future::IntoFuture as _, time::Duration};

use crate::common::{Shared, feed_with, identity, meet, party_key, peer_added, until};
use party::{
    connection::{self, Connection},
    error::Error,
    feed::Feed,
    key::FeedKey,
    party::{Event, Party, Rule},
    peer::Peer,
    rules::{
        Action, AllowFeeds, AllowPeers, BlindKeeper, Decision, KeeperQuotas, OneFeedPerMember, Policy,
        Question, ReadOnlyFollower, Rules as _, WholeStore, first_that_decides,
    },
    store::{FeedOptions, Store},
};

async fn arrives(feed: &Feed, index: u64) -> bool {
    tokio::time::timeout(Duration::from_secs(600), feed.fetch(index)).await.is_ok()
}

async fn meet_as(dialler: (u8, &Party), listener: (u8, &Party)) -> (Connection, Connection) {
    let (left, right) = connection::memory();
    tokio::try_join!(
        Connection::dial(left, &identity(dialler.0)).join(dialler.1).into_future(),
        Connection::accept(right, &identity(listener.0)).join(listener.1).into_future(),
    )
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_read_only_follower_takes_and_gives_nothing() {
    let (store, follower_store) = (Store::memory(), Store::memory());
    let feed = feed_with(&store, "feed", &["one", "two"]).await;
    let own = feed_with(&follower_store, "own", &["mine"]).await;
    let writer = Party::new(party_key(1), WholeStore::new(store.clone()));
    let follower =
        Party::new(party_key(1), WholeStore::new(follower_store.clone()).guarded_by(ReadOnlyFollower));
    let _connections = meet(&follower, &writer).await;
    let copy = follower_store.feed(&feed.key()).await.unwrap();
    assert!(arrives(&copy, 1).await);
    feed.append("three").await.unwrap();
    assert!(arrives(&copy, 2).await, "and what comes later");
    // Somebody who knows the key of its own feed is not served, either.
    let wanted = store.feed(&own.key()).await.unwrap();
    assert!(!arrives(&wanted, 0).await);
    assert_eq!(own.traffic().blocks_sent + copy.traffic().blocks_sent, 0);
}

#[tokio::test(start_paused = true)]
async fn each_member_brings_one_feed_and_no_other() {
    let mut parties = Vec::new();
    for n in 1..=2_u8 {
        let store = Store::memory();
        let mine = feed_with(&store, "mine", &[&format!("by {n}")]).await;
        let rules = OneFeedPerMember::new(store.clone(), mine.clone()).max_members(2);
        parties.push((Party::new(party_key(1), rules.clone()), rules, store, mine));
    }
    let [(left, left_rules, left_store, left_mine), (right, right_rules, _, right_mine)] = &parties[..]
    else {
        panic!()
    };
    let mut events = left.events();
    let _connections = meet(left, right).await;
    let copy = left_store.feed(&right_mine.key()).await.unwrap();
    assert!(arrives(&copy, 0).await);
    until(&mut events, |event| matches!(event, Event::HandshakeDone(_)).then_some(())).await;
    assert_eq!(left_rules.members(), [(identity(2).public(), right_mine.key())].into());
    assert_eq!(right_rules.members(), [(identity(1).public(), left_mine.key())].into());

    // A second feed of the same member is refused, and so is one of somebody else.
    let second = FeedKey::from_bytes([5; 32]);
    let as_right = left.peers()[0].clone();
    assert!(
        matches!(as_right.introduce_feeds([left_mine.key()]).await.as_deref(), Ok([key]) if *key == right_mine.key())
    );
    let elsewhere = feed_with(&Store::memory(), "elsewhere", &[]).await;
    let other = crate::common::one_feed::party_of(&elsewhere, party::peer::Replicate::sparsely());
    let mut others = other.events();
    let _connection = meet_as((3, &other), (1, left)).await;
    let peer = peer_added(&mut others).await;
    assert!(matches!(peer.introduce_feeds([second, right_mine.key()]).await, Err(Error::Refused)), "two");
    assert!(matches!(peer.introduce_feeds([right_mine.key()]).await, Err(Error::Refused)), "somebody else's");
    assert!(matches!(peer.introduce_feeds([left_mine.key()]).await, Err(Error::Refused)), "ours");
    peer.introduce_feeds([second]).await.unwrap();
    peer.introduce_feeds([second]).await.unwrap();
    assert!(matches!(peer.introduce_feeds([FeedKey::from_bytes([6; 32])]).await, Err(Error::Refused)));
    assert_eq!(left_rules.members().len(), 2);
    assert!(left_rules.assign(identity(4).public(), FeedKey::from_bytes([7; 32])).is_err(), "too many");
    // Nobody is served what is not their own or ours: whose is whose decides.
    let right_key = right_mine.key();
    let at_left =
        left.peers().into_iter().find(|peer| peer.remote_public_key() == identity(3).public()).unwrap();
    assert!(!at_left.decide(&right_key, Action::Serve).is_allowed());
    assert!(at_left.decide(&left_mine.key(), Action::Serve).is_allowed());
    assert!(!at_left.decide(&left_mine.key(), Action::Accept).is_allowed());
}

#[tokio::test(start_paused = true)]
async fn a_blind_keeper_passes_on_what_it_cannot_read() {
    let (writer_store, keeper_store, reader_store) = (Store::memory(), Store::memory(), Store::memory());
    let options = FeedOptions::default().encryption([9; 32]);
    let feed = writer_store.create_feed("secret", options).await.unwrap();
    feed.append_batch(vec!["a secret".into(), "another".into()]).await.unwrap();
    let keeper = Party::new(party_key(1), BlindKeeper::new(keeper_store.clone(), KeeperQuotas::default()));

    let writer = Party::new(party_key(1), WholeStore::new(writer_store));
    let (one, other) = meet_as((1, &writer), (9, &keeper)).await;
    let kept = keeper_store.feed(&feed.key()).await.unwrap();
    while kept.info().contiguous_length < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await; // virtual
    }
    one.close().await.unwrap();
    other.closed().await.unwrap();
    assert_ne!(kept.get(0).await.unwrap().unwrap(), "a secret", "it has the bytes, not the secret");

    let reader = Party::new(party_key(1), WholeStore::new(reader_store.clone()));
    let _connections = meet_as((2, &reader), (9, &keeper)).await;
    let copy = reader_store.feed(&feed.key()).await.unwrap();
    assert!(arrives(&copy, 1).await);
    let readable = copy.with_encryption([9; 32]);
    assert_eq!(readable.get(0).await.unwrap().unwrap(), "a secret");
}

#[tokio::test(start_paused = true)]
async fn a_blind_keeper_keeps_no_more_feeds_and_bytes_of_a_peer_than_its_quotas() {
    let (writer_store, keeper_store) = (Store::memory(), Store::memory());
    let feed = writer_store.create_feed("large", FeedOptions::default()).await.unwrap();
    feed.append_batch((0..20).map(|_| vec![7; 100].into()).collect()).await.unwrap();
    let quotas = KeeperQuotas { feeds: 3, bytes: 1_050, max_peers: 1 };
    let rules = BlindKeeper::new(keeper_store.clone(), quotas);
    let keeper = Party::new(party_key(1), rules.clone());
    let asking =
        Party::new(party_key(1), crate::common::one_feed::One(feed.clone(), party::peer::Replicate::fully()));
    let (mut events, mut failures) = (asking.events(), keeper.events());
    let _connections = meet_as((1, &asking), (9, &keeper)).await;
    let peer = peer_added(&mut events).await;
    peer.introduce_feeds([feed.key()]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await; // virtual
    let kept = keeper_store.feed(&feed.key()).await.unwrap();
    assert_eq!((0..20).filter(|index| kept.has(*index)).count(), 10);
    let (feeds, bytes) = rules.account(&identity(1).public()).unwrap();
    assert_eq!((feeds, bytes.used()), (1, 1_000));

    // Two more feeds are taken, not three; and none at all of a peer too many.
    let keys: Vec<_> = (1..=3).map(|n| FeedKey::from_bytes([n; 32])).collect();
    assert!(matches!(peer.introduce_feeds(keys.clone()).await, Err(Error::Refused)));
    let rule = until(&mut failures, |event| match event {
        Event::RuleFailed { rule, .. } => Some(rule),
        _ => None,
    })
    .await;
    assert_eq!(rule, Rule::IntroduceFeeds);
    assert_eq!(keeper_store.list().await.unwrap().len(), 1);
    peer.introduce_feeds(keys[..2].to_vec()).await.unwrap();
    let other = Party::new(party_key(1), Shared::default());
    let mut others = other.events();
    let _connection = meet_as((2, &other), (9, &keeper)).await;
    let peer = peer_added(&mut others).await;
    assert!(matches!(peer.introduce_feeds([keys[2]]).await, Err(Error::Refused)));
    peer.introduce_feeds([keys[0]]).await.expect("that one is paid for");

    // With more room it goes on.
    bytes.set_limit(10_000);
    keeper.reevaluate().await;
    tokio::time::sleep(Duration::from_secs(600)).await; // virtual
    assert_eq!(kept.info().contiguous_length, 20);
}

struct Says(Option<bool>, &'static str);

impl Policy for Says {
    fn decide(&self, _: &Question<'_>) -> Decision {
        match self.0 {
            Some(true) => Decision::allow(self.1, "so it says"),
            Some(false) => Decision::deny(self.1, "so it says"),
            None => Decision::undecided(self.1, "it says nothing"),
        }
    }
    fn admit(&self, peer: &Peer) -> Decision {
        self.decide(&Question::new(peer, FeedKey::from_bytes([0; 32]), Action::Serve))
    }
}

#[tokio::test(start_paused = true)]
async fn policies_are_put_together() {
    let party = Party::new(party_key(1), Shared::default());
    let mut events = party.events();
    let _connections = meet(&party, &Party::new(party_key(1), Shared::default())).await;
    let peer = peer_added(&mut events).await;
    let question = Question::new(&peer, FeedKey::from_bytes([1; 32]), Action::Serve);
    let says = [Some(true), Some(false), None];
    let verdict = |decision: Decision| decision.is_decided().then(|| decision.is_allowed());
    for a in says {
        for b in says {
            let (one, other) = (Says(a, "one"), Says(b, "other"));
            let first: Vec<Box<dyn Policy>> = vec![Box::new(Says(a, "one")), Box::new(Says(b, "other"))];
            let first = first_that_decides(first);
            let and = match (a, b) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (None, None) => None,
                _ => Some(true),
            };
            let or = match (a, b) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (None, None) => None,
                _ => Some(false),
            };
            assert_eq!(verdict(first.decide(&question)), Some(a.or(b).unwrap_or(false)), "{a:?} {b:?}");
            assert_eq!(verdict(first.admit(&peer)), a.or(b), "{a:?} {b:?}");
            let both = one.and(other);
            assert_eq!(
                (verdict(both.decide(&question)), verdict(both.admit(&peer))),
                (and, and),
                "{a:?} {b:?}"
            );
            let either = Says(a, "one").or(Says(b, "other"));
            assert_eq!(
                (verdict(either.decide(&question)), verdict(either.admit(&peer))),
                (or, or),
                "{a:?} {b:?}"
            );
        }
    }
    // What a policy leaves undecided is denied, and who is no friend may still be here.
    let (friends, public) = (AllowPeers::new([]).undecided_about_others(), AllowFeeds::new([]));
    let guarded = Shared::default().guarded_by(friends.clone().or(public.clone()));
    assert!(!guarded.decide(&question).is_allowed());
    assert!(guarded.admit(&peer).is_allowed());
    public.insert(question.feed);
    assert_eq!(guarded.decide(&question).rule(), "allow-list of feeds and release");
    public.remove(&question.feed);
    friends.insert(peer.remote_public_key());
    assert!(guarded.decide(&question).is_allowed());
}

#[tokio::test(start_paused = true)]
async fn introductions_that_a_policy_would_not_accept_do_not_reach_the_store() {
    let store = Store::memory();
    let list = AllowFeeds::new([FeedKey::from_bytes([1; 32])]);
    let guarded = Party::new(party_key(1), WholeStore::new(store.clone()).guarded_by(list));
    let (asking, mut events) = {
        let party = Party::new(party_key(1), Shared::default());
        let events = party.events();
        (party, events)
    };
    let _connections = meet(&asking, &guarded).await;
    let peer = peer_added(&mut events).await;
    peer.introduce_feeds((0..100).map(|n| FeedKey::from_bytes([n; 32]))).await.unwrap();
    let kept: BTreeSet<_> = store.list().await.unwrap().into_iter().map(|entry| entry.key).collect();
    assert_eq!(kept, [FeedKey::from_bytes([1; 32])].into());
}
