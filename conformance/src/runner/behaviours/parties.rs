//! Several parties on one connection, and who comes to one and goes from it meanwhile.

use anyhow::ensure;
use party::{admission::PROTOCOL, key::KeyPair, mux::Event};

use super::admission::answers_wrongly;
use crate::runner::{
    behaviour::{Behaviour, behaviour},
    scene::{BOTH, Dials, OTHER, PARTY, hex, runner},
    speech,
};

const AREA: &str = "admission";

pub(super) const BEHAVIOURS: &[Behaviour] = &[
    behaviour!(
        AREA,
        "two-parties",
        "Several parties share a connection, each with a channel of its own.",
        ["PARTY-25", "PARTY-26"],
        [Party],
        |s| {
            for dials in BOTH {
                s.prepare().await?;
                s.enter("b", &OTHER).await?;
                let mut wire = s.connect(dials).await?;
                let first = wire.admit(&PARTY).await?;
                s.event("admitted a").await?;
                if dials == Dials::Runner {
                    s.silent("admitted b").await?;
                }
                let second = wire.admit(&OTHER).await?;
                s.event("admitted b").await?;
                wire.send(second, speech::EPHEMERAL, &speech::ephemeral("t", b"2")).await?;
                wire.send(first, speech::EPHEMERAL, &speech::ephemeral("t", b"1")).await?;
                s.event("ephemeral a 74 31").await?;
                s.event("ephemeral b 74 32").await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "gained-by-the-initiator",
        "An initiator that gains a party on a live connection offers it then.",
        ["PARTY-27"],
        [Party, Live],
        |s| {
            s.prepare().await?;
            let (mut wire, _) = s.member(Dials::Shim).await?;
            s.enter("b", &OTHER).await?;
            wire.admit(&OTHER).await?;
            s.event("admitted b").await?;
        }
    ),
    behaviour!(
        AREA,
        "gained-by-the-responder",
        "A responder that gains a party opens its channel if the initiator had offered it.",
        ["PARTY-29", "PARTY-30", "PARTY-32"],
        [Party, Live],
        |s| {
            s.prepare().await?;
            let (mut wire, _) = s.member(Dials::Runner).await?;
            let (id, hello) = (wire.party_id(&OTHER), wire.hello(&OTHER));
            wire.is_rejected(PROTOCOL, Some(&id), &hello).await?;
            s.enter("b", &OTHER).await?;
            let (incoming, shown) = wire.offered(PROTOCOL, &id).await?;
            wire.check_hello(&OTHER, &shown)?;
            wire.mux.accept(incoming, &hello)?;
            wire.flush().await?;
            s.event("admitted b").await?;
        }
    ),
    behaviour!(
        AREA,
        "gained-and-not-offered",
        "A responder that gains a party which the initiator hadn't offered opens nothing.",
        ["PARTY-28"],
        [Party, Live],
        |s| {
            s.prepare().await?;
            let (mut wire, _) = s.member(Dials::Runner).await?;
            s.enter("b", &OTHER).await?;
            s.tell("ping").await?;
            wire.nothing("an open", |event| matches!(event, Event::Incoming { .. })).await?;
            wire.admit(&OTHER).await?;
            s.event("admitted b").await?;
        }
    ),
    behaviour!(
        AREA,
        "gained-and-answered-wrongly",
        "A responder that has offered a party closes its channel for a wrong Hello.",
        ["PARTY-32"],
        [Party, Live],
        |s| {
            s.prepare().await?;
            let (mut wire, _) = s.member(Dials::Runner).await?;
            let (id, hello) = (wire.party_id(&OTHER), wire.hello(&OTHER));
            wire.is_rejected(PROTOCOL, Some(&id), &hello).await?;
            s.enter("b", &OTHER).await?;
            let (incoming, shown) = wire.offered(PROTOCOL, &id).await?;
            answers_wrongly(&mut wire, incoming, &shown).await?;
            s.silent("admitted b").await?;
        }
    ),
    behaviour!(
        AREA,
        "left",
        "A shim that leaves a party closes its channel, rejects later opens, and keeps the connection.",
        ["PARTY-35", "PARTY-15"],
        [Party, Live],
        |s| {
            s.prepare().await?;
            s.enter("b", &OTHER).await?;
            let mut wire = s.connect(Dials::Runner).await?;
            let channel = wire.admit(&PARTY).await?;
            wire.admit(&OTHER).await?;
            s.event("admitted b").await?;
            s.tell("leave a").await?;
            wire.closed(channel).await?;
            s.event("left a").await?;
            let (id, hello) = (wire.party_id(&PARTY), wire.hello(&PARTY));
            wire.is_rejected(PROTOCOL, Some(&id), &hello).await?;
            s.silent("left b").await?;
        }
    ),
    behaviour!(
        AREA,
        "excluded",
        "Who is excluded loses the channel, and is answered as somebody who doesn't know the key.",
        ["PARTY-14", "PARTY-15", "PARTY-39"],
        [Party, Exclude],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            let key = hex(runner().public().as_bytes());
            s.tell(format!("exclude a {key}")).await?;
            wire.closed(channel).await?;
            for wire in [&mut wire, &mut s.connect(Dials::Runner).await?] {
                let (id, hello) = (wire.party_id(&PARTY), wire.hello(&PARTY));
                wire.is_rejected(PROTOCOL, Some(&id), &hello).await?;
            }
            let mut other = s.connect_as(Dials::Runner, &KeyPair::from_seed(&[5; 32])).await?;
            other.admit(&PARTY).await?;
        }
    ),
    behaviour!(
        AREA,
        "excluded-responder",
        "An initiator admits no responder that it excludes, and says nothing on the channel if it has offered it.",
        ["PARTY-20", "PARTY-21"],
        [Party, Exclude],
        |s| {
            s.prepare().await?;
            s.tell(format!("exclude a {}", hex(runner().public().as_bytes()))).await?;
            let mut wire = s.connect(Dials::Shim).await?;
            let hello = wire.hello(&PARTY);
            match wire.offered(PROTOCOL, &wire.party_id(&PARTY)).await {
                Ok((incoming, _)) => answers_wrongly(&mut wire, incoming, &hello).await?,
                // It knows our key before it would make an offer.
                Err(error) => ensure!(!wire.raw.seems_alive(), "{error:#}"),
            }
            s.silent("admitted").await?;
        }
    ),
];
