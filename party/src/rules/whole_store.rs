//! Ready-made rules: everything in one store, with everybody who gets in.

use futures_util::FutureExt as _;

use super::{Action, Denied, Result, Rules};
use crate::{
    feed::Feed,
    key::{DiscoveryKey, FeedKey},
    peer::{Admission, Peer, Replicate},
    store::{FeedEntry, FeedEvent, FeedEvents, Store},
};

/// Feeds that are taken from peers before more are refused.
const DEFAULT_MAX_FEEDS: usize = 1024;
/// Feeds that were added while a peer was connected, brought to it at a time.
const BRING_AT_ONCE: usize = 256;

/// Shares a whole store.
///
/// In a party, every feed of the store is introduced to every member, and what they introduce is added to
/// the store and replicated, up to a [limit](Self::max_feeds). In open mode it does what
/// `Corestore.replicate` does in JavaScript: feeds are served to whoever knows their key, those that are not
/// ours are asked for, and nothing is introduced. Feeds that are added to the store while a peer is connected
/// are treated in the same way.
///
/// ```
/// use party::{key::PartyKey, party::Party, rules::WholeStore, store::Store};
///
/// # async fn example() -> Result<(), party::error::Error> {
/// let store = Store::memory();
/// let (key, _founder) = PartyKey::generate();
/// let party = Party::new(key, WholeStore::new(store).max_feeds(100));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct WholeStore {
    store: Store,
    max_feeds: usize,
    how: Replicate,
}

impl WholeStore {
    /// Shares `store`, and fetches in full what is replicated.
    pub fn new(store: Store) -> Self {
        Self { store, max_feeds: DEFAULT_MAX_FEEDS, how: Replicate::fully() }
    }

    /// Refuses introductions that would bring the store to more than `n` feeds. The default is 1024.
    #[must_use]
    pub fn max_feeds(self, n: usize) -> Self {
        Self { max_feeds: n, ..self }
    }

    /// Fetches only what [`Feed::download`] and [`Feed::fetch`] ask for.
    #[must_use]
    pub fn sparse(self) -> Self {
        Self { how: Replicate::sparsely(), ..self }
    }

    async fn keys(&self) -> Result<Vec<FeedKey>> {
        Ok(self.store.list().await?.into_iter().map(|entry| entry.key).collect())
    }

    /// Brings to the peer what is added to the store, for as long as it is here.
    async fn follow(self, peer: Peer, mut events: FeedEvents) {
        let bringing = async {
            while let Some(event) = events.next().await {
                let waiting = std::iter::from_fn(|| events.next().now_or_never().flatten());
                let added: Vec<FeedEntry> = std::iter::once(event)
                    .chain(waiting.take(BRING_AT_ONCE - 1))
                    .filter_map(|event| match event {
                        FeedEvent::Added(entry) => Some(entry),
                        FeedEvent::Removed(_) => None,
                    })
                    .collect();
                if let Err(error) = self.bring(&peer, added).await {
                    tracing::debug!(%error, "a peer does not take what was added");
                }
            }
        };
        tokio::select! {
            () = bringing => {}
            () = peer.left() => {}
        }
    }

    async fn bring(&self, peer: &Peer, added: Vec<FeedEntry>) -> Result<()> {
        // What the peer itself has just brought is told to it again, which does no harm.
        if let Admission::Party(_) = peer.admission() {
            peer.introduce_feeds(added.iter().map(|entry| entry.key)).await?;
        }
        for entry in added {
            // It may be purged already.
            let Some(feed) = self.store.feed_by_discovery_key(&entry.discovery_key).await? else { continue };
            if peer.admission() != Admission::Open || !entry.writable {
                peer.replicate_as(&feed, self.how).await?;
            }
        }
        Ok(())
    }

    /// Adds what a peer brings and replicates it.
    async fn take(&self, peer: &Peer, keys: Vec<FeedKey>) -> Result<()> {
        let known = self.keys().await?;
        // What a policy in front of us would not let us keep isn't opened.
        let keys: Vec<_> =
            keys.into_iter().filter(|key| peer.decide(key, Action::Accept).is_allowed()).collect();
        let fresh = keys.iter().filter(|key| !known.contains(key)).count();
        if known.len() + fresh > self.max_feeds {
            return Err(Denied::because(format!(
                "{fresh} feeds more than the {} there are would go beyond the limit of {}",
                known.len(),
                self.max_feeds,
            )));
        }
        for key in keys {
            peer.replicate_as(&self.store.feed(&key).await?, self.how).await?;
        }
        Ok(())
    }
}

impl Rules for WholeStore {
    async fn handshake(&self, peer: &Peer) -> Result<()> {
        let events = self.store.subscribe_feeds();
        let ours = self.keys().await?;
        if let Admission::Party(_) = peer.admission() {
            let theirs = peer.introduce_feeds(ours.clone()).await?;
            self.take(peer, theirs).await?;
        }
        for key in ours {
            let feed = self.store.feed(&key).await?;
            // A peer without a party asks for what it wants of ours: it can't be told.
            if peer.admission() != Admission::Open || !feed.info().writable {
                peer.replicate_as(&feed, self.how).await?;
            }
        }
        tokio::spawn(self.clone().follow(peer.clone(), events));
        Ok(())
    }

    async fn introduce_feeds(&self, peer: &Peer, keys: Vec<FeedKey>) -> Result<Vec<FeedKey>> {
        let ours = self.keys().await?;
        self.take(peer, keys).await?;
        Ok(ours)
    }

    async fn find_feed(&self, _: &Peer, key: &DiscoveryKey) -> Result<Option<Feed>> {
        Ok(self.store.feed_by_discovery_key(key).await?)
    }
}
