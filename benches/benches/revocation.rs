//! How long one change of rules takes to hold everywhere: 10,000 feeds among 100 connected peers, of which half the feeds are
//! forbidden by one call, and allowed again. It measures wall time, in memory, both ends of every connection in this process.
//!
//!     cargo bench -p benches --bench revocation
#![allow(clippy::print_stdout, clippy::disallowed_methods)] // it measures, and says what

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::{Result, ensure};
use party::{
    connection::{self, Connection},
    feed::Feed,
    key::{DiscoveryKey, FeedKey, KeyPair, PartyKey},
    limits::Limits,
    party::Party,
    peer::{LinkState, Peer},
    rules::{self, Decision, Question, Rules},
    store::{FeedOptions, Store},
};

const PEERS: usize = 100;
const FEEDS_OF_EACH: usize = 100;

/// Half of the feeds, by their keys, may be closed.
#[derive(Clone, Default)]
struct Half {
    is_closed: Arc<AtomicBool>,
}

fn is_in_the_half(key: &FeedKey) -> bool {
    key.as_bytes()[0].is_multiple_of(2)
}

impl Rules for Half {
    async fn handshake(&self, _: &Peer) -> rules::Result<()> {
        Ok(())
    }
    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(vec![])
    }
    async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(None)
    }
    fn decide(&self, question: &Question<'_>) -> Decision {
        if self.is_closed.load(Ordering::Acquire) && is_in_the_half(&question.feed) {
            Decision::deny("half", "it is closed")
        } else {
            Decision::allow("half", "it is open")
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let (key, _) = PartyKey::generate();
    let rules = Half::default();
    let (serving, reading) = (Party::new(key, rules.clone()), Party::new(key, Half::default()));
    let store = Store::memory();
    let mut connections = Vec::new();
    let mut half = Vec::new();
    let limits = Limits { max_released_feeds: FEEDS_OF_EACH, ..Limits::default() };
    for peer in 0..PEERS {
        let (left, right) = connection::memory();
        let (ours, theirs) = (KeyPair::generate(), KeyPair::generate());
        let (one, other) = tokio::join!(
            async { Connection::accept(left, &ours).join(&serving).limits(limits.clone()).await },
            async { Connection::dial(right, &theirs).join(&reading).limits(limits.clone()).await },
        );
        connections.extend([one?, other?]);
        let at_serving = wait_for(&serving, theirs.public()).await;
        let at_reading = wait_for(&reading, ours.public()).await;
        let shelf = Store::memory();
        for n in 0..FEEDS_OF_EACH {
            let feed = store.create_feed(&format!("{peer} {n}"), FeedOptions::default()).await?;
            feed.append("a block").await?;
            at_serving.release(&feed).await?;
            let copy = shelf.feed(&feed.key()).await?;
            at_reading.release(&copy).await?;
            copy.fetch(0).await?;
            if is_in_the_half(&feed.key()) {
                half.push((at_serving.clone(), feed));
            }
        }
    }
    println!("{} feeds, {PEERS} peers, {} of the feeds to be closed", PEERS * FEEDS_OF_EACH, half.len());
    for round in 0..5 {
        rules.is_closed.store(true, Ordering::Release);
        let began = Instant::now();
        let changed = serving.reevaluate().await;
        let closing = began.elapsed();
        ensure!(changed.stopped == half.len() && changed.started == 0, "{changed:?}");
        for (peer, feed) in &half {
            let state = peer.feed(feed).map(|link| link.status().state);
            ensure!(state.is_some_and(|state| state != LinkState::Open), "{state:?}");
        }
        rules.is_closed.store(false, Ordering::Release);
        let began = Instant::now();
        let changed = serving.reevaluate().await;
        let opening = began.elapsed();
        ensure!(changed.started == half.len() && changed.stopped == 0, "{changed:?}");
        println!("round {round}: closed for all within {closing:?}, allowed again within {opening:?}");
        // They open again before the next round.
        for (peer, feed) in &half {
            while peer.feed(feed).is_none_or(|link| link.status().state != LinkState::Open) {
                tokio::task::yield_now().await;
            }
        }
    }
    ensure!(serving.peers().len() == PEERS, "nobody had to connect again");
    Ok(())
}

async fn wait_for(party: &Party, remote: party::key::PublicKey) -> Peer {
    loop {
        if let Some(peer) = party.peers().into_iter().find(|peer| peer.remote_public_key() == remote) {
            return peer;
        }
        tokio::task::yield_now().await;
    }
}
