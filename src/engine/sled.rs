//! sled 0.34.7: a selectable store, and an experimental one.
//!
//! Everything is in one tree, each key with its table's number before it, because a batch is atomic within one tree only. sled's own flush
//! is not a barrier on a power cut: its file is synced here.

use super::{Checkpoint, Pin, Result, Rows, Size, Store, Table, checksum};
use crate::types::Fault;
use bytes::Bytes;
use std::{
    fs::File,
    ops::{Bound, ControlFlow},
    path::{Path, PathBuf},
};

/// How often sled's own thread tidies up, in milliseconds. It is the only place where space is freed.
const TIDY_MS: u64 = 100;

pub(super) struct Sled {
    rows: Live,
    /// The file that holds the rows, to be synced.
    file: File,
}

/// The rows as they are at any moment: sled cannot hold an older state.
#[derive(Clone)]
struct Live {
    path: PathBuf,
    database: sled::Db,
}

fn failed(doing: &'static str, error: &sled::Error) -> Fault {
    Fault::Engine { engine: "sled", doing, cause: error.to_string() }
}

fn sync(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|source| Fault::io("open", path, source))?;
    file.sync_all().map_err(|source| Fault::io("fsync", path, source))
}

fn named(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table as u8], key].concat()
}

impl Sled {
    /// Opens the store in the folder at `path`, made if it is missing. `None` while it is locked.
    pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<Option<Sled>> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes as u64)
            .mode(sled::Mode::HighThroughput)
            .flush_every_ms(Some(TIDY_MS));
        let database = match config.open() {
            Ok(database) => database,
            // sled has no error of its own for this.
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => return Ok(None),
            Err(error) => return Err(failed("open", &error)),
        };
        // sled syncs neither of these itself.
        sync(&path.join("conf"))?;
        sync(path)?;
        let rows = path.join("db");
        let file = File::open(&rows).map_err(|source| Fault::io("open", &rows, source))?;
        Ok(Some(Sled { rows: Live { path: path.to_owned(), database }, file }))
    }
}

impl Store for Sled {
    fn commit(&self, rows: Rows<'_>) -> Result<()> {
        // One batch, however long readers wait for it: two would be two states.
        let (mut batch, mut row) = (sled::Batch::default(), Vec::new());
        for (table, key, value) in rows {
            match value {
                Some(value) => {
                    checksum::seal(table, key, value, &mut row);
                    batch.insert(named(table, key), &row[..]);
                }
                None => batch.remove(named(table, key)),
            }
        }
        let Live { path, database } = &self.rows;
        database.apply_batch(batch).map_err(|error| failed("write", &error))?;
        database.flush().map_err(|error| failed("flush", &error))?;
        self.file.sync_data().map_err(|source| Fault::io("fdatasync", path.join("db"), source))
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        let Live { path, database } = &self.rows;
        let row = database.get(named(table, key)).map_err(|error| failed("read a row", &error))?;
        row.map(|row| checksum::open(table, key, &row, path)).transpose()
    }

    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<()> {
        self.rows.scan(table, range, visit)
    }

    fn pin(&self) -> Result<Pin> {
        Ok(Pin::UntilCommit(Box::new(self.rows.clone())))
    }

    /// sled does not say what of its file is in use.
    fn size(&self) -> Result<Size> {
        let bytes = self.rows.database.size_on_disk().map_err(|error| failed("stat", &error))?;
        Ok(Size { file_bytes: bytes, used_bytes: bytes })
    }
}

impl Checkpoint for Live {
    fn scan(
        &self,
        table: Table,
        (start, end): (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<()> {
        let start = match start {
            Bound::Unbounded => Bound::Included(vec![table as u8]),
            bound => bound.map(|key| named(table, key)),
        };
        let end = match end {
            Bound::Unbounded => Bound::Excluded(vec![table as u8 + 1]),
            bound => bound.map(|key| named(table, key)),
        };
        for row in self.database.range::<Vec<u8>, _>((start, end)) {
            let (key, row) = row.map_err(|error| failed("read a range", &error))?;
            let value = checksum::open(table, &key[1..], &row, &self.path)?;
            if visit(&key[1..], value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl Sled {
    /// Puts bytes under a key as they are, checksum and all.
    pub(super) fn insert_raw(&self, table: Table, key: &[u8], row: &[u8]) {
        self.rows.database.insert(named(table, key), row).expect("a write");
    }
}
