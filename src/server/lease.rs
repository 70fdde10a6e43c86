//! The Lease service.

use super::{Backend, Edge};
use crate::{
    machine::{Command, Reply},
    pb::etcdserverpb::{self as pb, lease_server::Lease},
    runtime,
    types::LeaseId,
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// The Lease service.
pub struct LeaseService<B> {
    edge: Edge<B>,
}

impl<B: Backend> LeaseService<B> {
    /// The service on this edge.
    pub fn new(edge: Edge<B>) -> LeaseService<B> {
        LeaseService { edge }
    }
}

#[tonic::async_trait]
impl<B: Backend> Lease for LeaseService<B> {
    type LeaseKeepAliveStream = ReceiverStream<Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.edge.enter(&metadata, false)?;
        let _ticket = self.edge.admit(request.encoded_len())?;
        let trace = self.edge.trace("LeaseGrant");
        let result = self.edge.backend.lease_grant(LeaseId(request.id), request.ttl).await;
        trace.done(&[], &result);
        let applied = result?;
        let header = self.edge.backend.header().at(applied.revision);
        let Reply::LeaseGrant { id, ttl_s } = applied.result? else { unreachable!("a grant is answered as a grant") };
        let error = String::new();
        Ok(Response::new(pb::LeaseGrantResponse { header: header.to_wire(), id: id.0, ttl: ttl_s, error }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.edge.enter(&metadata, false)?;
        let command = Command::LeaseRevoke { id: LeaseId(request.id) };
        let (_, header) = self.edge.propose("LeaseRevoke", request.encoded_len(), command).await?;
        Ok(Response::new(pb::LeaseRevokeResponse { header: header.to_wire() }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (metadata, _, mut requests) = request.into_parts();
        self.edge.enter(&metadata, false)?;
        let mut end = self.edge.stream_end(&metadata);
        let (sender, receiver) = mpsc::channel(ANSWERS_WAITING_MAX);
        let backend = self.edge.backend.clone();
        runtime::spawn(async move {
            loop {
                let message = tokio::select! {
                    // A busy stream has to end too.
                    biased;
                    error = end.reached() => Err(error.into()),
                    message = requests.message() => message,
                };
                let answer = match message {
                    Ok(Some(request)) => renew(&backend, LeaseId(request.id)).await,
                    Ok(None) => return,
                    Err(status) => Err(status),
                };
                let failed = answer.is_err();
                if sender.send(answer).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.edge.enter(&metadata, false)?;
        let left = self.edge.backend.lease_left(LeaseId(request.id), request.keys).await?;
        let header = self.edge.backend.header().to_wire();
        Ok(Response::new(match left {
            Some(left) => pb::LeaseTimeToLiveResponse {
                header,
                id: request.id,
                ttl: left.remaining_s,
                granted_ttl: left.granted_s,
                keys: left.keys,
            },
            // An unknown lease is no error here.
            None => pb::LeaseTimeToLiveResponse { header, id: request.id, ttl: -1, ..Default::default() },
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        self.edge.enter(request.metadata(), false)?;
        let leases = self.edge.backend.leases().await?;
        let leases = leases.into_iter().map(|id| pb::LeaseStatus { id: id.0 }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: self.edge.backend.header().to_wire(), leases }))
    }
}

/// Answers for a client that does not read; then its next request waits.
const ANSWERS_WAITING_MAX: usize = 64;

async fn renew<B: Backend>(backend: &B, id: LeaseId) -> Result<pb::LeaseKeepAliveResponse, Status> {
    // A lease that is gone is told by a TTL of 0, and the stream goes on.
    let ttl = backend.lease_keep_alive(id).await?.unwrap_or(0);
    Ok(pb::LeaseKeepAliveResponse { header: backend.header().to_wire(), id: id.0, ttl })
}
