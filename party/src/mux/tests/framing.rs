//! How messages lie in plaintexts, both ways.

use bytes::Bytes;

use super::*;
use crate::{
    error::{ApiMisuse, DecodeError},
    mux::DEFAULT_COALESCING,
};

fn payloads(events: &[Event]) -> Vec<(ChannelId, u64, &[u8])> {
    let payload = |event| match event {
        &Event::Message { channel, message_type, ref payload } => (channel, message_type, &payload[..]),
        other => panic!("not a message: {other:?}"),
    };
    events.iter().map(payload).collect()
}

//= MUX-2
#[test]
fn an_open_lies_as_the_format_says() {
    let mut mux = mux();
    mux.open("hypercore/alpha", Some(&[7; 32]), &[1, 2]).unwrap();
    let mut expected = vec![0, 1, 1, 15];
    expected.extend_from_slice(b"hypercore/alpha");
    expected.push(32);
    expected.extend_from_slice(&[7; 32]);
    expected.extend_from_slice(&[1, 2]);
    assert_eq!(transmits(&mut mux), [expected]);
}

#[test]
fn a_message_on_its_own_is_not_batched() {
    let mut mux = mux();
    let channel = paired(&mut mux, 1, "a");
    assert!(mux.send(channel, 3, b"hello").unwrap());
    assert_eq!(transmits(&mut mux), [&b"\x01\x03hello"[..]]);
    assert_eq!(mux.unsent_bytes(), 0);
}

//= MUX-40, MUX-41
#[test]
fn messages_sent_together_travel_together_in_their_order() {
    let mut mux = mux();
    let (a, b) = (paired(&mut mux, 1, "a"), paired(&mut mux, 2, "b"));
    mux.send(a, 0, b"x").unwrap();
    mux.send(b, 1, b"yz").unwrap();
    mux.send(b, 300, b"").unwrap();
    mux.close(a);
    assert_eq!(mux.unsent_bytes(), 21);
    let expected: &[u8] = b"\0\0\x01\x02\0x\0\x02\x03\x01yz\x03\xfd\x2c\x01\0\0\x02\x03\x01";
    assert_eq!(transmits(&mut mux), [expected]);
    assert_eq!(mux.unsent_bytes(), 0);
}

#[test]
fn without_coalescing_only_a_cork_batches() {
    let mut mux = mux();
    let channel = paired(&mut mux, 1, "a");
    mux.set_coalescing(0);
    mux.send(channel, 0, b"x").unwrap();
    mux.send(channel, 0, b"y").unwrap();
    assert_eq!(transmits(&mut mux), [&b"\x01\0x"[..], b"\x01\0y"]);
    mux.cork();
    mux.send(channel, 0, b"x").unwrap();
    mux.send(channel, 0, b"y").unwrap();
    mux.uncork();
    assert_eq!(transmits(&mut mux), [&b"\0\0\x01\x02\0x\x02\0y"[..]]);
}

#[test]
fn a_cork_holds_back_until_the_last_uncork() {
    let mut mux = mux();
    let channel = paired(&mut mux, 1, "a");
    mux.cork();
    mux.cork();
    mux.send(channel, 0, b"x").unwrap();
    assert_eq!(mux.poll_transmit(), None);
    mux.uncork();
    mux.send(channel, 0, b"y").unwrap();
    assert_eq!(mux.poll_transmit(), None);
    mux.uncork();
    assert_eq!(transmits(&mut mux), [&b"\0\0\x01\x02\0x\x02\0y"[..]]);
    mux.uncork();
    mux.send(channel, 0, b"z").unwrap();
    assert_eq!(transmits(&mut mux), [&b"\x01\0z"[..]]);
}

//= MUX-42
#[test]
fn a_batch_is_split_where_it_would_be_too_long() {
    let mut mux = mux();
    let channel = paired(&mut mux, 1, "a");
    let big = vec![7; 3 << 20];
    mux.cork();
    for _ in 0..7 {
        mux.send(channel, 0, &big).unwrap();
    }
    // Three fill a batch of 8 MiB less a bit; the corked rest stays.
    let full = transmits(&mut mux);
    assert!(full.iter().all(|frame| frame.len() <= 8 << 20));
    assert_eq!(full.len(), 3);
    mux.uncork();
    let rest = transmits(&mut mux);
    assert_eq!(rest, [[&[1, 0][..], &big].concat()]);

    let mut remote = super::mux();
    let theirs = paired(&mut remote, 1, "a");
    let events = handle(&mut remote, full.into_iter().chain(rest)).unwrap();
    assert_eq!(payloads(&events), vec![(theirs, 0, &big[..]); 7]);
}

#[test]
fn no_plaintext_is_longer_than_a_frame_can_seal() {
    let limits = Limits { max_frame: 117, ..Limits::default() };
    let mut mux = Mux::new(&limits);
    let channel = paired(&mut mux, 1, "a");
    mux.cork();
    for len in 0..=98 {
        assert!(mux.send(channel, 0, &vec![1; len]).unwrap());
    }
    mux.uncork();
    let frames = transmits(&mut mux);
    assert_eq!(frames.iter().map(Bytes::len).max(), Some(100));
    let too_large = ApiMisuse::MessageTooLarge { len: 101, max: 100 };
    assert_eq!(mux.send(channel, 0, &[1; 99]), Err(too_large));
    assert_eq!(mux.poll_transmit(), None);
}

#[test]
fn messages_of_two_channels_fill_a_plaintext_to_its_last_byte() {
    let limits = Limits { max_frame: 117, ..Limits::default() };
    let mut mux = Mux::new(&limits);
    let channels = [paired(&mut mux, 1, "a"), paired(&mut mux, 2, "b")];
    for lens in (0..=98).flat_map(|first| (0..=98).map(move |second| [first, second])) {
        mux.cork();
        for (channel, len) in channels.into_iter().zip(lens) {
            assert!(mux.send(channel, 0, &vec![1; len]).unwrap());
        }
        mux.uncork();
        let frames: Vec<usize> = transmits(&mut mux).iter().map(Bytes::len).collect();
        // Two bytes say that it is a batch, two which channel comes, and each message has a length and a type.
        let together = 2 + 1 + 2 + lens[0] + 2 + 2 + lens[1];
        let expected = if together <= 100 { vec![together] } else { vec![lens[0] + 2, lens[1] + 2] };
        assert_eq!(frames, expected, "{lens:?}");
    }
}

#[test]
fn a_large_message_takes_no_small_one_along() {
    let mut mux = mux();
    let channel = paired(&mut mux, 1, "a");
    mux.send(channel, 0, b"x").unwrap();
    mux.send(channel, 0, &vec![0; DEFAULT_COALESCING]).unwrap();
    mux.send(channel, 0, b"y").unwrap();
    let lens: Vec<usize> = transmits(&mut mux).iter().map(Bytes::len).collect();
    assert_eq!(lens, [3, DEFAULT_COALESCING + 2, 3]);
}

#[test]
fn the_parts_of_a_payload_become_one_message() {
    let mut mux = mux();
    let channel = paired(&mut mux, 1, "a");
    assert!(mux.send_parts(channel, 2, &[b"ab", b"", b"c"]).unwrap());
    assert_eq!(transmits(&mut mux), [&b"\x01\x02abc"[..]]);
    let too_large = ApiMisuse::LimitExceeded("2^53 - 1 for a message type");
    assert_eq!(mux.send(channel, 1 << 53, b""), Err(too_large));
}

//= MUX-7, MUX-12
#[test]
fn a_batch_switches_channels_and_bounds_each_message() {
    let mut mux = mux();
    let (a, b) = (paired(&mut mux, 1, "a"), paired(&mut mux, 2, "b"));
    let frame = Bytes::from_static(b"\0\0\x01\x02\0x\x01\x05\0\x02\x03\x01yz\0\x01\x04\0abc");
    let events = handle(&mut mux, [frame]).unwrap();
    assert_eq!(payloads(&events), [(a, 0, &b"x"[..]), (a, 5, b""), (b, 1, b"yz"), (a, 0, b"abc")]);
}

#[test]
fn control_messages_stand_in_batches_too() {
    let mut mux = mux();
    let frame = batch(&[open(1, "a", b"", b"hs"), message(1, 4, b"m"), open(2, "b", b"", b""), close(2)]);
    let events = handle(&mut mux, [frame]).unwrap();
    let [Event::Incoming { incoming, handshake, .. }, Event::Incoming { .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(handshake, "hs");
    let channel = mux.accept(*incoming, b"").unwrap().unwrap();
    let payload = Bytes::from_static(b"m");
    assert_eq!(mux.poll_event().unwrap(), Some(Event::Message { channel, message_type: 4, payload }));
}

//= MUX-1
#[test]
fn empty_plaintexts_and_empty_batches_mean_nothing() {
    let mut mux = mux();
    let messages = [&b""[..], b"\0\0\0", b"\0\0\x05", b"\0\0\x01\0\x02\0\x03"].map(Bytes::from_static);
    assert_eq!(handle(&mut mux, messages).unwrap(), []);
}

//= MUX-3
#[test]
fn control_messages_of_an_unknown_type_are_passed_over() {
    let mut mux = mux();
    assert_eq!(handle(&mut mux, [message(0, 4, b"later"), message(0, 1 << 40, b"")]).unwrap(), []);
    assert_eq!(handle(&mut mux, [batch(&[message(0, 99, b"later")])]).unwrap(), []);
}

#[test]
fn a_payload_is_a_slice_of_what_came() {
    let mut mux = mux();
    paired(&mut mux, 1, "a");
    let frame = Bytes::from(b"\x01\0payload".to_vec());
    let events = handle(&mut mux, [frame.clone()]).unwrap();
    let [Event::Message { payload, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(payload.as_ptr(), frame[2..].as_ptr());
}

//= MUX-5
#[test]
fn cut_messages_are_decode_errors_and_final() {
    let cut: [&[u8]; 12] = [
        b"\0",
        b"\x01",
        b"\xfd\x01",
        b"\0\0",
        b"\0\0\x01\x02\0",
        b"\0\0\x01\0",
        b"\0\x01",
        b"\0\x01\x01\x05ab",
        b"\0\x01\x01\x01a",
        b"\0\x01\x01\x01a\x04id",
        b"\0\x02",
        b"\0\x03",
    ];
    for bytes in cut {
        let mut mux = mux();
        mux.handle_message(Bytes::from_static(bytes));
        for _ in 0..2 {
            let error = mux.poll_event().unwrap_err();
            assert!(matches!(error, Error::Decode(DecodeError::UnexpectedEnd)), "{bytes:x?}: {error}");
        }
    }
}

//= MUX-9
#[test]
fn a_batch_within_a_batch_is_refused() {
    let mut mux = mux();
    let inner = batch(&[open(1, "a", b"", b"")]);
    let error = handle(&mut mux, [batch(&[inner])]).unwrap_err();
    assert!(matches!(error, Error::Decode(DecodeError::Invalid("batch within a batch"))), "{error}");
}

//= MUX-11
#[test]
fn a_length_beyond_the_end_of_a_batch_is_refused_after_what_is_before_it() {
    for len in [3, 300, 1 << 31, (1 << 53) - 1] {
        let mut mux = mux();
        let channel = paired(&mut mux, 1, "a");
        let frame = [&b"\0\0\x01\x02\0x"[..], &uint(len), b"\0y"].concat();
        mux.handle_message(frame.into());
        let event = mux.poll_event().unwrap();
        let payload = Bytes::from_static(b"x");
        assert_eq!(event, Some(Event::Message { channel, message_type: 0, payload }));
        let error = mux.poll_event().unwrap_err();
        assert!(matches!(error, Error::Decode(DecodeError::UnexpectedEnd)), "{error}");
    }
}
