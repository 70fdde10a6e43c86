//! The flush thread: the store to disk, so that a restart has little to replay and the log can be released.

use super::{handle::Shared, run::Inbox};
use crate::types::Fault;
use flume::{Receiver, RecvTimeoutError, Selector, Sender};
use std::{sync::Arc, time::Duration};

/// What the thread works with.
pub(crate) struct Flush {
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Sender<Inbox>,
    /// Longest time between two flushes.
    pub(super) interval: Duration,
}

impl Flush {
    /// Flushes every interval while there is anything to flush, until `stop` hangs up; then once more. `wake` says that much is waiting:
    /// do not sit out the interval.
    pub(super) fn run(self, stop: &Receiver<()>, wake: &Receiver<()>) {
        loop {
            let last = match next(stop, wake, self.interval) {
                Call::Stop => true,
                Call::Wake => false,
                // Nobody will wake this thread: the interval alone counts.
                Call::Alone => stop.recv_timeout(self.interval) != Err(RecvTimeoutError::Timeout),
            };
            if let Err(fault) = self.flush() {
                return self.shared.fail(&fault);
            }
            if last {
                return;
            }
        }
    }

    /// One flush, if there is anything to flush.
    pub(crate) fn flush(&self) -> Result<(), Fault> {
        // Settled first: what the engine holds is never older.
        let covered = *self.shared.facts.settled.lock();
        let engine = self.shared.view.engine();
        if engine.pending() == 0 {
            return Ok(());
        }
        // What is applied while it runs may or may not be in it.
        let began = self.shared.clock.now();
        engine.flush()?;
        self.shared.facts.tally.flush.observe(self.shared.clock.now().saturating_sub(began));
        self.shared.view.measure()?;
        // The loop is gone only when the member stops.
        let _ = self.inbox.send(Inbox::Flushed(covered));
        Ok(())
    }
}

/// Why the thread stirs.
enum Call {
    Stop,
    /// Much is waiting, or the interval is over.
    Wake,
    /// There is nobody left to wake it.
    Alone,
}

fn next(stop: &Receiver<()>, wake: &Receiver<()>, interval: Duration) -> Call {
    Selector::new()
        .recv(stop, |_| Call::Stop)
        .recv(wake, |woken| if woken.is_ok() { Call::Wake } else { Call::Alone })
        .wait_timeout(interval)
        .unwrap_or(Call::Wake)
}
