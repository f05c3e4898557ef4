//! Small runs of the simulator: they hold their promises, can be repeated, and find out who breaks one.

use std::time::Duration;

use conformance::simulator::{Config, Invariant, Sabotage, run, shortest};

/// A quarter of an hour of a dozen peers, with a few faults.
fn small(seed: u64) -> Config {
    Config {
        seed,
        peers: 12,
        links: 4,
        appends: 6,
        circle: 6,
        duration: Duration::from_secs(900),
        malicious_percent: 0,
        ..Config::default()
    }
}

/// As many as there is room for are malicious.
fn hostile(seed: u64) -> Config {
    Config { peers: 20, circle: 10, malicious_percent: 15, ..small(seed) }
}

#[test]
fn everybody_ends_with_everything_after_faults() {
    for seed in 0..8 {
        let report = run(&small(seed));
        assert_eq!(report.violation, None, "seed {seed}");
        assert!(report.converged_after.is_some());
        assert!(report.counts.acknowledged >= 12 * 6, "seed {seed}: {:?}", report.counts);
        // Each block goes to the five others of its circle, once at least.
        assert!(report.counts.delivered >= 12 * 6 * 5, "seed {seed}: {:?}", report.counts);
        assert!(report.counts.delivered_over_others > 0, "seed {seed}: {:?}", report.counts);
        assert!(report.faults.partitions == 1 && report.faults.restarts == 1, "{:?}", report.faults);
    }
}

//= protocol-spec/08-party.md#admission
//= protocol-spec/08-party.md#party-mode
#[test]
fn malicious_peers_break_no_promise() {
    // Three of ten kinds in each run; which, is a matter of the seed.
    for seed in 0..6 {
        let report = run(&hostile(seed));
        assert_eq!(report.violation, None, "seed {seed}");
        assert_eq!(report.malicious, 3, "seed {seed}");
    }
}

#[test]
fn a_seed_gives_the_same_run_to_the_byte() {
    let (first, second) = (run(&hostile(3)), run(&hostile(3)));
    assert_eq!(first, second);
    assert!(first.traffic.1 > 100_000);
    assert_ne!(first.hash, run(&hostile(4)).hash);
}

#[test]
fn a_run_that_is_cut_off_begins_as_the_whole_does() {
    let whole = run(&small(5));
    let part = run(&Config { events: Some(whole.events / 2), ..small(5) });
    assert_eq!((part.violation, part.events), (None, whole.events / 2));
    assert!(part.counts.acknowledged < whole.counts.acknowledged);
    let happened = |lines: &[String]| -> Vec<String> {
        lines.iter().filter(|line| line.contains(" appends ")).cloned().collect()
    };
    assert!(happened(&whole.lines).starts_with(&happened(&part.lines)));
}

/// Which promise is broken by a sabotaged run, whichever seed it takes.
#[track_caller]
fn finds(sabotage: Sabotage, expected: Invariant, config: impl Fn(u64) -> Config) {
    let found = (0..10).find_map(|seed| {
        let config = Config { sabotage: Some(sabotage), ..config(seed) };
        run(&config).violation
    });
    assert_eq!(found.map(|violation| violation.invariant), Some(expected));
}

#[test]
fn rules_that_give_everything_to_everybody_are_found_out() {
    finds(Sabotage::OpenRules, Invariant::Authority, small);
}

#[test]
fn disks_that_confirm_what_they_have_not_stored_are_found_out() {
    finds(Sabotage::LyingDisks, Invariant::Durability, small);
}

#[test]
fn an_app_that_never_asks_for_a_feed_is_found_out() {
    finds(Sabotage::DeafApp, Invariant::Convergence, small);
}

#[test]
fn a_block_that_was_not_to_be_written_is_found_out() {
    finds(Sabotage::ForgingApp, Invariant::Authenticity, small);
}

#[test]
fn tasks_without_end_are_found_out() {
    finds(Sabotage::LeakingApp, Invariant::Memory, small);
}

#[test]
fn the_shortest_prefix_that_fails_is_found() {
    let config = Config { sabotage: Some(Sabotage::ForgingApp), ..small(1) };
    let found = shortest(&config, |_| {}).expect("it fails");
    let fails = |events| run(&Config { events: Some(events), ..config.clone() }).violation;
    assert_eq!(fails(found.events), found.report.violation);
    assert_eq!(fails(found.events - 1), None);
    // It ends with what has done it: the fourth block of somebody.
    let last = found.report.lines.iter().rev().find(|line| line.contains(" appends "));
    assert!(last.is_some_and(|line| line.ends_with("its block 3")), "{last:?}");
}
