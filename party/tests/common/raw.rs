//! A peer that speaks Noise and Protomux by hand, and says on them what it likes.

use bytes::{Bytes, BytesMut};
use party::{
    key::KeyPair,
    limits::Limits,
    mux::{Event, Mux},
    noise::{Handshake, HandshakeConfig, Progress, SecretStream},
    session::Session,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

pub struct RawPeer {
    io: DuplexStream,
    input: BytesMut,
    pub stream: SecretStream,
    pub mux: Mux,
}

impl RawPeer {
    pub async fn dial(io: DuplexStream, key_pair: &KeyPair) -> Self {
        Self::connect(io, HandshakeConfig::xx(true, key_pair.clone(), [41; 32])).await
    }

    pub async fn accept(io: DuplexStream, key_pair: &KeyPair) -> Self {
        Self::connect(io, HandshakeConfig::xx(false, key_pair.clone(), [42; 32])).await
    }

    async fn connect(mut io: DuplexStream, config: HandshakeConfig) -> Self {
        let limits = Limits::default();
        let mut handshake = Handshake::new(config, &limits).unwrap();
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
        let mut peer = Self { io, input, stream, mux: Mux::new(&limits) };
        peer.write().await;
        peer
    }

    pub fn session(&self) -> &Session {
        self.stream.session()
    }

    /// Seals one message and sends it as it is, past the mux.
    pub async fn say(&mut self, message: &[u8]) {
        self.stream.seal(message).unwrap();
        self.write().await;
    }

    /// Sends what the mux has to say.
    pub async fn flush(&mut self) {
        while let Some(message) = self.mux.poll_transmit() {
            self.stream.seal(&message).unwrap();
        }
        self.write().await;
    }

    /// Bytes that are not even a frame.
    pub async fn say_raw(&mut self, bytes: &[u8]) {
        let _ = self.io.write_all(bytes).await;
    }

    async fn write(&mut self) {
        let bytes = self.stream.outgoing().split();
        // The victim may have hung up, which the reader will see.
        let _ = self.io.write_all(&bytes).await;
    }

    /// The next message, past the mux; `None` at the end of the stream.
    pub async fn hear(&mut self) -> Option<Bytes> {
        loop {
            self.stream.handle_input(&mut self.input).unwrap();
            if let Some(message) = self.stream.poll_message() {
                return Some(message);
            }
            match self.io.read_buf(&mut self.input).await {
                Ok(n) if n > 0 => {}
                _ => return None,
            }
        }
    }

    /// The next event of the mux; `None` at the end of the stream.
    pub async fn event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.mux.poll_event().unwrap() {
                return Some(event);
            }
            let message = self.hear().await?;
            self.mux.handle_message(message);
        }
    }

    /// Everything that the victim says until it hangs up, as messages.
    pub async fn hear_all(&mut self) -> Vec<Bytes> {
        let mut all = Vec::new();
        while let Some(message) = self.hear().await {
            all.push(message);
        }
        all
    }
}
