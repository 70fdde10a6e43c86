//! Random histories: against the model, in other batches, beside sweeps, and through crashes at every write.

use super::{super::model::Model, *};
use crate::types::Key;
use proptest::prelude::*;
use std::sync::atomic::Ordering;

fn keys() -> impl Strategy<Value = Key> {
    "[a-d]".prop_map(Bytes::from)
}

fn ranges() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => keys().prop_map(KeyRange::One),
        2 => (keys(), keys()).prop_map(|(start, end)| KeyRange::Span { start, end }),
        1 => keys().prop_map(KeyRange::From),
    ]
}

fn puts() -> impl Strategy<Value = Put> {
    let flags = (any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    // Of the leases 0 to 4 some never exist.
    (keys(), "[xy]{0,9}", prop_oneof![3 => Just(0), 2 => 1..=3i64, 1 => Just(4)], flags).prop_map(
        |(key, value, lease, (prev_kv, ignore_value, ignore_lease))| Put {
            key,
            value: if ignore_value { Bytes::new() } else { value.into() },
            lease: LeaseId(if ignore_lease { 0 } else { lease }),
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn queries() -> impl Strategy<Value = RangeQuery> {
    (ranges(), 0..3i64, prop_oneof![3 => Just(0), 1 => 1..20i64]).prop_map(|(range, limit, revision)| RangeQuery {
        limit,
        revision: Revision(revision),
        ..RangeQuery::new(range)
    })
}

fn deletes() -> impl Strategy<Value = DeleteRange> {
    (ranges(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteRange { range, prev_kv })
}

fn compares() -> impl Strategy<Value = Compare> {
    let target = (0..5usize, 0..4i64, "[xy]{0,1}").prop_map(|(target, n, value)| {
        let all = [
            CompareTarget::Version(n),
            CompareTarget::Create(n),
            CompareTarget::Mod(n),
            CompareTarget::Value(value.into()),
            CompareTarget::Lease(n),
        ];
        all[target].clone()
    });
    let result = prop::sample::select(vec![
        CompareResult::Equal,
        CompareResult::Greater,
        CompareResult::Less,
        CompareResult::NotEqual,
    ]);
    (ranges(), target, result).prop_map(|(range, target, result)| Compare { range, target, result })
}

fn txns() -> impl Strategy<Value = Txn> {
    fn level(op: impl Strategy<Value = Op> + Clone) -> impl Strategy<Value = Txn> {
        let ops = prop::collection::vec(op, 0..3);
        (prop::collection::vec(compares(), 0..2), ops.clone(), ops).prop_map(|(compares, success, failure)| Txn {
            compares,
            success,
            failure,
        })
    }
    let leaf = prop_oneof![
        3 => puts().prop_map(Op::Put),
        1 => deletes().prop_map(Op::DeleteRange),
        2 => queries().prop_map(Op::Range),
    ];
    level(leaf.prop_recursive(3, 12, 3, |op| level(op).prop_map(Op::Txn)))
}

fn commands() -> impl Strategy<Value = Command> {
    let alarm = (prop::bool::weighted(0.3), any::<bool>()).prop_map(|(on, full)| Command::Alarm {
        action: if on { AlarmAction::Activate } else { AlarmAction::Deactivate },
        member: MemberId(1),
        kind: Some(if full { AlarmKind::NoSpace } else { AlarmKind::Corrupt }),
    });
    let lease = || (1..=3i64).prop_map(LeaseId);
    prop_oneof![
        10 => puts().prop_map(Command::Put),
        4 => deletes().prop_map(Command::DeleteRange),
        8 => txns().prop_map(Command::Txn),
        2 => queries().prop_map(Command::Range),
        2 => (0..20i64).prop_map(|revision| Command::Compact { revision: Revision(revision), physical: false }),
        4 => (lease(), 1..100i64).prop_map(|(id, ttl_s)| Command::LeaseGrant { id, ttl_s }),
        2 => lease().prop_map(|id| Command::LeaseRevoke { id }),
        1 => (lease(), 0..100i64).prop_map(|(id, left)| Command::LeaseCheckpoint(vec![(id, left)])),
        1 => alarm,
    ]
}

/// Commands as a log, with entries between them that no command stands behind.
fn log(commands: &[Command]) -> Vec<Entry> {
    let mut log = Vec::new();
    let mut push = |data| {
        let index = Index(log.len() as u64 + 1);
        log.push(Entry { term: Term(index.0 / 10 + 1), index, kind: EntryKind::Normal, data });
    };
    for (n, command) in commands.iter().enumerate() {
        if n % 7 == 0 {
            push(Bytes::new());
        }
        push(codec::encode(RequestId(n as u64 + 1), &Author::Nobody, command));
    }
    log
}

/// Applies the log in pieces of these sizes, over and over; between them the sweep gets `sweep` steps.
fn apply(machine: &mut Machine, mut log: &[Entry], sizes: &[usize], sweep: usize) -> Outcome {
    let mut all = Outcome::default();
    for size in sizes.iter().cycle() {
        if log.is_empty() {
            break;
        }
        let (now, later) = log.split_at((*size).min(log.len()));
        log = later;
        let Outcome { replies, events, effects, hashes: _ } = machine.apply(now.to_vec()).expect("memory");
        all.replies.extend(replies);
        all.events.extend(events);
        all.effects.extend(effects);
        for _ in 0..sweep {
            machine.reader().compact_step(1).expect("memory");
        }
    }
    all
}

/// All that one can ask of a machine.
fn facts(machine: &Machine) -> impl PartialEq + std::fmt::Debug {
    let (view, reader) = (machine.view(), machine.reader());
    let leases: Vec<_> = view.leases().into_iter().map(|id| view.lease(id)).collect();
    let kvs = reader.range(&RangeQuery::default()).expect("memory").expect("now");
    let hash_kv = reader.hash_kv(Revision(0)).expect("memory").expect("now");
    let marks = (view.applied(), view.state_hash(), reader.compacted(), hash_kv);
    (marks, view.live_bytes(), view.alarms(None), leases, kvs)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_machine_does_what_the_model_does(commands in prop::collection::vec(commands(), 1..60)) {
        let mut machine = open(&Arc::default());
        let mut model = Model::new();
        let outcome = apply(&mut machine, &log(&commands), &[1], 0);
        prop_assert_eq!(outcome.replies.len(), commands.len());
        for (command, applied) in commands.iter().zip(outcome.replies) {
            prop_assert_eq!(&applied.result, &model.apply(command), "{:?}", command);
            prop_assert_eq!(applied.revision, Revision(model.revision));
        }
        // Events, one after the other, lead to the same keys.
        let mut mirror = BTreeMap::new();
        let mut last = Revision(1);
        for (revision, events) in outcome.events {
            prop_assert_eq!(revision, last.next());
            last = revision;
            for event in events {
                prop_assert_eq!(event.kv.mod_revision, revision);
                let prev = match event.kind {
                    EventKind::Put => mirror.insert(event.kv.key.clone(), event.kv),
                    EventKind::Delete => mirror.remove(&event.kv.key),
                };
                prop_assert_eq!(event.prev, prev);
            }
        }
        prop_assert_eq!(&mirror, model.keys());
        let view = machine.view();
        prop_assert_eq!(view.leases(), model.leases.keys().copied().collect::<Vec<_>>());
        for id in view.leases() {
            let keys: Vec<Key> = mirror.values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect();
            prop_assert_eq!(view.lease(id).expect("listed").keys, keys);
        }
        let live_bytes = mirror.values().map(|kv| (kv.key.len() + kv.value.len()) as u64).sum::<u64>();
        prop_assert_eq!(view.live_bytes(), live_bytes);
    }

    #[test]
    fn batches_and_sweeps_make_no_difference(
        commands in prop::collection::vec(commands(), 1..60),
        sizes in prop::collection::vec(1..9usize, 1..5),
        sweep in 0..4usize,
    ) {
        let log = log(&commands);
        let (mut one, mut other) = (open(&Arc::default()), open(&Arc::default()));
        let expected = apply(&mut one, &log, &[1], 0);
        let outcome = apply(&mut other, &log, &sizes, sweep);
        prop_assert_eq!(outcome, expected);
        prop_assert_eq!(facts(&one), facts(&other));
    }

    #[test]
    fn what_a_put_replaces_is_read_for_those_who_ask_and_makes_no_difference_otherwise(
        commands in prop::collection::vec(commands(), 1..60),
        sizes in prop::collection::vec(1..9usize, 1..5),
        sweep in 0..4usize,
        is_wanted in any::<bool>(),
    ) {
        let log = log(&commands);
        let (mut one, mut other) = (open(&Arc::default()), open(&Arc::default()));
        other.prevs_on_demand().store(usize::from(is_wanted), Ordering::Relaxed);
        let mut expected = apply(&mut one, &log, &[1], 0);
        let outcome = apply(&mut other, &log, &sizes, sweep);
        for ((_, events), (_, others)) in expected.events.iter_mut().zip(&outcome.events) {
            for (event, other) in events.iter_mut().zip(others).filter(|(_, other)| other.lacks_prev()) {
                prop_assert!(!is_wanted && !event.lacks_prev(), "{:?}", other);
                event.prev = None;
            }
        }
        prop_assert_eq!(outcome, expected);
        prop_assert_eq!(facts(&one), facts(&other));
    }

    /// etcd 13766: the applied index was saved before its data, and a crash between them lost the data on one member.
    #[test]
    fn etcd_13766_a_crash_at_any_write_loses_and_repeats_nothing(
        commands in prop::collection::vec(commands(), 1..40),
        sizes in prop::collection::vec(1..9usize, 1..4),
        sweep in 0..4usize,
    ) {
        let log = log(&commands);
        let engine = Arc::new(Recording::default());
        let mut machine = open(&engine);
        machine.prevs_on_demand();
        let expected = apply(&mut machine, &log, &sizes, sweep);
        let batches = engine.batches.lock().clone();
        for survived in 0..=batches.len() {
            let mut again = open(&Recording::after(&batches[..survived]));
            again.prevs_on_demand();
            let applied = again.applied().0.0;
            let replies = apply(&mut again, &log, &sizes, 0).replies;
            let missing: Vec<_> = expected.replies.iter().filter(|reply| reply.index.0 > applied).cloned().collect();
            prop_assert_eq!(replies, missing, "after {} writes", survived);
            prop_assert_eq!(facts(&again), facts(&machine), "after {} writes", survived);
        }
    }
}
