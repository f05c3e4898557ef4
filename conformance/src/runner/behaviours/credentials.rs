//! Memberships, as members show them to each other.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use party::{
    credentials::{Grant, Membership, Revocation, Revocations, Revoked, SyncMessage, Terms},
    hash::{hash, namespace},
    key::{FeedKey, KeyPair, PartyKey},
    limits::Limits,
    mux::{ChannelId, Event},
};

use crate::runner::{
    behaviour::{Behaviour, behaviour},
    feeds::ask_block,
    scene::{BOTH, Dials, Scene, hex, runner, shim_key},
    speech::{self, EPHEMERAL, REQUEST, RESPONSE},
    wire::Wire,
};

const AREA: &str = "credentials";
const NOW: u64 = 1_800_000_000;
const SHOW: &str = "party/membership";
const COMPARE: &str = "party/credentials";

pub(super) const BEHAVIOURS: &[Behaviour] = &[
    behaviour!(
        AREA,
        "both-show",
        "Both sides show their memberships without waiting, accept them, and then talk.",
        ["CRED-44", "CRED-45", "CRED-21", "CRED-65", "CRED-66"],
        [Credentials, Write],
        |s| {
            for dials in BOTH {
                let (key, mut wire, channel) = begin(s, dials, 2).await?;
                let shown = wire.shown(channel).await?;
                let theirs = Membership::decode(&shown.1, &Limits::default())?;
                theirs.verify_for(&party_key(), &shim_key(), NOW).context("its membership doesn't hold")?;
                accept(&mut wire, channel, shown.0).await?;
                show(&mut wire, channel, 1, &granted(Terms::everything())?).await?;
                wire.response(channel, 1).await?;
                compare(&mut wire, channel).await?;
                wire.feed_offered(&key).await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "shown-is-known",
        "A Summary tells of the membership that was shown just now as well, each time with another salt.",
        ["CRED-52", "CRED-39", "CRED-38"],
        [Credentials],
        |s| {
            let mut salts = Vec::new();
            for _ in 0..2 {
                let (_, mut wire, channel) = begin(s, Dials::Runner, 0).await?;
                let membership = granted(Terms::everything())?;
                shown_to_each_other(&mut wire, channel, &membership).await?;
                let (_, summary) = wire.compares(channel).await?;
                let SyncMessage::Summary { salt, .. } = &summary else { anyhow::bail!("it is {summary:?}") };
                ensure!(summary == both_known(&membership)?.summary(*salt), "it tells of something else");
                salts.push(*salt);
                s.again().await?;
            }
            ensure!(salts[0] != salts[1], "the salt is the same each time");
        }
    ),
    behaviour!(
        AREA,
        "compares",
        "A Summary is answered with Have or nothing, a Want with Items, and Items with nothing.",
        ["CRED-67", "CRED-68", "CRED-38"],
        [Credentials],
        |s| {
            let membership = granted(Terms::everything())?;
            let (mut wire, channel) = accepted(s, &membership).await?;
            let (known, salt) = (both_known(&membership)?, [9; 16]);
            let nothing = Revocations::new(party_key(), &Limits::default());
            let told = wire.told(channel, 2, &nothing.summary(salt)).await?;
            let Some(SyncMessage::Have { salt: theirs, ids, .. }) = &told else {
                anyhow::bail!("a Summary of nothing is answered with {told:?}")
            };
            let all: BTreeSet<_> = known.known().map(|chain| *chain.id().as_bytes()).collect();
            ensure!(*theirs == salt && ids.iter().copied().collect::<BTreeSet<_>>() == all, "it has {ids:?}");
            ensure!(wire.told(channel, 3, &known.summary(salt)).await?.is_none(), "nothing is lacking");
            let wanted = wire.told(channel, 4, &SyncMessage::Want { ids: ids.clone() }).await?;
            let Some(items @ SyncMessage::Items { revocations, memberships }) = &wanted else {
                anyhow::bail!("a Want is answered with {wanted:?}")
            };
            ensure!(revocations.is_empty() && memberships.contains(&membership) && memberships.len() == 2);
            ensure!(wire.told(channel, 5, items).await?.is_none(), "Items are answered with something");
        }
    ),
    behaviour!(
        AREA,
        "nothing-before",
        "Before both have accepted each other no feed is opened or answered, and no message handed on.",
        ["CRED-46", "CRED-47"],
        [Credentials, Write],
        |s| {
            let (_, mut wire, channel) = begin(s, Dials::Runner, 2).await?;
            let shown = wire.shown(channel).await?;
            accept(&mut wire, channel, shown.0).await?;
            wire.send(channel, EPHEMERAL, &speech::ephemeral("t", b"v")).await?;
            wire.send(channel, REQUEST, &speech::asks(1, "t", b"v")).await?;
            wire.nothing("an open", |event| matches!(event, Event::Incoming { .. })).await?;
            s.silent("request").await?;
            s.silent("ephemeral").await?;
        }
    ),
    behaviour!(
        AREA,
        "none",
        "Who shows no membership loses the channel.",
        ["CRED-48", "CRED-16"],
        [Credentials],
        |s| {
            refused(s, &[]).await?;
        }
    ),
    behaviour!(
        AREA,
        "of-another-key",
        "A membership of another key than the connection's loses the channel.",
        ["CRED-17", "CRED-48"],
        [Credentials],
        |s| {
            let membership = Membership::found(
                &founder(),
                Grant::to(KeyPair::from_seed(&[9; 32]).public(), Terms::everything()),
                &Limits::default(),
            )?;
            refused(s, &membership.encode()).await?;
        }
    ),
    behaviour!(
        AREA,
        "expired",
        "A membership that has expired loses the channel; one that hasn't is good.",
        ["CRED-18"],
        [Credentials],
        |s| {
            refused(s, &granted(Terms::everything().expiring(NOW))?.encode()).await?;
            s.again().await?;
            accepted(s, &granted(Terms::everything().expiring(NOW + 10))?).await?;
        }
    ),
    behaviour!(
        AREA,
        "expires",
        "When a membership expires, the channel is closed.",
        ["CRED-58"],
        [Credentials, Write],
        |s| {
            let (mut wire, channel) = accepted(s, &granted(Terms::everything().expiring(NOW + 1))?).await?;
            s.tell(format!("clock {}", NOW + 5)).await?;
            wire.raw.patience = std::time::Duration::from_secs(10);
            wire.closed(channel).await?;
        }
    ),
    behaviour!(
        AREA,
        "forged",
        "A membership that the founder hasn't signed, or of which a byte is another, loses the channel.",
        ["CRED-21", "CRED-2"],
        [Credentials],
        |s| {
            let forger = KeyPair::from_seed(&[9; 32]);
            let forged = Membership::found(
                &forger,
                Grant::to(runner().public(), Terms::everything()),
                &Limits::default(),
            )?;
            refused(s, &forged.encode()).await?;
            let good = granted(Terms::everything())?.encode();
            for at in [2, 34, good.len() - 64, good.len() - 1] {
                s.again().await?;
                let mut bytes = good.clone();
                bytes[at] ^= 1;
                refused(s, &bytes).await.with_context(|| format!("byte {at}"))?;
            }
        }
    ),
    behaviour!(
        AREA,
        "malformed",
        "A membership with bytes that are left over, or cut short, or of another version, loses the channel.",
        ["CRED-3", "CRED-6", "CRED-16"],
        [Credentials],
        |s| {
            let good = granted(Terms::everything())?.encode();
            let version = [&[2], &good[1..]].concat();
            let longer = [&good[..], &[0]].concat();
            let long_form = [&good[..1], &[0xfd, 1, 0], &good[2..]].concat();
            for bytes in [&good[..good.len() - 1], &good[..1], &version, &longer, &long_form] {
                refused(s, bytes).await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "chain",
        "A member that the founder lets delegate makes another a member.",
        ["CRED-12", "CRED-20", "CRED-21"],
        [Credentials],
        |s| {
            accepted(s, &delegated(Terms::everything().delegable(1), Terms::everything())?).await?;
        }
    ),
    behaviour!(
        AREA,
        "wider",
        "A link that allows more than the one before it loses the channel.",
        ["CRED-12", "CRED-13", "CRED-20"],
        [Credentials],
        |s| {
            for (above, below) in [
                (Terms::everything(), Terms::everything()),
                (Terms::everything().delegable(1).read_only(), Terms::everything()),
                (
                    Terms::everything().delegable(1).expiring(NOW + 100),
                    Terms::everything().expiring(NOW + 200),
                ),
                (Terms::everything().delegable(1).range(0..5), Terms::everything().range(0..6)),
            ] {
                let delegate = KeyPair::from_seed(&[8; 32]);
                // By hand: our own library makes none that is wider.
                let first =
                    Membership::found(&founder(), Grant::to(delegate.public(), above), &Limits::default())?;
                let second =
                    Membership::found(&delegate, Grant::to(runner().public(), below), &Limits::default())?;
                let second = second.encode();
                let body = &second[2..second.len() - 64];
                let chain = first.check(&party_key())?;
                let id = hash(&[&namespace("party", 3), party_key().as_bytes(), chain.id().as_bytes(), body]);
                let signature = delegate.sign(&[namespace("party", 4), id].concat());
                refused(s, &[&[1, 2], &first.encode()[2..], body, &signature].concat()).await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "bring-only",
        "Without READ a member isn't served; no feed is opened to it.",
        ["CRED-53"],
        [Credentials, Write],
        |s| {
            let (key, mut wire, channel) = begin(s, Dials::Runner, 2).await?;
            let_in(&mut wire, channel, &granted(Terms::everything().bring_only())?).await?;
            s.event("admitted m").await?;
            match wire.feed(&key).await {
                Err(_) => wire.barrier().await?,
                Ok(line) => {
                    wire.reads(line).await?;
                    ensure!(wire.asks(line, 1, ask_block(0, 0)).await?.is_none(), "it serves the feed");
                }
            }
        }
    ),
    behaviour!(
        AREA,
        "ranges",
        "A member whose terms name blocks is served these only.",
        ["CRED-56"],
        [Credentials, Write],
        |s| {
            let (key, mut wire, channel) = begin(s, Dials::Runner, 10).await?;
            let_in(&mut wire, channel, &granted(Terms::everything().range(2..4))?).await?;
            let line = wire.feed_offered(&key).await?;
            wire.reads(line).await?;
            for (id, index) in (1..).zip([1, 2, 3, 4, 9]) {
                let served = wire.asks(line, id, ask_block(index, 0)).await?.is_some();
                ensure!(served == (2..4).contains(&index), "block {index}: {served}");
            }
        }
    ),
    behaviour!(
        AREA,
        "other-feeds",
        "A member whose terms name feeds gets no other.",
        ["CRED-55"],
        [Credentials, Write],
        |s| {
            let (key, mut wire, channel) = begin(s, Dials::Runner, 1).await?;
            let other = s.written("g", 1).await?;
            s.tell("release g m").await?;
            let_in(&mut wire, channel, &granted(Terms::everything().only([other.discovery_key()]))?).await?;
            wire.feed_offered(&other).await?;
            wire.feed_refused(&key).await?;
        }
    ),
    behaviour!(
        AREA,
        "it-is-refused",
        "It closes the channel if its own membership isn't accepted.",
        ["CRED-48"],
        [Credentials],
        |s| {
            let (_, mut wire, channel) = begin(s, Dials::Runner, 0).await?;
            show(&mut wire, channel, 1, &granted(Terms::everything())?).await?;
            let (id, _) = wire.shown(channel).await?;
            wire.send(channel, speech::ERROR, &speech::failure(id, speech::REFUSED)).await?;
            wire.closed(channel).await?;
        }
    ),
    behaviour!(
        AREA,
        "too-slow",
        "Who shows nothing in time loses the channel.",
        ["CRED-48"],
        [Credentials, Patience],
        |s| {
            s.tell("patience membership 300").await?;
            let (_, mut wire, channel) = begin(s, Dials::Runner, 0).await?;
            wire.closed(channel).await?;
        }
    ),
    behaviour!(
        AREA,
        "shown-anew",
        "A membership that is shown later takes the place of the first; a bad one doesn't.",
        ["CRED-49", "CRED-50", "CRED-51"],
        [Credentials],
        |s| {
            let (mut wire, channel) = accepted(s, &granted(Terms::everything())?).await?;
            wire.send(channel, REQUEST, &speech::asks(2, SHOW, b"nonsense")).await?;
            wire.failure(channel, 2).await?;
            show(&mut wire, channel, 3, &granted(Terms::everything().read_only())?).await?;
            wire.response(channel, 3).await?;
        }
    ),
    behaviour!(
        AREA,
        "revoked",
        "A member who was revoked before is refused.",
        ["CRED-22", "CRED-28"],
        [Credentials],
        |s| {
            let membership = granted(Terms::everything())?;
            let (_, mut wire, channel) = begin(s, Dials::Runner, 0).await?;
            s.tell(format!("revocation m {}", hex(&revocation(&membership)?.encode()))).await?;
            show(&mut wire, channel, 1, &membership).await?;
            wire.closed(channel).await?;
            s.silent("admitted m").await?;
        }
    ),
    behaviour!(
        AREA,
        "revoked-while-there",
        "A member who is revoked while connected is served no more, and loses the channel.",
        ["CRED-22", "CRED-60", "CRED-61", "PARTY-98"],
        [Credentials, Write],
        |s| {
            let membership = granted(Terms::everything())?;
            let (key, mut wire, channel) = begin(s, Dials::Runner, 3).await?;
            let_in(&mut wire, channel, &membership).await?;
            let line = wire.feed_offered(&key).await?;
            wire.reads(line).await?;
            ensure!(wire.asks(line, 1, ask_block(0, 0)).await?.is_some());
            s.tell(format!("revocation m {}", hex(&revocation(&membership)?.encode()))).await?;
            wire.closed(line).await?;
            wire.closed(channel).await?;
            wire.feed_refused(&key).await?;
        }
    ),
    behaviour!(
        AREA,
        "forged-revocation",
        "A revocation that nobody on the chain has signed is refused, and ends nothing.",
        ["CRED-25", "CRED-24"],
        [Credentials],
        |s| {
            let membership = granted(Terms::everything())?;
            let mut forged = revocation(&membership)?.encode();
            let at = forged.len() - 1;
            forged[at] ^= 1;
            let (mut wire, channel) = accepted(s, &membership).await?;
            let answer = s.shim.ask(&format!("revocation m {}", hex(&forged))).await?;
            ensure!(!matches!(answer, crate::runner::Answer::Ok(_)), "it takes a forged revocation");
            wire.barrier().await?;
            wire.nothing(
                "a close",
                |event| matches!(event, Event::Closed { channel: closed, .. } if *closed == channel),
            )
            .await?;
        }
    ),
];

fn founder() -> KeyPair {
    KeyPair::from_seed(&[200; 32])
}

fn party_key() -> PartyKey {
    PartyKey::from_bytes(*founder().public().as_bytes())
}

/// The runner's membership by the founder's word.
fn granted(terms: Terms) -> Result<Membership> {
    Ok(Membership::found(&founder(), Grant::to(runner().public(), terms), &Limits::default())?)
}

/// By the word of one whom the founder has let in.
fn delegated(above: Terms, below: Terms) -> Result<Membership> {
    let (limits, delegate) = (Limits::default(), KeyPair::from_seed(&[8; 32]));
    let first = Membership::found(&founder(), Grant::to(delegate.public(), above), &limits)?;
    Ok(first.extend(&party_key(), &delegate, Grant::to(runner().public(), below), &limits)?)
}

fn revocation(membership: &Membership) -> Result<Revocation> {
    let chain = membership.check(&party_key())?;
    Ok(Revocation::sign(&chain, &founder(), Revoked::Key, [], &Limits::default())?)
}

/// A shim that is a member of the party `m`, and has released a feed `f` there; the party's channel to it.
async fn begin(s: &mut Scene, dials: Dials, blocks: u64) -> Result<(FeedKey, Wire, ChannelId)> {
    s.identify().await?;
    s.tell(format!("clock {NOW}")).await?;
    s.tell(format!("party m {} members", hex(party_key().as_bytes()))).await?;
    s.tell(format!("membership m {}", hex(&shims_membership()?.encode()))).await?;
    let key = s.written("f", blocks).await?;
    s.tell("release f m").await?;
    let mut wire = s.connect(dials).await?;
    let channel = wire.admit(&party_key()).await?;
    Ok((key, wire, channel))
}

async fn show(wire: &mut Wire, channel: ChannelId, id: u64, membership: &Membership) -> Result<()> {
    wire.send(channel, REQUEST, &speech::asks(id, SHOW, &membership.encode())).await
}

async fn accept(wire: &mut Wire, channel: ChannelId, id: u64) -> Result<()> {
    wire.send(channel, RESPONSE, &speech::transaction(id, 3, &speech::custom(SHOW, b""))).await
}

/// Each shows its membership, and both are accepted.
async fn shown_to_each_other(wire: &mut Wire, channel: ChannelId, membership: &Membership) -> Result<()> {
    let shown = wire.shown(channel).await?;
    accept(wire, channel, shown.0).await?;
    show(wire, channel, 1, membership).await?;
    wire.response(channel, 1).await?;
    Ok(())
}

/// And nothing is left to tell.
async fn let_in(wire: &mut Wire, channel: ChannelId, membership: &Membership) -> Result<()> {
    shown_to_each_other(wire, channel, membership).await?;
    compare(wire, channel).await
}

/// What the shim knows when this was shown to it.
fn both_known(membership: &Membership) -> Result<Revocations> {
    let mut known = Revocations::new(party_key(), &Limits::default());
    for membership in [membership, &shims_membership()?] {
        let _ = known.insert_member(membership.check(&party_key())?)?;
    }
    Ok(known)
}

/// The shim's membership by the founder's word.
fn shims_membership() -> Result<Membership> {
    Ok(Membership::found(&founder(), Grant::to(shim_key(), Terms::everything()), &Limits::default())?)
}

/// The shim, whose key is the lower one, begins to compare what both know of others, and hears that there is no difference.
async fn compare(wire: &mut Wire, channel: ChannelId) -> Result<()> {
    let (id, summary) = wire.compares(channel).await?;
    ensure!(matches!(summary, SyncMessage::Summary { .. }), "that is no Summary");
    wire.send(channel, RESPONSE, &speech::transaction(id, 3, &speech::custom(COMPARE, b""))).await
}

/// Shows what must be refused.
async fn refused(s: &mut Scene, membership: &[u8]) -> Result<()> {
    let (_, mut wire, channel) = begin(s, Dials::Runner, 1).await?;
    let shown = wire.shown(channel).await?;
    accept(&mut wire, channel, shown.0).await?;
    wire.send(channel, REQUEST, &speech::asks(1, SHOW, membership)).await?;
    wire.closed(channel).await?;
    s.silent("admitted m").await
}

/// Shows what must be accepted.
async fn accepted(s: &mut Scene, membership: &Membership) -> Result<(Wire, ChannelId)> {
    let (_, mut wire, channel) = begin(s, Dials::Runner, 1).await?;
    let_in(&mut wire, channel, membership).await?;
    s.event("admitted m").await?;
    Ok((wire, channel))
}

impl Wire {
    /// Waits until the shim says something about what it knows: the id of the request, and what it says.
    async fn compares(&mut self, channel: ChannelId) -> Result<(u64, SyncMessage)> {
        let (id, body) = self.asked(channel).await?;
        let fields = speech::fields(&body)?;
        ensure!(
            speech::bytes_of(&fields, 1).as_deref() == Some(COMPARE.as_bytes()),
            "it asks something else"
        );
        let said = speech::bytes_of(&fields, 2).unwrap_or_default();
        Ok((id, SyncMessage::decode(&said, &Limits::default())?))
    }

    /// Says that in request `id`, and returns what it is answered with.
    async fn told(
        &mut self,
        channel: ChannelId,
        id: u64,
        message: &SyncMessage,
    ) -> Result<Option<SyncMessage>> {
        self.send(channel, REQUEST, &speech::asks(id, COMPARE, &message.encode())).await?;
        let response = self.response(channel, id).await?;
        let fields = speech::fields(&speech::bytes_of(&response, 3).unwrap_or_default())?;
        ensure!(
            speech::bytes_of(&fields, 1).as_deref() == Some(COMPARE.as_bytes()),
            "an answer of another type"
        );
        match speech::bytes_of(&fields, 2).unwrap_or_default() {
            nothing if nothing.is_empty() => Ok(None),
            answer => Ok(Some(SyncMessage::decode(&answer, &Limits::default())?)),
        }
    }

    /// Waits until the shim shows its membership: the id of the request, and what it shows.
    async fn shown(&mut self, channel: ChannelId) -> Result<(u64, Vec<u8>)> {
        let (id, body) = self.asked(channel).await?;
        let fields = speech::fields(&body)?;
        ensure!(
            speech::bytes_of(&fields, 1).as_deref() == Some(SHOW.as_bytes()),
            "it asks something else first"
        );
        Ok((id, speech::bytes_of(&fields, 2).unwrap_or_default()))
    }
}
