//! Many parties of one peer: kept in a store, ruled by name, joined as connections come.

mod pattern;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::broadcast,
};

use self::pattern::matches;
use crate::{
    connection::{Connecting, Connection},
    error::{ApiMisuse, Error},
    key::{DiscoveryKey, KeyPair, PartyKey},
    party::Party,
    rules::{ErasedRules, Rules},
    store::{
        Store,
        parties::{MAX_NAME, PartyRecord},
    },
};

/// Events that a slow receiver may fall behind before it loses the oldest.
const EVENT_BACKLOG: usize = 256;

/// The parties of a peer. Cheap to clone: every clone is the same map.
///
/// Rules are [registered](Self::register) under names by the app, each time that it starts. Parties are
/// [added](Self::add) once, under a name of their own and with the name of their rules, and are remembered in the store:
/// the key among its secrets, everything else beside its feeds. After a restart they are [loaded](Self::load), all or some.
/// Connections [accepted](Self::accept) are for all parties that are loaded; which of them the remote is a member of shows
/// by itself. Whom we dial is [told](Self::connect) of one only.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use party::{key::{KeyPair, PartyKey}, party_map::PartyMap, rules::WholeStore, store::Store};
///
/// let store = Store::memory(); // or `Store::open`
/// let (key, _founder) = PartyKey::generate();
/// let parties = PartyMap::new(&store, &KeyPair::generate());
/// parties.register("share-all", WholeStore::new(store.clone())).await?;
/// let kitchen = parties.add("kitchen", &key, "share-all").await?;
/// assert_eq!(parties.find(&key.discovery_key()).unwrap(), kitchen);
///
/// // After a restart, with the same store:
/// let parties = PartyMap::new(&store, &KeyPair::generate());
/// parties.register("share-all", WholeStore::new(store.clone())).await?;
/// assert_eq!(parties.load("kit*").await?.len(), 1);
/// # Ok::<(), party::error::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PartyMap {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    key_pair: KeyPair,
    /// Locked while records are read and written and what follows from them is done, so that what is loaded is what the
    /// store remembers.
    changing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    events: broadcast::Sender<PartyMapEvent>,
}

#[derive(Default)]
struct State {
    rules: BTreeMap<String, Arc<dyn ErasedRules>>,
    loaded: BTreeMap<DiscoveryKey, Loaded>,
}

struct Loaded {
    party: Party,
    name: String,
    rules: String,
}

/// A party that a [`PartyMap`] remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartyEntry {
    /// Its discovery key.
    pub discovery_key: DiscoveryKey,
    /// What it is called here.
    pub name: String,
    /// The name of its rules.
    pub rules: String,
    /// Whether it is loaded.
    pub is_loaded: bool,
}

/// Something that has happened to a [`PartyMap`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PartyMapEvent {
    /// A party was added, and is loaded.
    Added(Party),
    /// A party that was remembered is loaded.
    Loaded(Party),
    /// A party was removed, and is forgotten.
    Removed(DiscoveryKey),
    /// A party is ruled by other rules now.
    RulesChanged(Party),
    /// The receiver was too slow and has lost so many events.
    Missed(u64),
}

/// A stream of [`PartyMapEvent`]s; from [`PartyMap::events`].
#[derive(Debug)]
pub struct PartyMapEvents {
    receiver: broadcast::Receiver<PartyMapEvent>,
}

impl PartyMapEvents {
    /// The next event; `None` when the map is gone.
    pub async fn next(&mut self) -> Option<PartyMapEvent> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(PartyMapEvent::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl PartyMap {
    /// The parties that `store` remembers, none of them loaded yet. `key_pair` is who we are on their connections.
    pub fn new(store: &Store, key_pair: &KeyPair) -> Self {
        let inner = Inner {
            store: store.clone(),
            key_pair: key_pair.clone(),
            changing: tokio::sync::Mutex::default(),
            state: Mutex::default(),
            events: broadcast::channel(EVENT_BACKLOG).0,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Registers rules under a name. If there are rules of this name already, they are replaced, in every party that they
    /// rule, at once: whatever is to be decided from now on is decided by the new ones, and what the old ones have released
    /// and the new ones do not allow [has stopped](Party::reevaluate) when this returns.
    ///
    /// # Errors
    /// [`ApiMisuse::LimitExceeded`] for a name longer than 1,024 bytes.
    pub async fn register(&self, name: &str, rules: impl Rules) -> Result<(), Error> {
        check_name(name)?;
        let rules: Arc<dyn ErasedRules> = Arc::new(rules);
        let ruled: Vec<Party> = {
            let mut state = self.inner.state();
            state.rules.insert(name.to_owned(), rules.clone());
            let ruled = state.loaded.values().filter(|loaded| loaded.rules == name);
            ruled.map(|loaded| loaded.party.clone()).collect()
        };
        for party in ruled {
            party.hub().set_rules(rules.clone());
            party.reevaluate().await;
            self.inner.tell(PartyMapEvent::RulesChanged(party));
        }
        Ok(())
    }

    /// Adds a party under a name, ruled by the rules that are registered as `rules`. It is remembered, and loaded.
    ///
    /// # Errors
    /// [`ApiMisuse::NameTaken`]; [`ApiMisuse::PartyExists`]; [`ApiMisuse::UnknownRules`]; [`ApiMisuse::LimitExceeded`] for a
    /// name longer than 1,024 bytes; [`Error::Storage`]. Nothing has changed then.
    pub async fn add(&self, name: &str, key: &PartyKey, rules: &str) -> Result<Party, Error> {
        check_name(name)?;
        let _changing = self.inner.changing.lock().await;
        self.inner.rules(rules)?;
        self.inner.store.add_party(key, name, rules).await?;
        let discovery_key = key.discovery_key();
        let record = PartyRecord { discovery_key, name: name.to_owned(), rules: rules.to_owned() };
        let party = self.inner.load(record, *key)?;
        self.inner.tell(PartyMapEvent::Added(party.clone()));
        Ok(party)
    }

    /// Loads the parties that are remembered and whose names match `pattern`, in which `*` stands for any characters and
    /// `?` for one. Returns those that match, also if they were loaded before, by their discovery keys.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownRules`] if nobody has registered the rules of one of them, in which case none is loaded;
    /// [`Error::Storage`], which names a key that is missing.
    pub async fn load(&self, pattern: &str) -> Result<Vec<Party>, Error> {
        let _changing = self.inner.changing.lock().await;
        let records = self.inner.store.party_records().await?;
        let wanted: Vec<_> = records.into_iter().filter(|record| matches(pattern, &record.name)).collect();
        for record in &wanted {
            self.inner.rules(&record.rules)?;
        }
        let mut parties = Vec::with_capacity(wanted.len());
        for record in wanted {
            if let Some(party) = self.find(&record.discovery_key) {
                parties.push(party);
                continue;
            }
            let key = self.inner.store.party_key(&record.discovery_key).await?;
            let party = self.inner.load(record, key)?;
            self.inner.tell(PartyMapEvent::Loaded(party.clone()));
            parties.push(party);
        }
        Ok(parties)
    }

    /// Forgets a party and its key. Returns whether it was here. Connections that are up stay in it until they end or
    /// [leave](Connection::leave) it.
    ///
    /// # Errors
    /// [`Error::Storage`]; it is as it was then.
    pub async fn remove(&self, discovery_key: &DiscoveryKey) -> Result<bool, Error> {
        let _changing = self.inner.changing.lock().await;
        let was_here = self.inner.store.remove_party(discovery_key).await?;
        self.inner.state().loaded.remove(discovery_key);
        if was_here {
            self.inner.tell(PartyMapEvent::Removed(*discovery_key));
        }
        Ok(was_here)
    }

    /// The parties that are remembered, loaded or not, by their discovery keys.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn list(&self) -> Result<Vec<PartyEntry>, Error> {
        let records = self.inner.store.party_records().await?;
        let state = self.inner.state();
        let entries = records.into_iter().map(|PartyRecord { discovery_key, name, rules }| PartyEntry {
            is_loaded: state.loaded.contains_key(&discovery_key),
            discovery_key,
            name,
            rules,
        });
        Ok(entries.collect())
    }

    /// The loaded party with this discovery key.
    pub fn find(&self, discovery_key: &DiscoveryKey) -> Option<Party> {
        self.inner.state().loaded.get(discovery_key).map(|loaded| loaded.party.clone())
    }

    /// The loaded party with this key.
    pub fn get(&self, key: &PartyKey) -> Option<Party> {
        self.find(&key.discovery_key())
    }

    /// The loaded party that is called so here.
    pub fn named(&self, name: &str) -> Option<Party> {
        let state = self.inner.state();
        state.loaded.values().find(|loaded| loaded.name == name).map(|loaded| loaded.party.clone())
    }

    /// The loaded parties, by their discovery keys.
    pub fn loaded(&self) -> Vec<Party> {
        self.inner.state().loaded.values().map(|loaded| loaded.party.clone()).collect()
    }

    /// What happens from now on.
    pub fn events(&self) -> PartyMapEvents {
        PartyMapEvents { receiver: self.inner.events.subscribe() }
    }

    /// A connection that somebody else has started, for all parties that are loaded: the remote shows by itself of which it
    /// knows. It ends as if we were in none if it knows none of them. One that is loaded later it can
    /// [join](Connection::join). There may be
    /// [`Limits::max_parties`](crate::limits::Limits::max_parties) of them.
    pub fn accept<Io>(&self, io: Io) -> Connecting<Io>
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let connecting = Connection::accept(io, &self.inner.key_pair);
        self.loaded().iter().fold(connecting, Connecting::join)
    }

    /// A connection that we start, for the loaded party with this discovery key. The remote hears of no other.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownParty`] if it is not loaded.
    pub fn connect<Io>(&self, io: Io, discovery_key: &DiscoveryKey) -> Result<Connecting<Io>, Error>
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let party = self.find(discovery_key).ok_or(ApiMisuse::UnknownParty)?;
        Ok(Connection::dial(io, &self.inner.key_pair).join(&party))
    }
}

impl fmt::Debug for PartyMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.state();
        let names: Vec<&str> = state.loaded.values().map(|loaded| loaded.name.as_str()).collect();
        f.debug_struct("PartyMap").field("loaded", &names).finish_non_exhaustive()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules(&self, name: &str) -> Result<Arc<dyn ErasedRules>, Error> {
        let rules = self.state().rules.get(name).cloned();
        Ok(rules.ok_or_else(|| ApiMisuse::UnknownRules(name.to_owned()))?)
    }

    /// With `changing` held.
    fn load(&self, record: PartyRecord, key: PartyKey) -> Result<Party, Error> {
        let PartyRecord { discovery_key, name, rules } = record;
        let mut state = self.state();
        // They may be replaced until it is among the loaded ones, but not taken away.
        let ruled_by = state.rules.get(&rules).cloned();
        let ruled_by = ruled_by.ok_or_else(|| ApiMisuse::UnknownRules(rules.clone()))?;
        let party = Party::with_erased_rules(key, ruled_by);
        state.loaded.insert(discovery_key, Loaded { party: party.clone(), name, rules });
        Ok(party)
    }

    fn tell(&self, event: PartyMapEvent) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }
}

fn check_name(name: &str) -> Result<(), ApiMisuse> {
    if name.len() > MAX_NAME { Err(ApiMisuse::LimitExceeded("the longest name")) } else { Ok(()) }
}
