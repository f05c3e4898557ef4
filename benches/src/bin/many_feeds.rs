//! What a store of many feeds takes of memory: for each feed that is closed, and for each that is open and idle.
//!
//!     cargo run --release -p benches --bin many_feeds [FEEDS]
//!
//! Feeds are made in one process and opened in another, so that what the making leaves behind isn't counted.

// It measures time, and says so.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

use std::{env, fs, path::Path, process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};
use party::store::Store;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match arguments.as_slice() {
        [role, dir, feeds] if role == "make" => runtime.block_on(make(Path::new(dir), feeds.parse()?)),
        [role, dir, feeds] if role == "open" => runtime.block_on(open(Path::new(dir), feeds.parse()?)),
        rest => {
            let feeds = rest.first().map_or("10000", String::as_str);
            let dir = tempfile::tempdir()?;
            for role in ["make", "open"] {
                let status =
                    Command::new(env::current_exe()?).arg(role).arg(dir.path()).arg(feeds).status()?;
                ensure!(status.success(), "{role} failed");
            }
            Ok(())
        }
    }
}

async fn make(dir: &Path, feeds: usize) -> Result<()> {
    let store = Store::open(dir).await?;
    let (start, before) = (Instant::now(), resident()?);
    for n in 0..feeds {
        let feed = store.named_feed(&format!("feed {n}")).await?;
        feed.append_batch(vec![b"a block".as_slice().into(); 3]).await?;
    }
    say("made and closed again", feeds, start, before)?;
    store.close().await;
    Ok(())
}

async fn open(dir: &Path, feeds: usize) -> Result<()> {
    let store = Store::open(dir).await?;
    // What the storage warms up once.
    let _first = store.named_feed("feed 0").await?.get(2).await?;
    let (start, before) = (Instant::now(), resident()?);
    let mut names = vec![];
    for n in 0..feeds {
        names.push(store.named_feed(&format!("feed {n}")).await?.key());
    }
    say("opened and closed, one after the other", feeds, start, before)?;
    let (start, before) = (Instant::now(), resident()?);
    let mut held = Vec::with_capacity(feeds);
    for key in &names {
        held.push(store.feed(key).await?);
    }
    say("open and idle", feeds, start, before)?;
    let start = Instant::now();
    drop(held);
    say("closed, over what it was before they were opened", feeds, start, before)?;
    let (start, before) = (Instant::now(), resident()?);
    let listed = store.list().await?.len();
    ensure!(listed == feeds, "{listed} feeds");
    say("listed", feeds, start, before)?;
    store.close().await;
    Ok(())
}

fn say(what: &str, feeds: usize, start: Instant, before: u64) -> Result<()> {
    let (each, now) = (resident()?.saturating_sub(before) / feeds as u64, resident()? >> 20);
    let micros = start.elapsed().as_micros() / feeds as u128;
    println!("{feeds} feeds {what}: {each} bytes and {micros} us each; {now} MiB in all");
    Ok(())
}

/// The memory that this process has, in bytes.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes << 10)
}
