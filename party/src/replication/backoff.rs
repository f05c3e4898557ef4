//! Patience with a remote that refuses what it is asked for.
//!
//! What was refused is asked for again when the remote says to have it, or after a time that grows. A remote that has
//! refused too much is left in peace altogether for a time that grows likewise, and is then tried anew: it may
//! have been short of something that it has again. Times and numbers are in [`Limits`].

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use super::ranges::Ranges;
use crate::limits::Limits;

/// What one remote has refused, and until when it is not asked.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// Requests without success; each success makes up for one.
    failures: usize,
    /// Requests of ours that the remote called invalid. Nothing makes up for these: Node ends the connection, and so
    /// the other feeds, after 64.
    invalid: usize,
    /// Pauses since the last one that helped.
    pauses: u32,
    is_paused: bool,
    /// Until when; not known before [`poll`](Self::poll).
    paused_until: Option<Instant>,
    /// Whether it is not asked any more at all.
    is_final: bool,
    /// Blocks that it has refused, though it had said to have them.
    refused: Ranges,
    /// How often what was refused was asked for again since the remote has last told anything.
    retries: u32,
    is_retry_due: bool,
    /// When; not known before [`poll`](Self::poll).
    retry_at: Option<Instant>,
}

impl Backoff {
    //= protocol-spec/07-replication.md#nodata-4
    /// Whether the remote isn't asked, for now.
    pub(super) fn is_paused(&self) -> bool {
        self.is_final || self.is_paused
    }

    /// A request was answered with what it asked for.
    pub(super) fn succeeded(&mut self) {
        self.failures = self.failures.saturating_sub(1);
        if self.failures == 0 {
            self.pauses = 0;
        }
    }

    /// A request was not answered with what it asked for. Returns whether a pause begins.
    //= REPL-54, REPL-57
    pub(super) fn failed(&mut self, invalid: bool, limits: &Limits) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.invalid = self.invalid.saturating_add(invalid.into());
        self.is_retry_due = true;
        let most = limits.max_failed_requests;
        // An eighth is left for those that may be under way.
        self.is_final |= self.invalid >= (most - most / 8).max(1);
        let too_many = self.failures >= most || (invalid && self.invalid >= most.div_ceil(2));
        let begins = too_many && !self.is_paused;
        self.is_paused |= too_many;
        begins
    }

    /// What it has refused is forgotten, but for what it has called invalid.
    pub(super) fn forgive(&mut self) {
        self.failures = 0;
        (self.is_paused, self.paused_until) = (false, None);
    }

    /// The remote has refused a block that it had said to have. Of too many, it is asked only if it says so again.
    pub(super) fn refused(&mut self, index: u64, limits: &Limits) {
        if self.refused.len() < limits.max_remote_ranges {
            self.refused.insert(index..index.saturating_add(1));
        }
    }

    /// The remote has told what it has of `range`.
    pub(super) fn told(&mut self, range: Range<u64>) {
        self.refused.remove(range);
        self.retries = 0;
    }

    /// The blocks to ask for again, if it is time to try again what was refused.
    pub(super) fn poll(&mut self, now: Instant, limits: &Limits) -> Option<Vec<Range<u64>>> {
        if self.is_paused && self.paused_until.is_none() {
            self.paused_until = now.checked_add(growing(self.pauses, limits));
            self.pauses = self.pauses.saturating_add(1);
        }
        if self.is_retry_due && self.retry_at.is_none() {
            self.retry_at = now.checked_add(growing(self.retries, limits));
        }
        if self.paused_until.is_some_and(|until| until <= now) {
            (self.is_paused, self.paused_until) = (false, None);
            // It has so many tries to show that it has changed.
            self.failures = limits.max_failed_requests / 2;
        }
        self.retry_at.take_if(|at| *at <= now)?;
        self.is_retry_due = false;
        self.retries = self.retries.saturating_add(1);
        Some(self.refused.take().collect())
    }

    /// When [`poll`](Self::poll) has something to say.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.is_final {
            return None;
        }
        self.paused_until.into_iter().chain(self.retry_at).min()
    }
}

/// The time to wait after so many in vain.
fn growing(times: u32, limits: &Limits) -> Duration {
    let factor = 2_u32.checked_pow(times).unwrap_or(u32::MAX);
    limits.retry_after.saturating_mul(factor).min(limits.max_retry_after)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // any time will do
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_limit() {
        let limits = Limits::default();
        let waits: Vec<u64> = (0..10).map(|times| growing(times, &limits).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300, 300]);
        assert_eq!(growing(u32::MAX, &limits), limits.max_retry_after);
    }

    #[test]
    fn a_pause_ends_and_the_next_is_longer_unless_it_helped() {
        let limits = Limits { max_failed_requests: 8, ..Limits::default() };
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let fail = |backoff: &mut Backoff, now| {
            let failures = (1..).find(|_| backoff.failed(false, &limits)).unwrap();
            backoff.poll(now, &limits);
            failures
        };
        assert_eq!(fail(&mut backoff, start), 8);
        backoff.poll(start + Duration::from_secs(4), &limits);
        assert!(backoff.is_paused());
        let now = start + Duration::from_secs(5);
        backoff.poll(now, &limits);
        assert!(!backoff.is_paused());
        assert_eq!(fail(&mut backoff, now), 4);
        assert!(backoff.is_paused() && backoff.paused_until == Some(now + Duration::from_secs(10)));
        backoff.poll(now + Duration::from_secs(10), &limits);
        (0..8).for_each(|_| backoff.succeeded());
        assert_eq!((fail(&mut backoff, now), backoff.paused_until), (8, Some(now + Duration::from_secs(5))));
    }

    #[test]
    fn requests_that_are_called_invalid_come_to_an_end_before_node_leaves() {
        let limits = Limits::default();
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let mut asked = 0;
        while let Some(next) = backoff.poll_timeout().or((asked == 0).then_some(now)) {
            now = now.max(next);
            backoff.poll(now, &limits);
            while !backoff.is_paused() {
                backoff.failed(true, &limits);
                backoff.succeeded();
                asked += 1;
            }
            backoff.poll(now, &limits);
        }
        assert_eq!(asked, 56);
    }
}
