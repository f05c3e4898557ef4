//! What is printed: results on standard output, for people or as JSON; progress on standard error, on a
//! terminal only.

use std::io::{self, Write as _};

use anyhow::Context as _;
use serde::Serialize;

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

    fn line(self, result: &impl Show) -> anyhow::Result<String> {
        let mut text = if self.json { serde_json::to_string(result)? } else { result.text() };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }
}

/// Writes to standard output and flushes. A reader that has gone away is an error as any other.
fn write(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}
