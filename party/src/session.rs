//! What the layers above encryption need to know about a connection, and nothing else.

use std::fmt;

use crate::key::PublicKey;

/// The identity of one encrypted connection: both ends' static keys, which end we are, and a value that no
/// other connection shares.
///
/// Capabilities and membership proofs are bound to [`binding`](Self::binding), so that what was said on one
/// connection is worthless on another. Every transport that can supply the four values carries the layers
/// from [`mux`](crate::mux) upwards: our own secret stream, a Noise handshake that ended elsewhere, or a TLS
/// exporter.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// The 64-byte Noise handshake hash, or 64 bytes exported from another handshake.
    pub binding: [u8; 64],
    /// Whether we started the handshake.
    pub is_initiator: bool,
    /// Our static public key on this connection.
    pub local: PublicKey,
    /// The static public key that the remote proved to hold.
    pub remote: PublicKey,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("is_initiator", &self.is_initiator)
            .field("local", &self.local)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}
