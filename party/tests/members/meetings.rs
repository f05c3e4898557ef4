//! Members who are connected now and then, and grant and remove meanwhile, come to the same in the end.
//! `protocol-spec/11-credentials.md#convergence`, over connections and in virtual time.

use std::{collections::BTreeMap, time::Duration};

use crate::common::membership::{Site, append, founder, meet, settle};
use crate::common::random::Random;
use party::{
    connection::Connection,
    credentials::{CutOff, Grant, Terms},
    feed::Feed,
    key::{DiscoveryKey, KeyPair, PublicKey},
    members::Standing,
};

const SITES: usize = 5;

struct World {
    random: Random,
    sites: Vec<Site>,
    feeds: Vec<Feed>,
    connections: BTreeMap<(usize, usize), (Connection, Connection)>,
    guests: u8,
}

impl World {
    async fn new(seed: u64) -> Self {
        let (mut sites, mut feeds) = (Vec::new(), Vec::new());
        for n in 0..SITES {
            let site = Site::member(1 + n as u8, Terms::everything().delegable(2)).await;
            feeds.push(site.feed("log", 2).await);
            sites.push(site);
        }
        Self { random: Random(seed), sites, feeds, connections: BTreeMap::new(), guests: 0 }
    }

    fn site(&mut self) -> usize {
        self.random.below(SITES as u64) as usize
    }

    async fn step(&mut self) {
        match self.random.below(12) {
            0..=3 => {
                let (one, other) = (self.site(), self.site());
                self.connect(one, other).await;
            }
            // A partition.
            4 => self.connections.clear(),
            5..=7 => {
                // One who was removed can't, once it knows.
                let n = self.site();
                let site = &self.sites[n];
                self.guests += 1;
                let guest = KeyPair::from_seed(&[100 + self.guests % 90; 32]);
                let _ = site.members.grant(Grant::to(guest.public(), Terms::everything())).await;
            }
            8 => {
                let n = self.site();
                append(&self.feeds[n], 1).await;
            }
            9 | 10 => {
                // A guest, by who has let it in or by the founder.
                let n = self.site();
                let known = self.sites[n].members.members();
                let guests = known.iter().map(|chain| chain.holder()).filter(|key| !self.is_site(key));
                let guests: Vec<PublicKey> = guests.collect();
                if let Some(guest) = guests.get(self.random.below(guests.len() as u64) as usize) {
                    let members = &self.sites[n].members;
                    if members.remove(guest).await.is_err() {
                        members.remove_as(&founder(), guest).await.unwrap();
                    }
                }
            }
            _ => {
                // A site: not the first two, so that somebody is left, and where it is known.
                let (at, whom) = (self.site(), 2 + self.random.below(SITES as u64 - 2) as usize);
                if at != whom && self.random.below(3) == 0 {
                    let whom = self.sites[whom].me.public();
                    let _ = self.sites[at].members.remove_as(&founder(), &whom).await;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(self.random.below(3_000))).await;
    }

    fn is_site(&self, key: &PublicKey) -> bool {
        self.sites.iter().any(|site| site.me.public() == *key)
    }

    async fn connect(&mut self, one: usize, other: usize) {
        if one != other && !self.connections.contains_key(&(one, other)) {
            let connections = meet(&self.sites[one], &self.sites[other]).await;
            self.connections.insert((one, other), connections);
        }
    }

    async fn heal(&mut self) {
        // Those that are up may have ended for one that was removed.
        self.connections.clear();
        for one in 0..SITES {
            for other in 0..one {
                self.connect(one, other).await;
            }
        }
        settle().await;
    }

    fn seen(&self, site: &Site) -> impl PartialEq + std::fmt::Debug {
        let mut members: Vec<_> = site.members.members().iter().map(|chain| chain.id()).collect();
        let removed = site.members.removed();
        let mut removed: Vec<_> = removed.iter().map(|(chain, by)| (chain.id(), *by.id())).collect();
        members.sort();
        removed.sort();
        (site.members.digest(), members, removed)
    }
}

#[tokio::test(start_paused = true)]
async fn members_who_were_apart_come_to_the_same_members_and_cut_offs() {
    let seeds = match std::env::var("PARTY_CREDENTIAL_SEED") {
        Ok(seed) => vec![seed.parse().expect("PARTY_CREDENTIAL_SEED is a number")],
        Err(_) => (1..=12).collect::<Vec<u64>>(),
    };
    let (mut removed_sites, mut cut) = (0, 0);
    for seed in seeds {
        let mut world = World::new(seed).await;
        for _ in 0..60 {
            world.step().await;
        }
        world.heal().await;
        let left: Vec<&Site> = world.sites.iter().filter(|site| site.members.standing().is_good()).collect();
        assert!(left.len() >= 2, "seed {seed}");
        let first = world.seen(left[0]);
        for site in &left[1..] {
            assert_eq!(world.seen(site), first, "seed {seed}");
        }
        for site in &left {
            assert_eq!(site.party.peers().len(), left.len() - 1, "seed {seed}: all are connected");
        }
        // Where a feed is taken on the same word, it is good up to the same length, and no block beyond it is here that has
        // come since.
        let mut cut_offs: BTreeMap<(DiscoveryKey, _), CutOff> = BTreeMap::new();
        for site in &left {
            for feed in &world.feeds {
                let feed = feed.discovery_key();
                let Some((word, cut_off)) =
                    site.members.attributed_to(&feed).zip(site.members.cut_off(&feed))
                else {
                    continue;
                };
                let known = *cut_offs.entry((feed, word.id())).or_insert(cut_off);
                assert_eq!(known, cut_off, "seed {seed}");
                cut += 1;
            }
        }
        for site in &world.sites {
            if let Standing::Removed(revocation) = site.members.standing() {
                assert_eq!(revocation.signer(), founder().public());
                assert!(site.party.peers().is_empty(), "seed {seed}");
                removed_sites += 1;
            }
        }
    }
    assert!(removed_sites > 0 && cut > 0, "nothing was shown: {removed_sites} removed, {cut} cut-offs");
}
