//! One stream of changes for many feeds: all of a store, or all that a party's peers replicate.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::Stream;

use super::{
    handle::Feed,
    mailbox::{Mailbox, Mailboxes},
};
use crate::key::{DiscoveryKey, FeedKey};

/// A feed has grown, was truncated, or has blocks here that it hadn't or had: its figures after that.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use party::store::Store;
///
/// let store = Store::memory();
/// let mut changes = store.changes();
/// let feed = store.named_feed("log").await?;
/// feed.append_batch(vec!["a".into(), "b".into()]).await?;
/// feed.clear(1..2).await?;
///
/// let change = changes.next().await.expect("the store is open");
/// assert_eq!(change.key, feed.key());
/// assert_eq!((change.length, change.contiguous_length, change.fork), (2, 1, 0));
/// # Ok::<(), party::error::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedChange {
    /// The feed's key.
    pub key: FeedKey,
    /// Its discovery key.
    pub discovery_key: DiscoveryKey,
    /// The fork; it grows with every truncation.
    pub fork: u64,
    /// Blocks of the signed tree, stored here or not.
    pub length: u64,
    /// Blocks stored here without a gap from the first.
    pub contiguous_length: u64,
}

/// Tells which feeds change, from [`Store::changes`](crate::store::Store::changes) or
/// [`Party::changes`](crate::party::Party::changes).
///
/// However slowly it is asked, it gives each feed that has changed since it was told last once, with its
/// latest figures, in the order in which they began to change. So it needs memory for so many feeds at most, and
/// what it leaves out is only what was overtaken. It is a [`Stream`], too.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use party::store::Store;
///
/// let store = Store::memory();
/// let mut changes = store.changes();
/// let (log, notes) = (store.named_feed("log").await?, store.named_feed("notes").await?);
/// for n in 0..100 {
///     log.append(format!("line {n}")).await?;
/// }
/// notes.append("a note").await?;
///
/// let change = changes.next().await.expect("the store is open");
/// assert_eq!((change.key, change.length), (log.key(), 100));
/// let change = changes.next().await.expect("the store is open");
/// assert_eq!((change.key, change.length), (notes.key(), 1));
/// # Ok::<(), party::error::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is told unless it is asked"]
pub struct FeedChanges {
    mailbox: Arc<Mailbox<FeedChange>>,
}

impl FeedChanges {
    /// Waits for the next feed that has changed; `None` when the store is closed, or the party gone. Nothing is
    /// lost when this is dropped before it is done.
    pub async fn next(&mut self) -> Option<FeedChange> {
        poll_fn(|context| self.mailbox.poll_next(context)).await
    }
}

impl Stream for FeedChanges {
    type Item = FeedChange;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<FeedChange>> {
        self.mailbox.poll_next(context)
    }
}

impl fmt::Debug for FeedChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedChanges").finish_non_exhaustive()
    }
}

/// Where changes of many feeds come together.
#[derive(Default)]
pub(crate) struct Reports {
    boxes: Mailboxes<FeedChange>,
}

impl Reports {
    pub(crate) fn subscribe(&self) -> FeedChanges {
        FeedChanges { mailbox: self.boxes.subscribe() }
    }

    pub(crate) fn tell(&self, change: &FeedChange) {
        self.boxes.put(&change.discovery_key, |_| Some(*change));
    }

    /// Takes back what was told of a feed that is no more.
    pub(crate) fn retract(&self, feed: &DiscoveryKey) {
        self.boxes.put(feed, |_| None);
    }

    pub(crate) fn close(&self) {
        self.boxes.close();
    }
}

/// Those to whom one feed reports beside the store that it is of, and how often each has asked for it.
#[derive(Default)]
pub(crate) struct Followers(Mutex<Vec<(Arc<Reports>, usize)>>);

impl Followers {
    pub(crate) fn each(&self, tell: impl Fn(&Reports)) {
        self.list().iter().for_each(|(reports, _)| tell(reports));
    }

    fn list(&self) -> MutexGuard<'_, Vec<(Arc<Reports>, usize)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For as long as it is held, a feed reports its changes.
pub(crate) struct Following {
    feed: Feed,
    reports: Arc<Reports>,
}

impl Following {
    pub(crate) fn new(feed: &Feed, reports: &Arc<Reports>) -> Self {
        let mut list = feed.followers().list();
        match list.iter_mut().find(|(other, _)| Arc::ptr_eq(other, reports)) {
            Some((_, times)) => *times += 1,
            None => list.push((reports.clone(), 1)),
        }
        drop(list);
        Self { feed: feed.clone(), reports: reports.clone() }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut list = self.feed.followers().list();
        let Some(at) = list.iter().position(|(other, _)| Arc::ptr_eq(other, &self.reports)) else { return };
        let Some((_, times)) = list.get_mut(at) else { return };
        *times -= 1;
        if *times == 0 {
            list.swap_remove(at);
        }
    }
}
