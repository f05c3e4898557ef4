//! The order of events: what comes before what, whatever arrives when. See
//! `protocol-spec/08-party.md#the-order-of-events`.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::{feed_with, identity, party_key, raw::RawPeer};
use party::{
    admission::{self, Hello, membership},
    connection::{self, Connection},
    encoding::Writer as _,
    feed::Feed,
    key::{DiscoveryKey, FeedKey},
    limits::Limits,
    mux::{ChannelId, CloseReason, Event as MuxEvent},
    party::Party,
    peer::{Message, Peer},
    replication,
    rules::{self, Decision, Rules},
    store::Store,
};
use tokio::time::sleep;

const RESPONSE: u64 = 1;
const EPHEMERAL: u64 = 3;
const FINISH: u64 = 4;

/// Rules that note what they are asked, and wait for ever in one of them if they are told to.
#[derive(Clone, Default)]
struct Noting {
    asked: Arc<Mutex<Vec<&'static str>>>,
    excludes: bool,
    hangs_in: Option<&'static str>,
    /// What is found, whatever is looked for.
    found: Option<Feed>,
    /// Released by a request before it is answered.
    released: Option<Feed>,
}

impl Noting {
    async fn note(&self, rule: &'static str) {
        self.asked.lock().unwrap().push(rule);
        if self.hangs_in == Some(rule) {
            std::future::pending::<()>().await;
        }
    }

    fn asked(&self) -> Vec<&'static str> {
        self.asked.lock().unwrap().clone()
    }
}

impl Rules for Noting {
    fn admit(&self, _: &Peer) -> Decision {
        self.asked.lock().unwrap().push("admit");
        if self.excludes { Decision::deny("noting", "nobody") } else { Decision::allow("noting", "anybody") }
    }
    async fn vet(&self, _: &Peer) -> rules::Result<()> {
        self.note("vet").await;
        Ok(())
    }
    async fn ready(&self, _: &Peer) -> rules::Result<()> {
        self.note("ready").await;
        Ok(())
    }
    async fn handshake(&self, _: &Peer) -> rules::Result<()> {
        self.note("handshake").await;
        Ok(())
    }
    async fn introduce_feeds(&self, _: &Peer, keys: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        self.note("introduce_feeds").await;
        Ok(keys)
    }
    async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        self.note("find_feed").await;
        Ok(self.found.clone())
    }
    async fn request(&self, peer: &Peer, message: Message) -> rules::Result<Message> {
        self.note("request").await;
        peer.send_ephemeral("before", vec![]).await?;
        if let Some(feed) = &self.released {
            peer.replicate(feed).await?;
        }
        Ok(message)
    }
}

/// Somebody dials, by hand, whoever has these rules in its parties 1, 2, and so on.
async fn dial(rules: &[Noting], limits: Limits) -> (RawPeer, Connection, Vec<Party>) {
    let parties: Vec<Party> =
        (1..).zip(rules).map(|(n, rules)| Party::new(party_key(n), rules.clone())).collect();
    let (left, right) = connection::memory();
    let mut accepting = Connection::accept(right, &identity(2)).limits(limits);
    for party in &parties {
        accepting = accepting.join(party);
    }
    let accepting = tokio::spawn(async move { accepting.await.unwrap() });
    let dialler = RawPeer::dial(left, &identity(1)).await;
    (dialler, accepting.await.unwrap(), parties)
}

/// Offers party `n`, by its right id and with this proof.
async fn offer(dialler: &mut RawPeer, n: u8, proof: Option<[u8; 32]>) -> ChannelId {
    let session = dialler.session().clone();
    let id = membership::channel_id(&session, &party_key(n));
    let hello = Hello::new(proof.unwrap_or_else(|| membership::prove(&session, &party_key(n)))).encode();
    let channel = dialler.mux.open(admission::PROTOCOL, Some(&id), &hello).unwrap();
    dialler.flush().await;
    channel
}

/// Is admitted to party `n`.
async fn join(dialler: &mut RawPeer, n: u8) -> ChannelId {
    let channel = offer(dialler, n, None).await;
    loop {
        match dialler.event().await.expect("the connection lives") {
            MuxEvent::Opened { channel: opened, .. } if opened == channel => return channel,
            MuxEvent::Message { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// All that can run has run, after so long in virtual time.
async fn settle(time: Duration) {
    sleep(time).await;
}

const MOMENT: Duration = Duration::from_millis(1);

/// A request of the kind `kind`, as protobuf.
fn request(id: u8, kind: &str) -> Vec<u8> {
    let mut custom = vec![0x0a];
    custom.put_string(kind);
    let mut request = vec![0x08, id, 0x1a];
    request.put_buffer(&custom);
    request
}

//= PARTY-110
#[tokio::test(start_paused = true)]
async fn nobody_is_asked_about_who_has_not_proved_that_it_knows_the_party() {
    let rules = Noting::default();
    let (mut dialler, _connection, _parties) = dial(std::slice::from_ref(&rules), Limits::default()).await;
    for n in [1, 9] {
        offer(&mut dialler, n, Some([7; 32])).await;
        let event = dialler.event().await;
        assert!(matches!(event, Some(MuxEvent::Closed { reason: CloseReason::Rejected, .. })), "{event:?}");
    }
    settle(MOMENT).await;
    assert_eq!(rules.asked(), [""; 0]);
    join(&mut dialler, 1).await;
    settle(MOMENT).await;
    assert_eq!(rules.asked(), ["admit", "vet", "ready", "handshake"]);
}

//= PARTY-111
#[tokio::test(start_paused = true)]
async fn of_who_is_not_let_in_no_further_rule_is_asked() {
    let rules = Noting { excludes: true, ..Noting::default() };
    let (mut dialler, _connection, parties) = dial(std::slice::from_ref(&rules), Limits::default()).await;
    offer(&mut dialler, 1, None).await;
    let event = dialler.event().await;
    assert!(matches!(event, Some(MuxEvent::Closed { reason: CloseReason::Rejected, .. })), "{event:?}");
    let handshake = replication::handshake(dialler.session(), &FeedKey::from_bytes([5; 32]));
    dialler.mux.open(replication::PROTOCOL, Some(&[5; 32]), &handshake).unwrap();
    dialler.flush().await;
    settle(MOMENT).await;
    assert_eq!(rules.asked(), ["admit"]);
    assert!(parties[0].peers().is_empty());
}

//= PARTY-112
#[tokio::test(start_paused = true)]
async fn each_of_the_first_rules_waits_for_the_one_before() {
    for (hangs_in, expected) in [
        (Some("vet"), &["admit", "vet"][..]),
        (Some("ready"), &["admit", "vet", "ready"]),
        (None, &["admit", "vet", "ready", "handshake"]),
    ] {
        let rules = Noting { hangs_in, ..Noting::default() };
        let (mut dialler, _connection, parties) = dial(std::slice::from_ref(&rules), Limits::default()).await;
        join(&mut dialler, 1).await;
        settle(Limits::default().rule_timeout / 2).await;
        assert_eq!(rules.asked(), expected);
        assert_eq!(
            parties[0].peers().is_empty(),
            hangs_in == Some("vet"),
            "the app sees it when it is vetted"
        );
    }
}

//= PARTY-117
#[tokio::test(start_paused = true)]
async fn an_answer_comes_after_what_its_rule_had_sent() {
    let feed = feed_with(&Store::memory(), "feed", &["one"]).await;
    let rules = Noting { released: Some(feed.clone()), ..Noting::default() };
    let (mut dialler, _connection, _parties) = dial(&[rules], Limits::default()).await;
    let channel = join(&mut dialler, 1).await;
    for id in 1..=3 {
        dialler.mux.send(channel, 0, &request(id, "ask")).unwrap();
    }
    dialler.flush().await;
    let (mut sent, mut opened, mut answered) = (0, false, 0);
    while answered < 3 {
        match dialler.event().await.expect("the connection lives") {
            MuxEvent::Incoming { protocol, .. } => {
                assert_eq!(protocol, replication::PROTOCOL);
                opened = true;
            }
            MuxEvent::Message { message_type: EPHEMERAL, .. } => sent += 1,
            MuxEvent::Message { message_type: RESPONSE, .. } => {
                answered += 1;
                // The requests are answered in whatever order, each after its own.
                assert!(sent >= answered && opened, "{sent} sent, {answered} answered");
            }
            MuxEvent::Message { message_type: FINISH, .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

//= PARTY-79
#[tokio::test(start_paused = true)]
async fn who_is_done_in_one_party_of_two_says_so_in_neither() {
    let rules = [Noting::default(), Noting { hangs_in: Some("handshake"), ..Noting::default() }];
    let (mut dialler, _connection, _parties) = dial(&rules, Limits::default()).await;
    let mut finished = Vec::new();
    join(&mut dialler, 2).await;
    join(&mut dialler, 1).await;
    settle(Limits::default().rule_timeout / 2).await;
    assert_eq!(rules[0].asked(), ["admit", "vet", "ready", "handshake"]);
    // A barrier: what it had to say is said before it rejects this.
    let barrier = dialler.mux.open("barrier", None, &[]).unwrap();
    dialler.flush().await;
    loop {
        match dialler.event().await.expect("the connection lives") {
            MuxEvent::Closed { channel, .. } if channel == barrier => break,
            MuxEvent::Message { channel, message_type: FINISH, .. } => finished.push(channel),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(finished, [], "party 1 is not done as long as party 2 isn't");
}

//= PARTY-90
#[tokio::test(start_paused = true)]
async fn a_feed_that_is_found_and_is_another_one_is_none() {
    let store = Store::memory();
    let (asked, found) = (feed_with(&store, "asked", &["a"]).await, feed_with(&store, "found", &["f"]).await);
    // It knows the keys of both, and proves that it knows the one that is found.
    for (found, is_opened) in [(&found, false), (&asked, true)] {
        let rules = Noting { found: Some(found.clone()), ..Noting::default() };
        let (mut dialler, _connection, parties) = dial(std::slice::from_ref(&rules), Limits::default()).await;
        join(&mut dialler, 1).await;
        let handshake = replication::handshake(dialler.session(), &found.key());
        let id = asked.discovery_key();
        let channel = dialler.mux.open(replication::PROTOCOL, Some(id.as_bytes()), &handshake).unwrap();
        dialler.flush().await;
        let opened = loop {
            match dialler.event().await.expect("the connection lives") {
                MuxEvent::Opened { channel: opened, .. } if opened == channel => break true,
                MuxEvent::Closed { channel: closed, .. } if closed == channel => break false,
                MuxEvent::Message { .. } => {}
                // A feed that nobody has asked for.
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(opened, is_opened);
        assert_eq!(
            parties[0].peers()[0].feed(found).is_some(),
            is_opened,
            "what was found is released or not"
        );
        assert!(rules.asked().contains(&"find_feed"));
    }
}

//= LIMIT-22
#[tokio::test(start_paused = true)]
async fn beyond_the_limit_of_released_feeds_an_open_is_refused_as_any_other() {
    let store = Store::memory();
    let (first, second) = (feed_with(&store, "a", &["a"]).await, feed_with(&store, "b", &["b"]).await);
    let limits = Limits { max_released_feeds: 1, ..Limits::default() };
    let rules = Noting { found: Some(second.clone()), released: Some(first.clone()), ..Noting::default() };
    let (mut dialler, _connection, _parties) = dial(&[rules], limits).await;
    let channel = join(&mut dialler, 1).await;
    dialler.mux.send(channel, 0, &request(1, "ask")).unwrap();
    dialler.flush().await;
    loop {
        match dialler.event().await.expect("the connection lives") {
            MuxEvent::Message { message_type: RESPONSE, .. } => break,
            MuxEvent::Incoming { .. } | MuxEvent::Message { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let handshake = replication::handshake(dialler.session(), &second.key());
    let id = second.discovery_key();
    let open = dialler.mux.open(replication::PROTOCOL, Some(id.as_bytes()), &handshake).unwrap();
    dialler.flush().await;
    loop {
        match dialler.event().await.expect("the connection lives") {
            MuxEvent::Closed { channel, reason } => {
                break assert_eq!((channel, reason), (open, CloseReason::Rejected));
            }
            MuxEvent::Message { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

//= LIMIT-21
#[tokio::test(start_paused = true)]
async fn a_request_that_no_rule_decides_on_is_answered_with_a_timeout_in_time() {
    const ERROR: u64 = 2;
    let rules = Noting { hangs_in: Some("request"), ..Noting::default() };
    let (mut dialler, _connection, _parties) = dial(&[rules], Limits::default()).await;
    let channel = join(&mut dialler, 1).await;
    dialler.mux.send(channel, 0, &request(1, "ask")).unwrap();
    dialler.flush().await;
    settle(Limits::default().rule_timeout + MOMENT).await;
    loop {
        match dialler.event().await.expect("the connection lives") {
            // Error { id: 1, code: TIMEOUT }
            MuxEvent::Message { message_type: ERROR, payload, .. } => {
                break assert_eq!(payload[..], [8, 1, 16, 2]);
            }
            MuxEvent::Message { message_type: FINISH, .. } => {}
            other => panic!("{other:?}"),
        }
    }
}
