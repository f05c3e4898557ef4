//! Many parties of one peer: remembered, ruled by name, joined as connections come.

use std::{future::IntoFuture as _, path::Path};

use crate::common::{Shared, identity, party_key, peer_added};
use party::{
    connection,
    error::{ApiMisuse, Error, StorageError},
    key::{DiscoveryKey, FeedKey, PartyKey},
    party::{Event, Party},
    party_map::{PartyMap, PartyMapEvent},
    peer::{Message, Peer},
    rules::{self, Rules, WholeStore},
    store::{FeedOptions, Store},
};

fn map(store: &Store, who: u8) -> PartyMap {
    PartyMap::new(store, &identity(who))
}

/// Answers each request with a text.
struct Says(&'static str);

impl Rules for Says {
    async fn handshake(&self, _: &Peer) -> rules::Result<()> {
        Ok(())
    }

    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(vec![])
    }

    async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<party::feed::Feed>> {
        Ok(None)
    }

    async fn request(&self, _: &Peer, message: Message) -> rules::Result<Message> {
        Ok(Message::new(&message.kind, self.0))
    }
}

fn keys(parties: &[Party]) -> Vec<DiscoveryKey> {
    parties.iter().map(Party::discovery_key).collect()
}

#[tokio::test]
async fn parties_are_remembered_by_the_store_and_loaded_by_pattern() {
    let folder = tempfile::tempdir().unwrap();
    let parties = [("home/kitchen", 1), ("home/garden", 2), ("work", 3)];
    let store = Store::open(folder.path()).await.unwrap();
    let before = map(&store, 1);
    before.register("say", Says("hello")).await.unwrap();
    for (name, key) in parties {
        let party = before.add(name, &party_key(key), "say").await.unwrap();
        assert_eq!(before.named(name), Some(party.clone()));
        assert_eq!(before.get(&party_key(key)), Some(party));
    }
    store.close().await;
    drop(before);

    let store = Store::open(folder.path()).await.unwrap();
    let after = map(&store, 1);
    let listed = after.list().await.unwrap();
    assert!(listed.len() == 3 && listed.iter().all(|entry| !entry.is_loaded && entry.rules == "say"));
    assert_eq!(after.find(&party_key(1).discovery_key()), None);
    after.register("say", Says("hello again")).await.unwrap();
    let home = after.load("home/*").await.unwrap();
    assert_eq!(home.len(), 2);
    assert_eq!((after.named("work"), after.loaded().len()), (None, 2));
    // What is loaded stays as it is.
    assert!(after.load("*").await.unwrap().iter().filter(|party| home.contains(party)).count() == 2);
    assert_eq!(keys(&after.loaded()), listed.iter().map(|entry| entry.discovery_key).collect::<Vec<_>>());

    assert!(after.remove(&party_key(3).discovery_key()).await.unwrap());
    assert!(!after.remove(&party_key(3).discovery_key()).await.unwrap());
    assert_eq!((after.named("work"), after.list().await.unwrap().len()), (None, 2));
    store.close().await;
    assert!(!names_below(&folder.path().join("secrets")).iter().any(|name| name.contains(&hex(3))));
}

fn hex(key: u8) -> String {
    party_key(key).discovery_key().to_string()
}

fn names_below(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

//= STORE-12
#[tokio::test]
async fn a_partys_key_is_kept_apart_in_a_file_of_its_owners() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    let parties = map(&store, 1);
    parties.register("say", Says("hello")).await.unwrap();
    parties.add("kitchen", &party_key(7), "say").await.unwrap();
    store.close().await;

    let secret = folder.path().join("secrets").join(format!("party-{}", hex(7)));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let with_key: Vec<_> = files(folder.path())
        .into_iter()
        .filter(|file| std::fs::read(file).unwrap().windows(32).any(|bytes| bytes == party_key(7).as_bytes()))
        .collect();
    assert_eq!(with_key, std::slice::from_ref(&secret));
    assert!(!format!("{parties:?}").contains(&party_key(7).to_hex()));

    // Without it, or with another in its place, the party is damaged, and never another one.
    for damage in [None, Some([8; 32])] {
        std::fs::remove_file(&secret).unwrap();
        damage.iter().for_each(|bytes| std::fs::write(&secret, bytes).unwrap());
        let store = Store::open(folder.path()).await.unwrap();
        let parties = map(&store, 1);
        parties.register("say", Says("hello")).await.unwrap();
        let error = parties.load("*").await.unwrap_err();
        assert!(matches!(error, Error::Storage(StorageError::Damaged { .. })), "{error:?}");
        store.close().await;
        std::fs::write(&secret, [9; 32]).unwrap();
    }
}

#[tokio::test]
async fn names_and_parties_are_unique_and_rules_must_be_known() {
    let store = Store::memory();
    let parties = map(&store, 1);
    parties.register("say", Says("hello")).await.unwrap();
    parties.add("kitchen", &party_key(1), "say").await.unwrap();
    let misuse = |result: Result<Party, Error>| match result {
        Err(Error::ApiMisuse(misuse)) => misuse,
        other => panic!("{other:?}"),
    };
    let again = parties.add("kitchen", &party_key(2), "say").await;
    assert_eq!(misuse(again), ApiMisuse::NameTaken("kitchen".into()));
    let again = parties.add("other", &party_key(1), "say").await;
    assert_eq!(misuse(again), ApiMisuse::PartyExists(party_key(1).discovery_key()));
    let unruled = parties.add("other", &party_key(2), "unheard").await;
    assert_eq!(misuse(unruled), ApiMisuse::UnknownRules("unheard".into()));
    let long = parties.add(&"n".repeat(1025), &party_key(2), "say").await;
    assert!(matches!(misuse(long), ApiMisuse::LimitExceeded(_)));
    assert_eq!(parties.list().await.unwrap().len(), 1);

    // Nor does anything happen by halves when they are loaded.
    parties.register("quiet", Says("")).await.unwrap();
    parties.add("garden", &party_key(3), "quiet").await.unwrap();
    let later = map(&store, 1);
    later.register("say", Says("hello")).await.unwrap();
    let error = later.load("*").await.unwrap_err();
    assert!(matches!(error, Error::ApiMisuse(ApiMisuse::UnknownRules(name)) if name == "quiet"));
    assert!(later.loaded().is_empty());
    assert_eq!(later.load("kitchen").await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_finds_its_party_by_itself_among_many() {
    let (serving, reading) = (Store::memory(), Store::memory());
    let feed = serving.create_feed("notes", FeedOptions::default()).await.unwrap();
    feed.append("a block").await.unwrap();
    let server = map(&serving, 1);
    server.register("nothing", Shared::default()).await.unwrap();
    server.register("all", WholeStore::new(serving.clone())).await.unwrap();
    for n in 1..=30 {
        server.add(&n.to_string(), &party_key(n), if n == 17 { "all" } else { "nothing" }).await.unwrap();
    }
    // The reader is in more parties, too, and dials knowing a discovery key alone.
    let reader = map(&reading, 2);
    reader.register("all", WholeStore::new(reading.clone())).await.unwrap();
    for n in [17, 18, 99] {
        reader.add(&n.to_string(), &party_key(n), "all").await.unwrap();
    }
    let (left, right) = connection::memory();
    let (dialled, accepted) = tokio::try_join!(
        reader.connect(left, &party_key(17).discovery_key()).unwrap().finite().into_future(),
        server.accept(right).into_future(),
    )
    .unwrap();
    dialled.closed().await.unwrap();
    accepted.closed().await.unwrap();
    let copy = reading.feed(&feed.key()).await.unwrap();
    assert_eq!(copy.get(0).await.unwrap().unwrap(), "a block");
    // Nobody was admitted to the other that both know.
    assert!(server.named("18").unwrap().peers().is_empty());

    let (left, _right) = connection::memory();
    let unknown = reader.connect(left, &party_key(5).discovery_key());
    assert!(matches!(unknown, Err(Error::ApiMisuse(ApiMisuse::UnknownParty))));
}

#[tokio::test(start_paused = true)]
async fn rules_that_are_replaced_decide_at_once_in_every_party_that_they_rule() {
    let (ours, theirs) = (map(&Store::memory(), 1), map(&Store::memory(), 2));
    ours.register("say", Says("old")).await.unwrap();
    ours.register("other", Says("other")).await.unwrap();
    ours.add("a", &party_key(1), "say").await.unwrap();
    ours.add("b", &party_key(2), "other").await.unwrap();
    theirs.register("ask", Says("")).await.unwrap();
    let mut peers = Vec::new();
    let mut connections = Vec::new();
    for n in [1, 2] {
        let asking = theirs.add(&n.to_string(), &party_key(n), "ask").await.unwrap();
        let mut events = asking.events();
        let (left, right) = connection::memory();
        let dialled = theirs.connect(left, &asking.discovery_key()).unwrap().into_future();
        connections.push(tokio::try_join!(dialled, ours.accept(right).into_future()).unwrap());
        peers.push(peer_added(&mut events).await);
    }
    let mut events = ours.events();
    for (registered, answers) in [(None, ["old", "other"]), (Some("new"), ["new", "other"])] {
        if let Some(text) = registered {
            ours.register("say", Says(text)).await.unwrap();
        }
        for (peer, answer) in peers.iter().zip(answers) {
            assert_eq!(peer.request("which?", &b""[..]).await.unwrap().value, answer);
        }
    }
    let changed = ours.named("a").unwrap();
    assert!(matches!(events.next().await, Some(PartyMapEvent::RulesChanged(party)) if party == changed));
    // One that is added later gets them, too.
    let late = ours.add("c", &party_key(3), "say").await.unwrap();
    assert!(matches!(events.next().await, Some(PartyMapEvent::Added(party)) if party == late));
    ours.remove(&late.discovery_key()).await.unwrap();
    assert!(matches!(events.next().await, Some(PartyMapEvent::Removed(key)) if key == late.discovery_key()));
}

#[tokio::test(start_paused = true)]
async fn who_knows_none_of_the_parties_is_refused_as_by_a_peer_in_none() {
    let (full, empty) = (map(&Store::memory(), 1), map(&Store::memory(), 2));
    full.register("say", Says("hello")).await.unwrap();
    full.add("a", &party_key(1), "say").await.unwrap();
    for server in [full, empty] {
        let (left, right) = connection::memory();
        let stranger = Party::new(PartyKey::from_bytes([99; 32]), Says(""));
        let dial = connection::Connection::dial(left, &identity(3)).join(&stranger);
        let (dialled, _accepted) =
            tokio::try_join!(dial.finite().into_future(), server.accept(right).into_future()).unwrap();
        assert!(matches!(dialled.closed().await, Err(Error::Refused)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_party_that_is_removed_lives_on_where_it_was_joined() {
    let (ours, theirs) = (map(&Store::memory(), 1), map(&Store::memory(), 2));
    ours.register("say", Says("still here")).await.unwrap();
    theirs.register("say", Says("")).await.unwrap();
    let (party, other) = (
        ours.add("a", &party_key(1), "say").await.unwrap(),
        theirs.add("a", &party_key(1), "say").await.unwrap(),
    );
    let (mut events, mut seen) = (other.events(), party.events());
    let (left, right) = connection::memory();
    let dialled = theirs.connect(left, &other.discovery_key()).unwrap().into_future();
    let _connections = tokio::try_join!(dialled, ours.accept(right).into_future()).unwrap();
    let peer = peer_added(&mut events).await;
    ours.remove(&party.discovery_key()).await.unwrap();
    assert_eq!(peer.request("?", &b""[..]).await.unwrap().value, "still here");
    assert!(matches!(seen.next().await, Some(Event::PeerAdded(_))));
    assert!(ours.loaded().is_empty());
}
