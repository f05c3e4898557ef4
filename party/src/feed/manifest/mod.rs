//! The manifest says who may append to a feed; the feed's key is its hash.
//!
//! [`Manifest::builder`] makes one that any peer can verify. A manifest that came from somewhere else is
//! checked by [`Verifier::new`](crate::feed::verifier::Verifier::new). The layout is that of hypercore 11's
//! `lib/messages.js`; see `protocol-spec/06-feeds.md`.

mod builder;

use bytes::Bytes;

pub use self::builder::{MAX_USER_DATA, ManifestBuilder};

use crate::{
    encoding::{MAX_SAFE_INTEGER, Reader, Writer},
    error::DecodeError,
    feed::tree::Tree,
    hash::{Hash, hash, namespace},
    key::{FeedKey, PublicKey},
    limits::Limits,
};

const PATCH: u64 = 1;
const PROLOGUE: u64 = 2;
const LINKED: u64 = 4;
const USER_DATA: u64 = 8;

/// Namespace `n` of the six that hypercore derives from its own name.
pub(crate) fn hypercore_namespace(n: u8) -> Hash {
    namespace("hypercore", n)
}

/// The namespace of a signer that names no other.
pub fn default_namespace() -> Hash {
    hypercore_namespace(4)
}

/// Who signs a feed and how many of them must.
///
/// ```
/// use party::encoding::Reader;
/// use party::feed::manifest::Manifest;
/// use party::{key::KeyPair, limits::Limits};
///
/// let writer = KeyPair::from_seed(&[1; 32]).public();
/// let manifest = Manifest::single(writer);
/// assert_eq!((manifest.quorum, manifest.signers[0].public_key), (1, writer));
///
/// // Another word in it, and it is another feed.
/// let other = Manifest::builder().signer(writer).user_data("minutes").build()?;
/// assert_ne!(manifest.key(), other.key());
///
/// let mut bytes = Vec::new();
/// other.encode(&mut bytes);
/// assert_eq!(Manifest::decode(&mut Reader::new(&bytes), &Limits::default())?, other);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// 0, 1 or 2: the layout, and what signatures are made over.
    pub version: u8,
    /// Whether signers may have signed a shorter tree, patched up by the rest.
    pub allow_patch: bool,
    /// How many signers must have signed.
    pub quorum: u64,
    /// All signers.
    pub signers: Vec<Signer>,
    /// A tree that needs no signature.
    pub prologue: Option<Prologue>,
    /// Keys of feeds that belong to this one (version 2).
    pub linked: Option<Vec<FeedKey>>,
    /// Bytes of the application's (version 2).
    pub user_data: Option<Bytes>,
}

/// One Ed25519 signer.
///
/// ```
/// use party::feed::manifest::{Manifest, default_namespace};
/// use party::key::KeyPair;
///
/// let writer = KeyPair::from_seed(&[1; 32]).public();
/// let plain = Manifest::builder().signer(writer).build()?;
/// assert_eq!(plain.signers[0].namespace, default_namespace());
///
/// // The same key in a namespace of its own signs another feed.
/// let second = Manifest::builder().signer_in([2; 32], writer).build()?;
/// assert_eq!(second.signers[0].public_key, writer);
/// assert_ne!(second.key(), plain.key());
/// # Ok::<(), party::error::ApiMisuse>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Separates signatures of version 0; part of the hash in all versions.
    pub namespace: Hash,
    /// The key that signs.
    pub public_key: PublicKey,
}

/// A tree that needs no signature: all of a static feed, or the start of a signed one.
///
/// ```
/// use party::feed::{manifest::{Manifest, Prologue}, tree::Tree, verifier::Verifier};
/// use party::key::KeyPair;
///
/// let prologue = Prologue::of_blocks(&["chapter one", "chapter two"]).unwrap();
/// assert!(!prologue.is(&Tree::default()));
///
/// // Nobody signs such a feed, and nobody can add to it.
/// let manifest = Manifest::builder().prologue(prologue).build()?;
/// let verifier = Verifier::new(manifest.key(), manifest)?;
/// assert!(!verifier.is_signer(&KeyPair::from_seed(&[1; 32])));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prologue {
    /// The tree's hash.
    pub hash: Hash,
    /// Its length in blocks; 0 in version 0, where it is not written.
    pub length: u64,
}

impl Prologue {
    /// The prologue that is this tree.
    pub fn of(tree: &Tree) -> Self {
        Self { hash: tree.hash(), length: tree.length() }
    }

    /// The prologue of a static feed with these blocks; `None` if they are more than a feed can hold.
    ///
    /// ```
    /// use party::feed::manifest::{Manifest, Prologue};
    ///
    /// let prologue = Prologue::of_blocks(&["chapter one", "chapter two"]).unwrap();
    /// let manifest = Manifest::builder().prologue(prologue).build()?;
    /// assert_eq!(prologue.length, 2);
    /// assert!(manifest.signers.is_empty());
    /// # Ok::<(), party::error::ApiMisuse>(())
    /// ```
    pub fn of_blocks<B: AsRef<[u8]>>(blocks: &[B]) -> Option<Self> {
        let mut tree = Tree::default();
        tree.append_blocks(blocks.iter().map(AsRef::as_ref))?;
        Some(Self::of(&tree))
    }

    /// Whether `tree` is the one that this prologue stands for.
    pub fn is(&self, tree: &Tree) -> bool {
        tree.length() == self.length && tree.hash() == self.hash
    }
}

impl Manifest {
    /// Begins a manifest: of several signers, with a prologue, with linked feeds or user data.
    ///
    /// ```
    /// use party::feed::manifest::Manifest;
    /// use party::key::KeyPair;
    ///
    /// let editors = [1, 2, 3].map(|n| KeyPair::from_seed(&[n; 32]));
    /// let manifest = Manifest::builder()
    ///     .signers(editors.iter().map(KeyPair::public))
    ///     .quorum(2)
    ///     .user_data("minutes of the board")
    ///     .build()?;
    /// assert_eq!(manifest.version, 2);
    /// assert_eq!(manifest.key(), manifest.clone().key());
    /// # Ok::<(), party::error::ApiMisuse>(())
    /// ```
    pub fn builder() -> ManifestBuilder {
        ManifestBuilder::new()
    }

    /// The manifest of a feed with one signer, as hypercore 11 makes it when told nothing else.
    pub fn single(public_key: PublicKey) -> Self {
        Self {
            version: 1,
            allow_patch: false,
            quorum: 1,
            signers: vec![Signer { namespace: default_namespace(), public_key }],
            prologue: None,
            linked: None,
            user_data: None,
        }
    }

    /// The manifest that a legacy feed is taken to have: version 0, the key itself as the only signer.
    pub fn legacy(public_key: PublicKey) -> Self {
        Self { version: 0, ..Self::single(public_key) }
    }

    /// The key of the feed with this manifest: the hash of its encoding.
    //= FEED-1
    pub fn key(&self) -> FeedKey {
        let mut out = Vec::new();
        self.encode(&mut out);
        FeedKey::from_bytes(hash(&[&hypercore_namespace(3), &out]))
    }

    /// Whether no peer would take it, whatever its hash: more signatures wanted than there are signers, or
    /// fields that its version doesn't have. An empty list of linked feeds says nothing and is let pass in
    /// version 1, as hypercore lets it.
    //= FEED-11, FEED-12, FEED-13
    pub(crate) fn contradicts_itself(&self) -> bool {
        let linked = self.linked.as_ref().is_some_and(|linked| !linked.is_empty());
        self.version > 2
            || self.quorum > self.signers.len() as u64
            || self.version < 2 && (linked || self.user_data.is_some())
            || self.prologue.is_some_and(|prologue| prologue.length > MAX_SAFE_INTEGER)
    }

    /// Appends the encoding. Numbers that no peer could read, which only a manifest made by hand has, are cut
    /// down to the largest that one can; [`Verifier::new`](crate::feed::verifier::Verifier::new) refuses these.
    pub fn encode(&self, out: &mut impl Writer) {
        out.put_uint(self.version.into());
        if self.version == 0 {
            return self.encode_v0(out);
        }
        let flag = |set: bool, flag: u64| if set { flag } else { 0 };
        out.put_uint(
            flag(self.allow_patch, PATCH)
                | flag(self.prologue.is_some(), PROLOGUE)
                | flag(self.linked.is_some(), LINKED)
                | flag(self.user_data.is_some(), USER_DATA),
        );
        out.put_uint(0); // the hash function: BLAKE2b
        out.put_uint(self.quorum.min(MAX_SAFE_INTEGER));
        self.encode_signers(out);
        if let Some(prologue) = &self.prologue {
            out.put_bytes(&prologue.hash);
            out.put_uint(prologue.length.min(MAX_SAFE_INTEGER));
        }
        if let Some(linked) = &self.linked {
            out.put_uint(linked.len() as u64);
            linked.iter().for_each(|key| out.put_bytes(key.as_bytes()));
        }
        if let Some(user_data) = &self.user_data {
            out.put_buffer(user_data);
        }
    }

    //= FEED-8
    fn encode_v0(&self, out: &mut impl Writer) {
        out.put_uint(0); // the hash function: BLAKE2b
        match (&self.prologue, self.signers.as_slice()) {
            (Some(prologue), []) => {
                out.put_uint(0);
                out.put_bytes(&prologue.hash);
            }
            (_, [signer]) if self.quorum == 1 && !self.allow_patch => {
                out.put_uint(1);
                signer.encode(out);
            }
            _ => {
                out.put_uint(2);
                out.put_uint(self.allow_patch.into());
                out.put_uint(self.quorum.min(MAX_SAFE_INTEGER));
                self.encode_signers(out);
            }
        }
    }

    fn encode_signers(&self, out: &mut impl Writer) {
        out.put_uint(self.signers.len() as u64);
        self.signers.iter().for_each(|signer| signer.encode(out));
    }

    /// Reads a manifest from the front of `reader`.
    ///
    /// # Errors
    /// A [`DecodeError`] for a version, type, hash or signature scheme that is not known, and for more
    /// signers or linked keys than [`Limits::max_signers`].
    //= FEED-5, FEED-6, LIMIT-15
    pub fn decode(reader: &mut Reader<'_>, limits: &Limits) -> Result<Self, DecodeError> {
        let version = known("manifest version", reader.uint()?, 2)?;
        if version == 0 {
            return Self::decode_v0(reader, limits);
        }
        // Those that are not known are passed over, and are not part of what is hashed to see whose manifest it is.
        //= FEED-10
        let flags = reader.uint()?;
        known("manifest hash", reader.uint()?, 0)?;
        let quorum = reader.uint()?;
        let signers = decode_signers(reader, limits)?;
        let prologue = if flags & PROLOGUE != 0 {
            Some(Prologue { hash: reader.array()?, length: reader.uint()? })
        } else {
            None
        };
        let linked = if flags & LINKED != 0 {
            let n = reader.count(32, limits.max_signers)?;
            Some(
                (0..n)
                    .map(|_| Ok(FeedKey::from_bytes(reader.array()?)))
                    .collect::<Result<_, DecodeError>>()?,
            )
        } else {
            None
        };
        let user_data =
            if flags & USER_DATA != 0 { Some(Bytes::copy_from_slice(reader.buffer()?)) } else { None };
        Ok(Self {
            version: version as u8,
            allow_patch: flags & PATCH != 0,
            quorum,
            signers,
            prologue,
            linked,
            user_data,
        })
    }

    //= FEED-7
    fn decode_v0(reader: &mut Reader<'_>, limits: &Limits) -> Result<Self, DecodeError> {
        known("manifest hash", reader.uint()?, 0)?;
        let mut manifest = Self {
            version: 0,
            allow_patch: false,
            quorum: 0,
            signers: Vec::new(),
            prologue: None,
            linked: None,
            user_data: None,
        };
        match known("manifest type", reader.uint()?, 2)? {
            0 => manifest.prologue = Some(Prologue { hash: reader.array()?, length: 0 }),
            1 => {
                manifest.quorum = 1;
                manifest.signers = vec![Signer::decode(reader)?];
            }
            _ => {
                manifest.allow_patch = reader.uint()? & PATCH != 0;
                manifest.quorum = reader.uint()?;
                manifest.signers = decode_signers(reader, limits)?;
            }
        }
        Ok(manifest)
    }
}

impl Signer {
    fn encode(&self, out: &mut impl Writer) {
        out.put_uint(0); // the signature scheme: Ed25519
        out.put_bytes(&self.namespace);
        out.put_bytes(self.public_key.as_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        known("signature scheme", reader.uint()?, 0)?;
        Ok(Self { namespace: reader.array()?, public_key: PublicKey::from_bytes(reader.array()?) })
    }
}

fn decode_signers(reader: &mut Reader<'_>, limits: &Limits) -> Result<Vec<Signer>, DecodeError> {
    let n = reader.count(65, limits.max_signers)?;
    (0..n).map(|_| Signer::decode(reader)).collect()
}

fn known(what: &'static str, value: u64, max: u64) -> Result<u64, DecodeError> {
    if value > max { Err(DecodeError::Unknown { what, value }) } else { Ok(value) }
}
