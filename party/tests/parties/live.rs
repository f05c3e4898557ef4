//! Parties that come to a live connection, and go from it.

use std::{collections::BTreeSet, future::IntoFuture as _, time::Duration};

use crate::common::{
    Shared, feed_with, identity, meet, party_key, peer_added, random::Random, raw::RawPeer, until,
};
use party::{
    admission::{self, Hello, membership},
    connection::{self, Connection},
    error::{ApiMisuse, Error},
    feed::Feed,
    key::FeedKey,
    limits::Limits,
    mux::{CloseReason, Event as MuxEvent},
    party::{Event, Party},
    store::Store,
};

fn party(n: u8) -> (Party, Shared) {
    let rules = Shared::default();
    (Party::new(party_key(n), rules.clone()), rules)
}

/// Everything that can happen without anything new has happened.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(100)).await; // virtual
}

#[tokio::test(start_paused = true)]
async fn each_party_that_releases_a_forbidden_feed_is_told_so() {
    let feed = feed_with(&Store::memory(), "feed", &["block"]).await;
    use party::rules::Rules as _;

    let nobody = || Shared::default().guarded_by(party::rules::AllowFeeds::new([]));
    let (one, two) = (Party::new(party_key(1), nobody()), Party::new(party_key(2), nobody()));
    let ((there_one, _), (there_two, _)) = (party(1), party(2));
    let (mut in_one, mut in_two) = (one.events(), two.events());
    let (left, right) = connection::memory();
    let _connections = tokio::try_join!(
        Connection::dial(left, &identity(1)).join(&there_one).join(&there_two).into_future(),
        Connection::accept(right, &identity(2)).join(&one).join(&two).into_future(),
    )
    .unwrap();
    for events in [&mut in_one, &mut in_two] {
        let peer = peer_added(events).await;
        assert!(peer.release(&feed).await.unwrap());
        let forbidden = until(events, |event| match event {
            Event::FeedForbidden { feed, .. } => Some(feed),
            _ => None,
        })
        .await;
        assert_eq!(forbidden, feed.discovery_key());
    }
}

//= PARTY-27, PARTY-30, PARTY-31, PARTY-32, PARTY-34
#[tokio::test(start_paused = true)]
async fn a_party_that_both_join_later_is_found_in_whatever_order() {
    for initiator_first in [true, false] {
        let (ours, theirs) = (party(1).0, party(1).0);
        let (left, right) = meet(&ours, &theirs).await;
        let (late, late_there) = (party(2).0, party(2).0);
        let (mut events, mut events_there) = (late.events(), late_there.events());
        if initiator_first {
            left.join(&late).await.unwrap();
            settle().await;
            assert!(late.peers().is_empty());
            right.join(&late_there).await.unwrap();
        } else {
            right.join(&late_there).await.unwrap();
            settle().await;
            left.join(&late).await.unwrap();
        }
        assert_eq!(peer_added(&mut events).await.remote_public_key(), identity(2).public());
        let peer = peer_added(&mut events_there).await;
        assert_eq!(peer.request("hello", &b""[..]).await.unwrap().kind, "re: hello");
        assert_eq!((ours.peers().len(), theirs.peers().len()), (1, 1), "the first goes on");
    }
}

//= PARTY-37, PARTY-38
#[tokio::test(start_paused = true)]
async fn a_party_that_either_has_left_can_be_joined_again() {
    for initiator_leaves in [true, false] {
        let (left_party, right_party) = (party(1).0, party(1).0);
        let (left, right) = meet(&left_party, &right_party).await;
        settle().await;
        let mut events = right_party.events();
        let stale = right_party.peers()[0].clone();
        for round in 0..3 {
            let (leaver, party) =
                if initiator_leaves { (&left, &left_party) } else { (&right, &right_party) };
            assert!(leaver.leave(party).await.unwrap());
            assert!(!leaver.leave(party).await.unwrap(), "it is left");
            settle().await;
            assert!(left_party.peers().is_empty() && right_party.peers().is_empty());
            leaver.join(party).await.unwrap();
            let peer = peer_added(&mut events).await;
            peer.request("hello", &b""[..]).await.unwrap();
            assert!(matches!(stale.request("hello", &b""[..]).await, Err(Error::Closed)), "round {round}");
            settle().await;
            assert_eq!((left_party.peers().len(), right_party.peers().len()), (1, 1));
        }
    }
}

//= PARTY-36
#[tokio::test(start_paused = true)]
async fn leaving_takes_back_what_only_that_party_has_released() {
    let store = Store::memory();
    let (both, one) =
        (feed_with(&store, "both", &["b0", "b1"]).await, feed_with(&store, "one", &["o0", "o1"]).await);
    let ((a, a_rules), (b, b_rules)) = (party(1), party(2));
    a_rules.0.released.lock().unwrap().push(both.clone());
    b_rules.0.released.lock().unwrap().extend([both.clone(), one.clone()]);
    let ((a_there, _), (b_there, _)) = (party(1), party(2));
    let (mut a_events, mut b_events) = (a_there.events(), b_there.events());
    let (left, right) = connection::memory();
    let (_dialled, accepted) = tokio::try_join!(
        Connection::dial(left, &identity(1)).join(&a_there).join(&b_there).into_future(),
        Connection::accept(right, &identity(2)).join(&a).join(&b).into_future(),
    )
    .unwrap();
    let (in_a, in_b) = (peer_added(&mut a_events).await, peer_added(&mut b_events).await);
    let readers = Store::memory();
    let (both, one) = (readers.feed(&both.key()).await.unwrap(), readers.feed(&one.key()).await.unwrap());
    in_a.release(&both).await.unwrap();
    in_b.release(&one).await.unwrap();
    // What ends is not to end because nobody here wants it any more.
    in_a.release(&one).await.unwrap();
    assert_eq!(both.fetch(0).await.unwrap(), "b0");
    assert_eq!(one.fetch(0).await.unwrap(), "o0");

    assert!(accepted.leave(&b).await.unwrap());
    assert_eq!(both.fetch(1).await.unwrap(), "b1");
    assert!(tokio::time::timeout(Duration::from_secs(600), one.fetch(1)).await.is_err());
    assert!(in_b.has_left() && !in_a.has_left() && !in_b.is_closed());
    assert!(a.peers().len() == 1 && b.peers().is_empty());
}

//= PARTY-28, PARTY-29
#[tokio::test(start_paused = true)]
async fn a_responder_opens_only_what_was_offered_and_remembers_so_many() {
    let (known, _) = party(1);
    let (left, right) = connection::memory();
    let limits = Limits { max_offered_parties: 4, ..Limits::default() };
    let accepting = tokio::spawn({
        let known = known.clone();
        async move { Connection::accept(right, &identity(2)).join(&known).limits(limits).await.unwrap() }
    });
    let mut dialler = RawPeer::dial(left, &identity(1)).await;
    let responder = accepting.await.unwrap();
    let offer = |dialler: &RawPeer, n: u8| {
        let key = party_key(n);
        (
            membership::channel_id(dialler.session(), &key),
            Hello::new(membership::prove(dialler.session(), &key)),
        )
    };
    let (id, hello) = offer(&dialler, 1);
    dialler.mux.open(admission::PROTOCOL, Some(&id), &hello.encode()).unwrap();
    dialler.flush().await;
    assert!(matches!(dialler.event().await, Some(MuxEvent::Opened { .. })));
    // Six are offered, in this order, one of them twice; the last four are remembered.
    for n in [10, 11, 12, 13, 13, 14, 15] {
        let (id, hello) = offer(&dialler, n);
        dialler.mux.open(admission::PROTOCOL, Some(&id), &hello.encode()).unwrap();
        dialler.flush().await;
        loop {
            match dialler.event().await {
                Some(MuxEvent::Closed { reason, .. }) => break assert_eq!(reason, CloseReason::Rejected),
                Some(MuxEvent::Message { .. }) => {} // of the party that both are in
                other => panic!("{other:?}"),
            }
        }
    }
    for n in [9, 10, 11, 12, 15] {
        responder.join(&party(n).0).await.unwrap();
    }
    let mut opened = Vec::new();
    while opened.len() < 2 {
        match dialler.event().await {
            Some(MuxEvent::Incoming { id, handshake, .. }) => {
                let hello = Hello::decode(handshake).unwrap();
                let n = *[9, 10, 11, 12, 15]
                    .iter()
                    .find(|n| {
                        membership::channel_id(dialler.session(), &party_key(**n))[..]
                            == id.clone().unwrap()[..]
                    })
                    .expect("it is one that was offered");
                assert!(membership::verify(dialler.session(), &party_key(n), &hello.proof));
                opened.push(n);
            }
            Some(_) => {}
            None => panic!("the responder hung up"),
        }
    }
    assert_eq!(opened, [12, 15]);
}

// The responder opens; the proofs are those of the handshake's roles all the same.
//= PARTY-31, OVER-2
#[tokio::test(start_paused = true)]
async fn an_initiator_rejects_an_open_of_a_party_that_it_is_not_in_or_with_a_wrong_proof() {
    let (known, rules) = party(1);
    let (left, right) = connection::memory();
    let dialling = tokio::spawn({
        let known = known.clone();
        async move { Connection::dial(left, &identity(1)).join(&known).await.unwrap() }
    });
    let mut responder = RawPeer::accept(right, &identity(2)).await;
    let initiator = dialling.await.unwrap();
    let Some(MuxEvent::Incoming { incoming, .. }) = responder.event().await else { panic!() };
    let hello = Hello::new(membership::prove(responder.session(), &party_key(1))).encode();
    responder.mux.accept(incoming, &hello).unwrap();
    responder.flush().await;
    let (late, late_rules) = party(2);
    initiator.join(&late).await.unwrap();
    settle().await;
    let before = rules.0.calls();
    // The initiator's offer of party 2 is refused, then opened with a wrong proof, and one that it doesn't know.
    let offered = loop {
        match responder.event().await {
            Some(MuxEvent::Incoming { incoming, id, .. }) => break (incoming, id.unwrap()),
            Some(_) => {}
            None => panic!("the initiator hung up"),
        }
    };
    responder.mux.reject(offered.0);
    let stranger = membership::channel_id(responder.session(), &party_key(3));
    for (id, proof) in [
        (offered.1.to_vec(), vec![7; 32]),
        (stranger.to_vec(), membership::prove(responder.session(), &party_key(3)).to_vec()),
    ] {
        let hello = Hello { features: 0, proof: proof.into() }.encode();
        let channel = responder.mux.open(admission::PROTOCOL, Some(&id), &hello).unwrap();
        responder.flush().await;
        loop {
            match responder.event().await {
                Some(MuxEvent::Closed { channel: closed, reason }) if closed == channel => {
                    break assert_eq!(reason, CloseReason::Rejected);
                }
                Some(_) => {}
                None => panic!("the initiator hung up"),
            }
        }
    }
    assert_eq!((late_rules.0.calls(), rules.0.calls()), (0, before));
    // With the right proof it is let in.
    let hello = Hello::new(membership::prove(responder.session(), &party_key(2))).encode();
    let channel = responder.mux.open(admission::PROTOCOL, Some(&offered.1), &hello).unwrap();
    responder.flush().await;
    loop {
        match responder.event().await {
            Some(MuxEvent::Opened { channel: opened, .. }) => break assert_eq!(opened, channel),
            Some(_) => {}
            None => panic!("the initiator hung up"),
        }
    }
    settle().await;
    assert_eq!(late.peers().len(), 1);
}

//= PARTY-11, PARTY-42
#[tokio::test(start_paused = true)]
async fn decoys_look_like_offers_and_hide_the_number_of_parties() {
    let mut seen = BTreeSet::new();
    for parties in 0..=3_u8 {
        let (left, right) = connection::memory();
        let dialling = tokio::spawn(async move {
            let mut connecting = Connection::dial(left, &identity(1)).pad_to(3);
            for n in 1..=parties {
                connecting = connecting.join(&party(n).0);
            }
            connecting.await.unwrap().closed().await
        });
        let mut responder = RawPeer::accept(right, &identity(2)).await;
        let (mut shapes, mut offers) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let Some(MuxEvent::Incoming { incoming, protocol, id, handshake }) = responder.event().await
            else {
                panic!("{parties} parties: no offer");
            };
            let hello = Hello::decode(handshake).unwrap();
            shapes.push((protocol, id.clone().unwrap().len(), hello.features, hello.proof.len()));
            assert!(seen.insert(id.unwrap()), "each id is new");
            offers.push(incoming);
        }
        assert_eq!(shapes, vec![(admission::PROTOCOL.to_owned(), 32, 0, 32); 3], "{parties} parties");
        //= protocol-spec/08-party.md#what-this-hides-and-what-not
        // Who hangs up when the last offer is refused that was one shows how many were none.
        for (n, incoming) in offers.into_iter().enumerate() {
            assert!(!dialling.is_finished(), "{parties} parties: hung up after {n} refusals");
            responder.mux.reject(incoming);
            responder.flush().await;
            settle().await;
        }
        assert!(responder.event().await.is_none());
        assert!(matches!(dialling.await.unwrap(), Err(Error::Refused)));
    }
    let (left, _right) = connection::memory();
    let error = Connection::dial(left, &identity(1)).pad_to(65).await.unwrap_err();
    assert!(matches!(error, Error::ApiMisuse(ApiMisuse::LimitExceeded("max_parties"))));
}

#[tokio::test(start_paused = true)]
async fn members_find_each_other_among_decoys() {
    let ((ours, _), (theirs, _)) = (party(1), party(1));
    let mut events = ours.events();
    let (left, right) = connection::memory();
    let (_dialled, _accepted) = tokio::try_join!(
        Connection::dial(left, &identity(1)).join(&ours).pad_to(16).into_future(),
        Connection::accept(right, &identity(2)).join(&theirs).into_future(),
    )
    .unwrap();
    let peer = peer_added(&mut events).await;
    peer.request("hello", &b""[..]).await.unwrap();
}

/// Alice and Bob are in parties 1 and 2, Mallory in 1 only. Parties come and go on both connections, feeds are released and
/// withdrawn, in an order that the seed decides: Mallory never gets a key, a block or a message of party 2.
async fn nothing_leaks(seed: u64) {
    let mut random = Random(seed);
    let store = Store::memory();
    let ((one, one_rules), (two, two_rules)) = (party(1), party(2));
    let mut feeds: [Vec<Feed>; 2] = [Vec::new(), Vec::new()];
    for (index, rules) in [&one_rules, &two_rules].into_iter().enumerate() {
        for n in 0..3 {
            let name = format!("{index} {n}");
            let feed = feed_with(&store, &name, &[&format!("of party {}", index + 1), "more"]).await;
            rules.0.released.lock().unwrap().push(feed.clone());
            feeds[index].push(feed);
        }
    }
    let ((member, member_rules), (mallory_two, mallory_rules)) = (party(1), party(9));
    let mut told = member.events();
    let mallory_dials = random.below(2) == 0;
    let (left, right) = connection::memory();
    let (mallory, alice) = if mallory_dials {
        tokio::try_join!(
            Connection::dial(left, &identity(1)).join(&member).pad_to(3).into_future(),
            Connection::accept(right, &identity(2)).join(&one).into_future(),
        )
        .unwrap()
    } else {
        let (alice, mallory) = tokio::try_join!(
            Connection::dial(left, &identity(2)).join(&one).pad_to(3).into_future(),
            Connection::accept(right, &identity(1)).join(&member).into_future(),
        )
        .unwrap();
        (mallory, alice)
    };
    // Mallory knows the keys of all feeds, wherever from, and wants them all.
    let readers = Store::memory();
    let mut copies: [Vec<Feed>; 2] = [Vec::new(), Vec::new()];
    for index in 0..2 {
        for feed in &feeds[index] {
            let copy = readers.feed(&feed.key()).await.unwrap();
            member_rules.0.released.lock().unwrap().push(copy.clone());
            mallory_rules.0.released.lock().unwrap().push(copy.clone());
            copies[index].push(copy);
        }
    }
    let _wanted: Vec<_> = copies.iter().flatten().map(|copy| copy.download(..)).collect();

    let two_keys: BTreeSet<FeedKey> = feeds[1].iter().map(Feed::key).collect();
    let pick = |random: &mut Random, feeds: &[Feed]| feeds[random.below(feeds.len() as u64) as usize].clone();
    for _ in 0..60 {
        match random.below(11) {
            0 => drop(alice.join(&two).await),
            1 => drop(alice.leave(&two).await),
            2 => drop(alice.join(&one).await),
            3 => drop(alice.leave(&one).await),
            4 => drop(mallory.join(&mallory_two).await),
            5 => drop(mallory.join(&member).await),
            6 => drop(mallory.leave(&member).await),
            // Alice releases what she has in each party to whoever is in it, and takes it back.
            7 => {
                for (party, feeds) in [(&one, &feeds[0]), (&two, &feeds[1])] {
                    let feed = pick(&mut random, feeds);
                    for peer in party.peers() {
                        let _ = peer.release(&feed).await;
                        let _ = peer.introduce_feeds([feed.key()]).await;
                    }
                    for peer in party.peers() {
                        let _ = peer.send_ephemeral(&format!("{:?}", party.discovery_key()), &b""[..]).await;
                    }
                }
            }
            8 => {
                let feed = pick(&mut random, &feeds[0]);
                for peer in one.peers() {
                    let _ = peer.withdraw(&feed).await;
                }
            }
            9 => {
                for peer in member.peers() {
                    let of = random.below(2) as usize;
                    let feed = pick(&mut random, &copies[of]);
                    let _ = peer.release(&feed).await;
                    if let Ok(keys) = peer.introduce_feeds([]).await {
                        assert!(!keys.iter().any(|key| two_keys.contains(key)), "seed {seed}");
                    }
                }
            }
            _ => {
                two.reevaluate().await;
                one.reevaluate().await;
            }
        }
        if random.below(2) == 0 {
            settle().await;
        }
    }
    settle().await;
    assert!(two.peers().is_empty() && mallory_two.peers().is_empty(), "seed {seed}");
    assert_eq!((two_rules.0.calls(), mallory_rules.0.calls()), (0, 0), "seed {seed}");
    for copy in &copies[1] {
        assert_eq!((copy.info().length, copy.traffic().blocks_received), (0, 0), "seed {seed}");
    }
    let two_name = format!("{:?}", two.discovery_key());
    assert!(member_rules.0.ephemeral.lock().unwrap().iter().all(|message| message.kind != two_name));

    // It was no silence on the wire: in the party that both are in, they meet still.
    let _ = (alice.join(&one).await, mallory.join(&member).await);
    settle().await;
    let peer = one.peers().pop().expect("they are in it together");
    peer.request("hello", &b""[..]).await.unwrap();
    while tokio::time::timeout(Duration::ZERO, told.next()).await.is_ok() {}
    for peer in one.peers() {
        peer.release(&feeds[0][0]).await.unwrap();
    }
    assert_eq!(copies[0][0].fetch(0).await.unwrap(), "of party 1", "seed {seed}");
}

//= PARTY-25
#[tokio::test(start_paused = true)]
async fn a_member_of_one_party_gets_nothing_of_another_however_parties_come_and_go() {
    for seed in 0..40 {
        nothing_leaks(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_feed_released_in_one_party_is_not_had_through_another_on_the_same_connection() {
    let store = Store::memory();
    let hidden = feed_with(&store, "hidden", &["for party 2"]).await;
    let ((one, _), (two, _)) = (party(1), party(2));
    let ((one_there, _), (two_there, two_rules)) = (party(1), party(2));
    two_rules.0.released.lock().unwrap().push(hidden.clone());
    let mut events = one.events();
    let (left, right) = connection::memory();
    let (dialled, _accepted) = tokio::try_join!(
        Connection::dial(left, &identity(1)).join(&one).into_future(),
        Connection::accept(right, &identity(2)).join(&one_there).join(&two_there).into_future(),
    )
    .unwrap();
    let reader = Store::memory().feed(&hidden.key()).await.unwrap();
    peer_added(&mut events).await.release(&reader).await.unwrap();
    until(&mut events, |event| matches!(event, Event::FeedRefused { .. }).then_some(())).await;
    assert_eq!(reader.info().length, 0);
    // Once it is in the other, too, it is had through that.
    let mut events = two.events();
    dialled.join(&two).await.unwrap();
    peer_added(&mut events).await.release(&reader).await.unwrap();
    assert_eq!(reader.fetch(0).await.unwrap(), "for party 2");
}
