//! The chain of links, and what it takes to believe one.

use crate::{
    credentials::{
        link::{Grant, Link, LinkId, ORIGIN, signed_bytes},
        terms::Terms,
    },
    encoding::{Reader, Writer as _},
    error::{CredentialFlaw, DecodeError},
    key::{KeyPair, PartyKey, PublicKey},
    limits::Limits,
};

const VERSION: u8 = 1;

/// A chain of links from the party's founder to a member, as somebody says. See the [module](super) for an example.
///
/// It is no secret, but shows who has let whom in, and under which terms. [`verify_for`](Self::verify_for) before
/// anything is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    links: Vec<Link>,
}

/// A chain whose links are signed by who may sign them, each narrowing the one before it.
///
/// It doesn't say that somebody shows it, that it is good now, or that it was not revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedChain {
    party: PartyKey,
    membership: Membership,
    ids: Vec<LinkId>,
}

/// A chain that was shown by the peer that it names and had not expired when it was verified.
///
/// It may have been revoked: see [`Revocations::is_revoked`](super::Revocations::is_revoked).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedMembership {
    chain: CheckedChain,
}

impl Membership {
    /// The chain's first link, signed by the founder of the party, whose public half is the party key.
    ///
    /// # Errors
    /// [`CredentialFlaw`] if the grant can't be expressed within the limits.
    pub fn found(founder: &KeyPair, grant: Grant, limits: &Limits) -> Result<Self, CredentialFlaw> {
        grant.check(1, limits)?;
        let party = PartyKey::from_bytes(*founder.public().as_bytes());
        Self { links: vec![Link::sign(grant, &party, ORIGIN, founder)] }.within(limits)
    }

    /// This chain with one more link, signed by who holds the key that the last link names. Needs no connection to
    /// anybody.
    ///
    /// # Errors
    /// [`CredentialFlaw`] if `holder` is not the last link's key, if the grant is not narrower in every way, or does
    /// not fit into the limits; and if this chain itself does not hold.
    pub fn extend(
        &self,
        party: &PartyKey,
        holder: &KeyPair,
        grant: Grant,
        limits: &Limits,
    ) -> Result<Self, CredentialFlaw> {
        let chain = self.check(party)?;
        if chain.holder() != holder.public() {
            return Err(CredentialFlaw::NotTheSigner);
        }
        let link = self.links.len() + 1;
        grant.check(link, limits)?;
        let widens = |what| CredentialFlaw::Widens { link, what };
        grant.terms.check_narrows(chain.terms()).map_err(widens)?;
        let mut links = self.links.clone();
        links.push(Link::sign(grant, party, chain.id(), holder));
        Self { links }.within(limits)
    }

    /// Checks every link, whoever shows the chain and whenever: one signature is verified for each.
    ///
    /// # Errors
    /// The first [`CredentialFlaw`] along the chain.
    //= CRED-20, CRED-21
    pub fn check(&self, party: &PartyKey) -> Result<CheckedChain, CredentialFlaw> {
        let mut ids = Vec::with_capacity(self.links.len());
        let mut above: Option<&Grant> = None;
        // What costs little first, of all links.
        for (link, at) in self.links.iter().zip(1..) {
            link.grant.check_subject(at)?;
            if let Some(above) = above {
                let widens = |what| CredentialFlaw::Widens { link: at, what };
                link.grant.terms.check_narrows(&above.terms).map_err(widens)?;
            }
            ids.push(link.grant.id(party, ids.last().copied().unwrap_or(ORIGIN)));
            above = Some(&link.grant);
        }
        let mut issuer = PublicKey::from_bytes(*party.as_bytes());
        for ((link, id), at) in self.links.iter().zip(&ids).zip(1..) {
            if !issuer.verify(&signed_bytes(*id), &link.signature) {
                return Err(CredentialFlaw::Signature { link: at });
            }
            issuer = link.grant.subject;
        }
        Ok(CheckedChain { party: *party, membership: self.clone(), ids })
    }

    /// Checks every link, and that the chain is the peer's whose static key the handshake of the connection has
    /// proved, at the time `now` in seconds since 1970 UTC.
    ///
    /// # Errors
    /// As [`check`](Self::check); [`CredentialFlaw::OtherKey`] and [`CredentialFlaw::Expired`], for which no
    /// signature is verified.
    //= CRED-17, CRED-18, CRED-22
    pub fn verify_for(
        &self,
        party: &PartyKey,
        remote: &PublicKey,
        now: u64,
    ) -> Result<VerifiedMembership, CredentialFlaw> {
        let last = &self.last().grant;
        if last.subject != *remote {
            return Err(CredentialFlaw::OtherKey);
        }
        // The last link expires first, or a link widens.
        if let Some(at) = last.terms.expires.filter(|_| last.terms.is_expired(now)) {
            return Err(CredentialFlaw::Expired(at));
        }
        Ok(VerifiedMembership { chain: self.check(party)? })
    }

    /// The bytes of it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.put_uint(self.links.len() as u64);
        self.links.iter().for_each(|link| link.encode(&mut out));
        out
    }

    /// Reads what [`encode`](Self::encode) has written, and nothing else: a chain has one encoding.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are no chain, or go beyond the limits.
    //= CRED-3, CRED-4, CRED-6, CRED-10, CRED-16
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let membership = Self::read(&mut reader, limits)?;
        if !reader.is_empty() {
            return Err(DecodeError::Invalid("end of a membership"));
        }
        Ok(membership)
    }

    pub(super) fn read(reader: &mut Reader<'_>, limits: &Limits) -> Result<Self, DecodeError> {
        let start = reader.remaining();
        match reader.u8()? {
            VERSION => {}
            other => {
                return Err(DecodeError::Unknown { what: "version of a membership", value: other.into() });
            }
        }
        let count = reader.count(96, limits.max_links)?;
        if count == 0 {
            return Err(DecodeError::Invalid("membership without a link"));
        }
        let links = (0..count).map(|_| Link::decode(reader, limits)).collect::<Result<_, _>>()?;
        let membership = Self { links };
        let read = &start[..start.len() - reader.remaining().len()];
        if read.len() > limits.max_membership {
            return Err(DecodeError::Invalid("length of a membership"));
        }
        // Integers in a longer form than need be, and feeds out of order or twice.
        //= CRED-1, CRED-4
        if membership.encode() != read {
            return Err(DecodeError::Invalid("encoding of a membership"));
        }
        Ok(membership)
    }

    /// The key that the last link names, which nothing vouches for yet.
    pub fn claimed_holder(&self) -> PublicKey {
        self.last().grant.subject
    }

    /// The id that the chain would have in this party. It says nothing before the chain is checked.
    pub(super) fn claimed_id(&self, party: &PartyKey) -> LinkId {
        self.links.iter().fold(ORIGIN, |before, link| link.grant.id(party, before))
    }

    fn last(&self) -> &Link {
        self.links.last().expect("a chain has a link")
    }

    fn within(self, limits: &Limits) -> Result<Self, CredentialFlaw> {
        if self.links.len() > limits.max_links {
            return Err(CredentialFlaw::LimitExceeded("max_links"));
        }
        if self.encode().len() > limits.max_membership {
            return Err(CredentialFlaw::LimitExceeded("max_membership"));
        }
        Ok(self)
    }
}

impl CheckedChain {
    /// What the holder may.
    //= CRED-14
    pub fn terms(&self) -> &Terms {
        &self.membership.last().grant.terms
    }

    /// The key that the last link names: the static key of the peer, or an identity that signs devices.
    pub fn holder(&self) -> PublicKey {
        self.membership.claimed_holder()
    }

    /// Who the member is: the holder, or, for a device, the one whose device it is.
    pub fn member(&self) -> PublicKey {
        if self.membership.last().grant.is_device { self.node(self.len() - 1) } else { self.holder() }
    }

    /// The serial number of the last link.
    pub fn serial(&self) -> u64 {
        self.membership.last().grant.serial
    }

    /// The id of the last link, which stands for the whole chain.
    pub fn id(&self) -> LinkId {
        self.ids[self.ids.len() - 1]
    }

    /// The ids of the links, the founder's first.
    pub fn ids(&self) -> &[LinkId] {
        &self.ids
    }

    /// The keys that are named, in the order of the links.
    pub fn subjects(&self) -> impl Iterator<Item = PublicKey> {
        self.membership.links.iter().map(|link| link.grant.subject)
    }

    /// The membership itself, as it is sent.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The chain of this chain's first `links` links, which are at least 1 and at most all.
    pub fn ancestor(&self, links: usize) -> Option<Self> {
        (1..=self.len()).contains(&links).then(|| Self {
            party: self.party,
            membership: Membership { links: self.membership.links[..links].to_vec() },
            ids: self.ids[..links].to_vec(),
        })
    }

    pub(crate) fn party(&self) -> &PartyKey {
        &self.party
    }

    /// How many links there are.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The key at this depth: the founder's at 0, that which link n names at n.
    pub(super) fn node(&self, depth: usize) -> PublicKey {
        match depth.checked_sub(1) {
            None => PublicKey::from_bytes(*self.party.as_bytes()),
            Some(link) => self.membership.links[link].grant.subject,
        }
    }

    /// The smallest depth at which this key stands.
    pub(super) fn depth_of(&self, key: &PublicKey) -> Option<usize> {
        (0..=self.len()).find(|depth| self.node(*depth) == *key)
    }
}

impl VerifiedMembership {
    /// The chain, with all that it says.
    pub fn chain(&self) -> &CheckedChain {
        &self.chain
    }

    /// The chain alone: what is known about it whoever shows it.
    pub fn into_chain(self) -> CheckedChain {
        self.chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        credentials::{Revocation, Revoked},
        key::verifications,
    };

    #[test]
    fn a_chain_of_three_links_takes_at_most_five_verifications_and_1024_bytes() {
        let limits = Limits::default();
        let pairs: Vec<KeyPair> = (1..=4).map(|seed| KeyPair::from_seed(&[seed; 32])).collect();
        let party = PartyKey::from_bytes(*pairs[0].public().as_bytes());
        // As much as fits: seven feeds in each link, and numbers that take nine bytes.
        let feeds: Vec<_> = (0..6).map(|byte| crate::key::DiscoveryKey::from_bytes([byte; 32])).collect();
        let grant = |to: usize, depth| {
            let terms = Terms::everything().only(feeds.clone()).delegable(depth);
            Grant::to(pairs[to].public(), terms.expiring(1 << 40).range(0..1 << 40)).with_serial(1 << 40)
        };
        let mut chain = Membership::found(&pairs[0], grant(1, 2), &limits).unwrap();
        chain = chain.extend(&party, &pairs[1], grant(2, 1), &limits).unwrap();
        chain = chain.extend(&party, &pairs[2], grant(3, 0), &limits).unwrap();
        assert!(chain.encode().len() <= 1_024, "{} bytes", chain.encode().len());

        let shown = Membership::decode(&chain.encode(), &limits).unwrap();
        let begun = verifications();
        let verified = shown.verify_for(&party, &pairs[3].public(), 1).unwrap();
        assert_eq!(verifications() - begun, 3);

        let revocation = Revocation::sign(verified.chain(), &pairs[2], Revoked::Key, [], &limits).unwrap();
        let begun = verifications();
        assert!(revocation.verify(&party).is_ok());
        assert_eq!(verifications() - begun, 4);

        // What can be told without is told without.
        let begun = verifications();
        assert!(shown.verify_for(&party, &pairs[2].public(), 1).is_err());
        assert!(shown.verify_for(&party, &pairs[3].public(), 1 << 40).is_err());
        assert_eq!(verifications(), begun);
        assert!(limits.max_links <= 5, "no chain takes more than five");
    }
}
