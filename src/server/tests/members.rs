//! What the other services answer, and who may be asked what.

use super::*;
use pb::{auth_client::AuthClient, lease_client::LeaseClient, maintenance_client::MaintenanceClient};
use tonic::metadata::MetadataValue;

fn maintenance(world: &World) -> MaintenanceClient<Channel> {
    MaintenanceClient::new(world.channel.clone())
}

fn alarm(action: pb::alarm_request::AlarmAction, alarm: pb::AlarmType) -> pb::AlarmRequest {
    pb::AlarmRequest { action: action.into(), member_id: ME.0, alarm: alarm.into() }
}

#[tokio::test]
async fn status_tells_what_the_member_knows() {
    let world = world().await;
    world.put("k", "v").await;
    let status = maintenance(&world).status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((&status.version[..], &status.storage_version[..], status.leader), ("3.7.1", "3.7.0", ME.0));
    assert_eq!((status.raft_index, status.raft_applied_index, status.raft_term), (4, 4, 2));
    assert_eq!((status.db_size, status.db_size_in_use, status.db_size_quota), (8192, 4096, 2 << 30));
    assert_eq!(status.errors, [""; 0]);
    assert_eq!(revision(&status.header), 2);

    world.backend.set_leader(None);
    let status = maintenance(&world).status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.leader, &status.errors[..]), (0, &["etcdserver: no leader".to_owned()][..]));
}

#[tokio::test]
async fn an_alarm_is_raised_listed_and_cleared() {
    use pb::{AlarmType::*, alarm_request::AlarmAction::*};
    let world = world().await;
    let ask = |request| {
        let mut client = maintenance(&world);
        async move { client.alarm(request).await.map(|reply| reply.into_inner().alarms) }
    };
    let raised = vec![pb::AlarmMember { member_id: ME.0, alarm: Nospace.into() }];
    assert_eq!(ask(alarm(Activate, Nospace)).await.unwrap(), raised);
    assert_eq!(ask(alarm(Get, None)).await.unwrap(), raised);
    let refusal = world.kv().put(put("k", "v")).await;
    refused(refusal, Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
    let status = maintenance(&world).status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.errors, [format!("memberID:{} alarm:NOSPACE", ME.0)]);
    ask(alarm(Deactivate, Nospace)).await.unwrap();
    assert_eq!(ask(alarm(Get, None)).await.unwrap(), []);
    assert!(world.kv().put(put("k", "v")).await.is_ok());
    let unknown = ask(pb::AlarmRequest { action: 9, ..Default::default() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn hashes_cover_what_is_stored() {
    let world = world().await;
    world.put("k", "v").await;
    let at = |revision| {
        let mut client = maintenance(&world);
        async move { client.hash_kv(pb::HashKvRequest { revision }).await.map(|reply| reply.into_inner()) }
    };
    let before = at(0).await.unwrap();
    assert_eq!((before.hash_revision, before.compact_revision), (2, -1));
    world.put("k", "w").await;
    assert_eq!(at(2).await.unwrap().hash, before.hash, "the past does not change");
    assert_ne!(at(0).await.unwrap().hash, before.hash);
    refused(at(9).await, Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
    assert!(maintenance(&world).hash(pb::HashRequest {}).await.is_ok());
    assert!(maintenance(&world).defragment(pb::DefragmentRequest {}).await.is_ok());
}

#[tokio::test]
async fn while_auth_is_off_nobody_can_log_in() {
    let world = world().await;
    let mut auth = AuthClient::new(world.channel.clone());
    let status = auth.auth_status(pb::AuthStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.enabled, status.auth_revision), (false, 1));
    let login = auth.authenticate(pb::AuthenticateRequest { name: "root".into(), password: "x".into() }).await;
    refused(login, Code::FailedPrecondition, "etcdserver: authentication is not enabled");
}

#[tokio::test]
async fn a_learner_answers_only_what_needs_no_quorum() {
    let world = world().await;
    world.backend.set_learner(true);
    let mut kv = world.kv();
    let text = "etcdserver: rpc not supported for learner";
    refused(kv.range(range("k", "")).await, Code::FailedPrecondition, text);
    refused(kv.put(put("k", "v")).await, Code::FailedPrecondition, text);
    refused(kv.range_stream(range("k", "")).await, Code::FailedPrecondition, text);
    let leases = LeaseClient::new(world.channel.clone()).lease_leases(pb::LeaseLeasesRequest {}).await;
    refused(leases, Code::FailedPrecondition, text);
    assert!(kv.range(pb::RangeRequest { serializable: true, ..range("k", "") }).await.is_ok());
    let status = maintenance(&world).status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert!(status.is_learner);
}

#[tokio::test]
async fn a_caller_that_insists_on_a_leader_is_refused_without_one() {
    let world = world().await;
    world.backend.set_leader(None);
    let ask = |value: &'static str| {
        let mut request = tonic::Request::new(pb::RangeRequest { serializable: true, ..range("k", "") });
        request.metadata_mut().insert("hasleader", MetadataValue::from_static(value));
        let mut kv = world.kv();
        async move { kv.range(request).await }
    };
    refused(ask("true").await, Code::Unavailable, "etcdserver: no leader");
    assert!(ask("false").await.is_ok());
}
