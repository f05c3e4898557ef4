//! A feed on a connection: its channel, and the proofs on their way in and out.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use tracing::Span;

use crate::{
    feed::{
        Changes, Download, Feed,
        changes::{Following, Reports},
        proof::Proof,
    },
    key::PublicKey,
    limits::Limits,
    mux::{ChannelId, Mux},
    peer::{LinkState, Linked, MemberId, Peer, Replicate},
    replication::{Channel, Options, Output, Pace, RemoteHandshake, Swarm, Ticket},
    session::Session,
};

use super::jobs::{FeedJob, Serve};

/// Proofs that are verified and stored together at most.
const INGEST_PROOFS: usize = 1024;

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
    /// Held while everything of the feed is wanted.
    download: Option<Download>,
    /// Tells the channels of this link apart, one after the other.
    generation: u64,
    serving: VecDeque<Serve>,
    serve_running: bool,
    arrived: Vec<(Ticket, Proof)>,
    arrived_bytes: usize,
    ingest_running: bool,
    /// Whether nothing is left to get, as far as we know, and nothing under way.
    pub(super) settled: bool,
    /// Whether [`Event::FeedInSync`](crate::party::Event::FeedInSync) was told since the last change.
    pub(super) told_in_sync: bool,
}

/// The channel of a feed.
pub(super) enum Line {
    /// None, but the remote may open it.
    Down,
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
            Self::Opening(..) => LinkState::Opening,
            Self::Open(..) => LinkState::Open,
            Self::Failed { for_good: true } => LinkState::Failed,
        }
    }
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
            how: Replicate { download: false, upload: false },
            download: None,
            generation: 0,
            serving: VecDeque::new(),
            serve_running: false,
            arrived: Vec::new(),
            arrived_bytes: 0,
            ingest_running: false,
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
        let options = Options { live: !finite, download: true, upload: self.how.upload };
        Channel::new(session, &self.feed.key(), options, limits, &self.swarm, pace)
    }

    pub(super) fn job(&self) -> FeedJob {
        FeedJob { feed: self.feed.discovery_key(), generation: self.generation }
    }

    pub(super) fn is(&self, job: FeedJob) -> bool {
        self.generation == job.generation
    }

    pub(super) fn opened(&mut self, id: ChannelId, mut channel: Channel, remote: RemoteHandshake) {
        let demand = self.feed.demand();
        self.feed.with_local(|local| {
            channel.set_demand(demand, local);
            channel.handle_opened(remote, local);
        });
        self.channel = Line::Open(id, channel);
    }

    /// The channel is gone. Returns its id, and the size of what had come over it and is dropped.
    pub(super) fn down(&mut self, line: Line) -> (Option<ChannelId>, usize) {
        let id = match std::mem::replace(&mut self.channel, line) {
            Line::Opening(id, _) | Line::Open(id, _) => Some(id),
            Line::Down | Line::Failed { .. } => None,
        };
        self.generation += 1;
        self.serving.clear();
        self.serve_running = false;
        self.ingest_running = false;
        self.arrived.clear();
        (id, std::mem::take(&mut self.arrived_bytes))
    }

    /// Lets the channel say what it has to say, and make so many requests. With `suspended`, the whole connection is.
    pub(super) fn pump(
        &mut self,
        mux: &mut Mux,
        writable: bool,
        suspended: bool,
        requests: usize,
        now: Instant,
    ) -> Pumped {
        let mut pumped = Pumped { new_unverified_bytes: 0, in_sync: false, hungry: false, wake: None };
        let suspended =
            suspended || self.linked.link().is_suspended() || self.feed.is_replication_suspended();
        let state = self.channel.state();
        let Line::Open(id, channel) = &mut self.channel else {
            // What was refused won't come; what we opened is awaited.
            self.settled = !matches!(self.channel, Line::Opening(..));
            self.linked.set_state(state, suspended);
            return pumped;
        };
        channel.set_suspended(suspended);
        channel.set_writable(writable && self.serving.is_empty());
        channel.set_allowance(requests);
        self.feed.with_local(|local| {
            while let Some(output) = channel.poll_output(local, now) {
                match output {
                    Output::Send { message_type, payload } => {
                        // A channel that the remote has closed meanwhile tells so by its event.
                        let _ = mux.send(*id, message_type, &payload);
                    }
                    Output::Serve { ticket, request, fork } => {
                        self.serving.push_back(Serve { ticket, request, fork });
                    }
                    Output::Ingest { ticket, proof } => {
                        let bytes = size(&proof);
                        self.arrived_bytes += bytes;
                        pumped.new_unverified_bytes += bytes;
                        self.arrived.push((ticket, proof));
                    }
                }
            }
            let status = channel.status(local);
            pumped.in_sync = status.in_sync && !suspended;
            self.linked.set_open(&status, suspended, None);
        });
        pumped.hungry = channel.is_hungry();
        pumped.wake = channel.poll_timeout();
        if self.swarm.take_news() {
            self.feed.stir();
        }
        let at_rest =
            self.arrived.is_empty() && self.serving.is_empty() && !self.serve_running && !self.ingest_running;
        self.settled = pumped.in_sync && at_rest;
        pumped
    }

    pub(super) fn wants_to_serve(&self) -> bool {
        !self.serve_running && !self.serving.is_empty()
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

    /// What has come, if nothing is being ingested yet: batches grow while the one before is being stored.
    pub(super) fn start_ingesting(&mut self) -> Option<(Vec<(Ticket, Proof)>, usize)> {
        if self.ingest_running || self.arrived.is_empty() {
            return None;
        }
        self.ingest_running = true;
        if self.arrived.len() <= INGEST_PROOFS {
            return Some((std::mem::take(&mut self.arrived), std::mem::take(&mut self.arrived_bytes)));
        }
        let rest = self.arrived.split_off(INGEST_PROOFS);
        let batch = std::mem::replace(&mut self.arrived, rest);
        let bytes = batch.iter().map(|(_, proof)| size(proof)).sum();
        self.arrived_bytes -= bytes;
        Some((batch, bytes))
    }

    pub(super) fn ingested(&mut self) {
        self.ingest_running = false;
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
