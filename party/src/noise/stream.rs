//! The secret stream: messages in frames, each sealed by libsodium's `secretstream_xchacha20poly1305`.

use std::{collections::VecDeque, fmt};

use bytes::{Buf as _, Bytes, BytesMut};
use dryoc::classic::crypto_secretstream_xchacha20poly1305::{
    State, crypto_secretstream_xchacha20poly1305_init_pull, crypto_secretstream_xchacha20poly1305_pull,
    crypto_secretstream_xchacha20poly1305_push,
};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{
    frame::{self, MAX_FRAME, PREFIX},
    handshake_state::Split,
};
use crate::{
    buffers::Buffers,
    error::{ApiMisuse, Error, PeerMisbehaved},
    hash::{Hash, keyed_hash, namespace},
    limits::Limits,
    session::Session,
};

/// Bytes that sealing adds to a message, without the length of the frame.
pub const SEAL_OVERHEAD: usize = 17;

/// The longest message that can be sealed, in bytes.
pub const MAX_MESSAGE: usize = MAX_FRAME - SEAL_OVERHEAD;

const ID: usize = 32;
const HEADER: usize = 24;

/// The tag of an ordinary message, the only one that is sent. Whatever the remote's tags are, they are taken
/// as Node takes them: one that asks for new keys gets them, and none ends the stream.
const TAG_MESSAGE: u8 = 0;

/// Messages up to this length share a piece of memory with their neighbours. A longer one has its own, so
/// that keeping it keeps nothing else.
const SHARED: usize = 4 << 10;

/// How much memory messages share.
const ARENA: usize = 64 << 10;

/// How much memory of long messages is kept for the next ones, until the next keep-alive.
const KEPT: usize = 4 << 20;

/// An encrypted stream of messages between the two ends of a [`Session`].
///
/// | bytes from the transport | bytes to the transport | messages |
/// |---|---|---|
/// | [`handle_input`](Self::handle_input), [`handle_eof`](Self::handle_eof) | [`outgoing`](Self::outgoing) | [`seal`](Self::seal), [`keep_alive`](Self::keep_alive), [`poll_message`](Self::poll_message) |
///
/// Hand over what comes from the transport, then take messages until there is none. Write what stands in
/// `outgoing` whenever there is something; it begins with the header that the remote waits for. An error is
/// final: every later call returns it again.
pub struct SecretStream {
    session: Session,
    sealer: State,
    outgoing: BytesMut,
    opener: Opener,
    arena: BytesMut,
    buffers: Box<Buffers>,
    messages: VecDeque<Bytes>,
    keep_alives: u64,
    max_frame: usize,
    is_partial: bool,
}

/// What we open frames with.
enum Opener {
    /// The remote's header has not come yet.
    Waiting {
        rx: Zeroizing<[u8; 32]>,
    },
    Open(State),
    Failed(PeerMisbehaved),
}

impl SecretStream {
    /// The stream that follows a handshake which ended elsewhere, such as that of a DHT.
    ///
    /// `header` is fresh randomness. It is sent in the clear, and must not be used twice with the same keys.
    pub fn from_split(split: Split, header: [u8; 24], limits: &Limits) -> Self {
        Self::after(BytesMut::new(), split, &header, limits.max_frame)
    }

    /// The stream that follows what is still to be transmitted of a handshake.
    pub(super) fn after(
        mut outgoing: BytesMut,
        split: Split,
        header: &[u8; HEADER],
        max_frame: usize,
    ) -> Self {
        let Split { tx, rx, session } = split;
        frame::put_length(&mut outgoing, ID + HEADER);
        outgoing.extend_from_slice(&stream_id(&session.binding, session.is_initiator));
        outgoing.extend_from_slice(header);
        // To seal and to open start in the same way, if the header is a given.
        Self {
            session,
            sealer: start(header, &tx),
            outgoing,
            opener: Opener::Waiting { rx },
            arena: BytesMut::new(),
            buffers: Box::new(Buffers::new(KEPT)),
            messages: VecDeque::new(),
            keep_alives: 0,
            max_frame,
            is_partial: false,
        }
    }

    /// Who is at the two ends, and what binds proofs to this connection.
    //= OVER-2
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Opens the whole frames at the front of `input`, and leaves the bytes after them. A frame that is not
    /// all there costs nothing beyond what has come of it.
    ///
    /// # Errors
    /// [`PeerMisbehaved::WrongStreamHeader`], [`PeerMisbehaved::FrameLength`] or
    /// [`PeerMisbehaved::DecryptionFailed`]. The stream is unusable then. Messages that were opened before
    /// can still be taken.
    pub fn handle_input(&mut self, input: &mut BytesMut) -> Result<(), Error> {
        let result = self.open_frames(input);
        self.is_partial = !input.is_empty();
        if let Err(error) = &result {
            self.opener = Opener::Failed(error.clone());
        }
        result.map_err(Error::from)
    }

    //= STREAM-6, STREAM-11, STREAM-15, LIMIT-1
    fn open_frames(&mut self, input: &mut BytesMut) -> Result<(), PeerMisbehaved> {
        loop {
            match (&mut self.opener, frame::announced(input)) {
                (Opener::Failed(error), _) => return Err(error.clone()),
                (_, None) => return Ok(()),
                (Opener::Waiting { rx }, Some(length)) => {
                    //= protocol-spec/04-secret-stream.md#header
                    if length != ID + HEADER {
                        return Err(PeerMisbehaved::WrongStreamHeader);
                    }
                    let Some(header) = frame::take(input, length) else { return Ok(()) };
                    let state = check_header(&header, &self.session, rx)?;
                    self.opener = Opener::Open(state);
                }
                (Opener::Open(state), Some(length)) => {
                    //= protocol-spec/04-secret-stream.md#messages
                    if length < SEAL_OVERHEAD || length > self.max_frame {
                        return Err(PeerMisbehaved::FrameLength(length));
                    }
                    let Some(sealed) = input.get(PREFIX..PREFIX + length) else { return Ok(()) };
                    match open(state, sealed, &mut self.arena, &mut self.buffers)? {
                        Some(message) => self.messages.push_back(message),
                        None => self.keep_alives = self.keep_alives.saturating_add(1),
                    }
                    input.advance(PREFIX + length);
                }
            }
        }
    }

    /// The next message of the remote, in order. Empty ones are keep-alives; they are
    /// [counted](Self::keep_alives) and not returned.
    ///
    /// A short message shares up to 64 KiB of memory with its neighbours, which lives as long as any of them, and
    /// a slice of a message keeps all of it. Whoever keeps what a peer may choose to make small copies it.
    pub fn poll_message(&mut self) -> Option<Bytes> {
        self.messages.pop_front()
    }

    /// How many keep-alives have come.
    pub fn keep_alives(&self) -> u64 {
        self.keep_alives
    }

    /// Seals `message` into a frame of its own, at the end of [`outgoing`](Self::outgoing).
    ///
    /// # Errors
    /// [`ApiMisuse::MessageTooLarge`] above [`MAX_MESSAGE`]. Nothing is written then.
    //= STREAM-9, STREAM-10, STREAM-14
    pub fn seal(&mut self, message: &[u8]) -> Result<(), ApiMisuse> {
        let too_large = ApiMisuse::MessageTooLarge { len: message.len(), max: MAX_MESSAGE };
        if message.len() > MAX_MESSAGE {
            return Err(too_large);
        }
        let length = message.len() + SEAL_OVERHEAD;
        self.outgoing.reserve(PREFIX + length);
        frame::put_length(&mut self.outgoing, length);
        let start = self.outgoing.len();
        self.outgoing.resize(start + length, 0);
        let sealed = &mut self.outgoing[start..];
        crypto_secretstream_xchacha20poly1305_push(&mut self.sealer, sealed, message, None, TAG_MESSAGE)
            .map_err(|_| too_large)
    }

    /// Seals an empty message, which tells the remote that we are there and nothing else.
    //= STREAM-16
    pub fn keep_alive(&mut self) {
        // Whoever is silent needs no memory.
        self.buffers.clear();
        // Never too large.
        let _ = self.seal(&[]);
    }

    /// The bytes to write to the transport. Whoever writes them takes them off the front.
    pub fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    /// The transport has ended, and all that came from it went through [`handle_input`](Self::handle_input).
    /// `Ok` says that it ended between two frames. It doesn't prove that the remote meant it: frames have no
    /// last one.
    ///
    /// # Errors
    /// [`PeerMisbehaved::Truncated`] if it ended in the middle of a frame, or before the header; the error
    /// that the stream ended with, if it did before.
    //= STREAM-21
    pub fn handle_eof(&self) -> Result<(), PeerMisbehaved> {
        match &self.opener {
            Opener::Failed(error) => Err(error.clone()),
            Opener::Open(_) if !self.is_partial => Ok(()),
            Opener::Open(_) | Opener::Waiting { .. } => Err(PeerMisbehaved::Truncated),
        }
    }
}

impl fmt::Debug for SecretStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretStream")
            .field("session", &self.session)
            .field("outgoing", &self.outgoing.len())
            .field("messages", &self.messages.len())
            .finish_non_exhaustive()
    }
}

/// The id of the half of a stream that one role sends. An id that a peer reflects is not the one it must send.
fn stream_id(handshake_hash: &[u8; 64], is_initiator: bool) -> Hash {
    let role = if is_initiator { 0 } else { 1 };
    keyed_hash(handshake_hash, &[&namespace("hyperswarm/secret-stream", role)])
}

//= STREAM-7
fn check_header(frame: &[u8], session: &Session, rx: &[u8; 32]) -> Result<State, PeerMisbehaved> {
    let expected = stream_id(&session.binding, !session.is_initiator);
    let (id, header) = frame.split_first_chunk::<ID>().ok_or(PeerMisbehaved::WrongStreamHeader)?;
    let header = header.first_chunk().ok_or(PeerMisbehaved::WrongStreamHeader)?;
    //= protocol-spec/04-secret-stream.md#header
    if !bool::from(id.ct_eq(&expected)) {
        return Err(PeerMisbehaved::WrongStreamHeader);
    }
    Ok(start(header, rx))
}

fn start(header: &[u8; HEADER], key: &[u8; 32]) -> State {
    let mut state = State::new();
    crypto_secretstream_xchacha20poly1305_init_pull(&mut state, header, key);
    state
}

/// Opens one frame of at least [`SEAL_OVERHEAD`] bytes, on the way from `sealed` to where the message stays.
//= STREAM-12, STREAM-13
fn open(
    state: &mut State,
    sealed: &[u8],
    arena: &mut BytesMut,
    buffers: &mut Buffers,
) -> Result<Option<Bytes>, PeerMisbehaved> {
    let length = sealed.len().saturating_sub(SEAL_OVERHEAD);
    let mut message = if length > SHARED {
        let piece = buffers.zeroed(length);
        buffers.lend(piece)
    } else {
        if arena.capacity() < length {
            *arena = BytesMut::with_capacity(ARENA);
        }
        arena.resize(length, 0);
        arena.split()
    };
    //= protocol-spec/04-secret-stream.md#messages
    // Nothing is written to the message before its authenticator is verified.
    let mut tag = 0;
    crypto_secretstream_xchacha20poly1305_pull(state, &mut message, &mut tag, sealed, None)
        .map_err(|_| PeerMisbehaved::DecryptionFailed)?;
    Ok((length > 0).then(|| message.freeze()))
}
