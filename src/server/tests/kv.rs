//! Ranges, puts, deletes, transactions and compaction, as a client sees them.

use super::*;
use pb::{compare, request_op::Request, response_op::Response};

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn delete(key: &str, end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: b(key), range_end: b(end), prev_kv: true }
}

fn compare_value(key: &str, value: &str) -> pb::Compare {
    pb::Compare {
        key: b(key),
        target: compare::CompareTarget::Value.into(),
        target_union: Some(compare::TargetUnion::Value(b(value))),
        ..Default::default()
    }
}

#[tokio::test]
async fn what_is_put_is_read_and_deleted() {
    let world = world().await;
    let mut kv = world.kv();
    let first = world.put("k", "v1").await;
    let header = first.header.unwrap();
    assert_eq!((header.member_id, header.revision, header.raft_term), (ME.0, 2, 2));
    let second = kv.put(pb::PutRequest { prev_kv: true, ..put("k", "v2") }).await.unwrap().into_inner();
    assert_eq!(second.prev_kv.unwrap().value, "v1");

    let found = kv.range(range("k", "")).await.unwrap().into_inner();
    let one = &found.kvs[0];
    assert_eq!((&one.value[..], one.create_revision, one.mod_revision, one.version), (&b"v2"[..], 2, 3, 2));
    assert_eq!((found.count, found.more, revision(&found.header)), (1, false, 3));

    let past = kv.range(pb::RangeRequest { revision: 2, ..range("k", "") }).await.unwrap().into_inner();
    assert_eq!((&past.kvs[0].value[..], revision(&past.header)), (&b"v1"[..], 3), "the header is of now");

    let gone = kv.delete_range(delete("k", "")).await.unwrap().into_inner();
    assert_eq!((gone.deleted, &gone.prev_kvs[0].value[..], revision(&gone.header)), (1, &b"v2"[..], 4));
    let nothing = kv.delete_range(delete("k", "")).await.unwrap().into_inner();
    assert_eq!((nothing.deleted, revision(&nothing.header)), (0, 4), "deleting nothing makes no revision");
}

#[tokio::test]
async fn refusals_have_etcds_code_and_text() {
    let world = world().await;
    let mut kv = world.kv();
    for _ in 0..3 {
        world.put("k", "v").await;
    }
    kv.compact(pb::CompactionRequest { revision: 3, physical: true }).await.unwrap();
    let at = |revision| pb::RangeRequest { revision, ..range("k", "") };
    refused(kv.range(range("", "")).await, Code::InvalidArgument, "etcdserver: key is not provided");
    refused(kv.range(at(2)).await, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    refused(kv.range(at(9)).await, Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
    assert!(kv.range(at(3)).await.is_ok(), "the compacted revision itself is readable");
    refused(
        kv.range(pb::RangeRequest { sort_order: 7, ..range("k", "") }).await,
        Code::InvalidArgument,
        "etcdserver: invalid sort option",
    );
    refused(
        kv.put(pb::PutRequest { ignore_value: true, ..put("k", "v") }).await,
        Code::InvalidArgument,
        "etcdserver: value is provided",
    );
    refused(
        kv.put(pb::PutRequest { ignore_value: true, ..put("missing", "") }).await,
        Code::InvalidArgument,
        "etcdserver: key not found",
    );
    refused(
        kv.put(pb::PutRequest { lease: 99, ..put("k", "v") }).await,
        Code::NotFound,
        "etcdserver: requested lease not found",
    );
    let compact = |revision| pb::CompactionRequest { revision, physical: false };
    refused(kv.compact(compact(3)).await, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    refused(
        kv.compact(compact(99)).await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
    let twice = vec![op(Request::RequestPut(put("a", ""))), op(Request::RequestDeleteRange(delete("a", "b")))];
    refused(
        kv.txn(pb::TxnRequest { success: twice, ..Default::default() }).await,
        Code::InvalidArgument,
        "etcdserver: duplicate key given in txn request",
    );
    let many = vec![op(Request::RequestRange(range("a", ""))); 129];
    refused(
        kv.txn(pb::TxnRequest { failure: many, ..Default::default() }).await,
        Code::InvalidArgument,
        "etcdserver: too many operations in txn request",
    );
    assert_eq!(revision(&kv.range(range("k", "")).await.unwrap().into_inner().header), 4, "nothing was written");
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_by_size() {
    let world = world().await;
    let mut kv = world.kv();
    let sized = |bytes: usize| pb::PutRequest { key: b("k"), value: vec![b'v'; bytes].into(), ..Default::default() };
    let limit = Limits::default().request_bytes_max;
    assert!(kv.put(sized(limit - 64)).await.is_ok());
    refused(kv.put(sized(limit)).await, Code::InvalidArgument, "etcdserver: request is too large");
    // Beyond what gRPC accepts at all it is gRPC's own refusal.
    let status = kv.put(sized(limit + (1 << 20))).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("grpc: received message larger than max ("), "{}", status.message());
    assert!(status.message().ends_with(&format!(" vs. {})", limit + 512 * 1024)), "{}", status.message());
}

#[tokio::test]
async fn a_transaction_happens_whole_or_not_at_all() {
    let world = world().await;
    let mut kv = world.kv();
    world.put("a", "1").await;
    let txn = pb::TxnRequest {
        compare: vec![compare_value("a", "1")],
        success: vec![
            op(Request::RequestPut(put("a", "2"))),
            op(Request::RequestRange(range("a", ""))),
            op(Request::RequestTxn(pb::TxnRequest {
                compare: vec![compare_value("a", "1")],
                success: vec![op(Request::RequestDeleteRange(delete("b", "")))],
                ..Default::default()
            })),
        ],
        failure: vec![op(Request::RequestPut(put("a", "3")))],
    };
    let reply = kv.txn(txn.clone()).await.unwrap().into_inner();
    assert_eq!((reply.succeeded, revision(&reply.header)), (true, 3));
    let steps: Vec<_> = reply.responses.into_iter().map(|step| step.response.unwrap()).collect();
    let [Response::ResponsePut(put_reply), Response::ResponseRange(seen), Response::ResponseTxn(nested)] = &steps[..]
    else {
        panic!("one answer for each step: {steps:?}")
    };
    assert_eq!(revision(&put_reply.header), 3);
    assert_eq!(seen.kvs[0].value, "2", "a read sees the writes before it");
    assert!(nested.succeeded, "nested compares see the state before the whole");

    let again = kv.txn(txn).await.unwrap().into_inner();
    assert_eq!((again.succeeded, revision(&again.header)), (false, 4));

    let unknown_lease = pb::PutRequest { lease: 7, ..put("c", "") };
    let failing = vec![op(Request::RequestPut(put("a", "4"))), op(Request::RequestPut(unknown_lease))];
    let failing = kv.txn(pb::TxnRequest { success: failing, ..Default::default() }).await;
    refused(failing, Code::NotFound, "etcdserver: requested lease not found");
    let after = kv.range(range("a", "")).await.unwrap().into_inner();
    assert_eq!((&after.kvs[0].value[..], revision(&after.header)), (&b"3"[..], 4));
}

#[tokio::test]
async fn small_things_are_as_in_etcd() {
    let world = world().await;
    let (mut kv, mut leases) = (world.kv(), pb::lease_client::LeaseClient::new(world.channel.clone()));
    let lease = leases.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 7 }).await.unwrap().into_inner().id;
    kv.put(pb::PutRequest { lease, ..put("k", "v") }).await.unwrap();
    let keys_only = pb::RangeRequest { keys_only: true, ..range("k", "") };
    let found = kv.range(keys_only.clone()).await.unwrap().into_inner().kvs.remove(0);
    assert_eq!((&found.value[..], found.lease, found.version), (&b""[..], 0, 1), "neither value nor lease");
    let has_lease = pb::Compare {
        key: b("k"),
        range_end: b("l"),
        target: compare::CompareTarget::Lease.into(),
        target_union: Some(compare::TargetUnion::Lease(lease)),
        ..Default::default()
    };
    let success = vec![op(Request::RequestRange(keys_only))];
    let reply = kv.txn(pb::TxnRequest { compare: vec![has_lease], success, failure: vec![] }).await.unwrap();
    assert!(reply.into_inner().succeeded);

    // By itself a range below 0 is one of now; in a transaction the number is compared with the mark of compaction.
    kv.compact(pb::CompactionRequest { revision: 2, physical: true }).await.unwrap();
    let below = pb::RangeRequest { revision: -1, ..range("k", "") };
    assert_eq!(kv.range(below.clone()).await.unwrap().into_inner().count, 1);
    let reads = vec![op(Request::RequestRange(below))];
    let writes = [&reads[..], &[op(Request::RequestPut(put("k", "w")))]].concat();
    for success in [reads, writes] {
        let refusal = kv.txn(pb::TxnRequest { success, ..Default::default() }).await;
        refused(refusal, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    }

    // A delete that finds nothing has no revision of its own; one to the end of the keys may be followed by a put.
    let deletes = vec![
        op(Request::RequestDeleteRange(delete("nothing", ""))),
        op(Request::RequestDeleteRange(delete("k", "\0"))),
        op(Request::RequestPut(put("k", "w"))),
    ];
    let reply = kv.txn(pb::TxnRequest { success: deletes, ..Default::default() }).await.unwrap().into_inner();
    let told = reply.responses.into_iter().map(|step| match step.response {
        Some(Response::ResponseDeleteRange(reply)) => (revision(&reply.header), reply.deleted),
        Some(Response::ResponsePut(reply)) => (revision(&reply.header), 0),
        other => panic!("{other:?}"),
    });
    assert_eq!((told.collect::<Vec<_>>(), revision(&reply.header)), (vec![(2, 0), (3, 1), (3, 0)], 3));
    let found = kv.range(range("k", "")).await.unwrap().into_inner().kvs.remove(0);
    assert_eq!((&found.value[..], found.create_revision, found.version), (&b"w"[..], 3, 1));
}

#[tokio::test]
async fn a_transaction_without_writes_is_a_read() {
    let world = world().await;
    let mut kv = world.kv();
    world.put("a", "1").await;
    let read = |serializable| pb::TxnRequest {
        compare: vec![compare_value("missing", "x")],
        success: vec![],
        failure: vec![op(Request::RequestRange(pb::RangeRequest { serializable, ..range("a", "z") }))],
    };
    let reply = kv.txn(read(false)).await.unwrap().into_inner();
    assert_eq!((reply.succeeded, revision(&reply.header)), (false, 2));
    let Some(Response::ResponseRange(found)) = &reply.responses[0].response else { panic!("{reply:?}") };
    assert_eq!((found.count, revision(&found.header)), (1, 2));

    // Without a leader the linearizable one can't be answered, the serializable one can.
    world.backend.set_leader(None);
    refused(kv.txn(read(false)).await, Code::Unavailable, "etcdserver: request timed out");
    assert!(kv.txn(read(true)).await.is_ok());
    refused(kv.range(range("a", "")).await, Code::Unavailable, "etcdserver: request timed out");
    assert!(kv.range(pb::RangeRequest { serializable: true, ..range("a", "") }).await.is_ok());
}

async fn stream(world: &World, request: pb::RangeRequest) -> (usize, pb::RangeResponse) {
    let mut stream = world.kv().range_stream(request).await.unwrap().into_inner();
    let (mut chunks, mut merged) = (0, pb::RangeResponse::default());
    while let Some(chunk) = stream.message().await.unwrap() {
        let chunk = chunk.range_response.unwrap();
        assert!(merged.header.is_none(), "the chunk with the header is the last");
        chunks += 1;
        merged.header = chunk.header;
        merged.kvs.extend(chunk.kvs);
        merged.count += chunk.count;
        merged.more |= chunk.more;
    }
    (chunks, merged)
}

#[tokio::test]
async fn the_chunks_of_a_stream_make_up_the_range() {
    let settings = Settings { limits: Limits { request_bytes_max: 4096, ..Limits::default() }, ..Settings::default() };
    let world = world_with(settings).await;
    for number in 0..100 {
        world.put(&format!("k{number:03}"), &"v".repeat(200)).await;
    }
    let whole = range("k", "l");
    let plain = |request: pb::RangeRequest| async { world.kv().range(request).await.unwrap().into_inner() };
    let (chunks, merged) = stream(&world, whole.clone()).await;
    assert!(chunks > 3, "{chunks}");
    assert_eq!(merged, plain(whole.clone()).await);
    for request in [
        pb::RangeRequest { limit: 30, ..whole.clone() },
        pb::RangeRequest { limit: 100, ..whole.clone() },
        pb::RangeRequest { limit: 1000, ..whole.clone() },
        pb::RangeRequest { revision: 50, ..whole.clone() },
        pb::RangeRequest { keys_only: true, ..whole.clone() },
        pb::RangeRequest { count_only: true, ..whole.clone() },
        range("nothing", ""),
        range("k007", ""),
    ] {
        let (_, merged) = stream(&world, request.clone()).await;
        assert_eq!(merged, plain(request.clone()).await, "{request:?}");
    }
}

#[tokio::test]
async fn a_stream_refuses_what_it_cannot_do() {
    let world = world().await;
    let mut kv = world.kv();
    // etcd's texts, which for once do not say whose they are.
    let sorted = kv.range_stream(pb::RangeRequest { sort_order: 2, ..range("k", "") }).await;
    refused(sorted, Code::Unimplemented, "RangeStream does not support custom sort orders");
    let filtered = kv.range_stream(pb::RangeRequest { min_mod_revision: 1, ..range("k", "") }).await;
    refused(filtered, Code::Unimplemented, "RangeStream does not support revision filters");
    let mut stream = kv.range_stream(pb::RangeRequest { revision: 9, ..range("k", "") }).await.unwrap().into_inner();
    refused(stream.message().await, Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
}

#[tokio::test]
async fn proposals_over_the_bound_are_shed() {
    let bounds = Bounds { calls_max: 0, ..Settings::default().bounds };
    let world = world_with(Settings { bounds, ..Settings::default() }).await;
    let shed = world.kv().put(put("k", "v")).await;
    let told = shed.as_ref().unwrap_err().metadata().get("grpc-retry-pushback-ms").cloned();
    refused(shed, Code::ResourceExhausted, "etcdserver: too many requests");
    assert!(told.is_some(), "it says when to come back");
}
