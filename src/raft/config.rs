//! Who votes and who learns, and what may change to what.

use super::quorum::{self, Verdict};
use crate::types::{ConfState, MemberId};
use std::collections::BTreeSet;

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
    /// Nothing, for example because the state machine has refused it.
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

/// The membership. A member is at most one of voter (of either half) and learner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    voters: Vec<MemberId>,
    outgoing: Vec<MemberId>,
    learners: BTreeSet<MemberId>,
    learners_next: BTreeSet<MemberId>,
    auto_leave: bool,
}

impl Members {
    /// From its stored form.
    pub fn new(state: &ConfState) -> Members {
        Members {
            voters: sorted(&state.voters),
            outgoing: sorted(&state.voters_outgoing),
            learners: state.learners.iter().copied().collect(),
            learners_next: state.learners_next.iter().copied().collect(),
            auto_leave: state.auto_leave,
        }
    }

    /// The stored form; ids in order.
    pub fn conf_state(&self) -> ConfState {
        ConfState {
            voters: self.voters.clone(),
            learners: self.learners.iter().copied().collect(),
            voters_outgoing: self.outgoing.clone(),
            learners_next: self.learners_next.iter().copied().collect(),
            auto_leave: self.auto_leave,
        }
    }

    /// Whether `id` votes, in either half.
    pub fn is_voter(&self, id: MemberId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether a change is half way.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the leader should propose [`ConfChange::Leave`].
    pub fn leaves_by_itself(&self) -> bool {
        self.is_joint() && self.auto_leave
    }

    /// Whether `id` alone is a quorum.
    pub fn is_alone(&self, id: MemberId) -> bool {
        self.votes(|voter| (voter == id).then_some(true)) == Verdict::Won
    }

    /// Everyone who gets the log, each once, in order.
    pub fn all(&self) -> BTreeSet<MemberId> {
        self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect()
    }

    /// Everyone who votes, each once.
    pub fn all_voters(&self) -> impl Iterator<Item = MemberId> {
        let outgoing_only = self.outgoing.iter().filter(|id| !self.voters.contains(id));
        self.voters.iter().chain(outgoing_only).copied()
    }

    /// The highest value that a quorum has reached.
    pub fn reached(&self, value: impl Fn(MemberId) -> u64) -> u64 {
        quorum::reached(&self.voters, &self.outgoing, value)
    }

    /// Counts votes.
    pub fn votes(&self, vote: impl Fn(MemberId) -> Option<bool>) -> Verdict {
        quorum::votes(&self.voters, &self.outgoing, vote)
    }

    /// The membership after `change`.
    ///
    /// # Errors
    /// A [`ConfRefusal`]; the same on every member, since it follows from the log alone.
    pub fn after(&self, change: &ConfChange) -> Result<Members, ConfRefusal> {
        let next = match change {
            ConfChange::Nothing => self.clone(),
            ConfChange::Leave if !self.is_joint() => return Err(ConfRefusal::NotJoint),
            ConfChange::Leave => self.left(),
            _ if self.is_joint() => return Err(ConfRefusal::Joint),
            ConfChange::Simple(step) => self.with(std::slice::from_ref(step)),
            ConfChange::Joint { steps, auto_leave } => self.joined(steps, *auto_leave),
        };
        if next.voters.is_empty() && !matches!(change, ConfChange::Nothing) {
            return Err(ConfRefusal::NoVoters);
        }
        Ok(next)
    }

    fn with(&self, steps: &[ConfStep]) -> Members {
        let mut next = self.clone();
        for step in steps {
            next.voters.retain(|id| *id != step.member);
            next.learners.remove(&step.member);
            match step.kind {
                ConfStepKind::AddVoter => next.voters.push(step.member),
                ConfStepKind::AddLearner => drop(next.learners.insert(step.member)),
                ConfStepKind::Remove => {}
            }
        }
        next.voters.sort_unstable();
        next
    }

    fn joined(&self, steps: &[ConfStep], auto_leave: bool) -> Members {
        let mut next = self.with(steps);
        // A voter that is demoted still votes in the outgoing half, and becomes a learner only when that ends.
        next.learners_next = next.learners.iter().filter(|id| self.voters.contains(id)).copied().collect();
        next.learners.retain(|id| !self.voters.contains(id));
        next.outgoing = self.voters.clone();
        next.auto_leave = auto_leave;
        next
    }

    fn left(&self) -> Members {
        Members {
            voters: self.voters.clone(),
            learners: self.learners.union(&self.learners_next).copied().collect(),
            ..Members::default()
        }
    }
}

fn sorted(ids: &[MemberId]) -> Vec<MemberId> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use ConfStepKind::{AddLearner, AddVoter, Remove};
    use proptest::prelude::*;

    fn step(kind: ConfStepKind, id: u64) -> ConfStep {
        ConfStep { kind, member: MemberId(id) }
    }

    fn members(voters: &[u64], learners: &[u64]) -> Members {
        let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
        Members::new(&ConfState { voters: ids(voters), learners: ids(learners), ..ConfState::default() })
    }

    #[test]
    fn a_learner_is_promoted_and_a_voter_demoted_in_one_step() {
        let grown = members(&[1, 2], &[3]).after(&ConfChange::Simple(step(AddVoter, 3)));
        assert_eq!(grown, Ok(members(&[1, 2, 3], &[])));
        let shrunk = members(&[1, 2, 3], &[]).after(&ConfChange::Simple(step(AddLearner, 1)));
        assert_eq!(shrunk, Ok(members(&[2, 3], &[1])));
    }

    #[test]
    fn the_last_voter_stays() {
        let lone = members(&[1], &[2]);
        assert_eq!(lone.after(&ConfChange::Simple(step(Remove, 1))), Err(ConfRefusal::NoVoters));
    }

    #[test]
    fn a_joint_change_needs_both_majorities_until_it_is_left() {
        let steps = vec![step(Remove, 1), step(AddLearner, 2), step(AddVoter, 4), step(AddVoter, 5)];
        let change = ConfChange::Joint { steps, auto_leave: true };
        let joint = members(&[1, 2, 3], &[]).after(&change).expect("not joint yet");
        assert!(joint.leaves_by_itself() && joint.is_voter(MemberId(1)));
        let yes = |ids: &'static [u64]| move |id: MemberId| ids.contains(&id.0).then_some(true);
        assert_eq!(joint.votes(yes(&[3, 4, 5])), Verdict::Pending, "only 3 of the outgoing half");
        assert_eq!(joint.votes(yes(&[2, 3, 4])), Verdict::Won);
        assert_eq!(joint.after(&change), Err(ConfRefusal::Joint));
        assert_eq!(joint.after(&ConfChange::Leave), Ok(members(&[3, 4, 5], &[2])));
    }

    proptest! {
        #[test]
        fn any_quorum_before_and_any_after_one_change_share_a_member(
            voters in proptest::collection::btree_set(1_u64..6, 1..5),
            steps in proptest::collection::vec((0_u8..3, 1_u64..7), 1..4),
            simple in any::<bool>(),
        ) {
            let kinds = [AddVoter, AddLearner, Remove];
            let steps: Vec<_> = steps.iter().map(|(kind, id)| step(kinds[usize::from(*kind)], *id)).collect();
            let before = members(&voters.iter().copied().collect::<Vec<_>>(), &[]);
            let change = if simple { ConfChange::Simple(steps[0]) } else { ConfChange::Joint { steps, auto_leave: false } };
            let Ok(after) = before.after(&change) else { return Ok(()) };
            let wins = |members: &Members, set: u32| {
                members.votes(|id| Some(set & (1 << id.0) != 0)) == Verdict::Won
            };
            let chain = [Some(before), Some(after.clone()), after.after(&ConfChange::Leave).ok()];
            for pair in chain.windows(2) {
                let [Some(old), Some(new)] = pair else { continue };
                for set in 0..128_u32 {
                    prop_assert!(!(wins(old, set) && wins(new, !set)), "{old:?} and {new:?} by {set:b}");
                }
            }
        }
    }
}
