//! Encrypted blocks as they are stored.

use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes as Block;
use party::{
    error::ApiMisuse,
    feed::{
        Feed,
        encryption::{BlockCipher, Encryption, PADDING, Scheme},
        memory::MemoryStorage,
    },
    hash::hash,
    key::FeedKey,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::world::{FeedKind, SLOT, identity, tree_of};
use crate::{
    node::block,
    vectors::{
        Bytes, Kind, Outcome,
        kind::{block_on, read},
    },
};

pub(super) const KINDS: &[Kind] = &[
    Kind::new("block_key", |input| keys(input, false)),
    Kind::new("keys", |input| keys(input, true)),
    Kind::new("block", sealed),
    Kind::new("wrong_key", wrong_key).wire("/prefix"),
    Kind::new("encrypted_feed", |input| block_on(feed(input))),
];

/// Of the blocks of `vectors/README.md`.
const BLOCK_SEED: u32 = 5;
/// Longer ones are given by their length and hash.
const SHORT: usize = 128;

fn cipher(feed: FeedKind, feed_key: &Bytes, encryption: &Encryption) -> Result<BlockCipher> {
    Ok(encryption.cipher(&FeedKey::from_bytes(feed_key.array()?), scheme(feed)))
}

fn scheme(feed: FeedKind) -> Scheme {
    match feed {
        FeedKind::Default | FeedKind::Version0 => Scheme::Manifest,
        FeedKind::Legacy => Scheme::Legacy,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    feed: FeedKind,
    feed_key: Bytes,
    encryption_key: Bytes,
}

fn keys(input: &Value, with_blinding_key: bool) -> Result<Outcome> {
    let Keys { feed, feed_key, encryption_key } = read(input)?;
    let encryption = Encryption::new(encryption_key.array()?);
    let key = encryption.block_key(&FeedKey::from_bytes(feed_key.array()?), scheme(feed));
    let stored = cipher(feed, &feed_key, &encryption)?.seal(1, 0, b"text");
    let handed_on = cipher(feed, &feed_key, &Encryption::with_block_key(*key))?;
    ensure!(handed_on.open(1, 0, stored)? == "text", "the block key alone doesn't open it");
    let mut values = json!({ "block_key": Bytes::from(&key[..]) });
    if with_blinding_key {
        values["blinding_key"] = serde_json::to_value(Bytes::from(hash(&[&key[..]])))?;
    }
    Outcome::accept(values)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    feed: FeedKind,
    feed_key: Bytes,
    encryption_key: Bytes,
    index: u64,
    fork: u64,
    size: usize,
}

fn sealed(input: &Value) -> Result<Outcome> {
    let Sealed { feed, feed_key, encryption_key, index, fork, size } = read(input)?;
    let cipher = cipher(feed, &feed_key, &Encryption::new(encryption_key.array()?))?;
    let text = block(BLOCK_SEED, index, size);
    let stored = cipher.seal(index, fork, &text);
    for fork in [fork, fork + 1] {
        ensure!(
            cipher.open(index, fork, stored.clone())? == text,
            "on fork {fork} it opens to something else"
        );
    }
    let prefix_fork = least_fork(&cipher, index, &stored).to_string();
    Outcome::accept(match stored.len() {
        ..=SHORT => json!({ "stored": Bytes::from(&stored), "prefix_fork": prefix_fork }),
        length => {
            let hash = Bytes::from(hash(&[&stored]));
            json!({ "stored": { "length": length, "hash": hash }, "prefix_fork": prefix_fork })
        }
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrongKey {
    feed: FeedKind,
    feed_key: Bytes,
    encryption_key: Bytes,
    index: u64,
    fork: u64,
    prefix: Bytes,
}

fn wrong_key(input: &Value) -> Result<Outcome> {
    let WrongKey { feed, feed_key, encryption_key, index, fork, prefix } = read(input)?;
    let cipher = cipher(feed, &feed_key, &Encryption::new(encryption_key.array()?))?;
    ensure!(prefix.len() == PADDING, "not the prefix alone");
    let seen = cipher.open(index, fork, prefix.shared());
    ensure!(seen == Err(ApiMisuse::WrongEncryptionKey { index }), "{seen:?}");
    Outcome::accept(json!({ "prefix_fork": least_fork(&cipher, index, &prefix.shared()).to_string() }))
}

/// The fork that the prefix tells: the lowest on which the block opens.
fn least_fork(cipher: &BlockCipher, index: u64, stored: &Block) -> u64 {
    let (mut low, mut high) = (0, u64::MAX);
    while low < high {
        let middle = low + (high - low) / 2;
        match cipher.open(index, middle, stored.clone()) {
            Ok(_) => high = middle,
            Err(_) => low = middle + 1,
        }
    }
    low
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    feed: FeedKind,
    feed_key: Bytes,
    encryption_key: Bytes,
    steps: Vec<Step>,
}

/// What is done to a feed.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Step {
    /// Blocks of these sizes are appended in one batch.
    Append { append: Vec<usize> },
    /// It is truncated to so many blocks.
    Truncate { truncate: u64, fork: u64 },
}

async fn feed(input: &Value) -> Result<Outcome> {
    let Written { feed: kind, feed_key, encryption_key, steps } = read(input)?;
    let locked = Feed::create(Arc::new(MemoryStorage::new()), SLOT, identity(kind)).await?;
    ensure!(locked.key().as_bytes()[..] == *feed_key, "another feed");
    let feed = locked.with_encryption(Encryption::new(encryption_key.array()?));
    let mut texts = vec![];
    for step in steps {
        match step {
            Step::Append { append } => {
                let blocks: Vec<Block> = (feed.info().length..)
                    .zip(append)
                    .map(|(index, size)| block(BLOCK_SEED, index, size))
                    .collect();
                texts.extend(blocks.clone());
                feed.append_batch(blocks).await?;
            }
            Step::Truncate { truncate, fork } => {
                feed.truncate_to_fork(truncate, fork).await?;
                texts.truncate(usize::try_from(truncate)?);
            }
        }
    }
    for (index, text) in (0..).zip(&texts) {
        ensure!(feed.get(index).await?.as_ref() == Some(text), "block {index}");
    }
    let info = feed.info();
    Outcome::accept(json!({
        "length": info.length,
        "fork": info.fork,
        "byte_length": info.byte_length,
        // Every byte that is stored goes into it.
        "tree_hash": Bytes::from(tree_of(&feed).await?.0.hash()),
        "padded_byte_length": locked.info().byte_length,
    }))
}
