//! Our side as a writer or relay: what the remote is told of where we stand and what we have.

use std::collections::{BTreeMap, VecDeque};

use super::{
    asking::SEGMENT,
    have::runs,
    messages::{Bitfield, Message, Range, Sync, Want},
    newest::Newest,
    remote::Remote,
    shown::Shown,
};
use crate::{
    feed::{local::Local, proof::UpgradeRequest},
    limits::Limits,
};

/// Runs of one page that are told one by one; more are told as a bitfield.
const MAX_RUNS: usize = 32;

/// What the remote was told, and wants to be told.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// Our last sync.
    sync: Option<Sync>,
    /// How many blocks from 0 on the remote was told that we have.
    contiguous: u64,
    /// By the first block and the number of blocks.
    wants: BTreeMap<(u64, u64), Wanted>,
    /// Words in `wants`.
    words: usize,
    newest: Newest,
    ready: VecDeque<Message>,
    /// Whether something has changed that may have to be told.
    dirty: bool,
    /// Whether blocks may have been stored or cleared.
    stored: bool,
    /// Our length, the remote's, and whether it was found that the one can be proved from the other.
    provable: Option<(u64, u64, bool)>,
}

#[derive(Debug, Default)]
struct Wanted {
    any: bool,
    /// Whether the remote waits for the answer.
    unanswered: bool,
    /// What we have told, by the first block of each run of words; `None` if it takes too much room.
    told: Option<BTreeMap<u64, Vec<u32>>>,
}

impl Telling {
    /// The channel is open: there is a sync to send.
    pub(super) fn opened(&mut self, local: Shown<'_>) {
        self.newest.look(local);
        self.dirty = true;
    }

    /// Something has changed that may have to be told.
    pub(super) fn touch(&mut self) {
        self.dirty = true;
    }

    /// Blocks may have been stored or cleared.
    pub(super) fn touch_stored(&mut self) {
        self.dirty = true;
        self.stored = true;
    }

    /// Whether the remote was told that we are on this fork.
    pub(super) fn has_told_of(&self, fork: u64) -> bool {
        self.sync.is_some_and(|sync| sync.fork == fork)
    }

    /// What the remote was last told of how we stand.
    pub(super) fn sync(&self) -> Option<Sync> {
        self.sync
    }

    /// We are on another fork. What the remote was told of our blocks is compared with those that we have now.
    pub(super) fn fork_changed(&mut self) {
        self.provable = None;
        self.touch_stored();
    }

    /// The remote wants to know of a range. Beyond a limit it is not listened to; Node keeps as many.
    //= REPL-61, REPL-65, LIMIT-18
    pub(super) fn want(&mut self, want: Want, limits: &Limits) {
        // Node's are no longer than this; of a longer one, the start is answered.
        let place = (want.start / 32 * 32, want.length.min(SEGMENT));
        //= protocol-spec/07-replication.md#range-8-want-5-unwant-6-bitfield-7
        if self.wants.len() < limits.max_remote_wants || self.wants.contains_key(&place) {
            self.dirty = true;
            let wanted = self.wants.entry(place).or_default();
            wanted.any = want.any;
            wanted.unanswered = true;
        }
    }

    /// The remote doesn't want to know of a range any more.
    pub(super) fn unwant(&mut self, want: Want) {
        let place = (want.start / 32 * 32, want.length.min(SEGMENT));
        if let Some(wanted) = self.wants.remove(&place) {
            self.words -= wanted.words();
        }
    }

    /// The next message. `shown` is what of `local` the remote is told of, and `sync` makes our sync, with nothing but [`Sync::can_upgrade`] to be filled in.
    //= REPL-73, REPL-74, REPL-75
    pub(super) fn poll(
        &mut self,
        (local, shown): (&dyn Local, Shown<'_>),
        remote: &Remote,
        limits: &Limits,
        sync: impl FnOnce() -> Sync,
    ) -> Option<Message> {
        if let Some(message) = self.ready.pop_front() {
            return Some(message);
        }
        if !self.dirty {
            return None;
        }
        //= protocol-spec/07-replication.md#appending-while-connected
        // The range after the sync: it would lie beyond our length before.
        if let Some(sync) = self.next_sync(local, remote, sync()) {
            return Some(Message::Sync(sync));
        }
        if let Some(range) = self.next_contiguous(shown, remote) {
            return Some(Message::Range(range));
        }
        if let Some(message) = self.next_answer(shown, limits) {
            return Some(message);
        }
        if std::mem::take(&mut self.stored) {
            self.find_changes(shown, limits);
            self.tell_newest(shown, remote);
        }
        self.dirty = !self.ready.is_empty();
        self.ready.pop_front()
    }

    //= REPL-10, REPL-13, REPL-16
    fn next_sync(&mut self, local: &dyn Local, remote: &Remote, mut sync: Sync) -> Option<Sync> {
        let last = self.sync;
        // Also before the remote has said where it is: Node is taken to be on fork 0 then. A Node reader that has nothing
        // and hears otherwise asks for the growth of the other fork once for each request that it may make.
        sync.can_upgrade = if remote.sync.fork != sync.fork {
            false
        } else if remote.sync.length < sync.length || last.is_none() {
            self.can_upgrade(local, remote).unwrap_or(false)
        } else {
            // It can't be asked for; what was said before may stand.
            last.is_some_and(|last| last.can_upgrade)
        };
        //= protocol-spec/07-replication.md#sync-0
        let news = last.is_none_or(|last| {
            // That we have heard of the remote's length matters only if it can ask for more.
            let heard =
                if sync.length > remote.sync.length { last.remote_length } else { sync.remote_length };
            sync != Sync { remote_length: heard, ..last }
        });
        if news {
            self.sync = Some(sync);
        }
        news.then_some(sync)
    }

    /// Whether we can prove our length to the remote. `None` if that can't be told without reading storage:
    /// it can if we know the roots of the remote's tree, for then we know the nodes that lead from there to
    /// ours, too.
    //= REPL-11
    fn can_upgrade(&self, local: &dyn Local, remote: &Remote) -> Option<bool> {
        let (ours, theirs) = (local.length(), remote.sync.length);
        if theirs == 0 || local.contiguous_length() >= ours {
            return Some(true);
        }
        match self.provable {
            Some((a, b, provable)) if (a, b) == (ours, theirs) => Some(provable),
            _ if theirs >= ours => Some(false),
            _ => knows_roots(local, theirs).then_some(true),
        }
    }

    /// The upgrade of which it has to be found out whether we can prove it.
    pub(super) fn unsure(&self, local: &dyn Local, remote: &Remote) -> Option<UpgradeRequest> {
        let (ours, theirs) = (local.length(), remote.sync.length);
        let matters = remote.synced && remote.sync.fork == local.fork() && theirs < ours;
        (matters && self.can_upgrade(local, remote).is_none())
            .then(|| UpgradeRequest { start: theirs, length: ours - theirs })
    }

    /// It was found whether we can prove an upgrade.
    pub(super) fn found(&mut self, upgrade: UpgradeRequest, provable: bool) {
        self.provable = Some((upgrade.start.saturating_add(upgrade.length), upgrade.start, provable));
        self.dirty = true;
    }

    //= REPL-58
    fn next_contiguous(&mut self, local: Shown<'_>, remote: &Remote) -> Option<Range> {
        let (told, contiguous) = (self.contiguous, local.contiguous_length());
        if contiguous < told {
            self.contiguous = contiguous;
            self.wants.values_mut().for_each(|wanted| wanted.forget(contiguous, told));
            self.newest.forget(contiguous..told);
            return Some(Range { drop: true, start: contiguous, length: told - contiguous });
        }
        // A remote that has the blocks itself is told only when that is all there is, which it may not know.
        let known = remote.have.next_gap(told) >= contiguous;
        if contiguous == told || (known && contiguous < local.length()) {
            return None;
        }
        self.contiguous = contiguous;
        Some(Range { drop: false, start: 0, length: contiguous })
    }

    //= REPL-62
    fn next_answer(&mut self, local: Shown<'_>, limits: &Limits) -> Option<Message> {
        let (&(start, length), wanted) = self.wants.iter_mut().find(|(_, wanted)| wanted.unanswered)?;
        wanted.unanswered = false;
        self.words -= wanted.words();
        // Nothing yet of what the contiguous start doesn't say.
        wanted.told = Some(BTreeMap::new());
        let (end, told) = (start.saturating_add(length), self.contiguous);
        if told > 0 && (end <= told || told == local.length() || (wanted.any && start < told)) {
            return Some(Message::Range(Range { drop: false, start: 0, length: told }));
        }
        let words = local.words(start, end.min(local.length()).saturating_sub(start));
        let first = words.iter().flat_map(|(first, words)| runs(*first, words)).find(|(_, stored)| *stored);
        let Some((run, _)) = first else {
            // Node says nothing then. An answer spares the remote its doubt.
            return Some(Message::Bitfield(Bitfield { start, words: vec![0] }));
        };
        if wanted.any {
            return Some(Message::Range(Range { drop: false, start: run.start, length: 1 }));
        }
        self.ready.extend(
            words
                .iter()
                .map(|(start, words)| Message::Bitfield(Bitfield { start: *start, words: words.clone() })),
        );
        wanted.remember(words, &mut self.words, limits);
        self.ready.pop_front()
    }

    /// Tells what has changed in the ranges that the remote wants to know of.
    //= REPL-59, REPL-63, PARTY-114
    fn find_changes(&mut self, local: Shown<'_>, limits: &Limits) {
        for (&(start, length), wanted) in &mut self.wants {
            let end = start.saturating_add(length);
            let Some(before) = wanted.told.take_if(|_| end > self.contiguous) else { continue };
            self.words -= before.values().map(Vec::len).sum::<usize>();
            let now = local.words(start, end.min(local.length()).saturating_sub(start));
            for (first, words) in &now {
                let none = Vec::new();
                changes(*first, words, before.get(first).unwrap_or(&none), self.contiguous, &mut self.ready);
            }
            for (first, words) in before {
                if now.iter().all(|(other, _)| *other != first) {
                    changes(first, &vec![0; words.len()], &words, self.contiguous, &mut self.ready);
                }
            }
            wanted.remember(now, &mut self.words, limits);
        }
    }

    /// Tells of the newest blocks what nothing else tells.
    //= protocol-spec/07-replication.md#range-8-want-5-unwant-6-bitfield-7
    fn tell_newest(&mut self, local: Shown<'_>, remote: &Remote) {
        let (mut come, mut gone) = self.newest.look(local);
        for ranges in [&mut come, &mut gone] {
            ranges.remove(0..self.contiguous);
            for &(start, length) in self.wants.keys() {
                ranges.remove(start..start.saturating_add(length));
            }
        }
        let come =
            come.iter().filter(|run| remote.have.next_gap(run.start) < run.end).map(|run| (run, false));
        let news = gone.iter().map(|run| (run, true)).chain(come);
        self.ready.extend(news.map(|(run, drop)| {
            Message::Range(Range { drop, start: run.start, length: run.end - run.start })
        }));
    }
}

impl Wanted {
    fn words(&self) -> usize {
        self.told.iter().flat_map(BTreeMap::values).map(Vec::len).sum()
    }

    /// The remote was told that blocks `start..end` are gone.
    fn forget(&mut self, start: u64, end: u64) {
        for (first, words) in self.told.iter_mut().flatten() {
            for (n, word) in (0..).zip(words) {
                for bit in 0..32 {
                    if (start..end).contains(&(first + 32 * n + bit)) {
                        *word &= !(1 << bit);
                    }
                }
            }
        }
    }

    /// Remembers what was told, if all that is remembered stays within the limit.
    fn remember(&mut self, words: Vec<(u64, Vec<u32>)>, total: &mut usize, limits: &Limits) {
        let len: usize = words.iter().map(|(_, words)| words.len()).sum();
        let room = *total + len <= limits.max_remote_pages.saturating_mul(1024);
        *total += if room { len } else { 0 };
        self.told = room.then(|| words.into_iter().collect());
    }
}

/// Tells how `now` differs from `before`, of which the first bit stands for block `start`. That we have the blocks
/// below `contiguous` was told.
fn changes(start: u64, now: &[u32], before: &[u32], contiguous: u64, out: &mut VecDeque<Message>) {
    // Of a feed that was cut off there are fewer now.
    let words = 0..now.len().max(before.len());
    let word = |of: &[u32], i: usize| of.get(i).copied().unwrap_or(0);
    let added: Vec<u32> = words.clone().map(|i| word(now, i) & !word(before, i)).collect();
    let gone: Vec<u32> = words.map(|i| word(before, i) & !word(now, i)).collect();
    let ranges = [(added, false), (gone, true)].into_iter().flat_map(|(words, drop)| {
        let runs: Vec<_> = runs(start, &words).filter(|(_, set)| *set).map(|(run, _)| run).collect();
        runs.into_iter().map(move |run| Range { drop, start: run.start, length: run.end - run.start })
    });
    let news: Vec<Range> = ranges
        .filter_map(|Range { drop, start, length }| {
            let known = if drop { 0 } else { contiguous.saturating_sub(start) };
            (known < length).then(|| Range { drop, start: start + known, length: length - known })
        })
        .collect();
    if news.len() > MAX_RUNS {
        out.push_back(Message::Bitfield(Bitfield { start, words: now.to_vec() }));
    } else {
        out.extend(news.into_iter().map(Message::Range));
    }
}

/// Whether we know the roots of the tree of the first `length` blocks, as far as that can be told from the
/// blocks that we have. There may be more.
fn knows_roots(local: &dyn Local, length: u64) -> bool {
    let mut start = 0;
    for height in (0..u64::BITS).rev() {
        if length >> height & 1 == 1 {
            if local.missing_nodes(start) > u64::from(height) {
                return false;
            }
            start += 1 << height;
        }
    }
    true
}
