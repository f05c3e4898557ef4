//! Making members, and ending that.

use std::sync::Arc;

use super::{Inner, Members, Standing};
use crate::{
    credentials::{CheckedChain, CutOff, Grant, Membership, Revocation, Revoked, VerifiedRevocation},
    error::{ApiMisuse, CredentialFlaw, Error},
    key::{KeyPair, PublicKey},
    ticket::Ticket,
};

impl Members {
    /// Makes somebody a member, by our own membership: it has to allow that many links, and the grant must be narrower in every
    /// way. The membership is for the other to [set](Self::set_membership); what is known of it spreads.
    ///
    /// A grant with the serial number 0 gets the time of issue, so that who was removed can be granted the same
    /// again, unless its key was revoked.
    ///
    /// ```
    /// # use party::{credentials::{Grant, Terms}, error::Error, key::PublicKey, members::Members};
    /// # async fn example(members: &Members, guest: PublicKey, in_a_week: u64) -> Result<(), Error> {
    /// let terms = Terms::everything().read_only().expiring(in_a_week);
    /// let membership = members.grant(Grant::to(guest, terms)).await?;
    /// let bytes = membership.encode(); // to be sent to the guest, in a ticket say
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ApiMisuse::NoMembership`]; [`ApiMisuse::MembershipRevoked`]; [`ApiMisuse::Credential`]; [`Error::Storage`].
    pub async fn grant(&self, grant: Grant) -> Result<Membership, Error> {
        let inner = &self.inner;
        let own = {
            let state = inner.state();
            let own = state.own.clone().ok_or(ApiMisuse::NoMembership)?;
            if state.set.is_revoked(&own) {
                return Err(ApiMisuse::MembershipRevoked.into());
            }
            own
        };
        let grant = inner.with_serial(grant);
        let granted = own.membership().extend(&inner.party, &inner.me, grant, &inner.limits);
        self.granted(granted).await
    }

    /// As [`grant`](Self::grant), signed by the founder, whose key pair is the other half of the party key.
    ///
    /// # Errors
    /// [`ApiMisuse::Credential`], also if it is not the founder; [`Error::Storage`].
    pub async fn grant_as(&self, founder: &KeyPair, grant: Grant) -> Result<Membership, Error> {
        self.inner.check_founder(founder)?;
        let grant = self.inner.with_serial(grant);
        self.granted(Membership::found(founder, grant, &self.inner.limits)).await
    }

    async fn granted(&self, granted: Result<Membership, CredentialFlaw>) -> Result<Membership, Error> {
        let membership = granted.map_err(ApiMisuse::from)?;
        let chain = membership.check(&self.inner.party).map_err(ApiMisuse::from)?;
        self.inner.insert_member(&mut self.inner.state(), chain, None);
        self.inner.settle().await?;
        Ok(membership)
    }

    /// Becomes a member by a ticket that carries a membership: one that names us, or one with a secret, by which a link to our
    /// key is signed. If we are a member by it already, nothing changes.
    ///
    /// # Errors
    /// [`ApiMisuse::NoMembership`] if it carries none; as [`set_membership`](Self::set_membership).
    pub async fn join(&self, ticket: &Ticket) -> Result<(), Error> {
        let inner = &self.inner;
        if *ticket.party() != inner.party {
            return Err(ApiMisuse::from(CredentialFlaw::OtherParty).into());
        }
        let membership = ticket.membership().ok_or(ApiMisuse::NoMembership)?;
        if let (Standing::Member(own), Ok(chain)) = (self.standing(), membership.check(&inner.party))
            && own.ids().contains(&chain.id())
        {
            // By the same ticket, or by what it has become.
            return Ok(());
        }
        let membership = match ticket.secret() {
            None => membership.clone(),
            Some(secret) => {
                let chain = membership.check(&inner.party).map_err(ApiMisuse::from)?;
                let mut terms = chain.terms().clone();
                terms.depth = terms.depth.saturating_sub(1);
                let grant = inner.with_serial(Grant::to(inner.me.public(), terms));
                membership.extend(&inner.party, secret, grant, &inner.limits).map_err(ApiMisuse::from)?
            }
        };
        self.set_membership(membership).await
    }

    /// Removes a member for good: bars its key from whatever lies below us, with a cut-off at its present length for each
    /// feed that is [taken on its word](Self::attribute). When this returns, it has gone from every connection here, and is told
    /// why; other members hear of it by and by.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownMember`] if no membership of it is known that goes through ours; [`ApiMisuse::Credential`];
    /// [`Error::Storage`].
    pub async fn remove(&self, member: &PublicKey) -> Result<Vec<VerifiedRevocation>, Error> {
        let me = self.inner.me.clone();
        self.remove_by(&me, member).await
    }

    /// As [`remove`](Self::remove), signed by the founder: whichever way it was let in.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub async fn remove_as(
        &self,
        founder: &KeyPair,
        member: &PublicKey,
    ) -> Result<Vec<VerifiedRevocation>, Error> {
        self.inner.check_founder(founder)?;
        self.remove_by(founder, member).await
    }

    async fn remove_by(
        &self,
        signer: &KeyPair,
        member: &PublicKey,
    ) -> Result<Vec<VerifiedRevocation>, Error> {
        let chain = self.inner.chain_to(member, &signer.public());
        let chain = chain.ok_or(ApiMisuse::UnknownMember(*member))?;
        let cut_offs = self.cut_offs(&chain).await?;
        let most = self.inner.limits.max_cut_offs.max(1);
        let mut parts: Vec<&[CutOff]> = cut_offs.chunks(most).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let sign =
            |part: &&[CutOff]| self.inner.sign_revocation(signer, &chain, Revoked::Key, part.iter().copied());
        let revocations = parts.iter().map(sign).collect::<Result<Vec<_>, _>>()?;
        self.revoked(revocations.clone()).await?;
        Ok(revocations)
    }

    /// Revokes the last link of a chain, or the key that it names, with these cut-offs. `signer` stands on the chain: the
    /// founder, somebody through whom it goes, or its holder.
    ///
    /// ```
    /// # use party::{credentials::{CheckedChain, Revoked}, error::Error, key::KeyPair, members::Members};
    /// # async fn example(members: &Members, me: &KeyPair, old: &CheckedChain) -> Result<(), Error> {
    /// // A link that has been replaced by another one. What the member has written stays good.
    /// members.revoke(me, old, Revoked::Link, []).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ApiMisuse::Credential`]; [`Error::Storage`].
    pub async fn revoke(
        &self,
        signer: &KeyPair,
        chain: &CheckedChain,
        revoked: Revoked,
        cut_offs: impl IntoIterator<Item = CutOff>,
    ) -> Result<VerifiedRevocation, Error> {
        let revocation = self.inner.sign_revocation(signer, chain, revoked, cut_offs)?;
        self.revoked(vec![revocation.clone()]).await?;
        Ok(revocation)
    }

    async fn revoked(&self, revocations: Vec<VerifiedRevocation>) -> Result<(), Error> {
        self.inner.insert_revocations(&mut self.inner.state(), revocations, None);
        self.inner.settle().await
    }

    /// The present lengths of all feeds that are taken on the word of who stands last on this chain, be it by this chain or by
    /// another one: what a revocation would cut off.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn cut_offs(&self, chain: &CheckedChain) -> Result<Vec<CutOff>, Error> {
        let feeds: Vec<_> = {
            let state = self.inner.state();
            let of_chain =
                state.words.iter().filter(|(_, word)| word.subjects().any(|key| key == chain.holder()));
            of_chain.map(|(feed, _)| *feed).collect()
        };
        let mut cut_offs = Vec::with_capacity(feeds.len());
        for feed in feeds {
            // One that was purged meanwhile is nobody's any more.
            if let Some(open) = self.inner.store.feed_by_discovery_key(&feed).await? {
                let info = open.info();
                cut_offs.push(CutOff { feed, fork: info.fork, length: info.length });
            }
        }
        Ok(cut_offs)
    }

    /// Takes in a membership that came by another way than a connection. It spreads.
    ///
    /// # Errors
    /// [`ApiMisuse::Credential`]; [`Error::Storage`].
    pub async fn add_membership(&self, membership: &Membership) -> Result<(), Error> {
        let chain = membership.check(&self.inner.party).map_err(ApiMisuse::from)?;
        self.inner.insert_member(&mut self.inner.state(), chain, None);
        self.inner.settle().await
    }

    /// Takes in a revocation that came by another way than a connection. It takes effect, and spreads.
    ///
    /// # Errors
    /// [`ApiMisuse::Credential`]; [`Error::Storage`].
    pub async fn add_revocation(&self, revocation: &Revocation) -> Result<(), Error> {
        let verified = revocation.verify(&self.inner.party).map_err(ApiMisuse::from)?;
        self.revoked(vec![verified]).await
    }
}

impl Inner {
    fn check_founder(&self, founder: &KeyPair) -> Result<(), ApiMisuse> {
        if founder.public().as_bytes() == self.party.as_bytes() {
            Ok(())
        } else {
            Err(CredentialFlaw::NotTheSigner.into())
        }
    }

    fn with_serial(&self, grant: Grant) -> Grant {
        if grant.serial == 0 { Grant { serial: self.now(), ..grant } } else { grant }
    }

    fn sign_revocation(
        self: &Arc<Self>,
        signer: &KeyPair,
        chain: &CheckedChain,
        revoked: Revoked,
        cut_offs: impl IntoIterator<Item = CutOff>,
    ) -> Result<VerifiedRevocation, Error> {
        let revocation = Revocation::sign(chain, signer, revoked, cut_offs, &self.limits);
        let verified = revocation.and_then(|revocation| revocation.verify(&self.party));
        Ok(verified.map_err(ApiMisuse::from)?)
    }

    /// The shortest known chain, or part of one, that ends with `member` and on which `signer` stands above it.
    fn chain_to(&self, member: &PublicKey, signer: &PublicKey) -> Option<CheckedChain> {
        let state = self.state();
        let to_member = |chain: &CheckedChain| {
            let links = chain.subjects().position(|key| key == *member)? + 1;
            let part = chain.ancestor(links)?;
            let is_above = signer.as_bytes() == self.party.as_bytes()
                || part.subjects().take(links - 1).any(|key| key == *signer);
            is_above.then_some(part)
        };
        state.set.known().filter_map(to_member).min_by_key(|chain| (chain.ids().len(), chain.id()))
    }
}
