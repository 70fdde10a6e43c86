//! What puts, deletes, reads and compactions do.

use super::{
    Machine,
    command::{DeleteRange, Effect, Outcome, Put, Reply, Txn},
    quota,
    view::State,
};
use crate::{
    engine::Batch,
    mvcc::{KeyValue, RangeQuery, RangeResult, WriteTxn, is_before_any},
    types::{Error, Key, LeaseId, Revision, Stop},
};
use parking_lot::RwLock;

/// The writes of one entry, while they can still be taken back: dropped, it has changed nothing.
pub(super) struct Writes<'a> {
    txn: WriteTxn<'a>,
    state: &'a RwLock<State>,
    /// Before all writes of the entry: reads in it may not ask for more.
    current: Revision,
    /// The last compaction, or −1.
    compacted: Revision,
    /// Keys that go from one lease to another; to or from [`LeaseId::NONE`] if they have none.
    moves: Vec<(Key, LeaseId, LeaseId)>,
    live_bytes: i64,
}

impl Machine {
    pub(super) fn put(&mut self, put: Put, batch: &mut Batch, outcome: &mut Outcome) -> Result<Reply, Stop> {
        let mut writes = self.writes();
        let prev = writes.put(put)?;
        let done = writes.done(batch);
        self.keep(done, outcome);
        Ok(Reply::Put { prev })
    }

    pub(super) fn delete_range(
        &mut self,
        delete: &DeleteRange,
        batch: &mut Batch,
        outcome: &mut Outcome,
    ) -> Result<Reply, Stop> {
        let mut writes = self.writes();
        let (deleted, prevs) = writes.delete_range(delete)?;
        let done = writes.done(batch);
        self.keep(done, outcome);
        Ok(Reply::DeleteRange { deleted, prevs })
    }

    pub(super) fn txn(&mut self, txn: Txn, batch: &mut Batch, outcome: &mut Outcome) -> Result<Reply, Stop> {
        let mut writes = self.writes();
        let reply = writes.txn(txn)?;
        let done = writes.done(batch);
        self.keep(done, outcome);
        Ok(Reply::Txn(reply))
    }

    pub(super) fn range(&mut self, query: &RangeQuery) -> Result<Reply, Stop> {
        Ok(Reply::Range(self.writes().range(query)?))
    }

    pub(super) fn compact(&mut self, at: Revision, batch: &mut Batch, outcome: &mut Outcome) -> Result<Reply, Stop> {
        // Readers learn of the mark at once. They must not find it above the newest revision they can see.
        self.store.publish();
        self.store.compact(at, batch)?;
        outcome.effects.push(Effect::Compacted { revision: at });
        Ok(Reply::Compact)
    }

    /// Deletes `keys` at one revision, in their order.
    pub(super) fn delete_keys(&mut self, keys: Vec<Key>, batch: &mut Batch, outcome: &mut Outcome) -> Result<(), Stop> {
        let mut writes = self.writes();
        for key in keys {
            writes.delete_range(&DeleteRange { range: crate::types::KeyRange::One(key), prev_kv: false })?;
        }
        let done = writes.done(batch);
        self.keep(done, outcome);
        Ok(())
    }

    fn writes(&mut self) -> Writes<'_> {
        let (current, compacted) = (self.store.current(), self.store.compacted());
        let txn = self.store.begin();
        Writes { txn, state: &self.shared.state, current, compacted, moves: Vec::new(), live_bytes: 0 }
    }

    fn keep(&mut self, done: Done, outcome: &mut Outcome) {
        let live_bytes = self.mark.live_bytes.checked_add_signed(done.live_bytes);
        self.mark.live_bytes = live_bytes.expect("what is deleted was counted when it was put");
        if !done.events.is_empty() {
            outcome.events.push((done.revision, done.events));
        }
    }
}

/// What [`Writes::done`] leaves to its caller.
pub(super) struct Done {
    revision: Revision,
    events: Vec<crate::mvcc::Event>,
    live_bytes: i64,
}

impl Writes<'_> {
    pub(super) fn put(&mut self, put: Put) -> Result<Option<KeyValue>, Stop> {
        let Put { key, mut value, mut lease, prev_kv, ignore_value, ignore_lease } = put;
        if key.is_empty() {
            return Err(Error::EmptyKey.into());
        }
        if lease != LeaseId::NONE && self.state.read().leases.get(lease).is_none() {
            return Err(Error::LeaseNotFound.into());
        }
        if ignore_value || ignore_lease {
            let old = self.txn.get(&key)?.ok_or(Error::KeyNotFound)?;
            if ignore_value {
                value = old.value;
            }
            if ignore_lease {
                lease = old.lease;
            }
        }
        let size = key.len() + value.len();
        let replaced = self.txn.put_over(key.clone(), value, lease, prev_kv)?;
        self.live_bytes += size as i64 - replaced.bytes as i64;
        if replaced.lease != lease {
            self.moves.push((key, replaced.lease, lease));
        }
        Ok(replaced.kv.filter(|_| prev_kv))
    }

    pub(super) fn delete_range(&mut self, delete: &DeleteRange) -> Result<(i64, Vec<KeyValue>), Stop> {
        let prevs = self.txn.delete_range(&delete.range)?;
        self.live_bytes -= prevs.iter().map(quota::live_bytes).sum::<i64>();
        let leased = prevs.iter().filter(|prev| prev.lease != LeaseId::NONE);
        self.moves.extend(leased.map(|prev| (prev.key.clone(), prev.lease, LeaseId::NONE)));
        let deleted = prevs.len() as i64;
        Ok((deleted, if delete.prev_kv { prevs } else { Vec::new() }))
    }

    /// Reads; sees earlier writes of the same entry. What may be asked for was settled before the entry, whatever it wrote since.
    pub(super) fn range(&self, query: &RangeQuery) -> Result<RangeResult, Stop> {
        if query.revision > self.current {
            return Err(Error::FutureRev.into());
        }
        if is_before_any(query.revision, self.compacted) {
            return Err(Error::Compacted.into());
        }
        Ok(self.txn.range(query)??)
    }

    /// The newest revision so far.
    pub(super) fn revision(&self) -> Revision {
        self.txn.revision()
    }

    /// One key as it is now.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Stop> {
        Ok(self.txn.get(key)?)
    }

    /// Makes the writes stand.
    fn done(self, batch: &mut Batch) -> Done {
        let (revision, events) = self.txn.finish(batch);
        if !self.moves.is_empty() {
            let leases = &mut self.state.write().leases;
            for (key, from, to) in self.moves {
                leases.detach(from, &key);
                if to != LeaseId::NONE {
                    // A copy: the key is a slice of its entry, which would stay in memory as long as the lease.
                    leases.attach(to, Key::copy_from_slice(&key));
                }
            }
        }
        Done { revision, events, live_bytes: self.live_bytes }
    }
}
