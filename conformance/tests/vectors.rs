//! Every scenario of `vectors/`, played. It stands in for libtest, and takes a filter and libtest's common flags, so that the
//! counts are always seen.

#![allow(clippy::print_stdout)] // it prints

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Result;
use clap::Parser as _;
use conformance::{
    runner::command_line::TestArguments,
    vectors::{self, Scenario},
};

/// What came of the scenarios of an area.
#[derive(Default)]
struct Tally {
    accepted: usize,
    refused: usize,
    failed: usize,
}

fn main() -> Result<ExitCode> {
    let arguments = TestArguments::parse();
    let areas = vectors::all()?;
    let is_meant = |area: &str, scenario: &Scenario| arguments.is_meant(&scenario.full_name(area));
    if arguments.list {
        let shown = |_: &str, _: &Scenario| {};
        for (name, ()) in vectors::every_scenario(&areas, is_meant, shown) {
            println!("{name}: test");
        }
        return Ok(ExitCode::SUCCESS);
    }
    // What a scenario panics with is told with its name.
    std::panic::set_hook(Box::new(|_| {}));
    let played = vectors::every_scenario(&areas, is_meant, |area, scenario| {
        (area.to_owned(), scenario.expect.is_accept(), vectors::check(area, scenario))
    });
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for (name, (area, is_accept, outcome)) in &played {
        let tally = tallies.entry(area.clone()).or_default();
        match outcome {
            Ok(()) if *is_accept => tally.accepted += 1,
            Ok(()) => tally.refused += 1,
            Err(_) => tally.failed += 1,
        }
        match outcome {
            Err(error) => println!("test {name} ... FAILED\n     {error:#}"),
            Ok(()) if arguments.is_verbose() => println!("test {name} ... ok"),
            Ok(()) => {}
        }
    }
    let sum = |count: fn(&Tally) -> usize| tallies.values().map(count).sum::<usize>();
    let (accepted, refused, failed) =
        (sum(|tally| tally.accepted), sum(|tally| tally.refused), sum(|tally| tally.failed));
    if !arguments.quiet {
        println!("\n{:<16}{:>10}{:>10}{:>10}", "vectors", "accepted", "refused", "failed");
        for area in vectors::areas::NAMES {
            if let Some(Tally { accepted, refused, failed }) = tallies.get(area) {
                println!("{area:<16}{accepted:>10}{refused:>10}{failed:>10}");
            }
        }
        println!("{:<16}{accepted:>10}{refused:>10}{failed:>10}", "total");
    }
    let everything: usize = areas.iter().map(|area| area.scenarios.len()).sum();
    println!(
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out\n",
        if failed == 0 { "ok" } else { "FAILED" },
        accepted + refused,
        everything - played.len(),
    );
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(101) })
}
