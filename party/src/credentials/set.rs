//! All that a member knows of its party: who was let in, and what was revoked.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::{
    credentials::{
        link::LinkId,
        membership::{CheckedChain, Membership},
        quota::{Branch, Branches, Item, Quota},
        revocation::{CutOff, Revocation, Revoked, VerifiedRevocation},
    },
    error::CredentialFlaw,
    hash::{Hash, hash},
    key::{DiscoveryKey, PartyKey, PublicKey},
    limits::Limits,
};

/// The revocations and members that are known of one party: a set that only grows, and that members merge in any order.
///
/// Two members who have seen the same revocations and memberships, in whatever order and how often soever, know the
/// same members and the same cut-offs. What an attacker can add is bounded by quotas of [`Limits`], which must be the
/// same for all members of a party.
///
/// - **Adding:** [`insert`](Self::insert), [`insert_member`](Self::insert_member), [`merge`](Self::merge); over a
///   connection, [`summary`](Self::summary) and [`handle`](Self::handle).
/// - **Asking:** [`is_revoked`](Self::is_revoked), [`revoked_by`](Self::revoked_by), [`cut_off`](Self::cut_off),
///   [`members`](Self::members), [`removed`](Self::removed).
/// - **Keeping:** what [`revocations`](Self::revocations) and [`known`](Self::known) give is all there is to store.
#[derive(Clone, Debug)]
pub struct Revocations {
    pub(super) party: PartyKey,
    pub(super) limits: Limits,
    pub(super) revocations: Branches<VerifiedRevocation>,
    pub(super) members: Branches<CheckedChain>,
    /// Which revocations are about a link or a key, so that asking doesn't take longer the more there are.
    by_link: BTreeMap<LinkId, Vec<Hash>>,
    by_key: BTreeMap<PublicKey, Vec<Hash>>,
}

/// What became of what was inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Inserted {
    /// It was not known.
    New,
    /// It was known.
    Known,
    /// It was not known and is not kept, as others come before it in the quota that it counts against.
    BeyondQuota,
}

impl Revocations {
    /// Nothing yet about this party.
    pub fn new(party: PartyKey, limits: &Limits) -> Self {
        let quota = |founder, branch| Quota { founder, branch, branches: limits.max_branches };
        Self {
            party,
            limits: limits.clone(),
            revocations: Branches::new(quota(limits.max_founder_revocations, limits.max_branch_revocations)),
            members: Branches::new(quota(0, limits.max_branch_members)),
            by_link: BTreeMap::new(),
            by_key: BTreeMap::new(),
        }
    }

    /// Adds a revocation.
    ///
    /// # Errors
    /// [`CredentialFlaw::OtherParty`].
    pub fn insert(&mut self, revocation: VerifiedRevocation) -> Result<Inserted, CredentialFlaw> {
        if *revocation.chain().party() != self.party {
            return Err(CredentialFlaw::OtherParty);
        }
        let id = *revocation.id();
        if self.revocations.contains(&id) {
            return Ok(Inserted::Known);
        }
        match revocation.revoked() {
            Revoked::Link => self.by_link.entry(revocation.chain().id()).or_default().push(id),
            Revoked::Key => self.by_key.entry(revocation.chain().holder()).or_default().push(id),
        }
        for dropped in self.revocations.insert(revocation) {
            match dropped.revoked() {
                Revoked::Link => remove(&mut self.by_link, &dropped.chain().id(), dropped.id()),
                Revoked::Key => remove(&mut self.by_key, &dropped.chain().holder(), dropped.id()),
            }
        }
        Ok(if self.revocations.contains(&id) { Inserted::New } else { Inserted::BeyondQuota })
    }

    /// Adds a member, revoked or not.
    ///
    /// # Errors
    /// [`CredentialFlaw::OtherParty`].
    pub fn insert_member(&mut self, chain: CheckedChain) -> Result<Inserted, CredentialFlaw> {
        if *chain.party() != self.party {
            return Err(CredentialFlaw::OtherParty);
        }
        let id = *chain.id().as_bytes();
        if self.members.contains(&id) {
            return Ok(Inserted::Known);
        }
        self.members.insert(chain);
        Ok(if self.members.contains(&id) { Inserted::New } else { Inserted::BeyondQuota })
    }

    /// Adds all that another set knows.
    ///
    /// # Errors
    /// [`CredentialFlaw::OtherParty`]; nothing is added then.
    pub fn merge(&mut self, other: &Self) -> Result<(), CredentialFlaw> {
        if other.party != self.party {
            return Err(CredentialFlaw::OtherParty);
        }
        for revocation in other.revocations.iter() {
            let _ = self.insert(revocation.clone())?;
        }
        for chain in other.members.iter() {
            let _ = self.insert_member(chain.clone())?;
        }
        Ok(())
    }

    /// Whether a revocation that is known ends this chain.
    //= CRED-29, CRED-33
    pub fn is_revoked(&self, chain: &CheckedChain) -> bool {
        self.hitting(chain).next().is_some()
    }

    /// The revocation that ends this chain: of several, that by who stands nearest to the founder. To be shown to the
    /// peer, so that it learns that it was removed.
    pub fn revoked_by(&self, chain: &CheckedChain) -> Option<&VerifiedRevocation> {
        self.hitting(chain).min_by_key(|(depth, revocation)| (*depth, *revocation.id())).map(|(_, it)| it)
    }

    /// Up to where a feed stays good that was taken as the feed of this writer: what whoever stands nearest to the
    /// founder says; of what that one says, the lowest.
    ///
    /// `None` if the writer was not removed, or nobody has said.
    //= CRED-30, CRED-35
    pub fn cut_off(&self, feed: &DiscoveryKey, writer: &CheckedChain) -> Option<CutOff> {
        self.hitting(writer)
            .flat_map(|(depth, revocation)| {
                revocation.cut_offs().iter().map(move |cut_off| (depth, *cut_off))
            })
            .filter(|(_, cut_off)| cut_off.feed == *feed)
            .min()
            .map(|(_, cut_off)| cut_off)
    }

    /// The cut-offs of all feeds that were taken as this writer's, in the order of their discovery keys.
    pub fn cut_offs(&self, writer: &CheckedChain) -> Vec<CutOff> {
        let mut lowest: BTreeMap<DiscoveryKey, (usize, CutOff)> = BTreeMap::new();
        for (depth, revocation) in self.hitting(writer) {
            for cut_off in revocation.cut_offs() {
                let said = (depth, *cut_off);
                lowest.entry(cut_off.feed).and_modify(|best| *best = said.min(*best)).or_insert(said);
            }
        }
        lowest.into_values().map(|(_, cut_off)| cut_off).collect()
    }

    /// The chains that are known, neither revoked nor expired at `now`, in seconds since 1970 UTC.
    //= CRED-34
    pub fn members(&self, now: u64) -> impl Iterator<Item = &CheckedChain> {
        self.members.iter().filter(move |chain| !chain.terms().is_expired(now) && !self.is_revoked(chain))
    }

    /// The chains that are known and were revoked.
    pub fn removed(&self) -> impl Iterator<Item = &CheckedChain> {
        self.members.iter().filter(|chain| self.is_revoked(chain))
    }

    /// Every chain that is known, whatever became of it.
    pub fn known(&self) -> impl Iterator<Item = &CheckedChain> {
        self.members.iter()
    }

    /// The known chain with this id.
    pub fn member(&self, id: &LinkId) -> Option<&CheckedChain> {
        self.members.get(id.as_bytes())
    }

    /// Every revocation that is known.
    pub fn revocations(&self) -> impl Iterator<Item = &VerifiedRevocation> {
        self.revocations.iter()
    }

    /// Whether this revocation is known, as far as can be told without verifying it.
    pub fn knows_revocation(&self, revocation: &Revocation) -> bool {
        self.revocations.contains(&revocation.claimed_id(&self.party))
    }

    /// Whether this chain is known, as far as can be told without checking it.
    pub fn knows_member(&self, membership: &Membership) -> bool {
        self.members.contains(membership.claimed_id(&self.party).as_bytes())
    }

    /// Whether the chain with this id is known.
    pub fn has_member(&self, id: &Hash) -> bool {
        self.members.contains(id)
    }

    /// The revocation with this id.
    pub fn revocation(&self, id: &Hash) -> Option<&VerifiedRevocation> {
        self.revocations.get(id)
    }

    /// A hash of all that is known. Two members with the same digest have nothing to tell each other.
    pub fn digest(&self) -> Hash {
        let count = (self.revocations.ids().count() as u64).to_le_bytes();
        let parts: Vec<&[u8]> = std::iter::once(&count[..])
            .chain(self.revocations.ids().map(|id| &id[..]))
            .chain(self.members.ids().map(|id| &id[..]))
            .collect();
        hash(&parts)
    }

    fn hitting(&self, chain: &CheckedChain) -> impl Iterator<Item = (usize, &VerifiedRevocation)> {
        let by_link = chain.ids().iter().filter_map(|id| self.by_link.get(id));
        let by_key = chain.subjects().filter_map(|key| self.by_key.get(&key)).collect::<Vec<_>>();
        by_link
            .chain(by_key)
            .flatten()
            .filter_map(|id| self.revocations.get(id))
            .filter_map(|revocation| Some((revocation.hits(chain)?, revocation)))
    }
}

impl Item for CheckedChain {
    fn id(&self) -> Hash {
        *CheckedChain::id(self).as_bytes()
    }

    fn branch(&self) -> Branch {
        Branch::of(self, 1)
    }

    /// Shorter chains come first, of these the ones that are good for longer, of these the lowest ids.
    //= protocol-spec/11-credentials.md#quotas
    fn last(items: &BTreeMap<Hash, Self>) -> Option<Hash> {
        let rank = |chain: &Self| (chain.len(), Reverse(chain.terms().expires.unwrap_or(u64::MAX)));
        items.iter().map(|(id, chain)| (rank(chain), *id)).max().map(|(_, id)| id)
    }
}

fn remove<K: Ord>(index: &mut BTreeMap<K, Vec<Hash>>, key: &K, id: &Hash) {
    if let Some(ids) = index.get_mut(key) {
        ids.retain(|other| other != id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
