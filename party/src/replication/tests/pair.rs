//! Two channels of one feed, without a network between them: every event happens when the test says so.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::Bytes;

use crate::{
    error::Error,
    feed::{
        local::{Demand, Local},
        proof::{Proof, ProofRequest},
        reorg::PendingReorg,
    },
    key::{FeedKey, PublicKey},
    limits::Limits,
    replication::{Channel, Options, Output, Pace, Status, Swarm, Ticket, Verdict, messages::Message},
    session::Session,
};

/// A feed, as far as a pair needs it.
pub(super) trait Engine {
    fn with_local<R>(&self, f: impl FnOnce(&dyn Local) -> R) -> R;
    fn append(&mut self, blocks: u64);
    fn prove(&self, request: ProofRequest, fork: u64) -> Option<Proof>;
    fn ingest(&mut self, proofs: Vec<Proof>) -> Vec<Result<Verdict, Error>>;

    /// Takes a proof of a higher fork.
    fn follow(&mut self, _proof: Proof) -> Result<(), Error> {
        Ok(())
    }

    /// Goes on to a higher fork without what nobody shows.
    fn forgo(&mut self, _pending: &PendingReorg) -> Result<(), Error> {
        Ok(())
    }

    /// Looks whether a proof shows a conflict.
    fn has_conflict(&mut self, _proof: Proof) -> bool {
        false
    }
}

/// One end.
pub(super) struct End<E> {
    pub(super) feed: E,
    pub(super) channel: Channel,
    /// What the other end has sent and this one has not seen.
    pub(super) inbox: VecDeque<(u64, Bytes)>,
    pub(super) serve: Vec<(Ticket, ProofRequest, u64)>,
    pub(super) ingest: Vec<(Ticket, Proof)>,
    pub(super) follow: Vec<(Ticket, Proof)>,
    pub(super) forgo: Vec<(Ticket, PendingReorg)>,
    pub(super) check: Vec<Proof>,
    /// Everything that this end has sent.
    pub(super) sent: Vec<Message>,
    /// What extensions of the other end have said.
    pub(super) said: Vec<(String, Bytes)>,
}

pub(super) struct Pair<E> {
    pub(super) ends: [End<E>; 2],
    /// It stands still unless the test moves it.
    pub(super) now: Instant,
}

pub(super) fn session(is_initiator: bool) -> Session {
    let keys = [PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32])];
    let (local, remote) = if is_initiator { (keys[0], keys[1]) } else { (keys[1], keys[0]) };
    Session { binding: [5; 64], is_initiator, local, remote }
}

pub(super) const KEY: FeedKey = FeedKey::from_bytes([7; 32]);

/// A channel of a session's end, the only one of its feed.
pub(super) fn channel(is_initiator: bool, options: Options, limits: &Limits) -> Channel {
    let (swarm, pace) = (Arc::new(Swarm::default()), Arc::new(Pace::new(limits)));
    Channel::new(&session(is_initiator), &KEY, options, limits, &swarm, &pace)
}

/// A channel of a session's end that the other end has opened.
pub(super) fn open(is_initiator: bool, options: Options, limits: &Limits, local: &dyn Local) -> Channel {
    let remote = channel(!is_initiator, options, limits).handshake();
    let mut channel = channel(is_initiator, options, limits);
    let verified = Channel::verify_handshake(&session(is_initiator), &KEY, &remote).unwrap();
    channel.handle_opened(verified, local);
    channel
}

impl<E: Engine> End<E> {
    fn new(feed: E, is_initiator: bool, options: Options, limits: &Limits) -> Self {
        let channel = feed.with_local(|local| open(is_initiator, options, limits, local));
        let (inbox, serve, ingest, follow, forgo, check, sent, said) = Default::default();
        Self { feed, channel, inbox, serve, ingest, follow, forgo, check, sent, said }
    }

    pub(super) fn status(&self) -> Status {
        self.feed.with_local(|local| self.channel.status(local))
    }

    pub(super) fn demand(&mut self, demand: Demand) {
        self.feed.with_local(|local| self.channel.set_demand(demand, local));
    }

    pub(super) fn append(&mut self, blocks: u64) {
        self.feed.append(blocks);
        self.feed.with_local(|local| self.channel.handle_local_change(local));
    }

    /// Whether something is left to happen.
    pub(super) fn is_busy(&self) -> bool {
        !self.inbox.is_empty()
            || !self.serve.is_empty()
            || !self.ingest.is_empty()
            || !self.follow.is_empty()
            || !self.forgo.is_empty()
            || !self.check.is_empty()
    }

    /// How many messages of a type it has sent.
    pub(super) fn sent(&self, message_type: u64) -> usize {
        self.sent.iter().filter(|message| message.message_type() == message_type).count()
    }
}

impl<E: Engine> Pair<E> {
    pub(super) fn new(feeds: [E; 2], options: [Options; 2]) -> Self {
        let [a, b] = feeds;
        let limits = Limits::default();
        let ends = [End::new(a, true, options[0], &limits), End::new(b, false, options[1], &limits)];
        Self { ends, now: Instant::now() }
    }

    /// Takes all that an end has to say.
    pub(super) fn pump(&mut self, n: usize) {
        let now = self.now;
        let [a, b] = &mut self.ends;
        let (end, other) = if n == 0 { (a, b) } else { (b, a) };
        let mut outputs = Vec::new();
        end.feed
            .with_local(|local| outputs.extend(std::iter::from_fn(|| end.channel.poll_output(local, now))));
        for output in outputs {
            match output {
                Output::Send { message_type, payload } => {
                    let payload = payload.into_bytes();
                    let message = Message::decode(message_type, &payload, true, &Limits::default());
                    end.sent.push(message.unwrap().unwrap());
                    other.inbox.push_back((message_type, payload));
                }
                Output::Serve { ticket, request, fork } => end.serve.push((ticket, request, fork)),
                Output::Ingest { ticket, proof } => end.ingest.push((ticket, proof)),
                Output::Follow { ticket, proof } => end.follow.push((ticket, proof)),
                Output::Forgo { ticket, pending } => end.forgo.push((ticket, pending)),
                Output::CheckConflict { proof } => end.check.push(proof),
                Output::Extension { name, message } => end.said.push((name.to_string(), message)),
            }
        }
    }

    /// Delivers up to `count` messages to an end. Returns whether there was one.
    pub(super) fn deliver(&mut self, n: usize, count: usize) -> Result<bool, Error> {
        let end = &mut self.ends[n];
        let count = count.min(end.inbox.len());
        for (message_type, payload) in end.inbox.drain(..count) {
            end.feed
                .with_local(|local| end.channel.handle_message(message_type, payload, local, self.now))?;
        }
        Ok(count > 0)
    }

    /// Serves one request, not always the oldest. Returns whether there was one.
    pub(super) fn serve(&mut self, n: usize, which: usize) -> bool {
        let end = &mut self.ends[n];
        if end.serve.is_empty() {
            return false;
        }
        let (ticket, request, fork) = end.serve.remove(which % end.serve.len());
        end.channel.handle_served(ticket, Ok(end.feed.prove(request, fork)));
        true
    }

    /// Stores up to `count` answers. Returns whether there was one.
    pub(super) fn ingest(&mut self, n: usize, count: usize) -> Result<bool, Error> {
        let end = &mut self.ends[n];
        let count = count.min(end.ingest.len());
        let (tickets, proofs): (Vec<_>, Vec<_>) = end.ingest.drain(..count).unzip();
        let results = end.feed.ingest(proofs);
        for (ticket, result) in tickets.into_iter().zip(results) {
            end.feed.with_local(|local| end.channel.handle_ingested(ticket, result, local))?;
        }
        Ok(count > 0)
    }

    /// Looks at what is about other forks, and at conflicts. Returns whether there was something.
    pub(super) fn follow(&mut self, n: usize) -> Result<bool, Error> {
        let end = &mut self.ends[n];
        let busy = !end.follow.is_empty() || !end.forgo.is_empty() || !end.check.is_empty();
        for (ticket, proof) in std::mem::take(&mut end.follow) {
            let result = end.feed.follow(proof);
            end.feed.with_local(|local| end.channel.handle_followed(ticket, result, local))?;
        }
        for (ticket, pending) in std::mem::take(&mut end.forgo) {
            let result = end.feed.forgo(&pending);
            end.feed.with_local(|local| end.channel.handle_followed(ticket, result, local))?;
        }
        for proof in std::mem::take(&mut end.check) {
            let is_conflict = end.feed.has_conflict(proof);
            end.channel.handle_conflict_checked(is_conflict)?;
        }
        Ok(busy)
    }

    /// Lets everything happen, till nothing is left to happen.
    pub(super) fn run(&mut self) -> Result<(), Error> {
        for _ in 0..100_000 {
            let mut busy = false;
            for n in 0..2 {
                busy |= self.deliver(n, usize::MAX)?;
                while self.serve(n, 0) {
                    busy = true;
                }
                busy |= self.ingest(n, usize::MAX)?;
                busy |= self.follow(n)?;
                self.pump(n);
            }
            busy |= self.ends.iter().any(End::is_busy);
            if !busy {
                return Ok(());
            }
        }
        panic!("it does not come to rest");
    }
}
