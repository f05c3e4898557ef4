//! The handshake, and what sealing and opening a message costs.

use std::{error::Error, hint::black_box};

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use party::{
    key::KeyPair,
    limits::Limits,
    noise::{Handshake, HandshakeConfig, Progress, SecretStream},
};

/// Block sizes of the side-by-side runs, with what `data` adds left out.
const SIZES: [usize; 3] = [64, 1_024, 65_536];
const FRAMES: usize = 16;

fn handshake(criterion: &mut Criterion) {
    let (alice, bob) = (KeyPair::from_seed(&[1; 32]), KeyPair::from_seed(&[2; 32]));
    criterion.bench_function("handshake/xx, both ends", |bencher| {
        bencher.iter(|| {
            let alice = HandshakeConfig::xx(true, alice.clone(), [3; 32]);
            let bob = HandshakeConfig::xx(false, bob.clone(), [4; 32]);
            black_box(establish(alice, bob).expect("the handshake is sound"))
        });
    });
    criterion.bench_function("handshake/ik, both ends", |bencher| {
        bencher.iter(|| {
            let alice = HandshakeConfig::ik_initiator(alice.clone(), bob.public(), [3; 32]);
            let bob = HandshakeConfig::ik_responder(bob.clone(), [4; 32]);
            black_box(establish(alice, bob).expect("the handshake is sound"))
        });
    });
}

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    for size in SIZES {
        let (mut alice, _) = streams();
        let message = vec![7; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(size.to_string(), |bencher| {
            bencher.iter(|| {
                alice.seal(&message).expect("the message is short enough");
                alice.outgoing().clear();
            });
        });
    }
}

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    for size in SIZES {
        let (mut alice, mut bob) = streams();
        let message = vec![7; size];
        group.throughput(Throughput::Bytes((FRAMES * size) as u64));
        group.bench_function(size.to_string(), |bencher| {
            bencher.iter_batched(
                || {
                    for _ in 0..FRAMES {
                        alice.seal(&message).expect("the message is short enough");
                    }
                    alice.outgoing().split()
                },
                |mut wire| {
                    bob.handle_input(&mut wire).expect("the frames are sound");
                    while let Some(message) = bob.poll_message() {
                        black_box(message);
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
}

/// Both ends of a stream, the header frames already exchanged.
fn streams() -> (SecretStream, SecretStream) {
    let alice = HandshakeConfig::xx(true, KeyPair::from_seed(&[1; 32]), [3; 32]);
    let bob = HandshakeConfig::xx(false, KeyPair::from_seed(&[2; 32]), [4; 32]);
    establish(alice, bob).expect("the handshake is sound")
}

fn establish(
    alice: HandshakeConfig,
    bob: HandshakeConfig,
) -> Result<(SecretStream, SecretStream), Box<dyn Error>> {
    let limits = Limits::default();
    let (mut alice, mut bob) = (Handshake::new(alice, &limits)?, Handshake::new(bob, &limits)?);
    let (mut to_alice, mut to_bob) = (BytesMut::new(), BytesMut::new());
    let mut alice = loop {
        to_bob.extend(alice.poll_transmit());
        match bob.handle_input(&mut to_bob)? {
            Progress::Pending(pending) => bob = pending,
            // In IK the responder is there first.
            Progress::Established(mut bob) => {
                to_alice.unsplit(bob.outgoing().split());
                let Progress::Established(mut alice) = alice.handle_input(&mut to_alice)? else {
                    return Err("the initiator wants more".into());
                };
                alice.handle_input(&mut to_alice)?;
                bob.handle_input(alice.outgoing())?;
                return Ok((alice, bob));
            }
        }
        to_alice.extend(bob.poll_transmit());
        match alice.handle_input(&mut to_alice)? {
            Progress::Pending(pending) => alice = pending,
            Progress::Established(alice) => break alice,
        }
    };
    let Progress::Established(mut bob) = bob.handle_input(alice.outgoing())? else {
        return Err("the responder wants more".into());
    };
    bob.handle_input(alice.outgoing())?;
    alice.handle_input(bob.outgoing())?;
    Ok((alice, bob))
}

criterion_group!(benches, handshake, seal, open);
criterion_main!(benches);
