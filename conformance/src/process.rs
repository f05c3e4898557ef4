//! What this process has used, as Linux tells it.

use std::fs;

use anyhow::{Context, Result};

use crate::node::Usage;

/// `USER_HZ`, in which /proc/self/stat counts: 100 on every Linux that Rust and Node both run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time and peak memory of this process until now. The time has a resolution of 10 ms.
///
/// # Errors
///
/// When /proc does not tell: not on Linux.
pub fn usage() -> Result<Usage> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The second field is the program's name in parentheses, which may hold spaces and parentheses itself.
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat has no name")?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let (user, system) = (times.next().context("no user time")??, times.next().context("no system time")??);
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .context("/proc/self/status has no peak memory")?;
    Ok(Usage {
        cpu_seconds: (user + system) as f64 / TICKS_PER_SECOND,
        peak_bytes: peak.parse::<u64>()? * 1024,
    })
}
