//! The database of a storage, and when there is one.
//!
//! It goes away while the storage is suspended, and it is closed and opened again when a write has failed in
//! a way that fjall doesn't get over, above all on a full disk. Until then, what is stored is read from the
//! one whose write failed.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::{
    database::{Count, Database, HeldView, Opening, Work},
    folder::Folder,
    guard, journal,
    live::Live,
    options::DiskOptions,
    room::{self, Room},
};
use crate::{
    error::StorageError,
    feed::storage::{Key, Write},
};

/// Makes the [`Live`] of a database that is opened.
pub(super) type MakeLive = Box<dyn Fn() -> Live + Send + Sync>;

/// What the threads of a storage share. One thread changes it, all read.
pub(super) struct Engine {
    path: PathBuf,
    options: DiskOptions,
    make_live: MakeLive,
    room: Mutex<Room>,
    state: RwLock<State>,
}

enum State {
    Open {
        database: Box<Database>,
        folder: Folder,
        generation: u64,
    },
    /// It has failed, and could not be opened again so far.
    Broken {
        folder: Folder,
        commits: u64,
        error: StorageError,
        generation: u64,
    },
    Suspended {
        count: Count,
        generation: u64,
    },
    /// For good.
    Lost(StorageError),
}

/// What was stored at one moment, if the database was not opened again since.
pub(super) struct Held {
    view: HeldView,
    generation: u64,
}

impl Engine {
    /// Opens what is in the folder `path`, or makes it.
    pub(super) fn open(path: &Path, options: DiskOptions, make_live: MakeLive) -> Result<Self, StorageError> {
        let mut folder = Folder::open(path)?;
        let database = open(&mut folder, options, make_live(), None)?;
        let room = Mutex::new(Room::new(path.to_owned(), options.reserve));
        let state = RwLock::new(State::Open { database: Box::new(database), folder, generation: 0 });
        Ok(Self { path: path.to_owned(), options, make_live, room, state })
    }

    /// Runs `read` on the database.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        match &*self.state() {
            State::Open { database, .. } => read(database),
            State::Broken { error, .. } | State::Lost(error) => Err(error.clone()),
            // What waits is only let through when the storage is closed.
            State::Suspended { .. } => Err(StorageError::Closed),
        }
    }

    /// The values of `keys`, as far as [`Database::read`] would go, if it takes no waiting.
    pub(super) fn read_from_memory(&self, keys: &[Key], bytes: usize) -> Option<Vec<Option<bytes::Bytes>>> {
        match &*self.state.try_read().ok()? {
            State::Open { database, .. } => database.read_from_memory(keys, bytes),
            State::Broken { .. } | State::Suspended { .. } | State::Lost(_) => None,
        }
    }

    /// The values of `keys` at the moment of `held`.
    pub(super) fn read_held(
        &self,
        held: &Held,
        keys: &[Key],
    ) -> Result<Vec<Option<bytes::Bytes>>, StorageError> {
        match &*self.state() {
            State::Open { database, generation, .. } if *generation == held.generation => {
                database.read_held(&held.view, keys)
            }
            State::Open { .. } => Err(StorageError::SnapshotLost),
            State::Broken { error, .. } | State::Lost(error) => Err(error.clone()),
            State::Suspended { .. } => Err(StorageError::Closed),
        }
    }

    /// Holds on to what is stored now.
    pub(super) fn hold(&self) -> Result<Held, StorageError> {
        match &*self.state() {
            State::Open { database, generation, .. } => {
                Ok(Held { view: database.hold(), generation: *generation })
            }
            State::Broken { error, .. } | State::Lost(error) => Err(error.clone()),
            State::Suspended { .. } => Err(StorageError::Closed),
        }
    }

    /// Carries out `writes`, which have `bytes` bytes.
    pub(super) fn commit(&self, writes: Vec<Write>, bytes: u64) -> Result<(), StorageError> {
        self.recover()?;
        let frees = writes.iter().any(|write| matches!(write, Write::Delete(_) | Write::Clear(_)));
        let take = || self.read(|database| self.room().take(bytes, database.in_memory(), frees));
        if let Err(error) = take() {
            if self.work() == Work::Nothing {
                return Err(error);
            }
            // What was deleted makes room.
            self.tidy_all();
            take()?;
        }
        let result = self.read(|database| database.commit(writes));
        result.map_err(|error| self.explain(error))
    }

    /// Whether [`tidy_some`](Self::tidy_some) has something to do.
    pub(super) fn work(&self) -> Work {
        match &*self.state() {
            State::Open { database, .. } => database.work(),
            // Or who only reads would not be served again.
            State::Broken { .. } => Work::Retry,
            State::Suspended { .. } | State::Lost(_) => Work::Nothing,
        }
    }

    /// Whether a commit would wait neither for the disk nor for the database.
    pub(super) fn is_calm(&self) -> bool {
        match self.state.try_read().as_deref() {
            Ok(State::Open { database, .. }) => database.is_calm(),
            _ => false,
        }
    }

    /// Does some of what can be done later.
    pub(super) fn tidy_some(&self) {
        if let Err(error) = self.recover_broken().and_then(|()| self.read(Database::tidy_some)) {
            tracing::warn!(%error, "tidying up");
        }
    }

    fn recover_broken(&self) -> Result<(), StorageError> {
        let is_broken = matches!(&*self.state(), State::Broken { .. });
        if is_broken { self.recover() } else { Ok(()) }
    }

    /// Closes the database for a while, and releases the lock.
    pub(super) fn suspend(&self) -> Result<(), StorageError> {
        self.tidy_all();
        let mut state = self.state_mut();
        let lost = || State::Lost(StorageError::Closed);
        match std::mem::replace(&mut *state, lost()) {
            State::Open { database, folder, generation } => {
                let count = database.count();
                let closed = close(database, &folder);
                *state = match count {
                    Ok(count) => State::Suspended { count, generation },
                    Err(error) => State::Lost(error),
                };
                closed
            }
            // The lock is kept: nothing is known of what would be found.
            other => {
                *state = other;
                match &*state {
                    State::Broken { error, .. } | State::Lost(error) => Err(error.clone()),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Takes the lock again and opens the database as it was left.
    pub(super) fn resume(&self) -> Result<(), StorageError> {
        let mut state = self.state_mut();
        let (count, generation) = match &*state {
            State::Suspended { count, generation } => (*count, *generation),
            State::Lost(error) => return Err(error.clone()),
            State::Open { .. } | State::Broken { .. } => return Ok(()),
        };
        let mut folder = Folder::open_again(&self.path)?;
        let database = open(&mut folder, self.options, (self.make_live)(), None)?;
        if database.count()? != count {
            let error = StorageError::ChangedElsewhere { path: self.path.display().to_string() };
            *state = State::Lost(error.clone());
            return Err(error);
        }
        let generation = generation.wrapping_add(1);
        *state = State::Open { database: Box::new(database), folder, generation };
        Ok(())
    }

    /// Ends everything.
    pub(super) fn close(&self) {
        self.tidy_all();
        let mut state = self.state_mut();
        if let State::Open { database, folder, .. } =
            std::mem::replace(&mut *state, State::Lost(StorageError::Closed))
            && let Err(error) = close(database, &folder)
        {
            tracing::warn!(%error, "the store could not be closed properly");
        }
    }

    fn tidy_all(&self) {
        while self.work() != Work::Nothing {
            if let Err(error) = self.read(Database::tidy_some) {
                tracing::warn!(%error, "space could not be given back");
                return;
            }
        }
    }

    /// Opens the database again if it has failed, once there is room on the disk.
    fn recover(&self) -> Result<(), StorageError> {
        match &*self.state() {
            State::Open { database, .. } if database.has_failed() => {}
            State::Broken { .. } => {}
            _ => return Ok(()),
        }
        if self.room().is_full() {
            return Err(room::full());
        }
        tracing::warn!("a write to the disk has failed; the database is opened again");
        let mut state = self.state_mut();
        let (mut folder, commits, generation) =
            match std::mem::replace(&mut *state, State::Lost(StorageError::Closed)) {
                State::Open { database, folder, generation } => {
                    let commits = database.commits();
                    // What goes wrong here comes up again when it is opened.
                    let _ = end(database);
                    (folder, commits, generation)
                }
                State::Broken { folder, commits, generation, .. } => (folder, commits, generation),
                other => {
                    *state = other;
                    return Ok(());
                }
            };
        match open(&mut folder, self.options, (self.make_live)(), Some(commits)) {
            Ok(database) => {
                let generation = generation.wrapping_add(1);
                *state = State::Open { database: Box::new(database), folder, generation };
                Ok(())
            }
            Err(error) => {
                *state = State::Broken { folder, commits, error: error.clone(), generation };
                Err(error)
            }
        }
    }

    /// fjall only says that a write has failed before, when its own thread was the one to find the disk full.
    fn explain(&self, error: StorageError) -> StorageError {
        let has_failed = matches!(&*self.state(), State::Open { database, .. } if database.has_failed());
        let is_plain = matches!(error, StorageError::Database(_));
        if has_failed && is_plain && self.room().is_full() { room::full() } else { error }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn room(&self) -> std::sync::MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the database in `folder`; with `most`, as it was after that many commits.
fn open(
    folder: &mut Folder,
    options: DiskOptions,
    live: Live,
    most: Option<u64>,
) -> Result<Database, StorageError> {
    let least = folder.extent();
    let acknowledged = folder.acknowledged();
    if let Some(extent) = least {
        journal::check(&folder.database(), extent.commits.max(acknowledged.unwrap_or(0)), most)?;
    }
    let (database, blocks) = (folder.database(), folder.blocks());
    let opening = Opening {
        database: &database,
        blocks: &blocks,
        least,
        acknowledged,
        durability: options.durability,
        mark: folder.mark(options.durability)?,
        writer: random()?,
        live: Arc::new(live),
    };
    let database = guard("opening the database", || Database::open(opening))?;
    journal::forget_torn(&folder.database())?;
    // Less was noted before. On a full disk it stays at that.
    if let Err(error) = database.extent().and_then(|extent| folder.set_extent(extent)) {
        tracing::warn!(%error, "how much is stored could not be noted");
    }
    folder.complete()?;
    Ok(database)
}

/// Closes the database, and notes what the next opening has to find, once it is on the disk. Whatever fails
/// here has lost nothing: less is noted then.
fn close(database: Box<Database>, folder: &Folder) -> Result<(), StorageError> {
    // What fails here is read from the journal by the next opening.
    let is_settled = journal::is_long(&folder.database())
        && database.settle().map_err(|error| tracing::warn!(%error, "tables could not be written")).is_ok();
    let commits = database.has_failed().then(|| database.commits());
    let extent = database.extent();
    end(database)?;
    match commits {
        // What was reported as failed must not be there after all.
        Some(commits) => journal::check(&folder.database(), 0, Some(commits)),
        None if is_settled => journal::empty(&folder.database()).and_then(|()| folder.set_extent(extent?)),
        None => folder.set_extent(extent?),
    }
}

/// Ends the threads of a database and writes its journal to the disk.
fn end(database: Box<Database>) -> Result<(), StorageError> {
    guard("closing the database", || {
        drop(database);
        Ok(())
    })
}

#[allow(clippy::disallowed_methods)] // It tells stores apart that were copied; no one has to repeat it.
fn random() -> Result<u64, StorageError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| StorageError::Database(error.to_string()))?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::feed::storage::Slot;

    const HEAD: Key = Key::Head(Slot(3));

    fn put(value: &'static str) -> Vec<Write> {
        vec![Write::Put(HEAD, Bytes::from_static(value.as_bytes()))]
    }

    fn get(engine: &Engine) -> Result<Option<Bytes>, StorageError> {
        Ok(engine.read(|database| database.read(&[HEAD], usize::MAX))?.remove(0))
    }

    #[test]
    fn a_database_that_has_failed_is_read_until_it_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), DiskOptions::default(), Box::new(|| Live::new(|| ()))).unwrap();
        engine.commit(put("one"), 3).unwrap();
        let held = engine.hold().unwrap();
        let fail = |database: &Database| {
            database.fail();
            Ok(())
        };
        engine.read(fail).unwrap();
        assert_eq!(get(&engine).unwrap().as_deref(), Some(&b"one"[..]));
        assert!(engine.read_held(&held, &[HEAD]).is_ok());

        // It can't be opened at first.
        let (there, away) = (dir.path().join("db"), dir.path().join("away"));
        std::fs::rename(&there, &away).unwrap();
        assert!(matches!(engine.commit(put("two"), 3), Err(StorageError::Damaged { .. })));
        assert!(matches!(get(&engine), Err(StorageError::Damaged { .. })));
        assert_eq!(engine.work(), Work::Retry);
        engine.tidy_some();
        assert_eq!(engine.work(), Work::Retry);
        std::fs::rename(&away, &there).unwrap();
        engine.tidy_some();
        assert_eq!(get(&engine).unwrap().as_deref(), Some(&b"one"[..]));
        assert!(matches!(engine.read_held(&held, &[HEAD]), Err(StorageError::SnapshotLost)));
        engine.commit(put("two"), 3).unwrap();
        assert_eq!(get(&engine).unwrap().as_deref(), Some(&b"two"[..]));
        engine.close();
        assert!(matches!(get(&engine), Err(StorageError::Closed)));
    }
}
