//! Word of truncations, for those who must not miss one.

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::Feed;

const NONE: u64 = u64::MAX;

/// The shortest length to which a feed was cut since it was last asked.
pub(in crate::feed) struct Cut(AtomicU64);

impl Cut {
    /// That length, if the feed was cut.
    pub(in crate::feed) fn take(&self) -> Option<u64> {
        Some(self.0.swap(NONE, Ordering::AcqRel)).filter(|length| *length != NONE)
    }

    /// Whether there is something to take.
    pub(in crate::feed) fn is_noted(&self) -> bool {
        self.0.load(Ordering::Acquire) != NONE
    }
}

impl Feed {
    /// Notes truncations from now on.
    pub(in crate::feed) fn watch_cuts(&self) -> Arc<Cut> {
        let cut = Arc::new(Cut(AtomicU64::new(NONE)));
        let mut cuts = self.inner.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        cuts.retain(|cut| cut.strong_count() > 0);
        cuts.push(Arc::downgrade(&cut));
        cut
    }

    /// Notes a truncation. Before the state shows it, so that whoever reads something newer finds the note.
    pub(super) fn note_cut(&self, length: u64) {
        let cuts = self.inner.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        for cut in cuts.iter().filter_map(|cut| cut.upgrade()) {
            cut.0.fetch_min(length, Ordering::AcqRel);
        }
    }
}
