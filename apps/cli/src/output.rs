//! What is printed: results on standard output, for people or as JSON; progress on standard error, on a
//! terminal only.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// How results are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

/// A result that can be shown to people and to machines.
pub(crate) trait Show: Serialize {
    /// The text for people, with its line end.
    fn text(&self) -> String;
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints one result and flushes it, so that who reads it from a pipe can rely on it.
    pub(crate) fn show(self, result: &impl Show) -> anyhow::Result<()> {
        let mut text = if self.json { serde_json::to_string(result)? + "\n" } else { result.text() };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        write(text.as_bytes())
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

/// Writes to standard output and flushes. A reader that has gone away is an error as any other.
pub(crate) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
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

    pub(crate) fn say(&self, message: String) {
        self.bar.set_message(message);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
