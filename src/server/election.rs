//! The Election service: not yet.

use super::refuse::refuse;
use crate::pb::v3electionpb::{self as pb, election_server::Election};
use tokio_stream::Empty;
use tonic::Status;

/// The Election service.
#[derive(Default)]
pub struct ElectionService;

refuse! {
    impl [] Election [ObserveStream = Empty<Result<pb::LeaderResponse, Status>>] for ElectionService {
        campaign: pb::CampaignRequest => pb::CampaignResponse, "Campaign";
        proclaim: pb::ProclaimRequest => pb::ProclaimResponse, "Proclaim";
        leader: pb::LeaderRequest => pb::LeaderResponse, "Leader";
        observe: pb::LeaderRequest => Self::ObserveStream, "Observe";
        resign: pb::ResignRequest => pb::ResignResponse, "Resign";
    } but {}
}
