//! Feeds that are truncated, cleared, held on to, written together and audited.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use crate::common::storage::as_in;
use bytes::Bytes;
use futures_util::future::join_all;
use party::{
    error::{ApiMisuse, Error, StorageError},
    feed::{
        Batch, Feed, Identity, Problem,
        memory::MemoryStorage,
        proof::{BlockRequest, ProofRequest, UpgradeRequest},
        storage::{Completion, Key, Slot, Storage, Write},
    },
    key::KeyPair,
};

const SLOT: Slot = Slot(0);

fn blocks(n: u64) -> Vec<Bytes> {
    (0..n).map(|n| Bytes::from(format!("block {n}"))).collect()
}

fn pair() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

async fn written(n: u64) -> (Arc<MemoryStorage>, Feed) {
    let storage = Arc::new(MemoryStorage::new());
    let feed = Feed::create(storage.clone(), SLOT, Identity::writer(pair())).await.unwrap();
    feed.append_batch(blocks(n)).await.unwrap();
    (storage, feed)
}

async fn stored(storage: &dyn Storage, key: Key) -> Option<Bytes> {
    storage.read(vec![key]).await.unwrap().pop().unwrap()
}

#[tokio::test]
async fn a_truncated_feed_keeps_nothing_of_what_was_cut_off() {
    let (storage, feed) = written(21).await;
    feed.truncate(11).await.unwrap();
    for index in 11..32 {
        assert_eq!(stored(&*storage, Key::Block(SLOT, index)).await, None, "block {index}");
    }
    for index in 0..64 {
        // What spans a block from the eleventh on.
        let end = flat_tree::right_span(index) / 2 + 1;
        let is_there = stored(&*storage, Key::Node(SLOT, index)).await.is_some();
        assert_eq!(is_there, end <= 11, "node {index}");
    }
    assert!(feed.audit().await.unwrap().is_clean());
}

#[tokio::test]
async fn a_truncation_that_cannot_be_is_refused_and_changes_nothing() {
    let (_, feed) = written(5).await;
    let refused = feed.truncate(6).await.unwrap_err();
    assert!(matches!(refused, Error::ApiMisuse(ApiMisuse::BeyondEnd { index: 6, length: 5 })));
    let refused = feed.truncate_to_fork(2, 0).await.unwrap_err();
    assert!(matches!(refused, Error::ApiMisuse(ApiMisuse::ForkNotHigher { fork: 0, current: 0 })));
    let refused = feed.truncate_to_fork(2, 1 << 53).await.unwrap_err();
    assert!(matches!(refused, Error::ApiMisuse(ApiMisuse::LimitExceeded(_))));

    let storage = Arc::new(MemoryStorage::new());
    let reader = Feed::create(storage, SLOT, Identity::reader(feed.key())).await.unwrap();
    let refused = reader.truncate(0).await.unwrap_err();
    assert!(matches!(refused, Error::ApiMisuse(ApiMisuse::NotWritable(_))));
    assert_eq!((feed.info().length, feed.info().fork), (5, 0));
}

#[tokio::test]
async fn a_writer_that_has_only_a_part_of_its_feed_truncates_where_it_can() {
    let (_, feed) = written(8).await;
    // The same writer on another machine, with the tree's one root and block 6.
    let storage = Arc::new(MemoryStorage::new());
    let part = Feed::create(storage, SLOT, Identity::writer(pair())).await.unwrap();
    let upgrade = Some(UpgradeRequest { start: 0, length: 8 });
    let block = Some(BlockRequest { index: 6, nodes: 0 });
    let request = ProofRequest { upgrade, block, ..ProofRequest::default() };
    let proof = feed.prove(request, 0).await.unwrap().unwrap();
    part.ingest(vec![proof]).await.pop().unwrap().unwrap();

    let refused = part.truncate(3).await.unwrap_err();
    assert!(matches!(refused, Error::ApiMisuse(ApiMisuse::NotStored)));
    part.truncate(6).await.unwrap();
    assert_eq!(part.info().length, 6);
    assert!(part.audit().await.unwrap().is_clean());
}

#[tokio::test]
async fn cleared_blocks_are_gone_and_the_rest_can_be_proved() {
    let (storage, feed) = written(20).await;
    assert_eq!(feed.clear(3..9).await.unwrap(), 6);
    assert_eq!(feed.clear(0..u64::MAX).await.unwrap(), 14);
    assert_eq!(feed.clear(0..20).await.unwrap(), 0);
    for index in 0..20 {
        assert_eq!(feed.get(index).await.unwrap(), None);
        assert_eq!(stored(&*storage, Key::Block(SLOT, index)).await, None);
    }
    assert_eq!(feed.append("more").await.unwrap(), 20);
    let block = Some(BlockRequest { index: 20, nodes: 0 });
    let proof = feed.prove(ProofRequest { block, ..ProofRequest::default() }, 0).await.unwrap();
    assert!(proof.is_some());
    let info = feed.info();
    assert_eq!((info.length, info.contiguous_length), (21, 0));
}

#[tokio::test]
async fn what_was_cleared_can_be_fetched_again() {
    let (_, feed) = written(20).await;
    let storage = Arc::new(MemoryStorage::new());
    let copy = Feed::create(storage, SLOT, Identity::writer(pair())).await.unwrap();
    let upgrade = Some(UpgradeRequest { start: 0, length: 20 });
    let upgraded = feed.prove(ProofRequest { upgrade, ..ProofRequest::default() }, 0).await.unwrap().unwrap();
    copy.ingest(vec![upgraded]).await.pop().unwrap().unwrap();
    for round in 0..2 {
        for index in 0..20 {
            let nodes = copy.with_local(|local| local.missing_nodes(index));
            let block = Some(BlockRequest { index, nodes });
            let proof = feed.prove(ProofRequest { block, ..ProofRequest::default() }, 0).await.unwrap();
            copy.ingest(vec![proof.unwrap()]).await.pop().unwrap().unwrap();
        }
        assert_eq!(copy.info().contiguous_length, 20, "round {round}");
        copy.clear(5..15).await.unwrap();
    }
}

#[tokio::test]
async fn readers_never_see_half_a_truncation() {
    let (_, feed) = written(50).await;
    let reading = async {
        for _ in 0..200 {
            for index in [0, 10, 49] {
                let block = feed.get(index).await.unwrap();
                assert!(block.is_none_or(|block| block.starts_with(b"block") || block.starts_with(b"again")));
                let block = Some(BlockRequest { index, nodes: 0 });
                let fork = feed.info().fork;
                let request = ProofRequest { block, ..ProofRequest::default() };
                // A request that the truncation has overtaken may be refused, and that is all.
                drop(feed.prove(request, fork).await);
            }
            tokio::task::yield_now().await;
        }
    };
    let writing = async {
        for round in 0..100 {
            feed.truncate(round % 40).await.unwrap();
            feed.append_batch(vec!["again".into(); 30]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(reading, writing);
}

#[tokio::test]
async fn fifty_tasks_append_each_in_its_own_order() {
    let (_, feed) = written(0).await;
    let writers = (0..50u8).map(|task| {
        let feed = feed.clone();
        tokio::spawn(async move {
            let mut indexes = vec![];
            for n in 0..20u8 {
                indexes.push(feed.append(vec![task, n]).await.unwrap());
            }
            indexes
        })
    });
    for (task, indexes) in (0u8..).zip(join_all(writers).await) {
        let indexes = indexes.unwrap();
        assert!(indexes.is_sorted());
        for (n, index) in (0u8..).zip(indexes) {
            assert_eq!(feed.get(index).await.unwrap().unwrap(), vec![task, n]);
        }
    }
    assert_eq!(feed.info().length, 1000);
    assert!(feed.audit().await.unwrap().is_clean());
}

/// Memory that fails when told to.
#[derive(Default)]
struct Failing {
    memory: MemoryStorage,
    fails: AtomicBool,
}

impl Storage for Failing {
    as_in!(memory: read, records, snapshot, close);

    fn commit(&self, writes: Vec<Write>) -> Completion<()> {
        if self.fails.load(Ordering::Relaxed) {
            return Box::pin(async { Err(std::io::Error::from(std::io::ErrorKind::StorageFull).into()) });
        }
        self.memory.commit(writes)
    }
}

#[tokio::test]
async fn a_failed_step_of_any_kind_changes_nothing_and_the_next_one_works() {
    let storage = Arc::new(Failing::default());
    let feed = Feed::create(storage.clone(), SLOT, Identity::writer(pair())).await.unwrap();
    let other = Feed::create(storage.clone(), Slot(1), Identity::writer(KeyPair::from_seed(&[2; 32])));
    let other = other.await.unwrap();
    feed.append_batch(blocks(10)).await.unwrap();
    let snapshot = feed.snapshot().await;

    storage.fails.store(true, Ordering::Relaxed);
    let before = feed.info();
    let full = |error: Error| matches!(error, Error::Storage(StorageError::Io(_)));
    assert!(full(feed.append("more").await.unwrap_err()));
    assert!(full(feed.truncate(3).await.unwrap_err()));
    assert!(full(feed.clear(0..3).await.unwrap_err()));
    let mut batch = Batch::new();
    batch.append(&feed, blocks(1));
    batch.append(&other, blocks(1));
    assert!(full(batch.commit().await.unwrap_err()));
    assert_eq!((feed.info(), other.info().length), (before, 0));
    assert_eq!(feed.get(9).await.unwrap().unwrap(), "block 9");

    storage.fails.store(false, Ordering::Relaxed);
    feed.truncate(3).await.unwrap();
    assert_eq!(feed.append("more").await.unwrap(), 3);
    assert_eq!(snapshot.get(3).await.unwrap().unwrap(), "block 3");
}

#[tokio::test]
async fn a_batch_over_feeds_is_stored_whole_or_not_at_all() {
    let storage = Arc::new(MemoryStorage::new());
    let a = Feed::create(storage.clone(), Slot(1), Identity::writer(pair())).await.unwrap();
    let b = Identity::writer(KeyPair::from_seed(&[2; 32]));
    let b = Feed::create(storage.clone(), Slot(0), b).await.unwrap();
    let reader = Feed::create(storage.clone(), Slot(2), Identity::reader([7; 32].into())).await.unwrap();

    let mut batch = Batch::new();
    batch.append(&a, blocks(3));
    batch.append(&b, blocks(2));
    batch.append(&a, blocks(1));
    batch.put(&reader, "seen", "yes");
    assert_eq!(batch.commit().await.unwrap(), [0..4, 0..2, 0..0]);
    assert_eq!(reader.record("seen").await.unwrap().unwrap(), "yes");
    assert_eq!(a.record("seen").await.unwrap(), None);

    let mut batch = Batch::new();
    batch.append(&a, blocks(3));
    batch.append(&reader, blocks(2));
    let refused = batch.commit().await.unwrap_err();
    assert!(matches!(refused, Error::ApiMisuse(ApiMisuse::NotWritable(_))));
    let (_, elsewhere) = written(0).await;
    let mut batch = Batch::new();
    batch.append(&a, blocks(3));
    batch.append(&elsewhere, blocks(2));
    let refused = batch.commit().await.unwrap_err();
    assert!(matches!(refused, Error::ApiMisuse(ApiMisuse::DifferentStorages)));
    let mut batch = Batch::new();
    batch.append(&a, blocks(3));
    batch.put(&a, vec![0; 2000], "");
    let refused = batch.commit().await.unwrap_err();
    assert!(matches!(refused, Error::ApiMisuse(ApiMisuse::LimitExceeded(_))));
    assert_eq!(a.info().length, 4);
}

#[tokio::test]
async fn batches_over_the_same_feeds_in_any_order_do_not_wait_for_each_other() {
    let storage = Arc::new(MemoryStorage::new());
    let mut feeds = vec![];
    for n in 0..5 {
        let identity = Identity::writer(KeyPair::from_seed(&[n; 32]));
        feeds.push(Feed::create(storage.clone(), Slot(n.into()), identity).await.unwrap());
    }
    let batches = (0..40).map(|n| {
        let mut feeds = feeds.clone();
        feeds.rotate_left(n % 5);
        if n % 2 == 0 {
            feeds.reverse();
        }
        tokio::spawn(async move {
            let mut batch = Batch::new();
            feeds.iter().for_each(|feed| batch.append(feed, blocks(1)));
            batch.commit().await.unwrap();
        })
    });
    join_all(batches).await;
    assert!(feeds.iter().all(|feed| feed.info().length == 40));
}

#[tokio::test]
async fn an_audit_names_what_is_wrong() {
    let (storage, feed) = written(200).await;
    let clean = feed.audit().await.unwrap();
    assert!(clean.is_clean());
    assert_eq!(clean.blocks, 200);
    // 200 = 128 + 64 + 8 blocks: three complete trees.
    assert_eq!(clean.nodes, 127 + 63 + 7);

    type Damage = (Write, Vec<Problem>);
    let damages: Vec<Damage> = vec![
        (Write::Put(Key::Block(SLOT, 70), "another".into()), vec![Problem::WrongBlock(70)]),
        (Write::Delete(Key::Block(SLOT, 199)), vec![Problem::MissingBlock(199)]),
        (Write::Delete(Key::Node(SLOT, 3)), vec![Problem::MissingNode(3)]),
        (
            Write::Put(Key::Node(SLOT, 3), "x".into()),
            vec![Problem::UnreadableNode { index: 3, why: "the message ends too early".into() }],
        ),
    ];
    for (damage, expected) in damages {
        let (storage, feed) = written(200).await;
        storage.commit(vec![damage]).await.unwrap();
        let audit = feed.audit().await.unwrap();
        assert_eq!(audit.problems, expected);
    }

    // A node of the right form with another hash: it fits neither what is below it nor what is above.
    let other = stored(&*storage, Key::Node(SLOT, 1)).await.unwrap();
    storage.commit(vec![Write::Put(Key::Node(SLOT, 5), other)]).await.unwrap();
    let audit = feed.audit().await.unwrap();
    assert_eq!(audit.problem_count, 2);
    assert!(
        audit.problems.contains(&Problem::WrongNode(5)) && audit.problems.contains(&Problem::WrongNode(3))
    );
}

#[tokio::test]
async fn a_step_whose_caller_goes_away_is_finished() {
    let (_, feed) = written(10).await;
    let snapshot = feed.snapshot().await;
    let started = Arc::new(Mutex::new(false));
    let step = {
        let (feed, started) = (feed.clone(), started.clone());
        tokio::spawn(async move {
            *started.lock().unwrap() = true;
            feed.truncate(2).await
        })
    };
    while !*started.lock().unwrap() {
        tokio::task::yield_now().await;
    }
    step.abort();
    drop(step.await);
    feed.append("next").await.unwrap();
    // It was done or not; in neither case is there anything between.
    assert!([(3, 1), (11, 0)].contains(&(feed.info().length, feed.info().fork)));
    assert_eq!(snapshot.get(9).await.unwrap().unwrap(), "block 9");
    assert!(feed.audit().await.unwrap().is_clean());
}
