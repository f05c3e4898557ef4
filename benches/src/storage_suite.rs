//! All work on stores, both sides in turn, and the table of it.

use std::{fmt::Write as _, path::Path};

use anyhow::Result;
use serde::Serialize;
use tempfile::TempDir;

use crate::{
    peers::Side,
    report::median,
    storage::{Kind, Took, Work, measure},
};

/// One line of the table.
#[derive(Debug, Serialize)]
pub struct Row {
    what: String,
    unit: &'static str,
    /// Whether a larger figure is better.
    more_is_better: bool,
    /// Every round of Node's.
    node: Vec<f64>,
    /// Every round of ours.
    rust: Vec<f64>,
}

impl Row {
    fn new(what: impl Into<String>, unit: &'static str, more_is_better: bool) -> Self {
        Self { what: what.into(), unit, more_is_better, node: vec![], rust: vec![] }
    }

    fn add(&mut self, side: Side, value: f64) {
        match side {
            Side::Node => self.node.push(value),
            Side::Rust => self.rust.push(value),
        }
    }
}

/// Does everything `rounds` times on each side; `quick` does a tenth of it.
///
/// # Errors
///
/// When a process fails.
pub async fn run(rounds: usize, quick: bool, mut note: impl FnMut(&str)) -> Result<Vec<Row>> {
    let few = |n: u64| if quick { n / 10 } else { n };
    let rate = |what: &str| Row::new(what, "blocks/s", true);
    let mut batches = rate(&format!("append 1 KiB x {} in batches of 128", few(100_000)));
    let mut singles = rate(&format!("append 1 KiB x {}, each awaited", few(20_000)));
    let mut sequential = rate(&format!("get {} in order, each awaited", few(100_000)));
    let mut random = rate(&format!("get {} at random, each awaited", few(50_000)));
    let mut short = Row::new("open a feed of 1,000 blocks", "ms", false);
    let mut long = Row::new(format!("open a feed of {} blocks", few(1_000_000)), "ms", false);
    let mut make = Row::new(format!("make {} feeds of a block", few(10_000)), "feeds/s", true);
    let mut hold = Row::new(format!("open {} feeds", few(10_000)), "feeds/s", true);
    let mut closed = Row::new("memory for a closed feed", "bytes", false);
    let mut open = Row::new("memory for an open feed", "bytes", false);
    for round in 0..rounds {
        let sides = if round % 2 == 0 { [Side::Rust, Side::Node] } else { [Side::Node, Side::Rust] };
        for side in sides {
            note(&format!("round {}: {side:?}", round + 1));
            let folder = TempDir::new()?;
            let at = |name: &str| folder.path().join(name);
            let append = |count, size, batch| Work { work: Kind::Append, count, size, batch };
            let rate = |count: u64, took: Took| count as f64 / took.seconds;

            let count = few(100_000);
            batches.add(side, rate(count, measure(side, append(count, 1024, 128), &at("batches")).await?));
            sequential.add(side, rate(count, reading(side, Kind::Sequential, count, &at("batches")).await?));
            let count = few(50_000);
            random.add(side, rate(count, reading(side, Kind::Random, count, &at("batches")).await?));
            let count = few(20_000);
            singles.add(side, rate(count, measure(side, append(count, 1024, 1), &at("singles")).await?));

            measure(side, append(1000, 64, 1000), &at("short")).await?;
            measure(side, append(few(1_000_000), 64, 1000), &at("long")).await?;
            for (row, name) in [(&mut short, "short"), (&mut long, "long")] {
                // The first opening may still have to tidy up after the process before.
                reading(side, Kind::Reopen, 0, &at(name)).await?;
                row.add(side, 1000.0 * reading(side, Kind::Reopen, 0, &at(name)).await?.seconds);
            }

            let count = few(10_000);
            let feeds = |count| Work { work: Kind::Make, count, size: 64, batch: 1 };
            make.add(side, rate(count, measure(side, feeds(count), &at("feeds")).await?));
            measure(side, feeds(1), &at("feed")).await?;
            let nothing = reading(side, Kind::Hold, 0, &at("feed")).await?;
            let none = reading(side, Kind::Hold, 0, &at("feeds")).await?;
            let all = reading(side, Kind::Hold, count, &at("feeds")).await?;
            hold.add(side, rate(count, all));
            let each =
                |more: Took, less: Took| more.rss_bytes.saturating_sub(less.rss_bytes) as f64 / count as f64;
            closed.add(side, each(none, nothing));
            open.add(side, each(all, none));
        }
    }
    Ok(vec![batches, singles, sequential, random, short, long, make, hold, closed, open])
}

async fn reading(side: Side, work: Kind, count: u64, folder: &Path) -> Result<Took> {
    measure(side, Work { work, count, size: 0, batch: 1 }, folder).await
}

/// The medians of every row, and how many times better ours is.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut table = format!("{:<45} {:>12} {:>12} {:>9}  {}\n", "", "Node", "Rust", "ratio", "unit");
    for row in rows {
        let (node, rust) = (median(&row.node), median(&row.rust));
        let ratio = if row.more_is_better { rust / node } else { node / rust };
        let _ = writeln!(table, "{:<45} {node:>12.1} {rust:>12.1} {ratio:>8.1}x  {}", row.what, row.unit);
    }
    table
}
