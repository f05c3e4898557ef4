//! The bounds of a party channel, each at the last value that is taken and at the first that isn't.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    Body, Event, Hello, Introduced, Message, PartyChannel, RefusalCode, TransactionId, messages::Frame,
};
use crate::{
    error::{ApiMisuse, DecodeError, Error, PeerMisbehaved},
    key::FeedKey,
    limits::Limits,
};

fn custom(bytes: usize) -> Body {
    Body::Custom(Message::new("ask", vec![7; bytes]))
}

fn feeds(n: u8) -> Body {
    Body::IntroduceFeeds((0..n).map(|n| Introduced::new(FeedKey::from_bytes([n; 32]))).collect())
}

/// What a channel with these limits makes of a frame.
fn hear(limits: &Limits, frame: Frame) -> Result<Option<Event>, Error> {
    let (message_type, bytes) = frame.encode(&Limits::default()).unwrap();
    let mut channel = PartyChannel::new(limits);
    channel.handle_message(message_type, bytes.into()).map(|()| channel.poll_event())
}

fn request(id: u64, body: Body) -> Frame {
    Frame::Request { id, body: Some(body) }
}

#[allow(clippy::disallowed_methods)] // any instant will do as the start of virtual time
fn start() -> Instant {
    Instant::now()
}

//= PARTY-50
#[test]
fn a_message_is_sent_up_to_the_longest_size_that_is_taken() {
    let (_, bytes) = request(1, custom(100)).encode(&Limits::default()).unwrap();
    let limits = Limits { max_party_message: bytes.len(), ..Limits::default() };
    assert!(request(1, custom(100)).encode(&limits).is_ok());
    let too_large = ApiMisuse::MessageTooLarge { len: bytes.len() + 1, max: bytes.len() };
    assert_eq!(request(1, custom(101)).encode(&limits).unwrap_err(), too_large);
}

//= PARTY-47
#[test]
fn a_message_of_the_longest_size_is_taken_and_one_of_a_byte_more_is_not() {
    let (_, bytes) = request(1, custom(100)).encode(&Limits::default()).unwrap();
    let limits = Limits { max_party_message: bytes.len(), ..Limits::default() };
    assert!(matches!(hear(&limits, request(1, custom(100))), Ok(Some(Event::Request { .. }))));
    assert!(matches!(hear(&limits, request(1, custom(99))), Ok(Some(Event::Request { .. }))));
    let error = hear(&limits, request(1, custom(101))).unwrap_err();
    assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::LimitExceeded("max_party_message"))));
}

//= PARTY-47
#[test]
fn as_many_feeds_as_may_be_are_taken_and_one_more_is_not() {
    let limits = Limits { max_introduced_feeds: 3, ..Limits::default() };
    for n in 0..=3 {
        assert!(
            matches!(hear(&limits, request(1, feeds(n))), Ok(Some(Event::Request { body, .. })) if body == feeds(n))
        );
    }
    for n in 4..6 {
        let error = hear(&limits, request(1, feeds(n))).unwrap_err();
        assert!(matches!(
            error,
            Error::PeerMisbehaved(PeerMisbehaved::LimitExceeded("max_introduced_feeds"))
        ));
    }
}

//= PARTY-54
#[test]
fn a_transaction_has_a_number_from_one_to_the_largest_safe_one() {
    const LARGEST: u64 = (1 << 53) - 1;
    let limits = Limits::default();
    for id in [1, LARGEST] {
        assert!(
            matches!(hear(&limits, request(id, custom(1))), Ok(Some(Event::Request { id: TransactionId(told), .. })) if told == id)
        );
    }
    for id in [0, LARGEST + 1, u64::MAX] {
        let error = hear(&limits, request(id, custom(1))).unwrap_err();
        assert!(matches!(error, Error::Decode(DecodeError::Invalid("transaction id"))), "{id}: {error}");
    }
}

#[test]
fn why_a_transaction_was_refused_arrives_as_it_was_said() {
    let limits = Limits::default();
    let mut asker = PartyChannel::new(&limits);
    for (code, number) in [
        (RefusalCode::Refused, 1),
        (RefusalCode::Timeout, 2),
        (RefusalCode::Busy, 3),
        (RefusalCode::Unsupported, 4),
    ] {
        let id = asker.request(custom(1), start()).unwrap();
        let (message_type, bytes) = Frame::Error { id: id.0, code }.encode(&limits).unwrap();
        // The transaction, and the number that the specification gives the reason.
        assert_eq!(bytes, [0x08, id.0 as u8, 0x10, number], "{code:?}");
        let told = Frame::decode(message_type, Bytes::from(bytes.clone()), &limits).unwrap();
        assert_eq!(told, Some(Frame::Error { id: id.0, code }));
        asker.handle_message(message_type, bytes.into()).unwrap();
        let Some(Event::Answered { result: Err(error), .. }) = asker.poll_event() else {
            panic!("no answer")
        };
        assert_eq!(matches!(error, Error::Timeout), code == RefusalCode::Timeout, "{code:?}: {error}");
    }
}

//= PARTY-62
#[test]
fn late_answers_are_forgiven_for_as_many_transactions_as_may_be_under_way() {
    let limits = Limits { max_local_transactions: 2, max_stray_answers: 0, ..Limits::default() };
    let (mut channel, mut now) = (PartyChannel::new(&limits), start());
    let mut given_up = Vec::new();
    for _ in 0..3 {
        given_up.push(channel.request(custom(1), now).unwrap());
        now += limits.transaction_timeout;
        channel.handle_timeout(now);
        assert!(matches!(channel.poll_event(), Some(Event::Answered { result: Err(Error::Timeout), .. })));
    }
    let mut late = |id: TransactionId| {
        let (message_type, bytes) =
            Frame::Error { id: id.0, code: RefusalCode::Refused }.encode(&limits).unwrap();
        channel.handle_message(message_type, bytes.into())
    };
    assert!(late(given_up[1]).is_ok());
    assert!(late(given_up[2]).is_ok());
    // What lies farther back is not remembered, so that memory has a bound.
    assert!(late(given_up[0]).is_err());
}

//= PARTY-62
#[test]
fn transactions_that_are_given_up_make_room_for_others_as_long_as_their_answers_can_be_told() {
    let limits = Limits { max_local_transactions: 2, max_stray_answers: 0, ..Limits::default() };
    let mut channel = PartyChannel::new(&limits);
    let first = [channel.request(custom(1), start()).unwrap(), channel.request(custom(1), start()).unwrap()];
    assert!(channel.request(custom(1), start()).is_err());
    assert_eq!(first.map(|id| channel.give_up(id)), [true, true]);
    let second = [channel.request(custom(1), start()).unwrap(), channel.request(custom(1), start()).unwrap()];
    // Two late answers may come already.
    assert!(!channel.give_up(second[0]));
    assert!(channel.request(custom(1), start()).is_err());
    let answer = |channel: &mut PartyChannel, id: TransactionId| {
        let (message_type, bytes) =
            Frame::Error { id: id.0, code: RefusalCode::Refused }.encode(&limits).unwrap();
        channel.handle_message(message_type, bytes.into())
    };
    answer(&mut channel, first[0]).unwrap();
    assert!(channel.poll_event().is_none(), "nobody waits for it");
    assert!(channel.give_up(second[0]));
    channel.request(custom(1), start()).unwrap();
    answer(&mut channel, second[0]).unwrap();
    assert!(channel.poll_event().is_none());
    answer(&mut channel, second[1]).unwrap();
    assert!(matches!(channel.poll_event(), Some(Event::Answered { id, .. }) if id == second[1]));
    assert!(answer(&mut channel, second[1]).is_err(), "an answer to nothing");
}

//= PARTY-81
#[test]
fn a_finish_that_was_taken_back_is_said_again_and_one_that_stands_is_not() {
    let limits = Limits::default();
    let mut channel = PartyChannel::new(&limits);
    fn said(channel: &mut PartyChannel) -> usize {
        channel.finish();
        channel.finish();
        std::iter::from_fn(|| channel.poll_transmit()).count()
    }
    assert_eq!(said(&mut channel), 1);
    assert_eq!(said(&mut channel), 0);
    channel.resume();
    assert_eq!(said(&mut channel), 1);
    // Nor is anything due that was not asked.
    assert_eq!(channel.poll_timeout(), None);
    channel.handle_timeout(start() + Duration::from_secs(3_600));
    assert!(channel.poll_event().is_none());
}

//= PARTY-50
#[test]
fn a_hello_is_its_version_and_the_proof() {
    let hello = Hello::new([3; 32]);
    let bytes = hello.encode();
    assert_eq!(bytes, [&[0x08, 1, 0x1a, 32][..], &[3; 32]].concat());
    assert_eq!(Hello::decode(bytes.into()), Ok(hello));
}
