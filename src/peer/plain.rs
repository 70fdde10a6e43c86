//! Plain HTTP on the peer URLs: what members of etcd answer there to whoever looks after them. Raft does not come this way.
//!
//! Nobody is let in by asking: the connection stays one that gives way when others want its place.

use super::Inner;
use crate::membership::Member;
use axum::{
    Router,
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
    routing::{any, get},
};
use serde::Serialize;
use std::sync::Arc;
use time::OffsetDateTime;
use tonic::Status;

/// What names the cluster in answers.
const CLUSTER_ID: &str = "x-etcd-cluster-id";

/// A member, as etcd's writes it: what is not set is left out.
#[derive(Serialize)]
struct Listed {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "clientURLs", skip_serializing_if = "Vec::is_empty")]
    client_urls: Vec<String>,
}

/// Adds what is answered over plain HTTP to `peers`, which answer gRPC.
pub(super) fn beside(peers: Router, network: Arc<Inner>) -> Router {
    let plain = Router::new()
        .route("/version", get(version))
        .route("/members", get(members))
        .route("/downgrade/enabled", get(is_downgrading))
        .route("/raft/probing", any(probed))
        .with_state(network);
    peers
        .merge(plain)
        .method_not_allowed_fallback(|| async { said(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .fallback(nothing)
}

async fn version(State(network): State<Arc<Inner>>) -> Response {
    ([(CONTENT_TYPE, "application/json")], network.version.clone()).into_response()
}

async fn members(State(network): State<Arc<Inner>>) -> Response {
    let Some(me) = network.me.borrow().clone() else { return nobody_yet() };
    let mut members = me.inbound.members();
    members.sort_by(|a, b| a.peer_urls.cmp(&b.peer_urls));
    let listed = |Member { id, name, peer_urls, client_urls, is_learner }| Listed {
        id: id.0,
        peer_urls,
        is_learner,
        name,
        client_urls,
    };
    match serde_json::to_string(&members.into_iter().map(listed).collect::<Vec<_>>()) {
        Ok(text) => {
            let kind = [(CONTENT_TYPE, "application/json")];
            ([(CLUSTER_ID, me.cluster_id.to_string())], kind, format!("{text}\n")).into_response()
        }
        Err(error) => said(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// As far as the log is applied here.
async fn is_downgrading(State(network): State<Arc<Inner>>) -> Response {
    let Some(me) = network.me.borrow().clone() else { return nobody_yet() };
    let kind = [(CONTENT_TYPE, "text/plain")];
    ([(CLUSTER_ID, me.cluster_id.to_string())], kind, me.inbound.is_downgrading().to_string()).into_response()
}

/// The time is there so that whoever asks sees how far the clocks are apart.
async fn probed() -> Response {
    let now = OffsetDateTime::now_utc();
    let (date, month) = (now.date(), u8::from(now.month()));
    let (hour, minute, second, nanosecond) = now.time().as_hms_nano();
    let now =
        format!("{:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{nanosecond:09}Z", date.year(), date.day());
    let kind = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
    (kind, format!("{{\"OK\":true,\"Now\":\"{now}\"}}\n")).into_response()
}

async fn nothing(headers: HeaderMap) -> Response {
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    if kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        return Status::unimplemented("").into_http();
    }
    said(StatusCode::NOT_FOUND, "404 page not found")
}

fn nobody_yet() -> Response {
    said(StatusCode::SERVICE_UNAVAILABLE, "the member is starting, or stops")
}

/// A line of text, as Go's library says it.
fn said(status: StatusCode, text: &str) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, format!("{text}\n")).into_response()
}
