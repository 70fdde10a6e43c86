//! The runner: many seeds, in order, on two threads.
//!
//! `HENGE_SIM_SEED=1234` repeats one, `HENGE_SIM_SEEDS=10000` says how many, `HENGE_SIM_START` with which to begin. With
//! `CARGO_PROFILE_TEST_OPT_LEVEL=2` they take a fraction of the time.

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
        "seed {seed}: {failure}\nrepeat with: HENGE_SIM_SEED={seed} cargo test --lib sim::cluster::tests::seeds -- --nocapture\n"
    )
}

fn sum(a: Stats, b: Stats) -> Stats {
    Stats {
        events: a.events + b.events,
        crashes: a.crashes + b.crashes,
        entries: a.entries + b.entries,
        answers: a.answers + b.answers,
        watched: a.watched + b.watched,
        snapshots: a.snapshots + b.snapshots,
        resumed: a.resumed + b.resumed,
        changes: a.changes + b.changes,
        refills: a.refills + b.refills,
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
                Err(failure) => failed.push((seed, failure.chars().take(300).collect::<String>())),
            }
            if (seed - start + 1).is_multiple_of(1_000) {
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
    say(&format!("sim: {count} seeds of whole members, {} failed, {total:?}", failed.len()));
    let reports = failed.iter().take(2).map(|(seed, _)| report(*seed)).collect::<String>();
    assert!(failed.is_empty(), "seeds {failed:#?}\n{reports}");
}

/// The first of some hundred seeds in which a lie is noticed.
fn noticed(lie: Lie) -> String {
    let found = (0..400).find_map(|seed| run(seed, Some(lie), false).err());
    found.unwrap_or_else(|| panic!("{lie:?} goes unnoticed"))
}

/// Whether one of the promises was seen broken.
fn is_about(failure: &str, rules: &[&str]) {
    assert!(rules.iter().any(|rule| failure.starts_with(rule)), "{failure}");
}

#[test]
fn acknowledging_before_the_sync_is_noticed() {
    noticed(Lie::SyncsNothing);
}

#[test]
fn a_disk_of_some_time_ago_is_noticed() {
    noticed(Lie::RestoresOldDisks);
}

#[test]
fn reading_without_a_quorum_is_noticed() {
    is_about(&noticed(Lie::ForgesHeartbeats), &["Linearizable", "Lease"]);
}

#[test]
fn reading_without_asking_the_leader_is_noticed() {
    is_about(&noticed(Lie::ReadsLocally), &["Linearizable"]);
}

#[test]
fn a_member_that_acknowledges_before_it_syncs_is_noticed() {
    noticed(Lie::Breaks(Sabotage::AckBeforeFsync));
}

#[test]
fn a_leader_that_reads_without_a_quorum_is_noticed() {
    is_about(&noticed(Lie::Breaks(Sabotage::ReadWithoutQuorum)), &["Linearizable", "Lease"]);
}

#[test]
fn a_term_that_does_not_open_with_an_entry_is_noticed() {
    is_about(&noticed(Lie::Breaks(Sabotage::SkipNoop)), &["Linearizable", "Lease"]);
}

#[test]
fn a_proposal_that_takes_effect_twice_is_noticed() {
    is_about(&noticed(Lie::DoublesForwards), &["Once"]);
}

#[test]
fn leases_that_end_too_early_are_noticed() {
    is_about(&noticed(Lie::HidesJumps), &["Lease"]);
}

#[test]
fn a_wrong_state_that_members_do_not_notice_is_noticed() {
    is_about(&noticed(Lie::MutesHashes), &["Liveness", "OneState"]);
}

#[test]
fn a_watcher_that_misses_a_revision_is_noticed() {
    is_about(&noticed(Lie::SkipsEvents), &["Watch"]);
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    for seed in [0, 1, 20, 77] {
        assert_eq!(run(seed, None, false), run(seed, None, true).map_err(|_| "differs".into()), "seed {seed}");
    }
}

/// Bugs that were found here, each with a seed that showed it.
fn passes(seed: u64) {
    run(seed, None, false).unwrap_or_else(|_| panic!("{}", report(seed)));
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
