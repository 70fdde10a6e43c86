//! How full the store is.
//!
//! A quota is one member's setting and its store's size is that member's own, so neither may decide what an entry does: a member
//! over its quota refuses what it would propose, and raises the NOSPACE alarm through the log; the alarm then decides, on all
//! members alike. What *is* replicated is the count of live bytes: keys and values that can be read now. Superseded versions are
//! left out of it, for when they go depends on each member's sweep.

use super::command::{Command, Op, Put, Txn};
use crate::{
    engine::{Batch, Size},
    mvcc::KeyValue,
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a quota of 0 stands for: 2 GiB.
pub const QUOTA_BYTES_DEFAULT: i64 = 2 << 30;

/// The most that a row costs beside its key and value.
const ROW_BYTES: u64 = 64;

/// A guess at the store's size that is good enough between two measurements.
pub(super) struct Quota {
    /// `None` is no quota at all.
    limit: Option<u64>,
    /// At the last measurement.
    measured: AtomicU64,
    /// Written since then.
    since: AtomicU64,
    /// Not yet flushed at the last measurement, and so not in it.
    unflushed: AtomicU64,
}

impl Quota {
    /// `bytes` as in the flag: 0 is the default, negative is none.
    pub(super) fn new(bytes: i64) -> Quota {
        let bytes = if bytes == 0 { QUOTA_BYTES_DEFAULT } else { bytes };
        Quota {
            limit: u64::try_from(bytes).ok(),
            measured: AtomicU64::new(0),
            since: AtomicU64::new(0),
            unflushed: AtomicU64::new(0),
        }
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Takes note of a measurement.
    pub(super) fn measure(&self, size: Size, unflushed: usize) {
        self.since.store(0, Relaxed);
        self.unflushed.store(unflushed as u64, Relaxed);
        self.measured.store(size.used_bytes, Relaxed);
    }

    /// Takes note of rows that go to the store.
    pub(super) fn count(&self, rows: &Batch) {
        let row = |value: &Option<bytes::Bytes>| value.as_ref().map_or(0, |value| value.len() as u64);
        let bytes: u64 = rows.ops.iter().map(|(_, key, value)| key.len() as u64 + row(value)).sum();
        self.since.fetch_add(bytes, Relaxed);
    }

    /// Bytes in use, as far as is known.
    pub(super) fn used(&self) -> u64 {
        [&self.measured, &self.since, &self.unflushed].iter().map(|bytes| bytes.load(Relaxed)).sum()
    }

    /// Whether `extra_bytes` more would reach the quota.
    pub(super) fn is_exceeded(&self, live_bytes: u64, extra_bytes: u64) -> bool {
        let used = self.used().max(live_bytes);
        self.limit.is_some_and(|limit| used.saturating_add(extra_bytes).saturating_add(ROW_BYTES) > limit)
    }
}

impl Command {
    /// About how many bytes the store grows by, at most; `None` for commands that a full store takes too.
    pub fn growth_bytes(&self) -> Option<u64> {
        match self {
            Command::Put(put) => Some(put_bytes(put)),
            Command::Txn(txn) if txn.may_put() => Some(txn_bytes(txn)),
            Command::LeaseGrant { .. } => Some(ROW_BYTES),
            _ => None,
        }
    }
}

fn put_bytes(put: &Put) -> u64 {
    // The key is in the row and, once more, in what points to it.
    2 * put.key.len() as u64 + put.value.len() as u64 + ROW_BYTES
}

/// Of the longer branch.
fn txn_bytes(txn: &Txn) -> u64 {
    let branch = |ops: &[Op]| ops.iter().map(op_bytes).sum::<u64>();
    branch(&txn.success).max(branch(&txn.failure))
}

fn op_bytes(op: &Op) -> u64 {
    match op {
        Op::Put(put) => put_bytes(put),
        Op::Txn(txn) => txn_bytes(txn),
        Op::Range(_) | Op::DeleteRange(_) => 0,
    }
}

/// What a version adds to the live bytes while it is the newest of its key.
pub(super) fn live_bytes(kv: &KeyValue) -> i64 {
    (kv.key.len() + kv.value.len()) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nought_is_the_default_and_less_is_none() {
        assert_eq!(Quota::new(0).limit(), Some(2 << 30));
        assert_eq!(Quota::new(-1).limit(), None);
        assert!(!Quota::new(-1).is_exceeded(u64::MAX, u64::MAX));
    }

    #[test]
    fn what_was_written_since_the_last_measurement_counts() {
        let quota = Quota::new(1000);
        assert!(!quota.is_exceeded(0, 500));
        let mut rows = Batch::default();
        rows.put(crate::engine::Table::Versions, "k", vec![0; 499]);
        quota.count(&rows);
        assert!(quota.is_exceeded(0, 500));
        quota.measure(Size::default(), 500);
        assert!(quota.is_exceeded(0, 500));
        quota.measure(Size::default(), 0);
        assert!(!quota.is_exceeded(0, 500));
        assert!(quota.is_exceeded(500, 500));
    }
}
