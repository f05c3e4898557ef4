//! One revocation: who takes back what, and how much of the removed writer's feeds stays good.

use std::collections::BTreeMap;

use crate::{
    credentials::{
        link::LinkId,
        membership::{CheckedChain, Membership},
        namespaces,
        quota::{Branch, Item},
    },
    encoding::{MAX_SAFE_INTEGER, Reader, Writer as _},
    error::{CredentialFlaw, DecodeError},
    hash::{Hash, hash},
    key::{DiscoveryKey, KeyPair, PartyKey, PublicKey, Signature},
    limits::Limits,
};

const VERSION: u8 = 1;

/// A signed statement that ends a membership, as somebody says. It holds for ever: there is no way to take it back.
///
/// It carries the chain that leads to what it revokes. Who signs it stands on that chain: the founder, a member that
/// the chain goes through, or the holder itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    chain: Membership,
    signer_depth: u64,
    revoked: Revoked,
    cut_offs: Vec<CutOff>,
    signature: Signature,
}

/// What a revocation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revoked {
    /// The last link of the chain, and whatever goes through it. The same key may be granted something anew.
    Link,
    /// The key that it names: every chain in which this key stands below the signer's, those yet to be made
    /// included.
    Key,
}

/// Up to where a feed of a removed writer stays good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CutOff {
    /// The feed.
    pub feed: DiscoveryKey,
    /// Its fork: no tree of a higher one is to be taken.
    pub fork: u64,
    /// How many blocks are good.
    pub length: u64,
}

/// A revocation that is signed by somebody on the chain that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedRevocation {
    chain: CheckedChain,
    revocation: Revocation,
    id: Hash,
}

impl Revocation {
    /// Revokes the last link of `chain`, or the key that it names. Of several cut-offs of one feed the lowest is
    /// taken.
    ///
    /// # Errors
    /// [`CredentialFlaw::NotTheSigner`] if `signer` is neither the founder nor named by a link of the chain;
    /// [`CredentialFlaw`] if a number is too large or there are too many cut-offs.
    pub fn sign(
        chain: &CheckedChain,
        signer: &KeyPair,
        revoked: Revoked,
        cut_offs: impl IntoIterator<Item = CutOff>,
        limits: &Limits,
    ) -> Result<Self, CredentialFlaw> {
        let depth = chain.depth_of(&signer.public()).ok_or(CredentialFlaw::NotTheSigner)?;
        let mut by_feed: BTreeMap<DiscoveryKey, CutOff> = BTreeMap::new();
        for cut_off in cut_offs {
            if cut_off.fork.max(cut_off.length) > MAX_SAFE_INTEGER {
                return Err(CredentialFlaw::Invalid("cut-off"));
            }
            by_feed
                .entry(cut_off.feed)
                .and_modify(|lowest| *lowest = cut_off.min(*lowest))
                .or_insert(cut_off);
        }
        if by_feed.len() > limits.max_cut_offs {
            return Err(CredentialFlaw::LimitExceeded("max_cut_offs"));
        }
        let mut revocation = Self {
            chain: chain.membership().clone(),
            signer_depth: depth as u64,
            revoked,
            cut_offs: by_feed.into_values().collect(),
            signature: [0; 64],
        };
        revocation.signature = signer.sign(&signed_bytes(&revocation.id(chain.id())));
        Ok(revocation)
    }

    /// Checks that it is signed by who may: one signature is verified for each link, and one more.
    ///
    /// Whether a link has expired doesn't matter: what is revoked must be the same for everybody, whenever they hear
    /// of it.
    ///
    /// # Errors
    /// [`CredentialFlaw`] of the chain, or [`CredentialFlaw::RevocationSignature`].
    //= CRED-24, CRED-25, CRED-27
    pub fn verify(&self, party: &PartyKey) -> Result<VerifiedRevocation, CredentialFlaw> {
        let chain = self.chain.check(party)?;
        let depth = usize::try_from(self.signer_depth).ok().filter(|depth| *depth <= chain.len());
        let signer = chain.node(depth.ok_or(CredentialFlaw::RevocationSignature)?);
        let id = self.id(chain.id());
        if !signer.verify(&signed_bytes(&id), &self.signature) {
            return Err(CredentialFlaw::RevocationSignature);
        }
        Ok(VerifiedRevocation { chain, revocation: self.clone(), id })
    }

    /// The bytes of it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.put_bytes(&self.chain.encode());
        self.encode_statement(&mut out);
        out.put_bytes(&self.signature);
        out
    }

    /// Reads what [`encode`](Self::encode) has written, and nothing else.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are no revocation, or go beyond the limits.
    //= CRED-1, CRED-26
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            other => {
                return Err(DecodeError::Unknown { what: "version of a revocation", value: other.into() });
            }
        }
        let chain = Membership::read(&mut reader, limits)?;
        let signer_depth = reader.uint()?;
        let revoked = match reader.u8()? {
            0 => Revoked::Link,
            1 => Revoked::Key,
            other => {
                return Err(DecodeError::Unknown { what: "kind of a revocation", value: other.into() });
            }
        };
        let count = reader.count(34, limits.max_cut_offs)?;
        let cut_offs = (0..count).map(|_| {
            let feed = DiscoveryKey::from_bytes(reader.array()?);
            Ok(CutOff { feed, fork: reader.uint()?, length: reader.uint()? })
        });
        let cut_offs: Vec<CutOff> = cut_offs.collect::<Result<_, DecodeError>>()?;
        let revocation = Self { chain, signer_depth, revoked, cut_offs, signature: reader.array()? };
        let is_sorted = revocation.cut_offs.is_sorted_by(|a, b| a.feed < b.feed);
        if !is_sorted || !reader.is_empty() || revocation.encode() != bytes {
            return Err(DecodeError::Invalid("encoding of a revocation"));
        }
        Ok(revocation)
    }

    /// The id that it would have in this party. It says nothing before the revocation is verified.
    pub(super) fn claimed_id(&self, party: &PartyKey) -> Hash {
        self.id(self.chain.claimed_id(party))
    }

    //= CRED-23
    fn id(&self, chain: LinkId) -> Hash {
        let mut statement = Vec::new();
        self.encode_statement(&mut statement);
        hash(&[&namespaces::revocation(), chain.as_bytes(), &statement])
    }

    fn encode_statement(&self, out: &mut Vec<u8>) {
        out.put_uint(self.signer_depth);
        out.put_bytes(&[match self.revoked {
            Revoked::Link => 0,
            Revoked::Key => 1,
        }]);
        out.put_uint(self.cut_offs.len() as u64);
        for cut_off in &self.cut_offs {
            out.put_bytes(cut_off.feed.as_bytes());
            out.put_uint(cut_off.fork);
            out.put_uint(cut_off.length);
        }
    }
}

impl VerifiedRevocation {
    /// Names it: a hash of all that it says. A second signature under the same words makes no other revocation.
    pub fn id(&self) -> &Hash {
        &self.id
    }

    /// The chain whose last link, or the key that it names, is revoked.
    pub fn chain(&self) -> &CheckedChain {
        &self.chain
    }

    /// Whether it is the link or the key.
    pub fn revoked(&self) -> Revoked {
        self.revocation.revoked
    }

    /// Who has signed it.
    pub fn signer(&self) -> PublicKey {
        self.chain.node(self.signer_depth())
    }

    /// Up to where feeds of the removed writer stay good, in the order of their discovery keys.
    pub fn cut_offs(&self) -> &[CutOff] {
        &self.revocation.cut_offs
    }

    /// The revocation as it is sent.
    pub fn revocation(&self) -> &Revocation {
        &self.revocation
    }

    /// Whether it ends this chain.
    //= CRED-28
    pub fn ends(&self, chain: &CheckedChain) -> bool {
        self.chain.party() == chain.party() && self.hits(chain).is_some()
    }

    /// Whether it ends this chain, and if so, at which depth of the chain its signer stands.
    //= protocol-spec/11-credentials.md#what-a-revocation-ends
    pub(super) fn hits(&self, chain: &CheckedChain) -> Option<usize> {
        match self.revocation.revoked {
            Revoked::Link => chain.ids().contains(&self.chain.id()).then(|| self.signer_depth()),
            Revoked::Key => {
                let depth = chain.depth_of(&self.signer())?;
                let key = self.chain.holder();
                (depth.max(1)..=chain.len()).any(|below| chain.node(below) == key).then_some(depth)
            }
        }
    }

    /// At which depth of its own chain the signer stands; checked when it was verified.
    fn signer_depth(&self) -> usize {
        self.revocation.signer_depth as usize
    }
}

impl Item for VerifiedRevocation {
    fn id(&self) -> Hash {
        self.id
    }

    fn branch(&self) -> Branch {
        Branch::of(&self.chain, self.signer_depth())
    }

    /// Who stands nearer to the founder comes first; those at the same depth take turns, each with its lowest id
    /// first.
    //= protocol-spec/11-credentials.md#quotas
    fn last(items: &BTreeMap<Hash, Self>) -> Option<Hash> {
        // A key may stand at two depths: its turns at one don't depend on what it has signed at the other.
        let mut seen: BTreeMap<(usize, PublicKey), usize> = BTreeMap::new();
        let ranked = items.iter().map(|(id, item)| {
            let turn = seen.entry((item.signer_depth(), item.signer())).or_default();
            *turn += 1;
            (item.signer_depth(), *turn, *id)
        });
        ranked.max().map(|(_, _, id)| id)
    }
}

/// What the signature of the revocation with this id is over.
fn signed_bytes(id: &Hash) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&namespaces::revocation_signature());
    bytes[32..].copy_from_slice(id);
    bytes
}
