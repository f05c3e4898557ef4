//! The orders by which `benches` measures requests and answers beside the feeds: both ends are members of a party whose rules
//! answer with what was asked. `conformance/node/talk.js` obeys the same orders, over protomux-rpc.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use party::{
    connection::{self, Connection, Listener},
    feed::Feed,
    key::{DiscoveryKey, FeedKey, KeyPair, PartyKey},
    party::{Event, Events, Party},
    peer::{Message, Peer},
    rules::{self, Rules},
};

use crate::measure::{Span, monotonic};

/// Requests before the clock starts, so that caches are warm.
const WARM_UP: u64 = 200;

/// What both ends know.
const PARTY: [u8; 32] = [70; 32];

/// Answers with what was asked.
struct Echo;

impl Rules for Echo {
    async fn handshake(&self, _: &Peer) -> rules::Result<()> {
        Ok(())
    }

    async fn introduce_feeds(&self, _: &Peer, keys: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(keys)
    }

    async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(None)
    }

    async fn request(&self, _: &Peer, message: Message) -> rules::Result<Message> {
        Ok(message)
    }
}

fn party() -> Party {
    Party::new(PartyKey::from_bytes(PARTY), Echo)
}

/// Answers whoever dials the port that it returns, for as long as the process lives.
pub(crate) async fn answer() -> Result<u16> {
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0), &KeyPair::generate()).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        let party = party();
        while let Ok((connecting, _)) = listener.accept().await {
            let party = party.clone();
            tokio::spawn(async move {
                if let Ok(connection) = connecting.join(&party).await {
                    // How the other end goes is its own matter.
                    let _ = connection.closed().await;
                }
            });
        }
    });
    Ok(port)
}

/// Makes `count` requests of `size` bytes on one connection, never more than `at_once` at a time.
pub(crate) async fn ask(port: u16, count: u64, size: usize, at_once: usize) -> Result<Span> {
    let party = party();
    let mut events = party.events();
    let (_connection, peer) = meet(port, &KeyPair::generate(), &party, &mut events).await?;
    ask_many(&peer, WARM_UP, size, at_once).await?;
    let first = monotonic();
    ask_many(&peer, count, size, at_once).await?;
    Ok(Span { first, last: monotonic() })
}

/// In one task, as Node does it.
async fn ask_many(peer: &Peer, count: u64, size: usize, at_once: usize) -> Result<()> {
    ensure!(at_once > 0, "nobody asks");
    let value = bytes::Bytes::from(vec![7; size]);
    let peer = peer.clone();
    let asking = tokio::spawn(async move {
        let ask = async || {
            let answer = peer.request("echo", value.clone()).await?;
            ensure!(answer.value == value, "another answer");
            Ok(())
        };
        stream::iter(0..count).map(|_| ask()).buffer_unordered(at_once).try_collect::<()>().await
    });
    asking.await?
}

/// Connects `count` times, `at_once` of them at a time, and each time introduces a feed and waits for the answer.
pub(crate) async fn bootstrap(port: u16, count: u64, at_once: usize) -> Result<Span> {
    ensure!(at_once > 0, "nobody dials");
    // A task like any other: in a runtime with several threads the main one is none of those that run tasks, and wakes up
    // for each step.
    let all = tokio::spawn(async move {
        dial_often(port, WARM_UP / 10, 1).await?;
        let first = monotonic();
        dial_often(port, count, at_once).await?;
        Ok(Span { first, last: monotonic() })
    });
    all.await?
}

async fn dial_often(port: u16, count: u64, at_once: usize) -> Result<()> {
    let key_pair = &KeyPair::generate();
    let left = &AtomicU64::new(count);
    let one_by_one = (0..at_once).map(|_| async move {
        let party = party();
        let mut events = party.events();
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let (connection, peer) = meet(port, key_pair, &party, &mut events).await?;
            let keys = [FeedKey::from_bytes([7; 32])];
            ensure!(peer.introduce_feeds(keys).await? == keys, "another answer");
            drop(connection);
        }
        Ok(())
    });
    try_join_all(one_by_one).await.map(drop)
}

async fn meet(
    port: u16,
    key_pair: &KeyPair,
    party: &Party,
    events: &mut Events,
) -> Result<(Connection, Peer)> {
    let connection = connection::dial((Ipv4Addr::LOCALHOST, port), key_pair).await?.join(party).await?;
    loop {
        if let Event::PeerAdded(peer) = events.next().await.context("the party is gone")? {
            return Ok((connection, peer));
        }
    }
}
