//! Who is paired with whom, and when an id is free again.

use bytes::Bytes;

use super::*;
use crate::{error::PeerMisbehaved, mux::CloseReason};

fn opened(channel: ChannelId, handshake: &'static [u8]) -> Event {
    Event::Opened { channel, handshake: Bytes::from_static(handshake) }
}

fn told(channel: ChannelId, payload: &'static [u8]) -> Event {
    Event::Message { channel, message_type: 0, payload: Bytes::from_static(payload) }
}

fn closed(channel: ChannelId) -> Event {
    Event::Closed { channel, reason: CloseReason::Remote }
}

fn rejected(channel: ChannelId) -> Event {
    Event::Closed { channel, reason: CloseReason::Rejected }
}

//= MUX-13
#[test]
fn an_open_of_ours_is_paired_by_the_remotes() {
    let mut mux = mux();
    let channel = mux.open("a", Some(b"id"), b"ours").unwrap();
    assert_eq!(transmits(&mut mux), [open(1, "a", b"id", b"ours")]);
    let events = handle(&mut mux, [open(1, "a", b"id", b"theirs"), message(1, 0, b"x")]).unwrap();
    assert_eq!(events, [opened(channel, b"theirs"), told(channel, b"x")]);
    assert_eq!(transmits(&mut mux), Vec::<Bytes>::new());
}

#[test]
fn an_open_of_the_remotes_is_paired_by_accepting() {
    let mut mux = mux();
    let events = handle(&mut mux, [open(1, "a", b"id", b"theirs")]).unwrap();
    let incoming = incoming(&events);
    let (protocol, id) = ("a".to_owned(), Some(Bytes::from_static(b"id")));
    assert_eq!(
        events,
        [Event::Incoming { incoming, protocol, id, handshake: Bytes::from_static(b"theirs") }]
    );

    let channel = mux.accept(incoming, b"ours").unwrap().unwrap();
    assert_eq!(transmits(&mut mux), [open(1, "a", b"id", b"ours")]);
    assert_eq!(handle(&mut mux, [message(1, 0, b"x")]).unwrap(), [told(channel, b"x")]);
    assert_eq!(mux.accept(incoming, b"again").unwrap(), None);
    mux.reject(incoming);
    assert_eq!(transmits(&mut mux), Vec::<Bytes>::new());
}

//= MUX-13, MUX-14
#[test]
fn opening_what_the_remote_has_opened_pairs_it() {
    let mut mux = mux();
    let incoming =
        incoming(&handle(&mut mux, [open(1, "a", b"", b"theirs"), message(1, 0, b"early")]).unwrap());
    let channel = mux.open("a", None, b"ours").unwrap();
    assert_eq!(handle(&mut mux, []).unwrap(), []);
    assert_eq!(mux.poll_event().unwrap(), Some(opened(channel, b"theirs")));
    assert_eq!(mux.poll_event().unwrap(), Some(told(channel, b"early")));
    assert_eq!(mux.poll_event().unwrap(), None);
    assert_eq!(mux.accept(incoming, b"").unwrap(), None);
    assert_eq!(transmits(&mut mux), [open(1, "a", b"", b"ours")]);
}

#[test]
fn no_id_and_an_empty_one_are_the_same() {
    let mut mux = mux();
    let channel = mux.open("a", Some(b""), b"").unwrap();
    assert_eq!(handle(&mut mux, [open(1, "a", b"", b"")]).unwrap(), [opened(channel, b"")]);
    let events = handle(&mut mux, [open(2, "a", b"", b"")]).unwrap();
    assert!(matches!(&events[..], [Event::Incoming { id: None, .. }]));
}

//= MUX-21
#[test]
fn different_ids_are_different_channels() {
    let mut mux = mux();
    mux.open("a", Some(b"1"), b"").unwrap();
    incoming(&handle(&mut mux, [open(1, "a", b"2", b"")]).unwrap());
    incoming(&handle(&mut mux, [open(2, "b", b"1", b"")]).unwrap());
}

//= MUX-20
#[test]
fn several_channels_of_one_key_pair_in_their_order() {
    let mut mux = mux();
    let first = mux.open("a", None, b"").unwrap();
    let second = mux.open("a", None, b"").unwrap();
    let events = handle(&mut mux, [open(1, "a", b"", b"1"), open(2, "a", b"", b"2")]).unwrap();
    assert_eq!(events, [opened(first, b"1"), opened(second, b"2")]);
    let events = handle(&mut mux, [message(2, 0, b"two"), message(1, 0, b"one")]).unwrap();
    assert_eq!(events, [told(second, b"two"), told(first, b"one")]);
}

#[test]
fn opens_of_one_key_are_told_one_after_another() {
    let mut mux = mux();
    let messages = [open(1, "a", b"", b"1"), open(2, "a", b"", b"2"), open(3, "a", b"", b"3")];
    let first = incoming(&handle(&mut mux, messages).unwrap());
    mux.reject(first);
    let Some(Event::Incoming { incoming: second, handshake, .. }) = mux.poll_event().unwrap() else {
        panic!()
    };
    assert_eq!(handshake, "2");
    let channel = mux.accept(second, b"").unwrap().unwrap();
    let Some(Event::Incoming { handshake, .. }) = mux.poll_event().unwrap() else { panic!() };
    assert_eq!(handshake, "3");
    let third = mux.open("a", None, b"").unwrap();
    assert_eq!(mux.poll_event().unwrap(), Some(opened(third, b"3")));
    assert_eq!(mux.poll_event().unwrap(), None);
    assert_eq!(handle(&mut mux, [message(2, 0, b"x")]).unwrap(), [told(channel, b"x")]);
}

#[test]
fn a_reject_closes_and_frees_the_id() {
    let mut mux = mux();
    let first = mux.open("a", None, b"").unwrap();
    let second = mux.open("b", None, b"").unwrap();
    mux.send(first, 0, b"lost").unwrap();
    assert_eq!(handle(&mut mux, [reject(1)]).unwrap(), [rejected(first)]);
    assert!(!mux.is_open(first));
    assert!(!mux.send(first, 0, b"x").unwrap());
    transmits(&mut mux);
    let third = mux.open("c", None, b"").unwrap();
    assert_eq!(transmits(&mut mux), [open(1, "c", b"", b"")]);
    assert_ne!(first, third);
    assert!(!mux.is_open(first));
    assert!(mux.is_open(second) && mux.is_open(third));
}

#[test]
fn what_was_rejected_is_not_paired_by_a_later_open() {
    let mut mux = mux();
    let first = mux.open("a", None, b"").unwrap();
    assert_eq!(handle(&mut mux, [reject(1)]).unwrap(), [rejected(first)]);
    // It has the id of the one before.
    let second = mux.open("b", None, b"").unwrap();
    incoming(&handle(&mut mux, [open(1, "a", b"", b"")]).unwrap());
    assert_eq!(handle(&mut mux, [open(2, "b", b"", b"")]).unwrap(), [opened(second, b"")]);
}

#[test]
fn rejects_may_come_out_of_order() {
    let mut mux = mux();
    let channels = [0; 3].map(|_| mux.open("a", None, b"").unwrap());
    let events = handle(&mut mux, [reject(2), open(1, "a", b"", b""), reject(3)]).unwrap();
    assert_eq!(events, [rejected(channels[1]), opened(channels[0], b""), rejected(channels[2])]);
    assert_eq!(mux.channels(), 1);
}

//= MUX-17, MUX-19
#[test]
fn an_unknown_protocol_is_rejected_and_its_id_used_again() {
    let mut mux = mux();
    for _ in 0..3 {
        let incoming = incoming(&handle(&mut mux, [open(1, "x", b"", b""), message(1, 0, b"m")]).unwrap());
        mux.reject(incoming);
        assert_eq!(transmits(&mut mux), [reject(1)]);
        assert_eq!(handle(&mut mux, [message(1, 0, b"late"), close(1)]).unwrap(), []);
    }
    assert_eq!(mux.channels(), 0);
}

//= MUX-37
#[test]
fn a_close_of_a_paired_channel_frees_both_ids_at_once() {
    let mut mux = mux();
    let channel = paired(&mut mux, 1, "a");
    mux.close(channel);
    mux.close(channel);
    assert_eq!(transmits(&mut mux), [close(1)]);
    assert_eq!(mux.channels(), 0);
    // What the remote sent before it knew.
    assert_eq!(handle(&mut mux, [message(1, 0, b"late"), close(1)]).unwrap(), []);
    paired(&mut mux, 1, "b");
}

//= MUX-32
#[test]
fn a_close_by_the_remote_is_not_answered() {
    let mut mux = mux();
    let channel = paired(&mut mux, 1, "a");
    let events = handle(&mut mux, [message(1, 0, b"last"), close(1), message(1, 0, b"late")]).unwrap();
    assert_eq!(events, [told(channel, b"last"), closed(channel)]);
    mux.close(channel);
    assert!(!mux.send(channel, 0, b"x").unwrap());
    assert_eq!(transmits(&mut mux), Vec::<Bytes>::new());
    assert_eq!(mux.channels(), 0);
}

//= MUX-33
#[test]
fn after_our_close_nothing_is_told_of_the_channel() {
    let mut mux = mux();
    let channel = paired(&mut mux, 1, "a");
    mux.handle_message(batch(&[message(1, 0, b"one"), message(1, 0, b"two"), close(1)]));
    assert_eq!(mux.poll_event().unwrap(), Some(told(channel, b"one")));
    mux.close(channel);
    assert_eq!(mux.poll_event().unwrap(), None);

    let early = [open(1, "b", b"", b""), message(1, 0, b"early")];
    let incoming = incoming(&handle(&mut mux, early).unwrap());
    let channel = mux.accept(incoming, b"").unwrap().unwrap();
    mux.close(channel);
    assert_eq!(mux.poll_event().unwrap(), None);
}

//= MUX-38
#[test]
fn the_id_of_a_close_before_the_answer_waits_for_the_answer() {
    for answer in [reject(1), open(1, "a", b"", b"")] {
        let mut mux = mux();
        let channel = mux.open("a", None, b"").unwrap();
        mux.close(channel);
        mux.open("b", None, b"").unwrap();
        let sent = [open(1, "a", b"", b""), close(1), open(2, "b", b"", b"")];
        assert_eq!(transmits(&mut mux), [batch_of_control(&sent)]);

        assert_eq!(handle(&mut mux, [answer]).unwrap(), []);
        assert_eq!(mux.channels(), 1);
        transmits(&mut mux);
        mux.open("c", None, b"").unwrap();
        assert_eq!(transmits(&mut mux), [open(1, "c", b"", b"")]);
    }
}

/// One batch of control messages, with no switch in between as they are all for channel 0.
fn batch_of_control(messages: &[Bytes]) -> Bytes {
    let mut out = BytesMut::from(&[0, 0, 0][..]);
    for message in messages {
        out.put_buffer(&message[1..]);
    }
    out.freeze()
}

//= MUX-15, MUX-16
#[test]
fn a_crossing_open_of_a_closed_channel_is_swallowed_and_closed() {
    let mut mux = mux();
    let channel = mux.open("a", None, b"").unwrap();
    mux.close(channel);
    transmits(&mut mux);
    // To the remote the two are paired, so what it sends is for a channel that is gone here.
    let crossing = [open(1, "a", b"", b""), message(1, 0, b"late")];
    assert_eq!(handle(&mut mux, crossing).unwrap(), []);
    // No reject, which would end a Node peer, but the close once more.
    assert_eq!(transmits(&mut mux), [close(1)]);
    // The remote has freed its id by our first close.
    incoming(&handle(&mut mux, [open(1, "a", b"", b"fresh")]).unwrap());
}

#[test]
fn a_channel_closed_before_the_answer_does_not_stand_in_for_the_next() {
    let mut mux = mux();
    let first = mux.open("a", None, b"").unwrap();
    mux.close(first);
    let second = mux.open("a", None, b"").unwrap();
    let events = handle(&mut mux, [open(1, "a", b"", b"1"), open(2, "a", b"", b"2")]).unwrap();
    assert_eq!(events, [opened(second, b"2")]);
    assert_eq!(mux.channels(), 1);
}

//= MUX-29, MUX-39
#[test]
fn what_the_remote_closed_before_the_answer_is_delivered_then_closed() {
    let mut mux = mux();
    let sent = [open(1, "a", b"", b""), message(1, 0, b"one"), message(1, 0, b"two"), close(1)];
    let incoming = incoming(&handle(&mut mux, sent).unwrap());
    let channel = mux.accept(incoming, b"").unwrap().unwrap();
    let events = handle(&mut mux, [Bytes::new()]).unwrap();
    assert_eq!(events, [told(channel, b"one"), told(channel, b"two"), closed(channel)]);
    // The answer goes out nevertheless: the remote waits for it to use its id again.
    assert_eq!(transmits(&mut mux), [open(1, "a", b"", b"")]);
    assert_eq!(mux.channels(), 0);
    super::incoming(&handle(&mut mux, [open(1, "a", b"", b"")]).unwrap());
}

#[test]
fn closing_what_the_remote_closed_before_the_answer_silences_it() {
    let mut mux = mux();
    let sent = [open(1, "a", b"", b""), message(1, 0, b"one"), close(1)];
    let incoming = incoming(&handle(&mut mux, sent).unwrap());
    let channel = mux.accept(incoming, b"").unwrap().unwrap();
    mux.close(channel);
    assert_eq!(mux.poll_event().unwrap(), None);
    // There is nothing to close on the wire.
    assert_eq!(transmits(&mut mux), [open(1, "a", b"", b"")]);
}

//= protocol-spec/05-channels.md#closing
#[test]
fn what_the_remote_closed_before_the_answer_can_be_rejected() {
    let mut mux = mux();
    let incoming = incoming(&handle(&mut mux, [open(1, "a", b"", b""), close(1), close(1)]).unwrap());
    mux.reject(incoming);
    assert_eq!(transmits(&mut mux), [reject(1)]);
    assert_eq!(mux.channels(), 0);
}

//= MUX-26
#[test]
fn an_id_that_the_remote_closed_is_not_its_to_use_before_our_answer() {
    let mut mux = mux();
    let error = handle(&mut mux, [open(1, "a", b"", b""), close(1), open(1, "b", b"", b"")]).unwrap_err();
    assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::InvalidOpen)));
}

//= MUX-22, MUX-23
#[test]
fn aliases_are_resolved_here_and_never_sent() {
    let mut mux = mux();
    mux.set_aliases("hypercore/alpha", &["hypercore"]);
    let events = handle(&mut mux, [open(1, "hypercore", b"k", b"")]).unwrap();
    assert!(matches!(&events[..], [Event::Incoming { protocol, .. }] if protocol == "hypercore/alpha"));
    mux.accept(incoming(&events), b"").unwrap();
    assert_eq!(transmits(&mut mux), [open(1, "hypercore/alpha", b"k", b"")]);

    let channel = mux.open("hypercore", Some(b"l"), b"").unwrap();
    assert_eq!(transmits(&mut mux), [open(2, "hypercore/alpha", b"l", b"")]);
    assert_eq!(handle(&mut mux, [open(2, "hypercore/alpha", b"l", b"")]).unwrap(), [opened(channel, b"")]);
}

//= MUX-24
#[test]
fn free_ids_are_used_again_the_latest_first() {
    let mut mux = mux();
    let channels: Vec<ChannelId> = (1..=3).map(|id| paired(&mut mux, id, "a")).collect();
    mux.close(channels[0]);
    mux.close(channels[2]);
    transmits(&mut mux);
    for id in [3, 1, 4] {
        mux.open("b", None, b"").unwrap();
        assert_eq!(transmits(&mut mux), [open(id, "b", b"", b"")]);
    }
}

//= MUX-28
#[test]
fn messages_can_be_sent_before_the_remote_has_answered() {
    let mut mux = mux();
    let channel = mux.open("a", None, b"").unwrap();
    assert!(mux.send(channel, 0, b"early").unwrap());
    assert_eq!(transmits(&mut mux), [batch(&[open(1, "a", b"", b""), message(1, 0, b"early")])]);
}
