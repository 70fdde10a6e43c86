//! A copy of one range beside the store that it repeats.

use super::{
    model::{Write, distinct, name, query, run_writes, span, write},
    *,
};
use crate::engine::Volatile;
use proptest::prelude::*;

/// The copied keys: neither the first nor the last of those that are written.
const FIRST: u8 = 3;
const END: u8 = 9;

struct Copy {
    engine: Arc<Volatile>,
    store: Store,
}

fn covered() -> KeyRange {
    span(FIRST, END)
}

impl Copy {
    /// As `bench` is now, in pages of two keys.
    fn load(bench: &Bench) -> Copy {
        let found = bench.range(RangeQuery::new(covered())).unwrap();
        let engine = Arc::new(Volatile::default());
        let mut loader = Loader::new(engine.clone(), found.revision);
        found.kvs.chunks(2).for_each(|page| loader.add(page).unwrap().unwrap());
        Copy { engine, store: loader.finish().unwrap() }
    }

    fn feed(&mut self, revision: Revision, events: Vec<Event>) -> Result<Vec<Event>, Diverged> {
        let mut batch = Batch::default();
        let events = self.store.repeat(revision, events, &mut batch).unwrap()?;
        self.engine.write(batch).unwrap();
        self.store.publish();
        Ok(events)
    }

    fn compact(&mut self, at: i64) {
        let mut batch = Batch::default();
        if self.store.compact(Revision(at), &mut batch).is_ok() {
            self.engine.write(batch).unwrap();
        }
    }

    fn history(&self, from: Revision) -> Vec<(Revision, Vec<Event>)> {
        let reader = self.store.reader();
        reader.history(from, Revision(i64::MAX), &|_| true, true, usize::MAX).unwrap().unwrap().events
    }
}

/// What the wire carries of events that concern the copy.
fn covered_events(events: &[Event]) -> Vec<Event> {
    let within = events.iter().filter(|event| covered().contains(&event.kv.key));
    within.map(|event| Event { prev: None, ..event.clone() }).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Txn(Vec<Write>),
    Load,
    /// How far below the copy's revision.
    Compact(i64),
    Sweep(usize),
    /// The range by first and last number, the revision by how far it is below the current one.
    Range(RangeQuery, (u8, u8), i64),
}

fn step() -> impl Strategy<Value = Step> {
    let range = (query(), (FIRST..END, FIRST..=END), -1..12_i64);
    prop_oneof![
        8 => prop::collection::vec(write(), 0..4).prop_map(Step::Txn),
        1 => Just(Step::Load),
        1 => (0..6_i64).prop_map(Step::Compact),
        2 => (1..4_usize).prop_map(Step::Sweep),
        10 => range.prop_map(|(query, range, below)| Step::Range(query, range, below)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn a_copy_of_a_range_answers_as_the_store_that_it_repeats(steps in prop::collection::vec(step(), 1..80)) {
        let mut bench = Bench::new();
        let mut copy = Copy::load(&bench);
        let mut first = bench.store.current();
        let mut told: Vec<(Revision, Vec<Event>)> = Vec::new();
        for step in steps {
            match step {
                Step::Txn(writes) => {
                    let events = bench.write(|txn| run_writes(txn, &distinct(writes)));
                    let own = covered_events(&events);
                    let expected: Vec<Event> =
                        events.into_iter().filter(|event| covered().contains(&event.kv.key)).collect();
                    let now = bench.store.current();
                    if own.is_empty() {
                        copy.store.advance(now);
                        copy.store.publish();
                    } else {
                        prop_assert_eq!(copy.feed(now, own).unwrap(), expected.clone());
                        told.push((now, expected));
                    }
                }
                Step::Load => {
                    copy = Copy::load(&bench);
                    (first, told) = (bench.store.current(), Vec::new());
                }
                Step::Compact(below) => copy.compact(copy.store.current().0 - below),
                Step::Sweep(rows) => drop(copy.store.reader().compact_step(rows).unwrap()),
                Step::Range(query, (from, to), below) => {
                    let range = if from <= to { span(from, to) } else { span(to, from) };
                    let at = bench.store.current().0 - below;
                    let query = RangeQuery { range, revision: Revision(at.max(0)), ..query };
                    let compacted = copy.store.compacted();
                    let expected = match query.revision {
                        Revision(1..) if query.revision < compacted => Err(Error::Compacted),
                        _ => bench.range(query.clone()),
                    };
                    prop_assert_eq!(copy.store.reader().range(&query).unwrap(), expected);
                }
            }
            prop_assert_eq!(copy.store.current(), bench.store.current());
            copy.store.shared.state.read().index.check();
        }
        // History that begins after the first revision is whole, with what was replaced unless that was compacted.
        let from = first.next().max(copy.store.compacted());
        let mut expected = told;
        expected.retain(|(revision, _)| *revision >= from);
        let mut seen = copy.history(from);
        for (revision, events) in seen.iter_mut().chain(&mut expected) {
            events.iter_mut().filter(|_| *revision == copy.store.compacted()).for_each(|event| event.prev = None);
        }
        prop_assert_eq!(seen, expected);
    }
}

fn put(key: u8, version: i64, created: i64, at: i64) -> Event {
    let kv = KeyValue {
        key: name(key),
        value: Bytes::from_static(b"v"),
        create_revision: Revision(created),
        mod_revision: Revision(at),
        version,
        lease: LeaseId::NONE,
    };
    Event { kind: EventKind::Put, kv, prev: None }
}

fn delete(key: u8, at: i64) -> Event {
    let kv = KeyValue { key: name(key), mod_revision: Revision(at), ..KeyValue::default() };
    Event { kind: EventKind::Delete, kv, prev: None }
}

#[test]
fn what_does_not_follow_is_refused_and_leaves_no_trace() {
    let mut copy = Copy::load(&Bench::new());
    copy.feed(Revision(7), vec![put(4, 1, 7, 7), put(5, 1, 7, 7)]).unwrap();
    let before = copy.store.reader().range(&RangeQuery::default()).unwrap();
    let wrong = [
        (7, vec![put(4, 2, 7, 7)], "was there already"),
        (8, vec![put(4, 2, 7, 9)], "has an event of another one"),
        (8, vec![put(5, 2, 7, 8), put(4, 3, 7, 8)], "does not follow from the version that is here"),
        (8, vec![put(6, 2, 4, 8)], "does not follow from the version that is here"),
        (8, vec![delete(4, 8), put(4, 2, 7, 8)], "does not follow from the version that is here"),
        (8, vec![delete(4, 8), delete(4, 8)], "deletes what is not here"),
    ];
    for (revision, events, what) in wrong {
        assert_eq!(copy.feed(Revision(revision), events).unwrap_err().what, what);
        assert_eq!(copy.store.reader().range(&RangeQuery::default()).unwrap(), before);
        assert_eq!(copy.store.current(), Revision(7));
    }
    copy.feed(Revision(8), vec![delete(4, 8), put(5, 2, 7, 8)]).unwrap();
    assert_eq!(copy.store.reader().keys_total(), 1);
}

#[test]
fn pages_out_of_order_or_from_the_future_are_refused() {
    let page = |events: &[Event]| events.iter().map(|event| event.kv.clone()).collect::<Vec<_>>();
    let load = |pages: &[Vec<KeyValue>]| {
        let mut loader = Loader::new(Arc::new(Volatile::default()), Revision(9));
        pages.iter().try_for_each(|page| loader.add(page).unwrap()).map_err(|diverged| diverged.what)
    };
    assert_eq!(load(&[page(&[put(1, 1, 3, 3)]), page(&[put(2, 4, 3, 9)])]), Ok(()));
    assert_eq!(load(&[page(&[put(2, 1, 3, 3)]), page(&[put(2, 1, 3, 3)])]), Err("is not in the order of keys"));
    for wrong in [put(1, 1, 3, 10), put(1, 0, 3, 3), put(1, 1, 4, 3), put(1, 1, 0, 3)] {
        assert_eq!(load(&[page(&[wrong])]), Err("cannot be in a state that old"));
    }
}

#[test]
fn a_lease_comes_with_its_key() {
    let mut bench = Bench::new();
    bench.write(|txn| drop(txn.put(name(4), key("v"), LeaseId(77)).unwrap()));
    let copy = Copy::load(&bench);
    let found = copy.store.reader().range(&RangeQuery::new(KeyRange::One(name(4)))).unwrap().unwrap();
    assert_eq!(found.kvs[0].lease, LeaseId(77));
}
