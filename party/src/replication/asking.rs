//! Our side as a reader: what to ask the remote for, and when.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    sync::Arc,
    time::Instant,
};

use super::{
    backoff::Backoff,
    messages::{Message, Request, Sync, Want},
    pace::Pace,
    picking::{Picking, View},
    remote::Remote,
    seeking::Seeking,
    swarm::{Claimed, Swarm},
    window::{Asked, Window},
};
use crate::{
    feed::{
        local::{Demand, Local},
        proof::{BlockRequest, ProofRequest, UpgradeRequest},
    },
    limits::Limits,
};

/// The blocks of one `want`, as Node asks for them.
pub(super) const SEGMENT: u64 = 1 << 21;
/// Probes after which a remote that has not acknowledged our length is taken not to do so. Node is silent
/// when it can't prove its length from ours; when it can, it reads storage before it says so.
const ACKNOWLEDGE_PROBES: u8 = 3;

/// What we ask for.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) window: Window,
    pub(super) picking: Picking,
    pub(super) seeking: Seeking,
    /// When another channel's claim is overdue that stands in our way.
    wake: Option<Instant>,
    /// Blocks whose proofs led to no node that is stored here, as blocks did not come that they leaned on.
    upright: BTreeSet<u64>,
    /// How many requests may still be made before it is another feed's turn.
    pub(super) allowance: usize,
    /// Whether there was something to ask for and no allowance or no room on the connection.
    pub(super) hungry: bool,
    /// Segments that the remote was asked to tell about.
    wanted: BTreeMap<u64, Wanted>,
    /// Ids of requests to cancel.
    cancels: VecDeque<u64>,
    /// Our length and the remote's, between which it would not prove the growth.
    refused_upgrade: Option<(u64, u64)>,
    /// The same, of a growth that it would not prove beside a block, which may have been all that it minded.
    lone_upgrade: Option<(u64, u64)>,
    refused_manifest: bool,
    /// Probes answered since our sync told of another length.
    probes: u8,
    /// Requests that others were asked for, as no answer came in time.
    pub(super) overdue: u64,
    pub(super) backoff: Backoff,
    /// Whether we take pushes.
    pub(super) pushes: bool,
    /// Whether it goes on when both sides are in sync.
    live: bool,
    /// [`Local::deletions`] as we have last seen them.
    deletions: u64,
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// The first request after the want. Its answer comes after what the remote had to say to the want.
    before: u64,
    answered: bool,
}

impl Asking {
    pub(super) fn new(live: bool, swarm: &Arc<Swarm>, pace: &Arc<Pace>) -> Self {
        Self {
            window: Window::new(swarm, pace),
            picking: Picking::default(),
            seeking: Seeking::default(),
            wake: None,
            upright: BTreeSet::new(),
            allowance: usize::MAX,
            hungry: false,
            wanted: BTreeMap::new(),
            cancels: VecDeque::new(),
            refused_upgrade: None,
            lone_upgrade: None,
            refused_manifest: false,
            probes: 0,
            overdue: 0,
            backoff: Backoff::default(),
            pushes: false,
            live,
            deletions: 0,
        }
    }

    /// The blocks of `range` are to be looked at again.
    pub(super) fn reconsider(&mut self, range: Range<u64>) {
        self.picking.reconsider(range);
    }

    /// Sets what is wanted. Returns whether that is a change.
    pub(super) fn set_demand(&mut self, demand: Demand, limits: &Limits) -> bool {
        let changes = self.picking.set_demand(demand);
        if changes {
            let demand = &self.picking.demand;
            self.cancels.extend(self.window.cancel(|index| !demand.wants(index), false, limits));
        }
        changes
    }

    /// Takes back what is stored here meanwhile, and looks again for what isn't any more.
    pub(super) fn handle_local_change(&mut self, local: &dyn Local, limits: &Limits) {
        let deletions = local.deletions();
        if std::mem::replace(&mut self.deletions, deletions) != deletions {
            self.reconsider(0..u64::MAX);
        }
        self.cancels.extend(self.window.cancel(|index| local.has(index), true, limits));
    }

    /// We are on `fork` now. What was asked for in another is void, and so are the requests `void`; what the remote would
    /// not prove then, it may now.
    //= REPL-76
    pub(super) fn fork_changed(&mut self, fork: u64, void: Vec<u64>, limits: &Limits) {
        let void = self.window.abandon(|asked| asked.fork != fork, void, limits);
        self.cancels.extend(void);
        self.refused_upgrade = None;
        // Node refuses what was asked in the old fork before it says that it has left that. Only the signers can make
        // another, so this can't be had without end.
        self.backoff.forgive();
        self.probes = 0;
        self.reconsider(0..u64::MAX);
    }

    /// Takes back all requests. Others may be asked for what this remote was to bring.
    pub(super) fn abandon(&mut self, limits: &Limits) {
        let void = self.window.abandon(|_| true, Vec::new(), limits);
        self.cancels.extend(void);
    }

    /// A want of blocks of which the remote has not told, if there are any.
    pub(super) fn want_of(
        &mut self,
        blocks: Range<u64>,
        remote: &Remote,
        limits: &Limits,
    ) -> Option<Message> {
        let segment = untold(blocks, remote, |segment| self.wanted.contains_key(&segment))?;
        if self.wanted.len() >= limits.max_remote_wants {
            return None;
        }
        self.wanted.insert(segment, Wanted { before: self.window.next_id(), answered: false });
        Some(Message::Want(Want { start: segment * SEGMENT, length: SEGMENT, any: false }))
    }

    /// Whether the remote has told what it has of `blocks`.
    pub(super) fn is_told_of(&self, blocks: Range<u64>, remote: &Remote) -> bool {
        let is_told = |segment| self.wanted.get(&segment).is_some_and(|wanted: &Wanted| wanted.answered);
        untold(blocks, remote, is_told).is_none()
    }

    /// The remote's sync was another before.
    //= REPL-14
    pub(super) fn handle_sync(&mut self, before: &Sync, local: &dyn Local, remote: &Remote, limits: &Limits) {
        let now = &remote.sync;
        if (now.fork, now.length) != (before.fork, before.length) {
            self.seeking.synced();
        }
        if now.fork < before.fork {
            // No feed goes back. Who pretends it does could refuse without end.
            self.backoff.failed(false, limits);
        }
        if now.fork != before.fork || (now.length > before.length && before.length < local.length()) {
            // What it could not prove, it may now.
            self.reconsider(0..u64::MAX);
        }
    }

    /// Our sync has told the remote of another length. One that says anything else doesn't count: what the remote has not
    /// acknowledged after all probes, it is not asked for again, or the two would never be done.
    pub(super) fn length_told(&mut self) {
        self.probes = 0;
    }

    /// The remote has told what it has of `range`.
    pub(super) fn told(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.seeking.told(&range);
        for (_, wanted) in self.wanted.range_mut(range.start / SEGMENT..=(range.end - 1) / SEGMENT) {
            wanted.answered = true;
        }
    }

    /// The remote has answered request `id`.
    pub(super) fn answered(&mut self, id: u64, asked: &Asked) {
        for wanted in self.wanted.values_mut().filter(|wanted| wanted.before <= id) {
            wanted.answered = true;
        }
        if asked.probe {
            self.probes = self.probes.saturating_add(1);
        }
    }

    /// The block's proof led to no node that is known here. It is asked for again with all nodes that we lack.
    pub(super) fn unconnected(&mut self, index: u64, limits: &Limits) {
        self.upright.insert(index);
        while self.upright.len() > limits.max_inflight_requests {
            self.upright.pop_first();
        }
        self.reconsider(index..index + 1);
    }

    /// When [`poll`](Self::poll) may have more to say.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.wake, self.backoff.poll_timeout())
    }

    /// Asks again for what was refused, if it is time to.
    pub(super) fn retry(&mut self, remote: &mut Remote, limits: &Limits, now: Instant) {
        let Some(refused) = self.backoff.poll(now, limits) else { return };
        (self.refused_upgrade, self.refused_manifest) = (None, false);
        self.seeking.synced();
        for range in refused {
            // If there are too many ranges, it stays as it is.
            if remote.have.insert(range.clone(), limits).is_ok() {
                self.reconsider(range);
            }
        }
    }

    /// The request was not answered with what it asked for.
    pub(super) fn failed(&mut self, asked: &Asked, local: &dyn Local, remote: &Remote) {
        if let Some(upgrade) = asked.upgrade {
            let target = upgrade.start.saturating_add(upgrade.length);
            if !asked.probe && upgrade.start == local.length() && target == remote.sync.length {
                let growth = Some((upgrade.start, target));
                if asked.block.is_some() && self.lone_upgrade != growth {
                    self.lone_upgrade = growth;
                } else {
                    self.refused_upgrade = growth;
                }
            }
        }
        self.refused_manifest |= asked.manifest && asked.block.is_none() && asked.upgrade.is_none();
    }

    /// The next message: a cancel, a want or a request.
    pub(super) fn poll(
        &mut self,
        local: &dyn Local,
        remote: &Remote,
        limits: &Limits,
        now: Instant,
    ) -> Option<Message> {
        let lost = self.window.claims().take_lost();
        if !lost.blocks.is_empty() {
            self.cancels.extend(self.window.cancel(|index| lost.blocks.contains(&index), false, limits));
            // Who asks for them now may go before they come.
            self.picking.pass(lost.blocks);
        }
        if lost.overdue > 0 {
            self.overdue = self.overdue.saturating_add(lost.overdue);
            self.window.overdue(now);
        }
        if let Some(request) = self.cancels.pop_front() {
            return Some(Message::Cancel { request });
        }
        self.hungry = false;
        if !self.may_ask(local, remote) {
            return None;
        }
        if let Some(want) = self.next_want(local, remote, limits) {
            return Some(want);
        }
        if let Some((want, wants)) = self.seeking.next_want(local, remote) {
            return Some(if wants { Message::Want(want) } else { Message::Unwant(want) });
        }
        if let Some(until) = self.window.paused_until(now) {
            self.wake = earliest(self.wake, Some(until));
            return None;
        }
        if self.window.is_full(limits) {
            // What is being stored makes room.
            return None;
        }
        if self.allowance == 0 || !self.window.has_room() {
            self.hungry = true;
            return None;
        }
        let (asked, proof) = self.next_proof(local, remote, now)?;
        let asked = Asked { pushes: self.pushes, ..asked };
        self.allowance -= 1;
        let id = self.window.ask(asked, now);
        //= protocol-spec/07-replication.md#request-1-and-data-3
        // Somebody waits for it, while the rest of the window is to come some time.
        let urgent = asked.block.is_some_and(|index| self.picking.demand.urgent().contains(index));
        let priority = (urgent || asked.sought.is_some()).into();
        Some(Message::Request(Request { id, fork: asked.fork, proof, priority }))
    }

    /// Takes up again what was left to other channels, if one of them has given something back or taken too long.
    pub(super) fn look_again(&mut self, now: Instant) {
        let is_due = self.wake.is_some_and(|wake| wake <= now);
        if self.picking.look_again(self.window.claims().released(), is_due) {
            self.wake = None;
        }
    }

    //= protocol-spec/07-replication.md#the-end-of-a-replication
    /// Whether there is nothing more to get from this remote: of what is demanded, of what it has.
    //= REPL-98
    pub(super) fn is_in_sync(&self, local: &dyn Local, remote: &Remote) -> bool {
        if !remote.synced || !self.window.is_at_rest() {
            return false;
        }
        if !self.may_ask(local, remote) {
            return true;
        }
        if self.grows(local, remote)
            || self.seeking.is_open(local, remote)
            || self.wants_manifest(local, remote)
            || !self.is_told_of_all(local, remote)
        {
            return false;
        }
        let end = remote.sync.length.min(local.length());
        !self.picking.is_open(end, View { local, remote, window: &self.window })
    }

    /// Whether it is still to be found out if the remote makes our feed longer, of one that has said how it stands.
    pub(super) fn is_growing(&self, local: &dyn Local, remote: &Remote) -> bool {
        self.may_ask(local, remote) && (self.window.upgrade() || self.grows(local, remote))
    }

    fn grows(&self, local: &dyn Local, remote: &Remote) -> bool {
        if remote.acknowledges(local) {
            self.next_upgrade(local, remote).is_some()
        } else {
            remote.sync.length > local.length() && (self.live || self.probes < ACKNOWLEDGE_PROBES)
        }
    }

    fn may_ask(&self, local: &dyn Local, remote: &Remote) -> bool {
        remote.synced
            && remote.sync.uploading
            && remote.sync.fork == local.fork()
            && !self.backoff.is_paused()
    }

    fn next_proof(
        &mut self,
        local: &dyn Local,
        remote: &Remote,
        now: Instant,
    ) -> Option<(Asked, ProofRequest)> {
        // Seeks first, as they cost little and somebody waits; but an upgrade may be what they need.
        if self.next_upgrade(local, remote).is_none()
            && let Some((asked, hash, seek)) =
                self.seeking.next(local, remote, &self.window, now, &mut self.wake)
        {
            return Some((asked, ProofRequest { hash: Some(hash), seek, ..ProofRequest::default() }));
        }
        let (mut asked, nodes) = self.next_request(local, remote, now)?;
        // Not beside a block: then both would have to be in what the upgrade brings.
        let seek = match asked.upgrade {
            Some(_) if asked.block.is_none() && !asked.probe => self.seeking.beyond(local, remote),
            _ => None,
        };
        asked.seek = seek.map(|seek| seek.bytes);
        let proof = ProofRequest {
            block: asked.block.map(|index| BlockRequest { index, nodes }),
            hash: None,
            seek,
            upgrade: asked.upgrade,
            manifest: asked.manifest,
        };
        Some((asked, proof))
    }

    //= REPL-19, REPL-20
    fn next_request(&mut self, local: &dyn Local, remote: &Remote, now: Instant) -> Option<(Asked, u64)> {
        let wants_manifest = self.wants_manifest(local, remote);
        let asked = Asked { fork: remote.sync.fork, manifest: wants_manifest, ..Asked::default() };
        if let Some(upgrade) = self.next_upgrade(local, remote) {
            if self.window.claim_upgrade(now) == Claimed::Others {
                self.wake = earliest(self.wake, self.window.upgrade_overdue());
            } else {
                // A block beyond our length comes with the upgrade; the place of others in the tree isn't
                // known before.
                let beyond = local.length()..remote.sync.length;
                let view = View { local, remote, window: &self.window };
                let block = match self.lone_upgrade {
                    Some(growth) if growth == (upgrade.start, beyond.end) => None,
                    _ => self.picking.next_beyond(beyond, view, now),
                };
                return Some((Asked { upgrade: Some(upgrade), block, ..asked }, 0));
            }
        }
        if wants_manifest && remote.sync.length == 0 && self.window.is_empty() {
            return Some((asked, 0));
        }
        if let Some(index) = self.next_block(local, remote, now) {
            let missing = local.missing_nodes(index);
            let nodes = match self.upright.remove(&index) {
                true => missing,
                false => self.window.missing_nodes(index, missing),
            };
            return Some((Asked { block: Some(index), leans: nodes < missing, ..asked }, nodes));
        }
        self.next_probe(local, remote)
    }

    /// Whether to ask for the manifest with whatever is asked for: answers may overtake each other, and none
    /// can be verified without.
    //= REPL-22
    fn wants_manifest(&self, local: &dyn Local, remote: &Remote) -> bool {
        local.needs_manifest() && remote.sync.has_manifest && !self.refused_manifest
    }

    fn next_upgrade(&self, local: &dyn Local, remote: &Remote) -> Option<UpgradeRequest> {
        let (start, end) = (local.length(), remote.sync.length);
        let possible = end > start
            && remote.sync.can_upgrade
            && remote.acknowledges(local)
            && !self.window.upgrade()
            && self.refused_upgrade != Some((start, end));
        possible.then(|| UpgradeRequest { start, length: end - start })
    }

    /// Claims the block to ask for next.
    fn next_block(&mut self, local: &dyn Local, remote: &Remote, now: Instant) -> Option<u64> {
        let end = remote.sync.length.min(local.length());
        let block = self.picking.next(end, View { local, remote, window: &self.window }, now);
        if block.is_none() && self.wake.is_none() {
            self.wake = self.picking.next_overdue(&self.window, now);
        }
        block
    }

    /// Whether the remote has told of every block that it might have and that we want.
    fn is_told_of_all(&self, local: &dyn Local, remote: &Remote) -> bool {
        self.next_unknown(0, local, remote, |wanted| wanted.answered).is_none()
    }

    /// The first segment, from block `from` on, in which we want a block that the remote is not known to
    /// have, and of which `passes` isn't true.
    fn next_unknown(
        &self,
        mut from: u64,
        local: &dyn Local,
        remote: &Remote,
        passes: impl Fn(&Wanted) -> bool,
    ) -> Option<u64> {
        let end = remote.sync.length;
        loop {
            let index = self.picking.demand.next_missing(local, from, end)?;
            let segment = index / SEGMENT;
            from = if self.wanted.get(&segment).is_some_and(&passes) {
                (segment + 1) * SEGMENT
            } else if remote.have.has(index) {
                remote.have.next_gap(index)
            } else {
                return Some(segment);
            };
        }
    }

    fn next_want(&mut self, local: &dyn Local, remote: &Remote, limits: &Limits) -> Option<Message> {
        let segment = self.next_unknown(0, local, remote, |_| true)?;
        let window = |segment: u64| Want { start: segment * SEGMENT, length: SEGMENT, any: false };
        if self.wanted.len() >= limits.max_remote_wants {
            // The remote keeps so many and no more. One that we have everything of makes room.
            let done = self.wanted.keys().copied().find(|done| {
                let range = done * SEGMENT..(done + 1) * SEGMENT;
                self.picking
                    .demand
                    .next_missing(local, range.start, range.end.min(remote.sync.length))
                    .is_none()
            })?;
            self.wanted.remove(&done);
            return Some(Message::Unwant(window(done)));
        }
        self.wanted.insert(segment, Wanted { before: self.window.next_id(), answered: false });
        Some(Message::Want(window(segment)))
    }

    /// A request only for its answer, if we wait for something that the remote may have nothing to say to:
    /// Node doesn't answer a `want` of a segment in which it has nothing.
    fn next_probe(&self, local: &dyn Local, remote: &Remote) -> Option<(Asked, u64)> {
        let awaits_length = !self.live
            && remote.sync.length > local.length()
            && !remote.acknowledges(local)
            && self.probes < ACKNOWLEDGE_PROBES;
        let waits = awaits_length || !self.is_told_of_all(local, remote);
        if !waits || remote.sync.length == 0 || !self.window.is_empty() {
            return None;
        }
        // Every side that has a length can prove it from 0.
        let upgrade = UpgradeRequest { start: 0, length: remote.sync.length };
        let fork = remote.sync.fork;
        Some((Asked { fork, upgrade: Some(upgrade), probe: true, ..Asked::default() }, 0))
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}

/// The first segment of `blocks` in which the remote may have a block that it has not told of. `passes` says that it was
/// asked, of one segment; there are at most so many as there are wants.
fn untold(blocks: Range<u64>, remote: &Remote, passes: impl Fn(u64) -> bool) -> Option<u64> {
    let end = blocks.end.min(remote.sync.length);
    let mut from = remote.have.next_gap(blocks.start);
    while from < end {
        let segment = from / SEGMENT;
        if !passes(segment) {
            return Some(segment);
        }
        from = remote.have.next_gap((segment + 1).saturating_mul(SEGMENT));
    }
    None
}
