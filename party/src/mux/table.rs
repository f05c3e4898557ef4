//! Who uses which id, and who waits for whom.
//!
//! Each side numbers its own channels from 1 and names them by its own number. A number that is free again is
//! used again, the latest first. The numbers of the remote cost memory only while they are in use, however
//! large they are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::ChannelId;
use crate::error::PeerMisbehaved;

/// What channels are paired by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
//= MUX-21
pub(super) struct Key {
    /// The canonical name of the protocol.
    pub(super) protocol: Arc<str>,
    /// Empty if there is none: on the wire the two are the same.
    pub(super) id: Bytes,
}

/// What a local id is used for.
#[derive(Debug)]
pub(super) enum Local {
    Free,
    /// Our open is on the way.
    Opening {
        serial: u64,
        key: Key,
    },
    /// Paired with a channel of the remote's.
    Open {
        serial: u64,
        remote: u64,
    },
    /// Closed by us while our open was on the way. The id is kept until the remote's open or reject for it.
    Leaving {
        key: Key,
    },
}

/// Our own ids. The id of slot 0 is 1.
#[derive(Debug, Default)]
pub(super) struct Locals {
    slots: Vec<Local>,
    free: Vec<u32>,
    serial: u64,
}

impl Locals {
    /// Ids that can't be given away.
    pub(super) fn in_use(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    /// Takes an id; the caller has checked how many are in use.
    pub(super) fn insert(&mut self, local: impl FnOnce(u64) -> Local) -> ChannelId {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Local::Free);
                self.slots.len().saturating_sub(1) as u32
            }
        };
        self.set(slot, local(serial));
        ChannelId { slot, serial }
    }

    pub(super) fn get(&self, slot: u32) -> &Local {
        self.slots.get(slot as usize).unwrap_or(&Local::Free)
    }

    pub(super) fn set(&mut self, slot: u32, local: Local) {
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            *entry = local;
        }
    }

    /// Gives an id that is in use back.
    pub(super) fn release(&mut self, slot: u32) {
        self.set(slot, Local::Free);
        self.free.push(slot);
    }

    /// The channel of a slot that is neither free nor closed.
    pub(super) fn channel(&self, slot: u32) -> Option<ChannelId> {
        match self.get(slot) {
            Local::Opening { serial, .. } | Local::Open { serial, .. } => {
                Some(ChannelId { slot, serial: *serial })
            }
            Local::Free | Local::Leaving { .. } => None,
        }
    }
}

/// What an id of the remote's is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remote {
    /// Paired with this channel of ours.
    Paired(ChannelId),
    /// Waits for our answer, under this number.
    Waiting(u64),
}

/// The remote's ids.
#[derive(Debug)]
pub(super) struct Remotes {
    /// Ids from 1 up, which is where a peer's are that uses its free ids again.
    dense: Vec<Option<Remote>>,
    max_dense: usize,
    /// Ids above those.
    sparse: BTreeMap<u64, Remote>,
    highest: u64,
}

impl Remotes {
    pub(super) fn new(max_dense: usize) -> Self {
        Self { dense: Vec::new(), max_dense, sparse: BTreeMap::new(), highest: 0 }
    }

    pub(super) fn get(&self, id: u64) -> Option<Remote> {
        match self.dense_index(id) {
            Some(index) => self.dense.get(index).copied().flatten(),
            None => self.sparse.get(&id).copied(),
        }
    }

    /// The remote says that it uses an id from now on.
    ///
    /// # Errors
    /// [`PeerMisbehaved::InvalidOpen`] if it is in use, is 0, or is more than one above the highest so far.
    //= MUX-25, MUX-26, MUX-27
    pub(super) fn announce(&mut self, id: u64) -> Result<(), PeerMisbehaved> {
        //= protocol-spec/05-channels.md#opening-and-pairing
        if id == 0 || id > self.highest.saturating_add(1) || self.get(id).is_some() {
            return Err(PeerMisbehaved::InvalidOpen);
        }
        self.highest = self.highest.max(id);
        Ok(())
    }

    /// Records what an announced id is used for.
    pub(super) fn insert(&mut self, id: u64, remote: Remote) {
        let Some(index) = self.dense_index(id) else {
            self.sparse.insert(id, remote);
            return;
        };
        if index >= self.dense.len() {
            self.dense.resize(index.saturating_add(1), None);
        }
        if let Some(entry) = self.dense.get_mut(index) {
            *entry = Some(remote);
        }
    }

    pub(super) fn release(&mut self, id: u64) {
        match self.dense_index(id) {
            Some(index) => {
                if let Some(entry) = self.dense.get_mut(index) {
                    *entry = None;
                }
            }
            None => {
                self.sparse.remove(&id);
            }
        }
    }

    /// Ids that there is memory for.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.dense.len() + self.sparse.len()
    }

    fn dense_index(&self, id: u64) -> Option<usize> {
        let index = usize::try_from(id.checked_sub(1)?).ok()?;
        (index < self.max_dense).then_some(index)
    }
}

/// An open of the remote's that waits for our answer.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) remote: u64,
    pub(super) key: Key,
    pub(super) handshake: Bytes,
    /// Messages that have come since: type and payload.
    pub(super) early: Vec<(u64, Bytes)>,
    /// Whether the remote has closed it. It is kept, as the remote needs an answer to use the id again.
    pub(super) closed: bool,
}

/// What an early message is counted as, beyond its payload. It is what Node counts.
const EARLY_OVERHEAD: usize = 512;

/// What a message with this payload is counted as while it waits.
pub(super) fn early_cost(payload: &Bytes) -> usize {
    payload.len().saturating_add(EARLY_OVERHEAD)
}

/// The opens that are not paired yet, by key, each kind in the order in which it was sent. Both ends pair the
/// oldest with the oldest, so for no key there is one of each kind.
#[derive(Debug, Default)]
pub(super) struct Pairings {
    queues: BTreeMap<Key, Queues>,
}

#[derive(Debug, Default)]
struct Queues {
    /// Slots of ours.
    ours: VecDeque<u32>,
    /// Numbers of waiting opens of the remote's.
    theirs: VecDeque<u64>,
}

impl Pairings {
    pub(super) fn push_ours(&mut self, key: Key, slot: u32) {
        self.queues.entry(key).or_default().ours.push_back(slot);
    }

    /// Adds an open of the remote's. Returns whether it is the oldest of its key.
    pub(super) fn push_theirs(&mut self, key: Key, number: u64) -> bool {
        let theirs = &mut self.queues.entry(key).or_default().theirs;
        theirs.push_back(number);
        theirs.len() == 1
    }

    /// Takes our oldest open.
    pub(super) fn pop_ours(&mut self, key: &Key) -> Option<u32> {
        let slot = self.queues.get_mut(key)?.ours.pop_front();
        self.tidy(key);
        slot
    }

    /// The remote's oldest open.
    pub(super) fn oldest_theirs(&self, key: &Key) -> Option<u64> {
        self.queues.get(key)?.theirs.front().copied()
    }

    pub(super) fn remove_ours(&mut self, key: &Key, slot: u32) {
        if let Some(queues) = self.queues.get_mut(key) {
            queues.ours.retain(|other| *other != slot);
        }
        self.tidy(key);
    }

    /// Takes the remote's oldest open away. Returns the next one.
    pub(super) fn pop_theirs(&mut self, key: &Key) -> Option<u64> {
        let theirs = &mut self.queues.get_mut(key)?.theirs;
        theirs.pop_front();
        let next = theirs.front().copied();
        self.tidy(key);
        next
    }

    fn tidy(&mut self, key: &Key) {
        if self.queues.get(key).is_some_and(|queues| queues.ours.is_empty() && queues.theirs.is_empty()) {
            self.queues.remove(key);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}
