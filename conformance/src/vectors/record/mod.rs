//! Records the areas of which this implementation is the truth: the party channel, credentials and tickets.
//!
//! Messages of the party channel are written by hand here, as `protocol-spec/party.proto` says, and not by the library. What is
//! expected is computed by the library; which end a scenario has is said beside it, so that a wrong one is not recorded.
//!
//! ```text
//! PARTY_RECORD_VECTORS=1 cargo test -p conformance --test vector_files what_we_record
//! ```

mod credentials;
mod party;
mod revocations;
mod tickets;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::{
    areas,
    file::{Area, Expect, Refusal, Scenario},
};

/// All areas that are recorded here. An area is an error if a scenario of it has another end than it should have.
pub fn all() -> [Result<Area>; 3] {
    [party::record, credentials::record, tickets::record].map(|record| record())
}

/// The text of a file, with each scenario on a line of its own.
///
/// # Errors
/// None, but of what can't be written as JSON.
pub fn text(area: &Area) -> Result<String> {
    let lines: Vec<String> = area
        .scenarios
        .iter()
        .map(|scenario| Ok(format!("    {}", serde_json::to_string(scenario)?)))
        .collect::<Result<_>>()?;
    let (name, about) = (serde_json::to_string(&area.area)?, serde_json::to_string(&area.about)?);
    let lines = lines.join(",\n");
    Ok(format!("{{\n  \"area\": {name},\n  \"about\": {about},\n  \"scenarios\": [\n{lines}\n  ]\n}}\n"))
}

/// How a scenario must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Accepted,
    Refused(Refusal),
}

/// Collects the scenarios of an area.
struct Recorder {
    area: Area,
    /// Scenarios with another end than they should have.
    faults: Vec<String>,
}

impl Recorder {
    fn new(area: &str, about: &str) -> Self {
        Self {
            area: Area { area: area.to_owned(), about: about.to_owned(), scenarios: vec![] },
            faults: vec![],
        }
    }

    fn finish(self) -> Result<Area> {
        ensure!(self.faults.is_empty(), "{}", self.faults.join("\n"));
        Ok(self.area)
    }

    /// Scenarios of one kind that show the same.
    fn about<'a>(
        &'a mut self,
        kind: &'static str,
        about: &'static str,
        must: &'a [&'static str],
    ) -> Group<'a> {
        Group { recorder: self, kind, about, must }
    }
}

struct Group<'a> {
    recorder: &'a mut Recorder,
    kind: &'static str,
    about: &'static str,
    must: &'a [&'static str],
}

impl Group<'_> {
    /// What is expected of it, if it is accepted.
    fn accept(&mut self, name: impl Into<String>, input: impl Serialize) -> Result<Value> {
        match self.add(name.into(), input, End::Accepted)? {
            Expect::Accept(values) => Ok(values),
            // A fault, and told with the others.
            Expect::Refuse { .. } => Ok(Value::Null),
        }
    }

    fn refuse(&mut self, name: impl Into<String>, how: Refusal, input: impl Serialize) -> Result<()> {
        self.add(name.into(), input, End::Refused(how)).map(drop)
    }

    fn add(&mut self, name: String, input: impl Serialize, end: End) -> Result<Expect> {
        let area = &mut self.recorder.area;
        let input = serde_json::to_value(input)?;
        let kind = areas::kind(&area.area, self.kind)?;
        let outcome = (kind.play)(&input).with_context(|| name.clone())?;
        let ended = match &outcome.expect {
            Expect::Accept(_) => End::Accepted,
            Expect::Refuse { how, .. } => End::Refused(*how),
        };
        if ended != end {
            let fault = format!("{}: {name}: {end:?} was to be, and it is {:?}", self.kind, outcome.expect);
            self.recorder.faults.push(fault);
            return Ok(outcome.expect);
        }
        // Two ways to the same input are one scenario.
        let same = |one: &&mut Scenario| one.kind == self.kind && one.input == input;
        if let Some(before) = area.scenarios.iter_mut().find(same) {
            let more = self.must.iter().map(|id| (*id).to_owned());
            before.must.extend(more.filter(|id| !before.must.contains(id)).collect::<Vec<_>>());
            return Ok(outcome.expect);
        }
        area.scenarios.push(Scenario {
            name,
            kind: self.kind.to_owned(),
            about: self.about.to_owned(),
            must: self.must.iter().map(|id| (*id).to_owned()).collect(),
            source: "party".to_owned(),
            input,
            expect: outcome.expect.clone(),
        });
        Ok(outcome.expect)
    }
}
