//! The client library against a real member that is killed under it.

mod common;

use common::Server;
use henge::client::{Client, ConnectOptions, Error, GetOptions, KeeperState, Policy, PutOptions, WatchOptions};
use std::time::Duration;
use tokio::{
    runtime::Runtime,
    task::JoinSet,
    time::{Instant, timeout},
};

const PATIENCE: Duration = Duration::from_secs(30);

async fn client(url: &str) -> Client {
    Client::connect([url], ConnectOptions { request_timeout: Some(PATIENCE), ..ConnectOptions::default() })
        .await
        .expect("a client")
}

#[test]
fn a_watch_sees_each_event_once_although_the_member_is_killed_again_and_again() {
    let mut server = Server::start();
    let runtime = Runtime::new().expect("a runtime");
    let mut watcher = runtime.block_on(async {
        let mut watcher = client(server.url()).await.watch("jobs/", WatchOptions::prefix("jobs/"));
        let created = watcher.next().await.expect("an answer").expect("no error");
        assert!(created.created && created.events.is_empty());
        watcher
    });
    let mut written = Vec::new();
    for round in 0..4 {
        for number in 0..25 {
            let value = format!("{round}-{number}");
            server.put(&format!("jobs/{}", number % 7), &value);
            written.push(value);
        }
        server.kill();
        server.restart();
    }
    let seen = runtime.block_on(async {
        let mut seen: Vec<String> = Vec::new();
        let mut last = 0;
        while seen.len() < written.len() {
            let answer =
                timeout(PATIENCE, watcher.next()).await.expect("in time").expect("an answer").expect("no error");
            for event in answer.events {
                let kv = event.kv.expect("a pair");
                assert!(kv.mod_revision > last, "revision {} after {last}", kv.mod_revision);
                last = kv.mod_revision;
                seen.push(String::from_utf8(kv.value.to_vec()).expect("text"));
            }
        }
        seen
    });
    assert_eq!(seen, written);
}

#[test]
fn a_watch_that_comes_back_below_the_compaction_is_told_so() {
    let server = Server::start();
    for number in 0..10 {
        server.put("key", &number.to_string());
    }
    server.compact(server.revision());
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let options = WatchOptions { start_revision: 3, ..WatchOptions::default() };
        let mut watcher = client(server.url()).await.watch("key", options);
        let error = loop {
            match timeout(PATIENCE, watcher.next()).await.expect("in time").expect("an answer") {
                Ok(answer) => assert!(answer.events.is_empty(), "nothing of it is left: {answer:?}"),
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("compacted"), "{error}");
    });
}

#[test]
fn a_kept_lease_outlives_its_time_and_a_restart_and_a_dropped_one_does_not() {
    let mut server = Server::start();
    let runtime = Runtime::new().expect("a runtime");
    let keeper = runtime.block_on(async {
        let client = client(server.url()).await;
        let lease = client.lease_grant(2, 0).await.expect("a lease").id;
        client.put("held", "by a lease", PutOptions { lease, ..PutOptions::default() }).await.expect("a put");
        client.lease_keeper(lease).await.expect("a keeper")
    });
    let renewed = |at_least: u64| {
        let mut keeper = keeper.clone();
        runtime.block_on(async {
            let deadline = Instant::now() + PATIENCE;
            while let KeeperState::Alive { renewals, .. } = keeper.state() {
                if renewals >= at_least {
                    return renewals;
                }
                tokio::time::timeout_at(deadline, keeper.next()).await.expect("in time");
            }
            panic!("the lease was lost: {:?}", keeper.state());
        })
    };
    // Six renewals are four seconds: twice its time to live.
    let before = renewed(6);
    server.kill();
    server.restart();
    renewed(before + 3);
    assert!(server.get("held").is_some());
    drop(keeper);
    server.wait_until_gone("held", PATIENCE);
}

#[test]
fn a_dead_endpoint_is_left_for_one_that_answers() {
    let server = Server::start();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let endpoints = [format!("http://{dead}"), server.url().to_owned()];
        let client = Client::connect(endpoints, ConnectOptions::default()).await.expect("a client");
        for number in 0..10 {
            // A refused connection proves that nothing was written: writes go on as well.
            client.put("key", number.to_string(), PutOptions::default()).await.expect("a put");
            let answer = client.get("key", GetOptions::default()).await.expect("a get");
            assert_eq!(
                (answer.kvs[0].value.as_ref(), answer.kvs[0].version),
                (number.to_string().as_bytes(), number + 1)
            );
        }
    });
}

#[test]
fn a_call_to_nobody_ends_with_an_error_in_time() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let options = ConnectOptions { request_timeout: Some(Duration::from_secs(1)), ..ConnectOptions::default() };
        let client = Client::connect([format!("http://{dead}")], options).await.expect("a client");
        let began = Instant::now();
        let error = client.get("key", GetOptions::default()).await.expect_err("nobody is there");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(matches!(error, Error::Unreachable(_) | Error::Deadline), "{error:?}");
    });
}

#[test]
fn a_thousand_calls_at_once_go_over_one_connection() {
    let server = Server::start();
    server.put("k", "v");
    let policy = Policy { attempts_max: 1, ..Policy::default() };
    let options = ConnectOptions { request_timeout: Some(PATIENCE), retry: policy, ..ConnectOptions::default() };
    Runtime::new().expect("a runtime").block_on(async {
        let client = Client::connect([server.url()], options).await.expect("a client");
        let mut calls = JoinSet::new();
        for _ in 0..1_000 {
            let client = client.clone();
            calls.spawn(async move {
                for _ in 0..20 {
                    // Nothing is sent again here: a connection that is given up fails all that are under way on it.
                    client.get("k", GetOptions::default()).await?;
                }
                Ok::<(), Error>(())
            });
        }
        while let Some(done) = calls.join_next().await {
            done.expect("no panic").expect("an answer");
        }
    });
}
