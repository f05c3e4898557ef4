//! Proofs that are wrong, and data that nobody asked for.

use bytes::Bytes;
use party::{
    error::{Error, PeerMisbehaved},
    feed::{
        manifest::Manifest,
        proof::{BlockProof, HashProof, UpgradeProof},
    },
    mux::Event as MuxEvent,
    party::Event,
    replication::messages::Message,
};

use crate::{
    common::{self, identity, log::Log, raw::RawPeer},
    shared::{Reader, complete, say},
};

/// What a peer does to the proofs that it is asked for. Those that it leaves as they are it doesn't send.
type Forge = fn(&mut party::feed::proof::Proof) -> bool;

fn of_block(proof: &mut party::feed::proof::Proof, forge: impl FnOnce(&mut BlockProof)) -> bool {
    proof.block.as_mut().filter(|block| block.nodes.len() > 1).map(forge).is_some()
}

fn of_upgrade(proof: &mut party::feed::proof::Proof, forge: impl FnOnce(&mut UpgradeProof)) -> bool {
    proof.upgrade.as_deref_mut().filter(|upgrade| !upgrade.nodes.is_empty()).map(forge).is_some()
}

const FORGERIES: &[(&str, Forge)] = &[
    ("another block", |proof| of_block(proof, |block| block.value = Bytes::from_static(b"forged"))),
    ("another hash", |proof| of_block(proof, |block| block.nodes[0].hash[0] ^= 1)),
    ("sizes shifted", |proof| {
        of_block(proof, |block| {
            block.nodes[0].size += 1;
            block.nodes[1].size -= 1;
        })
    }),
    ("too few nodes", |proof| of_block(proof, |block| block.nodes.truncate(block.nodes.len() - 1))),
    ("the index of another block", |proof| of_block(proof, |block| block.index += 1)),
    ("another signature", |proof| {
        of_upgrade(proof, |upgrade| {
            let mut signature = upgrade.signature.to_vec();
            *signature.last_mut().unwrap() ^= 1;
            upgrade.signature = signature.into();
        })
    }),
    ("another root", |proof| of_upgrade(proof, |upgrade| upgrade.nodes[0].hash[0] ^= 1)),
    ("roots of other sizes", |proof| of_upgrade(proof, |upgrade| upgrade.nodes[0].size += 1)),
    ("too few roots", |proof| of_upgrade(proof, |upgrade| upgrade.nodes.truncate(upgrade.nodes.len() - 1))),
    ("a shorter upgrade", |proof| of_upgrade(proof, |upgrade| upgrade.length -= 1)),
    ("another fork", |proof| {
        proof.fork += 1;
        true
    }),
    ("a part that was not asked for", |proof| {
        proof.hash = Some(HashProof { index: 1, nodes: vec![] });
        true
    }),
    ("another manifest", |proof| {
        let another = Manifest::single(identity(9).public());
        proof.manifest.as_mut().map(|manifest| **manifest = another).is_some()
    }),
];

/// Answers each request by a forged proof, until the victim has enough.
async fn forge(peer: &mut RawPeer, channel: party::mux::ChannelId, feed: &party::feed::Feed, forge: Forge) {
    use party::replication::messages::{Data, NoData};
    let mut forged = false;
    while let Some(event) = peer.event().await {
        match event {
            MuxEvent::Message { channel: from, message_type, payload } if from == channel => {
                let message = Message::decode(message_type, &payload, true, &Default::default()).unwrap();
                let Some(Message::Request(request)) = message else { continue };
                let answer = match feed.prove(request.proof, request.fork).await.unwrap() {
                    _ if forged && request.id == 0 => Message::NoData(NoData { request: 0, reason: 1 }),
                    Some(mut proof) => {
                        forged |= forge(&mut proof);
                        Message::Data(Data { request: request.id, proof })
                    }
                    None => Message::NoData(NoData { request: request.id, reason: 1 }),
                };
                say(peer, channel, answer).await;
            }
            MuxEvent::Closed { channel: closed, .. } if closed == channel => return,
            _ => {}
        }
    }
    panic!("the connection is to live");
}

//= REPL-38, REPL-39, OVER-7
#[tokio::test(start_paused = true)]
async fn a_wrong_proof_of_any_kind_closes_the_channel_and_nobody_else_notices() {
    for (name, forgery) in FORGERIES {
        let log = Log::default();
        let _guard = log.start();
        let reader = Reader::new().await;
        let _wanted = reader.attacked.download(..);
        let mut events = reader.open.events();
        let (mut peer, channel, victim) = reader.attack().await;
        forge(&mut peer, channel, &reader.writers.0, *forgery).await;
        let error = common::until(&mut events, |event| match event {
            Event::ChannelFailed { feed: Some(_), error, .. } => Some(error),
            _ => None,
        })
        .await;
        let expected = match *name {
            "another fork" | "a part that was not asked for" | "the index of another block" => {
                matches!(error, Error::PeerMisbehaved(PeerMisbehaved::UnrequestedData))
            }
            "another manifest" => matches!(error, Error::PeerMisbehaved(PeerMisbehaved::WrongManifest)),
            _ => matches!(
                error,
                Error::PeerMisbehaved(PeerMisbehaved::InvalidProof(_) | PeerMisbehaved::InvalidSignature)
            ),
        };
        assert!(expected, "{name}: {error}");
        let key = reader.attacked.discovery_key().to_string();
        assert!(log.says(&["WARN", "closing the feed's channel", &key, &error.to_string()]), "{name}");

        // The connection lives, another peer brings both feeds, and what was forged isn't there.
        let (honest, _task) = reader.meet_writer().await;
        let _other = reader.other.download(..);
        complete(&reader.other, 100).await;
        complete(&reader.attacked, 100).await;
        assert_eq!(reader.attacked.get(7).await.unwrap().unwrap(), "block 7");
        assert!(reader.attacked.audit().await.unwrap().problems.is_empty(), "{name}");
        drop(peer);
        let _ = victim.await.unwrap();
        drop((honest, reader.store));
    }
}

#[tokio::test(start_paused = true)]
async fn fifteen_megabytes_that_were_not_asked_for_close_the_channel() {
    use party::replication::messages::Data;
    let reader = Reader::new().await;
    let mut events = reader.open.events();
    let (mut peer, channel, _victim) = reader.attack().await;
    let block = BlockProof { index: 7, value: vec![1; 15_000_000].into(), nodes: vec![] };
    let proof = party::feed::proof::Proof { block: Some(block), ..Default::default() };
    let attacker = tokio::spawn(async move {
        say(&mut peer, channel, Message::Data(Data { request: 999, proof })).await;
        while peer.event().await.is_some() {}
    });
    let error = common::until(&mut events, |event| match event {
        Event::ChannelFailed { feed: Some(_), error, .. } => Some(error),
        _ => None,
    })
    .await;
    assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::UnrequestedData)), "{error}");
    let (_honest, _task) = reader.meet_writer().await;
    let _wanted = reader.other.download(..);
    complete(&reader.other, 100).await;
    attacker.abort();
}
