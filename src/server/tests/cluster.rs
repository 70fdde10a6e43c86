//! Changes of membership, the lead and downgrades, through the services.

use super::*;
use crate::types::MemberId;
use pb::{cluster_client::ClusterClient, downgrade_request::DowngradeAction, maintenance_client::MaintenanceClient};
use tonic::Status;

fn cluster(world: &World) -> ClusterClient<Channel> {
    ClusterClient::new(world.channel.clone())
}

async fn add(world: &World, url: &str, is_learner: bool) -> Result<pb::MemberAddResponse, Status> {
    let request = pb::MemberAddRequest { peer_ur_ls: vec![url.to_owned()], is_learner };
    Ok(cluster(world).member_add(request).await?.into_inner())
}

async fn remove(world: &World, id: u64) -> Result<pb::MemberRemoveResponse, Status> {
    Ok(cluster(world).member_remove(pb::MemberRemoveRequest { id }).await?.into_inner())
}

async fn promote(world: &World, id: u64) -> Result<pb::MemberPromoteResponse, Status> {
    Ok(cluster(world).member_promote(pb::MemberPromoteRequest { id }).await?.into_inner())
}

async fn downgrade(world: &World, action: DowngradeAction, version: &str) -> Result<String, Status> {
    let request = pb::DowngradeRequest { action: action.into(), version: version.to_owned() };
    Ok(MaintenanceClient::new(world.channel.clone()).downgrade(request).await?.into_inner().version)
}

async fn move_leader(world: &World, target_id: u64) -> Result<(), Status> {
    MaintenanceClient::new(world.channel.clone()).move_leader(pb::MoveLeaderRequest { target_id }).await.map(|_| ())
}

#[tokio::test]
async fn members_are_listed_without_a_revision() {
    let world = world().await;
    let mut cluster = ClusterClient::new(world.channel.clone());
    let reply = cluster.member_list(pb::MemberListRequest { linearizable: true }).await.unwrap().into_inner();
    assert_eq!(revision(&reply.header), 0);
    assert_eq!((reply.members[0].id, &reply.members[0].name[..]), (ME.0, "m1"));
    world.backend.set_leader(None);
    assert!(cluster.member_list(pb::MemberListRequest { linearizable: true }).await.is_err());
    assert!(cluster.member_list(pb::MemberListRequest { linearizable: false }).await.is_ok());
}

#[tokio::test]
async fn a_learner_is_added_promoted_and_removed() {
    let world = world().await;
    let added = add(&world, "http://127.0.0.1:12380", true).await.unwrap();
    let member = added.member.expect("the new member");
    assert_eq!((member.is_learner, &member.name[..], member.client_ur_ls.len()), (true, "", 0));
    assert_eq!((revision(&added.header), added.members.len()), (0, 2));

    world.backend.set_ready(false);
    let text = "etcdserver: can only promote a learner member which is in sync with leader";
    refused(promote(&world, member.id).await, Code::FailedPrecondition, text);
    world.backend.set_ready(true);
    let promoted = promote(&world, member.id).await.unwrap();
    assert!(promoted.members.iter().all(|member| !member.is_learner));
    let again = promote(&world, member.id).await;
    refused(again, Code::FailedPrecondition, "etcdserver: can only promote a learner member");

    assert_eq!(remove(&world, member.id).await.unwrap().members.len(), 1);
    refused(remove(&world, member.id).await, Code::NotFound, "etcdserver: member not found");
    refused(promote(&world, member.id).await, Code::NotFound, "etcdserver: member not found");
}

#[tokio::test]
async fn what_would_cost_the_quorum_is_refused() {
    let world = world().await;
    let not_enough = "etcdserver: re-configuration failed due to not enough started members";
    refused(remove(&world, ME.0).await, Code::FailedPrecondition, not_enough);
    refused(add(&world, "nonsense", false).await, Code::InvalidArgument, "etcdserver: given member URLs are invalid");
    let taken = add(&world, "http://localhost:2380", false).await;
    refused(taken, Code::FailedPrecondition, "etcdserver: Peer URLs already exists");
    let second = add(&world, "http://127.0.0.1:12380", false).await.unwrap().member.expect("the new member");
    refused(add(&world, "http://127.0.0.1:12381", false).await, Code::FailedPrecondition, not_enough);
    let learner = add(&world, "http://127.0.0.1:12381", true).await;
    refused(learner, Code::Unavailable, "etcdserver: unhealthy cluster");
    world.backend.connect(MemberId(second.id));
    assert!(add(&world, "http://127.0.0.1:12381", true).await.is_ok());
    let one_more = add(&world, "http://127.0.0.1:12382", true).await;
    refused(one_more, Code::FailedPrecondition, "etcdserver: too many learner members in cluster");
}

#[tokio::test]
async fn a_member_moves_to_other_urls() {
    let world = world().await;
    let update = |id, url: &str| {
        let (mut client, request) = (cluster(&world), pb::MemberUpdateRequest { id, peer_ur_ls: vec![url.to_owned()] });
        async move { client.member_update(request).await.map(|reply| reply.into_inner().members) }
    };
    assert_eq!(update(ME.0, "http://10.0.0.1:2380").await.unwrap()[0].peer_ur_ls, ["http://10.0.0.1:2380"]);
    refused(update(7, "http://10.0.0.1:2381").await, Code::NotFound, "etcdserver: member not found");
    refused(update(ME.0, "x").await, Code::InvalidArgument, "etcdserver: given member URLs are invalid");
}

#[tokio::test]
async fn the_lead_is_handed_over_by_the_leader_to_a_voter() {
    let world = world().await;
    refused(move_leader(&world, 7).await, Code::FailedPrecondition, "etcdserver: bad leader transferee");
    let learner = add(&world, "http://127.0.0.1:12380", true).await.unwrap().member.expect("the new member");
    refused(move_leader(&world, learner.id).await, Code::FailedPrecondition, "etcdserver: bad leader transferee");
    assert!(move_leader(&world, ME.0).await.is_ok());
    world.backend.set_leader(None);
    refused(move_leader(&world, ME.0).await, Code::FailedPrecondition, "etcdserver: not leader");
}

#[tokio::test]
async fn a_downgrade_is_asked_for_begun_and_cancelled() {
    use DowngradeAction::*;
    let world = world().await;
    let status = || async {
        let mut client = MaintenanceClient::new(world.channel.clone());
        let info = client.status(pb::StatusRequest {}).await.unwrap().into_inner().downgrade_info.expect("the field");
        (info.enabled, info.target_version)
    };
    let wrong = downgrade(&world, Validate, "three").await;
    refused(wrong, Code::InvalidArgument, "etcdserver: wrong downgrade target version format");
    let wrong = downgrade(&world, Enable, "3.5.0").await;
    refused(wrong, Code::InvalidArgument, "etcdserver: invalid downgrade target version");
    assert_eq!(downgrade(&world, Cancel, "").await.unwrap(), "3.7", "there is nothing to stop");
    assert_eq!(downgrade(&world, Validate, "3.6").await.unwrap(), "3.7");
    assert_eq!(status().await, (false, String::new()));
    assert_eq!(downgrade(&world, Enable, "3.6.0").await.unwrap(), "3.7");
    assert_eq!(status().await, (true, "3.6.0".to_owned()));
    let twice = downgrade(&world, Validate, "3.6.0").await;
    refused(twice, Code::FailedPrecondition, "etcdserver: cluster has a downgrade job in progress");
    assert_eq!(downgrade(&world, Cancel, "").await.unwrap(), "3.7");
    assert_eq!(status().await, (false, String::new()));
}

#[tokio::test]
async fn a_learner_changes_no_membership() {
    let world = world().await;
    world.backend.set_learner(true);
    let text = "etcdserver: rpc not supported for learner";
    refused(add(&world, "http://127.0.0.1:12380", false).await, Code::FailedPrecondition, text);
    refused(move_leader(&world, ME.0).await, Code::FailedPrecondition, text);
    let list = cluster(&world).member_list(pb::MemberListRequest { linearizable: false }).await;
    refused(list, Code::FailedPrecondition, text);
}
