//! A feed on a connection: its channel, and the proofs on their way in and out.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tracing::Span;

use crate::{
    feed::{
        Changes, Download, Feed, FeedPeer,
        changes::{Following, Reports},
        line::{Errand, OpenLine},
        proof::Proof,
    },
    key::PublicKey,
    limits::Limits,
    mux::{ChannelId, Mux},
    peer::{LinkState, Linked, MemberId, Peer, Replicate},
    replication::{Channel, Options, Output, Pace, RemoteHandshake, Swarm, Ticket},
    session::Session,
};

use super::{
    bucket::{self, Bucket},
    engine::AskingStanding,
    forks::{ForkWork, Step},
    jobs::{Arrived, FeedJob, Serve},
};

/// A feed that has made so many requests and is not in sync yet is a long one.
const SHORT_REQUESTS: u64 = 64;
/// Proofs that are verified and stored together at most.
const INGEST_PROOFS: usize = 1024;
/// Bytes of them after which no more are added. As much more is hashed while a batch is being stored.
const INGEST_BYTES: usize = 1 << 20;

/// A feed that was released on this connection by at least one member.
pub(super) struct FeedLink {
    pub(super) feed: Feed,
    /// What the feed's channels share.
    swarm: Arc<Swarm>,
    /// What the app sees of it.
    linked: Linked,
    pub(super) span: Span,
    /// The members that released it; to each of their parties it reports its changes.
    pub(super) released_by: BTreeMap<MemberId, Following>,
    pub(super) channel: Line,
    how: Replicate,
    /// What apps have for the channel, while it is open.
    line: Option<OpenLine>,
    /// Held while everything of the feed is wanted.
    download: Option<Download>,
    /// Tells the channels of this link apart, one after the other.
    generation: u64,
    /// Holds up what is served, if there is a limit.
    bucket: Option<Bucket>,
    suspended: bool,
    serving: VecDeque<Serve>,
    serve_running: bool,
    arrived: VecDeque<(Ticket, Proof)>,
    arrived_bytes: usize,
    /// Batches that are being verified and stored.
    ingesting: usize,
    /// Ends with the last of them.
    last_ingested: Option<oneshot::Receiver<Infallible>>,
    pub(super) forks: ForkWork,
    /// Requests that it has made since it was in sync, and those before.
    asked: u64,
    asked_in_sync: u64,
    /// Whether nothing is left to get, as far as we know, and nothing under way.
    pub(super) settled: bool,
    /// Whether [`Event::FeedInSync`](crate::party::Event::FeedInSync) was told since the last change.
    pub(super) told_in_sync: bool,
}

/// The channel of a feed.
pub(super) enum Line {
    /// None, but the remote may open it.
    Down,
    /// None, but we open it when it is its turn.
    Waiting,
    /// We have opened it, the remote has not.
    Opening(ChannelId, Channel),
    Open(ChannelId, Channel),
    /// The remote broke the protocol on it, or refused it, or our storage failed. With `for_good` it is
    /// not opened again on this connection.
    Failed {
        for_good: bool,
    },
}

impl Line {
    fn state(&self) -> LinkState {
        match self {
            Self::Down | Self::Failed { for_good: false } => LinkState::Down,
            Self::Waiting | Self::Opening(..) => LinkState::Opening,
            Self::Open(..) => LinkState::Open,
            Self::Failed { for_good: true } => LinkState::Failed,
        }
    }
}

/// What holds for a link when it is pumped.
#[derive(Clone, Copy)]
pub(super) struct Pump {
    pub(super) writable: bool,
    /// Whether the whole connection is.
    pub(super) suspended: bool,
    /// How many requests it may make.
    pub(super) requests: usize,
    /// The usual time to an answer on this connection.
    pub(super) round_trip: Option<Duration>,
    pub(super) now: Instant,
}

/// What a link wants the engine to do after it was pumped.
pub(super) struct Pumped {
    /// Bytes of blocks that have come and wait to be verified.
    pub(super) new_unverified_bytes: usize,
    pub(super) in_sync: bool,
    /// Whether it would ask for more if it were its turn.
    pub(super) hungry: bool,
    /// When it is to be pumped again, whatever happens.
    pub(super) wake: Option<Instant>,
}

impl FeedLink {
    pub(super) fn new(feed: Feed, remote: PublicKey) -> Self {
        let span = tracing::debug_span!("feed", key = %feed.discovery_key());
        Self {
            swarm: feed.shared(),
            linked: Linked::new(&feed, remote),
            feed,
            span,
            released_by: BTreeMap::new(),
            channel: Line::Down,
            how: Replicate {
                download: false,
                upload: false,
                upload_limit: None,
                follow_forks: false,
                allow_push: false,
                push: false,
            },
            line: None,
            download: None,
            generation: 0,
            bucket: None,
            suspended: false,
            serving: VecDeque::new(),
            serve_running: false,
            arrived: VecDeque::new(),
            arrived_bytes: 0,
            ingesting: 0,
            last_ingested: None,
            forks: ForkWork::default(),
            asked: 0,
            asked_in_sync: 0,
            settled: false,
            told_in_sync: false,
        }
    }

    /// The changes of the feed, for as long as the link lives.
    pub(super) fn changes(&self) -> Changes {
        self.feed.subscribe()
    }

    /// Adds a release. Returns whether the member had not released it before.
    pub(super) fn release(
        &mut self,
        member: MemberId,
        peer: &Peer,
        how: Replicate,
        reports: &Arc<Reports>,
    ) -> bool {
        let fresh = !self.released_by.contains_key(&member);
        if fresh {
            self.linked.add_peer(peer);
        }
        self.released_by.entry(member).or_insert_with(|| Following::new(&self.feed, reports));
        self.how.download |= how.download;
        self.how.upload |= how.upload;
        if let Some(rate) = how.upload_limit {
            self.linked.link().limit_upload(Some(rate));
        }
        self.how.follow_forks |= how.follow_forks;
        self.how.allow_push |= how.allow_push;
        self.how.push |= how.push;
        if self.how.download && self.download.is_none() && !self.feed.info().writable {
            self.download = Some(self.feed.want_all());
        }
        fresh
    }

    /// Takes the release of a member back that is gone. Returns whether nobody releases it any more.
    pub(super) fn take_back(&mut self, member: MemberId, peer: &Peer) -> bool {
        if self.released_by.remove(&member).is_some() {
            self.linked.remove_peer(peer);
        }
        self.released_by.is_empty()
    }

    pub(super) fn new_channel(
        &self,
        session: &Session,
        finite: bool,
        limits: &Limits,
        pace: &Arc<Pace>,
    ) -> Channel {
        let options = Options {
            live: !finite,
            download: true,
            upload: self.how.upload,
            follow_forks: self.how.follow_forks,
            allow_push: self.how.allow_push,
            push: self.how.push,
        };
        Channel::new(session, &self.feed.key(), options, limits, &self.swarm, pace)
    }

    pub(super) fn job(&self) -> FeedJob {
        FeedJob { feed: self.feed.discovery_key(), generation: self.generation }
    }

    pub(super) fn is(&self, job: FeedJob) -> bool {
        self.generation == job.generation
    }

    pub(super) fn opened(
        &mut self,
        id: ChannelId,
        mut channel: Channel,
        remote: RemoteHandshake,
        line: FeedPeer,
    ) {
        self.line = Some(OpenLine::new(&self.feed, line));
        let (demand, sought) = (self.feed.demand(), self.feed.sought());
        self.feed.with_local(|local| {
            channel.set_demand(demand, local);
            channel.set_sought(sought);
            channel.handle_opened(remote, local);
        });
        self.channel = Line::Open(id, channel);
    }

    /// The channel is gone. Returns its id, and the size of what had come over it and is dropped.
    pub(super) fn down(&mut self, line: Line) -> (Option<ChannelId>, usize) {
        let id = match std::mem::replace(&mut self.channel, line) {
            Line::Opening(id, _) | Line::Open(id, _) => Some(id),
            Line::Down | Line::Waiting | Line::Failed { .. } => None,
        };
        self.line = None;
        (self.asked, self.asked_in_sync) = (0, 0);
        self.generation += 1;
        self.serving.clear();
        self.serve_running = false;
        self.ingesting = 0;
        self.arrived.clear();
        self.forks.clear();
        (id, std::mem::take(&mut self.arrived_bytes))
    }

    /// Lets the channel say what it has to say, and make some requests.
    pub(super) fn pump(&mut self, mux: &mut Mux, pump: Pump) -> Pumped {
        let mut pumped = Pumped { new_unverified_bytes: 0, in_sync: false, hungry: false, wake: None };
        let suspended =
            pump.suspended || self.linked.link().is_suspended() || self.feed.is_replication_suspended();
        let state = self.channel.state();
        let Line::Open(id, channel) = &mut self.channel else {
            // What was refused won't come; what we opened is awaited.
            self.settled = !matches!(self.channel, Line::Waiting | Line::Opening(..));
            self.linked.set_state(state, suspended);
            return pumped;
        };
        self.suspended = suspended;
        channel.set_suspended(suspended);
        channel.set_writable(pump.writable);
        channel.set_busy(!self.serving.is_empty());
        channel.set_allowance(pump.requests);
        let line = self.line.as_ref();
        self.feed.with_local(|local| {
            while channel.takes_extensions()
                && let Some(errand) = line.and_then(OpenLine::next_errand)
            {
                match errand {
                    // It was checked when it was queued.
                    Errand::Say(name, message) => drop(channel.send_extension(&name, message)),
                    Errand::Push(blocks) => channel.push(blocks, local),
                }
            }
            while let Some(output) = channel.poll_output(local, pump.now) {
                match output {
                    Output::Send { message_type, payload } => {
                        // A channel that the remote has closed meanwhile tells so by its event.
                        let _ = mux.send_parts(*id, message_type, &payload.parts());
                    }
                    Output::Serve { ticket, request, fork } => {
                        self.serving.push_back(Serve { ticket, request, fork });
                    }
                    Output::Ingest { ticket, proof } => {
                        let bytes = size(&proof);
                        self.arrived_bytes += bytes;
                        pumped.new_unverified_bytes += bytes;
                        self.arrived.push_back((ticket, proof));
                    }
                    Output::Follow { ticket, proof } => self.forks.follow(ticket, Step::Proof(proof)),
                    Output::Forgo { ticket, pending } => self.forks.follow(ticket, Step::Forgo(pending)),
                    Output::CheckConflict { proof } => self.forks.check(proof),
                    Output::Extension { name, message } => {
                        if let Some(line) = line {
                            line.deliver(&name, &message);
                        }
                    }
                }
            }
            let status = channel.status(local);
            pumped.in_sync = status.in_sync && !suspended;
            let requests = status.counters.sent.request;
            self.asked = requests.saturating_sub(self.asked_in_sync);
            if pumped.in_sync {
                (self.asked, self.asked_in_sync) = (0, requests);
            }
            self.linked.set_open(&status, suspended, pump.round_trip);
        });
        if !suspended {
            pumped.hungry = channel.is_hungry();
            pumped.wake = channel.poll_timeout();
        }
        if self.swarm.take_news() {
            self.feed.stir();
        }
        let at_rest =
            self.arrived.is_empty() && self.serving.is_empty() && !self.serve_running && self.ingesting == 0;
        self.settled = pumped.in_sync && at_rest && self.forks.is_at_rest();
        pumped
    }

    /// With whom it stands in line to make requests.
    pub(super) fn standing(&self) -> AskingStanding {
        match self.asked {
            0 => AskingStanding::Fresh,
            asked if asked < SHORT_REQUESTS => AskingStanding::Begun,
            _ => AskingStanding::Long,
        }
    }

    pub(super) fn wants_to_serve(&self) -> bool {
        !self.serve_running && !self.suspended && !self.serving.is_empty()
    }

    /// How many bytes may be served now, or else when.
    pub(super) fn upload_budget(&mut self, now: Instant) -> Result<usize, Instant> {
        bucket::set_rate(&mut self.bucket, self.linked.link().upload_limit(), now);
        bucket::budget_of(&mut self.bucket, now)
    }

    pub(super) fn bucket(&mut self) -> Option<&mut Bucket> {
        self.bucket.as_mut()
    }

    pub(super) fn start_serving(&mut self) -> VecDeque<Serve> {
        self.serve_running = true;
        std::mem::take(&mut self.serving)
    }

    pub(super) fn served(&mut self, mut rest: VecDeque<Serve>) {
        self.serve_running = false;
        rest.append(&mut self.serving);
        self.serving = rest;
    }

    /// What has come, if it is time for it: batches grow while the one before is being stored. Of large blocks, one
    /// batch is hashed meanwhile.
    pub(super) fn start_ingesting(&mut self) -> Option<Arrived> {
        let is_time = match self.ingesting {
            0 => !self.arrived.is_empty(),
            1 => self.arrived_bytes >= INGEST_BYTES,
            _ => false,
        };
        if !is_time {
            return None;
        }
        let (mut count, mut bytes) = (0, 0);
        for (_, proof) in self.arrived.iter().take(INGEST_PROOFS) {
            count += 1;
            bytes += size(proof);
            if bytes >= INGEST_BYTES {
                break;
            }
        }
        let proofs = self.arrived.drain(..count).collect();
        self.arrived_bytes -= bytes;
        self.ingesting += 1;
        let (ended, next) = oneshot::channel();
        Some(Arrived { proofs, bytes, before: self.last_ingested.replace(next), ended })
    }

    pub(super) fn ingested(&mut self) {
        self.ingesting = self.ingesting.saturating_sub(1);
        if self.ingesting == 0 {
            self.last_ingested = None;
        }
    }
}

/// What a proof takes, roughly: its block and its nodes.
fn size(proof: &Proof) -> usize {
    const NODE: usize = 48;
    let block = proof.block.as_ref().map_or(0, |block| block.value.len() + NODE * block.nodes.len());
    let upgrade = proof
        .upgrade
        .as_ref()
        .map_or(0, |upgrade| NODE * (upgrade.nodes.len() + upgrade.additional_nodes.len()));
    256 + block + upgrade
}
