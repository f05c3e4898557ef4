//! Whose signature makes a tree the feed's.
//!
//! What is signed, and how signatures are laid out, depends on the manifest's version; all of it follows
//! hypercore 11's `lib/verifier.js`, `multisig.js` and `caps.js`; see `protocol-spec/06-feeds.md`.

use std::collections::HashMap;

use bytes::Bytes;

use crate::{
    encoding::{Reader, Writer},
    error::{DecodeError, PeerMisbehaved},
    feed::{
        manifest::{Manifest, Signer, hypercore_namespace},
        proof::Node,
        tree::{MAX_LENGTH, Tree, filling},
    },
    hash::Hash,
    key::{FeedKey, KeyPair, PublicKey, Signature},
    limits::Limits,
};

/// The most nodes in the patch of a multi-signature: one path of the tree for each signer is far below it.
const MAX_PATCH_NODES: usize = 4096;

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
pub struct Verifier {
    key: FeedKey,
    manifest: Manifest,
    legacy: bool,
}

impl Verifier {
    /// The verifier of the feed `key`, whose manifest is `manifest`.
    ///
    /// # Errors
    /// [`PeerMisbehaved::WrongManifest`] if the manifest neither hashes to the key nor has the key itself as
    /// its only signer, or contradicts itself.
    pub fn new(key: FeedKey, manifest: Manifest) -> Result<Self, PeerMisbehaved> {
        if is_legacy(&key, &manifest) {
            return Ok(Self::legacy(key));
        }
        if manifest.key() != key || contradicts_itself(&manifest) {
            return Err(PeerMisbehaved::WrongManifest);
        }
        Ok(Self { key, manifest, legacy: false })
    }

    /// The verifier of a legacy feed, whose key is the public key of its only signer.
    pub fn legacy(key: FeedKey) -> Self {
        Self { key, manifest: Manifest::legacy(PublicKey::from_bytes(*key.as_bytes())), legacy: true }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether this is a legacy feed, whose manifest nobody asks for.
    pub fn is_legacy(&self) -> bool {
        self.legacy
    }

    /// Blocks at the start that need no signature; 0 if there are none.
    pub(crate) fn prologue_length(&self) -> u64 {
        match &self.manifest.prologue {
            Some(prologue) if !self.legacy => prologue.length,
            _ => 0,
        }
    }

    /// Checks an upgrade of `length` blocks from `start`, whose nodes gave `tree`, against the prologue:
    /// a tree that reaches into it must reach its end.
    pub(crate) fn check_prologue(&self, start: u64, length: u64, tree: &Tree) -> Result<(), PeerMisbehaved> {
        let Some(prologue) = self.manifest.prologue.filter(|_| !self.legacy) else { return Ok(()) };
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

    //= protocol-spec/06-feeds.md#the-signature-field
    fn is_signed(&self, tree: &Tree, fork: u64, signature: &[u8]) -> bool {
        let single = !self.manifest.allow_patch && self.manifest.signers.len() == 1;
        if self.legacy || (self.manifest.version == 0 && single) {
            return match (self.manifest.signers.first(), signature.try_into()) {
                (Some(signer), Ok(signature)) => self.is_signed_by(signer, tree, fork, signature),
                _ => false,
            };
        }
        if let Some(prologue) = &self.manifest.prologue
            && self.manifest.version > 0
            && tree.length() <= prologue.length
        {
            return tree.length() == prologue.length && tree.hash() == prologue.hash;
        }
        MultiSignature::decode(signature, self.manifest.version)
            .is_ok_and(|signature| self.has_quorum(tree, fork, &signature))
    }

    fn has_quorum(&self, tree: &Tree, fork: u64, signature: &MultiSignature) -> bool {
        let Ok(quorum) = usize::try_from(self.manifest.quorum) else { return false };
        if quorum == 0 || signature.parts.len() < quorum {
            return false;
        }
        let mut seen = vec![false; self.manifest.signers.len()];
        signature.parts.iter().take(quorum).all(|part| {
            let Some(n) = usize::try_from(part.signer).ok() else { return false };
            let (Some(signer), Some(seen)) = (self.manifest.signers.get(n), seen.get_mut(n)) else {
                return false;
            };
            if std::mem::replace(seen, true) {
                return false;
            }
            if part.patch == 0 || !self.manifest.allow_patch {
                return self.is_signed_by(signer, tree, fork, &part.signature);
            }
            // This signer has signed a longer tree, of which ours is the beginning.
            self.patched(tree, part.patch, &signature.patch)
                .is_some_and(|longer| self.is_signed_by(signer, &longer, fork, &part.signature))
        })
    }

    fn patched(&self, tree: &Tree, patch: u64, nodes: &HashMap<u64, Node>) -> Option<Tree> {
        let to = tree.length().checked_add(patch).filter(|to| *to <= MAX_LENGTH)?;
        let mut longer = tree.clone();
        for position in filling(tree.length(), to) {
            longer.append_root(*nodes.get(&position.index())?, |_, _, _| ())?;
        }
        self.check_prologue(tree.length(), patch, &longer).ok()?;
        Some(longer)
    }

    fn is_signed_by(&self, signer: &Signer, tree: &Tree, fork: u64, signature: &Signature) -> bool {
        signer.public_key.verify(&self.signable(signer, tree, fork), signature)
    }

    /// What `signer` signs: for a legacy feed the tree alone, else together with the manifest (or in
    /// version 0 the signer's namespace), so that one feed's signature is worth nothing on another.
    fn signable(&self, signer: &Signer, tree: &Tree, fork: u64) -> Vec<u8> {
        let context = match (self.legacy, self.manifest.version) {
            (true, _) => None,
            (false, 0) => Some(&signer.namespace),
            (false, _) => Some(self.key.as_bytes()),
        };
        signable(context, tree, fork)
    }

    /// Whether a feed with this manifest can be appended to by `key_pair` alone.
    pub fn is_writer(&self, key_pair: &KeyPair) -> bool {
        let Manifest { version, allow_patch, quorum, signers, prologue, .. } = &self.manifest;
        let alone = if *version == 0 { !allow_patch } else { *quorum == 1 };
        matches!(signers.as_slice(), [signer] if signer.public_key == key_pair.public())
            && (self.legacy || alone && prologue.is_none())
    }

    /// Signs `tree` as the feed's only signer; `None` if `key_pair` is not that.
    pub fn sign(&self, key_pair: &KeyPair, tree: &Tree, fork: u64) -> Option<Bytes> {
        let signer = self.manifest.signers.first().filter(|_| self.is_writer(key_pair))?;
        let signature = key_pair.sign(&self.signable(signer, tree, fork));
        Some(if self.legacy || self.manifest.version == 0 {
            Bytes::copy_from_slice(&signature)
        } else {
            MultiSignature::single(signature)
        })
    }
}

/// `TREE`, what binds the signature to its feed, the tree's hash, its length and fork.
//= protocol-spec/06-feeds.md#what-is-signed
pub(crate) fn signable(context: Option<&Hash>, tree: &Tree, fork: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(112);
    out.put_bytes(&hypercore_namespace(0));
    if let Some(context) = context {
        out.put_bytes(context);
    }
    out.put_bytes(&tree.hash());
    out.put_uint64(tree.length());
    out.put_uint64(fork);
    out
}

fn is_legacy(key: &FeedKey, manifest: &Manifest) -> bool {
    matches!(manifest.signers.as_slice(), [signer] if signer.public_key.as_bytes() == key.as_bytes())
}

fn contradicts_itself(manifest: &Manifest) -> bool {
    manifest.quorum > manifest.signers.len() as u64
        || manifest.version < 2 && (manifest.linked.is_some() || manifest.user_data.is_some())
}

/// Signatures of several signers over one tree, or over longer trees that begin with it.
struct MultiSignature {
    parts: Vec<Part>,
    /// Nodes from the tree to the longer ones, by index.
    patch: HashMap<u64, Node>,
}

struct Part {
    signer: u64,
    signature: Signature,
    /// How many blocks longer the tree was that this signer signed.
    patch: u64,
}

impl MultiSignature {
    fn single(signature: Signature) -> Bytes {
        let mut out = Vec::with_capacity(68);
        out.put_uint(1);
        out.put_uint(0);
        out.put_bytes(&signature);
        out.put_uint(0);
        out.put_uint(0);
        out.into()
    }

    fn decode(bytes: &[u8], version: u8) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let n = reader.count(66, Limits::default().max_signers)?;
        let parts = (0..n)
            .map(|_| if version == 0 { Part::decode_v0(&mut reader) } else { Part::decode(&mut reader) })
            .collect::<Result<_, _>>()?;
        let n = reader.count(34, MAX_PATCH_NODES)?;
        let patch = (0..n)
            .map(|_| {
                let node = Node { index: reader.uint()?, size: reader.uint()?, hash: reader.array()? };
                Ok((node.index, node))
            })
            .collect::<Result<_, DecodeError>>()?;
        Ok(Self { parts, patch })
    }
}

impl Part {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { signer: reader.uint()?, signature: reader.array()?, patch: reader.uint()? })
    }

    /// Version 0 also names the patch's nodes by their number, which nobody reads.
    fn decode_v0(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let patched = reader.uint()? & 1 != 0;
        let mut part = Self { signer: reader.uint()?, signature: reader.array()?, patch: 0 };
        if patched {
            reader.uint()?;
            part.patch = reader.uint()?;
            for _ in 0..reader.count(1, MAX_PATCH_NODES)? {
                reader.uint()?;
            }
        }
        Ok(part)
    }
}
