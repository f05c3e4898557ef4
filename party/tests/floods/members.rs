//! Floods by a member.

use std::time::Duration;

use party::{
    connection::{self, Connection},
    error::{Error, PeerMisbehaved},
    feed::Binary,
    limits::Limits,
    mux::{CloseReason, Event as MuxEvent},
    party::{Event, Party},
    replication,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    common::{Shared, identity, party_key, peer_added, raw::RawPeer, until},
    scene::{FLOODING, Scene, field, join, refusal, request},
};

const BUSY: u8 = 3;
const TIMEOUT: u8 = 2;

/// Asks so often with this body, while no answer comes. Returns how often it was told what.
async fn ask_without_end(body: Vec<u8>, times: u64) {
    const AT_ONCE: u64 = 50;
    let scene = Scene::new().await;
    let (mut peer, _flooded) = scene.dialled().await;
    let channel = join(&mut peer).await;
    let most = Limits::default().max_remote_transactions as u64;
    let (mut asked, mut busy) = (0, 0);
    while asked < times {
        for _ in 0..AT_ONCE {
            asked += 1;
            peer.mux.send(channel, 0, &request(asked, &body)).unwrap();
        }
        peer.flush().await;
        while busy < asked.saturating_sub(most) {
            match peer.event().await.expect("the connection lives") {
                MuxEvent::Message { message_type: 2, payload, .. } => {
                    let (id, code) = refusal(&payload);
                    assert!(id > most && code == BUSY, "{id}: {code}");
                    busy += 1;
                }
                MuxEvent::Message { message_type: 4, .. } => {}
                other => panic!("{other:?}"),
            }
        }
        if asked % (AT_ONCE * 20) == 0 {
            scene.others_do_not_notice().await;
        }
    }
    assert_eq!(scene.rules.most() as u64, most);
    scene.memory_is_flat();
    // In time these are answered, too, and there is room again.
    for id in 1..=most {
        loop {
            if let MuxEvent::Message { message_type: 2, payload, .. } = peer.event().await.unwrap() {
                assert_eq!(refusal(&payload), (id, TIMEOUT));
                break;
            }
        }
    }
}

//= PARTY-58
#[tokio::test(start_paused = true)]
async fn of_a_flood_of_requests_all_but_a_few_are_told_that_we_are_busy() {
    let custom = [field(1, b"kind"), field(2, &[7; 20_000])].concat();
    ask_without_end(field(3, &custom), 20_000).await;
}

/// Rules that answer at once do so on the connection's own task, which others of the runtime wait for.
//= protocol-spec/08-party.md#transactions
#[tokio::test(start_paused = true)]
async fn of_a_flood_that_comes_in_one_go_so_many_are_answered_and_the_rest_is_told_that_we_are_busy() {
    const REQUESTS: u64 = 20_000;
    const AT_ONCE: u64 = 256;
    let party = Party::new(party_key(1), Shared::default());
    let (left, right) = connection::memory();
    tokio::spawn(async move { Connection::accept(right, &identity(2)).join(&party).await?.closed().await });
    let mut peer = RawPeer::dial(left, &identity(FLOODING)).await;
    let channel = join(&mut peer).await;
    let hello = field(3, &field(1, b"hello"));
    for id in 1..=REQUESTS {
        peer.mux.send(channel, 0, &request(id, &hello)).unwrap();
    }
    peer.flush().await;
    let (mut answered, mut busy) = (0, 0);
    while answered + busy < REQUESTS {
        match peer.event().await.expect("the connection lives") {
            MuxEvent::Message { message_type: 1, .. } => answered += 1,
            MuxEvent::Message { message_type: 2, payload, .. } => {
                assert_eq!(refusal(&payload).1, BUSY);
                busy += 1;
            }
            MuxEvent::Message { message_type: 4, .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(answered >= AT_ONCE && busy > answered, "{answered} answered, {busy} not");
}

//= protocol-spec/08-party.md#transactions
#[tokio::test(start_paused = true)]
async fn of_a_flood_of_introductions_all_but_a_few_are_told_that_we_are_busy() {
    let keys: Vec<u8> =
        (0..1_000_u16).flat_map(|n| field(1, &[&n.to_le_bytes()[..], &[1; 30]].concat())).collect();
    ask_without_end(field(2, &keys), 10_000).await;
}

//= PARTY-47
#[tokio::test(start_paused = true)]
async fn an_introduction_of_too_many_feeds_closes_the_channel() {
    let mut scene = Scene::new().await;
    let (mut peer, _flooded) = scene.dialled().await;
    let channel = join(&mut peer).await;
    let keys = field(1, &[1; 32]).repeat(Limits::default().max_introduced_feeds + 1);
    peer.mux.send(channel, 0, &request(1, &field(2, &keys))).unwrap();
    peer.flush().await;
    let error = until(&mut scene.events, |event| match event {
        Event::ChannelFailed { feed: None, error, .. } => Some(error),
        _ => None,
    })
    .await;
    let is_named =
        matches!(error, Error::PeerMisbehaved(PeerMisbehaved::LimitExceeded("max_introduced_feeds")));
    assert!(is_named, "{error}");
    assert_eq!(scene.party.peers().len(), 1, "the other is still there");
    scene.others_do_not_notice().await;
}

#[tokio::test(start_paused = true)]
async fn of_a_flood_of_ephemeral_messages_most_are_dropped_and_counted() {
    const TIMES: u64 = 20_000;
    // To the rules, which are slow, and to an app that doesn't listen just now; in the first case by bytes, in the second by
    // number.
    for (kind, size) in [("rules", 20_000), ("app", 5_000)] {
        let mut scene = Scene::new().await;
        let app = scene.party.extension("app", Binary);
        let (mut peer, _flooded) = scene.dialled().await;
        let channel = join(&mut peer).await;
        let flooding = peer_added(&mut scene.events).await;
        let message = field(1, &[field(1, kind.as_bytes()), field(2, &vec![7; size])].concat());
        for n in 0..TIMES {
            peer.mux.send(channel, 3, &message).unwrap();
            if n % 10 == 0 {
                peer.flush().await;
            }
            if n % 1_000 == 0 {
                scene.others_do_not_notice().await;
            }
        }
        peer.flush().await;
        sleep(Duration::from_millis(1)).await; // virtual: everything that can run has run
        let limits = Limits::default();
        let kept = match kind {
            "rules" => 1 + limits.max_queued_ephemeral_bytes / size,
            _ => limits.max_queued_ephemeral,
        };
        let counts = flooding.messages();
        assert_eq!((counts.ephemeral_received, counts.ephemeral_dropped), (TIMES, TIMES - kept as u64));
        scene.memory_is_flat();
        scene.others_do_not_notice().await;
        drop(app);
    }
}

//= PARTY-115
#[tokio::test(start_paused = true)]
async fn who_comes_and_goes_without_end_has_no_more_at_work_than_who_stays() {
    const TIMES: usize = 3_000;
    let scene = Scene::new().await;
    let app = scene.party.extension("app", Binary);
    let (mut peer, _flooded) = scene.dialled().await;
    let custom = field(3, &[field(1, b"kind"), field(2, &[7; 20_000])].concat());
    let ephemeral = field(1, &[field(1, b"app"), field(2, &[7; 20_000])].concat());
    for n in 0..TIMES {
        let channel = join(&mut peer).await;
        for id in 1..=10 {
            peer.mux.send(channel, 0, &request(id, &custom)).unwrap();
            peer.mux.send(channel, 3, &ephemeral).unwrap();
        }
        peer.mux.close(channel);
        peer.flush().await;
        if n % 300 == 0 {
            scene.others_do_not_notice().await;
        }
    }
    sleep(Duration::from_millis(1)).await; // virtual: everything that can run has run
    // Those of its requests, and those of the time before, which are being dropped.
    assert!(scene.rules.most() <= 2 * 10, "{} rules at a time", scene.rules.most());
    assert_eq!(scene.rules.at_work.load(std::sync::atomic::Ordering::Relaxed), 0, "all of them are over");
    assert_eq!(scene.party.peers().len(), 1);
    scene.memory_is_flat();
    scene.others_do_not_notice().await;
    drop(app);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_feeds_that_are_being_looked_for_is_not_read_any_further() {
    let scene = Scene::new().await;
    let (mut peer, flooded) = scene.dialled().await;
    join(&mut peer).await;
    let limits = Limits::default();
    let start = Instant::now();
    // Each with messages ahead of the answer.
    let mut opened = 0_u64;
    let flood = async {
        loop {
            let mut id = [7; 32];
            id[..8].copy_from_slice(&opened.to_le_bytes());
            let Ok(channel) = peer.mux.open(replication::PROTOCOL, Some(&id), &[0; 33]) else { return };
            peer.mux.send(channel, 0, &[7; 100]).unwrap();
            peer.flush().await;
            opened += 1;
        }
    };
    assert!(timeout(Duration::from_secs(10), flood).await.is_err(), "it has to wait");
    let at_work = scene.rules.most();
    assert!(at_work <= 1 + limits.max_incoming_opens / 2, "{at_work} rules at a time");
    scene.others_do_not_notice().await;
    scene.memory_is_flat();
    // When the rules have had their time, all that were read are refused, and it goes on.
    let mut refused = 0;
    while refused < limits.max_incoming_opens / 2 {
        match peer.event().await.expect("the connection lives") {
            MuxEvent::Closed { reason: CloseReason::Rejected, .. } => refused += 1,
            MuxEvent::Message { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(start.elapsed() >= limits.rule_timeout);
    drop(peer);
    let _ = flooded.await.unwrap();
}
