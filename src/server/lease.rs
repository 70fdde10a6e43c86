//! The Lease service.

use super::{Backend, Edge, Identity, admission::Class};
use crate::{
    auth::Author,
    machine::{Command, Reply, View},
    pb::etcdserverpb::{self as pb, lease_server::Lease},
    runtime,
    types::{Error, KeyRange, LeaseId},
};
use prost::Message;
use std::{pin::Pin, task::Poll};
use tokio::sync::mpsc;
use tokio_stream::{Stream as _, wrappers::ReceiverStream};
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
        let (metadata, extensions, request) = request.into_parts();
        let caller = self.edge.enter(&metadata, &extensions, false).await?;
        self.edge.permit(false, |view| view.authorize_any(&caller)).await?;
        let _ticket = self.edge.admit(Class::Upkeep, request.encoded_len())?;
        let trace = self.edge.trace("LeaseGrant");
        let result = self.edge.backend.lease_grant(&caller, LeaseId(request.id), request.ttl, &trace).await;
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
        let (metadata, extensions, request) = request.into_parts();
        let caller = self.edge.enter(&metadata, &extensions, false).await?;
        let command = Command::LeaseRevoke { id: LeaseId(request.id) };
        let (_, header) = self.edge.propose("LeaseRevoke", request.encoded_len(), &caller, command).await?;
        Ok(Response::new(pb::LeaseRevokeResponse { header: header.to_wire() }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (metadata, extensions, mut requests) = request.into_parts();
        let identity = self.edge.open(&metadata, &extensions, false)?;
        // A stream is somebody's to its end: a token that ends meanwhile has said what it had to say.
        let mut caller = self.edge.identify(&identity).await?;
        self.edge.permit(false, |view| view.authorize_any(&caller)).await?;
        let mut end = self.edge.stream_end(&metadata);
        let (sender, receiver) = mpsc::channel(ANSWERS_WAITING_MAX);
        let edge = self.edge.clone();
        let open = edge.admission.stream(Class::Upkeep)?;
        runtime::spawn(async move {
            let _open = open;
            loop {
                let first = tokio::select! {
                    // A busy stream has to end too.
                    biased;
                    error = end.reached() => Err(error.into()),
                    message = requests.message() => message,
                };
                let (ids, ended) = match first {
                    Ok(Some(request)) => at_hand(request, &mut requests).await,
                    Ok(None) => (Vec::new(), Some(Ok(()))),
                    Err(status) => (Vec::new(), Some(Err(status))),
                };
                let mut answers = Vec::with_capacity(ids.len());
                let renewed = match still(&edge, &identity, &mut caller).await {
                    Ok(()) => renew(&edge.backend, ids, &mut answers).await,
                    Err(error) => Err(error.into()),
                };
                let failure = renewed.and(ended.clone().unwrap_or(Ok(()))).err();
                let is_last = ended.is_some() || failure.is_some();
                for answer in answers.into_iter().map(Ok).chain(failure.map(Err)) {
                    if sender.send(answer).await.is_err() {
                        return;
                    }
                }
                if is_last {
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
        let (metadata, extensions, request) = request.into_parts();
        let caller = self.edge.enter(&metadata, &extensions, false).await?;
        let id = LeaseId(request.id);
        let allowed = |view: &View| view.authorize_any(&caller);
        let left = self.edge.read(false, allowed, || self.edge.backend.lease_left(id, request.keys)).await?;
        // Those that are told: more may have been attached since anybody looked.
        let told = left.iter().flat_map(|left| &left.keys);
        let mut told = told.map(|key| KeyRange::One(key.clone()));
        told.try_for_each(|key| self.edge.view().authorize_read(&caller, &key))?;
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
        let caller = self.edge.enter(request.metadata(), request.extensions(), false).await?;
        let allowed = |view: &View| view.authorize_leases(&caller);
        let leases = self.edge.read(false, allowed, || self.edge.backend.leases()).await?;
        let leases = leases.into_iter().map(|id| pb::LeaseStatus { id: id.0 }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: self.edge.backend.header().to_wire(), leases }))
    }
}

/// Whether whoever opened a stream still is somebody. Those who were nobody while that was enough may be somebody by now.
async fn still<B: Backend>(edge: &Edge<B>, identity: &Identity, caller: &mut Author) -> Result<(), Error> {
    if edge.view().auth_enabled() && *caller == Author::Nobody {
        *caller = edge.identify(identity).await?;
    }
    edge.permit(false, |view| view.authorize_any(caller)).await
}

/// Answers for a client that does not read; then its next request waits.
const ANSWERS_WAITING_MAX: usize = 64;

/// Requests of one stream that are answered together.
const RENEWALS_MAX: usize = 1_024;

/// `first` and what has come in behind it, and how the stream ended if it did.
async fn at_hand(
    first: pb::LeaseKeepAliveRequest,
    requests: &mut Streaming<pb::LeaseKeepAliveRequest>,
) -> (Vec<LeaseId>, Option<Result<(), Status>>) {
    let mut ids = vec![LeaseId(first.id)];
    let ended = std::future::poll_fn(|context| {
        while ids.len() < RENEWALS_MAX {
            match Pin::new(&mut *requests).poll_next(context) {
                Poll::Ready(Some(Ok(request))) => ids.push(LeaseId(request.id)),
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Some(Err(status))),
                Poll::Ready(None) => return Poll::Ready(Some(Ok(()))),
                Poll::Pending => break,
            }
        }
        Poll::Ready(None)
    })
    .await;
    (ids, ended)
}

async fn renew<B: Backend>(
    backend: &B,
    ids: Vec<LeaseId>,
    answers: &mut Vec<pb::LeaseKeepAliveResponse>,
) -> Result<(), Status> {
    if ids.is_empty() {
        return Ok(());
    }
    let seconds = backend.lease_keep_alive(ids.clone()).await?;
    let header = backend.header();
    // A lease that is gone is told by a TTL of 0, and the stream goes on.
    answers.extend(ids.into_iter().zip(seconds).map(|(id, ttl)| pb::LeaseKeepAliveResponse {
        header: header.to_wire(),
        id: id.0,
        ttl: ttl.unwrap_or(0),
    }));
    Ok(())
}
