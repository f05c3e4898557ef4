//! How long a remote is waited for.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    error::{Error, PeerMisbehaved},
    limits::Limits,
};

/// When a connection is given up on which too little comes.
///
/// Life is a whole frame. The bytes of one that is not complete buy time at [`Limits::min_frame_rate`]: who sends at
/// least that fast is always in time, however long the frame, and who trickles gains next to nothing. Whoever sends
/// nothing at all is given up after [`Limits::idle_timeout`], in the middle of a frame or not.
#[derive(Debug)]
pub(super) struct Patience {
    idle: Duration,
    /// Bytes a second; at least 1.
    rate: u32,
    last_byte: Instant,
    last_frame: Instant,
    /// Bytes that have come of a frame which is not complete.
    partial: usize,
    /// Since when nothing is read, though something may be there.
    paused: Option<Instant>,
}

impl Patience {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            idle: limits.idle_timeout,
            rate: u32::try_from(limits.min_frame_rate).unwrap_or(u32::MAX).max(1),
            last_byte: now,
            last_frame: now,
            partial: 0,
            paused: None,
        }
    }

    /// Something was read. `partial` are the bytes that are left of a frame which is not complete, and `is_whole` says
    /// whether another was completed.
    pub(super) fn handle_read(&mut self, partial: usize, is_whole: bool, now: Instant) {
        self.last_byte = now;
        self.partial = partial;
        if is_whole {
            self.last_frame = now;
        }
    }

    /// Says whether what comes is read. While it isn't, nobody can tell how fast a frame comes.
    //= STREAM-20
    pub(super) fn set_reading(&mut self, is_reading: bool, now: Instant) {
        if !is_reading {
            self.paused.get_or_insert(now);
        } else if let Some(since) = self.paused.take() {
            self.last_byte = now;
            self.last_frame += now.saturating_duration_since(since);
        }
    }

    fn silent_until(&self) -> Instant {
        self.last_byte + self.idle
    }

    /// Each byte buys its time at the least rate, and all of them together a pause of [`Limits::idle_timeout`].
    //= STREAM-19
    fn frame_due(&self) -> Instant {
        let bought = Duration::from_secs(self.partial as u64) / self.rate;
        self.last_frame + self.idle + bought
    }

    /// When [`check`](Self::check) may have something to say.
    pub(super) fn deadline(&self) -> Instant {
        if self.paused.is_some() { self.silent_until() } else { self.silent_until().min(self.frame_due()) }
    }

    /// # Errors
    /// [`Error::Timeout`] if nothing came for too long; [`PeerMisbehaved::SlowFrame`] if it was too little.
    pub(super) fn check(&self, now: Instant) -> Result<(), Error> {
        if now >= self.silent_until() {
            return Err(Error::Timeout);
        }
        //= protocol-spec/04-secret-stream.md#keep-alive-and-end
        if self.paused.is_none() && now >= self.frame_due() {
            return Err(PeerMisbehaved::SlowFrame(self.partial).into());
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // any time will do to begin with
mod tests {
    use super::*;

    /// Nothing has come yet.
    fn begun() -> (Patience, Instant, Limits) {
        let (limits, now) = (Limits::default(), Instant::now());
        (Patience::new(&limits, now), now, limits)
    }

    //= STREAM-19
    #[test]
    fn the_longest_frame_may_take_hours_at_the_least_rate() {
        let (mut patience, mut now, limits) = begun();
        now += limits.idle_timeout / 2;
        let start = now;
        for second in 1..=limits.max_frame / limits.min_frame_rate {
            now += Duration::from_secs(1);
            // It doesn't come evenly.
            if second % 20 == 0 {
                patience.handle_read(second * limits.min_frame_rate, false, now);
            }
            assert!(patience.check(now).is_ok(), "after {second} seconds");
        }
        assert!(now - start > Duration::from_secs(4 * 3_600));
        patience.handle_read(0, true, now);
        assert_eq!(patience.deadline(), now + limits.idle_timeout);
    }

    //= STREAM-18
    #[test]
    fn bytes_that_trickle_are_no_life() {
        let (mut patience, start, limits) = begun();
        for second in 1.. {
            let now = start + Duration::from_secs(second);
            match patience.check(now) {
                Ok(()) => patience.handle_read(second as usize, false, now),
                Err(Error::PeerMisbehaved(PeerMisbehaved::SlowFrame(partial))) => {
                    assert_eq!(partial as u64, second - 1);
                    assert_eq!(second, limits.idle_timeout.as_secs() + 1);
                    return;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn small_frames_however_slow_are_life() {
        let (mut patience, mut now, limits) = begun();
        for _ in 0..1_000 {
            now += limits.idle_timeout / 2;
            assert!(patience.check(now).is_ok());
            patience.handle_read(3, true, now);
        }
    }

    //= STREAM-20
    #[test]
    fn a_time_in_which_nothing_is_read_counts_against_nobody() {
        let (mut patience, start, limits) = begun();
        let half = limits.idle_timeout / 2;
        patience.handle_read(1, false, start);
        patience.set_reading(false, start + half);
        patience.set_reading(false, start + half + half / 2);
        assert!(patience.check(start + half + half - Duration::from_millis(1)).is_ok());
        patience.set_reading(true, start + half + half - Duration::from_millis(1));
        assert!(patience.check(start + half + half).is_ok());
        assert!(patience.deadline() > start + half + half);
        // And when it has gone on for too long, it is over all the same.
        patience.set_reading(false, start + 2 * half);
        assert!(matches!(patience.check(start + 4 * half), Err(Error::Timeout)));
    }
}
