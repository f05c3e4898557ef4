//! The fewest events that break a promise.

use super::{Config, Report, run};

/// A run that breaks a promise, cut off as early as it still does.
#[derive(Clone, Debug)]
pub struct Shortest {
    /// After how many events it was cut off: [`Config::events`].
    pub events: usize,
    /// How that run went.
    pub report: Report,
    /// How many runs it took to find it.
    pub runs: usize,
}

/// Looks for the shortest prefix of a run that still breaks a promise, by halves; `None` if the whole doesn't.
/// `looking` is told how many events are about to be tried.
///
/// It is the shortest if what breaks with some events breaks with more of them, too, as it does mostly.
#[must_use]
pub fn shortest(config: &Config, mut looking: impl FnMut(usize)) -> Option<Shortest> {
    let mut best = run(config);
    best.violation.as_ref()?;
    // What came after has nothing to do with it.
    let (mut holds, mut breaks) = (0, best.events);
    let mut runs = 1;
    let mut attempt = |events: usize| {
        looking(events);
        runs += 1;
        run(&Config { events: Some(events), ..config.clone() })
    };
    // Without the events that the whole run did not come to, it may go on after the last one: so it is run anew.
    let cut = attempt(breaks);
    if cut.violation.is_some() {
        best = cut;
        let nothing = attempt(0);
        if nothing.violation.is_some() {
            return Some(Shortest { events: 0, report: nothing, runs });
        }
        while breaks - holds > 1 {
            let middle = holds + (breaks - holds) / 2;
            let report = attempt(middle);
            if report.violation.is_some() {
                (breaks, best) = (middle, report);
            } else {
                holds = middle;
            }
        }
    }
    Some(Shortest { events: breaks, report: best, runs })
}
