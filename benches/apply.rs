//! The state machine on an engine in memory: what a put, a read and a range cost without a disk or a network.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use henge::{
    auth::Author,
    engine::Memory,
    machine::{Command, Machine, Put, RequestId, Settings, codec},
    mvcc::{RangeQuery, Unmetered},
    types::{Entry, EntryKind, Index, Key, KeyRange, Term},
};
use std::{hint::black_box, sync::Arc};

const KEYS: u64 = 100_000;
const BATCH: u64 = 100;

fn key(number: u64) -> Key {
    Key::from(format!("/registry/pods/default/{number:08}"))
}

fn put(number: u64) -> Bytes {
    let put = Put { key: key(number % KEYS), value: Bytes::from(vec![b'x'; 256]), ..Put::default() };
    codec::encode(RequestId(number), &Author::Nobody, &Command::Put(put))
}

/// A machine that holds every key once, and the next index.
fn machine(settings: Settings) -> (Machine, u64) {
    let mut machine = Machine::open(Arc::new(Memory::default()), settings).expect("memory");
    for from in (0..KEYS).step_by(1_000) {
        machine.apply((from..from + 1_000).map(entry).collect()).expect("memory");
    }
    (machine, KEYS)
}

fn entry(number: u64) -> Entry {
    Entry { term: Term(1), index: Index(number + 1), kind: EntryKind::Normal, data: put(number) }
}

fn apply(criterion: &mut Criterion) {
    let (mut machine, mut next) = machine(Settings::default());
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("100 puts of 256 B over 100,000 keys", |bencher| {
        let entries = || {
            next += BATCH;
            (next - BATCH..next).map(entry).collect::<Vec<_>>()
        };
        bencher.iter_batched(entries, |entries| machine.apply(entries).expect("memory"), BatchSize::SmallInput);
    });
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let (machine, _) = machine(Settings::default());
    let reader = machine.reader();
    let mut number = 0;
    criterion.bench_function("read one key", |bencher| {
        bencher.iter(|| {
            number = (number + 7_919) % KEYS;
            let query = RangeQuery::new(KeyRange::One(key(number)));
            black_box(reader.range(&query).expect("memory").expect("current"));
        });
    });
    let prefix = KeyRange::prefix(Bytes::from_static(b"/registry/pods/default/000010"));
    criterion.bench_function("read a prefix of 100 keys", |bencher| {
        let query = RangeQuery::new(prefix.clone());
        bencher.iter(|| {
            let found = reader.range(&query).expect("memory").expect("current");
            assert_eq!(found.kvs.len(), 100);
        });
    });
    let (machine, _) = self::machine(Settings { value_cache_bytes: 1 << 30, ..Settings::default() });
    let reader = machine.reader();
    criterion.bench_function("read a prefix of 100 keys as rows that lie beside them", |bencher| {
        let query = RangeQuery::new(prefix.clone());
        bencher.iter(|| {
            let found = reader.rows_within(&query, &mut Unmetered).expect("memory").expect("current");
            assert_eq!(found.expect("a plain range").count, 100);
        });
    });
}

fn code(criterion: &mut Criterion) {
    let data = put(1);
    criterion.bench_function("encode a put", |bencher| {
        let (_, author, command) = codec::decode(data.clone()).expect("a command");
        bencher.iter(|| black_box(codec::encode(RequestId(1), &author, &command)));
    });
    criterion.bench_function("decode a put", |bencher| {
        bencher.iter(|| black_box(codec::decode(data.clone()).expect("a command")));
    });
}

criterion_group!(benches, apply, read, code);
criterion_main!(benches);
