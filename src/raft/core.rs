//! What all roles share: term, vote, log, members, and the wait for an election.

use super::{
    config::Members,
    log::Log,
    message::{Body, Envelope, LogId, Message},
    output::{Config, Output, Restored},
};
use crate::types::{Entry, EntryKind, HardState, Index, MemberId, Sabotage, SnapshotMeta, Term};
use std::collections::VecDeque;

/// What a role wants to become after an input. The node acts on it, so that every change of role is in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    /// Follow this leader of the present term, or wait for one.
    Follow(Option<MemberId>),
    /// Ask whether an election would be won, or hold it if no asking is configured.
    Campaign,
    /// Hold an election in the next term.
    Elect,
    /// Hold it because the leader wants it.
    TakeOver,
    /// The election is won.
    Lead,
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) term: Term,
    pub(super) vote: Option<MemberId>,
    pub(super) leader: Option<MemberId>,
    pub(super) log: Log,
    pub(super) members: Members,
    /// Positions of entries that change the membership and are not applied yet.
    pub(super) conf_waiting: VecDeque<Index>,
    /// Ticks since a leader was heard (by a leader: since its last check of the quorum) or an election began.
    pub(super) elapsed: u32,
    /// Ticks after which this member seeks election; random, so that two seldom do at once.
    timeout: u32,
    random: u64,
    /// The disk does not answer.
    pub(super) stalled: bool,
    /// The hard state that was handed out last.
    saved: HardState,
    /// Committed entries that were handed out.
    handed: Index,
}

impl Core {
    pub(super) fn new(config: Config, restored: Restored, seed: u64) -> Core {
        let Restored { hard_state, snapshot, conf_state, applied, entries } = restored;
        let start = LogId { index: snapshot.index, term: snapshot.term };
        let mut log = Log::new(start, entries, hard_state.commit);
        let last = log.last().index;
        assert!(hard_state.commit <= last, "{} is committed, but the log ends at {last}", hard_state.commit);
        assert!(applied <= log.commit() && applied >= start.index, "applied {applied} is not between log and commit");
        let conf_waiting = log.range(applied.next(), last.next()).filter(|entry| entry.kind != EntryKind::Normal);
        let conf_waiting = conf_waiting.map(|entry| entry.index).collect::<VecDeque<_>>();
        // A change is appended only when the one before it is applied, so all but the last are committed. The commit index is saved
        // without a sync, and may have forgotten it; a member that then campaigned by a membership that is two changes old could win
        // without meeting anybody who knows better.
        if let Some(before_last) = conf_waiting.len().checked_sub(2) {
            log.commit_to(conf_waiting[before_last]);
        }
        // Two members with neighbouring seeds must not count in step.
        let random = (seed ^ config.id.0.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut core = Core {
            config,
            term: hard_state.term.max(log.last().term),
            vote: hard_state.vote.filter(|_| hard_state.term >= log.last().term),
            leader: None,
            log,
            members: Members::new(&conf_state),
            conf_waiting,
            elapsed: 0,
            timeout: 0,
            random,
            stalled: false,
            saved: hard_state,
            handed: applied,
        };
        core.restart_timer();
        core
    }

    pub(super) fn id(&self) -> MemberId {
        self.config.id
    }

    /// Begins a later term, in which nobody has this member's vote yet.
    pub(super) fn enter(&mut self, term: Term) {
        assert!(term > self.term, "terms only grow");
        self.term = term;
        self.vote = None;
        self.leader = None;
    }

    /// Starts to wait, for a new random time.
    pub(super) fn restart_timer(&mut self) {
        // Xorshift: of good enough quality for a wait, and the only chance in this room.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        // Half of a timeout keeps candidates apart as long as it is many round trips (paper, section 5.6, asks for as much), and a dead
        // leader is missed for a quarter of a timeout less than with the whole of one.
        let spread = u64::from((self.config.election_ticks / 2).max(1));
        self.elapsed = 0;
        self.timeout = self.config.election_ticks + ((self.random >> 16) % spread) as u32;
    }

    /// One tick of the wait. True if it is over.
    pub(super) fn wait_is_over(&mut self) -> bool {
        self.elapsed += 1;
        self.elapsed >= self.timeout
    }

    /// Whether a leader was heard so recently that nobody else can have good reason to campaign (thesis, section 4.2.3). It ends by
    /// itself, so a leader without a quorum can't hold up an election: it stops its heartbeats after the same time.
    pub(super) fn is_led(&self) -> bool {
        self.config.check_quorum && self.leader.is_some() && self.elapsed < self.config.election_ticks
    }

    /// Whether this member may seek election: not with a change of membership that is committed but not applied, because then it
    /// would count the votes of a membership that is over; nor without a disk, because it could not even vote for itself.
    pub(super) fn may_campaign(&self) -> bool {
        let owes_change = self.conf_waiting.front().is_some_and(|index| *index <= self.log.commit());
        self.members.is_voter(self.id()) && !owes_change && !self.stalled
    }

    /// Whether an entry of the present term is committed. Before that a leader can't know what is committed.
    pub(super) fn has_committed_in_term(&self) -> bool {
        self.breaks(Sabotage::SkipNoop) || self.log.term(self.log.commit()) == Some(self.term)
    }

    /// Whether this member was told to break that rule.
    pub(super) fn breaks(&self, rule: Sabotage) -> bool {
        rule.is(self.config.sabotage)
    }

    pub(super) fn envelope(&self, to: MemberId, body: Body) -> Envelope {
        Envelope { to, message: Message { term: self.term, body } }
    }

    /// Answers a candidate. Any member does, even one that thinks it has no vote: it may not know yet that it was given one, and the
    /// candidate counts by its own, newer membership.
    pub(super) fn answer_candidate(&mut self, from: MemberId, last: LogId, pre: bool, out: &mut Output) {
        if self.stalled {
            return;
        }
        let up_to_date = self.is_protected_by(last);
        if pre {
            let granted = up_to_date && !self.is_led();
            return out.send_now.push(self.envelope(from, Body::PreVoteReply { granted }));
        }
        let free = self.vote == Some(from) || (self.vote.is_none() && self.leader.is_none());
        let granted = free && up_to_date;
        if granted {
            self.vote = Some(from);
            self.restart_timer();
        }
        // Also a repeated answer waits for the disk: the write of the first may still be on its way.
        out.send_durable.push(self.envelope(from, Body::VoteReply { granted }));
    }

    /// Whether a candidate whose log ends at `last` has all that this member's vote protects.
    ///
    /// A voter's is its whole log, since any of it may have been committed with its help. A member without a vote has helped to commit
    /// nothing after the change that took its vote, and that is committed; it protects no more than what it knows to be committed. If a
    /// leader that was removed insisted on the rest of its log, those that it leaves behind might not get elected: by what they
    /// know they need its vote (openraft#2091).
    ///
    /// A change that waits in its log may have given it a vote again without its knowledge. Who lacks that change can't win if it is
    /// committed: of any quorum before this member lost its vote, the others share a voter with any quorum after it. Who may have it is
    /// asked for the whole log.
    fn is_protected_by(&self, last: LogId) -> bool {
        let has = |index: Index| self.log.term(index).is_some_and(|term| last.is_up_to_date_for(LogId { index, term }));
        let is_outside =
            !self.members.is_voter(self.id()) && !self.conf_waiting.front().is_some_and(|index| has(*index));
        last.is_up_to_date_for(self.log.last()) || (is_outside && has(self.log.commit()))
    }

    /// Starts over from the state of another member; see [`Output::restore`].
    pub(super) fn restore(&mut self, meta: SnapshotMeta, out: &mut Output) {
        self.log.reset(LogId { index: meta.index, term: meta.term });
        // Also changes of membership that were in the log and not committed are forgotten with it (openraft#1808).
        self.conf_waiting.clear();
        self.members = Members::new(&meta.conf_state);
        self.handed = meta.index;
        // Neither is needed any more, and what the log no longer holds could not be read.
        out.append.clear();
        out.committed = std::ops::Range::default();
        out.restore = Some(meta);
    }

    /// Adds one entry of this member's own.
    pub(super) fn append(&mut self, kind: EntryKind, data: bytes::Bytes, out: &mut Output) -> Index {
        let entry = Entry { term: self.term, index: self.log.last().index.next(), kind, data };
        let index = entry.index;
        if kind != EntryKind::Normal {
            self.conf_waiting.push_back(index);
        }
        self.log.push(entry.clone());
        out.append.push(entry);
        index
    }

    /// Takes over entries of the leader, after a position where the logs agree.
    pub(super) fn take_over(&mut self, entries: Vec<Entry>, out: &mut Output) {
        let fresh = self.log.splice(entries);
        let Some(first) = fresh.first().map(|entry| entry.index) else { return };
        let waiting = self.conf_waiting.partition_point(|index| *index < first);
        self.conf_waiting.truncate(waiting);
        self.conf_waiting.extend(fresh.iter().filter(|entry| entry.kind != EntryKind::Normal).map(|entry| entry.index));
        // What the disk has not been given yet need not be written at all.
        let kept = out.append.partition_point(|entry| entry.index < first);
        out.append.truncate(kept);
        out.append.extend(fresh);
    }

    /// Hands out what changed, once at the end of every step.
    pub(super) fn settle(&mut self, out: &mut Output) {
        let hard_state = HardState { term: self.term, vote: self.vote, commit: self.log.commit() };
        if hard_state != self.saved {
            self.saved = hard_state;
            out.hard_state = Some(hard_state);
        }
        // Not what others alone have on disk: the state machine would then be ahead of this member's own log after a crash.
        let upto = self.log.commit().min(self.log.stable());
        if upto > self.handed {
            if out.committed.is_empty() {
                out.committed.start = self.handed.next();
            }
            out.committed.end = upto.next();
            self.handed = upto;
        }
    }
}
