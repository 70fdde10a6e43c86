//! A checkpoint of a store as a file of etcd's.

use super::{AUTH_BUCKETS, Error, STORAGE_VERSION, bucket, rows};
use crate::{
    alarm,
    bolt::{self, Writer},
    engine::{Batch, Checkpoint, Engine, Memory, Table},
    lease::Terms,
    machine::Standing,
    membership,
    mvcc::Marks,
    types::Fault,
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    io::{BufWriter, Seek, Write},
    ops::{Bound, ControlFlow},
    path::Path,
};

const BUFFER_BYTES: usize = 1 << 20;
const ALL: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

/// Writes `checkpoint` to `out`, from its start, as a database of etcd, and says how many bytes it has. `path` names `out` in errors. The
/// SHA-256 that ends a snapshot is up to whoever sends or keeps the file.
///
/// # Errors
/// [`Error::Store`] from the checkpoint, [`Error::Bolt`] from `out`.
pub fn export(checkpoint: &dyn Checkpoint, out: impl Write + Seek, path: &Path) -> Result<u64, Error> {
    let refused = |source| Error::Bolt { path: path.to_owned(), source };
    let small = small_tables(checkpoint)?;
    let writer = Writer::new(BufWriter::with_capacity(BUFFER_BYTES, out)).map_err(refused)?;
    let mut export = Export { writer, path };
    export.map(bucket::ALARM, alarms(&small)?)?;
    for (name, letter) in AUTH_BUCKETS {
        let end = [letter + 1];
        let rows = (Bound::Included(&[letter][..]), Bound::Excluded(&end[..]));
        export.table(name, checkpoint, Table::Auth, rows, |key, row| Some((key[1..].to_vec(), row)))?;
    }
    let standing = Standing::load(&small)?;
    let members = membership::Table::load(&small)?;
    export.map(bucket::CLUSTER, cluster(&standing))?;
    export.table(bucket::KEY, checkpoint, Table::Versions, ALL, |key, row| Some((key.to_vec(), row)))?;
    export.table(bucket::LEASE, checkpoint, Table::Leases, ALL, |key, row| {
        let (key, value) = rows::lease(Terms::of_row(key, &row)?);
        Some((key.to_vec(), value.into()))
    })?;
    export.map(bucket::MEMBERS, members.list().iter().map(rows::member).collect())?;
    let removed = members.removed().map(|id| (rows::member_key(id), b"removed".to_vec()));
    export.map(bucket::MEMBERS_REMOVED, removed.collect())?;
    export.map(bucket::META, meta(&standing, Marks::load(&small)?, &members))?;
    export.writer.finish().map_err(refused)
}

/// The tables that a member has in memory anyway, so that their own code reads them.
fn small_tables(checkpoint: &dyn Checkpoint) -> Result<Memory, Fault> {
    let mut batch = Batch::default();
    for table in [Table::Meta, Table::Members, Table::Alarms] {
        checkpoint.scan(table, ALL, &mut |key, row| {
            batch.put(table, Bytes::copy_from_slice(key), row);
            ControlFlow::Continue(())
        })?;
    }
    let small = Memory::default();
    small.write(batch)?;
    Ok(small)
}

/// A bucket that is small enough to be sorted here.
type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn alarms(small: &Memory) -> Result<Rows, Fault> {
    let alarms = alarm::Table::load(small)?.list(None);
    Ok(alarms.into_iter().map(|(member, kind)| (rows::alarm(member, kind), Vec::new())).collect())
}

fn cluster(standing: &Standing) -> Rows {
    let version = standing.cluster_version.as_ref().map(|version| (b"clusterVersion".to_vec(), version.clone().into()));
    let downgrade = standing.downgrade.as_ref().map(|version| (b"downgrade".to_vec(), rows::downgrade(version)));
    version.into_iter().chain(downgrade).collect()
}

fn meta(standing: &Standing, marks: Marks, members: &membership::Table) -> Rows {
    let mut meta = Rows::new();
    let mut put = |name: &[u8], value: Vec<u8>| drop(meta.insert(name.to_vec(), value));
    put(b"confState", rows::conf_state(members.conf_state()));
    put(b"consistent_index", standing.index.0.to_be_bytes().to_vec());
    put(b"term", standing.term.0.to_be_bytes().to_vec());
    put(b"storageVersion", STORAGE_VERSION.into());
    if let Some(compacted) = marks.compacted {
        put(b"scheduledCompactRev", rows::revision(compacted.0).to_vec());
    }
    if let Some(swept) = marks.swept {
        put(b"finishedCompactRev", rows::revision(swept.0).to_vec());
    }
    meta
}

struct Export<'a, W: Write + Seek> {
    writer: Writer<W>,
    path: &'a Path,
}

impl<W: Write + Seek> Export<'_, W> {
    fn refused(&self, source: bolt::Error) -> Error {
        Error::Bolt { path: self.path.to_owned(), source }
    }

    fn map(&mut self, name: &[u8], rows: Rows) -> Result<(), Error> {
        let write = |writer: &mut Writer<W>| {
            writer.bucket(name)?;
            rows.iter().try_for_each(|(key, value)| writer.put(key, value))
        };
        write(&mut self.writer).map_err(|error| self.refused(error))
    }

    /// A bucket from the rows of a table; `translate` says `None` to a row that is none of ours.
    fn table(
        &mut self,
        name: &[u8],
        checkpoint: &dyn Checkpoint,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        translate: impl Fn(&[u8], Bytes) -> Option<(Vec<u8>, Bytes)>,
    ) -> Result<(), Error> {
        self.writer.bucket(name).map_err(|error| self.refused(error))?;
        let mut failed = None;
        checkpoint.scan(table, range, &mut |key, row| {
            let written = match translate(key, row) {
                Some((key, value)) => self.writer.put(&key, &value).map_err(|error| self.refused(error)),
                None => Err(Error::Store(Fault::Damaged {
                    path: "store".into(),
                    offset: None,
                    what: format!("row {} of table {table:?} is none of its kind", key.escape_ascii()),
                })),
            };
            match written {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(()), Err)
    }
}
