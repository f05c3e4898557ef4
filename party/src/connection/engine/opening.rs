//! How many channels are being opened at a time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::turns::Turns;
use crate::key::DiscoveryKey;

/// Channels that may be opened before the remote has answered. What is asked for on those that are open stands in
/// line behind them, at both ends.
const AHEAD: usize = 64;
/// A channel that is not answered in this time doesn't keep others from being opened: the remote is far away, or
/// has not made up its mind. So a thousand take a sixth of a second more at most, however long the way.
const PATIENCE: Duration = Duration::from_millis(10);

/// Channels that wait to be opened, and those that are not answered yet.
///
/// Who opens a thousand at once could ask for the first block only when the last is open. These are opened a few
/// ahead, so that the first feeds are complete while others are still being opened.
#[derive(Debug, Default)]
pub(super) struct Openings {
    waiting: Turns,
    /// Which count, and until when.
    under_way: BTreeMap<DiscoveryKey, Instant>,
}

impl Openings {
    /// The feed is to be opened when it is its turn.
    pub(super) fn push(&mut self, key: DiscoveryKey) {
        self.waiting.push(key);
    }

    /// Whose turn it is. It counts until it is [over](Self::over).
    pub(super) fn pop(&mut self, now: Instant) -> Option<DiscoveryKey> {
        if self.under_way.len() >= AHEAD {
            self.under_way.retain(|_, until| *until > now);
        }
        if self.under_way.len() >= AHEAD {
            return None;
        }
        let key = self.waiting.pop()?;
        self.under_way.insert(key, now + PATIENCE);
        Some(key)
    }

    /// The remote has answered, or the feed is not opened after all.
    pub(super) fn over(&mut self, key: &DiscoveryKey) {
        self.under_way.remove(key);
    }

    /// How many have yet to be opened, some of which may be open already.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When [`pop`](Self::pop) may have more to give though nothing has happened.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.waiting.len() == 0 { None } else { self.under_way.values().min().copied() }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // any time will do to begin with
mod tests {
    use super::*;

    fn key(n: usize) -> DiscoveryKey {
        DiscoveryKey::from_bytes([n as u8; 32])
    }

    #[test]
    fn channels_are_opened_a_few_ahead_and_in_order() {
        let now = Instant::now();
        let mut openings = Openings::default();
        (0..200).for_each(|n| openings.push(key(n)));
        for n in 0..AHEAD {
            assert_eq!(openings.pop(now), Some(key(n)));
        }
        assert_eq!(openings.pop(now), None);
        openings.over(&key(3));
        assert_eq!((openings.pop(now), openings.pop(now)), (Some(key(AHEAD)), None));
    }

    #[test]
    fn a_remote_that_answers_none_holds_them_up_for_a_moment_only() {
        let mut now = Instant::now();
        let mut openings = Openings::default();
        (0..200).for_each(|n| openings.push(key(n)));
        let mut opened = 0;
        for _ in 0..200_usize.div_ceil(AHEAD) {
            while let Some(next) = openings.pop(now) {
                assert_eq!(next, key(opened));
                opened += 1;
            }
            now = openings.poll_timeout().unwrap_or(now);
        }
        assert_eq!((opened, openings.poll_timeout()), (200, None));
    }
}
