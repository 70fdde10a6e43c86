//! The runner of every simulated world: many seeds, in order, on two threads.
//!
//! `HENGE_SIM_SEED=1234` repeats one, `HENGE_SIM_SEEDS=10000` says how many, `HENGE_SIM_START` with which to begin. With
//! `CARGO_PROFILE_TEST_OPT_LEVEL=2` they take a fraction of the time.

use super::{number, say};
use std::{
    fmt::{Debug, Display},
    panic::{self, AssertUnwindSafe},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

const THREADS: usize = 2;
/// Seeds in which a lie must show.
const LIES_SHOW_WITHIN: u64 = 400;

/// What broke, in words.
pub type Failure = String;

/// Runs of one kind of world.
pub struct Suite<Lie, Stats> {
    /// What they are called in the summary.
    pub name: &'static str,
    /// The path of the test that runs seeds, for the command that repeats one.
    pub test: &'static str,
    /// Enough for every build of a change; the nightly run takes many more.
    pub seeds: u64,
    /// Runs one seed, with a lie or none; and tells more of a failure if the last argument says so.
    pub run: fn(u64, Lie, bool) -> Result<Stats, Failure>,
}

/// What a run did; those of several add up.
pub trait Sum: Copy + Default + Debug + PartialEq + Send {
    /// Both together.
    fn plus(self, other: Self) -> Self;
}

/// Runs a world, and tells what broke: also where it did not expect to. With its last events, if `trace`.
///
/// # Errors
/// What broke.
pub fn caught<W: Display, V: Display>(
    mut world: W,
    trace: bool,
    run: impl FnOnce(&mut W) -> Result<(), V>,
) -> Result<W, Failure> {
    let failure = match panic::catch_unwind(AssertUnwindSafe(|| run(&mut world))) {
        Ok(Ok(())) => return Ok(world),
        Ok(Err(violation)) => violation.to_string(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into())).unwrap_or_default()
        }
    };
    Err(if trace { format!("{failure}\n{world}") } else { failure })
}

impl<Lie: Copy + Debug + Send + Sync, Stats: Sum> Suite<Lie, Stats> {
    /// Runs as many seeds as the environment says; `honest` is no lie.
    ///
    /// # Panics
    /// If one fails: with what a person needs.
    pub fn seeds(&self, honest: Lie) {
        let (start, count) = match number("HENGE_SIM_SEED") {
            Some(seed) => (seed, 1),
            None => (number("HENGE_SIM_START").unwrap_or(0), number("HENGE_SIM_SEEDS").unwrap_or(self.seeds)),
        };
        let next = AtomicU64::new(start);
        let work = || {
            let (mut total, mut failed) = (Stats::default(), Vec::new());
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= start + count {
                    return (total, failed);
                }
                match (self.run)(seed, honest, false) {
                    Ok(stats) => total = total.plus(stats),
                    Err(failure) => failed.push((seed, failure.chars().take(300).collect::<String>())),
                }
                if (seed - start + 1).is_multiple_of(1_000) {
                    say(&format!("sim: {} of {count} seeds of {}", seed - start + 1, self.name));
                }
            }
        };
        let (mut total, mut failed) = (Stats::default(), Vec::new());
        thread::scope(|scope| {
            for thread in [(); THREADS].map(|()| scope.spawn(work)) {
                let (stats, seeds) = thread.join().expect("panics of a run are caught");
                total = total.plus(stats);
                failed.extend(seeds);
            }
        });
        failed.sort_unstable();
        say(&format!("sim: {count} seeds of {}, {} failed, {total:?}", self.name, failed.len()));
        let reports = failed.iter().take(2).map(|(seed, _)| self.report(*seed, honest)).collect::<String>();
        assert!(failed.is_empty(), "seeds {failed:#?}\n{reports}");
    }

    /// What a person needs: what broke, the last events, and how to see it again.
    fn report(&self, seed: u64, honest: Lie) -> String {
        let again = (self.run)(seed, honest, true).err();
        let failure = again.unwrap_or_else(|| "passes when repeated: chance leaks into the run".into());
        let test = self.test;
        format!("seed {seed}: {failure}\nrepeat with: HENGE_SIM_SEED={seed} cargo test --lib {test} -- --nocapture\n")
    }

    /// A bug that was found by this seed is no more.
    ///
    /// # Panics
    /// If it fails.
    pub fn passes(&self, honest: Lie, seed: u64) {
        (self.run)(seed, honest, false).unwrap_or_else(|_| panic!("{}", self.report(seed, honest)));
    }

    /// A seed does the same twice, looked at or not.
    ///
    /// # Panics
    /// If it does not.
    pub fn is_the_same_twice(&self, honest: Lie, seeds: [u64; 4]) {
        for seed in seeds {
            let (first, again) = ((self.run)(seed, honest, false), (self.run)(seed, honest, true));
            assert_eq!(first, again.map_err(|_| "differs".into()), "seed {seed}");
        }
    }

    /// Some hundred seeds, until a lie shows: by breaking one of these promises, if any are named.
    ///
    /// # Panics
    /// If it does not.
    pub fn notices(&self, lie: Lie, rules: &[&str]) {
        let shows = |failure: &String| rules.is_empty() || rules.iter().any(|rule| failure.starts_with(rule));
        let others = (0..LIES_SHOW_WITHIN).map_while(|seed| {
            let failure = (self.run)(seed, lie, false).err();
            (!failure.as_ref().is_some_and(shows)).then_some(failure)
        });
        let others = others.collect::<Vec<_>>();
        let unnoticed = others.len() as u64 == LIES_SHOW_WITHIN;
        assert!(!unnoticed, "{lie:?} goes unnoticed, or shows otherwise: {:?}", others.into_iter().flatten().next());
    }
}
