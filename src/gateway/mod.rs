//! Plain HTTP on the client port: etcd's API as JSON, health for balancers and kubelets, the version for clients, numbers for Prometheus.
//!
//! **Promises.** Answers what etcd answers at the same paths, to the letter where scripts read it. A call over JSON is the same call as over
//! gRPC: it passes the same services with their checks and bounds, and nothing here knows one message from another. Nothing is held without a
//! bound, and a call ends when its client goes away. A health answer is made of a read that really took place. **May not know** what a member
//! is made of: it asks the same [`Backend`] as the services, and has calls answered by whoever answers them ([`Calls`]): a member, or a proxy.
//!
//! ```text
//!   HTTP ─ access ─ paths ─┬─ /v3/… ─ call ─ table ─┬─ request (JSON ▶ messages) ─▶ Calls
//!                          │         ▲              └─ reply, failure (JSON, lines) ◀─┘
//!                          │         └ websocket
//!                          └─ /health /livez /readyz /version /metrics /debug/vars
//! ```

mod access;
mod call;
mod failure;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod health;
mod json;
mod numbers;
mod numerals;
mod paths;
mod reply;
mod request;
mod table;
mod vars;
mod websocket;

pub use access::{Access, Admitted};
pub use call::{Calls, Json};

use crate::server::{Backend, Edge, Services};
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
        routes = routes.route("/v3", any(paths::to_the_gateway));
    }
    routes.layer(middleware::from_fn(paths::shortened)).layer(middleware::from_fn_with_state(access, guarded))
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

/// What a member says of itself, for [`with_json`].
pub fn routes<B: Backend>(edge: Edge<B>) -> Router {
    let vars = get(vars::vars::<B>);
    finished(looked_after().route("/version", get(version::<B>)).route("/debug/vars", vars), edge)
}

/// Health and numbers alone, as `listen-metrics-urls` ask for: whoever looks after a member has no other business with it.
pub fn health_routes<B: Backend>(edge: Edge<B>) -> Router {
    finished(looked_after(), edge).layer(middleware::from_fn(paths::shortened))
}

fn looked_after<B: Backend>() -> Router<Edge<B>> {
    // Prometheus' library asks for no method in particular.
    health::routes().route("/metrics", any(numbers::numbers::<B>))
}

fn finished<B: Backend>(routes: Router<Edge<B>>, edge: Edge<B>) -> Router {
    routes
        .method_not_allowed_fallback(|| async { said(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .fallback(|| async { not_found() })
        .with_state(edge)
}

async fn version<B: Backend>(State(edge): State<Edge<B>>) -> Response {
    ([(CONTENT_TYPE, "application/json")], edge.settings.version.json()).into_response()
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
