//! Many small feeds over one connection: how long until all are complete, and how soon the first is.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use conformance::{
    measure::{Order, monotonic},
    node::digest_of_blocks,
};

use crate::{
    contest::{Figures, Work, of_processes, used},
    peers::{Meter, SEED, Side, spawn},
    report::{Asked, Measure},
};

const SIZE: usize = 256;
/// Blocks in each.
const BLOCKS: u64 = 20;

/// How many feeds.
pub(crate) struct Feeds {
    names: Vec<String>,
}

/// The feeds on disk, ready to be served.
pub(crate) struct Prepared {
    keys: Vec<String>,
    folder: PathBuf,
}

impl Feeds {
    pub(crate) fn new(count: u64) -> Self {
        Self { names: (0..count).map(|n| format!("feed {n}")).collect() }
    }
}

impl Work for Feeds {
    type Prepared = Prepared;

    fn title(&self) -> String {
        format!("{} feeds x {BLOCKS} blocks x {SIZE} B", self.names.len())
    }

    fn measures(&self) -> Vec<Measure> {
        let mut measures = vec![
            Measure::less("ms until all are complete", Asked::Times(10.0)),
            Measure::less("ms until the first is", Asked::Nothing),
            Measure::less("first, % of the time", Asked::AtMost(10.0)),
        ];
        measures.extend(of_processes());
        measures
    }

    async fn prepare(&self, side: Side, folder: &Path) -> Result<Prepared> {
        let folder = folder.to_owned();
        let writer = spawn(side, &folder)?;
        let keys = writer.populate(&self.names, SEED, BLOCKS, SIZE).await?;
        writer.end().await?;
        Ok(Prepared { keys, folder })
    }

    async fn round(&self, side: Side, prepared: &Prepared, scratch: &Path, round: usize) -> Result<Figures> {
        let (writer, reader) = (spawn(side, &prepared.folder)?, [spawn(side, &scratch.join("reader"))?]);
        let open = Order::OpenAll { names: self.names.clone(), keys: prepared.keys.clone() };
        tokio::try_join!(writer.measure(&open), reader[0].measure(&open))?;
        let port = writer.listen().await?;

        let meter = Meter::start(&writer, &reader).await?;
        let began = monotonic();
        let (complete, ()) = tokio::try_join!(reader[0].complete(&self.names, BLOCKS), reader[0].dial(port))?;
        let processes = meter.read().await?;
        if round == 0 {
            for (name, seed) in self.names.iter().zip(SEED..) {
                let expected = digest_of_blocks(seed, BLOCKS, SIZE);
                ensure!(
                    reader[0].digest(name).await? == expected,
                    "{name} has other bytes than were written"
                );
            }
        }
        let [reader] = reader;
        reader.end().await?;
        writer.end().await?;

        let (to_first, to_all) = (complete.first - began, complete.last - began);
        let mut figures = vec![
            ("ms until all are complete".to_owned(), 1e3 * to_all),
            ("ms until the first is".to_owned(), 1e3 * to_first),
            ("first, % of the time".to_owned(), 100.0 * to_first / to_all),
        ];
        figures.extend(used(&processes));
        Ok(figures)
    }
}
