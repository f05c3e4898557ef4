//! How much has come and gone: blocks of a feed, or of all feeds of a peer.

use std::{
    ops::{Add, Sub},
    sync::atomic::{AtomicU64, Ordering},
};

/// Blocks that were replicated, in both directions.
///
/// ```
/// use party::feed::Traffic;
///
/// let (mut a, mut b) = (Traffic::default(), Traffic::default());
/// (a.blocks_received, a.bytes_received) = (2, 200);
/// (b.blocks_received, b.blocks_sent) = (1, 5);
/// assert_eq!(((a + b).blocks_received, (a + b).blocks_sent), (3, 5));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Blocks that came, were verified and stored.
    pub blocks_received: u64,
    /// Bytes of them.
    pub bytes_received: u64,
    /// Blocks that were sent.
    pub blocks_sent: u64,
    /// Bytes of them.
    pub bytes_sent: u64,
    /// Proofs that came and did not verify.
    pub invalid_proofs: u64,
    /// Requests of ours that were refused.
    pub refused_by_remote: u64,
    /// Requests that we refused.
    pub refused_by_us: u64,
}

impl Traffic {
    fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            blocks_received: f(self.blocks_received, other.blocks_received),
            bytes_received: f(self.bytes_received, other.bytes_received),
            blocks_sent: f(self.blocks_sent, other.blocks_sent),
            bytes_sent: f(self.bytes_sent, other.bytes_sent),
            invalid_proofs: f(self.invalid_proofs, other.invalid_proofs),
            refused_by_remote: f(self.refused_by_remote, other.refused_by_remote),
            refused_by_us: f(self.refused_by_us, other.refused_by_us),
        }
    }
}

impl Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }
}

/// What has come and gone since an earlier moment.
impl Sub for Traffic {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        self.zip(earlier, u64::saturating_sub)
    }
}

/// Counts traffic for those who read it from elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Tally([AtomicU64; 7]);

impl Tally {
    pub(crate) fn count(&self, news: Traffic) {
        let news = [
            news.blocks_received,
            news.bytes_received,
            news.blocks_sent,
            news.bytes_sent,
            news.invalid_proofs,
            news.refused_by_remote,
            news.refused_by_us,
        ];
        for (count, news) in self.0.iter().zip(news).filter(|(_, news)| *news > 0) {
            count.fetch_add(news, Ordering::Relaxed);
        }
    }

    pub(crate) fn total(&self) -> Traffic {
        let [blocks_received, bytes_received, blocks_sent, bytes_sent, invalid, by_remote, by_us] =
            self.0.each_ref().map(|count| count.load(Ordering::Relaxed));
        Traffic {
            blocks_received,
            bytes_received,
            blocks_sent,
            bytes_sent,
            invalid_proofs: invalid,
            refused_by_remote: by_remote,
            refused_by_us: by_us,
        }
    }
}
