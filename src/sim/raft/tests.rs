//! The runner: many seeds, in order, on two threads.
//!
//! Ten thousand take a minute and a half of one core with `CARGO_PROFILE_TEST_OPT_LEVEL=2`, without it eight.
//! `HENGE_SIM_SEED=1234` repeats one, `HENGE_SIM_SEEDS=10000` says how many, `HENGE_SIM_START` with which to begin.

use super::{
    plan::Lie,
    world::{Stats, World},
};
use crate::{
    sim::{number, say},
    types::Sabotage,
};
use std::{
    panic::{self, AssertUnwindSafe},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

/// Enough for every build of a change; the nightly run takes many more.
const SEEDS: u64 = 200;
const THREADS: usize = 2;

fn run(seed: u64, lie: Option<Lie>, trace: bool) -> Result<Stats, String> {
    let mut world = World::new(seed, lie, trace);
    let failure = match panic::catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(Ok(())) => return Ok(world.stats()),
        Ok(Err(violation)) => violation.to_string(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into())).unwrap_or_default()
        }
    };
    Err(if trace { format!("{failure}\n{world}") } else { failure })
}

/// What a person needs: what broke, the last events, and how to see it again.
fn report(seed: u64) -> String {
    let failure =
        run(seed, None, true).err().unwrap_or_else(|| "passes when repeated: chance leaks into the run".into());
    format!(
        "seed {seed}: {failure}\nrepeat with: HENGE_SIM_SEED={seed} cargo test --lib sim::raft::tests::seeds -- --nocapture\n"
    )
}

fn sum(a: Stats, b: Stats) -> Stats {
    Stats {
        steps: a.steps + b.steps,
        elections: a.elections + b.elections,
        crashes: a.crashes + b.crashes,
        committed: a.committed + b.committed,
        reads: a.reads + b.reads,
        changes: a.changes + b.changes,
        states: a.states + b.states,
        taken_over: a.taken_over + b.taken_over,
        digest: a.digest ^ b.digest,
    }
}

#[test]
fn seeds() {
    let (start, count) = match number("HENGE_SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (number("HENGE_SIM_START").unwrap_or(0), number("HENGE_SIM_SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(start);
    let work = || {
        let (mut total, mut failed) = (Stats::default(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= start + count {
                return (total, failed);
            }
            match run(seed, None, false) {
                Ok(stats) => total = sum(total, stats),
                Err(_) => failed.push(seed),
            }
            if (seed - start + 1).is_multiple_of(2_000) {
                say(&format!("sim: {} of {count} seeds", seed - start + 1));
            }
        }
    };
    let (mut total, mut failed) = (Stats::default(), Vec::new());
    thread::scope(|scope| {
        let threads = [(); THREADS].map(|()| scope.spawn(work));
        for thread in threads {
            let (stats, seeds) = thread.join().expect("panics of a run are caught");
            total = sum(total, stats);
            failed.extend(seeds);
        }
    });
    failed.sort_unstable();
    let Stats { steps, elections, crashes, committed, reads, changes, states, taken_over, digest: _ } = total;
    say(&format!(
        "sim: {count} seeds, {} failed, {steps} steps, {elections} elections, {crashes} crashes, {committed} entries, {reads} reads, {changes} changes applied, {taken_over} of {states} states taken over",
        failed.len()
    ));
    let reports = failed.iter().take(3).map(|seed| report(*seed)).collect::<String>();
    assert!(failed.is_empty(), "seeds {failed:?}\n{reports}");
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    for seed in [0, 1, 20, 77] {
        assert_eq!(run(seed, None, false), run(seed, None, true).map_err(|_| "differs".into()), "seed {seed}");
    }
}

/// The first of a few hundred seeds in which a lie is noticed.
fn noticed(lie: Lie) -> String {
    let found = (0..400).find_map(|seed| run(seed, Some(lie), false).err());
    found.unwrap_or_else(|| panic!("{lie:?} goes unnoticed"))
}

#[test]
fn acknowledging_before_the_sync_is_noticed() {
    noticed(Lie::SendsBeforeSync);
}

#[test]
fn a_disk_that_loses_synced_entries_is_noticed() {
    noticed(Lie::LosesSynced);
}

#[test]
fn a_forgotten_vote_is_noticed() {
    let failure = noticed(Lie::ForgetsVotes);
    assert!(failure.starts_with("OneVote") || failure.starts_with("ElectionSafety"), "{failure}");
}

#[test]
fn a_completion_that_comes_too_early_is_noticed() {
    noticed(Lie::ClaimsPersisted);
}

#[test]
fn a_read_without_a_quorum_is_noticed() {
    let failure = noticed(Lie::ReadsLocally);
    assert!(failure.starts_with("LinearizableRead"), "{failure}");
}

#[test]
fn a_leader_that_reads_without_a_quorum_is_noticed() {
    let failure = noticed(Lie::Breaks(Sabotage::ReadWithoutQuorum));
    assert!(failure.starts_with("LinearizableRead"), "{failure}");
}

#[test]
fn a_term_that_does_not_open_with_an_entry_is_noticed() {
    let failure = noticed(Lie::Breaks(Sabotage::SkipNoop));
    assert!(failure.starts_with("LinearizableRead"), "{failure}");
}

#[test]
fn a_membership_in_a_second_place_is_noticed() {
    noticed(Lie::ForgetsMembers);
}

/// Bugs that were found here, each with the first seeds that showed it.
fn passes(seed: u64) {
    run(seed, None, false).unwrap_or_else(|_| panic!("{}", report(seed)));
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
