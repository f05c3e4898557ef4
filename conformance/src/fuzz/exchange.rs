//! The operations of replication: two peers with real feeds, and somebody who may put in a word.
#![allow(clippy::disallowed_methods, reason = "any time will do to begin with")]

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use party::{
    error::Error,
    feed::{
        Demand, Feed, Identity,
        memory::MemoryStorage,
        proof::{BlockRequest, Proof, ProofRequest, UpgradeRequest},
        reorg::PendingReorg,
        storage::Slot,
    },
    key::{KeyPair, PublicKey},
    limits::Limits,
    replication::{
        Channel, Options, Output, Pace, Swarm, Ticket, Verdict,
        messages::{Bitfield, Data, Message, NoData, Range, Request, Sync, Want},
    },
    session::Session,
};
use tokio::runtime::Runtime;

use super::input::{Few, Short, steps};

/// Things that may happen one after the other, after which there would be no end of them.
const MANY: usize = 10_000;
/// The longest that the feed gets.
const LONGEST: u64 = 120;

fn limits() -> Limits {
    Limits { max_queued_requests: 24, max_queued_pushes: 16, max_inflight_requests: 16, ..Limits::default() }
}

/// What the peers are for, and what the reader has to begin with.
#[derive(Arbitrary, Debug)]
struct Setting {
    legacy: bool,
    is_live: [bool; 2],
    /// Whether somebody puts in a word.
    is_hostile: bool,
    allow_push: bool,
    push: bool,
    length: u8,
}

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Append(u8),
    Truncate(u8),
    Clear(u8, u8),
    Demand(bool, Few<(u8, u8), 3>),
    Deliver(bool, u8),
    Serve(bool, u8),
    Ingest(bool, u8),
    Follow(bool),
    Pump(bool),
    Wait(u16),
    Writable(bool, bool),
    Busy(bool, bool),
    Push(u8, u8),
    Say(bool, Short<'a>),
    /// Somebody puts in a message.
    Forge(bool, Forged<'a>),
    /// Somebody changes the next message.
    Tamper(bool, u8, u8),
    /// Somebody changes the block of an answer.
    Spoil(bool, u8),
}

#[derive(Arbitrary, Debug)]
enum Forged<'a> {
    Bytes(u8, Short<'a>),
    Sync([u8; 3], u8),
    Request([u8; 3], Option<(u8, u8)>, Option<(u8, u8)>),
    Cancel(u8),
    NoData(u8, u8),
    Want(u8, u8),
    Range(bool, u8, u8),
    Bitfield(u8, Few<u32, 3>),
    /// An answer that was given before, to another request.
    Data(u8, u8),
}

/// A writer and a reader. Whatever happens, what is stored is the writer's, and no queue grows beyond its bound. If nobody
/// puts in a word, neither blames the other, and in the end the reader has what it wants, as far as the writer has it.
pub fn replication(data: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime =
        RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));
    let mut input = Unstructured::new(data);
    let Ok(setting) = input.arbitrary::<Setting>() else { return };
    runtime.block_on(async {
        let mut pair = Pair::new(&setting).await;
        let is_hostile =
            |step: &Step<'_>| matches!(step, Step::Forge(..) | Step::Tamper(..) | Step::Spoil(..));
        for step in steps::<Step<'_>>(input).filter(|step| setting.is_hostile || !is_hostile(step)) {
            pair.step(step).await;
            pair.check().await;
        }
        pair.rest().await;
        pair.check().await;
        if pair.is_honest {
            pair.check_complete().await;
        }
    });
}

struct End {
    feed: Feed,
    channel: Channel,
    demand: Demand,
    /// What the other end has sent, and this one has not seen.
    inbox: VecDeque<(u64, Bytes)>,
    serve: Vec<(Ticket, ProofRequest, u64)>,
    ingest: Vec<(Ticket, Proof)>,
    follow: Vec<Following>,
    /// It has closed the channel, for something that somebody put in.
    is_closed: bool,
}

enum Following {
    Proof(Ticket, Proof),
    Forgo(Ticket, PendingReorg),
    Conflict(Proof),
}

struct Pair {
    /// The writer and the reader.
    ends: [End; 2],
    /// What the writer has written, by fork.
    written: Vec<Vec<Bytes>>,
    answers: Vec<Proof>,
    blocks: u16,
    now: Instant,
    is_honest: bool,
}

impl Pair {
    async fn new(setting: &Setting) -> Self {
        let create = |identity| Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity);
        let signer = KeyPair::from_seed(&[9; 32]);
        let writer = if setting.legacy { Identity::legacy_writer(signer) } else { Identity::writer(signer) };
        let writer = create(writer).await.expect("a feed");
        let reader = create(Identity::reader(writer.key())).await.expect("a feed");
        let options = setting.is_live.map(|live| Options { live, ..Options::default() });
        let ends = [
            End::new(writer, true, Options { push: setting.push, ..options[0] }),
            End::new(reader, false, Options { allow_push: setting.allow_push, ..options[1] }),
        ];
        let mut pair = Self {
            ends,
            written: vec![vec![]],
            answers: vec![],
            blocks: 0,
            now: Instant::now(),
            is_honest: true,
        };
        pair.append(u64::from(setting.length % 40)).await;
        pair
    }

    async fn append(&mut self, count: u64) {
        let fork = self.written.last_mut().expect("a fork");
        let count = count.min(LONGEST.saturating_sub(fork.len() as u64));
        let blocks: Vec<Bytes> = (0..count)
            .map(|_| {
                self.blocks += 1;
                self.blocks.to_le_bytes().repeat(usize::from(self.blocks % 7)).into()
            })
            .collect();
        fork.extend_from_slice(&blocks);
        if count > 0 {
            self.ends[0].feed.append_batch(blocks).await.expect("memory does not fail");
            self.ends[0].changed();
        }
    }

    async fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Append(count) => self.append(u64::from(count) % 20).await,
            Step::Truncate(length) => {
                let fork = self.written.last().expect("a fork");
                let length = usize::from(length) % (fork.len() + 1);
                let kept = fork[..length].to_vec();
                self.written.push(kept);
                self.ends[0].feed.truncate(length as u64).await.expect("memory does not fail");
                self.ends[0].changed();
            }
            Step::Clear(start, count) => {
                let start = u64::from(start) % LONGEST;
                let cleared = self.ends[0].feed.clear(start..start + u64::from(count)).await;
                cleared.expect("memory does not fail");
                self.ends[0].changed();
            }
            Step::Demand(of, ranges) => {
                let ranges = ranges.0.into_iter().map(|(start, length)| {
                    let (start, length) = (u64::from(start) % LONGEST, u64::from(length));
                    start..if length == 255 { u64::MAX } else { start + length }
                });
                self.ends[usize::from(of)].demand(Demand::from_ranges(ranges));
            }
            Step::Deliver(to, count) => drop(self.deliver(to.into(), count.into())),
            Step::Serve(by, which) => drop(self.serve(by.into(), which.into()).await),
            Step::Ingest(by, count) => drop(self.ingest(by.into(), count.into()).await),
            Step::Follow(by) => drop(self.follow(by.into()).await),
            Step::Pump(by) => self.pump(by.into()),
            Step::Wait(millis) => self.now += Duration::from_millis(millis.into()),
            Step::Writable(end, writable) => self.ends[usize::from(end)].channel.set_writable(writable),
            Step::Busy(end, busy) => self.ends[usize::from(end)].channel.set_busy(busy),
            Step::Push(start, count) => {
                let End { feed, channel, .. } = &mut self.ends[0];
                let range = u64::from(start)..u64::from(start) + u64::from(count);
                feed.with_local(|local| channel.push(range, local));
            }
            Step::Say(by, message) => {
                let said = self.ends[usize::from(by)]
                    .channel
                    .send_extension(&Arc::from("app"), Bytes::copy_from_slice(message.0));
                assert!(matches!(said, Ok(()) | Err(Error::ApiMisuse(_) | Error::Closed)), "{said:?}");
            }
            Step::Forge(to, forged) => {
                self.is_honest = false;
                if let Some(message) = forged.message(&self.answers) {
                    self.ends[usize::from(to)].inbox.push_back(message);
                }
            }
            Step::Tamper(to, at, bits) => {
                if let Some((_, payload)) = self.ends[usize::from(to)].inbox.front_mut()
                    && !payload.is_empty()
                {
                    self.is_honest = false;
                    let mut bytes = payload.to_vec();
                    let at = usize::from(at) % bytes.len();
                    bytes[at] ^= bits;
                    *payload = bytes.into();
                }
            }
            Step::Spoil(of, which) => {
                let ingest = &mut self.ends[usize::from(of)].ingest;
                let count = ingest.len().max(1);
                if let Some((_, Proof { block: Some(block), .. })) =
                    ingest.get_mut(usize::from(which) % count)
                {
                    self.is_honest = false;
                    block.value = Bytes::from_static(b"forged");
                }
            }
        }
    }

    // Each of these says whether there was something to do.

    fn deliver(&mut self, to: usize, count: usize) -> bool {
        let end = &mut self.ends[to];
        let count = count.min(end.inbox.len());
        for (message_type, payload) in end.inbox.drain(..count).collect::<Vec<_>>() {
            let End { feed, channel, .. } = end;
            let result =
                feed.with_local(|local| channel.handle_message(message_type, payload, local, self.now));
            end.settle(result, self.is_honest);
        }
        count > 0
    }

    async fn serve(&mut self, by: usize, which: usize) -> bool {
        let end = &mut self.ends[by];
        if end.serve.is_empty() {
            return false;
        }
        let (ticket, request, fork) = end.serve.remove(which % end.serve.len());
        let proof = match end.feed.prove(request, fork).await {
            Ok(proof) => Ok(proof),
            Err(Error::PeerMisbehaved(error)) => {
                assert!(!self.is_honest, "{error}");
                Err(())
            }
            Err(error) => panic!("{error}"),
        };
        if let Ok(Some(proof)) = &proof
            && self.answers.len() < 20
        {
            self.answers.push(proof.clone());
        }
        end.channel.handle_served(ticket, proof);
        true
    }

    async fn ingest(&mut self, by: usize, count: usize) -> bool {
        let end = &mut self.ends[by];
        let count = count.min(end.ingest.len());
        let (tickets, proofs): (Vec<_>, Vec<_>) = end.ingest.drain(..count).unzip();
        for (ticket, result) in tickets.into_iter().zip(end.feed.ingest(proofs).await) {
            let verdict = result.map(|it| if it.unconnected { Verdict::Unconnected } else { Verdict::Holds });
            let End { feed, channel, .. } = end;
            let result = feed.with_local(|local| channel.handle_ingested(ticket, verdict, local));
            end.settle(result, self.is_honest);
        }
        count > 0
    }

    async fn follow(&mut self, by: usize) -> bool {
        let end = &mut self.ends[by];
        let following = std::mem::take(&mut end.follow);
        let is_busy = !following.is_empty();
        for following in following {
            let End { feed, channel, .. } = end;
            let result = match following {
                Following::Proof(ticket, proof) => {
                    let followed = feed.follow(proof).await.map(drop);
                    feed.with_local(|local| channel.handle_followed(ticket, followed, local))
                }
                Following::Forgo(ticket, pending) => {
                    let followed = feed.forgo(&pending).await.map(drop);
                    feed.with_local(|local| channel.handle_followed(ticket, followed, local))
                }
                Following::Conflict(proof) => {
                    let conflict = feed.check_conflict(proof).await;
                    assert!(!matches!(conflict, Ok(Some(_))), "the writer has signed one tree a fork");
                    channel.handle_conflict_checked(false)
                }
            };
            end.settle(result, self.is_honest);
        }
        is_busy
    }

    /// Takes all that an end has to say.
    fn pump(&mut self, by: usize) {
        let [a, b] = &mut self.ends;
        let (end, other) = if by == 0 { (a, b) } else { (b, a) };
        for n in 0.. {
            assert!(n < MANY, "there is no end of outputs");
            let End { feed, channel, .. } = end;
            match feed.with_local(|local| channel.poll_output(local, self.now)) {
                None => break,
                Some(_) if end.is_closed => {}
                Some(Output::Send { message_type, payload }) => {
                    let payload = payload.into_bytes();
                    let message = Message::decode(message_type, &payload, true, &Limits::default());
                    assert!(matches!(message, Ok(Some(_))), "what can't be read: {message:?}");
                    other.inbox.push_back((message_type, payload));
                }
                Some(Output::Serve { ticket, request, fork }) => end.serve.push((ticket, request, fork)),
                Some(Output::Ingest { ticket, proof }) => end.ingest.push((ticket, proof)),
                Some(Output::Follow { ticket, proof }) => end.follow.push(Following::Proof(ticket, proof)),
                Some(Output::Forgo { ticket, pending }) => end.follow.push(Following::Forgo(ticket, pending)),
                Some(Output::CheckConflict { proof }) => end.follow.push(Following::Conflict(proof)),
                Some(Output::Extension { .. }) => {}
            }
        }
        // One to see what can be proved, and one of a conflict, come on top.
        let most = limits().max_queued_requests + limits().max_queued_pushes + 2;
        assert!(end.serve.len() <= most, "{} proofs to be made", end.serve.len());
    }

    /// Lets all happen that is still to happen, and time pass while somebody waits for it.
    async fn rest(&mut self) {
        for end in &mut self.ends {
            end.channel.set_writable(true);
            end.channel.set_busy(false);
        }
        let mut idle = 0;
        for _ in 0..MANY {
            let mut is_busy = false;
            for n in 0..2 {
                is_busy |= self.deliver(n, usize::MAX);
                while self.serve(n, 0).await {
                    is_busy = true;
                }
                is_busy |= self.ingest(n, usize::MAX).await;
                is_busy |= self.follow(n).await;
                self.pump(n);
            }
            if self.ends.iter().any(|end| end.is_closed) {
                return;
            }
            let next = self.ends.iter().filter_map(|end| end.channel.poll_timeout()).min();
            match next {
                _ if is_busy || self.ends.iter().any(End::is_busy) => {}
                Some(next) if idle < 20 => {
                    idle += 1;
                    self.now = self.now.max(next);
                }
                _ => return,
            }
        }
        panic!("it does not come to rest");
    }

    async fn check(&self) {
        for end in &self.ends {
            let status = end.feed.with_local(|local| end.channel.status(local));
            // One for the tree of another fork, and some for hashes, come on top.
            assert!(status.waiting <= limits().max_inflight_requests + 5, "{status:?}");
            assert!(status.serving <= limits().max_queued_requests, "{status:?}");
        }
        let reader = &self.ends[1].feed;
        let info = reader.info();
        let written = &self.written[info.fork as usize];
        assert!(info.length as usize <= written.len());
        for index in (0..info.length).filter(|index| reader.has(*index)) {
            let block = reader.get(index).await.expect("memory does not fail");
            assert_eq!(block.as_ref(), written.get(index as usize), "block {index} is not the writer's");
        }
        assert!((info.length..LONGEST).all(|index| !reader.has(index)));
    }

    async fn check_complete(&self) {
        let [writer, reader] = &self.ends;
        let (there, here) = (writer.feed.info(), reader.feed.info());
        // Of a feed without blocks there is nothing to prove.
        if there.length == 0 {
            return;
        }
        assert_eq!((here.fork, here.length), (there.fork, there.length), "{:?}", self.status());
        for index in (0..there.length).filter(|index| reader.demand.wants(*index)) {
            assert!(reader.feed.has(index) || !writer.feed.has(index), "block {index}: {:?}", self.status());
        }
    }

    fn status(&self) -> Vec<party::replication::Status> {
        self.ends.iter().map(|end| end.feed.with_local(|local| end.channel.status(local))).collect()
    }
}

impl End {
    fn new(feed: Feed, is_initiator: bool, options: Options) -> Self {
        let keys = [1, 2].map(|n| PublicKey::from_bytes([n; 32]));
        let session = |is_initiator: bool| {
            let (local, remote) = if is_initiator { (keys[0], keys[1]) } else { (keys[1], keys[0]) };
            Session { binding: [5; 64], is_initiator, local, remote }
        };
        let key = feed.key();
        let (limits, swarm) = (limits(), Arc::new(Swarm::default()));
        let channel = |is_initiator: bool| {
            let pace = Arc::new(Pace::new(&limits));
            Channel::new(&session(is_initiator), &key, options, &limits, &swarm, &pace)
        };
        let remote = channel(!is_initiator).handshake();
        let remote =
            Channel::verify_handshake(&session(is_initiator), &key, &remote).expect("a good handshake");
        let mut channel = channel(is_initiator);
        feed.with_local(|local| channel.handle_opened(remote, local));
        let (inbox, serve, ingest, follow) = Default::default();
        Self { feed, channel, demand: Demand::everything(), inbox, serve, ingest, follow, is_closed: false }
    }

    fn changed(&mut self) {
        let Self { feed, channel, .. } = self;
        feed.with_local(|local| channel.handle_local_change(local));
    }

    fn demand(&mut self, demand: Demand) {
        let Self { feed, channel, .. } = self;
        feed.with_local(|local| channel.set_demand(demand.clone(), local));
        self.demand = demand;
    }

    fn is_busy(&self) -> bool {
        !self.inbox.is_empty() || !self.serve.is_empty() || !self.ingest.is_empty() || !self.follow.is_empty()
    }

    fn settle(&mut self, result: Result<(), Error>, is_honest: bool) {
        if let Err(error) = result {
            assert!(!is_honest, "an honest peer is blamed: {error}");
            assert!(matches!(error, Error::PeerMisbehaved(_) | Error::Decode(_)), "{error}");
            self.is_closed = true;
        }
    }
}

impl Forged<'_> {
    fn message(&self, answers: &[Proof]) -> Option<(u64, Bytes)> {
        let message = match self {
            Self::Bytes(message_type, payload) => {
                return Some(((message_type % 11).into(), Bytes::copy_from_slice(payload.0)));
            }
            Self::Sync([fork, length, remote_length], flags) => Message::Sync(Sync {
                fork: u64::from(*fork) / 64,
                length: far(*length),
                remote_length: far(*remote_length),
                can_upgrade: flags & 1 > 0,
                uploading: flags & 2 > 0,
                downloading: flags & 4 > 0,
                has_manifest: flags & 8 > 0,
                allow_push: flags & 16 > 0,
            }),
            Self::Request([id, fork, priority], block, upgrade) => {
                let block =
                    block.map(|(index, nodes)| BlockRequest { index: far(index), nodes: nodes.into() });
                let upgrade =
                    upgrade.map(|(start, length)| UpgradeRequest { start: far(start), length: far(length) });
                let proof = ProofRequest { block, upgrade, ..ProofRequest::default() };
                let (fork, priority) = (u64::from(*fork) / 64, (*priority).into());
                Message::Request(Request { id: (*id).into(), fork, proof, priority })
            }
            Self::Cancel(request) => Message::Cancel { request: (*request).into() },
            Self::NoData(request, reason) => {
                Message::NoData(NoData { request: (*request).into(), reason: (*reason).into() })
            }
            Self::Want(start, length) => {
                Message::Want(Want { start: far(*start), length: far(*length), any: false })
            }
            Self::Range(drop, start, length) => {
                Message::Range(Range { drop: *drop, start: far(*start), length: far(*length) })
            }
            Self::Bitfield(start, words) => {
                Message::Bitfield(Bitfield { start: far(*start) / 32 * 32, words: words.0.clone() })
            }
            Self::Data(request, which) => {
                let proof = answers.get(usize::from(*which) % answers.len().max(1))?.clone();
                Message::Data(Data { request: (*request).into(), proof })
            }
        };
        Some((message.message_type(), message.encode()))
    }
}

/// A number that is near mostly.
fn far(number: u8) -> u64 {
    match number {
        0..240 => number.into(),
        240..254 => u64::from(number - 239) << 21,
        254 => 1 << 40,
        255 => party::encoding::MAX_SAFE_INTEGER,
    }
}
