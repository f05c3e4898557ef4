//! Where the first Party let people in that it shouldn't have, a test for each, under the name that it had when it was seen.
//! `admission.rs`, `between.rs` and `silence/` go further.

#![allow(clippy::disallowed_methods)] // the time is virtual

use crate::common::{Shared, feed_with, identity, meet, one_feed, party_key, peer_added, raw::RawPeer};
use party::{
    admission::{self, Hello, membership},
    connection::{self, Connection},
    error::{Error, PeerMisbehaved},
    feed::Feed,
    key::FeedKey,
    mux::{CloseReason, Event as MuxEvent},
    party::Party,
    peer::Replicate,
    replication,
    store::Store,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    task::JoinHandle,
};

fn dial(io: DuplexStream, party: &Party) -> JoinHandle<Result<(), Error>> {
    let party = party.clone();
    tokio::spawn(async move { Connection::dial(io, &identity(1)).join(&party).await?.closed().await })
}

fn accept(io: DuplexStream, party: &Party) -> JoinHandle<Result<(), Error>> {
    let party = party.clone();
    tokio::spawn(async move { Connection::accept(io, &identity(2)).join(&party).await?.closed().await })
}

#[tokio::test(start_paused = true)]
async fn mend_echoing_the_victims_own_bytes_completes_the_handshake() {
    let party = Party::new(party_key(1), Shared::default());
    // Below Noise and above it.
    let (left, mut right) = connection::memory();
    let dialling = dial(left, &party);
    let mut bytes = [0; 1024];
    while let Ok(n @ 1..) = right.read(&mut bytes).await {
        let _ = right.write_all(&bytes[..n]).await;
    }
    assert!(matches!(dialling.await.unwrap(), Err(Error::PeerMisbehaved(_))));

    let (left, right) = connection::memory();
    let dialling = dial(left, &party);
    let mut echo = RawPeer::accept(right, &identity(2)).await;
    while let Some(message) = echo.hear().await {
        echo.say(&message).await;
    }
    assert!(matches!(dialling.await.unwrap(), Err(Error::Refused)));
    assert!(party.peers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn mend_a_stranger_joins_by_replaying_an_answer_between_connections() {
    let party = Party::new(party_key(1), Shared::default());
    // A member dials the stranger, who then says to another member what it has heard.
    let (left, right) = connection::memory();
    let dialling = dial(left, &party);
    let mut stranger = RawPeer::accept(right, &identity(3)).await;
    let Some(MuxEvent::Incoming { id, handshake, .. }) = stranger.event().await else { panic!() };
    let (left, right) = connection::memory();
    let accepting = accept(right, &party);
    let mut replaying = RawPeer::dial(left, &identity(3)).await;
    replaying.mux.open(admission::PROTOCOL, id.as_deref(), &handshake).unwrap();
    replaying.flush().await;
    let event = replaying.event().await;
    assert!(matches!(event, Some(MuxEvent::Closed { reason: CloseReason::Rejected, .. })), "{event:?}");
    drop((stranger, replaying));
    assert!(dialling.await.unwrap().is_err() && accepting.await.unwrap().is_err());
    assert!(party.peers().is_empty());
}

/// Carries the bytes of two members to each other, with a flipped bit after so many that went to the second, if at all. Returns
/// what went to the second, and how the two have ended.
async fn carried(flip_after: Option<usize>) -> (Vec<u8>, [Result<(), Error>; 2]) {
    let (one, other) =
        (Party::new(party_key(1), Shared::default()), Party::new(party_key(1), Shared::default()));
    let ((left, mut near), (mut far, right)) = (connection::memory(), connection::memory());
    let ends = [dial(left, &one), accept(right, &other)];
    let (mut carried, mut here, mut there) = (Vec::new(), [0; 1024], [0; 1024]);
    loop {
        tokio::select! {
            read = near.read(&mut here) => {
                let Ok(n @ 1..) = read else { break };
                let mut bytes = here[..n].to_vec();
                if let Some(at) = flip_after.and_then(|at| at.checked_sub(carried.len()))
                    && let Some(byte) = bytes.get_mut(at)
                {
                    *byte ^= 1;
                }
                carried.extend_from_slice(&bytes);
                let _ = far.write_all(&bytes).await;
            }
            read = far.read(&mut there) => {
                let Ok(n @ 1..) = read else { break };
                let _ = near.write_all(&there[..n]).await;
            }
            () = tokio::time::sleep(std::time::Duration::from_secs(1)) => break,
        }
    }
    assert!(flip_after.is_some() || one.peers().len() == 1, "members meet");
    drop((near, far));
    let [one, other] = ends;
    (carried, [one.await.unwrap(), other.await.unwrap()])
}

#[tokio::test(start_paused = true)]
async fn mend_a_recorded_session_replays() {
    let (recorded, _) = carried(None).await;
    let party = Party::new(party_key(1), Shared::default());
    let (mut left, right) = connection::memory();
    let accepting = accept(right, &party);
    left.write_all(&recorded).await.unwrap();
    let error = accepting.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::HandshakeFailed)), "{error}");
    assert!(party.peers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn mend_a_flipped_bit_goes_unnoticed() {
    let (recorded, _) = carried(None).await;
    // In the handshake, in the header, in what is said; not in a length, after which more may be waited for.
    for at in [10, recorded.len() - 100, recorded.len() - 1] {
        let (_, [_, error]) = carried(Some(at)).await;
        let error = error.unwrap_err();
        assert!(matches!(error, Error::PeerMisbehaved(_)), "{at} of {}: {error}", recorded.len());
    }
}

#[tokio::test(start_paused = true)]
async fn mend_members_answer_a_probe_and_non_members_do_not() {
    let mut seen = Vec::new();
    for key in [1, 200] {
        let party = Party::new(party_key(key), Shared::default());
        let (left, right) = connection::memory();
        let accepting = accept(right, &party);
        let mut probe = RawPeer::dial(left, &identity(1)).await;
        let start = tokio::time::Instant::now();
        let discovery_key = *party_key(1).discovery_key().as_bytes();
        let hello = Hello::new(discovery_key).encode();
        probe.mux.open(admission::PROTOCOL, Some(&discovery_key), &hello).unwrap();
        probe.flush().await;
        let heard = probe.hear_all().await;
        assert!(accepting.await.unwrap().is_err());
        seen.push((heard, probe.stream.keep_alives(), start.elapsed()));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].0.len(), 1, "a reject: {seen:?}");
}

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
