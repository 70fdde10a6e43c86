//! `Range`, answered from a copy: exactly what upstream would say, or nothing.

use super::{
    Caller, Copies, Copy,
    age::{Staleness, Wishes},
    copies::Found,
    copy::Known,
    fence::{Proof, Refusal},
    permit::Verdict,
    shelf::Stamp,
};
use crate::{
    mvcc::{RangeQuery, RangeResult},
    pb::etcdserverpb as pb,
    runtime,
    server::{check, convert},
    types::{Error, Fault, KeyRange, Revision, Sabotage},
};
use std::{sync::Arc, time::Duration};
use tonic::{
    Extensions, Response, Status,
    metadata::{MetadataMap, MetadataValue},
};

/// Metadata key of an answer: where it came from.
pub const SERVED_BY: &str = "henge-served-by";
/// Metadata key of an answer: the revision of the state that it shows.
pub const REVISION: &str = "henge-revision";
/// Metadata key of an answer: it is at most so many milliseconds old.
pub const AGE_MS: &str = "henge-age-ms";
/// Metadata key of an answer: `disk` if it was read from there when the proxy began, and upstream has not been reached since.
pub const FROM: &str = "henge-from";

/// Ranges with up to so many keys are read where the call is; larger ones where they may take their time.
const KEYS_INLINE_MAX: i64 = 1_000;

impl Copies {
    /// [`Copies::range_for`] whoever the metadata say.
    ///
    /// # Errors
    /// As there.
    pub async fn range(
        &self,
        metadata: &MetadataMap,
        request: pb::RangeRequest,
    ) -> Option<Result<Response<pb::RangeResponse>, Status>> {
        let caller = Caller::known_by(&Extensions::new(), metadata);
        self.range_for(&caller, metadata, request).await
    }

    /// Answers a range for `caller`. `None`: pass the request on, as it came; nothing has happened.
    ///
    /// Linearizable reads wait for a fence. A caller that says how old an answer may be (`henge-max-age`) gets what is here, if that
    /// is fresh enough. Who brings a revision (`henge-min-revision`) gets no earlier one.
    ///
    /// A read at a revision of the past waits for a fence too, one that has upstream say that it still has that revision; also a
    /// serializable one, unless upstream cannot be asked.
    ///
    /// # Errors
    /// What upstream would say, if it refuses the fence; [`Error::FutureRev`] if it has not come to the revision that the caller
    /// brings; [`Error::Invalid`] for metadata of ours that cannot be read.
    pub async fn range_for(
        &self,
        caller: &Caller,
        metadata: &MetadataMap,
        request: pb::RangeRequest,
    ) -> Option<Result<Response<pb::RangeResponse>, Status>> {
        let checked = check::range(request).ok()?;
        let range = &checked.query.range.clone();
        self.trust().meet(caller).await;
        if self.may(caller, range) == Verdict::Upstream {
            return None;
        }
        let ground = &self.shared.ground;
        let found = ground.find(range);
        ground.note_read(range, found.as_ref().map(|found| &*found.place));
        let found = found?;
        let answer = match &found.copy {
            Some(copy) => {
                let answer = self.answer(metadata, &found, copy, checked).await;
                copy.count(answer.is_some());
                answer
            }
            None => None,
        };
        // A permission may have been taken back while it was waited for a fence.
        let answer = answer.filter(|_| self.may(caller, range) == Verdict::Here);
        if answer.is_none() {
            found.place.passed(ground.fence.now());
        }
        answer
    }

    /// Whether a serializable read of `range` has to be made linearizable before it passes: a copy may have told of revisions that the
    /// member behind has not seen.
    pub(super) fn was_ahead(&self, range: &KeyRange) -> bool {
        let ground = &self.shared.ground;
        ground.find(range).is_some_and(|found| found.was_ahead(ground.fence.now()))
    }

    async fn answer(
        &self,
        metadata: &MetadataMap,
        found: &Found,
        copy: &Arc<Copy>,
        checked: check::CheckedRange,
    ) -> Option<Result<Response<pb::RangeResponse>, Status>> {
        let wishes = match Wishes::of(metadata) {
            Ok(wishes) => wishes,
            Err(error) => return Some(Err(error.into())),
        };
        let may_be_behind = found.may_be_behind(self.fence().now());
        let past = Some(checked.query.revision).filter(|revision| *revision > Revision(0));
        if past.is_some_and(|revision| revision < copy.compacted().max(copy.reader().compacted())) {
            return None;
        }
        let asked = Asked { wishes, serializable: checked.serializable, may_be_behind, past };
        if let Err(stop) = self.be_fresh(copy, asked).await {
            return match stop {
                Stop::PassOn => None,
                Stop::Answer(status) => Some(Err(status)),
            };
        }
        let (age, is_of_old) = (self.age(copy), self.is_of_old(copy));
        let result = match read(copy, checked.query).await {
            Ok(Ok(result)) => result,
            // Upstream may know more of the past, or of the future.
            Ok(Err(_)) => return None,
            Err(fault) => {
                tracing::error!(%fault, range = ?copy.range(), "a copy is broken");
                copy.end();
                return None;
            }
        };
        let mut answer = answer(copy, result, age);
        if is_of_old {
            answer.metadata_mut().insert(FROM, MetadataValue::from_static("disk"));
        }
        Some(Ok(answer))
    }

    /// An upper bound of the age of what `copy` says now.
    pub fn age(&self, copy: &Copy) -> Duration {
        let fence = self.fence();
        let proven = fence.current_at(copy.revision());
        let proven = match (copy.known(), proven) {
            (Known::At(loaded), proven) => proven.unwrap_or_default().max(loaded),
            (Known::Saved(_), Some(proven)) => proven,
            // Its clocks are read in whole milliseconds.
            (Known::Saved(stamp), None) => return stamp.age(&Stamp::now()).saturating_add(Duration::from_millis(1)),
        };
        fence.now().saturating_sub(proven)
    }

    /// Whether what `copy` says is from disk, and nobody knows whether upstream has something else by now.
    fn is_of_old(&self, copy: &Copy) -> bool {
        matches!(copy.known(), Known::Saved(_)) && self.fence().current_at(copy.revision()).is_none()
    }

    /// Returns when the copy is as fresh as the caller wants it.
    async fn be_fresh(&self, copy: &Copy, asked: Asked) -> Result<(), Stop> {
        let Asked { wishes, serializable, may_be_behind, past } = asked;
        let before = copy.revision();
        let floor = wishes.floor();
        let must_be_now = match wishes.staleness {
            _ if past.is_some() => true,
            Some(Staleness::Age(max)) => self.age(copy) > max,
            Some(Staleness::Revision(_)) => false,
            None => (!serializable || may_be_behind) && !Sabotage::ReadWithoutFence.is(self.shared.ground.sabotage),
        };
        if !must_be_now && before >= floor {
            // Whether there is a leader is not known here.
            return if wishes.leader { Err(Stop::PassOn) } else { Ok(()) };
        }
        let proof = match self.proof(copy, before, past).await {
            Ok(proof) => proof,
            // That there is no leader is upstream's to say, and to whoever insists on one it says so at once.
            Err(Stop::Answer(_)) if wishes.leader => return Err(Stop::PassOn),
            // A member that is cut off would answer as well, with what it has.
            Err(Stop::Answer(_)) if asked.is_content_with(before) => return Ok(()),
            Err(stop) => return Err(stop),
        };
        let now = proof.header.revision;
        if now < floor {
            return Err(Stop::Answer(Error::FutureRev.into()));
        }
        let enough = if must_be_now { now } else { floor };
        // A feed that does not come so far is no reason to fail: upstream is there.
        if copy.reach(enough, self.shared.wait_max).await && !copy.is_over() { Ok(()) } else { Err(Stop::PassOn) }
    }
}

impl Copies {
    /// Waits until `copy` has all that was committed before the call: who attaches to its hub then is not told of what it has seen.
    /// False if upstream cannot be asked, or the copy does not come so far: then it is of no use for that.
    pub async fn be_level(&self, copy: &Copy) -> bool {
        let before = copy.revision();
        match self.proof(copy, before, None).await {
            Ok(proof) => copy.reach(proof.header.revision, self.shared.wait_max).await,
            Err(_) => false,
        }
    }

    /// Asks upstream how far it is, and whether it still has `past`; ends `copy` if that cannot be its upstream any more. `before` is where
    /// the copy was.
    async fn proof(&self, copy: &Copy, before: Revision, past: Option<Revision>) -> Result<Proof, Stop> {
        let answer = match past {
            Some(past) => self.fence().pass_at(past).await,
            None => self.fence().pass().await,
        };
        let proof = answer.map_err(|refusal| match refusal {
            Refusal::NotThere => Stop::PassOn,
            Refusal::Locked => {
                copy.end();
                Stop::PassOn
            }
            Refusal::TimedOut => Stop::Answer(Error::Timeout.into()),
            Refusal::Refused(status) => Stop::Answer(status),
        })?;
        if copy.agrees(before, &proof) {
            return Ok(proof);
        }
        self.fence().forget();
        copy.end();
        Err(Stop::PassOn)
    }
}

/// How fresh an answer has to be.
#[derive(Clone, Copy)]
struct Asked {
    wishes: Wishes,
    serializable: bool,
    /// Clients may know of later revisions than the copy has: it is asked to be as new as upstream, if that can be had.
    may_be_behind: bool,
    /// The revision that is to be read.
    past: Option<Revision>,
}

impl Asked {
    /// Whether a member that is at `revision` and cut off from the others would answer.
    fn is_content_with(&self, revision: Revision) -> bool {
        let Wishes { staleness, leader, .. } = self.wishes;
        let has_it = revision >= self.wishes.floor() && self.past.is_none_or(|past| past <= revision);
        self.serializable && has_it && staleness.is_none() && !leader
    }
}

/// Why a request is not answered from the copy.
enum Stop {
    PassOn,
    Answer(Status),
}

async fn read(copy: &Arc<Copy>, query: RangeQuery) -> Result<Result<RangeResult, Error>, Fault> {
    let is_small = matches!(query.range, KeyRange::One(_))
        || query.count_only && query.revision == Revision(0)
        || (1..=KEYS_INLINE_MAX).contains(&query.limit) && query.revision == Revision(0)
        || copy.reader().keys_total() as i64 <= KEYS_INLINE_MAX;
    if is_small {
        return copy.reader().range(&query);
    }
    let reader = copy.reader().clone();
    let reading = runtime::spawn_blocking(move || reader.range(&query)).await;
    // The runtime ends, or the reader has met a bug: upstream will say.
    reading.unwrap_or(Ok(Err(Error::Stopped)))
}

fn answer(copy: &Copy, result: RangeResult, age: Duration) -> Response<pb::RangeResponse> {
    let revision = result.revision;
    let header = copy.header().at(revision).to_wire();
    let mut response = Response::new(convert::range(header, result));
    let metadata = response.metadata_mut();
    metadata.insert(SERVED_BY, MetadataValue::from_static("copy"));
    metadata.insert(REVISION, revision.0.into());
    metadata.insert(AGE_MS, whole_ms(age).into());
    response
}

/// An age as [`AGE_MS`] tells it: never less, and `i64::MAX` if it is not known.
fn whole_ms(age: Duration) -> i64 {
    i64::try_from(age.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_as_a_bound_from_above() {
        let told = |micros| whole_ms(Duration::from_micros(micros));
        assert_eq!([0, 1, 999, 1_000, 1_001, 2_999].map(told), [0, 1, 1, 1, 2, 3]);
        assert_eq!(whole_ms(Duration::MAX), i64::MAX);
        assert_eq!(whole_ms(Duration::from_millis(i64::MAX as u64).saturating_add(Duration::from_millis(1))), i64::MAX);
    }
}
