//! Our side as a reader whose remote is on a higher fork: what to ask for to get there.
//!
//! First the signed tree of the new fork, and then, where it differs from ours, the hashes that show how many
//! blocks the two have in common. The feed verifies the answers, of all remotes together, and says through
//! [`Local::reorg`] what it wants next. Nothing is asked for that is about the old fork.
//!
//! See `protocol-spec/07-replication.md#forks` and hypercore's `_updateFork` and `_requestForkRange`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Instant,
};

use super::{
    asking::{Asking, SEGMENT},
    messages::{Message, Request},
    remote::Remote,
};
use crate::{
    error::PeerMisbehaved,
    feed::{
        local::Local,
        proof::{Proof, ProofRequest, UpgradeRequest},
        reorg::{PendingReorg, ReorgWant},
    },
    limits::Limits,
};

/// Ways up through the new tree that are asked for at a time. Each shows all that is beside it, so few of them
/// lead far down.
const PATHS: usize = 4;
/// How often a reorg that was lost is begun anew with one remote.
const MAX_BEGINNINGS: u8 = 8;

/// What we ask for of a remote on a higher fork.
#[derive(Debug, Default)]
pub(super) struct Forks {
    /// Requests that are not answered.
    waiting: BTreeMap<u64, Wanted>,
    /// Answers that are not verified.
    working: BTreeMap<u64, Wanted>,
    /// What was wanted when something was last asked for, and the blocks that the way was asked for from.
    want: Option<(u64, ReorgWant)>,
    tried: BTreeSet<u64>,
    /// The fork and length of the remote's that it would not prove.
    refused: Option<(u64, u64)>,
    /// Proofs of the fork that this remote has begun with.
    beginnings: (u64, u8),
    /// The remote can't show what is wanted.
    stuck: Option<Stuck>,
    /// What was given up and is not done with.
    forgoing: Option<u64>,
}

/// How long others may try what this remote can't show.
#[derive(Clone, Copy, Debug)]
struct Stuck {
    until: Instant,
    is_over: bool,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    fork: u64,
    manifest: bool,
    /// The block that the way up is asked for from; `None` for the signed tree.
    block: Option<u64>,
}

impl Wanted {
    /// Whether a proof is what this asked for, all of it and nothing else; `None` if it is nothing of it.
    fn is_answered(&self, proof: &Proof) -> Result<bool, PeerMisbehaved> {
        let beside = proof.block.is_some()
            || proof.seek.is_some()
            || proof.manifest.is_some() && !self.manifest
            || if self.block.is_some() { proof.upgrade.is_some() } else { proof.hash.is_some() };
        let answer = match self.block {
            Some(block) => proof.hash.as_ref().map(|hash| Some(hash.index) == block.checked_mul(2)),
            None => proof.upgrade.as_ref().map(|upgrade| upgrade.start == 0),
        };
        match answer {
            Some(true) if !beside && proof.fork == self.fork => Ok(true),
            // The manifest alone, of whatever fork, if the rest can't be had.
            None if !beside => Ok(false),
            _ => Err(PeerMisbehaved::UnrequestedData),
        }
    }
}

impl Forks {
    /// Whether the remote has a fork to which we may follow it. One that is empty can't be proved.
    //= REPL-78
    pub(super) fn leads(&self, local: &dyn Local, remote: &Remote) -> bool {
        let sync = &remote.sync;
        remote.synced && sync.uploading && sync.fork > local.fork() && sync.length > 0
    }

    /// The next message on the way to the remote's fork.
    //= protocol-spec/07-replication.md#forks
    pub(super) fn poll(
        &mut self,
        local: &dyn Local,
        remote: &Remote,
        asking: &mut Asking,
        limits: &Limits,
    ) -> Option<Message> {
        if !self.leads(local, remote) || asking.backoff.is_paused() {
            return None;
        }
        let fork = remote.sync.fork;
        let Some(pending) = local.reorg(fork) else { return self.begin(local, remote, asking) };
        if self.want.as_ref().is_none_or(|(fork, want)| *fork != pending.fork || *want != pending.want) {
            self.want = Some((fork, pending.want.clone()));
            self.tried.clear();
            self.stuck = None;
        }
        if self.waiting.len() + self.working.len() >= PATHS {
            return None;
        }
        if let Some(block) = self.next_block(pending, remote) {
            self.tried.insert(block);
            self.stuck = None;
            let proof = pending.want.request(block);
            return Some(self.ask(Wanted { fork, manifest: false, block: Some(block) }, proof, asking));
        }
        if !self.is_idle() {
            return None;
        }
        let blocks = pending.want.blocks();
        if let Some(want) = asking.want_of(blocks.clone(), remote, limits) {
            return Some(want);
        }
        // Node says nothing to a want if it has nothing, so we ask for something that it does answer.
        if !asking.is_told_of(blocks, remote) {
            return Some(self.ask_for_tree(local, remote, asking));
        }
        None
    }

    /// Notices that time has passed.
    pub(super) fn look_again(&mut self, now: Instant) {
        if let Some(stuck) = &mut self.stuck {
            stuck.is_over |= stuck.until <= now;
        }
    }

    /// When [`poll_forgo`](Self::poll_forgo) may have something to say.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.stuck.filter(|stuck| !stuck.is_over).map(|stuck| stuck.until)
    }

    /// What is to be given up, as the remote has nothing more that could show it. Where blocks are stored here that may
    /// have to go for it, other remotes get some time to show that they may stay.
    //= protocol-spec/07-replication.md#forks
    pub(super) fn poll_forgo(
        &mut self,
        local: &dyn Local,
        remote: &Remote,
        asking: &mut Asking,
        limits: &Limits,
        now: Instant,
    ) -> Option<(u64, PendingReorg)> {
        let pending = local.reorg(remote.sync.fork).filter(|_| self.leads(local, remote));
        let Some(pending) = pending.filter(|pending| self.can_not_show(pending, remote, asking)) else {
            self.stuck = None;
            return None;
        };
        if self.stuck.is_none() && holds_any(local, pending.want.blocks()) {
            self.stuck = Some(Stuck { until: now.checked_add(limits.retry_after)?, is_over: false });
        }
        if self.stuck.is_some_and(|stuck| !stuck.is_over) {
            return None;
        }
        self.stuck = None;
        let id = asking.window.reserve();
        self.forgoing = Some(id);
        Some((id, pending.clone()))
    }

    /// Whether everything was tried with the remote, of what could show what is wanted.
    //= REPL-81
    fn can_not_show(&self, pending: &PendingReorg, remote: &Remote, asking: &Asking) -> bool {
        let is_asked =
            self.want.as_ref().is_some_and(|(fork, want)| *fork == pending.fork && *want == pending.want);
        is_asked
            && self.is_idle()
            && self.next_block(pending, remote).is_none()
            && asking.is_told_of(pending.want.blocks(), remote)
    }

    fn begin(&mut self, local: &dyn Local, remote: &Remote, asking: &mut Asking) -> Option<Message> {
        let sync = &remote.sync;
        if !self.is_idle() || self.refused == Some((sync.fork, sync.length)) {
            return None;
        }
        if self.beginnings.0 != sync.fork {
            self.beginnings = (sync.fork, 0);
        }
        if self.beginnings.1 >= MAX_BEGINNINGS {
            return None;
        }
        self.beginnings.1 += 1;
        Some(self.ask_for_tree(local, remote, asking))
    }

    //= REPL-19, REPL-77
    fn ask_for_tree(&mut self, local: &dyn Local, remote: &Remote, asking: &mut Asking) -> Message {
        let manifest = local.needs_manifest() && remote.sync.has_manifest;
        let upgrade = Some(UpgradeRequest { start: 0, length: remote.sync.length });
        let proof = ProofRequest { upgrade, manifest, ..ProofRequest::default() };
        self.ask(Wanted { fork: remote.sync.fork, manifest, block: None }, proof, asking)
    }

    fn ask(&mut self, wanted: Wanted, proof: ProofRequest, asking: &mut Asking) -> Message {
        let id = asking.window.reserve();
        self.waiting.insert(id, wanted);
        Message::Request(Request { id, fork: wanted.fork, proof, priority: 0 })
    }

    /// A block that the remote has and from which the way up was not asked for. They lie apart, as nobody knows
    /// where the trees part.
    //= REPL-80
    fn next_block(&self, pending: &PendingReorg, remote: &Remote) -> Option<u64> {
        let blocks = pending.want.blocks();
        let end = blocks.end.min(remote.sync.length);
        let step = (end.saturating_sub(blocks.start) / PATHS as u64).max(1);
        (0..PATHS as u64).find_map(|n| {
            let mut from = blocks.start.saturating_add(n.saturating_mul(step));
            // What was tried and is still wanted was refused.
            for _ in 0..=self.tried.len() {
                let block = remote.have.next(from).filter(|block| *block < end)?;
                if !self.tried.contains(&block) {
                    return Some(block).filter(|block| pending.want.reaches(*block) <= remote.sync.length);
                }
                from = block.saturating_add(1);
            }
            None
        })
    }

    /// The remote has answered a request with `proof`. `None` if it is none of ours; else whether it is to be verified.
    ///
    /// # Errors
    /// [`PeerMisbehaved::UnrequestedData`].
    pub(super) fn answered(
        &mut self,
        id: u64,
        proof: &Proof,
        remote: &Remote,
    ) -> Option<Result<bool, PeerMisbehaved>> {
        let wanted = self.waiting.remove(&id)?;
        let answered = wanted.is_answered(proof);
        match answered {
            Ok(true) => drop(self.working.insert(id, wanted)),
            Ok(false) => self.refuse(wanted, remote),
            Err(_) => {}
        }
        Some(answered)
    }

    /// The remote has refused a request. Returns whether it is one of ours.
    pub(super) fn refused(&mut self, id: u64, remote: &Remote) -> bool {
        let Some(wanted) = self.waiting.remove(&id) else { return false };
        self.refuse(wanted, remote);
        true
    }

    fn refuse(&mut self, wanted: Wanted, remote: &Remote) {
        // What it can't prove is that fork; when it has gone to another meanwhile, that one may be asked for.
        if wanted.block.is_none() && wanted.fork == remote.sync.fork {
            self.refused = Some((wanted.fork, remote.sync.length));
        }
    }

    /// What answered `id` was verified. Returns whether it was one of ours.
    pub(super) fn worked(&mut self, id: u64) -> bool {
        self.forgoing.take_if(|forgoing| *forgoing == id).is_some() || self.working.remove(&id).is_some()
    }

    /// Our fork is another: nothing that was asked for is of use. Gives the ids of what was not answered.
    pub(super) fn reset(&mut self) -> Vec<u64> {
        let Self { waiting, working, forgoing, .. } = std::mem::take(self);
        (self.working, self.forgoing) = (working, forgoing);
        waiting.into_keys().collect()
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.working.is_empty() && self.forgoing.is_none()
    }

    /// Requests that are not answered.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is nothing more to get from this remote on the way to its fork.
    pub(super) fn is_at_rest(&self, local: &dyn Local, remote: &Remote) -> bool {
        if !self.is_idle() {
            return false;
        }
        if !self.leads(local, remote) {
            return true;
        }
        match local.reorg(remote.sync.fork) {
            None => {
                let (fork, times) = self.beginnings;
                self.refused == Some((remote.sync.fork, remote.sync.length))
                    || fork == remote.sync.fork && times >= MAX_BEGINNINGS
            }
            // What can't be shown is given up in time.
            Some(_) => false,
        }
    }
}

/// Whether any of the blocks is stored here.
fn holds_any(local: &dyn Local, mut blocks: Range<u64>) -> bool {
    while blocks.start < blocks.end {
        let length = SEGMENT.min(blocks.end - blocks.start);
        if local.words(blocks.start, length).iter().any(|(_, words)| words.iter().any(|word| *word != 0)) {
            return true;
        }
        blocks.start += length;
    }
    false
}
