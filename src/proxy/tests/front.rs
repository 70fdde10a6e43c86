//! A proxy before a served backend, and a proxy before that, all in one process.

use super::super::*;
use crate::{
    client::ConnectOptions,
    pb::etcdserverpb::{
        CompactionRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, MemberListRequest, PutRequest,
        RangeRequest, WatchCreateRequest, WatchRequest, cluster_client::ClusterClient, kv_client::KvClient,
        lease_client::LeaseClient, watch_client::WatchClient, watch_request::RequestUnion,
    },
    server::tests::{World, http, world},
    types::{KeyRange, Revision},
};
use bytes::Bytes;
use std::time::Duration;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, transport::Channel};

/// A proxy that serves, and a connection to it.
pub(super) struct Proxied {
    pub(super) ring: Ring,
    pub(super) url: String,
    pub(super) channel: Channel,
    _serving: Serving,
}

pub(super) async fn proxy_of(url: &str, settings: Settings) -> Proxied {
    proxy_on(Listener::bind("http://127.0.0.1:0").await.unwrap(), url, settings).await
}

async fn proxy_on(listener: Listener, url: &str, settings: Settings) -> Proxied {
    proxy_listed(listener, url, settings, false).await
}

pub(super) async fn proxy_listed(listener: Listener, url: &str, settings: Settings, is_listed: bool) -> Proxied {
    let own = listener.url();
    let upstream = Upstream::new(&[url.to_owned()], ConnectOptions::default()).unwrap();
    let named = Own { name: "proxy".to_owned(), urls: vec![own.clone()], is_listed, resolver: None, standby: None };
    let ring = Ring::new(upstream, named, settings).unwrap();
    let serving = ring.serve(vec![listener], &ConnectionSettings::default());
    let channel = Channel::from_shared(own.clone()).unwrap().connect().await.unwrap();
    Proxied { ring, url: own, channel, _serving: serving }
}

pub(super) fn all_keys() -> Settings {
    Settings { ranges: vec![KeyRange::prefix(Bytes::new())], ..Settings::default() }
}

/// A member, a proxy before it that copies nothing, and one before that that copies everything.
pub(super) async fn tiers() -> (World, Proxied, Proxied) {
    let world = world().await;
    let near = proxy_of(&world.url, Settings::default()).await;
    let far = proxy_of(&near.url, all_keys()).await;
    (world, near, far)
}

fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test]
async fn what_is_said_through_two_proxies_is_said_to_the_member_and_its_refusals_come_back_as_they_are() {
    let (world, near, far) = tiers().await;
    for channel in [&near.channel, &far.channel] {
        let put = PutRequest { key: b("a"), value: Bytes::from(vec![7; 1_000_000]), ..PutRequest::default() };
        let there = KvClient::new(channel.clone()).put(put).await.unwrap().into_inner().header.unwrap();
        let get = RangeRequest { key: b("a"), ..RangeRequest::default() };
        let direct = KvClient::new(world.channel.clone()).range(get.clone()).await.unwrap().into_inner();
        let through = KvClient::new(channel.clone()).range(get).await.unwrap().into_inner();
        assert_eq!(direct, through);
        assert_eq!(through.kvs[0].mod_revision, there.revision);
        let refused = KvClient::new(channel.clone()).range(RangeRequest::default()).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "etcdserver: key is not provided"));
        let unknown = RangeRequest { key: b("a"), revision: 1_000, ..RangeRequest::default() };
        let refused = KvClient::new(channel.clone()).range(unknown).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange);
    }
}

#[tokio::test]
async fn a_watch_passes_both_ways_and_ends_with_the_proxy() {
    let (world, near, far) = tiers().await;
    for proxy in [far, near] {
        let (requests, to_server) = mpsc::channel(4);
        let create = WatchCreateRequest { key: b("a"), ..WatchCreateRequest::default() };
        requests.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await.unwrap();
        let mut client = WatchClient::new(proxy.channel.clone());
        let mut answers = client.watch(ReceiverStream::new(to_server)).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().unwrap().created);
        let put = PutRequest { key: b("a"), value: b("1"), ..PutRequest::default() };
        KvClient::new(world.channel.clone()).put(put).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap().events.len(), 1);
        proxy.ring.stop();
        let end = timeout(Duration::from_secs(5), answers.message()).await.expect("an end").unwrap_err();
        assert_eq!((end.code(), end.message()), (Code::Unavailable, "etcdserver: server stopped"));
    }
}

async fn grant(channel: &Channel) -> i64 {
    let request = LeaseGrantRequest { ttl: 60, id: 0 };
    LeaseClient::new(channel.clone()).lease_grant(request).await.unwrap().into_inner().id
}

#[tokio::test]
async fn renewals_are_answered_in_their_order_and_a_lease_that_is_gone_has_no_time_to_live() {
    let (world, near, far) = tiers().await;
    for channel in [&near.channel, &far.channel] {
        let mut leases = Vec::new();
        for _ in 0..20 {
            leases.push(grant(channel).await);
        }
        let gone = leases[3];
        LeaseClient::new(world.channel.clone()).lease_revoke(LeaseRevokeRequest { id: gone }).await.unwrap();
        // The same leases twice: the second time while the first is on its way.
        let asked = leases.iter().chain(&leases).copied().collect::<Vec<_>>();
        let requests = tokio_stream::iter(asked.clone().into_iter().map(|id| LeaseKeepAliveRequest { id }));
        let mut answers = LeaseClient::new(channel.clone()).lease_keep_alive(requests).await.unwrap().into_inner();
        for id in asked {
            let answer = answers.message().await.unwrap().expect("an answer to each");
            assert_eq!((answer.id, answer.ttl), (id, if id == gone { 0 } else { 60 }));
            assert!(answer.header.is_some_and(|header| header.member_id != 0));
        }
        assert!(answers.message().await.unwrap().is_none(), "the stream ends with the requests");
    }
}

#[tokio::test]
async fn a_stream_with_a_token_travels_alone() {
    let (_world, near, _far) = tiers().await;
    let renewals = &near.ring.shared.renewals;
    let mut metadata = http::HeaderMap::new();
    assert!(renewals.may_merge(&metadata));
    metadata.insert("token", HeaderValue::from_static("x"));
    assert!(!renewals.may_merge(&metadata));
    let id = grant(&near.channel).await;
    let mut request = Request::new(tokio_stream::once(LeaseKeepAliveRequest { id }));
    request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    let mut answers = LeaseClient::new(near.channel.clone()).lease_keep_alive(request).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().ttl, 60);
}

#[tokio::test]
async fn without_an_upstream_calls_fail_at_once_and_say_what_was_tried() {
    // Bound and dropped: nobody listens there.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let near = proxy_of(&format!("http://{nobody}"), Settings::default()).await;
    let far = proxy_of(&near.url, all_keys()).await;
    for channel in [&near.channel, &far.channel] {
        let get = RangeRequest { key: b("a"), ..RangeRequest::default() };
        let call = timeout(Duration::from_secs(3), async { KvClient::new(channel.clone()).range(get).await });
        let refused = call.await.expect("an answer in time").unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.message().contains(&nobody.to_string()), "{refused:?}");
        let requests = tokio_stream::once(LeaseKeepAliveRequest { id: 7 });
        let renewal = async {
            let mut answers = LeaseClient::new(channel.clone()).lease_keep_alive(requests).await?.into_inner();
            answers.message().await
        };
        let refused = timeout(Duration::from_secs(5), renewal).await.expect("an answer in time").unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
    }
    let (status, text) = http(&far.url, "GET", "/health").await;
    assert_eq!(status, 503);
    assert!(text.starts_with(r#"{"health":"false","reason":"GET ERROR:"#), "{text}");
    assert_eq!(http(&near.url, "GET", "/version").await.0, 503);
}

#[tokio::test]
async fn a_cluster_that_wants_to_know_who_asks_is_healthy() {
    let (world, near, far) = tiers().await;
    world.enable_auth().await;
    for proxy in [&near, &far] {
        assert_eq!(http(&proxy.url, "GET", "/health").await, (200, r#"{"health":"true","reason":""}"#.to_owned()));
    }
}

#[tokio::test]
async fn health_is_the_proxys_own_and_all_other_http_is_the_members() {
    let (world, _near, far) = tiers().await;
    assert_eq!(http(&far.url, "GET", "/health").await, (200, r#"{"health":"true","reason":""}"#.to_owned()));
    for path in ["/version", "/readyz?verbose", "/nothing"] {
        assert_eq!(http(&far.url, "GET", path).await, world.http("GET", path).await, "{path}");
    }
    assert_eq!(http(&far.url, "POST", "/health").await.0, 405);
    world.backend.set_leader(None);
    let health = http(&far.url, "GET", "/readyz").await;
    assert_eq!(health.0, 503);
}

#[tokio::test]
async fn only_proxies_say_that_they_are_ones_when_they_list_members() {
    let (world, near, far) = tiers().await;
    for (channel, via) in [(&world.channel, None), (&near.channel, Some(&near.url)), (&far.channel, Some(&far.url))] {
        let request = MemberListRequest { linearizable: true };
        let answer = ClusterClient::new(channel.clone()).member_list(request).await.unwrap();
        let said = answer.metadata().get(VIA).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(said.as_ref(), via);
    }
}

#[tokio::test]
async fn what_is_copied_is_answered_here_and_says_so() {
    let (_world, near, far) = tiers().await;
    let put = PutRequest { key: b("a"), value: b("1"), ..PutRequest::default() };
    let written = KvClient::new(near.channel.clone()).put(put).await.unwrap().into_inner().header.unwrap().revision;
    let get = RangeRequest { key: b("a"), ..RangeRequest::default() };
    let mut reader = KvClient::new(far.channel.clone());
    // The copy begins when it begins; until then reads pass through.
    let answer = loop {
        let answer = reader.range(get.clone()).await.unwrap();
        assert_eq!(answer.get_ref().kvs[0].mod_revision, written);
        if answer.metadata().contains_key("henge-served-by") {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    let said = |name: &str| answer.metadata().get(name).unwrap().to_str().unwrap();
    assert_eq!(said("henge-served-by"), "copy");
    assert_eq!(said("henge-revision"), written.to_string());
    let direct = KvClient::new(near.channel.clone()).range(get).await.unwrap();
    assert!(!direct.metadata().contains_key("henge-served-by"));
    assert_eq!(direct.into_inner(), answer.into_inner());
}

#[tokio::test]
async fn a_copy_forgets_what_upstream_compacts_and_nothing_if_upstream_refuses() {
    let (_world, _near, far) = tiers().await;
    let mut kv = KvClient::new(far.channel.clone());
    let mut revisions = Vec::new();
    for _ in 0..3 {
        let put = PutRequest { key: b("a"), ..PutRequest::default() };
        revisions.push(kv.put(put).await.unwrap().into_inner().header.unwrap().revision);
    }
    let last = revisions[2];
    // One that has not come so far could be overtaken by the compaction, and begin anew.
    let copy = loop {
        match far.ring.shared.copies.covering(&KeyRange::One(b("a"))) {
            Some(copy) if copy.reader().current() >= Revision(last) => break copy,
            _ => tokio::task::yield_now().await,
        }
    };
    let compact = |revision| CompactionRequest { revision, physical: true };
    let refused = kv.compact(compact(1_000_000)).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    assert!(copy.has_history(Revision(last + 1)), "nothing is compacted");
    kv.compact(compact(last)).await.unwrap();
    assert_eq!(copy.compacted(), Revision(last));
    assert!(!copy.has_history(Revision(last)) && copy.has_history(Revision(last + 1)));
}

#[tokio::test]
async fn proxies_that_stand_before_each_other_say_so() {
    let other = Listener::bind("http://127.0.0.1:0").await.unwrap();
    let one = proxy_of(&other.url(), Settings::default()).await;
    let _other = proxy_on(other, &one.url, Settings::default()).await;
    let get = RangeRequest { key: b("a"), ..RangeRequest::default() };
    let refused = KvClient::new(one.channel.clone()).range(get).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("round"), "{refused:?}");
}
