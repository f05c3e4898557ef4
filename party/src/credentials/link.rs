//! One link of a chain: what is granted to whom, and the signature of who grants it.

use std::fmt;

use crate::{
    credentials::{
        namespaces,
        terms::{Extent, Feeds, Terms},
    },
    encoding::{MAX_SAFE_INTEGER, Reader, Writer as _},
    error::{CredentialFlaw, DecodeError},
    hash::{Hash, hash},
    key::{DiscoveryKey, KeyPair, PartyKey, PublicKey, Signature},
    limits::Limits,
};

const READ: u8 = 1;
const BRING: u8 = 1 << 1;
const BLIND: u8 = 1 << 2;
const DEVICE: u8 = 1 << 3;
const EXPIRES: u8 = 1 << 4;
const FEEDS: u8 = 1 << 5;
const RANGE: u8 = 1 << 6;
const NEWEST: u8 = 1 << 7;

/// Names a link, and with it the chain up to it: a hash of all that was granted, to whom and in which party.
///
/// The signature is not part of it, so that a link that is signed a second time is the same link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub(super) Hash);

/// What stands before the first link.
pub(super) const ORIGIN: LinkId = LinkId([0; 32]);

/// What a link says: to whom, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The key that is named: it signs the next link, or is the static key of the peer that shows the membership.
    pub subject: PublicKey,
    /// The subject is a device of who signs the link, and not a member of its own. A device can't delegate.
    pub is_device: bool,
    /// Tells links apart that are otherwise the same: what was revoked and is granted again needs another one.
    /// The time of issue does. At most 2^53 - 1.
    pub serial: u64,
    /// What the subject may.
    pub terms: Terms,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) grant: Grant,
    pub(super) signature: Signature,
}

impl LinkId {
    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &Hash {
        &self.0
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkId({self})")
    }
}

impl Grant {
    /// To another member, under these terms.
    pub fn to(subject: PublicKey, terms: Terms) -> Self {
        Self { subject, is_device: false, serial: 0, terms }
    }

    /// To a device of who signs.
    pub fn device(subject: PublicKey, terms: Terms) -> Self {
        Self { is_device: true, ..Self::to(subject, terms) }
    }

    /// With this serial number.
    #[must_use]
    pub fn with_serial(self, serial: u64) -> Self {
        Self { serial, ..self }
    }

    /// What doesn't depend on the link before. `link` is which one this is.
    pub(super) fn check(&self, link: usize, limits: &Limits) -> Result<(), CredentialFlaw> {
        self.check_subject(link)?;
        if self.serial > MAX_SAFE_INTEGER {
            return Err(CredentialFlaw::Invalid("serial number"));
        }
        self.terms.check(limits)
    }

    /// What holds of a subject whatever the limits.
    //= CRED-15, CRED-19
    pub(super) fn check_subject(&self, link: usize) -> Result<(), CredentialFlaw> {
        if !self.subject.is_usable() {
            return Err(CredentialFlaw::BadKey { link });
        }
        if self.is_device && self.terms.depth > 0 {
            return Err(CredentialFlaw::DeviceDelegates { link });
        }
        Ok(())
    }

    /// The id of a link that says this after the link `before`.
    //= CRED-2
    pub(super) fn id(&self, party: &PartyKey, before: LinkId) -> LinkId {
        let mut body = Vec::new();
        self.encode(&mut body);
        LinkId(hash(&[&namespaces::link(), party.as_bytes(), &before.0, &body]))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let terms = &self.terms;
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let flags = flag(terms.may_read, READ)
            | flag(terms.may_bring, BRING)
            | flag(terms.is_blind, BLIND)
            | flag(self.is_device, DEVICE)
            | flag(terms.expires.is_some(), EXPIRES)
            | flag(matches!(terms.feeds, Feeds::Only(_)), FEEDS)
            | flag(matches!(terms.extent, Extent::Range(_)), RANGE)
            | flag(matches!(terms.extent, Extent::Newest(_)), NEWEST);
        out.put_bytes(self.subject.as_bytes());
        out.put_bytes(&[flags]);
        out.put_uint(terms.depth);
        out.put_uint(self.serial);
        if let Some(at) = terms.expires {
            out.put_uint(at);
        }
        if let Feeds::Only(feeds) = &terms.feeds {
            out.put_uint(feeds.len() as u64);
            feeds.iter().for_each(|feed| out.put_bytes(feed.as_bytes()));
        }
        match &terms.extent {
            Extent::Whole => {}
            Extent::Range(range) => {
                out.put_uint(range.start);
                out.put_uint(range.end);
            }
            Extent::Newest(n) => out.put_uint(*n),
        }
    }

    //= CRED-5, CRED-7, CRED-8
    fn decode(reader: &mut Reader<'_>, limits: &Limits) -> Result<Self, DecodeError> {
        let subject = PublicKey::from_bytes(reader.array()?);
        let flags = reader.u8()?;
        let has = |bit: u8| flags & bit != 0;
        let depth = reader.uint()?;
        let serial = reader.uint()?;
        let expires = if has(EXPIRES) { Some(reader.uint()?) } else { None };
        let feeds = if has(FEEDS) {
            let count = reader.count(32, limits.max_link_feeds)?;
            let feeds = (0..count).map(|_| Ok(DiscoveryKey::from_bytes(reader.array()?)));
            Feeds::Only(feeds.collect::<Result<_, DecodeError>>()?)
        } else {
            Feeds::All
        };
        let extent = match (has(RANGE), has(NEWEST)) {
            (false, false) => Extent::Whole,
            (true, false) => Extent::Range(reader.uint()?..reader.uint()?),
            (false, true) => Extent::Newest(reader.uint()?),
            (true, true) => return Err(DecodeError::Invalid("range of blocks")),
        };
        let terms = Terms {
            feeds,
            extent,
            may_read: has(READ),
            may_bring: has(BRING),
            is_blind: has(BLIND),
            expires,
            depth,
        };
        terms.check(limits).map_err(|_| DecodeError::Invalid("terms of a link"))?;
        Ok(Self { subject, is_device: has(DEVICE), serial, terms })
    }
}

impl Link {
    pub(super) fn sign(grant: Grant, party: &PartyKey, before: LinkId, issuer: &KeyPair) -> Self {
        let signature = issuer.sign(&signed_bytes(grant.id(party, before)));
        Self { grant, signature }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        self.grant.encode(out);
        out.put_bytes(&self.signature);
    }

    pub(super) fn decode(reader: &mut Reader<'_>, limits: &Limits) -> Result<Self, DecodeError> {
        Ok(Self { grant: Grant::decode(reader, limits)?, signature: reader.array()? })
    }
}

/// What the signature of the link with this id is over.
pub(super) fn signed_bytes(id: LinkId) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&namespaces::link_signature());
    bytes[32..].copy_from_slice(&id.0);
    bytes
}
