//! Where the first Party let people in that it shouldn't have, a test for each. Some are shown elsewhere, and not doubled here:
//!
//! - "echoing the victim's own bytes completes the handshake": `whom_we_dial_sees_one_opaque_open_and_an_echo_is_closed` in
//!   `admission.rs`
//! - "a stranger joins by replaying an answer between connections": `a_proof_from_another_connection_is_worthless` in
//!   `admission.rs`
//! - "members answer a probe, non-members don't": `whoever_does_not_know_the_party_key_sees_what_a_peer_without_the_party_shows`
//!   in `admission.rs`
//! - "a recorded session replays; a flipped bit goes unnoticed": the tests of `noise`

mod common;

use common::{Shared, feed_with, identity, meet, one_feed, party_key, peer_added, raw::RawPeer};
use party::{
    admission::{self, Hello, membership},
    connection::{self, Connection},
    feed::Feed,
    key::FeedKey,
    mux::{CloseReason, Event as MuxEvent},
    party::Party,
    peer::Replicate,
    replication,
    store::Store,
};

/// A member that speaks by hand, admitted to a party that releases this feed to whoever asks.
async fn member_by_hand(feed: &Feed) -> (RawPeer, Connection) {
    let rules = Shared::default();
    rules.0.released.lock().unwrap().push(feed.clone());
    let party = Party::new(party_key(1), rules);
    let (left, right) = connection::memory();
    let accepting =
        tokio::spawn(async move { Connection::accept(right, &identity(2)).join(&party).await.unwrap() });
    let mut member = RawPeer::dial(left, &identity(1)).await;
    let connection = accepting.await.unwrap();
    let id = membership::channel_id(member.session(), &party_key(1));
    let hello = Hello::new(membership::prove(member.session(), &party_key(1))).encode();
    member.mux.open(admission::PROTOCOL, Some(&id), &hello).unwrap();
    member.flush().await;
    assert!(matches!(member.event().await, Some(MuxEvent::Opened { .. })));
    (member, connection)
}

/// How an open of a feed ends for a member that opens it with a capability made of `key`.
async fn open(member: &mut RawPeer, feed: &Feed, key: &FeedKey) -> Result<(), CloseReason> {
    let handshake = replication::handshake(member.session(), key);
    let id = feed.discovery_key();
    let channel = member.mux.open(replication::PROTOCOL, Some(id.as_bytes()), &handshake).unwrap();
    member.flush().await;
    loop {
        match member.event().await.expect("the connection lives") {
            MuxEvent::Opened { channel: opened, .. } if opened == channel => return Ok(()),
            MuxEvent::Closed { channel: closed, reason } if closed == channel => return Err(reason),
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn mend_a_member_who_knows_only_a_feeds_discovery_key_reads_its_blocks() {
    let feed = feed_with(&Store::memory(), "feed", &["secret"]).await;
    let (mut member, _connection) = member_by_hand(&feed).await;
    let guessed = FeedKey::from_bytes([7; 32]);
    assert_eq!(open(&mut member, &feed, &guessed).await, Err(CloseReason::Rejected));
    assert_eq!(open(&mut member, &feed, &feed.key()).await, Ok(()), "and who knows the key is let in");
}

#[tokio::test(start_paused = true)]
async fn mend_a_remote_without_the_party_extension_crashes_the_process() {
    // It opens something that nobody has heard of, and says what no message is.
    let party = Party::new(party_key(1), Shared::default());
    let (left, right) = connection::memory();
    let accepting =
        tokio::spawn(async move { Connection::accept(right, &identity(2)).join(&party).await.unwrap() });
    let mut remote = RawPeer::dial(left, &identity(1)).await;
    let connection = accepting.await.unwrap();
    for protocol in ["another/1", "hypercore/alpha", ""] {
        let channel = remote.mux.open(protocol, None, b"").unwrap();
        remote.mux.send(channel, 77, b"what").unwrap();
        remote.flush().await;
        let event = remote.event().await;
        assert!(
            matches!(event, Some(MuxEvent::Closed { reason: CloseReason::Rejected, .. })),
            "a plain refusal: {event:?}"
        );
    }
    drop(remote);
    assert!(connection.closed().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn mend_peer_ids_are_self_declared() {
    let written = one_feed::written(1).await;
    let party = one_feed::party_of(&written, Replicate::sparsely());
    let mut events = party.events();
    let _connections = meet(&Party::new(party_key(1), Shared::default()), &party).await;
    // There is nothing to declare: a peer is the static key that the handshake has proved.
    assert_eq!(peer_added(&mut events).await.remote_public_key(), identity(1).public());
}
