//! The failures that are expected of a shim, each with its reason.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

use super::behaviours::all;

/// Behaviours that a shim is known to fail, and why.
///
/// A file of lines `area/name: reason`. Empty lines, and those that begin with `#`, mean nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    reasons: BTreeMap<String, String>,
}

impl Expected {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), or when it can't be read.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// When an entry has no reason, names no behaviour, or is there twice.
    pub fn parse(text: &str) -> Result<Self> {
        let names: Vec<String> = all().map(|behaviour| behaviour.full_name()).collect();
        let mut reasons = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let Some((name, reason)) = line.split_once(':') else { bail!("no reason is given: {line}") };
            let (name, reason) = (name.trim().to_owned(), reason.trim().to_owned());
            ensure!(!reason.is_empty(), "no reason is given for {name}");
            ensure!(names.contains(&name), "there is no behaviour {name}");
            ensure!(reasons.insert(name.clone(), reason).is_none(), "{name} is there twice");
        }
        Ok(Self { reasons })
    }

    /// Why a behaviour is expected to fail, if it is.
    pub fn reason(&self, name: &str) -> Option<&str> {
        self.reasons.get(name).map(String::as_str)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.reasons.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }
}
