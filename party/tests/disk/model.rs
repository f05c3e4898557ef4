//! The storage on disk beside the one in memory: whatever is written, cleared, held and reopened, both
//! say the same.

use std::sync::Arc;

use bytes::Bytes;
use party::{
    feed::{
        memory::MemoryStorage,
        storage::{Key, Slot, Snapshot, Span, Storage, Write},
    },
    store::disk::DiskStorage,
};
use proptest::prelude::*;
use tempfile::tempdir;

/// Rows of sixteen lie apart from each other, and spans begin and end in the middle of them.
const INDEXES: u64 = 100;
/// So many keys that a span of them is not deleted at once.
const MANY: u64 = 60_000;

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Write>),
    /// Small values at every `n`th index of a slot, up to [`MANY`].
    Fill(Slot, u64),
    Snapshot,
    Reopen,
    Suspend,
}

fn key() -> impl Strategy<Value = Key> {
    let slot = (0..2_u64).prop_map(Slot);
    (slot, 0..INDEXES, 0..12_u8).prop_map(|(slot, index, kind)| match kind {
        0 => Key::Record(vec![index as u8]),
        1 => Key::Head(slot),
        2 => Key::Page(slot, index),
        3 => Key::Local(slot, vec![index as u8; 3]),
        4..8 => Key::Node(slot, index),
        _ => Key::Block(slot, index),
    })
}

fn span() -> impl Strategy<Value = Span> {
    let slot = (0..2_u64).prop_map(Slot);
    let ends = prop_oneof![3 => 0..INDEXES, 1 => Just(u64::MAX), 1 => Just(MANY / 2)];
    (slot, 0..INDEXES, ends, 0..8_u8).prop_map(|(slot, start, end, kind)| match kind {
        0 => Span::Feed(slot),
        1 => Span::Pages(slot, start..end),
        2..5 => Span::Nodes(slot, start..end),
        _ => Span::Blocks(slot, start..end),
    })
}

fn write() -> impl Strategy<Value = Write> {
    let value = (any::<u8>(), prop_oneof![0..3_usize, 120..140_usize, 4000..9000_usize])
        .prop_map(|(byte, len)| Bytes::from(vec![byte; len]));
    prop_oneof![
        8 => (key(), value).prop_map(|(key, value)| Write::Put(key, value)),
        2 => key().prop_map(Write::Delete),
        2 => span().prop_map(Write::Clear),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => proptest::collection::vec(write(), 1..20).prop_map(Step::Commit),
        2 => ((0..2_u64).prop_map(Slot), 1..3_u64).prop_map(|(slot, n)| Step::Fill(slot, n)),
        2 => Just(Step::Snapshot),
        1 => Just(Step::Reopen),
        1 => Just(Step::Suspend),
    ]
}

fn every_key() -> Vec<Key> {
    let mut all = vec![];
    for slot in [Slot(0), Slot(1)] {
        all.push(Key::Head(slot));
        for index in (0..INDEXES).chain((INDEXES..MANY).step_by(97)) {
            all.push(Key::Node(slot, index));
            all.push(Key::Block(slot, index));
        }
        for index in 0..INDEXES {
            all.extend([Key::Page(slot, index), Key::Local(slot, vec![index as u8; 3])]);
            all.push(Key::Record(vec![index as u8]));
        }
    }
    all
}

async fn run(steps: Vec<Step>) {
    let dir = tempdir().unwrap();
    let memory = MemoryStorage::new();
    let mut disk = DiskStorage::open(dir.path()).await.unwrap();
    let mut held: Vec<(Arc<dyn Snapshot>, Arc<dyn Snapshot>)> = vec![];
    for step in steps {
        match step {
            Step::Commit(writes) => {
                memory.commit(writes.clone()).await.unwrap();
                disk.commit(writes).await.unwrap();
            }
            Step::Fill(slot, n) => {
                let blocks = (0..MANY).step_by(n as usize).map(|index| Key::Block(slot, index));
                let nodes = (0..MANY / 4).step_by(n as usize).map(|index| Key::Node(slot, index));
                let writes: Vec<Write> =
                    blocks.chain(nodes).map(|key| Write::Put(key, Bytes::from_static(b"few"))).collect();
                memory.commit(writes.clone()).await.unwrap();
                disk.commit(writes).await.unwrap();
            }
            Step::Snapshot => held.push((memory.snapshot().await.unwrap(), disk.snapshot().await.unwrap())),
            Step::Reopen => {
                held.clear();
                disk.close().await.unwrap();
                disk = DiskStorage::open(dir.path()).await.unwrap();
            }
            Step::Suspend => {
                held.clear();
                disk.suspend().await.unwrap();
                disk.resume().await.unwrap();
            }
        }
        let keys: Vec<Key> =
            every_key().into_iter().filter(|key| key.slot().is_none_or(|it| it.0 == 0)).collect();
        assert_eq!(disk.read(keys.clone()).await.unwrap(), memory.read(keys).await.unwrap());
    }
    let keys = every_key();
    for (in_memory, on_disk) in held {
        assert_eq!(on_disk.read(keys.clone()).await.unwrap(), in_memory.read(keys.clone()).await.unwrap());
    }
    assert_eq!(disk.read(keys.clone()).await.unwrap(), memory.read(keys).await.unwrap());
    assert_eq!(disk.records(vec![]).await.unwrap(), memory.records(vec![]).await.unwrap());
    disk.close().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_disk_says_what_the_memory_says(steps in proptest::collection::vec(step(), 1..30)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(steps));
    }
}
