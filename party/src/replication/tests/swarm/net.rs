//! Peers of one feed on a network that exists only in virtual time.
//!
//! Links have a latency and a bandwidth, work takes its time, connections are cut with messages on their way. What
//! happens when is decided by the script and a seed alone.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    error::Error,
    feed::{
        local::Demand,
        proof::{Proof, ProofRequest},
        reorg::PendingReorg,
    },
    limits::Limits,
    replication::{
        Channel, Options, Output, Pace, Swarm, Ticket,
        messages::{Message, Request},
        tests::pair::{Engine, KEY, channel, session},
    },
};

/// A feed that can do more than one of a pair.
pub(super) trait Peer: Engine {
    fn truncate(&mut self, length: u64);
    fn clear(&mut self, blocks: Range<u64>);
    /// Whether block `index` is here and as it was written.
    fn has_right(&self, index: u64) -> bool;
}

/// What a peer does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Honest,
    /// It answers nothing.
    Silent,
    /// It refuses everything.
    Refusing,
    /// It answers, but only after this.
    Late(Duration),
}

/// A way between two peers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quality {
    pub(super) latency: Duration,
    /// Bytes in a second, each way.
    pub(super) bandwidth: u64,
}

pub(super) const FAST: Quality = Quality { latency: Duration::from_millis(1), bandwidth: 100_000_000 };

pub(super) struct Node<E> {
    pub(super) feed: E,
    pub(super) swarm: Arc<Swarm>,
    pub(super) demand: Demand,
    pub(super) manner: Manner,
    pub(super) suspended: bool,
    /// Blocks that went away here after they had come, by hand or with a fork.
    lost: BTreeSet<u64>,
    /// Of these, those that went away by hand.
    cleared: BTreeSet<u64>,
    /// Whether a change of the feed is about to be told to its channels.
    told: bool,
}

/// One end of a connection.
pub(super) struct End {
    pub(super) node: usize,
    pub(super) channel: Channel,
    pub(super) pace: Arc<Pace>,
    /// Until when what was sent before keeps the way busy.
    busy: Instant,
    serve: Vec<(Ticket, ProofRequest, u64)>,
    serving: bool,
    ingest: Vec<(Ticket, Proof)>,
    ingesting: bool,
    wake: Option<Instant>,
    /// Requests for blocks that are not answered: the block and when it was asked for.
    asked: BTreeMap<u64, (u64, Instant)>,
    /// Blocks that were asked for on this connection and may not be again, as there was no cause.
    had: BTreeSet<u64>,
    /// Blocks that were asked for on this connection, as often as they were.
    pub(super) requests: Vec<u64>,
    /// Blocks that have come over this connection.
    pub(super) blocks: usize,
}

pub(super) struct Link {
    pub(super) ends: [End; 2],
    quality: Quality,
    /// What is on its way to each end.
    wires: [VecDeque<(Instant, u64, Bytes)>; 2],
}

#[derive(Debug)]
enum Event {
    /// The first message on the way to an end is there.
    Arrival(u64, usize),
    Served(u64, usize, Vec<(Ticket, ProofRequest, u64)>),
    Ingested(u64, usize, usize, Vec<(Ticket, Proof)>),
    Followed(u64, usize, usize, Ticket, Proof),
    Forgone(u64, usize, usize, Ticket, PendingReorg),
    ConflictChecked(u64, usize, usize, Proof),
    /// The feed of a peer has changed.
    Change(usize),
    /// A channel's timer, or room on its way.
    Wake(u64, usize),
    Step(Step),
}

/// Something that a script does.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Append(u64),
    Truncate(u64),
    Clear(usize, Range<u64>),
    Connect(usize, usize, Quality),
    /// The oldest connections come first, and it goes round.
    Cut(usize),
    Demand(usize, Demand),
    Suspend(usize, bool),
}

pub(super) struct Net<E> {
    pub(super) nodes: Vec<Node<E>>,
    pub(super) links: BTreeMap<u64, Link>,
    pub(super) now: Instant,
    start: Instant,
    limits: Limits,
    pub(super) options: Options,
    events: BTreeMap<(Instant, u64), Event>,
    serial: u64,
    random: u64,
    /// What went wrong on a channel.
    pub(super) errors: Vec<Error>,
    /// Requests for a block that another peer had been asked for, and had not answered in time.
    pub(super) asked_again: usize,
}

impl<E: Peer> Net<E> {
    pub(super) fn new(feeds: Vec<E>, seed: u64) -> Self {
        let node = |feed| Node {
            feed,
            swarm: Arc::default(),
            demand: Demand::everything(),
            manner: Manner::Honest,
            suspended: false,
            lost: BTreeSet::new(),
            cleared: BTreeSet::new(),
            told: false,
        };
        let now = Instant::now();
        Self {
            nodes: feeds.into_iter().map(node).collect(),
            links: BTreeMap::new(),
            now,
            start: now,
            limits: Limits::default(),
            options: Options::default(),
            events: BTreeMap::new(),
            serial: 0,
            random: seed,
            errors: Vec::new(),
            asked_again: 0,
        }
    }

    /// How long it has been going on.
    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(super) fn at(&mut self, after: Duration, step: Step) {
        self.push(self.start + after, Event::Step(step));
    }

    /// SplitMix64.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.serial += 1;
        self.events.insert((at.max(self.now), self.serial), event);
    }

    /// Connects two peers.
    pub(super) fn connect(&mut self, a: usize, b: usize, quality: Quality) -> u64 {
        self.serial += 1;
        let id = self.serial;
        let ends = [(a, true), (b, false)].map(|(n, is_initiator)| {
            let node = &self.nodes[n];
            let pace = Arc::new(Pace::new(&self.limits));
            let remote = channel(!is_initiator, self.options, &self.limits).handshake();
            let session = session(is_initiator);
            let mut channel = Channel::new(&session, &KEY, self.options, &self.limits, &node.swarm, &pace);
            let remote = Channel::verify_handshake(&session, &KEY, &remote).unwrap();
            node.feed.with_local(|local| {
                channel.set_demand(node.demand.clone(), local);
                channel.handle_opened(remote, local);
            });
            End {
                node: n,
                channel,
                pace,
                busy: self.now,
                serve: Vec::new(),
                serving: false,
                ingest: Vec::new(),
                ingesting: false,
                wake: None,
                asked: BTreeMap::new(),
                had: BTreeSet::new(),
                requests: Vec::new(),
                blocks: 0,
            }
        });
        self.links.insert(id, Link { ends, quality, wires: Default::default() });
        self.pump(id, 0);
        self.pump(id, 1);
        id
    }

    /// Cuts a connection. Some of what is on its way arrives before.
    pub(super) fn cut(&mut self, id: u64) {
        for n in 0..2 {
            let Some(link) = self.links.get(&id) else { return };
            let arrive = self.below(2 * link.wires[n].len() as u64 + 1) / 2;
            for _ in 0..arrive {
                self.arrive(id, n);
            }
        }
        if let Some(link) = self.links.remove(&id) {
            for end in link.ends {
                drop(end.channel);
                self.hear_news(end.node);
            }
        }
    }

    pub(super) fn demand(&mut self, n: usize, demand: Demand) {
        self.nodes[n].demand = demand;
        self.changed(n);
    }

    pub(super) fn append(&mut self, blocks: u64) {
        self.nodes[0].feed.append(blocks);
        self.changed(0);
    }

    pub(super) fn truncate(&mut self, length: u64) {
        self.nodes[0].feed.truncate(length);
        self.changed(0);
    }

    pub(super) fn clear(&mut self, n: usize, blocks: Range<u64>) {
        let node = &mut self.nodes[n];
        node.feed.clear(blocks.clone());
        node.lost.extend(blocks.clone());
        node.cleared.extend(blocks);
        self.changed(n);
    }

    pub(super) fn suspend(&mut self, n: usize, suspended: bool) {
        self.nodes[n].suspended = suspended;
        self.changed(n);
    }

    /// Lets everything happen until nothing is left to happen.
    pub(super) fn run(&mut self) {
        self.run_for(Duration::from_secs(3_600));
        // Who was refused tries again, less and less often.
        let busy = self.events.values().find(|event| !matches!(event, Event::Wake(..)));
        assert!(busy.is_none(), "it does not come to rest: {busy:?}");
    }

    /// Lets things happen for so long.
    pub(super) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        for turn in 0.. {
            assert!(turn < 3_000_000, "it does not come to rest");
            let Some(entry) = self.events.first_entry() else { return };
            let (at, _) = *entry.key();
            if at > end {
                self.now = end;
                return;
            }
            let event = entry.remove();
            self.now = at;
            self.handle(event);
        }
    }

    /// Lets things happen until `is_done` says so. Returns whether it did.
    pub(super) fn run_until(&mut self, is_done: impl Fn(&Self) -> bool) -> bool {
        while !is_done(self) {
            let Some(((at, _), event)) = self.events.pop_first() else { return false };
            self.now = at;
            self.handle(event);
        }
        true
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrival(id, n) => {
                let due = self.links.get(&id).and_then(|link| link.wires[n].front());
                if due.is_some_and(|(at, ..)| *at <= self.now) {
                    self.arrive(id, n);
                }
            }
            Event::Served(id, n, jobs) => self.serve(id, n, jobs),
            Event::Ingested(id, n, which, jobs) => self.ingest(id, n, which, jobs),
            Event::Followed(id, n, which, ticket, proof) => {
                self.follow(id, n, which, ticket, |feed| feed.follow(proof));
            }
            Event::Forgone(id, n, which, ticket, pending) => {
                self.follow(id, n, which, ticket, |feed| feed.forgo(&pending));
            }
            Event::ConflictChecked(id, n, which, proof) => {
                let is_conflict = self.nodes[which].feed.has_conflict(proof);
                assert!(!is_conflict, "there is none");
                if let Some(link) = self.links.get_mut(&id) {
                    let handled = link.ends[n].channel.handle_conflict_checked(is_conflict);
                    self.handled(id, handled);
                    self.pump(id, n);
                }
            }
            Event::Change(n) => {
                self.nodes[n].told = false;
                for (id, side) in self.ends_of(n) {
                    let Some(link) = self.links.get_mut(&id) else { continue };
                    let (node, end) = (&self.nodes[n], &mut link.ends[side]);
                    node.feed.with_local(|local| {
                        end.channel.set_demand(node.demand.clone(), local);
                        end.channel.handle_local_change(local);
                    });
                    self.pump(id, side);
                }
            }
            Event::Wake(id, n) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.ends[n].wake = None;
                    let handled = link.ends[n].channel.handle_timeout(self.now);
                    self.handled(id, handled);
                    self.pump(id, n);
                }
            }
            Event::Step(step) => self.step(step),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append(blocks) => self.append(blocks),
            Step::Truncate(length) => self.truncate(length),
            Step::Clear(n, blocks) => self.clear(n, blocks),
            Step::Connect(a, b, quality) => {
                self.connect(a, b, quality);
            }
            Step::Cut(n) => {
                let id = self.links.keys().nth(n % self.links.len().max(1)).copied();
                if let Some(id) = id {
                    self.cut(id);
                }
            }
            Step::Demand(n, demand) => self.demand(n, demand),
            Step::Suspend(n, suspended) => self.suspend(n, suspended),
        }
    }

    fn ends_of(&self, n: usize) -> Vec<(u64, usize)> {
        let ends =
            self.links.iter().flat_map(|(id, link)| [(*id, 0, &link.ends[0]), (*id, 1, &link.ends[1])]);
        ends.filter(|(_, _, end)| end.node == n).map(|(id, side, _)| (id, side)).collect()
    }

    /// The feed of a peer has changed: its channels hear of it soon.
    fn changed(&mut self, n: usize) {
        if !std::mem::replace(&mut self.nodes[n].told, true) {
            let after = Duration::from_micros(self.below(200));
            self.push(self.now + after, Event::Change(n));
        }
    }

    fn hear_news(&mut self, n: usize) {
        if self.nodes[n].swarm.take_news() {
            self.changed(n);
        }
    }

    fn arrive(&mut self, id: u64, n: usize) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some((_, message_type, payload)) = link.wires[n].pop_front() else { return };
        let message = Message::decode(message_type, &payload, true, &self.limits).unwrap().unwrap();
        let end = &mut link.ends[n];
        let node = &self.nodes[end.node];
        match &message {
            Message::Data(data) => {
                end.asked.remove(&data.request);
                end.blocks += usize::from(data.proof.block.is_some());
            }
            Message::NoData(refusal) => {
                if let Some((block, _)) = end.asked.remove(&refusal.request) {
                    end.had.remove(&block);
                }
            }
            _ => {}
        }
        let now = self.now;
        let handled =
            node.feed.with_local(|local| end.channel.handle_message(message_type, payload, local, now));
        self.handled(id, handled);
        self.pump(id, n);
    }

    /// An error closes the channel on both sides.
    fn handled(&mut self, id: u64, handled: Result<(), Error>) {
        if let Err(error) = handled {
            self.errors.push(error);
            self.cut(id);
        }
    }

    fn serve(&mut self, id: u64, n: usize, jobs: Vec<(Ticket, ProofRequest, u64)>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let end = &mut link.ends[n];
        let node = &self.nodes[end.node];
        end.serving = false;
        for (ticket, request, fork) in jobs {
            match node.manner {
                Manner::Silent => {}
                Manner::Refusing => end.channel.handle_served(ticket, Ok(None)),
                Manner::Honest | Manner::Late(_) => {
                    end.channel.handle_served(ticket, Ok(node.feed.prove(request, fork)));
                }
            }
        }
        self.pump(id, n);
    }

    fn ingest(&mut self, id: u64, n: usize, which: usize, jobs: Vec<(Ticket, Proof)>) {
        let (tickets, proofs): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
        let Some(link) = self.links.get_mut(&id) else {
            // What a connection brought before it was cut may still be stored, or not.
            if self.below(2) == 0 {
                self.nodes[which].feed.ingest(proofs);
                self.changed(which);
            }
            return;
        };
        let end = &mut link.ends[n];
        end.ingesting = false;
        let node = &mut self.nodes[which];
        let blocks: Vec<_> =
            proofs.iter().map(|proof| proof.block.as_ref().map(|block| block.index)).collect();
        let results = node.feed.ingest(proofs);
        let mut handled = Ok(());
        for ((ticket, result), block) in tickets.into_iter().zip(results).zip(blocks) {
            if let Some(block) = block.filter(|block| !node.feed.with_local(|local| local.has(*block))) {
                // It came too late or too early, which is a cause.
                end.had.remove(&block);
            }
            let result = node.feed.with_local(|local| end.channel.handle_ingested(ticket, result, local));
            handled = handled.and(result);
        }
        self.handled(id, handled);
        self.changed(which);
        self.pump(id, n);
    }

    fn follow(
        &mut self,
        id: u64,
        n: usize,
        which: usize,
        ticket: Ticket,
        step: impl FnOnce(&mut E) -> Result<(), Error>,
    ) {
        let node = &mut self.nodes[which];
        let before = node.feed.with_local(|local| (local.fork(), local.length()));
        let result = step(&mut node.feed);
        node.feed.with_local(|local| {
            if local.fork() != before.0 {
                node.lost.extend((0..before.1).filter(|index| !local.has(*index)));
            }
        });
        if let Some(link) = self.links.get_mut(&id) {
            let end = &mut link.ends[n];
            let handled = node.feed.with_local(|local| end.channel.handle_followed(ticket, result, local));
            self.handled(id, handled);
        }
        self.changed(which);
        self.pump(id, n);
    }

    /// Lets a channel say what it has to say.
    fn pump(&mut self, id: u64, n: usize) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (now, limits) = (self.now, &self.limits);
        let end = &mut link.ends[n];
        let which = end.node;
        let node = &self.nodes[which];
        let backlog = end.busy.saturating_duration_since(now);
        let full = backlog.as_secs_f64() * link.quality.bandwidth as f64 > limits.max_unsent_bytes as f64;
        end.channel.set_writable(!full && end.serve.is_empty());
        end.channel.set_suspended(node.suspended);
        let mut outputs = Vec::new();
        node.feed.with_local(|local| {
            while let Some(output) = end.channel.poll_output(local, now) {
                outputs.push(output);
                assert!(outputs.len() < 100_000, "there is no end of outputs");
            }
            let status = end.channel.status(local);
            assert!(status.waiting <= limits.max_inflight_requests);
            assert!(status.serving <= limits.max_queued_requests);
            assert!(end.pace.under_way() <= limits.max_inflight_requests);
        });
        let mut arrivals = Vec::new();
        let mut requests = Vec::new();
        let mut forks = Vec::new();
        for output in outputs {
            match output {
                Output::Send { message_type, payload } => {
                    let payload = payload.into_bytes();
                    match Message::decode(message_type, &payload, true, limits).unwrap().unwrap() {
                        Message::Request(request) => requests.push(request),
                        Message::Cancel { request } => {
                            if let Some((block, _)) = end.asked.remove(&request) {
                                end.had.remove(&block);
                            }
                        }
                        _ => {}
                    }
                    let bytes = payload.len() as f64 + 4.0;
                    end.busy =
                        end.busy.max(now) + Duration::from_secs_f64(bytes / link.quality.bandwidth as f64);
                    let at = end.busy + link.quality.latency;
                    link.wires[1 - n].push_back((at, message_type, payload));
                    arrivals.push(at);
                }
                Output::Serve { ticket, request, fork } => end.serve.push((ticket, request, fork)),
                Output::Ingest { ticket, proof } => end.ingest.push((ticket, proof)),
                Output::Follow { ticket, proof } => forks.push(Event::Followed(id, n, which, ticket, proof)),
                Output::Extension { .. } => {}
                Output::Forgo { ticket, pending } => {
                    forks.push(Event::Forgone(id, n, which, ticket, pending));
                }
                Output::CheckConflict { proof } => forks.push(Event::ConflictChecked(id, n, which, proof)),
            }
        }
        let mut wake = end.channel.poll_timeout();
        if full {
            wake = wake.into_iter().chain([now + backlog / 2]).min();
        }
        let serve = (!end.serving && !end.serve.is_empty()).then(|| std::mem::take(&mut end.serve));
        end.serving |= serve.is_some();
        let ingest = (!end.ingesting && !end.ingest.is_empty()).then(|| std::mem::take(&mut end.ingest));
        end.ingesting |= ingest.is_some();
        let wake = wake.filter(|wake| end.wake.is_none_or(|set| *wake < set));
        end.wake = wake.or(end.wake);
        let late = if let Manner::Late(late) = node.manner { late } else { Duration::ZERO };

        for request in &requests {
            self.check_request(id, n, request);
        }
        for at in arrivals {
            self.push(at, Event::Arrival(id, 1 - n));
        }
        if let Some(jobs) = serve {
            let at = now + late + Duration::from_micros(20 + self.below(300));
            self.push(at, Event::Served(id, n, jobs));
        }
        if let Some(jobs) = ingest {
            let at = now + Duration::from_micros(50 + self.below(1_000));
            self.push(at, Event::Ingested(id, n, which, jobs));
        }
        for event in forks {
            let at = now + Duration::from_micros(50 + self.below(1_000));
            self.push(at, event);
        }
        if let Some(wake) = wake {
            // A channel that wants to be woken in the past would never come to rest.
            self.push(wake.max(now + Duration::from_micros(1)), Event::Wake(id, n));
        }
        self.hear_news(which);
    }

    /// A block is asked of one peer at a time, and not again once it has come, but for a cause.
    fn check_request(&mut self, id: u64, n: usize, request: &Request) {
        let Some(block) = request.proof.block.map(|block| block.index) else { return };
        let which = self.links[&id].ends[n].node;
        let node = &mut self.nodes[which];
        assert!(!node.feed.with_local(|local| local.has(block)), "block {block} is here");
        assert!(node.demand.wants(block) || node.told, "block {block} is not wanted");
        let caused = node.lost.contains(&block);
        for (other, side) in self.ends_of(which) {
            let Some(link) = self.links.get_mut(&other) else { continue };
            let end = &mut link.ends[side];
            if let Some((_, at)) = end.asked.values().find(|(asked, _)| *asked == block) {
                let waited = self.now - *at;
                assert!(waited >= Duration::from_secs(1), "block {block} asked for again after {waited:?}");
                self.asked_again += 1;
            } else if other == id {
                assert!(caused || !end.had.contains(&block), "block {block} was here before");
            }
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        link.ends[n].asked.insert(request.id, (block, self.now));
        link.ends[n].had.insert(block);
        link.ends[n].requests.push(block);
    }

    /// Everybody has of what he wants what his neighbours have, or it is plain why not.
    pub(super) fn check(&self) {
        for link in self.links.values() {
            for n in 0..2 {
                let (end, other) = (&link.ends[n], &link.ends[1 - n]);
                let (ours, theirs) = (&self.nodes[end.node], &self.nodes[other.node]);
                let status = ours.feed.with_local(|local| end.channel.status(local));
                let excused = status.has_given_up
                    || ours.suspended
                    || theirs.suspended
                    || theirs.manner != Manner::Honest
                    || status.remote_fork != ours.feed.with_local(|local| local.fork());
                if excused {
                    continue;
                }
                let lengths = [ours, theirs].map(|node| node.feed.with_local(|local| local.length()));
                let who = format!("peer {} of peer {}: {lengths:?} {status:?}", end.node, other.node);
                assert!(status.in_sync, "not in sync: {who}");
                // A relay that has nothing of what lies between two lengths can't prove the one from the other.
                let can_prove = theirs.feed.with_local(|local| local.contiguous_length() >= local.length());
                assert!(lengths[0] >= lengths[1] || !can_prove, "too short: {who}");
                if lengths[0] != lengths[1] {
                    continue;
                }
                let lacks = (0..lengths[0]).find(|index| {
                    // What was cleared here is not fetched again before somebody asks for it.
                    ours.demand.wants(*index)
                        && !ours.cleared.contains(index)
                        && !ours.feed.with_local(|local| local.has(*index))
                        && theirs.feed.with_local(|local| local.has(*index))
                });
                assert_eq!(lacks, None, "{who}");
                assert_eq!(status.counters.invalid_proofs, 0, "{who}");
            }
        }
        let writer = &self.nodes[0].feed;
        for (n, node) in self.nodes.iter().enumerate() {
            let fork = node.feed.with_local(|local| local.fork());
            if fork == writer.with_local(|local| local.fork()) {
                let length = node.feed.with_local(|local| local.length());
                let wrong = (0..length).find(|index| {
                    node.feed.with_local(|local| local.has(*index)) && !node.feed.has_right(*index)
                });
                assert_eq!(wrong, None, "peer {n}");
            }
            let neighbours = self.links.values().filter_map(|link| {
                let [a, b] = [link.ends[0].node, link.ends[1].node];
                (a == n).then_some(b).or((b == n).then_some(a))
            });
            // What was asked of who makes a pause is waited for.
            let waits = neighbours.into_iter().any(|other| self.nodes[other].suspended);
            if !waits && !node.suspended {
                assert_eq!(node.swarm.claims(), 0, "claims of peer {n}");
            }
        }
    }
}
