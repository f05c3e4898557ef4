//! Whoever dials us and knows nothing, or only discovery keys, or feed keys without the party, must not find out what we
//! are in and what we have. Thousands of seeded probes dial a peer that has it and one that has it not, say the same to both,
//! and compare all that they get to see: contents, order, sizes, what is closed, and when. A learned distinguisher looks at
//! the raw bytes, too. Time is virtual; how long answers take in real time is measured by `benches/benches/silence.rs`.
//!
//! Some hundred probes of each kind by default; `PARTY_PROBES=10000 cargo test -p party --test silence` sends so many of each.
//! `PARTY_PROBE_SEED=N` begins elsewhere.
#![allow(clippy::disallowed_methods)] // the time is virtual

#[path = "../common/mod.rs"]
mod common;

mod distinguish;
mod prober;
mod script;
mod worlds;

use common::random::Random;
use distinguish::Distinguisher;
use prober::Seen;
use worlds::{Answer, Case, Worlds};

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn in_virtual_time<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(test)
}

/// Sends probes of one kind to both, and returns what they saw.
async fn probe(case: Case, seeds: std::ops::Range<u64>) -> Vec<(Seen, Seen)> {
    let worlds = Worlds::new().await;
    let mut pairs = Vec::new();
    for seed in seeds {
        let has = worlds.probe(case, Answer::Has, seed).await;
        let has_not = worlds.probe(case, Answer::HasNot, seed).await;
        pairs.push((has, has_not));
    }
    pairs
}

/// Nothing that a probe of this kind sees depends on what it wants to know.
fn nothing_shows(case: Case) {
    let first = from_env("PARTY_PROBE_SEED", 0);
    let count = from_env("PARTY_PROBES", 150);
    let pairs = in_virtual_time(probe(case, first..first + count));
    for (seed, (has, has_not)) in (first..).zip(&pairs) {
        assert!(!has.is_blank(), "{case:?}, seed {seed}: the probe has seen nothing at all");
        if !worlds::is_settled(seed) {
            continue;
        }
        assert_eq!(has.events(), has_not.events(), "{case:?}, seed {seed}");
        assert_eq!(has.pieces, has_not.pieces, "{case:?}, seed {seed}: the sizes on the wire");
    }
    // What is left are the bytes as they were on the wire, and probes that don't wait for answers.
    let verdict = Distinguisher::try_on(&pairs, &mut Random(first));
    assert!(verdict.is_chance(), "{case:?}: {verdict:?}");
}

//= PARTY-16, PARTY-40, PARTY-41
#[test]
fn who_knows_nothing_of_a_party_learns_nothing() {
    nothing_shows(Case::Nothing);
}

//= protocol-spec/08-party.md#what-this-hides-and-what-not
#[test]
fn who_knows_discovery_keys_learns_nothing() {
    nothing_shows(Case::DiscoveryKeys);
}

//= protocol-spec/08-party.md#what-this-hides-and-what-not
#[test]
fn who_knows_feed_keys_without_the_party_learns_nothing() {
    nothing_shows(Case::FeedKeys);
}

//= PARTY-19
#[test]
fn who_recorded_what_members_say_elsewhere_learns_nothing() {
    nothing_shows(Case::Recording);
}

//= PARTY-39, PARTY-40
#[test]
fn who_knows_the_party_and_is_excluded_does_not_learn_who_is_in_it() {
    nothing_shows(Case::Excluded);
}

//= protocol-spec/08-party.md#party-mode
#[test]
fn a_member_of_one_party_does_not_learn_of_another() {
    nothing_shows(Case::OtherParty);
}

//= PARTY-95, PARTY-96
#[test]
fn a_member_who_knows_only_a_discovery_key_does_not_learn_who_has_the_feed() {
    nothing_shows(Case::MemberWithDiscoveryKeys);
}

//= PARTY-92, PARTY-94, PARTY-96
#[test]
fn a_member_does_not_learn_who_has_a_feed_that_is_forbidden_to_it() {
    nothing_shows(Case::MemberForbidden);
}

//= protocol-spec/08-party.md#open-mode
#[test]
fn in_open_mode_unknown_and_forged_look_alike() {
    nothing_shows(Case::OpenWithDiscoveryKeys);
}

//= PARTY-92
#[test]
fn in_open_mode_unknown_and_forbidden_look_alike() {
    nothing_shows(Case::OpenForbidden);
}

#[test]
fn the_distinguisher_sees_what_there_is_to_see() {
    // Who knows the party is admitted by members, and by nobody else.
    let pairs = in_virtual_time(probe(Case::Member, 0..40));
    assert!(pairs.iter().all(|(has, has_not)| has.events() != has_not.events()));
    let verdict = Distinguisher::try_on(&pairs, &mut Random(1));
    assert!(verdict.right_in_a_hundred() > 95, "{verdict:?}");
    // A millisecond is enough.
    let pairs = in_virtual_time(probe(Case::Impatient, 0..200));
    let verdict = Distinguisher::try_on(&pairs, &mut Random(1));
    assert!(!verdict.is_chance(), "{verdict:?}");
}
