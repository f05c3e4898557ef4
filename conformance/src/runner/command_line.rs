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

/// What libtest understands and is of use to the targets that stand in for it; what isn't is taken and means nothing.
#[derive(Clone, Debug, Default, Parser)]
#[command(disable_version_flag = true)]
pub struct TestArguments {
    /// Only what has one of these texts in its name
    pub filter: Vec<String>,

    /// Lists what there is
    #[arg(long)]
    pub list: bool,

    /// The filters are whole names
    #[arg(long)]
    pub exact: bool,

    /// Not what has this text in its name
    #[arg(long, value_name = "FILTER")]
    pub skip: Vec<String>,

    /// How many at a time
    #[arg(long, value_name = "N")]
    pub test_threads: Option<usize>,

    /// Shows each as it is done
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

    /// Only what is ignored: there is nothing
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
        let (meant, others): (Vec<_>, Vec<_>) =
            all().partition(|behaviour| self.is_meant(&behaviour.full_name()));
        (meant, others.len())
    }

    /// Whether what is called so is to be run.
    pub fn is_meant(&self, name: &str) -> bool {
        let matches =
            |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        !self.ignored
            && !self.bench
            && (self.filter.is_empty() || self.filter.iter().any(matches))
            && !self.skip.iter().any(matches)
    }

    /// Whether to show each.
    pub fn is_verbose(&self) -> bool {
        self.nocapture || self.no_capture || self.show_output
    }
}
