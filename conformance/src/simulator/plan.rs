//! What a seed decides before a run begins: who is there, who is linked with whom, and what befalls them when.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use super::{Config, network::Quality};
use crate::dice::Dice;

/// Neighbours on the ring, in each direction, to whom everybody is linked.
const REACH: usize = 2;
/// Appends are made, and faults are over, after so much of a run; the rest is for coming to rest.
const LAST_APPEND: f64 = 0.80;
const LAST_FAULT: f64 = 0.85;
/// So many milliseconds after an append there is something on its way to the disk, most likely.
const IN_THE_ACT: u64 = 10;

/// Everything that is decided beforehand.
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) peers: Vec<PeerPlan>,
    pub(super) links: Vec<LinkPlan>,
    /// By their time. A run can be cut off after any of them.
    pub(super) events: Vec<Event>,
}

pub(super) struct PeerPlan {
    pub(super) role: Role,
    /// The peers that share their feeds have the same.
    pub(super) circle: usize,
    /// How fast the peer's clock goes, in thousandths.
    pub(super) clock: u32,
}

pub(super) struct LinkPlan {
    /// Who dials, and who is dialled.
    pub(super) ends: [usize; 2],
    pub(super) quality: Quality,
}

/// What somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A complete peer that keeps the rules.
    Honest,
    /// Doesn't know the party's key.
    Stranger(Stranger),
    /// Knows the party's key, and belongs to no circle.
    Insider(Insider),
    /// Belongs to a circle, and cheats it.
    Traitor(Traitor),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stranger {
    /// Sends bytes that are no frames.
    Noise,
    /// Seals random messages.
    Garbage,
    /// Sends every message back.
    Echo,
    /// Answers each offer with the offer's own proof, and offers what it has seen on other connections.
    Mirror,
    /// Says nothing any more.
    Silent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insider {
    /// Opens every feed of others, with capabilities right and wrong, and asks for all blocks.
    Snoop,
    /// Says more on the party channel than anybody can listen to.
    Flood,
    /// Opens and answers the channel of the party with proofs that don't hold, as if it had only heard of its id.
    Liar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traitor {
    /// Answers requests with forged blocks and proofs, and sends what nobody has asked for.
    Forger,
    /// Claims to have everything, and answers nothing.
    Withholder,
}

impl Role {
    /// The bad ones, one for each of these.
    const BAD: [Self; 10] = [
        Self::Traitor(Traitor::Forger),
        Self::Insider(Insider::Snoop),
        Self::Stranger(Stranger::Mirror),
        Self::Traitor(Traitor::Withholder),
        Self::Insider(Insider::Flood),
        Self::Stranger(Stranger::Garbage),
        Self::Stranger(Stranger::Echo),
        Self::Insider(Insider::Liar),
        Self::Stranger(Stranger::Silent),
        Self::Stranger(Stranger::Noise),
    ];
}

/// Something that befalls somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) at: Duration,
    pub(super) what: Happening,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    /// A peer appends its `number`-th block.
    Append { peer: usize, number: u64 },
    /// The connection over a link breaks.
    Cut { link: usize },
    /// A peer dies, with what it has not stored yet, and comes back.
    Restart { peer: usize, down: Duration },
    /// The network falls into two parts.
    Part { side: BTreeSet<usize>, lasts: Duration },
    /// A link becomes slow.
    Slow { link: usize, quality: Quality, lasts: Duration },
}

impl Event {
    /// When nothing is left of it.
    pub(super) fn over(&self) -> Duration {
        match &self.what {
            Happening::Append { .. } | Happening::Cut { .. } => self.at,
            Happening::Restart { down: lasts, .. }
            | Happening::Part { lasts, .. }
            | Happening::Slow { lasts, .. } => self.at + *lasts,
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append { peer, number } => write!(f, "peer {peer} appends its block {number}"),
            Self::Cut { link } => write!(f, "link {link} is cut"),
            Self::Restart { peer, down } => write!(f, "peer {peer} dies for {} s", down.as_secs_f64()),
            Self::Part { side, lasts } => {
                write!(f, "{} peers are parted from the others for {} s", side.len(), lasts.as_secs_f64())
            }
            Self::Slow { link, quality, lasts } => write!(
                f,
                "link {link} has {} ms and {} B/s for {} s",
                quality.latency.as_millis(),
                quality.bytes_per_second,
                lasts.as_secs_f64()
            ),
        }
    }
}

impl Plan {
    pub(super) fn new(config: &Config) -> Self {
        let roles = roles(config);
        let mut dice = Dice::apart(config.seed, "peers", 0);
        let peers: Vec<PeerPlan> = roles
            .into_iter()
            .enumerate()
            .map(|(n, role)| PeerPlan {
                role,
                circle: n / config.circle.max(1),
                // Up to a tenth too fast or too slow.
                clock: 900 + dice.below(201) as u32,
            })
            .collect();
        let links = links(config);
        let events = events(config, &peers, links.len());
        Self { seed: config.seed, peers, links, events }
    }
}

/// Who is bad: so far from each other that those between them are linked without them.
fn roles(config: &Config) -> Vec<Role> {
    let mut dice = Dice::apart(config.seed, "roles", 0);
    let count = (config.peers * config.malicious_percent as usize).div_ceil(100);
    let mut roles = vec![Role::Honest; config.peers];
    // Which of them, when there are few, is a matter of the seed.
    let first = dice.below(Role::BAD.len() as u64) as usize;
    let (mut placed, mut tries) = (0, 0);
    while placed < count && tries < 100 * count {
        tries += 1;
        let at = dice.below(config.peers as u64) as usize;
        let around = (0..=2 * REACH).map(|n| (at + config.peers + n - REACH) % config.peers);
        if around.into_iter().all(|n| roles[n] == Role::Honest) {
            roles[at] = Role::BAD[(first + placed) % Role::BAD.len()];
            placed += 1;
        }
    }
    roles
}

/// A ring on which everybody is linked with those next to it and next but one, and others across it.
fn links(config: &Config) -> Vec<LinkPlan> {
    let mut dice = Dice::apart(config.seed, "links", 0);
    let n = config.peers;
    let mut pairs = BTreeSet::new();
    for a in 0..n {
        for distance in 1..=REACH.min(config.links / 2) {
            let b = (a + distance) % n;
            if a != b {
                pairs.insert((a.min(b), a.max(b)));
            }
        }
    }
    let mut degree = vec![0; n];
    pairs.iter().for_each(|(a, b)| {
        degree[*a] += 1;
        degree[*b] += 1;
    });
    // The last few may find nobody with a link to spare.
    for _ in 0..100 * n {
        let open: Vec<usize> = (0..n).filter(|peer| degree[*peer] < config.links).take(64).collect();
        let Some(&a) = open.first() else { break };
        let b = dice.below(n as u64) as usize;
        if a != b && degree[b] < config.links && pairs.insert((a.min(b), a.max(b))) {
            degree[a] += 1;
            degree[b] += 1;
        }
    }
    pairs
        .into_iter()
        .map(|(a, b)| LinkPlan {
            ends: if dice.percent(50) { [a, b] } else { [b, a] },
            quality: Quality {
                latency: Duration::from_millis(5 + dice.below(120)),
                bytes_per_second: 200_000 + dice.below(5_000_000),
            },
        })
        .collect()
}

fn events(config: &Config, peers: &[PeerPlan], links: usize) -> Vec<Event> {
    let mut dice = Dice::apart(config.seed, "events", 0);
    let honest: Vec<usize> = (0..peers.len()).filter(|peer| peers[*peer].role == Role::Honest).collect();
    let mut events = Vec::new();
    let span = |part: f64| (config.duration.as_secs_f64() * part * 1_000.0) as u64;
    let hours = config.duration.as_secs_f64() / 3_600.0;
    let share = |count: f64| (count * hours).ceil() as usize;

    for &peer in &honest {
        let mut times: Vec<u64> = (0..config.appends).map(|_| dice.below(span(LAST_APPEND))).collect();
        times.sort_unstable();
        events.extend(times.into_iter().zip(0..).map(|(at, number)| Event {
            at: Duration::from_millis(at),
            what: Happening::Append { peer, number },
        }));
    }
    // A fault that begins at any time, and is over before the last may be.
    let mut fault = |shortest: u64,
                     longest: u64,
                     dice: &mut Dice,
                     what: &mut dyn FnMut(&mut Dice, Duration) -> Happening| {
        let end = span(LAST_FAULT);
        let lasts = (shortest + dice.below(longest - shortest + 1)).min(end / 2);
        let at = dice.below(end - lasts);
        let what = what(dice, Duration::from_millis(lasts));
        events.push(Event { at: Duration::from_millis(at), what });
    };
    for _ in 0..config.partitions {
        fault(120_000, 400_000, &mut dice, &mut |dice, lasts| {
            let side = (0..peers.len()).filter(|_| dice.percent(40)).collect();
            Happening::Part { side, lasts }
        });
    }
    let restarts = (honest.len() * config.restart_percent as usize).div_ceil(100);
    for peer in dice.sample(restarts as u64, honest.len() as u64) {
        let peer = honest[peer as usize];
        fault(1_000, 120_000, &mut dice, &mut |_, down| Happening::Restart { peer, down });
    }
    for _ in 0..share(links as f64 * 0.2) {
        fault(0, 0, &mut dice, &mut |dice, _| Happening::Cut { link: dice.below(links as u64) as usize });
    }
    for _ in 0..share(links as f64 * 0.05) {
        fault(30_000, 300_000, &mut dice, &mut |dice, lasts| Happening::Slow {
            link: dice.below(links as u64) as usize,
            quality: Quality {
                latency: Duration::from_millis(300 + dice.below(3_000)),
                bytes_per_second: 500 + dice.below(8_000),
            },
            lasts,
        });
    }
    catch_in_the_act(&mut events, &mut dice);
    // What comes at the same time stays in the order in which it was decided.
    events.sort_by_key(|event| event.at);
    events
}

/// Moves half of the deaths to where somebody has just begun to append.
fn catch_in_the_act(events: &mut [Event], dice: &mut Dice) {
    let mut appends = BTreeMap::<usize, Vec<Duration>>::new();
    for event in &*events {
        if let Happening::Append { peer, .. } = event.what {
            appends.entry(peer).or_default().push(event.at);
        }
    }
    for event in events {
        if let Happening::Restart { peer, .. } = event.what
            && dice.percent(50)
            && let Some(times) = appends.get(&peer).filter(|times| !times.is_empty())
        {
            event.at = *dice.pick(times) + Duration::from_millis(dice.below(IN_THE_ACT));
        }
    }
}
