//! Runs behaviours against a shim, several at a time, each with a process that was told to forget all else.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use tokio::{task::JoinSet, time::timeout};

use super::{
    behaviour::Behaviour,
    expected::Expected,
    report::{Outcome, Report, Verdict},
    scene::Scene,
    shim::{Shim, ShimOptions, now},
};

/// How a run goes.
#[derive(Clone, Debug)]
pub struct Options {
    /// The shim.
    pub shim: ShimOptions,
    /// What it is known to fail.
    pub expected: Expected,
    /// How many processes of the shim there are at a time.
    pub jobs: usize,
    /// How long a single behaviour may take.
    pub limit: Duration,
    /// Whether to go on after the first failure.
    pub keep_going: bool,
    /// Called with each outcome, as it comes.
    pub told: fn(&Outcome),
}

impl Options {
    /// For the shim that this command starts, for `sh`.
    pub fn new(command: impl Into<String>) -> Self {
        Self {
            shim: ShimOptions { command: command.into(), patience: Duration::from_secs(5), memory: 2 << 30 },
            expected: Expected::default(),
            jobs: 4,
            limit: Duration::from_secs(60),
            keep_going: true,
            told: |_| {},
        }
    }
}

/// Runs behaviours.
///
/// # Errors
///
/// When the shim can't be started.
#[allow(clippy::disallowed_methods)] // says how long it took
pub async fn run(behaviours: Vec<Behaviour>, options: &Options) -> Result<Report> {
    ensure!(options.jobs > 0, "nobody runs the behaviours");
    let started = std::time::Instant::now();
    // A first one tells what it can do, and whether there is one at all.
    let shim = Shim::start(&options.shim).await?;
    let name = shim.name.clone();
    let count = behaviours.len();
    let queue: VecDeque<_> = behaviours.into_iter().enumerate().collect();
    let queue = Arc::new(Mutex::new(queue));
    let mut workers = JoinSet::new();
    let mut shim = Some(shim);
    for _ in 0..options.jobs.min(count.max(1)) {
        workers.spawn(work(queue.clone(), options.clone(), shim.take()));
    }
    let mut outcomes = Vec::new();
    while let Some(done) = workers.join_next().await {
        outcomes.extend(done?);
    }
    outcomes.sort_by_key(|(n, _)| *n);
    let outcomes = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    Ok(Report { shim: name, outcomes, filtered_out: 0, took: started.elapsed() })
}

type Queue = Arc<Mutex<VecDeque<(usize, Behaviour)>>>;

async fn work(queue: Queue, options: Options, mut shim: Option<Shim>) -> Vec<(usize, Outcome)> {
    let mut outcomes = Vec::new();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((n, behaviour)) = next else { break };
        let started = now();
        let (verdict, left) = show(&behaviour, &options, shim.take()).await;
        shim = left;
        let outcome = Outcome { behaviour, verdict, took: now() - started };
        (options.told)(&outcome);
        if matches!(outcome.verdict, Verdict::Failed(_)) && !options.keep_going {
            queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        outcomes.push((n, outcome));
    }
    if let Some(shim) = shim {
        shim.quit().await;
    }
    outcomes
}

/// Lets the shim show a behaviour. It comes back if it can be used again.
async fn show(behaviour: &Behaviour, options: &Options, shim: Option<Shim>) -> (Verdict, Option<Shim>) {
    let shim = match shim {
        Some(shim) => shim,
        None => match Shim::start(&options.shim).await {
            Ok(shim) => shim,
            Err(error) => return (judge(behaviour, &options.expected, Err(error)), None),
        },
    };
    if behaviour.needs.iter().any(|feature| !shim.features.contains(feature)) {
        return (Verdict::Skipped, Some(shim));
    }
    let mut scene = Scene::new(shim, options.shim.patience);
    let shown = match timeout(options.limit, (behaviour.act)(&mut scene)).await {
        Ok(shown) => shown,
        Err(_) => Err(anyhow!("it isn't over after {} s", options.limit.as_secs())),
    };
    let mut shim = scene.into_shim();
    let shown = match shown {
        Ok(()) => shim.check_memory().and(shim.reset().await),
        Err(error) => Err(error),
    };
    // One that has failed may be in any state.
    let error = match shown {
        Ok(()) => return (judge(behaviour, &options.expected, Ok(())), Some(shim)),
        Err(error) => error,
    };
    let words = shim.last_words();
    let error = match words.is_empty() {
        true => error,
        false => anyhow!("{error:#}\nthe shim's last words:\n  {}", words.join("\n  ")),
    };
    (judge(behaviour, &options.expected, Err(error)), None)
}

fn judge(behaviour: &Behaviour, expected: &Expected, shown: Result<()>) -> Verdict {
    match (shown, expected.reason(&behaviour.full_name())) {
        (Ok(()), None) => Verdict::Passed,
        (Ok(()), Some(_)) => Verdict::UnexpectedPass,
        (Err(error), None) => Verdict::Failed(format!("{error:#}")),
        (Err(error), Some(reason)) => {
            Verdict::ExpectedFailure { error: format!("{error:#}"), reason: reason.to_owned() }
        }
    }
}
