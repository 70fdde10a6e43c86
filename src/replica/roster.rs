//! Whom this member speaks to: the members, and for a while those who have just left, so that they hear of it, and a leader that left
//! can see to the end of its leave.

use super::run::Run;
use crate::{membership::Member, types::MemberId};
use std::{collections::BTreeSet, time::Duration};

/// Election timeouts for which those who left are still spoken to.
const FAREWELL: u32 = 5;

/// The members as the transport knows them.
#[derive(Default)]
pub(super) struct Roster {
    members: Vec<Member>,
    /// Until when each is spoken to.
    leaving: Vec<(Member, Duration)>,
    removed: BTreeSet<MemberId>,
}

impl Roster {
    pub(super) fn new(members: Vec<Member>, removed: Vec<MemberId>) -> Roster {
        Roster { members, leaving: Vec::new(), removed: removed.into_iter().collect() }
    }

    fn change(&mut self, members: Vec<Member>, removed: Vec<MemberId>, farewell_until: Duration) {
        let before = std::mem::replace(&mut self.members, members);
        self.removed = removed.into_iter().collect();
        let left = before.into_iter().filter(|member| self.removed.contains(&member.id));
        self.leaving.extend(left.map(|member| (member, farewell_until)));
    }

    /// Whether somebody's time is over.
    fn see_off(&mut self, now: Duration) -> bool {
        let before = self.leaving.len();
        self.leaving.retain(|(_, until)| now < *until);
        self.leaving.len() < before
    }

    fn told(&self) -> (Vec<Member>, Vec<MemberId>) {
        let leaving = self.leaving.iter().map(|(member, _)| member);
        let members = self.members.iter().chain(leaving.clone()).cloned().collect();
        let gone = self.removed.iter().filter(|id| !leaving.clone().any(|member| member.id == **id));
        (members, gone.copied().collect())
    }
}

impl Run {
    /// The members are others, or are reached otherwise.
    pub(super) fn meet_members(&mut self) {
        let (view, now) = (&self.shared.view, self.shared.clock.now());
        self.roster.change(view.members(), view.removed(), now + self.election * FAREWELL);
        let (members, gone) = self.roster.told();
        self.shared.transport.set_members(members, gone);
    }

    /// Ends the time of those who left.
    pub(super) fn see_off(&mut self, now: Duration) {
        if self.roster.see_off(now) {
            let (members, gone) = self.roster.told();
            self.shared.transport.set_members(members, gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_is_spoken_to_for_a_while() {
        let member = |id| Member { id: MemberId(id), ..Member::default() };
        let ids = |members: Vec<Member>| members.into_iter().map(|member| member.id.0).collect::<Vec<_>>();
        let mut roster = Roster::new(vec![member(1), member(2)], Vec::new());
        roster.change(vec![member(1)], vec![MemberId(2)], Duration::from_secs(5));
        let (members, gone) = roster.told();
        assert_eq!((ids(members), gone), (vec![1, 2], Vec::new()));
        assert!(!roster.see_off(Duration::from_secs(4)));
        assert!(roster.see_off(Duration::from_secs(5)));
        let (members, gone) = roster.told();
        assert_eq!((ids(members), gone), (vec![1], vec![MemberId(2)]));
    }
}
