//! redb: the default store. One file of copy-on-write pages.
//!
//! Each commit is durable by itself and leaves the allocator's state on disk, so that opening after a crash does not read the whole
//! file. redb checks pages only when it repairs a file; each value carries a checksum of its own.

use super::{Checkpoint, Pin, Result, Rows, Size, Store, Table, checksum};
use crate::types::Fault;
use bytes::Bytes;
use parking_lot::RwLock;
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::{
    fmt::Display,
    ops::{Bound, ControlFlow},
    path::Path,
    sync::Arc,
};

type Raw = TableDefinition<'static, &'static [u8], &'static [u8]>;
type View = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// What the store counts for itself.
const COUNTS: TableDefinition<'static, &'static str, u64> = TableDefinition::new("counts");
const USED_BYTES: &str = "used_bytes";
/// What a row takes in its page beside key, value and checksum, about.
const ROW_BYTES: u64 = 16;

fn definition(table: Table) -> Raw {
    TableDefinition::new(match table {
        Table::Meta => "meta",
        Table::Versions => "versions",
        Table::Leases => "leases",
        Table::Members => "members",
        Table::Alarms => "alarms",
        Table::Auth => "auth",
    })
}

/// The tables as of one commit, open for reading.
struct Snapshot {
    tables: Vec<View>,
    used_bytes: u64,
    /// Of the store, for messages.
    path: Arc<Path>,
}

pub(super) struct Redb {
    path: Arc<Path>,
    database: Database,
    /// Opening tables costs more than reading a row: it is done once for each commit.
    latest: RwLock<Arc<Snapshot>>,
}

fn failed(doing: &'static str, error: impl Display) -> Fault {
    Fault::Engine { engine: "redb", doing, cause: error.to_string() }
}

impl Redb {
    /// Opens the store in the file at `path`, made if it is missing. `None` while it is locked. `check_integrity` reads all of it.
    pub(super) fn open(path: &Path, cache_bytes: usize, check_integrity: bool) -> Result<Option<Redb>> {
        let refused = |error: redb::DatabaseError| match error {
            redb::DatabaseError::Storage(redb::StorageError::Io(source)) => Fault::io("open", path, source),
            error => Fault::Damaged { path: path.to_owned(), offset: None, what: error.to_string() },
        };
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes).set_check_integrity_on_open(check_integrity);
        let database = match builder.create(path) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => return Ok(None),
            opened => opened.map_err(refused)?,
        };
        let transaction = begin(&database)?;
        create_tables(&transaction).map_err(|error| failed("create tables", error))?;
        transaction.commit().map_err(|error| failed("create tables", error))?;
        let path = Arc::from(path);
        let latest = RwLock::new(Arc::new(snapshot(&database, &path)?));
        Ok(Some(Redb { path, database, latest }))
    }

    /// Moves the pages in use to the front and cuts the file behind them.
    pub(super) fn compact(self) -> Result<()> {
        let Redb { mut database, latest, .. } = self;
        // No page moves that a reader could still look at.
        drop(latest);
        while database.compact().map_err(|error| failed("compact", error))? {}
        Ok(())
    }

    fn latest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.latest.read())
    }

    /// Writes `rows`; how many bytes are in use then.
    fn write(transaction: &WriteTransaction, rows: Rows<'_>) -> std::result::Result<(), redb::Error> {
        let mut counts = transaction.open_table(COUNTS)?;
        let mut used_bytes = counts.get(USED_BYTES)?.map_or(0, |count| count.value());
        let cost = |key: &[u8], row: &[u8]| (key.len() + row.len()) as u64 + ROW_BYTES;
        let (mut row, mut open) = (Vec::new(), None);
        for (table, key, value) in rows {
            // Rows come table by table.
            if open.as_ref().is_none_or(|(opened, _)| *opened != table) {
                drop(open.take());
                open = Some((table, transaction.open_table(definition(table))?));
            }
            let (_, rows) = open.as_mut().expect("opened just now");
            let old = match value {
                Some(value) => {
                    checksum::seal(table, key, value, &mut row);
                    used_bytes += cost(key, &row);
                    rows.insert(key, &row[..])?
                }
                None => rows.remove(key)?,
            };
            used_bytes = used_bytes.saturating_sub(old.map_or(0, |old| cost(key, old.value())));
        }
        counts.insert(USED_BYTES, used_bytes)?;
        Ok(())
    }
}

fn begin(database: &Database) -> Result<WriteTransaction> {
    let mut transaction = database.begin_write().map_err(|error| failed("begin a transaction", error))?;
    transaction.set_durability(Durability::Immediate).map_err(|error| failed("begin a transaction", error))?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

fn create_tables(transaction: &WriteTransaction) -> std::result::Result<(), redb::Error> {
    for table in Table::ALL {
        transaction.open_table(definition(table))?;
    }
    transaction.open_table(COUNTS)?;
    Ok(())
}

fn snapshot(database: &Database, path: &Arc<Path>) -> Result<Snapshot> {
    let read = || -> std::result::Result<Snapshot, redb::Error> {
        let transaction = database.begin_read()?;
        let tables = Table::ALL
            .iter()
            .map(|table| transaction.open_table(definition(*table)))
            .collect::<std::result::Result<_, _>>()?;
        let used_bytes = transaction.open_table(COUNTS)?.get(USED_BYTES)?.map_or(0, |count| count.value());
        Ok(Snapshot { tables, used_bytes, path: Arc::clone(path) })
    };
    read().map_err(|error| failed("begin a read", error))
}

impl Snapshot {
    fn table(&self, table: Table) -> &View {
        &self.tables[table as usize - 1]
    }
}

impl Store for Redb {
    fn commit(&self, rows: Rows<'_>) -> Result<()> {
        let broken = |error: redb::Error| match error {
            redb::Error::Io(source) => Fault::io("write", &*self.path, source),
            error => failed("commit", error),
        };
        let transaction = begin(&self.database)?;
        Redb::write(&transaction, rows).map_err(broken)?;
        transaction.commit().map_err(|error| broken(error.into()))?;
        let latest = Arc::new(snapshot(&self.database, &self.path)?);
        // The old one goes when its last reader does, outside the lock.
        let _old = std::mem::replace(&mut *self.latest.write(), latest);
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        let latest = self.latest();
        let row = latest.table(table).get(key).map_err(|error| failed("read a row", error))?;
        row.map(|row| checksum::open(table, key, row.value(), &self.path)).transpose()
    }

    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<()> {
        self.latest().scan(table, range, visit)
    }

    fn pin(&self) -> Result<Pin> {
        Ok(Pin::Free(Box::new(self.latest())))
    }

    fn size(&self) -> Result<Size> {
        let file = std::fs::metadata(&self.path).map_err(|source| Fault::io("stat", &*self.path, source))?;
        let file_bytes = file.len();
        Ok(Size { file_bytes, used_bytes: self.latest().used_bytes.min(file_bytes) })
    }
}

impl Checkpoint for Arc<Snapshot> {
    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<()> {
        let rows = self.table(table).range::<&[u8]>(range).map_err(|error| failed("read a range", error))?;
        for row in rows {
            let (key, row) = row.map_err(|error| failed("read a range", error))?;
            let value = checksum::open(table, key.value(), row.value(), &self.path)?;
            if visit(key.value(), value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl Redb {
    /// Puts bytes under a key as they are, checksum and all.
    pub(super) fn insert_raw(&self, table: Table, key: &[u8], row: &[u8]) {
        let transaction = begin(&self.database).expect("a transaction");
        transaction.open_table(definition(table)).expect("a table").insert(key, row).expect("a write");
        transaction.commit().expect("a commit");
        *self.latest.write() = Arc::new(snapshot(&self.database, &self.path).expect("a read"));
    }
}
