//! Plain HTTP on the client port: health for balancers and kubelets, the version for clients, numbers for Prometheus.
//!
//! **Promises.** Answers what etcd answers at the same paths, to the letter where scripts read it. A health answer is made of a
//! read that really took place. **May not know** what a member is made of: it asks the same [`Backend`] as the services.

mod health;

use crate::{
    metrics,
    server::{Backend, Edge, Version},
};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};

/// All routes, for [`crate::server::serve`].
pub fn routes<B: Backend>(edge: Edge<B>) -> Router {
    Router::new()
        .route("/version", get(version::<B>))
        .route("/metrics", get(numbers::<B>))
        .route("/health", get(health::health::<B>))
        .route("/livez", get(health::livez::<B>))
        .route("/livez/{check}", get(health::livez_one::<B>))
        .route("/readyz", get(health::readyz::<B>))
        .route("/readyz/{check}", get(health::readyz_one::<B>))
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
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

#[cfg(test)]
mod tests;
