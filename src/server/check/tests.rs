use super::*;
use proptest::prelude::*;

fn b(text: &str) -> Key {
    Key::copy_from_slice(text.as_bytes())
}

fn put_op(key: &str) -> pb::RequestOp {
    op(request_op::Request::RequestPut(pb::PutRequest { key: b(key), ..Default::default() }))
}

fn delete_op(key: &str, end: &str) -> pb::RequestOp {
    op(request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest {
        key: b(key),
        range_end: b(end),
        ..Default::default()
    }))
}

fn range_op(key: &str, serializable: bool) -> pb::RequestOp {
    op(request_op::Request::RequestRange(pb::RangeRequest { key: b(key), serializable, ..Default::default() }))
}

fn txn_op(then: Vec<pb::RequestOp>, or_else: Vec<pb::RequestOp>) -> pb::RequestOp {
    op(request_op::Request::RequestTxn(branches(then, or_else)))
}

fn op(request: request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn branches(then: Vec<pb::RequestOp>, or_else: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { compare: Vec::new(), success: then, failure: or_else }
}

fn check_then(then: Vec<pb::RequestOp>) -> Result<CheckedTxn, Error> {
    txn(branches(then, Vec::new()), &Limits::default())
}

#[test]
fn a_range_needs_a_key_before_anything_else_is_looked_at() {
    let request = |key, sort_order, sort_target| pb::RangeRequest {
        key: b(key),
        sort_order,
        sort_target,
        limit: -7,
        ..Default::default()
    };
    assert_eq!(range(request("", 9, 9)).unwrap_err(), Error::EmptyKey);
    assert_eq!(range(request("k", 3, 0)).unwrap_err(), Error::InvalidSortOption);
    assert_eq!(range(request("k", 0, 5)).unwrap_err(), Error::InvalidSortOption);
    assert_eq!(range(request("k", 2, 4)).unwrap().query.limit, 0, "a negative limit is none");
}

#[test]
fn a_range_stream_neither_sorts_nor_filters() {
    let plain = pb::RangeRequest { key: b("k"), ..Default::default() };
    assert!(range_stream(plain.clone()).is_ok());
    assert!(range_stream(pb::RangeRequest { sort_order: 1, ..plain.clone() }).is_ok(), "that is the order anyway");
    let by_nothing = range_stream(pb::RangeRequest { sort_target: 3, ..plain.clone() }).unwrap().query;
    assert_eq!(by_nothing.target, SortTarget::Key, "without an order it is by key");
    for odd in [
        pb::RangeRequest { sort_order: 2, ..plain.clone() },
        pb::RangeRequest { sort_order: 1, sort_target: 3, ..plain.clone() },
        pb::RangeRequest { min_mod_revision: 1, ..plain.clone() },
        pb::RangeRequest { max_create_revision: 1, ..plain.clone() },
    ] {
        assert!(matches!(range_stream(odd), Err(Error::Unsupported(_))));
    }
}

#[test]
fn a_put_may_not_both_keep_and_give() {
    let plain = pb::PutRequest { key: b("k"), ..Default::default() };
    let keeps = |value: &str, lease| pb::PutRequest {
        value: b(value),
        lease,
        ignore_value: true,
        ignore_lease: true,
        ..plain.clone()
    };
    assert_eq!(put(pb::PutRequest { key: b(""), ..keeps("v", 1) }).unwrap_err(), Error::EmptyKey);
    assert_eq!(put(keeps("v", 1)).unwrap_err(), Error::ValueProvided);
    assert_eq!(put(keeps("", 1)).unwrap_err(), Error::LeaseProvided);
    assert!(put(keeps("", 0)).is_ok());
}

#[test]
fn a_nested_transaction_has_what_its_parent_left() {
    let limits = Limits { txn_ops_max: 4, ..Limits::default() };
    let reads = |count| (0..count).map(|_| range_op("k", false)).collect::<Vec<_>>();
    let nested = |inner| branches([vec![txn_op(reads(inner), vec![])], reads(1)].concat(), vec![]);
    assert!(txn(branches(reads(4), reads(4)), &limits).is_ok(), "the largest of the three counts, not their sum");
    assert_eq!(txn(branches(reads(5), vec![]), &limits).unwrap_err(), Error::TooManyOps);
    assert_eq!(txn(branches(vec![], reads(5)), &limits).unwrap_err(), Error::TooManyOps);
    assert!(txn(nested(2), &limits).is_ok());
    assert_eq!(txn(nested(3), &limits).unwrap_err(), Error::TooManyOps);
}

/// One level more was taken in, and then could not be read from the log: it had no answer but that the time was over.
#[test]
fn what_is_nested_as_deep_as_it_may_be_is_read_from_the_log() {
    use crate::{
        auth::Author,
        machine::{RequestId, codec},
    };
    let nested = |levels| branches((0..levels).fold(vec![put_op("k")], |ops, _| vec![txn_op(ops, vec![])]), vec![]);
    let deepest = txn(nested(LEVELS_MAX), &Limits::default()).unwrap().txn;
    let bytes = codec::encode(RequestId(1), &Author::Nobody, &Command::Txn(deepest.clone()));
    assert_eq!(codec::decode(bytes).unwrap().2, Command::Txn(deepest));
    assert_eq!(txn(nested(LEVELS_MAX + 1), &Limits::default()).unwrap_err(), Error::TooManyOps);
}

#[test]
fn faults_of_a_transaction_are_found_in_etcds_order() {
    let nothing = pb::RequestOp { request: None };
    let bad_compare = pb::Compare { key: b("k"), result: 9, ..Default::default() };
    let request = pb::TxnRequest {
        compare: vec![bad_compare, pb::Compare::default()],
        success: vec![put_op("")],
        failure: vec![nothing.clone()],
    };
    let mut limits = Limits { txn_ops_max: 1, ..Limits::default() };
    assert_eq!(txn(request.clone(), &limits).unwrap_err(), Error::TooManyOps);
    limits.txn_ops_max = 2;
    assert_eq!(txn(request, &limits).unwrap_err(), Error::EmptyKey);
    assert_eq!(check_then(vec![nothing]).unwrap_err(), Error::KeyNotFound, "an operation that is none");
}

#[test]
fn a_key_is_written_once_on_each_path() {
    let fine = [
        vec![put_op("a"), put_op("b"), delete_op("c", "d")],
        vec![delete_op("a", ""), delete_op("a", "z"), delete_op("a", "b")],
        vec![txn_op(vec![put_op("a")], vec![put_op("a")])],
        vec![txn_op(vec![put_op("a")], vec![delete_op("a", "")])],
        vec![delete_op("b", "a"), put_op("b")],
        vec![delete_op("a", "b"), put_op("b")],
        vec![range_op("a", false), put_op("a"), range_op("a", false)],
        vec![delete_op("a", "\0"), put_op("b")],
        vec![txn_op(vec![put_op("a")], vec![]), txn_op(vec![delete_op("a", "b")], vec![])],
    ];
    for ops in fine {
        assert!(check_then(ops.clone()).is_ok(), "{ops:?}");
        assert!(txn(branches(ops.clone(), ops), &Limits::default()).is_ok(), "the outer branches exclude each other");
    }
    let twice = [
        vec![put_op("a"), put_op("a")],
        vec![put_op("a"), delete_op("a", "")],
        vec![delete_op("a", "c"), put_op("b")],
        vec![put_op("a"), txn_op(vec![], vec![put_op("a")])],
        vec![txn_op(vec![put_op("a")], vec![]), txn_op(vec![], vec![put_op("a")])],
        vec![txn_op(vec![delete_op("a", "b")], vec![]), txn_op(vec![put_op("a")], vec![])],
        vec![txn_op(vec![txn_op(vec![put_op("a")], vec![])], vec![]), put_op("a")],
    ];
    for ops in twice {
        assert_eq!(check_then(ops.clone()).unwrap_err(), Error::DuplicateKey, "{ops:?}");
        assert_eq!(txn(branches(vec![], ops), &Limits::default()).unwrap_err(), Error::DuplicateKey);
    }
}

#[test]
fn a_transaction_is_serializable_if_it_reads_and_all_its_reads_are() {
    assert!(check_then(vec![range_op("a", true), txn_op(vec![], vec![range_op("b", true)])]).unwrap().serializable);
    assert!(!check_then(vec![range_op("a", true), range_op("b", false)]).unwrap().serializable);
    assert!(!check_then(vec![]).unwrap().serializable, "compares alone want the current state");
}

#[test]
fn an_operand_of_another_kind_counts_as_none() {
    let compare = |target, target_union| pb::Compare { key: b("k"), target, target_union, ..Default::default() };
    let read = |request| one_compare(request).map(|compare| compare.target);
    assert_eq!(read(compare(0, Some(compare::TargetUnion::Version(3)))), Ok(CompareTarget::Version(3)));
    assert_eq!(read(compare(2, Some(compare::TargetUnion::Version(3)))), Ok(CompareTarget::Mod(0)));
    assert_eq!(read(compare(3, None)), Ok(CompareTarget::Value(Key::new())));
    assert!(matches!(read(compare(5, None)), Err(Error::Invalid(_))));
}

/// What may be written on one path: every put key, every deleted key.
type Writes = (Vec<u8>, Vec<u8>);

/// The slow way: all paths through the operations, key by key of a tiny alphabet.
fn paths(ops: &[Op]) -> Vec<Writes> {
    ops.iter().fold(vec![Writes::default()], |before, op| {
        let next = match op {
            Op::Range(_) => vec![Writes::default()],
            Op::Put(put) => vec![(vec![put.key[0]], vec![])],
            Op::DeleteRange(delete) => {
                vec![(vec![], (b'a'..=b'f').filter(|key| delete.range.contains(&[*key])).collect())]
            }
            Op::Txn(txn) => [paths(&txn.success), paths(&txn.failure)].concat(),
        };
        let join = |(puts, deletes): &Writes, (more_puts, more_deletes): &Writes| {
            ([&puts[..], more_puts].concat(), [&deletes[..], more_deletes].concat())
        };
        before.iter().flat_map(|a| next.iter().map(move |b| join(a, b))).collect()
    })
}

fn any_op() -> impl Strategy<Value = Op> {
    let key = || (b'a'..=b'f').prop_map(|key| Key::copy_from_slice(&[key]));
    let leaf = prop_oneof![
        3 => key().prop_map(|key| Op::Put(Put { key, ..Put::default() })),
        1 => key().prop_map(|key| Op::DeleteRange(DeleteRange { range: KeyRange::One(key), prev_kv: false })),
        1 => (key(), key()).prop_map(|(start, end)| {
            Op::DeleteRange(DeleteRange { range: KeyRange::Span { start, end }, prev_kv: false })
        }),
    ];
    leaf.prop_recursive(2, 12, 2, |inner| {
        let branch = || prop::collection::vec(inner.clone(), 0..2);
        (branch(), branch()).prop_map(|(success, failure)| Op::Txn(Txn { compares: vec![], success, failure }))
    })
}

/// Whether two steps of one path clash.
fn clash(ops: &[Op]) -> bool {
    let both = |a: &Op, b: &Op| {
        let (a_nested, b_nested) = (matches!(a, Op::Txn(_)), matches!(b, Op::Txn(_)));
        let (first, then) = (paths(std::slice::from_ref(a)), paths(std::slice::from_ref(b)));
        first.iter().any(|(puts, deletes)| {
            then.iter().any(|(later_puts, later_deletes)| {
                later_puts.iter().any(|key| puts.contains(key) || deletes.contains(key))
                    || !(a_nested && b_nested) && puts.iter().any(|key| later_deletes.contains(key))
            })
        })
    };
    let inside = |op: &Op| matches!(op, Op::Txn(txn) if clash(&txn.success) || clash(&txn.failure));
    ops.iter().any(inside) || ops.iter().enumerate().any(|(at, b)| ops[..at].iter().any(|a| both(a, b)))
}

proptest! {
    #[test]
    fn duplicates_are_found_as_by_walking_all_paths(ops in prop::collection::vec(any_op(), 0..4)) {
        prop_assert_eq!(touched(&ops).is_err(), clash(&ops));
    }
}
