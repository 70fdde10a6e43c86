//! What a member does without being asked: it clears its NOSPACE alarm once there is space again, and promotes learners that are ready.

use super::{Backend, MemberBackend};
use crate::{
    machine::{AlarmAction, AlarmKind, Command},
    replica::Handle,
};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// The store must have been below the mark for so long: one delete in a stream of puts is no relief.
const RELIEF: Duration = Duration::from_secs(5);
/// The mark is the quota less this part of it. At the quota itself the next puts would raise the alarm again.
const MARGIN: u64 = 20;

/// Waits for the next look; `false` once the member stops.
pub(super) async fn goes_on(stopping: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        biased;
        _ = stopping.wait_for(|stopping| *stopping) => false,
        () = tokio::time::sleep(PERIOD) => true,
    }
}

/// Clears the NOSPACE alarm of this member when its store is below the mark again. etcd leaves that to people.
pub(super) async fn relieve(handle: Handle, mut stopping: watch::Receiver<bool>) {
    let (member, view) = (handle.member_id(), handle.view().clone());
    let mut relief = Relief::default();
    while goes_on(&mut stopping).await {
        let is_raised = view.alarms(Some(AlarmKind::NoSpace)).iter().any(|(raised_by, _)| *raised_by == member);
        let is_full = is_raised && view.quota_exceeded(view.quota_bytes().unwrap_or(0) / MARGIN);
        if !relief.is_due(Instant::now(), is_raised, is_full) {
            continue;
        }
        let alarm = Command::Alarm { action: AlarmAction::Deactivate, member, kind: Some(AlarmKind::NoSpace) };
        match handle.propose(alarm).await {
            Ok(_) => tracing::info!("there is space again: the NOSPACE alarm of this member is cleared"),
            Err(error) => tracing::warn!(%error, "failed to clear the NOSPACE alarm; this member tries again"),
        }
    }
}

/// For how long there has been space.
#[derive(Default)]
struct Relief {
    since: Option<Instant>,
}

impl Relief {
    /// Whether an alarm is to be cleared, given what is so at `now`.
    fn is_due(&mut self, now: Instant, is_raised: bool, is_full: bool) -> bool {
        if !is_raised || is_full {
            self.since = None;
            return false;
        }
        now.duration_since(*self.since.get_or_insert(now)) >= RELIEF
    }
}

/// Gives a vote to each learner that has caught up, while this member leads.
pub(super) async fn promote(backend: MemberBackend, mut stopping: watch::Receiver<bool>) {
    let handle = backend.handle().clone();
    while goes_on(&mut stopping).await {
        if *handle.leader().borrow() != Some(handle.member_id()) {
            continue;
        }
        let learners = handle.view().members().into_iter().filter(|member| member.is_learner);
        // A learner that has never started has nothing to catch up with yet.
        for learner in learners.filter(|learner| !learner.name.is_empty()) {
            match backend.member_promote(learner.id).await {
                Ok(_) => {
                    tracing::info!(member = %learner.id, name = learner.name, "a learner has caught up and has a vote")
                }
                Err(error) => tracing::debug!(member = %learner.id, %error, "a learner is not promoted yet"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_cleared_after_lasting_relief_only() {
        let (mut relief, start) = (Relief::default(), Instant::now());
        let mut at =
            |seconds, is_raised, is_full| relief.is_due(start + Duration::from_secs(seconds), is_raised, is_full);
        assert!(!at(0, true, true), "it is full");
        assert!(!at(1, true, false), "there is space now");
        assert!(!at(5, true, false), "but not for long");
        assert!(!at(6, true, true), "and it was full again in between");
        assert!(!at(7, true, false));
        assert!(at(12, true, false));
        assert!(at(13, true, false), "whoever could not clear it tries again");
        assert!(!at(14, false, false), "it is cleared");
        assert!(!at(15, true, false), "the next one waits for its own relief");
    }
}
