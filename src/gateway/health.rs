//! `/health`, and the probes `/livez` and `/readyz` with their named checks.

use super::said;
use crate::{
    machine::AlarmKind,
    mvcc::RangeQuery,
    server::{Backend, Edge, Ticket, Trace},
    types::{Error, Key, KeyRange},
};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
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
type Checks = &'static [(&'static str, Check)];

const LIVE: Checks = &[("serializable_read", Check::SerializableRead)];
const READY: Checks = &[
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

/// Each check has a path of its own: another name is no path at all, whoever asks.
pub(super) fn routes<B: Backend>() -> Router<Edge<B>> {
    let mut routes = Router::new().route("/health", get(health::<B>));
    for (path, checks) in [("/livez", LIVE), ("/readyz", READY)] {
        let all = move |State(edge): State<Edge<B>>, uri: Uri| async move {
            probe(&edge.backend, checks, Query::of(&uri)).await
        };
        routes = routes.route(path, get(all));
        for check in checks {
            let one =
                move |State(edge): State<Edge<B>>, uri: Uri| async move { probe_one(&edge.backend, check, &uri).await };
            routes = routes.route(&format!("{path}/{}", check.0), get(one));
        }
    }
    routes
}

async fn health<B: Backend>(State(edge): State<Edge<B>>, uri: Uri) -> Response {
    let why_not = unhealthy(&edge.backend, Query::of(&uri)).await;
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

/// One check alone. It can't be excluded.
async fn probe_one<B: Backend>(backend: &B, check: &'static (&'static str, Check), uri: &Uri) -> Response {
    let verbose = Query::of(uri).has("verbose");
    probe(backend, std::slice::from_ref(check), Query(if verbose { "verbose" } else { "" })).await
}

/// `ok` if all checks pass; with `verbose`, or if one fails, a line for each.
async fn probe<B: Backend>(backend: &B, checks: Checks, query: Query<'_>) -> Response {
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
    fn of(uri: &'a Uri) -> Query<'a> {
        Query(uri.query().unwrap_or_default())
    }

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
