//! Which feeds have a channel, and what goes over it: the part of the engine that deals with feeds.

use std::collections::btree_map::Entry;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::{Engine, NewChange, Owner, SERVING_JOBS, Search, instrumented, next_change};
use crate::{
    connection::{
        feeds::{FeedLink, Line, Pump},
        jobs::{self, Ingested, Outcome, RuleOutcome, SearchId, Served, decide},
    },
    error::{ApiMisuse, Error},
    feed::{Feed, FeedPeer},
    key::DiscoveryKey,
    mux::Incoming,
    party::{Event, Rule, RuleFailure},
    peer::{MemberId, Peer, Replicate},
    replication,
};

/// Requests that a feed may make before it is the next one's turn.
const TURN_REQUESTS: usize = 64;
/// So few requests are served at once if all that they need is in memory, and so few answers, of so many bytes, are taken in
/// at once: a task of its own, and the thread that is woken for it, would cost more than that.
const DONE_AT_ONCE: usize = 4;
const TAKEN_IN_AT_ONCE_BYTES: usize = 8 << 10;

impl Engine {
    /// The remote opened a feed.
    //= PARTY-89, PARTY-94, PARTY-109
    pub(super) fn handle_feed(&mut self, incoming: Incoming, id: &[u8], handshake: Bytes) {
        let admitted: Vec<MemberId> =
            self.members.iter().filter_map(|(id, member)| member.admitted().map(|_| id)).collect();
        let Ok(key) = <[u8; 32]>::try_from(id).map(DiscoveryKey::from_bytes) else {
            return self.mux.reject(incoming);
        };
        // Only who was let in, or is here by an open mode that the app has chosen, has rules to be asked.
        //= PARTY-106
        if admitted.is_empty() {
            return self.mux.reject(incoming);
        }
        let is_open = matches!(
            self.feeds.get(&key).map(|link| &link.channel),
            Some(Line::Opening(..) | Line::Open(..) | Line::Failed { for_good: true })
        );
        // Nobody opens it twice who has not proved before that it knows it.
        if is_open || self.searches.len() >= self.limits.max_incoming_opens {
            return self.mux.reject(incoming);
        }
        if self.accept_feed(incoming, key, &handshake) {
            return;
        }
        //= protocol-spec/08-party.md#party-mode
        // One that is here and must not be opened goes the way of one that we have never heard of.
        let search = SearchId(self.next_search);
        self.next_search += 1;
        let entry = Search { incoming, key, handshake, asked: admitted.len(), found: Vec::new() };
        self.searches.insert(search, entry);
        for member in admitted {
            let Some(entry) = self.members.get(member) else { continue };
            let Some(peer) = entry.admitted().map(|admitted| admitted.peer.clone()) else { continue };
            let (rules, timeout) = (entry.hub.rules(), self.limits.rule_timeout);
            self.jobs.spawn(instrumented(&entry.span, async move {
                let found = decide(rules.find_feed(&peer, &key), timeout).await;
                Outcome::Rule { member, outcome: RuleOutcome::Found(search, found) }
            }));
        }
    }

    /// Opens what the remote has opened, if the feed is released and allowed, and the remote proves to know its key.
    //= PARTY-87, PARTY-91
    fn accept_feed(&mut self, incoming: Incoming, key: DiscoveryKey, handshake: &[u8]) -> bool {
        let Some(link) = self.feeds.get_mut(&key) else { return false };
        if !matches!(link.channel, Line::Down | Line::Waiting | Line::Failed { for_good: false }) {
            return false;
        }
        let remote = replication::Channel::verify_handshake(&self.session, &link.feed.key(), handshake);
        let Ok(remote) = remote else { return false };
        let channel = link.new_channel(&self.session, self.finite, &self.limits, &self.pace);
        let Ok(Some(id)) = self.mux.accept(incoming, &channel.handshake()) else { return false };
        self.channels.insert(id, Owner::Feed(key));
        let line = FeedPeer::new(self.session.remote, key, self.bell.clone(), &self.limits);
        link.opened(id, channel, remote, line);
        self.feed_is_open(key);
        true
    }

    pub(super) fn feed_is_open(&mut self, key: DiscoveryKey) {
        tracing::debug!(feed = %key, "open");
        self.dirty.insert(key);
        self.unsettled.insert(key);
        self.tell_of_feed(key, |peer, feed| Event::FeedOpened { peer, feed });
    }

    /// Releases a feed to a member and sees to it that it has a channel.
    //= LIMIT-22
    pub(super) fn release(&mut self, member: MemberId, feed: &Feed, how: Replicate) -> Result<bool, Error> {
        let key = feed.discovery_key();
        let Some(entry) = self.members.get(member) else { return Err(Error::Closed) };
        let Some(admitted) = entry.admitted() else { return Err(Error::Closed) };
        let full = self.feeds.len() >= self.limits.max_released_feeds;
        let link = match self.feeds.entry(key) {
            Entry::Occupied(link) => link.into_mut(),
            Entry::Vacant(_) if full => {
                return Err(ApiMisuse::LimitExceeded("max_released_feeds").into());
            }
            Entry::Vacant(vacant) => {
                let (link, ended) = FeedLink::new(feed.clone(), self.session.remote, self.generation);
                self.changes.push(next_change(key, link.changes(), ended));
                vacant.insert(link)
            }
        };
        self.dirty.insert(key);
        let was_forbidden = link.is_forbidden() && !link.released_by.is_empty();
        let fresh = link.release(member, &admitted.peer, how, &entry.hub.reports);
        if fresh {
            entry.hub.tell(Event::FeedReleased { peer: admitted.peer.clone(), feed: key });
        }
        self.regard(key);
        // The others have been told before, and this one hasn't.
        if fresh && was_forbidden {
            self.tell_still_forbidden(key, member);
        }
        self.tell_conflict(key);
        Ok(fresh)
    }

    /// Sees to it that a feed gets a channel, when it is its turn.
    //= PARTY-88, PARTY-108
    pub(super) fn open_feed(&mut self, key: DiscoveryKey) -> Result<(), Error> {
        let Some(link) = self.feeds.get_mut(&key) else { return Ok(()) };
        if matches!(link.channel, Line::Down | Line::Failed { for_good: false }) {
            if self.mux.channels().saturating_add(self.openings.waiting()) >= self.limits.max_channels {
                return Err(ApiMisuse::LimitExceeded("max_channels").into());
            }
            link.channel = Line::Waiting;
            self.openings.push(key);
            self.unsettled.insert(key);
        }
        Ok(())
    }

    /// Opens the channels whose turn it is.
    pub(super) fn open_feeds(&mut self, now: Instant) {
        while let Some(key) = self.openings.pop(now.into_std()) {
            if let Err(error) = self.open_now(key) {
                self.fail_feed(key, error.into());
            }
        }
    }

    fn open_now(&mut self, key: DiscoveryKey) -> Result<(), ApiMisuse> {
        // The remote may have opened it meanwhile, or nobody releases it any more.
        let link = self.feeds.get_mut(&key).filter(|link| matches!(link.channel, Line::Waiting));
        let Some(link) = link else {
            self.openings.over(&key);
            return Ok(());
        };
        let channel = link.new_channel(&self.session, self.finite, &self.limits, &self.pace);
        let id = self.mux.open(replication::PROTOCOL, Some(key.as_bytes()), &channel.handshake())?;
        self.channels.insert(id, Owner::Feed(key));
        link.channel = Line::Opening(id, channel);
        Ok(())
    }

    pub(super) fn fail_feed(&mut self, key: DiscoveryKey, error: Error) {
        self.failure.get_or_insert_with(|| error.clone());
        tracing::warn!(feed = %key, %error, "closing the feed's channel");
        self.tell_of_feed(key, |peer, feed| Event::ChannelFailed {
            peer,
            feed: Some(feed),
            error: error.clone(),
        });
        self.close_feed(key, Line::Failed { for_good: true });
    }

    pub(super) fn close_feed(&mut self, key: DiscoveryKey, line: Line) {
        let Some(link) = self.feeds.get_mut(&key) else { return };
        let (channel, bytes) = link.down(line);
        self.openings.over(&key);
        self.unverified_bytes -= bytes;
        if let Some(channel) = channel {
            self.channels.remove(&channel);
            self.mux.close(channel);
        }
        self.dirty.insert(key);
    }

    /// Replicates a feed no longer.
    pub(super) fn end_feed(&mut self, key: DiscoveryKey) {
        self.close_feed(key, Line::Down);
        if let Some(link) = self.feeds.remove(&key) {
            self.generation = self.generation.max(link.generation() + 1);
        }
        self.unsettled.remove(&key);
        self.dirty.remove(&key);
        self.wakes.remove(&key);
        self.throttled.remove(&key);
    }

    pub(super) fn tell_of_feed(&self, key: DiscoveryKey, event: impl Fn(Peer, DiscoveryKey) -> Event) {
        let Some(link) = self.feeds.get(&key) else { return };
        for member in link.released_by.keys() {
            let Some(member) = self.members.get(*member) else { continue };
            if let Some(admitted) = member.admitted() {
                member.hub.tell(event(admitted.peer.clone(), key));
            }
        }
    }

    //= PARTY-90
    pub(super) fn handle_found(
        &mut self,
        member: MemberId,
        search: SearchId,
        found: Result<Option<Feed>, RuleFailure>,
    ) {
        let feed = match found {
            Ok(feed) => feed,
            Err(failure) => {
                self.rule_failed(member, Rule::FindFeed, failure);
                None
            }
        };
        let Some(entry) = self.searches.get_mut(&search) else { return };
        entry.asked = entry.asked.saturating_sub(1);
        entry.found.extend(feed.filter(|feed| feed.discovery_key() == entry.key).map(|feed| (member, feed)));
        if entry.asked == 0 {
            self.conclude(search);
        }
    }

    /// All rules have answered about a feed that the remote has opened.
    //= PARTY-92, PARTY-95, PARTY-96
    fn conclude(&mut self, search: SearchId) {
        let Some(entry) = self.searches.get_mut(&search) else { return };
        let (incoming, key) = (entry.incoming, entry.key);
        let (found, handshake) = (std::mem::take(&mut entry.found), entry.handshake.clone());
        for (member, feed) in found {
            //= protocol-spec/08-party.md#party-mode
            // Before anything is done with it: whoever doesn't know the feed must not find out that we do.
            let proof = replication::Channel::verify_handshake(&self.session, &feed.key(), &handshake);
            let is_released = self.feeds.get(&key).is_some_and(|link| link.released_by.contains_key(&member));
            let released = match proof {
                Ok(_) if is_released => Ok(false),
                Ok(_) => self.release(member, &feed, Replicate::sparsely()),
                Err(error) => Err(error),
            };
            if let Err(error) = released {
                tracing::debug!(feed = %key, %error, "refused a feed");
            }
        }
        if self.accept_feed(incoming, key, &handshake) {
            self.searches.remove(&search);
        }
        // Rejects go out in the order of the opens. In the order of the answers they would tell about which feeds there
        // was more to look up.
        while let Some(first) = self.searches.first_entry()
            && first.get().asked == 0
        {
            let refused = first.remove();
            tracing::debug!(feed = %refused.key, "the remote opened what nobody releases to it, or has not proved to know it");
            self.mux.reject(refused.incoming);
        }
    }

    //= PARTY-100
    pub(super) fn handle_served(&mut self, served: Served) {
        self.serving -= 1;
        self.settle_upload(&served);
        let Some(link) = self.feeds.get_mut(&served.job.feed) else { return };
        if !link.is(served.job) {
            return;
        }
        link.served(served.rest);
        for (ticket, proof) in served.proofs {
            //= protocol-spec/08-party.md#a-release-that-ends
            let is_denied = matches!(&proof, Ok(Some(proof)) if !link.may_send(proof));
            let Line::Open(_, channel) = &mut link.channel else { break };
            if is_denied {
                channel.deny(ticket);
            } else {
                if let Err(error) = &proof {
                    tracing::debug!(feed = %served.job.feed, %error, "can't serve a request");
                }
                channel.handle_served(ticket, proof.map_err(|_| ()));
            }
        }
        self.dirty.insert(served.job.feed);
    }

    pub(super) fn handle_ingested(&mut self, ingested: Ingested) {
        self.unverified_bytes -= ingested.bytes;
        self.job_ended(ingested.job);
        let key = ingested.job.feed;
        let Some(link) = self.feeds.get_mut(&key) else { return };
        if !link.is(ingested.job) {
            return;
        }
        if link.feed.is_purged() {
            return self.end_feed(key);
        }
        link.ingested();
        for (ticket, result) in &ingested.results {
            link.stored(*ticket, result.is_ok());
        }
        let mut failed = None;
        if let Line::Open(_, channel) = &mut link.channel {
            link.feed.with_local(|local| {
                for (ticket, result) in ingested.results {
                    // A peer is not to blame for our storage, but without it there is no going on.
                    let ours = match &result {
                        Err(error @ (Error::Storage(_) | Error::Io(_))) => Some(error.clone()),
                        _ => None,
                    };
                    let handled = channel.handle_ingested(ticket, result, local);
                    failed = failed.take().or(ours).or(handled.err());
                }
            });
        }
        self.dirty.insert(key);
        if let Some(error) = failed {
            self.fail_feed(key, error);
        }
    }

    pub(in crate::connection) fn handle_change(&mut self, change: NewChange) {
        let NewChange { key, changes, ended } = change;
        let Some(link) = self.feeds.get_mut(&key) else { return };
        if link.feed.is_purged() {
            return self.end_feed(key);
        }
        link.set_demand();
        if let Line::Open(_, channel) = &mut link.channel {
            link.feed.with_local(|local| channel.handle_local_change(local));
        }
        self.dirty.insert(key);
        self.changes.push(next_change(key, changes, ended));
        self.tell_conflict(key);
    }

    /// Lets every feed say what it has to say. What all want and there is little of - requests under way, jobs
    /// that serve - they get in turns.
    pub(super) fn pump_feeds(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.dirty) {
            // Where nobody waits, it need not wait for its turn either.
            let is_its_turn = self.asking.is_empty() && self.pace.has_room();
            self.pump_feed(key, if is_its_turn { TURN_REQUESTS } else { 0 }, now);
        }
        while self.pace.has_room()
            && let Some(key) = self.asking.pop()
        {
            self.pump_feed(key, TURN_REQUESTS, now);
        }
        while self.writable
            && self.serving < SERVING_JOBS
            && let Some(key) = self.to_serve.pop()
        {
            self.serve_feed(key, now);
        }
    }

    fn pump_feed(&mut self, key: DiscoveryKey, requests: usize, now: Instant) {
        self.pass_time(key, now);
        let Some(link) = self.feeds.get_mut(&key) else { return };
        let pump = Pump {
            writable: self.writable,
            suspended: self.suspended,
            requests,
            round_trip: self.pace.latency(),
            now: now.into_std(),
        };
        let pumped = link.span.clone().in_scope(|| link.pump(&mut self.mux, pump));
        self.unverified_bytes += pumped.new_unverified_bytes;
        if self.ingest_feed(key, now) {
            // Once more at most: only what the remote sends brings more to take in.
            return self.pump_again(key, requests, now);
        }
        let Some(link) = self.feeds.get_mut(&key) else { return };
        if link.settled {
            self.unsettled.remove(&key);
        } else {
            self.unsettled.insert(key);
        }
        if link.wants_to_serve() {
            self.to_serve.push(key);
        }
        match (pumped.hungry, requests > 0 && !self.pace.has_room()) {
            // The connection is full, not its turn over.
            (true, true) => self.asking.push_front(key, link.standing()),
            (true, false) => self.asking.push(key, link.standing()),
            (false, _) => {}
        }
        match pumped.wake {
            Some(wake) => drop(self.wakes.insert(key, wake)),
            None => drop(self.wakes.remove(&key)),
        }
        let newly_in_sync = link.settled && pumped.in_sync && !link.told_in_sync;
        link.told_in_sync = link.settled && pumped.in_sync;
        if newly_in_sync {
            self.tell_of_feed(key, |peer, feed| Event::FeedInSync { peer, feed });
        }
        self.pump_forks(key);
    }

    /// Begins to take in what has come. Gives whether some of it was taken in at once, so that there may be more to say.
    fn ingest_feed(&mut self, key: DiscoveryKey, now: Instant) -> bool {
        while let Some(link) = self.feeds.get_mut(&key)
            && let Some(batch) = link.start_ingesting()
        {
            let is_short = batch.proofs.len() <= DONE_AT_ONCE && batch.bytes <= TAKEN_IN_AT_ONCE_BYTES;
            let job = instrumented(&link.span, jobs::ingest(link.feed.clone(), link.job(), batch));
            if !is_short {
                self.jobs.spawn(job);
            } else if let Some(outcome) = self.run_at_once(job) {
                self.handle_outcome(outcome, now);
                return true;
            }
        }
        false
    }

    fn serve_feed(&mut self, key: DiscoveryKey, now: Instant) {
        if !self.feeds.get(&key).is_some_and(FeedLink::wants_to_serve) {
            return;
        }
        let Some(budget) = self.reserve_upload(key, now) else { return };
        let Some(link) = self.feeds.get_mut(&key) else { return };
        self.serving += 1;
        let queue = link.start_serving();
        let is_short = queue.len() <= DONE_AT_ONCE;
        let job = instrumented(&link.span, jobs::serve(link.feed.clone(), link.job(), queue, budget));
        if !is_short {
            self.jobs.spawn(job);
        } else if let Some(outcome) = self.run_at_once(job) {
            self.handle_outcome(outcome, now);
            self.pump_again(key, 0, now);
        }
    }

    /// Runs a job here. What has to wait for something goes on elsewhere, where it is asked anew.
    fn run_at_once(&mut self, job: impl Future<Output = Outcome> + Send + 'static) -> Option<Outcome> {
        let mut job = Box::pin(job);
        let outcome = job.as_mut().now_or_never();
        if outcome.is_none() {
            self.jobs.spawn(job);
        }
        outcome
    }

    /// Lets a feed say what follows from the outcome of a job that ran here.
    fn pump_again(&mut self, key: DiscoveryKey, requests: usize, now: Instant) {
        self.dirty.remove(&key);
        self.pump_feed(key, requests, now);
    }
}
