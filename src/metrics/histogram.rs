//! How often a number was about how large.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The bounds `first`, twice that, four times that and so on.
pub const fn doubling<const N: usize>(first: f64) -> [f64; N] {
    let (mut bounds, mut at, mut bound) = ([0.0; N], 0, first);
    while at < N {
        bounds[at] = bound;
        bound *= 2.0;
        at += 1;
    }
    bounds
}

/// Counts of numbers by bucket. Written with relaxed atomics alone; whoever reads meanwhile may see a number in one place and not in the
/// other.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds, ascending, in the unit that is shown.
    bounds: &'static [f64],
    /// How many of the small units that are added up make one of those that are shown.
    per_unit: f64,
    /// One more than bounds: the last is of what is above all of them.
    counts: Box<[AtomicU64]>,
    /// In small units.
    sum: AtomicU64,
}

impl Histogram {
    /// Of durations, with bounds in seconds.
    pub fn of_seconds(bounds: &'static [f64]) -> Histogram {
        Histogram::new(bounds, 1e9)
    }

    /// Of durations, with bounds in milliseconds.
    pub fn of_millis(bounds: &'static [f64]) -> Histogram {
        Histogram::new(bounds, 1e6)
    }

    /// Of whole numbers.
    pub fn of_numbers(bounds: &'static [f64]) -> Histogram {
        Histogram::new(bounds, 1.0)
    }

    fn new(bounds: &'static [f64], per_unit: f64) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, per_unit, counts, sum: AtomicU64::new(0) }
    }

    /// Counts a duration.
    pub fn observe(&self, took: Duration) {
        self.observe_number(nanos(took));
    }

    /// Counts a whole number.
    pub fn observe_number(&self, number: u64) {
        self.counts[self.bucket(number)].fetch_add(1, Relaxed);
        self.sum.fetch_add(number, Relaxed);
    }

    /// Counts many durations at the price of few.
    pub fn observe_all(&self, took: impl Iterator<Item = Duration>) {
        let (mut last, mut count, mut sum) = (0, 0, 0);
        // What comes together is mostly in one bucket.
        for number in took.map(nanos) {
            let bucket = self.bucket(number);
            if bucket != last && count > 0 {
                self.counts[last].fetch_add(std::mem::take(&mut count), Relaxed);
            }
            (last, count, sum) = (bucket, count + 1, sum + number);
        }
        if count > 0 {
            self.counts[last].fetch_add(count, Relaxed);
            self.sum.fetch_add(sum, Relaxed);
        }
    }

    fn bucket(&self, number: u64) -> usize {
        let value = number as f64 / self.per_unit;
        self.bounds.partition_point(|bound| *bound < value)
    }

    /// What was counted so far.
    pub fn read(&self) -> Observations {
        let mut total = 0;
        let mut up_to = self.counts.iter().map(|count| {
            total += count.load(Relaxed);
            total
        });
        let buckets = self.bounds.iter().copied().zip(&mut up_to).collect();
        let count = up_to.next().unwrap_or(0);
        Observations { buckets, count, sum: self.sum.load(Relaxed) as f64 / self.per_unit }
    }
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// What a [`Histogram`] has counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Observations {
    /// Upper bound, and how many were at or below it.
    pub buckets: Vec<(f64, u64)>,
    /// How many there were.
    pub count: u64,
    /// All of them together.
    pub sum: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[f64] = &doubling::<4>(0.001);

    #[test]
    fn a_bucket_has_all_at_or_below_its_bound() {
        let histogram = Histogram::of_seconds(BOUNDS);
        for micros in [0, 1_000, 1_001, 8_000, 9_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let read = histogram.read();
        assert_eq!(read.buckets, [(0.001, 2), (0.002, 3), (0.004, 3), (0.008, 4)]);
        assert_eq!((read.count, (read.sum * 1e6).round()), (5, 19_001.0));
    }

    #[test]
    fn many_at_once_are_as_many_one_by_one() {
        let (one_by_one, at_once) = (Histogram::of_seconds(BOUNDS), Histogram::of_seconds(BOUNDS));
        let durations = [1, 1, 3_000, 3_000, 1, 70_000, 2_000].map(Duration::from_micros);
        durations.iter().for_each(|took| one_by_one.observe(*took));
        at_once.observe_all(durations.into_iter());
        at_once.observe_all(std::iter::empty());
        assert_eq!(at_once.read(), one_by_one.read());
    }

    #[test]
    fn whole_numbers_are_their_own_unit() {
        let histogram = Histogram::of_numbers(&[1.0, 2.0, 4.0]);
        histogram.observe_number(60);
        histogram.observe_number(2);
        assert_eq!(histogram.read(), Observations { buckets: vec![(1.0, 0), (2.0, 1), (4.0, 1)], count: 2, sum: 62.0 });
    }
}
