//! A file of vectors, read and checked.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::areas;
use crate::spec::Page;

/// The longest file that is read, in bytes.
pub const MAX_FILE: u64 = 16 << 20;
/// The most scenarios of a file.
pub const MAX_SCENARIOS: usize = 10_000;
/// How deep the lists and objects of a scenario may stand in each other.
pub const MAX_NESTING: usize = 12;

/// A file of vectors.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Area {
    /// Its name, which is that of the file.
    pub area: String,
    /// What all its scenarios have in common.
    pub about: String,
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
}

/// What to feed in, and what to expect.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What is peculiar to it. No other of its kind is called so.
    pub name: String,
    /// What is done with the input.
    pub kind: String,
    /// What it shows.
    pub about: String,
    /// The ids of the sentences of `protocol-spec/` that it tests.
    pub must: Vec<String>,
    /// Who says so: packages with their versions, or `party`.
    pub source: String,
    /// What to feed in.
    pub input: Value,
    /// What to expect.
    pub expect: Expect,
}

/// What comes of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Expect {
    /// It is taken, and these values come of it.
    Accept(Value),
    /// It is refused.
    Refuse {
        /// In which way.
        how: Refusal,
        /// What stands although it was refused.
        after: Option<Value>,
    },
}

/// In which way something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The handshake fails, and with it the connection.
    Handshake,
    /// The first frame is no header of this stream, which ends the connection.
    StreamHeader,
    /// A frame is too short to be sealed, which ends the connection.
    FrameLength,
    /// A frame doesn't open, which ends the connection.
    Decryption,
    /// It is an error of the connection.
    Connection,
    /// The channel is rejected, or closed.
    Channel,
    /// The message doesn't decode, for which its channel is closed.
    Decode,
    /// The proof doesn't verify.
    Proof,
    /// The request can't be answered by a proof.
    Request,
    /// The signature doesn't hold.
    Signature,
    /// It is no manifest of the feed.
    Manifest,
    /// The application asks for what can't be.
    Misuse,
    /// The blocks are not those of the prologue, or not all of them.
    Prologue,
    /// The membership or revocation doesn't hold.
    Credential,
    /// The text is no ticket.
    Ticket,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accept: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refuse: Option<Refusal>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Value>,
}

impl TryFrom<Written> for Expect {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written { accept: Some(values), refuse: None, after: None } => Ok(Self::Accept(values)),
            Written { accept: None, refuse: Some(how), after } => Ok(Self::Refuse { how, after }),
            _ => Err("expects neither `accept` nor `refuse`, or both"),
        }
    }
}

impl From<Expect> for Written {
    fn from(expect: Expect) -> Self {
        match expect {
            Expect::Accept(values) => Self { accept: Some(values), refuse: None, after: None },
            Expect::Refuse { how, after } => Self { accept: None, refuse: Some(how), after },
        }
    }
}

impl Expect {
    /// Whether it is taken.
    pub fn is_accept(&self) -> bool {
        matches!(self, Self::Accept(_))
    }
}

impl Area {
    /// Reads `<area>.json` of [`folder`].
    ///
    /// # Errors
    /// If it is not there, or is not as described.
    pub fn load(area: &str) -> Result<Self> {
        let path = folder().join(format!("{area}.json"));
        let length = fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?.len();
        ensure!(length <= MAX_FILE, "{} has {length} bytes, and the most is {MAX_FILE}", path.display());
        let loaded = Self::parse(&fs::read_to_string(&path)?, &must_ids()?);
        let loaded = loaded.with_context(|| path.display().to_string())?;
        ensure!(loaded.area == area, "{} is called {}", path.display(), loaded.area);
        Ok(loaded)
    }

    /// Reads the text of a file, of which the scenarios may cite these sentences.
    ///
    /// # Errors
    /// If it is not as described: unknown fields and kinds, sentences that don't exist, and scenarios that are there twice.
    pub fn parse(text: &str, ids: &BTreeSet<String>) -> Result<Self> {
        let area: Self = serde_json::from_str(text)?;
        ensure!(area.scenarios.len() <= MAX_SCENARIOS, "more than {MAX_SCENARIOS} scenarios");
        let mut names = BTreeSet::new();
        let mut inputs = BTreeSet::new();
        for scenario in &area.scenarios {
            let check = || {
                areas::kind(&area.area, &scenario.kind)?;
                ensure!(names.insert((&scenario.kind, &scenario.name)), "another of its kind is called so");
                ensure!(inputs.insert(scenario.identity()), "another of its kind has the same input");
                ensure!(is_shallow(&scenario.input, MAX_NESTING), "the input is nested too deep");
                ensure!(!scenario.must.is_empty(), "it says not what it tests");
                let cited: BTreeSet<&String> = scenario.must.iter().collect();
                ensure!(cited.len() == scenario.must.len(), "it cites a sentence twice");
                let unknown = scenario.must.iter().find(|id| !ids.contains(*id));
                ensure!(unknown.is_none(), "there is no {}", unknown.map_or("", String::as_str));
                for text in [&scenario.name, &scenario.about, &scenario.source] {
                    ensure!(!text.is_empty(), "an empty text");
                }
                Ok(())
            };
            let mut check = check;
            check().with_context(|| scenario.full_name(&area.area))?;
        }
        Ok(area)
    }
}

impl Scenario {
    /// By which it is shown and filtered.
    pub fn full_name(&self, area: &str) -> String {
        format!("{area}/{}: {}", self.kind, self.name)
    }

    /// Its kind and input, of which there is one of each.
    pub fn identity(&self) -> String {
        format!("{} {}", self.kind, self.input)
    }
}

fn is_shallow(value: &Value, depth: usize) -> bool {
    let inside: Vec<&Value> = match value {
        Value::Array(values) => values.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => return true,
    };
    depth > 0 && inside.into_iter().all(|value| is_shallow(value, depth - 1))
}

/// Where the files are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// All files of [`folder`], in order of the layers.
///
/// # Errors
/// If one is lacking, is not as described, or is of no area.
pub fn all() -> Result<Vec<Area>> {
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(folder())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(area) = name.strip_suffix(".json") {
            there.insert(area.to_owned());
        }
    }
    let known: BTreeSet<String> = areas::NAMES.iter().map(|name| (*name).to_owned()).collect();
    ensure!(there == known, "there are files for {there:?}, and the areas are {known:?}");
    areas::NAMES.iter().map(|name| Area::load(name)).collect()
}

/// The ids of all sentences of `protocol-spec/` that bind.
///
/// # Errors
/// If a page can't be read.
pub fn must_ids() -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol-spec"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "md") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let page = Page::parse(&name, &fs::read_to_string(&path)?);
            ids.extend(page.sentences.into_iter().map(|sentence| sentence.id));
        }
    }
    Ok(ids)
}
