//! One port: gRPC and HTTP side by side, from binding to stopping.

use super::*;
use crate::pb::grpc::health::v1::{
    HealthCheckRequest, HealthListRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tokio::net::UnixStream;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = Listener::bind("http://127.0.0.1:0").await.unwrap();
    let error = Listener::bind(&taken.url()).await.unwrap_err().to_string();
    assert_eq!(error, format!("cannot listen on {}: the address is already in use", taken.url()));
}

#[tokio::test]
async fn what_cannot_be_listened_on_says_why() {
    let why = async |url: &str| Listener::bind(url).await.unwrap_err().to_string();
    assert!(why("ftp://127.0.0.1:0").await.contains("the scheme \"ftp\" is not served"));
    assert!(why("127.0.0.1:2379").await.contains("a URL begins with http://, https:// or unix://"));
}

#[tokio::test]
async fn a_unix_socket_is_served_and_its_file_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("henge.sock");
    std::fs::write(&path, "left over by a member that was killed").unwrap();
    let url = format!("unix://{}", path.display());
    let listener = Listener::bind(&url).await.unwrap();
    assert!(Listener::bind(&url).await.unwrap_err().to_string().contains("another process serves it"));

    let edge = Edge::new(TestBackend::new(), Settings::default());
    let serving = serve(vec![listener], edge.clone(), gateway::routes(edge), &ConnectionSettings::default());
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    serving.stop(Duration::from_secs(1)).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_port_for_http_alone_has_no_grpc() {
    let edge = Edge::new(TestBackend::new(), Settings::default());
    let listener = Listener::bind("http://127.0.0.1:0").await.unwrap();
    let url = listener.url();
    let serving = serve_http(vec![listener], gateway::routes(edge), &ConnectionSettings::default());
    assert_eq!(http(&url, "GET", "/health").await.0, 200);
    let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
    let status = KvClient::new(channel).range(range("k", "")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
    serving.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let world = world().await;
    for path in ["/etcdserverpb.KV/Nonsense", "/nobody.Knows/This"] {
        let mut client = tonic::client::Grpc::new(world.channel.clone());
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<pb::RangeRequest, pb::RangeResponse>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let status = client.unary(tonic::Request::new(range("k", "")), path, codec).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
    }
}

#[tokio::test]
async fn health_is_serving_only_while_the_member_can() {
    let world = world().await;
    let mut health = HealthClient::new(world.channel.clone());
    let mut updates = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let mut wait_for = async |status: ServingStatus| {
        while updates.message().await.unwrap().unwrap().status != i32::from(status) {}
    };
    wait_for(ServingStatus::Serving).await;
    world.backend.set_leader(None);
    wait_for(ServingStatus::NotServing).await;
    world.backend.set_leader(Some(ME));
    wait_for(ServingStatus::Serving).await;
    world.backend.set_fault("the disk is gone");
    wait_for(ServingStatus::NotServing).await;
}

#[tokio::test]
async fn health_is_of_the_member_as_a_whole() {
    let world = world().await;
    let mut health = HealthClient::new(world.channel.clone());
    let whole = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(whole.status(), ServingStatus::Serving);
    let all = health.list(HealthListRequest::default()).await.unwrap().into_inner().statuses;
    assert_eq!(all, [(String::new(), whole)].into());

    let unknown = || HealthCheckRequest { service: "nobody".to_owned() };
    refused(health.check(unknown()).await, Code::NotFound, "unknown service");
    let mut updates = health.watch(unknown()).await.unwrap().into_inner();
    assert_eq!(updates.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    let more = tokio::time::timeout(Duration::from_millis(100), updates.message()).await;
    assert!(more.is_err(), "it might begin to exist");
}

#[tokio::test]
async fn reflection_knows_all_services() {
    let world = world().await;
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut client = ServerReflectionClient::new(world.channel.clone());
    let requests = tokio_stream::iter([request]);
    let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.iter().map(|service| &service.name[..]).collect();
    for name in ["etcdserverpb.KV", "etcdserverpb.Watch", "v3lockpb.Lock", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
}

#[tokio::test]
async fn stopping_ends_streams_and_frees_the_port_in_time() {
    let world = member().await;
    let mut leases = pb::lease_client::LeaseClient::new(world.channel.clone());
    let mut stream = leases.lease_keep_alive(tokio_stream::pending()).await.unwrap().into_inner();
    // This one never says a word, and so never ends by itself.
    let _silent = TcpStream::connect(world.url.strip_prefix("http://").unwrap()).await.unwrap();

    let began = std::time::Instant::now();
    world.backend.set_stopping();
    let World { serving, url, .. } = world;
    serving.stop(Duration::from_millis(300)).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    refused(stream.message().await, Code::Unavailable, "etcdserver: server stopped");
    assert!(Listener::bind(&url).await.is_ok(), "the port is free");
}
