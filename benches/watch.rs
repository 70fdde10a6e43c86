//! What an event costs until it lies in the queues of those who watch, and until a stream has taken it from there.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use henge::{
    auth::Author,
    engine::Memory,
    machine::{Command, Machine, Put, RequestId, Settings, codec},
    types::{Entry, EntryKind, Index, KeyRange, Revision, Term},
    watch::{Control, Deliveries, Hub, Options, Turn, WatchSpec},
};
use std::{
    hint::black_box,
    sync::Arc,
    task::{Context, Poll, Waker},
};

const WATCHERS: usize = 1_000;

/// `WATCHERS` of one key, spread over so many streams.
fn watched(hub: &Hub, streams: usize) -> Vec<(Control, Deliveries)> {
    let streams = (0..streams).map(|_| hub.open()).collect::<Vec<_>>();
    for number in 0..WATCHERS {
        let spec = WatchSpec {
            id: None,
            range: KeyRange::One(Bytes::from_static(b"watched")),
            start: Revision(0),
            no_put: false,
            no_delete: false,
            prev_kv: false,
            fragment: false,
            progress_notify: false,
        };
        streams[number % streams.len()].0.create(spec).expect("a watcher");
    }
    streams
}

/// Takes what is there; how many watchers got something.
fn take(deliveries: &mut Deliveries) -> usize {
    let mut taken = 0;
    while let Poll::Ready(turn) = deliveries.poll(&mut Context::from_waker(Waker::noop())) {
        match turn {
            Turn::Deliver(delivery) => drop(black_box(delivery)),
            Turn::Read(_) => unreachable!("nobody is behind"),
        }
        taken += 1;
    }
    taken
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("watch");
    group.throughput(Throughput::Elements(WATCHERS as u64));
    for streams in [1, 32, WATCHERS] {
        let mut machine = Machine::open(Arc::new(Memory::default()), Settings::default()).expect("memory");
        let hub = Hub::new(machine.reader(), Options::default());
        let mut streams = watched(&hub, streams);
        let created: usize = streams.iter_mut().map(|(_, deliveries)| take(deliveries)).sum();
        assert_eq!(created, WATCHERS);
        let mut index = 0;
        group.bench_function(format!("an event to {WATCHERS} watchers on {} streams", streams.len()), |bencher| {
            bencher.iter(|| {
                index += 1;
                let put = Put { key: "watched".into(), value: Bytes::from(vec![b'x'; 256]), ..Put::default() };
                let data = codec::encode(RequestId(index), &Author::Nobody, &Command::Put(put));
                let entry = Entry { term: Term(1), index: Index(index), kind: EntryKind::Normal, data };
                let outcome = machine.apply(vec![entry]).expect("memory");
                hub.publish(outcome.events, machine.reader().current());
                let taken: usize = streams.iter_mut().map(|(_, deliveries)| take(deliveries)).sum();
                assert_eq!(taken, WATCHERS);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, publish);
criterion_main!(benches);
