//! The way of an entry to the disk: a step of a lone voter, and a batch in the log with its sync.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use henge::{
    io::real::RealDisk,
    raft::{Config, Input, Node, Output, Proposal, Restored},
    types::{ConfState, Entry, EntryKind, Index, MemberId, SnapshotMeta, Term},
    wal::{Options, Wal},
};
use std::hint::black_box;

const ENTRY_BYTES: usize = 300;

fn lone_voter() -> Node {
    let conf_state = ConfState { voters: vec![MemberId(1)], ..ConfState::default() };
    let config = Config {
        id: MemberId(1),
        election_ticks: 10,
        heartbeat_ticks: 1,
        pre_vote: true,
        check_quorum: true,
        inflight_messages_max: 512,
        inflight_bytes_max: 16 << 20,
        append_bytes_max: 1 << 20,
        uncommitted_bytes_max: 128 << 20,
        sabotage: None,
    };
    let snapshot = SnapshotMeta { conf_state: conf_state.clone(), ..SnapshotMeta::default() };
    Node::new(config, Restored { snapshot, conf_state, ..Restored::default() }, 1)
}

fn raft(criterion: &mut Criterion) {
    let (mut node, mut out) = (lone_voter(), Output::default());
    node.step(Input::Campaign, &mut out);
    let data = Bytes::from(vec![b'x'; ENTRY_BYTES]);
    let mut group = criterion.benchmark_group("raft");
    group.throughput(Throughput::Elements(1));
    group.bench_function("a lone voter proposes, persists and commits one entry", |bencher| {
        bencher.iter(|| {
            out.clear();
            let proposal = Proposal { kind: EntryKind::Normal, data: data.clone() };
            node.step(Input::Propose(vec![proposal]), &mut out);
            let upto = node.status().last_index;
            node.step(Input::Persisted { upto, term: Term(1) }, &mut out);
            black_box(node.entries(out.committed.start, out.committed.end));
            node.release(upto);
        });
    });
    group.finish();
}

fn wal(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut wal =
        Wal::create(RealDisk::default(), &dir.path().join("wal"), b"bench", Options::default()).expect("a log");
    let mut next = 1;
    let mut group = criterion.benchmark_group("wal");
    for batch in [1, 32, 256] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("append {batch} entries of {ENTRY_BYTES} B and sync"), |bencher| {
            bencher.iter(|| {
                let data = Bytes::from(vec![b'x'; ENTRY_BYTES]);
                let entry =
                    |index| Entry { term: Term(1), index: Index(index), kind: EntryKind::Normal, data: data.clone() };
                let entries = (next..next + batch).map(entry).collect::<Vec<_>>();
                next += batch;
                wal.append(None, &entries).expect("an append");
                wal.sync().expect("a sync");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, raft, wal);
criterion_main!(benches);
