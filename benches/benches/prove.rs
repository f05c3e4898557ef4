//! Proofs as a serving peer makes them: many at once, from a store on disk.
//!
//! Time on the clock flatters whatever leaves the work to other threads, so beside what criterion says, the CPU time of
//! the process for each proof is printed.
#![allow(clippy::disallowed_methods, reason = "it measures")]
#![allow(clippy::print_stderr)]

use std::{fs, hint::black_box, time::Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use party::{
    feed::{
        Feed,
        proof::{BlockRequest, ProofRequest},
    },
    store::Store,
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// Proofs made at once, as many as a connection makes.
const BATCH: u64 = 256;
/// Block size, and blocks of the feed.
const FEEDS: [(usize, u64); 3] = [(64, 200_000), (1_024, 50_000), (65_536, 1_000)];
/// Batches of one measurement of CPU time.
const BATCHES: u64 = 400;

fn prove_many(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().build().expect("a runtime without IO");
    let mut group = criterion.benchmark_group("prove_many on disk");
    group.throughput(Throughput::Elements(BATCH));
    for (size, length) in FEEDS {
        let (feed, _folder) = stored(&runtime, size, length);
        for (name, in_order) in [("in order", true), ("at random", false)] {
            let batch = if size > 10_000 { BATCH / 16 } else { BATCH };
            let mut at = 0;
            let mut next = || {
                at += 1;
                prove(&runtime, &feed, requests(at * batch, batch, length, in_order));
            };
            report(&format!("{size}, {name}"), batch, &mut next);
            group.throughput(Throughput::Elements(batch));
            group.bench_function(format!("{batch} of {size}, {name}"), |bencher| bencher.iter(&mut next));
        }
    }
    group.finish();
}

/// A feed that was written, closed, and opened again.
fn stored(runtime: &Runtime, size: usize, length: u64) -> (Feed, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let feed = runtime.block_on(async {
        let store = Store::open(folder.path()).await.expect("a new store");
        let feed = store.named_feed("bench").await.expect("a new feed");
        for from in (0..length).step_by(1_000) {
            let block = |n: u64| Bytes::from(vec![n as u8; size]);
            let blocks = (from..length.min(from + 1_000)).map(block).collect();
            feed.append_batch(blocks).await.expect("room on the disk");
        }
        store.close().await;
        let store = Store::open(folder.path()).await.expect("the same store");
        store.named_feed("bench").await.expect("the same feed")
    });
    (feed, folder)
}

/// What a reader asks that has the blocks before, or nothing at all.
fn requests(at: u64, count: u64, length: u64, in_order: bool) -> Vec<(ProofRequest, u64)> {
    let block = |n: u64| {
        // Multiples of a large odd number are spread well enough.
        let index = if in_order { n % length } else { n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % length };
        let nodes =
            if in_order { u64::from(index.trailing_zeros().min(4)) } else { 10.min(length.ilog2().into()) };
        // The largest subtree around it that is whole.
        let whole = |nodes: &u64| ((index >> nodes) + 1) << nodes <= length;
        let nodes = (0..=nodes).rev().find(whole).unwrap_or_default();
        (ProofRequest { block: Some(BlockRequest { index, nodes }), ..ProofRequest::default() }, 0)
    };
    (at..at + count).map(block).collect()
}

fn prove(runtime: &Runtime, feed: &Feed, requests: Vec<(ProofRequest, u64)>) {
    let proofs = runtime.block_on(feed.prove_many(requests));
    assert!(proofs.iter().all(|proof| matches!(proof, Ok(Some(_)))), "a block is not there");
    black_box(proofs);
}

fn report(name: &str, batch: u64, next: &mut impl FnMut()) {
    let (start, cpu) = (Instant::now(), cpu_micros());
    (0..BATCHES).for_each(|_| next());
    let (clock, count) = (start.elapsed().as_micros() as f64, (BATCHES * batch) as f64);
    if let (Some(before), Some(after)) = (cpu, cpu_micros()) {
        let cpu = (after - before) / count;
        eprintln!("{name}: {cpu:.2} us of CPU and {:.2} us on the clock for each proof", clock / count);
    }
}

/// User and system time of all threads, where the system tells: in ticks of 10 ms.
fn cpu_micros() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) * 10_000.0)
}

criterion_group!(benches, prove_many);
criterion_main!(benches);
