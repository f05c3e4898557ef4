//! What a remote can't do, and what costs it nothing because it costs us nothing.

use bytes::Bytes;

use super::*;
use crate::error::{ApiMisuse, DecodeError, PeerMisbehaved};

fn misbehaved(result: Result<Vec<Event>, Error>) -> PeerMisbehaved {
    match result {
        Err(Error::PeerMisbehaved(how)) => how,
        other => panic!("not misbehaviour: {other:?}"),
    }
}

//= MUX-25, MUX-27
#[test]
fn ids_grow_by_one_at_a_time() {
    for id in [0, 2, 1 << 31, 1 << 40, (1 << 53) - 1] {
        let mut mux = mux();
        assert_eq!(misbehaved(handle(&mut mux, [open(id, "a", b"", b"")])), PeerMisbehaved::InvalidOpen);
        // The error stays.
        assert_eq!(misbehaved(handle(&mut mux, [open(1, "a", b"", b"")])), PeerMisbehaved::InvalidOpen);
    }
    for id in [1 << 53, u64::MAX] {
        let error = handle(&mut mux(), [message(0, 1, &[&uint(id)[..], b"\x01a\0"].concat())]).unwrap_err();
        assert!(matches!(error, Error::Decode(DecodeError::IntegerTooLarge)));
    }
}

//= MUX-26
#[test]
fn an_id_in_use_is_not_opened_again() {
    let mut mux = mux();
    paired(&mut mux, 1, "a");
    assert_eq!(misbehaved(handle(&mut mux, [open(1, "b", b"", b"")])), PeerMisbehaved::InvalidOpen);
}

//= MUX-34, MUX-35
#[test]
fn closes_of_and_messages_to_unknown_ids_cost_nothing() {
    let mut mux = mux();
    let channel = paired(&mut mux, 1, "a");
    for id in [0, 2, 1 << 31, 1 << 40, (1 << 53) - 1] {
        assert_eq!(handle(&mut mux, [close(id)]).unwrap(), []);
        if id > 0 {
            assert_eq!(handle(&mut mux, [message(id, 0, b"x")]).unwrap(), []);
        }
    }
    assert!(mux.is_open(channel));
    assert_eq!(handle(&mut mux, [message(1, 0, b"x")]).unwrap().len(), 1);
}

//= MUX-36
#[test]
fn a_reject_of_what_was_not_opened_is_an_error() {
    for id in [0, 2, 1 << 31, 1 << 40, (1 << 53) - 1] {
        let mut mux = mux();
        mux.open("a", None, b"").unwrap();
        assert_eq!(misbehaved(handle(&mut mux, [reject(id)])), PeerMisbehaved::UnknownReject);
    }
    let mut mux = mux();
    paired(&mut mux, 1, "a");
    assert_eq!(misbehaved(handle(&mut mux, [reject(1)])), PeerMisbehaved::UnknownReject);
}

#[test]
fn opens_that_are_rejected_take_no_memory_however_many() {
    let mut mux = mux();
    for id in 1..=200_000 {
        let incoming = incoming(&handle(&mut mux, [open(id, "unknown", &uint(id), b"")]).unwrap());
        mux.reject(incoming);
        assert_eq!(transmits(&mut mux), [reject(id)]);
    }
    assert_eq!((mux.channels(), mux.unsent_bytes()), (0, 0));
    assert!(mux.pairings.is_empty());
    // The ids above are still the remote's to use, and to grow.
    incoming(&handle(&mut mux, [open(200_001, "a", b"", b"")]).unwrap());
    incoming(&handle(&mut mux, [open(77_777, "b", b"", b"")]).unwrap());
    assert!(mux.remotes.kept() <= Limits::default().max_channels + 2);
}

//= LIMIT-9
#[test]
fn opens_that_are_not_answered_end_in_an_error() {
    let mut mux = mux();
    let limits = Limits::default();
    let opens = (1..=200_000).map(|id| open(id, "unknown", &uint(id), b""));
    assert_eq!(misbehaved(handle(&mut mux, opens)), PeerMisbehaved::LimitExceeded("max_incoming_opens"));
    assert_eq!(mux.channels(), limits.max_incoming_opens);
}

//= MUX-30, MUX-43, LIMIT-8
#[test]
fn who_heeds_the_pause_never_reaches_the_limit() {
    let mut mux = mux();
    let opens: Vec<Bytes> = (1..=10_000).map(|id| open(id, "feed", &uint(id), b"")).collect();
    mux.handle_message(batch(&opens));
    let (mut waiting, mut answered) = (Vec::new(), 0);
    loop {
        while !mux.paused() {
            match mux.poll_event().unwrap() {
                Some(Event::Incoming { incoming, .. }) => waiting.push(incoming),
                None => break,
                Some(other) => panic!("{other:?}"),
            }
        }
        if waiting.is_empty() {
            break;
        }
        for incoming in waiting.drain(..) {
            mux.accept(incoming, b"").unwrap().unwrap();
            answered += 1;
        }
    }
    assert_eq!(answered, 10_000);
}

//= LIMIT-8
#[test]
fn the_pause_begins_beyond_half_of_what_may_wait() {
    let limits = Limits { max_incoming_opens: 8, max_early_bytes: 8 << 10, ..Limits::default() };
    let mut mux = Mux::new(&limits);
    for id in 1..=4 {
        handle(&mut mux, [open(id, "a", &uint(id), b"")]).unwrap();
        assert!(!mux.paused());
    }
    // With the 512 bytes that a message counts beside its payload, half of what may wait.
    handle(&mut mux, [message(1, 0, &[0; (4 << 10) - 512])]).unwrap();
    assert!(!mux.paused());
    let shown = format!("{mux:?}");
    assert!(shown.contains("incoming_opens: 4") && shown.contains("early_bytes: 4096"), "{shown}");

    handle(&mut mux, [open(5, "a", &uint(5), b"")]).unwrap();
    assert!(mux.paused());
}

//= LIMIT-7
#[test]
fn channels_are_bounded_for_both_sides() {
    let limits = Limits { max_channels: 2, ..Limits::default() };
    let mut mux = Mux::new(&limits);
    mux.open("a", None, b"").unwrap();
    let leaving = mux.open("b", None, b"").unwrap();
    mux.close(leaving);
    // A channel that waits for its id to be free counts.
    assert_eq!(mux.open("c", None, b""), Err(ApiMisuse::LimitExceeded("max_channels")));
    // What pairs is not one more.
    assert_eq!(handle(&mut mux, [open(1, "a", b"", b"")]).unwrap().len(), 1);
    let error = misbehaved(handle(&mut mux, [open(2, "x", b"", b"")]));
    assert_eq!(error, PeerMisbehaved::LimitExceeded("max_channels"));
}

#[test]
fn a_waiting_open_can_be_accepted_at_the_limit_of_channels() {
    let limits = Limits { max_channels: 1, ..Limits::default() };
    let mut mux = Mux::new(&limits);
    let incoming = incoming(&handle(&mut mux, [open(1, "x", b"", b"")]).unwrap());
    assert_eq!(mux.open("y", None, b""), Err(ApiMisuse::LimitExceeded("max_channels")));
    assert!(mux.accept(incoming, b"").unwrap().is_some());
    assert_eq!(mux.channels(), 1);
}

//= MUX-31, LIMIT-10
#[test]
fn early_messages_are_kept_up_to_a_limit() {
    let limits = Limits { max_early_bytes: 10 * 1024, ..Limits::default() };
    let mut mux = Mux::new(&limits);
    let first = incoming(&handle(&mut mux, [open(1, "a", b"", b"")]).unwrap());
    let early = || message(1, 0, &[0; 512]);
    assert_eq!(handle(&mut mux, (0..5).map(|_| early())).unwrap(), []);
    assert!(!mux.paused());
    assert_eq!(handle(&mut mux, (0..5).map(|_| early())).unwrap(), []);
    assert!(mux.paused());

    // Once answered they no longer count.
    mux.reject(first);
    assert!(!mux.paused());
    let second = incoming(&handle(&mut mux, [open(1, "b", b"", b"")]).unwrap());
    handle(&mut mux, (0..10).map(|_| early())).unwrap();
    mux.accept(second, b"").unwrap();
    assert!(!mux.paused());
    assert_eq!(handle(&mut mux, [Bytes::new()]).unwrap().len(), 10);

    handle(&mut mux, [open(2, "c", b"", b"")]).unwrap();
    let empty = (0..21).map(|_| message(2, 0, b""));
    assert_eq!(misbehaved(handle(&mut mux, empty)), PeerMisbehaved::LimitExceeded("max_early_bytes"));
}

#[test]
fn an_early_message_does_not_keep_its_frame() {
    let mut mux = mux();
    let incoming = incoming(&handle(&mut mux, [open(1, "a", b"", b"")]).unwrap());
    let frame = batch(&[message(1, 0, b"tiny"), message(7, 0, &vec![0; 1 << 20])]);
    handle(&mut mux, [frame.clone()]).unwrap();
    assert!(frame.is_unique());
    mux.reject(incoming);
}

//= LIMIT-11, LIMIT-12
#[test]
fn names_and_handshakes_are_bounded() {
    let limits = Limits { max_channel_name: 4, max_channel_handshake: 8, ..Limits::default() };
    let cases = [
        (open(1, "abcde", b"", b""), "max_channel_name"),
        (open(1, "a", b"abcde", b""), "max_channel_name"),
        (open(1, "a", b"", &[0; 9]), "max_channel_handshake"),
    ];
    for (message, limit) in cases {
        let how = misbehaved(handle(&mut Mux::new(&limits), [message]));
        assert_eq!(how, PeerMisbehaved::LimitExceeded(limit));
    }
    let mut mux = Mux::new(&limits);
    assert_eq!(mux.open("abcde", None, b""), Err(ApiMisuse::LimitExceeded("max_channel_name")));
    assert_eq!(mux.open("a", Some(b"abcde"), b""), Err(ApiMisuse::LimitExceeded("max_channel_name")));
    let too_large = Err(ApiMisuse::MessageTooLarge { len: 9, max: 8 });
    assert_eq!(mux.open("a", None, &[0; 9]), too_large);
    assert_eq!(transmits(&mut mux), Vec::<Bytes>::new());

    let incoming = incoming(&handle(&mut mux, [open(1, "abcd", b"abcd", &[0; 8])]).unwrap());
    assert_eq!(mux.accept(incoming, &[0; 9]).map(|_| ()), Err(ApiMisuse::MessageTooLarge { len: 9, max: 8 }));
    assert!(mux.accept(incoming, &[0; 8]).unwrap().is_some());
}

//= ENC-7
#[test]
fn a_name_must_be_utf8() {
    let error = handle(&mut mux(), [message(0, 1, b"\x01\x01\xff\0")]).unwrap_err();
    assert!(matches!(error, Error::Decode(DecodeError::NotUtf8)));
}

#[test]
fn a_batch_of_a_million_tiny_messages_takes_no_memory_for_each() {
    let mut mux = mux();
    let channel = paired(&mut mux, 1, "a");
    let mut frame = BytesMut::from(&[0, 0, 1][..]);
    for _ in 0..1_000_000 {
        frame.put_bytes(&[1, 0]);
    }
    mux.handle_message(frame.freeze());
    let mut count = 0;
    while let Some(event) = mux.poll_event().unwrap() {
        assert_eq!(event.channel(), Some(channel));
        assert!(mux.ready.is_empty());
        count += 1;
    }
    assert_eq!(count, 1_000_000);
}
