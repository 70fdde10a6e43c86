//! A store that repeats a part of another one: its rows, its revisions, its numbers.
//!
//! A *copy* begins with what the other store has of a range at one revision ([`Loader`]) and goes on with the events of that range
//! ([`Store::repeat`]). What happens elsewhere in the other store shows here as revisions without events ([`Store::advance`]). Whoever
//! reads a range that lies within the copied one gets what the other store would answer, at any revision from the first on.
//!
//! Two things tell a copy from other stores. Revisions may have no rows, so only the copy itself, not its engine, knows how far it is.
//! And of the events at its first revision it has the puts alone: what was deleted there left nothing to load. History that begins
//! after it is whole.

use super::{Event, EventKind, KeyValue, Marks, Store, WriteTxn, record, record::Stamp};
use crate::{
    engine::{Batch, Engine, Table},
    types::{Fault, Key, KeyRange, Revision},
};
use bytes::Bytes;
use std::sync::Arc;

/// What came does not fit what is here: something was missed on the way, or it is the history of another store. The copy is as it
/// was, and of no use any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diverged {
    /// The revision that does not fit.
    pub revision: Revision,
    /// The key that it was about; empty if it was about none.
    pub key: Key,
    /// What is wrong with it.
    pub what: &'static str,
}

impl std::fmt::Display for Diverged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "revision {} {} (key {:?})", self.revision, self.what, self.key)
    }
}

/// Fills an engine that has nothing yet with a range as it is at one revision.
pub struct Loader {
    engine: Arc<dyn Engine>,
    at: Revision,
    rows: u32,
    last_key: Key,
}

impl Loader {
    /// Begins to fill `engine` with what a range is at revision `at`.
    pub fn new(engine: Arc<dyn Engine>, at: Revision) -> Loader {
        Loader { engine, at, rows: 0, last_key: Key::new() }
    }

    /// Adds the next keys, which come in ascending order. Their bytes are copied, so that a page of a reply does not stay for as
    /// long as one of its keys.
    pub fn add(&mut self, kvs: &[KeyValue]) -> Result<Result<(), Diverged>, Fault> {
        let mut batch = Batch::default();
        batch.ops.reserve(kvs.len());
        for kv in kvs {
            let refuse = |what| Ok(Err(Diverged { revision: kv.mod_revision, key: kv.key.clone(), what }));
            if kv.key <= self.last_key {
                return refuse("is not in the order of keys");
            }
            let is_sound = kv.version > 0 && kv.create_revision.0 > 0 && kv.create_revision <= kv.mod_revision;
            if !is_sound || kv.mod_revision > self.at {
                return refuse("cannot be in a state that old");
            }
            // Within a revision the rows need a number each; that of the revision's request is not known, nor asked for.
            let Some(rows) = self.rows.checked_add(1) else { return refuse("is one key too many") };
            let stamp = Stamp { main: kv.mod_revision.0, sub: self.rows, tombstone: false };
            batch.put(Table::Versions, Bytes::copy_from_slice(&stamp.row_key()), record::encode(kv));
            (self.rows, self.last_key) = (rows, kv.key.clone());
        }
        self.last_key = Bytes::copy_from_slice(&self.last_key);
        self.engine.write(batch)?;
        Ok(Ok(()))
    }

    /// The store: at the revision of the snapshot, and compacted there, since nothing before it can be read.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn finish(self) -> Result<Store, Fault> {
        let mut batch = Batch::default();
        Marks { compacted: Some(self.at), swept: Some(self.at) }.save(&mut batch);
        self.engine.write(batch)?;
        let mut store = Store::open(self.engine)?;
        // Of no use to a copy: leases live where the other store is.
        store.take_leased();
        Ok(store)
    }
}

impl Store {
    /// Repeats what another store did at `revision`: `events` in their order, with the numbers that they have there. Puts the rows into
    /// `batch` and returns the events with what they replaced. Revisions since the current one had no events here.
    ///
    /// As after [`WriteTxn::finish`], `batch` goes to the engine before anything else is written, and readers see it after
    /// [`Store::publish`].
    ///
    /// # Errors
    /// [`Diverged`] if `revision` is not a later one, a deleted key does not exist, or a put's generation or version is not what follows
    /// from what is here. Nothing has changed then.
    pub fn repeat(
        &mut self,
        revision: Revision,
        events: Vec<Event>,
        batch: &mut Batch,
    ) -> Result<Result<Vec<Event>, Diverged>, Fault> {
        let refuse = |key: &Key, what| Ok(Err(Diverged { revision, key: key.clone(), what }));
        if revision <= self.current() {
            return refuse(&Key::new(), "was there already");
        }
        let mut txn = WriteTxn::at(self, revision);
        for event in events {
            let Event { kind, kv, .. } = event;
            if kv.mod_revision != revision {
                return refuse(&kv.key, "has an event of another one");
            }
            match kind {
                EventKind::Put => {
                    txn.put(kv.key.clone(), kv.value.clone(), kv.lease)?;
                    if txn.last_written() != Some(&kv) {
                        return refuse(&kv.key, "does not follow from the version that is here");
                    }
                }
                EventKind::Delete => {
                    if txn.delete_range(&KeyRange::One(kv.key.clone()))?.is_empty() {
                        return refuse(&kv.key, "deletes what is not here");
                    }
                }
            }
        }
        let (_, events) = txn.finish(batch);
        // Without events it is a step like any other.
        self.advance(revision);
        Ok(Ok(events))
    }

    /// Goes on to `revision`: the revisions up to it had no events here. Readers see it after [`Store::publish`]. Never goes back.
    ///
    /// For stores that repeat another one: nothing in the engine tells of it.
    pub fn advance(&mut self, revision: Revision) {
        self.current = self.current.max(revision.0);
    }
}
