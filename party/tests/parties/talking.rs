//! What apps say to each other in a party: by name, to all, and to peers that are slow.

use std::{
    future::IntoFuture as _,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use crate::common::{Shared, identity, meet, party_key, peer_added, until, watched::Watched};
use party::{
    connection::{self, Connection},
    error::{ApiMisuse, Error},
    feed::{Binary, Feed, Protobuf, Utf8},
    key::{DiscoveryKey, FeedKey},
    limits::Limits,
    party::{Event, Party},
    peer::{Introduced, Message, Method, Peer},
    rules::{self, Rules},
};

fn party_of(rules: &Shared) -> Party {
    Party::new(party_key(1), rules.clone())
}

/// Everything that can run has run: time is virtual.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_said_under_a_name_comes_to_who_listens_and_to_nobody_else() {
    let rules = Shared::default();
    let (here, there) = (party_of(&Shared::default()), party_of(&rules));
    let mut events = here.events();
    let _connections = meet(&here, &there).await;
    let peer = peer_added(&mut events).await;
    let told = |rules: &Shared| rules.0.ephemeral.lock().unwrap().len();

    let (first, second, other) =
        (there.extension("typing", Utf8), there.extension("typing", Utf8), there.extension("other", Utf8));
    assert!(here.extension("typing", Utf8).send(&peer, &"alice".to_owned()).await.unwrap());
    for listener in [&first, &second] {
        let (from, name) = listener.recv().await;
        assert_eq!((from.remote_public_key(), name), (identity(1).public(), Ok("alice".to_owned())));
        from.send_ephemeral("typing", "not at all").await.unwrap();
    }
    // What is no text is the peer's doing, and told as such.
    peer.send_ephemeral("typing", &[0xff, 0xfe][..]).await.unwrap();
    assert!(first.recv().await.1.is_err() && second.recv().await.1.is_err());
    settle().await;
    assert_eq!(told(&rules), 0);

    // Who has gone doesn't listen any more, and the rules get it again.
    drop((first, second));
    peer.send_ephemeral("typing", "bob").await.unwrap();
    settle().await;
    assert_eq!(told(&rules), 1);
    let counts = peer.messages();
    assert_eq!((counts.ephemeral_sent, counts.ephemeral_received, counts.ephemeral_dropped), (3, 2, 0));
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_goes_to_every_member() {
    let speaker = party_of(&Shared::default());
    let members: Vec<Party> = (0..5).map(|_| party_of(&Shared::default())).collect();
    let listening: Vec<_> = members.iter().map(|member| member.extension("news", Binary)).collect();
    let mut connections = Vec::new();
    for member in &members {
        let mut events = speaker.events();
        connections.push(meet(&speaker, member).await);
        peer_added(&mut events).await;
    }
    assert_eq!(speaker.broadcast("news", "all of you").await.unwrap(), 5);
    for listener in &listening {
        assert_eq!(listener.recv().await.1.unwrap(), "all of you");
    }
    let too_long = speaker.broadcast("news", vec![0; Limits::default().max_party_message]).await;
    assert!(matches!(too_long, Err(Error::ApiMisuse(ApiMisuse::MessageTooLarge { .. }))));
    // Those that go are not counted.
    connections.truncate(2);
    settle().await;
    assert_eq!(speaker.broadcast("news", "who is left").await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_peer_is_cut_and_counted_and_costs_no_other() {
    let listening = party_of(&Shared::default());
    let inbox = listening.extension("flood", Utf8);
    let (loud, quiet) = (party_of(&Shared::default()), party_of(&Shared::default()));
    let (mut loud_events, mut quiet_events, mut events) = (loud.events(), quiet.events(), listening.events());
    let _loud = meet(&loud, &listening).await;
    let (loud, heard) = (peer_added(&mut loud_events).await, peer_added(&mut events).await);
    let (left, right) = party::connection::memory();
    let _quiet = tokio::try_join!(
        Connection::dial(left, &identity(3)).join(&quiet).into_future(),
        Connection::accept(right, &identity(2)).join(&listening).into_future(),
    )
    .unwrap();
    let quiet = peer_added(&mut quiet_events).await;

    let most = Limits::default().max_queued_ephemeral as u64;
    for n in 0..most + 50 {
        loud.send_ephemeral("flood", n.to_string()).await.unwrap();
    }
    quiet.send_ephemeral("flood", "excuse me").await.unwrap();
    settle().await;
    assert_eq!(heard.messages().ephemeral_dropped, 50);
    let mut came = Vec::new();
    for _ in 0..=most {
        came.push(inbox.recv().await.1.unwrap());
    }
    assert_eq!(came.pop().unwrap(), "excuse me");
    assert_eq!(came, (0..most).map(|n| n.to_string()).collect::<Vec<_>>());
    // There is room again.
    loud.send_ephemeral("flood", "more").await.unwrap();
    assert_eq!(inbox.recv().await.1.unwrap(), "more");
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_peer_does_not_take_is_dropped_and_counted() {
    let (speaking, slow) = (party_of(&Shared::default()), party_of(&Shared::default()));
    let mut events = speaking.events();
    let limits = Limits { max_unsent_bytes: 100_000, ..Limits::default() };
    let (left, right) = tokio::io::duplex(64 << 10);
    let (right, watch) = Watched::new(right);
    let _connections = tokio::try_join!(
        Connection::dial(left, &identity(1)).join(&speaking).limits(limits.clone()).into_future(),
        Connection::accept(right, &identity(2)).join(&slow).into_future(),
    )
    .unwrap();
    let peer = peer_added(&mut events).await;
    settle().await;
    watch.is_stalled.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for _ in 0..1_000 {
        sent += u64::from(peer.send_ephemeral("news", vec![0; 1_000]).await.unwrap());
    }
    let counts = peer.messages();
    assert_eq!((counts.ephemeral_sent, counts.ephemeral_unsent), (sent, 1_000 - sent));
    // What is kept is the limit, and what the transport holds.
    let kept = sent as usize * 1_000;
    assert!((limits.max_unsent_bytes..limits.max_unsent_bytes + (128 << 10)).contains(&kept), "{kept}");
    assert_eq!(speaking.broadcast("news", "nobody hears it").await.unwrap(), 0);
}

/// Between an answer and the next request the asking end is done, for a moment in which the app hasn't had its turn.
#[tokio::test(start_paused = true)]
async fn who_asks_one_by_one_says_nothing_in_between() {
    const REQUESTS: usize = 100;
    let (asking, answering) = (party_of(&Shared::default()), party_of(&Shared::default()));
    let mut events = asking.events();
    let (left, right) = connection::memory();
    let (left, watch) = Watched::new(left);
    let _connections = tokio::try_join!(
        Connection::dial(left, &identity(1)).join(&asking).into_future(),
        Connection::accept(right, &identity(2)).join(&answering).into_future(),
    )
    .unwrap();
    let peer = peer_added(&mut events).await;
    settle().await;
    let before = watch.writes();
    for _ in 0..REQUESTS {
        peer.request("echo", "hello").await.unwrap();
    }
    settle().await;
    let written = watch.writes() - before;
    assert!((REQUESTS..=REQUESTS + 1).contains(&written), "{written}, of which one says that it is done");
}

const DOUBLE: Method<Utf8, Protobuf<u64>> = Method::new("double", Utf8, Protobuf::new());

/// Doubles numbers that are given as text. Zero it answers with what is no protobuf.
struct Doubles;

impl Rules for Doubles {
    async fn handshake(&self, _: &Peer) -> rules::Result<()> {
        Ok(())
    }

    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(vec![])
    }

    async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(None)
    }

    async fn request(&self, _: &Peer, message: Message) -> rules::Result<Message> {
        match DOUBLE.question(&message)?.parse::<u64>()? {
            0 => Ok(Message::new(DOUBLE.kind(), &[0xff][..])),
            number => Ok(DOUBLE.answer(&(2 * number))?),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_carry_values() {
    let (asking, answering) = (party_of(&Shared::default()), Party::new(party_key(1), Doubles));
    let (mut events, mut failures) = (asking.events(), answering.events());
    let _connections = meet(&asking, &answering).await;
    let peer = peer_added(&mut events).await;
    assert_eq!(peer.call(&DOUBLE, &"21".to_owned()).await.unwrap(), 42);
    assert!(matches!(peer.call(&DOUBLE, &"0".to_owned()).await, Err(Error::MessageNotDecodable { .. })));
    // What can't be read is refused, and the app hears why.
    assert!(matches!(peer.request("double", &[0xff][..]).await, Err(Error::Refused)));
    let why = until(&mut failures, |event| match event {
        Event::RuleFailed { failure, .. } => Some(failure.to_string()),
        _ => None,
    })
    .await;
    assert!(why.contains("double"), "{why}");
    assert_eq!((peer.messages().requests_sent, peer.messages().requests_received), (3, 0));
}

/// Writes down what it is brought, and answers with a feed that has a label and one that has none.
#[derive(Clone, Default)]
struct Labels(Arc<Mutex<Vec<Introduced>>>);

impl Rules for Labels {
    async fn handshake(&self, _: &Peer) -> rules::Result<()> {
        Ok(())
    }

    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Err(rules::Denied::because("it is asked with labels"))
    }

    async fn introduce_labelled(&self, _: &Peer, feeds: Vec<Introduced>) -> rules::Result<Vec<Introduced>> {
        self.0.lock().unwrap().extend(feeds);
        Ok(vec![labelled(8, "mine"), FeedKey::from_bytes([9; 32]).into()])
    }

    async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(None)
    }
}

fn labelled(n: u8, label: &str) -> Introduced {
    Introduced::new(FeedKey::from_bytes([n; 32])).labelled(label)
}

//= protocol-spec/08-party.md#introduction
#[tokio::test(start_paused = true)]
async fn feeds_are_introduced_with_labels_in_both_directions() {
    let heard = Labels::default();
    // Also through a policy, which passes on what it allows.
    let allowed = rules::AllowFeeds::new([1, 2, 8, 9].map(|n| FeedKey::from_bytes([n; 32])));
    let asking = party_of(&Shared::default());
    let answering = Party::new(party_key(1), heard.clone().guarded_by(allowed));
    let mut events = asking.events();
    let _connections = meet(&asking, &answering).await;
    let peer = peer_added(&mut events).await;
    let brought = [labelled(1, "notes"), labelled(2, ""), labelled(3, "not for you")];
    let answer = peer.introduce_labelled(brought.clone()).await.unwrap();
    assert_eq!(answer, [labelled(8, "mine"), labelled(9, "")]);
    assert_eq!(*heard.0.lock().unwrap(), brought[..2]);
    // Who doesn't care about labels sees the keys, and whoever asks without is answered.
    let keys = peer.introduce_feeds([FeedKey::from_bytes([1; 32])]).await.unwrap();
    assert_eq!(keys, [8, 9].map(|n| FeedKey::from_bytes([n; 32])));
    let too_long = peer.introduce_labelled([labelled(1, &"l".repeat(257))]).await;
    assert!(matches!(too_long, Err(Error::ApiMisuse(ApiMisuse::LimitExceeded("max_label")))));
}

#[tokio::test(start_paused = true)]
async fn rules_without_labels_are_brought_the_keys_and_answer_with_keys() {
    let rules = Shared::default();
    let asking = party_of(&Shared::default());
    let mut events = asking.events();
    let _connections = meet(&asking, &party_of(&rules)).await;
    let peer = peer_added(&mut events).await;
    let answer = peer.introduce_labelled([labelled(1, "one"), labelled(2, "two")]).await.unwrap();
    assert_eq!(answer, [labelled(2, ""), labelled(1, "")]);
}
