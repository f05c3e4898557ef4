//! A victim, what an attacker needs to speak with it, and the others who must not notice.

use bytes::Bytes;
use party::{
    connection::{self, Connection},
    error::Error,
    mux::Event as MuxEvent,
    party::Open,
    replication::{
        self,
        messages::{Message, Range},
    },
    rules::WholeStore,
    store::Store,
};
use tokio::{io::DuplexStream, task::JoinHandle};

use crate::common::{self, identity, raw::RawPeer};

pub(crate) type Outcome = Result<(), Error>;

/// A victim in open mode that serves a store with one feed of three blocks.
pub(crate) async fn victim(
    io: DuplexStream,
) -> (JoinHandle<Outcome>, party::feed::Feed, party::party::Events) {
    let store = Store::memory();
    let feed = common::feed_with(&store, "feed", &["zero", "one", "two"]).await;
    let open = Open::new(WholeStore::new(store));
    let events = open.events();
    let task =
        tokio::spawn(async move { Connection::accept(io, &identity(2)).open(&open).await?.closed().await });
    (task, feed, events)
}

pub(crate) async fn attack(message: &[u8]) -> Outcome {
    let (left, right) = connection::memory();
    let (victim, _, _) = victim(right).await;
    let mut attacker = RawPeer::dial(left, &identity(1)).await;
    attacker.say(message).await;
    attacker.hear_all().await;
    victim.await.unwrap()
}

/// Opens the feed as an honest peer does and gets block 1.
pub(crate) async fn serves(peer: &mut RawPeer, feed: &party::feed::Feed) -> Bytes {
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

pub(crate) fn handshake_for(peer: &RawPeer, feed: &party::feed::Feed) -> Vec<u8> {
    replication::handshake(peer.session(), &feed.key())
}

pub(crate) async fn open_feed(
    peer: &mut RawPeer,
    feed: &party::feed::Feed,
) -> (party::mux::ChannelId, Bytes) {
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

pub(crate) async fn say(
    peer: &mut RawPeer,
    channel: party::mux::ChannelId,
    message: replication::messages::Message,
) {
    peer.mux.send(channel, message.message_type(), &message.encode()).unwrap();
    peer.flush().await;
}

pub(crate) async fn heard(
    peer: &mut RawPeer,
    channel: party::mux::ChannelId,
) -> replication::messages::Message {
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

/// A reader of a feed that the attacker has, too, and of another, which an honest peer brings.
pub(crate) struct Reader {
    pub(crate) store: Store,
    pub(crate) attacked: party::feed::Feed,
    pub(crate) other: party::feed::Feed,
    /// Who writes both.
    pub(crate) writers: (party::feed::Feed, party::feed::Feed),
    pub(crate) writer: Store,
    pub(crate) open: Open,
}

impl Reader {
    pub(crate) async fn new() -> Self {
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

    pub(crate) fn accept(&self, io: DuplexStream, n: u8) -> JoinHandle<Outcome> {
        let open = self.open.clone();
        tokio::spawn(async move { Connection::accept(io, &identity(n)).open(&open).await?.closed().await })
    }

    /// Connects a raw peer that says to have all of the feed.
    pub(crate) async fn attack(&self) -> (RawPeer, party::mux::ChannelId, JoinHandle<Outcome>) {
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
    pub(crate) async fn meet_writer(&self) -> (Connection, JoinHandle<Outcome>) {
        let (left, right) = connection::memory();
        let victim = self.accept(right, 2);
        let writer = Open::new(WholeStore::new(self.writer.clone()));
        (Connection::dial(left, &identity(3)).open(&writer).await.unwrap(), victim)
    }
}

/// A writer of two feeds, of which the attacker wears out the first, and an honest reader wants both.
pub(crate) struct Writer {
    pub(crate) reader: Reader,
    open: Open,
}

impl Writer {
    pub(crate) async fn new() -> Self {
        let reader = Reader::new().await;
        let open = Open::new(WholeStore::new(reader.writer.clone()));
        Self { reader, open }
    }

    fn accept(&self, io: DuplexStream) -> JoinHandle<Outcome> {
        let open = self.open.clone();
        tokio::spawn(async move { Connection::accept(io, &identity(2)).open(&open).await?.closed().await })
    }

    /// Connects a raw peer that has opened the first feed.
    pub(crate) async fn attack(&self) -> (RawPeer, party::mux::ChannelId, JoinHandle<Outcome>) {
        let (left, right) = connection::memory();
        let victim = self.accept(right);
        let mut peer = RawPeer::dial(left, &identity(1)).await;
        let (channel, _) = open_feed(&mut peer, &self.reader.writers.0).await;
        (peer, channel, victim)
    }

    /// Connects the reader.
    pub(crate) async fn meet_reader(&self) -> (Connection, JoinHandle<Outcome>) {
        let (left, right) = connection::memory();
        let victim = self.accept(right);
        let connecting = Connection::dial(left, &identity(3)).open(&self.reader.open);
        (connecting.await.unwrap(), victim)
    }
}

pub(crate) async fn complete(feed: &party::feed::Feed, length: u64) {
    let mut changes = feed.subscribe();
    while feed.info().contiguous_length < length {
        changes.changed().await;
    }
}
