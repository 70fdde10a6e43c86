//! The leader's lease clock.
//!
//! Grants and revokes are replicated; how much time is left is the leader's business alone. A renewal is answered from here,
//! under a short lock, and never queues behind puts.

use crate::{
    lease::{Renewal, Terms, Wheel},
    types::LeaseId,
};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Most leases whose end is proposed in one tick, so that a mass expiry does not crowd out everything else.
const EXPIRED_PER_TICK: usize = 1_000;
/// Most leases whose remaining time goes into one checkpoint (etcd's bound).
const CHECKPOINTS_PER_TICK: usize = 1_000;

/// The wheel, with the clock that it runs on. Empty unless this member leads.
pub(super) struct Expiry {
    started: Instant,
    wheel: Mutex<Wheel>,
}

impl Expiry {
    pub(super) fn new() -> Expiry {
        Expiry { started: Instant::now(), wheel: Mutex::new(Wheel::default()) }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// This member leads now: every lease gets at least what it was promised.
    pub(super) fn promote(&self, leases: Vec<Terms>, extend: Duration) {
        let now = self.now();
        self.wheel.lock().promote(leases, now, extend);
    }

    /// This member leads no more.
    pub(super) fn demote(&self) {
        self.wheel.lock().demote();
    }

    pub(super) fn granted(&self, id: LeaseId, ttl_s: i64) {
        let now = self.now();
        self.wheel.lock().insert(id, ttl_s, now);
    }

    pub(super) fn revoked(&self, id: LeaseId) {
        self.wheel.lock().remove(id);
    }

    pub(super) fn checkpointed(&self, id: LeaseId, remaining_s: i64) {
        self.wheel.lock().checkpointed(id, remaining_s);
    }

    pub(super) fn renew(&self, id: LeaseId) -> Renewal {
        let now = self.now();
        self.wheel.lock().renew(id, now)
    }

    /// Whole seconds left; `None` if there is no such lease.
    pub(super) fn remaining_s(&self, id: LeaseId) -> Option<i64> {
        let now = self.now();
        let left = self.wheel.lock().remaining(id, now)?;
        Some(i64::try_from(left.as_secs()).unwrap_or(i64::MAX))
    }

    /// Leases that have run out, at most a chunk; each is named again after a while if it is still there.
    pub(super) fn expired(&self) -> Vec<LeaseId> {
        let now = self.now();
        self.wheel.lock().expired(now, EXPIRED_PER_TICK)
    }

    /// Leases whose remaining seconds are worth recording in the log, at most a chunk.
    pub(super) fn checkpoints(&self) -> Vec<(LeaseId, i64)> {
        let now = self.now();
        self.wheel.lock().checkpoints(now, CHECKPOINTS_PER_TICK)
    }
}
