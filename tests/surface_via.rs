//! What only a whole member does — leases that run out, large revisions, snapshots — as a client sees it directly, through a proxy,
//! through a proxy of a proxy, and through one that copies all keys. `HENGE_BIN` names another server to put behind them.

mod common;

use common::{PATIENCE, Proxy, Server};
use henge::pb::{
    etcdserverpb::{
        HashKvRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest, MemberListRequest, PutRequest,
        RangeRequest, RequestOp, SnapshotRequest, StatusRequest, TxnRequest, WatchCreateRequest, WatchProgressRequest,
        WatchRequest, WatchResponse, cluster_client::ClusterClient, kv_client::KvClient, lease_client::LeaseClient,
        maintenance_client::MaintenanceClient, request_op::Request, watch_client::WatchClient,
        watch_request::RequestUnion,
    },
    mvccpb::{Event, event::EventType},
};
use std::collections::BTreeMap;
use tokio::{runtime::Runtime, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

/// A member, and all ways to it.
struct Ways {
    server: Server,
    /// From the member outwards: as it comes, before that one, one that copies all keys, and one that copies all from that.
    proxies: Vec<Proxy>,
    runtime: Runtime,
}

impl Ways {
    fn new() -> Ways {
        let server = Server::start();
        let near = Proxy::of(&[server.url()]);
        let far = Proxy::of(&[near.url()]);
        let copy = Proxy::with(&[near.url()], &["--cache-prefix="]);
        let copies = Proxy::with(&[copy.url()], &["--cache-prefix=", "--cache-auto=false"]);
        Ways { server, proxies: vec![near, far, copy, copies], runtime: Runtime::new().expect("a runtime") }
    }

    /// Does `test` for a name and each way; keys under that name are its own.
    fn each<F: Future<Output = ()>>(&self, test: impl Fn(String, Channel) -> F) {
        let urls = std::iter::once(self.server.url()).chain(self.proxies.iter().map(Proxy::url));
        for (name, url) in ["direct", "proxy", "proxy-of-proxy", "copy", "copy-of-copy"].into_iter().zip(urls) {
            println!("{name}");
            self.runtime.block_on(async {
                let channel = Server::channel(url).await.expect("somebody is there");
                timeout(PATIENCE * 2, test(name.to_owned(), channel)).await.expect("in time");
            });
        }
    }
}

async fn put(channel: &Channel, key: &str, lease: i64) -> i64 {
    let request = PutRequest { key: key.to_owned().into(), value: "v".into(), lease, ..PutRequest::default() };
    KvClient::new(channel.clone()).put(request).await.expect("a put").into_inner().header.expect("a header").revision
}

async fn grant(channel: &Channel, ttl: i64) -> i64 {
    let request = LeaseGrantRequest { ttl, id: 0 };
    LeaseClient::new(channel.clone()).lease_grant(request).await.expect("a lease").into_inner().id
}

/// A stream with one watcher of all keys with a prefix.
struct Watching {
    requests: mpsc::Sender<WatchRequest>,
    replies: Streaming<WatchResponse>,
}

impl Watching {
    async fn of(channel: &Channel, prefix: &str, create: WatchCreateRequest) -> Watching {
        let (requests, receiver) = mpsc::channel(4);
        let create = WatchCreateRequest { key: prefix.to_owned().into(), range_end: end_of(prefix), ..create };
        ask(&requests, RequestUnion::CreateRequest(create)).await;
        let mut client = WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        let replies = client.watch(ReceiverStream::new(receiver)).await.expect("a stream").into_inner();
        let mut watching = Watching { requests, replies };
        assert!(watching.next().await.created);
        watching
    }

    async fn next(&mut self) -> WatchResponse {
        self.replies.message().await.expect("no error").expect("the stream goes on")
    }

    async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.next().await.events);
        }
        events
    }
}

async fn ask(requests: &mpsc::Sender<WatchRequest>, union: RequestUnion) {
    requests.send(WatchRequest { request_union: Some(union) }).await.expect("the stream takes requests");
}

fn end_of(prefix: &str) -> bytes::Bytes {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("a prefix") += 1;
    end.into()
}

fn about(event: &Event) -> (EventType, String, i64) {
    let kv = event.kv.as_ref().expect("a pair");
    (event.r#type(), String::from_utf8_lossy(&kv.key).into_owned(), kv.mod_revision)
}

#[test]
fn leases_are_kept_and_run_out_wherever_they_are_watched_from() {
    Ways::new().each(|name, channel| async move {
        let mut leases = LeaseClient::new(channel.clone());
        let prefix = format!("{name}/");
        let options = WatchCreateRequest { prev_kv: true, ..WatchCreateRequest::default() };
        let mut watching = Watching::of(&channel, &prefix, options).await;
        // One that is left alone, with two keys, among many that are kept, all on one stream.
        let short = grant(&channel, 3).await;
        let first = put(&channel, &format!("{prefix}a"), short).await;
        put(&channel, &format!("{prefix}b"), short).await;
        let mut kept = Vec::new();
        for _ in 0..30 {
            kept.push(grant(&channel, 60).await);
        }
        let asked: Vec<i64> = kept.iter().chain(&kept).copied().collect();
        let requests = tokio_stream::iter(asked.clone().into_iter().map(|id| LeaseKeepAliveRequest { id }));
        let mut answers = leases.lease_keep_alive(requests).await.expect("a stream").into_inner();
        for id in asked {
            let answer = answers.message().await.expect("no error").expect("an answer to each");
            assert_eq!((answer.id, answer.ttl), (id, 60));
        }
        let held = ["x", "y"].map(|key| format!("{name}-kept/{key}"));
        for key in &held {
            put(&channel, key, kept[0]).await;
        }
        let left = LeaseTimeToLiveRequest { id: kept[0], keys: true };
        let left = leases.lease_time_to_live(left).await.expect("an answer").into_inner();
        let mut keys = left.keys;
        keys.sort();
        assert_eq!((left.granted_ttl, keys), (60, held.map(bytes::Bytes::from).to_vec()));

        let events = watching.events(4).await;
        let puts = [("a", first), ("b", first + 1)].map(|(key, at)| (EventType::Put, format!("{prefix}{key}"), at));
        assert_eq!(events[..2].iter().map(about).collect::<Vec<_>>(), puts);
        let mut gone: Vec<_> = events[2..].iter().map(about).collect();
        gone.sort_by(|one, other| one.1.cmp(&other.1));
        assert_eq!(
            gone.iter().map(|(kind, key, _)| (*kind, key.clone())).collect::<Vec<_>>(),
            [(EventType::Delete, format!("{prefix}a")), (EventType::Delete, format!("{prefix}b")),]
        );
        assert_eq!(gone[0].2, gone[1].2, "one revision");
        assert!(events[2..].iter().all(|event| event.prev_kv.as_ref().is_some_and(|kv| kv.lease == short)));
        let once = tokio_stream::once(LeaseKeepAliveRequest { id: short });
        let mut answers = leases.lease_keep_alive(once).await.expect("a stream").into_inner();
        assert_eq!(answers.message().await.expect("no error").expect("an answer").ttl, 0);
        let left = LeaseTimeToLiveRequest { id: short, keys: true };
        assert_eq!(leases.lease_time_to_live(left).await.expect("an answer").into_inner().ttl, -1);
    });
}

#[test]
fn a_revision_that_is_larger_than_a_reply_comes_in_fragments_and_past_ones_come_again() {
    const KEYS: usize = 40;
    Ways::new().each(|name, channel| async move {
        let prefix = format!("{name}/");
        let key = |number: usize| format!("{prefix}{number:02}");
        let write = |filling: u8| {
            let op = |number| {
                let put = PutRequest {
                    key: key(number).into(),
                    value: vec![filling; 32_000].into(),
                    ..PutRequest::default()
                };
                RequestOp { request: Some(Request::RequestPut(put)) }
            };
            let txn = TxnRequest { success: (0..KEYS).map(op).collect(), ..TxnRequest::default() };
            let mut kv = KvClient::new(channel.clone());
            async move { kv.txn(txn).await.expect("a transaction").into_inner().header.expect("a header").revision }
        };
        let first = write(1).await;
        let options = WatchCreateRequest { fragment: true, prev_kv: true, ..WatchCreateRequest::default() };
        let from = |start_revision| WatchCreateRequest { start_revision, ..options.clone() };
        let mut live = Watching::of(&channel, &prefix, from(first + 1)).await;
        let second = write(2).await;
        let mut late = Watching::of(&channel, &prefix, from(first)).await;
        for (watching, revisions) in [(&mut live, vec![second]), (&mut late, vec![first, second])] {
            let mut seen: BTreeMap<i64, Vec<Event>> = BTreeMap::new();
            let (mut in_parts, mut is_whole) = (false, false);
            while !is_whole || seen.get(&second).map_or(0, Vec::len) < KEYS {
                let reply = watching.next().await;
                (in_parts, is_whole) = (in_parts || reply.fragment, !reply.fragment);
                for event in reply.events {
                    seen.entry(about(&event).2).or_default().push(event);
                }
            }
            assert!(in_parts, "twice 1.28 MB in one reply");
            assert_eq!(seen.keys().copied().collect::<Vec<_>>(), revisions);
            for (revision, events) in seen {
                assert_eq!(events.len(), KEYS);
                for (number, event) in events.iter().enumerate() {
                    assert_eq!(about(event).1, key(number));
                    let before = event.prev_kv.as_ref().map(|kv| (kv.value[0], kv.mod_revision));
                    assert_eq!(before, (revision == second).then_some((1, first)));
                }
            }
        }
    });
}

#[test]
fn requested_progress_comes_to_now_though_nothing_that_is_watched_happens() {
    Ways::new().each(|name, channel| async move {
        let prefix = format!("{name}/");
        let start_revision = put(&channel, &prefix, 0).await + 1;
        let create = WatchCreateRequest { start_revision, ..WatchCreateRequest::default() };
        let mut watching = Watching::of(&channel, &prefix, create).await;
        let mut told = 0;
        for _ in 0..3 {
            let elsewhere = put(&channel, "elsewhere", 0).await;
            // The first answer of a copy may be of a moment ago; asking has it find out what is now.
            while told < elsewhere {
                ask(&watching.requests, RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
                let reply = watching.next().await;
                assert!(reply.events.is_empty() && reply.watch_id == -1, "{reply:?}");
                let revision = reply.header.expect("a header").revision;
                assert!(revision >= told, "{revision} after {told}");
                told = revision;
            }
        }
    });
}

#[test]
fn what_a_member_says_of_itself_is_the_same_from_everywhere() {
    let ways = Ways::new();
    for number in 0..50 {
        ways.server.put(&format!("k{number:02}"), "v");
    }
    let said = std::sync::Mutex::new(Vec::new());
    ways.each(|name, channel| {
        let said = &said;
        async move {
            let mut member = MaintenanceClient::new(channel.clone());
            let status = member.status(StatusRequest {}).await.expect("a status").into_inner();
            let hash = member.hash_kv(HashKvRequest { revision: 0 }).await.expect("a hash").into_inner();
            let list = MemberListRequest { linearizable: true };
            let list = ClusterClient::new(channel.clone()).member_list(list).await.expect("a list").into_inner();
            let all = RangeRequest { key: "k".into(), range_end: "l".into(), ..RangeRequest::default() };
            let all = KvClient::new(channel.clone()).range(all).await.expect("a range").into_inner();
            let mut snapshot = member.snapshot(SnapshotRequest {}).await.expect("a snapshot").into_inner();
            let (mut bytes, mut remaining) = (0, u64::MAX);
            while let Some(part) = snapshot.message().await.expect("no error") {
                (bytes, remaining) = (bytes + part.blob.len(), part.remaining_bytes);
            }
            assert!(bytes > 0 && remaining == 0, "{name}: {bytes} bytes, {remaining} to come");
            let header = status.header.expect("a header");
            let header = (header.cluster_id, header.member_id, header.revision, header.raft_term);
            let of_all = all.header.expect("a header");
            let of_all = (of_all.cluster_id, of_all.member_id, of_all.revision, of_all.raft_term);
            said.lock().expect("nothing panics with it").push((
                (header, status.version, status.leader, status.is_learner),
                (hash.hash, hash.compact_revision, hash.hash_revision),
                list.members,
                (of_all, all.kvs, all.count),
            ));
        }
    });
    let said = said.into_inner().expect("nothing panicked");
    assert!(said.len() == 5 && said.iter().all(|one| *one == said[0]), "{said:#?}");
}
