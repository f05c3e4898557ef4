//! What an app holds in its hands: a party with its rules, or rules for the open mode.

mod extension;
mod live;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use tokio::sync::{broadcast, mpsc};

pub use self::extension::Extension;
use self::extension::Listeners;
pub(crate) use self::extension::{has_room, kept};

use crate::{
    error::Error,
    feed::{Conflict, FeedChanges, changes::Reports},
    key::{DiscoveryKey, PartyKey, PublicKey},
    peer::{Command, Peer},
    rules::{self, Decision, ErasedRules, Rules},
};
pub use live::Reevaluated;

/// Events that a slow receiver may fall behind before it loses the oldest.
const EVENT_BACKLOG: usize = 1024;

/// A virtual space named by a key, and the rules that decide what its members get from us. Cheap to clone.
///
/// It does nothing by itself: connections [join](crate::connection::Connecting::join) it.
///
/// When the rules have changed their mind, [`reevaluate`](Self::reevaluate) makes it take effect on open connections, and
/// [`explain`](Self::explain) says what they decide and why.
#[derive(Clone, Debug)]
pub struct Party {
    key: PartyKey,
    hub: Arc<Hub>,
}

impl Party {
    /// The party with this key, ruled by `rules`.
    pub fn new(key: PartyKey, rules: impl Rules) -> Self {
        Self::with_erased_rules(key, Arc::new(rules))
    }

    pub(crate) fn with_erased_rules(key: PartyKey, rules: Arc<dyn ErasedRules>) -> Self {
        Self { key, hub: Hub::new(rules) }
    }

    /// Has everything decided by these rules from now on. What is being decided goes on under the old ones, and what they
    /// have released stays released: [`reevaluate`](Self::reevaluate) asks the new ones about it.
    pub fn set_rules(&self, rules: impl Rules) {
        self.hub.set_rules(Arc::new(rules));
    }

    /// The name under which its members find each other.
    pub fn discovery_key(&self) -> DiscoveryKey {
        self.key.discovery_key()
    }

    /// The peers that are admitted now.
    pub fn peers(&self) -> Vec<Peer> {
        self.hub.peers().clone()
    }

    /// What happens from now on.
    pub fn events(&self) -> Events {
        Events { receiver: self.hub.events.subscribe() }
    }

    /// Tells which feeds change from now on of those that are released to peers in this party while they are,
    /// with their latest figures: by what peers bring, and by what is done here.
    pub fn changes(&self) -> FeedChanges {
        self.hub.reports.subscribe()
    }

    pub(crate) fn key(&self) -> &PartyKey {
        &self.key
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }
}

/// Rules for connections without a party: peers that know no party key, Node's above all. Cheap to clone.
///
/// Whoever connects is let in front of the rules, which see [`Admission::Open`](crate::peer::Admission::Open)
/// and the peer's static key. It is an explicit choice for a connection and never a fallback.
#[derive(Clone, Debug)]
pub struct Open {
    hub: Arc<Hub>,
}

impl Open {
    /// Open mode, ruled by `rules`.
    pub fn new(rules: impl Rules) -> Self {
        Self { hub: Hub::new(Arc::new(rules)) }
    }

    /// The peers that are connected now.
    pub fn peers(&self) -> Vec<Peer> {
        self.hub.peers().clone()
    }

    /// What happens from now on.
    pub fn events(&self) -> Events {
        Events { receiver: self.hub.events.subscribe() }
    }

    /// Tells which feeds change from now on of those that are released to these peers while they are.
    pub fn changes(&self) -> FeedChanges {
        self.hub.reports.subscribe()
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }
}

/// Something that happened in a party or in open mode.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer was admitted.
    PeerAdded(Peer),
    /// Our [`handshake`](Rules::handshake) rule is over and has not denied.
    HandshakeDone(Peer),
    /// A peer is gone: it left, was denied, or the connection ended.
    PeerRemoved(Peer),
    /// A rule did not decide as it should, so it denied.
    RuleFailed {
        /// Whom it was about.
        peer: Peer,
        /// Which rule.
        rule: Rule,
        /// How.
        failure: RuleFailure,
    },
    /// The peer has told us of feeds, in a request or in the answer to one of ours. Which ones,
    /// [`Rules::introduce_feeds`] is told, or whoever [asked](Peer::introduce_feeds): the list may be long, and events are kept for who is
    /// slow to take them.
    FeedsIntroduced {
        /// Who has them, by its own account.
        peer: Peer,
        /// How many; all together, for those that it introduced before [`PeerAdded`](Self::PeerAdded). None, too, is an answer.
        count: usize,
    },
    /// A feed was released to the peer, by a rule or by the app, that was not before.
    FeedReleased {
        /// To whom.
        peer: Peer,
        /// Which feed.
        feed: DiscoveryKey,
    },
    /// The channel of a feed is open on both sides, capabilities verified.
    FeedOpened {
        /// With whom.
        peer: Peer,
        /// Which feed.
        feed: DiscoveryKey,
    },
    /// The peer refused a feed that we released to it. It may open it later of its own accord.
    FeedRefused {
        /// Who refused.
        peer: Peer,
        /// Which feed.
        feed: DiscoveryKey,
    },
    /// A feed that is released to the peer is not, or is no longer, allowed: its channel is closed, or is not opened.
    FeedForbidden {
        /// Whom it was released to.
        peer: Peer,
        /// Which feed.
        feed: DiscoveryKey,
        /// What was decided on [serving](rules::Action::Serve) it. The decisions on asking for it and accepting it are no yes, either.
        decision: Decision,
    },
    /// We have all that we want of a feed and the peer has, for now.
    FeedInSync {
        /// With whom.
        peer: Peer,
        /// Which feed.
        feed: DiscoveryKey,
    },
    /// The channel of a feed, or with `None` that of the party, was closed because the peer broke the
    /// protocol, or because our storage failed.
    ChannelFailed {
        /// With whom.
        peer: Peer,
        /// Which feed; `None` for the party itself.
        feed: Option<DiscoveryKey>,
        /// What was wrong.
        error: Error,
    },
    /// The feed's signers have signed two trees that exclude each other. It is not replicated any more, with anybody.
    /// Told once for each peer that it was replicated with.
    FeedConflict {
        /// With whom it was replicated; this peer need not have had a part in it.
        peer: Peer,
        /// Which feed.
        feed: DiscoveryKey,
        /// Where the two trees part.
        conflict: Conflict,
    },
    /// The receiver was too slow and has lost so many events.
    Missed(u64),
}

/// Which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// [`Rules::vet`].
    Vet,
    /// [`Rules::ready`].
    Ready,
    /// [`Rules::handshake`].
    Handshake,
    /// [`Rules::introduce_feeds`].
    IntroduceFeeds,
    /// [`Rules::find_feed`].
    FindFeed,
    /// [`Rules::request`].
    Request,
    /// [`Rules::ephemeral`].
    Ephemeral,
}

/// How a rule failed to decide.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleFailure {
    /// It returned an error.
    #[error("denied: {0}")]
    Denied(String),
    /// It panicked.
    #[error("the rule panicked: {0}")]
    Panicked(String),
    /// It took longer than [`Limits::rule_timeout`](crate::limits::Limits::rule_timeout).
    #[error("the rule took too long")]
    TimedOut,
    /// It answered a request with a message of a kind that begins with `party/`, and was not asked in one.
    #[error("an answer of the kind {0:?}, which is not the app's to send")]
    ReservedKind(String),
}

/// A stream of [`Event`]s.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Event>,
}

impl Events {
    /// The next event; `None` when the party is gone.
    pub async fn next(&mut self) -> Option<Event> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Event::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Two handles are equal if they are of the same party, under the same rules.
impl PartialEq for Party {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.hub, &other.hub)
    }
}

impl Eq for Party {}

/// What a party's connections share.
pub(crate) struct Hub {
    rules: RwLock<Arc<dyn ErasedRules>>,
    events: broadcast::Sender<Event>,
    peers: Mutex<Vec<Peer>>,
    listeners: Listeners,
    /// Those that have joined, whether or not the remote is admitted: who is at the other end, and how to reach it.
    connections: Mutex<BTreeMap<u64, (PublicKey, mpsc::Sender<Command>)>>,
    /// Who is kept out.
    removed: Mutex<BTreeSet<PublicKey>>,
    /// What the feeds report that are released to peers.
    pub(crate) reports: Arc<Reports>,
}

impl Hub {
    fn new(rules: Arc<dyn ErasedRules>) -> Arc<Self> {
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        Arc::new(Self {
            rules: RwLock::new(rules),
            events,
            peers: Mutex::default(),
            listeners: Listeners::default(),
            connections: Mutex::default(),
            removed: Mutex::default(),
            reports: Arc::default(),
        })
    }

    pub(crate) fn rules(&self) -> Arc<dyn ErasedRules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_rules(&self, rules: Arc<dyn ErasedRules>) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    pub(crate) fn add_peer(&self, peer: &Peer) {
        self.peers().push(peer.clone());
        self.tell(Event::PeerAdded(peer.clone()));
    }

    pub(crate) fn remove_peer(&self, peer: &Peer) {
        self.peers().retain(|other| other != peer);
        peer.leave();
        self.tell(Event::PeerRemoved(peer.clone()));
    }

    /// A connection has joined.
    pub(crate) fn add_connection(&self, number: u64, remote: PublicKey, commands: mpsc::Sender<Command>) {
        lock(&self.connections).insert(number, (remote, commands));
    }

    pub(crate) fn remove_connection(&self, number: u64) {
        lock(&self.connections).remove(&number);
    }

    pub(crate) fn is_removed(&self, peer: &PublicKey) -> bool {
        lock(&self.removed).contains(peer)
    }

    /// Whether a peer may be here at all.
    pub(crate) fn admit(&self, peer: &Peer) -> Decision {
        if self.is_removed(&peer.remote_public_key()) {
            return Decision::deny("remove_peer", "the peer was removed, and not readmitted");
        }
        rules::admit(&*self.rules(), peer)
    }

    pub(crate) fn tell(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    fn peers(&self) -> MutexGuard<'_, Vec<Peer>> {
        lock(&self.peers)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("peers", &self.peers()).finish_non_exhaustive()
    }
}
