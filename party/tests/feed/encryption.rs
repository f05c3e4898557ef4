//! Encrypted feeds: read with the key, carried on without it, and never mixed with what is in the clear.

use std::sync::Arc;

use bytes::Bytes;
use party::{
    error::{ApiMisuse, Error},
    feed::{
        Batch, Encryption, Feed, Identity,
        memory::MemoryStorage,
        proof::{BlockRequest, ProofRequest, UpgradeRequest},
        storage::Slot,
    },
    key::KeyPair,
    limits::Limits,
};
use proptest::{collection::vec, prelude::*};

const KEY: [u8; 32] = [7; 32];
const WRONG: [u8; 32] = [8; 32];

async fn feed(identity: Identity) -> Feed {
    Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await.unwrap()
}

fn identities() -> [Identity; 2] {
    let writer = KeyPair::from_seed(&[1; 32]);
    [Identity::writer(writer.clone()), Identity::legacy_writer(writer)]
}

async fn writer() -> Feed {
    feed(Identity::writer(KeyPair::from_seed(&[1; 32]))).await
}

/// Lets `to` have all that `from` has.
async fn copy(from: &Feed, to: &Feed) {
    let (start, length) = (to.info().length, from.info().length);
    let upgrade = Some(UpgradeRequest { start, length: length - start });
    let grow = ProofRequest { upgrade, manifest: start == 0, ..ProofRequest::default() };
    let mut requests = vec![grow];
    requests.extend((start..length).map(|index| {
        let block = Some(BlockRequest { index, nodes: 0 });
        ProofRequest { block, ..ProofRequest::default() }
    }));
    for mut request in requests {
        if let Some(block) = &mut request.block {
            block.nodes = to.with_local(|local| local.missing_nodes(block.index));
        }
        let proof = from.prove(request, from.info().fork).await.unwrap().unwrap();
        to.ingest(vec![proof]).await.pop().unwrap().unwrap();
    }
}

fn misuse<T: std::fmt::Debug>(result: Result<T, Error>) -> ApiMisuse {
    match result {
        Err(Error::ApiMisuse(misuse)) => misuse,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_appended_with_the_key_is_read_with_it() {
    for identity in identities() {
        let locked = feed(identity).await;
        let feed = locked.with_encryption(KEY);
        assert_eq!(feed.append_batch(vec!["one".into(), "".into()]).await.unwrap(), 0..2);
        feed.append(vec![9; 100_000]).await.unwrap();
        assert_eq!(feed.get(0).await.unwrap().unwrap(), "one");
        assert_eq!(feed.get(1).await.unwrap().unwrap(), "");
        assert_eq!(feed.fetch(2).await.unwrap(), vec![9; 100_000]);
        assert_eq!(feed.get(3).await.unwrap(), None);
        assert_eq!((feed.info().byte_length, locked.info().byte_length), (100_003, 100_027));
        assert!(feed.is_encrypted() && locked.is_encrypted());
    }
}

//= FEED-47, FEED-49
#[tokio::test]
async fn a_relay_without_the_key_stores_verifies_and_serves() {
    for identity in identities() {
        let writer = feed(identity).await.with_encryption(KEY);
        writer.append_batch((0..20).map(|n| format!("secret {n}").into()).collect()).await.unwrap();
        let relay = feed(Identity::reader(writer.key())).await;
        copy(&writer, &relay).await;
        let found = relay.audit().await.unwrap();
        assert!(found.problems.is_empty(), "{found:?}");
        let stored = relay.get(3).await.unwrap().unwrap();
        assert_eq!(stored.len(), "secret 3".len() + 8);
        assert!(!stored.windows(6).any(|window| window == b"secret"));

        // Of which kind the feed is, and so which key its blocks have, this one doesn't know before it has a proof.
        let reader = feed(Identity::reader(writer.key())).await.with_encryption(KEY);
        assert_eq!((reader.info().byte_length, reader.get(0).await.unwrap()), (0, None));
        copy(&relay, &reader).await;
        for index in 0..20 {
            assert_eq!(reader.get(index).await.unwrap().unwrap(), format!("secret {index}"));
        }
        assert_eq!(reader.info().byte_length, writer.info().byte_length);
    }
}

#[tokio::test]
async fn a_wrong_key_is_an_error_and_appends_nothing() {
    let right = writer().await.with_encryption(KEY);
    right.append("text").await.unwrap();
    let wrong = right.with_encryption(WRONG);
    assert_eq!(misuse(wrong.get(0).await), ApiMisuse::WrongEncryptionKey { index: 0 });
    assert_eq!(misuse(wrong.snapshot().await.get(0).await), ApiMisuse::WrongEncryptionKey { index: 0 });
    assert_eq!(misuse(wrong.append("more").await), ApiMisuse::WrongEncryptionKey { index: 0 });
    assert_eq!(right.info().length, 1);
    assert_eq!(right.append("more").await.unwrap(), 1);
}

//= FEED-55
#[tokio::test]
async fn an_encrypted_feed_takes_nothing_in_the_clear() {
    let locked = writer().await;
    let feed = locked.with_encryption(KEY);
    feed.append("secret").await.unwrap();
    let missing = ApiMisuse::EncryptionKeyMissing(feed.discovery_key());
    assert_eq!(misuse(locked.append("in the clear").await), missing);
    assert_eq!(misuse(locked.get(0).await), missing);
    assert_eq!(misuse(locked.snapshot().await.get(0).await), missing);
    // One block without the key spoils the batch.
    let mut batch = Batch::new();
    batch.append(&feed, ["a".into()]);
    batch.append(&locked, ["b".into()]);
    assert_eq!(misuse(batch.commit().await), missing);
    assert_eq!(feed.info().length, 1);
    // It stays so when all that was encrypted is gone.
    locked.truncate(0).await.unwrap();
    assert_eq!(misuse(locked.append("in the clear").await), missing);
}

#[tokio::test]
async fn a_feed_in_the_clear_is_not_gone_on_with_under_a_key() {
    for (first, found) in [
        ("in the clear", ApiMisuse::WrongEncryptionKey { index: 0 }),
        ("clear", ApiMisuse::NotEncrypted { index: 0 }),
    ] {
        let feed = writer().await;
        feed.append(first).await.unwrap();
        let keyed = feed.with_encryption(KEY);
        assert_eq!(misuse(keyed.append("secret").await), found);
        assert_eq!(misuse(keyed.get(0).await), found);
        assert!(!feed.is_encrypted());
        feed.append("in the clear").await.unwrap();
    }
}

#[tokio::test]
async fn an_encrypted_block_is_8_bytes_shorter_than_the_longest() {
    let max = Limits::default().max_block;
    let feed = writer().await.with_encryption(KEY);
    let too_large = feed.append(vec![0; max - 7]).await;
    assert_eq!(misuse(too_large), ApiMisuse::BlockTooLarge { len: max - 7, max: max - 8 });
    feed.append(vec![0; max - 8]).await.unwrap();
    assert_eq!(feed.info().byte_length, (max - 8) as u64);
}

#[tokio::test]
async fn a_snapshot_gives_what_was_encrypted_on_its_fork() {
    let feed = writer().await.with_encryption(KEY);
    feed.append_batch(vec!["kept".into(), "dropped".into()]).await.unwrap();
    let snapshot = feed.snapshot().await;
    feed.truncate(1).await.unwrap();
    feed.append("new").await.unwrap();
    assert_eq!(snapshot.get(1).await.unwrap().unwrap(), "dropped");
    assert_eq!(snapshot.info().byte_length, 11);
    assert_eq!(feed.get(0).await.unwrap().unwrap(), "kept");
    assert_eq!(feed.get(1).await.unwrap().unwrap(), "new");
    assert_eq!(feed.info().byte_length, 7);
}

//= FEED-52
#[tokio::test]
async fn no_keystream_is_used_twice_after_a_truncation() {
    let locked = writer().await;
    let feed = locked.with_encryption(KEY);
    feed.append(vec![0; 64]).await.unwrap();
    let relay = self::feed(Identity::reader(feed.key())).await;
    copy(&feed, &relay).await;
    feed.truncate(0).await.unwrap();
    feed.append(vec![0; 64]).await.unwrap();
    let request =
        ProofRequest { block: Some(BlockRequest { index: 0, nodes: 0 }), ..ProofRequest::default() };
    let again = feed.prove(request, 1).await.unwrap().unwrap().block.unwrap().value;
    assert_ne!(relay.get(0).await.unwrap().unwrap(), again);
}

#[tokio::test]
async fn streams_give_what_was_encrypted() {
    use futures_util::TryStreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let feed = writer().await.with_encryption(KEY);
    let max = Limits::default().max_block;
    assert!(feed.byte_writer(max - 7).is_err());
    let mut writer = feed.byte_writer(10).unwrap();
    writer.write_all(b"more than one block of ten bytes").await.unwrap();
    writer.shutdown().await.unwrap();
    let mut text = String::new();
    feed.byte_reader().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "more than one block of ten bytes");
    let history: Vec<(u64, Bytes)> = feed.history(..).await.try_collect().await.unwrap();
    assert_eq!(history[0], (0, "more than ".into()));
    assert_eq!(feed.info().byte_length, 32);
}

#[cfg(feature = "disk")]
#[tokio::test]
async fn a_store_knows_which_feeds_are_encrypted() {
    use party::store::{FeedOptions, Store};

    let folder = tempfile::tempdir().unwrap();
    let options = || FeedOptions::default().encryption(KEY);
    let store = Store::open(folder.path()).await.unwrap();
    store.create_feed("empty", options()).await.unwrap();
    let feed = store.create_feed("notes", options()).await.unwrap();
    let mut batch = Batch::new();
    batch.append(&feed, ["secret".into()]);
    batch.put(&feed, "seen", "1");
    batch.commit().await.unwrap();
    store.close().await;
    drop(feed);

    let store = Store::open(folder.path()).await.unwrap();
    for name in ["empty", "notes"] {
        let locked = store.feed_by_name(name).await.unwrap().unwrap();
        let missing = ApiMisuse::EncryptionKeyMissing(locked.discovery_key());
        assert_eq!(misuse(locked.append("in the clear").await), missing);
    }
    let notes = store.feed_by_name("notes").await.unwrap().unwrap().with_encryption(KEY);
    assert_eq!(notes.get(0).await.unwrap().unwrap(), "secret");
    assert_eq!(notes.append("more").await.unwrap(), 1);
    store.close().await;
}

#[derive(Clone, Debug)]
enum Act {
    Append(Vec<Vec<u8>>),
    Truncate(prop::sample::Index),
    Reopen,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_is_done_the_key_opens_what_is_there(
        legacy: bool,
        acts in vec(prop_oneof![
            3 => vec(vec(any::<u8>(), 0..80), 1..5).prop_map(Act::Append),
            1 => any::<prop::sample::Index>().prop_map(Act::Truncate),
            1 => Just(Act::Reopen),
        ], 1..16),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let [default, compat] = identities();
            let identity = if legacy { compat } else { default };
            let storage = Arc::new(MemoryStorage::new());
            let open = || async { Feed::create(storage.clone(), Slot(0), identity.clone()).await.unwrap() };
            let mut locked = open().await;
            let mut feed = locked.with_encryption(Encryption::new(KEY));
            let mut model: Vec<Vec<u8>> = vec![];
            for act in acts {
                match act {
                    Act::Append(blocks) => {
                        feed.append_batch(blocks.iter().cloned().map(Bytes::from).collect()).await.unwrap();
                        model.extend(blocks);
                    }
                    Act::Truncate(length) => {
                        let length = length.index(model.len() + 1);
                        feed.truncate(length as u64).await.unwrap();
                        model.truncate(length);
                    }
                    Act::Reopen => {
                        locked = open().await;
                        feed = locked.with_encryption(Encryption::new(KEY));
                    }
                }
                prop_assert_eq!(feed.info().length, model.len() as u64);
                prop_assert_eq!(feed.info().byte_length, model.iter().map(Vec::len).sum::<usize>() as u64);
            }
            let wrong = feed.with_encryption(WRONG);
            for (index, block) in (0..).zip(&model) {
                let read = feed.get(index).await.unwrap();
                prop_assert_eq!(read.as_deref(), Some(&block[..]));
                prop_assert!(locked.get(index).await.is_err());
                prop_assert_eq!(misuse(wrong.get(index).await), ApiMisuse::WrongEncryptionKey { index });
            }
            Ok(())
        })?;
    }
}
