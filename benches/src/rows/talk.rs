//! What peers say to each other beside the feeds: how soon they can after one has dialled, and how fast they do. Ours are members of a
//! party, Node's speak protomux-rpc.

use std::path::Path;

use anyhow::Result;
use conformance::{measure::Order, node::NodePeer};

use crate::{
    contest::{Figures, Work, of_processes, used},
    peers::{Meter, Side, spawn},
    report::{Asked, Measure},
};

/// Bytes in a request, and in its answer.
const SIZE: usize = 64;

/// A process that answers at a port, and one that asks.
struct Pair {
    answering: NodePeer,
    asking: [NodePeer; 1],
    port: u16,
}

impl Pair {
    async fn spawn(side: Side, scratch: &Path) -> Result<Self> {
        let (answering, asking) =
            (spawn(side, &scratch.join("answering"))?, [spawn(side, &scratch.join("asking"))?]);
        let port = answering.answer().await?;
        Ok(Self { answering, asking, port })
    }

    async fn end(self) -> Result<()> {
        let [asking] = self.asking;
        asking.end().await?;
        self.answering.end().await
    }
}

/// Requests over a connection that is up.
pub(crate) struct Requests {
    count: u64,
}

impl Requests {
    pub(crate) fn new(count: u64) -> Self {
        Self { count }
    }
}

impl Work for Requests {
    type Prepared = ();

    fn title(&self) -> String {
        format!("requests of {SIZE} B x {}", self.count)
    }

    fn measures(&self) -> Vec<Measure> {
        let mut measures = vec![
            Measure::more("requests/s, one by one", Asked::Times(2.0)),
            Measure::more("requests/s, 64 at once", Asked::Times(5.0)),
        ];
        measures.extend(of_processes());
        measures
    }

    async fn prepare(&self, _: Side, _: &Path) -> Result<()> {
        Ok(())
    }

    async fn round(&self, side: Side, (): &(), scratch: &Path, _: usize) -> Result<Figures> {
        let pair = Pair::spawn(side, scratch).await?;
        let meter = Meter::start(&pair.answering, &pair.asking).await?;
        let mut figures = Vec::new();
        for (name, at_once) in [("requests/s, one by one", 1), ("requests/s, 64 at once", 64)] {
            let order = Order::Ask { port: pair.port, count: self.count, size: SIZE, at_once };
            let span = pair.asking[0].span(&order).await?;
            figures.push((name.to_owned(), self.count as f64 / (span.last - span.first)));
        }
        figures.extend(used(&meter.read().await?));
        pair.end().await?;
        Ok(figures)
    }
}

/// Connections of [`Bootstrap`] that are under way at the same time: enough that neither end waits for the other.
const DIALS_AT_ONCE: usize = 16;

/// From the dial until the first question is answered: the connection, Noise, admission, and one round trip.
pub(crate) struct Bootstrap {
    count: u64,
}

impl Bootstrap {
    pub(crate) fn new(count: u64) -> Self {
        Self { count }
    }
}

impl Work for Bootstrap {
    type Prepared = ();

    fn title(&self) -> String {
        format!("dial, be admitted, be answered, x {}", self.count)
    }

    fn measures(&self) -> Vec<Measure> {
        let mut measures = vec![
            Measure::more(format!("bootstraps/s, {DIALS_AT_ONCE} at once"), Asked::Times(3.0)),
            Measure::more("bootstraps/s, one by one", Asked::Times(3.0)),
        ];
        measures.extend(of_processes());
        measures
    }

    async fn prepare(&self, _: Side, _: &Path) -> Result<()> {
        Ok(())
    }

    async fn round(&self, side: Side, (): &(), scratch: &Path, _: usize) -> Result<Figures> {
        let pair = Pair::spawn(side, scratch).await?;
        let meter = Meter::start(&pair.answering, &pair.asking).await?;
        let mut figures = Vec::new();
        for (what, at_once) in
            [(format!("{DIALS_AT_ONCE} at once"), DIALS_AT_ONCE), ("one by one".to_owned(), 1)]
        {
            let order = Order::Bootstrap { port: pair.port, count: self.count, at_once };
            let span = pair.asking[0].span(&order).await?;
            figures.push((format!("bootstraps/s, {what}"), self.count as f64 / (span.last - span.first)));
        }
        figures.extend(used(&meter.read().await?));
        pair.end().await?;
        Ok(figures)
    }
}
