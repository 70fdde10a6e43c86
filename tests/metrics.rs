//! `/metrics` of real processes: names and kinds as etcd has them, and numbers that are those of what was done.

mod common;

use common::{Cluster, Proxy, Server, eventually};
use henge::pb::etcdserverpb::{
    self as pb, alarm_request::AlarmAction, kv_client::KvClient, lease_client::LeaseClient,
    maintenance_client::MaintenanceClient, request_op::Request, watch_client::WatchClient, watch_request::RequestUnion,
};
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::TcpStream,
};
use tonic::{Code, transport::Channel};

/// Name, kind, and why etcd's is not here.
const NAMES: &str = include_str!("metrics/names.txt");

/// Head and body of an answer to a GET.
fn get(url: &str, path: &str) -> (String, String) {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").expect("a request");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    (head.to_lowercase(), body.to_owned())
}

/// What was scraped: kinds by name, and numbers by name and labels as they stand in the text.
#[derive(Debug, Default)]
struct Scrape {
    kinds: BTreeMap<String, String>,
    numbers: BTreeMap<String, f64>,
}

impl Scrape {
    /// Reads what a process says, and insists on the rules of the format.
    fn of(url: &str, path: &str) -> Scrape {
        let (head, body) = get(url, path);
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
        let (mut scrape, mut helped, mut current) = (Scrape::default(), String::new(), String::new());
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                helped = rest.split_once(' ').expect("a help text").0.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a kind");
                assert_eq!(name, helped, "help comes first");
                assert!(name > current.as_str(), "{name} after {current}");
                assert!(!name.ends_with("_total_total"), "{name}");
                current = name.to_owned();
                scrape.kinds.insert(name.to_owned(), kind.to_owned());
            } else {
                let (name, number) = line.rsplit_once(' ').expect("a number");
                let plain = name.split('{').next().expect("a name");
                let ends = ["_bucket", "_sum", "_count"].iter().find_map(|end| plain.strip_suffix(end));
                let is_histogram = scrape.kinds[&current] == "histogram";
                assert_eq!(if is_histogram { ends.unwrap_or(plain) } else { plain }, current, "{line}");
                let number = number.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                assert!(scrape.numbers.insert(name.to_owned(), number).is_none(), "twice: {line}");
            }
        }
        assert!(body.ends_with('\n'));
        scrape
    }

    #[track_caller]
    fn number(&self, name: &str) -> f64 {
        *self.numbers.get(name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Of all labels.
    fn sum(&self, name: &str) -> f64 {
        let of = |full: &str| full.split('{').next() == Some(name);
        self.numbers.iter().filter(|(full, _)| of(full)).map(|(_, number)| number).sum()
    }
}

fn call(name: &str, method: &str) -> String {
    let (service, method) = method.split_once('/').expect("service and method");
    format!(r#"{name}{{grpc_method="{method}",grpc_service="etcdserverpb.{service}",grpc_type="unary"}}"#)
}

fn handled(code: &str, method: &str) -> String {
    call("grpc_server_handled_total", method).replace('{', &format!(r#"{{grpc_code="{code}","#))
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

/// What one client does with one member; and how many bytes the messages of its calls had, both ways.
async fn work(channel: Channel) -> (usize, usize) {
    let (mut kv, mut lease) = (KvClient::new(channel.clone()), LeaseClient::new(channel.clone()));
    let (mut sent, mut received) = (0, 0);
    for number in 0..10 {
        let request = put(&format!("key{number}"), "value");
        sent += request.encoded_len();
        received += kv.put(request).await.unwrap().into_inner().encoded_len();
    }
    assert_eq!(kv.put(put("", "value")).await.unwrap_err().code(), Code::InvalidArgument);
    sent += put("", "value").encoded_len();
    for serializable in [true, false] {
        let request = pb::RangeRequest { key: "key0".into(), serializable, ..Default::default() };
        sent += request.encoded_len();
        received += kv.range(request).await.unwrap().into_inner().encoded_len();
    }
    let op = |key: &str| pb::RequestOp { request: Some(Request::RequestPut(put(key, "v"))) };
    let txn = pb::TxnRequest { success: vec![op("key0"), op("key1")], ..Default::default() };
    sent += txn.encoded_len();
    received += kv.txn(txn).await.unwrap().into_inner().encoded_len();
    let delete = pb::DeleteRangeRequest { key: "key9".into(), ..Default::default() };
    sent += delete.encoded_len();
    received += kv.delete_range(delete).await.unwrap().into_inner().encoded_len();
    let grant = pb::LeaseGrantRequest { ttl: 60, id: 7 };
    sent += grant.encoded_len();
    received += lease.lease_grant(grant).await.unwrap().into_inner().encoded_len();
    let leased = pb::PutRequest { lease: 7, ..put("leased", "value") };
    sent += leased.encoded_len();
    received += kv.put(leased).await.unwrap().into_inner().encoded_len();
    let revoke = pb::LeaseRevokeRequest { id: 7 };
    sent += revoke.encoded_len();
    received += lease.lease_revoke(revoke).await.unwrap().into_inner().encoded_len();
    (sent, received)
}

#[test]
fn three_members_tell_what_was_done_and_have_etcds_names() {
    let cluster = Cluster::start_with(3, &["--metrics", "extensive"]);
    let runtime = cluster.runtime();
    let url = cluster.members[0].url();
    let channel = runtime.block_on(Channel::from_shared(url.to_owned()).unwrap().connect()).unwrap();
    let all = || cluster.members.iter().map(|member| Scrape::of(member.url(), "/metrics")).collect::<Vec<_>>();

    let before = Scrape::of(url, "/metrics");
    let (sent, received) = runtime.block_on(work(channel.clone()));
    let after = Scrape::of(url, "/metrics");
    let grown = |name: &str| after.number(name) - before.number(name);
    for (method, started, ok, refused) in [
        ("KV/Put", 12.0, 11.0, 1.0),
        ("KV/Range", 2.0, 2.0, 0.0),
        ("KV/Txn", 1.0, 1.0, 0.0),
        ("KV/DeleteRange", 1.0, 1.0, 0.0),
        ("Lease/LeaseGrant", 1.0, 1.0, 0.0),
        ("Lease/LeaseRevoke", 1.0, 1.0, 0.0),
        ("KV/Compact", 0.0, 0.0, 0.0),
    ] {
        assert_eq!(grown(&call("grpc_server_started_total", method)), started, "{method}");
        assert_eq!(grown(&handled("OK", method)), ok, "{method}");
        assert_eq!(grown(&handled("InvalidArgument", method)), refused, "{method}");
        assert_eq!(grown(&call("grpc_server_msg_received_total", method)), started, "{method}");
        assert_eq!(grown(&call("grpc_server_msg_sent_total", method)), ok, "{method}");
    }
    assert_eq!(after.number(&call("grpc_server_handling_seconds_count", "KV/Put")), 12.0);
    assert_eq!(grown("etcd_network_client_grpc_received_bytes_total"), sent as f64);
    assert_eq!(grown("etcd_network_client_grpc_sent_bytes_total"), received as f64);
    // As etcd counts: a delete with a lease is one, too, and the revoke of a lease is no transaction.
    for (name, more) in [
        ("etcd_mvcc_put_total", 13.0),
        ("etcd_mvcc_delete_total", 2.0),
        ("etcd_mvcc_txn_total", 1.0),
        ("etcd_mvcc_range_total", 2.0),
        ("etcd_debugging_mvcc_total_put_size_in_bytes", 10.0 * 9.0 + 2.0 * 5.0 + 11.0),
        ("etcd_debugging_lease_granted_total", 1.0),
        ("etcd_debugging_lease_revoked_total", 1.0),
        ("etcd_debugging_lease_ttl_total_sum", 60.0),
        ("etcd_debugging_mvcc_keys_total", 9.0),
        ("etcd_debugging_mvcc_current_revision", 14.0),
        ("henge_proposal_queued_seconds_count", 15.0),
        ("henge_proposal_agreed_seconds_count", 15.0),
    ] {
        assert_eq!(grown(name), more, "{name}");
    }
    assert!(grown("etcd_disk_wal_fsync_duration_seconds_count") >= 1.0);
    assert!(grown("etcd_disk_wal_write_bytes_total") > sent as f64, "a record is more than its data");

    // All of them have applied the same, and one leads.
    eventually("all have applied all, and know how far the others are away", || {
        let scrapes = all();
        let probed = |scrape: &Scrape| scrape.sum("etcd_network_peer_round_trip_time_seconds_count") >= 2.0;
        let applied =
            scrapes.iter().map(|scrape| scrape.number("etcd_server_proposals_applied_total")).collect::<Vec<_>>();
        (applied.iter().all(|index| *index == applied[0]) && scrapes.iter().all(probed)).then_some(())
    });
    let scrapes = all();
    assert_eq!(scrapes.iter().map(|scrape| scrape.number("etcd_server_is_leader")).sum::<f64>(), 1.0);
    for scrape in &scrapes {
        assert_eq!(scrape.number("etcd_server_has_leader"), 1.0);
        assert!(scrape.number("etcd_server_leader_changes_seen_total") >= 1.0);
        assert_eq!(scrape.sum("etcd_network_known_peers"), 3.0);
        assert_eq!(scrape.sum("etcd_network_active_peers"), 2.0);
        assert!(scrape.sum("etcd_network_peer_sent_bytes_total") > 0.0);
        assert!(scrape.sum("etcd_network_peer_received_bytes_total") > 0.0);
        assert_eq!(scrape.number("etcd_mvcc_put_total"), scrapes[0].number("etcd_mvcc_put_total"));
        assert_eq!(scrape.number("etcd_server_proposals_pending"), 0.0);
        assert_eq!(scrape.number("etcd_server_quota_backend_bytes"), 2_147_483_648.0);
        let in_use = scrape.number("etcd_mvcc_db_total_size_in_use_in_bytes");
        assert!((1.0..=scrape.number("etcd_mvcc_db_total_size_in_bytes")).contains(&in_use), "{in_use}");
        assert_eq!(scrape.number(r#"etcd_server_version{server_version="3.7.1"}"#), 1.0);
        assert_eq!(scrape.number(r#"etcd_cluster_version{cluster_version="3.7"}"#), 1.0);
    }

    // What there is only once it has happened.
    let own = cluster.id(0);
    runtime.block_on(async {
        let alarm = pb::AlarmRequest {
            action: AlarmAction::Activate.into(),
            member_id: own,
            alarm: pb::AlarmType::Corrupt.into(),
        };
        MaintenanceClient::new(channel.clone()).alarm(alarm).await.unwrap();
        let promote = pb::MemberPromoteRequest { id: own };
        pb::cluster_client::ClusterClient::new(channel.clone()).member_promote(promote).await.unwrap_err();
    });
    let last = Scrape::of(url, "/metrics");
    let alarm = format!(r#"etcd_debugging_server_alarms{{server_id="{own:x}",alarm_type="CORRUPT"}}"#);
    assert_eq!(last.number(&alarm), 1.0);
    assert_eq!(last.sum("etcd_server_learner_promote_failures"), 1.0);
    same_names(&last);
}

/// The names and kinds of a scrape are those that are written down.
#[track_caller]
fn same_names(scrape: &Scrape) {
    let lines = NAMES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let here = lines.filter(|line| !line.contains(" - ")).map(str::to_owned).collect::<BTreeSet<_>>();
    let found = scrape.kinds.iter().map(|(name, kind)| format!("{name} {kind}")).collect::<BTreeSet<_>>();
    let missing = here.difference(&found).collect::<Vec<_>>();
    let more = found.difference(&here).collect::<Vec<_>>();
    assert!(missing.is_empty() && more.is_empty(), "missing: {missing:#?}\nnot written down: {more:#?}");
}

#[test]
fn watches_health_and_a_proxy_are_counted_where_they_are() {
    let apart = Cluster::free_peer_url();
    let server = Server::start_with(&["--listen-metrics-urls", &apart]);
    let runtime = tokio::runtime::Runtime::new().unwrap();

    // Health, on its own port: and nobody's data is there.
    let before = Scrape::of(&apart, "/metrics");
    assert!(get(&apart, "/health").0.starts_with("http/1.1 200"));
    let after = Scrape::of(&apart, "/metrics");
    let healthy = "etcd_server_health_success";
    assert_eq!(after.number(healthy) - before.number(healthy), 1.0);
    assert!(!after.kinds.contains_key("grpc_server_handling_seconds"), "only with --metrics extensive");

    // A watch, while it lasts, and its end.
    let channel = runtime.block_on(Channel::from_shared(server.url().to_owned()).unwrap().connect()).unwrap();
    let create = pb::WatchCreateRequest { key: "watched".into(), ..Default::default() };
    let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let (requests, sender) = {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        (tokio_stream::wrappers::ReceiverStream::new(receiver), sender)
    };
    runtime.block_on(async {
        sender.send(create).await.unwrap();
        let mut answers = WatchClient::new(channel.clone()).watch(requests).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().unwrap().created);
        let open = tokio::task::spawn_blocking(move || Scrape::of(&apart, "/metrics")).await.unwrap();
        assert_eq!(open.number("etcd_debugging_mvcc_watcher_total"), 1.0);
        assert_eq!(open.number("etcd_debugging_mvcc_watch_stream_total"), 1.0);
        for number in 0..3 {
            KvClient::new(channel.clone()).put(put("watched", &number.to_string())).await.unwrap();
        }
        let mut events = 0;
        while events < 3 {
            events += answers.message().await.unwrap().unwrap().events.len();
        }
        drop(sender);
    });
    eventually("the watch is over", || {
        let scrape = Scrape::of(server.url(), "/metrics");
        assert_eq!(scrape.number("etcd_debugging_mvcc_events_total"), 3.0);
        (scrape.number("etcd_debugging_mvcc_watcher_total") == 0.0).then_some(())
    });
    eventually("the call has ended", || {
        let scrape = Scrape::of(server.url(), "/metrics");
        let ends = scrape.numbers.iter().filter(|(name, _)| {
            name.starts_with("grpc_server_handled_total") && name.contains(r#"grpc_method="Watch",grpc_service="etcd"#)
        });
        (ends.map(|(_, count)| count).sum::<f64>() == 1.0).then_some(())
    });

    let proxy = Proxy::of(&[server.url()]);
    // A proxy has numbers of its own, and passes those of the member on.
    let own = Scrape::of(proxy.url(), "/proxy/metrics");
    assert_eq!(own.kinds["etcd_grpc_proxy_cache_hits_total"], "gauge");
    assert_eq!(own.kinds["henge_proxy_fences_total"], "counter");
    assert!(own.number("process_resident_memory_bytes") > 0.0);
    assert_eq!(Scrape::of(proxy.url(), "/metrics").number("etcd_server_has_leader"), 1.0);
}

#[test]
fn a_slow_call_is_logged_with_where_its_time_went() {
    // Everything is slow.
    let server = Server::start_with(&["--warning-unary-request-duration", "1us"]);
    for number in 0..100 {
        server.put("key", &number.to_string());
    }
    assert_eq!(server.get("key").as_deref(), Some("99"));
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains("request stats")).collect::<Vec<_>>();
    let write = lines.iter().find(|line| line.contains(r#""Put""#)).expect("a put");
    for field in ["took-ms", "queued-ms", "agreed-ms", "applied-ms", "replied-ms"] {
        assert!(write.contains(&format!("\"{field}\":")), "{field}: {write}");
    }
    let read = lines.iter().find(|line| line.contains(r#""Range""#)).expect("a range");
    assert!(read.contains("\"agreed-ms\":") && read.contains("\"read-ms\":"), "{read}");
}

#[test]
fn there_are_two_kinds_of_metrics() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_henge")).args(["--metrics", "all"]).output();
    let output = output.expect("henge runs");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("--metrics"), "{text}");
}
