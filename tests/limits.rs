//! What a server lets anybody have, with bounds so small that they are reached: answers, requests, connections, requests a second.

mod common;

use common::{Cluster, Server, eventually};
use henge::pb::etcdserverpb::{
    self as pb, RangeRequest, RangeResponse,
    kv_client::KvClient,
    range_request::{SortOrder, SortTarget},
    watch_client::WatchClient,
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
};
use tokio::{runtime::Runtime, task::JoinSet};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Status, Streaming, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("an address")
}

/// What `/metrics` says of a name with its labels; `None` if nobody answers.
fn try_number(url: &str, name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(address(url)).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", address(url)).ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok().filter(|bytes| *bytes > 0)?;
    let found = reply.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    Some(found.unwrap_or_else(|| panic!("no {name} in {reply}")))
}

fn number(url: &str, name: &str) -> f64 {
    try_number(url, name).expect("an answer")
}

fn all() -> RangeRequest {
    RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..RangeRequest::default() }
}

/// When to come back, as a refusal says it.
fn pushback_ms(status: &Status) -> i64 {
    let text = status.metadata().get("grpc-retry-pushback-ms").expect("it says when to come back");
    text.to_str().expect("a text").parse().expect("a number")
}

#[track_caller]
fn is_shed(status: &Status) {
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "etcdserver: too many requests"));
}

#[test]
fn an_answer_that_is_too_large_is_refused_and_can_be_had_in_pieces() {
    let server = Server::start_with(&["--max-range-bytes", "100000"]);
    for number in 0..50 {
        server.put(&format!("key{number:02}"), &"v".repeat(4_000));
    }
    let runtime = Runtime::new().unwrap();
    let channel = runtime.block_on(Server::channel(server.url())).unwrap();
    let mut kv = KvClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut range = |request: RangeRequest| runtime.block_on(kv.range(request)).map(|reply| reply.into_inner());
    let sorted = RangeRequest { sort_order: SortOrder::Descend.into(), sort_target: SortTarget::Mod.into(), ..all() };
    for request in [all(), sorted.clone(), RangeRequest { limit: 30, ..all() }] {
        let refusal = range(request).unwrap_err();
        assert_eq!(refusal.code(), Code::ResourceExhausted);
        assert!(refusal.message().contains("larger than max-range-bytes"), "{refusal}");
        assert_eq!(pushback_ms(&refusal), -1, "the same again would be refused again");
    }
    assert_eq!(range(RangeRequest { limit: 10, ..all() }).unwrap().kvs.len(), 10);
    let newest = range(RangeRequest { limit: 2, ..sorted }).unwrap();
    assert_eq!((newest.count, &newest.kvs[0].key[..]), (50, &b"key49"[..]));
    assert_eq!(range(RangeRequest { keys_only: true, ..all() }).unwrap().kvs.len(), 50);
    assert_eq!(range(RangeRequest { count_only: true, ..all() }).unwrap().count, 50);

    let read_all = pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(all())) };
    let txn = pb::TxnRequest { success: vec![read_all], ..pb::TxnRequest::default() };
    let refusal = runtime.block_on(kv.txn(txn)).unwrap_err();
    assert!(refusal.message().contains("larger than max-range-bytes"), "{refusal}");

    let mut keys = 0;
    runtime.block_on(async {
        let mut chunks = kv.range_stream(all()).await.unwrap().into_inner();
        while let Some(chunk) = chunks.message().await.unwrap() {
            keys += chunk.range_response.unwrap().kvs.len();
        }
    });
    assert_eq!(keys, 50);
}

/// Asks for a range, and reads nothing of the answer until it is asked to.
async fn unread(channel: Channel, request: RangeRequest) -> Result<Streaming<RangeResponse>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(usize::MAX);
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let codec = ProstCodec::<RangeRequest, RangeResponse>::default();
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    Ok(grpc.server_streaming(Request::new(request), path, codec).await?.into_inner())
}

#[test]
fn who_reads_no_answers_gives_way_and_everybody_else_is_served() {
    // 16 MiB for requests and answers, half of it for lists.
    let server = Server::start_with(&["--memory-budget", "67108864"]);
    for number in 0..12 {
        server.put(&format!("key{number:02}"), &"v".repeat(1 << 20));
    }
    let runtime = Runtime::new().unwrap();
    let three = || RangeRequest { limit: 3, ..all() };
    let admitted = || number(server.url(), "henge_server_requests_admitted_bytes{class=\"list\"}");
    let slow = runtime.block_on(Server::channel(server.url())).unwrap();
    let mut held = runtime.block_on(unread(slow, three())).unwrap();
    eventually("the answer waits to be read, and nothing else of it", || {
        (3_145_728.0..3_300_000.0).contains(&admitted()).then_some(())
    });
    server.put("small", "value");
    assert_eq!(server.get("small").as_deref(), Some("value"));
    server.grant(60);

    // While it is made a list takes twice its bytes: there is no room for another one.
    let honest = runtime.block_on(Server::channel(server.url())).unwrap();
    let list = || {
        let mut answer = runtime.block_on(unread(honest.clone(), three())).expect("who waits is served");
        let answer = runtime.block_on(answer.message()).expect("an answer").expect("one");
        assert_eq!(answer.kvs.len(), 3);
    };
    list();
    assert_eq!(number(server.url(), "henge_server_slow_readers_closed_total"), 1.0);
    assert_eq!(number(server.url(), "henge_server_requests_shed_total{class=\"list\"}"), 0.0);
    runtime.block_on(held.message()).expect_err("its connection is closed");
    // Who reads is not closed, however often it asks.
    (0..5).for_each(|_| list());
    assert_eq!(number(server.url(), "henge_server_slow_readers_closed_total"), 1.0);
    eventually("all room is free again", || (admitted() == 0.0).then_some(()));
}

#[test]
fn a_stream_of_chunks_that_nobody_reads_gives_way_too() {
    let server = Server::start_with(&["--memory-budget", "67108864"]);
    for number in 0..12 {
        server.put(&format!("key{number:02}"), &"v".repeat(1 << 20));
    }
    let runtime = Runtime::new().unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        let channel = runtime.block_on(Server::channel(server.url())).unwrap();
        let mut kv = KvClient::new(channel).max_decoding_message_size(usize::MAX);
        held.push(runtime.block_on(kv.range_stream(all())).unwrap().into_inner());
    }
    let name = "henge_server_requests_admitted_bytes{class=\"list\"}";
    eventually("they hold what they can get", || (number(server.url(), name) > 6e6).then_some(()));
    let honest = runtime.block_on(Server::channel(server.url())).unwrap();
    let mut kv = KvClient::new(honest).max_decoding_message_size(usize::MAX);
    let answer = runtime.block_on(kv.range(RangeRequest { limit: 3, ..all() })).expect("who waits is served");
    assert_eq!(answer.into_inner().kvs.len(), 3);
    assert!(number(server.url(), "henge_server_slow_readers_closed_total") >= 1.0);
}

/// Whether the server has closed a connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("it can be asked");
    loop {
        match stream.read(&mut [0; 64]) {
            Ok(0) => return true,
            // It says what it can before it hears anything.
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn connections_are_bounded_and_silent_ones_make_room() {
    let server = Server::start_with(&["--max-connections", "8"]);
    let runtime = Runtime::new().unwrap();
    let honest = runtime.block_on(Server::channel(server.url())).unwrap();
    let put = |channel: &Channel| {
        let request = pb::PutRequest { key: "k".into(), value: "v".into(), ..pb::PutRequest::default() };
        runtime.block_on(KvClient::new(channel.clone()).put(request)).map(drop)
    };
    put(&honest).unwrap();
    let mut silent = (0..20).map(|_| TcpStream::connect(address(server.url())).unwrap()).collect::<Vec<_>>();
    eventually("those who are too many are closed", || {
        let closed = silent.iter_mut().map(is_closed).filter(|is_closed| *is_closed).count();
        (closed >= 16).then_some(())
    });
    put(&honest).expect("who has asked for something keeps its place");
    // The silent ones have their time, and then they give way.
    let newcomer = eventually("a newcomer is let in", || {
        let channel = runtime.block_on(Server::channel(server.url())).ok()?;
        put(&channel).ok().map(|()| channel)
    });
    put(&newcomer).unwrap();
    put(&honest).unwrap();
    drop(silent);
    let refused = |how: &str| {
        let name = format!("henge_server_connections_refused_total{{listener=\"clients\",how=\"{how}\"}}");
        eventually("there is a place for whoever asks for numbers", || try_number(server.url(), &name))
    };
    assert!(refused("turned_away") + refused("closed") >= 12.0);
}

#[test]
fn an_address_has_no_more_connections_than_its_own() {
    let server = Server::start_with(&["--max-connections-per-address", "4"]);
    let runtime = Runtime::new().unwrap();
    let ask = |channel: &Channel| {
        let request = RangeRequest { key: "k".into(), serializable: true, ..RangeRequest::default() };
        runtime.block_on(KvClient::new(channel.clone()).range(request)).is_ok()
    };
    let mut held = Vec::new();
    eventually("four are served", || {
        let channel = runtime.block_on(Server::channel(server.url())).ok()?;
        if ask(&channel) {
            held.push(channel);
        }
        (held.len() == 4).then_some(())
    });
    let fifth = runtime.block_on(Server::channel(server.url()));
    assert!(!fifth.is_ok_and(|channel| ask(&channel)), "there is no fifth");
    assert!(held.iter().all(ask));
}

#[test]
fn strangers_who_hold_connections_to_a_peer_url_keep_no_member_away() {
    let mut cluster = Cluster::start(3);
    let peers = cluster.list().into_iter().map(|member| member.peer_ur_ls[0].clone()).collect::<Vec<_>>();
    let mut strangers = Vec::new();
    for peer in &peers {
        strangers.extend((0..300).map(|_| TcpStream::connect(address(peer)).unwrap()));
    }
    eventually("strangers are few", || {
        let silent = number(cluster.members[1].url(), "henge_peer_connections{state=\"silent\"}");
        (silent <= 256.0 && number(cluster.members[1].url(), "henge_peer_connections_closed_total") >= 44.0)
            .then_some(())
    });
    cluster.members[0].kill();
    eventually("the others go on", || cluster.members[1].try_put("while one is away", "v").ok());
    cluster.members[0].restart();
    assert_eq!(cluster.members[0].get("while one is away").as_deref(), Some("v"), "it is with the others again");
    let closed = strangers.iter_mut().map(is_closed).filter(|is_closed| *is_closed).count();
    assert!(closed >= 44, "{closed}");
}

/// As an API server of Kubernetes has it, and more: etcd would serve it, so it is served.
#[test]
fn what_large_clusters_do_is_not_refused_by_default() {
    let server = Server::start();
    let runtime = Runtime::new().unwrap();
    let channel = runtime.block_on(Server::channel(server.url())).unwrap();
    runtime.block_on(async {
        let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        for hundred in 0..100 {
            let put = |number: u32| {
                let key = format!("/registry/pods/{:05}", hundred * 100 + number).into();
                let put = pb::PutRequest { key, value: vec![b'v'; 1_500].into(), ..pb::PutRequest::default() };
                pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
            };
            let success = (0..100).map(put).collect();
            kv.txn(pb::TxnRequest { success, ..pb::TxnRequest::default() }).await.unwrap();
        }
        // Watches: ten thousand on one connection, of which each hundred have a stream.
        let mut watches = Vec::new();
        for stream in 0..100 {
            let create = move |number: u32| {
                let key = format!("/registry/pods/{:05}", stream * 100 + number).into();
                let create = pb::WatchCreateRequest { key, ..pb::WatchCreateRequest::default() };
                pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) }
            };
            let requests = tokio_stream::iter((0..100).map(create)).chain(tokio_stream::pending());
            let mut replies = WatchClient::new(channel.clone()).watch(requests).await.unwrap().into_inner();
            for _ in 0..100 {
                let reply = replies.message().await.unwrap().expect("a reply");
                assert!(reply.created && !reply.canceled, "{reply:?}");
            }
            watches.push(replies);
        }
        // Connections: a thousand, and all will have something to ask.
        let mut connections = Vec::new();
        for _ in 0..2_000 {
            // On a busy machine one may take longer than the client waits; what the server did is in its counts, below.
            if connections.len() < 1_000 {
                connections.extend(Server::channel(server.url()).await);
            }
        }
        assert_eq!(connections.len(), 1_000);
        let mut tasks = JoinSet::new();
        // Lists, whole and sorted, more than are read at the same time.
        for number in 0..16 {
            let (order, target) =
                [(SortOrder::None, SortTarget::Key), (SortOrder::Descend, SortTarget::Mod)][number % 2];
            let request = RangeRequest { sort_order: order.into(), sort_target: target.into(), ..all() };
            let mut kv = kv.clone();
            tasks.spawn(async move { assert!(kv.range(request).await.unwrap().into_inner().kvs.len() >= 10_000) });
        }
        // Requests as large as they may be.
        for number in 0..32 {
            let key = format!("large{number}").into();
            let put = pb::PutRequest { key, value: vec![b'v'; (3 << 19) - 1_000].into(), ..pb::PutRequest::default() };
            let mut kv = kv.clone();
            tasks.spawn(async move { kv.put(put).await.map(drop).unwrap() });
        }
        for connection in &connections {
            let mut kv = KvClient::new(connection.clone());
            let request = RangeRequest { key: "/registry/pods/00001".into(), ..RangeRequest::default() };
            tasks.spawn(async move { assert_eq!(kv.range(request).await.unwrap().into_inner().kvs.len(), 1) });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        kv.put(pb::PutRequest { key: "/registry/pods/09999".into(), ..pb::PutRequest::default() }).await.unwrap();
        let event = watches.last_mut().unwrap().message().await.unwrap().expect("an event");
        assert_eq!(event.events.len(), 1);
    });
    for class in ["list", "read", "write", "upkeep"] {
        let name = format!("henge_server_requests_shed_total{{class=\"{class}\"}}");
        assert_eq!(number(server.url(), &name), 0.0, "{class}");
    }
    assert_eq!(number(server.url(), "henge_server_streams_shed_total"), 0.0);
    for how in ["turned_away", "closed"] {
        let name = format!("henge_server_connections_refused_total{{listener=\"clients\",how=\"{how}\"}}");
        assert_eq!(number(server.url(), &name), 0.0, "{how}");
    }
}

#[test]
fn requests_a_second_are_counted_by_prefix_and_by_user() {
    let server = Server::start_with(&["--rate-limit-prefixes", "/hot/=5"]);
    let runtime = Runtime::new().unwrap();
    let channel = runtime.block_on(Server::channel(server.url())).unwrap();
    let mut kv = KvClient::new(channel);
    let mut put = |key: &str| {
        let request = pb::PutRequest { key: key.to_owned().into(), ..pb::PutRequest::default() };
        runtime.block_on(kv.put(request)).map(drop)
    };
    let refusal = (0..10_000).find_map(|_| put("/hot/key").err()).expect("there are too many");
    is_shed(&refusal);
    assert!((0..=200).contains(&pushback_ms(&refusal)), "{refusal:?}");
    for _ in 0..50 {
        put("/cold/key").expect("other keys are not counted");
    }
    assert!(number(server.url(), "henge_rate_limit_refused_total{kind=\"prefix\",of=\"/hot/\"}") >= 1.0);
    assert_eq!(number(server.url(), "henge_rate_limit_per_second{kind=\"prefix\",of=\"/hot/\"}"), 5.0);
    eventually("with time there may be more", || put("/hot/key").ok());

    let server = Server::start_with(&["--rate-limit-users", "*=200"]);
    let channel = runtime.block_on(Server::channel(server.url())).unwrap();
    let mut kv = KvClient::new(channel);
    let range = RangeRequest { key: "k".into(), serializable: true, ..RangeRequest::default() };
    let refusal = (0..100_000).find_map(|_| runtime.block_on(kv.range(range.clone())).err());
    is_shed(&refusal.expect("nobody is one of the others"));
}

#[test]
fn what_cannot_be_a_bound_is_refused_at_the_start() {
    let server = Server::start();
    let output =
        server.try_start_once_with(&["--memory-budget", "1", "--rate-limit-users", "alice", "--max-connections", "-1"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    for flag in ["--memory-budget", "--rate-limit-users", "--max-connections"] {
        assert!(said.contains(&format!("invalid value for {flag}")), "{flag}: {said}");
    }
}
