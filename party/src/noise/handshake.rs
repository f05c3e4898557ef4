//! The handshake over a stream transport: Noise messages in frames, in any pieces.

use std::fmt;

use bytes::{Bytes, BytesMut};
use zeroize::Zeroizing;

use super::{
    frame,
    handshake_state::{HandshakeState, Pattern},
    stream::SecretStream,
};
use crate::{
    error::{ApiMisuse, Error, PeerMisbehaved},
    hash::keyed_hash,
    key::{KeyPair, PublicKey},
    limits::Limits,
};

/// What a handshake starts from.
#[derive(Clone, Debug)]
pub struct HandshakeConfig {
    /// Who knows whose static key.
    pub pattern: Pattern,
    /// Whether we speak first, that is, whether we dialled.
    pub is_initiator: bool,
    /// Our static key pair: a long-lived one, or one made for this connection.
    pub local: KeyPair,
    /// The static key that the remote must hold. The initiator of [`Pattern::Ik`] has to know it; with `None`
    /// all others take whoever comes.
    pub remote: Option<PublicKey>,
    /// What both ends must agree on without sending it; empty with Node's streams.
    pub prologue: Vec<u8>,
    /// Fresh randomness, for this handshake alone: the ephemeral key pair and the header of the stream come
    /// from it. Using it twice gives the traffic of both connections away.
    pub ephemeral_seed: Zeroizing<[u8; 32]>,
}

impl HandshakeConfig {
    /// [`Pattern::Xx`] with whoever is at the other end, as a Node stream does it if it isn't told otherwise.
    //= NOISE-1, NOISE-10
    pub fn xx(is_initiator: bool, local: KeyPair, ephemeral_seed: [u8; 32]) -> Self {
        Self {
            pattern: Pattern::Xx,
            is_initiator,
            local,
            remote: None,
            prologue: Vec::new(),
            ephemeral_seed: Zeroizing::new(ephemeral_seed),
        }
    }

    /// [`Pattern::Ik`], dialling the peer whose static key is `remote`.
    pub fn ik_initiator(local: KeyPair, remote: PublicKey, ephemeral_seed: [u8; 32]) -> Self {
        Self { pattern: Pattern::Ik, remote: Some(remote), ..Self::xx(true, local, ephemeral_seed) }
    }

    /// [`Pattern::Ik`], answering whoever dials and knows our static key.
    pub fn ik_responder(local: KeyPair, ephemeral_seed: [u8; 32]) -> Self {
        Self { pattern: Pattern::Ik, ..Self::xx(false, local, ephemeral_seed) }
    }
}

/// A handshake on its way.
///
/// After [`new`](Self::new) and after each [`handle_input`](Self::handle_input), write to the transport what
/// [`poll_transmit`](Self::poll_transmit) gives. When the transport ends before the handshake does, it was
/// [cut](PeerMisbehaved::Truncated). How long to wait for the remote is the caller's to know:
/// [`Limits::handshake_timeout`]. Payloads that a remote adds to its messages are passed over;
/// [`HandshakeState`] hands them out.
pub struct Handshake {
    state: HandshakeState,
    outgoing: BytesMut,
    header: [u8; 24],
    max_message: usize,
    max_frame: usize,
}

/// Where a [`Handshake`] stands.
#[derive(Debug)]
pub enum Progress {
    /// The remote's next message is not all there yet.
    Pending(Handshake),
    /// Both ends have proved their keys. What the handshake had still to transmit stands in
    /// [`SecretStream::outgoing`], before all else.
    Established(SecretStream),
}

impl Handshake {
    /// Starts a handshake. The initiator has something to transmit at once.
    ///
    /// # Errors
    /// [`ApiMisuse::BadKey`] if the remote's key is needed and missing, or none that can be used.
    pub fn new(config: HandshakeConfig, limits: &Limits) -> Result<Self, ApiMisuse> {
        let HandshakeConfig { pattern, is_initiator, local, remote, prologue, ephemeral_seed } = config;
        let header = stream_header(&ephemeral_seed);
        let state = HandshakeState::new(pattern, is_initiator, &local, remote, &prologue, ephemeral_seed)?;
        let mut outgoing = BytesMut::new();
        // The key was checked, so this can't fail.
        let state =
            if is_initiator { write(state, &mut outgoing).map_err(|_| ApiMisuse::BadKey)? } else { state };
        let (max_message, max_frame) = (limits.max_handshake_message, limits.max_frame);
        Ok(Self { state, outgoing, header, max_message, max_frame })
    }

    /// Takes what has come from the transport, split and joined anywhere. What `input` holds beyond the
    /// handshake stays in it, for [`SecretStream::handle_input`].
    ///
    /// # Errors
    /// [`PeerMisbehaved`], and the handshake is gone: close the transport, and send nothing more.
    //= NOISE-12, NOISE-14, NOISE-15, NOISE-16, LIMIT-2
    pub fn handle_input(mut self, input: &mut BytesMut) -> Result<Progress, Error> {
        while let Some(length) = frame::announced(input) {
            if length > self.max_message {
                return Err(PeerMisbehaved::FrameLength(length).into());
            }
            let Some(message) = frame::take(input, length) else { break };
            let (mut state, _payload) = self.state.read(&message)?;
            if state.is_my_turn() {
                state = write(state, &mut self.outgoing)?;
            }
            if state.is_finished() {
                let split = state.split()?;
                // Behind what is left to be sent of the handshake, and whether or not anything has come behind the remote's.
                //= STREAM-5
                let stream = SecretStream::after(self.outgoing, split, &self.header, self.max_frame);
                return Ok(Progress::Established(stream));
            }
            self.state = state;
        }
        Ok(Progress::Pending(self))
    }

    /// Bytes to write to the transport, if there are any.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        (!self.outgoing.is_empty()).then(|| self.outgoing.split().freeze())
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("state", &self.state).finish_non_exhaustive()
    }
}

//= NOISE-10, NOISE-11, STREAM-1
fn write(state: HandshakeState, outgoing: &mut BytesMut) -> Result<HandshakeState, Error> {
    let (state, message) = state.write(&[])?;
    frame::put_length(outgoing, message.len());
    outgoing.extend_from_slice(&message);
    Ok(state)
}

/// The 24 bytes that our half of the secret stream starts from. They are public and have to be different for
/// each key; a hash keyed with a secret seed tells nothing of the seed.
fn stream_header(ephemeral_seed: &[u8; 32]) -> [u8; 24] {
    let mut header = [0; 24];
    header.copy_from_slice(&keyed_hash(ephemeral_seed, &[b"secret stream header"])[..24]);
    header
}
