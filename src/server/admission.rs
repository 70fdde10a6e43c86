//! How much may be under way at once: beyond that a member sheds instead of swelling.

use crate::types::Error;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Bounds what is proposed and not yet answered, by number and by bytes. Cheap to clone; all clones share the bounds.
#[derive(Clone, Debug)]
pub struct Admission {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    calls: AtomicUsize,
    bytes: AtomicUsize,
    calls_max: usize,
    bytes_max: usize,
}

/// The right to have one request under way; gives it back when dropped.
#[derive(Debug)]
pub struct Ticket {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Admission {
    /// At most `calls_max` requests of `bytes_max` bytes together.
    pub fn new(calls_max: usize, bytes_max: usize) -> Admission {
        Admission { shared: Arc::new(Shared { calls: 0.into(), bytes: 0.into(), calls_max, bytes_max }) }
    }

    /// A ticket for a request of `bytes`.
    ///
    /// # Errors
    /// [`Error::RequestTooManyRequests`]: nothing was done, the client may try again.
    pub fn enter(&self, bytes: usize) -> Result<Ticket, Error> {
        // Counted first and checked then: two calls that meet at the bound may both be refused, but never both let in over it.
        let calls = self.shared.calls.fetch_add(1, Relaxed);
        let held = self.shared.bytes.fetch_add(bytes, Relaxed);
        let ticket = Ticket { shared: Arc::clone(&self.shared), bytes };
        // A request larger than the whole bound is let in when it is alone, or it could never be served.
        let fits = calls < self.shared.calls_max && (held == 0 || held.saturating_add(bytes) <= self.shared.bytes_max);
        if fits { Ok(ticket) } else { Err(Error::RequestTooManyRequests) }
    }

    /// How many requests, and how many bytes of them, are under way.
    pub fn under_way(&self) -> (usize, usize) {
        (self.shared.calls.load(Relaxed), self.shared.bytes.load(Relaxed))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.calls.fetch_sub(1, Relaxed);
        self.shared.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_over_a_bound_is_refused_and_leaves_nothing_behind() {
        let admission = Admission::new(2, 100);
        let first = admission.enter(60).unwrap();
        assert_eq!(admission.enter(41).unwrap_err(), Error::RequestTooManyRequests);
        let second = admission.enter(40).unwrap();
        assert_eq!(admission.enter(0).unwrap_err(), Error::RequestTooManyRequests);
        drop((first, second));
        assert_eq!(admission.under_way(), (0, 0));
    }

    #[test]
    fn a_request_over_all_bytes_is_served_alone() {
        let admission = Admission::new(2, 100);
        let large = admission.enter(500).unwrap();
        assert!(admission.enter(1).is_err());
        drop(large);
        assert!(admission.enter(1).is_ok());
    }
}
