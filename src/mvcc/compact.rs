//! The sweep: removes versions that nobody can read any more, in bounded steps.
//!
//! Two rows in `Meta` say where it stands: the mark of the last compaction, written with the command, and the bound of the last
//! finished sweep, written with the last rows of that sweep. After a restart between the two the sweep begins anew; removing rows
//! that are gone is no harm.

use super::{NEVER, Reader, STEP_KEYS, Shared};
use crate::{
    engine::{Batch, Engine, Table},
    types::{Fault, Revision},
};
use bytes::Bytes;
use parking_lot::RwLockWriteGuard;
use std::sync::atomic::Ordering;

/// Holds of the lock in one step of the sweep. Most keys have nothing to give, and a step that removes nothing deserves no rest.
const STEP_HOLDS: usize = 32;

const COMPACTED: &[u8] = b"mvcc-compacted";
const SWEPT: &[u8] = b"mvcc-swept";

/// A sweep in progress.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// The bound, and the key to go on from. `None` between two sweeps.
    walk: Option<(i64, Box<[u8]>)>,
}

/// How far the history of a store at rest is forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Revision of the last compaction: reads below are refused.
    pub compacted: Option<Revision>,
    /// Revision below which nothing superfluous is left.
    pub swept: Option<Revision>,
}

impl Marks {
    /// Reads the marks that `engine` holds.
    ///
    /// # Errors
    /// A broken store, or a row that is none of ours.
    pub fn load(engine: &dyn Engine) -> Result<Marks, Fault> {
        let read = |name| Ok(read_mark(engine, name)?.map(Revision));
        Ok(Marks { compacted: read(COMPACTED)?, swept: read(SWEPT)? })
    }

    /// The rows of a store that has none.
    pub fn save(self, batch: &mut Batch) {
        for (name, mark) in [(COMPACTED, self.compacted), (SWEPT, self.swept)] {
            if let Some(Revision(at)) = mark {
                batch.put(Table::Meta, name, Bytes::copy_from_slice(&at.to_be_bytes()));
            }
        }
    }
}

/// Records a compaction at `at`.
pub(super) fn record_mark(batch: &mut Batch, at: i64) {
    batch.put(Table::Meta, COMPACTED, Bytes::copy_from_slice(&at.to_be_bytes()));
}

/// The mark of the last compaction.
pub(super) fn compacted_mark(engine: &dyn Engine) -> Result<Option<i64>, Fault> {
    read_mark(engine, COMPACTED)
}

/// The bound of the last finished sweep.
pub(super) fn swept_mark(engine: &dyn Engine) -> Result<Option<i64>, Fault> {
    read_mark(engine, SWEPT)
}

fn read_mark(engine: &dyn Engine, name: &'static [u8]) -> Result<Option<i64>, Fault> {
    let Some(row) = engine.get(Table::Meta, name)? else { return Ok(None) };
    match row.as_ref().try_into() {
        Ok(bytes) => Ok(Some(i64::from_be_bytes(bytes))),
        Err(_) => {
            let what = format!("the mark {} is not a revision", String::from_utf8_lossy(name));
            Err(Fault::Damaged { path: "the key space".into(), offset: None, what })
        }
    }
}

impl Reader {
    /// One step of the sweep: removes at most about `rows_max` rows, or looks at 32,000 keys; holds up writers for a thousand keys
    /// at a time. `Ok(true)`: call again, there is more. `Ok(false)`: nothing to do until the next compaction, or, while
    /// [`Reader::swept`] is below [`Reader::compacted`], until a pin is dropped.
    ///
    /// Calls from several threads take turns.
    pub fn compact_step(&self, rows_max: usize) -> Result<bool, Fault> {
        let shared = &*self.shared();
        let mut sweep = shared.sweep.lock();
        let (bound, mut from) = match sweep.walk.take() {
            Some(walk) => walk,
            None => {
                let bound = shared.sweep_bound();
                if bound <= shared.swept.load(Ordering::Acquire) {
                    return Ok(false);
                }
                (bound, Box::default())
            }
        };
        let (mut removed, mut next) = (Vec::new(), None);
        for _ in 0..STEP_HOLDS {
            let mut state = shared.state.write();
            next = state.index.sweep(&from, bound, STEP_KEYS, rows_max.max(1), &mut removed);
            // Whoever waits goes first.
            RwLockWriteGuard::unlock_fair(state);
            match &next {
                Some(key) if removed.len() < rows_max => from.clone_from(key),
                _ => break,
            }
        }
        // The index goes first: whoever still finds a version there also finds its row, or has pinned it. After a crash between
        // the two the rows are in the index again.
        let mut batch = Batch::default();
        shared.swept_rows.fetch_add(removed.len() as u64, Ordering::Relaxed);
        for stamp in removed {
            batch.delete(Table::Versions, Bytes::copy_from_slice(&stamp.row_key()));
        }
        if next.is_none() {
            batch.put(Table::Meta, SWEPT, Bytes::copy_from_slice(&bound.to_be_bytes()));
        }
        if !batch.is_empty() {
            shared.engine.write(batch)?;
        }
        if next.is_none() {
            shared.swept.store(bound, Ordering::Release);
        }
        sweep.walk = next.map(|key| (bound, key));
        Ok(sweep.walk.is_some() || bound < shared.sweep_bound())
    }
}

impl Shared {
    /// How far a sweep that begins now may go. Pins that come later are at or above the mark, so they need not be asked again.
    fn sweep_bound(&self) -> i64 {
        let state = self.state.read();
        let lowest_pin = self.pins.lowest().unwrap_or(i64::MAX);
        // Unpublished versions may be taken back, and then what they hid is current again.
        state.compacted.min(state.published).min(lowest_pin).max(NEVER)
    }
}
