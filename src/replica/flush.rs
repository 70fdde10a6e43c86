//! The flush thread: the store to disk, so that a restart has little to replay and the log can be released; and what may take long beside it.

use super::{handle::Shared, run::Inbox};
use crate::{io::Disk, types::Fault, wal};
use flume::{Receiver, Selector, Sender};
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
    /// Calls from within the member; of the many that come while one is answered, one stands.
    pub(super) calls: Receiver<()>,
    /// Where the log is, and what it has released. As many as it has segments at most.
    pub(super) disk: D,
    pub(super) released: Receiver<PathBuf>,
}

/// After a look that found nothing to do, the next one is so many intervals later. What is written meanwhile is in the log.
const IDLE_INTERVALS: u32 = 5;

impl<D: Disk> Flush<D> {
    /// Flushes every interval while there is anything to flush, until `stop` hangs up; then once more. `wake` says that much is waiting:
    /// do not sit out the interval; nor when the member calls.
    pub(super) fn run(self, stop: &Receiver<()>, wake: &Receiver<()>) {
        let mut pause = self.interval;
        loop {
            let last = self.waits_for_the_end(stop, wake, pause);
            match self.flush() {
                Ok(true) => pause = self.interval,
                // An idle member is not to wake up ten times a second for nothing.
                Ok(false) => pause = self.interval * IDLE_INTERVALS,
                Err(fault) => return self.shared.fail(&fault),
            }
            if last {
                return;
            }
        }
    }

    /// Waits until there is a reason to look. Returns whether that is the end.
    fn waits_for_the_end(&self, stop: &Receiver<()>, wake: &Receiver<()>, pause: Duration) -> bool {
        let either = || Selector::new().recv(stop, |_| Some(true)).recv(&self.calls, |_| Some(false));
        let stirred = either().recv(wake, |woken| woken.is_ok().then_some(false)).wait_timeout(pause);
        match stirred {
            // The engine is gone, and will never wake this thread.
            Ok(None) => either().wait_timeout(pause).ok().flatten().unwrap_or(false),
            Ok(Some(is_end)) => is_end,
            Err(_) => false,
        }
    }

    /// One flush, if there is anything to flush. Returns whether there was anything to do.
    pub(crate) fn flush(&self) -> Result<bool, Fault> {
        self.note_distrust()?;
        // One at a time: each takes a while, and the store is not to wait for a hundred of them.
        let released = self.released.try_recv().ok();
        released.iter().try_for_each(|segment| wal::remove(&self.disk, segment))?;
        // Settled first: what the engine holds is never older.
        let covered = *self.shared.facts.settled.lock();
        let engine = self.shared.view.engine();
        if engine.pending() == 0 {
            return Ok(released.is_some());
        }
        // What is applied while it runs may or may not be in it.
        let began = self.shared.clock.now();
        engine.flush()?;
        self.shared.facts.tally.flush.observe(self.shared.clock.now().saturating_sub(began));
        self.shared.view.measure()?;
        // The loop is gone only when the member stops.
        let _ = self.inbox.send(Inbox::Flushed(covered));
        Ok(true)
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
