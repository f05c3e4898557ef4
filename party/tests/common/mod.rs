//! What the tests share.
#![allow(dead_code, unreachable_pub, unused_imports, unused_macros)] // not every test uses all of it

pub mod log;
pub mod membership;
pub mod one_feed;
pub mod random;
pub mod raw;
pub mod storage;
pub mod watched;

use std::{
    future::IntoFuture as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use party::{
    connection::{self, Connection},
    feed::Feed,
    key::{DiscoveryKey, FeedKey, KeyPair, PartyKey},
    party::{Event, Events, Party},
    peer::{Message, Peer},
    rules::{self, Denied, Rules},
    store::{FeedOptions, Store},
};

pub fn party_key(n: u8) -> PartyKey {
    PartyKey::from_bytes([n; 32])
}

pub fn identity(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

pub async fn feed_with(store: &Store, name: &str, blocks: &[&str]) -> Feed {
    let feed = store.create_feed(name, FeedOptions::default()).await.unwrap();
    let blocks = blocks.iter().map(|block| block.as_bytes().to_vec().into()).collect::<Vec<_>>();
    if !blocks.is_empty() {
        feed.append_batch(blocks).await.unwrap();
    }
    feed
}

/// Both ends of a connection in memory, over which the parties meet.
pub async fn meet(dialler: &Party, listener: &Party) -> (Connection, Connection) {
    let (left, right) = connection::memory();
    tokio::try_join!(
        Connection::dial(left, &identity(1)).join(dialler).into_future(),
        Connection::accept(right, &identity(2)).join(listener).into_future(),
    )
    .unwrap()
}

/// Waits for an event that `wanted` picks.
pub async fn until<T>(events: &mut Events, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    loop {
        let event = events.next().await.expect("the party is still there");
        if let Some(found) = wanted(event) {
            return found;
        }
    }
}

pub async fn peer_added(events: &mut Events) -> Peer {
    until(events, |event| match event {
        Event::PeerAdded(peer) => Some(peer),
        _ => None,
    })
    .await
}

/// Rules that count their calls, and do with each what they were told to.
#[derive(Default)]
pub struct Counting {
    pub calls: AtomicUsize,
    pub released: Mutex<Vec<Feed>>,
    pub on_request: Mutex<Option<Behaviour>>,
    pub on_find: Mutex<Option<Behaviour>>,
    pub on_introduce: Mutex<Option<Behaviour>>,
    pub on_handshake: Mutex<Option<Behaviour>>,
    pub ephemeral: Mutex<Vec<Message>>,
}

#[derive(Clone, Copy, Debug)]
pub enum Behaviour {
    Deny,
    Panic,
    Hang,
}

impl Behaviour {
    async fn act(behaviour: Option<Self>) -> rules::Result<()> {
        match behaviour {
            None => Ok(()),
            Some(Self::Deny) => Err(Denied::because("the test denies")),
            Some(Self::Panic) => panic!("the test panics"),
            Some(Self::Hang) => std::future::pending().await,
        }
    }
}

impl Counting {
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn called(&self, behaviour: &Mutex<Option<Behaviour>>) -> Option<Behaviour> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        *behaviour.lock().unwrap()
    }
}

/// Shared, so that a test can look at the rules that a party owns.
#[derive(Clone, Default)]
pub struct Shared(pub Arc<Counting>);

impl Rules for Shared {
    async fn ready(&self, _: &Peer) -> rules::Result<()> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn handshake(&self, _: &Peer) -> rules::Result<()> {
        let behaviour = self.0.called(&self.0.on_handshake);
        Behaviour::act(behaviour).await
    }

    async fn introduce_feeds(&self, _: &Peer, keys: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        let behaviour = self.0.called(&self.0.on_introduce);
        Behaviour::act(behaviour).await?;
        Ok(keys.into_iter().rev().collect())
    }

    async fn find_feed(&self, _: &Peer, key: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        let behaviour = self.0.called(&self.0.on_find);
        Behaviour::act(behaviour).await?;
        Ok(self.0.released.lock().unwrap().iter().find(|feed| feed.discovery_key() == *key).cloned())
    }

    async fn request(&self, _: &Peer, message: Message) -> rules::Result<Message> {
        let behaviour = self.0.called(&self.0.on_request);
        Behaviour::act(behaviour).await?;
        Ok(Message::new(format!("re: {}", message.kind), message.value))
    }

    async fn ephemeral(&self, _: &Peer, message: Message) -> rules::Result<()> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        self.0.ephemeral.lock().unwrap().push(message);
        Ok(())
    }
}
