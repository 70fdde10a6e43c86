//! Plain HTTP for real, over loopback.

mod any_message;
mod client;
mod sockets;
mod streams;
mod transcripts;

use crate::{
    pb::etcdserverpb::{self as pb, maintenance_client::MaintenanceClient},
    server::tests::{ME, World, world},
};

async fn raise(world: &World, alarm: pb::AlarmType) {
    let request = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Activate.into(),
        member_id: ME.0,
        alarm: alarm.into(),
    };
    MaintenanceClient::new(world.channel.clone()).alarm(request).await.unwrap();
}

#[tokio::test]
async fn the_version_is_etcds() {
    let world = world().await;
    let version = r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#;
    assert_eq!(world.http("GET", "/version").await, (200, version.to_owned()));
    assert_eq!(world.http("GET", "/nothing").await, (404, "404 page not found\n".to_owned()));
    assert_eq!(world.http("POST", "/version").await.0, 405);
}

#[tokio::test]
async fn what_go_programs_publish_says_where_raft_is() {
    let world = world().await;
    let (status, text) = world.http("GET", "/debug/vars").await;
    let vars: serde_json::Value = serde_json::from_str(&text).unwrap();
    let id = format!("{:x}", ME.0);
    assert_eq!(
        (status, &vars["raft.status"]["id"], &vars["raft.status"]["lead"]),
        (200, &id.clone().into(), &id.into())
    );
    assert_eq!(vars["raft.status"]["raftState"], "StateLeader");
    assert!(vars["file_descriptor_limit"].as_u64().is_some_and(|limit| limit > 0), "{text}");
    assert!(vars["cmdline"][0].is_string(), "{text}");
    world.backend.set_leader(None);
    let (_, text) = world.http("GET", "/debug/vars").await;
    assert!(text.contains(r#""lead":"0""#) && text.contains(r#""raftState":"StateFollower""#), "{text}");
}

#[tokio::test]
async fn health_is_true_while_reads_work() {
    let world = world().await;
    let healthy = (200, r#"{"health":"true","reason":""}"#.to_owned());
    assert_eq!(world.http("GET", "/health").await, healthy);
    assert_eq!(world.http("POST", "/health").await.0, 405);

    world.backend.set_leader(None);
    let leaderless = r#"{"health":"false","reason":"RAFT NO LEADER"}"#.to_owned() + "\n";
    assert_eq!(world.http("GET", "/health").await, (503, leaderless));
    assert_eq!(world.http("GET", "/health?serializable=true").await, healthy);

    world.backend.set_leader(Some(ME));
    raise(&world, pb::AlarmType::Nospace).await;
    let alarmed = r#"{"health":"false","reason":"ALARM NOSPACE"}"#.to_owned() + "\n";
    assert_eq!(world.http("GET", "/health").await, (503, alarmed));
    assert_eq!(world.http("GET", "/health?exclude=NOSPACE").await, healthy);
}

#[tokio::test]
async fn a_fault_is_neither_live_nor_healthy() {
    let world = world().await;
    world.backend.set_fault("the \"disk\" is gone");
    let reason = r#"{"health":"false","reason":"RANGE ERROR:the \"disk\" is gone"}"#.to_owned() + "\n";
    assert_eq!(world.http("GET", "/health").await, (503, reason));
    assert_eq!(world.http("GET", "/livez").await.0, 503);
}

#[tokio::test]
async fn probes_have_named_checks() {
    let world = world().await;
    let ready = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n";
    assert_eq!(world.http("GET", "/readyz").await, (200, "ok\n".to_owned()));
    assert_eq!(world.http("GET", "/readyz?verbose").await, (200, ready.to_owned()));
    assert_eq!(world.http("GET", "/livez?verbose=true").await, (200, "[+]serializable_read ok\nok\n".to_owned()));
    assert_eq!(world.http("GET", "/readyz/non_learner").await, (200, "ok\n".to_owned()));
    assert_eq!(world.http("GET", "/livez/non_learner").await.0, 404);

    raise(&world, pb::AlarmType::Corrupt).await;
    let corrupt = "[-]data_corruption failed: alarm activated: CORRUPT\n";
    let (status, text) = world.http("GET", "/readyz").await;
    assert!(status == 503 && text.starts_with(corrupt), "{text}");
    assert_eq!(world.http("GET", "/readyz?exclude=data_corruption").await.0, 200);
    let one = world.http("GET", "/readyz/data_corruption?exclude=data_corruption").await;
    assert_eq!(one, (503, format!("{corrupt}\n")), "a check asked for by name can't be excluded");
    assert_eq!(world.http("GET", "/livez").await.0, 200, "a corrupt member is alive");

    world.backend.set_leader(None);
    let (status, text) = world.http("GET", "/readyz/linearizable_read").await;
    assert!(status == 503 && text.starts_with("[-]linearizable_read failed: "), "{text}");
    assert_eq!(world.http("GET", "/livez").await.0, 200, "nor does an election make it dead");
    world.backend.set_learner(true);
    assert_eq!(world.http("GET", "/readyz/non_learner").await.0, 503);
}
