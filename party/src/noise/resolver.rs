//! The primitives that `snow` is given: Diffie-Hellman on Ed25519 keys, ChaCha20-Poly1305 and BLAKE2b-512.
//!
//! The Diffie-Hellman function is that of npm `noise-curve-ed`: the scalar is the clamped first half of
//! SHA-512(seed), as in signing, and the point is checked as libsodium's `crypto_scalarmult_ed25519_noclamp`
//! checks it. The order of a point matters: with a small or composite one, parts of the scalar leak, or the
//! shared secret is known to everybody.
//!
//! libsodium up to 1.0.20 takes a point whose torsion part has order two, by mistake. We don't: no key pair
//! has such a public key.

use std::sync::{Arc, Mutex, PoisonError};

use curve25519_dalek::{edwards::EdwardsPoint, scalar::Scalar, traits::IsIdentity as _};
use dryoc::classic::crypto_aead_chacha20poly1305_ietf::{
    Nonce, crypto_aead_chacha20poly1305_ietf_decrypt, crypto_aead_chacha20poly1305_ietf_encrypt,
};
use snow::{
    Error,
    params::{CipherChoice, DHChoice, HashChoice},
    resolvers::CryptoResolver,
    types::{Cipher, Dh, Hash, Random},
};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::key::{KeyPair, PublicKey};

/// Bytes that sealing adds to a Noise payload.
pub(super) const TAG: usize = 16;

/// The point of prime order whose one encoding is `key`: with others no Diffie-Hellman is done.
//= NOISE-3, NOISE-4, NOISE-5, NOISE-6
pub(super) fn prime_order_point(key: &PublicKey) -> Option<EdwardsPoint> {
    let point = key.point()?;
    // With l the order of the group, (l - 1) P = -P holds for these points and the identity alone. The point is public, so
    // this may take a time that depends on it.
    let negated = EdwardsPoint::vartime_double_scalar_mul_basepoint(&-Scalar::ONE, &point, &Scalar::ZERO);
    (!point.is_identity() && negated == -point).then_some(point)
}

/// Keys of the remote that were checked, and the points that they are.
type Checked = Arc<Mutex<Vec<([u8; 32], EdwardsPoint)>>>;

/// Gives `snow` our primitives, and one ephemeral key pair as the one random thing that a handshake draws.
pub(super) struct Resolver {
    /// Ours, the static one and the ephemeral. Who answers has both ready while the first message is on its way.
    local: Pair,
    ephemeral: Pair,
    /// Checked keys of the remote. Each of them has a part in two computations or more.
    checked: Checked,
}

impl Resolver {
    pub(super) fn new(local: &KeyPair, ephemeral_seed: &[u8; 32]) -> Self {
        let ephemeral = KeyPair::from_seed(ephemeral_seed);
        Self { local: Pair::of(local), ephemeral: Pair::of(&ephemeral), checked: Arc::default() }
    }
}

// What the choices say is of no account: `snow` has no name for Ed25519, and there is one of each.
impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.ephemeral.seed.clone()))))
    }

    fn resolve_dh(&self, _: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(Ed25519 {
            pair: Pair::default(),
            known: [self.local.clone(), self.ephemeral.clone()],
            checked: self.checked.clone(),
        }))
    }

    fn resolve_hash(&self, _: &HashChoice) -> Option<Box<dyn Hash>> {
        Some(Box::new(Blake2b(new_hash())))
    }

    fn resolve_cipher(&self, _: &CipherChoice) -> Option<Box<dyn Cipher>> {
        Some(Box::new(ChaChaPoly::default()))
    }
}

/// Randomness that is given out once. A second draw fails: two ephemeral keys from one seed would be one.
struct Once(Option<Zeroizing<[u8; 32]>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        let seed = self.0.take().filter(|seed| seed.len() == dest.len()).ok_or(Error::Rng)?;
        dest.copy_from_slice(&*seed);
        Ok(())
    }
}

/// A key pair. The private key, for `snow`, is the seed that it grows from.
#[derive(Clone, Default)]
struct Pair {
    seed: Zeroizing<[u8; 32]>,
    scalar: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Pair {
    fn of(pair: &KeyPair) -> Self {
        Self { seed: pair.seed(), scalar: pair.scalar(), public: *pair.public().as_bytes() }
    }
}

/// One key pair of ours, static or ephemeral, and what is done with it.
#[derive(Default)]
struct Ed25519 {
    pair: Pair,
    /// Pairs that needn't be grown from their seeds again.
    known: [Pair; 2],
    checked: Checked,
}

impl Ed25519 {
    //= NOISE-8
    fn set_seed(&mut self, seed: &[u8; 32]) {
        let known = self.known.iter().find(|known| known.seed.ct_eq(seed).into());
        self.pair = known.cloned().unwrap_or_else(|| Pair::of(&KeyPair::from_seed(seed)));
    }

    /// The remote's key as a point of prime order.
    fn point(&self, public: &[u8; 32]) -> Result<EdwardsPoint, Error> {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, point)) = checked.iter().find(|(key, _)| key == public) {
            return Ok(*point);
        }
        //= protocol-spec/03-noise.md#the-dh-function
        let point = prime_order_point(&PublicKey::from_bytes(*public)).ok_or(Error::Dh)?;
        // A pattern has two keys of the remote's.
        if checked.len() < 2 {
            checked.push((*public, point));
        }
        Ok(point)
    }
}

impl Dh for Ed25519 {
    fn name(&self) -> &'static str {
        "Ed25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        // The seeds are ours and have 32 bytes.
        if let Ok(seed) = privkey.try_into() {
            self.set_seed(seed);
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut seed = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *seed)?;
        self.set_seed(&seed);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.pair.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.pair.seed
    }

    //= NOISE-2, NOISE-7
    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        // `snow` hands over buffers made for the longest key of any curve.
        let public = pubkey.first_chunk::<32>().ok_or(Error::Dh)?;
        let out = out.first_chunk_mut::<32>().ok_or(Error::Dh)?;
        let shared = self.point(public)?.mul_clamped(*self.pair.scalar);
        if shared.is_identity() {
            return Err(Error::Dh);
        }
        *out = shared.compress().to_bytes();
        Ok(())
    }
}

/// ChaCha20-Poly1305 with Noise's nonce: four zero bytes, then the counter.
#[derive(Default)]
struct ChaChaPoly {
    key: Zeroizing<[u8; 32]>,
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        *self.key = *key;
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let length = plaintext.len() + TAG;
        let Some(out) = out.get_mut(..length) else { return 0 };
        let nonce = cipher_nonce(nonce);
        match crypto_aead_chacha20poly1305_ietf_encrypt(out, plaintext, Some(authtext), &nonce, &self.key) {
            Ok(()) => length,
            // Out of reach: the lengths are right, and a Noise message is far from the longest allowed. What
            // is not sealed is not sent.
            Err(_) => 0,
        }
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let length = ciphertext.len().checked_sub(TAG).ok_or(Error::Decrypt)?;
        let out = out.get_mut(..length).ok_or(Error::Decrypt)?;
        let nonce = cipher_nonce(nonce);
        crypto_aead_chacha20poly1305_ietf_decrypt(out, ciphertext, Some(authtext), &nonce, &self.key)
            .map_err(|_| Error::Decrypt)?;
        Ok(length)
    }
}

fn cipher_nonce(counter: u64) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// BLAKE2b-512. Its own keyed mode is not used: Noise asks for HMAC.
struct Blake2b(blake2b_simd::State);

impl Hash for Blake2b {
    fn name(&self) -> &'static str {
        "BLAKE2b"
    }

    fn block_len(&self) -> usize {
        blake2b_simd::BLOCKBYTES
    }

    fn hash_len(&self) -> usize {
        blake2b_simd::OUTBYTES
    }

    fn reset(&mut self) {
        self.0 = new_hash();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        if let Some(out) = out.first_chunk_mut() {
            *out = *self.0.finalize().as_array();
        }
    }
}

fn new_hash() -> blake2b_simd::State {
    blake2b_simd::State::new()
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::{constants::EIGHT_TORSION, edwards::CompressedEdwardsY};
    use dryoc::classic::crypto_core::crypto_core_ed25519_is_valid_point;
    use proptest::prelude::*;

    use super::*;

    fn pair(seed: u8) -> Ed25519 {
        let mut pair = Ed25519::default();
        pair.set(&[seed; 32]);
        pair
    }

    fn dh(local: &Ed25519, remote: &[u8; 32]) -> Result<[u8; 32], Error> {
        let mut out = [0; 32];
        local.dh(remote, &mut out).map(|()| out)
    }

    #[test]
    fn a_hash_that_is_reset_begins_anew() {
        let mut hash = Blake2b(new_hash());
        hash.input(b"before");
        hash.reset();
        hash.input(b"after");
        let mut found = [0; 64];
        hash.result(&mut found);
        assert_eq!(found, *blake2b_simd::blake2b(b"after").as_array());
    }

    #[test]
    fn both_ends_compute_the_same_secret() {
        let (alice, bob) = (pair(1), pair(2));
        assert_eq!(dh(&alice, &bob.pair.public).unwrap(), dh(&bob, &alice.pair.public).unwrap());
        assert_ne!(dh(&alice, &bob.pair.public).unwrap(), dh(&alice, &pair(3).pair.public).unwrap());
    }

    //= NOISE-2
    #[test]
    fn secrets_are_those_of_node() {
        let file = include_str!("../../../conformance/vectors/noise.json");
        let file: serde_json::Value = serde_json::from_str(file).unwrap();
        let bytes = |case: &serde_json::Value, field: &str| -> [u8; 32] {
            *case[field].as_str().unwrap().parse::<PublicKey>().unwrap().as_bytes()
        };
        let cases =
            file["scenarios"].as_array().unwrap().iter().filter(|case| case["kind"] == "diffie_hellman");
        for case in cases {
            let mut local = Ed25519::default();
            local.set(&bytes(&case["input"], "seed"));
            let secret = dh(&local, &bytes(&case["input"], "public_key"));
            match &case["expect"]["accept"] {
                serde_json::Value::Null => assert_eq!(secret, Err(Error::Dh), "{}", case["name"]),
                accept => assert_eq!(secret, Ok(bytes(accept, "shared")), "{}", case["name"]),
            }
        }
    }

    //= NOISE-5
    #[test]
    fn points_of_small_order_are_refused() {
        for point in &EIGHT_TORSION {
            assert_eq!(dh(&pair(1), &point.compress().to_bytes()), Err(Error::Dh));
        }
    }

    //= NOISE-6
    #[test]
    fn points_with_a_torsion_part_are_refused() {
        let honest = CompressedEdwardsY(pair(2).pair.public).decompress().unwrap();
        for torsion in &EIGHT_TORSION[1..] {
            let point: EdwardsPoint = honest + torsion;
            assert_eq!(dh(&pair(1), &point.compress().to_bytes()), Err(Error::Dh));
        }
    }

    //= NOISE-3, NOISE-4
    #[test]
    fn what_is_no_point_and_second_encodings_are_refused() {
        let mut no_point = [0; 32];
        no_point[0] = 2;
        assert_eq!(dh(&pair(1), &no_point), Err(Error::Dh));
        // y between p and 2^255 - 1, whatever the sign: 3 of these decode to a point.
        for low in 0xed..=0xff_u8 {
            for sign in [0x7f, 0xff] {
                let mut bytes = [0xff; 32];
                bytes[0] = low;
                bytes[31] = sign;
                assert_eq!(dh(&pair(1), &bytes), Err(Error::Dh));
            }
        }
    }

    proptest! {
        #[test]
        fn a_key_is_usable_where_another_library_finds_so(
            mut bytes: [u8; 32],
            torsion in 0..8_usize,
            kind in 0..3_u8,
        ) {
            if kind > 0 {
                // Almost no random bytes are a point of prime order.
                let honest = CompressedEdwardsY(pair(bytes[0]).pair.public).decompress().unwrap();
                bytes = (honest + EIGHT_TORSION[torsion]).compress().to_bytes();
            }
            if kind > 1 {
                bytes[31] ^= 0x80;
            }
            let key = PublicKey::from_bytes(bytes);
            prop_assert_eq!(prime_order_point(&key).is_some(), crypto_core_ed25519_is_valid_point(&bytes));
        }
    }

    #[test]
    fn a_seed_is_drawn_once() {
        let mut random = Resolver::new(&KeyPair::from_seed(&[1; 32]), &[7; 32]).resolve_rng().unwrap();
        let mut pair = Ed25519::default();
        pair.generate(&mut *random).unwrap();
        assert_eq!(pair.privkey(), [7; 32]);
        assert_eq!(pair.generate(&mut *random), Err(Error::Rng));
    }
}
