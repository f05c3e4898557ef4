//! What stands in one plaintext of the secret stream: one message, or a batch of them.
//!
//! A message is `<channel> <type> <payload>`; channel 0 carries the control messages. A batch is the control
//! message `00 00 <channel>`, then for each message its length and `<type> <payload>`; a length of zero is
//! followed by the channel that the next ones are for.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    encoding::{Reader, Writer, uint_len},
    error::{ApiMisuse, DecodeError},
};

/// The channel of the control messages.
pub(super) const CONTROL: u64 = 0;

const BATCH: u64 = 0;
const OPEN: u64 = 1;
const REJECT: u64 = 2;
const CLOSE: u64 = 3;

/// What sealing adds to a plaintext: a tag byte and a 16-byte authenticator.
const SEAL_BYTES: usize = 17;

/// The most that a corked batch collects before it is split, which is what Node does too.
const MAX_BATCH: usize = 8 << 20;

/// The smallest piece of memory that is asked for when a batch begins.
const MIN_RESERVE: usize = 512;

/// A message on channel 0, apart from batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control<'a> {
    /// The sender has opened a channel and will use this id of its own for it.
    Open { sender: u64, protocol: &'a str, id: Option<&'a [u8]>, handshake: &'a [u8] },
    /// The sender has no use for the channel that the receiver opened with this id.
    Reject { receiver: u64 },
    /// The sender has closed its channel with this id.
    Close { sender: u64 },
    /// A type from a later version, to be passed over.
    Unknown,
}

impl<'a> Control<'a> {
    /// Decodes what follows the channel: the type and its fields. What comes after the fields of a reject or
    /// a close is passed over, as in Node.
    //= MUX-3, MUX-5, MUX-9
    pub(super) fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(message);
        Ok(match reader.uint()? {
            //= protocol-spec/05-channels.md#messages
            // Node would descend into it. No peer sends one, and depth is nothing to leave to a peer.
            BATCH => return Err(DecodeError::Invalid("batch within a batch")),
            OPEN => Self::Open {
                sender: reader.uint()?,
                protocol: reader.string()?,
                id: reader.optional_buffer()?,
                handshake: reader.rest(),
            },
            REJECT => Self::Reject { receiver: reader.uint()? },
            CLOSE => Self::Close { sender: reader.uint()? },
            //= protocol-spec/05-channels.md#messages
            _ => Self::Unknown,
        })
    }
}

/// Plaintexts that have come and are not taken apart yet.
///
/// They are taken apart one message at a time, as a batch of 16 MiB can hold eight million of them.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    messages: VecDeque<Bytes>,
    /// What is left of the batch that is being read, and the channel that it is at.
    batch: Option<(u64, Bytes)>,
}

impl Inbox {
    /// Adds a plaintext. Empty ones mean nothing.
    //= MUX-1
    pub(super) fn push(&mut self, message: Bytes) {
        if !message.is_empty() {
            self.messages.push_back(message);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The next message and the sender's id of the channel that it is for. The message starts with its type.
    //= MUX-7
    pub(super) fn next(&mut self) -> Result<Option<(u64, Bytes)>, DecodeError> {
        loop {
            if let Some((channel, rest)) = &mut self.batch {
                if let Some(message) = next_in_batch(channel, rest)? {
                    return Ok(Some((*channel, message)));
                }
                self.batch = None;
            }
            let Some(mut message) = self.messages.pop_front() else { return Ok(None) };
            let channel = take_uint(&mut message)?;
            if channel != CONTROL || Reader::new(&message).uint()? != BATCH {
                return Ok(Some((channel, message)));
            }
            take_uint(&mut message)?;
            let first = take_uint(&mut message)?;
            self.batch = Some((first, message));
        }
    }
}

//= MUX-11, MUX-12
fn next_in_batch(channel: &mut u64, rest: &mut Bytes) -> Result<Option<Bytes>, DecodeError> {
    while !rest.is_empty() {
        let len = take_uint(rest)?;
        if len == 0 {
            *channel = take_uint(rest)?;
            continue;
        }
        //= protocol-spec/05-channels.md#messages
        // Node reads a length beyond the end as one up to the end. That is a message cut short.
        let len = usize::try_from(len).ok().filter(|len| *len <= rest.len());
        return Ok(Some(rest.split_to(len.ok_or(DecodeError::UnexpectedEnd)?)));
    }
    Ok(None)
}

/// Takes an integer off the front.
pub(super) fn take_uint(message: &mut Bytes) -> Result<u64, DecodeError> {
    let mut reader = Reader::new(message);
    let n = reader.uint()?;
    let read = message.len().saturating_sub(reader.remaining().len());
    message.advance(read);
    Ok(n)
}

/// Plaintexts to be sealed, in the order in which their messages were sent.
///
/// A message is written where it stays: at the end of a batch that is still growing. If it turns out to be the
/// only one, its front is rewritten in place and it leaves as a message of its own.
#[derive(Debug)]
//= MUX-8, MUX-10, MUX-40, MUX-41, MUX-42
pub(super) struct Outbox {
    finished: VecDeque<Bytes>,
    growing: BytesMut,
    /// How many messages `growing` has.
    count: usize,
    /// The channel of its last one.
    channel: u64,
    /// Where the type of its first one stands.
    first: usize,
    unsent: usize,
    corks: usize,
    max_message: usize,
    coalesce: usize,
}

impl Outbox {
    pub(super) fn new(max_frame: usize, coalesce: usize) -> Self {
        Self {
            finished: VecDeque::new(),
            growing: BytesMut::new(),
            count: 0,
            channel: CONTROL,
            first: 0,
            unsent: 0,
            corks: 0,
            max_message: max_frame.saturating_sub(SEAL_BYTES),
            coalesce,
        }
    }

    /// How long a message would be on its own.
    ///
    /// # Errors
    /// [`ApiMisuse::MessageTooLarge`] if it does not fit into a frame.
    pub(super) fn check(&self, channel: u64, message_type: u64, payload: &[&[u8]]) -> Result<(), ApiMisuse> {
        let len = uint_len(channel).saturating_add(message_len(message_type, payload));
        if len > self.max_message {
            return Err(ApiMisuse::MessageTooLarge { len, max: self.max_message });
        }
        Ok(())
    }

    /// Appends a message; the payload is the parts one after another. What is longer than
    /// [`check`](Self::check) allows is the caller's mistake.
    pub(super) fn push(&mut self, channel: u64, message_type: u64, payload: &[&[u8]]) {
        let len = message_len(message_type, payload);
        // At most a switch of the channel and the length come in front.
        let need = len.saturating_add(1 + uint_len(channel) + uint_len(len as u64));
        let limit = self.max_message.min(if self.corks > 0 { MAX_BATCH } else { self.coalesce });
        if self.count > 0 && self.growing.len().saturating_add(need) > limit {
            self.finish();
        }

        let before = self.growing.len();
        self.growing.reserve(need.saturating_add(1).max(MIN_RESERVE));
        if self.count == 0 {
            self.growing.put_uint(CONTROL);
            self.growing.put_uint(BATCH);
            self.growing.put_uint(channel);
        } else if self.channel != channel {
            self.growing.put_uint(0);
            self.growing.put_uint(channel);
        }
        self.growing.put_uint(len as u64);
        if self.count == 0 {
            self.first = self.growing.len();
        }
        self.growing.put_uint(message_type);
        for part in payload {
            self.growing.put_bytes(part);
        }
        self.count = self.count.saturating_add(1);
        self.channel = channel;
        self.unsent = self.unsent.saturating_add(self.growing.len().saturating_sub(before));
    }

    pub(super) fn open(&mut self, sender: u64, protocol: &str, id: &[u8], handshake: &[u8]) {
        let mut head = Vec::with_capacity(16 + protocol.len() + id.len());
        head.put_uint(sender);
        head.put_string(protocol);
        head.put_buffer(id);
        self.push(CONTROL, OPEN, &[&head, handshake]);
    }

    pub(super) fn reject(&mut self, receiver: u64) {
        let mut body = Vec::with_capacity(9);
        body.put_uint(receiver);
        self.push(CONTROL, REJECT, &[&body]);
    }

    pub(super) fn close(&mut self, sender: u64) {
        let mut body = Vec::with_capacity(9);
        body.put_uint(sender);
        self.push(CONTROL, CLOSE, &[&body]);
    }

    pub(super) fn cork(&mut self) {
        self.corks = self.corks.saturating_add(1);
    }

    pub(super) fn uncork(&mut self) {
        self.corks = self.corks.saturating_sub(1);
    }

    pub(super) fn set_coalesce(&mut self, bytes: usize) {
        self.coalesce = bytes;
    }

    /// Bytes that wait to be taken.
    pub(super) fn unsent(&self) -> usize {
        self.unsent
    }

    /// The next plaintext. While corked, only what a full batch has pushed out.
    pub(super) fn poll(&mut self) -> Option<Bytes> {
        if self.finished.is_empty() && self.corks == 0 {
            self.finish();
        }
        let frame = self.finished.pop_front()?;
        self.unsent = self.unsent.saturating_sub(frame.len());
        Some(frame)
    }

    fn finish(&mut self) {
        let mut frame = self.growing.split();
        if self.count == 1 {
            // `00 00 <channel> <length> <type>…` becomes `<channel> <type>…`.
            let start = self.first.saturating_sub(uint_len(self.channel));
            let mut channel = Vec::with_capacity(9);
            channel.put_uint(self.channel);
            if let Some(front) = frame.get_mut(start..self.first) {
                front.copy_from_slice(&channel);
            }
            frame.advance(start);
            self.unsent = self.unsent.saturating_sub(start);
        }
        self.count = 0;
        if !frame.is_empty() {
            self.finished.push_back(frame.freeze());
        }
    }
}

fn message_len(message_type: u64, payload: &[&[u8]]) -> usize {
    payload.iter().fold(uint_len(message_type), |len, part| len.saturating_add(part.len()))
}
