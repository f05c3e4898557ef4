//! Names, namespaces and the primary key.

use std::sync::Arc;

use party::{
    error::{ApiMisuse, Error},
    feed::{
        Identity,
        manifest::{Manifest, Prologue},
        memory::MemoryStorage,
    },
    key::KeyPair,
    store::{FeedOptions, Store, StoreOptions},
};

fn with_key(n: u8) -> StoreOptions {
    StoreOptions::default().primary_key([n; 32])
}

//= NAME-5, NAME-7
#[tokio::test]
async fn the_same_primary_key_and_name_give_the_same_feed() {
    let (one, same, other) =
        (Store::memory_with(with_key(1)), Store::memory_with(with_key(1)), Store::memory_with(with_key(2)));
    let feed = one.named_feed("log").await.unwrap();
    assert_eq!(same.create_feed("log", FeedOptions::default()).await.unwrap().key(), feed.key());
    assert_ne!(other.named_feed("log").await.unwrap().key(), feed.key());
    assert_ne!(one.named_feed("logs").await.unwrap().key(), feed.key());
    assert_ne!(Store::memory().named_feed("log").await.unwrap().key(), feed.key());
    assert_eq!(feed.append("mine").await.unwrap(), 0);
    assert_eq!(*one.primary_key().await.unwrap(), [1; 32]);
    let random = Store::memory();
    let restored = StoreOptions::default().primary_key(*random.primary_key().await.unwrap());
    let key = random.named_feed("log").await.unwrap().key();
    assert_eq!(Store::memory_with(restored).named_feed("log").await.unwrap().key(), key);
}

//= NAME-4
#[tokio::test]
async fn namespaces_keep_names_apart() {
    let store = Store::memory_with(with_key(1));
    let nested = store.namespace("a").namespace("b");
    let mut keys = vec![];
    for place in [&store, &store.namespace("a"), &store.namespace("b"), &nested, &store.namespace("ab")] {
        let feed = place.create_feed("log", FeedOptions::default()).await.unwrap();
        assert_eq!(place.feed_by_name("log").await.unwrap().unwrap().key(), feed.key());
        let pair = place.create_key_pair("log").await.unwrap();
        assert_eq!(feed.manifest().unwrap().signers[0].public_key, pair.public());
        keys.push(feed.key());
    }
    let listed = store.list().await.unwrap();
    assert_eq!(listed.len(), 5);
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 5);
    let [entry] = nested.list_named("").await.unwrap().try_into().unwrap();
    assert_eq!((entry.name.as_deref(), entry.namespace), (Some("log"), nested.current_namespace()));
    // A feed is the store's, whichever way it is asked for.
    assert!(nested.feed_by_discovery_key(&keys[0].discovery_key()).await.unwrap().is_some());
}

#[tokio::test]
async fn names_are_listed_by_their_beginning() {
    let store = Store::memory().namespace("app");
    for name in ["chat/b", "chat/a", "chat", "cha", "other", ""] {
        store.named_feed(name).await.unwrap();
    }
    store.namespace("chat").named_feed("chat/elsewhere").await.unwrap();
    let names = async |prefix| -> Vec<_> {
        store.list_named(prefix).await.unwrap().into_iter().map(|entry| entry.name.unwrap()).collect()
    };
    assert_eq!(names("chat").await, ["chat", "chat/a", "chat/b"]);
    assert_eq!(names("").await, ["", "cha", "chat", "chat/a", "chat/b", "other"]);
    assert!(names("nothing").await.is_empty());
}

//= NAME-8
#[tokio::test]
async fn a_named_feed_is_made_once() {
    let store = Store::memory();
    let asked = (0..20).map(|_| store.named_feed("log"));
    let feeds: Vec<_> = futures_util::future::join_all(asked).await.into_iter().map(Result::unwrap).collect();
    assert!(feeds.iter().all(|feed| feed.key() == feeds[0].key()));
    assert_eq!(store.list().await.unwrap().len(), 1);
    let again = store.create_feed("log", FeedOptions::default()).await;
    assert!(matches!(again, Err(Error::ApiMisuse(ApiMisuse::NameTaken(_)))));
    // A name may lead to a feed that did not grow from it.
    let seeded = store.create_feed("seeded", FeedOptions::default().seed([9; 32])).await.unwrap();
    assert_eq!(store.named_feed("seeded").await.unwrap().key(), seeded.key());
}

#[tokio::test]
async fn a_feed_that_was_only_read_is_adopted_with_all_its_handles() {
    let key = Store::memory_with(with_key(1)).named_feed("log").await.unwrap().key();
    for held in [true, false] {
        let store = Store::memory_with(with_key(1));
        let reader = Some(store.feed(&key).await.unwrap()).filter(|_| held);
        let refused = store.create_feed("log", FeedOptions::default()).await;
        assert!(matches!(refused, Err(Error::ApiMisuse(ApiMisuse::FeedExists(_)))));
        let feed = store.named_feed("log").await.unwrap();
        feed.append("mine").await.unwrap();
        if let Some(reader) = reader {
            assert_eq!(reader.append("also mine").await.unwrap(), 1);
        }
        drop(feed);
        let [entry] = store.list().await.unwrap().try_into().unwrap();
        assert_eq!((entry.name.as_deref(), entry.writable), (Some("log"), true));
        assert!(store.feed(&key).await.unwrap().info().writable);
    }
}

#[tokio::test]
async fn a_storage_of_ones_own_keeps_its_primary_key() {
    let storage = Arc::new(MemoryStorage::new());
    let key = Store::with_storage(storage.clone()).named_feed("log").await.unwrap().key();
    let again = Store::open_storage(storage.clone(), StoreOptions::default()).await.unwrap();
    assert_eq!(again.feed_by_name("log").await.unwrap().unwrap().key(), key);
    assert!(again.feed(&key).await.unwrap().info().writable);
    let refused = Store::open_storage(storage, with_key(1)).await.map(drop);
    assert!(matches!(refused, Err(Error::ApiMisuse(ApiMisuse::OtherPrimaryKey))), "{refused:?}");
}

#[cfg(feature = "disk")]
mod on_disk {
    use std::fs;

    use party::error::StorageError;

    use super::*;

    //= NAME-2
    #[tokio::test]
    async fn a_primary_key_is_given_to_a_new_store_or_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(dir.path(), with_key(1)).await.unwrap();
        let feed = store.namespace("app").named_feed("log").await.unwrap();
        feed.append("first").await.unwrap();
        store.close().await;

        let refused = Store::open_with(dir.path(), with_key(2)).await.map(drop);
        assert!(matches!(refused, Err(Error::ApiMisuse(ApiMisuse::OtherPrimaryKey))), "{refused:?}");
        for options in [with_key(1), StoreOptions::default()] {
            let store = Store::open_with(dir.path(), options).await.unwrap();
            let again = store.namespace("app").feed_by_name("log").await.unwrap().unwrap();
            assert_eq!(again.key(), feed.key());
            again.append("more").await.unwrap();
            assert!(store.feed_by_name("log").await.unwrap().is_none());
            store.close().await;
        }
    }

    #[tokio::test]
    async fn a_random_primary_key_lasts() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let pair = store.create_key_pair("identity").await.unwrap();
        store.close().await;
        let store = Store::open(dir.path()).await.unwrap();
        assert_eq!(store.create_key_pair("identity").await.unwrap().public(), pair.public());
    }

    #[tokio::test]
    async fn a_lost_primary_key_is_named_and_can_be_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(dir.path(), with_key(1)).await.unwrap();
        store.named_feed("log").await.unwrap();
        let other = store.feed(&[7; 32].into()).await.unwrap().key();
        store.close().await;
        let file = dir.path().join("secrets").join("primary-key");
        for damaged in [None, Some(vec![0; 32]), Some(vec![1; 31])] {
            fs::remove_file(&file).unwrap();
            if let Some(bytes) = damaged {
                fs::write(&file, bytes).unwrap();
            }
            let store = Store::open(dir.path()).await.unwrap();
            // What needs no secret works.
            store.feed(&other).await.unwrap();
            assert_eq!(store.list().await.unwrap().len(), 2);
            for refused in [
                store.named_feed("log").await.map(drop),
                store.named_feed("new").await.map(drop),
                store.create_key_pair("log").await.map(drop),
            ] {
                assert!(
                    matches!(&refused, Err(Error::Storage(StorageError::Damaged { what })) if what.contains("primary key")),
                    "{refused:?}"
                );
            }
            store.close().await;
            let refused = Store::open_with(dir.path(), with_key(2)).await.map(drop);
            assert!(matches!(refused, Err(Error::ApiMisuse(ApiMisuse::OtherPrimaryKey))));
            Store::open_with(dir.path(), with_key(1)).await.unwrap().close().await;
            let store = Store::open(dir.path()).await.unwrap();
            store.named_feed("log").await.unwrap().append("mine again").await.unwrap();
            store.close().await;
        }
    }

    //= NAME-1
    #[cfg(unix)]
    #[tokio::test]
    async fn the_primary_key_is_for_the_owner_only_and_nowhere_else() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let key: [u8; 32] = std::array::from_fn(|n| n as u8 + 100);
        let store = Store::open_with(dir.path(), StoreOptions::default().primary_key(key)).await.unwrap();
        store.named_feed("log").await.unwrap();
        store.close().await;
        let file = dir.path().join("secrets").join("primary-key");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&file).unwrap(), key);
        crate::secrets::assert_only_in(&file, dir.path(), &key);
    }
}

#[tokio::test]
async fn feeds_that_others_help_to_sign_and_static_ones_are_kept_as_any_other() {
    let storage = Arc::new(MemoryStorage::default());
    let store = Store::with_storage(storage.clone());
    let (ours, theirs) = (KeyPair::from_seed(&[1; 32]), KeyPair::from_seed(&[2; 32]));
    let both = Manifest::builder().signers([ours.public(), theirs.public()]).quorum(2).build().unwrap();
    let blocks: Vec<bytes::Bytes> = vec!["never".into(), "changes".into()];
    let prologue = Prologue::of_blocks(&blocks).unwrap();
    let fixed = Manifest::builder().prologue(prologue).build().unwrap();

    let minutes = store.add_feed("minutes", Identity::signer(both.clone(), ours.clone())).await.unwrap();
    let draft = minutes.draft(vec!["we agree".into()]).await.unwrap();
    let parts = [draft.sign(&ours).unwrap(), draft.sign(&theirs).unwrap()];
    let signature = draft.assemble(&parts).unwrap();
    minutes.append_signed(draft, signature).await.unwrap();
    store.add_feed("constitution", Identity::from_manifest(fixed)).await.unwrap().fill(blocks).await.unwrap();
    store.add_feed("mine", Identity::legacy_writer(theirs.clone())).await.unwrap().append("x").await.unwrap();

    let again = store.add_feed("minutes", Identity::signer(both.clone(), theirs.clone())).await.unwrap_err();
    assert!(matches!(again, Error::ApiMisuse(ApiMisuse::NameTaken(_))));
    let again = store.add_feed("others", Identity::signer(both.clone(), ours)).await.unwrap_err();
    assert!(matches!(again, Error::ApiMisuse(ApiMisuse::FeedExists(_))));
    let stranger = Identity::signer(both, KeyPair::from_seed(&[3; 32]));
    let refused = store.add_feed("strange", stranger).await.unwrap_err();
    assert!(matches!(refused, Error::ApiMisuse(ApiMisuse::WrongManifest)));

    let store = Store::with_storage(storage);
    let writable: Vec<bool> =
        store.list_named("").await.unwrap().iter().map(|entry| entry.writable).collect();
    assert_eq!(writable, [false, true, false]); // constitution, mine, minutes
    let minutes = store.feed_by_name("minutes").await.unwrap().unwrap();
    assert_eq!(minutes.get(0).await.unwrap().unwrap(), "we agree");
    assert!(minutes.draft(vec!["again".into()]).await.is_ok());
    let fixed = store.feed_by_name("constitution").await.unwrap().unwrap();
    assert_eq!((fixed.info().length, fixed.get(1).await.unwrap()), (2, Some("changes".into())));
    assert_eq!(store.feed_by_name("mine").await.unwrap().unwrap().append("y").await.unwrap(), 1);
}
