//! A queue between tasks that don't block and threads that do.

use std::{
    collections::VecDeque,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How often a thread that lingers gives way to others before it goes to sleep: some tens of microseconds, where
/// nobody else has anything to do.
const LINGER: usize = 256;
/// Where it takes longer than this until a thread that gave way runs again, others have use for the processor.
const GIVEN_WAY: Duration = Duration::from_micros(4);

/// First in, first out, until it is closed; what is in it then is still taken out.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// Whether there is something to take, for who looks without the lock.
    has_items: AtomicBool,
    /// Whether a thread that waits is awake.
    lingers: AtomicBool,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    is_closed: bool,
    is_paused: bool,
}

/// What [`Queue::try_pop`] gives.
#[derive(Debug)]
pub(super) enum Popped<T> {
    Item(T),
    /// The queue is empty.
    Nothing,
    /// The queue is closed and empty.
    Closed,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        let state = State { items: VecDeque::new(), is_closed: false, is_paused: false };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            has_items: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
        }
    }

    /// Adds `item`; `false` if the queue is closed.
    pub(super) fn push(&self, item: T) -> bool {
        let mut state = self.lock();
        if state.is_closed {
            return false;
        }
        state.items.push_back(item);
        self.has_items.store(true, Ordering::Release);
        drop(state);
        // Who is awake looks once more before it goes to sleep.
        if !self.lingers.load(Ordering::SeqCst) {
            self.changed.notify_one();
        }
        true
    }

    /// Waits for an item; `None` when the queue is closed and empty. While it is paused and not closed, there
    /// is none.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if !state.is_paused || state.is_closed {
                if let Some(item) = self.take(&mut state) {
                    return Some(item);
                }
                if state.is_closed {
                    return None;
                }
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// As [`pop`](Self::pop), after a moment without going to sleep. For what is awaited one after the other, each of
    /// which takes about as long as to wake a thread does.
    pub(super) fn pop_soon(&self) -> Option<T> {
        self.linger();
        self.pop()
    }

    /// The first item. If there are more, another thread is woken for them.
    fn take(&self, state: &mut State<T>) -> Option<T> {
        let item = state.items.pop_front();
        self.has_items.store(!state.items.is_empty(), Ordering::Release);
        if item.is_some() && !state.items.is_empty() {
            self.changed.notify_one();
        }
        item
    }

    /// Waits a moment without going to sleep, as long as nobody else has use for the processor.
    #[allow(clippy::disallowed_methods, reason = "it waits")]
    fn linger(&self) {
        // One at a time, or threads would keep each other awake.
        if self.lingers.swap(true, Ordering::SeqCst) {
            return;
        }
        for _ in 0..LINGER {
            let before = Instant::now();
            if self.has_items.load(Ordering::Acquire) {
                break;
            }
            thread::yield_now();
            if before.elapsed() > GIVEN_WAY {
                break;
            }
        }
        self.lingers.store(false, Ordering::SeqCst);
    }

    /// Waits for an item or the end, but not longer than `timeout`, and takes nothing out.
    pub(super) fn wait(&self, timeout: Option<Duration>) {
        let state = self.lock();
        let is_waiting = |state: &mut State<T>| state.items.is_empty() && !state.is_closed;
        match timeout {
            None => drop(self.changed.wait_while(state, is_waiting)),
            Some(timeout) => drop(self.changed.wait_timeout_while(state, timeout, is_waiting)),
        }
    }

    /// Takes the first item, if there is one.
    pub(super) fn try_pop(&self) -> Popped<T> {
        let mut state = self.lock();
        match self.take(&mut state) {
            Some(item) => Popped::Item(item),
            None if state.is_closed => Popped::Closed,
            None => Popped::Nothing,
        }
    }

    /// Whether it is open and empty.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.items.is_empty() && !state.is_closed
    }

    /// Waits for the first item that `accept` likes, past the others; `None` when the queue is closed.
    pub(super) fn pop_first(&self, accept: impl Fn(&T) -> bool) -> Option<T> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(n) = state.items.iter().position(&accept) {
                return state.items.remove(n);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets nothing out for a while, or again.
    pub(super) fn pause(&self, is_paused: bool) {
        self.lock().is_paused = is_paused;
        self.changed.notify_all();
    }

    /// Takes the first item if there is one and `accept` likes it.
    pub(super) fn pop_if(&self, accept: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut state = self.lock();
        if state.items.front().is_some_and(accept) { self.take(&mut state) } else { None }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Lets nothing more in.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Nothing panics while it holds the lock, so what a poisoned one guards is whole.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
