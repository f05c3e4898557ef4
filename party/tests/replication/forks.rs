//! Feeds that change to another fork while peers replicate them, and feeds whose signers contradict themselves.
#![allow(clippy::disallowed_methods)] // the time is virtual where it is looked at

use std::time::Duration;

use crate::common::{identity, meet, party_key, raw::RawPeer, until};
use bytes::Bytes;
use party::{
    connection::{self, Connection},
    error::{Error, PeerMisbehaved},
    feed::{
        Feed, Identity,
        memory::MemoryStorage,
        proof::{BlockProof, Proof, ProofRequest, UpgradeRequest},
        storage::Slot,
    },
    key::KeyPair,
    limits::Limits,
    mux::Event as MuxEvent,
    party::{Event, Open, Party},
    peer::Replicate,
    replication::{
        self,
        messages::{Data, Message, Sync},
    },
    rules::WholeStore,
    store::{FeedOptions, Store},
};
use tokio::time::timeout;

async fn append(feed: &Feed, blocks: u64) {
    let info = feed.info();
    let text = |index: u64| format!("block {index} of fork {}", info.fork).into();
    feed.append_batch((info.length..info.length + blocks).map(text).collect()).await.unwrap();
}

/// Waits until `reader` has all that `writer` has.
async fn same(reader: &Feed, writer: &Feed) {
    let mut changes = reader.subscribe();
    loop {
        let (ours, theirs) = (writer.info(), reader.info());
        if (theirs.fork, theirs.contiguous_length) == (ours.fork, ours.length) {
            break;
        }
        changes.changed().await;
    }
    for index in 0..writer.info().length {
        assert_eq!(reader.get(index).await.unwrap(), writer.get(index).await.unwrap(), "block {index}");
    }
    assert!(reader.audit().await.unwrap().problems.is_empty());
}

/// A writer's store with one feed, and a reader's, with the party of each.
struct Two {
    /// Held for as long as the parties.
    _stores: [Store; 2],
    parties: [Party; 2],
    writer: Feed,
    reader: Feed,
}

async fn two(blocks: u64) -> Two {
    let stores = [Store::memory(), Store::memory()];
    let writer = stores[0].create_feed("log", FeedOptions::default()).await.unwrap();
    append(&writer, blocks).await;
    let reader = stores[1].feed(&writer.key()).await.unwrap();
    let parties = stores.clone().map(|store| Party::new(party_key(1), WholeStore::new(store)));
    Two { _stores: stores, parties, writer, reader }
}

#[tokio::test(start_paused = true)]
async fn a_reader_follows_truncations_while_it_is_connected() {
    let Two { parties, writer, reader, .. } = two(1_500).await;
    let _connections = meet(&parties[0], &parties[1]).await;
    same(&reader, &writer).await;
    for (length, more) in [(1_000, 700), (1_699, 1), (0, 1_200), (1_199, 0), (5, 3)] {
        writer.truncate(length).await.unwrap();
        append(&writer, more).await;
        same(&reader, &writer).await;
    }
    assert_eq!(reader.info().fork, 5);
}

#[tokio::test(start_paused = true)]
async fn a_finite_connection_brings_a_reader_that_was_away_to_the_new_fork() {
    for (old, common, more) in [(1_200, 1_000, 900), (1_200, 0, 1_300), (1_200, 1_199, 0), (10, 3, 2)] {
        let Two { parties, writer, reader, .. } = two(old).await;
        let connections = finite(&parties).await;
        tokio::try_join!(connections.0.closed(), connections.1.closed()).unwrap();
        assert_eq!(reader.info().contiguous_length, old);

        let snapshot = reader.snapshot().await;
        writer.truncate(common).await.unwrap();
        append(&writer, more).await;
        let connections = finite(&parties).await;
        tokio::try_join!(connections.0.closed(), connections.1.closed()).unwrap();
        same(&reader, &writer).await;
        let last = snapshot.get(old - 1).await.unwrap().unwrap();
        assert_eq!(last, format!("block {} of fork 0", old - 1).as_bytes());
    }
}

async fn finite(parties: &[Party; 2]) -> (Connection, Connection) {
    use std::future::IntoFuture as _;
    let (left, right) = connection::memory();
    tokio::try_join!(
        Connection::dial(left, &identity(1)).join(&parties[0]).finite().into_future(),
        Connection::accept(right, &identity(2)).join(&parties[1]).finite().into_future(),
    )
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_fork_travels_over_a_relay_to_readers_of_parts() {
    let Two { parties, writer, reader, .. } = two(400).await;
    let last = Store::memory();
    let sparse = Party::new(party_key(1), WholeStore::new(last.clone()).sparse());
    let copy = last.feed(&writer.key()).await.unwrap();
    let _first = meet(&parties[0], &parties[1]).await;
    let _second = meet(&parties[1], &sparse).await;
    copy.download(100..120).done().await.unwrap();
    writer.truncate(110).await.unwrap();
    append(&writer, 300).await;
    same(&reader, &writer).await;
    // What it wanted and wants is there, of the new fork.
    copy.download(100..120).done().await.unwrap();
    while copy.info().fork == 0 {
        copy.subscribe().changed().await;
    }
    let download = copy.download(100..130);
    download.done().await.unwrap();
    assert_eq!(copy.get(109).await.unwrap().unwrap(), "block 109 of fork 0");
    assert_eq!(copy.get(110).await.unwrap().unwrap(), "block 110 of fork 1");
    assert_eq!(copy.get(130).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_release_without_forks_leaves_a_feed_on_the_one_it_has() {
    let (writing, reading) = (Store::memory(), Store::memory());
    let writer = writing.create_feed("log", FeedOptions::default()).await.unwrap();
    append(&writer, 10).await;
    let reader = reading.feed(&writer.key()).await.unwrap();
    let (here, there) = (
        Party::new(party_key(1), WholeStore::new(writing)),
        Party::new(party_key(1), crate::common::Shared::default()),
    );
    let mut events = there.events();
    let _connections = meet(&here, &there).await;
    let peer = crate::common::peer_added(&mut events).await;
    peer.replicate_as(&reader, Replicate::fully().without_forks()).await.unwrap();
    reader.wait_for_length(10).await;
    writer.truncate(3).await.unwrap();
    append(&writer, 10).await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await; // virtual: all that can happen has happened
    assert_eq!((reader.info().fork, reader.info().length), (0, 10));
}

// Hostile

/// A victim in open mode that reads a feed, and a remote that has opened it.
struct Victim {
    reader: Feed,
    writer: Feed,
    remote: RawPeer,
    channel: party::mux::ChannelId,
    events: party::party::Events,
    connection: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Victim {
    /// A reader that has the first 10 of 20 blocks, without the last.
    async fn new() -> Self {
        let writer = Feed::create(
            std::sync::Arc::new(MemoryStorage::new()),
            Slot(0),
            Identity::writer(KeyPair::from_seed(&[5; 32])),
        );
        let writer = writer.await.unwrap();
        append(&writer, 20).await;
        let store = Store::memory();
        let reader = store.feed(&writer.key()).await.unwrap();
        let all = ProofRequest { upgrade: upgrade(20), manifest: true, ..ProofRequest::default() };
        reader.ingest(vec![writer.prove(all, 0).await.unwrap().unwrap()]).await.remove(0).unwrap();

        let open = Open::new(WholeStore::new(store));
        let events = open.events();
        let (left, right) = connection::memory();
        let connection = tokio::spawn(async move {
            let limits = Limits { max_failed_requests: 64, ..Limits::default() };
            Connection::accept(right, &identity(2)).open(&open).limits(limits).await?.closed().await
        });
        let mut remote = RawPeer::dial(left, &identity(1)).await;
        let handshake = replication::handshake(remote.session(), &writer.key());
        let id = *writer.discovery_key().as_bytes();
        let channel = remote.mux.open(replication::PROTOCOL, Some(&id), &handshake).unwrap();
        remote.flush().await;
        loop {
            match remote.event().await.expect("the connection lives") {
                MuxEvent::Opened { .. } => break,
                MuxEvent::Incoming { incoming, .. } => remote.mux.reject(incoming),
                _ => {}
            }
        }
        let mut victim = Self { reader, writer, remote, channel, events, connection };
        victim.say(sync(0, 20)).await;
        let range = replication::messages::Range { drop: false, start: 0, length: 20 };
        victim.say(Message::Range(range)).await;
        victim
    }

    async fn say(&mut self, message: Message) {
        let _ = self.remote.mux.send(self.channel, message.message_type(), &message.encode());
        self.remote.flush().await;
    }

    /// The next message that `wanted` picks; opens are passed over.
    async fn heard<T>(&mut self, wanted: impl Fn(Message) -> Option<T>) -> T {
        loop {
            while let Some(event) = self.remote.mux.poll_event().unwrap() {
                match event {
                    MuxEvent::Message { message_type, payload, .. } => {
                        let message = Message::decode(message_type, &payload, true, &Limits::default());
                        if let Some(found) = wanted(message.unwrap().unwrap()) {
                            return found;
                        }
                    }
                    MuxEvent::Incoming { incoming, .. } => self.remote.mux.reject(incoming),
                    MuxEvent::Opened { .. } | MuxEvent::Closed { .. } => {}
                }
            }
            self.remote.flush().await;
            let Some(message) = self.remote.hear().await else {
                panic!("the connection has ended: {:?}", (&mut self.connection).await);
            };
            self.remote.mux.handle_message(message);
        }
    }

    async fn asked(&mut self, wanted: impl Fn(&ProofRequest) -> bool) -> (u64, ProofRequest, u64) {
        self.heard(|message| match message {
            Message::Request(request) if wanted(&request.proof) => {
                Some((request.id, request.proof, request.fork))
            }
            _ => None,
        })
        .await
    }

    async fn failure(&mut self) -> PeerMisbehaved {
        let error = until(&mut self.events, |event| match event {
            Event::ChannelFailed { error, .. } => Some(error),
            _ => None,
        });
        match error.await {
            Error::PeerMisbehaved(misbehaved) => misbehaved,
            other => panic!("{other}"),
        }
    }
}

fn upgrade(length: u64) -> Option<UpgradeRequest> {
    Some(UpgradeRequest { start: 0, length })
}

fn sync(fork: u64, length: u64) -> Message {
    Message::Sync(Sync {
        fork,
        length,
        remote_length: 20,
        can_upgrade: false,
        uploading: true,
        downloading: true,
        has_manifest: true,
        allow_push: false,
    })
}

#[tokio::test(start_paused = true)]
async fn a_fork_that_nobody_has_signed_closes_the_channel() {
    let mut victim = Victim::new().await;
    victim.say(sync(1, 20)).await;
    let (request, _, fork) = victim.asked(|proof| proof.upgrade == upgrade(20)).await;
    assert_eq!(fork, 1);
    let tree = ProofRequest { upgrade: upgrade(20), ..ProofRequest::default() };
    let proof = victim.writer.prove(tree, 0).await.unwrap().unwrap();
    victim.say(Message::Data(Data { request, proof: Proof { fork: 1, ..proof } })).await;
    assert_eq!(victim.failure().await, PeerMisbehaved::InvalidSignature);
    assert_eq!(victim.reader.info().fork, 0);
}

#[tokio::test(start_paused = true)]
async fn hashes_that_do_not_lead_to_the_new_tree_close_the_channel() {
    let mut victim = Victim::new().await;
    victim.writer.truncate(7).await.unwrap();
    append(&victim.writer, 13).await;
    victim.say(sync(1, 20)).await;
    let (request, asked, _) = victim.asked(|proof| proof.upgrade.is_some()).await;
    let proof = victim.writer.prove(asked, 1).await.unwrap().unwrap();
    victim.say(Message::Data(Data { request, proof })).await;
    let (request, asked, _) = victim.asked(|proof| proof.hash.is_some()).await;
    let mut proof = victim.writer.prove(asked, 1).await.unwrap().unwrap();
    proof.hash.as_mut().unwrap().nodes[0].hash[7] ^= 1;
    victim.say(Message::Data(Data { request, proof })).await;
    assert!(matches!(victim.failure().await, PeerMisbehaved::InvalidProof(_)));
    assert_eq!((victim.reader.info().fork, victim.reader.info().length), (0, 20));
}

/// Answers the next request for a block with something else.
async fn forge(victim: &mut Victim) {
    let (request, asked, _) = victim.asked(|proof| proof.block.is_some()).await;
    let proof = victim.writer.prove(asked, 0).await.unwrap().unwrap();
    let block = proof.block.map(|block| BlockProof { value: Bytes::from("forged"), ..block });
    victim.say(Message::Data(Data { request, proof: Proof { block, ..proof } })).await;
}

#[tokio::test(start_paused = true)]
async fn who_forges_and_then_is_silent_is_blamed_in_time() {
    let mut victim = Victim::new().await;
    forge(&mut victim).await;
    assert!(matches!(victim.failure().await, PeerMisbehaved::InvalidProof(_)));
    assert!(victim.reader.conflict().is_none());
}

#[tokio::test(start_paused = true)]
async fn who_forges_and_has_no_other_tree_is_blamed_at_once() {
    let mut victim = Victim::new().await;
    forge(&mut victim).await;
    let (request, asked, fork) = victim.asked(|proof| proof.upgrade.is_some()).await;
    assert_eq!((request, asked.upgrade, fork), (0, upgrade(20), 0));
    let before = tokio::time::Instant::now();
    let proof = victim.writer.prove(asked, 0).await.unwrap().unwrap();
    victim.say(Message::Data(Data { request, proof })).await;
    assert!(matches!(victim.failure().await, PeerMisbehaved::InvalidProof(_)));
    assert!(before.elapsed() < Limits::default().conflict_timeout);
}

// Signers that contradict themselves

//= REPL-97
#[tokio::test(start_paused = true)]
async fn a_conflict_ends_the_replication_with_everybody_and_is_told() {
    let stores = [Store::memory(), Store::memory(), Store::memory()];
    let mut feeds = Vec::new();
    for (n, store) in stores.iter().take(2).enumerate() {
        let options = FeedOptions::default().seed([3; 32]);
        let feed = store.create_feed("log", options).await.unwrap();
        let text =
            |index: u64| Bytes::from(if index < 5 { format!("{index}") } else { format!("{index} {n}") });
        feed.append_batch((0..10 + n as u64).map(text).collect()).await.unwrap();
        feeds.push(feed);
    }
    let reader = stores[2].feed(&feeds[0].key()).await.unwrap();
    let parties = stores.clone().map(|store| Party::new(party_key(1), WholeStore::new(store)));
    let mut events = parties.each_ref().map(Party::events);
    let _honest = meet(&parties[0], &parties[2]).await;
    same(&reader, &feeds[0]).await;
    let _other = meet(&parties[1], &parties[2]).await;

    let conflict = |event| match event {
        Event::FeedConflict { feed, conflict, .. } => Some((feed, conflict)),
        _ => None,
    };
    for (n, feed) in [&feeds[0], &feeds[1], &reader].into_iter().enumerate() {
        let (key, found) = until(&mut events[n], conflict).await;
        assert_eq!((key, found.fork, found.length), (feed.discovery_key(), 0, 10), "{n}");
        assert_eq!(feed.conflict(), Some(found));
    }

    // No more of it, also after a reconnect. The rest of the party goes on.
    feeds[0].append("more").await.unwrap();
    let extra = stores[0].create_feed("extra", FeedOptions::default()).await.unwrap();
    append(&extra, 3).await;
    let _again = meet(&parties[0], &parties[2]).await;
    let copy = stores[2].feed(&extra.key()).await.unwrap();
    same(&copy, &extra).await;
    let opened = until(&mut events[0], |event| match event {
        Event::FeedOpened { feed, .. } => (feed == reader.discovery_key()).then_some(()),
        _ => None,
    });
    assert!(timeout(Duration::from_secs(60), opened).await.is_err(), "its channel was opened again");
    assert_eq!(reader.info().length, 10);
    assert_eq!(reader.get(9).await.unwrap().unwrap(), "9 0");
}
