//! Both ends are connected and in sync, and the writer appends in batches: blocks in a second until the reader has all.

use std::path::Path;

use anyhow::Result;
use conformance::{
    measure::{Order, Span},
    node::Kind,
};

use crate::{
    contest::{Figures, Work, of_processes, used},
    peers::{FEED, Meter, SEED, Side, check, feed, spawn},
    report::{Asked, Measure},
};

const SIZE: usize = 1024;
/// Blocks that are appended at once.
const BATCH: u64 = 100;
/// Blocks that both ends have before it begins: then the channel is open and the manifest known.
const BEFORE: u64 = 1;

/// How many blocks are appended.
pub(crate) struct Live {
    count: u64,
}

impl Live {
    pub(crate) fn new(count: u64) -> Self {
        Self { count }
    }
}

impl Work for Live {
    type Prepared = ();

    fn title(&self) -> String {
        format!("live 1 KiB x {} in batches of {BATCH}", self.count)
    }

    fn measures(&self) -> Vec<Measure> {
        let mut measures = vec![
            Measure::more("blocks/s", Asked::Times(15.0)),
            Measure::more("blocks/s appended meanwhile", Asked::Nothing),
        ];
        measures.extend(of_processes());
        measures
    }

    async fn prepare(&self, _: Side, _: &Path) -> Result<()> {
        Ok(())
    }

    async fn round(&self, side: Side, (): &(), scratch: &Path, round: usize) -> Result<Figures> {
        let (writer, reader) =
            (spawn(side, &scratch.join("writer"))?, [spawn(side, &scratch.join("reader"))?]);
        let key = writer.create(FEED, Kind::Default).await?.key;
        writer.append(FEED, SEED, BEFORE, SIZE).await?;
        let port = writer.listen().await?;
        reader[0].open(FEED, &key).await?;
        reader[0].dial(port).await?;
        reader[0].complete(&feed(), BEFORE).await?;

        let feed = feed();
        let meter = Meter::start(&writer, &reader).await?;
        let end = BEFORE + self.count;
        let produce =
            Order::Produce { name: FEED.into(), seed: SEED, count: self.count, size: SIZE, batch: BATCH };
        let (appended, complete) =
            tokio::try_join!(writer.measure(&produce), reader[0].complete(&feed, end))?;
        let appended: Span = serde_json::from_value(appended)?;
        let processes = meter.read().await?;
        if round == 0 {
            check(&reader[0], end, SIZE).await?;
        }
        let [reader] = reader;
        reader.end().await?;
        writer.end().await?;

        let rate = |seconds: f64| self.count as f64 / seconds;
        let mut figures = vec![
            ("blocks/s".to_owned(), rate(complete.last - appended.first)),
            ("blocks/s appended meanwhile".to_owned(), rate(appended.last - appended.first)),
        ];
        figures.extend(used(&processes));
        Ok(figures)
    }
}
