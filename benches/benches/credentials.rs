//! What it costs to believe a membership, to ask whether it was revoked, and to meet by one.

use std::{future::IntoFuture as _, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use party::{
    connection::{self, Connection},
    credentials::{Grant, Membership, Revocation, Revocations, Revoked, Terms},
    key::{KeyPair, PartyKey},
    limits::Limits,
    members::Members,
    party::{Event, Party},
    rules::WholeStore,
    store::Store,
};

fn pair(n: u64) -> KeyPair {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&n.to_le_bytes());
    KeyPair::from_seed(&seed)
}

/// The founder, whose pair is number 0, and a chain through the pairs with these numbers.
fn chain(pairs: &[u64]) -> (PartyKey, Membership) {
    let (founder, limits) = (pair(0), Limits::default());
    let party = PartyKey::from_bytes(*founder.public().as_bytes());
    let grant = |n: usize| {
        let depth = (pairs.len() - 1 - n) as u64;
        Grant::to(pair(pairs[n]).public(), Terms::everything().delegable(depth).expiring(2_000_000_000))
    };
    let first = Membership::found(&founder, grant(0), &limits).expect("the grant is sound");
    let membership = (1..pairs.len()).fold(first, |chain, n| {
        chain.extend(&party, &pair(pairs[n - 1]), grant(n), &limits).expect("the grant is narrower")
    });
    (party, membership)
}

fn verify(criterion: &mut Criterion) {
    let limits = Limits::default();
    for links in 1..=3 {
        let (party, membership) = chain(&[1, 2, 3][..links]);
        let holder = membership.claimed_holder();
        let bytes = membership.encode();
        criterion.bench_function(&format!("membership/decode and verify, {links} links"), |bencher| {
            bencher.iter(|| {
                let shown = Membership::decode(black_box(&bytes), &limits).expect("it can be read");
                black_box(shown.verify_for(&party, &holder, 1_800_000_000).expect("it holds"))
            });
        });
    }
}

fn revoked(criterion: &mut Criterion) {
    let limits = Limits::default();
    let (party, membership) = chain(&[1, 2, 3]);
    let asked = membership.check(&party).expect("it holds");
    let mut known = Revocations::new(party, &limits);
    for n in 0..limits.max_founder_revocations as u64 {
        let chain = chain(&[100 + n]).1.check(&party).expect("it holds");
        let revocation = Revocation::sign(&chain, &pair(0), Revoked::Key, [], &limits).expect("it may");
        let verified = revocation.verify(&party).expect("it holds");
        let _ = known.insert(verified).expect("it is of this party");
    }
    criterion.bench_function("revocations/is_revoked among 4096", |bencher| {
        bencher.iter(|| black_box(known.is_revoked(black_box(&asked))));
    });
    criterion.bench_function("revocations/summary of 4096", |bencher| {
        bencher.iter(|| black_box(known.summary([7; 16])));
    });
}

/// From the first byte of the connection until the apps of both ends see the other.
async fn meet(here: &(KeyPair, Party), there: &(KeyPair, Party)) {
    let mut events = [here.1.events(), there.1.events()];
    let (left, right) = connection::memory();
    let _connections = tokio::try_join!(
        Connection::dial(left, &here.0).join(&here.1).into_future(),
        Connection::accept(right, &there.0).join(&there.1).into_future(),
    )
    .expect("they know the party");
    for events in &mut events {
        while !matches!(events.next().await, Some(Event::PeerAdded(_))) {}
    }
}

fn meeting(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there is room");
    let key = PartyKey::from_bytes(*pair(0).public().as_bytes());
    let by_key = |n| (pair(n), Party::new(key, WholeStore::new(Store::memory())));
    let by_membership = |n| {
        runtime.block_on(async {
            let (me, store) = (pair(n), Store::memory());
            let members = Members::open(&store, &key, &me).await.expect("there is nothing yet");
            let grant = Grant::to(me.public(), Terms::everything());
            let membership = members.grant_as(&pair(0), grant).await.expect("the founder may");
            members.set_membership(membership).await.expect("it is ours");
            (me, Party::new(key, members.rule(WholeStore::new(store))))
        })
    };
    let pairs = [
        ("meet/by the party's key", by_key(1), by_key(2)),
        ("meet/by membership", by_membership(1), by_membership(2)),
    ];
    for (name, here, there) in &pairs {
        criterion.bench_function(name, |bencher| bencher.iter(|| runtime.block_on(meet(here, there))));
    }
}

criterion_group!(benches, verify, revoked, meeting);
criterion_main!(benches);
