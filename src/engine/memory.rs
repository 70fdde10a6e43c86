//! The engine without a disk: for tests and simulation, and the reference for the others.

use super::{
    Batch, Checkpoint, Engine, Home, Pin, Result, Rows, Size, Store, Table,
    overlay::{Bounds, Overlay},
};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::Arc,
};

/// An engine in memory. What a flush makes "durable" is what [`Memory::crash`] leaves.
pub struct Memory(Overlay<Map>);

impl Default for Memory {
    fn default() -> Memory {
        Memory(Overlay::new("memory", Map::default(), Bounds::default()))
    }
}

impl Memory {
    /// The engine as it would be found after a power cut now: the state at the last flush.
    pub fn crash(&self) -> Memory {
        let rows = Arc::clone(&self.0.store().0.read());
        Memory(Overlay::new("memory", Map(RwLock::new(rows)), Bounds::default()))
    }
}

impl Engine for Memory {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<()> {
        self.0.scan(table, range, visit)
    }

    fn write(&self, batch: Batch) -> Result<()> {
        self.0.write(batch)
    }

    fn flush(&self) -> Result<()> {
        self.0.flush()
    }

    fn checkpoint(&self) -> Result<Box<dyn Checkpoint>> {
        self.0.checkpoint()
    }

    fn pending(&self) -> usize {
        self.0.pending()
    }

    fn size(&self) -> Result<Size> {
        self.0.size()
    }
}

/// A [`Home`] in memory.
#[derive(Default)]
pub struct MemoryHome(Mutex<Stores>);

#[derive(Default)]
struct Stores {
    present: Arc<Memory>,
    staged: Option<Arc<Memory>>,
    is_sealed: bool,
    is_distrusted: bool,
}

impl MemoryHome {
    /// The home of a store that is there already.
    pub fn of(present: Arc<Memory>) -> MemoryHome {
        MemoryHome(Mutex::new(Stores { present, ..Stores::default() }))
    }

    /// The home as it would be found after a power cut now.
    pub fn crash(&self) -> MemoryHome {
        let stores = self.0.lock();
        let staged = stores.staged.as_ref().filter(|_| stores.is_sealed).map(|staged| Arc::new(staged.crash()));
        let (present, is_sealed) = (Arc::new(stores.present.crash()), staged.is_some());
        MemoryHome(Mutex::new(Stores { present, staged, is_sealed, is_distrusted: stores.is_distrusted }))
    }
}

impl Home for MemoryHome {
    fn open(&self) -> Result<Arc<dyn Engine>> {
        Ok(self.0.lock().present.clone())
    }

    fn stage(&self) -> Result<Arc<dyn Engine>> {
        let mut stores = self.0.lock();
        let staged = Arc::new(Memory::default());
        (stores.staged, stores.is_sealed) = (Some(staged.clone()), false);
        Ok(staged)
    }

    fn seal(&self) -> Result<()> {
        self.0.lock().is_sealed = true;
        Ok(())
    }

    fn sealed(&self) -> Result<Option<Arc<dyn Engine>>> {
        let stores = self.0.lock();
        let staged = stores.staged.clone().filter(|_| stores.is_sealed);
        Ok(staged.map(|staged| staged as Arc<dyn Engine>))
    }

    fn install(&self) -> Result<Arc<dyn Engine>> {
        let mut stores = self.0.lock();
        assert!(stores.is_sealed, "only a whole store is installed");
        stores.present = stores.staged.take().expect("sealed after it was staged");
        (stores.is_sealed, stores.is_distrusted) = (false, false);
        Ok(stores.present.clone())
    }

    fn discard(&self) -> Result<()> {
        let mut stores = self.0.lock();
        (stores.staged, stores.is_sealed) = (None, false);
        Ok(())
    }

    fn distrust(&self) -> Result<()> {
        self.0.lock().is_distrusted = true;
        Ok(())
    }

    fn trust(&self) -> Result<()> {
        self.0.lock().is_distrusted = false;
        Ok(())
    }

    fn is_distrusted(&self) -> Result<bool> {
        Ok(self.0.lock().is_distrusted)
    }
}

/// Rows that a disk would hold. A commit copies the map while somebody else reads this state of it.
type Disk = Arc<BTreeMap<(Table, Bytes), Bytes>>;
#[derive(Default)]
struct Map(RwLock<Disk>);

impl Store for Map {
    fn commit(&self, rows: Rows<'_>) -> Result<()> {
        let mut map = self.0.write();
        let map = Arc::make_mut(&mut map);
        for (table, key, value) in rows {
            let key = (table, Bytes::copy_from_slice(key));
            match value {
                Some(value) => map.insert(key, Bytes::copy_from_slice(value)),
                None => map.remove(&key),
            };
        }
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.read().get(&(table, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<()> {
        // Not under the lock, so that the visitor may come back for more.
        let rows = Arc::clone(&self.0.read());
        rows.scan(table, range, visit)
    }

    fn pin(&self) -> Result<Pin> {
        Ok(Pin::Free(Box::new(Arc::clone(&self.0.read()))))
    }

    fn size(&self) -> Result<Size> {
        let rows = self.0.read();
        let bytes = rows.iter().map(|((_, key), value)| (key.len() + value.len()) as u64).sum();
        Ok(Size { file_bytes: bytes, used_bytes: bytes })
    }
}

impl Checkpoint for Disk {
    fn scan(
        &self,
        table: Table,
        (start, end): (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<()> {
        let start = match start {
            Bound::Unbounded => Bound::Included((table, Bytes::new())),
            bound => bound.map(|key| (table, Bytes::copy_from_slice(key))),
        };
        let is_within = |key: &[u8]| match end {
            Bound::Unbounded => true,
            Bound::Included(end) => key <= end,
            Bound::Excluded(end) => key < end,
        };
        let rows = self.range((start, Bound::Unbounded));
        let _ = rows
            .take_while(|((of, key), _)| *of == table && is_within(key))
            .try_for_each(|((_, key), value)| visit(key, value.clone()));
        Ok(())
    }
}
