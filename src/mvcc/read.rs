//! Ranges at one revision, in bounded steps.

use super::{
    KeyValue, Pin, Shared, State,
    index::Direction,
    pin::Pins,
    record::Stamp,
    view::{Meter, Unmetered, View},
};
use crate::types::{Error, Fault, Key, KeyRange, LeaseId, Revision};
use bytes::Bytes;
use parking_lot::RwLock;
use std::sync::{Arc, atomic::Ordering};

/// Keys of one [`Chunk`].
const CHUNK_KEYS_MAX: usize = 10_000;

/// What a range is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SortTarget {
    /// The key, as bytes.
    #[default]
    Key,
    /// `version`.
    Version,
    /// `create_revision`.
    Create,
    /// `mod_revision`.
    Mod,
    /// The value, as bytes.
    Value,
}

/// In which direction a range is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SortOrder {
    /// Ascending, whatever the target: that is what etcd does when no order is asked for.
    #[default]
    None,
    /// Lowest first.
    Ascend,
    /// Highest first.
    Descend,
}

/// A read of a range at one revision. The default of every field but `range` means "off".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    /// Which keys.
    pub range: KeyRange,
    /// At most so many keys; 0 or less: all. Applied after filters and sort.
    pub limit: i64,
    /// State to read; 0 or less: the current one.
    pub revision: Revision,
    /// Direction of the sort.
    pub order: SortOrder,
    /// What the result is sorted by.
    pub target: SortTarget,
    /// Leave the values out, and the leases too unless the sort is by value (for which etcd 3.7, too, reads more than its index).
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Drop keys with a lower `mod_revision`; 0: off. Filters don't change `count`.
    pub min_mod: i64,
    /// Drop keys with a higher `mod_revision`; 0: off.
    pub max_mod: i64,
    /// Drop keys with a lower `create_revision`; 0: off.
    pub min_create: i64,
    /// Drop keys with a higher `create_revision`; 0: off.
    pub max_create: i64,
}

impl RangeQuery {
    /// All of `range` as it is now, in the order of keys.
    pub fn new(range: KeyRange) -> RangeQuery {
        RangeQuery {
            range,
            limit: 0,
            revision: Revision(0),
            order: SortOrder::None,
            target: SortTarget::Key,
            keys_only: false,
            count_only: false,
            min_mod: 0,
            max_mod: 0,
            min_create: 0,
            max_create: 0,
        }
    }
}

impl Default for RangeQuery {
    /// The whole key space.
    fn default() -> RangeQuery {
        RangeQuery::new(KeyRange::From(bytes::Bytes::new()))
    }
}

/// The answer to a [`RangeQuery`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// The keys, in the order that was asked for.
    pub kvs: Vec<KeyValue>,
    /// Keys in the range at that revision, whatever limit and filters say.
    pub count: i64,
    /// Whether the limit cut the list.
    pub more: bool,
    /// The current revision at the time of the read; goes to the header.
    pub revision: Revision,
}

/// A part of a long range, see [`Reader::chunk`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The keys, ascending.
    pub kvs: Vec<KeyValue>,
    /// What is left of the range; `None` at its end.
    pub rest: Option<KeyRange>,
}

/// The readers' half of the store. Cheap to clone, for any number of threads.
#[derive(Clone)]
pub struct Reader {
    pub(super) store: Arc<RwLock<Arc<Shared>>>,
}

impl Reader {
    /// The state of now. Whoever reads in several steps takes it once: a snapshot may replace it meanwhile, and what was begun
    /// ends on what it began with.
    pub(super) fn shared(&self) -> Arc<Shared> {
        self.store.read().clone()
    }

    /// The newest revision that readers may see.
    pub fn current(&self) -> Revision {
        Revision(self.store.read().published.load(Ordering::Acquire))
    }

    /// The revision of the last compaction; −1 if there was none, as in etcd. Reads below are refused, reads at it work.
    pub fn compacted(&self) -> Revision {
        Revision(self.store.read().compacted.load(Ordering::Acquire))
    }

    /// The bound of the last finished sweep, also over restarts; −1 if there was none.
    pub fn swept(&self) -> Revision {
        Revision(self.store.read().swept.load(Ordering::Acquire))
    }

    /// How many rows sweeps have removed since the store was opened.
    pub fn swept_rows(&self) -> u64 {
        self.store.read().swept_rows.load(Ordering::Relaxed)
    }

    /// Number of live keys. May be ahead of [`Reader::current`] by the write that is under way.
    pub fn keys_total(&self) -> usize {
        self.shared().state.read().index.live_total()
    }

    /// Bytes that rows beside their keys take, and may take: see [`super::Store::hold_rows`].
    pub fn rows_held(&self) -> (usize, usize) {
        let shared = self.shared();
        let state = shared.state.read();
        (state.index.hot.bytes(), state.index.hot.bytes_max())
    }

    /// Reads a range at one revision.
    ///
    /// The time depends on what is returned: at the current revision counting is cheap, and a limited read in the order of keys
    /// stops at its limit. In the past the whole range is walked to count it.
    ///
    /// # Errors
    /// [`Error::FutureRev`] above the current revision, [`Error::Compacted`] below the compacted one.
    pub fn range(&self, query: &RangeQuery) -> Result<Result<RangeResult, Error>, Fault> {
        self.range_within(query, &mut Unmetered)
    }

    /// The same, which asks `meter` for all that it takes: keys and values, and what it needs while it looks for them. If the number of keys is
    /// known beforehand it asks for their least before it looks for any.
    ///
    /// # Errors
    /// As [`Reader::range`], and those of `meter`.
    pub fn range_within(&self, query: &RangeQuery, meter: &mut dyn Meter) -> Result<Result<RangeResult, Error>, Fault> {
        let (pin, current, known) = match self.enter(query) {
            Ok(entered) => entered,
            Err(error) => return Ok(Err(error)),
        };
        let view = View {
            shared: &pin.shared,
            at: pin.revision,
            row: |stamp| match matches!(query.range, KeyRange::One(_)) {
                true => pin.shared.asked_for(stamp),
                false => pin.shared.row(stamp),
            },
        };
        view.range(query, current, known, meter)
    }

    /// Number of live keys in a range, as [`Reader::keys_total`]. Costs next to nothing.
    pub fn keys_in(&self, range: &KeyRange) -> usize {
        self.shared().state.read().index.count_live(range.bounds())
    }

    /// Keeps what is visible at `revision` (0 or less: the current one) from being swept until the pin is dropped.
    ///
    /// # Errors
    /// [`Error::FutureRev`] above the current revision, [`Error::Compacted`] below the compacted one.
    pub fn pin(&self, revision: Revision) -> Result<Pin, Error> {
        let shared = self.shared();
        let state = shared.state.read();
        let at = admit(revision, state.published, state.compacted)?;
        Ok(Pins::add(&shared, at))
    }

    /// Number of keys in `range` at the pinned revision.
    pub fn count(&self, pin: &Pin, range: &KeyRange) -> i64 {
        view(pin).count(range) as i64
    }

    /// The first keys of `range` at the pinned revision: at most `keys_max` (and never more than 10,000), about `bytes_max` bytes, but
    /// at least one. Goes on with [`Chunk::rest`]; works also after the pinned revision was compacted.
    pub fn chunk(&self, pin: &Pin, range: &KeyRange, keys_max: usize, bytes_max: usize) -> Result<Chunk, Fault> {
        // Bounded, so that a caller who thinks in bytes does not walk the whole range for each chunk.
        let keys_max = keys_max.clamp(1, CHUNK_KEYS_MAX);
        let found = view(pin).walk(range, keys_max, Direction::Ascending);
        let (mut kvs, mut bytes) = (Vec::new(), 0);
        for stamp in &found {
            if bytes >= bytes_max && !kvs.is_empty() {
                break;
            }
            let kv = pin.shared.row(*stamp)?;
            bytes += kv.key.len() + kv.value.len();
            kvs.push(kv);
        }
        let is_whole = kvs.len() == found.len() && found.len() < keys_max;
        let rest = kvs.last().filter(|_| !is_whole).and_then(|last| after(range, &last.key));
        Ok(Chunk { kvs, rest })
    }

    /// Checks and pins the revision of a query. What is cheap to know of the answer comes with it: a count is that of this very
    /// moment, since a write may be published before a walk begins.
    pub(super) fn enter(&self, query: &RangeQuery) -> Result<(Pin, i64, Known), Error> {
        let shared = &self.shared();
        let state = shared.state.read();
        let at = admit(query.revision, state.published, state.compacted)?;
        let known = Known::of(&state, &query.range, at, state.published, &state.unpublished);
        Ok((Pins::add(shared, at), state.published, known))
    }
}

/// What a pin holds.
fn view(pin: &Pin) -> View<'_, impl Fn(Stamp) -> Result<KeyValue, Fault>> {
    View { shared: &pin.shared, at: pin.revision, row: |stamp| pin.shared.row(stamp) }
}

/// What the index tells about an answer without a walk.
pub(super) enum Known {
    /// All of it: the range is one key. Perhaps its row, too.
    Key(Option<Stamp>, Option<Bytes>),
    /// The number of keys.
    Count(i64),
    /// The revision is of the past.
    Nothing,
}

impl Known {
    /// The index's counts are those of revision `newest`, once what `ahead` names is taken off.
    pub(super) fn of(state: &State, range: &KeyRange, at: i64, newest: i64, ahead: &[(Key, i8)]) -> Known {
        if let KeyRange::One(key) = range {
            let seen = state.index.see(key, at);
            return Known::Key(seen.map(|(stamp, _)| stamp), seen.and_then(|(_, row)| row.map(Bytes::copy_from_slice)));
        }
        if at != newest {
            return Known::Nothing;
        }
        let in_range = ahead.iter().filter(|(key, _)| range.contains(key));
        let ahead: i64 = in_range.map(|(_, change)| i64::from(*change)).sum();
        Known::Count(state.index.count_live(range.bounds()) as i64 - ahead)
    }
}

/// The revision that a request for `revision` reads.
pub(super) fn admit(revision: Revision, current: i64, compacted: i64) -> Result<i64, Error> {
    match revision.0 {
        ..=0 => Ok(current),
        at if at > current => Err(Error::FutureRev),
        at if at < compacted => Err(Error::Compacted),
        at => Ok(at),
    }
}

/// Whether a range of a transaction asks for a revision below 0 that etcd calls compacted. A range by itself reads the current
/// revision then; in a transaction etcd compares the number as it is, and its mark of compaction is −1 before the first.
pub fn is_before_any(revision: Revision, compacted: Revision) -> bool {
    revision.0 < 0 && revision < compacted
}

/// What is left of `range` after `key`, which is in it.
fn after(range: &KeyRange, key: &[u8]) -> Option<KeyRange> {
    let start: Bytes = [key, &[0]].concat().into();
    match range {
        KeyRange::One(_) => None,
        KeyRange::Span { end, .. } => Some(KeyRange::Span { start, end: end.clone() }),
        KeyRange::From(_) => Some(KeyRange::From(start)),
    }
}

impl RangeQuery {
    /// Whether a limit ends the walk, and not only the answer: in the order of keys, and unfiltered.
    pub fn walks_to_its_limit(&self) -> bool {
        self.target == SortTarget::Key && !self.has_filters()
    }

    pub(super) fn has_filters(&self) -> bool {
        [self.min_mod, self.max_mod, self.min_create, self.max_create].iter().any(|bound| *bound != 0)
    }

    pub(super) fn passes(&self, kv: &KeyValue) -> bool {
        let within =
            |revision: Revision, min: i64, max: i64| (min == 0 || revision.0 >= min) && (max == 0 || revision.0 <= max);
        within(kv.mod_revision, self.min_mod, self.max_mod)
            && within(kv.create_revision, self.min_create, self.max_create)
    }

    /// Sorts what came in the order of keys. Equal ones stay in that order.
    pub(super) fn sort(&self, kvs: &mut [KeyValue]) {
        let descends = self.order == SortOrder::Descend;
        kvs.sort_by(|a, b| {
            let (a, b) = if descends { (b, a) } else { (a, b) };
            match self.target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                SortTarget::Value => a.value.cmp(&b.value),
            }
        });
    }

    pub(super) fn strip(&self, kv: &mut KeyValue) {
        if !self.keys_only {
            return;
        }
        // Key and value are parts of one row: the key alone would keep all of it.
        if kv.value.len() > ROW_BYTES_KEPT {
            kv.key = Bytes::copy_from_slice(&kv.key);
        }
        kv.value = Bytes::new();
        if self.target != SortTarget::Value {
            kv.lease = LeaseId::NONE;
        }
    }
}

/// Values up to this are not worth a copy of their key.
const ROW_BYTES_KEPT: usize = 256;
