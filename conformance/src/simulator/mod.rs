//! A simulator: hundreds of complete peers in one thread and in virtual time.
//!
//! The peers are those that apps have: [`Connection`](party::connection::Connection)s with their real Noise, secret stream,
//! mux, admission, rules and replication, [`Store`](party::store::Store)s with real feeds, driven by tokio on a runtime with one
//! thread whose clock is paused. What is simulated is what lies around them: the network, the disks, the apps' wishes, the
//! faults, and peers that mean them harm. `conformance/README.md` says what that comes to.
//!
//! A [`Config`] decides all of a run, to the byte: [`run`] twice gives the same [`Report::hash`]. If a promise is broken,
//! [`shortest`] looks for the fewest events that break it.
//!
//! ```
//! use std::time::Duration;
//! use conformance::simulator::{Config, run};
//!
//! let duration = Duration::from_secs(600);
//! let config = Config { seed: 7, peers: 4, appends: 2, malicious_percent: 0, duration, ..Config::default() };
//! let report = run(&config);
//! assert_eq!(report.violation, None);
//! assert_eq!(report.counts.acknowledged, 4 * 2);
//! assert_eq!(report.hash, run(&config).hash);
//! ```

mod adversary;
mod checker;
mod directory;
mod disk;
mod member;
mod network;
mod plan;
mod rules;
mod shortest;
mod trace;
mod world;

use std::time::Duration;

pub use self::{
    checker::{Counts, Invariant, Violation},
    shortest::{Shortest, shortest},
    world::run,
};

/// What a run is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Decides everything that isn't said here.
    pub seed: u64,
    /// How many peers there are.
    pub peers: usize,
    /// How many links each of them has.
    pub links: usize,
    /// How many blocks each honest peer appends.
    pub appends: usize,
    /// How many peers, side by side, share their feeds.
    pub circle: usize,
    /// How long the run is, in virtual time.
    pub duration: Duration,
    /// How many in a hundred are malicious.
    pub malicious_percent: u32,
    /// How many in a hundred of the honest ones die and come back.
    pub restart_percent: u32,
    /// How often the network falls apart.
    pub partitions: usize,
    /// After how many of its events the run has no more; all, if `None`.
    pub events: Option<usize>,
    /// How many lines of the trace are kept.
    pub keep_lines: usize,
    /// What one of the simulated peers does wrong, to show that it is found out. It changes the simulated app or disk, and
    /// nothing in the library.
    pub sabotage: Option<Sabotage>,
}

impl Default for Config {
    /// 50 peers for an hour, one in twenty of them malicious.
    fn default() -> Self {
        Self {
            seed: 1,
            peers: 50,
            links: 6,
            appends: 20,
            circle: 10,
            duration: Duration::from_secs(3_600),
            malicious_percent: 5,
            restart_percent: 5,
            partitions: 1,
            events: None,
            keep_lines: 200,
            sabotage: None,
        }
    }
}

/// What a simulated peer can be made to do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The apps' rules give every feed to every member.
    OpenRules,
    /// The disks confirm what they have not stored.
    LyingDisks,
    /// An app never asks for one of the feeds that it is to have.
    DeafApp,
    /// An app stores blocks that it has made up under its own feed, beside what it was told to append.
    ForgingApp,
    /// An app begins tasks and never ends them.
    LeakingApp,
}

/// How a run has gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The first promise that was broken, if one was.
    pub violation: Option<Violation>,
    /// SHA-256 over all that has happened, in hex.
    pub hash: String,
    /// What was counted.
    pub counts: Counts,
    /// Connections that were made.
    pub connections: u64,
    /// What befell them.
    pub faults: Faults,
    /// Malicious peers.
    pub malicious: usize,
    /// Pieces that the network delivered, and bytes in them.
    pub traffic: (u64, u64),
    /// The most tasks that there were at a time.
    pub most_tasks: usize,
    /// How many events there were.
    pub events: usize,
    /// How long after the last of them and its consequences everybody had everything.
    pub converged_after: Option<Duration>,
    /// The last lines of the trace.
    pub lines: Vec<String>,
}

/// Faults that there were in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Links cut.
    pub cuts: usize,
    /// Partitions of the network.
    pub partitions: usize,
    /// Links that were slow for a while.
    pub slow_links: usize,
    /// Peers that died and came back.
    pub restarts: usize,
    /// Commits under way that were lost with them.
    pub lost_commits: usize,
}
