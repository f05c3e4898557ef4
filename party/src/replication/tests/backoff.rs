//! Patience with a remote that refuses.

use std::time::{Duration, Instant};

use super::{model::Model, pair::open};
use crate::{
    limits::Limits,
    replication::{
        Channel, Options, Output, Status, Verdict,
        messages::{Data, Message, NoData, Range, Request, Sync},
    },
};

/// A reader, and what the test has a remote say to it, at the time that the test says.
struct Reader {
    feed: Model,
    channel: Channel,
    start: Instant,
    seconds: u64,
}

impl Reader {
    /// One that lacks every block of 100 that the remote says to have.
    fn new(limits: &Limits) -> Self {
        let feed = Model::sparse(100, []);
        let channel = open(true, Options::default(), limits, &feed);
        let mut reader = Self { feed, channel, start: Instant::now(), seconds: 0 };
        reader.send(&Message::Sync(Sync {
            fork: 0,
            length: 100,
            remote_length: 100,
            can_upgrade: true,
            uploading: true,
            downloading: true,
            has_manifest: true,
            allow_push: false,
        }));
        reader.send(&Message::Range(Range { drop: false, start: 0, length: 100 }));
        reader
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.seconds)
    }

    fn send(&mut self, message: &Message) {
        let now = self.now();
        self.channel.handle_message(message.message_type(), message.encode(), &self.feed, now).unwrap();
    }

    /// What it asks for now.
    fn requests(&mut self) -> Vec<Request> {
        let now = self.now();
        let outputs: Vec<Output> = std::iter::from_fn(|| self.channel.poll_output(&self.feed, now)).collect();
        let message = |output| match output {
            Output::Send { message_type, payload } => {
                Message::decode(message_type, &payload.into_bytes(), true, &Limits::default()).unwrap()
            }
            _ => None,
        };
        let messages = outputs.into_iter().filter_map(message);
        messages
            .filter_map(|message| if let Message::Request(request) = message { Some(request) } else { None })
            .collect()
    }

    fn refuse(&mut self, request: &Request, reason: u64) {
        self.send(&Message::NoData(NoData { request: request.id, reason }));
    }

    fn answer(&mut self, request: &Request) {
        let proof = super::pair::Engine::prove(&Model::writer(100), request.proof.clone(), 0).unwrap();
        let index = proof.block.as_ref().unwrap().index;
        self.send(&Message::Data(Data { request: request.id, proof }));
        let now = self.now();
        while let Some(output) = self.channel.poll_output(&self.feed, now) {
            let Output::Ingest { ticket, .. } = output else { continue };
            self.feed.stored.insert(index);
            self.channel.handle_ingested(ticket, Ok(Verdict::Holds), &self.feed).unwrap();
            break;
        }
    }

    /// Moves on to when the channel wants to be asked again. Returns by how many seconds.
    fn wait(&mut self) -> Option<u64> {
        let seconds = self.channel.poll_timeout()?.duration_since(self.start).as_secs();
        let passed = seconds.checked_sub(self.seconds)?;
        self.seconds = seconds;
        Some(passed)
    }

    fn status(&self) -> Status {
        self.channel.status(&self.feed)
    }
}

//= protocol-spec/07-replication.md#nodata-4
#[test]
fn a_block_that_was_refused_is_asked_for_again_after_a_growing_time() {
    let limits = Limits { max_failed_requests: 10_000, ..Limits::default() };
    let mut reader = Reader::new(&limits);
    let mut waits = Vec::new();
    for _ in 0..8 {
        let requests = reader.requests();
        assert!(!requests.is_empty());
        requests.iter().for_each(|request| reader.refuse(request, 1));
        while let more @ [_, ..] = &reader.requests()[..] {
            more.iter().for_each(|request| reader.refuse(request, 1));
        }
        waits.push(reader.wait().unwrap());
    }
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300]);
}

#[test]
fn a_block_that_was_refused_is_asked_for_at_once_when_the_remote_says_to_have_it() {
    let mut reader = Reader::new(&Limits::default());
    let mut requests = reader.requests();
    let last = requests.pop().unwrap();
    let index = last.proof.block.unwrap().index;
    for request in &requests {
        reader.answer(request);
    }
    let more = reader.requests();
    reader.refuse(&last, 1);
    assert!(reader.requests().iter().all(|request| request.proof.block.unwrap().index != index));
    drop(more);
    reader.send(&Message::Range(Range { drop: false, start: index, length: 1 }));
    let again = reader.requests();
    assert!(again.iter().any(|request| request.proof.block.unwrap().index == index), "{again:?}");
}

#[test]
fn a_remote_that_refused_too_much_and_then_behaves_is_asked_again() {
    let limits = Limits { max_failed_requests: 16, ..Limits::default() };
    let mut reader = Reader::new(&limits);
    // It is short of something for a minute.
    let mut asked = 0;
    while reader.seconds < 60 {
        for request in reader.requests() {
            reader.refuse(&request, 1);
            asked += 1;
        }
        if reader.requests().is_empty() && reader.wait().is_none() {
            break;
        }
    }
    assert!(reader.status().counters.pauses > 0, "{:?}", reader.status());
    assert!(asked < 400, "{asked}");
    for _ in 0..1_000 {
        let requests = reader.requests();
        requests.iter().for_each(|request| reader.answer(request));
        if requests.is_empty() && reader.feed.stored.len() < 100 {
            reader.wait().unwrap();
        }
    }
    assert_eq!(reader.feed.stored.len(), 100);
    assert!(!reader.status().has_given_up);
}

#[test]
fn nothing_is_asked_while_a_remote_is_left_in_peace() {
    let limits = Limits { max_failed_requests: 4, ..Limits::default() };
    let mut reader = Reader::new(&limits);
    for request in reader.requests() {
        reader.refuse(&request, 0);
    }
    assert!(reader.status().has_given_up);
    // Whatever it says.
    for _ in 0..100 {
        reader.send(&Message::Range(Range { drop: false, start: 0, length: 100 }));
        assert!(reader.requests().is_empty());
    }
    assert_eq!(reader.wait(), Some(limits.retry_after.as_secs()));
    assert!(!reader.requests().is_empty() && !reader.status().has_given_up);
}
