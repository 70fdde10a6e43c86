//! When leases end, for whoever leads. Time is an argument: a duration since any fixed instant, never going back.
//!
//! A heap of "look at this lease then", beside a map that knows the real deadline. A renewal moves the deadline in the map and
//! leaves the heap alone; when its turn comes, a lease that was renewed meanwhile is put back. So renewing is one look-up, and
//! a lease passes through the heap about once per time to live however often it is renewed.

use super::{CHECKPOINT_EVERY, Terms, checkpoint::Checkpoints};
use crate::types::LeaseId;
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::Duration,
};

/// How long to wait for an expired lease's revocation before naming the lease again: its proposal may have been lost.
const RETRY_AFTER: Duration = Duration::from_secs(3);

/// The answer to [`Wheel::renew`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It lives for another `ttl_s` seconds.
    Renewed {
        /// Time to live in seconds.
        ttl_s: i64,
        /// The log still holds a shorter remaining time. Before the renewal is answered, a checkpoint with 0 seconds must have
        /// been applied: else a new leader would give the lease less than its holder was promised.
        reset_checkpoint: bool,
    },
    /// Its time is over, and its revocation may already be in the log: it must not be promised another second.
    Expired,
    /// There is no such lease.
    Unknown,
}

struct Timer {
    ttl_s: i64,
    deadline: Duration,
    /// When the heap has this lease; any other entry of the heap for it is stale.
    queued: Duration,
    /// Whether the log holds a remaining time below the full one.
    checkpointed: bool,
}

/// The clock of all leases.
#[derive(Default)]
pub struct Wheel {
    timers: HashMap<LeaseId, Timer>,
    queue: BinaryHeap<Reverse<(Duration, LeaseId)>>,
    checkpoints: Checkpoints,
}

impl Wheel {
    /// Starts to watch a lease that was just granted, or starts over with one that is watched.
    pub fn insert(&mut self, id: LeaseId, ttl_s: i64, now: Duration) {
        self.watch(id, ttl_s, now + seconds(ttl_s), false);
        self.schedule_checkpoint(id, ttl_s, now);
    }

    /// Takes over all leases upon becoming leader: each gets what the log says it has left, and `extend` (an election timeout,
    /// during which nobody could renew) on top.
    pub fn promote(&mut self, leases: impl IntoIterator<Item = Terms>, now: Duration, extend: Duration) {
        *self = Wheel::default();
        for Terms { id, ttl_s, remaining_s } in leases {
            let checkpointed = remaining_s > 0 && remaining_s < ttl_s;
            let left_s = if checkpointed { remaining_s } else { ttl_s };
            self.watch(id, ttl_s, now + seconds(left_s) + extend, checkpointed);
            self.schedule_checkpoint(id, ttl_s, now);
        }
    }

    /// Forgets everything upon losing the lead.
    pub fn demote(&mut self) {
        *self = Wheel::default();
    }

    /// Gives a lease its full time again.
    pub fn renew(&mut self, id: LeaseId, now: Duration) -> Renewal {
        let Some(timer) = self.timers.get_mut(&id) else { return Renewal::Unknown };
        if timer.deadline <= now {
            return Renewal::Expired;
        }
        // Never backwards: after a promotion there may be more left than the time to live.
        timer.deadline = timer.deadline.max(now + seconds(timer.ttl_s));
        Renewal::Renewed { ttl_s: timer.ttl_s, reset_checkpoint: timer.checkpointed }
    }

    /// Forgets a lease that was revoked.
    pub fn remove(&mut self, id: LeaseId) {
        self.timers.remove(&id);
        self.drop_stale();
    }

    /// What is left of a lease; zero if it is over, `None` if there is no such lease.
    pub fn remaining(&self, id: LeaseId, now: Duration) -> Option<Duration> {
        self.timers.get(&id).map(|timer| timer.deadline.saturating_sub(now))
    }

    /// At most `max` leases whose time is over, the longest expired first. Each is named again after a while, until it is
    /// removed.
    pub fn expired(&mut self, now: Duration, max: usize) -> Vec<LeaseId> {
        let mut expired = Vec::new();
        while expired.len() < max {
            let Some(Reverse((at, id))) = self.queue.peek().copied().filter(|Reverse((at, _))| *at <= now) else {
                break;
            };
            self.queue.pop();
            let Some(timer) = self.timers.get_mut(&id).filter(|timer| timer.queued == at) else { continue };
            timer.queued = if timer.deadline <= now {
                expired.push(id);
                now + RETRY_AFTER
            } else {
                timer.deadline
            };
            self.queue.push(Reverse((timer.queued, id)));
        }
        expired
    }

    /// At most `max` leases whose remaining seconds are worth recording in the log, for a leader to come.
    pub fn checkpoints(&mut self, now: Duration, max: usize) -> Vec<(LeaseId, i64)> {
        let mut due = Vec::new();
        while due.len() < max {
            let Some(id) = self.checkpoints.pop(now) else { break };
            let Some(timer) = self.timers.get(&id) else { continue };
            let left = timer.deadline.saturating_sub(now);
            // What is about to end is left to its end, and a full lease has nothing to record.
            let left_s = left.as_secs() + u64::from(left.subsec_nanos() > 0);
            if left_s > 0 && left_s < timer.ttl_s.unsigned_abs() {
                due.push((id, left_s as i64));
            }
            self.checkpoints.push(id, now + CHECKPOINT_EVERY);
        }
        due
    }

    /// Takes note of a checkpoint that was applied, this leader's or an earlier one's.
    pub fn checkpointed(&mut self, id: LeaseId, remaining_s: i64) {
        if let Some(timer) = self.timers.get_mut(&id) {
            timer.checkpointed = remaining_s > 0 && remaining_s < timer.ttl_s;
        }
    }

    /// How many leases are watched.
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Whether none is watched.
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }

    fn watch(&mut self, id: LeaseId, ttl_s: i64, deadline: Duration, checkpointed: bool) {
        self.timers.insert(id, Timer { ttl_s, deadline, queued: deadline, checkpointed });
        self.queue.push(Reverse((deadline, id)));
        self.drop_stale();
    }

    /// Short leases end before a checkpoint could tell anything.
    fn schedule_checkpoint(&mut self, id: LeaseId, ttl_s: i64, now: Duration) {
        if seconds(ttl_s) > CHECKPOINT_EVERY {
            self.checkpoints.push(id, now + CHECKPOINT_EVERY);
        }
    }

    /// Long leases that are granted and revoked in quick succession would fill the heaps with entries that mean nothing.
    /// Rebuilding once they are the larger half keeps the cost per call constant.
    fn drop_stale(&mut self) {
        let bound = 2 * self.timers.len() + 64;
        if self.queue.len() > bound {
            self.queue = self.timers.iter().map(|(id, timer)| Reverse((timer.queued, *id))).collect();
        }
        if self.checkpoints.len() > bound {
            self.checkpoints.retain(|id| self.timers.contains_key(&id));
        }
    }
}

/// A time to live of 0 or less is over at once.
fn seconds(ttl_s: i64) -> Duration {
    Duration::from_secs(ttl_s.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests;
