//! How old an answer may be, and how old a caller lets it be.
//!
//! Only a linearizable read proves anything about now: sent at moment `t` and answered with revision `r`, it says that what upstream
//! had committed by `t` has revisions up to `r`. A copy that has everything up to `r` is therefore no older than `t`. An event, or a
//! progress notification, proves nothing: it may come from a member that has been cut off for an hour.
//!
//! Moments are durations since the ring began; whoever calls knows the time.

use crate::types::{Error, Revision};
use std::{collections::VecDeque, time::Duration};
use tonic::metadata::MetadataMap;

/// Proofs that are kept. A copy that is further behind has the age of its own last proof.
const KEPT: usize = 64;

/// What upstream has proven lately.
#[derive(Debug, Default)]
pub struct Proofs(VecDeque<Proven>);

/// All that upstream had committed by `last` is at or below `revision`, which it had by `first`.
#[derive(Clone, Copy, Debug)]
struct Proven {
    revision: Revision,
    first: Duration,
    last: Duration,
}

impl Proofs {
    /// A linearizable read that was sent at `moment` was answered with `revision`.
    pub fn add(&mut self, revision: Revision, moment: Duration) {
        match self.0.back_mut() {
            Some(proven) if proven.revision == revision => return proven.last = moment.max(proven.last),
            // Of an earlier time, or of a history that is no more.
            Some(proven) if proven.revision > revision => return,
            _ => self.0.push_back(Proven { revision, first: moment, last: moment }),
        }
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// Forgets everything: it was another history.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The latest moment at which nothing after `level` had been committed, as far as anybody asked.
    pub fn current_at(&self, level: Revision) -> Option<Duration> {
        let beyond = self.0.partition_point(|proven| proven.revision <= level);
        beyond.checked_sub(1).map(|at| self.0[at].last)
    }

    /// The highest revision that was known at `moment`; 0: none of those that are remembered.
    pub fn known_at(&self, moment: Duration) -> Revision {
        let later = self.0.partition_point(|proven| proven.first <= moment);
        later.checked_sub(1).map_or(Revision(0), |at| self.0[at].revision)
    }
}

/// How far behind the present an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staleness {
    /// So long.
    Age(Duration),
    /// At this revision or any later one.
    Revision(Revision),
}

/// What a call says about the freshness that it wants, beside the field `serializable`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `henge-max-age`: a duration such as `5s`, or `rev=N`. Such a read need not be linearizable.
    pub staleness: Option<Staleness>,
    /// `henge-min-revision`: what the caller has seen already.
    pub min_revision: Option<Revision>,
    /// `hasleader`: no answer without a leader.
    pub leader: bool,
}

/// Metadata key: how old an answer may be.
pub const MAX_AGE: &str = "henge-max-age";
/// Metadata key: the revision that the caller has seen.
pub const MIN_REVISION: &str = "henge-min-revision";

impl Wishes {
    /// Reads what a call carries.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is neither a duration nor a revision.
    pub fn of(metadata: &MetadataMap) -> Result<Wishes, Error> {
        let text = |name: &'static str| match metadata.get(name) {
            None => Ok(None),
            Some(value) => value.to_str().map(|text| Some(text.trim())).map_err(|_| invalid(name, "is not text")),
        };
        let staleness = match text(MAX_AGE)? {
            None => None,
            Some(value) => Some(match value.strip_prefix("rev=").or(value.strip_prefix("min-revision=")) {
                Some(number) => Staleness::Revision(revision(MAX_AGE, number)?),
                None => Staleness::Age(
                    duration(value).ok_or_else(|| invalid(MAX_AGE, "is neither like 5s nor like rev=7"))?,
                ),
            }),
        };
        let min_revision = text(MIN_REVISION)?.map(|number| revision(MIN_REVISION, number)).transpose()?;
        let leader = metadata.get("hasleader").is_some_and(|value| value.as_bytes() == b"true");
        Ok(Wishes { staleness, min_revision, leader })
    }

    /// No answer may be of an earlier revision.
    pub fn floor(&self) -> Revision {
        let by_staleness = match self.staleness {
            Some(Staleness::Revision(revision)) => revision,
            _ => Revision(0),
        };
        by_staleness.max(self.min_revision.unwrap_or_default())
    }
}

fn invalid(name: &str, what: &str) -> Error {
    Error::Invalid(format!("henge: {name} {what}"))
}

fn revision(name: &str, number: &str) -> Result<Revision, Error> {
    let number = number.trim().parse::<i64>().ok().filter(|number| *number >= 0);
    number.map(Revision).ok_or_else(|| invalid(name, "is not a revision"))
}

/// A whole number and its unit: `ms`, `s`, `m` or `h`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number = number.parse::<u64>().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_copy_is_as_old_as_the_last_proof_that_it_has_reached() {
        let mut proofs = Proofs::default();
        assert_eq!(proofs.current_at(Revision(9)), None);
        for (revision, at) in [(5, 10), (5, 12), (8, 20), (7, 15)] {
            proofs.add(Revision(revision), s(at));
        }
        let at = |level| proofs.current_at(Revision(level));
        assert_eq!((at(4), at(5), at(7), at(8), at(99)), (None, Some(s(12)), Some(s(12)), Some(s(20)), Some(s(20))));
        let known = |at| proofs.known_at(s(at)).0;
        assert_eq!((known(9), known(10), known(19), known(20), known(99)), (0, 5, 5, 8, 8));
    }

    #[test]
    fn few_proofs_are_kept() {
        let mut proofs = Proofs::default();
        (1..=1_000).for_each(|number| proofs.add(Revision(number), s(number as u64)));
        assert_eq!(proofs.0.len(), KEPT);
        assert_eq!(proofs.current_at(Revision(999)), Some(s(999)));
        assert_eq!(proofs.current_at(Revision(10)), None);
    }

    #[test]
    fn wishes_are_durations_or_revisions() {
        let wishes = |pairs: &[(&'static str, &str)]| {
            let mut metadata = MetadataMap::new();
            pairs.iter().for_each(|(name, value)| drop(metadata.insert(*name, value.parse().unwrap())));
            Wishes::of(&metadata)
        };
        assert_eq!(wishes(&[]), Ok(Wishes::default()));
        for (text, age) in [("5s", s(5)), ("250ms", Duration::from_millis(250)), ("2m", s(120)), ("1h", s(3600))] {
            assert_eq!(wishes(&[(MAX_AGE, text)]).unwrap().staleness, Some(Staleness::Age(age)));
        }
        let both = wishes(&[(MAX_AGE, "rev=7"), (MIN_REVISION, "9"), ("hasleader", "true")]).unwrap();
        assert_eq!(
            (both.staleness, both.floor(), both.leader),
            (Some(Staleness::Revision(Revision(7))), Revision(9), true)
        );
        for (name, wrong) in
            [(MAX_AGE, "5"), (MAX_AGE, "s"), (MAX_AGE, "rev=x"), (MAX_AGE, "-1s"), (MIN_REVISION, "-4")]
        {
            assert!(matches!(wishes(&[(name, wrong)]), Err(Error::Invalid(_))), "{name}: {wrong}");
        }
    }
}
