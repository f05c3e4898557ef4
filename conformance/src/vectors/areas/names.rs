//! The key pairs and feeds that names lead to.

use anyhow::{Context as _, Result, ensure};
use party::store::{FeedOptions, Store, StoreOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::vectors::{
    Bytes, Kind, Outcome,
    kind::{block_on, read},
};

pub(super) const KINDS: &[Kind] = &[Kind::new("name", |input| block_on(name(input)))];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    primary_key: Bytes,
    namespaces: Vec<String>,
    feed_name: String,
}

#[derive(Default, Serialize)]
struct Named {
    namespace: Bytes,
    public_key: Bytes,
    seed: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discovery_key: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    legacy_key: Option<Bytes>,
}

async fn name(input: &Value) -> Result<Outcome> {
    let input: Input = read(input)?;
    let store = open(&input)?;
    let pair = store.create_key_pair(&input.feed_name).await?;
    let mut named = Named {
        namespace: store.current_namespace().as_bytes().into(),
        public_key: pair.public().as_bytes().into(),
        seed: pair.seed()[..].into(),
        ..Named::default()
    };
    // A corestore has no feed of the empty name.
    if !input.feed_name.is_empty() {
        let feed = store.named_feed(&input.feed_name).await?;
        ensure!(feed.info().writable, "it can't be written");
        let mut manifest = vec![];
        feed.manifest().context("no manifest")?.encode(&mut manifest);
        named.key = Some(feed.key().as_bytes().into());
        named.discovery_key = Some(feed.discovery_key().as_bytes().into());
        named.manifest = Some(manifest.into());

        let legacy = open(&input)?.create_feed(&input.feed_name, FeedOptions::default().compat(true)).await?;
        legacy.append("signed").await?;
        named.legacy_key = Some(legacy.key().as_bytes().into());
    }
    Outcome::accept(named)
}

fn open(input: &Input) -> Result<Store> {
    let root = Store::memory_with(StoreOptions::default().primary_key(input.primary_key.array()?));
    Ok(input.namespaces.iter().fold(root, |store, name| store.namespace(name)))
}
