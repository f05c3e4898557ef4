//! Peers that do what no peer does. Each ends in a typed error, or in nothing at all; none costs memory.
#![allow(clippy::disallowed_methods)] // the time is virtual where it is looked at

mod common;

use bytes::Bytes;
use common::{Shared, identity, party_key, raw::RawPeer};
use party::{
    connection::{self, Connection},
    encoding::{MAX_SAFE_INTEGER, Writer as _},
    error::{DecodeError, Error, PeerMisbehaved},
    feed::{
        manifest::Manifest,
        proof::{BlockProof, HashProof, UpgradeProof},
    },
    key::KeyPair,
    mux::Event as MuxEvent,
    party::{Event, Open, Party},
    replication::{
        self,
        messages::{Message, Range},
    },
    rules::WholeStore,
    store::Store,
};
use tokio::{io::DuplexStream, task::JoinHandle};

type Outcome = Result<(), Error>;

/// A victim in open mode that serves a store with one feed of three blocks.
async fn victim(io: DuplexStream) -> (JoinHandle<Outcome>, party::feed::Feed, party::party::Events) {
    let store = Store::memory();
    let feed = common::feed_with(&store, "feed", &["zero", "one", "two"]).await;
    let open = Open::new(WholeStore::new(store));
    let events = open.events();
    let task =
        tokio::spawn(async move { Connection::accept(io, &identity(2)).open(&open).await?.closed().await });
    (task, feed, events)
}

async fn attack(message: &[u8]) -> Outcome {
    let (left, right) = connection::memory();
    let (victim, _, _) = victim(right).await;
    let mut attacker = RawPeer::dial(left, &identity(1)).await;
    attacker.say(message).await;
    attacker.hear_all().await;
    victim.await.unwrap()
}

/// A Protomux open with this id, written by hand.
fn open(id: u64, protocol: &str) -> Vec<u8> {
    let mut message = vec![0, 1];
    message.push(0xff);
    message.extend_from_slice(&id.to_le_bytes());
    message.put_string(protocol);
    message.put_optional_buffer(None);
    message
}

#[tokio::test(start_paused = true)]
async fn an_open_with_a_huge_id_ends_the_connection() {
    for id in [1 << 31, 1 << 40, MAX_SAFE_INTEGER] {
        let error = attack(&open(id, "x")).await.unwrap_err();
        assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::InvalidOpen)), "{error}");
    }
    let error = attack(&open(u64::MAX, "x")).await.unwrap_err();
    assert!(matches!(error, Error::Decode(DecodeError::IntegerTooLarge)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_with_a_length_beyond_its_end_ends_the_connection() {
    let error = attack(&[0, 0, 1, 200, 0, 0]).await.unwrap_err();
    assert!(matches!(error, Error::Decode(DecodeError::UnexpectedEnd)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_reject_of_an_unknown_channel_ends_the_connection() {
    let error = attack(&[0, 2, 77]).await.unwrap_err();
    assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::UnknownReject)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_header_that_is_none_ends_the_connection() {
    // The raw peer's own header is already on its way; so this one speaks Noise only.
    use bytes::BytesMut;
    use party::{
        limits::Limits,
        noise::{Handshake, HandshakeConfig, Progress},
    };
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    for header in [vec![5, 0, 0, 1, 2, 3, 4, 5], [&[56, 0, 0][..], &[9; 56]].concat()] {
        let (mut left, right) = connection::memory();
        let (victim, _, _) = victim(right).await;
        let config = HandshakeConfig::xx(true, KeyPair::from_seed(&[1; 32]), [7; 32]);
        let mut handshake = Handshake::new(config, &Limits::default()).unwrap();
        let mut input = BytesMut::new();
        let last = loop {
            if let Some(bytes) = handshake.poll_transmit() {
                left.write_all(&bytes).await.unwrap();
            }
            left.read_buf(&mut input).await.unwrap();
            match handshake.handle_input(&mut input).unwrap() {
                Progress::Pending(next) => handshake = next,
                Progress::Established(mut stream) => break stream.outgoing().split(),
            }
        };
        // All but the header, which is the last frame of 3 + 56 bytes.
        left.write_all(&last[..last.len() - 59]).await.unwrap();
        left.write_all(&header).await.unwrap();
        let error = victim.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::WrongStreamHeader)), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_never_comes_is_given_up_in_time() {
    let (left, right) = connection::memory();
    let (victim, _, _) = victim(right).await;
    let mut attacker = RawPeer::dial(left, &identity(1)).await;
    attacker.say_raw(&[0xff, 0xff, 0xff, 1, 2, 3]).await;
    let error = victim.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Timeout), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_never_goes_on_is_given_up_in_time() {
    let (left, right) = connection::memory();
    let (victim, _, _) = victim(right).await;
    let error = victim.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Timeout), "{error}");
    drop(left);
}

#[tokio::test(start_paused = true)]
async fn opens_of_unknown_protocols_without_end_are_each_rejected() {
    let (left, right) = connection::memory();
    let (victim, feed, _) = victim(right).await;
    let mut attacker = RawPeer::dial(left, &identity(1)).await;
    // 200,000 opens, a thousand at a time, always with the same thousand ids: each is free after its reject.
    for _ in 0..200 {
        for id in 1..=1000 {
            let mut message = vec![0, 1];
            message.put_uint(id);
            message.put_string("unknown/1");
            message.put_optional_buffer(Some(&id.to_le_bytes()));
            attacker.stream.seal(&message).unwrap();
        }
        attacker.flush().await;
        let mut rejected = 0;
        while rejected < 1000 {
            let message = attacker.hear().await.expect("the connection lives");
            rejected += count_rejects(&message);
        }
    }
    assert_eq!(serves(&mut attacker, &feed).await, "one");
    drop(attacker);
    victim.await.unwrap().unwrap();
}

fn count_rejects(message: &[u8]) -> usize {
    use party::encoding::Reader;
    let mut reader = Reader::new(message);
    match (reader.uint().unwrap(), reader.uint().unwrap()) {
        (0, 2) => 1,
        (0, 0) => {
            let mut rejects = 0;
            let mut channel = reader.uint().unwrap();
            while !reader.is_empty() {
                match reader.buffer().unwrap() {
                    [] => channel = reader.uint().unwrap(),
                    [2, ..] if channel == 0 => rejects += 1,
                    other => panic!("{other:?}"),
                }
            }
            rejects
        }
        other => panic!("{other:?}"),
    }
}

/// Opens the feed as an honest peer does and gets block 1.
async fn serves(peer: &mut RawPeer, feed: &party::feed::Feed) -> Bytes {
    use party::replication::messages::{Message, Request};
    let (channel, _) = open_feed(peer, feed).await;
    let request = Request {
        id: 7,
        fork: 0,
        proof: party::feed::proof::ProofRequest {
            block: Some(party::feed::proof::BlockRequest { index: 1, nodes: 1 }),
            ..Default::default()
        },
        priority: 0,
    };
    say(peer, channel, Message::Request(request)).await;
    loop {
        if let Message::Data(data) = heard(peer, channel).await {
            return data.proof.block.unwrap().value;
        }
    }
}

fn handshake_for(peer: &RawPeer, feed: &party::feed::Feed) -> Vec<u8> {
    replication::handshake(peer.session(), &feed.key())
}

async fn open_feed(peer: &mut RawPeer, feed: &party::feed::Feed) -> (party::mux::ChannelId, Bytes) {
    let handshake = handshake_for(peer, feed);
    let id = *feed.discovery_key().as_bytes();
    let ours = peer.mux.open(replication::PROTOCOL, Some(&id), &handshake).unwrap();
    peer.flush().await;
    loop {
        match peer.event().await.expect("the connection lives") {
            MuxEvent::Opened { channel, handshake } if channel == ours => return (channel, handshake),
            _ => {}
        }
    }
}

async fn say(peer: &mut RawPeer, channel: party::mux::ChannelId, message: replication::messages::Message) {
    peer.mux.send(channel, message.message_type(), &message.encode()).unwrap();
    peer.flush().await;
}

async fn heard(peer: &mut RawPeer, channel: party::mux::ChannelId) -> replication::messages::Message {
    loop {
        match peer.event().await.expect("the connection lives") {
            MuxEvent::Message { channel: from, message_type, payload } if from == channel => {
                let message =
                    replication::messages::Message::decode(message_type, &payload, true, &Default::default());
                return message.unwrap().expect("a known message type");
            }
            MuxEvent::Closed { channel: closed, .. } => assert_ne!(closed, channel, "the channel lives"),
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_strange_but_harmless_costs_nothing() {
    use party::{
        feed::proof::{BlockRequest, ProofRequest},
        replication::messages::{Message, Range, Request},
    };

    let (left, right) = connection::memory();
    let (victim, feed, _) = victim(right).await;
    let mut peer = RawPeer::dial(left, &identity(1)).await;

    // A close of an id that was never opened, and a message to one.
    peer.say(&[0, 3, 99]).await;
    peer.say(&[99, 0, 1, 2, 3]).await;

    let (channel, _) = open_feed(&mut peer, &feed).await;
    let range = Range { drop: false, start: 1 << 20, length: 1 << 40 };
    say(&mut peer, channel, Message::Range(range)).await;

    let proof = ProofRequest {
        block: Some(BlockRequest { index: MAX_SAFE_INTEGER, nodes: 0 }),
        ..Default::default()
    };
    say(&mut peer, channel, Message::Request(Request { id: 3, fork: 0, proof, priority: 0 })).await;
    loop {
        match heard(&mut peer, channel).await {
            Message::NoData(no_data) => {
                assert_eq!(no_data.request, 3);
                break;
            }
            Message::Data(data) => panic!("{data:?}"),
            _ => {}
        }
    }
    drop(peer);
    victim.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_empty_upgrade_closes_the_channel_and_not_the_connection() {
    use party::{
        feed::proof::{Proof, UpgradeProof},
        replication::messages::{Data, Message, Sync},
    };

    // The victim reads a feed that the attacker knows.
    let store = Store::memory();
    let other = Store::memory();
    let feed = common::feed_with(&other, "feed", &["block"]).await;
    store.feed(&feed.key()).await.unwrap();
    let open = Open::new(WholeStore::new(store));
    let mut events = open.events();
    let (left, right) = connection::memory();
    let victim =
        tokio::spawn(
            async move { Connection::accept(right, &identity(2)).open(&open).await?.closed().await },
        );
    let mut peer = RawPeer::dial(left, &identity(1)).await;
    let (channel, _) = open_feed(&mut peer, &feed).await;
    let sync = Sync {
        fork: 0,
        length: 5,
        remote_length: 0,
        can_upgrade: true,
        uploading: true,
        downloading: true,
        has_manifest: true,
        allow_push: false,
    };
    say(&mut peer, channel, Message::Sync(sync)).await;
    let request = loop {
        if let Message::Request(request) = heard(&mut peer, channel).await {
            break request;
        }
    };
    let upgrade = UpgradeProof {
        start: 0,
        length: 0,
        nodes: vec![],
        additional_nodes: vec![],
        signature: Bytes::from_static(&[0; 64]),
    };
    let proof = Proof { upgrade: Some(upgrade), ..Proof::default() };
    say(&mut peer, channel, Message::Data(Data { request: request.id, proof })).await;

    let closed = loop {
        if let Some(MuxEvent::Closed { channel, .. }) = peer.event().await {
            break channel;
        }
    };
    assert_eq!(closed, channel);
    let error = common::until(&mut events, |event| match event {
        Event::ChannelFailed { feed: Some(_), error, .. } => Some(error),
        _ => None,
    })
    .await;
    assert!(matches!(error, Error::PeerMisbehaved(_) | Error::Decode(_)), "{error}");
    // The connection lives: it answers.
    peer.say(&[0, 1, 9, 1, b'x', 0]).await;
    drop(peer);
    let _ = victim.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wrong_capability_is_refused_as_an_unknown_feed_is() {
    let (left, right) = connection::memory();
    let (victim, feed, _) = victim(right).await;
    let mut peer = RawPeer::dial(left, &identity(1)).await;
    let mut handshake = handshake_for(&peer, &feed);
    *handshake.last_mut().unwrap() ^= 1;
    let id = *feed.discovery_key().as_bytes();
    for (id, handshake) in [(id, handshake), ([7; 32], vec![0; 33]), (id, vec![])] {
        peer.mux.open(replication::PROTOCOL, Some(&id), &handshake).unwrap();
        peer.flush().await;
        let event = peer.event().await.unwrap();
        assert!(
            matches!(event, MuxEvent::Closed { reason: party::mux::CloseReason::Rejected, .. }),
            "{event:?}"
        );
    }
    assert_eq!(serves(&mut peer, &feed).await, "one");
    drop(peer);
    victim.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_party_channel_that_talks_nonsense_is_closed_and_the_connection_lives() {
    let rules = Shared::default();
    let party = Party::new(party_key(1), rules.clone());
    let mut events = party.events();
    let (left, right) = connection::memory();
    let victim =
        tokio::spawn(
            async move { Connection::accept(right, &identity(2)).join(&party).await?.closed().await },
        );
    let mut peer = RawPeer::dial(left, &identity(1)).await;
    let id = party::admission::membership::channel_id(peer.session(), &party_key(1));
    let hello =
        party::admission::Hello::new(party::admission::membership::prove(peer.session(), &party_key(1)));
    let channel = peer.mux.open(party::admission::PROTOCOL, Some(&id), &hello.encode()).unwrap();
    peer.mux.send(channel, 0, &[0xff; 32]).unwrap();
    peer.flush().await;
    let error = common::until(&mut events, |event| match event {
        Event::ChannelFailed { feed: None, error, .. } => Some(error),
        _ => None,
    })
    .await;
    assert!(matches!(error, Error::Decode(DecodeError::Protobuf)), "{error}");
    loop {
        if let Some(MuxEvent::Closed { channel: closed, .. }) = peer.event().await {
            assert_eq!(closed, channel);
            break;
        }
    }
    drop(peer);
    victim.await.unwrap().unwrap();
}

/// What a peer does to the proofs that it is asked for. Those that it leaves as they are it doesn't send.
type Forge = fn(&mut party::feed::proof::Proof) -> bool;

fn of_block(proof: &mut party::feed::proof::Proof, forge: impl FnOnce(&mut BlockProof)) -> bool {
    proof.block.as_mut().filter(|block| block.nodes.len() > 1).map(forge).is_some()
}

fn of_upgrade(proof: &mut party::feed::proof::Proof, forge: impl FnOnce(&mut UpgradeProof)) -> bool {
    proof.upgrade.as_mut().filter(|upgrade| !upgrade.nodes.is_empty()).map(forge).is_some()
}

const FORGERIES: &[(&str, Forge)] = &[
    ("another block", |proof| of_block(proof, |block| block.value = Bytes::from_static(b"forged"))),
    ("another hash", |proof| of_block(proof, |block| block.nodes[0].hash[0] ^= 1)),
    ("sizes shifted", |proof| {
        of_block(proof, |block| {
            block.nodes[0].size += 1;
            block.nodes[1].size -= 1;
        })
    }),
    ("too few nodes", |proof| of_block(proof, |block| block.nodes.truncate(block.nodes.len() - 1))),
    ("the index of another block", |proof| of_block(proof, |block| block.index += 1)),
    ("another signature", |proof| {
        of_upgrade(proof, |upgrade| {
            let mut signature = upgrade.signature.to_vec();
            *signature.last_mut().unwrap() ^= 1;
            upgrade.signature = signature.into();
        })
    }),
    ("another root", |proof| of_upgrade(proof, |upgrade| upgrade.nodes[0].hash[0] ^= 1)),
    ("roots of other sizes", |proof| of_upgrade(proof, |upgrade| upgrade.nodes[0].size += 1)),
    ("too few roots", |proof| of_upgrade(proof, |upgrade| upgrade.nodes.truncate(upgrade.nodes.len() - 1))),
    ("a shorter upgrade", |proof| of_upgrade(proof, |upgrade| upgrade.length -= 1)),
    ("another fork", |proof| {
        proof.fork += 1;
        true
    }),
    ("a part that was not asked for", |proof| {
        proof.hash = Some(HashProof { index: 1, nodes: vec![] });
        true
    }),
    ("another manifest", |proof| {
        let another = Manifest::single(identity(9).public());
        proof.manifest.as_mut().map(|manifest| *manifest = another).is_some()
    }),
];

/// A reader of a feed that the attacker has, too, and of another, which an honest peer brings.
struct Reader {
    store: Store,
    attacked: party::feed::Feed,
    other: party::feed::Feed,
    /// Who writes both.
    writers: (party::feed::Feed, party::feed::Feed),
    writer: Store,
    open: Open,
}

impl Reader {
    async fn new() -> Self {
        let (store, writer) = (Store::memory(), Store::memory());
        let blocks: Vec<String> = (0..100).map(|n| format!("block {n}")).collect();
        let blocks: Vec<&str> = blocks.iter().map(String::as_str).collect();
        let writers =
            (common::feed_with(&writer, "a", &blocks).await, common::feed_with(&writer, "b", &blocks).await);
        let attacked = store.feed(&writers.0.key()).await.unwrap();
        let other = store.feed(&writers.1.key()).await.unwrap();
        let open = Open::new(WholeStore::new(store.clone()));
        Self { store, attacked, other, writers, writer, open }
    }

    fn accept(&self, io: DuplexStream, n: u8) -> JoinHandle<Outcome> {
        let open = self.open.clone();
        tokio::spawn(async move { Connection::accept(io, &identity(n)).open(&open).await?.closed().await })
    }

    /// Connects a raw peer that says to have all of the feed.
    async fn attack(&self) -> (RawPeer, party::mux::ChannelId, JoinHandle<Outcome>) {
        let (left, right) = connection::memory();
        let victim = self.accept(right, 2);
        let mut peer = RawPeer::dial(left, &identity(1)).await;
        let (channel, _) = open_feed(&mut peer, &self.writers.0).await;
        let sync = party::replication::messages::Sync {
            fork: 0,
            length: 100,
            remote_length: 0,
            can_upgrade: true,
            uploading: true,
            downloading: true,
            has_manifest: true,
            allow_push: false,
        };
        say(&mut peer, channel, Message::Sync(sync)).await;
        say(&mut peer, channel, Message::Range(Range { drop: false, start: 0, length: 100 })).await;
        (peer, channel, victim)
    }

    /// Connects the writer.
    async fn meet_writer(&self) -> (Connection, JoinHandle<Outcome>) {
        let (left, right) = connection::memory();
        let victim = self.accept(right, 2);
        let writer = Open::new(WholeStore::new(self.writer.clone()));
        (Connection::dial(left, &identity(3)).open(&writer).await.unwrap(), victim)
    }
}

async fn complete(feed: &party::feed::Feed, length: u64) {
    let mut changes = feed.subscribe();
    while feed.info().contiguous_length < length {
        changes.changed().await;
    }
}

/// Answers each request by a forged proof, until the victim has enough.
async fn forge(peer: &mut RawPeer, channel: party::mux::ChannelId, feed: &party::feed::Feed, forge: Forge) {
    use party::replication::messages::{Data, NoData};
    let mut forged = false;
    while let Some(event) = peer.event().await {
        match event {
            MuxEvent::Message { channel: from, message_type, payload } if from == channel => {
                let message = Message::decode(message_type, &payload, true, &Default::default()).unwrap();
                let Some(Message::Request(request)) = message else { continue };
                let answer = match feed.prove(request.proof, request.fork).await.unwrap() {
                    _ if forged && request.id == 0 => Message::NoData(NoData { request: 0, reason: 1 }),
                    Some(mut proof) => {
                        forged |= forge(&mut proof);
                        Message::Data(Data { request: request.id, proof })
                    }
                    None => Message::NoData(NoData { request: request.id, reason: 1 }),
                };
                say(peer, channel, answer).await;
            }
            MuxEvent::Closed { channel: closed, .. } if closed == channel => return,
            _ => {}
        }
    }
    panic!("the connection is to live");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_proof_of_any_kind_closes_the_channel_and_nobody_else_notices() {
    for (name, forgery) in FORGERIES {
        let reader = Reader::new().await;
        let _wanted = reader.attacked.download(..);
        let mut events = reader.open.events();
        let (mut peer, channel, victim) = reader.attack().await;
        forge(&mut peer, channel, &reader.writers.0, *forgery).await;
        let error = common::until(&mut events, |event| match event {
            Event::ChannelFailed { feed: Some(_), error, .. } => Some(error),
            _ => None,
        })
        .await;
        let expected = match *name {
            "another fork" | "a part that was not asked for" | "the index of another block" => {
                matches!(error, Error::PeerMisbehaved(PeerMisbehaved::UnrequestedData))
            }
            "another manifest" => matches!(error, Error::PeerMisbehaved(PeerMisbehaved::WrongManifest)),
            _ => matches!(
                error,
                Error::PeerMisbehaved(PeerMisbehaved::InvalidProof(_) | PeerMisbehaved::InvalidSignature)
            ),
        };
        assert!(expected, "{name}: {error}");

        // The connection lives, another peer brings both feeds, and what was forged isn't there.
        let (honest, _task) = reader.meet_writer().await;
        let _other = reader.other.download(..);
        complete(&reader.other, 100).await;
        complete(&reader.attacked, 100).await;
        assert_eq!(reader.attacked.get(7).await.unwrap().unwrap(), "block 7");
        assert!(reader.attacked.audit().await.unwrap().problems.is_empty(), "{name}");
        drop(peer);
        let _ = victim.await.unwrap();
        drop((honest, reader.store));
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_to_have_all_and_answers_nothing_delays_the_feed_by_one_timeout() {
    let reader = Reader::new().await;
    let (_wanted, _other) = (reader.attacked.download(..), reader.other.download(..));
    let (mut peer, _, _victim) = reader.attack().await;
    let attacker = tokio::spawn(async move { while peer.event().await.is_some() {} });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let start = tokio::time::Instant::now();
    let (_honest, _task) = reader.meet_writer().await;
    complete(&reader.other, 100).await;
    let other = start.elapsed();
    complete(&reader.attacked, 100).await;
    assert!(other.as_millis() < 500, "the other feed took {other:?}");
    assert!(start.elapsed().as_millis() < 6_000, "{:?}", start.elapsed());
    attacker.abort();
}

#[tokio::test(start_paused = true)]
async fn fifteen_megabytes_that_were_not_asked_for_close_the_channel() {
    use party::replication::messages::Data;
    let reader = Reader::new().await;
    let mut events = reader.open.events();
    let (mut peer, channel, _victim) = reader.attack().await;
    let block = BlockProof { index: 7, value: vec![1; 15_000_000].into(), nodes: vec![] };
    let proof = party::feed::proof::Proof { block: Some(block), ..Default::default() };
    let attacker = tokio::spawn(async move {
        say(&mut peer, channel, Message::Data(Data { request: 999, proof })).await;
        while peer.event().await.is_some() {}
    });
    let error = common::until(&mut events, |event| match event {
        Event::ChannelFailed { feed: Some(_), error, .. } => Some(error),
        _ => None,
    })
    .await;
    assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::UnrequestedData)), "{error}");
    let (_honest, _task) = reader.meet_writer().await;
    let _wanted = reader.other.download(..);
    complete(&reader.other, 100).await;
    attacker.abort();
}
