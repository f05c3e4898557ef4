//! Real Node peers: the unmodified JavaScript stack in processes of its own, driven from Rust.
//!
//! [`NodePeer`] runs `conformance/node/peer.js` and speaks JSON lines with it; `conformance/node/README.md` lists
//! the commands and events. Everything stays on 127.0.0.1. Several peers may live in one process, which spares the
//! time that a process takes to start. A process ends when its last handle is dropped, when this process ends (its
//! standard input closes), and after its lifetime in any case.
//!
//! [`block`] makes the same bytes as the `block` of `conformance/node/lib.js`, so that either side can check what it
//! got from the other without the bytes travelling twice.
#![allow(clippy::disallowed_methods, reason = "it waits for processes, up to a deadline")]

mod contents;
mod in_time;
mod options;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Notify, oneshot},
    time::{Instant, timeout_at},
};

pub use self::{
    contents::{ContentDigest, block, digest, digest_of_blocks, hex},
    in_time::in_time,
    options::{Kind, Mode, NodeOptions, Release},
};
use crate::scratch::Folder;

/// What a peer says of one of its feeds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedInfo {
    /// 32 bytes in hex.
    pub key: String,
    /// 32 bytes in hex.
    pub discovery_key: String,
    /// Blocks.
    pub length: u64,
    /// Bytes.
    pub byte_length: u64,
    /// Blocks from the first on without a gap.
    pub contiguous_length: u64,
    /// The fork.
    pub fork: u64,
    /// Whether the peer has the secret key.
    pub writable: bool,
    /// How many blocks are stored, where the command counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
}

/// What the process has used until now.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// User and system time of all its threads.
    pub cpu_seconds: f64,
    /// Peak resident set.
    pub peak_bytes: u64,
}

/// How a feed stands with a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedState {
    /// The fork.
    pub fork: u64,
    /// Blocks.
    pub length: u64,
    /// The hash over the roots of the tree, in hex.
    pub tree_hash: String,
    /// The runs of blocks that are stored, each as its first and the one behind its last.
    pub stored: Vec<(u64, u64)>,
}

/// One Node peer. Commands may run at once: every method takes `&self`.
#[derive(Debug)]
pub struct NodePeer {
    process: Arc<Process>,
    /// Whom the commands go to; the process's first peer has no name.
    name: Option<String>,
    deadline: Instant,
}

#[derive(Debug)]
struct Process {
    stdin: tokio::sync::Mutex<Option<ChildStdin>>,
    shared: Arc<Shared>,
    next_id: AtomicU64,
    child: tokio::sync::Mutex<Child>,
    /// Its folder for temporary files, which goes after it.
    _folder: Folder,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It must be gone before its folder goes, or it would write on.
        let child = self.child.get_mut();
        if child.start_kill().is_ok() {
            let end = std::time::Instant::now() + Duration::from_secs(2);
            while matches!(child.try_wait(), Ok(None)) && std::time::Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<u64, oneshot::Sender<Value>>,
    events: Vec<Value>,
    ended: bool,
}

impl NodePeer {
    /// Starts a process. It needs a tokio runtime with IO and time.
    ///
    /// # Errors
    ///
    /// When `node` can't be run or its packages are not installed; the message says what to do.
    pub fn spawn(options: &NodeOptions) -> Result<Self> {
        let scripts = scripts_directory();
        ensure!(
            scripts.join("node_modules").is_dir(),
            "the Node packages are missing: run `npm ci --prefix conformance/node` in the repository's root"
        );
        let mut command = Command::new("node");
        command
            .arg(scripts.join("peer.js"))
            .args(["--hypercore", options.release.name(), "--replicate", options.mode.name(), "--store"])
            .arg(options.place())
            .args(["--timeout", &options.lifetime.as_secs().to_string()]);
        Self::run(command, options.lifetime)
            .context("node could not be started; Node.js 20 or later is needed")
    }

    /// Starts `command`, any process that obeys the commands of `conformance/node/README.md`.
    ///
    /// # Errors
    ///
    /// When it can't be run.
    pub fn run(mut command: Command, lifetime: Duration) -> Result<Self> {
        let folder = Folder::new()?;
        command.env("TMPDIR", folder.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let stdin = child.stdin.take().context("the process has no standard input")?;
        let stdout = child.stdout.take().context("the process has no standard output")?;
        let shared = Arc::new(Shared::default());
        tokio::spawn(read_events(stdout, Arc::clone(&shared)));
        let process = Arc::new(Process {
            stdin: tokio::sync::Mutex::new(Some(stdin)),
            shared,
            next_id: AtomicU64::new(1),
            child: tokio::sync::Mutex::new(child),
            _folder: folder,
        });
        Ok(Self { process, name: None, deadline: Instant::now() + lifetime })
    }

    /// Another peer in the same process, with cores and connections of its own. Its lifetime bounds how long answers
    /// are awaited, not the process.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn beside(&self, options: &NodeOptions) -> Result<Self> {
        let name = format!("peer {}", self.process.next_id.fetch_add(1, Ordering::Relaxed));
        let (release, mode) = (options.release.name(), options.mode.name());
        let command = json!({"do": "peer", "name": name, "hypercore": release, "replicate": mode, "store": options.place()});
        self.call(command).await?;
        let process = Arc::clone(&self.process);
        Ok(Self { process, name: Some(name), deadline: Instant::now() + options.lifetime })
    }

    /// Ends a peer that was made [beside](Self::beside) another one, its connections and cores. The process goes on.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn leave(&self) -> Result<()> {
        self.call(json!({"do": "leave", "name": self.name})).await?;
        self.process.shared.lock().events.retain(|event| event["peer"].as_str() != self.name.as_deref());
        Ok(())
    }

    /// Ends the process in good order and waits until it is gone, so that another may open its store.
    ///
    /// # Errors
    ///
    /// When it fails or does not end within its lifetime.
    pub async fn end(self) -> Result<()> {
        drop(self.process.stdin.lock().await.take());
        let mut child = self.process.child.lock().await;
        let status = timeout_at(self.deadline, child.wait()).await.context("the peer does not end")??;
        ensure!(status.success(), "the peer ended with {status}");
        Ok(())
    }

    /// Ends the process as a crash would, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When the operating system can't.
    pub async fn kill(self) -> Result<()> {
        Ok(self.process.child.lock().await.kill().await?)
    }

    /// Makes a core that the peer can append to.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn create(&self, name: &str, kind: Kind) -> Result<FeedInfo> {
        self.core(json!({"do": "create", "name": name, "kind": kind})).await
    }

    /// Opens or adds a core by its key, 32 bytes in hex.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn open(&self, name: &str, key: &str) -> Result<FeedInfo> {
        self.core(json!({"do": "open", "name": name, "key": key})).await
    }

    /// Makes a core that the peer can append to, whose blocks are encrypted under `encryption`.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn create_encrypted(&self, name: &str, kind: Kind, encryption: [u8; 32]) -> Result<FeedInfo> {
        let encryption = hex(&encryption);
        self.core(json!({"do": "create", "name": name, "kind": kind, "encryption": encryption})).await
    }

    /// Opens or adds a core by its key, 32 bytes in hex, whose blocks are encrypted under `encryption`.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn open_encrypted(
        &self,
        name: &str,
        key: &str,
        kind: Kind,
        encryption: [u8; 32],
    ) -> Result<FeedInfo> {
        let encryption = hex(&encryption);
        self.core(json!({"do": "open", "name": name, "key": key, "kind": kind, "encryption": encryption}))
            .await
    }

    /// Appends `count` blocks of `size` bytes, each as [`block`] makes it of `seed` and its index.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn append(&self, name: &str, seed: u32, count: u64, size: usize) -> Result<FeedInfo> {
        self.core(json!({"do": "append", "name": name, "seed": seed, "count": count, "size": size})).await
    }

    /// Appends one block.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn append_text(&self, name: &str, text: &str) -> Result<FeedInfo> {
        self.core(json!({"do": "append", "name": name, "text": text})).await
    }

    /// Cuts a core off after `length` blocks; what comes then is on the next fork.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn truncate(&self, name: &str, length: u64) -> Result<FeedInfo> {
        self.core(json!({"do": "truncate", "name": name, "length": length})).await
    }

    /// Deletes the blocks `from..to` of a core here.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn clear(&self, name: &str, from: u64, to: u64) -> Result<FeedInfo> {
        self.core(json!({"do": "clear", "name": name, "from": from, "to": to})).await
    }

    /// Closes a core and forgets its name. Opened again, it has what it had.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn close(&self, name: &str) -> Result<()> {
        self.call(json!({"do": "close", "name": name})).await.map(drop)
    }

    /// Wants everything from now on, without waiting for it.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn want_all(&self, name: &str) -> Result<()> {
        self.call(json!({"do": "want", "name": name})).await.map(drop)
    }

    /// Wants everything from now on, and waits until `length` blocks are stored without a gap.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn follow(&self, name: &str, length: u64) -> Result<FeedInfo> {
        self.core(json!({"do": "follow", "name": name, "length": length})).await
    }

    /// Downloads the blocks `from..to`, and counts what is stored then.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn download(&self, name: &str, from: u64, to: u64) -> Result<FeedInfo> {
        self.core(json!({"do": "download", "name": name, "from": from, "to": to})).await
    }

    /// One block in hex, stored or downloaded on demand.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn get(&self, name: &str, index: u64) -> Result<String> {
        let answer = self.call(json!({"do": "get", "name": name, "index": index})).await?;
        Ok(answer["hex"].as_str().context("the answer has no block")?.to_owned())
    }

    /// Fetches the blocks `indexes` at once or, `in_turn`, each when the one before it has come, and gives the digest
    /// over them in that order.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn gets(&self, name: &str, indexes: &[u64], in_turn: bool) -> Result<ContentDigest> {
        let command = json!({"do": "gets", "name": name, "indexes": indexes, "inTurn": in_turn});
        Ok(serde_json::from_value(self.call(command).await?)?)
    }

    /// Waits until a core is at `fork` with `length` blocks at least, and has stored all blocks of `runs`.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn reach(&self, name: &str, fork: u64, length: u64, runs: &[(u64, u64)]) -> Result<FeedInfo> {
        self.core(json!({"do": "reach", "name": name, "fork": fork, "length": length, "runs": runs})).await
    }

    /// The block with the byte at offset `bytes`, and the offset in it; asked of peers if need be.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn seek(&self, name: &str, bytes: u64) -> Result<(u64, u64)> {
        let answer = self.call(json!({"do": "seek", "name": name, "bytes": bytes})).await?;
        let number = |n: usize| answer["found"][n].as_u64().context("the answer has no block");
        Ok((number(0)?, number(1)?))
    }

    /// What the peer knows of a core, with the count of stored blocks.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn info(&self, name: &str) -> Result<FeedInfo> {
        self.core(json!({"do": "info", "name": name})).await
    }

    /// How a core stands: its tree, and which blocks of it are stored.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn state(&self, name: &str) -> Result<FeedState> {
        Ok(serde_json::from_value(self.call(json!({"do": "state", "name": name})).await?)?)
    }

    /// Makes `count` cores called `prefix` and a number, each with as many `blocks` of `size` bytes made of `seed` and
    /// that number, and gives their keys.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn crowd(
        &self,
        prefix: &str,
        count: u64,
        seed: u32,
        blocks: u64,
        size: usize,
    ) -> Result<Vec<String>> {
        let names: Vec<String> = (0..count).map(|n| format!("{prefix}{n}")).collect();
        let command = json!({"do": "populate", "names": names, "seed": seed, "count": blocks, "size": size});
        Ok(serde_json::from_value(self.call(command).await?["keys"].take())?)
    }

    /// Opens a core for each of `keys`, called `prefix` and a number.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn join(&self, prefix: &str, keys: &[String]) -> Result<()> {
        let names: Vec<String> = (0..keys.len()).map(|n| format!("{prefix}{n}")).collect();
        self.call(json!({"do": "openall", "names": names, "keys": keys})).await.map(drop)
    }

    /// The digest over every block of a core; all must be stored.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn digest(&self, name: &str) -> Result<ContentDigest> {
        Ok(serde_json::from_value(self.call(json!({"do": "digest", "name": name})).await?)?)
    }

    /// Listens on a free port of 127.0.0.1 and gives the port.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn listen(&self) -> Result<u16> {
        let answer = self.call(json!({"do": "listen"})).await?;
        Ok(u16::try_from(answer["port"].as_u64().context("the answer has no port")?)?)
    }

    /// Dials a port of 127.0.0.1 and waits until the handshake is done.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn dial(&self, port: u16) -> Result<()> {
        self.call(json!({"do": "dial", "port": port})).await.map(drop)
    }

    /// Ends every connection in good order. The peer stays.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn hang_up(&self) -> Result<()> {
        self.call(json!({"do": "hangup"})).await.map(drop)
    }

    /// Ends every connection at once, whatever was on its way. The peer stays.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn cut(&self) -> Result<()> {
        self.call(json!({"do": "cut"})).await.map(drop)
    }

    /// Waits until every connection that there is has ended.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn alone(&self) -> Result<()> {
        self.call(json!({"do": "alone"})).await.map(drop)
    }

    /// CPU time and peak memory of the process until now.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn usage(&self) -> Result<Usage> {
        Ok(serde_json::from_value(self.call(json!({"do": "usage"})).await?)?)
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    ///
    /// When the command failed, the process ended, or its lifetime is over.
    pub async fn call(&self, mut command: Value) -> Result<Value> {
        let (process, shared) = (&self.process, &self.process.shared);
        let id = process.next_id.fetch_add(1, Ordering::Relaxed);
        command["id"] = id.into();
        if let Some(name) = &self.name {
            command["peer"] = name.as_str().into();
        }
        let (sender, answer) = oneshot::channel();
        {
            let mut state = shared.lock();
            ensure!(!state.ended, "the Node peer has ended");
            state.waiting.insert(id, sender);
        }
        let line = format!("{command}\n");
        let mut stdin = process.stdin.lock().await;
        let writing = stdin.as_mut().context("the Node peer was told to end")?;
        writing.write_all(line.as_bytes()).await.context("the Node peer takes no commands")?;
        drop(stdin);
        let answer = timeout_at(self.deadline, answer)
            .await
            .map_err(|_| anyhow!("no answer in time to {command}; events: {:?}", self.events()))?
            .map_err(|_| anyhow!("the Node peer ended before it answered {command}"))?;
        if answer["event"] == "error" {
            bail!("the Node peer failed {command}: {}", answer["message"]);
        }
        Ok(answer)
    }

    /// Waits until the peer has told `count` events called `name` since it began.
    ///
    /// # Errors
    ///
    /// When the process ended or its lifetime is over.
    pub async fn wait_for(&self, name: &str, count: usize) -> Result<()> {
        loop {
            let changed = self.process.shared.changed.notified();
            let (seen, ended) = {
                let state = self.process.shared.lock();
                let told = state.events.iter().filter(|event| self.tells(event) && event["event"] == name);
                (told.count(), state.ended)
            };
            if seen >= count {
                return Ok(());
            }
            ensure!(!ended, "the Node peer ended before its event {name}");
            timeout_at(self.deadline, changed)
                .await
                .map_err(|_| anyhow!("no event {name} in time; events: {:?}", self.events()))?;
        }
    }

    /// The events until now that answer no command: connections, channels, errors.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.process.shared.lock().events.iter().filter(|event| self.tells(event)).cloned().collect()
    }

    fn tells(&self, event: &Value) -> bool {
        event["peer"].as_str() == self.name.as_deref()
    }

    async fn core(&self, command: Value) -> Result<FeedInfo> {
        Ok(serde_json::from_value(self.call(command).await?)?)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_events(stdout: ChildStdout, shared: Arc<Shared>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let event = serde_json::from_str(&line).unwrap_or_else(|_| json!({"event": "noise", "line": line}));
        let mut state = shared.lock();
        match event["id"].as_u64().and_then(|id| state.waiting.remove(&id)) {
            Some(waiting) => drop(waiting.send(event)),
            None => state.events.push(event),
        }
        drop(state);
        shared.changed.notify_waiters();
    }
    let mut state = shared.lock();
    state.ended = true;
    state.waiting.clear();
    drop(state);
    shared.changed.notify_waiters();
}

/// The folder of the Node scripts.
#[must_use]
pub fn scripts_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("node")
}
