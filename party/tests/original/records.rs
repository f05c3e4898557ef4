//! What the first Party remembered, and how: a test for each, under the name that it had when it was seen. `parties/map.rs` goes
//! further.

use crate::common::{Shared, identity, party_key};
use party::{
    error::{ApiMisuse, Error},
    party_map::PartyMap,
    store::{FeedOptions, Store},
};

#[tokio::test]
async fn keep_6_records_of_parties_survive_a_restart_with_rules_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    let map = PartyMap::new(&store, &identity(1));
    map.register("quiet", Shared::default()).await.unwrap();
    map.add("kitchen", &party_key(1), "quiet").await.unwrap();
    drop(map);
    store.close().await;

    let store = Store::open(folder.path()).await.unwrap();
    let map = PartyMap::new(&store, &identity(1));
    map.register("quiet", Shared::default()).await.unwrap();
    let loaded = map.load("*").await.unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].discovery_key(), party_key(1).discovery_key());
    assert_eq!(map.named("kitchen"), Some(loaded[0].clone()));
    assert_eq!(map.list().await.unwrap()[0].rules, "quiet");
    drop(map);
    store.close().await;
}

#[tokio::test]
async fn mend_the_same_name_overwrites_a_record() {
    let store = Store::memory();
    let map = PartyMap::new(&store, &identity(1));
    map.register("quiet", Shared::default()).await.unwrap();
    map.add("kitchen", &party_key(1), "quiet").await.unwrap();
    let again = map.add("kitchen", &party_key(2), "quiet").await;
    assert!(matches!(again, Err(Error::ApiMisuse(ApiMisuse::NameTaken(name))) if name == "kitchen"));
    assert_eq!(map.named("kitchen").unwrap().discovery_key(), party_key(1).discovery_key());
    assert_eq!(map.list().await.unwrap().len(), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn mend_secret_keys_are_stored_in_clear() {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    fn files(folder: &Path) -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    let map = PartyMap::new(&store, &identity(1));
    map.register("quiet", Shared::default()).await.unwrap();
    map.add("kitchen", &party_key(7), "quiet").await.unwrap();
    let seed = [9; 32];
    let options = FeedOptions::default().seed(seed);
    store.create_feed("mine", options).await.unwrap().append("block").await.unwrap();
    drop(map);
    store.close().await;

    // The party's key and the feed's seed are in files of their owner's, apart, and nowhere else.
    let mut found = 0;
    for file in files(folder.path()) {
        let bytes = fs::read(&file).unwrap();
        if bytes.windows(32).any(|window| window == party_key(7).as_bytes() || window == seed) {
            found += 1;
            assert_eq!(file.parent().unwrap(), folder.path().join("secrets"));
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
    assert_eq!(found, 2);
}
