//! Ranges at one revision, in bounded steps.

use super::{HashKv, History, Pin, record::KeyValue};
use crate::types::{Error, Fault, KeyRange, Revision};

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
    /// Leave the values out. Sorting by value still works.
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
pub struct Reader {}

impl Reader {
    /// The newest revision that readers may see.
    pub fn current(&self) -> Revision {
        todo!()
    }

    /// The revision of the last compaction; −1 if there was none, as in etcd. Reads below are refused, reads at it work.
    pub fn compacted(&self) -> Revision {
        todo!()
    }

    /// The last finished sweep; −1 if there was none.
    pub fn swept(&self) -> Revision {
        todo!()
    }

    /// Number of keys at the current revision.
    pub fn keys_total(&self) -> usize {
        todo!()
    }

    /// Reads a range.
    pub fn range(&self, query: &RangeQuery) -> Result<Result<RangeResult, Error>, Fault> {
        todo!("{query:?}")
    }

    /// Keeps what is visible at `revision` (0 or less: the current one) from being swept until the pin is dropped.
    pub fn pin(&self, revision: Revision) -> Result<Pin, Error> {
        todo!("{revision:?}")
    }

    /// Number of keys in `range` at the pinned revision.
    pub fn count(&self, pin: &Pin, range: &KeyRange) -> i64 {
        todo!("{range:?} {}", pin.revision())
    }

    /// The first keys of `range` at the pinned revision: at most `keys_max`, and about `bytes_max` bytes (at least one key).
    pub fn chunk(&self, pin: &Pin, range: &KeyRange, keys_max: usize, bytes_max: usize) -> Result<Chunk, Fault> {
        todo!("{range:?} {keys_max} {bytes_max} {}", pin.revision())
    }

    /// Events with `from` <= revision <= `upto` whose key is `wanted`.
    pub fn history(
        &self,
        from: Revision,
        upto: Revision,
        wanted: &dyn Fn(&[u8]) -> bool,
        with_prev: bool,
        bytes_max: usize,
    ) -> Result<Result<History, Error>, Fault> {
        let _ = wanted;
        todo!("{from} {upto} {with_prev} {bytes_max}")
    }

    /// etcd's hash of the key space at a revision.
    pub fn hash_kv(&self, at: Revision) -> Result<Result<HashKv, Error>, Fault> {
        todo!("{at}")
    }

    /// A hash of everything in the engine.
    pub fn hash_all(&self) -> Result<u32, Fault> {
        todo!()
    }

    /// One bounded step of the background sweep.
    pub fn compact_step(&self, rows_max: usize) -> Result<bool, Fault> {
        todo!("{rows_max}")
    }
}
