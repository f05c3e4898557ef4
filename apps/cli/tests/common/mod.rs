//! Drives the program `party` as a user does: a process, its arguments, what it prints.
#![allow(dead_code, missing_docs, unreachable_pub)] // each test file uses a part of it

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use sha2::{Digest as _, Sha256};

/// Long enough for a debug build on a busy machine; a test that reaches it hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn party(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_party"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs to the end, which must be a success, and gives what was printed.
pub fn succeed(arguments: &[&str]) -> Vec<u8> {
    let output = party(arguments).output().unwrap();
    assert!(output.status.success(), "party {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub fn succeed_text(arguments: &[&str]) -> String {
    String::from_utf8(succeed(arguments)).unwrap().trim_end().to_owned()
}

/// Runs to the end, which must be an error of one line, and gives that line.
pub fn fail(arguments: &[&str]) -> String {
    one_line(party(arguments).output().unwrap())
}

pub fn one_line(output: Output) -> String {
    assert!(!output.status.success(), "it succeeded: {}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "not one line: {said:?}");
    said.trim_end().to_owned()
}

/// Runs with `input` on its standard input.
pub fn feed_input(arguments: &[&str], input: &[u8]) -> Output {
    let mut child =
        party(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // It may end before it has read all; what it says then is what the test looks at.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// Bytes that look random and are the same in every run.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 32);
    for block in 0u64.. {
        if bytes.len() >= len {
            break;
        }
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update(block.to_le_bytes());
        bytes.extend_from_slice(&hash.finalize());
    }
    bytes.truncate(len);
    bytes
}

pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder for a test, with a store in it.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `party feed VERB --store HERE ...`, which must succeed.
    pub fn feed(&self, verb: &str, arguments: &[&str]) -> Vec<u8> {
        let store = self.store();
        succeed(&[&["feed", verb, "--store", path(&store)], arguments].concat())
    }

    pub fn feed_text(&self, verb: &str, arguments: &[&str]) -> String {
        String::from_utf8(self.feed(verb, arguments)).unwrap().trim_end().to_owned()
    }

    pub fn info(&self, which: &str, value: &str) -> serde_json::Value {
        serde_json::from_slice(&self.feed("info", &[which, value, "--json"])).unwrap()
    }
}

/// A process that goes on while the test does. It is killed when it is dropped.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    complaints: Option<std::thread::JoinHandle<String>>,
}

impl Running {
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = party(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = read_lines(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let complaints = std::thread::spawn(move || {
            let mut said = String::new();
            let _ = stderr.read_to_string(&mut said);
            said
        });
        Self { stdin: child.stdin.take(), child, lines, complaints: Some(complaints) }
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(_) => {
                let _ = self.child.kill();
                panic!("no line came; it said: {}", self.complaints.take().unwrap().join().unwrap())
            }
        }
    }

    /// The lines that it has printed and nobody has taken, without waiting; all of them once it has ended.
    pub fn rest(&mut self) -> Vec<String> {
        self.lines.iter().collect()
    }

    pub fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes)?;
        stdin.flush()
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).unwrap();
    }

    /// For a thread that writes it while the test does something else.
    pub fn take_input(&mut self) -> ChildStdin {
        self.stdin.take().unwrap()
    }

    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As Ctrl-C does. Waits for the end, and gives whether that was a success.
    #[cfg(unix)]
    pub fn interrupt(&mut self) -> bool {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        self.ends()
    }

    /// Waits for the end, and gives whether that was a success.
    pub fn ends(&mut self) -> bool {
        let waited = std::time::Duration::from_millis(20);
        let mut patience = PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            patience = patience.checked_sub(waited).expect("it goes on and on");
            std::thread::sleep(waited);
        }
    }

    pub fn complaints(&mut self) -> String {
        self.complaints.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        // What a killed process had begun to write is no line.
        while stdout.read_line(&mut line).is_ok() && line.ends_with('\n') {
            if sender.send(line.trim_end().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    lines
}
