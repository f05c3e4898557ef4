//! A run: everything is made, the events take place, and everything is looked at.
// Time is virtual here: it is what the paused runtime says.
#![allow(clippy::disallowed_methods)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle},
    time::{Instant, sleep, sleep_until},
};

use super::{
    Config, Faults, Report,
    adversary::Adversary,
    checker::{Checker, Invariant},
    directory::Directory,
    member::Member,
    network::Network,
    plan::{Happening, Plan, Role},
    trace::Trace,
};
use crate::dice::Dice;

/// How often it is looked whether everybody has everything.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often it is looked whether all keep to their bounds.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
/// The share of a run, and the least time, that all have to come to rest after the last fault.
const REST: f64 = 0.15;
const LEAST_REST: Duration = Duration::from_secs(300);
/// Tasks that a peer may have by itself, and each end of a connection for what it does at a time.
const TASKS_OF_PEER: usize = 24;
const TASKS_OF_CONNECTION: usize = 8;

/// What all peers of a run share.
pub(super) struct World {
    pub(super) config: Config,
    pub(super) plan: Plan,
    pub(super) directory: Arc<Directory>,
    pub(super) checker: Arc<Checker>,
    pub(super) network: Network,
    trace: Arc<Trace>,
    start: Instant,
    most_tasks: AtomicUsize,
}

/// Lets a run take its course, in this thread, and says how it went.
///
/// # Panics
/// If no runtime can be made.
#[must_use]
pub fn run(config: &Config) -> Report {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime can be made").block_on(course(config.clone()))
}

async fn course(config: Config) -> Report {
    let plan = Plan::new(&config);
    let directory = Arc::new(Directory::new(&plan));
    let trace = Arc::new(Trace::new(config.keep_lines));
    let start = Instant::now();
    let checker = Arc::new(Checker::new(directory.clone(), trace.clone(), move || start.elapsed()));
    let links = plan.links.iter().map(|link| link.quality).collect();
    let network = Network::new(links, trace.clone(), Dice::apart(config.seed, "network", 0));
    let most_tasks = AtomicUsize::new(0);
    let world = Arc::new(World { config, plan, directory, checker, network, trace, start, most_tasks });

    let mut members: Vec<Option<Arc<Member>>> = Vec::new();
    for (peer, plan) in world.plan.peers.iter().enumerate() {
        if plan.role == Role::Honest {
            let member = Arc::new(Member::new(&world, peer));
            member.live(&world);
            members.push(Some(member));
        } else {
            world.log(&format!("peer {peer} is {:?}", plan.role));
            Adversary::new(&world, peer).live();
            members.push(None);
        }
    }
    let measuring = tokio::spawn(world.clone().measure(members.clone()));
    let mut faults = Faults::default();
    let (events, converged_after) = tokio::select! {
        biased;
        () = world.checker.failed() => (world.events_till(start.elapsed()), None),
        result = world.play(&members, &mut faults) => result,
    };
    measuring.abort();
    Report {
        violation: world.checker.violation(),
        hash: world.trace.hash(),
        counts: world.checker.counts(),
        connections: world.network.dialled(),
        faults,
        malicious: members.iter().filter(|member| member.is_none()).count(),
        traffic: world.trace.traffic(),
        most_tasks: world.most_tasks.load(Ordering::Relaxed),
        events,
        converged_after,
        lines: world.trace.lines(),
    }
}

impl World {
    /// The links that a peer dials, and whom each of them leads to.
    pub(super) fn dials_of(&self, peer: usize) -> impl Iterator<Item = (usize, usize)> {
        let links = self.plan.links.iter().enumerate();
        links.filter(move |(_, link)| link.ends[0] == peer).map(|(number, link)| (number, link.ends[1]))
    }

    fn log(&self, line: &str) {
        self.trace.line(self.start.elapsed(), line);
    }

    fn events_till(&self, at: Duration) -> usize {
        let count = self.config.events.unwrap_or(usize::MAX);
        self.plan.events.iter().take(count).take_while(|event| event.at <= at).count()
    }

    /// Lets all events take place, and then waits until everybody has everything.
    async fn play(
        self: &Arc<Self>,
        members: &[Option<Arc<Member>>],
        faults: &mut Faults,
    ) -> (usize, Option<Duration>) {
        let count = self.config.events.unwrap_or(usize::MAX).min(self.plan.events.len());
        let mut over = Duration::ZERO;
        for (number, event) in self.plan.events.iter().take(count).enumerate() {
            over = over.max(event.over());
            sleep_until(self.start + event.at).await;
            self.log(&event.what.to_string());
            self.befall(number as u64, &event.what, members, faults);
        }
        sleep_until(self.start + over).await;
        let rest = self.config.duration.mul_f64(REST).max(LEAST_REST);
        let converged_after = loop {
            let after = self.start.elapsed() - over;
            match self.missing(members) {
                None => break Some(after),
                Some(what) if after > rest => {
                    self.checker.fail(Invariant::Convergence, what);
                    break None;
                }
                Some(_) => sleep(LOOK_EVERY).await,
            }
        };
        if converged_after.is_some() {
            self.log("everybody has everything");
            // It stays so till the end.
            sleep_until(self.start + self.config.duration).await;
            for (peer, circle) in circles(members) {
                let writers = self.directory.circle(peer);
                self.checker.audit(peer, circle.store(), &writers).await;
            }
            if let Some(what) = self.missing(members) {
                self.checker.fail(Invariant::Convergence, what);
            }
        }
        (count, converged_after)
    }

    fn befall(
        self: &Arc<Self>,
        number: u64,
        what: &Happening,
        members: &[Option<Arc<Member>>],
        faults: &mut Faults,
    ) {
        let world = self.clone();
        match what {
            Happening::Append { peer, number } => {
                if let Some(member) = &members[*peer] {
                    member.append(*number);
                }
            }
            Happening::Cut { link } => {
                faults.cuts += 1;
                self.network.cut(*link);
            }
            Happening::Restart { peer, down } => {
                let Some(member) = members[*peer].clone() else { return };
                faults.restarts += 1;
                faults.lost_commits += member.die(self);
                let (peer, down) = (*peer, *down);
                tokio::spawn(async move {
                    sleep(down).await;
                    world.log(&format!("peer {peer} lives again"));
                    member.live(&world);
                });
            }
            Happening::Part { side, lasts } => {
                faults.partitions += 1;
                self.network.part(number, side.clone());
                let lasts = *lasts;
                tokio::spawn(async move {
                    sleep(lasts).await;
                    world.log("the network is whole again");
                    world.network.heal(number);
                });
            }
            Happening::Slow { link, quality, lasts } => {
                faults.slow_links += 1;
                let (link, lasts) = (*link, *lasts);
                self.network.set_quality(link, *quality);
                tokio::spawn(async move {
                    sleep(lasts).await;
                    world.log(&format!("link {link} is as fast as before"));
                    world.network.set_quality(link, world.plan.links[link].quality);
                });
            }
        }
    }

    /// What somebody lacks, if anybody does.
    fn missing(&self, members: &[Option<Arc<Member>>]) -> Option<String> {
        for (peer, member) in members.iter().enumerate() {
            let Some(member) = member else { continue };
            let Some(circle) = member.circle() else { return Some(format!("peer {peer} doesn't live")) };
            match member.to_append() {
                0 => {}
                left => return Some(format!("peer {peer} has {left} blocks to append")),
            }
            for writer in self.directory.circle(peer) {
                let Some(feed) = circle.feed(writer) else {
                    return Some(format!("peer {peer} has not heard of peer {writer}"));
                };
                // What was not acknowledged to the app may have been stored all the same.
                let written = members[writer].as_ref().and_then(|member| member.circle()?.feed(writer));
                let length = written.map_or(0, |feed| feed.info().length);
                let expected = length.max(self.checker.acknowledged(writer));
                let has = feed.info().contiguous_length;
                if has < expected {
                    return Some(format!("peer {peer} has {has} of {expected} blocks of peer {writer}"));
                }
            }
        }
        None
    }

    /// Looks now and then whether all keep to their bounds.
    async fn measure(self: Arc<Self>, members: Vec<Option<Arc<Member>>>) {
        loop {
            sleep(MEASURE_EVERY).await;
            let tasks = Handle::current().metrics().num_alive_tasks();
            self.most_tasks.fetch_max(tasks, Ordering::Relaxed);
            let connections = self.network.connections();
            let bound = 64 + TASKS_OF_PEER * members.len() + 2 * TASKS_OF_CONNECTION * connections;
            if tasks > bound {
                let what = format!("{tasks} tasks for {connections} connections");
                self.checker.fail(Invariant::Memory, what);
            }
            for (peer, member) in members.iter().enumerate() {
                let Some(member) = member else { continue };
                let circle = self.directory.circle(peer).len();
                let feeds = member.circle().map_or(0, |circle| circle.feeds());
                // A block comes with two nodes at most; a feed with a head, a record and some pages.
                let bound = 16 + circle * (8 + 4 * self.config.appends);
                if feeds > circle {
                    let what = format!("peer {peer} keeps {feeds} feeds, of the {circle} of its circle");
                    self.checker.fail(Invariant::Authority, what);
                }
                let stored = member.stored();
                if stored > bound {
                    self.checker.fail(Invariant::Memory, format!("peer {peer} keeps {stored} values"));
                }
            }
        }
    }
}

/// Those that live.
fn circles(members: &[Option<Arc<Member>>]) -> impl Iterator<Item = (usize, super::rules::Circle)> {
    let members = members.iter().enumerate();
    members.filter_map(|(peer, member)| Some((peer, member.as_ref()?.circle()?)))
}
