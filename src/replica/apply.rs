//! The apply thread: committed entries → machine → replies, watchers, leases, waiting reads.

use super::{handle::Shared, hashes::Window, run::Inbox, snapshots};
use crate::{
    machine::{Effect, Machine, Outcome},
    types::{Entry, Fault, Index, MemberId, SnapshotMeta, Term},
};
use flume::{Receiver, Sender};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// What the state machine is given, in the order of the log.
pub(crate) enum Committed {
    /// Entries in order, without a gap.
    Entries(Vec<Entry>),
    /// The sealed store of another member takes the place of this one's.
    Restore(SnapshotMeta),
}

/// Owns the machine until the loop hangs up.
pub(crate) struct Apply {
    pub(super) machine: Machine,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Sender<Inbox>,
    /// Applies slower than this are logged.
    pub(super) warn_after: Duration,
    /// Term of the last applied entry that the loop was told of.
    pub(super) told_term: Term,
    /// Term in which this member was last seen to lead, so that it takes over the lease clock once a term.
    pub(super) led: Option<Term>,
    /// Added to what leases have left when the clock is taken over.
    pub(super) lease_extend: Duration,
}

impl Apply {
    /// Runs until the loop hangs up or something fails.
    pub(super) fn run(mut self, committed: Receiver<Committed>) {
        while let Ok(work) = committed.recv() {
            if let Err(fault) = self.turn(work) {
                return self.shared.fail(&fault);
            }
            if committed.is_empty() {
                self.rest();
            }
        }
    }

    /// The queue is empty. If the loop has left anything behind because it was full, it looks again now.
    pub(crate) fn rest(&self) {
        if self.shared.facts.held_back.swap(false, Ordering::AcqRel) {
            let _ = self.inbox.try_send(Inbox::Look);
        }
    }

    /// Applies one piece of work.
    pub(crate) fn turn(&mut self, work: Committed) -> Result<(), Fault> {
        match work {
            Committed::Entries(entries) => self.batch(entries),
            Committed::Restore(meta) => self.restore(&meta),
        }
    }

    fn batch(&mut self, entries: Vec<Entry>) -> Result<(), Fault> {
        let (started, count) = (self.shared.clock.now(), entries.len());
        let mut outcome = self.machine.apply(entries)?;
        let (index, term) = self.machine.applied();
        self.shared.hashes.lock().extend(std::mem::take(&mut outcome.hashes));
        self.shared.facts.applied.store(index.0, Ordering::Release);
        self.tell(outcome, started);
        if term > self.told_term {
            // After the replies: what has no answer now was not in the log before this term.
            self.told_term = term;
            let _ = self.inbox.send(Inbox::TermApplied(term));
        }
        self.take_over(term);
        self.settle(index, term);
        let took = self.shared.clock.now().saturating_sub(started);
        self.shared.facts.tally.apply.observe(took);
        if took > self.warn_after {
            self.shared.facts.tally.slow_applies.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(took = ?took, entries = count, applied = index.0, "apply request took too long");
        }
        Ok(())
    }

    fn restore(&mut self, meta: &SnapshotMeta) -> Result<(), Fault> {
        snapshots::install(&self.shared, &mut self.machine, meta)?;
        let SnapshotMeta { index, term, .. } = *meta;
        *self.shared.hashes.lock() = Window::starting_at(self.machine.view().state_hash());
        self.shared.facts.applied.store(index.0, Ordering::Release);
        // Revisions that nobody published: watchers read them from history.
        self.shared.hub.publish(Vec::new(), self.shared.reader.current());
        self.shared.swept.send_replace(self.shared.reader.swept());
        self.told_term = self.told_term.max(term);
        self.know_thyself();
        self.note_auth();
        self.settle(index, term);
        self.shared.facts.quarantined.store(false, Ordering::Release);
        let _ = self.inbox.send(Inbox::Restored(index));
        self.shared.sweep();
        Ok(())
    }

    fn settle(&self, index: Index, term: Term) {
        self.shared.reads.applied(index);
        *self.shared.facts.settled.lock() = (index, term);
    }

    /// Leases before replies: a client that has its grant may renew at once. Watchers before replies: whoever writes and then
    /// watches "from now" must not be told about the write. `started`: when the batch's turn came.
    fn tell(&mut self, outcome: Outcome, started: Duration) {
        self.shared.facts.tally.count(&outcome);
        for effect in &outcome.effects {
            match effect {
                Effect::LeaseGranted { id, ttl_s } => self.shared.expiry.granted(*id, *ttl_s),
                Effect::LeaseRevoked { id } => self.shared.expiry.revoked(*id),
                Effect::LeaseCheckpointed { id, remaining_s } => self.shared.expiry.checkpointed(*id, *remaining_s),
                Effect::Compacted { .. } => self.shared.sweep(),
                Effect::ConfChanged { index, change, conf_state } => {
                    // Before anybody else can be brought up to here, and answer.
                    self.shared.facts.alone.store(false, Ordering::Release);
                    let told =
                        Inbox::ConfChanged { index: *index, change: change.clone(), conf_state: conf_state.clone() };
                    // The loop is gone only when the member stops.
                    let _ = self.inbox.send(told);
                    self.know_thyself();
                }
                Effect::AlarmChanged => {}
                Effect::TokenIssued { token, user, revision } => {
                    self.shared.tokens.issued(token, user, *revision, self.shared.clock.now());
                }
                Effect::AuthDisabled => self.shared.tokens.end_all(),
                Effect::AuthChanged => self.note_auth(),
            }
        }
        if !outcome.events.is_empty() {
            self.shared.hub.publish(outcome.events, self.shared.reader.current());
        }
        let times = (started, self.shared.clock.now());
        self.shared.proposals.complete(outcome.replies, times, &self.shared.facts.tally.agreed);
    }

    /// Wakes those who hold streams: somebody may do other things now.
    fn note_auth(&self) {
        self.shared.auth_changed.send_replace(self.shared.view.auth_stamp());
    }

    /// What a change of members means for this one.
    fn know_thyself(&self) {
        let view = &self.shared.view;
        let learns = view.member(self.shared.member_id).is_some_and(|own| own.is_learner);
        self.shared.facts.learner.store(learns, Ordering::Release);
        if view.is_removed(self.shared.member_id) {
            self.shared.removed.send_replace(true);
        }
    }

    /// Once an entry of the own term is applied by a leader, it has applied all that earlier leaders had committed: now it may run
    /// the lease clock, and a lone voter may answer reads by itself.
    fn take_over(&mut self, term: Term) {
        let leader: Option<MemberId> = *self.shared.leader.borrow();
        let current = Term(self.shared.facts.term.load(Ordering::Relaxed));
        if leader != Some(self.shared.member_id) || term != current {
            return;
        }
        if self.led != Some(term) {
            self.led = Some(term);
            self.shared.expiry.promote(term, self.shared.view.lease_terms(), self.lease_extend);
        }
        // Asked each time: another member may have come since. A learner too: it may apply an entry before this member does, its own
        // promotion and what follows it included, and then it answers.
        let conf = self.shared.view.conf_state();
        let alone =
            conf.voters == [self.shared.member_id] && conf.voters_outgoing.is_empty() && conf.learners.is_empty();
        self.shared.facts.alone.store(alone, Ordering::Release);
    }
}
