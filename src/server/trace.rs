//! How long a call took and where its time went, and a log line for those that took too long.

use crate::{replica::Stages, types::Error};
use parking_lot::Mutex;
use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Log lines of slow calls in a second. When everything is slow, a line for each would make it slower.
const LINES_PER_S: u32 = 10;
const KEY_BYTES_SHOWN: usize = 64;

/// Where slow calls are told of. One for all calls of an edge.
#[derive(Debug)]
pub struct SlowCalls {
    /// `warning-unary-request-duration`
    after: Duration,
    lines: Mutex<Lines>,
}

/// What was logged in the present second.
#[derive(Debug, Default)]
struct Lines {
    since: Option<Instant>,
    count: u32,
    /// Not logged since the last line.
    left_out: u64,
}

impl SlowCalls {
    /// A call slower than `after` is logged.
    pub(super) fn new(after: Duration) -> SlowCalls {
        SlowCalls { after, lines: Mutex::default() }
    }
}

impl Lines {
    /// Whether there may be another line; then how many calls were left out before it.
    fn next(&mut self, now: Instant) -> Option<u64> {
        let is_over = |since: Instant| now.saturating_duration_since(since) >= Duration::from_secs(1);
        if self.since.is_none_or(is_over) {
            (self.since, self.count) = (Some(now), 0);
        }
        if self.count >= LINES_PER_S {
            self.left_out += 1;
            return None;
        }
        self.count += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// The stopwatch of one call. Dropped without `done` (the client went away) it says nothing.
#[derive(Debug)]
pub struct Trace<'a> {
    call: &'static str,
    started: Instant,
    slow: Option<&'a SlowCalls>,
    spent: OnceLock<Spent>,
}

/// Where the time went, as far as somebody has said so.
#[derive(Clone, Copy, Debug)]
enum Spent {
    /// Until the state could be read.
    Agreeing(Duration),
    Writing(Stages),
}

impl<'a> Trace<'a> {
    /// Starts to measure; a call that is slow for `slow` is logged.
    pub fn start(call: &'static str, slow: &'a SlowCalls) -> Trace<'a> {
        Trace { call, started: Instant::now(), slow: Some(slow), spent: OnceLock::new() }
    }

    /// For calls that are nobody's.
    pub fn of_none() -> Trace<'static> {
        Trace { call: "", started: Instant::now(), slow: None, spent: OnceLock::new() }
    }

    /// It is known how new the state has to be, and it is: what follows is the reading.
    pub(super) fn may_read(&self) {
        // A read that begins again says it again.
        let _ = self.spent.set(Spent::Agreeing(self.started.elapsed()));
    }

    /// What was proposed is applied.
    pub(super) fn wrote(&self, stages: Stages) {
        let _ = self.spent.set(Spent::Writing(stages));
    }

    /// The call is answered. `key` is what it was about: the first bytes of it are logged, never a value.
    pub fn done<T>(self, key: &[u8], result: &Result<T, Error>) {
        let Some(slow) = self.slow else { return };
        let took = self.started.elapsed();
        if took < slow.after {
            return;
        }
        let Some(left_out) = slow.lines.lock().next(Instant::now()) else { return };
        let (stages, rest) = match self.spent.get() {
            Some(Spent::Writing(stages)) => (*stages, "replied_ms"),
            Some(Spent::Agreeing(agreed)) => (Stages { agreed: *agreed, ..Stages::default() }, "read_ms"),
            None => (Stages::default(), "waited_ms"),
        };
        let Stages { queued, agreed, applied } = stages;
        let last = took.saturating_sub(queued + agreed + applied);
        let last = |name: &str| (name == rest).then(|| millis(last));
        let is_write = matches!(self.spent.get(), Some(Spent::Writing(_)));
        tracing::warn!(
            call = self.call,
            took_ms = millis(took),
            queued_ms = is_write.then(|| millis(queued)),
            agreed_ms = self.spent.get().map(|_| millis(agreed)),
            applied_ms = is_write.then(|| millis(applied)),
            replied_ms = last("replied_ms"),
            read_ms = last("read_ms"),
            waited_ms = last("waited_ms"),
            key = %String::from_utf8_lossy(&key[..key.len().min(KEY_BYTES_SHOWN)]),
            error = result.as_ref().err().map(Error::text),
            left_out = (left_out > 0).then_some(left_out),
            "request stats"
        );
    }
}

fn millis(took: Duration) -> f64 {
    // Not more digits than mean something.
    (took.as_secs_f64() * 1e5).round() / 1e2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_all_is_slow_few_lines_tell_of_it_and_how_many_more_there_are() {
        let (mut lines, start) = (Lines::default(), Instant::now());
        let mut told = (0..25).filter_map(|at| lines.next(start + Duration::from_millis(at))).collect::<Vec<_>>();
        assert_eq!(told, [0; LINES_PER_S as usize]);
        told = (0..25).filter_map(|at| lines.next(start + Duration::from_millis(1_000 + at))).collect();
        assert_eq!((told.len(), told[0], told[1]), (LINES_PER_S as usize, 15, 0));
    }
}
