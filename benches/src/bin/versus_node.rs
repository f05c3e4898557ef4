//! The same work Rust to Rust and Node to Node in turn, and a table of what each took.
//!
//! `benches/README.md` says what is measured and how to read it.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Result, ensure};
use benches::{
    contest::{Rounds, note},
    floor::{self, Floor},
    limit::{self, Limit},
    peers::Side,
    report,
    rows::{Amount, Row},
    storage::{self, Work},
    storage_suite,
};
use clap::{Parser, Subcommand};
use conformance::peer::obey_commands;
use serde::Serialize;

/// The same work Rust to Rust and Node to Node in turn, over TCP on 127.0.0.1, both on disk.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these rows of the table; all of them if none is named
    #[arg(value_enum)]
    rows: Vec<Row>,
    /// How often each piece of work is done on each side; the table shows medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A tenth of the work
    #[arg(long)]
    quick: bool,
    /// 10^7 blocks in the row `growth` too: some minutes and 2 GB of disk
    #[arg(long)]
    huge: bool,
    /// One side alone, for a profile
    #[arg(long, value_enum)]
    side: Option<Side>,
    /// Every round and the medians as JSON on standard output, instead of the table
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Work on a store on disk instead, without any network
    Storage,
    /// One piece of it; the program runs itself so
    #[command(hide = true)]
    StorageWork {
        #[arg(long)]
        store: PathBuf,
        #[command(flatten)]
        work: Work,
    },
    /// One end of a transfer; the program runs itself so
    #[command(hide = true)]
    Peer {
        #[arg(long)]
        store: PathBuf,
    },
    /// The sending end of the limit; the program runs itself so
    #[command(hide = true)]
    LimitSend {
        #[arg(long)]
        port: u16,
        #[command(flatten)]
        limit: Limit,
    },
    /// The receiving end of the limit; the program runs itself so
    #[command(hide = true)]
    LimitReceive {
        #[arg(long)]
        store: PathBuf,
        #[command(flatten)]
        limit: Limit,
    },
    /// The end of the floor that has the blocks; the program runs itself so
    #[command(hide = true)]
    FloorWrite {
        #[arg(long)]
        store: PathBuf,
        #[arg(long)]
        port: u16,
        #[command(flatten)]
        floor: Floor,
    },
    /// The end of the floor that asks for them; the program runs itself so
    #[command(hide = true)]
    FloorRead {
        #[arg(long)]
        store: PathBuf,
        #[command(flatten)]
        floor: Floor,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.role {
        Some(Role::Peer { store }) => return obey_commands(store).await,
        Some(Role::StorageWork { store, work }) => {
            let took = storage::perform(*work, store).await?;
            return say(&serde_json::to_string(&took)?);
        }
        Some(Role::LimitSend { port, limit }) => return say(&limit::send(*limit, *port).await?.to_string()),
        Some(Role::LimitReceive { store, limit }) => {
            return limit::receive(*limit, store, |line| say(&line)).await;
        }
        Some(Role::FloorWrite { store, port, floor }) => {
            return say(&serde_json::to_string(&floor::write(*floor, *port, store).await?)?);
        }
        Some(Role::FloorRead { store, floor }) => {
            return floor::read(*floor, store, |line| say(&line)).await;
        }
        Some(Role::Storage) | None => {}
    }
    ensure!(arguments.rounds > 0, "at least one round is needed");
    ensure!(
        !cfg!(debug_assertions),
        "measure what users run: cargo run --release -p benches --bin versus_node"
    );
    if let Some(Role::Storage) = arguments.role {
        let rows = storage_suite::run(arguments.rounds, arguments.quick, note).await?;
        return print(&rows, arguments.json, storage_suite::table);
    }
    let rows = if arguments.rows.is_empty() { Row::all() } else { &arguments.rows };
    let amount = Amount { quick: arguments.quick, huge: arguments.huge };
    let rounds = Rounds { count: arguments.rounds, only: arguments.side };
    let mut reports = Vec::new();
    for row in rows {
        reports.push(row.run(amount, rounds).await?);
    }
    print(&reports, arguments.json, report::table)
}

fn print<T: Serialize>(rows: &[T], json: bool, table: impl FnOnce(&[T]) -> String) -> Result<()> {
    say(if json { serde_json::to_string_pretty(rows)? } else { table(rows) }.trim_end())
}

fn say(line: &str) -> Result<()> {
    let mut output = io::stdout();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}
