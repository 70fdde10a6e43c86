//! Commands as bytes of the log: etcd's `InternalRaftRequest`, and `raftpb.ConfChange` for changes of membership.
//!
//! A log that etcd v3.5 or later wrote is read as well: the request's id then stands in the header, or in the older field
//! beside it. Bytes that are no command of ours give a text, never a panic: the entry then changes nothing, on every member.
//!
//! Keys and values are slices of the entry's own bytes, in both directions.

mod auth;
mod conf;
#[cfg(test)]
mod tests;

pub use conf::{decode_conf_change, encode_conf_change, encode_conf_changes};

use super::command::{
    AlarmAction, AlarmKind, Command, Compare, CompareResult, CompareTarget, DeleteRange, Op, Put, RequestId, Txn,
};
use crate::{
    auth::Author,
    mvcc::{RangeQuery, SortOrder, SortTarget},
    pb::{
        etcdserverpb::{self as wire, alarm_request, compare, range_request, request_op},
        membershippb,
    },
    types::{Key, KeyRange, LeaseId, MemberId, Revision},
};
use bytes::Bytes;
use prost::Message;

/// The bytes of a normal log entry: what `author` asks for.
pub fn encode(id: RequestId, author: &Author, command: &Command) -> Bytes {
    let (username, auth_revision) = author.to_header();
    let header = wire::RequestHeader { id: id.0, username: username.to_owned(), auth_revision };
    let mut request = wire::InternalRaftRequest { header: Some(header), ..Default::default() };
    match command {
        Command::Put(put) => request.put = Some(put_to_wire(put)),
        Command::DeleteRange(delete) => request.delete_range = Some(delete_to_wire(delete)),
        Command::Txn(txn) => request.txn = Some(txn_to_wire(txn)),
        Command::Range(query) => request.range = Some(query_to_wire(query)),
        Command::Compact { revision, physical } => {
            request.compaction = Some(wire::CompactionRequest { revision: revision.0, physical: *physical });
        }
        Command::LeaseGrant { id, ttl_s } => {
            request.lease_grant = Some(wire::LeaseGrantRequest { ttl: *ttl_s, id: id.0 });
        }
        Command::LeaseRevoke { id } => request.lease_revoke = Some(wire::LeaseRevokeRequest { id: id.0 }),
        Command::LeaseCheckpoint(leases) => {
            let one = |(id, left): &(LeaseId, i64)| wire::LeaseCheckpoint { id: id.0, remaining_ttl: *left };
            let checkpoints = leases.iter().map(one).collect();
            request.lease_checkpoint = Some(wire::LeaseCheckpointRequest { checkpoints });
        }
        Command::Alarm { action, member, kind } => {
            let action = match action {
                AlarmAction::Get => alarm_request::AlarmAction::Get,
                AlarmAction::Activate => alarm_request::AlarmAction::Activate,
                AlarmAction::Deactivate => alarm_request::AlarmAction::Deactivate,
            };
            let alarm = kind.map_or(0, |kind| kind as i32);
            request.alarm = Some(wire::AlarmRequest { action: action.into(), member_id: member.0, alarm });
        }
        Command::ClusterVersionSet { version } => {
            request.cluster_version_set = Some(membershippb::ClusterVersionSetRequest { ver: version.clone() });
        }
        Command::MemberAttributes { member, name, client_urls } => {
            let attributes = membershippb::Attributes { name: name.clone(), client_urls: client_urls.clone() };
            let member_attributes = Some(attributes);
            request.cluster_member_attr_set =
                Some(membershippb::ClusterMemberAttrSetRequest { member_id: member.0, member_attributes });
        }
        Command::DowngradeInfo { enabled, version } => {
            request.downgrade_info_set =
                Some(membershippb::DowngradeInfoSetRequest { enabled: *enabled, ver: version.clone() });
        }
        Command::Auth(auth) => auth::to_wire(auth, &mut request),
    }
    request.encode_to_vec().into()
}

/// Reads a normal log entry.
///
/// # Errors
/// A text for whoever proposed it or reads the log, if the bytes are no `InternalRaftRequest`, or hold no command that is known here.
pub fn decode(data: Bytes) -> Result<(RequestId, Author, Command), String> {
    let mut request =
        wire::InternalRaftRequest::decode(data).map_err(|error| format!("malformed log entry: {error}"))?;
    // etcd reads the older field first.
    let id = if request.id != 0 { request.id } else { request.header.as_ref().map_or(0, |header| header.id) };
    let header = request.header.take().unwrap_or_default();
    Ok((RequestId(id), Author::from_header(&header.username, header.auth_revision), command(request)?))
}

fn command(mut request: wire::InternalRaftRequest) -> Result<Command, String> {
    if let Some(put) = request.put {
        return Ok(Command::Put(put_from_wire(put)));
    }
    if let Some(delete) = request.delete_range {
        return Ok(Command::DeleteRange(delete_from_wire(delete)));
    }
    if let Some(txn) = request.txn {
        return Ok(Command::Txn(txn_from_wire(txn)?));
    }
    if let Some(range) = request.range {
        return Ok(Command::Range(query_from_wire(range)?));
    }
    if let Some(wire::CompactionRequest { revision, physical }) = request.compaction {
        return Ok(Command::Compact { revision: Revision(revision), physical });
    }
    if let Some(wire::LeaseGrantRequest { ttl, id }) = request.lease_grant {
        return Ok(Command::LeaseGrant { id: LeaseId(id), ttl_s: ttl });
    }
    if let Some(wire::LeaseRevokeRequest { id }) = request.lease_revoke {
        return Ok(Command::LeaseRevoke { id: LeaseId(id) });
    }
    if let Some(wire::LeaseCheckpointRequest { checkpoints }) = request.lease_checkpoint {
        let one = |lease: wire::LeaseCheckpoint| (LeaseId(lease.id), lease.remaining_ttl);
        return Ok(Command::LeaseCheckpoint(checkpoints.into_iter().map(one).collect()));
    }
    if let Some(alarm) = request.alarm {
        return alarm_from_wire(&alarm);
    }
    if let Some(membershippb::ClusterVersionSetRequest { ver }) = request.cluster_version_set {
        return Ok(Command::ClusterVersionSet { version: ver });
    }
    if let Some(membershippb::ClusterMemberAttrSetRequest { member_id, member_attributes }) =
        request.cluster_member_attr_set
    {
        let membershippb::Attributes { name, client_urls } = member_attributes.unwrap_or_default();
        return Ok(Command::MemberAttributes { member: MemberId(member_id), name, client_urls });
    }
    if let Some(membershippb::DowngradeInfoSetRequest { enabled, ver }) = request.downgrade_info_set {
        return Ok(Command::DowngradeInfo { enabled, version: ver });
    }
    if let Some(request) = auth::from_wire(&mut request)? {
        return Ok(Command::Auth(request));
    }
    Err(match request.downgrade_version_test {
        // Named, so that an operator knows which feature the log has used.
        Some(_) => "the log entry's command downgrade_version_test is not supported by this version".into(),
        None => "the log entry holds no command that this version knows".into(),
    })
}

fn put_to_wire(put: &Put) -> wire::PutRequest {
    wire::PutRequest {
        key: put.key.clone(),
        value: put.value.clone(),
        lease: put.lease.0,
        prev_kv: put.prev_kv,
        ignore_value: put.ignore_value,
        ignore_lease: put.ignore_lease,
    }
}

fn put_from_wire(put: wire::PutRequest) -> Put {
    let wire::PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease } = put;
    Put { key, value, lease: LeaseId(lease), prev_kv, ignore_value, ignore_lease }
}

fn delete_to_wire(delete: &DeleteRange) -> wire::DeleteRangeRequest {
    let (key, range_end) = range_to_wire(&delete.range);
    wire::DeleteRangeRequest { key, range_end, prev_kv: delete.prev_kv }
}

fn delete_from_wire(delete: wire::DeleteRangeRequest) -> DeleteRange {
    DeleteRange { range: KeyRange::from_wire(delete.key, delete.range_end), prev_kv: delete.prev_kv }
}

/// The inverse of [`KeyRange::from_wire`]: etcd can't say "from the empty key", and has the lowest key, a zero byte, stand for it.
fn range_to_wire(range: &KeyRange) -> (Key, Bytes) {
    const ZERO: Bytes = Bytes::from_static(&[0]);
    let start = |start: &Key| if start.is_empty() { ZERO } else { start.clone() };
    match range {
        KeyRange::One(key) => (key.clone(), Bytes::new()),
        KeyRange::From(key) => (start(key), ZERO),
        // An end that etcd would read as something else belongs to an empty range.
        KeyRange::Span { start: key, end } if end.is_empty() || end.as_ref() == [0] => (start(key), start(key)),
        KeyRange::Span { start: key, end } => (start(key), end.clone()),
    }
}

fn query_to_wire(query: &RangeQuery) -> wire::RangeRequest {
    let (key, range_end) = range_to_wire(&query.range);
    wire::RangeRequest {
        key,
        range_end,
        limit: query.limit,
        revision: query.revision.0,
        sort_order: match query.order {
            SortOrder::None => range_request::SortOrder::None,
            SortOrder::Ascend => range_request::SortOrder::Ascend,
            SortOrder::Descend => range_request::SortOrder::Descend,
        }
        .into(),
        sort_target: match query.target {
            SortTarget::Key => range_request::SortTarget::Key,
            SortTarget::Version => range_request::SortTarget::Version,
            SortTarget::Create => range_request::SortTarget::Create,
            SortTarget::Mod => range_request::SortTarget::Mod,
            SortTarget::Value => range_request::SortTarget::Value,
        }
        .into(),
        serializable: false,
        keys_only: query.keys_only,
        count_only: query.count_only,
        min_mod_revision: query.min_mod,
        max_mod_revision: query.max_mod,
        min_create_revision: query.min_create,
        max_create_revision: query.max_create,
    }
}

fn query_from_wire(range: wire::RangeRequest) -> Result<RangeQuery, String> {
    let order = match range_request::SortOrder::try_from(range.sort_order) {
        Ok(range_request::SortOrder::None) => SortOrder::None,
        Ok(range_request::SortOrder::Ascend) => SortOrder::Ascend,
        Ok(range_request::SortOrder::Descend) => SortOrder::Descend,
        Err(_) => return Err(format!("unknown sort order {}", range.sort_order)),
    };
    let target = match range_request::SortTarget::try_from(range.sort_target) {
        Ok(range_request::SortTarget::Key) => SortTarget::Key,
        Ok(range_request::SortTarget::Version) => SortTarget::Version,
        Ok(range_request::SortTarget::Create) => SortTarget::Create,
        Ok(range_request::SortTarget::Mod) => SortTarget::Mod,
        Ok(range_request::SortTarget::Value) => SortTarget::Value,
        Err(_) => return Err(format!("unknown sort target {}", range.sort_target)),
    };
    Ok(RangeQuery {
        range: KeyRange::from_wire(range.key, range.range_end),
        limit: range.limit,
        revision: Revision(range.revision),
        order,
        target,
        keys_only: range.keys_only,
        count_only: range.count_only,
        min_mod: range.min_mod_revision,
        max_mod: range.max_mod_revision,
        min_create: range.min_create_revision,
        max_create: range.max_create_revision,
    })
}

fn txn_to_wire(txn: &Txn) -> wire::TxnRequest {
    let ops = |ops: &[Op]| ops.iter().map(op_to_wire).collect();
    wire::TxnRequest {
        compare: txn.compares.iter().map(compare_to_wire).collect(),
        success: ops(&txn.success),
        failure: ops(&txn.failure),
    }
}

fn txn_from_wire(txn: wire::TxnRequest) -> Result<Txn, String> {
    let ops = |ops: Vec<wire::RequestOp>| ops.into_iter().map(op_from_wire).collect::<Result<Vec<_>, _>>();
    Ok(Txn {
        compares: txn.compare.into_iter().map(compare_from_wire).collect::<Result<_, _>>()?,
        success: ops(txn.success)?,
        failure: ops(txn.failure)?,
    })
}

fn op_to_wire(op: &Op) -> wire::RequestOp {
    let request = match op {
        Op::Range(query) => request_op::Request::RequestRange(query_to_wire(query)),
        Op::Put(put) => request_op::Request::RequestPut(put_to_wire(put)),
        Op::DeleteRange(delete) => request_op::Request::RequestDeleteRange(delete_to_wire(delete)),
        Op::Txn(txn) => request_op::Request::RequestTxn(txn_to_wire(txn)),
    };
    wire::RequestOp { request: Some(request) }
}

fn op_from_wire(op: wire::RequestOp) -> Result<Op, String> {
    Ok(match op.request {
        Some(request_op::Request::RequestRange(range)) => Op::Range(query_from_wire(range)?),
        Some(request_op::Request::RequestPut(put)) => Op::Put(put_from_wire(put)),
        Some(request_op::Request::RequestDeleteRange(delete)) => Op::DeleteRange(delete_from_wire(delete)),
        Some(request_op::Request::RequestTxn(txn)) => Op::Txn(txn_from_wire(txn)?),
        None => return Err("a transaction holds an operation that this version doesn't know".into()),
    })
}

fn compare_to_wire(compare: &Compare) -> wire::Compare {
    use compare::{CompareResult as Result, CompareTarget as Target, TargetUnion as Operand};
    let (key, range_end) = range_to_wire(&compare.range);
    let (target, operand) = match &compare.target {
        CompareTarget::Version(version) => (Target::Version, Operand::Version(*version)),
        CompareTarget::Create(revision) => (Target::Create, Operand::CreateRevision(*revision)),
        CompareTarget::Mod(revision) => (Target::Mod, Operand::ModRevision(*revision)),
        CompareTarget::Value(value) => (Target::Value, Operand::Value(value.clone())),
        CompareTarget::Lease(lease) => (Target::Lease, Operand::Lease(*lease)),
    };
    let result = match compare.result {
        CompareResult::Equal => Result::Equal,
        CompareResult::Greater => Result::Greater,
        CompareResult::Less => Result::Less,
        CompareResult::NotEqual => Result::NotEqual,
    };
    wire::Compare { result: result.into(), target: target.into(), key, range_end, target_union: Some(operand) }
}

fn compare_from_wire(compare: wire::Compare) -> Result<Compare, String> {
    use compare::{CompareTarget as Target, TargetUnion as Operand};
    // An operand that is missing, or belongs to another target, counts as zero or empty, as in etcd.
    let target = match (Target::try_from(compare.target), compare.target_union) {
        (Ok(Target::Version), Some(Operand::Version(version))) => CompareTarget::Version(version),
        (Ok(Target::Version), _) => CompareTarget::Version(0),
        (Ok(Target::Create), Some(Operand::CreateRevision(revision))) => CompareTarget::Create(revision),
        (Ok(Target::Create), _) => CompareTarget::Create(0),
        (Ok(Target::Mod), Some(Operand::ModRevision(revision))) => CompareTarget::Mod(revision),
        (Ok(Target::Mod), _) => CompareTarget::Mod(0),
        (Ok(Target::Value), Some(Operand::Value(value))) => CompareTarget::Value(value),
        (Ok(Target::Value), _) => CompareTarget::Value(Bytes::new()),
        (Ok(Target::Lease), Some(Operand::Lease(lease))) => CompareTarget::Lease(lease),
        (Ok(Target::Lease), _) => CompareTarget::Lease(0),
        (Err(_), _) => return Err(format!("unknown target {} of a compare", compare.target)),
    };
    let result = match compare::CompareResult::try_from(compare.result) {
        Ok(compare::CompareResult::Equal) => CompareResult::Equal,
        Ok(compare::CompareResult::Greater) => CompareResult::Greater,
        Ok(compare::CompareResult::Less) => CompareResult::Less,
        Ok(compare::CompareResult::NotEqual) => CompareResult::NotEqual,
        Err(_) => return Err(format!("unknown result {} of a compare", compare.result)),
    };
    Ok(Compare { range: KeyRange::from_wire(compare.key, compare.range_end), target, result })
}

fn alarm_from_wire(alarm: &wire::AlarmRequest) -> Result<Command, String> {
    let action = match alarm_request::AlarmAction::try_from(alarm.action) {
        Ok(alarm_request::AlarmAction::Get) => AlarmAction::Get,
        Ok(alarm_request::AlarmAction::Activate) => AlarmAction::Activate,
        Ok(alarm_request::AlarmAction::Deactivate) => AlarmAction::Deactivate,
        Err(_) => return Err(format!("unknown action {} of an alarm", alarm.action)),
    };
    let kind = AlarmKind::from_number(alarm.alarm);
    if kind.is_none() && alarm.alarm != 0 {
        return Err(format!("unknown kind {} of an alarm", alarm.alarm));
    }
    Ok(Command::Alarm { action, member: MemberId(alarm.member_id), kind })
}
