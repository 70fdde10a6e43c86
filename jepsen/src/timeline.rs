//! One clock for a run, and the calls and faults on it: what the report draws, whatever the workload was about.

use serde::{Deserialize, Serialize};
use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// The clock of a run: nanoseconds since its start, the same for all clients and the nemesis.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// The time in nanoseconds since the start; never 0.
    pub fn now_ns(self) -> u64 {
        self.0.elapsed().max(Duration::from_nanos(1)).as_nanos() as u64
    }
}

/// Where many tasks note things, in whatever order.
#[derive(Debug)]
pub struct Log<T>(Mutex<Vec<T>>);

impl<T> Default for Log<T> {
    fn default() -> Log<T> {
        Log(Mutex::default())
    }
}

impl<T> Log<T> {
    /// Adds one.
    pub fn add(&self, item: T) {
        self.0.lock().expect("no thread panics while it adds").push(item);
    }

    /// Takes all out.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.0.lock().expect("no thread panics while it adds"))
    }
}

impl<T: Clone> Log<T> {
    /// A copy of all so far.
    pub fn all(&self) -> Vec<T> {
        self.0.lock().expect("no thread panics while it adds").clone()
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// Answered.
    Ok,
    /// Certainly did nothing.
    Failed,
    /// May have taken effect, may yet, or never will.
    Unknown,
}

/// One call of one client, without what it was about.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Call {
    /// Who called.
    pub client: usize,
    /// The kind of call.
    pub what: &'static str,
    /// When, in nanoseconds since the start.
    pub called_ns: u64,
    /// When the client was done with it, answered or not.
    pub returned_ns: u64,
    /// How it ended.
    pub end: End,
}

/// Something the nemesis did, from when to when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Episode {
    /// The start, in nanoseconds.
    pub from_ns: u64,
    /// When it was undone.
    pub to_ns: u64,
    /// What, in words.
    pub what: String,
    /// The longest time without any answer to any client that began meanwhile, in milliseconds.
    pub gap_ms: u64,
}
