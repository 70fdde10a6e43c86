//! The shape of requests: what the wire says becomes our own words, or an error. etcd's rules, in etcd's order.
//!
//! Whether a key exists, a lease is known or a revision is compacted is not a matter of shape; it is decided where the command runs.

use super::downgrade::{self, Downgrade};
use crate::{
    machine::{AlarmAction, AlarmKind, Command, Compare, CompareResult, CompareTarget, DeleteRange, Op, Put, Txn},
    mvcc::{RangeQuery, SortOrder, SortTarget},
    pb::etcdserverpb::{self as pb, alarm_request, compare, range_request, request_op},
    types::{Error, Key, KeyRange, LeaseId, MemberId, Revision},
};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use tonic::Status;

/// How large a request may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `max-txn-ops`: in the largest of compares, success and failure.
    pub txn_ops_max: usize,
    /// `max-request-bytes`: of a request that goes into the log.
    pub request_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { txn_ops_max: 128, request_bytes_max: 3 * 512 * 1024 }
    }
}

impl Limits {
    /// A request that goes into the log, of `bytes` on the wire.
    ///
    /// # Errors
    /// [`Error::RequestTooLarge`]
    pub fn check_bytes(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.request_bytes_max { Err(Error::RequestTooLarge) } else { Ok(()) }
    }

    /// What gRPC accepts at most: what may go into the log, and as much again as etcd allows for its wrapping.
    pub fn message_bytes_max(&self) -> usize {
        self.request_bytes_max.saturating_add(512 * 1024)
    }
}

/// A read, and whether it may be answered without asking the quorum.
#[derive(Debug)]
pub struct CheckedRange {
    /// What to read.
    pub query: RangeQuery,
    /// Local state is good enough.
    pub serializable: bool,
}

/// A transaction, and which way it goes.
#[derive(Debug)]
pub struct CheckedTxn {
    /// What to do.
    pub txn: Txn,
    /// The bytes that it takes in the log.
    pub bytes: usize,
    /// Nothing but reads, all of them serializable, and at least one: compares alone want the current state.
    pub serializable: bool,
}

/// # Errors
/// [`Error::EmptyKey`], [`Error::InvalidSortOption`]
pub fn range(request: pb::RangeRequest) -> Result<CheckedRange, Error> {
    let key = some_key(request.key)?;
    let order = match range_request::SortOrder::try_from(request.sort_order) {
        Ok(range_request::SortOrder::None) => SortOrder::None,
        Ok(range_request::SortOrder::Ascend) => SortOrder::Ascend,
        Ok(range_request::SortOrder::Descend) => SortOrder::Descend,
        Err(_) => return Err(Error::InvalidSortOption),
    };
    let target = match range_request::SortTarget::try_from(request.sort_target) {
        Ok(range_request::SortTarget::Key) => SortTarget::Key,
        Ok(range_request::SortTarget::Version) => SortTarget::Version,
        Ok(range_request::SortTarget::Create) => SortTarget::Create,
        Ok(range_request::SortTarget::Mod) => SortTarget::Mod,
        Ok(range_request::SortTarget::Value) => SortTarget::Value,
        Err(_) => return Err(Error::InvalidSortOption),
    };
    let query = RangeQuery {
        limit: request.limit.max(0),
        revision: Revision(request.revision),
        order,
        target,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod: request.min_mod_revision,
        max_mod: request.max_mod_revision,
        min_create: request.min_create_revision,
        max_create: request.max_create_revision,
        ..RangeQuery::new(KeyRange::from_wire(key, request.range_end))
    };
    Ok(CheckedRange { query, serializable: request.serializable })
}

/// A read in chunks: only what can be read in key order, without looking ahead. If no order is asked for it is that one, whatever the
/// target; etcd's other reads sort by the target then.
///
/// # Errors
/// As [`range`], and [`Error::Unsupported`] for sorts and revision filters.
pub fn range_stream(request: pb::RangeRequest) -> Result<CheckedRange, Error> {
    let mut checked = range(request)?;
    let query = &mut checked.query;
    if query.order == SortOrder::None {
        query.target = SortTarget::Key;
    }
    let by_key = query.target == SortTarget::Key && query.order != SortOrder::Descend;
    if !by_key {
        return Err(Error::Unsupported("RangeStream does not support custom sort orders"));
    }
    if [query.min_mod, query.max_mod, query.min_create, query.max_create].iter().any(|bound| *bound != 0) {
        return Err(Error::Unsupported("RangeStream does not support revision filters"));
    }
    Ok(checked)
}

/// # Errors
/// [`Error::EmptyKey`], [`Error::ValueProvided`], [`Error::LeaseProvided`]
pub fn put(request: pb::PutRequest) -> Result<Put, Error> {
    let key = some_key(request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(Put {
        key,
        value: request.value,
        lease: LeaseId(request.lease),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    })
}

/// # Errors
/// [`Error::EmptyKey`]
pub fn delete_range(request: pb::DeleteRangeRequest) -> Result<DeleteRange, Error> {
    let key = some_key(request.key)?;
    Ok(DeleteRange { range: KeyRange::from_wire(key, request.range_end), prev_kv: request.prev_kv })
}

/// # Errors
/// [`Error::TooManyOps`], [`Error::EmptyKey`], those of the operations, [`Error::DuplicateKey`]; [`Error::KeyNotFound`] for an
/// operation that is none (etcd's choice).
pub fn txn(request: pb::TxnRequest, limits: &Limits) -> Result<CheckedTxn, Error> {
    let bytes = request.encoded_len();
    let mut reads = Reads::default();
    let room = Room { ops: limits.txn_ops_max, levels: LEVELS_MAX };
    let txn = nested_txn(request, room, &mut reads)?;
    touched(&txn.success)?;
    touched(&txn.failure)?;
    Ok(CheckedTxn { txn, bytes, serializable: reads.serializable > 0 && reads.linearizable == 0 })
}

/// # Errors
/// [`Error::Invalid`] for an action or a kind that is none.
pub fn alarm(request: &pb::AlarmRequest) -> Result<Command, Error> {
    let action = match alarm_request::AlarmAction::try_from(request.action) {
        Ok(alarm_request::AlarmAction::Get) => AlarmAction::Get,
        Ok(alarm_request::AlarmAction::Activate) => AlarmAction::Activate,
        Ok(alarm_request::AlarmAction::Deactivate) => AlarmAction::Deactivate,
        Err(_) => return Err(Error::Invalid(format!("etcdserver: unknown alarm action {}", request.action))),
    };
    let kind = match pb::AlarmType::try_from(request.alarm) {
        Ok(pb::AlarmType::None) => None,
        Ok(pb::AlarmType::Nospace) => Some(AlarmKind::NoSpace),
        Ok(pb::AlarmType::Corrupt) => Some(AlarmKind::Corrupt),
        Err(_) => return Err(Error::Invalid(format!("etcdserver: unknown alarm {}", request.alarm))),
    };
    Ok(Command::Alarm { action, member: MemberId(request.member_id), kind })
}

/// The downgrade call's.
///
/// # Errors
/// [`Error::WrongDowngradeVersionFormat`]; for an action that nobody knows one without a code, as in etcd.
pub fn downgrade(request: &pb::DowngradeRequest) -> Result<Downgrade, Status> {
    use pb::downgrade_request::DowngradeAction;
    match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate) => Ok(Downgrade::Validate(downgrade::target(&request.version)?)),
        Ok(DowngradeAction::Enable) => Ok(Downgrade::Enable(downgrade::target(&request.version)?)),
        Ok(DowngradeAction::Cancel) => Ok(Downgrade::Cancel),
        Err(_) => Err(Status::unknown("etcdserver: unknown method")),
    }
}

fn some_key(key: Key) -> Result<Key, Error> {
    if key.is_empty() { Err(Error::EmptyKey) } else { Ok(key) }
}

/// How many ranges of a transaction are of which kind.
#[derive(Default)]
struct Reads {
    serializable: usize,
    linearizable: usize,
}

/// Transactions within transactions. One more could still be read from the wire, but not from the log, where a message is around it; nobody
/// would ever answer it.
const LEVELS_MAX: usize = 48;

/// What the transactions around one have left for it.
#[derive(Clone, Copy)]
struct Room {
    ops: usize,
    levels: usize,
}

fn nested_txn(request: pb::TxnRequest, room: Room, reads: &mut Reads) -> Result<Txn, Error> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = Room { ops: room.ops.checked_sub(ops).ok_or(Error::TooManyOps)?, ..room };
    // All keys of compares come before any of their other faults, as in etcd.
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    let compares = request.compare.into_iter().map(one_compare).collect::<Result<_, _>>()?;
    let mut branch = |ops: Vec<pb::RequestOp>| -> Result<Vec<Op>, Error> {
        ops.into_iter().map(|op| one_op(op, left, reads)).collect()
    };
    let success = branch(request.success)?;
    Ok(Txn { compares, success, failure: branch(request.failure)? })
}

fn one_op(op: pb::RequestOp, left: Room, reads: &mut Reads) -> Result<Op, Error> {
    Ok(match op.request.ok_or(Error::KeyNotFound)? {
        request_op::Request::RequestRange(request) => {
            let checked = range(request)?;
            *if checked.serializable { &mut reads.serializable } else { &mut reads.linearizable } += 1;
            Op::Range(checked.query)
        }
        request_op::Request::RequestPut(request) => Op::Put(put(request)?),
        request_op::Request::RequestDeleteRange(request) => Op::DeleteRange(delete_range(request)?),
        request_op::Request::RequestTxn(request) => {
            let levels = left.levels.checked_sub(1).ok_or(Error::TooManyOps)?;
            Op::Txn(nested_txn(request, Room { levels, ..left }, reads)?)
        }
    })
}

fn one_compare(request: pb::Compare) -> Result<Compare, Error> {
    use compare::TargetUnion;
    let result = match compare::CompareResult::try_from(request.result) {
        Ok(compare::CompareResult::Equal) => CompareResult::Equal,
        Ok(compare::CompareResult::Greater) => CompareResult::Greater,
        Ok(compare::CompareResult::Less) => CompareResult::Less,
        Ok(compare::CompareResult::NotEqual) => CompareResult::NotEqual,
        Err(_) => return Err(Error::Invalid(format!("etcdserver: unknown compare result {}", request.result))),
    };
    // An operand of another kind than the target counts as none, and none as zero or empty.
    let target = match (compare::CompareTarget::try_from(request.target), request.target_union) {
        (Ok(compare::CompareTarget::Version), Some(TargetUnion::Version(number))) => CompareTarget::Version(number),
        (Ok(compare::CompareTarget::Version), _) => CompareTarget::Version(0),
        (Ok(compare::CompareTarget::Create), Some(TargetUnion::CreateRevision(number))) => {
            CompareTarget::Create(number)
        }
        (Ok(compare::CompareTarget::Create), _) => CompareTarget::Create(0),
        (Ok(compare::CompareTarget::Mod), Some(TargetUnion::ModRevision(number))) => CompareTarget::Mod(number),
        (Ok(compare::CompareTarget::Mod), _) => CompareTarget::Mod(0),
        (Ok(compare::CompareTarget::Lease), Some(TargetUnion::Lease(number))) => CompareTarget::Lease(number),
        (Ok(compare::CompareTarget::Lease), _) => CompareTarget::Lease(0),
        (Ok(compare::CompareTarget::Value), Some(TargetUnion::Value(value))) => CompareTarget::Value(value),
        (Ok(compare::CompareTarget::Value), _) => CompareTarget::Value(Key::new()),
        (Err(_), _) => return Err(Error::Invalid(format!("etcdserver: unknown compare target {}", request.target))),
    };
    Ok(Compare { range: KeyRange::from_wire(request.key, request.range_end), target, result })
}

/// What the operations of one branch may write, over all paths through it.
///
/// Two things are overlooked, as in etcd: a range to the end of the keys counts as empty, and a delete in a nested transaction is
/// not held against the puts of an earlier sibling. Both do what they say, one after the other.
///
/// # Errors
/// [`Error::DuplicateKey`] if on one path a key would be put twice, or put and deleted.
fn touched(ops: &[Op]) -> Result<Touched<'_>, Error> {
    let mut all = Touched::default();
    for op in ops {
        if let Op::DeleteRange(delete) = op {
            all.delete(&delete.range);
        }
    }
    for op in ops {
        if let Op::Txn(txn) = op {
            // Only one of the two branches runs, so they need not agree with each other; both must agree with the rest.
            let mut either = touched(&txn.success)?;
            either.unite(touched(&txn.failure)?);
            all.follow(either)?;
        }
    }
    for op in ops {
        if let Op::Put(put) = op {
            all.put(&put.key)?;
        }
    }
    Ok(all)
}

#[derive(Default)]
struct Touched<'a> {
    puts: BTreeSet<&'a [u8]>,
    deleted_keys: BTreeSet<&'a [u8]>,
    /// Start → end, disjoint.
    deleted_spans: BTreeMap<&'a [u8], &'a [u8]>,
}

impl<'a> Touched<'a> {
    fn put(&mut self, key: &'a [u8]) -> Result<(), Error> {
        if self.deletes(key) || !self.puts.insert(key) { Err(Error::DuplicateKey) } else { Ok(()) }
    }

    fn deletes(&self, key: &[u8]) -> bool {
        self.deleted_keys.contains(key)
            || self.deleted_spans.range(..=key).next_back().is_some_and(|(_, end)| key < *end)
    }

    fn delete(&mut self, range: &'a KeyRange) {
        match range {
            KeyRange::One(key) => drop(self.deleted_keys.insert(key)),
            KeyRange::Span { start, end } => self.delete_span(start, end),
            KeyRange::From(_) => {}
        }
    }

    /// Keeps the spans disjoint, so that one look finds the only span that can hold a key.
    fn delete_span(&mut self, mut start: &'a [u8], mut end: &'a [u8]) {
        if end <= start {
            return;
        }
        while let Some((&other, &other_end)) = self.deleted_spans.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.deleted_spans.remove(other);
            (start, end) = (start.min(other), end.max(other_end));
        }
        self.deleted_spans.insert(start, end);
    }

    /// What runs instead: nothing can clash.
    fn unite(&mut self, other: Touched<'a>) {
        self.deleted_keys.extend(other.deleted_keys);
        other.deleted_spans.into_iter().for_each(|(start, end)| self.delete_span(start, end));
        self.puts.extend(other.puts);
    }

    /// What runs as well.
    fn follow(&mut self, other: Touched<'a>) -> Result<(), Error> {
        if other.puts.iter().any(|key| self.puts.contains(key) || self.deletes(key)) {
            return Err(Error::DuplicateKey);
        }
        self.unite(other);
        Ok(())
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
