//! Proofs made together are those that would be made one by one, and what is read together is of one moment.

use std::sync::Arc;

use bytes::Bytes;
use party::{
    feed::{
        Feed, Identity,
        memory::MemoryStorage,
        proof::{BlockRequest, Proof, ProofRequest, SeekRequest, UpgradeRequest},
        storage::{Key, Slot, Storage, Write},
    },
    key::KeyPair,
    store::disk::DiskStorage,
};
use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

const SLOT: Slot = Slot(0);
/// Longer than any feed in here.
const BEYOND: u64 = 400;

#[derive(Clone, Debug)]
enum Step {
    /// So many blocks of about this size.
    Append(u64, usize),
    Clear(u64, u64),
    Truncate(u64),
    /// The copies take a block.
    Copy(u64),
    Ask(Vec<(ProofRequest, u64)>),
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![3 => 0..100_usize, 2 => 120..2_000_usize, 1 => Just(40_000_usize)];
    prop_oneof![
        4 => (1..60_u64, size).prop_map(|(count, size)| Step::Append(count, size)),
        1 => (0..BEYOND, 0..40_u64).prop_map(|(from, count)| Step::Clear(from, from + count)),
        1 => (1..BEYOND).prop_map(Step::Truncate),
        4 => (0..BEYOND).prop_map(Step::Copy),
        6 => requests().prop_map(Step::Ask),
    ]
}

/// In order, as a reader asks, and anything else.
fn requests() -> impl Strategy<Value = Vec<(ProofRequest, u64)>> {
    let in_order = (0..BEYOND, 1..80_u64, 0..5_u64).prop_map(|(from, count, nodes)| {
        let request =
            |index| ProofRequest { block: Some(BlockRequest { index, nodes }), ..Default::default() };
        (from..from + count).map(|index| (request(index), 0)).collect::<Vec<_>>()
    });
    let part = || (0..BEYOND, 0..10_u64).prop_map(|(index, nodes)| BlockRequest { index, nodes });
    let seek =
        (0..200_000_u64, 0..2_u64).prop_map(|(bytes, padding)| SeekRequest { bytes, padding: padding * 8 });
    let upgrade = (0..BEYOND, 0..BEYOND).prop_map(|(start, length)| UpgradeRequest { start, length });
    let of = |probability| move |part| proptest::option::weighted(probability, part);
    let any = (
        of(0.7)(part().boxed()),
        proptest::option::weighted(0.2, part()),
        proptest::option::weighted(0.3, seek),
        proptest::option::weighted(0.2, upgrade),
        any::<bool>(),
        0..3_u64,
    )
        .prop_map(|(block, hash, seek, upgrade, manifest, fork)| {
            (ProofRequest { block, hash, seek, upgrade, manifest }, fork)
        });
    prop_oneof![in_order, proptest::collection::vec(any, 1..30)]
}

/// A feed on disk and the same in memory.
struct Twins {
    disk: Feed,
    memory: Feed,
    _folder: TempDir,
}

impl Twins {
    async fn new(identity: Identity) -> Self {
        let folder = tempdir().unwrap();
        let disk = Arc::new(DiskStorage::open(folder.path()).await.unwrap());
        let disk = Feed::create(disk, SLOT, identity.clone()).await.unwrap();
        let memory = Feed::create(Arc::new(MemoryStorage::new()), SLOT, identity).await.unwrap();
        Self { disk, memory, _folder: folder }
    }

    fn both(&self) -> [&Feed; 2] {
        [&self.disk, &self.memory]
    }

    async fn check(&self, requests: &[(ProofRequest, u64)]) {
        // Twice, as the second time some of it is in memory.
        for _ in 0..2 {
            let together = self.disk.prove_many(requests.to_vec()).await;
            assert_eq!(together.len(), requests.len());
            for ((request, fork), proof) in requests.iter().zip(together) {
                let alone = self.disk.prove(request.clone(), *fork).await;
                assert_eq!(show(&proof), show(&alone), "{request:?}");
                let in_memory = self.memory.prove(request.clone(), *fork).await;
                assert_eq!(show(&proof), show(&in_memory), "{request:?}");
            }
        }
    }
}

fn show(answer: &Result<Option<Proof>, party::error::Error>) -> String {
    format!("{answer:?}")
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn take(writer: &Feed, reader: &Feed, index: u64) {
    let length = writer.info().length;
    if index >= length || reader.info().fork != writer.info().fork {
        return;
    }
    let request = reader.with_local(|local| ProofRequest {
        block: Some(BlockRequest { index, nodes: local.missing_nodes(index) }),
        upgrade: (length > local.length())
            .then(|| UpgradeRequest { start: local.length(), length: length - local.length() }),
        manifest: local.needs_manifest(),
        ..ProofRequest::default()
    });
    if let Ok(Some(proof)) = writer.prove(request, writer.info().fork).await {
        assert!(reader.ingest(vec![proof]).await.remove(0).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn proofs_made_together_are_those_made_one_by_one(
        steps in proptest::collection::vec(step(), 1..25),
    ) {
        run(async {
            let pair = KeyPair::from_seed(&[1; 32]);
            let writer = Twins::new(Identity::writer(pair)).await;
            let copy = Twins::new(Identity::reader(writer.disk.key())).await;
            for step in steps {
                match step {
                    Step::Append(count, size) => {
                        let from = writer.disk.info().length;
                        let block = |n: u64| Bytes::from(vec![n as u8; size + n as usize % 7]);
                        let blocks: Vec<Bytes> =
                            (from..(from + count).min(BEYOND)).map(block).collect();
                        for feed in writer.both() {
                            feed.append_batch(blocks.clone()).await.unwrap();
                        }
                    }
                    Step::Clear(from, to) => {
                        for feed in writer.both().into_iter().chain(copy.both()) {
                            feed.clear(from..to).await.unwrap();
                        }
                    }
                    Step::Truncate(length) => {
                        if length < writer.disk.info().length {
                            for feed in writer.both() {
                                feed.truncate(length).await.unwrap();
                            }
                        }
                    }
                    Step::Copy(index) => {
                        for feed in copy.both() {
                            take(&writer.memory, feed, index).await;
                        }
                    }
                    Step::Ask(requests) => {
                        let fork = writer.disk.info().fork;
                        let now = |(request, behind): &(ProofRequest, u64)| (request.clone(), fork.saturating_sub(*behind));
                        writer.check(&requests.iter().map(now).collect::<Vec<_>>()).await;
                        copy.check(&requests).await;
                    }
                }
            }
        });
    }
}

#[test]
fn what_is_read_together_is_of_one_moment() {
    const COMMITS: u32 = 400;
    run(async {
        let folder = tempdir().unwrap();
        let storage = Arc::new(DiskStorage::open(folder.path()).await.unwrap());
        // In rows of their own, of both kinds, and enough of them side by side for a range.
        let keys: Vec<Key> = (0..8)
            .map(|n| Key::Node(SLOT, 16 * n))
            .chain((0..3).map(|n| Key::Block(SLOT, 100 * n)))
            .collect();
        let put = |n: u32| {
            let value = Bytes::copy_from_slice(&n.to_le_bytes());
            keys.iter().map(|key| Write::Put(key.clone(), value.clone())).collect::<Vec<_>>()
        };
        storage.commit(put(0)).await.unwrap();
        let readers = (1..=2_usize).map(|step| {
            let (storage, keys) = (storage.clone(), keys.clone());
            std::thread::spawn(move || {
                run(async {
                    let mut last = 0;
                    while last < COMMITS {
                        // So that some are in memory and others are not.
                        let some = keys.iter().step_by(step + 1).cloned().collect();
                        storage.read(some).await.unwrap();
                        let values = storage.read(keys.clone()).await.unwrap();
                        let numbers = values
                            .iter()
                            .map(|value| u32::from_le_bytes(value.as_deref().unwrap().try_into().unwrap()));
                        let numbers: Vec<u32> = numbers.collect();
                        assert!(numbers.iter().all(|n| *n == numbers[0]), "{numbers:?}");
                        assert!(last <= numbers[0], "{} after {last}", numbers[0]);
                        last = numbers[0];
                    }
                });
            })
        });
        let readers: Vec<_> = readers.collect();
        for n in 1..=COMMITS {
            storage.commit(put(n)).await.unwrap();
            let own = storage.read(vec![keys[3].clone()]).await.unwrap();
            assert_eq!(
                own,
                [Some(Bytes::copy_from_slice(&n.to_le_bytes()))],
                "a commit that was acknowledged"
            );
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

#[test]
fn no_more_blocks_are_read_than_up_to_the_one_that_is_too_much() {
    run(async {
        let folder = tempdir().unwrap();
        let storage = DiskStorage::open(folder.path()).await.unwrap();
        let block = |len: usize| Bytes::from(vec![len as u8; len]);
        let sizes = [10, 1_000, 3_000, 5, 50_000, 70_000, 20];
        let put = |(index, len): (usize, &usize)| Write::Put(Key::Block(SLOT, index as u64), block(*len));
        let node = Key::Node(SLOT, 3);
        let mut writes: Vec<Write> = sizes.iter().enumerate().map(put).collect();
        writes.push(Write::Put(node.clone(), block(40)));
        storage.commit(writes).await.unwrap();

        // In any order, with one that is not there and one twice.
        let order = [2, 0, 99, 4, 1, 1, 6, 5, 3];
        let blocks = order.map(|index| Key::Block(SLOT, index));
        let keys: Vec<Key> = [node].into_iter().chain(blocks).collect();
        let all = storage.read(keys.clone()).await.unwrap();
        for (index, value) in order.iter().zip(&all[1..]) {
            assert_eq!(*value, sizes.get(*index as usize).map(|len| block(*len)), "block {index}");
        }
        for (bytes, expected) in [(0, 2), (3_000, 2), (3_001, 3), (3_011, 5), (54_000, 6), (usize::MAX, 10)] {
            let some = storage.read_up_to(keys.clone(), bytes).await.unwrap();
            assert_eq!(some[..], all[..expected], "up to {bytes}");
        }
    });
}
