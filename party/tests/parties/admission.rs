//! Who is admitted, and what those who are not get to see.

use crate::common::{Shared, identity, meet, party_key, peer_added, raw::RawPeer, until};
use bytes::Bytes;
use party::{
    admission::{self, Hello, membership},
    connection::{self, Connection},
    error::Error,
    key::{DiscoveryKey, FeedKey, PartyKey},
    mux::{CloseReason, Event as MuxEvent},
    party::{Event, Party},
    peer::Admission,
    replication,
    store::Store,
};

/// What a dialler saw of each of its opens.
#[derive(Debug, PartialEq, Eq)]
enum Saw {
    Opened,
    Rejected,
    Closed,
    Message,
    Incoming,
    Ended,
}

fn saw(event: Option<MuxEvent>) -> Saw {
    match event {
        None => Saw::Ended,
        Some(MuxEvent::Opened { .. }) => Saw::Opened,
        Some(MuxEvent::Incoming { .. }) => Saw::Incoming,
        Some(MuxEvent::Message { .. }) => Saw::Message,
        Some(MuxEvent::Closed { reason: CloseReason::Rejected, .. }) => Saw::Rejected,
        Some(MuxEvent::Closed { reason: CloseReason::Remote, .. }) => Saw::Closed,
    }
}

/// Dials a member of party 1 as somebody who opens what `opens` says, and returns what it saw until it was
/// hung up on. The feed exists and is released to every member.
async fn dial_as(
    victim: Party,
    opens: impl FnOnce(&RawPeer) -> Vec<(&'static str, Vec<u8>, Vec<u8>)>,
) -> Vec<Saw> {
    let (left, right) = connection::memory();
    let victim = tokio::spawn(async move {
        let connection = Connection::accept(right, &identity(2)).join(&victim).await.unwrap();
        let _ = connection.closed().await;
    });
    let mut dialler = RawPeer::dial(left, &identity(1)).await;
    let opens = opens(&dialler);
    let mut log = Vec::new();
    for (protocol, id, handshake) in opens {
        dialler.mux.open(protocol, Some(&id), &handshake).unwrap();
        dialler.flush().await;
        log.push(saw(dialler.event().await));
    }
    // Nothing else comes, whatever we wait for: the victim gives us up.
    log.push(saw(dialler.event().await));
    victim.await.unwrap();
    log
}

fn offer(peer: &RawPeer, party: &PartyKey, proof: Vec<u8>) -> (&'static str, Vec<u8>, Vec<u8>) {
    let hello = Hello { features: 0, proof: Bytes::from(proof) }.encode();
    (admission::PROTOCOL, membership::channel_id(peer.session(), party).to_vec(), hello)
}

fn feed_open(peer: &RawPeer, key: &FeedKey) -> (&'static str, Vec<u8>, Vec<u8>) {
    let handshake = replication::handshake(peer.session(), key);
    (replication::PROTOCOL, key.discovery_key().as_bytes().to_vec(), handshake)
}

//= PARTY-10, PARTY-14, PARTY-22
#[tokio::test(start_paused = true)]
async fn members_of_one_party_are_admitted_to_each_other() {
    let (alice, bob) =
        (Party::new(party_key(1), Shared::default()), Party::new(party_key(1), Shared::default()));
    let (mut seen_by_alice, mut seen_by_bob) = (alice.events(), bob.events());
    let (left, right) = meet(&alice, &bob).await;

    let peer = peer_added(&mut seen_by_alice).await;
    assert_eq!(peer.remote_public_key(), identity(2).public());
    assert_eq!(peer.admission(), Admission::Party(party_key(1).discovery_key()));
    assert_eq!(peer_added(&mut seen_by_bob).await.remote_public_key(), identity(1).public());
    assert_eq!(alice.peers(), std::slice::from_ref(&peer));

    left.close().await.unwrap();
    right.closed().await.unwrap();
    let removed = until(&mut seen_by_alice, |event| match event {
        Event::PeerRemoved(peer) => Some(peer),
        _ => None,
    })
    .await;
    assert_eq!(removed, peer);
    assert!(alice.peers().is_empty() && peer.is_closed());
}

//= PARTY-15, PARTY-16, PARTY-18
#[tokio::test(start_paused = true)]
async fn whoever_does_not_know_the_party_key_sees_what_a_peer_without_the_party_shows() {
    let store = Store::memory();
    let feed = crate::common::feed_with(&store, "feed", &["secret"]).await;
    let feed_key = feed.key();

    type Attack = fn(&RawPeer, FeedKey) -> Vec<(&'static str, Vec<u8>, Vec<u8>)>;
    let attacks: [(&str, Attack); 5] = [
        ("the wrong party key", |peer, key| {
            let wrong = party_key(9);
            vec![
                offer(peer, &wrong, membership::prove(peer.session(), &wrong).to_vec()),
                feed_open(peer, &key),
            ]
        }),
        ("the right channel id with a wrong proof", |peer, key| {
            vec![offer(peer, &party_key(1), vec![7; 32]), feed_open(peer, &key)]
        }),
        ("the right channel id with a malformed hello", |peer, key| {
            let (protocol, id, _) = offer(peer, &party_key(1), vec![]);
            vec![(protocol, id, vec![0xff; 40]), feed_open(peer, &key)]
        }),
        ("only the discovery key", |peer, key| {
            let id: DiscoveryKey = party_key(1).discovery_key();
            vec![
                (admission::PROTOCOL, id.as_bytes().to_vec(), Hello::new(*id.as_bytes()).encode()),
                feed_open(peer, &key),
            ]
        }),
        ("only the feed's key", |peer, key| vec![feed_open(peer, &key), feed_open(peer, &key)]),
    ];
    for (name, attack) in attacks {
        let rules = Shared::default();
        rules.0.released.lock().unwrap().push(feed.clone());
        let member = dial_as(Party::new(party_key(1), rules.clone()), |peer| attack(peer, feed_key)).await;
        let stranger =
            dial_as(Party::new(party_key(200), Shared::default()), |peer| attack(peer, feed_key)).await;
        assert_eq!(member, stranger, "{name}");
        assert_eq!(member, [Saw::Rejected, Saw::Rejected, Saw::Ended], "{name}");
        assert_eq!(rules.0.calls(), 0, "{name}: no rule runs");
    }
}

//= PARTY-8
#[tokio::test(start_paused = true)]
async fn a_proof_from_another_connection_is_worthless() {
    let key = party_key(1);
    // A member dials the attacker, who keeps what it was shown.
    let (left, right) = connection::memory();
    let member = Party::new(key, Shared::default());
    let dialling = tokio::spawn(async move {
        let connection = Connection::dial(left, &identity(3)).join(&member).await.unwrap();
        connection.closed().await
    });
    let mut attacker = RawPeer::accept(right, &identity(4)).await;
    let Some(MuxEvent::Incoming { id, handshake, .. }) = attacker.event().await else { panic!() };
    drop(attacker);
    let _ = dialling.await.unwrap();

    let rules = Shared::default();
    let replay = dial_as(Party::new(key, rules.clone()), |_| {
        vec![(admission::PROTOCOL, id.unwrap().to_vec(), handshake.to_vec())]
    })
    .await;
    assert_eq!(replay, [Saw::Rejected, Saw::Ended]);
    assert_eq!(rules.0.calls(), 0);
}

//= PARTY-12, PARTY-13, PARTY-20, PARTY-21
#[tokio::test(start_paused = true)]
async fn whom_we_dial_sees_one_opaque_open_and_an_echo_is_closed() {
    let rules = Shared::default();
    let party = Party::new(party_key(1), rules.clone());
    let (left, right) = connection::memory();
    let dialling = tokio::spawn(async move {
        let connection = Connection::dial(left, &identity(1)).join(&party).await.unwrap();
        connection.closed().await
    });
    let mut echo = RawPeer::accept(right, &identity(2)).await;
    let mut heard = Vec::new();
    while let Some(message) = echo.hear().await {
        echo.say(&message).await;
        heard.push(message);
    }
    assert_eq!(heard.len(), 2, "an open, then a close: {heard:?}");
    assert_eq!(heard[0][..2], [0, 1], "an open");
    assert_eq!(heard[1][..2], [0, 3], "a close");
    let text = format!("{heard:?}");
    for secret in [party_key(1).discovery_key().as_bytes(), party_key(1).as_bytes()] {
        assert!(!heard.iter().any(|message| message.windows(32).any(|window| window == secret)), "{text}");
    }
    assert!(matches!(dialling.await.unwrap(), Err(Error::Refused)));
    assert_eq!(rules.0.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_echoes_every_byte_of_the_transport_gets_nowhere() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let rules = Shared::default();
    let party = Party::new(party_key(1), rules.clone());
    for we_dial in [true, false] {
        let (left, mut right) = connection::memory();
        let echo = tokio::spawn(async move {
            let mut bytes = [0; 1024];
            while let Ok(n @ 1..) = right.read(&mut bytes).await {
                if right.write_all(&bytes[..n]).await.is_err() {
                    return;
                }
            }
        });
        let connecting = if we_dial {
            Connection::dial(left, &identity(1)).join(&party)
        } else {
            Connection::accept(left, &identity(1)).join(&party)
        };
        assert!(connecting.await.is_err());
        echo.await.unwrap();
    }
    assert_eq!(rules.0.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_wrong_party_is_told_to_the_app_that_dialled() {
    let (alice, bob) =
        (Party::new(party_key(1), Shared::default()), Party::new(party_key(2), Shared::default()));
    let (left, right) = meet(&alice, &bob).await;
    assert!(matches!(left.closed().await, Err(Error::Refused)));
    assert!(right.closed().await.is_err());
}

//= PARTY-42
#[tokio::test(start_paused = true)]
async fn a_finite_connection_that_is_refused_has_not_done_its_work() {
    let (alice, bob) =
        (Party::new(party_key(1), Shared::default()), Party::new(party_key(2), Shared::default()));
    let (left, right) = connection::memory();
    let (dialled, _accepted) = tokio::join!(
        async { Connection::dial(left, &identity(1)).join(&alice).finite().await?.closed().await },
        async { Connection::accept(right, &identity(2)).join(&bob).await?.closed().await },
    );
    assert!(matches!(dialled, Err(Error::Refused)));
}

//= PARTY-25
#[tokio::test(start_paused = true)]
async fn a_member_of_two_parties_gets_feeds_of_the_party_that_both_share_only() {
    let store = Store::memory();
    let (shared, hidden) = (
        crate::common::feed_with(&store, "shared", &["for both"]).await,
        crate::common::feed_with(&store, "hidden", &["for party 2"]).await,
    );
    let (rules_1, rules_2) = (Shared::default(), Shared::default());
    rules_1.0.released.lock().unwrap().push(shared.clone());
    rules_2.0.released.lock().unwrap().push(hidden.clone());
    let (party_1, party_2) = (Party::new(party_key(1), rules_1), Party::new(party_key(2), rules_2.clone()));

    let (left, right) = connection::memory();
    let listening = tokio::spawn(async move {
        Connection::accept(right, &identity(2)).join(&party_1).join(&party_2).await.unwrap()
    });
    let dialler = Party::new(party_key(1), Shared::default());
    let mut events = dialler.events();
    let connection = Connection::dial(left, &identity(1)).join(&dialler).await.unwrap();
    let _listener = listening.await.unwrap();
    let peer = peer_added(&mut events).await;

    let readers = Store::memory();
    let (shared, hidden) =
        (readers.feed(&shared.key()).await.unwrap(), readers.feed(&hidden.key()).await.unwrap());
    peer.replicate(&hidden).await.unwrap();
    peer.replicate(&shared).await.unwrap();
    assert_eq!(shared.fetch(0).await.unwrap(), "for both");
    let refused = until(&mut events, |event| match event {
        Event::FeedRefused { feed, .. } => Some(feed),
        _ => None,
    })
    .await;
    assert_eq!(refused, hidden.discovery_key());
    assert_eq!(hidden.info().length, 0);
    assert_eq!(rules_2.0.calls(), 0, "the rules of a party that the peer is not in are not asked");
    connection.close().await.unwrap();
}
