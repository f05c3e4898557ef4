//! Noise over Ed25519 keys, and the encrypted stream that follows it. Sans-IO.
//!
//! Every connection begins here. Two peers prove to each other that they hold their static keys, agree on
//! keys that nobody else has, and from then on exchange messages that arrive whole, in order and unchanged,
//! or not at all. It implements `protocol-spec/03-noise.md` and `protocol-spec/04-secret-stream.md`, which
//! is the wire of npm `@hyperswarm/secret-stream`.
//!
//! - [`Handshake`] takes the bytes of a stream transport and becomes a [`SecretStream`]. It speaks
//!   [`Pattern::Xx`], in which neither end knows the other beforehand, and [`Pattern::Ik`], in which the
//!   initiator does.
//! - [`HandshakeState`] is the handshake without frames, for a transport that carries each Noise message in
//!   a packet of its own. What it ends in, a [`Split`], makes a [`SecretStream`] too.
//! - [`SecretStream`] seals and opens messages.
//!
//! Nothing here reads a socket, a clock or a random number generator: bytes and randomness are arguments.
//!
//! # Whose code does the work
//!
//! `snow` walks the Noise patterns, with primitives that we supply (`resolver`), since it knows neither
//! Ed25519 as a Diffie-Hellman function nor its name. Frames are sealed by `dryoc`, whose secret stream takes
//! 0.8 µs for 1 KiB and 24 µs for 64 KiB where the crate `crypto_secretstream` takes 3.5 µs and 84 µs; it
//! also brings the ChaCha20-Poly1305 of the handshake. Points are multiplied and checked by `curve25519-dalek`.
//!
//! ```
//! use bytes::BytesMut;
//! use party::{key::KeyPair, limits::Limits, noise::{Handshake, HandshakeConfig, Progress}};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limits = Limits::default();
//! // The last argument is fresh randomness: never use one twice.
//! let alice = HandshakeConfig::xx(true, KeyPair::from_seed(&[1; 32]), [11; 32]);
//! let bob = HandshakeConfig::xx(false, KeyPair::from_seed(&[2; 32]), [12; 32]);
//! let (mut alice, mut bob) = (Handshake::new(alice, &limits)?, Handshake::new(bob, &limits)?);
//!
//! let mut wire = BytesMut::from(&alice.poll_transmit().unwrap()[..]);
//! let Progress::Pending(next) = bob.handle_input(&mut wire)? else { unreachable!() };
//! bob = next;
//!
//! let mut wire = BytesMut::from(&bob.poll_transmit().unwrap()[..]);
//! let Progress::Established(mut alice) = alice.handle_input(&mut wire)? else { unreachable!() };
//!
//! alice.seal(b"hello")?;
//! let mut wire = alice.outgoing().split();
//! let Progress::Established(mut bob) = bob.handle_input(&mut wire)? else { unreachable!() };
//! bob.handle_input(&mut wire)?;
//! assert_eq!(bob.poll_message().unwrap(), &b"hello"[..]);
//! assert_eq!(alice.session().binding, bob.session().binding);
//! # Ok(())
//! # }
//! ```

mod frame;
mod handshake;
mod handshake_state;
mod resolver;
mod stream;
#[cfg(test)]
mod tests;

pub use handshake::{Handshake, HandshakeConfig, Progress};
pub use handshake_state::{HandshakeState, Pattern, Split};
pub use stream::{MAX_MESSAGE, SEAL_OVERHEAD, SecretStream};
