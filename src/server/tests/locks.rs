//! Locks, as a client sees them.

mod random;

use super::*;
use crate::pb::v3lockpb::{LockRequest, LockResponse, UnlockRequest, lock_client::LockClient};
use pb::lease_client::LeaseClient;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

/// A call that may wait, in a task of its own: aborted it ends as with a client that goes away.
pub(super) type Call<T> = JoinHandle<Result<Response<T>, Status>>;

pub(super) const EXPIRED: &str = "mutex: session is expired";

impl World {
    pub(super) fn locks(&self) -> LockClient<Channel> {
        LockClient::new(self.channel.clone())
    }

    /// Leases of a minute.
    pub(super) async fn grant(&self, ids: &[i64]) {
        for id in ids {
            let request = pb::LeaseGrantRequest { id: *id, ttl: 60 };
            LeaseClient::new(self.channel.clone()).lease_grant(request).await.unwrap();
        }
    }

    pub(super) async fn revoke(&self, id: i64) {
        LeaseClient::new(self.channel.clone()).lease_revoke(pb::LeaseRevokeRequest { id }).await.unwrap();
    }

    pub(super) async fn leases(&self) -> Vec<i64> {
        let listed = LeaseClient::new(self.channel.clone()).lease_leases(pb::LeaseLeasesRequest {}).await.unwrap();
        listed.into_inner().leases.iter().map(|lease| lease.id).collect()
    }

    /// The keys of those who hold or wait, in the order of their creation.
    pub(super) async fn queue(&self, name: &str) -> Vec<String> {
        let mut kvs = self.kv().range(range(&format!("{name}/"), &format!("{name}0"))).await.unwrap().into_inner().kvs;
        kvs.sort_by_key(|kv| kv.create_revision);
        kvs.into_iter().map(|kv| String::from_utf8(kv.key.into()).unwrap()).collect()
    }

    /// Waits until exactly these hold or wait.
    pub(super) async fn queued(&self, name: &str, keys: &[&str]) {
        let same = async {
            while self.queue(name).await != keys {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), same).await;
        assert!(in_time.is_ok(), "{:?} is not {keys:?}", self.queue(name).await);
    }

    async fn lock(&self, name: &str, lease: i64) -> Result<Response<LockResponse>, Status> {
        self.locks().lock(LockRequest { name: b(name), lease }).await
    }

    /// A lock that is waited for.
    fn wait(&self, name: &str, lease: i64) -> Call<LockResponse> {
        let (mut locks, request) = (self.locks(), LockRequest { name: b(name), lease });
        tokio::spawn(async move { locks.lock(request).await })
    }

    async fn unlock(&self, key: &str) -> i64 {
        let unlocked = self.locks().unlock(UnlockRequest { key: b(key) }).await.unwrap().into_inner();
        revision(&unlocked.header)
    }
}

/// How a call ends.
pub(super) async fn outcome<T>(call: Call<T>) -> Result<Response<T>, Status> {
    tokio::time::timeout(Duration::from_secs(30), call).await.expect("in time").expect("not aborted")
}

/// The key that a lock is held by, and what fences.
fn held(response: Result<Response<LockResponse>, Status>) -> (String, i64) {
    let response = response.unwrap();
    let fence = response.metadata().get("henge-create-revision").unwrap().to_str().unwrap().parse().unwrap();
    (String::from_utf8(response.into_inner().key.into()).unwrap(), fence)
}

#[tokio::test]
async fn a_lock_is_a_key_of_the_callers_lease() {
    let world = world().await;
    world.grant(&[0x4d]).await;
    let locked = world.lock("a", 0x4d).await.unwrap();
    assert_eq!(locked.metadata().get("henge-create-revision").unwrap(), "2");
    let locked = locked.into_inner();
    assert_eq!((&locked.key[..], revision(&locked.header)), (&b"a/4d"[..], 2));
    let kv = world.kv().range(range("a/4d", "")).await.unwrap().into_inner().kvs.remove(0);
    assert_eq!((kv.lease, kv.create_revision, kv.value), (0x4d, 2, Bytes::new()));

    world.put("b", "").await;
    let again = world.lock("a", 0x4d).await.unwrap();
    assert_eq!(again.metadata().get("henge-create-revision").unwrap(), "2", "whoever has it has it");
    assert_eq!(revision(&again.into_inner().header), 3);
    assert_eq!(world.unlock("a/4d").await, 4);
    assert_eq!(world.unlock("a/4d").await, 4, "as in etcd, nobody minds");
    refused(
        world.locks().unlock(UnlockRequest::default()).await,
        Code::InvalidArgument,
        "etcdserver: key is not provided",
    );
}

#[tokio::test]
async fn a_lock_without_a_lease_gets_one_of_a_minute() {
    let world = world().await;
    let (key, _) = held(world.lock("a", 0).await);
    let [lease] = world.leases().await[..] else { panic!("one lease") };
    assert_eq!(key, format!("a/{lease:x}"));
    let request = pb::LeaseTimeToLiveRequest { id: lease, keys: true };
    let left = LeaseClient::new(world.channel.clone()).lease_time_to_live(request).await.unwrap().into_inner();
    assert_eq!((left.granted_ttl, &left.keys[..]), (60, &[b(&key)][..]));

    let waiting = world.wait("a", 0);
    while world.queue("a").await.len() < 2 {
        tokio::task::yield_now().await;
    }
    waiting.abort();
    world.queued("a", &[&key]).await;
    assert_eq!(world.leases().await, [lease], "nobody knows the other one");
}

#[tokio::test]
async fn a_lease_that_is_none_holds_nothing() {
    let world = world().await;
    refused(world.lock("a", 7).await, Code::NotFound, "etcdserver: requested lease not found");
    refused(world.lock("a", -1).await, Code::NotFound, "etcdserver: requested lease not found");
    assert!(world.queue("a").await.is_empty());
}

#[tokio::test]
async fn who_came_first_is_first() {
    let world = world().await;
    world.grant(&[1, 2, 3, 4]).await;
    let (first, mut last) = held(world.lock("a", 3).await);
    let mut waiting = Vec::new();
    for (lease, queue) in [(4, &["a/3", "a/4"][..]), (1, &["a/3", "a/4", "a/1"]), (2, &["a/3", "a/4", "a/1", "a/2"])] {
        waiting.push(world.wait("a", lease));
        world.queued("a", queue).await;
    }
    // One in the middle gives up: that is no reason for those behind it.
    waiting.remove(0).abort();
    world.queued("a", &["a/3", "a/1", "a/2"]).await;
    assert!(waiting.iter().all(|call| !call.is_finished()));
    let mut holder = first;
    for (call, key) in waiting.into_iter().zip(["a/1", "a/2"]) {
        world.unlock(&holder).await;
        let (got, fence) = held(outcome(call).await);
        assert_eq!(got, key);
        assert!(fence > last, "what fences grows from holder to holder");
        (holder, last) = (got, fence);
    }
    assert_eq!(held(world.lock("other", 1).await).0, "other/1", "another name is another lock");
}

#[tokio::test]
async fn a_key_of_somebody_who_locks_by_a_library_counts() {
    let world = world().await;
    world.grant(&[1, 2]).await;
    world.kv().put(pb::PutRequest { lease: 1, ..put("a/1", "") }).await.unwrap();
    let waiting = world.wait("a", 2);
    world.queued("a", &["a/1", "a/2"]).await;
    // It does something else with its key.
    world.kv().put(pb::PutRequest { lease: 1, ..put("a/1", "busy") }).await.unwrap();
    assert!(!waiting.is_finished());
    world.revoke(1).await;
    assert_eq!(held(outcome(waiting).await).0, "a/2");
}

#[tokio::test]
async fn a_place_that_is_lost_ends_the_wait_at_once() {
    let world = world().await;
    world.grant(&[1, 2, 3]).await;
    held(world.lock("a", 1).await);
    let (second, third) = (world.wait("a", 2), world.wait("a", 3));
    while world.queue("a").await.len() < 3 {
        tokio::task::yield_now().await;
    }
    world.revoke(2).await;
    refused(outcome(second).await, Code::Unknown, EXPIRED);
    // Deleted and put again it is another key, at the end of the queue.
    world.kv().delete_range(pb::DeleteRangeRequest { key: b("a/3"), ..Default::default() }).await.unwrap();
    world.kv().put(pb::PutRequest { lease: 3, ..put("a/3", "") }).await.unwrap();
    refused(outcome(third).await, Code::Unknown, EXPIRED);
    assert_eq!(world.queue("a").await, ["a/1", "a/3"], "which is not that call's to remove");
}

#[tokio::test]
async fn who_asks_twice_has_one_place() {
    let world = world().await;
    world.grant(&[1, 2]).await;
    held(world.lock("a", 1).await);
    let (one, two) = (world.wait("a", 2), world.wait("a", 2));
    world.queued("a", &["a/1", "a/2"]).await;
    world.unlock("a/1").await;
    assert_eq!(held(outcome(one).await), held(outcome(two).await));
}

#[tokio::test]
async fn compaction_takes_nothing_from_those_who_wait() {
    let world = world().await;
    world.grant(&[1, 2]).await;
    held(world.lock("a", 1).await);
    let waiting = world.wait("a", 2);
    world.queued("a", &["a/1", "a/2"]).await;
    let revision = revision(&world.put("b", "").await.header);
    world.kv().compact(pb::CompactionRequest { revision, physical: true }).await.unwrap();
    world.unlock("a/1").await;
    assert_eq!(held(outcome(waiting).await).0, "a/2");
}

#[tokio::test]
async fn a_lock_is_not_given_without_a_quorum() {
    let world = world().await;
    world.grant(&[1, 2]).await;
    held(world.lock("a", 1).await);
    let waiting = world.wait("a", 2);
    world.queued("a", &["a/1", "a/2"]).await;
    // The member hears of the end of the lock, and no more of the cluster.
    world.backend.set_refusal_of_reads(Some(crate::types::Error::Timeout));
    world.unlock("a/1").await;
    refused(outcome(waiting).await, Code::Unavailable, "etcdserver: request timed out");
    world.backend.set_refusal_of_reads(None);
    world.queued("a", &[]).await;
}

#[tokio::test]
async fn a_member_that_stops_ends_the_waits() {
    let world = member().await;
    world.grant(&[1, 2]).await;
    held(world.lock("a", 1).await);
    let waiting = world.wait("a", 2);
    world.queued("a", &["a/1", "a/2"]).await;
    world.backend.set_stopping();
    refused(outcome(waiting).await, Code::Unavailable, "etcdserver: server stopped");
    world.queued("a", &["a/1"]).await;
}

#[tokio::test]
async fn who_insists_on_a_leader_does_not_wait_without_one() {
    let world = world_with(Settings { leaderless_max: Duration::from_millis(50), ..Settings::default() }).await;
    world.grant(&[1, 2, 3]).await;
    held(world.lock("a", 1).await);
    let mut insists = Request::new(LockRequest { name: b("a"), lease: 2 });
    insists.metadata_mut().insert("hasleader", "true".parse().unwrap());
    let mut locks = world.locks();
    let (insisting, waiting) = (tokio::spawn(async move { locks.lock(insists).await }), world.wait("a", 3));
    while world.queue("a").await.len() < 3 {
        tokio::task::yield_now().await;
    }
    world.backend.set_leader(None);
    refused(outcome(insisting).await, Code::Unavailable, "etcdserver: no leader");
    assert!(!waiting.is_finished());
    world.backend.set_leader(Some(ME));
    world.queued("a", &["a/1", "a/3"]).await;
}

#[tokio::test]
async fn a_learner_locks_nothing() {
    let world = world().await;
    world.backend.set_learner(true);
    let text = "etcdserver: rpc not supported for learner";
    refused(world.lock("a", 1).await, Code::FailedPrecondition, text);
    refused(world.locks().unlock(UnlockRequest { key: b("a/1") }).await, Code::FailedPrecondition, text);
}
