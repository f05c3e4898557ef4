//! The processes that are measured. Both implementations obey the same commands (`conformance/node/README.md`) and are
//! measured from the same place, so whatever the harness costs, it costs both.

use std::{env, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use conformance::node::{NodeOptions, NodePeer, Usage, digest_of_blocks};
use serde::Serialize;
use tokio::process::Command;

/// How long a process may live: far beyond any work, so that only a stuck one meets it.
const LIFETIME: Duration = Duration::from_secs(1800);

/// What all blocks are made of.
pub(crate) const SEED: u32 = 0x5EED;

/// The feed where there is only one.
pub(crate) const FEED: &str = "feed";

/// Which implementation stands at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// This library, both ends.
    Rust,
    /// corestore 7 on hypercore 11, both ends.
    Node,
}

/// A process of `side` with a store in `directory`.
pub(crate) fn spawn(side: Side, directory: &Path) -> Result<NodePeer> {
    match side {
        Side::Node => {
            NodePeer::spawn(&NodeOptions { lifetime: LIFETIME, ..NodeOptions::store().at(directory) })
        }
        Side::Rust => {
            let mut command = Command::new(env::current_exe().context("this program's own path is unknown")?);
            command.arg("peer").arg("--store").arg(directory);
            NodePeer::run(command, LIFETIME)
        }
    }
}

/// [`FEED`] in the shape in which [`NodePeer::complete`] takes names.
pub(crate) fn feed() -> Vec<String> {
    vec![FEED.to_owned()]
}

/// Opens [`FEED`] as a writer that has `length` blocks.
pub(crate) async fn open_writer(writer: &NodePeer, key: &str, length: u64) -> Result<()> {
    let core = writer.open(FEED, key).await?;
    ensure!(core.contiguous_length == length, "the writer has lost blocks");
    Ok(())
}

/// Reads all blocks of [`FEED`] back and compares them with what was written.
pub(crate) async fn check(reader: &NodePeer, length: u64, size: usize) -> Result<()> {
    let expected = digest_of_blocks(SEED, length, size);
    ensure!(reader.digest(FEED).await? == expected, "the reader has other bytes than were written");
    Ok(())
}

/// What processes use from one moment on. CPU time counts from then, peaks of memory from their start.
pub(crate) struct Meter<'a> {
    writer: &'a NodePeer,
    readers: &'a [NodePeer],
    before: f64,
}

/// What [`Meter`] has seen.
pub(crate) struct Used {
    /// User and system time of all processes.
    pub(crate) cpu_seconds: f64,
    /// Peak resident set of the writing process, 10^6 bytes.
    pub(crate) writer_megabytes: f64,
    /// Of the reading process, or of the largest.
    pub(crate) reader_megabytes: f64,
}

impl<'a> Meter<'a> {
    pub(crate) async fn start(writer: &'a NodePeer, readers: &'a [NodePeer]) -> Result<Self> {
        let before = 0.0;
        let mut meter = Self { writer, readers, before };
        meter.before = meter.read().await?.cpu_seconds;
        Ok(meter)
    }

    pub(crate) async fn read(&self) -> Result<Used> {
        let writer = self.writer.usage().await?;
        let mut readers = Vec::new();
        for reader in self.readers {
            readers.push(reader.usage().await?);
        }
        let cpu = writer.cpu_seconds + readers.iter().map(|usage| usage.cpu_seconds).sum::<f64>();
        let megabytes = |usage: &Usage| usage.peak_bytes as f64 / 1e6;
        Ok(Used {
            cpu_seconds: cpu - self.before,
            writer_megabytes: megabytes(&writer),
            reader_megabytes: readers.iter().map(megabytes).fold(0.0, f64::max),
        })
    }
}
