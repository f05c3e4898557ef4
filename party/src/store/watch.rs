//! Word of feeds that come, go and change.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;

use super::{FeedEntry, Store};
use crate::feed::{
    FeedChanges,
    mailbox::{Mailbox, Mailboxes},
};

/// A feed has come to a store, or has gone.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use party::store::{FeedEvent, Store};
///
/// let store = Store::memory();
/// let mut events = store.subscribe_feeds();
/// store.named_feed("log").await?;
/// match events.next().await {
///     Some(FeedEvent::Added(entry)) => assert_eq!(entry.name.as_deref(), Some("log")),
///     Some(FeedEvent::Removed(entry)) => println!("{} is gone", entry.discovery_key),
///     Some(_) => {} // there may be other kinds one day
///     None => println!("the store was closed"),
/// }
/// # Ok::<(), party::error::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeedEvent {
    /// It was made here, or added to be read from others.
    Added(FeedEntry),
    /// It was purged. The entry is as it was.
    Removed(FeedEntry),
}

impl Store {
    /// Tells of feeds that are added to the store or purged from now on, in whatever namespace. Ask it before
    /// you [`list`](Self::list), and none is missed.
    pub fn subscribe_feeds(&self) -> FeedEvents {
        FeedEvents { mailbox: self.inner.watchers.boxes.subscribe(), second: None }
    }

    /// Tells which of the store's feeds change from now on, with their latest figures: those that are appended
    /// to, truncated or cleared here, and those that peers bring.
    pub fn changes(&self) -> FeedChanges {
        self.inner.open.changes()
    }
}

/// Tells of feeds that are added to a store or purged; from [`Store::subscribe_feeds`].
///
/// However slowly it is asked, nothing is left out but feeds that have come and gone unseen. It is a [`Stream`],
/// too.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use party::store::{FeedEvent, Store};
///
/// let store = Store::memory();
/// let mut events = store.subscribe_feeds();
/// let feed = store.named_feed("log").await?;
/// let Some(FeedEvent::Added(entry)) = events.next().await else { unreachable!() };
/// assert_eq!(entry.key, feed.key());
///
/// store.purge(&feed.discovery_key()).await?;
/// assert_eq!(events.next().await, Some(FeedEvent::Removed(entry)));
/// # Ok::<(), party::error::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is told unless it is asked"]
pub struct FeedEvents {
    mailbox: Arc<Mailbox<Fate>>,
    second: Option<FeedEvent>,
}

impl FeedEvents {
    /// Waits for the next feed that is added or purged; `None` when the store is closed. Nothing is lost when
    /// this is dropped before it is done.
    pub async fn next(&mut self) -> Option<FeedEvent> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<FeedEvent>> {
        if let Some(event) = self.second.take() {
            return Poll::Ready(Some(event));
        }
        self.mailbox.poll_next(context).map(|fate| {
            let Fate { removed, added } = fate?;
            let added = added.map(FeedEvent::Added);
            match removed {
                Some(entry) => {
                    self.second = added;
                    Some(FeedEvent::Removed(entry))
                }
                None => added,
            }
        })
    }
}

impl Stream for FeedEvents {
    type Item = FeedEvent;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<FeedEvent>> {
        self.get_mut().poll(context)
    }
}

impl fmt::Debug for FeedEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedEvents").finish_non_exhaustive()
    }
}

/// What has become of one feed since that was told: it went, or came, or went and came anew.
#[derive(Default)]
struct Fate {
    removed: Option<FeedEntry>,
    added: Option<FeedEntry>,
}

impl Fate {
    fn then(self, event: &FeedEvent) -> Option<Self> {
        match event {
            FeedEvent::Added(entry) => Some(Self { added: Some(entry.clone()), ..self }),
            // Who has not heard of it need not hear that it went.
            FeedEvent::Removed(_) if self.added.is_some() => {
                self.removed.map(|entry| Self { removed: Some(entry), added: None })
            }
            FeedEvent::Removed(entry) => Some(Self { removed: Some(entry.clone()), added: None }),
        }
    }
}

/// Those who are told of feeds that come and go.
#[derive(Default)]
pub(super) struct Watchers {
    boxes: Mailboxes<Fate>,
}

impl Watchers {
    pub(super) fn tell(&self, event: FeedEvent) {
        let (FeedEvent::Added(entry) | FeedEvent::Removed(entry)) = &event;
        self.boxes.put(&entry.discovery_key, |fate| fate.unwrap_or_default().then(&event));
    }

    pub(super) fn close(&self) {
        self.boxes.close();
    }
}
