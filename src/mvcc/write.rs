//! The puts and deletes of one revision; events out.

use super::{
    Event, EventKind, KeyValue, RangeQuery, RangeResult, Store,
    hot::For,
    index::Direction,
    key_index::{Before, Generation, Sketch},
    read::{Known, admit},
    record::{self, Stamp},
    view::{Unmetered, View},
};
use crate::{
    engine::{Batch, Table},
    types::{Error, Fault, Key, KeyRange, LeaseId, Revision},
};
use bytes::Bytes;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Keys that are deleted under one hold of the lock.
const STEP_DELETES: usize = 200;

/// Rows that are held under one hold of the lock.
const STEP_HOLDS: usize = 200;

/// The writes of one request. They share the main revision [`Store::current`] + 1 and see each other. Dropped without
/// [`WriteTxn::finish`] it leaves no trace.
pub struct WriteTxn<'a> {
    store: &'a mut Store,
    /// The main revision that the writes get.
    main: i64,
    /// One for each write; its position is the sub revision.
    events: Vec<Event>,
    /// What each written key was before, as far as the index has been changed.
    undo: Vec<(Key, Option<Before>)>,
}

/// What a put has replaced; nothing if the key was new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// The version, if it was read.
    pub kv: Option<KeyValue>,
    /// Bytes of its key and value.
    pub bytes: usize,
    /// Its lease.
    pub lease: LeaseId,
}

/// Whether watchers want to be told what a put has replaced.
#[derive(Debug, Default)]
pub(super) enum Prevs {
    #[default]
    Always,
    /// If there are any such watchers.
    WhileAny(Arc<AtomicUsize>),
}

impl Prevs {
    fn is_wanted(&self) -> bool {
        match self {
            Prevs::Always => true,
            Prevs::WhileAny(count) => count.load(Ordering::Relaxed) > 0,
        }
    }
}

impl<'a> WriteTxn<'a> {
    pub(super) fn new(store: &'a mut Store) -> WriteTxn<'a> {
        let main = Revision(store.current).next();
        WriteTxn::at(store, main)
    }

    /// Writes at `revision`, which is after all that were written.
    pub(super) fn at(store: &'a mut Store, revision: Revision) -> WriteTxn<'a> {
        WriteTxn { store, main: revision.0, events: Vec::new(), undo: Vec::new() }
    }
}

impl WriteTxn<'_> {
    /// Writes a version and returns the one that it replaces.
    pub fn put(&mut self, key: Key, value: Bytes, lease: LeaseId) -> Result<Option<KeyValue>, Fault> {
        Ok(self.put_over(key, value, lease, true)?.kv)
    }

    /// Writes a version. What it replaces is read if it `is_wanted` here, or by watchers ([`Store::prevs_on_demand`]), or if it takes the row
    /// to know its size and lease: a read of the engine costs more than all the rest of a put.
    pub fn put_over(&mut self, key: Key, value: Bytes, lease: LeaseId, is_wanted: bool) -> Result<Replaced, Fault> {
        let stamp = self.next_stamp(0, false);
        let (before, generation) = {
            let mut state = self.store.shared.state.write();
            let (before, generation) = state.index.put(&key, stamp, Sketch::of(value.len(), lease));
            if generation.version == 1 {
                state.unpublished.push((key.clone(), 1));
            }
            (before, generation)
        };
        self.undo.push((key.clone(), before));
        let replaced = match before.filter(|before| !before.newest.tombstone) {
            Some(before) => self.replaced(&key, before, is_wanted)?,
            None => Replaced::default(),
        };
        let Generation { created, version } = generation;
        let (create_revision, mod_revision) = (Revision(created), Revision(self.main));
        let kv = KeyValue { key, value, create_revision, mod_revision, version, lease };
        self.events.push(Event { kind: EventKind::Put, kv, prev: replaced.kv.clone() });
        Ok(replaced)
    }

    fn replaced(&self, key: &[u8], before: Before, is_wanted: bool) -> Result<Replaced, Fault> {
        let is_wanted = is_wanted || self.store.prevs.is_wanted();
        if let Some(value_bytes) = before.sketch.value_bytes().filter(|_| !is_wanted) {
            return Ok(Replaced { kv: None, bytes: key.len() + value_bytes, lease: LeaseId::NONE });
        }
        let kv = self.row(before.newest)?;
        Ok(Replaced { bytes: kv.key.len() + kv.value.len(), lease: kv.lease, kv: Some(kv) })
    }

    /// Deletes all keys of a range and returns what they were, in the order of keys.
    pub fn delete_range(&mut self, range: &KeyRange) -> Result<Vec<KeyValue>, Fault> {
        let found = self.view(self.main).walk(range, usize::MAX, Direction::Ascending);
        let prevs = found.into_iter().map(|stamp| self.row(stamp)).collect::<Result<Vec<KeyValue>, Fault>>()?;
        for (step, some) in prevs.chunks(STEP_DELETES).enumerate() {
            let mut state = self.store.shared.state.write();
            for (offset, prev) in some.iter().enumerate() {
                let stamp = self.next_stamp(step * STEP_DELETES + offset, true);
                let before = state
                    .index
                    .delete(&prev.key, stamp)
                    .expect("what a walk found is live until the writer deletes it");
                state.unpublished.push((prev.key.clone(), -1));
                self.undo.push((prev.key.clone(), Some(before)));
            }
        }
        let mod_revision = Revision(self.main);
        self.events.extend(prevs.iter().map(|prev| Event {
            kind: EventKind::Delete,
            kv: KeyValue { key: prev.key.clone(), mod_revision, ..KeyValue::default() },
            prev: Some(prev.clone()),
        }));
        Ok(prevs)
    }

    /// Reads a range; sees the earlier writes of this request. Without a revision it reads the newest state, which has a revision
    /// of its own as soon as something was written.
    ///
    /// # Errors
    /// As [`super::Reader::range`]; here the current revision is that of the newest state.
    pub fn range(&self, query: &RangeQuery) -> Result<Result<RangeResult, Error>, Fault> {
        let newest = self.revision().0;
        let (at, known) = {
            let state = self.store.shared.state.read();
            match admit(query.revision, newest, state.compacted) {
                Ok(at) => (at, Known::of(&state, &query.range, at, newest, &[])),
                Err(error) => return Ok(Err(error)),
            }
        };
        // No pin: marks move only between requests, and the sweep stays below.
        // What members have room for must not decide what is replicated.
        self.view(at).range(query, newest, known, &mut Unmetered)
    }

    /// Reads one key; sees the earlier writes of this request.
    pub fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Fault> {
        let found = self.store.shared.state.read().index.find(key).and_then(|entry| entry.visible(self.main));
        found.map(|stamp| self.row(stamp)).transpose()
    }

    /// The newest revision so far: that of the request, once it has written.
    pub fn revision(&self) -> Revision {
        Revision(if self.is_empty() { self.store.current } else { self.main })
    }

    /// The version that the last write made.
    pub(super) fn last_written(&self) -> Option<&KeyValue> {
        self.events.last().map(|event| &event.kv)
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Puts the rows into `batch`; returns the current revision after it, and the events. Nothing written: no revision.
    ///
    /// Write `batch` to the engine before the next request begins. Readers see the revision after [`Store::publish`].
    pub fn finish(mut self, batch: &mut Batch) -> (Revision, Vec<Event>) {
        let events = std::mem::take(&mut self.events);
        self.undo.clear();
        if events.is_empty() {
            return (self.store.current(), events);
        }
        let first = batch.ops.len();
        batch.ops.reserve(events.len());
        for (sub, event) in events.iter().enumerate() {
            let tombstone = event.kind == EventKind::Delete;
            let value = if tombstone { record::encode_tombstone(&event.kv.key) } else { record::encode(&event.kv) };
            let stamp = Stamp { main: self.main, sub: sub_of(sub), tombstone };
            batch.put(Table::Versions, Bytes::copy_from_slice(&stamp.row_key()), value);
        }
        self.hold(&events, &batch.ops[first..]);
        self.store.current = self.main;
        (Revision(self.main), events)
    }

    /// Has the rows of puts held beside their keys, as far as there is room.
    fn hold(&self, events: &[Event], rows: &[(Table, Bytes, Option<Bytes>)]) {
        for (step, some) in events.chunks(STEP_HOLDS).enumerate() {
            let index = &mut self.store.shared.state.write().index;
            if index.hot.bytes_max() == 0 {
                return;
            }
            for (offset, event) in some.iter().enumerate().filter(|(_, event)| event.kind == EventKind::Put) {
                let sub = step * STEP_HOLDS + offset;
                let stamp = Stamp { main: self.main, sub: sub_of(sub), tombstone: false };
                if let Some(row) = &rows[sub].2 {
                    index.warm(&event.kv.key, stamp, row, For::Writer);
                }
            }
        }
    }

    /// Takes all writes back.
    pub fn abandon(self) {}

    /// The stamp of the write that comes after the events so far and `ahead` more.
    fn next_stamp(&self, ahead: usize, tombstone: bool) -> Stamp {
        Stamp { main: self.main, sub: sub_of(self.events.len() + ahead), tombstone }
    }

    fn view(&self, at: i64) -> View<'_, impl Fn(Stamp) -> Result<KeyValue, Fault> + '_> {
        View { shared: &self.store.shared, at, row: |stamp| self.row(stamp) }
    }

    /// The row of a version: one of our own, which no engine has yet, or an earlier one.
    fn row(&self, stamp: Stamp) -> Result<KeyValue, Fault> {
        match stamp.main == self.main {
            true => Ok(self.events[stamp.sub as usize].kv.clone()),
            false => self.store.shared.row(stamp),
        }
    }
}

impl Drop for WriteTxn<'_> {
    /// Takes back what was not finished, newest first.
    fn drop(&mut self) {
        let mut undo = std::mem::take(&mut self.undo);
        while !undo.is_empty() {
            let mut state = self.store.shared.state.write();
            for (key, before) in undo.drain(undo.len().saturating_sub(STEP_DELETES)..).rev() {
                // Under the same lock, or a reader's count would be ahead by what is no longer there.
                if state.index.undo(&key, before) {
                    state.unpublished.pop();
                }
            }
        }
    }
}

fn sub_of(position: usize) -> u32 {
    u32::try_from(position).expect("a request makes fewer than 2^32 writes")
}
