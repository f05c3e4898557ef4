//! Floods by somebody who doesn't know the party.

use party::{
    admission::{self, Hello},
    mux::{CloseReason, Event as MuxEvent},
    replication,
};

use crate::scene::Scene;

//= PARTY-15, PARTY-19
#[tokio::test(start_paused = true)]
async fn a_flood_of_offers_by_a_stranger_is_refused_one_by_one() {
    const TIMES: u64 = 100_000;
    const AT_ONCE: u64 = 100;
    let scene = Scene::new().await;
    let (mut peer, flooded) = scene.dialled().await;
    let hello = Hello::new([9; 32]).encode();
    for n in 0..TIMES / AT_ONCE {
        for m in 0..AT_ONCE {
            let mut id = [7; 32];
            id[..8].copy_from_slice(&(n * AT_ONCE + m).to_le_bytes());
            let protocol = if m % 2 == 0 { admission::PROTOCOL } else { replication::PROTOCOL };
            let channel = peer.mux.open(protocol, Some(&id), &hello).unwrap();
            // Said before anybody has answered.
            peer.mux.send(channel, 0, &[7; 5_000]).unwrap();
            if m % 3 == 0 {
                peer.mux.close(channel);
            }
        }
        peer.flush().await;
        let mut refused = 0;
        while refused < AT_ONCE - AT_ONCE.div_ceil(3) {
            match peer.event().await.expect("the connection lives") {
                MuxEvent::Closed { reason: CloseReason::Rejected, .. } => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        if n % 100 == 0 {
            scene.others_do_not_notice().await;
        }
    }
    assert_eq!(scene.rules.most(), 0, "no rule is asked about a stranger");
    scene.memory_is_flat();
    drop(peer);
    assert!(flooded.await.unwrap().is_err());
    scene.others_do_not_notice().await;
}

//= protocol-spec/05-channels.md#messages
#[tokio::test(start_paused = true)]
async fn a_flood_of_messages_by_a_stranger_is_passed_over() {
    let scene = Scene::new().await;
    let (mut peer, flooded) = scene.dialled().await;
    // For channels that there are not, 400 MB of them.
    let message = [&[77, 0][..], &[7; 100_000]].concat();
    for n in 0..4_000 {
        peer.say(&message).await;
        if n % 500 == 0 {
            scene.others_do_not_notice().await;
        }
    }
    scene.memory_is_flat();
    drop(peer);
    assert!(flooded.await.unwrap().is_err());
}
