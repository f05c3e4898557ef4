//! Whose signature makes a tree the feed's.
//!
//! What is signed, and how signatures are laid out, depends on the manifest's version; all of it follows
//! hypercore 11's `lib/verifier.js`, `multisig.js` and `caps.js`; see `protocol-spec/06-feeds.md`. How several
//! signers come to one signature is in [`quorum`](crate::feed::quorum).

pub(crate) mod multisig;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use self::multisig::{MultiSignature, Part};
use crate::{
    encoding::Writer,
    error::PeerMisbehaved,
    feed::{
        manifest::{Manifest, Signer, hypercore_namespace},
        proof::Node,
        quorum::Signable,
        tree::{MAX_LENGTH, Tree, filling},
    },
    key::{DecodedKey, FeedKey, KeyPair, PublicKey, Signature},
};

/// Checks and makes the signatures of one feed.
///
/// ```
/// use party::feed::{manifest::Manifest, tree::Tree, verifier::Verifier};
/// use party::key::KeyPair;
///
/// let writer = KeyPair::from_seed(&[1; 32]);
/// let manifest = Manifest::single(writer.public());
/// let verifier = Verifier::new(manifest.key(), manifest)?;
/// let signature = verifier.sign(&writer, &Tree::default(), 0).unwrap();
/// assert!(verifier.verify(&Tree::default(), 0, &signature).is_ok());
/// assert!(verifier.verify(&Tree::default(), 1, &signature).is_err());
/// # Ok::<(), party::error::PeerMisbehaved>(())
/// ```
#[derive(Clone, Debug)]
pub struct Verifier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    key: FeedKey,
    manifest: Manifest,
    legacy: bool,
    /// The keys of the manifest's signers, each from when it is first needed; `None` where nothing verifies with it.
    signers: Vec<OnceLock<Option<Box<DecodedKey>>>>,
}

impl Verifier {
    /// The verifier of the feed `key`, whose manifest is `manifest`.
    ///
    /// # Errors
    /// [`PeerMisbehaved::WrongManifest`] if the manifest neither hashes to the key nor has the key itself as
    /// its only signer, or contradicts itself.
    //= FEED-14, FEED-15
    pub fn new(key: FeedKey, manifest: Manifest) -> Result<Self, PeerMisbehaved> {
        //= protocol-spec/06-feeds.md#manifests
        if manifest.contradicts_itself() {
            return Err(PeerMisbehaved::WrongManifest);
        }
        if is_legacy(&key, &manifest) {
            return Ok(Self::legacy(key));
        }
        if manifest.key() != key {
            return Err(PeerMisbehaved::WrongManifest);
        }
        Ok(Self::of(key, manifest, false))
    }

    /// The verifier of a legacy feed, whose key is the public key of its only signer.
    pub fn legacy(key: FeedKey) -> Self {
        Self::of(key, Manifest::legacy(PublicKey::from_bytes(*key.as_bytes())), true)
    }

    fn of(key: FeedKey, manifest: Manifest, legacy: bool) -> Self {
        let signers = manifest.signers.iter().map(|_| OnceLock::new()).collect();
        Self(Arc::new(Inner { key, manifest, legacy, signers }))
    }

    /// The feed's key.
    pub fn key(&self) -> FeedKey {
        self.0.key
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Whether this is a legacy feed, whose manifest nobody asks for.
    pub fn is_legacy(&self) -> bool {
        self.0.legacy
    }

    /// Blocks at the start that need no signature; 0 if there are none.
    pub(crate) fn prologue_length(&self) -> u64 {
        match &self.0.manifest.prologue {
            Some(prologue) if !self.0.legacy => prologue.length,
            _ => 0,
        }
    }

    /// Checks an upgrade of `length` blocks from `start`, whose nodes gave `tree`, against the prologue:
    /// a tree that reaches into it must reach its end.
    //= FEED-34, FEED-35
    pub(crate) fn check_prologue(&self, start: u64, length: u64, tree: &Tree) -> Result<(), PeerMisbehaved> {
        let Some(prologue) = self.0.manifest.prologue.filter(|_| !self.0.legacy) else { return Ok(()) };
        if start < prologue.length && (start != 0 || length < prologue.length) {
            return Err(PeerMisbehaved::InvalidProof("an upgrade that ends in the prologue"));
        }
        if tree.length() == prologue.length && tree.hash() != prologue.hash {
            return Err(PeerMisbehaved::InvalidProof("not the tree of the prologue"));
        }
        Ok(())
    }

    /// Checks that `signature` makes `tree` the feed's tree on `fork`.
    ///
    /// # Errors
    /// [`PeerMisbehaved::InvalidSignature`].
    pub fn verify(&self, tree: &Tree, fork: u64, signature: &[u8]) -> Result<(), PeerMisbehaved> {
        if self.is_signed(tree, fork, signature) { Ok(()) } else { Err(PeerMisbehaved::InvalidSignature) }
    }

    /// Checks as [`verify`](Self::verify), and that the signers have meant this fork: what makes a feed that was on a
    /// lower fork give up blocks.
    ///
    /// The prologue verifies on every fork without a signature, as in hypercore. Taken at its word there, anybody
    /// could take a feed back to its prologue.
    ///
    /// # Errors
    /// [`PeerMisbehaved::InvalidSignature`].
    //= FEED-41
    pub fn verify_fork(&self, tree: &Tree, fork: u64, signature: &[u8]) -> Result<(), PeerMisbehaved> {
        self.verify(tree, fork, signature)?;
        if self.is_signed_by_signers(tree, fork, signature) {
            Ok(())
        } else {
            Err(PeerMisbehaved::InvalidSignature)
        }
    }

    /// By the prologue, of which a shorter tree is never the whole, or by the signers, of whom a static feed has none.
    //= protocol-spec/06-feeds.md#the-signature-field
    //= FEED-31, FEED-32, FEED-33
    fn is_signed(&self, tree: &Tree, fork: u64, signature: &[u8]) -> bool {
        match self.0.manifest.prologue.filter(|_| !self.0.legacy && self.0.manifest.version > 0) {
            Some(prologue) if tree.length() <= prologue.length => prologue.is(tree),
            _ => self.is_signed_by_signers(tree, fork, signature),
        }
    }

    //= FEED-25, FEED-26, FEED-27
    fn is_signed_by_signers(&self, tree: &Tree, fork: u64, signature: &[u8]) -> bool {
        if self.is_plain() {
            return signature.try_into().is_ok_and(|signature| self.is_signed_by(0, tree, fork, signature));
        }
        MultiSignature::decode(signature, self.0.manifest.version)
            .is_ok_and(|signature| self.has_quorum(tree, fork, &signature))
    }

    //= FEED-23, FEED-24
    fn has_quorum(&self, tree: &Tree, fork: u64, signature: &MultiSignature) -> bool {
        let Ok(quorum) = usize::try_from(self.0.manifest.quorum) else { return false };
        if quorum == 0 || signature.parts.len() < quorum {
            return false;
        }
        let mut seen = vec![false; self.0.manifest.signers.len()];
        signature.parts.iter().take(quorum).all(|part| {
            let Some(n) = usize::try_from(part.signer).ok() else { return false };
            let Some(seen) = seen.get_mut(n) else { return false };
            if std::mem::replace(seen, true) {
                return false;
            }
            if part.patch == 0 || !self.0.manifest.allow_patch {
                return self.is_signed_by(n, tree, fork, &part.signature);
            }
            // This signer has signed a longer tree, of which ours is the beginning.
            self.patched(tree, part.patch, &signature.patch)
                .is_some_and(|longer| self.is_signed_by(n, &longer, fork, &part.signature))
        })
    }

    /// The longer tree that `patch` blocks more and their subtrees lead to; `None` if one is missing.
    //= FEED-28, FEED-29
    pub(crate) fn patched(&self, tree: &Tree, patch: u64, nodes: &HashMap<u64, Node>) -> Option<Tree> {
        let to = tree.length().checked_add(patch).filter(|to| *to <= MAX_LENGTH)?;
        let mut longer = tree.clone();
        for position in filling(tree.length(), to) {
            longer.append_root(*nodes.get(&position.index())?, |_, _, _| ())?;
        }
        self.check_prologue(tree.length(), patch, &longer).ok()?;
        Some(longer)
    }

    //= FEED-30
    fn is_signed_by(&self, n: usize, tree: &Tree, fork: u64, signature: &Signature) -> bool {
        let Inner { manifest, signers, .. } = &*self.0;
        let (Some(signer), Some(key)) = (manifest.signers.get(n), signers.get(n)) else { return false };
        let key = key.get_or_init(|| signer.public_key.decode().map(Box::new));
        let message = self.message(signer, &Signable::of(self.0.key, tree, fork));
        key.as_ref().is_some_and(|key| key.verify(&message, signature))
    }

    /// What `signer` signs: for a legacy feed the tree alone, else together with the manifest (or in
    /// version 0 the signer's namespace), so that one feed's signature is worth nothing on another.
    //= FEED-19
    pub(crate) fn message(&self, signer: &Signer, signable: &Signable) -> Vec<u8> {
        let mut out = Vec::with_capacity(112);
        out.put_bytes(&hypercore_namespace(0));
        match (self.0.legacy, self.0.manifest.version) {
            (true, _) => {}
            (false, 0) => out.put_bytes(&signer.namespace),
            (false, _) => out.put_bytes(self.0.key.as_bytes()),
        }
        out.put_bytes(&signable.tree_hash);
        out.put_uint64(signable.length);
        out.put_uint64(signable.fork);
        out
    }

    /// Whether a signature is the 64 bytes of the one signer, rather than a multi-signature.
    //= FEED-22
    pub(crate) fn is_plain(&self) -> bool {
        let Manifest { version, allow_patch, signers, .. } = &self.0.manifest;
        self.0.legacy || *version == 0 && !allow_patch && signers.len() == 1
    }

    /// How many signatures it takes; 0 if no number of them is enough.
    pub(crate) fn needed(&self) -> u64 {
        if self.is_plain() { 1 } else { self.0.manifest.quorum }
    }

    pub(crate) fn allows_patch(&self) -> bool {
        !self.0.legacy && self.0.manifest.allow_patch
    }

    /// Signer number `n`.
    pub(crate) fn signer(&self, n: u64) -> Option<&Signer> {
        self.0.manifest.signers.get(usize::try_from(n).ok()?)
    }

    /// The signer with this key, and its number.
    pub(crate) fn signer_of(&self, public_key: &PublicKey) -> Option<(u64, &Signer)> {
        (0..).zip(&self.0.manifest.signers).find(|(_, signer)| signer.public_key == *public_key)
    }

    /// Whether `key_pair` is one of the signers. It may take more than one of them to append.
    pub fn is_signer(&self, key_pair: &KeyPair) -> bool {
        self.signer_of(&key_pair.public()).is_some()
    }

    /// Whether a feed with this manifest can be appended to by `key_pair` alone.
    pub fn is_writer(&self, key_pair: &KeyPair) -> bool {
        self.signs_alone() && self.is_signer(key_pair)
    }

    /// Whether each of its signers can append alone.
    pub(crate) fn signs_alone(&self) -> bool {
        self.needed() == 1
    }

    /// Signs `tree` where one signer is enough; `None` if `key_pair` alone is not.
    ///
    /// A tree that is the prologue gets an empty signature, for it needs none, unless the feed was truncated to it.
    pub fn sign(&self, key_pair: &KeyPair, tree: &Tree, fork: u64) -> Option<Bytes> {
        if !self.is_writer(key_pair) {
            return None;
        }
        //= FEED-40
        if fork == 0 && self.is_prologue(tree) {
            return Some(Bytes::new());
        }
        let (n, signer) = self.signer_of(&key_pair.public())?;
        let signature = key_pair.sign(&self.message(signer, &Signable::of(self.0.key, tree, fork)));
        Some(if self.is_plain() {
            Bytes::copy_from_slice(&signature)
        } else {
            let part = Part { signer: n, signature, patch: 0 };
            MultiSignature::assemble(&[(part, Vec::new())], self.0.manifest.version)
        })
    }

    /// Whether `tree` is the prologue, which needs no signature.
    pub(crate) fn is_prologue(&self, tree: &Tree) -> bool {
        let prologue = self.0.manifest.prologue.filter(|_| !self.0.legacy && self.0.manifest.version > 0);
        prologue.is_some_and(|prologue| prologue.is(tree))
    }

    /// Whether `blocks` after `base` leave the feed with the beginning that its manifest says. What is shorter than
    /// the prologue can't be verified by anyone, and what begins in another way contradicts the manifest.
    //= protocol-spec/06-feeds.md#prologues
    pub(crate) fn keeps_prologue(&self, base: &Tree, blocks: &[Bytes]) -> bool {
        let Some(left) = self.prologue_length().checked_sub(base.length()).filter(|left| *left > 0) else {
            return true;
        };
        let first = usize::try_from(left).ok().and_then(|n| blocks.get(..n));
        let mut tree = base.clone();
        first.is_some_and(|blocks| {
            tree.append_blocks(blocks.iter().map(AsRef::as_ref)).is_some() && self.is_prologue(&tree)
        })
    }
}

fn is_legacy(key: &FeedKey, manifest: &Manifest) -> bool {
    matches!(manifest.signers.as_slice(), [signer] if signer.public_key.as_bytes() == key.as_bytes())
}
