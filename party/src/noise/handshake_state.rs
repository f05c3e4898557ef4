//! The Noise handshake, message by message, without a frame around it.

use std::fmt;

use snow::params::{
    BaseChoice, CipherChoice, DHChoice, HandshakeChoice, HandshakeModifierList, HandshakePattern, HashChoice,
    NoiseParams,
};
use zeroize::Zeroizing;

use super::resolver::{Resolver, TAG, prime_order_point};
use crate::{
    error::{ApiMisuse, Error, PeerMisbehaved},
    key::{KeyPair, PublicKey},
    session::Session,
};

/// The longest message that Noise has.
const MAX_NOISE_MESSAGE: usize = 65_535;

/// The most that a message of XX or IK holds beside its payload: two keys, and two tags.
const MAX_TOKENS: usize = 2 * 32 + 2 * TAG;

/// Who knows whose static key when a handshake starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// Neither knows the other's. Three messages; the responder shows its static key first, to whoever dials.
    Xx,
    /// The initiator knows the responder's. Two messages, and whoever watches learns neither key.
    Ik,
}

impl Pattern {
    /// The name that both ends hash first of all. An end with another name fails to decrypt.
    pub fn protocol_name(self) -> &'static str {
        match self {
            Self::Xx => "Noise_XX_Ed25519_ChaChaPoly_BLAKE2b",
            Self::Ik => "Noise_IK_Ed25519_ChaChaPoly_BLAKE2b",
        }
    }

    fn params(self) -> NoiseParams {
        let pattern = match self {
            Self::Xx => HandshakePattern::XX,
            Self::Ik => HandshakePattern::IK,
        };
        NoiseParams {
            name: self.protocol_name().into(),
            base: BaseChoice::Noise,
            handshake: HandshakeChoice { pattern, modifiers: HandshakeModifierList { list: Vec::new() } },
            // `snow` has no name for Ed25519. The resolver gives the right one, and of this nothing is hashed.
            dh: DHChoice::Curve25519,
            cipher: CipherChoice::ChaChaPoly,
            hash: HashChoice::Blake2b,
        }
    }
}

/// A Noise handshake, message by message: for a transport that keeps messages apart by itself, or has a
/// payload to send along. Over a stream, [`Handshake`](super::Handshake) does the rest.
///
/// The initiator writes first, then they take turns until [`is_finished`](Self::is_finished); then
/// [`split`](Self::split) gives the keys. Every step consumes the state, so that the first error ends the
/// handshake for good.
pub struct HandshakeState {
    // Boxed, as it is large and moves with every step.
    snow: Box<snow::HandshakeState>,
    is_initiator: bool,
    local: PublicKey,
    expected: Option<PublicKey>,
}

impl HandshakeState {
    /// A handshake that has not begun.
    ///
    /// `remote` is the static key that the other end must hold. The initiator of [`Pattern::Ik`] has to know
    /// it. All others may give `None` and take whoever comes. `prologue` is what both ends must agree on
    /// without sending it. `ephemeral_seed` is fresh randomness, for this handshake alone.
    ///
    /// # Errors
    /// [`ApiMisuse::BadKey`] if `remote` is needed and missing, or no key that can be used.
    pub fn new(
        pattern: Pattern,
        is_initiator: bool,
        local: &KeyPair,
        remote: Option<PublicKey>,
        prologue: &[u8],
        ephemeral_seed: Zeroizing<[u8; 32]>,
    ) -> Result<Self, ApiMisuse> {
        if remote.is_some_and(|key| prime_order_point(&key).is_none()) {
            return Err(ApiMisuse::BadKey);
        }
        let seed = local.seed();
        // Building fails if a key is missing, and that is the remote's, or if one is given twice.
        let builder =
            snow::Builder::with_resolver(pattern.params(), Box::new(Resolver::new(local, &ephemeral_seed)))
                .local_private_key(&*seed)
                .and_then(|builder| builder.prologue(prologue))
                .map_err(|_| ApiMisuse::BadKey)?;
        let known = remote.filter(|_| is_initiator && pattern == Pattern::Ik);
        let builder = match &known {
            Some(key) => builder.remote_public_key(key.as_bytes()).map_err(|_| ApiMisuse::BadKey)?,
            None => builder,
        };
        let snow = if is_initiator { builder.build_initiator() } else { builder.build_responder() };
        Ok(Self {
            snow: Box::new(snow.map_err(|_| ApiMisuse::BadKey)?),
            is_initiator,
            local: local.public(),
            expected: remote,
        })
    }

    /// Whether the next step is ours, to [`write`](Self::write).
    pub fn is_my_turn(&self) -> bool {
        self.snow.is_my_turn() && !self.is_finished()
    }

    /// Whether all messages are written and read.
    pub fn is_finished(&self) -> bool {
        self.snow.is_handshake_finished()
    }

    /// The remote's static key, once it is known. It is proved only when the handshake
    /// [is finished](Self::is_finished).
    pub fn remote(&self) -> Option<PublicKey> {
        let bytes = self.snow.get_remote_static()?.first_chunk::<32>()?;
        Some(PublicKey::from_bytes(*bytes))
    }

    /// Our next message, with `payload` in it. The payload of the first message of [`Pattern::Xx`] is not
    /// encrypted; that of the first of [`Pattern::Ik`] can be replayed.
    ///
    /// # Errors
    /// [`ApiMisuse::MessageTooLarge`] if a Noise message can't hold the payload, [`ApiMisuse::NotOurTurn`] if
    /// it is the remote's turn or the handshake is over, and [`PeerMisbehaved::HandshakeFailed`] if the
    /// remote's ephemeral key is none that can be used.
    pub fn write(mut self, payload: &[u8]) -> Result<(Self, Vec<u8>), Error> {
        const MAX: usize = MAX_NOISE_MESSAGE - MAX_TOKENS;
        if payload.len() > MAX {
            return Err(ApiMisuse::MessageTooLarge { len: payload.len(), max: MAX }.into());
        }
        if !self.is_my_turn() {
            return Err(ApiMisuse::NotOurTurn.into());
        }
        let mut message = vec![0; payload.len() + MAX_TOKENS];
        let length =
            self.snow.write_message(payload, &mut message).map_err(|_| PeerMisbehaved::HandshakeFailed)?;
        message.truncate(length);
        Ok((self, message))
    }

    /// Takes the remote's next message and gives the payload in it.
    ///
    /// # Errors
    /// [`PeerMisbehaved::HandshakeFailed`] if the message is not what the pattern asks for,
    /// [`PeerMisbehaved::UnexpectedPeer`] if the remote is another than the one that was given to
    /// [`new`](Self::new), and [`ApiMisuse::NotOurTurn`] if it is not the remote's turn.
    //= NOISE-12, NOISE-13
    pub fn read(mut self, message: &[u8]) -> Result<(Self, Vec<u8>), Error> {
        if self.snow.is_my_turn() || self.is_finished() {
            return Err(ApiMisuse::NotOurTurn.into());
        }
        // A payload is never longer than its message.
        let mut payload = vec![0; message.len()];
        let length =
            self.snow.read_message(message, &mut payload).map_err(|_| PeerMisbehaved::HandshakeFailed)?;
        payload.truncate(length);
        // Before anything more is said: in XX, our own static key is in the next message.
        if self.expected.is_some_and(|expected| self.remote().is_some_and(|remote| remote != expected)) {
            return Err(PeerMisbehaved::UnexpectedPeer.into());
        }
        Ok((self, payload))
    }

    /// The keys that the handshake ends in.
    ///
    /// # Errors
    /// [`ApiMisuse::NotOurTurn`] if it is not [finished](Self::is_finished).
    //= NOISE-17
    pub fn split(mut self) -> Result<Split, ApiMisuse> {
        let remote = self.remote().filter(|_| self.is_finished()).ok_or(ApiMisuse::NotOurTurn)?;
        let (from_initiator, from_responder) = self.snow.dangerously_get_raw_split();
        let (tx, rx) = match self.is_initiator {
            true => (from_initiator, from_responder),
            false => (from_responder, from_initiator),
        };
        let handshake_hash =
            *self.snow.get_handshake_hash().first_chunk::<64>().ok_or(ApiMisuse::NotOurTurn)?;
        Ok(Split {
            tx: Zeroizing::new(tx),
            rx: Zeroizing::new(rx),
            session: Session {
                binding: handshake_hash,
                is_initiator: self.is_initiator,
                local: self.local,
                remote,
            },
        })
    }
}

impl fmt::Debug for HandshakeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeState")
            .field("is_initiator", &self.is_initiator)
            .field("local", &self.local)
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

/// What a finished handshake leaves: a key for each direction, and what the layers above need to know.
///
/// It makes a [`SecretStream`](super::SecretStream), also if the handshake was somebody else's. The keys are
/// wiped from memory on drop, and `Debug` doesn't show them.
#[derive(Clone)]
pub struct Split {
    /// The key that we seal with.
    pub tx: Zeroizing<[u8; 32]>,
    /// The key that the remote seals with.
    pub rx: Zeroizing<[u8; 32]>,
    /// Who is at the two ends. Its binding is the handshake hash.
    pub session: Session,
}

impl fmt::Debug for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Split").field("session", &self.session).finish_non_exhaustive()
    }
}
