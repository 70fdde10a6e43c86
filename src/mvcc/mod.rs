//! Every version of every key, by revision: the heart of the state machine.
//!
//! **Promises.** Revisions only grow, also over compactions, crashes and restarts. Readers see whole revisions, and only
//! published ones. What a request gets depends on revisions and compaction marks alone, never on how far this member has swept.
//! No lock is held while the engine is read, and none for longer than about a thousand keys take.
//! **May not know** leases (beyond their number), users, requests, or the wire.
//!
//! One [`Store`] writes, any number of [`Reader`]s read:
//!
//! ```text
//!   Store::begin → WriteTxn: put, delete_range, range …     index changes at once, at a revision that nobody may see yet
//!     → finish(batch)       rows into the engine's batch
//!       → engine.write      rows can be read
//!         → Store::publish  readers see the revision
//! ```
//!
//! A *compaction* at R is a mark: reads below R are refused from then on. The *sweep* ([`Reader::compact_step`]) removes what
//! nobody can read any more, in small steps, whenever it gets to it. A [`Pin`] holds the sweep below the revision it names.
//!
//! Rows of newest versions may be held in memory beside their keys ([`Store::hold_rows`]); nobody can tell by what they read.
//!
//! A store may be a *copy* of a part of another one: then it does not count revisions but repeats those of the other ([`Loader`],
//! [`Store::repeat`], [`Store::advance`]).

mod chunk;
mod compact;
mod hash;
mod history;
mod hot;
mod index;
mod key_index;
mod listed;
mod open;
mod page;
mod pin;
mod read;
mod record;
mod repeat;
mod view;
mod write;

#[cfg(test)]
mod tests;

pub use compact::Marks;
pub use hash::HashKv;
pub use history::History;
pub use listed::RangeRows;
pub use pin::Pin;
pub use read::{Chunk, RangeQuery, RangeResult, Reader, SortOrder, SortTarget, is_before_any};
pub use record::{Event, EventKind, KeyValue, read_row, write_row};
pub use repeat::{Diverged, Loader};
pub use view::{Meter, Unmetered};
pub use write::{Replaced, WriteTxn};

use crate::{
    engine::{Batch, Engine, Table},
    types::{Error, Fault, Key, LeaseId, Revision},
};
use bytes::Bytes;
use compact::Sweep;
use index::Index;
use open::Opened;
use parking_lot::{Mutex, RwLock};
use pin::Pins;
use record::Stamp;
use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
};
use write::Prevs;

/// What is compacted or swept before the first compaction, as in etcd.
const NEVER: i64 = -1;

/// Keys that are looked at under one hold of the state's lock.
const STEP_KEYS: usize = 1_000;

/// What writer, readers and sweep share: the state of one engine. A snapshot of another member brings an engine of its own, and with
/// it another one of these.
struct Shared {
    engine: Arc<dyn Engine>,
    state: RwLock<State>,
    pins: Pins,
    sweep: Mutex<Sweep>,
    /// Copies of what is in `state`, for those who want no more than the number.
    published: AtomicI64,
    compacted: AtomicI64,
    swept: AtomicI64,
    /// Rows that sweeps have removed since this was opened.
    swept_rows: AtomicU64,
}

struct State {
    index: Index,
    /// The newest revision that readers may see. The index may already know later ones.
    published: i64,
    /// The mark of the last compaction.
    compacted: i64,
    /// Keys that writes after `published` created (+1) or deleted (−1): what the index's counts are ahead by.
    unpublished: Vec<(Key, i8)>,
}

impl Shared {
    /// The row of a version that must be there.
    fn row(&self, stamp: Stamp) -> Result<KeyValue, Fault> {
        decoded(stamp, &self.stored(stamp)?)
    }

    /// The row of a version that may have been swept.
    fn row_if_any(&self, stamp: Stamp) -> Result<Option<KeyValue>, Fault> {
        let row = self.engine.get(Table::Versions, &stamp.row_key())?;
        row.map(|row| decoded(stamp, &row)).transpose()
    }
}

fn decoded(stamp: Stamp, row: &Bytes) -> Result<KeyValue, Fault> {
    record::decode(row).ok_or_else(|| damaged(stamp, "has a row that is no mvccpb.KeyValue"))
}

fn damaged(stamp: Stamp, what: &str) -> Fault {
    let Stamp { main, sub, .. } = stamp;
    let what = format!("revision {main} (sub {sub}) {what}; refill this member from the others");
    Fault::Damaged { path: "the key space".into(), offset: None, what }
}

/// The writer's half of the store. There is one.
pub struct Store {
    shared: Arc<Shared>,
    /// Where readers find it.
    readers: Arc<RwLock<Arc<Shared>>>,
    /// The last finished revision; from `Shared`'s `published` on it waits for [`Store::publish`].
    current: i64,
    leased: Vec<(Key, LeaseId)>,
    prevs: Prevs,
}

impl Store {
    /// Rebuilds the index from the rows of `engine`.
    ///
    /// # Errors
    /// A [`Fault`] if the engine can't be read, or if a row is none of ours.
    pub fn open(engine: Arc<dyn Engine>) -> Result<Store, Fault> {
        let Opened { shared, current, leased } = open::open(engine)?;
        let readers = Arc::new(RwLock::new(shared.clone()));
        Ok(Store { readers, shared, current, leased, prevs: Prevs::Always })
    }

    /// Goes on with the rows of `engine`, which are those of a later moment of the same history. Readers that began before end on
    /// what they began with.
    ///
    /// # Errors
    /// As [`Store::open`]; the store is then as it was.
    pub fn replace(&mut self, engine: Arc<dyn Engine>) -> Result<(), Fault> {
        let Opened { shared, current, leased } = open::open(engine)?;
        let rows_held_max = self.shared.state.read().index.hot.bytes_max();
        shared.state.write().index.hold_rows(rows_held_max);
        *self.readers.write() = shared.clone();
        (self.shared, self.current, self.leased) = (shared, current, leased);
        Ok(())
    }

    /// From now on events of puts have what they replaced only while somebody wants it: whoever does counts itself in the number that
    /// is returned. It must be able to do without for a while, because what is on its way already will not have it.
    pub fn prevs_on_demand(&mut self) -> Arc<AtomicUsize> {
        let wanted = Arc::default();
        self.prevs = Prevs::WhileAny(Arc::clone(&wanted));
        wanted
    }

    /// From now on up to `bytes_max` bytes of rows are held in memory beside the keys; 0, as at the beginning: none.
    pub fn hold_rows(&mut self, bytes_max: usize) {
        self.shared.state.write().index.hold_rows(bytes_max);
    }

    /// The readers' half.
    pub fn reader(&self) -> Reader {
        Reader { store: self.readers.clone() }
    }

    /// The revision of the last finished write, published or not. A fresh store is at 1.
    pub fn current(&self) -> Revision {
        Revision(self.current)
    }

    /// The revision of the last compaction; −1 if there was none, as in etcd.
    pub fn compacted(&self) -> Revision {
        self.reader().compacted()
    }

    /// The live keys with a lease that [`Store::open`] came across, in the order of keys; empty when asked again.
    pub fn take_leased(&mut self) -> Vec<(Key, LeaseId)> {
        std::mem::take(&mut self.leased)
    }

    /// Begins the writes of one request. All rows of earlier ones must be in the engine by now.
    pub fn begin(&mut self) -> WriteTxn<'_> {
        WriteTxn::new(self)
    }

    /// Compacts logically: reads below `at` are refused from now on, and `batch` makes it last. The sweep is
    /// [`Reader::compact_step`].
    ///
    /// # Errors
    /// [`Error::Compacted`] at or below the last mark, [`Error::FutureRev`] above the current revision.
    pub fn compact(&mut self, at: Revision, batch: &mut Batch) -> Result<(), Error> {
        let mut state = self.shared.state.write();
        if at.0 <= state.compacted {
            return Err(Error::Compacted);
        }
        if at.0 > self.current {
            return Err(Error::FutureRev);
        }
        state.compacted = at.0;
        self.shared.compacted.store(at.0, Ordering::Release);
        compact::record_mark(batch, at.0);
        Ok(())
    }

    /// Makes all finished writes visible to readers. Call it once the engine has their rows.
    pub fn publish(&self) {
        let mut state = self.shared.state.write();
        state.published = self.current;
        state.unpublished.clear();
        self.shared.published.store(self.current, Ordering::Release);
    }
}
