//! Watching, as a client sees it.

mod edges;
mod slow;

use super::*;
use crate::watch::Options;
use pb::{
    WatchCreateRequest as Create, WatchRequest, WatchResponse, watch_client::WatchClient,
    watch_create_request::FilterType, watch_request::RequestUnion,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, metadata::MetadataValue};

/// A world whose hub has other bounds.
async fn world_with_hub(options: Options) -> World {
    world_of(TestBackend::with_hub(options), Settings::default()).await
}

struct Watching {
    requests: mpsc::Sender<WatchRequest>,
    replies: Streaming<WatchResponse>,
}

impl World {
    async fn watch(&self) -> Watching {
        self.try_watch(false).await.unwrap()
    }

    async fn try_watch(&self, insists: bool) -> Result<Watching, tonic::Status> {
        let (requests, receiver) = mpsc::channel(16);
        let mut request = tonic::Request::new(ReceiverStream::new(receiver));
        if insists {
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        }
        let replies = WatchClient::new(self.channel.clone()).watch(request).await?.into_inner();
        Ok(Watching { requests, replies })
    }
}

impl Watching {
    async fn ask(&self, request: RequestUnion) {
        self.requests.send(WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    async fn create(&self, create: Create) {
        self.ask(RequestUnion::CreateRequest(create)).await;
    }

    async fn next(&mut self) -> WatchResponse {
        let reply = tokio::time::timeout(Duration::from_secs(30), self.replies.message()).await;
        reply.expect("a reply in time").unwrap().expect("the stream goes on")
    }

    /// Creates a watcher and takes the reply to that.
    async fn created(&mut self, create: Create) -> WatchResponse {
        self.create(create).await;
        let reply = self.next().await;
        assert!(reply.created && reply.events.is_empty(), "{reply:?}");
        reply
    }
}

fn on(key: &str, end: &str) -> Create {
    Create { key: b(key), range_end: b(end), ..Default::default() }
}

fn revision_now(world: &World) -> i64 {
    world.backend.header().revision.0
}

fn revisions(reply: &WatchResponse) -> Vec<i64> {
    reply.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect()
}

fn keys(reply: &WatchResponse) -> Vec<&[u8]> {
    reply.events.iter().map(|event| &event.kv.as_ref().unwrap().key[..]).collect()
}

#[tokio::test]
async fn events_come_with_header_and_previous_values() {
    let world = world().await;
    world.put("a", "1").await;
    let mut watching = world.watch().await;
    let created = watching.created(Create { prev_kv: true, ..on("a", "") }).await;
    assert_eq!((created.watch_id, created.canceled, revision(&created.header)), (0, false, 2));
    assert_eq!(created.header.unwrap().member_id, ME.0);
    world.put("b", "1").await;
    world.put("a", "2").await;
    let reply = watching.next().await;
    let header = reply.header.unwrap();
    assert_eq!((header.revision, header.member_id, header.raft_term), (4, ME.0, 2));
    assert_eq!((reply.watch_id, reply.created, reply.events.len()), (0, false, 1));
    let event = &reply.events[0];
    assert_eq!((&event.kv.as_ref().unwrap().value[..], event.kv.as_ref().unwrap().mod_revision), (&b"2"[..], 4));
    assert_eq!(event.prev_kv.as_ref().unwrap().value, "1");

    let request = pb::DeleteRangeRequest { key: b("a"), ..Default::default() };
    world.kv().delete_range(request).await.unwrap();
    let reply = watching.next().await;
    let event = &reply.events[0];
    assert_eq!(event.r#type(), crate::pb::mvccpb::event::EventType::Delete);
    assert_eq!((event.kv.as_ref().unwrap().mod_revision, &event.prev_kv.as_ref().unwrap().value[..]), (5, &b"2"[..]));
}

#[tokio::test]
async fn an_empty_key_is_the_smallest_and_history_comes_first() {
    let world = world().await;
    for key in ["a", "b", "c"] {
        world.put(key, "").await;
    }
    let mut watching = world.watch().await;
    watching.created(Create { start_revision: 3, ..on("", "\0") }).await;
    let reply = watching.next().await;
    assert_eq!((keys(&reply), revision(&reply.header)), (vec![&b"b"[..], b"c"], 4));
    world.put("d", "").await;
    assert_eq!(keys(&watching.next().await), [b"d"]);
}

#[tokio::test]
async fn refusals_are_created_and_canceled() {
    let world = world().await;
    let mut watching = world.watch().await;
    watching.created(Create { watch_id: 5, ..on("a", "") }).await;
    let refusals = [
        (Create { watch_id: 5, ..on("a", "") }, "mvcc: duplicate watch ID provided on the WatchStream"),
        (on("b", "a"), "mvcc: watcher range is empty"),
        (Create { start_revision: -1, ..on("a", "") }, "etcdserver: mvcc: required revision has been compacted"),
    ];
    for (create, reason) in refusals {
        let reply = watching.created(create).await;
        assert_eq!((reply.watch_id, reply.canceled, &reply.cancel_reason[..]), (-1, true, reason));
        assert_eq!(revision(&reply.header), 1);
    }
    watching.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 77 })).await;
    watching.requests.send(WatchRequest::default()).await.unwrap();
    watching.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 5 })).await;
    let reply = watching.next().await;
    assert_eq!((reply.watch_id, reply.created, reply.canceled, &reply.cancel_reason[..]), (5, false, true, ""));
}

#[tokio::test]
async fn what_is_compacted_is_told() {
    let world = world().await;
    for value in ["1", "2", "3"] {
        world.put("a", value).await;
    }
    world.kv().compact(pb::CompactionRequest { revision: 3, physical: true }).await.unwrap();
    let mut watching = world.watch().await;
    watching.created(Create { start_revision: 2, ..on("a", "") }).await;
    let reply = watching.next().await;
    assert_eq!((reply.watch_id, reply.canceled, reply.compact_revision), (0, true, 3));
    watching.created(Create { start_revision: 3, ..on("a", "") }).await;
    assert_eq!(watching.next().await.events.len(), 2);
}

#[tokio::test]
async fn filters_leave_out_and_a_transaction_is_one_reply() {
    let world = world().await;
    let mut watching = world.watch().await;
    watching.created(on("a", "z")).await;
    watching.created(Create { filters: vec![FilterType::Noput.into()], ..on("a", "z") }).await;
    watching.created(Create { filters: vec![FilterType::Nodelete.into()], ..on("a", "z") }).await;
    world.put("c", "").await;
    let op = |request| pb::RequestOp { request: Some(request) };
    let remove = pb::DeleteRangeRequest { key: b("c"), ..Default::default() };
    let success = vec![
        op(pb::request_op::Request::RequestPut(put("a", ""))),
        op(pb::request_op::Request::RequestDeleteRange(remove)),
        op(pb::request_op::Request::RequestPut(put("b", ""))),
    ];
    world.kv().txn(pb::TxnRequest { success, ..Default::default() }).await.unwrap();
    let mut seen = vec![Vec::new(); 3];
    while seen.iter().map(Vec::len).sum::<usize>() < 8 {
        let reply = watching.next().await;
        // The put before may share a reply with the transaction, but that is not split.
        let of_txn = reply.events.iter().filter(|event| event.kv.as_ref().unwrap().mod_revision == 3).count();
        assert!([0, [3, 1, 2][reply.watch_id as usize]].contains(&of_txn), "{reply:?}");
        seen[reply.watch_id as usize].extend(keys(&reply).iter().map(|key| key[0]));
    }
    assert_eq!(seen, [b"cacb".to_vec(), b"c".to_vec(), b"cab".to_vec()]);
}

#[tokio::test]
async fn progress_is_told_on_request_and_in_intervals() {
    let settings = Settings { watch_progress_interval: Duration::ZERO, ..Settings::default() };
    let world = world_with(settings).await;
    let mut watching = world.watch().await;
    watching.created(on("a", "")).await;
    world.put("b", "").await;
    watching.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let reply = watching.next().await;
    assert_eq!((reply.watch_id, reply.events.len(), revision(&reply.header)), (-1, 0, 2));
    watching.created(Create { progress_notify: true, ..on("c", "") }).await;
    for _ in 0..2 {
        let reply = watching.next().await;
        assert_eq!((reply.watch_id, reply.created, revision(&reply.header)), (1, false, 2));
    }
}

#[tokio::test]
async fn a_client_that_has_no_more_requests_still_gets_events() {
    let world = world().await;
    let mut watching = world.watch().await;
    watching.created(on("a", "")).await;
    let Watching { requests, mut replies } = watching;
    drop(requests);
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.put("a", "").await;
    assert_eq!(keys(&replies.message().await.unwrap().unwrap()), [b"a"]);
}

#[tokio::test]
async fn trap_15_a_stream_that_insists_on_a_leader_is_cut() {
    let settings = Settings { leaderless_max: Duration::from_millis(50), ..Settings::default() };
    let world = world_with(settings).await;
    let mut insisting = world.try_watch(true).await.unwrap();
    let mut easy = world.watch().await;
    insisting.created(on("a", "")).await;
    easy.created(on("a", "")).await;
    world.backend.set_leader(None);
    refused(insisting.replies.message().await, Code::Unavailable, "etcdserver: no leader");
    // A proxy may have to ask first.
    let again = async { world.try_watch(true).await?.replies.message().await };
    refused(again.await, Code::Unavailable, "etcdserver: no leader");
    world.backend.set_leader(Some(ME));
    world.put("a", "").await;
    assert_eq!(keys(&easy.next().await), [b"a"], "the other one lives on");
    if world.is_via() {
        // A proxy's stream outlives the member.
        return;
    }
    world.backend.set_stopping();
    refused(easy.replies.message().await, Code::Unavailable, "etcdserver: server stopped");
}

#[tokio::test]
async fn a_learner_has_no_watchers() {
    let world = member().await;
    world.backend.set_learner(true);
    let refusal = world.try_watch(false).await.map(drop);
    refused(refusal, Code::FailedPrecondition, "etcdserver: rpc not supported for learner");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn very_many_creates_before_the_first_read_do_not_block() {
    const WATCHERS: usize = 30_000;
    let world = world().await;
    let mut watching = world.watch().await;
    // All replies together are more than the connection's windows hold.
    for number in 0..WATCHERS {
        let send = watching.create(on(&format!("k{number}"), ""));
        tokio::time::timeout(Duration::from_secs(20), send).await.expect("requests are read, though replies are not");
    }
    for number in 0..WATCHERS {
        let reply = watching.next().await;
        assert!(reply.created && reply.watch_id == number as i64);
    }
    world.put("k777", "").await;
    assert_eq!(watching.next().await.watch_id, 777);
}

#[tokio::test]
async fn a_stream_that_its_client_drops_leaves_nothing_behind() {
    let world = member().await;
    let mut watching = world.watch().await;
    watching.created(on("a", "")).await;
    assert_eq!(world.backend.hub().counts().watchers, 1);
    drop(watching);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if world.backend.hub().counts() == Default::default() {
            return;
        }
    }
    panic!("{:?}", world.backend.hub().counts());
}
