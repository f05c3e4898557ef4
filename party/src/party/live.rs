//! Changes of mind that take effect on open connections.

use std::{
    ops::{Add, AddAssign},
    sync::Arc,
};

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};

use super::{Hub, Open, Party, lock};
use crate::{
    key::{DiscoveryKey, FeedKey, PublicKey},
    peer::{Command, Peer},
    rules::Explanation,
};

/// What has come of asking the rules again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reevaluated {
    /// Peers that may not be here any more, and feeds of peers that were released and allowed, and are not any more.
    pub stopped: usize,
    /// Feeds of peers that are released, and allowed only now.
    pub started: usize,
}

impl Add for Reevaluated {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { stopped: self.stopped + other.stopped, started: self.started + other.started }
    }
}

impl AddAssign for Reevaluated {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Party {
    /// Asks the rules again about every peer that is connected and every feed that is released to it:
    /// [`Rules::admit`](crate::rules::Rules::admit) and [`Rules::decide`](crate::rules::Rules::decide).
    ///
    /// What is not allowed any more has stopped when this returns, in both directions: the channel of the feed is closed,
    /// no block of it is handed to a transport, and none that came from the peer is stored any more. Requests that
    /// were waiting are not answered. Other feeds go on, and so do the connections; what became allowed begins. A feed that another
    /// party on the same connection still releases and allows goes on, too.
    ///
    /// What was encrypted already, in one stream with everything else, can't be taken back out of it: it is waited for until the transport
    /// has taken it. A peer that takes nothing for
    /// [`Limits::revocation_timeout`](crate::limits::Limits::revocation_timeout) loses its connection instead.
    ///
    /// ```
    /// # use party::{key::{PartyKey, PublicKey}, party::Party, store::Store};
    /// use party::rules::{AllowPeers, Rules as _, WholeStore};
    ///
    /// # async fn example(key: PartyKey, store: Store, friend: PublicKey) {
    /// let friends = AllowPeers::new([friend]);
    /// let party = Party::new(key, WholeStore::new(store).guarded_by(friends.clone()));
    /// // later
    /// friends.remove(&friend);
    /// party.reevaluate().await;
    /// # }
    /// ```
    pub async fn reevaluate(&self) -> Reevaluated {
        self.hub.reevaluate(None, None).await
    }

    /// As [`reevaluate`](Self::reevaluate), for one peer.
    pub async fn reevaluate_peer(&self, peer: &PublicKey) -> Reevaluated {
        self.hub.reevaluate(Some(*peer), None).await
    }

    /// As [`reevaluate`](Self::reevaluate), for one feed.
    pub async fn reevaluate_feed(&self, feed: &FeedKey) -> Reevaluated {
        self.hub.reevaluate(None, Some(feed.discovery_key())).await
    }

    /// Ends the membership of a peer here, on every connection, and keeps it out until [`readmit`](Self::readmit): it is
    /// answered as somebody who doesn't know the party's key. When this returns, nothing of this party goes to it any more,
    /// as with [`reevaluate`](Self::reevaluate). The connection stays, for other parties.
    ///
    /// It keeps out a *static key*, in this process, while this party lives. The peer still knows the key of the party and of
    /// each feed that it was told, and keeps what it has. **Whoever holds the party's key can come back under a new static
    /// key**, unless the rules admit only those that they know, by [`AllowPeers`](crate::rules::AllowPeers) or credentials.
    pub async fn remove_peer(&self, peer: &PublicKey) -> Reevaluated {
        lock(&self.hub.removed).insert(*peer);
        self.reevaluate_peer(peer).await
    }

    /// Takes back [`remove_peer`](Self::remove_peer). On connections that are up, it begins anew.
    pub async fn readmit(&self, peer: &PublicKey) -> Reevaluated {
        lock(&self.hub.removed).remove(peer);
        self.reevaluate_peer(peer).await
    }

    /// What the rules decide about a feed and a peer at this moment, which of them, and why. It shows as a line for each decision.
    pub fn explain(&self, peer: &Peer, feed: &FeedKey) -> Explanation {
        peer.explain(feed)
    }
}

impl Open {
    /// As [`Party::reevaluate`].
    pub async fn reevaluate(&self) -> Reevaluated {
        self.hub.reevaluate(None, None).await
    }

    /// As [`Party::reevaluate_peer`].
    pub async fn reevaluate_peer(&self, peer: &PublicKey) -> Reevaluated {
        self.hub.reevaluate(Some(*peer), None).await
    }

    /// As [`Party::reevaluate_feed`].
    pub async fn reevaluate_feed(&self, feed: &FeedKey) -> Reevaluated {
        self.hub.reevaluate(None, Some(feed.discovery_key())).await
    }

    /// As [`Party::explain`].
    pub fn explain(&self, peer: &Peer, feed: &FeedKey) -> Explanation {
        peer.explain(feed)
    }
}

impl Hub {
    pub(crate) async fn reevaluate(
        self: &Arc<Self>,
        peer: Option<PublicKey>,
        feed: Option<DiscoveryKey>,
    ) -> Reevaluated {
        let connections: Vec<mpsc::Sender<Command>> = lock(&self.connections)
            .values()
            .filter(|(remote, _)| peer.is_none_or(|peer| peer == *remote))
            .map(|(_, commands)| commands.clone())
            .collect();
        let each = connections.into_iter().map(|commands| async move {
            let (reply, answer) = oneshot::channel();
            let asked = commands.send(Command::Reevaluate { hub: self.clone(), feed, reply }).await;
            match asked {
                Ok(()) => answer.await.ok(),
                Err(_) => None,
            }
            // One that has ended sends and stores nothing any more.
            .unwrap_or_default()
        });
        join_all(each).await.into_iter().fold(Reevaluated::default(), Add::add)
    }
}
