//! Calls that the loop asks the leader, or its followers, about: together.
//!
//! A question costs messages there and back, and threads that are woken on both sides, for one call or for a hundred. So there is one of
//! a kind on its way at a time, and whoever comes meanwhile goes with the next, without waking the loop for it. Where few ask nothing is
//! held up.

use crate::types::Error;
use std::time::Duration;

/// Most calls that may wait.
const WAITING_MAX: usize = 65_536;

/// See the module.
#[derive(Debug)]
pub(super) struct Company<T> {
    waiting: Vec<T>,
    /// The question that is on its way, and since when.
    ahead: Option<(u64, Duration)>,
}

impl<T> Default for Company<T> {
    fn default() -> Company<T> {
        Company { waiting: Vec::new(), ahead: None }
    }
}

impl<T> Company<T> {
    /// Takes a call; whether the loop is to be told, which else finds it when it has its answer.
    ///
    /// # Errors
    /// [`Error::RequestTooManyRequests`]
    pub(super) fn join(&mut self, call: T) -> Result<bool, Error> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(Error::RequestTooManyRequests);
        }
        self.waiting.push(call);
        Ok(self.ahead.is_none() && self.waiting.len() == 1)
    }

    /// All who wait, if they may go by now: nobody is ahead of them, or not for `patience` any more.
    pub(super) fn go(&mut self, now: Duration, patience: Duration) -> Vec<T> {
        match self.ahead {
            Some((_, since)) if now < since + patience => Vec::new(),
            _ => std::mem::take(&mut self.waiting),
        }
    }

    /// They went as question number `id`. Numbers grow.
    pub(super) fn went(&mut self, id: u64, now: Duration) {
        self.ahead = Some((id, now));
    }

    /// Question number `id` was answered, or came to nothing.
    pub(super) fn ended(&mut self, id: u64) {
        self.ahead.take_if(|(ahead, _)| *ahead <= id);
    }

    /// There is somebody else to be asked.
    pub(super) fn anew(&mut self) {
        self.ahead = None;
    }

    /// All who wait, whether they may go or not.
    pub(super) fn dissolve(&mut self) -> Vec<T> {
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const PATIENCE: Duration = Duration::from_millis(100);

    #[test]
    fn the_first_goes_at_once_and_those_who_come_meanwhile_go_together() {
        let mut company = Company::default();
        assert!(company.go(1_000 * MS, PATIENCE).is_empty());
        assert_eq!(company.join(1), Ok(true));
        assert_eq!(company.go(1_000 * MS, PATIENCE), [1]);
        company.went(7, 1_000 * MS);
        for call in 2..=4 {
            assert_eq!(company.join(call), Ok(false), "the loop has nothing to do for it");
        }
        assert!(company.go(1_003 * MS, PATIENCE).is_empty());
        company.ended(6);
        assert!(company.go(1_003 * MS, PATIENCE).is_empty(), "an older one");
        company.ended(7);
        assert_eq!(company.go(1_003 * MS, PATIENCE), [2, 3, 4]);
    }

    #[test]
    fn an_answer_that_never_comes_holds_nobody_up_for_long() {
        let mut company = Company::default();
        company.went(7, 1_000 * MS);
        assert_eq!(company.join(1), Ok(false));
        assert!(company.go(1_099 * MS, PATIENCE).is_empty());
        assert_eq!(company.go(1_100 * MS, PATIENCE), [1]);
        company.went(8, 1_100 * MS);
        assert_eq!(company.join(2), Ok(false));
        company.anew();
        assert_eq!(company.join(3), Ok(false), "whoever was first has told it, or it knows by itself");
        assert_eq!(company.go(1_100 * MS, PATIENCE), [2, 3], "another leader may have been found");
    }

    #[test]
    fn not_everybody_may_wait() {
        let mut company = Company::default();
        assert!((0..WAITING_MAX).all(|call| company.join(call).is_ok()));
        assert_eq!(company.join(0), Err(Error::RequestTooManyRequests));
    }
}
