//! Names against corestore 7: the same primary key, namespaces and name give the same key pair and feed.

use anyhow::{Context as _, Result, ensure};
use conformance::vectors::{Hex, cases};
use party::store::{FeedOptions, Store, StoreOptions};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    primary_key: Hex,
    namespaces: Vec<String>,
    feed_name: String,
    namespace: Hex,
    expect: Expect,
}

#[derive(Deserialize)]
struct Expect {
    public_key: Hex,
    seed: Hex,
    key: Option<Hex>,
    discovery_key: Option<Hex>,
    manifest: Option<Hex>,
    legacy_key: Option<Hex>,
}

//= NAME-3, NAME-4, NAME-5, NAME-6, NAME-7
#[tokio::test]
async fn names_lead_to_the_feeds_of_a_corestore() -> Result<()> {
    let cases = cases::<Case>("names.json")?;
    ensure!(cases.len() >= 60, "only {} cases", cases.len());
    for case in cases {
        check(&case).await.with_context(|| case.name.clone())?;
    }
    Ok(())
}

async fn check(case: &Case) -> Result<()> {
    let store = open(case)?;
    ensure!(store.current_namespace().as_bytes()[..] == case.namespace[..], "the namespace");
    let pair = store.create_key_pair(&case.feed_name).await?;
    ensure!(pair.public().as_bytes()[..] == case.expect.public_key[..], "the public key");
    ensure!(pair.seed()[..] == case.expect.seed[..], "the seed");
    if let Some(key) = &case.expect.key {
        let feed = store.named_feed(&case.feed_name).await?;
        ensure!(feed.key().as_bytes()[..] == key[..], "the feed's key");
        let discovery_key = case.expect.discovery_key.as_ref().context("no discovery key")?;
        ensure!(feed.discovery_key().as_bytes()[..] == discovery_key[..], "its discovery key");
        let mut manifest = vec![];
        feed.manifest().context("no manifest")?.encode(&mut manifest);
        ensure!(Some(&manifest[..]) == case.expect.manifest.as_deref(), "its manifest");
        ensure!(feed.info().writable, "it can't be written");
    }
    if let Some(key) = &case.expect.legacy_key {
        let store = open(case)?;
        let feed = store.create_feed(&case.feed_name, FeedOptions::default().compat(true)).await?;
        ensure!(feed.key().as_bytes()[..] == key[..], "the legacy feed's key");
        feed.append("signed").await?;
    }
    Ok(())
}

fn open(case: &Case) -> Result<Store> {
    let root = Store::memory_with(StoreOptions::default().primary_key(case.primary_key.array()?));
    Ok(case.namespaces.iter().fold(root, |store, name| store.namespace(name)))
}
