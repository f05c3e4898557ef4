//! Every message of the party channel, against a reader and a writer that follow `party.proto` field by field.
#![allow(clippy::disallowed_methods, reason = "any time will do to begin with")]

use std::time::Instant;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use party::{
    admission::{Body, Event, Hello, Introduced, Message, PartyChannel, RefusalCode, TransactionId},
    encoding::MAX_SAFE_INTEGER,
    error::{ApiMisuse, DecodeError, Error, PeerMisbehaved},
    key::FeedKey,
};

use super::{
    admission::{Code, Said, limits, message},
    input::{Few, Short},
    protobuf::{Field, Value, fields, put_bytes, put_varint},
};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Bytes(u8, Short<'a>),
    Fields(u8, Few<Field<'a>, 8>),
    /// Fields that nobody knows, behind a message.
    More(Ours<'a>, Few<Field<'a>, 2>),
    Ours(Ours<'a>),
}

#[derive(Arbitrary, Debug)]
enum Ours<'a> {
    Request(Said<'a>),
    Response(Said<'a>),
    Error(Code),
    Ephemeral(Short<'a>, Short<'a>),
    Finish,
    Hello(u64, Short<'a>),
}

/// The number under which a hello is read, which is not a message of the channel.
const HELLO: u64 = 5;

/// What we write is what the plain writer writes, and whatever is read is what the plain reader reads.
pub fn party_messages(data: &[u8]) {
    let Ok(input) = Unstructured::new(data).arbitrary::<Input<'_>>() else { return };
    let (message_type, bytes) = match input {
        Input::Bytes(message_type, bytes) => (u64::from(message_type % 7), bytes.0.to_vec()),
        Input::Fields(message_type, fields) => (u64::from(message_type % 7), Field::encode_all(&fields.0)),
        Input::Ours(ours) => {
            let Some(written) = write(&ours) else { return };
            written
        }
        Input::More(ours, fields) => {
            let Some((message_type, mut bytes)) = write(&ours) else { return };
            bytes.extend(Field::encode_all(&fields.0));
            (message_type, bytes)
        }
    };
    read(message_type, &bytes);
}

// ---- writing -----------------------------------------------------------------------------------------

/// As our channel writes it, which must be as plainly; `None` if it is more than may be written.
fn write(ours: &Ours<'_>) -> Option<(u64, Vec<u8>)> {
    let mut channel = PartyChannel::new(&limits());
    let plainly = plainly(ours);
    let is_too_long = plainly.1.len() > limits().max_party_message;
    let beyond = match ours {
        Ours::Request(said) | Ours::Response(said) => beyond(&said.body()),
        _ => None,
    };
    let result = match ours {
        Ours::Request(said) => channel.request(said.body(), Instant::now()).map(drop),
        Ours::Response(said) => {
            let id = asked(&mut channel, &said.body());
            channel.respond(id, said.body())
        }
        Ours::Error(code) => {
            let id = asked(&mut channel, &Body::Custom(Message::default()));
            channel.refuse(id, (*code).into());
            Ok(())
        }
        Ours::Ephemeral(kind, value) => channel.send_ephemeral(message(*kind, *value)),
        Ours::Finish => {
            channel.finish();
            Ok(())
        }
        Ours::Hello(features, proof) => {
            let hello = Hello { features: *features, proof: Bytes::copy_from_slice(proof.0) };
            assert_eq!(hello.encode(), plainly.1, "{ours:?}");
            return Some(plainly);
        }
    };
    match result {
        Ok(()) => assert!(!is_too_long && beyond.is_none()),
        Err(ApiMisuse::LimitExceeded(limit)) => assert_eq!(beyond, Some(limit)),
        Err(ApiMisuse::MessageTooLarge { .. }) => assert!(is_too_long && beyond.is_none()),
        Err(ref error) => panic!("{error}"),
    }
    result.ok()?;
    assert_eq!(channel.poll_transmit().as_ref(), Some(&plainly), "{ours:?}");
    assert_eq!(channel.poll_transmit(), None);
    Some(plainly)
}

/// The limit that an introduction is beyond.
fn beyond(body: &Body) -> Option<&'static str> {
    let Body::IntroduceFeeds(feeds) = body else { return None };
    if feeds.len() > limits().max_introduced_feeds {
        return Some("max_introduced_feeds");
    }
    let is_long =
        feeds.iter().filter_map(|feed| feed.label.as_ref()).any(|label| label.len() > limits().max_label);
    is_long.then_some("max_label")
}

/// A transaction of the remote's of the kind of `body`, which is its first.
fn asked(channel: &mut PartyChannel, body: &Body) -> TransactionId {
    let body = match body {
        Body::IntroduceFeeds(_) => Body::IntroduceFeeds(vec![]),
        Body::Custom(_) => Body::Custom(Message::default()),
    };
    channel.handle_message(0, transaction(1, &body).into()).expect("a question");
    match channel.poll_event() {
        Some(Event::Request { id, .. }) => id,
        other => panic!("{other:?}"),
    }
}

fn plainly(ours: &Ours<'_>) -> (u64, Vec<u8>) {
    match ours {
        Ours::Request(said) => (0, transaction(1, &said.body())),
        Ours::Response(said) => (1, transaction(1, &said.body())),
        Ours::Error(code) => (2, refusal(1, (*code).into())),
        Ours::Ephemeral(kind, value) => {
            let mut out = Vec::new();
            put_bytes(&mut out, 1, &custom(&message(*kind, *value)));
            (3, out)
        }
        Ours::Finish => (4, vec![]),
        Ours::Hello(features, proof) => {
            let mut out = Vec::new();
            put_varint(&mut out, 1, 1);
            if *features > 0 {
                put_varint(&mut out, 2, *features);
            }
            if !proof.0.is_empty() {
                put_bytes(&mut out, 3, proof.0);
            }
            (HELLO, out)
        }
    }
}

/// A request or a response: they look the same.
pub(super) fn transaction(id: u64, body: &Body) -> Vec<u8> {
    let mut out = Vec::new();
    if id > 0 {
        put_varint(&mut out, 1, id);
    }
    match body {
        Body::IntroduceFeeds(feeds) => {
            let mut list = Vec::new();
            for feed in feeds {
                put_bytes(&mut list, 1, feed.key.as_bytes());
            }
            let labels: Vec<&str> =
                feeds.iter().map(|feed| feed.label.as_deref().unwrap_or_default()).collect();
            let labelled = labels.iter().rposition(|label| !label.is_empty()).map_or(0, |last| last + 1);
            for label in &labels[..labelled] {
                put_bytes(&mut list, 2, label.as_bytes());
            }
            put_bytes(&mut out, 2, &list);
        }
        Body::Custom(message) => put_bytes(&mut out, 3, &custom(message)),
    }
    out
}

fn custom(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    if !message.kind.is_empty() {
        put_bytes(&mut out, 1, message.kind.as_bytes());
    }
    if !message.value.is_empty() {
        put_bytes(&mut out, 2, &message.value);
    }
    out
}

pub(super) fn refusal(id: u64, code: RefusalCode) -> Vec<u8> {
    let mut out = Vec::new();
    if id > 0 {
        put_varint(&mut out, 1, id);
    }
    let code = match code {
        RefusalCode::Refused => 1,
        RefusalCode::Timeout => 2,
        RefusalCode::Busy => 3,
        RefusalCode::Unsupported => 4,
    };
    put_varint(&mut out, 2, code);
    out
}

// ---- reading -----------------------------------------------------------------------------------------

/// What is wrong with a message.
#[derive(Debug, PartialEq)]
enum Wrong {
    Protobuf,
    Invalid(&'static str),
    Beyond(&'static str),
}

#[derive(Debug, PartialEq)]
enum Read {
    Request(u64, Option<Body>),
    Response(u64, Option<Body>),
    /// With whether the time was up.
    Error(u64, bool),
    Ephemeral(Message),
    Finish,
    Unknown,
}

/// Questions of ours that a response may answer: the first two are the application's.
const OURS: u64 = 4;

fn read(message_type: u64, bytes: &[u8]) {
    if message_type == HELLO {
        return read_hello(bytes);
    }
    let mut channel = PartyChannel::new(&limits());
    let now = Instant::now();
    let ours: Vec<TransactionId> =
        (1..=OURS).map(|n| channel.request(ask(n), now).expect("a question")).collect();
    while channel.poll_transmit().is_some() {}
    let result = channel.handle_message(message_type, Bytes::copy_from_slice(bytes));
    let event = channel.poll_event();
    let sent = channel.poll_transmit();
    assert!(channel.poll_event().is_none() && channel.poll_transmit().is_none());
    match (read_plainly(message_type, bytes), &event) {
        (Err(wrong), None) => {
            let error = result.expect_err("the plain reader says that it is wrong");
            let ours = match error {
                Error::Decode(DecodeError::Protobuf) => Wrong::Protobuf,
                Error::Decode(DecodeError::Invalid(what)) => Wrong::Invalid(what),
                Error::PeerMisbehaved(PeerMisbehaved::LimitExceeded(what)) => Wrong::Beyond(what),
                error => panic!("{error}"),
            };
            assert_eq!(ours, wrong);
        }
        (Ok(Read::Request(id, _)), None) if id == 0 || id > MAX_SAFE_INTEGER => {
            assert!(matches!(result, Err(Error::Decode(DecodeError::Invalid("transaction id")))));
        }
        (Ok(Read::Request(id, None)), None) => {
            assert_eq!(sent, Some((2, refusal(id, RefusalCode::Unsupported))));
        }
        (Ok(Read::Request(_, Some(body))), Some(Event::Request { id, body: ours })) => {
            assert_eq!(body, *ours);
            channel.refuse(*id, RefusalCode::Refused);
        }
        (Ok(Read::Response(id, body)), None) => match (1..=OURS).contains(&id) {
            true => {
                let same = body.is_some_and(|body| matches!(body, Body::Custom(_)) == (id <= 2));
                assert!(!same && matches!(result, Err(Error::PeerMisbehaved(_))));
            }
            // An answer to nothing is let pass a few times.
            false => assert!(result.is_ok()),
        },
        (Ok(Read::Response(id, body)), Some(Event::Answered { id: ours_id, result })) => {
            assert_eq!(*ours_id, ours[id as usize - 1]);
            assert_eq!(result.as_ref().ok(), body.as_ref());
        }
        (Ok(Read::Error(id, is_late)), Some(Event::Answered { id: ours_id, result })) => {
            assert_eq!(*ours_id, ours[id as usize - 1]);
            match result {
                Err(Error::Timeout) => assert!(is_late),
                Err(Error::Refused) => assert!(!is_late),
                other => panic!("{other:?}"),
            }
        }
        (Ok(Read::Error(id, _)), None) => assert!(result.is_ok() && !(1..=OURS).contains(&id)),
        (Ok(Read::Ephemeral(message)), Some(Event::Ephemeral(ours))) => assert_eq!(message, *ours),
        (Ok(Read::Finish), None) => assert!(result.is_ok() && channel.remote_finished()),
        (Ok(Read::Unknown), None) => assert!(result.is_ok() && !channel.remote_finished()),
        (read, event) => panic!("{read:?}, but {result:?}, {event:?}"),
    }
}

fn ask(n: u64) -> Body {
    if n <= 2 { Body::Custom(Message::default()) } else { Body::IntroduceFeeds(vec![]) }
}

fn read_hello(bytes: &[u8]) {
    let plainly = || {
        let (mut version, mut features, mut proof) = (0, 0, Vec::new());
        for (number, value) in fields(bytes, 0)? {
            match number {
                1 => version = value.varint()? as u32,
                2 => features = value.varint()?,
                3 => proof = value.bytes()?.to_vec(),
                _ => {}
            }
        }
        Some((version, Hello { features, proof: proof.into() }))
    };
    let expected = match plainly() {
        None => Err(DecodeError::Protobuf),
        Some((1, hello)) => Ok(hello),
        Some((version, _)) => Err(DecodeError::Unknown { what: "party version", value: version.into() }),
    };
    assert_eq!(Hello::decode(Bytes::copy_from_slice(bytes)), expected);
}

fn read_plainly(message_type: u64, bytes: &[u8]) -> Result<Read, Wrong> {
    if bytes.len() > limits().max_party_message {
        return Err(Wrong::Beyond("max_party_message"));
    }
    let fields = || fields(bytes, 0).ok_or(Wrong::Protobuf);
    match message_type {
        0 | 1 => {
            let (id, body) = read_transaction(&fields()?).ok_or(Wrong::Protobuf)?;
            let body = body.map(|body| body.check()).transpose()?;
            Ok(if message_type == 0 { Read::Request(id, body) } else { Read::Response(id, body) })
        }
        2 => {
            let (mut id, mut code) = (0, 0);
            for (number, value) in fields()? {
                match number {
                    1 => id = value.varint().ok_or(Wrong::Protobuf)?,
                    2 => code = value.varint().ok_or(Wrong::Protobuf)? as i32,
                    3 => drop(value.text().ok_or(Wrong::Protobuf)?),
                    _ => {}
                }
            }
            Ok(Read::Error(id, code == 2))
        }
        3 => {
            let mut message = Message::default();
            for (_, value) in fields()?.iter().filter(|(number, _)| *number == 1) {
                read_custom(value, &mut message).ok_or(Wrong::Protobuf)?;
            }
            Ok(Read::Ephemeral(message))
        }
        4 => fields().map(|_| Read::Finish),
        _ => Ok(Read::Unknown),
    }
}

/// A body as it stands in the message. Parts of one that come one after the other are one.
enum Part {
    Feeds(Vec<Vec<u8>>, Vec<String>),
    Custom(Message),
}

fn read_transaction(fields: &[(u64, Value)]) -> Option<(u64, Option<Part>)> {
    let (mut id, mut body) = (0, None);
    for (number, value) in fields {
        match number {
            1 => id = value.varint()?,
            2 => {
                let (mut keys, mut labels) = match body.take() {
                    Some(Part::Feeds(keys, labels)) => (keys, labels),
                    _ => Default::default(),
                };
                for (number, value) in self::fields(value.bytes()?, 1)? {
                    match number {
                        1 => keys.push(value.bytes()?.to_vec()),
                        2 => labels.push(value.text()?),
                        _ => {}
                    }
                }
                body = Some(Part::Feeds(keys, labels));
            }
            3 => {
                let mut message = match body.take() {
                    Some(Part::Custom(message)) => message,
                    _ => Message::default(),
                };
                read_custom(value, &mut message)?;
                body = Some(Part::Custom(message));
            }
            _ => {}
        }
    }
    Some((id, body))
}

fn read_custom(value: &Value, message: &mut Message) -> Option<()> {
    for (number, value) in fields(value.bytes()?, 1)? {
        match number {
            1 => message.kind = value.text()?,
            2 => message.value = Bytes::copy_from_slice(value.bytes()?),
            _ => {}
        }
    }
    Some(())
}

impl Part {
    fn check(self) -> Result<Body, Wrong> {
        let (keys, labels) = match self {
            Self::Custom(message) => return Ok(Body::Custom(message)),
            Self::Feeds(keys, labels) => (keys, labels),
        };
        if keys.len() > limits().max_introduced_feeds {
            return Err(Wrong::Beyond("max_introduced_feeds"));
        }
        if labels.len() > keys.len() {
            return Err(Wrong::Invalid("label of no feed"));
        }
        if labels.iter().any(|label| label.len() > limits().max_label) {
            return Err(Wrong::Beyond("max_label"));
        }
        let feeds = keys.into_iter().enumerate().map(|(n, key)| {
            let key = <[u8; 32]>::try_from(key).map_err(|_| Wrong::Invalid("feed key"))?;
            let label = labels.get(n).map_or("", String::as_str);
            Ok(Introduced::new(FeedKey::from_bytes(key)).labelled(label))
        });
        Ok(Body::IntroduceFeeds(feeds.collect::<Result<_, Wrong>>()?))
    }
}
