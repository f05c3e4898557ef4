//! How fast something may go: a token bucket, in bytes.

use std::time::{Duration, Instant};

/// For so long a bucket saves up what isn't used.
const BURST: Duration = Duration::from_millis(250);

const NANOS: u128 = 1_000_000_000;

/// So many bytes a second, on average. What may be spent is paid for afterwards: one large block is let through
/// whole, and then nothing until it is made up for.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes a second; at least 1.
    rate: u64,
    /// Bytes to spend; below 0 what is owed.
    level: i64,
    /// Up to when what has been earned is in `level`.
    at: Instant,
}

impl Bucket {
    pub(super) fn new(rate: u64, now: Instant) -> Self {
        let rate = rate.clamp(1, i64::MAX as u64);
        let mut bucket = Self { rate, level: 0, at: now };
        bucket.level = bucket.capacity();
        bucket
    }

    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    /// How much may be spent now; 0 if nothing before [`ready_at`](Self::ready_at).
    pub(super) fn budget(&mut self, now: Instant) -> usize {
        let elapsed = now.saturating_duration_since(self.at).as_nanos();
        let rate = u128::from(self.rate);
        let earned = elapsed.saturating_mul(rate) / NANOS;
        let level = self.level.saturating_add(i64::try_from(earned).unwrap_or(i64::MAX));
        if level >= self.capacity() {
            (self.level, self.at) = (self.capacity(), self.at.max(now));
        } else {
            // Parts of a byte are earned on.
            let nanos = earned.saturating_mul(NANOS) / rate;
            self.at += Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            self.level = level;
        }
        usize::try_from(self.level).unwrap_or(0)
    }

    /// When there will be something to spend.
    pub(super) fn ready_at(&self) -> Instant {
        let missing = u128::from(self.level.min(0).unsigned_abs()) + 1;
        let nanos = (missing * NANOS).div_ceil(u128::from(self.rate));
        // In a year at the latest: a time that far is no time that the machine can hold.
        let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.at + wait.min(Duration::from_secs(365 * 86_400))
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        self.level = self.level.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Takes back what was spent and not used.
    pub(super) fn refund(&mut self, bytes: usize) {
        self.level = self.level.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn capacity(&self) -> i64 {
        let burst = u128::from(self.rate) * BURST.as_nanos() / NANOS;
        i64::try_from(burst).unwrap_or(i64::MAX).max(1)
    }
}

/// How many bytes a bucket lets through now, if there is one, or else when it will.
pub(super) fn budget_of(bucket: &mut Option<Bucket>, now: Instant) -> Result<usize, Instant> {
    let Some(bucket) = bucket else { return Ok(usize::MAX) };
    match bucket.budget(now) {
        0 => Err(bucket.ready_at()),
        budget => Ok(budget),
    }
}

/// Sets the rate to so many bytes a second, if there is to be one.
pub(super) fn set_rate(bucket: &mut Option<Bucket>, rate: Option<u64>, now: Instant) {
    match rate {
        Some(rate) if bucket.as_ref().is_some_and(|bucket| bucket.rate() == rate.max(1)) => {}
        rate => *bucket = rate.map(|rate| Bucket::new(rate, now)),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_more_is_spent_than_the_rate_allows(
            rate in 1..100_000_u64,
            blocks in prop::collection::vec((1..200_000_usize, 0..5_000_u64), 1..40),
        ) {
            let start = Instant::now();
            let (mut now, mut bucket) = (start, Bucket::new(rate, start));
            let mut spent = 0_u64;
            for (block, pause) in blocks {
                now += Duration::from_millis(pause);
                if bucket.budget(now) == 0 {
                    let ready = bucket.ready_at();
                    prop_assert!(ready > now);
                    prop_assert_eq!(bucket.budget(ready - Duration::from_nanos(1)), 0);
                    now = ready;
                }
                prop_assert!(bucket.budget(now) > 0);
                bucket.spend(block);
                spent += block as u64;
                // Without the last one, which is paid for later.
                let allowed = (now - start).as_secs_f64() * rate as f64 + rate as f64 / 4.0 + 1.0;
                let paid = spent - block as u64;
                prop_assert!(paid as f64 <= allowed, "{paid} of {allowed}");
            }
        }
    }

    #[test]
    fn what_is_not_used_is_saved_up_for_a_while_only() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1000, start);
        assert_eq!(bucket.budget(start + Duration::from_secs(3600)), 250);
        bucket.spend(1250);
        assert_eq!(bucket.ready_at(), start + Duration::from_secs(3600) + Duration::from_millis(1001));
        bucket.refund(1000);
        assert_eq!(bucket.budget(start + Duration::from_secs(3600)), 0);
        assert_eq!(bucket.budget(start + Duration::from_millis(3_600_001)), 1);
    }
}
