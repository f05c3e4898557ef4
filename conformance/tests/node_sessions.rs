//! Random sessions of our peer and a Node peer: both write feeds, append, truncate, clear, read here and there, close and
//! open feeds, connect, hang up and are cut, in an order that a seed decides. Then they are left alone with each other,
//! and must come to the same.
//!
//! | variable | what |
//! |---|---|
//! | `PARTY_SESSION_SEED` | the first seed; alone, the only one |
//! | `PARTY_SESSIONS` | how many seeds, 200 if nothing is said |
//! | `PARTY_SESSION_MINUTES` | as many seeds as there is time for |
//!
//! A session that fails names its seed and what it did. It runs at the mercy of two processes, so a seed decides what is
//! done, and not how it interleaves: one that failed once may have to be run again and again.
#![cfg(feature = "node")]
#![allow(clippy::disallowed_methods, reason = "it bounds how long sessions may take")]

mod common;

use std::{
    collections::{BTreeSet, HashMap},
    env,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use common::{Place, proxy::Proxy};
use conformance::{
    any::AnyPeer,
    dice::Dice,
    node::{ContentDigest, Kind, Mode, NodeOptions, NodePeer, Release, block, digest},
    peer::Peer,
};
use tokio::task::JoinSet;

const SESSIONS: u64 = 200;
/// Sessions that run at once, each with peers of its own, in one Node process.
const AT_ONCE: usize = 4;
/// A Node process is replaced after so many sessions: what it leaves behind must not slow the rest.
const PER_PROCESS: u64 = 100;
/// How long all steps of a session may take, and each feed to settle in the end.
const SESSION_LIMIT: Duration = Duration::from_secs(90);
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
const KEY: [u8; 32] = [0xe3; 32];

#[tokio::test(flavor = "multi_thread")]
async fn random_sessions_with_node_converge() -> Result<()> {
    let number = |name: &str| env::var(name).ok().map(|value| value.parse::<u64>()).transpose();
    let seed = number("PARTY_SESSION_SEED").context("PARTY_SESSION_SEED")?;
    let count = number("PARTY_SESSIONS").context("PARTY_SESSIONS")?;
    let minutes = number("PARTY_SESSION_MINUTES").context("PARTY_SESSION_MINUTES")?;
    let end = minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let first = seed.unwrap_or(1);
    let count = match (end, count, seed) {
        (Some(_), None, _) => u64::MAX - first,
        (_, Some(count), _) => count,
        (None, None, Some(_)) => 1,
        (None, None, None) => SESSIONS,
    };

    let mut seeds = first..first + count;
    let mut done = 0;
    while !seeds.is_empty() && end.is_none_or(|end| Instant::now() < end) {
        let some = seeds.by_ref().take(PER_PROCESS as usize).collect();
        done += play(some, end).await?;
    }
    #[allow(clippy::print_stdout, reason = "a run by hand wants its count")]
    {
        println!("{done} sessions from seed {first} on converged");
    }
    Ok(())
}

/// Plays the sessions of `seeds` with one Node process, as many as there is time for, and says how many.
async fn play(seeds: Vec<u64>, end: Option<Instant>) -> Result<u64> {
    let lifetime = SESSION_LIMIT * seeds.len() as u32;
    let process = Arc::new(NodePeer::spawn(&NodeOptions { lifetime, ..NodeOptions::store() })?);
    let mut playing = JoinSet::new();
    let mut done = 0;
    for seed in seeds {
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        if playing.len() == AT_ONCE
            && let Some(played) = playing.join_next().await
        {
            played??;
            done += 1;
        }
        playing.spawn(session(Arc::clone(&process), seed));
    }
    while let Some(played) = playing.join_next().await {
        played??;
        done += 1;
    }
    Ok(done)
}

async fn session(process: Arc<NodePeer>, seed: u64) -> Result<()> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let playing = async {
        let mut session = Session::begin(&process, seed, Arc::clone(&log)).await?;
        session.play().await?;
        session.settle().await?;
        session.end().await
    };
    let played = tokio::time::timeout(SESSION_LIMIT, playing).await.context("it takes too long").flatten();
    played.with_context(|| {
        let log = log.lock().unwrap_or_else(PoisonError::into_inner).join("\n  ");
        format!("PARTY_SESSION_SEED={seed} fails after\n  {log}\n")
    })
}

/// A feed as it must be.
struct Model {
    name: String,
    key: String,
    kind: Kind,
    encryption: Option<[u8; 32]>,
    rust_writes: bool,
    fork: u64,
    /// By index, what each block was made of.
    blocks: Vec<(u32, usize)>,
    /// What the writer has cleared of it.
    cleared: BTreeSet<u64>,
    /// Whether the writer has ever cleared any of it.
    has_gaps: bool,
    /// Whether the reader has ever had it open.
    was_read: bool,
    /// Whether it was truncated while Node read it.
    is_shaken: bool,
    /// Whether the reader has it open.
    open: bool,
}

impl Model {
    fn length(&self) -> u64 {
        self.blocks.len() as u64
    }

    fn digest(&self, indexes: &[u64]) -> ContentDigest {
        digest(indexes.iter().map(|index| {
            let (seed, size) = self.blocks[*index as usize];
            block(seed, *index, size)
        }))
    }

    /// What the writer has.
    fn runs(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for index in (0..self.length()).filter(|index| !self.cleared.contains(index)) {
            match runs.last_mut() {
                Some((_, end)) if *end == index => *end += 1,
                _ => runs.push((index, index + 1)),
            }
        }
        runs
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Link {
    Down,
    Up,
    /// It ends by itself, at a time that nobody knows.
    Doomed,
}

struct Session {
    dice: Dice,
    log: Arc<Mutex<Vec<String>>>,
    release: Release,
    closes_badly: bool,
    rust: Peer,
    node: Arc<NodePeer>,
    to_rust: Proxy,
    to_node: Proxy,
    link: Link,
    feeds: Vec<Model>,
    next_seed: u32,
    /// Orders of readers that nobody waits for.
    errands: JoinSet<()>,
    /// Gets that came back, as feed, index and digest.
    got: Arc<Mutex<Vec<(String, u64, ContentDigest)>>>,
    /// All that a block ever was, by feed and index.
    history: HashMap<(String, u64), Vec<(u32, usize)>>,
}

impl Session {
    async fn begin(process: &NodePeer, seed: u64, log: Arc<Mutex<Vec<String>>>) -> Result<Self> {
        let mut dice = Dice::new(seed);
        let options = match dice.below(100) {
            0..55 => NodeOptions::store(),
            55..70 => NodeOptions::cores(Release::Eleven),
            70..90 => NodeOptions::cores(Release::Ten),
            _ => NodeOptions::cores(Release::TenNineteen),
        };
        let options = NodeOptions { lifetime: 2 * SESSION_LIMIT, ..options };
        let place = if dice.percent(70) { Place::Memory } else { Place::Disk };
        let rust = place.peer().await?;
        let node = Arc::new(process.beside(&options).await?);
        let (to_rust, to_node) =
            (Proxy::to(rust.listen().await?).await?, Proxy::to(node.listen().await?).await?);
        let session = Self {
            dice,
            log,
            release: options.release,
            closes_badly: options.mode == Mode::Core,
            rust,
            node,
            to_rust,
            to_node,
            link: Link::Down,
            feeds: Vec::new(),
            next_seed: 1,
            errands: JoinSet::new(),
            got: Arc::default(),
            history: HashMap::new(),
        };
        session.note(format!("{:?} {:?}, ours in {place:?}", options.release, options.mode));
        Ok(session)
    }

    fn note(&self, what: String) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn peer(&self, rust: bool) -> AnyPeer {
        if rust { AnyPeer::Rust(self.rust.clone()) } else { AnyPeer::Node(Arc::clone(&self.node)) }
    }

    async fn play(&mut self) -> Result<()> {
        self.create().await?;
        self.create().await?;
        if self.dice.percent(60) {
            self.connect(false).await?;
        }
        for _ in 0..self.dice.below(30) + 5 {
            match self.dice.below(100) {
                0..4 if self.feeds.len() < 6 => self.create().await?,
                0..26 => self.append().await?,
                26..32 => self.truncate().await?,
                32..38 => self.clear_at_writer().await?,
                38..44 => self.clear_at_reader().await?,
                44..64 => self.read().await?,
                64..70 => self.close_or_open().await?,
                70..84 if self.link == Link::Down => self.connect(true).await?,
                70..75 => self.hang_up().await?,
                75..84 => self.cut().await?,
                _ => self.catch_up().await?,
            }
        }
        Ok(())
    }

    async fn create(&mut self) -> Result<()> {
        let kinds: &[Kind] = match self.release {
            Release::Eleven => &[
                Kind::Default,
                Kind::Default,
                Kind::Default,
                Kind::Compat,
                Kind::ManifestZero,
                Kind::Multisig,
            ],
            Release::Ten => &[Kind::Compat, Kind::Compat, Kind::ManifestZero, Kind::MultisigZero],
            Release::TenNineteen => &[Kind::Compat],
        };
        let kind = *self.dice.pick(kinds);
        let can_be_encrypted = matches!(kind, Kind::Default | Kind::Compat);
        let encryption = (can_be_encrypted && self.dice.percent(20)).then_some(KEY);
        let rust_writes = self.dice.percent(50);
        let name = format!("{} {}", if rust_writes { "rust's" } else { "node's" }, self.feeds.len());
        self.note(format!("create {name} {kind:?}, encrypted: {}", encryption.is_some()));
        let key = self.peer(rust_writes).create(&name, kind, encryption).await?.key;
        let (blocks, cleared) = (Vec::new(), BTreeSet::new());
        self.feeds.push(Model {
            name,
            key,
            kind,
            encryption,
            rust_writes,
            fork: 0,
            blocks,
            cleared,
            has_gaps: false,
            was_read: false,
            is_shaken: false,
            open: false,
        });
        if self.dice.percent(80) {
            self.open(self.feeds.len() - 1).await?;
        }
        Ok(())
    }

    async fn open(&mut self, n: usize) -> Result<()> {
        let feed = &self.feeds[n];
        self.note(format!("open {}", feed.name));
        self.peer(!feed.rust_writes).open(&feed.name, &feed.key, feed.kind, feed.encryption).await?;
        self.feeds[n].open = true;
        self.feeds[n].was_read = true;
        Ok(())
    }

    async fn append(&mut self) -> Result<()> {
        let n = self.pick();
        let (count, size) = match self.dice.below(100) {
            0..70 => (self.dice.below(40) + 1, self.dice.below(300) as usize),
            70..85 => (1, self.dice.below(2_000) as usize),
            85..95 => (self.dice.below(400) + 100, self.dice.below(64) as usize),
            _ => (self.dice.below(6) + 1, 60_000 + self.dice.below(140_000) as usize),
        };
        // Hypercore 10 may lose blocks without bytes when others are cleared, as `node_controls.rs` shows.
        let loses_empty = self.release != Release::Eleven && !self.feeds[n].rust_writes;
        let size = if loses_empty { size.max(1) } else { size };
        self.append_to(n, count, size).await
    }

    async fn append_to(&mut self, n: usize, count: u64, size: usize) -> Result<()> {
        let seed = self.next_seed;
        self.next_seed += 1;
        let feed = &mut self.feeds[n];
        for index in feed.length()..feed.length() + count {
            feed.blocks.push((seed, size));
            self.history.entry((feed.name.clone(), index)).or_default().push((seed, size));
        }
        let feed = &self.feeds[n];
        self.note(format!("append {count} x {size} B to {}: {} blocks", feed.name, feed.length()));
        let info = self.peer(feed.rust_writes).append(&feed.name, seed, count, size).await?;
        ensure!((info.length, info.fork) == (feed.length(), feed.fork), "the writer says {info:?}");
        Ok(())
    }

    async fn truncate(&mut self) -> Result<()> {
        let n = self.pick();
        let several = matches!(self.feeds[n].kind, Kind::Multisig | Kind::MultisigZero);
        // To find the way to a fork, hypercore compares leaves where blocks are cleared by then, and waits for ever.
        let read_by_node_with_gaps = self.feeds[n].rust_writes && self.feeds[n].has_gaps;
        // Hypercore 10 takes nodes of the old tree for those of the new one then, as `node_controls.rs` shows.
        let read_by_ten =
            self.release != Release::Eleven && self.feeds[n].rust_writes && self.feeds[n].was_read;
        if several || read_by_node_with_gaps || read_by_ten {
            return Ok(());
        }
        // Hypercore that cuts off a feed while it makes a proof of it ends the connection, now and then.
        if !self.feeds[n].rust_writes && self.link == Link::Up {
            self.link = Link::Doomed;
        }
        // Most often a little, sometimes a lot.
        let length = self.feeds[n].length();
        let most = if self.dice.percent(70) { length.min(20) } else { length };
        let length = length - self.dice.below(most + 1);
        let is_linked = self.link != Link::Down;
        let feed = &mut self.feeds[n];
        feed.is_shaken |= feed.rust_writes && is_linked;
        feed.fork += 1;
        feed.blocks.truncate(length as usize);
        feed.cleared.retain(|index| *index < length);
        let feed = &self.feeds[n];
        self.note(format!("truncate {} to {length}: fork {}", feed.name, feed.fork));
        let info = self.peer(feed.rust_writes).truncate(&feed.name, length).await?;
        ensure!((info.length, info.fork) == (length, feed.fork), "the writer says {info:?}");
        Ok(())
    }

    /// Some blocks of a feed, from one to another.
    fn part(&mut self, n: usize) -> (u64, u64) {
        let length = self.feeds[n].length();
        let from = self.dice.below(length);
        (from, from + 1 + self.dice.below((length - from).min(50)))
    }

    async fn clear_at_writer(&mut self) -> Result<()> {
        let n = self.pick();
        let (from, to) = self.part(n);
        let forked = self.feeds[n].rust_writes && self.feeds[n].fork > 0;
        // Hypercore 10.19.0 may keep a last block from its readers that stands alone behind cleared ones.
        let leaves_one = self.release == Release::TenNineteen && to + 1 == self.feeds[n].length();
        if leaves_one
            || self.takes_more(n, from, to)
            || to > self.feeds[n].length()
            || self.stops_at_gaps(n)
            || forked
        {
            return Ok(());
        }
        let Some(from) = self.clearable(n, self.feeds[n].rust_writes, from).await? else { return Ok(()) };
        self.feeds[n].cleared.extend(from..to);
        self.feeds[n].has_gaps = true;
        let feed = &self.feeds[n];
        self.note(format!("clear {from}..{to} of {} where it is written", feed.name));
        self.peer(feed.rust_writes).clear(&feed.name, from, to).await.map(drop)
    }

    async fn clear_at_reader(&mut self) -> Result<()> {
        let n = self.pick();
        let (from, to) = self.part(n);
        let feed = &self.feeds[n];
        if !feed.open || self.stops_at_gaps(n) {
            return Ok(());
        }
        let Some(from) = self.clearable(n, !feed.rust_writes, from).await? else { return Ok(()) };
        let reader = self.peer(!feed.rust_writes);
        let to = to.min(reader.info(&feed.name).await?.length);
        if from < to {
            self.note(format!("clear {from}..{to} of {} where it is read", feed.name));
            reader.clear(&feed.name, from, to).await?;
        }
        Ok(())
    }

    /// Whether hypercore 10.19.0 writes the feed, and would delete what stands behind the cleared blocks, too, as
    /// `node_controls.rs` shows: it may, if they begin before the last multiple of 128 and end behind it.
    fn takes_more(&self, n: usize, from: u64, to: u64) -> bool {
        let feed = &self.feeds[n];
        let last = feed.length().saturating_sub(1) / 128;
        self.release == Release::TenNineteen
            && !feed.rust_writes
            && to < feed.length()
            && from / 128 < last
            && to / 128 == last
    }

    /// Whether hypercore 10.19.0 reads the feed, which stops at a gap whoever it reads from.
    fn stops_at_gaps(&self, n: usize) -> bool {
        self.release == Release::TenNineteen && self.feeds[n].rust_writes
    }

    /// Where a peer can begin to clear without harm: hypercore 11 forgets nodes that it needs unless it begins with the
    /// left one of two blocks that it has, as `node_controls.rs` shows.
    async fn clearable(&self, n: usize, rust: bool, from: u64) -> Result<Option<u64>> {
        if rust || self.release != Release::Eleven {
            return Ok(Some(from));
        }
        let from = from & !1;
        let stored = self.peer(rust).state(&self.feeds[n].name).await?.stored;
        Ok(stored.iter().any(|(start, end)| *start <= from && from + 1 < *end).then_some(from))
    }

    async fn read(&mut self) -> Result<()> {
        let n = self.pick();
        let (from, to) = self.part(n);
        let what = self.dice.below(100);
        let feed = &self.feeds[n];
        if !feed.open {
            return Ok(());
        }
        let (name, length) = (feed.name.clone(), feed.length());
        let reader = self.peer(!feed.rust_writes);
        match what {
            0..25 => {
                self.note(format!("want all of {name}"));
                reader.want_all(&name).await?;
            }
            25..55 => {
                self.note(format!("download {from}..{to} of {name}"));
                self.errands.spawn(async move {
                    // It may be closed, or cut off, before they are there.
                    let _ = reader.download(&name, from, to).await;
                });
            }
            _ => {
                let indexes: Vec<u64> = match what {
                    55..80 => self.dice.sample(8, length),
                    _ => (length.saturating_sub(8)..length).rev().collect(),
                };
                self.note(format!("get {indexes:?} of {name}"));
                for index in indexes {
                    let (reader, name, got) = (reader.clone(), name.clone(), Arc::clone(&self.got));
                    self.errands.spawn(async move {
                        if let Ok(digest) = reader.gets(&name, &[index], false).await {
                            got.lock().unwrap_or_else(PoisonError::into_inner).push((name, index, digest));
                        }
                    });
                }
            }
        }
        Ok(())
    }

    async fn close_or_open(&mut self) -> Result<()> {
        let n = self.pick();
        let feed = &self.feeds[n];
        if !feed.open {
            return self.open(n).await;
        }
        // A single core that is closed before it has stored what a peer sent ends the connection, or its process.
        if self.closes_badly && feed.rust_writes {
            return Ok(());
        }
        self.note(format!("close {}", feed.name));
        self.peer(!feed.rust_writes).close_feed(&feed.name).await?;
        self.feeds[n].open = false;
        Ok(())
    }

    async fn connect(&mut self, may_be_doomed: bool) -> Result<()> {
        let rust_dials = self.dice.percent(50);
        let budget = (may_be_doomed && self.dice.percent(40)).then(|| 2_000 + self.dice.below(100_000));
        self.note(format!("{} dials, for {budget:?} bytes", if rust_dials { "rust" } else { "node" }));
        // Hypercore 11 asks one peer how a feed has forked. If that one goes, it asks no other until one has news.
        if self.feeds.iter().any(|feed| feed.rust_writes && feed.fork > 0) {
            self.node.alone().await?;
        }
        let proxy = if rust_dials { &self.to_node } else { &self.to_rust };
        proxy.set_budgets(move || budget);
        self.peer(rust_dials).dial(proxy.port()).await?;
        self.link = if budget.is_some() { Link::Doomed } else { Link::Up };
        Ok(())
    }

    async fn hang_up(&mut self) -> Result<()> {
        let rust = self.dice.percent(50);
        self.note(format!("{} hangs up", if rust { "rust" } else { "node" }));
        let hung_up = self.peer(rust).hang_up().await;
        ensure!(
            hung_up.is_ok() || self.link == Link::Doomed,
            "the connection had ended: {hung_up:?}, node says {:?}",
            self.node.events()
        );
        self.link = Link::Down;
        Ok(())
    }

    async fn cut(&mut self) -> Result<()> {
        self.note("cut".into());
        self.to_node.cut();
        self.to_rust.cut();
        // Let go of what has ended; that it did so badly is known.
        let _ = self.rust.hang_up().await;
        self.link = Link::Down;
        Ok(())
    }

    /// Waits until the reader of a feed knows of all that is there.
    async fn catch_up(&mut self) -> Result<()> {
        let n = self.pick();
        let feed = &self.feeds[n];
        // What hypercore 10.19.0 had asked for when a connection ended may keep it from learning more on the next one.
        let forgets = self.release == Release::TenNineteen && feed.rust_writes;
        if self.link != Link::Up || !feed.open || feed.length() == 0 || feed.is_shaken || forgets {
            return Ok(());
        }
        self.note(format!("{} catches up", feed.name));
        self.reach(feed, &[]).await
    }

    async fn reach(&self, feed: &Model, runs: &[(u64, u64)]) -> Result<()> {
        let reader = self.peer(!feed.rust_writes);
        let reaching = reader.reach(&feed.name, feed.fork, feed.length(), runs);
        if tokio::time::timeout(SETTLE_LIMIT, reaching).await.is_ok() {
            return Ok(());
        }
        let (writer, reader) =
            (self.peer(feed.rust_writes).state(&feed.name).await, reader.state(&feed.name).await);
        bail!(
            "{} does not settle at {} blocks of fork {}\nwriter {writer:?}\nreader {reader:?}\nnode says {:?}",
            feed.name,
            feed.length(),
            feed.fork,
            self.node.events(),
        )
    }

    /// Lets both have all that there is, and looks whether they have it, and nothing else.
    async fn settle(&mut self) -> Result<()> {
        let forgets = self.release == Release::TenNineteen || self.feeds.iter().any(|feed| feed.is_shaken);
        if self.link != Link::Up || self.dice.percent(50) || forgets {
            if self.link != Link::Down {
                self.cut().await?;
            }
            if forgets {
                self.open_anew().await?;
            }
            self.connect(false).await?;
        }
        for n in 0..self.feeds.len() {
            if !self.feeds[n].open {
                self.open(n).await?;
            }
            if self.feeds[n].length() == 0 {
                self.append_to(n, 1, 10).await?;
            }
        }
        self.note("settle".into());
        for feed in &self.feeds {
            self.peer(!feed.rust_writes).want_all(&feed.name).await?;
        }
        for feed in &self.feeds {
            self.reach(feed, &feed.runs()).await?;
        }
        for feed in &self.feeds {
            self.compare(feed).await.with_context(|| feed.name.clone())?;
        }
        self.note("append once more".into());
        for n in 0..self.feeds.len() {
            let length = self.feeds[n].length();
            self.append_to(n, 1, 20).await?;
            self.reach(&self.feeds[n], &[(length, length + 1)]).await?;
        }
        self.errands.abort_all();
        for (name, index, digest) in self.got.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let ever = self.history.get(&(name.clone(), *index)).into_iter().flatten();
            let mut ever = ever.map(|(seed, size)| common::digest_of(block(*seed, *index, *size)));
            ensure!(ever.any(|known| known == *digest), "block {index} of {name} was never what was got");
        }
        Ok(())
    }

    /// Hypercore 10.19.0 loses track of what it had asked for when a connection ended or the feed grew, whoever it reads
    /// from, and of the tree of a fork that was empty. So does any release when a feed is truncated that it is about to
    /// read. Opened anew they ask again.
    async fn open_anew(&mut self) -> Result<()> {
        for n in 0..self.feeds.len() {
            if self.feeds[n].open && self.feeds[n].rust_writes {
                self.note(format!("close {}", self.feeds[n].name));
                self.node.close(&self.feeds[n].name).await?;
                self.open(n).await?;
            }
        }
        Ok(())
    }

    async fn compare(&self, feed: &Model) -> Result<()> {
        let (writer, reader) = (self.peer(feed.rust_writes), self.peer(!feed.rust_writes));
        let (wrote, read) = (writer.state(&feed.name).await?, reader.state(&feed.name).await?);
        ensure!(wrote.stored == feed.runs(), "the writer has {:?}, not {:?}", wrote.stored, feed.runs());
        ensure!(wrote.tree_hash == read.tree_hash, "two trees: {wrote:?} {read:?}");
        for (peer, state, who) in [(writer, &wrote, "writer"), (reader, &read, "reader")] {
            ensure!((state.fork, state.length) == (feed.fork, feed.length()), "the {who} is at {state:?}");
            let stored: Vec<u64> = state.stored.iter().flat_map(|(from, to)| *from..*to).collect();
            let content = peer.gets(&feed.name, &stored, false).await?;
            ensure!(content == feed.digest(&stored), "the {who} has other blocks: {state:?}");
        }
        Ok(())
    }

    async fn end(self) -> Result<()> {
        for event in self.node.events() {
            let name = event["event"].as_str().unwrap_or_default();
            // Hypercore goes on after a proof that was overtaken: one that it had asked for before the feed was cut off.
            let overtaken = event["message"].as_str().is_some_and(|m| m.starts_with("INVALID_OPERATION"));
            let complains =
                matches!(name, "conflict" | "noise") || (name == "verificationError" && !overtaken);
            // A cut is an error of the transport; all others are of our making, or of Node's own.
            let expected = self.is_cut(&event) || self.is_cut_off(&event) || self.is_closed_core(&event);
            ensure!(!complains && (name != "streamError" || expected), "node says {event}");
        }
        let Self { rust, node, to_rust, to_node, mut errands, .. } = self;
        errands.shutdown().await;
        drop((to_rust, to_node));
        // The connection goes with the proxies.
        let _ = rust.close().await;
        node.leave().await
    }

    /// Whether Node misses a part of a tree that it has cut off itself.
    fn is_cut_off(&self, event: &serde_json::Value) -> bool {
        let cuts = self.feeds.iter().any(|feed| !feed.rust_writes && feed.fork > 0);
        cuts && event["message"].as_str().is_some_and(|message| message.contains("Expected tree node"))
    }

    /// Whether a single core says of a connection that is over that it was closed before it had stored all.
    fn is_closed_core(&self, event: &serde_json::Value) -> bool {
        let message = event["message"].as_str().unwrap_or_default();
        self.closes_badly && matches!(message, "RocksDB session is closed" | "Mutex has been destroyed")
    }

    fn is_cut(&self, event: &serde_json::Value) -> bool {
        let code = event["code"].as_str().unwrap_or_default();
        let message = event["message"].as_str().unwrap_or_default();
        matches!(code, "ECONNRESET" | "EPIPE" | "ETIMEDOUT") || message.contains("Stream was destroyed")
    }

    fn pick(&mut self) -> usize {
        self.dice.below(self.feeds.len() as u64) as usize
    }
}
