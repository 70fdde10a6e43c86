//! Leases: what was promised to live does, and what nobody renews goes.

use super::{Finding, ms};

const S: u64 = 1_000_000_000;

/// A call whose answer says that the lease lives: a grant or a renewal.
#[derive(Clone, Copy, Debug)]
pub struct Confirmed {
    /// When it was asked for, in nanoseconds since the start. The member counts from some time after this.
    pub called_ns: u64,
    /// For how long, in seconds.
    pub ttl_s: u64,
}

/// A look at the key of a lease.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// When, in nanoseconds since the start.
    pub called_ns: u64,
    /// When the answer came.
    pub returned_ns: u64,
    /// Whether it was there.
    pub there: bool,
}

/// The life of one lease with one key.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The key.
    pub key: String,
    /// When the key was attached: the answer's time.
    pub attached_ns: u64,
    /// The grant and all renewals that were confirmed.
    pub confirmed: Vec<Confirmed>,
    /// The end of the last renewal that was tried, confirmed or not.
    pub last_try_ns: u64,
    /// Linearizable looks at the key, and renewals that were told that there is no such lease.
    pub looks: Vec<Look>,
    /// When somebody asked to end it.
    pub revoked_ns: Option<u64>,
}

impl Lease {
    /// Until when it was promised to live.
    fn promised_ns(&self) -> u64 {
        self.confirmed.iter().map(|one| one.called_ns + one.ttl_s * S).max().unwrap_or(0)
    }

    /// When it must have ended if nothing is wrong: the last renewal took effect at the end of its try at the latest.
    fn due_ns(&self) -> u64 {
        let ttl_s = self.confirmed.last().map_or(0, |one| one.ttl_s);
        self.last_try_ns + ttl_s * S
    }
}

/// Leases that ended before the time that was promised, and keys of `left` that are there although all is well and their time
/// is long over.
pub fn check(leases: &[Lease], left: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for lease in leases {
        let promised_ns = lease.promised_ns();
        let early = lease.looks.iter().find(|look| {
            let revoked = lease.revoked_ns.is_some_and(|at| at < look.returned_ns);
            !look.there && look.called_ns > lease.attached_ns && look.returned_ns < promised_ns && !revoked
        });
        if let Some(look) = early {
            let (gone, promised) = (ms(look.returned_ns), ms(promised_ns));
            let what = format!("{} was gone at {gone}, and promised to live until {promised}: {lease:?}", lease.key);
            findings.push(Finding::new("revoked early", what).at(look.returned_ns));
        }
    }
    for key in left {
        findings.push(Finding::new("outlived its lease", format!("{key} is still there long after its lease ran out")));
    }
    findings
}

/// How late abandoned leases were seen to be gone, in nanoseconds: the longest time. It includes faults.
pub fn latest(leases: &[Lease]) -> u64 {
    let late = leases.iter().filter(|lease| lease.revoked_ns.is_none()).filter_map(|lease| {
        let gone = lease.looks.iter().find(|look| !look.there)?;
        Some(gone.called_ns.saturating_sub(lease.due_ns()))
    });
    late.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at_s: u64, there: bool) -> Look {
        Look { called_ns: at_s * S, returned_ns: at_s * S + 1, there }
    }

    fn lease(looks: &[Look]) -> Lease {
        let confirmed = vec![Confirmed { called_ns: S, ttl_s: 3 }, Confirmed { called_ns: 3 * S, ttl_s: 3 }];
        let looks = looks.to_vec();
        Lease { key: "k".into(), attached_ns: S + 1, confirmed, last_try_ns: 3 * S, looks, revoked_ns: None }
    }

    fn kinds(lease: Lease) -> Vec<String> {
        check(&[lease], &[]).into_iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn a_lease_that_lives_as_promised_is_clean() {
        assert_eq!(kinds(lease(&[look(2, true), look(5, true), look(7, false)])), [""; 0]);
        // Longer than promised is no harm while things go wrong.
        assert_eq!(kinds(lease(&[look(9, true)])), [""; 0]);
    }

    #[test]
    fn one_that_goes_before_its_time_is_found() {
        assert_eq!(kinds(lease(&[look(2, true), look(5, false)])), ["revoked early"]);
        // Renewed later, so it must have been there.
        assert_eq!(kinds(lease(&[look(2, false)])), ["revoked early"]);
    }

    #[test]
    fn one_that_was_revoked_may_go() {
        let revoked = Lease { revoked_ns: Some(4 * S), ..lease(&[look(5, false)]) };
        assert_eq!(kinds(revoked), [""; 0]);
        let later = Lease { revoked_ns: Some(6 * S), ..lease(&[look(5, false)]) };
        assert_eq!(kinds(later), ["revoked early"]);
    }

    #[test]
    fn a_key_that_stays_for_ever_is_found() {
        assert_eq!(check(&[], &["k".into()])[0].kind, "outlived its lease");
    }

    #[test]
    fn lateness_counts_from_the_last_renewal() {
        assert_eq!(latest(&[lease(&[look(2, true), look(8, false)])]), 2 * S);
    }
}
