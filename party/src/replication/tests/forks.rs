//! Feeds that change to another fork while they are replicated, and feeds whose signers contradict themselves.

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    pair::{End, Pair},
    real::{block_on, create, reader, writer},
};
use crate::{
    error::{Error, PeerMisbehaved},
    feed::{
        Feed, Identity,
        local::Demand,
        proof::{HashProof, Node, Proof, ProofRequest, UpgradeProof, UpgradeRequest},
    },
    key::KeyPair,
    limits::Limits,
    replication::{
        Options,
        messages::{Data, Message, NoData, Sync},
    },
};

const LIVE: Options =
    Options { live: true, download: true, upload: true, follow_forks: true, allow_push: false, push: false };

fn append(feed: &Feed, blocks: u64) {
    let info = feed.info();
    let text = |index: u64| format!("block {index} of fork {}", info.fork).into();
    block_on(feed.append_batch((info.length..info.length + blocks).map(text).collect())).unwrap();
}

fn truncate(feed: &Feed, length: u64) {
    block_on(feed.truncate(length)).unwrap();
}

fn changed(end: &mut End<Feed>) {
    end.feed.with_local(|local| end.channel.handle_local_change(local));
}

/// A feed and readers of it, each with a channel to some of the others.
struct Net {
    feeds: Vec<Feed>,
    pairs: Vec<(usize, usize, Pair<Feed>)>,
}

impl Net {
    /// A writer that has `blocks`, and readers that have nothing.
    fn new(legacy: bool, blocks: u64, readers: usize) -> Self {
        let writer = writer(legacy);
        if blocks > 0 {
            append(&writer, blocks);
        }
        let readers: Vec<_> = (0..readers).map(|_| reader(&writer)).collect();
        Self { feeds: std::iter::once(writer).chain(readers).collect(), pairs: Vec::new() }
    }

    fn connect(&mut self, a: usize, b: usize) -> &mut Pair<Feed> {
        let pair = Pair::new([self.feeds[a].clone(), self.feeds[b].clone()], [LIVE, LIVE]);
        self.pairs.push((a, b, pair));
        &mut self.pairs.last_mut().unwrap().2
    }

    fn disconnect(&mut self) {
        self.pairs.clear();
    }

    /// Once round; returns whether something is left to happen.
    fn turn(&mut self) -> Result<bool, Error> {
        let mut busy = false;
        for (_, _, pair) in &mut self.pairs {
            for n in 0..2 {
                changed(&mut pair.ends[n]);
                busy |= pair.deliver(n, usize::MAX)?;
                while pair.serve(n, 0) {
                    busy = true;
                }
                busy |= pair.ingest(n, usize::MAX)?;
                busy |= pair.follow(n)?;
                pair.pump(n);
            }
            busy |= pair.ends.iter().any(End::is_busy);
        }
        Ok(busy)
    }

    fn run(&mut self) {
        for _ in 0..20_000 {
            if !self.turn().unwrap() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// All have the writer's tree, and the blocks in `demand` that somebody near them has.
    fn check(&self, demand: &Demand) {
        let writer = &self.feeds[0];
        for (n, feed) in self.feeds.iter().enumerate().skip(1) {
            let (ours, theirs) = (writer.info(), feed.info());
            assert_eq!((theirs.fork, theirs.length), (ours.fork, ours.length), "reader {n}");
            for index in 0..ours.length {
                let block = block_on(feed.get(index)).unwrap();
                assert!(block.is_some() || !demand.wants(index), "reader {n} lacks block {index}");
                assert!(block.is_none() || block == block_on(writer.get(index)).unwrap(), "block {index}");
            }
            assert!(block_on(feed.audit()).unwrap().problems.is_empty(), "reader {n}");
        }
        for (a, b, pair) in &self.pairs {
            for end in &pair.ends {
                let status = end.status();
                assert!(status.in_sync && !status.has_given_up, "{a} {b}: {status:?}");
                assert_eq!(status.counters.invalid_proofs, 0, "{a} {b}: {status:?}");
            }
        }
    }
}

fn everything() -> Demand {
    Demand::everything()
}

//= REPL-74, REPL-75, REPL-77, REPL-82
#[test]
fn a_reader_follows_when_its_writer_truncates_while_live() {
    for legacy in [false, true] {
        let mut net = Net::new(legacy, 100, 1);
        net.connect(0, 1);
        net.run();
        for (length, more) in [(40, 10), (50, 100), (0, 7), (6, 1), (3, 40)] {
            truncate(&net.feeds[0], length);
            append(&net.feeds[0], more);
            net.run();
            net.check(&everything());
        }
        assert_eq!(net.feeds[1].info().fork, 5);
    }
}

#[test]
fn a_truncation_alone_is_followed_and_nothing_is_fetched_again() {
    let mut net = Net::new(false, 1_000, 1);
    net.connect(0, 1);
    net.run();
    let received = net.pairs[0].2.ends[1].status().counters.blocks_received;
    assert_eq!(received, 1_000);
    truncate(&net.feeds[0], 700);
    net.run();
    net.check(&everything());
    append(&net.feeds[0], 5);
    net.run();
    net.check(&everything());
    let status = net.pairs[0].2.ends[1].status();
    assert_eq!(status.counters.blocks_received, 1_005);
    assert_eq!(status.counters.refused_by_remote, 0);
}

#[test]
fn a_reader_that_was_away_keeps_what_both_forks_begin_with() {
    for (old, common, new) in
        [(1_500, 1_200, 1_800), (1_500, 0, 1_300), (1_100, 1_099, 1_100), (1_024, 512, 1), (3, 1, 2_000)]
    {
        let mut net = Net::new(false, old, 1);
        net.connect(0, 1);
        net.run();
        net.disconnect();
        truncate(&net.feeds[0], common);
        append(&net.feeds[0], new);
        let pair = net.connect(0, 1);
        pair.ends[1].demand(Demand::nothing());
        net.run();
        net.check(&Demand::nothing());
        assert_eq!(net.feeds[1].info().contiguous_length, common, "{old} {common} {new}");
        let pair = &mut net.pairs[0].2;
        pair.ends[1].demand(everything());
        net.run();
        net.check(&everything());
        assert_eq!(net.pairs[0].2.ends[1].status().counters.blocks_received, new);
        // The requests that it takes to compare the trees grow with their height.
        let asked = net.pairs[0].2.ends[1].sent(1) as u64;
        assert!(asked < new + 60, "{asked} requests");
    }
}

#[test]
fn several_truncates_while_away_are_one_way() {
    let mut net = Net::new(false, 300, 1);
    net.connect(0, 1);
    net.run();
    net.disconnect();
    for (length, more) in [(250, 30), (100, 400), (450, 3), (77, 90)] {
        truncate(&net.feeds[0], length);
        append(&net.feeds[0], more);
    }
    net.connect(0, 1);
    net.run();
    net.check(&everything());
    assert_eq!(net.pairs[0].2.ends[1].status().counters.blocks_received, 90);
}

//= REPL-78
#[test]
fn a_truncate_that_nobody_can_prove_is_waited_for() {
    let mut net = Net::new(false, 10, 1);
    net.connect(0, 1);
    net.run();
    truncate(&net.feeds[0], 0);
    net.run();
    // A tree of no blocks has no signature.
    assert_eq!((net.feeds[1].info().fork, net.feeds[1].info().length), (0, 10));
    assert!(net.pairs[0].2.ends[1].status().in_sync);
    append(&net.feeds[0], 1);
    net.run();
    net.check(&everything());
}

#[test]
fn a_fork_travels_on_over_relays() {
    let mut net = Net::new(false, 200, 3);
    net.connect(0, 1);
    net.connect(1, 2);
    net.connect(2, 3);
    net.run();
    truncate(&net.feeds[0], 120);
    append(&net.feeds[0], 30);
    net.run();
    net.check(&everything());
}

#[test]
fn a_reader_without_the_manifest_learns_it_with_a_fork() {
    let mut net = Net::new(false, 20, 1);
    truncate(&net.feeds[0], 10);
    append(&net.feeds[0], 5);
    net.connect(0, 1);
    net.run();
    net.check(&everything());
    assert!(net.feeds[1].manifest().is_some());
}

/// A writer that has cleared some blocks, cut off its feed, and written on; and a reader of the old fork.
fn cleared_where_the_forks_part(reader_has: Demand) -> Net {
    let mut net = Net::new(false, 34, 1);
    let pair = net.connect(0, 1);
    pair.ends[1].demand(reader_has);
    net.run();
    net.disconnect();
    append(&net.feeds[0], 34);
    block_on(net.feeds[0].clear(26..42)).unwrap();
    truncate(&net.feeds[0], 65);
    net
}

//= REPL-80
#[test]
fn what_the_writer_has_cleared_is_no_obstacle_on_the_way_to_its_fork() {
    let mut net = cleared_where_the_forks_part(Demand::nothing());
    let pair = net.connect(0, 1);
    pair.ends[1].demand(everything());
    net.run();
    let (reader, status) = (&net.feeds[1], net.pairs[0].2.ends[1].status());
    assert_eq!((reader.info().fork, reader.info().length), (1, 65));
    assert!(status.in_sync && status.counters.refused_by_remote == 0, "{status:?}");
    assert_eq!(status.counters.blocks_received, 65 - 16);
    assert!(block_on(reader.audit()).unwrap().problems.is_empty());
}

//= REPL-81
#[test]
fn blocks_that_only_the_reader_has_are_given_up_only_after_a_while() {
    let mut net = cleared_where_the_forks_part(everything());
    let pair = net.connect(0, 1);
    pair.ends[1].demand(everything());
    net.run();
    assert_eq!(net.feeds[1].info().fork, 0);
    let pair = &mut net.pairs[0].2;
    assert!(!pair.ends[1].status().in_sync, "it is on its way");
    let until = pair.ends[1].channel.poll_timeout().expect("it does not wait for ever");
    assert_eq!(until, pair.now + Limits::default().retry_after);
    pair.now = until;
    net.run();
    let reader = &net.feeds[1];
    assert_eq!((reader.info().fork, reader.info().length), (1, 65));
    // What could be shown to be the same has stayed.
    assert_eq!(reader.info().contiguous_length, 32);
    let status = net.pairs[0].2.ends[1].status();
    assert!(status.in_sync && status.counters.blocks_received == 65 - 42, "{status:?}");
    assert!(net.pairs[0].2.ends[1].channel.poll_timeout().is_none());
}

//= REPL-81
#[test]
fn blocks_behind_those_that_can_not_be_shown_are_no_reason_to_wait() {
    let mut net = Net::new(false, 256, 1);
    net.connect(0, 1).ends[1].demand(Demand::from_ranges([0..1, 128..129]));
    net.run();
    net.disconnect();
    truncate(&net.feeds[0], 70);
    append(&net.feeds[0], 180);
    // What is below the node of which it is found that it differs.
    block_on(net.feeds[0].clear(64..128)).unwrap();
    net.connect(0, 1).ends[1].demand(Demand::nothing());
    net.run();
    assert_eq!((net.feeds[1].info().fork, net.feeds[1].info().length), (1, 250));
}

#[test]
fn a_suspended_reader_gives_up_no_blocks() {
    let mut net = cleared_where_the_forks_part(everything());
    net.connect(0, 1).ends[1].demand(everything());
    net.run();
    let pair = &mut net.pairs[0].2;
    pair.now += Limits::default().retry_after;
    for (suspended, fork) in [(true, 0), (false, 1)] {
        net.pairs[0].2.ends[1].channel.set_suspended(suspended);
        net.run();
        assert_eq!(net.feeds[1].info().fork, fork, "suspended: {suspended}");
    }
}

#[test]
fn blocks_that_another_peer_can_show_stay_meanwhile() {
    let mut net = Net::new(false, 34, 2);
    net.connect(0, 1);
    net.connect(0, 2);
    net.run();
    net.disconnect();
    append(&net.feeds[0], 34);
    net.connect(0, 2);
    net.run();
    truncate(&net.feeds[0], 65);
    net.run();
    net.disconnect();
    block_on(net.feeds[0].clear(26..42)).unwrap();
    net.connect(0, 1).ends[1].demand(Demand::nothing());
    net.run();
    assert_eq!(net.feeds[1].info().fork, 0);
    net.connect(2, 1).ends[1].demand(Demand::nothing());
    net.run();
    let info = net.feeds[1].info();
    assert_eq!((info.fork, info.length, info.contiguous_length), (1, 65, 34));
}

/// Two relays that have different parts of the new fork. Neither alone can show where the forks part.
#[test]
fn peers_with_parts_of_a_fork_bring_a_reader_there_together() {
    let mut net = Net::new(false, 64, 3);
    net.connect(0, 1);
    net.connect(0, 2);
    net.connect(0, 3);
    net.run();
    net.disconnect();
    truncate(&net.feeds[0], 20);
    append(&net.feeds[0], 44);
    for (relay, blocks) in [(1, 0..32), (2, 32..64)] {
        // Emptied, so that it has nothing but its part.
        block_on(net.feeds[relay].clear(0..64)).unwrap();
        let pair = net.connect(0, relay);
        let part = Demand::from_ranges([blocks]);
        pair.ends[0].demand(part.clone());
        pair.ends[1].demand(part);
        net.run();
        net.disconnect();
    }
    assert_eq!(net.feeds[1].info().fork, 1);

    // The one that has the other half gets it as far as the root, and no further.
    net.connect(3, 2).ends[0].demand(Demand::nothing());
    net.run();
    assert_eq!(net.feeds[3].info().fork, 0);
    assert!(!net.pairs[0].2.ends[0].status().in_sync, "others have some time to show the rest");
    net.connect(3, 1);
    net.run();
    assert_eq!((net.feeds[3].info().fork, net.feeds[3].info().length), (1, 64));
    net.pairs[0].2.ends[0].demand(everything());
    net.run();
    net.check(&everything());
}

#[test]
fn a_silent_peer_does_not_stand_in_the_way_of_another() {
    let mut net = Net::new(false, 50, 1);
    net.connect(0, 1);
    net.run();
    net.disconnect();
    truncate(&net.feeds[0], 30);
    append(&net.feeds[0], 50);

    // One shows the signed tree and then nothing more.
    net.connect(1, 0);
    for _ in 0..20 {
        let pair = &mut net.pairs[0].2;
        for n in 0..2 {
            pair.deliver(n, usize::MAX).unwrap();
            pair.ends[1].serve.retain(|(_, request, _)| request.upgrade.is_some());
            while pair.serve(n, 0) {}
            pair.follow(n).unwrap();
            pair.pump(n);
        }
    }
    let status = net.pairs[0].2.ends[0].status();
    assert_eq!(net.feeds[1].info().fork, 0);
    assert!(status.waiting > 0 && !status.in_sync);

    let mut other = Net { feeds: net.feeds.clone(), pairs: Vec::new() };
    other.connect(0, 1);
    other.run();
    other.check(&everything());
    // What the silent one was asked for is void.
    let end = &mut net.pairs[0].2.ends[0];
    changed(end);
    assert_eq!(end.status().waiting, 0);
}

#[test]
fn a_reader_that_does_not_follow_forks_stays() {
    let writer = writer(false);
    append(&writer, 10);
    let feed = reader(&writer);
    let mut pair = Pair::new([writer.clone(), feed.clone()], [LIVE, Options { follow_forks: false, ..LIVE }]);
    pair.run().unwrap();
    truncate(&writer, 5);
    append(&writer, 10);
    changed(&mut pair.ends[0]);
    pair.run().unwrap();
    assert_eq!((feed.info().fork, feed.info().contiguous_length), (0, 10));
    assert!(pair.ends[1].status().in_sync && !pair.ends[1].status().has_given_up);
}

//= REPL-83
#[test]
fn blocks_of_the_old_fork_that_come_late_are_not_held_against_the_remote() {
    let mut net = Net::new(false, 40, 1);
    net.connect(0, 1);
    // Until blocks have come that are not stored yet.
    while net.pairs[0].2.ends[1].ingest.is_empty() || net.feeds[1].info().length == 0 {
        let pair = &mut net.pairs[0].2;
        for n in 0..2 {
            pair.deliver(n, usize::MAX).unwrap();
            pair.serve(n, 0);
            if net.feeds[1].info().length == 0 {
                pair.ingest(n, 1).unwrap();
            }
            pair.pump(n);
        }
    }
    let late = std::mem::take(&mut net.pairs[0].2.ends[1].ingest);
    truncate(&net.feeds[0], 3);
    append(&net.feeds[0], 9);
    for _ in 0..100 {
        net.turn().unwrap();
    }
    assert_eq!(net.feeds[1].info().fork, 1);
    net.pairs[0].2.ends[1].ingest.extend(late);
    net.run();
    net.check(&everything());
}

#[test]
fn what_a_remote_refuses_because_it_has_left_the_fork_does_not_count() {
    let mut net = Net::new(false, 400, 1);
    net.connect(0, 1);
    // Until many blocks are asked for and none is served.
    while net.pairs[0].2.ends[1].sent(1) < 60 {
        let pair = &mut net.pairs[0].2;
        for n in 0..2 {
            pair.deliver(n, usize::MAX).unwrap();
            if net.feeds[1].info().length == 0 {
                while pair.serve(n, 0) {}
            }
            pair.ingest(n, usize::MAX).unwrap();
            pair.pump(n);
        }
    }
    truncate(&net.feeds[0], 100);
    append(&net.feeds[0], 100);
    changed(&mut net.pairs[0].2.ends[0]);
    net.pairs[0].2.pump(0);
    net.run();
    net.check(&everything());
}

#[test]
fn a_snapshot_reads_the_old_fork() {
    let mut net = Net::new(false, 60, 1);
    net.connect(0, 1);
    net.run();
    let snapshot = block_on(net.feeds[1].snapshot());
    truncate(&net.feeds[0], 10);
    append(&net.feeds[0], 100);
    net.run();
    net.check(&everything());
    let block = block_on(snapshot.get(59)).unwrap().unwrap();
    assert_eq!(block, Bytes::from("block 59 of fork 0"));
}

fn steps() -> impl Strategy<Value = Vec<(u8, u64)>> {
    prop::collection::vec((0..8_u8, 0..40_u64), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever is cut off and added when, and in which order messages are delivered.
    #[test]
    fn all_come_to_the_writers_fork(legacy in any::<bool>(), length in 0..70_u64, steps in steps()) {
        let mut net = Net::new(legacy, length, 2);
        net.connect(0, 1);
        net.connect(1, 2);
        for (step, n) in steps {
            match step {
                0 => truncate(&net.feeds[0], n.min(net.feeds[0].info().length)),
                1 => append(&net.feeds[0], n),
                2 => drop(block_on(net.feeds[1].clear(n..n + 10)).unwrap()),
                3 => {
                    net.disconnect();
                    net.connect(0, 1);
                    net.connect(1, 2);
                }
                _ => {
                    let (_, _, pair) = &mut net.pairs[usize::from(step) % 2];
                    let end = (n % 2) as usize;
                    pair.deliver(end, n as usize).unwrap();
                    pair.serve(end, n as usize);
                    pair.ingest(end, n as usize).unwrap();
                    pair.follow(end).unwrap();
                    pair.pump(end);
                }
            }
        }
        // Something that can be proved.
        append(&net.feeds[0], 1);
        net.run();
        net.check(&everything());
    }
}

// Remotes that lie

/// A reader of a writer's 40 blocks, and its channel with a remote that says what the test says.
struct Victim {
    writer: Feed,
    pair: Pair<Feed>,
}

impl Victim {
    fn new() -> Self {
        let writer = writer(false);
        append(&writer, 40);
        let mut pair = Pair::new([reader(&writer), writer.clone()], [LIVE, LIVE]);
        pair.run().unwrap();
        pair.ends[0].sent.clear();
        Self { writer, pair }
    }

    fn hears(&mut self, message: Message) -> Result<(), Error> {
        self.pair.ends[0].inbox.push_back((message.message_type(), message.encode()));
        self.pair.deliver(0, 1)?;
        self.acts()
    }

    fn acts(&mut self) -> Result<(), Error> {
        self.pair.pump(0);
        self.pair.ingest(0, usize::MAX)?;
        self.pair.follow(0)?;
        self.pair.pump(0);
        Ok(())
    }

    fn hears_of_fork(&mut self, fork: u64, length: u64) -> Result<(), Error> {
        self.hears(Message::Sync(Sync {
            fork,
            length,
            remote_length: 0,
            can_upgrade: false,
            uploading: true,
            downloading: true,
            has_manifest: true,
            allow_push: false,
        }))
    }

    fn feed(&self) -> &Feed {
        &self.pair.ends[0].feed
    }

    /// What it has asked for, all of it.
    fn requests(&self) -> Vec<(u64, ProofRequest, u64)> {
        let asked = |message: &Message| match message {
            Message::Request(request) => Some((request.id, request.proof.clone(), request.fork)),
            _ => None,
        };
        self.pair.ends[0].sent.iter().filter_map(asked).collect()
    }
}

fn misbehaved(result: Result<(), Error>) -> PeerMisbehaved {
    match result {
        Err(Error::PeerMisbehaved(misbehaved)) => misbehaved,
        other => panic!("{other:?}"),
    }
}

fn upgrade(length: u64) -> ProofRequest {
    ProofRequest { upgrade: Some(UpgradeRequest { start: 0, length }), ..ProofRequest::default() }
}

// Asked for is what the remote says to be in, as long as we are in another.
//= REPL-19
#[test]
fn a_fork_that_is_not_signed_is_refused() {
    let mut victim = Victim::new();
    victim.hears_of_fork(1, 40).unwrap();
    let (request, asked, fork) = victim.requests()[0].clone();
    assert_eq!((asked, fork), (upgrade(40), 1));
    // The tree of fork 0, said to be of fork 1.
    let proof = block_on(victim.writer.prove(upgrade(40), 0)).unwrap().unwrap();
    let result = victim.hears(Message::Data(Data { request, proof: Proof { fork: 1, ..proof } }));
    assert_eq!(misbehaved(result), PeerMisbehaved::InvalidSignature);
    assert_eq!((victim.feed().info().fork, victim.feed().info().contiguous_length), (0, 40));
    assert_eq!(victim.pair.ends[0].status().counters.invalid_proofs, 1);
}

#[test]
fn answers_that_do_not_fit_a_fork_are_refused() {
    let fit: [fn(&mut Proof); 4] = [
        |proof| proof.hash.as_mut().unwrap().nodes[0].hash[0] ^= 1,
        |proof| proof.hash.as_mut().unwrap().index ^= 2,
        |proof| proof.fork = 2,
        |proof| {
            let nodes = vec![Node { index: 0, size: 1, hash: [0; 32] }];
            *proof = Proof { fork: 1, hash: Some(HashProof { index: 0, nodes }), ..Proof::default() };
            proof.upgrade = Some(Box::new(UpgradeProof {
                start: 0,
                length: 1,
                nodes: vec![],
                additional_nodes: vec![],
                signature: Bytes::new(),
            }));
        },
    ];
    for (n, change) in fit.into_iter().enumerate() {
        let mut victim = Victim::new();
        truncate(&victim.writer, 20);
        append(&victim.writer, 30);
        victim.hears_of_fork(1, 50).unwrap();
        let (request, asked, fork) = victim.requests()[0].clone();
        let proof = block_on(victim.writer.prove(asked, fork)).unwrap().unwrap();
        victim.hears(Message::Data(Data { request, proof })).unwrap();
        let (request, asked, fork) = victim.requests()[1].clone();
        assert!(asked.hash.is_some() && fork == 1);
        let mut proof = block_on(victim.writer.prove(asked, fork)).unwrap().unwrap();
        change(&mut proof);
        let result = victim.hears(Message::Data(Data { request, proof }));
        match misbehaved(result) {
            PeerMisbehaved::InvalidProof(_) if n == 0 => {}
            PeerMisbehaved::UnrequestedData if n > 0 => {}
            other => panic!("{n}: {other}"),
        }
        assert_eq!(victim.feed().info().fork, 0);
    }
}

//= REPL-84
#[test]
fn forks_announced_without_end_are_asked_for_one_at_a_time() {
    let mut victim = Victim::new();
    for fork in 1..5_000 {
        victim.hears_of_fork(fork, fork * 3).unwrap();
    }
    assert_eq!(victim.requests().len(), 1);
    // Refused, each of them, until it isn't asked any more.
    let mut fork = 5_000;
    let mut answered = 0;
    while let Some((request, ..)) = victim.requests().get(answered).cloned() {
        answered += 1;
        fork += 1;
        victim.hears_of_fork(fork, 40).unwrap();
        victim.hears(Message::NoData(NoData { request, reason: 1 })).unwrap();
    }
    assert_eq!(answered, Limits::default().max_failed_requests);
    assert!(victim.pair.ends[0].status().has_given_up);
    assert!(victim.pair.ends[0].status().in_sync, "nothing is to be got from this one");
}

#[test]
fn data_of_a_fork_that_was_not_asked_for_is_refused() {
    let mut victim = Victim::new();
    truncate(&victim.writer, 20);
    let proof = block_on(victim.writer.prove(upgrade(20), 1)).unwrap().unwrap();
    let result = victim.hears(Message::Data(Data { request: 999, proof }));
    assert_eq!(misbehaved(result), PeerMisbehaved::UnrequestedData);
}

// Signers that contradict themselves

/// Two feeds under one key that differ from the block `common` on.
fn contradiction(common: u64, ours: u64, theirs: u64) -> [Feed; 2] {
    let feeds = [0, 1].map(|_| create(Identity::writer(KeyPair::from_seed(&[9; 32]))));
    for (n, (feed, more)) in feeds.iter().zip([ours, theirs]).enumerate() {
        let block = |index: u64| {
            Bytes::from(if index < common { format!("{index}") } else { format!("{index} by {n}") })
        };
        block_on(feed.append_batch((0..common + more).map(block).collect())).unwrap();
    }
    feeds
}

//= REPL-90, REPL-94, REPL-95, REPL-96
#[test]
fn two_signed_trees_end_the_replication_of_a_feed() {
    for (common, ours, theirs) in [(10, 20, 20), (0, 30, 40), (7, 40, 30), (12, 1, 1)] {
        let [ours, theirs] = contradiction(common, ours, theirs);
        let feed = reader(&ours);
        let mut pair = Pair::new([ours.clone(), feed.clone()], [LIVE, LIVE]);
        pair.run().unwrap();
        assert_eq!(feed.info().length, ours.info().length);

        // A reader of the other comes along that lacks what we have.
        block_on(feed.clear(0..u64::MAX)).unwrap();
        let mut other = Pair::new([theirs.clone(), feed.clone()], [LIVE, LIVE]);
        other.run().unwrap();
        let conflict = feed.conflict().expect("both trees are signed");
        assert_eq!((conflict.fork, conflict.length), (0, ours.info().length.min(theirs.info().length)));
        assert!(other.ends[1].channel.is_over());
        assert_eq!(theirs.conflict(), Some(conflict), "it was told");
        assert!(other.ends[1].sent(3) >= 2);

        // And so are the others.
        changed(&mut pair.ends[1]);
        pair.run().unwrap();
        assert!(pair.ends[1].channel.is_over());
        assert_eq!(ours.conflict(), Some(conflict));
    }
}

//= REPL-93
#[test]
fn a_conflict_is_kept() {
    let [ours, theirs] = contradiction(3, 4, 4);
    let proof = block_on(theirs.prove(upgrade(7), 0)).unwrap().unwrap();
    let found = block_on(ours.check_conflict(proof.clone())).unwrap();
    assert!(found.is_some() && ours.conflict() == found);
    // It can be read and appended to; it is no more.
    assert_eq!(block_on(ours.append("x")).unwrap(), 7);
    assert_eq!(ours.conflict(), found);
    assert!(ours.with_local(|local| local.has_conflict()));
}

//= REPL-86, REPL-88, REPL-91
#[test]
fn what_is_forged_is_no_conflict() {
    let mut victim = Victim::new();
    block_on(victim.feed().clear(5..6)).unwrap();
    changed(&mut victim.pair.ends[0]);
    victim.pair.ends[0].demand(Demand::from_ranges([5..6]));
    victim.pair.pump(0);
    let (request, asked, _) = victim.requests().pop().unwrap();
    let mut proof = block_on(victim.writer.prove(asked, 0)).unwrap().unwrap();
    proof.block.as_mut().unwrap().value = "forged".into();
    victim.hears(Message::Data(Data { request, proof })).unwrap();

    // Before it is blamed it is asked for its tree, which is the one that we have.
    let (request, asked, fork) = victim.requests().pop().unwrap();
    assert_eq!((request, &asked, fork), (0, &upgrade(40), 0));
    assert!(!victim.pair.ends[0].status().in_sync);
    let proof = block_on(victim.writer.prove(asked, 0)).unwrap().unwrap();
    let result = victim.hears(Message::Data(Data { request, proof }));
    assert!(matches!(misbehaved(result), PeerMisbehaved::InvalidProof(_)));
    assert!(victim.feed().conflict().is_none() && !victim.feed().with_local(|local| local.has(5)));
}

//= REPL-92
#[test]
fn conflicts_that_are_not_proved_are_dropped_and_counted() {
    let mut victim = Victim::new();
    let honest = block_on(victim.writer.prove(upgrade(40), 0)).unwrap().unwrap();
    let mut forged = honest.clone();
    forged.upgrade.as_mut().unwrap().nodes[0].hash[0] ^= 1;
    for _ in 0..1_000 {
        for proof in [&honest, &forged] {
            victim.hears(Message::Data(Data { request: 0, proof: proof.clone() })).unwrap();
        }
    }
    assert!(victim.feed().conflict().is_none());
    let counters = victim.pair.ends[0].status().counters;
    assert_eq!(counters.unproved_conflicts, Limits::default().max_failed_requests as u64);
    assert_eq!(counters.unproved_conflicts + counters.ignored, 2_000);
}
