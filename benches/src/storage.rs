//! Work on a store on disk: the same in a process of ours and in one of Node's.
//!
//! Each piece of work is a fresh process with a store that others have left behind, and is timed in that
//! process, so that neither starting it nor opening the store counts where it isn't what is measured.
#![allow(clippy::disallowed_methods, reason = "it measures")]

use std::{env, fs, path::Path, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use conformance::{
    node::{block, scripts_directory},
    process,
};
use party::{
    feed::Feed,
    store::{FeedOptions, Store},
};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::peers::Side;

const SEED: u32 = 0x5EED;
const FEED: &str = "feed";

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub enum Kind {
    /// Appends blocks in awaited batches.
    Append,
    /// Reads the first blocks, one after the other.
    Sequential,
    /// Reads blocks here and there, one after the other.
    Random,
    /// Opens the store and a feed in it.
    Reopen,
    /// Makes feeds with a block each.
    Make,
    /// Opens feeds and holds them.
    Hold,
}

/// A piece of work.
#[derive(Clone, Copy, Debug, Args, Serialize)]
pub struct Work {
    /// What is done
    #[arg(long)]
    pub work: Kind,
    /// How often, or with how many
    #[arg(long, default_value_t = 0)]
    pub count: u64,
    /// Bytes in a block
    #[arg(long, default_value_t = 0)]
    pub size: usize,
    /// Blocks appended at once
    #[arg(long, default_value_t = 1)]
    pub batch: u64,
}

/// What a piece of work took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Took {
    /// Of the clock.
    pub seconds: f64,
    /// User and system time of the process.
    pub cpu_seconds: f64,
    /// Memory of the process at the end.
    pub rss_bytes: u64,
}

/// Lets a process of `side` do `work` on the store in `folder`.
///
/// # Errors
///
/// When the process fails.
pub async fn measure(side: Side, work: Work, folder: &Path) -> Result<Took> {
    let mut command = match side {
        Side::Rust => {
            let mut command = Command::new(env::current_exe().context("this program's own path is unknown")?);
            command.arg("storage-work");
            command
        }
        Side::Node => {
            let mut command = Command::new("node");
            command.arg(scripts_directory().join("storage.js"));
            command
        }
    };
    let name = work.work.to_possible_value().context("a piece of work without a name")?;
    command.arg("--store").arg(folder).args(["--work", name.get_name()]);
    for (option, value) in [("--count", work.count), ("--size", work.size as u64), ("--batch", work.batch)] {
        command.arg(option).arg(value.to_string());
    }
    let output = command.kill_on_drop(true).output().await.context("the process can't be started")?;
    if !output.status.success() {
        bail!("{side:?} has failed at {work:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Does `work` on the store in `folder`, in this process.
///
/// # Errors
///
/// When the store fails.
pub async fn perform(work: Work, folder: &Path) -> Result<Took> {
    let opening = Clock::start()?;
    let store = Store::open(folder).await?;
    let took = match work.work {
        Kind::Append => append(&store, work).await?,
        Kind::Reopen => {
            feed(&store).await?;
            opening.took()?
        }
        Kind::Sequential => {
            let feed = feed(&store).await?;
            let clock = Clock::start()?;
            for index in 0..work.count {
                ensure!(feed.get(index).await?.is_some(), "block {index} is missing");
            }
            clock.took()?
        }
        Kind::Random => {
            let feed = feed(&store).await?;
            let length = feed.info().length;
            let clock = Clock::start()?;
            let mut at = 1u32;
            for _ in 0..work.count {
                at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let index = u64::from(at) % length;
                ensure!(feed.get(index).await?.is_some(), "block {index} is missing");
            }
            clock.took()?
        }
        Kind::Make => {
            let clock = Clock::start()?;
            for n in 0..work.count {
                let feed = store.create_feed(&format!("feed {n}"), FeedOptions::default()).await?;
                feed.append(block(SEED, n, work.size)).await?;
            }
            clock.took()?
        }
        Kind::Hold => {
            let clock = Clock::start()?;
            let mut feeds = Vec::new();
            for n in 0..work.count {
                feeds.push(store.feed_by_name(&format!("feed {n}")).await?.context("a feed is missing")?);
            }
            clock.took()?
        }
    };
    store.close().await;
    Ok(took)
}

async fn append(store: &Store, work: Work) -> Result<Took> {
    ensure!(work.batch > 0, "a batch has at least one block");
    let feed = store.create_feed(FEED, FeedOptions::default()).await?;
    let mut blocks =
        (0..work.count).map(|index| block(SEED, index, work.size)).collect::<Vec<_>>().into_iter();
    let clock = Clock::start()?;
    while blocks.len() > 0 {
        if work.batch == 1 {
            feed.append(blocks.next().context("a block is missing")?).await?;
        } else {
            feed.append_batch(blocks.by_ref().take(work.batch as usize).collect()).await?;
        }
    }
    clock.took()
}

async fn feed(store: &Store) -> Result<Feed> {
    store.feed_by_name(FEED).await?.context("the feed is missing")
}

struct Clock {
    began: Instant,
    cpu_seconds: f64,
}

impl Clock {
    fn start() -> Result<Self> {
        Ok(Self { cpu_seconds: process::usage()?.cpu_seconds, began: Instant::now() })
    }

    fn took(&self) -> Result<Took> {
        let seconds = self.began.elapsed().as_secs_f64();
        let cpu_seconds = process::usage()?.cpu_seconds - self.cpu_seconds;
        let pages = fs::read_to_string("/proc/self/statm")?;
        let pages: u64 = pages.split_whitespace().nth(1).context("/proc/self/statm has no size")?.parse()?;
        Ok(Took { seconds, cpu_seconds, rss_bytes: pages * 4096 })
    }
}
