//! One change of rules, in the middle of what many peers get of many feeds: what is forbidden has stopped when the call returns, down to
//! what is handed to the transports, and nothing else has noticed. `benches/benches/revocation.rs` measures how long the call takes.

use std::{
    collections::BTreeSet,
    future::IntoFuture as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::{identity, party_key, watched::Watched};
use bytes::Bytes;
use party::{
    connection::{Connection, memory},
    feed::Feed,
    key::FeedKey,
    party::Party,
    peer::{LinkState, Peer},
    rules::{Decision, Policy, Question, Rules as _, WholeStore},
    store::{FeedOptions, Store},
};

/// Forbids everything about these feeds.
#[derive(Clone, Default)]
struct Forbidden(Arc<Mutex<BTreeSet<FeedKey>>>);

impl Policy for Forbidden {
    fn decide(&self, question: &Question<'_>) -> Decision {
        if self.0.lock().unwrap().contains(&question.feed) {
            Decision::deny("forbidden", "it is on the list")
        } else {
            Decision::allow("forbidden", "it is not on the list")
        }
    }
}

/// A party that serves feeds of so many blocks of `size` bytes.
async fn serving(feeds: u64, blocks: u64, size: usize) -> (Party, Forbidden, Vec<Feed>) {
    let (store, forbidden) = (Store::memory(), Forbidden::default());
    let mut written = Vec::new();
    for n in 0..feeds {
        let feed = store.create_feed(&format!("feed {n}"), FeedOptions::default()).await.unwrap();
        feed.append_batch((0..blocks).map(|_| Bytes::from(vec![n as u8; size])).collect()).await.unwrap();
        written.push(feed);
    }
    (Party::new(party_key(1), WholeStore::new(store).guarded_by(forbidden.clone())), forbidden, written)
}

/// A party that wants all of these feeds, and its copies of them.
async fn reading(written: &[Feed]) -> (Party, Vec<Feed>) {
    let store = Store::memory();
    let mut copies = Vec::new();
    for feed in written {
        copies.push(store.feed(&feed.key()).await.unwrap());
    }
    (Party::new(party_key(1), WholeStore::new(store)), copies)
}

#[tokio::test(start_paused = true)]
async fn one_change_of_rules_stops_half_of_the_feeds_with_all_peers_and_no_other_notices() {
    const PEERS: usize = 30;
    const BLOCKS: u64 = 200;
    let (party, forbidden, written) = serving(6, BLOCKS, 100).await;
    let (mut readers, mut connections) = (Vec::new(), Vec::new());
    for n in 0..PEERS {
        let (reader, copies) = reading(&written).await;
        let (left, right) = memory();
        let (dialling, accepting) = (identity(1), identity(2));
        let serve = Connection::accept(right, &accepting).join(&party);
        // The first is given little at a time: it is not done before the rules change, however fast the others are.
        let serve = if n == 0 { serve.upload_at_most(10_000) } else { serve };
        let dial = Connection::dial(left, &dialling).join(&reader);
        connections.push(tokio::try_join!(dial.into_future(), serve.into_future()).unwrap());
        readers.push((reader, copies));
    }
    // In the middle of it, for each of the others.
    let is_under_way = |(_, copies): &(Party, Vec<Feed>)| copies.iter().all(|copy| copy.info().length > 0);
    while !readers[1..].iter().all(is_under_way) {
        tokio::task::yield_now().await;
    }
    let before: Vec<Peer> = party.peers();
    assert_eq!(before.len(), PEERS);
    forbidden.0.lock().unwrap().extend(written[..3].iter().map(Feed::key));
    let changed = party.reevaluate().await;
    assert_eq!((changed.stopped, changed.started), (3 * PEERS, 0));

    let sent =
        |feed: &Feed| -> Vec<u64> { feed.peers().iter().map(|link| link.traffic().blocks_sent).collect() };
    let at_return: Vec<Vec<u64>> = written[..3].iter().map(sent).collect();
    assert!(at_return.iter().flatten().any(|sent| *sent < BLOCKS), "it was over before");
    tokio::time::sleep(Duration::from_secs(60)).await; // virtual
    assert_eq!(written[..3].iter().map(sent).collect::<Vec<_>>(), at_return);
    for feed in &written[..3] {
        assert!(feed.peers().iter().all(|link| link.status().state == LinkState::Forbidden));
    }
    for (_, copies) in &readers {
        assert!(copies[3..].iter().all(|copy| copy.info().contiguous_length == BLOCKS), "the others go on");
    }
    assert_eq!(party.peers(), before, "nobody had to come again");
    assert!(before.iter().all(|peer| !peer.has_left()));
}

//= PARTY-100
#[tokio::test(start_paused = true)]
async fn no_block_is_handed_to_a_transport_after_the_call_has_returned() {
    const SIZE: usize = 1 << 16;
    // A way that is shorter than a block, so that there is always something sealed that has not been taken.
    for capacity in [1 << 10, 1 << 20] {
        let (party, forbidden, written) = serving(2, 200, SIZE).await;
        let (reader, _copies) = reading(&written).await;
        let (left, right) = tokio::io::duplex(capacity);
        let (right, handed_over) = Watched::new(right);
        let _connections = tokio::try_join!(
            Connection::dial(left, &identity(1)).join(&reader).into_future(),
            Connection::accept(right, &identity(2)).join(&party).into_future(),
        )
        .unwrap();
        while handed_over.bytes() < 20 * SIZE {
            tokio::task::yield_now().await;
        }
        forbidden.0.lock().unwrap().extend(written.iter().map(Feed::key));
        assert_eq!(party.reevaluate().await.stopped, 2);
        let at_return = handed_over.bytes();
        assert!(at_return < 300 * SIZE, "it was over before: {at_return}");
        tokio::time::sleep(Duration::from_secs(30)).await; // virtual
        // Keep-alives are handed over, and what members say to each other.
        let after = handed_over.bytes() - at_return;
        assert!(after < SIZE / 16, "{after} bytes");
        assert_eq!(party.peers().len(), 1);
    }
}
