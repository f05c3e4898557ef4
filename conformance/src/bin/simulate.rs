//! Runs the simulator. See `conformance/README.md`.
//!
//!     cargo run --release -p conformance --bin simulate -- --peers 1000 --hours 1 --seed 1

// It prints, and says how long it took.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use conformance::simulator::{Config, Report, run, shortest};

/// Hundreds of complete peers in one thread and in virtual time, with faults and malicious peers among them.
#[derive(Debug, Parser)]
#[command(name = "simulate", max_term_width = 100)]
struct Arguments {
    /// Decides all that isn't said by the others
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Runs so many seeds, from --seed on
    #[arg(long, default_value_t = 1)]
    seeds: u64,

    /// Runs at a time, each in a thread of its own
    #[arg(long, default_value_t = 1)]
    jobs: usize,

    #[arg(long, default_value_t = 50)]
    peers: usize,

    /// Links of each peer
    #[arg(long, default_value_t = 6)]
    links: usize,

    /// Blocks that each peer appends
    #[arg(long, default_value_t = 20)]
    appends: usize,

    /// Peers, side by side, that share their feeds
    #[arg(long, default_value_t = 10)]
    circle: usize,

    /// How long a run is in virtual time
    #[arg(long, default_value_t = 1.0)]
    hours: f64,

    /// Malicious peers, in a hundred
    #[arg(long, default_value_t = 5, value_name = "PERCENT")]
    malicious: u32,

    /// Peers that die and come back, in a hundred
    #[arg(long, default_value_t = 5, value_name = "PERCENT")]
    restarts: u32,

    /// How often the network falls into two
    #[arg(long, default_value_t = 1)]
    partitions: usize,

    /// Has no more than the first so many events
    #[arg(long)]
    events: Option<usize>,

    /// Runs each seed twice, and compares
    #[arg(long)]
    twice: bool,

    /// Fails if the process has had more memory than that, in MiB
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,

    /// Prints so many of the last lines of the trace
    #[arg(long, default_value_t = 0, value_name = "LINES")]
    trace: usize,
}

/// Lines of the trace that are printed of a run that has failed.
const LINES: usize = 60;

impl Arguments {
    fn config(&self, seed: u64) -> Config {
        Config {
            seed,
            peers: self.peers,
            links: self.links,
            appends: self.appends,
            circle: self.circle,
            duration: Duration::from_secs_f64(self.hours * 3_600.0),
            malicious_percent: self.malicious,
            restart_percent: self.restarts,
            partitions: self.partitions,
            events: self.events,
            keep_lines: self.trace.max(LINES),
            ..Config::default()
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seeds = arguments.seed..arguments.seed.saturating_add(arguments.seeds);
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    // One report at a time.
    let printing = Mutex::new(());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) || failed.load(Ordering::Relaxed) {
                        return;
                    }
                    if !attempt(&arguments, seed, &printing) {
                        failed.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    if let Some(bound) = arguments.memory
        && let Some(resident) = most_resident()
        && resident > bound << 20
    {
        println!("{} MiB of memory are more than {bound}", resident >> 20);
        return ExitCode::FAILURE;
    }
    if failed.into_inner() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs a seed, and prints how it went. Returns whether all was well.
fn attempt(arguments: &Arguments, seed: u64, printing: &Mutex<()>) -> bool {
    let config = arguments.config(seed);
    let began = Instant::now();
    let report = run(&config);
    let seconds = began.elapsed().as_secs_f64();
    let again = arguments.twice.then(|| run(&config).hash);
    let _printing = printing.lock();
    if arguments.seeds > 1 {
        print_line(&config, &report, seconds);
    } else {
        print(&config, &report, seconds);
    }
    for line in report.lines.iter().rev().take(arguments.trace).rev() {
        println!("{line}");
    }
    if again.as_ref().is_some_and(|again| *again != report.hash) {
        println!("seed {seed}: the second run was another: {}", again.unwrap_or_default());
        return false;
    }
    let Some(violation) = &report.violation else { return true };
    println!("seed {seed}: {violation}");
    if let Some(found) = shortest(&config, |events| println!("trying {events} events")) {
        println!(
            "the shortest prefix that still fails has {} events, found in {} runs:",
            found.events, found.runs
        );
        found.report.lines.iter().for_each(|line| println!("{line}"));
        if let Some(violation) = &found.report.violation {
            println!("seed {seed}: {violation}");
        }
        println!("run it by the same arguments with --seed {seed} --events {}", found.events);
    }
    false
}

fn print(config: &Config, report: &Report, seconds: f64) {
    let Report { counts, faults, .. } = report;
    let hours = config.duration.as_secs_f64() / 3_600.0;
    println!("seed                  {}", config.seed);
    println!("peers                 {}, {} of them malicious", config.peers, report.malicious);
    println!("virtual hours         {hours}");
    println!("events                {}", report.events);
    println!("blocks acknowledged   {}", counts.acknowledged);
    println!(
        "blocks delivered      {}, {} of them over others than their writer",
        counts.delivered, counts.delivered_over_others
    );
    println!("connections           {}, admissions {}", report.connections, counts.admitted);
    println!(
        "faults                {} cuts, {} partitions, {} slow links, {} restarts with {} commits lost",
        faults.cuts, faults.partitions, faults.slow_links, faults.restarts, faults.lost_commits
    );
    println!("refused by rules      {}", counts.refused);
    println!("network               {} deliveries, {} bytes", report.traffic.0, report.traffic.1);
    println!("tasks at most         {}", report.most_tasks);
    if let Some(resident) = most_resident() {
        println!("memory at most        {} MiB", resident >> 20);
    }
    match report.converged_after {
        Some(after) => println!("converged after       {:.1} s", after.as_secs_f64()),
        None => println!("converged after       never"),
    }
    println!("hash of the trace     {}", report.hash);
    println!("wall seconds          {seconds:.1}");
}

/// The most memory that this process has had, in bytes, where the system tells.
fn most_resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

fn print_line(config: &Config, report: &Report, seconds: f64) {
    println!(
        "seed {} {} {} blocks delivered, {} connections, {} malicious, {seconds:.1} s",
        config.seed, report.hash, report.counts.delivered, report.connections, report.malicious
    );
}
