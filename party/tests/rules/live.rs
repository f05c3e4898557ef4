//! Rules that change their mind while peers are connected, and what they decide.

use std::{
    collections::BTreeMap,
    future::IntoFuture as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::{feed_with, identity, meet, one_feed, party_key, peer_added, until};
use party::{
    connection::{self, Connection},
    error::{ApiMisuse, Error},
    feed::Feed,
    key::{DiscoveryKey, FeedKey},
    limits::Limits,
    party::{Event, Events, Party},
    peer::{LinkState, Peer, Replicate},
    rules::{self, Action, AllowFeeds, AllowPeers, Decision, Question, Quota, Rules},
    store::{FeedOptions, Store},
};

/// Releases feeds to everybody, and decides on each action as the test says.
#[derive(Clone, Default)]
struct Desk {
    feeds: Arc<Mutex<Vec<Feed>>>,
    how: Option<Replicate>,
    decisions: Arc<Mutex<BTreeMap<(FeedKey, Action), Decision>>>,
}

impl Desk {
    fn of(feeds: &[&Feed], how: Replicate) -> Self {
        let feeds = Arc::new(Mutex::new(feeds.iter().map(|feed| (*feed).clone()).collect()));
        Self { feeds, how: Some(how), decisions: Arc::default() }
    }

    fn set(&self, feed: &Feed, action: Action, decision: Decision) {
        self.decisions.lock().unwrap().insert((feed.key(), action), decision);
    }

    fn deny(&self, feed: &Feed, actions: &[Action]) {
        for action in actions {
            self.set(feed, *action, Decision::deny("desk", "the desk is closed"));
        }
    }

    fn clear(&self) {
        self.decisions.lock().unwrap().clear();
    }
}

impl Rules for Desk {
    async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
        let feeds = self.feeds.lock().unwrap().clone();
        for feed in feeds {
            peer.replicate_as(&feed, self.how.unwrap()).await?;
        }
        Ok(())
    }
    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(self.feeds.lock().unwrap().iter().map(Feed::key).collect())
    }
    async fn find_feed(&self, _: &Peer, key: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(self.feeds.lock().unwrap().iter().find(|feed| feed.discovery_key() == *key).cloned())
    }
    fn decide(&self, question: &Question<'_>) -> Decision {
        let decisions = self.decisions.lock().unwrap();
        let decided = decisions.get(&(question.feed, question.action)).cloned();
        decided.unwrap_or_else(|| Decision::allow("desk", "nobody minds"))
    }
}

/// A writer with two feeds whose rules the test decides on, and a reader that gets what it asks for.
struct Scene {
    desk: Desk,
    writer: Party,
    reader: Party,
    written: [Feed; 2],
    read: [Feed; 2],
    at_writer: Peer,
    at_reader: Peer,
    writer_events: Events,
    reader_events: Events,
    connections: (Connection, Connection),
}

async fn scene(blocks: u64) -> Scene {
    let written = [one_feed::written(blocks).await, {
        let feed = Store::memory().create_feed("other", FeedOptions::default()).await.unwrap();
        feed.append_batch((0..blocks).map(one_feed::block).collect()).await.unwrap();
        feed
    }];
    let store = Store::memory();
    let read = [store.feed(&written[0].key()).await.unwrap(), store.feed(&written[1].key()).await.unwrap()];
    let desk = Desk::of(&[&written[0], &written[1]], Replicate::sparsely());
    let writer = Party::new(party_key(1), desk.clone());
    let reader = Party::new(party_key(1), Desk::of(&[&read[0], &read[1]], Replicate::sparsely()));
    let (mut writer_events, mut reader_events) = (writer.events(), reader.events());
    let connections = meet(&reader, &writer).await;
    let (at_writer, at_reader) = (peer_added(&mut writer_events).await, peer_added(&mut reader_events).await);
    for feed in &read {
        assert_eq!(feed.fetch(0).await.unwrap(), one_feed::block(0));
    }
    Scene {
        desk,
        writer,
        reader,
        written,
        read,
        at_writer,
        at_reader,
        writer_events,
        reader_events,
        connections,
    }
}

/// Whether a block can be had, given all the (virtual) time that it may take.
async fn arrives(feed: &Feed, index: u64) -> bool {
    tokio::time::timeout(Duration::from_secs(600), feed.fetch(index)).await.is_ok()
}

const ALL: [Action; 3] = [Action::Serve, Action::Ask, Action::Accept];

//= PARTY-98, PARTY-105
#[tokio::test(start_paused = true)]
async fn what_is_not_allowed_any_more_stops_and_other_feeds_go_on() {
    let mut scene = scene(10).await;
    scene.desk.deny(&scene.written[0], &ALL);
    let changed = scene.writer.reevaluate().await;
    assert_eq!((changed.stopped, changed.started), (1, 0));
    let (feed, decision) = until(&mut scene.writer_events, |event| match event {
        Event::FeedForbidden { feed, decision, .. } => Some((feed, decision)),
        _ => None,
    })
    .await;
    assert_eq!((feed, decision.rule()), (scene.written[0].discovery_key(), "desk"));
    assert_eq!(scene.at_writer.feed(&scene.written[0]).unwrap().status().state, LinkState::Forbidden);

    assert!(!arrives(&scene.read[0], 5).await);
    assert!(arrives(&scene.read[1], 5).await);
    assert!(!scene.at_reader.is_closed() && scene.writer.peers().len() == 1);
    assert_eq!(scene.reader.peers(), [scene.at_reader.clone()]);

    // And back: what is allowed again begins, on the same connection.
    scene.desk.clear();
    let changed = scene.writer.reevaluate_feed(&scene.written[0].key()).await;
    assert_eq!((changed.stopped, changed.started), (0, 1));
    assert!(arrives(&scene.read[0], 5).await);
    until(&mut scene.reader_events, |event| matches!(event, Event::FeedOpened { .. }).then_some(())).await;
    assert_eq!(scene.writer.reevaluate().await, party::party::Reevaluated::default(), "nothing has changed");
}

//= PARTY-100, PARTY-101
#[tokio::test(start_paused = true)]
async fn no_block_is_sent_or_stored_after_the_call_has_returned() {
    for by_writer in [true, false] {
        let scene = scene(30_000).await;
        let all = scene.read[0].download(..);
        // In the middle of it.
        while scene.read[0].info().contiguous_length < 100 {
            tokio::task::yield_now().await;
        }
        if by_writer {
            scene.desk.deny(&scene.written[0], &ALL);
            assert_eq!(scene.writer.reevaluate().await.stopped, 1);
        } else {
            assert!(scene.at_reader.withdraw(&scene.read[0]).await.unwrap());
            assert!(!scene.at_reader.withdraw(&scene.read[0]).await.unwrap(), "it was taken back");
        }
        let sent = scene.written[0].traffic().blocks_sent;
        let stored = scene.read[0].info().contiguous_length;
        assert!(stored < 30_000, "by_writer: {by_writer}: it was all over before");
        tokio::time::sleep(Duration::from_secs(60)).await; // virtual
        assert_eq!(scene.written[0].traffic().blocks_sent, sent);
        if !by_writer {
            assert_eq!(scene.read[0].info().contiguous_length, stored);
        }
        assert!(arrives(&scene.read[1], 29_999).await, "the other feed goes on");
        drop(all);
    }
}

#[allow(clippy::disallowed_methods)] // virtual time is looked at
#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_loses_its_connection_before_it_gets_what_is_forbidden() {
    let written = one_feed::written(0).await;
    written.append_batch((0..64).map(|_| vec![7; 1 << 16].into()).collect()).await.unwrap();
    let desk = Desk::of(&[&written], Replicate::sparsely());
    let writer = Party::new(party_key(1), desk.clone());
    let reading = one_feed::reader_of(&written).await;
    let reader = Party::new(party_key(1), Desk::of(&[&reading], Replicate::fully()));

    // A way of 64 KiB, which stops half-way.
    let (left, through_left) = tokio::io::duplex(1 << 16);
    let (right, through_right) = tokio::io::duplex(1 << 16);
    let stopped = Arc::new(tokio::sync::Notify::new());
    let stop = stopped.clone();
    let passing = tokio::spawn(async move {
        let (mut a, mut b) = (through_left, through_right);
        tokio::select! {
            _ = tokio::io::copy_bidirectional_with_sizes(&mut a, &mut b, 1 << 12, 1 << 12) => {}
            () = stop.notified() => {}
        }
        (a, b) // held, so that nobody sees an end
    });
    let limits = Limits::default();
    let (_reads, writes) =
        tokio::join!(async { Connection::dial(left, &identity(1)).join(&reader).await.unwrap() }, async {
            Connection::accept(right, &identity(2)).join(&writer).limits(limits.clone()).await.unwrap()
        },);
    while reading.info().contiguous_length < 2 {
        tokio::task::yield_now().await;
    }
    stopped.notify_one();
    let _held = passing.await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await; // virtual: whatever can be sealed is

    desk.deny(&written, &ALL);
    let before = tokio::time::Instant::now();
    assert_eq!(writer.reevaluate().await, party::party::Reevaluated::default(), "it is over");
    assert_eq!(before.elapsed().as_secs(), limits.revocation_timeout.as_secs());
    assert!(matches!(writes.closed().await, Err(Error::Timeout)));
}

//= PARTY-102, PARTY-103, PARTY-104
#[tokio::test(start_paused = true)]
async fn each_action_is_decided_for_itself() {
    // Serve
    let s = scene(4).await;
    s.desk.deny(&s.written[0], &[Action::Serve]);
    assert_eq!(s.writer.reevaluate().await.stopped, 1);
    assert_eq!(s.at_writer.feed(&s.written[0]).unwrap().status().state, LinkState::Open);
    assert!(!arrives(&s.read[0], 1).await && arrives(&s.read[1], 1).await);
    let serves = |feed| s.at_reader.feed(feed).unwrap().status().remote_uploads;
    assert!(!serves(&s.read[0]) && serves(&s.read[1]), "it says so");
    s.desk.clear();
    assert_eq!(s.writer.reevaluate().await.started, 1);
    assert!(arrives(&s.read[0], 1).await && serves(&s.read[0]));

    // Ask and accept, at the reader
    for action in [Action::Ask, Action::Accept] {
        let written = one_feed::written(4).await;
        let read = one_feed::reader_of(&written).await;
        let desk = Desk::of(&[&read], Replicate::sparsely());
        desk.deny(&read, &[action]);
        let reader = Party::new(party_key(1), desk.clone());
        let _connections = meet(&reader, &one_feed::party_of(&written, Replicate::sparsely())).await;
        assert!(!arrives(&read, 1).await, "{action}");
        desk.clear();
        assert_eq!(reader.reevaluate().await.started, 1, "{action}");
        assert!(arrives(&read, 1).await, "{action}");
    }

    // Introduce
    let s = scene(1).await;
    s.desk.deny(&s.written[1], &[Action::Introduce]);
    assert_eq!(s.at_reader.introduce_feeds([]).await.unwrap(), [s.written[0].key()]);
}

#[tokio::test(start_paused = true)]
async fn a_range_the_newest_and_a_quota_bound_what_is_served() {
    let s = scene(100).await;
    let yes = || Decision::allow("desk", "some of it");
    s.desk.set(&s.written[0], Action::Serve, yes().blocks(10..20));
    s.writer.reevaluate().await;
    assert!(arrives(&s.read[0], 10).await && arrives(&s.read[0], 19).await);
    assert!(!arrives(&s.read[0], 9).await && !arrives(&s.read[0], 20).await);

    s.desk.set(&s.written[0], Action::Serve, yes().newest(5));
    s.writer.reevaluate().await;
    assert!(arrives(&s.read[0], 95).await && !arrives(&s.read[0], 94).await);
    s.written[0].append(one_feed::block(100)).await.unwrap();
    assert!(arrives(&s.read[0], 100).await && arrives(&s.read[0], 96).await);
    assert!(!arrives(&s.read[0], 93).await);

    let quota = Quota::of(3 * one_feed::block(0).len() as u64);
    s.desk.set(&s.written[0], Action::Serve, yes().within(&quota));
    s.writer.reevaluate().await;
    for index in 50..53 {
        assert!(arrives(&s.read[0], index).await);
    }
    assert!(!arrives(&s.read[0], 53).await);
    assert_eq!(quota.left(), 0);
    quota.set_limit(1 << 20);
    s.writer.reevaluate().await;
    assert!(arrives(&s.read[0], 53).await);
}

#[tokio::test(start_paused = true)]
async fn a_range_the_newest_and_a_quota_bound_what_is_asked_for_and_stored() {
    let written = one_feed::written(100).await;
    let size = one_feed::block(0).len() as u64;
    for (name, decision, expected) in [
        ("range", Decision::allow("desk", "some").blocks(10..20), 10),
        ("newest", Decision::allow("desk", "some").newest(7), 7),
        ("quota", Decision::allow("desk", "some").within(&Quota::of(12 * size + 1)), 12),
    ] {
        for action in [Action::Ask, Action::Accept] {
            if (name, action) == ("quota", Action::Ask) {
                continue; // it is charged when it is accepted
            }
            let read = one_feed::reader_of(&written).await;
            let desk = Desk::of(&[&read], Replicate::fully());
            desk.set(&read, action, decision.clone());
            let reader = Party::new(party_key(1), desk.clone());
            let _connections = meet(&reader, &one_feed::party_of(&written, Replicate::sparsely())).await;
            tokio::time::sleep(Duration::from_secs(600)).await; // virtual
            let stored = (0..100).filter(|index| read.has(*index)).count();
            assert_eq!(stored, expected, "{name}, {action}");
            desk.clear();
            reader.reevaluate().await;
            let rest = read.download(0..100);
            let done = tokio::time::timeout(Duration::from_secs(600), rest.done()).await;
            assert!(done.is_ok(), "{name}, {action}: {:?}", rest.progress());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_everything_gets_the_part_that_it_may_have_also_if_it_knows_nothing_before() {
    for (decision, expected) in [
        (Decision::allow("desk", "some").blocks(10..20), (10..20).collect::<Vec<_>>()),
        (Decision::allow("desk", "some").newest(3), vec![27, 28, 29]),
    ] {
        let written = one_feed::written(30).await;
        let desk = Desk::of(&[&written], Replicate::sparsely());
        desk.set(&written, Action::Serve, decision);
        let read = one_feed::reader_of(&written).await;
        let reader = one_feed::party_of(&read, Replicate::fully());
        let _connections = meet(&reader, &Party::new(party_key(1), desk)).await;
        tokio::time::sleep(Duration::from_secs(600)).await; // virtual
        let stored: Vec<u64> = (0..30).filter(|index| read.has(*index)).collect();
        assert_eq!(stored, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_allowed_while_unmetered_pauses_while_it_costs() {
    let s = scene(10).await;
    s.desk.set(&s.written[0], Action::Serve, Decision::allow("desk", "if it is free").while_unmetered());
    s.writer.reevaluate().await;
    assert!(arrives(&s.read[0], 1).await);
    assert_eq!(s.connections.1.set_metered(true).await.unwrap().stopped, 1);
    assert!(!arrives(&s.read[0], 2).await && arrives(&s.read[1], 2).await);
    assert_eq!(s.connections.1.set_metered(false).await.unwrap().started, 1);
    assert!(arrives(&s.read[0], 2).await);
}

#[tokio::test(start_paused = true)]
async fn rules_explain_themselves() {
    let s = scene(1).await;
    s.desk.deny(&s.written[0], &[Action::Serve]);
    let explained = s.writer.explain(&s.at_writer, &s.written[0].key());
    assert!(explained.is_released && explained.admit.is_allowed());
    assert_eq!(explained.of(Action::Serve), &Decision::deny("desk", "the desk is closed"));
    assert!(explained.to_string().contains("serve: denied by desk: the desk is closed"));
    let unknown = s.writer.explain(&s.at_writer, &FeedKey::from_bytes([9; 32]));
    assert!(!unknown.is_released);
    s.writer.remove_peer(&s.at_writer.remote_public_key()).await;
    assert_eq!(s.writer.explain(&s.at_writer, &s.written[0].key()).admit.rule(), "remove_peer");
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_panics_while_it_decides_denies() {
    struct Panics(Feed);
    impl Rules for Panics {
        async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
            peer.replicate(&self.0).await?;
            Ok(())
        }
        async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
            Ok(vec![self.0.key()])
        }
        async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
            Ok(Some(self.0.clone()))
        }
        fn decide(&self, _: &Question<'_>) -> Decision {
            panic!("the test panics")
        }
    }
    let written = one_feed::written(1).await;
    let read = one_feed::reader_of(&written).await;
    let reader = one_feed::party_of(&read, Replicate::fully());
    let mut events = reader.events();
    let _connections = meet(&reader, &Party::new(party_key(1), Panics(written))).await;
    let peer = peer_added(&mut events).await;
    until(&mut events, |event| matches!(event, Event::FeedRefused { .. }).then_some(())).await;
    assert_eq!(peer.introduce_feeds([]).await.unwrap(), [], "the key isn't told");
    assert!(!arrives(&read, 0).await);
}

//= PARTY-39
#[tokio::test(start_paused = true)]
async fn a_removed_peer_is_kept_out_until_it_is_readmitted() {
    let mut s = scene(10).await;
    let key = s.at_writer.remote_public_key();
    assert_eq!(s.writer.remove_peer(&key).await.stopped, 1);
    assert!(s.writer.peers().is_empty());
    until(&mut s.reader_events, |event| matches!(event, Event::PeerRemoved(_)).then_some(())).await;
    assert!(!arrives(&s.read[0], 1).await);
    assert!(!s.at_reader.is_closed(), "the connection is still there");

    // It dials again, and is answered as somebody who doesn't know the key.
    let (left, right) = connection::memory();
    let (again, refused) = tokio::join!(
        Connection::dial(left, &identity(1)).join(&s.reader).into_future(),
        Connection::accept(right, &identity(2)).join(&s.writer).into_future(),
    );
    assert!(matches!(again.unwrap().closed().await, Err(Error::Refused)));
    assert!(refused.unwrap().closed().await.is_err());

    // Under another static key it comes back: the party's key is all that counts here.
    let (left, right) = connection::memory();
    let (_again, _accepted) = tokio::join!(
        Connection::dial(left, &identity(3)).join(&s.reader).into_future(),
        Connection::accept(right, &identity(2)).join(&s.writer).into_future(),
    );
    assert_eq!(peer_added(&mut s.writer_events).await.remote_public_key(), identity(3).public());

    s.writer.readmit(&key).await;
    assert_eq!(peer_added(&mut s.writer_events).await.remote_public_key(), key);
    assert!(arrives(&s.read[0], 1).await);
}

#[tokio::test(start_paused = true)]
async fn an_allow_list_keeps_out_whom_it_does_not_list() {
    let written = one_feed::written(10).await;
    let friends = AllowPeers::new([identity(1).public()]);
    let rules = Desk::of(&[&written], Replicate::sparsely()).guarded_by(friends.clone());
    let writer = Party::new(party_key(1), rules);
    let read = one_feed::reader_of(&written).await;
    let reader = one_feed::party_of(&read, Replicate::sparsely());
    let _connections = meet(&reader, &writer).await;
    assert!(arrives(&read, 0).await);

    friends.remove(&identity(1).public());
    assert_eq!(writer.reevaluate().await.stopped, 1);
    assert!(writer.peers().is_empty());
    assert!(!arrives(&read, 1).await);
    friends.insert(identity(1).public());
    writer.reevaluate().await;
    assert!(arrives(&read, 1).await);

    // Who isn't on it comes back under no key.
    let (left, right) = connection::memory();
    let (again, _refused) = tokio::join!(
        Connection::dial(left, &identity(3)).join(&reader).into_future(),
        Connection::accept(right, &identity(2)).join(&writer).into_future(),
    );
    assert!(matches!(again.unwrap().closed().await, Err(Error::Refused)));
}

#[tokio::test(start_paused = true)]
async fn a_list_of_feeds_allows_no_others_and_may_grow_while_connected() {
    let store = Store::memory();
    let (public, private) =
        (feed_with(&store, "public", &["p0", "p1"]).await, feed_with(&store, "private", &["s0"]).await);
    let list = AllowFeeds::new([public.key()]);
    let writer = Party::new(party_key(1), rules::WholeStore::new(store).guarded_by(list.clone()));
    let there = Store::memory();
    let reader = Party::new(party_key(1), rules::WholeStore::new(there.clone()));
    let _connections = meet(&reader, &writer).await;
    let copy = there.feed(&public.key()).await.unwrap();
    assert!(arrives(&copy, 1).await);
    assert_eq!(there.list().await.unwrap().len(), 1, "the key of the other was not told");

    list.insert(private.key());
    assert_eq!(writer.reevaluate().await.started, 1);
    let copy = there.feed(&private.key()).await.unwrap();
    assert!(arrives(&copy, 0).await);
}

//= LIMIT-20
#[tokio::test(start_paused = true)]
async fn a_party_is_joined_once_on_a_connection_and_no_more_than_the_limit() {
    let s = scene(1).await;
    let error = s.connections.0.join(&s.reader).await.unwrap_err();
    assert!(matches!(error, Error::ApiMisuse(ApiMisuse::PartyJoined(_))), "{error}");
    for n in 2..=Limits::default().max_parties as u8 {
        s.connections.0.join(&Party::new(party_key(n), Desk::default())).await.unwrap();
    }
    let one_more = Party::new(party_key(255), Desk::default());
    let error = s.connections.0.join(&one_more).await.unwrap_err();
    assert!(matches!(error, Error::ApiMisuse(ApiMisuse::LimitExceeded("max_parties"))), "{error}");
}
