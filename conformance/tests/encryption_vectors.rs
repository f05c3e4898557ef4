//! Encrypted blocks against what hypercore stores of them: the same keys are derived, each block is the same to the
//! byte, and opens to what it was; a wrong key is seen by the prefix.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use conformance::{
    node::block,
    vectors::{Hex, cases},
};
use party::{
    error::ApiMisuse,
    feed::{
        Feed, Identity,
        encryption::{BlockCipher, Encryption, PADDING, Scheme},
        manifest::Manifest,
        memory::MemoryStorage,
        proof::{ProofRequest, UpgradeRequest},
        storage::Slot,
        tree::Tree,
    },
    hash::hash,
    key::{FeedKey, KeyPair},
};
use serde::Deserialize;

const BLOCK_SEED: u32 = 5;

#[derive(Deserialize)]
struct Case {
    name: String,
    feed: FeedKind,
    feed_key: Hex,
    encryption_key: Hex,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FeedKind {
    Default,
    Legacy,
    #[serde(rename = "version_0")]
    Version0,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Kind {
    BlockKey { expect: KeysExpect },
    Keys { expect: KeysExpect },
    Block { index: u64, fork: u64, size: usize, expect: BlockExpect },
    WrongKey { index: u64, fork: u64, prefix: Hex, expect: PrefixExpect },
    Feed { steps: Vec<Step>, expect: FeedExpect },
}

/// What is done to a feed: blocks of these sizes are appended in one batch, or it is truncated.
#[derive(Deserialize)]
#[serde(untagged)]
enum Step {
    Append { append: Vec<usize> },
    Truncate { truncate: u64, fork: u64 },
}

#[derive(Deserialize)]
struct FeedExpect {
    length: u64,
    fork: u64,
    byte_length: u64,
    tree_hash: Hex,
    padded_byte_length: u64,
}

#[derive(Deserialize)]
struct KeysExpect {
    block_key: Hex,
    /// Not of every case.
    blinding_key: Option<Hex>,
}

#[derive(Deserialize)]
struct BlockExpect {
    /// Of short blocks.
    stored: Option<Hex>,
    /// Of long ones.
    stored_hash: Option<Hex>,
    prefix_fork: String,
}

#[derive(Deserialize)]
struct PrefixExpect {
    prefix_fork: String,
}

impl Case {
    fn scheme(&self) -> Scheme {
        match self.feed {
            FeedKind::Default | FeedKind::Version0 => Scheme::Manifest,
            FeedKind::Legacy => Scheme::Legacy,
        }
    }

    fn feed_key(&self) -> Result<FeedKey> {
        Ok(FeedKey::from_bytes(self.feed_key.array()?))
    }

    fn encryption(&self) -> Result<Encryption> {
        Ok(Encryption::new(self.encryption_key.array()?))
    }

    fn cipher(&self) -> Result<BlockCipher> {
        Ok(self.encryption()?.cipher(&self.feed_key()?, self.scheme()))
    }
}

/// Runs `check` on every case; it says whether the case was for it.
fn each_case(check: impl Fn(&Case) -> Result<bool>) -> Result<()> {
    let mut checked = 0;
    for case in cases::<Case>("encryption.json")? {
        checked += usize::from(check(&case).with_context(|| case.name.clone())?);
    }
    ensure!(checked > 0, "no case was checked");
    Ok(())
}

//= FEED-48
#[test]
fn keys_are_derived_as_by_hypercore() -> Result<()> {
    each_case(|case| {
        let (Kind::Keys { expect } | Kind::BlockKey { expect }) = &case.kind else { return Ok(false) };
        let key = case.encryption()?.block_key(&case.feed_key()?, case.scheme());
        ensure!(key[..] == *expect.block_key, "block key {:?}", Hex(key.to_vec()));
        if let Some(blinding_key) = &expect.blinding_key {
            ensure!(hash(&[&key[..]])[..] == **blinding_key, "blinding key");
        }
        let handed_on = Encryption::with_block_key(*key).cipher(&case.feed_key()?, case.scheme());
        let stored = case.cipher()?.seal(1, 0, b"text");
        ensure!(handed_on.open(1, 0, stored)? == "text", "the block key alone opens it");
        Ok(true)
    })
}

//= FEED-50
#[test]
fn blocks_are_sealed_and_opened_as_by_hypercore() -> Result<()> {
    each_case(|case| {
        let Kind::Block { index, fork, size, expect } = &case.kind else { return Ok(false) };
        let (index, fork) = (*index, *fork);
        let cipher = case.cipher()?;
        let text = block(BLOCK_SEED, index, *size);
        let stored = cipher.seal(index, fork, &text);
        match (&expect.stored, &expect.stored_hash) {
            (Some(expected), _) => {
                ensure!(stored == expected.0, "stored {:?}", Hex(stored.to_vec()));
                ensure!(cipher.open(index, fork, Bytes::from(expected.0.clone()))? == text, "opened");
            }
            (None, Some(expected)) => ensure!(hash(&[&stored])[..] == **expected, "stored"),
            (None, None) => anyhow::bail!("nothing to compare with"),
        }
        ensure!(expect.prefix_fork.parse() == Ok(fork), "the prefix tells the fork");
        ensure!(cipher.open(index, fork + 1, stored)? == text, "opened later");
        Ok(true)
    })
}

#[test]
fn a_wrong_key_is_seen_by_what_the_prefix_gives() -> Result<()> {
    each_case(|case| {
        let Kind::WrongKey { index, fork, prefix, expect } = &case.kind else { return Ok(false) };
        let cipher = case.cipher()?;
        let stored = Bytes::from(prefix.0.clone());
        ensure!(prefix.len() == PADDING, "the prefix alone");
        let seen = cipher.open(*index, *fork, stored.clone());
        ensure!(seen == Err(ApiMisuse::WrongEncryptionKey { index: *index }), "{seen:?}");
        // It is the very number that hypercore's cipher gives.
        let number: u64 = expect.prefix_fork.parse()?;
        ensure!(cipher.open(*index, number, stored.clone()).is_ok(), "not above {number}");
        ensure!(cipher.open(*index, number - 1, stored).is_err(), "not below {number}");
        Ok(true)
    })
}

#[tokio::test]
async fn encrypted_feeds_are_those_of_hypercore() -> Result<()> {
    let mut checked = 0;
    for case in cases::<Case>("encryption.json")? {
        let Kind::Feed { steps, expect } = &case.kind else { continue };
        becomes(&case, steps, expect).await.with_context(|| case.name.clone())?;
        checked += 1;
    }
    ensure!(checked > 0, "no case was checked");
    Ok(())
}

async fn becomes(case: &Case, steps: &[Step], expect: &FeedExpect) -> Result<()> {
    let writer = KeyPair::from_seed(&[1; 32]);
    let identity = match case.feed {
        FeedKind::Default => Identity::writer(writer),
        FeedKind::Legacy => Identity::legacy_writer(writer),
        FeedKind::Version0 => {
            let manifest = Manifest { version: 0, ..Manifest::single(writer.public()) };
            Identity { key: manifest.key(), manifest: Some(manifest), signer: Some(writer) }
        }
    };
    let locked = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
    ensure!(locked.key() == case.feed_key()?, "feed key");
    let feed = locked.with_encryption(case.encryption()?);
    let mut texts = vec![];
    for step in steps {
        match step {
            Step::Append { append } => {
                let start = feed.info().length;
                let blocks: Vec<Bytes> =
                    (start..).zip(append).map(|(index, size)| block(BLOCK_SEED, index, *size)).collect();
                texts.extend(blocks.clone());
                feed.append_batch(blocks).await?;
            }
            Step::Truncate { truncate, fork } => {
                feed.truncate_to_fork(*truncate, *fork).await?;
                texts.truncate(usize::try_from(*truncate)?);
            }
        }
    }
    let info = feed.info();
    ensure!((info.length, info.fork) == (expect.length, expect.fork), "{info:?}");
    ensure!(info.byte_length == expect.byte_length, "{info:?}");
    ensure!(locked.info().byte_length == expect.padded_byte_length, "{:?}", locked.info());
    for (index, text) in (0..).zip(&texts) {
        ensure!(feed.get(index).await?.as_ref() == Some(text), "block {index}");
    }
    // Every byte that is stored goes into the hash of the tree.
    let upgrade = Some(UpgradeRequest { start: 0, length: info.length });
    let proof = feed.prove(ProofRequest { upgrade, ..ProofRequest::default() }, info.fork).await?;
    let roots = proof.and_then(|proof| proof.upgrade).context("no upgrade")?.nodes;
    let tree = Tree::from_roots(info.length, roots).context("not the roots of such a tree")?;
    ensure!(tree.hash()[..] == *expect.tree_hash, "tree hash");
    Ok(())
}
