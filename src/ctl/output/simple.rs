//! The `simple` format: for people, and for scripts with `cut`.

use super::{Answer, Printer, RingReached, hash_row, member_row, ring, snapshot_row, status_row, took};
use crate::pb::{
    authpb::{Permission, permission::Type},
    etcdserverpb::{AlarmType, RangeResponse, ResponseHeader, TxnResponse, WatchResponse, response_op::Response},
    mvccpb::{KeyValue, event::EventType},
};
use crate::types::prefix_end;
use bytes::Bytes;
use std::fmt::Write as _;

pub fn render(answer: &Answer, printer: &Printer) -> Vec<u8> {
    let mut out = Out { bytes: Vec::new(), hex: printer.hex, values_only: printer.values_only };
    match answer {
        Answer::Get(answer) => out.get(answer),
        Answer::Put(answer) => out.put(answer.prev_kv.as_ref()),
        Answer::Delete(answer) => out.delete(answer.deleted, &answer.prev_kvs),
        Answer::Txn(answer) => out.txn(answer),
        Answer::Watch(answer) => out.watch(answer),
        Answer::Grant(answer) => out.line(&format!("lease {:016x} granted with TTL({}s)", answer.id, answer.ttl)),
        Answer::Revoke(id, _) => out.line(&format!("lease {id:016x} revoked")),
        Answer::TimeToLive(answer, _) if answer.granted_ttl == 0 && answer.ttl == -1 => {
            out.line(&format!("lease {:016x} already expired", answer.id));
        }
        Answer::TimeToLive(answer, keys) => {
            let text = format!(
                "lease {:016x} granted with TTL({}s), remaining({}s)",
                answer.id, answer.granted_ttl, answer.ttl
            );
            out.bytes.extend_from_slice(text.as_bytes());
            if *keys {
                out.bytes.extend_from_slice(b", attached keys([");
                out.bytes.extend_from_slice(&answer.keys.join(&b' '));
                out.bytes.extend_from_slice(b"])");
            }
            out.line("");
        }
        Answer::KeepAlive(answer) => {
            out.line(&format!("lease {:016x} keepalived with TTL({})", answer.id, answer.ttl));
        }
        Answer::Leases(answer) => {
            out.line(&format!("found {} leases", answer.leases.len()));
            for lease in &answer.leases {
                out.line(&format!("{:016x}", lease.id));
            }
        }
        Answer::Members(answer) => {
            for member in &answer.members {
                out.line(&member_row(member).join(", "));
            }
        }
        Answer::MemberAdd(answer) => {
            let member = answer.member.clone().unwrap_or_default();
            let learner = if member.is_learner { " as learner" } else { "" };
            out.line(&format!("Member {:16x} added{learner} to cluster {:16x}", member.id, cluster(&answer.header)));
        }
        Answer::MemberRemove(id, answer) => {
            out.line(&format!("Member {id:16x} removed from cluster {:16x}", cluster(&answer.header)));
        }
        Answer::AuthChange(text, _) => out.line(text),
        Answer::AuthStatus(answer) => {
            out.line(&format!("Authentication Status: {}", answer.enabled));
            out.line(&format!("AuthRevision: {}", answer.auth_revision));
        }
        Answer::UserGet(name, answer) => {
            let roles: String = answer.roles.iter().map(|role| format!(" {role}")).collect();
            out.line(&format!("User: {name}"));
            out.line(&format!("Roles:{roles}"));
        }
        Answer::UserList(answer) => answer.users.iter().for_each(|user| out.line(user)),
        Answer::RoleList(answer) => answer.roles.iter().for_each(|role| out.line(role)),
        Answer::RoleGet(name, answer) => {
            out.line(&format!("Role {name}"));
            out.permissions("KV Read:", &answer.perm, [Type::Read, Type::Readwrite]);
            out.permissions("KV Write:", &answer.perm, [Type::Write, Type::Readwrite]);
        }
        Answer::MemberUpdate(id, answer) => {
            out.line(&format!("Member {id:16x} updated in cluster {:16x}", cluster(&answer.header)));
        }
        Answer::MemberPromote(id, answer) => {
            out.line(&format!("Member {id:16x} promoted in cluster {:16x}", cluster(&answer.header)));
        }
        Answer::MoveLeader { from, to, .. } => out.line(&format!("Leadership transferred from {from:x} to {to:x}")),
        Answer::Downgrade(what, answer) => {
            out.line(&format!("Downgrade {what} success, cluster version {}", answer.version));
        }
        Answer::Alarms(answer) => {
            for alarm in &answer.alarms {
                let kind = AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |kind| kind.as_str_name());
                out.line(&format!("memberID:{} alarm:{kind} ", alarm.member_id));
            }
        }
        Answer::Health(all) => {
            for one in all {
                let (endpoint, took) = (&one.endpoint, took(one.took));
                out.line(&match &one.error {
                    None => format!("{endpoint} is healthy: successfully committed proposal: took = {took}"),
                    Some(error) => format!("{endpoint} is unhealthy: failed to commit proposal: {error}"),
                });
            }
        }
        Answer::Status(all) => {
            for (endpoint, status) in all {
                out.line(&status_row(endpoint, status).join(", "));
            }
        }
        Answer::HashKv(all) => {
            for (endpoint, hash) in all {
                out.line(&format!("{endpoint}, {}, {}", hash.hash, hash.hash_revision));
            }
        }
        Answer::Ring(all) => ring::rows(all).iter().for_each(|row| out.line(&row.join(", "))),
        Answer::RingReached(RingReached { revision, reached, total }) => {
            out.line(&format!("revision {revision} has reached {reached} of {total} proxies"));
        }
        Answer::Snapshot(status) => out.line(&snapshot_row(status).join(", ")),
        Answer::SnapshotHash(hash) => out.line(&hash_row(hash).join(", ")),
    }
    out.bytes
}

fn cluster(header: &Option<ResponseHeader>) -> u64 {
    header.as_ref().map_or(0, |header| header.cluster_id)
}

struct Out {
    bytes: Vec<u8>,
    hex: bool,
    values_only: bool,
}

impl Out {
    fn permissions(&mut self, heading: &str, all: &[Permission], kinds: [Type; 2]) {
        self.line(heading);
        for permission in all.iter().filter(|one| kinds.iter().any(|kind| one.perm_type == *kind as i32)) {
            let (key, end) = (&permission.key, &permission.range_end);
            let mut text = b"\t".to_vec();
            match &end[..] {
                [] => text.extend_from_slice(key),
                [0] => text.extend([b"[", &key[..], b", <open ended>"].concat()),
                end => text.extend([b"[", &key[..], b", ", end, b")"].concat()),
            }
            // A prefix of nothing but the highest bytes ends nowhere, which etcdctl spells the same way.
            let prefix_end = prefix_end(key).unwrap_or_else(|| Bytes::from_static(&[0]));
            if !end.is_empty() && !key.is_empty() && prefix_end == *end {
                text.extend([b" (prefix ", &key[..], b")"].concat());
            }
            self.raw(&text);
        }
    }

    fn line(&mut self, text: &str) {
        self.raw(text.as_bytes());
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.push(b'\n');
    }

    /// A key or value on a line of its own.
    fn data(&mut self, data: &[u8]) {
        if !self.hex {
            return self.raw(data);
        }
        let mut text = String::with_capacity(data.len() * 4);
        for byte in data {
            let _ = write!(text, "\\x{byte:02x}");
        }
        self.line(&text);
    }

    fn kv(&mut self, kv: &KeyValue) {
        if !self.values_only {
            self.data(&kv.key);
        }
        self.data(&kv.value);
    }

    fn get(&mut self, answer: &RangeResponse) {
        answer.kvs.iter().for_each(|kv| self.kv(kv));
    }

    fn put(&mut self, prev: Option<&KeyValue>) {
        self.line("OK");
        prev.into_iter().for_each(|kv| self.kv(kv));
    }

    fn delete(&mut self, deleted: i64, prevs: &[KeyValue]) {
        self.line(&deleted.to_string());
        prevs.iter().for_each(|kv| self.kv(kv));
    }

    fn txn(&mut self, answer: &TxnResponse) {
        self.line(if answer.succeeded { "SUCCESS" } else { "FAILURE" });
        for op in &answer.responses {
            self.line("");
            match &op.response {
                Some(Response::ResponseRange(answer)) => self.get(answer),
                Some(Response::ResponsePut(answer)) => self.put(answer.prev_kv.as_ref()),
                Some(Response::ResponseDeleteRange(answer)) => self.delete(answer.deleted, &answer.prev_kvs),
                Some(Response::ResponseTxn(answer)) => self.txn(answer),
                None => self.line("(unknown response)"),
            }
        }
    }

    fn watch(&mut self, answer: &WatchResponse) {
        if answer.events.is_empty() {
            let revision = answer.header.as_ref().map_or(0, |header| header.revision);
            return self.line(&format!("progress notify: {revision}"));
        }
        for event in &answer.events {
            self.line(if event.r#type == EventType::Delete as i32 { "DELETE" } else { "PUT" });
            event.prev_kv.iter().for_each(|kv| self.kv(kv));
            event.kv.iter().for_each(|kv| self.kv(kv));
        }
    }
}
