//! The runner's end of a TCP connection: sometimes a good peer, sometimes one that says on Noise what it likes.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::{Bytes, BytesMut};
use party::{
    encoding::Reader,
    hash::hash,
    key::KeyPair,
    limits::Limits,
    mux::{ChannelId, CloseReason, Event, Mux},
    noise::{Handshake, HandshakeConfig, Progress, SecretStream},
    session::Session,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::shim::now;

/// A protocol that nobody knows: an open of it is always rejected.
pub(super) const UNKNOWN: &str = "conformance/unknown";

/// A TCP connection, below Noise.
pub(super) struct Raw {
    pub(super) io: TcpStream,
    pub(super) input: BytesMut,
    pub(super) patience: Duration,
    /// If not 0, what is written goes out in pieces of this many bytes.
    pub(super) piece: usize,
}

impl Raw {
    pub(super) fn new(io: TcpStream, patience: Duration) -> Self {
        // Small messages go out at once; where it can't be set, later.
        let _ = io.set_nodelay(true);
        Self { io, input: BytesMut::new(), patience, piece: 0 }
    }

    /// The shim may have hung up, which is seen when it is listened to.
    pub(super) async fn write(&mut self, bytes: &[u8]) {
        let deadline = now() + self.patience;
        let piece = if self.piece == 0 { bytes.len().max(1) } else { self.piece };
        for piece in bytes.chunks(piece) {
            let _ = timeout_at(deadline, self.io.write_all(piece)).await;
            tokio::task::yield_now().await;
        }
    }

    /// A frame of these bytes.
    pub(super) async fn frame(&mut self, body: &[u8]) {
        self.write(&frame(body)).await;
    }

    /// Reads more; `false` at the end of the stream.
    async fn fill(&mut self, deadline: Instant) -> Result<bool> {
        match timeout_at(deadline, self.io.read_buf(&mut self.input)).await {
            Ok(Ok(0) | Err(_)) => Ok(false),
            Ok(Ok(_)) => Ok(true),
            Err(_) => bail!("nothing comes from the shim"),
        }
    }

    /// The body of the next frame; `None` at the end of the stream.
    pub(super) async fn next_frame(&mut self) -> Result<Option<Bytes>> {
        let deadline = now() + self.patience;
        loop {
            if let Some(prefix) = self.input.first_chunk::<3>() {
                let length = u32::from_le_bytes([prefix[0], prefix[1], prefix[2], 0]) as usize;
                if self.input.len() >= 3 + length {
                    let _ = self.input.split_to(3);
                    return Ok(Some(self.input.split_to(length).freeze()));
                }
            }
            if !self.fill(deadline).await? {
                return Ok(None);
            }
        }
    }

    /// The stream ends, whatever else is said before. Gives how many bytes that was.
    pub(super) async fn ends(&mut self) -> Result<usize> {
        let deadline = now() + self.patience;
        loop {
            match self.fill(deadline).await {
                Ok(true) => {}
                Ok(false) => return Ok(self.input.len()),
                Err(_) => bail!("the shim doesn't end the connection"),
            }
        }
    }

    /// The stream has not ended, as far as can be seen now.
    pub(super) fn seems_alive(&mut self) -> bool {
        !matches!(self.io.try_read_buf(&mut self.input), Ok(0))
    }

    /// Carries the handshake out.
    pub(super) async fn shake_hands(mut self, is_initiator: bool, key_pair: &KeyPair) -> Result<Wire> {
        let limits = Limits::default();
        let config = HandshakeConfig::xx(is_initiator, key_pair.clone(), fresh());
        let mut handshake = Handshake::new(config, &limits)?;
        let deadline = now() + self.patience;
        loop {
            if let Some(bytes) = handshake.poll_transmit() {
                self.write(&bytes).await;
            }
            ensure!(self.fill(deadline).await?, "the shim ends the connection in the handshake");
            match handshake.handle_input(&mut self.input)? {
                Progress::Pending(next) => handshake = next,
                Progress::Established(stream) => return Ok(Wire::new(self, stream)),
            }
        }
    }
}

/// A connection after Noise. Either [`said`](Self::said) is used on it or [`event`](Self::event) and what rests on it, not both.
pub(super) struct Wire {
    pub(super) raw: Raw,
    pub(super) stream: SecretStream,
    pub(super) mux: Mux,
    backlog: VecDeque<Event>,
    words: VecDeque<Said>,
}

/// A message as it stands on the wire, out of its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// The sender's number of the channel; 0 is the control channel.
    pub(super) channel: u64,
    pub(super) kind: u64,
    pub(super) payload: Bytes,
}

impl Wire {
    fn new(raw: Raw, stream: SecretStream) -> Self {
        let mux = Mux::new(&Limits::default());
        Self { raw, stream, mux, backlog: VecDeque::new(), words: VecDeque::new() }
    }

    pub(super) fn session(&self) -> &Session {
        self.stream.session()
    }

    /// The bytes of a frame that says this, which counts as sent whether it is or not.
    pub(super) fn sealed(&mut self, message: &[u8]) -> Result<BytesMut> {
        self.stream.seal(message)?;
        Ok(self.stream.outgoing().split())
    }

    /// Seals one message and sends it, past the mux.
    pub(super) async fn say(&mut self, message: &[u8]) -> Result<()> {
        self.say_at_once(&[message]).await
    }

    /// Seals each of these and sends them in one write, past the mux: so that what comes of them doesn't depend on how the
    /// network cuts them up.
    pub(super) async fn say_at_once(&mut self, messages: &[impl AsRef<[u8]>]) -> Result<()> {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.extend_from_slice(&self.sealed(message.as_ref())?);
        }
        self.raw.write(&bytes).await;
        Ok(())
    }

    /// Sends what the mux has to say.
    pub(super) async fn flush(&mut self) -> Result<()> {
        while let Some(message) = self.mux.poll_transmit() {
            self.stream.seal(&message)?;
        }
        let bytes = self.stream.outgoing().split();
        self.raw.write(&bytes).await;
        Ok(())
    }

    /// The next plaintext; `None` at the end of the stream.
    pub(super) async fn hear(&mut self) -> Result<Option<Bytes>> {
        self.hear_until(now() + self.raw.patience).await
    }

    async fn hear_until(&mut self, deadline: Instant) -> Result<Option<Bytes>> {
        loop {
            self.stream.handle_input(&mut self.raw.input)?;
            if let Some(message) = self.stream.poll_message() {
                return Ok(Some(message));
            }
            if !self.raw.fill(deadline).await? {
                return Ok(None);
            }
        }
    }

    /// The next message out of its batch, past the mux; `None` at the end of the stream.
    pub(super) async fn said(&mut self) -> Result<Option<Said>> {
        while self.words.is_empty() {
            let Some(message) = self.hear().await? else { return Ok(None) };
            self.words.extend(unbatch(&message).context("the shim says what is no message")?);
        }
        Ok(self.words.pop_front())
    }

    /// Waits for a reject of the channel that we call `id`, and gives what is said before.
    pub(super) async fn rejected(&mut self, id: u64) -> Result<Vec<Said>> {
        let mut before = Vec::new();
        loop {
            let said = self.said().await?.ok_or_else(|| anyhow!("the shim ends the connection"))?;
            if (said.channel, said.kind) == (0, 2) && Reader::new(&said.payload).uint()? == id {
                return Ok(before);
            }
            before.push(said);
        }
    }

    /// Waits for a reject, before which nothing else may be said, and gives the number that we call the channel by.
    pub(super) async fn next_reject(&mut self) -> Result<u64> {
        let said = self.said().await?.ok_or_else(|| anyhow!("the shim ends the connection"))?;
        ensure!((said.channel, said.kind) == (0, 2), "instead of a reject there is {said:?}");
        Ok(Reader::new(&said.payload).uint()?)
    }

    /// The shim ends the connection.
    pub(super) async fn ends(&mut self) -> Result<()> {
        self.raw.ends().await.map(drop)
    }

    /// The shim ends the connection, and says nothing before.
    pub(super) async fn ends_silently(&mut self) -> Result<()> {
        match self.said().await? {
            None => Ok(()),
            Some(said) => bail!("the shim says {said:?}"),
        }
    }

    /// An open of what nobody knows, as a message of the control channel.
    pub(super) fn open_unknown(id: u64) -> Vec<u8> {
        open(id, UNKNOWN, &[], &[])
    }

    /// The next event of the mux; `None` at the end of the stream.
    async fn next_event(&mut self, deadline: Instant) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.mux.poll_event()? {
                return Ok(Some(event));
            }
            let Some(message) = self.hear_until(deadline).await? else { return Ok(None) };
            self.mux.handle_message(message);
        }
    }

    /// Waits for an event that `pick` takes; others are kept for later.
    pub(super) async fn until<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T> {
        self.flush().await?;
        for n in 0..self.backlog.len() {
            if let Some(found) = pick(&self.backlog[n]) {
                self.backlog.remove(n);
                return Ok(found);
            }
        }
        let deadline = now() + self.raw.patience;
        loop {
            let event = self.next_event(deadline).await.with_context(|| format!("waiting for {what}"))?;
            let event = event.ok_or_else(|| anyhow!("the shim ends the connection before {what}"))?;
            if let Some(found) = pick(&event) {
                return Ok(found);
            }
            self.backlog.push_back(event);
        }
    }

    /// All that has come is taken in: an unknown channel is opened, and is rejected.
    pub(super) async fn barrier(&mut self) -> Result<()> {
        let channel = self.mux.open(UNKNOWN, None, &[])?;
        self.until("a reject of an unknown protocol", |event| match event {
            Event::Closed { channel: closed, reason: CloseReason::Rejected } => {
                (*closed == channel).then_some(())
            }
            _ => None,
        })
        .await
    }

    /// Nothing has come that `pick` takes, as of a barrier.
    pub(super) async fn nothing(&mut self, what: &str, mut pick: impl FnMut(&Event) -> bool) -> Result<()> {
        self.barrier().await?;
        ensure!(!self.backlog.iter().any(&mut pick), "there is {what}");
        Ok(())
    }

    /// Waits until a channel is closed by the other side, and the connection lives.
    pub(super) async fn closed(&mut self, channel: ChannelId) -> Result<()> {
        self.until("the end of the channel", |event| match event {
            Event::Closed { channel: closed, .. } => (*closed == channel).then_some(()),
            _ => None,
        })
        .await?;
        self.barrier().await.context("the connection is to live on")
    }

    /// Opens a channel that must be rejected.
    pub(super) async fn is_rejected(
        &mut self,
        protocol: &str,
        id: Option<&[u8]>,
        handshake: &[u8],
    ) -> Result<()> {
        let channel = self.mux.open(protocol, id, handshake)?;
        let reason = self
            .until("the answer to an open", |event| match event {
                Event::Closed { channel: closed, reason } => (*closed == channel).then_some(Some(*reason)),
                Event::Opened { channel: opened, .. } => (*opened == channel).then_some(None),
                _ => None,
            })
            .await?;
        ensure!(reason == Some(CloseReason::Rejected), "the open is not rejected: {reason:?}");
        Ok(())
    }

    /// Opens a channel that must be answered, and gives what comes with the answer.
    pub(super) async fn is_answered(
        &mut self,
        protocol: &str,
        id: Option<&[u8]>,
        handshake: &[u8],
    ) -> Result<(ChannelId, Bytes)> {
        let channel = self.mux.open(protocol, id, handshake)?;
        self.answered(channel).await
    }

    /// Waits for the answer to an open of ours.
    pub(super) async fn answered(&mut self, channel: ChannelId) -> Result<(ChannelId, Bytes)> {
        let answer = self
            .until("the answer to an open", |event| match event {
                Event::Closed { channel: closed, .. } => (*closed == channel).then_some(None),
                Event::Opened { channel: opened, handshake } => {
                    (*opened == channel).then(|| Some(handshake.clone()))
                }
                _ => None,
            })
            .await?;
        answer.map(|handshake| (channel, handshake)).ok_or_else(|| anyhow!("the open is rejected"))
    }

    /// Sends a message on a channel.
    pub(super) async fn send(&mut self, channel: ChannelId, kind: u64, payload: &[u8]) -> Result<()> {
        self.mux.send(channel, kind, payload)?;
        self.flush().await
    }

    /// Waits for a message on a channel that `pick` takes.
    pub(super) async fn message<T>(
        &mut self,
        what: &str,
        channel: ChannelId,
        mut pick: impl FnMut(u64, &Bytes) -> Option<T>,
    ) -> Result<T> {
        let found = self
            .until(what, |event| match event {
                Event::Message { channel: from, message_type, payload } if *from == channel => {
                    pick(*message_type, payload).map(Some)
                }
                Event::Closed { channel: closed, .. } => (*closed == channel).then_some(None),
                _ => None,
            })
            .await?;
        found.ok_or_else(|| anyhow!("the shim closes the channel before {what}"))
    }
}

/// A frame of these bytes, whatever they are.
pub(super) fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&length[..3], body].concat()
}

/// Splits a plaintext into its messages.
fn unbatch(message: &Bytes) -> Result<Vec<Said>> {
    let mut reader = Reader::new(message);
    if reader.is_empty() {
        return Ok(Vec::new());
    }
    let (channel, kind) = (reader.uint()?, reader.uint()?);
    if (channel, kind) != (0, 0) {
        return Ok(vec![Said { channel, kind, payload: message.slice_ref(reader.rest()) }]);
    }
    let mut all = Vec::new();
    let mut channel = reader.uint()?;
    while !reader.is_empty() {
        match reader.uint()? {
            0 => channel = reader.uint()?,
            length => {
                let mut item = Reader::new(reader.bytes(usize::try_from(length)?)?);
                let kind = item.uint()?;
                all.push(Said { channel, kind, payload: message.slice_ref(item.rest()) });
            }
        }
    }
    Ok(all)
}

/// A seed that no other connection of this process has.
pub(super) fn fresh() -> [u8; 32] {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    hash(&[b"conformance", &NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes()])
}

/// A uint, in its shortest form.
pub(super) fn uint(value: u64) -> Vec<u8> {
    match value {
        0..=0xfc => vec![value as u8],
        0xfd..=0xffff => [&[0xfd], &(value as u16).to_le_bytes()[..]].concat(),
        0x1_0000..=0xffff_ffff => [&[0xfe], &(value as u32).to_le_bytes()[..]].concat(),
        _ => [&[0xff], &value.to_le_bytes()[..]].concat(),
    }
}

/// An open as a message of the control channel.
pub(super) fn open(id: u64, protocol: &str, channel_id: &[u8], handshake: &[u8]) -> Vec<u8> {
    let lengths = (uint(protocol.len() as u64), uint(channel_id.len() as u64));
    [&[0, 1], &uint(id)[..], &lengths.0, protocol.as_bytes(), &lengths.1, channel_id, handshake].concat()
}

/// A batch of items, each with its channel.
pub(super) fn batch(items: &[(u64, &[u8])]) -> Vec<u8> {
    let mut out = vec![0, 0];
    let mut current = None;
    for (channel, item) in items {
        match current {
            None => out.extend(uint(*channel)),
            Some(current) if current == *channel => {}
            Some(_) => out.extend([&[0], &uint(*channel)[..]].concat()),
        }
        current = Some(*channel);
        out.extend(uint(item.len() as u64));
        out.extend_from_slice(item);
    }
    out
}
