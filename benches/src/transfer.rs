//! One measured transfer: a writer and a reader, each a process of its own with a store on disk, over TCP on
//! 127.0.0.1.
//!
//! Both implementations obey the same commands (`conformance/node/README.md`) and are measured from the same place,
//! so whatever the harness costs, it costs both.
#![allow(clippy::disallowed_methods, reason = "it measures")]

use std::{env, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use conformance::node::{Kind, NodeOptions, NodePeer, Usage, digest_of_blocks};
use serde::Serialize;
use tokio::{process::Command, time::Instant};

/// How long a process may live: far beyond any transfer, so that only a stuck one meets it.
const LIFETIME: Duration = Duration::from_secs(900);
const SEED: u32 = 0x5EED;
const FEED: &str = "feed";

/// Which implementation stands at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// This library, both ends.
    Rust,
    /// corestore 7 on hypercore 11, both ends.
    Node,
}

/// What is transferred.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Shape {
    /// Bytes in a block.
    pub size: usize,
    /// Blocks.
    pub count: u64,
}

impl Shape {
    /// Megabytes (10^6) of blocks.
    #[must_use]
    pub fn megabytes(&self) -> f64 {
        self.count as f64 * self.size as f64 / 1e6
    }
}

/// What one transfer took.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sample {
    /// From the reader's connect until all blocks are verified and stored without a gap.
    pub seconds: f64,
    /// User and system time of both processes meanwhile.
    pub cpu_seconds: f64,
    /// Peak resident set of the writing process, which has read its feed from disk and made nothing.
    pub writer_peak_bytes: u64,
    /// Peak resident set of the reading process.
    pub reader_peak_bytes: u64,
}

/// A feed on disk that is ready to be served.
#[derive(Debug)]
pub struct Prepared {
    key: String,
    shape: Shape,
}

/// Writes the feed of `shape` into `directory`, by a process that ends before anything is measured.
///
/// # Errors
///
/// When a process fails.
pub async fn prepare(side: Side, shape: Shape, directory: &Path) -> Result<Prepared> {
    let writer = spawn(side, directory)?;
    let key = writer.create(FEED, Kind::Default).await?.key;
    writer.append(FEED, SEED, shape.count, shape.size).await?;
    writer.end().await?;
    Ok(Prepared { key, shape })
}

/// Transfers the feed that was prepared in `writer_directory` into the empty `reader_directory`. With `check`, the
/// reader's blocks are hashed and compared afterwards, off the clock.
///
/// # Errors
///
/// When a process fails, or the content differs.
pub async fn transfer(
    side: Side,
    prepared: &Prepared,
    writer_directory: &Path,
    reader_directory: &Path,
    check: bool,
) -> Result<Sample> {
    let Prepared { key, shape } = prepared;
    let (writer, reader) = (spawn(side, writer_directory)?, spawn(side, reader_directory)?);
    let core = writer.open(FEED, key).await?;
    ensure!(core.contiguous_length == shape.count, "the writer has lost blocks");
    let port = writer.listen().await?;
    reader.open(FEED, key).await?;

    let (writer_before, reader_before) = (writer.usage().await?, reader.usage().await?);
    let started = Instant::now();
    let (core, ()) = tokio::try_join!(reader.follow(FEED, shape.count), reader.dial(port))?;
    let seconds = started.elapsed().as_secs_f64();
    let (writer_after, reader_after) = (writer.usage().await?, reader.usage().await?);

    ensure!(core.contiguous_length == shape.count, "the reader is not complete");
    if check {
        let expected = digest_of_blocks(SEED, shape.count, shape.size);
        ensure!(reader.digest(FEED).await? == expected, "the reader has other bytes than were written");
    }
    reader.end().await?;
    writer.end().await?;
    let cpu = |before: Usage, after: Usage| after.cpu_seconds - before.cpu_seconds;
    Ok(Sample {
        seconds,
        cpu_seconds: cpu(writer_before, writer_after) + cpu(reader_before, reader_after),
        writer_peak_bytes: writer_after.peak_bytes,
        reader_peak_bytes: reader_after.peak_bytes,
    })
}

fn spawn(side: Side, directory: &Path) -> Result<NodePeer> {
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
