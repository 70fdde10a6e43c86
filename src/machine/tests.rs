//! The room as a whole: claims about single behaviours here, random histories in `random`.

mod auth;
mod members;
mod random;

use super::*;
use crate::{
    engine::{Checkpoint, Memory, Size},
    membership::{Change, Member},
    mvcc::{EventKind, KeyValue, RangeQuery},
    types::{ConfChange, ConfStep, ConfStepKind, KeyRange, LeaseId, MemberId, Revision},
};
use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
};

/// An engine that remembers its batches, so that a test can go back to any crash.
#[derive(Default)]
struct Recording {
    rows: RwLock<BTreeMap<(Table, Bytes), Bytes>>,
    batches: Mutex<Vec<Batch>>,
}

impl Recording {
    /// What is left if only these batches reached the disk.
    fn after(batches: &[Batch]) -> Arc<Recording> {
        let engine = Arc::new(Recording::default());
        for batch in batches {
            engine.write(batch.clone()).expect("memory");
        }
        engine
    }
}

impl Engine for Recording {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.rows.read().get(&(table, Bytes::copy_from_slice(key))).cloned())
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
        let rows = self.rows.read();
        for ((_, key), value) in rows.range((from, own(range.1))).take_while(|((of, _), _)| *of == table) {
            if visit(key, value.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, batch: Batch) -> Result<(), Fault> {
        let mut rows = self.rows.write();
        for (table, key, value) in batch.ops.iter().cloned() {
            match value {
                Some(value) => rows.insert((table, key), value),
                None => rows.remove(&(table, key)),
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
            self.rows.read().iter().map(|((table, key), value)| (*table, key.clone(), Some(value.clone()))).collect();
        copy.write(Batch { ops })?;
        copy.checkpoint()
    }

    fn size(&self) -> Result<Size, Fault> {
        Ok(Size::default())
    }
}

fn open(engine: &Arc<Recording>) -> Machine {
    Machine::open(engine.clone(), Settings::default()).expect("memory")
}

/// A machine with its log.
struct Bench {
    engine: Arc<Recording>,
    machine: Machine,
    log: Vec<Entry>,
}

impl Bench {
    fn new() -> Bench {
        let engine = Arc::new(Recording::default());
        Bench { machine: open(&engine), engine, log: Vec::new() }
    }

    fn entry(&mut self, kind: EntryKind, data: Bytes) -> Outcome {
        let entry = Entry { term: Term(1), index: self.machine.applied().0.next(), kind, data };
        self.log.push(entry.clone());
        self.machine.apply(vec![entry]).expect("memory")
    }

    fn outcome(&mut self, command: Command) -> Outcome {
        self.entry(EntryKind::Normal, codec::encode(RequestId(7), &Author::Nobody, &command))
    }

    fn run(&mut self, command: Command) -> Result<Reply, Error> {
        let mut outcome = self.outcome(command);
        outcome.replies.pop().expect("one reply to one command").result
    }

    fn put(&mut self, key: &'static str, lease: i64) -> Result<Reply, Error> {
        self.run(Command::Put(put(key, "v", lease)))
    }

    fn change(&mut self, change: &Change) -> (Result<Reply, Error>, Vec<Effect>) {
        let (kind, data) = codec::encode_conf_change(RequestId(7), change);
        let mut outcome = self.entry(kind, data);
        (outcome.replies.pop().expect("one reply to one change").result, outcome.effects)
    }

    fn get(&self, key: &'static str) -> Option<KeyValue> {
        let query = RangeQuery::new(KeyRange::One(key.into()));
        self.machine.reader().range(&query).expect("memory").expect("now").kvs.pop()
    }
}

fn put(key: &'static str, value: &'static str, lease: i64) -> Put {
    Put { key: key.into(), value: value.into(), lease: LeaseId(lease), ..Put::default() }
}

fn delete(key: &'static str) -> DeleteRange {
    DeleteRange { range: KeyRange::One(key.into()), prev_kv: false }
}

fn txn(success: Vec<Op>) -> Command {
    Command::Txn(Txn { success, ..Txn::default() })
}

fn grant(id: i64) -> Command {
    Command::LeaseGrant { id: LeaseId(id), ttl_s: 60 }
}

fn keys(bench: &Bench, lease: i64) -> Vec<Bytes> {
    bench.machine.view().lease(LeaseId(lease)).expect("a lease").keys
}

#[test]
fn a_put_with_an_unknown_lease_is_refused_and_changes_nothing() {
    let mut bench = Bench::new();
    assert_eq!(bench.put("a", 5), Err(Error::LeaseNotFound));
    assert_eq!(bench.machine.reader().current(), Revision(1));
    assert_eq!(bench.get("a"), None);
}

#[test]
fn a_key_belongs_to_the_lease_of_its_last_put() {
    let mut bench = Bench::new();
    for id in [1, 2] {
        bench.run(grant(id)).expect("a free id");
    }
    bench.put("a", 1).expect("a lease");
    bench.put("b", 1).expect("a lease");
    assert_eq!(keys(&bench, 1), ["a", "b"]);
    bench.put("a", 2).expect("a lease");
    assert_eq!((keys(&bench, 1), keys(&bench, 2)), (vec!["b".into()], vec!["a".into()]));
    // Without a lease it detaches; with ignore_lease it stays; deleting detaches.
    bench.put("b", 0).expect("no lease");
    assert_eq!(keys(&bench, 1), [""; 0]);
    bench.run(Command::Put(Put { ignore_lease: true, ..put("a", "w", 0) })).expect("a key");
    assert_eq!(keys(&bench, 2), ["a"]);
    bench.run(Command::DeleteRange(delete("a"))).expect("no refusal");
    assert_eq!(keys(&bench, 2), [""; 0]);
}

#[test]
fn revoking_deletes_the_keys_in_their_order_at_one_revision() {
    let mut bench = Bench::new();
    bench.run(grant(1)).expect("a free id");
    for key in ["c", "a", "b"] {
        bench.put(key, 1).expect("a lease");
    }
    let outcome = bench.outcome(Command::LeaseRevoke { id: LeaseId(1) });
    let [(revision, events)] = &outcome.events[..] else { panic!("one revision") };
    assert_eq!(*revision, Revision(5));
    assert!(events.iter().all(|event| event.kind == EventKind::Delete));
    assert_eq!(events.iter().map(|event| &event.kv.key[..]).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
    assert_eq!(outcome.effects, [Effect::LeaseRevoked { id: LeaseId(1) }]);
    assert_eq!(bench.run(Command::LeaseRevoke { id: LeaseId(1) }), Err(Error::LeaseNotFound));
    assert_eq!(bench.machine.view().live_bytes(), 0);
}

#[test]
fn any_error_in_the_branch_that_runs_takes_the_whole_txn_back() {
    let mut bench = Bench::new();
    bench.put("old", 0).expect("no lease");
    let future = RangeQuery { revision: Revision(3), ..RangeQuery::new(KeyRange::One("old".into())) };
    let bad = [
        (Op::Put(put("x", "", 9)), Error::LeaseNotFound),
        (Op::Put(Put { ignore_value: true, ..put("x", "", 0) }), Error::KeyNotFound),
        (Op::Put(put("", "", 0)), Error::EmptyKey),
        // The txn itself will be revision 3: still the future for what it reads.
        (Op::Range(future), Error::FutureRev),
    ];
    for (op, error) in bad {
        let nested = Txn { success: vec![op], ..Txn::default() };
        let steps = vec![Op::Put(put("new", "1", 0)), Op::DeleteRange(delete("old")), Op::Txn(nested)];
        assert_eq!(bench.run(txn(steps)), Err(error));
        assert_eq!(bench.machine.reader().current(), Revision(2));
        assert!(bench.get("new").is_none() && bench.get("old").is_some());
    }
    // What the other branch holds does not matter.
    let other = Txn { failure: vec![Op::Put(put("x", "", 9))], ..Txn::default() };
    assert!(bench.run(Command::Txn(other)).is_ok());
}

#[test]
fn compares_of_nested_txns_see_the_state_before_the_outermost() {
    let mut bench = Bench::new();
    let missing =
        Compare { range: KeyRange::One("a".into()), target: CompareTarget::Create(0), result: CompareResult::Equal };
    let nested = Txn { compares: vec![missing], success: vec![Op::Put(put("b", "", 0))], failure: vec![] };
    let reply = bench.run(txn(vec![Op::Put(put("a", "", 0)), Op::Txn(nested)])).expect("no refusal");
    let Reply::Txn(TxnReply { responses, .. }) = reply else { panic!("a txn") };
    assert!(matches!(&responses[1], OpReply::Txn(TxnReply { succeeded: true, .. })));
}

#[test]
fn a_value_compare_on_a_missing_key_is_false_whatever_it_asks() {
    let mut bench = Bench::new();
    for result in [CompareResult::Equal, CompareResult::NotEqual, CompareResult::Less, CompareResult::Greater] {
        let (range, target) = (KeyRange::One("a".into()), CompareTarget::Value(Bytes::new()));
        let compares = vec![Compare { range, target, result }];
        let reply = bench.run(Command::Txn(Txn { compares, ..Txn::default() }));
        assert_eq!(reply, Ok(Reply::Txn(TxnReply { succeeded: false, responses: vec![] })));
    }
}

#[test]
fn alarms_refuse_what_they_should_and_let_the_rest_through() {
    let mut bench = Bench::new();
    bench.put("a", 0).expect("no lease");
    bench.run(grant(1)).expect("a free id");
    let alarm = |action, kind| Command::Alarm { action, member: MemberId(1), kind: Some(kind) };
    assert_eq!(bench.outcome(alarm(AlarmAction::Activate, AlarmKind::NoSpace)).effects, [Effect::AlarmChanged]);
    assert!(bench.outcome(alarm(AlarmAction::Activate, AlarmKind::NoSpace)).effects.is_empty());
    assert_eq!(bench.put("a", 0), Err(Error::NoSpace));
    assert_eq!(bench.run(grant(2)), Err(Error::NoSpace));
    let puts = Txn { failure: vec![Op::Put(put("a", "", 0))], ..Txn::default() };
    assert_eq!(bench.run(txn(vec![Op::Txn(puts)])), Err(Error::NoSpace));
    let range = Command::Range(RangeQuery::default());
    assert!(bench.run(range.clone()).is_ok());
    assert!(bench.run(txn(vec![Op::DeleteRange(delete("a"))])).is_ok());
    assert!(bench.run(Command::LeaseRevoke { id: LeaseId(1) }).is_ok());
    assert!(bench.run(Command::Compact { revision: Revision(2), physical: false }).is_ok());

    bench.run(alarm(AlarmAction::Activate, AlarmKind::Corrupt)).expect("always");
    assert_eq!(bench.run(range.clone()), Err(Error::Corrupt));
    assert_eq!(bench.run(Command::DeleteRange(delete("a"))), Err(Error::Corrupt));
    bench.run(alarm(AlarmAction::Deactivate, AlarmKind::Corrupt)).expect("always");
    bench.run(alarm(AlarmAction::Deactivate, AlarmKind::NoSpace)).expect("always");
    assert!(bench.put("a", 0).is_ok());
}

#[test]
fn compaction_is_refused_at_or_below_the_last_and_above_the_current() {
    let mut bench = Bench::new();
    let compact = |revision| Command::Compact { revision: Revision(revision), physical: false };
    assert_eq!(bench.run(compact(2)), Err(Error::FutureRev));
    bench.put("a", 0).expect("no lease");
    let outcome = bench.outcome(compact(2));
    assert_eq!(outcome.effects, [Effect::Compacted { revision: Revision(2) }]);
    assert_eq!(bench.run(compact(2)), Err(Error::Compacted));
}

#[test]
fn entries_that_were_applied_are_passed_over() {
    let mut bench = Bench::new();
    bench.put("a", 0).expect("no lease");
    let again = bench.machine.apply(bench.log.clone()).expect("memory");
    assert_eq!(again, Outcome::default());
    assert_eq!(bench.get("a").map(|kv| kv.version), Some(1));
}

#[test]
#[should_panic(expected = "a hole before index 3")]
fn an_entry_that_would_leave_a_hole_is_never_applied() {
    let mut bench = Bench::new();
    bench.put("a", 0).expect("no lease");
    let _ = bench.machine.apply(vec![Entry { index: Index(3), term: Term(1), ..Entry::default() }]);
}

#[test]
fn what_cannot_be_read_changes_nothing_but_the_place_in_the_log() {
    let mut bench = Bench::new();
    assert!(bench.entry(EntryKind::Normal, Bytes::new()).replies.is_empty());
    let mut outcome = bench.entry(EntryKind::Normal, Bytes::from_static(b"\xff\xff\xff"));
    assert!(matches!(outcome.replies.pop().expect("an answer").result, Err(Error::Invalid(_))));
    assert_eq!(bench.machine.view().applied(), (Index(2), Term(1)));
    // Nor is its place forgotten over a restart.
    assert_eq!(open(&bench.engine).view().state_hash(), bench.machine.view().state_hash());
}

#[test]
fn etcd_19557_members_are_the_same_after_a_restart() {
    let mut bench = Bench::new();
    let member = |id, url: &str| Member {
        id: MemberId(id),
        peer_urls: vec![url.into()],
        is_learner: id > 1,
        ..Member::default()
    };
    let (reply, effects) = bench.change(&Change::Add(member(1, "a")));
    assert_eq!(reply, Ok(Reply::Members(vec![member(1, "a")])));
    let conf_state = ConfState { voters: vec![MemberId(1)], ..ConfState::default() };
    let change = ConfChange::Simple(ConfStep { kind: ConfStepKind::AddVoter, member: MemberId(1) });
    assert_eq!(effects, [Effect::ConfChanged { index: Index(1), change, conf_state }]);

    bench.change(&Change::Add(member(2, "b"))).0.expect("a new member");
    bench.change(&Change::Add(member(3, "c"))).0.expect("a new member");
    bench.change(&Change::Promote(MemberId(2))).0.expect("a learner");
    bench.change(&Change::Remove(MemberId(3))).0.expect("a member");
    let (reply, effects) = bench.change(&Change::Add(member(3, "c")));
    assert_eq!(reply, Err(Error::MemberExist));
    assert!(matches!(&effects[..], [Effect::ConfChanged { change: ConfChange::Nothing, .. }]));
    let attributes =
        Command::MemberAttributes { member: MemberId(2), name: "two".into(), client_urls: vec!["http://c".into()] };
    bench.run(attributes).expect("a member");
    bench.run(Command::ClusterVersionSet { version: "3.7.0".into() }).expect("a version");
    assert!(bench.run(Command::ClusterVersionSet { version: "3.7".into() }).is_err());

    let (before, after) = (bench.machine.view(), open(&bench.engine).view());
    assert_eq!(after.members(), before.members());
    assert_eq!(after.conf_state(), before.conf_state());
    assert_eq!(after.conf_state().voters, [MemberId(1), MemberId(2)]);
    assert!(after.is_removed(MemberId(3)));
    assert_eq!(after.member(MemberId(2)).expect("a member").name, "two");
    assert_eq!(after.cluster_version().as_deref(), Some("3.7.0"));
}

#[test]
fn etcd_18667_a_txn_at_an_old_revision_does_not_ask_how_far_the_sweep_got() {
    let run = |sweep: bool| {
        let mut bench = Bench::new();
        for _ in 0..4 {
            bench.put("a", 0).expect("no lease");
        }
        bench.run(Command::Compact { revision: Revision(4), physical: false }).expect("a revision");
        while sweep && bench.machine.reader().compact_step(10).expect("memory") {}
        let read = |revision| {
            let query = RangeQuery { revision: Revision(revision), ..RangeQuery::new(KeyRange::One("a".into())) };
            txn(vec![Op::Put(put("b", "", 0)), Op::Range(query)])
        };
        let replies = [2, 3, 4, 5, 6].map(|revision| bench.run(read(revision)));
        (replies, bench.machine.view().state_hash())
    };
    let (swept, unswept) = (run(true), run(false));
    assert_eq!(swept, unswept);
    assert_eq!(swept.0[1], Err(Error::Compacted));
    assert!(swept.0[2].is_ok());
}

#[test]
fn the_row_of_the_applied_index_is_read_as_it_was_written() {
    let mark = Mark { index: Index(1), term: Term(2), hash: 3, live_bytes: 4 };
    let row = mark.encode();
    assert_eq!(Mark::decode(&row), Some(mark));
    assert!((0..row.len()).all(|n| Mark::decode(&row[..n]).is_none()));
}
