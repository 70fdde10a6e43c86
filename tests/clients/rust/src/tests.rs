//! The tests, each on keys of its own.

use crate::harness::{Outcome, endpoint, refused, same, server, until};
use etcd_client::{
    AlarmAction, AlarmType, Client, CompactionOptions, Compare, CompareOp, DeleteOptions, Error, Event, EventType,
    GetOptions, GetResponse, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions, ResponseHeader, SortOrder,
    SortTarget, Txn, TxnOp, TxnOpResponse, WatchFilterType, WatchOptions, WatchStream,
};
use std::time::Duration;

fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, ResponseHeader::revision)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The keys of an answer, as one line.
fn keys(answer: &GetResponse) -> String {
    answer.kvs().iter().map(|kv| text(kv.key())).collect::<Vec<_>>().join(" ")
}

fn values(answer: &GetResponse) -> String {
    answer.kvs().iter().map(|kv| text(kv.value())).collect::<Vec<_>>().join(" ")
}

async fn put(client: &mut Client, key: &str, value: &str) -> Outcome<i64> {
    Ok(revision(client.put(key, value, None).await?.header()))
}

async fn value(client: &mut Client, key: &str) -> Outcome<Option<String>> {
    Ok(client.get(key, None).await?.kvs().first().map(|kv| text(kv.value())))
}

pub async fn put_and_get(mut client: Client) -> Outcome {
    let first = put(&mut client, "basic/a", "1").await?;
    let second = client.put("basic/a", [0, 255], Some(PutOptions::new().with_prev_key())).await?;
    same("one put is one revision", revision(second.header()), first + 1)?;
    let previous = second.prev_key().ok_or("no previous pair")?;
    same("the previous pair", (text(previous.key()), text(previous.value())), ("basic/a".into(), "1".into()))?;
    let answer = client.get("basic/a", None).await?;
    let kv = &answer.kvs()[0];
    same("value", kv.value(), &[0, 255])?;
    same("revisions", (kv.create_revision(), kv.mod_revision(), kv.version()), (first, first + 1, 2))?;
    same("a missing key", value(&mut client, "basic/none").await?, None)?;
    let local = client.get("basic/a", Some(GetOptions::new().with_serializable())).await?;
    same("serializable", local.count(), 1)?;
    client.put("basic/a", "", Some(PutOptions::new().with_ignore_value())).await?;
    same("value kept", client.get("basic/a", None).await?.kvs()[0].value(), &[0, 255])
}

pub async fn ranges(mut client: Client) -> Outcome {
    for key in ["r/a", "r/b", "r/c", "r/d", "s/a"] {
        put(&mut client, key, &format!("v{key}")).await?;
    }
    let changed = put(&mut client, "r/b", "newest").await?;
    let prefix = || GetOptions::new().with_prefix();
    let all = client.get("r/", Some(prefix())).await?;
    same("prefix", keys(&all), "r/a r/b r/c r/d".into())?;
    same("values", values(&all), "vr/a newest vr/c vr/d".into())?;
    let limited = client.get("r/", Some(prefix().with_limit(2))).await?;
    same("limit", (keys(&limited), limited.more(), limited.count()), ("r/a r/b".into(), true, 4))?;
    let expect = [
        ("half open", "r/b", GetOptions::new().with_range("r/d"), "r/b r/c"),
        ("from a key on", "r/d", GetOptions::new().with_from_key().with_limit(2), "r/d s/a"),
        ("descending", "r/", prefix().with_sort(SortTarget::Key, SortOrder::Descend), "r/d r/c r/b r/a"),
        ("by change", "r/", prefix().with_sort(SortTarget::Mod, SortOrder::Ascend), "r/a r/c r/d r/b"),
        ("by version", "r/", prefix().with_sort(SortTarget::Version, SortOrder::Descend).with_limit(1), "r/b"),
        ("by value", "r/", prefix().with_sort(SortTarget::Value, SortOrder::Ascend).with_limit(2), "r/b r/a"),
        ("changed since", "r/", prefix().with_min_mod_revision(changed), "r/b"),
        ("created before", "r/", prefix().with_max_create_revision(changed - 4), "r/a r/b"),
    ];
    for (what, key, options, keys_expected) in expect {
        same(what, keys(&client.get(key, Some(options)).await?), keys_expected.into())?;
    }
    let names = client.get("r/", Some(prefix().with_keys_only())).await?;
    same("keys only", values(&names), "   ".into())?;
    let counted = client.get("r/", Some(prefix().with_count_only())).await?;
    same("count only", (counted.count(), counted.kvs().len()), (4, 0))?;
    let then = client.get("r/b", Some(GetOptions::new().with_revision(changed - 1))).await?;
    same("at a revision", values(&then), "vr/b".into())
}

pub async fn deletes(mut client: Client) -> Outcome {
    for key in ["d/a", "d/b", "d/c"] {
        put(&mut client, key, "v").await?;
    }
    same("one", client.delete("d/a", None).await?.deleted(), 1)?;
    same("again", client.delete("d/a", None).await?.deleted(), 0)?;
    let gone = client.delete("d/b", Some(DeleteOptions::new().with_prev_key())).await?;
    same("with what was there", gone.prev_kvs().iter().map(|kv| text(kv.key())).collect(), vec!["d/b".to_string()])?;
    put(&mut client, "d/b", "v").await?;
    same("prefix", client.delete("d/", Some(DeleteOptions::new().with_prefix())).await?.deleted(), 2)?;
    same("left", client.get("d/", Some(GetOptions::new().with_prefix())).await?.count(), 0)
}

pub async fn transactions(mut client: Client) -> Outcome {
    put(&mut client, "txn/k", "1").await?;
    let txn = || {
        Txn::new()
            .when([
                Compare::value("txn/k", CompareOp::Equal, "1"),
                Compare::create_revision("txn/none", CompareOp::Equal, 0),
                Compare::version("txn/k", CompareOp::Greater, 0),
                Compare::lease("txn/k", CompareOp::Equal, 0),
            ])
            .and_then([TxnOp::put("txn/k", "2", None), TxnOp::get("txn/k", None)])
            .or_else([TxnOp::get("txn/k", None), TxnOp::delete("txn/k", None)])
    };
    let won = client.txn(txn()).await?;
    same("success", won.succeeded(), true)?;
    match &won.op_responses()[..] {
        [TxnOpResponse::Put(_), TxnOpResponse::Get(read)] => {
            same("a step sees the one before it", values(read), "2".into())?
        }
        other => return Err(format!("answers {other:?}").into()),
    }
    let lost = client.txn(txn()).await?;
    same("failure", lost.succeeded(), false)?;
    match &lost.op_responses()[..] {
        [TxnOpResponse::Get(read), TxnOpResponse::Delete(gone)] => {
            same("what the failure branch did", (values(read), gone.deleted()), ("2".into(), 1))?;
        }
        other => return Err(format!("answers {other:?}").into()),
    }
    same("after it", value(&mut client, "txn/k").await?, None)
}

pub async fn nested_transactions(mut client: Client) -> Outcome {
    put(&mut client, "nest/k", "1").await?;
    let inner = Txn::new()
        .when([Compare::value("nest/k", CompareOp::Equal, "2")])
        .and_then([TxnOp::put("nest/in", "a", None)])
        .or_else([TxnOp::put("nest/in", "b", None)]);
    let outer = Txn::new().and_then([TxnOp::txn(inner), TxnOp::put("nest/out", "c", None)]);
    let answer = client.txn(outer).await?;
    match &answer.op_responses()[..] {
        [TxnOpResponse::Txn(inner), TxnOpResponse::Put(_)] => same("inner", inner.succeeded(), false)?,
        other => return Err(format!("answers {other:?}").into()),
    }
    let (inside, outside) = (client.get("nest/in", None).await?, client.get("nest/out", None).await?);
    same("written", (values(&inside), values(&outside)), ("b".into(), "c".into()))?;
    same("in one revision", inside.kvs()[0].mod_revision(), outside.kvs()[0].mod_revision())
}

pub async fn leases(mut client: Client) -> Outcome {
    let lease = client.lease_grant(60, None).await?;
    same("ttl", lease.ttl(), 60)?;
    let id = lease.id();
    for key in ["lease/a", "lease/b"] {
        client.put(key, "v", Some(PutOptions::new().with_lease(id))).await?;
    }
    same("on the pair", client.get("lease/a", None).await?.kvs()[0].lease(), id)?;
    let live = client.lease_time_to_live(id, Some(LeaseTimeToLiveOptions::new().with_keys())).await?;
    same("granted", live.granted_ttl(), 60)?;
    same("remaining is at most that", (57..=60).contains(&live.ttl()), true)?;
    let mut attached: Vec<String> = live.keys().iter().map(|key| text(key)).collect();
    attached.sort();
    same("keys", attached, vec!["lease/a".to_string(), "lease/b".to_string()])?;
    same("listed", client.leases().await?.leases().iter().filter(|lease| lease.id() == id).count(), 1)?;
    let (mut keeper, mut answers) = client.lease_keep_alive(id).await?;
    for _ in 0..2 {
        keeper.keep_alive().await?;
        let answer = answers.message().await?.ok_or("the stream of renewals ended")?;
        same("renewal", (answer.id(), answer.ttl()), (id, 60))?;
    }
    client.lease_revoke(id).await?;
    same("keys after it", client.get("lease/", Some(GetOptions::new().with_prefix())).await?.count(), 0)?;
    same("time to live after it", client.lease_time_to_live(id, None).await?.ttl(), -1)?;
    same("a chosen id", client.lease_grant(60, Some(LeaseGrantOptions::new().with_id(424242))).await?.id(), 424242)?;
    let twice = client.lease_grant(60, Some(LeaseGrantOptions::new().with_id(424242))).await;
    refused("etcdserver: lease already exists", twice)?;
    client.lease_revoke(424242).await?;
    Ok(())
}

pub async fn lease_expiry(mut client: Client) -> Outcome {
    let id = client.lease_grant(1, None).await?.id();
    client.put("lease/short", "v", Some(PutOptions::new().with_lease(id))).await?;
    until("the key goes with its lease", 15, async || matches!(value(&mut client, "lease/short").await, Ok(None)))
        .await?;
    same("time to live after it", client.lease_time_to_live(id, None).await?.ttl(), -1)
}

pub async fn lease_survives_a_restart(mut client: Client) -> Outcome {
    let id = client.lease_grant(60, None).await?.id();
    client.put("lease/kept", "v", Some(PutOptions::new().with_lease(id))).await?;
    server("restart").await?;
    until("the server answers", 30, async || client.get("lease/kept", None).await.is_ok()).await?;
    let (_keeper, _answers) = client.lease_keep_alive(id).await?;
    same("the key", value(&mut client, "lease/kept").await?, Some("v".into()))?;
    client.lease_revoke(id).await?;
    same("after revocation", value(&mut client, "lease/kept").await?, None)
}

/// Kind, key, value, revision.
type Heard = (&'static str, String, String, i64);

fn heard(event: &Event) -> Heard {
    let kind = if event.event_type() == EventType::Put { "put" } else { "delete" };
    let (key, value, at) =
        event.kv().map(|kv| (text(kv.key()), text(kv.value()), kv.mod_revision())).unwrap_or_default();
    (kind, key, value, at)
}

/// Reads until there are `count` events.
async fn events(stream: &mut WatchStream, count: usize) -> Outcome<Vec<Heard>> {
    let mut all = Vec::new();
    while all.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(15), stream.message()).await;
        let message = next.map_err(|_| format!("no event within 15 s, after {all:?}"))??.ok_or("the stream ended")?;
        all.extend(message.events().iter().map(heard));
    }
    Ok(all)
}

pub async fn watches(mut client: Client) -> Outcome {
    let mut live = client.watch("w/", Some(WatchOptions::new().with_prefix())).await?;
    let created = live.message().await?.ok_or("the stream ended")?;
    same("created", created.created(), true)?;
    let first = put(&mut client, "w/a", "1").await?;
    put(&mut client, "x/other", "-").await?;
    put(&mut client, "w/b", "2").await?;
    client.delete("w/a", None).await?;
    let expected = vec![
        ("put", "w/a".to_string(), "1".to_string(), first),
        ("put", "w/b".to_string(), "2".to_string(), first + 2),
        ("delete", "w/a".to_string(), String::new(), first + 3),
    ];
    same("live", events(&mut live, 3).await?, expected.clone())?;
    let from = |revision| WatchOptions::new().with_prefix().with_start_revision(revision);
    same("from history", events(&mut client.watch("w/", Some(from(first))).await?, 3).await?, expected.clone())?;
    let options = from(first).with_filters([WatchFilterType::NoPut]).with_prev_key();
    let mut deletions = client.watch("w/", Some(options)).await?;
    let mut message = deletions.message().await?.ok_or("the stream ended")?;
    if message.created() {
        message = deletions.message().await?.ok_or("the stream ended")?;
    }
    same("deletions alone", message.events().iter().map(heard).collect(), vec![expected[2].clone()])?;
    let previous = message.events()[0].prev_kv().ok_or("no previous pair")?;
    same("what was deleted", text(previous.value()), "1".into())?;
    live.cancel(created.watch_id()).await?;
    let end = live.message().await?.ok_or("the stream ended")?;
    same("canceled", (end.canceled(), end.watch_id()), (true, created.watch_id()))
}

pub async fn watch_survives_a_restart(mut client: Client) -> Outcome {
    let mut stream = client.watch("wr", None).await?;
    let first = put(&mut client, "wr", "first").await?;
    let mut seen = events(&mut stream, 1).await?;
    put(&mut client, "wr", "before restart").await?;
    server("restart").await?;
    until("the server answers", 30, async || client.get("wr", None).await.is_ok()).await?;
    for value in ["after restart", "end"] {
        put(&mut client, "wr", value).await?;
    }
    // This client ends a watch with its connection; going on from the last revision seen is the caller's work. A proxy
    // may keep the connection.
    while seen.last().is_none_or(|event| event.2 != "end") {
        let next = tokio::time::timeout(Duration::from_secs(15), stream.message()).await;
        match next.map_err(|_| format!("no event within 15 s, after {seen:?}"))? {
            Ok(Some(message)) => seen.extend(message.events().iter().map(heard)),
            Ok(None) | Err(_) => {
                let next = seen.last().map_or(first, |event| event.3 + 1);
                stream = client.watch("wr", Some(WatchOptions::new().with_start_revision(next))).await?;
            }
        }
    }
    let values = ["first", "before restart", "after restart", "end"];
    let expected = (first..).zip(values).map(|(at, value)| ("put", "wr".to_string(), value.to_string(), at));
    same("each once", seen, expected.collect())
}

pub async fn status_and_members(mut client: Client) -> Outcome {
    let members = client.member_list().await?;
    let members = members.members();
    same("members", members.len(), 1)?;
    same("its name", members[0].name(), "interop")?;
    same("its address", members[0].client_urls(), &[format!("http://{}", endpoint())])?;
    same("learner", members[0].is_learner(), false)?;
    let status = client.status().await?;
    same("leader", status.leader(), members[0].id())?;
    same("size", status.db_size() > 0, true)?;
    same("version", status.version().starts_with("3."), true)?;
    same("applied", status.raft_applied_index() <= status.raft_index(), true)?;
    same("alarms", client.alarm(AlarmAction::Get, AlarmType::None, None).await?.alarms().len(), 0)?;
    let hash = client.hash_kv(0).await?.hash();
    same("the hash of the same data", client.hash_kv(0).await?.hash(), hash)
}

pub async fn errors(mut client: Client) -> Outcome {
    let error = refused("etcdserver: key is not provided", client.put("", "v", None).await)?;
    same("its code", code(&error), 3)?;
    let unknown = client.put("k", "v", Some(PutOptions::new().with_lease(123456))).await;
    same("its code", code(&refused("etcdserver: requested lease not found", unknown)?), 5)?;
    refused("etcdserver: requested lease not found", client.lease_revoke(123456).await)?;
    refused("lease not found", client.lease_keep_alive(123456).await.map(|_| ()))?;
    let future = client.get("k", Some(GetOptions::new().with_revision(1_000_000))).await;
    same("its code", code(&refused("etcdserver: mvcc: required revision is a future revision", future)?), 11)?;
    let twice = Txn::new().and_then([TxnOp::put("a", "1", None), TxnOp::put("a", "2", None)]);
    refused("etcdserver: duplicate key given in txn request", client.txn(twice).await)?;
    let kept = client.put("errors/none", "", Some(PutOptions::new().with_ignore_value())).await;
    refused("etcdserver: key not found", kept)?;
    Ok(())
}

/// The number of the gRPC code, or -1.
fn code(error: &Error) -> i32 {
    if let Error::GRpcStatus(status) = error { status.code() as i32 } else { -1 }
}

pub async fn compaction(mut client: Client) -> Outcome {
    const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
    let old = put(&mut client, "compact/k", "old").await?;
    let new = put(&mut client, "compact/k", "new").await?;
    client.compact(new, Some(CompactionOptions::new().with_physical())).await?;
    refused(COMPACTED, client.get("compact/k", Some(GetOptions::new().with_revision(old))).await)?;
    same("read at", values(&client.get("compact/k", Some(GetOptions::new().with_revision(new))).await?), "new".into())?;
    refused(COMPACTED, client.compact(old, None).await)?;
    let mut below = client.watch("compact/k", Some(WatchOptions::new().with_start_revision(old))).await?;
    let mut message = below.message().await?.ok_or("the stream ended")?;
    if message.created() && !message.canceled() {
        message = below.message().await?.ok_or("the stream ended")?;
    }
    same("the watch ends with", (message.canceled(), message.compact_revision()), (true, new))
}
