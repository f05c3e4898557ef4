//! Members by credential: `party members`, `party revoke`, `party explain`, and what the other commands need of them.

use anyhow::{Context as _, bail};
use party::{
    credentials::{CheckedChain, Extent, Feeds, Revoked, VerifiedRevocation},
    error::{ApiMisuse, CredentialFlaw, Error},
    key::{KeyPair, PartyKey, PublicKey},
    members::{Members, Standing},
    party::Party,
    rules::{Action, Decision, Rules},
    store::Store,
    ticket::Ticket,
};
use serde::Serialize;

use crate::{
    args::{Explain, MembersOf, Revoke, StoreFolder},
    grant, identity,
    output::{Output, Show, text, utc},
};

/// The party with this key: if the store has a membership in it, for members by credential only.
pub(crate) async fn party(
    store: &Store,
    key: &PartyKey,
    me: &KeyPair,
    rules: impl Rules,
) -> anyhow::Result<(Party, Option<Members>)> {
    let members = Members::open(store, key, me).await?;
    if members.membership().is_none() {
        return Ok((Party::new(*key, rules), None));
    }
    check_standing(&members)?;
    Ok((Party::new(*key, members.rule(rules)), Some(members)))
}

/// Fails if the store's membership is over.
pub(crate) fn check_standing(members: &Members) -> anyhow::Result<()> {
    match members.standing() {
        Standing::Expired => {
            bail!("the membership of this store has expired; ask for a new ticket, and join by it")
        }
        Standing::Removed(revocation) => {
            let remedy = match revocation.revoked() {
                Revoked::Link => "join by a new ticket to come back",
                _ => "its key is out for good: only another store, by a ticket of its own, comes back",
            };
            bail!("this store was removed from the party by {}; {remedy}", revocation.signer())
        }
        _ => Ok(()),
    }
}

/// Makes the store a member by a ticket.
pub(crate) async fn join(folder: &StoreFolder, ticket: &Ticket) -> anyhow::Result<()> {
    let store = folder.open_or_create().await?;
    let result = async {
        let me = identity::of_store(&folder.folder)?;
        let members = Members::open(&store, ticket.party(), &me).await?;
        members.join(ticket).await.map_err(|error| match error {
            Error::ApiMisuse(ApiMisuse::Credential(CredentialFlaw::OtherKey)) => {
                anyhow::anyhow!("the ticket is for another member; this store is {}", me.public())
            }
            error => error.into(),
        })
    }
    .await;
    store.close().await;
    result
}

/// What is done with the members of a store.
async fn with_members(
    folder: &StoreFolder,
    party: &PartyKey,
    run: impl AsyncFnOnce(&Members, &KeyPair) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let store = folder.open().await?;
    let result = async {
        let me = identity::of_store(&folder.folder)?;
        run(&Members::open(&store, party, &me).await?, &me).await
    }
    .await;
    store.close().await;
    result
}

#[derive(Serialize)]
struct Member {
    #[serde(serialize_with = "text")]
    member: PublicKey,
    /// Whose device it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_of: Option<String>,
    is_this_store: bool,
    reads: bool,
    brings: bool,
    blind: bool,
    /// Discovery keys; all feeds without.
    #[serde(skip_serializing_if = "Option::is_none")]
    feeds: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<[u64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    newest: Option<u64>,
    /// In seconds since 1970 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    depth: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed_by: Option<String>,
}

impl Member {
    fn new(chain: &CheckedChain, me: &PublicKey, revocation: Option<&VerifiedRevocation>) -> Self {
        let terms = chain.terms();
        let feeds = match &terms.feeds {
            Feeds::All => None,
            Feeds::Only(feeds) => Some(feeds.iter().map(ToString::to_string).collect()),
        };
        let (range, newest) = match &terms.extent {
            Extent::Whole => (None, None),
            Extent::Range(range) => (Some([range.start, range.end]), None),
            Extent::Newest(n) => (None, Some(*n)),
        };
        Self {
            member: chain.holder(),
            device_of: (chain.member() != chain.holder()).then(|| chain.member().to_string()),
            is_this_store: chain.holder() == *me,
            reads: terms.may_read,
            brings: terms.may_bring,
            blind: terms.is_blind,
            feeds,
            range,
            newest,
            expires: terms.expires,
            depth: terms.depth,
            removed_by: revocation.map(|revocation| revocation.signer().to_string()),
        }
    }
}

impl Show for Member {
    fn text(&self) -> String {
        let mut line = self.member.to_string();
        let mut add = |said: String| line.push_str(&format!("  {said}"));
        if let Some(by) = &self.removed_by {
            add(format!("removed by {by}"));
        }
        if self.is_this_store {
            add("this store".to_owned());
        }
        if let Some(owner) = &self.device_of {
            add(format!("a device of {owner}"));
        }
        add(match (self.reads, self.brings) {
            (true, true) => "reads and brings",
            (true, false) => "reads",
            (false, true) => "brings",
            (false, false) => "neither reads nor brings",
        }
        .to_owned());
        if self.blind {
            add("blind".to_owned());
        }
        add(self.feeds.as_ref().map_or("all feeds".to_owned(), |feeds| format!("feeds {}", feeds.join(" "))));
        if let Some([from, to]) = self.range {
            add(format!("blocks {from}..{to}"));
        }
        if let Some(n) = self.newest {
            add(format!("the newest {n} blocks"));
        }
        if let Some(at) = self.expires {
            add(format!("until {}", utc(at)));
        }
        if self.depth > 0 {
            add(format!("may be handed on over {} links", self.depth));
        }
        line
    }
}

pub(crate) async fn list(arguments: MembersOf, output: Output) -> anyhow::Result<()> {
    let MembersOf { store, party } = arguments;
    with_members(&store, &party, async |members, me| {
        let me = me.public();
        let present = members.members();
        let removed = members.removed();
        if present.is_empty() && removed.is_empty() {
            output.note("no member by credential of this party is known here");
        }
        let present = present.iter().map(|chain| Member::new(chain, &me, None));
        let removed = removed.iter().map(|(chain, by)| Member::new(chain, &me, Some(by)));
        output.show_all(present.chain(removed))
    })
    .await
}

#[derive(Serialize)]
struct Removed {
    #[serde(serialize_with = "text")]
    removed: PublicKey,
    cut_offs: Vec<Cut>,
}

#[derive(Serialize)]
struct Cut {
    /// By its discovery key.
    feed: String,
    fork: u64,
    length: u64,
}

impl Show for Removed {
    fn text(&self) -> String {
        let mut text = format!("{}\n", self.removed);
        for Cut { feed, length, .. } in &self.cut_offs {
            text.push_str(&format!("  of the feed {feed} {length} blocks stay good\n"));
        }
        text
    }
}

pub(crate) async fn revoke(arguments: Revoke, output: Output) -> anyhow::Result<()> {
    let Revoke { store, founder, party, link, member } = arguments;
    let founder = founder.as_deref().map(grant::read_founder).transpose()?;
    let party = founder.as_ref().map(grant::party_of).or(party).context("give --party or --founder")?;
    with_members(&store, &party, async |members, me| {
        let revocations = if link {
            let unknown = || format!("no membership of {member} is known here");
            let chain = members.member(&member).with_context(unknown)?;
            let signer = founder.as_ref().unwrap_or(me);
            let cut_offs = members.cut_offs(&chain).await?;
            vec![members.revoke(signer, &chain, Revoked::Link, cut_offs).await?]
        } else {
            match &founder {
                Some(founder) => members.remove_as(founder, &member).await?,
                None => members.remove(&member).await?,
            }
        };
        let cut_offs = revocations.iter().flat_map(VerifiedRevocation::cut_offs);
        let cut_offs = cut_offs.map(|it| Cut { feed: it.feed.to_string(), fork: it.fork, length: it.length });
        output.show(&Removed { removed: member, cut_offs: cut_offs.collect() })
    })
    .await
}

#[derive(Serialize)]
struct Explained {
    introduce: Said,
    serve: Said,
    ask: Said,
    accept: Said,
}

#[derive(Serialize)]
struct Said {
    allowed: bool,
    rule: String,
    reason: String,
    #[serde(skip)]
    text: String,
}

impl From<Decision> for Said {
    fn from(decision: Decision) -> Self {
        Self {
            allowed: decision.is_allowed(),
            rule: decision.rule().to_owned(),
            reason: decision.reason().to_owned(),
            text: decision.to_string(),
        }
    }
}

impl Show for Explained {
    fn text(&self) -> String {
        let Self { introduce, serve, ask, accept } = self;
        format!(
            "introduce: {}\nserve: {}\nask: {}\naccept: {}\n",
            introduce.text, serve.text, ask.text, accept.text
        )
    }
}

pub(crate) async fn explain(arguments: Explain, output: Output) -> anyhow::Result<()> {
    let Explain { members: MembersOf { store, party }, peer, feed } = arguments;
    with_members(&store, &party, async |members, _| {
        let decide = |action| members.decide(&peer, &feed, action).into();
        output.show(&Explained {
            introduce: decide(Action::Introduce),
            serve: decide(Action::Serve),
            ask: decide(Action::Ask),
            accept: decide(Action::Accept),
        })
    })
    .await
}
