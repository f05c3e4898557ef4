//! `party grant`.

use std::path::Path;

use anyhow::{Context as _, bail};
use party::{
    credentials::{self, Membership, Terms},
    key::{KeyPair, PartyKey, PublicKey},
    limits::Limits,
    members::Members,
    store::Store,
    ticket::Ticket,
};
use serde::Serialize;

use crate::{
    args::{Grant, TermsOf},
    identity, invite,
    output::{Output, Show, text},
    secret,
};

#[derive(Serialize)]
struct Kept {
    #[serde(serialize_with = "text")]
    member: PublicKey,
}

impl Show for Kept {
    fn text(&self) -> String {
        self.member.to_string()
    }
}

pub(crate) async fn run(arguments: Grant, output: Output) -> anyhow::Result<()> {
    let founder = arguments.founder.as_deref().map(read_founder).transpose()?;
    let Some(party) = founder.as_ref().map(party_of).or(arguments.party) else {
        bail!("give --party or --founder");
    };
    match &arguments.store {
        None => {
            let Some(founder) = founder else { bail!("give --store or --founder") };
            grant(&arguments, &party, Some(&founder), None, output).await
        }
        Some(folder) => {
            let store =
                Store::open(folder).await.with_context(|| format!("cannot open {}", folder.display()))?;
            let result = async {
                let me = identity::of_store(folder)?;
                let members = Members::open(&store, &party, &me).await?;
                grant(&arguments, &party, founder.as_ref(), Some((&members, &me)), output).await
            }
            .await;
            store.close().await;
            result
        }
    }
}

async fn grant(
    arguments: &Grant,
    party: &PartyKey,
    founder: Option<&KeyPair>,
    store: Option<(&Members, &KeyPair)>,
    output: Output,
) -> anyhow::Result<()> {
    let mut terms = arguments.terms.terms()?;
    let secret = arguments.to_anybody.then(KeyPair::generate);
    let subject = match (&arguments.to, &secret, store) {
        (Some(to), ..) => *to,
        (None, Some(secret), _) => {
            // The guest signs one more link, to its own key.
            terms.depth += 1;
            secret.public()
        }
        (None, None, Some((_, me))) => me.public(),
        (None, None, None) => bail!("give --to KEY, --to-anybody or --here"),
    };
    let grant = if arguments.device {
        credentials::Grant::device(subject, terms)
    } else {
        credentials::Grant::to(subject, terms)
    };
    let grant = grant.with_serial(invite::now()?);
    let membership = match (founder, store) {
        (Some(founder), Some((members, _))) => members.grant_as(founder, grant).await?,
        (Some(founder), None) => Membership::found(founder, grant, &Limits::default())?,
        (None, Some((members, _))) => members
            .grant(grant)
            .await
            .context("cannot hand on the membership of this store; the founder grants with --founder")?,
        (None, None) => bail!("give --store or --founder"),
    };
    if let Some((members, me)) = store
        && subject == me.public()
    {
        members.set_membership(membership.clone()).await?;
        if arguments.here {
            return output.show(&Kept { member: subject });
        }
    }
    let ticket = Ticket::new(*party);
    let mut ticket = match secret {
        Some(secret) => ticket.with_secret(membership, secret)?,
        None => ticket.with_membership(membership)?,
    };
    for address in &arguments.addresses {
        ticket = ticket.with_address(address).with_context(|| address.clone())?;
    }
    if let Some(seconds) = arguments.terms.expires_in {
        ticket = ticket.expiring(invite::now()?.saturating_add(seconds.into()));
    }
    invite::show(&ticket, arguments.qr, output)
}

/// The founder's key pair.
pub(crate) fn read_founder(file: &Path) -> anyhow::Result<KeyPair> {
    let seed = secret::read(file)?.with_context(|| format!("there is no file {}", file.display()))?;
    Ok(KeyPair::from_seed(&seed))
}

/// The party that somebody has founded.
pub(crate) fn party_of(founder: &KeyPair) -> PartyKey {
    PartyKey::from_bytes(*founder.public().as_bytes())
}

impl TermsOf {
    fn terms(&self) -> anyhow::Result<Terms> {
        let mut terms = Terms::everything().delegable(self.depth);
        if self.read_only {
            terms = terms.read_only();
        }
        if self.bring_only {
            terms = terms.bring_only();
        }
        if self.blind {
            terms = terms.blind();
        }
        if !self.feeds.is_empty() {
            terms = terms.only(self.feeds.iter().map(|feed| feed.discovery_key()));
        }
        if let Some(range) = &self.range {
            terms = terms.range(range.clone());
        }
        if let Some(n) = self.newest {
            terms = terms.newest(n);
        }
        if let Some(seconds) = self.expires_in {
            terms = terms.expiring(invite::now()?.saturating_add(seconds.into()));
        }
        Ok(terms)
    }
}
