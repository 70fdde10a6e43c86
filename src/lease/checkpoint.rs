//! Which leases are due to have their remaining time recorded in the log.
//!
//! Only a leader that records what is left spares its successors from giving every lease its full time again, and only that
//! keeps a lease from living for ever while leaders change. Renewals don't touch this queue; a lease that was just renewed comes
//! up, has nothing to record, and is put back.

use crate::types::LeaseId;
use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

/// How often a lease's remaining time is recorded. Leases that live no longer than this are not.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(300);

/// How many leases one command records at most.
pub const CHECKPOINTS_MAX: usize = 1_000;

/// Leases by the time of their next checkpoint.
#[derive(Default)]
pub(super) struct Checkpoints {
    queue: BinaryHeap<Reverse<(Duration, LeaseId)>>,
}

impl Checkpoints {
    pub(super) fn push(&mut self, id: LeaseId, at: Duration) {
        self.queue.push(Reverse((at, id)));
    }

    /// The next lease that is due.
    pub(super) fn pop(&mut self, now: Duration) -> Option<LeaseId> {
        let Reverse((at, _)) = self.queue.peek()?;
        if *at > now {
            return None;
        }
        self.queue.pop().map(|Reverse((_, id))| id)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn retain(&mut self, keep: impl Fn(LeaseId) -> bool) {
        self.queue.retain(|Reverse((_, id))| keep(*id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_come_up_in_the_order_of_their_times() {
        let mut queue = Checkpoints::default();
        queue.push(LeaseId(1), Duration::from_secs(20));
        queue.push(LeaseId(2), Duration::from_secs(10));
        assert_eq!(queue.pop(Duration::from_secs(9)), None);
        assert_eq!(queue.pop(Duration::from_secs(20)), Some(LeaseId(2)));
        assert_eq!(queue.pop(Duration::from_secs(20)), Some(LeaseId(1)));
        assert_eq!(queue.pop(Duration::from_secs(20)), None);
    }
}
