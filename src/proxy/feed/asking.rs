//! When a feed asks upstream how far it is.

use crate::types::Revision;
use std::time::Duration;
use tokio::time::Instant;

/// A question for progress that has no answer after this was dropped: etcd does not answer while the watch reads history.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// Pauses between questions that a lagging member answers with what is not enough.
const ASK_GAP_MIN: Duration = Duration::from_millis(1);
const ASK_GAP_MAX: Duration = Duration::from_millis(100);

/// When to ask for progress: one question at a time, which also answers those who come before its reply.
pub(super) struct Asking {
    /// When it was sent, and what for.
    under_way: Option<(Instant, Revision)>,
    not_before: Option<Instant>,
    gap: Duration,
    level: Revision,
    /// Since when somebody has waited while the level stood still.
    still_since: Option<Instant>,
}

impl Asking {
    pub(super) fn new() -> Asking {
        Asking { under_way: None, not_before: None, gap: ASK_GAP_MIN, level: Revision(0), still_since: None }
    }

    /// When to ask, if somebody waits for a `goal` above the `level`; `Err` if somebody has done so for `lag_max` in vain.
    pub(super) fn ask_at(
        &mut self,
        now: Instant,
        level: Revision,
        goal: Revision,
        lag_max: Duration,
    ) -> Result<Option<Instant>, ()> {
        if level != self.level || goal <= level {
            (self.level, self.still_since) = (level, None);
        }
        if goal <= level {
            return Ok(None);
        }
        if now - *self.still_since.get_or_insert(now) > lag_max {
            return Err(());
        }
        let at = match self.under_way {
            Some((asked, _)) => asked + ASK_AGAIN,
            None => self.not_before.unwrap_or(now),
        };
        Ok(Some(at))
    }

    pub(super) fn asked(&mut self, now: Instant, goal: Revision) {
        (self.under_way, self.not_before) = (Some((now, goal)), None);
    }

    /// The answer came. One that is not enough for those who waited when it was asked is of a member that lags: it gets time.
    pub(super) fn answered(&mut self, now: Instant, upto: Revision) {
        let is_enough = self.under_way.take().is_none_or(|(_, goal)| upto >= goal);
        self.gap = if is_enough { ASK_GAP_MIN } else { (self.gap * 2).min(ASK_GAP_MAX) };
        self.not_before = (!is_enough).then_some(now + self.gap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_question_is_under_way_and_those_who_come_later_wait_for_the_next() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut asking = Asking::new();
        let at = |asking: &mut Asking, now, level, goal| asking.ask_at(now, Revision(level), Revision(goal), second);
        assert_eq!(at(&mut asking, start, 5, 5), Ok(None));
        // Nobody has waited while nothing was wanted, however long that took.
        let start = start + 60 * second;
        let ms = |ms| start + Duration::from_millis(ms);
        assert_eq!(at(&mut asking, ms(1), 5, 7), Ok(Some(ms(1))));
        asking.asked(ms(1), Revision(7));
        // Another comes, for more: not before the answer, or before that must be lost.
        assert_eq!(at(&mut asking, ms(2), 5, 9), Ok(Some(ms(1) + ASK_AGAIN)));
        asking.answered(ms(3), Revision(8));
        assert_eq!(at(&mut asking, ms(3), 8, 9), Ok(Some(ms(3))), "it was enough for the question");
        asking.asked(ms(3), Revision(9));
        asking.answered(ms(4), Revision(8));
        assert_eq!(at(&mut asking, ms(4), 8, 9), Ok(Some(ms(6))), "a member that lags gets time");
        assert_eq!(at(&mut asking, ms(1_003), 8, 9), Ok(Some(ms(6))));
        assert_eq!(at(&mut asking, ms(1_004), 8, 9), Err(()), "but not for ever");
        assert_eq!(at(&mut asking, ms(1_005), 9, 10), Ok(Some(ms(6))), "as long as it goes on");
    }
}
