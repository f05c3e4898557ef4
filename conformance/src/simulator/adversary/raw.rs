//! A connection without anybody who keeps to the protocol.

use anyhow::{Result, bail};
use bytes::{Bytes, BytesMut};
use party::{
    key::KeyPair,
    limits::Limits,
    mux::{Event, Mux},
    noise::{Handshake, HandshakeConfig, Progress, SecretStream},
    session::Session,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::simulator::network::Stream;

/// A secret stream with a mux on top, to be used as one likes.
pub(super) struct Raw {
    io: Stream,
    secret: SecretStream,
    input: BytesMut,
    pub(super) mux: Mux,
}

impl Raw {
    /// Carries out the handshake.
    pub(super) async fn connect(
        mut io: Stream,
        dialled: bool,
        key_pair: &KeyPair,
        seed: [u8; 32],
    ) -> Result<Self> {
        let limits = Limits::default();
        let config = HandshakeConfig::xx(dialled, key_pair.clone(), seed);
        let mut handshake = Handshake::new(config, &limits)?;
        let mut input = BytesMut::new();
        let secret = loop {
            if let Some(bytes) = handshake.poll_transmit() {
                io.write_all(&bytes).await?;
            }
            read(&mut io, &mut input).await?;
            match handshake.handle_input(&mut input)? {
                Progress::Pending(next) => handshake = next,
                Progress::Established(secret) => break secret,
            }
        };
        let mut raw = Self { io, secret, input, mux: Mux::new(&limits) };
        raw.flush().await?;
        Ok(raw)
    }

    pub(super) fn session(&self) -> &Session {
        self.secret.session()
    }

    /// The next message.
    pub(super) async fn message(&mut self) -> Result<Bytes> {
        loop {
            self.secret.handle_input(&mut self.input)?;
            if let Some(message) = self.secret.poll_message() {
                return Ok(message);
            }
            read(&mut self.io, &mut self.input).await?;
        }
    }

    /// The next event of the mux, after what waits there is sent.
    pub(super) async fn event(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.mux.poll_event()? {
                return Ok(event);
            }
            self.flush().await?;
            let message = self.message().await?;
            self.mux.handle_message(message);
        }
    }

    /// Sends what the mux has.
    pub(super) async fn flush(&mut self) -> Result<()> {
        while let Some(message) = self.mux.poll_transmit() {
            self.secret.seal(&message)?;
        }
        let bytes = self.secret.outgoing().split();
        Ok(self.io.write_all(&bytes).await?)
    }

    /// Sends a message, whatever it is.
    pub(super) async fn seal(&mut self, message: &[u8]) -> Result<()> {
        self.secret.seal(message)?;
        self.flush().await
    }

    /// Sends bytes that nobody has sealed.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.io.write_all(bytes).await?)
    }
}

async fn read(io: &mut Stream, input: &mut BytesMut) -> Result<()> {
    input.reserve(16 << 10);
    if io.read_buf(input).await? == 0 {
        bail!("the victim has hung up");
    }
    Ok(())
}
