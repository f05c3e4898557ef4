//! A process is killed while it appends. Every block whose index it had printed is there, and verifies.
//!
//! The test runs its own binary again as the process to be killed. `PARTY_CRASHES` says how often; the seed
//! that decides when is printed and can be given as `PARTY_CRASH_SEED`.
#![cfg(all(feature = "disk", unix))]
// The seed is shown so that a failure can be repeated.
#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    env,
    io::{self, BufRead as _, BufReader, Write as _},
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

const STORE: &str = "PARTY_CRASH_STORE";
const FEEDS: [&str; 2] = ["first", "second"];

/// SplitMix64: good enough to decide sizes and moments, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// What stands at `index` of the feed `name`: known to both processes.
fn block(name: &str, index: u64) -> Bytes {
    let mut random = Random(index ^ name.len() as u64);
    let len = match random.below(20) {
        0 => 0,
        1 => 70_000,
        2..6 => random.below(5_000),
        _ => random.below(200),
    };
    (0..len).map(|_| random.next() as u8).collect()
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
        writers.push(tokio::spawn(append_forever(name, feed)));
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

async fn append_forever(name: &str, feed: Feed) {
    let mut random = Random(feed.info().length);
    loop {
        let length = feed.info().length;
        let last = if random.below(2) == 0 {
            feed.append(block(name, length)).await.unwrap()
        } else {
            let count = 1 + random.below(40);
            let blocks = (length..length + count).map(|index| block(name, index)).collect();
            feed.append_batch(blocks).await.unwrap().end - 1
        };
        say(&format!("{name} {last}"));
    }
}

/// Past the test harness, which would keep it to itself.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    // That nobody reads any more is no matter: the process is about to be killed.
    let _ = writeln!(out, "\n@{line}").and_then(|()| out.flush());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_appended_before_a_kill_is_there_after_it() {
    let crashes = number("PARTY_CRASHES").unwrap_or(10);
    let seed = number("PARTY_CRASH_SEED").unwrap_or(1);
    println!("PARTY_CRASHES={crashes} PARTY_CRASH_SEED={seed}");
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut printed = BTreeMap::new();
    for crash in 0..crashes {
        // The first ones hit the making of the store and of its feeds.
        let lines = if crash < 3 { crash } else { random.below(300) };
        append_and_kill(dir.path(), lines, &mut printed);
        let store = Store::open(dir.path()).await.unwrap();
        for name in FEEDS {
            let feed = store.feed_by_name(name).await.unwrap();
            let least = printed.get(name).map_or(0, |last| last + 1);
            match feed {
                // What an earlier round has checked may only have been lost as a whole.
                Some(feed) if crash + 1 < crashes => {
                    check(name, &feed, least, least.saturating_sub(300)).await
                }
                Some(feed) => check(name, &feed, least, 0).await,
                None => assert_eq!(least, 0, "{name} is gone after crash {crash}"),
            }
        }
        store.close().await;
    }
    assert!(crashes < 5 || printed.values().sum::<u64>() > 100, "{printed:?}");
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// Starts the child, and kills it once it has said `lines` lines after its first. Notes what it printed.
fn append_and_kill(dir: &Path, lines: u64, printed: &mut BTreeMap<String, u64>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(STORE, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut note = |line: &str| {
        if let Some((name, index)) =
            line.split_once(' ').and_then(|(name, index)| Some((name, index.parse().ok()?)))
        {
            printed.insert(name.to_owned(), index);
        }
    };
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let mut said = stdout.lines().map(|line| line.unwrap()).filter(|line| line.starts_with('@'));
    for _ in 0..=lines {
        note(&said.next().expect("the child appends until it is killed")[1..]);
    }
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    // What it printed before it noticed counts as well. The last line may be cut.
    let rest: Vec<_> = said.collect();
    for line in rest.iter().take(rest.len().saturating_sub(1)) {
        note(&line[1..]);
    }
}

/// At least `least` blocks are left, and those from `from` on are what they were and verify when a reader
/// takes them.
async fn check(name: &str, feed: &Feed, least: u64, from: u64) {
    let info = feed.info();
    assert!(info.length >= least, "{name}: {} blocks are left of {least}", info.length);
    assert!(info.writable);
    assert_eq!(info.contiguous_length, info.length);
    let reader = Store::memory().feed(&feed.key()).await.unwrap();
    for index in from..info.length {
        let found = feed.get(index).await.unwrap();
        assert_eq!(found, Some(block(name, index)), "{name} {index}");
        let is_first = index == from;
        let nodes = reader.with_local(|local| local.missing_nodes(index));
        let request = ProofRequest {
            block: Some(BlockRequest { index, nodes }),
            upgrade: is_first.then_some(UpgradeRequest { start: 0, length: info.length }),
            manifest: is_first,
            ..ProofRequest::default()
        };
        let proof = feed.prove(request, info.fork).await.unwrap().expect("every block is there");
        let ingested = reader.ingest(vec![proof]).await.remove(0).unwrap();
        assert_eq!(ingested.block, Some(index));
    }
    if from < info.length {
        let read = reader.info();
        assert_eq!((read.length, read.byte_length), (info.length, info.byte_length));
    }
}
