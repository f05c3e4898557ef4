//! Byte offsets that are found with the help of a remote.

use std::sync::Arc;

use proptest::prelude::*;

use super::pair::Pair;
use crate::{
    feed::{
        Demand, Feed, Identity,
        memory::MemoryStorage,
        seek::{Located, Sought},
        storage::Slot,
    },
    key::KeyPair,
    replication::{Options, RemoteHandshake, messages::Message},
};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn create(identity: Identity) -> Feed {
    block_on(Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity)).unwrap()
}

/// A writer of blocks of these sizes and a reader that wants none of them. Without `seeks`, the writer is of hypercore
/// 10.19, and so is the feed.
fn pair(sizes: &[usize], seeks: bool) -> Pair<Feed> {
    let signer = KeyPair::from_seed(&[9; 32]);
    let writer = create(if seeks { Identity::writer(signer) } else { Identity::legacy_writer(signer) });
    block_on(writer.append_batch(sizes.iter().map(|size| vec![7; *size].into()).collect())).unwrap();
    let reader = create(Identity::reader(writer.key()));
    let mut pair = Pair::new([writer, reader], [Options::default(); 2]);
    let end = &mut pair.ends[1];
    end.demand(Demand::nothing());
    end.feed.with_local(|local| end.channel.handle_opened(RemoteHandshake { seeks }, local));
    pair
}

/// Finds an offset as [`Feed::find`] does. Returns the place, and how many requests it took.
fn find(pair: &mut Pair<Feed>, bytes: u64) -> ((u64, u64), usize) {
    let before = pair.ends[1].sent(1);
    for _ in 0..100 {
        let end = &mut pair.ends[1];
        let length = end.feed.info().length;
        let (blocks, inner) = match block_on(end.feed.locate(bytes)).unwrap() {
            Located::Block { index, offset } => {
                end.channel.set_sought(vec![]);
                pair.run().unwrap();
                return ((index, offset), pair.ends[1].sent(1) - before);
            }
            Located::Within { blocks, offset } => (blocks, offset),
            Located::Beyond => (length..length, 0),
        };
        if blocks.end - blocks.start == 2 {
            end.demand(Demand::from_ranges([blocks]));
        } else {
            let near = blocks.start + inner / 50;
            end.channel.set_sought(vec![Sought { id: 1, bytes, padding: 0, blocks, near }]);
        }
        pair.run().unwrap();
    }
    panic!("not found");
}

fn expected(sizes: &[usize], bytes: u64) -> (u64, u64) {
    let mut start = 0;
    for (index, size) in (0..).zip(sizes) {
        let end = start + *size as u64;
        if bytes < end {
            return (index, bytes - start);
        }
        start = end;
    }
    (sizes.len() as u64, 0)
}

//= REPL-21
#[test]
fn an_offset_is_found_in_a_few_requests() {
    let sizes: Vec<usize> = (0..1_000).map(|n| 20 + n * 7919 % 61).collect();
    let total: usize = sizes.iter().sum();
    for (seeks, most) in [(true, 4), (false, 12)] {
        let mut pair = pair(&sizes, seeks);
        for bytes in [1, 777, 30_000, total as u64 - 1] {
            let (found, requests) = find(&mut pair, bytes);
            assert_eq!(found, expected(&sizes, bytes));
            assert!(requests <= most, "{requests} requests for {bytes}, seeks: {seeks}");
        }
        let stored = (0..1_000).filter(|index| pair.ends[1].feed.has(*index)).count();
        assert!(stored <= 8, "{stored} blocks for four offsets");
    }
}

//= REPL-21
#[test]
fn an_offset_beyond_the_end_comes_with_the_growth() {
    let mut pair = pair(&[50; 100], true);
    // Before it knows anything of the feed.
    let (found, requests) = find(&mut pair, 3_210);
    assert_eq!(found, (64, 10));
    assert!(requests <= 4, "{requests}");
    let seeks = pair.ends[1].sent.iter().any(|message| {
        matches!(message, Message::Request(request) if request.proof.seek.is_some() && request.proof.upgrade.is_some())
    });
    assert!(seeks);
}

// Both would have to be in what the upgrade brings.
#[test]
fn no_offset_is_asked_for_beside_a_block() {
    let mut pair = pair(&[50; 100], true);
    let end = &mut pair.ends[1];
    end.demand(Demand::everything());
    end.channel.set_sought(vec![Sought { id: 1, bytes: 3_210, padding: 0, blocks: 0..0, near: 0 }]);
    pair.run().unwrap();
    let growths = pair.ends[1].sent.iter().filter_map(|message| match message {
        Message::Request(request) if request.proof.upgrade.is_some() => Some(&request.proof),
        _ => None,
    });
    let parts: Vec<_> = growths.map(|proof| (proof.block.is_some(), proof.seek.is_some())).collect();
    assert_eq!(parts, [(true, false)]);
    assert_eq!(pair.ends[1].feed.info().contiguous_length, 100);
}

//= REPL-17
#[test]
fn a_remote_of_hypercore_10_19_is_asked_for_hashes_alone() {
    let mut pair = pair(&[50; 100], false);
    assert_eq!(find(&mut pair, 3_210).0, (64, 10));
    let requests = pair.ends[1].sent.iter().filter_map(|message| match message {
        Message::Request(request) => Some(request),
        _ => None,
    });
    assert!(requests.clone().any(|request| request.proof.hash.is_some()));
    assert!(
        requests.clone().all(|request| {
            request.proof.seek.is_none() && !request.proof.manifest && request.priority == 0
        })
    );
}

#[test]
fn a_remote_that_refuses_is_not_asked_again_for_the_same() {
    let mut pair = pair(&[50; 100], true);
    pair.run().unwrap();
    let end = &mut pair.ends[1];
    end.channel.set_sought(vec![Sought { id: 1, bytes: 3_210, padding: 0, blocks: 64..96, near: 64 }]);
    pair.pump(1);
    let refuse = |pair: &mut Pair<Feed>| {
        let requests: Vec<u64> = pair.ends[0]
            .inbox
            .drain(..)
            .filter_map(|(kind, payload)| {
                let message =
                    Message::decode(kind, &payload, true, &crate::limits::Limits::default()).unwrap();
                match message {
                    Some(Message::Request(request)) => Some(request.id),
                    _ => None,
                }
            })
            .collect();
        for request in &requests {
            let refusal =
                Message::NoData(crate::replication::messages::NoData { request: *request, reason: 1 });
            pair.ends[1].inbox.push_back((4, refusal.encode()));
        }
        requests.len()
    };
    assert_eq!(refuse(&mut pair), 1);
    assert!(!pair.ends[1].status().in_sync);
    pair.deliver(1, usize::MAX).unwrap();
    pair.pump(1);
    assert_eq!(refuse(&mut pair), 0);
    assert!(pair.ends[1].status().in_sync);
    // After a while it is.
    pair.now = pair.ends[1].channel.poll_timeout().unwrap();
    pair.pump(1);
    assert_eq!(refuse(&mut pair), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_offset_is_found(
        sizes in prop::collection::vec(0..80_usize, 1..80),
        offsets in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
        seeks in any::<bool>(),
    ) {
        let total: usize = sizes.iter().sum();
        let mut pair = pair(&sizes, seeks);
        pair.run().unwrap();
        for offset in offsets {
            let bytes = offset.index(total + 1) as u64;
            let (index, inner) = find(&mut pair, bytes).0;
            // Among blocks without bytes, where an offset is depends on the tree.
            let before: usize = sizes[..index as usize].iter().sum();
            prop_assert_eq!(before as u64 + inner, bytes);
        }
        prop_assert!(pair.ends.iter().all(|end| end.status().counters.refused_by_remote == 0));
        prop_assert!(pair.ends[1].feed.with_local(|local| local.length()) == sizes.len() as u64);
    }
}
