//! Our words → the wire. Key and value bytes are shared, never copied.

use super::Header;
use crate::{
    machine::{AlarmKind, OpReply, TxnReply},
    membership::Member,
    mvcc::{KeyValue, RangeResult},
    pb::{
        etcdserverpb::{self as pb, response_op::Response},
        mvccpb,
    },
    types::{MemberId, Revision},
};

/// A stored version.
pub fn kv(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
        value: kv.value,
        lease: kv.lease.0,
    }
}

/// Several of them.
pub fn kvs(list: Vec<KeyValue>) -> Vec<mvccpb::KeyValue> {
    list.into_iter().map(kv).collect()
}

/// An answer to a range.
pub fn range(header: Option<pb::ResponseHeader>, result: RangeResult) -> pb::RangeResponse {
    pb::RangeResponse { header, kvs: kvs(result.kvs), more: result.more, count: result.count }
}

/// An answer to a transaction.
pub fn txn(header: Header, reply: TxnReply) -> pb::TxnResponse {
    pb::TxnResponse {
        header: header.to_wire(),
        succeeded: reply.succeeded,
        responses: steps(reply.responses, header.revision),
    }
}

/// The headers inside carry a revision alone, those of nested transactions nothing, as in etcd.
fn steps(responses: Vec<OpReply>, revision: Revision) -> Vec<pb::ResponseOp> {
    let at = |revision: Revision| Some(pb::ResponseHeader { revision: revision.0, ..Default::default() });
    let one = |step| match step {
        OpReply::Range(result) => Response::ResponseRange(range(at(result.revision), result)),
        OpReply::Put { prev } => Response::ResponsePut(pb::PutResponse { header: at(revision), prev_kv: prev.map(kv) }),
        OpReply::DeleteRange { deleted, prevs, revision } => Response::ResponseDeleteRange(pb::DeleteRangeResponse {
            header: at(revision),
            deleted,
            prev_kvs: kvs(prevs),
        }),
        OpReply::Txn(reply) => Response::ResponseTxn(pb::TxnResponse {
            header: Some(pb::ResponseHeader::default()),
            succeeded: reply.succeeded,
            responses: steps(reply.responses, revision),
        }),
    };
    responses.into_iter().map(|step| pb::ResponseOp { response: Some(one(step)) }).collect()
}

/// A member of the cluster.
pub fn member(member: Member) -> pb::Member {
    pb::Member {
        id: member.id.0,
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
        is_learner: member.is_learner,
    }
}

/// An active alarm.
pub fn alarm((member, kind): (MemberId, AlarmKind)) -> pb::AlarmMember {
    let alarm = match kind {
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    };
    pb::AlarmMember { member_id: member.0, alarm: alarm.into() }
}
