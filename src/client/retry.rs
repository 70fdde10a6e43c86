//! What is safe to repeat, and how long to wait before it.
//!
//! A read may be repeated whenever another member could answer. A write may be repeated only when the failed attempt was
//! certainly not applied: it never left this process, or the member refused it before proposing it. A member that cannot serve the
//! call at all (a learner; a follower, where only the leader can) is no reason to give up while there are others. Everything else is the
//! caller's to decide, who alone knows whether doing it twice matters.

use super::Error;
use crate::runtime;
use std::time::Duration;
use tonic::Code;

/// How a call may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Twice is as good as once: reads, keep-alives, listings.
    Freely,
    /// Twice is not once: puts, deletes, transactions.
    IfNotApplied,
    /// Asked of one member alone, once.
    Never,
}

impl Repeat {
    /// Whether a call that ended with `error` may be sent again, be it to the same member.
    pub fn allows(self, error: &Error) -> bool {
        match (self, error) {
            (Repeat::Never, _) => false,
            (_, Error::Unreachable(_) | Error::Tls(_)) => true,
            (_, Error::Status { code: Code::Unavailable, text }) if refused_before_proposal(text) => true,
            (Repeat::Freely, Error::Status { code: Code::Unavailable, .. }) => true,
            // A connection that broke under the request shows as one of these, without any of etcd's texts.
            (Repeat::Freely, Error::Status { code: Code::Unknown | Code::Internal | Code::Cancelled, text }) => {
                !text.starts_with("etcdserver: ") && transport(text)
            }
            _ => false,
        }
    }
}

/// Refusals that a member makes at its door, before the request can reach the log.
pub(crate) fn refused_before_proposal(text: &str) -> bool {
    text == crate::types::Error::NoLeader.text()
}

/// Whether the member that refused with `error` is the wrong one to ask, and another would do. Nothing has happened then.
pub(crate) fn ask_another(error: &Error) -> bool {
    use crate::types::Error::{NotLeader, NotSupportedForLearner};
    error.is(&NotSupportedForLearner) || error.is(&NotLeader)
}

/// Whether this text comes from the connection rather than from a handler.
pub(crate) fn transport(text: &str) -> bool {
    ["transport error", "h2 protocol error", "connection", "error reading a body", "operation was canceled"]
        .iter()
        .any(|mark| text.contains(mark))
}

/// How often and how fast to repeat.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Attempts of a call that has no time limit.
    pub attempts_max: u32,
    /// Pause once every endpoint has failed; it doubles from round to round.
    pub pause_min: Duration,
    /// The longest pause.
    pub pause_max: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { attempts_max: 10, pause_min: Duration::from_millis(25), pause_max: Duration::from_secs(2) }
    }
}

impl Policy {
    /// The pauses of one call over `endpoints` addresses.
    pub(crate) fn pauses(&self, endpoints: usize) -> Pauses {
        Pauses { base: self.pause_min, max: self.pause_max, endpoints, failed: 0 }
    }
}

/// The growing pauses of one call or one stream.
#[derive(Debug)]
pub(crate) struct Pauses {
    base: Duration,
    max: Duration,
    endpoints: usize,
    failed: usize,
}

impl Pauses {
    /// The pause after one more failure. Short while there is another endpoint to try, then doubling; always between half of
    /// it and all of it by chance, so that clients which lost one member together do not return together.
    pub(crate) fn next(&mut self) -> Duration {
        self.failed += 1;
        let round = (self.failed / self.endpoints).min(16) as u32;
        let full = self.base.saturating_mul(1 << round.saturating_sub(1)).min(self.max);
        let full = if round == 0 { self.base / 5 } else { full };
        full.mul_f64(runtime::chance(0.5..1.0))
    }

    /// Starts over: something worked.
    pub(crate) fn reset(&mut self) {
        self.failed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, text: &str) -> Error {
        Error::Status { code, text: text.into() }
    }

    #[test]
    fn a_write_is_repeated_only_when_it_was_certainly_not_applied() {
        let table = [
            (Error::Unreachable("refused".into()), true, true),
            (status(Code::Unavailable, "etcdserver: no leader"), true, true),
            (status(Code::Unavailable, "etcdserver: request timed out"), true, false),
            (status(Code::Unavailable, "etcdserver: leader changed"), true, false),
            (status(Code::Unknown, "transport error"), true, false),
            (status(Code::InvalidArgument, "etcdserver: key is not provided"), false, false),
            (status(Code::ResourceExhausted, "etcdserver: too many requests"), false, false),
            (Error::Deadline, false, false),
        ];
        for (error, read, write) in table {
            assert_eq!(Repeat::Freely.allows(&error), read, "read after {error:?}");
            assert_eq!(Repeat::IfNotApplied.allows(&error), write, "write after {error:?}");
            assert!(!Repeat::Never.allows(&error));
        }
    }

    #[test]
    fn pauses_grow_by_rounds_and_stay_below_the_longest() {
        let policy = Policy::default();
        let mut pauses = policy.pauses(3);
        let seen: Vec<Duration> = (0..60).map(|_| pauses.next()).collect();
        assert!(seen[0] < policy.pause_min / 4 && seen[1] < policy.pause_min / 4);
        assert!(seen[2] >= policy.pause_min / 2);
        assert!(seen.iter().all(|pause| *pause <= policy.pause_max));
        assert!(seen[59] >= policy.pause_max / 2);
    }
}
