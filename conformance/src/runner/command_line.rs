//! The command lines: that of `conformance`, and that of a test target that stands in for libtest.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

use super::{Behaviour, all};

/// Drives an implementation of the party wire through a shim, and says what it does wrong.
#[derive(Clone, Debug, Parser)]
#[command(name = "conformance", max_term_width = 100)]
pub struct Arguments {
    /// The command that starts the shim, for `sh`. `conformance/SHIM.md` says what it has to speak
    #[arg(long, value_name = "COMMAND", required_unless_present = "list")]
    pub shim: Option<String>,

    /// Only behaviours with one of these texts in their name, such as `mux/`
    pub filter: Vec<String>,

    /// Failures that are expected: lines of `area/name: reason`
    #[arg(long, value_name = "FILE")]
    pub expected: Option<PathBuf>,

    /// Lists the behaviours, what each is about, and which sentences of the specification it tests
    #[arg(long)]
    pub list: bool,

    /// Processes of the shim at a time
    #[arg(long, default_value_t = 4)]
    pub jobs: usize,

    /// Goes on after a failure
    #[arg(long)]
    pub keep_going: bool,

    /// How long the shim may take for anything that it has to do, in milliseconds
    #[arg(long, default_value_t = 5_000, value_name = "MS")]
    pub patience: u64,

    /// The most memory that a process of the shim may use, in MiB
    #[arg(long, default_value_t = 2_048, value_name = "MIB")]
    pub memory: u64,

    /// Shows each behaviour as it is done
    #[arg(long, short)]
    pub verbose: bool,
}

impl Arguments {
    /// How long the shim may take.
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.patience)
    }
}

/// What libtest understands and is of use here; what isn't is taken and means nothing.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "behaviours", disable_version_flag = true)]
pub struct TestArguments {
    /// Only behaviours with one of these texts in their name
    pub filter: Vec<String>,

    /// Lists the behaviours
    #[arg(long)]
    pub list: bool,

    /// The filters are whole names
    #[arg(long)]
    pub exact: bool,

    /// Not behaviours with this text in their name
    #[arg(long, value_name = "FILTER")]
    pub skip: Vec<String>,

    /// Processes of the shim at a time
    #[arg(long, value_name = "N")]
    pub test_threads: Option<usize>,

    /// Shows each behaviour as it is done
    #[arg(long)]
    pub nocapture: bool,

    /// As --nocapture
    #[arg(long)]
    pub no_capture: bool,

    /// As --nocapture
    #[arg(long)]
    pub show_output: bool,

    /// Says less
    #[arg(long, short)]
    pub quiet: bool,

    /// Only behaviours that are ignored: there are none
    #[arg(long)]
    pub ignored: bool,

    /// Means nothing here
    #[arg(long)]
    pub include_ignored: bool,

    /// Means nothing here
    #[arg(long)]
    pub test: bool,

    /// Only benchmarks: there are none
    #[arg(long)]
    pub bench: bool,

    /// Means nothing here
    #[arg(long, value_name = "auto|always|never")]
    pub color: Option<String>,

    /// Means nothing here
    #[arg(long, value_name = "pretty|terse")]
    pub format: Option<String>,

    /// Means nothing here
    #[arg(long)]
    pub report_time: bool,
}

impl TestArguments {
    /// The behaviours that are meant, and how many are not.
    pub fn chosen(&self) -> (Vec<Behaviour>, usize) {
        let matches = |name: &str, filter: &String| {
            if self.exact { name == filter } else { name.contains(filter.as_str()) }
        };
        let is_meant = |behaviour: &Behaviour| {
            let name = behaviour.full_name();
            !self.ignored
                && !self.bench
                && (self.filter.is_empty() || self.filter.iter().any(|filter| matches(&name, filter)))
                && !self.skip.iter().any(|filter| matches(&name, filter))
        };
        let (meant, others): (Vec<_>, Vec<_>) = all().partition(is_meant);
        (meant, others.len())
    }

    /// Whether to show each behaviour.
    pub fn is_verbose(&self) -> bool {
        self.nocapture || self.no_capture || self.show_output
    }
}
