//! Byte offsets that are looked for among peers: which node of the tree to ask for, so that we come closer.
//!
//! What is known here says in which blocks an offset is: those below one node. The remote is asked for the hash of one of
//! them and, if it understands that, for the nodes on the way to the offset; either way the answer brings nodes below
//! the one that we have. An offset beyond our end is asked for with the growth of the feed. One channel of the
//! feed asks at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Instant,
};

use super::{
    messages::Want,
    remote::Remote,
    swarm::Claimed,
    window::{Asked, Window},
};
use crate::{
    encoding::MAX_SAFE_INTEGER,
    feed::{
        local::Local,
        proof::{BlockRequest, SeekRequest},
        seek::Sought,
    },
};

/// Offsets of which one remote is asked.
#[derive(Debug, Default)]
pub(super) struct Seeking {
    sought: Vec<Sought>,
    /// By the number of the offset: the blocks that the remote was asked about last. It is asked about the same
    /// again only after it has told something new.
    asked: BTreeMap<u64, Range<u64>>,
    /// Blocks of which the remote was asked to name one that it has, by start and length.
    wanted: BTreeSet<(u64, u64)>,
}

impl Seeking {
    /// Sets what is looked for. Returns whether that is a change.
    pub(super) fn set(&mut self, mut sought: Vec<Sought>) -> bool {
        // What lies further no feed has, and no message can say.
        //= ENC-2
        sought.retain(|sought| sought.bytes <= MAX_SAFE_INTEGER);
        if self.sought == sought {
            return false;
        }
        self.sought = sought;
        let Self { sought, asked, .. } = self;
        asked.retain(|id, _| sought.iter().any(|sought| sought.id == *id));
        true
    }

    /// The remote has told what it has of `range`.
    pub(super) fn told(&mut self, range: &Range<u64>) {
        self.asked.retain(|_, asked| asked.end <= range.start || range.end <= asked.start);
    }

    /// The remote's length or fork is another.
    pub(super) fn synced(&mut self) {
        self.asked.clear();
    }

    /// The offset to ask for with an upgrade.
    //= protocol-spec/07-replication.md#request-1-and-data-3
    pub(super) fn beyond(&self, local: &dyn Local, remote: &Remote) -> Option<SeekRequest> {
        let sought = self.sought.iter().find(|sought| sought.blocks.start >= local.length())?;
        remote.understands_seeks().then_some(SeekRequest { bytes: sought.bytes, padding: sought.padding })
    }

    /// The next hash to ask for. Those that another channel asks for are left to it; `wake` is when they are
    /// overdue.
    //= REPL-21
    pub(super) fn next(
        &mut self,
        local: &dyn Local,
        remote: &Remote,
        window: &Window,
        now: Instant,
        wake: &mut Option<Instant>,
    ) -> Option<(Asked, BlockRequest, Option<SeekRequest>)> {
        let (sought, index) = self.open(local, remote).find(|(sought, _)| {
            let ours = window.claim_seek(sought.id, now) == Claimed::Ours;
            if !ours {
                let overdue = window.claims().seek_overdue(sought.id);
                *wake = wake.iter().copied().chain(overdue).min();
            }
            ours
        })?;
        let sought = sought.clone();
        let seek = SeekRequest { bytes: sought.bytes, padding: sought.padding };
        let seek = remote.understands_seeks().then_some(seek);
        let span = sought.blocks.end.saturating_sub(sought.blocks.start);
        let hash = BlockRequest { index: index.saturating_mul(2), nodes: span.max(1).ilog2().into() };
        let asked = Asked {
            fork: remote.sync.fork,
            hash: Some(hash.index),
            seek: seek.map(|seek| seek.bytes),
            sought: Some(sought.id),
            ..Asked::default()
        };
        self.asked.insert(sought.id, sought.blocks);
        Some((asked, hash, seek))
    }

    /// Whether there is something to ask this remote for.
    pub(super) fn is_open(&self, local: &dyn Local, remote: &Remote) -> bool {
        self.open(local, remote).next().is_some()
    }

    /// Asks a remote of which we don't know any block that is of use to name one, or takes that back.
    pub(super) fn next_want(&mut self, local: &dyn Local, remote: &Remote) -> Option<(Want, bool)> {
        let place = |sought: &Sought| {
            let start = sought.blocks.start / 32 * 32;
            (start, sought.blocks.end.saturating_sub(start))
        };
        let want = |(start, length)| Want { start, length, any: true };
        let unknown =
            |sought: &&Sought| is_provable(sought, local, remote) && candidate(sought, remote).is_none();
        let missing =
            self.sought.iter().filter(unknown).map(place).find(|place| !self.wanted.contains(place));
        if let Some(place) = missing {
            self.wanted.insert(place);
            return Some((want(place), true));
        }
        let done =
            self.wanted.iter().find(|wanted| self.sought.iter().all(|sought| place(sought) != **wanted));
        let done = *done?;
        self.wanted.remove(&done);
        Some((want(done), false))
    }

    /// What is looked for and not asked for, with a block to ask by.
    fn open(&self, local: &dyn Local, remote: &Remote) -> impl Iterator<Item = (&Sought, u64)> {
        self.sought
            .iter()
            .filter(|sought| self.asked.get(&sought.id) != Some(&sought.blocks))
            .filter(|sought| is_provable(sought, local, remote))
            .filter_map(|sought| Some((sought, candidate(sought, remote)?)))
    }
}

/// Whether the remote has the node below which the offset is, and something is to be learned about it.
fn is_provable(sought: &Sought, local: &dyn Local, remote: &Remote) -> bool {
    let Range { start, end } = sought.blocks;
    start < end && end <= local.length() && end <= remote.sync.length
}

/// The block that the remote has and that is nearest to where the offset probably is.
fn candidate(sought: &Sought, remote: &Remote) -> Option<u64> {
    let Range { start, end } = sought.blocks;
    let from = |from| remote.have.next(from).filter(|index| *index < end);
    from(sought.near.clamp(start, end.saturating_sub(1))).or_else(|| from(start))
}
