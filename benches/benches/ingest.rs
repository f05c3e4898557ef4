//! Taking in what a peer sends: hashing, verifying and storing, in batches as they come from a connection.
//!
//! What is measured is the time of the processor, of all threads together, for a whole feed; the throughput is
//! that of one core. Proofs have no more nodes than a reader lacks that has asked for all of them at once, as
//! replication does.

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{
    Criterion, Throughput, criterion_group, criterion_main,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use party::{
    feed::{
        Feed, Identity,
        memory::MemoryStorage,
        proof::{BlockRequest, Proof, ProofRequest, UpgradeRequest},
        storage::{Slot, Storage},
    },
    key::KeyPair,
    store::disk::DiskStorage,
};
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// Bytes of a block, blocks of the feed, and of a batch.
const KINDS: [(usize, u64, usize); 4] =
    [(64, 65_536, 512), (64, 16_384, 32), (1_024, 65_536, 512), (65_536, 1_024, 32)];
/// Odd, so that it reaches every block of a feed whose length is a power of two.
const STRIDE: u64 = 10_007;

fn ingest(criterion: &mut Criterion<CpuTime>) {
    let runtime = Builder::new_multi_thread().worker_threads(1).build().expect("a runtime without IO");
    for (size, length, batch) in KINDS {
        for (order, stride) in [("in order", 1), ("at random", STRIDE)] {
            let feed = runtime.block_on(writer(size, length));
            let proofs = runtime.block_on(proofs(&feed, length, stride));
            for place in ["memory", "disk"] {
                let mut group = criterion.benchmark_group(format!("ingest into {place}"));
                group.throughput(Throughput::Elements(length)).sample_size(10);
                group.bench_function(format!("{batch} x {size} B {order}"), |bencher| {
                    bencher.iter_custom(|rounds| {
                        (0..rounds).map(|_| take_in(&runtime, &feed, &proofs, batch, place)).sum()
                    });
                });
            }
        }
    }
}

/// What a fresh reader takes for `proofs`.
fn take_in(runtime: &Runtime, feed: &Feed, proofs: &[Proof], batch: usize, place: &str) -> Duration {
    let folder = TempDir::new().expect("a folder for temporary files");
    let (reader, storage) = runtime.block_on(reader(feed, (place == "disk").then_some(folder.path())));
    let mut batches: Vec<Vec<Proof>> = proofs.chunks(batch).map(<[Proof]>::to_vec).collect();
    let before = cpu_time();
    runtime.block_on(async {
        for proofs in batches.drain(..) {
            let results = reader.ingest(proofs).await;
            assert!(
                results.iter().all(|result| matches!(result, Ok(done) if done.block.is_some())),
                "a proof was not taken in"
            );
        }
    });
    let spent = cpu_time() - before;
    runtime.block_on(storage.close()).expect("it closes");
    spent
}

async fn writer(size: usize, length: u64) -> Feed {
    let identity = Identity::writer(KeyPair::from_seed(&[1; 32]));
    let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await.expect("empty");
    for start in (0..length).step_by(256) {
        let block = |index: u64| Bytes::from(index.to_le_bytes().repeat(size / 8));
        feed.append_batch((start..length.min(start + 256)).map(block).collect()).await.expect("in memory");
    }
    feed
}

/// A reader that has the manifest and the signed tree, and no block.
async fn reader(feed: &Feed, folder: Option<&Path>) -> (Feed, Arc<dyn Storage>) {
    let storage: Arc<dyn Storage> = match folder {
        Some(folder) => Arc::new(DiskStorage::open(folder).await.expect("a new store")),
        None => Arc::new(MemoryStorage::new()),
    };
    let reader = Feed::create(storage.clone(), Slot(0), Identity::reader(feed.key())).await.expect("empty");
    let upgrade = Some(UpgradeRequest { start: 0, length: feed.info().length });
    let request = ProofRequest { upgrade, manifest: true, ..ProofRequest::default() };
    let proof = feed.prove(request, 0).await.expect("a sound storage").expect("the whole feed is there");
    assert!(reader.ingest(vec![proof]).await.iter().all(Result::is_ok), "the upgrade does not verify");
    (reader, storage)
}

/// Proofs of all blocks, each without the nodes that those before it bring.
async fn proofs(feed: &Feed, length: u64, stride: u64) -> Vec<Proof> {
    assert!(length.is_power_of_two());
    let mut known = HashSet::from([length - 1]);
    let mut proofs = Vec::new();
    for index in (0..length).map(|n| n * stride % length) {
        let (mut node, mut nodes) = (2 * index, 0);
        while known.insert(node) {
            let step = 1 << (nodes + 1);
            let (left, right) = if node & step == 0 { (node, node + step) } else { (node - step, node) };
            known.extend([left, right]);
            node = left + step / 2;
            nodes += 1;
        }
        let request = ProofRequest { block: Some(BlockRequest { index, nodes }), ..ProofRequest::default() };
        proofs.push(feed.prove(request, 0).await.expect("a sound storage").expect("the block is there"));
    }
    proofs
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.try_into().unwrap_or_default())
}

/// The time of the processor, which doesn't depend on what else the machine does.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        cpu_time()
    }

    fn end(&self, start: Duration) -> Duration {
        cpu_time() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .with_measurement(CpuTime)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(2));
    targets = ingest
}
criterion_main!(benches);
