//! What a remote can't do to us.

use std::time::Instant;

use bytes::Bytes;

use super::{model::Model, pair::open};
use crate::{
    encoding::{MAX_SAFE_INTEGER, Writer as _},
    error::{DecodeError, Error, PeerMisbehaved},
    feed::{
        local::{Demand, Local as _},
        manifest::Manifest,
        proof::{
            BlockProof, BlockRequest, HashProof, Node, Proof, ProofRequest, UpgradeProof, UpgradeRequest,
        },
        seek::Sought,
    },
    key::PublicKey,
    limits::Limits,
    replication::{
        Channel, Options, Output, Verdict,
        messages::{Bitfield, Data, Message, NoData, Range, Request, Sync, Want},
    },
};

/// A channel and its feed, at the mercy of what the test sends.
struct Victim {
    feed: Model,
    channel: Channel,
    now: Instant,
}

impl Victim {
    fn new(feed: Model, limits: Limits) -> Self {
        Self::with_options(feed, Options::default(), limits)
    }

    fn with_options(feed: Model, options: Options, limits: Limits) -> Self {
        let channel = open(true, options, &limits, &feed);
        Self { feed, channel, now: Instant::now() }
    }

    fn send(&mut self, message: Message) -> Result<(), Error> {
        self.channel.handle_message(message.message_type(), message.encode(), &self.feed, self.now)
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.channel.poll_output(&self.feed, self.now)).collect()
    }

    fn messages(&mut self) -> Vec<Message> {
        self.outputs()
            .into_iter()
            .filter_map(|output| match output {
                Output::Send { message_type, payload } => {
                    Message::decode(message_type, &payload.into_bytes(), true, &Limits::default()).unwrap()
                }
                _ => None,
            })
            .collect()
    }
}

fn sync(length: u64, remote_length: u64) -> Message {
    Message::Sync(Sync {
        fork: 0,
        length,
        remote_length,
        can_upgrade: true,
        uploading: true,
        downloading: true,
        has_manifest: true,
        allow_push: false,
    })
}

fn block_request(id: u64, index: u64) -> Message {
    let proof = ProofRequest { block: Some(BlockRequest { index, nodes: 0 }), ..ProofRequest::default() };
    Message::Request(Request { id, fork: 0, proof, priority: 0 })
}

fn upgrade(start: u64, length: u64) -> Proof {
    let upgrade = UpgradeProof {
        start,
        length,
        nodes: Vec::new(),
        additional_nodes: Vec::new(),
        signature: Bytes::new(),
    };
    Proof { upgrade: Some(upgrade.into()), ..Proof::default() }
}

fn block(index: u64, size: usize) -> Proof {
    let block = BlockProof { index, value: Bytes::from(vec![0; size]), nodes: Vec::new() };
    Proof { block: Some(block), ..Proof::default() }
}

/// A reader that waits for block 0 of 10, by request 1 or a later one, and the id of that request.
fn waiting() -> (Victim, u64) {
    let mut victim = Victim::new(Model::sparse(10, []), Limits::default());
    victim.send(sync(10, 10)).unwrap();
    victim.send(Message::Range(Range { drop: false, start: 0, length: 10 })).unwrap();
    let id = victim.messages().iter().find_map(|message| match message {
        Message::Request(request) if request.proof.block.is_some_and(|block| block.index == 0) => {
            Some(request.id)
        }
        _ => None,
    });
    (victim, id.unwrap())
}

//= REPL-29
#[test]
fn a_block_that_is_not_stored_is_refused_before_it_is_looked_for() {
    let mut victim = Victim::new(Model::sparse(10, [3]), Limits::default());
    victim.outputs();
    for index in [4, 10, 11] {
        victim.send(block_request(index, index)).unwrap();
        let refusal = Message::NoData(NoData { request: index, reason: 1 });
        let [Output::Send { message_type: 4, payload }] = &mut victim.outputs()[..] else {
            panic!("block {index} is not refused")
        };
        assert_eq!(payload.clone().into_bytes(), refusal.encode());
    }
    victim.send(block_request(3, 3)).unwrap();
    assert!(matches!(victim.outputs()[..], [Output::Serve { .. }]));
    assert_eq!(victim.channel.status(&victim.feed).counters.refused_by_us, 3);
}

#[test]
fn the_refusal_of_a_request_that_was_made_for_its_answer_is_none_of_the_growth() {
    let finite = Options { live: false, ..Options::default() };
    let mut victim = Victim::with_options(Model::reader(), finite, Limits::default());
    // It doesn't say whether it can prove its length to us.
    victim.send(sync(5, 3)).unwrap();
    victim.send(Message::Range(Range { drop: false, start: 0, length: 5 })).unwrap();
    let asked = |messages: Vec<Message>| -> Vec<Request> {
        let requests = messages.into_iter().filter_map(|message| match message {
            Message::Request(request) => Some(request),
            _ => None,
        });
        requests.collect()
    };
    let [Request { id, proof: ProofRequest { block: None, .. }, .. }] = asked(victim.messages())[..] else {
        panic!("no probe")
    };
    victim.send(Message::NoData(NoData { request: id, reason: 2 })).unwrap();
    victim.send(sync(5, 0)).unwrap();
    let asked = asked(victim.messages());
    let growth = Some(UpgradeRequest { start: 0, length: 5 });
    assert!(asked.iter().any(|request| request.proof.upgrade == growth && request.proof.block.is_some()));
}

//= LIMIT-16
#[test]
fn what_waits_to_be_stored_is_bounded_by_its_bytes_alone_and_by_its_number_alone() {
    let stored = |limits: Limits, size: usize| {
        let mut victim = Victim::new(Model::sparse(10_000, []), limits);
        victim.send(sync(10_000, 10_000)).unwrap();
        victim.send(Message::Range(Range { drop: false, start: 0, length: 10_000 })).unwrap();
        let mut answered = 0;
        // One at a time; nothing is ever stored.
        while let Some(Message::Request(request)) = {
            victim.channel.set_allowance(1);
            victim.messages().into_iter().find(|message| matches!(message, Message::Request(_)))
        } {
            let proof = block(request.proof.block.unwrap().index, size);
            victim.send(Message::Data(Data { request: request.id, proof })).unwrap();
            answered += 1;
        }
        answered
    };
    let limits = Limits { max_inflight_requests: 4, max_unverified_bytes: 1_000, ..Limits::default() };
    assert_eq!(stored(limits.clone(), 100), 10);
    assert_eq!(stored(limits, 10), 32);
}

#[track_caller]
fn misbehaved(result: Result<(), Error>, expected: PeerMisbehaved) {
    match result {
        Err(Error::PeerMisbehaved(error)) => assert_eq!(error, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn data_with_an_empty_upgrade_is_an_error() {
    for request in [0, 1, 99] {
        let (mut victim, _) = waiting();
        let result = victim.send(Message::Data(Data { request, proof: upgrade(0, 0) }));
        misbehaved(result, PeerMisbehaved::InvalidProof("an empty upgrade"));
    }
}

//= REPL-33, REPL-34
#[test]
fn data_that_was_not_asked_for_is_an_error() {
    let (mut victim, id) = waiting();
    misbehaved(
        victim.send(Message::Data(Data { request: 9999, proof: block(0, 10) })),
        PeerMisbehaved::UnrequestedData,
    );
    for proof in [
        block(7, 10),
        upgrade(0, 10),
        Proof { fork: 1, ..block(0, 10) },
        Proof { upgrade: upgrade(0, 10).upgrade, ..block(0, 10) },
    ] {
        let (mut victim, other) = waiting();
        assert_eq!(id, other);
        let result = victim.send(Message::Data(Data { request: id, proof }));
        misbehaved(result, PeerMisbehaved::UnrequestedData);
    }
}

//= REPL-35
#[test]
fn an_answer_that_leaves_the_seek_out_is_one() {
    let mut victim = Victim::new(Model::sparse(1000, []), Limits::default());
    victim.channel.set_demand(Demand::nothing(), &victim.feed);
    victim.send(sync(1000, 1000)).unwrap();
    victim.send(Message::Range(Range { drop: false, start: 0, length: 1000 })).unwrap();
    let sought = Sought { id: 1, bytes: 700, padding: 0, blocks: 0..512, near: 70 };
    victim.channel.set_sought(vec![sought]);
    let asked = victim.messages().into_iter().find_map(|message| match message {
        Message::Request(request) => Some(request),
        _ => None,
    });
    let Request { id, proof, .. } = asked.unwrap();
    assert!(proof.seek.is_some());
    let hash = HashProof { index: proof.hash.unwrap().index, nodes: Vec::new() };
    let proof = Proof { hash: Some(hash), ..Proof::default() };
    victim.send(Message::Data(Data { request: id, proof })).unwrap();
    let [Output::Ingest { ticket, .. }] = victim.outputs()[..] else { panic!("it is not taken") };
    victim.channel.handle_ingested(ticket, Ok(Verdict::Holds), &victim.feed).unwrap();
    assert_eq!(victim.channel.status(&victim.feed).counters.refused_by_remote, 0);
}

#[test]
fn an_answer_counts_once() {
    let (mut victim, id) = waiting();
    let data = Message::Data(Data { request: id, proof: block(0, 10) });
    victim.send(data.clone()).unwrap();
    misbehaved(victim.send(data), PeerMisbehaved::UnrequestedData);
}

//= REPL-46
#[test]
fn pushed_data_is_passed_over() {
    let (mut victim, _) = waiting();
    victim.send(Message::Data(Data { request: 0, proof: block(0, 10) })).unwrap();
    victim.send(Message::Data(Data { request: 0, proof: upgrade(5, 10) })).unwrap();
    assert_eq!(victim.outputs(), []);
    assert_eq!(victim.channel.status(&victim.feed).counters.unwanted_pushes, 2);
}

//= FEED-68, LIMIT-14
#[test]
fn lists_of_nodes_are_taken_up_to_a_limit() {
    let node = Node { index: 0, size: 0, hash: [0; 32] };
    let lists = |blocks, nodes, additional| {
        let mut proof = Proof { upgrade: upgrade(10, 1).upgrade, ..block(0, 10) };
        proof.block.as_mut().unwrap().nodes = vec![node; blocks];
        let upgrade = proof.upgrade.as_mut().unwrap();
        (upgrade.nodes, upgrade.additional_nodes) = (vec![node; nodes], vec![node; additional]);
        Message::Data(Data { request: 9999, proof })
    };
    let max = Limits::default().max_proof_nodes;
    assert!(max >= 64, "every side takes so many");
    // It wasn't asked for, which is seen when all of it has been read.
    for (a, b, c) in [(64, 64, 64), (max, max, max)] {
        misbehaved(waiting().0.send(lists(a, b, c)), PeerMisbehaved::UnrequestedData);
    }
    for (a, b, c) in [(max + 1, 0, 0), (0, max + 1, 0), (0, 0, max + 1)] {
        let result = waiting().0.send(lists(a, b, c));
        assert!(matches!(result, Err(Error::Decode(DecodeError::TooMany { max: most })) if most == max));
    }
}

//= LIMIT-15
#[test]
fn a_manifest_of_too_many_signers_is_an_error() {
    let max = Limits::default().max_signers;
    let signed_by = |signers: usize| {
        let mut manifest = Manifest::single(PublicKey::from_bytes([1; 32]));
        manifest.signers = vec![manifest.signers[0]; signers];
        let proof = Proof { manifest: Some(manifest.into()), ..Proof::default() };
        waiting().0.send(Message::Data(Data { request: 9999, proof }))
    };
    misbehaved(signed_by(max), PeerMisbehaved::UnrequestedData);
    let result = signed_by(max + 1);
    assert!(
        matches!(result, Err(Error::Decode(DecodeError::TooMany { max: most })) if most == max),
        "{result:?}"
    );
}

//= LIMIT-13
#[test]
fn a_block_that_is_too_large_is_an_error() {
    let (mut victim, id) = waiting();
    let max = Limits::default().max_block;
    let result = victim.send(Message::Data(Data { request: id, proof: block(0, max + 1) }));
    misbehaved(result, PeerMisbehaved::LimitExceeded("max_block"));
}

#[test]
fn an_invalid_proof_is_handed_back_as_the_error_that_it_is() {
    let (mut victim, id) = waiting();
    victim.send(Message::Data(Data { request: id, proof: block(0, 10) })).unwrap();
    let [Output::Ingest { ticket, .. }] = victim.outputs()[..] else { panic!("nothing to store") };
    let misbehaviour = PeerMisbehaved::InvalidProof("a node out of its order");
    let result = victim.channel.handle_ingested(ticket, Err(misbehaviour.clone().into()), &victim.feed);
    misbehaved(result, misbehaviour);
    assert_eq!(victim.channel.status(&victim.feed).counters.invalid_proofs, 1);
}

//= protocol-spec/07-replication.md#range-8-want-5-unwant-6-bitfield-7
#[test]
fn a_range_of_two_to_the_40_blocks_costs_nothing() {
    let mut victim = Victim::new(Model::sparse(10, [4]), Limits::default());
    victim.send(sync(10, 10)).unwrap();
    for (drop, start, length) in [
        (false, 0, 1 << 40),
        (false, 5, MAX_SAFE_INTEGER),
        (false, MAX_SAFE_INTEGER, MAX_SAFE_INTEGER),
        (true, 1 << 30, 1 << 40),
    ] {
        victim.send(Message::Range(Range { drop, start, length })).unwrap();
    }
    let requests = victim.messages().iter().filter(|message| matches!(message, Message::Request(_))).count();
    assert_eq!(requests, 9);
    assert_eq!(victim.channel.status(&victim.feed).remote_contiguous_length, 10);
}

//= REPL-14
#[test]
fn a_length_of_two_to_the_53_is_only_a_claim() {
    let mut victim = Victim::new(Model::sparse(0, []), Limits::default());
    victim.send(sync(MAX_SAFE_INTEGER, 0)).unwrap();
    victim.send(Message::Range(Range { drop: false, start: 0, length: MAX_SAFE_INTEGER })).unwrap();
    let messages = victim.messages();
    let requests: Vec<_> = messages.iter().filter(|message| matches!(message, Message::Request(_))).collect();
    assert!(matches!(requests[..], [Message::Request(Request { proof, .. })]
        if proof.upgrade == Some(UpgradeRequest { start: 0, length: MAX_SAFE_INTEGER })));
}

//= ENC-2
#[test]
fn whatever_is_wanted_and_claimed_no_integer_goes_out_that_can_not_be_read() {
    for length in [0, 10] {
        let mut victim = Victim::new(Model::sparse(length, []), Limits::default());
        let far = |id, bytes| Sought { id, bytes, padding: 8, blocks: length..length, near: length };
        victim.channel.set_demand(Demand::from_ranges([0..3, u64::MAX - 9..u64::MAX]), &victim.feed);
        victim.send(sync(MAX_SAFE_INTEGER, length)).unwrap();
        victim.send(Message::Range(Range { drop: false, start: 0, length: MAX_SAFE_INTEGER })).unwrap();
        // An offset that no feed reaches is not asked for; one that some feed may reach is.
        victim.channel.set_sought(vec![far(1, u64::MAX), far(2, MAX_SAFE_INTEGER + 1)]);
        let seeks =
            |message: &Message| matches!(message, Message::Request(request) if request.proof.seek.is_some());
        // All that comes was read again, which fails for an integer above 2^53 - 1.
        assert!(!victim.messages().iter().any(seeks));
        let mut victim = Victim::new(Model::sparse(length, []), Limits::default());
        victim.channel.set_demand(Demand::nothing(), &victim.feed);
        victim.send(sync(MAX_SAFE_INTEGER, length)).unwrap();
        victim.channel.set_sought(vec![far(1, u64::MAX), far(3, MAX_SAFE_INTEGER)]);
        assert!(victim.messages().iter().any(seeks));
    }
}

//= REPL-29, REPL-30
#[test]
fn a_request_for_block_two_to_the_53_is_refused_and_the_channel_lives() {
    let mut victim = Victim::new(Model::writer(10), Limits::default());
    victim.send(sync(0, 0)).unwrap();
    victim.outputs();
    for (id, index) in [(1, MAX_SAFE_INTEGER), (2, 10), (3, 9)] {
        victim.send(block_request(id, index)).unwrap();
    }
    let outputs = victim.outputs();
    let refused = [1, 2].map(|request| {
        let message = Message::NoData(NoData { request, reason: 1 });
        Output::Send { message_type: 4, payload: message.payload_for(true) }
    });
    assert_eq!(outputs[..2], refused);
    assert!(matches!(outputs[2..], [Output::Serve { .. }]));
}

//= REPL-29, FEED-75
#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut victim = Victim::new(Model::writer(10), Limits::default());
    let upgrade = |start, length| Some(UpgradeRequest { start, length });
    let requests = [
        ProofRequest::default(),
        ProofRequest { upgrade: upgrade(0, 0), ..ProofRequest::default() },
        ProofRequest { upgrade: upgrade(0, 11), ..ProofRequest::default() },
        ProofRequest { upgrade: upgrade(MAX_SAFE_INTEGER, MAX_SAFE_INTEGER), ..ProofRequest::default() },
    ];
    for (id, proof) in (1..).zip(requests) {
        victim.send(Message::Request(Request { id, fork: 0, proof, priority: 0 })).unwrap();
    }
    let other_fork = ProofRequest { upgrade: upgrade(0, 10), ..ProofRequest::default() };
    victim.send(Message::Request(Request { id: 5, fork: 1, proof: other_fork, priority: 0 })).unwrap();
    let refusals: Vec<_> = victim
        .messages()
        .into_iter()
        .filter_map(|message| match message {
            Message::NoData(NoData { request, reason }) => Some((request, reason)),
            _ => None,
        })
        .collect();
    assert_eq!(refusals, [(1, 2), (2, 2), (3, 2), (4, 2), (5, 1)]);
}

//= REPL-89
#[test]
fn the_check_for_a_conflict_is_answered() {
    let mut victim = Victim::new(Model::writer(10), Limits::default());
    victim.outputs();
    let proof =
        ProofRequest { upgrade: Some(UpgradeRequest { start: 0, length: 4 }), ..ProofRequest::default() };
    victim.send(Message::Request(Request { id: 0, fork: 0, proof, priority: 0 })).unwrap();
    let [Output::Serve { ticket, .. }] = victim.outputs()[..] else { panic!("nothing to serve") };
    victim.channel.handle_served(ticket, Ok(Some(upgrade(0, 4))));
    assert!(matches!(victim.messages()[..], [Message::Data(Data { request: 0, .. })]));
}

//= REPL-25
#[test]
fn a_flood_of_requests_is_refused_beyond_the_limit() {
    let limits = Limits { max_queued_requests: 100, ..Limits::default() };
    let mut victim = Victim::new(Model::writer(10), limits);
    victim.outputs();
    victim.channel.set_writable(false);
    let mut result = Ok(());
    let mut sent = 0;
    while result.is_ok() {
        sent += 1;
        result = victim.send(block_request(sent, sent % 10));
    }
    // As many are queued, as many more wait to be refused, and the remote takes neither.
    assert_eq!(sent, 201);
    misbehaved(result, PeerMisbehaved::LimitExceeded("max_queued_requests"));

    let limits = Limits { max_queued_requests: 100, ..Limits::default() };
    let mut victim = Victim::new(Model::writer(10), limits);
    for id in 1..10_000 {
        victim.send(block_request(id, 1)).unwrap();
        victim.outputs();
        assert!(victim.channel.status(&victim.feed).serving <= 100);
    }
}

//= REPL-51
#[test]
fn a_flood_of_requests_and_cancels_costs_nothing() {
    let mut victim = Victim::new(Model::writer(10), Limits::default());
    victim.outputs();
    victim.channel.set_writable(false);
    for id in 1..100_000 {
        victim.send(block_request(id, 1)).unwrap();
        victim.send(Message::Cancel { request: id }).unwrap();
    }
    for request in MAX_SAFE_INTEGER - 1_000_000..MAX_SAFE_INTEGER {
        victim.send(Message::Cancel { request }).unwrap();
    }
    assert_eq!(victim.channel.status(&victim.feed).serving, 0);
}

//= REPL-20
#[test]
fn of_a_remote_whose_length_shrinks_no_more_is_asked_than_it_says_to_have() {
    let mut victim = Victim::new(Model::sparse(1_000, []), Limits::default());
    victim.send(sync(1_000, 1_000)).unwrap();
    victim.send(Message::Range(Range { drop: false, start: 0, length: 1_000 })).unwrap();
    let before = victim.messages().len();
    victim.send(sync(8, 1_000)).unwrap();
    let status = victim.channel.status(&victim.feed);
    assert_eq!((status.remote_length, status.remote_contiguous_length), (8, 8));
    // What it was asked for before is still an answer.
    victim.send(Message::Data(Data { request: 10, proof: block(9, 10) })).unwrap();
    let asked = victim.messages().into_iter().filter_map(|message| match message {
        Message::Request(request) => request.proof.block,
        _ => None,
    });
    assert!(before > 8 && asked.into_iter().all(|block| block.index < 8));
}

#[test]
fn answers_that_lead_nowhere_are_asked_for_once_more_and_then_held_against_the_remote() {
    let (mut victim, _) = waiting();
    // Of block 7 fewer nodes were asked for than are missing here, as those before it were to bring the rest.
    let mut lead_nowhere = |request, index| {
        victim.send(Message::Data(Data { request, proof: block(index, 10) })).unwrap();
        let ticket = victim.outputs().into_iter().find_map(|output| match output {
            Output::Ingest { ticket, .. } => Some(ticket),
            _ => None,
        });
        let result = victim.channel.handle_ingested(ticket.unwrap(), Ok(Verdict::Unconnected), &victim.feed);
        let again = victim.messages().into_iter().find_map(|message| match message {
            Message::Request(request) => Some(request),
            _ => None,
        });
        (result, again)
    };
    let (result, again) = lead_nowhere(8, 7);
    assert!(result.is_ok());
    let again = again.unwrap();
    assert_eq!(again.proof.block.unwrap().index, 7);
    let (result, _) = lead_nowhere(again.id, 7);
    misbehaved(result, PeerMisbehaved::InvalidProof("it leads nowhere"));
}

//= REPL-61, LIMIT-18
#[test]
fn a_flood_of_wants_is_answered_within_bounds() {
    let mut victim = Victim::new(Model::sparse(1000, [5]), Limits::default());
    victim.outputs();
    victim.channel.set_writable(false);
    for start in 0..10_000_u64 {
        let want = Want { start: start << 21, length: MAX_SAFE_INTEGER, any: start % 2 == 0 };
        victim.send(Message::Want(want)).unwrap();
    }
    assert_eq!(victim.outputs(), []);
    victim.channel.set_writable(true);
    assert_eq!(victim.outputs().len(), Limits::default().max_remote_wants);
}

//= REPL-16
#[test]
fn a_flood_of_syncs_is_answered_once() {
    let mut victim = Victim::new(Model::writer(1000), Limits::default());
    victim.outputs();
    victim.channel.set_writable(false);
    for n in 0..10_000 {
        victim.send(sync(n % 500, 0)).unwrap();
    }
    victim.channel.set_writable(true);
    assert!(matches!(victim.messages()[..], [Message::Sync(Sync { remote_length: 499, .. })]));
}

//= REPL-53, REPL-54
#[test]
fn a_remote_that_refuses_everything_is_not_asked_for_ever() {
    let mut victim = Victim::new(Model::sparse(1000, []), Limits::default());
    victim.send(sync(1000, 1000)).unwrap();
    let mut requests = 0;
    for _ in 0..100_000 {
        // It says that it has all, again and again.
        victim.send(Message::Range(Range { drop: false, start: 0, length: 1000 })).unwrap();
        for message in victim.messages() {
            if let Message::Request(request) = message {
                requests += 1;
                victim.send(Message::NoData(NoData { request: request.id, reason: 1 })).unwrap();
            }
        }
    }
    let status = victim.channel.status(&victim.feed);
    assert!(status.has_given_up && status.in_sync);
    assert!(requests < 200, "{requests}");
}

#[test]
fn a_remote_that_never_acknowledges_our_length_does_not_keep_what_is_finite_from_its_end() {
    let options = Options { live: false, ..Options::default() };
    let mut victim = Victim::with_options(Model::sparse(0, []), options, Limits::default());
    victim.send(sync(10, 73)).unwrap();
    let mut said = 0;
    for _ in 0..1000 {
        for message in victim.messages() {
            said += 1;
            if let Message::Request(request) = message {
                victim.send(Message::Data(Data { request: request.id, proof: upgrade(0, 10) })).unwrap();
            }
        }
    }
    assert!(victim.channel.status(&victim.feed).in_sync);
    assert!(said < 10, "{said} messages");
}

//= REPL-57
#[test]
fn a_node_that_calls_requests_invalid_is_not_asked_too_often() {
    // It ends the connection after 64 of them.
    let mut victim = Victim::new(Model::sparse(1000, []), Limits::default());
    victim.send(sync(1000, 1000)).unwrap();
    victim.send(Message::Range(Range { drop: false, start: 0, length: 1000 })).unwrap();
    let mut refused = 0;
    for round in 0..10_000 {
        for message in victim.messages() {
            let Message::Request(request) = message else { continue };
            let index = request.proof.block.unwrap().index;
            let answer = if round % 2 == 0 && refused < 64 {
                refused += 1;
                Message::NoData(NoData { request: request.id, reason: 2 })
            } else {
                Message::Data(Data { request: request.id, proof: block(index, 10) })
            };
            victim.send(answer).unwrap();
        }
        for output in victim.outputs() {
            if let Output::Ingest { ticket, proof } = output {
                victim.feed.stored.insert(proof.block.unwrap().index);
                victim.channel.handle_ingested(ticket, Ok(Verdict::Holds), &victim.feed).unwrap();
            }
        }
    }
    assert!(victim.channel.status(&victim.feed).has_given_up);
}

//= LIMIT-16
#[test]
fn a_remote_that_never_answers_costs_a_window() {
    let mut victim = Victim::new(Model::sparse(100_000, []), Limits::default());
    victim.send(sync(100_000, 100_000)).unwrap();
    for _ in 0..100 {
        victim.send(Message::Range(Range { drop: false, start: 0, length: 100_000 })).unwrap();
        victim.send(Message::Range(Range { drop: true, start: 0, length: 100_000 })).unwrap();
        victim.send(Message::Range(Range { drop: false, start: 0, length: 100_000 })).unwrap();
        victim.outputs();
    }
    assert_eq!(victim.channel.status(&victim.feed).waiting, 64);
}

//= REPL-61
#[test]
fn bitfields_of_every_other_block_are_known_within_bounds() {
    let mut victim = Victim::new(Model::sparse(1 << 22, []), Limits::default());
    victim.send(sync(1 << 22, 1 << 22)).unwrap();
    for start in [0, 1 << 21, 1 << 40, MAX_SAFE_INTEGER / 32 * 32] {
        let bitfield = Bitfield { start, words: vec![0x5555_5555; 65_536] };
        victim.send(Message::Bitfield(bitfield)).unwrap();
    }
    // Passed over, as Node does.
    victim.send(Message::Bitfield(Bitfield { start: 7, words: vec![1] })).unwrap();
    let indexes: Vec<u64> = victim
        .messages()
        .iter()
        .filter_map(|message| match message {
            Message::Request(request) => request.proof.block.map(|block| block.index),
            _ => None,
        })
        .collect();
    assert!(indexes.iter().copied().eq((0..64).map(|n| 2 * n)));
}

//= REPL-9
#[test]
fn bytes_that_are_no_message_are_an_error() {
    let mut victim = Victim::new(Model::writer(10), Limits::default());
    let mut huge = vec![0];
    huge.put_uint64(u64::MAX);
    for (message_type, payload) in [(0, vec![]), (1, vec![1]), (3, vec![1, 1, 0, 0, 0xff]), (8, huge)] {
        let result = victim.channel.handle_message(message_type, payload.into(), &victim.feed, victim.now);
        assert!(matches!(result, Err(Error::Decode(DecodeError::UnexpectedEnd))), "{result:?}");
    }
    assert!(victim.channel.handle_message(10, Bytes::from_static(b"new"), &victim.feed, victim.now).is_ok());
    assert_eq!(victim.feed.length(), 10);
}
