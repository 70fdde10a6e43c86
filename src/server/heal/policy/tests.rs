use super::*;
use crate::{server::heal::watchman::Watchman, types::Term};
use proptest::prelude::*;
use std::time::Instant;

const AFTER: Duration = Duration::from_secs(60);
const SIZE: usize = 3;

/// A core whose voters are 1, 2, …; member 1 leads. Standby `n` is member `n` at `http://n:1` once it was added.
struct World {
    watch: Watchman,
    members: Vec<Member>,
    down: BTreeSet<u64>,
    /// Those that have been connected for a second only.
    young: BTreeSet<u64>,
    standbys: BTreeMap<String, bool>,
    is_half_way: bool,
    core_size: usize,
    leader: u64,
    term: u64,
    start: Instant,
    at_s: u64,
}

fn url(id: u64) -> String {
    format!("http://{id}:1")
}

fn member(id: u64, name: &str, is_learner: bool) -> Member {
    Member { id: MemberId(id), name: name.to_owned(), peer_urls: vec![url(id)], is_learner, ..Member::default() }
}

impl World {
    fn new(voters: u64, core_size: usize) -> World {
        World {
            watch: Watchman::new(Term(1)),
            members: (1..=voters).map(|id| member(id, "voter", false)).collect(),
            down: BTreeSet::new(),
            young: BTreeSet::new(),
            standbys: BTreeMap::from([(url(9), true)]),
            is_half_way: false,
            core_size,
            leader: 1,
            term: 1,
            start: Instant::now(),
            at_s: 0,
        }
    }

    /// How things stand at second `at_s`; what is connected has been for long, unless it is young.
    fn at(&mut self, at_s: u64) -> Outlook {
        self.at_s = at_s;
        let now = self.start + Duration::from_secs(at_s);
        let connected_for = |id: MemberId| {
            let seconds = if self.young.contains(&id.0) { 1 } else { 100 };
            (!self.down.contains(&id.0)).then_some(Duration::from_secs(seconds))
        };
        let own = MemberId(self.leader);
        self.watch.look(now, own, &self.members, self.core_size, connected_for);
        let sight = self.watch.sight(now, own, &self.members, self.is_half_way, &self.standbys);
        outlook(Healing { core_size: self.core_size, after: AFTER }, &sight)
    }

    fn lead_anew(&mut self, leader: u64) {
        (self.leader, self.term) = (leader, self.term + 1);
        self.watch = Watchman::new(Term(self.term));
    }

    fn take(&mut self, step: &Step) {
        let vote = |member: &mut Member| member.is_learner = false;
        match step {
            Step::Add { peer_url } => {
                let id = peer_url.trim_start_matches("http://").trim_end_matches(":1").parse().expect("a number");
                self.members.push(member(id, "", true));
            }
            Step::Promote(learner) => self.members.iter_mut().filter(|member| member.id == *learner).for_each(vote),
            Step::Swap { learner, gone } => {
                self.members.iter_mut().filter(|member| member.id == *learner).for_each(vote);
                self.members.retain(|member| member.id != *gone);
            }
            Step::RemoveVoter(id) => self.members.retain(|member| member.id != *id),
            Step::RemoveLearner { learner, has_failed } => {
                let now = self.start + Duration::from_secs(self.at_s);
                self.members.retain(|member| member.id != *learner);
                if *has_failed {
                    self.watch.has_failed(now, vec![url(learner.0)]);
                }
            }
        }
    }

    fn voters(&self) -> Vec<u64> {
        self.members.iter().filter(|member| !member.is_learner).map(|member| member.id.0).collect()
    }
}

fn add(id: u64) -> Outlook {
    Outlook::Due(Step::Add { peer_url: url(id) })
}

fn away(id: u64, away_s: u64) -> Outlook {
    Outlook::Away { voter: MemberId(id), away_for: Duration::from_secs(away_s), after: AFTER }
}

#[test]
fn a_voter_that_stays_away_is_replaced_step_by_step() {
    let mut world = World::new(3, SIZE);
    assert_eq!(world.at(0), Outlook::Whole);
    world.down.insert(3);
    assert_eq!((world.at(1), world.at(60)), (away(3, 0), away(3, 59)), "it may come back");
    assert_eq!(world.at(61), add(9));
    world.take(&Step::Add { peer_url: url(9) });
    world.down.insert(9);
    assert_eq!(world.at(62), Outlook::Coming { learner: MemberId(9), away_for: Duration::ZERO }, "it has to start");
    world.down.remove(&9);
    assert_eq!(world.at(63), Outlook::Coming { learner: MemberId(9), away_for: Duration::ZERO }, "and to say so");
    world.members[3].name = "s".to_owned();
    let swap = Step::Swap { learner: MemberId(9), gone: MemberId(3) };
    assert_eq!(world.at(64), Outlook::Due(swap.clone()));
    world.take(&swap);
    assert_eq!((world.at(65), world.voters()), (Outlook::Whole, vec![1, 2, 9]));
}

#[test]
fn another_leader_goes_on_once_it_has_seen_the_same() {
    let mut world = World::new(3, SIZE);
    world.down.insert(3);
    world.at(0);
    assert_eq!(world.at(60), add(9));
    world.take(&Step::Add { peer_url: url(9) });
    world.members[3].name = "s".to_owned();
    world.lead_anew(2);
    assert_eq!((world.at(61), world.at(120)), (away(3, 0), away(3, 59)), "it keeps the learner, and waits");
    assert_eq!(world.at(121), Outlook::Due(Step::Swap { learner: MemberId(9), gone: MemberId(3) }));
}

#[test]
fn a_voter_that_comes_back_is_not_replaced() {
    let mut world = World::new(3, SIZE);
    world.down.insert(3);
    world.at(1);
    world.down.clear();
    assert_eq!(world.at(59), Outlook::Whole);
    world.down.insert(3);
    assert_eq!((world.at(60), world.at(100)), (away(3, 0), away(3, 40)), "it is away anew");
    assert_eq!(world.at(121), add(9));
    world.take(&Step::Add { peer_url: url(9) });
    world.members[3].name = "s".to_owned();
    world.down.clear();
    let removed = Step::RemoveLearner { learner: MemberId(9), has_failed: false };
    assert_eq!(world.at(122), Outlook::Due(removed), "the standby is not needed any more");
}

#[test]
fn a_voter_that_starts_again_and_again_is_replaced_but_never_while_it_is_connected() {
    let mut world = World::new(3, SIZE);
    world.down.insert(3);
    world.at(0);
    world.down.clear();
    world.young.insert(3);
    assert_eq!(world.at(50), Outlook::Settling(MemberId(3)));
    assert_eq!(world.at(70), Outlook::Settling(MemberId(3)), "it would be gone, but it is here");
    world.down.insert(3);
    assert_eq!(world.at(71), add(9));
}

#[test]
fn a_standby_that_does_not_come_gives_way_to_another() {
    let mut world = World::new(3, SIZE);
    world.down.extend([3, 9]);
    world.at(0);
    world.take(&Step::Add { peer_url: url(9) });
    let come_s = COME_MAX.as_secs();
    assert!(matches!(world.at(100), Outlook::Coming { .. }));
    let given_up = Step::RemoveLearner { learner: MemberId(9), has_failed: true };
    assert_eq!(world.at(100 + come_s), Outlook::Due(given_up.clone()));
    world.take(&given_up);
    let nobody = Outlook::NoStandby { voters: 2, core_size: 3 };
    assert_eq!(world.at(101 + come_s), nobody, "not the same one again at once");
    world.standbys.insert(url(10), false);
    assert_eq!(world.at(102 + come_s), nobody, "nor one that is gone");
    world.standbys.insert(url(10), true);
    assert_eq!(world.at(103 + come_s), add(10));
}

#[test]
fn what_somebody_else_does_is_left_alone() {
    let mut world = World::new(3, SIZE);
    world.down.insert(3);
    world.at(0);
    world.members.push(member(7, "by hand", true));
    assert_eq!(world.at(100), Outlook::Learners);
    world.members[3].is_learner = false;
    assert_eq!(world.at(101), Outlook::Due(Step::RemoveVoter(MemberId(3))), "four voters are one too many");
    world.is_half_way = true;
    assert_eq!(world.at(102), Outlook::HalfWay);
    world.is_half_way = false;
    world.down.clear();
    assert_eq!(world.at(103), Outlook::Whole, "none that is alive is removed");
}

#[test]
fn a_standby_that_has_started_is_known_by_its_name() {
    let mut world = World::new(3, SIZE);
    world.down.insert(3);
    world.at(0);
    world.members.push(member(9, &crate::ring::standby_name("host", &url(9)), true));
    world.standbys.clear();
    assert!(matches!(world.at(100), Outlook::Due(Step::Swap { .. })));
    world.members[3].name = "host".to_owned();
    assert_eq!(world.at(101), Outlook::Learners);
}

#[test]
fn without_a_quorum_nothing_is_changed() {
    let mut world = World::new(3, SIZE);
    world.down.extend([2, 3]);
    world.at(0);
    assert_eq!(world.at(100), Outlook::NoQuorum { here: 1, voters: 3 });
}

#[test]
fn a_core_that_lacks_voters_is_filled_up_if_nobody_else_does_it() {
    let mut world = World::new(1, SIZE);
    assert_eq!(world.at(0), Outlook::Short { voters: 1, core_size: 3 });
    assert_eq!(world.at(60), add(9));
    world.take(&Step::Add { peer_url: url(9) });
    world.members[1].name = "s".to_owned();
    assert_eq!(world.at(61), Outlook::Due(Step::Promote(MemberId(9))));
    world.take(&Step::Promote(MemberId(9)));
    assert_eq!(world.at(62), Outlook::NoStandby { voters: 2, core_size: 3 });
}

#[test]
fn a_standby_on_another_machine_is_preferred() {
    let mut world = World::new(3, SIZE);
    world.standbys = BTreeMap::from([("http://2:7".to_owned(), true), ("http://3:7".to_owned(), true)]);
    world.down.insert(3);
    world.at(0);
    let expected = Outlook::Due(Step::Add { peer_url: "http://3:7".to_owned() });
    assert_eq!(world.at(60), expected, "a living voter is on 2");
}

/// Between two looks where much time passes.
const STEP_S: u64 = 5;

/// What happens to a core beside its healing.
#[derive(Clone, Debug)]
enum Happening {
    Pass(u64),
    Down(u64),
    Up(u64),
    Lead(u64),
    Volunteer(u64, bool),
    /// A learner tells its name.
    Start,
    /// An operator's learner comes or goes.
    ByHand(bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    let id = || prop_oneof![1_u64..=5, 20_u64..=26];
    prop_oneof![
        4 => (1_u64..200).prop_map(Happening::Pass),
        2 => id().prop_map(Happening::Down),
        2 => id().prop_map(Happening::Up),
        1 => id().prop_map(Happening::Lead),
        2 => (20_u64..=26, any::<bool>()).prop_map(|(id, is_there)| Happening::Volunteer(id, is_there)),
        3 => Just(Happening::Start),
        1 => any::<bool>().prop_map(Happening::ByHand),
    ]
}

impl World {
    /// Lets it happen, as far as it can.
    fn happens(&mut self, what: &Happening) {
        match *what {
            Happening::Pass(_) => {}
            Happening::Down(id) if id != self.leader => drop(self.down.insert(id)),
            Happening::Down(_) => {}
            Happening::Up(id) => drop(self.down.remove(&id)),
            // Whoever leads is connected with a quorum.
            Happening::Lead(id) if self.voters().contains(&id) && !self.down.contains(&id) => self.lead_anew(id),
            Happening::Lead(_) => {}
            Happening::Volunteer(id, is_there) => drop(self.standbys.insert(url(id), is_there)),
            Happening::Start => {
                let started = |member: &&mut Member| member.is_learner && !self.down.contains(&member.id.0);
                self.members.iter_mut().filter(started).for_each(|member| member.name = "s".to_owned());
            }
            Happening::ByHand(true) => {
                if !self.members.iter().any(|member| member.is_learner) {
                    self.members.push(member(50, "by hand", true));
                }
            }
            Happening::ByHand(false) => self.members.retain(|member| member.id != MemberId(50)),
        }
    }

    /// Checks a step against what holds of all of them, and makes it.
    fn check_and_take(&mut self, step: &Step) {
        let before = self.voters();
        let learners = self.members.iter().filter(|member| member.is_learner).map(|member| member.id.0);
        let learners = learners.collect::<Vec<_>>();
        let (leader, down) = (self.leader, self.down.clone());
        let is_here = |id: &u64| *id == leader || !down.contains(id);
        assert!(!learners.contains(&50), "{step:?} beside somebody else's learner");
        match step {
            Step::Add { .. } => assert!(learners.is_empty(), "{step:?}: one at a time"),
            Step::Promote(MemberId(id)) | Step::Swap { learner: MemberId(id), .. } => {
                assert!(learners == [*id] && is_here(id), "{step:?}: it learns, and is connected");
                assert!(self.members.iter().any(|member| member.id.0 == *id && !member.name.is_empty()), "{step:?}");
            }
            Step::RemoveVoter(_) => assert!(learners.is_empty() && before.len() > self.core_size, "{step:?}"),
            Step::RemoveLearner { learner, .. } => assert_eq!(learners, [learner.0], "{step:?}"),
        }
        self.take(step);
        let after = self.voters();
        assert!(after.len() <= self.core_size.max(before.len()), "{step:?}: {} voters", after.len());
        assert!(after.iter().filter(|id| is_here(id)).count() >= quorum(after.len()), "{step:?} costs the quorum");
        for lost in before.iter().filter(|id| !after.contains(id)) {
            assert!(!is_here(lost), "{step:?} removes a voter that is alive");
            assert!(after.len() >= before.len().min(self.core_size), "{step:?} removes one that is not replaced");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_step_costs_the_quorum_and_in_quiet_times_the_core_becomes_whole(
        five: bool, missing in 0_u64..2, happenings in proptest::collection::vec(happening(), 1..80)
    ) {
        let core_size = if five { 5 } else { 3 };
        let mut world = World::new(core_size as u64 - missing, core_size);
        world.standbys.clear();
        let mut down_since: BTreeMap<u64, u64> = BTreeMap::new();
        let mut at_s = 0;
        for what in &happenings {
            world.happens(what);
            let passes = if let Happening::Pass(seconds) = what { *seconds / STEP_S } else { 0 };
            for _ in 0..=passes {
                at_s += STEP_S;
                down_since.retain(|id, _| world.down.contains(id));
                for id in &world.down {
                    down_since.entry(*id).or_insert(at_s);
                }
                if let Outlook::Due(step) = world.at(at_s) {
                    if let Step::Swap { gone, .. } | Step::RemoveVoter(gone) = &step {
                        let since = down_since[&gone.0];
                        prop_assert!(at_s - since >= AFTER.as_secs(), "{step:?} after {} s", at_s - since);
                    }
                    world.check_and_take(&step);
                }
            }
        }
        // Nothing more happens, but that hosts volunteer and start when they are asked.
        world.happens(&Happening::ByHand(false));
        let has_quorum = |world: &World| {
            let voters = world.voters();
            let here = voters.iter().filter(|id| **id == world.leader || !world.down.contains(id)).count();
            here >= quorum(voters.len())
        };
        prop_assume!(has_quorum(&world));
        for id in 60..66 {
            world.happens(&Happening::Volunteer(id, true));
        }
        for _ in 0..1_000 {
            at_s += STEP_S;
            world.happens(&Happening::Start);
            match world.at(at_s) {
                Outlook::Due(step) => world.check_and_take(&step),
                Outlook::Whole => break,
                _ => {}
            }
        }
        prop_assert_eq!(world.at(at_s), Outlook::Whole);
        let voters = world.voters();
        prop_assert!(voters.len() >= core_size && voters.iter().all(|id| !world.down.contains(id)), "{:?}", voters);
    }
}
