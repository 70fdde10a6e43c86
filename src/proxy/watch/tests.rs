//! The service for real, over loopback: a core with a machine but without consensus, a proxy in front of it, a client.

use super::*;
use crate::{
    client::{ConnectOptions, Endpoints},
    gateway,
    pb::etcdserverpb::{
        self as pb, WatchCreateRequest as Create, WatchResponse, kv_client::KvClient, watch_client::WatchClient,
        watch_request::RequestUnion,
    },
    server::{Backend, ConnectionSettings, Edge, Listener, Serving, Settings, serve, tests::TestBackend},
    types::MemberId,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::{net::TcpListener, sync::mpsc, task::AbortHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, metadata::MetadataValue, transport::Channel};

/// A member of the core: several may have one backend.
struct Member {
    url: String,
    serving: Serving,
}

async fn member(backend: &TestBackend, url: &str) -> Member {
    let listener = Listener::bind(url).await.unwrap();
    let url = listener.url();
    let settings = Settings {
        leaderless_max: Duration::from_millis(100),
        watch_progress_interval: Duration::from_millis(300),
        ..Settings::default()
    };
    let edge = Edge::new(backend.clone(), settings);
    let serving = serve(vec![listener], edge.clone(), gateway::routes(edge), &ConnectionSettings::default());
    Member { url, serving }
}

/// Serves keys that begin with `l/` from a hub with the core's revisions, until that ends.
#[derive(Clone, Default)]
struct Copies(Arc<Mutex<Option<Present>>>);

/// What there is, and the word that ends it.
type Present = (Local, watch::Sender<bool>);

impl Copies {
    fn of(backend: &TestBackend) -> Copies {
        let copies = Copies::default();
        copies.renew(backend.hub(), backend);
        copies
    }

    fn renew(&self, hub: &Hub, backend: &TestBackend) {
        let sender = watch::Sender::new(false);
        let backend = backend.clone();
        let local = Local {
            hub: hub.clone(),
            header: Arc::new(move || backend.header()),
            refresh: Arc::new(|| {}),
            ended: sender.subscribe(),
        };
        *self.0.lock() = Some((local, sender));
    }

    fn end(&self) {
        let (_, sender) = self.0.lock().take().unwrap();
        sender.send_replace(true);
    }
}

impl Locals for Copies {
    fn local(&self, _: &Caller, range: &KeyRange, _: Revision) -> Option<Local> {
        range.start().starts_with(b"l/").then(|| self.0.lock().as_ref().map(|(local, _)| local.clone()))?
    }
}

struct Proxy {
    channel: Channel,
    accepting: AbortHandle,
    stopping: watch::Sender<bool>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn proxy(copies: &Copies, members: &[&Member], settings: WatchSettings) -> Proxy {
    let urls = members.iter().map(|member| member.url.as_str());
    let endpoints = Arc::new(Endpoints::new(urls, &ConnectOptions::default()).unwrap());
    proxy_over(copies, endpoints, settings).await
}

async fn proxy_over(copies: &Copies, source: Arc<dyn Source>, settings: WatchSettings) -> Proxy {
    let stopping = watch::Sender::new(false);
    let service = ProxyWatch::new(copies.clone(), source, settings, stopping.subscribe());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let accepting = tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let service = service.clone();
            let service = hyper::service::service_fn(move |request| service.clone().call(request));
            tokio::spawn(async move {
                let _ =
                    auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(connection), service).await;
            });
        }
    });
    let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
    Proxy { channel, accepting: accepting.abort_handle(), stopping }
}

async fn put(backend: &TestBackend, member: &Member, key: &str, value: Vec<u8>) -> i64 {
    let channel = Channel::from_shared(member.url.clone()).unwrap().connect().await.unwrap();
    let request = pb::PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() };
    KvClient::new(channel).put(request).await.unwrap();
    backend.header().revision.0
}

struct Client {
    requests: Option<mpsc::Sender<WatchRequest>>,
    replies: Streaming<WatchResponse>,
}

async fn client(proxy: &Proxy, insists: bool) -> Client {
    let (requests, receiver) = mpsc::channel(16);
    let mut request = tonic::Request::new(ReceiverStream::new(receiver));
    if insists {
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    }
    let replies = WatchClient::new(proxy.channel.clone()).watch(request).await.unwrap().into_inner();
    Client { requests: Some(requests), replies }
}

impl Client {
    async fn ask(&self, request: RequestUnion) {
        let request = WatchRequest { request_union: Some(request) };
        self.requests.as_ref().unwrap().send(request).await.unwrap();
    }

    async fn next(&mut self) -> WatchResponse {
        let reply = timeout(Duration::from_secs(30), self.replies.message()).await;
        reply.expect("a reply in time").unwrap().expect("the stream goes on")
    }

    async fn created(&mut self, create: Create) -> WatchResponse {
        self.ask(RequestUnion::CreateRequest(create)).await;
        let reply = self.next().await;
        assert!(reply.created, "{reply:?}");
        reply
    }

    /// The revisions of the next events.
    async fn events(&mut self) -> (i64, Vec<i64>) {
        let reply = self.next().await;
        assert!(!reply.events.is_empty(), "{reply:?}");
        (reply.watch_id, reply.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect())
    }

    async fn is_quiet(&mut self) -> bool {
        timeout(Duration::from_millis(200), self.replies.message()).await.is_err()
    }
}

fn on(key: &'static str) -> Create {
    Create { key: key.into(), ..Default::default() }
}

fn retrying_fast() -> WatchSettings {
    let retry = Policy { pause_max: Duration::from_millis(50), ..Policy::default() };
    WatchSettings { leaderless_max: Duration::from_millis(300), retry, ..WatchSettings::default() }
}

fn all(prefix: &'static str, end: &'static str) -> Create {
    Create { range_end: end.into(), ..on(prefix) }
}

#[tokio::test]
async fn both_kinds_share_a_stream() {
    let backend = TestBackend::new();
    let core = member(&backend, "http://127.0.0.1:0").await;
    let proxy = proxy(&Copies::of(&backend), &[&core], WatchSettings::default()).await;
    let mut client = client(&proxy, false).await;
    let created = client.created(on("l/a")).await;
    assert_eq!((created.watch_id, created.header.unwrap().revision), (0, 1));
    assert_eq!(created.header.unwrap().member_id, backend.header().member_id.0);
    assert_eq!(client.created(on("x")).await.watch_id, 1);
    assert_eq!(client.created(Create { watch_id: 7, ..on("l/a") }).await.watch_id, 7);
    let refused = client.created(Create { watch_id: 7, ..on("x") }).await;
    assert_eq!((refused.watch_id, refused.canceled), (-1, true));
    assert_eq!(refused.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    let refused = client.created(all("l/b", "l/a")).await;
    assert_eq!((refused.watch_id, &refused.cancel_reason[..]), (-1, "mvcc: watcher range is empty"));

    put(&backend, &core, "x", b"1".to_vec()).await;
    assert_eq!(client.events().await, (1, vec![2]));
    put(&backend, &core, "l/a", b"1".to_vec()).await;
    let mut ids = [client.events().await, client.events().await];
    ids.sort();
    assert_eq!(ids, [(0, vec![3]), (7, vec![3])]);

    client.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let progress = client.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision, progress.events.len()), (-1, 3, 0));
    assert!(client.is_quiet().await, "one answer, and no notification that nobody asked for");

    for id in [0, 1, 99] {
        client.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: id })).await;
    }
    for id in [0, 1] {
        let canceled = client.next().await;
        assert_eq!((canceled.watch_id, canceled.canceled, canceled.created), (id, true, false));
    }
    // A client that says no more still listens.
    client.requests = None;
    put(&backend, &core, "x", b"2".to_vec()).await;
    put(&backend, &core, "l/a", b"2".to_vec()).await;
    assert_eq!(client.events().await, (7, vec![5]));
    proxy.stopping.send_replace(true);
    let end = timeout(Duration::from_secs(5), client.replies.message()).await.expect("the proxy stops");
    assert_eq!(end.unwrap_err().message(), "etcdserver: server stopped");
}

#[tokio::test]
async fn very_many_watchers_of_a_copy_create_none_upstream() {
    const MANY: usize = 10_000;
    let backend = TestBackend::new();
    let core = member(&backend, "http://127.0.0.1:0").await;
    let proxy = proxy(&Copies::of(&backend), &[&core], WatchSettings::default()).await;
    let mut client = client(&proxy, false).await;
    let requests = client.requests.clone().unwrap();
    tokio::spawn(async move {
        for _ in 0..MANY {
            let create = RequestUnion::CreateRequest(all("l/", "l0"));
            requests.send(WatchRequest { request_union: Some(create) }).await.unwrap();
        }
    });
    for id in 0..MANY {
        assert_eq!(client.next().await.watch_id, id as i64);
    }
    let counts = backend.hub().counts();
    // The hub is that of the core too: a stream upstream would be a second one.
    assert_eq!((counts.streams, counts.watchers), (1, MANY));
    put(&backend, &core, "l/x", Vec::new()).await;
    for _ in 0..MANY {
        assert_eq!(client.events().await.1, [2]);
    }
}

#[tokio::test]
async fn a_restart_upstream_is_not_noticed() {
    let backend = TestBackend::new();
    let core = member(&backend, "http://127.0.0.1:0").await;
    let second = member(&backend, "http://127.0.0.1:0").await;
    let proxy = proxy(&Copies::of(&backend), &[&core], retrying_fast()).await;
    let mut client = client(&proxy, false).await;
    client.created(on("x")).await;
    client.created(on("l/a")).await;
    put(&backend, &second, "x", Vec::new()).await;
    assert_eq!(client.events().await, (0, vec![2]));
    let url = core.url.clone();
    core.serving.stop(Duration::ZERO).await;
    put(&backend, &second, "x", Vec::new()).await;
    put(&backend, &second, "l/a", Vec::new()).await;
    assert_eq!(client.events().await, (1, vec![4]), "watchers of copies go on while the core is away");
    assert!(client.is_quiet().await);
    let _again = member(&backend, &url).await;
    assert_eq!(client.events().await, (0, vec![3]));
    put(&backend, &second, "x", Vec::new()).await;
    assert_eq!(client.events().await, (0, vec![5]));
    assert!(client.is_quiet().await);
}

#[tokio::test]
async fn another_endpoint_takes_over_and_what_was_compacted_is_said() {
    let backend = TestBackend::new();
    let members = [member(&backend, "http://127.0.0.1:0").await, member(&backend, "http://127.0.0.1:0").await];
    let proxy = proxy(&Copies::of(&backend), &[&members[0], &members[1]], retrying_fast()).await;
    let mut client = client(&proxy, false).await;
    client.created(on("x")).await;
    let third = member(&backend, "http://127.0.0.1:0").await;
    put(&backend, &third, "x", Vec::new()).await;
    assert_eq!(client.events().await, (0, vec![2]));
    let [one, other] = members;
    one.serving.stop(Duration::ZERO).await;
    put(&backend, &third, "x", Vec::new()).await;
    assert_eq!(client.events().await, (0, vec![3]));
    let url = other.url.clone();
    other.serving.stop(Duration::ZERO).await;
    put(&backend, &third, "x", Vec::new()).await;
    let last = put(&backend, &third, "x", Vec::new()).await;
    let channel = Channel::from_shared(third.url.clone()).unwrap().connect().await.unwrap();
    KvClient::new(channel).compact(pb::CompactionRequest { revision: last, physical: true }).await.unwrap();
    let _again = member(&backend, &url).await;
    let canceled = client.next().await;
    assert_eq!((canceled.watch_id, canceled.canceled, canceled.compact_revision), (0, true, last));
}

#[tokio::test]
async fn watchers_of_a_copy_that_ends_go_elsewhere_and_back() {
    let backend = TestBackend::new();
    let core = member(&backend, "http://127.0.0.1:0").await;
    let copies = Copies::of(&backend);
    let proxy = proxy(&copies, &[&core], retrying_fast()).await;
    let mut client = client(&proxy, false).await;
    client.created(on("l/a")).await;
    put(&backend, &core, "l/a", Vec::new()).await;
    assert_eq!(client.events().await, (0, vec![2]));
    copies.end();
    put(&backend, &core, "l/a", Vec::new()).await;
    assert_eq!(client.events().await, (0, vec![3]));
    copies.renew(backend.hub(), &backend);
    client.created(on("l/b")).await;
    put(&backend, &core, "l/b", Vec::new()).await;
    put(&backend, &core, "l/a", Vec::new()).await;
    let mut two = [client.events().await, client.events().await];
    two.sort();
    assert_eq!(two, [(0, vec![5]), (1, vec![4])]);
}

#[tokio::test]
async fn notifications_come_for_both_kinds_to_those_who_asked() {
    let backend = TestBackend::new();
    let core = member(&backend, "http://127.0.0.1:0").await;
    let settings = WatchSettings { progress_interval: Duration::from_millis(300), ..WatchSettings::default() };
    let proxy = proxy(&Copies::of(&backend), &[&core], settings).await;
    let mut client = client(&proxy, false).await;
    for (key, progress_notify) in [("x", true), ("l/a", true), ("y", false), ("l/b", false)] {
        client.created(Create { progress_notify, ..on(key) }).await;
    }
    let mut told = std::collections::BTreeSet::new();
    while told.len() < 2 {
        let reply = client.next().await;
        assert_eq!((reply.events.len(), reply.canceled, reply.header.unwrap().revision), (0, false, 1));
        told.insert(reply.watch_id);
    }
    assert_eq!(Vec::from_iter(told), [0, 1]);
}

#[tokio::test]
async fn a_slow_client_holds_up_nobody_and_lacks_nothing() {
    const EVENTS: i64 = 400;
    let backend = TestBackend::new();
    let core = member(&backend, "http://127.0.0.1:0").await;
    let settings = WatchSettings { backlog_bytes_max: 64 << 10, ..retrying_fast() };
    let proxy = proxy(&Copies::of(&backend), &[&core], settings).await;
    let (mut slow, mut quick) = (client(&proxy, false).await, client(&proxy, false).await);
    slow.created(on("x")).await;
    quick.created(on("x")).await;
    for revision in 2..2 + EVENTS {
        put(&backend, &core, "x", vec![b'v'; 10_000]).await;
        assert_eq!(quick.events().await, (0, vec![revision]));
    }
    let mut seen = Vec::new();
    while seen.len() < EVENTS as usize {
        seen.extend(slow.events().await.1);
    }
    assert_eq!(seen, Vec::from_iter(2..2 + EVENTS));
}

#[tokio::test]
async fn a_client_that_insists_on_a_leader_is_cut_off_without_one() {
    let backend = TestBackend::new();
    let core = member(&backend, "http://127.0.0.1:0").await;
    let proxy = proxy(&Copies::of(&backend), &[&core], retrying_fast()).await;
    let (mut patient, mut insisting) = (client(&proxy, false).await, client(&proxy, true).await);
    for client in [&mut patient, &mut insisting] {
        client.created(on("x")).await;
    }
    backend.set_leader(None);
    let end = timeout(Duration::from_secs(10), insisting.replies.message()).await.expect("it is cut off");
    let status = end.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
    assert!(patient.is_quiet().await);
    backend.set_leader(Some(MemberId(1)));
    put(&backend, &core, "x", Vec::new()).await;
    assert_eq!(patient.events().await, (0, vec![2]));
}

#[tokio::test]
async fn a_client_that_insists_on_a_leader_is_cut_off_though_its_watchers_are_served_here() {
    let backend = TestBackend::new();
    let core = member(&backend, "http://127.0.0.1:0").await;
    let proxy = proxy(&Copies::of(&backend), &[&core], retrying_fast()).await;
    let (mut patient, mut insisting) = (client(&proxy, false).await, client(&proxy, true).await);
    let mut other = client(&proxy, true).await;
    for client in [&mut patient, &mut insisting, &mut other] {
        client.created(on("l/a")).await;
    }
    // Of these only the one stream that looks out for the leader is upstream.
    while backend.hub().counts().streams != 4 {
        tokio::task::yield_now().await;
    }
    backend.set_leader(None);
    for cut in [&mut insisting, &mut other] {
        let end = timeout(Duration::from_secs(10), cut.replies.message()).await.expect("it is cut off");
        let status = end.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
    }
    // Who comes meanwhile hears the same; with a leader all is well again.
    drop((insisting, other));
    for _ in 0..2 {
        let mut request = tonic::Request::new(tokio_stream::pending());
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let refused = WatchClient::new(proxy.channel.clone()).watch(request).await.map(drop).unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: no leader"));
    }
    assert!(patient.is_quiet().await);
    backend.set_leader(Some(MemberId(1)));
    let mut insisting = client(&proxy, true).await;
    insisting.created(on("l/a")).await;
    put(&backend, &core, "l/a", Vec::new()).await;
    for client in [&mut patient, &mut insisting] {
        assert_eq!(client.events().await, (0, vec![2]));
    }
    // Nobody insists: nobody looks.
    drop(insisting);
    while backend.hub().counts().streams != 1 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_call_with_an_identity_is_not_for_this_service() {
    let mut headers = HeaderMap::new();
    assert!(takes(&headers));
    headers.insert("token", "root.1".parse().unwrap());
    assert!(!takes(&headers));
}

#[test]
fn what_a_client_says_about_its_connection_is_not_passed_on() {
    let mut headers = HeaderMap::new();
    for name in ["te", "grpc-timeout", "grpc-accept-encoding", "user-agent", "hasleader", "x-request-id"] {
        headers.insert(name, "1".parse().unwrap());
    }
    let passed = passed_on(MetadataMap::from_headers(headers)).into_headers();
    let mut names: Vec<_> = passed.keys().map(|name| name.as_str()).collect();
    names.sort();
    assert_eq!(names, ["hasleader", "x-request-id"]);
}

/// Counts how often upstream is tried.
struct Counted(Endpoints, AtomicUsize);

impl Source for Counted {
    fn pick(&self) -> (usize, Channel) {
        self.1.fetch_add(1, Relaxed);
        self.0.pick()
    }

    fn leave(&self, turn: usize) {
        self.0.leave(turn);
    }

    fn ways(&self) -> usize {
        self.0.len()
    }
}

#[tokio::test]
async fn while_upstream_is_away_a_create_waits_without_haste() {
    let backend = TestBackend::new();
    let gone = member(&backend, "http://127.0.0.1:0").await;
    let url = gone.url.clone();
    gone.serving.stop(Duration::ZERO).await;
    let endpoints = Endpoints::new([&url], &ConnectOptions::default()).unwrap();
    let tries = Arc::new(Counted(endpoints, AtomicUsize::new(0)));
    let proxy = proxy_over(&Copies::of(&backend), tries.clone(), WatchSettings::default()).await;
    let mut client = client(&proxy, false).await;
    client.ask(RequestUnion::CreateRequest(on("x"))).await;
    assert!(timeout(Duration::from_secs(1), client.replies.message()).await.is_err());
    let tried = tries.1.load(Relaxed);
    assert!((2..=20).contains(&tried), "{tried} attempts in a second");
    let _core = member(&backend, &url).await;
    let created = client.next().await;
    assert_eq!((created.created, created.watch_id), (true, 0));
}
