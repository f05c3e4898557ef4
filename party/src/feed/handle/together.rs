//! Appends of several tasks, stored as one.
//!
//! Each task puts its blocks into a queue and waits for the turn to change the feed. Who gets it takes along
//! what others have put there: one signature, one commit, and, where the storage waits for the disk, one
//! wait. Each task hears of its own blocks, which stay in the order in which the appends were called.

use std::{
    collections::VecDeque,
    future::poll_fn,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Feed,
    commit::{Step, Turn, commit_all},
    encrypted::{HeldKey, Text},
};
use crate::error::{ApiMisuse, Error};

/// The most blocks that are stored as one, beyond those of a single append.
const MAX_BLOCKS: usize = 4096;
/// And the most bytes.
const MAX_BYTES: usize = 4 << 20;

/// The answer to an append.
pub(super) type Reply = oneshot::Sender<Result<Range<u64>, Error>>;

/// Appends that wait for somebody to carry them out.
#[derive(Default)]
pub(super) struct Queue(Mutex<VecDeque<Request>>);

struct Request {
    texts: Vec<Text>,
    reply: Reply,
}

impl Feed {
    /// Adds blocks under one signature and in one commit, all or none, and gives their indexes. Appends from
    /// several tasks take effect in the order of the calls; those that wait at the same time are stored as one.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn append_batch(&self, blocks: Vec<Bytes>) -> Result<Range<u64>, Error> {
        let max = self.max_block();
        if let Some(block) = blocks.iter().find(|block| block.len() > max) {
            return Err(ApiMisuse::BlockTooLarge { len: block.len(), max }.into());
        }
        if blocks.is_empty() {
            let _turn = self.turn().await?;
            let length = self.info().length;
            return Ok(length..length);
        }
        let texts = blocks.into_iter().map(|block| Text { block, key: self.key.clone() }).collect();
        let (reply, mut answer) = oneshot::channel();
        self.inner.appends.lock().push_back(Request { texts, reply });
        let mut turn = tokio::select! {
            biased;
            // A reply is dropped only along with the feed.
            result = &mut answer => return result.unwrap_or(Err(Error::Closed)),
            turn = self.turn() => turn?,
        };
        let result = loop {
            match answer.try_recv() {
                Ok(result) => break result,
                Err(oneshot::error::TryRecvError::Closed) => return Err(Error::Closed),
                Err(oneshot::error::TryRecvError::Empty) => self.append_waiting(&mut turn).await,
            }
        };
        drop(turn);
        // Who appends in a loop may never have to wait for anything. A connection that was told of this stands behind it,
        // where no other thread of the executor can take it from, and would hear of it when all is over.
        if self.demands().is_time_to_give_way() {
            give_way().await;
        }
        result
    }

    /// Carries out some of what waits, the first of it at least. Nothing is taken out of the queue before it is
    /// certain that it will be answered, as whoever does this may go away.
    async fn append_waiting<'f>(&'f self, turn: &mut Turn<'f>) {
        let mut tried = None;
        while let Some(key) = self.inner.appends.first_key().filter(|key| !key.is_tried()) {
            match self.try_key(turn, &key).await {
                Ok(()) => {
                    tried = Some(key);
                    break;
                }
                Err(error) => self.inner.appends.lock().refuse(&key, &error),
            }
        }
        let requests = {
            let state = self.state();
            let fixed = state.verifier.as_ref().map_or(0, |verifier| verifier.prologue_length());
            // Blocks that have to be certain ones may be wrong, which is no fault of the others.
            let is_alone = state.tree.length() < fixed;
            self.inner.appends.lock().take(is_alone, tried.as_ref())
        };
        if requests.is_empty() {
            return;
        }
        let counts: Vec<u64> = requests.iter().map(|request| request.texts.len() as u64).collect();
        let (texts, replies): (Vec<_>, Vec<_>) =
            requests.into_iter().map(|request| (request.texts, request.reply)).unzip();
        match self.grow(turn, texts.into_iter().flatten().collect()) {
            Ok(grown) => {
                let mut at = grown.indexes.start;
                let replies = replies.into_iter().zip(counts).map(|(reply, count)| {
                    let start = at;
                    at = at.saturating_add(count);
                    (reply, start..at)
                });
                let replies = replies.collect();
                let step = Step { feed: self, turn, update: Some(grown.update), deletes: false, replies };
                // Everybody hears of it by the replies.
                let _ = commit_all(vec![step], grown.writes).await;
            }
            Err(error) => replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone())))),
        }
    }
}

/// Lets other tasks go first, on any executor, once.
async fn give_way() {
    let mut has_waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Request {
    /// All blocks of a request came by one handle.
    fn key(&self) -> Option<&Arc<HeldKey>> {
        self.texts.first()?.key.as_ref()
    }
}

impl Queue {
    fn first_key(&self) -> Option<Arc<HeldKey>> {
        let requests = self.lock();
        requests.0.iter().find(|request| !request.reply.is_closed())?.key().cloned()
    }

    fn lock(&self) -> Requests<'_> {
        Requests(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The requests, in the order of the calls.
struct Requests<'a>(MutexGuard<'a, VecDeque<Request>>);

impl Requests<'_> {
    fn push_back(&mut self, request: Request) {
        self.0.push_back(request);
    }

    /// Answers all that came with `key`.
    fn refuse(&mut self, key: &Arc<HeldKey>, error: &Error) {
        for request in std::mem::take(&mut *self.0) {
            if request.key().is_some_and(|held| Arc::ptr_eq(held, key)) {
                let _ = request.reply.send(Err(error.clone()));
            } else {
                self.0.push_back(request);
            }
        }
    }

    /// Takes out the first that somebody waits for, and unless it `is_alone` those after it that go with it: up to
    /// a limit, and neither the ones with a key together with those without, nor any whose key was not tried. Now
    /// only `tried` was, and on a feed without blocks it is the first.
    fn take(&mut self, is_alone: bool, tried: Option<&Arc<HeldKey>>) -> Vec<Request> {
        let mut taken: Vec<Request> = vec![];
        let (mut blocks, mut bytes) = (0usize, 0usize);
        while let Some(next) = self.0.front() {
            if !next.reply.is_closed() {
                blocks = blocks.saturating_add(next.texts.len());
                bytes = bytes.saturating_add(next.texts.iter().map(|text| text.block.len()).sum());
                let is_tried = next
                    .key()
                    .is_none_or(|key| key.is_tried() || tried.is_some_and(|tried| Arc::ptr_eq(key, tried)));
                let fits = taken.first().is_none_or(|first| {
                    let is_alike = first.key().is_some() == next.key().is_some();
                    !is_alone && is_alike && blocks <= MAX_BLOCKS && bytes <= MAX_BYTES
                });
                if !is_tried || !fits {
                    break;
                }
            }
            // Those that nobody waits for any more are let go of.
            taken.extend(self.0.pop_front().filter(|request| !request.reply.is_closed()));
        }
        taken
    }
}
