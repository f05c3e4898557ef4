//! Admission: who shows what to whom, in which order.

use anyhow::{Result, ensure};
use party::{
    admission::{PROTOCOL, membership},
    key::{KeyPair, PartyKey},
    mux::{CloseReason, Event},
};

use crate::runner::{
    behaviour::{Behaviour, behaviour},
    scene::{BOTH, Dials, OTHER, PARTY, hex},
    shim::now,
    speech,
    wire::{UNKNOWN, Wire, open},
};

const AREA: &str = "admission";

pub(super) const BEHAVIOURS: &[Behaviour] = &[
    behaviour!(
        AREA,
        "members-meet",
        "Two who know the party key admit each other, whoever dials.",
        ["PARTY-1", "PARTY-5", "PARTY-10", "PARTY-14", "PARTY-22"],
        [Party],
        |s| {
            for dials in BOTH {
                s.prepare().await?;
                s.member(dials).await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "by-static-key",
        "A peer is known by the static key that it has proved.",
        ["PARTY-24"],
        [Party],
        |s| {
            s.prepare().await?;
            for seed in [5, 6] {
                let key_pair = KeyPair::from_seed(&[seed; 32]);
                let mut wire = s.connect_as(Dials::Runner, &key_pair).await?;
                wire.admit(&PARTY).await?;
                s.event(&format!("admitted a {}", hex(key_pair.public().as_bytes()))).await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "initiator-opens-only-parties",
        "An initiator opens its party's channel, and says nothing else before it is answered.",
        ["PARTY-10", "PARTY-12", "PARTY-13"],
        [Party, Write],
        |s| {
            s.prepare().await?;
            s.written("f", 1).await?;
            s.tell("release f a").await?;
            let mut wire = s.connect(Dials::Shim).await?;
            let mut said = vec![wire.said().await?];
            wire.say(&Wire::open_unknown(1)).await?;
            said.extend(wire.rejected(1).await?.into_iter().map(Some));
            let opens: Vec<_> = said.into_iter().flatten().collect();
            ensure!(opens.len() == 1 && (opens[0].channel, opens[0].kind) == (0, 1), "it says {opens:?}");
            let id = wire.party_id(&PARTY);
            ensure!(opens[0].payload.windows(32).any(|window| window == id), "it opens something else");
        }
    ),
    behaviour!(
        AREA,
        "responder-waits",
        "A responder says nothing before the initiator has proved its membership.",
        ["PARTY-18", "PARTY-19"],
        [Party, Write],
        |s| {
            s.prepare().await?;
            s.written("f", 1).await?;
            s.tell("release f a").await?;
            let mut wire = s.connect(Dials::Runner).await?;
            wire.nothing("something that a stranger hears", |_| true).await?;
            s.silent("admitted").await?;
        }
    ),
    behaviour!(
        AREA,
        "wrong-proof",
        "A Hello with a wrong proof is rejected.",
        ["PARTY-8", "PARTY-15"],
        [Party],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            let id = wire.party_id(&PARTY);
            let good = membership::prove(wire.session(), &PARTY);
            for wrong in wrong_proofs(&good) {
                wire.is_rejected(PROTOCOL, Some(&id), &speech::hello(1, 0, &wrong)).await?;
            }
            s.silent("admitted").await?;
            wire.admit(&PARTY).await?;
        }
    ),
    behaviour!(
        AREA,
        "proof-of-the-other-role",
        "The proof that the responder would show is none of the initiator's.",
        ["PARTY-8"],
        [Party],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            let mut session = wire.session().clone();
            session.is_initiator = false;
            let (id, proof) = (wire.party_id(&PARTY), membership::prove(&session, &PARTY));
            wire.is_rejected(PROTOCOL, Some(&id), &speech::hello(1, 0, &proof)).await?;
            s.silent("admitted").await?;
        }
    ),
    behaviour!(
        AREA,
        "proof-of-another-party",
        "The proof of another party, or its id with this one's proof, is rejected.",
        ["PARTY-8", "PARTY-15", "PARTY-25"],
        [Party],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            let (id, hello) = (wire.party_id(&PARTY), wire.hello(&PARTY));
            let (other_id, other_hello) = (wire.party_id(&OTHER), wire.hello(&OTHER));
            for (id, hello) in [(&id, &other_hello), (&other_id, &hello), (&other_id, &other_hello)] {
                wire.is_rejected(PROTOCOL, Some(id), hello).await?;
            }
            s.silent("admitted").await?;
        }
    ),
    behaviour!(
        AREA,
        "hello-of-another-connection",
        "A Hello that was good on another connection is worth nothing on this one.",
        ["PARTY-8"],
        [Party],
        |s| {
            s.prepare().await?;
            let mut first = s.connect(Dials::Runner).await?;
            let (id, hello) = (first.party_id(&PARTY), first.hello(&PARTY));
            first.admit(&PARTY).await?;
            let mut second = s.connect(Dials::Runner).await?;
            second.is_rejected(PROTOCOL, Some(&id), &hello).await?;
            let own_id = second.party_id(&PARTY);
            second.is_rejected(PROTOCOL, Some(&own_id), &hello).await?;
        }
    ),
    behaviour!(
        AREA,
        "broken-hello",
        "A Hello that is not its protobuf, or of another version, is rejected.",
        ["PARTY-6", "PARTY-7"],
        [Party],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            let id = wire.party_id(&PARTY);
            let proof = membership::prove(wire.session(), &PARTY);
            let broken = [
                vec![],
                vec![0xff; 8],
                wire.hello(&PARTY)[..20].to_vec(),
                speech::hello(2, 0, &proof),
                speech::hello(0, 0, &proof),
                speech::bytes(3, &proof),
                [speech::bytes(1, b"1"), speech::bytes(3, &proof)].concat(),
            ];
            for hello in broken {
                wire.is_rejected(PROTOCOL, Some(&id), &hello).await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "hello-of-the-future",
        "Features and fields of a Hello that aren't known are passed over.",
        ["PARTY-9", "PARTY-44"],
        [Party],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            let id = wire.party_id(&PARTY);
            let proof = membership::prove(wire.session(), &PARTY);
            let hello =
                [speech::hello(1, 0xff, &proof), speech::bytes(77, b"later"), speech::number(78, 1)].concat();
            wire.is_answered(PROTOCOL, Some(&id), &hello).await?;
            s.event("admitted a").await?;
        }
    ),
    behaviour!(
        AREA,
        "all-rejects-alike",
        "Before admission every open gets the same reject, in an order that doesn't tell of parties: wrong Hellos, feeds, nonsense.",
        ["PARTY-15", "PARTY-16", "PARTY-19", "PARTY-86"],
        [Party, Write],
        |s| {
            let mut orders = Vec::new();
            // It is in the party of the first open, and in none of those that anybody opens.
            for party in [&PARTY, &PartyKey::from_bytes([7; 32])] {
                s.identify().await?;
                s.enter("a", party).await?;
                let key = s.written("f", 1).await?;
                s.tell("release f a").await?;
                let mut wire = s.connect(Dials::Runner).await?;
                let capability = party::replication::handshake(wire.session(), &key);
                let feed = *key.discovery_key().as_bytes();
                let (id, other, hello) = (wire.party_id(&PARTY), wire.party_id(&OTHER), wire.hello(&OTHER));
                let opens = [
                    open(1, PROTOCOL, &id, &hello),
                    open(2, PROTOCOL, &other, &hello),
                    open(3, "hypercore/alpha", &feed, &capability),
                    open(4, "hypercore/alpha", &[3; 32], &capability),
                    open(5, UNKNOWN, &[], &[]),
                    open(6, PROTOCOL, &[], &[]),
                ];
                wire.say_at_once(&opens).await?;
                let mut order = Vec::new();
                while order.len() < 6 {
                    order.push(wire.next_reject().await?);
                }
                s.silent("find").await?;
                orders.push(order);
                s.again().await?;
            }
            let mut all = orders[0].clone();
            all.sort_unstable();
            ensure!(all == [1, 2, 3, 4, 5, 6], "it rejects {all:?}");
            ensure!(orders[0] == orders[1], "the order tells whether it is in the party: {orders:?}");
        }
    ),
    behaviour!(
        AREA,
        "answers-echoed",
        "An initiator doesn't admit one who sends its own Hello back, and closes the channel.",
        ["PARTY-20", "PARTY-21", "PARTY-23"],
        [Party],
        |s| {
            s.prepare().await?;
            let mut wire = s.connect(Dials::Shim).await?;
            let (incoming, shown) = wire.offered(PROTOCOL, &wire.party_id(&PARTY)).await?;
            answers_wrongly(&mut wire, incoming, &shown).await?;
            s.silent("admitted").await?;
        }
    ),
    behaviour!(
        AREA,
        "answers-wrongly",
        "An initiator closes the channel for a wrong Hello, and has said nothing on it.",
        ["PARTY-20", "PARTY-21"],
        [Party],
        |s| {
            s.prepare().await?;
            let proofs = [vec![], vec![0; 32], vec![0xff; 31]];
            for proof in proofs {
                let mut wire = s.connect(Dials::Shim).await?;
                let (incoming, _) = wire.offered(PROTOCOL, &wire.party_id(&PARTY)).await?;
                answers_wrongly(&mut wire, incoming, &speech::hello(1, 0, &proof)).await?;
            }
            s.silent("admitted").await?;
        }
    ),
    behaviour!(
        AREA,
        "messages-behind-a-wrong-hello",
        "Messages that come behind a wrong Hello are not acted on.",
        ["PARTY-23", "PARTY-86"],
        [Party],
        |s| {
            s.prepare().await?;
            let mut wire = s.connect(Dials::Shim).await?;
            let (incoming, _) = wire.offered(PROTOCOL, &wire.party_id(&PARTY)).await?;
            if let Some(channel) = wire.mux.accept(incoming, &speech::hello(1, 0, &[7; 32]))? {
                wire.mux.send(channel, speech::REQUEST, &speech::asks(1, "t", b"v"))?;
                wire.mux.send(channel, speech::EPHEMERAL, &speech::ephemeral("t", b"v"))?;
            }
            wire.flush().await?;
            wire.ends().await?;
            s.silent("request").await?;
            s.silent("ephemeral").await?;
        }
    ),
    behaviour!(
        AREA,
        "rejected-initiator",
        "An initiator that is rejected by a responder in no party admits nobody.",
        ["PARTY-20"],
        [Party],
        |s| {
            s.prepare().await?;
            let mut wire = s.connect(Dials::Shim).await?;
            let (incoming, _) = wire.offered(PROTOCOL, &wire.party_id(&PARTY)).await?;
            wire.mux.reject(incoming);
            wire.flush().await?;
            wire.ends().await?;
            s.silent("admitted").await?;
        }
    ),
    behaviour!(
        AREA,
        "decoys",
        "Who is told to pads its offers; they look like any other, and a reject of all ends the connection.",
        ["PARTY-11", "PARTY-42"],
        [Party, Decoys],
        |s| {
            s.prepare().await?;
            s.tell("pad 4").await?;
            let mut wire = s.connect(Dials::Shim).await?;
            let mut offers = Vec::new();
            while offers.len() < 4 {
                let offer = wire.until("four offers", |event| match event {
                    Event::Incoming { incoming, protocol, id: Some(id), handshake }
                        if protocol == PROTOCOL =>
                    {
                        Some((*incoming, id.clone(), handshake.clone()))
                    }
                    _ => None,
                });
                offers.push(offer.await?);
            }
            let hellos =
                offers.iter().all(|(_, id, hello)| id.len() == 32 && hello.len() == offers[0].2.len());
            ensure!(hellos, "they can be told apart");
            let last = offers.pop();
            for (incoming, ..) in &offers {
                wire.mux.reject(*incoming);
            }
            wire.flush().await?;
            ensure!(wire.raw.seems_alive(), "it has not waited for the last answer");
            wire.mux.reject(last.map(|(incoming, ..)| incoming).unwrap_or(offers[0].0));
            wire.flush().await?;
            wire.ends().await?;
        }
    ),
    behaviour!(
        AREA,
        "decoys-of-others",
        "A responder admits a member among whose offers are decoys.",
        ["PARTY-11", "PARTY-14", "PARTY-15"],
        [Party],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            for n in 0..20 {
                wire.is_rejected(PROTOCOL, Some(&[n; 32]), &speech::hello(1, 0, &[n; 32])).await?;
            }
            wire.admit(&PARTY).await?;
            s.event("admitted a").await?;
        }
    ),
    behaviour!(
        AREA,
        "opened-again",
        "An open for a party that is admitted already is rejected, and the first lives on.",
        ["PARTY-33"],
        [Party],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            let (id, hello) = (wire.party_id(&PARTY), wire.hello(&PARTY));
            wire.is_rejected(PROTOCOL, Some(&id), &hello).await?;
            wire.send(channel, speech::EPHEMERAL, &speech::ephemeral("t", b"v")).await?;
            s.event("ephemeral a").await?;
        }
    ),
    behaviour!(
        AREA,
        "comes-back",
        "A peer whose channel was closed may come back, and its transactions count from 1 again.",
        ["PARTY-35", "PARTY-37", "PARTY-38"],
        [Party],
        |s| {
            s.prepare().await?;
            let (mut wire, mut channel) = s.member(Dials::Runner).await?;
            for _ in 0..3 {
                wire.send(channel, speech::REQUEST, &speech::asks(1, "t", b"v")).await?;
                wire.response(channel, 1).await?;
                wire.mux.close(channel);
                wire.flush().await?;
                s.event("left a").await?;
                channel = wire.admit(&PARTY).await?;
                s.event("admitted a").await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "handshake-denies",
        "If the rule for new peers denies, the party's channel is closed, and the connection lives.",
        ["PARTY-84", "PARTY-85"],
        [Party],
        |s| {
            s.prepare().await?;
            s.tell("rule a handshake deny").await?;
            let mut wire = s.connect(Dials::Runner).await?;
            let channel = wire.admit(&PARTY).await?;
            wire.closed(channel).await?;
        }
    ),
    behaviour!(
        AREA,
        "patience",
        "A responder gives strangers the same time whether it is in a party or not, and rejects don't renew it.",
        ["PARTY-40", "PARTY-41"],
        [Party, Patience],
        |s| {
            const LATEST: u128 = 2_500;
            let mut times = Vec::new();
            for is_in_party in [true, false] {
                s.identify().await?;
                s.tell("patience admission 500").await?;
                s.enter("a", if is_in_party { &PARTY } else { &OTHER }).await?;
                let mut wire = s.connect(Dials::Runner).await?;
                let begun = now();
                wire.barrier().await?;
                // One reject after the other: if they renewed the time, it would not be over.
                while (now() - begun).as_millis() < LATEST && wire.barrier().await.is_ok() {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                wire.ends().await?;
                times.push((now() - begun).as_millis());
                s.again().await?;
            }
            ensure!(times.iter().all(|time| (350..LATEST).contains(time)), "they get {times:?} ms");
        }
    ),
    behaviour!(
        AREA,
        "secrets",
        "Neither the party key nor its discovery key appear on the connection.",
        ["PARTY-2", "PARTY-3"],
        [Party],
        |s| {
            for dials in BOTH {
                s.prepare().await?;
                let mut wire = s.connect(dials).await?;
                let mut said = Vec::new();
                if dials == Dials::Runner {
                    let (id, hello) = (wire.party_id(&PARTY), wire.hello(&PARTY));
                    wire.say(&open(1, PROTOCOL, &id, &hello)).await?;
                    s.event("admitted a").await?;
                    wire.say(&Wire::open_unknown(2)).await?;
                    said.extend(wire.rejected(2).await?);
                } else {
                    wire.say(&Wire::open_unknown(1)).await?;
                    said.extend(wire.rejected(1).await?);
                }
                let shows =
                    |secret: &[u8]| said.iter().any(|said| said.payload.windows(32).any(|w| w == secret));
                ensure!(!shows(PARTY.as_bytes()), "it shows the party key");
                ensure!(!shows(PARTY.discovery_key().as_bytes()), "it shows the discovery key");
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "many-parties-of-a-stranger",
        "Hundreds of offers of parties that it isn't in are all rejected, and a member is admitted after them.",
        ["PARTY-15", "PARTY-29"],
        [Party],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            for n in 0..300_u32 {
                let mut id = [1; 32];
                id[..4].copy_from_slice(&n.to_le_bytes());
                let hello = wire.hello(&PartyKey::from_bytes(id));
                wire.mux.open(PROTOCOL, Some(&id), &hello)?;
            }
            wire.barrier().await?;
            wire.admit(&PARTY).await?;
            s.event("admitted a").await?;
        }
    ),
];

fn wrong_proofs(good: &[u8; 32]) -> Vec<Vec<u8>> {
    let mut wrong = vec![vec![], vec![0; 32], good[..31].to_vec(), [&good[..], &[0]].concat()];
    for at in [0, 15, 31] {
        let mut proof = good.to_vec();
        proof[at] ^= 1;
        wrong.push(proof);
    }
    wrong
}

/// Answers an offer with a Hello for which the shim must close the channel, having said nothing on it.
pub(super) async fn answers_wrongly(
    wire: &mut Wire,
    incoming: party::mux::Incoming,
    hello: &[u8],
) -> Result<()> {
    let Some(channel) = wire.mux.accept(incoming, hello)? else { return Ok(()) };
    let reason = wire
        .until("the end of the channel", |event| match event {
            Event::Closed { channel: closed, reason } if *closed == channel => Some(Ok(*reason)),
            Event::Message { channel: from, message_type, .. } if *from == channel => {
                Some(Err(*message_type))
            }
            _ => None,
        })
        .await;
    match reason {
        Ok(Ok(CloseReason::Remote)) => Ok(()),
        Ok(other) => anyhow::bail!("instead of a close there is {other:?}"),
        // An initiator that was admitted nowhere may end the connection with it.
        Err(error) if wire.raw.seems_alive() => Err(error),
        Err(_) => Ok(()),
    }
}
