//! The client against services over loopback, with a machine but without consensus behind them.

use super::*;
use crate::{
    pb::etcdserverpb::downgrade_request::DowngradeAction,
    server::tests::{ME, World, world},
    types::{Error as Refusal, MemberId},
};

async fn client(worlds: &[&World]) -> Client {
    Client::connect(worlds.iter().map(|world| world.url.as_str()), ConnectOptions::default()).await.expect("a client")
}

/// Makes the client ask `world` next.
fn turn_to(client: &Client, world: &World) {
    while client.endpoints().address(client.endpoints().pick().0) != world.url {
        client.endpoints().leave(client.endpoints().pick().0);
    }
}

#[tokio::test]
async fn a_learner_is_passed_over() {
    let (learner, voter) = (world().await, world().await);
    learner.backend.set_learner(true);
    let client = client(&[&learner, &voter]).await;
    turn_to(&client, &learner);
    client.put("k", "v", PutOptions::default()).await.expect("a put");
    turn_to(&client, &learner);
    assert_eq!(client.get("k", GetOptions::default()).await.expect("a get").count, 1);
    turn_to(&client, &learner);
    let mut watcher = client.watch("k", WatchOptions { start_revision: 2, ..WatchOptions::default() });
    while watcher.next().await.expect("an answer").expect("no error").events.is_empty() {}
}

#[tokio::test]
async fn what_every_member_refuses_is_refused() {
    let (one, other) = (world().await, world().await);
    for world in [&one, &other] {
        world.backend.set_learner(true);
    }
    for worlds in [&[&one][..], &[&one, &other]] {
        let error = client(worlds).await.put("k", "v", PutOptions::default()).await.expect_err("only learners");
        assert!(error.is(&Refusal::NotSupportedForLearner), "{error}");
    }
}

#[tokio::test]
async fn the_leader_is_found_to_hand_the_lead_over() {
    let (follower, leader) = (world().await, world().await);
    follower.backend.set_leader(Some(MemberId(7)));
    let client = client(&[&follower, &leader]).await;
    turn_to(&client, &follower);
    client.move_leader(ME.0).await.expect("the leader does it");
    let error = client.move_leader(99).await.expect_err("nobody has this id");
    assert!(error.is(&Refusal::BadLeaderTransferee), "{error}");
}

#[tokio::test]
async fn endpoints_follow_the_members() {
    let world = world().await;
    let client = client(&[&world]).await;
    client.member_add_as_learner(["http://127.0.0.1:12380"]).await.expect("a learner");
    client.sync_endpoints().await.expect("the members are told");
    assert_eq!(
        client.endpoints().addresses(),
        ["http://localhost:2379"],
        "the learner, which has not started, is left out"
    );
}

#[tokio::test]
async fn members_come_and_go() {
    let world = world().await;
    let client = client(&[&world]).await;
    let id = client.member_add_as_learner(["http://127.0.0.1:12380"]).await.expect("added").member.expect("it").id;
    client.member_update(id, ["http://127.0.0.1:12381"]).await.expect("updated");
    client.member_promote(id).await.expect("promoted");
    let members = client.member_list(true).await.expect("a list").members;
    let it = members.iter().find(|member| member.id == id).expect("the new one");
    assert_eq!((it.is_learner, &it.peer_ur_ls[..]), (false, &["http://127.0.0.1:12381".to_owned()][..]));
    client.member_remove(id).await.expect("removed");
    assert!(client.member_remove(id).await.expect_err("it is gone").is(&Refusal::MemberNotFound));
    let second = client.member_add(["http://127.0.0.1:12382"]).await.expect("added");
    assert!(!second.member.expect("it").is_learner);
    assert_eq!(client.downgrade(DowngradeAction::Validate, "3.6").await.expect("possible").version, "3.7");
}
