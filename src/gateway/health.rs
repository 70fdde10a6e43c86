//! `/health`, and the probes `/livez` and `/readyz` with their named checks.

use super::{not_found, said};
use crate::{
    machine::AlarmKind,
    mvcc::RangeQuery,
    server::{Backend, Edge, Ticket, Trace},
    types::{Error, Key, KeyRange},
};
use axum::{
    extract::{Path, State},
    http::{StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use std::{fmt::Write, sync::atomic::Ordering::Relaxed};

/// What a probe looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

/// Name, check: in the order of the answer.
const LIVE: &[(&str, Check)] = &[("serializable_read", Check::SerializableRead)];
const READY: &[(&str, Check)] = &[
    ("data_corruption", Check::DataCorruption),
    ("serializable_read", Check::SerializableRead),
    ("linearizable_read", Check::LinearizableRead),
    ("non_learner", Check::NonLearner),
];

impl Check {
    async fn run<B: Backend>(self, backend: &B) -> Result<(), String> {
        match self {
            Check::DataCorruption => {
                let corrupt = backend.alarms().iter().any(|(_, kind)| *kind == AlarmKind::Corrupt);
                if corrupt { Err("alarm activated: CORRUPT".to_owned()) } else { Ok(()) }
            }
            Check::SerializableRead => read(backend, true).await.map_err(|error| format!("range error: {error}")),
            Check::LinearizableRead => read(backend, false).await.map_err(|error| format!("range error: {error}")),
            Check::NonLearner => {
                if backend.is_learner() {
                    Err(Error::NotSupportedForLearner.to_string())
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// The least that a client could ask for.
async fn read<B: Backend>(backend: &B, serializable: bool) -> Result<(), Error> {
    if let Some(fault) = backend.fault() {
        return Err(Error::Faulted(fault));
    }
    let key = KeyRange::One(Key::from_static(b"health"));
    let query = RangeQuery { limit: 1, keys_only: true, ..RangeQuery::new(key) };
    backend.range(query, serializable, Ticket::aside(), &Trace::of_none()).await.map(drop)
}

pub(super) async fn health<B: Backend>(State(edge): State<Edge<B>>, uri: Uri) -> Response {
    let query = Query(uri.query().unwrap_or_default());
    let why_not = unhealthy(&edge.backend, query).await;
    let count = if why_not.is_none() { &edge.counts.healthy } else { &edge.counts.unhealthy };
    count.fetch_add(1, Relaxed);
    match why_not {
        // As etcd: JSON that does not say so.
        None => ([(CONTENT_TYPE, "text/plain; charset=utf-8")], r#"{"health":"true","reason":""}"#).into_response(),
        Some(reason) => {
            tracing::warn!(reason, "serving /health false");
            let reason = reason.replace('\\', "\\\\").replace('"', "\\\"").replace(char::is_control, " ");
            said(StatusCode::SERVICE_UNAVAILABLE, &format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}"))
        }
    }
}

/// Why not: alarms first, then the leader, then a read.
async fn unhealthy<B: Backend>(backend: &B, query: Query<'_>) -> Option<String> {
    for (_, kind) in backend.alarms() {
        let name = match kind {
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
        };
        if !query.excludes(name) {
            return Some(format!("ALARM {name}"));
        }
    }
    let serializable = query.values("serializable").any(|value| value == "true");
    if !serializable && backend.leader().borrow().is_none() {
        return Some("RAFT NO LEADER".to_owned());
    }
    read(backend, serializable).await.err().map(|error| format!("RANGE ERROR:{error}"))
}

pub(super) async fn livez<B: Backend>(State(edge): State<Edge<B>>, uri: Uri) -> Response {
    probe(&edge.backend, LIVE, Query(uri.query().unwrap_or_default())).await
}

pub(super) async fn readyz<B: Backend>(State(edge): State<Edge<B>>, uri: Uri) -> Response {
    probe(&edge.backend, READY, Query(uri.query().unwrap_or_default())).await
}

pub(super) async fn livez_one<B: Backend>(State(edge): State<Edge<B>>, Path(name): Path<String>, uri: Uri) -> Response {
    probe_one(&edge.backend, LIVE, &name, &uri).await
}

pub(super) async fn readyz_one<B: Backend>(
    State(edge): State<Edge<B>>,
    Path(name): Path<String>,
    uri: Uri,
) -> Response {
    probe_one(&edge.backend, READY, &name, &uri).await
}

/// One check alone. It can't be excluded.
async fn probe_one<B: Backend>(backend: &B, checks: &[(&str, Check)], name: &str, uri: &Uri) -> Response {
    let Some(check) = checks.iter().find(|(other, _)| *other == name) else { return not_found() };
    let verbose = Query(uri.query().unwrap_or_default()).has("verbose");
    probe(backend, std::slice::from_ref(check), Query(if verbose { "verbose" } else { "" })).await
}

/// `ok` if all checks pass; with `verbose`, or if one fails, a line for each.
async fn probe<B: Backend>(backend: &B, checks: &[(&str, Check)], query: Query<'_>) -> Response {
    let (mut lines, mut failed) = (String::new(), false);
    for (name, check) in checks.iter().filter(|(name, _)| !query.excludes(name)) {
        let line = match check.run(backend).await {
            Ok(()) => writeln!(lines, "[+]{name} ok"),
            Err(why) => {
                failed = true;
                writeln!(lines, "[-]{name} failed: {why}")
            }
        };
        line.expect("a String takes all that is written");
    }
    let (status, text) = match (failed, query.has("verbose")) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, lines),
        (false, true) => (StatusCode::OK, format!("{lines}ok")),
        (false, false) => (StatusCode::OK, "ok".to_owned()),
    };
    said(status, &text)
}

/// The part of a URL after `?`. Names and values that matter here need no escapes.
#[derive(Clone, Copy)]
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn pairs(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    fn values(self, name: &str) -> impl Iterator<Item = &'a str> {
        self.pairs().filter(move |(key, _)| *key == name).map(|(_, value)| value)
    }

    /// As in etcd, `?verbose=false` has it too.
    fn has(self, name: &str) -> bool {
        self.pairs().any(|(key, _)| key == name)
    }

    fn excludes(self, name: &str) -> bool {
        self.values("exclude").any(|value| value == name)
    }
}
