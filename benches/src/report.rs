//! What was measured, its medians, what is asked for, and the table of it.

use std::fmt::Write as _;

use serde::{Serialize, Serializer};

use crate::peers::Side;

/// A row of the table: one piece of work, and all that was measured of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was done.
    pub work: String,
    /// What was measured of it.
    pub measures: Vec<Measure>,
}

/// One figure of a piece of work, in every round and on each side.
#[derive(Debug)]
pub struct Measure {
    name: String,
    good: Good,
    asked: Asked,
    node: Vec<f64>,
    rust: Vec<f64>,
}

/// Which figures are the better ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Good {
    /// Large ones.
    More,
    /// Small ones.
    Less,
}

/// What issue 4 asks of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Asked {
    /// Nothing: it is there to explain the others.
    Nothing,
    /// To be so many times better than Node's, or more.
    Times(f64),
    /// To be no less.
    AtLeast(f64),
    /// To be no more.
    AtMost(f64),
}

impl Measure {
    /// A figure of which large ones are better.
    #[must_use]
    pub fn more(name: impl Into<String>, asked: Asked) -> Self {
        Self::new(name.into(), Good::More, asked)
    }

    /// A figure of which small ones are better.
    #[must_use]
    pub fn less(name: impl Into<String>, asked: Asked) -> Self {
        Self::new(name.into(), Good::Less, asked)
    }

    fn new(name: String, good: Good, asked: Asked) -> Self {
        Self { name, good, asked, node: Vec::new(), rust: Vec::new() }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds what a round on `side` came to.
    pub fn add(&mut self, side: Side, value: f64) {
        match side {
            Side::Node => self.node.push(value),
            Side::Rust => self.rust.push(value),
        }
    }

    /// The medians of Node and of ours; NaN where nothing was measured.
    #[must_use]
    pub fn medians(&self) -> (f64, f64) {
        (median(&self.node), median(&self.rust))
    }

    /// How many times better ours is than Node's.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        let (node, rust) = self.medians();
        match self.good {
            Good::More => rust / node,
            Good::Less => node / rust,
        }
    }

    /// Whether it is what was asked for; `None` if nothing was, or if there is nothing to compare with.
    #[must_use]
    pub fn reached(&self) -> Option<bool> {
        let (_, rust) = self.medians();
        match self.asked {
            Asked::Nothing => None,
            // A side that was left out can't be compared with.
            Asked::Times(_) if self.ratio().is_nan() => None,
            Asked::Times(times) => Some(self.ratio() >= times),
            Asked::AtLeast(least) => Some(rust >= least),
            Asked::AtMost(most) => Some(rust <= most),
        }
    }

    fn asked(&self) -> String {
        match self.asked {
            Asked::Nothing => String::new(),
            Asked::Times(times) => format!("{times} x"),
            Asked::AtLeast(least) => format!(">= {}", short(least)),
            Asked::AtMost(most) => format!("<= {}", short(most)),
        }
    }
}

impl Serialize for Measure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'a> {
            name: &'a str,
            node: Option<f64>,
            rust: Option<f64>,
            ratio: Option<f64>,
            asked: String,
            reached: Option<bool>,
            node_rounds: &'a [f64],
            rust_rounds: &'a [f64],
        }
        // JSON has no NaN.
        let known = |value: f64| value.is_finite().then_some(value);
        let (node, rust) = self.medians();
        Written {
            name: &self.name,
            node: known(node),
            rust: known(rust),
            ratio: known(self.ratio()),
            asked: self.asked(),
            reached: self.reached(),
            node_rounds: &self.node,
            rust_rounds: &self.rust,
        }
        .serialize(serializer)
    }
}

/// Every row with its medians, ratios, and whether each is what was asked for.
#[must_use]
pub fn table(reports: &[Report]) -> String {
    let mut table = String::new();
    for report in reports {
        let _ = writeln!(
            table,
            "{:<44} {:>11} {:>11} {:>9} {:>9}",
            report.work, "Node", "Rust", "ratio", "asked"
        );
        for measure in &report.measures {
            let (node, rust) = measure.medians();
            let ratio =
                if measure.ratio().is_finite() { format!("{:.2} x", measure.ratio()) } else { "-".into() };
            let reached = match measure.reached() {
                None => "",
                Some(true) => "reached",
                Some(false) => "NOT REACHED",
            };
            let line = format!(
                "  {:<42} {:>11} {:>11} {ratio:>9} {:>9}  {reached}",
                measure.name,
                short(node),
                short(rust),
                measure.asked(),
            );
            let _ = writeln!(table, "{}", line.trim_end());
        }
        table.push('\n');
    }
    table
}

/// Three digits or so.
fn short(value: f64) -> String {
    match value.abs() {
        size if size.is_nan() => "-".into(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The middle of `values`, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// The value below which `part` (0 to 1) of `values` lie.
pub(crate) fn percentile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let rank = (part * values.len() as f64).ceil() as usize;
    values.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
    }

    #[test]
    fn a_percentile_is_the_value_below_which_that_part_lies() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), 50.0);
        assert_eq!(percentile(&values, 0.99), 99.0);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_ratio_is_reached_from_what_was_asked_on() {
        let mut fast = Measure::more("blocks/s", Asked::Times(15.0));
        fast.add(Side::Node, 100.0);
        fast.add(Side::Rust, 1500.0);
        assert_eq!(fast.reached(), Some(true));
        let mut late = Measure::less("p99", Asked::Times(5.0));
        late.add(Side::Node, 100.0);
        late.add(Side::Rust, 21.0);
        assert_eq!(late.reached(), Some(false));
        let mut alone = Measure::more("blocks/s", Asked::Times(15.0));
        alone.add(Side::Rust, 1500.0);
        assert_eq!(alone.reached(), None);
    }
}
