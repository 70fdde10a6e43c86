//! The Maintenance service: status, alarms, hashes, space, snapshots, the lead.

use super::{
    Backend, Edge, check, convert,
    snapshot::{SnapshotStream, Snapshots},
};
use crate::{
    machine::Reply,
    pb::etcdserverpb::{self as pb, maintenance_server::Maintenance},
    types::{Error, MemberId, Revision},
};
use prost::Message;
use tonic::{Request, Response, Status};

/// The Maintenance service.
pub struct MaintenanceService<B> {
    edge: Edge<B>,
    snapshots: Snapshots,
}

impl<B: Backend> MaintenanceService<B> {
    /// The service on this edge.
    pub fn new(edge: Edge<B>) -> MaintenanceService<B> {
        MaintenanceService { edge, snapshots: Snapshots::default() }
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        self.edge.backend.header().to_wire()
    }

    /// What is wrong, as far as this member knows, in etcd's spelling.
    fn complaints(&self, leaderless: bool) -> Vec<String> {
        let alarms = self.edge.backend.alarms().into_iter().map(convert::alarm);
        let alarms = alarms.map(|alarm| {
            let kind = pb::AlarmType::try_from(alarm.alarm).map_or("", |kind| kind.as_str_name());
            match alarm.member_id {
                0 => format!("alarm:{kind}"),
                id => format!("memberID:{id} alarm:{kind}"),
            }
        });
        let no_leader = leaderless.then(|| Error::NoLeader.text().to_owned());
        let fault = self.edge.backend.fault();
        no_leader.into_iter().chain(alarms).chain(fault).collect()
    }
}

fn bytes_of(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[tonic::async_trait]
impl<B: Backend> Maintenance for MaintenanceService<B> {
    type SnapshotStream = SnapshotStream;

    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let caller = self.edge.enter(&metadata, &extensions, false).await?;
        // The list goes through the log as well: it is linearizable in etcd too.
        let command = check::alarm(&request)?;
        let (reply, header) = self.edge.propose("Alarm", request.encoded_len(), &caller, command).await?;
        let Reply::Alarms(alarms) = reply else { unreachable!("alarms are answered with alarms: {reply:?}") };
        let alarms = alarms.into_iter().map(convert::alarm).collect();
        Ok(Response::new(pb::AlarmResponse { header: header.to_wire(), alarms }))
    }

    async fn snapshot(&self, request: Request<pb::SnapshotRequest>) -> Result<Response<SnapshotStream>, Status> {
        let caller = self.edge.enter(request.metadata(), request.extensions(), true).await?;
        self.edge.view().authorize_admin(&caller)?;
        Ok(Response::new(self.snapshots.stream(&self.edge)?))
    }

    async fn status(&self, request: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let caller = self.edge.enter(request.metadata(), request.extensions(), true).await?;
        self.edge.view().authorize_any(&caller)?;
        let status = self.edge.backend.status();
        let version = &self.edge.settings.version;
        let downgrade_info = pb::DowngradeInfo {
            enabled: status.downgrade_to.is_some(),
            target_version: status.downgrade_to.unwrap_or_default(),
        };
        Ok(Response::new(pb::StatusResponse {
            header: self.header(),
            version: version.server.clone(),
            db_size: bytes_of(status.size.file_bytes),
            leader: status.leader.unwrap_or_default().0,
            raft_index: status.committed.0,
            raft_term: status.term.0,
            raft_applied_index: status.applied.0,
            errors: self.complaints(status.leader.is_none()),
            db_size_in_use: bytes_of(status.size.used_bytes),
            is_learner: status.is_learner,
            storage_version: version.storage.clone(),
            db_size_quota: status.quota_bytes,
            downgrade_info: Some(downgrade_info),
        }))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let caller = self.edge.enter(&metadata, &extensions, false).await?;
        self.edge.view().authorize_admin(&caller)?;
        self.edge.backend.move_leader(MemberId(request.target_id)).await?;
        // etcd sends none either: tools print what is there.
        Ok(Response::new(pb::MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let caller = self.edge.enter(&metadata, &extensions, false).await?;
        self.edge.view().authorize_admin(&caller)?;
        let version = self.edge.backend.downgrade(check::downgrade(&request)?).await?;
        Ok(Response::new(pb::DowngradeResponse { header: self.header(), version }))
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        let caller = self.edge.enter(request.metadata(), request.extensions(), false).await?;
        self.edge.view().authorize_admin(&caller)?;
        self.edge.backend.defragment().await?;
        // etcd's has no header either.
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    async fn hash(&self, request: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        let caller = self.edge.enter(request.metadata(), request.extensions(), false).await?;
        self.edge.view().authorize_admin(&caller)?;
        let hash = self.edge.backend.hash_all().await?;
        Ok(Response::new(pb::HashResponse { header: self.header(), hash }))
    }

    async fn hash_kv(&self, request: Request<pb::HashKvRequest>) -> Result<Response<pb::HashKvResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let caller = self.edge.enter(&metadata, &extensions, false).await?;
        self.edge.view().authorize_admin(&caller)?;
        let hash = self.edge.backend.hash_kv(Revision(request.revision)).await?;
        Ok(Response::new(pb::HashKvResponse {
            header: self.header(),
            hash: hash.hash,
            compact_revision: hash.compact_revision.0,
            hash_revision: hash.hash_revision.0,
        }))
    }
}
