//! A comparison with the plainest possible store: each key's version at each revision, nothing removed, nothing clever.

use super::*;
use crate::pb::{etcdserverpb::RangeResponse, mvccpb};
use proptest::prelude::*;
use prost::Message;

type Versions = BTreeMap<(Key, Revision), Option<KeyValue>>;

/// What the store should be.
#[derive(Default)]
struct Model {
    /// `None` is a deletion.
    versions: Versions,
    current: i64,
    compacted: i64,
}

#[derive(Clone, Debug)]
pub(super) enum Write {
    Put(u8, u8),
    Delete(u8, u8),
}

#[derive(Clone, Debug)]
enum Step {
    Txn(Vec<Write>),
    Abandoned(Vec<Write>),
    /// How far below the current revision.
    Compact(i64),
    Sweep(usize),
    Reopen,
    Range(RangeQuery),
    Hash(i64),
}

pub(super) fn name(number: u8) -> Key {
    key(&format!("k{number:02}"))
}

pub(super) fn span(from: u8, to: u8) -> KeyRange {
    match (from, to) {
        (from, to) if from == to => KeyRange::One(name(from)),
        (from, 12..) => KeyRange::From(name(from)),
        (from, to) => KeyRange::Span { start: name(from), end: name(to) },
    }
}

pub(super) fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => (0..12_u8, any::<u8>()).prop_map(|(key, value)| Write::Put(key, value)),
        1 => (0..12_u8, 0..14_u8).prop_map(|(from, to)| Write::Delete(from, to)),
    ]
}

pub(super) fn query() -> impl Strategy<Value = RangeQuery> {
    let filter = || prop_oneof![3 => Just(0_i64), 1 => 1..20_i64];
    let target = prop_oneof![
        Just(SortTarget::Key),
        Just(SortTarget::Version),
        Just(SortTarget::Create),
        Just(SortTarget::Mod),
        Just(SortTarget::Value)
    ];
    let order = prop_oneof![Just(SortOrder::None), Just(SortOrder::Ascend), Just(SortOrder::Descend)];
    let what = (0..12_u8, 0..14_u8, -1..6_i64, -2..30_i64);
    let flags = (any::<bool>(), any::<bool>(), order, target);
    (what, flags, (filter(), filter(), filter(), filter())).prop_map(|(what, flags, filters)| RangeQuery {
        range: span(what.0, what.1),
        limit: what.2,
        revision: Revision(what.3),
        keys_only: flags.0,
        count_only: flags.1,
        order: flags.2,
        target: flags.3,
        min_mod: filters.0,
        max_mod: filters.1,
        min_create: filters.2,
        max_create: filters.3,
    })
}

/// One that rows can answer.
fn plain() -> impl Strategy<Value = RangeQuery> {
    let order = prop_oneof![Just(SortOrder::None), Just(SortOrder::Ascend), Just(SortOrder::Descend)];
    (0..11_u8, 12..14_u8, -1..6_i64, order).prop_map(|(from, to, limit, order)| RangeQuery {
        limit,
        order,
        ..RangeQuery::new(span(from, to))
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(write(), 0..4).prop_map(Step::Txn),
        1 => prop::collection::vec(write(), 0..4).prop_map(Step::Abandoned),
        2 => (-1..6_i64).prop_map(Step::Compact),
        3 => (1..4_usize).prop_map(Step::Sweep),
        1 => Just(Step::Reopen),
        8 => query().prop_map(Step::Range),
        4 => plain().prop_map(Step::Range),
        1 => (0..30_i64).prop_map(Step::Hash),
    ]
}

impl Model {
    fn seen(&self, range: &KeyRange, at: i64) -> Vec<KeyValue> {
        let mut newest: BTreeMap<&Key, Option<&KeyValue>> = BTreeMap::new();
        for ((key, revision), kv) in &self.versions {
            if revision.0 <= at && range.contains(key) {
                newest.insert(key, kv.as_ref());
            }
        }
        newest.into_values().flatten().cloned().collect()
    }

    fn write(&mut self, writes: &[Write]) {
        let main = Revision(self.current + 1);
        let before = self.versions.len();
        for write in writes {
            match write {
                Write::Put(number, value) => {
                    let old = self.seen(&KeyRange::One(name(*number)), main.0).pop();
                    let kv = KeyValue {
                        key: name(*number),
                        value: vec![*value].into(),
                        create_revision: old.as_ref().map_or(main, |old| old.create_revision),
                        mod_revision: main,
                        version: old.map_or(0, |old| old.version) + 1,
                        lease: LeaseId(i64::from(*value % 3)),
                    };
                    self.versions.insert((name(*number), main), Some(kv));
                }
                Write::Delete(from, to) => {
                    for kv in self.seen(&span(*from, *to), main.0) {
                        self.versions.insert((kv.key, main), None);
                    }
                }
            }
        }
        self.current += i64::from(self.versions.len() > before);
    }

    fn admit(&self, revision: Revision) -> Result<i64, Error> {
        match revision.0 {
            ..=0 => Ok(self.current),
            at if at > self.current => Err(Error::FutureRev),
            at if at < self.compacted => Err(Error::Compacted),
            at => Ok(at),
        }
    }

    fn range(&self, query: &RangeQuery) -> Result<RangeResult, Error> {
        let mut kvs = self.seen(&query.range, self.admit(query.revision)?);
        let count = kvs.len() as i64;
        let revision = Revision(self.current);
        if query.count_only {
            return Ok(RangeResult { count, revision, ..RangeResult::default() });
        }
        let fits = |number: Revision, min, max| (min == 0 || number.0 >= min) && (max == 0 || number.0 <= max);
        kvs.retain(|kv| fits(kv.mod_revision, query.min_mod, query.max_mod));
        kvs.retain(|kv| fits(kv.create_revision, query.min_create, query.max_create));
        kvs.sort_by_key(|kv| match query.target {
            SortTarget::Key => (0, Bytes::new()),
            SortTarget::Version => (kv.version, Bytes::new()),
            SortTarget::Create => (kv.create_revision.0, Bytes::new()),
            SortTarget::Mod => (kv.mod_revision.0, Bytes::new()),
            SortTarget::Value => (0, kv.value.clone()),
        });
        if query.order == SortOrder::Descend {
            // Equal ones stay in the order of keys, so the list can't just be turned round.
            let number = |kv: &KeyValue| match query.target {
                SortTarget::Key => (0, kv.key.clone()),
                SortTarget::Version => (kv.version, Bytes::new()),
                SortTarget::Create => (kv.create_revision.0, Bytes::new()),
                SortTarget::Mod => (kv.mod_revision.0, Bytes::new()),
                SortTarget::Value => (0, kv.value.clone()),
            };
            kvs.sort_by_key(|kv| std::cmp::Reverse(number(kv)));
        }
        let more = query.limit > 0 && kvs.len() as i64 > query.limit;
        if more {
            kvs.truncate(query.limit as usize);
        }
        if query.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
            let leases_stay = query.target == SortTarget::Value;
            kvs.iter_mut().filter(|_| !leases_stay).for_each(|kv| kv.lease = LeaseId::NONE);
        }
        Ok(RangeResult { kvs, count, more, revision })
    }

    /// Key and kind of what happened from `from` on, revision by revision. Within one the order is not the model's business.
    fn history(&self, from: i64) -> Vec<(i64, Key, Option<KeyValue>)> {
        let mut all: Vec<_> = self
            .versions
            .iter()
            .filter(|((_, revision), _)| revision.0 >= from)
            .map(|((key, revision), kv)| (revision.0, key.clone(), kv.clone()))
            .collect();
        all.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        all
    }
}

/// Requests never write one key twice (DuplicateKey), so neither does the test.
pub(super) fn distinct(writes: Vec<Write>) -> Vec<Write> {
    let mut touched = std::collections::BTreeSet::new();
    let keys = |write: &Write| match write {
        Write::Put(number, _) => vec![*number],
        Write::Delete(from, to) => (0..12).filter(|number| span(*from, *to).contains(&name(*number))).collect(),
    };
    writes.into_iter().filter(|write| keys(write).into_iter().all(|number| touched.insert(number))).collect()
}

pub(super) fn run_writes(txn: &mut WriteTxn<'_>, writes: &[Write]) {
    for write in writes {
        match write {
            Write::Put(number, value) => {
                let lease = LeaseId(i64::from(*value % 3));
                txn.put(name(*number), vec![*value].into(), lease).unwrap();
            }
            Write::Delete(from, to) => drop(txn.delete_range(&span(*from, *to)).unwrap()),
        }
    }
}

/// The answer as rows, if there is such a one.
fn listed(bench: &Bench, query: &RangeQuery) -> Option<Result<RangeResult, Error>> {
    let rows = match bench.store.reader().rows_within(query, &mut Unmetered).unwrap() {
        Ok(rows) => rows?,
        Err(error) => return Some(Err(error)),
    };
    let message = RangeResponse::decode(&rows.kvs[RangeRows::ROOM..]).unwrap();
    let kv = |kv: mvccpb::KeyValue| KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: Revision(kv.create_revision),
        mod_revision: Revision(kv.mod_revision),
        version: kv.version,
        lease: LeaseId(kv.lease),
    };
    let RangeRows { count, more, revision, .. } = rows;
    Some(Ok(RangeResult { kvs: message.kvs.into_iter().map(kv).collect(), count, more, revision }))
}

fn check_history(bench: &Bench, model: &Model) {
    let from = model.compacted.max(2);
    let reader = bench.store.reader();
    let history = reader.history(Revision(from), Revision(i64::MAX), &|_| true, true, usize::MAX).unwrap().unwrap();
    let mut seen = Vec::new();
    for (revision, events) in history.events {
        for event in events {
            assert_eq!(event.kv.mod_revision, revision);
            let before = model.seen(&KeyRange::One(event.kv.key.clone()), revision.0 - 1).pop();
            if revision.0 > from {
                assert_eq!(event.prev, before);
            } else {
                assert!(event.prev.is_none() || event.prev == before);
            }
            let kv = (event.kind == EventKind::Put).then(|| event.kv.clone());
            seen.push((revision.0, event.kv.key, kv));
        }
    }
    seen.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let mut expected = model.history(from);
    // At the compacted revision a version is all there is to tell, so those stay too: nothing is missing.
    expected.retain(|(revision, ..)| *revision >= from);
    assert_eq!(seen, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_the_model_whatever_is_swept_held_and_reopened(
        steps in prop::collection::vec(step(), 1..60),
        held_bytes_max in prop_oneof![Just(0_usize), 300..700_usize, Just(1 << 20)],
    ) {
        let mut bench = Bench::new();
        bench.store.hold_rows(held_bytes_max);
        let mut model = Model { current: 1, compacted: -1, ..Model::default() };
        // The same history, swept at once: hashes must not tell the difference.
        let mut swept = Bench::new();
        for step in steps {
            match step {
                Step::Txn(writes) => {
                    let writes = distinct(writes);
                    bench.write(|txn| run_writes(txn, &writes));
                    swept.write(|txn| run_writes(txn, &writes));
                    model.write(&writes);
                }
                Step::Abandoned(writes) => {
                    let mut txn = bench.store.begin();
                    run_writes(&mut txn, &writes);
                    txn.abandon();
                }
                Step::Compact(below) => {
                    let at = model.current - below;
                    let expected = match at {
                        at if at <= model.compacted => Err(Error::Compacted),
                        at if at > model.current => Err(Error::FutureRev),
                        at => { model.compacted = at; Ok(()) }
                    };
                    prop_assert_eq!(bench.compact(at), expected.clone());
                    prop_assert_eq!(swept.compact(at), expected);
                    swept.sweep();
                }
                Step::Sweep(rows) => drop(bench.store.reader().compact_step(rows).unwrap()),
                Step::Reopen => {
                    bench = bench.reopen();
                    bench.store.hold_rows(held_bytes_max);
                }
                Step::Range(query) => {
                    let expected = model.range(&query);
                    prop_assert_eq!(bench.store.begin().range(&query).unwrap(), expected.clone());
                    prop_assert_eq!(bench.range(query.clone()), expected.clone());
                    if let Some(listed) = listed(&bench, &query) {
                        prop_assert_eq!(listed, expected);
                    }
                }
                Step::Hash(at) => {
                    let hash = bench.store.reader().hash_kv(Revision(at)).unwrap();
                    prop_assert_eq!(hash.clone(), swept.store.reader().hash_kv(Revision(at)).unwrap());
                    prop_assert_eq!(hash.is_ok(), model.admit(Revision(at)).is_ok());
                }
            }
            prop_assert_eq!(bench.store.current(), Revision(model.current));
            bench.shared_check();
        }
        check_history(&bench, &model);
    }
}
