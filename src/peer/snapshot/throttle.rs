//! A token bucket.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// How much of the rate may be saved up.
const BURST: Duration = Duration::from_millis(100);

/// Holds all snapshots together to a rate, so that they leave room on the wire and on the disk for everything else.
#[derive(Debug)]
pub(in crate::peer) struct Throttle {
    bytes_per_s: u64,
    /// When everything that was let through so far has had its time.
    paid: Mutex<Option<Instant>>,
}

impl Throttle {
    /// A rate of `bytes_per_s`, or none for 0.
    pub(in crate::peer) fn new(bytes_per_s: u64) -> Throttle {
        Throttle { bytes_per_s, paid: Mutex::default() }
    }

    /// Waits until `bytes` more may go, at `times` the rate.
    pub(in crate::peer) async fn take(&self, bytes: usize, times: f64) {
        if let Some(until) = self.due(bytes as f64 / times, Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// When `bytes` more may go, counting them as gone; `None`: at once.
    fn due(&self, bytes: f64, now: Instant) -> Option<Instant> {
        if self.bytes_per_s == 0 {
            return None;
        }
        let cost = Duration::from_secs_f64(bytes / self.bytes_per_s as f64);
        let mut paid = self.paid.lock();
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let until = paid.map_or(earliest, |paid| paid.max(earliest)) + cost;
        *paid = Some(until);
        Some(until).filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_however_they_are_cut() {
        let (throttle, began) = (Throttle::new(1_000_000), Instant::now());
        let mut now = began;
        for _ in 0..100 {
            now = throttle.due(50_000.0, now).unwrap_or(now);
        }
        assert_eq!(now - began, Duration::from_secs(5) - BURST);
        assert_eq!(Throttle::new(0).due(f64::MAX, now), None);
    }

    #[test]
    fn a_rest_saves_up_no_more_than_a_burst() {
        let (throttle, began) = (Throttle::new(1_000_000), Instant::now());
        assert_eq!(throttle.due(1_000.0, began), None);
        let later = began + Duration::from_secs(60);
        assert_eq!(throttle.due(1_100_000.0, later), Some(later + Duration::from_secs(1)));
    }
}
