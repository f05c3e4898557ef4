//! Revocations, put together by hand.

use anyhow::{Result, ensure};
use party::hash::hash;
use serde_json::json;

use super::{
    Recorder,
    credentials::{carried, cast, chain, cut, ids, namespace, pair, party_key, uint},
};
use crate::vectors::{
    Bytes, Refusal,
    areas::credentials::{Cut, Granted},
};

const REVOCATION: u8 = 2;
const REVOCATION_SIGNATURE: u8 = 3;

/// Who stands on a chain, from the founder on.
type Chain = (&'static str, Vec<u8>, Vec<Granted>);

/// A revocation of the end of a chain, by who stands at this depth on it.
struct Spec {
    chain: Chain,
    signer: usize,
    key: bool,
    cuts: Vec<Cut>,
}

impl Spec {
    fn name(&self) -> String {
        let what = if self.key { "the key" } else { "the link" };
        format!(
            "{what} of {}, by who stands at the depth {}, {} cut-offs",
            self.chain.0,
            self.signer,
            self.cuts.len()
        )
    }

    fn bytes(&self) -> Vec<u8> {
        self.written(&statement(self.signer as u64, u8::from(self.key), &self.cuts), self.seed())
    }

    /// The seed of who signs.
    fn seed(&self) -> u8 {
        let (_, signers, links) = &self.chain;
        let last =
            (2..=5).find(|seed| pair(*seed).public().as_bytes()[..] == *links[links.len() - 1].subject);
        signers.get(self.signer).copied().or(last).unwrap_or_default()
    }

    fn written(&self, statement: &[u8], seed: u8) -> Vec<u8> {
        let (_, signers, links) = &self.chain;
        let last = ids(signers, links).pop().unwrap_or_default();
        let id = hash(&[&namespace(REVOCATION), &last, statement]);
        let signature = pair(seed).sign(&[namespace(REVOCATION_SIGNATURE), id].concat());
        [&[1][..], &chain(signers, links), statement, &signature].concat()
    }

    /// Whether it ends a chain, by the two cases of section 11.
    fn ends(&self, (_, signers, links): &Chain) -> bool {
        let (_, own_signers, own_links) = &self.chain;
        if !self.key {
            let revoked = ids(own_signers, own_links).pop();
            return ids(signers, links).into_iter().any(|id| Some(id) == revoked);
        }
        let revoked = &own_links[own_links.len() - 1].subject;
        let signer = Bytes::from(pair(self.seed()).public().as_bytes());
        let nodes: Vec<Bytes> =
            std::iter::once(party_key()).chain(links.iter().map(|link| link.subject.clone())).collect();
        let Some(depth) = nodes.iter().position(|node| *node == signer) else { return false };
        nodes.iter().enumerate().skip(1).any(|(at, node)| at >= depth && node == revoked)
    }
}

fn statement(signer: u64, kind: u8, cuts: &[Cut]) -> Vec<u8> {
    let listed = cuts.iter().flat_map(|cut| [cut.feed.to_vec(), uint(cut.fork), uint(cut.length)].concat());
    let head = [uint(signer), vec![kind], uint(cuts.len() as u64)].concat();
    head.into_iter().chain(listed).collect()
}

fn specs() -> Vec<Spec> {
    let cast = cast();
    let spec = |chain: usize, signer, key, cuts: &[Cut]| Spec {
        chain: cast[chain].clone(),
        signer,
        key,
        cuts: cuts.to_vec(),
    };
    let (low, high) = (cut(7, 1, 42), cut(7, 1, 43));
    vec![
        spec(0, 0, false, &[]),
        spec(0, 0, true, &[cut(8, 0, 3)]),
        spec(0, 1, true, &[]),
        spec(2, 0, true, std::slice::from_ref(&high)),
        spec(2, 1, true, std::slice::from_ref(&low)),
        spec(2, 1, false, &[cut(7, 0, 1000)]),
        spec(2, 2, true, &[cut(7, 0, 0), cut(9, 2, 1 << 40)]),
        spec(4, 1, true, &[]),
        spec(4, 2, false, &[cut(9, 0, 5)]),
        spec(5, 0, false, &[]),
        spec(6, 1, true, &[high, cut(9, 0, 0)]),
        spec(7, 3, true, &[]),
        spec(8, 0, true, &[low]),
        spec(9, 0, false, &[]),
    ]
}

/// The bytes of some revocations.
pub(super) fn some() -> Vec<Vec<u8>> {
    specs().iter().map(Spec::bytes).collect()
}

pub(super) fn record(recorder: &mut Recorder) -> Result<()> {
    for spec in specs() {
        let (_, signers, links) = &spec.chain;
        let input = json!({
            "party_key": party_key(),
            "membership": Bytes(chain(signers, links)),
            "signer": spec.seed(),
            "key": spec.key,
            "cut_offs": spec.cuts,
        });
        let about = "Who stands on a chain revokes its end.";
        let made =
            recorder.about("signed_revocation", about, &["CRED-1", "CRED-23"]).accept(spec.name(), input)?;
        ensure!(made["revocation"] == json!(Bytes(spec.bytes())), "{}: another was to be made", spec.name());
        let mut group = recorder.about("revocation", "What a revocation says.", &["CRED-23", "CRED-27"]);
        group.accept(spec.name(), carried(&spec.bytes()))?;
    }
    let cast = cast();
    for (name, seed) in [("Bob", 3), ("Cid", 4)] {
        let (_, signers, links) = &cast[0];
        let input = json!({
            "party_key": party_key(),
            "membership": Bytes(chain(signers, links)),
            "signer": seed,
            "key": true,
            "cut_offs": [],
        });
        let mut group = recorder.about(
            "signed_revocation",
            "Who doesn't stand on a chain can't revoke it.",
            &["CRED-25"],
        );
        group.refuse(format!("Ann's key by {name}"), Refusal::Misuse, input)?;
    }
    ending(recorder)?;
    malformed(recorder)?;
    forged(recorder)
}

/// Each revocation and each chain.
fn ending(recorder: &mut Recorder) -> Result<()> {
    let mut group = recorder.about("ends", "Whether a revocation ends a chain.", &["CRED-28"]);
    for spec in specs() {
        for chained in cast() {
            let (name, signers, links) = &chained;
            let input = json!({
                "party_key": party_key(),
                "revocation": Bytes(spec.bytes()),
                "membership": Bytes(chain(signers, links)),
            });
            let name = format!("{}; {name}", spec.name());
            let values = group.accept(name.clone(), input)?;
            ensure!(values["ends"] == json!(spec.ends(&chained)), "{name}: {}", values["ends"]);
        }
    }
    Ok(())
}

fn malformed(recorder: &mut Recorder) -> Result<()> {
    let spec = Spec { chain: cast()[2].clone(), signer: 1, key: true, cuts: vec![cut(7, 1, 42)] };
    let whole = spec.bytes();
    let made = |statement: &[u8]| spec.written(statement, spec.seed());
    let many = |feeds: &[u8]| statement(1, 1, &feeds.iter().map(|feed| cut(*feed, 0, 1)).collect::<Vec<_>>());
    let longer = [&[1, 1, 1][..], &[7; 32], &[0xfd, 1, 0], &[42]].concat();
    let cases: Vec<(&str, Vec<u8>, &[&'static str])> = vec![
        ("the version 0", [&[0][..], &whole[1..]].concat(), &["CRED-26"]),
        ("the version 2", [&[2][..], &whole[1..]].concat(), &["CRED-26"]),
        ("the kind 2", made(&statement(1, 2, &[])), &["CRED-26"]),
        ("the kind 255", made(&statement(1, 255, &[])), &["CRED-26"]),
        ("seventeen cut-offs", made(&many(&(1..=17).collect::<Vec<_>>())), &["CRED-26"]),
        ("cut-offs out of order", made(&many(&[2, 1])), &["CRED-26"]),
        ("a cut-off twice", made(&many(&[1, 1])), &["CRED-26"]),
        ("a byte after it", [&whole[..], &[0]].concat(), &["CRED-26"]),
        ("a fork in a longer form", made(&longer), &["CRED-1", "CRED-26"]),
        ("no bytes", vec![], &["CRED-26"]),
        ("a chain of another version", [&whole[..1], &[2], &whole[2..]].concat(), &["CRED-24", "CRED-26"]),
    ];
    for (name, bytes, must) in cases {
        let about = "A revocation has one encoding, and anything else is none.";
        recorder.about("revocation", about, must).refuse(name, Refusal::Decode, carried(&bytes))?;
    }
    let mut group = recorder.about("revocation", "A revocation that ends too early is none.", &["CRED-26"]);
    for length in (1..whole.len()).filter(|length| length % 9 == 0 || whole.len() - length < 3) {
        group.refuse(format!("cut after {length} bytes"), Refusal::Decode, carried(&whole[..length]))?;
    }
    let mut group = recorder.about("revocation", "Sixteen cut-offs are taken.", &["CRED-26"]);
    group.accept("sixteen cut-offs", carried(&made(&many(&(1..=16).collect::<Vec<_>>()))))?;
    Ok(())
}

fn forged(recorder: &mut Recorder) -> Result<()> {
    let spec = Spec { chain: cast()[2].clone(), signer: 1, key: true, cuts: vec![cut(7, 1, 42)] };
    let whole = spec.bytes();
    let about = "A revocation that is not signed by who it says, on a chain that holds, is refused.";
    let mut group = recorder.about("revocation", about, &["CRED-25"]);
    let said = statement(1, 1, &spec.cuts);
    for (name, seed) in [("the founder", 1), ("the holder", 3), ("nobody known", 5)] {
        group.refuse(
            format!("Ann's, signed by {name}"),
            Refusal::Credential,
            carried(&spec.written(&said, seed)),
        )?;
    }
    for signer in [0, 2] {
        let bytes = spec.written(&statement(signer, 1, &spec.cuts), spec.seed());
        group.refuse(
            format!("Ann's, as by who stands at the depth {signer}"),
            Refusal::Credential,
            carried(&bytes),
        )?;
    }
    for at in [1, 33, 64] {
        let mut changed = whole.clone();
        let at = changed.len() - at;
        changed[at] ^= 1;
        group.refuse(
            format!("a flipped bit in byte {} from the end", whole.len() - at),
            Refusal::Credential,
            carried(&changed),
        )?;
    }
    let mut group = recorder.about("revocation", about, &["CRED-24"]);
    let mut changed = whole.clone();
    changed[4] ^= 1;
    group.refuse("a flipped bit in the chain", Refusal::Credential, carried(&changed))?;
    let other = json!({ "party_key": Bytes::from(pair(5).public().as_bytes()), "bytes": Bytes(whole) });
    group.refuse("in another party", Refusal::Credential, other)?;
    Ok(())
}
