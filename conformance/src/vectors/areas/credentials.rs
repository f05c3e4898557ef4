//! Memberships, revocations, what members come to who have seen the same, and what they say to each other.

use anyhow::{Context as _, Result, bail, ensure};
use party::{
    credentials::{
        CheckedChain, CutOff, Extent, Feeds, Grant, Membership, Revocation, Revocations, Revoked,
        SyncMessage, Terms,
    },
    key::{DiscoveryKey, KeyPair, PartyKey, PublicKey},
    limits::Limits,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::vectors::{Bytes, Kind, Outcome, Refusal, kind::read};

pub(super) const KINDS: &[Kind] = &[
    Kind::new("issued", issued),
    Kind::new("membership", membership).wire("/bytes").bound(),
    Kind::new("shown", shown).wire("/bytes").bound(),
    Kind::new("signed_revocation", signed_revocation),
    Kind::new("revocation", revocation).wire("/bytes").bound(),
    Kind::new("ends", ends),
    Kind::new("set", set),
    Kind::new("message", message).wire("/bytes"),
    Kind::new("comparison", comparison),
];

/// What a link says of whom.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::vectors) struct Granted {
    pub(in crate::vectors) subject: Bytes,
    pub(in crate::vectors) device: bool,
    pub(in crate::vectors) serial: u64,
    pub(in crate::vectors) depth: u64,
    pub(in crate::vectors) read: bool,
    pub(in crate::vectors) bring: bool,
    pub(in crate::vectors) blind: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::vectors) expiry: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::vectors) feeds: Option<Vec<Bytes>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::vectors) range: Option<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::vectors) newest: Option<u64>,
}

impl Granted {
    fn grant(&self) -> Result<Grant> {
        let feeds = match &self.feeds {
            None => Feeds::All,
            Some(feeds) => Feeds::Only(
                feeds.iter().map(|key| Ok(DiscoveryKey::from_bytes(key.array()?))).collect::<Result<_>>()?,
            ),
        };
        let extent = match (self.range, self.newest) {
            (None, None) => Extent::Whole,
            (Some((start, end)), None) => Extent::Range(start..end),
            (None, Some(newest)) => Extent::Newest(newest),
            (Some(_), Some(_)) => bail!("both a range and the newest"),
        };
        let terms = Terms {
            feeds,
            extent,
            may_read: self.read,
            may_bring: self.bring,
            is_blind: self.blind,
            expires: self.expiry,
            depth: self.depth,
        };
        let subject = PublicKey::from_bytes(self.subject.array()?);
        let grant = if self.device { Grant::device(subject, terms) } else { Grant::to(subject, terms) };
        Ok(grant.with_serial(self.serial))
    }
}

/// The terms of the last link of a chain.
#[derive(Serialize)]
struct Chain {
    ids: Vec<Bytes>,
    subjects: Vec<Bytes>,
    holder: Bytes,
    member: Bytes,
    serial: u64,
    terms: Value,
}

impl From<&CheckedChain> for Chain {
    fn from(chain: &CheckedChain) -> Self {
        Self {
            ids: chain.ids().iter().map(|id| id.as_bytes().into()).collect(),
            subjects: chain.subjects().map(|key| key.as_bytes().into()).collect(),
            holder: chain.holder().as_bytes().into(),
            member: chain.member().as_bytes().into(),
            serial: chain.serial(),
            terms: terms(chain.terms()),
        }
    }
}

fn terms(terms: &Terms) -> Value {
    let mut shown = json!({
        "depth": terms.depth,
        "read": terms.may_read,
        "bring": terms.may_bring,
        "blind": terms.is_blind,
    });
    if let Some(expiry) = terms.expires {
        shown["expiry"] = json!(expiry);
    }
    if let Feeds::Only(feeds) = &terms.feeds {
        shown["feeds"] = feeds.iter().map(|key| json!(Bytes::from(key.as_bytes()))).collect();
    }
    match &terms.extent {
        Extent::Whole => {}
        Extent::Range(range) => shown["range"] = json!([range.start, range.end]),
        Extent::Newest(newest) => shown["newest"] = json!(newest),
    }
    shown
}

fn party(key: &Bytes) -> Result<PartyKey> {
    Ok(PartyKey::from_bytes(key.array()?))
}

fn pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Issue {
    /// The byte that fills the seed of each signer: the founder's, then that of each link's subject.
    signers: Vec<u8>,
    links: Vec<Granted>,
}

fn issued(input: &Value) -> Result<Outcome> {
    let Issue { signers, links } = read(input)?;
    let limits = Limits::default();
    let key = PartyKey::from_bytes(*pair(*signers.first().context("no founder")?).public().as_bytes());
    let mut membership: Option<Membership> = None;
    for (signer, link) in signers.iter().zip(&links) {
        let (signer, grant) = (pair(*signer), link.grant()?);
        let made = match &membership {
            None => Membership::found(&signer, grant, &limits),
            Some(chain) => chain.extend(&key, &signer, grant, &limits),
        };
        match made {
            Ok(made) => membership = Some(made),
            Err(_) => return Outcome::refuse(Refusal::Misuse),
        }
    }
    let membership = membership.context("no link")?;
    let chain = membership.check(&key)?;
    Outcome::accept(json!({ "membership": Bytes(membership.encode()), "chain": Chain::from(&chain) }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Carried {
    party_key: Bytes,
    bytes: Bytes,
}

fn membership(input: &Value) -> Result<Outcome> {
    let Carried { party_key, bytes } = read(input)?;
    let Ok(membership) = Membership::decode(&bytes, &Limits::default()) else {
        return Outcome::refuse(Refusal::Decode);
    };
    ensure!(membership.encode() == bytes.0, "written anew, it is another");
    match membership.check(&party(&party_key)?) {
        Ok(chain) => Outcome::accept(Chain::from(&chain)),
        Err(_) => Outcome::refuse(Refusal::Credential),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    party_key: Bytes,
    /// The static key of who shows it.
    remote: Bytes,
    now: u64,
    bytes: Bytes,
}

fn shown(input: &Value) -> Result<Outcome> {
    let Shown { party_key, remote, now, bytes } = read(input)?;
    let Ok(membership) = Membership::decode(&bytes, &Limits::default()) else {
        return Outcome::refuse(Refusal::Decode);
    };
    let remote = PublicKey::from_bytes(remote.array()?);
    match membership.verify_for(&party(&party_key)?, &remote, now) {
        Ok(verified) => Outcome::accept(json!({ "id": Bytes::from(verified.chain().id().as_bytes()) })),
        Err(_) => Outcome::refuse(Refusal::Credential),
    }
}

/// Up to where a feed stays good.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::vectors) struct Cut {
    pub(in crate::vectors) feed: Bytes,
    pub(in crate::vectors) fork: u64,
    pub(in crate::vectors) length: u64,
}

impl From<&CutOff> for Cut {
    fn from(cut: &CutOff) -> Self {
        Self { feed: cut.feed.as_bytes().into(), fork: cut.fork, length: cut.length }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToRevoke {
    party_key: Bytes,
    /// The chain that leads to what is revoked.
    membership: Bytes,
    /// The byte that fills the seed of who signs.
    signer: u8,
    /// Whether the key is revoked, and not the link alone.
    key: bool,
    cut_offs: Vec<Cut>,
}

fn signed_revocation(input: &Value) -> Result<Outcome> {
    let input: ToRevoke = read(input)?;
    let key = party(&input.party_key)?;
    let chain = checked(&input.membership, &key)?;
    let cuts = input.cut_offs.iter().map(|cut| {
        Ok(CutOff { feed: DiscoveryKey::from_bytes(cut.feed.array()?), fork: cut.fork, length: cut.length })
    });
    let cuts: Vec<CutOff> = cuts.collect::<Result<_>>()?;
    let what = if input.key { Revoked::Key } else { Revoked::Link };
    match Revocation::sign(&chain, &pair(input.signer), what, cuts, &Limits::default()) {
        Ok(revocation) => {
            let id = *revocation.verify(&key)?.id();
            Outcome::accept(json!({ "revocation": Bytes(revocation.encode()), "id": Bytes::from(id) }))
        }
        Err(_) => Outcome::refuse(Refusal::Misuse),
    }
}

fn checked(bytes: &Bytes, key: &PartyKey) -> Result<CheckedChain> {
    Ok(Membership::decode(bytes, &Limits::default())?.check(key)?)
}

fn revocation(input: &Value) -> Result<Outcome> {
    let Carried { party_key, bytes } = read(input)?;
    let Ok(revocation) = Revocation::decode(&bytes, &Limits::default()) else {
        return Outcome::refuse(Refusal::Decode);
    };
    ensure!(revocation.encode() == bytes.0, "written anew, it is another");
    let Ok(verified) = revocation.verify(&party(&party_key)?) else {
        return Outcome::refuse(Refusal::Credential);
    };
    Outcome::accept(json!({
        "id": Bytes::from(verified.id()),
        "chain": Bytes::from(verified.chain().id().as_bytes()),
        "signer": Bytes::from(verified.signer().as_bytes()),
        "key": verified.revoked() == Revoked::Key,
        "cut_offs": verified.cut_offs().iter().map(Cut::from).collect::<Vec<_>>(),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    party_key: Bytes,
    revocation: Bytes,
    membership: Bytes,
}

fn ends(input: &Value) -> Result<Outcome> {
    let Pair { party_key, revocation, membership } = read(input)?;
    let key = party(&party_key)?;
    let revocation = Revocation::decode(&revocation, &Limits::default())?.verify(&key)?;
    Outcome::accept(json!({ "ends": revocation.ends(&checked(&membership, &key)?) }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    party_key: Bytes,
    now: u64,
    revocations: Vec<Bytes>,
    memberships: Vec<Bytes>,
}

/// Whatever the order in which it was seen, the same comes of it.
fn set(input: &Value) -> Result<Outcome> {
    let Seen { party_key, now, revocations, memberships } = read(input)?;
    let key = party(&party_key)?;
    let mut items: Vec<(bool, &Bytes)> = revocations.iter().map(|bytes| (true, bytes)).collect();
    items.extend(memberships.iter().map(|bytes| (false, bytes)));
    let came = describe(&gather(&key, items.iter().copied())?, now);
    let backwards: Vec<_> = items.iter().rev().chain(&items).copied().collect();
    ensure!(
        describe(&gather(&key, backwards.into_iter())?, now) == came,
        "in another order something else comes of it"
    );
    for at in 1..items.len() {
        let (before, after) = items.split_at(at);
        let mut one = gather(&key, after.iter().copied())?;
        one.merge(&gather(&key, before.iter().copied())?)?;
        ensure!(describe(&one, now) == came, "joined, something else comes of it");
    }
    Outcome::accept(came)
}

fn gather<'a>(key: &PartyKey, items: impl Iterator<Item = (bool, &'a Bytes)>) -> Result<Revocations> {
    let mut set = Revocations::new(*key, &Limits::default());
    for (is_revocation, bytes) in items {
        let _ = match is_revocation {
            true => set.insert(Revocation::decode(bytes, &Limits::default())?.verify(key)?)?,
            false => set.insert_member(checked(bytes, key)?)?,
        };
    }
    Ok(set)
}

fn describe(set: &Revocations, now: u64) -> Value {
    let ids = |chains: &mut dyn Iterator<Item = &CheckedChain>| {
        let mut ids: Vec<_> = chains.map(|chain| *chain.id().as_bytes()).collect();
        ids.sort_unstable();
        ids.into_iter().map(Bytes::from).collect::<Vec<_>>()
    };
    let mut cuts: Vec<_> = set
        .known()
        .flat_map(|chain| set.cut_offs(chain).into_iter().map(|cut| (*chain.id().as_bytes(), cut)))
        .collect();
    cuts.sort_unstable();
    let cuts = cuts.iter().map(|(id, cut)| json!({ "chain": Bytes::from(id), "cut_off": Cut::from(cut) }));
    json!({
        "members": ids(&mut set.members(now)),
        "removed": ids(&mut set.removed()),
        "cut_offs": cuts.collect::<Vec<_>>(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Compared {
    bytes: Bytes,
}

fn message(input: &Value) -> Result<Outcome> {
    let Compared { bytes } = read(input)?;
    let Ok(message) = SyncMessage::decode(&bytes, &Limits::default()) else {
        return Outcome::refuse(Refusal::Decode);
    };
    let again = message.encode();
    let mut said = said(&message);
    if again != bytes.0 {
        said["again"] = serde_json::to_value(Bytes(again))?;
    }
    Outcome::accept(said)
}

fn said(message: &SyncMessage) -> Value {
    let all = |ids: &[[u8; 32]]| ids.iter().map(Bytes::from).collect::<Vec<_>>();
    match message {
        SyncMessage::Summary { salt, buckets } => {
            json!({ "summary": { "salt": Bytes::from(salt), "sums": Bytes(buckets.concat()) } })
        }
        SyncMessage::Have { salt, complete, ids } => json!({
            "have": { "salt": Bytes::from(salt), "complete": Bytes::from(complete), "ids": all(ids) },
        }),
        SyncMessage::Want { ids } => json!({ "want": { "ids": all(ids) } }),
        SyncMessage::Items { revocations, memberships } => json!({
            "items": {
                "revocations": revocations.iter().map(|one| Bytes(one.encode())).collect::<Vec<_>>(),
                "memberships": memberships.iter().map(|one| Bytes(one.encode())).collect::<Vec<_>>(),
            },
        }),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Two {
    party_key: Bytes,
    salt: Bytes,
    one: Vec<Bytes>,
    other: Vec<Bytes>,
}

/// What two members say, of which one begins, until there is nothing left to say. Both then know the same.
fn comparison(input: &Value) -> Result<Outcome> {
    let Two { party_key, salt, one, other } = read(input)?;
    let key = party(&party_key)?;
    let known = |items: &[Bytes]| gather(&key, items.iter().map(|bytes| (false, bytes)));
    let mut sides = [known(&one)?, known(&other)?];
    let mut on_the_way = vec![(0, sides[0].summary(salt.array()?))];
    let mut said = Vec::new();
    while !on_the_way.is_empty() {
        let (from, message) = on_the_way.remove(0);
        let bytes = message.encode();
        ensure!(SyncMessage::decode(&bytes, &Limits::default())? == message, "it comes back as another");
        said.push(json!({ "from": from, "bytes": Bytes(bytes) }));
        ensure!(said.len() < 16, "they never end");
        let handled = sides[1 - from].handle(&message)?;
        on_the_way.extend(handled.replies.into_iter().map(|reply| (1 - from, reply)));
    }
    ensure!(sides[0].digest() == sides[1].digest(), "they don't know the same");
    Outcome::accept(json!({ "said": said }))
}
