//! One match on the path: what the proxy answers itself, and what passes through.

use super::{Caller, Ring, VIA, local, members, metrics, pass::said, source::own, watch};
use crate::{
    gateway::{self, Access, Calls, Json},
    pb::etcdserverpb::{RangeRequest, kv_client::KvClient},
    ring::RingService,
    server::{self, CallBody},
    types::Error,
};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use hyper::{body::Incoming, service::Service};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};
use tonic::{Status, body::Body};

/// What the read behind `/health` may be answered with. It is nobody's.
const REFUSALS: [Error; 2] = [Error::PermissionDenied, Error::UserEmpty];
/// Longest time for that read; etcd's proxy waits as long.
const HEALTH_MAX: Duration = Duration::from_secs(1);

/// Largest message that the JSON gateway makes. What upstream takes is not known here, and most often it is less.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// What answers the connections of one proxy.
#[derive(Clone)]
pub(super) struct Front {
    ring: Ring,
    serves_grpc: bool,
    json: Option<Json<Ring>>,
    access: Access,
}

impl Front {
    /// Answers health and what upstream answers, and nothing of the API.
    pub(super) fn of_health(ring: Ring) -> Front {
        Front { ring, serves_grpc: false, json: None, access: Access::default() }
    }

    /// Answers the API over gRPC, and as JSON if `serves_json`, and plain HTTP for those whom `access` lets in.
    pub(super) fn of_all(ring: Ring, serves_json: bool, access: Access) -> Front {
        let json = serves_json.then(|| Json::new(ring.clone(), MESSAGE_BYTES_MAX));
        Front { ring, serves_grpc: true, json, access }
    }

    async fn plain(self, request: Request<Incoming>) -> Response<Body> {
        let admitted = match self.access.admit(&request) {
            Ok(admitted) => admitted,
            Err(answer) => return *answer,
        };
        let mut response = match self.json {
            Some(json) if gateway::is_json(request.uri().path()) => json.answer(request).await,
            _ => self.ring.plain(request).await,
        };
        if self.serves_grpc {
            admitted.mark(response.headers_mut());
        }
        response
    }
}

/// The ring answers what it can, whether a call came as JSON or not.
impl Calls for Ring {
    async fn call(&self, request: Request<Body>) -> Response<Body> {
        Ring::call(self, request).await
    }
}

impl server::Front for Front {}

impl Service<Request<Incoming>> for Front {
    type Response = Response<server::Sent>;
    type Error = Infallible;
    type Future = server::Answer;

    fn call(&self, request: Request<Incoming>) -> server::Answer {
        if !server::is_grpc(&request) {
            let front = self.clone();
            return server::Answer::new(async move { Ok(front.plain(request).await) });
        }
        let ring = self.ring.clone();
        if !self.serves_grpc {
            let refusal = Status::unimplemented("this port serves HTTP alone; gRPC is on another one");
            return server::Answer::new(std::future::ready(Ok(refusal.into_http())));
        }
        server::Answer::new(async move { Ok(ring.call(request).await) })
    }
}

impl Ring {
    async fn call<R: CallBody>(&self, request: Request<R>) -> Response<Body> {
        let shared = &self.shared;
        let request = shared.copies.trust().receive(request);
        match request.uri().path() {
            "/etcdserverpb.KV/Range" => match local::range(&shared.copies, request).await {
                Ok(answer) => {
                    shared.sight.count_read(true);
                    answer
                }
                Err(request) => {
                    shared.sight.count_read(false);
                    self.pass(request).await
                }
            },
            "/etcdserverpb.KV/Compact" => match local::compact(&shared.copies, request).await {
                Ok((request, revision)) => {
                    let answer = self.pass(request).await;
                    // Before the client hears of it: what upstream has forgotten is not to be known here. One that it refused may lie
                    // in the future, and would take all history from watchers.
                    if let Some(revision) = revision.filter(|_| !local::is_refused(&answer)) {
                        shared.copies.forget(revision);
                    }
                    answer
                }
                Err(status) => status.into_http(),
            },
            "/etcdserverpb.Watch/Watch"
                if shared.copies.answers_anything()
                    && (watch::takes(request.headers()) || shared.copies.trust().is_guarded()) =>
            {
                match shared.watch.clone().call(request).await {
                    Ok(answer) => answer,
                    Err(never) => match never {},
                }
            }
            // While users count a renewal is somebody's, whom upstream has to know.
            "/etcdserverpb.Lease/LeaseKeepAlive"
                if shared.renewals.may_merge(request.headers()) && shared.copies.trust().is_open() =>
            {
                shared.renewals.serve(request, shared.stopping.subscribe()).await
            }
            "/etcdserverpb.Cluster/MemberList" => {
                let is_own = shared.sight.own().is_listed && !members::asks_core(request.headers());
                let mut response = match is_own {
                    true => members::list(shared.sight.own(), &shared.upstream, request).await,
                    false => self.pass(request.map(Body::new)).await,
                };
                // By this a proxy behind this one knows that these members are not its own to follow.
                response.headers_mut().insert(VIA, shared.via.clone());
                response
            }
            "/henge.ring.Ring/List" if members::asks_core(request.headers()) => self.pass(request.map(Body::new)).await,
            path if path.starts_with("/henge.ring.Ring/") => {
                let mut service = RingService::server(shared.sight.clone(), shared.sight.roster().clone());
                match tower::Service::call(&mut service, request).await {
                    Ok(answer) => answer,
                    Err(never) => match never {},
                }
            }
            _ => self.pass(request.map(Body::new)).await,
        }
    }

    async fn pass(&self, mut request: Request<Body>) -> Response<Body> {
        if let Some(caller) = request.extensions_mut().remove::<Arc<Caller>>() {
            self.shared.copies.trust().convey(&caller, request.headers_mut());
        }
        self.shared.passage.call(request).await.unwrap_or_else(|status| status.into_http())
    }

    async fn plain(&self, request: Request<Incoming>) -> Response<Body> {
        match request.uri().path() {
            "/health" | "/proxy/health" => match *request.method() {
                Method::GET => self.health().await,
                _ => {
                    let mut refusal = said(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
                    refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
                    refusal
                }
            },
            "/proxy/metrics" => metrics::answer(&self.shared.sight),
            // Not here, so not by a detour either.
            path if gateway::is_json(path) => said(StatusCode::NOT_FOUND, "404 page not found"),
            // As with etcd's proxy, what is left is upstream's, `/metrics` too.
            _ => self.shared.passage.plain(request).await,
        }
    }

    /// True if the upstream answers a linearizable read.
    async fn health(&self) -> Response<Body> {
        let (status, text) = match self.read().await {
            Ok(()) => (StatusCode::OK, r#"{"health":"true","reason":""}"#.to_owned()),
            Err(why) => {
                tracing::warn!(reason = why, "serving /health false");
                let why = why.replace('\\', "\\\\").replace('"', "\\\"").replace(char::is_control, " ");
                (StatusCode::SERVICE_UNAVAILABLE, format!("{{\"health\":\"false\",\"reason\":\"GET ERROR:{why}\"}}\n"))
            }
        };
        let mut response = Response::new(Body::new(http_body_util::Full::new(Bytes::from(text))));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    async fn read(&self) -> Result<(), String> {
        let upstream = &self.shared.upstream;
        let deadline = Instant::now() + HEALTH_MAX;
        let mut why = String::new();
        for _ in 0..upstream.len() {
            let (turn, channel) = upstream.pick();
            let request = RangeRequest {
                key: Bytes::from_static(b"health"),
                keys_only: true,
                limit: 1,
                ..RangeRequest::default()
            };
            match timeout_at(deadline, KvClient::new(channel).range(own(upstream, request))).await {
                Ok(Ok(_)) => return Ok(()),
                // Who refuses for want of a name or a permission has asked a quorum first.
                Ok(Err(status)) if REFUSALS.iter().any(|refusal| status.message() == refusal.text()) => return Ok(()),
                Ok(Err(status)) => why = format!("{}: {}", upstream.address(turn), crate::client::Error::from(status)),
                Err(_) => {
                    upstream.leave(turn);
                    return Err(format!("{}: {}", upstream.address(turn), Error::DeadlineExceeded));
                }
            }
            upstream.leave(turn);
        }
        Err(why)
    }
}
