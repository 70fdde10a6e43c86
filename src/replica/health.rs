//! A disk that stalls: the member notices, and a leader steps down while it still can.

use super::run::Run;
use crate::raft::{Input, Role};
use std::{sync::atomic::Ordering, time::Duration};

impl Run {
    /// Tells raft when the log's disk has not answered for an election timeout, and when it answers again. The loop itself never
    /// waits for the disk, so the heartbeats of a leader with a dead one would go on for ever.
    pub(super) fn watch_disk(&mut self, now: Duration) {
        let busy_since = self.shared.facts.disk_busy_since_us.load(Ordering::Acquire);
        let waits =
            if busy_since == 0 { Duration::ZERO } else { now.saturating_sub(Duration::from_micros(busy_since)) };
        let stalls = waits >= self.election;
        if stalls == self.is_stalled {
            return;
        }
        self.is_stalled = stalls;
        let leads = self.node.status().role == Role::Leader;
        match stalls {
            true => {
                tracing::error!(waits = ?waits, leads, "the disk of the log does not answer: this member neither leads nor votes until it does")
            }
            false => tracing::info!("the disk of the log answers again"),
        }
        self.step(Input::DiskStalled(stalls));
    }
}
