//! A disk in memory that takes its time, and that loses what it has not confirmed when its peer dies.
// Time is virtual here: it is what the paused runtime says.
#![allow(clippy::disallowed_methods)]

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use party::{
    error::StorageError,
    feed::storage::{Completion, Key, Snapshot, Span, Storage, Write},
};
use tokio::time::{Instant, sleep_until};

use super::checker::Checker;
use crate::dice::Dice;

/// The slowest commit, in milliseconds.
const SLOWEST: u64 = 12;

type Table = BTreeMap<Key, Bytes>;

/// What a peer has stored, which outlives its deaths. Cheap to clone.
///
/// A commit is seen by reads at once, and confirmed when it has reached the medium, some milliseconds later. A
/// [crash](Self::crash) keeps the commits that were confirmed, and of those under way as many of the first as chance says.
/// The one that was being written is torn: what is found of it afterwards is nothing, which is what the storage on disk
/// makes of a torn record (its own tests tear real files).
#[derive(Clone)]
pub(super) struct Disk {
    peer: usize,
    platter: Arc<Mutex<Platter>>,
    checker: Arc<Checker>,
    /// Confirms before it has stored: for the test that this is found out.
    lies: bool,
}

struct Platter {
    table: Arc<Table>,
    under_way: VecDeque<UnderWay>,
    /// Counts the lives of the peer.
    mount: u64,
    dice: Dice,
}

/// A commit that has not reached the medium.
struct UnderWay {
    until: Instant,
    /// What there was before it under the keys that it has changed, in that order.
    before: Vec<(Key, Option<Bytes>)>,
}

impl Disk {
    pub(super) fn new(peer: usize, checker: Arc<Checker>, dice: Dice, lies: bool) -> Self {
        let platter = Platter { table: Arc::default(), under_way: VecDeque::new(), mount: 0, dice };
        Self { peer, platter: Arc::new(Mutex::new(platter)), checker, lies }
    }

    /// The storage of a peer that begins to live.
    pub(super) fn mount(&self) -> Arc<dyn Storage> {
        Arc::new(Mount { disk: self.clone(), number: self.platter().mount })
    }

    /// The peer dies. Nothing that it still does is stored. Returns how many commits were lost.
    pub(super) fn crash(&self) -> usize {
        let now = Instant::now();
        let mut platter = self.platter();
        platter.mount += 1;
        platter.settle(now);
        let under_way = platter.under_way.len() as u64;
        let survive = platter.dice.below(under_way + 1) as usize;
        let lost = platter.under_way.split_off(survive);
        platter.under_way.clear();
        let table = Arc::make_mut(&mut platter.table);
        for commit in lost.iter().rev() {
            for (key, value) in commit.before.iter().rev() {
                match value {
                    Some(value) => table.insert(key.clone(), value.clone()),
                    None => table.remove(key),
                };
            }
        }
        lost.len()
    }

    /// Values that are stored.
    pub(super) fn len(&self) -> usize {
        self.platter().table.len()
    }

    /// Nothing panics while it holds the lock.
    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platter {
    fn settle(&mut self, now: Instant) {
        while self.under_way.front().is_some_and(|commit| commit.until <= now) {
            self.under_way.pop_front();
        }
    }

    fn commit(&mut self, writes: Vec<Write>, until: Instant) {
        let mut before = Vec::with_capacity(writes.len());
        let table = Arc::make_mut(&mut self.table);
        for write in writes {
            match write {
                Write::Put(key, value) => {
                    let old = table.insert(key.clone(), value);
                    before.push((key, old));
                }
                Write::Delete(key) => {
                    let old = table.remove(&key);
                    before.push((key, old));
                }
                Write::Clear(span) => {
                    let from = match &span {
                        Span::Feed(slot) => Key::Head(*slot),
                        Span::Pages(slot, range) => Key::Page(*slot, range.start),
                        Span::Nodes(slot, range) => Key::Node(*slot, range.start),
                        Span::Blocks(slot, range) => Key::Block(*slot, range.start),
                    };
                    let beyond = table.range((Bound::Included(from), Bound::Unbounded));
                    let gone = beyond.map(|(key, _)| key).filter(|key| span.contains(key));
                    let gone: Vec<Key> = gone.cloned().collect();
                    for key in gone {
                        let old = table.remove(&key);
                        before.push((key, old));
                    }
                }
            }
        }
        self.under_way.push_back(UnderWay { until, before });
    }
}

/// The disk as one life of its peer sees it.
struct Mount {
    disk: Disk,
    number: u64,
}

impl Mount {
    /// The platter, while the peer lives.
    fn platter(&self) -> Result<MutexGuard<'_, Platter>, StorageError> {
        let platter = self.disk.platter();
        if platter.mount == self.number { Ok(platter) } else { Err(StorageError::Closed) }
    }

    fn with<T: Send + 'static>(&self, f: impl FnOnce(&mut Platter) -> T) -> Completion<T> {
        let result = self.platter().map(|mut platter| f(&mut platter));
        Box::pin(std::future::ready(result))
    }
}

impl Storage for Mount {
    fn read(&self, keys: Vec<Key>) -> Completion<Vec<Option<Bytes>>> {
        self.with(|platter| read(&platter.table, &keys))
    }

    fn records(&self, prefix: Vec<u8>) -> Completion<Vec<(Vec<u8>, Bytes)>> {
        self.with(|platter| {
            let from = Key::Record(prefix.clone());
            let range = platter.table.range(from..);
            let found = range.map_while(|(key, value)| match key {
                Key::Record(key) if key.starts_with(&prefix) => Some((key.clone(), value.clone())),
                _ => None,
            });
            found.collect()
        })
    }

    fn commit(&self, writes: Vec<Write>) -> Completion<()> {
        let now = Instant::now();
        let until = match self.platter() {
            Ok(mut platter) => {
                platter.settle(now);
                let takes = Duration::from_millis(1 + platter.dice.below(SLOWEST));
                let last = platter.under_way.back().map_or(now, |last| last.until);
                let takes = if self.disk.lies { Duration::from_secs(600) } else { takes };
                let until = (now + takes).max(last);
                for write in &writes {
                    if let Write::Put(Key::Block(_, index), block) = write {
                        self.disk.checker.stored(self.disk.peer, *index, block);
                    }
                }
                platter.commit(writes, until);
                until
            }
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        if self.disk.lies {
            return Box::pin(std::future::ready(Ok(())));
        }
        let (disk, number) = (self.disk.clone(), self.number);
        Box::pin(async move {
            sleep_until(until).await;
            // Who has died hears nothing.
            if disk.platter().mount == number { Ok(()) } else { Err(StorageError::Closed) }
        })
    }

    fn close(&self) -> Completion<()> {
        // Only its peer's death ends it.
        Box::pin(std::future::ready(Ok(())))
    }

    fn snapshot(&self) -> Completion<Arc<dyn Snapshot>> {
        self.with(|platter| -> Arc<dyn Snapshot> { Arc::new(Held(platter.table.clone())) })
    }
}

struct Held(Arc<Table>);

impl Snapshot for Held {
    fn read(&self, keys: Vec<Key>) -> Completion<Vec<Option<Bytes>>> {
        Box::pin(std::future::ready(Ok(read(&self.0, &keys))))
    }
}

fn read(table: &Table, keys: &[Key]) -> Vec<Option<Bytes>> {
    keys.iter().map(|key| table.get(key).cloned()).collect()
}
