//! How soon a block can be available at all: two processes, and what no protocol in which a reader asks can leave out.
//!
//! One process has a block, stores it, and says so over a socket. The other wakes up, asks, gets the block, stores it, and
//! wakes who waits for it. All is encrypted as on a connection, and stored as a store on disk does it, with the leaf hash.
//! There is no tree, no proof and no signature, and one task does all of a side's work, but for the storage and who waits.
#![allow(clippy::disallowed_methods, reason = "it measures")]

use std::{env, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use clap::Args;
use conformance::{measure::monotonic, node::block};
use party::{feed::storage::Storage as _, noise::SecretStream, store::disk::DiskStorage};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
    time::sleep,
};

use crate::{
    limit::{shake, writes},
    peers::SEED,
};

/// How long what is said and asked is: about as long as a sync with a range, and as a request.
const NOTE: [u8; 16] = [1; 16];
/// How much is read from the socket at once.
const AT_ONCE: usize = 64 << 10;

/// What comes.
#[derive(Clone, Copy, Debug, Args)]
pub struct Floor {
    /// Blocks
    #[arg(long)]
    pub count: u64,
    /// Bytes in a block
    #[arg(long)]
    pub size: usize,
    /// Milliseconds before each
    #[arg(long)]
    pub pause: u64,
}

/// Brings blocks one by one from one process to another, which store them in `folder`. Gives the seconds from when each
/// was there to be stored until who waited for it was awake.
///
/// # Errors
///
/// When a process fails.
pub async fn measure_floor(floor: Floor, folder: &Path) -> Result<Vec<f64>> {
    let mut reader = command("floor-read", floor, &folder.join("reader"))?.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(reader.stdout.take().context("no standard output")?).lines();
    let port = lines.next_line().await?.context("the reader has no port")?;
    let mut writer = command("floor-write", floor, &folder.join("writer"))?;
    let written = writer.arg("--port").arg(port).stdout(Stdio::piped()).spawn()?.wait_with_output().await?;
    ensure!(written.status.success(), "the writer ended with {}", written.status);
    let written: Vec<f64> = serde_json::from_slice(&written.stdout)?;
    let read: Vec<f64> = serde_json::from_str(&lines.next_line().await?.context("the reader has failed")?)?;
    let status = reader.wait().await?;
    ensure!(status.success(), "the reader ended with {status}");
    ensure!(read.len() == written.len(), "{} blocks have come", read.len());
    Ok(read.iter().zip(&written).map(|(read, written)| read - written).collect())
}

fn command(role: &str, floor: Floor, store: &Path) -> Result<Command> {
    let mut command = Command::new(env::current_exe().context("this program's own path is unknown")?);
    command.arg(role).args(["--count", &floor.count.to_string()]).args(["--size", &floor.size.to_string()]);
    command.args(["--pause", &floor.pause.to_string()]).arg("--store").arg(store);
    command.kill_on_drop(true);
    Ok(command)
}

/// The end where the blocks are. Gives when each was there.
///
/// # Errors
///
/// When the connection or the storage fails.
pub async fn write(floor: Floor, port: u16, folder: &Path) -> Result<Vec<f64>> {
    let storage = DiskStorage::open(folder).await?;
    let mut wire = Wire::new(TcpStream::connect(("127.0.0.1", port)).await?, true).await?;
    let (mut times, mut at) = (Vec::new(), 0);
    for index in 0..floor.count {
        let block = block(SEED, index, floor.size);
        sleep(Duration::from_millis(floor.pause)).await;
        times.push(monotonic());
        storage.commit(writes(&mut at, std::slice::from_ref(&block))).await?;
        wire.send(&NOTE).await?;
        wire.receive().await?;
        wire.send(&block).await?;
    }
    // Until the other end has the last.
    wire.socket.shutdown().await?;
    wire.socket.read_to_end(&mut Vec::new()).await?;
    storage.close().await?;
    Ok(times)
}

/// The end that asks for them. Tells its port to `say`, and then when each was stored and who waited for it awake.
///
/// # Errors
///
/// As `write` does.
pub async fn read(floor: Floor, folder: &Path, mut say: impl FnMut(String) -> Result<()>) -> Result<()> {
    let storage = DiskStorage::open(folder).await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    say(listener.local_addr()?.port().to_string())?;
    let mut wire = Wire::new(listener.accept().await?.0, false).await?;
    let (stored, mut told) = mpsc::unbounded_channel();
    let waiter = tokio::spawn(async move {
        let mut times = Vec::new();
        while told.recv().await.is_some() {
            times.push(monotonic());
        }
        times
    });
    let mut at = 0;
    for _ in 0..floor.count {
        wire.receive().await?;
        wire.send(&NOTE).await?;
        let block = wire.receive().await?;
        storage.commit(writes(&mut at, &[block])).await?;
        stored.send(()).ok().context("nobody waits")?;
    }
    drop((stored, wire));
    let times = waiter.await?;
    storage.close().await?;
    say(serde_json::to_string(&times)?)
}

/// An encrypted connection, message by message.
struct Wire {
    socket: TcpStream,
    stream: SecretStream,
    input: BytesMut,
}

impl Wire {
    async fn new(mut socket: TcpStream, is_initiator: bool) -> Result<Self> {
        socket.set_nodelay(true)?;
        let (stream, input) = shake(&mut socket, is_initiator).await?;
        Ok(Self { socket, stream, input })
    }

    async fn send(&mut self, message: &[u8]) -> Result<()> {
        self.stream.seal(message)?;
        Ok(self.socket.write_all_buf(self.stream.outgoing()).await?)
    }

    async fn receive(&mut self) -> Result<Bytes> {
        loop {
            self.stream.handle_input(&mut self.input)?;
            if let Some(message) = self.stream.poll_message() {
                return Ok(message);
            }
            self.input.reserve(AT_ONCE);
            ensure!(self.socket.read_buf(&mut self.input).await? > 0, "the other end has gone");
        }
    }
}
