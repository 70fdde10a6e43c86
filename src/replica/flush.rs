//! The flush thread: the store to disk, so that a restart has little to replay and the log can be released.

use super::{handle::Shared, run::Inbox};
use crate::{engine::Engine, types::Fault};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::{sync::Arc, time::Duration};

/// What the thread works with.
pub(super) struct Flush {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Sender<Inbox>,
    /// Longest time between two flushes.
    pub(super) interval: Duration,
    /// Says that much is waiting: do not sit out the interval.
    pub(super) wake: Receiver<()>,
}

impl Flush {
    /// Flushes every interval while there is anything to flush, until `stop` hangs up; then once more.
    pub(super) fn run(self, stop: &Receiver<()>) {
        loop {
            let last = crossbeam_channel::select! {
                recv(stop) -> _ => true,
                recv(self.wake) -> woken => {
                    if woken.is_err() {
                        // Nobody will wake this thread: the interval alone counts.
                        stop.recv_timeout(self.interval) != Err(RecvTimeoutError::Timeout)
                    } else {
                        false
                    }
                }
                default(self.interval) => false,
            };
            if let Err(fault) = self.flush() {
                return self.shared.fail(&fault);
            }
            if last {
                return;
            }
        }
    }

    fn flush(&self) -> Result<(), Fault> {
        if self.engine.pending() == 0 {
            return Ok(());
        }
        // Taken before the flush: what is applied while it runs may or may not be in it.
        let covered = *self.shared.facts.settled.lock();
        self.engine.flush()?;
        self.shared.view.measure()?;
        // The loop is gone only when the member stops.
        let _ = self.inbox.send(Inbox::Flushed(covered));
        Ok(())
    }
}
