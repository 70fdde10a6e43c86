//! Who has been away for how long, as one leader sees it in one term.

use super::policy::{Presence, Sight};
use crate::{
    membership::Member,
    types::{MemberId, Term},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// A connection that is younger than this may be one of a member that starts again and again: it does not end its absence.
const SETTLED: Duration = Duration::from_secs(5);
/// A standby that did not come is not asked again for this long.
const FAILED_KEPT: Duration = Duration::from_secs(600);

/// See the module. It counts from when the leader began to lead: what it saw before, perhaps cut off itself, is no evidence.
pub(super) struct Watchman {
    term: Term,
    /// Since when others have not been connected for good.
    away: BTreeMap<MemberId, Instant>,
    /// Since when there have been too few voters.
    short_since: Option<Instant>,
    /// Peer URLs of standbys that did not come, and when that was given up.
    failed: BTreeMap<String, Instant>,
    /// Who is connected.
    here: BTreeSet<MemberId>,
}

impl Watchman {
    pub(super) fn new(term: Term) -> Watchman {
        let (away, failed, here) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Watchman { term, away, short_since: None, failed, here }
    }

    pub(super) fn term(&self) -> Term {
        self.term
    }

    /// Looks at who is connected.
    pub(super) fn look(
        &mut self,
        now: Instant,
        own: MemberId,
        members: &[Member],
        core_size: usize,
        connected_for: impl Fn(MemberId) -> Option<Duration>,
    ) {
        self.here.clear();
        self.away.retain(|id, _| members.iter().any(|member| member.id == *id));
        for id in members.iter().map(|member| member.id) {
            let connected_for = if id == own { Some(Duration::MAX) } else { connected_for(id) };
            if connected_for.is_some() {
                self.here.insert(id);
            }
            match connected_for {
                Some(time) if time >= SETTLED => drop(self.away.remove(&id)),
                Some(_) => {}
                None => drop(self.away.entry(id).or_insert(now)),
            }
        }
        let voters = members.iter().filter(|member| !member.is_learner).count();
        self.short_since = (voters < core_size).then(|| self.short_since.unwrap_or(now));
        self.failed.retain(|_, at| now.saturating_duration_since(*at) < FAILED_KEPT);
    }

    /// Standbys at `urls` did not come.
    pub(super) fn has_failed(&mut self, now: Instant, urls: Vec<String>) {
        self.failed.extend(urls.into_iter().map(|url| (url, now)));
    }

    /// What the last look saw, for the policy.
    pub(super) fn sight<'a>(
        &self,
        now: Instant,
        own: MemberId,
        members: &'a [Member],
        is_half_way: bool,
        standbys: &'a BTreeMap<String, bool>,
    ) -> Sight<'a> {
        let since = |at: Option<&Instant>| at.map_or(Duration::ZERO, |at| now.saturating_duration_since(*at));
        let presence = members.iter().map(|member| {
            let id = member.id;
            (id, Presence { is_here: self.here.contains(&id), away_for: since(self.away.get(&id)) })
        });
        Sight {
            own,
            members,
            is_half_way,
            presence: presence.collect(),
            short_for: since(self.short_since.as_ref()),
            standbys,
            failed: self.failed.keys().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        watch: Watchman,
        start: Instant,
        members: Vec<Member>,
    }

    impl World {
        fn new() -> World {
            let start = Instant::now();
            let member = |id| Member { id: MemberId(id), ..Member::default() };
            World { watch: Watchman::new(Term(1)), start, members: vec![member(1), member(2), member(3)] }
        }

        /// How member 3 is seen at second `at` by member 1, if it has been connected for so many seconds.
        fn third(&mut self, at: u64, connected_s: Option<u64>) -> (bool, u64) {
            let now = self.start + Duration::from_secs(at);
            let connected_for = |id| if id == MemberId(3) { connected_s } else { Some(100) }.map(Duration::from_secs);
            self.watch.look(now, MemberId(1), &self.members, 3, connected_for);
            let standbys = BTreeMap::new();
            let sight = self.watch.sight(now, MemberId(1), &self.members, false, &standbys);
            assert!(sight.presence[&MemberId(1)].is_here && sight.presence[&MemberId(2)].is_here);
            let Presence { is_here, away_for } = sight.presence[&MemberId(3)];
            (is_here, away_for.as_secs())
        }
    }

    #[test]
    fn who_starts_again_and_again_is_still_away_but_not_while_it_is_connected() {
        let mut world = World::new();
        assert_eq!(world.third(0, Some(1)), (true, 0), "nobody has missed it");
        assert_eq!(world.third(1, None), (false, 0));
        assert_eq!(world.third(9, None), (false, 8));
        assert_eq!(world.third(10, Some(1)), (true, 9));
        assert_eq!(world.third(12, None), (false, 11));
        assert_eq!(world.third(20, Some(5)), (true, 0), "it has come back");
        assert_eq!(world.third(21, None), (false, 0));
    }

    #[test]
    fn a_voter_that_is_missing_altogether_is_missed_from_then_on() {
        let mut world = World::new();
        let standbys = BTreeMap::new();
        let mut short_for = |at, members: &[Member]| {
            let now = world.start + Duration::from_secs(at);
            world.watch.look(now, MemberId(1), members, 3, |_| None);
            world.watch.sight(now, MemberId(1), members, false, &standbys).short_for.as_secs()
        };
        let all = world.members.clone();
        assert_eq!((short_for(0, &all), short_for(5, &all[..2]), short_for(9, &all[..2])), (0, 0, 4));
        assert_eq!((short_for(10, &all), short_for(11, &all[..2])), (0, 0));
    }

    #[test]
    fn a_standby_that_did_not_come_may_be_asked_again_after_a_while() {
        let mut world = World::new();
        world.watch.has_failed(world.start, vec!["x".to_owned()]);
        let mut failed = |at| {
            world.third(at, Some(9));
            world.watch.failed.len()
        };
        assert_eq!((failed(599), failed(600)), (1, 0));
    }
}
