//! Seeds of rings, and lies that are noticed.

use crate::{
    sim::{
        cluster::world::{Stats, World},
        runner::{Failure, Suite},
    },
    types::Sabotage,
};

const SUITE: Suite<Option<Sabotage>, Stats> =
    Suite { name: "rings", test: "sim::cluster::ring::tests::seeds", seeds: 60, run };

fn run(seed: u64, sabotage: Option<Sabotage>, trace: bool) -> Result<Stats, Failure> {
    crate::sim::runner::caught(World::with_ring(seed, sabotage, trace), trace, World::run).map(|world| world.stats())
}

#[test]
fn seeds() {
    SUITE.seeds(None);
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    SUITE.is_the_same_twice(None, [0, 1, 2, 3]);
}

/// Bugs that were found here, each with a seed that showed it.
fn passes(seed: u64) {
    SUITE.passes(None, seed);
}

#[test]
fn seed_19_who_brings_a_revision_is_not_shown_less_where_nothing_is_copied() {
    passes(19);
}

#[test]
fn a_linearizable_read_without_the_fence_is_noticed() {
    SUITE.notices(Some(Sabotage::ReadWithoutFence), &["Linearizable"]);
}

#[test]
fn a_copy_that_skips_what_came_while_it_was_away_is_noticed() {
    SUITE.notices(Some(Sabotage::ResumeTooLate), &["Watch", "Linearizable", "Fresh"]);
}

#[test]
fn a_renewal_that_is_answered_by_an_older_one_is_noticed() {
    SUITE.notices(Some(Sabotage::ShareOlderRenewal), &["Lease"]);
}
