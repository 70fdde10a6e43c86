//! Compaction: the sweep beside the traffic, and the clock that asks for it by itself.

use super::{handle::Shared, run::Run};
use crate::{
    machine::Command,
    types::{Fault, Revision},
};
use flume::{Receiver, Selector};
use std::{collections::VecDeque, sync::Arc, time::Duration};

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
pub(crate) struct Sweep {
    pub(super) shared: Arc<Shared>,
    pub(super) rows_max: usize,
    pub(super) pause: Duration,
}

impl Sweep {
    /// Runs until `stop` hangs up; `work` says that there may be something to sweep.
    pub(super) fn run(self, work: &Receiver<()>, stop: &Receiver<()>) {
        let mut rest = None;
        loop {
            let call = Selector::new().recv(stop, |_| true).recv(work, |_| false);
            let is_last = match rest {
                Some(rest) => call.wait_timeout(rest).unwrap_or(false),
                None => call.wait(),
            };
            if is_last {
                return;
            }
            rest = match self.step() {
                Ok(rest) => rest,
                Err(fault) => return self.shared.fail(&fault),
            };
        }
    }

    /// One step, and how long to rest before the next; `None` if there is nothing more to do.
    pub(crate) fn step(&self) -> Result<Option<Duration>, Fault> {
        let reader = &self.shared.reader;
        let (clock, tally) = (&self.shared.clock, &self.shared.facts.tally);
        let began = clock.now();
        if reader.compact_step(self.rows_max)? {
            tally.swept(began, clock.now(), false);
            return Ok(Some(self.pause));
        }
        let swept = reader.swept();
        if self.shared.swept.send_replace(swept) != swept {
            tally.swept(began, clock.now(), true);
            tracing::info!(compact_revision = swept.0, "finished scheduled compaction");
        }
        // A reader may hold the sweep back; nobody tells when it lets go.
        Ok((swept < reader.compacted()).then_some(HELD_RETRY))
    }
}

/// Says when there is history to forget.
///
/// Follows etcd: with a period of up to an hour history is looked at every tenth of it, else every six minutes; with a number of
/// revisions, every five minutes. All members look, so that a new leader knows as much; only the leader acts.
pub(super) struct AutoCompactor {
    mode: AutoCompaction,
    next: Duration,
    seen: VecDeque<(Duration, Revision)>,
}

impl AutoCompactor {
    pub(super) fn new(mode: AutoCompaction, now: Duration) -> AutoCompactor {
        AutoCompactor { mode, next: now + interval(mode), seen: VecDeque::new() }
    }

    /// Up to where history may be forgotten now; `None` if it is not time, or nothing is old enough.
    fn due(&mut self, now: Duration, current: Revision) -> Option<Revision> {
        if now < self.next {
            return None;
        }
        self.next = now + interval(self.mode);
        let target = match self.mode {
            AutoCompaction::Revisions(keep) => Revision(current.0 - keep),
            AutoCompaction::Periodic(keep) => {
                self.seen.push_back((now, current));
                let mut old_enough = Revision(0);
                while let Some((_, revision)) = self.seen.pop_front_if(|(at, _)| now - *at >= keep) {
                    old_enough = revision;
                }
                old_enough
            }
        };
        Some(target).filter(|target| target.0 > 0)
    }
}

fn interval(mode: AutoCompaction) -> Duration {
    match mode {
        AutoCompaction::Periodic(keep) => keep.min(Duration::from_secs(3600)) / 10,
        AutoCompaction::Revisions(_) => Duration::from_secs(300),
    }
}

impl Run {
    /// Proposes a compaction when there is history to forget. A proposal that is lost is made up for by the next one.
    pub(super) fn tend_compaction(&mut self, now: Duration, leads: bool) {
        let Some(compactor) = &mut self.compactor else { return };
        let Some(revision) = compactor.due(now, self.shared.reader.current()) else { return };
        if leads && revision > self.shared.reader.compacted() {
            tracing::info!(revision = revision.0, "proposing an auto compaction");
            self.propose_own([Command::Compact { revision, physical: false }]);
        }
    }
}
