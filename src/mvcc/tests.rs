//! The room as a whole: claims about single behaviours, a comparison with a model, and readers beside a writer.

mod hashes;
mod metered;
mod model;
mod repeat;

use super::*;
use crate::{
    engine::{Checkpoint, Memory},
    types::KeyRange,
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
};

/// An engine that also remembers its batches, so that a test can go back to any crash.
#[derive(Default)]
pub(super) struct Recording {
    tables: RwLock<BTreeMap<(Table, Bytes), Bytes>>,
    batches: Mutex<Vec<Batch>>,
}

impl Recording {
    pub(super) fn replay(batches: &[Batch]) -> Arc<Recording> {
        let engine = Arc::new(Recording::default());
        batches.iter().for_each(|batch| engine.write(batch.clone()).unwrap());
        engine
    }
}

impl Engine for Recording {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.tables.read().get(&(table, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let own = |bound: Bound<&[u8]>| bound.map(|key| (table, Bytes::copy_from_slice(key)));
        let from = match own(range.0) {
            Bound::Unbounded => Bound::Included((table, Bytes::new())),
            bound => bound,
        };
        let tables = self.tables.read();
        for ((_, key), value) in tables.range((from, own(range.1))).take_while(|((of, _), _)| *of == table) {
            if visit(key, value.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, batch: Batch) -> Result<(), Fault> {
        let mut tables = self.tables.write();
        for (table, key, value) in batch.ops.iter().cloned() {
            match value {
                Some(value) => tables.insert((table, key), value),
                None => tables.remove(&(table, key)),
            };
        }
        self.batches.lock().push(batch);
        Ok(())
    }

    fn flush(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn checkpoint(&self) -> Result<Box<dyn Checkpoint>, Fault> {
        let copy = Memory::default();
        let ops =
            self.tables.read().iter().map(|((table, key), value)| (*table, key.clone(), Some(value.clone()))).collect();
        copy.write(Batch { ops })?;
        copy.checkpoint()
    }

    fn size(&self) -> Result<crate::engine::Size, Fault> {
        Ok(crate::engine::Size::default())
    }
}

fn key(name: &str) -> Key {
    Bytes::copy_from_slice(name.as_bytes())
}

fn all() -> KeyRange {
    KeyRange::From(Bytes::new())
}

/// A store with its engine, and shorthands.
struct Bench {
    engine: Arc<Recording>,
    store: Store,
}

impl Bench {
    fn new() -> Bench {
        Bench::on(Arc::default())
    }

    fn on(engine: Arc<Recording>) -> Bench {
        let store = Store::open(engine.clone()).unwrap();
        Bench { engine, store }
    }

    fn write(&mut self, writes: impl FnOnce(&mut WriteTxn<'_>)) -> Vec<Event> {
        let mut txn = self.store.begin();
        writes(&mut txn);
        let mut batch = Batch::default();
        let (_, events) = txn.finish(&mut batch);
        self.engine.write(batch).unwrap();
        self.store.publish();
        events
    }

    fn put(&mut self, name: &str, value: &str) -> Vec<Event> {
        self.write(|txn| drop(txn.put(key(name), key(value), LeaseId::NONE).unwrap()))
    }

    fn delete(&mut self, name: &str) -> Vec<Event> {
        self.write(|txn| drop(txn.delete_range(&KeyRange::One(key(name))).unwrap()))
    }

    fn compact(&mut self, at: i64) -> Result<(), Error> {
        let mut batch = Batch::default();
        self.store.compact(Revision(at), &mut batch)?;
        self.engine.write(batch).unwrap();
        Ok(())
    }

    fn sweep(&self) {
        while self.store.reader().compact_step(2).unwrap() {}
    }

    fn reopen(&self) -> Bench {
        Bench::on(self.engine.clone())
    }

    fn range(&self, query: RangeQuery) -> Result<RangeResult, Error> {
        self.store.reader().range(&query).unwrap()
    }

    fn names(&self, query: RangeQuery) -> Vec<String> {
        self.range(query).unwrap().kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
    }

    fn history(&self, from: i64) -> Result<Vec<(i64, EventKind, Key)>, Error> {
        let reader = self.store.reader();
        let history = reader.history(Revision(from), Revision(i64::MAX), &|_| true, true, usize::MAX).unwrap()?;
        let flat = history.events.into_iter().flat_map(|(_, events)| events);
        Ok(flat.map(|event| (event.kv.mod_revision.0, event.kind, event.kv.key)).collect())
    }
}

fn at(revision: i64) -> RangeQuery {
    RangeQuery { revision: Revision(revision), ..RangeQuery::default() }
}

#[test]
fn a_fresh_store_is_at_revision_one_and_the_first_write_makes_two() {
    let mut bench = Bench::new();
    assert_eq!((bench.store.current(), bench.store.compacted()), (Revision(1), Revision(-1)));
    bench.put("a", "1");
    assert_eq!(bench.store.current(), Revision(2));
}

#[test]
fn deleting_nothing_and_writing_nothing_make_no_revision() {
    let mut bench = Bench::new();
    assert_eq!(bench.delete("a"), []);
    bench.write(|_| {});
    assert_eq!(bench.store.current(), Revision(1));
    assert!(bench.engine.tables.read().is_empty());
}

#[test]
fn writes_of_one_request_share_the_revision_and_count_sub_upwards() {
    let mut bench = Bench::new();
    bench.write(|txn| {
        txn.put(key("b"), key("1"), LeaseId::NONE).unwrap();
        txn.put(key("a"), key("2"), LeaseId::NONE).unwrap();
    });
    let events = bench.write(|txn| drop(txn.delete_range(&all()).unwrap()));
    assert_eq!(events.iter().map(|event| &event.kv.key[..]).collect::<Vec<_>>(), [b"a", b"b"]);
    assert_eq!(bench.store.current(), Revision(3));
    let rows: Vec<Stamp> =
        bench.engine.tables.read().keys().map(|(_, row_key)| Stamp::of_row(row_key).unwrap()).collect();
    let stamp = |main, sub, tombstone| Stamp { main, sub, tombstone };
    assert_eq!(rows, [stamp(2, 0, false), stamp(2, 1, false), stamp(3, 0, true), stamp(3, 1, true)]);
}

#[test]
fn version_counts_from_creation_and_deletion_ends_the_generation() {
    let mut bench = Bench::new();
    let mut seen = Vec::new();
    for step in ["put", "put", "delete", "put", "reopen", "put"] {
        match step {
            "put" => {
                let kv = bench.put("a", step).remove(0).kv;
                seen.push((kv.create_revision.0, kv.mod_revision.0, kv.version));
            }
            "delete" => drop(bench.delete("a")),
            _ => bench = bench.reopen(),
        }
    }
    assert_eq!(seen, [(2, 2, 1), (2, 3, 2), (5, 5, 1), (5, 6, 2)]);
}

#[test]
fn a_request_reads_its_own_writes_and_others_do_not_until_published() {
    let mut bench = Bench::new();
    bench.put("a", "old");
    let reader = bench.store.reader();
    let mut txn = bench.store.begin();
    let prev = txn.put(key("a"), key("new"), LeaseId::NONE).unwrap();
    assert_eq!(prev.unwrap().value, key("old"));
    txn.put(key("b"), key("1"), LeaseId::NONE).unwrap();
    assert_eq!(txn.get(b"a").unwrap().unwrap().value, key("new"));
    let own = txn.range(&RangeQuery::default()).unwrap().unwrap();
    assert_eq!((own.count, own.kvs.len(), own.revision), (2, 2, Revision(3)));
    let past = txn.range(&at(2)).unwrap().unwrap();
    assert_eq!((past.count, past.kvs[0].value.clone()), (1, key("old")));
    let mut batch = Batch::default();
    txn.finish(&mut batch);
    for query in [RangeQuery::default(), at(2), RangeQuery { count_only: true, ..RangeQuery::default() }] {
        let others = reader.range(&query).unwrap().unwrap();
        assert_eq!((others.count, others.revision), (1, Revision(2)));
    }
    assert_eq!(reader.range(&at(3)).unwrap(), Err(Error::FutureRev));
    bench.engine.write(batch).unwrap();
    bench.store.publish();
    assert_eq!(reader.range(&at(3)).unwrap().unwrap().count, 2);
}

#[test]
fn an_abandoned_request_leaves_no_trace() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    bench.put("b", "1");
    bench.delete("b");
    let before = bench.range(RangeQuery::default());
    let mut txn = bench.store.begin();
    txn.put(key("a"), key("2"), LeaseId(9)).unwrap();
    txn.put(key("b"), key("2"), LeaseId(9)).unwrap();
    txn.put(key("c"), key("2"), LeaseId(9)).unwrap();
    txn.delete_range(&all()).unwrap();
    txn.abandon();
    assert_eq!(bench.range(RangeQuery::default()), before);
    bench.shared_check();
    let kv = bench.put("a", "3").remove(0).kv;
    assert_eq!((kv.mod_revision, kv.version), (Revision(5), 2));
    assert_eq!(bench.put("c", "3").remove(0).kv.version, 1);
}

impl Bench {
    fn shared_check(&self) {
        let state = self.store.shared.state.read();
        state.index.check();
        assert!(state.unpublished.is_empty());
    }
}

#[test]
fn count_ignores_limit_and_filters_and_more_says_that_the_limit_cut() {
    let mut bench = Bench::new();
    ["a", "b", "c", "d"].iter().for_each(|name| drop(bench.put(name, "x")));
    let limited = |limit| bench.range(RangeQuery { limit, ..RangeQuery::default() }).unwrap();
    assert_eq!((limited(2).kvs.len(), limited(2).count, limited(2).more), (2, 4, true));
    assert_eq!((limited(4).kvs.len(), limited(4).count, limited(4).more), (4, 4, false));
    let filtered = bench.range(RangeQuery { limit: 1, min_mod: 3, max_mod: 4, ..RangeQuery::default() }).unwrap();
    assert_eq!((&filtered.kvs[0].key[..], filtered.kvs.len(), filtered.count, filtered.more), (&b"b"[..], 1, 4, true));
    let one = bench.range(RangeQuery { limit: 1, min_create: 5, ..RangeQuery::default() }).unwrap();
    assert_eq!((one.count, one.more), (4, false));
    let counted = bench.range(RangeQuery { count_only: true, limit: 1, ..RangeQuery::default() }).unwrap();
    assert_eq!((counted.kvs.len(), counted.count, counted.more), (0, 4, false));
    let reversed = KeyRange::Span { start: key("c"), end: key("a") };
    assert_eq!(bench.range(RangeQuery::new(reversed)).unwrap().count, 0);
}

#[test]
fn the_sort_comes_before_the_limit_and_keys_only_after_the_sort() {
    let mut bench = Bench::new();
    [("a", "3"), ("b", "1"), ("c", "2"), ("b", "1")].iter().for_each(|(name, value)| drop(bench.put(name, value)));
    let sorted = |target, order, limit| {
        bench.names(RangeQuery { target, order, limit, keys_only: true, ..RangeQuery::default() }).join("")
    };
    assert_eq!(sorted(SortTarget::Value, SortOrder::None, 2), "bc");
    assert_eq!(sorted(SortTarget::Value, SortOrder::Descend, 0), "acb");
    assert_eq!(sorted(SortTarget::Mod, SortOrder::Ascend, 0), "acb");
    assert_eq!(sorted(SortTarget::Create, SortOrder::Descend, 1), "c");
    assert_eq!(sorted(SortTarget::Version, SortOrder::None, 0), "acb");
    assert_eq!(sorted(SortTarget::Key, SortOrder::Descend, 2), "cb");
    assert_eq!(sorted(SortTarget::Key, SortOrder::None, 2), "ab");
    let result = bench.range(RangeQuery { keys_only: true, ..RangeQuery::default() }).unwrap();
    assert!(result.kvs.iter().all(|kv| kv.value.is_empty()));
}

#[test]
fn reads_at_the_compacted_revision_work_and_below_are_refused() {
    let mut bench = Bench::new();
    (0..4).for_each(|value| drop(bench.put("a", &value.to_string())));
    assert_eq!(bench.compact(6), Err(Error::FutureRev));
    bench.compact(4).unwrap();
    assert_eq!(bench.compact(4), Err(Error::Compacted));
    for swept in [false, true] {
        assert_eq!(bench.range(at(3)), Err(Error::Compacted));
        assert_eq!(bench.range(at(4)).unwrap().kvs[0].value, key("2"));
        assert_eq!(bench.range(at(6)), Err(Error::FutureRev));
        if !swept {
            bench.sweep();
        }
    }
    assert_eq!(bench.store.reader().swept(), Revision(4));
    assert_eq!(bench.engine.tables.read().keys().filter(|(table, _)| *table == Table::Versions).count(), 2);
}

#[test]
fn etcd_18667_what_a_request_reads_does_not_depend_on_the_sweep() {
    let run = |sweeps: bool| {
        let mut bench = Bench::new();
        (0..5).for_each(|value| drop(bench.put("a", &value.to_string())));
        bench.compact(4).unwrap();
        if sweeps {
            bench.sweep();
        }
        let txn = bench.store.begin();
        (1..8).map(|revision| txn.range(&at(revision)).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(run(false), run(true));
}

#[test]
fn etcd_18089_the_delete_at_the_compacted_revision_stays_in_history() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    bench.delete("a");
    bench.put("b", "1");
    bench.compact(3).unwrap();
    let expected = vec![(3, EventKind::Delete, key("a")), (4, EventKind::Put, key("b"))];
    for _ in 0..2 {
        assert_eq!(bench.history(3), Ok(expected.clone()));
        assert_eq!(bench.history(2), Err(Error::Compacted));
        bench.sweep();
        bench = bench.reopen();
    }
    bench.compact(4).unwrap();
    bench.sweep();
    assert_eq!(bench.history(4), Ok(expected[1..].to_vec()));
    assert_eq!(bench.store.reader().keys_total(), 1);
    assert!(bench.store.shared.state.read().index.find(b"a").is_none());
}

#[test]
fn etcd_17780_the_revision_never_goes_down_wherever_a_crash_hits() {
    let mut bench = Bench::new();
    for round in 0..4 {
        bench.put("a", "1");
        bench.put("b", "1");
        bench.delete("a");
        bench.delete("b");
        bench.compact(5 + 4 * round).unwrap();
        bench.sweep();
    }
    let batches = bench.engine.batches.lock().clone();
    let mut newest = 1;
    for crash in 0..=batches.len() {
        let rows = batches[..crash].iter().flat_map(|batch| &batch.ops);
        let written = rows.filter(|(table, _, value)| *table == Table::Versions && value.is_some());
        newest = written.map(|(_, row_key, _)| Stamp::of_row(row_key).unwrap().main).max().unwrap_or(newest);
        let mut after = Bench::on(Recording::replay(&batches[..crash]));
        assert_eq!(after.store.current(), Revision(newest), "after {crash} batches");
        after.sweep();
        assert_eq!(after.store.reader().swept(), after.store.compacted());
        after = after.reopen();
        assert_eq!(after.store.current(), Revision(newest), "after {crash} batches and a sweep");
    }
}

#[test]
fn a_pin_holds_the_sweep_but_not_the_compaction() {
    let mut bench = Bench::new();
    (0..4).for_each(|value| drop(bench.put("a", &value.to_string())));
    let reader = bench.store.reader();
    let pin = reader.pin(Revision(3)).unwrap();
    bench.compact(5).unwrap();
    bench.sweep();
    assert_eq!((reader.swept(), bench.range(at(3))), (Revision(3), Err(Error::Compacted)));
    let chunk = reader.chunk(&pin, &all(), 10, 1_000).unwrap();
    assert_eq!((chunk.kvs[0].value.clone(), chunk.rest), (key("1"), None));
    assert_eq!(reader.pin(Revision(4)).unwrap_err(), Error::Compacted);
    drop(pin);
    bench.sweep();
    assert_eq!(reader.swept(), Revision(5));
}

#[test]
fn chunks_of_a_range_join_to_the_whole() {
    let mut bench = Bench::new();
    (0..50).for_each(|number| drop(bench.put(&format!("k{number:02}"), "value")));
    let reader = bench.store.reader();
    let pin = reader.pin(Revision(0)).unwrap();
    bench.delete("k07");
    let range = KeyRange::Span { start: key("k03"), end: key("k40") };
    assert_eq!(reader.count(&pin, &range), 37);
    let whole = bench.range(RangeQuery { range: range.clone(), ..at(pin.revision().0) }).unwrap();
    for (keys_max, bytes_max) in [(1, 1), (7, 1_000), (100, 20), (100, 10_000)] {
        let (mut kvs, mut rest) = (Vec::new(), Some(range.clone()));
        while let Some(range) = rest {
            let chunk = reader.chunk(&pin, &range, keys_max, bytes_max).unwrap();
            kvs.extend(chunk.kvs);
            rest = chunk.rest;
        }
        assert_eq!(kvs, whole.kvs);
    }
}

#[test]
fn history_comes_in_whole_revisions_and_says_where_to_go_on() {
    let mut bench = Bench::new();
    for round in 0..10 {
        bench.write(|txn| {
            for name in ["a", "b", "c"] {
                txn.put(key(name), key(&round.to_string()), LeaseId::NONE).unwrap();
            }
        });
    }
    let reader = bench.store.reader();
    let (mut from, mut calls, mut seen) = (Revision(3), 0, Vec::new());
    while from <= Revision(9) {
        let part = reader.history(from, Revision(9), &|key| key != b"b", true, 1).unwrap().unwrap();
        seen.extend(part.events);
        from = part.next;
        calls += 1;
    }
    assert_eq!((from, calls), (Revision(10), 7));
    assert_eq!(seen.iter().map(|(revision, _)| revision.0).collect::<Vec<_>>(), (3..=9).collect::<Vec<_>>());
    for (revision, events) in &seen {
        assert_eq!(events.iter().map(|event| &event.kv.key[..]).collect::<Vec<_>>(), [b"a", b"c"]);
        assert!(events.iter().all(|event| event.prev.as_ref().unwrap().mod_revision.next() == *revision));
    }
    let beyond = reader.history(Revision(99), Revision(200), &|_| true, false, 1).unwrap().unwrap();
    assert_eq!((beyond.events.len(), beyond.next), (0, Revision(99)));
}

#[test]
fn leases_of_live_keys_are_found_when_opening() {
    let mut bench = Bench::new();
    bench.write(|txn| {
        for (name, lease) in [("b", 7), ("a", 7), ("c", 0), ("d", 8)] {
            txn.put(key(name), key("x"), LeaseId(lease)).unwrap();
        }
    });
    bench.delete("d");
    bench.put("a", "detached");
    let mut again = bench.reopen();
    assert_eq!(again.store.take_leased(), [(key("b"), LeaseId(7))]);
    assert_eq!(again.store.take_leased(), []);
}

#[test]
fn a_row_that_is_gone_or_alien_is_a_fault() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    let (_, row_key) = bench.engine.tables.read().keys().next().unwrap().clone();
    let mut batch = Batch::default();
    batch.delete(Table::Versions, row_key.clone());
    bench.engine.write(batch).unwrap();
    assert!(bench.store.reader().range(&RangeQuery::default()).is_err());
    for (row_key, value) in [(row_key, "\u{1}alien"), (key("alien"), "")] {
        let mut batch = Batch::default();
        batch.put(Table::Versions, row_key.clone(), key(value));
        let engine = Recording::replay(&[batch]);
        assert!(Store::open(engine).is_err(), "{row_key:?}");
    }
}

#[test]
fn readers_see_whole_revisions_while_writes_and_sweeps_go_on() {
    let mut bench = Bench::new();
    const KEYS: i64 = 20;
    let write_all = |bench: &mut Bench, round: i64| {
        bench.write(|txn| {
            for number in 0..KEYS {
                txn.put(key(&format!("k{number}")), key(&round.to_string()), LeaseId::NONE).unwrap();
            }
        });
    };
    write_all(&mut bench, 0);
    let reader = bench.store.reader();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut last = Revision(0);
                while !done.load(Ordering::Acquire) {
                    let result = reader.range(&RangeQuery::default()).unwrap().unwrap();
                    assert!(result.revision >= last, "revisions only grow");
                    assert_eq!((result.count, result.kvs.len()), (KEYS, KEYS as usize));
                    assert!(result.kvs.iter().all(|kv| kv.mod_revision == result.revision), "one revision, whole");
                    last = result.revision;
                    let from = reader.compacted();
                    if let Ok(history) = reader.history(from, last, &|_| true, true, 10_000).unwrap() {
                        assert!(history.events.iter().all(|(_, events)| events.len() == KEYS as usize));
                    }
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                reader.compact_step(7).unwrap();
            }
        });
        for round in 1..300 {
            write_all(&mut bench, round);
            if round % 3 == 0 {
                let at = bench.store.current().0 - 1;
                bench.compact(at).unwrap();
            }
            let mut txn = bench.store.begin();
            txn.delete_range(&all()).unwrap();
            txn.abandon();
        }
        done.store(true, Ordering::Release);
    });
    bench.sweep();
    bench.shared_check();
}
