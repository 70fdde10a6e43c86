//! Every version of every key, by revision.

mod read;
mod record;
mod write;

pub use read::{Chunk, RangeQuery, RangeResult, Reader, SortOrder, SortTarget};
pub use record::{Event, EventKind, KeyValue};
pub use write::WriteTxn;

use crate::{
    engine::{Batch, Engine},
    types::{Error, Fault, Key, LeaseId, Revision},
};
use std::sync::Arc;

/// Keeps rows from being swept until it is dropped.
pub struct Pin {}

impl Pin {
    /// The pinned revision.
    pub fn revision(&self) -> Revision {
        todo!()
    }
}

/// A part of the past, see [`Reader::history`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Whole revisions, ascending; those without a wanted event are left out.
    pub events: Vec<(Revision, Vec<Event>)>,
    /// The revision to ask for next.
    pub next: Revision,
}

/// The answer to [`Reader::hash_kv`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashKv {
    /// CRC32C of the kept rows.
    pub hash: u32,
    /// The last compaction, −1 if there was none.
    pub compact_revision: Revision,
    /// The revision up to which rows were hashed.
    pub hash_revision: Revision,
}

/// The single writer's half.
pub struct Store {}

impl Store {
    /// Rebuilds the index from the rows of `engine`.
    pub fn open(engine: Arc<dyn Engine>) -> Result<Store, Fault> {
        let _ = engine;
        todo!()
    }

    /// The readers' half.
    pub fn reader(&self) -> Reader {
        todo!()
    }

    /// The revision of the last write, published or not. A fresh store is at 1.
    pub fn current(&self) -> Revision {
        todo!()
    }

    /// The revision of the last compaction; −1 if there was none, as in etcd.
    pub fn compacted(&self) -> Revision {
        todo!()
    }

    /// The live keys with a lease that [`Store::open`] came across; empty when asked again.
    pub fn take_leased(&mut self) -> Vec<(Key, LeaseId)> {
        todo!()
    }

    /// Begins the writes of one request.
    pub fn begin(&mut self) -> WriteTxn<'_> {
        todo!()
    }

    /// Compacts logically: checks, records the mark in `batch`, and refuses reads below `at` from now on.
    pub fn compact(&mut self, at: Revision, batch: &mut Batch) -> Result<(), Error> {
        todo!("{at} {}", batch.is_empty())
    }

    /// Makes all finished writes visible to readers. Call it once the engine has their rows.
    pub fn publish(&self) {}
}
