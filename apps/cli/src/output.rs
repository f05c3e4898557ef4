//! What is printed: results on standard output, for people or as JSON; progress on standard error, on a
//! terminal only.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Serialize, Serializer};

/// How results are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

/// A result that can be shown to people and to machines.
pub(crate) trait Show: Serialize {
    /// The text for people; a line end is added if it has none.
    fn text(&self) -> String;
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints one result and flushes it, so that who reads it from a pipe can rely on it.
    pub(crate) fn show(self, result: &impl Show) -> anyhow::Result<()> {
        write(&self.line(result)?)
    }

    /// Prints many results at once, a line each.
    pub(crate) fn show_all<S: Show>(self, results: impl Iterator<Item = S>) -> anyhow::Result<()> {
        let lines = results.map(|result| self.line(&result)).collect::<anyhow::Result<String>>()?;
        write(&lines)
    }

    /// Tells people, on standard error, why there is no result.
    pub(crate) fn note(self, text: &str) {
        if !self.json {
            // Nothing depends on it.
            let _ = writeln!(io::stderr(), "party: {text}");
        }
    }

    fn line(self, result: &impl Show) -> anyhow::Result<String> {
        let mut text = if self.json { serde_json::to_string(result)? } else { result.text() };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }

    /// Whether something may be drawn on standard error for a person who waits.
    fn draws(self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// A bar over `total` bytes, or a counter of them if the total isn't known.
    pub(crate) fn bytes(self, total: Option<u64>) -> Progress {
        let style = match total {
            Some(_) => "{bar:30} {bytes}/{total_bytes}  {binary_bytes_per_sec}  {eta}",
            None => "{spinner} {bytes}  {binary_bytes_per_sec}",
        };
        self.progress(total, style)
    }

    /// A bar over blocks whose number grows as it becomes known.
    pub(crate) fn blocks(self) -> Progress {
        self.progress(Some(0), "{bar:30} {pos}/{len} blocks  {per_sec}  {msg}")
    }

    /// No bar: for work that has no end to wait for.
    pub(crate) fn quiet(self) -> Progress {
        Progress { bar: ProgressBar::hidden() }
    }

    fn progress(self, total: Option<u64>, style: &'static str) -> Progress {
        let target = if self.draws() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target);
        // The templates above are fixed, so a bad one shows in the first run of the tests.
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        if self.draws() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Progress { bar }
    }
}

/// Writes a value as its text.
pub(crate) fn text<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// A time in seconds since 1970 UTC, as people read it.
pub(crate) fn utc(seconds: u64) -> String {
    const DAY: u64 = 86_400;
    // Of the Gregorian calendar, which repeats every 400 years; counted from a 1st of March, so that a leap day comes last.
    let days = seconds / DAY + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (date, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = 400 * era + year + u64::from(month < 3);
    let (hour, minute, second) = (seconds % DAY / 3_600, seconds % 3_600 / 60, seconds % 60);
    format!("{year:04}-{month:02}-{date:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Writes to standard output and flushes. A reader that has gone away is an error as any other.
fn write(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// A progress bar that leaves the screen with it.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn add(&self, n: u64) {
        self.bar.inc(n);
    }

    pub(crate) fn set(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// Prints something beside the bar, which would otherwise run into it on a terminal.
    pub(crate) fn aside<R>(&self, print: impl FnOnce() -> R) -> R {
        self.bar.suspend(print)
    }

    pub(crate) fn say(&self, message: String) {
        self.bar.set_message(message);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (1_795_985_827, "2026-11-29 20:57:07 UTC"),
        ] {
            assert_eq!(utc(seconds), expected);
        }
    }
}
