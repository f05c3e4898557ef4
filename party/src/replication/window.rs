//! Our requests that are on the way.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use super::{
    numbered::Numbered,
    pace::{Pace, Share},
    swarm::{Claimed, Member, Swarm},
};
use crate::{
    feed::proof::{Proof, UpgradeRequest},
    limits::Limits,
};

/// What the first blocks are taken to be, in bytes. It makes the window start small and grow with the first
/// answers.
const FIRST_ESTIMATE: usize = 256 << 10;

/// What one request asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) fork: u64,
    pub(super) block: Option<u64>,
    /// The flat-tree index of a node.
    pub(super) hash: Option<u64>,
    /// A byte offset.
    pub(super) seek: Option<u64>,
    /// The number of what is looked for by that.
    pub(super) sought: Option<u64>,
    pub(super) upgrade: Option<UpgradeRequest>,
    pub(super) manifest: bool,
    /// Asked only for the sake of an answer, whatever it says: what the remote had to say before has come
    /// then.
    pub(super) probe: bool,
    /// The remote sent it without having been asked.
    pub(super) pushed: bool,
    /// We took pushes when we asked, so that an upgrade may begin further on, after what was pushed.
    pub(super) pushes: bool,
    /// Whether it was asked with fewer nodes than we lack, as blocks under way will bring the rest.
    pub(super) leans: bool,
}

impl Asked {
    /// Whether all that is in `proof` was asked for.
    pub(super) fn covers(&self, proof: &Proof) -> bool {
        // A manifest is the same in every fork; Node sends it alone if it can't send the rest.
        let only_manifest = proof.block.is_none() && proof.upgrade.is_none();
        (proof.fork == self.fork || only_manifest)
            && proof.block.as_ref().is_none_or(|block| self.block == Some(block.index))
            && proof.hash.as_ref().is_none_or(|hash| self.hash == Some(hash.index))
            && proof.seek.as_ref().is_none_or(|seek| self.seek == Some(seek.bytes))
            && (proof.manifest.is_none() || self.manifest)
            && proof.upgrade.as_ref().is_none_or(|upgrade| {
                // From 0 if the start lies in a prologue, which is proved as a whole.
                // Further on if there are pushes between.
                self.upgrade.is_some_and(|asked| {
                    upgrade.start == asked.start
                        || upgrade.start == 0
                        || (self.pushes && upgrade.start > asked.start)
                })
            })
    }
}

/// The requests that are not answered yet, and the answers that are not stored yet.
///
/// An id is used once: a peer of hypercore 10 may answer a request long after it was cancelled, and the
/// answer must not be taken for that of another.
#[derive(Debug)]
pub(super) struct Window {
    member: Member,
    share: Share,
    next_id: u64,
    waiting: Numbered<Waiting>,
    storing: Numbered<(Asked, usize)>,
    storing_bytes: usize,
    /// The request for a block, whether waiting or storing.
    blocks: Numbered<u64>,
    /// The request for an upgrade, likewise.
    upgrade: Option<u64>,
    /// Not answered when they were cancelled.
    cancelled: BTreeSet<u64>,
    /// Mean size of the last blocks.
    estimate: usize,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    asked: Asked,
    at: Instant,
    /// The size of the answer, as it was estimated.
    bytes: usize,
}

/// Whether an answer belongs to a request.
pub(super) enum Answered {
    /// To this one.
    Asked(Asked),
    /// To one that was cancelled.
    Late,
    /// To none.
    Unasked,
}

impl Window {
    pub(super) fn new(swarm: &Arc<Swarm>, pace: &Arc<Pace>) -> Self {
        Self {
            member: Member::join(swarm),
            share: Share::of(pace),
            next_id: 1,
            waiting: Numbered::default(),
            storing: Numbered::default(),
            storing_bytes: 0,
            blocks: Numbered::default(),
            upgrade: None,
            cancelled: BTreeSet::new(),
            estimate: FIRST_ESTIMATE,
        }
    }

    /// What the channels of the feed have claimed.
    pub(super) fn claims(&self) -> &Member {
        &self.member
    }

    /// The id that the next request gets.
    //= REPL-18, REPL-50
    pub(super) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Requests that are not answered.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing is on the way and nothing is being stored.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.storing.is_empty()
    }

    /// Whether nothing but a probe is on the way, and nothing is being stored.
    pub(super) fn is_at_rest(&self) -> bool {
        self.storing.is_empty() && self.waiting.iter().all(|(_, waiting)| waiting.asked.probe)
    }

    /// Whether the connection has room for another request.
    pub(super) fn has_room(&self) -> bool {
        self.share.has_room()
    }

    /// Whether so much of this feed is under way, or waits to be stored, that no more is to be asked for.
    //= LIMIT-16
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        self.waiting.len() >= limits.max_inflight_requests
            || self.storing.len() >= limits.max_inflight_requests.saturating_mul(8)
            || self.storing_bytes >= limits.max_unverified_bytes
    }

    /// Claims a block that is to be asked for.
    pub(super) fn claim(&self, index: u64, now: Instant) -> Claimed {
        self.member.claim(index, now, now + self.share.patience())
    }

    /// Claims the growth of the feed.
    pub(super) fn claim_upgrade(&self, now: Instant) -> Claimed {
        self.member.claim_upgrade(now, now + self.share.patience())
    }

    /// When a block may be asked for that another channel has asked for and `is_wanted` says so of.
    pub(super) fn next_overdue(&self, is_wanted: impl Fn(u64) -> bool) -> Option<Instant> {
        self.member.next_overdue(self.share.patience(), is_wanted)
    }

    /// When the growth of the feed may be asked for, if another channel has done so.
    pub(super) fn upgrade_overdue(&self) -> Option<Instant> {
        self.member.upgrade_overdue(self.share.patience())
    }

    /// The remote did not answer in time, and others were asked.
    pub(super) fn overdue(&self, now: Instant) {
        self.share.overdue(now);
    }

    /// Until when the remote isn't asked, after it has not answered in time.
    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.share.paused_until(now)
    }

    /// Claims an offset that is looked for.
    pub(super) fn claim_seek(&self, id: u64, now: Instant) -> Claimed {
        self.member.claim_seek(id, now, now + self.share.patience())
    }

    /// How many levels above block `index` the first node stands that blocks will bring which are under way on this
    /// channel; `missing` if that is not below the first one that is stored here.
    //= FEED-66
    pub(super) fn missing_nodes(&self, index: u64, missing: u64) -> u64 {
        // A block brings every node from its leaf to a stored one, and their siblings. So a node is under way
        // if any block below its parent is.
        let under_way = |level: &u64| {
            let size = 2_u64.checked_shl(u32::try_from(*level).unwrap_or(u32::MAX)).unwrap_or(u64::MAX);
            let start = index / size * size;
            self.blocks.any(start..start.saturating_add(size))
        };
        (0..missing).find(under_way).unwrap_or(missing)
    }

    pub(super) fn block(&self, index: u64) -> bool {
        self.blocks.contains(index)
    }

    pub(super) fn upgrade(&self) -> bool {
        self.upgrade.is_some()
    }

    /// Notes a request; returns its id. What it asks for was claimed.
    pub(super) fn ask(&mut self, asked: Asked, now: Instant) -> u64 {
        //= protocol-spec/07-replication.md#cancel-2
        let id = self.next_id;
        self.next_id += 1;
        if let Some(index) = asked.block {
            self.blocks.insert(index, id);
        }
        if asked.upgrade.is_some() && !asked.probe {
            self.upgrade = Some(id);
        }
        let bytes = if asked.block.is_some() { self.estimate } else { 0 };
        self.share.ask(bytes);
        self.waiting.insert(id, Waiting { asked, at: now, bytes });
        id
    }

    /// An id for a request that is noted elsewhere.
    pub(super) fn reserve(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Takes back the requests that are `void`, and `others` that were noted elsewhere. Returns the ids of all, to be
    /// cancelled. Answers to them come too late.
    //= REPL-83
    pub(super) fn abandon(
        &mut self,
        void: impl Fn(&Asked) -> bool,
        others: Vec<u64>,
        limits: &Limits,
    ) -> Vec<u64> {
        let waiting = self.waiting.iter().filter(|(_, Waiting { asked, .. })| void(asked));
        let mut ids: Vec<u64> = waiting.map(|(id, _)| id).collect();
        for id in &ids {
            if let Some(Waiting { asked, bytes, .. }) = self.waiting.remove(*id) {
                self.share.forget(bytes);
                self.release(*id, &asked);
                self.give_up(&asked);
            }
        }
        ids.extend(others);
        self.cancelled.extend(&ids);
        self.forget_cancelled(limits);
        ids
    }

    /// The remote has answered `id`. The request is over, unless [`store`](Self::store) follows; what it does not
    /// bring is to be [given up](Self::give_up).
    //= REPL-33, REPL-36
    pub(super) fn answered(&mut self, id: u64, now: Instant) -> Answered {
        match self.waiting.remove(id) {
            Some(Waiting { asked, at, bytes }) => {
                self.share.answered(bytes, at, now);
                self.release(id, &asked);
                Answered::Asked(asked)
            }
            None if self.cancelled.remove(&id) => Answered::Late,
            None => Answered::Unasked,
        }
    }

    /// What was asked for does not come: others may ask for it.
    pub(super) fn give_up(&self, asked: &Asked) {
        self.settle(asked, false, false);
    }

    /// Whether something has come and is being verified and stored.
    pub(super) fn is_storing(&self) -> bool {
        !self.storing.is_empty()
    }

    /// Whether the block of a push is being stored already.
    pub(super) fn is_storing_block(&self, index: u64) -> bool {
        self.blocks.get(index).is_some_and(|id| self.storing.contains(*id))
    }

    /// Whether a push of a block of so many bytes fits in beside what is being stored.
    pub(super) fn has_room_for(&self, bytes: usize, limits: &Limits) -> bool {
        self.storing.len() < limits.max_inflight_requests.saturating_mul(8)
            && self.storing_bytes.saturating_add(bytes) <= limits.max_unverified_bytes
    }

    /// A push is being verified and stored; till then it isn't asked for. Returns the id that it bears here: a request for the
    /// same block keeps its own, and waits.
    //= REPL-48
    pub(super) fn store_push(&mut self, asked: Asked, bytes: usize) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.store(id, asked, bytes);
        id
    }

    /// What answered `id` is being verified and stored; till then it isn't asked for again.
    pub(super) fn store(&mut self, id: u64, asked: Asked, bytes: usize) {
        if let Some(index) = asked.block {
            self.blocks.insert(index, id);
            self.estimate = (self.estimate * 7 + bytes) / 8;
        }
        if asked.upgrade.is_some() {
            self.upgrade = Some(id);
        }
        self.storing_bytes = self.storing_bytes.saturating_add(bytes);
        self.storing.insert(id, (asked, bytes));
    }

    /// What answered `id` is stored, or is not going to be. Returns what was asked, and the size of the block.
    /// The claims are [settled](Self::settle) by the caller, who knows what came of it.
    pub(super) fn stored(&mut self, id: u64) -> Option<(Asked, usize)> {
        let (asked, bytes) = self.storing.remove(id)?;
        self.storing_bytes = self.storing_bytes.saturating_sub(bytes);
        self.release(id, &asked);
        Some((asked, bytes))
    }

    /// Ends the claims on what was asked for.
    pub(super) fn settle(&self, asked: &Asked, stored: bool, grown: bool) {
        if let Some(index) = asked.block {
            self.member.release(index, stored);
        }
        if asked.upgrade.is_some() && !asked.probe {
            self.member.release_upgrade(grown);
        }
        if let Some(id) = asked.sought {
            self.member.release_seek(id, stored);
        }
    }

    /// Takes back the requests of blocks that `unwanted` says so of; `stored` says whether they are unwanted
    /// because they are here. Those that ask for more than a block stay. Returns their ids.
    pub(super) fn cancel(
        &mut self,
        unwanted: impl Fn(u64) -> bool,
        stored: bool,
        limits: &Limits,
    ) -> Vec<u64> {
        let ids: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, Waiting { asked, .. })| asked.upgrade.is_none() && !asked.manifest)
            .filter(|(_, Waiting { asked, .. })| asked.block.is_some_and(&unwanted))
            .map(|(id, _)| id)
            .collect();
        for id in &ids {
            if let Some(Waiting { asked, bytes, .. }) = self.waiting.remove(*id) {
                self.share.forget(bytes);
                self.release(*id, &asked);
                self.settle(&asked, stored, false);
            }
            self.cancelled.insert(*id);
        }
        self.forget_cancelled(limits);
        ids
    }

    /// Node does not answer what it read the cancel of in time. Such ids are forgotten when they are old.
    fn forget_cancelled(&mut self, limits: &Limits) {
        while self.cancelled.len() > limits.max_inflight_requests.saturating_mul(4) {
            self.cancelled.pop_first();
        }
    }

    fn release(&mut self, id: u64, asked: &Asked) {
        if let Some(index) = asked.block
            && self.blocks.get(index) == Some(&id)
        {
            self.blocks.remove(index);
        }
        if self.upgrade == Some(id) {
            self.upgrade = None;
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // any time will do to begin with
mod tests {
    use super::*;

    fn block(index: u64) -> Asked {
        Asked { block: Some(index), ..Asked::default() }
    }

    fn window() -> Window {
        Window::new(&Arc::default(), &Arc::new(Pace::new(&Limits::default())))
    }

    #[test]
    fn large_blocks_are_asked_for_by_their_bytes() {
        let limits = Limits::default();
        let (mut window, now) = (window(), Instant::now());
        let mut asked = 0;
        while window.has_room() && !window.is_full(&limits) {
            asked = window.ask(block(asked), now);
        }
        assert_eq!(asked as usize, limits.max_inflight_bytes / FIRST_ESTIMATE);
        for id in 1..=asked {
            let Answered::Asked(asked) = window.answered(id, now) else { panic!("{id} was not asked") };
            window.store(id, asked, 1024);
            assert!(window.stored(id).is_some());
        }
        let before = window.next_id();
        while window.has_room() && !window.is_full(&limits) {
            window.ask(block(window.next_id()), now);
        }
        assert!(window.next_id() - before > asked);
    }

    //= REPL-36, REPL-50
    #[test]
    fn an_answer_to_a_cancelled_request_is_late_once() {
        let (mut window, now) = (window(), Instant::now());
        let id = window.ask(block(7), now);
        assert_eq!(window.cancel(|index| index == 7, false, &Limits::default()), [id]);
        assert!(!window.block(7) && window.is_empty());
        assert!(matches!(window.answered(id, now), Answered::Late));
        assert!(matches!(window.answered(id, now), Answered::Unasked));
        assert_ne!(window.ask(block(7), now), id);
    }

    #[test]
    fn cancelled_requests_that_are_never_answered_are_forgotten() {
        let limits = Limits { max_inflight_requests: 8, ..Limits::default() };
        let mut window = window();
        for index in 0..1000 {
            window.ask(block(index), Instant::now());
            window.cancel(|_| true, false, &limits);
        }
        assert_eq!(window.cancelled.len(), 32);
    }
}
