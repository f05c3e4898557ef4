//! The values that `protocol-spec/08-party.md#values` gives for checking an implementation are those of this one.

use std::time::Instant;

use party::{
    admission::{Body, Event, Hello, Introduced, Message, PartyChannel, RefusalCode, membership},
    key::{FeedKey, PartyKey, PublicKey},
    limits::Limits,
    replication,
    session::Session,
};

const PAGE: &str = include_str!("../../protocol-spec/08-party.md");
const REPLICATION: &str = include_str!("../../protocol-spec/07-replication.md");

/// The value that stands on the page of parties behind `name`.
fn stands_for(name: &str) -> String {
    stands_on(PAGE, name)
}

fn stands_on(page: &str, name: &str) -> String {
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("    {name}  "))).unwrap();
    line.trim().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//= OVER-3, PARTY-1, PARTY-5
#[test]
fn the_page_and_the_code_agree_on_ids_and_proofs() {
    let party = PartyKey::from_bytes([0x70; 32]);
    let session = |is_initiator| Session {
        binding: std::array::from_fn(|n| n as u8),
        is_initiator,
        local: PublicKey::from_bytes([1; 32]),
        remote: PublicKey::from_bytes([2; 32]),
    };
    for n in 0..3 {
        assert_eq!(
            hex(&party::hash::namespace("party", n)),
            stands_for(&format!("namespace(\"party\", {n})"))
        );
    }
    assert_eq!(party.discovery_key().to_string(), stands_for("discovery key        "));
    assert_eq!(hex(&membership::channel_id(&session(true), &party)), stands_for("channel id           "));
    let proof = membership::prove(&session(true), &party);
    assert_eq!(hex(&proof), stands_for("proof of initiator   "));
    assert_eq!(hex(&membership::prove(&session(false), &party)), stands_for("proof of responder   "));
    assert_eq!(hex(&Hello::new(proof).encode()), format!("08011a20{}", hex(&proof)));
}

#[test]
fn the_page_and_the_code_agree_on_capabilities() {
    let session = |is_initiator| Session {
        binding: std::array::from_fn(|n| n as u8),
        is_initiator,
        local: PublicKey::from_bytes([1; 32]),
        remote: PublicKey::from_bytes([2; 32]),
    };
    for (name, is_initiator) in [("capability of initiator", true), ("capability of responder", false)] {
        let handshake = replication::handshake(&session(is_initiator), &FeedKey::from_bytes([1; 32]));
        assert_eq!(hex(&handshake), format!("01{}", stands_on(REPLICATION, name)));
    }
}

/// Some moment: nothing here waits.
#[allow(clippy::disallowed_methods, reason = "the tests' only clock")]
fn now() -> Instant {
    Instant::now()
}

/// The examples of messages on the page of parties: each line of hexadecimal groups that begins with `start`.
fn examples(start: &str) -> Vec<String> {
    let is_hex =
        |word: &&str| word.len().is_multiple_of(2) && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let lines =
        PAGE.lines().filter_map(|line| line.strip_prefix("    ").filter(|line| line.starts_with(start)));
    lines.map(|line| line.split_whitespace().take_while(is_hex).collect()).collect()
}

/// What a party channel has to send, as plaintexts of a channel that the sender calls 1.
fn plaintexts(channel: &mut PartyChannel) -> Vec<String> {
    std::iter::from_fn(|| channel.poll_transmit())
        .map(|(message_type, payload)| format!("01{message_type:02x}{}", hex(&payload)))
        .collect()
}

//= PARTY-53, PARTY-59
#[test]
fn the_page_and_the_code_agree_on_messages() {
    let limits = Limits::default();
    let (mut asker, mut answerer) = (PartyChannel::new(&limits), PartyChannel::new(&limits));
    asker.request(Body::Custom(Message::new("word", "party")), now()).unwrap();
    let mut made = Vec::new();
    while let Some((message_type, payload)) = asker.poll_transmit() {
        made.push(format!("01{message_type:02x}{}", hex(&payload)));
        answerer.handle_message(message_type, payload.into()).unwrap();
    }
    let Some(Event::Request { id, .. }) = answerer.poll_event() else { panic!("nothing is asked") };
    answerer.respond(id, Body::Custom(Message::new("word", "ytrap"))).unwrap();
    made.extend(plaintexts(&mut answerer));

    let mut refuser = PartyChannel::new(&limits);
    asker.request(Body::Custom(Message::new("word", "party")), now()).unwrap();
    let (message_type, payload) = asker.poll_transmit().unwrap();
    // Under the number 1, as if it were the first.
    let payload = [&[8, 1], &payload[2..]].concat();
    refuser.handle_message(message_type, payload.into()).unwrap();
    let Some(Event::Request { id, .. }) = refuser.poll_event() else { panic!("nothing is asked") };
    refuser.refuse(id, RefusalCode::Refused);
    refuser.send_ephemeral(Message::new("mood", vec![1, 2])).unwrap();
    refuser.finish();
    made.extend(plaintexts(&mut refuser));
    assert_eq!(made, examples("01 0"));
}

#[test]
fn the_page_and_the_code_agree_on_introductions() {
    let key = FeedKey::from_bytes([1; 32]);
    let feeds = [Introduced::new(key), Introduced::new(key).labelled("notes")];
    let made = feeds.map(|feed| {
        let mut channel = PartyChannel::new(&Limits::default());
        channel.request(Body::IntroduceFeeds(vec![feed]), now()).unwrap();
        hex(&channel.poll_transmit().unwrap().1)
    });
    // The third one is written with `...`.
    assert_eq!(made, examples("08 01  ")[..2]);
}
