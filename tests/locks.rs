//! Locks and elections on real processes: members that are killed under those who hold and wait, proxies, and `hengectl`.
#![cfg(feature = "ctl")]

mod common;

use common::{Cluster, PATIENCE, Proxy, Server, eventually};
use henge::{
    client::{Client, ConnectOptions, Error, GetOptions, Lock, Op, Session, Txn},
    pb::v3lockpb::{LockRequest, lock_client::LockClient},
};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::{task::JoinHandle, time::timeout};
use tonic::{Code, Status};

/// What fences, of a lock that was given by the service.
type Served = JoinHandle<Result<i64, Status>>;

/// Asks the service at `url` for the lock "a".
fn ask(url: &str, lease: i64) -> impl Future<Output = Result<i64, Status>> + use<> {
    let url = url.to_owned();
    async move {
        let channel = Server::channel(&url).await.map_err(Status::unavailable)?;
        let answer = LockClient::new(channel).lock(LockRequest { name: "a".into(), lease }).await?;
        let fence = answer.metadata().get("henge-create-revision").expect("what fences").to_str().expect("text");
        Ok(fence.parse().expect("a number"))
    }
}

/// Keys of those who hold or wait for "a", in the order of their creation.
fn queue(cluster: &Cluster) -> Vec<String> {
    let answer = cluster.ask(async |client| client.get("a/", GetOptions::prefix("a/")).await).expect("an answer");
    let mut kvs = answer.kvs;
    kvs.sort_by_key(|kv| kv.create_revision);
    kvs.into_iter().map(|kv| String::from_utf8(kv.key.to_vec()).expect("text")).collect()
}

fn queued(cluster: &Cluster, count: usize) {
    eventually("so many hold or wait", || (queue(cluster).len() == count).then_some(()));
}

/// Gives a lock back, and waits for the next one to have it.
async fn pass(client: &Client, key: &str, next: Served) -> i64 {
    client.delete(key.to_owned(), Default::default()).await.expect("a delete");
    timeout(PATIENCE, next).await.expect("in time").expect("not aborted").expect("the lock")
}

#[test]
fn a_leader_that_is_killed_costs_no_lock_and_no_place() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client();
    let leases = cluster.ask(async |client| {
        for id in 1..=3 {
            client.lease_grant(60, id).await?;
        }
        Ok([1, 2, 3])
    });
    let leases = leases.expect("leases");
    let session = cluster.runtime().block_on(client.session(60)).expect("a session");
    let held = cluster.runtime().block_on(session.lock("a")).expect("the lock");
    let mut waiting: Vec<Served> = Vec::new();
    for (at, lease) in leases.into_iter().enumerate() {
        waiting.push(cluster.runtime().spawn(ask(cluster.members[at].url(), lease)));
        queued(&cluster, at + 2);
    }
    let library: JoinHandle<Result<Lock, Error>> = cluster.runtime().spawn({
        let session = cluster.runtime().block_on(client.session(60)).expect("a session");
        async move { session.lock("a").await }
    });
    queued(&cluster, 5);
    let before = queue(&cluster);

    let leader = cluster.leader(&[0, 1, 2]);
    cluster.members[leader].kill();
    let (_, others) = (leader, (0..3).filter(|at| *at != leader).collect::<Vec<_>>());
    cluster.leader(&others);
    let lost = std::mem::replace(&mut waiting[leader], cluster.runtime().spawn(async { Ok(0) }));
    let status = cluster.runtime().block_on(lost).expect("not aborted").expect_err("its member is gone");
    assert!(matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled), "{status}");
    // Who asks another member with the same lease has the same place.
    waiting[leader] = cluster.runtime().spawn(ask(cluster.members[others[0]].url(), leases[leader]));
    assert_eq!(queue(&cluster), before);
    assert!(waiting.iter().all(|call| !call.is_finished()) && !library.is_finished());

    cluster.runtime().block_on(async {
        let mut fence = held.fence();
        assert!(held.unlock().await.expect("an answer"), "it was held to the end");
        let mut holder = None;
        for (lease, call) in leases.into_iter().zip(waiting) {
            let next = match holder {
                Some(key) => pass(&client, key, call).await,
                None => timeout(PATIENCE, call).await.expect("in time").expect("not aborted").expect("the lock"),
            };
            assert!(next > fence, "{next} comes after {fence}");
            (fence, holder) = (next, Some(["a/1", "a/2", "a/3"][usize::try_from(lease - 1).expect("small")]));
        }
        client.delete("a/3", Default::default()).await.expect("a delete");
        let last = timeout(PATIENCE, library).await.expect("in time").expect("not aborted").expect("the lock");
        assert!(last.fence() > fence);
    });
}

#[test]
fn what_a_holder_does_too_late_does_not_count() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    cluster.runtime().block_on(async {
        let (one, two) = (client.session(60).await.expect("one"), client.session(60).await.expect("two"));
        let old = one.lock("a").await.expect("the lock");
        let write = async |lock: &Lock, value: &'static str| {
            let txn = Txn::new().when([lock.guard()]).then([Op::put("guarded", value)]);
            client.txn(txn).await.expect("an answer").succeeded
        };
        assert!(write(&old, "first").await);
        assert!(two.try_lock("a").await.expect("an answer").is_none());
        // Its lease ends while it believes to hold the lock.
        let lease = one.lease();
        client.lease_revoke(lease).await.expect("an answer");
        let new = timeout(PATIENCE, two.lock("a")).await.expect("in time").expect("the lock");
        assert!(new.fence() > old.fence());
        assert!(!write(&old, "late").await, "too late");
        assert!(write(&new, "second").await);
        assert!(!old.unlock().await.expect("an answer"), "and it has nothing to give back");
        assert!(write(&new, "third").await);
        assert_eq!(client.get("guarded", GetOptions::default()).await.expect("an answer").kvs[0].value, "third");
    });
}

#[test]
fn who_stops_waiting_in_the_library_leaves_no_key() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    let session = |ttl_s| cluster.runtime().block_on(client.session(ttl_s)).expect("a session");
    let (one, two) = (session(60), session(60));
    let held = cluster.runtime().block_on(one.lock("a")).expect("the lock");
    let again = cluster.runtime().block_on(one.lock("a")).expect("the same lock");
    assert_eq!(again.fence(), held.fence());
    let waiting = cluster.runtime().spawn({
        let two = two.clone();
        async move { two.lock("a").await.map(drop) }
    });
    queued(&cluster, 2);
    waiting.abort();
    queued(&cluster, 1);
    let guard = cluster.runtime().enter();
    drop(again);
    let other = cluster.runtime().block_on(two.try_lock("a")).expect("an answer");
    assert!(other.is_none(), "it is held all the same");
    drop(held);
    queued(&cluster, 0);
    drop(guard);
    // One that is waited for when the session ends.
    let held = cluster.runtime().block_on(one.lock("a")).expect("the lock");
    let waiting = cluster.runtime().spawn({
        let two = two.clone();
        async move { two.lock("a").await.map(drop) }
    });
    queued(&cluster, 2);
    cluster.runtime().block_on(async {
        two.end().await.expect("an answer");
        let error = timeout(PATIENCE, waiting).await.expect("in time").expect("not aborted").expect_err("no session");
        assert_eq!(error, Error::SessionExpired);
        held.unlock().await.expect("an answer");
    });
}

#[test]
fn an_election_is_seen_by_all_who_observe_it() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client();
    let mut observer = client.observe("e");
    let session = async |client: &Client| -> Session { client.session(60).await.expect("a session") };
    let mut one = cluster.runtime().block_on(async {
        assert!(client.leader("e").await.expect("an answer").kvs.is_empty());
        let session = session(&client).await;
        session.campaign("e", "one").await.expect("the lead")
    });
    let told = async |observer: &mut henge::client::Observer| {
        let answer = timeout(PATIENCE, observer.next()).await.expect("in time").expect("an answer");
        String::from_utf8(answer.kvs[0].value.to_vec()).expect("text")
    };
    cluster.runtime().block_on(async {
        assert_eq!(told(&mut observer).await, "one");
        assert!(one.proclaim("more").await.expect("an answer"));
        assert_eq!(told(&mut observer).await, "more");
    });
    let leader = cluster.leader(&[0, 1, 2]);
    cluster.members[leader].kill();
    cluster.runtime().block_on(async {
        let waiting = session(&client).await;
        let two = tokio::spawn(async move { waiting.campaign("e", "two").await });
        let deadline = Instant::now() + PATIENCE;
        while client.get("e/", GetOptions::prefix("e/")).await.expect("an answer").count < 2 {
            assert!(Instant::now() < deadline && !two.is_finished());
        }
        assert!(one.resign().await.expect("an answer"));
        let two = timeout(PATIENCE, two).await.expect("in time").expect("not aborted").expect("the lead");
        assert_eq!(told(&mut observer).await, "two");
        assert_eq!(client.leader("e").await.expect("an answer").kvs[0].create_revision, two.fence());
    });
}

#[test]
fn through_a_proxy_a_client_that_goes_away_is_missed_by_nobody() {
    let cluster = Cluster::start(1);
    let upstream = cluster.members[0].url().to_owned();
    let (near, mut far) = (Proxy::of(&[&upstream]), Proxy::with(&[&upstream], &["--cache-prefix="]));
    let client = cluster.client();
    cluster.runtime().block_on(async {
        for id in 1..=4 {
            client.lease_grant(60, id).await.expect("a lease");
        }
    });
    let first = cluster.runtime().block_on(ask(near.url(), 1)).expect("the lock");
    let leaves = cluster.runtime().spawn(ask(near.url(), 2));
    queued(&cluster, 2);
    let cut = cluster.runtime().spawn(ask(far.url(), 3));
    queued(&cluster, 3);
    // Its library waits by watch, which the proxy answers from its copy.
    let behind = far.client(ConnectOptions::default());
    let session = far.runtime().block_on(behind.session(60)).expect("a session");
    let library = far.runtime().spawn(async move { session.lock("a").await });
    queued(&cluster, 4);

    leaves.abort();
    queued(&cluster, 3);
    cluster.runtime().block_on(client.delete("a/1", Default::default())).expect("a delete");
    let second = cluster.runtime().block_on(cut).expect("not aborted").expect("the lock");
    assert!(second > first);
    cluster.runtime().block_on(client.delete("a/3", Default::default())).expect("a delete");
    let third = far.runtime().block_on(library).expect("not aborted").expect("the lock");
    assert!(third.fence() > second);

    let killed = cluster.runtime().spawn(ask(far.url(), 4));
    queued(&cluster, 2);
    far.kill();
    queued(&cluster, 1);
    assert!(cluster.runtime().block_on(killed).expect("not aborted").is_err());
}

#[test]
fn a_proxy_that_stops_ends_the_waits_at_once() {
    let cluster = Cluster::start(1);
    let mut proxy = Proxy::of(&[cluster.members[0].url()]);
    cluster.runtime().block_on(ask(cluster.members[0].url(), 0)).expect("the lock");
    let waiting = cluster.runtime().spawn(ask(proxy.url(), 0));
    queued(&cluster, 2);
    let began = Instant::now();
    assert!(proxy.stop().success());
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    let status = cluster.runtime().block_on(waiting).expect("not aborted").expect_err("no lock");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: server stopped"));
    queued(&cluster, 1);
}

/// The first line that a process prints.
fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("text");
    line.trim_end().to_owned()
}

fn signal(child: &Child, signal: &str) {
    let told = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill(1)");
    assert!(told.success());
}

#[test]
fn hengectl_holds_a_lock_until_it_is_told_or_killed() {
    let cluster = Cluster::start(1);
    let hold = |words: &str| cluster.hengectl_command(words).stdout(Stdio::piped()).spawn().expect("hengectl runs");
    let mut holder = hold("lock a --ttl 2");
    let key = first_line(&mut holder);
    assert!(key.starts_with("a/"), "{key}");
    let mut next = cluster.hengectl_command("lock a -- sh -c");
    next.arg("echo $ETCD_LOCK_KEY $ETCD_LOCK_REV $HENGE_LOCK_FENCE").stdout(Stdio::piped());
    let next = next.spawn().expect("hengectl runs");
    queued(&cluster, 2);
    signal(&holder, "-KILL");
    holder.wait().expect("gone");
    // After the time to live, which nobody prolongs.
    let output = next.wait_with_output().expect("it ends");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    let words: Vec<&str> = text.split_whitespace().collect();
    let (revision, fence): (i64, i64) = (words[1].parse().expect("a number"), words[2].parse().expect("a number"));
    assert!(words[0].starts_with("a/") && fence < revision, "{text}");
    queued(&cluster, 0);

    let mut holder = hold("lock a");
    first_line(&mut holder);
    let mut waiting = hold("lock a");
    queued(&cluster, 2);
    signal(&waiting, "-INT");
    assert_eq!(waiting.wait().expect("it ends").code(), Some(1));
    queued(&cluster, 1);
    signal(&holder, "-TERM");
    assert_eq!(holder.wait().expect("it ends").code(), Some(0));
    queued(&cluster, 0);
    let leases = cluster.ask(async |client| client.leases().await).expect("an answer").leases;
    assert!(leases.is_empty(), "sessions end with the program: {leases:?}");
}

#[test]
fn hengectl_elects_and_observes() {
    let cluster = Cluster::start(1);
    let run = |words: &str| cluster.hengectl_command(words).stdout(Stdio::piped()).spawn().expect("hengectl runs");
    let mut observer = run("elect -l a");
    let mut leader = run("elect a one");
    assert!(first_line(&mut leader).starts_with("a/"));
    assert!(first_line(&mut observer).starts_with("a/"));
    signal(&observer, "-INT");
    let output = observer.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    signal(&leader, "-INT");
    assert_eq!(leader.wait().expect("it ends").code(), Some(0));
    queued(&cluster, 0);
}
