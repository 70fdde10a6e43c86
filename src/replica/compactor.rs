//! Compaction: the sweep beside the traffic, and the clock that asks for it by itself.

use super::handle::{Handle, Shared};
use crate::{machine::Command, types::Revision};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

/// How soon a sweep that a reader holds back is tried again.
const HELD_RETRY: Duration = Duration::from_millis(100);

/// How history is forgotten by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Keep what is younger than this.
    Periodic(Duration),
    /// Keep this many revisions.
    Revisions(i64),
}

/// Sweeps what was compacted, in bounded steps of `rows_max` rows with a rest of `pause` between them, so that nobody notices.
pub(super) async fn sweep(shared: Arc<Shared>, rows_max: usize, pause: Duration) {
    let mut fault = shared.fault.subscribe();
    loop {
        let reader = shared.reader.clone();
        let step = tokio::task::spawn_blocking(move || reader.compact_step(rows_max)).await;
        match step {
            Ok(Ok(true)) => tokio::time::sleep(pause).await,
            Ok(Ok(false)) => {
                let swept = shared.reader.swept();
                if shared.swept.send_replace(swept) != swept {
                    tracing::info!(compact_revision = swept.0, "finished scheduled compaction");
                }
                let held = swept < shared.reader.compacted();
                tokio::select! {
                    () = shared.sweep.notified() => {}
                    // A reader holds the sweep back; nobody tells when it lets go.
                    () = tokio::time::sleep(HELD_RETRY), if held => {}
                    _ = fault.wait_for(Option::is_some) => return,
                }
            }
            Ok(Err(found)) => return shared.fail(&found),
            Err(_) => return,
        }
    }
}

/// Proposes a compaction whenever `mode` says that there is history to forget.
///
/// Follows etcd: with a period of up to an hour history is looked at every tenth of it, else every six minutes; with a number of
/// revisions, every five minutes.
pub(super) async fn auto(handle: Handle, mode: AutoCompaction) {
    let interval = match mode {
        AutoCompaction::Periodic(keep) => keep.min(Duration::from_secs(3600)) / 10,
        AutoCompaction::Revisions(_) => Duration::from_secs(300),
    };
    let mut seen: VecDeque<(Instant, Revision)> = VecDeque::new();
    let mut fault = handle.fault();
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = fault.wait_for(Option::is_some) => return,
        }
        let current = handle.reader().current();
        let target = match mode {
            AutoCompaction::Revisions(keep) => Revision(current.0 - keep),
            AutoCompaction::Periodic(keep) => {
                let now = Instant::now();
                seen.push_back((now, current));
                let mut old_enough = Revision(0);
                while let Some((at, revision)) = seen.front().copied().filter(|(at, _)| now - *at >= keep) {
                    debug_assert!(at <= now);
                    old_enough = revision;
                    seen.pop_front();
                }
                old_enough
            }
        };
        if target.0 <= 0 || target <= handle.reader().compacted() {
            continue;
        }
        match handle.propose(Command::Compact { revision: target, physical: false }).await {
            Ok(_) => tracing::info!(revision = target.0, "completed auto compaction"),
            Err(error) => tracing::warn!(revision = target.0, %error, "failed auto compaction; it is tried again"),
        }
    }
}
