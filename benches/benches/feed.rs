//! Appending, proving and verifying, in memory: what the tree costs, without a disk or a wire.

use std::{future::Future, hint::black_box, sync::Arc};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use party::{
    feed::{
        Feed, Identity, Local,
        memory::MemoryStorage,
        proof::{BlockRequest, Proof, ProofRequest, UpgradeRequest},
        storage::Slot,
    },
    key::KeyPair,
};
use tokio::runtime::{Builder, Runtime};

const SIZES: [usize; 3] = [64, 1_024, 65_536];
/// Blocks of a batch that is appended, and of a batch of proofs that is verified.
const BATCH: u64 = 128;
/// Blocks of the feed that the proofs are of.
const LENGTH: u64 = 1_024;

fn append(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one block of 1024", |bencher| {
        let feed = runtime.block_on(writer());
        bencher.iter(|| expect(&runtime, feed.append(vec![7; 1_024])));
    });
    group.throughput(Throughput::Elements(BATCH));
    for size in SIZES {
        group.bench_function(format!("a batch of {BATCH} blocks of {size}"), |bencher| {
            let blocks = vec![Bytes::from(vec![7; size]); BATCH as usize];
            bencher.iter_batched(
                || (runtime.block_on(writer()), blocks.clone()),
                |(feed, blocks)| expect(&runtime, feed.append_batch(blocks)),
                BatchSize::SmallInput,
            );
        });
    }
}

fn prove(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("prove");
    group.throughput(Throughput::Elements(BATCH));
    for size in SIZES {
        group.bench_function(format!("{BATCH} blocks of {size}"), |bencher| {
            let feed = runtime.block_on(writer());
            fill(&runtime, &feed, size);
            let reader = runtime.block_on(reader_that_knows_the_length(&feed));
            bencher.iter(|| black_box(runtime.block_on(proofs(&feed, &reader))));
        });
    }
}

fn verify(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("verify");
    group.throughput(Throughput::Elements(BATCH));
    for size in SIZES {
        group.bench_function(format!("a batch of {BATCH} blocks of {size}"), |bencher| {
            let feed = runtime.block_on(writer());
            fill(&runtime, &feed, size);
            let reader = runtime.block_on(reader_that_knows_the_length(&feed));
            let proofs = runtime.block_on(proofs(&feed, &reader));
            bencher.iter_batched(
                || (runtime.block_on(reader_that_knows_the_length(&feed)), proofs.clone()),
                |(reader, proofs)| {
                    let results = runtime.block_on(reader.ingest(proofs));
                    assert!(results.iter().all(Result::is_ok), "a proof does not verify");
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("an upgrade with its signature", |bencher| {
        let feed = runtime.block_on(writer());
        fill(&runtime, &feed, 64);
        bencher.iter(|| black_box(runtime.block_on(reader_that_knows_the_length(&feed))));
    });
}

async fn writer() -> Feed {
    let identity = Identity::writer(KeyPair::from_seed(&[1; 32]));
    Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await.expect("an empty storage")
}

fn fill(runtime: &Runtime, feed: &Feed, size: usize) {
    let blocks = vec![Bytes::from(vec![7; size]); LENGTH as usize];
    expect(runtime, feed.append_batch(blocks));
}

/// A reader that has the manifest and the signed tree, and no block.
async fn reader_that_knows_the_length(feed: &Feed) -> Feed {
    let identity = Identity::reader(feed.key());
    let reader = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await.expect("empty");
    let request = ProofRequest {
        upgrade: Some(UpgradeRequest { start: 0, length: LENGTH }),
        manifest: true,
        ..ProofRequest::default()
    };
    let proof = feed.prove(request, 0).await.expect("a sound storage").expect("the whole feed is there");
    assert!(reader.ingest(vec![proof]).await.iter().all(Result::is_ok), "the upgrade does not verify");
    reader
}

/// Proofs of the first blocks as a reader asks for them all at once.
async fn proofs(feed: &Feed, reader: &Feed) -> Vec<Proof> {
    let mut proofs = Vec::new();
    for index in 0..BATCH {
        let nodes = reader.with_local(|local: &dyn Local| local.missing_nodes(index));
        let request = ProofRequest { block: Some(BlockRequest { index, nodes }), ..ProofRequest::default() };
        proofs.push(feed.prove(request, 0).await.expect("a sound storage").expect("the block is there"));
    }
    proofs
}

fn expect<T, E: std::fmt::Debug>(runtime: &Runtime, work: impl Future<Output = Result<T, E>>) -> T {
    runtime.block_on(work).expect("a feed of our own in memory")
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().expect("a runtime without IO")
}

criterion_group!(benches, append, prove, verify);
criterion_main!(benches);
