//! How much is asked for over one connection at a time.
//!
//! A window of requests, for all feeds of the connection together, that follows the latency as TCP Vegas does: it
//! grows while answers come as fast as they ever did, and shrinks when requests only wait in the remote's queue. A
//! slow peer is so left with few requests, and what it doesn't deliver is soon asked of others.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::limits::Limits;

/// Requests that may always be under way.
const MIN_WINDOW: usize = 4;
/// Requests that may be under way before anything is known of the remote.
const FIRST_WINDOW: usize = 64;
/// The window while the time to an answer is measured without a queue.
const DRAINED_WINDOW: f64 = 2.0;
/// How long a request may wait in the remote's queue, over the shortest time that an answer takes.
const TARGET: Duration = Duration::from_millis(150);
/// For so long the shortest time to an answer is believed.
const BASE_LIFETIME: Duration = Duration::from_secs(10);
/// An answer that takes so many times as long as usual is overdue...
const OVERDUE_FACTOR: u32 = 4;
/// ...but not before this has passed...
const MIN_PATIENCE: Duration = Duration::from_secs(1);
/// ...and when this has.
const MAX_PATIENCE: Duration = Duration::from_secs(30);
/// A remote that did not answer in time isn't asked for this time, which doubles each time that it is too late
/// again...
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// ...up to this.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// How long the first answers may take.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);

/// The requests under way on a connection. Shared by its channels.
///
/// ```
/// use std::sync::Arc;
/// use party::{limits::Limits, replication::Pace};
///
/// let pace = Arc::new(Pace::new(&Limits::default()));
/// assert!(pace.has_room() && pace.under_way() == 0);
/// ```
#[derive(Debug)]
pub struct Pace {
    inner: Mutex<Inner>,
    max_requests: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Inner {
    /// In requests; grows by parts of one.
    window: f64,
    requests: usize,
    /// As they were estimated when they were asked for.
    bytes: usize,
    /// The shortest time to an answer lately.
    base: Option<Duration>,
    /// The shortest since when.
    fresh: Option<(Duration, Instant)>,
    /// Whether the window was closed to measure that.
    drained: bool,
    /// The usual time to an answer, and how far it usually is from that.
    usual: Option<(Duration, Duration)>,
    shrunk: Option<Instant>,
    /// How often it was too late since it was last in time.
    overdue: u32,
    /// It isn't asked before.
    paused_until: Option<Instant>,
}

impl Pace {
    /// Of a connection that has asked for nothing yet.
    pub fn new(limits: &Limits) -> Self {
        let inner = Inner {
            window: FIRST_WINDOW.min(limits.max_inflight_requests) as f64,
            requests: 0,
            bytes: 0,
            base: None,
            fresh: None,
            drained: false,
            usual: None,
            shrunk: None,
            overdue: 0,
            paused_until: None,
        };
        Self {
            inner: Mutex::new(inner),
            max_requests: limits.max_inflight_requests,
            max_bytes: limits.max_inflight_bytes,
        }
    }

    /// Whether another request may be made now.
    pub fn has_room(&self) -> bool {
        let inner = self.inner();
        inner.requests < inner.window as usize && (inner.bytes < self.max_bytes || inner.requests < 2)
    }

    /// Requests that are not answered.
    pub fn under_way(&self) -> usize {
        self.inner().requests
    }

    /// How many requests may be under way now.
    pub fn window(&self) -> usize {
        self.inner().window as usize
    }

    /// The usual time from a request to its answer, once there was one.
    pub fn latency(&self) -> Option<Duration> {
        self.inner().usual.map(|(usual, _)| usual)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One channel's requests among those of its connection. They are forgotten when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    pace: Arc<Pace>,
    requests: usize,
    bytes: usize,
}

impl Share {
    pub(super) fn of(pace: &Arc<Pace>) -> Self {
        Self { pace: Arc::clone(pace), requests: 0, bytes: 0 }
    }

    pub(super) fn has_room(&self) -> bool {
        self.pace.has_room()
    }

    /// After how long an answer to a request made now is overdue.
    pub(super) fn patience(&self) -> Duration {
        self.pace.inner().patience()
    }

    /// The remote did not answer in time what others had to be asked for. It is left alone for a while, and then tried
    /// with one request: it may take as little as possible with it that somebody waits for.
    pub(super) fn overdue(&self, now: Instant) {
        let mut inner = self.pace.inner();
        if inner.paused_until.is_some_and(|until| now < until) {
            return;
        }
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(inner.overdue)).min(MAX_PAUSE);
        inner.overdue = inner.overdue.saturating_add(1);
        inner.paused_until = now.checked_add(pause);
        inner.window = 1.0;
    }

    /// Until when the remote is left alone.
    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.pace.inner().paused_until.filter(|until| now < *until)
    }

    /// A request is made whose answer is about so large.
    pub(super) fn ask(&mut self, bytes: usize) {
        self.requests += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        let mut inner = self.pace.inner();
        inner.requests += 1;
        inner.bytes = inner.bytes.saturating_add(bytes);
    }

    /// A request is over that says nothing about the time that an answer takes.
    pub(super) fn forget(&mut self, bytes: usize) {
        self.requests = self.requests.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        let mut inner = self.pace.inner();
        inner.requests = inner.requests.saturating_sub(1);
        inner.bytes = inner.bytes.saturating_sub(bytes);
    }

    /// A request was answered.
    pub(super) fn answered(&mut self, bytes: usize, asked: Instant, now: Instant) {
        self.forget(bytes);
        let max = self.pace.max_requests as f64;
        self.pace.inner().learn(now.saturating_duration_since(asked), now, max);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut inner = self.pace.inner();
        inner.requests = inner.requests.saturating_sub(self.requests);
        inner.bytes = inner.bytes.saturating_sub(self.bytes);
    }
}

impl Inner {
    fn learn(&mut self, latency: Duration, now: Instant, max: f64) {
        let (fresh, since) = self.fresh.map_or((latency, now), |(fresh, since)| (fresh.min(latency), since));
        let old = self.base.map_or(latency, |base| base.min(latency));
        let expired = now.saturating_duration_since(since) >= BASE_LIFETIME;
        self.fresh = Some(if expired { (latency, now) } else { (fresh, since) });
        // Answers that have all become slower may be our own queue at the remote. It is drained once to see.
        let suspicious = expired && !self.drained && fresh > old + old / 4;
        if suspicious {
            self.window = self.window.min(DRAINED_WINDOW);
        }
        self.drained = if expired { suspicious } else { self.drained };
        let base = if expired && !suspicious { fresh } else { old };
        self.base = Some(base);
        // As TCP smooths its round-trip time, RFC 6298.
        self.usual = Some(match self.usual {
            None => (latency, latency / 2),
            Some((usual, spread)) => ((usual * 7 + latency) / 8, (spread * 3 + usual.abs_diff(latency)) / 4),
        });
        if latency <= MAX_PATIENCE {
            (self.overdue, self.paused_until) = (0, None);
        }
        if latency <= base + TARGET {
            // Only a window that is used says something by not being too large.
            if self.requests as f64 + 1.0 >= self.window / 2.0 {
                self.window = (self.window + 1.0).min(max);
            }
        } else if self.shrunk.is_none_or(|shrunk| now.saturating_duration_since(shrunk) >= latency) {
            self.shrunk = Some(now);
            self.window = (self.window * 0.75).max(MIN_WINDOW as f64).min(max);
        }
    }

    fn patience(&self) -> Duration {
        match self.usual {
            None => FIRST_PATIENCE,
            Some((usual, spread)) => {
                ((usual + spread * 4) * OVERDUE_FACTOR).clamp(MIN_PATIENCE, MAX_PATIENCE)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // any time will do to begin with
mod tests {
    use super::*;

    /// Asks whenever there is room of a remote that answers one request each `every`, after `delay`; gives the
    /// window at the end.
    fn settle(every: Duration, delay: Duration) -> usize {
        let pace = Arc::new(Pace::new(&Limits::default()));
        let mut share = Share::of(&pace);
        let start = Instant::now();
        let mut asked = std::collections::VecDeque::new();
        for tick in 0..20_000 {
            let now = start + every * tick;
            while share.has_room() {
                share.ask(100);
                asked.push_back(now);
            }
            let at = asked.pop_front().unwrap();
            share.answered(100, at, now.max(at + delay));
        }
        pace.window()
    }

    #[test]
    fn the_window_opens_for_a_fast_peer_and_closes_for_a_slow_one() {
        assert_eq!(
            settle(Duration::from_micros(10), Duration::from_micros(500)),
            Limits::default().max_inflight_requests
        );
        // A request a 50 ms: more than a few would only wait.
        assert!(settle(Duration::from_millis(50), Duration::from_millis(50)) <= 2 * MIN_WINDOW);
        // Far away but quick: as many as are answered in a round trip, and more.
        assert!(settle(Duration::from_millis(1), Duration::from_millis(200)) >= 200);
    }

    #[test]
    fn a_channel_that_ends_gives_its_requests_back() {
        let pace = Arc::new(Pace::new(&Limits::default()));
        let (mut a, mut b) = (Share::of(&pace), Share::of(&pace));
        let now = Instant::now();
        a.ask(10);
        b.ask(10);
        drop(a);
        assert_eq!(pace.under_way(), 1);
        b.answered(10, now, now + Duration::from_millis(3));
        assert_eq!((pace.under_way(), pace.latency()), (0, Some(Duration::from_millis(3))));
    }
}
