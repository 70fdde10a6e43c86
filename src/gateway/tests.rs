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
use std::io::Read as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
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

/// Status, head as it is spelled, and body of an answer that may be compressed.
async fn asked(world: &World, request: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(world.url.strip_prefix("http://").unwrap()).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    let body = answer.split_off(end + 4);
    let head = String::from_utf8(answer).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head, body)
}

#[tokio::test]
async fn a_path_that_goes_a_long_way_round_is_answered_with_the_short_one() {
    let world = world().await;
    for (request, location) in [
        ("GET //health?serializable=true", "/health?serializable=true"),
        ("GET /./health", "/health"),
        ("POST //health", "/health"),
        ("POST /v3//kv/range", "/v3/kv/range"),
        ("POST /v3beta//kv/range", "/v3/kv/range"),
        ("GET /v3", "/v3/"),
    ] {
        let (status, head, body) = asked(&world, request).await;
        assert_eq!(status, 307, "{request}");
        assert!(head.contains(&format!("\r\nLocation: {location}\r\n")), "{head}");
        let text = format!("<a href=\"{location}\">Temporary Redirect</a>.\n\n");
        assert_eq!(String::from_utf8(body).unwrap(), if request.starts_with("GET") { text } else { String::new() });
    }
    assert_eq!(asked(&world, "GET /health/").await.0, 404);
}

#[tokio::test]
async fn numbers_are_told_by_any_method_and_compressed_if_that_is_wanted() {
    let world = world().await;
    let (status, head, body) = asked(&world, "POST /metrics").await;
    assert!(status == 200 && head.contains("\r\nContent-Encoding: gzip\r\n"), "{head}");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    assert!(text.contains("# TYPE etcd_server_health_success counter\n"), "{text}");
    let (status, plain) = world.http("DELETE", "/metrics").await;
    assert!(status == 200 && plain.starts_with("# HELP ") && plain.len() > 4 * body.len(), "{plain}");
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
    assert_eq!(world.http("POST", "/livez/non_learner").await.0, 404);
    assert_eq!(world.http("POST", "/readyz/non_learner").await.0, 405);

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
