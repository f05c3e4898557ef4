//! How long it takes from the call of append until the block is stored at the reader and can be read there: one
//! append at a time, and nothing else goes on.

use std::path::Path;

use anyhow::Result;
use conformance::{measure::Order, node::Kind};

use crate::{
    contest::{Figures, Work, of_processes, used},
    floor::{Floor, measure_floor},
    peers::{FEED, Meter, SEED, Side, feed, spawn},
    report::{Asked, Measure, percentile},
};

const SIZE: usize = 1024;
/// Milliseconds between appends: long enough that each is through before the next.
const PAUSE: u64 = 15;
/// Blocks that both ends have before it begins.
const BEFORE: u64 = 100;
/// Appends that don't count, so that compilers and caches are warm.
const WARM_UP: u64 = 50;

/// How many appends are measured.
pub(crate) struct Latency {
    count: u64,
}

impl Latency {
    pub(crate) fn new(count: u64) -> Self {
        Self { count }
    }
}

impl Work for Latency {
    type Prepared = ();

    fn title(&self) -> String {
        format!("append to available, 1 KiB x {}", self.count)
    }

    fn measures(&self) -> Vec<Measure> {
        let mut measures =
            vec![Measure::less("p50, us", Asked::Times(5.0)), Measure::less("p99, us", Asked::Times(5.0))];
        measures.push(Measure::less("the floor, p50, us", Asked::Nothing));
        measures.push(Measure::more("the floor's part of p50, %", Asked::Nothing));
        measures.extend(of_processes());
        measures
    }

    async fn prepare(&self, _: Side, _: &Path) -> Result<()> {
        Ok(())
    }

    async fn round(&self, side: Side, (): &(), scratch: &Path, round: usize) -> Result<Figures> {
        let floor = async || -> Result<Option<f64>> {
            if side != Side::Rust {
                return Ok(None);
            }
            let floor = Floor { count: WARM_UP + self.count, size: SIZE, pause: PAUSE };
            let took = measure_floor(floor, &scratch.join("floor")).await?;
            let took: Vec<f64> = took.iter().skip(WARM_UP as usize).map(|seconds| 1e6 * seconds).collect();
            Ok(Some(percentile(&took, 0.5)))
        };
        // In turn, as the machine may have more to do at one time than at another.
        let before = if round % 2 == 1 { floor().await? } else { None };
        let (writer, reader) =
            (spawn(side, &scratch.join("writer"))?, [spawn(side, &scratch.join("reader"))?]);
        let key = writer.create(FEED, Kind::Default).await?.key;
        writer.append(FEED, SEED, BEFORE, SIZE).await?;
        let port = writer.listen().await?;
        reader[0].open(FEED, &key).await?;
        reader[0].dial(port).await?;
        reader[0].complete(&feed(), BEFORE).await?;

        let meter = Meter::start(&writer, &reader).await?;
        let count = WARM_UP + self.count;
        let pulse = Order::Pulse { name: FEED.into(), seed: SEED, count, size: SIZE, pause: PAUSE };
        let arrivals = Order::Arrivals { name: FEED.into(), from: BEFORE, count };
        let (arrived, appended) = tokio::try_join!(reader[0].times(&arrivals), writer.times(&pulse))?;
        let processes = meter.read().await?;
        let [reader] = reader;
        reader.end().await?;
        writer.end().await?;

        let took: Vec<f64> = appended
            .iter()
            .zip(&arrived)
            .skip(WARM_UP as usize)
            .map(|(appended, arrived)| 1e6 * (arrived - appended))
            .collect();
        let floor = if before.is_none() { floor().await? } else { before };
        let p50 = percentile(&took, 0.5);
        let mut figures = vec![("p50, us".to_owned(), p50), ("p99, us".to_owned(), percentile(&took, 0.99))];
        if let Some(floor) = floor {
            figures.push(("the floor, p50, us".to_owned(), floor));
            figures.push(("the floor's part of p50, %".to_owned(), 100.0 * floor / p50));
        }
        figures.extend(used(&processes));
        Ok(figures)
    }
}
