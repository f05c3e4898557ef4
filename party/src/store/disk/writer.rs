//! Who writes: a thread, or the caller, if it has little to write and nobody else is writing.
//!
//! A commit of a block or two takes ten to twenty microseconds, and to hand it to a thread and be woken by it several
//! times as long. So the caller carries it out itself, where that takes no waiting: nothing is before it, the database is
//! not busy with deletions, and the disk need not be waited for. Everything else is queued for the thread, which joins what
//! waits into one batch. Whoever writes has the turn to, so the order of the calls is kept.

use std::{
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use super::{
    Read, Reply,
    ahead::{ReadAhead, Touched},
    database::Work,
    engine::{Engine, Held},
    guard,
    queue::{Popped, Queue},
    submit,
};
use crate::{
    error::StorageError,
    feed::storage::{Completion, Write},
};

/// After a pause of this length, space is given back.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a database that could not be opened again is tried.
const RETRY: Duration = Duration::from_secs(1);
/// Commits that wait are carried out together, as one batch, up to about this many bytes.
const MAX_GROUP_BYTES: usize = 4 << 20;
/// What a caller carries out itself: so many values, and so many bytes.
const MAX_OWN_WRITES: usize = 32;
const MAX_OWN_BYTES: usize = 8 << 10;
/// If that took longer than this, the operating system makes writers wait. The next commits are the thread's then, so that
/// a slow disk holds up nothing but the storage.
const SLOW: Duration = Duration::from_millis(10);
const HANDED_OVER: u32 = 64;

/// What the thread does, in the order of the calls.
pub(super) enum Commit {
    Writes(Vec<Write>, Reply<()>),
    Snapshot(Reply<Held>),
    Suspend(Reply<()>),
    Resume(Reply<()>),
    /// Nothing, but there may be space to give back: a snapshot is no longer held, or a caller has committed.
    Wake,
}

/// What is shared by the thread and those who call.
pub(super) struct Writer {
    queue: Arc<Queue<Commit>>,
    reads: Arc<Queue<Read>>,
    engine: Arc<Engine>,
    ahead: Arc<ReadAhead>,
    turn: Mutex<Turn>,
}

/// Whoever holds it changes the database, and nobody else does.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// How many commits callers leave to the thread, however small they are.
    to_hand_over: u32,
}

impl Writer {
    pub(super) fn new(
        queue: Arc<Queue<Commit>>,
        reads: Arc<Queue<Read>>,
        engine: Arc<Engine>,
        ahead: Arc<ReadAhead>,
    ) -> Self {
        Self { queue, reads, engine, ahead, turn: Mutex::default() }
    }

    /// Carries out `writes` before it returns, or leaves them to the thread.
    pub(super) fn commit(&self, writes: Vec<Write>) -> Completion<()> {
        let bytes = size(&writes);
        let is_small = writes.len() <= MAX_OWN_WRITES
            && bytes <= MAX_OWN_BYTES
            && writes.iter().all(|write| matches!(write, Write::Put(..)));
        match is_small.then(|| self.turn_at_once()).flatten() {
            Some((mut turn, work)) => Box::pin(ready(self.commit_here(&mut turn, work, writes, bytes))),
            None => self.submit(|reply| Commit::Writes(writes, reply)),
        }
    }

    /// Leaves something to the thread.
    pub(super) fn submit<T: Send + 'static>(&self, commit: impl FnOnce(Reply<T>) -> Commit) -> Completion<T> {
        submit(&self.queue, commit)
    }

    /// Lets nothing more in.
    pub(super) fn close(&self) {
        self.queue.close();
    }

    /// The turn to write, if it is to be had without waiting, and nothing is before the caller; and what there is to tidy.
    fn turn_at_once(&self) -> Option<(MutexGuard<'_, Turn>, Work)> {
        let mut turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if turn.to_hand_over > 0 {
            turn.to_hand_over -= 1;
            return None;
        }
        let work = self.engine.work();
        // What is called from now on is behind the caller: the thread takes out nothing without the turn.
        (self.queue.is_idle() && work != Work::Now && self.engine.is_calm()).then_some((turn, work))
    }

    #[allow(clippy::disallowed_methods, reason = "it asks how long the disk takes")]
    fn commit_here(
        &self,
        turn: &mut Turn,
        before: Work,
        writes: Vec<Write>,
        bytes: usize,
    ) -> Result<(), StorageError> {
        let start = Instant::now();
        let result = self.carry_out(writes, bytes);
        if start.elapsed() > SLOW {
            turn.to_hand_over = HANDED_OVER;
        }
        // With nothing to do the thread sleeps until somebody has something for it.
        if before == Work::Nothing && self.engine.work() != Work::Nothing {
            self.queue.push(Commit::Wake);
        }
        result
    }

    fn carry_out(&self, writes: Vec<Write>, bytes: usize) -> Result<(), StorageError> {
        let touched = Touched::by(&writes);
        let result = guard("a commit", || self.engine.commit(writes, bytes as u64));
        self.ahead.committed(&touched);
        result
    }

    /// What the thread does, until the storage is closed: it commits in the order of the calls, and tidies in between.
    /// Gives the turn, which is to be held until the database is closed.
    pub(super) fn serve(&self) -> MutexGuard<'_, Turn> {
        loop {
            self.queue.wait(match self.engine.work() {
                Work::Nothing => None,
                Work::Soon => Some(PAUSE),
                Work::Now => Some(Duration::ZERO),
                Work::Retry => Some(RETRY),
            });
            let turn = self.turn();
            match self.queue.try_pop() {
                Popped::Closed => return turn,
                Popped::Nothing => self.tidy(),
                Popped::Item(Commit::Writes(writes, reply)) => {
                    let (replies, result) = self.commit_group(writes, reply);
                    // Who hears of it may want the turn before this thread runs again, and need not leave it the next one.
                    drop(turn);
                    for reply in replies {
                        let _ = reply.send(result.clone());
                    }
                    // However much there is to write, what was deleted must not pile up.
                    if self.engine.work() == Work::Now {
                        let _turn = self.turn();
                        self.tidy();
                    }
                }
                Popped::Item(Commit::Snapshot(reply)) => {
                    let _ = reply.send(guard("a snapshot", || self.engine.hold()));
                }
                Popped::Item(Commit::Suspend(reply)) => {
                    self.ahead.forget();
                    self.suspend(reply);
                }
                // It goes on as it is.
                Popped::Item(Commit::Resume(reply)) => {
                    let _ = reply.send(guard("resuming", || self.engine.resume()));
                }
                Popped::Item(Commit::Wake) => {}
            }
        }
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        // Nothing panics while it holds it.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits when a commit begins goes along with it as one batch: under load many of them cost little more
    /// than one. Gives those who wait for it, and what came of it.
    fn commit_group(
        &self,
        mut writes: Vec<Write>,
        reply: Reply<()>,
    ) -> (Vec<Reply<()>>, Result<(), StorageError>) {
        let mut replies = vec![reply];
        let mut bytes = size(&writes);
        let fits = |next: &Commit, bytes| match next {
            Commit::Writes(writes, _) => bytes + size(writes) <= MAX_GROUP_BYTES,
            _ => false,
        };
        while let Some(Commit::Writes(more, reply)) = self.queue.pop_if(|next| fits(next, bytes)) {
            bytes += size(&more);
            writes.extend(more);
            replies.push(reply);
        }
        (replies, self.carry_out(writes, bytes))
    }

    /// Closes the database, and waits until it is to be opened again. What is asked for meanwhile stays in the
    /// queues.
    fn suspend(&self, reply: Reply<()>) {
        self.reads.pause(true);
        let result = guard("suspending", || self.engine.suspend());
        let is_suspended = result.is_ok();
        let _ = reply.send(result);
        if is_suspended {
            self.wait_until_resumed();
        }
        self.reads.pause(false);
    }

    fn wait_until_resumed(&self) {
        loop {
            match self.queue.pop_first(|next| matches!(next, Commit::Suspend(_) | Commit::Resume(_))) {
                Some(Commit::Resume(reply)) => {
                    let result = guard("resuming", || self.engine.resume());
                    let is_over =
                        result.is_ok() || matches!(result, Err(StorageError::ChangedElsewhere { .. }));
                    let _ = reply.send(result);
                    if is_over {
                        return;
                    }
                }
                Some(Commit::Suspend(reply)) => drop(reply.send(Ok(()))),
                Some(_) => {}
                // What waits is told so by whoever serves it.
                None => return,
            }
        }
    }

    fn tidy(&self) {
        let tidied = guard("tidying", || {
            self.engine.tidy_some();
            Ok(())
        });
        if let Err(error) = tidied {
            tracing::warn!(%error, "space could not be given back");
        }
    }
}

fn size(writes: &[Write]) -> usize {
    let len = |write: &Write| match write {
        Write::Put(_, value) => value.len(),
        Write::Delete(_) | Write::Clear(_) => 0,
    };
    writes.iter().map(len).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::{
        feed::storage::{Key, Slot},
        store::disk::{live::Live, options::DiskOptions},
    };

    const HEAD: Key = Key::Head(Slot(3));

    fn put(value: &'static str) -> Vec<Write> {
        vec![Write::Put(HEAD, Bytes::from_static(value.as_bytes()))]
    }

    #[test]
    fn after_a_slow_commit_the_next_ones_are_left_to_the_thread() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), DiskOptions::default(), Box::new(|| Live::new(|| ()))).unwrap();
        let (engine, queue) = (Arc::new(engine), Arc::new(Queue::new()));
        let writer = Writer::new(queue, Arc::new(Queue::new()), engine.clone(), Arc::default());
        let head = || engine.read(|database| Ok(database.read(&[HEAD], usize::MAX)?.remove(0))).unwrap();

        writer.commit(put("at once")).now_or_never().unwrap().unwrap();
        assert_eq!(head().as_deref(), Some(&b"at once"[..]));

        writer.turn.lock().unwrap().to_hand_over = 2;
        let mut waiting = ["one", "two", "behind them"].map(|value| writer.commit(put(value)));
        assert!(waiting.iter_mut().all(|commit| commit.now_or_never().is_none()));
        assert_eq!(head().as_deref(), Some(&b"at once"[..]));

        // In place of the thread: it ends when all is done.
        writer.close();
        drop(writer.serve());
        assert!(waiting.into_iter().all(|commit| commit.now_or_never().unwrap().is_ok()));
        assert_eq!(head().as_deref(), Some(&b"behind them"[..]));
    }
}
