//! Flags that change what a member does, each with the difference that it makes.

mod common;

use common::{Cluster, PATIENCE, Server, eventually, free_url};
use henge::{
    config::{FLAGS, Flag, Standing},
    pb::etcdserverpb::{
        self as pb, MemberAddRequest, PutRequest, RangeRequest, TxnRequest, WatchCreateRequest, WatchRequest,
        cluster_client::ClusterClient, kv_client::KvClient, lease_client::LeaseClient, request_op::Request,
        watch_client::WatchClient, watch_request::RequestUnion,
    },
};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};
use tokio::{runtime::Runtime, time::timeout};
use tonic::{Code, Status, transport::Channel};

/// Does `test` with a connection to a member that has `flags`.
fn with<F: Future<Output = ()>>(flags: &[&str], test: impl FnOnce(Channel) -> F) {
    let server = Server::start_with(flags);
    Runtime::new().expect("a runtime").block_on(async {
        test(Server::channel(server.url()).await.expect("a connection")).await;
    });
}

fn put(key: &str, value: Vec<u8>) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.into(), ..PutRequest::default() }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.expect_err("a refusal");
    assert_eq!((status.code(), status.message()), (code, text));
}

/// What a member counts, of one name without labels.
fn number(url: &str, name: &str) -> f64 {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").expect("a request");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    let line = reply.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
}

#[test]
fn requests_are_as_large_as_they_may_be() {
    with(&["--max-request-bytes", "1000", "--max-txn-ops", "2"], |channel| async move {
        let mut kv = KvClient::new(channel);
        kv.put(put("k", vec![0; 900])).await.expect("a put");
        let answer = kv.put(put("k", vec![0; 1_100])).await;
        refused(answer, Code::InvalidArgument, "etcdserver: request is too large");
        // What is over that by more than half a mebibyte is not even read.
        let far_too_large = kv.put(put("k", vec![0; 600_000])).await.expect_err("a refusal");
        assert_eq!(far_too_large.code(), Code::ResourceExhausted, "{far_too_large}");
        let txn = |keys: &[&str]| {
            let op = |key: &&str| pb::RequestOp { request: Some(Request::RequestPut(put(key, Vec::new()))) };
            TxnRequest { success: keys.iter().map(op).collect(), ..TxnRequest::default() }
        };
        kv.txn(txn(&["a", "b"])).await.expect("a transaction");
        let answer = kv.txn(txn(&["a", "b", "c"])).await;
        refused(answer, Code::InvalidArgument, "etcdserver: too many operations in txn request");
    });
}

#[test]
fn a_connection_has_as_many_streams_as_it_may() {
    with(&["--max-concurrent-streams", "1"], |channel| async move {
        let create = RequestUnion::CreateRequest(WatchCreateRequest { key: "k".into(), ..Default::default() });
        let requests = tokio_stream::iter([WatchRequest { request_union: Some(create) }]);
        let mut watch = WatchClient::new(channel.clone()).watch(requests).await.expect("a stream").into_inner();
        assert!(watch.message().await.expect("no error").expect("a reply").created);
        let mut kv = KvClient::new(channel);
        let mut read = Box::pin(kv.range(RangeRequest { key: "k".into(), ..Default::default() }));
        let waits = timeout(Duration::from_millis(300), &mut read).await;
        assert!(waits.is_err(), "a second stream beside the only one");
        drop(watch);
        timeout(PATIENCE, read).await.expect("in time").expect("a range");
    });
}

/// A client of HTTP/2 that says hello and never answers a ping.
#[test]
fn a_client_that_is_silent_is_asked_whether_it_lives() {
    let server = Server::start_with(&["--grpc-keepalive-interval", "1s", "--grpc-keepalive-timeout", "1s"]);
    let mut stream = TcpStream::connect(server.url().trim_start_matches("http://")).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("a hello");
    let mut kinds = BTreeSet::new();
    let mut head = [0; 9];
    let end = loop {
        if let Err(error) = stream.read_exact(&mut head) {
            break error.kind();
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut frame = vec![0; length];
        if let Err(error) = stream.read_exact(&mut frame) {
            break error.kind();
        }
        kinds.insert(head[3]);
    };
    assert!(kinds.contains(&6), "it was pinged: {kinds:?}");
    assert!(matches!(end, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "it was cut: {end}");
}

#[test]
fn silent_watchers_are_told_of_progress_as_often_as_it_is_wanted() {
    with(&["--watch-progress-notify-interval", "100ms"], |channel| async move {
        let create = WatchCreateRequest { key: "k".into(), progress_notify: true, ..Default::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let (requests, receiver) = tokio::sync::mpsc::channel(1);
        requests.send(create).await.expect("room for one");
        let requests_to_come = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut watch = WatchClient::new(channel).watch(requests_to_come).await.expect("a stream").into_inner();
        assert!(watch.message().await.expect("no error").expect("a reply").created);
        for _ in 0..2 {
            let told = timeout(PATIENCE, watch.message()).await.expect("in time").expect("no error").expect("a reply");
            assert!(told.events.is_empty() && told.watch_id == 0, "{told:?}");
        }
    });
}

#[test]
fn there_are_as_many_learners_as_there_may_be() {
    // A quorum has to have been connected for five seconds, unless nobody asks for that.
    with(&["--max-learners", "2", "--strict-reconfig-check=false"], |channel| async move {
        let mut cluster = ClusterClient::new(channel);
        for (number, is_refused) in [(1, false), (2, false), (3, true)] {
            let peer_ur_ls = vec![format!("http://127.0.0.1:{}", 9_000 + number)];
            let answer = cluster.member_add(MemberAddRequest { peer_ur_ls, is_learner: true }).await;
            match is_refused {
                true => {
                    refused(answer, Code::FailedPrecondition, "etcdserver: too many learner members in cluster");
                }
                false => assert_eq!(answer.expect("a learner").into_inner().members.len(), 1 + number),
            }
        }
    });
}

#[test]
fn times_of_elections_are_checked_and_used() {
    let bad = Server::start_with(&[]).try_start_once_with(&["--heartbeat-interval=100", "--election-timeout=400"]);
    let said = String::from_utf8_lossy(&bad.stderr);
    assert!(!bad.status.success() && said.contains("election-timeout"), "{said}");
    // No lease may end while there is no leader to renew it.
    with(&["--heartbeat-interval=100", "--election-timeout=5000"], |channel| async move {
        let request = pb::LeaseGrantRequest { ttl: 1, id: 0 };
        let lease = LeaseClient::new(channel).lease_grant(request).await.expect("a lease").into_inner();
        assert_eq!(lease.ttl, 8);
    });
}

#[test]
fn the_log_can_have_a_folder_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let flags = ["--wal-dir", log.to_str().expect("a name in UTF-8")];
    let mut server = Server::start_with(&flags);
    server.put("k", "v");
    let is_segment = |name: &str| name.ends_with(".wal");
    let names = std::fs::read_dir(&log).expect("the folder of the log").flatten();
    let names: Vec<_> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().any(|name| is_segment(name)), "{names:?}");
    assert!(!server.data_dir().join("member/wal").exists());
    server.kill();
    server.restart();
    assert_eq!(server.get("k").as_deref(), Some("v"));
}

#[test]
fn marks_come_as_often_as_they_are_wanted() {
    let (often, seldom) = (Server::start_with(&["--snapshot-count", "10"]), Server::start());
    for number in 0..40 {
        often.put("k", &number.to_string());
        seldom.put("k", &number.to_string());
    }
    eventually("a mark", || often.log().contains("saved snapshot to disk").then_some(()));
    assert!(!seldom.log().contains("saved snapshot to disk"));
}

#[test]
fn the_store_is_flushed_as_often_as_it_is_wanted() {
    let commits = |server: &Server| number(server.url(), "etcd_disk_backend_commit_duration_seconds_count");
    let often = Server::start_with(&["--backend-batch-interval", "10ms"]);
    let seldom = Server::start_with(&["--backend-batch-interval", "1h"]);
    let before = commits(&seldom);
    seldom.put("k", "v");
    let (mut last, mut number) = (commits(&often), 0);
    for _ in 0..3 {
        last = eventually("a flush", || {
            number += 1;
            often.put("k", &number.to_string());
            Some(commits(&often)).filter(|now| *now > last)
        });
    }
    assert_eq!(commits(&seldom), before);
}

#[test]
fn a_compaction_is_swept_in_the_steps_that_are_wanted() {
    let pauses =
        |server: &Server| number(server.url(), "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_count");
    let flags = ["--compaction-batch-limit", "10", "--compaction-sleep-interval", "1ms"];
    let (small, large) = (Server::start_with(&flags), Server::start());
    for server in [&small, &large] {
        for number in 0..100 {
            server.put("k", &number.to_string());
        }
        server.compact(server.revision());
    }
    assert!(pauses(&small) >= 5.0 && pauses(&large) < 5.0, "{} and {}", pauses(&small), pauses(&large));
}

#[test]
fn history_is_forgotten_by_itself_if_that_is_wanted() {
    let server = Server::start_with(&["--auto-compaction-mode=periodic", "--auto-compaction-retention=1s"]);
    server.put("k", "old");
    let old = server.revision();
    eventually("what is old cannot be read any more", || {
        server.put("k", "new");
        server.get_at("k", old - 1).is_err_and(|error| error.contains("has been compacted")).then_some(())
    });
}

#[test]
fn the_log_is_written_as_and_where_it_is_wanted() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("henge.log");
    let outputs = format!("stderr,{}", file.display());
    let server = Server::start_with(&["--logger=zap", "--log-outputs", &outputs, "--log-level=info"]);
    let line = eventually("a line in the file", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.lines().find(|line| line.contains("ready to serve client requests")).map(str::to_owned)
    });
    let fields: serde_json::Value = serde_json::from_str(&line).expect("a line is JSON");
    for name in ["level", "ts", "caller", "msg"] {
        assert!(fields[name].is_string(), "{name} in {line}");
    }
    assert_eq!(fields["level"], "info");
    assert!(line.starts_with(r#"{"level":"info","ts":""#), "zap's order: {line}");
    assert!(server.log().contains("ready to serve client requests"), "beside the file");

    let quiet = Server::start_with(&["--log-level=error"]);
    assert!(!quiet.log().contains(r#""level":"info""#), "{}", quiet.log());
    let plain = Server::start_with(&["--log-format=console"]);
    let log = plain.log();
    assert!(log.lines().all(|line| !line.starts_with('{')) && log.contains("ready to serve"), "{log}");
}

#[test]
fn only_at_a_terminal_a_member_says_more_than_its_log() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = free_url();
    let mut member = Command::new(env!("CARGO_BIN_EXE_henge"))
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--listen-peer-urls", &free_url()])
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut log = BufReader::new(member.stderr.take().expect("its log")).lines().map_while(Result::ok);
    // The greeting would come right behind it.
    assert!(log.any(|line| line.contains("serving client traffic")));
    assert!(Command::new("kill").arg(member.id().to_string()).status().expect("kill(1)").success());
    let mut said = String::new();
    member.stdout.take().expect("its output").read_to_string(&mut said).expect("text");
    assert!(member.wait().expect("it ends").success());
    assert_eq!(said, "");
}

#[test]
fn signals_that_etcd_passes_over_do_not_end_a_member() {
    let server = Server::start();
    let signal = |name: &str| {
        let pid = server.pid().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill runs").success());
    };
    for name in ["-USR1", "-USR2"] {
        signal(name);
        server.put(name, "v");
        assert_eq!(server.get(name).as_deref(), Some("v"));
    }
}

#[test]
fn members_with_unusual_wishes_agree() {
    let flags = ["--pre-vote=false", "--snapshot-catchup-entries=100", "--warning-apply-duration=1ns"];
    let cluster = Cluster::start_with(3, &flags);
    cluster.members[0].put("k", "v");
    eventually("a batch that took too long", || {
        let logs = cluster.members.iter().map(Server::log);
        logs.into_iter().any(|log| log.contains("apply request took too long")).then_some(())
    });
}

#[test]
fn other_wishes_are_taken() {
    let mut server = Server::start_with(&[
        "--unsafe-no-fsync",
        "--wal-keep-all",
        "--storage-cache-bytes=16777216",
        "--value-cache-bytes=1048576",
        "--snapshot-send-bytes-per-s=1000000",
        "--initial-cluster-token=another",
        "--name=other",
        "--initial-cluster=other=http://localhost:2380",
    ]);
    server.put("k", "v");
    assert!(server.stop().success());
    server.restart();
    assert_eq!(server.get("k").as_deref(), Some("v"));
}

/// What may be said without an effect.
fn anything(kind: henge::config::Kind) -> &'static str {
    use henge::config::Kind;
    match kind {
        Kind::Text => "x",
        Kind::Int => "7",
        Kind::Bool => "true",
        Kind::Duration => "7s",
        Kind::Urls => "http://localhost:7",
    }
}

#[test]
fn flags_without_an_effect_are_taken_and_those_for_later_are_refused_with_the_reason() {
    let of = |wanted: fn(&Standing) -> bool| {
        let flags = FLAGS.iter().filter(move |flag| wanted(&flag.standing));
        // Its text is checked, although it changes nothing.
        let text = |flag: &Flag| if flag.name == "feature-gates" { "AllBeta=true" } else { anything(flag.kind) };
        flags.map(move |flag| (flag.name, flag.standing, format!("--{}={}", flag.name, text(flag))))
    };
    let meaningless: Vec<_> = of(|standing| matches!(standing, Standing::Meaningless(_))).collect();
    let flags: Vec<&str> = meaningless.iter().map(|(_, _, flag)| flag.as_str()).collect();
    let server = Server::start_with(&flags);
    server.put("k", "v");

    let later: Vec<_> = of(|standing| matches!(standing, Standing::Later(_))).collect();
    let flags: Vec<&str> = later.iter().map(|(_, _, flag)| flag.as_str()).collect();
    let refused = server.try_start_once_with(&flags);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    for (name, standing, flag) in later {
        let Standing::Later(reason) = standing else { unreachable!("they were chosen for it") };
        let is_default = FLAGS.iter().any(|known| known.name == name && flag.ends_with(&format!("={}", known.default)));
        assert!(is_default || said.contains(&format!("--{name}")) && said.contains(reason), "{name}: {said}");
    }
}
