//! What the channels of one feed share: which of them has asked for what.
//!
//! A block is asked of one peer at a time. Who asks for it claims it here; the others pass over it, until it is
//! stored, given back, or asked for so long ago that somebody else may try.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{have::SharedHave, numbered::Numbered};

/// Shared by the [`Channel`](super::Channel)s of one feed, one for each peer that it is replicated with.
///
/// ```
/// use std::sync::Arc;
/// use party::replication::Swarm;
///
/// let swarm = Arc::new(Swarm::default());
/// assert_eq!(swarm.claims(), 0); // nobody has asked for anything
/// ```
#[derive(Debug, Default)]
pub struct Swarm {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next_member: u64,
    members: usize,
    /// By member: what its remote has.
    haves: BTreeMap<u64, SharedHave>,
    /// Grows when a member comes or goes.
    roster: u64,
    blocks: Numbered<Claim>,
    upgrade: Option<Claim>,
    /// By the number of the byte offset that is looked for.
    seeks: BTreeMap<u64, Claim>,
    /// By member: what was claimed over it, which it has not heard of.
    lost: BTreeMap<u64, Lost>,
    /// Grows when a claim ends without the block: who passed over it looks again.
    released: u64,
    /// Whether others than the one who caused it have not been told of that.
    news: bool,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    member: u64,
    since: Instant,
    /// From when on anybody else may ask.
    overdue: Instant,
}

impl Claim {
    /// From when on somebody may ask who gets answers within `patience`. Who is quicker need not wait as long as
    /// the slow one takes.
    fn free_for(&self, patience: Duration) -> Instant {
        self.since.checked_add(patience).map_or(self.overdue, |end| end.min(self.overdue))
    }
}

/// What a member had claimed and others ask for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) blocks: Vec<u64>,
    /// How many claims, with that of the growth, were overdue by its own measure.
    pub(super) overdue: u64,
}

/// What became of a wish to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claimed {
    /// It is ours to ask.
    Ours,
    /// Another channel has asked, and may be waited for.
    Others,
}

impl Swarm {
    /// How many blocks are being asked for, by all channels together.
    pub fn claims(&self) -> usize {
        self.inner().blocks.len()
    }

    /// Whether a claim has ended without its block since the last call, so that the feed's other channels have
    /// to look again. They are told by a change of the feed.
    pub fn take_news(&self) -> bool {
        let mut inner = self.inner();
        std::mem::take(&mut inner.news) && inner.members > 1
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One channel's part in a swarm. What it has claimed is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Member {
    swarm: Arc<Swarm>,
    number: u64,
}

impl Member {
    pub(super) fn join(swarm: &Arc<Swarm>) -> Self {
        let mut inner = swarm.inner();
        let number = inner.next_member;
        inner.next_member += 1;
        inner.members += 1;
        inner.roster += 1;
        drop(inner);
        Self { swarm: Arc::clone(swarm), number }
    }

    /// Lets the others see what the remote has.
    pub(super) fn share(&self, have: &SharedHave) {
        self.swarm.inner().haves.insert(self.number, have.clone());
    }

    /// What the remotes of the others have.
    pub(super) fn others(&self) -> Vec<SharedHave> {
        let inner = self.swarm.inner();
        inner
            .haves
            .iter()
            .filter(|(number, _)| **number != self.number)
            .map(|(_, have)| have.clone())
            .collect()
    }

    /// Changes when a member comes or goes.
    pub(super) fn roster(&self) -> u64 {
        self.swarm.inner().roster
    }

    /// Claims a block that is going to be asked for, to be waited for until `overdue`.
    pub(super) fn claim(&self, index: u64, now: Instant, overdue: Instant) -> Claimed {
        let mut inner = self.swarm.inner();
        let claim = Claim { member: self.number, since: now, overdue };
        let patience = overdue.saturating_duration_since(now);
        let before = inner.blocks.get(index).copied().filter(|before| before.member != self.number);
        if before.is_some_and(|before| before.free_for(patience) > now) {
            return Claimed::Others;
        }
        inner.blocks.insert(index, claim);
        if let Some(before) = before {
            let lost = inner.lost.entry(before.member).or_default();
            lost.blocks.push(index);
            lost.overdue += u64::from(before.overdue <= now);
            inner.news = true;
        }
        Claimed::Ours
    }

    /// Gives a block back: it is stored, or is not going to come from here.
    pub(super) fn release(&self, index: u64, stored: bool) {
        let mut inner = self.swarm.inner();
        if inner.blocks.get(index).is_some_and(|claim| claim.member == self.number) {
            inner.blocks.remove(index);
            if !stored {
                inner.released += 1;
                inner.news = true;
            }
        }
    }

    /// Claims the growth of the feed. One channel at a time asks for it.
    pub(super) fn claim_upgrade(&self, now: Instant, overdue: Instant) -> Claimed {
        let mut inner = self.swarm.inner();
        let patience = overdue.saturating_duration_since(now);
        let before = inner.upgrade.filter(|claim| claim.member != self.number);
        if before.is_some_and(|claim| claim.free_for(patience) > now) {
            return Claimed::Others;
        }
        if let Some(before) = before {
            inner.lost.entry(before.member).or_default().overdue += u64::from(before.overdue <= now);
            inner.news = true;
        }
        inner.upgrade = Some(Claim { member: self.number, since: now, overdue });
        Claimed::Ours
    }

    /// Gives the growth of the feed back.
    pub(super) fn release_upgrade(&self, grown: bool) {
        let mut inner = self.swarm.inner();
        if inner.upgrade.is_some_and(|claim| claim.member == self.number) {
            inner.upgrade = None;
            if !grown {
                inner.released += 1;
                inner.news = true;
            }
        }
    }

    /// Claims a byte offset that is looked for.
    pub(super) fn claim_seek(&self, id: u64, now: Instant, overdue: Instant) -> Claimed {
        let mut inner = self.swarm.inner();
        if inner.seeks.get(&id).is_some_and(|claim| claim.member != self.number && claim.overdue > now) {
            return Claimed::Others;
        }
        inner.seeks.insert(id, Claim { member: self.number, since: now, overdue });
        Claimed::Ours
    }

    /// Gives the offset back; `closer` if something was learned.
    pub(super) fn release_seek(&self, id: u64, closer: bool) {
        let mut inner = self.swarm.inner();
        if inner.seeks.get(&id).is_some_and(|claim| claim.member == self.number) {
            inner.seeks.remove(&id);
            if !closer {
                inner.released += 1;
                inner.news = true;
            }
        }
    }

    /// When the offset may be asked for, if another channel has done so.
    pub(super) fn seek_overdue(&self, id: u64) -> Option<Instant> {
        let inner = self.swarm.inner();
        inner.seeks.get(&id).filter(|claim| claim.member != self.number).map(|claim| claim.overdue)
    }

    /// When the growth of the feed may be asked for, if another channel has done so.
    pub(super) fn upgrade_overdue(&self, patience: Duration) -> Option<Instant> {
        let inner = self.swarm.inner();
        inner.upgrade.filter(|claim| claim.member != self.number).map(|claim| claim.free_for(patience))
    }

    /// When the first of the blocks may be asked for by us that other channels have claimed and `is_wanted` says so
    /// of.
    pub(super) fn next_overdue(
        &self,
        patience: Duration,
        is_wanted: impl Fn(u64) -> bool,
    ) -> Option<Instant> {
        let inner = self.swarm.inner();
        let others = inner.blocks.iter().filter(|(_, claim)| claim.member != self.number);
        others.filter(|(index, _)| is_wanted(*index)).map(|(_, claim)| claim.free_for(patience)).min()
    }

    /// What was ours and others ask for now, as we took too long.
    pub(super) fn take_lost(&self) -> Lost {
        let mut inner = self.swarm.inner();
        if inner.lost.is_empty() {
            Lost::default()
        } else {
            inner.lost.remove(&self.number).unwrap_or_default()
        }
    }

    /// How often a claim of anybody's has ended without its block.
    pub(super) fn released(&self) -> u64 {
        self.swarm.inner().released
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut inner = self.swarm.inner();
        let before = inner.blocks.len() + inner.seeks.len();
        let ours = inner.blocks.iter().filter(|(_, claim)| claim.member == self.number);
        for index in ours.map(|(index, _)| index).collect::<Vec<_>>() {
            inner.blocks.remove(index);
        }
        inner.seeks.retain(|_, claim| claim.member != self.number);
        let mut released = inner.blocks.len() + inner.seeks.len() < before;
        if inner.upgrade.is_some_and(|claim| claim.member == self.number) {
            inner.upgrade = None;
            released = true;
        }
        inner.lost.remove(&self.number);
        inner.members -= 1;
        inner.haves.remove(&self.number);
        inner.roster += 1;
        if released {
            inner.released += 1;
            inner.news = true;
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // any time will do to begin with
mod tests {
    use super::*;

    #[test]
    fn a_block_is_asked_of_one_peer_until_it_is_overdue() {
        let swarm = Arc::new(Swarm::default());
        let (a, b) = (Member::join(&swarm), Member::join(&swarm));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(a.claim(7, start, at(2)), Claimed::Ours);
        assert_eq!(b.claim(7, at(1), at(4)), Claimed::Others);
        assert_eq!(b.next_overdue(at(4) - at(1), |_| true), Some(at(2)));
        assert_eq!(b.claim(7, at(2), at(5)), Claimed::Ours);
        assert_eq!(a.take_lost(), Lost { blocks: vec![7], overdue: 1 });
        a.release(7, false); // it is not a's any more
        assert_eq!(swarm.claims(), 1);
        b.release(7, true);
        assert_eq!(swarm.claims(), 0);
    }

    #[test]
    fn who_is_quick_does_not_wait_for_who_is_slow() {
        let swarm = Arc::new(Swarm::default());
        let (slow, quick) = (Member::join(&swarm), Member::join(&swarm));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        slow.claim(7, start, at(30));
        assert_eq!(quick.next_overdue(Duration::from_secs(1), |_| true), Some(at(1)));
        assert_eq!(quick.next_overdue(Duration::from_secs(1), |index| index != 7), None);
        assert_eq!(quick.claim(7, at(1), at(2)), Claimed::Ours);
        // Nobody is to blame.
        assert_eq!(slow.take_lost(), Lost { blocks: vec![7], overdue: 0 });
    }

    #[test]
    fn what_a_channel_claimed_is_free_when_it_is_gone() {
        let swarm = Arc::new(Swarm::default());
        let (a, b) = (Member::join(&swarm), Member::join(&swarm));
        let start = Instant::now();
        let later = start + Duration::from_secs(9);
        for index in 0..100 {
            a.claim(index, start, later);
        }
        assert_eq!(a.claim_upgrade(start, later), Claimed::Ours);
        assert_eq!(b.claim_upgrade(start, later), Claimed::Others);
        let released = b.released();
        drop(a);
        assert!(swarm.claims() == 0 && b.released() > released);
        assert_eq!(b.claim_upgrade(start, later), Claimed::Ours);
        assert!(!swarm.take_news()); // nobody else is there
    }
}
