//! A storage on disk: small values in fjall, blocks in files beside it, behind threads of its own.
//!
//! # What lies where
//!
//! [fjall] is a log-structured database with one journal and atomic batches over several keyspaces. It
//! keeps records, heads and bitfield pages in one, tree nodes and the places of blocks in another. Blocks of
//! 128 bytes and more are appended to files that nothing rewrites. A commit first hands its blocks to the
//! operating system, then one batch that names them; so all of it is there after a `kill -9`, or none. How all of
//! it is laid out stands in `protocol-spec/09-storage.md`.
//!
//! One thread commits, in the order of the calls, and joins those that wait into one batch. Two threads
//! read. A pool of our own rather than the runtime's, so that the storage works under any executor, that
//! reads don't queue behind other blocking work, and that a commit ends when its runtime has gone. What takes less than
//! to wake a thread is done by the caller: a read from memory, and a commit of a block or two while nothing is before
//! it (`writer.rs`).
//!
//! # What is promised
//!
//! - **A commit that has completed is there** after a `kill -9`, and with [`Durability::Power`] after a loss of
//!   power, too: the block files are synced before the journal that names them is written, and the journal before
//!   the commit completes. Commits that wait go along with one sync. See [`Durability`].
//! - **It is there as a whole, or not at all.**
//! - **What is read is what was written**, or an error. Everything has a checksum. Files that are missing, cut or
//!   changed are [`StorageError::Damaged`], which names them; nothing is made anew in their place. That the journal
//!   has lost acknowledged commits is noticed, as their number is noted outside of it (`mark.rs`), on Linux until
//!   the machine is started again, under [`Durability::Power`] always. Elsewhere it is noticed after a clean end.
//! - **Space comes back**: that of blocks which were deleted, overwritten, cleared or purged is given to the file
//!   system in whole pages, after a pause or when the storage is closed, as holes in the block files. Snapshots keep what
//!   they may read. Where no holes can be made (other systems than Linux, some file systems), a file is removed
//!   once nothing in it is left.
//! - **A deletion of any size is one step** and takes little memory: its keys are gone at once, and taken out bit by bit.
//! - **A full disk** fails commits with [`StorageError::Io`] of the kind `StorageFull`. What is stored stays readable,
//!   deletions go on for longer than appends, and when there is room it works again. Some room is kept
//!   ([`DiskOptions::reserve`]), so that it is our commit that fails, and not the database. If that does fail, it
//!   is opened again before the next commit, and snapshots from before give [`StorageError::SnapshotLost`].
//! - **One process has the folder.** [`suspend`](Storage::suspend) lets go of it for a while. If somebody has written to
//!   it until [`resume`](Storage::resume), everything fails with [`StorageError::ChangedElsewhere`].
//!
//! # Why, in figures
//!
//! `benches/databases` gives three databases what a store writes, with the blocks in the database and with the
//! blocks in a file beside it; nobody waits for the disk, but a commit must survive the end of the process. Two
//! cores, hardly busy otherwise; take the ratios, not the numbers. Thousands of blocks a second in batches, of
//! commits of one block, of random reads, and of commits to 10,000 feeds in turn; milliseconds to open 30,000
//! commits after a clean end and 20,000 after an abort; disk space for each 100 bytes of blocks of 1 KiB.
//!
//! | database | blocks in | 128 x 64 B | 128 x 1 KiB | 16 x 64 KiB | singly | read | feeds | closed | aborted | space |
//! |---|---|---|---|---|---|---|---|---|---|---|
//! | fjall 3.1.13 | database | 845 | 267 | 3.5 | 89 | 160 | 205 | 149 | 132 | 132 |
//! | | file | 1861 | 693 | 5.4 | 102 | 446 | 156 | 143 | 118 | 111 |
//! | redb 4.4.0 | database | 476 | 111 | 3.6 | 12 | 193 | 18 | 0 | 43 | 213 |
//! | | file | 1098 | 710 | 12.5 | 21 | 404 | 18 | 0 | 3 | 112 |
//! | rusqlite 0.41.1 | database | 255 | 56 | 4.0 | 13 | 38 | 35 | 0 | 1 | 485 |
//! | | file | 516 | 499 | 5.0 | 30 | 126 | 21 | 1 | 1 | 131 |
//!
//! None of them lost a commit. Blocks of 64 KiB are bound by the disk's cache there. Large blocks don't belong into any of
//! the three; with blocks in files, fjall is three to eight times ahead where each commit is awaited, which is what
//! an app does that appends what a user does. It is pure Rust without `unsafe` of its own, on `lsm-tree`, which has
//! some; redb has some, too, and rusqlite is bindings to C. It builds 44 crates, where redb builds 2.
//!
//! What spoke against it, and what was done: **opening** reads the journal, at about 1.2 µs for each entry, so
//! neighbours share an entry (`row.rs`), and a store that is closed leaves an empty journal (`journal.rs`): a store
//! with a feed of 1,000,000 blocks opens in the 2.5 ms that one of 1,000 takes. After a kill it is as much as the
//! journal holds, 64 MB at most. **A damaged journal** is cut without a word: it is looked through before.
//! **A failed write** ends all writing: the database is closed and opened again, when there is room.
//!
//! A thread takes longer to wake than most of what it is woken for takes. So one that has read a single block lingers a
//! moment before it sleeps (`queue.rs`), and who reads in order is read ahead for (`ahead.rs`).
//! Keys that are asked for together are read together: a row once for all that is asked of it, rows that follow each
//! other as a range, blocks that lie together with one call. Rows that were read stay in memory (`database/rows.rs`), 4 MiB
//! of them, and what is asked for next is mostly there: it is answered without a change of thread.
//!
//! The limit of appends that are awaited one by one is the signature and the hash, some 20 µs of the 30 that one
//! takes; that of batches is hashing, 0.7 µs for a block of 1 KiB of the 2.5. `benches/README.md` compares with Node.
//!
//! The number of commits that is noted beside the database costs a write of 33 bytes in place, less than a
//! microsecond; the look at the journal about a twelfth of what opening one takes. Ten million blocks are cleared in
//! 5 ms and taken out in 2 s, with 13 MB of memory.
//!
//! # Limits
//!
//! A folder that is copied while the storage is open is a damaged store; close or suspend it first. Deleted blocks
//! that are shorter than 128 bytes are taken out by the database, when it next merges the table that they are in.
//! After a loss of power, [`Durability::Process`] may leave the last blocks of a feed named but unreadable.

mod ahead;
mod blocks;
mod database;
mod engine;
mod folder;
mod journal;
mod live;
mod mark;
mod options;
mod queue;
mod room;
mod row;
mod tables;
mod writer;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    thread,
};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

pub(super) use self::folder::sync_folder;
pub use self::options::{DiskOptions, Durability};
use self::{
    ahead::{ReadAhead, Wanted},
    engine::{Engine, Held},
    live::Live,
    queue::Queue,
    writer::{Commit, Writer},
};
use crate::{
    error::StorageError,
    feed::storage::{Completion, Key, Slot, Snapshot, Storage, Write},
};

/// Threads that read. Two, so that a read that waits for the disk doesn't hold up those from memory.
const READERS: usize = 2;

/// Feeds in a folder.
///
/// Reads and commits are carried out by threads of the storage's own, so they neither block a task nor need
/// one to make progress, and work from any executor or none. Small commits are carried out before the call returns, as long
/// as that takes some tens of microseconds. Close it before you open the folder again: when
/// it is merely dropped, its lock is released a little later.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use party::{feed::storage::{Key, Storage, Write}, store::disk::DiskStorage};
///
/// let dir = tempfile::tempdir()?;
/// let storage = DiskStorage::open(dir.path()).await?;
/// let key = Key::Record(b"motto".to_vec());
/// storage.commit(vec![Write::Put(key.clone(), "append only".into())]).await?;
/// storage.close().await?;
///
/// let storage = DiskStorage::open(dir.path()).await?;
/// assert_eq!(storage.read(vec![key]).await?, [Some("append only".into())]);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DiskStorage {
    reads: Arc<Queue<Read>>,
    writer: Arc<Writer>,
    ahead: Arc<ReadAhead>,
    engine: Arc<Engine>,
    /// True once the threads have ended and the lock is released.
    ended: watch::Receiver<bool>,
}

type Reply<T> = oneshot::Sender<Result<T, StorageError>>;

enum Read {
    /// Up to the block with which they have so many bytes.
    Values(Vec<Key>, usize, Reply<Vec<Option<Bytes>>>),
    /// A block, and so many of those that follow, unless something has changed by then.
    Block {
        slot: Slot,
        index: u64,
        ahead: usize,
        changes: u64,
        reply: Reply<Vec<Option<Bytes>>>,
    },
    At(Arc<Held>, Vec<Key>, Reply<Vec<Option<Bytes>>>),
    Records(Vec<u8>, Reply<Vec<(Vec<u8>, Bytes)>>),
}

/// What was stored at one moment.
struct HeldSnapshot {
    reads: Arc<Queue<Read>>,
    held: Arc<Held>,
}

impl Snapshot for HeldSnapshot {
    fn read(&self, keys: Vec<Key>) -> Completion<Vec<Option<Bytes>>> {
        submit(&self.reads, |reply| Read::At(self.held.clone(), keys, reply))
    }
}

impl DiskStorage {
    /// Opens the storage in the folder `path`, which is made if there is none.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if it is open already, here or in another process;
    /// [`StorageError::NotAStore`] for a folder with other files; [`StorageError::UnknownFormat`] for a later
    /// format; [`StorageError::Damaged`] if something of it is missing or isn't what was written;
    /// [`StorageError::Io`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::open_with(path, DiskOptions::default()).await
    }

    /// Opens the storage in the folder `path` in another way than the usual.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(path: impl AsRef<Path>, options: DiskOptions) -> Result<Self, StorageError> {
        let path = std::path::absolute(path)?;
        // If nobody waits any more, what was opened is closed by being dropped.
        run("party-store-open", move || {
            let commits = Arc::new(Queue::new());
            let queue = commits.clone();
            let make_live = move || {
                let queue = queue.clone();
                Live::new(move || {
                    queue.push(Commit::Wake);
                })
            };
            start(Engine::open(&path, options, Box::new(make_live))?, commits)
        })
        .await
    }
}

impl DiskStorage {
    /// What is in memory is answered at once: to change to another thread takes longer than to look.
    fn in_memory(&self, keys: &[Key], bytes: usize) -> Option<Vec<Option<Bytes>>> {
        if self.reads.is_closed() {
            return None;
        }
        self.engine.read_from_memory(keys, bytes)
    }
}

impl Storage for DiskStorage {
    fn read(&self, keys: Vec<Key>) -> Completion<Vec<Option<Bytes>>> {
        let [Key::Block(slot, index)] = *keys.as_slice() else {
            return self.read_up_to(keys, usize::MAX);
        };
        let wanted = self.ahead.ask(slot, index);
        match wanted {
            Wanted::Here(_) if self.reads.is_closed() => Box::pin(async { Err(StorageError::Closed) }),
            Wanted::Here(block) => Box::pin(std::future::ready(Ok(vec![Some(block)]))),
            Wanted::Read { ahead, changes } => match self.in_memory(&keys, usize::MAX) {
                Some(values) => Box::pin(std::future::ready(Ok(values))),
                None => submit(&self.reads, |reply| Read::Block { slot, index, ahead, changes, reply }),
            },
        }
    }

    fn read_up_to(&self, keys: Vec<Key>, bytes: usize) -> Completion<Vec<Option<Bytes>>> {
        match self.in_memory(&keys, bytes) {
            Some(values) => Box::pin(std::future::ready(Ok(values))),
            None => submit(&self.reads, |reply| Read::Values(keys, bytes, reply)),
        }
    }

    fn records(&self, prefix: Vec<u8>) -> Completion<Vec<(Vec<u8>, Bytes)>> {
        submit(&self.reads, |reply| Read::Records(prefix, reply))
    }

    fn commit(&self, writes: Vec<Write>) -> Completion<()> {
        // Before it is joined with others, which should not fail along with it.
        if let Err(error) = database::check(&writes) {
            return Box::pin(async { Err(error) });
        }
        self.writer.commit(writes)
    }

    fn snapshot(&self) -> Completion<Arc<dyn Snapshot>> {
        let taken = self.writer.submit(Commit::Snapshot);
        let reads = self.reads.clone();
        Box::pin(async move {
            let held = Arc::new(taken.await?);
            Ok(Arc::new(HeldSnapshot { reads, held }) as Arc<dyn Snapshot>)
        })
    }

    fn suspend(&self) -> Completion<()> {
        self.writer.submit(Commit::Suspend)
    }

    fn resume(&self) -> Completion<()> {
        self.writer.submit(Commit::Resume)
    }

    fn close(&self) -> Completion<()> {
        self.writer.close();
        self.reads.close();
        let mut ended = self.ended.clone();
        Box::pin(async move {
            // An error says that the thread is gone, and the lock with it.
            let _ = ended.wait_for(|ended| *ended).await;
            Ok(())
        })
    }
}

impl Drop for DiskStorage {
    fn drop(&mut self) {
        self.writer.close();
        self.reads.close();
    }
}

impl fmt::Debug for DiskStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStorage").finish_non_exhaustive()
    }
}

/// Starts the threads: one that commits, and ends all when the storage is closed, and those that read.
fn start(engine: Engine, commits: Arc<Queue<Commit>>) -> Result<DiskStorage, StorageError> {
    let reads = Arc::new(Queue::new());
    let (has_ended, ended) = watch::channel(false);
    let ahead = Arc::new(ReadAhead::default());
    let engine = Arc::new(engine);
    let writer = Arc::new(Writer::new(commits, reads.clone(), engine.clone(), ahead.clone()));
    // Made first: if a thread can't be started, dropping it ends those that were.
    let storage = DiskStorage {
        reads: reads.clone(),
        writer: writer.clone(),
        ahead: ahead.clone(),
        engine: engine.clone(),
        ended,
    };
    let mut readers = Vec::with_capacity(READERS);
    for _ in 0..READERS {
        let (reads, engine, ahead) = (reads.clone(), engine.clone(), ahead.clone());
        readers.push(spawn("party-store-read", move || serve_reads(&reads, &engine, &ahead))?);
    }
    spawn("party-store-write", move || {
        let turn = writer.serve();
        for reader in readers {
            let _ = reader.join();
        }
        let closed = guard("closing the database", || {
            engine.close();
            Ok(())
        });
        if let Err(error) = closed {
            tracing::warn!(%error, "the store could not be closed properly");
        }
        drop(turn);
        has_ended.send_replace(true);
    })?;
    Ok(storage)
}

fn serve_reads(reads: &Queue<Read>, engine: &Engine, read_ahead: &ReadAhead) {
    // Who gets one block gets another as soon as it has that; who is served many at a time has enough to do.
    let mut is_soon = false;
    while let Some(read) = if is_soon { reads.pop_soon() } else { reads.pop() } {
        is_soon = matches!(read, Read::Block { .. });
        // Whoever asked may have gone; that is no error.
        match read {
            Read::Values(keys, bytes, reply) => {
                let _ = reply.send(guard("a read", || engine.read(|database| database.read(&keys, bytes))));
            }
            Read::Block { slot, index, ahead, changes, reply } => {
                let value = guard("a read", || {
                    let (block, more) = engine.read(|database| database.read_run(slot, index, ahead))?;
                    read_ahead.keep(slot, index.saturating_add(1), more, changes);
                    Ok(vec![block])
                });
                let _ = reply.send(value);
            }
            Read::At(held, keys, reply) => {
                let values = guard("a read", || engine.read_held(&held, &keys));
                // Before the answer, so that who drops the snapshot then is the last to hold it.
                drop(held);
                let _ = reply.send(values);
            }
            Read::Records(prefix, reply) => {
                let _ = reply.send(guard("a read", || engine.read(|database| database.records(&prefix))));
            }
        }
    }
}

fn submit<T: Send + 'static, J>(queue: &Queue<J>, job: impl FnOnce(Reply<T>) -> J) -> Completion<T> {
    let (reply, result) = oneshot::channel();
    if queue.push(job(reply)) {
        Box::pin(receive(result))
    } else {
        Box::pin(async { Err(StorageError::Closed) })
    }
}

async fn receive<T>(result: oneshot::Receiver<Result<T, StorageError>>) -> Result<T, StorageError> {
    // A reply is always sent, unless the thread is gone.
    result.await.unwrap_or(Err(StorageError::Closed))
}

/// Damaged files make the database panic here and there; that is one more way to say so.
fn guard<T>(what: &str, run: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(StorageError::Damaged { what: format!("{what} failed: {message}") })
    })
}

/// Runs what blocks on a thread of its own, for what happens too rarely to keep one.
pub(super) async fn run<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let (reply, result) = oneshot::channel();
    let what = name.to_owned();
    spawn(name, move || {
        let _ = reply.send(guard(&what, run));
    })?;
    receive(result).await
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>, StorageError> {
    Ok(thread::Builder::new().name(name.into()).spawn(run)?)
}
