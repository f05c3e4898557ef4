//! What came of a run.

use std::{fmt::Write as _, time::Duration};

use super::behaviour::Behaviour;

/// What came of one behaviour.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub behaviour: Behaviour,
    /// What came of it.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

/// How a behaviour went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was shown.
    Passed,
    /// It was not, for this reason.
    Failed(String),
    /// It was not, as expected.
    ExpectedFailure {
        /// What went wrong.
        error: String,
        /// Why that is expected.
        reason: String,
    },
    /// It was shown, though a failure is expected: the entry is to be removed.
    UnexpectedPass,
    /// The shim can't do what it takes.
    Skipped,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What the shim calls itself.
    pub shim: String,
    /// In the order of the list.
    pub outcomes: Vec<Outcome>,
    /// Behaviours that the filter left out.
    pub filtered_out: usize,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    fn count(&self, is: impl Fn(&Verdict) -> bool) -> usize {
        self.outcomes.iter().filter(|outcome| is(&outcome.verdict)).count()
    }

    /// Behaviours that were shown.
    pub fn passed(&self) -> usize {
        self.count(|verdict| *verdict == Verdict::Passed)
    }

    /// Behaviours that make the run fail.
    pub fn failed(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Failed(_) | Verdict::UnexpectedPass))
    }

    /// Behaviours that failed as expected.
    pub fn expected_failures(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::ExpectedFailure { .. }))
    }

    /// Behaviours that the shim has not what it takes for.
    pub fn skipped(&self) -> usize {
        self.count(|verdict| *verdict == Verdict::Skipped)
    }

    /// A table by area, and what has failed and why.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        for outcome in &self.outcomes {
            let name = outcome.behaviour.full_name();
            let musts = outcome.behaviour.must.join(" ");
            match &outcome.verdict {
                Verdict::Failed(error) => {
                    writeln!(text, "FAILED {name} [{musts}]")?;
                    writeln!(text, "       {}", outcome.behaviour.sentence)?;
                    for line in error.lines() {
                        writeln!(text, "       {line}")?;
                    }
                }
                Verdict::UnexpectedPass => {
                    writeln!(text, "PASSED {name}, which is expected to fail: remove the entry")?;
                }
                Verdict::ExpectedFailure { error, reason } => {
                    let error = error.lines().next().unwrap_or_default();
                    writeln!(text, "failed as expected: {name}: {error} ({reason})")?;
                }
                Verdict::Passed | Verdict::Skipped => {}
            }
        }
        writeln!(text, "behaviours of {}:", self.shim)?;
        writeln!(
            text,
            "  {:<12} {:>5} {:>7} {:>7} {:>9} {:>8}",
            "", "ran", "passed", "failed", "expected", "skipped"
        )?;
        let mut areas: Vec<&str> = self.outcomes.iter().map(|outcome| outcome.behaviour.area).collect();
        areas.dedup();
        for area in areas {
            let outcomes = self.outcomes.iter().filter(|outcome| outcome.behaviour.area == area);
            self.part(area, outcomes.cloned().collect()).row(area, text)?;
        }
        self.row("all", text)?;
        writeln!(text, "  in {:.1} s", self.took.as_secs_f64())
    }

    fn part(&self, _area: &str, outcomes: Vec<Outcome>) -> Self {
        Self { outcomes, ..Self::default() }
    }

    fn row(&self, name: &str, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "  {name:<12} {:>5} {:>7} {:>7} {:>9} {:>8}",
            self.outcomes.len() - self.skipped(),
            self.passed(),
            self.failed(),
            self.expected_failures(),
            self.skipped(),
        )
    }
}
