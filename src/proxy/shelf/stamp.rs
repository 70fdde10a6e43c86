//! Moments that outlive a process, and how long ago one was at least.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A moment by two clocks: one that people set, and one that nobody sets but that begins with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds of the wall clock since 1970.
    pub wall_ms: i64,
    /// Milliseconds since the machine began, time asleep included. Below 0: before that.
    pub boot_ms: i64,
    /// Which life of the machine that was; 0: not known.
    pub boot_id: u128,
}

impl Stamp {
    /// Now.
    pub fn now() -> Stamp {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, ms);
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Stamp { wall_ms: wall, boot_ms: boot.tv_sec * 1_000 + boot.tv_nsec / 1_000_000, boot_id: boot_id() }
    }

    /// The moment `ago` before this one.
    pub fn before(self, ago: Duration) -> Stamp {
        // Rounded up: a moment must not look later than it was.
        let ago = ms(ago.saturating_add(Duration::from_nanos(999_999)));
        Stamp {
            wall_ms: self.wall_ms.saturating_sub(ago),
            boot_ms: self.boot_ms.saturating_sub(ago),
            boot_id: self.boot_id,
        }
    }

    /// How much time has passed from this moment until `now`, and never less. [`Duration::MAX`] if that cannot be told: the wall clock was
    /// set back while the machine was off.
    ///
    /// Within one life of the machine its own clock counts, or the wall clock if that says more: a machine that was frozen and thawed does
    /// not know it. Over several lives there is only the wall clock, and that this life began after the moment.
    pub fn age(&self, now: &Stamp) -> Duration {
        let (wall, boot) = (now.wall_ms.saturating_sub(self.wall_ms), now.boot_ms.saturating_sub(self.boot_ms));
        let is_same_life = self.boot_id == now.boot_id && now.boot_id != 0;
        let age = match is_same_life {
            true => wall.max(boot),
            false if wall < 0 => return Duration::MAX,
            false => wall.max(now.boot_ms),
        };
        Duration::from_millis(u64::try_from(age).unwrap_or(0))
    }

    /// The same moment, told by the clocks of this life of the machine: from then on nobody who sets a clock makes it look later.
    pub fn retold(self, now: &Stamp) -> Stamp {
        let boot_ms = now.boot_ms.saturating_sub(ms(self.age(now)));
        Stamp { boot_ms, boot_id: now.boot_id, ..self }
    }
}

fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The kernel's name for this life of the machine.
fn boot_id() -> u128 {
    static ID: OnceLock<u128> = OnceLock::new();
    *ID.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(wall_s: i64, boot_s: i64, boot_id: u128) -> Stamp {
        Stamp { wall_ms: wall_s * 1_000, boot_ms: boot_s * 1_000, boot_id }
    }

    fn age(then: Stamp, now: Stamp) -> Duration {
        then.age(&now)
    }

    #[test]
    fn no_clock_that_is_set_makes_a_moment_look_later() {
        let s = Duration::from_secs;
        let then = stamp(1_000, 50, 7);
        assert_eq!(age(then, stamp(1_010, 60, 7)), s(10));
        assert_eq!(age(then, stamp(400, 60, 7)), s(10), "set back");
        assert_eq!(age(then, stamp(9_000, 60, 7)), s(8_000), "set forward, or frozen: who knows");
        assert_eq!(age(then, stamp(1_020, 15, 8)), s(20), "another life");
        assert_eq!(age(then, stamp(1_020, 300, 8)), s(300), "a life that is longer than the wall clock says");
        assert_eq!(age(then, stamp(999, 15, 8)), Duration::MAX, "set back while it was off");
        assert_eq!(age(stamp(1_000, 50, 0), stamp(1_020, 60, 0)), s(60), "lives that nobody can tell apart are two");
    }

    #[test]
    fn a_moment_of_an_earlier_life_is_retold_once_and_ages_by_the_clock_that_nobody_sets() {
        let then = stamp(1_000, 50_000, 7);
        let retold = then.retold(&stamp(1_500, 20, 8));
        assert_eq!(age(retold, stamp(1_510, 30, 8)), Duration::from_secs(510));
        assert_eq!(age(retold, stamp(1_100, 30, 8)), Duration::from_secs(510), "set back since");
        let unknown = then.retold(&stamp(10, 20, 8));
        assert!(age(unknown, stamp(2_000, 30, 8)) > Duration::from_secs(3_600 * 24 * 365));
    }

    #[test]
    fn now_is_by_the_clocks_of_this_machine() {
        let (one, other) = (Stamp::now(), Stamp::now());
        assert!(one.wall_ms > 1_600_000_000_000 && one.boot_ms > 0);
        assert!(one.age(&other) < Duration::from_secs(60));
        assert_eq!(one.before(Duration::from_secs(60)).age(&one), Duration::from_secs(60));
        assert_eq!(one.before(Duration::from_micros(1_001)).age(&one), Duration::from_millis(2));
    }
}
