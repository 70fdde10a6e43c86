//! The Cluster service: who belongs to the cluster, and changes of that.

use super::{Backend, Edge, convert, reconfig};
use crate::{
    membership::Member,
    pb::etcdserverpb::{self as pb, cluster_server::Cluster},
    types::MemberId,
};
use tonic::{Extensions, Request, Response, Status, metadata::MetadataMap};

/// The Cluster service.
pub struct ClusterService<B> {
    edge: Edge<B>,
}

impl<B: Backend> ClusterService<B> {
    /// The service on this edge.
    pub fn new(edge: Edge<B>) -> ClusterService<B> {
        ClusterService { edge }
    }

    /// Whether this caller may change who belongs to the cluster.
    async fn enter(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<(), Status> {
        let caller = self.edge.enter(metadata, extensions, false).await?;
        Ok(self.edge.view().authorize_admin(&caller)?)
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        self.edge.backend.header().without_revision().to_wire()
    }
}

fn to_wire(members: Vec<Member>) -> Vec<pb::Member> {
    members.into_iter().map(convert::member).collect()
}

#[tonic::async_trait]
impl<B: Backend> Cluster for ClusterService<B> {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        self.enter(&metadata, &extensions).await?;
        let peer_urls = reconfig::peer_urls(&request.peer_ur_ls)?;
        let (member, members) = self.edge.backend.member_add(peer_urls, request.is_learner).await?;
        let (member, members) = (Some(convert::member(member)), to_wire(members));
        Ok(Response::new(pb::MemberAddResponse { header: self.header(), member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        self.enter(&metadata, &extensions).await?;
        let members = to_wire(self.edge.backend.member_remove(MemberId(request.id)).await?);
        Ok(Response::new(pb::MemberRemoveResponse { header: self.header(), members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        self.enter(&metadata, &extensions).await?;
        let peer_urls = reconfig::peer_urls(&request.peer_ur_ls)?;
        let members = to_wire(self.edge.backend.member_update(MemberId(request.id), peer_urls).await?);
        Ok(Response::new(pb::MemberUpdateResponse { header: self.header(), members }))
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let caller = self.edge.enter(&metadata, &extensions, false).await?;
        self.edge.view().authorize_any(&caller)?;
        let members = to_wire(self.edge.backend.members(!request.linearizable).await?);
        Ok(Response::new(pb::MemberListResponse { header: self.header(), members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        self.enter(&metadata, &extensions).await?;
        let members = to_wire(self.edge.backend.member_promote(MemberId(request.id)).await?);
        Ok(Response::new(pb::MemberPromoteResponse { header: self.header(), members }))
    }
}
