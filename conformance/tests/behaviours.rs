//! Every behaviour of the runner against our own shim and, with the feature `node`, against that of Node's packages. It
//! stands in for libtest, and takes a filter and libtest's common flags, so that the counts are always seen.

#![allow(clippy::print_stdout)] // it prints

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use conformance::runner::{Expected, Options, Outcome, Report, Verdict, command_line::TestArguments, run};

/// The shims: what each is called, its command, and what it is expected to fail.
fn shims() -> Vec<(&'static str, String, &'static str)> {
    let mut shims = vec![("ours", env!("CARGO_BIN_EXE_party_shim").to_owned(), "")];
    if cfg!(feature = "node") {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/node/shim.js");
        shims.push(("node", format!("node '{script}'"), include_str!("../node/shim.expected")));
    }
    shims
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = TestArguments::parse();
    let (behaviours, filtered_out) = arguments.chosen();
    if arguments.list {
        for behaviour in behaviours {
            println!("{}: test", behaviour.full_name());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut reports = Vec::new();
    for (name, command, expected) in shims().into_iter().filter(|_| !behaviours.is_empty()) {
        let mut options = Options::new(command);
        options.expected = Expected::parse(expected)?;
        options.jobs = arguments.test_threads.unwrap_or(options.jobs);
        if arguments.is_verbose() {
            options.told = tell;
        }
        let report = run(behaviours.clone(), &options).await.with_context(|| format!("the shim {name}"))?;
        if !arguments.quiet || report.failed() > 0 {
            print!("{}", report.describe());
        }
        reports.push(report);
    }
    let sum = |count: fn(&Report) -> usize| reports.iter().map(count).sum::<usize>();
    let (passed, failed) = (sum(Report::passed) + sum(Report::expected_failures), sum(Report::failed));
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed; {} ignored; 0 measured; {filtered_out} filtered out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        sum(Report::skipped),
        reports.iter().map(|report| report.took.as_secs_f64()).sum::<f64>(),
    );
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(101) })
}

fn tell(outcome: &Outcome) {
    let verdict = match outcome.verdict {
        Verdict::Passed => "ok",
        Verdict::ExpectedFailure { .. } => "ok (fails as expected)",
        Verdict::Failed(_) | Verdict::UnexpectedPass => "FAILED",
        Verdict::Skipped => "ignored",
    };
    println!("test {} ... {verdict}", outcome.behaviour.full_name());
}
