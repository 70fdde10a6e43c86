//! Who votes and who learns, and what may change to what. Here, below raft and the state machine, because both must come to the same
//! answer: membership is kept once and decided once.

use super::MemberId;
use std::collections::BTreeSet;

/// Who votes and who learns. Joint while `voters_outgoing` is not empty (thesis, section 4.3). A member is at most one of voter (of
/// either half) and learner; the lists are in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Voters; while joint, those of the incoming half.
    pub voters: Vec<MemberId>,
    /// Members that receive the log without a vote.
    pub learners: Vec<MemberId>,
    /// While joint: voters of the outgoing half.
    pub voters_outgoing: Vec<MemberId>,
    /// While joint: voters of the outgoing half that become learners when it ends.
    pub learners_next: Vec<MemberId>,
    /// Whether the joint state is left by itself.
    pub auto_leave: bool,
}

/// One member's part in a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfStep {
    /// What becomes of it.
    pub kind: ConfStepKind,
    /// Which one.
    pub member: MemberId,
}

/// What becomes of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfStepKind {
    /// It votes: a newcomer, or a learner that is promoted.
    AddVoter,
    /// It gets the log without a vote: a newcomer, or a voter that is demoted.
    AddLearner,
    /// It leaves. Not being there is fine.
    Remove,
}

/// What a committed entry of a kind other than normal does to the membership. Every such entry is applied once, in log order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfChange {
    /// Nothing: the state machine has refused it, or it changes something else than who votes and who learns.
    Nothing,
    /// One step. At most one voter comes or goes, so any old and any new majority share a member.
    Simple(ConfStep),
    /// Several steps at once, through a joint membership in which both majorities must agree (thesis, section 4.3).
    Joint {
        /// What becomes of whom.
        steps: Vec<ConfStep>,
        /// The leader proposes the end of the joint membership by itself.
        auto_leave: bool,
    },
    /// The end of a joint membership.
    Leave,
}

/// Why a change can't be made. The membership stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfRefusal {
    /// Another change is half way.
    Joint,
    /// There is nothing to leave.
    NotJoint,
    /// Nobody would be left to vote.
    NoVoters,
}

impl ConfState {
    /// With all lists in order, each member once in each.
    pub fn in_order(mut self) -> ConfState {
        for ids in [&mut self.voters, &mut self.learners, &mut self.voters_outgoing, &mut self.learners_next] {
            ids.sort_unstable();
            ids.dedup();
        }
        self
    }

    /// Whether a change is half way.
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Everyone who gets the log, each once, in order. Whoever is to learn next is still a voter of the outgoing half.
    pub fn members(&self) -> BTreeSet<MemberId> {
        self.voters.iter().chain(&self.voters_outgoing).chain(&self.learners).copied().collect()
    }

    /// What this becomes by `change`.
    ///
    /// # Errors
    /// A [`ConfRefusal`]; the same on every member, since it follows from the log alone.
    pub fn after(&self, change: &ConfChange) -> Result<ConfState, ConfRefusal> {
        let next = match change {
            ConfChange::Nothing => return Ok(self.clone()),
            ConfChange::Leave if !self.is_joint() => return Err(ConfRefusal::NotJoint),
            ConfChange::Leave => self.left(),
            _ if self.is_joint() => return Err(ConfRefusal::Joint),
            ConfChange::Simple(step) => self.with(std::slice::from_ref(step)),
            ConfChange::Joint { steps, auto_leave } => self.joined(steps, *auto_leave),
        };
        if next.voters.is_empty() {
            return Err(ConfRefusal::NoVoters);
        }
        Ok(next.in_order())
    }

    fn with(&self, steps: &[ConfStep]) -> ConfState {
        let mut next = self.clone();
        for ConfStep { kind, member } in steps {
            next.voters.retain(|id| id != member);
            next.learners.retain(|id| id != member);
            match kind {
                ConfStepKind::AddVoter => next.voters.push(*member),
                ConfStepKind::AddLearner => next.learners.push(*member),
                ConfStepKind::Remove => {}
            }
        }
        next
    }

    fn joined(&self, steps: &[ConfStep], auto_leave: bool) -> ConfState {
        let mut next = self.with(steps);
        // A voter that is demoted still votes in the outgoing half, and becomes a learner only when that ends.
        (next.learners_next, next.learners) = next.learners.iter().partition(|id| self.voters.contains(id));
        next.voters_outgoing = self.voters.clone();
        next.auto_leave = auto_leave;
        next
    }

    fn left(&self) -> ConfState {
        let learners = self.learners.iter().chain(&self.learners_next).copied().collect();
        ConfState { voters: self.voters.clone(), learners, ..ConfState::default() }
    }
}
