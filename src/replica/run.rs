//! The loop: drain, step, act. The only owner of the raft node; it never waits for a disk.

use super::{apply::Committed, handle::Shared, persist::Save, reads::ReadReply};
use crate::{
    machine::{Command, RequestId, codec},
    raft::{ConfChange, Input, Node, Output, Proposal, ReadId, Role},
    types::{ConfState, EntryKind, Error, Index, Term},
    wal::Mark,
};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// Most messages that become one step: one append, one sync.
const BATCH_MAX: usize = 4_096;
/// Most committed entries that go to apply as one batch.
const APPLY_BATCH_ENTRIES_MAX: u64 = 1_024;

/// Bytes in the log after which it is marked even if it has few entries, so that what it takes on disk is bounded.
const UNMARKED_BYTES_MAX: usize = 64 << 20;

/// What reaches the loop.
pub(super) enum Inbox {
    Propose {
        id: RequestId,
        data: Bytes,
    },
    Read(ReadReply),
    /// Something is to be picked up elsewhere: what the disk has completed, or room in front of apply.
    Look,
    /// A change of membership was applied.
    ConfChanged {
        index: Index,
        change: ConfChange,
        conf_state: ConfState,
    },
    /// The store has everything up to this entry on disk.
    Flushed((Index, Term)),
    /// Seek election at once, instead of waiting for a timeout: a lone voter has nobody to wait for.
    Campaign,
    Stop,
}

/// What the loop owns.
pub(super) struct Run {
    pub(super) node: Node,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Receiver<Inbox>,
    pub(super) save: Sender<Save>,
    pub(super) apply: Sender<Committed>,
    pub(super) heartbeat: Duration,
    /// Entries between two marks in the log.
    pub(super) snapshot_count: u64,
    /// Entries that stay in memory and in the log behind the last flush.
    pub(super) catchup_entries: u64,
    /// Handed to apply, up to here.
    pub(super) handed: Index,
    /// Last mark in the log.
    pub(super) marked: Index,
    /// Bytes that went to the log since then.
    pub(super) unmarked_bytes: usize,
    /// Who votes and who learns at the last flush, and after each later change.
    pub(super) memberships: VecDeque<(Index, ConfState)>,
    pub(super) next_read: u64,
}

impl Run {
    /// Runs until `Stop`, or until another thread of the member is gone.
    pub(super) fn run(mut self) {
        let mut out = Output::default();
        let mut next_tick = Instant::now() + self.heartbeat;
        loop {
            let first = self.inbox.recv_deadline(next_tick).ok();
            if !self.drain(first, &mut out) {
                break;
            }
            if Instant::now() >= next_tick {
                self.tick(&mut out);
                next_tick = Instant::now() + self.heartbeat;
            }
            if !self.act(&mut out) {
                break;
            }
        }
        self.shared.facts.alone.store(false, Ordering::Release);
        self.shared.proposals.fail_all(&Error::Stopped);
        self.shared.reads.fail_all(&Error::Stopped);
    }

    /// Turns what has come in into inputs. False if the member stops.
    fn drain(&mut self, first: Option<Inbox>, out: &mut Output) -> bool {
        let (mut proposals, mut ids, mut reads) = (Vec::new(), Vec::new(), Vec::new());
        let waiting = self.inbox.clone();
        for message in first.into_iter().chain(waiting.try_iter().take(BATCH_MAX)) {
            match message {
                Inbox::Propose { id, data } => {
                    ids.push(id);
                    proposals.push(Proposal { kind: EntryKind::Normal, data });
                }
                Inbox::Read(reply) => reads.push(reply),
                Inbox::Look => {}
                Inbox::ConfChanged { index, change, conf_state } => {
                    self.node.apply_conf_change(index, &change);
                    self.memberships.push_back((index, conf_state));
                }
                Inbox::Flushed((index, term)) => self.flushed(index, term),
                Inbox::Campaign => self.node.step(Input::Campaign, out),
                Inbox::Stop => return false,
            }
        }
        if let Some((upto, term)) = self.shared.persisted.lock().take() {
            self.node.step(Input::Persisted { upto, term }, out);
        }
        if !proposals.is_empty() {
            self.propose(proposals, &ids, out);
        }
        if !reads.is_empty() {
            self.read(reads, out);
        }
        true
    }

    fn propose(&mut self, proposals: Vec<Proposal>, ids: &[RequestId], out: &mut Output) {
        let before = out.proposals_dropped;
        self.node.step(Input::Propose(proposals), out);
        let dropped = out.proposals_dropped - before;
        let error = match self.node.status().role {
            Role::Leader => Error::RequestTooManyRequests,
            _ => Error::NoLeader,
        };
        for id in &ids[ids.len() - dropped..] {
            self.shared.proposals.fail(id.0, error.clone());
        }
    }

    /// All reads that wait at this moment share one quorum round. Its id is never used again, not even after a restart.
    fn read(&mut self, replies: Vec<ReadReply>, out: &mut Output) {
        self.next_read += 1;
        let id = ReadId(self.next_read);
        let deadline = Instant::now() + self.shared.limits.request_timeout;
        self.shared.reads.begin(id, deadline, replies);
        self.node.step(Input::ReadIndex(id), out);
    }

    fn tick(&mut self, out: &mut Output) {
        let now = Instant::now();
        self.node.step(Input::Tick, out);
        self.shared.proposals.expire(now);
        self.shared.reads.expire(now);
        if self.node.status().role == Role::Leader {
            self.tend_leases(out);
        }
    }

    /// Proposes the end of leases that have run out, and now and then how much time the others have left. What raft drops the wheel
    /// names again.
    fn tend_leases(&mut self, out: &mut Output) {
        let revokes = self.shared.expiry.expired().into_iter().map(|id| Command::LeaseRevoke { id });
        let checkpoints = Some(self.shared.expiry.checkpoints()).filter(|due| !due.is_empty());
        let commands = revokes.chain(checkpoints.map(Command::LeaseCheckpoint));
        let proposals = commands.map(|command| Proposal {
            kind: EntryKind::Normal,
            data: codec::encode(RequestId(rand::random()), &command),
        });
        let proposals = proposals.collect::<Vec<_>>();
        if !proposals.is_empty() {
            self.node.step(Input::Propose(proposals), out);
        }
    }

    /// Does what the outputs ask for. False if a thread that it needs is gone.
    fn act(&mut self, out: &mut Output) -> bool {
        if out.hard_state.is_some() || !out.append.is_empty() {
            self.unmarked_bytes += out.append.iter().map(|entry| entry.data.len()).sum::<usize>();
            let save = Save::State { hard_state: out.hard_state.take(), entries: std::mem::take(&mut out.append) };
            if self.save.send(save).is_err() {
                return false;
            }
        }
        for (id, index) in out.reads.drain(..) {
            self.shared.reads.confirmed(id, index);
        }
        for id in out.reads_failed.drain(..) {
            self.shared.reads.failed(id, Error::NoLeader);
        }
        // A lone voter has nobody to send to; membership can't grow before there is a transport.
        debug_assert!(out.send_now.is_empty() && out.send_durable.is_empty(), "a lone voter sends nothing");
        out.clear();
        self.publish_status();
        self.hand_over()
    }

    fn publish_status(&self) {
        let status = self.node.status();
        let facts = &self.shared.facts;
        facts.term.store(status.term.0, Ordering::Relaxed);
        facts.committed.store(status.commit.0, Ordering::Release);
        if status.role != Role::Leader && facts.alone.swap(false, Ordering::AcqRel) {
            self.shared.expiry.demote();
        }
        self.shared.leader.send_if_modified(|leader| {
            let changed = *leader != status.leader;
            *leader = status.leader;
            changed
        });
    }

    /// Gives apply what is committed, on this disk and not yet handed over, as far as it has room. The rest waits in the node's log,
    /// and a `Look` brings the loop back here.
    fn hand_over(&mut self) -> bool {
        let status = self.node.status();
        let ready = status.commit.min(status.durable);
        while self.handed < ready {
            let upto = Index(ready.0.min(self.handed.0 + APPLY_BATCH_ENTRIES_MAX));
            let entries = self.node.entries(self.handed.next(), upto.next());
            match self.apply.try_send(Committed { entries }) {
                Ok(()) => self.handed = upto,
                Err(TrySendError::Full(_)) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        true
    }

    /// The store holds everything up to `index`: the log before it is needed only by followers that lag.
    fn flushed(&mut self, index: Index, term: Term) {
        while self.memberships.get(1).is_some_and(|(changed, _)| *changed <= index) {
            self.memberships.pop_front();
        }
        let kept = if self.node.members().is_alone(self.shared.member_id) { 0 } else { self.catchup_entries };
        let release = Index(index.0.saturating_sub(kept));
        self.node.release(release);
        let due = index.0 >= self.marked.0 + self.snapshot_count || self.unmarked_bytes >= UNMARKED_BYTES_MAX;
        if due && index > self.marked {
            let conf_state = self.memberships.front().map(|(_, conf_state)| conf_state.clone()).unwrap_or_default();
            let save = Save::Mark { mark: Mark { index, term }, conf_state, release };
            // A full queue means a busy disk: the next flush marks.
            if self.save.try_send(save).is_ok() {
                (self.marked, self.unmarked_bytes) = (index, 0);
            }
        }
    }
}
