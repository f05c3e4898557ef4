//! One writer and many readers that all dial at once, each a process of its own on either side: what they do in one
//! process would run on one core in Node and on all of them here.

use std::path::Path;

use anyhow::Result;
use conformance::measure::monotonic;
use futures_util::future::try_join_all;

use super::download::{Download, Prepared};
use crate::{
    contest::{Figures, Work, of_processes, used},
    peers::{FEED, Meter, Side, check, feed, open_writer, spawn},
    report::{Asked, Measure},
};

const SIZE: usize = 1024;
const READERS: usize = 20;

/// How many blocks each reader gets.
pub(crate) struct FanOut {
    count: u64,
}

impl FanOut {
    pub(crate) fn new(count: u64) -> Self {
        Self { count }
    }
}

impl Work for FanOut {
    type Prepared = Prepared;

    fn title(&self) -> String {
        format!("{READERS} readers x 1 KiB x {}", self.count)
    }

    fn measures(&self) -> Vec<Measure> {
        let mut measures = vec![Measure::more("blocks/s delivered", Asked::Times(10.0))];
        measures.extend(of_processes());
        measures
    }

    async fn prepare(&self, side: Side, folder: &Path) -> Result<Prepared> {
        Download::new(SIZE, self.count).prepare(side, folder).await
    }

    async fn round(&self, side: Side, prepared: &Prepared, scratch: &Path, round: usize) -> Result<Figures> {
        let writer = spawn(side, prepared.folder())?;
        open_writer(&writer, prepared.key(), self.count).await?;
        let port = writer.listen().await?;
        let mut readers = Vec::new();
        for n in 0..READERS {
            readers.push(spawn(side, &scratch.join(format!("reader {n}")))?);
        }
        try_join_all(readers.iter().map(|reader| reader.open(FEED, prepared.key()))).await?;

        let meter = Meter::start(&writer, &readers).await?;
        let began = monotonic();
        let feed = feed();
        let all = readers.iter().map(async |reader| {
            let (complete, ()) = tokio::try_join!(reader.complete(&feed, self.count), reader.dial(port))?;
            anyhow::Ok(complete.last)
        });
        let ended = try_join_all(all).await?.into_iter().fold(began, f64::max);
        let processes = meter.read().await?;
        if round == 0 {
            for reader in &readers {
                check(reader, self.count, SIZE).await?;
            }
        }
        for reader in readers {
            reader.end().await?;
        }
        writer.end().await?;

        let delivered = READERS as f64 * self.count as f64;
        let mut figures = vec![("blocks/s delivered".to_owned(), delivered / (ended - began))];
        figures.extend(used(&processes));
        Ok(figures)
    }
}
