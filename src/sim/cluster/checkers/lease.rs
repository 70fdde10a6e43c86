//! Leases: a promise of time is kept by some clock.
//!
//! A lease may be ended when its time has passed since the last renewal that was answered, by the clock of whoever leads. Which clock that
//! is does not matter here: it must have passed by *some* machine's. A renewal counts from its call on, as the leader may have seen it then.

use super::{Checkers, Rule, Violation, broken};
use crate::types::{Index, LeaseId};
use std::collections::BTreeMap;

/// A lease that a client was promised.
struct Promised {
    ttl_us: u64,
    /// What the machines' clocks showed when the last grant or renewal was asked for that was answered.
    since: Vec<u64>,
    /// A client has asked for its end.
    is_given_up: bool,
}

/// All of them.
#[derive(Default)]
pub struct Leases(BTreeMap<LeaseId, Promised>);

impl Leases {
    /// A client was promised `ttl_s` seconds, from when it asked.
    pub fn promised(&mut self, id: LeaseId, ttl_s: i64, asked: Vec<u64>) {
        let ttl_us = ttl_s.unsigned_abs() * 1_000_000;
        let promised =
            self.0.entry(id).or_insert_with(|| Promised { ttl_us, since: asked.clone(), is_given_up: false });
        for (at, clock) in asked.into_iter().enumerate() {
            match promised.since.get_mut(at) {
                Some(since) => *since = clock.max(*since),
                None => promised.since.push(clock),
            }
        }
    }

    /// A client asks for its end.
    pub fn given_up(&mut self, id: LeaseId) {
        if let Some(promised) = self.0.get_mut(&id) {
            promised.is_given_up = true;
        }
    }

    /// Whether it must be alive when the clocks show this.
    fn must_live(&self, id: LeaseId, clocks: &[u64]) -> bool {
        self.0.get(&id).is_some_and(|promised| {
            // The clock of a machine that is new since has begun with 0.
            let since = |at: usize| promised.since.get(at).copied().unwrap_or(0);
            let passed = clocks.iter().enumerate().map(|(at, now)| now - since(at)).max().unwrap_or(0);
            !promised.is_given_up && passed < promised.ttl_us
        })
    }

    /// It was ended by the entry at `index`.
    pub(super) fn revoked(&mut self, id: LeaseId, index: Index, clocks: &[u64]) -> Result<(), Violation> {
        if self.must_live(id, clocks) {
            let promised = &self.0[&id];
            let text = format!("{id} is ended at {index}, before its {} us have passed by any clock", promised.ttl_us);
            return broken(Rule::Lease, text);
        }
        Ok(())
    }
}

impl Checkers {
    /// A renewal that was asked for at `asked`, when all up to `known` was committed, was answered: that the lease lives, or that there is
    /// no such lease.
    ///
    /// # Errors
    /// What is wrong with that.
    pub fn renewed(
        &mut self,
        id: LeaseId,
        answer: Option<i64>,
        known: Index,
        asked: Vec<u64>,
        now: &[u64],
    ) -> Result<(), Violation> {
        let (granted, revoked) = self.oracle.lease(id);
        match answer {
            Some(ttl_s) => {
                if granted.is_none() || revoked.is_some_and(|revoked| revoked <= known) {
                    return broken(Rule::Lease, format!("{id} is renewed, but {granted:?} to {revoked:?} is its life"));
                }
                self.leases.promised(id, ttl_s, asked);
                Ok(())
            }
            None if revoked.is_none() && self.leases.must_live(id, now) => {
                broken(Rule::Lease, format!("{id} lives, but a renewal is told that there is no such lease"))
            }
            None => Ok(()),
        }
    }
}
