//! Clocks of machines: all run on the world's time, each at its own pace, and some jump ahead. None goes back.

use crate::io::Clock;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Pace of a clock that goes right, in parts of a thousand.
pub const RIGHT: u64 = 1_000;

/// The world's time in microseconds.
#[derive(Clone, Default)]
pub struct Time(Arc<AtomicU64>);

impl Time {
    /// Microseconds since the world began.
    pub fn now_us(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Time goes on.
    pub fn set_us(&self, now_us: u64) {
        self.0.store(now_us, Ordering::Relaxed);
    }
}

/// The clock of one machine.
pub struct MachineClock {
    time: Time,
    rate: Mutex<Rate>,
}

#[derive(Clone, Copy)]
struct Rate {
    /// When the pace was set, by the world and by this clock.
    since_us: u64,
    local_us: u64,
    pace: u64,
}

impl MachineClock {
    /// A clock that shows `local_us` now.
    pub fn new(time: Time, local_us: u64) -> MachineClock {
        let since_us = time.now_us();
        MachineClock { time, rate: Mutex::new(Rate { since_us, local_us, pace: RIGHT }) }
    }

    /// What it shows.
    pub fn local_us(&self) -> u64 {
        let Rate { since_us, local_us, pace } = *self.rate.lock();
        local_us + (self.time.now_us() - since_us) * pace / RIGHT
    }

    /// From now on it goes at `pace` thousandths, after a jump ahead.
    pub fn set(&self, pace: u64, jump_us: u64) {
        let local_us = self.local_us() + jump_us;
        *self.rate.lock() = Rate { since_us: self.time.now_us(), local_us, pace };
    }

    /// When it will show `local`, in the world's microseconds, if nothing happens to it.
    pub fn world_us(&self, local: Duration) -> u64 {
        let Rate { since_us, local_us, pace } = *self.rate.lock();
        let left = (local.as_micros() as u64).saturating_sub(local_us);
        (since_us + (left * RIGHT).div_ceil(pace)).max(self.time.now_us())
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Duration {
        Duration::from_micros(self.local_us())
    }
}
