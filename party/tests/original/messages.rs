//! Where the first Party failed at what peers say to each other: a test for each, under the name that it had when it was seen.

use crate::common::{Behaviour, Shared, identity, meet, party_key, peer_added, raw::RawPeer, until};
use party::{
    admission::{self, Hello, membership},
    connection::{self, Connection},
    error::{DecodeError, Error, PeerMisbehaved},
    key::FeedKey,
    mux::{ChannelId, Event as MuxEvent},
    party::{Event, Events, Party},
    rules::{Rules, WholeStore},
    store::Store,
};

/// A member that speaks by hand and has dialled a party under these rules, its channel, and what the party hears.
async fn by_hand(rules: impl Rules) -> (RawPeer, ChannelId, Events, Connection, Party) {
    let party = Party::new(party_key(1), rules);
    let events = party.events();
    let (left, right) = connection::memory();
    let accepting = {
        let party = party.clone();
        tokio::spawn(async move { Connection::accept(right, &identity(2)).join(&party).await.unwrap() })
    };
    let mut member = RawPeer::dial(left, &identity(1)).await;
    let connection = accepting.await.unwrap();
    let id = membership::channel_id(member.session(), &party_key(1));
    let hello = Hello::new(membership::prove(member.session(), &party_key(1))).encode();
    let channel = member.mux.open(admission::PROTOCOL, Some(&id), &hello).unwrap();
    member.flush().await;
    assert!(matches!(member.event().await, Some(MuxEvent::Opened { .. })));
    (member, channel, events, connection, party)
}

async fn say(member: &mut RawPeer, channel: ChannelId, message_type: u64, payload: &[u8]) {
    member.mux.send(channel, message_type, payload).unwrap();
    member.flush().await;
}

/// Why the party's channel was closed.
async fn why_closed(events: &mut Events) -> Error {
    until(events, |event| match event {
        Event::ChannelFailed { feed: None, error, .. } => Some(error),
        _ => None,
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn mend_300_random_keys_are_accepted_and_persisted() {
    let store = Store::memory();
    let asking = Party::new(party_key(1), Shared::default());
    let mut events = asking.events();
    let answering = Party::new(party_key(1), WholeStore::new(store.clone()).max_feeds(299));
    let _connections = meet(&asking, &answering).await;
    let peer = peer_added(&mut events).await;
    let keys = (0..300_u16).map(|n| {
        let mut key = [3; 32];
        key[..2].copy_from_slice(&n.to_le_bytes());
        FeedKey::from_bytes(key)
    });
    assert!(matches!(peer.introduce_feeds(keys.clone()).await, Err(Error::Refused)));
    assert_eq!(store.list().await.unwrap().len(), 0, "none of them is kept");
    peer.introduce_feeds(keys.take(299)).await.unwrap();
    assert!(matches!(peer.introduce_feeds([FeedKey::from_bytes([9; 32])]).await, Err(Error::Refused)));
}

#[tokio::test(start_paused = true)]
async fn mend_a_rule_that_throws_leaves_the_asker_waiting_for_ever() {
    for behaviour in [Behaviour::Deny, Behaviour::Panic, Behaviour::Hang] {
        let rules = Shared::default();
        *rules.0.on_request.lock().unwrap() = Some(behaviour);
        let asking = Party::new(party_key(1), Shared::default());
        let mut events = asking.events();
        let (connection, _other) = meet(&asking, &Party::new(party_key(1), rules.clone())).await;
        let peer = peer_added(&mut events).await;
        let error = peer.request("ask", "it").await.unwrap_err();
        assert!(matches!(error, Error::Refused | Error::Timeout), "{behaviour:?}: {error}");
        // And if the connection ends meanwhile, that is the answer.
        *rules.0.on_request.lock().unwrap() = Some(Behaviour::Hang);
        let waiting = tokio::spawn(async move { peer.request("ask", "again").await });
        connection.close().await.unwrap();
        assert!(matches!(waiting.await.unwrap(), Err(Error::Closed)));
    }
}

#[tokio::test(start_paused = true)]
async fn mend_an_answer_of_another_type_resolves_or_throws() {
    let (mut member, channel, mut events, _connection, party) = by_hand(Shared::default()).await;
    let peer = peer_added(&mut events).await;
    let asking = tokio::spawn(async move { peer.introduce_feeds([]).await });
    while !matches!(member.event().await.unwrap(), MuxEvent::Message { message_type: 0, .. }) {}
    // Response { id: 1, custom: {} }
    say(&mut member, channel, 1, &[0x08, 1, 0x1a, 0]).await;
    assert!(matches!(asking.await.unwrap(), Err(Error::Closed)));
    let error = why_closed(&mut events).await;
    assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::UnexpectedMessage(_))), "{error}");
    assert!(party.peers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn mend_an_answer_to_an_unknown_id_resolves_or_throws() {
    let (mut member, channel, mut events, _connection, party) = by_hand(Shared::default()).await;
    peer_added(&mut events).await;
    // A few are counted, and then it is enough.
    for id in 1..=16 {
        say(&mut member, channel, 1, &[0x08, id, 0x12, 0]).await;
    }
    say(&mut member, channel, 0, &[0x08, 1, 0x12, 0]).await;
    while !matches!(member.event().await.unwrap(), MuxEvent::Message { message_type: 1, .. }) {}
    assert_eq!(party.peers().len(), 1);
    say(&mut member, channel, 1, &[0x08, 17, 0x12, 0]).await;
    let error = why_closed(&mut events).await;
    assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::UnknownTransaction)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn mend_an_empty_list_of_keys_arrives_as_nothing_and_breaks_a_rule() {
    let rules = Shared::default();
    let asking = Party::new(party_key(1), Shared::default());
    let mut events = asking.events();
    let _connections = meet(&asking, &Party::new(party_key(1), rules.clone())).await;
    let peer = peer_added(&mut events).await;
    tokio::time::sleep(std::time::Duration::from_millis(1)).await; // virtual: `ready` and `handshake` have run
    let before = rules.0.calls();
    assert_eq!(peer.introduce_feeds([]).await.unwrap(), []);
    assert_eq!(rules.0.calls(), before + 1, "the rule was asked");
}

#[tokio::test(start_paused = true)]
async fn mend_malformed_payloads_are_logged_and_kept() {
    // What is no protobuf, and keys of 31 bytes and of none.
    let key_of_31 = [&[0x08, 1, 0x12, 33, 0x0a, 31][..], &[1; 31]].concat();
    let empty_key = [0x08, 1, 0x12, 2, 0x0a, 0];
    for (payload, expected) in [
        (&[0xff; 40][..], DecodeError::Protobuf),
        (&key_of_31, DecodeError::Invalid("feed key")),
        (&empty_key, DecodeError::Invalid("feed key")),
    ] {
        let rules = Shared::default();
        let (mut member, channel, mut events, _connection, party) = by_hand(rules.clone()).await;
        tokio::time::sleep(std::time::Duration::from_millis(1)).await; // virtual: `ready` and `handshake` have run
        let before = rules.0.calls();
        say(&mut member, channel, 0, payload).await;
        let error = why_closed(&mut events).await;
        assert!(matches!(&error, Error::Decode(error) if *error == expected), "{error}");
        while !matches!(member.event().await.unwrap(), MuxEvent::Closed { channel: closed, .. } if closed == channel)
        {
        }
        assert!(party.peers().is_empty() && rules.0.calls() == before, "no rule has seen it");
    }
}
