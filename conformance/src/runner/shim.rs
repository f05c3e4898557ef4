//! A shim: a process that speaks the line protocol of `conformance/SHIM.md`.

use std::{collections::VecDeque, process::Stdio, sync::Arc, sync::Mutex, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::feature::Feature;

/// The version of the line protocol.
pub const VERSION: u64 = 1;

/// A longer line than any honest one: a block of 15 MiB in hex, and some words.
const LONGEST_LINE: u64 = 40 << 20;

/// Events that are kept. A shim that floods is at fault.
const MOST_EVENTS: usize = 65_536;

/// Lines of its standard error that are shown if it fails.
const LAST_WORDS: usize = 12;

/// How a shim is started, and what it may cost.
#[derive(Clone, Debug)]
pub struct ShimOptions {
    /// The command, for `sh`.
    pub command: String,
    /// How long anything that must happen may take.
    pub patience: Duration,
    /// The most memory that the process may use, in bytes. Only Linux tells.
    pub memory: u64,
}

/// A shim that runs. Dropped, it is killed.
pub struct Shim {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<Result<String>>,
    events: VecDeque<Vec<String>>,
    errors: Arc<Mutex<VecDeque<String>>>,
    patience: Duration,
    most_memory: u64,
    /// What it calls itself.
    pub name: String,
    /// What it can do.
    pub features: Vec<Feature>,
}

impl Shim {
    /// Starts a shim and greets it.
    ///
    /// # Errors
    ///
    /// When it can't be started, or doesn't answer as it should.
    pub async fn start(options: &ShimOptions) -> Result<Self> {
        // `exec`, so that it is the shim that is killed and looked at, and not a shell.
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec {}", options.command)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} can't be started", options.command))?;
        let input = child.stdin.take().context("no standard input")?;
        let output = child.stdout.take().context("no standard output")?;
        let stderr = child.stderr.take().context("no standard error")?;
        let (tell, lines) = mpsc::channel(1024);
        tokio::spawn(async move {
            let mut output = BufReader::new(output);
            loop {
                let mut line = Vec::new();
                let read = (&mut output).take(LONGEST_LINE).read_until(b'\n', &mut line).await;
                let line = match read {
                    Ok(0) => return,
                    Ok(_) if line.last() != Some(&b'\n') => Err(anyhow!("a line that doesn't end")),
                    Ok(_) => String::from_utf8(line)
                        .map(|line| line.trim_end().to_owned())
                        .map_err(|_| anyhow!("a line that is no UTF-8")),
                    Err(error) => Err(error.into()),
                };
                if tell.send(line).await.is_err() {
                    return;
                }
            }
        });
        let errors: Arc<Mutex<VecDeque<String>>> = Arc::default();
        let kept = errors.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                let Ok(mut kept) = kept.lock() else { return };
                if kept.len() == LAST_WORDS {
                    kept.pop_front();
                }
                let line: String = String::from_utf8_lossy(&line).chars().take(500).collect();
                kept.push_back(line);
            }
        });
        let mut shim = Self {
            child,
            input,
            lines,
            events: VecDeque::new(),
            errors,
            patience: options.patience,
            most_memory: options.memory,
            name: String::new(),
            features: Vec::new(),
        };
        shim.greet().await?;
        Ok(shim)
    }

    async fn greet(&mut self) -> Result<()> {
        // Starting may take a while: a runtime has to be loaded.
        let deadline = now() + self.patience.max(Duration::from_secs(20));
        let answer = self.ask_until(&format!("hello {VERSION}"), deadline).await?;
        let Answer::Ok(words) = answer else { bail!("the answer to hello is {answer:?}") };
        let mut words = words.into_iter();
        let version = words.next();
        ensure!(version == Some(VERSION.to_string()), "it speaks version {version:?} of the line protocol");
        self.name = words.next().context("it doesn't say what it is called")?;
        // What this runner doesn't know, a later one will ask for.
        self.features = words.filter_map(|word| Feature::named(&word)).collect();
        Ok(())
    }

    /// Gives a command and waits for its answer, which must be `ok`.
    ///
    /// # Errors
    ///
    /// When it is anything else, or the shim is dead, or too slow.
    pub async fn tell(&mut self, command: &str) -> Result<Vec<String>> {
        match self.ask(command).await? {
            Answer::Ok(words) => Ok(words),
            answer => bail!("the shim answers `{}` with {answer}", shortened(command)),
        }
    }

    /// Gives a command and waits for its answer.
    ///
    /// # Errors
    ///
    /// When it is none, or the shim is dead, or too slow.
    pub async fn ask(&mut self, command: &str) -> Result<Answer> {
        let deadline = now() + self.patience;
        self.ask_until(command, deadline).await
    }

    async fn ask_until(&mut self, command: &str, deadline: Instant) -> Result<Answer> {
        let line = format!("{command}\n");
        let written = self.input.write_all(line.as_bytes());
        match timeout_at(deadline, written).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.obituary().await),
            Err(_) => bail!("the shim doesn't take `{}`", shortened(command)),
        }
        loop {
            let line =
                self.line(deadline).await.with_context(|| format!("after `{}`", shortened(command)))?;
            let Some(line) = line else { bail!("the shim doesn't answer `{}`", shortened(command)) };
            if let Some(answer) = self.take(&line)? {
                return Ok(answer);
            }
        }
    }

    /// Waits for an event that begins with these words, and gives the words after them.
    ///
    /// # Errors
    ///
    /// When it doesn't come in time, or the shim is dead.
    pub async fn event(&mut self, beginning: &str) -> Result<Vec<String>> {
        let deadline = now() + self.patience;
        let wanted: Vec<&str> = beginning.split(' ').collect();
        let mut looked_at = 0;
        loop {
            let found = self.events.iter().skip(looked_at).position(|event| begins(event, &wanted));
            if let Some(n) = found {
                let event = self.events.remove(looked_at + n).unwrap_or_default();
                return Ok(event[wanted.len()..].to_vec());
            }
            looked_at = self.events.len();
            let Some(line) = self.line(deadline).await? else {
                bail!("no `event {beginning}` comes; there is {}", self.summary());
            };
            if self.take(&line)?.is_some() {
                bail!("an answer to no command: {}", shortened(&line));
            }
        }
    }

    /// Whether an event that begins with these words has come, as far as the shim has told by now.
    ///
    /// # Errors
    ///
    /// When the shim is dead or too slow.
    pub async fn has_told(&mut self, beginning: &str) -> Result<bool> {
        // It says in order what it says, so what it had to say before this it has said.
        self.tell("ping").await?;
        let wanted: Vec<&str> = beginning.split(' ').collect();
        Ok(self.events.iter().any(|event| begins(event, &wanted)))
    }

    /// Makes it as if it had just been started.
    ///
    /// # Errors
    ///
    /// When it doesn't say so.
    pub async fn reset(&mut self) -> Result<()> {
        self.tell("reset").await?;
        self.events.clear();
        if let Ok(mut errors) = self.errors.lock() {
            errors.clear();
        }
        Ok(())
    }

    /// Asks it to end, and kills it if it doesn't.
    pub async fn quit(mut self) {
        let deadline = now() + self.patience;
        // It is killed all the same if this fails.
        let _ = self.ask_until("quit", deadline).await;
        let _ = timeout_at(deadline, self.child.wait()).await;
    }

    /// The end of what it has said on standard error.
    pub fn last_words(&self) -> Vec<String> {
        self.errors.lock().map(|lines| lines.iter().cloned().collect()).unwrap_or_default()
    }

    /// Bytes of memory that it has, if the system tells.
    pub fn memory(&self) -> Option<u64> {
        self.child.id().and_then(resident)
    }

    /// Fails if it uses more memory than it may.
    ///
    /// # Errors
    ///
    /// When it does.
    pub fn check_memory(&self) -> Result<()> {
        let Some(used) = self.memory() else { return Ok(()) };
        ensure!(used <= self.most_memory, "the shim uses {} MiB of memory", used >> 20);
        Ok(())
    }

    /// The next line; `None` if there is none in time.
    async fn line(&mut self, deadline: Instant) -> Result<Option<String>> {
        match timeout_at(deadline, self.lines.recv()).await {
            Ok(Some(line)) => line.map(Some),
            Ok(None) => Err(self.obituary().await),
            Err(_) => {
                self.check_memory()?;
                Ok(None)
            }
        }
    }

    async fn obituary(&mut self) -> anyhow::Error {
        let waited = timeout_at(now() + Duration::from_secs(1), self.child.wait()).await;
        match waited {
            Ok(Ok(status)) => anyhow!("the shim has ended: {status}"),
            _ => anyhow!("the shim has closed its standard output"),
        }
    }

    /// Takes a line: an answer is given back, an event is kept.
    fn take(&mut self, line: &str) -> Result<Option<Answer>> {
        let mut words = line.split(' ').map(str::to_owned);
        let answer = match words.next().as_deref() {
            Some("event") => {
                ensure!(self.events.len() < MOST_EVENTS, "too many events");
                self.events.push_back(words.collect());
                return Ok(None);
            }
            Some("ok") => Answer::Ok(words.collect()),
            Some("error") => {
                Answer::Error(words.next().unwrap_or_default(), words.collect::<Vec<_>>().join(" "))
            }
            Some("unsupported") => Answer::Unsupported,
            _ => bail!("no line of the protocol: `{}`", shortened(line)),
        };
        Ok(Some(answer))
    }

    fn summary(&self) -> String {
        let events: Vec<String> = self.events.iter().map(|event| shortened(&event.join(" "))).collect();
        if events.is_empty() { "none".to_owned() } else { format!("`{}`", events.join("`, `")) }
    }
}

/// What a shim answers a command with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Ok(Vec<String>),
    /// It can't be done: a class, and a text for people.
    Error(String, String),
    /// It doesn't know the command.
    Unsupported,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ok(words) => write!(f, "`ok {}`", words.join(" ")),
            Self::Error(class, text) => write!(f, "`error {class} {text}`"),
            Self::Unsupported => f.write_str("`unsupported`"),
        }
    }
}

fn begins(event: &[String], wanted: &[&str]) -> bool {
    event.len() >= wanted.len() && event.iter().zip(wanted).all(|(word, wanted)| word == wanted)
}

fn shortened(line: &str) -> String {
    const MOST: usize = 200;
    let start: String = line.chars().take(MOST).collect();
    if start.len() < line.len() { format!("{start}...") } else { start }
}

/// Bytes of memory that a process has, if the system tells.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// The runner waits for other processes.
#[allow(clippy::disallowed_methods)]
pub(super) fn now() -> Instant {
    Instant::now()
}
