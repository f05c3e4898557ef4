//! Ready-made rules: keep for others what one can't read.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Action, Decision, Denied, Question, Quota, Result, Rules};
use crate::{
    feed::Feed,
    key::{DiscoveryKey, FeedKey, PublicKey},
    peer::Peer,
    store::Store,
};

/// Stores the feeds that members bring and serves them to the other members, so that they meet though they are never online
/// at the same time. For a server that shall know as little as possible.
///
/// It verifies what it keeps by the feeds' keys, and has no keys to decrypt blocks with; whether a feed *is*
/// encrypted is its writer's business, and can't be seen from here. What it does learn is who brings which feed, how long it is,
/// and who reads it when.
///
/// Who brings a feed first pays for it, whoever sends its blocks: so many feeds, and so many bytes of blocks, for each static
/// key. What a peer has used is known as long as this value lives, and what the store held before is kept and served at nobody's cost. With
/// the party's key alone anybody can be as many peers as they like, so bound their number, too: by
/// [`max_peers`](KeeperQuotas::max_peers), or better by [`AllowPeers`](super::AllowPeers).
///
/// ```
/// use party::{key::PartyKey, party::Party, rules::{BlindKeeper, KeeperQuotas}, store::Store};
///
/// # fn example(key: PartyKey, store: Store) -> Party {
/// let quotas = KeeperQuotas { feeds: 10, bytes: 1 << 30, ..KeeperQuotas::default() };
/// Party::new(key, BlindKeeper::new(store, quotas))
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BlindKeeper {
    store: Store,
    quotas: KeeperQuotas,
    ledger: Arc<Mutex<Ledger>>,
}

/// What a [`BlindKeeper`] does for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeeperQuotas {
    /// Feeds that each peer may bring.
    pub feeds: usize,
    /// Bytes of blocks of all these together.
    pub bytes: u64,
    /// Peers that may bring feeds.
    pub max_peers: usize,
}

impl Default for KeeperQuotas {
    /// 64 feeds and a gibibyte for each of 256 peers.
    fn default() -> Self {
        Self { feeds: 64, bytes: 1 << 30, max_peers: 256 }
    }
}

#[derive(Debug, Default)]
struct Ledger {
    accounts: BTreeMap<PublicKey, Account>,
    payers: BTreeMap<FeedKey, PublicKey>,
}

#[derive(Debug)]
struct Account {
    feeds: usize,
    bytes: Quota,
}

const NAME: &str = "blind keeper";

impl BlindKeeper {
    /// Keeps feeds in `store`.
    pub fn new(store: Store, quotas: KeeperQuotas) -> Self {
        Self { store, quotas, ledger: Arc::default() }
    }

    /// How many feeds a peer has brought, and the bytes that it has used and may use.
    pub fn account(&self, peer: &PublicKey) -> Option<(usize, Quota)> {
        self.ledger().accounts.get(peer).map(|account| (account.feeds, account.bytes.clone()))
    }

    /// Puts the feeds on the peer's account that are on nobody's: all of them, or none.
    fn charge(&self, peer: PublicKey, known: &[FeedKey], mut keys: Vec<FeedKey>) -> Result<()> {
        let mut ledger = self.ledger();
        keys.retain(|key| !known.contains(key) && !ledger.payers.contains_key(key));
        keys.sort();
        keys.dedup();
        if keys.is_empty() {
            return Ok(());
        }
        if !ledger.accounts.contains_key(&peer) && ledger.accounts.len() >= self.quotas.max_peers {
            return Err(Denied::because("too many peers have brought feeds"));
        }
        let account = ledger
            .accounts
            .entry(peer)
            .or_insert_with(|| Account { feeds: 0, bytes: Quota::of(self.quotas.bytes) });
        if account.feeds + keys.len() > self.quotas.feeds {
            return Err(Denied::because(format!(
                "{} feeds more than the {} there are would go beyond the quota of {}",
                keys.len(),
                account.feeds,
                self.quotas.feeds,
            )));
        }
        account.feeds += keys.len();
        ledger.payers.extend(keys.into_iter().map(|key| (key, peer)));
        Ok(())
    }

    async fn keys(&self) -> Result<Vec<FeedKey>> {
        Ok(self.store.list().await?.into_iter().map(|entry| entry.key).collect())
    }

    async fn take(&self, peer: &Peer, keys: Vec<FeedKey>) -> Result<()> {
        self.charge(peer.remote_public_key(), &self.keys().await?, keys.clone())?;
        for key in keys {
            peer.replicate(&self.store.feed(&key).await?).await?;
        }
        Ok(())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rules for BlindKeeper {
    fn decide(&self, question: &Question<'_>) -> Decision {
        if !matches!(question.action, Action::Ask | Action::Accept) {
            return Decision::allow(NAME, "what is kept is for every member");
        }
        let ledger = self.ledger();
        let payer = ledger.payers.get(&question.feed).and_then(|payer| ledger.accounts.get(payer));
        match payer {
            Some(account) => Decision::allow(NAME, "somebody pays for it").within(&account.bytes),
            None => Decision::allow(NAME, "it was in the store before"),
        }
    }

    async fn handshake(&self, peer: &Peer) -> Result<()> {
        let ours = self.keys().await?;
        let theirs = peer.introduce_feeds(ours.clone()).await?;
        for key in ours {
            peer.replicate(&self.store.feed(&key).await?).await?;
        }
        self.take(peer, theirs).await
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
