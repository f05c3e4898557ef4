//! `party feed`: what can be done with a store alone.

use std::io::{self, Write as _};

use anyhow::{Context as _, bail};
use party::{
    feed::{Feed, encryption::Encryption},
    key::{DiscoveryKey, FeedKey},
    store::{FeedEntry, FeedOptions, Namespace, Store},
};
use serde::{Serialize, Serializer};

use crate::{
    args::{Append, EncryptionKey, FeedCommand, StoreFolder, WhichFeed},
    input::{Blocks, Cut},
    output::{Output, Progress, Show},
    secret, upkeep,
};

pub(crate) async fn run(command: FeedCommand, output: Output) -> anyhow::Result<()> {
    let store = match &command {
        FeedCommand::Create { store, .. } => store.open_or_create().await?,
        FeedCommand::Append(Append { store, .. })
        | FeedCommand::Info { store, .. }
        | FeedCommand::Cat { store, .. }
        | FeedCommand::Truncate { store, .. }
        | FeedCommand::Clear { store, .. }
        | FeedCommand::Audit { store, .. }
        | FeedCommand::Rm { store, .. }
        | FeedCommand::Ls { store } => store.open().await?,
    };
    let result = match command {
        FeedCommand::Create { name, compat, encryption, .. } => {
            create(&store, &name, compat, &encryption, output).await
        }
        FeedCommand::Append(arguments) => append(&store, &arguments, output).await,
        FeedCommand::Info { feed, .. } => info(&store, &feed, output).await,
        FeedCommand::Cat { feed, from, to, encryption, .. } => {
            let feed = encryption.unlock(feed.open(&store).await?)?;
            cat(&feed, from, to, output).await
        }
        FeedCommand::Truncate { name, length, .. } => upkeep::truncate(&store, &name, length, output).await,
        FeedCommand::Clear { feed, from, to, .. } => upkeep::clear(&store, &feed, from, to, output).await,
        FeedCommand::Audit { name, key, .. } => {
            let which = (name.is_some() || key.is_some()).then_some(WhichFeed { name, key });
            upkeep::audit(&store, which, output).await
        }
        FeedCommand::Rm { feed, .. } => upkeep::remove(&store, &feed, output).await,
        FeedCommand::Ls { .. } => ls(&store, output).await,
    };
    store.close().await;
    result
}

impl StoreFolder {
    /// Opens a store that is there. A mistyped folder is an error, and not a new store.
    pub(crate) async fn open(&self) -> anyhow::Result<Store> {
        if !self.folder.is_dir() {
            bail!("there is no store in {}; `party feed create` makes one", self.folder.display());
        }
        self.open_or_create().await
    }

    pub(crate) async fn open_or_create(&self) -> anyhow::Result<Store> {
        let store = Store::open(&self.folder)
            .await
            .with_context(|| format!("cannot open {}", self.folder.display()))?;
        Ok(self.namespaces.iter().fold(store, |store, name| store.namespace(name)))
    }
}

impl WhichFeed {
    pub(crate) async fn open(&self, store: &Store) -> anyhow::Result<Feed> {
        match (&self.name, &self.key) {
            (Some(name), _) => by_name(store, name).await,
            (None, Some(key)) => {
                store.feed_by_discovery_key(&key.discovery_key()).await?.with_context(|| {
                    format!(
                        "the store has no feed with the key {key}; `party feed ls` lists those that it has"
                    )
                })
            }
            (None, None) => bail!("give --name or --key"),
        }
    }

    /// What the store knows of the feed without opening it.
    pub(crate) async fn entry(&self, store: &Store) -> anyhow::Result<FeedEntry> {
        let is_it = |entry: &FeedEntry| match (&self.name, &self.key) {
            (Some(name), _) => {
                entry.name.as_ref() == Some(name) && entry.namespace == store.current_namespace()
            }
            (None, key) => *key == Some(entry.key),
        };
        let mut pages = store.pages();
        while let Some(entries) = pages.next().await? {
            if let Some(entry) = entries.into_iter().find(is_it) {
                return Ok(entry);
            }
        }
        bail!("the store has no such feed")
    }
}

impl EncryptionKey {
    /// The key in the file, which is made if it isn't there.
    fn read_or_make(&self) -> anyhow::Result<Option<Encryption>> {
        let Some(file) = &self.file else { return Ok(None) };
        if let Some(key) = secret::read(file)? {
            return Ok(Some(Encryption::new(*key)));
        }
        let fresh = Encryption::generate();
        secret::write(file, fresh.key()).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Some(fresh))
    }

    /// The feed with the key in the file, if one is named.
    fn unlock(&self, feed: Feed) -> anyhow::Result<Feed> {
        let Some(file) = &self.file else { return Ok(feed) };
        let key = secret::read(file)?.with_context(|| format!("there is no key in {}", file.display()))?;
        Ok(feed.with_encryption(*key))
    }
}

/// The feed of this name.
pub(crate) async fn by_name(store: &Store, name: &str) -> anyhow::Result<Feed> {
    store.feed_by_name(name).await?.with_context(|| {
        format!("the store has no feed named {name:?}; `party feed ls` lists those that it has")
    })
}

#[derive(Serialize)]
struct Created<'a> {
    name: &'a str,
    #[serde(serialize_with = "hex")]
    key: FeedKey,
    #[serde(serialize_with = "hex")]
    discovery_key: DiscoveryKey,
}

impl Show for Created<'_> {
    fn text(&self) -> String {
        self.key.to_string()
    }
}

async fn create(
    store: &Store,
    name: &str,
    compat: bool,
    encryption: &EncryptionKey,
    output: Output,
) -> anyhow::Result<()> {
    let mut options = FeedOptions::default().compat(compat);
    if let Some(key) = encryption.read_or_make()? {
        options = options.encryption(key);
    }
    let feed = store.create_feed(name, options).await?;
    output.show(&Created { name, key: feed.key(), discovery_key: feed.discovery_key() })
}

/// The index of a block that will still be there after the process is killed.
#[derive(Serialize)]
pub(crate) struct Appended {
    index: u64,
}

impl Show for Appended {
    fn text(&self) -> String {
        self.index.to_string()
    }
}

async fn append(store: &Store, arguments: &Append, output: Output) -> anyhow::Result<()> {
    let feed = arguments.encryption.unlock(by_name(store, &arguments.name).await?)?;
    let cut = match (arguments.chunk, arguments.lines) {
        (Some(size), _) => Cut::Chunks(size),
        (None, true) => Cut::Lines,
        (None, false) => Cut::Whole,
    };
    let mut blocks = Blocks::open(arguments.file.as_deref(), cut)?;
    let progress = output.bytes(blocks.size);
    while let Some(batch) = blocks.next().await? {
        append_batch(&feed, batch, output, &progress).await?;
    }
    Ok(())
}

/// Appends a batch, and prints its indexes once it is durable.
pub(crate) async fn append_batch(
    feed: &Feed,
    batch: Vec<bytes::Bytes>,
    output: Output,
    progress: &Progress,
) -> anyhow::Result<()> {
    let bytes: usize = batch.iter().map(bytes::Bytes::len).sum();
    let indexes = feed.append_batch(batch).await?;
    progress.add(bytes as u64);
    progress.aside(|| output.show_all(indexes.map(|index| Appended { index })))
}

#[derive(Serialize)]
struct Info {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// That of the name, if it is not the root.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(serialize_with = "hex")]
    key: FeedKey,
    #[serde(serialize_with = "hex")]
    discovery_key: DiscoveryKey,
    length: u64,
    byte_length: u64,
    contiguous_length: u64,
    fork: u64,
    writable: bool,
}

impl Info {
    fn of(feed: &Feed, name: Option<String>) -> Self {
        let info = feed.info();
        Self {
            name,
            namespace: None,
            key: feed.key(),
            discovery_key: feed.discovery_key(),
            length: info.length,
            byte_length: info.byte_length,
            contiguous_length: info.contiguous_length,
            fork: info.fork,
            writable: info.writable,
        }
    }
}

impl Show for Info {
    fn text(&self) -> String {
        let rows: [(&str, &dyn std::fmt::Display); 7] = [
            ("key", &self.key),
            ("discovery_key", &self.discovery_key),
            ("length", &self.length),
            ("byte_length", &self.byte_length),
            ("contiguous_length", &self.contiguous_length),
            ("fork", &self.fork),
            ("writable", &self.writable),
        ];
        rows.iter().map(|(name, value)| format!("{name:<17}  {value}\n")).collect()
    }
}

async fn info(store: &Store, which: &WhichFeed, output: Output) -> anyhow::Result<()> {
    let feed = which.open(store).await?;
    output.show(&Info::of(&feed, which.name.clone()))
}

#[derive(Serialize)]
#[serde(transparent)]
struct List(Vec<Info>);

impl Show for List {
    fn text(&self) -> String {
        self.0
            .iter()
            .map(|feed| {
                let writable = if feed.writable { "writable" } else { "" };
                let name = feed.name.as_deref().unwrap_or("-");
                let of = feed.namespace.as_ref().map(|it| format!("  of namespace {it}")).unwrap_or_default();
                format!(
                    "{}  {:>10} {:>14}  {:<8}  {name}{of}\n",
                    feed.key, feed.length, feed.byte_length, writable
                )
            })
            .collect()
    }
}

async fn ls(store: &Store, output: Output) -> anyhow::Result<()> {
    let mut feeds = Vec::new();
    for entry in store.list().await? {
        let namespace = (entry.namespace != Namespace::default()).then(|| entry.namespace.to_string());
        feeds.push(Info { namespace, ..Info::of(&store.feed(&entry.key).await?, entry.name) });
    }
    output.show(&List(feeds))
}

async fn cat(feed: &Feed, from: u64, to: Option<u64>, output: Output) -> anyhow::Result<()> {
    let info = feed.info();
    let to = to.unwrap_or(info.length.max(from));
    if from > to || to > info.length {
        bail!("the feed has {} blocks: there is no {from} to {to}", info.length);
    }
    let progress = output.bytes((from == 0 && to == info.length).then_some(info.byte_length));
    let mut out = io::BufWriter::with_capacity(1 << 18, io::stdout().lock());
    for index in from..to {
        let block = feed.get(index).await?.with_context(|| format!("block {index} is not in the store"))?;
        out.write_all(&block).context("cannot write to standard output")?;
        progress.add(block.len() as u64);
    }
    out.flush().context("cannot write to standard output")
}

pub(crate) fn hex<S: Serializer>(key: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}
