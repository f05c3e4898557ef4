//! Feeds that change to another fork, and feeds whose signers have contradicted themselves: the part of the
//! engine that deals with these.

use tokio::time::Instant;

use super::{Engine, instrumented};
use crate::{
    connection::{
        feeds::Line,
        forks::{self, Checked, Followed},
    },
    error::Error,
    feed::proof::Proof,
    key::DiscoveryKey,
    party::Event,
};

impl Engine {
    /// Gives the feed what its channel has brought of other forks and of conflicts.
    pub(super) fn pump_forks(&mut self, key: DiscoveryKey) {
        let Some(link) = self.feeds.get_mut(&key) else { return };
        if let Some(queue) = link.forks.start() {
            let job = forks::follow(link.feed.clone(), link.job(), queue);
            self.jobs.spawn(instrumented(&link.span, job));
        }
        let conflicts = link.forks.take_conflicts();
        let is_over = matches!(&link.channel, Line::Open(_, channel) if channel.is_over());
        for proof in conflicts {
            self.check_conflict(key, proof);
        }
        if is_over {
            self.close_feed(key, Line::Failed { for_good: true });
        }
    }

    /// A remote that was to show why what it sent doesn't verify may have had time enough.
    pub(super) fn pass_time(&mut self, key: DiscoveryKey, now: Instant) {
        let Some(link) = self.feeds.get_mut(&key) else { return };
        if let Line::Open(_, channel) = &mut link.channel
            && let Err(error) = channel.handle_timeout(now.into_std())
        {
            self.fail_feed(key, error);
        }
    }

    fn check_conflict(&mut self, key: DiscoveryKey, proof: Proof) {
        let Some(link) = self.feeds.get(&key) else { return };
        let job = forks::check(link.feed.clone(), link.job(), proof);
        self.jobs.spawn(instrumented(&link.span, job));
    }

    /// The remote has closed a feed's channel. Who shows a conflict closes right after that.
    pub(super) fn check_last_words(&mut self, key: DiscoveryKey) {
        let Some(link) = self.feeds.get_mut(&key) else { return };
        let Line::Open(_, channel) = &mut link.channel else { return };
        let last = channel.take_conflicts();
        for proof in link.forks.take_conflicts().into_iter().chain(last) {
            self.check_conflict(key, proof);
        }
    }

    pub(super) fn handle_followed(&mut self, followed: Followed) {
        self.job_ended(followed.job);
        let key = followed.job.feed;
        let Some(link) = self.feeds.get_mut(&key) else { return };
        if !link.is(followed.job) {
            return;
        }
        if link.feed.is_purged() {
            return self.end_feed(key);
        }
        link.forks.followed();
        let mut failed = None;
        if let Line::Open(_, channel) = &mut link.channel {
            link.feed.with_local(|local| {
                for (ticket, result) in followed.results {
                    let handled = channel.handle_followed(ticket, result, local);
                    failed = failed.take().or(handled.err());
                }
            });
        }
        self.dirty.insert(key);
        if let Some(error) = failed {
            self.fail_feed(key, error);
        }
    }

    pub(super) fn handle_checked(&mut self, checked: Checked) {
        let key = checked.job.feed;
        let Some(link) = self.feeds.get_mut(&key) else { return };
        if !link.is(checked.job) {
            return;
        }
        let handled = match (checked.result, &mut link.channel) {
            (Ok(is_conflict), Line::Open(_, channel)) => channel.handle_conflict_checked(is_conflict),
            (Ok(_), _) => Ok(()),
            (Err(error), _) => Err(error),
        };
        self.dirty.insert(key);
        match handled {
            Ok(()) => self.tell_conflict(key),
            Err(error) => self.fail_feed(key, error),
        }
    }

    /// Tells the app that the feed has a conflict, if it has one. Whether it was found just now or years ago, the feed gets
    /// no channel any more, whoever releases it.
    //= REPL-97
    pub(super) fn tell_conflict(&mut self, key: DiscoveryKey) {
        let Some(link) = self.feeds.get_mut(&key) else { return };
        let Some(conflict) = link.feed.conflict() else { return };
        if matches!(link.channel, Line::Down | Line::Forbidden) {
            link.channel = Line::Failed { for_good: true };
        }
        if link.forks.tells() {
            tracing::warn!(feed = %key, fork = conflict.fork, length = conflict.length, "two trees are signed");
            if !matches!(link.channel, Line::Failed { .. }) {
                self.failure.get_or_insert(Error::FeedConflict(key));
            }
            self.tell_of_feed(key, |peer, feed| Event::FeedConflict { peer, feed, conflict });
        }
    }
}
