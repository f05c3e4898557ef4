//! What is wrong on a channel, and what is only strange.

use bytes::Bytes;
use party::{
    connection::{self, Connection},
    encoding::MAX_SAFE_INTEGER,
    error::{DecodeError, Error},
    mux::Event as MuxEvent,
    party::{Event, Open, Party},
    replication,
    rules::WholeStore,
    store::Store,
};

use crate::{
    common::{self, Shared, identity, party_key, raw::RawPeer},
    shared::{handshake_for, heard, open_feed, say, serves, victim},
};

#[tokio::test(start_paused = true)]
async fn what_is_strange_but_harmless_costs_nothing() {
    use party::{
        feed::proof::{BlockRequest, ProofRequest},
        replication::messages::{Message, Range, Request},
    };

    let (left, right) = connection::memory();
    let (victim, feed, _) = victim(right).await;
    let mut peer = RawPeer::dial(left, &identity(1)).await;

    // A close of an id that was never opened, and a message to one.
    peer.say(&[0, 3, 99]).await;
    peer.say(&[99, 0, 1, 2, 3]).await;

    let (channel, _) = open_feed(&mut peer, &feed).await;
    let range = Range { drop: false, start: 1 << 20, length: 1 << 40 };
    say(&mut peer, channel, Message::Range(range)).await;

    let proof = ProofRequest {
        block: Some(BlockRequest { index: MAX_SAFE_INTEGER, nodes: 0 }),
        ..Default::default()
    };
    say(&mut peer, channel, Message::Request(Request { id: 3, fork: 0, proof, priority: 0 })).await;
    loop {
        match heard(&mut peer, channel).await {
            Message::NoData(no_data) => {
                assert_eq!(no_data.request, 3);
                break;
            }
            Message::Data(data) => panic!("{data:?}"),
            _ => {}
        }
    }
    drop(peer);
    victim.await.unwrap().unwrap();
}

//= FEED-61, OVER-7
#[tokio::test(start_paused = true)]
async fn an_empty_upgrade_closes_the_channel_and_not_the_connection() {
    use party::{
        feed::proof::{Proof, UpgradeProof},
        replication::messages::{Data, Message, Sync},
    };

    // The victim reads a feed that the attacker knows.
    let store = Store::memory();
    let other = Store::memory();
    let feed = common::feed_with(&other, "feed", &["block"]).await;
    store.feed(&feed.key()).await.unwrap();
    let open = Open::new(WholeStore::new(store));
    let mut events = open.events();
    let (left, right) = connection::memory();
    let victim =
        tokio::spawn(
            async move { Connection::accept(right, &identity(2)).open(&open).await?.closed().await },
        );
    let mut peer = RawPeer::dial(left, &identity(1)).await;
    let (channel, _) = open_feed(&mut peer, &feed).await;
    let sync = Sync {
        fork: 0,
        length: 5,
        remote_length: 0,
        can_upgrade: true,
        uploading: true,
        downloading: true,
        has_manifest: true,
        allow_push: false,
    };
    say(&mut peer, channel, Message::Sync(sync)).await;
    let request = loop {
        if let Message::Request(request) = heard(&mut peer, channel).await {
            break request;
        }
    };
    let upgrade = UpgradeProof {
        start: 0,
        length: 0,
        nodes: vec![],
        additional_nodes: vec![],
        signature: Bytes::from_static(&[0; 64]),
    };
    let proof = Proof { upgrade: Some(upgrade.into()), ..Proof::default() };
    say(&mut peer, channel, Message::Data(Data { request: request.id, proof })).await;

    let closed = loop {
        if let Some(MuxEvent::Closed { channel, .. }) = peer.event().await {
            break channel;
        }
    };
    assert_eq!(closed, channel);
    let error = common::until(&mut events, |event| match event {
        Event::ChannelFailed { feed: Some(_), error, .. } => Some(error),
        _ => None,
    })
    .await;
    assert!(matches!(error, Error::PeerMisbehaved(_) | Error::Decode(_)), "{error}");
    // The connection lives: it answers.
    peer.say(&[0, 1, 9, 1, b'x', 0]).await;
    drop(peer);
    let _ = victim.await.unwrap();
}

//= PARTY-92
#[tokio::test(start_paused = true)]
async fn a_wrong_capability_is_refused_as_an_unknown_feed_is() {
    let (left, right) = connection::memory();
    let (victim, feed, _) = victim(right).await;
    let mut peer = RawPeer::dial(left, &identity(1)).await;
    let mut handshake = handshake_for(&peer, &feed);
    *handshake.last_mut().unwrap() ^= 1;
    let id = *feed.discovery_key().as_bytes();
    for (id, handshake) in [(id, handshake), ([7; 32], vec![0; 33]), (id, vec![])] {
        peer.mux.open(replication::PROTOCOL, Some(&id), &handshake).unwrap();
        peer.flush().await;
        let event = peer.event().await.unwrap();
        assert!(
            matches!(event, MuxEvent::Closed { reason: party::mux::CloseReason::Rejected, .. }),
            "{event:?}"
        );
    }
    assert_eq!(serves(&mut peer, &feed).await, "one");
    drop(peer);
    victim.await.unwrap().unwrap();
}

/// Each waits until the one before it is answered, and must not wait for longer.
#[tokio::test(start_paused = true)]
#[allow(clippy::disallowed_methods)] // virtual time is looked at
async fn several_opens_of_one_feed_are_refused_one_after_the_other_and_at_once() {
    let (left, right) = connection::memory();
    let (victim, feed, _) = victim(right).await;
    let mut peer = RawPeer::dial(left, &identity(1)).await;
    let begun = tokio::time::Instant::now();
    let id = *feed.discovery_key().as_bytes();
    for _ in 0..5 {
        peer.mux.open(replication::PROTOCOL, Some(&id), &[0; 33]).unwrap();
    }
    peer.flush().await;
    for _ in 0..5 {
        let event = peer.event().await.unwrap();
        assert!(
            matches!(event, MuxEvent::Closed { reason: party::mux::CloseReason::Rejected, .. }),
            "{event:?}"
        );
    }
    // Not even a keep-alive was due.
    assert!(begun.elapsed().as_secs() < 1, "{:?}", begun.elapsed());
    drop(peer);
    victim.await.unwrap().unwrap();
}

//= MUX-6, PARTY-45, PARTY-52, OVER-7
#[tokio::test(start_paused = true)]
async fn a_party_channel_that_talks_nonsense_is_closed_and_the_connection_lives() {
    let rules = Shared::default();
    let party = Party::new(party_key(1), rules.clone());
    let mut events = party.events();
    let (left, right) = connection::memory();
    let victim =
        tokio::spawn(
            async move { Connection::accept(right, &identity(2)).join(&party).await?.closed().await },
        );
    let mut peer = RawPeer::dial(left, &identity(1)).await;
    let id = party::admission::membership::channel_id(peer.session(), &party_key(1));
    let hello =
        party::admission::Hello::new(party::admission::membership::prove(peer.session(), &party_key(1)));
    let channel = peer.mux.open(party::admission::PROTOCOL, Some(&id), &hello.encode()).unwrap();
    peer.mux.send(channel, 0, &[0xff; 32]).unwrap();
    peer.flush().await;
    let error = common::until(&mut events, |event| match event {
        Event::ChannelFailed { feed: None, error, .. } => Some(error),
        _ => None,
    })
    .await;
    assert!(matches!(error, Error::Decode(DecodeError::Protobuf)), "{error}");
    loop {
        if let Some(MuxEvent::Closed { channel: closed, .. }) = peer.event().await {
            assert_eq!(closed, channel);
            break;
        }
    }
    drop(peer);
    victim.await.unwrap().unwrap();
}
