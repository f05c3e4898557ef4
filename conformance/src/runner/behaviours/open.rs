//! Open mode, and tickets.

use anyhow::{Context as _, Result, ensure};
use party::{admission, key::PartyKey, limits::Limits, ticket::Ticket};

use crate::runner::{
    Answer,
    behaviour::{Behaviour, behaviour},
    feeds::ask_block,
    scene::{BOTH, Dials, PARTY, Scene, hex},
};

const AREA: &str = "open";
const TICKETS: &str = "tickets";

pub(super) const BEHAVIOURS: &[Behaviour] = &[
    behaviour!(
        AREA,
        "released",
        "In open mode a released feed is opened, and served.",
        ["PARTY-108", "REPL-1"],
        [Open, Write],
        |s| {
            for dials in BOTH {
                s.identify().await?;
                s.tell("open").await?;
                let key = s.written("f", 2).await?;
                s.tell("release f open").await?;
                let mut wire = s.connect(dials).await?;
                let channel = wire.feed_offered(&key).await?;
                wire.reads(channel).await?;
                ensure!(wire.asks(channel, 1, ask_block(1, 0)).await?.is_some());
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "asked-for",
        "An open in open mode is a question to the rules; unknown and forbidden feeds are rejected alike.",
        ["PARTY-109", "PARTY-92", "REPL-3"],
        [Open, Write],
        |s| {
            s.identify().await?;
            s.tell("open").await?;
            let (key, forbidden) = (s.written("f", 2).await?, s.written("g", 2).await?);
            s.tell("permit f open").await?;
            let mut wire = s.connect(Dials::Runner).await?;
            wire.feed_refused(&forbidden).await?;
            wire.feed_refused(&[7; 32].into()).await?;
            wire.is_rejected("hypercore/alpha", Some(key.discovery_key().as_bytes()), &[1; 33]).await?;
            wire.feed(&key).await?;
        }
    ),
    behaviour!(
        AREA,
        "no-party-channel",
        "In open mode opens of party/1 are rejected as any unknown protocol is.",
        ["PARTY-107"],
        [Open],
        |s| {
            s.identify().await?;
            s.tell("open").await?;
            let mut wire = s.connect(Dials::Runner).await?;
            let (id, hello) = (wire.party_id(&PARTY), wire.hello(&PARTY));
            wire.is_rejected(admission::PROTOCOL, Some(&id), &hello).await?;
            wire.barrier().await?;
        }
    ),
    behaviour!(
        AREA,
        "no-fallback",
        "A connection in a party is not served openly by who knows no party key.",
        ["PARTY-106", "PARTY-87"],
        [Party, Write],
        |s| {
            s.prepare().await?;
            let key = s.written("f", 2).await?;
            s.tell("release f a").await?;
            s.tell("permit f a").await?;
            let mut wire = s.connect(Dials::Runner).await?;
            wire.feed_refused(&key).await?;
            s.silent("find").await?;
        }
    ),
    behaviour!(
        TICKETS,
        "read",
        "A good ticket is read: its party key, and its addresses in their order.",
        ["TICKET-1", "TICKET-2"],
        [Tickets],
        |s| {
            let ticket = "party1_AEZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGAQ5sb2NhbGhvc3Q6NDk3N1DuGi4";
            let words = s.tell(format!("ticket {}", hex(ticket.as_bytes()))).await?;
            ensure!(words == [hex(&[70; 32]), hex(b"localhost:4977")], "it reads {words:?}");
        }
    ),
    behaviour!(
        TICKETS,
        "mistyped",
        "A ticket in which any character is another is refused.",
        ["TICKET-3", "TICKET-5"],
        [Tickets],
        |s| {
            let ticket = Ticket::new(PartyKey::from_bytes([70; 32])).to_text(&Limits::default())?;
            for at in 0..ticket.len() {
                let mut bytes = ticket.clone().into_bytes();
                bytes[at] = if bytes[at] == b'Q' { b'R' } else { b'Q' };
                refused(s, &bytes).await.with_context(|| format!("character {at}"))?;
            }
            for text in [
                format!(" {ticket}"),
                format!("{ticket}\n"),
                format!("{ticket}="),
                ticket[..ticket.len() - 1].to_owned(),
                ticket.to_uppercase(),
                String::new(),
            ] {
                refused(s, text.as_bytes()).await.with_context(|| format!("{text:?}"))?;
            }
        }
    ),
];

async fn refused(s: &mut Scene, ticket: &[u8]) -> Result<()> {
    let answer = s.shim.ask(&format!("ticket {}", hex(ticket))).await?;
    ensure!(matches!(answer, Answer::Error(..)), "it is answered with {answer}");
    Ok(())
}
