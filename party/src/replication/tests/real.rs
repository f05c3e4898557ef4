//! Channels over real feeds: everything that arrives was proved.

use std::sync::Arc;

use proptest::prelude::*;

use super::pair::{Engine, Pair};
use crate::{
    error::Error,
    feed::{
        Feed, Identity,
        local::{Demand, Local},
        memory::MemoryStorage,
        proof::{Proof, ProofRequest},
        reorg::PendingReorg,
        storage::Slot,
    },
    key::KeyPair,
    replication::{Options, Verdict},
};

const LIVE: Options =
    Options { live: true, download: true, upload: true, follow_forks: true, allow_push: false, push: false };
const FINITE: Options = Options { live: false, ..LIVE };

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

pub(super) fn create(identity: Identity) -> Feed {
    block_on(Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity)).unwrap()
}

pub(super) fn writer(legacy: bool) -> Feed {
    let signer = KeyPair::from_seed(&[9; 32]);
    create(if legacy { Identity::legacy_writer(signer) } else { Identity::writer(signer) })
}

pub(super) fn reader(of: &Feed) -> Feed {
    create(Identity::reader(of.key()))
}

pub(super) fn block(index: u64) -> Vec<u8> {
    vec![index as u8; (index * 7919 % 300) as usize]
}

impl Engine for Feed {
    fn with_local<R>(&self, f: impl FnOnce(&dyn Local) -> R) -> R {
        Feed::with_local(self, f)
    }

    fn append(&mut self, blocks: u64) {
        let length = self.info().length;
        let blocks = (length..length + blocks).map(|index| block(index).into()).collect();
        block_on(self.append_batch(blocks)).unwrap();
    }

    fn prove(&self, request: ProofRequest, fork: u64) -> Option<Proof> {
        block_on(Feed::prove(self, request, fork)).unwrap()
    }

    fn ingest(&mut self, proofs: Vec<Proof>) -> Vec<Result<Verdict, Error>> {
        block_on(Feed::ingest(self, proofs))
            .into_iter()
            .map(|result| Ok(if result?.unconnected { Verdict::Unconnected } else { Verdict::Holds }))
            .collect()
    }

    fn follow(&mut self, proof: Proof) -> Result<(), Error> {
        block_on(Feed::follow(self, proof)).map(|_| ())
    }

    fn forgo(&mut self, pending: &PendingReorg) -> Result<(), Error> {
        block_on(Feed::forgo(self, pending)).map(|_| ())
    }

    fn has_conflict(&mut self, proof: Proof) -> bool {
        matches!(block_on(self.check_conflict(proof)), Ok(Some(_)))
    }
}

/// A writer, a relay between, and a reader of the relay. The relay has a channel with each.
struct Chain {
    pairs: [Pair<Feed>; 2],
}

impl Chain {
    fn new(legacy: bool, finite: [bool; 2]) -> Self {
        let writer = writer(legacy);
        let (relay, last) = (reader(&writer), reader(&writer));
        let options = finite.map(|finite| if finite { FINITE } else { LIVE });
        Self {
            pairs: [
                Pair::new([writer, relay.clone()], [LIVE, options[0]]),
                Pair::new([relay, last], [options[0], options[1]]),
            ],
        }
    }

    fn feeds(&self) -> [&Feed; 3] {
        [&self.pairs[0].ends[0].feed, &self.pairs[0].ends[1].feed, &self.pairs[1].ends[1].feed]
    }

    fn append(&mut self, blocks: u64) {
        self.pairs[0].ends[0].append(blocks);
    }

    fn demand(&mut self, [relay, last]: [&Demand; 2]) {
        self.pairs[0].ends[1].demand(relay.clone());
        self.pairs[1].ends[0].demand(relay.clone());
        self.pairs[1].ends[1].demand(last.clone());
    }

    /// What one channel of the relay has stored, the other is told.
    fn ingest(&mut self, pair: usize, n: usize, count: usize) -> bool {
        let changed = self.pairs[pair].ingest(n, count).unwrap();
        if changed && pair + n == 1 {
            let end = &mut self.pairs[1 - pair].ends[1 - n];
            end.feed.with_local(|local| end.channel.handle_local_change(local));
        }
        changed
    }

    fn step(&mut self, step: u8, count: usize) {
        let (pair, n) = (usize::from(step & 1), usize::from(step >> 1 & 1));
        match step >> 2 {
            0 => drop(self.pairs[pair].deliver(n, count).unwrap()),
            1 => drop(self.pairs[pair].serve(n, count)),
            2 => drop(self.ingest(pair, n, count)),
            3 => self.pairs[pair].pump(n),
            _ => self.append(count as u64 % 9),
        }
    }

    fn run(&mut self) {
        for _ in 0..10_000 {
            let mut busy = false;
            for (pair, n) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                busy |= self.pairs[pair].deliver(n, usize::MAX).unwrap();
                while self.pairs[pair].serve(n, 0) {
                    busy = true;
                }
                busy |= self.ingest(pair, n, usize::MAX);
                self.pairs[pair].pump(n);
            }
            let pending = |pair: &Pair<Feed>| pair.ends.iter().any(|end| end.is_busy());
            if !busy && !self.pairs.iter().any(pending) {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Checks that all that is demanded has arrived as it was written, and nothing was refused.
    fn check(&self, demand: [&Demand; 2]) {
        let [writer, relay, last] = self.feeds();
        let length = writer.info().length;
        for (feed, from, demand) in [(relay, writer, demand[0]), (last, relay, demand[1])] {
            assert_eq!(feed.info().length, length);
            for index in 0..length {
                let value = block_on(feed.get(index)).unwrap();
                assert!(value.as_ref().is_none_or(|value| *value == block(index)));
                assert!(
                    value.is_some() || !demand.wants(index) || !from.has(index),
                    "block {index} is missing"
                );
            }
        }
        for end in self.pairs.iter().flat_map(|pair| &pair.ends) {
            let status = end.status();
            assert!(status.in_sync && !status.has_given_up, "{status:?}");
            assert_eq!(status.counters.refused_by_remote, 0, "{status:?}");
        }
    }
}

#[test]
fn default_and_legacy_feeds_arrive_over_a_relay() {
    for legacy in [false, true] {
        let mut chain = Chain::new(legacy, [false, false]);
        chain.append(300);
        chain.run();
        chain.append(1);
        chain.run();
        let all = Demand::everything();
        chain.check([&all, &all]);
        assert_eq!(chain.feeds()[2].info().contiguous_length, 301);
        assert!(
            chain.feeds()[2].with_local(|local| local.has_manifest() != legacy && !local.needs_manifest())
        );
        assert!(chain.pairs.iter().flat_map(|pair| &pair.ends).all(|end| end.status().remote_in_sync));
    }
}

#[test]
fn a_relay_with_gaps_proves_what_it_has() {
    let mut chain = Chain::new(false, [false, false]);
    let some = Demand::from_ranges([3..5, 40..41, 90..200]);
    let all = Demand::everything();
    chain.demand([&some, &all]);
    for blocks in [17, 30, 1, 1, 80, 3] {
        chain.append(blocks);
        chain.run();
        chain.check([&some, &all]);
    }
}

//= REPL-38
#[test]
fn a_forged_proof_is_refused() {
    use crate::error::PeerMisbehaved;
    let mut feed = writer(false);
    Engine::append(&mut feed, 20);
    let mut pair = Pair::new([feed.clone(), reader(&feed)], [LIVE, LIVE]);
    let mut refused = 0;
    for _ in 0..20 {
        for n in 0..2 {
            pair.deliver(n, usize::MAX).unwrap();
            while pair.serve(n, 0) {}
            for (_, proof) in &mut pair.ends[n].ingest {
                if let Some(block) = proof.block.as_mut().filter(|block| block.index == 7) {
                    block.value = b"forged".as_slice().into();
                }
            }
            match pair.ingest(n, usize::MAX).and_then(|_| pair.follow(n)) {
                Ok(_) => {}
                Err(Error::PeerMisbehaved(PeerMisbehaved::InvalidProof(_))) => refused += 1,
                Err(other) => panic!("{other}"),
            }
            pair.pump(n);
        }
    }
    let reader = &pair.ends[1];
    assert_eq!((refused, reader.feed.has(7)), (1, false));
    assert_eq!(reader.status().counters.invalid_proofs, 1);
}

fn demand() -> impl Strategy<Value = Demand> {
    let range = (0..100_u64, prop_oneof![1..30_u64, Just(u64::MAX)])
        .prop_map(|(start, length)| start..start.saturating_add(length));
    prop_oneof![Just(Demand::everything()), prop::collection::vec(range, 0..4).prop_map(Demand::from_ranges)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn chains_converge(
        legacy in any::<bool>(),
        finite in any::<[bool; 2]>(),
        length in 0..60_u64,
        relay in demand(),
        last in demand(),
        steps in prop::collection::vec((0..20_u8, 0..40_usize), 0..150),
    ) {
        let mut chain = Chain::new(legacy, finite);
        chain.append(length);
        chain.demand([&relay, &last]);
        for (step, count) in steps {
            chain.step(step, count);
        }
        chain.run();
        chain.check([&relay, &last]);
    }
}
