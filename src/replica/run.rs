//! The loop: drain, step, act. The only owner of the raft node; it never waits for a disk.

use super::{
    apply::Committed,
    compactor::AutoCompactor,
    desk::Desk,
    handle::Shared,
    hashes::Disputes,
    letters,
    narrow::Narrow,
    pace::Pace,
    persist::{Save, ToDisk},
    reads::Waiting,
    retention::Retention,
    roster::Roster,
    transport::{Answer, Forwarded, PeerMessage},
};
use crate::{
    machine::RequestId,
    raft::{ConfChange, Input, Node, Output, Role},
    types::{ConfState, Error, Index, MemberId, SnapshotMeta, Term},
};
use flume::{Receiver, Sender, TrySendError};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::oneshot;

/// Most messages that become one step: one append, one sync.
const BATCH_MAX: usize = 4_096;
/// Most committed entries that go to apply as one batch.
const APPLY_BATCH_ENTRIES_MAX: u64 = 1_024;

/// What reaches the loop.
pub(crate) enum Inbox {
    IsReady {
        member: MemberId,
        reply: oneshot::Sender<Result<bool, Error>>,
    },
    /// Hand the lead to this member, or to the best one.
    Transfer {
        to: Option<MemberId>,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// What another member says.
    Peer {
        from: MemberId,
        messages: Vec<PeerMessage>,
    },
    /// A question of the own desk was answered by this member itself.
    Answered {
        id: u64,
        answer: Answer,
    },
    /// Something is to be picked up elsewhere: fresh proposals, reads, calls about leases, what the disk has completed, or room in front of apply.
    Look,
    /// A change of membership was applied.
    ConfChanged {
        index: Index,
        change: ConfChange,
        conf_state: ConfState,
    },
    /// The first entry of a term was applied.
    TermApplied(Term),
    /// The store has everything up to this entry on disk.
    Flushed((Index, Term)),
    /// A snapshot for a follower is ready, or could not be made.
    SnapshotMade {
        to: MemberId,
        index: Option<Index>,
    },
    /// The state of another member lies sealed on this member's disk.
    Incoming(SnapshotMeta),
    /// The state machine has taken it over.
    Restored(Index),
    /// Seek election at once, instead of waiting for a timeout: a lone voter has nobody to wait for.
    Campaign,
    Stop,
}

/// A caller that waits for another member to lead.
pub(super) struct Transfer {
    pub(super) to: MemberId,
    pub(super) deadline: Duration,
    pub(super) reply: oneshot::Sender<Result<(), Error>>,
}

/// What the loop owns.
pub(crate) struct Run {
    pub(super) node: Node,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Receiver<Inbox>,
    pub(super) disk: ToDisk,
    pub(super) apply: Sender<Committed>,
    pub(super) heartbeat: Duration,
    /// How long a member waits for a leader before it seeks election, at least.
    pub(super) election: Duration,
    pub(super) next_tick: Duration,
    pub(super) narrow: Narrow,
    pub(super) pace: Pace,
    /// What followers have sent to the log, and in which term: it waits for company.
    pub(super) forwarded: Vec<(MemberId, Term, Vec<Forwarded>)>,
    /// Handed to apply, up to here.
    pub(super) handed: Index,
    /// To be handed to apply before any entry.
    pub(super) restore: Option<SnapshotMeta>,
    pub(super) out: Output,
    /// Proposals that wait for a leader, oldest first.
    pub(super) parked: VecDeque<RequestId>,
    /// Reads that wait for a leader.
    pub(super) parked_reads: Vec<Waiting>,
    pub(super) next_read: u64,
    pub(super) desk: Desk,
    pub(super) retention: Retention,
    pub(super) disputes: Disputes,
    pub(super) compactor: Option<AutoCompactor>,
    /// Under way.
    pub(super) transfer: Option<Transfer>,
    pub(super) roster: Roster,
    pub(super) announcement: super::announce::Announcement,
    /// Whether raft was told that the disk stalls.
    pub(super) is_stalled: bool,
    pub(super) ticks: u64,
}

impl Run {
    /// Runs until `Stop`, or until another thread of the member is gone.
    pub(super) fn run(mut self) {
        loop {
            let first = match self.overlooked() {
                true => None,
                false => self.inbox.recv_timeout(self.due().saturating_sub(self.shared.clock.now())).ok(),
            };
            if !self.turn(first) {
                break;
            }
        }
        self.end();
    }

    /// One turn: everything that has come in becomes one output, and is acted upon. False if the member stops.
    pub(crate) fn turn(&mut self, first: Option<Inbox>) -> bool {
        if !self.drain(first) {
            return false;
        }
        let now = self.shared.clock.now();
        if now >= self.next_tick {
            self.tick(now);
            self.next_tick = now + self.heartbeat;
        }
        self.ask(now);
        self.widen(now);
        self.let_go(now);
        self.act()
    }

    /// Asks what is to be asked, if nothing of its kind is on its way. What is answered at once makes way for who has come meanwhile.
    fn ask(&mut self, now: Duration) {
        loop {
            let ended = self.out.reads.iter().map(|(id, _)| id).chain(&self.out.reads_failed);
            let last = ended.max().copied();
            let reads = {
                let mut readers = self.shared.readers.lock();
                if let Some(last) = last {
                    readers.ended(last.0);
                }
                readers.go(now, self.heartbeat)
            };
            if reads.is_empty() {
                break;
            }
            self.read(reads);
        }
        let calls = self.shared.lessees.lock().go(now, self.heartbeat);
        if !calls.is_empty() {
            let deadline = self.shared.deadline();
            let last = self.desk.take_leases(calls, deadline);
            self.shared.lessees.lock().went(last, now);
            self.put_questions();
        }
    }

    /// The answer to a question of the own desk.
    fn take_answer(&mut self, id: u64, answer: Answer) {
        self.shared.lessees.lock().ended(id);
        self.desk.answered(id, answer, self.node.status().term);
    }

    /// Reads ask a bare quorum; where one of it is slow to answer, everyone.
    fn widen(&mut self, now: Duration) {
        if self.narrow.due(self.heartbeat).is_some_and(|at| at <= now) {
            self.step(Input::Widen);
        }
        self.narrow.look(self.node.asked_few(), now);
    }

    /// Lets go what has been gathered, once its time has come. What is committed goes with it, or by itself.
    fn let_go(&mut self, now: Duration) {
        let (is_fresh, is_much) = self.shared.proposals.has_fresh();
        let is_something = is_fresh || !self.forwarded.is_empty();
        if (!is_something && !self.node.owes_news()) || (now < self.next_batch() && !is_much) {
            return;
        }
        if is_something {
            self.pace.goes(now);
        }
        for (from, term, proposals) in std::mem::take(&mut self.forwarded) {
            self.take_forwarded(from, term, proposals);
        }
        if is_fresh {
            let fresh = self.shared.proposals.take_fresh();
            self.propose(&fresh);
        }
        if self.node.owes_news() {
            self.step(Input::TellCommit);
        }
    }

    fn next_batch(&self) -> Duration {
        self.pace.next(self.shared.proposals.usual(), self.heartbeat)
    }

    /// When the next turn is due, even if nothing has come in.
    pub(crate) fn due(&self) -> Duration {
        let others = [self.narrow.due(self.heartbeat), self.soon()];
        others.into_iter().flatten().fold(self.next_tick, Duration::min)
    }

    /// When something goes that waits for company, if anything does.
    pub(crate) fn soon(&self) -> Option<Duration> {
        let waits = self.shared.proposals.has_fresh().0 || !self.forwarded.is_empty() || self.node.owes_news();
        waits.then(|| self.next_batch())
    }

    /// Whether the disk has completed something that is awaited, and did not say so because it was not awaited yet. It notes first what
    /// is complete, then looks whether that is awaited; this loop the other way round. So one of the two notices.
    fn overlooked(&self) -> bool {
        self.shared.facts.awaits_disk.load(Ordering::Relaxed) && self.shared.persisted.lock().is_some()
    }

    /// Whether something has come in.
    #[cfg(test)]
    pub(crate) fn has_mail(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// What a checker may look at.
    #[cfg(test)]
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Whoever waits is told that the member stops.
    pub(crate) fn end(&mut self) {
        self.disk.end();
        self.shared.facts.ended.store(true, Ordering::Release);
        self.shared.expiry.demote();
        self.shared.proposals.fail_all(&Error::Stopped);
        self.shared.reads.fail_all(&Error::Stopped);
        self.desk.fail_all(&Error::Stopped);
        super::reads::answer(std::mem::take(&mut self.parked_reads), &Err(Error::Stopped));
        super::reads::answer(self.shared.readers.lock().dissolve(), &Err(Error::Stopped));
        let lessees = self.shared.lessees.lock().dissolve();
        lessees.into_iter().for_each(|call| call.fail(&Error::Stopped));
    }

    /// Turns what has come in into inputs. False if the member stops.
    fn drain(&mut self, first: Option<Inbox>) -> bool {
        let waiting = self.inbox.clone();
        for message in first.into_iter().chain(waiting.try_iter().take(BATCH_MAX)) {
            match message {
                Inbox::IsReady { member, reply } => {
                    let deadline = self.shared.deadline();
                    self.desk.take_is_ready(member, reply, deadline);
                    self.put_questions();
                }
                Inbox::Transfer { to, reply } => self.begin_transfer(to, reply),
                Inbox::Peer { from, messages } => self.receive(from, messages),
                Inbox::Answered { id, answer } => self.take_answer(id, answer),
                Inbox::Look => {}
                Inbox::ConfChanged { index, change, conf_state } => {
                    self.node.apply_conf_change(index, &change);
                    self.retention.changed(index, conf_state);
                    self.meet_members();
                }
                Inbox::TermApplied(term) => {
                    let again = self.shared.proposals.outlived(term);
                    self.parked.extend(again);
                }
                Inbox::Flushed((index, term)) => self.flushed(index, term),
                Inbox::SnapshotMade { to, index } => self.retention.made(to, index),
                Inbox::Incoming(meta) => self.restore(meta),
                Inbox::Restored(index) => {
                    self.restored(index);
                    self.meet_members();
                }
                Inbox::Campaign => self.step(Input::Campaign),
                Inbox::Stop => return false,
            }
        }
        let persisted = self.shared.persisted.lock().take();
        if let Some((upto, term)) = persisted {
            self.step(Input::Persisted { upto, term });
        }
        true
    }

    pub(super) fn step(&mut self, input: Input) {
        self.node.step(input, &mut self.out);
    }

    fn receive(&mut self, from: MemberId, messages: Vec<PeerMessage>) {
        for message in messages {
            match message {
                PeerMessage::Raft(message) => self.step(Input::Received { from, message }),
                PeerMessage::Forward { term, proposals } => self.forwarded.push((from, term, proposals)),
                PeerMessage::Returned { term, ids, is_full } => self.take_returned(term, &ids, is_full),
                PeerMessage::Ask { id, term, question } => self.take_question(from, id, term, question),
                PeerMessage::Answer { id, answer } => self.take_answer(id, answer),
                PeerMessage::Refill => self.retention.wanted(from),
                PeerMessage::Standbys(standbys) => self.shared.note_standbys(from, standbys),
                PeerMessage::Hash { index, hash } => self.take_hash(from, index, hash),
            }
        }
    }

    fn tick(&mut self, now: Duration) {
        self.ticks += 1;
        self.watch_disk(now);
        self.step(Input::Tick);
        self.expire(now);
        self.retry();
        let status = self.node.status();
        if status.role == Role::Leader {
            self.tend_leases(status.confirmed);
            self.tend_followers();
        }
        self.tend_compaction(now, status.role == Role::Leader);
        self.compare_hashes();
        self.announce(now);
        self.see_off(now);
    }

    /// Does what the outputs ask for. False if a thread that it needs is gone.
    fn act(&mut self) -> bool {
        let mut out = std::mem::take(&mut self.out);
        if !out.send_now.is_empty() {
            self.shared.transport.send(letters::gathered(&mut out.send_now));
        }
        if let Some(meta) = out.restore.take() {
            self.begin_restore(meta);
        }
        if out.hard_state.is_some() || !out.append.is_empty() || !out.send_durable.is_empty() {
            self.retention.appended(&out.append);
            let save = Save::State {
                hard_state: out.hard_state.take(),
                entries: std::mem::take(&mut out.append),
                then_send: out.send_durable.drain(..).map(letters::letter).collect(),
            };
            if !self.disk.send(save) {
                return false;
            }
        }
        for (id, index) in out.reads.drain(..) {
            self.shared.reads.confirmed(id, index);
        }
        for id in out.reads_failed.drain(..) {
            self.parked_reads.extend(self.shared.reads.take(id));
        }
        out.clear();
        self.out = out;
        self.publish_status();
        self.hand_over()
    }

    fn publish_status(&mut self) {
        let status = self.node.status();
        let facts = &self.shared.facts;
        facts.term.store(status.term.0, Ordering::Relaxed);
        facts.committed.store(status.commit.0, Ordering::Release);
        facts.first_index.store(status.first_index.0, Ordering::Relaxed);
        // A follower's own disk decides nothing but when it may apply what is committed.
        let awaits_disk = status.role != Role::Follower || status.commit > status.durable;
        facts.awaits_disk.store(awaits_disk, Ordering::Release);
        // In every turn, not only when the lead is lost: apply may be about to take it over from what it saw before.
        if status.role != Role::Leader {
            facts.alone.store(false, Ordering::Release);
            self.shared.expiry.demote();
        }
        let now = self.shared.clock.now();
        let changed = self.shared.leader.send_if_modified(|leader| {
            let changed = *leader != status.leader;
            *leader = status.leader;
            changed
        });
        if changed {
            self.leader_changed(status.leader, now);
        }
    }

    fn leader_changed(&mut self, leader: Option<MemberId>, now: Duration) {
        if leader.is_some() {
            self.shared.facts.tally.leader_changes.fetch_add(1, Ordering::Relaxed);
            self.shared.facts.led_since_us.store(now.as_micros() as u64, Ordering::Relaxed);
        }
        let term = self.node.status().term.0;
        match leader {
            Some(leader) => tracing::info!(term, leader = %leader, "found a leader"),
            None => tracing::info!(term, "there is no leader"),
        }
        self.end_transfer(leader);
        self.shared.readers.lock().anew();
        self.shared.lessees.lock().anew();
        // What waited for a leader goes to it at once: in the next turn, which is due now.
        let _ = self.shared.inbox.try_send(Inbox::Look);
        self.next_tick = self.next_tick.min(now);
    }

    /// Gives apply what is committed, on this disk and not yet handed over, as far as it has room. The rest waits in the node's log,
    /// and a `Look` brings the loop back here.
    fn hand_over(&mut self) -> bool {
        if let Some(meta) = self.restore.take() {
            match self.offer(Committed::Restore(meta)) {
                Ok(None) => {}
                Ok(Some(Committed::Restore(meta))) => {
                    self.restore = Some(meta);
                    return true;
                }
                _ => return false,
            }
        }
        let status = self.node.status();
        let ready = status.commit.min(status.durable);
        while self.handed < ready && !self.shared.facts.quarantined.load(Ordering::Acquire) {
            let upto = Index(ready.0.min(self.handed.0 + APPLY_BATCH_ENTRIES_MAX));
            let entries = self.node.entries(self.handed.next(), upto.next());
            match self.offer(Committed::Entries(entries)) {
                Ok(None) => self.handed = upto,
                Ok(Some(_)) => return true,
                Err(()) => return false,
            }
        }
        true
    }

    /// Gives apply one piece of work; gives it back if there is no room, and sees to it that apply says when there is. An error: apply is
    /// gone.
    fn offer(&self, work: Committed) -> Result<Option<Committed>, ()> {
        let work = match self.apply.try_send(work) {
            Ok(()) => return Ok(None),
            Err(TrySendError::Full(work)) => work,
            Err(TrySendError::Disconnected(_)) => return Err(()),
        };
        self.shared.facts.held_back.store(true, Ordering::Release);
        // Once more: apply may have looked for the mark before it was set, and be idle by now.
        match self.apply.try_send(work) {
            Ok(()) => Ok(None),
            Err(TrySendError::Full(work)) => Ok(Some(work)),
            Err(TrySendError::Disconnected(_)) => Err(()),
        }
    }
}
