//! The `protobuf` format: the wire's own bytes, for what is one message.

use super::{Answer, Failure};
use crate::pb::etcdserverpb::AuthEnableResponse;
use prost::Message;

/// The bytes of the message. Lists over endpoints are no message.
pub fn render(answer: &Answer) -> Result<Vec<u8>, Failure> {
    Ok(match answer {
        Answer::Get(answer) => answer.encode_to_vec(),
        Answer::Put(answer) => answer.encode_to_vec(),
        Answer::Delete(answer) => answer.encode_to_vec(),
        Answer::Txn(answer) => answer.encode_to_vec(),
        Answer::Watch(answer) => answer.encode_to_vec(),
        Answer::Grant(answer) => answer.encode_to_vec(),
        Answer::Revoke(_, answer) => answer.encode_to_vec(),
        Answer::TimeToLive(answer, _) => answer.encode_to_vec(),
        Answer::KeepAlive(answer) => answer.encode_to_vec(),
        Answer::Leases(answer) => answer.encode_to_vec(),
        Answer::Members(answer) => answer.encode_to_vec(),
        Answer::MemberAdd(answer) => answer.encode_to_vec(),
        Answer::MemberRemove(_, answer) => answer.encode_to_vec(),
        Answer::MemberUpdate(_, answer) => answer.encode_to_vec(),
        Answer::MemberPromote(_, answer) => answer.encode_to_vec(),
        Answer::MoveLeader { answer, .. } => answer.encode_to_vec(),
        Answer::Downgrade(_, answer) => answer.encode_to_vec(),
        // They have a header, all under the same number.
        Answer::AuthChange(_, header) => AuthEnableResponse { header: *header }.encode_to_vec(),
        Answer::AuthStatus(answer) => answer.encode_to_vec(),
        Answer::UserGet(_, answer) => answer.encode_to_vec(),
        Answer::UserList(answer) => answer.encode_to_vec(),
        Answer::RoleGet(_, answer) => answer.encode_to_vec(),
        Answer::RoleList(answer) => answer.encode_to_vec(),
        Answer::Alarms(answer) => answer.encode_to_vec(),
        Answer::Health(_)
        | Answer::Status(_)
        | Answer::HashKv(_)
        | Answer::Ring(_)
        | Answer::RingReached(_)
        | Answer::Snapshot(_)
        | Answer::SnapshotHash(_) => {
            return Err(Failure::unsupported("protobuf not supported as output format"));
        }
    })
}
