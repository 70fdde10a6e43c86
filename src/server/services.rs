//! All services of an edge, as what answers a call: whether it came over a connection or was made in this process.

use super::{
    Admission, Backend, Edge, auth::AuthService, calls, cluster::ClusterService, contest::Contests,
    election::ElectionService, kv::KvService, lease::LeaseService, lock::LockService, made,
    maintenance::MaintenanceService, watch::WatchService,
};
use crate::{
    pb::{
        self,
        etcdserverpb::{
            auth_server::AuthServer, cluster_server::ClusterServer, kv_server::KvServer, lease_server::LeaseServer,
            maintenance_server::MaintenanceServer,
        },
        v3electionpb::election_server::ElectionServer,
        v3lockpb::lock_server::LockServer,
    },
    ring::RingService,
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use std::{convert::Infallible, future::Future, pin::Pin};
use tonic::{Status, body::Body, service::Routes};
use tower::Service;

/// What the body of a call may be: a connection's, or one that was made here.
pub(crate) trait CallBody:
    hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send> + Send + 'static
{
}

impl<B> CallBody for B where
    B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send> + Send + 'static
{
}

/// A reply to come.
pub(super) type Reply = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// The services of an edge. Cheap to clone.
#[derive(Clone)]
pub struct Services<B> {
    kv: KvServer<KvService<B>>,
    lease: LeaseServer<LeaseService<B>>,
    watch: WatchService<B>,
    admission: Admission,
    /// Those that are not called often enough for a place of their own.
    rare: Routes,
}

impl<B: Backend> Services<B> {
    /// All but those that have to do with a port alone.
    pub fn of(edge: &Edge<B>) -> Services<B> {
        Services::with(edge, |rare| rare)
    }

    /// The same with more, which are not called often.
    pub(super) fn with(edge: &Edge<B>, more: impl FnOnce(Routes) -> Routes) -> Services<B> {
        let bytes_max = edge.settings.limits.message_bytes_max();
        Services {
            kv: KvServer::new(KvService::new(edge.clone())).max_decoding_message_size(bytes_max),
            lease: LeaseServer::new(LeaseService::new(edge.clone())).max_decoding_message_size(bytes_max),
            watch: WatchService::new(edge.clone(), bytes_max),
            admission: edge.admission(),
            rare: more(rare(edge)).prepare(),
        }
    }

    /// Answers a call that was made in this process, as [`super::serve`] answers one that came over a connection.
    pub async fn call(&self, request: Request<Body>) -> Response<Body> {
        let class = calls::class_of(request.uri().path());
        let _place = match class.map(|class| self.admission.call(class)).transpose() {
            Ok(place) => place,
            Err(refusal) => return Status::from(refusal).into_http(),
        };
        match self.begin(request).await {
            Ok(response) => made::whole(spell_too_large(response)),
            Err(never) => match never {},
        }
    }

    /// One match on the path, and no other layer.
    pub(super) fn begin<R: CallBody>(&self, request: Request<R>) -> Reply {
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        match service {
            "etcdserverpb.KV" => self.kv.clone().call(request),
            "etcdserverpb.Lease" => self.lease.clone().call(request),
            "etcdserverpb.Watch" => Box::pin(self.watch.clone().call(request)),
            _ => Box::pin(self.rare.clone().call(request)),
        }
    }
}

fn rare<B: Backend>(edge: &Edge<B>) -> Routes {
    let bytes_max = edge.settings.limits.message_bytes_max();
    let reflection =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(pb::DESCRIPTORS);
    let contests = Contests::new(edge.clone());
    let built_in = "the descriptors are part of this program";
    Routes::new(ClusterServer::new(ClusterService::new(edge.clone())).max_decoding_message_size(bytes_max))
        .add_service(MaintenanceServer::new(MaintenanceService::new(edge.clone())).max_decoding_message_size(bytes_max))
        .add_service(AuthServer::new(AuthService::new(edge.clone())).max_decoding_message_size(bytes_max))
        .add_service(LockServer::new(LockService::new(contests.clone())).max_decoding_message_size(bytes_max))
        .add_service(ElectionServer::new(ElectionService::new(contests)).max_decoding_message_size(bytes_max))
        .add_service(RingService::server(edge.clone(), edge.roster.clone()))
        .add_service(reflection().build_v1().expect(built_in))
        .add_service(reflection().build_v1alpha().expect(built_in))
}

/// The library below refuses a message over the limit with a code and a text of its own; clients know gRPC's.
pub(super) fn spell_too_large(mut response: Response<Body>) -> Response<Body> {
    const OUT_OF_RANGE: &[u8] = b"11";
    const RESOURCE_EXHAUSTED: HeaderValue = HeaderValue::from_static("8");
    let headers = response.headers_mut();
    // Only a reply that failed before its first message has the status here.
    if headers.get("grpc-status").is_none_or(|status| status.as_bytes() != OUT_OF_RANGE) {
        return response;
    }
    // Percent-encoded, but for its digits.
    let text = headers.get("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or_default().replace("%20", " ");
    if !text.contains("length too large") {
        return response;
    }
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| digits.len() > 4);
    if let (Some(size), Some(limit)) = (numbers.next(), numbers.next())
        && let Ok(text) = HeaderValue::from_str(&format!("grpc: received message larger than max ({size} vs. {limit})"))
    {
        headers.insert("grpc-status", RESOURCE_EXHAUSTED);
        headers.insert("grpc-message", text);
    }
    response
}
