//! How long a call took, and a log line for those that took too long.

use crate::types::Error;
use std::time::{Duration, Instant};

/// The stopwatch of one call. Dropped without `done` (the client went away) it says nothing.
pub struct Trace {
    call: &'static str,
    started: Instant,
    slow: Duration,
}

impl Trace {
    /// Starts to measure; a call slower than `slow` is logged.
    pub fn start(call: &'static str, slow: Duration) -> Trace {
        Trace { call, started: Instant::now(), slow }
    }

    /// The call is answered. `key` is what it was about: the first bytes of it are logged, never a value.
    pub fn done<T>(self, key: &[u8], result: &Result<T, Error>) {
        let took = self.started.elapsed();
        if took < self.slow {
            return;
        }
        tracing::warn!(
            call = self.call,
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            key = %String::from_utf8_lossy(&key[..key.len().min(KEY_BYTES_SHOWN)]),
            error = result.as_ref().err().map(Error::text),
            "request stats"
        );
    }
}

const KEY_BYTES_SHOWN: usize = 64;
