//! A candidate: asks for votes, or first asks whether asking would help.

use super::{
    core::{Core, Next},
    message::Body,
    output::Output,
    quorum::Verdict,
};
use crate::types::MemberId;
use std::collections::BTreeMap;

/// What a candidate wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Poll {
    /// To know whether an election would be won.
    Ask,
    /// Votes.
    Elect,
    /// Votes, because the leader said so.
    TakeOver,
}

#[derive(Debug)]
pub(super) struct Candidate {
    /// Only asks; nothing is promised yet, and the term has not changed.
    pub(super) pre: bool,
    votes: BTreeMap<MemberId, bool>,
}

impl Candidate {
    /// Asks everyone, and itself. A member without others to ask has won at once.
    pub(super) fn begin(core: &mut Core, poll: Poll, out: &mut Output) -> (Candidate, Next) {
        let (pre, transfer) = (poll == Poll::Ask, poll == Poll::TakeOver);
        core.leader = None;
        if !pre {
            core.enter(core.term.next());
            core.vote = Some(core.id());
        }
        core.restart_timer();
        let last = core.log.last();
        for voter in core.members.all_voters().filter(|voter| *voter != core.id()) {
            if pre {
                out.send_now.push(core.envelope(voter, Body::PreVote { last }));
            } else {
                // Behind the disk: after a crash this member must know that it has voted for itself.
                out.send_durable.push(core.envelope(voter, Body::Vote { last, transfer }));
            }
        }
        let mut candidate = Candidate { pre, votes: BTreeMap::new() };
        let next = candidate.count(core, core.id(), true);
        (candidate, next)
    }

    pub(super) fn tick(&mut self, core: &mut Core) -> Next {
        match core.wait_is_over() {
            false => Next::Stay,
            true if core.may_campaign() => Next::Campaign,
            true => Next::Follow(None),
        }
    }

    pub(super) fn receive(&mut self, core: &Core, from: MemberId, body: &Body, out: &mut Output) -> Next {
        match *body {
            // A late answer to an earlier question of the same term counts too: asking promises nothing.
            Body::PreVoteReply { granted } if self.pre => self.count(core, from, granted),
            Body::VoteReply { granted } if !self.pre => self.count(core, from, granted),
            Body::Append { .. } | Body::Heartbeat { .. } => Next::Follow(Some(from)),
            Body::ReadIndex { id } => {
                out.send_now.push(core.envelope(from, Body::ReadIndexReply { id, index: None }));
                Next::Stay
            }
            _ => Next::Stay,
        }
    }

    fn count(&mut self, core: &Core, from: MemberId, granted: bool) -> Next {
        // The first answer stands: a member has one vote a term.
        self.votes.entry(from).or_insert(granted);
        match core.members.votes(|voter| self.votes.get(&voter).copied()) {
            Verdict::Won if self.pre => Next::Elect,
            Verdict::Won => Next::Lead,
            Verdict::Lost => Next::Follow(None),
            Verdict::Pending => Next::Stay,
        }
    }
}
