//! Locks and elections of users: each step of them is theirs.

use super::*;
use crate::{
    pb::{
        v3electionpb::{CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest},
        v3lockpb::{LockRequest, LockResponse, UnlockRequest},
    },
    server::tests::{
        elections::told,
        locks::{Call, outcome},
    },
};

const DENIED: &str = "etcdserver: permission denied";

impl World {
    /// A lock that somebody waits for.
    fn wait_as(&self, token: &str, name: &str, lease: i64) -> Call<LockResponse> {
        let (mut locks, request) = (self.locks(), of(token, LockRequest { name: b(name), lease }));
        tokio::spawn(async move { locks.lock(request).await })
    }

    /// Waits until so many hold or wait, as root sees it.
    async fn queued_as(&self, root: &str, name: &str, count: i64) {
        let read = || of(root, range(&format!("{name}/"), &format!("{name}0")));
        let same = async { while self.kv().range(read()).await.unwrap().into_inner().count != count {} };
        tokio::time::timeout(Duration::from_secs(30), same).await.expect("in time");
    }
}

#[tokio::test]
async fn nobody_locks_what_they_may_not_read_and_write() {
    let world = world().await;
    world.grant(&[1]).await;
    let root = world.enable_auth().await;
    let alice = world.login("alice", "alice").await.unwrap();
    let lock = async |token: &str, name: &str, lease: i64| outcome(world.wait_as(token, name, lease)).await;
    assert!(lock(&alice, "a", 1).await.is_ok());
    for lease in [0, 1] {
        refused(lock(&alice, "b", lease).await, Code::PermissionDenied, DENIED);
        refused(lock("", "a", lease).await, Code::InvalidArgument, "etcdserver: user name is empty");
        refused(lock("wrong", "a", lease).await, Code::Unauthenticated, "etcdserver: invalid auth token");
    }
    let listed = LeaseClient::new(world.channel.clone()).lease_leases(of(&root, pb::LeaseLeasesRequest {})).await;
    assert_eq!(listed.unwrap().into_inner().leases.len(), 1, "no lease was left behind");

    // To write is not enough: whoever waits reads who is ahead.
    let perm = Permission { perm_type: Type::Write.into(), key: b("c"), range_end: b("d") };
    let grant = pb::AuthRoleGrantPermissionRequest { name: "alice".into(), perm: Some(perm) };
    world.auth().role_grant_permission(of(&root, grant)).await.unwrap();
    refused(lock(&alice, "c", 1).await, Code::PermissionDenied, DENIED);
    let unlock = async |token: &str, key: &str| world.locks().unlock(of(token, UnlockRequest { key: b(key) })).await;
    refused(unlock(&alice, "b/1").await, Code::PermissionDenied, DENIED);
    assert!(unlock(&alice, "a/1").await.is_ok());

    // A lease that holds what they may not write holds nothing of theirs.
    world.kv().put(of(&root, pb::PutRequest { lease: 1, ..put("b", "") })).await.unwrap();
    refused(lock(&alice, "a", 1).await, Code::PermissionDenied, DENIED);
}

#[tokio::test]
async fn a_wait_ends_with_its_permission() {
    let world = world().await;
    world.grant(&[1, 2, 3]).await;
    assert!(outcome(world.wait_as("", "a", 1)).await.is_ok());
    let nobody = world.wait_as("", "a", 2);
    world.queued("a", &["a/1", "a/2"]).await;
    let root = world.enable_auth().await;
    refused(outcome(nobody).await, Code::InvalidArgument, "etcdserver: user name is empty");
    world.queued_as(&root, "a", 2).await; // nobody may take it back: its lease ends it

    let alice = world.login("alice", "alice").await.unwrap();
    let waiting = world.wait_as(&alice, "a", 3);
    world.queued_as(&root, "a", 3).await;
    // What has nothing to do with it changes nothing.
    world.auth().role_add(of(&root, pb::AuthRoleAddRequest { name: "other".into() })).await.unwrap();
    assert!(!waiting.is_finished());
    world.revoke_alice(&root).await;
    refused(outcome(waiting).await, Code::PermissionDenied, DENIED);
}

#[tokio::test]
async fn a_wait_outlives_an_unrelated_change_and_is_given_up_as_whom_it_was_for() {
    let world = world().await;
    world.grant(&[1, 2]).await;
    let root = world.enable_auth().await;
    let alice = world.login("alice", "alice").await.unwrap();
    assert!(outcome(world.wait_as(&root, "a", 1)).await.is_ok());
    let waiting = world.wait_as(&alice, "a", 2);
    world.queued_as(&root, "a", 2).await;
    world.auth().role_add(of(&root, pb::AuthRoleAddRequest { name: "other".into() })).await.unwrap();
    waiting.abort();
    world.queued_as(&root, "a", 1).await;
}

#[tokio::test]
async fn elections_are_read_and_written_as_the_caller() {
    let world = world().await;
    world.grant(&[1]).await;
    let root = world.enable_auth().await;
    let alice = world.login("alice", "alice").await.unwrap();
    let name = || b("b");
    let campaign = CampaignRequest { name: name(), lease: 1, value: b("x") };
    refused(world.elections().campaign(of(&alice, campaign.clone())).await, Code::PermissionDenied, DENIED);
    let leader = world.elections().campaign(of(&root, campaign)).await.unwrap().into_inner().leader;
    let ask = || of(&alice, LeaderRequest { name: name() });
    refused(world.elections().leader(ask()).await, Code::PermissionDenied, DENIED);
    refused(
        world.elections().observe(ask()).await.unwrap().into_inner().message().await,
        Code::PermissionDenied,
        DENIED,
    );
    let proclaim = ProclaimRequest { leader: leader.clone(), value: b("y") };
    refused(world.elections().proclaim(of(&alice, proclaim)).await, Code::PermissionDenied, DENIED);
    refused(world.elections().resign(of(&alice, ResignRequest { leader })).await, Code::PermissionDenied, DENIED);
}

#[tokio::test]
async fn observing_ends_with_its_permission() {
    let world = world().await;
    world.grant(&[1]).await;
    let root = world.enable_auth().await;
    let alice = world.login("alice", "alice").await.unwrap();
    let campaign = CampaignRequest { name: b("a"), lease: 1, value: b("x") };
    let won = world.elections().campaign(of(&alice, campaign)).await.unwrap().into_inner();
    let leader: Option<LeaderKey> = won.leader;
    let ask = |name: &str| of(&alice, LeaderRequest { name: b(name) });
    let mut observed = world.elections().observe(ask("a")).await.unwrap().into_inner();
    let mut nobody_leads = world.elections().observe(ask("aa")).await.unwrap().into_inner();
    assert_eq!(told(&mut observed).await.0, "x");
    world.revoke_alice(&root).await;
    let secret = ProclaimRequest { leader, value: b("secret") };
    world.elections().proclaim(of(&root, secret)).await.unwrap();
    refused(observed.message().await, Code::PermissionDenied, DENIED);
    refused(nobody_leads.message().await, Code::PermissionDenied, DENIED);
}
