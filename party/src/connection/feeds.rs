//! A feed on a connection: its channel, and the proofs on their way in and out.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tracing::Span;

use crate::{
    error::Error,
    feed::{
        Changes, Demand, Download, Feed, FeedPeer,
        changes::{Following, Reports},
        line::{Errand, OpenLine},
        local::Local,
        proof::Proof,
    },
    key::PublicKey,
    limits::Limits,
    mux::{ChannelId, Mux},
    peer::{LinkState, Linked, MemberId, Peer, Replicate},
    replication::{Channel, Options, Output, Pace, RemoteHandshake, Swarm, Ticket, Verdict},
    rules::{Action, Quota},
    session::Session,
};

use super::{
    bucket::{self, Bucket},
    engine::AskingStanding,
    forks::{ForkWork, Step},
    grants::{Allowed, Release, Scope, log_refusal},
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
    /// The members that released it.
    pub(super) released_by: BTreeMap<MemberId, Release>,
    /// What these allow.
    allowed: Allowed,
    /// Bytes of blocks on their way to be stored, to be given back to the quotas if they aren't.
    charged: BTreeMap<Ticket, (Vec<Quota>, u64)>,
    /// Whether a block has come that no quota had room for. Till the rules are asked again, no more are.
    is_spent: bool,
    /// Whether a block was asked for that no quota had room for. Till the rules are asked again, the remote is told of no more
    /// that takes one.
    is_served_out: bool,
    /// Whether nobody has looked yet at what is allowed.
    is_new: bool,
    /// Whether less was allowed when it was looked at last than before.
    has_narrowed: bool,
    pub(super) channel: Line,
    /// Dropped with the link, which ends what waits for the feed's changes.
    _alive: oneshot::Sender<Infallible>,
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
    /// None: the rules allow nothing with the feed, now.
    Forbidden,
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
            Self::Forbidden => LinkState::Forbidden,
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
    /// A link of a feed that nobody has released yet, and what ends with it. Its channels are numbered from
    /// `generation` on.
    pub(super) fn new(
        feed: Feed,
        remote: PublicKey,
        generation: u64,
    ) -> (Self, oneshot::Receiver<Infallible>) {
        let (alive, ended) = oneshot::channel();
        let span = tracing::debug_span!("feed", key = %feed.discovery_key());
        let link = Self {
            swarm: feed.shared(),
            linked: Linked::new(&feed, remote),
            feed,
            span,
            released_by: BTreeMap::new(),
            allowed: Allowed::default(),
            charged: BTreeMap::new(),
            is_spent: false,
            is_served_out: false,
            is_new: true,
            has_narrowed: false,
            channel: Line::Forbidden,
            _alive: alive,
            line: None,
            download: None,
            generation,
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
        };
        (link, ended)
    }

    /// The changes of the feed, for as long as the link lives.
    pub(super) fn changes(&self) -> Changes {
        self.feed.subscribe()
    }

    /// Adds a release, for which the rules are asked. Returns whether the member had not released it before.
    pub(super) fn release(
        &mut self,
        member: MemberId,
        peer: &Peer,
        how: Replicate,
        reports: &Arc<Reports>,
    ) -> bool {
        if let Some(rate) = how.upload_limit {
            self.linked.link().limit_upload(Some(rate));
        }
        if let Some(release) = self.released_by.get_mut(&member) {
            release.widen(how);
            return false;
        }
        self.linked.add_peer(peer);
        let following = Following::new(&self.feed, reports);
        let release = Release::new(peer, &self.feed, how, following);
        release.log(peer, &self.feed.key());
        self.released_by.insert(member, release);
        true
    }

    /// Takes the release of a member back. Returns whether nobody releases it any more.
    pub(super) fn take_back(&mut self, member: MemberId, peer: &Peer) -> bool {
        if self.released_by.remove(&member).is_some() {
            self.linked.remove_peer(peer);
        }
        self.released_by.is_empty()
    }

    /// Adds up again what is allowed. Returns whether that has changed; if so, [`apply`](Self::apply) it.
    pub(super) fn reconsider(&mut self, metered: bool) -> bool {
        let allowed = Allowed::of(self.released_by.values(), metered);
        let (is_spent, is_served_out) = (&mut self.is_spent, &mut self.is_served_out);
        let was_spent = std::mem::take(is_spent) | std::mem::take(is_served_out);
        let changed = was_spent || allowed != self.allowed;
        self.has_narrowed = allowed.may_be_less_than(&self.allowed);
        self.allowed = allowed;
        if !self.allowed.how.download {
            self.download = None;
        } else if self.download.is_none() && !self.feed.info().writable {
            self.download = Some(self.feed.want_all());
        }
        changed
    }

    /// Whether it is looked at for the first time.
    pub(super) fn take_new(&mut self) -> bool {
        std::mem::replace(&mut self.is_new, false)
    }

    /// Whether less was allowed when it was [reconsidered](Self::reconsider) last than before.
    pub(super) fn has_narrowed(&self) -> bool {
        self.has_narrowed
    }

    /// Whether there is nothing that a channel would be for.
    pub(super) fn is_forbidden(&self) -> bool {
        self.allowed.is_nothing()
    }

    /// Makes what is allowed now hold for the open channel, and for what has come over it.
    ///
    /// # Errors
    /// What the remote did is to blame; the channel is to be closed.
    //= PARTY-101, PARTY-104
    pub(super) fn apply(&mut self, finite: bool) -> Result<(), Error> {
        let options = self.options(finite);
        let Line::Open(_, channel) = &mut self.channel else { return Ok(()) };
        channel.set_options(options)?;
        let arrived = std::mem::take(&mut self.arrived);
        self.arrived_bytes = 0;
        self.feed.with_local(|local| {
            for (ticket, proof) in arrived {
                let index = proof.block.as_ref().map(|block| block.index);
                // It was paid for when it came.
                let is_free = self.charged.contains_key(&ticket);
                if index.is_none_or(|index| is_free || self.allowed.accept.permits(index, local.length())) {
                    self.arrived_bytes += size(&proof);
                    self.arrived.push_back((ticket, proof));
                } else {
                    channel.handle_ingested(ticket, Ok(Verdict::Holds), local)?;
                }
            }
            Ok::<(), Error>(())
        })?;
        self.set_demand();
        Ok(())
    }

    /// Tells the channel what is wanted, as far as that is allowed.
    pub(super) fn set_demand(&mut self) {
        let Line::Open(_, channel) = &mut self.channel else { return };
        let (demand, sought) = (self.feed.demand(), self.feed.sought());
        let (take, is_spent) = (&self.allowed.take, self.is_spent);
        self.feed.with_local(|local| {
            channel.set_demand(within(demand, take, is_spent, local), local);
            channel.set_sought(sought);
        });
    }

    /// Whether a block that was read for the remote may go to it; if so, it is paid for.
    //= PARTY-100, PARTY-102
    pub(super) fn may_send(&mut self, proof: &Proof) -> bool {
        if self.allowed.serve.is_everything() {
            return true;
        }
        let Some(block) = &proof.block else { return !self.allowed.serve.is_nothing() };
        let length = self.feed.info().length;
        let sent = self.allowed.serve.charge(block.index, length, block.value.len() as u64).is_some();
        if !sent {
            self.is_served_out |= self.allowed.serve.permits(block.index, length);
            self.log_block(Action::Serve, &self.allowed.serve);
        }
        sent
    }

    /// An answer was stored, or not.
    pub(super) fn stored(&mut self, ticket: Ticket, is_stored: bool) {
        if let Some((quotas, bytes)) = self.charged.remove(&ticket)
            && !is_stored
        {
            quotas.iter().for_each(|quota| quota.refund(bytes));
        }
    }

    /// Batches and steps to other forks that are being verified and stored.
    pub(super) fn jobs_running(&self) -> usize {
        self.ingesting + usize::from(self.forks.is_running())
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    fn log_block(&self, action: Action, scope: &Scope) {
        let link = self.linked.link();
        if let (Some(decision), Some(peer)) = (scope.first(), link.peers().first()) {
            log_refusal(peer, &self.feed.key(), action, decision);
        }
    }

    /// What the channel is for, which it tells the remote.
    //= PARTY-103, PARTY-104
    fn options(&self, finite: bool) -> Options {
        let how = self.allowed.how;
        Options {
            live: !finite,
            download: !self.allowed.take.is_nothing(),
            upload: how.upload,
            follow_forks: how.follow_forks,
            allow_push: how.allow_push,
            push: how.push,
        }
    }

    pub(super) fn new_channel(
        &self,
        session: &Session,
        finite: bool,
        limits: &Limits,
        pace: &Arc<Pace>,
    ) -> Channel {
        Channel::new(session, &self.feed.key(), self.options(finite), limits, &self.swarm, pace)
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
        let (take, is_spent) = (&self.allowed.take, self.is_spent);
        self.feed.with_local(|local| {
            channel.set_served(served(&self.allowed.serve, self.is_served_out, local));
            channel.set_demand(within(demand, take, is_spent, local), local);
            channel.set_sought(sought);
            channel.handle_opened(remote, local);
        });
        self.channel = Line::Open(id, channel);
    }

    /// The channel is gone. Returns its id, and the size of what had come over it and is dropped.
    pub(super) fn down(&mut self, line: Line) -> (Option<ChannelId>, usize) {
        let id = match std::mem::replace(&mut self.channel, line) {
            Line::Opening(id, _) | Line::Open(id, _) => Some(id),
            Line::Down | Line::Waiting | Line::Forbidden | Line::Failed { .. } => None,
        };
        // What is being stored is stored, and paid for.
        let waiting = self.arrived.iter().filter_map(|(ticket, _)| self.charged.remove(ticket));
        waiting.for_each(|(quotas, bytes)| quotas.iter().for_each(|quota| quota.refund(bytes)));
        self.charged.clear();
        self.line = None;
        (self.asked, self.asked_in_sync) = (0, 0);
        self.generation += 1;
        self.serving.clear();
        self.serve_running = false;
        self.ingesting = 0;
        self.arrived.clear();
        self.forks.clear();
        // At once: who has forbidden it wants to see that it is.
        self.linked.set_state(self.channel.state(), self.suspended);
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
        let (allowed, was_spent, is_served_out) = (&self.allowed, self.is_spent, self.is_served_out);
        let mut refused = Vec::new();
        self.feed.with_local(|local| {
            channel.set_served(served(&allowed.serve, is_served_out, local));
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
                    Output::Serve { ticket, request, .. }
                        if request
                            .block
                            .is_some_and(|block| !allowed.serve.permits(block.index, local.length())) =>
                    {
                        refused.push(Action::Serve);
                        channel.deny(ticket);
                    }
                    Output::Serve { ticket, request, fork } => {
                        self.serving.push_back(Serve { ticket, request, fork });
                    }
                    Output::Ingest { ticket, proof } => {
                        if !allowed.accept.is_everything()
                            && let Some(block) = &proof.block
                        {
                            let bytes = block.value.len() as u64;
                            let grown = proof.upgrade.as_ref().map(|to| to.start.saturating_add(to.length));
                            let length = local.length().max(grown.unwrap_or(0));
                            match allowed.accept.charge(block.index, length, bytes) {
                                Some(quotas) if quotas.is_empty() => {}
                                Some(quotas) => drop(self.charged.insert(ticket, (quotas, bytes))),
                                None => {
                                    refused.push(Action::Accept);
                                    // Of what lies within what is allowed there is too much.
                                    self.is_spent |= allowed.accept.permits(block.index, length);
                                    // Nothing of it is stored: to the channel it is as if it had led nowhere new.
                                    let _ = channel.handle_ingested(ticket, Ok(Verdict::Holds), local);
                                    continue;
                                }
                            }
                        }
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
        if self.is_spent != was_spent || !(refused.is_empty() || self.allowed.take.is_everything()) {
            // What is left of quotas has changed.
            let (demand, take, is_spent) = (self.feed.demand(), &self.allowed.take, self.is_spent);
            self.feed.with_local(|local| channel.set_demand(within(demand, take, is_spent, local), local));
        }
        if !suspended {
            pumped.hungry = channel.is_hungry();
            pumped.wake = channel.poll_timeout();
        }
        if self.swarm.take_news() {
            self.feed.stir();
        }
        for action in refused {
            let scope = if action == Action::Serve { &self.allowed.serve } else { &self.allowed.accept };
            self.log_block(action, scope);
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

/// What is wanted, as far as it may be taken.
fn within(demand: Demand, take: &Scope, is_spent: bool, local: &dyn Local) -> Demand {
    match take {
        _ if is_spent => Demand::nothing(),
        take if take.is_everything() => demand,
        take => demand.within(&take.ranges(local.length())),
    }
}

/// What the remote is told of, if that isn't everything. Where nothing is served at all, it is told that instead, and hears what is here
/// as ever: who wants to know how far we are has no other way.
fn served(serve: &Scope, is_served_out: bool, local: &dyn Local) -> Option<Vec<Range<u64>>> {
    match serve {
        serve if serve.is_everything() || serve.is_nothing() => None,
        serve if is_served_out => Some(serve.free_ranges(local.length())),
        serve => Some(serve.ranges(local.length())),
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
