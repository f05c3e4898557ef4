//! In which order blocks are asked for.

use std::collections::BTreeSet;

use super::{
    millis,
    net::{FAST, Manner, Net, Quality},
};
use crate::{
    feed::{Order, local::Demand},
    replication::{
        Options,
        messages::Message,
        tests::{
            model::Model,
            pair::{End, Pair},
        },
    },
};

/// The blocks that an end has asked for, and whether with priority.
fn asked(end: &End<Model>) -> Vec<(u64, bool)> {
    let requests = end.sent.iter().filter_map(|message| match message {
        Message::Request(request) => Some((request.proof.block?.index, request.priority > 0)),
        _ => None,
    });
    requests.collect()
}

/// A writer, and a reader that knows nothing.
fn pair(length: u64, demand: Demand) -> Pair<Model> {
    let feeds = [Model::writer(length), Model::reader()];
    let mut pair = Pair::new(feeds, [Options::default(); 2]);
    pair.ends[1].demand(demand);
    pair
}

#[test]
fn newest_first_arrives_in_descending_order() {
    let mut pair = pair(1_000, Demand::nothing().with(Order::Newest, [100..u64::MAX]));
    pair.run().unwrap();
    let blocks = asked(&pair.ends[1]).into_iter().map(|(index, _)| index);
    assert!(blocks.eq((100..1_000).rev()));
    // What is appended is newer than what was there.
    pair.ends[1].sent.clear();
    pair.ends[0].append(10);
    pair.run().unwrap();
    let blocks = asked(&pair.ends[1]).into_iter().map(|(index, _)| index);
    assert!(blocks.eq((1_000..1_010).rev()));
    assert!(pair.ends[1].status().in_sync);
}

#[test]
fn urgent_blocks_overtake_a_long_download_under_way() {
    let mut pair = pair(5_000, Demand::everything());
    while pair.ends[1].feed.stored.len() < 300 {
        for n in 0..2 {
            pair.pump(n);
            pair.deliver(n, 10).unwrap();
            pair.serve(n, 0);
            pair.ingest(n, 10).unwrap();
        }
    }
    let before = asked(&pair.ends[1]).len();
    pair.ends[1].demand(Demand::everything().with_urgent([4_000..4_003, 100..101, 4_900..4_901]));
    pair.run().unwrap();
    let asked = asked(&pair.ends[1]);
    let first: Vec<_> = asked[before..].iter().take(5).map(|(_, priority)| *priority).collect();
    assert_eq!(first, [true, true, true, true, false]);
    assert!(asked[before..].iter().take(4).map(|(index, _)| *index).eq([4_000, 4_001, 4_002, 4_900]));
    assert_eq!(asked.len(), 5_000, "each once");
}

#[test]
fn mixed_orders_ask_for_each_block_once() {
    let demand = Demand::from_ranges([0..300])
        .with(Order::Newest, [100..u64::MAX])
        .with(Order::Rarest, [0..400, 450..460])
        .with_urgent([7..8, 350..351, 499..500]);
    let mut pair = pair(500, demand);
    pair.run().unwrap();
    let asked: Vec<u64> = asked(&pair.ends[1]).into_iter().map(|(index, _)| index).collect();
    assert_eq!(asked.len(), 500);
    assert_eq!(asked.into_iter().collect::<BTreeSet<_>>().len(), 500);
    assert!(pair.ends[1].status().in_sync);
}

#[test]
fn what_one_peer_alone_has_is_asked_of_it_first() {
    const RARE: std::ops::Range<u64> = 200..220;
    let others = || Model::sparse(400, (0..400).filter(|index| !RARE.contains(index)));
    let feeds = vec![Model::writer(400), others(), others(), Model::sparse(400, [])];
    let mut net = Net::new(feeds, 3);
    for n in 0..3 {
        net.demand(n, Demand::nothing());
    }
    // One block, so that they tell what they have.
    net.demand(3, Demand::from_ranges([0..1]));
    let links = [0, 1, 2].map(|n| net.connect(3, n, FAST));
    net.run();
    let before = links.map(|link| net.links[&link].ends[0].requests.len());
    net.demand(3, Demand::nothing().with(Order::Rarest, [0..u64::MAX]));
    net.run();
    let of = |n: usize| &net.links[&links[n]].ends[0].requests[before[n]..];
    assert!(of(0).iter().take(20).copied().eq(RARE), "{:?}", of(0));
    for n in 0..3 {
        assert!(of(n).len() > 20 && (n == 0 || !of(n).iter().any(|index| RARE.contains(index))));
    }
    let mut all: Vec<u64> = (0..3).flat_map(of).copied().collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(1..400));
    net.check();
}

/// Who was too slow is asked again for what the one who took over did not bring.
#[test]
fn what_was_taken_over_and_not_brought_is_asked_for_again() {
    let far = Quality { latency: millis(1_000), ..FAST };
    let mut net = Net::new(vec![Model::writer(40), Model::writer(40), Model::reader()], 3);
    net.nodes[0].manner = Manner::Late(millis(20_000));
    net.nodes[2].feed = Model::sparse(40, []);
    net.connect(2, 0, FAST);
    net.run_for(millis(100));
    let link = net.connect(2, 1, far);
    assert!(net.run_until(|net| net.links[&link].ends[0].requests.len() >= 40), "nobody takes over");
    net.nodes[0].manner = Manner::Honest;
    net.cut(link);
    net.run();
    net.check();
    assert_eq!(net.nodes[2].feed.stored.len(), 40);
}
