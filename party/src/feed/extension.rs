//! Messages of the app's own beside the replication of a feed, as Node's `registerExtension` has them.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{AsFeed as _, Feed, FeedPeer};
use crate::error::Error;

/// A name under which apps talk beside a feed. What peers say under it waits here until it is fetched; when this is
/// dropped, nobody listens any more.
///
/// Node's extensions encode what they send: by default with the length before it, and what they can't decode ends their
/// connection. Those that were registered with the encoding `binary` send and take bytes as they are here.
///
/// Messages are neither stored nor answered for: what is sent to a peer that goes away is lost. They arrive in the
/// order in which they were sent, and go between peers whose channel of the feed is open both ways. Of each peer
/// [`Limits::max_queued_extensions`](crate::limits::Limits::max_queued_extensions) wait at most, however many names
/// they are for; what comes then is dropped and
/// [counted](FeedPeer::dropped_extensions), so that a flood of one peer costs no other.
///
/// ```no_run
/// # async fn answer(feed: party::feed::Feed) -> Result<(), party::error::Error> {
/// let extension = feed.extension("cursor");
/// extension.broadcast("who is at block 7?");
/// while let Some((peer, message)) = extension.recv().await {
///     println!("{} says {message:?}", peer.remote_public_key());
///     extension.send(&peer, "thank you")?;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nobody listens when this is dropped"]
pub struct Extension {
    feed: Feed,
    name: Arc<str>,
    inbox: Arc<Inbox>,
}

impl Feed {
    /// Listens to the extension of this name, and speaks as it. Several may listen to one; each gets every message.
    /// The name is of 1 to [`Limits::max_extension_name`](crate::limits::Limits::max_extension_name) bytes.
    pub fn extension(&self, name: &str) -> Extension {
        let (name, inbox): (Arc<str>, _) = (name.into(), Arc::new(Inbox::default()));
        let mut list = self.lines().list();
        list.inboxes.retain(|(_, inbox)| inbox.strong_count() > 0);
        list.inboxes.push((name.clone(), Arc::downgrade(&inbox)));
        drop(list);
        Extension { feed: self.clone(), name, inbox }
    }
}

impl Extension {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The feed.
    pub fn feed(&self) -> &Feed {
        self.feed.as_feed()
    }

    /// The peers to whom something can be said at this moment: those with whom the feed is replicated, the channel being
    /// open both ways. Whether they listen isn't known.
    pub fn peers(&self) -> Vec<FeedPeer> {
        self.feed.open_lines()
    }

    /// Says something to one peer. It is queued and not waited for.
    ///
    /// # Errors
    /// [`Error::Closed`] if the peer's channel of this feed is;
    /// [`ApiMisuse::LimitExceeded`](crate::error::ApiMisuse::LimitExceeded) if the name or the message is too long, or
    /// too much waits for this peer already.
    pub fn send(&self, peer: &FeedPeer, message: impl Into<Bytes>) -> Result<(), Error> {
        if !self.peers().contains(peer) {
            return Err(Error::Closed);
        }
        peer.say(&self.name, message.into())
    }

    /// Says something to every peer with whom the feed is replicated. Returns for how many it was queued: not for
    /// those for whom [`send`](Self::send) would have failed.
    pub fn broadcast(&self, message: impl Into<Bytes>) -> usize {
        let message = message.into();
        self.peers().iter().filter(|peer| peer.say(&self.name, message.clone()).is_ok()).count()
    }

    /// Waits for the next message; `None` once the feed is purged. A caller that stops waiting loses nothing.
    pub async fn recv(&self) -> Option<(FeedPeer, Bytes)> {
        loop {
            let more = self.inbox.notify.notified();
            if let Some((peer, message)) = self.inbox.pop() {
                return Some((peer, message));
            }
            if self.feed.is_purged() {
                return None;
            }
            more.await;
        }
    }
}

impl fmt::Debug for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extension")
            .field("name", &self.name)
            .field("feed", &self.feed.discovery_key())
            .finish_non_exhaustive()
    }
}

/// What has come for one who listens.
#[derive(Default)]
pub(super) struct Inbox {
    queue: Mutex<VecDeque<(FeedPeer, Bytes)>>,
    notify: Notify,
}

impl Inbox {
    pub(super) fn put(&self, from: FeedPeer, message: Bytes) {
        self.queue().push_back((from, message));
        self.notify.notify_one();
    }

    pub(super) fn wake(&self) {
        self.notify.notify_waiters();
    }

    fn pop(&self) -> Option<(FeedPeer, Bytes)> {
        let (peer, message) = self.queue().pop_front()?;
        peer.release(&message);
        Some((peer, message))
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<(FeedPeer, Bytes)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        while let Some((peer, message)) = self.pop() {
            drop((peer, message));
        }
    }
}
