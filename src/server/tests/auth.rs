//! Users, as clients see them: logins, what they may, and watches that end with a permission.

mod locks;

use super::*;
use crate::{
    auth,
    machine::Command,
    pb::authpb::{Permission, permission::Type},
};
use pb::{
    WatchCreateRequest, WatchRequest, WatchResponse, auth_client::AuthClient, cluster_client::ClusterClient,
    lease_client::LeaseClient, maintenance_client::MaintenanceClient, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

/// A request of somebody.
fn of<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("token", token.parse().unwrap());
    }
    request
}

impl World {
    fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    async fn login(&self, name: &str, password: &str) -> Result<String, tonic::Status> {
        let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
        Ok(self.auth().authenticate(request).await?.into_inner().token)
    }

    /// Users root and alice, whose passwords are their names; alice may read and write what begins with "a". The token of root.
    pub(crate) async fn enable_auth(&self) -> String {
        let mut auth = self.auth();
        for name in ["root", "alice"] {
            let user = pb::AuthUserAddRequest { name: name.into(), password: name.into(), ..Default::default() };
            auth.user_add(user).await.unwrap();
            auth.role_add(pb::AuthRoleAddRequest { name: name.into() }).await.unwrap();
            let grant = pb::AuthUserGrantRoleRequest { user: name.into(), role: name.into() };
            auth.user_grant_role(grant).await.unwrap();
        }
        let perm = Permission { perm_type: Type::Readwrite.into(), key: b("a"), range_end: b("b") };
        let grant = pb::AuthRoleGrantPermissionRequest { name: "alice".into(), perm: Some(perm) };
        auth.role_grant_permission(grant).await.unwrap();
        auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
        self.login("root", "root").await.unwrap()
    }

    async fn put_as(&self, token: &str, key: &str, value: &str) -> Result<(), tonic::Status> {
        self.kv().put(of(token, put(key, value))).await.map(drop)
    }

    async fn revoke_alice(&self, root: &str) {
        let revoke = pb::AuthUserRevokeRoleRequest { name: "alice".into(), role: "alice".into() };
        self.auth().user_revoke_role(of(root, revoke)).await.unwrap();
    }

    /// A stream with one watcher.
    async fn watch_as(
        &self,
        token: &str,
        key: &str,
        end: &str,
    ) -> (mpsc::Sender<WatchRequest>, Streaming<WatchResponse>) {
        let (sender, receiver) = mpsc::channel(4);
        let create = WatchCreateRequest { key: b(key), range_end: b(end), ..Default::default() };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        sender.send(request).await.unwrap();
        let mut client = WatchClient::new(self.channel.clone());
        let stream = client.watch(of(token, ReceiverStream::new(receiver))).await.unwrap().into_inner();
        (sender, stream)
    }
}

async fn next(stream: &mut Streaming<WatchResponse>) -> WatchResponse {
    let message = tokio::time::timeout(std::time::Duration::from_secs(10), stream.message());
    message.await.expect("in time").unwrap().expect("the stream goes on")
}

const DENIED: &str = "etcdserver: permission denied";
const NOBODY: &str = "etcdserver: user name is empty";
const NO_TOKEN: &str = "etcdserver: invalid auth token";

#[tokio::test]
async fn a_login_gives_a_token_that_says_who_it_is() {
    let world = world().await;
    refused(world.login("root", "root").await, Code::FailedPrecondition, "etcdserver: authentication is not enabled");
    let root = world.enable_auth().await;
    let wrong = "etcdserver: authentication failed, invalid user ID or password";
    refused(world.login("alice", "root").await, Code::InvalidArgument, wrong);
    refused(world.login("nobody", "root").await, Code::InvalidArgument, wrong);
    let alice = world.login("alice", "alice").await.unwrap();
    assert!(alice.split_once('.').is_some_and(|(random, index)| random.len() == 16 && index.parse::<u64>().is_ok()));

    world.put_as(&root, "b", "1").await.unwrap();
    world.put_as(&alice, "a", "1").await.unwrap();
    refused(world.put_as(&alice, "b", "1").await, Code::PermissionDenied, DENIED);
    refused(world.put_as("", "a", "1").await, Code::InvalidArgument, NOBODY);
    for token in ["nonsense", "abc.1", "abc.99999999", "abc"] {
        refused(world.put_as(token, "a", "1").await, Code::Unauthenticated, NO_TOKEN);
    }
    let mut kv = world.kv();
    assert_eq!(kv.range(of(&alice, range("a", "b"))).await.unwrap().into_inner().count, 1);
    refused(kv.range(of(&alice, range("a", "c"))).await, Code::PermissionDenied, DENIED);
    refused(kv.range(of(&alice, range("a", "\0"))).await, Code::PermissionDenied, DENIED);
    let stale = pb::RangeRequest { serializable: true, ..range("b", "") };
    refused(kv.range(of(&alice, stale)).await, Code::PermissionDenied, DENIED);
    refused(kv.range_stream(of(&alice, range("b", ""))).await, Code::PermissionDenied, DENIED);

    // Nothing that has to do with alice.
    let user = pb::AuthUserAddRequest { name: "bob".into(), password: "bob".into(), ..Default::default() };
    world.auth().user_add(of(&root, user)).await.unwrap();
    world.put_as(&alice, "a", "2").await.unwrap();
    let password =
        pb::AuthUserChangePasswordRequest { name: "alice".into(), password: "new".into(), ..Default::default() };
    world.auth().user_change_password(of(&root, password)).await.unwrap();
    refused(world.put_as(&alice, "a", "3").await, Code::Unauthenticated, NO_TOKEN);
    refused(world.login("alice", "alice").await, Code::InvalidArgument, wrong);
    let alice = world.login("alice", "new").await.unwrap();
    world.put_as(&alice, "a", "3").await.unwrap();

    world.auth().auth_disable(of(&root, pb::AuthDisableRequest {})).await.unwrap();
    world.put_as("", "z", "1").await.unwrap();
    world.put_as("whatever", "z", "1").await.unwrap();
}

#[tokio::test]
async fn users_see_their_own_record_and_root_sees_all() {
    let world = world().await;
    let root = world.enable_auth().await;
    let alice = world.login("alice", "alice").await.unwrap();
    let user = |name: &str| pb::AuthUserGetRequest { name: name.into() };
    let role = |role: &str| pb::AuthRoleGetRequest { role: role.into() };
    let mut auth = world.auth();
    assert_eq!(auth.user_get(of(&alice, user("alice"))).await.unwrap().into_inner().roles, ["alice"]);
    assert_eq!(auth.role_get(of(&alice, role("alice"))).await.unwrap().into_inner().perm.len(), 1);
    refused(auth.user_get(of(&alice, user("root"))).await, Code::PermissionDenied, DENIED);
    refused(auth.role_get(of(&alice, role("root"))).await, Code::PermissionDenied, DENIED);
    refused(auth.user_list(of(&alice, pb::AuthUserListRequest {})).await, Code::PermissionDenied, DENIED);
    let told = auth.auth_status(of("", pb::AuthStatusRequest {})).await.unwrap().into_inner();
    assert!(told.enabled, "that is no secret");
    assert_eq!(
        auth.user_list(of(&root, pb::AuthUserListRequest {})).await.unwrap().into_inner().users,
        ["alice", "root"]
    );
    let status = auth.auth_status(of(&root, pb::AuthStatusRequest {})).await.unwrap().into_inner();
    assert_eq!((status.enabled, status.auth_revision), (true, 8), "counted as etcd counts");
    let whole = auth.role_get(of(&root, role("root"))).await.unwrap().into_inner().perm;
    assert_eq!(whole, [Permission { perm_type: Type::Readwrite.into(), key: Bytes::new(), range_end: b("\0") }]);
}

#[tokio::test]
async fn ghsa_q8m4_xhhv_38mg_no_service_answers_nobody() {
    let world = world().await;
    let root = world.enable_auth().await;
    let alice = world.login("alice", "alice").await.unwrap();
    let channel = || world.channel.clone();
    let mut lease = LeaseClient::new(channel());
    refused(lease.lease_grant(pb::LeaseGrantRequest { id: 1, ttl: 60 }).await, Code::InvalidArgument, NOBODY);
    refused(lease.lease_leases(pb::LeaseLeasesRequest {}).await, Code::InvalidArgument, NOBODY);
    refused(lease.lease_revoke(pb::LeaseRevokeRequest { id: 1 }).await, Code::InvalidArgument, NOBODY);
    let left = pb::LeaseTimeToLiveRequest { id: 1, keys: false };
    refused(lease.lease_time_to_live(left).await, Code::InvalidArgument, NOBODY);
    let renewal = || tokio_stream::once(pb::LeaseKeepAliveRequest { id: 1 });
    // Through a proxy the stream stands before upstream has had its say.
    let renewed = match lease.lease_keep_alive(renewal()).await {
        Ok(answers) => answers.into_inner().message().await,
        Err(status) => Err(status),
    };
    refused(renewed, Code::InvalidArgument, NOBODY);
    lease.lease_grant(of(&alice, pb::LeaseGrantRequest { id: 1, ttl: 60 })).await.unwrap();
    let mut renewed = lease.lease_keep_alive(of(&alice, renewal())).await.unwrap().into_inner();
    assert_eq!(renewed.message().await.unwrap().unwrap().ttl, 60);

    let members = || pb::MemberListRequest { linearizable: true };
    let mut cluster = ClusterClient::new(channel());
    refused(cluster.member_list(members()).await, Code::InvalidArgument, NOBODY);
    cluster.member_list(of(&alice, members())).await.unwrap();
    let remove = || pb::MemberRemoveRequest { id: 1 };
    refused(cluster.member_remove(of(&alice, remove())).await, Code::PermissionDenied, DENIED);
    refused(cluster.member_remove(of(&root, remove())).await, Code::NotFound, "etcdserver: member not found");

    let mut maintenance = MaintenanceClient::new(channel());
    refused(maintenance.status(pb::StatusRequest {}).await, Code::InvalidArgument, NOBODY);
    maintenance.status(of(&alice, pb::StatusRequest {})).await.unwrap();
    refused(maintenance.hash(of(&alice, pb::HashRequest {})).await, Code::PermissionDenied, DENIED);
    refused(maintenance.hash_kv(of(&alice, pb::HashKvRequest::default())).await, Code::PermissionDenied, DENIED);
    refused(maintenance.defragment(of(&alice, pb::DefragmentRequest {})).await, Code::PermissionDenied, DENIED);
    refused(maintenance.snapshot(of(&alice, pb::SnapshotRequest {})).await, Code::PermissionDenied, DENIED);
    refused(
        maintenance.move_leader(of(&alice, pb::MoveLeaderRequest { target_id: 1 })).await,
        Code::PermissionDenied,
        DENIED,
    );
    refused(maintenance.alarm(pb::AlarmRequest::default()).await, Code::InvalidArgument, NOBODY);
    maintenance.alarm(of(&alice, pb::AlarmRequest::default())).await.unwrap();
    maintenance.status(of(&root, pb::StatusRequest {})).await.unwrap();

    let compaction = || pb::CompactionRequest { revision: 1, physical: false };
    refused(world.kv().compact(of(&alice, compaction())).await, Code::PermissionDenied, DENIED);
    let all = || range("\0", "\0");
    refused(world.kv().range(all()).await, Code::InvalidArgument, NOBODY);
}

#[tokio::test]
async fn a_permission_that_another_member_has_granted_counts_here_too() {
    let world = world().await;
    let root = world.enable_auth().await;
    let alice = world.login("alice", "alice").await.unwrap();
    let take_and_give_back = async || {
        world.revoke_alice(&root).await;
        let request = auth::Request::UserGrantRole { user: "alice".to_owned(), role: "alice".to_owned() };
        world.backend.set_late(Command::Auth(request));
    };
    let read = pb::RangeRequest { serializable: true, ..range("a", "") };
    let txn = |op| {
        let success = vec![pb::RequestOp { request: Some(op) }];
        of(&alice, pb::TxnRequest { success, ..Default::default() })
    };
    take_and_give_back().await;
    // Copies that come and go make such a read linearizable.
    if world.proxies.is_empty() {
        refused(world.kv().range(of(&alice, read.clone())).await, Code::PermissionDenied, DENIED);
    }
    world.kv().range(of(&alice, range("a", ""))).await.expect("a linearizable read");
    world.kv().range(of(&alice, read)).await.expect("it is known here now");

    take_and_give_back().await;
    world.put_as(&alice, "a", "1").await.expect("a put");
    take_and_give_back().await;
    world.kv().txn(txn(pb::request_op::Request::RequestRange(range("a", "")))).await.expect("a transaction that reads");
    take_and_give_back().await;
    world.kv().txn(txn(pb::request_op::Request::RequestPut(put("a", "2")))).await.expect("and one that writes");
    take_and_give_back().await;
    let mut stream = world.kv().range_stream(of(&alice, range("a", ""))).await.expect("a stream").into_inner();
    assert!(stream.message().await.expect("allowed").is_some());

    // Until it is known whether there is one, there is no answer.
    take_and_give_back().await;
    world.backend.set_leader(None);
    refused(world.kv().range(of(&alice, range("a", ""))).await, Code::Unavailable, "etcdserver: request timed out");
}

#[tokio::test]
async fn etcd_15814_keys_of_a_lease_are_told_to_those_who_may_read_them() {
    let world = world().await;
    let root = world.enable_auth().await;
    let alice = world.login("alice", "alice").await.unwrap();
    let mut lease = LeaseClient::new(world.channel.clone());
    for (id, key) in [(1, "a"), (2, "b")] {
        lease.lease_grant(of(&root, pb::LeaseGrantRequest { id, ttl: 60 })).await.unwrap();
        world.kv().put(of(&root, pb::PutRequest { lease: id, ..put(key, "") })).await.unwrap();
    }
    let left = |id, keys| pb::LeaseTimeToLiveRequest { id, keys };
    let told = lease.lease_time_to_live(of(&alice, left(1, true))).await.unwrap().into_inner();
    assert_eq!(told.keys, [b("a")]);
    refused(lease.lease_time_to_live(of(&alice, left(2, true))).await, Code::PermissionDenied, DENIED);
    let told = lease.lease_time_to_live(of(&alice, left(2, false))).await.unwrap().into_inner();
    assert_eq!((told.granted_ttl, told.keys), (60, vec![]));
}

#[tokio::test]
async fn a_watch_needs_its_whole_range_and_ends_with_the_permission() {
    let world = world().await;
    let root = world.enable_auth().await;
    let alice = world.login("alice", "alice").await.unwrap();
    let reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    for (token, reason) in [
        (&*alice, reason),
        ("", "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"),
        ("nonsense", "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"),
    ] {
        let (_requests, mut stream) = world.watch_as(token, "a", "\0").await;
        let refusal = next(&mut stream).await;
        assert_eq!((refusal.watch_id, refusal.created, refusal.canceled), (-1, true, true));
        assert_eq!(refusal.cancel_reason, reason);
    }
    let (_requests, mut stream) = world.watch_as(&alice, "a", "b").await;
    assert!(next(&mut stream).await.created);
    let (_requests_of_root, mut all) = world.watch_as(&root, "\0", "\0").await;
    assert!(next(&mut all).await.created);
    world.put_as(&root, "a1", "1").await.unwrap();
    assert_eq!(next(&mut stream).await.events.len(), 1);

    world.revoke_alice(&root).await;
    world.put_as(&root, "a1", "secret").await.unwrap();
    let last = next(&mut stream).await;
    assert!(last.canceled && last.events.is_empty(), "nothing of what came after: {last:?}");
    assert_eq!((last.watch_id, &*last.cancel_reason), (0, reason));
    for _ in 0..2 {
        assert_eq!(next(&mut all).await.events.len(), 1, "the others go on");
    }
}

#[tokio::test]
async fn a_silent_watch_is_told_as_well() {
    let world = world().await;
    let root = world.enable_auth().await;
    let alice = world.login("alice", "alice").await.unwrap();
    let (_requests, mut stream) = world.watch_as(&alice, "a", "b").await;
    assert!(next(&mut stream).await.created);
    // Those who have said all that they have to say are no exception.
    let (requests, mut other) = world.watch_as(&alice, "a", "b").await;
    drop(requests);
    assert!(next(&mut other).await.created);
    world.revoke_alice(&root).await;
    assert!(next(&mut stream).await.canceled && next(&mut other).await.canceled);
}

#[tokio::test]
async fn a_watch_of_a_time_when_nobody_was_asked_ends_with_it() {
    let world = world().await;
    let (_requests, mut stream) = world.watch_as("", "a", "b").await;
    assert!(next(&mut stream).await.created);
    world.put("a", "1").await;
    assert_eq!(next(&mut stream).await.events.len(), 1);
    let root = world.enable_auth().await;
    world.put_as(&root, "a", "2").await.unwrap();
    assert!(next(&mut stream).await.canceled);
}
