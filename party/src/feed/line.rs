//! The peers with whom a feed is replicated, and what its app has for them.
//!
//! A connection holds a line for each feed whose channel is open both ways. What the app wants sent over it waits on the
//! line until the connection takes it; a [`Bell`] wakes the connection.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Feed, extension::Inbox};
use crate::{
    error::{ApiMisuse, Error},
    key::{DiscoveryKey, PublicKey},
    limits::Limits,
};

/// A peer with whom a feed is replicated, over one connection. Cheap to clone; keeping one doesn't keep the
/// connection. Two are equal if they stand for the same feed on the same connection.
///
/// ```no_run
/// # fn list(feed: party::feed::Feed) {
/// for peer in feed.extension("cursor").peers() {
///     println!("{} replicates the feed", peer.remote_public_key());
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct FeedPeer {
    line: Arc<Line>,
}

struct Line {
    remote: PublicKey,
    feed: DiscoveryKey,
    bounds: Bounds,
    bell: Arc<Bell>,
    traffic: Mutex<Traffic>,
}

/// What of [`Limits`] is for a line: there are many lines.
#[derive(Clone, Copy)]
struct Bounds {
    name: usize,
    message: usize,
    messages: usize,
    bytes: usize,
}

#[derive(Default)]
struct Traffic {
    is_closed: bool,
    errands: VecDeque<Errand>,
    /// Extension messages among them.
    leaving: Load,
    /// Extension messages that have come and that the app has not fetched.
    arrived: Load,
    dropped: u64,
}

/// So many messages and bytes.
#[derive(Default)]
struct Load {
    messages: usize,
    bytes: usize,
}

/// What an app wants done on a line.
pub(crate) enum Errand {
    /// A message of an extension.
    Say(Arc<str>, Bytes),
    /// Blocks to be pushed.
    Push(Range<u64>),
}

impl Feed {
    /// The peers with whom the feed is replicated at this moment, the channel being open both ways.
    pub(super) fn open_lines(&self) -> Vec<FeedPeer> {
        self.lines().list().lines.clone()
    }

    /// Pushes blocks that are stored here to every peer that [takes pushes](crate::peer::Replicate::allow_push)
    /// and lacks them, so that they needn't ask. What is more than
    /// [`Limits::max_queued_pushes`](crate::limits::Limits::max_queued_pushes) is left for them to ask for. Whether
    /// a peer has stored it is not told.
    ///
    /// ```no_run
    /// # async fn push(feed: party::feed::Feed) -> Result<(), party::error::Error> {
    /// let index = feed.append("news").await?;
    /// feed.push(index..index + 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn push(&self, blocks: Range<u64>) {
        for peer in self.open_lines() {
            peer.push(blocks.clone());
        }
    }
}

impl FeedPeer {
    pub(crate) fn new(remote: PublicKey, feed: DiscoveryKey, bell: Arc<Bell>, limits: &Limits) -> Self {
        let bounds = Bounds {
            name: limits.max_extension_name,
            message: limits.max_extension_message,
            messages: limits.max_queued_extensions,
            bytes: limits.max_queued_extension_bytes,
        };
        Self { line: Arc::new(Line { remote, feed, bounds, bell, traffic: Mutex::default() }) }
    }

    /// The static key that the peer proved to hold: who it is.
    pub fn remote_public_key(&self) -> PublicKey {
        self.line.remote
    }

    /// Whether the channel of the feed is still open.
    pub fn is_open(&self) -> bool {
        !self.traffic().is_closed
    }

    /// Messages of extensions that the peer has sent and that were dropped because the app did not fetch those
    /// before them.
    pub fn dropped_extensions(&self) -> u64 {
        self.traffic().dropped
    }

    /// Queues a message of an extension.
    pub(super) fn say(&self, name: &Arc<str>, message: Bytes) -> Result<(), Error> {
        let bounds = &self.line.bounds;
        if name.is_empty() || name.len() > bounds.name {
            return Err(ApiMisuse::LimitExceeded("max_extension_name").into());
        }
        if message.len() > bounds.message {
            return Err(ApiMisuse::LimitExceeded("max_extension_message").into());
        }
        let mut traffic = self.traffic();
        if traffic.is_closed {
            return Err(Error::Closed);
        }
        if !traffic.leaving.take(&message, bounds) {
            return Err(ApiMisuse::LimitExceeded("max_queued_extensions").into());
        }
        traffic.errands.push_back(Errand::Say(name.clone(), message));
        drop(traffic);
        self.line.bell.ring(self.line.feed);
        Ok(())
    }

    fn push(&self, blocks: Range<u64>) {
        let mut traffic = self.traffic();
        if traffic.is_closed || blocks.is_empty() {
            return;
        }
        // One that lags so far will ask for them.
        let has_room = traffic.errands.len() < self.line.bounds.messages.saturating_mul(2);
        // Blocks one by one are often neighbours.
        match traffic.errands.back_mut() {
            Some(Errand::Push(last)) if last.end == blocks.start => last.end = blocks.end,
            Some(Errand::Push(last)) if last.start <= blocks.start && blocks.end <= last.end => {}
            _ if has_room => traffic.errands.push_back(Errand::Push(blocks)),
            _ => return,
        }
        drop(traffic);
        self.line.bell.ring(self.line.feed);
    }

    fn next_errand(&self) -> Option<Errand> {
        let mut traffic = self.traffic();
        let errand = traffic.errands.pop_front()?;
        if let Errand::Say(_, message) = &errand {
            traffic.leaving.release(message);
        }
        Some(errand)
    }

    fn close(&self) {
        let mut traffic = self.traffic();
        traffic.is_closed = true;
        traffic.errands = VecDeque::new();
        traffic.leaving = Load::default();
    }

    /// Counts a message that has come and that an inbox keeps. Returns whether there is room for it.
    fn keep(&self, message: &Bytes) -> bool {
        let mut traffic = self.traffic();
        let kept = traffic.arrived.take(message, &self.line.bounds);
        traffic.dropped = traffic.dropped.saturating_add(u64::from(!kept));
        kept
    }

    /// A message that was kept is so no longer.
    pub(super) fn release(&self, message: &Bytes) {
        self.traffic().arrived.release(message);
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.line.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for FeedPeer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.line, &other.line)
    }
}

impl Eq for FeedPeer {}

impl fmt::Debug for FeedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedPeer")
            .field("remote", &self.line.remote)
            .field("feed", &self.line.feed)
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}

impl Load {
    fn take(&mut self, message: &Bytes, bounds: &Bounds) -> bool {
        let bytes = self.bytes.saturating_add(message.len());
        let fits = self.messages < bounds.messages && bytes <= bounds.bytes;
        if fits {
            (self.messages, self.bytes) = (self.messages + 1, bytes);
        }
        fits
    }

    fn release(&mut self, message: &Bytes) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(message.len());
    }
}

/// The open lines of a feed, and the extensions that its app listens to.
#[derive(Default)]
pub(crate) struct Lines(Mutex<List>);

#[derive(Default)]
pub(super) struct List {
    lines: Vec<FeedPeer>,
    pub(super) inboxes: Vec<(Arc<str>, Weak<Inbox>)>,
}

impl Lines {
    /// Gives a message to those who listen to the extension, if anybody does.
    fn deliver(&self, from: &FeedPeer, name: &str, message: &Bytes) {
        let inboxes: Vec<Arc<Inbox>> = {
            let list = self.list();
            let named = list.inboxes.iter().filter(|(other, _)| **other == *name);
            named.filter_map(|(_, inbox)| inbox.upgrade()).collect()
        };
        for inbox in inboxes {
            if from.keep(message) {
                inbox.put(from.clone(), message.clone());
            }
        }
    }

    /// Wakes those who listen: nothing more will come.
    pub(super) fn wake(&self) {
        let list = self.list();
        list.inboxes.iter().filter_map(|(_, inbox)| inbox.upgrade()).for_each(|inbox| inbox.wake());
    }

    /// Nothing panics while it holds the lock.
    pub(super) fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line that is open for as long as this is held.
pub(crate) struct OpenLine {
    feed: Feed,
    line: FeedPeer,
}

impl OpenLine {
    pub(crate) fn new(feed: &Feed, line: FeedPeer) -> Self {
        feed.lines().list().lines.push(line.clone());
        Self { feed: feed.clone(), line }
    }

    /// The next errand. The connection fetches it when it can carry it out.
    pub(crate) fn next_errand(&self) -> Option<Errand> {
        self.line.next_errand()
    }

    /// Gives a message of the peer's to those who listen.
    pub(crate) fn deliver(&self, name: &str, message: &Bytes) {
        self.feed.lines().deliver(&self.line, name, message);
    }
}

impl Drop for OpenLine {
    fn drop(&mut self) {
        self.line.close();
        self.feed.lines().list().lines.retain(|other| *other != self.line);
    }
}

/// Wakes a connection when an app has something for its lines.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<BTreeSet<DiscoveryKey>>,
    notify: Notify,
}

impl Bell {
    fn ring(&self, feed: DiscoveryKey) {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner).insert(feed);
        self.notify.notify_one();
    }

    /// Waits until there is something; the feeds that it is for.
    pub(crate) async fn rung(&self) -> BTreeSet<DiscoveryKey> {
        loop {
            let rung = std::mem::take(&mut *self.rung.lock().unwrap_or_else(PoisonError::into_inner));
            if !rung.is_empty() {
                return rung;
            }
            self.notify.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        feed::{Identity, memory::MemoryStorage, storage::Slot},
        key::KeyPair,
    };

    #[tokio::test]
    async fn so_many_pushes_wait_on_a_line_and_neighbours_count_as_one() {
        let identity = Identity::writer(KeyPair::from_seed(&[1; 32]));
        let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await.unwrap();
        let limits = Limits { max_queued_extensions: 2, ..Limits::default() };
        let remote = KeyPair::from_seed(&[2; 32]).public();
        let peer = FeedPeer::new(remote, feed.discovery_key(), Arc::default(), &limits);
        let line = OpenLine::new(&feed, peer);
        for start in [0, 10, 20, 30, 40, 50] {
            feed.push(start..start + 1);
        }
        // There is always room for what lies beside the last one, or in it.
        feed.push(31..33);
        feed.push(30..32);
        let waiting = std::iter::from_fn(|| line.next_errand()).map(|errand| match errand {
            Errand::Push(blocks) => blocks,
            Errand::Say(..) => panic!("nothing was said"),
        });
        assert_eq!(waiting.collect::<Vec<_>>(), [0..1, 10..11, 20..21, 30..33]);
        feed.push(60..61);
        assert!(line.next_errand().is_some(), "there is room again");
    }
}
