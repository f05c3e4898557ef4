//! The same transfers Rust to Rust and Node to Node in turn, and a table of what each took.
//!
//! `benches/README.md` says what is measured and how to read it.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Result, ensure};
use benches::{
    report::{Series, table},
    storage::{self, Work},
    storage_suite,
    transfer::{Prepared, Sample, Shape, Side, prepare, transfer},
};
use clap::{Parser, Subcommand};
use conformance::peer::obey_commands;
use serde::Serialize;
use tempfile::TempDir;

/// The same transfers Rust to Rust and Node to Node in turn, over TCP on 127.0.0.1, both on disk.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often each transfer runs on each side; the table shows medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A tenth of the blocks
    #[arg(long)]
    quick: bool,
    /// Only these block sizes, in bytes: 64, 1024, 65536
    #[arg(long)]
    size: Vec<usize>,
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
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.role {
        Some(Role::Peer { store }) => return obey_commands(store).await,
        Some(Role::StorageWork { store, work }) => {
            let took = storage::perform(*work, store).await?;
            return Ok(writeln!(io::stdout(), "{}", serde_json::to_string(&took)?)?);
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
    let shapes: Vec<Shape> = [(64, 200_000), (1_024, 50_000), (65_536, 2_000)]
        .into_iter()
        .filter(|(size, _)| arguments.size.is_empty() || arguments.size.contains(size))
        .map(|(size, count)| Shape { size, count: if arguments.quick { count / 10 } else { count } })
        .collect();
    ensure!(!shapes.is_empty(), "no such block size: take of 64, 1024 and 65536");

    let mut series = Vec::new();
    for shape in shapes {
        series.extend(measure(shape, arguments.rounds).await?);
    }
    print(&series, arguments.json, table)
}

fn print<T: Serialize>(rows: &[T], json: bool, table: impl FnOnce(&[T]) -> String) -> Result<()> {
    let mut output = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut output, rows)?;
        writeln!(output)?;
    } else {
        write!(output, "{}", table(rows))?;
    }
    Ok(())
}

/// Both sides take turns, and which goes first alternates, so that what else the machine does meets both.
async fn measure(shape: Shape, rounds: usize) -> Result<[Series; 2]> {
    note(&format!("{} blocks of {} bytes: preparing", shape.count, shape.size));
    let mut node = Contender::new(Side::Node, shape).await?;
    let mut rust = Contender::new(Side::Rust, shape).await?;
    for round in 0..rounds {
        if round % 2 == 0 {
            rust.run().await?;
            node.run().await?;
        } else {
            node.run().await?;
            rust.run().await?;
        }
    }
    Ok([node, rust].map(|contender| Series::new(contender.side, shape, contender.samples)))
}

/// One side with the feed that its writer serves.
struct Contender {
    side: Side,
    shape: Shape,
    folder: TempDir,
    prepared: Prepared,
    samples: Vec<Sample>,
}

impl Contender {
    async fn new(side: Side, shape: Shape) -> Result<Self> {
        let folder = TempDir::new()?;
        let prepared = prepare(side, shape, &folder.path().join("writer")).await?;
        Ok(Self { side, shape, folder, prepared, samples: Vec::new() })
    }

    async fn run(&mut self) -> Result<()> {
        let reader = self.folder.path().join("reader");
        let check = self.samples.is_empty();
        let writer = self.folder.path().join("writer");
        let sample = transfer(self.side, &self.prepared, &writer, &reader, check).await?;
        std::fs::remove_dir_all(reader)?;
        note(&format!(
            "{} blocks of {} bytes: {:?} in {:.2} s",
            self.shape.count, self.shape.size, self.side, sample.seconds
        ));
        self.samples.push(sample);
        Ok(())
    }
}

/// Progress on standard error: the whole run takes minutes.
fn note(text: &str) {
    // A closed standard error is no reason to stop measuring.
    let _ = writeln!(io::stderr(), "{text}");
}
