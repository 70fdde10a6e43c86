//! What happened since a revision.

use super::{
    Event, EventKind, KeyValue, Reader, STEP_KEYS, Shared,
    open::read_rows,
    pin::Pins,
    read::admit,
    record::{self, RowKey, Stamp},
};
use crate::types::{Error, Fault, Revision};
use bytes::Bytes;

/// Rows of one scan, and about the most that one call looks at when hardly any is wanted.
const STEP_ROWS: usize = 500;
const LOOKED_AT_MAX: usize = 20_000;

/// A part of the past, see [`Reader::history`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Whole revisions, ascending; those without a wanted event are left out.
    pub events: Vec<(Revision, Vec<Event>)>,
    /// The revision to ask for next. All before it is in `events`, or was not wanted.
    pub next: Revision,
}

impl Reader {
    /// Events with `from` <= revision <= `upto` whose key is `wanted`: whole revisions, until about `bytes_max` bytes have come
    /// together or some thousands of rows were looked at. Never beyond the current revision. Goes on with [`History::next`].
    ///
    /// With `with_prev` an event has the version that it replaced, if that is still there.
    ///
    /// # Errors
    /// [`Error::Compacted`] if `from` is below the compacted revision; at it is fine.
    pub fn history(
        &self,
        from: Revision,
        upto: Revision,
        wanted: &dyn Fn(&[u8]) -> bool,
        with_prev: bool,
        bytes_max: usize,
    ) -> Result<Result<History, Error>, Fault> {
        let from = from.0.max(1);
        let shared = &self.shared();
        let (_pin, upto) = {
            let state = shared.state.read();
            let upto = upto.0.min(state.published);
            if from > upto && from > state.compacted {
                return Ok(Ok(History { events: Vec::new(), next: Revision(from) }));
            }
            match admit(Revision(from), state.published, state.compacted) {
                Ok(at) => (Pins::add(shared, at), upto),
                Err(error) => return Ok(Err(error)),
            }
        };
        let (rows, next) = shared.wanted_rows(from, upto, wanted, bytes_max)?;
        let prevs = if with_prev { shared.replaced_by(&rows)? } else { vec![None; rows.len()] };
        let mut events: Vec<(Revision, Vec<Event>)> = Vec::new();
        for ((stamp, kv), prev) in rows.into_iter().zip(prevs) {
            let kind = if stamp.tombstone { EventKind::Delete } else { EventKind::Put };
            let event = Event { kind, kv, prev };
            match events.last_mut() {
                Some((revision, same)) if revision.0 == stamp.main => same.push(event),
                _ => events.push((Revision(stamp.main), vec![event])),
            }
        }
        Ok(Ok(History { events, next: Revision(next) }))
    }
}

impl Shared {
    /// The wanted rows of whole revisions, and the revision after them.
    fn wanted_rows(
        &self,
        from: i64,
        upto: i64,
        wanted: &dyn Fn(&[u8]) -> bool,
        bytes_max: usize,
    ) -> Result<(Vec<(Stamp, KeyValue)>, i64), Fault> {
        let (mut found, mut bytes, mut looked_at, mut last_main) = (Vec::new(), 0, 0, 0);
        let mut row_at = RowKey::before(from);
        loop {
            let rows = read_rows(&*self.engine, &row_at, upto, STEP_ROWS)?;
            let Some((last, _)) = rows.last() else { return Ok((found, upto.max(from - 1) + 1)) };
            row_at = last.row_key();
            for (stamp, row) in rows {
                let begins = stamp.main != last_main;
                if begins && (bytes >= bytes_max && !found.is_empty() || looked_at >= LOOKED_AT_MAX) {
                    return Ok((found, stamp.main));
                }
                (last_main, looked_at) = (stamp.main, looked_at + 1);
                if wanted(&key_of(stamp, &row)?) {
                    bytes += row.len();
                    found.push((stamp, event_kv(stamp, &row)?));
                }
            }
        }
    }

    /// The versions that rows replaced, where they are still there.
    fn replaced_by(&self, rows: &[(Stamp, KeyValue)]) -> Result<Vec<Option<KeyValue>>, Fault> {
        let mut stamps = Vec::with_capacity(rows.len());
        for some in rows.chunks(STEP_KEYS) {
            let state = self.state.read();
            stamps.extend(some.iter().map(|(stamp, kv)| state.index.find(&kv.key)?.replaced_by(*stamp)));
        }
        let read = |stamp: Option<Stamp>| stamp.map_or(Ok(None), |stamp| self.row_if_any(stamp));
        stamps.into_iter().map(read).collect()
    }
}

fn key_of(stamp: Stamp, row: &Bytes) -> Result<Bytes, Fault> {
    record::key_of(row).ok_or_else(|| super::damaged(stamp, "has a row that is no mvccpb.KeyValue"))
}

fn event_kv(stamp: Stamp, row: &Bytes) -> Result<KeyValue, Fault> {
    let kv = record::decode(row).ok_or_else(|| super::damaged(stamp, "has a row that is no mvccpb.KeyValue"))?;
    // A tombstone's row has the key only.
    Ok(KeyValue { mod_revision: Revision(stamp.main), ..kv })
}
