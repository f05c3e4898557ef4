//! Appends of many tasks to one feed, which are stored as one.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use crate::common::storage::as_in;
use bytes::Bytes;
use futures_util::{FutureExt as _, future::join_all};
use party::{
    error::{ApiMisuse, Error, StorageError},
    feed::{
        Feed, Identity,
        memory::MemoryStorage,
        storage::{Completion, Slot, Storage, Write},
    },
    key::KeyPair,
    limits::Limits,
};
use tokio::sync::oneshot;

/// Memory whose commits wait until they are let through, or fail.
#[derive(Default)]
struct Slow {
    memory: Arc<MemoryStorage>,
    waiting: Mutex<VecDeque<oneshot::Sender<bool>>>,
    is_slow: Mutex<bool>,
}

impl Slow {
    /// Lets the commits through that wait, and gives how many there were.
    fn let_through(&self, succeed: bool) -> usize {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap());
        let count = waiting.len();
        for commit in waiting {
            let _ = commit.send(succeed);
        }
        count
    }
}

impl Storage for Slow {
    as_in!(memory: read, records, snapshot, close);

    fn commit(&self, writes: Vec<Write>) -> Completion<()> {
        if !*self.is_slow.lock().unwrap() {
            return self.memory.commit(writes);
        }
        let (through, wait) = oneshot::channel();
        self.waiting.lock().unwrap().push_back(through);
        let memory = self.memory.clone();
        let commit = tokio::spawn(async move {
            match wait.await {
                Ok(true) => memory.commit(writes).await,
                _ => Err(StorageError::Database("the disk has failed".into())),
            }
        });
        Box::pin(async move { commit.await.unwrap_or(Err(StorageError::Closed)) })
    }
}

async fn slow_feed() -> (Arc<Slow>, Feed) {
    let storage = Arc::new(Slow::default());
    let identity = Identity::writer(KeyPair::from_seed(&[1; 32]));
    let feed = Feed::create(storage.clone(), Slot(0), identity).await.unwrap();
    *storage.is_slow.lock().unwrap() = true;
    (storage, feed)
}

/// Lets everybody go on until nobody can.
async fn rest() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

type Append = tokio::task::JoinHandle<Result<std::ops::Range<u64>, Error>>;

fn append(feed: &Feed, blocks: &[&'static str]) -> Append {
    let (feed, blocks) = (feed.clone(), blocks.iter().map(|block| Bytes::from(*block)).collect());
    tokio::spawn(async move { feed.append_batch(blocks).await })
}

#[tokio::test]
async fn appends_that_wait_for_a_commit_are_stored_by_the_next_one() {
    let (storage, feed) = slow_feed().await;
    let first = append(&feed, &["first"]);
    rest().await;
    let others: Vec<Append> = (0..50).map(|_| append(&feed, &["a", "b"])).collect();
    rest().await;
    assert_eq!(storage.let_through(true), 1);
    assert_eq!(first.await.unwrap().unwrap(), 0..1);
    rest().await;
    assert_eq!(storage.let_through(true), 1);
    for (n, append) in (0..).zip(join_all(others).await) {
        assert_eq!(append.unwrap().unwrap(), 1 + 2 * n..3 + 2 * n);
    }
    assert_eq!(feed.get(100).await.unwrap().unwrap(), "b");
    assert!(feed.audit().await.unwrap().is_clean());
}

#[tokio::test]
async fn when_the_commit_fails_all_of_them_hear_of_it_and_nothing_is_there() {
    let (storage, feed) = slow_feed().await;
    let first = append(&feed, &["first"]);
    rest().await;
    let others: Vec<Append> = (0..5).map(|_| append(&feed, &["a"])).collect();
    rest().await;
    storage.let_through(false);
    assert!(matches!(first.await.unwrap(), Err(Error::Storage(StorageError::Database(_)))));
    rest().await;
    storage.let_through(false);
    for append in join_all(others).await {
        assert!(matches!(append.unwrap(), Err(Error::Storage(StorageError::Database(_)))));
    }
    assert_eq!(feed.info().length, 0);
    let next = append(&feed, &["next"]);
    rest().await;
    storage.let_through(true);
    assert_eq!(next.await.unwrap().unwrap(), 0..1);
}

#[tokio::test]
async fn who_goes_away_while_storing_for_others_leaves_them_nothing_to_miss() {
    let (storage, feed) = slow_feed().await;
    let first = append(&feed, &["first"]);
    rest().await;
    let leader = append(&feed, &["leader"]);
    rest().await;
    let follower = append(&feed, &["follower"]);
    let gone = append(&feed, &["gone before"]);
    rest().await;
    gone.abort();
    rest().await;
    storage.let_through(true);
    first.await.unwrap().unwrap();
    rest().await;
    // The commit of the leader and the follower is on its way.
    leader.abort();
    rest().await;
    assert_eq!(storage.let_through(true), 1);
    assert_eq!(follower.await.unwrap().unwrap(), 2..3);
    assert_eq!(feed.get(1).await.unwrap().unwrap(), "leader");
    assert_eq!(feed.info().length, 3);
}

#[tokio::test]
async fn a_wrong_key_is_the_error_of_who_has_it_alone() {
    let (storage, feed) = slow_feed().await;
    *storage.is_slow.lock().unwrap() = false;
    let (right, wrong) = (feed.with_encryption([7; 32]), feed.with_encryption([8; 32]));
    let again = feed.with_encryption([7; 32]);
    right.append("sealed").await.unwrap();
    *storage.is_slow.lock().unwrap() = true;
    let first = append(&right, &["first"]);
    rest().await;
    let appends = [&right, &wrong, &feed, &again, &wrong].map(|handle| append(handle, &["x"]));
    rest().await;
    let first_through = storage.let_through(true);
    first.await.unwrap().unwrap();
    let mut commits = first_through;
    for _ in 0..5 {
        rest().await;
        commits += storage.let_through(true);
    }
    let [a, b, c, d, e] = appends.map(|append| append.now_or_never().expect("it has ended").unwrap());
    assert_eq!((a.unwrap(), d.unwrap()), (2..3, 3..4));
    for refused in [b, e] {
        assert!(matches!(refused, Err(Error::ApiMisuse(ApiMisuse::WrongEncryptionKey { .. }))));
    }
    assert!(matches!(c, Err(Error::ApiMisuse(ApiMisuse::EncryptionKeyMissing(_)))));
    assert!(commits <= 4, "{commits}");
    assert_eq!(right.get(3).await.unwrap().unwrap(), "x");
}

#[tokio::test]
async fn the_first_sealed_block_and_one_in_the_clear_do_not_come_together() {
    let (storage, feed) = slow_feed().await;
    let sealed = feed.with_encryption([7; 32]);
    let first = append(&sealed, &["first"]);
    rest().await;
    let clear = append(&feed, &["in the clear"]);
    let second = append(&sealed, &["second"]);
    rest().await;
    for _ in 0..4 {
        storage.let_through(true);
        rest().await;
    }
    assert_eq!(first.await.unwrap().unwrap(), 0..1);
    assert!(matches!(clear.await.unwrap(), Err(Error::ApiMisuse(ApiMisuse::EncryptionKeyMissing(_)))));
    assert_eq!(second.await.unwrap().unwrap(), 1..2);
}

#[tokio::test]
async fn a_large_append_does_not_wait_for_small_ones_and_none_is_left_out() {
    let (storage, feed) = slow_feed().await;
    let first = append(&feed, &["first"]);
    rest().await;
    let large = Bytes::from(vec![7; Limits::default().max_block]);
    let appends: Vec<_> = (0..4)
        .map(|_| {
            let (feed, large) = (feed.clone(), large.clone());
            tokio::spawn(async move { feed.append(large).await })
        })
        .collect();
    let empty = append(&feed, &[]);
    rest().await;
    for _ in 0..6 {
        storage.let_through(true);
        rest().await;
    }
    first.await.unwrap().unwrap();
    let indexes: Vec<u64> = join_all(appends).await.into_iter().map(|it| it.unwrap().unwrap()).collect();
    assert_eq!(indexes, [1, 2, 3, 4]);
    assert!(empty.await.unwrap().unwrap().is_empty());
}

#[tokio::test]
async fn the_first_block_decides_on_the_key() {
    for at_once in [true, false] {
        let (storage, feed) = slow_feed().await;
        let (one, other) = (feed.with_encryption([7; 32]), feed.with_encryption([8; 32]));
        // The other handle has looked at the feed when nothing was in it.
        let empty = append(&other, &[]);
        rest().await;
        empty.await.unwrap().unwrap();
        let (first, second) = if at_once {
            (append(&one, &["first"]), append(&other, &["second"]))
        } else {
            let first = append(&one, &["first"]);
            rest().await;
            (first, append(&other, &["second"]))
        };
        for _ in 0..3 {
            rest().await;
            storage.let_through(true);
        }
        assert_eq!(first.await.unwrap().unwrap(), 0..1);
        let refused = second.await.unwrap();
        assert!(
            matches!(refused, Err(Error::ApiMisuse(ApiMisuse::WrongEncryptionKey { .. }))),
            "{refused:?}"
        );

        let mut batch = party::feed::Batch::new();
        let (_, fresh) = slow_feed().await;
        batch.append(&fresh.with_encryption([7; 32]), ["first".into()]);
        batch.append(&fresh.with_encryption([7; 32]), ["second".into()]);
        batch.append(&fresh.with_encryption([8; 32]), ["third".into()]);
        let refused = batch.commit().await;
        assert!(
            matches!(refused, Err(Error::ApiMisuse(ApiMisuse::WrongEncryptionKey { .. }))),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn who_appends_in_a_loop_lets_those_hear_of_it_who_are_told() {
    let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), Identity::writer(KeyPair::generate()))
        .await
        .unwrap();
    let heard = Arc::new(Mutex::new(vec![]));
    let listener = tokio::spawn({
        let (feed, heard, mut changes) = (feed.clone(), heard.clone(), feed.subscribe());
        async move {
            while feed.info().length < 64 {
                changes.changed().await;
                heard.lock().unwrap().push(feed.info().length);
            }
        }
    });
    // Nothing here has to wait, and there is one thread for both.
    for n in 0..64 {
        feed.append(format!("{n}")).await.unwrap();
    }
    listener.await.unwrap();
    let heard = heard.lock().unwrap();
    // Often enough to have something to do meanwhile, and not each time.
    assert!((4..=32).contains(&heard.len()), "it has heard of the lengths {heard:?}");
}
