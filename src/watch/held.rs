//! What all streams of a hub hold back, in bytes.
//!
//! One thread adds to it, and tasks on all processors take from it with each reply that they send. So each of them takes from one of a few
//! sums, each on a line of the cache of its own: one for all would be passed around between the processors.

use std::{
    array,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

const SUMS: usize = 16;

/// Bytes that were queued, and bytes that are not any more.
#[derive(Debug, Default)]
pub(super) struct Held {
    queued: AtomicUsize,
    gone: [Gone; SUMS],
    next: AtomicUsize,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Gone(AtomicUsize);

impl Held {
    /// The sum that a new stream is to take from.
    pub(super) fn sum(&self) -> usize {
        self.next.fetch_add(1, Relaxed) % SUMS
    }

    pub(super) fn add(&self, bytes: usize) {
        self.queued.fetch_add(bytes, Relaxed);
    }

    pub(super) fn take(&self, sum: usize, bytes: usize) {
        self.gone[sum].0.fetch_add(bytes, Relaxed);
    }

    pub(super) fn bytes(&self) -> usize {
        // In this order: what is gone was queued before, so there is never less than nothing.
        let gone: [usize; SUMS] = array::from_fn(|sum| self.gone[sum].0.load(Relaxed));
        let queued = self.queued.load(Relaxed);
        gone.into_iter().fold(queued, usize::wrapping_sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_queued_and_not_gone_is_held() {
        let held = Held::default();
        let sums = [(); 20].map(|()| held.sum());
        for sum in sums {
            held.add(100);
            held.take(sum, 40);
        }
        assert_eq!(held.bytes(), 20 * 60);
        sums.into_iter().for_each(|sum| held.take(sum, 60));
        assert_eq!(held.bytes(), 0);
    }
}
