//! `Range`, answered from a copy: exactly what upstream would say, or nothing.

use super::{
    Copies, Copy,
    age::{Staleness, Wishes},
    fence::{Proof, Refusal},
};
use crate::{
    mvcc::{RangeQuery, RangeResult},
    pb::etcdserverpb as pb,
    runtime,
    server::{Access, Identity, check, convert},
    types::{Error, Fault, KeyRange, Revision, Sabotage},
};
use std::{sync::Arc, time::Duration};
use tonic::{Response, Status, metadata::MetadataMap};

/// Metadata key of an answer: where it came from.
pub const SERVED_BY: &str = "henge-served-by";
/// Metadata key of an answer: the revision of the state that it shows.
pub const REVISION: &str = "henge-revision";
/// Metadata key of an answer: it is at most so many milliseconds old.
pub const AGE_MS: &str = "henge-age-ms";

/// Ranges with up to so many keys are read where the call is; larger ones where they may take their time.
const KEYS_INLINE_MAX: i64 = 1_000;

impl Copies {
    /// Answers a range. `None`: pass the request on, as it came; nothing has happened.
    ///
    /// Linearizable reads wait for a fence. A caller that says how old an answer may be (`henge-max-age`) gets what is here, if that
    /// is fresh enough. Who brings a revision (`henge-min-revision`) gets no earlier one.
    ///
    /// A revision that the request names is upstream's to answer for: it alone knows what is compacted.
    ///
    /// # Errors
    /// What upstream would say, if it refuses the fence; [`Error::FutureRev`] if it has not come to the revision that the caller
    /// brings; [`Error::Invalid`] for metadata of ours that cannot be read.
    pub async fn range(
        &self,
        metadata: &MetadataMap,
        request: pb::RangeRequest,
    ) -> Option<Result<Response<pb::RangeResponse>, Status>> {
        let caller = Identity::of(metadata);
        // Only upstream knows what a token is worth.
        if caller.token.is_some() || self.fence().is_locked() {
            return None;
        }
        let checked = check::range(request).ok()?;
        if checked.query.revision > Revision(0) {
            return None;
        }
        let copy = self.covering(&checked.query.range)?;
        if let Err(error) = caller.may(Access::Read, Some(&checked.query.range)) {
            return Some(Err(error.into()));
        }
        let answer = self.range_of(&copy, metadata, checked.query, checked.serializable).await;
        copy.count(answer.is_some());
        answer
    }

    /// The same, of a copy that has all keys of the range.
    async fn range_of(
        &self,
        copy: &Arc<Copy>,
        metadata: &MetadataMap,
        query: RangeQuery,
        serializable: bool,
    ) -> Option<Result<Response<pb::RangeResponse>, Status>> {
        let wishes = match Wishes::of(metadata) {
            Ok(wishes) => wishes,
            Err(error) => return Some(Err(error.into())),
        };
        if let Err(stop) = self.be_fresh(copy, wishes, serializable).await {
            return match stop {
                Stop::PassOn => None,
                Stop::Answer(status) => Some(Err(status)),
            };
        }
        let age = self.age(copy);
        let result = match read(copy, query).await {
            Ok(Ok(result)) => result,
            // Upstream may know more of the past, or of the future.
            Ok(Err(_)) => return None,
            Err(fault) => {
                tracing::error!(%fault, range = ?copy.range(), "a copy is broken");
                copy.end();
                return None;
            }
        };
        Some(Ok(answer(copy, result, age)))
    }

    /// An upper bound of the age of what `copy` says now.
    pub fn age(&self, copy: &Copy) -> Duration {
        let fence = self.fence();
        let proven = fence.current_at(copy.revision()).unwrap_or_default().max(copy.loaded_at());
        fence.now().saturating_sub(proven)
    }

    /// Returns when the copy is as fresh as the caller wants it.
    async fn be_fresh(&self, copy: &Copy, wishes: Wishes, serializable: bool) -> Result<(), Stop> {
        let before = copy.revision();
        let floor = wishes.floor();
        let must_be_now = match wishes.staleness {
            Some(Staleness::Age(max)) => self.age(copy) > max,
            Some(Staleness::Revision(_)) => false,
            None => !serializable && !Sabotage::ReadWithoutFence.is(self.shared.sabotage),
        };
        if !must_be_now && before >= floor {
            // Whether there is a leader is not known here.
            return if wishes.leader { Err(Stop::PassOn) } else { Ok(()) };
        }
        let proof = self.proof(copy, before).await?;
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
        match self.proof(copy, before).await {
            Ok(proof) => copy.reach(proof.header.revision, self.shared.wait_max).await,
            Err(_) => false,
        }
    }

    /// Asks upstream how far it is; ends `copy` if that cannot be its upstream any more. `before` is where the copy was.
    async fn proof(&self, copy: &Copy, before: Revision) -> Result<Proof, Stop> {
        let proof = self.fence().pass().await.map_err(|refusal| match refusal {
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

/// Why a request is not answered from the copy.
enum Stop {
    PassOn,
    Answer(Status),
}

async fn read(copy: &Arc<Copy>, query: RangeQuery) -> Result<Result<RangeResult, Error>, Fault> {
    let is_small = matches!(query.range, KeyRange::One(_))
        || query.count_only && query.revision == Revision(0)
        || (1..=KEYS_INLINE_MAX).contains(&query.limit)
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
    metadata.insert(SERVED_BY, tonic::metadata::MetadataValue::from_static("copy"));
    metadata.insert(REVISION, revision.0.into());
    metadata.insert(AGE_MS, u64::try_from(age.as_millis()).unwrap_or(u64::MAX).into());
    response
}
