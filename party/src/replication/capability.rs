//! The capability: proof, bound to the connection and to the end that gives it, that a peer knows a feed's
//! key and not only its discovery key.

use subtle::ConstantTimeEq as _;

use crate::{
    encoding::{Reader, Writer},
    error::{Error, PeerMisbehaved},
    feed::manifest::hypercore_namespace,
    hash::{Hash, keyed_hash},
    key::FeedKey,
    session::Session,
};

/// The flag of a handshake whose sender understands seek requests, with their padding.
const SEEKS: u64 = 1;

/// The capability of one end of `session` for the feed `key`: ours, or the one that the remote must show.
///
/// BLAKE2b-256 over the namespace of the end's role and the key, keyed with the handshake hash.
//= REPL-2
pub fn capability(session: &Session, ours: bool, key: &FeedKey) -> Hash {
    let initiator = session.is_initiator == ours;
    let role = if initiator { 1 } else { 2 };
    keyed_hash(&session.binding, &[&hypercore_namespace(role), key.as_bytes()])
}

/// What the remote's open has shown: a capability that holds. There is one only if
/// [`Channel::verify_handshake`](super::Channel::verify_handshake) has verified it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteHandshake {
    pub(super) seeks: bool,
}

impl RemoteHandshake {
    /// Whether the remote answers seek requests with padding: hypercore 10.20 and newer.
    pub fn seeks(&self) -> bool {
        self.seeks
    }
}

/// What goes into our open of the channel of the feed `key`.
pub fn handshake(session: &Session, key: &FeedKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(33);
    out.put_uint(SEEKS);
    out.put_bytes(&capability(session, true, key));
    out
}

/// Verifies the remote's open, before anything of ours is sent.
///
/// # Errors
/// [`PeerMisbehaved::WrongCapability`], or a [`DecodeError`](crate::error::DecodeError).
pub(super) fn verify_handshake(
    session: &Session,
    key: &FeedKey,
    handshake: &[u8],
) -> Result<RemoteHandshake, Error> {
    let mut reader = Reader::new(handshake);
    let flags = reader.uint()?;
    let shown: Hash = reader.array()?;
    let expected = capability(session, false, key);
    //= protocol-spec/07-replication.md#capability
    if bool::from(shown.ct_eq(&expected)) {
        Ok(RemoteHandshake { seeks: flags & SEEKS != 0 })
    } else {
        Err(PeerMisbehaved::WrongCapability.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::DecodeError, key::PublicKey};

    fn session(is_initiator: bool, binding: u8) -> Session {
        Session {
            binding: [binding; 64],
            is_initiator,
            local: PublicKey::from_bytes([1; 32]),
            remote: PublicKey::from_bytes([2; 32]),
        }
    }

    //= REPL-2, REPL-3, REPL-4
    #[test]
    fn a_capability_holds_for_its_feed_connection_and_end_only() {
        let key = FeedKey::from_bytes([7; 32]);
        let shown = handshake(&session(true, 0), &key);
        let verify = |is_initiator, binding, key| {
            verify_handshake(&session(is_initiator, binding), &FeedKey::from_bytes(key), &shown)
        };
        assert!(verify(false, 0, [7; 32]).is_ok());
        for (is_initiator, binding, key) in [(true, 0, [7; 32]), (false, 1, [7; 32]), (false, 0, [8; 32])] {
            let result = verify(is_initiator, binding, key);
            assert!(matches!(result, Err(Error::PeerMisbehaved(PeerMisbehaved::WrongCapability))));
        }
    }

    #[test]
    fn a_handshake_that_ends_early_is_an_error() {
        let result = verify_handshake(&session(false, 0), &FeedKey::from_bytes([7; 32]), &[1, 2, 3]);
        assert!(matches!(result, Err(Error::Decode(DecodeError::UnexpectedEnd))));
    }
}
