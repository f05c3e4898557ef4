//! Medians and the table.

use std::fmt::Write as _;

use serde::Serialize;

use crate::transfer::{Sample, Shape, Side};

/// All rounds of one shape on one side.
#[derive(Debug, Serialize)]
pub struct Series {
    /// Which side.
    pub side: Side,
    /// What was transferred.
    pub shape: Shape,
    /// Each round.
    pub samples: Vec<Sample>,
    /// The median of each measure by itself.
    pub median: Figures,
}

/// What a transfer comes to.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Figures {
    /// Blocks in a second.
    pub blocks_per_second: f64,
    /// 10^6 bytes of blocks in a second.
    pub megabytes_per_second: f64,
    /// User and system time of both processes.
    pub cpu_seconds: f64,
    /// Peak memory of the writer, 10^6 bytes.
    pub writer_peak_megabytes: f64,
    /// Peak memory of the reader, 10^6 bytes.
    pub reader_peak_megabytes: f64,
}

impl Series {
    /// The rounds and their median.
    #[must_use]
    pub fn new(side: Side, shape: Shape, samples: Vec<Sample>) -> Self {
        let of = |measure: fn(&Sample) -> f64| median(samples.iter().map(measure).collect());
        let seconds = of(|sample| sample.seconds);
        let median = Figures {
            blocks_per_second: shape.count as f64 / seconds,
            megabytes_per_second: shape.megabytes() / seconds,
            cpu_seconds: of(|sample| sample.cpu_seconds),
            writer_peak_megabytes: of(|sample| sample.writer_peak_bytes as f64 / 1e6),
            reader_peak_megabytes: of(|sample| sample.reader_peak_bytes as f64 / 1e6),
        };
        Self { side, shape, samples, median }
    }
}

/// The table of every series, and under each pair how many times better (above 1) the Rust side is.
#[must_use]
pub fn table(series: &[Series]) -> String {
    let mut table = format!(
        "{:>8} {:>8}  {:<5} {:>10} {:>8} {:>8} {:>11} {:>11}\n",
        "block", "blocks", "side", "blocks/s", "MB/s", "CPU s", "writer MB", "reader MB"
    );
    for one in series {
        let Figures { cpu_seconds, writer_peak_megabytes, reader_peak_megabytes, .. } = one.median;
        let side = match one.side {
            Side::Rust => "Rust",
            Side::Node => "Node",
        };
        let _ = writeln!(
            table,
            "{:>8} {:>8}  {side:<5} {:>10.0} {:>8.1} {cpu_seconds:>8.2} {writer_peak_megabytes:>11.1} \
             {reader_peak_megabytes:>11.1}",
            bytes(one.shape.size),
            one.shape.count,
            one.median.blocks_per_second,
            one.median.megabytes_per_second,
        );
        let rival =
            series.iter().find(|rival| rival.side == Side::Node && rival.shape.size == one.shape.size);
        if let (Side::Rust, Some(rival)) = (one.side, rival) {
            let (ours, theirs) = (one.median, rival.median);
            let _ = writeln!(
                table,
                "{:>17}  {:<5} {:>9.1}x {:>7.1}x {:>7.1}x {:>10.1}x {:>10.1}x\n",
                "",
                "ratio",
                ours.blocks_per_second / theirs.blocks_per_second,
                ours.megabytes_per_second / theirs.megabytes_per_second,
                theirs.cpu_seconds / ours.cpu_seconds,
                theirs.writer_peak_megabytes / ours.writer_peak_megabytes,
                theirs.reader_peak_megabytes / ours.reader_peak_megabytes,
            );
        }
    }
    table
}

fn bytes(size: usize) -> String {
    if size < 1024 { format!("{size} B") } else { format!("{} KiB", size / 1024) }
}

/// The middle of `values`, or the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
