//! What a connection does with what comes out of the secret stream: channels, members, feeds. It waits for
//! nothing; the [driver](super::driver) calls it when something has happened.

mod admitting;
mod finishing;
mod forking;
mod joining;
mod opening;
mod replicating;
mod revoking;
mod throttling;
mod turns;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};
use tracing::{Instrument as _, Span, instrument::Instrumented};

pub(super) use self::turns::Standing as AskingStanding;
use self::{
    finishing::Rest,
    opening::Openings,
    revoking::Stop,
    turns::{AskingTurns, Turns},
};
use super::{
    bucket::Bucket,
    feeds::{FeedLink, Line},
    jobs::{self, Outcome, SearchId},
    members::{Member, Members, Standing},
};
use crate::{
    admission::{self, Body, PartyChannel},
    error::{ApiMisuse, Error},
    feed::{Changes, Feed, FeedPeer, line::Bell},
    hash::Hash,
    key::DiscoveryKey,
    limits::Limits,
    mux::{self, ChannelId, CloseReason, Incoming, Mux},
    party::{Event, Open, Party},
    peer::{Command, MemberId},
    random::Random,
    replication::{self, Pace},
    session::Session,
};

/// Serving jobs at work at a time on one connection. Each may bring more to send than
/// [`Limits::max_unsent_bytes`] by one batch.
pub(super) const SERVING_JOBS: usize = 4;

/// Gives `None` when the link is gone that it was for.
pub(super) type NextChange = std::pin::Pin<Box<dyn Future<Output = Option<NewChange>> + Send>>;

/// A feed has changed.
pub(super) struct NewChange {
    key: DiscoveryKey,
    changes: Changes,
    ended: oneshot::Receiver<Infallible>,
}

pub(super) struct Engine {
    session: Session,
    limits: Limits,
    finite: bool,
    suspended: bool,
    rest: Rest,
    connection: u64,
    commands: mpsc::Sender<Command>,
    mux: Mux,
    /// The size of the message that events come from.
    frame: usize,
    /// Whether the remote's last message was about a feed.
    moves_feeds: bool,
    members: Members,
    /// Whether anybody has ever been let in on the connection.
    ever_admitted: bool,
    /// Ids of party channels that the remote, which dialled, has offered and that are not open, oldest first.
    offered: VecDeque<Hash>,
    /// How many parties it shall look to the remote as if we had, at least.
    pad_to: usize,
    metered: bool,
    random: Random,
    /// Who waits until something has stopped.
    stops: Vec<Stop>,
    /// Generations of links that have ended lie below.
    generation: u64,
    feeds: BTreeMap<DiscoveryKey, FeedLink>,
    channels: BTreeMap<ChannelId, Owner>,
    /// Feeds that the remote opened and that the rules are being asked for.
    searches: BTreeMap<SearchId, Search>,
    next_search: u64,
    /// Links that may have something to say.
    dirty: BTreeSet<DiscoveryKey>,
    /// How much may be asked for.
    pace: Arc<Pace>,
    /// Feeds that wait to be opened, or for the remote's answer to that.
    openings: Openings,
    /// Links that would ask for more.
    asking: AskingTurns,
    /// Links with requests of the remote's to serve.
    to_serve: Turns,
    /// Holds up what is served, if there is a limit.
    upload: Option<Bucket>,
    /// When links may be served that have to wait for that.
    throttled: BTreeMap<DiscoveryKey, std::time::Instant>,
    /// When links are to be pumped though nothing has happened.
    wakes: BTreeMap<DiscoveryKey, std::time::Instant>,
    unsettled: BTreeSet<DiscoveryKey>,
    writable: bool,
    /// Rules that were asked on the connection's own task since the last flush.
    answered_at_once: usize,
    serving: usize,
    unverified_bytes: usize,
    /// What went wrong first with a feed.
    failure: Option<Error>,
    pub(super) jobs: JoinSet<Outcome>,
    pub(super) changes: FuturesUnordered<NextChange>,
    /// Rings when an app has something for a channel.
    pub(super) bell: Arc<Bell>,
}

#[derive(Clone, Copy)]
enum Owner {
    Member(MemberId),
    Feed(DiscoveryKey),
    /// An open that means nothing.
    Decoy,
}

struct Search {
    incoming: Incoming,
    key: DiscoveryKey,
    handshake: Bytes,
    /// Members whose rules have not answered.
    asked: usize,
    /// What the others have found.
    found: Vec<(MemberId, Feed)>,
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
        let mut members = Members::default();
        for party in parties {
            members.add(Member::new(party.hub().clone(), Some(*party.key())));
        }
        if let Some(open) = open {
            members.add(Member::new(open.hub().clone(), None));
        }
        for member in members.values() {
            member.hub.add_connection(connection, session.remote, commands.clone());
        }
        Self {
            session,
            finite,
            suspended: false,
            rest: Rest::Busy,
            connection,
            commands,
            mux,
            frame: 0,
            moves_feeds: false,
            members,
            ever_admitted: false,
            offered: VecDeque::new(),
            pad_to: 0,
            metered: false,
            random: Random::System,
            stops: Vec::new(),
            generation: 0,
            feeds: BTreeMap::new(),
            channels: BTreeMap::new(),
            searches: BTreeMap::new(),
            next_search: 0,
            dirty: BTreeSet::new(),
            pace: Arc::new(Pace::new(&limits)),
            openings: Openings::default(),
            asking: AskingTurns::default(),
            to_serve: Turns::default(),
            upload: None,
            throttled: BTreeMap::new(),
            wakes: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            writable: true,
            answered_at_once: 0,
            serving: 0,
            unverified_bytes: 0,
            failure: None,
            jobs: JoinSet::new(),
            changes: FuturesUnordered::new(),
            bell: Arc::default(),
            limits,
        }
    }

    /// Takes its randomness from there from now on.
    pub(super) fn random_from(&mut self, random: Random) {
        self.random = random;
    }

    /// Takes one message of the secret stream. What is in it takes effect with
    /// [`handle_events`](Self::handle_events).
    pub(super) fn handle_message(&mut self, message: Bytes) {
        self.frame = message.len();
        self.mux.handle_message(message);
    }

    /// Whether what goes on is replication rather than talk. Then there is work for other threads, hashing and storing,
    /// even where this one has nothing to do.
    pub(super) fn moves_feeds(&self) -> bool {
        self.moves_feeds
    }

    /// Whether so many opens wait for the rules that nothing more is to be taken until they have decided.
    pub(super) fn is_paused(&self) -> bool {
        self.mux.paused()
    }

    /// Carries out what the remote has said, up to where it has to wait.
    //= MUX-19, PARTY-16, PARTY-26, PARTY-107
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

    /// The remote opened what we had opened.
    //= PARTY-93
    fn handle_opened(&mut self, channel: ChannelId, handshake: Bytes) {
        match self.channels.get(&channel).copied() {
            Some(Owner::Member(member)) => self.handle_offer_answered(member, channel, handshake),
            Some(Owner::Decoy) => {
                // Nobody could have known what it was for.
                self.channels.remove(&channel);
                self.mux.close(channel);
            }
            Some(Owner::Feed(key)) => {
                self.openings.over(&key);
                let Some(link) = self.feeds.get_mut(&key) else { return };
                let Line::Opening(..) = &link.channel else { return };
                let remote =
                    replication::Channel::verify_handshake(&self.session, &link.feed.key(), &handshake);
                match remote {
                    Ok(remote) => {
                        let line = FeedPeer::new(self.session.remote, key, self.bell.clone(), &self.limits);
                        if let Line::Opening(id, opening) = std::mem::replace(&mut link.channel, Line::Down) {
                            link.opened(id, opening, remote, line);
                        }
                        self.feed_is_open(key);
                    }
                    Err(error) => self.fail_feed(key, error),
                }
            }
            None => self.mux.close(channel),
        }
    }

    //= MUX-6, PARTY-45, PARTY-86
    fn handle_channel_message(
        &mut self,
        channel: ChannelId,
        message_type: u64,
        payload: Bytes,
        now: Instant,
    ) {
        let owner = self.channels.get(&channel).copied();
        self.moves_feeds = matches!(owner, Some(Owner::Feed(_)));
        match owner {
            Some(Owner::Member(member)) => {
                let Some(entry) = self.members.get_mut(member) else { return };
                let span = entry.span.clone();
                let _span = span.enter();
                let Some(admitted) = entry.admitted_mut() else { return };
                let Some((_, party)) = &mut admitted.channel else { return };
                match party.handle_message(message_type, payload) {
                    Ok(()) => self.pump_member(member, now),
                    Err(error) => self.fail_member(member, error),
                }
            }
            Some(Owner::Feed(key)) => {
                let Some(link) = self.feeds.get_mut(&key) else { return };
                let Line::Open(_, channel) = &mut link.channel else { return };
                let result = link.span.in_scope(|| {
                    let now = now.into_std();
                    link.feed.with_local(|local| channel.handle_message(message_type, payload, local, now))
                });
                match result {
                    Ok(()) => {
                        self.dirty.insert(key);
                    }
                    Err(error) => self.fail_feed(key, error),
                }
            }
            Some(Owner::Decoy) | None => {}
        }
    }

    //= PARTY-64
    fn handle_closed(&mut self, channel: ChannelId, reason: CloseReason) {
        match self.channels.remove(&channel) {
            Some(Owner::Member(member)) => {
                let Some(entry) = self.members.get_mut(member) else { return };
                match &entry.standing {
                    Standing::Offered(_) => entry.standing = Standing::Refused,
                    _ => drop(self.remove_member(member, Standing::Gone)),
                }
            }
            Some(Owner::Feed(key)) => {
                self.openings.over(&key);
                self.check_last_words(key);
                let Some(link) = self.feeds.get_mut(&key) else { return };
                // What was rejected is opened again only by who releases it afresh.
                //= PARTY-97
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
            Some(Owner::Decoy) | None => {}
        }
    }

    // What happens on our side

    /// `unsent` is what the socket has not taken yet, in bytes.
    pub(super) fn handle_command(&mut self, command: Command, unsent: usize, now: Instant) {
        match command {
            Command::Transaction { member, body, reply } => {
                let body = match body {
                    Body::IntroduceFeeds(keys) => {
                        Body::IntroduceFeeds(self.that_may_be_introduced(member, keys))
                    }
                    body @ Body::Custom(_) => body,
                };
                self.ask(member, body, reply, now);
                self.pump_member(member, now);
            }
            Command::Ephemeral { member, message, reply } => {
                let _ = reply.send(self.say(member, message, unsent));
                self.pump_member(member, now);
            }
            Command::Replicate { member, feed, how, reply } => {
                let opened = match self.release(member, &feed, how) {
                    Ok(true) => self.open_feed(feed.discovery_key()).map(|()| true),
                    other => other,
                };
                let _ = reply.send(opened);
            }
            Command::Dismiss { member, reply } => self.dismiss(member, reply),
            Command::Tell { member, message, reply } => {
                if let Some(channel) = self.channel_of(member) {
                    // If it can't be asked anything more, it isn't told.
                    let _ = channel.request(Body::Custom(message), now.into_std());
                }
                self.pump_member(member, now);
                let _ = reply.send(());
            }
            Command::Withdraw { member, feed, reply } => self.withdraw(member, feed, reply),
            Command::Reevaluate { hub, feed, reply } => self.reevaluate(&hub, feed, reply),
            Command::SetMetered { metered, reply } => self.set_metered(metered, reply),
            Command::Join { party, reply } => drop(reply.send(self.join(&party))),
            Command::Leave { party, reply } => self.leave(&party, reply),
            Command::Has { feed, index, reply } => {
                let has = match self.feeds.get(&feed).map(|link| &link.channel) {
                    Some(Line::Open(_, channel)) => Ok(channel.remote_has(index)),
                    _ => Err(Error::Closed),
                };
                let _ = reply.send(has);
            }
            Command::Suspend { suspended, reply } => {
                self.suspended = suspended;
                self.dirty.extend(self.feeds.keys().copied());
                let _ = reply.send(());
            }
            Command::LimitUpload { bytes_per_second, reply } => {
                self.limit_upload(bytes_per_second, now);
                let _ = reply.send(());
            }
        }
    }

    fn channel_of(&mut self, member: MemberId) -> Option<&mut PartyChannel> {
        let (_, channel) = self.members.admitted_mut(member)?.channel.as_mut()?;
        Some(channel)
    }

    pub(super) fn handle_outcome(&mut self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Left => {}
            Outcome::Rule { member, outcome } => self.handle_rule(member, outcome, now),
            Outcome::Served(served) => self.handle_served(served),
            Outcome::Ingested(ingested) => self.handle_ingested(ingested),
            Outcome::Followed(followed) => self.handle_followed(followed),
            Outcome::Checked(checked) => self.handle_checked(checked),
        }
    }

    /// Apps have something for the channels of these feeds.
    pub(super) fn handle_bell(&mut self, feeds: BTreeSet<DiscoveryKey>) {
        self.dirty.extend(feeds);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let channels = self.members.values().filter_map(|member| member.admitted()?.channel.as_ref());
        let channels = channels.filter_map(|(_, channel)| channel.poll_timeout());
        let wakes = self.wakes.values().chain(self.throttled.values()).copied();
        let wakes = wakes.chain(self.openings.poll_timeout());
        let stops = self.stops.iter().filter_map(Stop::deadline);
        channels.chain(wakes).map(Instant::from_std).chain(stops).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for member in self.members.ids() {
            self.pump_member(member, now);
        }
        let std_now = now.into_std();
        self.end_throttling(std_now);
        self.dirty.extend(self.wakes.extract_if(.., |_, wake| *wake <= std_now).map(|(key, _)| key));
    }

    // What the driver asks

    /// Lets everybody who has something to say say it, and hands over what is to be sealed and sent.
    /// `unsent` is what the socket has not taken yet, in bytes.
    //= LIMIT-4
    pub(super) fn flush(
        &mut self,
        unsent: usize,
        now: Instant,
        mut seal: impl FnMut(&[u8]) -> Result<(), ApiMisuse>,
    ) -> Result<(), Error> {
        let writable = unsent < self.limits.max_unsent_bytes;
        if writable && !self.writable {
            self.dirty.extend(self.feeds.keys().copied());
        }
        self.writable = writable;
        self.answered_at_once = 0;

        self.open_feeds(now);
        self.pump_feeds(now);
        self.tell_whether_finished();
        while let Some(message) = self.mux.poll_transmit() {
            seal(&message)?;
        }
        Ok(())
    }

    /// Whether there is room for more from the remote. `unsent` is what the socket has not taken yet.
    //= LIMIT-5, LIMIT-6, MUX-43
    pub(super) fn can_read(&self, unsent: usize) -> bool {
        // The second bound is above what our own serving can bring, or two peers could wait for each other.
        let serving = SERVING_JOBS * (jobs::SERVE_BYTES + self.limits.max_block);
        self.unverified_bytes < self.limits.max_unverified_bytes
            && unsent < self.limits.max_unsent_bytes.saturating_add(serving)
            && !self.is_paused()
    }

    /// Closes every channel, so that the remote knows before the stream ends.
    pub(super) fn close(&mut self) {
        self.openings = Openings::default();
        for channel in std::mem::take(&mut self.channels).into_keys() {
            self.mux.close(channel);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for member in self.members.values_mut() {
            member.hub.remove_connection(self.connection);
            if let Standing::Admitted(admitted) = std::mem::replace(&mut member.standing, Standing::Gone)
                && admitted.is_vetted
            {
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

/// A job of the connection, within the span of what it is for.
fn instrumented<F: Future>(span: &Span, job: F) -> Instrumented<F> {
    job.instrument(span.clone())
}

fn next_change(
    key: DiscoveryKey,
    mut changes: Changes,
    mut ended: oneshot::Receiver<Infallible>,
) -> NextChange {
    Box::pin(async move {
        tokio::select! {
            biased;
            _ = &mut ended => return None,
            () = changes.changed() => {}
        }
        Some(NewChange { key, changes, ended })
    })
}
