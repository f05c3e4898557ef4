//! Keys: 32 bytes each, and a type for each use, so that one can't be handed over for another.

use std::{fmt, str::FromStr};

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

use crate::hash::{Hash, keyed_hash};

/// Why a string is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is 64 hexadecimal characters, this is {found}")]
pub struct ParseKeyError {
    found: String,
}

macro_rules! key_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The key with these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl From<[u8; 32]> for $name {
            fn from(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
        }

        impl FromStr for $name {
            type Err = ParseKeyError;

            fn from_str(s: &str) -> Result<Self, ParseKeyError> {
                parse_hex(s).map(Self)
            }
        }
    };
}

macro_rules! public_key_type {
    ($(#[$doc:meta])* $name:ident) => {
        key_type!($(#[$doc])* $name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self)
            }
        }
    };
}

public_key_type! {
    /// The public half of an Ed25519 key pair: who a peer is, or who signs a feed.
    PublicKey
}

public_key_type! {
    /// Names a feed and verifies it: the hash of its manifest or, for a legacy feed, the signer's public key.
    ///
    /// Whoever knows it can read the feed, so it is shown to those only who may.
    FeedKey
}

public_key_type! {
    /// What a feed or a party is asked for by name: a hash of its key, which doesn't tell the key.
    DiscoveryKey
}

key_type! {
    /// The key that makes one a member of a party, secret from all others.
    ///
    /// It never leaves the process, and neither `Debug` nor a log shows it. [`PartyKey::to_hex`] does, for
    /// handing it to a new member. Made by [`PartyKey::generate`]; the founder keeps the other half.
    PartyKey
}

impl FeedKey {
    /// The name under which peers ask for this feed: BLAKE2b-256 of `hypercore`, keyed with the feed key.
    pub fn discovery_key(&self) -> DiscoveryKey {
        discovery_key(&self.0)
    }
}

impl PartyKey {
    /// A fresh party, and the key pair that its founder keeps to sign with.
    #[cfg(feature = "tokio")]
    pub fn generate() -> (Self, KeyPair) {
        let founder = KeyPair::generate();
        (Self(*founder.public().as_bytes()), founder)
    }

    /// The name under which members find each other on a discovery network. It is derived as a feed's is.
    pub fn discovery_key(&self) -> DiscoveryKey {
        discovery_key(&self.0)
    }

    /// The key as 64 hexadecimal characters: the secret itself.
    pub fn to_hex(&self) -> String {
        struct Hex<'a>(&'a [u8; 32]);
        impl fmt::Display for Hex<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(self.0, f)
            }
        }
        Hex(&self.0).to_string()
    }
}

impl fmt::Debug for PartyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PartyKey(secret)")
    }
}

fn discovery_key(key: &Hash) -> DiscoveryKey {
    DiscoveryKey(keyed_hash(key, &[b"hypercore"]))
}

/// An Ed25519 signature.
pub type Signature = [u8; 64];

impl PublicKey {
    /// Whether `signature` is this key's over `message`. Keys and signatures of small order, and encodings
    /// that are not canonical, are refused, as libsodium does.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        self.decode().is_some_and(|key| key.verify(message, signature))
    }

    /// The key as it is calculated with, for who verifies more than once; `None` if nothing verifies with it.
    pub(crate) fn decode(&self) -> Option<DecodedKey> {
        VerifyingKey::from_bytes(&self.0).ok().map(DecodedKey)
    }

    /// Whether somebody can hold the secret to this key: it is the one encoding of a point of the curve that is
    /// not of small order.
    pub fn is_usable(&self) -> bool {
        self.point().is_some_and(|point| !point.is_small_order())
    }

    /// The point of the curve that this encodes, if its y coordinate, the first 255 bits, is below p = 2^255 - 19. Only
    /// the points with an x of 0 have two such encodings, one for each sign; they have a small order.
    pub(crate) fn point(&self) -> Option<EdwardsPoint> {
        let [lowest, middle @ .., highest] = &self.0;
        let is_reduced = *lowest < 0xed || highest & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff);
        is_reduced.then_some(CompressedEdwardsY(self.0))?.decompress()
    }
}

/// A public key that was decoded, which takes a tenth of verifying a signature.
#[derive(Debug)]
pub(crate) struct DecodedKey(VerifyingKey);

impl DecodedKey {
    /// As [`PublicKey::verify`].
    //= FEED-20, FEED-21
    pub(crate) fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        #[cfg(test)]
        VERIFICATIONS.with(|count| count.set(count.get() + 1));
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0.verify_strict(message, &signature).is_ok()
    }
}

/// An Ed25519 key pair: the identity of a peer, the signer of a feed, or the founder of a party.
///
/// The secret is wiped from memory on drop, and `Debug` shows the public half only.
#[derive(Clone)]
pub struct KeyPair {
    secret: SigningKey,
}

impl KeyPair {
    /// The pair that grows from a 32-byte seed, as libsodium's `crypto_sign_seed_keypair` does.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { secret: SigningKey::from_bytes(seed) }
    }

    /// A fresh pair from the randomness of the operating system.
    #[cfg(feature = "tokio")]
    pub fn generate() -> Self {
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        crate::random::fill(&mut *seed);
        Self::from_seed(&seed)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.secret.verifying_key().to_bytes())
    }

    /// The seed that the pair grows from: the secret itself.
    pub fn seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.secret.to_bytes())
    }

    /// What the public half is the multiple of, clamped.
    pub(crate) fn scalar(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.secret.to_scalar_bytes())
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> Signature {
        self.secret.sign(message).to_bytes()
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.public())
    }
}

fn write_hex(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex(s: &str) -> Result<[u8; 32], ParseKeyError> {
    // The string itself is not repeated: it may be a secret with one character too many.
    if s.chars().count() != 64 {
        return Err(ParseKeyError { found: format!("{} characters", s.chars().count()) });
    }
    let digits: Vec<u8> = s
        .chars()
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()
        .ok_or_else(|| ParseKeyError { found: "not hexadecimal".into() })?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Ok(bytes)
}

#[cfg(test)]
std::thread_local! {
    /// How many signatures a test has verified on its thread.
    static VERIFICATIONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many signatures were verified on this thread so far.
#[cfg(test)]
pub(crate) fn verifications() -> usize {
    VERIFICATIONS.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_and_read_as_hex() {
        let key = FeedKey::from_bytes([0xa7; 32]);
        assert_eq!(key.to_string(), "a7".repeat(32));
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!("a7".repeat(31).parse::<FeedKey>().is_err());
        assert!("zz".repeat(32).parse::<FeedKey>().is_err());
        assert!("é".repeat(64).parse::<FeedKey>().is_err());
    }

    #[test]
    fn a_party_key_is_never_shown_by_accident() {
        let key = PartyKey::from_bytes([0xa7; 32]);
        assert!(!format!("{key:?}").contains("a7"));
        assert_eq!(key.to_hex().parse::<PartyKey>().unwrap(), key);
    }

    #[test]
    fn a_signature_holds_for_its_message_and_key_only() {
        let pair = KeyPair::from_seed(&[7; 32]);
        let signature = pair.sign(b"tree");
        assert!(pair.public().verify(b"tree", &signature));
        assert!(!pair.public().verify(b"bush", &signature));
        assert!(!KeyPair::from_seed(&[8; 32]).public().verify(b"tree", &signature));
    }

    //= FEED-20, FEED-21
    #[test]
    fn a_key_of_small_order_or_in_another_encoding_is_of_no_use() {
        assert!(KeyPair::from_seed(&[7; 32]).public().is_usable());
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert!(!PublicKey::from_bytes(neutral).is_usable());
        assert!(!PublicKey::from_bytes([0; 32]).is_usable(), "a point of order 4");
        // y = 3 is on the curve, and so is its second encoding, y + p.
        let mut three = [0; 32];
        three[0] = 3;
        let mut again = [0xff; 32];
        (again[0], again[31]) = (0xf0, 0x7f);
        assert!(PublicKey::from_bytes(three).is_usable());
        assert!(!PublicKey::from_bytes(again).is_usable());
    }
}
