//! What is known of a party's members, and how each connected peer stands.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;

use super::events::Refusal;
use crate::{
    credentials::{CheckedChain, LinkId, Membership, Revocation, Revocations},
    error::{ApiMisuse, Error, StorageError},
    hash::Hash,
    key::{DiscoveryKey, PartyKey, PublicKey},
    limits::Limits,
    peer::Peer,
    store::credentials::Credential,
};

/// Tokens that a peer regains in each sync interval.
const REGAINED: u32 = 4;

pub(super) struct State {
    pub(super) set: Revocations,
    pub(super) own: Option<CheckedChain>,
    /// Whether it was told that our own has ended.
    pub(super) own_ended: bool,
    /// Chains of which it was told that they were revoked.
    pub(super) removed: BTreeSet<LinkId>,
    /// By the number of the connection: a peer is there once on each.
    connected: BTreeMap<u64, Connected>,
    pub(super) words: Words,

    // What is to be carried out
    /// Who is to go, and the revocation that it is to be told.
    pub(super) to_dismiss: Vec<(Peer, Option<Revocation>)>,
    pub(super) feeds_to_reevaluate: BTreeSet<DiscoveryKey>,
    pub(super) peers_to_reevaluate: Vec<Peer>,
    /// What is to be remembered, or with `None` forgotten.
    pub(super) unsaved: BTreeMap<Credential, Option<Bytes>>,
    /// What is remembered of the set.
    pub(super) saved: BTreeSet<Credential>,
    /// Whether something may have been displaced from the set since it was saved.
    pub(super) set_changed: bool,
}

/// A peer on a connection.
pub(super) struct Connected {
    pub(super) peer: Peer,
    pub(super) stage: watch::Sender<Stage>,
    pub(super) chain: Option<Arc<CheckedChain>>,
    pub(super) bucket: Bucket,
    pub(super) pending: Pending,
    /// Whether a task tells it what is pending.
    pub(super) is_talking: bool,
}

/// How far a peer has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has shown nothing that holds.
    Vetting,
    /// It has shown a membership that holds. Whether it accepts ours isn't known.
    Shown,
    Member,
    Ended(Refusal),
}

/// What a peer is to be told.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) ids: Vec<Hash>,
    /// All is to be compared.
    pub(super) compare: bool,
}

impl State {
    /// What was remembered, verified.
    pub(super) fn read(
        party: PartyKey,
        me: &PublicKey,
        limits: &Limits,
        records: Vec<(Credential, Bytes)>,
    ) -> Result<Self, StorageError> {
        let mut state = Self {
            set: Revocations::new(party, limits),
            own: None,
            own_ended: false,
            removed: BTreeSet::new(),
            connected: BTreeMap::new(),
            words: Words::default(),
            to_dismiss: Vec::new(),
            feeds_to_reevaluate: BTreeSet::new(),
            peers_to_reevaluate: Vec::new(),
            unsaved: BTreeMap::new(),
            saved: BTreeSet::new(),
            set_changed: false,
        };
        let damaged = |what: &str| StorageError::Damaged { what: what.to_owned() };
        let chain = |value: &[u8], what| {
            let membership = Membership::decode(value, limits).map_err(|_| damaged(what))?;
            membership.check(&party).map_err(|_| damaged(what))
        };
        for (credential, value) in records {
            match credential {
                Credential::Own => {
                    let what = "our membership of a party";
                    let own = chain(&value, what)?;
                    if own.holder() != *me {
                        // Who we are has changed: it is of no use any more, and no damage.
                        continue;
                    }
                    state.own = Some(own);
                }
                Credential::Revocation(id) => {
                    let what = "a revocation of a party";
                    let revocation = Revocation::decode(&value, limits).map_err(|_| damaged(what))?;
                    let revocation = revocation.verify(&party).map_err(|_| damaged(what))?;
                    if *revocation.id() != id {
                        return Err(damaged(what));
                    }
                    let _ = state.set.insert(revocation).map_err(|_| damaged(what))?;
                    state.saved.insert(credential);
                }
                Credential::Member(id) => {
                    let what = "a membership of a party";
                    let chain = chain(&value, what)?;
                    if *chain.id().as_bytes() != id {
                        return Err(damaged(what));
                    }
                    let _ = state.set.insert_member(chain).map_err(|_| damaged(what))?;
                    state.saved.insert(credential);
                }
                Credential::Word(feed) => {
                    let chain = chain(&value, "the member of a party on whose word a feed is taken")?;
                    state.words.put(feed, &chain);
                }
            }
        }
        state.removed = state.set.removed().map(CheckedChain::id).collect();
        state.own_ended = state.own.as_ref().is_some_and(|own| state.set.is_revoked(own));
        state.set_changed = true;
        Ok(state)
    }

    pub(super) fn set_own(&mut self, chain: CheckedChain) {
        self.unsaved.insert(Credential::Own, Some(chain.membership().encode().into()));
        self.own = Some(chain);
        self.own_ended = false;
    }

    pub(super) fn unsaved_word(&mut self, feed: DiscoveryKey) {
        if let Some(chain) = self.words.get(&feed) {
            self.unsaved.insert(Credential::Word(feed), Some(chain.membership().encode().into()));
        }
    }

    /// A peer has come. What was there on its connection before is gone.
    pub(super) fn connect(&mut self, peer: &Peer, limits: &Limits, now: Duration) -> watch::Receiver<Stage> {
        self.connected.retain(|_, connected| !connected.peer.is_closed());
        let (stage, receiver) = watch::channel(Stage::Vetting);
        let connected = Connected {
            peer: peer.clone(),
            stage,
            chain: None,
            bucket: Bucket { tokens: limits.max_sync_burst, last: now },
            pending: Pending::default(),
            is_talking: false,
        };
        self.connected.insert(peer.connection(), connected);
        receiver
    }

    /// How this peer stands. `None` if it is not, or not any more, the one on its connection.
    pub(super) fn connected(&self, peer: &Peer) -> Option<&Connected> {
        self.connected.get(&peer.connection()).filter(|connected| connected.peer == *peer)
    }

    pub(super) fn connected_mut(&mut self, peer: &Peer) -> Option<&mut Connected> {
        self.connected.get_mut(&peer.connection()).filter(|connected| connected.peer == *peer)
    }

    pub(super) fn all_connected(&self) -> impl Iterator<Item = &Connected> {
        self.connected.values()
    }

    pub(super) fn all_connected_mut(&mut self) -> impl Iterator<Item = &mut Connected> {
        self.connected.values_mut()
    }

    pub(super) fn members_connected(&self) -> Vec<Peer> {
        let members = self.connected.values().filter(|it| *it.stage.borrow() == Stage::Member);
        members.map(|it| it.peer.clone()).collect()
    }
}

impl Pending {
    pub(super) fn is_nothing(&self) -> bool {
        !self.compare && self.ids.is_empty()
    }
}

impl Connected {
    pub(super) fn has_ended(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Ended(_))
    }
}

/// How many requests a peer may make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    tokens: u32,
    last: Duration,
}

impl Bucket {
    pub(super) fn take(&mut self, limits: &Limits, now: Duration) -> bool {
        let interval = limits.sync_interval.as_nanos().max(1);
        // A clock that goes back gives nothing.
        let intervals = now.saturating_sub(self.last).as_nanos() / interval;
        if intervals > 0 || now < self.last {
            let regained = u32::try_from(intervals).unwrap_or(u32::MAX).saturating_mul(REGAINED);
            self.tokens = self.tokens.saturating_add(regained).min(limits.max_sync_burst);
            self.last = now;
        }
        let has = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        has
    }
}

/// On whose word feeds are taken.
#[derive(Debug, Default)]
pub(super) struct Words {
    by_feed: BTreeMap<DiscoveryKey, Arc<CheckedChain>>,
    /// How many feeds of each, and the one value that they share.
    givers: BTreeMap<LinkId, (usize, Arc<CheckedChain>)>,
}

impl Words {
    pub(super) fn get(&self, feed: &DiscoveryKey) -> Option<&Arc<CheckedChain>> {
        self.by_feed.get(feed)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&DiscoveryKey, &Arc<CheckedChain>)> {
        self.by_feed.iter()
    }

    /// # Errors
    /// [`ApiMisuse::LimitExceeded`].
    pub(super) fn set(
        &mut self,
        feed: DiscoveryKey,
        chain: &CheckedChain,
        limits: &Limits,
    ) -> Result<(), Error> {
        let known = self.by_feed.get(&feed);
        if known.is_some_and(|known| known.id() == chain.id()) {
            return Ok(());
        }
        let of_chain = self.givers.get(&chain.id()).map_or(0, |(count, _)| *count);
        if of_chain >= limits.max_member_feeds {
            return Err(ApiMisuse::LimitExceeded("max_member_feeds").into());
        }
        if known.is_none() && self.by_feed.len() >= limits.max_attributed_feeds {
            return Err(ApiMisuse::LimitExceeded("max_attributed_feeds").into());
        }
        self.put(feed, chain);
        Ok(())
    }

    fn put(&mut self, feed: DiscoveryKey, chain: &CheckedChain) {
        let (count, shared) = self.givers.entry(chain.id()).or_insert_with(|| (0, Arc::new(chain.clone())));
        *count += 1;
        if let Some(before) = self.by_feed.insert(feed, shared.clone())
            && let Some((count, _)) = self.givers.get_mut(&before.id())
        {
            *count -= 1;
            if *count == 0 {
                self.givers.remove(&before.id());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_regains_what_it_may_ask_as_time_passes() {
        let limits = Limits { max_sync_burst: 6, sync_interval: Duration::from_secs(1), ..Limits::default() };
        let at = Duration::from_millis;
        let mut bucket = Bucket { tokens: 6, last: at(0) };
        let mut granted = |now: u64| (0..100).filter(|_| bucket.take(&limits, at(now))).count();
        assert_eq!(granted(0), 6);
        assert_eq!(granted(999), 0);
        assert_eq!(granted(1_000), 4);
        assert_eq!(granted(60_000), 6, "no more than the burst");
        assert_eq!(granted(10), 0, "a clock that goes back");
        assert_eq!(granted(1_010), 4, "and on from there");
    }
}
