//! Who stands between two members and is none: what it hears from one is worthless with the other, with the same one again, and
//! on another connection. (Plain echoes, and replays by a stranger, are in `admission.rs`.)

use crate::common::{Shared, feed_with, identity, one_feed, party_key, raw::RawPeer, until};
use party::{
    admission::{self, Hello, membership},
    connection::{self, Connection},
    error::{Error, PeerMisbehaved},
    mux::{CloseReason, Event as MuxEvent, Incoming},
    party::{Event, Party},
    peer::Replicate,
    replication,
    store::Store,
};
use tokio::{io::DuplexStream, task::JoinHandle};

type Outcome = Result<(), Error>;

fn member(rules: &Shared) -> Party {
    Party::new(party_key(1), rules.clone())
}

fn dial(io: DuplexStream, n: u8, party: Party) -> JoinHandle<Outcome> {
    tokio::spawn(async move { Connection::dial(io, &identity(n)).join(&party).await?.closed().await })
}

fn accept(io: DuplexStream, n: u8, party: Party) -> JoinHandle<Outcome> {
    tokio::spawn(async move { Connection::accept(io, &identity(n)).join(&party).await?.closed().await })
}

/// Hands on what each says to the other, until one hangs up. Returns how many messages there were.
async fn relay(mut one: RawPeer, mut other: RawPeer) -> usize {
    let mut relayed = 0;
    loop {
        let heard = tokio::select! {
            message = one.hear() => message.map(|message| (message, true)),
            message = other.hear() => message.map(|message| (message, false)),
        };
        let Some((message, is_from_one)) = heard else { return relayed };
        relayed += 1;
        if is_from_one { other.say(&message).await } else { one.say(&message).await }
    }
}

//= protocol-spec/08-party.md#values
#[tokio::test(start_paused = true)]
async fn who_relays_between_two_members_is_admitted_by_neither() {
    // It is dialled by one and dials the other, is dialled by both, dials both.
    for (one_dials, other_dials) in [(true, false), (true, true), (false, false)] {
        let rules = [Shared::default(), Shared::default()];
        let [one, other] = [member(&rules[0]), member(&rules[1])];
        let ((left, one_end), (right, other_end)) = (connection::memory(), connection::memory());
        let ends = if one_dials { dial(left, 1, one.clone()) } else { accept(left, 1, one.clone()) };
        let other_ends =
            if other_dials { dial(right, 2, other.clone()) } else { accept(right, 2, other.clone()) };
        let to_one = match one_dials {
            true => RawPeer::accept(one_end, &identity(3)).await,
            false => RawPeer::dial(one_end, &identity(3)).await,
        };
        let to_other = match other_dials {
            true => RawPeer::accept(other_end, &identity(4)).await,
            false => RawPeer::dial(other_end, &identity(4)).await,
        };
        let relayed = relay(to_one, to_other).await;
        assert!(relayed > 0 || !(one_dials || other_dials), "somebody has said something");
        for outcome in [ends.await.unwrap(), other_ends.await.unwrap()] {
            assert!(outcome.is_err(), "who dials is refused, and who is dialled gives up: {outcome:?}");
        }
        assert_eq!(rules.map(|rules| rules.0.calls()), [0, 0], "no rule is asked");
        assert!(one.peers().is_empty() && other.peers().is_empty());
    }
}

/// What somebody offers who has dialled.
async fn offer(responder: &mut RawPeer) -> (Incoming, Vec<u8>, Vec<u8>) {
    loop {
        match responder.event().await.expect("the dialler is there") {
            MuxEvent::Incoming { incoming, protocol, id, handshake } if protocol == admission::PROTOCOL => {
                return (incoming, id.unwrap().to_vec(), handshake.to_vec());
            }
            _ => {}
        }
    }
}

/// Opens something and returns how that ends.
async fn try_open(peer: &mut RawPeer, protocol: &str, id: &[u8], handshake: &[u8]) -> Option<CloseReason> {
    let channel = peer.mux.open(protocol, Some(id), handshake).unwrap();
    peer.flush().await;
    loop {
        match peer.event().await.expect("the connection lives") {
            MuxEvent::Opened { channel: opened, .. } if opened == channel => return None,
            MuxEvent::Closed { channel: closed, reason } if closed == channel => return Some(reason),
            _ => {}
        }
    }
}

//= PARTY-31
#[tokio::test(start_paused = true)]
async fn an_offer_that_comes_back_as_one_of_the_other_side_is_refused() {
    let rules = Shared::default();
    let party = member(&rules);
    let (left, right) = connection::memory();
    let dialling = tokio::spawn(async move {
        Connection::dial(left, &identity(1)).join(&party).pad_to(2).await?.closed().await
    });
    let mut reflecting = RawPeer::accept(right, &identity(2)).await;
    // One of the two is an offer, the other is none. Each comes back as a question: as it was, with a proof that is none, and
    // as a feed. As long as one is unanswered the other end stays.
    let offers = [offer(&mut reflecting).await, offer(&mut reflecting).await];
    let (first, last) = (&offers[0], &offers[1]);
    reflecting.mux.reject(first.0);
    for (protocol, handshake) in [
        (admission::PROTOCOL, first.2.clone()),
        (admission::PROTOCOL, last.2.clone()),
        (admission::PROTOCOL, vec![]),
        (replication::PROTOCOL, first.2.clone()),
        (replication::PROTOCOL, [&[0x01][..], &first.1].concat()),
    ] {
        let ended = try_open(&mut reflecting, protocol, &first.1, &handshake).await;
        assert_eq!(ended, Some(CloseReason::Rejected), "{protocol}");
    }
    // What is still open pairs with what comes back, and its proof is the wrong role's.
    let channel = reflecting.mux.accept(last.0, &last.2).unwrap().unwrap();
    reflecting.flush().await;
    match reflecting.event().await {
        Some(MuxEvent::Closed { channel: closed, reason }) => {
            assert_eq!((closed, reason), (channel, CloseReason::Remote));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(dialling.await.unwrap(), Err(Error::Refused)));
    assert_eq!(rules.0.calls(), 0);
}

//= PARTY-8
#[tokio::test(start_paused = true)]
async fn an_offer_is_worthless_on_every_other_connection_with_the_same_member() {
    let rules = Shared::default();
    let party = member(&rules);
    // The member dials us twice, and we dial it.
    let ((left_1, right_1), (left_2, right_2), (left_3, right_3)) =
        (connection::memory(), connection::memory(), connection::memory());
    let ends =
        [dial(left_1, 1, party.clone()), dial(left_2, 1, party.clone()), accept(right_3, 1, party.clone())];
    let mut first = RawPeer::accept(right_1, &identity(2)).await;
    let mut second = RawPeer::accept(right_2, &identity(2)).await;
    let mut dialled = RawPeer::dial(left_3, &identity(2)).await;
    let (_, id, hello) = offer(&mut first).await;
    let (_, other_id, _) = offer(&mut second).await;
    assert_ne!(id, other_id, "the same party has another id on each connection");
    for peer in [&mut second, &mut dialled] {
        let ended = try_open(peer, admission::PROTOCOL, &id, &hello).await;
        assert_eq!(ended, Some(CloseReason::Rejected));
    }
    // Its own id with a proof from elsewhere, on the connection that it dialled.
    let answer = try_open(&mut second, admission::PROTOCOL, &other_id, &hello).await;
    assert!(matches!(answer, None | Some(CloseReason::Remote)), "{answer:?}");
    drop((first, second, dialled));
    for end in ends {
        assert!(end.await.unwrap().is_err());
    }
    assert!(party.peers().is_empty());
    assert_eq!(rules.0.calls(), 0);
}

/// Is admitted, by hand, by whom it has dialled.
async fn admitted(io: DuplexStream, n: u8) -> RawPeer {
    let mut peer = RawPeer::dial(io, &identity(n)).await;
    let id = membership::channel_id(peer.session(), &party_key(1));
    let hello = Hello::new(membership::prove(peer.session(), &party_key(1))).encode();
    peer.mux.open(admission::PROTOCOL, Some(&id), &hello).unwrap();
    peer.flush().await;
    assert!(matches!(peer.event().await, Some(MuxEvent::Opened { .. })));
    peer
}

/// The open of a feed by a member that releases it.
async fn feed_open(peer: &mut RawPeer) -> (Incoming, Vec<u8>, Vec<u8>) {
    loop {
        match peer.event().await.expect("the connection lives") {
            MuxEvent::Incoming { incoming, protocol, id, handshake } if protocol == replication::PROTOCOL => {
                return (incoming, id.unwrap().to_vec(), handshake.to_vec());
            }
            _ => {}
        }
    }
}

//= PARTY-91, REPL-3
#[tokio::test(start_paused = true)]
async fn a_capability_that_comes_back_or_is_brought_to_another_opens_nothing() {
    let store = Store::memory();
    let feed = feed_with(&store, "feed", &["secret"]).await;
    // Both release the feed, and open it, to a member that doesn't know its key.
    let parties = [1, 2].map(|_| one_feed::party_of(&feed, Replicate::fully()));
    let mut events = parties[0].events();
    let ((left, right), (other_left, other_right)) = (connection::memory(), connection::memory());
    let _ends = [accept(right, 1, parties[0].clone()), accept(other_right, 2, parties[1].clone())];
    let (mut member, mut elsewhere) = (admitted(left, 3).await, admitted(other_left, 3).await);
    let (here, id, capability) = feed_open(&mut member).await;
    let (there, other_id, other_capability) = feed_open(&mut elsewhere).await;
    assert_eq!((&id[..], &other_id[..]), (&feed.discovery_key().as_bytes()[..], &id[..]));
    assert_ne!(capability, other_capability, "it is bound to the connection");

    // What this one has said, to itself and to the other.
    let channel = member.mux.accept(here, &capability).unwrap().unwrap();
    let other_channel = elsewhere.mux.accept(there, &capability).unwrap().unwrap();
    for (peer, channel) in [(&mut member, channel), (&mut elsewhere, other_channel)] {
        peer.flush().await;
        loop {
            match peer.event().await.expect("the connection lives") {
                MuxEvent::Closed { channel: closed, .. } if closed == channel => break,
                MuxEvent::Message { channel: from, .. } => {
                    assert_ne!(from, channel, "nothing of the feed is said");
                }
                _ => {}
            }
        }
        // Nor can it be opened anew.
        let ended = try_open(peer, replication::PROTOCOL, &id, &capability).await;
        assert_eq!(ended, Some(CloseReason::Rejected));
    }
    let error = until(&mut events, |event| match event {
        Event::ChannelFailed { feed: Some(_), error, .. } => Some(error),
        _ => None,
    })
    .await;
    assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::WrongCapability)), "{error}");
    assert_eq!(parties[0].peers().len(), 1, "it is still a member");
}
