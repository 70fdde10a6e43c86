//! One suite for all engines: what `Engine` promises, seen from outside.

use super::{Batch, Checkpoint, Engine, Kind, Memory, Options, Table, open};
use bytes::Bytes;
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tempfile::TempDir;

/// An engine, and how it comes back after its process was killed.
pub(super) trait Subject {
    fn engine(&self) -> &dyn Engine;
    /// As after kill -9: what was not flushed is gone.
    fn reopen(self) -> Self;
}

struct InMemory(Memory);

impl Subject for InMemory {
    fn engine(&self) -> &dyn Engine {
        &self.0
    }

    fn reopen(self) -> InMemory {
        InMemory(self.0.crash())
    }
}

pub(super) struct OnDisk {
    kind: Kind,
    engine: Arc<dyn Engine>,
    pub(super) dir: TempDir,
}

pub(super) fn on_disk(kind: Kind) -> OnDisk {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = open(kind, &store_dir(&dir), Options::default()).expect("a fresh store");
    OnDisk { kind, engine, dir }
}

pub(super) fn store_dir(dir: &TempDir) -> PathBuf {
    dir.path().join("member/store")
}

impl Subject for OnDisk {
    fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    fn reopen(self) -> OnDisk {
        let OnDisk { kind, engine, dir } = self;
        // Dropped, it must not flush what is in its buffer.
        drop(engine);
        let engine = open(kind, &store_dir(&dir), Options::default()).expect("the store opens again");
        OnDisk { kind, engine, dir }
    }
}

pub(super) fn batch(ops: &[(Table, &str, Option<&str>)]) -> Batch {
    let mut batch = Batch::default();
    for (table, key, value) in ops {
        match value {
            Some(value) => {
                batch.put(*table, Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
            }
            None => batch.delete(*table, Bytes::copy_from_slice(key.as_bytes())),
        }
    }
    batch
}

pub(super) fn put(engine: &dyn Engine, key: &str, value: &str) {
    engine.write(batch(&[(Table::Versions, key, Some(value))])).expect("a write");
}

pub(super) fn get(engine: &dyn Engine, key: &str) -> Option<String> {
    let value = engine.get(Table::Versions, key.as_bytes()).expect("a read");
    value.map(|value| String::from_utf8(value.to_vec()).expect("text"))
}

pub(super) fn scan(engine: &dyn Engine, table: Table, range: (Bound<&[u8]>, Bound<&[u8]>)) -> Vec<String> {
    let mut found = Vec::new();
    let mut visit = |key: &[u8], value: Bytes| {
        found.push(format!("{}={}", key.escape_ascii(), value.escape_ascii()));
        ControlFlow::Continue(())
    };
    engine.scan(table, range, &mut visit).expect("a scan");
    found
}

fn scan_checkpoint(checkpoint: &dyn Checkpoint, table: Table, range: (Bound<&[u8]>, Bound<&[u8]>)) -> Vec<String> {
    let mut found = Vec::new();
    let mut visit = |key: &[u8], value: Bytes| {
        found.push(format!("{}={}", key.escape_ascii(), value.escape_ascii()));
        ControlFlow::Continue(())
    };
    checkpoint.scan(table, range, &mut visit).expect("a scan");
    found
}

pub(super) const ALL: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

fn tables_are_apart_and_rows_in_order<S: Subject>(subject: S) -> S {
    let engine = subject.engine();
    let ops = [(Table::Meta, "x", Some("m")), (Table::Versions, "b", Some("2")), (Table::Versions, "a", Some("1"))];
    engine.write(batch(&ops)).expect("a write");
    engine.flush().expect("a flush");
    // Partly flushed, partly not: the order is the same.
    engine.write(batch(&[(Table::Versions, "aa", Some("3")), (Table::Leases, "z", Some("l"))])).expect("a write");
    assert_eq!(scan(engine, Table::Versions, ALL), ["a=1", "aa=3", "b=2"]);
    assert_eq!(scan(engine, Table::Meta, ALL), ["x=m"]);
    assert_eq!(scan(engine, Table::Leases, ALL), ["z=l"]);
    assert_eq!(scan(engine, Table::Auth, ALL), [""; 0]);
    subject
}

fn scans_keep_their_bounds<S: Subject>(subject: S) -> S {
    let engine = subject.engine();
    for (at, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
        put(engine, key, "v");
        if at == 1 {
            engine.flush().expect("a flush");
        }
    }
    let keys = |start, end| scan(engine, Table::Versions, (start, end)).concat();
    assert_eq!(keys(Bound::Included(&b"b"[..]), Bound::Excluded(&b"d"[..])), "b=vc=v");
    assert_eq!(keys(Bound::Excluded(&b"b"[..]), Bound::Included(&b"d"[..])), "c=vd=v");
    assert_eq!(keys(Bound::Excluded(&b"b"[..]), Bound::Excluded(&b"b"[..])), "");
    assert_eq!(keys(Bound::Included(&b"d"[..]), Bound::Excluded(&b"a"[..])), "", "the wrong way round is empty");
    let mut seen = 0;
    let mut stop_at_two = |_: &[u8], _: Bytes| {
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    engine.scan(Table::Versions, ALL, &mut stop_at_two).expect("a scan");
    assert_eq!(seen, 2);
    subject
}

fn a_later_write_wins_and_a_deletion_hides<S: Subject>(subject: S) -> S {
    let engine = subject.engine();
    put(engine, "a", "1");
    put(engine, "b", "1");
    engine.flush().expect("a flush");
    let twice = [(Table::Versions, "a", Some("2")), (Table::Versions, "a", Some("3")), (Table::Versions, "b", None)];
    engine.write(batch(&twice)).expect("a write");
    for _ in 0..2 {
        assert_eq!((get(engine, "a").as_deref(), get(engine, "b")), (Some("3"), None));
        assert_eq!(scan(engine, Table::Versions, ALL), ["a=3"]);
        engine.flush().expect("a flush");
        assert_eq!(engine.pending(), 0);
    }
    subject
}

fn what_was_flushed_is_there_again_and_the_rest_is_not<S: Subject>(subject: S) -> S {
    put(subject.engine(), "kept", "1");
    subject.engine().flush().expect("a flush");
    put(subject.engine(), "lost", "2");
    put(subject.engine(), "kept", "2");
    assert!(subject.engine().pending() > 0);
    let subject = subject.reopen();
    assert_eq!(get(subject.engine(), "kept").as_deref(), Some("1"));
    assert_eq!(get(subject.engine(), "lost"), None);
    put(subject.engine(), "new", "3");
    subject.engine().flush().expect("a flush");
    let subject = subject.reopen();
    assert_eq!(scan(subject.engine(), Table::Versions, ALL), ["kept=1", "new=3"]);
    subject
}

/// More rows than a scan copies at a time, in both layers and the store, with deletions between.
fn long_scans_meet_every_row_once<S: Subject>(subject: S) -> S {
    let engine = subject.engine();
    let mut model = BTreeMap::new();
    for round in 0..3 {
        for i in (round..6_000).step_by(round + 1) {
            let key = format!("{i:05}");
            if i % 7 == 0 {
                engine.write(batch(&[(Table::Versions, &key, None)])).expect("a write");
                model.remove(&key);
            } else {
                put(engine, &key, &round.to_string());
                model.insert(key, round.to_string());
            }
        }
        if round == 0 {
            engine.flush().expect("a flush");
        }
    }
    let expected = model.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
    assert_eq!(scan(engine, Table::Versions, ALL), expected);
    subject
}

/// Rows move from the buffer to the store under the eyes of readers.
fn no_row_vanishes_during_a_flush<S: Subject + Sync>(subject: S) -> S {
    for i in 0..200 {
        put(subject.engine(), &format!("{i:03}"), "0");
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let engine = &subject;
        let readers = [0, 1].map(|_| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(scan(engine.engine(), Table::Versions, ALL).len(), 200);
                    assert!(get(engine.engine(), "100").is_some());
                }
            })
        });
        for round in 1..=15 {
            for i in (0..200).step_by(3) {
                put(subject.engine(), &format!("{i:03}"), &round.to_string());
            }
            subject.engine().flush().expect("a flush");
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().expect("a reader"));
    });
    subject
}

fn checkpoint_keeps_one_moment<S: Subject>(subject: S) -> S {
    let engine = subject.engine();
    put(engine, "a", "1");
    engine.flush().expect("a flush");
    engine
        .write(batch(&[
            (Table::Versions, "b", Some("1")),
            (Table::Versions, "c", Some("1")),
            (Table::Meta, "applied", Some("2")),
        ]))
        .expect("a write");
    let checkpoint = engine.checkpoint().expect("a checkpoint");
    engine.write(batch(&[(Table::Versions, "a", None), (Table::Versions, "b", Some("2"))])).expect("a write");
    put(engine, "d", "1");
    // Read by another thread, and in parts.
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let rows = |range| scan_checkpoint(&*checkpoint, Table::Versions, range);
            assert_eq!(rows(ALL), ["a=1", "b=1", "c=1"]);
            assert_eq!(rows((Bound::Excluded(b"a"), Bound::Unbounded)), ["b=1", "c=1"]);
            assert_eq!(rows((Bound::Included(b"a"), Bound::Excluded(b"b"))), ["a=1"]);
            assert_eq!(rows((Bound::Excluded(b"c"), Bound::Unbounded)), [""; 0]);
            assert_eq!(scan_checkpoint(&*checkpoint, Table::Meta, ALL), ["applied=2"]);
            assert_eq!(scan_checkpoint(&*checkpoint, Table::Leases, ALL), [""; 0]);
            drop(checkpoint);
        });
        engine.flush().expect("a flush");
        reader.join().expect("a reader");
    });
    assert_eq!(scan(engine, Table::Versions, ALL), ["b=2", "c=1", "d=1"]);
    let second = engine.checkpoint().expect("a second checkpoint");
    assert_eq!(scan_checkpoint(&*second, Table::Versions, ALL), ["b=2", "c=1", "d=1"]);
    drop(second);
    subject
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(u8, Option<u8>)>),
    Flush,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let op = (0..20_u8, proptest::option::weighted(0.7, any::<u8>()));
    let step = prop_oneof![
        6 => proptest::collection::vec(op, 1..6).prop_map(Step::Write),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..30)
}

/// Against a map for what is visible and one for what is durable.
fn agrees_with_two_maps<S: Subject>(mut subject: S, steps: Vec<Step>) {
    let (mut visible, mut durable) = (BTreeMap::new(), BTreeMap::new());
    for step in steps {
        match step {
            Step::Write(ops) => {
                let mut batch = Batch::default();
                for (key, value) in ops {
                    match value {
                        Some(value) => {
                            batch.put(Table::Versions, vec![key], vec![value]);
                            visible.insert(key, value);
                        }
                        None => {
                            batch.delete(Table::Versions, vec![key]);
                            visible.remove(&key);
                        }
                    }
                }
                subject.engine().write(batch).expect("a write");
            }
            Step::Flush => {
                subject.engine().flush().expect("a flush");
                durable = visible.clone();
            }
            Step::Reopen => {
                subject = subject.reopen();
                visible = durable.clone();
            }
        }
        let expected =
            visible.iter().map(|(key, value)| format!("{}={}", [*key].escape_ascii(), [*value].escape_ascii()));
        assert_eq!(scan(subject.engine(), Table::Versions, ALL), expected.collect::<Vec<_>>());
    }
}

macro_rules! suite {
    ($name:ident, $subject:expr, $cases:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn keeps_tables_apart_and_rows_in_order() {
                tables_are_apart_and_rows_in_order($subject);
            }

            #[test]
            fn keeps_the_bounds_of_scans() {
                scans_keep_their_bounds($subject);
            }

            #[test]
            fn lets_the_later_write_win() {
                a_later_write_wins_and_a_deletion_hides($subject);
            }

            #[test]
            fn has_what_was_flushed_and_no_more_after_a_crash() {
                what_was_flushed_is_there_again_and_the_rest_is_not($subject);
            }

            #[test]
            fn meets_every_row_once_in_long_scans() {
                long_scans_meet_every_row_once($subject);
            }

            #[test]
            fn loses_no_row_from_sight_during_a_flush() {
                no_row_vanishes_during_a_flush($subject);
            }

            #[test]
            fn keeps_one_moment_in_a_checkpoint() {
                checkpoint_keeps_one_moment($subject);
            }

            proptest! {
                #![proptest_config(ProptestConfig::with_cases($cases))]
                #[test]
                fn agrees_with_a_map(steps in steps()) {
                    agrees_with_two_maps($subject, steps);
                }
            }
        }
    };
}

suite!(memory, InMemory(Memory::default()), 200);
suite!(redb, on_disk(Kind::Redb), 12);
suite!(sled, on_disk(Kind::Sled), 8);

impl Subject for super::Volatile {
    fn engine(&self) -> &dyn Engine {
        self
    }

    fn reopen(self) -> super::Volatile {
        super::Volatile::default()
    }
}

/// All but what a flush saves from a crash: of this one, nothing is saved.
#[test]
fn volatile_is_an_engine_while_its_process_lives() {
    tables_are_apart_and_rows_in_order(super::Volatile::default());
    scans_keep_their_bounds(super::Volatile::default());
    a_later_write_wins_and_a_deletion_hides(super::Volatile::default());
    long_scans_meet_every_row_once(super::Volatile::default());
    no_row_vanishes_during_a_flush(super::Volatile::default());
    checkpoint_keeps_one_moment(super::Volatile::default());
}
