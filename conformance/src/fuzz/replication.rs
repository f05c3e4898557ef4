//! The feed channel: any bytes as a message, and a channel whose remote sends anything.
#![allow(clippy::disallowed_methods, reason = "any time will do to begin with")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use party::{
    encoding::MAX_SAFE_INTEGER,
    error::{Error, PeerMisbehaved},
    feed::{
        local::{Demand, Local},
        proof::{BlockProof, BlockRequest, Node, Proof, ProofRequest, UpgradeProof, UpgradeRequest},
    },
    key::{FeedKey, PublicKey},
    limits::Limits,
    replication::{
        self, Channel, Options, Output, Pace, Swarm, Ticket, Verdict,
        messages::{Bitfield, Data, Message, NoData, Range, Request, Sync, Want},
    },
    session::Session,
};

use super::script::Script;

/// Outputs after which a channel would have no end of them.
const MANY: usize = 10_000;

/// Requests on the way to another fork, beside all others: one for its tree, and some for hashes.
const FORK_REQUESTS: usize = 5;

/// Bounds low enough to be met.
fn limits() -> Limits {
    Limits {
        max_block: 100,
        max_proof_nodes: 3,
        max_queued_requests: 5,
        max_inflight_requests: 20,
        max_remote_ranges: 10,
        max_remote_pages: 2,
        max_remote_wants: 4,
        max_failed_requests: 8,
        ..Limits::default()
    }
}

/// The first byte says which of the two bodies takes the rest.
pub fn feed_messages(data: &[u8]) {
    match data {
        [0, rest @ ..] => feed_message(rest),
        [_, rest @ ..] => feed_channel(rest),
        [] => {}
    }
}

/// Any bytes as a message of any type. What decodes comes back the same from its encoding.
pub fn feed_message(data: &[u8]) {
    let [flags, rest @ ..] = data else { return };
    let (message_type, seeks) = (u64::from(flags % 12), *flags < 128);
    let payload = Bytes::copy_from_slice(rest);
    for limits in [Limits::default(), limits()] {
        let Ok(message) = Message::decode(message_type, &payload, seeks, &limits) else { continue };
        let Some(message) = message else {
            assert!(message_type > 9);
            continue;
        };
        assert_eq!(message.message_type(), message_type);
        let again = Message::decode(message_type, &message.encode(), true, &limits);
        assert_eq!(again, Ok(Some(message)));
    }
}

/// A channel of a small feed. The remote sends what the data says, and the program does what it says. No panic, no error
/// but the remote's, nothing asked for that can't be, nothing served that is not there, nothing beyond a bound.
pub fn feed_channel(data: &[u8]) {
    let mut script = Script::new(data);
    // Two channels of one feed, which share out what they ask for.
    let swarm = Arc::new(Swarm::default());
    let mut end = End::new(&mut script, &swarm);
    let mut other = End::new(&mut script, &swarm);
    other.follow(&mut end);
    while !script.is_over() && end.step(&mut script).is_ok() {
        end.check();
        if script.byte() & 3 == 0 {
            std::mem::swap(&mut end, &mut other);
            end.follow(&mut other);
        }
    }
}

/// A number that a remote may think of.
fn number(script: &mut Script<'_>) -> u64 {
    match script.byte() {
        byte @ 0..200 => byte.into(),
        byte @ 200..250 => u64::from(byte - 200) * 32_768,
        250 => 1 << 21,
        251 => 1 << 40,
        252 => MAX_SAFE_INTEGER - u64::from(script.byte()),
        _ => script.number() as u64,
    }
}

struct Feed {
    stored: BTreeMap<u64, ()>,
    length: u64,
}

impl Local for Feed {
    fn fork(&self) -> u64 {
        0
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn contiguous_length(&self) -> u64 {
        (0..).find(|index| !self.has(*index)).unwrap_or(0)
    }

    fn has(&self, index: u64) -> bool {
        self.stored.contains_key(&index)
    }

    fn has_manifest(&self) -> bool {
        self.length > 0
    }

    fn needs_manifest(&self) -> bool {
        self.length == 0
    }

    fn missing_nodes(&self, index: u64) -> u64 {
        assert!(index < MAX_SAFE_INTEGER);
        if index < self.length { index % 4 } else { 0 }
    }

    fn next_missing(&self, from: u64, to: u64) -> Option<u64> {
        (from..to).find(|index| !self.has(*index))
    }

    fn words(&self, start: u64, length: u64) -> Vec<(u64, Vec<u32>)> {
        let end = start.saturating_add(length).min(self.length);
        let mut words: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for (index, ()) in self.stored.range(start..end.max(start)) {
            words.entry(index / 32 * 32).or_insert_with(|| vec![0])[0] |= 1 << (index % 32);
        }
        words.into_iter().collect()
    }
}

struct End {
    feed: Feed,
    channel: Channel,
    remote_length: u64,
    serve: Vec<(Ticket, ProofRequest)>,
    ingest: Vec<(Ticket, Proof)>,
    /// Our requests that are not answered.
    asked: Vec<Request>,
    now: Instant,
}

impl End {
    fn new(script: &mut Script<'_>, swarm: &Arc<Swarm>) -> Self {
        let keys = [PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32])];
        let key = FeedKey::from_bytes([3; 32]);
        let session =
            |is_initiator| Session { binding: [4; 64], is_initiator, local: keys[0], remote: keys[1] };
        let flags = script.byte();
        let options = Options {
            live: flags & 1 == 0,
            download: flags & 2 == 0,
            upload: flags & 4 == 0,
            follow_forks: flags & 8 == 0,
            allow_push: flags & 16 != 0,
            push: flags & 32 != 0,
        };
        let limits = limits();
        let pace = Arc::new(Pace::new(&limits));
        let mut channel = Channel::new(&session(true), &key, options, &limits, swarm, &pace);
        let length = u64::from(script.byte() % 100);
        let gaps = u64::from(script.byte() % 8);
        let stored = (0..length).filter(|index| gaps == 0 || index % gaps != 0).map(|index| (index, ()));
        let feed = Feed { stored: stored.collect(), length };
        let remote = replication::handshake(&session(false), &key);
        let remote = Channel::verify_handshake(&session(true), &key, &remote).expect("a good handshake");
        channel.handle_opened(remote, &feed);
        let (serve, ingest, asked) = Default::default();
        Self { feed, channel, remote_length: 0, serve, ingest, asked, now: Instant::now() }
    }

    /// Takes over the feed from the channel that it was with, and time with it.
    fn follow(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.feed, &mut other.feed);
        self.now = self.now.max(other.now) + Duration::from_millis(700);
        self.channel.handle_local_change(&self.feed);
    }

    fn step(&mut self, script: &mut Script<'_>) -> Result<(), Error> {
        match script.byte() % 24 {
            // Mostly the end of the channel, so it must be rare.
            0 if script.byte() > 230 => {
                let (message_type, count) = (script.byte() % 12, usize::from(script.byte()));
                let payload = Bytes::copy_from_slice(script.bytes(count));
                self.receive(message_type.into(), payload)?;
            }
            1..=12 => {
                let message = self.hostile(script);
                self.receive(message.message_type(), message.encode())?;
            }
            13..=15 => self.poll(),
            16 => self.channel.set_writable(script.flag()),
            17 => {
                let start = number(script);
                let demand = match script.below(3) {
                    0 => Demand::everything(),
                    1 => Demand::nothing(),
                    _ => Demand::from_ranges(std::iter::once(start..start + u64::from(script.byte()))),
                };
                self.channel.set_demand(demand, &self.feed);
            }
            18 => {
                let index = number(script);
                if index < self.feed.length {
                    self.feed.stored.insert(index, ());
                } else {
                    let length = self.feed.length;
                    self.feed.length += u64::from(script.byte() % 8);
                    self.feed.stored.extend((length..self.feed.length).map(|index| (index, ())));
                }
                self.channel.handle_local_change(&self.feed);
            }
            19 => {
                self.feed.stored.remove(&number(script));
                self.channel.handle_local_change(&self.feed);
            }
            20..=21 if !self.serve.is_empty() => {
                let (ticket, request) = self.serve.remove(script.below(self.serve.len()));
                self.channel
                    .handle_served(ticket, if script.flag() { Ok(Some(answer(&request))) } else { Ok(None) });
            }
            22..=23 if !self.ingest.is_empty() => {
                let (ticket, proof) = self.ingest.remove(script.below(self.ingest.len()));
                self.ingest(ticket, &proof, script.byte() % 64)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn receive(&mut self, message_type: u64, payload: Bytes) -> Result<(), Error> {
        if let Ok(Some(message)) = Message::decode(message_type, &payload, true, &limits()) {
            match message {
                Message::Sync(sync) => self.remote_length = sync.length,
                Message::Data(Data { request: id, .. }) | Message::NoData(NoData { request: id, .. }) => {
                    self.asked.retain(|asked| asked.id != id);
                }
                _ => {}
            }
        }
        self.channel.handle_message(message_type, payload, &self.feed, self.now).inspect_err(|error| {
            assert!(matches!(error, Error::PeerMisbehaved(_) | Error::Decode(_)), "{error}");
        })
    }

    fn poll(&mut self) {
        for n in 0.. {
            assert!(n < MANY, "there is no end of outputs");
            match self.channel.poll_output(&self.feed, self.now) {
                None => break,
                Some(Output::Send { message_type, payload }) => {
                    let payload = payload.into_bytes();
                    let message = Message::decode(message_type, &payload, true, &Limits::default());
                    let message = message.expect("our own message").expect("a known type");
                    if let Message::Request(request) = message {
                        self.check_request(&request);
                        if request.id > 0 {
                            self.asked.push(request);
                        }
                    }
                }
                Some(Output::Serve { ticket, request, fork }) => {
                    assert_eq!(fork, 0);
                    if let Some(upgrade) = request.upgrade {
                        assert!(upgrade.length > 0 && upgrade.start + upgrade.length <= self.feed.length);
                    }
                    self.serve.push((ticket, request));
                }
                Some(Output::Extension { .. }) => {}
                Some(Output::Ingest { ticket, proof }) => {
                    assert!(proof.block.as_ref().is_none_or(|block| block.value.len() <= limits().max_block));
                    self.ingest.push((ticket, proof));
                }
                // Work that never ends.
                Some(Output::Follow { .. } | Output::Forgo { .. } | Output::CheckConflict { .. }) => {}
            }
        }
    }

    fn check_request(&self, request: &Request) {
        if request.id == 0 {
            // For the proof of a conflict: of what both had when it was asked for.
            let upgrade = request.proof.upgrade.expect("an upgrade");
            assert!(upgrade.start == 0 && upgrade.length <= self.feed.length);
            assert_eq!(request.proof, ProofRequest { upgrade: Some(upgrade), ..ProofRequest::default() });
            return;
        }
        assert!(self.asked.iter().all(|asked| asked.id < request.id), "an id is used again");
        if let Some(block) = request.proof.block {
            assert!(block.index < self.remote_length && !self.feed.has(block.index));
        }
        if let Some(upgrade) = request.proof.upgrade {
            assert_eq!(upgrade.start + upgrade.length, self.remote_length);
            assert!(upgrade.start == self.feed.length || upgrade.start == 0);
        }
    }

    fn ingest(&mut self, ticket: Ticket, proof: &Proof, outcome: u8) -> Result<(), Error> {
        if outcome == 0 {
            let forged = Err(PeerMisbehaved::InvalidSignature.into());
            let result = self.channel.handle_ingested(ticket, forged, &self.feed);
            // What contradicts us may be a conflict, of which the proof is asked for before anybody is blamed; what was
            // pushed is only counted.
            assert!(matches!(result, Ok(()) | Err(Error::PeerMisbehaved(_))), "{result:?}");
            return result;
        }
        // Else it is stored, or came too late.
        if outcome > 1 {
            if let Some(upgrade) = &proof.upgrade {
                // What is claimed of a length of 2^53 does not verify.
                let end = upgrade.start + upgrade.length;
                self.feed.length = if end < 1_000 { end.max(self.feed.length) } else { self.feed.length };
            }
            let block = proof.block.as_ref().filter(|block| block.index < self.feed.length);
            self.feed.stored.extend(block.map(|block| (block.index, ())));
        }
        let result = self.channel.handle_ingested(ticket, Ok(Verdict::Holds), &self.feed);
        assert!(result.is_ok(), "{result:?}");
        result
    }

    /// A message as a remote may make it up, often one that fits.
    fn hostile(&self, script: &mut Script<'_>) -> Message {
        let asked = self.asked.get(script.below(self.asked.len()));
        let kind = script.below(14);
        match if kind > 10 && asked.is_none() && script.byte() < 250 { kind - 10 } else { kind } {
            0 | 1 => Message::Sync(Sync {
                fork: u64::from(script.byte() > 240),
                length: number(script),
                remote_length: if script.flag() { self.feed.length } else { number(script) },
                can_upgrade: script.byte() < 200,
                uploading: script.byte() < 200,
                downloading: script.flag(),
                has_manifest: script.flag(),
                allow_push: script.flag(),
            }),
            2 | 3 => Message::Range(Range {
                drop: script.byte() > 200,
                start: number(script),
                length: number(script),
            }),
            4 => {
                let start = number(script) / 32 * 32;
                let words = (0..script.below(40)).map(|_| u32::from(script.byte()) * 0x0101_0101).collect();
                Message::Bitfield(Bitfield { start, words })
            }
            5 => Message::Want(want(script)),
            6 => Message::Unwant(want(script)),
            7 => Message::Cancel { request: number(script) },
            8 | 9 => {
                let mut proof = ProofRequest { manifest: script.byte() > 200, ..ProofRequest::default() };
                if script.byte() < 200 {
                    proof.block = Some(BlockRequest { index: number(script), nodes: number(script) });
                }
                if script.byte() > 200 {
                    proof.upgrade = Some(UpgradeRequest { start: number(script), length: number(script) });
                }
                Message::Request(Request { id: number(script), fork: 0, proof, priority: 0 })
            }
            10 => Message::NoData(NoData {
                request: asked.map_or_else(|| number(script), |asked| asked.id),
                reason: script.below(3) as u64,
            }),
            _ => {
                let mut proof = asked.map_or_else(Proof::default, |asked| answer(&asked.proof));
                if script.byte() > 250 {
                    proof.block = Some(block(number(script), script.byte().into()));
                }
                if script.byte() > 250 {
                    proof.upgrade = Some(upgrade(number(script), number(script)));
                }
                Message::Data(Data { request: asked.map_or_else(|| number(script), |asked| asked.id), proof })
            }
        }
    }

    fn check(&self) {
        let (limits, status) = (limits(), self.channel.status(&self.feed));
        assert!(status.waiting <= limits.max_inflight_requests + FORK_REQUESTS);
        assert!(status.serving <= limits.max_queued_requests);
    }
}

fn want(script: &mut Script<'_>) -> Want {
    Want { start: number(script), length: number(script), any: script.byte() > 200 }
}

fn block(index: u64, size: usize) -> BlockProof {
    let node = Node { index, size: 1, hash: [0; 32] };
    BlockProof { index, value: vec![0; size].into(), nodes: vec![node] }
}

fn upgrade(start: u64, length: u64) -> Box<UpgradeProof> {
    let (nodes, additional_nodes, signature) = Default::default();
    Box::new(UpgradeProof { start, length, nodes, additional_nodes, signature })
}

fn answer(request: &ProofRequest) -> Proof {
    Proof {
        block: request.block.map(|asked| block(asked.index, 3)),
        upgrade: request.upgrade.map(|asked| upgrade(asked.start, asked.length)),
        ..Proof::default()
    }
}
