//! The flush thread: the store to disk, so that a restart has little to replay and the log can be released.

use super::{handle::Shared, run::Inbox};
use crate::engine::Engine;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::{sync::Arc, time::Duration};

/// Flushes every `interval` while there is anything to flush, until `stop` hangs up; then once more.
pub(super) fn run(
    engine: &Arc<dyn Engine>,
    interval: Duration,
    stop: &Receiver<()>,
    inbox: &Sender<Inbox>,
    shared: &Arc<Shared>,
) {
    loop {
        let last = stop.recv_timeout(interval) != Err(RecvTimeoutError::Timeout);
        if engine.pending() > 0 {
            // Taken before the flush: what is applied while it runs may or may not be in it.
            let covered = shared.view.applied_state();
            if let Err(fault) = engine.flush() {
                return shared.fail(&fault);
            }
            let _ = inbox.send(Inbox::Flushed(covered));
        }
        if last {
            return;
        }
    }
}
