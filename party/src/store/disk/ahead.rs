//! Blocks read before they are asked for.
//!
//! Who reads a feed from one end to the other asks for one block at a time, and each time waits for a thread
//! of ours to wake up, which takes longer than the reading. So once two blocks were asked for in a row, those
//! that follow are read along with the next, and wait here. How many doubles as long as it goes on so.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::feed::storage::{Key, Slot, Span, Write};

/// The most blocks read ahead in a feed.
const MAX_BLOCKS: usize = 64;
/// About how many bytes of them: reading stops after the block that passes it.
pub(super) const AHEAD_BYTES: usize = 128 << 10;
/// How many feeds are read ahead at once. The one that was read longest ago makes room.
const MAX_RUNS: usize = 32;

/// What was read ahead, of all feeds of a storage.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    runs: HashMap<Slot, Run>,
    /// Grows with everything that was asked for.
    clock: u64,
    /// Grows with everything that was deleted or overwritten: what was read before is not kept.
    changes: u64,
}

#[derive(Debug)]
struct Run {
    /// The block that is asked for next, if it goes on as it did.
    next: u64,
    /// What was read from there on.
    blocks: VecDeque<Bytes>,
    /// How many blocks were read the last time.
    count: usize,
    used: u64,
}

/// What a commit does to blocks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    deletes: bool,
    put: Vec<(Slot, Range<u64>)>,
}

impl Touched {
    pub(super) fn by(writes: &[Write]) -> Self {
        let mut touched = Self::default();
        for write in writes {
            match write {
                Write::Delete(Key::Block(..)) | Write::Clear(Span::Blocks(..) | Span::Feed(_)) => {
                    touched.deletes = true;
                }
                Write::Put(Key::Block(slot, index), _) => match touched.put.last_mut() {
                    Some((last, put)) if last == slot && put.end == *index => {
                        put.end = index.saturating_add(1)
                    }
                    _ => touched.put.push((*slot, *index..index.saturating_add(1))),
                },
                _ => {}
            }
        }
        touched
    }
}

/// What to do about a block that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// It is here.
    Here(Bytes),
    /// To be read, and so many blocks after it.
    Read { ahead: usize, changes: u64 },
}

impl ReadAhead {
    /// Block `index` is asked for.
    pub(super) fn ask(&self, slot: Slot, index: u64) -> Wanted {
        let mut state = self.lock();
        state.clock += 1;
        let State { clock, changes, .. } = *state;
        if !state.runs.contains_key(&slot) && state.runs.len() >= MAX_RUNS {
            let oldest = state.runs.iter().min_by_key(|(_, run)| run.used).map(|(slot, _)| *slot);
            oldest.and_then(|oldest| state.runs.remove(&oldest));
        }
        let fresh = Run { next: index.saturating_add(1), blocks: VecDeque::new(), count: 1, used: clock };
        let Some(run) = state.runs.get_mut(&slot) else {
            state.runs.insert(slot, fresh);
            return Wanted::Read { ahead: 0, changes };
        };
        run.used = clock;
        if index.checked_add(1) == Some(run.next) {
            // The same once more.
            return Wanted::Read { ahead: 0, changes };
        }
        if run.next != index {
            *run = fresh;
            return Wanted::Read { ahead: 0, changes };
        }
        run.next = index.saturating_add(1);
        match run.blocks.pop_front() {
            Some(block) => Wanted::Here(block),
            None => {
                run.count = (run.count * 2).min(MAX_BLOCKS);
                Wanted::Read { ahead: run.count - 1, changes }
            }
        }
    }

    /// The blocks from `from` on were read, after `changes`.
    pub(super) fn keep(&self, slot: Slot, from: u64, blocks: impl IntoIterator<Item = Bytes>, changes: u64) {
        let mut state = self.lock();
        if state.changes != changes {
            return;
        }
        if let Some(run) = state.runs.get_mut(&slot).filter(|run| run.next == from) {
            run.blocks = blocks.into_iter().collect();
        }
    }

    /// A commit was carried out. Before anybody is told.
    pub(super) fn committed(&self, touched: &Touched) {
        let mut state = self.lock();
        let overwrites = touched.put.iter().any(|(slot, put)| {
            state.runs.get(slot).is_some_and(|run| {
                put.start < run.next.saturating_add(run.blocks.len() as u64) && run.next < put.end
            })
        });
        if touched.deletes || overwrites {
            state.changes += 1;
            state.runs.clear();
        }
    }

    /// Nothing of before is valid any more.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        state.changes += 1;
        state.runs.clear();
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot(1);

    fn block(index: u64) -> Bytes {
        index.to_be_bytes().to_vec().into()
    }

    /// Asks for a block, and reads as a reader would.
    fn ask(ahead: &ReadAhead, slot: Slot, index: u64) -> (Bytes, usize) {
        match ahead.ask(slot, index) {
            Wanted::Here(block) => (block, 0),
            Wanted::Read { ahead: more, changes } => {
                let from = index + 1;
                ahead.keep(slot, from, (from..from + more as u64).map(block), changes);
                (block(index), 1 + more)
            }
        }
    }

    #[test]
    fn who_reads_in_order_waits_ever_less_often() {
        let ahead = ReadAhead::default();
        let reads: Vec<usize> = (0..300)
            .map(|index| {
                let (found, read) = ask(&ahead, SLOT, index);
                assert_eq!(found, block(index));
                read
            })
            .filter(|read| *read > 0)
            .collect();
        assert_eq!(reads, [1, 2, 4, 8, 16, 32, 64, 64, 64, 64]);
    }

    #[test]
    fn who_reads_here_and_there_reads_no_more_than_that() {
        let ahead = ReadAhead::default();
        for index in [5, 100, 3, 3, 90, 2] {
            assert_eq!(ask(&ahead, SLOT, index), (block(index), 1));
        }
    }

    #[test]
    fn what_was_read_before_a_change_is_not_handed_out() {
        let changes = [
            Write::Delete(Key::Block(SLOT, 70)),
            Write::Clear(Span::Blocks(SLOT, 0..1)),
            Write::Clear(Span::Feed(SLOT)),
            Write::Put(Key::Block(SLOT, 12), block(0)),
        ];
        for change in changes {
            let ahead = ReadAhead::default();
            (0..10).for_each(|index| drop(ask(&ahead, SLOT, index)));
            // Somebody is still reading what comes next when the change is made.
            let Wanted::Here(_) = ahead.ask(SLOT, 10) else { panic!("it was read ahead") };
            let stale = ahead.ask(Slot(2), 0);
            let others = [Write::Put(Key::Block(SLOT, 1000), block(1)), Write::Delete(Key::Head(SLOT))];
            ahead.committed(&Touched::by(&others));
            let Wanted::Here(_) = ahead.ask(SLOT, 11) else { panic!("nothing of it has changed") };
            ahead.committed(&Touched::by(&[change]));
            assert_eq!(ask(&ahead, SLOT, 12).1, 1);
            let Wanted::Read { changes, .. } = stale else { panic!("it was not here") };
            ahead.keep(Slot(2), 1, [block(1)], changes);
            assert_eq!(ask(&ahead, Slot(2), 1).1, 1);
        }
    }

    #[test]
    fn only_so_many_feeds_are_read_ahead() {
        let ahead = ReadAhead::default();
        for slot in (0..1000).map(Slot) {
            (0..4).for_each(|index| drop(ask(&ahead, slot, index)));
            assert!(ahead.lock().runs.len() <= MAX_RUNS);
        }
        assert_eq!(ask(&ahead, Slot(999), 4).1, 0);
        assert_eq!(ask(&ahead, Slot(0), 4).1, 1);
    }
}
