//! What the first Party did well, and where it failed: a test for each, under the name that it had when it was seen, so far as
//! it is about rules and feeds. `admission.rs` has those about who gets in, `messages.rs` those about what is
//! said, and `records.rs` those about what is kept.

use std::{
    future::IntoFuture as _,
    sync::{Arc, Mutex},
};

use crate::common::{Shared, feed_with, identity, meet, one_feed, party_key, peer_added, until};
use party::{
    connection::{self, Connection},
    error::{ApiMisuse, Error},
    feed::Feed,
    key::{DiscoveryKey, FeedKey},
    limits::Limits,
    party::{Event, Party},
    peer::{Message, Peer, Replicate},
    rules::{self, Rules, WholeStore},
    store::{FeedOptions, Store},
};

/// Everything that an app decides, in one value.
struct WholeBehaviour(Feed);

impl Rules for WholeBehaviour {
    async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
        peer.replicate(&self.0).await?;
        Ok(())
    }
    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(vec![self.0.key()])
    }
    async fn find_feed(&self, _: &Peer, key: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(Some(&self.0).filter(|feed| feed.discovery_key() == *key).cloned())
    }
    async fn request(&self, _: &Peer, message: Message) -> rules::Result<Message> {
        Ok(Message::new("answer", message.value))
    }
}

#[tokio::test(start_paused = true)]
async fn keep_1_one_value_decides_how_a_party_behaves() {
    let written = one_feed::written(3).await;
    let party = Party::new(party_key(1), WholeBehaviour(written.clone()));
    let read = one_feed::reader_of(&written).await;
    let reader = one_feed::party_of(&read, Replicate::fully());
    let mut events = reader.events();
    let _connections = meet(&reader, &party).await;
    let peer = peer_added(&mut events).await;
    assert_eq!(peer.introduce_feeds([]).await.unwrap(), [written.key()]);
    assert_eq!(peer.request("any", &b"thing"[..]).await.unwrap(), Message::new("answer", &b"thing"[..]));
    assert_eq!(read.fetch(2).await.unwrap(), one_feed::block(2));
}

#[tokio::test(start_paused = true)]
async fn keep_2_an_introduction_carries_keys_back() {
    let written = one_feed::written(1).await;
    let asking = Party::new(party_key(1), Shared::default());
    let mut events = asking.events();
    let told = Arc::new(Mutex::new(Vec::new()));
    let answering = Answering { told: told.clone(), with: written.clone() };
    let _connections = meet(&asking, &Party::new(party_key(1), answering)).await;
    let peer = peer_added(&mut events).await;
    let ours = [2, 1].map(|n| FeedKey::from_bytes([n; 32]));
    assert_eq!(peer.introduce_feeds(ours).await.unwrap(), [written.key()]);
    assert_eq!(*told.lock().unwrap(), ours);
}

/// Notes what it is told of, and has one feed to tell of.
struct Answering {
    told: Arc<Mutex<Vec<FeedKey>>>,
    with: Feed,
}

impl Rules for Answering {
    async fn handshake(&self, _: &Peer) -> rules::Result<()> {
        Ok(())
    }
    async fn introduce_feeds(&self, _: &Peer, keys: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        self.told.lock().unwrap().extend(keys);
        Ok(vec![self.with.key()])
    }
    async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(None)
    }
}

#[tokio::test(start_paused = true)]
async fn keep_3_replicating_twice_is_harmless_and_says_so() {
    let written = one_feed::written(1).await;
    let read = one_feed::reader_of(&written).await;
    let party = Party::new(party_key(1), Shared::default());
    let mut events = party.events();
    let _connections = meet(&party, &one_feed::party_of(&written, Replicate::sparsely())).await;
    let peer = peer_added(&mut events).await;
    assert!(peer.replicate(&read).await.unwrap());
    assert!(!peer.replicate(&read).await.unwrap());
    assert_eq!(read.fetch(0).await.unwrap(), one_feed::block(0));
}

#[tokio::test(start_paused = true)]
async fn keep_4_live_replication_follows_and_a_finite_one_ends_by_itself() {
    let written = one_feed::written(1).await;
    let (live, finite) = (one_feed::reader_of(&written).await, one_feed::reader_of(&written).await);
    let party = one_feed::party_of(&written, Replicate::fully());
    let _connections = meet(&one_feed::party_of(&live, Replicate::fully()), &party).await;
    assert_eq!(live.fetch(0).await.unwrap(), one_feed::block(0));
    written.append(one_feed::block(1)).await.unwrap();
    assert_eq!(live.fetch(1).await.unwrap(), one_feed::block(1));

    let (left, right) = connection::memory();
    let reader = one_feed::party_of(&finite, Replicate::fully());
    let (one, _other) = tokio::try_join!(
        Connection::dial(left, &identity(3)).join(&reader).finite().into_future(),
        Connection::accept(right, &identity(2)).join(&party).into_future(),
    )
    .unwrap();
    one.closed().await.unwrap();
    assert_eq!(finite.info().contiguous_length, 2);
}

#[tokio::test(start_paused = true)]
async fn keep_5_a_connection_finds_its_parties_by_itself() {
    // Who is dialled is in many, and isn't told which one it is about.
    let parties: Vec<_> = (1..=20).map(|n| Party::new(party_key(n), Shared::default())).collect();
    let dialling = Party::new(party_key(13), Shared::default());
    let (left, right) = connection::memory();
    let accepting = parties
        .iter()
        .fold(Connection::accept(right, &identity(2)), |accepting, party| accepting.join(party));
    let mut events = parties[12].events();
    let (_one, _other) = tokio::try_join!(
        Connection::dial(left, &identity(1)).join(&dialling).into_future(),
        accepting.into_future(),
    )
    .unwrap();
    peer_added(&mut events).await;
    assert_eq!(parties.iter().map(|party| party.peers().len()).sum::<usize>(), 1);
}

#[tokio::test(start_paused = true)]
async fn mend_default_rules_give_a_peer_of_party_2_the_feeds_of_party_1() {
    let (first, second) = (Store::memory(), Store::memory());
    let secret = feed_with(&first, "of party 1", &["secret"]).await;
    let open = feed_with(&second, "of party 2", &["for you"]).await;
    let (one, two) =
        (Party::new(party_key(1), WholeStore::new(first)), Party::new(party_key(2), WholeStore::new(second)));
    let shelf = Store::memory();
    let member = Party::new(party_key(2), WholeStore::new(shelf.clone()));
    let mut events = member.events();
    let (left, right) = connection::memory();
    let (_one, _other) = tokio::try_join!(
        Connection::dial(left, &identity(1)).join(&member).into_future(),
        Connection::accept(right, &identity(2)).join(&one).join(&two).into_future(),
    )
    .unwrap();
    let peer = peer_added(&mut events).await;
    assert_eq!(shelf.feed(&open.key()).await.unwrap().fetch(0).await.unwrap(), "for you");
    let wanted = Store::memory().feed(&secret.key()).await.unwrap();
    peer.replicate(&wanted).await.unwrap();
    until(&mut events, |event| {
        matches!(event, Event::FeedRefused { feed, .. } if feed == secret.discovery_key()).then_some(())
    })
    .await;
    assert_eq!(wanted.info().length, 0);
    assert!(!shelf.list().await.unwrap().iter().any(|entry| entry.key == secret.key()));
}

#[tokio::test(start_paused = true)]
async fn mend_two_parties_on_one_stream_both_get_every_message() {
    let ((first, second), (first_rules, second_rules)) = {
        let rules = (Shared::default(), Shared::default());
        ((Party::new(party_key(1), rules.0.clone()), Party::new(party_key(2), rules.1.clone())), rules)
    };
    let (one, two) =
        (Party::new(party_key(1), Shared::default()), Party::new(party_key(2), Shared::default()));
    let (mut in_one, mut in_two) = (one.events(), two.events());
    let (left, right) = connection::memory();
    let (_one, _other) = tokio::try_join!(
        Connection::dial(left, &identity(1)).join(&one).join(&two).into_future(),
        Connection::accept(right, &identity(2)).join(&first).join(&second).into_future(),
    )
    .unwrap();
    let (peer_in_one, peer_in_two) = (peer_added(&mut in_one).await, peer_added(&mut in_two).await);
    peer_in_one.send_ephemeral("to one", &b""[..]).await.unwrap();
    peer_in_two.send_ephemeral("to two", &b""[..]).await.unwrap();
    for peer in [peer_in_one, peer_in_two] {
        peer.request("done?", &b""[..]).await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_millis(1)).await; // virtual: everything that can run has run
    let kinds = |rules: &Shared| -> Vec<String> {
        rules.0.ephemeral.lock().unwrap().iter().map(|message| message.kind.clone()).collect()
    };
    assert_eq!(kinds(&first_rules), ["to one"]);
    assert_eq!(kinds(&second_rules), ["to two"]);
}

#[tokio::test(start_paused = true)]
async fn mend_more_than_256_feeds_destroy_the_stream() {
    let store = Store::memory();
    for n in 0..300 {
        store
            .create_feed(&format!("{n}"), FeedOptions::default())
            .await
            .unwrap()
            .append("block")
            .await
            .unwrap();
    }
    let shelf = Store::memory();
    let (left, right) = connection::memory();
    let (reader, writer) = (
        Party::new(party_key(1), WholeStore::new(shelf.clone())),
        Party::new(party_key(1), WholeStore::new(store)),
    );
    let (one, _other) = tokio::try_join!(
        Connection::dial(left, &identity(1)).join(&reader).finite().into_future(),
        Connection::accept(right, &identity(2)).join(&writer).into_future(),
    )
    .unwrap();
    one.closed().await.unwrap();
    let list = shelf.list().await.unwrap();
    assert_eq!(list.len(), 300);
    for entry in list {
        assert_eq!(shelf.feed(&entry.key).await.unwrap().info().contiguous_length, 1);
    }

    // Beyond the limit the call says no, by name, and the rest goes on.
    let party = Party::new(party_key(1), Shared::default());
    let mut events = party.events();
    let (left, right) = connection::memory();
    let limits = Limits { max_released_feeds: 2, ..Limits::default() };
    let (_one, _other) = tokio::try_join!(
        Connection::dial(left, &identity(1)).join(&party).limits(limits).into_future(),
        Connection::accept(right, &identity(2)).join(&writer).into_future(),
    )
    .unwrap();
    let peer = peer_added(&mut events).await;
    let feeds = shelf.list().await.unwrap();
    for (n, entry) in feeds.iter().take(4).enumerate() {
        let released = peer.release(&shelf.feed(&entry.key).await.unwrap()).await;
        match (n, released) {
            (0 | 1, Ok(true)) => {}
            (2 | 3, Err(Error::ApiMisuse(ApiMisuse::LimitExceeded("max_released_feeds")))) => {}
            (n, other) => panic!("{n}: {other:?}"),
        }
    }
    // What is taken back makes room.
    assert!(peer.withdraw(&shelf.feed(&feeds[0].key).await.unwrap()).await.unwrap());
    assert!(peer.release(&shelf.feed(&feeds[3].key).await.unwrap()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn mend_awaiting_replicates_one_by_one_in_non_live_mode_loses_data() {
    struct OneByOne(Vec<Feed>);
    impl Rules for OneByOne {
        async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
            for feed in &self.0 {
                peer.replicate(feed).await?;
                // The first could be in sync before the next is released.
                tokio::time::sleep(std::time::Duration::from_secs(2)).await; // virtual
            }
            Ok(())
        }
        async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
            Ok(vec![])
        }
        async fn find_feed(&self, _: &Peer, key: &DiscoveryKey) -> rules::Result<Option<Feed>> {
            Ok(self.0.iter().find(|feed| feed.discovery_key() == *key).cloned())
        }
    }
    let (store, shelf) = (Store::memory(), Store::memory());
    let (mut written, mut read) = (Vec::new(), Vec::new());
    for n in 0..5 {
        let feed = feed_with(&store, &format!("{n}"), &["a", "b"]).await;
        read.push(shelf.feed(&feed.key()).await.unwrap());
        written.push(feed);
    }
    let (writer, reader) =
        (Party::new(party_key(1), OneByOne(written)), Party::new(party_key(1), OneByOne(read.clone())));
    let (left, right) = connection::memory();
    let (one, other) = tokio::try_join!(
        Connection::dial(left, &identity(1)).join(&reader).finite().into_future(),
        Connection::accept(right, &identity(2)).join(&writer).finite().into_future(),
    )
    .unwrap();
    one.closed().await.unwrap();
    other.closed().await.unwrap();
    assert!(read.iter().all(|feed| feed.info().contiguous_length == 2));
}

#[tokio::test(start_paused = true)]
async fn mend_zero_feeds_or_too_large_an_expected_count_never_end() {
    // Neither has any; one has three that the other has never heard of, and waits for nothing.
    for feeds in [0, 3] {
        let store = Store::memory();
        let mut released = Vec::new();
        for n in 0..feeds {
            released.push(store.feed(&FeedKey::from_bytes([n; 32])).await.unwrap());
        }
        let (one, two) = (
            Party::new(party_key(1), Expects(released)),
            Party::new(party_key(1), WholeStore::new(Store::memory())),
        );
        let (left, right) = connection::memory();
        let (one, two) = tokio::try_join!(
            Connection::dial(left, &identity(1)).join(&one).finite().into_future(),
            Connection::accept(right, &identity(2)).join(&two).finite().into_future(),
        )
        .unwrap();
        one.closed().await.unwrap();
        two.closed().await.unwrap();
    }
}

/// Wants these feeds of whoever comes.
struct Expects(Vec<Feed>);

impl Rules for Expects {
    async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
        for feed in &self.0 {
            peer.replicate(feed).await?;
        }
        Ok(())
    }
    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(vec![])
    }
    async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(None)
    }
}

#[tokio::test(start_paused = true)]
async fn mend_set_rules_leaves_existing_parties_alone() {
    // What rules go by may change, and the rules themselves; either takes effect at once.
    let written = one_feed::written(5).await;
    let list = rules::AllowFeeds::new([]);
    let rules = one_feed::One(written.clone(), Replicate::sparsely()).guarded_by(list.clone());
    let party = Party::new(party_key(1), rules);
    let read = one_feed::reader_of(&written).await;
    let _connections = meet(&one_feed::party_of(&read, Replicate::sparsely()), &party).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await; // virtual
    assert_eq!(read.info().length, 0);
    list.insert(written.key());
    assert_eq!(party.reevaluate().await.started, 1);
    assert_eq!(read.fetch(4).await.unwrap(), one_feed::block(4));
    list.remove(&written.key());
    assert_eq!(party.reevaluate().await.stopped, 1);
    party.set_rules(one_feed::One(written.clone(), Replicate::sparsely()));
    assert_eq!(party.reevaluate().await.started, 1);
    assert_eq!(read.fetch(0).await.unwrap(), one_feed::block(0));
}
