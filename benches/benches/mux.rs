//! What the mux costs a message, on its way out and in.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use party::{
    limits::Limits,
    mux::{ChannelId, Event, Mux},
};

const SIZES: [usize; 3] = [64, 1_024, 65_536];
const MESSAGES: usize = 64;

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mux encode");
    for size in SIZES {
        let (mut alice, channel, _) = paired();
        let payload = vec![7; size];
        group.throughput(Throughput::Elements(MESSAGES as u64));
        group.bench_function(size.to_string(), |bencher| {
            bencher.iter(|| black_box(send(&mut alice, channel, &payload)));
        });
    }
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mux decode");
    for size in SIZES {
        let (mut alice, channel, mut bob) = paired();
        let batches = send(&mut alice, channel, &vec![7; size]);
        group.throughput(Throughput::Elements(MESSAGES as u64));
        group.bench_function(size.to_string(), |bencher| {
            bencher.iter_batched(
                || batches.clone(),
                |batches| {
                    for batch in batches {
                        bob.handle_message(batch);
                        while let Some(event) = bob.poll_event().expect("the batches are sound") {
                            black_box(event);
                        }
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
}

fn send(mux: &mut Mux, channel: ChannelId, payload: &[u8]) -> Vec<Bytes> {
    for _ in 0..MESSAGES {
        mux.send(channel, 3, payload).expect("the payload is short enough");
    }
    std::iter::from_fn(|| mux.poll_transmit()).collect()
}

/// Two ends with one channel between them, and the first one's handle of it.
fn paired() -> (Mux, ChannelId, Mux) {
    let (mut alice, mut bob) = (Mux::new(&Limits::default()), Mux::new(&Limits::default()));
    let channel = alice.open("bench/1", None, b"").expect("the first channel");
    while let Some(message) = alice.poll_transmit() {
        bob.handle_message(message);
    }
    let Ok(Some(Event::Incoming { incoming, .. })) = bob.poll_event() else { panic!("no open has come") };
    bob.accept(incoming, b"").expect("a short handshake").expect("nobody else answered");
    while let Some(message) = bob.poll_transmit() {
        alice.handle_message(message);
    }
    assert!(matches!(alice.poll_event(), Ok(Some(Event::Opened { .. }))), "the channel is not paired");
    (alice, channel, bob)
}

criterion_group!(benches, encode, decode);
criterion_main!(benches);
