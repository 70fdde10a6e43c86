//! The apply thread: committed entries → machine → replies, watchers, leases, waiting reads.

use super::{handle::Shared, run::Inbox};
use crate::{
    machine::{Effect, Machine, Outcome},
    types::{Entry, Fault, MemberId, Term},
};
use crossbeam_channel::{Receiver, Sender};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// Entries in order, without a gap.
pub(super) struct Committed {
    pub(super) entries: Vec<Entry>,
}

/// Owns the machine until the loop hangs up.
pub(super) struct Apply {
    pub(super) machine: Machine,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Sender<Inbox>,
    /// Applies slower than this are logged.
    pub(super) warn_after: Duration,
    /// Term in which this member was last seen to lead, so that it takes over the lease clock once a term.
    pub(super) led: Option<Term>,
    /// Added to what leases have left when the clock is taken over.
    pub(super) lease_extend: Duration,
}

impl Apply {
    /// Runs until the loop hangs up or something fails.
    pub(super) fn run(mut self, committed: Receiver<Committed>) {
        while let Ok(batch) = committed.recv() {
            if let Err(fault) = self.batch(batch.entries) {
                return self.shared.fail(&fault);
            }
            if committed.is_empty() {
                // The queue was full if the loop left anything behind; it looks again now.
                let _ = self.inbox.try_send(Inbox::Look);
            }
        }
    }

    fn batch(&mut self, entries: Vec<Entry>) -> Result<(), Fault> {
        let (started, count) = (Instant::now(), entries.len());
        let outcome = self.machine.apply(entries)?;
        let (index, term) = self.machine.applied();
        self.shared.facts.applied.store(index.0, Ordering::Release);
        self.tell(outcome);
        self.take_over(term);
        self.shared.reads.applied(index);
        *self.shared.facts.settled.lock() = (index, term);
        let took = started.elapsed();
        if took > self.warn_after {
            tracing::warn!(took = ?took, entries = count, applied = index.0, "apply request took too long");
        }
        Ok(())
    }

    /// Leases before replies: a client that has its grant may renew at once. Watchers before replies: whoever writes and then
    /// watches "from now" must not be told about the write.
    fn tell(&mut self, outcome: Outcome) {
        for effect in &outcome.effects {
            match effect {
                Effect::LeaseGranted { id, ttl_s } => self.shared.expiry.granted(*id, *ttl_s),
                Effect::LeaseRevoked { id } => self.shared.expiry.revoked(*id),
                Effect::LeaseCheckpointed { id, remaining_s } => self.shared.expiry.checkpointed(*id, *remaining_s),
                Effect::Compacted { .. } => self.shared.sweep.notify_one(),
                Effect::ConfChanged { index, change, conf_state } => {
                    let told =
                        Inbox::ConfChanged { index: *index, change: change.clone(), conf_state: conf_state.clone() };
                    // The loop is gone only when the member stops.
                    let _ = self.inbox.send(told);
                }
                Effect::AlarmChanged => {}
            }
        }
        if !outcome.events.is_empty() {
            self.shared.hub.publish(outcome.events, self.shared.reader.current());
        }
        self.shared.proposals.complete(outcome.replies);
    }

    /// Once an entry of the own term is applied by a leader, it has applied all that earlier leaders had committed: now it may run
    /// the lease clock, and a lone voter may answer reads by itself.
    fn take_over(&mut self, term: Term) {
        let leader: Option<MemberId> = *self.shared.leader.borrow();
        let current = Term(self.shared.facts.term.load(Ordering::Relaxed));
        if leader != Some(self.shared.member_id) || term != current || self.led == Some(term) {
            return;
        }
        self.led = Some(term);
        self.shared.expiry.promote(self.shared.view.lease_terms(), self.lease_extend);
        let voters = self.shared.view.conf_state().voters;
        self.shared.facts.alone.store(voters == [self.shared.member_id], Ordering::Release);
    }
}
