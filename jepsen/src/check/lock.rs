//! A lock whose holders have tokens that grow. That two clients believe to hold it at once cannot be ruled out (a lease may
//! expire while its holder is paused), so that is only told; what is guarded by the token must never show it.

use super::{Finding, ms};
use std::fmt;

/// A time in which a client believed to hold the lock.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Who.
    pub client: usize,
    /// The fencing token: the revision that made the lock's key.
    pub token: i64,
    /// When it asked the question whose answer was that it holds the lock, in nanoseconds since the start.
    pub asked_ns: u64,
    /// When it got that answer.
    pub from_ns: u64,
    /// When it gave the lock up.
    pub to_ns: u64,
}

/// A write that was accepted because the token was valid then.
#[derive(Clone, Copy, Debug)]
pub struct Guarded {
    /// Who.
    pub client: usize,
    /// With which token.
    pub token: i64,
    /// The revision of what it had read before, under the same lock.
    pub read_revision: i64,
    /// The revision of the write.
    pub write_revision: i64,
    /// When it was answered, in nanoseconds since the start.
    pub returned_ns: u64,
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Guarded { client, token, read_revision, write_revision, returned_ns } = self;
        let at = ms(*returned_ns);
        write!(f, "{at} client {client} with token {token} read revision {read_revision} and wrote {write_revision}")
    }
}

/// What contradicts a lock with fencing tokens.
pub fn check(held: &[Held], guarded: &[Guarded]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut writes: Vec<&Guarded> = guarded.iter().collect();
    writes.sort_by_key(|write| write.write_revision);
    for pair in writes.windows(2) {
        let (one, next) = (pair[0], pair[1]);
        if next.token < one.token {
            let what = format!("a stale token wrote after a newer one:\n  {one}\n  {next}");
            findings.push(Finding::new("stale holder wrote", what).at(next.returned_ns));
        } else if next.read_revision < one.write_revision {
            let what = format!("a holder overwrote what it had not read:\n  {one}\n  {next}");
            findings.push(Finding::new("lost update", what).at(next.returned_ns));
        }
    }
    let mut by_token: Vec<&Held> = held.iter().collect();
    by_token.sort_by_key(|held| held.token);
    for pair in by_token.windows(2).filter(|pair| pair[0].token == pair[1].token) {
        let what = format!("two holders have one token:\n  {:?}\n  {:?}", pair[0], pair[1]);
        findings.push(Finding::new("token twice", what).at(pair[1].from_ns));
    }
    // Whoever waited longer gets it first, so a later answer never goes to an older token.
    let mut by_time: Vec<&Held> = held.iter().collect();
    by_time.sort_by_key(|held| held.asked_ns);
    let mut newest: Option<&Held> = None;
    let mut answered = held.iter().collect::<Vec<_>>();
    answered.sort_by_key(|held| held.from_ns);
    let mut answered = answered.into_iter().peekable();
    for later in by_time {
        while let Some(done) = answered.next_if(|done| done.from_ns < later.asked_ns) {
            if newest.is_none_or(|newest| newest.token < done.token) {
                newest = Some(done);
            }
        }
        if let Some(earlier) = newest.filter(|earlier| earlier.token > later.token) {
            let what = format!("an older token got the lock after a newer one had it:\n  {earlier:?}\n  {later:?}");
            findings.push(Finding::new("acquired out of order", what).at(later.from_ns));
        }
    }
    findings
}

/// Pairs of holders that believed to hold the lock at the same time; the first few in words.
pub fn overlaps(held: &[Held]) -> (usize, Vec<String>) {
    let mut by_time: Vec<&Held> = held.iter().collect();
    by_time.sort_by_key(|held| held.from_ns);
    let mut count = 0;
    let mut shown = Vec::new();
    for (at, one) in by_time.iter().enumerate() {
        for other in by_time[at + 1..].iter().take_while(|other| other.from_ns < one.to_ns) {
            count += 1;
            if shown.len() < 3 {
                shown.push(format!(
                    "clients {} and {} from {} to {}",
                    one.client,
                    other.client,
                    ms(other.from_ns),
                    ms(one.to_ns.min(other.to_ns))
                ));
            }
        }
    }
    (count, shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(client: usize, token: i64, from_ns: u64, to_ns: u64) -> Held {
        Held { client, token, asked_ns: from_ns - 1, from_ns, to_ns }
    }

    fn wrote(token: i64, read_revision: i64, write_revision: i64) -> Guarded {
        Guarded { client: 0, token, read_revision, write_revision, returned_ns: 1 }
    }

    fn kinds(held: &[Held], guarded: &[Guarded]) -> Vec<String> {
        check(held, guarded).into_iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn holders_one_after_the_other_are_clean() {
        let holders = [held(0, 5, 10, 20), held(1, 6, 30, 40)];
        assert_eq!(kinds(&holders, &[wrote(5, 0, 7), wrote(5, 7, 8), wrote(6, 8, 9)]), [""; 0]);
        assert_eq!(overlaps(&holders).0, 0);
    }

    #[test]
    fn a_stale_token_that_writes_is_found() {
        assert_eq!(kinds(&[], &[wrote(5, 0, 7), wrote(6, 7, 8), wrote(5, 8, 9)]), ["stale holder wrote"]);
    }

    #[test]
    fn a_lost_update_is_found() {
        assert_eq!(kinds(&[], &[wrote(5, 0, 7), wrote(6, 0, 8)]), ["lost update"]);
        // A write without an answer may lie between what was read and what was written.
        assert_eq!(kinds(&[], &[wrote(5, 0, 7), wrote(6, 8, 9)]), [""; 0]);
    }

    #[test]
    fn tokens_that_repeat_or_go_back_are_found() {
        assert_eq!(kinds(&[held(0, 5, 10, 20), held(1, 5, 30, 40)], &[]), ["token twice"]);
        assert_eq!(kinds(&[held(0, 6, 10, 20), held(1, 5, 30, 40)], &[]), ["acquired out of order"]);
    }

    #[test]
    fn overlapping_beliefs_are_counted_but_no_violation() {
        let holders = [held(0, 5, 10, 40), held(1, 6, 30, 50)];
        assert_eq!(kinds(&holders, &[]), [""; 0]);
        assert_eq!(overlaps(&holders).0, 1);
    }
}
