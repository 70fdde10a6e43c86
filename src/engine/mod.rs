//! The persistent ordered store under MVCC, and what else of the state machine is kept on disk.
//!
//! **Promises.** A [`Batch`] is atomic: after a crash it is there whole or not at all, and batches are there in the order of
//! their writing: if a later one survived, so did all before. A batch is *visible* when [`Engine::write`] returns and *durable*
//! when a later [`Engine::flush`] returns; what was not flushed is replayed from the log. Every value read from disk is checked.
//! A [`Checkpoint`] is the state after one whole batch, for as long as somebody reads it.
//! **May not know** what the rows mean, what a revision is, or that there is a log.

mod checksum;
mod home;
mod memory;
mod open;
mod overlay;
mod redb;
mod sled;
mod store;
mod volatile;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;

pub use home::{DirHome, Home};
pub use memory::{Memory, MemoryHome};
pub use open::{Kind, Options, defragment, open};
pub use store::{Pin, Rows, Store};
pub use volatile::Volatile;

use crate::types::Fault;
use bytes::Bytes;
use std::ops::{Bound, ControlFlow};

/// The kinds of rows. The number is on disk: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Applied index, membership of raft, compaction marks, state hash: one row each.
    Meta = 1,
    /// Stored versions: key = revision (17 bytes, or 18 for a tombstone), value = `mvccpb.KeyValue`.
    Versions = 2,
    /// Leases: key = id (8 bytes, big endian).
    Leases = 3,
    /// Members: key = id (8 bytes, big endian).
    Members = 4,
    /// Active alarms: key = member id and kind.
    Alarms = 5,
    /// Users and roles, and the settings of auth.
    Auth = 6,
}

impl Table {
    /// All tables, in the order of their numbers.
    pub const ALL: [Table; 6] =
        [Table::Meta, Table::Versions, Table::Leases, Table::Members, Table::Alarms, Table::Auth];
}

/// Writes that become visible and durable together. A later write to the same key replaces an earlier one.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In the order of writing; `None` deletes.
    pub ops: Vec<(Table, Bytes, Option<Bytes>)>,
}

impl Batch {
    /// Adds a row.
    pub fn put(&mut self, table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.ops.push((table, key.into(), Some(value.into())));
    }

    /// Deletes a row; no error if there is none.
    pub fn delete(&mut self, table: Table, key: impl Into<Bytes>) {
        self.ops.push((table, key.into(), None));
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// How much space a store takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes on disk.
    pub file_bytes: u64,
    /// Bytes of that in use; the rest is free for reuse.
    pub used_bytes: u64,
}

/// The result of a call that only a broken disk or store can fail.
pub type Result<T> = std::result::Result<T, Fault>;

/// A view of an engine that later writes do not change. It stands for itself: the engine may be dropped first.
pub trait Checkpoint: Send {
    /// Calls `visit(key, value)` in ascending order of keys until it breaks or the range ends. To go on after an interruption, begin at
    /// [`Bound::Excluded`] of the last key.
    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<()>;
}

/// A persistent ordered map per [`Table`]. One writer at a time is the common case; readers never wait for a flush.
pub trait Engine: Send + Sync + 'static {
    /// The value of one row.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>>;

    /// Calls `visit(key, value)` in ascending order of keys until it breaks or the range ends.
    ///
    /// A long walk need not be one consistent view: rows written or deleted meanwhile may or may not be seen. Callers bound it
    /// by revision, and hold back what deletes.
    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<()>;

    /// Makes all of `batch` visible at once. May wait while too much is unflushed.
    fn write(&self, batch: Batch) -> Result<()>;

    /// Returns once every batch written before the call is on the medium.
    fn flush(&self) -> Result<()>;

    /// All tables as they are after some whole batch, with every batch written before the call in it. Flushes first.
    ///
    /// What the store frees while a checkpoint lives is not used again (redb), or nothing is flushed at all (sled, so that writes wait
    /// once too much is unflushed): drop it soon. Its holder must not call [`Engine::flush`] nor take a second one: with sled, either
    /// waits for the first to be dropped.
    fn checkpoint(&self) -> Result<Box<dyn Checkpoint>>;

    /// Bytes that were written and are not yet on the medium; zero for an engine that has no medium.
    fn pending(&self) -> usize {
        0
    }

    /// Space taken. Cheap enough to be asked once a second.
    fn size(&self) -> Result<Size>;
}
