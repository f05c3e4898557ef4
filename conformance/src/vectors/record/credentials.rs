//! Memberships and revocations. Their bytes are put together by hand here, as section 11 says, and signed: the library has to read them,
//! and to write the same where it makes them itself.

use anyhow::{Result, ensure};
use party::{hash::hash, key::KeyPair};
use serde_json::{Value, json};

use super::Recorder;
use crate::{
    dice::Dice,
    vectors::{
        Area, Bytes, Refusal,
        areas::credentials::{Cut, Granted},
    },
};

/// The bytes that fill the seeds of who takes part.
const FOUNDER: u8 = 1;
const ANN: u8 = 2;
const BOB: u8 = 3;
const CID: u8 = 4;
const DAN: u8 = 5;

/// 2^53 - 1.
const SAFE: u64 = (1 << 53) - 1;
const NOW: u64 = 1_800_000_000;

pub(super) fn record() -> Result<Area> {
    let mut recorder = Recorder::new(
        "credentials",
        "Memberships and revocations, what they end, what members come to who have seen the same, and what they say to each other; \
         the pair of n grows from a seed of 32 bytes of the value n, and 1 is the founder",
    );
    terms(&mut recorder)?;
    narrowing(&mut recorder)?;
    malformed(&mut recorder)?;
    forged(&mut recorder)?;
    showing(&mut recorder)?;
    super::revocations::record(&mut recorder)?;
    sets(&mut recorder)?;
    comparing(&mut recorder)?;
    recorder.finish()
}

/// The party key, a membership, and the seed of the pair that it names.
pub(super) fn for_tickets() -> Result<(Bytes, Bytes, Bytes)> {
    let membership = chain(&[FOUNDER, ANN], &[grant(ANN, 2), grant(BOB, 1)]);
    Ok((party_key(), Bytes(membership), Bytes::from([BOB; 32])))
}

pub(super) fn pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

pub(super) fn party_key() -> Bytes {
    Bytes::from(pair(FOUNDER).public().as_bytes())
}

/// Everything, to the pair of `subject`.
pub(super) fn grant(subject: u8, depth: u64) -> Granted {
    Granted {
        subject: Bytes::from(pair(subject).public().as_bytes()),
        device: false,
        serial: NOW,
        depth,
        read: true,
        bring: true,
        blind: false,
        expiry: None,
        feeds: None,
        range: None,
        newest: None,
    }
}

fn feeds(numbers: impl IntoIterator<Item = u8>) -> Option<Vec<Bytes>> {
    Some(numbers.into_iter().map(|n| Bytes::from([n; 32])).collect())
}

pub(super) fn namespace(n: u8) -> [u8; 32] {
    let all = [
        "4ce96589e34c2edaf2fec359d43b4bca6e6a6389837efaa8f50772d5605d10ae",
        "a3d320285d6e65dd335be3a3c0b58c954129bbdf99ac803ec93d7c96713ab408",
        "9c1b3f55b20ec4d5c05025505a43360e922b5f4c5177ddba0359a23256b3f381",
        "6fe0ab47900383e1303cab87e11c469a44361a01c577d55339e285dd66f2cab3",
    ];
    let mut out = [0; 32];
    let digits = all[usize::from(n)].as_bytes();
    for (byte, pair) in out.iter_mut().zip(digits.chunks(2)) {
        let value = |digit: u8| (digit as char).to_digit(16).unwrap_or(0) as u8;
        *byte = value(pair[0]) << 4 | value(pair[1]);
    }
    out
}

const LINK: u8 = 0;
const LINK_SIGNATURE: u8 = 1;

pub(super) fn uint(value: u64) -> Vec<u8> {
    match value {
        0..=0xfc => vec![value as u8],
        0xfd..=0xffff => [vec![0xfd], (value as u16).to_le_bytes().to_vec()].concat(),
        0x1_0000..=0xffff_ffff => [vec![0xfe], (value as u32).to_le_bytes().to_vec()].concat(),
        _ => [vec![0xff], value.to_le_bytes().to_vec()].concat(),
    }
}

/// A link without its signature.
fn body(link: &Granted) -> Vec<u8> {
    let bit = |is_set: bool, n: u8| u8::from(is_set) << n;
    let flags = bit(link.read, 0)
        | bit(link.bring, 1)
        | bit(link.blind, 2)
        | bit(link.device, 3)
        | bit(link.expiry.is_some(), 4)
        | bit(link.feeds.is_some(), 5)
        | bit(link.range.is_some(), 6)
        | bit(link.newest.is_some(), 7);
    let mut out = [&link.subject[..], &[flags], &uint(link.depth), &uint(link.serial)].concat();
    out.extend(link.expiry.into_iter().flat_map(uint));
    if let Some(feeds) = &link.feeds {
        out.extend(uint(feeds.len() as u64));
        feeds.iter().for_each(|key| out.extend(&key.0));
    }
    if let Some((start, end)) = link.range {
        out.extend([uint(start), uint(end)].concat());
    }
    out.extend(link.newest.into_iter().flat_map(uint));
    out
}

/// The bytes of a chain of such bodies, and the ids of its links.
fn signed(party_key: &[u8], signers: &[u8], bodies: &[Vec<u8>]) -> (Vec<u8>, Vec<[u8; 32]>) {
    let mut ids = Vec::new();
    let mut out = [vec![1], uint(bodies.len() as u64)].concat();
    let mut before = [0; 32];
    for (signer, body) in signers.iter().zip(bodies) {
        before = hash(&[&namespace(LINK), party_key, &before, body]);
        ids.push(before);
        let signature = pair(*signer).sign(&[namespace(LINK_SIGNATURE), before].concat());
        out.extend(body);
        out.extend(signature);
    }
    (out, ids)
}

/// A membership.
pub(super) fn chain(signers: &[u8], links: &[Granted]) -> Vec<u8> {
    signed(&party_key(), signers, &links.iter().map(body).collect::<Vec<_>>()).0
}

/// The ids of its links.
pub(super) fn ids(signers: &[u8], links: &[Granted]) -> Vec<[u8; 32]> {
    signed(&party_key(), signers, &links.iter().map(body).collect::<Vec<_>>()).1
}

pub(super) fn carried(bytes: &[u8]) -> Value {
    json!({ "party_key": party_key(), "bytes": Bytes::from(bytes) })
}

/// A chain that the library makes, and that reads as what it is.
fn good(
    recorder: &mut Recorder,
    name: &str,
    signers: &[u8],
    links: &[Granted],
    must: &[&'static str],
) -> Result<()> {
    let about = "A membership is made, and has one encoding.";
    let input = json!({ "signers": signers, "links": links });
    let made = recorder.about("issued", about, &["CRED-1", "CRED-2"]).accept(name, input)?;
    let bytes = chain(signers, links);
    ensure!(made["membership"] == json!(Bytes::from(&bytes)), "{name}: {bytes:?} was to be made");
    recorder.about("membership", "What a membership says.", must).accept(name, carried(&bytes)).map(drop)
}

fn terms(recorder: &mut Recorder) -> Result<()> {
    let must = &["CRED-2", "CRED-14", "CRED-16", "CRED-21"];
    let mut one = |name: String, change: &dyn Fn(&mut Granted)| {
        let mut link = grant(ANN, 0);
        change(&mut link);
        good(recorder, &name, &[FOUNDER], &[link], must)
    };
    for depth in 0..=4 {
        one(format!("everything, with the depth {depth}"), &|it| it.depth = depth)?;
    }
    for (read, bring, blind) in [
        (false, true, false),
        (true, false, false),
        (false, false, false),
        (true, true, true),
        (false, true, true),
    ] {
        let change = |it: &mut Granted| (it.read, it.bring, it.blind) = (read, bring, blind);
        one(format!("read {read}, bring {bring}, blind {blind}"), &change)?;
    }
    one("a device".to_owned(), &|it| it.device = true)?;
    let borders = [0, 1, 252, 253, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, SAFE];
    for n in borders {
        one(format!("the serial {n}"), &|it| it.serial = n)?;
        one(format!("good until {n}"), &|it| it.expiry = Some(n))?;
        if n > 0 {
            one(format!("the newest {n} blocks"), &|it| it.newest = Some(n))?;
            one(format!("the blocks up to {n}"), &|it| it.range = Some((n - 1, n)))?;
        }
    }
    for count in [0, 1, 2, 15, 16] {
        one(format!("{count} feeds"), &|it| it.feeds = feeds(1..=count))?;
    }
    let all = |it: &mut Granted| {
        (it.expiry, it.feeds, it.range) = (Some(SAFE), feeds(1..=16), Some((1 << 40, SAFE)));
    };
    one("all that a link can say".to_owned(), &all)?;

    let long = |depths: std::ops::RangeInclusive<u64>| {
        depths.rev().map(|depth| grant(ANN + (4 - depth) as u8, depth)).collect::<Vec<_>>()
    };
    let signers = [FOUNDER, ANN, BOB, CID, DAN];
    for first in 0..=4 {
        let links = long(4 - first..=4);
        good(recorder, &format!("a chain of {} links", links.len()), &signers[..links.len()], &links, must)?;
    }
    let device = Granted { device: true, ..grant(CID, 0) };
    good(recorder, "a member's device", &[FOUNDER, ANN, BOB], &[grant(ANN, 3), grant(BOB, 1), device], must)
}

fn narrowing(recorder: &mut Recorder) -> Result<()> {
    let base = || Granted { serial: 1, ..grant(ANN, 2) };
    let mut kinds: Vec<(String, Granted)> = vec![("everything".to_owned(), base())];
    let mut more = |name: &str, change: &dyn Fn(&mut Granted)| {
        let mut link = base();
        change(&mut link);
        kinds.push((name.to_owned(), link));
    };
    more("reading alone", &|it| it.bring = false);
    more("bringing alone", &|it| it.read = false);
    more("blind", &|it| it.blind = true);
    more("until 1000", &|it| it.expiry = Some(1000));
    more("until 1001", &|it| it.expiry = Some(1001));
    more("the feeds 1 and 2", &|it| it.feeds = feeds([1, 2]));
    more("the feed 2", &|it| it.feeds = feeds([2]));
    more("the feed 3", &|it| it.feeds = feeds([3]));
    more("no feed", &|it| it.feeds = feeds([]));
    more("the blocks 5 to 9", &|it| it.range = Some((5, 10)));
    more("the blocks 5 to 8", &|it| it.range = Some((5, 9)));
    more("the blocks 4 to 9", &|it| it.range = Some((4, 10)));
    more("the newest 10", &|it| it.newest = Some(10));
    more("the newest 11", &|it| it.newest = Some(11));
    for (above, first) in &kinds {
        for (below, second) in &kinds {
            let second = Granted { subject: grant(BOB, 0).subject, depth: 1, ..second.clone() };
            two(recorder, &format!("{below} below {above}"), first.clone(), second)?;
        }
    }
    for (above, below) in [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (4, 3), (3, 4)] {
        let name = format!("the depth {below} below {above}");
        two(recorder, &name, Granted { depth: above, ..base() }, grant(BOB, below))?;
    }
    Ok(())
}

/// Two links: whether the second narrows the first, by the table of section 11.
fn two(recorder: &mut Recorder, name: &str, first: Granted, second: Granted) -> Result<()> {
    let within = |inner: &Option<Vec<Bytes>>, outer: &Option<Vec<Bytes>>| match (inner, outer) {
        (_, None) => true,
        (Some(inner), Some(outer)) => inner.iter().all(|key| outer.contains(key)),
        (None, Some(_)) => false,
    };
    let blocks = match ((first.range, first.newest), (second.range, second.newest)) {
        ((None, None), _) => true,
        ((Some(outer), _), (Some(inner), _)) => inner.0 >= outer.0 && inner.1 <= outer.1,
        ((_, Some(outer)), (_, Some(inner))) => inner <= outer,
        _ => false,
    };
    let sooner = match (first.expiry, second.expiry) {
        (None, _) => true,
        (Some(outer), Some(inner)) => inner <= outer,
        (Some(_), None) => false,
    };
    let narrows = second.depth < first.depth
        && within(&second.feeds, &first.feeds)
        && (first.read || !second.read)
        && (first.bring || !second.bring)
        && (second.blind || !first.blind)
        && blocks
        && sooner;
    let (signers, links) = ([FOUNDER, ANN], [first, second]);
    let must = &["CRED-12", "CRED-13", "CRED-20"];
    if narrows {
        return good(recorder, name, &signers, &links, &["CRED-14", "CRED-20", "CRED-21"]);
    }
    let about = "A link that allows what the one before it doesn't is not made.";
    let input = json!({ "signers": signers, "links": links });
    recorder.about("issued", about, &["CRED-12"]).refuse(name, Refusal::Misuse, input)?;
    let about = "A membership with a link that allows what the one before it doesn't is refused, however well it is signed.";
    recorder.about("membership", about, must).refuse(
        name,
        Refusal::Credential,
        carried(&chain(&signers, &links)),
    )
}

/// What is no encoding of a membership.
fn malformed(recorder: &mut Recorder) -> Result<()> {
    let whole = chain(&[FOUNDER], &[Granted { expiry: Some(NOW), ..grant(ANN, 1) }]);
    let sign = |bodies: &[Vec<u8>]| {
        signed(&party_key(), &[FOUNDER, ANN, BOB, CID, DAN, DAN][..bodies.len()], bodies).0
    };
    let with = |link: &Granted| sign(&[body(link)]);
    let mut flags = body(&Granted { range: Some((1, 2)), ..grant(ANN, 0) });
    flags[32] |= 0x80;
    flags.push(1);
    let replaced = |at: usize, by: &[u8]| [&whole[..at], by, &whole[at + 1..]].concat();
    let longer_serial = [&body(&grant(ANN, 0))[..33], &[0, 0xfd, 7, 0]].concat();
    let longer_depth = [&body(&grant(ANN, 0))[..33], &[0xfd, 0, 0, 7]].concat();
    let large_serial = [&body(&grant(ANN, 0))[..33], &[0, 0xff], &(1_u64 << 53).to_le_bytes()[..]].concat();
    let six: Vec<Vec<u8>> = (0..6).map(|_| body(&grant(ANN, 0))).collect();
    let cases: Vec<(&str, Vec<u8>, &[&'static str])> = vec![
        ("the version 0", replaced(0, &[0]), &["CRED-3"]),
        ("the version 2", replaced(0, &[2]), &["CRED-3"]),
        ("no bytes", vec![], &["CRED-3", "CRED-16"]),
        ("no links", vec![1, 0], &["CRED-10"]),
        ("six links", sign(&six), &["CRED-10"]),
        ("two links of which one is there", replaced(1, &[2]), &["CRED-10", "CRED-16"]),
        ("no link of which one is there", replaced(1, &[0]), &["CRED-6", "CRED-10"]),
        ("2^53 - 1 links", replaced(1, &[&[0xff], &SAFE.to_le_bytes()[..]].concat()), &["CRED-10"]),
        ("a byte after it", [&whole[..], &[0]].concat(), &["CRED-6"]),
        ("itself after it", whole.repeat(2), &["CRED-6"]),
        ("a count in a longer form", replaced(1, &[0xfd, 1, 0]), &["CRED-4"]),
        ("a serial in a longer form", sign(&[longer_serial]), &["CRED-1", "CRED-4"]),
        ("a depth in a longer form", sign(&[longer_depth]), &["CRED-1", "CRED-4"]),
        ("a serial of 2^53", sign(&[large_serial]), &["CRED-16"]),
        ("feeds out of order", with(&Granted { feeds: feeds([2, 1]), ..grant(ANN, 0) }), &["CRED-5"]),
        ("a feed twice", with(&Granted { feeds: feeds([1, 1]), ..grant(ANN, 0) }), &["CRED-5"]),
        ("seventeen feeds", with(&Granted { feeds: feeds(1..=17), ..grant(ANN, 0) }), &["CRED-10"]),
        ("a range and the newest", sign(&[flags]), &["CRED-7"]),
        ("an empty range", with(&Granted { range: Some((5, 5)), ..grant(ANN, 0) }), &["CRED-8"]),
        ("a range backwards", with(&Granted { range: Some((6, 5)), ..grant(ANN, 0) }), &["CRED-8"]),
        ("the newest 0 blocks", with(&Granted { newest: Some(0), ..grant(ANN, 0) }), &["CRED-8"]),
        ("a depth of 5", with(&grant(ANN, 5)), &["CRED-9"]),
        ("a depth of 2^53 - 1", with(&grant(ANN, SAFE)), &["CRED-9"]),
    ];
    for (name, bytes, must) in cases {
        let about = "A membership has one encoding, and anything else is none.";
        recorder.about("membership", about, must).refuse(name, Refusal::Decode, carried(&bytes))?;
    }
    let about = "A membership that ends too early is none.";
    let mut group = recorder.about("membership", about, &["CRED-16"]);
    for length in (1..whole.len()).filter(|length| length % 5 == 1 || *length < 3 || whole.len() - length < 3)
    {
        group.refuse(format!("cut after {length} bytes"), Refusal::Decode, carried(&whole[..length]))?;
    }
    Ok(())
}

/// What is well formed and doesn't hold.
fn forged(recorder: &mut Recorder) -> Result<()> {
    let (first, second) = (grant(ANN, 1), grant(BOB, 0));
    let whole = chain(&[FOUNDER, ANN], &[first.clone(), second.clone()]);
    let one = whole.len() / 2 + 1;
    let flip = |at: usize| {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        changed
    };
    let about = "A membership of which a link is not signed by who may is refused.";
    let mut group = recorder.about("membership", about, &["CRED-2", "CRED-21"]);
    let other = signed(&[9; 32], &[FOUNDER], &[body(&first)]).0;
    let alone = signed(&party_key(), &[ANN], &[body(&second)]).0;
    let cases = [
        ("the first link is signed by its subject", chain(&[ANN, ANN], &[first.clone(), second.clone()])),
        ("the first link is signed by nobody known", chain(&[DAN, ANN], &[first.clone(), second.clone()])),
        (
            "the second link is signed by the founder",
            chain(&[FOUNDER, FOUNDER], &[first.clone(), second.clone()]),
        ),
        (
            "the second link is signed by its subject",
            chain(&[FOUNDER, BOB], &[first.clone(), second.clone()]),
        ),
        ("the second link alone", alone),
        ("a link of another party", other),
        ("a flipped bit in the first signature", flip(one - 1)),
        ("a flipped bit in the first subject", flip(3)),
        ("a flipped bit in the first flags", flip(34)),
        ("a flipped bit in the last signature", flip(whole.len() - 1)),
        ("a flipped bit in the last signature's point", flip(whole.len() - 64)),
        (
            "the same, to another key",
            [&whole[..whole.len() - 103], &chain(&[FOUNDER], &[grant(CID, 0)])[2..]].concat(),
        ),
    ];
    for (name, bytes) in cases {
        group.refuse(name, Refusal::Credential, carried(&bytes))?;
    }
    let input =
        json!({ "party_key": Bytes::from(pair(DAN).public().as_bytes()), "bytes": Bytes::from(&whole) });
    group.refuse("in another party", Refusal::Credential, input)?;

    let about = "Keys to which nobody can hold the secret, and devices that delegate.";
    let mut group = recorder.about("membership", about, &["CRED-19"]);
    let mut order_two = [0xff; 32];
    (order_two[0], order_two[31]) = (0xec, 0x7f);
    let mut no_form = [0xff; 32];
    (no_form[0], no_form[31]) = (0xf0, 0x7f);
    let mut order_one = [0; 32];
    order_one[0] = 1;
    let mut no_point = [0; 32];
    no_point[0] = 2;
    let keys = [
        ("of order 1", order_one),
        ("of order 2", order_two),
        ("of order 4", [0; 32]),
        ("that is no point", no_point),
        ("in a second encoding", no_form),
    ];
    for (name, key) in keys {
        let link = Granted { subject: Bytes::from(key), ..grant(ANN, 0) };
        group.refuse(
            format!("a subject {name}"),
            Refusal::Credential,
            carried(&chain(&[FOUNDER], &[link])),
        )?;
    }
    let mut group = recorder.about("membership", about, &["CRED-15", "CRED-19"]);
    for depth in 1..=4 {
        let device = Granted { device: true, ..grant(ANN, depth) };
        group.refuse(
            format!("a device with the depth {depth}"),
            Refusal::Credential,
            carried(&chain(&[FOUNDER], &[device])),
        )?;
    }
    Ok(())
}

fn showing(recorder: &mut Recorder) -> Result<()> {
    let bytes = |expiry| {
        chain(&[FOUNDER, ANN], &[Granted { expiry, ..grant(ANN, 1) }, Granted { expiry, ..grant(BOB, 0) }])
    };
    let shown = |who: u8, now: u64, expiry| {
        let remote = Bytes::from(pair(who).public().as_bytes());
        json!({ "party_key": party_key(), "remote": remote, "now": now, "bytes": Bytes(bytes(expiry)) })
    };
    let about = "Whether a membership is good for the peer with this static key, at this time.";
    let mut group = recorder.about("shown", about, &["CRED-17", "CRED-18"]);
    for now in [0, NOW - 1] {
        group.accept(format!("by its holder at {now}, good until {NOW}"), shown(BOB, now, Some(NOW)))?;
    }
    group.accept("by its holder, good for ever", shown(BOB, SAFE, None))?;
    for now in [NOW, NOW + 1, SAFE] {
        group.refuse(
            format!("by its holder at {now}, good until {NOW}"),
            Refusal::Credential,
            shown(BOB, now, Some(NOW)),
        )?;
    }
    for (name, who) in [("who issued it", ANN), ("the founder", FOUNDER), ("another", CID)] {
        group.refuse(format!("by {name}"), Refusal::Credential, shown(who, 0, None))?;
    }
    Ok(())
}

/// The chains of a small party, with the signers of each.
pub(super) fn cast() -> Vec<(&'static str, Vec<u8>, Vec<Granted>)> {
    let again = Granted { serial: NOW + 1, ..grant(ANN, 3) };
    let expiring = Granted { expiry: Some(NOW), ..grant(BOB, 0) };
    vec![
        ("Ann", vec![FOUNDER], vec![grant(ANN, 3)]),
        ("Ann, granted again", vec![FOUNDER], vec![again.clone()]),
        ("Bob of Ann", vec![FOUNDER, ANN], vec![grant(ANN, 3), grant(BOB, 2)]),
        ("Bob of Ann granted again", vec![FOUNDER, ANN], vec![again, grant(BOB, 2)]),
        ("Cid of Bob of Ann", vec![FOUNDER, ANN, BOB], vec![grant(ANN, 3), grant(BOB, 2), grant(CID, 1)]),
        ("Dan", vec![FOUNDER], vec![grant(DAN, 3)]),
        ("Bob of Dan", vec![FOUNDER, DAN], vec![grant(DAN, 3), grant(BOB, 2)]),
        ("Cid of Bob of Dan", vec![FOUNDER, DAN, BOB], vec![grant(DAN, 3), grant(BOB, 2), grant(CID, 1)]),
        ("Bob", vec![FOUNDER], vec![expiring]),
        ("Cid", vec![FOUNDER], vec![grant(CID, 0)]),
    ]
}

/// Chance decides who has seen what.
fn sets(recorder: &mut Recorder) -> Result<()> {
    let revocations = super::revocations::some();
    let about = "Whoever has seen the same has the same members, removed ones and cut-offs, whatever the order in which it was seen.";
    let must = ["CRED-28", "CRED-29", "CRED-30", "CRED-33", "CRED-34", "CRED-35"];
    let mut group = recorder.about("set", about, &must);
    for seed in 1..=48 {
        let mut dice = Dice::apart(seed, "sets", 0);
        let mut chosen = Vec::new();
        for (_, signers, links) in cast() {
            if dice.percent(60) {
                chosen.push(Bytes(chain(&signers, &links)));
            }
        }
        let mut ended = Vec::new();
        for revocation in &revocations {
            if dice.percent(30) {
                ended.push(Bytes::from(revocation));
            }
        }
        let now = if dice.percent(50) { NOW - 1 } else { NOW };
        let input =
            json!({ "party_key": party_key(), "now": now, "memberships": chosen, "revocations": ended });
        let name =
            format!("{} memberships and {} revocations, of the seed {seed}", chosen.len(), ended.len());
        group.accept(name, input)?;
    }
    Ok(())
}

fn comparing(recorder: &mut Recorder) -> Result<()> {
    let all: Vec<Bytes> = cast().iter().map(|(_, signers, links)| Bytes(chain(signers, links))).collect();
    let about = "Two members compare what they know: all that they say, until both know the same.";
    let mut said = Vec::new();
    let mut group = recorder.about("comparison", about, &["CRED-38", "CRED-67", "CRED-68"]);
    for seed in 1..=16 {
        let mut dice = Dice::apart(seed, "comparing", 0);
        let mut salt = [0; 16];
        dice.fill(&mut salt);
        let mut half = || -> Vec<Bytes> { all.iter().filter(|_| dice.percent(50)).cloned().collect() };
        let (one, other) = (half(), half());
        let name = format!("{} and {} memberships, of the seed {seed}", one.len(), other.len());
        let input =
            json!({ "party_key": party_key(), "salt": Bytes::from(salt), "one": one, "other": other });
        let values = group.accept(name, input)?;
        for (n, message) in values["said"].as_array().into_iter().flatten().enumerate() {
            let bytes: Bytes = serde_json::from_value(message["bytes"].clone())?;
            if !said.iter().any(|(_, known)| *known == bytes) {
                said.push((format!("message {n} of the seed {seed}"), bytes));
            }
        }
    }
    let mut group = recorder.about("message", "What a message of members says.", &["CRED-38"]);
    for (name, bytes) in &said {
        group.accept(name.clone(), json!({ "bytes": bytes }))?;
    }
    let salt = [7; 16];
    let want = |count: Vec<u8>, ids: usize| [vec![2], count, vec![5; 32 * ids]].concat();
    group.accept("a want of nothing", json!({ "bytes": Bytes(want(vec![0], 0)) }))?;
    group.accept("no items", json!({ "bytes": Bytes(vec![3]) }))?;
    let mut group = recorder.about("message", "4096 ids are taken, and no more.", &["CRED-40"]);
    group.accept("a want of 4096", json!({ "bytes": Bytes(want(uint(4096), 4096)) }))?;
    group.refuse("a want of 4097", Refusal::Decode, json!({ "bytes": Bytes(want(uint(4097), 4097)) }))?;

    let mut group = recorder.about("message", "What is no message of members.", &["CRED-38", "CRED-70"]);
    let item = |kind: u8, bytes: &[u8]| [vec![3, kind], uint(bytes.len() as u64), bytes.to_vec()].concat();
    let wrong: Vec<(&str, Vec<u8>)> = vec![
        ("no bytes", vec![]),
        ("the type 4", vec![4]),
        ("the type 255", vec![255]),
        ("a summary without sums", [&[0][..], &salt].concat()),
        ("a summary of 255 sums", [&[0][..], &salt, &[0; 8 * 255]].concat()),
        ("a summary with a byte after it", [&[0][..], &salt, &[0; 8 * 256 + 1]].concat()),
        ("a have without ids", [&[1][..], &salt, &[0; 32]].concat()),
        ("a have of one id that is not there", [&[1][..], &salt, &[0; 32], &[1]].concat()),
        ("a want of two ids of which one is there", want(vec![2], 1)),
        ("a want with a byte after it", [want(vec![1], 1), vec![0]].concat()),
        ("a want of 2^53 - 1", want(uint(SAFE), 1)),
        ("an item of the kind 2", item(2, &all[0])),
        ("an item of no bytes", item(1, &[])),
        ("a membership as a revocation", item(0, &all[0])),
        ("a membership that is cut", item(1, &all[0][..all[0].len() - 1])),
        ("a membership with a byte after it", item(1, &[&all[0][..], &[0]].concat())),
        (
            "an item longer than the message",
            [vec![3, 1], uint(all[0].len() as u64 + 1), all[0].to_vec()].concat(),
        ),
    ];
    for (name, bytes) in wrong {
        group.refuse(name, Refusal::Decode, json!({ "bytes": Bytes(bytes) }))?;
    }
    Ok(())
}

/// A cut-off of the feed whose discovery key is full of this byte.
pub(super) fn cut(feed: u8, fork: u64, length: u64) -> Cut {
    Cut { feed: Bytes::from([feed; 32]), fork, length }
}
