//! Waiting a moment without going to sleep.
//!
//! To put a processor to sleep and to wake it up takes about as long as a remote on the same machine, or in the same
//! rack, takes to answer. So a connection whose last wait was a short one looks for the end of the next one for a
//! moment, giving way to all others, as an adaptive mutex does. With a remote that is farther away it never comes to
//! that: its first answer takes too long.
#![allow(clippy::disallowed_methods, reason = "it waits")]

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, task};

/// Where it takes longer than this until a thread that gave way runs again, others have use for the processor.
const GIVEN_WAY: Duration = Duration::from_micros(4);

/// Whether a connection of this process lingers. One at a time, or they would keep each other awake.
static LINGERS: AtomicBool = AtomicBool::new(false);

/// How a connection waits.
pub(super) struct Linger {
    longest: Duration,
    /// Whether the last wait was short enough that it would have been worth it.
    was_short: bool,
}

impl Linger {
    /// For waits of up to `longest`, in the runtime that this is called in. The first wait counts as one after a short one.
    ///
    /// Only where a single thread runs the tasks: giving way, it asks the system for what has come. Of several threads
    /// another one sleeps in that question, and would be woken all the same.
    pub(super) fn new(longest: Duration) -> Self {
        let is_alone = Handle::try_current().is_ok_and(|runtime| runtime.metrics().num_workers() == 1);
        let longest = if is_alone { longest } else { Duration::ZERO };
        Self { longest, was_short: true }
    }

    /// Waits for `future`; without going to sleep for a moment if `may_linger` and the last wait was short.
    pub(super) async fn wait<T>(&mut self, may_linger: bool, future: impl Future<Output = T>) -> T {
        if self.longest.is_zero() {
            return future.await;
        }
        let started = Instant::now();
        let mut lingering = None;
        let mut may_begin = may_linger && self.was_short;
        let mut future = pin!(future);
        let output = poll_fn(|context| {
            let polled = future.as_mut().poll(context);
            if polled.is_pending() {
                if may_begin {
                    lingering = Lingering::begin();
                    may_begin = false;
                }
                if lingering.is_some() && !gives_way(started, self.longest) {
                    lingering = None;
                }
                if lingering.is_some() {
                    // Comes back here when the other tasks have had their turn and sockets have been looked at.
                    let _: Poll<()> = pin!(task::yield_now()).poll(context);
                }
            }
            polled
        })
        .await;
        self.was_short = started.elapsed() < self.longest;
        output
    }
}

/// Lets other threads run. Whether none did, and there is time left.
fn gives_way(started: Instant, longest: Duration) -> bool {
    let before = Instant::now();
    thread::yield_now();
    let after = Instant::now();
    after - before < GIVEN_WAY && after - started < longest
}

/// The one that lingers, until it is dropped.
struct Lingering;

impl Lingering {
    fn begin() -> Option<Self> {
        (!LINGERS.swap(true, Ordering::Relaxed)).then_some(Self)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        LINGERS.store(false, Ordering::Relaxed);
    }
}
