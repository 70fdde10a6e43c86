//! Latencies from many tasks, and how figures are printed.

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde_json::Value;
use std::{path::Path, time::Duration};

/// Several histograms, so that tasks on different threads seldom wait for each other.
pub struct Latencies {
    shards: Vec<Mutex<Histogram<u64>>>,
}

fn histogram() -> Histogram<u64> {
    // One microsecond to ten minutes, to three digits.
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("constant bounds are valid")
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { shards: (0..16).map(|_| Mutex::new(histogram())).collect() }
    }
}

impl Latencies {
    pub fn record(&self, task: usize, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.shards[task % self.shards.len()].lock().saturating_record(us);
    }

    /// What was recorded so far; begins anew.
    pub fn take(&self) -> Histogram<u64> {
        let mut all = histogram();
        for shard in &self.shards {
            all.add(std::mem::replace(&mut *shard.lock(), histogram())).expect("equal bounds");
        }
        all
    }
}

/// A quantile in milliseconds.
pub fn ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}

/// CPU time as a share of one core, in percent.
pub fn percent(cpu: Duration, of: Duration) -> f64 {
    cpu.as_secs_f64() / of.as_secs_f64().max(f64::EPSILON) * 100.0
}

/// Writes figures to a file, if there is to be one.
pub fn save(report: &Value, path: Option<&Path>) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
