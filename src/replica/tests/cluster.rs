//! Several members: replication, forwarding, failover, snapshots, membership.

use super::{eventually, get, network::Cluster, put};
use crate::{
    auth::Author,
    engine::{Batch, Home, Table},
    machine::{Command, Compare, CompareResult, CompareTarget, Op, Put, Reply, Txn},
    membership::{Change, Member},
    pb::{etcdserverpb::WatchResponse, mvccpb::KeyValue},
    replica::Handle,
    types::{Error, Index, Key, KeyRange, LeaseId, MemberId, Revision},
    watch::{Control, Deliveries, Delivery, Turn, WatchSpec},
};
use bytes::Bytes;
use prost::Message;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_member_takes_writes_and_sees_those_of_all_others() {
    let cluster = Cluster::start(3);
    for at in 0..3 {
        cluster.at(at).propose(put(&format!("key{at}"), "x")).await.expect("a quorum");
    }
    for at in 0..3 {
        for key in 0..3 {
            assert_eq!(get(cluster.at(at), &format!("key{key}")).await.as_deref(), Some(&b"x"[..]), "{key} at {at}");
        }
        let members = cluster.at(at).view().members();
        assert_eq!(members.len(), 3);
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_leader_costs_no_call_more_than_a_wait() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let other = (leader + 1) % 3;
    let writer = cluster.at(other).clone();
    let writes = tokio::spawn(async move {
        for number in 0..300 {
            writer.propose(put(&format!("w{number}"), "x")).await.expect("the write is tried again by itself");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    cluster.network.isolate(cluster.at(leader).member_id(), true);
    writes.await.expect("all writes succeed");
    let successor = cluster.leader_besides(Some(leader)).await;
    assert_ne!(successor, leader);
    // It learns that it leads no more, and what was written without it.
    cluster.network.isolate(cluster.at(leader).member_id(), false);
    assert_eq!(get(cluster.at(leader), "w299").await.as_deref(), Some(&b"x"[..]));
    // Each was applied once, whoever had to be asked twice.
    assert_eq!(cluster.at(other).reader().current().0, 301);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_a_quorum_answers_in_bounded_time() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    cluster.network.isolate(cluster.at(leader).member_id(), true);
    let answer = tokio::time::timeout(Duration::from_secs(20), cluster.at(leader).propose(put("a", "1"))).await;
    let error = answer.expect("in bounded time").expect_err("nobody agrees");
    assert!(
        matches!(error, Error::Timeout | Error::TimeoutDueToConnectionLost | Error::TimeoutDueToLeaderFail),
        "{error:?}"
    );
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lead_is_handed_over_at_once_and_to_voters_only() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let to = cluster.at((leader + 1) % 3).member_id();
    let term = cluster.at(leader).term();
    assert_eq!(cluster.at(leader).move_leader(MemberId(1)).await, Err(Error::BadLeaderTransferee));
    assert_eq!(cluster.at((leader + 1) % 3).move_leader(to).await, Err(Error::NotLeader));
    cluster.at(leader).move_leader(to).await.expect("it is up to date");
    assert_eq!(cluster.at((leader + 1) % 3).term(), term.next());
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lacks_what_was_released_gets_a_snapshot_and_goes_on() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let late = (leader + 1) % 3;
    let mut watched = Watched::from_now(cluster.at(late));
    cluster.network.isolate(cluster.at(late).member_id(), true);
    for number in 0..100 {
        cluster.at(leader).propose(put(&format!("k{number:03}"), &"v".repeat(100))).await.expect("a quorum");
    }
    eventually(|| (cluster.at(leader).status().first_index > Index(60)).then_some(())).await;
    cluster.network.breaks_snapshots.store(true, Ordering::Relaxed);
    cluster.network.isolate(cluster.at(late).member_id(), false);
    eventually(|| (cluster.at(late).reader().current().0 >= 101).then_some(())).await;
    assert_eq!(get(cluster.at(late), "k099").await.map(|value| value.len()), Some(100));
    // The new state can be read a moment before it is all taken over; a call in between does not hear what has become of it.
    while let Err(error) = cluster.at(late).propose(put("after", "1")).await {
        assert_eq!(error, Error::LeaderChanged);
    }
    let events = cluster.at(late).reader().current().0 as usize - 1;
    assert_eq!(cluster.at(late).view().state_hash(), {
        let wanted = cluster.at(late).view().state_hash().0;
        eventually(|| Some(cluster.at(leader).view().state_hash()).filter(|(index, _)| *index == wanted)).await
    });
    // Its watchers have missed nothing.
    let mut seen = Vec::new();
    while seen.len() < events {
        seen.extend(watched.next().await);
    }
    assert_eq!(seen, (2..).take(seen.len()).collect::<Vec<_>>());
    cluster.restart(late).await;
    assert_eq!(get(cluster.at(late), "after").await.as_deref(), Some(&b"1"[..]));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_catches_up_is_promoted_and_another_one_leaves() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    for number in 0..50 {
        cluster.at(leader).propose(put(&format!("k{number}"), "v")).await.expect("a quorum");
    }
    let id = MemberId(77);
    let newcomer = Member { id, peer_urls: vec!["http://10.0.0.4:2380".into()], is_learner: true, ..Member::default() };
    let follower = (leader + 1) % 3;
    let added = cluster.at(follower).change_members(Change::Add(newcomer)).await.expect("a quorum");
    assert!(matches!(added.result, Ok(Reply::Members(members)) if members.len() == 4));
    assert_eq!(cluster.at(follower).learner_is_ready(id).await, Ok(false), "it is not even started");
    cluster.join(4, id);
    eventually(|| cluster.at(3).is_learner().then_some(())).await;
    let ready = async {
        while cluster.at(follower).learner_is_ready(id).await != Ok(true) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ready).await.expect("it catches up");
    let promoted = cluster.at(leader).change_members(Change::Promote(id)).await.expect("a quorum");
    assert!(promoted.result.is_ok());
    eventually(|| (!cluster.at(3).is_learner()).then_some(())).await;
    assert_eq!(get(cluster.at(3), "k49").await.as_deref(), Some(&b"v"[..]));
    // The leader itself leaves; the others go on.
    let leaving = cluster.at(leader).member_id();
    cluster.at(follower).change_members(Change::Remove(leaving)).await.expect("a quorum").result.expect("a member");
    eventually(|| cluster.at(leader).removed().borrow().then_some(())).await;
    cluster.leader_besides(Some(leader)).await;
    cluster.at(follower).propose(put("after", "1")).await.expect("a quorum of those who stay");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_renewed_through_any_member_and_end_everywhere() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let granted = cluster.at(follower).lease_grant(&Author::Member, LeaseId::NONE, 1).await.expect("a quorum");
    let Ok(Reply::LeaseGrant { id, ttl_s: 1 }) = granted.result else { panic!("{granted:?}") };
    let leased = Put { key: Key::from("a".to_owned()), lease: id, ..Put::default() };
    cluster.at(follower).propose(Command::Put(leased)).await.expect("a quorum");
    for at in 0..3 {
        assert_eq!(cluster.at(at).lease_keep_alive(vec![id]).await, Ok(vec![Some(1)]), "through {at}");
        assert_eq!(cluster.at(at).lease_keep_alive(vec![LeaseId(1)]).await, Ok(vec![None]), "through {at}");
    }
    eventually(|| (0..3).all(|at| !cluster.at(at).view().has_lease(id)).then_some(())).await;
    assert_eq!(get(cluster.at(follower), "a").await, None);
    cluster.end().await;
}

/// A watcher of all keys from now on.
struct Watched {
    deliveries: Deliveries,
    _control: Control,
}

impl Watched {
    fn from_now(handle: &Handle) -> Watched {
        let (control, deliveries) = handle.hub().open();
        let spec = WatchSpec {
            id: None,
            range: KeyRange::From(Key::new()),
            start: Revision(0),
            no_put: false,
            no_delete: false,
            prev_kv: false,
            fragment: false,
            progress_notify: false,
        };
        control.create(spec).expect("a watcher");
        Watched { deliveries, _control: control }
    }

    /// Revisions of the next events.
    async fn next(&mut self) -> Vec<i64> {
        match std::future::poll_fn(|context| self.deliveries.poll(context)).await {
            Turn::Deliver(Delivery::Events { events, .. }) => {
                let reply = WatchResponse::decode(Bytes::from(events.concat())).expect("the field of a reply");
                reply.events.into_iter().filter_map(|event| event.kv).map(|kv| kv.mod_revision).collect()
            }
            Turn::Deliver(_) => Vec::new(),
            Turn::Read(job) => {
                let done = tokio::task::spawn_blocking(|| job.run()).await.expect("it reads");
                self.deliveries.caught(done).expect("a sound store");
                Vec::new()
            }
        }
    }
}

/// Gives a stored version another value, as no member ever would.
fn falsify(handle: &Handle, key: &str, revision: i64, value: &str) {
    let kv = KeyValue {
        key: Bytes::from(key.to_owned()),
        value: Bytes::from(value.to_owned()),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease: 0,
    };
    let row = [&revision.to_be_bytes()[..], b"_", &[0; 8]].concat();
    let engine = handle.view().engine();
    assert!(engine.get(Table::Versions, &row).expect("a sound store").is_some(), "it is stored there");
    let mut batch = Batch::default();
    batch.put(Table::Versions, row, kv.encode_to_vec());
    engine.write(batch).expect("a sound store");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_state_differs_is_found_out_and_refilled() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let odd = (leader + 1) % 3;
    let written = cluster.at(leader).propose(put("a", "true")).await.expect("a quorum").revision;
    assert_eq!(get(cluster.at(odd), "a").await.as_deref(), Some(&b"true"[..]));
    falsify(cluster.at(odd), "a", written.0, "false");
    let is_true = Compare {
        range: KeyRange::One(Key::from("a".to_owned())),
        target: CompareTarget::Value(Bytes::from("true")),
        result: CompareResult::Equal,
    };
    let branch = |value: &'static str| match put("b", value) {
        Command::Put(put) => vec![Op::Put(put)],
        _ => unreachable!("a put"),
    };
    let txn = Txn { compares: vec![is_true], success: branch("right"), failure: branch("wrong") };
    cluster.at(leader).propose(Command::Txn(txn)).await.expect("a quorum");
    let mut was_quarantined = false;
    eventually(|| {
        was_quarantined |= cluster.at(odd).is_quarantined();
        (was_quarantined && !cluster.at(odd).is_quarantined()).then_some(())
    })
    .await;
    assert_eq!(get(cluster.at(odd), "a").await.as_deref(), Some(&b"true"[..]));
    assert_eq!(get(cluster.at(odd), "b").await.as_deref(), Some(&b"right"[..]));
    cluster.at(odd).propose(put("c", "1")).await.expect("it takes part again");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_make_a_contradicted_state_right() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    cluster.at(leader).propose(put("a", "1")).await.expect("a quorum");
    // Nobody can send it another state.
    let id = cluster.at(leader).member_id();
    cluster.network.isolate(id, true);
    cluster.at(leader).shared.quarantine();
    let home = Arc::clone(&cluster.members[leader].home);
    eventually(|| home.is_distrusted().expect("a sound home").then_some(())).await;
    cluster.restart(leader).await;
    assert!(cluster.at(leader).is_quarantined());
    cluster.network.isolate(id, false);
    eventually(|| (!cluster.at(leader).is_quarantined()).then_some(())).await;
    assert!(!cluster.members[leader].home.is_distrusted().expect("a sound home"));
    cluster.at(leader).propose(put("b", "1")).await.expect("it takes part again");
    cluster.end().await;
}
