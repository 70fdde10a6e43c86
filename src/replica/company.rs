//! Calls that wait for company on their way to the leader.
//!
//! What clients ask of a follower, and only the leader can answer, costs a message there and one back, and threads that are woken on both
//! sides, for one call or for a hundred. While one question is on its way a small part of the time that this takes is spent on gathering, as
//! proposals do ([`Pace`]). Where few ask nothing is held up.

use super::pace::Pace;
use std::time::Duration;

/// How many answers it takes, about, to learn what is usual.
const LEARN_OVER: u32 = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Company<T> {
    waiting: Vec<T>,
    pace: Pace,
    /// The question whose answer is timed, and since when it is on its way.
    timed: Option<(u64, Duration)>,
    /// How long answers took of late.
    usual: Duration,
}

impl<T> Default for Company<T> {
    fn default() -> Company<T> {
        Company { waiting: Vec::new(), pace: Pace::default(), timed: None, usual: Duration::ZERO }
    }
}

impl<T> Company<T> {
    /// Calls that may wait.
    pub(super) fn join(&mut self, calls: Vec<T>) {
        self.waiting.extend(calls);
    }

    /// When those who wait go, if any do.
    pub(super) fn due(&self, heartbeat: Duration) -> Option<Duration> {
        (!self.waiting.is_empty()).then(|| self.pace.next(self.usual, heartbeat))
    }

    /// All who wait: they go now.
    pub(super) fn go(&mut self) -> Vec<T> {
        std::mem::take(&mut self.waiting)
    }

    /// They went as question number `id`. Numbers grow.
    pub(super) fn went(&mut self, id: u64, now: Duration, heartbeat: Duration) {
        self.pace.goes(now);
        // One that was lost is not waited for.
        if self.timed.is_none_or(|(_, since)| now >= since + heartbeat) {
            self.timed = Some((id, now));
        }
    }

    /// Question number `id` was answered.
    pub(super) fn answered(&mut self, id: u64, now: Duration) {
        if let Some((_, since)) = self.timed.take_if(|(timed, _)| *timed <= id) {
            let took = now.saturating_sub(since);
            self.usual = (self.usual * (LEARN_OVER - 1) + took) / LEARN_OVER;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const HEARTBEAT: Duration = Duration::from_millis(100);

    #[test]
    fn the_first_goes_at_once_and_those_who_come_meanwhile_go_together() {
        let mut company = Company::default();
        assert_eq!(company.due(HEARTBEAT), None);
        let mut now = 1_000 * MS;
        for id in 0..100 {
            company.join(vec![id]);
            assert!(company.due(HEARTBEAT).unwrap() <= now, "nobody is under way");
            assert_eq!(company.go(), [id]);
            company.went(id, now, HEARTBEAT);
            now += 4 * MS;
            company.answered(id, now);
        }
        company.join(vec![100]);
        company.go();
        company.went(100, now, HEARTBEAT);
        company.join(vec![101]);
        company.join(vec![102, 103]);
        let due = company.due(HEARTBEAT).unwrap() - now;
        assert!(due > MS && due <= 2 * MS, "a part of what answers take: {due:?}");
        assert_eq!(company.go(), [101, 102, 103]);
    }

    #[test]
    fn an_answer_that_never_comes_holds_nobody_up() {
        let mut company = Company::default();
        company.join(vec![1]);
        company.go();
        company.went(1, 1_000 * MS, HEARTBEAT);
        company.join(vec![2]);
        assert_eq!(company.due(HEARTBEAT), Some(1_000 * MS));
        company.go();
        company.went(2, 2_000 * MS, HEARTBEAT);
        company.answered(2, 2_008 * MS);
        company.join(vec![3]);
        assert_eq!(company.due(HEARTBEAT), Some(2_000 * MS + Duration::from_micros(500)));
    }
}
