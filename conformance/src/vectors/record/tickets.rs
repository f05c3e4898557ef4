//! Tickets.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Recorder, credentials};
use crate::vectors::{Area, Bytes, Refusal, areas::tickets::Carried};

pub(super) fn record() -> Result<Area> {
    let mut recorder =
        Recorder::new("tickets", "Tickets, as text: what they carry, and which texts are none");
    let (party_key, membership, guest) = credentials::for_tickets()?;
    let plain = Carried { party_key: party_key.clone(), ..Carried::default() };
    let mut written: Vec<(String, Carried)> = vec![("the party key alone".to_owned(), plain.clone())];
    for expiry in [0, 252, 253, 65_536, 1 << 32, (1 << 53) - 1] {
        written.push((format!("good until {expiry}"), Carried { expiry: Some(expiry), ..plain.clone() }));
    }
    written
        .push(("a membership".to_owned(), Carried { membership: Some(membership.clone()), ..plain.clone() }));
    let secret = Carried { membership: Some(membership.clone()), secret: Some(guest), ..plain.clone() };
    written.push(("a membership with the secret of its key".to_owned(), secret.clone()));
    let good = [
        "localhost:4977",
        "a:1",
        "1.2.3.4:65535",
        "[::1]:80",
        "[2001:db8::1]:443",
        "a-b.example.org:4977",
        "xn--nxasmq6b.example:1",
        "0.example:9",
    ];
    for address in good {
        written.push((
            format!("the address {address}"),
            Carried { addresses: vec![address.to_owned()], ..plain.clone() },
        ));
    }
    let eight = good.map(str::to_owned).to_vec();
    written.push(("eight addresses".to_owned(), Carried { addresses: eight.clone(), ..plain.clone() }));
    written.push((
        "everything".to_owned(),
        Carried { expiry: Some(1_800_000_000), addresses: eight, ..secret.clone() },
    ));
    written
        .push(("another party".to_owned(), Carried { party_key: Bytes::from([0x70; 32]), ..plain.clone() }));

    let mut texts = Vec::new();
    for (name, carried) in written {
        let mut group =
            recorder.about("written", "The text of a ticket that carries this.", &["TICKET-1", "TICKET-2"]);
        let values = group.accept(name.clone(), &carried)?;
        let text = values["text"].as_str().context("no text")?.to_owned();
        let mut group = recorder.about("read", "What a text carries.", &["TICKET-3", "TICKET-5"]);
        group.accept(name.clone(), json!({ "text": text }))?;
        texts.push((name, text));
    }

    let mut group = recorder.about("written", "What no ticket can carry.", &["TICKET-1"]);
    let bad = [
        "localhost",
        "localhost:",
        ":1",
        "a:0",
        "a:65536",
        "a:01",
        "a:+1",
        "a: 1",
        "-a:1",
        "a-:1",
        "a..b:1",
        "::1:80",
        "[::1]",
        "[1.2.3.4]:1",
        "a b:1",
        "ä:1",
        "a_b:1",
    ];
    for address in bad {
        let carried = Carried { addresses: vec![address.to_owned()], ..plain.clone() };
        group.refuse(format!("the address {address:?}"), Refusal::Misuse, carried)?;
    }
    let other = Carried { party_key: Bytes::from([9; 32]), ..secret.clone() };
    group.refuse("a membership of another party", Refusal::Misuse, other)?;
    let other = Carried { secret: Some(Bytes::from([0x55; 32])), ..secret };
    group.refuse("the secret of another key", Refusal::Misuse, other)?;
    let nine = Carried { addresses: vec!["a:1".to_owned(); 9], ..plain.clone() };
    group.refuse("nine addresses", Refusal::Misuse, nine)?;
    let late = Carried { expiry: Some(1 << 53), ..plain };
    group.refuse("good until 2^53", Refusal::Misuse, late)?;

    for (name, text) in &texts {
        let must = ["TICKET-3", "TICKET-5"];
        let mut group = recorder.about("read", "A text that differs in anything is refused.", &must);
        for (change, text) in changed(text) {
            group.refuse(format!("{name}, {change}"), Refusal::Ticket, json!({ "text": text }))?;
        }
    }
    let mut group = recorder.about("read", "What never was a ticket.", &["TICKET-3"]);
    let nothing: [(&str, Value); 6] = [
        ("nothing", json!("")),
        ("the prefix alone", json!("party1_")),
        ("a later version", json!("party2_AEZG")),
        ("another text", json!("https://example.org/")),
        ("a checksum and nothing else", json!("party1_AAAAAA")),
        ("a character that is not ASCII", json!("party1_AEZGRkZ\u{e9}")),
    ];
    for (name, text) in nothing {
        group.refuse(name, Refusal::Ticket, json!({ "text": text }))?;
    }
    recorder.finish()
}

/// Texts that are near a ticket's, and none.
fn changed(text: &str) -> Vec<(&'static str, String)> {
    let (prefix, body) = text.split_at("party1_".len());
    let middle = prefix.len() + body.len() / 2;
    let other = |at: usize| {
        let with = if &text[at..=at] == "A" { "B" } else { "A" };
        format!("{}{with}{}", &text[..at], &text[at + 1..])
    };
    vec![
        ("in upper case", format!("PARTY1_{body}")),
        ("of the version 2", format!("party2_{body}")),
        ("with a space before it", format!(" {text}")),
        ("with a line's end after it", format!("{text}\n")),
        ("with a space within", format!("{} {}", &text[..middle], &text[middle..])),
        ("with padding", format!("{text}=")),
        ("with a plus within", format!("{}+{}", &text[..middle], &text[middle + 1..])),
        ("without its last character", text[..text.len() - 1].to_owned()),
        ("with a character more", format!("{text}A")),
        ("without its first characters", format!("{prefix}{}", &body[4..])),
        ("with another character at its start", other(prefix.len() + 1)),
        ("with another character in its middle", other(middle)),
        ("with another character in its checksum", other(text.len() - 3)),
        ("twice", format!("{text}{text}")),
    ]
}
