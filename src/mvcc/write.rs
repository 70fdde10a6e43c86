//! The puts and deletes of one revision; events out.

use super::{Event, KeyValue, RangeQuery, RangeResult, Store};
use crate::{
    engine::Batch,
    types::{Error, Fault, Key, KeyRange, LeaseId, Revision},
};
use bytes::Bytes;

/// The writes of one request. They share the main revision [`Store::current`] + 1 and see each other.
pub struct WriteTxn<'a> {
    store: &'a mut Store,
}

impl WriteTxn<'_> {
    /// Writes a version and returns the one that it replaces.
    pub fn put(&mut self, key: Key, value: Bytes, lease: LeaseId) -> Result<Option<KeyValue>, Fault> {
        todo!("{key:?} {value:?} {lease}")
    }

    /// Deletes all keys of a range and returns what they were, in the order of keys.
    pub fn delete_range(&mut self, range: &KeyRange) -> Result<Vec<KeyValue>, Fault> {
        todo!("{range:?}")
    }

    /// Reads a range; sees the earlier writes of this request.
    pub fn range(&self, query: &RangeQuery) -> Result<Result<RangeResult, Error>, Fault> {
        todo!("{query:?}")
    }

    /// Reads one key; sees the earlier writes of this request.
    pub fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Fault> {
        todo!("{key:?}")
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        todo!()
    }

    /// Puts the rows into `batch`; returns the current revision after it, and the events.
    pub fn finish(self, batch: &mut Batch) -> (Revision, Vec<Event>) {
        todo!("{} {}", self.store.current(), batch.is_empty())
    }

    /// Takes all writes back.
    pub fn abandon(self) {}
}
