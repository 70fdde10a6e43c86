//! The hash of the history in a file, to compare with those that members tell.

use super::{Error, HashCheck, SnapshotFile, bucket, file::Database, import::Head, rows};
use crate::{
    engine::{Batch, Engine, Memory, Table},
    mvcc::{self, HashKv, read_row},
    types::{Error as Refusal, Revision},
};
use bytes::Bytes;
use std::{path::Path, sync::Arc};

/// Rows that are taken over together.
const BATCH_ROWS: usize = 1_000;

/// The `HashKV` of the database in a snapshot file (or copied from a stopped etcd) at revision `at`, 0: its last.
///
/// The keys are held in memory, so it takes about as much as the file is large.
///
/// # Errors
/// [`Error::Unusable`] and [`Error::Bolt`] with what is wrong and where. The inner one refuses a revision that the file does not have, as
/// a member does.
///
/// Follows `etcdutl hashkv` v3.7.
pub fn hash_kv(path: &Path, at: Revision) -> Result<Result<HashKv, Refusal>, Error> {
    let file = SnapshotFile::open(path, HashCheck::IfThere)?;
    let database = file.database()?;
    let head = Head::read(&database)?;
    let engine: Arc<dyn Engine> = Arc::new(Memory::default());
    copy_rows(&database, &*engine)?;
    let mut marks = Batch::default();
    head.marks.save(&mut marks);
    engine.write(marks)?;
    let store = mvcc::Store::open(engine)?;
    Ok(store.reader().hash_kv(at)?)
}

/// Rows as they are, keys of leases that do not exist included: each byte counts.
fn copy_rows(database: &Database<'_>, engine: &dyn Engine) -> Result<(), Error> {
    let mut batch = Batch::default();
    database.scan(bucket::KEY, &mut |key, value| {
        // What a restore with a revision bump leaves is no version of a key; the mark of compaction says the same.
        if value.is_empty() && rows::parse_revision(key).is_some() {
            return Ok(());
        }
        let row = Bytes::copy_from_slice(value);
        if read_row(key, &row).is_none() {
            return Err(database.wrong_row(bucket::KEY, key, "is no version of a key"));
        }
        batch.put(Table::Versions, Bytes::copy_from_slice(key), row);
        if batch.ops.len() == BATCH_ROWS {
            engine.write(std::mem::take(&mut batch))?;
        }
        Ok(())
    })?;
    Ok(engine.write(batch)?)
}
