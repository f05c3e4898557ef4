//! Of a feed of which the rules allow a part, a reader is told of that part: it gets all of it, asks for nothing else, and is done.

use std::{
    future::IntoFuture as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::{identity, one_feed, party_key, until};
use party::{
    connection::{self, Connection},
    feed::Feed,
    party::{Event, Party},
    peer::{Link, LinkStatus, Replicate},
    rules::{Action, Decision, Policy, Question, Quota, Rules as _},
};

/// More than a reader lets itself be refused before it leaves a peer in peace.
const BLOCKS: u64 = 1_000;

/// What is decided on serving; everything else is allowed.
#[derive(Clone)]
struct Desk(Arc<Mutex<Decision>>);

impl Desk {
    fn of(decision: Decision) -> Self {
        Self(Arc::new(Mutex::new(decision)))
    }
}

impl Policy for Desk {
    fn decide(&self, question: &Question<'_>) -> Decision {
        match question.action {
            Action::Serve => self.0.lock().unwrap().clone(),
            _ => Decision::allow("desk", "nobody minds"),
        }
    }
}

fn some() -> Decision {
    Decision::allow("desk", "some of it")
}

/// A writer that serves what the desk allows, and a reader that wants everything.
struct Scene {
    desk: Desk,
    party: Party,
    written: Feed,
    read: Feed,
    connections: (Connection, Connection),
}

async fn scene(decision: Decision, finite: bool) -> Scene {
    let (written, desk) = (one_feed::written(BLOCKS).await, Desk::of(decision));
    let read = one_feed::reader_of(&written).await;
    let rules = one_feed::One(written.clone(), Replicate::fully()).guarded_by(desk.clone());
    let (party, reader) = (Party::new(party_key(1), rules), one_feed::party_of(&read, Replicate::fully()));
    let mut events = reader.events();
    let ((left, right), keys) = (connection::memory(), (identity(1), identity(2)));
    let dial = Connection::dial(left, &keys.0).join(&reader);
    let accept = Connection::accept(right, &keys.1).join(&party);
    let (dial, accept) = if finite { (dial.finite(), accept.finite()) } else { (dial, accept) };
    let connections = tokio::try_join!(dial.into_future(), accept.into_future()).unwrap();
    until(&mut events, |event| matches!(event, Event::FeedOpened { .. }).then_some(())).await;
    Scene { desk, party, written, read, connections }
}

impl Scene {
    async fn decide(&self, decision: Decision) {
        *self.desk.0.lock().unwrap() = decision;
        self.party.reevaluate().await;
    }

    /// What the reader has when nothing more happens for a while that is shorter than that after which it asks again for what it
    /// was refused.
    async fn has(&self) -> Vec<u64> {
        tokio::time::sleep(Duration::from_secs(1)).await; // virtual
        (0..self.read.info().length).filter(|index| self.read.has(*index)).collect()
    }

    fn at_writer(&self) -> Link {
        self.written.peers()[0].clone()
    }

    fn at_reader(&self) -> LinkStatus {
        self.read.peers()[0].status()
    }

    fn refused(&self) -> u64 {
        self.at_writer().traffic().refused_by_us
    }
}

//= PARTY-118
#[tokio::test(start_paused = true)]
async fn a_reader_gets_what_it_may_have_and_asks_for_nothing_else() {
    for (decision, expected) in [
        (some().blocks(700..900), 700..900),
        (some().blocks(0..10), 0..10),
        (some().newest(100), BLOCKS - 100..BLOCKS),
        (some().blocks(5..5), 5..5),
    ] {
        let s = scene(decision, false).await;
        assert_eq!(s.has().await, expected.clone().collect::<Vec<_>>());
        assert_eq!(s.refused(), 0);
        assert_eq!(s.read.info().length, BLOCKS, "how long it is, is no secret");
        assert!(s.at_reader().in_sync, "{expected:?}");
    }
}

//= PARTY-82, PARTY-118
#[tokio::test(start_paused = true)]
async fn a_finite_connection_ends_when_what_may_be_had_is_there() {
    let s = scene(some().blocks(700..900), true).await;
    s.connections.0.closed().await.unwrap();
    s.connections.1.closed().await.unwrap();
    assert_eq!((0..BLOCKS).filter(|index| s.read.has(*index)).count(), 200);
}

//= PARTY-102, PARTY-118
#[tokio::test(start_paused = true)]
async fn what_may_be_had_comes_and_goes_with_the_rules() {
    let s = scene(some().blocks(100..200), false).await;
    assert_eq!(s.has().await.len(), 100);
    s.decide(some().blocks(0..150)).await;
    assert_eq!(s.has().await, (0..200).collect::<Vec<_>>());
    // What it may not have any more it keeps, and if it is gone there, it is not asked for.
    s.read.clear(0..200).await.unwrap();
    assert_eq!(s.has().await, (0..150).collect::<Vec<_>>());
    // Nor does it hold against the writer what it had asked for just before.
    s.read.clear(0..150).await.unwrap();
    s.decide(some().blocks(180..300)).await;
    assert_eq!(s.has().await, (180..300).collect::<Vec<_>>());
    s.decide(Decision::allow("desk", "all of it")).await;
    assert_eq!(s.has().await.len() as u64, BLOCKS);
    assert!(s.refused() <= 150, "{}", s.refused());
}

//= PARTY-118
#[tokio::test(start_paused = true)]
async fn the_newest_move_on_with_the_feed() {
    let s = scene(some().newest(10), false).await;
    assert_eq!(s.has().await, (BLOCKS - 10..BLOCKS).collect::<Vec<_>>());
    s.written.append_batch((BLOCKS..BLOCKS + 4).map(one_feed::block).collect()).await.unwrap();
    assert_eq!(s.has().await, (BLOCKS - 10..BLOCKS + 4).collect::<Vec<_>>());
    s.read.clear(0..BLOCKS).await.unwrap();
    assert_eq!(s.has().await, (BLOCKS - 6..BLOCKS + 4).collect::<Vec<_>>());
    assert_eq!(s.refused(), 0);
}

//= PARTY-118
#[tokio::test(start_paused = true)]
async fn a_quota_that_is_used_up_ends_the_asking_and_one_that_grows_begins_it_anew() {
    let size = one_feed::block(0).len() as u64;
    // Half a block is left in the end.
    let quota = Quota::of(100 * size + size / 2);
    let s = scene(some().within(&quota), false).await;
    assert_eq!(s.has().await.len(), 100);
    let refused = s.refused();
    assert!(refused <= 512, "what was under way: {refused}");
    tokio::time::sleep(Duration::from_secs(3_600)).await; // virtual
    assert_eq!(s.refused(), refused);

    quota.set_limit(u64::MAX);
    s.party.reevaluate().await;
    assert_eq!(s.has().await.len() as u64, BLOCKS);
    assert!(s.at_reader().in_sync);
}
