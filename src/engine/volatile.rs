//! The engine of what is never older than its process: copies of ranges. Rows in one map; what is deleted is gone at once.

use super::{Batch, Checkpoint, Engine, Result, Size, Table};
use bytes::Bytes;
use parking_lot::RwLock;
use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
};

/// What a row costs in memory beside its bytes, about: its place in the map, and the heads of two byte strings.
const ROW_BYTES: usize = 128;

/// Rows that a scan copies under one hold of the lock.
const SCAN_ROWS: usize = 1_024;

type Rows = BTreeMap<(Table, Bytes), Bytes>;

/// An engine in memory without a write buffer: a flush has nothing to do, and nothing outlives the process. Unlike
/// [`super::Memory`] it keeps no trace of deleted rows between flushes that nobody would call.
#[derive(Default)]
pub struct Volatile(RwLock<Held>);

#[derive(Default)]
struct Held {
    rows: Rows,
    bytes: usize,
}

fn cost(key: &Bytes, value: &Bytes) -> usize {
    key.len() + value.len() + ROW_BYTES
}

impl Volatile {
    /// Memory that the rows take, about.
    pub fn bytes(&self) -> usize {
        self.0.read().bytes
    }
}

impl Engine for Volatile {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.read().rows.get(&(table, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut start = range.0.map(Bytes::copy_from_slice);
        loop {
            // Not visited under the lock, so that the visitor may come back for more.
            let rows = self.0.read().chunk(table, &start, range.1);
            let last = (rows.len() == SCAN_ROWS).then(|| rows[SCAN_ROWS - 1].0.clone());
            for (key, value) in rows {
                if visit(&key, value).is_break() {
                    return Ok(());
                }
            }
            let Some(last) = last else { return Ok(()) };
            start = Bound::Excluded(last);
        }
    }

    fn write(&self, batch: Batch) -> Result<()> {
        let mut held = self.0.write();
        let Held { rows, bytes } = &mut *held;
        for (table, key, value) in batch.ops {
            let added = value.as_ref().map_or(0, |value| cost(&key, value));
            let old = match value {
                Some(value) => rows.insert((table, key.clone()), value),
                None => rows.remove(&(table, key.clone())),
            };
            *bytes = *bytes + added - old.map_or(0, |old| cost(&key, &old));
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn checkpoint(&self) -> Result<Box<dyn Checkpoint>> {
        let copy = super::Memory::default();
        let rows = self.0.read().rows.clone();
        copy.write(Batch { ops: rows.into_iter().map(|((table, key), value)| (table, key, Some(value))).collect() })?;
        copy.checkpoint()
    }

    fn size(&self) -> Result<Size> {
        let bytes = self.bytes() as u64;
        Ok(Size { file_bytes: bytes, used_bytes: bytes })
    }
}

impl Held {
    /// The first rows of a range.
    fn chunk(&self, table: Table, start: &Bound<Bytes>, end: Bound<&[u8]>) -> Vec<(Bytes, Bytes)> {
        let start = match start {
            Bound::Unbounded => Bound::Included((table, Bytes::new())),
            Bound::Included(key) => Bound::Included((table, key.clone())),
            Bound::Excluded(key) => Bound::Excluded((table, key.clone())),
        };
        let is_within = |key: &[u8]| match end {
            Bound::Unbounded => true,
            Bound::Included(end) => key <= end,
            Bound::Excluded(end) => key < end,
        };
        let rows = self.rows.range((start, Bound::Unbounded));
        rows.take_while(|((of, key), _)| *of == table && is_within(key))
            .take(SCAN_ROWS)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleted_and_replaced_rows_cost_nothing() {
        let engine = Volatile::default();
        let write = |ops: &[(&'static str, Option<&'static str>)]| {
            let ops = ops.iter().map(|(key, value)| (Table::Versions, Bytes::from(*key), value.map(Bytes::from)));
            engine.write(Batch { ops: ops.collect() }).unwrap();
        };
        write(&[("a", Some("1")), ("b", Some("22"))]);
        assert_eq!(engine.bytes(), 2 * ROW_BYTES + 5);
        write(&[("a", Some("333")), ("b", None), ("c", None)]);
        assert_eq!(engine.bytes(), ROW_BYTES + 4);
        write(&[("a", None)]);
        assert_eq!(engine.bytes(), 0);
    }

    #[test]
    fn a_visitor_may_come_back_for_more() {
        let engine = Volatile::default();
        let key = |number: usize| Bytes::from(format!("{number:05}"));
        let ops = (0..3 * SCAN_ROWS).map(|number| (Table::Versions, key(number), Some(Bytes::new()))).collect();
        engine.write(Batch { ops }).unwrap();
        let mut seen = 0;
        let visit = &mut |name: &[u8], _| {
            assert_eq!(name, key(seen));
            assert!(engine.get(Table::Versions, name).unwrap().is_some());
            engine.write(Batch { ops: vec![(Table::Versions, Bytes::copy_from_slice(name), None)] }).unwrap();
            seen += 1;
            ControlFlow::Continue(())
        };
        engine.scan(Table::Versions, (Bound::Unbounded, Bound::Unbounded), visit).unwrap();
        assert_eq!((seen, engine.bytes()), (3 * SCAN_ROWS, 0));
    }
}
