//! Rows of nodes and blocks that were read, kept in memory.
//!
//! The nodes near the root of a feed are part of nearly every proof, and who reads blocks in order reads
//! sixteen from one row. A lookup in the database takes ten times as long as one here, and a thread.
//!
//! What is kept is what is stored. So a commit takes the rows that it touches out before it takes effect, and
//! until it has, nobody puts one of them back; and what was read before it is not kept after it. Whoever mixes
//! rows of here with rows of the database has to [look again](Rows::still_has) after reading: a row that was
//! here before and after was never touched in between, so it is of the same moment as the others.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::feed::storage::Slot;

/// Bytes of rows that are kept, for all feeds together: of nodes, those above some millions of blocks.
const MAX_BYTES: usize = 4 << 20;
/// What a row takes beside its bytes, about.
const OVERHEAD: usize = 96;
/// Commits whose rows are remembered. A row that was read before the oldest of them is not kept.
const MAX_COMMITS: usize = 32;
/// Runs of rows that a commit touches and that are told apart. One with more is taken to touch all.
const MAX_RUNS: usize = 64;

/// The kind of a row, as in its key, the feed, and the number.
pub(super) type RowId = (u8, Slot, u64);

/// The rows in memory.
#[derive(Debug, Default)]
pub(super) struct Rows(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Those asked for of late, and those before. When the young have half of the room, they are the old.
    young: HashMap<RowId, Bytes>,
    old: HashMap<RowId, Bytes>,
    young_bytes: usize,
    /// What is being committed.
    underway: Option<Touched>,
    /// What was, the last at the end.
    committed: VecDeque<Touched>,
    commits: u64,
}

/// Which rows a commit touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Touched {
    Runs(Vec<(u8, Slot, Range<u64>)>),
    /// Any of them.
    All,
}

impl Touched {
    pub(super) fn nothing() -> Self {
        Self::Runs(Vec::new())
    }

    /// Adds a row. Neighbours should come one after the other.
    pub(super) fn add(&mut self, (kind, slot, row): RowId) {
        let Self::Runs(runs) = self else { return };
        let is_full = runs.len() >= MAX_RUNS;
        match runs.last_mut() {
            Some((it, of, run)) if (*it, *of) == (kind, slot) && run.contains(&row) => {}
            Some((it, of, run)) if (*it, *of) == (kind, slot) && run.end == row => {
                run.end = row.saturating_add(1);
            }
            _ if is_full => *self = Self::All,
            _ => runs.push((kind, slot, row..row.saturating_add(1))),
        }
    }

    fn has(&self, (kind, slot, row): &RowId) -> bool {
        match self {
            Self::All => true,
            Self::Runs(runs) => {
                runs.iter().any(|(it, of, run)| it == kind && of == slot && run.contains(row))
            }
        }
    }
}

impl Rows {
    /// Whether all of these are here.
    pub(super) fn has(&self, ids: &[RowId]) -> bool {
        let state = self.lock();
        ids.iter().all(|id| state.peek(id).is_some())
    }

    /// The rows `ids`, as far as they are here, and at which moment that was.
    pub(super) fn get_all(&self, ids: &[RowId]) -> (Vec<Option<Bytes>>, u64) {
        let mut state = self.lock();
        let rows = ids.iter().map(|id| state.get(id)).collect();
        (rows, state.commits)
    }

    /// Whether all of `rows` are still here as they were got.
    pub(super) fn still_has<'a>(&self, rows: impl IntoIterator<Item = (&'a RowId, &'a Bytes)>) -> bool {
        let state = self.lock();
        let is_same = |it: &Bytes, row: &Bytes| it.as_ptr() == row.as_ptr() && it.len() == row.len();
        rows.into_iter().all(|(id, row)| state.peek(id).is_some_and(|it| is_same(it, row)))
    }

    /// Keeps rows that were read after [`get_all`](Self::get_all) gave `moment`.
    pub(super) fn keep<'a>(&self, rows: impl IntoIterator<Item = (&'a RowId, &'a Bytes)>, moment: u64) {
        let mut state = self.lock();
        let since = usize::try_from(state.commits.saturating_sub(moment)).unwrap_or(usize::MAX);
        if since > state.committed.len() {
            return;
        }
        for (id, row) in rows {
            let mut later = state.committed.iter().rev().take(since).chain(&state.underway);
            if !later.any(|touched| touched.has(id)) {
                state.insert(*id, row.clone());
            }
        }
    }

    /// A commit begins that touches these rows. It is over when what this gives is dropped, whether it was
    /// carried out or not. For one thread.
    #[must_use]
    pub(super) fn begin(&self, touched: Touched) -> Underway<'_> {
        let mut state = self.lock();
        let State { young, old, young_bytes, .. } = &mut *state;
        let mut before = HashMap::new();
        match &touched {
            Touched::All => {
                young.clear();
                old.clear();
                *young_bytes = 0;
            }
            Touched::Runs(runs) => {
                let count = runs.iter().map(|(_, _, run)| run.end.saturating_sub(run.start));
                if count.fold(0_u64, u64::saturating_add) <= young.len().saturating_add(old.len()) as u64 {
                    for id in runs.iter().flat_map(|(kind, slot, run)| run.clone().map(|n| (*kind, *slot, n)))
                    {
                        let (newer, older) = (young.remove(&id), old.remove(&id));
                        *young_bytes = young_bytes.saturating_sub(newer.as_ref().map_or(0, cost));
                        before.extend(newer.or(older).map(|row| (id, row)));
                    }
                } else {
                    young.retain(|id, _| !touched.has(id));
                    old.retain(|id, _| !touched.has(id));
                    *young_bytes = young.values().map(cost).sum();
                }
            }
        }
        state.underway = Some(touched);
        Underway { rows: self, before, after: Vec::new() }
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A commit that touches rows.
pub(super) struct Underway<'a> {
    rows: &'a Rows,
    /// Those of them that were in memory, as they are stored before it.
    before: HashMap<RowId, Bytes>,
    /// Those of them that are to be in memory, as they are stored after it.
    after: Vec<(RowId, Bytes)>,
}

impl Underway<'_> {
    /// A row as it is stored before the commit, if it was in memory.
    pub(super) fn before(&self, id: &RowId) -> Option<&Bytes> {
        self.before.get(id)
    }

    /// Keeps a row in memory, as it is stored once the commit is carried out.
    pub(super) fn keep(&mut self, id: RowId, row: Bytes) {
        self.after.push((id, row));
    }

    /// The commit was carried out.
    pub(super) fn carried_out(mut self) {
        let mut state = self.rows.lock();
        // Nobody else commits, and nothing else puts them there.
        self.after.drain(..).for_each(|(id, row)| state.insert(id, row));
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let mut state = self.rows.lock();
        state.commits = state.commits.wrapping_add(1);
        let touched = state.underway.take();
        state.committed.extend(touched);
        if state.committed.len() > MAX_COMMITS {
            state.committed.pop_front();
        }
    }
}

impl State {
    fn peek(&self, id: &RowId) -> Option<&Bytes> {
        self.young.get(id).or_else(|| self.old.get(id))
    }

    fn get(&mut self, id: &RowId) -> Option<Bytes> {
        if let Some(row) = self.young.get(id) {
            return Some(row.clone());
        }
        let row = self.old.remove(id)?;
        self.insert(*id, row.clone());
        Some(row)
    }

    fn insert(&mut self, id: RowId, row: Bytes) {
        self.young_bytes = self.young_bytes.saturating_add(cost(&row));
        if let Some(before) = self.young.insert(id, row) {
            self.young_bytes = self.young_bytes.saturating_sub(cost(&before));
        }
        if self.young_bytes > MAX_BYTES / 2 {
            self.old = mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

fn cost(row: &Bytes) -> usize {
    row.len().saturating_add(OVERHEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(row: u64) -> RowId {
        (b'n', Slot(1), row)
    }

    fn touching(rows: &[u64]) -> Touched {
        let mut touched = Touched::nothing();
        rows.iter().for_each(|row| touched.add(id(*row)));
        touched
    }

    fn row(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn what_a_commit_touches_is_not_found_from_its_beginning_on() {
        let rows = Rows::default();
        let (found, moment) = rows.get_all(&[id(1), id(2)]);
        assert_eq!(found, [None, None]);
        let kept = [(id(1), row("one")), (id(2), row("two"))];
        rows.keep(kept.iter().map(|(id, row)| (id, row)), moment);
        assert_eq!(rows.get_all(&[id(1), id(2)]).0, [Some(row("one")), Some(row("two"))]);
        let held = rows.get_all(&[id(2)]).0.remove(0).unwrap();
        assert!(rows.still_has([(&id(2), &held)]));

        let underway = rows.begin(touching(&[2, 3, 4]));
        assert_eq!(rows.get_all(&[id(1), id(2)]).0, [Some(row("one")), None]);
        assert!(!rows.still_has([(&id(2), &held)]));
        drop(underway);
        assert_eq!(rows.get_all(&[id(1), id(2)]).0, [Some(row("one")), None]);
    }

    #[test]
    fn what_was_read_before_the_end_of_a_commit_that_touched_it_is_not_kept() {
        let rows = Rows::default();
        let (_, before) = rows.get_all(&[]);
        let underway = rows.begin(touching(&[2]));
        let (_, during) = rows.get_all(&[]);
        rows.keep([(&id(2), &row("old")), (&id(3), &row("three"))], during);
        assert_eq!(rows.get_all(&[id(2), id(3)]).0, [None, Some(row("three"))]);
        drop(underway);
        rows.keep([(&id(2), &row("old"))], before);
        rows.keep([(&id(2), &row("old"))], during);
        assert_eq!(rows.get_all(&[id(2)]).0, [None]);
        let (_, after) = rows.get_all(&[]);
        rows.keep([(&id(2), &row("new"))], after);
        assert_eq!(rows.get_all(&[id(2)]).0, [Some(row("new"))]);
        // After very many commits nobody knows what they have touched.
        (0..=MAX_COMMITS).for_each(|_| drop(rows.begin(Touched::nothing())));
        rows.keep([(&id(4), &row("old"))], after);
        assert_eq!(rows.get_all(&[id(4)]).0, [None]);
        drop(rows.begin(Touched::All));
        assert_eq!(rows.get_all(&[id(2)]).0, [None]);
    }

    #[test]
    fn a_commit_here_and_there_touches_all() {
        let scattered: Vec<u64> = (0..1000).map(|n| n * 3).collect();
        assert_eq!(touching(&scattered), Touched::All);
        assert_eq!(touching(&[7, 7, 8, 9]), Touched::Runs(vec![(b'n', Slot(1), 7..10)]));
        let long = Touched::Runs(vec![(b'n', Slot(1), 0..u64::MAX)]);
        let rows = Rows::default();
        rows.keep([(&id(5), &row("five")), (&(b'b', Slot(1), 5), &row("block"))], 0);
        drop(rows.begin(long));
        assert_eq!(rows.get_all(&[id(5), (b'b', Slot(1), 5)]).0, [None, Some(row("block"))]);
    }

    #[test]
    fn only_so_much_is_kept_and_what_is_asked_for_again_stays() {
        let rows = Rows::default();
        let large = Bytes::from(vec![0; 10_000]);
        for n in 0..5_000 {
            rows.keep([(&id(n), &large)], 0);
            assert!(rows.get_all(&[id(0)]).0[0].is_some());
        }
        let state = rows.lock();
        let bytes: usize = state.young.values().chain(state.old.values()).map(cost).sum();
        assert!(bytes <= MAX_BYTES + cost(&large));
    }
}
