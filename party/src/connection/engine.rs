//! What a connection does with what comes out of the secret stream: channels, members, feeds. It waits for
//! nothing; the [driver](super::driver) calls it when something has happened.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use subtle::ConstantTimeEq as _;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::{
    feeds::{FeedLink, Line},
    jobs::{self, Ingested, Outcome, RuleOutcome, SearchId, Served, decide},
    members::{Admitted, Member, Standing},
};
use crate::{
    admission::{self, Body, Hello, PartyChannel, RefusalCode, TransactionId, membership},
    error::{ApiMisuse, Error},
    feed::{Changes, Feed},
    key::DiscoveryKey,
    limits::Limits,
    mux::{self, ChannelId, CloseReason, Incoming, Mux},
    party::{Event, Open, Party, Rule, RuleFailure},
    peer::{Admission, Command, MemberId, Peer, Replicate},
    replication,
    session::Session,
};

/// Serving jobs at work at a time on one connection. Each may bring more to send than
/// [`Limits::max_unsent_bytes`] by one batch.
pub(super) const SERVING_JOBS: usize = 4;

pub(super) type NextChange = std::pin::Pin<Box<dyn Future<Output = (DiscoveryKey, Changes)> + Send>>;

pub(super) struct Engine {
    session: Session,
    limits: Limits,
    finite: bool,
    connection: u64,
    commands: mpsc::Sender<Command>,
    mux: Mux,
    /// The size of the message that events come from.
    frame: usize,
    members: Vec<Member>,
    feeds: BTreeMap<DiscoveryKey, FeedLink>,
    channels: HashMap<ChannelId, Owner>,
    /// Feeds that the remote opened and that the rules are being asked for.
    searches: BTreeMap<SearchId, Search>,
    next_search: u64,
    /// Links that may have something to say.
    dirty: BTreeSet<DiscoveryKey>,
    unsettled: BTreeSet<DiscoveryKey>,
    writable: bool,
    serving: usize,
    unverified_bytes: usize,
    pub(super) jobs: JoinSet<Outcome>,
    pub(super) changes: FuturesUnordered<NextChange>,
}

#[derive(Clone, Copy)]
enum Owner {
    Member(MemberId),
    Feed(DiscoveryKey),
}

struct Search {
    incoming: Incoming,
    key: DiscoveryKey,
    handshake: Bytes,
    /// Members whose rules have not answered.
    asked: usize,
}

impl Engine {
    pub(super) fn new(
        session: Session,
        parties: &[Party],
        open: Option<&Open>,
        finite: bool,
        limits: Limits,
        connection: u64,
        commands: mpsc::Sender<Command>,
    ) -> Self {
        let mut mux = Mux::new(&limits);
        mux.set_aliases(replication::PROTOCOL, replication::ALIASES);
        let members = parties.iter().map(|party| Member::new(party.hub().clone(), Some(*party.key())));
        let open = open.map(|open| Member::new(open.hub().clone(), None));
        Self {
            session,
            finite,
            connection,
            commands,
            mux,
            frame: 0,
            members: members.chain(open).collect(),
            feeds: BTreeMap::new(),
            channels: HashMap::new(),
            searches: BTreeMap::new(),
            next_search: 0,
            dirty: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            writable: true,
            serving: 0,
            unverified_bytes: 0,
            jobs: JoinSet::new(),
            changes: FuturesUnordered::new(),
            limits,
        }
    }

    /// Offers our parties, if we dialled, and begins the open mode.
    pub(super) fn start(&mut self) -> Result<(), Error> {
        for index in 0..self.members.len() {
            match self.members[index].party {
                Some(party) if self.session.is_initiator => {
                    let id = membership::channel_id(&self.session, &party);
                    let hello = Hello::new(membership::prove(&self.session, &party)).encode();
                    let channel = self.mux.open(admission::PROTOCOL, Some(&id), &hello)?;
                    self.channels.insert(channel, Owner::Member(MemberId(index)));
                    self.members[index].standing = Standing::Offered;
                }
                Some(_) => {}
                None => self.admit(MemberId(index), None),
            }
        }
        Ok(())
    }

    /// Takes one message of the secret stream. What is in it takes effect with
    /// [`handle_events`](Self::handle_events).
    pub(super) fn handle_message(&mut self, message: Bytes) {
        self.frame = message.len();
        self.mux.handle_message(message);
    }

    /// Whether so many opens wait for the rules that nothing more is to be taken until they have decided.
    pub(super) fn is_paused(&self) -> bool {
        self.mux.paused()
    }

    /// Carries out what the remote has said, up to where it has to wait.
    pub(super) fn handle_events(&mut self, now: Instant) -> Result<(), Error> {
        while !self.is_paused()
            && let Some(event) = self.mux.poll_event()?
        {
            match event {
                mux::Event::Incoming { incoming, protocol, id, handshake } => match (protocol.as_str(), id) {
                    (admission::PROTOCOL, Some(id)) => self.handle_offer(incoming, &id, handshake),
                    (replication::PROTOCOL, Some(id)) => self.handle_feed(incoming, &id, handshake),
                    _ => self.mux.reject(incoming),
                },
                mux::Event::Opened { channel, handshake } => self.handle_opened(channel, handshake),
                mux::Event::Message { channel, message_type, payload } => {
                    let payload = compact(payload, self.frame);
                    self.handle_channel_message(channel, message_type, payload, now);
                }
                mux::Event::Closed { channel, reason } => self.handle_closed(channel, reason),
            }
        }
        Ok(())
    }

    /// The remote, which dialled, claims to be a member of some party.
    fn handle_offer(&mut self, incoming: Incoming, id: &[u8], hello: Bytes) {
        let member = self.answering(id, hello);
        let Some(member) = member else {
            // Not a member, a party that we don't know, an echo, or already here: all the same from outside.
            return self.mux.reject(incoming);
        };
        let Some(party) = self.members[member.0].party else { return self.mux.reject(incoming) };
        let hello = Hello::new(membership::prove(&self.session, &party)).encode();
        if let Ok(Some(channel)) = self.mux.accept(incoming, &hello) {
            self.channels.insert(channel, Owner::Member(member));
            self.admit(member, Some(channel));
        }
    }

    fn answering(&self, id: &[u8], hello: Bytes) -> Option<MemberId> {
        if self.session.is_initiator {
            return None;
        }
        let hello = Hello::decode(hello).ok()?;
        self.members.iter().enumerate().find_map(|(index, member)| {
            let (Some(party), Standing::Stranger) = (&member.party, &member.standing) else { return None };
            let known: bool = membership::channel_id(&self.session, party).ct_eq(id).into();
            (known && membership::verify(&self.session, party, &hello.proof)).then_some(MemberId(index))
        })
    }

    /// The remote opened what we had opened.
    fn handle_opened(&mut self, channel: ChannelId, handshake: Bytes) {
        match self.channels.get(&channel).copied() {
            Some(Owner::Member(member)) => {
                let proved = self.members[member.0].party.is_some_and(|party| {
                    Hello::decode(handshake)
                        .is_ok_and(|hello| membership::verify(&self.session, &party, &hello.proof))
                });
                if proved {
                    self.admit(member, Some(channel));
                } else {
                    tracing::debug!("the remote answered with a wrong membership proof");
                    self.channels.remove(&channel);
                    self.mux.close(channel);
                    self.members[member.0].standing = Standing::Refused;
                }
            }
            Some(Owner::Feed(key)) => {
                let Some(link) = self.feeds.get_mut(&key) else { return };
                let Line::Opening(..) = &link.channel else { return };
                let remote =
                    replication::Channel::verify_handshake(&self.session, &link.feed.key(), &handshake);
                match remote {
                    Ok(remote) => {
                        if let Line::Opening(id, opening) = std::mem::replace(&mut link.channel, Line::Down) {
                            link.opened(id, opening, remote);
                        }
                        self.feed_is_open(key);
                    }
                    Err(error) => self.fail_feed(key, error),
                }
            }
            None => self.mux.close(channel),
        }
    }

    fn handle_channel_message(
        &mut self,
        channel: ChannelId,
        message_type: u64,
        payload: Bytes,
        now: Instant,
    ) {
        match self.channels.get(&channel).copied() {
            Some(Owner::Member(member)) => {
                let Some(admitted) = self.members[member.0].admitted_mut() else { return };
                let Some((_, party)) = &mut admitted.channel else { return };
                match party.handle_message(message_type, payload) {
                    Ok(()) => self.pump_member(member, now),
                    Err(error) => self.fail_member(member, error),
                }
            }
            Some(Owner::Feed(key)) => {
                let Some(link) = self.feeds.get_mut(&key) else { return };
                let Line::Open(_, channel) = &mut link.channel else { return };
                let result =
                    link.feed.with_local(|local| channel.handle_message(message_type, payload, local));
                match result {
                    Ok(()) => {
                        self.dirty.insert(key);
                    }
                    Err(error) => self.fail_feed(key, error),
                }
            }
            None => {}
        }
    }

    fn handle_closed(&mut self, channel: ChannelId, reason: CloseReason) {
        match self.channels.remove(&channel) {
            Some(Owner::Member(member)) => match &self.members[member.0].standing {
                Standing::Offered => self.members[member.0].standing = Standing::Refused,
                _ => self.remove_member(member),
            },
            Some(Owner::Feed(key)) => {
                let Some(link) = self.feeds.get_mut(&key) else { return };
                let line = match reason {
                    CloseReason::Rejected => Line::Failed { for_good: false },
                    CloseReason::Remote => Line::Down,
                };
                let (_, bytes) = link.down(line);
                self.unverified_bytes -= bytes;
                self.dirty.insert(key);
                if reason == CloseReason::Rejected {
                    self.tell_of_feed(key, |peer, feed| Event::FeedRefused { peer, feed });
                }
            }
            None => {}
        }
    }

    // Members

    fn admit(&mut self, member: MemberId, channel: Option<ChannelId>) {
        let entry = &mut self.members[member.0];
        let admission = match &entry.party {
            Some(party) => Admission::Party(party.discovery_key()),
            None => Admission::Open,
        };
        let peer = Peer::new(self.session.remote, admission, member, self.connection, self.commands.clone());
        let channel = channel.map(|id| (id, PartyChannel::new(&self.limits)));
        entry.standing = Standing::Admitted(Admitted::new(peer.clone(), channel));
        entry.hub.add_peer(&peer);
        tracing::debug!(?admission, "admitted");

        let rules = entry.hub.rules.clone();
        let timeout = self.limits.rule_timeout;
        self.jobs.spawn(async move {
            let outcome = match decide(rules.ready(&peer), timeout).await {
                Ok(()) => decide(rules.handshake(&peer), timeout)
                    .await
                    .map_err(|failure| (Rule::Handshake, failure)),
                Err(failure) => Err((Rule::Ready, failure)),
            };
            Outcome::Rule { member, outcome: RuleOutcome::Handshake(outcome) }
        });
    }

    /// Takes what the party channel of a member has to tell and to send.
    fn pump_member(&mut self, member: MemberId, now: Instant) {
        let timeout = self.limits.rule_timeout;
        let entry = &mut self.members[member.0];
        let rules = &entry.hub.rules;
        let Standing::Admitted(admitted) = &mut entry.standing else { return };
        let Some((id, channel)) = &mut admitted.channel else { return };
        channel.handle_timeout(now.into_std());
        while let Some(event) = channel.poll_event() {
            let (rules, peer) = (rules.clone(), admitted.peer.clone());
            match event {
                admission::Event::Answered { id, result } => {
                    if let Some(reply) = admitted.waiting.remove(&id) {
                        let _ = reply.send(result);
                    }
                }
                admission::Event::Request { id, body: Body::IntroduceFeeds(keys) } => {
                    self.jobs.spawn(async move {
                        let answer = decide(rules.introduce_feeds(&peer, keys), timeout).await;
                        Outcome::Rule { member, outcome: RuleOutcome::Introduced(id, answer) }
                    });
                }
                admission::Event::Request { id, body: Body::Custom(message) } => {
                    self.jobs.spawn(async move {
                        let answer = decide(rules.request(&peer, message), timeout).await;
                        Outcome::Rule { member, outcome: RuleOutcome::Answered(id, answer) }
                    });
                }
                admission::Event::Ephemeral(message) => {
                    if admitted.ephemeral.len() < self.limits.max_queued_ephemeral {
                        admitted.ephemeral.push_back(message);
                    } else {
                        tracing::debug!("dropped an ephemeral message: too many are waiting");
                    }
                }
            }
        }
        if !admitted.ephemeral_running
            && let Some(message) = admitted.ephemeral.pop_front()
        {
            admitted.ephemeral_running = true;
            let (rules, peer) = (rules.clone(), admitted.peer.clone());
            self.jobs.spawn(async move {
                let outcome = RuleOutcome::Ephemeral(decide(rules.ephemeral(&peer, message), timeout).await);
                Outcome::Rule { member, outcome }
            });
        }
        while let Some((message_type, payload)) = channel.poll_transmit() {
            let _ = self.mux.send(*id, message_type, &payload);
        }
    }

    fn fail_member(&mut self, member: MemberId, error: Error) {
        if let Some(admitted) = self.members[member.0].admitted() {
            tracing::warn!(%error, "closing the party channel");
            let event = Event::ChannelFailed { peer: admitted.peer.clone(), feed: None, error };
            self.members[member.0].hub.tell(event);
        }
        self.remove_member(member);
    }

    /// The member is gone: its channel is closed and what only it has released is taken back.
    fn remove_member(&mut self, member: MemberId) {
        let entry = &mut self.members[member.0];
        let Standing::Admitted(admitted) = std::mem::replace(&mut entry.standing, Standing::Gone) else {
            return;
        };
        if let Some((channel, _)) = admitted.channel
            && self.channels.remove(&channel).is_some()
        {
            self.mux.close(channel);
        }
        entry.hub.remove_peer(&admitted.peer);
        let released: Vec<_> = self
            .feeds
            .iter()
            .filter(|(_, link)| link.released_by.contains(&member))
            .map(|(key, _)| *key)
            .collect();
        for key in released {
            let Some(link) = self.feeds.get_mut(&key) else { continue };
            link.released_by.remove(&member);
            if link.released_by.is_empty() {
                self.close_feed(key, Line::Down);
                self.feeds.remove(&key);
                self.unsettled.remove(&key);
                self.dirty.remove(&key);
            }
        }
    }

    // Feeds

    /// The remote opened a feed.
    fn handle_feed(&mut self, incoming: Incoming, id: &[u8], handshake: Bytes) {
        let admitted: Vec<MemberId> = (0..self.members.len())
            .filter(|index| self.members[*index].admitted().is_some())
            .map(MemberId)
            .collect();
        let Ok(key) = <[u8; 32]>::try_from(id).map(DiscoveryKey::from_bytes) else {
            return self.mux.reject(incoming);
        };
        if admitted.is_empty() {
            return self.mux.reject(incoming);
        }
        if self.feeds.contains_key(&key) {
            return self.answer_feed(incoming, key, &handshake);
        }
        if self.searches.len() >= self.limits.max_incoming_opens {
            return self.mux.reject(incoming);
        }
        let search = SearchId(self.next_search);
        self.next_search += 1;
        self.searches.insert(search, Search { incoming, key, handshake, asked: admitted.len() });
        for member in admitted {
            let entry = &self.members[member.0];
            let Some(peer) = entry.admitted().map(|admitted| admitted.peer.clone()) else { continue };
            let (rules, timeout) = (entry.hub.rules.clone(), self.limits.rule_timeout);
            self.jobs.spawn(async move {
                let found = decide(rules.find_feed(&peer, &key), timeout).await;
                Outcome::Rule { member, outcome: RuleOutcome::Found(search, found) }
            });
        }
    }

    /// Answers the remote's open of a released feed, if it proves to know the key.
    fn answer_feed(&mut self, incoming: Incoming, key: DiscoveryKey, handshake: &[u8]) {
        let Some(link) = self.feeds.get_mut(&key) else { return self.mux.reject(incoming) };
        if !matches!(link.channel, Line::Down | Line::Failed { for_good: false }) {
            return self.mux.reject(incoming);
        }
        let remote = replication::Channel::verify_handshake(&self.session, &link.feed.key(), handshake);
        let remote = match remote {
            Ok(remote) => remote,
            Err(error) => {
                tracing::debug!(feed = %key, %error, "refused a feed");
                return self.mux.reject(incoming);
            }
        };
        let channel = link.new_channel(&self.session, self.finite, &self.limits);
        if let Ok(Some(id)) = self.mux.accept(incoming, &channel.handshake()) {
            self.channels.insert(id, Owner::Feed(key));
            link.opened(id, channel, remote);
            self.feed_is_open(key);
        }
    }

    fn feed_is_open(&mut self, key: DiscoveryKey) {
        tracing::debug!(feed = %key, "open");
        self.dirty.insert(key);
        self.unsettled.insert(key);
        self.tell_of_feed(key, |peer, feed| Event::FeedOpened { peer, feed });
    }

    /// Releases a feed to a member and sees to it that it has a channel.
    fn release(&mut self, member: MemberId, feed: &Feed, how: Replicate) -> Result<bool, Error> {
        let key = feed.discovery_key();
        let full = self.feeds.len() >= self.limits.max_released_feeds;
        let link = match self.feeds.entry(key) {
            std::collections::btree_map::Entry::Occupied(link) => link.into_mut(),
            std::collections::btree_map::Entry::Vacant(_) if full => {
                return Err(ApiMisuse::LimitExceeded("max_released_feeds").into());
            }
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let link = vacant.insert(FeedLink::new(feed.clone()));
                self.changes.push(next_change(key, link.changes()));
                link
            }
        };
        self.dirty.insert(key);
        Ok(link.release(member, how))
    }

    fn open_feed(&mut self, key: DiscoveryKey) -> Result<(), Error> {
        let Some(link) = self.feeds.get_mut(&key) else { return Ok(()) };
        if matches!(link.channel, Line::Down | Line::Failed { for_good: false }) {
            let channel = link.new_channel(&self.session, self.finite, &self.limits);
            let id = self.mux.open(replication::PROTOCOL, Some(key.as_bytes()), &channel.handshake())?;
            self.channels.insert(id, Owner::Feed(key));
            link.channel = Line::Opening(id, channel);
            self.unsettled.insert(key);
        }
        Ok(())
    }

    fn fail_feed(&mut self, key: DiscoveryKey, error: Error) {
        tracing::warn!(feed = %key, %error, "closing the feed's channel");
        self.tell_of_feed(key, |peer, feed| Event::ChannelFailed {
            peer,
            feed: Some(feed),
            error: error.clone(),
        });
        self.close_feed(key, Line::Failed { for_good: true });
    }

    fn close_feed(&mut self, key: DiscoveryKey, line: Line) {
        let Some(link) = self.feeds.get_mut(&key) else { return };
        let (channel, bytes) = link.down(line);
        self.unverified_bytes -= bytes;
        if let Some(channel) = channel {
            self.channels.remove(&channel);
            self.mux.close(channel);
        }
        self.dirty.insert(key);
    }

    fn tell_of_feed(&self, key: DiscoveryKey, event: impl Fn(Peer, DiscoveryKey) -> Event) {
        let Some(link) = self.feeds.get(&key) else { return };
        for member in &link.released_by {
            let member = &self.members[member.0];
            if let Some(admitted) = member.admitted() {
                member.hub.tell(event(admitted.peer.clone(), key));
            }
        }
    }

    // What happens on our side

    pub(super) fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Transaction { member, body, reply } => {
                let asked = match self.channel_of(member) {
                    Some(channel) => channel.request(body, now.into_std()).map_err(Error::from),
                    None => Err(Error::Closed),
                };
                match (asked, self.members[member.0].admitted_mut()) {
                    (Ok(id), Some(admitted)) => {
                        admitted.waiting.insert(id, reply);
                    }
                    (Err(error), _) => {
                        let _ = reply.send(Err(error));
                    }
                    (Ok(_), None) => {}
                }
                self.pump_member(member, now);
            }
            Command::Ephemeral { member, message, reply } => {
                let sent = match self.channel_of(member) {
                    Some(channel) => channel.send_ephemeral(message).map_err(Error::from),
                    None => Err(Error::Closed),
                };
                let _ = reply.send(sent);
                self.pump_member(member, now);
            }
            Command::Replicate { member, feed, how, reply } => {
                let released = match self.members[member.0].admitted() {
                    Some(_) => self.release(member, &feed, how),
                    None => Err(Error::Closed),
                };
                let opened = match released {
                    Ok(true) => self.open_feed(feed.discovery_key()).map(|()| true),
                    other => other,
                };
                let _ = reply.send(opened);
            }
        }
    }

    fn channel_of(&mut self, member: MemberId) -> Option<&mut PartyChannel> {
        let (_, channel) = self.members[member.0].admitted_mut()?.channel.as_mut()?;
        Some(channel)
    }

    pub(super) fn handle_outcome(&mut self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Rule { member, outcome } => self.handle_rule(member, outcome, now),
            Outcome::Served(served) => self.handle_served(served),
            Outcome::Ingested(ingested) => self.handle_ingested(ingested),
        }
    }

    fn handle_rule(&mut self, member: MemberId, outcome: RuleOutcome, now: Instant) {
        match outcome {
            RuleOutcome::Handshake(Ok(())) => {
                let entry = &mut self.members[member.0];
                let hub = entry.hub.clone();
                if let Some(admitted) = entry.admitted_mut() {
                    admitted.handshake_done = true;
                    hub.tell(Event::HandshakeDone(admitted.peer.clone()));
                }
            }
            RuleOutcome::Handshake(Err((rule, failure))) => {
                self.rule_failed(member, rule, failure);
                self.remove_member(member);
            }
            RuleOutcome::Introduced(id, answer) => {
                let answer = answer.map(Body::IntroduceFeeds);
                self.answer(member, id, Rule::IntroduceFeeds, answer);
            }
            RuleOutcome::Answered(id, answer) => {
                self.answer(member, id, Rule::Request, answer.map(Body::Custom));
            }
            RuleOutcome::Ephemeral(result) => {
                if let Err(failure) = result {
                    self.rule_failed(member, Rule::Ephemeral, failure);
                }
                if let Some(admitted) = self.members[member.0].admitted_mut() {
                    admitted.ephemeral_running = false;
                }
            }
            RuleOutcome::Found(search, found) => self.handle_found(member, search, found),
        }
        self.pump_member(member, now);
    }

    fn answer(&mut self, member: MemberId, id: TransactionId, rule: Rule, answer: Result<Body, RuleFailure>) {
        let code = match &answer {
            Err(RuleFailure::TimedOut) => RefusalCode::Timeout,
            _ => RefusalCode::Refused,
        };
        let failure = match (self.channel_of(member), answer) {
            (None, _) => None,
            (Some(channel), Ok(body)) => {
                channel.respond(id, body).err().map(|error| RuleFailure::Denied(error.to_string()))
            }
            (Some(channel), Err(failure)) => {
                channel.refuse(id, code);
                Some(failure)
            }
        };
        if let Some(failure) = failure {
            self.rule_failed(member, rule, failure);
        }
    }

    fn handle_found(&mut self, member: MemberId, search: SearchId, found: Result<Option<Feed>, RuleFailure>) {
        let feed = match found {
            Ok(feed) => feed,
            Err(failure) => {
                self.rule_failed(member, Rule::FindFeed, failure);
                None
            }
        };
        let Some(entry) = self.searches.get_mut(&search) else { return };
        entry.asked -= 1;
        let (key, last) = (entry.key, entry.asked == 0);
        if let Some(feed) = feed
            && feed.discovery_key() == key
            && self.members[member.0].admitted().is_some()
            && let Err(error) = self.release(member, &feed, Replicate::sparsely())
        {
            tracing::debug!(feed = %key, %error, "refused a feed");
        }
        if last && let Some(Search { incoming, handshake, .. }) = self.searches.remove(&search) {
            self.answer_feed(incoming, key, &handshake);
        }
    }

    fn rule_failed(&mut self, member: MemberId, rule: Rule, failure: RuleFailure) {
        let member = &self.members[member.0];
        if let Some(admitted) = member.admitted() {
            tracing::warn!(?rule, %failure, "a rule failed");
            member.hub.tell(Event::RuleFailed { peer: admitted.peer.clone(), rule, failure });
        }
    }

    fn handle_served(&mut self, served: Served) {
        self.serving -= 1;
        let Some(link) = self.feeds.get_mut(&served.job.feed) else { return };
        if !link.is(served.job) {
            return;
        }
        link.served(served.rest);
        if let Line::Open(_, channel) = &mut link.channel {
            for (ticket, proof) in served.proofs {
                if let Err(error) = &proof {
                    tracing::debug!(feed = %served.job.feed, %error, "can't serve a request");
                }
                channel.handle_served(ticket, proof.map_err(|_| ()));
            }
        }
        self.dirty.insert(served.job.feed);
    }

    fn handle_ingested(&mut self, ingested: Ingested) {
        self.unverified_bytes -= ingested.bytes;
        let key = ingested.job.feed;
        let Some(link) = self.feeds.get_mut(&key) else { return };
        if !link.is(ingested.job) {
            return;
        }
        link.ingested();
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

    pub(super) fn handle_change(&mut self, key: DiscoveryKey, changes: Changes) {
        let Some(link) = self.feeds.get_mut(&key) else { return };
        if let Line::Open(_, channel) = &mut link.channel {
            let demand = link.feed.demand();
            link.feed.with_local(|local| {
                channel.set_demand(demand, local);
                channel.handle_local_change(local);
            });
        }
        self.dirty.insert(key);
        self.changes.push(next_change(key, changes));
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let channels = self.members.iter().filter_map(|member| member.admitted()?.channel.as_ref());
        channels.filter_map(|(_, channel)| channel.poll_timeout()).min().map(Instant::from_std)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for member in 0..self.members.len() {
            self.pump_member(MemberId(member), now);
        }
    }

    // What the driver asks

    /// Lets everybody who has something to say say it, and hands over what is to be sealed and sent.
    /// `unsent` is what the socket has not taken yet, in bytes.
    pub(super) fn flush(
        &mut self,
        unsent: usize,
        mut seal: impl FnMut(&[u8]) -> Result<(), ApiMisuse>,
    ) -> Result<(), Error> {
        let writable = unsent < self.limits.max_unsent_bytes;
        if writable && !self.writable {
            self.dirty.extend(self.feeds.keys().copied());
        }
        self.writable = writable;

        for key in std::mem::take(&mut self.dirty) {
            self.pump_feed(key);
        }
        self.tell_whether_finished();
        while let Some(message) = self.mux.poll_transmit() {
            seal(&message)?;
        }
        Ok(())
    }

    fn pump_feed(&mut self, key: DiscoveryKey) {
        let Some(link) = self.feeds.get_mut(&key) else { return };
        let pumped = link.pump(&mut self.mux, self.writable);
        self.unverified_bytes += pumped.new_unverified_bytes;
        if link.settled {
            self.unsettled.remove(&key);
        } else {
            self.unsettled.insert(key);
        }
        if let Some((batch, bytes)) = link.start_ingesting() {
            self.jobs.spawn(jobs::ingest(link.feed.clone(), link.job(), batch, bytes));
        }
        if link.wants_to_serve() && self.writable {
            if self.serving < SERVING_JOBS {
                self.serving += 1;
                let queue = link.start_serving();
                self.jobs.spawn(jobs::serve(link.feed.clone(), link.job(), queue));
            } else {
                // Somebody else's turn; a job that ends gives the next chance.
                self.dirty.insert(key);
            }
        }
        let newly_in_sync = link.settled && pumped.in_sync && !link.told_in_sync;
        link.told_in_sync = link.settled && pumped.in_sync;
        if newly_in_sync {
            self.tell_of_feed(key, |peer, feed| Event::FeedInSync { peer, feed });
        }
    }

    fn tell_whether_finished(&mut self) {
        let idle = self.is_idle();
        for member in &mut self.members {
            let Some(admitted) = member.admitted_mut() else { continue };
            let Some((id, channel)) = &mut admitted.channel else { continue };
            if idle {
                channel.finish();
            } else {
                channel.resume();
            }
            while let Some((message_type, payload)) = channel.poll_transmit() {
                let _ = self.mux.send(*id, message_type, &payload);
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.unsettled.is_empty()
            && self.searches.is_empty()
            && self.members.iter().all(|member| self.may_still_come(member) || member.is_idle())
    }

    /// Whether somebody may yet show up for this party, which keeps nothing waiting as long as others are
    /// there.
    fn may_still_come(&self, member: &Member) -> bool {
        matches!(member.standing, Standing::Stranger)
            && self.members.iter().any(|member| member.admitted().is_some())
    }

    /// Whether a finite connection has done what it was made for.
    pub(super) fn is_done(&self) -> bool {
        let all_finished =
            self.members.iter().filter_map(Member::admitted).all(|admitted| {
                admitted.channel.as_ref().is_none_or(|(_, channel)| channel.remote_finished())
            });
        self.finite && self.is_idle() && all_finished
    }

    /// Whether the remote has refused all that we are here for.
    pub(super) fn is_refused(&self) -> bool {
        self.members.iter().all(|member| matches!(member.standing, Standing::Refused))
    }

    /// Whether nobody has been let in yet.
    pub(super) fn is_among_strangers(&self) -> bool {
        self.members.iter().all(|member| matches!(member.standing, Standing::Stranger | Standing::Offered))
    }

    /// Whether all that was to be got has been got, as far as we know.
    pub(super) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// Whether there is room for more from the remote. `unsent` is what the socket has not taken yet.
    pub(super) fn can_read(&self, unsent: usize) -> bool {
        // The second bound is above what our own serving can bring, or two peers could wait for each other.
        let serving = SERVING_JOBS * (jobs::SERVE_BYTES + self.limits.max_block);
        self.unverified_bytes < self.limits.max_unverified_bytes
            && unsent < self.limits.max_unsent_bytes.saturating_add(serving)
            && !self.is_paused()
    }

    /// Closes every channel, so that the remote knows before the stream ends.
    pub(super) fn close(&mut self) {
        for (channel, _) in self.channels.drain() {
            self.mux.close(channel);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Standing::Admitted(admitted) = std::mem::replace(&mut member.standing, Standing::Gone) {
                member.hub.remove_peer(&admitted.peer);
            }
        }
    }
}

/// A payload that is kept keeps the whole frame that it came in. One that is a small part of a large frame is
/// copied, so that what we keep is what we count.
fn compact(payload: Bytes, frame: usize) -> Bytes {
    const SMALL_FRAME: usize = 128 << 10;
    if frame > SMALL_FRAME && payload.len() < frame / 4 { Bytes::copy_from_slice(&payload) } else { payload }
}

fn next_change(key: DiscoveryKey, mut changes: Changes) -> NextChange {
    Box::pin(async move {
        changes.changed().await;
        (key, changes)
    })
}
