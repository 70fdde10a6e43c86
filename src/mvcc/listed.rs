//! Ranges that are answered with rows as they are stored, one after the other: the answer is made by copying.

use super::{
    KeyValue, Meter, RangeQuery, Reader, STEP_KEYS, Shared, SortOrder, SortTarget, damaged, decoded,
    hot::{For, Gathered},
    index::{Budget, Direction},
    read::Known,
    record::{self, Stamp},
};
use crate::{
    engine::Table,
    types::{Error, Fault, KeyRange, Revision, Stop},
};
use bytes::Bytes;
use std::ops::Bound;

/// Bytes of rows that are copied under one hold of the state's lock, and paid for at once.
const STEP_BYTES: usize = 64 << 10;

/// The answer to a [`RangeQuery`], with its keys as they are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRows {
    /// [`RangeRows::ROOM`] bytes for what goes before them, and `kvs` of `etcdserverpb.RangeResponse`, encoded: field 2, once for each key.
    pub kvs: Vec<u8>,
    /// Keys in the range at that revision, whatever the limit says.
    pub count: i64,
    /// Whether the limit cut the list.
    pub more: bool,
    /// The current revision at the time of the read; goes to the header.
    pub revision: Revision,
}

impl RangeRows {
    /// Bytes before the rows that are whoever's who sends them: an answer of many megabytes is not to be copied for its head.
    pub const ROOM: usize = 64;
}

impl RangeQuery {
    /// Whether the answer is rows as they are stored: whole, all that there are, and in the order of keys.
    pub fn is_plain(&self) -> bool {
        let RangeQuery { range, target, keys_only, count_only, .. } = self;
        let lists = !matches!(range, KeyRange::One(_)) && !keys_only && !count_only;
        lists && *target == SortTarget::Key && !self.has_filters()
    }
}

impl Reader {
    /// Reads a range as [`Reader::range_within`] does; `None` if the query is not [plain](RangeQuery::is_plain), or one of the past.
    ///
    /// # Errors
    /// As [`Reader::range_within`].
    pub fn rows_within(
        &self,
        query: &RangeQuery,
        meter: &mut dyn Meter,
    ) -> Result<Result<Option<RangeRows>, Error>, Fault> {
        if !query.is_plain() {
            return Ok(Ok(None));
        }
        let (pin, current, known) = match self.enter(query) {
            Ok(entered) => entered,
            Err(error) => return Ok(Err(error)),
        };
        let Known::Count(count) = known else { return Ok(Ok(None)) };
        let limit = usize::try_from(query.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let keys = usize::try_from(count).unwrap_or(0).min(limit);
        let direction = match query.order {
            SortOrder::Descend => Direction::Descending,
            SortOrder::None | SortOrder::Ascend => Direction::Ascending,
        };
        let list = List { shared: &pin.shared, at: pin.revision, keys, direction };
        Stop::apart(list.rows(&query.range, meter).map(|(rows, listed)| {
            let more = count > listed as i64;
            Some(RangeRows { kvs: rows, count, more, revision: Revision(current) })
        }))
    }
}

/// A walk over a range that lists what it finds.
struct List<'a> {
    shared: &'a Shared,
    at: i64,
    /// To be listed.
    keys: usize,
    direction: Direction,
}

impl List<'_> {
    /// The rows, and how many they are.
    fn rows(&self, range: &KeyRange, meter: &mut dyn Meter) -> Result<(Vec<u8>, usize), Stop> {
        // Nothing is taken if it cannot fit anyway.
        let least = self.keys.saturating_mul(size_of::<KeyValue>());
        meter.take(least)?;
        meter.give(least);
        let mut all = Gathered { rows: vec![0; RangeRows::ROOM], ..Gathered::default() };
        let mut last: Option<Box<[u8]>> = None;
        while all.keys < self.keys {
            let (from, to) = range.bounds();
            let bounds = match (&last, self.direction) {
                (None, _) => (from, to),
                (Some(key), Direction::Ascending) => (Bound::Excluded(&**key), to),
                (Some(key), Direction::Descending) => (from, Bound::Excluded(&**key)),
            };
            let (began, keys_before) = (all.rows.len(), all.keys);
            let budget = Budget { looked_at: STEP_KEYS, found: self.keys - all.keys };
            let state = self.shared.state.read();
            let index = &state.index;
            last = index.gather(bounds, self.at, self.direction, budget, STEP_BYTES, &mut all).map(Box::from);
            drop(state);
            self.fill_in(&mut all, began)?;
            meter.take(all.rows.len() - began)?;
            if last.is_none() {
                break;
            }
            if keys_before == 0 && all.keys > 0 {
                // Less copying than by growing, if the others are alike.
                let more = (all.rows.len() / all.keys).saturating_mul(self.keys - all.keys);
                all.rows.reserve(more.min(RESERVE_BYTES_MAX));
            }
        }
        Ok((all.rows, all.keys))
    }

    /// Reads what is not held, and puts it between the rows since `began`.
    fn fill_in(&self, all: &mut Gathered, began: usize) -> Result<(), Fault> {
        if all.missing.is_empty() {
            return Ok(());
        }
        let held = all.rows.split_off(began);
        let mut taken = 0;
        let mut read = Vec::with_capacity(all.missing.len());
        for (place, stamp) in all.missing.drain(..) {
            let upto = place - began;
            all.rows.extend_from_slice(&held[taken..upto]);
            taken = upto;
            let row = self.shared.stored(stamp)?;
            record::list(&mut all.rows, &row);
            read.push((stamp, row));
        }
        all.rows.extend_from_slice(&held[taken..]);
        self.shared.warm(&read);
        Ok(())
    }
}

/// More is not reserved at once: it is not paid for yet.
const RESERVE_BYTES_MAX: usize = 1 << 20;

/// Rows that are put beside their keys under one hold of the lock.
const STEP_WARM: usize = 64;

impl Shared {
    /// The row of a version that must be there, as it is stored.
    pub(super) fn stored(&self, stamp: Stamp) -> Result<Bytes, Fault> {
        let row = self.engine.get(Table::Versions, &stamp.row_key())?;
        row.ok_or_else(|| damaged(stamp, "is in the index, but its row is gone"))
    }

    /// The row of a version that must be there, which is likely to be asked for again.
    pub(super) fn asked_for(&self, stamp: Stamp) -> Result<KeyValue, Fault> {
        let row = self.stored(stamp)?;
        let kv = decoded(stamp, &row)?;
        self.warm(&[(stamp, row)]);
        Ok(kv)
    }

    /// Holds rows that somebody has read, unless the writer is at it: it does not wait for readers who look ahead.
    pub(super) fn warm(&self, rows: &[(Stamp, Bytes)]) {
        for some in rows.chunks(STEP_WARM) {
            let Some(mut state) = self.state.try_write() else { return };
            if state.index.hot.bytes_max() == 0 {
                return;
            }
            for (stamp, row) in some {
                if let Some(key) = record::key_of(row) {
                    state.index.warm(&key, *stamp, row, For::Reader);
                }
            }
        }
    }
}
