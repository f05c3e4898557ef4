//! Whether cost grows as the work does: small blocks, ten times as many each time.

use std::{fs, path::Path};

use anyhow::Result;

use super::{
    Amount,
    download::{Download, Prepared},
};
use crate::{
    contest::{Figures, Work},
    peers::Side,
    report::{Asked, Measure},
};

const SIZE: usize = 64;
/// Reading back what is longer would take more memory and time than the transfer.
const CHECKED: u64 = 1_000_000;

/// The lengths.
pub(crate) struct Growth {
    counts: Vec<u64>,
}

impl Growth {
    pub(crate) fn new(amount: Amount) -> Self {
        let mut counts = vec![10_000, 100_000];
        if !amount.quick {
            counts.push(1_000_000);
        }
        if amount.huge {
            counts.push(10_000_000);
        }
        Self { counts }
    }
}

impl Work for Growth {
    type Prepared = Vec<Prepared>;

    fn title(&self) -> String {
        format!("growth, 64 B x 10^4 to {}", power(*self.counts.last().unwrap_or(&0)))
    }

    fn measures(&self) -> Vec<Measure> {
        let mut measures = Vec::new();
        for count in &self.counts {
            measures.push(Measure::more(format!("{}: blocks/s", power(*count)), Asked::Nothing));
            measures.push(Measure::less(format!("{}: writer's peak MB", power(*count)), Asked::Nothing));
            measures.push(Measure::less(format!("{}: reader's peak MB", power(*count)), Asked::Nothing));
        }
        measures.push(Measure::less("slowest below fastest, %", Asked::AtMost(20.0)));
        measures.push(Measure::less("writer's peak, last to 10^5", Asked::AtMost(1.2)));
        measures.push(Measure::less("reader's peak, last to 10^5", Asked::AtMost(1.2)));
        measures
    }

    fn sides(&self) -> &[Side] {
        &[Side::Rust]
    }

    async fn prepare(&self, side: Side, folder: &Path) -> Result<Vec<Prepared>> {
        let mut prepared = Vec::new();
        for count in &self.counts {
            let folder = folder.join(count.to_string());
            prepared.push(Download::new(SIZE, *count).prepare(side, &folder).await?);
        }
        Ok(prepared)
    }

    async fn round(
        &self,
        side: Side,
        prepared: &Vec<Prepared>,
        scratch: &Path,
        round: usize,
    ) -> Result<Figures> {
        let mut figures = Vec::new();
        let (mut rates, mut writers, mut readers) = (Vec::new(), Vec::new(), Vec::new());
        for (count, prepared) in self.counts.iter().zip(prepared) {
            let scratch = scratch.join(count.to_string());
            fs::create_dir(&scratch)?;
            let compare = round == 0 && *count <= CHECKED;
            let transfer = Download::new(SIZE, *count).transfer(side, prepared, &scratch, compare).await?;
            fs::remove_dir_all(&scratch)?;
            rates.push(*count as f64 / transfer.seconds);
            writers.push(transfer.used.writer_megabytes);
            readers.push(transfer.used.reader_megabytes);
            let named = |name: &str| format!("{}: {name}", power(*count));
            figures.push((named("blocks/s"), *count as f64 / transfer.seconds));
            figures.push((named("writer's peak MB"), transfer.used.writer_megabytes));
            figures.push((named("reader's peak MB"), transfer.used.reader_megabytes));
        }
        let fastest = rates.iter().copied().fold(f64::MIN, f64::max);
        let slowest = rates.iter().copied().fold(f64::MAX, f64::min);
        figures.push(("slowest below fastest, %".to_owned(), 100.0 * (1.0 - slowest / fastest)));
        // Below 10^5 blocks the buffers are not yet full that are bounded.
        let grown = |peaks: &[f64]| peaks.last().zip(peaks.get(1)).map_or(1.0, |(last, base)| last / base);
        figures.push(("writer's peak, last to 10^5".to_owned(), grown(&writers)));
        figures.push(("reader's peak, last to 10^5".to_owned(), grown(&readers)));
        Ok(figures)
    }
}

fn power(count: u64) -> String {
    format!("10^{}", count.max(1).ilog10())
}
