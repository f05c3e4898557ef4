//! The databases, each set up so that a commit survives the end of the process, and waits for no disk.

use std::{fs::File, path::Path};

use anyhow::{Result, bail};
use redb::{ReadableDatabase as _, StorageBackend};

/// A key and its value.
pub type Write = (Vec<u8>, Vec<u8>);

/// What a store asks of a database.
pub trait Engine {
    /// Carries out all of `writes` or none.
    fn commit(&mut self, writes: &[Write]) -> Result<()>;
    /// The value under `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Ends in order.
    fn close(&mut self) -> Result<()>;
}

/// All of them.
pub const NAMES: [&str; 3] = ["fjall", "redb", "rusqlite"];

/// Opens the database `name` in `dir`.
pub fn open(name: &str, dir: &Path) -> Result<Box<dyn Engine>> {
    Ok(match name {
        "fjall" => Box::new(Fjall::open(dir)?),
        "redb" => Box::new(Redb::open(dir)?),
        "rusqlite" => Box::new(Sqlite::open(dir)?),
        _ => bail!("no such database"),
    })
}

struct Fjall {
    database: Option<fjall::Database>,
    keyspace: Option<fjall::Keyspace>,
}

impl Fjall {
    fn open(dir: &Path) -> Result<Self> {
        let database = fjall::Database::builder(dir.join("fjall"))
            .max_journaling_size(64 << 20)
            .worker_threads(1)
            .manual_journal_persist(true)
            .open()?;
        let keyspace = database.keyspace("all", || {
            fjall::KeyspaceCreateOptions::default().expect_point_read_hits(true).max_memtable_size(16 << 20)
        })?;
        Ok(Self { database: Some(database), keyspace: Some(keyspace) })
    }
}

impl Engine for Fjall {
    fn commit(&mut self, writes: &[Write]) -> Result<()> {
        let (Some(database), Some(keyspace)) = (&self.database, &self.keyspace) else { bail!("closed") };
        let mut batch = fjall::OwnedWriteBatch::with_capacity(database.clone(), writes.len())
            .durability(Some(fjall::PersistMode::Buffer));
        for (key, value) in writes {
            batch.insert(keyspace, key.as_slice(), value.as_slice());
        }
        Ok(batch.commit()?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(keyspace) = &self.keyspace else { bail!("closed") };
        Ok(keyspace.get(key)?.map(|value| value.to_vec()))
    }

    fn close(&mut self) -> Result<()> {
        self.keyspace = None;
        self.database = None;
        Ok(())
    }
}

const TABLE: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("all");

struct Redb(Option<redb::Database>);

/// Hands everything to the operating system and waits for nothing.
#[derive(Debug)]
struct Unsynced(redb::backends::FileBackend);

impl StorageBackend for Unsynced {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> std::io::Result<()> {
        self.0.close()
    }
}

impl Redb {
    fn open(dir: &Path) -> Result<Self> {
        let file =
            File::options().create(true).truncate(false).read(true).write(true).open(dir.join("redb"))?;
        let backend = Unsynced(redb::backends::FileBackend::new(file)?);
        let database = redb::Database::builder().set_cache_size(64 << 20).create_with_backend(backend)?;
        let transaction = database.begin_write()?;
        transaction.open_table(TABLE)?;
        transaction.commit()?;
        Ok(Self(Some(database)))
    }
}

impl Engine for Redb {
    fn commit(&mut self, writes: &[Write]) -> Result<()> {
        let Some(database) = &self.0 else { bail!("closed") };
        let transaction = database.begin_write()?;
        let mut table = transaction.open_table(TABLE)?;
        for (key, value) in writes {
            table.insert(key.as_slice(), value.as_slice())?;
        }
        drop(table);
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(database) = &self.0 else { bail!("closed") };
        let table = database.begin_read()?.open_table(TABLE)?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    fn close(&mut self) -> Result<()> {
        self.0 = None;
        Ok(())
    }
}

struct Sqlite(Option<rusqlite::Connection>);

impl Sqlite {
    fn open(dir: &Path) -> Result<Self> {
        let connection = rusqlite::Connection::open(dir.join("sqlite"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.pragma_update(None, "cache_size", -65_536)?;
        connection.execute("CREATE TABLE IF NOT EXISTS t (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID", [])?;
        Ok(Self(Some(connection)))
    }
}

impl Engine for Sqlite {
    fn commit(&mut self, writes: &[Write]) -> Result<()> {
        let Some(connection) = &mut self.0 else { bail!("closed") };
        let transaction = connection.transaction()?;
        let mut statement = transaction.prepare_cached("INSERT OR REPLACE INTO t VALUES (?1, ?2)")?;
        for write in writes {
            statement.execute((&write.0, &write.1))?;
        }
        drop(statement);
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(connection) = &self.0 else { bail!("closed") };
        let mut statement = connection.prepare_cached("SELECT v FROM t WHERE k = ?1")?;
        let mut rows = statement.query([key])?;
        Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
    }

    fn close(&mut self) -> Result<()> {
        self.0 = None;
        Ok(())
    }
}
