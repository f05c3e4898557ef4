//! Who is who: what everybody in a simulated party knows of everybody else, and what the checker goes by.

use std::collections::{BTreeMap, BTreeSet};

use party::{
    feed::manifest::Manifest,
    key::{DiscoveryKey, FeedKey, KeyPair, PartyKey, PublicKey},
};

use super::plan::{Insider, Plan, Role};
use crate::dice::Dice;

/// The peers' keys, circles and feeds.
///
/// Each writes one feed. Peers of one *circle* may have each other's feeds, and nobody else may: a peer's neighbours of
/// other circles are members of the party, too, and get nothing but admission.
pub(super) struct Directory {
    party: PartyKey,
    peers: Vec<Entry>,
    by_key: BTreeMap<PublicKey, usize>,
    by_feed: BTreeMap<FeedKey, usize>,
    by_discovery_key: BTreeMap<DiscoveryKey, usize>,
    neighbours: BTreeSet<(usize, usize)>,
}

struct Entry {
    key_pair: KeyPair,
    feed_seed: [u8; 32],
    feed: FeedKey,
    role: Role,
    circle: usize,
}

impl Directory {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut dice = Dice::apart(plan.seed, "keys", 0);
        let party = PartyKey::from(dice.seed());
        let peers: Vec<Entry> = plan
            .peers
            .iter()
            .map(|peer| {
                let (key_pair, feed_seed) = (KeyPair::from_seed(&dice.seed()), dice.seed());
                let feed = Manifest::single(KeyPair::from_seed(&feed_seed).public()).key();
                Entry { key_pair, feed_seed, feed, role: peer.role, circle: peer.circle }
            })
            .collect();
        let each = || peers.iter().enumerate();
        Self {
            party,
            by_key: each().map(|(n, peer)| (peer.key_pair.public(), n)).collect(),
            by_feed: each().map(|(n, peer)| (peer.feed, n)).collect(),
            by_discovery_key: each().map(|(n, peer)| (peer.feed.discovery_key(), n)).collect(),
            neighbours: plan
                .links
                .iter()
                .flat_map(|link| [link.ends, [link.ends[1], link.ends[0]]])
                .map(|[a, b]| (a, b))
                .collect(),
            peers,
        }
    }

    /// The key that only members know.
    pub(super) fn party(&self) -> PartyKey {
        self.party
    }

    pub(super) fn key_pair(&self, peer: usize) -> &KeyPair {
        &self.peers[peer].key_pair
    }

    /// Whose static key that is.
    pub(super) fn peer(&self, key: &PublicKey) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    pub(super) fn feed(&self, writer: usize) -> FeedKey {
        self.peers[writer].feed
    }

    /// What a feed's key pair grows from.
    pub(super) fn feed_seed(&self, writer: usize) -> [u8; 32] {
        self.peers[writer].feed_seed
    }

    /// Whose feed that is.
    pub(super) fn writer(&self, feed: &FeedKey) -> Option<usize> {
        self.by_feed.get(feed).copied()
    }

    /// Whose feed has this discovery key.
    pub(super) fn writer_by_discovery_key(&self, feed: &DiscoveryKey) -> Option<usize> {
        self.by_discovery_key.get(feed).copied()
    }

    /// Whether a peer knows the key of the party, and shows that it does.
    pub(super) fn is_member(&self, peer: usize) -> bool {
        !matches!(self.peers[peer].role, Role::Stranger(_) | Role::Insider(Insider::Liar))
    }

    /// Whether a peer writes a feed and keeps the rules.
    pub(super) fn is_honest(&self, peer: usize) -> bool {
        self.peers[peer].role == Role::Honest
    }

    /// Whether two peers share their feeds.
    pub(super) fn share(&self, a: usize, b: usize) -> bool {
        let is_in_circle = |peer: usize| matches!(self.peers[peer].role, Role::Honest | Role::Traitor(_));
        self.peers[a].circle == self.peers[b].circle && is_in_circle(a) && is_in_circle(b)
    }

    /// Whether a peer may have the feed of `writer`.
    pub(super) fn may_have(&self, peer: usize, writer: usize) -> bool {
        peer == writer || self.share(peer, writer)
    }

    pub(super) fn are_neighbours(&self, a: usize, b: usize) -> bool {
        self.neighbours.contains(&(a, b))
    }

    /// The writers whose feeds a peer is to have.
    pub(super) fn circle(&self, peer: usize) -> Vec<usize> {
        // Circles are of peers side by side.
        let same = |other: &usize| self.peers[*other].circle == self.peers[peer].circle;
        let first = (0..peer).rev().take_while(same).last().unwrap_or(peer);
        (first..self.peers.len()).take_while(same).filter(|other| self.is_honest(*other)).collect()
    }
}
