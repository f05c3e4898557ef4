//! `party feed truncate`, `clear`, `audit` and `rm`: what keeps a store in order.

use anyhow::bail;
use party::{error::Error, feed::Feed, key::FeedKey, store::Store};
use serde::Serialize;

use crate::{
    args::WhichFeed,
    feed::{by_name, hex},
    output::{Output, Show},
};

#[derive(Serialize)]
struct Truncated {
    length: u64,
    fork: u64,
}

impl Show for Truncated {
    fn text(&self) -> String {
        format!("length {}, fork {}", self.length, self.fork)
    }
}

pub(crate) async fn truncate(store: &Store, name: &str, length: u64, output: Output) -> anyhow::Result<()> {
    let feed = by_name(store, name).await?;
    feed.truncate(length).await?;
    let info = feed.info();
    output.show(&Truncated { length: info.length, fork: info.fork })
}

#[derive(Serialize)]
struct Cleared {
    cleared: u64,
}

impl Show for Cleared {
    fn text(&self) -> String {
        format!("{} cleared", counted(self.cleared, "block"))
    }
}

pub(crate) async fn clear(
    store: &Store,
    which: &WhichFeed,
    from: u64,
    to: Option<u64>,
    output: Output,
) -> anyhow::Result<()> {
    let feed = which.open(store).await?;
    let length = feed.info().length;
    let to = to.unwrap_or(length.max(from));
    if from > to || to > length {
        bail!("the feed has {length} blocks: there is no {from} to {to}");
    }
    output.show(&Cleared { cleared: feed.clear(from..to).await? })
}

#[derive(Serialize)]
struct Removed {
    #[serde(serialize_with = "hex")]
    removed: FeedKey,
}

impl Show for Removed {
    fn text(&self) -> String {
        self.removed.to_string()
    }
}

/// Doesn't open the feed: a damaged one can be deleted, too.
pub(crate) async fn remove(store: &Store, which: &WhichFeed, output: Output) -> anyhow::Result<()> {
    let entry = which.entry(store).await?;
    if !store.purge(&entry.discovery_key).await? {
        bail!("the feed is gone already");
    }
    output.show(&Removed { removed: entry.key })
}

#[derive(Serialize)]
struct Audited {
    #[serde(serialize_with = "hex")]
    key: FeedKey,
    blocks: u64,
    nodes: u64,
    problem_count: u64,
    problems: Vec<String>,
}

impl Audited {
    fn unreadable(key: FeedKey, error: &Error) -> Self {
        Self { key, blocks: 0, nodes: 0, problem_count: 1, problems: vec![error.to_string()] }
    }
}

impl Show for Audited {
    fn text(&self) -> String {
        let Self { key, blocks, problem_count, problems, .. } = self;
        let verdict = if *problem_count == 0 { "ok".into() } else { counted(*problem_count, "problem") };
        let mut text = format!("{key}  {}  {verdict}\n", counted(*blocks, "block"));
        text.extend(problems.iter().map(|problem| format!("  {problem}\n")));
        if *problem_count > problems.len() as u64 {
            text.push_str("  and more\n");
        }
        text
    }
}

pub(crate) async fn audit(store: &Store, which: Option<WhichFeed>, output: Output) -> anyhow::Result<()> {
    let mut damaged = 0;
    match which {
        Some(which) => damaged += audit_one(&which.open(store).await?, output).await?,
        None => {
            for entry in store.list().await? {
                damaged += match store.feed(&entry.key).await {
                    Ok(feed) => audit_one(&feed, output).await?,
                    // The others may be whole.
                    Err(error) => {
                        output.show(&Audited::unreadable(entry.key, &error))?;
                        1
                    }
                };
            }
        }
    }
    match damaged {
        0 => Ok(()),
        1 => bail!("a feed is damaged"),
        n => bail!("{n} feeds are damaged"),
    }
}

/// How many feeds are damaged: none or this one.
async fn audit_one(feed: &Feed, output: Output) -> anyhow::Result<u64> {
    let audit = feed.audit().await?;
    output.show(&Audited {
        key: feed.key(),
        blocks: audit.blocks,
        nodes: audit.nodes,
        problem_count: audit.problem_count,
        problems: audit.problems.iter().map(ToString::to_string).collect(),
    })?;
    Ok(u64::from(!audit.is_clean()))
}

fn counted(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
