//! The deterministic world: members as they are, around them a simulated network, disk and clock that all follow from one seed.
//!
//! **Promises.** The same seed gives the same run, to the last message. Checkers look after every step, so a violation is reported
//! where it happens. A failure prints the one command that repeats it.
//! **May not know** anything of a member that an operator or a disk could not see, except where a checker says so.

mod cluster;
mod raft;
mod runner;

use crate::io::Rng;
use std::{env, io::Write};

/// All chance of one run (splitmix64: any seed is as good as any other, also 0, 1, 2, …).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Chance that follows from `seed`.
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// True `part` times out of `whole`.
    pub fn hits(&mut self, part: u64, whole: u64) -> bool {
        self.below(whole) < part
    }

    /// A number of `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }
}

impl Rng for Chance {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A number that the environment gives a test.
fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Past the capture of the test harness: the line is wanted also when all went well.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
