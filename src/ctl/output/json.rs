//! The `json` format: what Go's encoder makes of etcd's types, field order and left-out zeros included.
//!
//! Written by hand: the names and orders are Go's, and differ from type to type, which no derive would give.

use super::{Answer, RingReached, ring, took};
use crate::pb::{
    etcdserverpb::{
        DeleteRangeResponse, HashKvResponse, Member, PutResponse, RangeResponse, ResponseHeader, StatusResponse,
        TxnResponse, WatchResponse, response_op::Response,
    },
    mvccpb::{Event, KeyValue},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use std::fmt::Display;

pub fn render(answer: &Answer, hex: bool) -> String {
    let text = match answer {
        Answer::Get(answer) => get(answer),
        Answer::Put(answer) => put(answer),
        Answer::Delete(answer) => delete(answer),
        Answer::Txn(answer) => txn(answer),
        Answer::Watch(answer) => watch(answer),
        Answer::Grant(answer) => flat(answer.header.as_ref())
            .number("ID", answer.id)
            .number("TTL", answer.ttl)
            .always("Error", string(&answer.error))
            .end(),
        Answer::Revoke(_, answer) => Object::new().header(answer.header.as_ref(), false).end(),
        Answer::TimeToLive(answer, _) => flat(answer.header.as_ref())
            .always("id", answer.id)
            .always("ttl", answer.ttl)
            .always("granted-ttl", answer.granted_ttl)
            .always("keys", list_or_null(answer.keys.iter().map(|key| bytes(key))))
            .end(),
        Answer::KeepAlive(answer) => {
            flat(answer.header.as_ref()).always("ID", answer.id).always("TTL", answer.ttl).end()
        }
        Answer::Leases(answer) => {
            let leases = answer.leases.iter().map(|lease| Object::new().always("id", lease.id).end());
            flat(answer.header.as_ref()).always("leases", list(leases)).end()
        }
        Answer::Members(answer) => changed(answer.header.as_ref(), &answer.members, hex),
        Answer::MemberAdd(answer) => {
            let one = answer.member.as_ref().map(|one| member(one, hex));
            Object::new().header(answer.header.as_ref(), hex).maybe("member", one).members(&answer.members, hex).end()
        }
        Answer::MemberRemove(_, answer) => changed(answer.header.as_ref(), &answer.members, hex),
        Answer::MemberUpdate(_, answer) => changed(answer.header.as_ref(), &answer.members, hex),
        Answer::MemberPromote(_, answer) => changed(answer.header.as_ref(), &answer.members, hex),
        Answer::MoveLeader { answer, .. } => Object::new().header(answer.header.as_ref(), false).end(),
        Answer::Downgrade(_, answer) => {
            Object::new().header(answer.header.as_ref(), false).text("version", &answer.version).end()
        }
        Answer::AuthChange(_, header) => Object::new().header(header.as_ref(), false).end(),
        Answer::AuthStatus(answer) => Object::new()
            .header(answer.header.as_ref(), false)
            .flag("enabled", answer.enabled)
            .number("authRevision", answer.auth_revision)
            .end(),
        Answer::UserGet(_, answer) => named(answer.header.as_ref(), "roles", &answer.roles),
        Answer::UserList(answer) => named(answer.header.as_ref(), "users", &answer.users),
        Answer::RoleGet(_, answer) => {
            let permissions = answer.perm.iter().map(|permission| {
                let bytes = |data: &[u8]| (!data.is_empty()).then(|| bytes(data));
                Object::new()
                    .number("permType", permission.perm_type)
                    .maybe("key", bytes(&permission.key))
                    .maybe("range_end", bytes(&permission.range_end))
                    .end()
            });
            Object::new().header(answer.header.as_ref(), false).list("perm", permissions).end()
        }
        Answer::RoleList(answer) => named(answer.header.as_ref(), "roles", &answer.roles),
        Answer::Alarms(answer) => {
            let alarms = answer.alarms.iter().map(|alarm| {
                Object::new().number("memberID", alarm.member_id).number("alarm", i64::from(alarm.alarm)).end()
            });
            Object::new().header(answer.header.as_ref(), false).list("alarms", alarms).end()
        }
        Answer::Health(all) => list_or_null(all.iter().map(|one| {
            Object::new()
                .always("endpoint", string(&one.endpoint))
                .always("health", one.error.is_none())
                .always("took", string(&took(one.took)))
                .text("error", one.error.as_deref().unwrap_or(""))
                .end()
        })),
        Answer::Status(all) => list_or_null(all.iter().map(|(endpoint, one)| {
            Object::new().always("Endpoint", string(endpoint)).always("Status", status(one)).end()
        })),
        Answer::HashKv(all) => list_or_null(all.iter().map(|(endpoint, one)| {
            Object::new().always("Endpoint", string(endpoint)).always("HashKV", hash_kv(one)).end()
        })),
        Answer::Ring(all) => ring::json(all),
        Answer::RingReached(RingReached { revision, reached, total }) => {
            Object::new().always("revision", revision).always("reached", reached).always("total", total).end()
        }
        Answer::Snapshot(status) => Object::new()
            .always("hash", status.hash)
            .always("revision", status.revision)
            .always("totalKey", status.total_keys)
            .always("totalSize", status.total_bytes)
            .always("version", string(&status.version))
            .end(),
        Answer::SnapshotHash(hash) => Object::new()
            .always("hash", hash.hash)
            .always("hashRevision", hash.hash_revision)
            .always("compactRevision", hash.compact_revision)
            .end(),
    };
    text + "\n"
}

fn get(answer: &RangeResponse) -> String {
    Object::new()
        .header(answer.header.as_ref(), false)
        .list("kvs", answer.kvs.iter().map(kv))
        .flag("more", answer.more)
        .number("count", answer.count)
        .end()
}

fn put(answer: &PutResponse) -> String {
    Object::new().header(answer.header.as_ref(), false).maybe("prev_kv", answer.prev_kv.as_ref().map(kv)).end()
}

fn delete(answer: &DeleteRangeResponse) -> String {
    Object::new()
        .header(answer.header.as_ref(), false)
        .number("deleted", answer.deleted)
        .list("prev_kvs", answer.prev_kvs.iter().map(kv))
        .end()
}

fn txn(answer: &TxnResponse) -> String {
    let responses = answer.responses.iter().map(|op| {
        let inner = match &op.response {
            Some(Response::ResponseRange(answer)) => Object::new().always("response_range", get(answer)),
            Some(Response::ResponsePut(answer)) => Object::new().always("response_put", put(answer)),
            Some(Response::ResponseDeleteRange(answer)) => {
                Object::new().always("response_delete_range", delete(answer))
            }
            Some(Response::ResponseTxn(answer)) => Object::new().always("response_txn", txn(answer)),
            None => Object::new(),
        };
        Object::new().always("Response", inner.end()).end()
    });
    Object::new()
        .header(answer.header.as_ref(), false)
        .flag("succeeded", answer.succeeded)
        .list("responses", responses)
        .end()
}

fn watch(answer: &WatchResponse) -> String {
    let event = |event: &Event| {
        Object::new()
            .number("type", i64::from(event.r#type))
            .maybe("kv", event.kv.as_ref().map(kv))
            .maybe("prev_kv", event.prev_kv.as_ref().map(kv))
            .end()
    };
    let header = flat(answer.header.as_ref()).end();
    Object::new()
        .always("Header", header)
        .always("Events", list_or_null(answer.events.iter().map(event)))
        .always("CompactRevision", answer.compact_revision)
        .always("Canceled", answer.canceled)
        .always("Created", answer.created)
        .always("CancelReason", string(&answer.cancel_reason))
        .end()
}

fn named(header: Option<&ResponseHeader>, what: &str, names: &[String]) -> String {
    Object::new().header(header, false).list(what, names.iter().map(|name| string(name))).end()
}

/// The members, as they are or as a change left them.
fn changed(header: Option<&ResponseHeader>, members: &[Member], hex: bool) -> String {
    Object::new().header(header, hex).members(members, hex).end()
}

fn member(member: &Member, hex: bool) -> String {
    Object::new()
        .id("ID", member.id, hex)
        .text("name", &member.name)
        .list("peerURLs", member.peer_ur_ls.iter().map(|url| string(url)))
        .list("clientURLs", member.client_ur_ls.iter().map(|url| string(url)))
        .flag("isLearner", member.is_learner)
        .end()
}

fn status(status: &StatusResponse) -> String {
    let downgrade = status
        .downgrade_info
        .as_ref()
        .map(|info| Object::new().flag("enabled", info.enabled).text("targetVersion", &info.target_version).end());
    Object::new()
        .header(status.header.as_ref(), false)
        .text("version", &status.version)
        .number("dbSize", status.db_size)
        .number("leader", status.leader)
        .number("raftIndex", status.raft_index)
        .number("raftTerm", status.raft_term)
        .number("raftAppliedIndex", status.raft_applied_index)
        .list("errors", status.errors.iter().map(|error| string(error)))
        .number("dbSizeInUse", status.db_size_in_use)
        .flag("isLearner", status.is_learner)
        .text("storageVersion", &status.storage_version)
        .number("dbSizeQuota", status.db_size_quota)
        .maybe("downgradeInfo", downgrade)
        .end()
}

fn hash_kv(hash: &HashKvResponse) -> String {
    Object::new()
        .header(hash.header.as_ref(), false)
        .number("hash", i64::from(hash.hash))
        .number("compact_revision", hash.compact_revision)
        .number("hash_revision", hash.hash_revision)
        .end()
}

fn kv(kv: &KeyValue) -> String {
    Object::new()
        .maybe("key", (!kv.key.is_empty()).then(|| bytes(&kv.key)))
        .number("create_revision", kv.create_revision)
        .number("mod_revision", kv.mod_revision)
        .number("version", kv.version)
        .maybe("value", (!kv.value.is_empty()).then(|| bytes(&kv.value)))
        .number("lease", kv.lease)
        .end()
}

pub(super) fn bytes(data: &[u8]) -> String {
    format!("\"{}\"", BASE64_STANDARD.encode(data))
}

pub(super) fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

/// What Go has for a list that nobody has added to.
fn list_or_null(items: impl Iterator<Item = String>) -> String {
    let mut items = items.peekable();
    if items.peek().is_none() { "null".to_owned() } else { list(items) }
}

/// A JSON string with what Go escapes besides: it keeps its output safe inside HTML.
pub(super) fn string(text: &str) -> String {
    let plain = serde_json::Value::from(text).to_string();
    plain.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// The lease and watch types of Go's client hold the header's fields themselves.
fn flat(header: Option<&ResponseHeader>) -> Object {
    let header = header.copied().unwrap_or_default();
    Object::new().header_fields(&header, false)
}

pub(super) struct Object {
    text: String,
}

impl Object {
    pub(super) fn new() -> Object {
        Object { text: "{".into() }
    }

    pub(super) fn always(mut self, name: &str, value: impl Display) -> Object {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        self.text.push_str(&format!("\"{name}\":{value}"));
        self
    }

    fn maybe(self, name: &str, value: Option<String>) -> Object {
        match value {
            Some(value) => self.always(name, value),
            None => self,
        }
    }

    /// Left out if 0.
    pub(super) fn number<N: Display + Default + PartialEq>(self, name: &str, value: N) -> Object {
        if value == N::default() { self } else { self.always(name, value) }
    }

    /// Left out if false.
    fn flag(self, name: &str, value: bool) -> Object {
        if value { self.always(name, true) } else { self }
    }

    /// Left out if empty.
    pub(super) fn text(self, name: &str, value: &str) -> Object {
        if value.is_empty() { self } else { self.always(name, string(value)) }
    }

    /// Left out if empty.
    fn list(self, name: &str, items: impl Iterator<Item = String>) -> Object {
        let mut items = items.peekable();
        if items.peek().is_none() { self } else { self.always(name, list(items)) }
    }

    /// A number, or with `--hex` a string of hex digits: 64-bit ids do not survive programs that read numbers as floats.
    fn id(self, name: &str, value: u64, hex: bool) -> Object {
        if hex { self.always(name, format!("\"{value:x}\"")) } else { self.number(name, value) }
    }

    fn members(self, members: &[Member], hex: bool) -> Object {
        self.list("members", members.iter().map(|one| member(one, hex)))
    }

    fn header(self, header: Option<&ResponseHeader>, hex: bool) -> Object {
        match header {
            Some(header) => self.always("header", Object::new().header_fields(header, hex).end()),
            None => self,
        }
    }

    fn header_fields(self, header: &ResponseHeader, hex: bool) -> Object {
        // In a txn's inner answers both are 0; hex would print them as ids.
        let hex = hex && header.member_id != 0;
        self.id("cluster_id", header.cluster_id, hex)
            .id("member_id", header.member_id, hex)
            .number("revision", header.revision)
            .number("raft_term", header.raft_term)
    }

    pub(super) fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }
}
