//! How often proposals go to the log, or to whoever leads.
//!
//! Each time costs a write and a sync, a message to each follower and its answer, and on every member half a dozen threads that are woken,
//! however few proposals it is about. A small part of the time that agreement takes anyway is spent on gathering: then there are never more
//! than a few batches on their way, and the more calls wait the larger these are. Where few wait nothing is held up: who calls again
//! once it has an answer comes later than that.

use std::time::Duration;

/// Batches that go while one is being agreed upon, about.
const BATCHES: u32 = 2;
/// The longest wait, as a part of the heartbeats' interval.
const WAIT_MAX_PART: u32 = 20;

/// When the last batch went.
#[derive(Debug, Default)]
pub(super) struct Pace {
    gone_at: Option<Duration>,
}

impl Pace {
    /// When the next batch may go. `usual`: how long it takes of late until what goes is agreed upon.
    pub(super) fn next(&self, usual: Duration, heartbeat: Duration) -> Duration {
        let wait = (usual / BATCHES).min(heartbeat / WAIT_MAX_PART);
        // Whole microseconds, as clocks count them: one that wakes its member a fraction early would do so again and again.
        let wait = Duration::from_micros(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
        self.gone_at.map_or(Duration::ZERO, |gone_at| gone_at + wait)
    }

    /// A batch goes.
    pub(super) fn goes(&mut self, now: Duration) {
        self.gone_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const HEARTBEAT: Duration = Duration::from_millis(100);

    #[test]
    fn the_first_goes_at_once_and_the_next_after_a_part_of_what_agreement_takes() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(8 * MS, HEARTBEAT), Duration::ZERO);
        pace.goes(1_000 * MS);
        assert_eq!(pace.next(8 * MS, HEARTBEAT), 1_004 * MS);
        assert_eq!(pace.next(Duration::ZERO, HEARTBEAT), 1_000 * MS, "nothing is known yet");
        assert_eq!(pace.next(900 * MS, HEARTBEAT), 1_005 * MS, "members may be a sea apart");
    }
}
