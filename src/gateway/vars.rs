//! `/debug/vars`: a few facts about the process, where Go programs publish theirs.

use crate::server::{Backend, Edge};
use axum::{
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

/// Of what etcd publishes, all that means something here: there is no Go runtime whose memory could be looked into.
#[derive(Serialize)]
struct Vars {
    cmdline: Vec<String>,
    file_descriptor_limit: u64,
    #[serde(rename = "raft.status")]
    raft: Raft,
}

/// In etcd's spelling. Ids are hexadecimal, and "0" is nobody.
#[derive(Serialize)]
struct Raft {
    id: String,
    term: u64,
    commit: u64,
    lead: String,
    #[serde(rename = "raftState")]
    state: &'static str,
    applied: u64,
}

pub(super) async fn vars<B: Backend>(State(edge): State<Edge<B>>) -> Response {
    let status = edge.backend.status();
    let own = edge.backend.header().to_wire().map_or(0, |header| header.member_id);
    let lead = status.leader.map_or(0, |leader| leader.0);
    let raft = Raft {
        id: format!("{own:x}"),
        term: status.term.0,
        commit: status.committed.0,
        lead: format!("{lead:x}"),
        state: if lead == own { "StateLeader" } else { "StateFollower" },
        applied: status.applied.0,
    };
    let vars = Vars {
        cmdline: std::env::args().collect(),
        file_descriptor_limit: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        raft,
    };
    match serde_json::to_string(&vars) {
        Ok(text) => ([(CONTENT_TYPE, "application/json; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
