//! A party that is flooded, an honest member of it, and a watch on memory.

use std::{
    future::IntoFuture as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use party::{
    admission::{self, Hello, membership},
    connection::{self, Connection},
    feed::Feed,
    key::{DiscoveryKey, FeedKey},
    mux::{ChannelId, Event as MuxEvent},
    party::{Events, Party},
    peer::{Message, Peer},
    rules::{self, Rules},
};
use tokio::{task::JoinHandle, time::Instant};

use crate::common::{Shared, identity, party_key, peer_added, raw::RawPeer};

/// Who floods.
pub(crate) const FLOODING: u8 = 1;
const FLOODED: u8 = 2;
const HONEST: u8 = 3;

/// Rules that never come to a decision about who floods, and answer everybody else at once.
#[derive(Clone, Default)]
pub(crate) struct Slow {
    /// How many of them are at work.
    pub(crate) at_work: Arc<AtomicUsize>,
    /// The most that ever were.
    pub(crate) most: Arc<AtomicUsize>,
}

/// Counts a rule for as long as it is at work.
struct Working(Arc<AtomicUsize>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Slow {
    async fn decide(&self, peer: &Peer) {
        if peer.remote_public_key() == identity(FLOODING).public() {
            let at_work = 1 + self.at_work.fetch_add(1, Ordering::Relaxed);
            self.most.fetch_max(at_work, Ordering::Relaxed);
            let _working = Working(self.at_work.clone());
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }
}

impl Rules for Slow {
    async fn handshake(&self, _: &Peer) -> rules::Result<()> {
        Ok(())
    }
    async fn introduce_feeds(&self, peer: &Peer, keys: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        self.decide(peer).await;
        Ok(keys)
    }
    async fn find_feed(&self, peer: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        self.decide(peer).await;
        Ok(None)
    }
    async fn request(&self, peer: &Peer, message: Message) -> rules::Result<Message> {
        self.decide(peer).await;
        Ok(message)
    }
    async fn ephemeral(&self, peer: &Peer, _: Message) -> rules::Result<()> {
        self.decide(peer).await;
        Ok(())
    }
}

pub(crate) struct Scene {
    pub(crate) rules: Slow,
    pub(crate) party: Party,
    pub(crate) events: Events,
    /// The honest member's view of the party that is flooded.
    honest: Peer,
    _connections: (Connection, Connection),
    memory: Memory,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let memory = Memory::watch();
        let rules = Slow::default();
        let (party, member) =
            (Party::new(party_key(1), rules.clone()), Party::new(party_key(1), Shared::default()));
        let mut events = member.events();
        let (left, right) = connection::memory();
        let connections = tokio::try_join!(
            Connection::dial(left, &identity(HONEST)).join(&member).into_future(),
            Connection::accept(right, &identity(FLOODED)).join(&party).into_future(),
        )
        .unwrap();
        let honest = peer_added(&mut events).await;
        let events = party.events();
        Self { rules, party, events, honest, _connections: connections, memory }
    }

    /// Somebody dials who speaks by hand.
    pub(crate) async fn dialled(&self) -> (RawPeer, JoinHandle<Result<(), party::error::Error>>) {
        let (left, right) = connection::memory();
        let party = self.party.clone();
        let flooded = tokio::spawn(async move {
            Connection::accept(right, &identity(FLOODED)).join(&party).await?.closed().await
        });
        (RawPeer::dial(left, &identity(FLOODING)).await, flooded)
    }

    /// Another member is served, at once.
    pub(crate) async fn others_do_not_notice(&self) {
        let start = Instant::now();
        let answer = self.honest.request("hello", "there").await.unwrap();
        assert_eq!(answer, Message::new("hello", "there"));
        let keys = [FeedKey::from_bytes([5; 32])];
        assert_eq!(self.honest.introduce_feeds(keys).await.unwrap(), keys);
        assert!(start.elapsed() < Duration::from_millis(100), "it took {:?}", start.elapsed());
    }

    /// What has come in all was a multiple of this.
    pub(crate) fn memory_is_flat(&self) {
        self.memory.is_flat();
    }
}

/// Opens the channel of the party, as a member does.
pub(crate) async fn join(peer: &mut RawPeer) -> ChannelId {
    let id = membership::channel_id(peer.session(), &party_key(1));
    let hello = Hello::new(membership::prove(peer.session(), &party_key(1))).encode();
    let ours = peer.mux.open(admission::PROTOCOL, Some(&id), &hello).unwrap();
    peer.flush().await;
    loop {
        match peer.event().await.expect("the connection lives") {
            MuxEvent::Opened { channel, .. } if channel == ours => return channel,
            MuxEvent::Closed { channel, reason } => assert_ne!(channel, ours, "{reason:?}"),
            _ => {}
        }
    }
}

/// A field of protobuf that is counted in bytes.
pub(crate) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(bytes.len() as u64), bytes].concat()
}

fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

/// A request with this id and body.
pub(crate) fn request(id: u64, body: &[u8]) -> Vec<u8> {
    [&[0x08][..], &varint(id), body].concat()
}

/// What an error of the party channel says: for which request, and why.
pub(crate) fn refusal(payload: &[u8]) -> (u64, u8) {
    let [0x08, rest @ ..] = payload else { panic!("{payload:?}") };
    let (mut id, mut at) = (0, 0);
    loop {
        id |= u64::from(rest[at] & 0x7f) << (7 * at);
        at += 1;
        if rest[at - 1] < 0x80 {
            break;
        }
    }
    let [0x10, code] = rest[at..] else { panic!("{payload:?}") };
    (id, code)
}

/// The memory of this process, while no other test of this binary runs.
struct Memory {
    before: usize,
    _alone: MutexGuard<'static, ()>,
}

/// How much more there may be at the end, in bytes. Each flood brings several times that.
const FLAT: usize = 96 << 20;

impl Memory {
    fn watch() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Self { before: resident().unwrap_or(0), _alone: alone }
    }

    fn is_flat(&self) {
        // Where the system doesn't tell, the counters have to do.
        let Some(now) = resident() else { return };
        let more = now.saturating_sub(self.before);
        assert!(more < FLAT, "{} MiB more than before", more >> 20);
    }
}

/// Bytes of memory that this process has.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? << 10)
}
