//! The Cluster service. In this version it lists members; changing them is refused with a clear text.

use super::{Backend, Edge, convert, refuse::refuse};
use crate::pb::etcdserverpb::{self as pb, cluster_server::Cluster};
use tonic::{Request, Response, Status};

/// The Cluster service.
pub struct ClusterService<B> {
    edge: Edge<B>,
}

impl<B: Backend> ClusterService<B> {
    /// The service on this edge.
    pub fn new(edge: Edge<B>) -> ClusterService<B> {
        ClusterService { edge }
    }
}

refuse! {
    impl [B: Backend] Cluster [] for ClusterService<B> {
        member_add: pb::MemberAddRequest => pb::MemberAddResponse, "MemberAdd";
        member_remove: pb::MemberRemoveRequest => pb::MemberRemoveResponse, "MemberRemove";
        member_update: pb::MemberUpdateRequest => pb::MemberUpdateResponse, "MemberUpdate";
        member_promote: pb::MemberPromoteRequest => pb::MemberPromoteResponse, "MemberPromote";
    } but {
        async fn member_list(
            &self,
            request: Request<pb::MemberListRequest>,
        ) -> Result<Response<pb::MemberListResponse>, Status> {
            let (metadata, _, request) = request.into_parts();
            self.edge.enter(&metadata, false)?;
            let members = self.edge.backend.members(!request.linearizable).await?;
            Ok(Response::new(pb::MemberListResponse {
                header: self.edge.backend.header().without_revision().to_wire(),
                members: members.into_iter().map(convert::member).collect(),
            }))
        }
    }
}
