//! A store on disk beside a plain model of it: whatever is made, adopted, written, purged, let go and opened
//! again, in whatever order, they agree.

use std::collections::{BTreeMap, BTreeSet};

use party::{
    error::{ApiMisuse, Error},
    feed::Feed,
    key::DiscoveryKey,
    store::{FeedEvent, FeedEvents, FeedOptions, Store, StoreOptions},
};
use proptest::prelude::*;

const NAMES: [&str; 3] = ["a", "b", ""];
const NAMESPACES: [&[&str]; 3] = [&[], &["x"], &["x", "y"]];

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Make or open the feed with this name in this namespace.
    Named(usize, usize),
    /// Make it, from a seed if there is one.
    Create(usize, usize, Option<u8>),
    /// Add the feed of this name by its key alone, to read.
    Add(usize, usize),
    Append(usize, u8),
    Purge(usize),
    /// Let go of a handle.
    Drop(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (0..NAMESPACES.len(), 0..NAMES.len());
    prop_oneof![
        4 => place().prop_map(|(space, name)| Step::Named(space, name)),
        2 => (place(), prop::option::of(0..3_u8)).prop_map(|((space, name), seed)| Step::Create(space, name, seed)),
        1 => place().prop_map(|(space, name)| Step::Add(space, name)),
        6 => (any::<prop::sample::Index>(), 1..4_u8).prop_map(|(n, blocks)| Step::Append(n.index(64), blocks)),
        2 => any::<prop::sample::Index>().prop_map(|n| Step::Purge(n.index(64))),
        3 => any::<prop::sample::Index>().prop_map(|n| Step::Drop(n.index(64))),
        1 => Just(Step::Restart),
    ]
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    /// Its place and name.
    name: Option<(usize, usize)>,
    writable: bool,
    blocks: Vec<String>,
}

struct World {
    dir: tempfile::TempDir,
    store: Store,
    events: FeedEvents,
    told: BTreeSet<DiscoveryKey>,
    model: BTreeMap<DiscoveryKey, Known>,
    held: Vec<Feed>,
    purged: Vec<Feed>,
    written: usize,
}

fn options() -> StoreOptions {
    StoreOptions::default().primary_key([7; 32])
}

fn within(store: &Store, space: usize) -> Store {
    NAMESPACES[space].iter().fold(store.clone(), |store, name| store.namespace(name))
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(dir.path(), options()).await.unwrap();
        let events = store.subscribe_feeds();
        Self {
            dir,
            store,
            events,
            told: BTreeSet::new(),
            model: BTreeMap::new(),
            held: vec![],
            purged: vec![],
            written: 0,
        }
    }

    fn is_taken(&self, place: (usize, usize)) -> bool {
        self.model.values().any(|known| known.name == Some(place))
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Named(space, name) => {
                let place = (space, name);
                let feed = match within(&self.store, space).named_feed(NAMES[name]).await {
                    Ok(feed) => feed,
                    Err(error) => panic!("{error}"),
                };
                if !self.is_taken(place) {
                    let known = self.model.entry(feed.discovery_key()).or_default();
                    assert_eq!(known.name, None);
                    (known.name, known.writable) = (Some(place), true);
                }
                assert_eq!(self.model[&feed.discovery_key()].name, Some(place));
                self.held.push(feed);
            }
            Step::Create(space, name, seed) => {
                let place = (space, name);
                let mut options = FeedOptions::default();
                if let Some(seed) = seed {
                    options = options.seed([seed; 32]);
                }
                match within(&self.store, space).create_feed(NAMES[name], options).await {
                    Ok(feed) => {
                        assert!(!self.is_taken(place));
                        let known = Known { name: Some(place), writable: true, blocks: vec![] };
                        assert_eq!(self.model.insert(feed.discovery_key(), known), None);
                        self.held.push(feed);
                    }
                    Err(Error::ApiMisuse(ApiMisuse::NameTaken(_))) => assert!(self.is_taken(place)),
                    Err(Error::ApiMisuse(ApiMisuse::FeedExists(key))) => {
                        assert!(!self.is_taken(place) && self.model.contains_key(&key));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Add(space, name) => {
                let elsewhere = within(&Store::memory_with(options()), space);
                let key = elsewhere.named_feed(NAMES[name]).await.unwrap().key();
                let feed = self.store.feed(&key).await.unwrap();
                self.model.entry(feed.discovery_key()).or_default();
                self.held.push(feed);
            }
            Step::Append(n, blocks) => {
                let Some(feed) = pick(&self.held, n).cloned() else { return };
                let known = self.model.get_mut(&feed.discovery_key()).unwrap();
                let texts: Vec<String> = (0..blocks).map(|n| format!("{} and {n}", self.written)).collect();
                self.written += 1;
                let appended = feed.append_batch(texts.iter().cloned().map(Into::into).collect()).await;
                assert_eq!(appended.is_ok(), known.writable);
                if appended.is_ok() {
                    known.blocks.extend(texts);
                }
            }
            Step::Purge(n) => {
                let keys: Vec<DiscoveryKey> = self.model.keys().copied().collect();
                let Some(key) = pick(&keys, n) else { return };
                assert!(self.store.purge(key).await.unwrap());
                self.model.remove(key);
                let (gone, held) = std::mem::take(&mut self.held)
                    .into_iter()
                    .partition::<Vec<_>, _>(|feed| feed.discovery_key() == *key);
                self.held = held;
                self.purged.extend(gone);
            }
            Step::Drop(n) => {
                if !self.held.is_empty() {
                    self.held.swap_remove(n % self.held.len());
                }
            }
            Step::Restart => {
                self.hear();
                self.held.clear();
                self.purged.clear();
                self.store.close().await;
                self.store = Store::open_with(self.dir.path(), options()).await.unwrap();
                self.events = self.store.subscribe_feeds();
            }
        }
    }

    /// Takes what was told of feeds that came and went.
    fn hear(&mut self) {
        use futures_util::FutureExt as _;
        while let Some(Some(event)) = self.events.next().now_or_never() {
            match event {
                FeedEvent::Added(entry) => assert!(self.told.insert(entry.discovery_key)),
                FeedEvent::Removed(entry) => assert!(self.told.remove(&entry.discovery_key)),
                _ => unreachable!(),
            }
        }
    }

    async fn check(&mut self) {
        let listed: BTreeMap<DiscoveryKey, (Option<String>, bool)> = self
            .store
            .list()
            .await
            .unwrap()
            .into_iter()
            .map(|entry| (entry.discovery_key, (entry.name, entry.writable)))
            .collect();
        let expected = self
            .model
            .iter()
            .map(|(key, known)| (*key, (known.name.map(|(_, name)| NAMES[name].to_owned()), known.writable)));
        assert_eq!(listed, expected.collect());
        for (key, known) in &self.model {
            let feed = self.store.feed_by_discovery_key(key).await.unwrap().unwrap();
            assert_eq!(feed.info().length, known.blocks.len() as u64);
            let found = feed.get_many((0..feed.info().length).collect()).await.unwrap();
            let found: Vec<_> = found.into_iter().map(Option::unwrap).collect();
            assert_eq!(found, known.blocks);
            if let Some((space, name)) = known.name {
                let by_name = within(&self.store, space).feed_by_name(NAMES[name]).await.unwrap().unwrap();
                assert_eq!(by_name.discovery_key(), *key);
            }
        }
        for feed in &self.purged {
            assert!(feed.is_purged() && feed.append("x").await.is_err());
        }
    }
}

fn pick<T>(from: &[T], n: usize) -> Option<&T> {
    from.get(n.checked_rem(from.len())?)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_store_does_what_its_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in steps {
                world.take(step).await;
                world.check().await;
            }
            world.hear();
            assert!(world.told.iter().eq(world.model.keys()));
        });
    }
}
