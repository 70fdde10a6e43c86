//! The key space at one revision: the walk over it and the rows of an answer, within what the reader lets them have.

use super::{
    KeyValue, RangeQuery, RangeResult, STEP_KEYS, Shared, SortOrder, SortTarget, decoded,
    index::{Budget, Direction},
    read::Known,
    record::Stamp,
};
use crate::types::{Error, Fault, KeyRange, Revision, Stop};
use bytes::Bytes;
use std::ops::Bound;

/// Whom a range asks before it takes memory.
pub trait Meter {
    /// It is about to take `bytes`.
    ///
    /// # Errors
    /// It may not: the range ends with this error, and takes nothing more.
    fn take(&mut self, bytes: usize) -> Result<(), Error>;

    /// It needs `bytes` of them no longer.
    fn give(&mut self, bytes: usize);
}

/// Lets everything pass: for reads that are part of the replicated state, which must not depend on what a member has room for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unmetered;

impl Meter for Unmetered {
    fn take(&mut self, _: usize) -> Result<(), Error> {
        Ok(())
    }

    fn give(&mut self, _: usize) {}
}

/// The key space at one revision. Who makes one sees to it that the revision is not swept meanwhile.
pub(super) struct View<'a, R> {
    pub(super) shared: &'a Shared,
    pub(super) at: i64,
    /// Where the row of a version is.
    pub(super) row: R,
}

/// What a key of an answer takes beside its bytes, and while it is looked for.
const KEY_BYTES: usize = size_of::<KeyValue>() + size_of::<Stamp>();

impl<R: Fn(Stamp) -> Result<KeyValue, Fault>> View<'_, R> {
    /// Answers a query, in what `meter` lets it have.
    pub(super) fn range(
        &self,
        query: &RangeQuery,
        current: i64,
        known: Known,
        meter: &mut dyn Meter,
    ) -> Result<Result<RangeResult, Error>, Fault> {
        Stop::apart(self.answer(query, current, known, meter))
    }

    fn answer(
        &self,
        query: &RangeQuery,
        current: i64,
        known: Known,
        meter: &mut dyn Meter,
    ) -> Result<RangeResult, Stop> {
        let revision = Revision(current);
        let count = match &known {
            Known::Key(found, _) => Some(i64::from(found.is_some())),
            Known::Count(count) => Some(*count),
            Known::Nothing => None,
        };
        if let (true, Some(count)) = (query.count_only, count) {
            return Ok(RangeResult { count, revision, ..RangeResult::default() });
        }
        let limit = usize::try_from(query.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let by_key = query.walks_to_its_limit();
        let direction = match query.order {
            SortOrder::Descend if by_key => Direction::Descending,
            _ => Direction::Ascending,
        };
        if by_key && let Some(count) = count {
            let least = usize::try_from(count).unwrap_or(0).min(limit).saturating_mul(KEY_BYTES);
            meter.take(least)?;
            meter.give(least);
        }
        // In the order of keys the limit can be applied first. Then only the past has to be walked to its end, to count it.
        let keep_max = if query.count_only {
            0
        } else if by_key {
            limit
        } else {
            usize::MAX
        };
        let walk_max = if by_key && count.is_some() { limit } else { usize::MAX };
        let mut held = None;
        let (found, walked) = match known {
            Known::Key(found, row) => {
                held = row;
                (found.into_iter().collect(), 0)
            }
            _ => self.walk_within(&query.range, Extent { walk_max, keep_max }, direction, meter)?,
        };
        let count = count.unwrap_or(walked as i64);
        if query.count_only {
            return Ok(RangeResult { count, revision, ..RangeResult::default() });
        }
        let (kvs, more) = match by_key {
            true => {
                let kvs = self.rows(query, &found, held, meter)?;
                let more = count > kvs.len() as i64;
                (kvs, more)
            }
            false => self.chosen(query, &found, limit, meter)?,
        };
        meter.give(found.len() * size_of::<Stamp>());
        Ok(RangeResult { kvs, count, more, revision })
    }

    /// The first `max` versions of a range, in bounded steps.
    pub(super) fn walk(&self, range: &KeyRange, max: usize, direction: Direction) -> Vec<Stamp> {
        let extent = Extent { walk_max: max, keep_max: max };
        let walked = self.walk_within(range, extent, direction, &mut Unmetered);
        walked.expect("nobody is asked who could refuse").0
    }

    /// How many keys a range has, in bounded steps and without a list of them.
    pub(super) fn count(&self, range: &KeyRange) -> usize {
        let extent = Extent { walk_max: usize::MAX, keep_max: 0 };
        let walked = self.walk_within(range, extent, Direction::Ascending, &mut Unmetered);
        walked.expect("nobody is asked who could refuse").1
    }

    /// The first versions of a range, in bounded steps, and how many there are.
    fn walk_within(
        &self,
        range: &KeyRange,
        extent: Extent,
        direction: Direction,
        meter: &mut dyn Meter,
    ) -> Result<(Vec<Stamp>, usize), Error> {
        let Extent { walk_max, keep_max } = extent;
        let (mut found, mut walked) = (Vec::new(), 0);
        let mut last: Option<Box<[u8]>> = None;
        loop {
            let (from, to) = range.bounds();
            let bounds = match (&last, direction) {
                (None, _) => (from, to),
                (Some(key), Direction::Ascending) => (Bound::Excluded(&**key), to),
                (Some(key), Direction::Descending) => (from, Bound::Excluded(&**key)),
            };
            let kept = found.len();
            let budget = Budget { looked_at: STEP_KEYS, found: walk_max - walked };
            let state = self.shared.state.read();
            let stopped_at = state.index.walk(bounds, self.at, direction, budget, &mut found).map(Box::from);
            drop(state);
            walked += found.len() - kept;
            found.truncate(keep_max);
            meter.take((found.len() - kept) * size_of::<Stamp>())?;
            last = stopped_at;
            if last.is_none() || walked >= walk_max {
                return Ok((found, walked));
            }
        }
    }

    /// The rows of an answer in the order of keys. The first one may be `held`.
    fn rows(
        &self,
        query: &RangeQuery,
        found: &[Stamp],
        mut held: Option<Bytes>,
        meter: &mut dyn Meter,
    ) -> Result<Vec<KeyValue>, Stop> {
        meter.take(found.len() * size_of::<KeyValue>())?;
        let mut kvs = Vec::with_capacity(found.len());
        for stamp in found {
            let mut kv = match held.take() {
                Some(row) => decoded(*stamp, &row)?,
                None => (self.row)(*stamp)?,
            };
            query.strip(&mut kv);
            meter.take(kv.key.len() + kv.value.len())?;
            kvs.push(kv);
        }
        Ok(kvs)
    }

    /// The rows that pass the filters, sorted, and whether there are more than `limit`. Never holds many more than that.
    fn chosen(
        &self,
        query: &RangeQuery,
        found: &[Stamp],
        limit: usize,
        meter: &mut dyn Meter,
    ) -> Result<(Vec<KeyValue>, bool), Stop> {
        let (mut kvs, mut passed, mut held) = (Vec::new(), 0_usize, 0);
        // Sorting is stable, and whoever comes later has the greater key: what falls out now would fall out at the end.
        let cut = |kvs: &mut Vec<KeyValue>, meter: &mut dyn Meter| {
            query.sort(kvs);
            let bytes = kvs.iter().skip(limit).map(bytes_of).sum::<usize>();
            kvs.truncate(limit);
            meter.give(bytes);
            bytes
        };
        for stamp in found {
            let mut kv = (self.row)(*stamp)?;
            if !query.passes(&kv) {
                continue;
            }
            if query.target != SortTarget::Value {
                query.strip(&mut kv);
            }
            passed += 1;
            meter.take(bytes_of(&kv))?;
            held += bytes_of(&kv);
            kvs.push(kv);
            // At least half of it goes, so that sorting again and again costs no more than sorting all.
            if kvs.len() >= limit.saturating_mul(2) && (kvs.len() >= SORT_KEYS_MIN || held >= SORT_BYTES_MIN) {
                held -= cut(&mut kvs, &mut *meter);
            }
        }
        cut(&mut kvs, &mut *meter);
        if query.target == SortTarget::Value {
            kvs.iter_mut().for_each(|kv| query.strip(kv));
        }
        Ok((kvs, passed > limit))
    }
}

/// How far a walk goes, and how much of what it finds it keeps.
#[derive(Clone, Copy)]
struct Extent {
    walk_max: usize,
    keep_max: usize,
}

/// Below this many keys, and so many bytes, a sorted range with a limit holds them all.
const SORT_KEYS_MIN: usize = if cfg!(test) { 2 } else { 1_000 };
const SORT_BYTES_MIN: usize = 64 << 10;

/// What a row of an answer takes.
fn bytes_of(kv: &KeyValue) -> usize {
    size_of::<KeyValue>() + kv.key.len() + kv.value.len()
}
