//! The durable Raft log: what a member has promised to remember.
//!
//! **Promises.** What [`Wal::sync`] covered survives any crash. Every byte read is checked. [`Wal::open`] tells a torn tail (cut:
//! nobody was told about it) from a damaged middle (a [`Fault`]: this member stops, and never votes with a hole). After a
//! failed write or sync the log refuses everything: the system may have dropped the pages, and a retry would lie.
//! **May not know** what an entry means, who leads, or what time it is. The disk comes through [`crate::io::Disk`].
//!
//! ```text
//!   0000000000000000-0000000000000000.wal   crc 0 | metadata | mark (0, 0) | entries, hard states, marks ...
//!   0000000000000001-00000000000012ab.wal   crc   | metadata | hard state | mark | ...
//!                    ^ sequence       ^ first index      the last segment is open and preallocated, the others are sealed
//! ```
//! Files are etcd's, byte for byte, with one addition that its tools read over: the first batch after a sync starts with a
//! `crc` record. Such a *barrier* proves that all before it was synced, so that a record which does not check out in front of
//! one is known to be damaged, however much it looks like a torn write.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod reader;
mod record;
mod recover;
mod segment;
mod terms;
#[cfg(test)]
mod tests;
mod writer;

use crate::{
    io::Disk,
    types::{ConfState, Entry, Fault, HardState, Index, Term},
};
use bytes::Bytes;
use record::Encoder;
use segment::Segment;
use std::path::{Path, PathBuf};
use terms::Terms;
pub use writer::remove;

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment of this many bytes is full. The last append to it may go beyond.
    pub segment_bytes: u64,
    /// Never delete a segment.
    pub keep_all: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes: 64 << 20, keep_all: false }
    }
}

/// A snapshot record: the state machine's state stands for the log up to here.
///
/// If the log holds another entry here, or ends before, then the state came from another member, and the mark *empties* the log: nothing
/// that was in it counts any more, before the mark or after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Last index that the state contains.
    pub index: Index,
    /// Term of the entry at `index`.
    pub term: Term,
}

/// A torn write that was removed from the end of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub file: PathBuf,
    /// Where the log now ends in it.
    pub offset: u64,
    /// From there to the last byte that was not zero.
    pub bytes: u64,
}

/// What [`Wal::open`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// As given to [`Wal::create`].
    pub metadata: Bytes,
    /// The last one written; default if none was. Its commit index is at least that of a mark which emptied the log.
    pub hard_state: HardState,
    /// The latest mark whose index is committed.
    pub mark: Mark,
    /// Membership at `mark`; empty in logs of etcd before 3.5.
    pub conf_state: ConfState,
    /// Where `entries` begin: right after this. It is the index that was asked for, or, if later, that of a mark which emptied the
    /// log. In the second case the state that the mark stands for was to be taken over when the crash came, and still is.
    pub start: Index,
    /// The term at `start`, if the log tells. If the state machine was there in another term, then its state has superseded this log,
    /// and only its mark is missing: [`Wal::save_mark`] before anything else.
    pub start_term: Option<Term>,
    /// The entries after `start`, without a gap.
    pub entries: Vec<Entry>,
    /// The torn tail, if there was one.
    pub cut: Option<Cut>,
}

/// The log of one member, open for appending. One owner; dropping it syncs nothing.
pub struct Wal<D: Disk> {
    disk: D,
    dir: PathBuf,
    options: Options,
    metadata: Bytes,
    /// All segments by sequence; the last one is open.
    segments: Vec<Segment>,
    file: D::File,
    /// Where the next record goes in `file`.
    offset: u64,
    encoder: Encoder,
    /// The last hard state and mark written: each segment repeats them at its head, so that older ones can go.
    hard_state: HardState,
    mark: Mark,
    conf_state: ConfState,
    /// The live entries' terms, and where they end.
    terms: Terms,
    /// Up to where `file` is on the medium.
    synced: u64,
    /// Appended since the log was opened, in all segments.
    written_bytes: u64,
    /// Whether the next batch must start with a barrier: a sync came after the last one.
    barrier_due: bool,
    /// Whether the next segment stands ready, empty and preallocated, as `next.tmp`.
    prepared: Option<D::File>,
    /// What went wrong first. Set once, never cleared.
    broken: Option<&'static str>,
}

impl<D: Disk> Wal<D> {
    /// Makes a new log in `dir`, which must not exist or be empty. After a crash it is there whole or not at all.
    ///
    /// # Errors
    /// [`Fault::Unusable`] if `dir` holds a log already, [`Fault::Io`] from the disk.
    pub fn create(disk: D, dir: &Path, metadata: &[u8], options: Options) -> Result<Wal<D>, Fault> {
        writer::create(disk, dir, metadata, options)
    }

    /// Whether `dir` holds a log.
    pub fn exists(disk: &D, dir: &Path) -> Result<bool, Fault> {
        match disk.list(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            _ => Ok(!segment::list(disk, dir)?.is_empty()),
        }
    }

    /// Reads the log, cuts a torn tail, and returns the entries with an index above `from` (the last applied one).
    ///
    /// # Errors
    /// [`Fault::Damaged`] with file and offset for anything that a crash can't explain; `recover.rs` has the table.
    pub fn open(disk: D, dir: &Path, from: Index, options: Options) -> Result<(Wal<D>, Recovered), Fault> {
        recover::open(disk, dir, from, options)
    }

    /// As [`Wal::open`] without opening it: nothing in `dir` is changed. For the log of somebody else.
    ///
    /// # Errors
    /// As [`Wal::open`].
    pub fn read(disk: &D, dir: &Path, from: Index) -> Result<Recovered, Fault> {
        Ok(recover::load(disk, dir, from)?.recovered)
    }
}
