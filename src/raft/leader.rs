//! A leader: gives its log to everyone, and learns what a quorum has.

use super::{
    core::{Core, Next},
    message::{Body, Envelope, LogId},
    output::{Output, Proposal, ReadId},
    progress::{Phase, Progress},
    quorum::Verdict,
    read::{Read, Reads},
    status::FollowerStatus,
    transfer::Transfer,
};
use crate::types::{EntryKind, Index, MemberId, Sabotage};
use bytes::Bytes;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

/// Who is sent the heartbeats of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    All,
    /// Just as many as a read needs: each heartbeat wakes a process or two. See [`Input::Widen`](super::Input::Widen).
    Quorum,
}

#[derive(Debug)]
pub(super) struct Leader {
    /// Everyone else, learners too.
    pub(super) followers: BTreeMap<MemberId, Progress>,
    /// The empty entry with which this term opened.
    opened: Index,
    /// Elected by its own vote alone, which may not be on disk yet.
    elected_itself: bool,
    heartbeat_elapsed: u32,
    /// The round of the last heartbeats that were due; its answers also look for lost appends.
    due_round: u64,
    /// How many have answered that round.
    due_answers: u32,
    /// The last round that went to a bare quorum.
    narrow_round: u64,
    uncommitted_bytes: usize,
    pub(super) reads: Reads,
    /// Number of the latest round at each of the last `election_ticks` ticks, oldest first.
    round_at_tick: VecDeque<u64>,
    pub(super) transfer: Option<Transfer>,
    /// The entry after whose commit this leader, which has no vote any more, may go.
    farewell: Option<Index>,
}

impl Leader {
    /// Opens the term with an empty entry: what older terms left can be committed only together with one of this term (Raft paper,
    /// section 5.4.2).
    pub(super) fn begin(core: &mut Core, out: &mut Output) -> Leader {
        core.leader = Some(core.id());
        core.elapsed = 0;
        let next = core.log.last().index.next();
        let uncommitted = core.log.range(core.log.commit().next(), next);
        let uncommitted_bytes = uncommitted.map(|entry| entry.data.len()).sum();
        let others = core.members.all().into_iter().filter(|member| *member != core.id());
        let followers = others.map(|member| (member, Progress::new(next))).collect();
        let opened = match core.breaks(Sabotage::SkipNoop) {
            false => core.append(EntryKind::Normal, Bytes::new(), out),
            true => core.log.last().index,
        };
        let mut leader = Leader {
            followers,
            opened,
            elected_itself: core.members.is_alone(core.id()),
            heartbeat_elapsed: 0,
            due_round: 0,
            due_answers: 0,
            narrow_round: 0,
            uncommitted_bytes,
            reads: Reads::default(),
            round_at_tick: VecDeque::new(),
            transfer: None,
            farewell: None,
        };
        leader.send_to_all(core, out);
        leader
    }

    pub(super) fn tick(&mut self, core: &mut Core, out: &mut Output) -> Next {
        if core.stalled && !core.members.is_alone(core.id()) {
            // It was alone when its disk stopped; a change that was on its way since has brought others.
            self.drop_everything(core, out);
            return Next::Follow(None);
        }
        core.elapsed += 1;
        if core.elapsed >= core.config.election_ticks {
            core.elapsed = 0;
            if core.config.check_quorum && !self.has_quorum(core) {
                return Next::Follow(None);
            }
            self.followers.values_mut().for_each(|progress| progress.active = false);
        }
        if self.round_at_tick.len() >= core.config.election_ticks as usize {
            self.round_at_tick.pop_front();
        }
        self.round_at_tick.push_back(self.reads.latest());
        if self.transfer_tick(core) == Next::Follow(None) || self.say_farewell(core, out) == Next::Follow(None) {
            return Next::Follow(None);
        }
        self.leave_joint(core, out);
        // A change of membership may have made the quorum smaller.
        self.advance(core, out);
        self.heartbeat_elapsed += 1;
        if self.heartbeat_elapsed >= core.config.heartbeat_ticks {
            self.heartbeat_elapsed = 0;
            self.due_round = self.begin_round(core, Asked::All, out);
            self.due_answers = 0;
        }
        Next::Stay
    }

    pub(super) fn receive(&mut self, core: &mut Core, from: MemberId, body: &Body, out: &mut Output) {
        match *body {
            Body::AppendAccepted { matched } => self.accepted(core, from, matched, out),
            Body::AppendRejected { prev, hint } => self.rejected(core, from, prev, hint, out),
            Body::HeartbeatReply { round } => self.heartbeat_answered(core, from, round, out),
            Body::ReadIndex { id } => self.read(core, (Some(from), id), out),
            Body::Append { .. } | Body::Heartbeat { .. } => panic!("two leaders in term {}", core.term),
            _ => {}
        }
    }

    /// Appends proposals, in order, up to the first one that can't be taken now.
    pub(super) fn propose(&mut self, core: &mut Core, proposals: Vec<Proposal>, out: &mut Output) {
        let mut left = proposals.len();
        if self.transfer.is_some() {
            // The other one would have to catch up with them, and would take longer.
            out.proposals_dropped += left;
            return;
        }
        for proposal in proposals {
            let bytes = proposal.data.len();
            let over = self.uncommitted_bytes + bytes > core.config.uncommitted_bytes_max;
            if (over && self.uncommitted_bytes > 0 && bytes > 0) || !may_append(core, proposal.kind) {
                break;
            }
            self.uncommitted_bytes += bytes;
            core.append(proposal.kind, proposal.data, out);
            left -= 1;
        }
        out.proposals_dropped += left;
        self.send_to_all(core, out);
    }

    /// Takes a read of this member or of a follower.
    pub(super) fn read(&mut self, core: &Core, read: Read, out: &mut Output) {
        let needs_no_round = self.is_proof(core, read.0) || core.breaks(Sabotage::ReadWithoutQuorum);
        if core.has_committed_in_term() && needs_no_round {
            return self.answer(core, read, core.log.commit(), out);
        }
        if !self.reads.wait(read) {
            return answer(core, read, None, out);
        }
        if core.has_committed_in_term() && self.latest_round_is_unsent(core, out) {
            self.reads.join(core.log.commit());
        }
        self.begin_round_for_reads(core, out);
    }

    /// Whether nobody else need be heard to answer a read of `origin` (`None`: of this member).
    ///
    /// A follower that asks in this leader's term had not left it when it asked, and so had no part in an election after it. If the two are a
    /// quorum, as in a cluster of three, there was no newer leader by then: the question is the round, answered.
    fn is_proof(&self, core: &Core, origin: Option<MemberId>) -> bool {
        core.members.votes(|member| Some(member == core.id() || Some(member) == origin)) == Verdict::Won
    }

    /// Where a follower, which asks in this term, may read at once: see [`Leader::is_proof`].
    pub(super) fn vouched(&self, core: &Core, origin: MemberId) -> Option<Index> {
        (core.has_committed_in_term() && self.is_proof(core, Some(origin))).then(|| core.log.commit())
    }

    fn answer(&mut self, core: &Core, read: Read, index: Index, out: &mut Output) {
        answer(core, read, Some(index), out);
        // It reads once it has applied up to there, for which it must know that this is committed.
        if let (Some(origin), _) = read {
            self.send(core, origin, true, out);
        }
    }

    /// Commits what a quorum has on disk, if it is of this term, and answers what waited for it. This member counts like any other:
    /// with what is on its own disk.
    pub(super) fn advance(&mut self, core: &mut Core, out: &mut Output) {
        let (id, own) = (core.id(), core.log.stable());
        let matched = |member| match self.followers.get(&member) {
            Some(progress) => progress.matched.0,
            None if member == id => own.0,
            None => 0,
        };
        let reached = Index(core.members.reached(matched));
        let before = core.log.commit();
        // An entry of an older term may be on a quorum and still be replaced (Raft paper, figure 8).
        if reached <= before || core.log.term(reached) != Some(core.term) || !core.log.commit_to(reached) {
            return;
        }
        let committed = core.log.range(before.next(), reached.next());
        let bytes = committed.map(|entry| entry.data.len()).sum::<usize>();
        self.uncommitted_bytes = self.uncommitted_bytes.saturating_sub(bytes);
        self.send_to_all(core, out);
        self.begin_round_for_reads(core, out);
    }

    /// Follows a change of membership: newcomers are probed from the end, those that left are forgotten.
    pub(super) fn members_changed(&mut self, core: &Core) {
        let all = core.members.all();
        self.followers.retain(|member, _| all.contains(member));
        let next = core.log.last().index.next();
        for member in all.into_iter().filter(|member| *member != core.id()) {
            self.followers.entry(member).or_insert_with(|| Progress::new(next));
        }
        self.transfer.take_if(|transfer| !core.members.is_voter(transfer.to));
    }

    /// Leadership is lost.
    pub(super) fn leave(&mut self, core: &Core, out: &mut Output) {
        self.reads.abandon().into_iter().for_each(|read| answer(core, read, None, out));
    }

    pub(super) fn followers(&self) -> impl Iterator<Item = FollowerStatus> {
        self.followers.iter().map(|(id, progress)| FollowerStatus {
            id: *id,
            matched: progress.matched,
            next: progress.next,
            phase: progress.phase,
            inflight_messages: progress.inflight.messages(),
            inflight_bytes: progress.inflight.bytes(),
            active: progress.active,
        })
    }

    fn has_quorum(&self, core: &Core) -> bool {
        let active =
            |member| member == core.id() || self.followers.get(&member).is_some_and(|progress| progress.active);
        core.members.votes(|member| Some(active(member))) == Verdict::Won
    }

    /// Whether this leader is only there to say farewell, and has done so.
    pub(super) fn may_go(&self, core: &Core) -> bool {
        !core.members.is_voter(core.id()) && self.farewell.is_some_and(|entry| entry <= core.log.commit())
    }

    /// A leader that has no vote any more leads on until a quorum of those who have knows, on disk, that its removal is committed.
    /// Otherwise they would count by the old membership, perhaps with nobody left to make up a quorum of that (thesis, section 4.2.2).
    ///
    /// That an entry of after the removal is committed proves it: whoever has it on disk was told with it what is committed.
    fn say_farewell(&mut self, core: &mut Core, out: &mut Output) -> Next {
        if core.members.is_voter(core.id()) {
            self.farewell = None;
            return Next::Stay;
        }
        match self.farewell {
            None => {
                self.farewell = Some(core.append(EntryKind::Normal, Bytes::new(), out));
                self.send_to_all(core, out);
                Next::Stay
            }
            Some(entry) if entry > core.log.commit() => Next::Stay,
            Some(_) => self.hand_over(core, out),
        }
    }

    fn leave_joint(&mut self, core: &mut Core, out: &mut Output) {
        if core.members.leaves_by_itself() && self.transfer.is_none() && may_append(core, EntryKind::ConfChangeV2) {
            // An empty change means the end of a joint membership.
            core.append(EntryKind::ConfChangeV2, Bytes::new(), out);
            self.send_to_all(core, out);
        }
    }

    fn accepted(&mut self, core: &mut Core, from: MemberId, matched: Index, out: &mut Output) {
        let Some(progress) = self.followers.get_mut(&from) else { return };
        if matched > core.log.last().index {
            return;
        }
        progress.active = true;
        let news = progress.accepted(matched);
        if progress.phase == Phase::NeedsSnapshot && core.log.term(progress.matched).is_some() {
            progress.probe_from(progress.matched.next());
        }
        let before = core.log.commit();
        if news {
            self.advance(core, out);
        }
        if core.log.commit() == before {
            self.send_to(core, from, out);
        }
        self.urge_transferee(core, from, out);
    }

    fn rejected(&mut self, core: &Core, from: MemberId, prev: Index, hint: LogId, out: &mut Output) {
        let Some(progress) = self.followers.get_mut(&from) else { return };
        progress.active = true;
        // Its entries up to the hint have terms of at most `hint.term`; ours can be equal only where our terms are no higher.
        let agreed = core.log.last_at_most(hint.index, hint.term).index;
        if progress.rejected(prev, agreed) {
            self.send_to(core, from, out);
        }
    }

    fn heartbeat_answered(&mut self, core: &mut Core, from: MemberId, round: u64, out: &mut Output) {
        let Some(progress) = self.followers.get_mut(&from) else { return };
        progress.active = true;
        progress.paused = false;
        progress.round = progress.round.max(round.min(self.reads.latest()));
        if round == self.due_round && progress.due_answered.0 < round {
            self.due_answers += 1;
            progress.due_answered = (round, self.due_answers);
        }
        if progress.phase == Phase::NeedsSnapshot && round == self.due_round {
            // It may have what was released: its answers were lost, or it got a snapshot since. A yes ends the phase.
            let body = Body::Append { prev: core.log.start(), entries: Vec::new(), commit: core.log.commit() };
            out.send_now.push(core.envelope(from, body));
        }
        if round == self.due_round && progress.matched < core.log.last().index {
            let sent = out.send_now.len() + out.send_durable.len();
            self.send_to(core, from, out);
            if sent == out.send_now.len() + out.send_durable.len() {
                // Everything is on its way, or the window is full. Should an append be lost, this one is refused, and we start over.
                self.send_append(core, from, Vec::new(), 0, out);
            }
        } else {
            self.send_to(core, from, out);
        }
        if round == self.due_round {
            // The first word to it may have been lost.
            self.urge_transferee(core, from, out);
        }
        self.confirm_reads(core, out);
    }

    fn confirm_reads(&mut self, core: &Core, out: &mut Output) {
        for (read, index) in self.reads.confirmed(self.confirmed_round(core)) {
            self.answer(core, read, index, out);
        }
        self.begin_round_for_reads(core, out);
    }

    /// The latest round that a quorum has answered.
    fn confirmed_round(&self, core: &Core) -> u64 {
        let latest = self.reads.latest();
        core.members.reached(|member| match self.followers.get(&member) {
            Some(progress) => progress.round,
            None if member == core.id() => latest,
            None => 0,
        })
    }

    /// See [`super::Status::confirmed`].
    pub(super) fn is_confirmed(&self, core: &Core) -> bool {
        let too_old = self.round_at_tick.front().copied().unwrap_or(0);
        self.transfer.is_none() && (core.members.is_alone(core.id()) || self.confirmed_round(core) > too_old)
    }

    /// Whether the caller has not acted since the latest round began: it still holds the heartbeats.
    fn latest_round_is_unsent(&self, core: &Core, out: &Output) -> bool {
        out.send_now.last().is_some_and(|envelope| match envelope.message.body {
            Body::Heartbeat { round, .. } => round == self.reads.latest() && envelope.message.term == core.term,
            _ => false,
        })
    }

    fn begin_round_for_reads(&mut self, core: &Core, out: &mut Output) {
        if self.reads.wants_round() && core.has_committed_in_term() {
            self.narrow_round = self.begin_round(core, Asked::Quorum, out);
        }
    }

    /// Whether reads wait for an answer of each of those few who were asked.
    pub(super) fn asked_few(&self) -> Option<u64> {
        (self.reads.is_under_way() && self.reads.latest() == self.narrow_round).then_some(self.narrow_round)
    }

    /// One of them may be away: asks everyone.
    pub(super) fn widen(&mut self, core: &Core, out: &mut Output) {
        if self.asked_few().is_some() {
            self.begin_round(core, Asked::All, out);
        }
    }

    /// The followers that make up a quorum with this member, those that were quickest to answer the last heartbeats.
    fn nearest_quorum(&self, core: &Core) -> BTreeSet<MemberId> {
        let mut voters = self.followers.iter().filter(|(id, _)| core.members.is_voter(**id)).collect::<Vec<_>>();
        voters.sort_by_key(|(_, progress)| {
            let (round, rank) = progress.due_answered;
            (Reverse(round), rank)
        });
        let mut asked = BTreeSet::new();
        for (id, _) in voters {
            if core.members.votes(|member| Some(member == core.id() || asked.contains(&member))) == Verdict::Won {
                break;
            }
            asked.insert(*id);
        }
        asked
    }

    /// Sends heartbeats; waiting reads ride with them.
    fn begin_round(&mut self, core: &Core, asked: Asked, out: &mut Output) -> u64 {
        let commit = core.log.commit();
        // Before an entry of this term is committed, this leader may know less than an acknowledged write.
        let round = self.reads.begin(core.has_committed_in_term().then_some(commit));
        let quorum = match asked {
            Asked::All => None,
            Asked::Quorum => Some(self.nearest_quorum(core)),
        };
        for (id, progress) in &self.followers {
            if quorum.as_ref().is_some_and(|quorum| !quorum.contains(id)) {
                continue;
            }
            // No further than the follower is known to agree: beyond, its log may hold something else.
            let body = Body::Heartbeat { commit: commit.min(progress.matched), round };
            let envelope = core.envelope(*id, body);
            lane(self.elected_itself, self.opened, core, out).push(envelope);
        }
        if core.members.is_alone(core.id()) {
            for (read, index) in self.reads.confirmed(round) {
                answer(core, read, Some(index), out);
            }
        }
        round
    }

    fn send_to_all(&mut self, core: &Core, out: &mut Output) {
        let ids = self.followers.keys().copied().collect::<Vec<_>>();
        ids.into_iter().for_each(|id| self.send_to(core, id, out));
    }

    /// Sends what this follower lacks, as far as its window allows: entries, or just the commit index.
    ///
    /// While entries are not committed yet the commit index alone can wait. There will be more to say soon, which takes it along: other
    /// entries, or that these are committed. It is not waited for in vain: see [`Leader::owes_news`].
    pub(super) fn send_to(&mut self, core: &Core, id: MemberId, out: &mut Output) {
        let all_is_committed = core.log.commit() == core.log.last().index;
        self.send(core, id, all_is_committed, out);
    }

    fn send(&mut self, core: &Core, id: MemberId, tells_commit: bool, out: &mut Output) {
        loop {
            let Some(progress) = self.followers.get(&id).filter(|progress| may_send(progress, core)) else { return };
            let (entries, bytes) = core.log.page(progress.next, core.config.append_bytes_max);
            let is_news = tells_commit && progress.told_commit < core.log.commit();
            let something = !entries.is_empty() || progress.phase == Phase::Probe || is_news;
            if !something || !self.send_append(core, id, entries, bytes, out) {
                return;
            }
        }
    }

    /// Whether some follower has not been told what is committed, and could be.
    pub(super) fn owes_news(&self, core: &Core) -> bool {
        let is_owed = |progress: &Progress| {
            progress.phase == Phase::Replicate && progress.told_commit < core.log.commit() && may_send(progress, core)
        };
        self.followers.values().any(is_owed)
    }

    /// Tells everyone what is committed who does not know.
    pub(super) fn tell_commit(&mut self, core: &Core, out: &mut Output) {
        let ids = self.followers.keys().copied().collect::<Vec<_>>();
        ids.into_iter().for_each(|id| self.send(core, id, true, out));
    }

    /// Sends one append. False if the entry before it is no longer known: then the follower needs a snapshot.
    fn send_append(
        &mut self,
        core: &Core,
        id: MemberId,
        entries: Vec<crate::types::Entry>,
        bytes: usize,
        out: &mut Output,
    ) -> bool {
        let Some(progress) = self.followers.get_mut(&id).filter(|progress| progress.phase != Phase::NeedsSnapshot)
        else {
            return false;
        };
        let index = progress.next.previous().expect("the first entry is 1");
        let Some(term) = core.log.term(index) else {
            progress.phase = Phase::NeedsSnapshot;
            return false;
        };
        match entries.last() {
            Some(last) => progress.sent(last.index, bytes),
            None if progress.phase == Phase::Probe => progress.paused = true,
            None => {}
        }
        progress.told_commit = core.log.commit();
        let body = Body::Append { prev: LogId { index, term }, entries, commit: core.log.commit() };
        self.say(core, id, body, out);
        true
    }

    pub(super) fn say(&self, core: &Core, to: MemberId, body: Body, out: &mut Output) {
        lane(self.elected_itself, self.opened, core, out).push(core.envelope(to, body));
    }
}

fn may_send(progress: &Progress, core: &Core) -> bool {
    progress.may_send(core.config.inflight_messages_max, core.config.inflight_bytes_max)
}

/// Where a leader's messages go: at once. But one that was elected by nobody else must first have its own vote on disk, or after a
/// crash it could lead the same term again, with other entries at the same positions. Its first entry comes with that vote.
fn lane<'a>(elected_itself: bool, opened: Index, core: &Core, out: &'a mut Output) -> &'a mut Vec<Envelope> {
    if elected_itself && core.log.stable() < opened { &mut out.send_durable } else { &mut out.send_now }
}

/// Changes of membership come one at a time, and not before this term has committed (the bug of 2015 in single-server changes).
fn may_append(core: &Core, kind: EntryKind) -> bool {
    kind == EntryKind::Normal || (core.conf_waiting.is_empty() && core.has_committed_in_term())
}

fn answer(core: &Core, (origin, id): (Option<MemberId>, ReadId), index: Option<Index>, out: &mut Output) {
    match (origin, index) {
        (None, Some(index)) => out.reads.push((id, index)),
        (None, None) => out.reads_failed.push(id),
        (Some(origin), index) => out.send_now.push(core.envelope(origin, Body::ReadIndexReply { id, index })),
    }
}
