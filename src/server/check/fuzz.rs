//! Any requests of clients, one after the other: what passes is a command that a machine can do, and a read that needs no log is the same read.

use super::{Limits, alarm, delete_range, downgrade, put, range, range_stream, txn};
use crate::{
    auth::Author,
    engine::Memory,
    machine::{self, AlarmKind, Applied, Command, Machine, Reply, RequestId, codec},
    mvcc::Unmetered,
    pb::etcdserverpb::{self as pb, compare, request_op},
    server::{Header, convert, read_txn},
    types::{ClusterId, Entry, EntryKind, Error, LeaseId, MemberId, Revision, Term},
};
use bytes::Bytes;
use prost::Message;
use std::sync::Arc;

const TERM: Term = Term(1);

/// Makes the requests that `data` is: a letter for the kind, two bytes for a length, and so many bytes.
pub(crate) fn target(data: &[u8]) {
    let engine = Arc::new(Memory::default());
    let mut machine = Machine::open(engine, machine::Settings::default()).expect("memory");
    let mut rest = data;
    while let Some(([kind, low, high], after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (body, after) = after.split_at(length);
        rest = after;
        if let Some(command) = command(*kind, Bytes::copy_from_slice(body)) {
            done(&mut machine, command);
        }
    }
}

/// What goes on of a request; `None` if it is none, or refused.
fn command(kind: u8, body: Bytes) -> Option<Command> {
    Some(match kind {
        b'p' => Command::Put(put(pb::PutRequest::decode(body).ok()?).ok()?),
        b'd' => Command::DeleteRange(delete_range(pb::DeleteRangeRequest::decode(body).ok()?).ok()?),
        b't' => Command::Txn(txn(pb::TxnRequest::decode(body).ok()?, &Limits::default()).ok()?.txn),
        b'r' => Command::Range(range(pb::RangeRequest::decode(body).ok()?).ok()?.query),
        b's' => Command::Range(range_stream(pb::RangeRequest::decode(body).ok()?).ok()?.query),
        b'a' => alarm(&pb::AlarmRequest::decode(body).ok()?).ok()?,
        b'c' => {
            let pb::CompactionRequest { revision, physical } = pb::CompactionRequest::decode(body).ok()?;
            Command::Compact { revision: Revision(revision), physical }
        }
        b'g' => {
            let pb::LeaseGrantRequest { id, ttl } = pb::LeaseGrantRequest::decode(body).ok()?;
            Command::LeaseGrant { id: LeaseId(id), ttl_s: ttl }
        }
        b'v' => Command::LeaseRevoke { id: LeaseId(pb::LeaseRevokeRequest::decode(body).ok()?.id) },
        _ => {
            let _ = downgrade(&pb::DowngradeRequest::decode(body).ok()?);
            return None;
        }
    })
}

fn done(machine: &mut Machine, command: Command) {
    let reader = machine.reader();
    let read = match &command {
        Command::Txn(txn) if txn.is_read_only() => {
            Some(read_txn(&reader, txn, &mut Unmetered).expect("memory").map(|(reply, _)| Reply::Txn(reply)))
        }
        Command::Range(query) => Some(reader.range(query).expect("memory").map(Reply::Range)),
        _ => None,
    };
    let data = codec::encode(RequestId(1), &Author::Nobody, &command);
    assert_eq!(codec::decode(data.clone()), Ok((RequestId(1), Author::Nobody, command.clone())));
    // Then nothing may be read by way of the log.
    let is_corrupt = machine.view().has_alarm(AlarmKind::Corrupt);
    let entry = Entry { term: TERM, index: machine.applied().0.next(), kind: EntryKind::Normal, data };
    let mut outcome = machine.apply(vec![entry]).expect("memory");
    let Applied { result, revision, .. } = outcome.replies.pop().expect("each command is answered");
    if let Some(read) = read.filter(|_| !is_corrupt) {
        assert_eq!(result, read, "{command:?}");
    }
    match result {
        Ok(reply) => answered(&command, reply, revision),
        Err(error @ (Error::Invalid(_) | Error::EmptyKey)) => panic!("{command:?} has passed, but {error:?}"),
        Err(_) => {}
    }
}

/// An answer is of the kind of its command, and can be sent.
fn answered(command: &Command, reply: Reply, revision: Revision) {
    let header = Header { cluster_id: ClusterId(1), member_id: MemberId(1), revision, term: TERM };
    match (command, reply) {
        (Command::Put(put), Reply::Put { prev }) => assert!(put.prev_kv || prev.is_none()),
        (Command::DeleteRange(_), Reply::DeleteRange { deleted, prevs }) => {
            assert!(prevs.is_empty() || prevs.len() as i64 == deleted);
            convert::kvs(prevs);
        }
        (Command::Txn(_), Reply::Txn(reply)) => {
            let sent = convert::txn(header, reply).encode_to_vec();
            pb::TxnResponse::decode(&sent[..]).expect("what is sent is read");
        }
        (Command::Range(query), Reply::Range(result)) => {
            assert!(query.limit <= 0 || result.kvs.len() as i64 <= query.limit);
            convert::range(header.to_wire(), result);
        }
        (Command::Compact { .. }, Reply::Compact) | (Command::LeaseRevoke { .. }, Reply::LeaseRevoke) => {}
        (Command::LeaseGrant { id, .. }, Reply::LeaseGrant { id: granted, .. }) => assert_eq!(*id, granted),
        (Command::Alarm { .. }, Reply::Alarms(_)) => {}
        (command, reply) => panic!("{command:?} is answered by {reply:?}"),
    }
}

/// A history with requests of each kind.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let step = |kind: u8, body: Vec<u8>| [&[kind][..], &(body.len() as u16).to_le_bytes(), &body].concat();
    let put = |key: &'static str, lease| pb::PutRequest {
        key: key.into(),
        value: "value".into(),
        lease,
        prev_kv: true,
        ..Default::default()
    };
    let range = |key: &'static str, end: &'static str| pb::RangeRequest {
        key: key.into(),
        range_end: end.into(),
        ..Default::default()
    };
    let delete = pb::DeleteRangeRequest { key: "a".into(), range_end: "b".into(), prev_kv: true };
    let op = |request| pb::RequestOp { request: Some(request) };
    let holds = |number| pb::Compare {
        result: compare::CompareResult::Greater.into(),
        target: compare::CompareTarget::Mod.into(),
        key: "a".into(),
        range_end: Bytes::new(),
        target_union: Some(compare::TargetUnion::ModRevision(number)),
    };
    let reads = pb::TxnRequest {
        compare: vec![holds(0)],
        success: vec![op(request_op::Request::RequestRange(range("a", "\0")))],
        failure: vec![op(request_op::Request::RequestRange(pb::RangeRequest { revision: 2, ..range("a", "") }))],
    };
    let writes = pb::TxnRequest {
        compare: vec![holds(3)],
        success: vec![
            op(request_op::Request::RequestPut(put("c", 7))),
            op(request_op::Request::RequestTxn(reads.clone())),
            op(request_op::Request::RequestDeleteRange(delete.clone())),
        ],
        failure: vec![op(request_op::Request::RequestPut(put("d", 0)))],
    };
    let sorted = pb::RangeRequest { sort_order: 2, sort_target: 4, limit: 2, min_mod_revision: 1, ..range("\0", "\0") };
    let history = [
        step(b'g', pb::LeaseGrantRequest { id: 7, ttl: 60 }.encode_to_vec()),
        step(b'p', put("a", 0).encode_to_vec()),
        step(b'p', put("b", 7).encode_to_vec()),
        step(b't', reads.encode_to_vec()),
        step(b't', writes.encode_to_vec()),
        step(b'r', sorted.encode_to_vec()),
        step(b's', range("a", "z").encode_to_vec()),
        step(b'd', delete.encode_to_vec()),
        step(b'c', pb::CompactionRequest { revision: 3, physical: true }.encode_to_vec()),
        step(b'a', pb::AlarmRequest { action: 1, member_id: 5, alarm: 1 }.encode_to_vec()),
        step(b'v', pb::LeaseRevokeRequest { id: 7 }.encode_to_vec()),
        step(b'n', pb::DowngradeRequest { action: 1, version: "3.6.0".into() }.encode_to_vec()),
    ];
    let mut seeds = vec![history.concat()];
    seeds.extend(history.map(|step| step.to_vec()));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_seed_passes() {
        let passes = |seed: &Vec<u8>| command(seed[0], Bytes::copy_from_slice(&seed[3..])).is_some();
        let refused: Vec<_> =
            seeds()[1..].iter().filter(|seed| !passes(seed)).map(|seed| char::from(seed[0])).collect();
        // It goes into no log.
        assert_eq!(refused, ['n']);
    }
}
