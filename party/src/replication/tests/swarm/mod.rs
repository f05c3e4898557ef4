//! Many peers of one feed, in virtual time.
//!
//! A case that fails prints its scenario; proptest keeps the seed in `proptest-regressions` and runs it again
//! first. `PROPTEST_CASES` says how many are tried.

mod net;
mod orders;
#[cfg(feature = "tokio")]
mod real;

use std::{ops::Range, time::Duration};

use proptest::prelude::*;

use self::net::{FAST, Manner, Net, Peer, Quality, Step};
use super::model::Model;
use crate::feed::{
    Order,
    local::{Demand, Local as _},
};

impl Peer for Model {
    fn truncate(&mut self, length: u64) {
        self.cut(length);
    }

    fn clear(&mut self, blocks: Range<u64>) {
        self.forget(blocks);
    }

    fn has_right(&self, index: u64) -> bool {
        self.has(index)
    }
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[derive(Clone, Debug)]
struct Scenario {
    seed: u64,
    length: u64,
    /// What each reader wants, and what it has if it knows the feed already.
    readers: Vec<(Demand, Option<Vec<u64>>)>,
    links: Vec<(usize, usize, Quality)>,
    steps: Vec<(u64, Step)>,
}

impl Scenario {
    fn feeds(&self) -> Vec<Model> {
        let readers = self.readers.iter().map(|(_, known)| match known {
            Some(stored) => {
                Model::sparse(self.length, stored.iter().copied().filter(|index| *index < self.length))
            }
            None => Model::reader(),
        });
        std::iter::once(Model::writer(self.length)).chain(readers).collect()
    }

    fn play<E: Peer>(&self, mut net: Net<E>) -> Net<E> {
        for (n, (demand, _)) in (1..).zip(&self.readers) {
            net.demand(n, demand.clone());
        }
        for (a, b, quality) in &self.links {
            if a != b {
                net.connect(*a, *b, *quality);
            }
        }
        for (at, step) in &self.steps {
            net.at(millis(*at), step.clone());
        }
        net.run();
        net
    }
}

fn demand() -> impl Strategy<Value = Demand> {
    let range = (0..150_u64, prop_oneof![1..40_u64, Just(u64::MAX)])
        .prop_map(|(start, length)| start..start.saturating_add(length));
    let ranges = move || prop::collection::vec(range.clone(), 0..4);
    let index = (0..150_u64).prop_map(|index| index..index + 1);
    prop_oneof![
        2 => Just(Demand::everything()),
        1 => ranges().prop_map(Demand::from_ranges),
        2 => prop::array::uniform3(ranges()).prop_flat_map(move |[linear, newest, rarest]| {
            let orders = Demand::from_ranges(linear).with(Order::Newest, newest).with(Order::Rarest, rarest);
            prop::collection::vec(index.clone(), 0..4).prop_map(move |urgent| orders.clone().with_urgent(urgent))
        }),
    ]
}

fn quality() -> impl Strategy<Value = Quality> {
    let bandwidth = prop_oneof![Just(100_000_000), Just(1_000_000), Just(20_000_u64)];
    (prop_oneof![0..5_u64, 0..300_u64], bandwidth)
        .prop_map(|(latency, bandwidth)| Quality { latency: millis(latency), bandwidth })
}

/// Steps of a net of so many peers. With `forks`, the writer truncates.
fn step(peers: usize, forks: bool) -> BoxedStrategy<Step> {
    let peer = 0..peers;
    let range = (0..150_u64, 1..60_u64).prop_map(|(start, length)| start..start + length);
    let truncate = if forks { 1 } else { 0 };
    prop_oneof![
        4 => (1..20_u64).prop_map(Step::Append),
        2 => (peer.clone(), range).prop_map(|(n, range)| Step::Clear(n, range)),
        3 => (peer.clone(), peer.clone(), quality()).prop_map(move |(a, b, quality)| {
            Step::Connect(a, if a == b { (b + 1) % peers } else { b }, quality)
        }),
        3 => (0..8_usize).prop_map(Step::Cut),
        2 => (1..peers, demand()).prop_map(|(n, demand)| Step::Demand(n, demand)),
        1 => (peer, any::<bool>()).prop_map(|(n, suspended)| Step::Suspend(n, suspended)),
        truncate => (0..150_u64).prop_map(Step::Truncate),
    ]
    .boxed()
}

fn scenario(peers: Range<usize>, forks: bool) -> impl Strategy<Value = Scenario> {
    peers.prop_flat_map(move |peers| {
        let stored = prop::option::weighted(0.3, prop::collection::vec(0..120_u64, 0..60));
        let readers = prop::collection::vec((demand(), stored), peers - 1);
        let links = prop::collection::vec((0..peers, 0..peers, quality()), 1..2 * peers);
        let steps = prop::collection::vec((0..20_000_u64, step(peers, forks)), 0..25);
        (any::<u64>(), 0..120_u64, readers, links, steps).prop_map(|(seed, length, readers, links, steps)| {
            Scenario { seed, length, readers, links, steps }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_mix_of_peers_converges(scenario in scenario(2..9, false)) {
        let net = scenario.play(Net::new(scenario.feeds(), scenario.seed));
        prop_assert!(net.errors.is_empty(), "{:?}", net.errors);
        net.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Peers that don't follow their writer to another fork are left alone with theirs.
    #[test]
    fn who_stays_behind_on_a_fork_is_left_alone(scenario in scenario(2..6, true)) {
        let mut net = Net::new(scenario.feeds(), scenario.seed);
        net.options.follow_forks = false;
        let net = scenario.play(net);
        prop_assert!(net.errors.is_empty(), "{:?}", net.errors);
        net.check();
    }
}

/// A writer and others that have all of it, and one that has nothing and reads from them all.
fn sources(length: u64, qualities: &[Quality]) -> Net<Model> {
    let sources = qualities.iter().map(|_| Model { block: 1_000, ..Model::writer(length) });
    let feeds = sources.chain([Model::reader()]).collect();
    Net::new(feeds, 7)
}

/// How long it takes to get all, of peers of which each is as `manners` says.
fn time_to_get(length: u64, peers: &[(Quality, Manner)]) -> Duration {
    let qualities: Vec<_> = peers.iter().map(|(quality, _)| *quality).collect();
    let mut net = sources(length, &qualities);
    let reader = peers.len();
    for (n, (quality, manner)) in peers.iter().enumerate().rev() {
        net.nodes[n].manner = *manner;
        net.connect(reader, n, *quality);
    }
    let done = net.run_until(|net| net.nodes[reader].feed.stored.len() as u64 == length);
    assert!(done, "it never gets all");
    net.elapsed()
}

const FAST_TIME: Duration = millis(2_000);

/// Far away, and 20 KB a second.
const SLOW: Quality = Quality { latency: millis(400), bandwidth: 20_000 };

#[test]
fn a_slow_peer_does_not_slow_a_reader_down() {
    let alone = time_to_get(1_000, &[(FAST, Manner::Honest)]);
    let both = time_to_get(1_000, &[(FAST, Manner::Honest), (SLOW, Manner::Honest)]);
    assert!(both <= alone + FAST_TIME, "{alone:?} {both:?}");
}

#[test]
fn two_fast_peers_share_the_work() {
    let slow = Quality { latency: millis(5), bandwidth: 1_000_000 };
    let alone = time_to_get(1_000, &[(slow, Manner::Honest)]);
    let both = time_to_get(1_000, &[(slow, Manner::Honest); 2]);
    assert!(both < alone * 6 / 10, "{alone:?} {both:?}");
}

#[test]
fn a_silent_peer_delays_a_reader_by_one_timeout() {
    let alone = time_to_get(1_000, &[(FAST, Manner::Honest)]);
    let both = time_to_get(1_000, &[(FAST, Manner::Honest), (FAST, Manner::Silent)]);
    assert!(both <= alone + millis(5_100), "{alone:?} {both:?}");
}

#[test]
fn a_peer_whose_answers_are_always_too_late_delays_a_reader_by_one_timeout() {
    let alone = time_to_get(1_000, &[(FAST, Manner::Honest)]);
    let late = Manner::Late(Duration::from_secs(40));
    let both = time_to_get(1_000, &[(FAST, Manner::Honest), (FAST, late)]);
    assert!(both <= alone + millis(5_100), "{alone:?} {both:?}");
}

#[test]
fn a_peer_that_refuses_everything_delays_nobody() {
    let alone = time_to_get(1_000, &[(FAST, Manner::Honest)]);
    let both = time_to_get(1_000, &[(FAST, Manner::Honest), (FAST, Manner::Refusing)]);
    assert!(both <= alone + millis(100), "{alone:?} {both:?}");
}
