//! The leader's lease clock.
//!
//! Grants and revokes are replicated; how much time is left is the leader's business alone. A renewal is answered from here,
//! under a short lock, and never queues behind puts.

use crate::{
    io::Clock,
    lease::{Renewal, Terms, Wheel},
    types::{LeaseId, Term},
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Most leases whose end is proposed in one tick, so that a mass expiry does not crowd out everything else.
const EXPIRED_PER_TICK: usize = 1_000;
/// Most leases whose remaining time goes into one checkpoint (etcd's bound).
const CHECKPOINTS_PER_TICK: usize = 1_000;

/// The wheel, with the clock that it runs on. Empty unless this member leads.
pub(super) struct Expiry {
    clock: Arc<dyn Clock>,
    wheel: Mutex<Running>,
    /// Renewals that were granted.
    renewed: AtomicU64,
}

#[derive(Default)]
struct Running {
    /// The term that this member leads, once it has applied all that earlier leaders left.
    term: Option<Term>,
    wheel: Wheel,
}

impl Expiry {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Expiry {
        Expiry { clock, wheel: Mutex::default(), renewed: AtomicU64::default() }
    }

    /// This member leads `term` now, and has applied all before it: every lease gets at least what it was promised.
    pub(super) fn promote(&self, term: Term, leases: Vec<Terms>, extend: Duration) {
        let now = self.clock.now();
        let mut running = self.wheel.lock();
        running.term = Some(term);
        running.wheel.promote(leases, now, extend);
    }

    /// This member leads no more.
    pub(super) fn demote(&self) {
        let mut running = self.wheel.lock();
        if running.term.take().is_some() {
            running.wheel.demote();
        }
    }

    /// Whether the clock runs, and for `term`.
    pub(super) fn runs_in(&self, term: Term) -> bool {
        self.wheel.lock().term == Some(term)
    }

    pub(super) fn granted(&self, id: LeaseId, ttl_s: i64) {
        let now = self.clock.now();
        let mut running = self.wheel.lock();
        // Whoever does not lead finds the lease in the state when it does.
        if running.term.is_some() {
            running.wheel.insert(id, ttl_s, now);
        }
    }

    pub(super) fn revoked(&self, id: LeaseId) {
        self.wheel.lock().wheel.remove(id);
    }

    pub(super) fn checkpointed(&self, id: LeaseId, remaining_s: i64) {
        self.wheel.lock().wheel.checkpointed(id, remaining_s);
    }

    /// Renews leases: the seconds of each, or `None` if there is no such lease; and what has to be recorded in the log before anybody
    /// is told, so that a new leader does not give a lease less.
    pub(super) fn renew_all(&self, ids: &[LeaseId]) -> (Vec<Option<i64>>, Vec<(LeaseId, i64)>) {
        let now = self.clock.now();
        let mut resets = Vec::new();
        let wheel = &mut self.wheel.lock().wheel;
        let renew = |id: &LeaseId| match wheel.renew(*id, now) {
            Renewal::Renewed { ttl_s, reset_checkpoint } => {
                if reset_checkpoint {
                    resets.push((*id, 0));
                }
                Some(ttl_s)
            }
            Renewal::Expired | Renewal::Unknown => None,
        };
        let seconds = ids.iter().map(renew).collect::<Vec<_>>();
        self.renewed.fetch_add(seconds.iter().flatten().count() as u64, Ordering::Relaxed);
        (seconds, resets)
    }

    /// How many renewals were granted so far.
    pub(super) fn renewed(&self) -> u64 {
        self.renewed.load(Ordering::Relaxed)
    }

    /// Whole seconds left; `None` if there is no such lease.
    pub(super) fn remaining_s(&self, id: LeaseId) -> Option<i64> {
        let now = self.clock.now();
        let left = self.wheel.lock().wheel.remaining(id, now)?;
        Some(i64::try_from(left.as_secs()).unwrap_or(i64::MAX))
    }

    /// Leases that have run out, at most a chunk; each is named again after a while if it is still there.
    pub(super) fn expired(&self) -> Vec<LeaseId> {
        let now = self.clock.now();
        self.wheel.lock().wheel.expired(now, EXPIRED_PER_TICK)
    }

    /// Leases whose remaining seconds are worth recording in the log, at most a chunk.
    pub(super) fn checkpoints(&self) -> Vec<(LeaseId, i64)> {
        let now = self.clock.now();
        self.wheel.lock().wheel.checkpoints(now, CHECKPOINTS_PER_TICK)
    }
}
