//! What rules may do, what peers can ask of them, and what happens when a rule fails.

use std::time::Duration;

use crate::common::{Behaviour, Shared, feed_with, identity, meet, party_key, peer_added, until};
use party::{
    connection::{self, Connection},
    error::{ApiMisuse, Error},
    feed::Feed,
    key::{DiscoveryKey, FeedKey},
    limits::Limits,
    party::{Event, Events, Open, Party, Rule, RuleFailure},
    peer::{Admission, Message, Peer, Replicate},
    rules::{self, Rules, WholeStore},
    store::Store,
};

fn party_of(rules: &Shared) -> Party {
    Party::new(party_key(1), rules.clone())
}

/// A peer that may ask, and the rules that answer, on one connection.
struct Asked {
    peer: Peer,
    rules: Shared,
    events: Events,
    _connections: (Connection, Connection),
}

async fn asked() -> Asked {
    let rules = Shared::default();
    let (asking, answering) = (party_of(&Shared::default()), party_of(&rules));
    let (mut asker, events) = (asking.events(), answering.events());
    let connections = meet(&asking, &answering).await;
    Asked { peer: peer_added(&mut asker).await, rules, events, _connections: connections }
}

async fn failure(events: &mut Events) -> (Rule, RuleFailure) {
    until(events, |event| match event {
        Event::RuleFailed { rule, failure, .. } => Some((rule, failure)),
        _ => None,
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn an_introduction_is_a_question_and_the_answer_carries_keys_back() {
    let asked = asked().await;
    let keys = [FeedKey::from_bytes([1; 32]), FeedKey::from_bytes([2; 32])];
    assert_eq!(asked.peer.introduce_feeds(keys).await.unwrap(), [keys[1], keys[0]]);
    assert_eq!(asked.peer.introduce_feeds([]).await.unwrap(), []);
}

//= PARTY-75
#[tokio::test(start_paused = true)]
async fn requests_and_ephemeral_messages_reach_the_rules_in_order() {
    let asked = asked().await;
    for n in 0..10_u8 {
        asked.peer.send_ephemeral("count", vec![n]).await.unwrap();
    }
    let answer = asked.peer.request("time", &b"now?"[..]).await.unwrap();
    assert_eq!(answer, Message::new("re: time", &b"now?"[..]));
    asked.peer.request("again", &b""[..]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await; // virtual: everything that can run has run
    let told: Vec<_> = asked.rules.0.ephemeral.lock().unwrap().iter().map(|m| m.value[0]).collect();
    assert_eq!(told, (0..10).collect::<Vec<_>>());
}

//= PARTY-62
#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_makes_room_for_another() {
    let (asking, rules) = (party_of(&Shared::default()), Shared::default());
    *rules.0.on_request.lock().unwrap() = Some(Behaviour::Hang);
    let mut events = asking.events();
    let (left, right) = connection::memory();
    let limits = Limits { max_local_transactions: 2, ..Limits::default() };
    let _connections = tokio::try_join!(
        Connection::dial(left, &identity(1)).join(&asking).limits(limits).into_future(),
        Connection::accept(right, &identity(2)).join(&party_of(&rules)).into_future(),
    )
    .unwrap();
    let peer = peer_added(&mut events).await;
    let answer = |kind| tokio::time::timeout(Duration::from_millis(1), peer.request(kind, &b""[..])); // virtual
    let held = tokio::time::timeout(Duration::from_millis(1), async {
        let both = tokio::join!(peer.request("ask", &b""[..]), peer.request("ask", &b""[..]), async {
            // All that can run has run by then.
            tokio::time::sleep(Duration::from_micros(1)).await;
            peer.request("one too many", &b""[..]).await
        });
        unreachable!("the peer doesn't answer: {both:?}")
    });
    assert!(held.await.is_err());
    *rules.0.on_request.lock().unwrap() = None;
    // Those two have been dropped, and are still under way at the peer.
    assert_eq!(answer("time").await.unwrap().unwrap(), Message::new("re: time", &b""[..]));
    assert_eq!(rules.0.calls(), 1 + 1 + 3, "it is ready, it shakes hands, it is asked three times");
}

//= PARTY-84
#[tokio::test(start_paused = true)]
async fn a_rule_that_fails_refuses_and_the_connection_lives_on() {
    for behaviour in [Behaviour::Deny, Behaviour::Panic, Behaviour::Hang] {
        let Asked { peer, rules, mut events, _connections } = asked().await;
        *rules.0.on_request.lock().unwrap() = Some(behaviour);
        let error = peer.request("ask", &b""[..]).await.unwrap_err();
        let (rule, failure) = failure(&mut events).await;
        assert_eq!(rule, Rule::Request);
        match behaviour {
            Behaviour::Deny => {
                assert!(matches!(error, Error::Refused), "{error}");
                assert_eq!(failure, RuleFailure::Denied("the test denies".into()));
            }
            Behaviour::Panic => {
                assert!(matches!(error, Error::Refused), "{error}");
                assert_eq!(failure, RuleFailure::Panicked("the test panics".into()));
            }
            Behaviour::Hang => {
                assert!(matches!(error, Error::Timeout), "{error}");
                assert_eq!(failure, RuleFailure::TimedOut);
            }
        }
        *rules.0.on_request.lock().unwrap() = None;
        peer.request("again", &b""[..]).await.expect("the connection lives");
    }
}

/// Answers with the task that it runs on, after a wait if it is asked for one.
struct Where(Option<Duration>);

impl Rules for Where {
    async fn handshake(&self, _: &Peer) -> rules::Result<()> {
        Ok(())
    }

    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(vec![])
    }

    async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(None)
    }

    async fn request(&self, _: &Peer, _: Message) -> rules::Result<Message> {
        if let Some(wait) = self.0 {
            tokio::time::sleep(wait).await;
        }
        Ok(Message::new("task", tokio::task::id().to_string()))
    }
}

#[tokio::test(start_paused = true)]
#[allow(clippy::disallowed_methods)] // virtual time
async fn a_rule_that_answers_at_once_costs_no_task_and_others_wait_side_by_side() {
    for wait in [None, Some(Duration::from_secs(1))] {
        let (asking, answering) = (party_of(&Shared::default()), Party::new(party_key(1), Where(wait)));
        let mut asker = asking.events();
        let _connections = meet(&asking, &answering).await;
        let peer = peer_added(&mut asker).await;
        let (before, began) =
            (tokio::runtime::Handle::current().metrics().num_alive_tasks(), tokio::time::Instant::now());
        let (one, two) = tokio::try_join!(peer.request("a", &b""[..]), peer.request("b", &b""[..])).unwrap();
        assert_eq!(one == two, wait.is_none(), "both on the connection's task, or each on its own");
        assert_eq!(began.elapsed(), wait.unwrap_or_default());
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn an_introduction_that_the_rule_does_not_take_is_refused() {
    for behaviour in [Behaviour::Deny, Behaviour::Panic, Behaviour::Hang] {
        let Asked { peer, rules, mut events, _connections } = asked().await;
        *rules.0.on_introduce.lock().unwrap() = Some(behaviour);
        assert!(peer.introduce_feeds([]).await.is_err());
        assert_eq!(failure(&mut events).await.0, Rule::IntroduceFeeds);
        *rules.0.on_introduce.lock().unwrap() = None;
        peer.introduce_feeds([]).await.expect("the connection lives");
    }
}

//= PARTY-92
#[tokio::test(start_paused = true)]
async fn a_feed_that_the_rule_does_not_decide_on_is_refused() {
    let store = Store::memory();
    let feed = feed_with(&store, "feed", &["block"]).await;
    for behaviour in [Behaviour::Deny, Behaviour::Panic, Behaviour::Hang] {
        let rules = Shared::default();
        rules.0.released.lock().unwrap().push(feed.clone());
        *rules.0.on_find.lock().unwrap() = Some(behaviour);
        let (asking, answering) = (party_of(&Shared::default()), party_of(&rules));
        let (mut asker, mut answerer) = (asking.events(), answering.events());
        let _connections = meet(&asking, &answering).await;
        let peer = peer_added(&mut asker).await;

        let reader = Store::memory().feed(&feed.key()).await.unwrap();
        assert!(peer.replicate(&reader).await.unwrap());
        assert!(!peer.replicate(&reader).await.unwrap(), "twice is harmless, and told");
        assert_eq!(failure(&mut answerer).await.0, Rule::FindFeed);
        until(&mut asker, |event| matches!(event, Event::FeedRefused { .. }).then_some(())).await;
        peer.request("alive?", &b""[..]).await.expect("the connection lives");
        assert_eq!(reader.info().length, 0);
    }
}

//= PARTY-85
#[tokio::test(start_paused = true)]
async fn a_handshake_that_denies_ends_the_membership_and_not_the_connection() {
    let rules = Shared::default();
    *rules.0.on_handshake.lock().unwrap() = Some(Behaviour::Deny);
    let (asking, answering) = (party_of(&Shared::default()), party_of(&rules));
    let (mut asker, mut answerer) = (asking.events(), answering.events());
    let (left, _right) = meet(&asking, &answering).await;
    let peer = peer_added(&mut asker).await;
    assert_eq!(failure(&mut answerer).await.0, Rule::Handshake);
    until(&mut asker, |event| matches!(event, Event::PeerRemoved(_)).then_some(())).await;
    assert!(matches!(peer.request("ask", &b""[..]).await, Err(Error::Closed)));
    assert!(answering.peers().is_empty());
    assert!(!peer.is_closed(), "the connection is still there");
    left.close().await.unwrap();
}

//= PARTY-64
#[tokio::test(start_paused = true)]
async fn a_transaction_ends_when_the_connection_does() {
    let Asked { peer, rules, _connections: (left, right), .. } = asked().await;
    *rules.0.on_request.lock().unwrap() = Some(Behaviour::Hang);
    let asking = tokio::spawn(async move { peer.request("ask", &b""[..]).await });
    tokio::time::sleep(Duration::from_millis(1)).await; // virtual: the request is on its way
    right.close().await.unwrap();
    assert!(matches!(asking.await.unwrap(), Err(Error::Closed)));
    left.closed().await.unwrap();
}

//= PARTY-50, PARTY-51, PARTY-71
#[tokio::test(start_paused = true)]
async fn what_is_too_large_or_too_much_is_an_error_of_the_caller() {
    let Asked { peer, _connections, .. } = asked().await;
    let max = Limits::default().max_party_message;
    let error = peer.request("large", vec![0; max + 1]).await.unwrap_err();
    assert!(matches!(error, Error::ApiMisuse(ApiMisuse::MessageTooLarge { .. })), "{error}");
    let error = peer.send_ephemeral("large", vec![0; max + 1]).await.unwrap_err();
    assert!(matches!(error, Error::ApiMisuse(ApiMisuse::MessageTooLarge { .. })), "{error}");
    peer.request("small", &b""[..]).await.unwrap();
}

//= PARTY-77, PARTY-82
#[tokio::test(start_paused = true)]
async fn whole_stores_become_equal_and_a_finite_connection_ends_by_itself() {
    let (left_store, right_store) = (Store::memory(), Store::memory());
    feed_with(&left_store, "a", &["a0", "a1", "a2"]).await;
    feed_with(&left_store, "empty", &[]).await;
    feed_with(&right_store, "b", &["b0"]).await;
    let (left, right) = (
        Party::new(party_key(1), WholeStore::new(left_store.clone())),
        Party::new(party_key(1), WholeStore::new(right_store.clone())),
    );
    let (a, b) = connection::memory();
    let (a, b) = tokio::join!(
        async { Connection::dial(a, &identity(1)).join(&left).finite().await?.closed().await },
        async { Connection::accept(b, &identity(2)).join(&right).finite().await?.closed().await },
    );
    a.unwrap();
    b.unwrap();
    for (one, other) in [(&left_store, &right_store), (&right_store, &left_store)] {
        for entry in one.list().await.unwrap() {
            let (here, there) = (one.feed(&entry.key).await.unwrap(), other.feed(&entry.key).await.unwrap());
            assert_eq!(here.info().length, there.info().length);
            assert_eq!(there.info().contiguous_length, there.info().length);
        }
        assert_eq!(one.list().await.unwrap().len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_finite_connection_with_nothing_to_replicate_ends() {
    let party = |n| {
        let _ = n;
        Party::new(party_key(1), WholeStore::new(Store::memory()))
    };
    let (a, b) = connection::memory();
    let (one, other) = (party(1), party(2));
    let (a, b) = tokio::join!(
        async { Connection::dial(a, &identity(1)).join(&one).finite().await?.closed().await },
        async { Connection::accept(b, &identity(2)).join(&other).await?.closed().await },
    );
    a.unwrap();
    b.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_takes_no_more_feeds_from_a_peer_than_it_was_told() {
    let store = Store::memory();
    let (asking, answering) = (
        party_of(&Shared::default()),
        Party::new(party_key(1), WholeStore::new(store.clone()).max_feeds(10)),
    );
    let mut asker = asking.events();
    let _connections = meet(&asking, &answering).await;
    let peer = peer_added(&mut asker).await;
    let keys = (0..=255).map(|n| FeedKey::from_bytes([n; 32]));
    assert!(matches!(peer.introduce_feeds(keys.clone()).await, Err(Error::Refused)));
    assert_eq!(store.list().await.unwrap().len(), 0);
    peer.introduce_feeds(keys.take(10)).await.unwrap();
    assert_eq!(store.list().await.unwrap().len(), 10);
}

//= PARTY-107, PARTY-109
#[tokio::test(start_paused = true)]
async fn open_mode_asks_the_rules_and_has_no_party_channel() {
    struct Opened(Feed);
    impl Rules for Opened {
        async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
            assert_eq!(peer.admission(), Admission::Open);
            peer.replicate_as(&self.0, Replicate::fully()).await?;
            Ok(())
        }
        async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
            Ok(vec![])
        }
        async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
            Ok(None)
        }
    }
    let writer = Store::memory();
    let feed = feed_with(&writer, "feed", &["one", "two"]).await;
    let reader = Store::memory().feed(&feed.key()).await.unwrap();
    let (serving, reading) = (Open::new(WholeStore::new(writer)), Open::new(Opened(reader.clone())));
    let (left, right) = connection::memory();
    let (mut events, dialled, accepted) = (
        reading.events(),
        Connection::dial(left, &identity(1)).open(&reading),
        Connection::accept(right, &identity(2)).open(&serving),
    );
    let (dialled, _accepted) = tokio::join!(dialled, accepted);
    assert_eq!(reader.fetch(1).await.unwrap(), "two");
    let peer = peer_added(&mut events).await;
    assert!(matches!(peer.introduce_feeds([]).await, Err(Error::ApiMisuse(ApiMisuse::NotAdmitted))));
    feed.append("three").await.unwrap();
    assert_eq!(reader.fetch(2).await.unwrap(), "three");
    dialled.unwrap().close().await.unwrap();
}
