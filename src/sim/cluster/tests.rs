//! Seeds of whole members, and lies that are noticed.

use super::{
    plan::Lie,
    world::{Stats, World},
};
use crate::{
    sim::runner::{self, Failure, Suite, Sum},
    types::Sabotage,
};

const SUITE: Suite<Option<Lie>, Stats> =
    Suite { name: "whole members", test: "sim::cluster::tests::seeds", seeds: 200, run };

fn run(seed: u64, lie: Option<Lie>, trace: bool) -> Result<Stats, Failure> {
    runner::caught(World::new(seed, lie, trace), trace, World::run).map(|world| world.stats())
}

impl Sum for Stats {
    fn plus(self, other: Stats) -> Stats {
        Stats {
            events: self.events + other.events,
            crashes: self.crashes + other.crashes,
            entries: self.entries + other.entries,
            answers: self.answers + other.answers,
            watched: self.watched + other.watched,
            snapshots: self.snapshots + other.snapshots,
            resumed: self.resumed + other.resumed,
            changes: self.changes + other.changes,
            refills: self.refills + other.refills,
            wire: self.wire + other.wire,
            refused: self.refused + other.refused,
            digest: self.digest ^ other.digest,
        }
    }
}

#[test]
fn seeds() {
    SUITE.seeds(None);
}

#[test]
fn acknowledging_before_the_sync_is_noticed() {
    SUITE.notices(Some(Lie::SyncsNothing), &[]);
}

#[test]
fn a_disk_of_some_time_ago_is_noticed() {
    SUITE.notices(Some(Lie::RestoresOldDisks), &[]);
}

#[test]
fn reading_without_a_quorum_is_noticed() {
    SUITE.notices(Some(Lie::ForgesHeartbeats), &["Linearizable", "Lease"]);
}

#[test]
fn reading_without_asking_the_leader_is_noticed() {
    SUITE.notices(Some(Lie::ReadsLocally), &["Linearizable"]);
}

#[test]
fn a_member_that_acknowledges_before_it_syncs_is_noticed() {
    SUITE.notices(Some(Lie::Breaks(Sabotage::AckBeforeFsync)), &[]);
}

#[test]
fn a_leader_that_reads_without_a_quorum_is_noticed() {
    SUITE.notices(Some(Lie::Breaks(Sabotage::ReadWithoutQuorum)), &["Linearizable", "Lease"]);
}

#[test]
fn a_term_that_does_not_open_with_an_entry_is_noticed() {
    SUITE.notices(Some(Lie::Breaks(Sabotage::SkipNoop)), &["Linearizable", "Lease"]);
}

#[test]
fn a_proposal_that_takes_effect_twice_is_noticed() {
    SUITE.notices(Some(Lie::DoublesForwards), &["Once"]);
}

#[test]
fn leases_that_end_too_early_are_noticed() {
    SUITE.notices(Some(Lie::HidesJumps), &["Lease"]);
}

#[test]
fn a_wrong_state_that_members_do_not_notice_is_noticed() {
    SUITE.notices(Some(Lie::MutesHashes), &["Liveness", "OneState"]);
}

#[test]
fn a_watcher_that_misses_a_revision_is_noticed() {
    SUITE.notices(Some(Lie::SkipsEvents), &["Watch"]);
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    SUITE.is_the_same_twice(None, [0, 1, 20, 77]);
}

/// Bugs that were found here, each with a seed that showed it.
fn passes(seed: u64) {
    SUITE.passes(None, seed);
}

#[test]
fn seed_9_a_lease_that_was_acknowledged_is_renewed_by_a_leader_that_has_not_applied_it_yet() {
    [9, 19, 79].into_iter().for_each(passes);
}

#[test]
fn seed_201_a_lone_voter_does_not_read_behind_what_a_learner_has_answered() {
    passes(201);
}

#[test]
fn seed_207_a_log_is_whole_after_a_crash_between_the_store_of_a_snapshot_and_its_mark() {
    [207, 254].into_iter().for_each(passes);
}
