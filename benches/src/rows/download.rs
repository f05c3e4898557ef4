//! A feed that is there, downloaded as a whole: blocks in a second, and for large blocks how near that is to the limit.

use std::path::{Path, PathBuf};

use anyhow::Result;
use conformance::{measure::monotonic, node::Kind};

use crate::{
    contest::{Figures, Work, of_processes, used},
    limit::{Limit, Took, measure_limit},
    peers::{FEED, Meter, SEED, Side, Used, check, feed, open_writer, spawn},
    report::{Asked, Measure},
};

/// From this size on the limit is measured, too.
const LARGE: usize = 64 << 10;

/// What is transferred.
#[derive(Clone, Copy)]
pub(crate) struct Download {
    size: usize,
    count: u64,
}

/// A feed on disk that is ready to be served.
pub(crate) struct Prepared {
    key: String,
    folder: PathBuf,
}

impl Prepared {
    /// The feed's, in hex.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Of the writer's store.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// What a download took.
pub(crate) struct Transfer {
    /// From the reader's dial until all blocks were verified and stored without a gap.
    pub(crate) seconds: f64,
    pub(crate) used: Used,
}

impl Download {
    pub(crate) fn new(size: usize, count: u64) -> Self {
        Self { size, count }
    }

    /// Writes the feed by a process that ends before anything is measured.
    pub(crate) async fn prepare(&self, side: Side, folder: &Path) -> Result<Prepared> {
        let folder = folder.to_owned();
        let writer = spawn(side, &folder)?;
        let key = writer.create(FEED, Kind::Default).await?.key;
        writer.append(FEED, SEED, self.count, self.size).await?;
        writer.end().await?;
        Ok(Prepared { key, folder })
    }

    /// Transfers it into `scratch`, and with `compare` reads it back there.
    pub(crate) async fn transfer(
        &self,
        side: Side,
        prepared: &Prepared,
        scratch: &Path,
        compare: bool,
    ) -> Result<Transfer> {
        let (writer, reader) = (spawn(side, &prepared.folder)?, [spawn(side, &scratch.join("reader"))?]);
        open_writer(&writer, &prepared.key, self.count).await?;
        let port = writer.listen().await?;
        reader[0].open(FEED, &prepared.key).await?;

        let feed = feed();
        let meter = Meter::start(&writer, &reader).await?;
        let began = monotonic();
        let (complete, ()) = tokio::try_join!(reader[0].complete(&feed, self.count), reader[0].dial(port))?;
        let used = meter.read().await?;
        if compare {
            check(&reader[0], self.count, self.size).await?;
        }
        let [reader] = reader;
        reader.end().await?;
        writer.end().await?;
        Ok(Transfer { seconds: complete.last - began, used })
    }
}

impl Work for Download {
    type Prepared = Prepared;

    fn title(&self) -> String {
        format!("download {} x {}", bytes(self.size), self.count)
    }

    fn measures(&self) -> Vec<Measure> {
        let times = if self.size < LARGE { 15.0 } else { 5.0 };
        let mut measures = vec![
            Measure::more("blocks/s", Asked::Times(times)),
            Measure::more("MB/s of blocks", Asked::Nothing),
        ];
        if self.size >= LARGE {
            measures.push(Measure::more("the limit, blocks/s", Asked::Nothing));
            measures.push(Measure::more("of the limit, %", Asked::AtLeast(70.0)));
            measures.push(Measure::less("CPU s at the limit", Asked::Nothing));
        }
        measures.extend(of_processes());
        measures
    }

    async fn prepare(&self, side: Side, folder: &Path) -> Result<Prepared> {
        Self::prepare(self, side, folder).await
    }

    async fn round(&self, side: Side, prepared: &Prepared, scratch: &Path, round: usize) -> Result<Figures> {
        let limit = async || -> Result<Option<Took>> {
            if self.size < LARGE || side != Side::Rust {
                return Ok(None);
            }
            let limit = Limit { count: self.count, size: self.size };
            Ok(Some(measure_limit(limit, &scratch.join("limit")).await?))
        };
        // Either may find the disk still busy with what the other has written.
        let before = if round % 2 == 1 { limit().await? } else { None };
        let transfer = self.transfer(side, prepared, scratch, round == 0).await?;
        let limit = if before.is_none() { limit().await? } else { before };
        let Transfer { seconds, used: processes } = transfer;
        let rate = self.count as f64 / seconds;
        let mut figures =
            vec![("blocks/s".to_owned(), rate), ("MB/s of blocks".to_owned(), rate * self.size as f64 / 1e6)];
        if let Some(limit) = limit {
            figures.push(("the limit, blocks/s".to_owned(), self.count as f64 / limit.seconds));
            figures.push(("of the limit, %".to_owned(), 100.0 * limit.seconds / seconds));
            figures.push(("CPU s at the limit".to_owned(), limit.cpu_seconds));
        }
        figures.extend(used(&processes));
        Ok(figures)
    }
}

fn bytes(size: usize) -> String {
    if size < 1024 { format!("{size} B") } else { format!("{} KiB", size / 1024) }
}
