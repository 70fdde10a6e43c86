//! The one entry to the core: the gate of terms, then one call into the role.

use super::{
    candidate::{Candidate, Poll},
    config::Members,
    core::{Core, Next},
    follower::Follower,
    leader::Leader,
    message::{Body, LogId, Message},
    output::{Config, Input, Output, Proposal, ReadId, Restored},
    status::{FollowerStatus, Role, Status},
};
use crate::types::{ConfChange, ConfState, Entry, Index, MemberId, SnapshotMeta, Term};

/// One member's part in the agreement.
#[derive(Debug)]
pub struct Node {
    core: Core,
    state: State,
}

#[derive(Debug)]
enum State {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Box<Leader>),
}

impl Node {
    /// A member as it was when it stopped; a follower, without a leader. `seed` varies only how long it waits before elections.
    ///
    /// # Panics
    /// If what was restored contradicts itself, for example a log that ends before its commit index: such a member must not vote.
    pub fn new(config: Config, restored: Restored, seed: u64) -> Node {
        Node { core: Core::new(config, restored, seed), state: State::Follower(Follower::default()) }
    }

    /// Advances by one input and adds what follows to `out`. Feed many, act once: that is how one sync serves a batch.
    pub fn step(&mut self, input: Input, out: &mut Output) {
        match input {
            Input::Tick => self.tick(out),
            Input::Campaign => self.campaign(out),
            Input::Received { from, message } => self.receive(from, message, out),
            Input::Propose(proposals) => self.propose(proposals, out),
            Input::ReadIndex(id) => self.read(id, out),
            Input::Widen => {
                if let State::Leader(leader) = &mut self.state {
                    leader.widen(&self.core, out);
                }
            }
            Input::TellCommit => {
                if let State::Leader(leader) = &mut self.state {
                    leader.tell_commit(&self.core, out);
                }
            }
            Input::Persisted { upto, term } => self.persisted(LogId { index: upto, term }, out),
            Input::Restore(meta) => self.restore(meta, out),
            Input::Transfer(to) => self.transfer(to, out),
            Input::DiskStalled(stalled) => self.disk_stalled(stalled, out),
        }
        self.core.settle(out);
    }

    /// The entries of `from..to`, for apply.
    ///
    /// # Panics
    /// If some of them were released or don't exist yet: applying around a hole would be silent corruption.
    pub fn entries(&self, from: Index, to: Index) -> Vec<Entry> {
        let entries = self.core.log.range(from, to).cloned().collect::<Vec<_>>();
        assert!(entries.len() as u64 == to.0.saturating_sub(from.0), "entries {from}..{to} are not all in the log");
        entries
    }

    /// Applies what the committed entry at `index`, of a kind other than normal, says. To be called once for each such entry, in log
    /// order, also when it changes nothing ([`ConfChange::Nothing`]): until then no other change is accepted, and this member does not
    /// campaign. Of entries that a restored state stands for ([`Output::restore`]) nothing is taken: it tells the membership itself.
    ///
    /// Returns the membership from then on; unchanged if the change can't be made ([`super::ConfRefusal`]).
    pub fn apply_conf_change(&mut self, index: Index, change: &ConfChange) -> ConfState {
        if self.core.conf_waiting.front() != Some(&index) || index > self.core.log.commit() {
            return self.core.members.conf_state();
        }
        self.core.conf_waiting.pop_front();
        if let Ok(members) = self.core.members.after(change) {
            self.core.members = members;
        }
        if let State::Leader(leader) = &mut self.state {
            leader.members_changed(&self.core);
        }
        self.core.members.conf_state()
    }

    /// Forgets entries up to `upto`, which the caller has applied, as far as they are on disk. A follower that still lacks one of them
    /// will need a snapshot.
    pub fn release(&mut self, upto: Index) {
        self.core.log.release(upto);
    }

    /// Facts. Cheap enough for every step.
    pub fn status(&self) -> Status {
        let (core, last) = (&self.core, self.core.log.last());
        Status {
            id: core.id(),
            role: match &self.state {
                State::Follower(_) => Role::Follower,
                State::Candidate(candidate) if candidate.pre => Role::PreCandidate,
                State::Candidate(_) => Role::Candidate,
                State::Leader(_) => Role::Leader,
            },
            term: core.term,
            vote: core.vote,
            leader: core.leader,
            commit: core.log.commit(),
            durable: core.log.stable(),
            last_index: last.index,
            last_term: last.term,
            first_index: core.log.start().index.next(),
            confirmed: matches!(&self.state, State::Leader(leader) if leader.is_confirmed(core)),
            transferee: match &self.state {
                State::Leader(leader) => leader.transferee(),
                _ => None,
            },
        }
    }

    /// If this member leads `term`, and a question that `origin` sent in that term proves that nobody led a newer one then: the index up to
    /// which all is committed that anybody was told by then. It saves a round of heartbeats, as it does for [`Body::ReadIndex`].
    pub fn vouched(&self, origin: MemberId, term: Term) -> Option<Index> {
        match &self.state {
            State::Leader(leader) if term == self.core.term => leader.vouched(&self.core, origin),
            _ => None,
        }
    }

    /// The round of reads for which this leader has asked no more followers than make a quorum, and waits for all of them: its number,
    /// which no other round of the term has. [`Input::Widen`] when that takes too long; the next tick does the same.
    pub fn asked_few(&self) -> Option<u64> {
        match &self.state {
            State::Leader(leader) => leader.asked_few(),
            _ => None,
        }
    }

    /// Whether this leader has not told some follower what is committed, because it will soon have more to say to it: [`Input::TellCommit`]
    /// if nothing comes. Heartbeats tell it too.
    pub fn owes_news(&self) -> bool {
        match &self.state {
            State::Leader(leader) => leader.owes_news(&self.core),
            _ => false,
        }
    }

    /// Everyone else as a leader sees them; nobody if this member does not lead.
    pub fn followers(&self) -> Vec<FollowerStatus> {
        match &self.state {
            State::Leader(leader) => leader.followers().collect(),
            _ => Vec::new(),
        }
    }

    /// The membership by which this member counts.
    pub fn members(&self) -> &Members {
        &self.core.members
    }

    /// The term of the entry at `index`, if it is known.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.core.log.term(index)
    }

    fn tick(&mut self, out: &mut Output) {
        let next = match &mut self.state {
            State::Follower(follower) => follower.tick(&mut self.core, out),
            State::Candidate(candidate) => candidate.tick(&mut self.core),
            State::Leader(leader) => leader.tick(&mut self.core, out),
        };
        self.become_next(next, out);
    }

    fn campaign(&mut self, out: &mut Output) {
        if !matches!(self.state, State::Leader(_)) && self.core.may_campaign() {
            self.become_next(Next::Campaign, out);
        }
    }

    fn propose(&mut self, proposals: Vec<Proposal>, out: &mut Output) {
        match &mut self.state {
            State::Leader(leader) => leader.propose(&mut self.core, proposals, out),
            _ => out.proposals_dropped += proposals.len(),
        }
    }

    fn read(&mut self, id: ReadId, out: &mut Output) {
        match &mut self.state {
            State::Leader(leader) => leader.read(&self.core, (None, id), out),
            State::Follower(follower) => follower.read(&self.core, id, out),
            State::Candidate(_) => out.reads_failed.push(id),
        }
    }

    fn persisted(&mut self, upto: LogId, out: &mut Output) {
        if self.core.log.persisted(upto)
            && let State::Leader(leader) = &mut self.state
        {
            leader.advance(&mut self.core, out);
        }
    }

    fn restore(&mut self, meta: SnapshotMeta, out: &mut Output) {
        if meta.index <= self.core.log.commit() {
            return;
        }
        // The state of a term that this member has not entered yet: so its own term is over.
        let newer = Some(meta.term).filter(|term| *term > self.core.term);
        match &self.state {
            // A leader has everything that was committed before its term, and commits the rest itself.
            State::Leader(_) if newer.is_none() => return,
            State::Follower(_) if newer.is_none() => {}
            _ => self.follow(None, newer, out),
        }
        let index = meta.index;
        if !self.core.log.matches(LogId { index, term: meta.term }) {
            self.core.restore(meta, out);
        }
        self.core.log.commit_to(index);
        if let Some(leader) = self.core.leader {
            // Committed, thus in the leader's log.
            out.send_durable.push(self.core.envelope(leader, Body::AppendAccepted { matched: index }));
        }
    }

    fn transfer(&mut self, to: MemberId, out: &mut Output) {
        if let State::Leader(leader) = &mut self.state {
            leader.transfer(&self.core, to, out);
        }
    }

    fn disk_stalled(&mut self, stalled: bool, out: &mut Output) {
        self.core.stalled = stalled;
        let gives_up = match &mut self.state {
            // With nobody else to lead, giving up would only make the wait longer.
            State::Leader(leader) if stalled && !self.core.members.is_alone(self.core.id()) => {
                leader.drop_everything(&self.core, out);
                true
            }
            State::Candidate(_) => stalled,
            _ => false,
        };
        if gives_up {
            self.follow(None, None, out);
        }
    }

    /// The gate: older terms are told so, newer ones are entered, and what is left is of this term.
    fn receive(&mut self, from: MemberId, message: Message, out: &mut Output) {
        let Message { term, body } = message;
        let asks_for_vote = matches!(body, Body::PreVote { .. } | Body::Vote { .. });
        let by_itself = asks_for_vote && !matches!(body, Body::Vote { transfer: true, .. });
        // Before the terms are compared: a member that was cut off may have a newer one, and must not depose a working leader with it.
        if from == self.core.id() || (by_itself && self.core.is_led()) {
            return;
        }
        if term < self.core.term {
            let speaks_first = asks_for_vote || matches!(body, Body::Append { .. } | Body::Heartbeat { .. });
            if speaks_first {
                out.send_now.push(self.core.envelope(from, Body::Outdated));
            }
            return;
        }
        if term > self.core.term {
            self.follow(None, Some(term), out);
        }
        match body {
            Body::PreVote { last } => self.core.answer_candidate(from, last, true, out),
            Body::Vote { last, .. } => self.core.answer_candidate(from, last, false, out),
            body => self.receive_in_role(from, body, out),
        }
    }

    fn receive_in_role(&mut self, from: MemberId, body: Body, out: &mut Output) {
        if let State::Candidate(candidate) = &mut self.state {
            let next = candidate.receive(&self.core, from, &body, out);
            self.become_next(next, out);
            if next != Next::Follow(Some(from)) {
                return;
            }
        }
        match &mut self.state {
            State::Leader(leader) => leader.receive(&mut self.core, from, &body, out),
            State::Follower(follower) => {
                let next = follower.receive(&mut self.core, from, body, out);
                self.become_next(next, out);
            }
            State::Candidate(_) => {}
        }
    }

    fn become_next(&mut self, mut next: Next, out: &mut Output) {
        // A lone voter passes through all roles at once.
        while next != Next::Stay {
            next = match next {
                Next::Stay => Next::Stay,
                Next::Follow(leader) => {
                    self.follow(leader, None, out);
                    Next::Stay
                }
                Next::Campaign if self.core.config.pre_vote => self.ask(Poll::Ask, out),
                Next::Campaign | Next::Elect => self.ask(Poll::Elect, out),
                Next::TakeOver => self.ask(Poll::TakeOver, out),
                Next::Lead => {
                    self.state = State::Leader(Box::new(Leader::begin(&mut self.core, out)));
                    Next::Stay
                }
            };
        }
    }

    fn ask(&mut self, poll: Poll, out: &mut Output) -> Next {
        self.leave(out);
        let (candidate, next) = Candidate::begin(&mut self.core, poll, out);
        self.state = State::Candidate(candidate);
        next
    }

    fn follow(&mut self, leader: Option<MemberId>, term: Option<crate::types::Term>, out: &mut Output) {
        self.leave(out);
        if let Some(term) = term {
            self.core.enter(term);
        }
        self.core.leader = leader;
        self.core.restart_timer();
        self.state = State::Follower(Follower::default());
    }

    /// Whatever waits on the present role will not be answered by it.
    fn leave(&mut self, out: &mut Output) {
        match &mut self.state {
            State::Follower(follower) => follower.leave(out),
            State::Leader(leader) => leader.leave(&self.core, out),
            State::Candidate(_) => {}
        }
    }
}
