//! What a member counts for whoever watches over it. Nothing here decides anything.

use super::{handle::Handle, snapshots::Arrival};
use crate::{
    machine::{Effect, OpReply, Outcome, Reply, TxnReply},
    metrics::{Histogram, doubling},
    mvcc::EventKind,
};
use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed},
    },
    time::Duration,
};

/// etcd's, for all that a disk does.
const DISK_BOUNDS_S: &[f64] = &doubling::<14>(0.001);
/// For what is faster.
const STEP_BOUNDS_S: &[f64] = &doubling::<20>(0.000_05);
/// etcd's, for steps of a sweep, and for all of it.
const SWEEP_STEP_BOUNDS_MS: &[f64] = &doubling::<13>(1.0);
const SWEEP_BOUNDS_MS: &[f64] = &doubling::<14>(100.0);
/// etcd's, for the time to live of leases.
const TTL_BOUNDS_S: &[f64] = &doubling::<24>(1.0);

/// Numbers that only grow. Each is written once for a batch, without locks.
#[derive(Debug)]
pub struct Tally {
    /// Leaders that this member has seen come, itself included.
    pub leader_changes: AtomicU64,
    /// Batches whose apply took longer than `warning-apply-duration`.
    pub slow_applies: AtomicU64,
    /// Writes of the log, one for each batch.
    pub wal_write: Histogram,
    /// Syncs of the log, one for each batch.
    pub wal_fsync: Histogram,
    /// Bytes that this process has written to the log.
    pub wal_bytes: AtomicU64,
    /// Flushes of the store that wrote something.
    pub flush: Histogram,
    /// Batches of entries, from the machine to the replies.
    pub apply: Histogram,
    /// Proposals made here, from the call until raft took them.
    pub queued: Histogram,
    /// From then until they were committed, on this disk, and their turn came to be applied.
    pub agreed: Histogram,
    /// Steps of the sweep after compactions: each holds up writers for moments only.
    pub sweep_step: Histogram,
    /// Sweeps from their first step to their last.
    pub sweep: Histogram,
    /// When the sweep under way began, and when the last one ended, in microseconds of the clock; 0 if there is none.
    pub(super) sweep_since_us: AtomicU64,
    pub(super) swept_at_us: AtomicU64,
    /// Puts that were applied, those of transactions included.
    pub puts: AtomicU64,
    /// Bytes of their keys and values.
    pub put_bytes: AtomicU64,
    /// Deletes that were applied, of however many keys; and keys that went with their lease.
    pub deletes: AtomicU64,
    /// Ranges in transactions that write.
    pub ranges: AtomicU64,
    /// Transactions of more than one of these.
    pub txns: AtomicU64,
    /// Leases that were granted, by their time to live.
    pub lease_ttl: Histogram,
    /// Leases that were revoked, those that had run out included.
    pub leases_revoked: AtomicU64,
    /// Revokes that this member proposed as leader because a lease had run out; some of them more than once.
    pub leases_expired: AtomicU64,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            leader_changes: AtomicU64::default(),
            slow_applies: AtomicU64::default(),
            wal_write: Histogram::of_seconds(DISK_BOUNDS_S),
            wal_fsync: Histogram::of_seconds(DISK_BOUNDS_S),
            wal_bytes: AtomicU64::default(),
            flush: Histogram::of_seconds(DISK_BOUNDS_S),
            apply: Histogram::of_seconds(STEP_BOUNDS_S),
            queued: Histogram::of_seconds(STEP_BOUNDS_S),
            agreed: Histogram::of_seconds(STEP_BOUNDS_S),
            sweep_step: Histogram::of_millis(SWEEP_STEP_BOUNDS_MS),
            sweep: Histogram::of_millis(SWEEP_BOUNDS_MS),
            sweep_since_us: AtomicU64::default(),
            swept_at_us: AtomicU64::default(),
            puts: AtomicU64::default(),
            put_bytes: AtomicU64::default(),
            deletes: AtomicU64::default(),
            ranges: AtomicU64::default(),
            txns: AtomicU64::default(),
            lease_ttl: Histogram::of_numbers(TTL_BOUNDS_S),
            leases_revoked: AtomicU64::default(),
            leases_expired: AtomicU64::default(),
        }
    }
}

/// Where the time of a proposal went. What is missing of the whole is the way to the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// Until raft took it, or it was on its way to the leader.
    pub queued: Duration,
    /// Until a quorum had it on disk, this member too, and its turn came to be applied.
    pub agreed: Duration,
    /// Until its batch was applied.
    pub applied: Duration,
}

/// What a batch of entries did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    puts: u64,
    put_bytes: u64,
    deletes: u64,
    ranges: u64,
    txns: u64,
}

impl Done {
    /// Counts as etcd does: what one request does is a transaction if it is more than one thing.
    fn of(outcome: &Outcome) -> Done {
        let (mut done, mut last) = (Done::default(), None);
        for applied in &outcome.replies {
            let before = done.steps();
            match &applied.result {
                Ok(Reply::Put { .. }) => done.puts += 1,
                Ok(Reply::DeleteRange { .. }) => done.deletes += 1,
                Ok(Reply::Range(_)) => done.ranges += 1,
                Ok(Reply::Txn(reply)) => done.txn(reply),
                // One that had no keys made no revision.
                Ok(Reply::LeaseRevoke) if last != Some(applied.revision) => {
                    let at = outcome.events.binary_search_by_key(&applied.revision, |(revision, _)| *revision);
                    done.deletes += at.map_or(0, |at| outcome.events[at].1.len() as u64);
                }
                _ => {}
            }
            done.txns += u64::from(done.steps() - before > 1);
            last = Some(applied.revision);
        }
        let events = outcome.events.iter().flat_map(|(_, events)| events);
        let puts = events.filter(|event| event.kind == EventKind::Put);
        done.put_bytes = puts.map(|event| (event.kv.key.len() + event.kv.value.len()) as u64).sum();
        done
    }

    fn txn(&mut self, reply: &TxnReply) {
        for step in &reply.responses {
            match step {
                OpReply::Put { .. } => self.puts += 1,
                OpReply::DeleteRange { .. } => self.deletes += 1,
                OpReply::Range(_) => self.ranges += 1,
                OpReply::Txn(reply) => self.txn(reply),
            }
        }
    }

    fn steps(&self) -> u64 {
        self.puts + self.deletes + self.ranges
    }
}

impl Tally {
    /// Takes note of a step of the sweep, from `began` to `now`, and whether it was the last.
    pub(super) fn swept(&self, began: Duration, now: Duration, is_last: bool) {
        let micros = |at: Duration| (at.as_micros() as u64).max(1);
        self.sweep_step.observe(now.saturating_sub(began));
        if self.sweep_since_us.load(Relaxed) == 0 {
            self.sweep_since_us.store(micros(began), Relaxed);
        }
        if is_last {
            let since = Duration::from_micros(self.sweep_since_us.swap(0, Relaxed));
            self.sweep.observe(now.saturating_sub(since));
            self.swept_at_us.store(micros(now), Relaxed);
        }
    }

    /// Takes note of what a batch of entries did.
    pub(super) fn count(&self, outcome: &Outcome) {
        let Done { puts, put_bytes, deletes, ranges, txns } = Done::of(outcome);
        let counts = [
            (&self.puts, puts),
            (&self.put_bytes, put_bytes),
            (&self.deletes, deletes),
            (&self.ranges, ranges),
            (&self.txns, txns),
        ];
        for (count, more) in counts.into_iter().filter(|(_, more)| *more > 0) {
            count.fetch_add(more, Relaxed);
        }
        for effect in &outcome.effects {
            match effect {
                Effect::LeaseGranted { ttl_s, .. } => self.lease_ttl.observe_number(u64::try_from(*ttl_s).unwrap_or(0)),
                Effect::LeaseRevoked { .. } => drop(self.leases_revoked.fetch_add(1, Relaxed)),
                _ => {}
            }
        }
    }
}

impl Handle {
    /// What this member has counted since it started.
    pub fn tally(&self) -> &Tally {
        &self.shared.facts.tally
    }

    /// How many renewals of leases this member has granted as leader.
    pub fn leases_renewed(&self) -> u64 {
        self.shared.expiry.renewed()
    }

    /// What waits in queues now, by what it waits for.
    pub fn waiting(&self) -> [(&'static str, usize); 3] {
        let applied = self.shared.facts.applied.load(Acquire);
        let committed = self.shared.facts.committed.load(Acquire);
        let to_apply = usize::try_from(committed.saturating_sub(applied)).unwrap_or(usize::MAX);
        [("raft", self.shared.inbox.len()), ("apply", to_apply), ("reply", self.shared.proposals.len())]
    }

    /// Whether the state of another member is about to take the place of this one's.
    pub fn is_taking_over(&self) -> bool {
        matches!(*self.shared.arrival.lock(), Arrival::Whole)
    }

    /// How long ago the last sweep after a compaction ended; `None` if there was none since the start.
    pub fn swept_ago(&self) -> Option<Duration> {
        let at_us = self.shared.facts.tally.swept_at_us.load(Relaxed);
        (at_us > 0).then(|| self.shared.clock.now().saturating_sub(Duration::from_micros(at_us)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        machine::{Applied, RequestId},
        mvcc::{Event, KeyValue},
        types::{Error, Index, LeaseId, Revision},
    };

    fn events(kind: EventKind, keys: &[&'static str]) -> Vec<Event> {
        let kv = |key: &&'static str| KeyValue { key: (*key).into(), value: "value".into(), ..KeyValue::default() };
        keys.iter().map(|key| Event { kind, kv: kv(key), prev: None }).collect()
    }

    fn applied(revision: i64, result: Result<Reply, Error>) -> Applied {
        Applied { index: Index(revision as u64), request: RequestId(0), result, revision: Revision(revision) }
    }

    #[test]
    fn requests_are_counted_as_etcd_counts_them() {
        let put = || OpReply::Put { prev: None };
        let delete = OpReply::DeleteRange { deleted: 2, prevs: Vec::new(), revision: Revision(3) };
        let nested = OpReply::Txn(TxnReply { succeeded: true, responses: vec![put(), delete] });
        let txn = TxnReply { succeeded: true, responses: vec![put(), nested] };
        let one = TxnReply { succeeded: true, responses: vec![put()] };
        let outcome = Outcome {
            replies: vec![
                applied(2, Ok(Reply::Put { prev: None })),
                applied(3, Ok(Reply::Txn(txn))),
                applied(4, Ok(Reply::Txn(one))),
                applied(4, Err(Error::LeaseNotFound)),
                applied(4, Ok(Reply::LeaseRevoke)),
                applied(5, Ok(Reply::LeaseRevoke)),
                applied(6, Ok(Reply::DeleteRange { deleted: 2, prevs: Vec::new() })),
            ],
            events: vec![
                (Revision(2), events(EventKind::Put, &["a"])),
                (Revision(3), events(EventKind::Put, &["bb", "c"])),
                (Revision(4), events(EventKind::Put, &["d"])),
                (Revision(5), events(EventKind::Delete, &["d", "a", "c"])),
                (Revision(6), events(EventKind::Delete, &["x", "y"])),
            ],
            effects: vec![
                Effect::LeaseGranted { id: LeaseId(1), ttl_s: 60 },
                Effect::LeaseRevoked { id: LeaseId(2) },
                Effect::LeaseRevoked { id: LeaseId(3) },
            ],
            hashes: Vec::new(),
        };
        let tally = Tally::default();
        tally.count(&outcome);
        let counts = [&tally.puts, &tally.put_bytes, &tally.deletes, &tally.ranges, &tally.txns, &tally.leases_revoked];
        assert_eq!(counts.map(|count| count.load(Relaxed)), [4, 25, 5, 0, 2, 2]);
        let ttl = tally.lease_ttl.read();
        assert_eq!((ttl.count, ttl.sum), (1, 60.0));
    }
}
