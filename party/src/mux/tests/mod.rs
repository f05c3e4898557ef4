//! The behaviour of one end, its remote played by hand.

mod bounds;
mod framing;
mod pairing;

use bytes::{Bytes, BytesMut};

use super::{ChannelId, Event, Incoming, Mux};
use crate::{
    encoding::{Reader, Writer},
    error::Error,
    limits::Limits,
};

pub(super) fn mux() -> Mux {
    Mux::new(&Limits::default())
}

/// What a remote would write.
pub(super) fn open(sender: u64, protocol: &str, id: &[u8], handshake: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_uint(0);
    out.put_uint(1);
    out.put_uint(sender);
    out.put_string(protocol);
    out.put_buffer(id);
    out.put_bytes(handshake);
    out.freeze()
}

pub(super) fn reject(receiver: u64) -> Bytes {
    message(0, 2, &uint(receiver))
}

pub(super) fn close(sender: u64) -> Bytes {
    message(0, 3, &uint(sender))
}

pub(super) fn message(sender: u64, message_type: u64, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_uint(sender);
    out.put_uint(message_type);
    out.put_bytes(payload);
    out.freeze()
}

/// A batch of messages as they would be on their own, with a switch of the channel before each but the first.
pub(super) fn batch(messages: &[Bytes]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_uint(0);
    out.put_uint(0);
    for (i, message) in messages.iter().enumerate() {
        let mut reader = Reader::new(message);
        let channel = reader.uint().expect("a message starts with its channel");
        if i > 0 {
            out.put_uint(0);
        }
        out.put_uint(channel);
        out.put_buffer(reader.rest());
    }
    out.freeze()
}

pub(super) fn uint(n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    // By hand, as the writer refuses what a Node peer would not decode.
    match u32::try_from(n) {
        Ok(n) => out.put_uint(n.into()),
        Err(_) => {
            out.push(0xff);
            out.extend_from_slice(&n.to_le_bytes());
        }
    }
    out
}

/// What comes of these messages.
pub(super) fn handle(mux: &mut Mux, messages: impl IntoIterator<Item = Bytes>) -> Result<Vec<Event>, Error> {
    let mut events = Vec::new();
    for message in messages {
        mux.handle_message(message);
        while let Some(event) = mux.poll_event()? {
            events.push(event);
        }
    }
    Ok(events)
}

pub(super) fn transmits(mux: &mut Mux) -> Vec<Bytes> {
    std::iter::from_fn(|| mux.poll_transmit()).collect()
}

/// The open that these events tell, and nothing else.
pub(super) fn incoming(events: &[Event]) -> Incoming {
    match events {
        [Event::Incoming { incoming, .. }] => *incoming,
        other => panic!("not one open: {other:?}"),
    }
}

/// A channel that is paired: our id and the remote's are both the next free ones.
pub(super) fn paired(mux: &mut Mux, remote: u64, protocol: &str) -> ChannelId {
    let channel = mux.open(protocol, None, b"").expect("within the limits");
    let events = handle(mux, [open(remote, protocol, b"", b"")]).expect("an honest open");
    assert_eq!(events, [Event::Opened { channel, handshake: Bytes::new() }]);
    transmits(mux);
    channel
}
