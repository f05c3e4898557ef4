//! The feed channel: two ends replicate a feed without hashes, storage or a wire, so that only the messages and the
//! choice of what to ask for cost anything.

use std::{hint::black_box, sync::Arc, time::Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use party::{
    feed::{
        Local,
        proof::{BlockProof, Node, Proof, ProofRequest, UpgradeProof},
    },
    key::{FeedKey, PublicKey},
    limits::Limits,
    replication::{self, Channel, Options, Output, Pace, Swarm, Verdict},
    session::Session,
};

/// Blocks of the feed.
const LENGTH: u64 = 20_000;
/// Nodes of each proof, as many as the blocks of such a feed need at most.
const NODES: u64 = 15;

fn transfer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replicate");
    group.throughput(Throughput::Elements(LENGTH));
    for size in [64, 1_024] {
        let block = Bytes::from(vec![7; size]);
        group.bench_function(format!("{LENGTH} blocks of {size}"), |bencher| {
            bencher.iter_batched(
                || [Stub::full(LENGTH), Stub::full(0)],
                |feeds| black_box(replicate(feeds, &block)),
                BatchSize::LargeInput,
            );
        });
    }
    group.bench_function("every other block from each side", |bencher| {
        let block = Bytes::from(vec![7; 64]);
        bencher.iter_batched(
            || [Stub::every_other(LENGTH, 0), Stub::every_other(LENGTH, 1)],
            |feeds| black_box(replicate(feeds, &block)),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// A feed that believes everything.
struct Stub {
    length: u64,
    contiguous: u64,
    stored: Vec<u32>,
}

impl Stub {
    fn full(length: u64) -> Self {
        Self::of(length, 0..length)
    }

    fn every_other(length: u64, first: u64) -> Self {
        Self::of(length, (first..length).step_by(2))
    }

    fn of(length: u64, stored: impl Iterator<Item = u64>) -> Self {
        let mut feed = Self { length, contiguous: 0, stored: vec![0; LENGTH as usize / 32 + 1] };
        stored.for_each(|index| feed.store(index));
        feed
    }

    fn store(&mut self, index: u64) {
        self.stored[index as usize / 32] |= 1 << (index % 32);
        while self.has(self.contiguous) {
            self.contiguous += 1;
        }
    }

    fn prove(&self, request: &ProofRequest, block: &Bytes) -> Proof {
        let nodes = (0..NODES).map(|index| Node { index, size: 1_024, hash: [7; 32] }).collect();
        let block = request.block.map(|asked| BlockProof { index: asked.index, value: block.clone(), nodes });
        let (nodes, additional_nodes, signature) = Default::default();
        let upgrade = request.upgrade.map(|asked| {
            Box::new(UpgradeProof {
                start: asked.start,
                length: asked.length,
                nodes,
                additional_nodes,
                signature,
            })
        });
        Proof { block, upgrade, ..Proof::default() }
    }

    fn ingest(&mut self, proof: &Proof) {
        if let Some(upgrade) = &proof.upgrade {
            self.length = upgrade.start + upgrade.length;
        }
        if let Some(block) = &proof.block {
            self.store(block.index);
        }
    }
}

impl Local for Stub {
    fn fork(&self) -> u64 {
        0
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn contiguous_length(&self) -> u64 {
        self.contiguous
    }

    fn has(&self, index: u64) -> bool {
        index < LENGTH && self.stored[index as usize / 32] >> (index % 32) & 1 == 1
    }

    fn has_manifest(&self) -> bool {
        false
    }

    fn needs_manifest(&self) -> bool {
        false
    }

    fn missing_nodes(&self, _: u64) -> u64 {
        0
    }

    fn next_missing(&self, from: u64, to: u64) -> Option<u64> {
        (from.max(self.contiguous)..to).find(|index| !self.has(*index))
    }

    fn words(&self, start: u64, length: u64) -> Vec<(u64, Vec<u32>)> {
        assert_eq!((start, length), (0, LENGTH));
        vec![(0, self.stored.clone())]
    }
}

/// Returns how many messages it took.
fn replicate(feeds: [Stub; 2], block: &Bytes) -> usize {
    let key = FeedKey::from_bytes([3; 32]);
    let keys = [PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32])];
    let session = |is_initiator| Session { binding: [4; 64], is_initiator, local: keys[0], remote: keys[1] };
    let (limits, options) = (Limits::default(), Options { live: false, ..Options::default() });
    #[allow(clippy::disallowed_methods, reason = "any time will do to begin with")]
    let now = Instant::now();
    let mut sides = [true, false].map(|is_initiator| {
        let (swarm, pace) = (Arc::new(Swarm::default()), Arc::new(Pace::new(&limits)));
        let channel = Channel::new(&session(is_initiator), &key, options, &limits, &swarm, &pace);
        let remote = replication::handshake(&session(!is_initiator), &key);
        let remote = Channel::verify_handshake(&session(is_initiator), &key, &remote);
        (channel, remote.expect("a good handshake"), Vec::new())
    });
    let mut feeds = feeds;
    for ((channel, remote, _), feed) in sides.iter_mut().zip(&feeds) {
        channel.handle_opened(*remote, feed);
    }
    let mut count = 0;
    loop {
        let mut busy = false;
        for n in 0..2 {
            let (feed, other) = (&mut feeds[n], 1 - n);
            let inbox: Vec<(u64, Bytes)> = std::mem::take(&mut sides[n].2);
            for (message_type, payload) in inbox {
                sides[n].0.handle_message(message_type, payload, feed, now).expect("an honest remote");
            }
            let mut stored = Vec::new();
            while let Some(output) = sides[n].0.poll_output(feed, now) {
                busy = true;
                match output {
                    Output::Send { message_type, payload } => {
                        count += 1;
                        sides[other].2.push((message_type, payload.into_bytes()));
                    }
                    Output::Serve { ticket, request, .. } => {
                        sides[n].0.handle_served(ticket, Ok(Some(feed.prove(&request, block))));
                    }
                    // Nobody says anything, or forks.
                    Output::Extension { .. }
                    | Output::Follow { .. }
                    | Output::Forgo { .. }
                    | Output::CheckConflict { .. } => {}
                    Output::Ingest { ticket, proof } => {
                        feed.ingest(&proof);
                        stored.push(ticket);
                    }
                }
            }
            for ticket in stored {
                sides[n].0.handle_ingested(ticket, Ok(Verdict::Holds), feed).expect("an honest remote");
            }
            busy |= !sides[n].0.status(feed).in_sync;
        }
        if !busy {
            break;
        }
    }
    assert!(feeds.iter().all(|feed| feed.contiguous == LENGTH), "not all was replicated");
    count
}

criterion_group!(benches, transfer);
criterion_main!(benches);
