//! The state machine of the `hypercore/alpha` channel: one feed on one connection.

mod answering;
mod forking;
mod output;
mod pushing;
mod receiving;
mod status;

use std::{collections::VecDeque, ops::Range, sync::Arc, time::Instant};

use bytes::Bytes;

use self::status::Compared;
pub use self::{
    output::{Output, Ticket, Verdict},
    status::Status,
};
use super::{
    asking::Asking,
    capability::{self, RemoteHandshake},
    conflict::Conflicts,
    counters::Counters,
    extensions::Extensions,
    messages::{self, Message, Sync},
    pace::Pace,
    push::Push,
    ranges::Ranges,
    remote::Remote,
    reorg::Forks,
    serving::Serving,
    shown::Shown,
    swarm::Swarm,
    telling::Telling,
};
use crate::{
    error::{Error, PeerMisbehaved},
    feed::{
        local::{Demand, Local},
        proof::UpgradeRequest,
        seek::Sought,
    },
    key::FeedKey,
    limits::Limits,
    session::Session,
};

/// What a channel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether it follows the feed. If not, it says that it is done once nothing is left to get.
    pub live: bool,
    /// Whether to ask for what is demanded. Without, not even the length follows the remote's.
    pub download: bool,
    /// Whether to answer requests.
    pub upload: bool,
    /// Whether to follow the remote to a higher fork.
    pub follow_forks: bool,
    /// Whether to take blocks that were not asked for, if they are wanted.
    pub allow_push: bool,
    /// Whether to push what is appended, if the remote takes it.
    pub push: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { live: true, download: true, upload: true, follow_forks: true, allow_push: false, push: false }
    }
}

/// One feed on one connection.
///
/// It does no IO. The driver does this:
///
/// 1. Opens a channel with [`PROTOCOL`](super::PROTOCOL), the discovery key and
///    [`handshake`](Self::handshake), verifies the remote's with
///    [`verify_handshake`](Self::verify_handshake) - before it answers, if the remote opened first - and calls
///    [`handle_opened`](Self::handle_opened).
/// 2. Hands over what happens, by `handle_*` and `set_*`. An error means that the channel is to be closed.
/// 3. After each of these, and at [`poll_timeout`](Self::poll_timeout), calls [`poll_output`](Self::poll_output) until
///    it returns `None`; then tells the feed's other channels if the [`Swarm`] has news.
///
/// Every method that takes a [`Local`] must be given the same feed as it stands at that moment; time never goes back.
///
/// ```
/// use std::sync::Arc;
/// use party::{
///     key::{FeedKey, PublicKey},
///     limits::Limits,
///     replication::{Channel, Options, Pace, Swarm},
///     session::Session,
/// };
///
/// let key = FeedKey::from_bytes([7; 32]);
/// let keys = [PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32])];
/// let ours = Session { binding: [0; 64], is_initiator: true, local: keys[0], remote: keys[1] };
/// let theirs = Session { binding: [0; 64], is_initiator: false, local: keys[1], remote: keys[0] };
///
/// let (limits, swarm) = (Limits::default(), Arc::new(Swarm::default()));
/// let pace = Arc::new(Pace::new(&limits));
/// let channel = Channel::new(&ours, &key, Options::default(), &limits, &swarm, &pace);
/// assert!(Channel::verify_handshake(&theirs, &key, &channel.handshake()).is_ok());
/// assert!(Channel::verify_handshake(&ours, &key, &channel.handshake()).is_err());
/// ```
#[derive(Debug)]
pub struct Channel {
    options: Options,
    limits: Limits,
    handshake: Vec<u8>,
    remote: Remote,
    asking: Asking,
    telling: Telling,
    /// What the remote may have; `None` for everything.
    served: Option<Ranges>,
    serving: Serving,
    push: Push,
    extensions: Extensions,
    /// What is ready to go out.
    outputs: VecDeque<Output>,
    /// Whether the way to the remote has room.
    writable: bool,
    suspended: bool,
    /// Whether requests of the remote's that were handed out are enough for now.
    busy: bool,
    compared: Compared,
    forks: Forks,
    conflicts: Conflicts,
    /// Our fork when it was last looked at.
    fork: Option<u64>,
    /// A proof that is made only to see whether we can make it, as we can't tell from memory, and of which fork.
    trial: Option<(Ticket, u64, UpgradeRequest)>,
    counters: Counters,
}

impl Channel {
    /// A channel that is not open yet. Everything is demanded till [`set_demand`](Self::set_demand).
    /// The swarm is shared with the feed's other channels, the pace with the connection's.
    pub fn new(
        session: &Session,
        key: &FeedKey,
        options: Options,
        limits: &Limits,
        swarm: &Arc<Swarm>,
        pace: &Arc<Pace>,
    ) -> Self {
        let remote = Remote::default();
        let asking = Asking::new(options.live, swarm, pace);
        asking.window.claims().share(&remote.have);
        Self {
            options,
            limits: limits.clone(),
            handshake: capability::handshake(session, key),
            remote,
            asking,
            telling: Telling::default(),
            served: None,
            serving: Serving::default(),
            push: Push::default(),
            extensions: Extensions::default(),
            outputs: VecDeque::new(),
            writable: true,
            suspended: false,
            busy: false,
            compared: Compared::default(),
            forks: Forks::default(),
            conflicts: Conflicts::default(),
            fork: None,
            trial: None,
            counters: Counters::default(),
        }
    }

    /// What goes into our open.
    //= REPL-1, REPL-2
    pub fn handshake(&self) -> Vec<u8> {
        self.handshake.clone()
    }

    /// Verifies what came in the remote's open. To be called before anything of ours is sent.
    ///
    /// # Errors
    /// [`PeerMisbehaved::WrongCapability`] if the remote does not know the key; a
    /// [`DecodeError`](crate::error::DecodeError).
    //= REPL-3, REPL-4
    pub fn verify_handshake(
        session: &Session,
        key: &FeedKey,
        handshake: &[u8],
    ) -> Result<RemoteHandshake, Error> {
        capability::verify_handshake(session, key, handshake)
    }

    /// Both sides have opened, and the remote's handshake holds.
    pub fn handle_opened(&mut self, remote: RemoteHandshake, local: &dyn Local) {
        self.remote.handshake = Some(remote);
        self.telling.opened(Shown::new(local, self.served.as_ref()));
    }

    /// A message of the channel has come.
    ///
    /// # Errors
    /// What the remote sent breaks the protocol; the channel is to be closed.
    //= REPL-5, REPL-9
    pub fn handle_message(
        &mut self,
        message_type: u64,
        payload: Bytes,
        local: &dyn Local,
        now: Instant,
    ) -> Result<(), Error> {
        //= protocol-spec/07-replication.md#capability
        let Some(handshake) = self.remote.handshake else {
            return Err(PeerMisbehaved::UnexpectedMessage("the channel is not open").into());
        };
        self.counters.received.count(message_type);
        self.notice_fork(local);
        match Message::decode(message_type, &payload, handshake.seeks, &self.limits)? {
            Some(Message::Sync(sync)) => self.handle_sync(sync, local),
            Some(Message::Request(request)) => self.handle_request(request, local)?,
            Some(Message::Cancel { request }) => self.serving.cancel(request),
            Some(Message::Data(data)) => self.handle_data(data, local, now)?,
            Some(Message::NoData(refusal)) => self.handle_no_data(refusal, local, now)?,
            Some(Message::Want(want)) => self.telling.want(want, &self.limits),
            Some(Message::Unwant(want)) => self.telling.unwant(want),
            // Node passes over one that doesn't start at a word, too.
            Some(Message::Bitfield(bitfield)) if bitfield.start % 32 == 0 => {
                let end = bitfield.start.saturating_add(32 * bitfield.words.len() as u64);
                self.remote.have.replace(bitfield.start, &bitfield.words, &self.limits)?;
                self.told(bitfield.start..end, true);
            }
            Some(Message::Range(range)) => {
                let blocks = range.start..range.start.saturating_add(range.length);
                if range.drop {
                    self.remote.have.remove(blocks.clone(), &self.limits)?;
                    self.told(blocks, false);
                } else if self.remote.have.next_gap(blocks.start) < blocks.end {
                    self.remote.have.insert(blocks.clone(), &self.limits)?;
                    self.told(blocks, true);
                } else {
                    self.asking.told(blocks);
                }
            }
            Some(Message::Extension(extension)) => {
                if !self.extensions.handle(extension, &self.limits) {
                    self.counters.dropped_extensions += 1;
                }
            }
            Some(Message::Bitfield(_)) | None => self.counters.ignored += 1,
        }
        Ok(())
    }

    /// Our side of the feed has changed: it has grown, or blocks were stored, by whomever.
    pub fn handle_local_change(&mut self, local: &dyn Local) {
        self.notice_fork(local);
        self.asking.handle_local_change(local, &self.limits);
        self.compared = Compared::default();
        self.telling.touch_stored();
    }

    /// Sets which blocks to ask for.
    pub fn set_demand(&mut self, demand: Demand, _local: &dyn Local) {
        if self.asking.set_demand(demand, &self.limits) {
            self.telling.touch();
        }
    }

    /// Sets which blocks the remote may have, as far as they are here; `None` for all. Of others it is told as if they weren't
    /// here. What it asks for nevertheless is handed out to be served: then [`deny`](Self::deny) it.
    //= PARTY-118
    pub fn set_served(&mut self, blocks: Option<Vec<Range<u64>>>) {
        let served = blocks.map(|blocks| {
            let mut served = Ranges::default();
            blocks.into_iter().for_each(|range| served.insert(range));
            served
        });
        if self.served != served {
            self.served = served;
            self.compared = Compared::default();
            self.telling.touch_stored();
        }
    }

    /// Sets which byte offsets to look for. [`Feed::find`](crate::feed::Feed::find) knows.
    pub fn set_sought(&mut self, sought: Vec<Sought>) {
        if self.asking.seeking.set(sought) {
            self.telling.touch();
        }
    }

    /// Whether the way to the remote has room. While it has not, only requests, cancels and wants are sent,
    /// and no request of the remote's is served.
    pub fn set_writable(&mut self, writable: bool) {
        self.writable = writable;
    }

    /// Says something to the remote's end of an extension. `name` must be the same `Arc` each time, or at least
    /// the same text, to be left out from the second message on.
    ///
    /// # Errors
    /// [`ApiMisuse::LimitExceeded`](crate::error::ApiMisuse::LimitExceeded) for a name or message that is empty or too long, and if
    /// [`Limits::max_queued_extensions`] are waiting; [`Error::Closed`] before both sides have opened the channel.
    pub fn send_extension(&mut self, name: &Arc<str>, message: Bytes) -> Result<(), Error> {
        self.remote.handshake.ok_or(Error::Closed)?;
        Ok(self.extensions.send(name, message, &self.limits)?)
    }

    /// Whether [`send_extension`](Self::send_extension) has room and the way to the remote, too.
    pub fn takes_extensions(&self) -> bool {
        self.writable && self.extensions.has_room(&self.limits)
    }

    /// Pushes blocks that are stored here, if the remote takes pushes: those of the range that it lacks, up to
    /// [`Limits::max_queued_pushes`].
    pub fn push(&mut self, range: Range<u64>, local: &dyn Local) {
        self.push.push(range, local, &self.limits);
    }

    /// Sets how many requests it may make from now on, which is for the driver to be fair to all feeds of a
    /// connection. Without, there is no limit but that of the [`Pace`].
    pub fn set_allowance(&mut self, requests: usize) {
        self.asking.allowance = requests;
    }

    /// Whether it would ask for more if it had the allowance, and the connection the room.
    pub fn is_hungry(&self) -> bool {
        self.asking.hungry
    }

    /// When [`poll_output`](Self::poll_output) is to be called though nothing has happened: another peer was asked
    /// for something that this one may be asked for then.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let others = [self.conflicts.deadline(), self.forks.poll_timeout(), self.push.poll_timeout()];
        self.asking.poll_timeout().into_iter().chain(others.into_iter().flatten()).min()
    }

    /// What to do next. To be called until it returns `None`.
    //= REPL-5, REPL-12
    pub fn poll_output(&mut self, local: &dyn Local, now: Instant) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        //= protocol-spec/07-replication.md#capability
        self.remote.handshake?;
        // Whatever else keeps it from asking: a timer that is over would go off again and again.
        self.asking.look_again(now);
        self.forks.look_again(now);
        if self.push.look_again(self.serving.is_holding(), &self.remote, now) {
            self.serving.release();
        }
        self.asking.retry(&mut self.remote, &self.limits, now);
        if let Some((name, message)) = self.extensions.pop_arrived() {
            return Some(Output::Extension { name, message });
        }
        self.notice_fork(local);
        if local.has_conflict() {
            self.asking.hungry = false;
            return self.poll_conflict(local);
        }
        if self.writable
            && let Some(output) = self.poll_answers(local, now)
        {
            // Whom we suspect may suspect us.
            return Some(output);
        }
        if self.conflicts.is_suspicious() {
            self.asking.hungry = false;
            self.conflicts.wait(now, &self.limits);
            return None;
        }
        if let Some(message) = self.poll_forks(local) {
            return Some(self.output(&message));
        }
        if let Some(output) = self.poll_forgo(local, now) {
            return Some(output);
        }
        if self.options.download
            && !self.suspended
            && let Some(message) = self.asking.poll(local, &self.remote, &self.limits, now)
        {
            return Some(self.output(&message));
        }
        if !self.compared.done {
            self.compare_blocks(local);
        }
        None
    }

    /// Changes what it is for; the remote is told. Requests of the remote's that are out to be served are answered as their
    /// results say, and those that wait here are refused if it doesn't upload any more.
    ///
    /// # Errors
    /// [`PeerMisbehaved::LimitExceeded`] if the remote takes no refusals and goes on asking.
    pub fn set_options(&mut self, options: Options) -> Result<(), Error> {
        if self.options == options {
            return Ok(());
        }
        self.options = options;
        self.telling.touch();
        if !options.upload {
            for id in self.serving.take_waiting() {
                self.refuse(id, messages::REASON_NOT_AVAILABLE)?;
            }
        }
        Ok(())
    }

    /// Whether the driver has enough of the remote's requests to serve for now. The rest wait here, where they can be
    /// cancelled.
    pub fn set_busy(&mut self, busy: bool) {
        self.busy = busy;
    }

    /// Makes a pause, or ends it. Meanwhile nothing more is asked for, and the remote's requests wait; there are
    /// [`Limits::max_queued_requests`] of them at most. What is under way ends, and each side still hears
    /// what the other has.
    pub fn set_suspended(&mut self, suspended: bool) {
        self.suspended = suspended;
    }

    fn send(&mut self, message: &Message) {
        let output = self.output(message);
        self.outputs.push_back(output);
    }

    fn output(&mut self, message: &Message) -> Output {
        self.counters.sent.count(message.message_type());
        let payload = message.payload_for(self.remote.understands_seeks());
        Output::Send { message_type: message.message_type(), payload }
    }

    fn handle_sync(&mut self, sync: Sync, local: &dyn Local) {
        let before = std::mem::replace(&mut self.remote.sync, sync);
        self.remote.synced = true;
        self.push.heard();
        self.compared.done = false;
        self.asking.handle_sync(&before, local, &self.remote, &self.limits);
        self.telling.touch();
    }

    /// The remote has told what it has of `blocks`; with `more` there may be blocks among them that it did
    /// not have before.
    fn told(&mut self, blocks: Range<u64>, more: bool) {
        self.asking.told(blocks.clone());
        self.asking.backoff.told(blocks.clone());
        self.compared.done = false;
        if !more {
            self.compared = Compared::default();
        } else {
            self.asking.reconsider(blocks);
        }
        self.telling.touch();
    }
}
