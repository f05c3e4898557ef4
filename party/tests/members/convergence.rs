//! Members who learn of grants and revocations in any order come to the same members and the same cut-offs.
//! `protocol-spec/11-credentials.md#convergence`.

use std::collections::{BTreeMap, BTreeSet};

use party::{
    credentials::{
        CheckedChain, CutOff, Grant, Inserted, LinkId, Membership, Revocation, Revocations, Revoked,
        SyncMessage, Terms, VerifiedRevocation,
    },
    key::{DiscoveryKey, KeyPair, PartyKey, PublicKey},
    limits::Limits,
};

const START: u64 = 1_800_000_000;
const PEERS: usize = 6;

/// splitmix64: a seed gives the same run for ever.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn salt(&mut self) -> [u8; 16] {
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&self.next().to_le_bytes());
        salt[8..].copy_from_slice(&self.next().to_le_bytes());
        salt
    }
}

fn pair(n: usize) -> KeyPair {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(n as u64).to_le_bytes());
    KeyPair::from_seed(&seed)
}

/// Some peers of one party, and all that was ever signed in it.
struct World {
    rng: Rng,
    limits: Limits,
    founder: KeyPair,
    party: PartyKey,
    now: u64,
    peers: Vec<Revocations>,
    /// Which side of the partition each peer is on.
    side: Vec<usize>,
    chains: Vec<CheckedChain>,
    revocations: Vec<VerifiedRevocation>,
    pairs: BTreeMap<PublicKey, KeyPair>,
}

impl World {
    fn new(seed: u64, limits: Limits) -> Self {
        let founder = pair(0);
        let party = PartyKey::from_bytes(*founder.public().as_bytes());
        Self {
            rng: Rng(seed),
            party,
            now: START,
            peers: (0..PEERS).map(|_| Revocations::new(party, &limits)).collect(),
            side: vec![0; PEERS],
            chains: Vec::new(),
            revocations: Vec::new(),
            pairs: BTreeMap::from([(founder.public(), founder.clone())]),
            founder,
            limits,
        }
    }

    fn step(&mut self) {
        self.now += self.rng.below(60) as u64;
        match self.rng.below(8) {
            0 | 1 => self.grant(),
            2 => self.revoke(),
            3 => self.side = (0..PEERS).map(|_| self.rng.below(3)).collect(),
            4 => {
                // What one knows, handed over out of band, as a whole and perhaps not for the first time.
                let (from, to) = (self.rng.below(PEERS), self.rng.below(PEERS));
                if self.side[from] == self.side[to] {
                    let known = self.peers[from].clone();
                    self.peers[to].merge(&known).unwrap();
                }
            }
            _ => {
                let (from, to) = (self.rng.below(PEERS), self.rng.below(PEERS));
                if from != to && self.side[from] == self.side[to] {
                    self.sync(from, to, true);
                }
            }
        }
    }

    /// Somebody who may lets somebody in; one of the peers hears of it.
    fn grant(&mut self) {
        // Few keys, so that some are let in over several ways.
        let subject = pair(1 + self.rng.below(24));
        self.pairs.insert(subject.public(), subject.clone());
        let above: Vec<CheckedChain> =
            self.chains.iter().filter(|chain| chain.terms().depth > 0).cloned().collect();
        let from_founder = above.is_empty() || self.rng.one_in(3);
        let parent = if from_founder { None } else { Some(above[self.rng.below(above.len())].clone()) };
        let mut terms = parent.as_ref().map_or(Terms::everything().delegable(3), |it| it.terms().clone());
        if parent.is_some() {
            terms.depth -= 1;
        }
        if self.rng.one_in(4) {
            let at = self.now + self.rng.below(2_000) as u64;
            terms.expires = Some(terms.expires.map_or(at, |latest| latest.min(at)));
        }
        let grant = Grant::to(subject.public(), terms).with_serial(self.rng.below(4) as u64);
        let membership = match parent {
            None => Membership::found(&self.founder, grant, &self.limits).unwrap(),
            Some(parent) => {
                let holder = &self.pairs[&parent.holder()];
                parent.membership().extend(&self.party, holder, grant, &self.limits).unwrap()
            }
        };
        let chain = membership.check(&self.party).unwrap();
        let peer = self.rng.below(PEERS);
        let _ = self.peers[peer].insert_member(chain.clone()).unwrap();
        self.chains.push(chain);
    }

    /// Somebody on a chain, revoked or not, revokes what is below; one of the peers hears of it.
    fn revoke(&mut self) {
        if self.chains.is_empty() {
            return;
        }
        let chain = self.chains[self.rng.below(self.chains.len())].clone();
        let above: Vec<PublicKey> = std::iter::once(self.founder.public()).chain(chain.subjects()).collect();
        // The founder rarely, or soon nobody is left.
        let signer = if self.rng.one_in(6) { above[0] } else { above[1 + self.rng.below(above.len() - 1)] };
        let revoked = if self.rng.one_in(2) { Revoked::Link } else { Revoked::Key };
        let cut_offs: Vec<CutOff> = (0..self.rng.below(3))
            .map(|_| CutOff {
                feed: DiscoveryKey::from_bytes([self.rng.below(3) as u8; 32]),
                fork: self.rng.below(3) as u64,
                length: self.rng.below(100) as u64,
            })
            .collect();
        let revocation =
            Revocation::sign(&chain, &self.pairs[&signer], revoked, cut_offs, &self.limits).unwrap();
        let verified = revocation.verify(&self.party).unwrap();
        let peer = self.rng.below(PEERS);
        let _ = self.peers[peer].insert(verified.clone()).unwrap();
        self.revocations.push(verified);
    }

    /// One peer begins, and both answer until there is nothing to say. Each message goes over the wire, on which
    /// some are lost if it `is_lossy`.
    fn sync(&mut self, from: usize, to: usize, is_lossy: bool) {
        let salt = self.rng.salt();
        let mut on_the_way = vec![(to, from, self.peers[from].summary(salt).encode())];
        let mut messages = 0;
        while let Some((to, from, bytes)) = on_the_way.pop() {
            messages += 1;
            assert!(messages < 10, "they don't come to an end");
            if is_lossy && self.rng.one_in(10) {
                continue;
            }
            let message = SyncMessage::decode(&bytes, &self.limits).unwrap();
            let handled = self.peers[to].handle(&message).unwrap();
            on_the_way.extend(handled.replies.iter().map(|reply| (from, to, reply.encode())));
        }
    }

    /// Everybody meets everybody until nothing changes.
    fn heal(&mut self) {
        for _ in 0..64 {
            let before: Vec<_> = self.peers.iter().map(Revocations::digest).collect();
            for from in 0..PEERS {
                for to in 0..PEERS {
                    if from != to {
                        self.sync(from, to, false);
                    }
                }
            }
            if before == self.peers.iter().map(Revocations::digest).collect::<Vec<_>>() {
                return;
            }
        }
        panic!("they don't settle");
    }

    fn check_agreement(&self, seed: u64) {
        let seen = |peer: &Revocations| {
            let members: Vec<LinkId> = peer.members(self.now).map(CheckedChain::id).collect();
            let cut_offs: Vec<Vec<CutOff>> = self.chains.iter().map(|chain| peer.cut_offs(chain)).collect();
            let revoked: Vec<bool> = self.chains.iter().map(|chain| peer.is_revoked(chain)).collect();
            (peer.digest(), members, cut_offs, revoked)
        };
        let first = seen(&self.peers[0]);
        for peer in &self.peers[1..] {
            assert!(seen(peer) == first, "seed {seed}: two honest members differ");
        }
    }

    /// What the specification says, word for word, and none of the library's shortcuts.
    fn check_against_the_rule(&self, seed: u64) {
        let keys = |chain: &CheckedChain| -> Vec<PublicKey> {
            std::iter::once(self.founder.public()).chain(chain.subjects()).collect()
        };
        let hit = |revocation: &VerifiedRevocation, chain: &CheckedChain| -> Option<usize> {
            let nodes = keys(chain);
            let signer = nodes.iter().position(|key| *key == revocation.signer())?;
            let hits = match revocation.revoked() {
                Revoked::Link => chain.ids().contains(&revocation.chain().id()),
                Revoked::Key => {
                    let key = revocation.chain().holder();
                    nodes.iter().enumerate().any(|(n, node)| n >= signer.max(1) && *node == key)
                }
            };
            hits.then_some(signer)
        };
        let peer = &self.peers[0];
        let mut alive = BTreeSet::new();
        for chain in &self.chains {
            let hits: Vec<_> = self.revocations.iter().filter_map(|it| Some((hit(it, chain)?, it))).collect();
            assert_eq!(peer.is_revoked(chain), !hits.is_empty(), "seed {seed}");
            if hits.is_empty() && chain.terms().expires.is_none_or(|at| self.now < at) {
                alive.insert(chain.id());
            }
            for byte in 0..3 {
                let feed = DiscoveryKey::from_bytes([byte; 32]);
                let said =
                    hits.iter().flat_map(|(depth, it)| it.cut_offs().iter().map(move |cut| (*depth, *cut)));
                let lowest = said
                    .filter(|(_, cut)| cut.feed == feed)
                    .min_by_key(|(depth, cut)| (*depth, cut.fork, cut.length));
                assert_eq!(peer.cut_off(&feed, chain), lowest.map(|(_, cut)| cut), "seed {seed}");
            }
        }
        let members: BTreeSet<LinkId> = peer.members(self.now).map(CheckedChain::id).collect();
        assert_eq!(members, alive, "seed {seed}");
    }
}

/// The seeds of a test: one that is named, or so many.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("PARTY_CREDENTIAL_SEED") {
        Ok(seed) => vec![seed.parse().expect("PARTY_CREDENTIAL_SEED is a number")],
        Err(_) => (1..=count).collect(),
    }
}

//= CRED-33, CRED-34, CRED-35
#[test]
fn partitioned_members_come_to_the_same_members_and_cut_offs() {
    let (mut removed, mut cut_off) = (0, 0);
    for seed in seeds(25) {
        let mut world = World::new(seed, Limits::default());
        for _ in 0..150 {
            world.step();
        }
        world.heal();
        world.check_agreement(seed);
        world.check_against_the_rule(seed);
        removed += world.peers[0].removed().count();
        cut_off += world.chains.iter().map(|chain| world.peers[0].cut_offs(chain).len()).sum::<usize>();
    }
    assert!(removed > 0 && cut_off > 0, "nothing was shown");
}

//= CRED-36, CRED-37
#[test]
fn members_converge_at_the_quotas_too() {
    let limits = Limits {
        max_founder_revocations: 2,
        max_branch_revocations: 3,
        max_branch_members: 4,
        max_branches: 5,
        ..Limits::default()
    };
    let mut is_full = false;
    for seed in seeds(25) {
        let mut world = World::new(seed, limits.clone());
        for _ in 0..250 {
            world.step();
        }
        world.heal();
        world.check_agreement(seed);
        let peer = &world.peers[0];
        assert!(peer.revocations().count() <= 2 + 3 * 5 && peer.known().count() <= 4 * 5, "seed {seed}");
        is_full |=
            peer.known().count() < world.chains.iter().map(CheckedChain::id).collect::<BTreeSet<_>>().len();

        // Whatever was dropped on the way: the same as if one had heard of everything at once.
        let mut at_once = Revocations::new(world.party, &limits);
        for chain in world.chains.iter().rev() {
            let _ = at_once.insert_member(chain.clone()).unwrap();
        }
        for revocation in world.revocations.iter().rev() {
            let _ = at_once.insert(revocation.clone()).unwrap();
        }
        assert!(at_once.digest() == peer.digest(), "seed {seed}");
    }
    assert!(is_full, "no quota was reached");
}

//= CRED-42
#[test]
fn messages_that_are_full_leave_the_rest_to_the_next_round() {
    let limits = Limits { max_sync_ids: 3, max_sync_bytes: 500, ..Limits::default() };
    let mut world = World::new(1, limits);
    for _ in 0..60 {
        world.grant();
    }
    assert!(world.peers.iter().all(|peer| peer.known().count() < 40));
    let knows = world.chains.iter().map(CheckedChain::id).collect::<BTreeSet<_>>().len();
    for _ in 0..200 {
        for to in 1..PEERS {
            world.sync(to, 0, false);
            world.sync(0, to, false);
        }
    }
    assert!(world.peers.iter().all(|peer| peer.known().count() == knows));
}

#[test]
fn a_member_who_floods_displaces_nobody_that_stands_above_it() {
    let limits = Limits { max_branch_revocations: 8, ..Limits::default() };
    let mut world = World::new(1, limits.clone());
    let grant = |n: usize, depth| Grant::to(pair(n).public(), Terms::everything().delegable(depth));
    let ann = Membership::found(&world.founder, grant(1, 3), &limits).unwrap();
    let mallory = ann.extend(&world.party, &pair(1), grant(2, 2), &limits).unwrap();
    let bob = ann.extend(&world.party, &pair(1), grant(3, 0), &limits).unwrap().check(&world.party).unwrap();

    let by_ann = Revocation::sign(&bob, &pair(1), Revoked::Key, [], &limits).unwrap();
    let known = &mut world.peers[0];
    assert_eq!(known.insert(by_ann.verify(&world.party).unwrap()), Ok(Inserted::New));
    let mut refused = 0;
    for n in 0..100 {
        // Of keys that nobody has ever heard of, and signed by as many others.
        let middle = mallory.extend(&world.party, &pair(2), grant(100 + n, 1), &limits).unwrap();
        let last = middle.extend(&world.party, &pair(100 + n), grant(300 + n, 0), &limits).unwrap();
        let chain = last.check(&world.party).unwrap();
        for signer in [2, 100 + n] {
            let flood = Revocation::sign(&chain, &pair(signer), Revoked::Key, [], &limits).unwrap();
            refused +=
                usize::from(known.insert(flood.verify(&world.party).unwrap()) == Ok(Inserted::BeyondQuota));
        }
    }
    assert_eq!(known.revocations().count(), 8);
    assert!(refused > 0);
    assert!(known.is_revoked(&bob), "what Ann said holds");
}
