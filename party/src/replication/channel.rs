//! The state machine of the `hypercore/alpha` channel: one feed on one connection.

mod forking;
mod pushing;

use std::{collections::VecDeque, ops::Range, sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    asking::{Asking, SEGMENT},
    capability::{self, RemoteHandshake},
    conflict::{CONFLICT, Conflicts},
    counters::Counters,
    extensions::Extensions,
    have::runs,
    messages::{
        Data, Message, NoData, REASON_INVALID_REQUEST, REASON_NOT_AVAILABLE, REASON_UNKNOWN, Request, Sync,
    },
    pace::Pace,
    payload::Payload,
    push::{Push, leads_to},
    remote::Remote,
    reorg::Forks,
    serving::{Running, Serving},
    swarm::Swarm,
    telling::Telling,
    window::{Answered, Asked},
};
use crate::{
    encoding::MAX_SAFE_INTEGER,
    error::{Error, PeerMisbehaved},
    feed::{
        local::{Demand, Local},
        proof::{Proof, ProofRequest, UpgradeRequest},
        reorg::PendingReorg,
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

/// Names an [`Output::Serve`] or an [`Output::Ingest`], for its result to be handed back. Each kind counts
/// for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(super) u64);

/// What a channel wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // short-lived; a box would cost an allocation for every block
pub enum Output {
    /// A message for the remote.
    Send {
        /// Its type.
        message_type: u64,
        /// Its bytes.
        payload: Payload,
    },
    /// A request, mostly of the remote's: make the proof and call [`Channel::handle_served`].
    Serve {
        /// To be handed back.
        ticket: Ticket,
        /// What is asked for.
        request: ProofRequest,
        /// The fork that it is about, which is ours.
        fork: u64,
    },
    /// An answer: verify and store it, and call [`Channel::handle_ingested`].
    Ingest {
        /// To be handed back.
        ticket: Ticket,
        /// The answer.
        proof: Proof,
    },
    /// A proof of a fork above ours: let the feed [follow](crate::feed::Feed::follow) it, and call
    /// [`Channel::handle_followed`].
    Follow {
        /// To be handed back.
        ticket: Ticket,
        /// The proof.
        proof: Proof,
    },
    /// The remote can't show what the way to a fork above ours wants: let the feed [go without it](crate::feed::Feed::forgo),
    /// and call [`Channel::handle_followed`].
    Forgo {
        /// To be handed back.
        ticket: Ticket,
        /// What was wanted.
        pending: PendingReorg,
    },
    /// What may show that the feed's signers have contradicted themselves: let the feed
    /// [look at it](crate::feed::Feed::check_conflict), and call [`Channel::handle_conflict_checked`].
    CheckConflict {
        /// The proof.
        proof: Proof,
    },
    /// A message of an extension has come.
    Extension {
        /// The extension's name.
        name: Arc<str>,
        /// The message.
        message: Bytes,
    },
}

/// What came of an answer that was [verified](Output::Ingest).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds, and what was new in it is stored.
    Holds,
    /// It does not contradict anything, but leads to no node that is known here. Nothing of it is stored.
    Unconnected,
}

/// How far a replication is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether there is nothing more to get: of what is demanded, of what the remote has.
    pub in_sync: bool,
    /// Whether the remote has all that we have, or doesn't want it, or can't get it.
    pub remote_in_sync: bool,
    /// Whether the remote has refused so many requests that it isn't asked for a while.
    pub has_given_up: bool,
    /// Whether it is still to be found out if the remote makes the feed longer: it has said nothing yet, or what it
    /// said is being proved.
    pub is_updating: bool,
    /// Whether the remote says that it answers requests.
    pub remote_uploads: bool,
    /// Whether the remote says that it makes requests.
    pub remote_downloads: bool,
    /// The remote's length, as it says.
    pub remote_length: u64,
    /// The remote's fork, as it says.
    pub remote_fork: u64,
    /// How many blocks from 0 on the remote says to have without a gap.
    pub remote_contiguous_length: u64,
    /// Our requests that are not answered.
    pub waiting: usize,
    /// The remote's requests that are not answered.
    pub serving: usize,
    /// What has happened on the channel.
    pub counters: Counters,
}

/// The search for a block that we have and the remote has not.
#[derive(Clone, Copy, Debug, Default)]
struct Compared {
    /// The remote has all of ours below this one.
    from: u64,
    lacks: Option<u64>,
    /// Whether nothing has changed since.
    done: bool,
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
    /// A proof that is made only to see whether we can make it, as we can't tell from memory.
    trial: Option<(Ticket, UpgradeRequest)>,
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
    pub fn handshake(&self) -> Vec<u8> {
        self.handshake.clone()
    }

    /// Verifies what came in the remote's open. To be called before anything of ours is sent.
    ///
    /// # Errors
    /// [`PeerMisbehaved::WrongCapability`] if the remote does not know the key; a
    /// [`DecodeError`](crate::error::DecodeError).
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
        self.telling.opened(local);
    }

    /// A message of the channel has come.
    ///
    /// # Errors
    /// What the remote sent breaks the protocol; the channel is to be closed.
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

    /// A request of the remote's was served; `Ok(None)` or an error if it can't be.
    pub fn handle_served(&mut self, ticket: Ticket, proof: Result<Option<Proof>, ()>) {
        if let Some((_, upgrade)) = self.trial.take_if(|(trial, _)| *trial == ticket) {
            let provable = matches!(&proof, Ok(Some(proof)) if proof.upgrade.is_some());
            return self.telling.found(upgrade, provable);
        }
        if self.handle_conflict_served(ticket, proof.as_ref().ok().and_then(Option::as_ref)) {
            return;
        }
        let pushed = self.push.served(ticket, proof.as_ref().ok().and_then(Option::as_ref), &self.remote);
        let running = match (self.serving.served(ticket), pushed) {
            (Some(running), _) => running,
            (None, Some(Some(fork))) => {
                self.counters.blocks_pushed_by_us += 1;
                Running { id: 0, fork }
            }
            (None, _) => return,
        };
        let message = match proof {
            Ok(Some(proof)) => {
                if let Some(block) = &proof.block {
                    self.counters.blocks_sent += 1;
                    self.counters.bytes_sent += block.value.len() as u64;
                }
                if let Some(upgrade) = &proof.upgrade {
                    self.push.sent(upgrade);
                }
                Message::Data(Data { request: running.id, proof: Proof { fork: running.fork, ..proof } })
            }
            Ok(None) | Err(()) => {
                self.counters.refused_by_us += 1;
                Message::NoData(NoData { request: running.id, reason: REASON_NOT_AVAILABLE })
            }
        };
        self.send(&message);
    }

    /// An answer was verified and stored, or was not.
    ///
    /// # Errors
    /// What did not verify, or could not be stored; the channel is to be closed.
    pub fn handle_ingested(
        &mut self,
        ticket: Ticket,
        result: Result<Verdict, Error>,
        local: &dyn Local,
    ) -> Result<(), Error> {
        let Some((asked, bytes)) = self.asking.window.stored(ticket.0) else { return Ok(()) };
        self.notice_fork(local);
        self.telling.touch_stored();
        self.compared = Compared::default();
        if asked.fork != local.fork() && result.is_ok() {
            // Honest, and too late.
            self.asking.window.give_up(&asked);
            self.asking.reconsider(asked.block.map_or(0..0, |index| index..index + 1));
            return Ok(());
        }
        let verdict = match result {
            // Not its fault: we had asked it to leave out what others were to bring.
            Ok(Verdict::Unconnected) if !asked.leans => {
                Err(PeerMisbehaved::InvalidProof("it leads nowhere").into())
            }
            result => result,
        };
        let verdict = verdict.inspect_err(|error| {
            if matches!(error, Error::PeerMisbehaved(_)) {
                self.counters.invalid_proofs += 1;
            }
        });
        if asked.pushed {
            return self.push_ingested(&asked, bytes, verdict.map(|_| ()), local);
        }
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(error) if self.suspects(&error, local) => {
                self.asking.window.give_up(&asked);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let stored = asked.block.is_none_or(|index| local.has(index));
        let grown = asked.upgrade.is_none_or(|upgrade| local.length() > upgrade.start);
        self.asking.window.settle(&asked, stored, grown);
        if let Some(index) = asked.block {
            if stored {
                self.counters.blocks_received += 1;
                self.counters.bytes_received += bytes as u64;
            } else if verdict == Verdict::Unconnected {
                self.asking.unconnected(index, &self.limits);
                return Ok(());
            } else {
                self.asking.reconsider(index..index + 1);
            }
        }
        if stored && grown {
            self.asking.backoff.succeeded();
        } else {
            self.failed(&asked, false, local);
        }
        Ok(())
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

    /// Whether the remote says to have block `index`.
    pub fn remote_has(&self, index: u64) -> bool {
        index < self.remote.sync.length && self.remote.have.has(index)
    }

    /// How far the replication is.
    pub fn status(&self, local: &dyn Local) -> Status {
        Status {
            in_sync: self.is_in_sync(local),
            remote_in_sync: self.remote_is_in_sync(local),
            has_given_up: self.asking.backoff.is_paused(),
            is_updating: self.options.download
                && (!self.remote.synced
                    || !self.has_followed(local)
                    || self.asking.is_growing(local, &self.remote)),
            remote_uploads: self.remote.sync.uploading,
            remote_downloads: self.remote.sync.downloading,
            remote_length: self.remote.sync.length,
            remote_fork: self.remote.sync.fork,
            remote_contiguous_length: self.remote.have.next_gap(0).min(self.remote.sync.length),
            waiting: self.asking.window.waiting() + self.forks.waiting(),
            serving: self.serving.len(),
            counters: Counters { overdue: self.asking.overdue, ..self.counters },
        }
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

    /// What goes out only while the remote takes what it gets.
    fn poll_answers(&mut self, local: &dyn Local, now: Instant) -> Option<Output> {
        if let Some(extension) = self.extensions.pop_leaving() {
            return Some(self.output(&Message::Extension(extension)));
        }
        if let Some(output) = self.poll_push(local) {
            return Some(output);
        }
        let allow_push = self.takes_pushes(local);
        self.asking.pushes = allow_push;
        let (options, asking, remote) = (&self.options, &self.asking, &self.remote);
        let limits = &self.limits;
        let sync = || Sync {
            fork: local.fork(),
            length: local.length(),
            remote_length: if remote.sync.fork == local.fork() { remote.sync.length } else { 0 },
            can_upgrade: false,
            uploading: options.upload,
            downloading: options.download && (options.live || !asking.is_in_sync(local, remote)),
            has_manifest: local.has_manifest(),
            allow_push,
        };
        let told =
            if self.push.comes_first() { None } else { self.telling.poll(local, remote, limits, sync) };
        if let Some(message) = told {
            if let Message::Sync(_) = message {
                self.asking.synced();
            }
            return Some(self.output(&message));
        }
        if !self.push.comes_first() {
            self.push.told();
        }
        if self.options.upload
            && self.trial.is_none()
            && let Some(upgrade) = self.telling.unsure(local, &self.remote)
        {
            let ticket = self.serving.ticket();
            self.trial = Some((ticket, upgrade));
            let request = ProofRequest { upgrade: Some(upgrade), ..ProofRequest::default() };
            return Some(Output::Serve { ticket, request, fork: local.fork() });
        }
        if let Some(refusal) = self.serving.pop_refusal() {
            return Some(self.output(&Message::NoData(refusal)));
        }
        if self.suspended || self.busy {
            return None;
        }
        let (push, remote) = (&self.push, &self.remote);
        let next = self.serving.pop(|request| push.is_to_wait(&request.proof, remote));
        let Some((ticket, Request { id, fork, proof, .. })) = next else {
            let pushes = self.push.looked(self.serving.is_holding(), &self.limits, now);
            return if pushes { self.poll_push(local) } else { None };
        };
        let Some(request) = push.connect(proof, remote) else {
            self.serving.served(ticket);
            self.counters.refused_by_us += 1;
            return Some(self.output(&Message::NoData(NoData { request: id, reason: REASON_UNKNOWN })));
        };
        self.push.answering(ticket, &request, &self.remote);
        Some(Output::Serve { ticket, request, fork })
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

    fn handle_request(&mut self, mut request: Request, local: &dyn Local) -> Result<(), Error> {
        //= protocol-spec/07-replication.md#request-1-and-data-3
        let proof = &request.proof;
        let available = self.options.upload
            && request.fork == local.fork()
            && local.length() > 0
            && proof.block.is_none_or(|block| block.index < local.length() && local.has(block.index));
        let valid = proof.upgrade.is_none_or(|upgrade| {
            let end = upgrade.start.saturating_add(upgrade.length);
            upgrade.length > 0 && end <= local.length()
        }) && *proof != ProofRequest::default();
        if !available && proof.manifest && self.options.upload && local.has_manifest() {
            // The manifest alone, of our fork, as Node does.
            request.fork = local.fork();
            request.proof = ProofRequest { manifest: true, ..ProofRequest::default() };
        } else if !available || !valid {
            let reason = if available { REASON_INVALID_REQUEST } else { REASON_NOT_AVAILABLE };
            return self.refuse(request.id, reason);
        }
        let id = request.id;
        if self.serving.push(request, &self.limits) {
            return Ok(());
        }
        self.refuse(id, REASON_UNKNOWN)
    }

    fn refuse(&mut self, request: u64, reason: u64) -> Result<(), Error> {
        self.serving.cancel(request);
        self.serving.refuse(NoData { request, reason }, &self.limits)?;
        self.counters.refused_by_us += 1;
        Ok(())
    }

    fn handle_data(&mut self, data: Data, local: &dyn Local, now: Instant) -> Result<(), Error> {
        let Data { request, proof } = data;
        //= protocol-spec/07-replication.md#request-1-and-data-3
        if let Some(upgrade) = &proof.upgrade
            && (upgrade.length == 0 || upgrade.start > MAX_SAFE_INTEGER - upgrade.length)
        {
            return Err(PeerMisbehaved::InvalidProof("an empty upgrade").into());
        }
        let bytes = proof.block.as_ref().map_or(0, |block| block.value.len());
        if bytes > self.limits.max_block {
            return Err(PeerMisbehaved::LimitExceeded("max_block").into());
        }
        //= protocol-spec/07-replication.md#request-1-and-data-3
        if request == CONFLICT {
            if self.handle_unasked(&proof, local)? {
                return Ok(());
            }
            if proof.block.is_none() && proof.upgrade.as_ref().is_some_and(|upgrade| upgrade.start == 0) {
                // The proof of a conflict that is of no use.
                self.counters.ignored += 1;
                return Ok(());
            }
            return self.handle_push(proof, bytes, local);
        }
        let Some(data) = self.handle_fork_data(Data { request, proof })? else { return Ok(()) };
        let Data { request, proof } = data;
        let asked = match self.asking.window.answered(request, now) {
            Answered::Asked(asked) => asked,
            Answered::Late => {
                self.counters.ignored += 1;
                return Ok(());
            }
            Answered::Unasked => return Err(PeerMisbehaved::UnrequestedData.into()),
        };
        self.asking.answered(request, &asked);
        self.telling.touch();
        if self.conflicts.is_suspicious() {
            self.asking.window.give_up(&asked);
            self.counters.ignored += 1;
            return Ok(());
        }
        if !asked.covers(&proof) {
            return Err(PeerMisbehaved::UnrequestedData.into());
        }
        if let (Some(upgrade), Some(ours)) = (&proof.upgrade, asked.upgrade)
            && asked.pushes
            && upgrade.start != ours.start
        {
            // Node answers so if it takes us to have what it has pushed, or nothing.
            self.push.suspend(leads_to(upgrade));
        }
        if asked.probe {
            return Ok(());
        }
        let (block, upgrade, hash) = (proof.block.is_some(), proof.upgrade.is_some(), proof.hash.is_some());
        if asked.block.is_some() != block
            || asked.upgrade.is_some() != upgrade
            || asked.hash.is_some() != hash
        {
            // A part is missing: Node answers with the manifest alone if it doesn't have the rest.
            let missing = Asked {
                block: asked.block.filter(|_| !block),
                upgrade: asked.upgrade.filter(|_| !upgrade),
                hash: asked.hash.filter(|_| !hash),
                sought: asked.sought.filter(|_| !hash),
                manifest: false,
                ..asked
            };
            self.refused(&missing, false, local);
        } else if asked.manifest && proof.manifest.is_none() && !block && !upgrade && !hash {
            self.refused(&asked, false, local);
        }
        if !block && !upgrade && !hash && proof.manifest.is_none() {
            return Ok(());
        }
        let got = Asked {
            block: asked.block.filter(|_| block),
            upgrade: asked.upgrade.filter(|_| upgrade),
            hash: asked.hash.filter(|_| hash),
            sought: asked.sought.filter(|_| hash),
            ..asked
        };
        self.push.storing(&proof, &self.asking);
        self.asking.window.store(request, got, bytes);
        self.outputs.push_back(Output::Ingest { ticket: Ticket(request), proof });
        Ok(())
    }

    fn handle_no_data(&mut self, refusal: NoData, local: &dyn Local, now: Instant) -> Result<(), Error> {
        if self.handle_fork_refusal(refusal.request)? {
            return Ok(());
        }
        match self.asking.window.answered(refusal.request, now) {
            Answered::Asked(asked) => {
                self.asking.answered(refusal.request, &asked);
                self.refused(&asked, refusal.reason == REASON_INVALID_REQUEST, local);
            }
            // Not an error if it was not asked: Node refuses its own check for a conflict, too.
            Answered::Late | Answered::Unasked => self.counters.ignored += 1,
        }
        Ok(())
    }

    /// The remote did not answer with what was asked for.
    fn refused(&mut self, asked: &Asked, invalid: bool, local: &dyn Local) {
        self.counters.refused_by_remote += 1;
        self.asking.window.give_up(asked);
        self.telling.touch();
        //= protocol-spec/07-replication.md#forks
        if asked.fork != self.remote.sync.fork {
            // It has left the fork since it was asked, and is not to blame.
            self.asking.reconsider(asked.block.map_or(0..0, |index| index..index + 1));
            return;
        }
        if asked.pushes
            && asked.block.is_none()
            && asked.hash.is_none()
            && asked
                .upgrade
                .is_some_and(|upgrade| upgrade.start.saturating_add(upgrade.length) <= local.length())
        {
            // Pushes have brought it meanwhile.
            return;
        }
        if let Some(index) = asked.block {
            //= protocol-spec/07-replication.md#nodata-4
            // Whatever it said before: it doesn't have it. It fits, as it made no more than one range more.
            if self.remote.have.has(index) {
                self.asking.backoff.refused(index, &self.limits);
            }
            let _ = self.remote.have.remove(index..index + 1, &self.limits);
        }
        self.failed(asked, invalid, local);
    }

    fn failed(&mut self, asked: &Asked, invalid: bool, local: &dyn Local) {
        self.counters.pauses += u64::from(self.asking.backoff.failed(invalid, &self.limits));
        self.asking.failed(asked, local, &self.remote);
    }

    fn is_in_sync(&self, local: &dyn Local) -> bool {
        !self.options.download
            || (self.outputs.is_empty()
                && !self.conflicts.is_suspicious()
                && self.has_followed(local)
                && self.asking.is_in_sync(local, &self.remote))
    }

    fn remote_is_in_sync(&self, local: &dyn Local) -> bool {
        let remote = &self.remote;
        if !remote.synced || !self.serving.is_empty() || !self.push.is_idle() {
            return false;
        }
        let can_get = self.options.upload && remote.sync.downloading && remote.sync.fork == local.fork();
        let has_all = self.compared.done && self.compared.lacks.is_none();
        !can_get || (remote.sync.length >= local.length() && has_all)
    }

    /// Looks for a block that we have and the remote has not, from where it left off.
    fn compare_blocks(&mut self, local: &dyn Local) {
        let Compared { from, lacks, .. } = self.compared;
        let length = local.length();
        let from = self.remote.have.next_gap(lacks.unwrap_or(from));
        self.compared = Compared { from: from.min(length), lacks: None, done: true };
        if from >= length {
            return;
        }
        if local.has(from) {
            self.compared.lacks = Some(from);
            return;
        }
        // Both have gaps.
        let mut start = from;
        while start < length && self.compared.lacks.is_none() {
            let words = local.words(start, SEGMENT.min(length - start));
            let stored = words.iter().flat_map(|(first, words)| runs(*first, words));
            self.compared.lacks = stored
                .filter(|(run, stored)| *stored && run.end > from)
                .map(|(run, _)| (self.remote.have.next_gap(run.start.max(from)), run.end))
                .find_map(|(gap, end)| (gap < end).then_some(gap));
            start = start.saturating_add(SEGMENT);
        }
        self.compared.from = self.compared.lacks.unwrap_or(length);
    }
}
