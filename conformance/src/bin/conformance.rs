//! Drives anybody's implementation of the party wire, and says what it does wrong. See `conformance/README.md`.
//!
//!     cargo run -p conformance --bin conformance -- --shim 'node conformance/node/shim.js'

#![allow(clippy::print_stdout)] // it prints

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use conformance::runner::{
    Expected, Options, Outcome, Verdict, all,
    command_line::{Arguments, TestArguments},
    run,
};

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let filter = TestArguments { filter: arguments.filter.clone(), ..TestArguments::default() };
    let (behaviours, filtered_out) = filter.chosen();
    let Some(shim) = arguments.shim.as_deref().filter(|_| !arguments.list) else {
        for behaviour in &behaviours {
            println!("{} [{}]\n    {}", behaviour.full_name(), behaviour.must.join(" "), behaviour.sentence);
        }
        println!("{} of {} behaviours", behaviours.len(), all().count());
        return Ok(ExitCode::SUCCESS);
    };
    let mut options = Options::new(shim);
    options.shim.patience = arguments.patience();
    options.shim.memory = arguments.memory << 20;
    options.jobs = arguments.jobs;
    options.keep_going = arguments.keep_going;
    if arguments.verbose {
        options.told = tell;
    }
    if let Some(path) = &arguments.expected {
        options.expected = Expected::read(path)?;
    }
    let mut report = run(behaviours, &options).await?;
    report.filtered_out = filtered_out;
    print!("{}", report.describe());
    Ok(if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(outcome: &Outcome) {
    let verdict = match outcome.verdict {
        Verdict::Passed => "ok",
        Verdict::Failed(_) => "FAILED",
        Verdict::ExpectedFailure { .. } => "failed, as expected",
        Verdict::UnexpectedPass => "passed, which was not expected",
        Verdict::Skipped => "skipped",
    };
    println!("{} ... {verdict} ({} ms)", outcome.behaviour.full_name(), outcome.took.as_millis());
}
