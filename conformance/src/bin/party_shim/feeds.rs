//! The shim's feeds, by the names that it was told.

use std::{collections::HashMap, ops::Range};

use bytes::Bytes;
use party::{
    feed::{Download, Feed},
    key::FeedKey,
    store::{FeedOptions, Store},
};
use tokio::task::JoinSet;

use crate::{Wrong, hex, tell, unhex};

pub(crate) struct Feeds {
    store: Store,
    by_name: HashMap<String, Feed>,
    wanted: Vec<Download>,
    /// Who tell of what comes.
    watchers: JoinSet<()>,
}

impl Feeds {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, by_name: HashMap::new(), wanted: Vec::new(), watchers: JoinSet::new() }
    }

    pub(crate) fn named(&self, name: &str) -> Result<&Feed, Wrong> {
        self.by_name.get(name).ok_or_else(|| Wrong::usage(format!("no feed is called {name}")))
    }

    pub(crate) async fn create(&mut self, name: &str, legacy: bool) -> Result<String, Wrong> {
        let feed = self.store.create_feed(name, FeedOptions::default().compat(legacy)).await?;
        Ok(self.remember(name, feed))
    }

    pub(crate) async fn add(&mut self, name: &str, key: &str) -> Result<String, Wrong> {
        let feed = self.store.feed(&key.parse::<FeedKey>()?).await?;
        Ok(self.remember(name, feed))
    }

    fn remember(&mut self, name: &str, feed: Feed) -> String {
        self.watchers.spawn(watch(name.to_owned(), feed.clone()));
        let words = format!("{} {}", feed.key(), feed.discovery_key());
        self.by_name.insert(name.to_owned(), feed);
        words
    }

    pub(crate) async fn append(&self, name: &str, blocks: &[&str]) -> Result<String, Wrong> {
        let feed = self.named(name)?;
        let blocks = blocks.iter().map(|word| unhex(word).map(Bytes::from)).collect::<Result<Vec<_>, _>>()?;
        feed.append_batch(blocks).await?;
        Ok(feed.info().length.to_string())
    }

    pub(crate) async fn truncate(&self, name: &str, length: u64) -> Result<String, Wrong> {
        let feed = self.named(name)?;
        feed.truncate(length).await?;
        Ok(feed.info().fork.to_string())
    }

    pub(crate) async fn clear(&self, name: &str, blocks: Range<u64>) -> Result<String, Wrong> {
        self.named(name)?.clear(blocks).await?;
        Ok(String::new())
    }

    pub(crate) fn state(&self, name: &str) -> Result<String, Wrong> {
        let info = self.named(name)?.info();
        Ok(format!("{} {}", info.length, info.fork))
    }

    pub(crate) async fn get(&self, name: &str, index: u64) -> Result<String, Wrong> {
        let feed = self.named(name)?;
        let block = if feed.has(index) { feed.get(index).await? } else { None };
        Ok(block.map_or_else(|| "absent".to_owned(), |block| hex(&block)))
    }

    pub(crate) fn download(&mut self, name: &str, start: u64, end: Option<u64>) -> Result<String, Wrong> {
        let feed = self.named(name)?.clone();
        let Some(end) = end else {
            self.wanted.push(feed.download(start..));
            return Ok(String::new());
        };
        let name = name.to_owned();
        let download = feed.download(start..end);
        self.watchers.spawn(async move {
            match download.done().await {
                Ok(_) => tell(format_args!("downloaded {name} {start} {end}")),
                Err(error) => eprintln!("a download has failed: {error}"),
            }
        });
        Ok(String::new())
    }
}

/// Tells when a feed gets longer, or goes to another fork.
async fn watch(name: String, feed: Feed) {
    let mut changes = feed.subscribe();
    let mut told = (feed.info().length, feed.info().fork);
    loop {
        changes.changed().await;
        let info = feed.info();
        if told != (info.length, info.fork) {
            told = (info.length, info.fork);
            tell(format_args!("length {name} {} {}", info.length, info.fork));
        }
    }
}
