//! What the channels of one feed share: which of them has asked for what.
//!
//! A block is asked of one peer at a time. Who asks for it claims it here; the others pass over it, until it is
//! stored, given back, or asked for so long ago that somebody else may try.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

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
    blocks: BTreeMap<u64, Claim>,
    upgrade: Option<Claim>,
    /// By member: blocks that were claimed over it, which it has not heard of.
    lost: BTreeMap<u64, Vec<u64>>,
    /// Grows when a claim ends without the block: who passed over it looks again.
    released: u64,
    /// Whether others than the one who caused it have not been told of that.
    news: bool,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    member: u64,
    /// From when on somebody else may ask.
    overdue: Instant,
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
        drop(inner);
        Self { swarm: Arc::clone(swarm), number }
    }

    /// Claims a block that is going to be asked for, to be waited for until `overdue`.
    pub(super) fn claim(&self, index: u64, now: Instant, overdue: Instant) -> Claimed {
        let mut inner = self.swarm.inner();
        let claim = Claim { member: self.number, overdue };
        let before = match inner.blocks.entry(index) {
            Entry::Vacant(vacant) => {
                vacant.insert(claim);
                return Claimed::Ours;
            }
            Entry::Occupied(mut claimed) => {
                let before = *claimed.get();
                if before.member != self.number && before.overdue > now {
                    return Claimed::Others;
                }
                claimed.insert(claim);
                before
            }
        };
        if before.member != self.number {
            inner.lost.entry(before.member).or_default().push(index);
            inner.news = true;
        }
        Claimed::Ours
    }

    /// Gives a block back: it is stored, or is not going to come from here.
    pub(super) fn release(&self, index: u64, stored: bool) {
        let mut inner = self.swarm.inner();
        if let Entry::Occupied(claimed) = inner.blocks.entry(index)
            && claimed.get().member == self.number
        {
            claimed.remove();
            if !stored {
                inner.released += 1;
                inner.news = true;
            }
        }
    }

    /// Claims the growth of the feed. One channel at a time asks for it.
    pub(super) fn claim_upgrade(&self, now: Instant, overdue: Instant) -> Claimed {
        let mut inner = self.swarm.inner();
        if inner.upgrade.is_some_and(|claim| claim.member != self.number && claim.overdue > now) {
            return Claimed::Others;
        }
        inner.upgrade = Some(Claim { member: self.number, overdue });
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

    /// When the growth of the feed may be asked for, if another channel has done so.
    pub(super) fn upgrade_overdue(&self) -> Option<Instant> {
        let inner = self.swarm.inner();
        inner.upgrade.filter(|claim| claim.member != self.number).map(|claim| claim.overdue)
    }

    /// When the first of the blocks that other channels have claimed may be asked for by us.
    pub(super) fn next_overdue(&self) -> Option<Instant> {
        let inner = self.swarm.inner();
        let others = inner.blocks.values().filter(|claim| claim.member != self.number);
        others.map(|claim| claim.overdue).min()
    }

    /// Blocks that were ours and that others ask for now, as we took too long.
    pub(super) fn take_lost(&self) -> Vec<u64> {
        let mut inner = self.swarm.inner();
        if inner.lost.is_empty() { Vec::new() } else { inner.lost.remove(&self.number).unwrap_or_default() }
    }

    /// How often a claim of anybody's has ended without its block.
    pub(super) fn released(&self) -> u64 {
        self.swarm.inner().released
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut inner = self.swarm.inner();
        let before = inner.blocks.len();
        inner.blocks.retain(|_, claim| claim.member != self.number);
        let mut released = inner.blocks.len() < before;
        if inner.upgrade.is_some_and(|claim| claim.member == self.number) {
            inner.upgrade = None;
            released = true;
        }
        inner.lost.remove(&self.number);
        inner.members -= 1;
        if released {
            inner.released += 1;
            inner.news = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_block_is_asked_of_one_peer_until_it_is_overdue() {
        let swarm = Arc::new(Swarm::default());
        let (a, b) = (Member::join(&swarm), Member::join(&swarm));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(a.claim(7, start, at(2)), Claimed::Ours);
        assert_eq!(b.claim(7, at(1), at(3)), Claimed::Others);
        assert_eq!(b.next_overdue(), Some(at(2)));
        assert_eq!(b.claim(7, at(2), at(4)), Claimed::Ours);
        assert_eq!(a.take_lost(), [7]);
        a.release(7, false); // it is not a's any more
        assert_eq!(swarm.claims(), 1);
        b.release(7, true);
        assert_eq!(swarm.claims(), 0);
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
