//! Channels that make a pause.
#![allow(clippy::disallowed_methods)] // a moment to stand still at

use super::{
    model::Model,
    pair::{Pair, open},
};
use crate::{
    feed::{
        local::Local as _,
        proof::{BlockRequest, ProofRequest},
    },
    limits::Limits,
    replication::{
        Options, Output,
        messages::{Message, Request},
    },
};

#[test]
fn a_suspended_reader_hears_and_asks_for_nothing() {
    let mut pair = Pair::new([Model::writer(10), Model::reader()], [Options::default(); 2]);
    pair.ends[1].channel.set_suspended(true);
    pair.run().unwrap();
    assert_eq!((pair.ends[1].sent(1), pair.ends[1].status().remote_length), (0, 10));
    pair.ends[0].append(5);
    pair.run().unwrap();
    assert_eq!((pair.ends[1].sent(1), pair.ends[1].status().remote_length), (0, 15));
    assert!(pair.ends[1].channel.remote_has(14) && !pair.ends[1].channel.remote_has(15));
    assert!(pair.ends[1].status().is_updating);
    pair.ends[1].channel.set_suspended(false);
    pair.run().unwrap();
    assert!((0..15).all(|index| pair.ends[1].feed.has(index)));
    assert_eq!(pair.ends[0].status().counters.blocks_sent, 15);
}

//= REPL-24
#[test]
fn requests_to_a_suspended_writer_wait() {
    let mut pair = Pair::new([Model::writer(10), Model::reader()], [Options::default(); 2]);
    pair.ends[0].channel.set_suspended(true);
    pair.run().unwrap();
    assert!(pair.ends[0].status().serving > 0 && pair.ends[1].status().waiting > 0);
    assert_eq!((pair.ends[0].sent(3), pair.ends[0].sent(4)), (0, 0));
    pair.ends[0].channel.set_suspended(false);
    pair.run().unwrap();
    assert!((0..10).all(|index| pair.ends[1].feed.has(index)));
    assert_eq!(pair.ends[1].status().counters.refused_by_remote, 0);
}

//= protocol-spec/07-replication.md#request-1-and-data-3
#[test]
fn a_flood_of_requests_to_a_suspended_writer_is_refused_beyond_the_limit() {
    let limits = Limits { max_queued_requests: 100, ..Limits::default() };
    let feed = Model::writer(10);
    let mut channel = open(true, Options::default(), &limits, &feed);
    let now = std::time::Instant::now();
    channel.set_suspended(true);
    let (mut served, mut refused) = (0, 0);
    let mut poll = |channel: &mut crate::replication::Channel| {
        while let Some(output) = channel.poll_output(&feed, now) {
            match output {
                Output::Serve { .. } => served += 1,
                Output::Send { message_type: 4, .. } => refused += 1,
                _ => {}
            }
        }
    };
    for id in 1..=1_000 {
        let proof =
            ProofRequest { block: Some(BlockRequest { index: 1, nodes: 0 }), ..ProofRequest::default() };
        let message = Message::Request(Request { id, fork: 0, proof, priority: 0 });
        channel.handle_message(1, message.encode(), &feed, now).unwrap();
        poll(&mut channel);
    }
    assert_eq!(channel.status(&feed).serving, 100);
    channel.set_suspended(false);
    channel.set_busy(true);
    poll(&mut channel);
    channel.set_busy(false);
    poll(&mut channel);
    assert_eq!((served, refused), (100, 900));
}
