//! A feed, driven at random, beside a list of blocks in memory that says what it must be.
//!
//! A failing case is shrunk, printed, and kept in `proptest-regressions`, from where it is run again first.
//! `PROPTEST_CASES` says how many are tried.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use party::{
    feed::{
        Batch, Feed, FeedSnapshot, Identity,
        memory::MemoryStorage,
        proof::{BlockRequest, ProofRequest, UpgradeRequest},
        storage::{Slot, Storage},
    },
    key::KeyPair,
};
use proptest::{prelude::*, sample::Index};

const SLOT: Slot = Slot(3);

#[derive(Clone, Debug)]
enum Step {
    /// Blocks of these lengths, one after the other or as one batch.
    Append {
        lengths: Vec<usize>,
        batch: bool,
    },
    /// A batch with a record beside it, which may be without blocks.
    Record {
        key: u8,
        value: Option<u8>,
        blocks: usize,
    },
    Truncate {
        to: Index,
        skip: u64,
    },
    Clear {
        from: Index,
        length: u64,
    },
    Snapshot,
    Release(Index),
    Restart,
    Audit,
    /// A reader brings its length up and gets this block.
    Replicate {
        block: Index,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![8 => 0usize..200, 1 => Just(5_000)];
    prop_oneof![
        6 => (prop::collection::vec(length, 1..9), any::<bool>())
            .prop_map(|(lengths, batch)| Step::Append { lengths, batch }),
        2 => (0u8..4, any::<Option<u8>>(), 0usize..3)
            .prop_map(|(key, value, blocks)| Step::Record { key, value, blocks }),
        2 => (any::<Index>(), 0u64..3).prop_map(|(to, skip)| Step::Truncate { to, skip }),
        2 => (any::<Index>(), 0u64..20).prop_map(|(from, length)| Step::Clear { from, length }),
        2 => Just(Step::Snapshot),
        1 => any::<Index>().prop_map(Step::Release),
        1 => Just(Step::Restart),
        1 => Just(Step::Audit),
        4 => any::<Index>().prop_map(|block| Step::Replicate { block }),
    ]
}

/// What a feed must be.
#[derive(Clone, Default)]
struct Model {
    fork: u64,
    blocks: Vec<Bytes>,
    stored: BTreeSet<u64>,
    records: BTreeMap<u8, Bytes>,
}

impl Model {
    fn length(&self) -> u64 {
        self.blocks.len() as u64
    }

    fn block(&self, index: u64) -> Option<Bytes> {
        self.stored.contains(&index).then(|| self.blocks[index as usize].clone())
    }

    fn append(&mut self, blocks: &[Bytes]) -> Range<u64> {
        let start = self.length();
        self.blocks.extend_from_slice(blocks);
        self.stored.extend(start..self.length());
        start..self.length()
    }

    fn truncate(&mut self, length: u64, fork: u64) {
        self.blocks.truncate(length as usize);
        self.stored.retain(|index| *index < length);
        self.fork = fork;
    }

    fn contiguous(&self) -> u64 {
        (0..).find(|index| !self.stored.contains(index)).unwrap_or_default()
    }

    fn byte_length(&self) -> u64 {
        self.blocks.iter().map(|block| block.len() as u64).sum()
    }
}

/// Where the feed is stored.
enum Place {
    Memory(Arc<MemoryStorage>),
    #[cfg(feature = "disk")]
    Disk(tempfile::TempDir),
}

impl Place {
    async fn storage(&self) -> Arc<dyn Storage> {
        match self {
            Self::Memory(memory) => memory.clone(),
            #[cfg(feature = "disk")]
            Self::Disk(dir) => {
                let path: PathBuf = dir.path().join("store");
                Arc::new(party::store::disk::DiskStorage::open(path).await.unwrap())
            }
        }
    }

    fn is_memory(&self) -> bool {
        matches!(self, Self::Memory(_))
    }
}

struct Subject {
    place: Place,
    storage: Arc<dyn Storage>,
    feed: Feed,
    model: Model,
    snapshots: Vec<(FeedSnapshot, Model)>,
    reader: Feed,
    /// For blocks that differ from each other, over truncations too.
    written: u64,
}

fn writer() -> Identity {
    Identity::writer(KeyPair::from_seed(&[1; 32]))
}

async fn reader(feed: &Feed) -> Feed {
    let storage = Arc::new(MemoryStorage::new());
    Feed::create(storage, SLOT, Identity::reader(feed.key())).await.unwrap()
}

impl Subject {
    async fn new(place: Place) -> Self {
        let storage = place.storage().await;
        let feed = Feed::create(storage.clone(), SLOT, writer()).await.unwrap();
        let reader = reader(&feed).await;
        Self { place, storage, feed, model: Model::default(), snapshots: vec![], reader, written: 0 }
    }

    fn block(&mut self, length: usize) -> Bytes {
        self.written += 1;
        let stamp = self.written.to_le_bytes();
        stamp.iter().copied().cycle().take(length).collect()
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Append { lengths, batch } => {
                let blocks: Vec<Bytes> = lengths.into_iter().map(|length| self.block(length)).collect();
                let expected = self.model.append(&blocks);
                if batch {
                    assert_eq!(self.feed.append_batch(blocks).await.unwrap(), expected);
                } else {
                    for (index, block) in expected.zip(blocks) {
                        assert_eq!(self.feed.append(block).await.unwrap(), index);
                    }
                }
            }
            Step::Record { key, value, blocks } => {
                let blocks: Vec<Bytes> = (0..blocks).map(|_| self.block(30)).collect();
                let expected = self.model.append(&blocks);
                let mut batch = Batch::new();
                batch.append(&self.feed, blocks);
                match value {
                    Some(value) => {
                        batch.put(&self.feed, [key], vec![value]);
                        self.model.records.insert(key, vec![value].into());
                    }
                    None => {
                        batch.delete(&self.feed, [key]);
                        self.model.records.remove(&key);
                    }
                }
                assert_eq!(batch.commit().await.unwrap(), [expected]);
            }
            Step::Truncate { to, skip } => {
                let length = to.index(self.model.blocks.len() + 1) as u64;
                let fork = self.model.fork + 1 + skip;
                match skip {
                    0 => self.feed.truncate(length).await.unwrap(),
                    _ => self.feed.truncate_to_fork(length, fork).await.unwrap(),
                }
                self.model.truncate(length, fork);
            }
            Step::Clear { from, length } => {
                let from = from.index(self.model.blocks.len() + 1) as u64;
                let range = from..from + length;
                let gone = self.model.stored.range(range.clone()).count() as u64;
                assert_eq!(self.feed.clear(range.clone()).await.unwrap(), gone);
                self.model.stored.retain(|index| !range.contains(index));
            }
            Step::Snapshot => self.snapshots.push((self.feed.snapshot().await, self.model.clone())),
            Step::Release(which) => {
                if !self.snapshots.is_empty() {
                    self.snapshots.remove(which.index(self.snapshots.len()));
                }
            }
            Step::Restart => {
                self.snapshots.clear();
                if !self.place.is_memory() {
                    self.storage.close().await.unwrap();
                    self.storage = self.place.storage().await;
                }
                self.feed = Feed::create(self.storage.clone(), SLOT, writer()).await.unwrap();
            }
            Step::Audit => {
                let audit = self.feed.audit().await.unwrap();
                assert!(audit.is_clean(), "{:?}", audit.problems);
                assert_eq!(audit.blocks, self.model.stored.len() as u64);
            }
            Step::Replicate { block } => self.replicate(block).await,
        }
        self.check().await;
    }

    /// The reader follows the writer to its fork, gets its length, and a block.
    async fn replicate(&self, block: Index) {
        let length = self.model.length();
        // A feed without blocks has nothing that could be proved.
        if length == 0 {
            return;
        }
        self.follow().await;
        let (had, manifest) = (self.reader.info().length, self.reader.manifest().is_none());
        if had < length {
            let upgrade = Some(UpgradeRequest { start: had, length: length - had });
            let request = ProofRequest { upgrade, manifest, ..ProofRequest::default() };
            self.ingest(request).await.unwrap();
        }
        assert_eq!(self.reader.info().length, length);

        let index = block.index(length as usize) as u64;
        let nodes = self.reader.with_local(|local| local.missing_nodes(index));
        let request = ProofRequest { block: Some(BlockRequest { index, nodes }), ..ProofRequest::default() };
        let found = self.ingest(request).await;
        assert_eq!(found.is_some(), self.model.stored.contains(&index));
        let audit = self.reader.audit().await.unwrap();
        assert!(audit.is_clean(), "the reader: {:?}", audit.problems);
    }

    async fn follow(&self) {
        if self.reader.info().fork == self.model.fork {
            return;
        }
        let upgrade = Some(UpgradeRequest { start: 0, length: self.model.length() });
        let request = ProofRequest { upgrade, manifest: true, ..ProofRequest::default() };
        let proof = self.feed.prove(request, self.model.fork).await.unwrap().unwrap();
        let mut reorg = self.reader.reorg(proof).await.unwrap().expect("a higher fork");
        while let Some(want) = reorg.want() {
            let request = want.request(want.blocks().start);
            let proof = self.feed.prove(request, self.model.fork).await.unwrap().unwrap();
            reorg.handle_proof(proof).await.unwrap();
        }
        reorg.commit().await.unwrap().expect("nothing is wanted any more");
        assert_eq!(self.reader.info().fork, self.model.fork);
    }

    /// Asks the writer and takes in what it answers, if it does.
    async fn ingest(&self, request: ProofRequest) -> Option<()> {
        let proof = self.feed.prove(request, self.model.fork).await.unwrap()?;
        self.reader.ingest(vec![proof]).await.pop().unwrap().unwrap();
        Some(())
    }

    async fn check(&self) {
        let info = self.feed.info();
        assert_eq!((info.length, info.fork), (self.model.length(), self.model.fork));
        assert_eq!(info.byte_length, self.model.byte_length());
        assert_eq!(info.contiguous_length, self.model.contiguous());
        for index in 0..info.length + 2 {
            assert_eq!(self.feed.get(index).await.unwrap(), self.model.block(index), "block {index}");
        }
        for key in 0..4 {
            let found = self.feed.record([key]).await.unwrap();
            assert_eq!(found.as_ref(), self.model.records.get(&key), "record {key}");
        }
        if self.reader.info().fork == self.model.fork {
            for index in 0..info.length {
                if let Some(block) = self.reader.get(index).await.unwrap() {
                    assert_eq!(block, self.model.blocks[index as usize], "the reader's block {index}");
                }
            }
        }
        for (snapshot, model) in &self.snapshots {
            let info = snapshot.info();
            assert_eq!((info.length, info.fork), (model.length(), model.fork));
            for index in 0..info.length + 2 {
                assert_eq!(snapshot.get(index).await.unwrap(), model.block(index), "snapshot, block {index}");
            }
        }
    }
}

fn run(place: Place, steps: Vec<Step>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        let mut subject = Subject::new(place).await;
        for step in steps {
            subject.take(step).await;
        }
        subject.take(Step::Restart).await;
        subject.take(Step::Audit).await;
        subject.snapshots.clear();
        subject.storage.close().await.unwrap();
    });
}

proptest! {
    #[test]
    fn a_feed_in_memory_is_what_was_done_to_it(steps in prop::collection::vec(step(), 1..40)) {
        run(Place::Memory(Arc::default()), steps);
    }
}

#[cfg(feature = "disk")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_feed_on_disk_is_what_was_done_to_it(steps in prop::collection::vec(step(), 1..60)) {
        run(Place::Disk(tempfile::tempdir().unwrap()), steps);
    }
}
