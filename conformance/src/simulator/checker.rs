//! What must hold, watched while a run goes on.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use party::{key::PublicKey, store::Store};
use tokio::{sync::Notify, time::Duration};

use super::{directory::Directory, trace::Trace};
use crate::dice::Dice;

/// Bytes in front of a block: who wrote it, and the how manieth of its writer's it is.
const HEADER: usize = 16;

/// Which of the promises was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// Who doesn't know the party's key is not let in, and learns nothing.
    Admission,
    /// Nobody gets a block, a key or a channel of a feed that the rules don't give to it.
    Authority,
    /// What is stored as a block of a feed is what its writer has appended there.
    Authenticity,
    /// What was acknowledged to an app is there after any crash.
    Durability,
    /// Memory, tasks and what is stored stay within bounds.
    Memory,
    /// Some time after the last fault, everybody has everything that it is to have.
    Convergence,
    /// A rule, a handshake or a store failed which had no reason to.
    Health,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, from the beginning of the run.
    pub at: Duration,
    /// Which promise.
    pub invariant: Invariant,
    /// By whom, and how.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:.3} s: {}", self.invariant, self.at.as_secs_f64(), self.what)
    }
}

/// Knows what is true in a run: who may have what, what was appended, and what of it was acknowledged.
pub(super) struct Checker {
    directory: Arc<Directory>,
    trace: Arc<Trace>,
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
    state: Mutex<State>,
    failed: Notify,
}

#[derive(Default)]
struct State {
    writers: BTreeMap<usize, Writer>,
    violation: Option<Violation>,
    counts: Counts,
}

/// What somebody has written.
#[derive(Default)]
struct Writer {
    /// What was appended at each index, acknowledged or not: after a crash another block may come there.
    tried: BTreeMap<u64, Vec<Bytes>>,
    /// By index.
    acknowledged: BTreeMap<u64, Bytes>,
}

/// What was counted in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Appends that the writer's feed has acknowledged.
    pub acknowledged: u64,
    /// Blocks stored at others than their writers.
    pub delivered: u64,
    /// Those of them whose writer isn't a neighbour, so that they have come over somebody else.
    pub delivered_over_others: u64,
    /// Peers that were admitted.
    pub admitted: u64,
    /// Requests for a feed that the rules have refused.
    pub refused: u64,
}

impl Checker {
    /// `clock` tells the time since the beginning of the run.
    pub(super) fn new(
        directory: Arc<Directory>,
        trace: Arc<Trace>,
        clock: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        Self { directory, trace, clock: Box::new(clock), state: Mutex::default(), failed: Notify::new() }
    }

    /// The block that a writer appends as its `number`-th.
    pub(super) fn block(seed: u64, writer: usize, number: u64) -> Bytes {
        let mut dice = Dice::apart(seed, "block", (writer as u64) << 32 | number);
        let mut block = vec![0; HEADER + dice.below(480) as usize];
        block[..8].copy_from_slice(&(writer as u64).to_le_bytes());
        block[8..HEADER].copy_from_slice(&number.to_le_bytes());
        dice.fill(&mut block[HEADER..]);
        block.into()
    }

    /// A block is about to be appended.
    pub(super) fn appending(&self, writer: usize, index: u64, block: &Bytes) {
        self.state().writers.entry(writer).or_default().tried.entry(index).or_default().push(block.clone());
    }

    /// An append was acknowledged.
    pub(super) fn appended(&self, writer: usize, index: u64, block: &Bytes) {
        let mut state = self.state();
        state.counts.acknowledged += 1;
        let writer = state.writers.entry(writer).or_default();
        writer.acknowledged.insert(index, block.clone());
    }

    /// How many blocks of a writer were acknowledged.
    pub(super) fn acknowledged(&self, writer: usize) -> u64 {
        self.state().writers.get(&writer).map_or(0, |writer| writer.acknowledged.len() as u64)
    }

    /// A peer stores something as block `index` of some feed.
    pub(super) fn stored(&self, peer: usize, index: u64, block: &Bytes) {
        let writer = block.first_chunk::<8>().map(|writer| u64::from_le_bytes(*writer) as usize);
        let mut state = self.state();
        let known = writer
            .and_then(|writer| state.writers.get(&writer))
            .is_some_and(|writer| writer.tried.get(&index).is_some_and(|tried| tried.contains(block)));
        let Some(writer) = writer.filter(|_| known) else {
            drop(state);
            self.fail(
                Invariant::Authenticity,
                format!("peer {peer} stores a block {index} that nobody has written there"),
            );
            return;
        };
        if !self.directory.may_have(peer, writer) {
            drop(state);
            self.fail(Invariant::Authority, format!("peer {peer} stores a block of peer {writer}"));
            return;
        }
        if peer != writer {
            state.counts.delivered += 1;
            if !self.directory.are_neighbours(peer, writer) {
                state.counts.delivered_over_others += 1;
            }
        }
    }

    /// A peer has admitted whoever holds this static key.
    pub(super) fn admitted(&self, peer: usize, remote: &PublicKey) {
        self.state().counts.admitted += 1;
        match self.directory.peer(remote) {
            Some(other) if self.directory.is_member(other) => {}
            Some(other) => {
                self.fail(Invariant::Admission, format!("peer {peer} admits peer {other}, who is no member"));
            }
            None => self.fail(Invariant::Admission, format!("peer {peer} admits nobody knows whom")),
        }
    }

    /// The rules have refused something.
    pub(super) fn refused(&self) {
        self.state().counts.refused += 1;
    }

    /// Looks through a store: whether all that it must have is there, and is what was written.
    /// `writers` are those of whom it must have everything.
    pub(super) async fn audit(&self, peer: usize, store: &Store, writers: &[usize]) {
        for &writer in writers {
            let expected = match self.state().writers.get(&writer) {
                Some(writer) => writer.acknowledged.clone(),
                None => continue,
            };
            let Ok(feed) = store.feed(&self.directory.feed(writer)).await else {
                self.fail(Invariant::Health, format!("peer {peer} can't open the feed of peer {writer}"));
                return;
            };
            for (index, block) in expected {
                let found = feed.get(index).await;
                if !matches!(&found, Ok(Some(found)) if *found == block) {
                    let what = format!(
                        "peer {peer} has lost block {index} of peer {writer}: {}",
                        match found {
                            Ok(Some(_)) => "another stands there".to_owned(),
                            Ok(None) => "it isn't there".to_owned(),
                            Err(error) => error.to_string(),
                        }
                    );
                    self.fail(Invariant::Durability, what);
                    return;
                }
            }
        }
    }

    /// A promise was broken. The first one counts.
    pub(super) fn fail(&self, invariant: Invariant, what: String) {
        let violation = Violation { at: (self.clock)(), invariant, what };
        let mut state = self.state();
        if state.violation.is_none() {
            self.trace.line(violation.at, &format!("BROKEN {invariant:?}: {}", violation.what));
            state.violation = Some(violation);
            self.failed.notify_waiters();
        }
    }

    /// Waits until a promise is broken.
    pub(super) async fn failed(&self) {
        loop {
            let failed = self.failed.notified();
            if self.violation().is_some() {
                return;
            }
            failed.await;
        }
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        self.state().violation.clone()
    }

    pub(super) fn counts(&self) -> Counts {
        self.state().counts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
