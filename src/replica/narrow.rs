//! How long a round of reads that asked only a quorum is waited for, before everyone is asked.

use std::time::Duration;

/// The least, as a part of the heartbeats' interval.
const PATIENCE_PART: u32 = 10;
/// How many times as long as such rounds usually take.
const PATIENCE_TIMES: u32 = 3;
/// How many rounds it takes, about, to learn what is usual.
const LEARN_OVER: u32 = 8;

/// The round that is waited for.
#[derive(Debug, Default)]
pub(super) struct Narrow {
    /// Its number, and since when.
    waiting: Option<(u64, Duration)>,
    /// How long rounds took of late: members may be a sea apart.
    usual: Duration,
}

impl Narrow {
    /// When everyone is to be asked, if nothing comes before. Heartbeats ask everyone too, so there is no use in waiting for longer
    /// than one of their intervals.
    pub(super) fn due(&self, heartbeat: Duration) -> Option<Duration> {
        let (_, since) = self.waiting?;
        let patience = (self.usual * PATIENCE_TIMES).clamp(heartbeat / PATIENCE_PART, heartbeat);
        // Whole microseconds, as clocks count them: one that wakes its member a fraction early would do so again and again.
        Some(since + Duration::from_micros(u64::try_from(patience.as_micros()).unwrap_or(u64::MAX)))
    }

    /// `round` is waited for from now on, if any is.
    pub(super) fn look(&mut self, round: Option<u64>, now: Duration) {
        if self.waiting.map(|(waiting, _)| waiting) == round {
            return;
        }
        if let Some((_, since)) = self.waiting {
            let took = now.saturating_sub(since);
            self.usual = (self.usual * (LEARN_OVER - 1) + took) / LEARN_OVER;
        }
        self.waiting = round.map(|round| (round, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const HEARTBEAT: Duration = Duration::from_millis(100);

    #[test]
    fn patience_follows_what_rounds_take_and_ends_with_the_next_heartbeat() {
        let mut narrow = Narrow::default();
        let mut now = 1_000 * MS;
        let mut patience = |narrow: &mut Narrow, round: u64, takes: Duration| {
            narrow.look(Some(round), now);
            let patience = narrow.due(HEARTBEAT).expect("it is waited for") - now;
            now += takes;
            narrow.look(None, now);
            assert_eq!(narrow.due(HEARTBEAT), None);
            patience
        };
        assert_eq!(patience(&mut narrow, 1, MS), 10 * MS);
        let near = (2..40).map(|round| patience(&mut narrow, round, MS)).last();
        assert_eq!(near, Some(10 * MS));
        let far = (40..90).map(|round| patience(&mut narrow, round, 20 * MS)).last().unwrap();
        assert!((50 * MS..=60 * MS).contains(&far), "{far:?}");
        let farther = (90..150).map(|round| patience(&mut narrow, round, 300 * MS)).last();
        assert_eq!(farther, Some(HEARTBEAT));
    }

    #[test]
    fn a_round_that_is_looked_at_again_began_when_it_began() {
        let mut narrow = Narrow::default();
        narrow.look(Some(7), 5 * MS);
        narrow.look(Some(7), 9 * MS);
        assert_eq!(narrow.due(HEARTBEAT), Some(15 * MS));
        narrow.look(Some(8), 12 * MS);
        assert_eq!(narrow.due(HEARTBEAT), Some(22 * MS));
    }
}
