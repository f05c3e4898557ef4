//! What two honest ends come to.

use std::time::Instant;

use proptest::prelude::*;

use super::{
    model::Model,
    pair::{Pair, channel},
};
use crate::{
    feed::{
        local::{Demand, Local as _},
        proof::{ProofRequest, UpgradeRequest},
    },
    replication::{
        Options,
        messages::{Bitfield, Message, Range, Request, Sync, Want},
    },
};

const LIVE: Options =
    Options { live: true, download: true, upload: true, follow_forks: true, allow_push: false, push: false };
const FINITE: Options = Options { live: false, ..LIVE };

fn pair(a: Model, b: Model) -> Pair<Model> {
    Pair::new([a, b], [LIVE, LIVE])
}

#[test]
fn a_reader_gets_all_of_a_feed() {
    let mut pair = pair(Model::writer(2000), Model::reader());
    pair.run().unwrap();
    let [writer, reader] = &pair.ends;
    assert_eq!(reader.feed.contiguous_length(), 2000);
    assert!(reader.status().in_sync && reader.status().remote_in_sync);
    assert!(writer.status().in_sync && writer.status().remote_in_sync);
    assert_eq!(reader.status().counters.blocks_received, 2000);
    assert_eq!(writer.status().counters.bytes_sent, 20_000);
    // One request for the length and a block, one for each other block; and few words about it.
    assert_eq!((reader.sent(1), reader.sent(5)), (2000, 0));
    assert!(writer.sent.len() < 2010, "{}", writer.sent.len());
    assert!(reader.sent.len() < 2110, "{}", reader.sent.len());
}

//= REPL-12, REPL-58
#[test]
fn the_first_messages_are_a_sync_and_a_range() {
    let mut pair = pair(Model::writer(5), Model::reader());
    pair.pump(0);
    let sync = Sync {
        fork: 0,
        length: 5,
        remote_length: 0,
        can_upgrade: true,
        uploading: true,
        downloading: true,
        has_manifest: true,
        allow_push: false,
    };
    let range = Range { drop: false, start: 0, length: 5 };
    assert_eq!(pair.ends[0].sent, [Message::Sync(sync), Message::Range(range)]);
}

//= REPL-59
#[test]
fn a_writer_with_gaps_tells_of_what_it_appends_unasked() {
    let mut pair = pair(Model::sparse(20, 0..4), Model::reader());
    pair.pump(0);
    pair.ends[0].append(1);
    pair.pump(0);
    assert_eq!(pair.ends[0].sent.last(), Some(&Message::Range(Range { drop: false, start: 20, length: 1 })));
    pair.ends[0].feed.stored.remove(&20);
    pair.ends[0].append(0);
    pair.pump(0);
    assert_eq!(pair.ends[0].sent.last(), Some(&Message::Range(Range { drop: true, start: 20, length: 1 })));
}

//= REPL-10, REPL-11
#[test]
fn the_first_sync_on_a_later_fork_promises_no_growth() {
    let mut pair = pair(Model { fork: 1, ..Model::writer(5) }, Model::reader());
    pair.pump(0);
    let Some(Message::Sync(sync)) = pair.ends[0].sent.first() else { panic!("no sync") };
    assert_eq!((sync.fork, sync.length, sync.can_upgrade), (1, 5, false));
}

/// What Node asks of a fork that it was told of when there was nothing in it.
fn ask_for_an_empty_tree(pair: &mut Pair<Model>) {
    let upgrade = Some(UpgradeRequest { start: 0, length: 0 });
    let proof = ProofRequest { upgrade, ..ProofRequest::default() };
    let request = Message::Request(Request { id: 9, fork: 1, proof, priority: 0 });
    pair.ends[0].inbox.push_back((request.message_type(), request.encode()));
    pair.deliver(0, 1).unwrap();
}

//= REPL-79
#[test]
fn who_asks_for_the_tree_of_a_fork_that_was_empty_gets_what_there_is_by_then() {
    let mut pair = pair(Model { fork: 1, ..Model::writer(5) }, Model::reader());
    ask_for_an_empty_tree(&mut pair);
    pair.pump(0);
    assert!(pair.serve(0, 0));
    pair.pump(0);
    let Some(Message::Data(data)) = pair.ends[0].sent.last() else { panic!("no answer") };
    let upgrade = data.proof.upgrade.as_ref().unwrap();
    assert_eq!((data.request, data.proof.fork, upgrade.start, upgrade.length), (9, 1, 0, 5));
}

#[test]
fn a_request_that_is_not_served_is_counted_once_whatever_the_reason() {
    for reason in ["it may not be had", "it is not there", "it can't be read"] {
        let mut pair = pair(Model::writer(5), Model::reader());
        while pair.ends[0].serve.is_empty() {
            for n in 0..2 {
                pair.deliver(n, usize::MAX).unwrap();
                pair.pump(n);
            }
        }
        let writer = &mut pair.ends[0];
        let (ticket, ..) = writer.serve.remove(0);
        match reason {
            "it may not be had" => writer.channel.deny(ticket),
            "it is not there" => writer.channel.handle_served(ticket, Ok(None)),
            _ => writer.channel.handle_served(ticket, Err(())),
        }
        assert_eq!(writer.status().counters.refused_by_us, 1, "{reason}");
        pair.run().unwrap();
        assert_eq!(pair.ends[1].status().counters.refused_by_remote, 1, "{reason}");
    }
}

//= REPL-62
#[test]
fn a_want_of_what_the_contiguous_start_says_is_answered_with_that_and_any_other_with_bits() {
    let of = |feed: Model, start| {
        let mut pair = pair(feed, Model::reader());
        pair.run().unwrap();
        let writer = &mut pair.ends[0];
        let before = writer.sent.len();
        let want = Message::Want(Want { start, length: 32, any: false });
        writer.channel.handle_message(5, want.encode(), &writer.feed, pair.now).unwrap();
        pair.pump(0);
        pair.ends[0].sent.split_off(before)
    };
    let told = |length| Message::Range(Range { drop: false, start: 0, length });
    let bits = |start, word| Message::Bitfield(Bitfield { start, words: vec![word, 0] });
    assert_eq!(of(Model::writer(100), 32), [told(100)], "there is nothing else");
    let partial = || Model::sparse(100, (0..64).chain([66]));
    assert_eq!(of(partial(), 32), [told(64)], "what is wanted lies within it");
    assert_eq!(of(partial(), 64), [bits(64, 0b100)]);
    assert_eq!(of(Model::sparse(100, [66]), 64), [bits(64, 0b100)], "there is no contiguous start");
}

//= REPL-11
#[test]
fn whether_the_growth_can_be_proved_is_tried_out_only_if_the_roots_are_not_known_by_the_blocks() {
    // The root of all eight is known of every feed that is longer; that of the first four by a block below only.
    for (stored, theirs, is_known) in [(9, 8, true), (9, 4, false), (5, 4, true)] {
        let mut pair = pair(Model::sparse(10, [stored]), Model::sparse(theirs, []));
        pair.pump(1);
        pair.deliver(0, usize::MAX).unwrap();
        pair.pump(0);
        let Some(Message::Sync(sync)) = pair.ends[0].sent.first() else { panic!("no sync") };
        let case = format!("{stored} of ten, and {theirs}");
        assert_eq!((sync.can_upgrade, pair.ends[0].serve.is_empty()), (is_known, is_known), "{case}");
        pair.run().unwrap();
        assert_eq!(pair.ends[1].feed.length, 10, "{case}");
    }
}

//= REPL-99
#[test]
fn a_refusal_comes_before_the_news_that_it_is_older_than() {
    let mut pair = pair(Model { fork: 1, ..Model::writer(0) }, Model::reader());
    pair.pump(0);
    ask_for_an_empty_tree(&mut pair);
    pair.ends[0].append(1);
    pair.pump(0);
    let [Message::Sync(_), Message::NoData(refusal), Message::Sync(sync), ..] = &pair.ends[0].sent[..] else {
        panic!("{:?}", pair.ends[0].sent)
    };
    assert_eq!((refusal.request, sync.length), (9, 1));
}

//= REPL-5
#[test]
fn nothing_is_sent_before_the_remote_has_opened() {
    let mut channel = channel(true, LIVE, &Default::default());
    let feed = Model::writer(5);
    channel.handle_local_change(&feed);
    let now = Instant::now();
    assert_eq!(channel.poll_output(&feed, now), None);
    assert!(channel.handle_message(0, vec![0; 4].into(), &feed, now).is_err());
}

//= REPL-13, REPL-73
#[test]
fn appends_follow() {
    let mut pair = pair(Model::writer(5), Model::reader());
    pair.run().unwrap();
    for n in 6..20 {
        pair.ends[0].append(1);
        pair.pump(0);
        assert!(matches!(pair.ends[0].sent[..], [.., Message::Sync(_), Message::Range(_)]));
        pair.run().unwrap();
        assert_eq!(pair.ends[1].feed.contiguous_length(), n);
        assert!(pair.ends.iter().all(|end| end.status().in_sync && end.status().remote_in_sync));
    }
    // A sync each for a length; the reader tells in one range that it has all.
    assert!(pair.ends[0].sent(0) < 20 && pair.ends[1].sent(0) < 20);
}

#[test]
fn only_what_is_demanded_comes() {
    let mut pair = pair(Model::writer(100), Model::reader());
    pair.ends[1].demand(Demand::from_ranges([10..20, 50..51]));
    pair.run().unwrap();
    let reader = &pair.ends[1];
    assert!(reader.feed.stored.iter().copied().eq((10..20).chain([50])));
    assert!(reader.status().in_sync);
    assert!(!pair.ends[0].status().remote_in_sync);
    pair.ends[1].demand(Demand::everything());
    pair.run().unwrap();
    assert_eq!(pair.ends[1].feed.contiguous_length(), 100);
    assert!(pair.ends[0].status().remote_in_sync);
}

#[test]
fn without_demand_the_length_follows() {
    let mut pair = pair(Model::writer(100), Model::reader());
    pair.ends[1].demand(Demand::nothing());
    pair.run().unwrap();
    let reader = &pair.ends[1];
    assert_eq!((reader.feed.length, reader.feed.stored.len()), (100, 0));
    assert!(reader.status().in_sync);
}

//= REPL-36
#[test]
fn what_is_no_longer_demanded_is_cancelled() {
    let mut pair = pair(Model::writer(100), Model::reader());
    pair.ends[1].demand(Demand::from_ranges(std::iter::once(0..1)));
    pair.run().unwrap();
    pair.ends[1].demand(Demand::everything());
    pair.pump(1);
    let waiting = pair.ends[1].status().waiting;
    assert!(waiting > 10);
    pair.ends[1].demand(Demand::from_ranges(std::iter::once(0..3)));
    pair.pump(1);
    assert_eq!((pair.ends[1].status().waiting, pair.ends[1].sent(2)), (2, waiting - 2));
    pair.run().unwrap();
    assert_eq!(pair.ends[1].feed.stored.len(), 3);
}

#[test]
fn what_came_from_elsewhere_is_cancelled() {
    let mut pair = pair(Model::writer(40), Model::reader());
    pair.ends[1].demand(Demand::nothing());
    pair.run().unwrap();
    pair.ends[1].demand(Demand::everything());
    pair.pump(1);
    let end = &mut pair.ends[1];
    end.feed.stored.extend(0..30);
    end.channel.handle_local_change(&end.feed);
    pair.pump(1);
    assert_eq!(pair.ends[1].sent(2), 30);
    // Half of them were on their way already.
    pair.run().unwrap();
    assert_eq!(pair.ends[1].feed.stored.len(), 40);
    assert_eq!(pair.ends[1].status().counters.blocks_received, 10);
}

//= REPL-62
#[test]
fn two_readers_fill_each_others_gaps() {
    let evens = (0..1000).filter(|index| index % 2 == 0);
    let mut pair =
        pair(Model::sparse(1000, evens.clone()), Model::sparse(1000, evens.map(|index| index + 1)));
    pair.run().unwrap();
    for end in &pair.ends {
        assert_eq!(end.feed.contiguous_length(), 1000);
        assert!(end.status().in_sync && end.status().remote_in_sync, "{:?}", end.status());
    }
}

//= PARTY-114
#[test]
fn a_relay_tells_of_what_it_gets_meanwhile() {
    let mut pair = pair(Model::sparse(1000, [3]), Model::sparse(1000, []));
    pair.run().unwrap();
    assert!(pair.ends[1].feed.stored.iter().copied().eq([3]));
    for index in [500, 501, 502, 800] {
        let end = &mut pair.ends[0];
        end.feed.stored.insert(index);
        end.channel.handle_local_change(&end.feed);
        pair.run().unwrap();
        assert!(pair.ends[1].feed.stored.contains(&index));
    }
    assert_eq!(pair.ends[0].feed.stored, pair.ends[1].feed.stored);
    assert!(pair.ends[1].status().in_sync && pair.ends[0].status().remote_in_sync);
}

//= protocol-spec/07-replication.md#the-end-of-a-replication
#[test]
fn a_finite_replication_says_that_it_is_done() {
    let mut pair = Pair::new([Model::writer(300), Model::reader()], [FINITE, FINITE]);
    pair.pump(1);
    assert!(matches!(pair.ends[1].sent[..], [Message::Sync(Sync { downloading: true, .. })]));
    pair.run().unwrap();
    for end in &pair.ends {
        assert!(end.status().in_sync && end.status().remote_in_sync);
        let last = end.sent.iter().rev().find(|message| matches!(message, Message::Sync(_)));
        assert!(matches!(last, Some(Message::Sync(Sync { downloading: false, .. }))));
    }
}

//= REPL-63
#[test]
fn blocks_that_are_cleared_are_told() {
    let mut pair = pair(Model::writer(200), Model::sparse(200, []));
    pair.ends[1].demand(Demand::nothing());
    pair.run().unwrap();
    for cleared in [100..120, 150..151, 0..3] {
        let end = &mut pair.ends[0];
        cleared.for_each(|index| {
            end.feed.stored.remove(&index);
        });
        end.channel.handle_local_change(&end.feed);
    }
    pair.run().unwrap();
    let status = pair.ends[1].status();
    assert_eq!(status.remote_contiguous_length, 0);
    // What is left comes, and what is gone is not asked for.
    pair.ends[1].demand(Demand::everything());
    pair.run().unwrap();
    assert_eq!(pair.ends[0].feed.stored, pair.ends[1].feed.stored);
    assert_eq!(pair.ends[1].status().counters.refused_by_remote, 0);
    pair.ends[0].feed.stored.remove(&50);
    pair.ends[0].feed.stored.insert(1);
    let end = &mut pair.ends[0];
    end.channel.handle_local_change(&end.feed);
    pair.run().unwrap();
    assert!(pair.ends[1].feed.stored.contains(&1) && pair.ends[1].status().in_sync);
}

#[test]
fn a_relay_that_grows_without_gaps_tells_each_block_once() {
    let mut pair = pair(Model::sparse(1000, []), Model::sparse(1000, []));
    pair.run().unwrap();
    for n in 0..10 {
        let end = &mut pair.ends[0];
        end.feed.stored.extend(n * 100..(n + 1) * 100);
        end.channel.handle_local_change(&end.feed);
        pair.run().unwrap();
    }
    assert_eq!(pair.ends[1].feed.contiguous_length(), 1000);
    assert_eq!((pair.ends[0].sent(8), pair.ends[0].sent(7)), (10, 1));
}

//= REPL-98
#[test]
fn a_finite_replication_of_gaps_comes_to_an_end() {
    for options in [[FINITE, FINITE], [LIVE, FINITE], [FINITE, LIVE]] {
        let mut pair =
            Pair::new([Model::sparse(500, [1, 2, 400]), Model::sparse(500, [7, 400, 401])], options);
        pair.run().unwrap();
        for end in &pair.ends {
            assert!(end.feed.stored.iter().copied().eq([1, 2, 7, 400, 401]));
            assert!(end.status().in_sync && end.status().remote_in_sync);
        }
    }
}

//= REPL-22
#[test]
fn a_manifest_comes_though_the_feed_is_empty() {
    let mut pair = pair(Model::writer(0), Model::reader());
    pair.run().unwrap();
    assert!(!pair.ends[1].feed.needs_manifest);
    assert!(pair.ends[1].status().in_sync);
    assert_eq!(pair.ends[1].sent(1), 1);
}

//= REPL-29
#[test]
fn without_upload_every_request_is_refused_and_asking_ends() {
    let refusing = Options { upload: false, ..LIVE };
    let mut pair = Pair::new([Model::writer(100), Model::reader()], [refusing, LIVE]);
    pair.run().unwrap();
    // The sync says so, and the reader doesn't ask.
    assert_eq!(pair.ends[1].sent(1), 0);
    assert!(pair.ends[0].status().remote_in_sync);
}

#[test]
fn without_download_nothing_is_asked_for() {
    let uploading = Options { download: false, ..LIVE };
    let mut pair = Pair::new([Model::writer(100), Model::reader()], [LIVE, uploading]);
    pair.run().unwrap();
    assert_eq!((pair.ends[1].sent(1), pair.ends[1].sent(5)), (0, 0));
    assert!(pair.ends[0].status().remote_in_sync && pair.ends[1].status().in_sync);
}

//= LIMIT-4
#[test]
fn a_remote_that_can_not_take_more_is_not_served() {
    let mut pair = pair(Model::writer(100), Model::reader());
    pair.pump(0);
    pair.ends[0].channel.set_writable(false);
    pair.run().unwrap();
    assert_eq!((pair.ends[0].sent.len(), pair.ends[0].status().serving), (2, 1));
    pair.ends[0].channel.set_writable(true);
    pair.run().unwrap();
    assert_eq!(pair.ends[1].feed.contiguous_length(), 100);
}

#[test]
fn a_reader_that_can_not_store_as_fast_takes_no_turn_to_ask() {
    let mut pair = pair(Model::writer(20_000), Model::reader());
    // The length is stored, and whatever comes then is left lying.
    let mut left = 0;
    while left == 0 || pair.ends.iter().any(|end| !end.inbox.is_empty() || !end.serve.is_empty()) {
        for n in 0..2 {
            pair.deliver(n, usize::MAX).unwrap();
            while pair.serve(n, 0) {}
            if pair.ends[1].feed.length() == 0 {
                pair.ingest(1, usize::MAX).unwrap();
            }
            pair.pump(n);
        }
        left = pair.ends[1].ingest.len();
    }
    assert!(left < 10_000, "{left}");
    assert!(!pair.ends[1].channel.is_hungry());
    pair.run().unwrap();
    assert_eq!(pair.ends[1].feed.contiguous_length(), 20_000);
}

//= REPL-76
#[test]
fn a_remote_of_another_fork_is_left_alone() {
    let stays = Options { follow_forks: false, ..LIVE };
    let mut pair = Pair::new([Model { fork: 1, ..Model::writer(100) }, Model::reader()], [LIVE, stays]);
    pair.run().unwrap();
    assert_eq!((pair.ends[1].sent(1), pair.ends[1].status().remote_fork), (0, 1));
    assert!(pair.ends.iter().all(|end| end.status().in_sync && end.status().remote_in_sync));
}

#[derive(Clone, Debug)]
struct Scenario {
    length: u64,
    known: [u64; 2],
    stored: [Vec<u64>; 2],
    demand: [Demand; 2],
    finite: [bool; 2],
    steps: Vec<(u8, usize)>,
}

fn demand() -> impl Strategy<Value = Demand> {
    let range = (0..150_u64, prop_oneof![1..40_u64, Just(u64::MAX)])
        .prop_map(|(start, length)| start..start.saturating_add(length));
    prop_oneof![Just(Demand::everything()), prop::collection::vec(range, 0..4).prop_map(Demand::from_ranges)]
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let stored = || prop::collection::vec(0..150_u64, 0..60);
    let steps = prop::collection::vec((0..10_u8, 0..50_usize), 0..200);
    let known = prop_oneof![Just(0), 0..150_u64];
    (1..150_u64, known.clone(), known, stored(), stored(), demand(), demand(), any::<[bool; 2]>(), steps)
        .prop_map(|(length, a, b, a_stored, b_stored, a_demand, b_demand, finite, steps)| Scenario {
            length,
            known: [a.min(length), b.min(length)],
            stored: [a_stored, b_stored],
            demand: [a_demand, b_demand],
            finite,
            steps,
        })
}

fn play(mut pair: Pair<Model>, steps: &[(u8, usize)]) -> Pair<Model> {
    for (step, count) in steps {
        let n = usize::from(step % 2);
        match step / 2 {
            0 => drop(pair.deliver(n, *count).unwrap()),
            1 => drop(pair.serve(n, *count)),
            2 => drop(pair.ingest(n, *count).unwrap()),
            3 => pair.pump(n),
            // Only a writer appends.
            _ if n == 0 && pair.ends[0].feed.stored.len() as u64 == pair.ends[0].feed.length => {
                pair.ends[0].append(*count as u64 % 5);
            }
            _ => {}
        }
    }
    pair.run().unwrap();
    pair
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_writer_and_a_reader_converge(scenario in scenario()) {
        let known = scenario.known[1];
        let mut reader = Model::sparse(known, scenario.stored[1].iter().copied().filter(|i| *i < known));
        reader.needs_manifest = known == 0;
        reader.has_manifest = known != 0;
        let options = scenario.finite.map(|finite| if finite { FINITE } else { LIVE });
        let mut pair = Pair::new([Model::writer(scenario.length), reader], options);
        pair.ends[1].demand(scenario.demand[1].clone());
        let pair = play(pair, &scenario.steps);
        let [writer, reader] = &pair.ends;
        prop_assert_eq!(reader.feed.length, writer.feed.length);
        prop_assert!((0..writer.feed.length).all(|i| reader.feed.has(i) || !scenario.demand[1].wants(i)));
        prop_assert!(reader.status().in_sync && writer.status().in_sync);
        prop_assert!(!reader.status().has_given_up);
        prop_assert_eq!(reader.status().counters.refused_by_remote, 0);
        let done = reader.feed.contiguous_length() == writer.feed.length || scenario.finite[1];
        prop_assert_eq!(writer.status().remote_in_sync, done);
    }

    #[test]
    fn two_relays_converge(scenario in scenario()) {
        let model = |n: usize| {
            let known = scenario.length;
            Model::sparse(known, scenario.stored[n].iter().copied().filter(|i| *i < known))
        };
        let options = scenario.finite.map(|finite| if finite { FINITE } else { LIVE });
        let mut pair = Pair::new([model(0), model(1)], options);
        for n in 0..2 {
            pair.ends[n].demand(scenario.demand[n].clone());
        }
        let pair = play(pair, &scenario.steps);
        for n in 0..2 {
            let (ours, theirs) = (&pair.ends[n], &pair.ends[1 - n]);
            let open = |i: &u64| theirs.feed.has(*i) && scenario.demand[n].wants(*i) && !ours.feed.has(*i);
            prop_assert_eq!((0..scenario.length).find(open), None);
            prop_assert!(ours.status().in_sync);
            prop_assert_eq!(ours.status().counters.refused_by_remote, 0);
        }
    }
}
