//! How fast blocks can come at all: two processes and the stages that no protocol can leave out.
//!
//! One process encrypts blocks that it has in memory and writes them to a socket. The other reads, decrypts, makes the
//! leaf hashes, four at once, and puts blocks and leaves into the storage that a store on disk has, all of it under
//! way at the same time. There is no request, no proof, no tree and no signature.
#![allow(clippy::disallowed_methods, reason = "it measures")]

use std::{env, path::Path, process::Stdio};

use anyhow::{Context, Result, bail, ensure};
use blake2b_simd::{Params, State, many::update_many};
use bytes::{BufMut as _, Bytes, BytesMut};
use clap::Args;
use conformance::{measure::monotonic, node::block, process::usage};
use party::{
    feed::storage::{Completion, Key, Slot, Storage as _, Write},
    key::KeyPair,
    limits::Limits,
    noise::{Handshake, HandshakeConfig, Progress, SecretStream},
    store::disk::DiskStorage,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
};

use crate::peers::SEED;

/// Bytes of blocks that are hashed and committed at once.
const BATCH_BYTES: usize = 1 << 20;
/// Batches that wait to be hashed.
const BATCHES: usize = 4;
/// How much is written to the socket, and read from it, at once.
const AT_ONCE: usize = 256 << 10;

/// What comes.
#[derive(Clone, Copy, Debug, Args)]
pub struct Limit {
    /// Blocks
    #[arg(long)]
    pub count: u64,
    /// Bytes in a block
    #[arg(long)]
    pub size: usize,
}

/// What it took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Took {
    /// From the handshake until all is stored.
    pub seconds: f64,
    /// User and system time of both processes meanwhile.
    pub cpu_seconds: f64,
}

/// Brings blocks into `folder`, by two processes.
///
/// # Errors
///
/// When a process fails.
pub async fn measure_limit(limit: Limit, folder: &Path) -> Result<Took> {
    let mut receiver = command("limit-receive", limit)?;
    let mut receiver = receiver.arg("--store").arg(folder).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(receiver.stdout.take().context("no standard output")?).lines();
    let port = lines.next_line().await?.context("the receiver has no port")?;
    let sender = command("limit-send", limit)?.arg("--port").arg(port).stdout(Stdio::piped()).spawn()?;
    let sent = sender.wait_with_output().await?;
    ensure!(sent.status.success(), "the sender ended with {}", sent.status);
    let sending: f64 = serde_json::from_slice(&sent.stdout)?;
    let received = lines.next_line().await?.context("the receiver has failed")?;
    let received: Took = serde_json::from_str(&received)?;
    let status = receiver.wait().await?;
    ensure!(status.success(), "the receiver ended with {status}");
    Ok(Took { cpu_seconds: received.cpu_seconds + sending, ..received })
}

fn command(role: &str, limit: Limit) -> Result<Command> {
    let mut command = Command::new(env::current_exe().context("this program's own path is unknown")?);
    command.arg(role).args(["--count", &limit.count.to_string()]).args(["--size", &limit.size.to_string()]);
    command.kill_on_drop(true);
    Ok(command)
}

/// Encrypts and sends, and gives the processor's seconds.
///
/// # Errors
///
/// When the connection fails.
pub async fn send(limit: Limit, port: u16) -> Result<f64> {
    let blocks: Vec<Bytes> = (0..limit.count).map(|index| block(SEED, index, limit.size)).collect();
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    socket.set_nodelay(true)?;
    let (mut stream, _) = shake(&mut socket, true).await?;
    let before = usage()?.cpu_seconds;
    for block in blocks {
        stream.seal(&block)?;
        if stream.outgoing().len() >= AT_ONCE {
            socket.write_all_buf(stream.outgoing()).await?;
        }
    }
    socket.write_all_buf(stream.outgoing()).await?;
    // Until the other end has all.
    socket.shutdown().await?;
    socket.read_to_end(&mut Vec::new()).await?;
    Ok(usage()?.cpu_seconds - before)
}

/// Listens, tells the port to `say`, receives, decrypts, hashes and stores in `folder`, and tells what it [took](Took).
///
/// # Errors
///
/// When the connection or the storage fails, or other than so many blocks come.
pub async fn receive(limit: Limit, folder: &Path, mut say: impl FnMut(String) -> Result<()>) -> Result<()> {
    let storage = DiskStorage::open(folder).await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    say(listener.local_addr()?.port().to_string())?;
    let (mut socket, _) = listener.accept().await?;
    socket.set_nodelay(true)?;
    let (mut stream, mut input) = shake(&mut socket, false).await?;
    let (began, before) = (monotonic(), usage()?.cpu_seconds);

    let (batches, mut received) = mpsc::channel::<Vec<Bytes>>(BATCHES);
    let storing = tokio::spawn(async move {
        let mut index = 0;
        let mut under_way: Option<Completion<()>> = None;
        while let Some(blocks) = received.recv().await {
            let next = storage.commit(writes(&mut index, &blocks));
            if let Some(last) = under_way.replace(next) {
                last.await?;
            }
        }
        if let Some(last) = under_way {
            last.await?;
        }
        anyhow::Ok((index, storage))
    });
    let in_batch = (BATCH_BYTES / limit.size.max(1)).max(1);
    let mut batch = Vec::with_capacity(in_batch);
    loop {
        stream.handle_input(&mut input)?;
        while let Some(block) = stream.poll_message() {
            batch.push(block);
            if batch.len() == in_batch && batches.send(std::mem::take(&mut batch)).await.is_err() {
                bail!("the storage has failed");
            }
        }
        input.reserve(AT_ONCE);
        if socket.read_buf(&mut input).await? == 0 {
            break;
        }
    }
    if !batch.is_empty() {
        batches.send(batch).await.ok().context("the storage has failed")?;
    }
    drop(batches);
    let (stored, storage) = storing.await??;
    let took = Took { seconds: monotonic() - began, cpu_seconds: usage()?.cpu_seconds - before };
    ensure!(stored == limit.count, "{stored} blocks have come");
    storage.close().await?;
    say(serde_json::to_string(&took)?)
}

/// Blocks and leaves, as a feed stores them. A leaf is the hash of a zero, the length, and the block.
pub(crate) fn writes(index: &mut u64, blocks: &[Bytes]) -> Vec<Write> {
    let mut states: Vec<State> = blocks
        .iter()
        .map(|block| {
            let mut state = Params::new().hash_length(32).to_state();
            state.update(&[0]).update(&(block.len() as u64).to_le_bytes());
            state
        })
        .collect();
    update_many(states.iter_mut().zip(blocks));
    let mut writes = Vec::with_capacity(2 * blocks.len());
    for (block, state) in blocks.iter().zip(states) {
        let mut leaf = BytesMut::with_capacity(40);
        leaf.put_slice(state.finalize().as_bytes());
        leaf.put_u64_le(block.len() as u64);
        writes.push(Write::Put(Key::Node(Slot(0), 2 * *index), leaf.freeze()));
        writes.push(Write::Put(Key::Block(Slot(0), *index), block.clone()));
        *index += 1;
    }
    writes
}

/// The handshake; gives the stream, and what has come beyond the handshake.
pub(crate) async fn shake(socket: &mut TcpStream, is_initiator: bool) -> Result<(SecretStream, BytesMut)> {
    // Nobody else is on this connection, so fixed keys do.
    let seed = [u8::from(is_initiator); 32];
    let config = HandshakeConfig::xx(is_initiator, KeyPair::from_seed(&seed), seed);
    let mut handshake = Handshake::new(config, &Limits::default())?;
    let mut input = BytesMut::new();
    loop {
        if let Some(bytes) = handshake.poll_transmit() {
            socket.write_all(&bytes).await?;
        }
        ensure!(socket.read_buf(&mut input).await? > 0, "the other end has gone");
        match handshake.handle_input(&mut input)? {
            Progress::Pending(next) => handshake = next,
            Progress::Established(mut stream) => {
                socket.write_all_buf(stream.outgoing()).await?;
                return Ok((stream, input));
            }
        }
    }
}
