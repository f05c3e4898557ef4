//! Which embedded database a store is built on.
//!
//!     cargo run --release --manifest-path benches/databases/Cargo.toml
//!
//! Each database is given what a store writes: for a batch of blocks the blocks, their tree nodes in rows of
//! sixteen, and the head of the feed, in one transaction; once with the blocks in it, and once with the
//! blocks in a file beside it that is only appended to, and their places in the database. Nobody waits for
//! the disk: what is asked is that a commit survives the end of the process. Every figure is of a process of
//! its own. `src/engines.rs` has how each database is set up.

mod engines;

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::engines::{Engine, NAMES, Write, open};

/// Bytes of tree nodes that come with a block, about: two nodes of 41 bytes.
const NODE: usize = 41;
const ROW: u64 = 16;
const HEAD: usize = 200;
/// Where a block in a file is: file, offset, length, checksum.
const PLACE: usize = 20;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run_all(),
        ["child", engine, layout, work, dir, size, count, batch] => {
            let mut store = Store::open(engine, layout == "file", Path::new(dir))?;
            store.work(work, size.parse()?, count.parse()?, batch.parse()?)
        }
        _ => bail!("no arguments are needed"),
    }
}

fn run_all() -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "| database | blocks in | 64 B x 128 | 1 KiB x 128 | 64 KiB x 16 | singly 1 KiB | random read | \
         10,000 feeds | open, closed | open, aborted | lost | MB for 100 |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|---|---|---|")?;
    for engine in NAMES {
        for layout in ["database", "file"] {
            let measured = Measured::of(engine, layout)?;
            writeln!(out, "| {engine} | {layout} | {measured} |")?;
            out.flush()?;
        }
    }
    Ok(())
}

struct Measured(Vec<String>);

impl Measured {
    fn of(engine: &str, layout: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let run = |dir: &str, work: &str, size: u64, count: u64, batch: u64| {
            child(&[
                engine,
                layout,
                work,
                path(&at(dir))?,
                &size.to_string(),
                &count.to_string(),
                &batch.to_string(),
            ])
        };
        let rate = |seconds: f64, count: u64| format!("{:.0}k", count as f64 / seconds / 1000.0);
        let small = rate(run("small", "append", 64, 400_000, 128)?, 400_000);
        let medium = rate(run("medium", "append", 1024, 100_000, 128)?, 100_000);
        let megabytes = disk_bytes(&at("medium"))? as f64 / (100_000.0 * 1024.0) * 100.0;
        let large = format!("{:.1}k", 5000.0 / run("large", "append", 65_536, 5_000, 16)? / 1000.0);
        let singly = rate(run("singly", "append", 1024, 30_000, 1)?, 30_000);
        let random = rate(run("medium", "read", 1024, 100_000, 128)?, 100_000);
        let feeds = rate(run("feeds", "feeds", 64, 10_000, 1)?, 10_000);
        let closed = run("singly", "open", 0, 0, 0)?;
        // Aborted in the middle: what was acknowledged before must be there.
        let _ = run("aborted", "abort", 1024, 20_000, 1);
        let aborted = run("aborted", "open", 0, 0, 0)?;
        let lost = run("aborted", "count", 0, 20_000, 0)?;
        Ok(Self(vec![
            small,
            medium,
            large,
            singly,
            random,
            feeds,
            format!("{:.0} ms", closed * 1000.0),
            format!("{:.0} ms", aborted * 1000.0),
            format!("{lost:.0}"),
            format!("{megabytes:.0}"),
        ]))
    }
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(" | "))
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

/// Runs one piece of work in a process of its own, and gives the figure that it prints.
fn child(arguments: &[&str]) -> Result<f64> {
    let output = Command::new(env::current_exe()?).arg("child").args(arguments).output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(text.trim().parse()?)
}

/// What the files of a folder take on the disk.
fn disk_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => disk_bytes(&entry.path())?,
            false => std::os::unix::fs::MetadataExt::blocks(&entry.metadata()?) * 512,
        };
    }
    Ok(bytes)
}

/// A database, and a file for the blocks if they are kept apart.
struct Store {
    engine: Box<dyn Engine>,
    blocks: Option<File>,
    end: u64,
    opened: f64,
}

impl Store {
    fn open(engine: &str, apart: bool, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let clock = Instant::now();
        let engine = open(engine, dir)?;
        let file = || File::options().create(true).append(true).read(true).open(dir.join("blocks"));
        let blocks = if apart { Some(file()?) } else { None };
        let end = blocks.as_ref().map_or(Ok(0), |file| file.metadata().map(|it| it.len()))?;
        Ok(Self { engine, blocks, end, opened: clock.elapsed().as_secs_f64() })
    }

    fn work(&mut self, work: &str, size: usize, count: u64, batch: u64) -> Result<()> {
        let clock = Instant::now();
        let figure = match work {
            "append" | "abort" => {
                for start in (0..count).step_by(batch as usize) {
                    self.append(0, start, batch.min(count - start), size)?;
                }
                if work == "abort" {
                    std::process::abort();
                }
                clock.elapsed().as_secs_f64()
            }
            "feeds" => {
                for feed in 0..count {
                    self.append(feed, 0, 1, size)?;
                }
                clock.elapsed().as_secs_f64()
            }
            "read" => {
                let mut at = 1u64;
                for _ in 0..count {
                    at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    ensure!(self.read((at >> 33) % count, size)? == size, "a block of another length");
                }
                clock.elapsed().as_secs_f64()
            }
            "open" => self.opened,
            // How many of the commits that were acknowledged are gone.
            "count" => {
                let mut found = count;
                while found > 0 && self.engine.get(&row_key(b'b', 0, (found - 1) / ROW))?.is_none() {
                    found -= 1;
                }
                let head = self.engine.get(&key(b'h', 0, 0))?.context("no head")?;
                let length = head.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                (count - length.min(found)) as f64
            }
            _ => bail!("no such work"),
        };
        self.engine.close()?;
        writeln!(std::io::stdout(), "{figure}")?;
        Ok(())
    }

    /// One batch as a store commits it.
    fn append(&mut self, feed: u64, start: u64, count: u64, size: usize) -> Result<()> {
        let mut writes: Vec<Write> = vec![];
        let block = vec![start as u8; size];
        let mut apart = Vec::new();
        for row in start / ROW..=(start + count - 1) / ROW {
            let in_row = (start + count).min((row + 1) * ROW) - row * ROW;
            let mut value = Vec::new();
            for index in row * ROW..row * ROW + in_row {
                match &self.blocks {
                    Some(_) if index >= start => {
                        value.extend_from_slice(&(self.end + apart.len() as u64).to_be_bytes());
                        value.resize(value.len() + PLACE - 8, 1);
                        apart.extend_from_slice(&block);
                    }
                    Some(_) => value.resize(value.len() + PLACE, 1),
                    // A large block is not written again for its neighbour: each has its own key.
                    None if index >= start => writes.push((key(b'B', feed, index), block.clone())),
                    None => {}
                }
            }
            value.push(0);
            writes.push((row_key(b'b', feed, row), value));
            writes.push((row_key(b'n', feed, row), vec![7; 2 * NODE * in_row as usize]));
        }
        let mut head = (start + count).to_be_bytes().to_vec();
        head.resize(HEAD, 9);
        writes.push((key(b'h', feed, 0), head));
        if let Some(file) = &mut self.blocks {
            file.write_all(&apart)?;
            self.end += apart.len() as u64;
        }
        self.engine.commit(&writes)
    }

    fn read(&self, index: u64, size: usize) -> Result<usize> {
        let Some(file) = &self.blocks else {
            return Ok(self.engine.get(&key(b'B', 0, index))?.context("a block is missing")?.len());
        };
        let row = self.engine.get(&row_key(b'b', 0, index / ROW))?.context("a row is missing")?;
        let at = (index % ROW) as usize * PLACE;
        let place = row.get(at..at + 8).and_then(|it| it.first_chunk::<8>()).context("a place is missing")?;
        let mut block = vec![0; size];
        std::os::unix::fs::FileExt::read_exact_at(file, &mut block, u64::from_be_bytes(*place))?;
        Ok(block.len())
    }
}

fn key(kind: u8, feed: u64, index: u64) -> Vec<u8> {
    [&[kind][..], &feed.to_be_bytes(), &index.to_be_bytes()].concat()
}

fn row_key(kind: u8, feed: u64, row: u64) -> Vec<u8> {
    key(kind, feed, row)
}
