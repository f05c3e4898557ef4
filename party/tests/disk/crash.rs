//! A process is killed while it appends to feeds, truncates and clears them. Whatever it had said to be done is
//! there, what it had begun is there as a whole or not at all, everything verifies, and nothing of what was
//! deleted still takes up space.
//!
//! The test runs its own binary again as the process to be killed. `PARTY_CRASHES` says how often; the seed
//! that decides when is printed and can be given as `PARTY_CRASH_SEED`.
// The seed is shown so that a failure can be repeated.
#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    env,
    fmt::{self, Display},
    io::{self, BufRead as _, BufReader, Write as _},
    ops::Range,
    path::Path,
    process::{Command, Stdio},
};

use bytes::Bytes;
use party::{
    feed::{
        Feed,
        proof::{BlockRequest, ProofRequest, UpgradeRequest},
    },
    store::{FeedOptions, Store},
};

use crate::common::random::Random;

const STORE: &str = "PARTY_CRASH_STORE";
const CHILD_SEED: &str = "PARTY_CRASH_CHILD_SEED";
/// A feed with more blocks than this is truncated, so that all of it can be checked after each kill.
const LONG: u64 = 300;
const FEEDS: [&str; 2] = ["first", "second"];

/// What an append on `fork` puts at `index` of the feed `name`: known to both processes.
fn block(name: &str, fork: u64, index: u64) -> Bytes {
    let mut random = Random(index ^ fork << 32 ^ (name.len() as u64) << 60);
    let len = match random.below(20) {
        0 => 0,
        1 => 70_000,
        2..6 => random.below(5_000),
        _ => random.below(200),
    };
    let mut block = Vec::with_capacity(len as usize + 8);
    while block.len() < len as usize {
        block.extend(random.next().to_le_bytes());
    }
    block.truncate(len as usize);
    block.into()
}

/// What the child does to a feed. It says so before it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Append(u64),
    Truncate(u64),
    Clear(Range<u64>),
}

impl Step {
    fn choose(random: &mut Random, length: u64) -> Self {
        match random.below(20) {
            _ if length > LONG => Self::Truncate(random.below(length)),
            0 => Self::Truncate(length - random.below(length.min(100) + 1)),
            1..4 => {
                let start = random.below(length + 1);
                Self::Clear(start..start + random.below(60))
            }
            4..9 => Self::Append(1 + random.below(40)),
            _ => Self::Append(1),
        }
    }

    async fn carry_out(&self, name: &str, feed: &Feed) {
        let info = feed.info();
        match self {
            Self::Append(count) => {
                let blocks =
                    (info.length..info.length + count).map(|it| block(name, info.fork, it)).collect();
                feed.append_batch(blocks).await.map(drop)
            }
            Self::Truncate(length) => feed.truncate(*length).await,
            Self::Clear(range) => feed.clear(range.clone()).await.map(drop),
        }
        .unwrap();
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append(count) => write!(f, "append {count} 0"),
            Self::Truncate(length) => write!(f, "truncate {length} 0"),
            Self::Clear(range) => write!(f, "clear {} {}", range.start, range.end),
        }
    }
}

/// Not a test: the process that is killed.
#[tokio::test]
async fn child() {
    let Some(dir) = env::var_os(STORE) else { return };
    say("start");
    let store = Store::open(&dir).await.unwrap();
    let mut writers = vec![];
    for name in FEEDS {
        let feed = match store.feed_by_name(name).await.unwrap() {
            Some(feed) => feed,
            None => store.create_feed(name, FeedOptions::default()).await.unwrap(),
        };
        say(&format!("{name} is open"));
        writers.push(tokio::spawn(change_forever(name, feed)));
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

async fn change_forever(name: &'static str, feed: Feed) {
    let mut random = Random(number(CHILD_SEED).unwrap_or(0) ^ name.len() as u64);
    loop {
        let step = Step::choose(&mut random, feed.info().length);
        say(&format!("{name} {step}"));
        step.carry_out(name, &feed).await;
        say(&format!("{name} done 0 0"));
    }
}

/// Past the test harness, which would keep it to itself.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    // That nobody reads any more is no matter: the process is about to be killed.
    let _ = writeln!(out, "\n@{line}").and_then(|()| out.flush());
}

/// What is known of a feed: for each block the fork on which it was appended, and whether it is stored.
#[derive(Clone, Debug, Default)]
struct Known {
    fork: u64,
    blocks: Vec<(u64, bool)>,
    /// What was begun, and may have been done.
    begun: Option<Step>,
    /// Bytes of blocks that may have been written before a kill, and were not named any more.
    lost: u64,
    steps: u64,
}

impl Known {
    fn note(&mut self, step: &str, a: u64, b: u64) {
        match step {
            "append" => self.begun = Some(Step::Append(a)),
            "truncate" => self.begun = Some(Step::Truncate(a)),
            "clear" => self.begun = Some(Step::Clear(a..b)),
            _ => {
                let step = self.begun.take().expect("what is done was begun");
                self.apply(&step);
            }
        }
    }

    fn apply(&mut self, step: &Step) {
        self.steps += 1;
        match step {
            Step::Append(count) => self.blocks.extend((0..*count).map(|_| (self.fork, true))),
            Step::Truncate(length) => {
                self.fork += 1;
                self.blocks.truncate(*length as usize);
            }
            Step::Clear(range) => {
                let end = (range.end as usize).min(self.blocks.len());
                let cleared = self.blocks.get_mut((range.start as usize).min(end)..end).unwrap();
                cleared.iter_mut().for_each(|(_, is_stored)| *is_stored = false);
            }
        }
    }

    fn is(&self, feed: &Feed) -> bool {
        let info = feed.info();
        (info.fork, info.length) == (self.fork, self.blocks.len() as u64)
            && (0..).zip(&self.blocks).all(|(index, (_, is_stored))| feed.has(index) == *is_stored)
    }

    /// What the feed is after a kill: what was done, and perhaps what was begun.
    fn settle(&mut self, name: &str, feed: &Feed) {
        self.lost = 0;
        let Some(begun) = self.begun.take() else { return };
        if !self.is(feed) {
            self.apply(&begun);
        } else if let Step::Append(count) = begun {
            let start = self.blocks.len() as u64;
            let blocks = (start..start + count).map(|index| block(name, self.fork, index).len() as u64);
            self.lost = blocks.sum();
        }
        assert!(self.is(feed), "{name}: {:?} is not what was done: {self:?}", feed.info());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_before_a_kill_is_there_after_it() {
    let crashes = number("PARTY_CRASHES").unwrap_or(200);
    let seed = number("PARTY_CRASH_SEED").unwrap_or(1);
    println!("PARTY_CRASHES={crashes} PARTY_CRASH_SEED={seed}");
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    for crash in 0..crashes {
        // The first ones hit the making of the store and of its feeds.
        let lines = if crash < 3 { crash } else { random.below(200) };
        change_and_kill(dir.path(), lines, random.next(), &mut known);
        let store = Store::open(dir.path()).await.unwrap();
        for name in FEEDS {
            let known = known.entry(name.to_owned()).or_default();
            match store.feed_by_name(name).await.unwrap() {
                Some(feed) => {
                    known.settle(name, &feed);
                    check(name, &feed, known).await;
                }
                None => assert_eq!(known.steps, 0, "{name} is gone after crash {crash}"),
            }
        }
        store.close().await;
        #[cfg(target_os = "linux")]
        check_space(dir.path(), &known);
    }
    let steps: u64 = known.values().map(|known| known.steps).sum();
    println!("{steps} steps were done between {crashes} kills");
    assert!(crashes < 5 || steps > 100, "{steps}");
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// Starts the child, and kills it once it has said `lines` lines after its first. Notes what it said.
fn change_and_kill(dir: &Path, lines: u64, seed: u64, known: &mut BTreeMap<String, Known>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture", "--test-threads=1"])
        .env(STORE, dir)
        .env(CHILD_SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut note = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        if let [name, step, a, b] = words[..]
            && let (Ok(a), Ok(b)) = (a.parse(), b.parse())
        {
            known.entry(name.to_owned()).or_default().note(step, a, b);
        }
    };
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    // Whole lines only: the last one may be cut, and whoever was about to say it has done nothing.
    let mut said = std::iter::from_fn(|| {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        line.ends_with('\n').then(|| line.trim_end().to_owned())
    })
    .filter_map(|line| line.strip_prefix('@').map(str::to_owned));
    for _ in 0..=lines {
        note(&said.next().expect("the child goes on until it is killed"));
    }
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    // What it said before it noticed counts as well.
    said.for_each(|line| note(&line));
}

/// The feed has what is known of it, and all of it verifies; as long as it was never truncated, also when a
/// reader takes the last blocks.
async fn check(name: &str, feed: &Feed, known: &Known) {
    let info = feed.info();
    assert!(info.writable);
    let audit = feed.audit().await.unwrap();
    assert!(audit.is_clean(), "{name}: {audit:?}");
    let stored: Vec<u64> =
        (0..).zip(&known.blocks).filter(|(_, (_, is_stored))| *is_stored).map(|(index, _)| index).collect();
    assert_eq!(audit.blocks, stored.len() as u64);
    for index in &stored {
        let (fork, _) = known.blocks[*index as usize];
        assert_eq!(feed.get(*index).await.unwrap(), Some(block(name, fork, *index)), "{name} {index}");
    }
    if info.fork > 0 {
        // A new reader is on the first fork; how it changes over is tested elsewhere.
        return;
    }
    let reader = Store::memory().feed(&feed.key()).await.unwrap();
    for (n, index) in stored.iter().copied().skip(stored.len().saturating_sub(10)).enumerate() {
        let nodes = reader.with_local(|local| local.missing_nodes(index));
        let request = ProofRequest {
            block: Some(BlockRequest { index, nodes }),
            upgrade: (n == 0).then_some(UpgradeRequest { start: 0, length: info.length }),
            manifest: n == 0,
            ..ProofRequest::default()
        };
        let proof = feed.prove(request, info.fork).await.unwrap().expect("the block is there");
        let ingested = reader.ingest(vec![proof]).await.remove(0).unwrap();
        assert_eq!(ingested.block, Some(index));
    }
}

/// The block files take up no more than the blocks, the pages that they share, and what the last kill has left
/// behind them: that is given back with the next append.
#[cfg(target_os = "linux")]
fn check_space(dir: &Path, known: &BTreeMap<String, Known>) {
    use std::os::unix::fs::MetadataExt as _;
    let mut most = 64 << 10;
    for (name, known) in known {
        most += known.lost;
        for (index, (fork, _)) in (0..).zip(&known.blocks).filter(|(_, (_, is_stored))| *is_stored) {
            let len = block(name, *fork, index).len() as u64;
            most += if len < 100 { 0 } else { len + 8192 };
        }
    }
    let files = std::fs::read_dir(dir.join("blocks")).into_iter().flatten();
    let taken: u64 = files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum();
    assert!(taken <= most, "{taken} bytes for at most {most}");
}
