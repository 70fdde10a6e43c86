//! The flush thread: the store to disk, so that a restart has little to replay and the log can be released; and what may take long beside it.

use super::{handle::Shared, run::Inbox};
use crate::{io::Disk, types::Fault, wal};
use flume::{Receiver, RecvTimeoutError, Selector, Sender};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// What the thread works with.
pub(crate) struct Flush<D: Disk> {
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Sender<Inbox>,
    /// Longest time between two flushes.
    pub(super) interval: Duration,
    /// Whether the disk knows that this member's state is wrong.
    pub(super) is_noted: AtomicBool,
    /// Where the log is, and what it has released. As many as it has segments at most.
    pub(super) disk: D,
    pub(super) released: Receiver<PathBuf>,
}

impl<D: Disk> Flush<D> {
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
        self.note_distrust()?;
        // One at a time: each takes a while, and the store is not to wait for a hundred of them.
        self.released.try_iter().take(1).try_for_each(|segment| wal::remove(&self.disk, &segment))?;
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

    /// A restart must not make a member trust a state that a majority has contradicted. Should a right one take its place in this very
    /// moment, then the note is on that one, and it is sent once more after a restart.
    fn note_distrust(&self) -> Result<(), Fault> {
        let is_wrong = self.shared.facts.quarantined.load(Ordering::Acquire);
        if is_wrong && !self.is_noted.load(Ordering::Relaxed) {
            self.shared.home.distrust()?;
        }
        self.is_noted.store(is_wrong, Ordering::Relaxed);
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
