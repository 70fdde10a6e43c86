//! Who votes and who learns, as raft counts them.

use super::quorum::{self, Verdict};
use crate::types::{ConfChange, ConfRefusal, ConfState, MemberId};
use std::collections::BTreeSet;

/// The membership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(ConfState);

impl Members {
    /// From its stored form.
    pub fn new(state: &ConfState) -> Members {
        Members(state.clone().in_order())
    }

    /// The stored form; ids in order.
    pub fn conf_state(&self) -> ConfState {
        self.0.clone()
    }

    /// Whether `id` votes, in either half.
    pub fn is_voter(&self, id: MemberId) -> bool {
        self.0.voters.contains(&id) || self.0.voters_outgoing.contains(&id)
    }

    /// Whether a change is half way.
    pub fn is_joint(&self) -> bool {
        self.0.is_joint()
    }

    /// Whether the leader should propose [`ConfChange::Leave`].
    pub fn leaves_by_itself(&self) -> bool {
        self.is_joint() && self.0.auto_leave
    }

    /// Whether `id` alone is a quorum.
    pub fn is_alone(&self, id: MemberId) -> bool {
        self.votes(|voter| (voter == id).then_some(true)) == Verdict::Won
    }

    /// Everyone who gets the log, each once, in order.
    pub fn all(&self) -> BTreeSet<MemberId> {
        self.0.members()
    }

    /// Everyone who votes, each once.
    pub fn all_voters(&self) -> impl Iterator<Item = MemberId> {
        let outgoing_only = self.0.voters_outgoing.iter().filter(|id| !self.0.voters.contains(id));
        self.0.voters.iter().chain(outgoing_only).copied()
    }

    /// The highest value that a quorum has reached.
    pub fn reached(&self, value: impl Fn(MemberId) -> u64) -> u64 {
        quorum::reached(&self.0.voters, &self.0.voters_outgoing, value)
    }

    /// Counts votes.
    pub fn votes(&self, vote: impl Fn(MemberId) -> Option<bool>) -> Verdict {
        quorum::votes(&self.0.voters, &self.0.voters_outgoing, vote)
    }

    /// The membership after `change`.
    ///
    /// # Errors
    /// As [`ConfState::after`].
    pub fn after(&self, change: &ConfChange) -> Result<Members, ConfRefusal> {
        self.0.after(change).map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ConfStep, ConfStepKind};
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
