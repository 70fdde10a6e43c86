//! The write buffer in front of a durable store.
//!
//! A batch goes into the *active* generation and is visible at once. A flush freezes that generation, commits it as one transaction of
//! the store and drops it; writes meanwhile go into a new one. So a write costs no transaction, a slow flush stalls nobody, and what is
//! on disk is always the state after some whole batch.
//!
//! A row is looked for in the active generation, the frozen one and the store, in this order: rows move only in this direction, so none
//! is missed on the way.

use super::{Batch, Checkpoint, Engine, Pin, Result, Size, Store, Table};
use crate::types::Fault;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What a row costs in memory beside its bytes, about.
const ROW_BYTES: usize = 96;
/// Rows of one layer that a scan copies at a time.
const SCAN_ROWS: usize = 1_024;

/// How much may be unflushed.
#[derive(Clone, Default)]
pub(super) struct Bounds {
    /// `wake` is called when so much is unflushed; 0: never.
    pub(super) wake_bytes: usize,
    /// A write waits while more than this is unflushed; 0: never.
    pub(super) wait_bytes: usize,
    pub(super) wake: Option<Arc<dyn Fn() + Send + Sync>>,
}

type Rows = BTreeMap<Bytes, Option<Bytes>>;

/// Unflushed rows: the newest write of each key. `None` is a deletion, which hides the store's row.
#[derive(Default)]
struct Generation {
    tables: [Rows; Table::ALL.len()],
    bytes: usize,
}

impl Generation {
    fn rows(&self, table: Table) -> &Rows {
        &self.tables[table as usize - 1]
    }

    fn is_empty(&self) -> bool {
        self.tables.iter().all(Rows::is_empty)
    }

    /// Bytes by which the generation has grown.
    fn apply(&mut self, batch: Batch) -> usize {
        let before = self.bytes;
        for (table, key, value) in batch.ops {
            self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len) + ROW_BYTES;
            self.tables[table as usize - 1].insert(key, value);
        }
        self.bytes - before
    }
}

#[derive(Default)]
struct Layers {
    active: Generation,
    frozen: Option<Arc<Generation>>,
}

/// Lets one at a time change the store.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    /// A turn has ended.
    ended: Condvar,
}

#[derive(Default)]
struct GateState {
    taken: bool,
    /// Why a commit failed. What is on disk is not known then, so nothing may follow.
    broken: Option<String>,
}

/// The right to commit, or to hold commits back; given up when dropped.
struct Turn(Arc<Gate>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.state.lock().taken = false;
        self.0.ended.notify_all();
    }
}

/// A checkpoint that the next commit would change.
struct Held {
    checkpoint: Box<dyn Checkpoint>,
    _turn: Turn,
}

impl Checkpoint for Held {
    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<()> {
        self.checkpoint.scan(table, range, visit)
    }
}

/// An [`Engine`] made of a [`Store`].
pub(super) struct Overlay<S> {
    name: &'static str,
    store: S,
    bounds: Bounds,
    layers: RwLock<Layers>,
    pending: AtomicUsize,
    gate: Arc<Gate>,
}

impl<S: Store> Overlay<S> {
    pub(super) fn new(name: &'static str, store: S, bounds: Bounds) -> Overlay<S> {
        Overlay { name, store, bounds, layers: RwLock::default(), pending: AtomicUsize::new(0), gate: Arc::default() }
    }

    pub(super) fn store(&self) -> &S {
        &self.store
    }

    /// Waits while too much is unflushed. It takes a flush to end that, or a failure.
    fn wait_for_room(&self) -> Result<()> {
        let is_full = || self.bounds.wait_bytes > 0 && self.pending.load(Ordering::Acquire) > self.bounds.wait_bytes;
        let mut gate = self.gate.state.lock();
        self.refuse_if_broken(&gate, "write")?;
        while is_full() {
            self.gate.ended.wait(&mut gate);
            self.refuse_if_broken(&gate, "write")?;
        }
        Ok(())
    }

    /// Waits for a turn at the store.
    fn take_turn(&self, doing: &'static str) -> Result<Turn> {
        let mut gate = self.gate.state.lock();
        while gate.taken {
            self.gate.ended.wait(&mut gate);
        }
        self.refuse_if_broken(&gate, doing)?;
        gate.taken = true;
        Ok(Turn(Arc::clone(&self.gate)))
    }

    fn refuse_if_broken(&self, gate: &GateState, doing: &'static str) -> Result<()> {
        match &gate.broken {
            None => Ok(()),
            Some(cause) => Err(Fault::Engine {
                engine: self.name,
                doing,
                cause: format!("an earlier flush failed, so nothing more is written: {cause}"),
            }),
        }
    }

    /// The active generation becomes the frozen one. `None` if there is nothing to flush.
    fn freeze(&self) -> Option<Arc<Generation>> {
        let mut layers = self.layers.write();
        if layers.active.is_empty() {
            return None;
        }
        debug_assert!(layers.frozen.is_none(), "one flush at a time");
        let frozen = Arc::new(std::mem::take(&mut layers.active));
        layers.frozen = Some(Arc::clone(&frozen));
        Some(frozen)
    }

    fn commit(&self, turn: &Turn) -> Result<()> {
        let committed = self.commit_frozen();
        if let Err(fault) = &committed {
            turn.0.state.lock().broken = Some(fault.to_string());
        }
        committed
    }

    fn commit_frozen(&self) -> Result<()> {
        let Some(frozen) = self.freeze() else { return Ok(()) };
        let mut rows = Table::ALL
            .into_iter()
            .flat_map(|table| frozen.rows(table).iter().map(move |(key, value)| (table, &key[..], value.as_deref())));
        self.store.commit(&mut rows)?;
        self.layers.write().frozen = None;
        self.pending.fetch_sub(frozen.bytes, Ordering::AcqRel);
        Ok(())
    }

    /// Unflushed rows of a range from its start on, in order, and where the next chunk begins if there is more.
    fn chunk(&self, table: Table, range: (Bound<&[u8]>, Bound<&[u8]>)) -> Chunk {
        let layers = self.layers.read();
        let mut rows = Rows::new();
        let mut cut: Option<Bytes> = None;
        // The older layer first: what is newer replaces it.
        let generations = layers.frozen.as_deref().into_iter().chain([&layers.active]);
        for generation in generations {
            for (at, (key, value)) in generation.rows(table).range::<[u8], _>(range).enumerate() {
                rows.insert(key.clone(), value.clone());
                if at + 1 == SCAN_ROWS {
                    cut = Some(cut.map_or(key.clone(), |cut| cut.min(key.clone())));
                    break;
                }
            }
        }
        if let Some(cut) = &cut {
            // Beyond, one of the layers has not been looked at.
            let _ = rows.split_off::<[u8]>(&[cut, &[0][..]].concat());
        }
        Chunk { rows, cut }
    }
}

struct Chunk {
    rows: Rows,
    /// The last key that the chunk covers; `None`: to the end of the range.
    cut: Option<Bytes>,
}

impl<S: Store> Engine for Overlay<S> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        {
            let layers = self.layers.read();
            let frozen = layers.frozen.as_ref().and_then(|frozen| frozen.rows(table).get(key));
            if let Some(row) = layers.active.rows(table).get(key).or(frozen) {
                return Ok(row.clone());
            }
        }
        // A row that is in neither layer was in the store before they were looked at.
        self.store.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<()> {
        if is_empty(range) {
            return Ok(());
        }
        let (start, end) = range;
        let mut from: Option<Bytes> = None;
        loop {
            let start = from.as_deref().map_or(start, Bound::Excluded);
            // Layers before store, as in `get`.
            let Chunk { rows, cut } = self.chunk(table, (start, end));
            let end_here = cut.as_deref().map_or(end, Bound::Included);
            if merge(&self.store, table, (start, end_here), rows, visit)?.is_break() {
                return Ok(());
            }
            match cut {
                // A layer may hold keys after the cut, unless it is the last of the range.
                Some(cut) if !is_empty((Bound::Excluded(&cut), end)) => from = Some(cut),
                _ => return Ok(()),
            }
        }
    }

    fn write(&self, batch: Batch) -> Result<()> {
        self.wait_for_room()?;
        let (grown, bounds) = (self.layers.write().active.apply(batch), &self.bounds);
        let before = self.pending.fetch_add(grown, Ordering::AcqRel);
        if let Some(wake) = &bounds.wake
            && before < bounds.wake_bytes
            && before + grown >= bounds.wake_bytes
        {
            wake();
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let turn = self.take_turn("flush")?;
        self.commit(&turn)
    }

    fn checkpoint(&self) -> Result<Box<dyn Checkpoint>> {
        let turn = self.take_turn("take a checkpoint")?;
        self.commit(&turn)?;
        Ok(match self.store.pin()? {
            Pin::Free(checkpoint) => checkpoint,
            Pin::UntilCommit(checkpoint) => Box::new(Held { checkpoint, _turn: turn }),
        })
    }

    fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    fn size(&self) -> Result<Size> {
        self.store.size()
    }
}

/// Whether a range holds nothing, or is one that ordered maps refuse.
fn is_empty((start, end): (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => start >= end,
    }
}

/// Visits the rows of `store` in a range, with `newer` over them.
fn merge<S: Store>(
    store: &S,
    table: Table,
    range: (Bound<&[u8]>, Bound<&[u8]>),
    newer: Rows,
    visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let mut newer = newer.into_iter().peekable();
    let mut flow = ControlFlow::Continue(());
    store.scan(table, range, &mut |key, value| {
        while let Some((new_key, row)) = newer.next_if(|(new_key, _)| &new_key[..] < key) {
            if let Some(row) = row {
                flow = visit(&new_key, row);
                if flow.is_break() {
                    return flow;
                }
            }
        }
        flow = match newer.next_if(|(new_key, _)| &new_key[..] == key) {
            Some((_, None)) => ControlFlow::Continue(()),
            Some((_, Some(row))) => visit(key, row),
            None => visit(key, value),
        };
        flow
    })?;
    if flow.is_continue() {
        for (key, row) in newer {
            if let Some(row) = row
                && visit(&key, row).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(flow)
}
