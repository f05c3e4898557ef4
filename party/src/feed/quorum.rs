//! Signing for a quorum by hand-over: what is to be signed goes to the signers, what they sign comes back, and
//! their parts become one signature.
//!
//! Nothing here touches storage or a network. How the three values below travel is the application's affair:
//! a feed, a message, a memory stick. The steps, with who takes them:
//!
//! 1. Whoever proposes makes a [`Draft`]: the feed's tree as it stands, and the blocks to come. Its
//!    [`Signable`] and the blocks go to the signers.
//! 2. Each signer makes the *same* draft from its own copy of the feed and the blocks that it has seen, and
//!    [checks](Draft::check) that what it was asked to sign is that. Then it [signs](Draft::sign) its own draft
//!    and sends the [`PartialSignature`]. A signer that signs a hash it was merely told signs anything.
//! 3. Who has enough parts [assembles](Draft::assemble) them. Where the manifest allows patches the signers may
//!    have signed drafts of different lengths; [`agree`](Draft::agree) finds the length that enough of them reach.
//! 4. Whoever has draft and signature appends: `Feed::append_signed`. The signature is checked again there.
//!
//! The signature that comes out is that of hypercore 11's `lib/multisig.js`; see `protocol-spec/06-feeds.md`.

use std::collections::HashMap;

use bytes::Bytes;

use crate::{
    encoding::{MAX_SAFE_INTEGER, Reader, Writer},
    error::{ApiMisuse, DecodeError, SigningError},
    feed::{
        proof::Node,
        tree::{MAX_LENGTH, Tree, filling},
        verifier::{
            Verifier,
            multisig::{MultiSignature, Part, decode_node, encode_node},
        },
    },
    hash::Hash,
    key::{FeedKey, KeyPair, Signature},
    limits::Limits,
};

const VERSION: u8 = 1;
/// Subtrees between two lengths: up one side of the highest tree and down the other.
const MAX_PATCH: usize = 104;

/// What a signer is asked to sign: that a feed has this tree.
///
/// It is small and has a fixed size, so that it can be shown, sent and compared. It doesn't tell what is in the
/// blocks; see [`Draft::check`].
///
/// ```
/// use party::feed::{manifest::Manifest, quorum::Signable, tree::Tree};
/// use party::key::KeyPair;
///
/// let key = Manifest::single(KeyPair::from_seed(&[1; 32]).public()).key();
/// let signable = Signable::of(key, &Tree::default(), 3);
/// let bytes = signable.encode();
/// assert_eq!(bytes.len(), Signable::LEN);
/// assert_eq!(Signable::decode(&bytes)?, signable);
/// assert!(Signable::decode(&bytes[1..]).is_err());
/// # Ok::<(), party::error::DecodeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signable {
    /// The feed.
    pub key: FeedKey,
    /// The hash of its tree.
    pub tree_hash: Hash,
    /// The tree's length in blocks.
    pub length: u64,
    /// The fork.
    pub fork: u64,
}

impl Signable {
    /// Bytes of its encoding.
    pub const LEN: usize = 81;

    /// That the feed `key` has this tree on `fork`. The tree may come from another feed with the same blocks, from
    /// which this one is to be made.
    pub fn of(key: FeedKey, tree: &Tree, fork: u64) -> Self {
        Self { key, tree_hash: tree.hash(), length: tree.length(), fork }
    }

    /// The bytes that signer number `signer` of the feed puts its Ed25519 signature under, for a key that is kept in
    /// another program or device; [`PartialSignature::new`] takes what comes back. `None` if this is another
    /// feed's, or if it has no such signer.
    pub fn message(&self, verifier: &Verifier, signer: u64) -> Option<Vec<u8>> {
        let signer = verifier.signer(signer).filter(|_| verifier.key() == self.key)?;
        Some(verifier.message(signer, self))
    }

    /// Its encoding.
    //= protocol-spec/06-feeds.md#signing-by-hand-over
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        self.encode_to(&mut out);
        out
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for other than [`LEN`](Self::LEN) bytes, another version, and a length that no feed has.
    //= FEED-42
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let signable = Self::decode_from(&mut reader)?;
        if reader.is_empty() { Ok(signable) } else { Err(DecodeError::Invalid("length of a signable")) }
    }

    fn encode_to(&self, out: &mut impl Writer) {
        out.put_bytes(&[VERSION]);
        out.put_bytes(self.key.as_bytes());
        out.put_bytes(&self.tree_hash);
        out.put_uint64(self.length);
        out.put_uint64(self.fork);
    }

    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = reader.u8()?;
        if version != VERSION {
            return Err(DecodeError::Unknown { what: "version of a signable", value: version.into() });
        }
        let signable = Self {
            key: FeedKey::from_bytes(reader.array()?),
            tree_hash: reader.array()?,
            length: reader.uint64()?,
            fork: reader.uint64()?,
        };
        if signable.length > MAX_LENGTH {
            return Err(DecodeError::Invalid("length of a feed"));
        }
        Ok(signable)
    }
}

/// One signer's signature, with what it signed: to be sent to who assembles.
///
/// ```
/// use party::feed::{manifest::Manifest, quorum::{Draft, PartialSignature}, tree::Tree, verifier::Verifier};
/// use party::key::KeyPair;
///
/// let signers = [1, 2].map(|n| KeyPair::from_seed(&[n; 32]));
/// let manifest = Manifest::builder().signers(signers.iter().map(KeyPair::public)).build()?;
/// let verifier = Verifier::new(manifest.key(), manifest)?;
///
/// let draft = Draft::append(verifier, Tree::default(), 0, vec!["we agree".into()])?;
/// let part = draft.sign(&signers[1])?;
/// assert_eq!(part.signer(), 1);
/// assert_eq!(PartialSignature::decode(&part.encode())?, part);
/// # Ok::<(), party::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialSignature {
    signable: Signable,
    signer: u64,
    signature: Signature,
    /// Subtrees from a shorter tree to the one that was signed; see [`Draft::patch`].
    nodes: Vec<Node>,
}

impl PartialSignature {
    /// A signature that was made elsewhere, over [`Signable::message`].
    pub fn new(signable: Signable, signer: u64, signature: Signature) -> Self {
        Self { signable, signer, signature, nodes: Vec::new() }
    }

    /// What was signed.
    pub fn signable(&self) -> &Signable {
        &self.signable
    }

    /// The signer's number in the manifest.
    pub fn signer(&self) -> u64 {
        self.signer
    }

    /// The Ed25519 signature.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Its encoding.
    //= protocol-spec/06-feeds.md#signing-by-hand-over
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Signable::LEN + 80 + 41 * self.nodes.len());
        self.signable.encode_to(&mut out);
        out.put_uint64(self.signer);
        out.put_bytes(&self.signature);
        out.put_uint(self.nodes.len() as u64);
        self.nodes.iter().for_each(|node| encode_node(node, &mut out));
        out
    }

    /// Reads what [`encode`](Self::encode) wrote. Whether the signature holds is checked when it is assembled.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are too few or too many, or are not such an encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let signable = Signable::decode_from(&mut reader)?;
        let signer = reader.uint64()?;
        let signature = reader.array()?;
        let n = reader.count(34, MAX_PATCH)?;
        let nodes = (0..n).map(|_| decode_node(&mut reader)).collect::<Result<_, _>>()?;
        if !reader.is_empty() {
            return Err(DecodeError::Invalid("length of a partial signature"));
        }
        Ok(Self { signable, signer, signature, nodes })
    }
}

/// The next state of a feed, complete but for its signature: blocks to append, or a truncation.
///
/// ```
/// use party::feed::{manifest::Manifest, quorum::{Draft, Signable}, tree::Tree, verifier::Verifier};
/// use party::key::KeyPair;
///
/// let signers = [1, 2, 3].map(|n| KeyPair::from_seed(&[n; 32]));
/// let manifest = Manifest::builder().signers(signers.iter().map(KeyPair::public)).quorum(2).build()?;
/// let verifier = Verifier::new(manifest.key(), manifest)?;
/// let draft = || Draft::append(verifier.clone(), Tree::default(), 0, vec!["we agree".into()]);
///
/// // One asks,
/// let asked = draft()?.signable().encode();
/// // two look at what they would sign, and sign it,
/// let sign = |signer: &KeyPair| -> Result<_, party::error::Error> {
///     let mine = draft()?;
///     mine.check(&Signable::decode(&asked)?)?;
///     Ok(mine.sign(signer)?)
/// };
/// let parts = vec![sign(&signers[2])?, sign(&signers[0])?];
/// // and it is signed.
/// let signature = draft()?.assemble(&parts)?;
/// assert!(verifier.verify(draft()?.tree(), 0, &signature).is_ok());
/// # Ok::<(), party::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Draft {
    verifier: Verifier,
    base: Tree,
    base_fork: u64,
    tree: Tree,
    fork: u64,
    blocks: Vec<Bytes>,
    nodes: Vec<Node>,
}

impl Draft {
    /// The draft of appending `blocks` to a feed that has the tree `base` on `fork`. The blocks are as they will be
    /// stored, so encrypted already if the feed is.
    ///
    /// # Errors
    /// [`SigningError::NothingToSign`] without blocks, [`ApiMisuse::BlockTooLarge`], [`ApiMisuse::NotThePrologue`] if
    /// the feed would not begin as its manifest says, [`ApiMisuse::LimitExceeded`] beyond the longest feed.
    pub fn append(verifier: Verifier, base: Tree, fork: u64, blocks: Vec<Bytes>) -> Result<Self, ApiMisuse> {
        let max = Limits::default().max_block;
        if let Some(block) = blocks.iter().find(|block| block.len() > max) {
            return Err(ApiMisuse::BlockTooLarge { len: block.len(), max });
        }
        if blocks.is_empty() {
            return Err(SigningError::NothingToSign.into());
        }
        if !verifier.keeps_prologue(&base, &blocks) {
            return Err(ApiMisuse::NotThePrologue);
        }
        let mut tree = base.clone();
        let nodes = tree
            .append_blocks(blocks.iter().map(AsRef::as_ref))
            .ok_or(ApiMisuse::LimitExceeded("feed length"))?;
        Ok(Self { verifier, base, base_fork: fork, tree, fork, blocks, nodes })
    }

    /// The draft of truncating a feed that has the tree `base` on `base_fork` to `tree`, which it begins with, on the
    /// higher `fork`.
    ///
    /// # Errors
    /// [`ApiMisuse::FixedByManifest`] if it would cut the prologue; [`SigningError::NothingToSign`] if it is no
    /// truncation.
    pub fn truncation(
        verifier: Verifier,
        (base, base_fork): (Tree, u64),
        (tree, fork): (Tree, u64),
    ) -> Result<Self, ApiMisuse> {
        if tree.length() > base.length() || fork <= base_fork || fork > MAX_SAFE_INTEGER {
            return Err(SigningError::NothingToSign.into());
        }
        if tree.length() < verifier.prologue_length() {
            return Err(ApiMisuse::FixedByManifest(verifier.prologue_length()));
        }
        Ok(Self { verifier, base, base_fork, tree, fork, blocks: Vec::new(), nodes: Vec::new() })
    }

    /// What there is to sign.
    pub fn signable(&self) -> Signable {
        Signable::of(self.verifier.key(), &self.tree, self.fork)
    }

    /// Says whether `signable` is what this draft leads to: the check that a signer makes with a draft of its own.
    ///
    /// # Errors
    /// [`SigningError::OtherFeed`] or [`SigningError::OtherTree`].
    pub fn check(&self, signable: &Signable) -> Result<(), SigningError> {
        if signable.key != self.verifier.key() {
            return Err(SigningError::OtherFeed);
        }
        if *signable == self.signable() { Ok(()) } else { Err(SigningError::OtherTree) }
    }

    /// Signs it as one of the feed's signers.
    ///
    /// # Errors
    /// [`SigningError::NotASigner`].
    //= FEED-43
    pub fn sign(&self, key_pair: &KeyPair) -> Result<PartialSignature, SigningError> {
        self.verifier.sign_part(key_pair, &self.tree, self.fork)
    }

    /// Makes a signature over this draft one for its first blocks up to `length`, by adding the nodes in between. It
    /// counts for a feed whose manifest allows patches.
    ///
    /// # Errors
    /// [`SigningError::PatchNotAllowed`]; [`SigningError::OtherTree`] if `part` was made for another draft, or if
    /// `length` is not one that this draft passes through.
    pub fn patch(&self, part: PartialSignature, length: u64) -> Result<PartialSignature, SigningError> {
        self.check(&part.signable)?;
        if length == self.tree.length() {
            return Ok(part);
        }
        if !self.verifier.allows_patch() {
            return Err(SigningError::PatchNotAllowed { signer: part.signer });
        }
        if length < self.base.length() || length > self.tree.length() || self.blocks.is_empty() {
            return Err(SigningError::OtherTree);
        }
        let known: HashMap<u64, Node> =
            self.nodes.iter().chain(self.base.roots()).map(|node| (node.index, *node)).collect();
        let nodes = filling(length, self.tree.length())
            .map(|position| known.get(&position.index()).copied())
            .collect::<Option<_>>()
            .ok_or(SigningError::OtherTree)?;
        Ok(PartialSignature { nodes, ..part })
    }

    /// The same draft with its first blocks only, up to `length`.
    ///
    /// # Errors
    /// [`SigningError::OtherTree`] if it doesn't pass through that length; else as [`append`](Self::append).
    pub fn shortened(&self, length: u64) -> Result<Self, ApiMisuse> {
        if length == self.tree.length() {
            return Ok(self.clone());
        }
        let n = length
            .checked_sub(self.base.length())
            .and_then(|n| usize::try_from(n).ok())
            .and_then(|n| self.blocks.get(..n))
            .ok_or(SigningError::OtherTree)?;
        Self::append(self.verifier.clone(), self.base.clone(), self.base_fork, n.to_vec())
    }

    /// Makes one signature of the signers' parts, in the order in which they are given; those beyond the quorum are
    /// left out.
    ///
    /// # Errors
    /// As [`Verifier::assemble`].
    pub fn assemble(&self, parts: &[PartialSignature]) -> Result<Bytes, SigningError> {
        self.verifier.assemble(&self.tree, self.fork, parts)
    }

    /// Finds the longest part of this draft that enough signers have signed, and assembles the signature for it.
    /// Without leave to patch these are signers of one length; with it, who signed a longer part counts too.
    ///
    /// # Errors
    /// [`SigningError::TooFew`] if there is none, else as [`Verifier::assemble`].
    pub fn agree(&self, parts: &[PartialSignature]) -> Result<(Self, Bytes), ApiMisuse> {
        if self.truncates() {
            return Ok((self.clone(), self.assemble(parts)?));
        }
        let need = self.verifier.needed();
        let patch = self.verifier.allows_patch();
        let mut parts: Vec<&PartialSignature> = parts
            .iter()
            .filter(|part| {
                let length = part.signable.length;
                length > self.base.length() && length <= self.tree.length()
            })
            .collect();
        // Of several by one signer the longest counts, where it counts for the shorter ones too.
        parts.sort_by_key(|part| std::cmp::Reverse(part.signable.length));
        let mut seen = Vec::new();
        parts.retain(|part| {
            let vote = (part.signer, if patch { 0 } else { part.signable.length });
            let new = !seen.contains(&vote);
            seen.push(vote);
            new
        });
        let too_few = || SigningError::TooFew { have: parts.len() as u64, need };
        let lengths: Vec<u64> = parts.iter().map(|part| part.signable.length).collect();
        let length = if patch {
            signable_length(&lengths, need)
        } else {
            let count = |length: u64| lengths.iter().filter(|other| **other == length).count() as u64;
            lengths.iter().copied().find(|length| count(*length) >= need)
        }
        .ok_or_else(too_few)?;
        let agreed = self.shortened(length)?;
        let mut patched = Vec::new();
        for part in parts.into_iter().filter(|part| part.signable.length >= length) {
            if part.signable.length == length || patch {
                patched.push(self.shortened(part.signable.length)?.patch(part.clone(), length)?);
            }
        }
        let signature = agreed.assemble(&patched)?;
        Ok((agreed, signature))
    }

    /// The tree that it leads to.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The fork that it leads to.
    pub fn fork(&self) -> u64 {
        self.fork
    }

    /// The blocks that it appends; none if it truncates.
    pub fn blocks(&self) -> &[Bytes] {
        &self.blocks
    }

    /// The tree and the fork that it begins with.
    pub fn base(&self) -> (&Tree, u64) {
        (&self.base, self.base_fork)
    }

    /// Whether it cuts the feed off, rather than appends.
    pub fn truncates(&self) -> bool {
        self.fork != self.base_fork
    }

    /// The blocks, and the nodes of the tree that are new with them.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))]
    pub(crate) fn into_blocks(self) -> (Vec<Bytes>, Vec<Node>) {
        (self.blocks, self.nodes)
    }
}

/// The longest length that `quorum` of these signers have reached, as hypercore's `signableLength`; `None` if they
/// are too few. The lengths may stand in any order.
pub fn signable_length(lengths: &[u64], quorum: u64) -> Option<u64> {
    let mut lengths = lengths.to_vec();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    lengths.get(usize::try_from(quorum.max(1)).ok()?.checked_sub(1)?).copied()
}

impl Verifier {
    /// The part of `key_pair` in a signature of `tree`.
    ///
    /// Sign only a tree that you hold: one of a [`Draft`] of your own, or `Feed::tree_at` of a feed that you have.
    ///
    /// # Errors
    /// [`SigningError::NotASigner`].
    pub fn sign_part(
        &self,
        key_pair: &KeyPair,
        tree: &Tree,
        fork: u64,
    ) -> Result<PartialSignature, SigningError> {
        let public_key = key_pair.public();
        let (n, signer) = self.signer_of(&public_key).ok_or(SigningError::NotASigner(public_key))?;
        let signable = Signable::of(self.key(), tree, fork);
        Ok(PartialSignature::new(signable, n, key_pair.sign(&self.message(signer, &signable))))
    }

    /// Makes one signature for `tree` of its signers' parts, in the order in which they are given; parts beyond the
    /// quorum are left out. A tree that is the prologue needs none and gets an empty one, unless the feed was truncated
    /// to it.
    ///
    /// # Errors
    /// [`SigningError`] names the first part that is not good: of another feed, tree or fork, by no signer or
    /// by one that signed already, with a wrong signature, or over a longer tree without leave to patch or without
    /// its [nodes](Draft::patch). [`SigningError::TooFew`] if they are no quorum.
    pub fn assemble(
        &self,
        tree: &Tree,
        fork: u64,
        parts: &[PartialSignature],
    ) -> Result<Bytes, SigningError> {
        if fork == 0 && self.is_prologue(tree) {
            return Ok(Bytes::new());
        }
        let mut seen = Vec::new();
        let mut checked = Vec::new();
        for part in parts {
            let signer = part.signer;
            if seen.contains(&signer) {
                return Err(SigningError::SameSignerTwice { signer });
            }
            seen.push(signer);
            checked.push(self.check_part(tree, fork, part)?);
        }
        let need = self.needed();
        let have = checked.len() as u64;
        if need == 0 || have < need {
            return Err(SigningError::TooFew { have, need });
        }
        checked.truncate(usize::try_from(need).unwrap_or(usize::MAX));
        if self.is_plain() {
            return Ok(checked
                .first()
                .map(|(part, _)| Bytes::copy_from_slice(&part.signature))
                .unwrap_or_default());
        }
        Ok(MultiSignature::assemble(&checked, self.manifest().version))
    }

    //= FEED-44
    fn check_part(
        &self,
        tree: &Tree,
        fork: u64,
        part: &PartialSignature,
    ) -> Result<(Part, Vec<Node>), SigningError> {
        let PartialSignature { signable, signer: n, signature, nodes } = part;
        let n = *n;
        let signer = self.signer(n).ok_or(SigningError::UnknownSigner { signer: n })?;
        if signable.key != self.key() {
            return Err(SigningError::OtherFeed);
        }
        let patch = signable.length.checked_sub(tree.length()).ok_or(SigningError::OtherTree)?;
        let mut nodes = nodes.clone();
        let signed = if patch == 0 {
            nodes.clear();
            Signable::of(self.key(), tree, fork)
        } else {
            if !self.allows_patch() {
                return Err(SigningError::PatchNotAllowed { signer: n });
            }
            let known = nodes.iter().map(|node| (node.index, *node)).collect();
            let longer = self.patched(tree, patch, &known).ok_or(SigningError::MissingPatch { signer: n })?;
            // Those that are no part of it would be sent along for nothing.
            nodes.retain(|node| {
                filling(tree.length(), signable.length).any(|position| position.index() == node.index)
            });
            Signable::of(self.key(), &longer, fork)
        };
        if signed != *signable {
            return Err(SigningError::OtherTree);
        }
        if !signer.public_key.verify(&self.message(signer, &signed), signature) {
            return Err(SigningError::WrongSignature { signer: n });
        }
        Ok((Part { signer: n, signature: *signature, patch }, nodes))
    }
}
