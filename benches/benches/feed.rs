//! What a feed costs a block: appended, proved, and verified, in memory.

use std::{hint::black_box, sync::Arc};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use party::{
    feed::{
        Feed, Identity,
        memory::MemoryStorage,
        proof::{BlockRequest, Proof, ProofRequest, UpgradeRequest},
        storage::Slot,
    },
    key::KeyPair,
};
use tokio::runtime::Runtime;

const SIZES: [usize; 3] = [64, 1_024, 65_536];
const APPENDED: usize = 128;
const VERIFIED: u64 = 512;

fn append(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("feed append");
    for size in SIZES {
        for batch in [1, APPENDED] {
            let blocks = vec![Bytes::from(vec![7; size]); batch];
            let feed = runtime.block_on(feed(writer()));
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(format!("{batch} x {size}"), |bencher| {
                bencher.iter(|| runtime.block_on(feed.append_batch(blocks.clone())).expect("appends"));
            });
        }
    }
}

fn prove(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("feed prove");
    for size in SIZES {
        let writer = runtime.block_on(written(size));
        group.throughput(Throughput::Elements(VERIFIED));
        group.bench_function(size.to_string(), |bencher| {
            bencher.iter(|| black_box(runtime.block_on(proofs(&writer))));
        });
    }
}

fn ingest(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("feed ingest");
    for size in SIZES {
        let writer = runtime.block_on(written(size));
        let proofs = runtime.block_on(proofs(&writer));
        group.throughput(Throughput::Elements(VERIFIED));
        group.bench_function(size.to_string(), |bencher| {
            bencher.iter_batched(
                || (runtime.block_on(reader(&writer)), proofs.clone()),
                |(reader, proofs)| {
                    for result in runtime.block_on(reader.ingest(proofs)) {
                        result.expect("the proofs hold");
                    }
                    reader
                },
                BatchSize::LargeInput,
            );
        });
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

fn writer() -> Identity {
    Identity::writer(KeyPair::from_seed(&[1; 32]))
}

async fn feed(identity: Identity) -> Feed {
    Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await.expect("a feed")
}

/// A feed somewhat longer than what is read of it.
async fn written(size: usize) -> Feed {
    let feed = feed(writer()).await;
    feed.append_batch(vec![vec![7; size].into(); VERIFIED as usize + 300]).await.expect("appends");
    feed
}

/// A reader that has the tree and no block.
async fn reader(writer: &Feed) -> Feed {
    let reader = feed(Identity::reader(writer.key())).await;
    let upgrade = UpgradeRequest { start: 0, length: writer.info().length };
    let request = ProofRequest { upgrade: Some(upgrade), manifest: true, ..ProofRequest::default() };
    let proof = writer.prove(request, 0).await.expect("proves").expect("has it");
    reader.ingest(vec![proof]).await.remove(0).expect("the proof holds");
    reader
}

/// All blocks in their order, as a reader asks for them that knows what it has asked for before: so that
/// each proof leads to a node that one before it has shown.
async fn proofs(writer: &Feed) -> Vec<Proof> {
    let mut proofs = Vec::with_capacity(VERIFIED as usize);
    for index in 0..VERIFIED {
        // Block 0 leads to the root of 512 blocks, every other to a sibling of one before.
        let nodes = if index == 0 { 9 } else { u64::from(index.trailing_zeros()) };
        let block = Some(BlockRequest { index, nodes });
        let request = ProofRequest { block, ..ProofRequest::default() };
        proofs.push(writer.prove(request, 0).await.expect("proves").expect("has it"));
    }
    proofs
}

criterion_group!(benches, append, prove, ingest);
criterion_main!(benches);
