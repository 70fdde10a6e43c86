//! Changes of membership as bytes of the log: `raftpb.ConfChange`, whose context is the member as JSON, as etcd has it.

use crate::{
    machine::command::RequestId,
    membership::{Change, Member},
    pb::raftpb::{self, ConfChangeType as Type},
    types::{EntryKind, MemberId},
};
use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Serialize};

/// etcd's JSON of a member. Fields stand in etcd's order, and empty ones are left out where etcd leaves them out.
#[derive(Default, Serialize, Deserialize)]
struct Context {
    id: u64,
    /// etcd writes an empty list as `null`.
    #[serde(rename = "peerURLs", default)]
    peer_urls: Option<Vec<String>>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Option::is_none")]
    client_urls: Option<Vec<String>>,
    #[serde(rename = "isPromote", default, skip_serializing_if = "std::ops::Not::not")]
    is_promote: bool,
}

/// The kind and the bytes of the log entry that makes `change`.
pub fn encode_conf_change(id: RequestId, change: &Change) -> (EntryKind, Bytes) {
    let (kind, member, context) = match change {
        Change::Add(member) => {
            let kind = if member.is_learner { Type::ConfChangeAddLearnerNode } else { Type::ConfChangeAddNode };
            let urls = |urls: &[String]| (!urls.is_empty()).then(|| urls.to_vec());
            let context = Context {
                id: member.id.0,
                peer_urls: urls(&member.peer_urls),
                is_learner: member.is_learner,
                name: member.name.clone(),
                client_urls: urls(&member.client_urls),
                is_promote: false,
            };
            (kind, member.id, Some(context))
        }
        Change::Promote(member) => {
            let context = Context { id: member.0, is_promote: true, ..Context::default() };
            (Type::ConfChangeAddNode, *member, Some(context))
        }
        Change::Remove(member) => (Type::ConfChangeRemoveNode, *member, None),
        Change::UpdatePeers(member, urls) => {
            let context = Context { id: member.0, peer_urls: Some(urls.clone()), ..Context::default() };
            (Type::ConfChangeUpdateNode, *member, Some(context))
        }
    };
    let context = context.map_or(Bytes::new(), |context| {
        serde_json::to_vec(&context).expect("numbers, strings and lists of them are always JSON").into()
    });
    let change = raftpb::ConfChange { r#type: kind.into(), node_id: member.0, context, id: id.0 };
    (EntryKind::ConfChange, change.encode_to_vec().into())
}

/// Reads a log entry that changes membership. `None` is a change of nothing.
///
/// # Errors
/// A text, if the bytes are malformed or say something that this version can't do. The id is 0 where the bytes don't tell.
pub fn decode_conf_change(kind: EntryKind, data: Bytes) -> (RequestId, Result<Option<Change>, String>) {
    if kind == EntryKind::ConfChangeV2 {
        return (RequestId(0), decode_v2(data));
    }
    match raftpb::ConfChange::decode(data) {
        Ok(change) => (RequestId(change.id), decode_change(change.r#type, change.node_id, &change.context).map(Some)),
        Err(error) => (RequestId(0), Err(format!("malformed change of membership: {error}"))),
    }
}

/// Of the changes with several steps only those are known that have one, or none (which is how raft leaves a joint state).
fn decode_v2(data: Bytes) -> Result<Option<Change>, String> {
    let change =
        raftpb::ConfChangeV2::decode(data).map_err(|error| format!("malformed change of membership: {error}"))?;
    match change.changes[..] {
        [] => Ok(None),
        [one] => decode_change(one.r#type, one.node_id, &change.context).map(Some),
        _ => Err(format!("a change of membership in {} steps is not supported by this version", change.changes.len())),
    }
}

fn decode_change(kind: i32, node: u64, context: &[u8]) -> Result<Change, String> {
    let id = MemberId(node);
    let kind = Type::try_from(kind).map_err(|_| format!("unknown kind {kind} of a change of membership"))?;
    if node == 0 {
        return Err("a change of membership names no member".into());
    }
    if kind == Type::ConfChangeRemoveNode {
        return Ok(Change::Remove(id));
    }
    let context: Context = serde_json::from_slice(context)
        .map_err(|error| format!("a change of membership whose member can't be read: {error}"))?;
    if context.id != node {
        return Err(format!("a change of member {id} that describes member {:x}", context.id));
    }
    let peer_urls = context.peer_urls.unwrap_or_default();
    Ok(match kind {
        _ if context.is_promote => Change::Promote(id),
        Type::ConfChangeUpdateNode => Change::UpdatePeers(id, peer_urls),
        // Raft acts on the kind alone, so the kind decides who learns.
        _ => Change::Add(Member {
            id,
            name: context.name,
            peer_urls,
            client_urls: context.client_urls.unwrap_or_default(),
            is_learner: kind == Type::ConfChangeAddLearnerNode,
        }),
    })
}
