//! Protomux: many channels over one stream of messages.
//!
//! A channel is opened with a protocol name, an optional id and a handshake. It is *paired* once both sides have
//! opened one with the same name and id; it does not matter who was first. A side that has no use for what the
//! other opened rejects it. The layout and the rules are those of the npm package `protomux`; see
//! `protocol-spec/05-channels.md`.
//!
//! [`Mux`] does no IO: it is handed the plaintexts of the [secret stream](crate::noise) and gives plaintexts
//! back.

mod event;
mod frame;
mod table;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    error::{ApiMisuse, Error, PeerMisbehaved},
    limits::Limits,
};
pub use event::{ChannelId, CloseReason, Event, Incoming};
use frame::{CONTROL, Control, Inbox, Outbox, take_uint};
use table::{Key, Local, Locals, Pairings, Remote, Remotes, Waiting, early_cost};

/// How large a batch of messages grows, in bytes, that were not corked but sent between two calls of
/// [`Mux::poll_transmit`]. See [`Mux::set_coalescing`].
pub const DEFAULT_COALESCING: usize = 64 << 10;

/// One end of a multiplexed stream.
///
/// # Calls
/// *What comes in:* [`handle_message`](Self::handle_message) with each plaintext, then
/// [`poll_event`](Self::poll_event) until it gives none. While [`paused`](Self::paused), neither.
///
/// *What the program wants:* [`open`](Self::open), [`accept`](Self::accept), [`reject`](Self::reject),
/// [`send`](Self::send), [`close`](Self::close), between any two of the other calls.
///
/// *What goes out:* [`poll_transmit`](Self::poll_transmit) until it gives none, after any of the above. What is
/// sent between two rounds of it goes into as few plaintexts as possible, in the order in which it was sent.
///
/// When the stream ends, all channels have ended; nothing is told about each of them.
///
/// ```
/// use party::{limits::Limits, mux::{Event, Mux}};
///
/// let (mut alice, mut bob) = (Mux::new(&Limits::default()), Mux::new(&Limits::default()));
/// let hers = alice.open("example/1", None, b"hello")?;
/// alice.send(hers, 0, b"early bird")?;
/// while let Some(message) = alice.poll_transmit() {
///     bob.handle_message(message);
/// }
///
/// let Some(Event::Incoming { incoming, protocol, handshake, .. }) = bob.poll_event()? else { panic!() };
/// assert_eq!((protocol.as_str(), &handshake[..]), ("example/1", &b"hello"[..]));
/// let his = bob.accept(incoming, b"welcome")?.expect("nobody else has answered it");
/// let Some(Event::Message { channel, payload, .. }) = bob.poll_event()? else { panic!() };
/// assert_eq!((channel, &payload[..]), (his, &b"early bird"[..]));
///
/// while let Some(message) = bob.poll_transmit() {
///     alice.handle_message(message);
/// }
/// assert!(matches!(alice.poll_event()?, Some(Event::Opened { channel, .. }) if channel == hers));
/// # Ok::<(), party::error::Error>(())
/// ```
pub struct Mux {
    limits: Limits,
    inbox: Inbox,
    outbox: Outbox,
    locals: Locals,
    remotes: Remotes,
    pairings: Pairings,
    waiting: BTreeMap<u64, Waiting>,
    /// How many opens have ever waited, which numbers them.
    incoming: u64,
    early_bytes: usize,
    aliases: BTreeMap<String, Arc<str>>,
    /// Events that a call of the program's has given rise to. They come before those of the inbox.
    ready: VecDeque<Event>,
    failed: Option<Error>,
}

impl Mux {
    /// A stream on which nothing has happened.
    pub fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            inbox: Inbox::default(),
            outbox: Outbox::new(limits.max_frame, DEFAULT_COALESCING),
            locals: Locals::default(),
            remotes: Remotes::new(limits.max_channels),
            pairings: Pairings::default(),
            waiting: BTreeMap::new(),
            incoming: 0,
            early_bytes: 0,
            aliases: BTreeMap::new(),
            ready: VecDeque::new(),
            failed: None,
        }
    }

    /// From now on opens of any of the aliases, by us or by the remote, are opens of `protocol`. It is the
    /// protocol's own name that we send. To be called before the first open.
    //= MUX-23
    pub fn set_aliases(&mut self, protocol: &str, aliases: &[&str]) {
        let canonical: Arc<str> = protocol.into();
        for alias in aliases {
            self.aliases.insert((*alias).to_owned(), Arc::clone(&canonical));
        }
    }

    /// Sets how large a batch of messages grows, in bytes, that were sent between two calls of
    /// [`poll_transmit`](Self::poll_transmit). With 0 each message travels alone, unless it is
    /// [corked](Self::cork). At first it is [`DEFAULT_COALESCING`].
    ///
    /// Batches cost less to seal and to open, but a Node peer answers the messages of one batch all at once.
    pub fn set_coalescing(&mut self, bytes: usize) {
        self.outbox.set_coalesce(bytes);
    }

    // What the program wants.

    /// Opens a channel. If the remote has opened one with this protocol and id that still waits for our answer,
    /// the two are paired at once: [`Event::Opened`] follows, and its [`Incoming`] is answered. Otherwise
    /// [`Event::Opened`] or [`Event::Closed`] comes with the remote's answer.
    ///
    /// Messages can be sent at once; if the remote rejects the channel they are lost. A protocol and id can be
    /// open more than once.
    ///
    /// # Errors
    /// [`ApiMisuse::LimitExceeded`] if the name or the id is longer than [`Limits::max_channel_name`], or if
    /// [`Limits::max_channels`] are in use; [`ApiMisuse::MessageTooLarge`] if the handshake is longer than
    /// [`Limits::max_channel_handshake`].
    //= MUX-24
    pub fn open(
        &mut self,
        protocol: &str,
        id: Option<&[u8]>,
        handshake: &[u8],
    ) -> Result<ChannelId, ApiMisuse> {
        let id = id.unwrap_or_default();
        if protocol.len().max(id.len()) > self.limits.max_channel_name {
            return Err(ApiMisuse::LimitExceeded("max_channel_name"));
        }
        self.check_handshake(handshake)?;
        let key = Key { protocol: self.canonical(protocol), id: Bytes::copy_from_slice(id) };

        if let Some(number) = self.pairings.oldest_theirs(&key)
            && let Some(waiting) = self.take_waiting(number)
        {
            return Ok(self.answer(waiting, handshake, true));
        }
        if self.channels() >= self.max_channels() {
            return Err(ApiMisuse::LimitExceeded("max_channels"));
        }
        let opening = key.clone();
        let channel = self.locals.insert(|serial| Local::Opening { serial, key: opening });
        self.outbox.open(channel.id(), &key.protocol, &key.id, handshake);
        self.pairings.push_ours(key, channel.slot);
        Ok(channel)
    }

    /// Opens our end of what the remote has opened. What it has sent on it since comes as events now, and if it
    /// has closed it meanwhile, [`Event::Closed`] after that.
    ///
    /// `None` if it was answered before, by whichever call.
    ///
    /// # Errors
    /// [`ApiMisuse::MessageTooLarge`] if the handshake is longer than [`Limits::max_channel_handshake`]. It
    /// still waits then.
    pub fn accept(&mut self, incoming: Incoming, handshake: &[u8]) -> Result<Option<ChannelId>, ApiMisuse> {
        self.check_handshake(handshake)?;
        let waiting = self.take_waiting(incoming.0);
        Ok(waiting.map(|waiting| self.answer(waiting, handshake, false)))
    }

    /// Refuses what the remote has opened. What it has sent on it is dropped. If it was answered before, this
    /// does nothing.
    pub fn reject(&mut self, incoming: Incoming) {
        if let Some(waiting) = self.take_waiting(incoming.0) {
            self.remotes.release(waiting.remote);
            self.outbox.reject(waiting.remote);
        }
    }

    /// Sends a message on a channel, paired or not yet. `false` if the channel is closed: nothing is sent.
    ///
    /// There is no bound on what can be queued; see [`unsent_bytes`](Self::unsent_bytes).
    ///
    /// # Errors
    /// [`ApiMisuse::MessageTooLarge`] if it does not fit into a frame of [`Limits::max_frame`] bytes,
    /// [`ApiMisuse::LimitExceeded`] if the number of the type is above 2^53 - 1.
    //= MUX-2
    pub fn send(&mut self, channel: ChannelId, message_type: u64, payload: &[u8]) -> Result<bool, ApiMisuse> {
        self.send_parts(channel, message_type, &[payload])
    }

    /// As [`send`](Self::send), with a payload that lies in several places. Each part is copied once, to where
    /// it is sealed from.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_parts(
        &mut self,
        channel: ChannelId,
        message_type: u64,
        payload: &[&[u8]],
    ) -> Result<bool, ApiMisuse> {
        if message_type > crate::encoding::MAX_SAFE_INTEGER {
            return Err(ApiMisuse::LimitExceeded("2^53 - 1 for a message type"));
        }
        self.outbox.check(channel.id(), message_type, payload)?;
        if !self.is_open(channel) {
            return Ok(false);
        }
        self.outbox.push(channel.id(), message_type, payload);
        Ok(true)
    }

    /// Closes a channel, after what was sent on it. No event of it comes any more. If it is closed already, this
    /// does nothing.
    //= MUX-33, MUX-38
    pub fn close(&mut self, channel: ChannelId) {
        // There may be some of a channel that is closed already, which the remote has closed before we accepted it.
        self.ready.retain(|event| event.channel() != Some(channel));
        match self.live(channel) {
            Some(Local::Opening { key, .. }) => {
                let key = key.clone();
                self.locals.set(channel.slot, Local::Leaving { key });
            }
            Some(Local::Open { remote, .. }) => {
                let remote = *remote;
                self.release(channel, remote);
            }
            _ => return,
        }
        self.outbox.close(channel.id());
    }

    /// Holds back what is sent until [`uncork`](Self::uncork) was called as often as this, so that it travels
    /// in one batch. What is more than 8 MiB is split and not held back.
    pub fn cork(&mut self) {
        self.outbox.cork();
    }

    /// Undoes one [`cork`](Self::cork).
    pub fn uncork(&mut self) {
        self.outbox.uncork();
    }

    // What comes in.

    /// Takes one plaintext of the secret stream. What is in it comes from [`poll_event`](Self::poll_event), and
    /// nothing of it has any effect before that; so what is handed in here should be polled before more is.
    pub fn handle_message(&mut self, message: Bytes) {
        if self.failed.is_none() {
            self.inbox.push(message);
        }
    }

    /// What has happened next, `None` if nothing has. An event is made when it is asked for, so what the program
    /// does between two calls is done between the two messages of the remote's.
    ///
    /// # Errors
    /// [`Error::Decode`] or [`Error::PeerMisbehaved`] if the remote broke the protocol. The stream is to be
    /// ended then; every later call gives the same error.
    pub fn poll_event(&mut self) -> Result<Option<Event>, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.next_event().inspect_err(|error| {
            self.failed = Some(error.clone());
            self.inbox.clear();
            self.ready.clear();
        })
    }

    /// Whether so much waits for the program to answer opens that no more should be read or polled before it
    /// has: half of [`Limits::max_incoming_opens`] or of [`Limits::max_early_bytes`]. Who goes on gets an error
    /// at the whole of either.
    //= MUX-30, LIMIT-8
    pub fn paused(&self) -> bool {
        self.waiting.len() > self.limits.max_incoming_opens / 2
            || self.early_bytes > self.limits.max_early_bytes / 2
    }

    // What goes out.

    /// The next plaintext to seal, at most [`Limits::max_frame`] - 17 bytes.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.outbox.poll()
    }

    /// Bytes that wait for [`poll_transmit`](Self::poll_transmit). The remote can make it grow, by opens that
    /// are rejected; so a driver reads no more while its socket takes nothing.
    pub fn unsent_bytes(&self) -> usize {
        self.outbox.unsent()
    }

    // What is.

    /// Whether a channel can be sent on: it is not closed, but maybe not paired yet.
    pub fn is_open(&self, channel: ChannelId) -> bool {
        self.live(channel).is_some()
    }

    /// Channels that count towards [`Limits::max_channels`]: open, being opened by either side, or closed before
    /// the remote has answered.
    pub fn channels(&self) -> usize {
        self.locals.in_use().saturating_add(self.waiting.len())
    }

    fn max_channels(&self) -> usize {
        self.limits.max_channels.min(u32::MAX as usize)
    }

    //= MUX-22
    fn canonical(&self, protocol: &str) -> Arc<str> {
        self.aliases.get(protocol).map_or_else(|| protocol.into(), Arc::clone)
    }

    fn check_handshake(&self, handshake: &[u8]) -> Result<(), ApiMisuse> {
        let (len, max) = (handshake.len(), self.limits.max_channel_handshake);
        if len > max { Err(ApiMisuse::MessageTooLarge { len, max }) } else { Ok(()) }
    }

    /// The slot of a channel, unless the channel is closed.
    fn live(&self, channel: ChannelId) -> Option<&Local> {
        (self.locals.channel(channel.slot) == Some(channel)).then(|| self.locals.get(channel.slot))
    }

    /// Frees both ids of a paired channel.
    //= MUX-37
    fn release(&mut self, channel: ChannelId, remote: u64) {
        self.remotes.release(remote);
        self.locals.release(channel.slot);
    }

    /// Takes a waiting open, which is the oldest of its key as no other was ever told, and tells the next.
    fn take_waiting(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        let cost = waiting.early.iter().map(|(_, payload)| early_cost(payload)).sum();
        self.early_bytes = self.early_bytes.saturating_sub(cost);
        if let Some(next) = self.pairings.pop_theirs(&waiting.key) {
            let event = self.waiting.get(&next).map(|waiting| incoming_event(next, waiting));
            self.ready.extend(event);
        }
        Some(waiting)
    }

    fn answer(&mut self, waiting: Waiting, handshake: &[u8], tell: bool) -> ChannelId {
        let remote = waiting.remote;
        let channel = self.locals.insert(|serial| Local::Open { serial, remote });
        self.remotes.insert(remote, Remote::Paired(channel));
        self.outbox.open(channel.id(), &waiting.key.protocol, &waiting.key.id, handshake);
        if tell {
            self.ready.push_back(Event::Opened { channel, handshake: waiting.handshake });
        }
        for (message_type, payload) in waiting.early {
            self.ready.push_back(Event::Message { channel, message_type, payload });
        }
        //= protocol-spec/05-channels.md#closing
        if waiting.closed {
            self.release(channel, remote);
            self.ready.push_back(Event::Closed { channel, reason: CloseReason::Remote });
        }
        channel
    }

    fn next_event(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some((sender, message)) = self.inbox.next()? else { return Ok(None) };
            let event = match sender {
                CONTROL => self.handle_control(&message)?,
                _ => self.handle_channel_message(sender, message)?,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    //= MUX-35
    fn handle_channel_message(&mut self, sender: u64, mut message: Bytes) -> Result<Option<Event>, Error> {
        let message_type = take_uint(&mut message)?;
        match self.remotes.get(sender) {
            Some(Remote::Paired(channel)) => {
                Ok(Some(Event::Message { channel, message_type, payload: message }))
            }
            Some(Remote::Waiting(number)) => {
                self.keep_early(number, message_type, &message)?;
                Ok(None)
            }
            //= protocol-spec/05-channels.md#messages
            // Sent before the remote knew that we had closed.
            None => Ok(None),
        }
    }

    //= MUX-29, MUX-31, LIMIT-10
    fn keep_early(&mut self, number: u64, message_type: u64, payload: &Bytes) -> Result<(), Error> {
        let Some(waiting) = self.waiting.get_mut(&number).filter(|waiting| !waiting.closed) else {
            return Ok(());
        };
        self.early_bytes = self.early_bytes.saturating_add(early_cost(payload));
        if self.early_bytes > self.limits.max_early_bytes {
            return Err(PeerMisbehaved::LimitExceeded("max_early_bytes").into());
        }
        // A copy, as a slice would keep the whole frame.
        waiting.early.push((message_type, Bytes::copy_from_slice(payload)));
        Ok(())
    }

    fn handle_control(&mut self, message: &Bytes) -> Result<Option<Event>, Error> {
        match Control::decode(message)? {
            Control::Open { sender, protocol, id, handshake } => {
                let id = id.unwrap_or_default();
                self.handle_open(sender, protocol, id, &message.slice_ref(handshake))
            }
            Control::Reject { receiver } => self.handle_reject(receiver),
            Control::Close { sender } => Ok(self.handle_close(sender)),
            Control::Unknown => Ok(None),
        }
    }

    //= MUX-13, MUX-17, MUX-20, LIMIT-7, LIMIT-9, LIMIT-11, LIMIT-12
    fn handle_open(
        &mut self,
        sender: u64,
        protocol: &str,
        id: &[u8],
        handshake: &Bytes,
    ) -> Result<Option<Event>, Error> {
        //= protocol-spec/05-channels.md#opening-and-pairing
        self.remotes.announce(sender)?;
        if protocol.len().max(id.len()) > self.limits.max_channel_name {
            return Err(PeerMisbehaved::LimitExceeded("max_channel_name").into());
        }
        if handshake.len() > self.limits.max_channel_handshake {
            return Err(PeerMisbehaved::LimitExceeded("max_channel_handshake").into());
        }
        let key = Key { protocol: self.canonical(protocol), id: Bytes::copy_from_slice(id) };

        //= protocol-spec/05-channels.md#opening-and-pairing
        if let Some(slot) = self.pairings.pop_ours(&key) {
            return Ok(self.pair(slot, sender, handshake));
        }
        if self.waiting.len() >= self.limits.max_incoming_opens {
            return Err(PeerMisbehaved::LimitExceeded("max_incoming_opens").into());
        }
        if self.channels() >= self.max_channels() {
            return Err(PeerMisbehaved::LimitExceeded("max_channels").into());
        }
        let number = self.incoming;
        self.incoming = self.incoming.wrapping_add(1);
        self.remotes.insert(sender, Remote::Waiting(number));
        let waiting = Waiting {
            remote: sender,
            key: key.clone(),
            handshake: Bytes::copy_from_slice(handshake),
            early: Vec::new(),
            closed: false,
        };
        let event = self.pairings.push_theirs(key, number).then(|| incoming_event(number, &waiting));
        self.waiting.insert(number, waiting);
        Ok(event)
    }

    /// The remote's open meets one of ours.
    //= MUX-14, MUX-15, MUX-16
    fn pair(&mut self, slot: u32, remote: u64, handshake: &Bytes) -> Option<Event> {
        let Some(channel) = self.locals.channel(slot) else {
            //= protocol-spec/05-channels.md#opening-and-pairing
            // We have closed it meanwhile. The remote's open tells us that our id is free, and needs no
            // reject: that would end a Node peer, for which the two are paired. But if it opened after our
            // close had come, a Node peer has passed over the close, so we say it again; to a peer which
            // has not, it is the close of an unknown id.
            self.locals.release(slot);
            self.outbox.close(u64::from(slot) + 1);
            return None;
        };
        let serial = channel.serial;
        self.locals.set(slot, Local::Open { serial, remote });
        self.remotes.insert(remote, Remote::Paired(channel));
        Some(Event::Opened { channel, handshake: handshake.clone() })
    }

    //= MUX-36
    fn handle_reject(&mut self, receiver: u64) -> Result<Option<Event>, Error> {
        let slot = receiver.checked_sub(1).and_then(|slot| u32::try_from(slot).ok());
        let slot = slot.ok_or(PeerMisbehaved::UnknownReject)?;
        //= protocol-spec/05-channels.md#closing
        let (Local::Opening { key, .. } | Local::Leaving { key }) = self.locals.get(slot) else {
            return Err(PeerMisbehaved::UnknownReject.into());
        };
        let (key, channel) = (key.clone(), self.locals.channel(slot));
        self.pairings.remove_ours(&key, slot);
        self.locals.release(slot);
        Ok(channel.map(|channel| Event::Closed { channel, reason: CloseReason::Rejected }))
    }

    //= MUX-32, MUX-34, MUX-39
    fn handle_close(&mut self, sender: u64) -> Option<Event> {
        match self.remotes.get(sender)? {
            Remote::Paired(channel) => {
                self.release(channel, sender);
                Some(Event::Closed { channel, reason: CloseReason::Remote })
            }
            Remote::Waiting(number) => {
                let waiting = self.waiting.get_mut(&number)?;
                waiting.closed = true;
                None
            }
        }
    }
}

impl fmt::Debug for Mux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mux")
            .field("channels", &self.locals.in_use())
            .field("incoming_opens", &self.waiting.len())
            .field("early_bytes", &self.early_bytes)
            .field("unsent_bytes", &self.unsent_bytes())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

fn incoming_event(number: u64, waiting: &Waiting) -> Event {
    Event::Incoming {
        incoming: Incoming(number),
        protocol: waiting.key.protocol.as_ref().to_owned(),
        id: (!waiting.key.id.is_empty()).then(|| waiting.key.id.clone()),
        handshake: waiting.handshake.clone(),
    }
}
