//! The `fields` format: one `"Name" : value` a line.

use super::{Answer, Failure, ring, took};
use crate::{
    go::quote,
    pb::{
        authpb::permission::Type,
        etcdserverpb::{
            AlarmType, DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader, TxnResponse, WatchResponse,
            response_op::Response,
        },
        mvccpb::{KeyValue, event::EventType},
    },
};
use std::fmt::{Display, Write as _};

/// Ids in hex if `hex`. Changes of the cluster have no fields.
pub fn render(answer: &Answer, hex: bool) -> Result<Vec<u8>, Failure> {
    let mut out = Out { text: String::new(), hex };
    match answer {
        Answer::Get(answer) => out.get(answer),
        Answer::Put(answer) => out.put(answer),
        Answer::Delete(answer) => out.delete(answer),
        Answer::Txn(answer) => out.txn(answer),
        Answer::Watch(answer) => out.watch(answer),
        Answer::Grant(answer) => {
            out.header(answer.header.as_ref());
            out.lease("ID", answer.id);
            out.field("TTL", answer.ttl);
        }
        Answer::Revoke(_, answer) => out.header(answer.header.as_ref()),
        Answer::TimeToLive(answer, _) => {
            out.header(answer.header.as_ref());
            out.lease("ID", answer.id);
            out.field("TTL", answer.ttl);
            out.field("GrantedTTL", answer.granted_ttl);
            answer.keys.iter().for_each(|key| out.field("Key", quote(key)));
        }
        Answer::KeepAlive(answer) => {
            out.header(answer.header.as_ref());
            out.lease("ID", answer.id);
            out.field("TTL", answer.ttl);
        }
        Answer::Leases(answer) => {
            out.header(answer.header.as_ref());
            answer.leases.iter().for_each(|lease| out.lease("ID", lease.id));
        }
        Answer::Members(answer) => {
            out.header(answer.header.as_ref());
            for member in &answer.members {
                out.member("ID", member.id);
                out.field("Name", quote(member.name.as_bytes()));
                member.peer_ur_ls.iter().for_each(|url| out.field("PeerURL", quote(url.as_bytes())));
                member.client_ur_ls.iter().for_each(|url| out.field("ClientURL", quote(url.as_bytes())));
                out.field("IsLearner", member.is_learner);
                out.end();
            }
        }
        Answer::Alarms(answer) => {
            out.header(answer.header.as_ref());
            for alarm in &answer.alarms {
                out.member("MemberID", alarm.member_id);
                let kind = AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |kind| kind.as_str_name());
                out.field("AlarmType", kind);
                out.end();
            }
        }
        Answer::AuthChange(_, header) => out.header(header.as_ref()),
        Answer::RoleGet(_, answer) => {
            out.header(answer.header.as_ref());
            for permission in &answer.perm {
                let kind = Type::try_from(permission.perm_type).map_or("UNKNOWN", |kind| kind.as_str_name());
                // etcdctl's two blanks.
                out.field("PermType", format_args!(" {kind}"));
                out.field("Key", quote(&permission.key));
                out.field("RangeEnd", quote(&permission.range_end));
            }
        }
        Answer::RoleList(answer) => {
            out.header(answer.header.as_ref());
            let roles: String = answer.roles.iter().map(|role| format!(" {}", quote(role.as_bytes()))).collect();
            let _ = writeln!(out.text, "\"Roles\" :{roles}");
        }
        Answer::Health(all) => {
            for one in all {
                out.field("Endpoint", quote(one.endpoint.as_bytes()));
                out.field("Health", one.error.is_none());
                out.field("Took", took(one.took));
                out.field("Error", one.error.as_deref().unwrap_or(""));
                out.end();
            }
        }
        Answer::Status(all) => {
            for (endpoint, status) in all {
                let downgrade = status.downgrade_info.clone().unwrap_or_default();
                out.header(status.header.as_ref());
                out.field("Version", quote(status.version.as_bytes()));
                out.field("StorageVersion", quote(status.storage_version.as_bytes()));
                out.field("DBSize", status.db_size);
                out.field("DBSizeInUse", status.db_size_in_use);
                out.field("DBSizeQuota", status.db_size_quota);
                out.field("Leader", status.leader);
                out.field("IsLearner", status.is_learner);
                out.field("RaftIndex", status.raft_index);
                out.field("RaftAppliedIndex", status.raft_applied_index);
                out.field("Errors", format!("[{}]", status.errors.join(" ")));
                out.field("Endpoint", quote(endpoint.as_bytes()));
                out.field("DowngradeTargetVersion", quote(downgrade.target_version.as_bytes()));
                out.field("DowngradeEnabled", downgrade.enabled);
                out.end();
            }
        }
        Answer::HashKv(all) => {
            for (endpoint, hash) in all {
                out.header(hash.header.as_ref());
                out.field("Endpoint", quote(endpoint.as_bytes()));
                out.field("Hash", hash.hash);
                out.field("HashRevision", hash.hash_revision);
                out.end();
            }
        }
        Answer::MemberAdd(_)
        | Answer::MemberRemove(..)
        | Answer::MemberUpdate(..)
        | Answer::MemberPromote(..)
        | Answer::MoveLeader { .. }
        | Answer::Downgrade(..)
        | Answer::AuthStatus(_)
        | Answer::UserGet(..)
        | Answer::UserList(_)
        | Answer::RingReached(_) => return Err(Failure::unsupported("fields not supported as output format")),
        Answer::Ring(all) => {
            for fields in ring::fields(all) {
                fields.into_iter().for_each(|(name, value)| out.field(name, value));
                out.end();
            }
        }
        Answer::Snapshot(status) => {
            out.field("Hash", status.hash);
            out.field("Revision", status.revision);
            out.field("Keys", status.total_keys);
            out.field("Size", status.total_bytes);
            out.field("Version", &status.version);
        }
        Answer::SnapshotHash(hash) => {
            out.field("Hash", hash.hash);
            out.field("Hash revision", hash.hash_revision);
            out.field("Compact revision", hash.compact_revision);
        }
    }
    Ok(out.text.into_bytes())
}

struct Out {
    text: String,
    hex: bool,
}

impl Out {
    fn field(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.text, "\"{name}\" : {value}");
    }

    fn end(&mut self) {
        self.text.push('\n');
    }

    /// The id of a member or a cluster.
    fn member(&mut self, name: &str, id: u64) {
        if self.hex { self.field(name, format_args!("{id:x}")) } else { self.field(name, id) }
    }

    fn lease(&mut self, name: &str, id: i64) {
        if self.hex { self.field(name, format_args!("{id:016x}")) } else { self.field(name, id) }
    }

    fn header(&mut self, header: Option<&ResponseHeader>) {
        let header = header.copied().unwrap_or_default();
        self.member("ClusterID", header.cluster_id);
        self.member("MemberID", header.member_id);
        // Where there is none, as in lists of members, there is no line.
        if header.revision > 0 {
            self.field("Revision", header.revision);
        }
        self.field("RaftTerm", header.raft_term);
    }

    fn kv(&mut self, prefix: &str, kv: &KeyValue) {
        self.field(&format!("{prefix}Key"), quote(&kv.key));
        self.field(&format!("{prefix}CreateRevision"), kv.create_revision);
        self.field(&format!("{prefix}ModRevision"), kv.mod_revision);
        self.field(&format!("{prefix}Version"), kv.version);
        self.field(&format!("{prefix}Value"), quote(&kv.value));
        self.lease(&format!("{prefix}Lease"), kv.lease);
    }

    fn get(&mut self, answer: &RangeResponse) {
        self.header(answer.header.as_ref());
        answer.kvs.iter().for_each(|kv| self.kv("", kv));
        self.field("More", answer.more);
        self.field("Count", answer.count);
    }

    fn put(&mut self, answer: &PutResponse) {
        self.header(answer.header.as_ref());
        answer.prev_kv.iter().for_each(|kv| self.kv("Prev", kv));
    }

    fn delete(&mut self, answer: &DeleteRangeResponse) {
        self.header(answer.header.as_ref());
        self.field("Deleted", answer.deleted);
        answer.prev_kvs.iter().for_each(|kv| self.kv("Prev", kv));
    }

    fn txn(&mut self, answer: &TxnResponse) {
        self.header(answer.header.as_ref());
        self.field("Succeeded", answer.succeeded);
        for op in &answer.responses {
            match &op.response {
                Some(Response::ResponseRange(answer)) => self.get(answer),
                Some(Response::ResponsePut(answer)) => self.put(answer),
                Some(Response::ResponseDeleteRange(answer)) => self.delete(answer),
                Some(Response::ResponseTxn(answer)) => self.txn(answer),
                None => {}
            }
        }
    }

    fn watch(&mut self, answer: &WatchResponse) {
        self.header(answer.header.as_ref());
        for event in &answer.events {
            self.field("Type", if event.r#type == EventType::Delete as i32 { "DELETE" } else { "PUT" });
            event.prev_kv.iter().for_each(|kv| self.kv("Prev", kv));
            event.kv.iter().for_each(|kv| self.kv("", kv));
        }
    }
}
