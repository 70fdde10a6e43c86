//! Hashes of the key space, to compare members.

use super::{
    Reader, State,
    index::Direction,
    open::read_rows,
    pin::Pins,
    read::admit,
    record::{self, RowKey, Stamp},
    view::View,
};
use crate::{
    engine::Table,
    types::{Error, Fault, KeyRange, Revision},
};
use bytes::Bytes;
use std::ops::{Bound, ControlFlow};

const STEP_ROWS: usize = 500;

/// The answer to [`Reader::hash_kv`]. Equal revisions, equal hash: on every healthy member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashKv {
    /// CRC32C of the kept rows.
    pub hash: u32,
    /// The last compaction, −1 if there was none.
    pub compact_revision: Revision,
    /// The revision up to which rows were hashed.
    pub hash_revision: Revision,
}

impl Reader {
    /// etcd's hash of the key space at revision `at` (0: the current one).
    ///
    /// CRC32C over the name of etcd's bucket, `key`, then key and value of each row up to `at`, in the order of revisions. Of
    /// the rows at or below the compacted revision only those count that `at` still sees; if it sees no key at all, those that
    /// the compaction left. Tombstones there never count. So the hash does not depend on how far this member has swept.
    ///
    /// # Errors
    /// [`Error::FutureRev`] above the current revision, [`Error::Compacted`] below the compacted one.
    pub fn hash_kv(&self, at: Revision) -> Result<Result<HashKv, Error>, Fault> {
        let shared = &self.shared();
        let (_pin, at, compacted) = {
            let state = shared.state.read();
            match admit(at, state.published, state.compacted) {
                // All rows above the mark count, so the mark is what to pin; before the first compaction nothing can be swept
                // below 0 either.
                Ok(at) => (Pins::add(shared, state.compacted.min(at)), at, state.compacted),
                Err(error) => return Ok(Err(error)),
            }
        };
        let everything = KeyRange::From(Bytes::new());
        let view = View { shared, at, row: |stamp| shared.row(stamp) };
        let sees_no_key = view.walk(&everything, 1, Direction::Ascending).is_empty();
        let kept_at = if sees_no_key { compacted } else { at };
        let mut hash = crc32c::crc32c(b"key");
        let mut row_at = RowKey::before(1);
        loop {
            let rows = read_rows(&*shared.engine, &row_at, at, STEP_ROWS)?;
            let Some((last, _)) = rows.last() else { break };
            row_at = last.row_key();
            let counts = {
                let state = shared.state.read();
                rows.iter()
                    .map(|(stamp, row)| stamp.main > compacted || is_kept(&state, *stamp, row, kept_at))
                    .collect::<Vec<_>>()
            };
            for ((stamp, row), _) in rows.iter().zip(counts).filter(|(_, counts)| *counts) {
                hash = crc32c::crc32c_append(hash, &stamp.row_key());
                hash = crc32c::crc32c_append(hash, row);
            }
        }
        Ok(Ok(HashKv { hash, compact_revision: Revision(compacted), hash_revision: Revision(at) }))
    }

    /// CRC32C of everything in the engine, row by row, with the tables' numbers. Two members are equal only if they have swept
    /// equally far and nothing is written meanwhile: for diagnosis, as etcd's `Hash`.
    pub fn hash_all(&self) -> Result<u32, Fault> {
        let shared = self.shared();
        let mut hash = 0;
        for table in Table::ALL {
            hash = crc32c::crc32c_append(hash, &[table as u8]);
            let mut row_at: Option<Bytes> = None;
            loop {
                let from = row_at.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                let (mut last, mut rows) = (None, 0);
                shared.engine.scan(table, (from, Bound::Unbounded), &mut |key: &[u8], value| {
                    hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, key), &value);
                    rows += 1;
                    if rows == STEP_ROWS {
                        last = Some(Bytes::copy_from_slice(key));
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                })?;
                match last {
                    Some(key) => row_at = Some(key),
                    None => break,
                }
            }
        }
        Ok(hash)
    }
}

/// Whether a row is what a reader at `at` sees of its key. A row that is no `KeyValue` is not, and shows as another hash.
fn is_kept(state: &State, stamp: Stamp, row: &Bytes, at: i64) -> bool {
    let seen = || state.index.find(&record::key_of(row)?)?.visible(at);
    !stamp.tombstone && seen() == Some(stamp)
}
