//! Who makes things go wrong: one fault after the other, each for a while, with quiet between.
//!
//! ```text
//!   quiet ── inject ── hold ── heal ── quiet ── inject ── hold ── heal ── ...      all of a nemesis's faults before any comes again
//! ```

pub mod fault;
mod inject;
mod replace;
mod ring;

use crate::{
    cluster::Cluster,
    random::Random,
    timeline::{Clock, Episode},
};
use fault::Fault;
use std::{
    io,
    time::{Duration, Instant},
};

/// How long quiet and faults last.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The least quiet before a fault, and the least time that one lasts.
    pub min: Duration,
    /// What chance adds at most.
    pub spread: Duration,
}

impl Pace {
    fn next(self, random: &mut Random) -> Duration {
        self.min + Duration::from_millis(random.below(self.spread.as_millis() as u64 + 1))
    }
}

/// What a nemesis did and saw.
#[derive(Debug, Default)]
pub struct Account {
    /// The faults, on the run's clock.
    pub episodes: Vec<Episode>,
    /// Members and proxies that ended by themselves where no fault explains it.
    pub ended: Vec<String>,
    /// Members that ended by themselves because of a fault, and other things worth knowing.
    pub notes: Vec<String>,
    /// Changes of membership, and restarts, that did not succeed although nothing else was wrong.
    pub failures: Vec<String>,
}

/// Makes `faults` happen until `time` is over. Nothing is wrong any more when it returns.
///
/// # Errors
/// If the system refuses something.
pub async fn run(
    cluster: &mut Cluster,
    faults: &[Fault],
    pace: Pace,
    time: Duration,
    clock: Clock,
    mut random: Random,
) -> io::Result<Account> {
    let end = Instant::now() + time;
    let mut account = Account::default();
    let mut waiting: Vec<Fault> = Vec::new();
    loop {
        let quiet = pace.next(&mut random);
        let left = end.saturating_duration_since(Instant::now());
        tokio::time::sleep(quiet.min(left)).await;
        note(&mut account.ended, cluster.take_ended());
        cluster.start_all()?;
        // A fault needs some time to show.
        if faults.is_empty() && !left.is_zero() {
            continue;
        }
        if left < quiet + pace.min / 2 {
            return Ok(account);
        }
        if waiting.is_empty() {
            waiting = random.shuffled(faults.len()).into_iter().map(|at| faults[at]).collect();
        }
        let fault = waiting.pop().expect("it was filled");
        let hold = pace.next(&mut random).min(end.saturating_duration_since(Instant::now()));
        let from_ns = clock.now_ns();
        let what = inject::inject(cluster, fault, hold, &mut random, &mut account).await?;
        let ended = cluster.heal()?;
        eprintln!("{:>8.1} s  {what}", from_ns as f64 / 1e9);
        account.episodes.push(Episode { from_ns, to_ns: clock.now_ns(), what, gap_ms: 0 });
        if fault.may_end_members() {
            note(
                &mut account.notes,
                ended.into_iter().map(|how| format!("under {fault} a member ended by itself: {how}")),
            );
        } else {
            note(&mut account.ended, ended);
        }
    }
}

/// Adds what is not there yet: a member that cannot start says the same each time.
fn note(texts: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
    for text in more {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
}
