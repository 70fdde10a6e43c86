//! Seeds of raft alone, and lies that are noticed. Ten thousand take a minute and a half of one core with optimization, without it eight.

use super::{
    plan::Lie,
    world::{Stats, World},
};
use crate::{
    sim::runner::{self, Failure, Suite, Sum},
    types::Sabotage,
};

const SUITE: Suite<Option<Lie>, Stats> = Suite { name: "raft", test: "sim::raft::tests::seeds", seeds: 200, run };

fn run(seed: u64, lie: Option<Lie>, trace: bool) -> Result<Stats, Failure> {
    runner::caught(World::new(seed, lie, trace), trace, World::run).map(|world| world.stats())
}

impl Sum for Stats {
    fn plus(self, other: Stats) -> Stats {
        Stats {
            steps: self.steps + other.steps,
            elections: self.elections + other.elections,
            crashes: self.crashes + other.crashes,
            committed: self.committed + other.committed,
            reads: self.reads + other.reads,
            changes: self.changes + other.changes,
            states: self.states + other.states,
            taken_over: self.taken_over + other.taken_over,
            digest: self.digest ^ other.digest,
        }
    }
}

#[test]
fn seeds() {
    SUITE.seeds(None);
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    SUITE.is_the_same_twice(None, [0, 1, 20, 77]);
}

#[test]
fn acknowledging_before_the_sync_is_noticed() {
    SUITE.notices(Some(Lie::SendsBeforeSync), &[]);
}

#[test]
fn a_disk_that_loses_synced_entries_is_noticed() {
    SUITE.notices(Some(Lie::LosesSynced), &[]);
}

#[test]
fn a_forgotten_vote_is_noticed() {
    SUITE.notices(Some(Lie::ForgetsVotes), &["OneVote", "ElectionSafety"]);
}

#[test]
fn a_completion_that_comes_too_early_is_noticed() {
    SUITE.notices(Some(Lie::ClaimsPersisted), &[]);
}

#[test]
fn a_read_without_a_quorum_is_noticed() {
    SUITE.notices(Some(Lie::ReadsLocally), &["LinearizableRead"]);
}

#[test]
fn a_leader_that_reads_without_a_quorum_is_noticed() {
    SUITE.notices(Some(Lie::Breaks(Sabotage::ReadWithoutQuorum)), &["LinearizableRead"]);
}

#[test]
fn a_term_that_does_not_open_with_an_entry_is_noticed() {
    SUITE.notices(Some(Lie::Breaks(Sabotage::SkipNoop)), &["LinearizableRead"]);
}

#[test]
fn a_membership_in_a_second_place_is_noticed() {
    SUITE.notices(Some(Lie::ForgetsMembers), &[]);
}

/// Bugs that were found here, each with the first seeds that showed it.
fn passes(seed: u64) {
    SUITE.passes(None, seed);
}

#[test]
fn seed_220_a_log_opens_after_an_entry_gave_way_to_one_of_an_older_term() {
    [220, 380, 480].into_iter().for_each(passes);
}

#[test]
fn seed_3533_late_refusals_and_acceptances_do_not_beget_ever_more_of_each_other() {
    passes(3533);
}

#[test]
fn seed_4225_a_leader_that_has_lost_its_vote_lets_the_others_elect_one_although_another_change_waits_in_its_log() {
    passes(4225);
}

#[test]
fn seed_9902_a_follower_whose_answers_were_lost_is_asked_again_after_the_log_was_released() {
    passes(9902);
}
