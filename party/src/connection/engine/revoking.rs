//! Rules that have changed their mind: what is not allowed any more stops, what is allowed now begins.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{sync::oneshot, time::Instant};

use super::Engine;
use crate::{
    connection::{feeds::Line, jobs::FeedJob, members::Standing},
    key::DiscoveryKey,
    party::{Event, Hub, Reevaluated},
    peer::MemberId,
};

/// Somebody waits until something has stopped.
pub(in crate::connection) struct Stop {
    reply: oneshot::Sender<Reevaluated>,
    result: Reevaluated,
    /// Jobs that may still store something: how many of each are to end.
    jobs: BTreeMap<FeedJob, usize>,
    /// By when the transport must have taken what was sealed before; `None` once it has, or before it is known
    /// how much that is.
    written: Written,
}

enum Written {
    Unknown,
    /// When the driver has written so many bytes in all.
    At {
        total: u64,
        deadline: Instant,
    },
    Done,
}

impl Stop {
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.written {
            Written::At { deadline, .. } => Some(deadline),
            Written::Unknown | Written::Done => None,
        }
    }

    fn is_over(&self) -> bool {
        self.jobs.is_empty() && matches!(self.written, Written::Done)
    }
}

impl Engine {
    /// Asks the rules of a party again, about one feed or all.
    pub(super) fn reevaluate(
        &mut self,
        hub: &Arc<Hub>,
        feed: Option<DiscoveryKey>,
        reply: oneshot::Sender<Reevaluated>,
    ) {
        let jobs = self.running_jobs();
        let mut result = Reevaluated::default();
        for member in self.members.of_hub(hub) {
            if feed.is_none() {
                result.stopped += self.reconsider_member(member);
            }
            // It has another number now if it was removed.
            let Some(peer) = self.members.admitted(member).map(|admitted| admitted.peer.clone()) else {
                continue;
            };
            let released: Vec<DiscoveryKey> = match feed {
                Some(feed) => vec![feed],
                None => self.feeds.keys().copied().collect(),
            };
            for key in released {
                let Some(link) = self.feeds.get_mut(&key) else { continue };
                let feed = link.feed.key();
                let Some(release) = link.released_by.get_mut(&member) else { continue };
                release.reevaluate(&peer, &link.feed);
                let changed = self.regard(key);
                if changed.stopped > 0
                    && let Some(release) = self.feeds.get(&key).and_then(|link| link.released_by.get(&member))
                {
                    release.log(&peer, &feed);
                }
                result += changed;
            }
        }
        self.answer_when_stopped(result, jobs, reply);
    }

    /// Ends a membership.
    pub(super) fn dismiss(&mut self, member: MemberId, reply: oneshot::Sender<Reevaluated>) {
        let jobs = self.running_jobs();
        let mut result = Reevaluated::default();
        if self.members.admitted(member).is_some() {
            result.stopped = 1;
            self.remove_member(member, Standing::Gone);
        }
        self.answer_when_stopped(result, jobs, reply);
    }

    /// A member takes a release back.
    pub(super) fn withdraw(
        &mut self,
        member: MemberId,
        key: DiscoveryKey,
        reply: oneshot::Sender<Reevaluated>,
    ) {
        let jobs = self.running_jobs();
        let mut result = Reevaluated::default();
        if let Some(admitted) = self.members.admitted(member)
            && let Some(link) = self.feeds.get_mut(&key)
            && link.released_by.contains_key(&member)
        {
            result.stopped = 1;
            if link.take_back(member, &admitted.peer) {
                self.end_feed(key);
            } else {
                self.regard(key);
            }
        }
        self.answer_when_stopped(result, jobs, reply);
    }

    /// Whether it costs something from the beginning.
    pub(in crate::connection) fn begin_metered(&mut self, metered: bool) {
        self.metered = metered;
    }

    /// The way to the remote costs something from now on, or does no more.
    pub(super) fn set_metered(&mut self, metered: bool, reply: oneshot::Sender<Reevaluated>) {
        let jobs = self.running_jobs();
        let mut result = Reevaluated::default();
        if std::mem::replace(&mut self.metered, metered) != metered {
            for key in self.feeds.keys().copied().collect::<Vec<_>>() {
                result += self.regard(key);
            }
        }
        self.answer_when_stopped(result, jobs, reply);
    }

    //= protocol-spec/08-party.md#party-mode
    /// Sees to it that of a feed no more is done than is allowed, and no less.
    //= PARTY-98, PARTY-105, PARTY-99
    pub(super) fn regard(&mut self, key: DiscoveryKey) -> Reevaluated {
        let mut result = Reevaluated::default();
        let Some(link) = self.feeds.get_mut(&key) else { return result };
        let (changed, is_new) = (link.reconsider(self.metered), link.take_new());
        match (link.is_forbidden(), &link.channel) {
            (true, Line::Forbidden) => {
                if changed || is_new {
                    self.tell_forbidden(key);
                }
            }
            (true, Line::Failed { for_good: true }) => {}
            (true, _) => {
                result.stopped = 1;
                self.close_feed(key, Line::Forbidden);
                self.tell_forbidden(key);
            }
            (false, Line::Forbidden) => {
                link.channel = Line::Down;
                // Not for one that was released just now: it is opened by who has released it, if at all.
                if !is_new {
                    result.started = 1;
                    if let Err(error) = self.open_feed(key) {
                        tracing::debug!(feed = %key, %error, "can't open a feed that is allowed again");
                    }
                }
            }
            (false, _) if changed => {
                result.stopped = usize::from(link.has_narrowed());
                result.started = usize::from(!link.has_narrowed());
                if let Err(error) = link.apply(self.finite) {
                    self.fail_feed(key, error);
                }
            }
            (false, _) => {}
        }
        self.dirty.insert(key);
        result
    }

    fn tell_forbidden(&self, key: DiscoveryKey) {
        let Some(link) = self.feeds.get(&key) else { return };
        for member in link.released_by.keys() {
            self.tell_still_forbidden(key, *member);
        }
    }

    /// Tells one member that a feed which it has released is forbidden, if it is.
    pub(super) fn tell_still_forbidden(&self, key: DiscoveryKey, member: MemberId) {
        let Some(link) = self.feeds.get(&key).filter(|link| link.is_forbidden()) else { return };
        if let Some(release) = link.released_by.get(&member)
            && let Some(member) = self.members.get(member)
            && let Some(admitted) = member.admitted()
        {
            let (peer, decision) = (admitted.peer.clone(), release.serve().clone());
            member.hub.tell(Event::FeedForbidden { peer, feed: key, decision });
        }
    }

    /// What may be stored even though it is not allowed any more: whoever has forbidden it is told when that is over.
    //= PARTY-101
    pub(super) fn running_jobs(&self) -> BTreeMap<FeedJob, usize> {
        let running = self.feeds.values().map(|link| (link.job(), link.jobs_running()));
        running.filter(|(_, running)| *running > 0).collect()
    }

    pub(super) fn job_ended(&mut self, job: FeedJob) {
        for stop in &mut self.stops {
            if let Some(running) = stop.jobs.get_mut(&job) {
                *running -= 1;
                if *running == 0 {
                    stop.jobs.remove(&job);
                }
            }
        }
        self.answer_stops();
    }

    /// Answers when `jobs` are over and the transport has taken what was sealed till now.
    pub(super) fn answer_when_stopped(
        &mut self,
        result: Reevaluated,
        jobs: BTreeMap<FeedJob, usize>,
        reply: oneshot::Sender<Reevaluated>,
    ) {
        if result.stopped == 0 {
            let _ = reply.send(result);
            return;
        }
        self.stops.push(Stop { reply, result, jobs, written: Written::Unknown });
    }

    /// Tells how many bytes have been written to the transport in all, and how many more are sealed.
    pub(in crate::connection) fn written(&mut self, total: u64, unsent: usize, now: Instant) {
        if self.stops.is_empty() {
            return;
        }
        for stop in &mut self.stops {
            match stop.written {
                Written::Unknown if unsent == 0 => stop.written = Written::Done,
                Written::Unknown => {
                    let deadline = now + self.limits.revocation_timeout;
                    stop.written = Written::At { total: total + unsent as u64, deadline };
                }
                Written::At { total: enough, .. } if total >= enough => stop.written = Written::Done,
                Written::At { .. } | Written::Done => {}
            }
        }
        self.answer_stops();
    }

    /// Whether the remote has had enough time to take what had been sealed.
    pub(in crate::connection) fn is_stuck(&self, now: Instant) -> bool {
        self.stops.iter().filter_map(Stop::deadline).any(|deadline| deadline <= now)
    }

    fn answer_stops(&mut self) {
        for stop in self.stops.extract_if(.., |stop| stop.is_over()) {
            let _ = stop.reply.send(stop.result);
        }
    }
}
