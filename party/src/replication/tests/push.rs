//! Blocks that travel without being asked for.

use proptest::prelude::*;

use super::{
    model::Model,
    pair::{End, Pair},
    real::{self, block_on},
};
use crate::{
    error::{Error, PeerMisbehaved},
    feed::{
        local::{Demand, Local as _},
        proof::{BlockRequest, ProofRequest, UpgradeRequest},
    },
    limits::Limits,
    replication::{
        Options,
        messages::{Data, Message, Request, Sync},
    },
};

const WRITER: Options = Options { push: true, ..READER };
const READER: Options =
    Options { live: true, download: true, upload: true, follow_forks: true, allow_push: true, push: false };
const PLAIN: Options = Options { allow_push: false, ..READER };

fn pair(options: [Options; 2]) -> Pair<Model> {
    let mut pair = Pair::new([Model::writer(5), Model::reader()], options);
    pair.run().unwrap();
    pair
}

/// What an end has sent since `from`.
fn since(end: &End<Model>, from: usize) -> Vec<u64> {
    end.sent[from..].iter().map(Message::message_type).collect()
}

//= protocol-spec/07-replication.md#push
#[test]
fn what_is_appended_arrives_without_being_asked_for() {
    let mut pair = pair([WRITER, READER]);
    let before = [pair.ends[0].sent.len(), pair.ends[1].sent.len()];
    pair.ends[0].append(1);
    pair.run().unwrap();
    assert_eq!(pair.ends[1].feed.contiguous_length(), 6);
    // The block, and then that it is there; the reader answers that it has it.
    assert_eq!(since(&pair.ends[0], before[0]), [3, 0, 8]);
    assert!(!since(&pair.ends[1], before[1]).contains(&1), "the reader asked nevertheless");
    assert_eq!(pair.ends[0].status().counters.blocks_pushed_by_us, 1);
    let counters = pair.ends[1].status().counters;
    assert_eq!((counters.blocks_pushed_to_us, counters.unwanted_pushes, counters.received.data), (1, 0, 6));
    assert!(pair.ends.iter().all(|end| end.status().in_sync && end.status().remote_in_sync));
}

//= REPL-42
#[test]
fn appends_in_a_row_are_pushed_as_growths_that_follow_each_other() {
    let mut pair = pair([WRITER, READER]);
    for _ in 0..10 {
        // The reader says nothing meanwhile.
        pair.ends[0].append(2);
        pair.pump(0);
        while pair.serve(0, 0) {
            pair.pump(0);
        }
    }
    let growths: Vec<(u64, u64)> = pair.ends[0]
        .sent
        .iter()
        .filter_map(|message| match message {
            Message::Data(Data { request: 0, proof }) => proof.upgrade.as_ref(),
            _ => None,
        })
        .map(|upgrade| (upgrade.start, upgrade.length))
        .collect();
    assert_eq!(growths, (0..10).map(|n| (5 + 2 * n, 2)).collect::<Vec<_>>());
    pair.run().unwrap();
    assert_eq!(pair.ends[1].feed.contiguous_length(), 25);
    assert_eq!(pair.ends[1].status().counters.blocks_pushed_to_us, 20);
}

//= REPL-40
#[test]
fn who_does_not_allow_it_is_never_pushed_to() {
    let mut pair = pair([WRITER, PLAIN]);
    pair.ends[0].append(3);
    pair.ends[0].channel.push(0..8, &pair.ends[0].feed.clone());
    pair.pump(0);
    assert!(pair.ends[0].serve.is_empty(), "no proof is made for it either");
    pair.run().unwrap();
    assert_eq!(pair.ends[1].feed.contiguous_length(), 8);
    assert!(
        pair.ends[0].sent.iter().all(|message| !matches!(message, Message::Data(Data { request: 0, .. })))
    );
}

//= REPL-41
#[test]
fn who_is_of_another_fork_is_not_pushed_to() {
    let mut pair = pair([WRITER, READER]);
    let is_push = |message: &Message| matches!(message, Message::Data(Data { request: 0, .. }));
    for (fork, pushes) in [(1, false), (0, true)] {
        // It allows pushes, wherever it is.
        tell_of(&mut pair, fork, 5, 5);
        pair.pump(0);
        pair.ends[0].append(1);
        pair.pump(0);
        while pair.serve(0, 0) {
            pair.pump(0);
        }
        assert_eq!(pair.ends[0].sent.iter().any(is_push), pushes, "fork {fork}");
    }
}

//= REPL-45
#[test]
fn a_growth_that_does_not_begin_where_the_receiver_stands_is_not_stored() {
    for (start, length) in [(0, 5), (4, 5), (6, 5), (5, 10)] {
        let mut pair = pair([PLAIN, READER]);
        pair.ends[0].append(5);
        let request = ProofRequest {
            block: Some(BlockRequest { index: 9, nodes: 0 }),
            upgrade: Some(UpgradeRequest { start, length: 10 - start }),
            ..ProofRequest::default()
        };
        let proof = super::pair::Engine::prove(&pair.ends[0].feed, request, 0).unwrap();
        let message = Message::Data(Data { request: 0, proof });
        let end = &mut pair.ends[1];
        end.channel.handle_message(3, message.encode(), &end.feed, pair.now).unwrap();
        pair.pump(1);
        pair.ingest(1, 1).unwrap();
        assert_eq!(pair.ends[1].feed.length, length, "from {start}");
    }
}

#[test]
fn blocks_can_be_pushed_one_by_one() {
    let mut pair = pair([PLAIN, READER]);
    pair.ends[1].demand(Demand::from_ranges(std::iter::once(6..8)));
    pair.ends[0].append(4);
    let end = &mut pair.ends[0];
    end.channel.push(6..7, &end.feed);
    end.channel.push(8..9, &end.feed);
    pair.run().unwrap();
    // Of the one that it doesn't want, the reader takes the growth.
    let reader = &pair.ends[1];
    assert!(reader.feed.has(6) && reader.feed.has(7) && !reader.feed.has(8));
    assert_eq!((reader.feed.length, reader.status().counters.blocks_pushed_to_us), (9, 1));
}

//= REPL-45
#[test]
fn of_a_pushed_block_that_nobody_wants_the_growth_is_taken() {
    let writer = real::writer(false);
    block_on(writer.append_batch((0..5).map(|n| real::block(n).into()).collect())).unwrap();
    let feed = real::reader(&writer);
    let mut pair = Pair::new([writer, feed.clone()], [WRITER, READER]);
    pair.ends[1].demand(Demand::from_ranges(std::iter::once(0..5)));
    pair.run().unwrap();
    let asked = pair.ends[1].sent(1);
    pair.ends[0].append(1);
    pair.run().unwrap();
    assert_eq!((feed.info().length, feed.info().contiguous_length), (6, 5));
    assert_eq!((pair.ends[1].sent(1), pair.ends[1].status().counters.unwanted_pushes), (asked, 0));
}

//= LIMIT-19
#[test]
fn no_more_blocks_wait_to_be_pushed_than_the_limit_has_however_they_are_called_for() {
    let max = Limits::default().max_queued_pushes as u64;
    let mut pair = pair([PLAIN, READER]);
    pair.ends[0].append(1_000);
    pair.pump(0);
    let end = &mut pair.ends[0];
    for range in [10..9 + max, 500..510] {
        end.channel.push(range, &end.feed);
    }
    pair.pump(0);
    while pair.serve(0, 0) {
        pair.pump(0);
    }
    let pushed = pair.ends[0].sent.iter().filter_map(|message| match message {
        Message::Data(Data { request: 0, proof }) => proof.block.as_ref().map(|block| block.index),
        _ => None,
    });
    assert_eq!(pushed.collect::<Vec<_>>(), (10..9 + max).chain([500]).collect::<Vec<_>>());
}

//= REPL-47
#[test]
fn too_many_pushes_that_nobody_allowed_close_the_channel() {
    let limits = Limits::default();
    let mut pair = pair([PLAIN, PLAIN]);
    let request = ProofRequest {
        block: Some(BlockRequest { index: 0, nodes: 0 }),
        upgrade: Some(UpgradeRequest { start: 0, length: 5 }),
        ..ProofRequest::default()
    };
    let proof = super::pair::Engine::prove(&pair.ends[0].feed, request, 0).unwrap();
    let message = Message::Data(Data { request: 0, proof });
    let end = &mut pair.ends[1];
    for _ in 0..limits.max_unwanted_pushes {
        end.channel.handle_message(3, message.encode(), &end.feed, pair.now).unwrap();
    }
    let result = end.channel.handle_message(3, message.encode(), &end.feed, pair.now);
    assert!(matches!(result, Err(Error::PeerMisbehaved(PeerMisbehaved::UnrequestedData))));
}

//= REPL-48
#[test]
fn what_does_not_verify_is_counted_and_asked_for() {
    let mut pair = pair([WRITER, READER]);
    pair.ends[0].append(1);
    pair.pump(0);
    pair.serve(0, 0);
    pair.pump(0);
    pair.deliver(1, 1).unwrap();
    pair.pump(1);
    let end = &mut pair.ends[1];
    let (ticket, _) = end.ingest.remove(0);
    let error = PeerMisbehaved::InvalidProof("a test");
    end.channel.handle_ingested(ticket, Err(error.into()), &end.feed).unwrap();
    pair.run().unwrap();
    assert_eq!(pair.ends[1].feed.contiguous_length(), 6);
    let counters = pair.ends[1].status().counters;
    assert_eq!((counters.invalid_proofs, counters.unwanted_pushes, counters.blocks_pushed_to_us), (1, 1, 0));
    // And when it has caught up, it takes them again.
    pair.ends[0].append(1);
    pair.run().unwrap();
    assert_eq!(pair.ends[1].status().counters.blocks_pushed_to_us, 1);
}

/// A request for block 5 and the way to six, of a reader that hasn't got the push of it yet.
fn crossing() -> Pair<Model> {
    let mut pair = pair([WRITER, READER]);
    pair.ends[0].append(1);
    pair.pump(0);
    while pair.serve(0, 0) {
        pair.pump(0);
    }
    let proof = ProofRequest {
        block: Some(BlockRequest { index: 5, nodes: 0 }),
        upgrade: Some(UpgradeRequest { start: 5, length: 1 }),
        ..ProofRequest::default()
    };
    pair.ends[1].inbox.clear();
    let end = &mut pair.ends[0];
    for (id, proof) in [(900, proof.clone()), (901, ProofRequest { block: None, ..proof })] {
        let request = Message::Request(Request { id, fork: 0, proof, priority: 0 });
        end.channel.handle_message(1, request.encode(), &end.feed, pair.now).unwrap();
    }
    pair.pump(0);
    assert!(pair.ends[0].serve.is_empty() && pair.ends[0].status().serving == 2, "they wait");
    pair
}

/// The remote tells the writer how long it is.
fn tell(pair: &mut Pair<Model>, length: u64, remote_length: u64) {
    tell_of(pair, 0, length, remote_length);
}

fn tell_of(pair: &mut Pair<Model>, fork: u64, length: u64, remote_length: u64) {
    let sync = Message::Sync(Sync {
        fork,
        length,
        remote_length,
        can_upgrade: false,
        uploading: true,
        downloading: true,
        has_manifest: true,
        allow_push: true,
    });
    let end = &mut pair.ends[0];
    end.channel.handle_message(0, sync.encode(), &end.feed, pair.now).unwrap();
}

//= protocol-spec/07-replication.md#push
#[test]
fn a_request_that_crosses_with_a_push_is_answered_as_things_stand_when_it_has_arrived() {
    let mut pair = crossing();
    // Meanwhile nothing that grows is pushed.
    pair.ends[0].append(1);
    tell(&mut pair, 5, 6);
    pair.pump(0);
    assert!(pair.ends[0].serve.is_empty() && pair.ends[0].status().serving == 2);
    let before = pair.ends[0].sent.len();
    tell(&mut pair, 6, 6);
    pair.pump(0);
    assert_eq!(pair.ends[0].sent[before..].iter().filter(|message| is_no_data(message, 901)).count(), 1);
    let asked: Vec<_> = pair.ends[0].serve.iter().map(|(_, request, _)| request.clone()).collect();
    let block = |index, nodes| Some(BlockRequest { index, nodes });
    assert_eq!(asked.len(), 2);
    assert!(asked.contains(&ProofRequest { block: block(5, 1), ..ProofRequest::default() }), "{asked:?}");
    let upgrade = Some(UpgradeRequest { start: 6, length: 1 });
    assert!(asked.contains(&ProofRequest { block: block(6, 0), upgrade, ..ProofRequest::default() }));
}

fn is_no_data(message: &Message, id: u64) -> bool {
    matches!(message, Message::NoData(refusal) if refusal.request == id)
}

#[test]
fn a_remote_that_never_says_that_a_push_has_come_is_answered_as_if_it_had_not() {
    let mut pair = crossing();
    let deadline = pair.ends[0].channel.poll_timeout().unwrap();
    assert_eq!(deadline, pair.now + Limits::default().push_timeout);
    pair.now = deadline;
    pair.pump(0);
    let upgrade = Some(UpgradeRequest { start: 5, length: 1 });
    assert_eq!(pair.ends[0].serve[0].1.upgrade, upgrade);
    pair.serve(0, 0);
    pair.pump(0);
    // One answer that grows at a time, and the next one waits for it to arrive.
    assert!(pair.ends[0].serve.is_empty() && pair.ends[0].status().serving == 1);
    tell(&mut pair, 6, 6);
    pair.pump(0);
    assert!(pair.ends[0].sent.iter().any(|message| is_no_data(message, 901)));
    assert_eq!((pair.ends[0].status().serving, pair.ends[0].channel.poll_timeout()), (0, None));
}

#[test]
fn a_request_that_waits_can_be_cancelled() {
    let mut pair = crossing();
    let end = &mut pair.ends[0];
    for request in [900, 901] {
        let cancel = Message::Cancel { request };
        end.channel.handle_message(cancel.message_type(), cancel.encode(), &end.feed, pair.now).unwrap();
    }
    pair.pump(0);
    assert_eq!((pair.ends[0].status().serving, pair.ends[0].channel.poll_timeout()), (0, None));
}

//= LIMIT-19
#[test]
fn a_long_backlog_is_left_to_be_asked_for() {
    let mut pair = pair([WRITER, READER]);
    pair.ends[0].append(1_000);
    pair.run().unwrap();
    assert_eq!(pair.ends[1].feed.contiguous_length(), 1_005);
    let pushed = pair.ends[0].status().counters.blocks_pushed_by_us;
    assert!(pushed <= Limits::default().max_queued_pushes as u64, "{pushed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn readers_converge_however_pushes_and_answers_cross(
        steps in prop::collection::vec((0..10_u8, 0..20_usize), 0..200),
        pushes in any::<[bool; 2]>(),
    ) {
        let options = Options { push: pushes[0], allow_push: pushes[1], ..READER };
        let mut pair = Pair::new([Model::writer(3), Model::reader()], [options, options]);
        for (step, count) in steps {
            let n = usize::from(step % 2);
            match step / 2 {
                0 => drop(pair.deliver(n, count).unwrap()),
                1 => drop(pair.serve(n, count)),
                2 => drop(pair.ingest(n, count).unwrap()),
                3 => pair.pump(n),
                _ if n == 0 => pair.ends[0].append(count as u64 % 5),
                _ => {}
            }
        }
        pair.run().unwrap();
        let [writer, reader] = &pair.ends;
        prop_assert_eq!(reader.feed.contiguous_length(), writer.feed.length);
        prop_assert!(reader.status().in_sync && writer.status().remote_in_sync);
        prop_assert!(!reader.status().has_given_up);
    }
}

// Who follows to another fork asks for its tree from 0, and has told the length of the fork that it leaves.
#[test]
fn a_reader_that_takes_pushes_follows_to_a_fork_of_any_length() {
    for (kept, appended) in [(0, 1), (3, 0), (3, 4), (9, 30)] {
        for push in [false, true] {
            let writer = real::writer(false);
            block_on(writer.append_batch((0..10).map(|n| real::block(n).into()).collect())).unwrap();
            let feed = real::reader(&writer);
            let mut pair = Pair::new([writer.clone(), feed.clone()], [Options { push, ..PLAIN }, READER]);
            pair.run().unwrap();
            block_on(writer.truncate(kept)).unwrap();
            block_on(writer.append_batch((0..appended).map(|n| real::block(n + 50).into()).collect()))
                .unwrap();
            let end = &mut pair.ends[0];
            end.feed.with_local(|local| end.channel.handle_local_change(local));
            pair.run().unwrap();
            assert_eq!((feed.info().fork, feed.info().contiguous_length), (1, kept + appended));
            assert_eq!(pair.ends[1].status().counters.refused_by_remote, 0);
        }
    }
}

// The answer is of a fork that is gone, and says nothing of how far the remote is on the new one.
#[test]
fn what_was_served_of_an_old_fork_is_no_growth_of_the_new_one() {
    let writer = real::writer(false);
    block_on(writer.append_batch((0..3).map(|n| real::block(n).into()).collect())).unwrap();
    let feed = real::reader(&writer);
    let mut pair = Pair::new([writer.clone(), feed.clone()], [PLAIN, READER]);
    // Until the tree is asked for, and not served.
    while pair.ends[0].serve.is_empty() {
        for n in 0..2 {
            pair.deliver(n, usize::MAX).unwrap();
            pair.pump(n);
        }
    }
    let (ticket, request, fork) = pair.ends[0].serve.remove(0);
    let proof = block_on(writer.prove(request, fork)).unwrap();
    block_on(writer.truncate(0)).unwrap();
    block_on(writer.append("another")).unwrap();
    let end = &mut pair.ends[0];
    end.feed.with_local(|local| end.channel.handle_local_change(local));
    pair.pump(0);
    pair.ends[0].channel.handle_served(ticket, Ok(proof));
    pair.run().unwrap();
    assert_eq!((feed.info().fork, feed.info().contiguous_length), (1, 1));
    assert_eq!(pair.ends[1].status().counters.refused_by_remote, 0);
}
