//! Plain HTTP on the client port: etcd's API as JSON, health for balancers and kubelets, the version for clients, numbers for Prometheus.
//!
//! **Promises.** Answers what etcd answers at the same paths, to the letter where scripts read it. A call over JSON is the same call as over
//! gRPC: it passes the same services with their checks and bounds, and nothing here knows one message from another. Nothing is held without a
//! bound, and a call ends when its client goes away. A health answer is made of a read that really took place. **May not know** what a member
//! is made of: it asks the same [`Backend`] as the services, and has calls answered by whoever answers them ([`Calls`]): a member, or a proxy.
//!
//! ```text
//!   HTTP ─ access ─┬─ /v3/… ─ call ─ table ─┬─ request (JSON ▶ messages) ─▶ Calls
//!                  │         ▲              └─ reply, failure (JSON, lines) ◀─┘
//!                  │         └ websocket
//!                  └─ /health /livez /readyz /version /metrics /debug/vars
//! ```

mod access;
mod call;
mod failure;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod health;
mod json;
mod numerals;
mod reply;
mod request;
mod table;
mod vars;
mod websocket;

pub use access::{Access, Admitted};
pub use call::{Calls, Json};

use crate::{
    metrics,
    server::{Backend, Edge, Services, Version},
};
use axum::{
    Router,
    extract::{Request, State},
    http::{
        StatusCode,
        header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
};

impl<B: Backend> Calls for Services<B> {
    async fn call(&self, request: http::Request<tonic::body::Body>) -> http::Response<tonic::body::Body> {
        Services::call(self, request).await
    }
}

/// `routes` and the JSON gateway, if it is wanted, for those who may use them.
pub fn with_json<C: Calls>(mut routes: Router, json: Option<Json<C>>, access: Access) -> Router {
    if let Some(json) = json {
        let answer = any(move |request: Request| {
            let json = json.clone();
            async move { json.answer(request).await.map(axum::body::Body::new) }
        });
        for path in ["/v3/", "/v3/{*call}", "/v3beta/{*call}"] {
            routes = routes.route(path, answer.clone());
        }
    }
    routes.layer(middleware::from_fn_with_state(access, guarded))
}

async fn guarded(State(access): State<Access>, request: Request, next: Next) -> Response {
    match access.admit(&request) {
        Ok(admitted) => {
            let mut response = next.run(request).await;
            admitted.mark(response.headers_mut());
            response
        }
        Err(answer) => (*answer).map(axum::body::Body::new),
    }
}

/// Whether a path belongs to the JSON gateway.
pub fn is_json(path: &str) -> bool {
    path.starts_with("/v3/") || path.starts_with("/v3beta/")
}

/// Health and version, for [`crate::server::serve`] and [`crate::server::serve_http`].
pub fn routes<B: Backend>(edge: Edge<B>) -> Router {
    Router::new()
        .route("/version", get(version::<B>))
        .route("/metrics", get(numbers::<B>))
        .route("/debug/vars", get(vars::vars::<B>))
        .route("/health", get(health::health::<B>))
        .route("/livez", get(health::livez::<B>))
        .route("/livez/{check}", get(health::livez_one::<B>))
        .route("/readyz", get(health::readyz::<B>))
        .route("/readyz/{check}", get(health::readyz_one::<B>))
        .method_not_allowed_fallback(|| async { said(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .fallback(|| async { not_found() })
        .with_state(edge)
}

async fn version<B: Backend>(State(edge): State<Edge<B>>) -> Response {
    let Version { server, cluster, storage } = &edge.settings.version;
    let text = format!(r#"{{"etcdserver":"{server}","etcdcluster":"{cluster}","storage":"{storage}"}}"#);
    json(StatusCode::OK, text)
}

/// The numbers of this process, as Prometheus reads them from etcd.
async fn numbers<B: Backend>(State(edge): State<Edge<B>>) -> Response {
    // It looks at the store and at the system, which may take a moment: not where others wait.
    match tokio::task::spawn_blocking(move || edge.metrics.text()).await {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn json(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}

fn not_found() -> Response {
    said(StatusCode::NOT_FOUND, "404 page not found")
}

/// A line of text, as Go's library says it.
fn said(status: StatusCode, text: &str) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, format!("{text}\n")).into_response()
}

#[cfg(test)]
mod tests;
