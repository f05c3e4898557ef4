//! The orders by which `benches` measures: what is done by the orders of a test, but timed where it happens, in the
//! process of either peer, by the one clock that all processes of a machine share.
//!
//! `conformance/node/measure.js` obeys the same orders.

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Duration, sleep},
};

use crate::{
    node::{Kind, NodePeer, block},
    peer::Peer,
    talk,
};

/// Seconds of the machine's monotonic clock, which `process.hrtime` reads too: the same in every process.
#[must_use]
pub fn monotonic() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// From when to when, in [`monotonic`] seconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Span {
    /// When it began; of feeds that arrive, when the first was complete.
    pub first: f64,
    /// When all was done.
    pub last: f64,
}

/// An order to measure.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Order {
    /// Makes feeds `names` of `count` blocks each; the n-th has the seed `seed + n`. Answers with `keys`.
    Populate {
        /// Of the feeds.
        names: Vec<String>,
        /// Of the first feed's blocks.
        seed: u32,
        /// Blocks in each feed.
        count: u64,
        /// Bytes in a block.
        size: usize,
    },
    /// Opens or adds feeds by their keys.
    OpenAll {
        /// Of the feeds.
        names: Vec<String>,
        /// In the same order.
        keys: Vec<String>,
    },
    /// Wants everything of all the feeds, and answers with a [`Span`] when each has `length` blocks without a gap.
    Complete {
        /// Of the feeds.
        names: Vec<String>,
        /// Blocks.
        length: u64,
    },
    /// Appends `count` blocks in batches, each awaited; they are made before the [`Span`] begins.
    Produce {
        /// Of the feed.
        name: String,
        /// Of the blocks.
        seed: u32,
        /// Blocks in all.
        count: u64,
        /// Bytes in a block.
        size: usize,
        /// Blocks in a batch.
        batch: u64,
    },
    /// Appends `count` blocks one by one with pauses between. Answers with `times`: when each append was called.
    Pulse {
        /// Of the feed.
        name: String,
        /// Of the blocks.
        seed: u32,
        /// Blocks.
        count: u64,
        /// Bytes in a block.
        size: usize,
        /// Milliseconds before each.
        pause: u64,
    },
    /// Wants everything of a feed. Answers with `times`: when each of the blocks from `from` on was stored and read.
    Arrivals {
        /// Of the feed.
        name: String,
        /// The first block.
        from: u64,
        /// Blocks.
        count: u64,
    },
    /// Answers whoever dials with what it asked. Answers with the `port`.
    Answer,
    /// Asks on one connection, and answers with a [`Span`].
    Ask {
        /// Of who answers.
        port: u16,
        /// Requests.
        count: u64,
        /// Bytes in each.
        size: usize,
        /// Requests that may be under way.
        at_once: usize,
    },
    /// Connects again and again, asks once each time, and answers with a [`Span`].
    #[serde(rename_all = "camelCase")]
    Bootstrap {
        /// Of who answers.
        port: u16,
        /// Times.
        count: u64,
        /// Connections that may be under way.
        at_once: usize,
    },
}

impl NodePeer {
    /// Sends an order to measure, and gives the answer.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn measure(&self, order: &Order) -> Result<Value> {
        self.call(serde_json::to_value(order)?).await
    }

    /// [`Order::Populate`]: makes feeds, and gives their keys in hex.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn populate(
        &self,
        names: &[String],
        seed: u32,
        count: u64,
        size: usize,
    ) -> Result<Vec<String>> {
        let order = Order::Populate { names: names.to_vec(), seed, count, size };
        let keys = self.measure(&order).await?["keys"].take();
        Ok(serde_json::from_value(keys)?)
    }

    /// [`Order::Complete`]: wants everything of all the feeds and waits until each has `length` blocks.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn complete(&self, names: &[String], length: u64) -> Result<Span> {
        let order = Order::Complete { names: names.to_vec(), length };
        Ok(serde_json::from_value(self.measure(&order).await?)?)
    }

    /// [`Order::Answer`]: gives the port to dial.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn answer(&self) -> Result<u16> {
        Ok(serde_json::from_value(self.measure(&Order::Answer).await?["port"].take())?)
    }

    /// An order that is answered with a [`Span`]: [`Order::Ask`] and [`Order::Bootstrap`].
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn span(&self, order: &Order) -> Result<Span> {
        Ok(serde_json::from_value(self.measure(order).await?)?)
    }

    /// An order that is answered with times: [`Order::Pulse`] and [`Order::Arrivals`].
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn times(&self, order: &Order) -> Result<Vec<f64>> {
        Ok(serde_json::from_value(self.measure(order).await?["times"].take())?)
    }
}

/// Whether `command` is one of these orders.
pub(crate) fn is_order(command: &Value) -> bool {
    const ORDERS: [&str; 9] =
        ["populate", "openall", "complete", "produce", "pulse", "arrivals", "answer", "ask", "bootstrap"];
    command["do"].as_str().is_some_and(|name| ORDERS.contains(&name))
}

/// Obeys one of these orders.
pub(crate) async fn obey(peer: &Peer, command: &Value) -> Result<Value> {
    Ok(match Order::deserialize(command)? {
        Order::Populate { names, seed, count, size } => {
            json!({"keys": populate(peer, &names, seed, count, size).await?})
        }
        Order::OpenAll { names, keys } => {
            ensure!(names.len() == keys.len(), "each feed has a name and a key");
            for (name, key) in names.iter().zip(&keys) {
                peer.open(name, key).await?;
            }
            json!({})
        }
        Order::Complete { names, length } => json!(complete(peer, &names, length).await?),
        Order::Produce { name, seed, count, size, batch } => {
            json!(produce(peer, &name, seed, count, size, batch).await?)
        }
        Order::Pulse { name, seed, count, size, pause } => {
            json!({"times": pulse(peer, &name, seed, count, size, pause).await?})
        }
        Order::Arrivals { name, from, count } => {
            json!({"times": arrivals(peer, &name, from, count).await?})
        }
        Order::Answer => json!({"port": talk::answer().await?}),
        Order::Ask { port, count, size, at_once } => json!(talk::ask(port, count, size, at_once).await?),
        Order::Bootstrap { port, count, at_once } => json!(talk::bootstrap(port, count, at_once).await?),
    })
}

async fn populate(peer: &Peer, names: &[String], seed: u32, count: u64, size: usize) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    for (name, seed) in names.iter().zip(seed..) {
        keys.push(peer.create(name, Kind::Default).await?.key);
        peer.append(name, seed, count, size).await?;
    }
    Ok(keys)
}

async fn complete(peer: &Peer, names: &[String], length: u64) -> Result<Span> {
    let mut feeds = JoinSet::new();
    for name in names {
        let feed = peer.want_all(name)?;
        feeds.spawn(async move {
            let mut changes = feed.subscribe();
            while feed.info().contiguous_length < length {
                changes.changed().await;
            }
            monotonic()
        });
    }
    let times = feeds.join_all().await;
    let first = times.iter().copied().min_by(f64::total_cmp).context("no feeds to complete")?;
    let last = times.iter().copied().max_by(f64::total_cmp).unwrap_or(first);
    Ok(Span { first, last })
}

async fn produce(peer: &Peer, name: &str, seed: u32, count: u64, size: usize, batch: u64) -> Result<Span> {
    ensure!(batch > 0, "a batch has at least one block");
    let feed = peer.feed(name)?;
    let start = feed.info().length;
    // All of them beforehand, so that only appending is measured.
    let batches: Vec<Vec<_>> = (start..start + count)
        .step_by(usize::try_from(batch)?)
        .map(|from| {
            (from..start + count).take(batch as usize).map(|index| block(seed, index, size)).collect()
        })
        .collect();
    let first = monotonic();
    for blocks in batches {
        feed.append_batch(blocks).await?;
    }
    Ok(Span { first, last: monotonic() })
}

async fn pulse(peer: &Peer, name: &str, seed: u32, count: u64, size: usize, pause: u64) -> Result<Vec<f64>> {
    let feed = peer.feed(name)?;
    let start = feed.info().length;
    let mut times = Vec::new();
    for index in start..start + count {
        #[allow(clippy::disallowed_methods, reason = "it measures")]
        sleep(Duration::from_millis(pause)).await;
        // Not before it pauses: what follows the last append would have to wait for it.
        let block = block(seed, index, size);
        times.push(monotonic());
        feed.append(block).await?;
    }
    Ok(times)
}

async fn arrivals(peer: &Peer, name: &str, from: u64, count: u64) -> Result<Vec<f64>> {
    let feed = peer.want_all(name)?;
    let mut changes = feed.subscribe();
    let mut times = Vec::new();
    for index in from..from + count {
        while !feed.has(index) {
            changes.changed().await;
        }
        feed.get(index).await?.with_context(|| format!("block {index} is missing"))?;
        times.push(monotonic());
    }
    Ok(times)
}
