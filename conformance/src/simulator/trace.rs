//! What has happened in a run, as a hash and as lines.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sha2::{Digest as _, Sha256};

/// Takes everything in, in the order in which it happens: each line, and each byte that the network delivers. Two runs with
/// the same [hash](Self::hash) were the same.
#[derive(Debug)]
pub(super) struct Trace {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    hasher: Sha256,
    /// The last ones.
    lines: VecDeque<String>,
    keep: usize,
    deliveries: u64,
    bytes: u64,
}

impl Trace {
    /// Keeps so many of the last lines.
    pub(super) fn new(keep: usize) -> Self {
        let inner = Inner { hasher: Sha256::new(), lines: VecDeque::new(), keep, deliveries: 0, bytes: 0 };
        Self { inner: Mutex::new(inner) }
    }

    pub(super) fn line(&self, at: Duration, text: &str) {
        let line = format!("{:>10.3} {text}", at.as_secs_f64());
        let mut inner = self.inner();
        inner.hasher.update(line.as_bytes());
        if inner.keep > 0 {
            if inner.lines.len() == inner.keep {
                inner.lines.pop_front();
            }
            inner.lines.push_back(line);
        }
    }

    /// Bytes that have come to one end of a wire.
    pub(super) fn delivered(&self, at: u64, wire: u64, end: usize, bytes: &[u8]) {
        let mut inner = self.inner();
        let mut head = [0; 17];
        head[..8].copy_from_slice(&at.to_le_bytes());
        head[8..16].copy_from_slice(&wire.to_le_bytes());
        head[16] = end as u8;
        inner.hasher.update(head);
        inner.hasher.update(bytes);
        inner.deliveries += 1;
        inner.bytes += bytes.len() as u64;
    }

    /// How often something was delivered, and how many bytes in all.
    pub(super) fn traffic(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.deliveries, inner.bytes)
    }

    /// SHA-256 over all of it, in hex.
    pub(super) fn hash(&self) -> String {
        let digest = self.inner().hasher.clone().finalize();
        digest.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.inner().lines.iter().cloned().collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
