//! gRPC's own question whether a server serves. Of the services nobody is told one by one, as in etcd: the empty name is the whole.

use super::{Backend, serve::told_to_stop};
use crate::pb::grpc::health::v1::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};
use std::{pin::Pin, time::Duration};
use tokio::{sync::watch, time::Instant};
use tokio_stream::{Stream, StreamExt, wrappers::WatchStream};
use tonic::{Request, Response, Status};

/// A fault has no wake-up of its own.
const FAULT_CHECK: Duration = Duration::from_secs(1);

/// Says how a member is, for as long as somebody finds out.
pub(super) struct HealthService {
    status: watch::Receiver<ServingStatus>,
}

impl HealthService {
    /// A service that says how `backend` is until `stop`, with which the streams of those who watch end, too.
    pub(super) fn server<B: Backend>(
        backend: B,
        stop: watch::Receiver<Option<Instant>>,
    ) -> HealthServer<HealthService> {
        let (found, status) = watch::channel(ServingStatus::Serving);
        tokio::spawn(find_out(backend, found, stop));
        HealthServer::new(HealthService { status })
    }

    fn answer(&self) -> HealthCheckResponse {
        answer(*self.status.borrow())
    }
}

/// A member serves as long as it can: it has a leader, no fault, and is not about to stop.
async fn find_out<B: Backend>(
    backend: B,
    found: watch::Sender<ServingStatus>,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    let (mut leader, mut stopping) = (backend.leader(), backend.stopping());
    loop {
        let able = !*stopping.borrow_and_update() && leader.borrow_and_update().is_some() && backend.fault().is_none();
        let status = if able { ServingStatus::Serving } else { ServingStatus::NotServing };
        found.send_if_modified(|before| std::mem::replace(before, status) != status);
        tokio::select! {
            biased;
            _ = told_to_stop(&mut stop) => return,
            changed = stopping.changed() => if changed.is_err() { return },
            changed = leader.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(FAULT_CHECK) => {}
        }
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

fn is_known(request: &Request<HealthCheckRequest>) -> bool {
    request.get_ref().service.is_empty()
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !is_known(&request) {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(self.answer()))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        Ok(Response::new(HealthListResponse { statuses: [(String::new(), self.answer())].into() }))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let changes = WatchStream::new(self.status.clone());
        if is_known(&request) {
            return Ok(Response::new(Box::pin(changes.map(|status| Ok(answer(status))))));
        }
        // It might begin to exist; so whoever watches it is told, and waits.
        let unknown = tokio_stream::once(Ok(answer(ServingStatus::ServiceUnknown)));
        Ok(Response::new(Box::pin(unknown.chain(changes.filter_map(|_| None)))))
    }
}
