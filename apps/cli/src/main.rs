//! The command line of `party`: feeds on disk, served to and pulled from the members of a party.
//!
//! Results go to standard output, for machines with `--json`. What goes wrong is said in one line on standard
//! error, and the exit code is 0 only if nothing did. Logs are off unless `RUST_LOG` asks for them.

mod args;
mod feed;
mod grant;
mod identity;
mod input;
mod interrupt;
mod invite;
mod join;
mod key;
mod members;
mod output;
mod pull;
mod remedy;
mod secret;
mod serve;
mod upkeep;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;

use crate::{
    args::{Arguments, Command},
    output::Output,
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is gone too, the exit code says it all.
            let _ = writeln!(io::stderr(), "party: {}", line(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let output = Output::new(arguments.json);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Key(command) => key::run(command, output).await,
            Command::Feed(command) => feed::run(command, output).await,
            Command::Serve(arguments) => serve::run(arguments, output).await,
            Command::Pull(arguments) => pull::run(arguments, output).await,
            Command::Invite(arguments) => invite::run(arguments, output),
            Command::Grant(arguments) => grant::run(*arguments, output).await,
            Command::Members(arguments) => members::list(arguments, output).await,
            Command::Revoke(arguments) => members::revoke(arguments, output).await,
            Command::Explain(arguments) => members::explain(arguments, output).await,
            Command::Join(arguments) => join::run(arguments, output).await,
        }
    });
    // A thread that still waits for standard input must not keep the process.
    runtime.shutdown_background();
    result
}

/// An error, its causes and what to do about it in one line. Some errors repeat their cause in their own text, others don't.
fn line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    if let Some(remedy) = remedy::of(error) {
        line = format!("{line}; {remedy}");
    }
    line.replace('\n', " ")
}
