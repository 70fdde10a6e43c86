//! Changes of membership as bytes of the log: `raftpb.ConfChange`, whose context is the member as JSON, as etcd has it. What etcd does not
//! do, several changes at once, is `raftpb.ConfChangeV2`, as its raft has it, with the members in a list.

use crate::{
    machine::command::RequestId,
    membership::{Change, Changes, Member},
    pb::raftpb::{self, ConfChangeTransition as Transition, ConfChangeType as Type},
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

/// What stands beside the steps of a change with several: raft's message has room for neither the members nor who waits.
#[derive(Serialize, Deserialize)]
struct ContextOfSeveral {
    #[serde(rename = "requestID")]
    request: u64,
    /// One for each step, in their order; `null` for a member that leaves.
    members: Vec<Option<Context>>,
}

/// The kind and the bytes of the log entry that makes one change: `raftpb.ConfChange`, as etcd writes it.
pub fn encode_conf_change(id: RequestId, change: &Change) -> (EntryKind, Bytes) {
    let (kind, context) = describe(change);
    let context = context.map_or(Bytes::new(), |context| json(&context));
    let change = raftpb::ConfChange { r#type: kind.into(), node_id: change.member().0, context, id: id.0 };
    (EntryKind::ConfChange, change.encode_to_vec().into())
}

/// The kind and the bytes of the log entry that makes `changes`: `raftpb.ConfChangeV2` if they are not just one.
pub fn encode_conf_changes(id: RequestId, changes: &Changes) -> (EntryKind, Bytes) {
    let (transition, changes) = match changes {
        Changes::One(change) => return encode_conf_change(id, change),
        Changes::Leave => (Transition::Auto, &[][..]),
        Changes::Joint { changes, auto_leave: true } => (Transition::JointImplicit, &changes[..]),
        Changes::Joint { changes, auto_leave: false } => (Transition::JointExplicit, &changes[..]),
    };
    let steps = changes.iter().map(|change| {
        let (kind, context) = describe(change);
        (raftpb::ConfChangeSingle { r#type: kind.into(), node_id: change.member().0 }, context)
    });
    let (steps, members) = steps.unzip();
    let context = json(&ContextOfSeveral { request: id.0, members });
    let change = raftpb::ConfChangeV2 { transition: transition.into(), changes: steps, context };
    (EntryKind::ConfChangeV2, change.encode_to_vec().into())
}

fn json(context: &impl Serialize) -> Bytes {
    serde_json::to_vec(context).expect("numbers, strings and lists of them are always JSON").into()
}

/// Raft's word for a change, and what etcd tells beside it.
fn describe(change: &Change) -> (Type, Option<Context>) {
    match change {
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
            (kind, Some(context))
        }
        Change::Promote(member) => {
            let context = Context { id: member.0, is_promote: true, ..Context::default() };
            (Type::ConfChangeAddNode, Some(context))
        }
        Change::Remove(_) => (Type::ConfChangeRemoveNode, None),
        Change::UpdatePeers(member, urls) => {
            let context = Context { id: member.0, peer_urls: Some(urls.clone()), ..Context::default() };
            (Type::ConfChangeUpdateNode, Some(context))
        }
    }
}

/// Reads a log entry that changes membership.
///
/// # Errors
/// A text, if the bytes are malformed. The id is 0 where the bytes don't tell.
pub fn decode_conf_change(kind: EntryKind, data: Bytes) -> (RequestId, Result<Changes, String>) {
    if kind == EntryKind::ConfChangeV2 {
        return match raftpb::ConfChangeV2::decode(data) {
            Ok(change) => decode_v2(&change),
            Err(error) => (RequestId(0), Err(malformed(&error))),
        };
    }
    match raftpb::ConfChange::decode(data) {
        Ok(change) => (RequestId(change.id), decode_one(change.r#type, change.node_id, &change.context)),
        Err(error) => (RequestId(0), Err(malformed(&error))),
    }
}

/// Without steps it is the end of a joint membership: that is how raft itself writes it. One step alone, if it does not ask for a joint
/// membership, is a change as any other, with its member as the context.
fn decode_v2(change: &raftpb::ConfChangeV2) -> (RequestId, Result<Changes, String>) {
    let several = serde_json::from_slice::<ContextOfSeveral>(&change.context);
    let id = several.as_ref().map_or(RequestId(0), |several| RequestId(several.request));
    let auto_leave = match Transition::try_from(change.transition) {
        Ok(transition) => transition != Transition::JointExplicit,
        Err(_) => return (id, Err(format!("unknown transition {} of a change of membership", change.transition))),
    };
    let is_auto = change.transition == i32::from(Transition::Auto);
    let decoded = match (&change.changes[..], several) {
        ([], _) if is_auto => Ok(Changes::Leave),
        ([one], Err(_)) if is_auto => decode_one(one.r#type, one.node_id, &change.context),
        (steps, Ok(several)) if steps.len() == several.members.len() => {
            let each = steps.iter().zip(several.members);
            let changes =
                each.map(|(step, context)| decode_change(step.r#type, step.node_id, context)).collect::<Result<_, _>>();
            changes.map(|changes| Changes::Joint { changes, auto_leave })
        }
        (steps, Ok(several)) => Err(format!(
            "a change of membership in {} steps that describes {} members",
            steps.len(),
            several.members.len()
        )),
        (_, Err(error)) => Err(format!("a change of membership whose members can't be read: {error}")),
    };
    (id, decoded)
}

fn malformed(error: &prost::DecodeError) -> String {
    format!("malformed change of membership: {error}")
}

fn decode_one(kind: i32, node: u64, context: &[u8]) -> Result<Changes, String> {
    let described = match context.is_empty() || kind == i32::from(Type::ConfChangeRemoveNode) {
        true => Ok(None),
        false => serde_json::from_slice(context).map(Some),
    };
    let context = described.map_err(|error| format!("a change of membership whose member can't be read: {error}"))?;
    decode_change(kind, node, context).map(Changes::One)
}

fn decode_change(kind: i32, node: u64, context: Option<Context>) -> Result<Change, String> {
    let id = MemberId(node);
    let kind = Type::try_from(kind).map_err(|_| format!("unknown kind {kind} of a change of membership"))?;
    if node == 0 {
        return Err("a change of membership names no member".into());
    }
    if kind == Type::ConfChangeRemoveNode {
        return Ok(Change::Remove(id));
    }
    let context = context.ok_or_else(|| format!("a change of member {id} that does not describe it"))?;
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
