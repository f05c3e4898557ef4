//! What two members say to each other.

use std::time::Instant;

use party::{
    admission::{Body, Event, Hello, Introduced, Message, PartyChannel, RefusalCode, membership},
    encoding::Writer as _,
    hash::namespace,
    key::{FeedKey, PartyKey},
    limits::Limits,
};

use super::{Example, Line, line, session};

const PARTY: PartyKey = PartyKey::from_bytes([0x70; 32]);

pub(crate) fn examples() -> Vec<Example> {
    let id = membership::channel_id(&session(true), &PARTY);
    let [initiator, responder] = [true, false].map(|it| membership::prove(&session(it), &PARTY));
    vec![
        (
            "party-values",
            vec![
                line(namespace("party", 0), "namespace(\"party\", 0)"),
                line(namespace("party", 1), "namespace(\"party\", 1)"),
                line(namespace("party", 2), "namespace(\"party\", 2)"),
                line(PARTY.discovery_key().as_bytes(), "discovery key"),
                line(id, "channel id"),
                line(initiator, "proof of initiator"),
                line(responder, "proof of responder"),
            ],
        ),
        ("party-open", open(&id, &initiator)),
        ("party-open-answer", open(&id, &responder)),
        ("party-request", messages().0),
        ("party-others", messages().1),
        ("introductions", introductions()),
    ]
}

/// The plaintext of an open.
fn open(id: &[u8; 32], proof: &[u8; 32]) -> Vec<Line> {
    let (mut protocol, mut channel) = (Vec::new(), Vec::new());
    protocol.put_string("party/1");
    channel.put_buffer(id);
    let hello = Hello::new(*proof).encode();
    let lines = vec![
        line([0, 1], "control, open"),
        line([1], "number of the channel"),
        line(protocol, "`party/1`"),
        line(&channel[..1], ""),
        line(&channel[1..], "channel id"),
        line(&hello[..2], "Hello: version 1"),
        line(&hello[2..4], "proof"),
        line(&hello[4..], ""),
    ];
    assert_eq!(lines.iter().map(|(bytes, _)| bytes.len()).sum::<usize>(), 80);
    lines
}

/// Some moment: nothing here waits.
#[allow(clippy::disallowed_methods, reason = "the tests' only clock")]
fn now() -> Instant {
    Instant::now()
}

fn channel() -> PartyChannel {
    PartyChannel::new(&Limits::default())
}

/// What a channel has to say, as plaintexts of one that the sender calls 1.
fn said(channel: &mut PartyChannel) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| channel.poll_transmit())
        .map(|(message_type, payload)| [&[1, message_type as u8][..], &payload].concat())
        .collect()
}

fn messages() -> (Vec<Line>, Vec<Line>) {
    let body = |value: &'static str| Body::Custom(Message::new("word", value));
    let (mut asker, mut answerer, mut refuser) = (channel(), channel(), channel());
    asker.request(body("party"), now()).unwrap();
    let request = said(&mut asker).remove(0);
    for channel in [&mut answerer, &mut refuser] {
        channel.handle_message(0, request[2..].to_vec().into()).unwrap();
    }
    let Some(Event::Request { id, .. }) = answerer.poll_event() else { panic!("nothing is asked") };
    answerer.respond(id, body("ytrap")).unwrap();
    let response = said(&mut answerer).remove(0);
    let Some(Event::Request { id, .. }) = refuser.poll_event() else { panic!("nothing is asked") };
    refuser.refuse(id, RefusalCode::Refused);
    refuser.send_ephemeral(Message::new("mood", vec![1, 2])).unwrap();
    refuser.finish();
    let [error, ephemeral, finish] = said(&mut refuser).try_into().unwrap();
    let custom = |bytes: &[u8], what| {
        vec![
            line(&bytes[..2], what),
            line(&bytes[2..4], "id 1"),
            line(&bytes[4..6], "custom, 13 bytes"),
            line(&bytes[6..12], "type `word`"),
            line(&bytes[12..], if bytes[1] == 0 { "value `party`" } else { "value `ytrap`" }),
        ]
    };
    (
        [custom(&request, "channel 1, Request"), custom(&response, "channel 1, Response")].concat(),
        vec![
            line(error, "Error { id: 1, code: REFUSED }"),
            line(ephemeral, "Ephemeral { custom: `mood`, 01 02 }"),
            line(finish, "Finish {}"),
        ],
    )
}

fn introductions() -> Vec<Line> {
    let feed = |n| Introduced::new(FeedKey::from_bytes([n; 32]));
    let made = |feeds: Vec<Introduced>| {
        let mut channel = channel();
        channel.request(Body::IntroduceFeeds(feeds), now()).unwrap();
        channel.poll_transmit().unwrap().1
    };
    let (none, one) = (made(vec![]), made(vec![feed(1)]));
    let (labelled, two) =
        (made(vec![feed(1).labelled("notes")]), made(vec![feed(1), feed(2).labelled("notes")]));
    vec![
        line(none, "no feed: a body that is there and has no bytes"),
        line(&one[..6], "one feed"),
        line(&one[6..], ""),
        line(&labelled[..6], "one with a label"),
        line(&labelled[6..38], ""),
        line(&labelled[38..], "`notes`"),
        line(&two[..6], "two, of which the second has the label"),
        line(&two[6..38], ""),
        line(&two[38..40], ""),
        line(&two[40..72], ""),
        line(&two[72..74], "the empty one of the first"),
        line(&two[74..], "`notes`"),
    ]
}
