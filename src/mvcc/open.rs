//! The index, rebuilt from the rows.

use super::{
    NEVER, Shared, State, chunk, compact,
    compact::Sweep,
    damaged,
    index::Index,
    key_index::{Generation, KeyIndex, Sketch},
    pin::Pins,
    record::{self, RowKey, Stamp},
};
use crate::{
    engine::{Engine, Table},
    types::{Fault, Key, LeaseId},
};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::HashMap,
    ops::{Bound, ControlFlow},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64},
    },
};

/// What the rows of an engine say.
pub(super) struct Opened {
    pub(super) shared: Arc<Shared>,
    pub(super) current: i64,
    pub(super) leased: Vec<(Key, LeaseId)>,
}

/// See [`super::Store::open`].
pub(super) fn open(engine: Arc<dyn Engine>) -> Result<Opened, Fault> {
    let compacted = compact::compacted_mark(&*engine)?.unwrap_or(NEVER);
    let swept = compact::swept_mark(&*engine)?.unwrap_or(NEVER);
    // A sweep leaves the newest rows alone, so the last row is the last revision; unless everything up to the mark is gone, in
    // an engine that lost rows but kept the mark. Either way the revision never goes down.
    let mut current = compacted.max(1);
    let mut keys = Keys::default();
    let mut wrong = None;
    // In one scan: nobody writes yet who could be held up, and rows that are gathered first are moved around once more.
    engine.scan(Table::Versions, (Bound::Unbounded, Bound::Unbounded), &mut |row_key, row| match stamp_of(row_key)
        .and_then(|stamp| add_row(&mut keys, stamp, &row).map(|()| stamp))
    {
        Ok(stamp) => {
            current = current.max(stamp.main);
            ControlFlow::Continue(())
        }
        Err(fault) => {
            wrong = Some(fault);
            ControlFlow::Break(())
        }
    })?;
    if let Some(fault) = wrong {
        return Err(fault);
    }
    let mut leased: Vec<_> = keys
        .iter()
        .filter(|(_, (entry, lease))| entry.is_live() && *lease != LeaseId::NONE)
        // A copy, because the row's memory would stay for as long as a slice of it.
        .map(|(key, (_, lease))| (Bytes::copy_from_slice(key), *lease))
        .collect();
    leased.sort_unstable();
    let sorted = sort(keys.into_iter().map(|(key, (entry, _))| entry.named(key)).collect());
    let state = State { index: Index::from_sorted(sorted), published: current, compacted, unpublished: Vec::new() };
    let shared = Shared {
        engine,
        state: RwLock::new(state),
        pins: Pins::default(),
        sweep: Mutex::new(Sweep::default()),
        published: AtomicI64::new(current),
        compacted: AtomicI64::new(compacted),
        swept: AtomicI64::new(swept),
        swept_rows: AtomicU64::new(0),
    };
    Ok(Opened { shared: Arc::new(shared), current, leased })
}

/// What is known of each key while the rows are read. The key stands in the map only, so the entry's is empty. A million keys are hashed
/// at every start, by a quick hash with a secret of this process.
type Keys = HashMap<Box<[u8]>, (KeyIndex, LeaseId), foldhash::fast::RandomState>;

fn add_row(keys: &mut Keys, stamp: Stamp, row: &Bytes) -> Result<(), Fault> {
    let kv = record::decode(row).ok_or_else(|| damaged(stamp, "has a row that is no mvccpb.KeyValue"))?;
    if !stamp.tombstone && kv.mod_revision.0 != stamp.main {
        return Err(damaged(stamp, "has the row of another revision"));
    }
    let generation = Generation { created: kv.create_revision.0, version: kv.version };
    let sketch = Sketch::of(kv.value.len(), kv.lease);
    match keys.get_mut(&*kv.key) {
        Some((entry, lease)) => {
            entry.push(stamp, generation, sketch);
            *lease = kv.lease;
        }
        None => {
            let entry = KeyIndex::new(Box::default(), stamp, generation, sketch);
            keys.insert(Box::from(&*kv.key), (entry, kv.lease));
        }
    }
    Ok(())
}

/// Sorts by key; by the heads of keys first, which lie in the vector itself.
fn sort(mut keys: Vec<KeyIndex>) -> Vec<KeyIndex> {
    let Some(first) = keys.first().map(|entry| entry.key.clone()) else { return keys };
    let shared_with = |entry: &KeyIndex| entry.key.iter().zip(&first).take_while(|(a, b)| a == b).count();
    let shared = keys.iter().map(shared_with).min().unwrap_or(0);
    let mut keyed: Vec<(u64, KeyIndex)> =
        keys.drain(..).map(|entry| (chunk::head(&entry.key, shared), entry)).collect();
    keyed.sort_unstable_by(|(a_head, a), (b_head, b)| a_head.cmp(b_head).then_with(|| a.key.cmp(&b.key)));
    keyed.into_iter().map(|(_, entry)| entry).collect()
}

/// Up to `max` rows after row `after`, with main revisions up to `upto`. One scan; long walks make many.
pub(super) fn read_rows(
    engine: &dyn Engine,
    after: &[u8],
    upto: i64,
    max: usize,
) -> Result<Vec<(Stamp, Bytes)>, Fault> {
    let end = upto.checked_add(1).map(RowKey::before);
    if end.as_deref().is_some_and(|end| end <= after) {
        return Ok(Vec::new());
    }
    let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut rows = Vec::new();
    let mut alien = None;
    engine.scan(Table::Versions, (Bound::Excluded(after), end), &mut |key, value| {
        match stamp_of(key) {
            Ok(stamp) => rows.push((stamp, value)),
            Err(fault) => alien = Some(fault),
        }
        if rows.len() >= max || alien.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    alien.map_or(Ok(rows), Err)
}

fn stamp_of(row_key: &[u8]) -> Result<Stamp, Fault> {
    Stamp::of_row(row_key).ok_or_else(|| {
        let what = format!("the row key {row_key:02x?} is no revision; refill this member from the others");
        Fault::Damaged { path: "the key space".into(), offset: None, what }
    })
}
