//! Plays scenarios.

use std::{panic, sync::Mutex, thread};

use anyhow::{Result, bail, ensure};

use super::{
    areas,
    file::{Area, Scenario},
};

/// Plays a scenario, and compares what comes of it with what it expects.
///
/// # Errors
/// If something else comes of it, or the scenario makes no sense.
pub fn check(area: &str, scenario: &Scenario) -> Result<()> {
    let kind = areas::kind(area, &scenario.kind)?;
    let Ok(played) = panic::catch_unwind(|| (kind.play)(&scenario.input)) else { bail!("it panics") };
    let outcome = (kind.compared)(played?.expect);
    let expected = (kind.compared)(scenario.expect.clone());
    ensure!(
        outcome == expected,
        "expected {}\n     came {}",
        serde_json::to_string(&expected)?,
        serde_json::to_string(&outcome)?,
    );
    Ok(())
}

/// Does something with every scenario for which `is_meant` says so, on as many threads as there are cores, and gives what it
/// gave in the order of the scenarios.
pub fn every_scenario<T: Send>(
    areas: &[Area],
    is_meant: impl Fn(&str, &Scenario) -> bool,
    act: impl Fn(&str, &Scenario) -> T + std::marker::Sync,
) -> Vec<(String, T)> {
    let jobs: Vec<(&str, &Scenario)> = areas
        .iter()
        .flat_map(|area| area.scenarios.iter().map(|scenario| (area.area.as_str(), scenario)))
        .filter(|(area, scenario)| is_meant(area, scenario))
        .collect();
    let next = Mutex::new(jobs.iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(jobs.len()));
    let lock = |result: Result<_, std::sync::PoisonError<_>>| {
        result.unwrap_or_else(std::sync::PoisonError::into_inner)
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some((at, (area, scenario))) = lock(next.lock()).next() else { break };
                    let came = act(area, scenario);
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, came));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    jobs.iter().zip(done).map(|((area, scenario), (_, came))| (scenario.full_name(area), came)).collect()
}
