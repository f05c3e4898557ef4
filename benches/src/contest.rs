//! A piece of work, done by both sides in turn.

use std::{
    fs,
    future::Future,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{
    peers::{Side, Used},
    report::{Asked, Measure, Report},
};

/// What one round came to: values by the names of the measures.
pub type Figures = Vec<(String, f64)>;

/// Work that can be measured.
pub trait Work {
    /// What [`prepare`](Self::prepare) leaves for every round on one side, besides what stands in the folder.
    type Prepared;

    /// What is done, in a line.
    fn title(&self) -> String;

    /// What is measured, and what is asked of it.
    fn measures(&self) -> Vec<Measure>;

    /// Who does it.
    fn sides(&self) -> &[Side] {
        &[Side::Rust, Side::Node]
    }

    /// Makes in `folder` what all rounds start from, off the clock.
    fn prepare(&self, side: Side, folder: &Path) -> impl Future<Output = Result<Self::Prepared>>;

    /// Does it once. `scratch` is empty and goes afterwards. Rounds count from 0; the first of a side checks what was
    /// done, off the clock.
    fn round(
        &self,
        side: Side,
        prepared: &Self::Prepared,
        scratch: &Path,
        round: usize,
    ) -> impl Future<Output = Result<Figures>>;
}

/// How often work is done, and by whom.
#[derive(Debug, Clone, Copy)]
pub struct Rounds {
    /// How often on each side.
    pub count: usize,
    /// By one side alone.
    pub only: Option<Side>,
}

/// Does `work` in each round on each side. The sides take turns, and which goes first alternates, so that what else the
/// machine does meets both.
///
/// # Errors
///
/// When a process fails.
pub async fn contest<W: Work>(work: &W, rounds: Rounds) -> Result<Report> {
    let folder = TempDir::new()?;
    let mut measures = work.measures();
    let mut sides = Vec::new();
    for &side in work.sides().iter().filter(|side| rounds.only.is_none_or(|only| only == **side)) {
        note(&format!("{}: preparing {side:?}", work.title()));
        let at = folder.path().join(format!("{side:?}"));
        fs::create_dir(&at)?;
        sides.push((side, work.prepare(side, &at).await?));
    }
    for round in 0..rounds.count {
        for (side, prepared) in &sides {
            let scratch = folder.path().join("scratch");
            fs::create_dir(&scratch)?;
            let figures = work
                .round(*side, prepared, &scratch, round)
                .await
                .with_context(|| format!("{side:?} has failed at {}", work.title()))?;
            fs::remove_dir_all(&scratch)?;
            note(&format!("{}: {side:?}: {}", work.title(), shown(&figures)));
            for (name, value) in figures {
                let measure = measures.iter_mut().find(|measure| measure.name() == name);
                measure.with_context(|| format!("{name} is not measured"))?.add(*side, value);
            }
        }
        sides.reverse();
    }
    Ok(Report { work: work.title(), measures })
}

/// The memory of both ends and the time of the processors, which every piece of work is measured by.
pub(crate) fn of_processes() -> [Measure; 3] {
    [
        Measure::less("CPU s, all processes", Asked::Nothing),
        Measure::less("writer's peak MB", Asked::Times(1.0)),
        Measure::less("reader's peak MB", Asked::Times(1.0)),
    ]
}

/// The values of [`of_processes`].
pub(crate) fn used(used: &Used) -> Figures {
    vec![
        ("CPU s, all processes".to_owned(), used.cpu_seconds),
        ("writer's peak MB".to_owned(), used.writer_megabytes),
        ("reader's peak MB".to_owned(), used.reader_megabytes),
    ]
}

fn shown(figures: &Figures) -> String {
    figures.iter().map(|(name, value)| format!("{name} {value:.1}")).collect::<Vec<_>>().join(", ")
}

/// Progress on standard error: the whole run takes minutes.
pub fn note(text: &str) {
    // A closed standard error is no reason to stop measuring.
    let _ = writeln!(io::stderr(), "{text}");
}
