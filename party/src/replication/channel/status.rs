//! How far a channel's two ends are.

use super::Channel;
use crate::{
    feed::local::Local,
    replication::{asking::SEGMENT, counters::Counters, have::runs, shown::Shown},
};

/// How far a replication is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether there is nothing more to get: of what is demanded, of what the remote has.
    pub in_sync: bool,
    /// Whether the remote has all that we have and it may get, or doesn't want it, or can't get it.
    pub remote_in_sync: bool,
    /// Whether the remote has refused so many requests that it isn't asked for a while.
    pub has_given_up: bool,
    /// Whether it is still to be found out if the remote makes the feed longer: it has said nothing yet, or what it
    /// said is being proved.
    pub is_updating: bool,
    /// Whether the remote says that it answers requests.
    pub remote_uploads: bool,
    /// Whether the remote says that it makes requests.
    pub remote_downloads: bool,
    /// The remote's length, as it says.
    pub remote_length: u64,
    /// The remote's fork, as it says.
    pub remote_fork: u64,
    /// How many blocks from 0 on the remote says to have without a gap.
    pub remote_contiguous_length: u64,
    /// Our requests that are not answered.
    pub waiting: usize,
    /// The remote's requests that are not answered.
    pub serving: usize,
    /// What has happened on the channel.
    pub counters: Counters,
}

/// The search for a block that we have and the remote has not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compared {
    /// The remote has all of ours below this one.
    pub(super) from: u64,
    pub(super) lacks: Option<u64>,
    /// Whether nothing has changed since.
    pub(super) done: bool,
}

impl Channel {
    /// Whether the remote says to have block `index`.
    pub fn remote_has(&self, index: u64) -> bool {
        index < self.remote.sync.length && self.remote.have.has(index)
    }

    /// How far the replication is.
    pub fn status(&self, local: &dyn Local) -> Status {
        Status {
            in_sync: self.is_in_sync(local),
            remote_in_sync: self.remote_is_in_sync(local),
            has_given_up: self.asking.backoff.is_paused(),
            is_updating: self.options.download
                && (!self.remote.synced
                    || !self.has_followed(local)
                    || self.asking.is_growing(local, &self.remote)),
            remote_uploads: self.remote.sync.uploading,
            remote_downloads: self.remote.sync.downloading,
            remote_length: self.remote.sync.length,
            remote_fork: self.remote.sync.fork,
            remote_contiguous_length: self.remote.have.next_gap(0).min(self.remote.sync.length),
            waiting: self.asking.window.waiting() + self.forks.waiting(),
            serving: self.serving.len(),
            counters: Counters { overdue: self.asking.overdue, ..self.counters },
        }
    }

    pub(super) fn is_in_sync(&self, local: &dyn Local) -> bool {
        !self.options.download
            || (self.outputs.is_empty()
                && !self.conflicts.is_suspicious()
                && self.has_followed(local)
                && self.asking.is_in_sync(local, &self.remote))
    }

    pub(super) fn remote_is_in_sync(&self, local: &dyn Local) -> bool {
        let remote = &self.remote;
        if !remote.synced || !self.serving.is_empty() || !self.push.is_idle() {
            return false;
        }
        let can_get = self.options.upload && remote.sync.downloading && remote.sync.fork == local.fork();
        let has_all = self.compared.done && self.compared.lacks.is_none();
        !can_get || (remote.sync.length >= local.length() && has_all)
    }

    /// Looks for a block that we have and the remote has not, from where it left off.
    pub(super) fn compare_blocks(&mut self, local: &dyn Local) {
        let Compared { from, lacks, .. } = self.compared;
        let (local, length) = (Shown::new(local, self.served.as_ref()), local.length());
        let from = self.remote.have.next_gap(lacks.unwrap_or(from));
        self.compared = Compared { from: from.min(length), lacks: None, done: true };
        if from >= length {
            return;
        }
        if local.has(from) {
            self.compared.lacks = Some(from);
            return;
        }
        // Both have gaps.
        let mut start = from;
        while start < length && self.compared.lacks.is_none() {
            let words = local.words(start, SEGMENT.min(length - start));
            let stored = words.iter().flat_map(|(first, words)| runs(*first, words));
            self.compared.lacks = stored
                .filter(|(run, stored)| *stored && run.end > from)
                .map(|(run, _)| (self.remote.have.next_gap(run.start.max(from)), run.end))
                .find_map(|(gap, end)| (gap < end).then_some(gap));
            start = start.saturating_add(SEGMENT);
        }
        self.compared.from = self.compared.lacks.unwrap_or(length);
    }
}
