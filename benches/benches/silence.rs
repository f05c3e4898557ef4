//! How long a peer takes to refuse what a prober opens, by what the peer has: in real time, as the prober sees it. What is said is the
//! same in all cases (`party/tests/silence`); how long it takes is measured here, and promised nowhere.
//!
//! Each pair of lines is a question that a prober might want answered. The last column is how often somebody is right who guesses by the best
//! threshold from one answer: 50 % is a tossed coin.
//!
//!     cargo bench -p benches --bench silence
#![allow(clippy::print_stdout, clippy::disallowed_methods)] // it measures, and says what

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::BytesMut;
use party::{
    admission::{self, Hello},
    connection::{self, Connecting, Connection},
    key::{FeedKey, KeyPair, PartyKey},
    limits::Limits,
    mux::{CloseReason, Event, Mux},
    noise::{Handshake, HandshakeConfig, Progress, SecretStream},
    party::{Open, Party},
    replication,
    rules::WholeStore,
    store::{FeedOptions, Store},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

const PROBES: usize = 2_000;

/// A prober's end of a connection.
struct Prober {
    io: DuplexStream,
    input: BytesMut,
    stream: SecretStream,
    mux: Mux,
}

impl Prober {
    async fn dial(mut io: DuplexStream) -> Result<Self> {
        let limits = Limits::default();
        let config = HandshakeConfig::xx(true, KeyPair::from_seed(&[1; 32]), [7; 32]);
        let mut handshake = Handshake::new(config, &limits)?;
        let mut input = BytesMut::new();
        let mut stream = loop {
            if let Some(bytes) = handshake.poll_transmit() {
                io.write_all(&bytes).await?;
            }
            if io.read_buf(&mut input).await? == 0 {
                bail!("hung up");
            }
            match handshake.handle_input(&mut input)? {
                Progress::Pending(next) => handshake = next,
                Progress::Established(stream) => break stream,
            }
        };
        // The rest of the handshake: the other end waits for it.
        io.write_all(&stream.outgoing().split()).await?;
        Ok(Self { io, input, stream, mux: Mux::new(&limits) })
    }

    /// How long it takes until an open is refused.
    async fn time(&mut self, protocol: &str, id: &[u8], handshake: &[u8]) -> Result<Duration> {
        self.mux.open(protocol, Some(id), handshake)?;
        while let Some(message) = self.mux.poll_transmit() {
            self.stream.seal(&message)?;
        }
        let bytes = self.stream.outgoing().split();
        let start = Instant::now();
        self.io.write_all(&bytes).await?;
        loop {
            if self.io.read_buf(&mut self.input).await? == 0 {
                bail!("hung up");
            }
            let took = start.elapsed();
            self.stream.handle_input(&mut self.input)?;
            while let Some(message) = self.stream.poll_message() {
                self.mux.handle_message(message);
            }
            match self.mux.poll_event()? {
                Some(Event::Closed { reason: CloseReason::Rejected, .. }) => return Ok(took),
                Some(other) => bail!("no reject: {other:?}"),
                None => {}
            }
        }
    }
}

/// What a probe opens: protocol, id, handshake.
type Probe = (&'static str, [u8; 32], Vec<u8>);

async fn measure(
    accepting: Connecting<DuplexStream>,
    dialled: DuplexStream,
    probes: &[Probe],
) -> Result<Vec<Duration>> {
    let (connection, prober) = tokio::join!(accepting, Prober::dial(dialled));
    let (connection, mut prober) = (connection?, prober?);
    let mut times = Vec::new();
    for (protocol, id, handshake) in probes.iter().cycle().take(PROBES + PROBES / 10) {
        times.push(prober.time(protocol, id, handshake).await?);
    }
    drop(connection);
    Ok(times.split_off(PROBES / 10))
}

fn accept(io: DuplexStream) -> Connecting<DuplexStream> {
    Connection::accept(io, &KeyPair::from_seed(&[2; 32]))
}

fn party(n: u8, store: &Store) -> Party {
    Party::new(PartyKey::from_bytes([n; 32]), WholeStore::new(store.clone()))
}

#[tokio::main]
async fn main() -> Result<()> {
    let (memory, folder) = (Store::memory(), tempfile::tempdir()?);
    let disk = Store::open(folder.path()).await?;
    let mut keys = Vec::new();
    for store in [&memory, &disk] {
        let feed = store.create_feed("feed", FeedOptions::default()).await?;
        feed.append("a secret").await?;
        keys.push(feed.key());
    }
    println!("{:<58} {:>9} {:>9} {:>9}", "", "median", "p90", "guessed");

    let offer: Probe = (admission::PROTOCOL, [9; 32], Hello::new([9; 32]).encode());
    let none = party_row("in no party", 0, &memory, &offer).await?;
    for parties in [1, 8, 64] {
        let some = party_row(&format!("in {parties}"), parties, &memory, &offer).await?;
        println!("{:>88.1} %", guessed(&none, &some));
    }

    let forged =
        |key: &FeedKey| -> Probe { (replication::PROTOCOL, *key.discovery_key().as_bytes(), vec![0; 33]) };
    let unknown = FeedKey::from_bytes([9; 32]);
    for (name, store, key) in [("in memory", &memory, keys[0]), ("on a disk", &disk, keys[1])] {
        let mut times = Vec::new();
        for (what, key) in [("is not here", unknown), ("is here, capability forged", key)] {
            let (left, right) = connection::memory();
            let open = Open::new(WholeStore::new(store.clone()));
            times.push(measure(accept(right).open(&open), left, &[forged(&key)]).await?);
            row(&format!("a feed that {what}, {name}, open mode"), times.last());
        }
        println!("{:>88.1} %", guessed(&times[0], &times[1]));
    }
    Ok(())
}

async fn party_row(name: &str, parties: u8, store: &Store, offer: &Probe) -> Result<Vec<Duration>> {
    let (left, right) = connection::memory();
    let accepting = (1..=parties).fold(accept(right), |accepting, n| accepting.join(&party(n, store)));
    let times = measure(accepting, left, std::slice::from_ref(offer)).await?;
    row(&format!("an offer to somebody who is {name}"), Some(&times));
    Ok(times)
}

fn row(name: &str, times: Option<&Vec<Duration>>) {
    let mut times = times.cloned().unwrap_or_default();
    times.sort();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    println!("{name:<58} {:>6} us {:>6} us", at(50).as_micros(), at(90).as_micros());
}

/// How often in a hundred whoever knows the best threshold is right about one answer.
fn guessed(one: &[Duration], other: &[Duration]) -> f64 {
    let mut all: Vec<(Duration, i64)> = one.iter().map(|time| (*time, 1)).collect();
    all.extend(other.iter().map(|time| (*time, -1)));
    all.sort();
    let mut sum = 0_i64;
    let mut furthest = 0;
    for (at, (time, sign)) in all.iter().enumerate() {
        sum += sign;
        // Between two that are equal no threshold lies.
        if all.get(at + 1).is_none_or(|(next, _)| next != time) {
            furthest = furthest.max(sum.abs());
        }
    }
    50.0 + 50.0 * furthest as f64 / one.len() as f64
}
