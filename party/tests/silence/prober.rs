//! A probe's end of a connection, which notes down all that it gets.

use std::time::Duration;

use bytes::BytesMut;
use party::{
    limits::Limits,
    noise::{Handshake, HandshakeConfig, Progress, SecretStream},
    session::Session,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time::{Instant, timeout},
};

use crate::common::identity;

/// So many bytes of the wire are kept for the distinguisher.
const KEPT: usize = 512;
/// How often the other end says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long a probe waits for the other end to hang up.
const LONGEST: Duration = Duration::from_secs(100);

/// All that a probe gets to see, with the time since it had carried out the handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Messages after decryption; an empty one is a keep-alive.
    pub(crate) messages: Vec<(Duration, Vec<u8>)>,
    /// What came of the transport at each moment, in bytes.
    pub(crate) pieces: Vec<(Duration, usize)>,
    /// When the other end hung up; `None` if it had not by the time that the probe went.
    pub(crate) hung_up: Option<Duration>,
    /// The beginning of what was on the wire.
    pub(crate) wire: Vec<u8>,
}

/// Messages, when the other end hung up, and the size of all that was on the wire.
pub(crate) type Events<'a> = (&'a [(Duration, Vec<u8>)], Option<Duration>, usize);

impl Seen {
    pub(crate) fn is_blank(&self) -> bool {
        self.messages.is_empty() && self.hung_up.is_none()
    }

    /// Passes over these bytes, which are different on each connection and known to the probe.
    pub(crate) fn mask(&mut self, value: &[u8]) {
        for (_, message) in &mut self.messages {
            if let Some(at) = message.windows(value.len()).position(|window| window == value) {
                message[at..at + value.len()].fill(0);
            }
        }
    }

    /// All but the bytes on the wire, which are different each time.
    pub(crate) fn events(&self) -> Events<'_> {
        (&self.messages, self.hung_up, self.pieces.iter().map(|(_, size)| size).sum())
    }
}

pub(crate) struct Prober {
    io: DuplexStream,
    input: BytesMut,
    stream: SecretStream,
    start: Instant,
    seen: Seen,
}

impl Prober {
    pub(crate) async fn dial(mut io: DuplexStream, seed: u64) -> Self {
        let mut ephemeral = [9; 32];
        ephemeral[..8].copy_from_slice(&seed.to_le_bytes());
        let config = HandshakeConfig::xx(true, identity(1), ephemeral);
        let mut handshake = Handshake::new(config, &Limits::default()).unwrap();
        let mut input = BytesMut::new();
        let stream = loop {
            if let Some(bytes) = handshake.poll_transmit() {
                io.write_all(&bytes).await.unwrap();
            }
            assert!(io.read_buf(&mut input).await.unwrap() > 0, "the victim hung up");
            match handshake.handle_input(&mut input).unwrap() {
                Progress::Pending(next) => handshake = next,
                Progress::Established(stream) => break stream,
            }
        };
        let mut prober = Self { io, input, stream, start: Instant::now(), seen: Seen::default() };
        prober.flush().await;
        prober
    }

    pub(crate) fn session(&self) -> &Session {
        self.stream.session()
    }

    pub(crate) async fn say(&mut self, message: &[u8]) {
        self.avoid_keep_alive().await;
        self.stream.seal(message).unwrap();
        self.flush().await;
    }

    pub(crate) async fn say_raw(&mut self, bytes: &[u8]) {
        self.avoid_keep_alive().await;
        let _ = self.io.write_all(bytes).await;
    }

    async fn avoid_keep_alive(&mut self) {
        // Not at the very moment of a keep-alive: which of the two the other end does first is up to its runtime.
        let quiet = self.start.elapsed().saturating_sub(self.last_heard());
        if !quiet.is_zero() && quiet.as_millis().is_multiple_of(KEEP_ALIVE.as_millis()) {
            self.listen(Duration::from_millis(1)).await;
        }
    }

    async fn flush(&mut self) {
        let bytes = self.stream.outgoing().split();
        // It may have hung up, which the reader will see.
        let _ = self.io.write_all(&bytes).await;
    }

    /// Notes down what comes for so long.
    pub(crate) async fn listen(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while self.seen.hung_up.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if timeout(left, self.read()).await.is_err() {
                return;
            }
        }
    }

    async fn read(&mut self) {
        let before = self.input.len();
        let read = self.io.read_buf(&mut self.input).await;
        let at = self.start.elapsed();
        if !matches!(read, Ok(1..)) {
            self.seen.hung_up = Some(at);
            return;
        }
        let fresh = &self.input[before..];
        match self.seen.pieces.last_mut() {
            // Whether it came in one piece is up to the runtime.
            Some((last, size)) if *last == at => *size += fresh.len(),
            _ => self.seen.pieces.push((at, fresh.len())),
        }
        let kept = fresh.len().min(KEPT - self.seen.wire.len());
        self.seen.wire.extend_from_slice(&fresh[..kept]);
        let keep_alives = self.stream.keep_alives();
        self.stream.handle_input(&mut self.input).unwrap();
        while let Some(message) = self.stream.poll_message() {
            self.seen.messages.push((at, message.to_vec()));
        }
        for _ in keep_alives..self.stream.keep_alives() {
            self.seen.messages.push((at, vec![]));
        }
    }

    /// Ends our half of the stream.
    pub(crate) async fn shut_down(&mut self) {
        self.avoid_keep_alive().await;
        let _ = self.io.shutdown().await;
    }

    /// Waits until the other end hangs up, and for some time after which it never will.
    pub(crate) async fn see_all(mut self) -> Seen {
        self.listen(LONGEST).await;
        self.seen
    }

    fn last_heard(&self) -> Duration {
        self.seen.pieces.last().map(|(at, _)| *at).unwrap_or_default()
    }

    /// The messages so far.
    pub(crate) fn heard(&self) -> usize {
        self.seen.messages.len()
    }
}
