//! The rows of the table: what issue 4 asks to be compared with Node, each in a file of its own.

mod download;
mod fan_out;
mod feeds;
mod growth;
mod latency;
mod live;
mod talk;

use anyhow::Result;
use clap::ValueEnum;

use crate::{
    contest::{Rounds, contest},
    report::Report,
};

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Row {
    /// Download 200,000 blocks of 64 B
    #[value(name = "download-64")]
    Download64,
    /// Download 50,000 blocks of 1 KiB
    #[value(name = "download-1k")]
    Download1K,
    /// Download 4,000 blocks of 64 KiB, and how near that is to the limit
    #[value(name = "download-64k")]
    Download64K,
    /// 1 KiB: connected, the writer appends in batches of 100
    Live,
    /// 1,000 feeds of 20 blocks of 256 B
    Feeds,
    /// A feed of 1 KiB blocks and 20 readers, each a process
    FanOut,
    /// From append until available at the reader
    Latency,
    /// Blocks of 64 B, ever more of them; ours alone
    Growth,
    /// Requests and answers over a connection that is up
    Requests,
    /// From the dial until the first question is answered
    Bootstrap,
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// A tenth of it.
    pub quick: bool,
    /// 10^7 blocks in [`Row::Growth`] too.
    pub huge: bool,
}

impl Amount {
    fn of(self, count: u64) -> u64 {
        if self.quick { count / 10 } else { count }
    }
}

impl Row {
    /// All of them.
    #[must_use]
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Measures it.
    ///
    /// # Errors
    ///
    /// When a process fails.
    pub async fn run(self, amount: Amount, rounds: Rounds) -> Result<Report> {
        match self {
            Self::Download64 => contest(&download::Download::new(64, amount.of(200_000)), rounds).await,
            Self::Download1K => contest(&download::Download::new(1 << 10, amount.of(50_000)), rounds).await,
            Self::Download64K => contest(&download::Download::new(64 << 10, amount.of(4_000)), rounds).await,
            Self::Live => contest(&live::Live::new(amount.of(50_000)), rounds).await,
            Self::Feeds => contest(&feeds::Feeds::new(amount.of(1_000)), rounds).await,
            Self::FanOut => contest(&fan_out::FanOut::new(amount.of(5_000)), rounds).await,
            Self::Latency => contest(&latency::Latency::new(amount.of(500)), rounds).await,
            Self::Growth => contest(&growth::Growth::new(amount), rounds).await,
            Self::Requests => contest(&talk::Requests::new(amount.of(100_000)), rounds).await,
            Self::Bootstrap => contest(&talk::Bootstrap::new(amount.of(2_000)), rounds).await,
        }
    }
}
