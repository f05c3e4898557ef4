//! Who replicates a feed, and how far they are.
//!
//! What happens to single blocks is counted and not told: at a hundred thousand blocks a second nobody could listen.
//! Who shows how fast it goes reads the counters now and then; what changes seldom - a peer that comes or goes, its
//! length, being in sync - is told, many changes as one.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Command, Peer};
use crate::{
    error::Error,
    feed::{AsFeed, Changes, Feed, Listener, Tally, Teller, Traffic},
    key::{DiscoveryKey, PublicKey},
    replication::{Counters, Status},
};

/// One feed, as it is replicated with one peer. Cheap to clone; keeping one keeps the feed, not the connection.
///
/// ```
/// # use party::{error::Error, feed::Feed};
/// # async fn example(feed: Feed) -> Result<(), Error> {
/// for link in feed.peers() {
///     let status = link.status();
///     println!("{}: {} of its {} blocks", link.remote_public_key(), status.counters.blocks_received, status.remote_length);
///     if status.remote_fork != feed.info().fork {
///         link.suspend();
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    feed: Feed,
    remote: PublicKey,
    /// Those in whose name it was released: one in each party, or the open mode.
    peers: Mutex<Vec<Peer>>,
    suspended: AtomicBool,
    /// In bytes a second; [`NO_LIMIT`] for none.
    upload_limit: AtomicU64,
    status: Mutex<LinkStatus>,
    tally: Tally,
}

const NO_LIMIT: u64 = u64::MAX;

/// Whether a [`Link`] is up.
///
/// ```
/// use party::{feed::Feed, peer::LinkState};
///
/// /// How many peers replicate a feed at this moment.
/// fn active(feed: &Feed) -> usize {
///     feed.peers().iter().filter(|link| link.status().state == LinkState::Open).count()
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// It was released, and no channel is open: the peer has not opened it, has closed or refused it.
    #[default]
    Down,
    /// We have opened a channel, or do so when it is its turn; the peer has not answered.
    Opening,
    /// It replicates.
    Open,
    /// It is released, but the rules allow nothing with it at the moment.
    Forbidden,
    /// It was closed for good on this connection, as the peer broke the protocol or our storage failed.
    Failed,
    /// It is over: the feed is released no more, or the connection has ended.
    Ended,
}

/// How a [`Link`] stands, as its connection saw it last. Read without asking the connection.
///
/// ```
/// use party::peer::{LinkState, LinkStatus};
///
/// let status = LinkStatus::default();
/// assert_eq!((status.state, status.remote_length), (LinkState::Down, 0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStatus {
    /// Whether it is up. While it is not, what is said of the remote is of before.
    pub state: LinkState,
    /// Whether it is suspended: here, for the whole feed, or for the whole connection.
    pub is_suspended: bool,
    /// Whether it is still to be found out if the remote makes the feed longer.
    pub is_updating: bool,
    /// Whether we have all that we want and the remote has.
    pub in_sync: bool,
    /// Whether the remote has all that we have, or doesn't want it, or can't get it.
    pub remote_in_sync: bool,
    /// Whether the remote has refused so many requests that it isn't asked any more.
    pub has_given_up: bool,
    /// The remote's length, as it says.
    pub remote_length: u64,
    /// The remote's fork, as it says.
    pub remote_fork: u64,
    /// How many blocks from 0 on the remote says to have without a gap.
    pub remote_contiguous_length: u64,
    /// Whether the remote says that it answers requests.
    pub remote_uploads: bool,
    /// Whether the remote says that it makes requests.
    pub remote_downloads: bool,
    /// Our requests that are not answered.
    pub waiting: usize,
    /// The remote's requests that are not answered.
    pub serving: usize,
    /// The usual time from a request to its answer on this connection, once there was one.
    pub round_trip: Option<Duration>,
    /// What has happened since the channel opened.
    pub counters: Counters,
}

impl Link {
    fn new(feed: &Feed, remote: PublicKey) -> Self {
        let inner = Inner {
            feed: feed.clone(),
            remote,
            peers: Mutex::default(),
            suspended: AtomicBool::new(false),
            upload_limit: AtomicU64::new(NO_LIMIT),
            // Till the connection has looked at it, it may be that there is more.
            status: Mutex::new(LinkStatus { is_updating: true, ..LinkStatus::default() }),
            tally: Tally::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The feed.
    pub fn feed(&self) -> &Feed {
        &self.inner.feed
    }

    /// The static key of the peer.
    pub fn remote_public_key(&self) -> PublicKey {
        self.inner.remote
    }

    /// The peer: one for each of the parties in which the feed was released to it on this connection, mostly one.
    pub fn peers(&self) -> Vec<Peer> {
        self.list().clone()
    }

    /// How it stands.
    pub fn status(&self) -> LinkStatus {
        *self.inner.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has come and gone since the feed was released to the peer, over one channel after the other.
    pub fn traffic(&self) -> Traffic {
        self.inner.tally.total()
    }

    /// Whether the remote says to have block `index`.
    ///
    /// # Errors
    /// [`Error::Closed`] if it is not [open](LinkState::Open).
    pub async fn has(&self, index: u64) -> Result<bool, Error> {
        let peer = self.list().first().cloned().ok_or(Error::Closed)?;
        let feed = self.inner.feed.discovery_key();
        peer.command(|_, reply| Command::Has { feed, index, reply }).await?
    }

    /// Makes a pause: asks the peer for nothing more, and lets its requests wait. What is under way ends. The
    /// channel stays open, and each side still hears what the other has. It may be called again and again.
    pub fn suspend(&self) {
        self.set_suspended(true);
    }

    /// Goes on where [`suspend`](Self::suspend) has stopped it.
    pub fn resume(&self) {
        self.set_suspended(false);
    }

    /// Sends blocks of this feed to this peer no faster than so many bytes a second from now on; `None` for as fast
    /// as it goes. Blocks are sent whole: a large one is made up for by a pause.
    pub fn limit_upload(&self, bytes_per_second: Option<u64>) {
        self.inner.upload_limit.store(bytes_per_second.unwrap_or(NO_LIMIT), Ordering::Release);
        self.inner.feed.stir();
    }

    pub(crate) fn upload_limit(&self) -> Option<u64> {
        Some(self.inner.upload_limit.load(Ordering::Acquire)).filter(|limit| *limit != NO_LIMIT)
    }

    fn set_suspended(&self, suspended: bool) {
        self.inner.suspended.store(suspended, Ordering::Release);
        self.inner.feed.stir();
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.inner.suspended.load(Ordering::Acquire)
    }

    fn list(&self) -> MutexGuard<'_, Vec<Peer>> {
        self.inner.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn downgrade(&self) -> WeakLink {
        WeakLink(Arc::downgrade(&self.inner))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("feed", &self.inner.feed.discovery_key())
            .field("remote", &self.inner.remote)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Feed {
    /// The peers that it is released to now, each with what is known of it.
    pub fn peers(&self) -> Vec<Link> {
        self.shared::<Links>().list().values().cloned().collect()
    }

    /// Says from now on when something has changed about its [`peers`](Self::peers): one has come or gone, or its
    /// [status](LinkStatus), but for counters, round trip and requests under way. Many changes may be told as one.
    pub fn subscribe_to_peers(&self) -> Changes {
        let links = self.shared::<Links>();
        let listener = links.changes();
        Changes::told_by(links, listener)
    }
}

/// The links of one feed.
#[derive(Default)]
pub(crate) struct Links {
    inner: Mutex<Numbered>,
    changes: OnceLock<Teller>,
}

type Numbered = BTreeMap<u64, Link>;

impl Links {
    pub(super) fn list(&self) -> MutexGuard<'_, Numbered> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> Listener {
        self.changes.get_or_init(Teller::default).subscribe()
    }

    fn tell(&self) {
        if let Some(changes) = self.changes.get() {
            changes.tell();
        }
    }
}

/// The connection's end of a [`Link`], which ends when this is dropped.
pub(crate) struct Linked {
    link: Link,
    links: Arc<Links>,
    number: u64,
    /// What was counted already of the channel's counters.
    counted: Counters,
}

impl Linked {
    pub(crate) fn new(feed: &Feed, remote: PublicKey) -> Self {
        let (link, links) = (Link::new(feed, remote), feed.shared::<Links>());
        let mut list = links.list();
        let number = list.last_key_value().map_or(0, |(last, _)| last + 1);
        list.insert(number, link.clone());
        drop(list);
        links.tell();
        Self { link, links, number, counted: Counters::default() }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn add_peer(&self, peer: &Peer) {
        self.link.list().push(peer.clone());
        let mut feeds = peer.feeds_by_key();
        feeds.retain(|_, link| link.0.strong_count() > 0);
        feeds.insert(self.link.inner.feed.discovery_key(), self.link.downgrade());
    }

    pub(crate) fn remove_peer(&self, peer: &Peer) {
        self.link.list().retain(|other| other != peer);
        peer.feeds_by_key().remove(&self.link.inner.feed.discovery_key());
    }

    /// There is no channel that anything could be said of but this.
    pub(crate) fn set_state(&mut self, state: LinkState, is_suspended: bool) {
        self.counted = Counters::default();
        let before = self.link.status();
        self.set(LinkStatus {
            state,
            is_suspended,
            is_updating: state == LinkState::Opening,
            waiting: 0,
            serving: 0,
            ..before
        });
    }

    /// The channel stands like this.
    pub(crate) fn set_open(&mut self, status: &Status, is_suspended: bool, round_trip: Option<Duration>) {
        let news = traffic(&status.counters) - traffic(&self.counted);
        if news != Traffic::default() {
            self.link.inner.tally.count(news);
            self.link.inner.feed.tally().count(news);
            self.link.list().iter().for_each(|peer| peer.tally().count(news));
        }
        self.counted = status.counters;
        self.set(LinkStatus {
            state: LinkState::Open,
            is_suspended,
            is_updating: status.is_updating,
            in_sync: status.in_sync,
            remote_in_sync: status.remote_in_sync,
            has_given_up: status.has_given_up,
            remote_length: status.remote_length,
            remote_fork: status.remote_fork,
            remote_contiguous_length: status.remote_contiguous_length,
            remote_uploads: status.remote_uploads,
            remote_downloads: status.remote_downloads,
            waiting: status.waiting,
            serving: status.serving,
            round_trip,
            counters: status.counters,
        });
    }

    fn set(&self, status: LinkStatus) {
        let mut place = self.link.inner.status.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *place, status);
        drop(place);
        // What changes with every block is not told.
        let told = LinkStatus {
            waiting: before.waiting,
            serving: before.serving,
            round_trip: before.round_trip,
            counters: before.counters,
            ..status
        };
        if told != before {
            self.links.tell();
        }
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.set_state(LinkState::Ended, false);
        self.links.list().remove(&self.number);
        self.links.tell();
    }
}

/// A link that isn't held: a peer remembers by it which feeds are released to it.
pub(crate) struct WeakLink(Weak<Inner>);

impl WeakLink {
    fn upgrade(&self) -> Option<Link> {
        let link = Link { inner: self.0.upgrade()? };
        (link.status().state != LinkState::Ended).then_some(link)
    }
}

fn traffic(counters: &Counters) -> Traffic {
    Traffic {
        blocks_received: counters.blocks_received,
        bytes_received: counters.bytes_received,
        blocks_sent: counters.blocks_sent,
        bytes_sent: counters.bytes_sent,
        invalid_proofs: counters.invalid_proofs,
        refused_by_remote: counters.refused_by_remote,
        refused_by_us: counters.refused_by_us,
    }
}

impl Peer {
    /// The feeds that are released to the peer now, each with what is known of it.
    pub fn feeds(&self) -> Vec<Link> {
        self.feeds_by_key().values().filter_map(WeakLink::upgrade).collect()
    }

    /// How a feed is replicated with the peer; `None` if it is not released to it.
    pub fn feed(&self, feed: &impl AsFeed) -> Option<Link> {
        self.feeds_by_key().get(&feed.as_feed().discovery_key()).and_then(WeakLink::upgrade)
    }

    pub(super) fn has_feed(&self, key: &DiscoveryKey) -> bool {
        self.feeds_by_key().get(key).and_then(WeakLink::upgrade).is_some()
    }

    /// [Suspends](Link::suspend) the replication of a feed with this peer. Returns whether it is released to it.
    pub fn suspend(&self, feed: &impl AsFeed) -> bool {
        self.feed(feed).inspect(Link::suspend).is_some()
    }

    /// [Resumes](Link::resume) it.
    pub fn resume(&self, feed: &impl AsFeed) -> bool {
        self.feed(feed).inspect(Link::resume).is_some()
    }

    /// What has come from the peer and gone to it, of all feeds.
    pub fn traffic(&self) -> Traffic {
        self.tally().total()
    }
}

pub(crate) type FeedsByKey = BTreeMap<DiscoveryKey, WeakLink>;
