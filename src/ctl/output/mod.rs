//! Answers as text: pure functions from what a member said to what etcdctl would print.
//!
//! **Promises.** The same answer gives the same bytes; a format that etcdctl does not have for an answer is refused.
//! **May not know** connections, flags, or the terminal.

mod fields;
mod json;
mod protobuf;
mod ring;
mod simple;
mod table;

pub use ring::{RingList, RingReached};

use super::failure::Failure;
use crate::pb::etcdserverpb::{
    AlarmResponse, AuthRoleGetResponse, AuthRoleListResponse, AuthStatusResponse, AuthUserGetResponse,
    AuthUserListResponse, DeleteRangeResponse, DowngradeResponse, HashKvResponse, LeaseGrantResponse,
    LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse, LeaseTimeToLiveResponse, MemberAddResponse,
    MemberListResponse, MemberPromoteResponse, MemberRemoveResponse, MemberUpdateResponse, MoveLeaderResponse,
    PutResponse, RangeResponse, ResponseHeader, StatusResponse, TxnResponse, WatchResponse,
};
use std::{io::Write, time::Duration};

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Simple,
    Fields,
    Json,
    Protobuf,
    Table,
}

impl Format {
    /// The format by its name.
    pub fn parse(name: &str) -> Result<Format, Failure> {
        Ok(match name {
            "simple" => Format::Simple,
            "fields" => Format::Fields,
            "json" => Format::Json,
            "protobuf" => Format::Protobuf,
            "table" => Format::Table,
            _ => return Err(Failure::unsupported("unsupported output format")),
        })
    }
}

/// What can be printed.
#[derive(Debug)]
pub enum Answer {
    Get(RangeResponse),
    Put(PutResponse),
    Delete(DeleteRangeResponse),
    Txn(TxnResponse),
    Watch(WatchResponse),
    Grant(LeaseGrantResponse),
    Revoke(i64, LeaseRevokeResponse),
    TimeToLive(LeaseTimeToLiveResponse, /* keys were asked for */ bool),
    KeepAlive(LeaseKeepAliveResponse),
    Leases(LeaseLeasesResponse),
    Members(MemberListResponse),
    MemberAdd(MemberAddResponse),
    MemberRemove(u64, MemberRemoveResponse),
    MemberUpdate(u64, MemberUpdateResponse),
    MemberPromote(u64, MemberPromoteResponse),
    MoveLeader {
        from: u64,
        to: u64,
        answer: MoveLeaderResponse,
    },
    Downgrade(/* what was asked for */ &'static str, DowngradeResponse),
    /// What was done about users and roles: to people it is told in words.
    AuthChange(String, Option<ResponseHeader>),
    AuthStatus(AuthStatusResponse),
    UserGet(String, AuthUserGetResponse),
    UserList(AuthUserListResponse),
    RoleGet(String, AuthRoleGetResponse),
    RoleList(AuthRoleListResponse),
    Alarms(AlarmResponse),
    Health(Vec<Health>),
    Status(Vec<(String, StatusResponse)>),
    HashKv(Vec<(String, HashKvResponse)>),
    Ring(RingList),
    RingReached(RingReached),
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "files are looked at by the server's rooms"))]
    Snapshot(SnapshotStatus),
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "files are looked at by the server's rooms"))]
    SnapshotHash(SnapshotHash),
}

/// What is in a snapshot file.
#[derive(Clone, Debug)]
pub struct SnapshotStatus {
    pub hash: u32,
    pub revision: i64,
    pub total_keys: usize,
    pub total_bytes: u64,
    pub version: String,
}

/// The hash of the history in a snapshot file.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotHash {
    pub hash: u32,
    pub hash_revision: i64,
    pub compact_revision: i64,
}

/// How one endpoint is.
#[derive(Clone, Debug)]
pub struct Health {
    pub endpoint: String,
    pub took: Duration,
    /// Why it is not healthy.
    pub error: Option<String>,
}

/// A format with its settings.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    pub format: Format,
    /// Bytes (and in JSON ids) in hex.
    pub hex: bool,
    /// Simple format, get: values without keys.
    pub values_only: bool,
}

impl Printer {
    /// The bytes for standard output.
    pub fn render(&self, answer: &Answer) -> Result<Vec<u8>, Failure> {
        match self.format {
            Format::Simple => Ok(simple::render(answer, self)),
            Format::Fields => fields::render(answer, self.hex),
            Format::Json => Ok(json::render(answer, self.hex).into_bytes()),
            Format::Protobuf => protobuf::render(answer),
            Format::Table => table::render(answer),
        }
    }

    /// Refuses a format that changes cannot be told in, before anything is changed. etcdctl finds out afterwards.
    pub fn for_changes(self) -> Result<Printer, Failure> {
        match self.format {
            Format::Fields => Err(Failure::unsupported("fields not supported as output format")),
            Format::Table => Err(Failure::unsupported("table not supported as output format")),
            Format::Simple | Format::Json | Format::Protobuf => Ok(self),
        }
    }

    /// Prints to standard output, at once.
    pub fn print(&self, answer: &Answer) -> Result<(), Failure> {
        let bytes = self.render(answer)?;
        let mut out = std::io::stdout().lock();
        out.write_all(&bytes)
            .and_then(|()| out.flush())
            .map_err(|error| Failure::io(format!("standard output: {error}")))
    }
}

/// A size as etcdctl prints it: powers of 1000, two digits.
fn size(bytes: i64) -> String {
    let bytes = bytes.max(0) as f64;
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let power = if bytes < 10.0 { 0 } else { (bytes.ln() / 1000f64.ln()).floor() as usize };
    let scaled = (bytes / 1000f64.powi(power as i32) * 10.0 + 0.5).floor() / 10.0;
    let digits = usize::from(scaled < 10.0 && power > 0);
    format!("{scaled:.digits$} {}", units[power])
}

/// A duration as Go prints it.
pub fn took(took: Duration) -> String {
    let trim = |text: String| text.trim_end_matches('0').trim_end_matches('.').to_string();
    let nanos = took.as_nanos();
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => trim(format!("{:.3}", nanos as f64 / 1e3)) + "µs",
        1_000_000..1_000_000_000 => trim(format!("{:.6}", nanos as f64 / 1e6)) + "ms",
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let rest = trim(format!("{}.{:09}", rest / 1_000_000_000, rest % 1_000_000_000)) + "s";
            if minutes == 0 { rest } else { format!("{minutes}m{rest}") }
        }
    }
}

/// One row per endpoint of `endpoint status`, in etcdctl's order; simple and table formats share it.
fn status_row(endpoint: &str, status: &StatusResponse) -> Vec<String> {
    let id = status.header.as_ref().map_or(0, |header| header.member_id);
    // Whole percents of what is not in use, by integer division as etcdctl has it.
    let free = if status.db_size > 0 { 100 - status.db_size_in_use * 100 / status.db_size } else { 0 };
    let downgrade = status.downgrade_info.clone().unwrap_or_default();
    vec![
        endpoint.to_string(),
        format!("{id:x}"),
        status.version.clone(),
        status.storage_version.clone(),
        size(status.db_size),
        size(status.db_size_in_use),
        format!("{free}%"),
        size(status.db_size_quota),
        (id == status.leader).to_string(),
        status.is_learner.to_string(),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        status.errors.join(", "),
        downgrade.target_version,
        downgrade.enabled.to_string(),
    ]
}

/// The row of `snapshot status`; simple and table formats share it.
fn snapshot_row(status: &SnapshotStatus) -> Vec<String> {
    let bytes = i64::try_from(status.total_bytes).unwrap_or(i64::MAX);
    vec![
        format!("{:x}", status.hash),
        status.revision.to_string(),
        status.total_keys.to_string(),
        size(bytes),
        status.version.clone(),
    ]
}

/// The row of `hashkv`; simple and table formats share it.
fn hash_row(hash: &SnapshotHash) -> Vec<String> {
    vec![hash.hash.to_string(), hash.hash_revision.to_string(), hash.compact_revision.to_string()]
}

/// One row per member of `member list`.
fn member_row(member: &crate::pb::etcdserverpb::Member) -> Vec<String> {
    // A member that was added but never started has not told its name.
    let state = if member.name.is_empty() { "unstarted" } else { "started" };
    vec![
        format!("{:x}", member.id),
        state.to_string(),
        member.name.clone(),
        member.peer_ur_ls.join(","),
        member.client_ur_ls.join(","),
        member.is_learner.to_string(),
    ]
}

#[cfg(test)]
mod tests;
