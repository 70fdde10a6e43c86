//! Three members survive what one would not: real processes, on loopback.
#![cfg(feature = "ctl")]

mod common;

use common::{Cluster, PATIENCE, Server, eventually};
use henge::{
    client::{Client, Error, GetOptions, PutOptions},
    types::Error as Refusal,
};
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// Changes of membership without waiting until connections have settled: that rule has tests of its own.
const LAX: &[&str] = &["--strict-reconfig-check=false"];

async fn put(client: &Client, key: &str, value: &str) -> Result<i64, Error> {
    let reply = client.put(key.to_owned(), value.to_owned(), PutOptions::default()).await?;
    Ok(reply.header.map_or(0, |header| header.revision))
}

async fn get(client: &Client, key: &str) -> Result<Option<String>, Error> {
    let reply = client.get(key.to_owned(), GetOptions::default()).await?;
    Ok(reply.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn what_is_written_through_one_member_is_read_through_every_other() {
    let cluster = Cluster::start(3);
    for writer in 0..3 {
        let key = format!("by/{writer}");
        let revision = cluster.ask_of(&[writer], async |client| put(&client, &key, "here").await).expect("a put");
        for reader in 0..3 {
            let read = cluster.ask_of(&[reader], async |client| client.get(key.clone(), GetOptions::default()).await);
            let read = read.expect("a get");
            assert_eq!(read.kvs[0].mod_revision, revision, "written by {writer}, read by {reader}");
        }
    }
    let members = cluster.list();
    assert!(members.iter().all(|member| !member.is_learner && !member.name.is_empty()), "{members:?}");
}

#[test]
fn the_service_outlives_its_leader() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader(&[0, 1, 2]);
    cluster.ask(async |client| put(&client, "before", "1").await).expect("a put");
    cluster.members[leader].kill();
    let others = (0..3).filter(|at| *at != leader).collect::<Vec<_>>();
    let next = cluster.leader(&others);
    assert_ne!(next, leader);
    let read = cluster.ask_of(&others, async |client| {
        put(&client, "after", "2").await?;
        get(&client, "before").await
    });
    assert_eq!(read.expect("the two serve").as_deref(), Some("1"), "nothing that was acknowledged is lost");
    cluster.members[leader].restart();
    let read = cluster.ask_of(&[leader], async |client| get(&client, "after").await).expect("it serves again");
    assert_eq!(read.as_deref(), Some("2"));
}

#[test]
fn without_a_quorum_nothing_is_acknowledged() {
    let mut cluster = Cluster::start_with(3, &["--max-txn-ops=7"]);
    cluster.members[1].kill();
    cluster.members[2].kill();
    let refused = cluster.ask_of(&[0], async |client| {
        Ok(tokio::time::timeout(Duration::from_secs(5), client.member_add(["http://127.0.0.1:1"])).await)
    });
    let refused = refused.expect("it was tried").expect("by what is known, before any time runs out");
    assert!(refused.expect_err("nobody agrees").is(&Refusal::Unhealthy), "another reason");
    let alone = cluster.ask_of(&[0], async |client| {
        let patience = Duration::from_secs(2);
        Ok(tokio::time::timeout(patience, put(&client, "k", "v")).await.map(|done| done.is_ok()).unwrap_or(false))
    });
    assert!(!alone.expect("it was tried"), "one of three has acknowledged a write");
    cluster.members[1].restart();
    eventually("two of three serve", || cluster.ask_of(&[1], async |client| put(&client, "k", "w").await).ok());
}

#[test]
fn a_learner_is_added_started_promoted_and_removed() {
    let mut cluster = Cluster::start_with(3, LAX);
    cluster.ask(async |client| put(&client, "k", "v").await).expect("a put");
    let peer = Cluster::free_peer_url();
    let id = cluster.ask(async |client| client.member_add_as_learner([peer.clone()]).await).expect("added");
    let id = id.member.expect("the new member").id;
    let early = cluster.ask(async |client| client.member_promote(id).await).expect_err("it has not started");
    assert!(early.is(&Refusal::LearnerNotReady), "{early}");

    let at = cluster.join(&peer);
    eventually("the learner knows that it is one", || cluster.status(at).filter(|status| status.is_learner));
    let refused = cluster.ask_of(&[at], async |client| put(&client, "k", "w").await).expect_err("it is a learner");
    assert!(refused.is(&Refusal::NotSupportedForLearner), "{refused}");
    let stale = GetOptions { serializable: true, ..GetOptions::default() };
    eventually("the learner has the data", || {
        let read = cluster.ask_of(&[at], async |client| client.get("k", stale.clone()).await).ok()?;
        (read.count == 1).then_some(())
    });

    eventually("it is ready", || cluster.ask(async |client| client.member_promote(id).await).ok());
    cluster.members[at].wait_until_it_serves();
    cluster.ask_of(&[at], async |client| put(&client, "k", "x").await).expect("it is a voter now");

    cluster.ask_of(&[0, 1, 2], async |client| client.member_remove(id).await).expect("removed");
    eventually("the removed member ends", || (!cluster.members[at].is_alive()).then_some(()));
    let log = cluster.members[at].log();
    assert!(log.contains("removed"), "it does not say why it ended: {log}");
    assert_eq!(cluster.list().len(), 3);
    let again = cluster.ask(async |client| client.member_remove(id).await).expect_err("it is gone");
    assert!(again.is(&Refusal::MemberNotFound), "{again}");
}

#[test]
fn auto_promote_gives_a_learner_its_vote() {
    let mut cluster = Cluster::start_with(3, &["--strict-reconfig-check=false", "--auto-promote"]);
    let peer = Cluster::free_peer_url();
    cluster.ask(async |client| client.member_add_as_learner([peer.clone()]).await).expect("added");
    cluster.join(&peer);
    eventually("nobody learns any more", || {
        let members = cluster.list();
        (members.len() == 4 && members.iter().all(|member| !member.is_learner)).then_some(())
    });
}

#[test]
fn a_change_that_could_cost_the_quorum_is_refused() {
    let mut cluster = Cluster::start(3);
    let new = Cluster::free_peer_url();
    cluster.members[2].kill();
    // The one that is down may have led: until there is a leader again, the answer is another one.
    eventually("a voter may not join while one is down", || {
        let added = cluster.ask_of(&[0], async |client| client.member_add([new.clone()]).await);
        added.expect_err("one is down").is(&Refusal::Unhealthy).then_some(())
    });
    let id = cluster.id(1);
    let leaving = cluster.ask_of(&[0], async |client| client.member_remove(id).await).expect_err("one is down");
    assert!(leaving.is(&Refusal::Unhealthy), "{leaving}");
    let bad = cluster.ask_of(&[0], async |client| client.member_add(["nonsense"]).await).expect_err("no URL");
    assert!(bad.is(&Refusal::MemberBadURLs), "{bad}");
    // A learner costs nothing, once the two that are left have been connected for a while.
    eventually("a learner may join", || {
        cluster.ask_of(&[0], async |client| client.member_add_as_learner([new.clone()]).await).ok()
    });
    let taken = cluster.ask_of(&[0], async |client| client.member_add_as_learner([new.clone()]).await);
    assert!(taken.expect_err("the URL is taken").is(&Refusal::PeerURLExist));
    let one_more = Cluster::free_peer_url();
    let second = cluster.ask_of(&[0], async |client| client.member_add_as_learner([one_more.clone()]).await);
    assert!(second.expect_err("one learner is there").is(&Refusal::TooManyLearners));
}

#[test]
fn a_member_that_lost_its_disk_is_added_anew() {
    let mut cluster = Cluster::start_with(3, LAX);
    for number in 0..50 {
        cluster.ask(async |client| put(&client, &format!("k/{number}"), "v").await).expect("a put");
    }
    let (lost, id) = (2, cluster.id(2));
    cluster.members[lost].kill();
    cluster.ask_of(&[0, 1], async |client| client.member_remove(id).await).expect("removed");
    let peer = Cluster::free_peer_url();
    cluster.ask_of(&[0, 1], async |client| client.member_add([peer.clone()]).await).expect("added");
    let at = cluster.join(&peer);
    cluster.members[at].wait_until_it_serves();
    let prefix = GetOptions { serializable: true, count_only: true, ..GetOptions::prefix("k/") };
    let read = cluster.ask_of(&[at], async |client| client.get("k/", prefix).await).expect("a get");
    assert_eq!(read.count, 50);
    assert_ne!(cluster.id(at), id, "an id never comes back");
}

#[test]
fn member_replace_does_the_whole_dance_and_can_be_run_again() {
    let mut cluster = Cluster::start_with(3, LAX);
    cluster.ask(async |client| put(&client, "k", "v").await).expect("a put");
    let old = cluster.leader(&[0, 1, 2]);
    let (old_id, peer) = (cluster.id(old), Cluster::free_peer_url());
    let words = format!("member replace {old_id:x} {peer} --name m3");

    // The first run is interrupted while it waits for the new member.
    let mut first = cluster.hengectl_command(&words).stdout(Stdio::piped()).spawn().expect("hengectl runs");
    let lines = BufReader::new(first.stdout.take().expect("its output")).lines();
    let told = lines.map_while(Result::ok).find(|line| line.starts_with("ETCD_INITIAL_CLUSTER="));
    first.kill().expect("it is interrupted");
    first.wait().expect("it is gone");
    assert!(told.expect("it says how to start the new member").contains(&format!("m3={peer}")));

    let at = cluster.join(&peer);
    let second = cluster.hengectl(&words);
    let said = text(&second.stdout);
    assert!(second.status.success(), "{said}{}", text(&second.stderr));
    assert!(!said.contains("added as learner"), "it was added before: {said}");
    assert!(said.contains("has caught up and has a vote") && said.contains("has taken the place of"), "{said}");
    let members = cluster.list();
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|member| member.id != old_id && !member.is_learner), "{members:?}");
    eventually("the old member ends", || (!cluster.members[old].is_alive()).then_some(()));
    let read = cluster.ask_of(&[at], async |client| get(&client, "k").await).expect("the new one serves");
    assert_eq!(read.as_deref(), Some("v"));

    let third = cluster.hengectl(&words);
    assert!(third.status.success(), "there is nothing left to do: {}", text(&third.stderr));
}

#[test]
fn force_new_cluster_makes_a_cluster_of_the_one_that_is_left() {
    let mut cluster = Cluster::start_with(3, LAX);
    cluster.ask(async |client| put(&client, "k", "v").await).expect("a put");
    let id = cluster.id(0);
    eventually("the first one has it", || {
        let stale = GetOptions { serializable: true, ..GetOptions::default() };
        cluster.ask_of(&[0], async |client| client.get("k", stale).await).ok().filter(|read| read.count == 1)
    });
    for member in &mut cluster.members {
        member.kill();
    }
    cluster.members[0].restart_with(&["--force-new-cluster"]);
    let members = cluster.ask_of(&[0], async |client| client.member_list(true).await).expect("a list").members;
    assert_eq!(members.iter().map(|member| member.id).collect::<Vec<_>>(), [id]);
    let read = cluster.ask_of(&[0], async |client| {
        put(&client, "alone", "1").await?;
        get(&client, "k").await
    });
    assert_eq!(read.expect("it serves alone").as_deref(), Some("v"));
    // Once is enough: it stays alone, and grows again like any other.
    cluster.members[0].kill();
    cluster.members[0].restart();
    let peer = Cluster::free_peer_url();
    cluster.ask_of(&[0], async |client| client.member_add([peer.clone()]).await).expect("added");
    let at = cluster.join(&peer);
    cluster.members[at].wait_until_it_serves();
    let read = cluster.ask_of(&[at], async |client| get(&client, "alone").await).expect("a get");
    assert_eq!(read.as_deref(), Some("1"));
}

#[test]
fn a_member_that_hangs_holds_nobody_up_for_long() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader(&[0, 1, 2]);
    cluster.ask(async |client| put(&client, "k", "v").await).expect("a put");
    cluster.members[leader].pause();
    let others = (0..3).filter(|at| *at != leader).collect::<Vec<_>>();
    cluster.leader(&others);
    let done = cluster.ask_of(&others, async |client| put(&client, "k", "w").await);
    assert!(done.is_ok(), "{done:?}");
    cluster.members[leader].resume();
    // Whoever led once must not answer with what it knew then.
    let read = cluster.ask_of(&[leader], async |client| get(&client, "k").await).expect("a get");
    assert_eq!(read.as_deref(), Some("w"));
}

#[test]
fn the_lead_moves_where_it_is_sent() {
    let cluster = Cluster::start(3);
    let from = cluster.leader(&[0, 1, 2]);
    let to = (from + 1) % 3;
    let (from_id, to_id) = (cluster.id(from), cluster.id(to));
    let moved = cluster.hengectl(&format!("move-leader {to_id:x}"));
    assert_eq!(text(&moved.stdout), format!("Leadership transferred from {from_id:x} to {to_id:x}\n"));
    assert_eq!(cluster.leader(&[0, 1, 2]), to);
    let not_leader = cluster.ask_of(&[from], async |client| client.move_leader(from_id).await);
    assert!(not_leader.expect_err("it does not lead any more").is(&Refusal::NotLeader));
    let nobody = cluster.hengectl("move-leader 77");
    assert_eq!(nobody.status.code(), Some(1));
    assert_eq!(text(&nobody.stderr), "Error: etcdserver: bad leader transferee\n");
}

/// Calls that failed twice in a row, and the longest time between two that succeeded.
async fn load(client: Client, ends: Arc<AtomicBool>, writes: bool, done: Arc<AtomicUsize>) -> (Vec<Error>, Duration) {
    let (mut failed, mut longest, mut last) = (Vec::new(), Duration::ZERO, Instant::now());
    while !ends.load(SeqCst) {
        let call = async || match writes {
            true => put(&client, "load", "v").await.map(|_| ()),
            false => get(&client, "load").await.map(|_| ()),
        };
        // A caller may repeat a put that is the same each time.
        let outcome = match call().await {
            Ok(()) => Ok(()),
            Err(_) => call().await,
        };
        match outcome {
            Ok(()) => {
                longest = longest.max(last.elapsed());
                last = Instant::now();
                done.fetch_add(1, SeqCst);
            }
            Err(error) => failed.push(error),
        }
    }
    (failed, longest)
}

#[test]
fn a_rolling_restart_under_load_fails_no_call_beyond_a_retry() {
    let mut cluster = Cluster::start(3);
    let (ends, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let loads = [true, false, true, false]
        .map(|writes| cluster.runtime().spawn(load(cluster.client(), Arc::clone(&ends), writes, Arc::clone(&done))));
    for at in 0..3 {
        let before = done.load(SeqCst);
        assert!(cluster.members[at].stop().success(), "{}", cluster.members[at].log());
        cluster.members[at].restart();
        eventually("calls go on", || (done.load(SeqCst) > before + 20).then_some(()));
    }
    ends.store(true, SeqCst);
    for load in loads {
        let (failed, longest) = cluster.runtime().block_on(load).expect("the load ends");
        assert!(failed.is_empty(), "{failed:?}");
        assert!(longest < PATIENCE / 10, "a gap of {longest:?}");
    }
}

#[test]
fn hengectl_speaks_of_every_member() {
    let cluster = Cluster::start(3);
    cluster.ask(async |client| put(&client, "k", "v").await).expect("a put");
    let lines = |words: &str| {
        let output = cluster.hengectl(words);
        assert!(output.status.success(), "{words}: {}", text(&output.stderr));
        text(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let status = lines("endpoint status --cluster");
    assert_eq!(status.len(), 3);
    assert_eq!(
        status.iter().filter(|line| line.split(", ").nth(8) == Some("true")).count(),
        1,
        "one leads: {status:?}"
    );
    assert_eq!(lines("endpoint health --cluster").len(), 3);
    let hashes = lines("endpoint hashkv --cluster");
    let hash = |line: &String| line.split_once(", ").expect("columns").1.to_owned();
    assert!(hashes.len() == 3 && hashes.iter().all(|line| hash(line) == hash(&hashes[0])), "{hashes:?}");
    let members = lines("member list");
    assert_eq!(members.len(), 3);
    for (at, server) in cluster.members.iter().enumerate() {
        let row = members.iter().find(|line| line.contains(&format!(", started, m{at}, "))).expect("its row");
        assert!(row.contains(server.url()) && row.ends_with(", false"), "{row}");
    }
    assert_eq!(lines("downgrade validate 3.6"), ["Downgrade validate success, cluster version 3.7"]);
    let bad = cluster.hengectl("downgrade enable 3.5");
    assert_eq!(text(&bad.stderr), "Error: etcdserver: invalid downgrade target version\n");
}

#[test]
fn a_full_store_takes_puts_again_by_itself_once_there_is_space() {
    let server = Server::start_with(&["--quota-backend-bytes", "2000000"]);
    let value = "x".repeat(100_000);
    let full = (0..100).find_map(|number| server.try_put(&format!("k/{number}"), &value).err());
    assert_eq!(full.expect("it fills up"), Refusal::NoSpace.text());
    for number in 0..100 {
        server.delete(&format!("k/{number}"));
    }
    server.compact(server.revision());
    eventually("puts are taken again", || server.try_put("again", "v").ok());
    // The line may come after the put.
    eventually("it says so", || server.log().contains("the NOSPACE alarm of this member is cleared").then_some(()));
}
